//! How a worker paces itself: whether it lets tokens gather, and which of its streams wait for prompts. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::nanos;

/// A turn that follows the one before so soon, and ends no request, is one of a busy stream of tokens.
const QUICK: Duration = Duration::from_micros(300);
/// After so many of these, tokens are let gather.
const QUICK_TURNS: u32 = 8;

/// How thick and fast tokens come.
#[derive(Debug, Default)]
pub(super) struct Rush {
    last_turn: u64,
    turns: u32,
}

impl Rush {
    /// A turn at `now`, in nanoseconds; `busy`: it brought bytes and ended no request.
    pub fn turn(&mut self, now: u64, busy: bool) {
        let quick = busy && now.saturating_sub(self.last_turn) < nanos(QUICK);
        self.last_turn = now;
        self.turns = if quick { self.turns.saturating_add(1) } else { 0 };
    }

    /// Whether reading many at once costs less than being woken for each.
    pub fn is_on(&self) -> bool {
        self.turns >= QUICK_TURNS
    }
}

/// Free streams that wait for prompts which are still being made: since when, in nanoseconds, the first of them first.
#[derive(Debug, Default)]
pub(super) struct Starving(VecDeque<u64>);

impl Starving {
    /// Streams that are noted, at most: a workload without a limit has any number of free ones.
    const MOST: usize = 4096;

    /// At `now` there was no prompt for any of the `free` streams.
    pub fn found_none(&mut self, free: usize, now: u64) {
        let more = free.min(Self::MOST).saturating_sub(self.0.len());
        self.0.extend(std::iter::repeat_n(now, more));
    }

    /// One of them has a prompt now: since when it waited, if it did.
    pub fn served(&mut self) -> Option<u64> {
        self.0.pop_front()
    }

    /// There are prompts again.
    pub fn over(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_gather_after_quick_turns_until_one_is_slow_or_ends_a_request() {
        let after = |turns: &[(u64, bool)]| {
            let mut rush = Rush::default();
            turns.iter().for_each(|(now, busy)| rush.turn(now * 1000, *busy));
            rush.is_on()
        };
        let quick: Vec<(u64, bool)> = (1..=8).map(|number| (number * 299, true)).collect();
        assert!(after(&quick) && !after(&quick[1..]));
        assert!(!after(&[&quick[..], &[(8 * 299 + 300, true)]].concat()), "a pause");
        assert!(!after(&[&quick[..], &[(8 * 299 + 1, false)]].concat()), "an end");
    }

    #[test]
    fn each_free_stream_waits_from_the_moment_at_which_it_found_no_prompt() {
        let mut starving = Starving::default();
        assert_eq!(starving.served(), None);
        starving.found_none(2, 10);
        // One gets a prompt, another becomes free.
        assert_eq!(starving.served(), Some(10));
        starving.found_none(2, 30);
        assert_eq!((starving.served(), starving.served(), starving.served()), (Some(10), Some(30), None));
        starving.found_none(usize::MAX, 40);
        assert_eq!(starving.0.len(), Starving::MOST);
        starving.over();
        assert_eq!(starving.served(), None);
    }
}

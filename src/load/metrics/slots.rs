//! Output tokens by the tenth of a second in which they came.

use super::super::sample::Sample;

/// Width of a slot in nanoseconds.
pub(super) const SLOT: u64 = 100_000_000;
/// Slots that are kept apart; what is longer is not looked at second by second.
const MOST_SLOTS: usize = 10_000_000;

/// Tokens in each slot, from the beginning of the workload on.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<u64>);

impl Slots {
    /// Counts the tokens of a request where they came.
    pub fn add(&mut self, sample: &Sample) {
        let mut count = |at: u64, tokens: u64| self.bump((at / SLOT) as usize, tokens);
        let Some(first) = sample.reply.first else {
            // Nobody saw them come.
            return spread(sample.started, sample.end(), sample.output_tokens().0, &mut count);
        };
        if sample.reply.samples > 1 {
            // The tokens of several samples come side by side.
            return spread(first, sample.reply.last, sample.output_tokens().0, &mut count);
        }
        let (mut at, mut before) = (first, 0);
        for number in 0..sample.reply.events {
            let so_far = sample.tokens_after(number + 1);
            count(at, so_far - before);
            before = so_far;
            at += sample.reply.gaps.get(number as usize).map_or(0, |gap| u64::from(*gap) * 100);
        }
    }

    fn bump(&mut self, at: usize, tokens: u64) {
        if at >= MOST_SLOTS {
            return;
        }
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].saturating_add(tokens);
    }

    /// The most tokens of one of the seconds that begin with the slot `first`.
    pub fn most_in_a_second(&self, first: u64) -> u64 {
        let slots = &self.0[self.within(first)..];
        slots.chunks((1_000_000_000 / SLOT) as usize).map(|second| second.iter().sum()).max().unwrap_or(0)
    }

    /// Tokens from the slot `first` on, to before the slot `last`.
    pub fn between(&self, first: u64, last: u64) -> u64 {
        self.0[self.within(first)..self.within(last)].iter().sum()
    }

    fn within(&self, slot: u64) -> usize {
        usize::try_from(slot).unwrap_or(usize::MAX).min(self.0.len())
    }
}

/// Tokens of which only the first and the last time are known, evenly in between.
fn spread(from: u64, to: u64, tokens: u64, count: &mut impl FnMut(u64, u64)) {
    let length = u128::from(to.saturating_sub(from));
    let at = |number: u64| u64::try_from(length * u128::from(number) / u128::from(tokens.max(1))).unwrap_or(u64::MAX);
    (0..tokens).for_each(|number| count(from + at(number), 1));
}

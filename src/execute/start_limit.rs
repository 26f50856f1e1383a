//! How long a server may take to become ready: a start that makes progress is given more time, one that makes none is ended early.
//!
//! Progress is whatever shows that something happens: lines in the log (and with them phases), processor time, bytes read and written
//! (weights, a compile cache), processes that are started (compilers).

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::stall::{Tail, tells_of_life};
use crate::process::activity::{Work, ticks_per_second};
use crate::process::{Members, stood_still};

/// How many times the limit a start that makes progress may take.
const TIMES: u32 = 3;
/// Looks within the shorter of the limits.
const LOOKS: u32 = 20;
/// Between two looks.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// A server that uses less of a core waits: its timers only.
const WORKS: f64 = 0.05;
/// Bytes in a second below which nothing is loaded: answers to those who ask whether it is ready.
const LOADS: f64 = 64.0 * 1024.0;
/// Silence that tells a start which stands still from a slow one, where there is no limit of silence.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// From launch to ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimit {
    /// So long.
    pub limit: Duration,
    /// A start that makes progress may take up to three times as long.
    pub extends: bool,
}

impl StartLimit {
    /// The longest that a start may take.
    pub fn most(self) -> Duration {
        if self.extends { self.limit.saturating_mul(TIMES) } else { self.limit }
    }
}

/// What a look at a start says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    GoOn,
    /// The limit is over, and progress is made: to be told, once.
    Extended,
    /// Without progress for so long.
    Silent(Duration),
}

/// The judgement. Pure: times are those since the launch.
#[derive(Debug)]
struct Progress {
    limit: StartLimit,
    silent: Option<Duration>,
    last: Duration,
    told: bool,
}

impl Progress {
    fn see(&mut self, moved: bool, now: Duration) -> Said {
        if moved {
            self.last = now;
        }
        let silence = now.saturating_sub(self.last);
        if self.silent.is_some_and(|most| silence >= most) {
            return Said::Silent(silence);
        }
        if !self.limit.extends || now < self.limit.limit {
            return Said::GoOn;
        }
        if silence >= silence_beyond(self.limit.limit, self.silent) {
            return Said::Silent(silence);
        }
        if std::mem::replace(&mut self.told, true) { Said::GoOn } else { Said::Extended }
    }
}

/// Silence with which a start whose limit is over counts as standing still.
pub(super) fn silence_beyond(limit: Duration, silent: Option<Duration>) -> Duration {
    silent.unwrap_or(SILENCE).min(limit / 2)
}

/// Watches a start.
pub(super) struct StartWatch {
    limit: StartLimit,
    silent: Option<Duration>,
    members: Members,
    log: Tail,
    /// When progress was last seen.
    progress: Mutex<Instant>,
}

impl StartWatch {
    /// Watches from now. `silent`: without progress for so long it is over; `None` = never.
    pub fn new(limit: StartLimit, silent: Option<Duration>, members: Members, log: &Path) -> Self {
        Self { limit, silent, members, log: Tail::at_end(log), progress: Mutex::new(Instant::now()) }
    }

    /// How long no progress has been seen.
    pub fn silence(&self) -> Duration {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Waits until there has been no progress for too long: for how long. The limit itself is watched by the caller. `tell`: the limit is
    /// over, and the start goes on.
    pub async fn silent(&self, tell: impl Fn()) -> Duration {
        let shortest = self.silent.map_or(self.limit.limit, |silent| silent.min(self.limit.limit));
        let interval = (shortest / LOOKS).clamp(INTERVALS[0], INTERVALS[1]);
        let mut judge = Progress { limit: self.limit, silent: self.silent, last: Duration::ZERO, told: false };
        let (launched, mut lost_so_far) = (Instant::now(), Duration::ZERO);
        let (mut log, mut before, mut at) = (self.log.clone(), Work::of(&self.members), Instant::now());
        loop {
            let began = Instant::now();
            tokio::time::sleep(interval).await;
            let now = Work::of(&self.members);
            let done = now.since(&before);
            let seconds = at.elapsed().as_secs_f64();
            (before, at) = (now, Instant::now());
            let works = done.ticks as f64 > (seconds * ticks_per_second() * WORKS).max(2.0);
            let loads = done.bytes as f64 > seconds * LOADS;
            let moved = log.has_news(tells_of_life) || works || loads || done.began > 0;
            if moved {
                *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            // Time in which this program itself was stopped is nobody's silence.
            lost_so_far += stood_still(began, interval);
            match judge.see(moved, launched.elapsed().saturating_sub(lost_so_far)) {
                Said::GoOn => {}
                Said::Extended => tell(),
                Said::Silent(silence) => return silence,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);
    const SILENT: Option<Duration> = Some(Duration::from_secs(120));

    /// What is said, with the second, as the first that is not to go on; a look each second.
    fn first(extends: bool, silent: Option<Duration>, moves: impl Fn(u64) -> bool, until: u64) -> Vec<(u64, Said)> {
        let mut judge =
            Progress { limit: StartLimit { limit: LIMIT, extends }, silent, last: Duration::ZERO, told: false };
        let mut said = Vec::new();
        for second in 1..=until {
            match judge.see(moves(second), Duration::from_secs(second)) {
                Said::GoOn => {}
                Said::Extended => said.push((second, Said::Extended)),
                over @ Said::Silent(_) => {
                    said.push((second, over));
                    break;
                }
            }
        }
        said
    }

    #[test]
    fn a_start_that_is_silent_ends_early_whatever_its_limit() {
        let silent = |second, seconds| vec![(second, Said::Silent(Duration::from_secs(seconds)))];
        for extends in [false, true] {
            assert_eq!(first(extends, SILENT, |_| false, 300), silent(120, 120));
            assert_eq!(first(extends, SILENT, |second| second <= 50, 300), silent(170, 120));
            assert_eq!(first(extends, None, |second| second > 280, 300).len(), usize::from(extends));
        }
    }

    #[test]
    fn one_that_makes_progress_outlives_a_limit_that_extends_and_no_other() {
        let slow = |second: u64| second.is_multiple_of(100);
        assert_eq!(first(true, SILENT, slow, 899), [(300, Said::Extended)]);
        // Its progress ends behind the limit.
        let ends = first(true, SILENT, |second| slow(second) && second <= 500, 899);
        assert_eq!(ends, [(300, Said::Extended), (620, Said::Silent(Duration::from_secs(120)))]);
        // Nothing is said of a limit that does not extend: the caller ends it.
        assert_eq!(first(false, SILENT, slow, 899), []);
        assert_eq!(StartLimit { limit: LIMIT, extends: true }.most(), Duration::from_secs(900));
        assert_eq!(StartLimit { limit: LIMIT, extends: false }.most(), LIMIT);
    }

    #[test]
    fn without_a_limit_of_silence_one_that_stands_still_ends_at_its_limit() {
        assert_eq!(first(true, None, |second| second < 100, 899), [(300, Said::Silent(Duration::from_secs(201)))]);
        assert_eq!(first(true, None, |second| second < 280, 899).first(), Some(&(300, Said::Extended)));
    }
}

//! Energy from counters that only grow, and now and then do not.

use std::time::Duration;

/// More than any device draws: a difference that means more is an error of the counter.
const MOST_WATTS: f64 = 20_000.0;

/// What a counter of energy says over time.
#[derive(Debug, Clone, Default)]
pub(super) struct EnergyCounter {
    last: Option<(u64, Duration)>,
    /// Joules since the first reading.
    joules: f64,
    /// Seconds of which the joules are known.
    known: Duration,
    /// Readings that were dropped.
    dropped: u32,
}

impl EnergyCounter {
    /// Takes a reading in microjoules; `range` is the value after which the counter begins again, where it says so. Returns the mean
    /// power since the last reading, in watts. A counter that runs backwards, or implies what no device draws, is dropped, and begins
    /// anew.
    pub fn read(&mut self, microjoules: u64, at: Duration, range: Option<u64>) -> Option<f64> {
        let (before, then) = self.last.replace((microjoules, at))?;
        let passed = at.checked_sub(then).filter(|passed| !passed.is_zero())?;
        let wrapped = || range.filter(|range| *range >= before).map(|range| range - before + microjoules);
        let difference = microjoules.checked_sub(before).or_else(wrapped);
        let joules = difference.map(|micro| micro as f64 / 1e6);
        let Some(joules) = joules.filter(|joules| joules / passed.as_secs_f64() <= MOST_WATTS) else {
            self.dropped += 1;
            return None;
        };
        self.joules += joules;
        self.known += passed;
        Some(joules / passed.as_secs_f64())
    }

    /// Joules since the first reading; `None` before the second.
    pub fn joules(&self) -> Option<f64> {
        (!self.known.is_zero()).then_some(self.joules)
    }

    /// How many readings were dropped.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }
}

/// What is said of readings that were dropped.
pub(super) fn dropped_warning(dropped: u32, whose: &str) -> Option<String> {
    let text =
        || format!("{dropped} reading(s) of the energy counter of {whose} were dropped: it ran backwards or jumped");
    (dropped > 0).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn energy_is_the_sum_of_differences() {
        let mut counter = EnergyCounter::default();
        assert_eq!(counter.read(5_000_000, seconds(0), None), None);
        assert_eq!(counter.joules(), None);
        assert_eq!(counter.read(205_000_000, seconds(1), None), Some(200.0));
        assert_eq!(counter.read(405_000_000, seconds(3), None), Some(100.0));
        assert_eq!(counter.joules(), Some(400.0));
    }

    #[test]
    fn a_counter_that_wraps_goes_on_where_its_range_is_known() {
        let mut counter = EnergyCounter::default();
        counter.read(9_000_000, seconds(0), Some(10_000_000));
        assert_eq!(counter.read(4_000_000, seconds(1), Some(10_000_000)), Some(5.0));
        assert_eq!((counter.joules(), counter.dropped()), (Some(5.0), 0));
    }

    #[test]
    fn what_runs_backwards_or_cannot_be_is_dropped_and_begins_anew() {
        let mut counter = EnergyCounter::default();
        counter.read(9_000_000, seconds(0), None);
        assert_eq!(counter.read(4_000_000, seconds(1), None), None);
        assert_eq!(counter.read(5_000_000, seconds(2), None), Some(1.0));
        assert_eq!(counter.read(u64::MAX / 2, seconds(3), None), None);
        assert_eq!((counter.joules(), counter.dropped()), (Some(1.0), 2));
    }

    #[test]
    fn two_readings_at_once_say_nothing() {
        let mut counter = EnergyCounter::default();
        counter.read(1, seconds(1), None);
        assert_eq!(counter.read(2, seconds(1), None), None);
        assert_eq!((counter.joules(), counter.dropped()), (None, 0));
    }
}

//! The workload's clock: nanoseconds since it began, monotonic. Arrival times come from the kernel where it keeps them.
//!
//! Linux can note when each packet arrived (`SO_TIMESTAMPING`, receive software time stamps). Read with the bytes, that
//! time does not depend on when this program came round to reading, which is what makes a client late at many streams. The
//! kernel notes real time; each turn of the loop takes both clocks, and the difference turns one into the other.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Which instant counts as the arrival of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrivalClock {
    /// When the kernel got the last packet of them.
    Kernel,
    /// When this program had read them.
    Read,
}

/// The clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
    /// Real time at monotonic zero, as of the last turn.
    offset: i128,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self::since(Instant::now())
    }

    /// A clock that began at `began`.
    pub fn since(began: Instant) -> Self {
        let mut clock = Self { began, offset: 0 };
        clock.turn();
        clock
    }

    /// Nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Compares both clocks, so that the next time stamps are read right even if real time was set.
    pub fn turn(&mut self) -> u64 {
        let now = self.now();
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        self.offset = i128::try_from(real).unwrap_or(0) - i128::from(now);
        now
    }

    /// A kernel's time stamp on this clock: never after `read`, when it was read, and never before `earliest`.
    pub fn arrival(&self, stamp_nanos: i128, earliest: u64, read: u64) -> u64 {
        let at = u64::try_from((stamp_nanos - self.offset).max(0)).unwrap_or(read);
        at.clamp(earliest.min(read), read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_lies_between_what_came_before_and_its_reading() {
        let clock = Clock { began: Instant::now(), offset: 1_000_000 };
        assert_eq!(clock.arrival(1_000_500, 100, 900), 500);
        assert_eq!(clock.arrival(2_000_000, 100, 900), 900);
        assert_eq!(clock.arrival(7, 100, 900), 100);
        assert_eq!(clock.arrival(7, 900, 100), 100);
    }
}

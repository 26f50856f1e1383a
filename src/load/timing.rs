//! Whose times a workload has: those of this machine, or others that the server tells with its answers. The sender asks here
//! wherever the two differ, and knows no more of them.

use std::fmt::Debug;

use super::wire::ToldTimes;

/// Where the times of requests come from; what is not said otherwise is this machine's. All are nanoseconds since the
/// beginning of the workload.
pub trait Timing: Debug + Send + Sync {
    /// Threads that may send, at most.
    fn most_threads(&self) -> usize {
        usize::MAX
    }

    /// How the times of tokens are read off an event; `None`: they are those of their arrival.
    fn told(&self) -> Option<ToldTimes> {
        None
    }

    /// Requests that are due up to this time may be sent `now`.
    fn horizon(&self, now: u64) -> u64 {
        now
    }

    /// When a request starts that is sent `now`.
    fn start(&self, index: u64, due: Option<u64>, now: u64) -> u64 {
        let _ = (index, due);
        now
    }

    /// Headers of a request beside those that all have, each with its line end.
    fn headers(&self, index: u64, started: u64) -> String {
        let _ = (index, started);
        String::new()
    }

    /// How late a request started that was due.
    fn lateness(&self, due: u64, started: u64) -> u64 {
        started.saturating_sub(due)
    }

    /// When the connection of a request was there, if that takes time.
    fn connected(&self, now: u64, started: u64) -> Option<u64> {
        Some(now.max(started))
    }

    /// When bytes came to a request: what the kernel got before it was sent belongs to nobody.
    fn arrival(&self, at: u64, started: u64) -> u64 {
        at.max(started)
    }

    /// From when on a request may take as long as `--request-timeout`; `heard`: its last token on this machine's clock.
    fn limited_from(&self, started: u64, heard: u64) -> u64 {
        let _ = heard;
        started
    }

    /// When a request ended; `last`: the last of its tokens, `at`: the end of its answer on this machine's clock.
    fn end(&self, started: u64, last: u64, at: u64) -> u64 {
        let _ = (started, last);
        at
    }
}

/// This machine's times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine;

impl Timing for Machine {}

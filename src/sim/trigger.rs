//! When the faults `die-in-benchmark` and `hang-in-benchmark` strike.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::fault::DieAfter;
use super::scheduler::Nanos;

/// Fires once when measured requests have got so far.
#[derive(Debug)]
pub struct Trigger {
    after: DieAfter,
    /// Only in this benchmark of the server start; `None` = in any.
    load: Option<u64>,
    completed: AtomicU64,
    fired: AtomicBool,
    /// Somebody waits for it here.
    pub notify: Notify,
}

impl Trigger {
    /// A trigger that has not fired.
    pub fn new(after: DieAfter, load: Option<u64>) -> Trigger {
        Trigger { after, load, completed: AtomicU64::new(0), fired: AtomicBool::new(false), notify: Notify::new() }
    }

    /// In the n-th benchmark so many more requests were completed, so long after the first arrived: does it fire (or has it)?
    pub fn check(&self, load: u64, newly_completed: u64, elapsed: Nanos) -> bool {
        if self.load.is_some_and(|only| only != load) {
            return false;
        }
        let completed = self.completed.fetch_add(newly_completed, Ordering::Relaxed) + newly_completed;
        let fire = match self.after {
            DieAfter::Requests(n) => completed >= n,
            DieAfter::Seconds(seconds) => elapsed as f64 / 1e9 >= seconds,
        };
        if fire && !self.fired.swap(true, Ordering::Relaxed) {
            self.notify.notify_one();
        }
        fire
    }
}

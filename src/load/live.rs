//! How a workload goes, while it goes: counters that any thread may read, and the wish to stop.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a workload goes, while it goes.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests sent.
    pub sent: AtomicU64,
    /// Requests under way.
    pub active: AtomicU64,
    /// Most requests under way at once.
    pub peak: AtomicU64,
    /// Requests over.
    pub done: AtomicU64,
    /// Failed ones among them.
    pub failed: AtomicU64,
    /// Output tokens of requests that are over.
    pub tokens: AtomicU64,
    /// Sum of their times to first token in microseconds.
    pub ttft_sum_us: AtomicU64,
    /// Number of those.
    pub ttft_count: AtomicU64,
    /// When it began.
    began: OnceLock<Instant>,
    /// Nanoseconds after that: the last token of any request, or the end of one.
    moved: AtomicU64,
    /// The last movement of the server's counters, and whether it has any.
    server_moved: AtomicU64,
    server_counts: AtomicBool,
    /// The signal that asked to stop; 0: none.
    stop: AtomicU8,
    abort: AtomicBool,
}

impl Live {
    /// The server's counters have been read; `moved`: they are others than before.
    pub fn server_counted(&self, moved: bool) {
        let now = self.began.get().map_or(0, |began| u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if moved || !self.server_counts.swap(true, Ordering::Relaxed) {
            self.server_moved.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The beginning, which is now if it was not before.
    pub(super) fn begin(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    /// A token came, or a request ended.
    pub(super) fn moves(&self, at: u64) {
        self.moved.fetch_max(at, Ordering::Relaxed);
    }

    /// Since when nothing has moved, where that can be told. `streams`: tokens can be seen as they come.
    pub(super) fn still_since(&self, streams: bool) -> Option<u64> {
        let counts = self.server_counts.load(Ordering::Relaxed);
        let server = if counts { self.server_moved.load(Ordering::Relaxed) } else { 0 };
        (streams || counts).then(|| self.moved.load(Ordering::Relaxed).max(server))
    }

    /// Sends nothing more and gives up what is under way, as this signal asks.
    pub fn stop(&self, signal: u8) {
        self.stop.store(signal, Ordering::Relaxed);
    }

    /// The signal that asked to stop.
    pub fn stopped_by(&self) -> Option<u8> {
        Some(self.stop.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped_by().is_some()
    }

    /// Comes back when somebody asked to stop.
    pub async fn stopped(&self) {
        while !self.is_stopped() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_stopped() || self.abort.load(Ordering::Relaxed)
    }

    pub(super) fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stillness_is_told_by_streams_or_by_the_counters_of_the_server() {
        let live = Live::default();
        live.moves(70);
        live.moves(30);
        assert_eq!((live.still_since(true), live.still_since(false)), (Some(70), None));
        // It has counters, whether they moved or not.
        live.server_counted(false);
        assert_eq!(live.still_since(false), Some(70));
    }

    #[test]
    fn it_is_over_when_a_signal_asks_or_when_it_is_given_up() {
        let live = Live::default();
        assert!(!live.is_over());
        live.abort();
        assert_eq!((live.is_over(), live.is_stopped(), live.stopped_by()), (true, false, None));
        let live = Live::default();
        live.stop(15);
        assert_eq!((live.is_over(), live.is_stopped(), live.stopped_by()), (true, true, Some(15)));
    }
}

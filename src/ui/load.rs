//! A load as it goes: a bar in a terminal, a line now and then in a pipe.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Ui;
use crate::load::session::Live;

/// In a pipe, how often a line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows a load on stderr.
#[derive(Debug)]
pub struct LoadScreen {
    ui: Ui,
    bar: ProgressBar,
    total: Option<u64>,
    told: Cell<Duration>,
    wanted: bool,
    last: Cell<(Duration, u64)>,
    rate: Cell<f64>,
}

impl LoadScreen {
    /// For a load of so many requests, if known.
    pub fn new(ui: &Ui, total: Option<u64>, wanted: bool) -> Self {
        let bar = match (ui.display.live && wanted, total) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(total)) => ProgressBar::new(total),
            (true, None) => ProgressBar::new_spinner(),
        };
        let template =
            if total.is_some() { "  {bar:24} {pos}/{len} {wide_msg}" } else { "  {spinner} {pos} {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            ui: ui.clone(),
            bar,
            total,
            told: Cell::new(Duration::ZERO),
            wanted,
            last: Cell::new((Duration::ZERO, 0)),
            rate: Cell::new(0.0),
        }
    }

    /// Shows how it goes now.
    pub fn show(&self, live: &Live, elapsed: Duration) {
        if !self.wanted {
            return;
        }
        let count = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed);
        let (done, failed, active) = (count(&live.done), count(&live.failed), count(&live.active));
        let (at, before) = self.last.get();
        let span = elapsed.saturating_sub(at);
        if span >= Duration::from_secs(1) {
            self.rate.set((done.saturating_sub(before)) as f64 / span.as_secs_f64());
            self.last.set((elapsed, done));
        }
        let ttft = match count(&live.ttft_count) {
            0 => String::new(),
            many => format!(", TTFT {:.1} ms", count(&live.ttft_sum_us) as f64 / many as f64 / 1e3),
        };
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let text = format!("{:.1} requests/s, {active} under way{ttft}{failed}", self.rate.get());
        self.bar.set_position(done);
        self.bar.set_message(text.clone());
        if !self.ui.display.live && elapsed.saturating_sub(self.told.get()) >= PLAIN_EVERY {
            self.told.set(elapsed);
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            self.ui.say(&format!("{done}{of} requests after {:.0} s: {text}", elapsed.as_secs_f64()));
        }
    }
}

impl Drop for LoadScreen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

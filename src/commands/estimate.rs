//! What a sweep will take, as far as earlier runs on this machine tell.

use crate::config::Settings;
use crate::plan::Counts;

use super::wording;

/// Two lines: the most that the limits allow, and what to expect.
pub fn text(settings: &Settings, counts: &Counts) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of experiments are far below 2^52")]
    let most = counts.starts as f64 * (settings.timeout_startup + settings.grace).as_secs_f64()
        + counts.measurements as f64 * (settings.timeout_benchmark + settings.cooldown).as_secs_f64();
    format!("  at most {} by the limits, when nothing is tried again\n", wording::seconds(most))
}

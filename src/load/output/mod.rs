//! What a workload writes: vLLM's result file and console block, and a table of its requests. Bytes only; who writes them where
//! is not decided here.

mod console;
mod csv;
mod result;

pub use console::console;
pub use csv::{REQUEST_COLUMNS, RequestRow};
pub use result::{Details, Subject, python_json, result};

use super::metrics::{Metrics, Summary};

/// The metrics with what vLLM calls them: (flag, header, name).
fn named(metrics: &Metrics) -> [(&'static str, &'static str, &'static str, &Summary); 4] {
    [
        ("ttft", "Time to First Token", "TTFT", &metrics.ttft),
        ("tpot", "Time per Output Token (excl. 1st token)", "TPOT", &metrics.tpot),
        ("itl", "Inter-token Latency", "ITL", &metrics.itl),
        ("e2el", "End-to-end Latency", "E2EL", &metrics.e2el),
    ]
}

/// A percentile as vLLM names it: `99`, `99.9`.
fn percentile_name(which: f64) -> String {
    if which.fract() == 0.0 { format!("{}", which as i64) } else { format!("{which}") }
}

/// A rate as Python prints it.
fn rate_name(rate: f64) -> String {
    if rate.is_finite() { format!("{rate:?}") } else { "inf".into() }
}

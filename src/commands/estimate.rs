//! What a sweep will take, as far as earlier runs on this machine tell.

use std::path::Path;

use crate::commands::format;
use crate::config::Settings;
use crate::plan::Counts;
use crate::record::{ResultRecord, list_runs};
use crate::stats::mean;

/// So many runs are looked into, newest first.
const RUNS: usize = 20;
/// So many results are read in all.
const RESULTS: usize = 300;

/// What earlier measurements took.
#[derive(Debug, Default)]
struct Past {
    /// From launch to ready, and from the first signal to the proof; seconds.
    starts: Vec<f64>,
    /// The clients, seconds.
    measurements: Vec<f64>,
    /// Results, logs and scripts of a measurement, bytes.
    bytes: Vec<f64>,
}

/// The most that the limits allow, what to expect, and the disk it needs.
pub fn text(settings: &Settings, counts: &Counts) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of experiments are far below 2^52")]
    let (starts, measurements) = (counts.starts as f64, counts.measurements as f64);
    let most = starts * (settings.start_limit.most() + settings.grace).as_secs_f64()
        + measurements * (settings.timeout_benchmark + settings.cooldown).as_secs_f64();
    let past = Past::read(&settings.results_dir, settings.simulated());
    let expected = match (mean(past.starts.iter().copied()), mean(past.measurements.iter().copied())) {
        (Some(start), Some(measurement)) => {
            let seconds = starts * start + measurements * (measurement + settings.cooldown.as_secs_f64());
            format!(
                "about {}, by {} in `{}`",
                format::seconds(seconds),
                format::count(past.measurements.len(), "earlier measurement"),
                settings.results_dir.display()
            )
        }
        _ => "not known: no earlier run in the results directory".to_owned(),
    };
    let disk = match mean(past.bytes.iter().copied()) {
        Some(bytes) => format!("about {}", size(bytes * measurements)),
        None => "not known".to_owned(),
    };
    format!(
        "time: {expected}; at most {} by the limits, when nothing is tried again\ndisk: {disk}\n",
        format::seconds(most)
    )
}

impl Past {
    /// Reads the newest runs of a results directory. Torn and foreign files are passed over.
    fn read(results_dir: &Path, simulated: bool) -> Self {
        let mut past = Self::default();
        for run in list_runs(results_dir).unwrap_or_default().into_iter().rev().take(RUNS) {
            let Ok(manifest) = run.manifest() else { continue };
            if manifest.simulated != simulated {
                continue;
            }
            let before = past.measurements.len();
            for experiment in &manifest.plan.experiments {
                if past.measurements.len() >= RESULTS {
                    return past;
                }
                let record = ResultRecord::read(&run.layout().result(&experiment.name)).ok();
                let Some(meta) = record.and_then(|record| record.vllm_bench) else { continue };
                past.measurements.extend(meta.timings.benchmark);
                if let Some(startup) = meta.timings.startup {
                    past.starts.push(startup + meta.timings.teardown.unwrap_or_default());
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "sizes of files and counts of results")]
            match past.measurements.len() - before {
                0 => {}
                found => past.bytes.push(bytes_below(run.path()) as f64 / found as f64),
            }
        }
        past
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn size(bytes: f64) -> String {
    match bytes {
        0.0..1e6 => format!("{:.0} kB", (bytes / 1e3).max(1.0)),
        1e6..1e9 => format!("{:.0} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

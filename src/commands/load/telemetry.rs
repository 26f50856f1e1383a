//! `--telemetry`: what the devices report while a workload runs, in a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::files::failed;
use crate::error::Error;
use crate::telemetry::devices::detect;
use crate::telemetry::{Gauge, Probe, gauges};
use crate::ui::Ui;

/// How often the devices are asked.
const EVERY: Duration = Duration::from_millis(500);
/// S3's columns.
const COLUMNS: [&str; 9] = [
    "timestamp",
    "elapsed_ms",
    "gpu_id",
    "gpu_utilization_pct",
    "vram_used_mb",
    "vram_total_mb",
    "vram_utilization_pct",
    "temperature_c",
    "power_usage_w",
];

/// Devices that are being asked.
#[derive(Debug)]
pub(super) struct Telemetry {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<std::io::Result<u64>>,
}

impl Telemetry {
    /// Begins to ask; `None`, with a warning, where no device tells anything.
    pub async fn begin(probe: &Probe, path: PathBuf, ui: &Ui) -> Result<Option<Self>, Error> {
        let probe = probe.clone();
        let found = tokio::task::spawn_blocking(move || {
            let report = detect(&probe);
            let tells = !gauges(&probe, &report).is_empty();
            (probe, report, tells)
        })
        .await;
        let Ok((probe, report, true)) = found else {
            ui.warn("--telemetry: no device here tells of itself; the workload goes on without");
            return Ok(None);
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        }
        let mut rows = csv::Writer::from_path(&path).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        rows.write_record(COLUMNS).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let asking = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let mut lines = 0;
            loop {
                let (at, elapsed) = (chrono::Utc::now(), began.elapsed());
                for gauge in gauges(&probe, &report) {
                    rows.write_record(fields(&gauge, &at, elapsed)).map_err(std::io::Error::other)?;
                    lines += 1;
                }
                rows.flush()?;
                if told.load(Ordering::Relaxed) {
                    return Ok(lines);
                }
                std::thread::sleep(EVERY.saturating_sub(began.elapsed().saturating_sub(elapsed)));
            }
        });
        Ok(Some(Self { path, stop, asking }))
    }

    /// Ends it. What could not be written is a warning: the workload itself is measured.
    pub async fn end(self, ui: &Ui) {
        self.stop.store(true, Ordering::Relaxed);
        let path: &Path = &self.path;
        match self.asking.await {
            Ok(Ok(lines)) => ui.say(&format!("telemetry: {} ({lines} lines)", path.display())),
            Ok(Err(error)) => ui.warn(&format!("telemetry: cannot write `{}`: {error}", path.display())),
            Err(_) => ui.warn("telemetry: the thread that asked the devices died"),
        }
    }
}

fn fields(gauge: &Gauge, at: &chrono::DateTime<chrono::Utc>, elapsed: Duration) -> [String; 9] {
    let number = |value: Option<f64>| value.map(|value| format!("{value:.1}")).unwrap_or_default();
    let mebibytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    let (used, total) = (mebibytes(gauge.memory_used_bytes), mebibytes(gauge.memory_total_bytes));
    let share = used.zip(total).filter(|(_, total)| *total > 0.0).map(|(used, total)| 100.0 * used / total);
    [
        at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        elapsed.as_millis().to_string(),
        gauge.index.to_string(),
        number(gauge.utilization_pct),
        number(used),
        number(total),
        number(share),
        number(gauge.temperature_c),
        number(gauge.power_w),
    ]
}

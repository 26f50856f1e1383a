//! `--telemetry`: what the devices report while a workload runs, in a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::files::failed;
use super::progress::Progress;
use crate::error::Error;
use crate::telemetry::devices::detect;
use crate::telemetry::{DEVICE_COLUMNS, Probe, Sampler, inventory};
use crate::ui::Ui;

/// How often the devices are asked.
const EVERY: Duration = Duration::from_millis(500);
/// Devices that are being asked.
#[derive(Debug)]
pub(super) struct Telemetry {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<std::io::Result<u64>>,
}

impl Telemetry {
    /// Begins to ask; `None`, with a warning, where no device tells anything.
    pub async fn begin(probe: &Probe, path: PathBuf, progress: Arc<Progress>, ui: &Ui) -> Result<Option<Self>, Error> {
        let probe = probe.clone();
        let found = tokio::task::spawn_blocking(move || {
            let kind = detect(&probe).kind;
            let units = inventory(&probe, kind, 0).units;
            let mut sampler = Sampler::new(probe, kind, &units);
            let tells = !sampler.sample(&[], &[]).devices.is_empty();
            tells.then_some((sampler, units))
        })
        .await;
        let Ok(Some((mut sampler, units))) = found else {
            ui.warn("--telemetry: no device here tells of itself; the workload goes on without");
            return Ok(None);
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        }
        let mut rows = csv::Writer::from_path(&path).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        rows.write_record(DEVICE_COLUMNS).map_err(|error| failed(&path, std::io::Error::other(error)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let asking = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let mut lines = 0;
            loop {
                let (at, elapsed) = (chrono::Utc::now(), began.elapsed());
                let clock = at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
                let devices = sampler.sample(&[], &[]).devices;
                progress.devices(&devices);
                for device in devices {
                    // As the runtime counts them.
                    let unit = units.iter().find(|unit| unit.address == device.address);
                    let id = unit.map_or(&device.address, |unit| &unit.mask);
                    rows.write_record(device.cells(id, &clock, elapsed)).map_err(std::io::Error::other)?;
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

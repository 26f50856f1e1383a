//! What devices and host do while a measurement runs: one sample after the other, from counters and gauges of the kernel first and
//! from vendors' tools where these say nothing.
//!
//! Pure readers over an injectable root; the thread that calls them is the caller's. What a source does not tell is absent, never 0.

mod amd;
mod counter;
mod host;
mod hwmon;
mod intel;
mod nvidia;
mod summary;

use std::time::{Duration, Instant};

use super::devices::DeviceKind;
use super::probe::Probe;
use crate::model::ComputeUnit;

pub use host::HostSample;
pub use summary::summarize;

/// One device at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceSample {
    /// As [`ComputeUnit::address`].
    pub address: String,
    /// Share of the time since the last sample in which it worked, percent.
    pub utilization_pct: Option<f64>,
    /// Bytes of memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Bytes of memory.
    pub memory_total_bytes: Option<u64>,
    /// Watts: the mean since the last sample where energy is counted, else what the driver says of this moment.
    pub power_w: Option<f64>,
    /// Joules since the sampler began.
    pub energy_j: Option<f64>,
    /// Temperature of the package, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Temperature of its memory, degrees Celsius.
    pub memory_temperature_c: Option<f64>,
    /// Clock of its cores, MHz.
    pub clock_mhz: Option<f64>,
    /// Why it is slower than it could be, in the driver's words; empty where it is not, or nothing says so.
    pub throttled: Vec<String>,
}

/// The columns of a series that are a device's, with their time before them: those of the older load generator.
pub const DEVICE_COLUMNS: [&str; 9] = [
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

/// A number in a series; nothing where it is not known.
pub fn cell(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.1}")).unwrap_or_default()
}

/// Bytes in MiB.
pub fn mebibytes(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
}

impl DeviceSample {
    /// Its [`DEVICE_COLUMNS`], under this name of the device.
    pub fn cells(&self, id: &str, clock: &str, at: Duration) -> [String; 9] {
        let (used, total) = (mebibytes(self.memory_used_bytes), mebibytes(self.memory_total_bytes));
        let share = used.zip(total).filter(|(_, total)| *total > 0.0).map(|(used, total)| 100.0 * used / total);
        [
            clock.to_owned(),
            at.as_millis().to_string(),
            id.to_owned(),
            cell(self.utilization_pct),
            cell(used),
            cell(total),
            cell(share),
            cell(self.temperature_c),
            cell(self.power_w),
        ]
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Since the sampler began.
    pub at: Duration,
    /// The devices that tell anything.
    pub devices: Vec<DeviceSample>,
    /// The host.
    pub host: HostSample,
}

/// A kind of devices, read one sample after the other.
trait Source: Send + std::fmt::Debug {
    /// All its devices now, `at` since the sampler began.
    fn read(&mut self, probe: &Probe, at: Duration) -> Vec<DeviceSample>;

    /// Where its energy comes from, in words; `None` where it counts none.
    fn energy_from(&self) -> Option<String>;

    /// What was dropped, in sentences.
    fn warnings(&self) -> Vec<String>;
}

/// Takes samples of some devices and of the host.
#[derive(Debug)]
pub struct Sampler {
    probe: Probe,
    source: Option<Box<dyn Source>>,
    host: host::HostSource,
    began: Instant,
}

impl Sampler {
    /// A sampler of these devices.
    pub fn new(probe: Probe, kind: DeviceKind, units: &[ComputeUnit]) -> Self {
        let source: Option<Box<dyn Source>> = match kind {
            DeviceKind::Xpu => Some(Box::new(intel::Intel::new(&probe, units))),
            DeviceKind::Cuda => Some(Box::new(nvidia::Nvidia::new(units))),
            DeviceKind::Rocm => Some(Box::new(amd::Amd::new(&probe, units))),
            DeviceKind::Cpu => None,
        };
        let host = host::HostSource::new(&probe);
        Self { probe, source, host, began: Instant::now() }
    }

    /// One sample. `server` and `client`: processes whose share of the processors is given for each of the two.
    pub fn sample(&mut self, server: &[i32], client: &[i32]) -> Sample {
        self.sample_at(self.began.elapsed(), server, client)
    }

    fn sample_at(&mut self, at: Duration, server: &[i32], client: &[i32]) -> Sample {
        let devices = self.source.as_mut().map(|source| source.read(&self.probe, at)).unwrap_or_default();
        let host = self.host.read(&self.probe, at, server, client);
        Sample { at, devices, host }
    }

    /// Where the energy of devices comes from, in words; `None` where nothing counts it.
    pub fn energy_from(&self) -> Option<String> {
        self.source.as_ref().and_then(|source| source.energy_from())
    }

    /// What was dropped so far, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.source.as_ref().map(|source| source.warnings()).unwrap_or_default();
        warnings.extend(self.host.warnings());
        warnings
    }
}

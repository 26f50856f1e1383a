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
mod vendor;

use std::time::{Duration, Instant};

use super::devices::DeviceKind;
use super::probe::Probe;
use crate::model::ComputeUnit;

use vendor::Tool;

pub use host::{Counted, HostSample};
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
    /// Whether the kernel, or a library, tells the power of all its devices.
    fn tells_power(&self) -> bool;

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
    cards: Vec<ComputeUnit>,
    source: Option<Box<dyn Source>>,
    /// What is asked beside it, where it does not tell the power of all.
    tool: Option<Tool>,
    host: host::HostSource,
    began: Instant,
    /// What is said of parts of cards.
    parts: Vec<String>,
}

impl Sampler {
    /// A sampler of these devices.
    pub fn new(probe: Probe, kind: DeviceKind, units: &[ComputeUnit]) -> Self {
        let (cards, parts) = whole_cards(units);
        let source: Option<Box<dyn Source>> = match kind {
            DeviceKind::Xpu => Some(Box::new(intel::Intel::new(&probe, &cards))),
            DeviceKind::Cuda => Some(Box::new(nvidia::Nvidia::new(&cards))),
            DeviceKind::Rocm => Some(Box::new(amd::Amd::new(&probe, &cards))),
            DeviceKind::Cpu => None,
        };
        let untold = !cards.is_empty() && source.as_ref().is_some_and(|source| !source.tells_power());
        let tool = match kind {
            DeviceKind::Xpu if untold => Tool::of_intel(&probe),
            DeviceKind::Rocm if untold => Tool::of_amd(&probe),
            // `nvidia-smi` is asked where NVML cannot be loaded, by the source itself.
            DeviceKind::Xpu | DeviceKind::Rocm | DeviceKind::Cuda | DeviceKind::Cpu => None,
        };
        let host = host::HostSource::new(&probe);
        Self { probe, cards, source, tool, host, began: Instant::now(), parts }
    }

    /// One sample. `server` and `client`: processes whose share of the processors is given for each of the two.
    pub fn sample(&mut self, server: &[i32], client: &[i32]) -> Sample {
        self.sample_at(self.began.elapsed(), server, client)
    }

    fn sample_at(&mut self, at: Duration, server: &[i32], client: &[i32]) -> Sample {
        let mut devices = self.source.as_mut().map(|source| source.read(&self.probe, at)).unwrap_or_default();
        let told = self.tool.as_ref().map(|tool| tool.samples(&self.probe)).unwrap_or_default();
        for card in &self.cards {
            let Some(told) = told.get(&card.address) else { continue };
            match devices.iter_mut().find(|sample| sample.address == card.address) {
                Some(sample) => vendor::fill(sample, told),
                None => devices.push(told.clone()),
            }
        }
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
        warnings.extend(self.parts.iter().cloned());
        warnings
    }

    /// The program that is asked beside the kernel; `None` where the kernel says enough, or there is none.
    pub fn tool(&self) -> Option<&'static str> {
        self.tool.as_ref().map(Tool::name)
    }

    /// Whether the energy of the processors can be read.
    pub fn counts_processors(&self) -> host::Counted {
        self.host.counted()
    }
}

/// The cards to which units belong, each once: sensors are those of a card, and tiles or partitions have none of their own. With what is
/// said of cards of which only a part is among them.
fn whole_cards(units: &[ComputeUnit]) -> (Vec<ComputeUnit>, Vec<String>) {
    let mut cards: Vec<ComputeUnit> = Vec::new();
    let mut parts: Vec<(String, usize)> = Vec::new();
    for unit in units {
        let Some((card, _)) = unit.address.split_once('/') else {
            cards.push(unit.clone());
            continue;
        };
        if let Some((known, (_, count))) =
            cards.iter_mut().find(|known| known.address == card).zip(parts.iter_mut().find(|(known, _)| known == card))
        {
            known.memory_bytes = known.memory_bytes.zip(unit.memory_bytes).map(|(a, b)| a.saturating_add(b));
            *count += 1;
            continue;
        }
        cards.push(ComputeUnit { address: card.to_owned(), ..unit.clone() });
        parts.push((card.to_owned(), 1));
    }
    let of_a_part = |(card, count): (String, usize)| {
        (count == 1)
            .then(|| format!("power, energy and use are those of the whole card {card}, of which only a part was used"))
    };
    (cards, parts.into_iter().filter_map(of_a_part).collect())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn unit(address: &str) -> ComputeUnit {
        ComputeUnit { address: address.into(), memory_bytes: Some(64), ..ComputeUnit::default() }
    }

    #[test]
    fn two_tiles_of_a_card_are_one_card_and_its_energy_counts_once() {
        let (cards, told) = whole_cards(&["0000:03:00.0/tile0", "0000:03:00.0/tile1", "0000:13:00.0"].map(unit));
        let shown: Vec<_> = cards.iter().map(|card| (card.address.as_str(), card.memory_bytes)).collect();
        assert_eq!(shown, [("0000:03:00.0", Some(128)), ("0000:13:00.0", Some(64))]);
        assert!(told.is_empty());
        let (_, told) = whole_cards(&[unit("0000:03:00.0/tile1")]);
        assert!(told[0].contains("the whole card 0000:03:00.0"), "{told:?}");
    }

    #[test]
    fn where_the_kernel_tells_no_power_the_vendor_s_tool_does() {
        let tree = Tree::new();
        tree.render_node(128, ("0x1002", "0x74a1"), "amdgpu", "0000:c3:00.0");
        tree.file("sys/class/drm/renderD128/device/gpu_busy_percent", "97");
        let units = ["0000:c3:00.0", "0000:c4:00.0"].map(unit);
        assert_eq!(Sampler::new(tree.probe(), DeviceKind::Rocm, &units).tool(), None, "there is no tool");
        tree.tool_that_prints(
            "rocm-smi",
            r#"{"card0": {"PCI Bus": "0000:C3:00.0", "Average Graphics Package Power (W)": "128.0", "GPU use (%)": "3"},
                "card1": {"PCI Bus": "0000:C4:00.0", "Current Socket Graphics Package Power (W)": "64.0"}}"#,
        );
        let mut sampler = Sampler::new(tree.probe(), DeviceKind::Rocm, &units);
        assert_eq!(sampler.tool(), Some("rocm-smi"));
        let sample = sampler.sample(&[], &[]);
        let shown: Vec<_> = sample.devices.iter().map(|device| (device.power_w, device.utilization_pct)).collect();
        assert_eq!(shown, [(Some(128.0), Some(97.0)), (Some(64.0), None)], "the kernel's word comes first");
    }
}

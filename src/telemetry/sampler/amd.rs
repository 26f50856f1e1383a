//! AMD GPUs under amdgpu: hwmon's sensors, `gpu_busy_percent`, `mem_info_vram_*` (<https://docs.kernel.org/gpu/amdgpu/thermal.html>).

use std::path::PathBuf;
use std::time::Duration;

use super::super::drm;
use super::super::probe::{Probe, read_number};
use super::counter::dropped_warning;
use super::hwmon::Sensors;
use super::{DeviceSample, Source};
use crate::model::ComputeUnit;

/// The AMD GPUs of a sampler.
#[derive(Debug)]
pub(super) struct Amd {
    cards: Vec<Card>,
    /// Whether the kernel shows every one of them.
    all_found: bool,
}

#[derive(Debug)]
struct Card {
    address: String,
    sysfs: PathBuf,
    sensors: Sensors,
}

impl Amd {
    /// The cards to which these units belong.
    pub fn new(probe: &Probe, units: &[ComputeUnit]) -> Self {
        let nodes = drm::render_nodes(probe, drm::AMD);
        let card = |unit: &ComputeUnit| {
            let node = nodes.iter().find(|node| node.pci_address.as_ref() == Some(&unit.address))?;
            Some(Card { address: unit.address.clone(), sensors: Sensors::of(&node.sysfs), sysfs: node.sysfs.clone() })
        };
        let cards: Vec<Card> = units.iter().filter_map(card).collect();
        Self { all_found: cards.len() == units.len(), cards }
    }
}

impl Source for Amd {
    fn tells_power(&self) -> bool {
        self.all_found && self.cards.iter().all(|card| card.sensors.tell_power())
    }

    fn read(&mut self, _: &Probe, at: Duration) -> Vec<DeviceSample> {
        let sample = |card: &mut Card| {
            let (power_w, energy_j) = card.sensors.power(at);
            let number = |name: &str| read_number(&card.sysfs.join(name));
            DeviceSample {
                address: card.address.clone(),
                utilization_pct: number("gpu_busy_percent").filter(|share| *share <= 100).map(|share| share as f64),
                memory_used_bytes: number("mem_info_vram_used"),
                memory_total_bytes: number("mem_info_vram_total"),
                power_w,
                energy_j,
                // `edge` is missing on data-centre cards, whose hottest place is `junction`.
                temperature_c: card.sensors.temperature(&["junction"], &[1]),
                memory_temperature_c: card.sensors.temperature(&["mem"], &[]),
                clock_mhz: card.sensors.clock(),
                throttled: Vec::new(),
            }
        };
        self.cards.iter_mut().map(sample).collect()
    }

    fn energy_from(&self) -> Option<String> {
        let counted = self.cards.iter().any(|card| card.sensors.energy_from().is_some());
        counted.then(|| "the energy counter of hwmon".to_owned())
    }

    fn warnings(&self) -> Vec<String> {
        self.cards.iter().filter_map(|card| dropped_warning(card.sensors.dropped(), &card.address)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::devices::DeviceKind;
    use super::super::super::fixture::Tree;
    use super::super::Sampler;
    use super::*;

    #[test]
    fn sensors_of_sysfs_are_read() {
        let tree = Tree::new();
        tree.render_node(128, ("0x1002", "0x74a1"), "amdgpu", "0000:c3:00.0");
        let card = "sys/class/drm/renderD128/device";
        for (name, value) in [
            ("gpu_busy_percent", "97"),
            ("mem_info_vram_used", "1024"),
            ("mem_info_vram_total", "4096"),
            ("hwmon/hwmon3/power1_average", "350000000"),
            ("hwmon/hwmon3/temp1_label", "junction"),
            ("hwmon/hwmon3/temp1_input", "71000"),
            ("hwmon/hwmon3/temp2_label", "mem"),
            ("hwmon/hwmon3/temp2_input", "60000"),
            ("hwmon/hwmon3/freq1_input", "2100000000"),
        ] {
            tree.file(&format!("{card}/{name}"), value);
        }
        let unit = ComputeUnit { address: "0000:c3:00.0".to_owned(), ..ComputeUnit::default() };
        let mut sampler = Sampler::new(tree.probe(), DeviceKind::Rocm, &[unit]);
        let sample = sampler.sample_at(Duration::ZERO, &[], &[]).devices.remove(0);
        let expected = DeviceSample {
            address: "0000:c3:00.0".to_owned(),
            utilization_pct: Some(97.0),
            memory_used_bytes: Some(1024),
            memory_total_bytes: Some(4096),
            power_w: Some(350.0),
            energy_j: None,
            temperature_c: Some(71.0),
            memory_temperature_c: Some(60.0),
            clock_mhz: Some(2100.0),
            throttled: Vec::new(),
        };
        assert_eq!(sample, expected);
    }
}

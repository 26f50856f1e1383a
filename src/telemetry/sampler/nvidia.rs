//! NVIDIA GPUs: NVML, which is loaded at run time and counts energy and reasons of throttling; `nvidia-smi` where it cannot be loaded.

use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use super::super::gpu::nvidia as tool;
use super::super::probe::Probe;
use super::counter::{EnergyCounter, dropped_warning};
use super::{DeviceSample, Source};
use crate::model::ComputeUnit;

/// The NVIDIA GPUs of a sampler.
#[derive(Debug)]
pub(super) struct Nvidia {
    library: Option<Nvml>,
    cards: Vec<Card>,
}

#[derive(Debug)]
struct Card {
    unit: ComputeUnit,
    counter: EnergyCounter,
}

impl Nvidia {
    /// These units.
    pub fn new(units: &[ComputeUnit]) -> Self {
        let cards = units.iter().map(|unit| Card { unit: unit.clone(), counter: EnergyCounter::default() }).collect();
        Self { library: Nvml::init().ok(), cards }
    }
}

impl Source for Nvidia {
    fn tells_power(&self) -> bool {
        true
    }

    fn read(&mut self, probe: &Probe, at: Duration) -> Vec<DeviceSample> {
        if let Some(library) = &self.library {
            let samples: Vec<DeviceSample> =
                self.cards.iter_mut().filter_map(|card| from_library(library, card, at)).collect();
            if !samples.is_empty() {
                return samples;
            }
        }
        let told = tool::samples(probe);
        let sample = |card: &Card| {
            let (_, sample) = told.iter().find(|(index, _)| card.unit.mask == index.to_string())?;
            Some(DeviceSample { address: card.unit.address.clone(), ..sample.clone() })
        };
        self.cards.iter().filter_map(sample).collect()
    }

    fn energy_from(&self) -> Option<String> {
        let counted = self.cards.iter().any(|card| card.counter.joules().is_some());
        counted.then(|| "NVML's energy counter".to_owned())
    }

    fn warnings(&self) -> Vec<String> {
        self.cards.iter().filter_map(|card| dropped_warning(card.counter.dropped(), &card.unit.address)).collect()
    }
}

fn from_library(library: &Nvml, card: &mut Card, at: Duration) -> Option<DeviceSample> {
    let address = card.unit.address.as_str();
    let device = library.device_by_pci_bus_id(address).or_else(|_| library.device_by_uuid(address)).ok()?;
    let memory = device.memory_info().ok();
    // Millijoules since the driver was loaded.
    let counted = device.total_energy_consumption().ok().and_then(|milli| milli.checked_mul(1000));
    let mean = counted.and_then(|micro| card.counter.read(micro, at, None));
    let degrees = device.temperature(TemperatureSensor::Gpu).ok().map(f64::from);
    Some(DeviceSample {
        address: address.to_owned(),
        utilization_pct: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu)),
        memory_used_bytes: memory.as_ref().map(|memory| memory.used),
        memory_total_bytes: memory.map(|memory| memory.total),
        power_w: mean.or_else(|| device.power_usage().ok().map(|milli| f64::from(milli) / 1000.0)),
        energy_j: card.counter.joules(),
        temperature_c: degrees,
        memory_temperature_c: None,
        clock_mhz: device.clock_info(Clock::SM).ok().map(f64::from),
        throttled: device.current_throttle_reasons().map(reasons).unwrap_or_default(),
    })
}

/// Reasons for which a device under load is slower than it could be; that it idles, or was set so, is none.
fn reasons(all: ThrottleReasons) -> Vec<String> {
    let named = [
        (ThrottleReasons::SW_POWER_CAP, "power-cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hw-slowdown"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "sw-thermal"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hw-thermal"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power-brake"),
    ];
    named.iter().filter(|(flag, _)| all.contains(*flag)).map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::*;

    #[test]
    fn where_the_library_is_not_the_tool_tells_and_what_it_does_not_know_is_absent() {
        let tree = Tree::new();
        tree.tool_that_prints(
            "nvidia-smi",
            "0, 97, 20480, 23034, 61, 71.50\n1, [N/A], [N/A], [N/A], [N/A], [N/A]\n2, 1, 1, 1, 1, 1",
        );
        let unit = |mask: &str| ComputeUnit {
            address: format!("0000:0{mask}:00.0"),
            mask: mask.into(),
            ..ComputeUnit::default()
        };
        let cards = ["0", "1"].map(|mask| Card { unit: unit(mask), counter: EnergyCounter::default() });
        let mut source = Nvidia { library: None, cards: cards.into() };
        let first = DeviceSample {
            address: "0000:00:00.0".into(),
            utilization_pct: Some(97.0),
            memory_used_bytes: Some(20480 << 20),
            memory_total_bytes: Some(23034 << 20),
            temperature_c: Some(61.0),
            power_w: Some(71.5),
            ..DeviceSample::default()
        };
        let second = DeviceSample { address: "0000:01:00.0".into(), ..DeviceSample::default() };
        assert_eq!(source.read(&tree.probe(), Duration::ZERO), [first, second], "a device of others is left out");
    }

    #[test]
    fn idling_is_no_throttling() {
        let all = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(reasons(all), ["power-cap", "hw-thermal"]);
        assert_eq!(reasons(ThrottleReasons::GPU_IDLE), [""; 0]);
    }
}

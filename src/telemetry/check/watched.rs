//! What would be sampled while something is measured, and why the rest would not.

use serde_json::json;

use super::super::devices::DeviceKind;
use super::super::sampler::{Counted, DeviceSample};
use super::{CheckLine, listed};

/// Two samples of this machine, taken as a run takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchedFacts {
    /// What its devices are.
    pub kind: DeviceKind,
    /// So many devices there are.
    pub devices: usize,
    /// The second sample.
    pub told: Vec<DeviceSample>,
    /// Where energy comes from, in words.
    pub energy_from: Option<String>,
    /// The program that is asked beside the kernel.
    pub tool: Option<&'static str>,
    /// Whether the energy of the processors is counted.
    pub processors: Counted,
}

/// A thing that a device may tell, whether it does, and why it may not.
type Thing = (&'static str, fn(&DeviceSample) -> bool, fn(DeviceKind) -> &'static str);

const THINGS: [Thing; 6] = [
    (
        "energy",
        |device| device.energy_j.is_some(),
        |kind| match kind {
            DeviceKind::Cuda => "NVML counts it from Volta on, and is not loaded here or does not say",
            DeviceKind::Xpu => "no counter under hwmon moves: the kernel needs xe from 6.11 or i915 from 6.4 on",
            DeviceKind::Rocm | DeviceKind::Cpu => "hwmon has no counter; power times time is taken where power is told",
        },
    ),
    ("power", |device| device.power_w.is_some(), |_| "neither the kernel nor a vendor's tool tells it"),
    ("temperature", |device| device.temperature_c.is_some(), |_| "no sensor under hwmon, and no tool that tells it"),
    ("clock", |device| device.clock_mhz.is_some(), |_| "not told, or the device sleeps"),
    (
        "use",
        |device| device.utilization_pct.is_some(),
        |kind| match kind {
            DeviceKind::Xpu => "counted by the engines of who uses the card, and nobody does now",
            DeviceKind::Cuda | DeviceKind::Rocm | DeviceKind::Cpu => "the driver does not say",
        },
    ),
    ("memory", |device| device.memory_used_bytes.is_some(), |_| "the driver does not say"),
];

/// Judges it: a device whose power nobody tells is a warning.
pub fn telemetry(facts: &WatchedFacts) -> CheckLine {
    let told: Vec<&Thing> =
        THINGS.iter().filter(|(_, is_told, _)| !facts.told.is_empty() && facts.told.iter().all(is_told)).collect();
    let missing =
        || THINGS.iter().filter(|(name, ..)| facts.devices > 0 && !told.iter().any(|(known, ..)| known == name));
    let names: Vec<String> = told
        .iter()
        .map(|(name, ..)| match (&facts.energy_from, *name) {
            (Some(from), "energy") => format!("energy ({from})"),
            _ => (*name).to_owned(),
        })
        .collect();
    let processors = match facts.processors {
        Counted::Yes => ", energy of the processors",
        Counted::NotReadable => "; the energy of the processors is counted, and only root may read it",
        Counted::NotThere => "; no counter of the energy of the processors",
    };
    let host = format!("of the host: processors, memory, swap, load{processors}");
    let absent: Vec<String> = missing().map(|(name, _, why)| format!("{name} ({})", why(facts.kind))).collect();
    let mut message = match (facts.devices, names.as_slice()) {
        (0, _) => "no device to sample".to_owned(),
        (count, []) => format!("{count} devices tell nothing"),
        (count, names) => format!("of {count} devices: {}", listed(names)),
    };
    if let Some(tool) = facts.tool {
        message.push_str(&format!(" (with `{tool}`)"));
    }
    message.push_str(&format!("; {host}"));
    if !absent.is_empty() {
        message.push_str(&format!("; not: {}", absent.join("; ")));
    }
    let data = json!({
        "devices": facts.devices,
        "told": told.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
        "not_told": missing().map(|(name, _, why)| json!({"what": name, "why": why(facts.kind)})).collect::<Vec<_>>(),
        "energy_from": facts.energy_from,
        "tool": facts.tool,
        "processors_energy": facts.processors == Counted::Yes,
    });
    let has_power = told.iter().any(|(name, ..)| ["energy", "power"].contains(name));
    if facts.devices == 0 || has_power {
        return CheckLine::ok("telemetry", message, data);
    }
    let next = match facts.kind {
        DeviceKind::Cuda => "install the driver's libnvidia-ml.so.1 in the container (`--gpus all` mounts it)",
        DeviceKind::Xpu => "mount /sys, or install xpu-smi; results will have no energy and no J/token",
        DeviceKind::Rocm => "mount /sys, or install amd-smi; results will have no energy and no J/token",
        DeviceKind::Cpu => "results will have no energy and no J/token",
    };
    CheckLine::warning("telemetry", message, next, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::check::Level;

    fn facts(kind: DeviceKind, told: Vec<DeviceSample>) -> WatchedFacts {
        WatchedFacts { kind, devices: told.len(), told, energy_from: None, tool: None, processors: Counted::NotThere }
    }

    #[test]
    fn what_is_told_and_what_is_not_with_its_reason() {
        let card = DeviceSample {
            energy_j: Some(1.0),
            power_w: Some(99.0),
            temperature_c: Some(40.0),
            ..DeviceSample::default()
        };
        let mut both = facts(DeviceKind::Xpu, vec![card.clone(), DeviceSample { temperature_c: None, ..card }]);
        both.energy_from = Some("the energy counter of the package".into());
        let line = telemetry(&both);
        assert_eq!(line.level, Level::Ok);
        assert!(
            line.message.starts_with("of 2 devices: energy (the energy counter of the package) and power; of the host")
        );
        assert!(
            line.message.contains("temperature (no sensor") && line.message.contains("nobody does now"),
            "{line:?}"
        );
        assert_eq!(line.data["told"], json!(["energy", "power"]));
    }

    #[test]
    fn devices_without_power_are_a_warning_and_no_device_is_none() {
        let line = telemetry(&facts(DeviceKind::Rocm, vec![DeviceSample::default()]));
        assert_eq!(line.level, Level::Warning);
        assert!(line.next_step.unwrap().contains("J/token"));
        let none = WatchedFacts { processors: Counted::NotReadable, ..facts(DeviceKind::Cpu, vec![]) };
        let line = telemetry(&none);
        assert_eq!((line.level, line.next_step), (Level::Ok, None));
        assert!(line.message.contains("only root may read it"), "{}", line.message);
    }
}

//! What devices report of themselves while they work: memory of every kind; use, temperature and power where NVIDIA's tool tells
//! them.

use super::devices::{DeviceKind, DeviceReport, memory_readings};
use super::gpu;
use super::probe::Probe;

/// One device at one moment. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gauge {
    /// As [`super::Device::index`].
    pub index: u32,
    /// Share of the time in which it worked, percent.
    pub utilization_pct: Option<f64>,
    /// Bytes of memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Bytes of memory.
    pub memory_total_bytes: Option<u64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Watts.
    pub power_w: Option<f64>,
}

/// Reads all visible devices; nothing where there are only processors. May block for one call of the vendor's tool.
pub fn gauges(probe: &Probe, report: &DeviceReport) -> Vec<Gauge> {
    let known = |index: u32| report.devices.iter().find(|device| device.index == index);
    match report.kind {
        DeviceKind::Cpu => Vec::new(),
        DeviceKind::Cuda => {
            gpu::nvidia::gauges(probe).into_iter().filter(|gauge| known(gauge.index).is_some()).collect()
        }
        kind => memory_readings(probe, kind)
            .into_iter()
            .map(|reading| Gauge {
                index: reading.index,
                memory_used_bytes: reading.used_bytes,
                memory_total_bytes: known(reading.index).and_then(|device| device.memory_total_bytes),
                ..Gauge::default()
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::devices::detect;
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn nvidia_s_tool_tells_all_and_what_it_does_not_know_is_absent() {
        let tree = Tree::new();
        tree.tool_that_prints("nvidia-smi", "0, NVIDIA L4, 00000000:29:00.0, 23034, 1, 580.1, GPU-1");
        let report = detect(&tree.probe());
        tree.tool_that_prints("nvidia-smi", "0, 97, 20480, 23034, 61, 71.50\n1, [N/A], [N/A], [N/A], [N/A], [N/A]");
        let expected = Gauge {
            index: 0,
            utilization_pct: Some(97.0),
            memory_used_bytes: Some(20480 << 20),
            memory_total_bytes: Some(23034 << 20),
            temperature_c: Some(61.0),
            power_w: Some(71.5),
        };
        assert_eq!(gauges(&tree.probe(), &report), [expected], "a device that is masked out is not told of");
    }

    #[test]
    fn processors_alone_have_no_gauges() {
        let tree = Tree::new();
        assert_eq!(gauges(&tree.probe(), &detect(&tree.probe())), []);
    }
}

//! The devices that a server could use, their memory, and who holds their nodes.
//!
//! `detect` asks the vendor's tool and sysfs once; `memory_used` is the cheap look before a start and after a teardown, and
//! never runs `xpu-smi`, which is known to disturb Intel cards under load.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gpu::{amd, nvidia, xpu};
use super::probe::Probe;
use super::{host, procfs};

/// Devices as vLLM's builds tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Intel GPUs.
    Xpu,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// No accelerator.
    Cpu,
}

impl DeviceKind {
    /// As people write it: `XPU`, `CUDA`, `ROCm`, `CPU`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Xpu => "XPU",
            Self::Cuda => "CUDA",
            Self::Rocm => "ROCm",
            Self::Cpu => "CPU",
        }
    }
}

/// One device. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Number among all devices of this kind, before any mask, by PCI address (what a mask refers to).
    pub index: u32,
    /// Product name.
    pub name: Option<String>,
    /// `0000:03:00.0`.
    pub pci_address: Option<String>,
    /// Bytes of device memory.
    pub memory_total_bytes: Option<u64>,
    /// Bytes of device memory in use when it was looked at.
    pub memory_used_bytes: Option<u64>,
    /// Kernel driver: `xe`, `i915`, `amdgpu`, `nvidia`.
    pub driver: Option<String>,
    /// Version of the driver, as the vendor counts it.
    pub driver_version: Option<String>,
    /// The device node, such as `/dev/dri/renderD128` or `/dev/nvidia0`.
    pub node: Option<PathBuf>,
    /// Vendor's unique name of the device.
    pub uuid: Option<String>,
    /// Whether it is part of the processor and shares its memory.
    pub integrated: Option<bool>,
    /// Tiles of a multi-tile card; Level Zero shows each as a device unless told otherwise.
    pub tiles: Option<u32>,
}

/// What was found, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The kind that a server would use here.
    pub kind: DeviceKind,
    /// The visible devices (after masks). For `cpu` there is one: the machine.
    pub devices: Vec<Device>,
    /// How many devices vLLM will count: more than `devices` where tiles count one by one.
    pub slots: u32,
    /// How it was found: tools and folders.
    pub sources: Vec<String>,
    /// What stood in the way, or deserves a look; sentences.
    pub problems: Vec<String>,
}

/// What a vendor's module found: the report, how many devices there are before masks, and what of them a server counts.
pub(super) struct Found {
    pub report: DeviceReport,
    pub present: usize,
    pub slots: Vec<Slot>,
}

/// What a server counts as one device: a device of the report, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Position in [`DeviceReport::devices`].
    pub position: usize,
    /// `tile1`, `part3`, `MIG 1g.10gb`; absent for a whole device.
    pub part: Option<String>,
    /// Its own name on this machine, where that is not the device's with the part behind it.
    pub address: Option<String>,
    /// How the variable that narrows the view names it.
    pub mask: String,
    /// Bytes of its memory, where the tool tells that of a part.
    pub memory_bytes: Option<u64>,
}

/// Keeps of the devices those that have a slot, and lets the slots point at them.
pub(super) fn keep_with_slots(devices: Vec<Device>, slots: &mut [Slot]) -> Vec<Device> {
    let mut order: Vec<usize> = Vec::new();
    for slot in slots.iter_mut() {
        let place = order.iter().position(|position| *position == slot.position).unwrap_or_else(|| {
            order.push(slot.position);
            order.len() - 1
        });
        slot.position = place;
    }
    order.into_iter().filter_map(|position| devices.get(position).cloned()).collect()
}

/// Finds the devices that a server would use: discrete Intel GPUs, else NVIDIA, else AMD, else the CPU. Further kinds of the
/// same machine are named in `problems`. Blocks for at most a few times [`Probe::command_limit`].
pub fn detect(probe: &Probe) -> DeviceReport {
    detect_found(probe).report
}

/// As [`detect`], with what a server counts.
pub(super) fn detect_found(probe: &Probe) -> Found {
    let mut chosen: Option<Found> = None;
    let mut problems = Vec::new();
    for found in [xpu::find(probe, false), nvidia::find(probe), amd::find(probe, false)] {
        match &mut chosen {
            _ if found.present == 0 => problems.extend(found.report.problems),
            None => chosen = Some(found),
            Some(first) => first.report.problems.push(format!(
                "the machine also has {} {} device(s); they are left out",
                found.present,
                found.report.kind.label()
            )),
        }
    }
    chosen.unwrap_or_else(|| {
        let mut report = cpu(probe);
        report.problems.extend(problems);
        Found { report, present: 0, slots: Vec::new() }
    })
}

/// Looks for one kind only, when it is known which build of vLLM is installed. Here an integrated Intel GPU counts.
pub fn detect_kind(probe: &Probe, kind: DeviceKind) -> DeviceReport {
    match kind {
        DeviceKind::Xpu => xpu::find(probe, true).report,
        DeviceKind::Cuda => nvidia::find(probe).report,
        DeviceKind::Rocm => amd::find(probe, true).report,
        DeviceKind::Cpu => cpu(probe),
    }
}

fn cpu(probe: &Probe) -> DeviceReport {
    let facts = host::cpu_facts(probe);
    let memory = host::memory_facts(probe);
    let device = Device {
        name: facts.model,
        memory_total_bytes: memory.total_bytes,
        memory_used_bytes: memory.used_bytes(),
        integrated: Some(true),
        ..Device::default()
    };
    let count = |number: Option<u32>, what: &str| number.map(|number| format!("{number} {what}"));
    let sources =
        [Some("/proc/cpuinfo".to_owned()), count(facts.sockets, "socket(s)"), count(facts.logical, "logical cores")];
    DeviceReport {
        kind: DeviceKind::Cpu,
        devices: vec![device],
        slots: 1,
        sources: sources.into_iter().flatten().collect(),
        problems: Vec::new(),
    }
}

/// What a metric of used memory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemorySource {
    /// The driver's metric for the whole device.
    Device,
    /// The sum over the processes that can be seen here: users in other containers are missing from it.
    Processes,
    /// Memory of the host; other programs move it too.
    Host,
}

/// Used memory of one visible device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReading {
    /// As [`Device::index`].
    pub index: u32,
    /// `0000:03:00.0`.
    pub pci_address: Option<String>,
    /// Bytes in use, where it can be read.
    pub used_bytes: Option<u64>,
    /// What the metric means; absent when there is none.
    pub source: Option<MemorySource>,
}

/// Used memory per visible device, with what the metric means. Reads sysfs and fdinfo; only for NVIDIA, or where AMD's
/// driver gives no metric, one call of the vendor's tool is made.
pub fn memory_readings(probe: &Probe, kind: DeviceKind) -> Vec<MemoryReading> {
    match kind {
        DeviceKind::Xpu => xpu::memory(probe),
        DeviceKind::Cuda => nvidia::memory(probe),
        DeviceKind::Rocm => amd::memory(probe),
        DeviceKind::Cpu => {
            let used_bytes = host::memory_facts(probe).used_bytes();
            let source = used_bytes.map(|_| MemorySource::Host);
            vec![MemoryReading { index: 0, pci_address: None, used_bytes, source }]
        }
    }
}

/// Of [`memory_readings`] those that are counts of a whole device.
pub(super) fn device_readings(probe: &Probe, kind: DeviceKind) -> Vec<MemoryReading> {
    match kind {
        DeviceKind::Xpu => xpu::memory_of_drivers(probe),
        DeviceKind::Cuda | DeviceKind::Rocm | DeviceKind::Cpu => memory_readings(probe, kind),
    }
}

/// [`memory_readings`] without their meaning: device number and bytes in use.
pub fn memory_used(probe: &Probe, kind: DeviceKind) -> Vec<(u32, Option<u64>)> {
    memory_readings(probe, kind).into_iter().map(|reading| (reading.index, reading.used_bytes)).collect()
}

/// A process that holds a device node open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeHolder {
    /// Its number.
    pub pid: i32,
    /// The node, such as `/dev/dri/renderD128`, `/dev/nvidia0` or `/dev/kfd`.
    pub node: PathBuf,
    /// Its name (15 bytes at most), absent when it has just ended.
    pub comm: Option<String>,
}

/// Who holds device nodes, and how much of the machine could be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderScan {
    /// By process, then node.
    pub holders: Vec<NodeHolder>,
    /// Processes of other users that could not be looked into: with any, "no holder" is not a proof.
    pub unreadable: usize,
}

/// Which processes hold compute device nodes (`/dev/dri/render*`, `/dev/nvidia[0-9]*`, `/dev/kfd`) open.
pub fn scan_holders(probe: &Probe) -> HolderScan {
    let mut scan = HolderScan::default();
    for pid in procfs::pids(&probe.root) {
        let descriptors = match procfs::descriptors(&probe.root, pid) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                scan.unreadable += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        let nodes: BTreeSet<PathBuf> =
            descriptors.into_iter().map(|(_, target)| target).filter(|target| is_compute_node(target)).collect();
        if nodes.is_empty() {
            continue;
        }
        let comm = procfs::comm(&probe.root, pid);
        scan.holders.extend(nodes.into_iter().map(|node| NodeHolder { pid, node, comm: comm.clone() }));
    }
    scan
}

/// [`scan_holders`] without the count of what could not be read.
pub fn holders(probe: &Probe) -> Vec<NodeHolder> {
    scan_holders(probe).holders
}

fn is_compute_node(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let numbered = |prefix: &str| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text == "/dev/kfd" || numbered("/dev/dri/renderD") || numbered("/dev/nvidia")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    fn with_cpu(tree: &Tree) {
        tree.file(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Xeon X\nphysical id\t: 0\n\nprocessor\t: 1\nphysical id\t: 1\n",
        );
        tree.file("proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:  400 kB\n");
    }

    #[test]
    fn a_machine_without_accelerator_is_a_cpu() {
        let tree = Tree::new();
        with_cpu(&tree);
        let report = detect(&tree.probe());
        assert_eq!((report.kind, report.slots), (DeviceKind::Cpu, 1));
        assert_eq!(report.devices[0].name.as_deref(), Some("Xeon X"));
        assert_eq!(report.devices[0].memory_used_bytes, Some(600 << 10));
        assert_eq!(report.sources, ["/proc/cpuinfo", "2 socket(s)", "2 logical cores"]);
        assert_eq!(report.problems, [""; 0]);
        assert_eq!(memory_used(&tree.probe(), DeviceKind::Cpu), [(0, Some(600 << 10))]);
    }

    #[test]
    fn a_broken_vendor_tool_is_told_on_a_cpu_machine() {
        let tree = Tree::new();
        tree.tool("nvidia-smi", "echo \"couldn't communicate with the NVIDIA driver\"; exit 9");
        let report = detect(&tree.probe());
        assert_eq!(report.kind, DeviceKind::Cpu);
        assert!(report.problems[0].contains("couldn't communicate"), "{:?}", report.problems);
    }

    #[test]
    fn discrete_intel_comes_before_nvidia_and_the_other_is_named() {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0xe211"), "xe", "0000:03:00.0");
        tree.tool_that_prints("nvidia-smi", "0, NVIDIA L4, 00000000:29:00.0, 23034, 1, 580.1, GPU-1");
        let report = detect(&tree.probe());
        assert_eq!(report.kind, DeviceKind::Xpu);
        assert!(report.problems.iter().any(|line| line.contains("1 CUDA device")), "{:?}", report.problems);
    }

    #[test]
    fn an_integrated_gpu_beside_nvidia_is_not_the_device() {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0x4680"), "i915", "0000:00:02.0");
        tree.tool_that_prints("nvidia-smi", "0, NVIDIA L4, 00000000:29:00.0, 23034, 1, 580.1, GPU-1");
        assert_eq!(detect(&tree.probe()).kind, DeviceKind::Cuda);
    }

    #[test]
    fn holders_are_told_by_node_and_process() {
        let tree = Tree::new();
        tree.process(10, "VLLM::EngineCor", &["VLLM::EngineCore"], 0, 1);
        tree.descriptor(10, 3, "/dev/dri/renderD128", "");
        tree.descriptor(10, 4, "/dev/dri/renderD128", "");
        tree.descriptor(10, 5, "/dev/kfd", "");
        tree.descriptor(10, 6, "/dev/nvidiactl", "");
        tree.descriptor(10, 7, "/dev/nvidia12", "");
        tree.descriptor(10, 8, "/tmp/dev/kfd", "");
        tree.process(11, "Xorg", &["Xorg"], 0, 1);
        tree.descriptor(11, 3, "/dev/dri/card0", "");
        let found = holders(&tree.probe());
        let shown: Vec<_> = found.iter().map(|holder| (holder.pid, holder.node.to_str().unwrap())).collect();
        assert_eq!(shown, [(10, "/dev/dri/renderD128"), (10, "/dev/kfd"), (10, "/dev/nvidia12")]);
        assert_eq!(found[0].comm.as_deref(), Some("VLLM::EngineCor"));
    }

    #[test]
    fn the_report_keeps_unknown_as_null() {
        let text =
            serde_json::to_string(&MemoryReading { index: 1, pci_address: None, used_bytes: None, source: None });
        assert_eq!(text.unwrap(), r#"{"index":1,"pci_address":null,"used_bytes":null,"source":null}"#);
        assert_eq!(serde_json::to_string(&DeviceKind::Rocm).unwrap(), "\"rocm\"");
    }
}

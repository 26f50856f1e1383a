//! NVIDIA GPUs: one call of `nvidia-smi`; without it, what the kernel driver tells under `/proc/driver/nvidia`.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::devices::{
    Device, DeviceKind, DeviceReport, Found, MemoryReading, MemorySource, Slot, keep_with_slots,
};
use super::super::drm::normal_pci;
use super::super::mask;
use super::super::probe::{Probe, read_text};
use super::super::sampler::DeviceSample;
use super::meaningful;

/// In the order of [`parse_row`]. The tool ignores CUDA_VISIBLE_DEVICES.
const QUERY: [&str; 2] = [
    "--query-gpu=index,name,pci.bus_id,memory.total,memory.used,driver_version,uuid,mig.mode.current",
    "--format=csv,noheader,nounits",
];
const MIB: u64 = 1 << 20;

/// Finds NVIDIA GPUs.
pub(in super::super) fn find(probe: &Probe) -> Found {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let listed = all(probe, &mut sources, &mut problems);
    let present = listed.devices.len();
    let (devices, slots) = visible(probe, listed, &mut problems);
    for device in &devices {
        if let Some(node) = device.node.as_ref().filter(|node| !probe.at(node).exists()) {
            let flags = "start the container with --gpus all";
            problems.push(format!("GPU {} has no node {} here: {flags}", device.index, node.display()));
        }
    }
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    Found { report: DeviceReport { kind: DeviceKind::Cuda, devices, slots: count, sources, problems }, present, slots }
}

/// Used memory of the visible devices: one call of `nvidia-smi`.
pub(in super::super) fn memory(probe: &Probe) -> Vec<MemoryReading> {
    let mut ignored = Vec::new();
    let listed = all(probe, &mut Vec::new(), &mut ignored);
    let split = listed.split.clone();
    let reading = |device: Device| {
        // Of a split GPU it is what all its instances hold.
        let used_bytes = device.memory_used_bytes.filter(|_| !split.contains(&device.index));
        let source = used_bytes.map(|_| MemorySource::Device);
        MemoryReading { index: device.index, pci_address: device.pci_address, used_bytes, source }
    };
    visible(probe, listed, &mut ignored).0.into_iter().map(reading).collect()
}

/// Use, memory, temperature and power of all GPUs, by their numbers: one call of `nvidia-smi`.
pub(in super::super) fn samples(probe: &Probe) -> Vec<(u32, DeviceSample)> {
    const QUERY: [&str; 2] = [
        "--query-gpu=index,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw",
        "--format=csv,noheader,nounits",
    ];
    let Some(Ok(text)) = probe.find_tool("nvidia-smi").map(|tool| probe.answer(&tool, &QUERY)) else {
        return Vec::new();
    };
    let sample = |line: &str| {
        let words: Vec<&str> = line.split(',').map(str::trim).collect();
        let [index, utilization, used, total, temperature, power] = words.as_slice() else { return None };
        let mebibytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(MIB);
        let sample = DeviceSample {
            utilization_pct: utilization.parse().ok(),
            memory_used_bytes: mebibytes(used),
            memory_total_bytes: mebibytes(total),
            temperature_c: temperature.parse().ok(),
            power_w: power.parse().ok(),
            ..DeviceSample::default()
        };
        Some((index.parse().ok()?, sample))
    };
    text.lines().filter_map(sample).collect()
}

/// A process that computes on a GPU.
pub(in super::super) struct App {
    pub pci_address: String,
    /// As the host counts.
    pub pid: i32,
    pub memory_bytes: Option<u64>,
}

/// All processes that compute on GPUs: one call of `nvidia-smi`.
pub(in super::super) fn apps(probe: &Probe) -> Vec<App> {
    const QUERY: [&str; 2] = ["--query-compute-apps=gpu_bus_id,pid,used_gpu_memory", "--format=csv,noheader,nounits"];
    let Some(Ok(text)) = probe.find_tool("nvidia-smi").map(|tool| probe.answer(&tool, &QUERY)) else {
        return Vec::new();
    };
    let app = |line: &str| {
        let words: Vec<&str> = line.split(',').map(str::trim).collect();
        let [address, pid, memory] = words.as_slice() else { return None };
        let memory_bytes = memory.parse::<u64>().ok().and_then(|mebibytes| mebibytes.checked_mul(MIB));
        Some(App { pci_address: (*address).to_owned(), pid: pid.parse().ok()?, memory_bytes })
    };
    text.lines().filter_map(app).collect()
}

/// `nvidia-smi topo -m`, where there are several GPUs; else nothing.
pub(in super::super) fn topology(probe: &Probe, count: usize, problems: &mut Vec<String>) -> String {
    let Some(tool) = probe.find_tool("nvidia-smi").filter(|_| count > 1) else { return String::new() };
    probe.answer(&tool, &["topo", "-m"]).unwrap_or_else(|sentence| {
        problems.push(sentence);
        String::new()
    })
}

/// All GPUs of the machine.
#[derive(Default)]
struct Listed {
    devices: Vec<Device>,
    /// Numbers of those that are split into instances (MIG).
    split: Vec<u32>,
}

fn all(probe: &Probe, sources: &mut Vec<String>, problems: &mut Vec<String>) -> Listed {
    let mut kernel = from_kernel(probe);
    let answer = probe.find_tool("nvidia-smi").map(|tool| (probe.answer(&tool, &QUERY), tool));
    match answer {
        Some((Ok(text), tool)) => {
            sources.push(format!("{} --query-gpu", tool.display()));
            let mut listed = Listed::default();
            for (mut device, is_split) in text.lines().filter_map(parse_row) {
                let twin = kernel.iter().find(|other| other.pci_address == device.pci_address);
                device.node = twin.and_then(|other| other.node.clone());
                listed.split.extend(is_split.then_some(device.index));
                listed.devices.push(device);
            }
            return listed;
        }
        // "No devices were found" is an answer, in words and with exit status 6.
        Some((Err(sentence), _)) if sentence.contains("No devices were found") => {}
        Some((Err(sentence), _)) => problems.push(sentence),
        None if kernel.is_empty() => {}
        None => problems.push("nvidia-smi is not here: device memory cannot be read".to_owned()),
    }
    if !kernel.is_empty() {
        sources.push("/proc/driver/nvidia".to_owned());
    }
    kernel.sort_by(|a, b| a.pci_address.cmp(&b.pci_address));
    for (index, device) in (0..).zip(&mut kernel) {
        device.index = index;
    }
    Listed { devices: kernel, split: Vec::new() }
}

/// One line of the answer, and whether the GPU is split into instances. Unified-memory parts (GB10) answer `[N/A]` for memory: unknown.
fn parse_row(line: &str) -> Option<(Device, bool)> {
    let words: Vec<&str> = line.split(',').map(str::trim).collect();
    let [index, name, address, total, used, version, uuid, rest @ ..] = words.as_slice() else { return None };
    let mebibytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(MIB);
    let device = Device {
        index: index.parse().ok()?,
        name: meaningful(name),
        pci_address: meaningful(address).as_deref().map(normal_pci),
        memory_total_bytes: mebibytes(total),
        memory_used_bytes: mebibytes(used),
        driver: Some("nvidia".to_owned()),
        driver_version: meaningful(version),
        uuid: meaningful(uuid),
        ..Device::default()
    };
    Some((device, rest == ["Enabled"]))
}

fn from_kernel(probe: &Probe) -> Vec<Device> {
    let Ok(entries) = std::fs::read_dir(probe.at("/proc/driver/nvidia/gpus")) else { return Vec::new() };
    let version = probe.text("/sys/module/nvidia/version");
    let devices = entries.flatten().filter_map(|entry| {
        let text = read_text(&entry.path().join("information"))?;
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(name, _)| name.trim() == key).find_map(|(_, value)| meaningful(value))
        };
        let minor = value("Device Minor").and_then(|text| text.parse::<u32>().ok());
        Some(Device {
            name: value("Model"),
            pci_address: entry.file_name().to_str().map(normal_pci),
            driver: Some("nvidia".to_owned()),
            driver_version: version.clone(),
            node: minor.map(|minor| format!("/dev/nvidia{minor}").into()),
            uuid: value("GPU UUID").filter(|uuid| !uuid.contains('?')),
            ..Device::default()
        })
    });
    devices.collect()
}

/// What CUDA_VISIBLE_DEVICES leaves, instances in the place of GPUs that are split: such a GPU is no device any more.
fn visible(probe: &Probe, listed: Listed, problems: &mut Vec<String>) -> (Vec<Device>, Vec<Slot>) {
    const MASK: &str = "CUDA_VISIBLE_DEVICES";
    let Listed { devices, split } = listed;
    // An empty value hides all, so `variable` (which skips empty ones) is not asked.
    let list = probe.environment.get(MASK);
    let asks = !split.is_empty() || list.is_some_and(|list| list.contains("MIG-"));
    let instances = if asks { instances(probe, &devices, problems) } else { Vec::new() };
    let uuids: Vec<_> = devices.iter().map(|device| device.uuid.clone()).collect();
    let all: Vec<_> = uuids.into_iter().chain(instances.iter().map(|of| Some(of.uuid.clone()))).collect();
    let positions = match list {
        None => (0..devices.len()).collect(),
        Some(list) => {
            let selection = mask::cuda_list(MASK, list, &all, devices.len());
            problems.extend(selection.notes);
            let mixed = devices.windows(2).any(|pair| pair[0].name != pair[1].name);
            if mixed && probe.variable("CUDA_DEVICE_ORDER") != Some("PCI_BUS_ID") && !selection.positions.is_empty() {
                problems.push(format!(
                    "the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID: {MASK}={list} may mean other devices than listed here"
                ));
            }
            selection.positions
        }
    };
    let mut slots: Vec<Slot> = Vec::new();
    for position in positions {
        match devices.get(position) {
            Some(device) if split.contains(&device.index) => {
                let own = instances.iter().filter(|of| of.position == position).map(Instance::slot);
                let before = slots.len();
                slots.extend(own);
                if slots.len() == before {
                    let index = device.index;
                    problems.push(format!("GPU {index} is in MIG mode and has no instance: nothing can run on it"));
                }
            }
            Some(device) => slots.push(Slot {
                position,
                part: None,
                address: None,
                mask: device.index.to_string(),
                memory_bytes: None,
            }),
            None => slots.extend(instances.get(position - devices.len()).map(Instance::slot)),
        }
    }
    let devices = keep_with_slots(devices, &mut slots);
    (devices, slots)
}

/// An instance of a split GPU.
#[derive(Debug, PartialEq, Eq)]
struct Instance {
    /// Position of the GPU.
    position: usize,
    /// `1g.10gb`.
    profile: String,
    uuid: String,
    /// Bytes of its memory, and of them in use.
    memory: Option<(u64, u64)>,
}

impl Instance {
    fn slot(&self) -> Slot {
        let part = Some(format!("MIG {}", self.profile));
        let (address, mask) = (Some(self.uuid.clone()), self.uuid.clone());
        Slot { position: self.position, part, address, mask, memory_bytes: self.memory.map(|(total, _)| total) }
    }
}

/// `nvidia-smi -L`: `GPU 0: NAME (UUID: GPU-…)`, and below it `  MIG 1g.10gb     Device  0: (UUID: MIG-…)`.
fn instances(probe: &Probe, devices: &[Device], problems: &mut Vec<String>) -> Vec<Instance> {
    let Some(tool) = probe.find_tool("nvidia-smi") else { return Vec::new() };
    let text = probe.answer(&tool, &["-L"]).unwrap_or_else(|sentence| {
        problems.push(sentence);
        String::new()
    });
    let memory = if text.contains("MIG ") { instance_memory(probe, &tool) } else { BTreeMap::new() };
    let mut number = 0;
    let uuid = |line: &str| Some(line.rsplit_once("(UUID: ")?.1.trim().strip_suffix(')')?.to_owned());
    let mut gpu = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("GPU ") {
            number = 0;
            gpu = uuid(line).and_then(|uuid| devices.iter().position(|device| device.uuid.as_deref() == Some(&*uuid)));
        } else if let Some(rest) = line.trim_start().strip_prefix("MIG ")
            && let (Some(position), Some(uuid), Some(profile)) = (gpu, uuid(line), rest.split_whitespace().next())
        {
            let of_gpu = devices[position].pci_address.clone().unwrap_or_default();
            let memory = memory.get(&(of_gpu, number)).copied();
            found.push(Instance { position, profile: profile.to_owned(), uuid, memory });
            number += 1;
        }
    }
    found
}

/// Bytes in use of each instance in sight, by its UUID.
pub(in super::super) fn instances_used(probe: &Probe) -> BTreeMap<String, u64> {
    let listed = all(probe, &mut Vec::new(), &mut Vec::new());
    let instances = instances(probe, &listed.devices, &mut Vec::new());
    instances.into_iter().filter_map(|instance| Some((instance.uuid, instance.memory?.1))).collect()
}

/// PCI address of the GPU and number of the instance on it -> its memory, and what of it is in use: only `nvidia-smi -q -x` tells, and
/// that has no UUID of an instance.
fn instance_memory(probe: &Probe, tool: &Path) -> BTreeMap<(String, usize), (u64, u64)> {
    let text = probe.answer(tool, &["-q", "-x"]).unwrap_or_default();
    let mut found = BTreeMap::new();
    for gpu in text.split("<gpu id=\"").skip(1) {
        let Some((address, rest)) = gpu.split_once('"') else { continue };
        for (number, instance) in rest.split("<mig_device>").skip(1).enumerate() {
            let usage = between(instance, "<fb_memory_usage>", "</fb_memory_usage>").unwrap_or_default();
            let mebibytes = |name: &str| {
                let text = between(usage, &format!("<{name}>"), &format!("</{name}>"))?;
                text.trim().strip_suffix("MiB")?.trim().parse::<u64>().ok()?.checked_mul(MIB)
            };
            if let (Some(total), Some(used)) = (mebibytes("total"), mebibytes("used")) {
                found.insert((normal_pci(address), number), (total, used));
            }
        }
    }
    found
}

fn between<'t>(text: &'t str, begin: &str, end: &str) -> Option<&'t str> {
    text.split_once(begin)?.1.split_once(end).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::*;

    const TWO: &str = "0, NVIDIA H100 80GB HBM3, 00000000:29:00.0, 81559, 4, 580.126.09, GPU-aaaa-1\n\
        1, NVIDIA H100 80GB HBM3, 00000000:3A:00.0, 81559, 70000, 580.126.09, GPU-bbbb-2";

    fn information(tree: &Tree, address: &str, minor: u32) {
        let text = format!(
            "Model: \t\t NVIDIA H100\nGPU UUID: \t GPU-????????\nBus Location: \t {address}\nDevice Minor: \t {minor}\n"
        );
        tree.file(&format!("proc/driver/nvidia/gpus/{address}/information"), &text);
    }

    #[test]
    fn the_tool_is_read() {
        let tree = Tree::new();
        tree.tool_that_prints("nvidia-smi", TWO);
        information(&tree, "0000:3a:00.0", 5);
        tree.file("dev/nvidia5", "");
        let report = find(&tree.probe()).report;
        let second = &report.devices[1];
        assert_eq!((report.kind, report.slots, second.index), (DeviceKind::Cuda, 2, 1));
        assert_eq!(second.name.as_deref(), Some("NVIDIA H100 80GB HBM3"));
        assert_eq!(second.pci_address.as_deref(), Some("0000:3a:00.0"));
        assert_eq!(second.memory_total_bytes, Some(81559 << 20));
        assert_eq!(second.memory_used_bytes, Some(70000 << 20));
        assert_eq!(second.node.as_deref(), Some("/dev/nvidia5".as_ref()), "by address, not by index");
        assert_eq!(report.problems, [""; 0]);
    }

    #[test]
    fn memory_that_the_tool_does_not_know_is_unknown() {
        let tree = Tree::new();
        tree.tool_that_prints("nvidia-smi", "0, NVIDIA GB10, 0000000F:01:00.0, [N/A], [N/A], 580.173.02, GPU-1");
        let device = &find(&tree.probe()).report.devices[0];
        assert_eq!((device.memory_total_bytes, device.memory_used_bytes), (None, None));
        assert_eq!(device.pci_address.as_deref(), Some("000f:01:00.0"));
        let reading = &memory(&tree.probe())[0];
        assert_eq!((reading.used_bytes, reading.source), (None, None));
    }

    #[test]
    fn masks_choose_and_order() {
        for (mask, indices) in [("1", &[1][..]), ("1,0", &[1, 0]), ("", &[]), ("GPU-bbbb", &[1]), ("7", &[])] {
            let tree = Tree::new();
            tree.tool_that_prints("nvidia-smi", TWO);
            let probe = tree.probe_with(&[("CUDA_VISIBLE_DEVICES", mask)]);
            let found = find(&probe);
            let seen: Vec<u32> = found.report.devices.iter().map(|device| device.index).collect();
            assert_eq!((seen.as_slice(), found.present), (indices, 2), "{mask}");
            assert_eq!(memory(&probe).iter().map(|reading| reading.index).collect::<Vec<_>>(), indices, "{mask}");
        }
    }

    #[test]
    fn unlike_gpus_under_a_mask_are_noted() {
        let tree = Tree::new();
        tree.tool_that_prints("nvidia-smi", &TWO.replacen("H100 80GB HBM3", "T400", 1));
        let problems = |order: &str| {
            let probe = tree.probe_with(&[("CUDA_VISIBLE_DEVICES", "0"), ("CUDA_DEVICE_ORDER", order)]);
            find(&probe).report.problems.len()
        };
        assert_eq!((problems("FASTEST_FIRST"), problems("PCI_BUS_ID")), (1, 0));
    }

    #[test]
    fn without_the_tool_the_kernel_is_asked() {
        let tree = Tree::new();
        information(&tree, "0000:3a:00.0", 0);
        information(&tree, "0000:29:00.0", 1);
        let report = find(&tree.probe()).report;
        let shown: Vec<_> =
            report.devices.iter().map(|device| (device.index, device.pci_address.clone().unwrap())).collect();
        assert_eq!(shown, [(0, "0000:29:00.0".to_owned()), (1, "0000:3a:00.0".to_owned())]);
        assert_eq!(report.devices[0].uuid, None, "a UUID of question marks is none");
        assert!(report.problems.iter().any(|line| line.contains("--gpus all")), "{:?}", report.problems);
    }

    #[test]
    fn no_device_is_no_problem() {
        let tree = Tree::new();
        tree.tool("nvidia-smi", "echo 'No devices were found'; exit 6");
        let found = find(&tree.probe());
        assert_eq!((found.present, found.report.problems), (0, vec![]));
    }
}

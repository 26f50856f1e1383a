//! AMD GPUs: sysfs says what there is and how full it is; `amd-smi`, or the older `rocm-smi`, adds names.
//!
//! Numbers follow the kernel's compute topology (KFD), as HIP counts, and the PCI address where that is not readable.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::super::devices::{
    Device, DeviceKind, DeviceReport, Found, MemoryReading, MemorySource, Slot, keep_with_slots,
};
use super::super::drm::{self, RenderNode, normal_pci};
use super::super::mask;
use super::super::probe::{Probe, read_number, read_text};
use super::{json_in, meaningful, said, whole};

/// Finds AMD GPUs. Without `/dev/kfd` there is no ROCm: then they count only if the caller insists.
pub(in super::super) fn find(probe: &Probe, without_kfd: bool) -> Found {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let mut devices = from_sysfs(probe, &mut problems);
    if !devices.is_empty() {
        sources.push("/sys/class/drm".to_owned());
    }
    match from_tool(probe) {
        Some((Ok(listed), source)) if !listed.is_empty() => {
            sources.insert(0, source);
            merge(&mut devices, listed);
        }
        Some((Err(sentence), _)) if !devices.is_empty() => problems.push(sentence),
        Some(_) | None => {}
    }
    if !devices.is_empty() && !probe.at("/dev/kfd").exists() {
        problems
            .push("AMD GPUs without /dev/kfd: start the container with --device /dev/kfd --device /dev/dri".to_owned());
        if !without_kfd {
            devices.clear();
        }
    }
    let present = devices.len();
    let (devices, slots) = visible(probe, devices, &mut problems);
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    Found { report: DeviceReport { kind: DeviceKind::Rocm, devices, slots: count, sources, problems }, present, slots }
}

/// Used memory of the visible devices, from sysfs; one call of the vendor's tool where sysfs gives no metric.
pub(in super::super) fn memory(probe: &Probe) -> Vec<MemoryReading> {
    let mut ignored = Vec::new();
    let mut devices = from_sysfs(probe, &mut ignored);
    if (devices.is_empty() || devices.iter().any(|device| device.memory_used_bytes.is_none()))
        && let Some((Ok(listed), _)) = from_tool(probe)
    {
        merge(&mut devices, listed);
    }
    let reading = |device: Device| MemoryReading {
        index: device.index,
        pci_address: device.pci_address,
        used_bytes: device.memory_used_bytes,
        source: device.memory_used_bytes.map(|_| MemorySource::Device),
    };
    visible(probe, devices, &mut ignored).0.into_iter().map(reading).collect()
}

fn from_sysfs(probe: &Probe, problems: &mut Vec<String>) -> Vec<Device> {
    let (there, hidden): (Vec<_>, Vec<_>) =
        drm::render_nodes(probe, drm::AMD).into_iter().partition(|node| node.node_present);
    for node in hidden {
        problems.push(format!(
            "the host has an AMD GPU at {} whose node {} is not here: start the container with --device /dev/dri",
            node.pci_address.as_deref().unwrap_or("an unknown address"),
            node.node.display()
        ));
    }
    let order = compute_order(probe);
    let mut nodes = there;
    // Stable: nodes outside the topology stay by address, at the end.
    nodes.sort_by_key(|node| order.get(&node.minor).copied().unwrap_or(u32::MAX));
    let numbered = (0..).zip(&nodes);
    numbered.map(|(index, node)| from_node(probe, index, node)).collect()
}

fn from_node(probe: &Probe, index: u32, node: &RenderNode) -> Device {
    let number = |name: &str| read_number(&node.sysfs.join(name));
    Device {
        index,
        name: read_text(&node.sysfs.join("product_name")).as_deref().and_then(meaningful),
        pci_address: node.pci_address.clone(),
        memory_total_bytes: number("mem_info_vram_total"),
        memory_used_bytes: number("mem_info_vram_used"),
        driver: node.driver.clone(),
        driver_version: probe.text("/sys/module/amdgpu/version"),
        node: Some(node.node.clone()),
        uuid: read_text(&node.sysfs.join("unique_id")).map(|id| format!("GPU-{id}")),
        ..Device::default()
    }
}

/// A GPU, or a partition of one, as the kernel's compute topology has it: what HIP counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ComputeNode {
    number: u32,
    /// Minor of its own render node; a partition's is none of a PCI device.
    minor: u32,
    /// `0000:c3:00.0`, where the topology says.
    pub pci_address: Option<String>,
    /// Which partition of its card, from 0.
    pub partition: u32,
    uuid: Option<String>,
    /// The links between cards that it is on; 0 for none, absent where the kernel does not say.
    pub hive: Option<u64>,
    /// Bytes of its own memory.
    pub memory_bytes: Option<u64>,
}

/// The compute nodes that this process may use, by number.
pub(in super::super) fn compute_nodes(probe: &Probe) -> Vec<ComputeNode> {
    let Ok(entries) = std::fs::read_dir(probe.at("/sys/class/kfd/kfd/topology/nodes")) else { return Vec::new() };
    let mut nodes: Vec<ComputeNode> = entries
        .flatten()
        .filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Of a GPU that a container was not given, the kernel does not let it be read.
            compute_node(&entry.path(), number)
        })
        .filter(|node| probe.at(format!("/dev/dri/renderD{}", node.minor)).exists())
        .collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

fn compute_node(folder: &Path, number: u32) -> Option<ComputeNode> {
    let text = read_text(&folder.join("properties"))?;
    let value =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
    let minor = value("drm_render_minor").and_then(|minor| u32::try_from(minor).ok()).filter(|minor| *minor > 0)?;
    let location = value("location_id");
    let address = location.map(|location| {
        let (bus, device, function) = (location >> 8 & 0xff, location >> 3 & 0x1f, location & 7);
        format!("{:04x}:{bus:02x}:{device:02x}.{function:x}", value("domain").unwrap_or(0))
    });
    let banks = std::fs::read_dir(folder.join("mem_banks")).ok();
    let sizes = banks.into_iter().flatten().flatten().filter_map(|bank| {
        let text = read_text(&bank.path().join("properties"))?;
        text.lines().find_map(|line| line.strip_prefix("size_in_bytes ")?.trim().parse::<u64>().ok())
    });
    Some(ComputeNode {
        number,
        minor,
        pci_address: address,
        // The kernel puts the number of the partition above the address.
        partition: location.and_then(|location| u32::try_from(location >> 28 & 0xf).ok()).unwrap_or(0),
        uuid: value("unique_id").filter(|id| *id > 0).map(|id| format!("GPU-{id:016x}")),
        hive: value("hive_id"),
        memory_bytes: Some(sizes.sum()).filter(|bytes| *bytes > 0),
    })
}

/// Render minor -> number of the compute node.
fn compute_order(probe: &Probe) -> BTreeMap<u32, u32> {
    compute_nodes(probe).into_iter().map(|node| (node.minor, node.number)).collect()
}

/// Asks `amd-smi`, else `rocm-smi`; the devices or why there are none, and how they were asked.
fn from_tool(probe: &Probe) -> Option<(Result<Vec<Device>, String>, String)> {
    if let Some(tool) = probe.find_tool("amd-smi") {
        let known =
            probe.answer(&tool, &["static", "--asic", "--bus", "--vram", "--json"]).map(|text| parse_amd_smi(&text));
        let used = probe.answer(&tool, &["metric", "--mem-usage", "--json"]).map(|text| parse_amd_smi(&text));
        let joined = known.map(|mut devices| {
            for device in &mut devices {
                let twin = used.iter().flatten().find(|other| other.index == device.index);
                device.memory_used_bytes = twin.and_then(|other| other.memory_used_bytes);
                device.memory_total_bytes =
                    twin.and_then(|other| other.memory_total_bytes).or(device.memory_total_bytes);
            }
            devices
        });
        if joined.as_ref().is_ok_and(|devices| !devices.is_empty()) || probe.find_tool("rocm-smi").is_none() {
            return Some((joined, format!("{} static, metric", tool.display())));
        }
    }
    let tool = probe.find_tool("rocm-smi")?;
    let arguments = ["--showproductname", "--showbus", "--showmeminfo", "vram", "--json"];
    let devices = probe.answer(&tool, &arguments).map(|text| parse_rocm_smi(&text));
    Some((devices, format!("{} --showmeminfo vram", tool.display())))
}

/// `amd-smi … --json`: a list, or (from ROCm 7) a list under `gpu_data`. `static` and `metric` fill different fields.
fn parse_amd_smi(text: &str) -> Vec<Device> {
    let document = json_in(text).unwrap_or(Value::Null);
    let entries = document.get("gpu_data").unwrap_or(&document).as_array().cloned().unwrap_or_default();
    let device = |entry: &Value| {
        let usage = entry.get("mem_usage");
        let total = usage.and_then(|usage| usage.get("total_vram")).or_else(|| entry.get("vram")?.get("size"));
        Some(Device {
            index: u32::try_from(whole(entry.get("gpu"))?).ok()?,
            name: entry.get("asic").and_then(|asic| said(asic.get("market_name"))),
            pci_address: entry.get("bus").and_then(|bus| said(bus.get("bdf"))).as_deref().map(normal_pci),
            memory_total_bytes: amount(total),
            memory_used_bytes: amount(usage.and_then(|usage| usage.get("used_vram"))),
            driver: Some("amdgpu".to_owned()),
            ..Device::default()
        })
    };
    entries.iter().filter_map(device).collect()
}

/// `{"value": 16368, "unit": "MB"}`; AMD's MB are MiB.
fn amount(field: Option<&Value>) -> Option<u64> {
    let field = field?;
    let number = whole(field.get("value").or(Some(field)))?;
    match field.get("unit").and_then(Value::as_str) {
        Some("B") => Some(number),
        Some("KB") => number.checked_mul(1 << 10),
        Some("GB") => number.checked_mul(1 << 30),
        Some("MB") | None => number.checked_mul(1 << 20),
        Some(_) => None,
    }
}

/// `rocm-smi … --json`: an object `cardN` -> fields in words.
fn parse_rocm_smi(text: &str) -> Vec<Device> {
    let document = json_in(text).unwrap_or(Value::Null);
    let mut devices: Vec<Device> = document
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(card, fields)| {
            let index = card.strip_prefix("card")?.parse().ok()?;
            let any = |names: &[&str]| names.iter().find_map(|name| said(fields.get(*name)));
            Some(Device {
                index,
                name: any(&["Card Series", "Card series", "Card Model", "Card model"]),
                pci_address: any(&["PCI Bus"]).as_deref().map(normal_pci),
                memory_total_bytes: whole(fields.get("VRAM Total Memory (B)")),
                memory_used_bytes: whole(fields.get("VRAM Total Used Memory (B)")),
                driver: Some("amdgpu".to_owned()),
                ..Device::default()
            })
        })
        .collect();
    devices.sort_by_key(|device| device.index);
    devices
}

/// Adds what the tool knows to the devices of sysfs, by address; without sysfs the tool's list is taken.
fn merge(devices: &mut Vec<Device>, listed: Vec<Device>) {
    if devices.is_empty() {
        *devices = listed;
        return;
    }
    for device in devices {
        let twin = listed.iter().find(|entry| entry.pci_address.is_some() && entry.pci_address == device.pci_address);
        if let Some(entry) = twin {
            device.name = entry.name.clone().or(device.name.take());
            device.memory_total_bytes = device.memory_total_bytes.or(entry.memory_total_bytes);
            device.memory_used_bytes = device.memory_used_bytes.or(entry.memory_used_bytes);
        }
    }
}

/// Applies ROCR_VISIBLE_DEVICES, then HIP_VISIBLE_DEVICES (or CUDA_VISIBLE_DEVICES, which HIP reads too), over partitions where a
/// card is in several. The mask of a slot is its number for HIP: counted in what ROCR_VISIBLE_DEVICES leaves.
fn visible(probe: &Probe, devices: Vec<Device>, problems: &mut Vec<String>) -> (Vec<Device>, Vec<Slot>) {
    let given = |name: &'static str| probe.environment.get(name).map(|list| (name, list.as_str()));
    let mut slots = slots(&compute_nodes(probe), &devices);
    let mut narrow = |given: Option<(&str, &str)>, slots: Vec<(Slot, Option<String>)>| {
        let Some((name, list)) = given else { return slots };
        let uuids: Vec<_> = slots.iter().map(|(_, uuid)| uuid.clone()).collect();
        let selection = mask::cuda_list(name, list, &uuids, uuids.len());
        problems.extend(selection.notes);
        selection.positions.into_iter().map(|position| slots[position].clone()).collect()
    };
    slots = narrow(given("ROCR_VISIBLE_DEVICES"), slots);
    for (number, (slot, _)) in slots.iter_mut().enumerate() {
        slot.mask = number.to_string();
    }
    slots = narrow(given("HIP_VISIBLE_DEVICES").or_else(|| given("CUDA_VISIBLE_DEVICES")), slots);
    let mut slots: Vec<Slot> = slots.into_iter().map(|(slot, _)| slot).collect();
    let devices = keep_with_slots(devices, &mut slots);
    (devices, slots)
}

/// What HIP counts, each with its UUID: compute nodes, or devices where the kernel's topology does not name them.
fn slots(nodes: &[ComputeNode], devices: &[Device]) -> Vec<(Slot, Option<String>)> {
    let of_node = |node: &ComputeNode| {
        let own = format!("/dev/dri/renderD{}", node.minor);
        let by_node =
            devices.iter().position(|device| device.node.as_deref().is_some_and(|path| path == Path::new(&own)));
        let by_address = || devices.iter().position(|d| d.pci_address.is_some() && d.pci_address == node.pci_address);
        by_node.or_else(by_address)
    };
    let found: Option<Vec<(usize, &ComputeNode)>> = nodes.iter().map(|node| Some((of_node(node)?, node))).collect();
    let all = found.filter(|found| (0..devices.len()).all(|device| found.iter().any(|(of, _)| *of == device)));
    let Some(found) = all.filter(|found| !found.is_empty()) else {
        let whole = |(position, device): (usize, &Device)| {
            (Slot { position, part: None, address: None, mask: String::new(), memory_bytes: None }, device.uuid.clone())
        };
        return devices.iter().enumerate().map(whole).collect();
    };
    let slot = |(position, node): &(usize, &ComputeNode)| {
        let several = found.iter().filter(|(of, _)| of == position).count() > 1;
        let part = several.then(|| format!("part{}", node.partition));
        let uuid = node.uuid.clone().or_else(|| devices[*position].uuid.clone());
        (Slot { position: *position, part, address: None, mask: String::new(), memory_bytes: None }, uuid)
    };
    found.iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::*;

    const ROCM_SMI: &str = r#"{"card0": {"Card Series": "AMD Instinct MI300X", "PCI Bus": "0000:C3:00.0",
        "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "301989888"},
        "card1": {"Card Series": "AMD Instinct MI300X", "PCI Bus": "0000:05:00.0",
        "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "N/A"},
        "system": {"Driver version": "6.12"}}"#;

    fn two_cards() -> Tree {
        let tree = Tree::new();
        tree.file("dev/kfd", "");
        for (minor, address, used) in [(128, "0000:05:00.0", 100), (136, "0000:c3:00.0", 200)] {
            tree.render_node(minor, ("0x1002", "0x74a1"), "amdgpu", address);
            tree.file(&format!("sys/class/drm/renderD{minor}/device/mem_info_vram_total"), "206141652992\n");
            tree.file(&format!("sys/class/drm/renderD{minor}/device/mem_info_vram_used"), &format!("{used}\n"));
        }
        tree
    }

    #[test]
    fn sysfs_gives_devices_and_memory_without_a_tool() {
        let tree = two_cards();
        let report = find(&tree.probe(), false).report;
        assert_eq!((report.kind, report.slots), (DeviceKind::Rocm, 2));
        assert_eq!(report.devices[0].memory_total_bytes, Some(206_141_652_992));
        assert_eq!(report.devices[0].name, None);
        assert_eq!(report.problems, [""; 0]);
        let used: Vec<_> = memory(&tree.probe()).iter().map(|reading| reading.used_bytes).collect();
        assert_eq!(used, [Some(100), Some(200)]);
    }

    #[test]
    fn the_compute_topology_sets_the_order() {
        let tree = two_cards();
        tree.file("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 96\ndrm_render_minor 0\n");
        tree.file("sys/class/kfd/kfd/topology/nodes/2/properties", "simd_count 1216\ndrm_render_minor 136\n");
        tree.file("sys/class/kfd/kfd/topology/nodes/10/properties", "simd_count 1216\ndrm_render_minor 128\n");
        let addresses: Vec<_> =
            find(&tree.probe(), false).report.devices.into_iter().map(|device| device.pci_address.unwrap()).collect();
        assert_eq!(addresses, ["0000:c3:00.0", "0000:05:00.0"]);
    }

    #[test]
    fn rocm_smi_adds_names_by_address() {
        let tree = two_cards();
        tree.tool_that_prints("rocm-smi", ROCM_SMI);
        let devices = find(&tree.probe(), false).report.devices;
        assert_eq!(devices[0].name.as_deref(), Some("AMD Instinct MI300X"));
        assert_eq!(devices[0].memory_used_bytes, Some(100), "sysfs is fresher");
    }

    #[test]
    fn a_tool_alone_is_enough() {
        let tree = Tree::new();
        tree.file("dev/kfd", "");
        tree.tool_that_prints("rocm-smi", ROCM_SMI);
        let report = find(&tree.probe(), false).report;
        let shown: Vec<_> = report.devices.iter().map(|device| (device.index, device.memory_used_bytes)).collect();
        assert_eq!(shown, [(0, Some(301_989_888)), (1, None)]);
        assert_eq!(memory(&tree.probe())[0].used_bytes, Some(301_989_888));
    }

    #[test]
    fn amd_smi_is_read_in_both_shapes() {
        let list = r#"[{"gpu": 0, "asic": {"market_name": "AMD Radeon AI PRO R9700"}, "bus": {"bdf": "0000:03:00.0"},
            "vram": {"size": {"value": 32624, "unit": "MB"}}}]"#;
        let metric = r#"{"gpu_data": [{"gpu": 0, "mem_usage": {"total_vram": {"value": 32704, "unit": "MB"},
            "used_vram": {"value": 26, "unit": "MB"}}}, {"gpu": 1, "mem_usage": "N/A"}]}"#;
        let tree = Tree::new();
        tree.file("dev/kfd", "");
        tree.tool(
            "amd-smi",
            &format!("case $1 in static) cat <<'T'\n{list}\nT\n;; metric) cat <<'T'\n{metric}\nT\n;; esac"),
        );
        let device = find(&tree.probe(), false).report.devices.remove(0);
        assert_eq!(device.name.as_deref(), Some("AMD Radeon AI PRO R9700"));
        assert_eq!(device.memory_total_bytes, Some(32704 << 20));
        assert_eq!(device.memory_used_bytes, Some(26 << 20));
        assert_eq!(parse_amd_smi(metric)[1].memory_used_bytes, None);
    }

    #[test]
    fn without_kfd_there_is_no_rocm() {
        let tree = two_cards();
        std::fs::remove_file(tree.path().join("dev/kfd")).unwrap();
        let found = find(&tree.probe(), false);
        assert_eq!(found.present, 0);
        assert!(found.report.problems[0].contains("--device /dev/kfd"));
        assert_eq!(find(&tree.probe(), true).present, 2);
    }

    #[test]
    fn masks_apply_one_after_the_other() {
        let tree = two_cards();
        let seen = |variables: &[(&str, &str)]| -> Vec<u32> {
            find(&tree.probe_with(variables), false).report.devices.iter().map(|device| device.index).collect()
        };
        assert_eq!(seen(&[("ROCR_VISIBLE_DEVICES", "1")]), [1]);
        assert_eq!(seen(&[("ROCR_VISIBLE_DEVICES", "1"), ("HIP_VISIBLE_DEVICES", "0")]), [1]);
        assert_eq!(seen(&[("CUDA_VISIBLE_DEVICES", "0")]), [0]);
        assert_eq!(seen(&[("HIP_VISIBLE_DEVICES", "1"), ("CUDA_VISIBLE_DEVICES", "0")]), [1]);
    }
}

//! Intel GPUs: sysfs says what there is, `xpu-smi discovery` adds names and sizes.
//!
//! Numbers follow the PCI address, discrete cards first, as Level Zero counts them. Cards are matched by address only: the
//! numbers of `/dev/dri` shift between boots and containers.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;

use serde_json::Value;

use super::super::devices::{
    Device, DeviceKind, DeviceReport, Found, MemoryReading, MemorySource, Slot, keep_with_slots,
};
use super::super::drm::{self, RenderNode, normal_pci};
use super::super::mask;
use super::super::probe::{Probe, read_number, read_text};
use super::{json_in, said, whole};

/// Device memory that processes in sight hold, by PCI address.
type Users = BTreeMap<String, Option<u64>>;

/// Names of cards that people run vLLM on, for machines without `xpu-smi`.
const NAMES: [(u16, &str); 12] = [
    (0xe20b, "Intel Arc B580"),
    (0xe20c, "Intel Arc B570"),
    (0xe211, "Intel Arc Pro B60"),
    (0xe212, "Intel Arc Pro B50"),
    (0x56a0, "Intel Arc A770"),
    (0x56a1, "Intel Arc A750"),
    (0x56a5, "Intel Arc A380"),
    (0x56a6, "Intel Arc A310"),
    (0x56c0, "Intel Data Center GPU Flex 170"),
    (0x56c1, "Intel Data Center GPU Flex 140"),
    (0x0bd5, "Intel Data Center GPU Max 1550"),
    (0x0bda, "Intel Data Center GPU Max 1100"),
];

/// A source of a report for which the tool was not asked: it lacks what only the tool knows, such as the version of the driver.
pub const NOT_ASKED: &str = "xpu-smi is not asked while a run measures on devices of this machine";

/// The smallest memory window that only a discrete card has.
const DISCRETE_WINDOW_BYTES: u64 = 4 << 30;

/// Finds Intel GPUs. Integrated ones count only when there is no discrete one and the caller wants them.
pub(in super::super) fn find(probe: &Probe, integrated_too: bool) -> Found {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let mut devices = from_sysfs(probe, &mut problems);
    if !devices.is_empty() {
        sources.push("/sys/class/drm".to_owned());
    }
    if probe.quiet && probe.find_tool("xpu-smi").is_some() {
        sources.push(NOT_ASKED.to_owned());
    }
    if let Some(tool) = probe.find_disturbing_tool("xpu-smi") {
        match probe.answer(&tool, &["discovery", "-j"]).and_then(|text| parse_discovery(&text)) {
            Ok(listed) => {
                sources.insert(0, format!("{} discovery -j", tool.display()));
                merge(&mut devices, listed, &mut problems);
            }
            // Without any card in sight, a tool that finds none is no problem.
            Err(_) if devices.is_empty() => {}
            Err(sentence) => problems.push(sentence),
        }
    }
    if devices.is_empty() && integrated_too {
        for node in drm::nodes_without_sysfs(probe) {
            devices.push(Device { node: Some(node), ..Device::default() });
            problems.push("/dev/dri has render nodes of which sysfs says nothing: their vendor is assumed".to_owned());
        }
    }
    let mut devices = choose(devices, integrated_too, &mut sources, &mut problems);
    let present = devices.len();
    let users = LazyCell::new(|| drm::memory_by_users(probe));
    for device in &mut devices {
        device.memory_used_bytes = used(probe, device, &users).map(|(bytes, _)| bytes);
    }
    let (devices, slots) = visible(probe, devices, &mut problems);
    problems.dedup();
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    Found { report: DeviceReport { kind: DeviceKind::Xpu, devices, slots: count, sources, problems }, present, slots }
}

/// Used memory of the visible devices, without running any tool.
pub(in super::super) fn memory(probe: &Probe) -> Vec<MemoryReading> {
    readings(probe, &LazyCell::new(|| drm::memory_by_users(probe)))
}

/// What drivers tell alone: no process is looked into.
pub(in super::super) fn memory_of_drivers(probe: &Probe) -> Vec<MemoryReading> {
    let mut told = readings(probe, &Box::<Users>::default());
    told.retain(|reading| reading.source == Some(MemorySource::Device));
    told
}

fn readings(probe: &Probe, users: &impl Deref<Target = Users>) -> Vec<MemoryReading> {
    let mut ignored = Vec::new();
    let devices = choose(from_sysfs(probe, &mut ignored), true, &mut Vec::new(), &mut Vec::new());
    let (devices, _) = visible(probe, devices, &mut ignored);
    let reading = |device: Device| {
        let (used_bytes, source) = used(probe, &device, users).unzip();
        MemoryReading { index: device.index, pci_address: device.pci_address, used_bytes, source }
    };
    devices.into_iter().map(reading).collect()
}

fn from_sysfs(probe: &Probe, problems: &mut Vec<String>) -> Vec<Device> {
    let (there, hidden): (Vec<_>, Vec<_>) =
        drm::render_nodes(probe, drm::INTEL).into_iter().partition(|node| node.node_present);
    for node in hidden.iter().filter(|node| !is_integrated(node)) {
        problems.push(format!(
            "the host has an Intel GPU at {} whose node {} is not here: start the container with --device /dev/dri",
            node.pci_address.as_deref().unwrap_or("an unknown address"),
            node.node.display()
        ));
    }
    there.iter().map(|node| from_node(probe, node)).collect()
}

fn from_node(probe: &Probe, node: &RenderNode) -> Device {
    let known = NAMES.iter().find(|(device, _)| *device == node.device).map(|(_, name)| (*name).to_owned());
    let tiles = (0..8).filter(|tile| node.sysfs.join(format!("tile{tile}")).is_dir()).count();
    Device {
        name: Some(known.unwrap_or_else(|| format!("Intel GPU 8086:{:04x}", node.device))),
        pci_address: node.pci_address.clone(),
        memory_total_bytes: card_number(node, "lmem_total_bytes").or_else(|| video_memory(probe, node)?.total_bytes),
        driver: node.driver.clone(),
        driver_version: node.driver.as_ref().and_then(|name| probe.text(format!("/sys/module/{name}/version"))),
        node: Some(node.node.clone()),
        integrated: Some(is_integrated(node)),
        tiles: u32::try_from(tiles).ok().filter(|tiles| *tiles > 0),
        ..Device::default()
    }
}

/// Intel's integrated GPU is always function 00:02.0; a virtual machine may place a discrete card there, which then shows
/// by its local memory or a large memory window.
fn is_integrated(node: &RenderNode) -> bool {
    let at_02 = node.pci_address.as_deref().is_some_and(|address| address.ends_with(":00:02.0"));
    at_02 && card_number(node, "lmem_total_bytes").is_none() && largest_window(node) < DISCRETE_WINDOW_BYTES
}

/// The largest memory window (BAR) of the PCI device, in bytes; 0 where sysfs does not say.
fn largest_window(node: &RenderNode) -> u64 {
    let text = read_text(&node.sysfs.join("resource")).unwrap_or_default();
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let sizes = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = (number(words.next()?)?, number(words.next()?)?);
        (end > start).then(|| end - start + 1)
    });
    sizes.max().unwrap_or(0)
}

/// A number in the folder of the card (`device/drm/cardN/NAME`), where Intel's out-of-tree i915 puts its memory metrics.
fn card_number(node: &RenderNode, name: &str) -> Option<u64> {
    let entries = std::fs::read_dir(node.sysfs.join("drm")).ok()?;
    let cards = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("card"));
    cards.map(|entry| entry.path().join(name)).find_map(|path| read_number(&path))
}

struct VideoMemory {
    total_bytes: Option<u64>,
    used_bytes: Option<u64>,
}

/// xe's memory manager in debugfs: whole-device metrics, for root where debugfs is mounted.
fn video_memory(probe: &Probe, node: &RenderNode) -> Option<VideoMemory> {
    if node.driver.as_deref() != Some("xe") {
        return None;
    }
    debugfs_memory(probe, node.pci_address.as_deref()?)
}

fn debugfs_memory(probe: &Probe, address: &str) -> Option<VideoMemory> {
    let folder = format!("/sys/kernel/debug/dri/{address}");
    let texts: Vec<String> = (0..8)
        .filter_map(|tile| {
            let new = probe.text(format!("{folder}/tile{tile}/vram_mm"));
            new.or_else(|| probe.text(format!("{folder}/vram{tile}_mm")))
        })
        .collect();
    let sum = |key: &str| -> Option<u64> {
        let metric =
            |text: &String| text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().parse::<u64>().ok());
        texts.iter().map(metric).sum::<Option<u64>>().filter(|_| !texts.is_empty())
    };
    (!texts.is_empty()).then(|| VideoMemory { total_bytes: sum("size:"), used_bytes: sum("usage:") })
}

/// Bytes in use: the driver's own metric where there is one, else what the visible processes hold.
///
/// `users` is looked at only where the driver does not tell: it takes a look at every open file of this machine.
fn used(probe: &Probe, device: &Device, users: &impl Deref<Target = Users>) -> Option<(u64, MemorySource)> {
    let address = device.pci_address.as_deref()?;
    let node =
        drm::render_nodes(probe, drm::INTEL).into_iter().find(|node| node.pci_address.as_deref() == Some(address))?;
    let free = card_number(&node, "lmem_avail_bytes");
    let by_card = card_number(&node, "lmem_total_bytes").zip(free).and_then(|(total, free)| total.checked_sub(free));
    if let Some(bytes) = by_card.or_else(|| video_memory(probe, &node)?.used_bytes) {
        return Some((bytes, MemorySource::Device));
    }
    if device.integrated == Some(true) {
        return None;
    }
    let bytes = users.get(address).copied().unwrap_or(Some(0))?;
    Some((bytes, MemorySource::Processes))
}

/// The devices that `xpu-smi discovery -j` lists.
fn parse_discovery(text: &str) -> Result<Vec<Device>, String> {
    let document = json_in(text).ok_or_else(|| "`xpu-smi discovery -j` printed no JSON".to_owned())?;
    if let Some(error) = document.get("error") {
        return Err(format!("`xpu-smi discovery -j` failed: {}", error.as_str().unwrap_or("it gave no reason")));
    }
    let listed = document.get("device_list").or_else(|| document.get("devices")).unwrap_or(&document);
    let entries: &[Value] = match listed {
        Value::Array(entries) => entries,
        single if single.get("device_id").is_some() => std::slice::from_ref(single),
        _ => return Err("`xpu-smi discovery -j` printed no list of devices".to_owned()),
    };
    Ok(entries.iter().map(from_discovery).collect())
}

fn from_discovery(entry: &Value) -> Device {
    let positive = |key| whole(entry.get(key)).filter(|number| *number > 0);
    Device {
        index: whole(entry.get("device_id")).and_then(|number| u32::try_from(number).ok()).unwrap_or_default(),
        name: said(entry.get("device_name")),
        pci_address: said(entry.get("pci_bdf_address")).as_deref().map(normal_pci),
        memory_total_bytes: positive("memory_physical_size_byte"),
        driver_version: said(entry.get("driver_version")),
        uuid: said(entry.get("uuid")).or_else(|| said(entry.get("soc_uuid"))),
        tiles: positive("number_of_tiles").and_then(|tiles| u32::try_from(tiles).ok()),
        ..Device::default()
    }
}

/// Adds what the tool knows to what sysfs knows; a device of the tool that sysfs lacks is taken as it is.
fn merge(devices: &mut Vec<Device>, listed: Vec<Device>, problems: &mut Vec<String>) {
    let only_sysfs = devices.iter().filter(|device| device.integrated != Some(true));
    let missing = only_sysfs.filter(|device| !listed.iter().any(|other| other.pci_address == device.pci_address));
    for device in missing {
        let address = device.pci_address.as_deref().unwrap_or("an unknown address");
        problems.push(format!("xpu-smi does not list the GPU at {address}: Level Zero may not be able to use it"));
    }
    for entry in listed {
        let twin =
            devices.iter_mut().find(|device| device.pci_address.is_some() && device.pci_address == entry.pci_address);
        let Some(device) = twin else {
            devices.push(entry);
            continue;
        };
        device.name = entry.name.or(device.name.take());
        device.memory_total_bytes = entry.memory_total_bytes.or(device.memory_total_bytes);
        device.driver_version = entry.driver_version.or(device.driver_version.take());
        device.uuid = entry.uuid;
        device.tiles = entry.tiles.or(device.tiles);
    }
}

/// Discrete devices by address; integrated ones only in their absence and when wanted. Then numbers them. An integrated one
/// beside discrete ones is expected; alone it may be what the user means, so that leaving it out is told as a problem.
fn choose(
    devices: Vec<Device>,
    integrated_too: bool,
    sources: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> Vec<Device> {
    let (integrated, mut discrete): (Vec<_>, Vec<_>) =
        devices.into_iter().partition(|device| device.integrated == Some(true));
    if discrete.is_empty() && integrated_too {
        discrete = integrated;
    } else {
        let told = if discrete.is_empty() { problems } else { sources };
        for device in integrated {
            let address = device.pci_address.as_deref().unwrap_or("an unknown address");
            told.push(format!("the integrated Intel GPU at {address} is left out"));
        }
    }
    discrete.sort_by(|a, b| (&a.pci_address, a.index, &a.node).cmp(&(&b.pci_address, b.index, &b.node)));
    for (index, device) in (0..).zip(&mut discrete) {
        device.index = index;
    }
    discrete
}

/// Applies the masks, in the order in which Level Zero and SYCL do, over tiles where each tile counts as a device.
fn visible(probe: &Probe, devices: Vec<Device>, problems: &mut Vec<String>) -> (Vec<Device>, Vec<Slot>) {
    let mut slots = if counts_tiles(probe) {
        narrowed(probe, "ZE_AFFINITY_MASK", mask::ze_affinity, tiles(&devices), problems)
    } else {
        cards(&devices, probe.variable("ZE_AFFINITY_MASK"), problems)
    };
    if let Some(selector) = probe.variable("ONEAPI_DEVICE_SELECTOR").filter(|selector| selector.contains('.')) {
        problems.push(format!("ONEAPI_DEVICE_SELECTOR={selector} names parts of devices: whole ones are meant here"));
    }
    slots = narrowed(probe, "ONEAPI_DEVICE_SELECTOR", mask::oneapi_selector, slots, problems);
    let devices = keep_with_slots(devices, &mut slots);
    (devices, slots)
}

/// Whether Level Zero shows each tile of a card as a device, as it does unless it is told otherwise.
pub(in super::super) fn counts_tiles(probe: &Probe) -> bool {
    !probe.variable("ZE_FLAT_DEVICE_HIERARCHY").is_some_and(|mode| mode.eq_ignore_ascii_case("COMPOSITE"))
}

/// What `xpu-smi` says of the links between cards.
#[derive(Debug, Default)]
pub(in super::super) struct Fabric {
    /// `xpu-smi topology -m`; empty where there is nothing to ask.
    pub text: String,
    /// PCI address -> the tool's number.
    pub numbers: BTreeMap<String, u32>,
}

/// The PCI addresses of the devices that `xpu-smi` lists, by its own numbers; none where it does not say.
pub(in super::super) fn addresses(probe: &Probe, tool: &Path) -> BTreeMap<u32, String> {
    let listed = probe.answer(tool, &["discovery", "-j"]).and_then(|text| parse_discovery(&text)).unwrap_or_default();
    listed.into_iter().filter_map(|device| Some((device.index, device.pci_address?))).collect()
}

/// PCI device numbers of the Data Center GPU Max begin with this: only these have Xe Link.
const WITH_FABRIC: u16 = 0x0b;

/// Asks how cards are linked, where there are several that can be: the tool disturbs cards that work.
pub(in super::super) fn fabric(probe: &Probe, devices: &[Device], problems: &mut Vec<String>) -> Fabric {
    let nodes = drm::render_nodes(probe, drm::INTEL);
    let has_links = |device: &&Device| {
        nodes.iter().any(|node| node.pci_address == device.pci_address && node.device >> 8 == WITH_FABRIC)
    };
    let Some(tool) = probe.find_disturbing_tool("xpu-smi").filter(|_| devices.iter().filter(has_links).count() > 1)
    else {
        return Fabric::default();
    };
    let asked = probe.answer(&tool, &["discovery", "-j"]).and_then(|text| parse_discovery(&text)).and_then(|listed| {
        let numbers = listed.into_iter().filter_map(|device| Some((device.pci_address?, device.index))).collect();
        Ok(Fabric { text: probe.answer(&tool, &["topology", "-m"])?, numbers })
    });
    asked.unwrap_or_else(|sentence| {
        problems.push(sentence);
        Fabric::default()
    })
}

fn narrowed(
    probe: &Probe,
    name: &str,
    select: fn(&str, usize) -> mask::Selection,
    slots: Vec<Slot>,
    problems: &mut Vec<String>,
) -> Vec<Slot> {
    let Some(value) = probe.variable(name) else { return slots };
    let selection = select(value, slots.len());
    problems.extend(selection.notes);
    selection.positions.into_iter().map(|position| slots[position].clone()).collect()
}

/// A slot per tile, numbered through over all cards.
fn tiles(devices: &[Device]) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (position, device) in devices.iter().enumerate() {
        let count = device.tiles.unwrap_or(1).max(1);
        for tile in 0..count {
            let part = (count > 1).then(|| format!("tile{tile}"));
            slots.push(Slot { position, part, address: None, mask: slots.len().to_string(), memory_bytes: None });
        }
    }
    slots
}

/// A slot per card. Of a card of which the mask names single tiles (`0.1`) one tile is a device, and several are one device.
fn cards(devices: &[Device], mask: Option<&str>, problems: &mut Vec<String>) -> Vec<Slot> {
    let whole =
        |position: usize| Slot { position, part: None, address: None, mask: position.to_string(), memory_bytes: None };
    let Some(mask) = mask else { return (0..devices.len()).map(whole).collect() };
    let selection = mask::ze_affinity(mask, devices.len());
    problems.extend(selection.notes);
    let words: Vec<&str> = mask.split(',').map(str::trim).collect();
    let slot = |position: usize| {
        let prefix = format!("{position}.");
        let mut tiles: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix(prefix.as_str())).collect();
        tiles.sort_unstable();
        tiles.dedup();
        let all = usize::try_from(devices[position].tiles.unwrap_or(1)).is_ok_and(|count| tiles.len() >= count);
        match tiles.as_slice() {
            [] => whole(position),
            _ if all || words.contains(&position.to_string().as_str()) => whole(position),
            [tile] => Slot { part: Some(format!("tile{tile}")), mask: format!("{position}.{tile}"), ..whole(position) },
            several => {
                let mask: Vec<String> = several.iter().map(|tile| format!("{position}.{tile}")).collect();
                Slot { mask: mask.join(","), ..whole(position) }
            }
        }
    };
    selection.positions.into_iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::Tree;
    use super::*;

    /// As xpumanager's guide and its issue #127 print it (shortened), with a second card.
    const DISCOVERY: &str = r#"{
        "device_list": [
            {"device_id": 0, "device_name": "Intel(R) Graphics [0xe211]", "device_type": "GPU",
             "driver_version": "7B7A46009E666C4D10E1134", "drm_device": "/dev/dri/card0",
             "memory_physical_size_byte": "25669140480", "number_of_tiles": "1",
             "pci_bdf_address": "0000:17:00.0", "uuid": "00000000-0000-0017-0000-0000e2118086"},
            {"device_id": 1, "device_name": "Intel(R) Graphics [0xe211]", "device_type": "GPU",
             "memory_physical_size_byte": "N/A", "pci_bdf_address": "0000:1A:00.0"}
        ]
    }"#;

    fn two_cards() -> Tree {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0xe211"), "xe", "0000:1a:00.0");
        tree.render_node(129, ("0x8086", "0xe211"), "xe", "0000:17:00.0");
        tree
    }

    #[test]
    fn the_tool_and_sysfs_are_one_report() {
        let tree = two_cards();
        tree.tool_that_prints("xpu-smi", DISCOVERY);
        let report = find(&tree.probe(), false).report;
        assert_eq!((report.devices.len(), report.slots), (2, 2));
        let first = &report.devices[0];
        assert_eq!((first.index, first.pci_address.as_deref()), (0, Some("0000:17:00.0")));
        assert_eq!(first.name.as_deref(), Some("Intel(R) Graphics [0xe211]"));
        assert_eq!(first.memory_total_bytes, Some(25_669_140_480));
        assert_eq!(
            (first.driver.as_deref(), first.node.as_deref()),
            (Some("xe"), Some("/dev/dri/renderD129".as_ref()))
        );
        assert_eq!(report.devices[1].memory_total_bytes, None, "N/A is unknown");
        assert_eq!(report.problems, [""; 0]);
        assert!(report.sources[0].ends_with("xpu-smi discovery -j"), "{:?}", report.sources);
    }

    #[test]
    fn the_tool_is_not_run_while_somebody_measures() {
        let tree = two_cards();
        tree.tool("xpu-smi", "touch \"$0.called\"");
        let report = find(&Probe { quiet: true, ..tree.probe() }, false).report;
        assert_eq!(report.devices.len(), 2);
        assert!(report.sources.iter().any(|line| line.contains("is not asked while a run measures")), "{report:?}");
        assert!(!tree.path().join("bin/xpu-smi.called").exists());
    }

    #[test]
    fn sysfs_alone_is_enough() {
        let tree = two_cards();
        let report = find(&tree.probe(), false).report;
        assert_eq!(report.devices[0].name.as_deref(), Some("Intel Arc Pro B60"));
        assert_eq!(report.devices[0].memory_total_bytes, None);
        assert_eq!(report.sources, ["/sys/class/drm"]);
    }

    #[test]
    fn a_tool_that_fails_hangs_or_reports_an_error_is_told_and_sysfs_used() {
        for (script, words) in [
            ("echo 'Error: Level Zero' >&2; exit 1", "Level Zero"),
            (r#"echo '{"error": "Level Zero Initialization Error"}'"#, "Level Zero Initialization Error"),
            ("echo nothing", "no JSON"),
            ("sleep 1000", "no answer within"),
        ] {
            let tree = two_cards();
            tree.tool("xpu-smi", script);
            let mut probe = tree.probe();
            if script.starts_with("sleep") {
                probe.command_limit = std::time::Duration::from_millis(200);
            }
            let report = find(&probe, false).report;
            assert_eq!(report.devices.len(), 2, "{script}");
            assert!(report.problems[0].contains(words), "{script}: {:?}", report.problems);
        }
    }

    #[test]
    fn masks_narrow_the_devices_and_keep_their_numbers() {
        for (variables, indices) in [
            (&[][..], &[0, 1][..]),
            (&[("ZE_AFFINITY_MASK", "1")], &[1]),
            (&[("ZE_AFFINITY_MASK", "")], &[0, 1]),
            (&[("ONEAPI_DEVICE_SELECTOR", "level_zero:0")], &[0]),
            (&[("ONEAPI_DEVICE_SELECTOR", "opencl:cpu")], &[]),
            (&[("ZE_AFFINITY_MASK", "1"), ("ONEAPI_DEVICE_SELECTOR", "level_zero:0")], &[1]),
        ] {
            let tree = two_cards();
            let found = find(&tree.probe_with(variables), false);
            let seen: Vec<u32> = found.report.devices.iter().map(|device| device.index).collect();
            assert_eq!(seen, indices, "{variables:?}");
            assert_eq!(found.present, 2, "{variables:?}");
            let read: Vec<u32> = memory(&tree.probe_with(variables)).iter().map(|reading| reading.index).collect();
            assert_eq!(read, indices, "{variables:?}: memory is read for the same devices");
        }
    }

    #[test]
    fn tiles_count_unless_the_hierarchy_is_composite() {
        let tree = two_cards();
        for minor in [128, 129] {
            for tile in 0..2 {
                tree.file(&format!("sys/class/drm/renderD{minor}/device/tile{tile}/x"), "");
            }
        }
        let slots = |variables: &[(&str, &str)]| {
            let report = find(&tree.probe_with(variables), false).report;
            (report.devices.len(), report.slots)
        };
        assert_eq!(slots(&[]), (2, 4));
        assert_eq!(slots(&[("ZE_AFFINITY_MASK", "0,1,2")]), (2, 3));
        assert_eq!(slots(&[("ZE_AFFINITY_MASK", "2,3")]), (1, 2));
        assert_eq!(slots(&[("ZE_FLAT_DEVICE_HIERARCHY", "COMPOSITE")]), (2, 2));
        let masks = |variables: &[(&str, &str)]| -> Vec<String> {
            find(&tree.probe_with(variables), false).slots.into_iter().map(|slot| slot.mask).collect()
        };
        assert_eq!(masks(&[("ZE_AFFINITY_MASK", "3,1")]), ["1", "3"], "the numbers of all tiles");
        for (mask, expected) in
            [("1.0", &["1.0"][..]), ("0.0,0.1,1.1", &["0", "1.1"]), ("0,0.1", &["0"]), ("1", &["1"])]
        {
            assert_eq!(
                masks(&[("ZE_FLAT_DEVICE_HIERARCHY", "COMPOSITE"), ("ZE_AFFINITY_MASK", mask)]),
                expected,
                "{mask}"
            );
        }
    }

    #[test]
    fn integrated_and_discrete_are_told_apart() {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0x7d55"), "i915", "0000:00:02.0");
        assert_eq!(find(&tree.probe(), false).present, 0);
        assert_eq!(find(&tree.probe(), true).present, 1);
        tree.render_node(129, ("0x8086", "0xe211"), "xe", "0000:03:00.0");
        let report = find(&tree.probe(), true).report;
        assert_eq!((report.devices.len(), report.problems.len()), (1, 0));
        assert!(report.sources[1].contains("0000:00:02.0 is left out"), "{:?}", report.sources);
        // The same place with a 16 GiB window: a discrete card passed into a virtual machine.
        let window = "0x0000004000000000 0x00000043ffffffff 0x000000000014220c\n";
        tree.file("sys/class/drm/renderD128/device/resource", window);
        assert_eq!(find(&tree.probe(), false).present, 2);
    }

    #[test]
    fn a_card_whose_node_the_container_lacks_is_named() {
        let tree = two_cards();
        std::fs::remove_file(tree.path().join("dev/dri/renderD128")).unwrap();
        let report = find(&tree.probe(), false).report;
        assert_eq!(report.devices.len(), 1);
        assert!(report.problems[0].contains("0000:1a:00.0") && report.problems[0].contains("--device /dev/dri"));
    }

    #[test]
    fn memory_comes_from_the_driver_else_from_the_processes() {
        let tree = two_cards();
        tree.tool("xpu-smi", "touch \"$0.called\"");
        let readings = |tree: &Tree| -> Vec<_> {
            memory(&tree.probe()).into_iter().map(|reading| (reading.used_bytes, reading.source)).collect()
        };
        assert_eq!(readings(&tree), [(Some(0), Some(MemorySource::Processes)); 2]);
        tree.process(9, "VLLM::Worker", &["VLLM::Worker"], 0, 1);
        let fdinfo = "drm-client-id: 1\ndrm-pdev: 0000:17:00.0\ndrm-resident-vram0: 5 MiB\n";
        tree.descriptor(9, 3, "/dev/dri/renderD129", fdinfo);
        tree.descriptor(9, 4, "/dev/dri/renderD128", "drm-client-id: 2\ndrm-pdev: 0000:1a:00.0\n");
        assert_eq!(readings(&tree), [(Some(5 << 20), Some(MemorySource::Processes)), (None, None)]);
        tree.file(
            "sys/kernel/debug/dri/0000:1a:00.0/tile0/vram_mm",
            "  use_type: 1\n  size: 8522825728\n  usage: 32079872\n",
        );
        assert_eq!(readings(&tree)[1], (Some(32_079_872), Some(MemorySource::Device)));
        tree.file("sys/class/drm/renderD129/device/drm/card0/lmem_total_bytes", "1000\n");
        tree.file("sys/class/drm/renderD129/device/drm/card0/lmem_avail_bytes", "400\n");
        assert_eq!(readings(&tree)[0], (Some(600), Some(MemorySource::Device)));
        assert!(!tree.path().join("bin/xpu-smi.called").exists(), "memory is read without the tool");
    }

    /// Users that nobody may ask for.
    struct Unasked;

    impl Deref for Unasked {
        type Target = Users;
        fn deref(&self) -> &Users {
            panic!("every open file of the machine was looked at")
        }
    }

    #[test]
    fn open_files_are_looked_at_only_where_a_driver_does_not_tell() {
        let tree = two_cards();
        let [first, second] = from_sysfs(&tree.probe(), &mut Vec::new()).try_into().unwrap();
        for minor in [128, 129] {
            let card = format!("sys/class/drm/renderD{minor}/device/drm/card0");
            tree.file(&format!("{card}/lmem_total_bytes"), "1000\n");
            tree.file(&format!("{card}/lmem_avail_bytes"), "400\n");
        }
        for device in [first, second] {
            assert_eq!(used(&tree.probe(), &device, &Unasked), Some((600, MemorySource::Device)));
        }
        assert_eq!(readings(&Tree::new().probe(), &Unasked), []);
    }
}

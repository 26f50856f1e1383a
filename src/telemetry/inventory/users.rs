//! Who uses a unit: by the memory that processes hold on it. A device node that is open proves nothing: runtimes open those of all
//! devices, whichever the server is narrowed to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::ComputeUnit;
use crate::telemetry::devices::{DeviceKind, MemorySource, device_readings, memory_readings};
use crate::telemetry::drm::{Client, normal_pci, parse_fdinfo};
use crate::telemetry::gpu::nvidia;
use crate::telemetry::probe::Probe;
use crate::telemetry::procfs;

/// A process with less memory on a device does not use it: screens, monitors, and runtimes that only look.
const USES_BYTES: u64 = 64 << 20;
/// So much memory in use, and no process in sight that holds it, is somebody's who cannot be seen from here.
const UNSEEN_BYTES: u64 = 1 << 30;

/// Somebody who uses a unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnitUser {
    /// Address of the unit.
    pub address: String,
    /// The process; absent where it cannot be seen from here (another container, or another user's for anybody but root).
    pub pid: Option<i32>,
    /// Number of its user.
    pub uid: Option<u32>,
    /// Its arguments.
    #[serde(skip)]
    pub argv: Vec<String>,
    /// Bytes that it holds on the unit, where the driver tells.
    pub memory_bytes: Option<u64>,
}

/// Who uses these units. For a CPU nobody is told: cores are everybody's. Blocks for one call of the vendor's tool on NVIDIA, and
/// on AMD where the driver tells nothing.
pub fn unit_users(probe: &Probe, kind: DeviceKind, units: &[ComputeUnit]) -> Vec<UnitUser> {
    let mut users = match kind {
        DeviceKind::Cpu => return Vec::new(),
        DeviceKind::Cuda => of_nvidia(probe, units),
        DeviceKind::Xpu | DeviceKind::Rocm => of_drm(probe, units),
    };
    users.retain(|user| user.memory_bytes.is_none_or(|bytes| bytes >= USES_BYTES));
    let unseen = unseen(probe, kind, units, &users);
    users.extend(unseen);
    users.sort();
    users
}

/// Bytes in use on each unit, where that can be told: a whole device by its driver, else by the processes in sight; a tile by those
/// alone; an instance by the vendor's tool. Of partitions nothing is known that is not also that of their neighbours.
pub fn unit_memory(probe: &Probe, kind: DeviceKind, units: &[ComputeUnit]) -> Vec<(String, u64)> {
    let readings = memory_readings(probe, kind);
    let split = units.iter().any(|unit| unit.address.starts_with("MIG-"));
    let instances = if split { nvidia::instances_used(probe) } else { BTreeMap::new() };
    // One look at the processes for all tiles.
    let tiles: Vec<ComputeUnit> = units.iter().filter(|unit| unit.address.contains("/tile")).cloned().collect();
    let users = if tiles.is_empty() { Vec::new() } else { of_drm(probe, &tiles) };
    let of_unit = |unit: &ComputeUnit| {
        if let Some(used) = instances.get(&unit.address) {
            return Some((unit.address.clone(), *used));
        }
        if unit.address.contains("/tile") {
            let of_tile = users.iter().filter(|user| user.address == unit.address).map(|user| user.memory_bytes);
            return Some((unit.address.clone(), of_tile.sum::<Option<u64>>()?));
        }
        let reading = readings.iter().find(|reading| reading.pci_address.as_deref() == Some(&*unit.address))?;
        Some((unit.address.clone(), reading.used_bytes.filter(|_| reading.source != Some(MemorySource::Host))?))
    };
    units.iter().filter_map(of_unit).collect()
}

/// What the driver counts on a whole device, and no process in sight holds.
fn unseen(probe: &Probe, kind: DeviceKind, units: &[ComputeUnit], users: &[UnitUser]) -> Vec<UnitUser> {
    let readings = device_readings(probe, kind);
    let of_unit = |unit: &ComputeUnit| {
        let reading = readings.iter().find(|reading| reading.pci_address.as_deref() == Some(&*unit.address))?;
        let used = reading.used_bytes.filter(|_| reading.source == Some(MemorySource::Device))?;
        let mut seen = users.iter().filter(|user| user.address == unit.address).peekable();
        let is_unknown = seen.peek().is_some_and(|user| user.memory_bytes.is_none());
        let rest = used.checked_sub(seen.filter_map(|user| user.memory_bytes).sum())?;
        (rest >= UNSEEN_BYTES && !is_unknown).then(|| UnitUser {
            address: unit.address.clone(),
            pid: None,
            uid: None,
            argv: Vec::new(),
            memory_bytes: Some(rest),
        })
    };
    units.iter().filter_map(of_unit).collect()
}

fn user(probe: &Probe, address: &str, pid: i32, memory_bytes: Option<u64>) -> UnitUser {
    let argv = procfs::argv(&probe.root, pid).or_else(|| procfs::comm(&probe.root, pid).map(|comm| vec![comm]));
    let (address, uid) = (address.to_owned(), procfs::uid(&probe.root, pid));
    UnitUser { address, pid: Some(pid), uid, argv: argv.unwrap_or_default(), memory_bytes }
}

/// By the descriptors of render nodes and what the kernel tells of each.
fn of_drm(probe: &Probe, units: &[ComputeUnit]) -> Vec<UnitUser> {
    let mut users = Vec::new();
    for pid in procfs::pids(&probe.root) {
        let Ok(descriptors) = procfs::descriptors(&probe.root, pid) else { continue };
        // A client shows up in every descriptor that shares it.
        let mut clients: BTreeMap<PathBuf, Vec<Client>> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for (number, target) in descriptors {
            if !units.iter().any(|unit| unit.node.as_deref() == Some(&*target)) {
                continue;
            }
            let client = procfs::fdinfo(&probe.root, pid, &number).map(|text| parse_fdinfo(&text)).unwrap_or_default();
            if client.id.is_none_or(|id| counted.insert((target.clone(), id))) {
                clients.entry(target).or_default().push(client);
            }
        }
        for unit in units {
            let Some(own) = unit.node.as_ref().and_then(|node| clients.get(node)) else { continue };
            let tile = unit.address.rsplit_once("/tile").and_then(|(_, tile)| tile.parse().ok());
            let held: Option<u64> = own.iter().map(|client| client.memory_of(tile)).sum();
            users.push(user(probe, &unit.address, pid, held));
        }
    }
    users
}

/// By the vendor's tool, whose numbers are the host's: a process counts as seen where one of that number has a device open here.
fn of_nvidia(probe: &Probe, units: &[ComputeUnit]) -> Vec<UnitUser> {
    let opens_device = |pid: i32| {
        let descriptors = procfs::descriptors(&probe.root, pid).unwrap_or_default();
        descriptors.iter().any(|(_, target)| is_nvidia(target))
    };
    let of_app = |app: nvidia::App| {
        let unit = units.iter().find(|unit| unit.address == normal_pci(&app.pci_address))?;
        if opens_device(app.pid) {
            return Some(user(probe, &unit.address, app.pid, app.memory_bytes));
        }
        let memory_bytes = app.memory_bytes;
        Some(UnitUser { address: unit.address.clone(), pid: None, uid: None, argv: Vec::new(), memory_bytes })
    };
    nvidia::apps(probe).into_iter().filter_map(of_app).collect()
}

fn is_nvidia(target: &Path) -> bool {
    target.to_str().is_some_and(|target| target.starts_with("/dev/nvidia"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::Tree;

    fn unit(address: &str, node: &str) -> ComputeUnit {
        ComputeUnit { address: address.to_owned(), node: Some(node.into()), ..ComputeUnit::default() }
    }

    fn shown(users: &[UnitUser]) -> Vec<(&str, Option<i32>, Option<u64>)> {
        users.iter().map(|user| (user.address.as_str(), user.pid, user.memory_bytes.map(|bytes| bytes >> 20))).collect()
    }

    #[test]
    fn who_holds_memory_uses_a_card_and_who_only_opened_it_does_not() {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0xe211"), "xe", "0000:03:00.0");
        tree.render_node(129, ("0x8086", "0xe211"), "xe", "0000:13:00.0");
        let fdinfo = |id: u32, pci: &str, mib: u32| {
            format!("drm-driver: xe\ndrm-client-id: {id}\ndrm-pdev: {pci}\ndrm-resident-vram0: {mib} MiB\n")
        };
        tree.process(10, "VLLM::Worker", &["VLLM::Worker"], 1000, 1);
        // Level Zero opens all cards, whatever its mask says; the same client shows up twice.
        tree.descriptor(10, 3, "/dev/dri/renderD128", &fdinfo(1, "0000:03:00.0", 0));
        tree.descriptor(10, 4, "/dev/dri/renderD129", &fdinfo(2, "0000:13:00.0", 9000));
        tree.descriptor(10, 5, "/dev/dri/renderD129", &fdinfo(2, "0000:13:00.0", 9000));
        tree.process(11, "Xorg", &["Xorg"], 0, 1);
        tree.descriptor(11, 3, "/dev/dri/renderD128", &fdinfo(3, "0000:03:00.0", 12));
        tree.process(12, "old", &["old"], 1001, 1);
        tree.descriptor(12, 3, "/dev/dri/renderD128", "drm-client-id: 4\n");
        let units = [unit("0000:03:00.0", "/dev/dri/renderD128"), unit("0000:13:00.0", "/dev/dri/renderD129")];
        let users = unit_users(&tree.probe(), DeviceKind::Xpu, &units);
        assert_eq!(shown(&users), [("0000:03:00.0", Some(12), None), ("0000:13:00.0", Some(10), Some(9000))]);
        assert_eq!((users[1].uid, users[1].argv.as_slice()), (Some(1000), &["VLLM::Worker".to_owned()][..]));
        assert_eq!(unit_users(&tree.probe(), DeviceKind::Cpu, &units), []);
    }

    #[test]
    fn memory_is_that_of_the_units_alone() {
        let tree = Tree::new();
        for (minor, address) in [(128, "0000:05:00.0"), (129, "0000:06:00.0")] {
            tree.render_node(minor, ("0x1002", "0x74a1"), "amdgpu", address);
            tree.file(&format!("sys/class/drm/renderD{minor}/device/mem_info_vram_used"), &format!("{minor}\n"));
        }
        tree.file("dev/kfd", "");
        let of = |address: &str| unit_memory(&tree.probe(), DeviceKind::Rocm, &[unit(address, "/dev/dri/renderD129")]);
        assert_eq!(of("0000:06:00.0"), [("0000:06:00.0".to_owned(), 129)]);
        assert_eq!(of("0000:06:00.0/part1"), [], "its neighbours' too");
    }

    #[test]
    fn tiles_have_their_own_users() {
        let tree = Tree::new();
        tree.process(10, "VLLM::Worker", &["VLLM::Worker"], 1000, 1);
        let text = "drm-client-id: 1\ndrm-pdev: 0000:03:00.0\ndrm-resident-vram0: 0\ndrm-resident-vram1: 900 MiB\n";
        tree.descriptor(10, 3, "/dev/dri/renderD128", text);
        let units = ["0000:03:00.0/tile0", "0000:03:00.0/tile1"].map(|address| unit(address, "/dev/dri/renderD128"));
        let users = unit_users(&tree.probe(), DeviceKind::Xpu, &units);
        assert_eq!(shown(&users), [("0000:03:00.0/tile1", Some(10), Some(900))]);
        let memory: Vec<u64> =
            unit_memory(&tree.probe(), DeviceKind::Xpu, &units).into_iter().map(|(_, bytes)| bytes >> 20).collect();
        assert_eq!(memory, [0, 900]);
    }

    #[test]
    fn memory_that_nobody_in_sight_holds_is_somebody_s() {
        let tree = Tree::new();
        tree.render_node(128, ("0x1002", "0x74a1"), "amdgpu", "0000:05:00.0");
        tree.file("dev/kfd", "");
        let used = |bytes: u64| {
            tree.file("sys/class/drm/renderD128/device/mem_info_vram_used", &format!("{bytes}\n"));
            unit_users(&tree.probe(), DeviceKind::Rocm, &[unit("0000:05:00.0", "/dev/dri/renderD128")])
        };
        assert_eq!(shown(&used(300 << 20)), []);
        assert_eq!(shown(&used(20 << 30)), [("0000:05:00.0", None, Some(20 << 10))]);
        tree.process(9, "python3", &["python3", "train.py"], 1000, 1);
        tree.descriptor(9, 3, "/dev/dri/renderD128", "drm-client-id: 1\ndrm-memory-vram: 20 GiB\n");
        assert_eq!(shown(&used(20 << 30)), [("0000:05:00.0", Some(9), Some(20 << 10))]);
    }

    #[test]
    fn nvidia_s_tool_names_processes_of_the_host() {
        let tree = Tree::new();
        let apps = "00000000:29:00.0, 70, 20480\n00000000:29:00.0, 71, [N/A]\n00000000:3A:00.0, 72, 500";
        let gpus = "0, NVIDIA L4, 00000000:29:00.0, 23034, 20700, 580.1, GPU-1, Disabled";
        tree.tool(
            "nvidia-smi",
            &format!("case $1 in --query-compute-apps*) cat <<'T'\n{apps}\nT\n;; *) echo '{gpus}';; esac"),
        );
        tree.process(70, "python3", &["python3", "train.py"], 1000, 1);
        tree.descriptor(70, 3, "/dev/nvidia0", "");
        // Another process has this number here: the tool means one of another container.
        tree.process(71, "bash", &["bash"], 1000, 1);
        let users = unit_users(&tree.probe(), DeviceKind::Cuda, &[unit("0000:29:00.0", "/dev/nvidia0")]);
        assert_eq!(shown(&users), [("0000:29:00.0", None, None), ("0000:29:00.0", Some(70), Some(20480))]);
    }
}

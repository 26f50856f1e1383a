//! What a server can be given for itself on this machine: devices, tiles, instances and partitions where the runtime counts these, and
//! sets of cores. Derived anew each time, from sysfs and the vendors' tools, within the user's own mask.

mod cores;
mod links;
mod users;

use serde::Serialize;

use super::devices::{Device, DeviceKind, Found, Slot, detect_found};
use super::gpu::{amd, nvidia, xpu};
use super::probe::Probe;
use crate::model::ComputeUnit;
pub use links::{LinkKind, UnitLink};
pub use users::{UnitUser, unit_memory, unit_users};

/// What can be leased here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// The kind of all units.
    pub kind: DeviceKind,
    /// In the order in which the runtime counts them.
    pub units: Vec<ComputeUnit>,
    /// Pairs that are linked faster than through the host.
    pub links: Vec<UnitLink>,
    /// What stood in the way, or deserves a look; sentences.
    pub problems: Vec<String>,
    /// What a server needs beside the list of its units, so that the list means them.
    #[serde(skip)]
    beside: Vec<(String, String)>,
    /// Variables that get the same list, because the runtime reads them too.
    #[serde(skip)]
    also: Vec<&'static str>,
}

/// The devices of a kind that the user's own mask allows, or for [`DeviceKind::Cpu`] the cores that this process may use, as
/// `core_sets` equal sets (0: one for each NUMA node). Blocks for some calls of the vendor's tool, [`Probe::command_limit`] each.
pub fn inventory(probe: &Probe, kind: DeviceKind, core_sets: usize) -> Inventory {
    let mut inventory = match kind {
        DeviceKind::Xpu => of_xpu(probe),
        DeviceKind::Cuda => of_cuda(probe),
        DeviceKind::Rocm => of_rocm(probe),
        DeviceKind::Cpu => {
            let mut problems = Vec::new();
            let units = cores::units(probe, core_sets, &mut problems);
            Inventory { units, problems, ..Inventory::empty(kind) }
        }
    };
    if kind != DeviceKind::Cpu {
        links::group(&mut inventory.units, &inventory.links);
    }
    inventory
}

/// The variables of this environment that narrow devices of a kind, as they are set; an empty one hides all where the runtime says so.
pub fn masks_of(probe: &Probe, kind: DeviceKind) -> Vec<(&'static str, String)> {
    let names: &[&'static str] = match kind {
        DeviceKind::Xpu => &["ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"],
        DeviceKind::Cuda => &["CUDA_VISIBLE_DEVICES"],
        DeviceKind::Rocm => &["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"],
        DeviceKind::Cpu => &[],
    };
    // Level Zero takes an empty one for none.
    let counts = |value: &String| kind != DeviceKind::Xpu || !value.is_empty();
    let set = |name: &'static str| Some((name, probe.environment.get(name).filter(|value| counts(value))?.clone()));
    names.iter().copied().filter_map(set).collect()
}

/// What a server may use here, without links: with one call of the vendor's tool, or none. All cores are one set.
pub fn visible_units(probe: &Probe) -> Vec<ComputeUnit> {
    let found = detect_found(probe);
    match found.report.kind {
        DeviceKind::Cpu => cores::units(probe, 1, &mut Vec::new()),
        DeviceKind::Xpu | DeviceKind::Cuda | DeviceKind::Rocm => units_of(probe, &found),
    }
}

impl Inventory {
    fn empty(kind: DeviceKind) -> Self {
        let (units, links, problems) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind, units, links, problems, beside: Vec::new(), also: Vec::new() }
    }

    /// The variables that narrow a server to these units: each replaces the user's own. A list of numbers means the same to a server
    /// that has nothing but these variables.
    pub fn visible_variables(&self, units: &[&ComputeUnit]) -> Vec<(String, String)> {
        let (name, separator) = match self.kind {
            DeviceKind::Xpu => ("ZE_AFFINITY_MASK", ","),
            DeviceKind::Cuda => ("CUDA_VISIBLE_DEVICES", ","),
            DeviceKind::Rocm => ("HIP_VISIBLE_DEVICES", ","),
            // One list of cores for each rank.
            DeviceKind::Cpu => ("VLLM_CPU_OMP_THREADS_BIND", "|"),
        };
        let list = units.iter().map(|unit| unit.mask.as_str()).collect::<Vec<_>>().join(separator);
        let mut variables = self.beside.clone();
        variables.extend(self.also.iter().map(|also| ((*also).to_owned(), list.clone())));
        variables.push((name.to_owned(), list));
        variables
    }
}

/// The units of what a vendor's module found.
fn units_of(probe: &Probe, found: &Found) -> Vec<ComputeUnit> {
    let nodes = if found.report.kind == DeviceKind::Rocm { amd::compute_nodes(probe) } else { Vec::new() };
    let unit = |slot: &Slot| {
        let device = found.report.devices.get(slot.position)?;
        let card = address_of(device);
        let address = match (&slot.address, &slot.part) {
            (Some(own), _) => own.clone(),
            (None, Some(part)) => format!("{card}/{part}"),
            (None, None) => card,
        };
        let name = match (&slot.address, &device.name, &slot.part) {
            (Some(_), Some(name), Some(part)) => Some(format!("{name} {part}")),
            (_, name, _) => name.clone(),
        };
        Some(ComputeUnit {
            address,
            mask: slot.mask.clone(),
            name,
            memory_bytes: memory_of(device, slot, &nodes),
            numa: device.pci_address.as_deref().and_then(|address| links::numa(probe, address)),
            // The node of a split GPU is that of all its instances: who holds it open may use another one.
            node: device.node.clone().filter(|_| slot.address.is_none()),
            group: None,
        })
    };
    found.slots.iter().filter_map(unit).collect()
}

/// A whole device has its memory, a tile its part of it, a partition what the kernel says, an instance what the tool says.
fn memory_of(device: &Device, slot: &Slot, nodes: &[amd::ComputeNode]) -> Option<u64> {
    match &slot.part {
        None => device.memory_total_bytes,
        Some(_) if slot.address.is_some() => slot.memory_bytes,
        Some(part) if part.starts_with("tile") => {
            Some(device.memory_total_bytes? / u64::from(device.tiles.unwrap_or(1).max(1)))
        }
        Some(_) => node_of(device, slot, nodes)?.memory_bytes,
    }
}

/// The compute node of an AMD device, or of a partition of it.
fn node_of<'n>(device: &Device, slot: &Slot, nodes: &'n [amd::ComputeNode]) -> Option<&'n amd::ComputeNode> {
    let part = slot.part.as_deref().and_then(|part| part.strip_prefix("part")?.parse::<u32>().ok());
    let address = device.pci_address.as_ref()?;
    nodes
        .iter()
        .find(|node| node.pci_address.as_ref() == Some(address) && part.is_none_or(|part| node.partition == part))
}

/// What a device is called whatever its number is today.
fn address_of(device: &Device) -> String {
    let node = || device.node.as_ref().map(|node| node.display().to_string());
    device.pci_address.clone().or_else(|| device.uuid.clone()).or_else(node).unwrap_or_else(|| device.index.to_string())
}

fn of_xpu(probe: &Probe) -> Inventory {
    let found = xpu::find(probe, true);
    let tiled = found.report.devices.iter().any(|device| device.tiles.is_some_and(|tiles| tiles > 1));
    let units = units_of(probe, &found);
    let mut problems = found.report.problems.clone();
    let table = xpu::fabric(probe, &found.report.devices, &mut problems);
    let matrix = links::xpu_matrix(&table.text);
    // The tool's own number of the card, and the tile.
    let row = |unit: usize| {
        let slot = &found.slots[unit];
        let tile = slot.part.as_deref().and_then(|part| part.strip_prefix("tile")).unwrap_or("0");
        Some(format!("{}/{tile}", table.numbers.get(found.report.devices[slot.position].pci_address.as_ref()?)?))
    };
    let links = links::of_units(probe, &units, |one, other| matrix.link(&row(one)?, &row(other)?));
    let mut beside = Vec::new();
    if tiled || probe.variable("ZE_FLAT_DEVICE_HIERARCHY").is_some() {
        // The mask counts tiles or cards; a profile must not change which.
        let mode = if xpu::counts_tiles(probe) { "FLAT" } else { "COMPOSITE" };
        let given = probe.variable("ZE_FLAT_DEVICE_HIERARCHY").unwrap_or(mode);
        beside.push(("ZE_FLAT_DEVICE_HIERARCHY".to_owned(), given.to_owned()));
    }
    if probe.variable("ONEAPI_DEVICE_SELECTOR").is_some() {
        // It counts what the mask leaves: the user's numbers would mean other devices, or none.
        beside.push(("ONEAPI_DEVICE_SELECTOR".to_owned(), "level_zero:gpu".to_owned()));
    }
    Inventory { units, links, problems, beside, ..Inventory::empty(DeviceKind::Xpu) }
}

fn of_cuda(probe: &Probe) -> Inventory {
    let found = nvidia::find(probe);
    let mut problems = found.report.problems.clone();
    let mut units = units_of(probe, &found);
    let text = nvidia::topology(probe, found.report.devices.len(), &mut problems);
    let matrix = links::nvidia_matrix(&text);
    let row = |unit: usize| format!("GPU{}", found.report.devices[found.slots[unit].position].index);
    for (number, unit) in units.iter_mut().enumerate() {
        // The firmware may say nothing, and the driver know all the same.
        unit.numa = unit.numa.or_else(|| matrix.numa.get(&row(number)).copied());
    }
    // Instances of GPUs have no links: a server can use one of them alone.
    let is_whole = |unit: usize| found.slots[unit].address.is_none();
    let told = |one, other| matrix.link(&row(one), &row(other)).filter(|_| is_whole(one) && is_whole(other));
    let links = links::of_units(probe, &units, told);
    // The numbers are those of the tool, which counts by PCI address; CUDA would count the fastest first.
    let beside = vec![("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned())];
    Inventory { units, links, problems, beside, ..Inventory::empty(DeviceKind::Cuda) }
}

fn of_rocm(probe: &Probe) -> Inventory {
    let found = amd::find(probe, true);
    let mut problems = found.report.problems.clone();
    let nodes = amd::compute_nodes(probe);
    let units = units_of(probe, &found);
    let hive = |unit: usize| {
        let slot = &found.slots[unit];
        node_of(&found.report.devices[slot.position], slot, &nodes)?.hive
    };
    let is_known = (0..units.len()).all(|unit| hive(unit).is_some());
    let matrix = if is_known { links::Matrix::default() } else { amd_matrix(probe, &found, &mut problems) };
    let told = |one: usize, other: usize| {
        if is_known {
            return (hive(one) == hive(other) && hive(one) != Some(0)).then_some((LinkKind::Xgmi, None));
        }
        let device = |unit: usize| &found.report.devices[found.slots[unit].position];
        let (a, b) = (device(one), device(other));
        let by_address = || matrix.link(a.pci_address.as_deref()?, b.pci_address.as_deref()?);
        by_address().or_else(|| matrix.link(&a.index.to_string(), &b.index.to_string()))
    };
    let links = links::of_units(probe, &units, told);
    // What the user lets ROCr see stays; HIP's numbers count in it.
    let kept =
        probe.environment.get("ROCR_VISIBLE_DEVICES").map(|list| ("ROCR_VISIBLE_DEVICES".to_owned(), list.clone()));
    // vLLM refuses two lists that differ.
    let also = probe.environment.contains_key("CUDA_VISIBLE_DEVICES").then_some("CUDA_VISIBLE_DEVICES");
    let (beside, also) = (kept.into_iter().collect(), also.into_iter().collect());
    Inventory { units, links, problems, beside, also, ..Inventory::empty(DeviceKind::Rocm) }
}

/// Where the kernel does not tell of links: the vendor's tools.
fn amd_matrix(probe: &Probe, found: &Found, problems: &mut Vec<String>) -> links::Matrix {
    if found.report.devices.len() < 2 {
        return links::Matrix::default();
    }
    if let Some(tool) = probe.find_tool("amd-smi") {
        match probe.answer(&tool, &["topology", "--json"]) {
            Ok(text) => return links::amd_smi_matrix(&text),
            Err(sentence) => problems.push(sentence),
        }
    }
    let Some(tool) = probe.find_tool("rocm-smi") else { return links::Matrix::default() };
    match probe.answer(&tool, &["--showtopotype", "--json"]) {
        Ok(text) => links::rocm_smi_matrix(&text),
        Err(sentence) => {
            problems.push(sentence);
            links::Matrix::default()
        }
    }
}

#[cfg(test)]
mod tests;

//! What blocks run on: one after the other on the whole machine, or several at once, each on devices of its own.

use std::collections::HashMap;

use crate::model::{ComputeUnit, Placement, core_list};
use crate::sim::settings::NEIGHBOURS;
use crate::telemetry::{DeviceKind, Inventory};

use super::Lease;

/// A client gets one core of so many; where there are fewer it shares those of its server.
const ENOUGH_CORES: usize = 4;
/// Of so many cores of a lane one more is the client's.
const CORES_PER_CLIENT: usize = 8;

/// What a block's processes are given, beside their port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Binding {
    /// Where they run; `None` in a run without lanes.
    pub placement: Option<Placement>,
    /// The devices; none for simulated ones, and without lanes.
    pub units: Vec<ComputeUnit>,
    /// Variables that narrow the server's view to its devices.
    pub variables: Vec<(String, String)>,
    /// Cores of the server; none = all.
    pub server_cores: Vec<u32>,
    /// Cores of the client; none = all.
    pub client_cores: Vec<u32>,
}

/// What the devices of lanes are.
#[derive(Debug, Clone, PartialEq)]
pub enum LaneDevices {
    /// Simulated ones; the servers of a run know each other by this word.
    Simulated(String),
    /// Those of this machine.
    Real {
        /// Where the variables come from that narrow a server to some of them.
        inventory: Box<Inventory>,
        /// The cores of each NUMA node, as sets of cores.
        nodes: Vec<ComputeUnit>,
    },
}

/// A device that lanes share.
#[derive(Debug)]
struct Slot {
    unit: ComputeUnit,
    lane: Option<u32>,
}

/// The leases of a run.
#[derive(Debug)]
pub struct Leases {
    /// One for each block that can run at once, with its number; those that are free.
    free: Vec<(u32, Lease)>,
    /// The devices that the lanes share; `None` where a block has all there is to itself.
    slots: Option<Vec<Slot>>,
    /// What the devices are; `None` without lanes.
    devices: Option<LaneDevices>,
}

impl Leases {
    /// One block at a time, on the whole machine.
    pub fn one(leases: Vec<Lease>) -> Self {
        Self { free: (1..).zip(leases).take(1).collect(), slots: None, devices: None }
    }

    /// As many blocks at once as there are leases, on these devices.
    pub fn lanes(leases: Vec<Lease>, units: Vec<ComputeUnit>, devices: LaneDevices) -> Self {
        let slots = units.into_iter().map(|unit| Slot { unit, lane: None }).collect();
        Self { free: (1..).zip(leases).collect(), slots: Some(slots), devices: Some(devices) }
    }

    /// From now on there is one block at a time, on the whole machine. To be called while none runs.
    pub(super) fn give_up_lanes(&mut self) {
        (self.slots, self.devices) = (None, None);
        self.keep_one();
    }

    /// From now on there is one block at a time, on devices as before. To be called while none runs.
    pub(super) fn keep_one(&mut self) {
        self.free.sort_by_key(|(lane, _)| *lane);
        self.free.truncate(1);
        self.free.iter_mut().for_each(|(_, lease)| lease.binding = Binding::default());
    }

    /// So many blocks can begin, and so many devices are free for them.
    pub fn free(&self) -> (usize, u32) {
        let free = self.slots.as_ref().map(|slots| slots.iter().filter(|slot| slot.lane.is_none()).count());
        (self.free.len(), free.map_or(u32::MAX, |free| u32::try_from(free).unwrap_or(u32::MAX)))
    }

    /// Whether blocks share the machine.
    pub fn are_lanes(&self) -> bool {
        self.slots.is_some()
    }

    /// Takes a lease with so many devices (`None` = all of them); `None` where it cannot be had now.
    pub fn take(&mut self, devices: Option<u32>) -> Option<(u32, Lease)> {
        let chosen = match &self.slots {
            None => None,
            Some(slots) => {
                let count = devices.map_or(slots.len(), |devices| devices as usize);
                let units: Vec<(&ComputeUnit, bool)> =
                    slots.iter().map(|slot| (&slot.unit, slot.lane.is_none())).collect();
                Some(near_each_other(&units, count)?)
            }
        };
        // The lowest number: a lane keeps its row in every plot.
        let first = (0..self.free.len()).min_by_key(|place| self.free.get(*place).map(|(lane, _)| *lane))?;
        let (lane, mut lease) = self.free.swap_remove(first);
        if let (Some(slots), Some(chosen)) = (&mut self.slots, chosen) {
            for place in chosen {
                slots.get_mut(place).into_iter().for_each(|slot| slot.lane = Some(lane));
            }
            let units: Vec<&ComputeUnit> =
                slots.iter().filter(|slot| slot.lane == Some(lane)).map(|slot| &slot.unit).collect();
            let all: Vec<&ComputeUnit> = slots.iter().map(|slot| &slot.unit).collect();
            lease.binding = binding(lane, &units, &all, self.devices.as_ref());
        }
        Some((lane, lease))
    }

    /// Gives a lease back.
    pub fn back(&mut self, lane: u32, lease: Lease) {
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.lane == Some(lane)) {
            slot.lane = None;
        }
        self.free.push((lane, lease));
    }
}

/// Which of the free units a block of so many gets: of one group if that has so many, else of one NUMA node, else any; where several
/// would do, those of which fewest stay free, so that large blocks find room. Places in `units`.
fn near_each_other(units: &[(&ComputeUnit, bool)], count: usize) -> Option<Vec<usize>> {
    let free = || units.iter().enumerate().filter(|(_, (_, is_free))| *is_free);
    let mut by_group: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut by_node: HashMap<u32, Vec<usize>> = HashMap::new();
    for (place, (unit, _)) in free() {
        if let Some(group) = &unit.group {
            by_group.entry(group).or_default().push(place);
        }
        if let Some(node) = unit.numa {
            by_node.entry(node).or_default().push(place);
        }
    }
    let tightest = |sets: &mut dyn Iterator<Item = Vec<usize>>| {
        sets.filter(|set| set.len() >= count).min_by_key(|set| (set.len(), set.first().copied()))
    };
    let all = || free().map(|(place, _)| place).collect::<Vec<_>>();
    let mut chosen = tightest(&mut by_group.into_values())
        .or_else(|| tightest(&mut by_node.into_values()))
        .or_else(|| tightest(&mut std::iter::once(all())))?;
    chosen.truncate(count);
    Some(chosen)
}

/// What the processes of a lane are given for these devices, which are some of all.
fn binding(lane: u32, units: &[&ComputeUnit], all: &[&ComputeUnit], devices: Option<&LaneDevices>) -> Binding {
    let numa =
        units.first().and_then(|unit| unit.numa).filter(|node| units.iter().all(|unit| unit.numa == Some(*node)));
    let addresses = units.iter().map(|unit| unit.address.clone()).collect();
    let mut placement = Placement { lane: Some(lane), devices: addresses, numa, ..Placement::default() };
    let (inventory, nodes) = match devices {
        Some(LaneDevices::Real { inventory, nodes }) => (inventory, nodes),
        Some(LaneDevices::Simulated(run)) => {
            let variables = vec![(NEIGHBOURS.to_owned(), run.clone())];
            return Binding { placement: Some(placement), variables, ..Binding::default() };
        }
        None => return Binding { placement: Some(placement), ..Binding::default() },
    };
    let (server, client, variables) = match inventory.kind {
        DeviceKind::Cpu => {
            let cores: Vec<Vec<u32>> = units.iter().filter_map(|unit| unit.cores()).collect();
            let (ranks, client) = shared_out(&cores);
            let set = |cores: &Vec<u32>| ComputeUnit { mask: core_list(cores), ..ComputeUnit::default() };
            let sets: Vec<ComputeUnit> = ranks.iter().map(set).collect();
            let mut server = ranks.concat();
            server.sort_unstable();
            (server, client, inventory.visible_variables(&sets.iter().collect::<Vec<_>>()))
        }
        DeviceKind::Xpu | DeviceKind::Cuda | DeviceKind::Rocm => {
            let near = numa.and_then(|node| beside_devices(units, all, node, nodes)).unwrap_or_default();
            (near.0, near.1, inventory.visible_variables(units))
        }
    };
    placement.cores = (!server.is_empty()).then(|| core_list(&server));
    placement.client_cores = (client != server).then(|| core_list(&client));
    let units = units.iter().map(|unit| (*unit).clone()).collect();
    Binding { placement: Some(placement), units, variables, server_cores: server, client_cores: client }
}

/// Cores for a server on devices of one NUMA node, and for its client: the node's cores are shared out among the devices there. Where
/// a share is too small for a process of each device and those before them, all are for everybody.
fn beside_devices(
    units: &[&ComputeUnit],
    all: &[&ComputeUnit],
    node: u32,
    nodes: &[ComputeUnit],
) -> Option<(Vec<u32>, Vec<u32>)> {
    /// The API server, the engine and the client, beside a process for each device.
    const BESIDE: usize = 3;
    let cores = nodes.iter().find(|set| set.numa == Some(node)).and_then(ComputeUnit::cores)?;
    let here: Vec<&&ComputeUnit> = all.iter().filter(|unit| unit.numa == Some(node)).collect();
    let size = cores.len() / here.len().max(1);
    let is_ours = |unit: &ComputeUnit| units.iter().any(|ours| ours.address == unit.address);
    let shares = here.iter().zip(cores.chunks(size.max(1))).filter(|(unit, _)| is_ours(unit)).map(|(_, share)| share);
    let mut server: Vec<u32> = shares.flatten().copied().collect();
    if size == 0 || server.len() < units.len() + BESIDE {
        return Some((cores.clone(), cores));
    }
    let client = server.split_off(server.len() - (server.len() / ENOUGH_CORES).max(1));
    Some((server, client))
}

/// Cores of the server's ranks and of its client: apart where there are enough.
fn shared_out(ranks: &[Vec<u32>]) -> (Vec<Vec<u32>>, Vec<u32>) {
    let all: Vec<u32> = ranks.concat();
    if all.len() < ENOUGH_CORES {
        return (ranks.to_vec(), all);
    }
    let mut left = (all.len() / CORES_PER_CLIENT).max(1);
    let (mut server, mut client) = (ranks.to_vec(), Vec::new());
    // From the ranks in turn, none of which may be left with nothing.
    for rank in (0..server.len()).rev().cycle().take(all.len()) {
        if left > 0
            && let Some(cores) = server.get_mut(rank).filter(|cores| cores.len() > 1)
            && let Some(core) = cores.pop()
        {
            client.push(core);
            left -= 1;
        }
    }
    client.sort_unstable();
    if client.is_empty() { (ranks.to_vec(), all) } else { (server, client) }
}

/// How many other blocks were under way beside each measurement.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    under_way: u32,
    /// The most so far, by the lane that measures.
    measuring: HashMap<u32, u32>,
}

impl Neighbours {
    /// A block begins.
    pub fn block_begins(&mut self) {
        self.under_way += 1;
        let others = self.under_way.saturating_sub(1);
        self.measuring.values_mut().for_each(|most| *most = (*most).max(others));
    }

    /// A block is over.
    pub fn block_ends(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A lane begins to measure.
    pub fn measures(&mut self, lane: u32) {
        self.measuring.insert(lane, self.under_way.saturating_sub(1));
    }

    /// It has measured: the most blocks that were under way beside it.
    pub fn measured(&mut self, lane: u32) -> u32 {
        self.measuring.remove(&lane).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse_cores;

    fn unit(number: u32, group: Option<&str>, numa: Option<u32>) -> ComputeUnit {
        ComputeUnit {
            address: format!("sim:{number}"),
            mask: number.to_string(),
            group: group.map(str::to_owned),
            numa,
            ..ComputeUnit::default()
        }
    }

    fn chosen(units: &[(ComputeUnit, bool)], count: usize) -> Option<Vec<usize>> {
        near_each_other(&units.iter().map(|(unit, free)| (unit, *free)).collect::<Vec<_>>(), count)
    }

    #[test]
    fn units_are_chosen_near_each_other_and_large_blocks_find_room() {
        // Two NUMA nodes; on each two pairs that are linked.
        let all: Vec<(ComputeUnit, bool)> =
            (0..8).map(|n| (unit(n, Some(&format!("pair {}", n / 2)), Some(n / 4)), true)).collect();
        assert_eq!(chosen(&all, 2), Some(vec![0, 1]));
        assert_eq!(chosen(&all, 4), Some(vec![0, 1, 2, 3]));
        assert_eq!(chosen(&all, 8), Some((0..8).collect()));
        assert_eq!((chosen(&all, 9), chosen(&[], 1)), (None, None));
        let busy = |taken: &[usize]| {
            let mut units = all.clone();
            taken.iter().for_each(|place| units[*place].1 = false);
            units
        };
        // A single one takes the broken pair, not half of a whole one.
        assert_eq!(chosen(&busy(&[5]), 1), Some(vec![4]));
        assert_eq!(chosen(&busy(&[0]), 4), Some(vec![4, 5, 6, 7]));
        // Where no node has enough, any will do.
        assert_eq!(chosen(&busy(&[0, 7]), 6), Some(vec![1, 2, 3, 4, 5, 6]));
        let plain: Vec<(ComputeUnit, bool)> = (0..4).map(|n| (unit(n, None, None), n != 1)).collect();
        assert_eq!(chosen(&plain, 2), Some(vec![0, 2]));
    }

    fn cores(list: &str) -> Vec<u32> {
        parse_cores(list).unwrap()
    }

    #[test]
    fn server_and_client_share_cores_only_where_there_are_few() {
        assert_eq!(shared_out(&[cores("3")]), (vec![vec![3]], vec![3]));
        assert_eq!(shared_out(&[cores("0-3")]), (vec![cores("0-2")], vec![3]));
        assert_eq!(shared_out(&[cores("0-15")]), (vec![cores("0-13")], vec![14, 15]));
        assert_eq!(shared_out(&[cores("0-1"), cores("2-3")]), (vec![cores("0-1"), cores("2")], vec![3]));
        let single = [cores("0"), cores("1"), cores("2"), cores("3")];
        assert_eq!(shared_out(&single), (single.to_vec(), cores("0-3")), "no rank may be left with nothing");
    }

    fn set(list: &str, numa: u32) -> ComputeUnit {
        ComputeUnit {
            address: format!("cores:{list}"),
            mask: list.to_owned(),
            numa: Some(numa),
            ..ComputeUnit::default()
        }
    }

    fn real(kind: DeviceKind, nodes: &[ComputeUnit]) -> LaneDevices {
        let probe = crate::telemetry::Probe::of_machine(crate::telemetry::Environment::new());
        let inventory = Box::new(crate::telemetry::inventory(&probe, kind, 1));
        LaneDevices::Real { inventory, nodes: nodes.to_vec() }
    }

    #[test]
    fn a_cpu_lane_binds_its_server_rank_by_rank() {
        let (a, b) = (set("0-7", 0), set("8-15", 1));
        let found = binding(2, &[&a, &b], &[&a, &b], Some(&real(DeviceKind::Cpu, &[])));
        let placement = found.placement.unwrap();
        assert_eq!(found.variables, [("VLLM_CPU_OMP_THREADS_BIND".to_owned(), "0-6|8-14".to_owned())]);
        assert_eq!((placement.lane, placement.numa, placement.cores.as_deref()), (Some(2), None, Some("0-6,8-14")));
        assert_eq!((found.server_cores.len(), found.client_cores), (14, vec![7, 15]));
        assert_eq!(placement.client_cores.as_deref(), Some("7,15"));
    }

    #[test]
    fn a_lane_of_devices_is_bound_to_its_share_of_their_node() {
        let device = |number: u32| ComputeUnit { address: format!("card{number}"), ..unit(number, None, Some(1)) };
        let all: Vec<ComputeUnit> = (0..4).map(device).collect();
        let all: Vec<&ComputeUnit> = all.iter().collect();
        let on = |units: &[&ComputeUnit], node: &str| {
            let nodes = [set("0-7", 0), set(node, 1)];
            let found = binding(1, units, &all, Some(&real(DeviceKind::Xpu, &nodes)));
            (core_list(&found.server_cores), core_list(&found.client_cores), found.variables[0].clone())
        };
        let mask = |list: &str| ("ZE_AFFINITY_MASK".to_owned(), list.to_owned());
        assert_eq!(on(&all[2..], "8-39"), ("24-35".into(), "36-39".into(), mask("2,3")));
        // Two cores for each device are not enough for two processes and three beside them.
        assert_eq!(on(&all[2..], "8-15"), ("8-15".into(), "8-15".into(), mask("2,3")));
        let elsewhere = ComputeUnit { numa: None, ..all[0].clone() };
        assert_eq!(on(&[&elsewhere], "8-39").0, "");
    }

    #[test]
    fn neighbours_are_counted_while_one_measures() {
        let mut seen = Neighbours::default();
        seen.block_begins();
        seen.measures(1);
        seen.block_begins();
        seen.block_begins();
        seen.block_ends();
        seen.measures(2);
        assert_eq!((seen.measured(1), seen.measured(2)), (2, 1));
        seen.block_ends();
        seen.measures(1);
        assert_eq!(seen.measured(1), 0);
    }
}

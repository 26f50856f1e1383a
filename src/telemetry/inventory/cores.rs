//! Sets of cores as units: a server on the CPU is given some of them. By physical cores and NUMA nodes, within the cores that this
//! process may use.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{CORES, ComputeUnit, core_list, parse_cores};
use crate::telemetry::host;
use crate::telemetry::probe::{Probe, read_text};

/// A physical core: its node, its package, and the logical cores of it that may be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Core {
    node: Option<u32>,
    package: u32,
    threads: Vec<u32>,
}

/// The cores of this machine as so many equal sets, each within one NUMA node where there are at least as many sets as nodes; 0
/// stands for one set per node. Cores that are left over are in no set: clients may have them.
pub(super) fn units(probe: &Probe, sets: usize, problems: &mut Vec<String>) -> Vec<ComputeUnit> {
    let cores = physical_cores(probe);
    if cores.is_empty() {
        problems.push("the cores of this machine are not known: /sys/devices/system/cpu cannot be read".to_owned());
        return Vec::new();
    }
    let nodes: Vec<&[Core]> = cores.chunk_by(|one, next| one.node == next.node).collect();
    let wanted = if sets == 0 { nodes.len() } else { sets };
    if wanted > cores.len() {
        problems.push(format!("{wanted} sets of cores are wanted, and there are {} physical cores", cores.len()));
    }
    note_quota(probe, &cores, problems);
    let name = host::cpu_facts(probe).model;
    let memory = |set: &[Core]| {
        let of_set: BTreeSet<u32> = set.iter().filter_map(|core| core.node).collect();
        // Only of whole nodes: the memory of a node is shared by all of its cores.
        let whole = cores.iter().filter(|core| core.node.is_some_and(|node| of_set.contains(&node))).count();
        let bytes = of_set.iter().map(|node| node_memory(probe, *node)).sum::<Option<u64>>();
        bytes.filter(|bytes| whole == set.len() && *bytes > 0)
    };
    let chosen = match sets {
        0 => nodes.clone(),
        _ if wanted < nodes.len() => split(&cores, wanted),
        _ => split_nodes(&nodes, wanted.min(cores.len())),
    };
    let unit = |set: &&[Core]| {
        let mut numbers: Vec<u32> = set.iter().flat_map(|core| core.threads.iter().copied()).collect();
        numbers.sort_unstable();
        let list = core_list(&numbers);
        let numa = set[0].node.filter(|node| set.iter().all(|core| core.node == Some(*node)));
        ComputeUnit {
            address: format!("{CORES}{list}"),
            mask: list,
            name: name.clone(),
            memory_bytes: memory(set),
            numa,
            node: None,
            group: numa.filter(|_| nodes.len() > 1).map(|node| format!("numa:{node}")),
        }
    };
    chosen.iter().map(unit).collect()
}

/// Equal pieces of a list, in its order; what is left over is dropped.
fn split(cores: &[Core], pieces: usize) -> Vec<&[Core]> {
    cores.chunks_exact((cores.len() / pieces.max(1)).max(1)).take(pieces).collect()
}

/// Equal sets, each within one node, as large as they can be: a node gives the next set as long as its sets stay the largest.
fn split_nodes<'c>(nodes: &[&'c [Core]], sets: usize) -> Vec<&'c [Core]> {
    let mut given = vec![0_usize; nodes.len()];
    for _ in 0..sets {
        let next = (0..nodes.len())
            .max_by_key(|node| (nodes[*node].len() / (given[*node] + 1), usize::MAX - given[*node], usize::MAX - node));
        given[next.unwrap_or(0)] += 1;
    }
    let pieces = nodes.iter().zip(&given).filter(|(_, given)| **given > 0);
    let size = pieces.clone().map(|(node, given)| node.len() / given).min().unwrap_or(1).max(1);
    pieces.flat_map(|(node, given)| node.chunks_exact(size).take(*given)).collect()
}

/// By node, package and number. Without `topology` each logical core counts as one.
fn physical_cores(probe: &Probe) -> Vec<Core> {
    let allowed = allowed(probe);
    let nodes = nodes(probe);
    let mut seen = BTreeSet::new();
    let mut cores = Vec::new();
    for number in &allowed {
        if seen.contains(number) {
            continue;
        }
        let topology = probe.at(format!("/sys/devices/system/cpu/cpu{number}/topology"));
        // The newer name first.
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| parse_cores(&read_text(&topology.join(name))?))
            .filter(|siblings| siblings.contains(number))
            .unwrap_or_else(|| vec![*number]);
        let threads: Vec<u32> = siblings.into_iter().filter(|sibling| allowed.contains(sibling)).collect();
        seen.extend(threads.iter().copied());
        let package = read_text(&topology.join("physical_package_id")).and_then(|text| text.parse().ok()).unwrap_or(0);
        cores.push(Core { node: nodes.get(number).copied(), package, threads });
    }
    cores.sort();
    cores
}

/// The logical cores that this process may use and that are online.
fn allowed(probe: &Probe) -> BTreeSet<u32> {
    let status = probe.text("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| parse_cores(line.strip_prefix("Cpus_allowed_list:")?));
    let online = probe.text("/sys/devices/system/cpu/online").and_then(|text| parse_cores(&text));
    match (own, online) {
        (Some(own), Some(online)) => own.into_iter().filter(|core| online.contains(core)).collect(),
        (Some(only), None) | (None, Some(only)) => only.into_iter().collect(),
        (None, None) => BTreeSet::new(),
    }
}

/// Logical core -> NUMA node.
fn nodes(probe: &Probe) -> BTreeMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir(probe.at("/sys/devices/system/node")) else { return BTreeMap::new() };
    let nodes = entries.flatten().filter_map(|entry| {
        let node: u32 = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, parse_cores(&read_text(&entry.path().join("cpulist"))?)?))
    });
    nodes.flat_map(|(node, cores)| cores.into_iter().map(move |core| (core, node))).collect()
}

fn node_memory(probe: &Probe, node: u32) -> Option<u64> {
    // `Node 0 MemTotal:       65536000 kB`
    let text = probe.text(format!("/sys/devices/system/node/node{node}/meminfo"))?;
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    line.split_whitespace().rev().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A container may have all cores of its machine, and only a part of their time.
fn note_quota(probe: &Probe, cores: &[Core], problems: &mut Vec<String>) {
    let threads: usize = cores.iter().map(|core| core.threads.len()).sum();
    if let Some(quota) = host::cgroup_limits(probe).cpus.filter(|quota| *quota < threads as f64) {
        problems.push(format!(
            "the control group gives this process the time of {quota:.1} of its {threads} logical cores: what is measured on all of \
             them is slowed down"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::Tree;

    /// Two sockets with a node each, four cores per socket, two threads per core: thread n + 8 is the sibling of n.
    pub(in crate::telemetry) fn two_sockets(allowed: &str) -> Tree {
        let tree = Tree::new();
        tree.file("proc/self/status", &format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"));
        tree.file("sys/devices/system/cpu/online", "0-15\n");
        for (node, list) in [(0, "0-3,8-11"), (1, "4-7,12-15")] {
            tree.file(&format!("sys/devices/system/node/node{node}/cpulist"), &format!("{list}\n"));
            let text = format!("Node {node} MemTotal:       1000 kB\nNode {node} MemFree:  1 kB\n");
            tree.file(&format!("sys/devices/system/node/node{node}/meminfo"), &text);
        }
        for cpu in 0..16 {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            tree.file(&format!("{folder}/core_cpus_list"), &format!("{},{}\n", cpu % 8, cpu % 8 + 8));
            tree.file(&format!("{folder}/physical_package_id"), &format!("{}\n", (cpu % 8) / 4));
        }
        tree
    }

    fn sets(tree: &Tree, count: usize) -> (Vec<String>, Vec<Option<u32>>, usize) {
        let mut problems = Vec::new();
        let units = units(&tree.probe(), count, &mut problems);
        (
            units.iter().map(|unit| unit.mask.clone()).collect(),
            units.iter().map(|unit| unit.numa).collect(),
            problems.len(),
        )
    }

    #[test]
    fn sets_are_equal_and_stay_within_a_node() {
        let tree = two_sockets("0-15");
        for (count, masks, numa) in [
            (1, &["0-15"][..], &[None][..]),
            (0, &["0-3,8-11", "4-7,12-15"], &[Some(0), Some(1)]),
            (2, &["0-3,8-11", "4-7,12-15"], &[Some(0), Some(1)]),
            (3, &["0-1,8-9", "2-3,10-11", "4-5,12-13"], &[Some(0), Some(0), Some(1)]),
            (4, &["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"], &[Some(0), Some(0), Some(1), Some(1)]),
            (5, &["0,8", "1,9", "2,10", "4,12", "5,13"], &[Some(0), Some(0), Some(0), Some(1), Some(1)]),
        ] {
            let (found, nodes, problems) = sets(&tree, count);
            assert_eq!(
                (found, nodes, problems),
                (masks.iter().map(|mask| (*mask).to_owned()).collect(), numa.into(), 0)
            );
        }
        let (masks, _, problems) = sets(&tree, 9);
        assert_eq!((masks.len(), problems), (8, 1), "no core is given twice");
    }

    #[test]
    fn only_cores_that_this_process_may_use_are_given() {
        // The second thread of core 1 is somebody else's, as is all of node 1 but for one core.
        let (masks, numa, _) = sets(&two_sockets("0-1,8,7,15"), 2);
        assert_eq!((masks, numa), (vec!["0,8".to_owned(), "7,15".to_owned()], vec![Some(0), Some(1)]));
        let (masks, numa, _) = sets(&two_sockets("2,3"), 1);
        assert_eq!((masks, numa), (vec!["2-3".to_owned()], vec![Some(0)]));
    }

    #[test]
    fn memory_is_that_of_whole_nodes() {
        let tree = two_sockets("0-15");
        let bytes = |count| -> Vec<Option<u64>> {
            units(&tree.probe(), count, &mut Vec::new()).iter().map(|unit| unit.memory_bytes).collect()
        };
        assert_eq!(bytes(1), [Some(2000 << 10)]);
        assert_eq!(bytes(2), [Some(1000 << 10); 2]);
        assert_eq!(bytes(4), [None; 4]);
    }

    #[test]
    fn a_machine_without_topology_has_one_core_per_number() {
        let tree = Tree::new();
        tree.file("proc/self/status", "Cpus_allowed_list:\t0-2\n");
        assert_eq!(sets(&tree, 3), (vec!["0".to_owned(), "1".to_owned(), "2".to_owned()], vec![None; 3], 0));
        assert_eq!(sets(&Tree::new(), 1), (vec![], vec![], 1));
    }

    #[test]
    fn a_limit_of_time_is_told() {
        let tree = two_sockets("0-15");
        tree.file("proc/self/cgroup", "0::/\n");
        tree.file("sys/fs/cgroup/cpu.max", "400000 100000\n");
        let mut problems = Vec::new();
        units(&tree.probe(), 1, &mut problems);
        assert!(problems[0].contains("the time of 4.0 of its 16 logical cores"), "{problems:?}");
    }
}

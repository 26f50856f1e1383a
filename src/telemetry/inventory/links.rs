//! How devices are linked with each other: from the matrices that vendors' tools print, and from the PCI tree of sysfs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ComputeUnit;
use crate::telemetry::drm::normal_pci;
use crate::telemetry::gpu::json_in;
use crate::telemetry::probe::Probe;

/// A link that is faster than the way through the host, the fastest kind first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// Tiles or partitions of one card.
    Card,
    /// NVIDIA's.
    NvLink,
    /// Intel's, between cards.
    XeLink,
    /// AMD's.
    Xgmi,
    /// A PCIe switch below which both are.
    PcieSwitch,
}

impl LinkKind {
    /// As written in groups and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::NvLink => "nvlink",
            Self::XeLink => "xelink",
            Self::Xgmi => "xgmi",
            Self::PcieSwitch => "pcie-switch",
        }
    }
}

/// Two units with a fast link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnitLink {
    /// Addresses of the two, in the order of the inventory.
    pub between: (String, String),
    /// The fastest link that they have.
    pub kind: LinkKind,
    /// How many of it, where the tool tells.
    pub count: Option<u32>,
}

/// What a cell of a matrix says: the kind of link, and how many.
pub(super) type Cell = (LinkKind, Option<u32>);

/// A table of a tool: rows and columns have the same names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Matrix {
    /// (row, column) -> link; only links that count here.
    pub links: BTreeMap<(String, String), Cell>,
    /// NUMA node by row, where the table has it.
    pub numa: BTreeMap<String, u32>,
}

impl Matrix {
    /// The link of two, in whichever order the table has them.
    pub fn link(&self, one: &str, other: &str) -> Option<Cell> {
        let cell = |a: &str, b: &str| self.links.get(&(a.to_owned(), b.to_owned())).copied();
        cell(one, other).or_else(|| cell(other, one))
    }
}

/// `nvidia-smi topo -m`: columns are separated by tabs, names may be underlined, and other devices (NICs) stand among the GPUs. Rows
/// are called `GPU0`, by the tool's own numbers.
pub(super) fn nvidia_matrix(text: &str) -> Matrix {
    let text = without_escapes(text);
    let mut matrix = Matrix::default();
    let mut lines = text.lines().skip_while(|line| !line.split_whitespace().any(|word| word == "GPU0"));
    let Some(header) = lines.next() else { return matrix };
    // Words of the last columns have blanks in them ("CPU Affinity"): devices come before them.
    let columns: Vec<&str> = header.split_whitespace().take_while(|word| !matches!(*word, "CPU" | "NUMA")).collect();
    for line in lines {
        let mut words = line.split_whitespace();
        let Some(row) = words.next().filter(|word| is_gpu(word)) else {
            if line.trim().is_empty() || line.starts_with("Legend") {
                break;
            }
            continue;
        };
        let words: Vec<&str> = words.collect();
        for (column, word) in columns.iter().zip(&words).filter(|(column, _)| is_gpu(column)) {
            if let Some(cell) = nvidia_cell(word) {
                matrix.links.insert((row.to_owned(), (*column).to_owned()), cell);
            }
        }
        // CPU affinity, NUMA affinity, and in newer releases the NUMA node of the GPU's own memory.
        if let Some(numa) = words.get(columns.len() + 1).and_then(|word| word.parse().ok()) {
            matrix.numa.insert(row.to_owned(), numa);
        }
    }
    matrix
}

fn is_gpu(word: &str) -> bool {
    word.strip_prefix("GPU")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn nvidia_cell(word: &str) -> Option<Cell> {
    match word {
        // At most one PCIe bridge, or several without the host bridge.
        "PIX" | "PXB" => Some((LinkKind::PcieSwitch, None)),
        _ => Some((LinkKind::NvLink, Some(word.strip_prefix("NV")?.parse().ok()?))),
    }
}

/// The tool underlines its header (`\x1b[4m`).
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 2..];
        rest = rest.find(|sign: char| sign.is_ascii_alphabetic()).map_or("", |end| &rest[end + 1..]);
    }
    plain + rest
}

/// `xpu-smi topology -m`: rows are `GPU 0/0` (device, tile); cells are `XL8`, `XL*`, `MDF`, `PIX`, `SYS` …
pub(super) fn xpu_matrix(text: &str) -> Matrix {
    let mut matrix = Matrix::default();
    let rows = |line: &str| -> Vec<String> {
        let words: Vec<&str> = line.split(['|', ' ', '\t']).filter(|word| !word.is_empty()).collect();
        words
            .windows(2)
            .filter(|pair| pair[0] == "GPU" && pair[1].contains('/'))
            .map(|pair| pair[1].to_owned())
            .collect()
    };
    let mut columns: Vec<String> = Vec::new();
    for line in text.lines() {
        let names = rows(line);
        if columns.is_empty() {
            // The header names them all; with one device there is one name in it.
            columns = names;
            continue;
        }
        let [row] = names.as_slice() else { continue };
        let words: Vec<&str> = line.split(['|', ' ', '\t']).filter(|word| !word.is_empty()).skip(2).collect();
        for (column, word) in columns.iter().zip(words) {
            let cell = match word {
                "MDF" => Some((LinkKind::Card, None)),
                "PIX" | "PXB" => Some((LinkKind::PcieSwitch, None)),
                "XL*" => Some((LinkKind::XeLink, None)),
                _ => word
                    .strip_prefix("XL")
                    .and_then(|lanes| lanes.parse().ok())
                    .map(|lanes| (LinkKind::XeLink, Some(lanes))),
            };
            if let Some(cell) = cell {
                matrix.links.insert((row.clone(), column.clone()), cell);
            }
        }
    }
    matrix
}

/// `amd-smi topology --json`: by PCI address. Older releases wrote a table per property, in which nothing is read here.
pub(super) fn amd_smi_matrix(text: &str) -> Matrix {
    let mut matrix = Matrix::default();
    let document = json_in(text).unwrap_or_default();
    let text =
        |value: &serde_json::Value, key: &str| value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    let address = |value: &serde_json::Value| text(value, "bdf").as_deref().map(normal_pci);
    for gpu in document.as_array().into_iter().flatten() {
        let Some(row) = address(gpu) else { continue };
        for link in gpu.get("links").and_then(serde_json::Value::as_array).into_iter().flatten() {
            if let (Some("XGMI"), Some(column)) = (text(link, "link_type").as_deref(), address(link)) {
                matrix.links.insert((row.clone(), column), (LinkKind::Xgmi, None));
            }
        }
    }
    matrix
}

/// `rocm-smi --showtopotype --json`: `"(Topology) Link type between DRM devices 0 and 1": "XGMI"`, the upper half only.
pub(super) fn rocm_smi_matrix(text: &str) -> Matrix {
    let mut matrix = Matrix::default();
    let document = json_in(text).unwrap_or_default();
    for (key, value) in document.get("system").and_then(serde_json::Value::as_object).into_iter().flatten() {
        let pair = key.rsplit_once("DRM devices ").and_then(|(_, pair)| pair.split_once(" and "));
        if let (Some((one, other)), Some("XGMI")) = (pair, value.as_str()) {
            matrix.links.insert((one.trim().to_owned(), other.trim().to_owned()), (LinkKind::Xgmi, None));
        }
    }
    matrix
}

/// The PCIe switch at the root port of a device, if it is below one: the address of the switch's upstream port. Two devices with the
/// same one reach each other without the host bridge.
pub(super) fn pcie_switch(probe: &Probe, address: &str) -> Option<String> {
    let real = probe.at(format!("/sys/bus/pci/devices/{address}")).canonicalize().ok()?;
    let on_the_way: Vec<&str> =
        real.iter().filter_map(|part| part.to_str()).filter(|part| is_pci_address(part)).collect();
    // Root port, upstream port of the switch, its downstream port, the device.
    match on_the_way.as_slice() {
        [_, upstream, _, .., device] if *device == address => Some((*upstream).to_owned()),
        _ => None,
    }
}

/// `0000:03:00.0`.
fn is_pci_address(text: &str) -> bool {
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = text.split([':', '.']).collect();
    matches!(parts.as_slice(), [domain, bus, device, function]
        if hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2) && hex(function, 1..=1))
}

/// The NUMA node of a PCI device; the kernel says -1 where the firmware says nothing.
pub(super) fn numa(probe: &Probe, address: &str) -> Option<u32> {
    probe.text(format!("/sys/bus/pci/devices/{address}/numa_node"))?.parse().ok()
}

/// All links of the units: what the tool knows of each pair (`told`), tiles of one card, and switches of sysfs.
pub(super) fn of_units(
    probe: &Probe,
    units: &[ComputeUnit],
    told: impl Fn(usize, usize) -> Option<Cell>,
) -> Vec<UnitLink> {
    let switches: Vec<Option<String>> = units.iter().map(|unit| pcie_switch(probe, unit.card())).collect();
    let mut links = Vec::new();
    for (one, unit) in units.iter().enumerate() {
        for (other, next) in units.iter().enumerate().skip(one + 1) {
            let card = (unit.card() == next.card()).then_some((LinkKind::Card, None));
            let below_one = switches[one].is_some() && switches[one] == switches[other];
            let switch = below_one.then_some((LinkKind::PcieSwitch, None));
            let found = [card, told(one, other), switch].into_iter().flatten();
            if let Some((kind, count)) = found.min_by_key(|(kind, _)| *kind) {
                links.push(UnitLink { between: (unit.address.clone(), next.address.clone()), kind, count });
            }
        }
    }
    links
}

/// Puts units that are linked into groups, named by the kind of link and the first of them: by links between cards, else by switches,
/// else by cards. Tiles of a card are in one group whatever links the cards.
pub(super) fn group(units: &mut [ComputeUnit], links: &[UnitLink]) {
    const RANKS: [&[LinkKind]; 3] =
        [&[LinkKind::NvLink, LinkKind::XeLink, LinkKind::Xgmi], &[LinkKind::PcieSwitch], &[LinkKind::Card]];
    let position = |address: &String| units.iter().position(|unit| unit.address == *address);
    let links: Vec<(usize, usize, LinkKind)> = links
        .iter()
        .filter_map(|link| Some((position(&link.between.0)?, position(&link.between.1)?, link.kind)))
        .collect();
    for kinds in RANKS {
        // The first unit to which each is linked, over any number of links.
        let mut first: Vec<usize> = (0..units.len()).collect();
        for (one, other, _) in links.iter().filter(|link| kinds.contains(&link.2) || link.2 == LinkKind::Card) {
            let (a, b) = (first[*one].min(first[*other]), first[*one].max(first[*other]));
            first.iter_mut().filter(|of| **of == b).for_each(|of| *of = a);
        }
        for unit in 0..units.len() {
            let kind = links.iter().filter(|link| kinds.contains(&link.2) && first[link.0] == first[unit]);
            if let (None, Some(kind)) = (&units[unit].group, kind.map(|link| link.2).min()) {
                units[unit].group = Some(format!("{}:{}", kind.name(), units[first[unit]].address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::Tree;

    /// DGX A100, shortened to four GPUs and two NICs.
    const DGX: &str = "\t\u{1b}[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\u{1b}[0m\n\
        GPU0\t X \tNV12\tNV12\tNV12\tPXB\tSYS\t48-63,176-191\t3\t\tN/A\n\
        GPU1\tNV12\t X \tNV12\tNV12\tPXB\tSYS\t48-63,176-191\t3\t\tN/A\n\
        GPU2\tNV12\tNV12\t X \tNV12\tSYS\tPXB\t16-31,144-159\t1\t\tN/A\n\
        GPU3\tNV12\tNV12\tNV12\t X \tSYS\tPXB\t16-31,144-159\t1\t\tN/A\n\
        NIC0\tPXB\tPXB\tSYS\tSYS\t X \tSYS\n\
        NIC1\tSYS\tSYS\tPXB\tPXB\tSYS\t X \n\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n\n\
        NIC Legend:\n\n  NIC0: mlx5_0\n";
    /// Eight older GPUs with a switch per pair, as in the Kubernetes device plugin tracker (shortened to four).
    const SWITCHES: &str = "        GPU0    GPU1    GPU2    GPU3    mlx4_0  CPU Affinity\n\
        GPU0     X      PIX     PHB     PHB     PHB     0-9,20-29\nGPU1    PIX      X      PHB     PHB     PHB     0-9,20-29\n\
        GPU2    PHB     PHB      X      PIX     PHB     0-9,20-29\nGPU3    PHB     PHB     PIX      X      PHB     0-9,20-29\n\
        mlx4_0  PHB     PHB     PHB     PHB      X\n";

    #[test]
    fn nvidia_s_matrix_is_read_with_its_nics_and_escapes() {
        let matrix = nvidia_matrix(DGX);
        assert_eq!(matrix.link("GPU0", "GPU3"), Some((LinkKind::NvLink, Some(12))));
        assert_eq!(matrix.links.len(), 12, "{:?}", matrix.links);
        assert_eq!(matrix.numa["GPU0"], 3);
        assert_eq!(matrix.numa["GPU2"], 1);
        let matrix = nvidia_matrix(SWITCHES);
        assert_eq!(matrix.link("GPU2", "GPU3"), Some((LinkKind::PcieSwitch, None)));
        assert_eq!((matrix.link("GPU1", "GPU2"), matrix.numa.len()), (None, 0));
        for nothing in ["", "No devices were found\n", "\tGPU0\tCPU Affinity\nGPU0\t X \t\n", "\u{1b}["] {
            assert_eq!(nvidia_matrix(nothing).links.len(), 0, "{nothing:?}");
        }
    }

    #[test]
    fn intel_s_matrix_is_read_as_it_was_and_as_it_is() {
        // Two Max 1550 with two tiles each.
        let old = "         GPU 0/0|GPU 0/1|GPU 1/0|GPU 1/1|CPU Affinity\nGPU 0/0  S      |MDF    |XL8    |XL*    |0-23,48-71\n\
            GPU 0/1  MDF    |S      |XL*    |XL8    |0-23,48-71\nGPU 1/0  XL8    |XL*    |S      |MDF    |24-47,72-95\n\
            GPU 1/1  XL*    |XL8    |MDF    |S      |24-47,72-95\n";
        let matrix = xpu_matrix(old);
        assert_eq!(matrix.link("0/0", "1/0"), Some((LinkKind::XeLink, Some(8))));
        assert_eq!(matrix.link("0/0", "1/1"), Some((LinkKind::XeLink, None)));
        assert_eq!(matrix.link("1/0", "1/1"), Some((LinkKind::Card, None)));
        let new = "          GPU 0/0   GPU 1/0   GPU 2/0   CPU Affinity\nGPU 0/0   S         PIX       SYS       0-15\n\
            GPU 1/0   PIX       S         SYS       0-15\nGPU 2/0   SYS       SYS       S         16-31\n";
        let matrix = xpu_matrix(new);
        assert_eq!(matrix.link("0/0", "1/0"), Some((LinkKind::PcieSwitch, None)));
        assert_eq!(matrix.link("0/0", "2/0"), None);
        assert_eq!(xpu_matrix("Error: no device\n"), Matrix::default());
    }

    #[test]
    fn amd_s_topology_is_read_from_either_tool() {
        let smi = r#"[{"gpu": 0, "bdf": "0000:08:00.0", "links": [
            {"gpu": 0, "bdf": "0000:08:00.0", "weight": 0, "link_status": "ENABLED", "link_type": "SELF", "num_hops": 0, "bandwidth": "N/A"},
            {"gpu": 1, "bdf": "0000:44:00.0", "weight": 15, "link_status": "ENABLED", "link_type": "XGMI", "num_hops": 1, "bandwidth": "50000-100000"},
            {"gpu": 2, "bdf": "0000:83:00.0", "weight": 40, "link_status": "DISABLED", "link_type": "PCIE"}]}]"#;
        let matrix = amd_smi_matrix(smi);
        assert_eq!(matrix.link("0000:44:00.0", "0000:08:00.0"), Some((LinkKind::Xgmi, None)));
        assert_eq!(matrix.links.len(), 1);
        let rocm = r#"WARNING: x
            {"system": {"(Topology) Link type between DRM devices 0 and 1": "XGMI", "(Topology) Link type between DRM devices 0 and 2": "PCIE",
            "(Topology) Weight between DRM devices 0 and 1": "15"}, "card0": {"(Topology) Numa Node": "0"}}"#;
        let matrix = rocm_smi_matrix(rocm);
        assert_eq!(matrix.link("0", "1"), Some((LinkKind::Xgmi, None)));
        assert_eq!(matrix.links.len(), 1);
    }

    /// A device below a switch, as sysfs has it: root port, upstream port, downstream port, device.
    pub(in crate::telemetry) fn place(tree: &Tree, address: &str, above: &[&str], numa: &str) {
        let folder = format!("sys/devices/pci0000:00/{}/{address}", above.join("/")).replace("//", "/");
        tree.file(&format!("{folder}/numa_node"), &format!("{numa}\n"));
        tree.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../../{folder}"));
    }

    #[test]
    fn a_switch_is_found_by_the_way_to_the_device() {
        let tree = Tree::new();
        place(&tree, "0000:19:00.0", &["0000:00:02.0", "0000:17:00.0", "0000:18:00.0"], "1");
        place(
            &tree,
            "0000:1c:00.0",
            &["0000:00:02.0", "0000:17:00.0", "0000:18:04.0", "0000:1a:00.0", "0000:1b:00.0"],
            "1",
        );
        place(&tree, "0000:03:00.0", &["0000:00:03.0"], "-1");
        let switch = |address: &str| pcie_switch(&tree.probe(), address);
        assert_eq!(switch("0000:19:00.0").as_deref(), Some("0000:17:00.0"));
        assert_eq!(switch("0000:1c:00.0").as_deref(), Some("0000:17:00.0"), "below a second switch");
        assert_eq!([switch("0000:03:00.0"), switch("0000:99:00.0")], [None, None]);
        assert_eq!([numa(&tree.probe(), "0000:19:00.0"), numa(&tree.probe(), "0000:03:00.0")], [Some(1), None]);
    }

    #[test]
    fn groups_go_by_the_fastest_links_between_cards() {
        let unit = |address: &str| ComputeUnit { address: address.to_owned(), ..ComputeUnit::default() };
        let link = |one: &str, other: &str, kind| UnitLink { between: (one.into(), other.into()), kind, count: None };
        let groups = |addresses: &[&str], links: &[UnitLink]| -> Vec<String> {
            let mut units: Vec<ComputeUnit> = addresses.iter().map(|address| unit(address)).collect();
            group(&mut units, links);
            units.into_iter().map(|unit| unit.group.unwrap_or_default()).collect()
        };
        // Bridged pairs below one switch.
        let pairs =
            [link("a", "b", LinkKind::NvLink), link("c", "d", LinkKind::NvLink), link("b", "c", LinkKind::PcieSwitch)];
        assert_eq!(groups(&["a", "b", "c", "d"], &pairs), ["nvlink:a", "nvlink:a", "nvlink:c", "nvlink:c"]);
        let switches = [link("a", "b", LinkKind::PcieSwitch)];
        assert_eq!(groups(&["a", "b", "c"], &switches), ["pcie-switch:a", "pcie-switch:a", ""]);
        let tiles = [link("a/tile0", "a/tile1", LinkKind::Card), link("a/tile1", "b/tile0", LinkKind::XeLink)];
        assert_eq!(groups(&["a/tile0", "a/tile1", "b/tile0"], &tiles), ["xelink:a/tile0"; 3]);
        assert_eq!(groups(&["a/tile0", "a/tile1", "b/tile0"], &tiles[..1]), ["card:a/tile0", "card:a/tile0", ""]);
    }
}

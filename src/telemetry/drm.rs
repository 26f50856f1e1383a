//! Render nodes in sysfs, and the memory of their users in `/proc/PID/fdinfo` (the kernel's "DRM client usage stats").

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::probe::{Probe, read_text};
use super::procfs;

/// Intel's PCI vendor number.
pub(super) const INTEL: u16 = 0x8086;
/// AMD's PCI vendor number.
pub(super) const AMD: u16 = 0x1002;

/// One `/sys/class/drm/renderD*`.
#[derive(Debug, Clone)]
pub(super) struct RenderNode {
    /// 128 for `renderD128`.
    pub minor: u32,
    /// The device node, as a path of the machine (not below the root).
    pub node: PathBuf,
    /// Whether the node is there: a container sees the sysfs of all cards of the host, but only the nodes it was given.
    pub node_present: bool,
    /// The folder of the PCI device, below the root.
    pub sysfs: PathBuf,
    pub vendor: u16,
    pub device: u16,
    /// Kernel driver: `xe`, `i915`, `amdgpu`.
    pub driver: Option<String>,
    /// `0000:03:00.0`.
    pub pci_address: Option<String>,
}

/// The render nodes of one vendor, by PCI address.
pub(super) fn render_nodes(probe: &Probe, vendor: u16) -> Vec<RenderNode> {
    let mut nodes: Vec<RenderNode> = minors(&probe.at("/sys/class/drm"))
        .into_iter()
        .filter_map(|minor| render_node(probe, minor))
        .filter(|node| node.vendor == vendor)
        .collect();
    nodes.sort_by(|a, b| (&a.pci_address, a.minor).cmp(&(&b.pci_address, b.minor)));
    nodes
}

/// Device nodes under `/dev/dri` of which sysfs says nothing (a sandbox without sysfs): their vendor is not known.
pub(super) fn nodes_without_sysfs(probe: &Probe) -> Vec<PathBuf> {
    let known = minors(&probe.at("/sys/class/drm"));
    minors(&probe.at("/dev/dri")).into_iter().filter(|minor| !known.contains(minor)).map(node_path).collect()
}

fn minors(folder: &Path) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok()).collect()
}

fn node_path(minor: u32) -> PathBuf {
    PathBuf::from(format!("/dev/dri/renderD{minor}"))
}

fn render_node(probe: &Probe, minor: u32) -> Option<RenderNode> {
    let sysfs = probe.at(format!("/sys/class/drm/renderD{minor}/device"));
    let uevent = read_text(&sysfs.join("uevent")).unwrap_or_default();
    let value =
        |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    let node = node_path(minor);
    Some(RenderNode {
        minor,
        node_present: probe.at(&node).exists(),
        node,
        vendor: hexadecimal(&read_text(&sysfs.join("vendor"))?)?,
        device: read_text(&sysfs.join("device")).and_then(|text| hexadecimal(&text)).unwrap_or(0),
        driver: value("DRIVER"),
        pci_address: value("PCI_SLOT_NAME").as_deref().map(normal_pci),
        sysfs,
    })
}

fn hexadecimal(text: &str) -> Option<u16> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// PCI addresses as the kernel writes them: `00000000:29:00.0` and `0000:29:00.0` are one, lower case.
pub(super) fn normal_pci(address: &str) -> String {
    let address = address.trim().to_ascii_lowercase();
    match address.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 && rest.contains(':') => {
            let domain = domain.trim_start_matches('0');
            format!("{domain:0>4}:{rest}")
        }
        Some((_, rest)) if !rest.contains(':') => format!("0000:{address}"),
        _ => address,
    }
}

/// What one client of a DRM device says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    pub pci_address: Option<String>,
    pub id: Option<u64>,
    /// Bytes of device memory that it occupies.
    pub vram_bytes: Option<u64>,
    /// The same by tile, where the driver tells them apart (`vram0`, `vram1`).
    pub tiles: BTreeMap<u32, u64>,
}

impl Client {
    /// What it occupies of a tile, or of the whole card; `None` where that is not known.
    pub fn memory_of(&self, tile: Option<u32>) -> Option<u64> {
        tile.and_then(|tile| self.tiles.get(&tile).copied()).or(self.vram_bytes)
    }
}

/// Reads a fdinfo text. Device memory is `vram*` (xe, amdgpu) or `local*` (i915); what is resident counts, else what is
/// allocated, else the older key without either word.
pub(super) fn parse_fdinfo(text: &str) -> Client {
    const KEYS: [&str; 3] = ["drm-resident-", "drm-total-", "drm-memory-"];
    let mut client = Client::default();
    // Region -> (rank of the key, bytes): the lowest rank wins.
    let mut regions: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let (key, value) = (key.trim(), value.trim());
        match key {
            "drm-pdev" => client.pci_address = Some(normal_pci(value)),
            "drm-client-id" => client.id = value.parse().ok(),
            _ => {
                let named = KEYS.iter().enumerate().find_map(|(rank, prefix)| Some((rank, key.strip_prefix(prefix)?)));
                let Some((rank, region)) = named else { continue };
                if !(region.starts_with("vram") || region.starts_with("local")) {
                    continue;
                }
                let Some(bytes) = amount(value) else { continue };
                let entry = regions.entry(region).or_insert((rank, bytes));
                if rank < entry.0 {
                    *entry = (rank, bytes);
                }
            }
        }
    }
    if !regions.is_empty() {
        client.vram_bytes = Some(regions.values().map(|(_, bytes)| bytes).sum());
        let of_tile = |region: &str| region.trim_start_matches(|sign: char| !sign.is_ascii_digit()).parse().ok();
        client.tiles = regions.iter().filter_map(|(region, (_, bytes))| Some((of_tile(region)?, *bytes))).collect();
    }
    client
}

/// `23992 KiB`, `16 MiB` or plain bytes.
fn amount(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        None => Some(number),
        Some("KiB") => number.checked_mul(1 << 10),
        Some("MiB") => number.checked_mul(1 << 20),
        Some("GiB") => number.checked_mul(1 << 30),
        Some(_) => None,
    }
}

/// Device memory held by the processes that can be seen, by PCI address. `None` stands for a card with a user whose metric
/// cannot be read; a card that is not in the map has no visible user.
pub(super) fn memory_by_users(probe: &Probe) -> BTreeMap<String, Option<u64>> {
    let mut cards: BTreeMap<String, Option<u64>> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for pid in procfs::pids(&probe.root) {
        let Ok(descriptors) = procfs::descriptors(&probe.root, pid) else { continue };
        for (number, target) in descriptors {
            if !target.starts_with("/dev/dri") {
                continue;
            }
            let Some(text) = procfs::fdinfo(&probe.root, pid, &number) else { continue };
            let client = parse_fdinfo(&text);
            let Some(card) = client.pci_address else { continue };
            // The same client shows up in every descriptor and every process that shares it: count it once.
            if client.id.is_some_and(|id| !counted.insert((card.clone(), id))) {
                continue;
            }
            let total = cards.entry(card).or_insert(Some(0));
            *total = total.zip(client.vram_bytes).map(|(sum, bytes)| sum + bytes);
        }
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    /// As the kernel documents xe, with a second client of i915 and one of amdgpu.
    const XE: &str = "pos:\t0\ndrm-driver:\txe\ndrm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\ndrm-total-system:\t0\n\
        drm-resident-gtt:\t192 KiB\ndrm-total-vram0:\t30000 KiB\ndrm-shared-vram0:\t16 MiB\ndrm-active-vram0:\t0\n\
        drm-resident-vram0:\t23992 KiB\ndrm-resident-stolen:\t0\n";
    const I915: &str = "drm-driver: i915\ndrm-client-id: 9\ndrm-pdev: 0000:4d:00.0\ndrm-total-local0: 2 MiB\n\
        drm-resident-local0: 1 MiB\ndrm-total-system0: 7 MiB\n";
    const AMDGPU: &str = "drm-driver:\tamdgpu\ndrm-client-id:\t1\ndrm-pdev:\t0000:c3:00.0\ndrm-memory-vram:\t1024 KiB\n\
        drm-memory-gtt:\t5 MiB\n";

    #[test]
    fn device_memory_is_read_for_each_driver() {
        let bytes = |text| parse_fdinfo(text).vram_bytes;
        assert_eq!(bytes(XE), Some(23992 << 10));
        assert_eq!(bytes(I915), Some(1 << 20));
        assert_eq!(bytes(AMDGPU), Some(1 << 20));
    }

    #[test]
    fn a_client_without_memory_keys_is_unknown_not_zero() {
        let client = parse_fdinfo("drm-driver: i915\ndrm-client-id: 1\ndrm-pdev: 0000:03:00.0\n");
        let expected = Client { pci_address: Some("0000:03:00.0".to_owned()), id: Some(1), ..Client::default() };
        assert_eq!(client, expected);
    }

    #[test]
    fn addresses_of_all_tools_become_one_form() {
        for (given, normal) in [
            ("00000000:29:00.0", "0000:29:00.0"),
            ("0000000F:01:00.0", "000f:01:00.0"),
            ("0000:C3:00.0", "0000:c3:00.0"),
            ("03:00.0", "0000:03:00.0"),
            ("10001:e1:00.0", "10001:e1:00.0"),
        ] {
            assert_eq!(normal_pci(given), normal, "{given}");
        }
    }

    #[test]
    fn users_are_summed_once_per_client() {
        let tree = Tree::new();
        tree.process(10, "VLLM::Worker", &["VLLM::Worker"], 0, 1);
        tree.descriptor(10, 3, "/dev/dri/renderD128", XE);
        tree.descriptor(10, 4, "/dev/dri/renderD128", XE);
        tree.process(11, "VLLM::Worker", &["VLLM::Worker"], 0, 1);
        tree.descriptor(11, 3, "/dev/dri/renderD128", &XE.replace("client-id:\t3", "client-id:\t4"));
        tree.descriptor(11, 5, "/tmp/file", XE);
        tree.process(12, "old", &["old"], 0, 1);
        tree.descriptor(12, 3, "/dev/dri/renderD129", "drm-client-id: 7\ndrm-pdev: 0000:04:00.0\n");
        let cards = memory_by_users(&tree.probe());
        assert_eq!(cards["0000:03:00.0"], Some(2 * (23992 << 10)));
        assert_eq!(cards["0000:04:00.0"], None);
        assert_eq!(cards.len(), 2);
    }

    #[test]
    fn render_nodes_come_by_address_and_know_their_node() {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", "0xe211"), "xe", "0000:17:00.0");
        tree.render_node(129, ("0x8086", "0xe211"), "xe", "0000:04:00.0");
        tree.render_node(130, ("0x1002", "0x74a1"), "amdgpu", "0000:05:00.0");
        std::fs::remove_file(tree.path().join("dev/dri/renderD129")).unwrap();
        let nodes = render_nodes(&tree.probe(), INTEL);
        let shown: Vec<_> = nodes.iter().map(|node| (node.minor, node.node_present, node.device)).collect();
        assert_eq!(shown, [(129, false, 0xe211), (128, true, 0xe211)]);
        assert_eq!(nodes[0].driver.as_deref(), Some("xe"));
    }
}

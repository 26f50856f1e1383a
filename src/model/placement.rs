//! What a server can be given for itself, and where a block ran. Recorded with results, never part of an identity.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a server can be given for itself: a GPU, a tile or an instance of one where the runtime counts these as devices, or a set of
/// cores. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeUnit {
    /// What it is called on this machine whatever its number is today: a PCI address (`0000:03:00.0`, `0000:03:00.0/tile1`), the UUID
    /// of a MIG instance, `cores:0-7`, `sim:0`.
    pub address: String,
    /// How the variable that narrows a process's view names it: `1`, `0.1`, `MIG-…`; for the CPU a list of cores.
    pub mask: String,
    /// Product name.
    pub name: Option<String>,
    /// Bytes of its memory.
    pub memory_bytes: Option<u64>,
    /// NUMA node of the host to which it is attached.
    pub numa: Option<u32>,
    /// The device node, such as `/dev/dri/renderD128`: who holds it open uses the device.
    pub node: Option<PathBuf>,
    /// Units of one group are linked more closely with each other than with the rest (NVLink, XeLink, XGMI, one PCIe switch).
    pub group: Option<String>,
}

/// What neighbours cost.
#[derive(Debug, Clone, PartialEq)]
pub struct NeighboursChecked {
    /// So many servers ran at once.
    pub lanes: u32,
    /// What it might be, as a part.
    pub threshold: f64,
    /// Whether it is no more.
    pub within: bool,
    /// Keys of the metrics of which that is shown.
    pub metrics: Vec<String>,
    /// What was found, in a sentence.
    pub why: String,
}

/// Where a block ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Number of the lane, from 1; absent where a scheduler gave out the devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<u32>,
    /// Addresses of its devices, as [`ComputeUnit::address`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// NUMA node to whose cores server and client were bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Cores of the server, as a list of the kernel: `0-7,16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Cores of its client, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cores: Option<String>,
    /// Name of the machine, where a cluster chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// No machine has more logical cores: a list that names more is none.
const MOST_CORES: u32 = 1 << 16;

/// The cores of a list as the kernel writes it (`0-7,16`), ascending; `None` where it is no such list.
pub fn parse_cores(list: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_CORES {
            return None;
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Some(cores)
}

/// Cores as the kernel writes a list of them: `0-7,16`. They must be ascending.
pub fn core_list(cores: &[u32]) -> String {
    let runs = cores.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let words = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run[0].to_string(),
    });
    words.collect::<Vec<_>>().join(",")
}

impl ComputeUnit {
    /// The cores of a core set (`cores:0-7`); `None` for all else.
    pub fn cores(&self) -> Option<Vec<u32>> {
        parse_cores(self.address.strip_prefix(CORES)?)
    }

    /// The card on which it is: its address without a tile or partition.
    pub fn card(&self) -> &str {
        self.address.split_once('/').map_or(&self.address, |(card, _)| card)
    }
}

/// What the address of a core set begins with.
pub const CORES: &str = "cores:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_written() {
        for (text, cores) in [
            ("0-3", Some(vec![0, 1, 2, 3])),
            ("8,0-1\n", Some(vec![0, 1, 8])),
            ("3,1-3", Some(vec![1, 2, 3])),
            ("7", Some(vec![7])),
            ("", None),
            ("3-1", None),
            ("0-4000000000", None),
            ("a", None),
            ("1,,2", None),
        ] {
            assert_eq!(parse_cores(text), cores, "{text}");
        }
        for (cores, text) in [(&[0, 1, 2, 3, 8][..], "0-3,8"), (&[1, 3, 5], "1,3,5"), (&[4, 5], "4-5"), (&[], "")] {
            assert_eq!(core_list(cores), text);
        }
    }

    #[test]
    fn a_unit_knows_its_card_and_its_cores() {
        let unit = |address: &str| ComputeUnit { address: address.to_owned(), ..ComputeUnit::default() };
        assert_eq!(unit("0000:03:00.0/tile1").card(), "0000:03:00.0");
        assert_eq!(unit("MIG-1").card(), "MIG-1");
        assert_eq!(unit("cores:0-1,4").cores(), Some(vec![0, 1, 4]));
        assert_eq!(unit("0000:03:00.0").cores(), None);
    }
}

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

/// Where a block ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Number of the lane, from 1.
    pub lane: u32,
    /// Addresses of its devices, as [`ComputeUnit::address`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// NUMA node to whose cores server and client were bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Cores of the server, as a list of the kernel: `0-7,16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<String>,
    /// Name of the machine, where a cluster chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

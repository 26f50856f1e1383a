//! What the machine is and what it is doing: devices and their memory, the host, listening sockets, and the judgements of
//! `vllm-bench check` over such facts.
//!
//! A helper that knows nothing of sweeps. Everything is read below an injectable root ([`Probe::root`]), so that tests run
//! over fixture trees; the environment comes in as a map, because only `config` reads the real one. All of it is synchronous
//! and may block for [`Probe::command_limit`] per vendor tool: call it through `spawn_blocking`.
//!
//! What is not known is `None`, never 0.

pub mod check;
pub mod devices;
mod drm;
mod gpu;
pub mod host;
mod inventory;
mod mask;
pub mod netport;
mod probe;
mod procfs;
mod sampler;
mod sockets;
mod tool;

pub use devices::{Device, DeviceKind, DeviceReport, MemoryReading, MemorySource, NodeHolder};
pub use gpu::xpu::NOT_ASKED;
pub use host::HostInfo;
pub use inventory::{
    Inventory, LinkKind, UnitLink, UnitUser, inventory, masks_of, unit_memory, unit_users, visible_units,
};
pub use probe::{DEVICE_MASKS, Environment, Probe};
pub use sampler::{DEVICE_COLUMNS, DeviceSample, HostSample, Sample, Sampler, cell, mebibytes, summarize};
pub use tool::{Patience, ToolError, ToolOutput, run_limited, run_patiently, run_unless};

#[cfg(test)]
pub(crate) mod fixture;

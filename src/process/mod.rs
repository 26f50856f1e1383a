//! Children: spawned in groups of their own, watched by one wait loop, owned until proven empty.
//!
//! Between vllm-bench (the orchestrator) and each command it starts stands a small guard: this same binary, in a
//! session of its own, parent of the command's process group and reaper of whatever leaves it.
//!
//! | dies | who ends the group |
//! | --- | --- |
//! | the command's leader | the guard: what is left of the group, and what had left it |
//! | the orchestrator | the guard: its control pipe closes |
//! | the guard | the orchestrator: it inherits the orphans (it is a subreaper too) |
//! | both at once | the next vllm-bench command, by the record in the [`registry`] |
//!
//! A cgroup holds the members of a group where this machine lets us make one, else their descent does: see [`Members`].
//!
//! Only this module spawns processes that outlive a function call.

pub mod activity;
mod affinity;
mod cgroup;
pub mod container;
mod device_holder;
mod device_lock;
mod ending;
mod error;
pub mod foreign;
mod group;
mod guard;
mod guard_watch;
mod identity;
mod lock_file;
mod members;
pub mod procfs;
pub mod registry;
pub mod signals;
mod supervise;

pub use crate::safe::{REDACTED, Redactor};
pub use container::Runtime;
pub use device_holder::{DeviceHolder, Signature};
pub use device_lock::{DEVICE_LOCKS, DeviceLocks, HeldDevices};
pub use ending::{Emptied, end_members, end_processes, reap_adopted};
pub use error::Error;
pub use group::{Change, Group, GroupSpec, Owner, Role, become_subreaper};
pub use guard::guard_main;
pub use identity::{boot_id, keep_files_ours, pid_namespace};
pub use lock_file::LockError;
pub use members::{Members, owners};
pub use procfs::cpu_ticks;
pub use supervise::{Stop, StopLevel, StopSender, Verdict, Waited, stood_still, stop_channel, supervise};

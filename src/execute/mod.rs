//! Takes experiments through real processes, one by one, and tells what happens as [`Event`]s.
//!
//! ```text
//! launching -> starting -> ready -> measuring -> draining -> recorded
//!     |            |                    |           |
//!     +------------+---- failed(cause, evidence) ---+        (interrupted from anywhere)
//! ```
//!
//! Nothing here prints, and nothing here knows the names of files in a run directory: paths come in as data.

mod block;
mod compile_lock;
mod container;
mod emit;
mod error;
mod evidence;
mod failure;
mod hang;
mod interference;
mod lanes;
mod launch;
mod lease;
mod leftovers;
mod local;
mod memory;
pub mod port;
mod profile;
mod ranks;
mod readiness;
mod sampling;
mod script;
mod server;
pub mod slurm;
mod stall;
mod start_limit;
mod strangers;
mod unit;

pub use block::{BlockEnd, Policy, Turn};
pub use container::{Container, ContainerRequest, Purpose, RuntimeKind};
pub use emit::{Emitter, Recorder};
pub use error::{Error, shown_holders, told_holders};
pub use interference::{Measured, NeighbourCheck, lane_of_check};
pub use lanes::{Binding, LaneDevices, Leases};
pub use lease::{Lease, LockedPort};
pub use leftovers::{Scope, end_foreign, end_leftovers};
pub use local::{Executor, Job, Jobs, LocalExecutor, end_all_leftovers, end_foreign_and_leftovers};
pub use ranks::{Nodes, RankOrder, become_holder};
pub use script::{EngineCommand, ScriptContext, bench_args, client_host, script, serve_args};
pub use start_limit::StartLimit;
pub use strangers::Strangers;
pub use unit::{Attempted, Places, UnitContext};

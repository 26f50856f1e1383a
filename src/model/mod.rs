//! The nouns: what is planned, what happens, what came of it, and what is measured. Plain data that imports no other module; what is done
//! with it stands where it is done.

mod capacity;
mod cause;
mod ending;
mod event;
mod experiment;
mod flags;
mod hang;
mod identity;
mod metric;
mod outcome;
mod placement;
mod process;
mod start_phase;
mod telemetry;
mod vllm_metric;

pub use capacity::Capacity;
pub use cause::{Cause, UnknownCause};
pub use ending::{Ending, signal_name};
pub use event::{Event, ForeignProcess, Stamped};
pub use experiment::{
    Axes, Before, Client, Engine, Experiment, Isolation, Plan, Repeat, ServerConfig, Side, Skip, UntilDecided,
    Workload, named_models,
};
pub use flags::{FlagError, FlagValue, Flags, normalize};
pub use hang::{Hang, Party, Standstill};
pub use identity::{Context, Identity};
pub use metric::Metric;
pub use outcome::{
    Evidence, Failure, Headline, HeldBy, Outcome, Phase, PrefixCache, StartStep, TeardownProof, Timings,
};
pub use placement::{CORES, ComputeUnit, NeighboursChecked, Placement, core_list, parse_cores};
pub use process::ProcessId;
pub use start_phase::StartPhase;
pub use telemetry::{DeviceTelemetry, HostTelemetry, Spread, Telemetry};
pub use vllm_metric::{Better, Unit, VllmMetric};
pub(crate) use vllm_metric::{DERIVED, phase_key};

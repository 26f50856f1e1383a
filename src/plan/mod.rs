//! What will be measured, and in which order: pure data and pure functions.
//!
//! A plan is the expansion of the user's axes into experiments, with the combinations a rule skips (and why).
//! Nothing here touches the file system, the clock, the environment or a process.

mod experiment;
mod flags;
mod identity;
mod matrix;
mod name;
mod rule;

pub use experiment::{Axes, Engine, Experiment, Plan, ServerConfig, Skip, Workload};
pub use flags::{FlagError, FlagValue, Flags};
pub use identity::Identity;
pub use matrix::{Grid, expand};
pub use name::{experiment_name, sanitize};
pub use rule::Rule;

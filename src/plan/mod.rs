//! What will be measured, and in which order: pure data and pure functions.
//!
//! A plan is the expansion of the user's axes into experiments, with the combinations a rule skips (and why).
//! Nothing here touches the file system, the clock, the environment or a process.

mod against;
mod alone;
mod baseline;
mod check;
mod condition;
#[cfg(test)]
pub mod fixture;
mod matrix;
mod name;
mod policy;
mod rule;
mod schedule;
mod selection;
mod space;
mod sweep;
#[cfg(test)]
mod tests;
mod work;

pub use against::alternate;
pub use alone::again_alone;
pub use baseline::problem as baseline_problem;
pub use condition::{Comparison, Condition, Operand, Term, Test};
pub use matrix::{Setting, expand, extend};
pub use name::{abbreviation, combination_name, experiment_name, sanitize};
pub use policy::{FailureReason, OnFailure, Retry, RetryPolicy};
pub use rule::Rule;
pub use schedule::{Block, blocks};
pub use selection::{Candidate, Counts, Judgement, Selection};
pub use sweep::{
    Axis, Baseline, Exclusion, Group, Link, ModelFacts, Order, PROMPTS_PER_CONCURRENCY, Repeats, Section, Sweep, Value,
};

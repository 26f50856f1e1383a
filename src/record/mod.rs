//! Every file of a run on disk: append-only or atomic, versioned, readable after a crash at any byte.
//!
//! Only [`layout`] knows the names of files, and nothing is ever parsed back out of a file name.

pub mod atomic;
mod error;
mod growing;
mod journal;
pub mod layout;
mod lock;
mod manifest;
pub mod plausible;
mod result;
mod run_dir;
pub mod run_name;
mod shards;
mod state;
mod submission;

pub use error::Error;
pub use growing::Growing;
pub use journal::{Journal, JournalText, read_journal};
pub use lock::{Holder, Lock};
pub use manifest::{Limits, Manifest, Setting, VllmInfo};
pub use plausible::ResultValues;
pub use result::{FailureRecord, Invalid, ResultMeta, ResultRecord, validate, validate_with};
pub use run_dir::{RunDir, list_runs, remove_empty_runs, remove_whatever};
pub use shards::{ShardTails, by_time};
pub use state::{Attempt, JobState, Live, RunState, TaskKey, TaskState};
pub use submission::{StopMode, StopRequest, Submission, TaskPlan};

/// Version of every file format written here; a reader refuses a newer one with a clear message.
pub const SCHEMA: u32 = 1;

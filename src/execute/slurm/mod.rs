//! Blocks as tasks of a Slurm cluster.
//!
//! ```text
//! front (this process)                        node
//!   sbatch --array ───────────────────────────> script ─exec─> vllm-bench task: a block, as `run` measures it,
//!   squeue, the tasks' journals <── shared disk ──              with a journal of its own
//! ```
//!
//! The front submits, watches and merges; it may leave or die, and another one goes on. What a task came to is what its journal and
//! its result files say, never the scheduler's word: that is asked only where a task has not said how it ended.

mod front;
mod plan;
mod request;
mod tools;
mod verdict;
mod watch;

pub use front::{FrontPlan, Progress, SlurmExecutor, Watcher};
pub use plan::{Array, arrays};
pub use request::{ArrayJob, GpuRequest, MOST_BEFORE, Request, Shape, TimeLimit, comment, job_name};
pub use tools::{Queued, Tools};

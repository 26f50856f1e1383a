//! The nodes of the job that this process runs in.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::Environment;
use crate::execute::Nodes;
use crate::record::layout;
use crate::telemetry::run_limited;

/// How long the controller may take to say how a node is reached.
const LIMIT: Duration = Duration::from_secs(20);

/// The nodes of a Slurm job that has several, as Slurm's variables and its controller tell; `None` where this is no such job.
pub fn of_job(environment: &Environment) -> Option<Nodes> {
    let number = |name: &str| environment.get(name)?.parse::<u32>().ok();
    let count = number("SLURM_JOB_NUM_NODES").or(number("SLURM_NNODES")).filter(|count| *count > 1)?;
    let name = environment.get("SLURMD_NODENAME")?.to_owned();
    let others = (count - 1).to_string();
    let launcher = [
        "srun",
        "--nodes",
        &others,
        "--ntasks",
        &others,
        "--ntasks-per-node=1",
        "--relative=1",
        // The job's own step holds everything.
        "--overlap",
        "--input=none",
        "--kill-on-bad-exit=0",
        "--cpu-bind=none",
    ];
    Some(Nodes {
        count,
        head: address(&name).unwrap_or(name),
        launcher: launcher.map(str::to_owned).into(),
        devices: number("SLURM_GPUS_ON_NODE"),
    })
}

/// The folder of locks for the compile cache: beside the cache of vLLM, which tasks and lanes share. A simulated vLLM compiles nothing, and
/// shares what it plays within the run, where it runs as a task.
pub fn compile_locks(environment: &Environment, run: &Path, simulated: bool) -> Option<PathBuf> {
    if simulated {
        return environment.get("SLURM_JOB_ID").map(|_| layout::compile_locks(run));
    }
    let named = environment.get("VLLM_CACHE_ROOT").map(PathBuf::from);
    let cache = || environment.get("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || environment.get("HOME").map(|home| Path::new(home).join(".cache"));
    let root = named.or_else(|| cache().or_else(home).map(|cache| cache.join("vllm")))?;
    Some(layout::compile_locks(&root))
}

/// How other nodes reach this one: its name need not be one that they can look up.
fn address(name: &str) -> Option<String> {
    let mut command = Command::new("scontrol");
    command.args(["show", "node", "-o", name]);
    let said = run_limited(command, LIMIT).ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split_whitespace().find_map(|word| word.strip_prefix("NodeAddr=")).map(str::to_owned)
}

//! The nodes of the job that this process runs in.

use std::process::Command;
use std::time::Duration;

use crate::config::Environment;
use crate::execute::Nodes;
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
    Some(Nodes { count, head: address(&name).unwrap_or(name), launcher: launcher.map(str::to_owned).into() })
}

/// How other nodes reach this one: its name need not be one that they can look up.
fn address(name: &str) -> Option<String> {
    let mut command = Command::new("scontrol");
    command.args(["show", "node", "-o", name]);
    let said = run_limited(command, LIMIT).ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split_whitespace().find_map(|word| word.strip_prefix("NodeAddr=")).map(str::to_owned)
}

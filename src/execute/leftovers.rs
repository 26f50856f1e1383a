//! What must be gone before a server starts: leftovers of ours, by recorded identity, and other vLLM processes of this
//! user, by their argument vectors (rule 14).

use std::collections::BTreeSet;
use std::time::Duration;

use super::Error;
use crate::model::{ComputeUnit, ForeignProcess, ProcessId};
use crate::process::foreign::{VllmProcess, vllm_processes_among};
use crate::process::registry::{self, Reaped};
use crate::process::{Stop, end_processes, procfs};
use crate::telemetry::check::shown_argv;
use crate::telemetry::{DeviceKind, Probe, unit_users};

/// Which other vLLM processes of this user are in the way.
#[derive(Debug, Clone)]
pub enum Scope {
    /// All of them: the run has the machine.
    User,
    /// Those of this job of a cluster: what a former start of it left on this node. Processes of other jobs are none of ours.
    Job(String),
    /// Those on these units alone: what runs on others is somebody's who shares the machine.
    Units {
        /// Where it is looked who uses them.
        probe: Box<Probe>,
        /// Their kind.
        kind: DeviceKind,
        /// They.
        units: Vec<ComputeUnit>,
    },
}

/// Ends the groups that a crash of vllm-bench had left, and removes their launch scripts.
///
/// # Errors
/// When the registry of live groups cannot be used.
pub async fn end_leftovers(grace: Duration, stop: &mut Stop) -> Result<Vec<Reaped>, Error> {
    let reaped = registry::reap_orphans(grace, stop).await?;
    super::script::remove_stale();
    Ok(reaped)
}

/// Ends every `vllm serve`, `vllm bench` and `VLLM::…` process of this user in this scope that no living run of vllm-bench takes care
/// of, with all its descendants. Returns what was ended.
pub async fn end_foreign(scope: &Scope, grace: Duration, stop: &mut Stop) -> Vec<ForeignProcess> {
    let me = nix::unistd::geteuid().as_raw();
    let cared_for: BTreeSet<String> = registry::records()
        .unwrap_or_default()
        .into_iter()
        .filter(registry::Record::is_cared_for)
        .map(|record| record.token)
        .collect();
    let all = procfs::all();
    let mut found: Vec<_> = vllm_processes_among(&all)
        .into_iter()
        .filter(|process| process.uid == me)
        .filter(|process| !matches!(scope, Scope::Job(job) if !is_of_job(process.pid, job)))
        .filter(|process| process.group_token.as_ref().is_none_or(|token| !cared_for.contains(token)))
        .collect();
    if found.is_empty() {
        return Vec::new();
    }
    if let Scope::Units { probe, kind, units } = scope {
        let (probe, kind, units) = (probe.clone(), *kind, units.clone());
        let asked: Vec<i32> = found.iter().flat_map(|process| family(process, &all)).collect();
        let looked = tokio::task::spawn_blocking(move || pids_on(&probe, kind, &units, &asked)).await;
        let on_units = looked.unwrap_or_default();
        found.retain(|process| family(process, &all).iter().any(|pid| on_units.contains(pid)));
    }
    let ours: BTreeSet<i32> = ancestors(&all);
    let targets: BTreeSet<i32> = found.iter().flat_map(|process| family(process, &all)).collect();
    let targets: Vec<ProcessId> =
        targets.into_iter().filter(|pid| !ours.contains(pid)).filter_map(ProcessId::of).collect();
    end_processes(&targets, grace, stop).await;
    found.into_iter().map(|process| ForeignProcess { pid: process.pid, command: shown_argv(&process.argv) }).collect()
}

/// Whether a process is one of a job: by its cgroup, or by the variable that Slurm gave it. (What vLLM renames has no variables any more,
/// and is ended with the server that it descends from.)
fn is_of_job(pid: i32, job: &str) -> bool {
    procfs::is_in_cgroup(pid, &format!("job_{job}"))
        || procfs::environ_has(pid, &format!("SLURM_JOB_ID={job}")) == Some(true)
}

/// A process and all its descendants: what holds a device is a server's engine.
fn family(process: &VllmProcess, all: &[procfs::Stat]) -> Vec<i32> {
    let below = procfs::descendants(process.pid, all);
    below.iter().map(|stat| stat.pid).chain([process.pid]).collect()
}

/// Processes that hold memory on a unit, or those of `asked` that are bound to cores of it. One that may use all cores is on no unit.
fn pids_on(probe: &Probe, kind: DeviceKind, units: &[ComputeUnit], asked: &[i32]) -> BTreeSet<i32> {
    if kind != DeviceKind::Cpu {
        return unit_users(probe, kind, units).into_iter().filter_map(|user| user.pid).collect();
    }
    let cores: BTreeSet<u32> = units.iter().filter_map(ComputeUnit::cores).flatten().collect();
    let bound = |pid: &i32| procfs::bound_cores(*pid).iter().any(|core| cores.contains(core));
    asked.iter().copied().filter(bound).collect()
}

/// This process and all above it: never to be ended.
fn ancestors(all: &[procfs::Stat]) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut pid = ProcessId::current().pid;
    while pid > 0 && found.insert(pid) {
        pid = all.iter().find(|stat| stat.pid == pid).map_or(0, |stat| stat.parent);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::telemetry::Environment;

    /// A process that is bound to one core, where this machine has two.
    #[test]
    fn a_process_is_on_the_cores_to_which_it_is_bound() {
        let online = procfs::online_cores();
        let [first, second, ..] = online.as_slice() else { return };
        let Ok(mut child) = Command::new("taskset").args(["-c", &first.to_string(), "sleep", "600"]).spawn() else {
            return;
        };
        let pid = i32::try_from(child.id()).unwrap();
        let probe = Probe::of_machine(Environment::new());
        let me = ProcessId::current().pid;
        let on = |core: u32| {
            let unit = ComputeUnit { address: format!("cores:{core}"), ..ComputeUnit::default() };
            pids_on(&probe, DeviceKind::Cpu, &[unit], &[pid, me]).contains(&pid)
        };
        // It binds itself before it becomes what it was told to be.
        let bound = (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            on(*first)
        });
        let elsewhere = on(*second);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(bound && !elsewhere);
        if procfs::bound_cores(me).is_empty() {
            assert!(!on(*first), "one that may use all cores is on none");
        }
    }
}

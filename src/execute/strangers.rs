//! Who else uses the devices of a run: not ended, because it may be anybody's, but recorded with what is measured beside it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Emitter, UnitContext};
use crate::model::{ComputeUnit, ProcessId};
use crate::process::foreign::{VllmKind, VllmProcess, vllm_processes_among};
use crate::process::{owners, procfs, registry};
use crate::telemetry::check::shown_argv;
use crate::telemetry::{DeviceKind, Probe, UnitUser, unit_users};

/// Those of whom the run has spoken already.
#[derive(Debug, Clone, Default)]
pub struct Strangers(Arc<Mutex<BTreeSet<String>>>);

impl Strangers {
    /// Who else uses the units of a run now, in words; each is told once.
    pub(super) async fn look(&self, context: &UnitContext, emit: &Emitter) -> Vec<String> {
        if context.units.is_empty() {
            return Vec::new();
        }
        let (probe, kind, units) = (context.probe.clone(), context.devices, context.units.clone());
        let found = tokio::task::spawn_blocking(move || others(&probe, kind, &units)).await.unwrap_or_default();
        for (who, text) in &found {
            if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who.clone()) {
                emit.say(format!("{text}: what is measured beside it may be too slow"));
            }
        }
        found.into_iter().map(|(_, text)| text).collect()
    }
}

/// Processes on these units that are not this run's: what tells each from the others, and what is said of it.
fn others(probe: &Probe, kind: DeviceKind, units: &[ComputeUnit]) -> Vec<(String, String)> {
    if kind == DeviceKind::Cpu {
        return on_cores(units);
    }
    let users = unit_users(probe, kind, units);
    let pids: Vec<i32> = users.iter().filter_map(|user| user.pid).collect();
    // Mostly there is nobody, and then nothing more is read.
    let own = if pids.is_empty() { BTreeSet::new() } else { own_among(&pids, &procfs::all()) };
    let foreign = users.into_iter().filter(|user| user.pid.is_none_or(|pid| !own.contains(&pid)));
    foreign.map(|user| (format!("{} {:?}", user.address, user.pid), shown(&user))).collect()
}

/// `0000:03:00.0 is also used by process 77 (`python3 train.py`) with 12.3 GiB`.
fn shown(user: &UnitUser) -> String {
    let who = match user.pid {
        Some(pid) => format!("process {pid} (`{}`)", shown_argv(&user.argv)),
        None => "somebody who cannot be seen from here".to_owned(),
    };
    let memory = user.memory_bytes.map(|bytes| format!(" with {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    format!("{} is also used by {who}{}", user.address, memory.unwrap_or_default())
}

/// Other vLLM servers that may use these cores, of whichever user.
fn on_cores(units: &[ComputeUnit]) -> Vec<(String, String)> {
    let cores: BTreeSet<u32> = units.iter().filter_map(ComputeUnit::cores).flatten().collect();
    let meets = |pid: i32| {
        let bound = procfs::bound_cores(pid);
        bound.is_empty() || bound.iter().any(|core| cores.contains(core))
    };
    // The engine computes, and the server before it sends text; a simulated engine, which is this program, does neither.
    let computes =
        |process: &VllmProcess| process.kind == VllmKind::Inner && procfs::is_this_program(process.pid) != Some(true);
    let all = procfs::all();
    let engines = vllm_processes_among(&all).into_iter().filter(computes);
    let mut foreign: Vec<VllmProcess> = engines.filter(|process| meets(process.pid)).collect();
    let pids: Vec<i32> = foreign.iter().map(|process| process.pid).collect();
    let own = own_among(&pids, &all);
    foreign.retain(|process| !own.contains(&process.pid));
    let Some(first) = foreign.first() else { return Vec::new() };
    let pids: Vec<String> = foreign.iter().map(|process| process.pid.to_string()).collect();
    let text = match pids.as_slice() {
        [_] => format!("the cores are also used by process {} (`{}`)", first.pid, shown_argv(&first.argv)),
        _ => format!("the cores are also used by {} vLLM engines (processes {})", pids.len(), pids.join(", ")),
    };
    vec![(format!("cores {}", pids.join(" ")), text)]
}

/// Which of these are this process or what it has started.
fn own_among(pids: &[i32], all: &[procfs::Stat]) -> BTreeSet<i32> {
    if pids.is_empty() {
        return BTreeSet::new();
    }
    let me = ProcessId::current();
    let records: Vec<_> =
        registry::records().unwrap_or_default().into_iter().filter(|record| record.orchestrator == me).collect();
    let mut own: BTreeSet<i32> = owners(&records, pids, all).into_keys().collect();
    own.extend(procfs::descendants(me.pid, all).iter().map(|stat| stat.pid).filter(|pid| pids.contains(pid)));
    own.extend(pids.iter().filter(|pid| **pid == me.pid));
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_named_with_what_it_holds() {
        let user = UnitUser {
            address: "0000:03:00.0".into(),
            pid: Some(77),
            uid: Some(1000),
            argv: vec!["python3".into(), "train.py".into(), "--token".into(), "hf_planted".into()],
            memory_bytes: Some(12 << 30),
        };
        let text = shown(&user);
        assert!(
            text.starts_with("0000:03:00.0 is also used by process 77 (`python3 train.py") && !text.contains("planted")
        );
        assert!(text.ends_with("with 12.0 GiB"), "{text}");
        let unseen = UnitUser { pid: None, memory_bytes: None, ..user };
        assert_eq!(shown(&unseen), "0000:03:00.0 is also used by somebody who cannot be seen from here");
    }

    #[test]
    fn this_process_and_its_children_are_no_strangers() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (me, child_pid) = (ProcessId::current().pid, i32::try_from(child.id()).unwrap());
        let own = own_among(&[1, me, child_pid], &procfs::all());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(own, [me, child_pid].into());
    }
}

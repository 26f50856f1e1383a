//! What must be gone before a server starts: leftovers of ours, by recorded identity, and other vLLM processes of this
//! user, by their argument vectors (rule 14).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{ForeignProcess, ProcessId};
use crate::process::foreign::vllm_processes;
use crate::process::registry::{self, Reaped};
use crate::process::{Error, Stop, end_processes, procfs};
use crate::telemetry::check::shown_argv;

/// Ends the groups that a crash of vllm-bench had left, and removes their launch scripts.
///
/// # Errors
/// When the registry of live groups cannot be used.
pub async fn end_leftovers(grace: Duration, stop: &mut Stop) -> Result<Vec<Reaped>, Error> {
    let reaped = registry::reap_orphans(grace, stop).await?;
    super::script::remove_stale();
    Ok(reaped)
}

/// Ends every `vllm serve`, `vllm bench` and `VLLM::…` process of this user that no living run of vllm-bench takes care
/// of, with all its descendants. Returns what was ended.
pub async fn end_foreign(grace: Duration, stop: &mut Stop) -> Vec<ForeignProcess> {
    let me = nix::unistd::geteuid().as_raw();
    let cared_for: BTreeSet<String> = registry::records()
        .unwrap_or_default()
        .into_iter()
        .filter(registry::Record::is_cared_for)
        .map(|record| record.token)
        .collect();
    let found: Vec<_> = vllm_processes()
        .into_iter()
        .filter(|process| process.uid == me)
        .filter(|process| process.group_token.as_ref().is_none_or(|token| !cared_for.contains(token)))
        .collect();
    let all = procfs::all();
    let mut targets = BTreeSet::new();
    for process in &found {
        targets.insert(process.pid);
        targets.extend(procfs::descendants(process.pid, &all).iter().map(|stat| stat.pid));
    }
    let ours: BTreeSet<i32> = ancestors(&all);
    let targets: Vec<ProcessId> =
        targets.into_iter().filter(|pid| !ours.contains(pid)).filter_map(ProcessId::of).collect();
    end_processes(&targets, grace, stop).await;
    found.into_iter().map(|process| ForeignProcess { pid: process.pid, command: shown_argv(&process.argv) }).collect()
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

//! Finds vLLM processes on this machine, whoever started them, by their argument vectors.
//!
//! A substring of a command line proves nothing: an editor that has `vllm serve.txt` open is no server. What counts is
//! which program the vector starts. Nothing is ended here.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::owners;
use super::procfs::{self, Stat};
use super::registry::{self, MARKER};
use crate::model::ProcessId;

/// What a vLLM process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VllmKind {
    /// `vllm serve`, or the API server's module.
    Serve,
    /// `vllm bench`.
    Bench,
    /// A process that vLLM started and renamed: `VLLM::EngineCore`, `VLLM::Worker_TP0` …
    Inner,
}

impl fmt::Display for VllmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VllmKind::Serve => "server",
            VllmKind::Bench => "benchmark",
            VllmKind::Inner => "engine",
        })
    }
}

/// A vLLM process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VllmProcess {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks after boot: with the number, what tells it from a later process.
    pub start_time: u64,
    /// Its owner.
    pub uid: u32,
    /// Its argument vector.
    pub argv: Vec<String>,
    /// The vector as one line, for showing; without secrets.
    pub title: String,
    /// What it does.
    pub kind: VllmKind,
    /// The token of the registered group of ours that it belongs to; `None` = somebody else's.
    pub group_token: Option<String>,
}

impl VllmProcess {
    /// The process, told from a later one with the same number.
    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

/// The length to which a title is cut.
const TITLE: usize = 400;

/// Every vLLM process of this machine, by process number; this process and its ancestors are never among them.
pub fn vllm_processes() -> Vec<VllmProcess> {
    vllm_processes_among(&procfs::all())
}

/// The same of what was read of `/proc` already.
pub fn vllm_processes_among(all: &[Stat]) -> Vec<VllmProcess> {
    let mine = lineage(ProcessId::current().pid, all);
    let of_vllm = |stat: &Stat| {
        let argv = procfs::argv(stat.pid);
        let kind = classify(&argv)?;
        let (uid, title) = (procfs::uid(stat.pid)?, one_line(&argv));
        let (pid, start_time) = (stat.pid, stat.start_time);
        Some(VllmProcess { pid, start_time, uid, argv, title, kind, group_token: None })
    };
    let candidates = all.iter().filter(|stat| !stat.is_dead() && !mine.contains(&stat.pid));
    let mut found: Vec<VllmProcess> = candidates.filter_map(of_vllm).collect();
    found.sort_by_key(|process| process.pid);
    if found.is_empty() {
        return found;
    }
    let pids: Vec<i32> = found.iter().map(|process| process.pid).collect();
    let owners = owners(&registry::records().unwrap_or_default(), &pids, all);
    for process in &mut found {
        process.group_token = owners.get(&process.pid).cloned().or_else(|| marker_of(process.pid));
    }
    found
}

/// What an argument vector starts; `None` where that is no vLLM.
pub fn classify(argv: &[String]) -> Option<VllmKind> {
    let first = argv.first()?;
    if first.starts_with("VLLM::") {
        return Some(VllmKind::Inner);
    }
    let program = base_name(first);
    if program == "vllm" {
        return subcommand(argv.get(1));
    }
    if !is_python(program) {
        return None;
    }
    let rest = &argv[1..];
    let skipped = rest.iter().take_while(|arg| is_bare_option(arg)).count();
    match &rest[skipped..] {
        [flag, module, rest @ ..] if flag == "-m" => by_module(module, rest.first()),
        [script, rest @ ..] if base_name(script) == "vllm" => subcommand(rest.first()),
        _ => None,
    }
}

/// Options of Python that take no value and stand before the script: `-u`, `-s`, `-E`, `-OO`.
fn is_bare_option(arg: &str) -> bool {
    arg.strip_prefix('-')
        .is_some_and(|letters| !letters.is_empty() && letters.chars().all(|c| "bBdEiIOPqsSuvx".contains(c)))
}

fn by_module(module: &str, next: Option<&String>) -> Option<VllmKind> {
    match module {
        "vllm.entrypoints.openai.api_server" | "vllm.entrypoints.api_server" => Some(VllmKind::Serve),
        "vllm.entrypoints.cli.main" | "vllm" => subcommand(next),
        _ => None,
    }
}

fn subcommand(argument: Option<&String>) -> Option<VllmKind> {
    match argument?.as_str() {
        "serve" => Some(VllmKind::Serve),
        "bench" => Some(VllmKind::Bench),
        _ => None,
    }
}

/// `python`, `python3`, `python3.12`; not `pythonista`.
fn is_python(program: &str) -> bool {
    program.strip_prefix("python").is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

fn base_name(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// A process and its ancestors.
fn lineage(pid: i32, all: &[Stat]) -> HashSet<i32> {
    let mut line = HashSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| line.insert(*pid)) {
        next = all.iter().find(|stat| stat.pid == pid).map(|stat| stat.parent);
    }
    line
}

fn marker_of(pid: i32) -> Option<String> {
    let bytes = procfs::memory(pid, "environ")?;
    let prefix = format!("{MARKER}=");
    let value = bytes.split(|&b| b == 0).find_map(|var| var.strip_prefix(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn one_line(argv: &[String]) -> String {
    let line = crate::safe::without_secrets(argv).join(" ");
    line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TITLE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argv: &[&str]) -> Option<VllmKind> {
        classify(&argv.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn rule_14_servers_and_benchmarks_are_told_by_their_argument_vectors() {
        for serve in [
            &["vllm", "serve", "m"][..],
            &["/opt/venv/bin/vllm", "serve"],
            &["/usr/bin/python3.12", "/opt/venv/bin/vllm", "serve", "m"],
            &["python", "-u", "/opt/venv/bin/vllm", "serve", "m"],
            &["python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"],
            &["python3", "-m", "vllm.entrypoints.cli.main", "serve", "m"],
        ] {
            assert_eq!(check(serve), Some(VllmKind::Serve), "{serve:?}");
        }
        assert_eq!(check(&["python3", "/opt/venv/bin/vllm", "bench", "serve"]), Some(VllmKind::Bench));
        assert_eq!(check(&["VLLM::EngineCore", "", ""]), Some(VllmKind::Inner));
        assert_eq!(check(&["VLLM::Worker_TP0"]), Some(VllmKind::Inner));
    }

    #[test]
    fn rule_14_nothing_else_is_taken_for_vllm() {
        for other in [
            &["vi", "vllm serve.txt"][..],
            &["vi", "vllm", "serve"],
            &["bash", "-c", "vllm serve m"],
            &["pgrep", "-f", "vllm serve"],
            &["vllm-bench", "serve"],
            &["vllm-bench", "sim-vllm", "serve"],
            &["vllm", "--version"],
            &["vllm"],
            &["python3", "notes.py", "vllm", "serve"],
            &["python3", "-c", "print('vllm serve')"],
            &["python3", "-m", "http.server"],
            &["pythonista", "vllm", "serve"],
            &["grep", "VLLM::EngineCore"],
            &["python3"],
            &[""],
            &[],
        ] {
            assert_eq!(check(other), None, "{other:?}");
        }
    }

    #[test]
    fn this_process_and_its_ancestors_are_never_found() {
        let all = procfs::all();
        let me = ProcessId::current().pid;
        let line = lineage(me, &all);
        assert!(line.contains(&me) && line.contains(&nix::unistd::getppid().as_raw()));
        assert!(vllm_processes().iter().all(|process| !line.contains(&process.pid)));
    }
}

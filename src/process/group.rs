//! A process group under a guard, as the orchestrator sees it.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::container::{self, Runtime};
use super::ending::AFTER_KILL;
use super::guard::{LAST_OUTPUT, Order, Report, Request, TITLE};
use super::guard_watch::GuardWatch;
use super::{Emptied, Error, Members, Stop, StopLevel, end_members, procfs, reap_adopted, registry};
use crate::model::{Ending, ProcessId};

/// How often the titles of a group's processes are looked at.
const TITLES_POLL: Duration = Duration::from_millis(200);
/// In every how many looks new ones are searched for.
const TITLES_SELDOM: u32 = 25;
/// How long a guard may take to start the command.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long, once the user wants to stop.
const START_LIMIT_STOPPING: Duration = Duration::from_secs(3);
/// What a guard may take beyond the periods that it keeps.
const MARGIN: Duration = Duration::from_secs(3);

/// What a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `vllm serve`.
    Server,
    /// `vllm bench serve`.
    Benchmark,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Server => "server",
            Role::Benchmark => "benchmark",
        })
    }
}

/// Whose group it is, as registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// The run directory.
    pub run: PathBuf,
    /// Name of the experiment.
    pub experiment: String,
    /// Server or benchmark.
    pub role: Role,
    /// The server's port.
    pub port: u16,
}

/// What to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables set on top of the inherited environment; may hold secrets.
    pub env: Vec<(String, String)>,
    /// Inherited variables that the command does not get.
    pub unset: Vec<String>,
    /// Values that must not reach the log.
    pub secrets: Vec<String>,
    /// Where standard output and error go, in the order in which they are written.
    pub log: PathBuf,
    /// Files that are removed when the group is empty.
    pub cleanup: Vec<PathBuf>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// Cores to which it is bound; none = as this program is.
    pub cores: Vec<u32>,
    /// The runtime of the container that the command is a client of; `None` where the command is the thing itself.
    pub container: Option<Runtime>,
    /// Whose it is.
    pub owner: Owner,
}

/// A started group. Whoever holds it must call [`Group::end`]; a dropped one is ended by its guard.
#[derive(Debug)]
pub struct Group {
    /// The group's leader.
    pub leader: ProcessId,
    members: Members,
    token: String,
    grace: Duration,
    watch: GuardWatch,
    child: Child,
    control: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
    cleanup: Vec<PathBuf>,
    ending: Option<Ending>,
    log_failed: Option<String>,
    emptied: Option<Emptied>,
    guard_lost: bool,
}

/// What became of a group that is waited for.
#[derive(Debug)]
pub enum Change {
    /// Its leader ended.
    Exited(Ending),
    /// Its guard was killed.
    GuardLost,
    /// Its log cannot be written.
    LogFailed(String),
}

/// Makes this process inherit the orphans of the guards it starts, so that a guard's death scatters nothing.
pub fn become_subreaper() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "could not become a subreaper: orphans of a dying guard go to init");
    }
}

/// The guards that this process has started and that may still be there. One that ends has no command line any more, by which it is
/// known else, and is a child of this process as an orphan would be.
static GUARDS: Mutex<Vec<ProcessId>> = Mutex::new(Vec::new());

fn remember_guard(guard: ProcessId) {
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    guards.retain(ProcessId::is_alive);
    guards.push(guard);
}

/// Whether this process has started a guard that is or was this process.
pub(super) fn is_own_guard(process: ProcessId) -> bool {
    GUARDS.lock().unwrap_or_else(PoisonError::into_inner).contains(&process)
}

impl Group {
    /// Starts a guard and, under it, the command in a process group of its own. A stop is heard: then the guard is not
    /// waited for as long.
    ///
    /// # Errors
    /// When the guard, the command or its log could not be started.
    pub async fn spawn(spec: GroupSpec, stop: &mut Stop) -> Result<Self, Error> {
        let program = spec.argv.first().cloned().unwrap_or_default();
        // This very binary, even where the file was replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(TITLE).arg(super::guard::SUBCOMMAND);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(Error::Guard)?;
        let lost = || Error::GuardLost { program: program.clone() };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(lost)?;
        let guard = ProcessId::of(pid).ok_or_else(lost)?;
        remember_guard(guard);
        let mut control = child.stdin.take().ok_or_else(lost)?;
        let mut reports = BufReader::new(child.stdout.take().ok_or_else(lost)?).lines();
        let token = new_token();
        let order = Order { token: token.clone(), orchestrator: ProcessId::current(), spec: spec.clone() };
        let mut watch = GuardWatch::new(guard);
        watch.limit(START_LIMIT);
        let first = first_report(&mut control, &mut reports, &order, &mut watch, stop).await;
        let failed = match first {
            First::Report(Report::Started { record }) => {
                return Ok(Self {
                    leader: record.leader.unwrap_or(guard),
                    members: Members::of(*record),
                    token,
                    grace: spec.grace,
                    watch: GuardWatch::new(guard),
                    child,
                    control,
                    reports,
                    cleanup: spec.cleanup,
                    ending: None,
                    log_failed: None,
                    emptied: None,
                    guard_lost: false,
                });
            }
            First::Report(Report::LogFailed { reason }) => Error::Log { path: spec.log, reason },
            First::Report(Report::SpawnFailed { reason }) => Error::Spawn { program, reason },
            First::Report(Report::Exited { .. } | Report::Emptied { .. }) | First::Lost => lost(),
            First::Stuck => Error::GuardStuck { program },
        };
        let _ = child.start_kill();
        let _ = tokio::time::timeout(MARGIN, child.wait()).await;
        // A guard that was killed while it started the command may have started it already.
        if let Some(record) = registry::find(&token)
            && end_members(&mut Members::of(record), spec.grace, stop, reap_adopted).await.empty == Some(true)
        {
            registry::forget(&token);
        }
        for path in &spec.cleanup {
            let _ = std::fs::remove_file(path);
        }
        Err(failed)
    }

    /// Waits until the leader ends; `None` where the guard dies first. Cancel safe; may be called again.
    pub async fn exited(&mut self) -> Option<Ending> {
        while self.ending.is_none() && !self.guard_lost {
            self.take_report().await;
        }
        self.ending
    }

    /// Waits until the leader ends, the guard dies, or the log cannot be written any more (a full disk, most often).
    pub async fn changed(&mut self) -> Change {
        loop {
            if let Some(reason) = self.log_failed.take() {
                return Change::LogFailed(reason);
            }
            if let Some(ending) = self.ending {
                return Change::Exited(ending);
            }
            if self.guard_lost {
                return Change::GuardLost;
            }
            self.take_report().await;
        }
    }

    /// Takes what the guard says next. A guard that stays stopped, or keeps no limit, is killed and counts as lost.
    async fn take_report(&mut self) {
        let report = tokio::select! {
            biased;
            report = next_report(&mut self.reports) => report,
            () = self.watch.gave_up() => {
                let _ = self.child.start_kill();
                None
            }
        };
        match report {
            Some(Report::Exited { ending }) => self.ending = Some(ending),
            Some(Report::Emptied { emptied }) => self.emptied = Some(emptied),
            Some(Report::LogFailed { reason }) => self.log_failed = Some(reason),
            Some(Report::Started { .. } | Report::SpawnFailed { .. }) => {}
            None => self.guard_lost = true,
        }
    }

    /// Ends the group (SIGTERM, grace, SIGKILL) and what had left it, and says what was seen afterwards. A stop of
    /// level [`StopLevel::Kill`] cuts the grace short. Where the guard is dead or does not do it in time, this does its work.
    pub async fn end(mut self, stop: &mut Stop) -> Emptied {
        let ask = async |control: &mut ChildStdin, request: Request| {
            let _ = tokio::time::timeout(MARGIN, send(control, &request)).await;
        };
        let longer = self.members.container().map_or(Duration::ZERO, |_| container::LONGER);
        self.watch.limit(self.grace + AFTER_KILL + LAST_OUTPUT + MARGIN + longer);
        ask(&mut self.control, Request::End).await;
        let mut kill_sent = false;
        while self.emptied.is_none() && !self.guard_lost {
            tokio::select! {
                () = self.take_report() => {}
                () = stop.reached(StopLevel::Kill), if !kill_sent => {
                    kill_sent = true;
                    self.watch.limit(AFTER_KILL + LAST_OUTPUT + MARGIN + longer);
                    ask(&mut self.control, Request::Kill).await;
                }
            }
        }
        drop(self.control);
        if self.emptied.is_some() && tokio::time::timeout(MARGIN, self.child.wait()).await.is_err() {
            let _ = self.child.start_kill();
        }
        let _ = tokio::time::timeout(MARGIN, self.child.wait()).await;
        let emptied = match self.emptied.take() {
            Some(emptied) => {
                // Where the guard could not leave the cgroup of the group, it is removed now.
                self.members.emptiness();
                emptied
            }
            None => {
                // What it recorded last: members that it saw since the start.
                let mut members = registry::find(&self.token).map_or(self.members, Members::of);
                end_members(&mut members, self.grace, stop, reap_adopted).await
            }
        };
        if self.guard_lost {
            for path in &self.cleanup {
                let _ = std::fs::remove_file(path);
            }
        }
        if emptied.empty == Some(true) {
            registry::forget(&self.token);
        }
        emptied
    }

    /// Waits until a process of the group whose title begins with `prefix` is gone, while the leader may live on: vLLM's
    /// API server takes seconds to notice that its engine was killed, and then exits with code 0.
    pub fn titled_gone(&self, prefix: &'static str) -> impl Future<Output = ProcessId> + use<> {
        let members = self.members.clone();
        async move {
            let mut seen: Vec<ProcessId> = Vec::new();
            for round in 0u32.. {
                if let Some(gone) = seen.iter().find(|process| !process.is_alive()) {
                    return *gone;
                }
                // A reading of all of `/proc` costs: while a benchmark runs, it is taken seldom.
                let all = if seen.is_empty() || round % TITLES_SELDOM == 0 { members.find() } else { Vec::new() };
                for stat in all {
                    let process = stat.process();
                    if !seen.contains(&process) && procfs::argv(stat.pid).first().is_some_and(|t| t.starts_with(prefix))
                    {
                        seen.push(process);
                    }
                }
                tokio::time::sleep(TITLES_POLL).await;
            }
            std::future::pending().await
        }
    }

    /// Sends the leader a signal that it passes on or has a meaning of its own for; nothing where it has ended.
    pub fn tell(&self, signal: Signal) {
        if self.ending.is_none() && self.leader.is_alive() {
            let _ = kill(Pid::from_raw(self.leader.pid), signal);
        }
    }

    /// The processes that belong to the group.
    pub fn members(&self) -> Members {
        self.members.clone()
    }
}

/// How a guard's start ended.
enum First {
    Report(Report),
    /// It ended before it could read what to do.
    Lost,
    /// It did neither.
    Stuck,
}

async fn first_report(
    control: &mut ChildStdin,
    reports: &mut Lines<BufReader<ChildStdout>>,
    order: &Order,
    watch: &mut GuardWatch,
    stop: &mut Stop,
) -> First {
    let told = async {
        match send(control, order).await {
            Ok(()) => next_report(reports).await.map_or(First::Lost, First::Report),
            Err(_) => First::Lost,
        }
    };
    tokio::pin!(told);
    let mut stopping = stop.level() >= StopLevel::Drain;
    loop {
        if stopping {
            watch.limit(START_LIMIT_STOPPING);
        }
        tokio::select! {
            biased;
            first = &mut told => return first,
            () = watch.gave_up() => return First::Stuck,
            () = stop.reached(StopLevel::Drain), if !stopping => stopping = true,
        }
    }
}

async fn next_report(reports: &mut Lines<BufReader<ChildStdout>>) -> Option<Report> {
    loop {
        let line = reports.next_line().await.ok()??;
        match serde_json::from_str(&line) {
            Ok(report) => return Some(report),
            Err(error) => tracing::warn!(%error, "a guard sent a line that is no report"),
        }
    }
}

async fn send<T: Serialize>(control: &mut ChildStdin, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    control.write_all(&line).await?;
    control.flush().await
}

/// Unique on this machine: the orchestrator, and a random number.
fn new_token() -> String {
    let me = ProcessId::current();
    format!("{}-{}-{:016x}", me.pid, me.start_time, rand::random::<u64>())
}

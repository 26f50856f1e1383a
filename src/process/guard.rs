//! The guard: the process that stands between vllm-bench and one process group.
//!
//! It leads a session of its own, adopts whatever leaves the group, writes the group's output to the log, and ends the
//! group when it is told to, when the leader has ended, or when the orchestrator is gone: then its control pipe closes,
//! and that happens however the orchestrator dies. It never reads a plan and never decides what a failure means.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::affinity::bound_to;
use super::registry::{self, MARKER, Record};
use super::{
    Emptied, GroupSpec, Members, Redactor, StopLevel, StopSender, boot_id, cgroup, end_members, pid_namespace, procfs,
    stop_channel,
};
use crate::bounded::is_file_size_limit;
use crate::model::{Ending, HeldBy, ProcessId};

/// The hidden subcommand that runs a guard.
pub const SUBCOMMAND: &str = "__guard";

/// How much of a log is kept.
#[derive(Clone, Copy)]
struct LogLimit {
    /// Bytes of its beginning; what comes later is counted.
    head: u64,
    /// Bytes of its end, where it reached its limit.
    tail: usize,
}

const LOG_LIMIT: LogLimit = LogLimit { head: 256 << 20, tail: 1 << 20 };
/// How long the guard waits for the last output of a group that is empty.
pub(super) const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// How soon after the start, and after each new process, a group that no cgroup holds is looked at.
const LOOK_FIRST: Duration = Duration::from_millis(25);
/// How seldom at most: a look reads all of `/proc`.
const LOOK_SELDOM: Duration = Duration::from_secs(2);

/// The first word of a guard's command line.
pub(super) const TITLE: &str = "vllm-bench-guard";

/// Whether a process is a guard.
pub(super) fn is_guard(pid: i32) -> bool {
    procfs::argv(pid).get(..2).is_some_and(|words| words == [TITLE, SUBCOMMAND])
}

/// The first line on the control pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub token: String,
    pub orchestrator: ProcessId,
    pub spec: GroupSpec,
}

/// The later lines on the control pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// End the group in order.
    End,
    /// Kill the group at once.
    Kill,
}

/// What the guard says, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// With the record as registered.
    Started {
        record: Box<Record>,
    },
    SpawnFailed {
        reason: String,
    },
    LogFailed {
        reason: String,
    },
    Exited {
        ending: Ending,
    },
    Emptied {
        emptied: Emptied,
    },
}

/// Runs a guard; the body of the hidden subcommand.
pub fn guard_main() -> ExitCode {
    // A session of its own: Ctrl-C at the terminal and its hang-up reach the orchestrator alone, which decides.
    let _ = nix::unistd::setsid();
    super::become_subreaper();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(guard());
            // A reader thread may wait for output of a process that cannot be ended; it must not keep the guard.
            runtime.shutdown_background();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

async fn guard() {
    let mut control = BufReader::new(tokio::io::stdin()).lines();
    let Ok(Some(line)) = control.next_line().await else { return };
    let Ok(Order { token, orchestrator, spec }) = serde_json::from_str(&line) else { return };
    // Handlers, not "ignore": an ignored signal would stay ignored in the command.
    let mut signals = Signals::listen();
    let log = match open_log(&spec.log) {
        Ok(log) => log,
        Err(error) => return report(&log_failed(&error)),
    };
    let mut record = Record {
        boot_id: boot_id(),
        pid_namespace: pid_namespace(),
        token: token.clone(),
        orchestrator,
        guard: ProcessId::current(),
        leader: None,
        owner: spec.owner.clone(),
        cgroup: None,
        seen: Vec::new(),
        container: spec.container.clone(),
    };
    // Registered before the command exists: no moment at which a crash could leave it unknown.
    let own = match enter_cgroup(&mut record) {
        Ok(own) => own,
        Err(error) => {
            registry::forget(&token);
            return report(&Report::SpawnFailed { reason: error.to_string() });
        }
    };
    let started = start(&spec, &token);
    if let Some(own) = own
        && let Err(error) = cgroup::enter(&own)
    {
        tracing::debug!(%error, "the guard stays in the cgroup of its group");
    }
    let (leader, output) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = record.cgroup.as_deref().map(cgroup::remove);
            registry::forget(&token);
            return report(&Report::SpawnFailed { reason: error.to_string() });
        }
    };
    record.leader = Some(leader);
    let _ = registry::register(&record);
    report(&Report::Started { record: Box::new(record.clone()) });
    let (written_tx, mut written) = mpsc::channel(1);
    let redactor = Redactor::new(spec.secrets.clone());
    std::thread::spawn(move || {
        capture(output, log, redactor, LOG_LIMIT, |error| report(&log_failed(error)));
        let _ = written_tx.blocking_send(());
    });

    let mut reaper = Reaper { leader: leader.pid, reported: false };
    let (sender, mut stop) = stop_channel();
    let mut members = Members::of(record);
    tokio::select! {
        () = wait_for_end(&mut control, &mut signals, &mut reaper, &sender) => {}
        () = keep_in_sight(&mut members) => {}
    }
    let listening = tokio::spawn(listen(control, sender));
    let emptied = end_members(&mut members, spec.grace, &mut stop, || reaper.reap()).await;
    listening.abort();
    reaper.reap();
    // The log is complete before anybody reads it to find out what happened.
    let _ = tokio::time::timeout(LAST_OUTPUT, written.recv()).await;
    for path in &spec.cleanup {
        let _ = std::fs::remove_file(path);
    }
    // Forgotten before it is told: what is not registered any more is proven empty.
    if emptied.empty == Some(true) {
        registry::forget(&token);
    }
    report(&Report::Emptied { emptied });
}

/// Makes a cgroup for the group and enters it, so that the command is born in it. Returns the guard's own, to go back to;
/// `None` where none can be made. It is recorded before it exists: no moment at which a crash could leave it unknown. And
/// where none could be made the record must say so: else a later look would take the missing cgroup for a proof.
fn enter_cgroup(record: &mut Record) -> Result<Option<PathBuf>, super::Error> {
    for own in cgroup::parents() {
        let dir = own.join(registry::cgroup_name(&record.token));
        record.cgroup = Some(dir.clone());
        registry::register(record)?;
        if cgroup::make_and_enter(&dir).is_ok() {
            return Ok(Some(own));
        }
    }
    record.cgroup = None;
    registry::register(record)?;
    Ok(None)
}

/// Records every member that appears in a group that no cgroup holds: often while it grows, seldom once it is at rest.
async fn keep_in_sight(members: &mut Members) {
    if members.held_by() == HeldBy::Cgroup {
        std::future::pending::<()>().await;
    }
    let mut pause = LOOK_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        let alive = members.find();
        pause = if members.remember(&alive) { LOOK_FIRST } else { (pause * 2).min(LOOK_SELDOM) };
    }
}

/// Returns when the group is to be ended: the leader has ended, the orchestrator asked or is gone, or a signal came.
async fn wait_for_end(control: &mut Control, signals: &mut Signals, reaper: &mut Reaper, sender: &StopSender) {
    loop {
        tokio::select! {
            line = control.next_line() => match line {
                Ok(Some(line)) => {
                    if serde_json::from_str::<Request>(&line).is_ok_and(|request| request == Request::Kill) {
                        sender.raise(StopLevel::Kill);
                    }
                    return;
                }
                Ok(None) | Err(_) => return,
            },
            _ = signals.child.recv() => {
                reaper.reap();
                if reaper.reported {
                    return;
                }
            }
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => {}
            _ = signals.hang_up.recv() => {}
            _ = signals.quit.recv() => {}
        }
    }
}

/// Listens for a kill request while the group is being ended.
async fn listen(mut control: Control, sender: StopSender) {
    while let Ok(Some(line)) = control.next_line().await {
        if serde_json::from_str::<Request>(&line).is_ok_and(|request| request == Request::Kill) {
            sender.raise(StopLevel::Kill);
        }
    }
    // The orchestrator is gone: the grace period goes on, because a hard kill can wedge a device.
    std::future::pending::<()>().await;
}

type Control = tokio::io::Lines<BufReader<tokio::io::Stdin>>;

struct Signals {
    child: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    #[expect(clippy::expect_used, reason = "fails only without a runtime, and this is called inside one")]
    fn listen() -> Self {
        let on = |kind| signal(kind).expect("a signal handler");
        Self {
            child: on(SignalKind::child()),
            terminate: on(SignalKind::terminate()),
            interrupt: on(SignalKind::interrupt()),
            hang_up: on(SignalKind::hangup()),
            quit: on(SignalKind::quit()),
        }
    }
}

/// Waits for every child that has ended, adopted orphans included, and reports the leader's end once.
struct Reaper {
    leader: i32,
    reported: bool,
}

impl Reaper {
    fn reap(&mut self) {
        loop {
            let ended = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ending::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ending::Signaled(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if ended.0.as_raw() == self.leader && !self.reported {
                self.reported = true;
                report(&Report::Exited { ending: ended.1 });
            }
        }
    }
}

fn start(spec: &GroupSpec, token: &str) -> std::io::Result<(ProcessId, std::io::PipeReader)> {
    let (program, args) = spec
        .argv
        .split_first()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "no program was named"))?;
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(program);
    for name in &spec.unset {
        command.env_remove(name);
    }
    command
        .args(args)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env(MARKER, token)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    // The command is born on its cores; the guard itself stays as it is.
    let child = bound_to(&spec.cores, || command.spawn())?;
    let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    // A child that has ended already is a zombie until it is waited for, so its start time can always be read.
    let leader = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
    Ok((leader, reader))
}

/// A new file: never one that is there already, never through a link.
fn open_log(path: &std::path::Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

/// Copies output to the log, without secrets, up to the limit. Reads on when the disk is full: a blocked pipe would
/// stop the command; the orchestrator is told.
fn capture(
    mut output: impl Read,
    mut log: impl Write,
    mut redactor: Redactor,
    limit: LogLimit,
    on_failure: impl Fn(&std::io::Error),
) {
    let mut failed = false;
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0u64;
    let mut dropped = 0u64;
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let n = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let bytes = redactor.feed(&buffer[..n]);
        if written < limit.head {
            written += bytes.len() as u64;
            if let Err(error) = log.write_all(&bytes)
                && !failed
            {
                failed = true;
                on_failure(&error);
            }
        } else {
            tail.extend_from_slice(&bytes);
            if tail.len() > 2 * limit.tail {
                let cut = tail.len() - limit.tail;
                dropped += cut as u64;
                tail.drain(..cut);
            }
        }
    }
    tail.extend(redactor.finish());
    if dropped > 0 {
        let _ = writeln!(log, "\n[vllm-bench: {dropped} bytes left out here: the log had reached its limit]");
    }
    let _ = log.write_all(&tail);
    let _ = log.flush();
}

fn log_failed(error: &std::io::Error) -> Report {
    let limit = if is_file_size_limit(error) { ": the limit of file sizes (`ulimit -f`) was reached" } else { "" };
    Report::LogFailed { reason: format!("{error}{limit}") }
}

/// The orchestrator may be gone; there is nobody else to tell.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = std::io::stdout().lock().write_all(&line);
        let _ = std::io::stdout().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end() {
        // As the real one, but for its size.
        let limit = LogLimit { head: 2 << 20, tail: 128 << 10 };
        let mut log = Vec::new();
        let total = limit.head + 5 * limit.tail as u64;
        let flood = std::io::repeat(b'x').take(total).chain(&b"the end"[..]);
        capture(flood, &mut log, Redactor::default(), limit, |error| panic!("{error}"));
        assert!(log.ends_with(b"the end"));
        assert!((log.len() as u64) < limit.head + 3 * limit.tail as u64);
        assert!(log.windows(10).any(|w| w == b"left out h"));
    }
}

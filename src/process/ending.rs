//! Ends the processes of a group, and proves that none is left.

use std::collections::HashSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::procfs::{self, Stat};
use super::{ProcessId, Stop, StopLevel};

/// How often `/proc` is read while processes are ending.
const POLL: Duration = Duration::from_millis(10);
/// How long processes may take to leave once none of them holds a device. vLLM 0.14's API server never leaves when it is
/// told to while its engine still loads; there is nothing that the full grace period could save then.
const WITHOUT_DEVICE: Duration = Duration::from_secs(3);
/// How often it is looked whether a device is held.
const DEVICE_POLL: Duration = Duration::from_millis(250);
/// How long a process may take to vanish after SIGKILL before it is reported as left (it is stuck in the kernel).
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What was seen when a group had been ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Emptied {
    /// Nothing is left (zombies apart).
    pub empty: bool,
    /// SIGKILL was needed.
    pub killed: bool,
    /// Processes that had left the group and were ended.
    pub strays: usize,
    /// Processes that could not be ended.
    pub left: Vec<i32>,
    /// Seconds from the first signal to this observation.
    pub seconds: f64,
}

/// Tells which processes belong to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The guard: its session holds the group and all that did not leave it.
    pub guard: ProcessId,
    /// The group's leader, if it was started.
    pub leader: Option<ProcessId>,
    /// Environment variable that every member inherited, as `NAME=value`.
    pub marker: String,
    /// The process whose descendants all belong to the group (the guard while it lives); `None` where orphans have
    /// been scattered and only session and marker tell.
    pub ancestor: Option<i32>,
}

impl Members {
    /// The live members, the guard apart, by descent, session and group.
    pub fn find(&self) -> Vec<Stat> {
        self.search(false)
    }

    /// The live members, those included that left the session and whose parents are gone: the marker in their
    /// environment tells. Reads more of `/proc` than [`Members::find`].
    pub fn find_all(&self) -> Vec<Stat> {
        self.search(true)
    }

    fn search(&self, deep: bool) -> Vec<Stat> {
        let all = procfs::all();
        let descendants: HashSet<i32> = self
            .ancestor
            .map(|root| procfs::descendants(root, &all).iter().map(|s| s.pid).collect())
            .unwrap_or_default();
        let me = ProcessId::current().pid;
        all.into_iter()
            .filter(|stat| !stat.is_dead() && stat.pid != self.guard.pid && stat.pid != me)
            .filter(|stat| stat.start_time >= self.guard.start_time)
            .filter(|stat| descendants.contains(&stat.pid) || self.is_member(stat, deep))
            .collect()
    }

    /// By session or group, unless the environment says otherwise (the kernel gives a number away again once nobody
    /// carries it); where `deep`, by the marker alone too.
    fn is_member(&self, stat: &Stat, deep: bool) -> bool {
        let by_number = stat.session == self.guard.pid || self.in_group(stat);
        if by_number {
            procfs::environ_has(stat.pid, &self.marker) != Some(false)
        } else {
            deep && procfs::environ_has(stat.pid, &self.marker) == Some(true)
        }
    }

    fn in_group(&self, stat: &Stat) -> bool {
        self.leader.is_some_and(|leader| stat.group == leader.pid)
    }
}

/// When the grace period is over: after `grace`, because a hard kill can wedge a device; sooner where no process holds
/// one, or the user says so.
struct Patience {
    start: Instant,
    grace: Duration,
    looked_at: Option<Instant>,
    device_seen: Instant,
}

impl Patience {
    fn new(grace: Duration) -> Self {
        let start = Instant::now();
        Self { start, grace, looked_at: None, device_seen: start }
    }

    fn is_over(&mut self, alive: &[Stat], stop: &Stop) -> bool {
        let now = Instant::now();
        if self.looked_at.is_none_or(|at| now >= at + DEVICE_POLL) {
            self.looked_at = Some(now);
            if alive.iter().any(|stat| procfs::holds_device(stat.pid)) {
                self.device_seen = now;
            }
        }
        now >= self.start + self.grace
            || now >= self.device_seen + WITHOUT_DEVICE.min(self.grace)
            || stop.level() >= StopLevel::Kill
    }
}

/// SIGTERM to every member, time to leave in order, SIGKILL, and a look at what is left. The time is `grace` while a
/// member holds a device, a few seconds where none does, and none once a stop of level [`StopLevel::Kill`] is asked for.
///
/// `reap` waits for children that have ended; without it they would stay as zombies.
pub async fn end_members(members: &Members, grace: Duration, stop: &mut Stop, mut reap: impl FnMut()) -> Emptied {
    let start = Instant::now();
    let mut result = Emptied::default();
    let mut told: Vec<i32> = Vec::new();
    let mut killed_at = None;
    let mut patience = Patience::new(grace);
    loop {
        reap();
        let mut alive = members.find();
        if alive.is_empty() {
            alive = members.find_all();
        }
        if alive.is_empty() {
            result.empty = true;
            break;
        }
        let now = Instant::now();
        if killed_at.is_none() && patience.is_over(&alive, stop) {
            killed_at = Some(now);
            result.killed = true;
        }
        if killed_at.is_some_and(|at| now >= at + AFTER_KILL) {
            result.left = alive.iter().map(|stat| stat.pid).collect();
            break;
        }
        for stat in &alive {
            if !told.contains(&stat.pid) {
                told.push(stat.pid);
                result.strays += usize::from(!members.in_group(stat));
                signal(stat.pid, Signal::SIGTERM);
                // A stopped process sees SIGTERM only when it goes on.
                signal(stat.pid, Signal::SIGCONT);
            }
            if killed_at.is_some() {
                signal(stat.pid, Signal::SIGKILL);
            }
        }
        sleep(POLL).await;
    }
    result.seconds = start.elapsed().as_secs_f64();
    result
}

/// Ends these very processes: SIGTERM, grace, SIGKILL. Returns whether all are gone.
pub async fn end_processes(targets: &[ProcessId], grace: Duration, stop: &mut Stop) -> bool {
    let start = Instant::now();
    let mut signal_now = Signal::SIGTERM;
    let mut told = false;
    loop {
        let alive: Vec<&ProcessId> = targets.iter().filter(|target| target.is_alive()).collect();
        if alive.is_empty() {
            return true;
        }
        let over = start.elapsed() >= grace || stop.level() >= StopLevel::Kill;
        if over && signal_now == Signal::SIGTERM {
            (signal_now, told) = (Signal::SIGKILL, false);
        }
        if !told {
            told = true;
            for target in &alive {
                signal(target.pid, signal_now);
            }
        }
        if start.elapsed() >= grace + AFTER_KILL {
            return false;
        }
        sleep(POLL).await;
    }
}

/// A process that is gone meanwhile needs no signal.
fn signal(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %signal, %error, "could not signal a process"),
    }
}

/// Waits for orphans that this process adopted as subreaper. Guards are left to the runtime, which waits for them by
/// number: they are told by leading a session.
pub fn reap_adopted() {
    let me = ProcessId::current().pid;
    for stat in procfs::all() {
        if stat.parent == me && stat.state == 'Z' && stat.session != stat.pid {
            let _ = waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

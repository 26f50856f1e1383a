//! Ends the processes of a group, and proves that none is left.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::container::Presence;
use super::members::Emptiness;
use super::procfs::{self, Stat};
use super::{Members, Stop, StopLevel};
use crate::model::{HeldBy, ProcessId};

/// How often `/proc` is read while processes are ending.
const POLL: Duration = Duration::from_millis(10);
/// How long processes may take to leave once none of them holds a device. vLLM 0.14's API server never leaves when it is
/// told to while its engine still loads; there is nothing that the full grace period could save then.
const WITHOUT_DEVICE: Duration = Duration::from_secs(3);
/// How often it is looked whether a device is held.
const DEVICE_POLL: Duration = Duration::from_millis(250);
/// How long a shell may take to run its traps on SIGTERM, even when all others are killed: one that is killed in the middle
/// of a profile leaves its locks (pyenv's stalls every later login of the user for a minute).
const TRAPS: Duration = Duration::from_secs(1);
/// How long a process may take to vanish after SIGKILL before it is reported as left (it is stuck in the kernel).
pub(super) const AFTER_KILL: Duration = Duration::from_secs(10);
/// How long the kernel may say that somebody is in a cgroup while it shows nobody.
const UNSEEN: Duration = Duration::from_secs(2);

/// What was seen when a group had been ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Emptied {
    /// Whether nothing is left (zombies apart); `None` where nothing was found and something may have been lost from
    /// sight: guard and orchestrator had died, and no cgroup held the group.
    pub empty: Option<bool>,
    /// What held its members.
    pub held_by: HeldBy,
    /// SIGKILL was needed.
    pub killed: bool,
    /// Processes that had left the group and were ended.
    pub strays: usize,
    /// Processes that could not be ended.
    pub left: Vec<i32>,
    /// Seconds from the first signal to this observation.
    pub seconds: f64,
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
            if alive.iter().any(|stat| procfs::holds_device(stat.pid) || procfs::hides_files(stat.pid)) {
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
pub async fn end_members(members: &mut Members, grace: Duration, stop: &mut Stop, mut reap: impl FnMut()) -> Emptied {
    let start = Instant::now();
    let mut result = Emptied { held_by: members.held_by(), ..Emptied::default() };
    let mut told: Vec<ProcessId> = Vec::new();
    let mut killed_at = None;
    let mut unseen_since = None;
    let mut patience = Patience::new(grace);
    let mut told_container = false;
    loop {
        reap();
        let mut alive = members.find();
        if alive.is_empty() {
            alive = members.find_all();
        }
        members.remember(&alive);
        let now = Instant::now();
        if alive.is_empty() {
            // Before the cgroup is looked at, which may hold who watches the container.
            let container = match members.container() {
                Some((runtime, token)) => Some(runtime.remove(token).await),
                None => None,
            };
            if container.is_some() && !members.find_all().is_empty() {
                continue;
            }
            result.empty = match members.emptiness() {
                Emptiness::Proven => Some(true),
                Emptiness::NotProven => None,
                Emptiness::Refuted if now < *unseen_since.get_or_insert(now) + UNSEEN => {
                    sleep(POLL).await;
                    continue;
                }
                Emptiness::Refuted => Some(false),
            };
            result.empty = match container {
                Some(Presence::There) => Some(false),
                Some(Presence::Unknown) => result.empty.filter(|empty| !empty),
                Some(Presence::Gone) | None => result.empty,
            };
            break;
        }
        unseen_since = None;
        if killed_at.is_none() && patience.is_over(&alive, stop) {
            killed_at = Some(now);
            result.killed = true;
            // Its processes may be another user's: then only their runtime can kill them.
            if let Some((runtime, token)) = members.container() {
                runtime.remove(token).await;
            }
        }
        if killed_at.is_some_and(|at| now >= at + AFTER_KILL) {
            result.empty = Some(false);
            result.left = alive.iter().map(|stat| stat.pid).collect();
            break;
        }
        let told_before = told.len();
        for stat in &alive {
            let process = stat.process();
            // What a shell starts once it was told to end is its trap at work.
            let of_trap =
                told[..told_before].iter().any(|told| told.pid == stat.parent) && procfs::is_shell(stat.parent);
            if !told.contains(&process) && !of_trap {
                told.push(process);
                result.strays += usize::from(!members.in_group(stat));
                let refused = signal(process, Signal::SIGTERM) == Err(Errno::EPERM);
                if let (true, false, Some((runtime, token))) = (refused, told_container, members.container()) {
                    told_container = true;
                    runtime.tell(token, Signal::SIGTERM).await;
                }
                // A stopped process sees SIGTERM only when it goes on.
                let _ = signal(process, Signal::SIGCONT);
            }
            if killed_at.is_some_and(|at| now >= at + TRAPS || !procfs::is_shell(stat.pid)) {
                let _ = signal(process, Signal::SIGKILL);
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
            for target in alive {
                let _ = signal(*target, signal_now);
            }
        }
        if start.elapsed() >= grace + AFTER_KILL {
            return false;
        }
        sleep(POLL).await;
    }
}

/// Sends a signal to this very process. One that is gone meanwhile needs none.
pub(super) fn signal(process: ProcessId, signal: Signal) -> Result<(), Errno> {
    if ProcessId::of(process.pid) != Some(process) {
        return Ok(());
    }
    match kill(Pid::from_raw(process.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        // It is in a container, whose runtime is asked, or left to whoever may end it.
        Err(Errno::EPERM) if procfs::hides_files(process.pid) => Err(Errno::EPERM),
        Err(error) => {
            tracing::warn!(process.pid, %signal, %error, "could not signal a process");
            Err(error)
        }
    }
}

/// Waits for orphans that this process adopted as subreaper. Guards are left to the runtime, which waits for them by
/// number: they are told by leading a session.
pub fn reap_adopted() {
    let me = ProcessId::current().pid;
    // What the list leaves out is there the next time: this is done again and again while a group ends.
    for stat in procfs::own_children().unwrap_or_else(procfs::all) {
        if stat.parent == me && stat.state == 'Z' && stat.session != stat.pid {
            let _ = waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

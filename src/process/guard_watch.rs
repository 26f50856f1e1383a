//! A guard may be stopped (SIGSTOP) or hang like any other process: nobody waits for one without a limit.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::ending::signal;
use super::guard::is_guard;
use super::{procfs, stood_still};
use crate::model::ProcessId;

/// How often a guard is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a guard may stay stopped although it is told to go on.
const STOPPED_LIMIT: Duration = Duration::from_secs(2);
/// How long a guard may take to end when its group is empty: it waits for the last output.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Watches one guard: wakes it when it is stopped, and says when it is not to be waited for any longer. Its state outlives
/// a wait that is cancelled.
#[derive(Debug)]
pub(super) struct GuardWatch {
    guard: ProcessId,
    stopped_since: Option<Instant>,
    deadline: Option<Instant>,
    /// When it was looked at last: time in which this process itself was stopped is not the guard's.
    looked: Instant,
}

impl GuardWatch {
    /// Waits for as long as the guard does not stay stopped.
    pub fn new(guard: ProcessId) -> Self {
        Self { guard, stopped_since: None, deadline: None, looked: Instant::now() }
    }

    /// From now on it is not waited for longer than this; a nearer limit stays.
    pub fn limit(&mut self, limit: Duration) {
        self.looked = Instant::now();
        let deadline = self.looked + limit;
        self.deadline = Some(self.deadline.map_or(deadline, |before| before.min(deadline)));
    }

    /// Returns when the guard is not to be waited for any longer. Cancel safe.
    pub async fn gave_up(&mut self) {
        while !self.is_over() {
            sleep(POLL).await;
        }
    }

    fn is_over(&mut self) -> bool {
        let (now, lost) = (Instant::now(), stood_still(self.looked, POLL));
        self.looked = now;
        if !lost.is_zero() {
            self.stopped_since = None;
            self.deadline = self.deadline.map(|deadline| (deadline + lost).max(now + STOPPED_LIMIT));
        }
        if wake(self.guard) {
            if now >= *self.stopped_since.get_or_insert(now) + STOPPED_LIMIT {
                return true;
            }
        } else {
            self.stopped_since = None;
        }
        self.deadline.is_some_and(|deadline| now >= deadline)
    }
}

/// Lets a stopped guard go on. Returns whether it was stopped.
pub(super) fn wake(guard: ProcessId) -> bool {
    let stopped = procfs::stat(guard.pid).is_some_and(|stat| stat.process() == guard && stat.is_stopped());
    if stopped {
        let _ = signal(guard, Signal::SIGCONT);
    }
    stopped
}

/// Wakes guards that were stopped before they could register their group, and whose run has died: no record names them. They
/// end by themselves then, with what they have started, because their run is gone.
pub(super) async fn wake_lost_guards() {
    let me = nix::unistd::geteuid().as_raw();
    let registered: Vec<ProcessId> =
        super::registry::records().unwrap_or_default().iter().map(|record| record.guard).collect();
    // A guard is the program of its run again.
    let program = |pid: i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let is_orphan = |stat: &procfs::Stat| program(stat.parent) != program(stat.pid);
    let stopped = procfs::all().into_iter().filter(|stat| stat.is_stopped() && is_guard(stat.pid));
    for stat in stopped.filter(|stat| procfs::uid(stat.pid) == Some(me) && is_orphan(stat)) {
        if !registered.contains(&stat.process()) {
            go_on(stat.process()).await;
        }
    }
}

/// Lets a guard go on and gives it a moment. Only one that stays stopped is killed: one that goes on may be ending its group.
async fn go_on(guard: ProcessId) {
    let began = Instant::now();
    let mut watch = GuardWatch::new(guard);
    while guard.is_alive() && began.elapsed() < END_LIMIT {
        if watch.is_over() {
            let _ = signal(guard, Signal::SIGKILL);
        }
        sleep(POLL).await;
    }
}

/// Waits for a guard whose group has been ended, and kills one that does not end.
pub(super) async fn end_guard(guard: ProcessId) {
    let mut watch = GuardWatch::new(guard);
    watch.limit(END_LIMIT);
    while guard.is_alive() {
        if watch.is_over() {
            let _ = signal(guard, Signal::SIGKILL);
            break;
        }
        sleep(POLL).await;
    }
}

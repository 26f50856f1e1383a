//! THE wait loop: server start, benchmark, hooks all wait here for the same things.

use tokio::sync::watch;
use tokio::time::Instant;

use super::Group;
use super::group::Change;
use crate::model::Ending;

/// How urgently the user wants the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopLevel {
    /// Go on.
    None,
    /// Finish the experiment under way, start no other.
    AfterCurrent,
    /// Stop now, in order: SIGTERM, grace, proof.
    Drain,
    /// Kill the groups at once.
    Kill,
}

/// The receiving end of the user's wish to stop: shutdown is a value passed in.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<StopLevel>);

/// The sending end.
#[derive(Debug, Clone)]
pub struct StopSender(watch::Sender<StopLevel>);

/// A pair of ends.
pub fn stop_channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(StopLevel::None);
    (StopSender(sender), Stop(receiver))
}

impl StopSender {
    /// Raises the level; it never falls.
    pub fn raise(&self, level: StopLevel) {
        self.0.send_modify(|now| *now = (*now).max(level));
    }
}

impl Stop {
    /// A stop that never comes.
    pub fn never() -> Self {
        stop_channel().1
    }

    /// The level now.
    pub fn level(&self) -> StopLevel {
        *self.0.borrow()
    }

    /// Waits until the level is at least this; for ever where the sender is gone.
    pub async fn reached(&mut self, level: StopLevel) {
        if self.0.wait_for(|now| *now >= level).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Stop {
    /// Does a step that a stop of level [`StopLevel::Drain`] cuts short; `None` where it did.
    pub async fn cuts_short<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.reached(StopLevel::Drain) => None,
            value = step => Some(value),
        }
    }
}

/// Why waiting ended.
#[derive(Debug)]
pub enum Verdict<T> {
    /// What was watched for came.
    Watched(T),
    /// The leader of the group ended.
    Exited(Ending),
    /// The guard died; the group is still to be ended.
    GuardLost,
    /// The group's log could not be written.
    LogFailed(String),
    /// The limit was reached.
    Deadline,
    /// The user wants to stop.
    Stopped,
}

/// Waits for the first of: the group's leader ends, the watched future is ready, the deadline, a stop. The group is
/// not ended here: whoever spawned it does that.
pub async fn supervise<T>(
    group: &mut Group,
    deadline: Instant,
    stop: &mut Stop,
    watched: impl Future<Output = T>,
) -> Verdict<T> {
    tokio::select! {
        // The user first, then facts about the process, then what was asked for, then the clock.
        biased;
        () = stop.reached(StopLevel::Drain) => Verdict::Stopped,
        change = group.changed() => match change {
            Change::Exited(ending) => Verdict::Exited(ending),
            Change::GuardLost => Verdict::GuardLost,
            Change::LogFailed(reason) => Verdict::LogFailed(reason),
        },
        value = watched => Verdict::Watched(value),
        () = tokio::time::sleep_until(deadline) => Verdict::Deadline,
    }
}

//! THE wait loop: server start, benchmark, hooks all wait here for the same things.

use std::time::Duration;

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

/// What came of waiting.
#[derive(Debug)]
pub struct Waited<T> {
    /// Why it ended.
    pub verdict: Verdict<T>,
    /// How long this process itself was stopped meanwhile; the limit was extended by as much.
    pub stopped: Duration,
}

/// The longest turn of the loop: so soon it is seen that this process was stopped.
const TURN: Duration = Duration::from_millis(250);
/// A turn that takes so much longer than was asked for was no turn: the process was stopped (SIGSTOP, a frozen cgroup).
const STOPPED: Duration = Duration::from_secs(1);
/// What came while the process was stopped is still read within this.
const CATCH_UP: Duration = Duration::from_secs(5);
/// At the deadline it is looked for so long whether the end has come, and is only not read yet.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// How long this process itself was stopped, if what began then and was to take no longer than `asked` is over only now.
pub fn stood_still(began: Instant, asked: Duration) -> Duration {
    Some(began.elapsed().saturating_sub(asked)).filter(|excess| *excess >= STOPPED).unwrap_or_default()
}

/// Waits for the first of: the group's leader ends, the watched future is ready, the deadline, a stop. The group is
/// not ended here: whoever spawned it does that. Time in which this process itself was stopped is nobody's silence.
pub async fn supervise<T>(
    group: &mut Group,
    mut deadline: Instant,
    stop: &mut Stop,
    watched: impl Future<Output = T>,
) -> Waited<T> {
    tokio::pin!(watched);
    let (mut stopped, mut is_last) = (Duration::ZERO, false);
    loop {
        let began = Instant::now();
        let turn = TURN.min(deadline.saturating_duration_since(began));
        let came = tokio::select! {
            // The user first, then facts about the process, then what was asked for, then the clock.
            biased;
            () = stop.reached(StopLevel::Drain) => Some(Verdict::Stopped),
            change = group.changed() => Some(match change {
                Change::Exited(ending) => Verdict::Exited(ending),
                Change::GuardLost => Verdict::GuardLost,
                Change::LogFailed(reason) => Verdict::LogFailed(reason),
            }),
            value = &mut watched => Some(Verdict::Watched(value)),
            () = tokio::time::sleep(turn) => None,
        };
        let lost = stood_still(began, turn);
        stopped += lost;
        if let Some(verdict) = came {
            return Waited { verdict, stopped };
        }
        let now = Instant::now();
        if !lost.is_zero() {
            (deadline, is_last) = ((deadline + lost).max(now + CATCH_UP), false);
        } else if now >= deadline && is_last {
            return Waited { verdict: Verdict::Deadline, stopped };
        } else if now >= deadline {
            (deadline, is_last) = (now + LAST_LOOK, true);
        }
    }
}

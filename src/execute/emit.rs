//! Where events go, and the one thing that can go wrong with them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Attempted, Job};
use crate::model::{Event, Experiment, Failure, Phase};
use crate::process::{StopLevel, StopSender};

/// Keeps and shows what happens, of all blocks that are under way. `Break` = it cannot be kept any more (a full disk): the run must
/// end, in order.
pub trait Recorder: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event) -> ControlFlow<()>;

    /// Whether a client's result counts.
    ///
    /// # Errors
    /// The failure that it is.
    fn validate(&self, experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure>;

    /// A measurement is over and its server is about to be ended: a valid result must be safe before that.
    fn keep(&self, job: &Job, attempted: &Attempted) -> ControlFlow<()>;

    /// An attempt is over: its result or failure must be kept before the journal says so.
    fn finished(&self, job: &Job, attempted: &Attempted) -> ControlFlow<()>;
}

/// Passes events to the recorder. When recording fails, the run is told to stop in order, so that the device is
/// released at once.
#[derive(Clone)]
pub struct Emitter {
    recorder: Arc<dyn Recorder>,
    stop: StopSender,
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emitter").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Emitter {
    /// An emitter into `recorder`.
    pub fn new(recorder: Arc<dyn Recorder>, stop: StopSender) -> Self {
        Self { recorder, stop }
    }

    /// Something happened.
    pub fn event(&self, event: Event) {
        self.heed(self.recorder.event(&event));
    }

    /// Something the user should know.
    pub fn say(&self, text: String) {
        self.event(Event::Notice { text });
    }

    /// This process itself was stopped for so long; what follows from it.
    pub fn was_stopped(&self, stopped: Duration, so: &str) {
        if !stopped.is_zero() {
            let seconds = stopped.as_secs();
            self.say(format!("vllm-bench itself was stopped for {seconds} s or so (SIGSTOP, Ctrl-Z): {so}"));
        }
    }

    /// An experiment is to be ended, because nothing moves any more for so long, or (`None`) its limit is reached; it is looked at before.
    pub fn is_looked_at(&self, name: &str, still: Option<Duration>) {
        let why = still
            .map_or("its limit is reached".to_owned(), |still| format!("nothing has moved for {} s", still.as_secs()));
        self.say(format!("`{name}`: {why}; evidence is kept before it is ended"));
    }

    /// An experiment moved on.
    pub fn phase(&self, experiment: &Experiment, now: Phase) {
        self.event(Event::PhaseChanged { name: experiment.name.clone(), now });
    }

    /// Whether a client's result counts.
    ///
    /// # Errors
    /// The failure that it is.
    pub fn validate(&self, experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure> {
        self.recorder.validate(experiment, result)
    }

    /// A result must be safe from now on.
    pub fn keep(&self, job: &Job, attempted: &Attempted) {
        self.heed(self.recorder.keep(job, attempted));
    }

    /// An attempt is over.
    pub fn finished(&self, job: &Job, attempted: &Attempted) {
        self.heed(self.recorder.finished(job, attempted));
    }

    fn heed(&self, flow: ControlFlow<()>) {
        if flow.is_break() {
            self.stop.raise(StopLevel::Drain);
        }
    }
}

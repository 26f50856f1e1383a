//! Where events go, and the one thing that can go wrong with them.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Attempted;
use super::run::Job;
use crate::model::{Event, Experiment, Failure, Phase};
use crate::process::{StopLevel, StopSender};

/// Keeps and shows what happens. `Break` = it cannot be kept any more (a full disk): the run must end, in order.
pub trait Recorder {
    /// Something happened.
    fn event(&mut self, event: &Event) -> ControlFlow<()>;

    /// Whether a client's result counts.
    ///
    /// # Errors
    /// The failure that it is.
    fn validate(&self, experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure>;

    /// A measurement is over and its server is about to be ended: a valid result must be safe before that.
    fn keep(&mut self, job: &Job<'_>, attempted: &Attempted) -> ControlFlow<()>;

    /// An attempt is over: its result or failure must be kept before the journal says so.
    fn finished(&mut self, job: &Job<'_>, attempted: &Attempted) -> ControlFlow<()>;
}

/// Passes events to the recorder. When recording fails, the run is told to stop in order, so that the device is
/// released at once.
pub struct Emitter<'a> {
    /// Where events go.
    pub recorder: &'a mut dyn Recorder,
    stop: &'a StopSender,
}

impl<'a> Emitter<'a> {
    /// An emitter into `recorder`.
    pub fn new(recorder: &'a mut dyn Recorder, stop: &'a StopSender) -> Self {
        Self { recorder, stop }
    }

    /// Something happened.
    pub fn event(&mut self, event: Event) {
        let flow = self.recorder.event(&event);
        self.heed(flow);
    }

    /// This process itself was stopped for so long; what follows from it.
    pub fn was_stopped(&mut self, stopped: Duration, so: &str) {
        if !stopped.is_zero() {
            let text =
                format!("vllm-bench itself was stopped for {} s or so (SIGSTOP, Ctrl-Z): {so}", stopped.as_secs());
            self.event(Event::Notice { text });
        }
    }

    /// An experiment moved on.
    pub fn phase(&mut self, experiment: &Experiment, now: Phase) {
        self.event(Event::PhaseChanged { name: experiment.name.clone(), now });
    }

    /// A result must be safe from now on.
    pub fn keep(&mut self, job: &Job<'_>, attempted: &Attempted) {
        let flow = self.recorder.keep(job, attempted);
        self.heed(flow);
    }

    /// An attempt is over.
    pub fn finished(&mut self, job: &Job<'_>, attempted: &Attempted) {
        let flow = self.recorder.finished(job, attempted);
        self.heed(flow);
    }

    fn heed(&mut self, flow: ControlFlow<()>) {
        if flow.is_break() {
            self.stop.raise(StopLevel::Drain);
        }
    }
}

//! Keeps a session of a run: outcomes into their files (the store), events onto the bus.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::store::{Store, judge};
use crate::error::Error;
use crate::execute::{Attempted, Binding, Job, Jobs, Recorder};
use crate::model::{Event, Experiment, Failure, Outcome, Stamped};
use crate::observe::{Bus, Observer};
use crate::record::{self, Journal, Lock, RunDir, RunState};
use crate::ui::Reporter;

/// Keeps one session of a run. Clones share it.
#[derive(Debug, Clone)]
pub struct RunRecorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    store: Store,
    zone: Tz,
    error: Option<Error>,
}

impl Observer for Reporter {
    fn on(&mut self, stamped: &Stamped) -> Result<(), String> {
        self.event(&stamped.event);
        Ok(())
    }
}

impl RunRecorder {
    /// Opens the journal of a run for this session.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(run: &RunDir, zone: Tz, reporter: Reporter) -> Result<Self, Error> {
        Self::open_at(&run.layout().journal(), run, zone, reporter)
    }

    /// As [`RunRecorder::open`], into this journal: a task of a cluster has its own.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_at(journal: &Path, run: &RunDir, zone: Tz, reporter: Reporter) -> Result<Self, Error> {
        let mut bus = Bus::new(Journal::open(journal)?, zone)?;
        bus.show_on(reporter);
        let inner = Inner { bus, store: Store::new(run), zone, error: None };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// Adds who gets every event on a thread of its own.
    pub fn subscribe(&self, name: &str, observer: impl Observer + 'static) {
        self.lock().bus.subscribe(name, observer);
    }

    /// What kept the record from being kept, if anything did.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    /// Ends the stream of events; what a subscriber lost, in words.
    pub fn close(&self) -> Vec<String> {
        self.lock().bus.close()
    }

    /// Prepares the next attempt at an experiment. `server_log` is that of the server that is running already, if one is.
    pub fn job(&self, experiment: &Arc<Experiment>, attempt: u32, port: u16, server_log: Option<PathBuf>) -> Job {
        let mut inner = self.lock();
        if let Err(error) = inner.store.make_room(experiment, attempt) {
            // The next event ends the run, before anything is started.
            inner.error = inner.error.take().or(Some(error.into()));
        }
        let started = Utc::now().with_timezone(&inner.zone).to_rfc3339_opts(SecondsFormat::Millis, false);
        let places = inner.store.places(experiment, server_log);
        Job { experiment: Arc::clone(experiment), attempt, port, binding: Binding::default(), places, started }
    }

    /// Chooses the name of a server's log again: another lane, or another task of the run, may have taken it while this start waited. Among
    /// tasks a lock is held until the file is there.
    fn claim_log(&self, job: &mut Job) -> Option<Lock> {
        let names = {
            let inner = self.lock();
            let layout = inner.store.layout();
            layout.shards().is_dir().then(|| layout.names_lock())
        };
        // A launch takes a moment; a file system without locks gets none.
        let lock = names.and_then(|path| {
            let tries = std::iter::repeat_with(|| Lock::take(&path)).take(CLAIM_TRIES);
            tries.take_while(Result::is_ok).flatten().find_map(Result::ok)
        });
        job.places.server_log = self.lock().store.server_log(&job.experiment);
        lock
    }

    #[expect(clippy::expect_used, reason = "a poisoned lock means a panic elsewhere, which is a bug already reported")]
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("the recorder's lock")
    }
}

/// The jobs of one session.
#[derive(Debug)]
pub struct SessionJobs {
    /// Where names and times come from.
    recorder: RunRecorder,
    /// The newest attempt at each experiment, of this session and of earlier ones.
    attempts: Mutex<HashMap<String, u32>>,
}

impl SessionJobs {
    /// Jobs of a session that goes on from `state`.
    pub fn new(recorder: RunRecorder, state: &RunState) -> Self {
        let newest = |name: &String| (name.clone(), state.next_attempt(name).saturating_sub(1));
        Self { recorder, attempts: Mutex::new(state.attempts.keys().map(newest).collect()) }
    }

    /// Jobs of a task, whose experiments have had so many attempts.
    pub fn after(recorder: RunRecorder, attempts: HashMap<String, u32>) -> Self {
        Self { recorder, attempts: Mutex::new(attempts) }
    }

    fn attempt(&self, experiment: &Experiment) -> u32 {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.entry(experiment.name.clone()).or_default();
        *attempt = attempt.saturating_add(1);
        *attempt
    }
}

/// How often the lock of names is tried; each try of one that is held takes a tenth of a second.
const CLAIM_TRIES: usize = 100;

impl Jobs for SessionJobs {
    fn claim_log(&self, job: &mut Job) -> Option<Lock> {
        self.recorder.claim_log(job)
    }

    fn fresh(&self, experiment: &Arc<Experiment>, port: u16) -> Job {
        self.recorder.job(experiment, self.attempt(experiment), port, None)
    }

    fn on_server_of(&self, earlier: &Job, experiment: &Arc<Experiment>) -> Job {
        let log = earlier.places.server_log.clone();
        self.recorder.job(experiment, self.attempt(experiment), earlier.port, Some(log))
    }
}

impl Recorder for RunRecorder {
    fn event(&self, event: &Event) -> ControlFlow<()> {
        self.lock().event(event)
    }

    fn validate(&self, experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure> {
        judge(experiment, result)
    }

    fn keep(&self, job: &Job, attempted: &Attempted) -> ControlFlow<()> {
        // A failure is written once, when the end of its server is known.
        if !matches!(attempted.outcome, Outcome::Passed { .. }) {
            return ControlFlow::Continue(());
        }
        let mut inner = self.lock();
        match inner.store.keep(job, attempted) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => inner.fail(error.into()),
        }
    }

    fn finished(&self, job: &Job, attempted: &Attempted) -> ControlFlow<()> {
        let mut inner = self.lock();
        // The file first, then the event: a crash between the two costs a look at the file, never a result.
        if let Err(error) = inner.store.keep(job, attempted) {
            return inner.fail(error.into());
        }
        if let (Outcome::Passed { .. }, Some(result)) = (&attempted.outcome, &attempted.result) {
            for text in record::plausible::suspicious(result) {
                let text = format!("warning: `{}`: {text}", job.experiment.name);
                let _ = inner.event(&Event::Notice { text });
            }
        }
        inner.event(&Event::ExperimentFinished {
            index: job.experiment.index,
            name: job.experiment.name.clone(),
            attempt: job.attempt,
            outcome: attempted.outcome.clone(),
            timings: attempted.timings.clone(),
            metrics: metrics_of(attempted),
        })
    }
}

impl Inner {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        let broken = self.error.is_some();
        let place = if broken { Ok(()) } else { self.store.require_same_folder() };
        let published = self.bus.publish(event, !broken && place.is_ok());
        match place.and(published) {
            Ok(()) if broken => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => self.fail(error.into()),
        }
    }

    fn fail(&mut self, error: Error) -> ControlFlow<()> {
        self.error.get_or_insert(error);
        ControlFlow::Break(())
    }
}

/// Every plain number of a valid result.
fn metrics_of(attempted: &Attempted) -> std::collections::BTreeMap<String, f64> {
    let result = attempted.result.as_ref().filter(|_| matches!(attempted.outcome, Outcome::Passed { .. }));
    let numbers = result.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)));
    numbers.filter(|(_, value)| value.is_finite()).collect()
}

//! Keeps a run: events into the journal, outcomes into their files, all of it onto the screen.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::prepare::Ports;
use crate::bounded;
use crate::error::Error;
use crate::execute::{Attempted, Job, Jobs, Places, Recorder};
use crate::model::{Cause, Engine, Event, Experiment, Failure, Outcome, Phase};
use crate::record::layout::first_free;
use crate::record::{
    self, FailureRecord, Invalid, Journal, ResultMeta, ResultRecord, RunDir, RunState, SCHEMA, validate,
};
use crate::ui::Reporter;

/// The newest log line goes to the journal at most so often: it is there for `status`.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Keeps one session of a run. Clones share it.
#[derive(Debug, Clone)]
pub struct RunRecorder {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    run: RunDir,
    /// Device and inode of the run directory when the session began.
    folder: Option<(u64, u64)>,
    zone: Tz,
    reporter: Reporter,
    error: Option<Error>,
    progress_at: Option<Instant>,
}

impl RunRecorder {
    /// Opens the journal of a run for this session.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(run: &RunDir, zone: Tz, reporter: Reporter) -> Result<Self, Error> {
        let journal = Journal::open(&run.layout().journal(), zone)?;
        let folder = inode(run.path());
        let inner = Inner { journal, run: run.clone(), folder, zone, reporter, error: None, progress_at: None };
        Ok(Self { inner: Arc::new(Mutex::new(inner)) })
    }

    /// What kept the record from being kept, if anything did.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().error.take()
    }

    /// Prepares the next attempt at an experiment: fresh names, earlier files set aside, nothing overwritten. `server_log`
    /// is that of the server that is running already, if one is.
    pub fn job<'p>(&self, experiment: &'p Experiment, attempt: u32, port: u16, server_log: Option<PathBuf>) -> Job<'p> {
        let mut inner = self.lock();
        let free_place = inner.run.require_own_place(experiment);
        let layout = inner.run.layout().clone();
        let name = &experiment.name;
        let server = experiment.server_name();
        let earlier = attempt.saturating_sub(1).max(1);
        match free_place {
            Ok(()) => {
                set_aside(&layout.failure(name), |n| layout.old_failure(name, n), earlier);
                // A file under the results name that is no valid result of this experiment must not stay there.
                set_aside(&layout.result(name), |n| layout.old_result(name, n), earlier);
            }
            // The next event ends the run, before anything is started.
            Err(error) => inner.error = inner.error.take().or(Some(error.into())),
        }
        let _ = record::remove_whatever(&layout.unchecked(name));
        let free = |log: &dyn Fn(u32) -> PathBuf| log(first_free(log));
        Job {
            experiment,
            attempt,
            port,
            places: Places {
                server_log: server_log.unwrap_or_else(|| free(&|n| layout.server_log(server, n))),
                benchmark_log: free(&|n| layout.benchmark_log(name, n)),
                warmup_log: free(&|n| layout.warmup_log(name, n)),
                server_script: layout.server_script(server),
                benchmark_script: layout.benchmark_script(name),
                result: layout.unchecked(name),
                warmup_result: layout.warmup_result(name),
            },
            started: inner.now(),
        }
    }

    #[expect(clippy::expect_used, reason = "a poisoned lock means a panic elsewhere, which is a bug already reported")]
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("the recorder's lock")
    }
}

/// The jobs of one session.
#[derive(Debug)]
pub struct SessionJobs<'s> {
    /// Where names and times come from.
    pub recorder: RunRecorder,
    /// What earlier sessions came to.
    pub state: &'s RunState,
    /// The ports of servers.
    pub ports: &'s mut Ports,
    /// Attempts of this session, by experiment.
    pub attempts: HashMap<String, u32>,
}

impl SessionJobs<'_> {
    fn attempt(&mut self, experiment: &Experiment) -> u32 {
        let before = self.state.next_attempt(&experiment.name).saturating_sub(1);
        let attempt = self.attempts.entry(experiment.name.clone()).or_insert(before);
        *attempt += 1;
        *attempt
    }
}

impl<'p> Jobs<'p> for SessionJobs<'_> {
    fn fresh(&mut self, experiment: &'p Experiment) -> Job<'p> {
        let attempt = self.attempt(experiment);
        self.recorder.job(experiment, attempt, self.ports.next(), None)
    }

    fn on_server_of(&mut self, earlier: &Job<'p>, experiment: &'p Experiment) -> Job<'p> {
        let attempt = self.attempt(experiment);
        self.recorder.job(experiment, attempt, earlier.port, Some(earlier.places.server_log.clone()))
    }

    fn chooses_ports(&self) -> bool {
        self.ports.is_auto()
    }
}

/// Device and inode of what has this name; `None` where it cannot be looked at.
fn inode(path: &Path) -> Option<(u64, u64)> {
    let meta = path.symlink_metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Renames a file out of the way, to the first number from `from` on that is free.
fn set_aside(path: &Path, name: impl Fn(u32) -> PathBuf, from: u32) {
    if path.symlink_metadata().is_err() {
        return;
    }
    if let Some(target) =
        (from..from.saturating_add(10_000)).map(name).find(|target| target.symlink_metadata().is_err())
    {
        let _ = std::fs::rename(path, target);
    }
}

impl Recorder for RunRecorder {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        self.lock().event(event)
    }

    fn validate(&self, experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure> {
        validate(result, experiment.workload.num_prompts()).map_err(|invalid| {
            let cause = match invalid {
                Invalid::NoneCompleted { .. } | Invalid::SomeFailed { .. } => Cause::RequestsFailed,
                Invalid::Missing
                | Invalid::Unparsable(_)
                | Invalid::NoKey(_)
                | Invalid::Count { .. }
                | Invalid::Impossible(_) => Cause::ResultInvalid,
            };
            Failure::plain(cause, Phase::Measuring, invalid.to_string())
        })
    }

    fn keep(&mut self, job: &Job<'_>, attempted: &Attempted) -> ControlFlow<()> {
        // A failure is written once, when the end of its server is known.
        if !matches!(attempted.outcome, Outcome::Passed { .. }) {
            return ControlFlow::Continue(());
        }
        let mut inner = self.lock();
        match inner.keep(job, attempted) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => inner.fail(error.into()),
        }
    }

    fn finished(&mut self, job: &Job<'_>, attempted: &Attempted) -> ControlFlow<()> {
        let mut inner = self.lock();
        // The file first, then the event: a crash between the two costs a look at the file, never a result.
        if let Err(error) = inner.keep(job, attempted) {
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
        })
    }
}

impl Inner {
    fn now(&self) -> String {
        Utc::now().with_timezone(&self.zone).to_rfc3339_opts(SecondsFormat::Millis, false)
    }

    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        self.reporter.event(event);
        if self.error.is_some() {
            return ControlFlow::Break(());
        }
        if matches!(event, Event::Progress { .. }) {
            if self.progress_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
                return ControlFlow::Continue(());
            }
            self.progress_at = Some(Instant::now());
        }
        let appended = self.require_same_folder().and_then(|()| self.journal.append(event));
        match appended {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => self.fail(error.into()),
        }
    }

    fn fail(&mut self, error: Error) -> ControlFlow<()> {
        self.error.get_or_insert(error);
        ControlFlow::Break(())
    }

    /// The run directory is still the one in which the session began: what was put in its place is not written to.
    fn require_same_folder(&self) -> Result<(), record::Error> {
        self.run.require_own()?;
        let path = self.run.path();
        if inode(path) == self.folder {
            return Ok(());
        }
        Err(record::Error::Swapped { path: path.to_owned(), found: "another directory than when the run began".into() })
    }

    fn keep(&self, job: &Job<'_>, attempted: &Attempted) -> Result<(), record::Error> {
        self.require_same_folder()?;
        let layout = self.run.layout();
        match &attempted.outcome {
            Outcome::Passed { .. } => {
                self.run.require_own_place(job.experiment)?;
                self.keep_result(job, attempted, &layout.result(&job.experiment.name))?;
            }
            Outcome::Failed(failure) => {
                let record = self.failure(job, attempted, failure);
                record::atomic::keep_json(&layout.failure(&job.experiment.name), &record)?;
            }
            Outcome::Interrupted => {}
        }
        let _ = std::fs::remove_file(&job.places.result);
        Ok(())
    }

    /// Writes a result. One with very many requests is copied as the client wrote it, once: its end is not known yet then, and the
    /// journal has it.
    fn keep_result(&self, job: &Job<'_>, attempted: &Attempted, path: &Path) -> Result<(), record::Error> {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        if size(&job.places.result) > bounded::LARGE {
            return self.result(job, attempted).write_behind(&job.places.result, path);
        }
        if size(path) > bounded::LARGE && !job.places.result.exists() {
            return Ok(());
        }
        self.result(job, attempted).write(path)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.run.path()).unwrap_or(path).to_owned()
    }

    fn result(&self, job: &Job<'_>, attempted: &Attempted) -> ResultRecord {
        let experiment = job.experiment;
        ResultRecord {
            vllm: attempted.result.clone().unwrap_or_default(),
            vllm_bench: Some(ResultMeta {
                schema: SCHEMA,
                simulated: experiment.engine == Engine::Sim,
                name: experiment.name.clone(),
                identity: experiment.identity.clone(),
                attempt: job.attempt,
                axes: experiment.axes.clone(),
                engine: experiment.engine,
                client: experiment.workload.client,
                vllm_version: attempted.vllm_version.clone(),
                serve: experiment.server.flags.clone(),
                env: experiment.server.env.clone(),
                bench: experiment.workload.flags.clone(),
                serve_command: attempted.serve_command.clone(),
                bench_command: attempted.bench_command.clone(),
                started: job.started.clone(),
                timings: attempted.timings.clone(),
                teardown: attempted.teardown.clone(),
                repeat: experiment.repeat,
                on_start: attempted.on_start,
                isolation: attempted.isolation,
                prefix_cache: attempted.prefix_cache,
                preemptions: attempted.preemptions,
                groups: experiment.groups.clone(),
                baseline: experiment.baseline,
                server_log: Some(self.relative(&job.places.server_log)),
            }),
        }
    }

    fn failure(&self, job: &Job<'_>, attempted: &Attempted, failure: &Failure) -> FailureRecord {
        let experiment = job.experiment;
        FailureRecord {
            schema: SCHEMA,
            simulated: experiment.engine == Engine::Sim,
            name: experiment.name.clone(),
            identity: experiment.identity.clone(),
            attempt: job.attempt,
            axes: experiment.axes.clone(),
            failure: failure.clone(),
            started: job.started.clone(),
            timings: attempted.timings.clone(),
            teardown: attempted.teardown.clone(),
            server_log: self.relative(&job.places.server_log),
            benchmark_log: attempted.benchmarked.then(|| self.relative(&job.places.benchmark_log)),
            invalid_result: attempted.result.clone().map(Value::Object),
        }
    }
}

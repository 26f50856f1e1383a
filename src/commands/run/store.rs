//! The files of one session: results and failures under their names, earlier ones set aside, nothing overwritten.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::bounded;
use crate::execute::{Attempted, Job, Places};
use crate::model::{Cause, Engine, Experiment, Failure, Outcome, Phase};
use crate::record::layout::first_free;
use crate::record::{self, FailureRecord, Invalid, ResultMeta, ResultRecord, RunDir, SCHEMA, validate};

/// Where a session puts its files.
#[derive(Debug)]
pub struct Store {
    run: RunDir,
    /// Device and inode of the run directory when the session began.
    folder: Option<(u64, u64)>,
}

impl Store {
    /// For a run, in the directory that has its name now.
    pub fn new(run: &RunDir) -> Self {
        Self { run: run.clone(), folder: inode(run.path()) }
    }

    /// Makes room for the next attempt at an experiment: earlier files are set aside.
    ///
    /// # Errors
    /// When the valid result of another experiment lies there.
    pub fn make_room(&self, experiment: &Experiment, attempt: u32) -> Result<(), record::Error> {
        self.run.require_own_place(experiment)?;
        let (layout, name, earlier) = (self.run.layout(), &experiment.name, attempt.saturating_sub(1).max(1));
        set_aside(&layout.failure(name), |n| layout.old_failure(name, n), earlier);
        // A file under the results name that is no valid result of this experiment must not stay there.
        set_aside(&layout.result(name), |n| layout.old_result(name, n), earlier);
        Ok(())
    }

    /// The names of the run.
    pub fn layout(&self) -> &record::layout::Layout {
        self.run.layout()
    }

    /// A fresh name for the log of a server.
    pub fn server_log(&self, experiment: &Experiment) -> PathBuf {
        let layout = self.run.layout();
        let log = |n| layout.server_log(experiment.server_name(), n);
        log(first_free(log))
    }

    /// Fresh names for an attempt. `server_log` is that of the server that is running already, if one is.
    pub fn places(&self, experiment: &Experiment, server_log: Option<PathBuf>) -> Places {
        let (layout, name, server) = (self.run.layout(), &experiment.name, experiment.server_name());
        let _ = record::remove_whatever(&layout.unchecked(name));
        let free = |log: &dyn Fn(u32) -> PathBuf| log(first_free(log));
        Places {
            server_log: server_log.unwrap_or_else(|| free(&|n| layout.server_log(server, n))),
            benchmark_log: free(&|n| layout.benchmark_log(name, n)),
            warmup_log: free(&|n| layout.warmup_log(name, n)),
            server_script: layout.server_script(server),
            benchmark_script: layout.benchmark_script(name),
            result: layout.unchecked(name),
            warmup_result: layout.warmup_result(name),
            telemetry: free(&|n| layout.telemetry(name, n)),
            evidence: free(&|n| layout.evidence(name, n)),
        }
    }

    /// The run directory is still the one in which the session began: what was put in its place is not written to.
    ///
    /// # Errors
    /// When it is not.
    pub fn require_same_folder(&self) -> Result<(), record::Error> {
        self.run.require_own()?;
        let path = self.run.path();
        if inode(path) == self.folder {
            return Ok(());
        }
        Err(record::Error::Swapped { path: path.to_owned(), found: "another directory than when the run began".into() })
    }

    /// Keeps the result or the failure of an attempt.
    ///
    /// # Errors
    /// When it cannot be written, or the directory is another.
    pub fn keep(&self, job: &Job, attempted: &Attempted) -> Result<(), record::Error> {
        self.require_same_folder()?;
        let layout = self.run.layout();
        match &attempted.outcome {
            Outcome::Passed { .. } => {
                self.run.require_own_place(&job.experiment)?;
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
    fn keep_result(&self, job: &Job, attempted: &Attempted, path: &Path) -> Result<(), record::Error> {
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

    fn result(&self, job: &Job, attempted: &Attempted) -> ResultRecord {
        let experiment = &job.experiment;
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
                shared_with: attempted.shared_with.clone(),
                telemetry: attempted.telemetry.clone(),
                groups: experiment.groups.clone(),
                baseline: experiment.baseline,
                server_log: Some(self.relative(&job.places.server_log)),
                server_log_span: attempted.server_log_span,
                placement: job.binding.placement.clone(),
                neighbours: attempted.neighbours,
            }),
        }
    }

    fn failure(&self, job: &Job, attempted: &Attempted, failure: &Failure) -> FailureRecord {
        let experiment = &job.experiment;
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

/// Whether a client's result counts.
///
/// # Errors
/// The failure that it is.
pub fn judge(experiment: &Experiment, result: &Map<String, Value>) -> Result<(), Failure> {
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

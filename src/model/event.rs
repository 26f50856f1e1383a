//! What happens in a run. One type feeds the terminal, the journal, `status` and later the dashboard.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ProcessId;
use super::{Axes, Cause, Outcome, Phase, Placement, TeardownProof, Timings};

/// An event with its place in the stream of a run, as the journal and every subscriber get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Format version.
    pub v: u32,
    /// Its number in the run, from 1, over all sessions. What the journal leaves out (most [`Event::Progress`]) leaves gaps; 0 in
    /// journals of before there were numbers.
    #[serde(default)]
    pub seq: u64,
    /// When, in the run's time zone (RFC 3339 with offset).
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A run begins, or goes on after an interruption.
    RunStarted {
        /// The orchestrator.
        process: ProcessId,
        /// True where the simulated vLLM plays the server: no metric of this run was measured on a real one.
        #[serde(default)]
        simulated: bool,
        /// Whether the run directory existed before.
        resumed: bool,
        /// Experiments in the plan.
        planned: usize,
        /// Experiments that have no valid result yet.
        pending: usize,
    },
    /// Something the user should know that belongs to no experiment.
    Notice {
        /// One sentence.
        text: String,
    },
    /// Other vLLM processes of this user were ended before the start (rule 14).
    ForeignEnded {
        /// What was ended.
        processes: Vec<ForeignProcess>,
    },
    /// The strategy asks for these experiments of the plan. Without such an event all of the plan is asked for.
    ExperimentsPlanned {
        /// Their names, in running order.
        names: Vec<String>,
        /// Why these, in words.
        why: String,
    },
    /// What neighbours cost is about to be measured (`--parallel auto`).
    NeighboursBeingChecked {
        /// The experiment that stands for all.
        name: String,
        /// So many servers run at once.
        lanes: u32,
    },
    /// What neighbours cost was measured, and so whether several server configurations run at once.
    NeighboursChecked {
        /// The experiment that stood for all; empty where none could.
        name: String,
        /// So many servers ran at once.
        lanes: u32,
        /// Key of the metric.
        metric: String,
        /// Its values, alone and beside busy neighbours.
        pairs: Vec<(f64, f64)>,
        /// By what part it is worse beside them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<f64>,
        /// Where that is, as far as the pairs tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interval: Option<(f64, f64)>,
        /// What it may be.
        threshold: f64,
        /// Whether it is shown to be no more: several run at once.
        within: bool,
        /// Keys of the metrics of which that is shown: of the objective, and of limits.
        #[serde(default)]
        metrics: Vec<String>,
        /// The same in a sentence.
        why: String,
    },
    /// An experiment has a valid result from before.
    ExperimentReused {
        /// Its name.
        name: String,
    },
    /// An attempt begins.
    ExperimentStarted {
        /// Position in the plan, from 1.
        index: usize,
        /// Its name.
        name: String,
        /// From 1, over all resumes.
        attempt: u32,
        /// What is measured; absent in journals of before this was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        axes: Option<Box<Axes>>,
        /// Where it runs, in a run with lanes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        placement: Option<Box<Placement>>,
    },
    /// The server's process group exists.
    ServerLaunched {
        /// Name of the experiment.
        name: String,
        /// Leader of the group.
        process: ProcessId,
        /// The port it was told to listen on.
        port: u16,
        /// Its log, relative to the run directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<PathBuf>,
    },
    /// The experiment is measured on a server that another one has used before.
    ServerReused {
        /// Name of the experiment.
        name: String,
        /// Leader of the group.
        process: ProcessId,
        /// The port on which it listens.
        port: u16,
    },
    /// The experiment moved on.
    PhaseChanged {
        /// Its name.
        name: String,
        /// Where it is now.
        now: Phase,
    },
    /// A line worth showing while one waits: of the server's log while it starts, and how far the client is while it measures.
    Progress {
        /// Name of the experiment.
        name: String,
        /// The cleaned line.
        line: String,
    },
    /// The server answers, serves the model, and the socket is its own.
    ServerReady {
        /// Name of the experiment.
        name: String,
        /// From launch to ready, seconds.
        seconds: f64,
    },
    /// The benchmark client's process group exists.
    BenchmarkLaunched {
        /// Name of the experiment.
        name: String,
        /// Leader of the group.
        process: ProcessId,
        /// Its log, relative to the run directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<PathBuf>,
    },
    /// A process group was ended.
    TornDown {
        /// Name of the experiment.
        name: String,
        /// What was seen afterwards.
        proof: TeardownProof,
    },
    /// The outcome of an attempt; written after its result or failure file.
    ExperimentFinished {
        /// Position in the plan, from 1.
        index: usize,
        /// Its name.
        name: String,
        /// From 1, over all resumes.
        attempt: u32,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// Where the time went.
        timings: Timings,
        /// Every plain number of a valid result, by its key.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        metrics: BTreeMap<String, f64>,
    },
    /// The user asked for an end (a signal, or `vllm-bench stop`).
    StopRequested {
        /// How it was asked: `SIGINT`, `SIGTERM`, `SIGHUP`, `stop`.
        by: String,
    },
    /// An array job is about to be submitted; written before, so that a front that dies now is not followed by a second submission.
    JobSubmitting {
        /// Its number within the run, from 1.
        submission: u32,
        /// How many tasks it has.
        tasks: u32,
    },
    /// Slurm has taken an array job.
    JobSubmitted {
        /// Its number within the run.
        submission: u32,
        /// Slurm's number of it.
        job: String,
        /// How many tasks it has.
        tasks: u32,
    },
    /// Slurm has not taken an array job.
    JobRefused {
        /// Its number within the run.
        submission: u32,
        /// In Slurm's words.
        why: String,
    },
    /// A task of an array job has begun; the first line of its own journal.
    TaskStarted {
        /// The number of the job within the run.
        submission: u32,
        /// Its index in the array.
        task: u32,
        /// Slurm's number of the array job.
        job: String,
        /// How often Slurm has started it again.
        restart: u32,
        /// The node.
        host: String,
        /// The process, on that node.
        process: ProcessId,
        /// The experiments that it measures.
        names: Vec<String>,
    },
    /// A task has ended in order; the last line of its own journal.
    TaskEnded {
        /// The number of the job within the run.
        submission: u32,
        /// Its index in the array.
        task: u32,
        /// Why before all was measured; absent where all was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Cause>,
    },
    /// A task is over without having said so, or was never begun.
    TaskLost {
        /// The number of the job within the run.
        submission: u32,
        /// Its index in the array.
        task: u32,
        /// Why.
        cause: Cause,
        /// Who says so, in words.
        said: String,
    },
    /// The front has left; what is queued and running goes on.
    FrontLeft {
        /// How it was asked: `--detach`, `SIGINT`.
        by: String,
    },
    /// The run is over.
    RunFinished {
        /// Experiments with a valid result.
        passed: usize,
        /// Experiments without one.
        failed: usize,
        /// Combinations left out by a rule.
        skipped: usize,
        /// Whether it was ended before all experiments had run.
        interrupted: bool,
        /// This session's seconds.
        seconds: f64,
    },
}

/// A vLLM process that vllm-bench did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignProcess {
    /// Process id.
    pub pid: i32,
    /// Its command line, cut to a line.
    pub command: String,
}

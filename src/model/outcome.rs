//! How an experiment ended. A failed experiment is data: it is serialised, counted and shown, and the sweep goes on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cause, Ending, Hang, StartPhase};

/// How one attempt at an experiment ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// A valid result was recorded.
    Passed {
        /// Its most asked-for metrics.
        headline: Headline,
    },
    /// No valid result; why.
    Failed(Failure),
    /// The run was ended before the experiment was.
    Interrupted,
}

/// The metrics of a result that one line can show; the result file has all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// Requests per second.
    pub request_throughput: Option<f64>,
    /// Output tokens per second.
    pub output_throughput: Option<f64>,
    /// Mean time to first token, milliseconds.
    pub mean_ttft_ms: Option<f64>,
    /// Mean time per output token after the first, milliseconds.
    pub mean_tpot_ms: Option<f64>,
}

impl Headline {
    /// Reads the metrics off a result of `vllm bench serve`.
    pub fn of(result: &serde_json::Map<String, serde_json::Value>) -> Self {
        let metric = |key: &str| result.get(key).and_then(serde_json::Value::as_f64);
        Self {
            request_throughput: metric("request_throughput"),
            output_throughput: metric("output_throughput"),
            mean_ttft_ms: metric("mean_ttft_ms"),
            mean_tpot_ms: metric("mean_tpot_ms"),
        }
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its number, counted from 1 as an editor counts.
    pub line: u64,
    /// Its text, cleaned and cut to [`crate::diagnose::MAX_EVIDENCE_CHARS`]; tokens of the hub are blanked.
    pub text: String,
}

/// Why an attempt yielded no valid result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The cause, from a closed set.
    pub cause: Cause,
    /// One line for a human.
    pub summary: String,
    /// Where in its life the experiment was.
    pub phase: Phase,
    /// The log lines that show the cause, with their line numbers.
    pub evidence: Vec<Evidence>,
    /// What to do, one sentence each.
    pub advice: Vec<String>,
    /// Other causes that the same log shows; for a server that died, its own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Cause>,
    /// How the process that failed ended; `None` where none ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The last 50 lines of the log that shows it.
    pub log_tail: Vec<String>,
    /// Who stood still, where nothing moved any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang: Option<Hang>,
    /// The folder with what was kept before anything was ended, relative to the run directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
}

/// The life of one experiment, as shown and recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase", content = "start-phase")]
pub enum Phase {
    /// Leftovers are ended, the port is checked, the script is written.
    Launching,
    /// The server starts; how far it has come.
    Starting(StartPhase),
    /// The server answers and serves the right model.
    Ready,
    /// The benchmark client runs (its import, warm-up and measurement).
    Measuring,
    /// The server is being ended and the end is proven.
    Draining,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Phase::Launching => f.write_str("launching"),
            Phase::Starting(start) => write!(f, "starting ({start})"),
            Phase::Ready => f.write_str("ready"),
            Phase::Measuring => f.write_str("measuring"),
            Phase::Draining => f.write_str("draining"),
        }
    }
}

/// What holds the members of a group together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// A cgroup of its own: nothing leaves it.
    Cgroup,
    /// Descent from the guard, and from the orchestrator once the guard is dead.
    #[default]
    Descent,
}

/// What was seen after a process group was ended. Each field is an observation, not an intention.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TeardownProof {
    /// No process of the group is left (zombies apart); `None` where that is not proven: none was found, and one may have
    /// been lost from sight.
    pub group_empty: Option<bool>,
    /// What held the group's processes together; `None` in records of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// No process of the group has the port any more; `None` where that could not be told.
    pub port_closed: Option<bool>,
    /// Who else has the port, or had it when it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_held_by: Option<String>,
    /// Device memory is back at its level before the start; `None` where it cannot be read.
    pub device_memory_back: Option<bool>,
    /// SIGKILL was needed after the grace period.
    pub killed: bool,
    /// Processes that had left the group and were ended one by one.
    pub strays_ended: usize,
    /// Seconds from the first signal to the proof.
    pub seconds: f64,
}

impl TeardownProof {
    /// Whether the machine is as it was before.
    pub fn complete(&self) -> bool {
        self.group_empty == Some(true) && self.port_closed != Some(false) && self.device_memory_back != Some(false)
    }
}

/// What the server's counters say of its prefix cache over a measurement, its client's own warm-up included. Whether the
/// measurement was cold is read off it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrefixCache {
    /// Prompt tokens that were looked up.
    pub queries: f64,
    /// Those that were found, in device memory or in a tier behind it.
    pub hits: f64,
}

/// Seconds spent in one phase of a server's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartStep {
    /// Which phase.
    pub phase: StartPhase,
    /// Seconds in it.
    pub seconds: f64,
}

/// Where the time of one experiment went, in seconds of a monotonic clock. Absent = that part was not reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// From launch to ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<f64>,
    /// Startup by phase, as read off the server's log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub startup_phases: Vec<StartStep>,
    /// The benchmark client, from launch to exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<f64>,
    /// From the first signal to the proof that nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<f64>,
    /// All of it, from the experiment's start to its recorded outcome.
    pub total: f64,
}

impl Timings {
    /// What vllm-bench itself spent: the whole less server start, client and teardown.
    pub fn own(&self) -> f64 {
        let known = [self.startup, self.benchmark, self.teardown].into_iter().flatten().sum::<f64>();
        (self.total - known).max(0.0)
    }
}

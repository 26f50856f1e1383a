//! Where the numbers come from: the commands implement this, with what `status`, `list` and `recommend` say.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::model::{Cause, Stamped};

/// The runs that are shown. Everything here may read files, and is called on a thread that may wait.
pub trait Source: Send + Sync {
    /// What `list --json` says, without the answers.
    ///
    /// # Errors
    /// In words.
    fn runs(&self) -> Result<Value, String>;
    /// The path of the run that is shown where nobody chooses: the one named, else the live one, else the newest.
    fn current(&self) -> Option<String>;
    /// Opens a run by its path; `None` where it is none of those that are shown.
    fn open(&self, path: &str) -> Option<Box<dyn Run>>;
    /// What `recommend --format json` says of a run that [`Source::open`] knows.
    ///
    /// # Errors
    /// In words.
    fn answer(&self, path: &str) -> Result<Answer, String>;
    /// What `report` writes of it.
    ///
    /// # Errors
    /// In words.
    fn report(&self, path: &str) -> Result<String, String>;
    /// What `plot KIND` draws of it, as SVG.
    ///
    /// # Errors
    /// In words.
    fn plot(&self, path: &str, kind: &str) -> Result<String, String>;
    /// Asks a live run to end, as `stop` does.
    ///
    /// # Errors
    /// In words.
    fn stop(&self, path: &str, mode: StopMode) -> Result<String, String>;
}

/// How a run is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// After the experiment under way.
    AfterCurrent,
    /// In order, now.
    InOrder,
    /// Killed.
    Now,
}

impl StopMode {
    /// As requests name it.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "after-current" => Some(Self::AfterCurrent),
            "in-order" => Some(Self::InOrder),
            "now" => Some(Self::Now),
            _ => None,
        }
    }
}

/// One run.
pub trait Run: Send {
    /// Takes in what is new, and says how the run stands.
    ///
    /// # Errors
    /// In words.
    fn look(&mut self) -> Result<Look, String>;
    /// What the journal has so far.
    fn entries(&self) -> &[Stamped];
    /// Whether entries of several journals are read as one: their order is another one when they are read again.
    fn is_merged(&self) -> bool;
    /// The newest log of an experiment (its server's, or its client's) and its last lines.
    ///
    /// # Errors
    /// In words.
    fn log(&self, experiment: &str, server: bool) -> Result<(String, Vec<String>), String>;
}

/// How a run stands at a moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// What `status --json` says.
    pub status: Value,
    /// The same as numbers.
    pub facts: Facts,
    /// All experiments, in the order of the plan.
    pub rows: Vec<Row>,
    /// What is seen of the experiments that are being measured.
    pub seen: Vec<Seen>,
}

/// What is seen of an experiment while it is measured; what is not told is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its lane, from 1.
    pub lane: u32,
    /// Requests that are over.
    pub requests_done: Option<u64>,
    /// Requests of the workload.
    pub requests: Option<u64>,
    /// Requests that the server works on.
    pub running: Option<f64>,
    /// Requests that wait in it.
    pub waiting: Option<f64>,
    /// How much of its KV cache is in use, percent.
    pub kv_cache_pct: Option<f64>,
    /// Its devices.
    pub devices: Vec<SeenDevice>,
}

/// A device at a moment; what it does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SeenDevice {
    /// Its address.
    pub device: String,
    /// Watts.
    pub power_w: Option<f64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Percent.
    pub utilization_pct: Option<f64>,
    /// GiB in use.
    pub memory_gib: Option<f64>,
    /// MHz.
    pub clock_mhz: Option<f64>,
    /// Why it is slower than it could be, in the driver's words; empty where it is not, or does not say.
    pub throttled: String,
}

/// How many experiments stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the plan.
    pub planned: usize,
    /// With a valid result.
    pub passed: usize,
    /// Without one, and not to be tried again now.
    pub failed: usize,
    /// Under way.
    pub running: usize,
    /// Still to come.
    pub to_do: usize,
    /// Left out by a rule.
    pub skipped: usize,
}

/// One experiment under way.
#[derive(Debug, Clone, PartialEq)]
pub struct UnderWay {
    /// Its lane, from 1.
    pub lane: u32,
    /// `launching`, `starting`, …
    pub phase: &'static str,
    /// Seconds in that phase.
    pub seconds: Option<f64>,
}

/// What is told to Prometheus of a run as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The name of its directory.
    pub run: String,
    /// The name that its user gave it.
    pub name: Option<String>,
    /// Whether nothing of it was measured on a real server.
    pub simulated: bool,
    /// Whether somebody works on it.
    pub live: bool,
    /// Experiments.
    pub counts: Counts,
    /// Seconds still to go.
    pub remaining: Option<f64>,
    /// Seconds of this session.
    pub elapsed: Option<f64>,
    /// What is under way.
    pub under_way: Vec<UnderWay>,
}

/// How an experiment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has a valid result.
    Passed,
    /// It has none, and is not tried again now.
    Failed,
    /// It is under way.
    Running,
    /// It is still to come.
    ToDo,
}

/// One experiment in the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Position in the plan, from 1.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its settings in words; its name where they are not known.
    pub configuration: String,
    /// How it stands.
    pub state: State,
    /// How often it was tried.
    pub attempts: u32,
    /// Its lane, while it runs on one.
    pub lane: Option<u32>,
    /// How long the last attempt took.
    pub seconds: Option<f64>,
    /// The metrics of its result that the table has.
    pub metrics: Option<Numbers>,
    /// Why it has none.
    pub failure: Option<FailureRow>,
}

/// The metrics of the table, by vLLM's keys.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Numbers {
    /// Output tokens per second.
    pub output_throughput: Option<f64>,
    /// Requests per second.
    pub request_throughput: Option<f64>,
    /// Milliseconds.
    pub mean_ttft_ms: Option<f64>,
    /// Milliseconds.
    pub mean_tpot_ms: Option<f64>,
}

/// Why an experiment has no result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailureRow {
    /// The cause.
    pub cause: Cause,
    /// One line.
    pub summary: String,
    /// Where in its life it was.
    pub phase: String,
    /// The log lines that show it, with their numbers.
    pub evidence: Vec<(u64, String)>,
    /// What to do.
    pub advice: Vec<String>,
    /// The folder of what was kept before it was ended, relative to the run directory.
    pub kept: Option<String>,
}

/// What the results say so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What `recommend --format json` says; `null` while nothing is valid.
    pub recommend: Value,
    /// What devices and host did, by the experiment's name: keys of metrics with their values.
    pub readings: BTreeMap<String, Vec<(&'static str, f64)>>,
    /// In a run with two sides (`run --against`): what the comparison of the two says.
    pub change: Option<Change>,
}

/// What a comparison says, for Prometheus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// The run before, or `before`.
    pub before: String,
    /// Whether anything became worse, beyond the threshold and noise: what `compare` ends with exit code 1 for.
    pub worse: bool,
    /// How many configurations came to what, by metric: its key, `better`, `worse`, `same` or `not-decided`, and how many.
    pub outcomes: Vec<(String, &'static str, usize)>,
    /// Configurations that fail now and did not before.
    pub failing: usize,
    /// Configurations of which more requests fail now.
    pub lost_requests: usize,
}

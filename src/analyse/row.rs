//! A row: one experiment with its settings, its metrics, and what came of it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;

use super::axes::{Fixed, ShownAxes};
use super::metric_values::Place;
use super::verdict::Warning;
use super::{Load, MetricValues, VllmMetrics};
use crate::model::{Cause, Client, Engine, Evidence, Identity, Phase, Repeat, Side, Timings};

/// How the value of an axis that leaves a flag out is shown.
const LEFT_OUT: &str = "default";

/// One experiment, or one combination that a rule left out, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the experiment.
    pub name: String,
    /// The grid values as shown.
    pub axes: ShownAxes,
    /// What came of it.
    pub status: Status,
    /// Its metrics; for a row that is not valid at most the counts of requests.
    pub metrics: VllmMetrics,
    /// True where the simulated vLLM yielded it.
    pub simulated: bool,
    /// What defines it; `None` where the file does not say.
    pub identity: Option<Identity>,
    /// Which attempt this is, from 1.
    pub attempt: Option<u32>,
    /// Where its time went.
    pub timings: Option<Timings>,
    /// The load under which it was measured.
    pub load: Arc<Load>,
    /// Which measurement of the same settings; `None` where there are no repeats to tell apart.
    pub repeat: Option<Repeat>,
    /// The named groups that ask for it.
    pub groups: Vec<String>,
    /// Whether others are compared with it.
    pub baseline: bool,
    /// On which side of a comparison within its run it is.
    pub side: Option<Side>,
    /// It was measured again, alone, after it was measured beside others.
    pub alone: bool,
    /// It was measured beside others, and once more alone: that counts in its place.
    pub replaced: bool,
    /// What its server's script and logs are called; empty where nobody said.
    pub server_name: String,
    /// The result file, relative to the run directory; `None` where there is none that can be read.
    pub source: Option<PathBuf>,
    /// What else is known.
    pub about: About,
}

/// What is known of a row beside its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// Name of the run that measured it.
    pub run: Arc<str>,
    /// The directory of that run (or of the file), as found on this machine; never shown.
    pub directory: Arc<Path>,
    /// Flags of `vllm serve` as set, without the dashes; a switch is `true`.
    pub flags: Arc<IndexMap<String, String>>,
    /// What makes its metrics suspect.
    pub warnings: Vec<Warning>,
    /// Devices that the server takes (tensor x pipeline x data parallel size); `None` = not known.
    pub devices: Option<u32>,
    /// Flags of the server that are set.
    pub overrides: usize,
    /// What is compared across runs: the settings, whatever vLLM and device measured them.
    pub settings: Option<Identity>,
    /// The server's command line as run.
    pub serve_command: Vec<String>,
    /// The variables that the plan sets for it, without secrets.
    pub serve_environment: std::collections::BTreeMap<String, String>,
    /// The members of its result as they stand in the file, for a report that copies them; `None` = the file is read again.
    pub members: Option<Box<[u8]>>,
    /// Which of several results in its file, from 0; `None` where the file is one result.
    pub part: Option<usize>,
    /// The client's command line as run.
    pub bench_command: Vec<String>,
    /// What sends the requests; `None` where nobody recorded it.
    pub client: Option<Client>,
    /// The server backend; `None` where nobody recorded it.
    pub engine: Option<Engine>,
    /// Further metrics of the result file under vLLM's keys (`p95_ttft_ms`), and those that are derived.
    pub further: MetricValues,
    /// What the device is called; `None` where it is not known, or several are not alike.
    pub device: Option<Arc<str>>,
    /// The currency of the metrics that are money.
    pub currency: Option<Arc<str>>,
    /// The vLLM that yielded it.
    pub vllm_version: Option<Arc<str>>,
    /// The server's log, relative to the run directory.
    pub server_log: Option<PathBuf>,
    /// The series of samples of devices, host and server, relative to the run directory.
    pub samples: Option<PathBuf>,
    /// Which bytes of it are of this measurement, from and up to, where that was recorded.
    pub server_log_span: Option<[u64; 2]>,
    /// Whether the user says what others are compared with (`--baseline`): then no rule looks for another.
    pub baseline_asked: bool,
    /// Other server configurations of its run that were under way while it was measured, the most at a time; `None` where nobody
    /// recorded it.
    pub neighbours: Option<u32>,
    /// What all planned rows of its table have in common: its label leaves that out.
    pub fixed: Arc<Fixed>,
}

impl Default for About {
    fn default() -> Self {
        // Shared: a table may have a hundred thousand rows.
        static NO_NAME: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        static NO_PATH: LazyLock<Arc<Path>> = LazyLock::new(|| Path::new("").into());
        static NO_FLAGS: LazyLock<Arc<IndexMap<String, String>>> = LazyLock::new(Arc::default);
        static NOT_LOOKED: LazyLock<Arc<Fixed>> = LazyLock::new(Arc::default);
        Self {
            run: Arc::clone(&NO_NAME),
            directory: Arc::clone(&NO_PATH),
            flags: Arc::clone(&NO_FLAGS),
            warnings: Vec::new(),
            devices: None,
            overrides: 0,
            settings: None,
            serve_command: Vec::new(),
            serve_environment: std::collections::BTreeMap::new(),
            members: None,
            part: None,
            bench_command: Vec::new(),
            client: None,
            engine: None,
            further: MetricValues::default(),
            device: None,
            currency: None,
            vllm_version: None,
            server_log: None,
            samples: None,
            server_log_span: None,
            baseline_asked: false,
            neighbours: None,
            fixed: Arc::clone(&NOT_LOOKED),
        }
    }
}

/// What came of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// A result that counts.
    Valid,
    /// There is something under the result's name, or should be, and it does not count; why.
    Invalid(String),
    /// The experiment failed.
    Failed(Box<FailedAttempt>),
    /// A rule left it out.
    Skipped {
        /// Which.
        rule: String,
        /// What stands behind the rule, where it says so.
        explanation: Option<String>,
        /// Its warning for this combination.
        reason: String,
    },
    /// The run was ended before the experiment was.
    Interrupted,
    /// It is under way.
    Running,
    /// It was never begun.
    NotRun,
}

/// Why an experiment has no valid result, without the parts that only its failure file shows.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedAttempt {
    /// The cause; `None` where nobody diagnosed one (the Python predecessor kept none).
    pub cause: Option<Cause>,
    /// One line for a human.
    pub summary: String,
    /// Where in its life it was; `None` where nobody recorded it.
    pub phase: Option<Phase>,
    /// The log lines that show the cause, the best first.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: Vec<String>,
    /// The log that shows it, relative to the run directory.
    pub log: Option<PathBuf>,
    /// The folder of what was kept before it was ended, relative to the run directory.
    pub kept: Option<PathBuf>,
}

impl FailedAttempt {
    /// A failure of which only a sentence is known.
    pub fn of(summary: String) -> Self {
        Self { cause: None, summary, phase: None, evidence: Vec::new(), advice: Vec::new(), log: None, kept: None }
    }
}

/// Where the metric under a key lies in a row.
#[derive(Debug, Clone, Copy)]
pub enum Slot<'k> {
    /// Among vLLM's own.
    VllmMetric(crate::model::VllmMetric),
    /// Among the further ones.
    Further(Place<'k>),
}

impl<'k> Slot<'k> {
    /// The place of a key, whether or not a row has such a metric.
    pub fn of(key: &'k str) -> Self {
        crate::model::VllmMetric::of(key).map_or_else(|| Slot::Further(Place::of(key)), Slot::VllmMetric)
    }
}

impl Row {
    /// A row of which nothing is known but what it is.
    pub fn bare(name: String, axes: ShownAxes, status: Status) -> Self {
        Self {
            name,
            axes,
            status,
            metrics: VllmMetrics::none(),
            simulated: false,
            identity: None,
            attempt: None,
            timings: None,
            load: Arc::default(),
            repeat: None,
            groups: Vec::new(),
            baseline: false,
            side: None,
            alone: false,
            replaced: false,
            server_name: String::new(),
            source: None,
            about: About::default(),
        }
    }

    /// Whether answers and speed-ups are about it: nothing replaced it, others are not measured against it (`run --against`), and it is
    /// not simulated where some were `measured`.
    pub(super) fn counts(&self, measured: bool) -> bool {
        !(self.replaced || self.side == Some(Side::Before) || measured && self.simulated)
    }

    /// Whether it has a result that nothing replaced.
    pub fn stands(&self) -> bool {
        self.is_valid() && !self.replaced
    }

    /// What speaks against believing its metrics, but for that they are simulated, which stands in every heading.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.about.warnings.iter().filter(|warning| warning.kind != super::verdict::WarningKind::Simulated)
    }

    /// The words of a command that starts its server as it was measured: the variables of the plan, then the command line. Empty where the
    /// command is not known.
    pub fn start_command(&self) -> Vec<String> {
        let (variables, words) = (&self.about.serve_environment, &self.about.serve_command);
        if variables.is_empty() || words.is_empty() {
            return words.clone();
        }
        let set = variables.iter().map(|(name, value)| format!("{name}={value}"));
        std::iter::once("env".to_owned()).chain(set).chain(words.iter().cloned()).collect()
    }

    /// Whether two rows are measurements of the same settings.
    pub fn is_of(&self, other: &Row) -> bool {
        let repeated = self.repeat.is_some() && self.identity.is_some() && self.identity == other.identity;
        repeated || std::ptr::eq(self, other)
    }

    /// Whether it has a result that counts.
    pub fn is_valid(&self) -> bool {
        matches!(self.status, Status::Valid)
    }

    /// Whether it may be called best: a result that counts, with no warning that excludes it.
    pub fn may_be_best(&self) -> bool {
        self.is_valid() && !self.about.warnings.iter().any(|warning| warning.kind.excludes())
    }

    /// A metric by vLLM's key.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.at(&Slot::of(key))
    }

    /// The metric in a slot: for many rows the key is looked up once.
    pub fn at(&self, slot: &Slot<'_>) -> Option<f64> {
        match slot {
            Slot::VllmMetric(metric) => self.metrics.get(*metric),
            Slot::Further(further) => self.about.further.at(further),
        }
    }

    /// A setting by vLLM's flag name (`model`, `tensor-parallel-size`, `max-num-seqs`, `max-concurrency`): of the grid, of the
    /// server, or of the load. `None` where it is not set or not known.
    pub fn setting(&self, key: &str) -> Option<Cow<'_, str>> {
        let axes = &self.axes;
        let varying = axes.server.iter().chain(&axes.workload).find(|(known, _)| known == key);
        match key {
            "model" => Some(Cow::Borrowed(axes.model.as_str())),
            "tensor-parallel-size" => axes.tensor_parallel_size.map(|size| size.to_string().into()),
            "quantization" => axes.quantization.as_deref().map(Cow::Borrowed),
            "enforce-eager" => axes.enforce_eager.map(|eager| eager.to_string().into()),
            _ => varying
                .map(|(_, value)| Cow::Borrowed(value.as_str()))
                .or_else(|| self.about.flags.get(key).map(|value| Cow::Borrowed(value.as_str())))
                .or_else(|| self.load.0.get(key).map(|value| value.to_string().into())),
        }
    }

    /// As [`Row::setting`], but for an axis whose value leaves the flag out (`none`, shown as `default`): nothing is set there.
    pub fn set(&self, key: &str) -> Option<Cow<'_, str>> {
        let left_out = |shown: &Cow<'_, str>| {
            **shown == *LEFT_OUT && !self.about.flags.contains_key(key) && !self.load.0.contains_key(key)
        };
        self.setting(key).filter(|shown| !left_out(shown))
    }

    /// What its load has of its own among the loads of its sweep.
    pub fn workload_label(&self) -> String {
        self.axes.workload_label()
    }

    /// Whether a rule left it out of the plan.
    pub fn is_skipped(&self) -> bool {
        matches!(self.status, Status::Skipped { .. })
    }
}

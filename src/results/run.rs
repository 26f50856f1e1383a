//! Our own run directories: the plan says which experiments there are, and the files say what came of each.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::analyse::{
    About, Facts, FailedAttempt, Load, LoadValue, MetricValues, Row, RunTable, Signs, Status, Unreadable, VllmMetrics,
    warnings_from,
};
use crate::model::{
    Context, DeviceTelemetry, Experiment, Failure, FlagValue, Identity, Outcome, Phase, Plan, Repeat, Skip, Telemetry,
};
use crate::plan::combination_name;
use crate::record::{Error, FailureRecord, ResultMeta, RunDir, RunState, atomic, layout, validate};
use crate::results::parallel;
use crate::results::remains;
use crate::results::result_file;
use crate::results::result_file::{Members, ResultFile};
use crate::results::run_facts::{broken, device, duration, facts, journal_of};
use crate::results::signs::signs;
use crate::results::spans::spans;
use crate::stats;

/// Results that are read before their rows are made.
const PORTION: usize = 512;

/// Loads a run directory. Where its manifest is damaged or gone, what its results, failures and journal still say.
///
/// # Errors
/// When the directory cannot be read, was written by a newer version, or nothing in it can be used.
pub(super) fn load(dir: &RunDir) -> Result<RunTable, Error> {
    let mut manifest = match dir.manifest() {
        Ok(manifest) => manifest,
        Err(error @ Error::Newer { .. }) => return Err(error),
        Err(error) => return remains::load(dir, error),
    };
    let (journal, mut damaged) = journal_of(dir);
    let live = dir.live().is_some();
    let state = RunState::replay(&journal.entries);
    let until = manifest.plan.until_decided;
    manifest.plan.experiments.retain(|e| state.is_asked(until, &e.name, e.repeat));
    let repeats = manifest.plan.experiments.iter().any(|experiment| experiment.repeat != Repeat::FIRST);
    let mut loader = Loader { dir, live, state, loads: Loads::default(), repeats, bad: vec![], version: None };
    let mut versions: Vec<String> = Vec::new();
    let mut rows = Vec::with_capacity(manifest.plan.experiments.len() + manifest.plan.skips.len());
    // In portions: what a result says of itself is larger than its row.
    for portion in manifest.plan.experiments.chunks(PORTION) {
        let found = parallel::map(portion, |experiment, buffer| {
            find(&dir.layout().result(&experiment.name), experiment, buffer)
        });
        for (experiment, found) in portion.iter().zip(found) {
            let (row, version) = loader.row(experiment, found);
            versions.extend(version.filter(|version| !versions.contains(version)));
            rows.push(row);
        }
    }
    replace_by_alone(&manifest.plan.experiments, &mut rows);
    rows.extend(manifest.plan.skips.iter().map(|skip| skipped(skip, manifest.simulated)));
    let mut unreadable = loader.bad;
    unreadable.extend(unplanned(dir, &manifest.plan)?);
    let measured = |row: &Row| row.is_valid() || matches!(row.status, Status::Failed(_) | Status::Invalid(_));
    if damaged.is_empty() && journal.entries.is_empty() && rows.iter().any(measured) {
        damaged.push(format!("`{}` is empty or gone: what else was tried is not known", layout::JOURNAL));
    }
    let planned: HashSet<&str> = manifest.plan.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
    let unplanned = loader.state.attempts.keys().filter(|name| !planned.contains(name.as_str())).count();
    if unplanned > 0 {
        damaged.push(format!(
            "`{}` does not plan {unplanned} of the experiments that `{}` tells of",
            layout::MANIFEST,
            layout::JOURNAL
        ));
    }
    unreadable.extend(damaged.iter().map(|what| broken(layout::JOURNAL, what)));
    unreadable.sort();
    let (name, directory): (Arc<str>, Arc<Path>) = (manifest.run.as_str().into(), dir.path().into());
    let device = device(&manifest);
    if versions.is_empty() {
        versions.extend(manifest.vllm.as_ref().and_then(|vllm| vllm.version.clone()));
    }
    for row in &mut rows {
        row.about.run = Arc::clone(&name);
        row.about.directory = Arc::clone(&directory);
        row.about.device.clone_from(&device);
    }
    Ok(RunTable {
        more: Vec::new(),
        simulated: manifest.simulated || rows.iter().any(|row| row.simulated),
        facts: Facts {
            directory: dir.path().to_owned(),
            sessions: loader.state.sessions,
            duration: duration(&journal.entries),
            neighbours: loader.state.neighbours.clone(),
            spans: spans(&journal.entries),
            unreadable_journal_lines: journal.unreadable,
            damaged,
            live,
            vllm_versions: versions,
            ..facts(manifest)
        },
        rows,
        unreadable,
    })
}

/// What was measured again alone counts in the place of what was measured beside others.
fn replace_by_alone(experiments: &[Experiment], rows: &mut [Row]) {
    let alone: HashSet<&Identity> =
        experiments.iter().zip(&*rows).filter(|(e, row)| e.alone && row.is_valid()).map(|(e, _)| &e.identity).collect();
    for (experiment, row) in experiments.iter().zip(rows) {
        row.alone = experiment.alone;
        row.replaced = !experiment.alone && alone.contains(&experiment.identity);
    }
}

fn skipped(skip: &Skip, simulated: bool) -> Row {
    let status =
        Status::Skipped { rule: skip.rule.clone(), explanation: skip.explanation.clone(), reason: skip.reason.clone() };
    Row { simulated, ..Row::bare(combination_name(&skip.axes), (&skip.axes).into(), status) }
}

struct Loader<'a> {
    dir: &'a RunDir,
    live: bool,
    state: RunState,
    loads: Loads,
    /// Whether settings are measured more than once.
    repeats: bool,
    /// Files that do not count and are not the whole story of their row.
    bad: Vec<Unreadable>,
    /// The version of the row before.
    version: Option<Arc<str>>,
}

/// What lies under the name of an experiment's result.
enum Found {
    Nothing,
    Valid { metrics: VllmMetrics, meta: Box<ResultMeta>, signs: Box<Signs>, further: MetricValues },
    Invalid { reason: String, metrics: VllmMetrics, readable: bool },
}

impl Loader<'_> {
    /// A version of vLLM, held once for all rows that have it.
    fn version(&mut self, version: &str) -> Arc<str> {
        if self.version.as_deref() != Some(version) {
            self.version = Some(version.into());
        }
        self.version.clone().unwrap_or_default()
    }

    fn row(&mut self, experiment: &Experiment, found: Found) -> (Row, Option<String>) {
        let path = self.dir.layout().result(&experiment.name);
        let file = path.file_name().map(Into::into);
        let mut row = Row {
            simulated: experiment.engine == crate::model::Engine::Sim,
            identity: Some(experiment.identity.clone()),
            attempt: self.state.newest(&experiment.name).map(|attempt| attempt.number),
            timings: self.state.newest(&experiment.name).and_then(|attempt| attempt.timings.clone()),
            load: self.loads.of(experiment),
            repeat: self.repeats.then_some(experiment.repeat),
            groups: experiment.groups.clone(),
            baseline: experiment.baseline,
            side: experiment.side,
            server_name: experiment.server_name().to_owned(),
            about: about(experiment),
            ..Row::bare(experiment.name.clone(), (&experiment.axes).into(), Status::NotRun)
        };
        match found {
            Found::Valid { metrics, meta, signs, further } => {
                row.status = Status::Valid;
                row.metrics = metrics;
                row.about.warnings = warnings_from(&signs);
                row.about.further = further;
                row.about.server_log = meta.server_log;
                row.about.server_log_span = meta.server_log_span;
                row.about.samples = meta.telemetry.and_then(|telemetry| telemetry.file).map(Into::into);
                row.about.serve_command = meta.serve_command;
                row.about.serve_environment = meta.env;
                row.about.bench_command = meta.bench_command;
                // Who shares the machine of a cluster's task is not known.
                let is_task = meta.placement.as_ref().is_some_and(|placement| placement.host.is_some());
                row.about.neighbours = meta.neighbours.or((!is_task).then_some(0));
                row.about.vllm_version = meta.vllm_version.as_deref().map(|version| self.version(version));
                row.simulated |= meta.simulated;
                row.attempt = Some(meta.attempt);
                row.timings = Some(meta.timings);
                row.source = file;
                (row, meta.vllm_version)
            }
            Found::Nothing => {
                self.settle(experiment, &mut row, None);
                (row, None)
            }
            Found::Invalid { reason, metrics, readable } => {
                row.metrics = metrics;
                row.source = file.filter(|_| readable);
                self.settle(experiment, &mut row, Some(reason));
                (row, None)
            }
        }
    }

    /// Finds out what came of an experiment that has no valid result.
    fn settle(&mut self, experiment: &Experiment, row: &mut Row, invalid: Option<String>) {
        let newest = self.state.newest(&experiment.name).cloned();
        let number = newest.as_ref().map_or(0, |newest| newest.number);
        let under_way = self.live && self.state.live.contains_key(&experiment.name);
        let failure = self.failure(experiment).filter(|record| record.attempt >= number);
        let told = match (failure, newest.as_ref().and_then(|newest| newest.outcome.clone())) {
            (Some(record), _) => {
                row.attempt = Some(record.attempt);
                row.simulated |= record.simulated;
                row.timings = Some(record.timings);
                let log = record.benchmark_log.filter(|_| record.failure.phase == Phase::Measuring);
                // A start that never came to a log names one that is not there.
                let root = self.dir.layout().root();
                let log = log.or(Some(record.server_log)).filter(|log| root.join(log).exists());
                Some(failed(record.failure, log))
            }
            (None, Some(Outcome::Failed(failure))) => Some(failed(failure, None)),
            (None, Some(Outcome::Passed { .. }) | Some(Outcome::Interrupted) | None) => None,
        };
        row.status = match (told, invalid) {
            _ if under_way => Status::Running,
            (Some(failed), invalid) => {
                // The failure is the row's story; that a file lies under the result's name is told beside it.
                if let Some(reason) = invalid {
                    let file = self.dir.layout().result(&experiment.name);
                    self.bad.push(Unreadable { file: file_name(&file), reason, lost: true });
                }
                failed
            }
            (None, Some(reason)) => Status::Invalid(reason),
            (None, None) => match newest.map(|newest| newest.outcome) {
                None => Status::NotRun,
                Some(Some(Outcome::Passed { .. })) => {
                    Status::Invalid("the journal says that it passed, but its result file is gone".into())
                }
                Some(Some(Outcome::Failed(_) | Outcome::Interrupted) | None) => Status::Interrupted,
            },
        };
    }

    /// The failure file of exactly this experiment. One that is there and cannot be taken is listed.
    fn failure(&mut self, experiment: &Experiment) -> Option<FailureRecord> {
        let path = self.dir.layout().failure(&experiment.name);
        let reason = match read_failure(&path) {
            Ok(record) if record.as_ref().is_none_or(|record| record.identity == experiment.identity) => return record,
            Ok(_) => "about other settings: its identity is not the planned one".into(),
            Err(reason) => reason,
        };
        self.bad.push(Unreadable { file: file_name(&path), reason, lost: false });
        None
    }
}

pub(super) fn read_failure(path: &Path) -> Result<Option<FailureRecord>, String> {
    if result_file::read_text(path).map_err(|refusal| refusal.reason)?.is_none() {
        return Ok(None);
    }
    match atomic::read_json::<FailureRecord>(path, "failure record") {
        Ok(record) => Ok(Some(record)),
        Err(Error::Parse { source, .. }) => Err(format!("not a failure record: {source}")),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn failed(failure: Failure, log: Option<std::path::PathBuf>) -> Status {
    Status::Failed(Box::new(FailedAttempt {
        cause: Some(failure.cause),
        summary: failure.summary,
        phase: Some(failure.phase),
        evidence: failure.evidence,
        advice: failure.advice,
        kept: failure.kept,
        log,
    }))
}

/// Looks under the name of an experiment's result. Nothing counts but a valid result of exactly this experiment.
fn find(path: &Path, experiment: &Experiment, buffer: &mut Vec<u8>) -> Found {
    let unusable = |reason: String| Found::Invalid {
        reason: format!("the result file is {reason}"),
        metrics: VllmMetrics::none(),
        readable: false,
    };
    let mut result = match result_file::read(path, buffer, Members::Parsed) {
        Ok(None) => return Found::Nothing,
        Ok(Some(result)) => result,
        Err(refusal) => return unusable(refusal.reason),
    };
    let metrics = result.metrics();
    match result.meta.take() {
        None => unusable("not written by vllm-bench: it has no `vllm_bench` part".into()),
        Some(Err(reason)) => unusable(reason),
        Some(Ok(meta)) if meta.identity != experiment.identity => unusable(format!(
            "of other settings: its identity is {}, the planned one is {}",
            meta.identity.short(),
            experiment.identity.short()
        )),
        Some(Ok(meta)) if meta.repeat != experiment.repeat => unusable(format!(
            "of another measurement of these settings:{}, the planned one is{}",
            which(meta.repeat),
            which(experiment.repeat)
        )),
        Some(Ok(meta)) if meta.contradiction(experiment).is_some() => {
            unusable(format!("of no use: {}", meta.contradiction(experiment).unwrap_or_default()))
        }
        Some(Ok(meta)) => match validate(&result.metrics, experiment.workload.num_prompts()) {
            Ok(()) => {
                let signs = Box::new(signs(&result, Some(&meta)));
                let mut further = result.percentiles();
                further.extend(server_metrics(&result));
                if let Some(preemptions) = meta.preemptions {
                    further.insert_new("preemptions", preemptions);
                }
                meta.telemetry
                    .iter()
                    .flat_map(telemetry_metrics)
                    .for_each(|(key, value)| further.insert_new(key, value));
                Found::Valid { metrics, meta, signs, further }
            }
            Err(invalid) => {
                Found::Invalid { reason: invalid.to_string(), metrics: metrics.counts_only(), readable: true }
            }
        },
    }
}

/// ` start=1 run=2`, also of the first.
fn which(repeat: Repeat) -> String {
    format!(" start={} run={}", repeat.start, repeat.run)
}

/// What the plan says of an experiment.
fn about(experiment: &Experiment) -> About {
    let flags = &experiment.server.flags;
    let everywhere = Context::default();
    About {
        devices: experiment.server.devices(),
        overrides: flags.iter().count(),
        flags: Arc::new(flags.iter().map(|(name, value)| (name.to_owned(), written(value))).collect()),
        serve_environment: experiment.server.env.clone(),
        client: Some(experiment.workload.client),
        engine: Some(experiment.engine),
        settings: Some(Identity::of_experiment(
            experiment.engine,
            &experiment.server,
            &experiment.workload,
            &everywhere,
        )),
        ..About::default()
    }
}

/// A flag's value as one text.
fn written(value: &FlagValue) -> String {
    match value {
        FlagValue::Switch(_) => "true".to_owned(),
        FlagValue::Text(text) => text.clone(),
        FlagValue::List(words) => words.join(" "),
    }
}

/// Metrics of devices and host, by key. Of several devices: power is that of all together, use and clock their mean, memory and
/// temperature those of the fullest and hottest.
fn telemetry_metrics(telemetry: &Telemetry) -> Vec<(&'static str, f64)> {
    let devices = |of: fn(&DeviceTelemetry) -> Option<f64>| telemetry.devices.iter().filter_map(of).collect::<Vec<_>>();
    let most = |values: Vec<f64>| values.into_iter().reduce(f64::max);
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let all = [
        ("mean_power_w", telemetry.power_w.map(|power| power.mean)),
        ("max_power_w", telemetry.power_w.map(|power| power.max)),
        ("idle_power_w", telemetry.idle_power_w),
        ("energy_j", telemetry.energy_j),
        ("mean_utilization_pct", stats::mean(devices(|device| Some(device.utilization_pct?.mean)))),
        ("max_device_memory_gib", most(devices(|device| Some(device.memory_used_bytes?.max))).map(gib)),
        ("max_temperature_c", most(devices(|device| Some(device.temperature_c?.max)))),
        ("mean_clock_mhz", stats::mean(devices(|device| Some(device.clock_mhz?.mean)))),
        ("throttled_pct", most(devices(|device| device.throttled_pct))),
        ("mean_server_cpu_pct", telemetry.host.server_cpu_pct.map(|share| share.mean)),
        ("mean_client_cpu_pct", telemetry.host.client_cpu_pct.map(|share| share.mean)),
        ("max_host_memory_gib", telemetry.host.memory_used_bytes.map(|bytes| gib(bytes.max))),
        ("host_energy_j", telemetry.host.energy_j),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value.filter(|value| value.is_finite())?))).collect()
}

/// What our own client saw of the server during the load, under the cluster sweep's names and in its units (parts of a hundred).
fn server_metrics(result: &ResultFile) -> impl Iterator<Item = (Cow<'static, str>, f64)> {
    let number = |pointer: &str| result.load.as_ref()?.pointer(pointer)?.as_f64();
    [
        ("avg_running_reqs", number("/server/running/mean"), 1.0),
        ("avg_waiting_reqs", number("/server/waiting/mean"), 1.0),
        ("avg_gpu_kvc_usage", number("/server/kv_cache_usage/mean"), 100.0),
        ("avg_prefix_cache_hit_rate", number("/server/prefix_cache_hit_rate"), 100.0),
        ("preemptions", number("/server/preemptions"), 1.0),
    ]
    .into_iter()
    .filter_map(|(key, value, scale)| Some((key.into(), value? * scale)))
}

/// Files under the name of a result that belong to no experiment of the plan. Our own outputs are none.
fn unplanned(dir: &RunDir, plan: &Plan) -> Result<Vec<Unreadable>, Error> {
    let planned: HashSet<_> =
        plan.experiments.iter().map(|experiment| file_name(&dir.layout().result(&experiment.name))).collect();
    let mut unplanned = Vec::new();
    for entry in std::fs::read_dir(dir.path()).map_err(Error::read(dir.path()))?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if layout::is_result(&file) && !planned.contains(&file) {
            unplanned.push(Unreadable { file, reason: "of no experiment of the plan".into(), lost: false });
        }
    }
    Ok(unplanned)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The loads of a plan; rows with the same one share it.
#[derive(Default)]
struct Loads(Option<Arc<Load>>);

impl Loads {
    fn of(&mut self, experiment: &Experiment) -> Arc<Load> {
        let mut flags: IndexMap<String, LoadValue> = experiment
            .workload
            .flags
            .iter()
            .map(|(name, value)| {
                let text = if let FlagValue::Switch(_) = value { "yes".to_owned() } else { written(value) };
                (name.to_owned(), LoadValue::Exact(text))
            })
            .collect();
        if let Some(length) = experiment.server.flags.get_text("max-model-len") {
            flags.insert("max-model-len".into(), LoadValue::Exact(length.into()));
        }
        let load = Load(flags);
        match &self.0 {
            Some(known) if **known == load => Arc::clone(known),
            _ => Arc::clone(self.0.insert(Arc::new(load))),
        }
    }
}

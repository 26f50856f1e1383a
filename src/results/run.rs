//! Our own run directories: the plan says which experiments there are, and the files say what came of each.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::analyse::{
    About, Facts, FailedAttempt, Load, LoadValue, MetricValues, Origin, Row, RunTable, Signs, Status, Unreadable,
    VllmMetrics, warnings_from,
};
use crate::model::{
    Context, Event, Experiment, Failure, FlagValue, Identity, Outcome, Phase, Plan, Repeat, Skip, Stamped, VllmMetric,
};
use crate::plan::combination_name;
use crate::record::{
    Error, FailureRecord, JournalText, Manifest, ResultMeta, RunDir, RunState, atomic, layout, plausible, validate,
};
use crate::results::parallel;
use crate::results::remains;
use crate::results::result_file;
use crate::results::result_file::{Members, ResultFile};

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

/// What the machine's devices are called; `None` where they are not alike, or simulated.
fn device(manifest: &Manifest) -> Option<Arc<str>> {
    let mut names = manifest.devices.devices.iter().map(|device| device.name.as_deref());
    let first = names.next()??;
    (!manifest.simulated && names.all(|name| name == Some(first))).then(|| first.into())
}

fn facts(manifest: Manifest) -> Facts {
    Facts {
        slo: slo(&manifest),
        objective: objective(&manifest),
        until: manifest.plan.until_decided.and_then(|until| usize::try_from(until.max).ok()),
        directory: Path::new("").into(),
        run: manifest.run,
        name: manifest.name,
        origin: Origin::VllmBench { version: manifest.vllm_bench },
        created: Some(manifest.created),
        timezone: Some(manifest.timezone),
        engine: Some(manifest.engine),
        vllm_path: manifest.vllm.map(|vllm| vllm.path),
        vllm_versions: Vec::new(),
        command_line: manifest.command_line,
        duration: None,
        sessions: 0,
        live: false,
        unreadable_journal_lines: 0,
        damaged: Vec::new(),
    }
}

/// A file of the record that is damaged, among the files that do not count.
pub(super) fn broken(file: &str, what: &str) -> Unreadable {
    Unreadable { file: file.to_owned(), reason: what.to_owned(), lost: true }
}

/// The journal as far as it is whole, and what is wrong with it. The line that a crash cut is no damage.
pub(super) fn journal_of(dir: &RunDir) -> (JournalText, Vec<String>) {
    match dir.journal() {
        Ok(text) if text.damaged == 0 => (text, Vec::new()),
        Ok(text) => {
            let what = format!("`{}` is damaged: {} lines cannot be read", layout::JOURNAL, text.damaged);
            (text, vec![what])
        }
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            (JournalText::default(), vec![format!("`{}` cannot be read{why}", layout::JOURNAL)])
        }
    }
}

/// The objective of the run, as the manifest keeps it.
fn objective(manifest: &Manifest) -> Option<String> {
    manifest.settings.get("objective").and_then(|setting| setting.value.as_str()).map(str::to_owned)
}

/// The limits of the sweep file, as the manifest keeps them: `slo.ttft.p99` -> `500`, or words under `slo` itself.
fn slo(manifest: &Manifest) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |key: &String, value: &serde_json::Value| -> Vec<(String, String)> {
        let name = match key.strip_prefix("slo") {
            Some("") => "",
            Some(rest) if rest.starts_with('.') => &rest[1..],
            Some(_) | None => return Vec::new(),
        };
        match value {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::Object(map) if map.is_empty() => Vec::new(),
            serde_json::Value::Array(items) => items.iter().map(|item| (name.to_owned(), text(item))).collect(),
            one => vec![(name.to_owned(), text(one))],
        }
    };
    let all = manifest.settings.iter().flat_map(|(key, setting)| of(key, &setting.value));
    // Words that stand under no metric may be several between commas, as after `--slo`.
    let several = all.flat_map(|(name, value)| match name.is_empty() {
        true => value.split(',').map(|word| (String::new(), word.trim().to_owned())).collect(),
        false => vec![(name, value)],
    });
    several.filter(|(name, value)| !(name.is_empty() && value.is_empty())).collect()
}

/// Seconds over all sessions: what a session said at its end, or from its first to its last event where it died.
pub(super) fn duration(entries: &[Stamped]) -> Option<f64> {
    let mut sessions: Vec<f64> = Vec::new();
    let mut began = None;
    for entry in entries {
        match &entry.event {
            Event::RunStarted { .. } => {
                began = entry.time();
                sessions.push(0.0);
            }
            Event::RunFinished { seconds, .. } if seconds.is_finite() => {
                began = None;
                if let Some(session) = sessions.last_mut() {
                    *session = seconds.max(0.0);
                }
            }
            _ => {
                if let (Some(session), Some(from), Some(to)) = (sessions.last_mut(), began, entry.time()) {
                    *session = (to - from).as_seconds_f64().max(0.0);
                }
            }
        }
    }
    (!sessions.is_empty()).then(|| sessions.iter().sum())
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
                row.about.serve_command = meta.serve_command;
                row.about.serve_environment = meta.env;
                row.about.bench_command = meta.bench_command;
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
    let size = |flag: &str| flags.get_text(flag).map_or(Some(1), |text| text.parse::<u32>().ok());
    let devices = ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"]
        .into_iter()
        .try_fold(1u32, |devices, flag| devices.checked_mul(size(flag)?));
    let everywhere = Context::default();
    About {
        devices,
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

/// What of a result says whether it can be believed. Where nobody says how it was measured, hits of the prefix cache may
/// be meant.
pub(super) fn signs(result: &ResultFile, meta: Option<&ResultMeta>) -> Signs {
    let own = result.load.as_ref();
    let bench = |flag: &str| meta.and_then(|meta| meta.bench.get_text(flag));
    let prefix = bench("random-prefix-len").is_some_and(|length| length != "0");
    let signs = Signs::of_result(|key| result.number(key), own);
    let unknown = meta.is_none() && own.and_then(|own| own.get("shares_prefixes")).is_none();
    // What the plan asked for, against what was counted: another client, or another server, did other work. To the prompts of a chat our
    // own client adds the template.
    let planned = || {
        let asked = asked_prompt(|flag| bench(flag).map(str::to_owned))? * signs.completed?;
        let counted = result.metrics().get(VllmMetric::TotalInputTokens)?;
        let chat = own.is_some() && bench("backend").is_some_and(|backend| backend.contains("chat"));
        Some((asked, if chat { counted.min(asked) } else { counted }))
    };
    let differs = |(asked, counted): &(f64, f64)| asked != counted;
    Signs {
        prompt_tokens: planned().filter(differs).or(signs.prompt_tokens),
        preemptions: signs.preemptions.or(meta.and_then(|meta| meta.preemptions)),
        prefix_hits: signs.prefix_hits.or_else(|| meta.and_then(found_cold)),
        shares_prefixes: signs.shares_prefixes
            || prefix
            || unknown
            || matches!(bench("dataset-name"), Some("prefix_repetition" | "sonnet" | "rag")),
        asked_tokens: meta.and_then(|meta| {
            asked_tokens(|flag| meta.bench.get_text(flag).map(str::to_owned), meta.bench.contains("ignore-eos"))
        }),
        empty: result.empty.clone(),
        drift: signs.drift.or(result.drift.filter(|_| own.is_none()).map(|of| (of.ratio, (of.low, of.high)))),
        implausible: plausible::suspicious(&result.metrics),
        simulated: meta.is_some_and(|meta| meta.simulated),
        ..signs
    }
}

/// The part of the prompt tokens that was found in the prefix cache, by the server's counters over the measurement. vLLM's
/// client sends the first prompt again and again to warm up: what that finds is left out.
fn found_cold(meta: &ResultMeta) -> Option<f64> {
    let cache = meta.prefix_cache.filter(|cache| cache.queries > 0.0)?;
    let flag = |name: &str| meta.bench.get_text(name).and_then(|text| text.parse::<f64>().ok());
    let warmups = flag("num-warmups").unwrap_or(0.0);
    let request = cache.queries / (flag("num-prompts").unwrap_or(1000.0) + warmups);
    let own = if warmups > 0.0 { (warmups + 1.0) * request } else { 0.0 };
    Some((cache.hits - own).max(0.0) / cache.queries)
}

/// The fewest and the most tokens that an answer must have, where the model could not end one by itself.
pub(super) fn asked_tokens(flag: impl Fn(&str) -> Option<String>, ignores_eos: bool) -> Option<(f64, f64)> {
    let number = |name: &str| flag(name).and_then(|text| text.parse::<f64>().ok());
    let asked = [
        "random-output-len",
        "output-len",
        "sonnet-output-len",
        "custom-output-len",
        "hf-output-len",
        "sharegpt-output-len",
    ]
    .into_iter()
    .find_map(number)
    .filter(|asked| ignores_eos && *asked > 0.0)?;
    let range = range(&flag, "output")?;
    Some(((asked * (1.0 - range)).floor().max(1.0), (asked * (1.0 + range)).ceil()))
}

/// How many tokens each random prompt has; `None` where they are drawn from a range, or it is another data set.
fn asked_prompt(flag: impl Fn(&str) -> Option<String>) -> Option<f64> {
    let number = |name: &str| flag(name).and_then(|text| text.parse::<f64>().ok());
    let random = flag("dataset-name").is_none_or(|name| name == "random");
    let asked = number("random-input-len").filter(|asked| random && *asked > 0.0)?;
    (range(&flag, "input")? <= 0.0).then_some(asked + number("random-prefix-len").unwrap_or(0.0))
}

/// The part by which lengths are drawn around what is asked for: one number, or (newer releases) JSON with one for each side. `None` where it
/// is something else.
fn range(flag: &impl Fn(&str) -> Option<String>, side: &str) -> Option<f64> {
    let Some(text) = flag("random-range-ratio") else { return Some(0.0) };
    let of_side = || serde_json::from_str::<serde_json::Value>(&text).ok()?.get(side)?.as_f64();
    text.parse::<f64>().ok().or_else(of_side).map(|range| range.clamp(0.0, 1.0))
}

/// Files under the name of a result that belong to no experiment of the plan. Our own outputs are none.
fn unplanned(dir: &RunDir, plan: &Plan) -> Result<Vec<Unreadable>, Error> {
    let planned: HashSet<_> =
        plan.experiments.iter().map(|experiment| file_name(&dir.layout().result(&experiment.name))).collect();
    let mut unplanned = Vec::new();
    for entry in std::fs::read_dir(dir.path()).map_err(Error::read(dir.path()))?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if is_result_name(&file) && !planned.contains(&file) {
            unplanned.push(Unreadable { file, reason: "of no experiment of the plan".into(), lost: false });
        }
    }
    Ok(unplanned)
}

/// Whether a file name is that of a result; `raw_results.json` ends like one and is an output, never an input.
pub(super) fn is_result_name(file: &str) -> bool {
    file.ends_with(layout::RESULT_SUFFIX) && file != layout::RAW_RESULTS && !file.starts_with(layout::TEMPORARY_PREFIX)
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

#[cfg(test)]
mod tests {
    use crate::results::run::*;

    #[test]
    fn lengths_that_are_drawn_from_a_range_are_asked_for_as_one() {
        let of = |flags: &[(&str, &str)]| {
            let flag = |name: &str| flags.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            (asked_tokens(flag, true), asked_prompt(flag))
        };
        let plain = [("random-output-len", "256"), ("random-input-len", "100"), ("random-prefix-len", "20")];
        let with = |ratio: &'static str| [&plain[..], &[("random-range-ratio", ratio)]].concat();
        assert_eq!(of(&plain), (Some((256.0, 256.0)), Some(120.0)));
        assert_eq!(of(&with("0.5")), (Some((128.0, 384.0)), None));
        assert_eq!(of(&with(r#"{"input": 0.0, "output": 0.25}"#)), (Some((192.0, 320.0)), Some(120.0)));
        assert_eq!(of(&with("much")), (None, None));
        assert_eq!(of(&[("dataset-name", "sonnet"), ("random-input-len", "9")]), (None, None));
    }
}

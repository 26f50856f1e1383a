//! Which run goes on, and with which settings: all that it had, with what flags say now over them.

use std::path::Path;

use serde_json::Value;

use super::{engine, make_plan};
use crate::cli::RunArgs;
use crate::commands::{find_run, format, host_facts};
use crate::config::{Environment, Kept, Place, Preset, Settings};
use crate::error::Error;
use crate::model::{Context, Engine, Experiment, Plan};
use crate::plan::extend;
use crate::preflight::installed_version;
use crate::record::{self, Manifest, RunDir, list_runs};
use crate::releases;
use crate::telemetry::{Device, DeviceReport, NOT_ASKED, devices};
use crate::ui::Ui;

/// A run that goes on.
#[derive(Debug)]
pub struct Earlier {
    /// Its directory.
    pub run: RunDir,
    /// Its manifest, with the settings of this session.
    pub manifest: Manifest,
    /// What this session changes, and what is another here than it was then; one sentence each.
    pub notices: Vec<String>,
    /// Whether the manifest is another one than on disk.
    pub changed: bool,
}

/// A run that goes on, with the settings and the plan that it brings.
#[derive(Debug)]
pub struct Resumed {
    /// Everything it had, and what flags say now.
    pub settings: Settings,
    /// The plan of its manifest.
    pub plan: Plan,
    /// The run.
    pub earlier: Earlier,
}

/// What every way to find a run needs.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The flags.
    pub args: &'a RunArgs,
    /// The environment.
    pub environment: &'a Environment,
    /// The preset of the command.
    pub preset: Preset,
    /// For warnings of a plan that is made to compare.
    pub ui: &'a Ui,
}

/// Top-level keys that a session may change: they change no metric, only how long one waits and what is kept.
const MAY_CHANGE: [&str; 30] = [
    "name",
    "port",
    "timeouts",
    "retry",
    "on-failure",
    "skip-failure-reasons",
    "preflight",
    "timezone",
    "setvars",
    "login",
    "vllm-bin",
    "keep-foreign",
    "device-locks",
    "show-logs",
    "pushgateway",
    "slo",
    "objective",
    "parallel",
    "parallel-threshold",
    "finalists",
    "telemetry",
    "executor",
    "slurm",
    "pipeline",
    "container.runtime",
    "container.shm-size",
    "container.mounts",
    "container.args",
    "results-dir",
    "sim.speed",
];

/// Whether a session may change what stands at this key path.
fn may_change(path: &str) -> bool {
    MAY_CHANGE.iter().any(|key| path == *key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '['])))
}

/// A value that is another one than the run had.
#[derive(Debug, Clone)]
struct Change {
    path: String,
    was: Value,
    is: Value,
    /// `flag --port`, `sweep.yaml:3`.
    origin: String,
}

impl Change {
    fn told(&self) -> String {
        format!("`{}` is {} ({}) and was {}", self.path, shown(&self.is), self.origin, shown(&self.was))
    }

    fn contradiction(&self) -> String {
        let was = if self.was.is_null() { "has none".to_owned() } else { format!("has {}", shown(&self.was)) };
        format!("`{}`: the run {was}, {} says {}", self.path, self.origin, shown(&self.is))
    }
}

/// A value on one line.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    };
    format!("`{}`", format::cut_end(text.trim_matches('`'), 120).replace("` `", " "))
}

/// The run that `--resume` means; `None` where nothing is to go on.
///
/// # Errors
/// When there is none, it cannot be read, or flags contradict it.
pub fn find(asked: Asked<'_>) -> Result<Option<Resumed>, Error> {
    match &asked.args.resume {
        Some(Some(named)) => {
            let run = locate_named(named, asked.args, asked.environment)?;
            go_on(&run, asked).map(Some)
        }
        Some(None) => unnamed(asked).map(Some),
        None if asked.args.detached_child && !asked.args.fresh => same_settings(asked),
        None if goes_on_by_itself(asked)? => same_jobs(asked),
        None => Ok(None),
    }
}

/// The run directory of this name: in the results directories, or as a path. No link: it would be written through.
fn locate_named(named: &Path, args: &RunArgs, environment: &Environment) -> Result<RunDir, Error> {
    let dirs = find_run::results_dirs(args.results_dir.as_deref().map(Path::new), environment);
    let paths = dirs.iter().map(|dir| dir.join(named)).chain([environment.absolute(named)]);
    let run = match paths.into_iter().find(|path| path.is_dir()) {
        Some(path) => RunDir::open(&path)?,
        None => find_run::called(named, &dirs, environment)?.ok_or_else(|| find_run::unknown(named, &dirs))?,
    };
    run.require_own()?;
    let place = run.path().parent();
    if let (Some(given), Some(place)) = (&args.results_dir, place)
        && std::fs::canonicalize(environment.absolute(given)).ok() != std::fs::canonicalize(place).ok()
    {
        return Err(Error::Usage {
            message: format!("`--results-dir` is `{given}`, and the run is in `{}`", place.display()),
            hint: "leave `--results-dir` out: a run stays where it is".to_owned(),
        });
    }
    Ok(run)
}

/// The settings, the plan and the changes of a run that goes on.
fn go_on(run: &RunDir, asked: Asked<'_>) -> Result<Resumed, Error> {
    let Asked { args, environment, preset, ui } = asked;
    let mut manifest = checked(run)?;
    let kept = kept(run, &manifest)?;
    let mut settings = Settings::resolve_over(args, environment, preset, Some(&kept))?;
    super::note_noise_check(&mut settings, args)?;
    if let Some(parent) = run.path().parent() {
        settings.results_dir = parent.to_owned();
    }
    let (allowed, others): (Vec<Change>, Vec<Change>) =
        changes(&kept, &settings, &manifest).into_iter().partition(|change| may_change(&change.path));
    let here = Here::of(&mut settings, &manifest, environment);
    here.require_same(run, &manifest.plan)?;
    let mut plan = manifest.plan.clone();
    with_speed_of(&settings, &mut plan);
    if !others.is_empty() {
        let then = Settings::resolve_over(&RunArgs::default(), &environment.without_settings(), preset, Some(&kept))?;
        let noise_check = manifest.settings.get(super::NOISE_CHECK).and_then(|setting| setting.value.as_u64());
        let args = RunArgs {
            noise_check: args.noise_check.clone().or(noise_check.map(|starts| starts.to_string())),
            ..args.clone()
        };
        // The values of another preset were not even looked at.
        let preset = others.iter().any(|change| change.path == "preset");
        if preset || !is_same_plan(&then, &settings, &plan, (&args, environment, ui))? {
            let words: Vec<String> = others.iter().map(Change::contradiction).collect();
            return Err(Error::Usage {
                message: format!(
                    "the plan of `{}` is another one: nothing of it may be mixed with these settings ({})",
                    run.path().display(),
                    words.join("; ")
                ),
                hint: "leave out the flags that shape the plan, or begin a new run without `--resume`".to_owned(),
            });
        }
    }
    keep_name(&mut manifest, run, &settings, environment)?;
    let mut notices: Vec<String> = allowed.iter().map(Change::told).collect();
    let changed = !notices.is_empty();
    notices.extend(here.notices(&manifest));
    keep_settings(&mut manifest, &settings);
    let earlier = Earlier { run: run.clone(), manifest, notices, changed };
    Ok(Resumed { settings, plan, earlier })
}

/// Gives a run that goes on the name that it is given now, if it has none. A run keeps its name.
fn keep_name(
    manifest: &mut Manifest,
    run: &RunDir,
    settings: &Settings,
    environment: &Environment,
) -> Result<(), Error> {
    match (&manifest.name, &settings.name) {
        (_, None) => {}
        (Some(had), Some(name)) if had == name => {}
        (Some(had), Some(name)) => {
            return Err(Error::Usage {
                message: format!("`{}` is called `{had}`, and is to be called `{name}`", run.path().display()),
                hint: "a run keeps its name: leave `--name` out, or begin a new run without `--resume`".to_owned(),
            });
        }
        (None, Some(name)) => {
            find_run::require_free_name(name, &settings.results_dir, environment)?;
            manifest.name = Some(name.clone());
        }
    }
    Ok(())
}

/// The manifest of a run, if its parts fit each other.
///
/// # Errors
/// When it cannot be read, or an identity is not that of the settings beside it.
pub fn checked(run: &RunDir) -> Result<Manifest, Error> {
    let manifest = run.manifest()?;
    match manifest.plan.problem() {
        Some(problem) => Err(record::Error::Contradictory { path: run.layout().manifest(), problem }.into()),
        None => Ok(manifest),
    }
}

/// Refuses a machine on which what a run measured would be something else: another vLLM, other weights.
///
/// # Errors
/// What differs.
pub fn require_same_machine(
    settings: &mut Settings,
    run: &RunDir,
    manifest: &Manifest,
    environment: &Environment,
) -> Result<(), Error> {
    Here::of(settings, manifest, environment).require_same(run, &manifest.plan)
}

/// The settings of a run, as its manifest keeps them.
///
/// # Errors
/// When it does not keep them, or they cannot be read.
pub fn kept(run: &RunDir, manifest: &Manifest) -> Result<Kept, Error> {
    let path = run.layout().manifest();
    if manifest.sweep.is_null() {
        let problem = "it does not hold the settings of the run, as it would if this version had made it".to_owned();
        return Err(record::Error::Contradictory { path, problem }.into());
    }
    Ok(Kept::from_json(&manifest.sweep).map_err(|source| record::Error::Parse { path, what: "manifest", source })?)
}

/// What is another value now than in the run. What the run has and nobody says now is no change.
fn changes(kept: &Kept, settings: &Settings, manifest: &Manifest) -> Vec<Change> {
    let then = kept.record();
    let brought = |origin: &str| origin == "default" || origin.starts_with("preset ");
    let change = |(path, (is, origin)): (&String, &(Value, String))| {
        let noise_check = manifest.settings.get(super::NOISE_CHECK).filter(|_| path == super::NOISE_CHECK);
        let was = then.get(path).map(|(value, _)| value).or(noise_check.map(|setting| &setting.value));
        // A key that a later version added has its default; a run stays where it is.
        if was == Some(is) || was.is_none() && brought(origin) || path == "results-dir" {
            return None;
        }
        let was = was.cloned().unwrap_or_default();
        Some(Change { path: path.clone(), was, is: is.clone(), origin: origin.clone() })
    };
    settings.record.iter().filter_map(change).collect()
}

/// Whether settings that are written in other words ask for the very same experiments, measured in the same way.
fn is_same_plan(
    then: &Settings,
    settings: &Settings,
    plan: &Plan,
    (args, environment, ui): (&RunArgs, &Environment, &Ui),
) -> Result<bool, Error> {
    let how = |settings: &Settings| (settings.warmup_prompts, settings.cooldown, settings.sweep.reuse);
    if how(settings) != how(then) {
        return Ok(false);
    }
    let made = make_plan(&mut settings.clone(), args, environment, Some(plan), ui)?;
    let alike = |(a, b): (&Experiment, &Experiment)| a.isolation == b.isolation && a.baseline == b.baseline;
    // What is measured again alone follows from results, and not from settings.
    let plan = plan.without_alone();
    Ok(made.identity == plan.identity && made.experiments.iter().zip(&plan.experiments).all(alike))
}

/// What this machine has of what the experiments of a run take for granted.
struct Here {
    context: Context,
    drivers: String,
}

impl Here {
    /// Looks, with the vLLM of the run where no other is named.
    fn of(settings: &mut Settings, manifest: &Manifest, environment: &Environment) -> Self {
        if manifest.engine == Engine::Sim {
            return Self { context: Context::default(), drivers: String::new() };
        }
        if settings.container.is_none() {
            settings.vllm_bin =
                settings.vllm_bin.take().or_else(|| manifest.vllm.as_ref().map(|vllm| vllm.path.clone()));
        }
        let program = engine::quick_find(settings, environment);
        let report = devices::detect(&host_facts::probe(settings, environment));
        let models = manifest.plan.experiments.iter().flat_map(|experiment| experiment.server.all_models()).collect();
        let context = Context {
            vllm_version: program.as_deref().and_then(installed_version),
            device_kind: Some(report.kind.label().to_ascii_lowercase()),
            models: host_facts::commits(&models, environment),
        };
        Self { context, drivers: drivers(&report) }
    }

    /// Refuses what would be another identity.
    fn require_same(&self, run: &RunDir, plan: &Plan) -> Result<(), Error> {
        let Some((what, then, here)) = self.context.differences(&plan.context).into_iter().next() else {
            return Ok(());
        };
        let changed = releases::work_flags_between(&then, &here);
        let why = match changed.as_slice() {
            [] => String::new(),
            flags => {
                format!(" (the clients of the two send other work where {} is not written out)", flags.join(" or "))
            }
        };
        Err(Error::Usage {
            message: format!("`{}` was measured with {what} {then}, and here is {here}{why}", run.path().display()),
            hint: "what they measure must not be mixed: begin a new run, or put back what was measured (`--vllm-bin` names \
                   another vLLM)"
                .into(),
        })
    }

    /// What is another than when the run began, and may change what is measured: sentences.
    fn notices(&self, manifest: &Manifest) -> Vec<String> {
        let mut notices = Vec::new();
        let mut look = |what: &str, then: &str, here: &str| {
            if then != here && !then.is_empty() && !here.is_empty() {
                let text =
                    format!("{what} is `{here}` here and was `{then}` when the run began: metrics may differ by it");
                notices.push(text);
            }
        };
        look("the version of vllm-bench", &manifest.vllm_bench, env!("CARGO_PKG_VERSION"));
        look("the driver of the devices", &drivers(&manifest.devices), &self.drivers);
        let known = &manifest.plan.context.models;
        for model in known.keys().filter(|model| !self.context.models.contains_key(*model)) {
            notices.push(format!(
                "the snapshot of `{model}` that the run began with is not at hand here: whether the weights are the same is \
                 not known"
            ));
        }
        notices
    }
}

/// The one setting of a simulation that changes no metric.
pub(super) fn with_speed_of(settings: &Settings, plan: &mut Plan) {
    let speed = settings.simulation.iter().find(|(name, _)| name == crate::sim::settings::SPEED);
    for experiment in plan.experiments.iter_mut().filter(|e| e.engine == Engine::Sim) {
        experiment.server.env.extend(speed.cloned());
    }
}

/// The versions of the drivers of all devices, each once; empty where they were not asked for.
pub fn drivers(report: &DeviceReport) -> String {
    if report.sources.iter().any(|source| source == NOT_ASKED) {
        return String::new();
    }
    let version = |device: &Device| {
        let words = [device.driver.as_deref(), device.driver_version.as_deref()];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let mut all: Vec<String> = report.devices.iter().map(version).filter(|text| !text.is_empty()).collect();
    all.sort();
    all.dedup();
    all.join(", ")
}

/// Writes the settings of this session into a manifest.
pub fn keep_settings(manifest: &mut Manifest, settings: &Settings) {
    let record = |(value, origin): &(Value, String)| record::Setting { value: value.clone(), origin: origin.clone() };
    manifest.settings.retain(|key, _| key == super::NOISE_CHECK);
    manifest.settings.extend(settings.record.iter().map(|(key, value)| (key.clone(), record(value))));
    manifest.sweep = settings.kept().to_json();
    manifest.limits = super::prepare::limits(settings);
}

/// Runs that are not at their end, newest first: those that were interrupted or killed; with `failed`, those as well that ended
/// with experiments that have no valid result. One whose manifest cannot be read is left out with a warning.
fn unfinished(plain: &Settings, ui: &Ui) -> Result<(Vec<RunDir>, Vec<RunDir>), Error> {
    let (mut interrupted, mut failed) = (Vec::new(), Vec::new());
    for run in list_runs(&plain.results_dir)?.into_iter().rev() {
        let manifest = match run.manifest() {
            Ok(manifest) => manifest,
            Err(error) => {
                ui.warn(&format!("{} cannot be resumed and is left out: {error}", run.name()));
                continue;
            }
        };
        // One that is called otherwise is not meant.
        if plain.name.as_ref().zip(manifest.name.as_ref()).is_some_and(|(name, had)| name != had) {
            continue;
        }
        // One that was killed after its last result still lacks its end in the journal and its reports.
        if !run.state().is_ok_and(|state| state.is_finished()) {
            interrupted.push(run);
        } else if asked(&run, &manifest).any(|experiment| run.valid_result(experiment).is_none()) {
            failed.push(run);
        }
    }
    Ok((interrupted, failed))
}

/// What of the plan of a run is to be measured.
fn asked<'m>(run: &RunDir, manifest: &'m Manifest) -> impl Iterator<Item = &'m Experiment> {
    let until = manifest.plan.until_decided;
    let state = until.and_then(|_| run.state().ok()).unwrap_or_default();
    manifest.plan.experiments.iter().filter(move |e| state.is_asked(until, &e.name, e.repeat))
}

/// The run that `--resume` without a name means.
fn unnamed(asked: Asked<'_>) -> Result<Resumed, Error> {
    let plain = Settings::resolve(asked.args, asked.environment, asked.preset)?;
    let (interrupted, failed) = unfinished(&plain, asked.ui)?;
    let nothing = |more: Option<&Error>| {
        Error::Nothing {
        message: format!(
            "no unfinished run of this plan in `{}`{}",
            plain.results_dir.display(),
            more.map(|error| format!(": {error}")).unwrap_or_default()
        ),
        hint: "name the run with `--resume RUN`, name another place with `--results-dir DIR`, or begin a new run without `--resume`"
            .into(),
    }
    };
    if !plain.plan_is_given() && asked.args.noise_check.is_none() {
        let candidates = if interrupted.is_empty() { failed } else { interrupted };
        return match candidates.as_slice() {
            [] => Err(nothing(None)),
            [one] => go_on(one, asked),
            several => Err(list(several, &plain, asked.environment)),
        };
    }
    let mut fitting: Vec<Resumed> = Vec::new();
    let mut refused = None;
    for run in interrupted.iter().chain(&failed) {
        match go_on(run, asked) {
            Ok(resumed) if is_exactly(&plain, &resumed) => return Ok(resumed),
            Ok(resumed) => fitting.push(resumed),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let several = fitting.len() > 1;
    match fitting.pop() {
        None => Err(nothing(refused.as_ref())),
        Some(one) if !several => Ok(one),
        Some(last) => {
            let runs: Vec<RunDir> = fitting.into_iter().chain([last]).map(|resumed| resumed.earlier.run).collect();
            Err(list(&runs, &plain, asked.environment))
        }
    }
}

/// The newest unfinished run of exactly these settings: `--detach` goes on with it.
fn same_settings(asked: Asked<'_>) -> Result<Option<Resumed>, Error> {
    let plain = Settings::resolve(asked.args, asked.environment, asked.preset)?;
    let (interrupted, failed) = unfinished(&plain, asked.ui)?;
    let runs = interrupted.iter().chain(&failed);
    Ok(runs.filter_map(|run| go_on(run, asked).ok()).find(|resumed| is_exactly(&plain, resumed)))
}

/// Whether the same command again continues its run: on a cluster, unless something else is asked for.
fn goes_on_by_itself(asked: Asked<'_>) -> Result<bool, Error> {
    let args = asked.args;
    if args.fresh || args.extend.is_some() || args.against.is_some() || args.dry_run.is_some() {
        return Ok(false);
    }
    Ok(Settings::resolve(args, asked.environment, asked.preset)?.place == Place::Slurm)
}

/// The newest run on a cluster of exactly these settings: finished or not, as only its own files say what is left to do.
fn same_jobs(asked: Asked<'_>) -> Result<Option<Resumed>, Error> {
    let plain = Settings::resolve(asked.args, asked.environment, asked.preset)?;
    let on_cluster = |run: &RunDir| {
        let manifest = run.manifest().ok();
        let executor = manifest.as_ref().and_then(|manifest| manifest.settings.get("executor"));
        executor.is_some_and(|setting| setting.value == "slurm")
            && plain.name.as_ref().is_none_or(|name| manifest.as_ref().and_then(|m| m.name.as_ref()) == Some(name))
    };
    let runs = list_runs(&plain.results_dir)?.into_iter().rev().filter(on_cluster);
    let mut fitting = runs.filter_map(|run| go_on(&run, asked).ok());
    Ok(fitting.find(|resumed| is_exactly(&plain, resumed)))
}

/// Whether settings made without a run ask for the plan of this one, and for nothing less.
fn is_exactly(plain: &Settings, resumed: &Resumed) -> bool {
    let shaping = |record: &indexmap::IndexMap<String, (Value, String)>| -> Vec<(String, Value)> {
        let kept =
            record.iter().filter(|(path, _)| !may_change(path) && *path != "preset" && *path != super::NOISE_CHECK);
        let mut all: Vec<(String, Value)> = kept.map(|(path, (value, _))| (path.clone(), value.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    let noise_check = plain.record.contains_key(super::NOISE_CHECK);
    shaping(&plain.record) == shaping(&resumed.settings.record)
        && noise_check == resumed.earlier.manifest.settings.contains_key(super::NOISE_CHECK)
}

/// The error where several runs could be meant.
fn list(runs: &[RunDir], plain: &Settings, environment: &Environment) -> Error {
    const SHOWN: usize = 10;
    let line = |run: &RunDir| {
        let manifest = run.manifest().ok();
        let planned = manifest.as_ref().map_or(0, |manifest| asked(run, manifest).count());
        let valid = manifest.map_or(0, |manifest| {
            asked(run, &manifest).filter(|experiment| run.valid_result(experiment).is_some()).count()
        });
        format!("{} ({valid} of {} measured)", run.called(), format::count(planned, "experiment"))
    };
    let mut lines: Vec<String> = runs.iter().take(SHOWN).map(line).collect();
    if runs.len() > SHOWN {
        lines.push(format!("and {} older ones", runs.len() - SHOWN));
    }
    Error::Usage {
        message: format!(
            "{} runs in `{}` are unfinished: {}",
            runs.len(),
            plain.results_dir.display(),
            lines.join(", ")
        ),
        hint: runs.first().map_or_else(String::new, |run| {
            format!("say which one: `{}` resumes the newest", format::resume(run.path(), environment))
        }),
    }
}

/// The run named by `--extend`: its settings of how to run lie below those of now, and its larger plan is measured.
///
/// # Errors
/// When it cannot be found or read.
pub fn extended(named: &Path, asked: Asked<'_>) -> Result<(Earlier, Settings), Error> {
    let run = locate_named(named, asked.args, asked.environment)?;
    let mut manifest = checked(&run)?;
    let kept = kept(&run, &manifest)?.how_to_run();
    let mut settings = Settings::resolve_over(asked.args, asked.environment, asked.preset, Some(&kept))?;
    if manifest.engine != settings.sweep.engine {
        let message = format!("`{}` was run with the engine `{}`", run.path().display(), manifest.engine);
        return Err(Error::Usage { message, hint: "extend it with the same `--engine`".to_owned() });
    }
    if let Some(parent) = run.path().parent() {
        settings.results_dir = parent.to_owned();
    }
    settings.extend = Some(run.path().to_owned());
    keep_name(&mut manifest, &run, &settings, asked.environment)?;
    let here = Here::of(&mut settings, &manifest, asked.environment);
    here.require_same(&run, &manifest.plan)?;
    let notices = here.notices(&manifest);
    Ok((Earlier { run, manifest, notices, changed: true }, settings))
}

/// The plan of a run with what `new` asks for beyond it.
///
/// # Errors
/// When there is nothing more, or the two are not measured in the same way.
pub fn grown(run: &RunDir, old: &Plan, new: Plan, environment: &Environment) -> Result<Plan, Error> {
    let other = match (old.before.is_some(), old.until_decided != new.until_decided) {
        (true, _) => Some("it measures two sides in turn (`--against`), and what joins it would have none"),
        (false, true) => Some("it and this sweep do not add starts in the same way (`starts: auto`, `max`)"),
        (false, false) => None,
    };
    if let Some(why) = other {
        return Err(Error::Usage {
            message: format!("`{}` cannot be extended: {why}", run.path().display()),
            hint: "measure it in a run of its own, and analyse both: `vllm-bench analyze RUN RUN`".to_owned(),
        });
    }
    let grown = extend(old, new);
    if grown.experiments.len() == old.experiments.len() {
        return Err(Error::Nothing {
            message: format!("`{}` has every experiment of this sweep already", run.path().display()),
            hint: format!("resume what has no valid result: `{}`", format::resume(run.path(), environment)),
        });
    }
    Ok(grown)
}

//! `run` and `sanity`: settings -> plan -> run directory -> experiments -> analysis -> exit code.

mod against;
mod contained;
mod detach;
mod devices;
mod dry_run;
pub mod engine;
mod follow;
mod judge;
mod lanes;
mod measure;
mod nodes;
mod prepare;
mod recorder;
pub(in crate::commands) mod resume;
mod signals;
mod slurm;
mod store;
pub mod task;
mod truth;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use indexmap::IndexMap;
use tokio::sync::oneshot;

use crate::campaign::Totals;
use crate::cli::{CompareArgs, RunArgs};
use crate::config::{Environment, Parallel, Place, Preset, Settings};
use crate::error::Error;
use crate::execute::{
    Emitter, EngineCommand, Policy, Recorder, Scope, Strangers, UnitContext, end_all_leftovers,
    end_foreign_and_leftovers,
};
use crate::exit;
use crate::model::{Event, Plan, Skip};
use crate::plan::baseline_problem;
use crate::process::{become_subreaper, stop_channel};
use crate::record::{self, RunDir, atomic, layout, remove_empty_runs};
use crate::safe;
use crate::telemetry::{DeviceKind, Probe};
use crate::ui::{Reporter, Ui, shared_by_all};

use super::choice;
use crate::commands::{cluster, dashboard, find_run, format, query_args, tracking};
use devices::{Locking, Patience};
pub(super) use lanes::Lanes;
use prepare::{Prepared, Silent, lock_results, prepare, require_not_live};
use recorder::RunRecorder;
use resume::{Asked, Earlier};
use signals::{Role, Signals};
use tracking::Tracking;

/// Runs a sweep.
///
/// # Errors
/// When nothing can be started, or the record cannot be kept.
pub async fn run(args: &RunArgs, environment: &Environment, preset: Preset, ui: &Ui) -> Result<u8, Error> {
    let asked = Asked { args, environment, preset, ui };
    let Session { settings, plan, earlier } = session(asked)?;
    query_args::check_slo(&settings)?;
    choice::check_objective(&settings, ui)?;
    dashboard::check(args)?;
    if !args.detached_child {
        tracking::check(&settings, environment, ui)?;
    }
    for note in settings.notes.iter().chain(&settings.warnings) {
        ui.warn(note);
    }
    let on_cluster = settings.place == Place::Slurm;
    if args.fresh && !args.detach && !args.detached_child && !on_cluster {
        ui.warn("`--fresh` has no effect without `--detach`: a run without `--resume` is always a new one");
    }
    let lanes = if on_cluster { None } else { Lanes::of(&settings, &plan, environment)? };
    if !args.detached_child {
        idle_flags(&settings, earlier.is_some()).iter().for_each(|idle| ui.warn(idle));
    }
    if args.detach && !args.detached_child && !on_cluster {
        return detach::start(environment.command_line(), ui);
    }
    if let Some(which) = &args.dry_run {
        let lanes = lanes.map(|lanes| lanes.outline(&settings));
        return dry_run::show((&settings, &plan), which.as_deref(), lanes.as_deref(), environment, ui);
    }
    if let Some(one) = lanes.as_ref().filter(|lanes| lanes.count <= 1) {
        ui.say(&one.outline(&settings));
    }
    let lanes = lanes.and_then(Lanes::several);
    if !settings.simulated()
        && let Some(key) = settings.given.iter().find(|key| key.starts_with("sim-"))
    {
        ui.warn(&format!("`{key}` has no effect without `--engine sim`"));
    }
    for name in missing_secrets(&plan, &settings, environment) {
        ui.warn(&format!(
            "`{name}` was set with `--env` when this run began and is not set now: export it, or servers may fail"
        ));
    }
    if (earlier.is_none() || settings.extend.is_some()) && slurm::knows_vllm(&settings) {
        preflight(&settings, environment, ui)?;
    }
    let ui = if args.detached_child { ui.without_terminal() } else { ui.clone() };
    Sweep { args, settings: &settings, plan: &plan, lanes, environment, ui: &ui, earlier }.execute().await
}

/// What was given and has no effect, each in a sentence.
pub fn idle_flags(settings: &Settings, resumed: bool) -> Vec<String> {
    let given = |key: &str| settings.given.iter().any(|known| *known == key);
    let on_cluster = settings.place == Place::Slurm;
    let lanes = settings.parallel != Parallel::Off && !on_cluster;
    let auto = lanes && settings.parallel == Parallel::Auto;
    let idle = |key: &str, idle: bool, why: &str| (idle && given(key)).then(|| format!("`{key}` has no effect {why}"));
    let tasks = "with `executor: slurm`: each task has the devices and the port that Slurm leaves it";
    [
        idle("parallel", on_cluster && settings.parallel != Parallel::Off, tasks),
        idle("port", on_cluster, tasks),
        idle("parallel-threshold", !auto, "without `parallel: auto`: nothing else measures what neighbours cost"),
        idle("finalists", !lanes && !resumed, "without `parallel`: everything is measured alone"),
        idle("sim-interference", settings.simulated() && !lanes, "without `parallel`: there are no neighbours"),
        idle("container", settings.simulated(), "with `engine: sim`: the simulated vLLM is part of this program"),
        idle("slurm", !on_cluster, "without `executor: slurm`"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is about to be measured: something new, or what a run has not measured yet.
struct Session {
    settings: Settings,
    plan: Plan,
    earlier: Option<Earlier>,
}

/// Settings and plan of this session; a run that goes on brings its own.
fn session(asked: Asked<'_>) -> Result<Session, Error> {
    let Asked { args, environment, preset, ui } = asked;
    if let Some(resume::Resumed { settings, plan, earlier }) = resume::find(asked)? {
        return Ok(Session { settings, plan, earlier: Some(earlier) });
    }
    if let Some(named) = &args.against {
        return against::session(named, asked);
    }
    let mut settings = Settings::resolve(args, environment, preset)?;
    let Some(named) = settings.extend.clone() else {
        note_noise_check(&mut settings, args)?;
        let plan = make_plan(&mut settings, args, environment, None, ui)?;
        return Ok(Session { settings, plan, earlier: None });
    };
    let (mut earlier, mut settings) = resume::extended(&named, asked)?;
    let new = make_plan(&mut settings, args, environment, Some(&earlier.manifest.plan), ui)?;
    let plan = resume::grown(&earlier.run, &earlier.manifest.plan, new, environment)?;
    earlier.manifest.plan = plan.clone();
    resume::keep_settings(&mut earlier.manifest, &settings);
    Ok(Session { settings, plan, earlier: Some(earlier) })
}

/// The key under which the manifest has the number of `--noise-check`.
const NOISE_CHECK: &str = "noise-check";

/// Records `--noise-check`, which is no key of sweep files.
fn note_noise_check(settings: &mut Settings, args: &RunArgs) -> Result<(), Error> {
    if let Some(starts) = noise_check(args)? {
        settings.record.insert(NOISE_CHECK.to_owned(), (starts.into(), "flag --noise-check".to_owned()));
    }
    Ok(())
}

/// How often `--noise-check` starts its configuration.
fn noise_check(args: &RunArgs) -> Result<Option<u32>, Error> {
    let Some(text) = &args.noise_check else { return Ok(None) };
    let starts = text.trim().parse::<u32>().ok().filter(|starts| *starts >= 2);
    starts.map(Some).ok_or_else(|| Error::Usage {
        message: format!(
            "invalid value `{}` for `--noise-check`: expected a number of at least 2",
            text.escape_debug()
        ),
        hint: "five starts give a first idea: `--noise-check 5`".into(),
    })
}

/// The repeats of one configuration under one load: the baseline's, where there is one, else the first.
fn one_configuration(mut plan: Plan) -> Plan {
    let chosen = plan.experiments.iter().find(|e| e.baseline).or(plan.experiments.first()).map(|e| e.identity.clone());
    plan.experiments.retain(|experiment| Some(&experiment.identity) == chosen.as_ref());
    for (number, experiment) in plan.experiments.iter_mut().enumerate() {
        experiment.index = number + 1;
    }
    // What is left out here is not left out by a rule.
    plan.skips.clear();
    plan
}

/// Counts the sweep, refuses one that nobody can mean, and makes its plan; with `earlier`, what that takes for granted.
fn make_plan(
    settings: &mut Settings,
    args: &RunArgs,
    environment: &Environment,
    earlier: Option<&Plan>,
    ui: &Ui,
) -> Result<Plan, Error> {
    let program = if settings.simulated() { None } else { engine::quick_find(settings, environment) };
    crate::commands::host_facts::gather(settings, environment, program.as_deref());
    super::preflight::leave_out_unknown(settings, environment, program.as_deref(), ui);
    if let Some(plan) = earlier {
        settings.sweep.context = plan.context_for(&settings.sweep.context);
    }
    let counts = super::plan::count(settings, ui)?;
    if counts.measurements > super::plan::WHOLE && !settings.yes && args.dry_run.is_none() {
        return Err(Error::Usage {
            message: format!(
                "the sweep asks for {} experiments on {} server starts",
                counts.measurements, counts.starts
            ),
            hint: "look at it with `vllm-bench plan`; if it is meant, add `--yes`".to_owned(),
        });
    }
    let plan = match noise_check(args)? {
        None => settings.plan()?,
        Some(starts) => {
            (settings.sweep.repeats.starts, settings.sweep.repeats.auto) = (starts, false);
            one_configuration(settings.plan()?)
        }
    };
    if let Some(message) = baseline_problem(&settings.sweep, &plan) {
        let hint = "name a group that has one configuration for each model, or give the baseline's values".to_owned();
        return Err(Error::Usage { message, hint });
    }
    Ok(plan)
}

/// Asks the vLLM that will be run whether it knows all flags.
fn preflight(settings: &Settings, environment: &Environment, ui: &Ui) -> Result<(), Error> {
    if settings.simulated() {
        return super::preflight::check_simulated(settings, environment, ui);
    }
    match engine::find(settings, environment) {
        Ok(program) => super::preflight::check(settings, environment, &program, ui),
        // The run says so itself in a moment.
        Err(_) => Ok(()),
    }
}

/// What is left out: one warning for each rule and reason, however many combinations it has.
fn skip_warnings(plan: &Plan) -> Vec<String> {
    let mut reasons: IndexMap<(&str, &str), Vec<&Skip>> = IndexMap::new();
    for skip in &plan.skips {
        reasons.entry((&skip.rule, skip.why())).or_default().push(skip);
    }
    let mut warnings: Vec<String> = Vec::new();
    for ((rule, why), skips) in reasons {
        warnings.push(match skips.as_slice() {
            [one] => one.reason.clone(),
            many => format!(
                "Skipping {} combinations by the rule `{rule}` ({why}): {} names them",
                many.len(),
                layout::SKIPPED
            ),
        });
    }
    if let Some(more @ 1..) = plan.skipped().checked_sub(plan.skips.len()) {
        warnings.push(format!("… and {more} more combinations are left out: `vllm-bench plan --all` lists them"));
    }
    warnings
}

/// Keeps every warning of a combination that is left out, one a line (rule 8): a screen shows them folded.
fn keep_skips(plan: &Plan, run: &RunDir) -> Result<(), record::Error> {
    if plan.skips.is_empty() {
        return Ok(());
    }
    atomic::keep_again_with(&run.layout().skipped(), |out| {
        for skip in &plan.skips {
            writeln!(out, "warning: {}", skip.reason)?;
            if let Some(explanation) = &skip.explanation {
                writeln!(out, "  why: {explanation}")?;
            }
        }
        match plan.skipped().saturating_sub(plan.skips.len()) {
            0 => Ok(()),
            more => writeln!(out, "and {more} more: `vllm-bench plan --all` lists them"),
        }
    })
}

/// One session of a run.
struct Sweep<'a> {
    args: &'a RunArgs,
    settings: &'a Settings,
    plan: &'a Plan,
    /// What it has where several server configurations run at once.
    lanes: Option<Lanes>,
    environment: &'a Environment,
    ui: &'a Ui,
    /// The run that goes on, or grows.
    earlier: Option<Earlier>,
}

impl Sweep<'_> {
    async fn execute(&self) -> Result<u8, Error> {
        if self.settings.place == Place::Slurm {
            return slurm::execute(self).await;
        }
        let patience = Patience::of(self.args.wait.as_ref())?;
        if self.args.detached_child {
            detach::leave_terminal();
        }
        become_subreaper();
        let (sender, mut stop) = stop_channel();
        // Signals are listened to before anything is started.
        let signals = Signals::listen(sender.clone(), Role::Run)?;
        let engine = engine::resolve(self.settings, self.environment).await?;
        let lock = lock_results(self.settings)?;
        match &self.earlier {
            Some(Earlier { run, .. }) => {
                require_not_live(run)?;
                require_no_jobs(run)?;
            }
            None => self.require_free_name()?,
        }
        let (metric, better) = truth::metric(self.settings);
        let reporter = Reporter::new(self.ui.clone(), self.plan, self.settings.simulated())
            .by(&metric, better)
            .with_log_times(format::log_times(Utc::now().with_timezone(&self.settings.zone).fixed_offset()));
        let early = Emitter::new(Arc::new(Silent { reporter: reporter.clone() }), sender.clone());
        // What a killed run of this user had left holds its locks: it is ended first.
        end_all_leftovers(self.settings.grace, &early, &mut stop).await?;
        let locking = Locking {
            settings: self.settings,
            plan: self.plan,
            environment: self.environment,
            patience,
            is_detached: self.args.detached_child,
            ui: self.ui,
        };
        let Some(devices) = locking.lock(&mut stop).await? else {
            self.ui.say("the wait for devices was ended: nothing was begun");
            return Ok(exit::SIGNAL + signals.first().unwrap_or(15));
        };
        let (grace, keep) = (self.settings.grace, self.settings.keep_foreign);
        end_foreign_and_leftovers(&Scope::User, grace, keep, &early, &mut stop).await?;
        let earlier = self.earlier.as_ref();
        let mut prepared = prepare(
            earlier,
            self.settings,
            self.plan,
            self.environment,
            Some(&engine),
            (lock, devices, self.lanes.as_ref()),
        )
        .await?;
        if self.args.detached_child {
            detach::report_ready(&prepared.run, prepared.resumed)?;
        }
        self.announce(&prepared);
        let recorder = RunRecorder::open(&prepared.run, self.settings.zone, reporter.clone())?;
        let dashboard = dashboard::beside(&prepared.run, self.args, self.environment, self.ui);
        let pusher = dashboard::pushed(&prepared.run, self.settings, self.environment, &reporter);
        let tracking = tracking::beside(&prepared.run, &prepared.manifest, self.settings, self.environment, self.ui);
        if let Some(notifier) = tracking.notifier() {
            recorder.subscribe("notify", notifier);
        }
        signals.record_into(&recorder);
        let kind = prepared.manifest.devices.kind;
        let mut context = unit_context(self.settings, self.plan, self.environment, engine, (&prepared.run, kind))?;
        context.units.clone_from(&prepared.devices.units);
        contained::put_into(&mut context, self.settings, self.environment, kind)?;
        let ticking = tokio::spawn(tick(reporter.clone()));
        let (over, shown_until) = oneshot::channel();
        let show = follow::show(prepared.run.clone(), reporter.clone(), shown_until);
        let showing = self.settings.show_logs.then(|| tokio::spawn(show));
        let began = Instant::now();
        let totals = tokio::select! {
            totals = self.measure(context, &mut prepared, (&recorder, &reporter), sender, stop) => totals,
            // The third signal: leave at once. The guards see their control pipes close and end their groups.
            number = signals.leave() => {
                reporter.close();
                return Ok(exit::SIGNAL + number);
            }
        };
        ticking.abort();
        drop(over);
        if let Some(showing) = showing {
            // The last lines of the last log.
            let _ = showing.await;
        }
        reporter.close();
        prepared.devices.held = None;
        let code = match totals {
            Ok(totals) => self.conclude(totals, recorder, &prepared, (&signals, &tracking), began),
            Err(error) => Err(error),
        };
        // The lock is held until here: whoever watches is told that the run is over when it is.
        drop(prepared);
        if let Some(dashboard) = &dashboard {
            dashboard.farewell();
        }
        if let Some(pusher) = pusher {
            pusher.end();
        }
        let told = code.as_ref().map_or_else(Error::exit_code, |code| *code);
        tracking.farewell(Some(told), self.environment, || signals.count(), self.ui);
        code
    }

    /// A new run must not be called like another one.
    fn require_free_name(&self) -> Result<(), Error> {
        if let Some(name) = &self.settings.name {
            remove_empty_runs(&self.settings.results_dir);
            find_run::require_free_name(name, &self.settings.results_dir, self.environment)?;
        }
        Ok(())
    }

    /// Says what is about to happen.
    fn announce(&self, prepared: &Prepared) {
        let mark = if self.settings.simulated() { ", SIMULATED (no real server)" } else { "" };
        self.ui.say(&format!(
            "vllm-bench {}: {}{}, {} skipped{mark}",
            env!("CARGO_PKG_VERSION"),
            if self.plan.until_decided.is_some() { "at most " } else { "" },
            format::count(self.plan.experiments.len(), "experiment"),
            format::count(self.plan.skipped(), "combination")
        ));
        let shared = shared_by_all(self.plan);
        if !shared.is_empty() {
            self.ui.say(&format!("same for all: {shared}"));
        }
        let name = prepared.manifest.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        self.ui.say(&format!("run directory: {}{name}", prepared.run.path().display()));
        if let Err(error) = keep_skips(self.plan, &prepared.run) {
            self.ui.warn(&format!("{error}"));
        }
        if !prepared.resumed {
            skip_warnings(self.plan).iter().for_each(|warning| self.ui.warn(warning));
        }
        if !self.settings.simulated()
            && self.settings.container.is_none()
            && let Some(setvars) = self.settings.setvars.as_deref().filter(|path| !path.is_file())
        {
            self.ui.say(&format!("note: `{}` is not here; the scripts do without it", setvars.display()));
        }
    }

    /// The record's end, the analysis, the exit code.
    fn conclude(
        &self,
        totals: Totals,
        recorder: RunRecorder,
        prepared: &Prepared,
        (signals, tracking): (&Signals, &Tracking),
        began: Instant,
    ) -> Result<u8, Error> {
        if let Some(error) = recorder.take_error() {
            return Err(error);
        }
        let _ = recorder.event(&Event::RunFinished {
            passed: prepared.valid.len() + totals.passed,
            failed: totals.failed,
            skipped: self.plan.skipped(),
            interrupted: totals.interrupted || totals.stopped_by_failure,
            seconds: began.elapsed().as_secs_f64(),
        });
        if let Some(error) = recorder.take_error() {
            return Err(error);
        }
        recorder.close().iter().for_each(|lost| self.ui.warn(lost));
        let interrupted = totals.interrupted || totals.stopped_by_failure;
        let mut code = super::analyze::analyse_ended(prepared.run.path(), interrupted, self.environment, self.ui)?;
        if self.plan.before.is_some() && !totals.interrupted {
            let sides = CompareArgs { before: prepared.run.path().to_owned(), ..CompareArgs::default() };
            let compared = super::compare::run(&sides, self.environment, self.ui)?;
            if let (exit::EXPERIMENT_FAILED, Some(before)) = (compared, &self.plan.before) {
                tracking.became_worse(&before.run);
            }
            code = code.max(compared);
        }
        if totals.interrupted {
            self.ui.hint(&format!("resume with `{}`", format::resume(prepared.run.path(), self.environment)));
            return Ok(exit::SIGNAL + signals.first().unwrap_or(15));
        }
        if totals.stopped_by_failure {
            self.ui.hint(&format!(
                "`on-failure: stop` ended the run at its first failure; resume with `{}`",
                format::resume(prepared.run.path(), self.environment)
            ));
            return Ok(exit::EXPERIMENT_FAILED);
        }
        Ok(code)
    }
}

/// A run whose jobs are queued or running on a cluster is not measured here as well.
fn require_no_jobs(run: &RunDir) -> Result<(), Error> {
    match cluster::open_tasks(run) {
        0 => Ok(()),
        tasks => Err(Error::Usage {
            message: format!(
                "{} of `{}` may be queued or running on a cluster",
                format::count(tasks, "task"),
                run.path().display()
            ),
            hint: "go on there with `--executor slurm`, or end them first: `vllm-bench stop`".to_owned(),
        }),
    }
}

/// What failures mean.
fn policy_of(settings: &Settings) -> Policy {
    Policy {
        retry: settings.retry.clone(),
        on_failure: settings.on_failure,
        cooldown: settings.cooldown,
        ..Policy::default()
    }
}

/// What every experiment of a session shares, with the devices of this kind.
fn unit_context(
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
    engine: EngineCommand,
    (run, kind): (&RunDir, DeviceKind),
) -> Result<UnitContext, Error> {
    let mut secret_env = settings.secret_env.clone();
    let given = secret_env.iter().find(|(name, _)| name == "VLLM_API_KEY").map(|(_, value)| value.clone());
    let api_key = given.or_else(|| environment.get("VLLM_API_KEY").map(str::to_owned));
    let has_client_key =
        secret_env.iter().any(|(name, _)| name == "OPENAI_API_KEY") || environment.get("OPENAI_API_KEY").is_some();
    if let (Some(key), false) = (&api_key, has_client_key) {
        // `vllm serve` reads its key from VLLM_API_KEY, `vllm bench serve` sends the one in OPENAI_API_KEY.
        secret_env.push(("OPENAI_API_KEY".to_owned(), key.clone()));
    }
    let simulated = settings.simulated();
    Ok(UnitContext {
        engine,
        container: None,
        before: plan.before.as_ref().and_then(|before| before.vllm.clone()).map(EngineCommand::of),
        setvars: settings.setvars.clone().filter(|path| path.is_file() && !simulated),
        login: settings.login,
        vllm_version: settings.sweep.context.vllm_version.clone(),
        start_limit: settings.start_limit,
        timeout_benchmark: settings.timeout_benchmark,
        stall: settings.stall,
        grace: settings.grace,
        secrets: safe::values(),
        unset: environment.own_variables(),
        secret_env,
        api_key,
        run: run.path().to_owned(),
        nodes: nodes::of_job(environment),
        compile_locks: nodes::compile_locks(environment, run.path(), simulated),
        probe: Probe::of_machine(environment.vars().clone()),
        // A simulated server uses no device: nothing there could come back.
        devices: if simulated { DeviceKind::Cpu } else { kind },
        units: Vec::new(),
        strangers: Strangers::default(),
        warmup_prompts: settings.warmup_prompts,
        telemetry: settings.telemetry,
        http: crate::http::client(false).build().map_err(std::io::Error::other)?,
    })
}

/// Secrets that the plan counts on and nobody has given to this session: their values are nowhere on disk.
fn missing_secrets(plan: &Plan, settings: &Settings, environment: &Environment) -> Vec<String> {
    let mut names: Vec<String> = plan.experiments.iter().flat_map(|e| e.server.secret_env.iter().cloned()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| environment.get(name).is_none() && !settings.secret_env.iter().any(|(given, _)| given == name));
    names
}

/// Keeps the elapsed seconds on the screen moving.
async fn tick(reporter: Reporter) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        reporter.tick();
    }
}

//! What must stand before the first experiment: locks, the run directory, the manifest.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::cli::RunArgs;
use crate::config::{Environment, PortChoice, Settings};
use crate::error::Error;
use crate::execute::{Attempted, EngineCommand, Event, Failure, Job, Recorder, port};
use crate::plan::{Engine, Experiment, Plan, extend};
use crate::preflight::installed_version;
use crate::process::{ProcessId, registry};
use crate::record::{
    self, Holder, Limits, Lock, Manifest, RunDir, RunState, SCHEMA, Setting, VllmInfo, layout, list_runs,
};
use crate::safe;
use crate::telemetry::{HostInfo, Probe, devices};
use crate::ui::Reporter;

/// The first port that `--port auto` tries.
const FIRST_PORT: u16 = 8000;

/// Everything a session needs that is on disk or locked.
#[derive(Debug)]
pub struct Prepared {
    /// The run directory.
    pub run: RunDir,
    /// What earlier sessions came to.
    pub state: RunState,
    /// Whether the run directory existed before.
    pub resumed: bool,
    /// Names of experiments with a valid result from before.
    pub valid: Vec<String>,
    /// The server's port.
    pub ports: Ports,
    /// The manifest as written.
    pub manifest: Manifest,
    /// Held for the life of the run.
    _lock: Lock,
}

/// Shows what happens before there is a journal.
pub struct Silent<'a> {
    /// Where it is shown.
    pub reporter: &'a Reporter,
}

impl Recorder for Silent<'_> {
    fn event(&mut self, event: &Event) -> ControlFlow<()> {
        self.reporter.event(event);
        ControlFlow::Continue(())
    }

    fn validate(&self, _: &Experiment, _: &Map<String, Value>) -> Result<(), Failure> {
        Ok(())
    }

    fn keep(&mut self, _: &Job<'_>, _: &Attempted) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn finished(&mut self, _: &Job<'_>, _: &Attempted) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Takes the lock of the results directory, making the directory where it is missing.
///
/// # Errors
/// [`record::Error::Locked`] with its holder.
pub fn lock_results(settings: &Settings) -> Result<Lock, Error> {
    let dir = &settings.results_dir;
    std::fs::create_dir_all(dir).map_err(record::Error::write(dir))?;
    match Lock::take(&layout::results_lock(dir))? {
        Ok(lock) => Ok(lock),
        Err(holder) => {
            Err(record::Error::Locked { path: dir.clone(), holder: Box::new(holder.unwrap_or_else(unknown)) }.into())
        }
    }
}

/// Chooses the port and the run directory, and writes the manifest of a new one.
///
/// # Errors
/// When the port is taken, there is nothing to resume, or the disk refuses.
pub async fn prepare(
    args: &RunArgs,
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
    engine: &EngineCommand,
    mut results_lock: Lock,
) -> Result<Prepared, Error> {
    let (port, port_lock) = take_port(settings.port)?;
    record::remove_stillborn(&settings.results_dir);
    let earlier = find_run(args, settings, plan, environment)?;
    let resumed = earlier.is_some();
    let (run, manifest) = match earlier {
        Some((run, manifest)) => {
            run.prepare_resume()?;
            (run, manifest)
        }
        None => create_run(settings, plan, environment, engine).await?,
    };
    let holder = Holder {
        process: ProcessId::current(),
        user: user_name(),
        since: Utc::now().with_timezone(&settings.zone).format("%Y-%m-%d %H:%M:%S %Z").to_string(),
        run: run.path().to_owned(),
    };
    results_lock.sign(&layout::results_lock(&settings.results_dir), &holder)?;
    let ports = Ports { choice: settings.port, port, lock: port_lock, holder };
    let ports = ports.signed()?;
    let state = run.state()?;
    let valid: Vec<String> =
        plan.experiments.iter().filter(|e| resumed && run.valid_result(e).is_some()).map(|e| e.name.clone()).collect();
    if resumed && valid.len() == plan.experiments.len() && state.is_finished() {
        return Err(Error::Nothing {
            message: format!("every experiment of `{}` has a valid result already", run.path().display()),
            hint: "begin a new run without `--resume`".into(),
        });
    }
    Ok(Prepared { run, state, resumed, valid, ports, manifest, _lock: results_lock })
}

/// The port of the next server, and the lock that keeps other runs off it.
#[derive(Debug)]
pub struct Ports {
    choice: PortChoice,
    port: u16,
    lock: Lock,
    holder: Holder,
}

impl Ports {
    fn signed(mut self) -> Result<Self, Error> {
        self.lock.sign(&port_lock_path(self.port)?, &self.holder)?;
        Ok(self)
    }

    /// The port of the next server: with `--port auto` another one, where somebody took the last one meanwhile.
    pub fn next(&mut self) -> u16 {
        if self.choice == PortChoice::Auto
            && port::holder(self.port).is_some()
            && let Ok((port, lock)) = take_port(PortChoice::Auto)
        {
            (self.port, self.lock) = (port, lock);
            // Unsigned, the lock holds as well; only its message to others is poorer.
            if let Ok(path) = port_lock_path(port) {
                let _ = self.lock.sign(&path, &self.holder);
            }
        }
        self.port
    }
}

fn take_port(choice: PortChoice) -> Result<(u16, Lock), Error> {
    match choice {
        PortChoice::Fixed(port) => match Lock::take(&port_lock_path(port)?)? {
            Ok(lock) => Ok((port::require_free(port)?, lock)),
            Err(holder) => {
                Err(record::Error::PortLocked { port, holder: Box::new(holder.unwrap_or_else(unknown)) }.into())
            }
        },
        PortChoice::Auto => {
            let claim = |port| Lock::take(&port_lock_path(port).ok()?).ok()?.ok();
            Ok(port::find_free(FIRST_PORT, claim)?)
        }
    }
}

fn port_lock_path(port: u16) -> Result<PathBuf, Error> {
    Ok(registry::home()?.join(format!("port-{port}.lock")))
}

/// The run to go on with: the one named, or the newest unfinished one of the same plan.
fn find_run(
    args: &RunArgs,
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
) -> Result<Option<(RunDir, Manifest)>, Error> {
    if let Some(run) = &settings.extend {
        return open_extended(run, plan, settings).map(Some);
    }
    match &args.resume {
        Some(Some(named)) => open_named(named, settings, plan, environment).map(Some),
        Some(None) => match newest_unfinished(&settings.results_dir, plan)? {
            Some(found) => Ok(Some(found)),
            None => Err(Error::Nothing {
                message: format!("no unfinished run of this plan in `{}`", settings.results_dir.display()),
                hint: "repeat the flags of the run to go on with, name it with `--resume RUN`, or begin a new one without `--resume`".into(),
            }),
        },
        None if args.detached_child && !args.fresh => newest_unfinished(&settings.results_dir, plan),
        None => Ok(None),
    }
}

/// Takes over what the run named by `--resume RUN` brings: its results directory, its plan where no flag shapes
/// another, its limits and its vLLM where no flag says otherwise.
///
/// # Errors
/// When it cannot be found or read.
pub fn adopt_named(named: &Path, settings: &mut Settings, environment: &Environment) -> Result<Option<Plan>, Error> {
    let run = locate_named(named, settings, environment)?;
    let manifest = run.manifest()?;
    if let Some(parent) = run.path().parent() {
        settings.results_dir = parent.to_owned();
    }
    let keys = settings.given.clone();
    let given = |key| keys.contains(key);
    let limit = |key, seconds: f64, now: Duration| {
        let recorded = Duration::try_from_secs_f64(seconds).unwrap_or(now);
        if given(key) { now } else { recorded }
    };
    let limits = manifest.limits;
    let (startup, benchmark, grace) = (
        limit("timeout-startup", limits.startup, settings.timeout_startup),
        limit("timeout-benchmark", limits.benchmark, settings.timeout_benchmark),
        limit("grace", limits.grace, settings.grace),
    );
    if let (false, Some(seconds)) = (given("stall-timeout"), limits.stall) {
        settings.stall = Duration::try_from_secs_f64(seconds).ok().filter(|stall| !stall.is_zero());
    }
    if let (false, Ok(zone)) = (given("timezone"), manifest.timezone.parse()) {
        settings.zone = zone;
    }
    (settings.timeout_startup, settings.timeout_benchmark, settings.grace) = (startup, benchmark, grace);
    if settings.plan_is_given() {
        return Ok(None);
    }
    let program = settings.vllm_bin.clone().or_else(|| manifest.vllm.as_ref().map(|vllm| vllm.path.clone()));
    let here = program.as_deref().filter(|_| manifest.engine == Engine::Vllm).and_then(installed_version);
    if let (Some(then), Some(here)) = (&manifest.plan.context.vllm_version, &here)
        && then != here
    {
        return Err(Error::Usage {
            message: format!("`{}` was measured with vLLM {then}, and here is vLLM {here}", run.path().display()),
            hint: "their figures must not be mixed: begin a new run, or name the other vLLM with `--vllm-bin`".into(),
        });
    }
    settings.sweep.engine = manifest.engine;
    settings.keep_foreign |= manifest.engine == Engine::Sim;
    settings.vllm_bin = settings.vllm_bin.take().or(manifest.vllm.map(|vllm| vllm.path));
    let mut plan = manifest.plan;
    if given("sim-speed") {
        // The one setting of a simulation that changes no figure.
        let speed = settings.simulation.iter().find(|(name, _)| name == crate::sim::settings::SPEED);
        for experiment in plan.experiments.iter_mut().filter(|e| e.engine == Engine::Sim) {
            experiment.server.env.extend(speed.cloned());
        }
    }
    Ok(Some(plan))
}

/// The plan of the run named by `--extend RUN`, with what `plan` asks for beyond it.
///
/// # Errors
/// When the run cannot be found or read, is of another engine, or has everything already.
pub fn extend_named(
    named: &Path,
    settings: &mut Settings,
    plan: Plan,
    environment: &Environment,
) -> Result<Plan, Error> {
    let run = locate_named(named, settings, environment)?;
    let manifest = run.manifest()?;
    if manifest.engine != settings.sweep.engine {
        let message = format!("`{}` was run with the engine `{}`", run.path().display(), manifest.engine);
        return Err(Error::Usage { message, hint: "extend it with the same `--engine`".to_owned() });
    }
    if let Some(parent) = run.path().parent() {
        settings.results_dir = parent.to_owned();
    }
    settings.extend = Some(run.path().to_owned());
    let grown = extend(&manifest.plan, plan);
    if grown.experiments.len() == manifest.plan.experiments.len() {
        return Err(Error::Nothing {
            message: format!("`{}` has every experiment of this sweep already", run.path().display()),
            hint: format!("go on with what has no valid result: `vllm-bench run --resume {}`", run.path().display()),
        });
    }
    Ok(grown)
}

/// Opens the run that is extended, and writes its larger plan.
fn open_extended(run: &Path, plan: &Plan, settings: &Settings) -> Result<(RunDir, Manifest), Error> {
    let run = RunDir::open(run)?;
    let mut manifest = run.manifest()?;
    manifest.plan = plan.clone();
    let record = |(value, origin): &(Value, String)| Setting { value: value.clone(), origin: origin.clone() };
    manifest.settings = settings.record.iter().map(|(key, value)| (key.clone(), record(value))).collect();
    record::atomic::write_json(&run.layout().manifest(), &manifest)?;
    Ok((run, manifest))
}

fn locate_named(named: &Path, settings: &Settings, environment: &Environment) -> Result<RunDir, Error> {
    let inside = settings.results_dir.join(named);
    let path = if inside.is_dir() { inside } else { environment.absolute(named) };
    Ok(RunDir::open(&path)?)
}

fn open_named(
    named: &Path,
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
) -> Result<(RunDir, Manifest), Error> {
    let run = locate_named(named, settings, environment)?;
    let manifest = run.manifest()?;
    if manifest.plan.identity != plan.identity {
        return Err(Error::Usage {
            message: format!(
                "the plan of `{}` is another one: nothing of it may be mixed with these settings",
                run.path().display()
            ),
            hint: "leave out the flags that shape the plan, or begin a new run without `--resume`".to_owned(),
        });
    }
    Ok((run, manifest))
}

fn newest_unfinished(results_dir: &Path, plan: &Plan) -> Result<Option<(RunDir, Manifest)>, Error> {
    for run in list_runs(results_dir)?.into_iter().rev() {
        let Ok(manifest) = run.manifest() else { continue };
        // One that was killed after its last result still lacks its end in the journal and its reports.
        let unfinished = || {
            plan.experiments.iter().any(|experiment| run.valid_result(experiment).is_none())
                || run.state().is_ok_and(|state| !state.is_finished())
        };
        if manifest.plan.identity == plan.identity && unfinished() {
            return Ok(Some((run, manifest)));
        }
    }
    Ok(None)
}

async fn create_run(
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
    engine: &EngineCommand,
) -> Result<(RunDir, Manifest), Error> {
    let probe = Probe::of_machine(environment.vars().clone());
    let facts = tokio::task::spawn_blocking(move || (HostInfo::read(&probe), devices::detect(&probe))).await;
    let (host, devices) = facts.map_err(std::io::Error::other)?;
    let now = Utc::now();
    let run = RunDir::create(&settings.results_dir, now, settings.zone)?;
    let words: Vec<&str> = environment.command_line().iter().map(|arg| as_called(arg)).collect();
    let record = |(value, origin): &(Value, String)| Setting { value: value.clone(), origin: origin.clone() };
    let manifest = Manifest {
        schema: SCHEMA,
        vllm_bench: env!("CARGO_PKG_VERSION").to_owned(),
        simulated: settings.simulated(),
        run: run.name(),
        created: now.with_timezone(&settings.zone).to_rfc3339_opts(SecondsFormat::Millis, false),
        timezone: settings.zone.name().to_owned(),
        command_line: safe::without_secrets(&words),
        working_directory: environment.working_directory().to_owned(),
        engine: settings.sweep.engine,
        vllm: (!settings.simulated()).then(|| VllmInfo { path: engine.program.clone(), version: None }),
        settings: settings.record.iter().map(|(key, value)| (key.clone(), record(value))).collect::<IndexMap<_, _>>(),
        limits: Limits {
            startup: settings.timeout_startup.as_secs_f64(),
            benchmark: settings.timeout_benchmark.as_secs_f64(),
            stall: Some(settings.stall.unwrap_or_default().as_secs_f64()),
            grace: settings.grace.as_secs_f64(),
        },
        host,
        devices,
        plan: plan.clone(),
    };
    record::atomic::write_json(&run.layout().manifest(), &manifest)?;
    Ok((run, manifest))
}

/// The flag that the user wrote where the detached process has one of ours.
fn as_called(arg: &str) -> &str {
    if arg == "--detached-child" { "--detach" } else { arg }
}

fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// A lock that is held but not signed yet.
fn unknown() -> Holder {
    Holder {
        process: ProcessId { pid: 0, start_time: 0 },
        user: "unknown".into(),
        since: "just now".into(),
        run: PathBuf::new(),
    }
}

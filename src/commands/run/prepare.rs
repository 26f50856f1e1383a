//! What must stand before the first experiment: locks, the run directory, the manifest.

use std::ops::ControlFlow;

use chrono::{SecondsFormat, Utc};
use chrono_tz::Tz;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::devices::Devices;
use super::lanes::{self, Lanes};
use super::resume::Earlier;
use super::truth;
use crate::commands::format;
use crate::config::{Environment, Finalists, Place, PortChoice, Settings};
use crate::error::Error;
use crate::execute::{Attempted, EngineCommand, Job, Lease, LockedPort, Recorder};
use crate::model::{Event, Experiment, Failure, Plan, ProcessId};
use crate::process::{procfs, registry};
use crate::record::{self, Holder, Limits, Lock, Manifest, RunDir, RunState, SCHEMA, Setting, VllmInfo, layout};
use crate::safe;
use crate::telemetry::{DeviceKind, DeviceReport, HostInfo, Probe};
use crate::ui::Reporter;

/// The zone in which a run shows its times.
fn zone_of(run: &RunDir) -> Tz {
    run.manifest().ok().and_then(|manifest| manifest.timezone.parse().ok()).unwrap_or(chrono_tz::UTC)
}

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
    /// What blocks run on.
    pub leases: Vec<Lease>,
    /// Devices that the servers may use, locked for the life of the run.
    pub devices: Devices,
    /// The manifest as written.
    pub manifest: Manifest,
    /// Held for the life of the run.
    _lock: Lock,
}

/// Shows what happens before there is a journal.
#[derive(Debug)]
pub struct Silent {
    /// Where it is shown.
    pub reporter: Reporter,
}

impl Recorder for Silent {
    fn event(&self, event: &Event) -> ControlFlow<()> {
        self.reporter.event(event);
        ControlFlow::Continue(())
    }

    fn validate(&self, _: &Experiment, _: &Map<String, Value>) -> Result<(), Failure> {
        Ok(())
    }

    fn keep(&self, _: &Job, _: &Attempted) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn finished(&self, _: &Job, _: &Attempted) -> ControlFlow<()> {
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
            Err(record::Error::Locked { path: dir.clone(), holder: Box::new(holder.unwrap_or_else(Holder::unknown)) }
                .into())
        }
    }
}

/// Refuses a run directory that a living session writes to, though nobody holds the lock: somebody removed its file. What was
/// begun says so: the journal, and the process groups of the run.
///
/// # Errors
/// [`record::Error::Locked`] with that session.
pub fn require_not_live(run: &RunDir) -> Result<(), Error> {
    let state = run.state()?;
    let journal = state.process.filter(|process| {
        state.finished.is_none() && process.is_alive() && procfs::is_this_program(process.pid) != Some(false)
    });
    let process = match journal {
        Some(process) => process,
        None => {
            match registry::records()?.iter().find(|record| record.is_cared_for() && record.owner.run == run.path()) {
                Some(record) => record.orchestrator,
                None => return Ok(()),
            }
        }
    };
    let holder = Holder {
        process,
        user: procfs::uid(process.pid).map_or_else(|| "another user".to_owned(), |uid| user_name(uid.into())),
        since: state.session_began.map_or_else(|| "an unknown time".to_owned(), |at| format::moment(at, zone_of(run))),
        run: run.path().to_owned(),
    };
    Err(record::Error::Locked { path: run.path().to_owned(), holder: Box::new(holder) }.into())
}

/// Chooses the ports and the run directory, and writes the manifest of a new one. On a cluster each task has a port of its own, and tasks may
/// be at work in the directory. `engine`: as far as it is known here.
///
/// # Errors
/// When the port is taken, there is nothing to resume, or the disk refuses.
pub async fn prepare(
    earlier: Option<&Earlier>,
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
    engine: Option<&EngineCommand>,
    (mut results_lock, mut devices, lanes): (Lock, Devices, Option<&Lanes>),
) -> Result<Prepared, Error> {
    let ports = match (settings.place, lanes, settings.port) {
        (Place::Slurm, _, _) => Vec::new(),
        (Place::Local, Some(lanes), _) => lanes.ports(settings)?,
        (Place::Local, None, PortChoice::Fixed(port)) => vec![LockedPort::take(Some(port))?],
        (Place::Local, None, PortChoice::Auto) => vec![LockedPort::take(None)?],
    };
    record::remove_empty_runs(&settings.results_dir);
    let resumed = earlier.is_some();
    let (run, manifest) = match earlier {
        Some(Earlier { run, manifest, changed, .. }) => {
            match settings.place {
                Place::Local => run.prepare_resume()?,
                Place::Slurm => run.prepare_beside_tasks()?,
            }
            if *changed {
                record::atomic::keep_json(&run.layout().manifest(), manifest)?;
            }
            (run.clone(), manifest.clone())
        }
        None => create_run(settings, plan, environment, engine, devices.quiet).await?,
    };
    let holder = Holder {
        process: ProcessId::current(),
        user: user_name(nix::unistd::geteuid()),
        since: format::moment(Utc::now(), settings.zone),
        run: run.path().to_owned(),
    };
    results_lock.sign(&layout::results_lock(&settings.results_dir), &holder)?;
    devices.held.iter_mut().for_each(|held| held.name_run(run.path()));
    let leases = lanes::signed(ports, &holder)?;
    let state = run.state()?;
    let valid: Vec<String> =
        plan.experiments.iter().filter(|e| resumed && run.valid_result(e).is_some()).map(|e| e.name.clone()).collect();
    let asked = plan.experiments.iter().filter(|e| state.is_asked(plan.until_decided, &e.name, e.repeat)).count();
    let is_whole = resumed && valid.len() == asked && state.is_finished() && settings.place == Place::Local;
    let is_settled = || settings.finalists == Finalists::Off || truth::with_finalists(run.path(), plan).is_none();
    if is_whole && is_settled() {
        return Err(Error::Nothing {
            message: format!("every experiment of `{}` has a valid result already", run.path().display()),
            hint: "begin a new run without `--resume`".into(),
        });
    }
    Ok(Prepared { run, state, resumed, valid, leases, devices, manifest, _lock: results_lock })
}

async fn create_run(
    settings: &Settings,
    plan: &Plan,
    environment: &Environment,
    engine: Option<&EngineCommand>,
    quiet: bool,
) -> Result<(RunDir, Manifest), Error> {
    let probe = Probe { quiet, ..Probe::of_machine(environment.vars().clone()) };
    let facts =
        tokio::task::spawn_blocking(move || (HostInfo::read(&probe), crate::telemetry::devices::detect(&probe))).await;
    let (host, mut devices) = facts.map_err(std::io::Error::other)?;
    if settings.place == Place::Slurm {
        // Those of the front are not those of the nodes.
        devices = DeviceReport { kind: DeviceKind::Cpu, devices: Vec::new(), ..devices };
    }
    let now = Utc::now();
    let run = RunDir::create(&settings.results_dir, now, settings.zone)?;
    let words: Vec<&str> = environment.command_line().iter().map(|arg| as_called(arg)).collect();
    let record = |(value, origin): &(Value, String)| Setting { value: value.clone(), origin: origin.clone() };
    let manifest = Manifest {
        schema: SCHEMA,
        vllm_bench: env!("CARGO_PKG_VERSION").to_owned(),
        simulated: settings.simulated(),
        run: run.name(),
        name: settings.name.clone(),
        created: now.with_timezone(&settings.zone).to_rfc3339_opts(SecondsFormat::Millis, false),
        timezone: settings.zone.name().to_owned(),
        command_line: safe::without_secrets(&words),
        working_directory: environment.working_directory().to_owned(),
        engine: settings.sweep.engine,
        vllm: engine
            .filter(|_| !settings.simulated())
            .map(|engine| VllmInfo { path: engine.program.clone(), version: None }),
        settings: settings.record.iter().map(|(key, value)| (key.clone(), record(value))).collect::<IndexMap<_, _>>(),
        sweep: settings.kept().to_json(),
        limits: limits(settings),
        host,
        devices,
        plan: plan.clone(),
    };
    record::atomic::keep_json(&run.layout().manifest(), &manifest)?;
    Ok((run, manifest))
}

/// The limits of the manifest.
pub fn limits(settings: &Settings) -> Limits {
    Limits {
        startup: settings.start_limit.limit.as_secs_f64(),
        startup_most: Some(settings.start_limit.most().as_secs_f64()),
        benchmark: settings.timeout_benchmark.as_secs_f64(),
        stall: Some(settings.stall.unwrap_or_default().as_secs_f64()),
        grace: settings.grace.as_secs_f64(),
    }
}

/// The flag that the user wrote where the detached process has one of ours.
fn as_called(arg: &str) -> &str {
    if arg == "--detached-child" { "--detach" } else { arg }
}

pub(super) fn user_name(uid: nix::unistd::Uid) -> String {
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

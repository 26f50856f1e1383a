//! `vllm-bench task`, which a batch script of a cluster calls: measures what one index of an array job is to measure, as `run` does on
//! this machine, with a journal of its own in the run directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;

use crate::campaign;
use crate::cli::{RunArgs, TaskArgs};
use crate::commands::format;
use crate::config::{Environment, Preset, Settings};
use crate::error::Error;
use crate::execute::{Emitter, EngineCommand, Leases, LocalExecutor, LockedPort, Scope, end_foreign_and_leftovers};
use crate::exit;
use crate::model::{Cause, ComputeUnit, Event, Experiment, Outcome, Placement, Plan, ProcessId};
use crate::process::{Stop, StopLevel, become_subreaper, stop_channel};
use crate::record::layout::first_free;
use crate::record::{self, Holder, Lock, RunDir, RunState, StopRequest, Submission, TaskPlan};
use crate::search::Grid;
use crate::telemetry::{DeviceKind, Probe, devices};
use crate::ui::{Reporter, Ui};

use super::devices::{Locking, Patience};
use super::prepare::user_name;
use super::recorder::{RunRecorder, SessionJobs};
use super::signals::{Role, Signals, TIME_LIMIT_NEAR};
use super::{contained, engine, policy_of, resume, unit_context};

/// How often it is tried whether a former start of the same task has let go of an experiment.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Slurm gave this task its devices: who else holds one is about to let go of it.
const DEVICE_PATIENCE: Duration = Duration::from_secs(600);
/// Ports of tasks: below those that the kernel gives to connections, and away from those of runs.
const FIRST_PORT: u16 = 10_000;
const PORTS: u32 = 20_000;

/// Where this process runs, as Slurm's variables say.
struct Place {
    /// The number of the array job.
    job: String,
    /// The number of this task's own job.
    own_job: Option<String>,
    task: u32,
    restart: u32,
    node: String,
}

impl Place {
    fn of(args: &TaskArgs, environment: &Environment) -> Result<Self, Error> {
        let number = |name: &str| environment.get(name).and_then(|text| text.parse::<u32>().ok());
        let task = args.task.or(number("SLURM_ARRAY_TASK_ID")).ok_or_else(|| Error::Usage {
            message: "`task` does not know which task it is: SLURM_ARRAY_TASK_ID is not set".to_owned(),
            hint: "it is for batch scripts of `vllm-bench run --executor slurm`; by hand, add `--task INDEX`"
                .to_owned(),
        })?;
        let name = |name: &str| environment.get(name).map(str::to_owned);
        let host = || nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            job: name("SLURM_ARRAY_JOB_ID").or(name("SLURM_JOB_ID")).unwrap_or_else(|| "0".to_owned()),
            own_job: name("SLURM_JOB_ID"),
            task,
            restart: number("SLURM_RESTART_COUNT").unwrap_or(0),
            node: name("SLURMD_NODENAME").or_else(host).unwrap_or_default(),
        })
    }

    /// Tasks share nodes, and perhaps not their `/tmp`: each begins its search for a port somewhere else.
    fn first_port(&self) -> u16 {
        let job = self.job.parse::<u32>().unwrap_or(0);
        let offset = job.wrapping_mul(101).wrapping_add(self.task.wrapping_mul(13)) % PORTS;
        FIRST_PORT + u16::try_from(offset).unwrap_or(0)
    }
}

/// Runs a task.
///
/// # Errors
/// When it cannot begin, or its record cannot be kept.
pub async fn run(args: &TaskArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let place = Place::of(args, environment)?;
    let run = RunDir::open(&environment.absolute(&args.run))?;
    run.require_own()?;
    let submission = Submission::read(run.layout(), args.submission)?;
    let index = usize::try_from(place.task).unwrap_or(usize::MAX);
    let planned = submission.tasks.get(index).ok_or_else(|| Error::Usage {
        message: format!("submission {} of `{}` has no task {index}", args.submission, run.path().display()),
        hint: format!("its tasks are 0 to {}", submission.tasks.len().saturating_sub(1)),
    })?;
    let (settings, plan) = settings_of(&run, environment)?;
    become_subreaper();
    let (sender, stop) = stop_channel();
    let signals = Signals::listen(sender.clone(), Role::Task)?;
    let engine = engine::resolve(&settings, environment).await?;
    let ui = ui.without_terminal();
    let reporter = Reporter::new(ui.clone(), &plan, settings.simulated());
    let layout = run.layout();
    let shard =
        layout.shard(submission.number, place.task, first_free(|n| layout.shard(submission.number, place.task, n)));
    let before = before(&run, &submission, planned, place.task)?;
    let recorder = RunRecorder::open_at(&shard, &run, settings.zone, reporter.clone())?;
    signals.record_into(&recorder);
    let emit = Emitter::new(Arc::new(recorder.clone()), sender);
    emit.event(Event::TaskStarted {
        submission: submission.number,
        task: place.task,
        job: place.job.clone(),
        restart: place.restart,
        host: place.node.clone(),
        process: ProcessId::current(),
        names: planned.experiments.iter().map(|(name, _)| name.clone()).collect(),
    });
    let task = Task {
        run: &run,
        settings: &settings,
        plan: &plan,
        environment,
        place: &place,
        before,
        submission: &submission,
        ui: &ui,
    };
    let totals = task.measure(planned, engine, (&recorder, emit.clone()), stop).await;
    let interrupted = totals.as_ref().is_ok_and(|totals| totals.interrupted);
    let why = match signals.first() {
        _ if !interrupted => None,
        Some(TIME_LIMIT_NEAR) => Some(Cause::TimeLimit),
        Some(_) | None => Some(Cause::Interrupted),
    };
    if totals.is_ok() {
        emit.event(Event::TaskEnded { submission: submission.number, task: place.task, why });
    }
    reporter.close();
    if let Some(error) = recorder.take_error() {
        return Err(error);
    }
    recorder.close().iter().for_each(|lost| ui.warn(lost));
    let totals = totals?;
    Ok(match why {
        // The end before the limit is in order: the rest is submitted again.
        Some(Cause::TimeLimit) => exit::OK,
        Some(_) => exit::SIGNAL + signals.first().unwrap_or(15),
        None if totals.failed > 0 => exit::EXPERIMENT_FAILED,
        None => exit::OK,
    })
}

/// The settings of the run, and its plan.
fn settings_of(run: &RunDir, environment: &Environment) -> Result<(Settings, Plan), Error> {
    let manifest = resume::checked(run)?;
    let kept = resume::kept(run, &manifest)?;
    let bare = environment.without_settings();
    let mut settings = Settings::resolve_over(&RunArgs::default(), &bare, Preset::Full, Some(&kept))?;
    if let Some(parent) = run.path().parent() {
        settings.results_dir = parent.to_owned();
    }
    resume::require_same_machine(&mut settings, run, &manifest, environment)?;
    let mut plan = manifest.plan;
    resume::with_speed_of(&settings, &mut plan);
    settings.sweep.context = plan.context.clone();
    Ok((settings, plan))
}

/// What earlier starts of this task, and other tasks with the same experiments, have written: only their journals are read.
fn before(run: &RunDir, submission: &Submission, planned: &TaskPlan, task: u32) -> Result<RunState, Error> {
    let layout = run.layout();
    let mine = |name: &str| planned.experiments.iter().any(|(own, _)| own == name);
    let mut entries = Vec::new();
    let mut read = |number: u32, task: u32| -> Result<(), Error> {
        for n in 1..first_free(|n| layout.shard(number, task, n)) {
            entries.push(record::read_journal(&layout.shard(number, task, n))?.entries);
        }
        Ok(())
    };
    for number in 1..submission.number {
        let Ok(earlier) = Submission::read(layout, number) else { continue };
        for (at, other) in earlier.tasks.iter().enumerate() {
            if other.experiments.iter().any(|(name, _)| mine(name)) {
                read(number, u32::try_from(at).unwrap_or(u32::MAX))?;
            }
        }
    }
    read(submission.number, task)?;
    Ok(RunState::replay(&record::by_time(entries)))
}

struct Task<'a> {
    run: &'a RunDir,
    settings: &'a Settings,
    plan: &'a Plan,
    environment: &'a Environment,
    place: &'a Place,
    before: RunState,
    submission: &'a Submission,
    ui: &'a Ui,
}

impl Task<'_> {
    async fn measure(
        &self,
        planned: &TaskPlan,
        engine: EngineCommand,
        (recorder, emit): (&RunRecorder, Emitter),
        mut stop: Stop,
    ) -> Result<campaign::Totals, Error> {
        let nothing = campaign::Totals { interrupted: true, ..campaign::Totals::default() };
        let holder = self.holder();
        let Some(_locks) = self.lock(planned, &holder, &emit, &stop).await? else { return Ok(nothing) };
        if let Some(request) = StopRequest::read(self.run.layout()) {
            emit.say(format!("nothing is begun: the run is to end ({})", request.by));
            return Ok(nothing);
        }
        let mut pending: Vec<Arc<Experiment>> = Vec::new();
        for experiment in self.planned(planned) {
            if self.run.valid_result(experiment).is_some() {
                emit.event(Event::ExperimentReused { name: experiment.name.clone() });
            } else if !self.has_failed_here(&experiment.name) {
                pending.push(Arc::new(experiment.clone()));
            }
        }
        let grace = self.settings.grace;
        let scope = Scope::Job(self.place.own_job.clone().unwrap_or_default());
        let keeps = self.place.own_job.is_none() || self.settings.simulated();
        end_foreign_and_leftovers(&scope, grace, keeps, &emit, &mut stop).await?;
        let locking = Locking {
            settings: self.settings,
            plan: self.plan,
            environment: self.environment,
            patience: Patience::Within(DEVICE_PATIENCE),
            is_detached: false,
            ui: self.ui,
        };
        let Some(devices) = locking.lock(&mut stop).await? else { return Ok(nothing) };
        let kind = self.device_kind().await?;
        let mut context = unit_context(self.settings, self.plan, self.environment, engine, (self.run, kind))?;
        context.units.clone_from(&devices.units);
        contained::put_into(&mut context, self.settings, self.environment, kind)?;
        let placement = self.placement(&devices.units);
        let lease = LockedPort::take_from(self.place.first_port())?.signed(holder)?.placed(placement);
        let jobs = Arc::new(SessionJobs::after(recorder.clone(), self.attempts(planned)));
        // Other servers on this node are those of other tasks, or of other users' jobs: Slurm keeps them apart.
        let executor = LocalExecutor::new(
            context,
            policy_of(self.settings),
            jobs,
            (emit, stop.clone()),
            true,
            Leases::one(vec![lease]),
        );
        let mut strategy = Grid::new(pending, self.settings.sweep.reuse, None);
        Ok(campaign::run(&mut strategy, &executor, &stop).await?)
    }

    /// The node and the devices that Slurm gave: by their addresses, else by the numbers that it counts.
    fn placement(&self, units: &[ComputeUnit]) -> Placement {
        const NUMBERS: [&str; 5] =
            ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"];
        let numbers = || {
            let list = NUMBERS.iter().find_map(|name| self.environment.get(name)).unwrap_or_default();
            list.split(',').filter(|number| !number.is_empty()).map(|number| format!("gpu:{number}")).collect()
        };
        let addresses = units.iter().map(|unit| unit.address.clone()).collect();
        let devices = if units.is_empty() { numbers() } else { addresses };
        Placement { devices, host: Some(self.place.node.clone()), ..Placement::default() }
    }

    /// The experiments of this task, in running order.
    fn planned<'p>(&'p self, planned: &TaskPlan) -> Vec<&'p Experiment> {
        let by_name: HashMap<&str, &Experiment> =
            self.plan.experiments.iter().map(|experiment| (experiment.name.as_str(), experiment)).collect();
        planned.experiments.iter().filter_map(|(name, _)| by_name.get(name.as_str()).copied()).collect()
    }

    /// Whether an earlier start of this very task has come to a failure of an experiment: it was tried as often as the policy says.
    fn has_failed_here(&self, name: &str) -> bool {
        let own = self.before.tasks.get(&(self.submission.number, self.place.task));
        own.is_some_and(|task| task.names.iter().any(|own| own == name))
            && matches!(self.before.newest(name).and_then(|attempt| attempt.outcome.as_ref()), Some(Outcome::Failed(_)))
            && self.place.restart > 0
    }

    /// The newest attempt at each experiment, as the front knew it and other tasks have written since.
    fn attempts(&self, planned: &TaskPlan) -> HashMap<String, u32> {
        let newest = |(name, next): &(String, u32)| {
            let known = self.before.next_attempt(name).max(*next);
            (name.clone(), known.saturating_sub(1))
        };
        planned.experiments.iter().map(newest).collect()
    }

    fn holder(&self) -> Holder {
        Holder {
            process: ProcessId::current(),
            user: user_name(nix::unistd::geteuid()),
            since: format::moment(Utc::now(), self.settings.zone),
            run: self.run.path().to_owned(),
        }
    }

    /// Takes the locks of all experiments: no two tasks measure the same one, whatever Slurm thinks of the first. A former start whose
    /// node was lost may still be at work, and its results count: it is waited for. `None` where there is no more time.
    async fn lock(
        &self,
        planned: &TaskPlan,
        holder: &Holder,
        emit: &Emitter,
        stop: &Stop,
    ) -> Result<Option<Vec<Lock>>, Error> {
        let limit = self.settings.start_limit.most() + self.settings.timeout_benchmark + self.settings.grace * 2;
        let began = Instant::now();
        let mut told = false;
        let mut locks = Vec::new();
        for (name, _) in &planned.experiments {
            let path = self.run.layout().experiment_lock(name);
            loop {
                match Lock::take(&path) {
                    Ok(Ok(mut lock)) => {
                        lock.sign(&path, holder)?;
                        locks.push(lock);
                        break;
                    }
                    Ok(Err(other)) => {
                        if !std::mem::replace(&mut told, true) {
                            let who = other.map_or_else(|| "another process".to_owned(), |other| other.to_string());
                            emit.say(format!("`{name}` is measured by {who}: its end is waited for"));
                        }
                    }
                    // A file system without locks: Slurm's own word has to do.
                    Err(error) if is_without_locks(&error) => {
                        emit.say(format!("no lock for `{name}` ({error}): the file system has none"));
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
                if stop.level() >= StopLevel::AfterCurrent || began.elapsed() > limit {
                    return Ok(None);
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        Ok(Some(locks))
    }

    async fn device_kind(&self) -> Result<DeviceKind, Error> {
        if self.settings.simulated() {
            return Ok(DeviceKind::Cpu);
        }
        let probe = Probe::of_machine(self.environment.vars().clone());
        let report = tokio::task::spawn_blocking(move || devices::detect(&probe)).await;
        Ok(report.map_err(std::io::Error::other)?.kind)
    }
}

/// Whether this is what a file system without locks answers (NFS without its lock daemon, Lustre without `-o flock`).
fn is_without_locks(error: &record::Error) -> bool {
    let record::Error::Write { source, .. } = error else { return false };
    let code = source.raw_os_error();
    [nix::errno::Errno::ENOLCK, nix::errno::Errno::ENOSYS, nix::errno::Errno::EOPNOTSUPP]
        .into_iter()
        .any(|errno| code == Some(errno as i32))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn place(task: u32) -> Place {
        Place { job: "1234".into(), own_job: None, task, restart: 0, node: "n1".into() }
    }

    #[test]
    fn tasks_begin_their_search_for_a_port_apart_and_below_those_of_connections() {
        let ports: std::collections::BTreeSet<u16> = (0..500).map(|task| place(task).first_port()).collect();
        assert_eq!(ports.len(), 500);
        assert!(ports.iter().all(|port| (FIRST_PORT..30_000).contains(port)));
    }

    #[test]
    fn a_task_knows_its_place_from_slurms_variables() {
        let args = TaskArgs { run: "r".into(), submission: 1, task: None };
        let of = |vars: &[(&str, &str)]| Place::of(&args, &Environment::of(vars, Path::new("/")));
        let vars = [
            ("SLURM_ARRAY_JOB_ID", "12"),
            ("SLURM_JOB_ID", "15"),
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_RESTART_COUNT", "1"),
            ("SLURMD_NODENAME", "n2"),
        ];
        let place = of(&vars).unwrap();
        assert_eq!((place.job.as_str(), place.own_job.as_deref(), place.task), ("12", Some("15"), 3));
        assert_eq!((place.restart, place.node.as_str()), (1, "n2"));
        assert!(of(&[]).is_err());
    }
}

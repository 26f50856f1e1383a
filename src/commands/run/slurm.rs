//! The front of a run on a Slurm cluster: submits what has no result, watches, and ends with a table of how every experiment stands.
//!
//! It may leave at any moment (`--detach`, Ctrl-C, a kill): the jobs go on, and the same command, `status`, `stop` or `run --resume`
//! picks them up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::campaign::{self, Totals};
use crate::config::{Environment, Settings};
use crate::error::Error;
use crate::execute::slurm::{ArrayJob, FrontPlan, Progress, Shape, SlurmExecutor, Tools, Watcher, arrays};
use crate::execute::{self, Emitter, EngineCommand, Recorder};
use crate::exit;
use crate::model::{Event, Outcome, Plan, Stamped};
use crate::plan::blocks;
use crate::process::stop_channel;
use crate::record::layout::{self, Layout};
use crate::record::{RunDir, RunState, StopRequest, Submission};
use crate::telemetry::DeviceKind;
use crate::ui::{Reporter, Ui};
use crate::words::{counted, shell, shell_line};

use super::devices::Devices;
use super::prepare::{Prepared, lock_results, prepare};
use super::recorder::RunRecorder;
use super::signals::{Role, Signals};
use super::{Sweep, engine, policy_of, tick, unit_context};
use crate::commands::{cluster, dashboard, format, tracking};
use crate::notify::Notifier;

/// Tasks of an array where the cluster cannot be asked how many it takes.
const USUAL_ARRAY: usize = 1001;

/// Whether the vLLM that is found here is the one that will serve.
pub fn knows_vllm(settings: &Settings) -> bool {
    settings.place == crate::config::Place::Local || settings.simulated() || settings.slurm.runs_what_is_here()
}

/// Runs a session.
///
/// # Errors
/// When nothing can be submitted, or the record cannot be kept.
pub async fn execute(sweep: &Sweep<'_>) -> Result<u8, Error> {
    require_slurm(sweep.environment)?;
    let (sender, stop) = stop_channel();
    let signals = Signals::listen(sender.clone(), Role::Front)?;
    let engine = engine_here(sweep).await?;
    let lock = (lock_results(sweep.settings)?, Devices::default(), None);
    if sweep.earlier.is_none() {
        sweep.require_free_name()?;
    }
    let reporter = Reporter::new(sweep.ui.clone(), sweep.plan, sweep.settings.simulated()).of_front();
    let known = engine.as_ref();
    let prepared = prepare(sweep.earlier.as_ref(), sweep.settings, sweep.plan, sweep.environment, known, lock).await?;
    sweep.announce(&prepared);
    let layout = prepared.run.layout().clone();
    StopRequest::forget(&layout);
    let recorder = RunRecorder::open(&prepared.run, sweep.settings.zone, reporter.clone())?;
    if sweep.args.detach && sweep.args.dashboard.is_some() {
        sweep
            .ui
            .warn("`--dashboard` ends with this command, which leaves at once: `vllm-bench dashboard` shows the run");
    }
    let dashboard = dashboard::beside(&prepared.run, sweep.args, sweep.environment, sweep.ui);
    let tracking = tracking::beside(&prepared.run, &prepared.manifest, sweep.settings, sweep.environment, sweep.ui);
    let emit = Emitter::new(Arc::new(recorder.clone()), sender);
    let pusher = dashboard::pushed(&prepared.run, sweep.settings, sweep.environment, &reporter);
    let (left_alone, mut strategy) = sweep.open(&prepared, &emit);
    let engine = engine.unwrap_or_else(|| EngineCommand::of(PathBuf::from("vllm")));
    let first_new = layout::first_free(|n| layout.submission(n));
    let began = Instant::now();
    let notifier = tracking.notifier();
    if let Some(notifier) = &notifier {
        notifier.remember_in(layout.notified());
        // What this front itself records: submissions that are refused, jobs that are cancelled or lost.
        recorder.subscribe("notify", notifier.clone());
    }
    let plan = front_plan(sweep, engine, (&prepared, &recorder, &reporter, notifier), (emit, stop.clone()))?;
    let ticking = tokio::spawn(tick(reporter.clone()));
    let totals = {
        let executor = SlurmExecutor::start(plan)?;
        tokio::select! {
            totals = campaign::run(strategy.as_mut(), &executor, &stop) => totals,
            number = signals.leave() => {
                reporter.close();
                return Ok(exit::SIGNAL + number);
            }
        }
    };
    ticking.abort();
    reporter.close();
    let session = Session { sweep, prepared: &prepared, left_alone: &left_alone, first_new, signal: signals.first() };
    let code = totals.map_err(Error::from).and_then(|totals| session.conclude(totals, recorder, began));
    if let Some(dashboard) = &dashboard {
        dashboard.farewell();
    }
    if let Some(pusher) = pusher {
        pusher.end();
    }
    // Where the front leaves and its jobs go on, nothing is over.
    let over = cluster::open_tasks(&prepared.run) == 0;
    drop(prepared);
    let told = code.as_ref().map_or_else(Error::exit_code, |code| *code);
    tracking.farewell(over.then_some(told), sweep.environment, || signals.count(), sweep.ui);
    code
}

/// Slurm's programs without which nothing can be submitted, watched or ended.
const NEEDED: [&str; 3] = ["sbatch", "squeue", "scancel"];

/// Refuses to begin where Slurm's programs are not there: each experiment would fail.
fn require_slurm(environment: &Environment) -> Result<(), execute::Error> {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| environment.find_program(name).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(execute::Error::NoSlurm(missing)) }
}

/// The vLLM that is here, where nodes run what is here; a login node need not have one.
async fn engine_here(sweep: &Sweep<'_>) -> Result<Option<EngineCommand>, Error> {
    if sweep.settings.simulated() || sweep.settings.vllm_bin.is_some() && knows_vllm(sweep.settings) {
        return engine::resolve(sweep.settings, sweep.environment).await.map(Some);
    }
    if !knows_vllm(sweep.settings) {
        return Ok(None);
    }
    Ok(engine::resolve(sweep.settings, sweep.environment).await.ok())
}

fn front_plan(
    sweep: &Sweep<'_>,
    engine: EngineCommand,
    (prepared, recorder, reporter, notifier): (&Prepared, &RunRecorder, &Reporter, Option<Notifier>),
    live: (Emitter, crate::process::Stop),
) -> Result<FrontPlan, Error> {
    let (settings, environment) = (sweep.settings, sweep.environment);
    let context = unit_context(settings, sweep.plan, environment, engine, (&prepared.run, DeviceKind::Cpu))?;
    let recorder = recorder.clone();
    Ok(FrontPlan {
        request: settings.slurm.clone(),
        tools: tools(settings, environment),
        run: prepared.run.clone(),
        program: this_program()?,
        secrets: secret_names(settings, sweep.plan),
        context,
        policy: policy_of(settings),
        job: Box::new(move |experiment, attempt| recorder.job(experiment, attempt, 0, None)),
        live,
        watcher: Box::new(Shown { reporter: reporter.clone(), notifier, started: Mutex::default() }),
        detach: sweep.args.detach,
    })
}

/// Slurm's programs, as they submit the jobs of a run: without our own settings, which the manifest has.
fn tools(settings: &Settings, environment: &Environment) -> Tools {
    let mut tools = cluster::tools(environment);
    tools.secrets.clone_from(&settings.secret_env);
    tools.unset.extend(environment.own_variables());
    tools
}

fn this_program() -> Result<PathBuf, Error> {
    Ok(engine::simulated()?.program)
}

/// Names of secret variables that servers or clients need: their values travel in the environment of the jobs.
fn secret_names(settings: &Settings, plan: &Plan) -> Vec<String> {
    let given = settings.secret_env.iter().map(|(name, _)| name.clone());
    let planned = plan.experiments.iter().flat_map(|experiment| experiment.server.secret_env.iter().cloned());
    let mut names: Vec<String> = given.chain(planned).collect();
    names.sort();
    names.dedup();
    names
}

/// `--dry-run`: the array jobs, each with its command line and its script.
pub fn dry_run(settings: &Settings, plan: &Plan, environment: &Environment, ui: &Ui) -> Result<(), Error> {
    let tools = tools(settings, environment);
    let known = tools.most_in_array();
    if known.is_none() {
        ui.say(&format!(
            "note: the cluster was not asked how many tasks an array may have: {USUAL_ARRAY} is Slurm's own limit"
        ));
    }
    let experiments = plan.experiments.iter().cloned().map(Arc::new);
    let all = arrays(blocks(experiments, settings.sweep.reuse), &settings.slurm, known.unwrap_or(USUAL_ARRAY));
    let run = settings.results_dir.join("RUN");
    let layout = Layout::new(&run);
    let (secrets, outputs, program) = (secret_names(settings, plan), layout.task_outputs(), this_program()?);
    for (at, array) in all.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let script = layout.batch_script(number);
        let same_shape = all[..at].iter().any(|earlier| earlier.shape == array.shape);
        let job = ArrayJob {
            run: &run,
            submission: number,
            shape: array.shape,
            tasks: array.tasks.len(),
            output: &outputs,
            script: &script,
            after: (same_shape && settings.slurm.workers.is_some()).then_some("JOB"),
            secrets: &secrets,
        };
        let options = settings.slurm.options(&job);
        let line = shell_line(std::iter::once("sbatch").chain(options.iter().map(String::as_str)));
        ui.out(&ui.bold(&format!(
            "\n=== array job {number} of {}: {}",
            all.len(),
            told(array.shape, array.tasks.len())
        )));
        ui.out(&format!("--- command\n{line}\n--- batch script\n{}", settings.slurm.script(&run, number, &program)));
    }
    Ok(())
}

fn told(shape: Shape, tasks: usize) -> String {
    let nodes = counted(shape.nodes as usize, "node");
    let gpus = counted(shape.gpus_per_node as usize, "GPU");
    format!("{} of {nodes} with {gpus}{}", counted(tasks, "task"), if shape.nodes > 1 { " each" } else { "" })
}

/// Shows what tasks write and how far they are.
struct Shown {
    reporter: Reporter,
    /// Who is told what happens.
    notifier: Option<Notifier>,
    /// Beginnings of attempts, shown with their ends: the lines of several tasks would mix.
    started: Mutex<HashMap<String, Event>>,
}

impl Watcher for Shown {
    fn before(&self, stamped: &Stamped) {
        self.notifier.iter().for_each(|notifier| notifier.see(&stamped.event));
    }

    fn news(&self, stamped: &Stamped) {
        self.notifier.iter().for_each(|notifier| notifier.see(&stamped.event));
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        match &stamped.event {
            Event::ExperimentStarted { name, .. } => {
                started.insert(name.clone(), stamped.event.clone());
            }
            Event::ExperimentFinished { name, outcome, .. } => {
                let began = started.remove(name);
                if !matches!(outcome, Outcome::Interrupted) {
                    began.iter().for_each(|began| self.reporter.event(began));
                    self.reporter.event(&stamped.event);
                }
            }
            _ => {}
        }
    }

    fn progress(&self, progress: &Progress) {
        self.reporter.wait_on(&in_words(progress));
    }
}

/// How far the tasks are, on one line.
fn in_words(progress: &Progress) -> String {
    let Progress { running, waiting, over, tasks, .. } = progress;
    let mut text = format!("Slurm: {running} running, {waiting} waiting");
    if let Some(reason) = &progress.reason {
        let _ = write!(text, " ({reason})");
    }
    let _ = write!(text, ", {over} of {} over", counted(*tasks, "task"));
    if let Some(left) = progress.left {
        let _ = write!(text, ", about {} left", format::seconds(left.as_secs_f64()));
    }
    if let Some((since, _)) = &progress.silent {
        let _ = write!(text, "; no answer of Slurm for {}", format::seconds(since.as_secs_f64()));
    }
    text
}

/// A session that has ended.
struct Session<'a> {
    sweep: &'a Sweep<'a>,
    prepared: &'a Prepared,
    left_alone: &'a [String],
    /// The number of the first submission of this session.
    first_new: u32,
    signal: Option<u8>,
}

impl Session<'_> {
    fn conclude(&self, totals: Totals, recorder: RunRecorder, began: Instant) -> Result<u8, Error> {
        if let Some(error) = recorder.take_error() {
            return Err(error);
        }
        let run = &self.prepared.run;
        let request = StopRequest::read(run.layout());
        let left = totals.interrupted && request.is_none();
        let by = match self.signal {
            Some(number) => format!("signal {number}"),
            None => "--detach".to_owned(),
        };
        let _ = recorder.event(&match left {
            true => Event::FrontLeft { by },
            false => Event::RunFinished {
                passed: self.prepared.valid.len() + totals.passed,
                failed: totals.failed + self.left_alone.len(),
                skipped: self.sweep.plan.skipped(),
                interrupted: totals.interrupted || totals.stopped_by_failure,
                seconds: began.elapsed().as_secs_f64(),
            },
        });
        if let Some(error) = recorder.take_error() {
            return Err(error);
        }
        recorder.close().iter().for_each(|lost| self.sweep.ui.warn(lost));
        let table = Table::of(self)?;
        let ui = self.sweep.ui;
        if left {
            ui.out(table.text().trim_end());
            self.say_how_to_go_on(&table, ui);
            let refused = table.failed.contains_key(crate::model::Cause::SubmissionRefused.word());
            return Ok(match self.signal {
                Some(number) => exit::SIGNAL + number,
                None if refused => exit::EXPERIMENT_FAILED,
                None => exit::OK,
            });
        }
        let interrupted = totals.interrupted || totals.stopped_by_failure;
        let environment = self.sweep.environment;
        let code = crate::commands::analyze::analyse_ended(run.path(), interrupted, environment, ui)?;
        ui.out(&format!("\n{}", table.text().trim_end()));
        if totals.interrupted || totals.stopped_by_failure {
            ui.hint(&format!("resume with `{}`", format::resume(run.path(), self.sweep.environment)));
        }
        Ok(match totals.interrupted {
            true => exit::SIGNAL + self.signal.unwrap_or(15),
            false => code,
        })
    }

    fn say_how_to_go_on(&self, table: &Table, ui: &Ui) {
        let dir = self.prepared.run.path().parent().unwrap_or(std::path::Path::new(".")).display().to_string();
        let dir = shell(&dir);
        if table.queued + table.submitted > 0 {
            ui.say("the jobs go on without this process");
        }
        ui.hint(&format!("`vllm-bench status --results-dir {dir}` shows how far they are; the same command again watches and submits what is missing"));
        ui.hint(&format!("`vllm-bench stop --results-dir {dir}` ends them in order"));
    }
}

/// How every experiment of a run stands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    /// In jobs that this session has submitted, and not over.
    submitted: usize,
    /// In jobs of earlier sessions, and not over.
    queued: usize,
    done: usize,
    /// Left alone, by cause.
    skipped: BTreeMap<String, usize>,
    failed: BTreeMap<String, usize>,
    /// In no job, and without an outcome.
    to_do: usize,
    /// Combinations that a rule leaves out.
    left_out: usize,
    /// Slurm's numbers of the jobs that are not over.
    jobs: Vec<String>,
}

impl Table {
    fn of(session: &Session<'_>) -> Result<Self, Error> {
        let run = &session.prepared.run;
        let state = run.state()?;
        let open = open_experiments(run, &state);
        let alone: HashSet<&str> = session.left_alone.iter().map(String::as_str).collect();
        let mut table = Self { left_out: session.sweep.plan.skipped(), ..Self::default() };
        let plan = session.sweep.plan;
        for experiment in &plan.experiments {
            if !state.is_asked(plan.until_decided, &experiment.name, experiment.repeat) {
                continue;
            }
            let newest = state.newest(&experiment.name).and_then(|attempt| attempt.outcome.as_ref());
            let cause = match newest {
                Some(Outcome::Failed(failure)) => Some(failure.cause.to_string()),
                _ => None,
            };
            let held = open.get(experiment.name.as_str());
            match (cause, held) {
                _ if run.valid_result(experiment).is_some() => table.done += 1,
                (Some(cause), _) if alone.contains(experiment.name.as_str()) => {
                    *table.skipped.entry(cause).or_default() += 1;
                }
                (_, Some(submission)) if *submission >= session.first_new => table.submitted += 1,
                (_, Some(_)) => table.queued += 1,
                (Some(cause), None) => *table.failed.entry(cause).or_default() += 1,
                (None, None) => table.to_do += 1,
            }
        }
        table.jobs = cluster::jobs(&state);
        Ok(table)
    }

    fn text(&self) -> String {
        let causes = |causes: &BTreeMap<String, usize>| {
            causes.iter().map(|(cause, count)| format!("{cause}: {count}")).collect::<Vec<_>>().join(", ")
        };
        let mut text = String::new();
        let mut row = |word: &str, count: usize, more: String| {
            let _ = writeln!(text, "{}", format!("{word:<10}{count:>6}  {more}").trim_end());
        };
        row("SUBMITTED", self.submitted, String::new());
        row("QUEUED", self.queued, String::new());
        row("DONE", self.done, String::new());
        let rules = (self.left_out > 0).then(|| format!("left out by rules: {}", self.left_out));
        let alone = (!self.skipped.is_empty()).then(|| causes(&self.skipped));
        let why: Vec<String> = alone.into_iter().chain(rules).collect();
        row("SKIPPED", self.skipped.values().sum::<usize>() + self.left_out, why.join(", "));
        row("FAILED", self.failed.values().sum(), causes(&self.failed));
        if self.to_do > 0 {
            row("TO DO", self.to_do, "the same command again submits them".to_owned());
        }
        if !self.jobs.is_empty() {
            let _ = writeln!(text, "cancel with: scancel {}", self.jobs.join(" "));
        }
        text
    }
}

/// Which experiments are in tasks that are not known to be over, with the number of their submission.
fn open_experiments(run: &RunDir, state: &RunState) -> HashMap<String, u32> {
    let mut open = HashMap::new();
    for (number, job) in state.jobs.iter().filter(|(_, job)| job.tasks > 0) {
        let over = |task: usize| {
            let key = (*number, u32::try_from(task).unwrap_or(u32::MAX));
            state.tasks.get(&key).is_some_and(|task| task.ended.is_some())
        };
        // All of them over, and no file to read for it.
        let ended = state.tasks.iter().filter(|((of, _), task)| of == number && task.ended.is_some()).count();
        if ended >= job.tasks as usize {
            continue;
        }
        let Ok(submission) = Submission::read(run.layout(), *number) else { continue };
        for (_, task) in submission.tasks.iter().enumerate().filter(|(at, _)| !over(*at)) {
            open.extend(task.experiments.iter().map(|(name, _)| (name.clone(), *number)));
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn progress_is_told_on_one_line() {
        let progress = Progress {
            running: 2,
            waiting: 5,
            reason: Some("Resources".into()),
            over: 3,
            tasks: 10,
            left: Some(Duration::from_secs(240)),
            silent: None,
        };
        assert_eq!(
            in_words(&progress),
            "Slurm: 2 running, 5 waiting (Resources), 3 of 10 tasks over, about 4 min 0 s left"
        );
    }

    #[test]
    fn the_table_names_causes_and_the_line_that_cancels() {
        let table = Table {
            submitted: 12,
            queued: 3,
            done: 7,
            skipped: BTreeMap::from([("out-of-device-memory".into(), 2)]),
            failed: BTreeMap::from([("time-limit".into(), 1)]),
            to_do: 0,
            left_out: 1,
            jobs: vec!["17".into(), "18".into()],
        };
        assert_eq!(
            table.text(),
            "SUBMITTED     12\nQUEUED         3\nDONE           7\nSKIPPED        3  out-of-device-memory: 2, left out by rules: 1\n\
             FAILED         1  time-limit: 1\ncancel with: scancel 17 18\n"
        );
    }
}

//! Runs on a cluster, seen from outside their fronts: what the queue has of them, and how their jobs are ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::Utc;
use chrono_tz::Tz;

use crate::config::Environment;
use crate::error::Error;
use crate::execute::slurm::{Queued, Tools, job_name};
use crate::model::{Cause, Event};
use crate::observe::Bus;
use crate::record::{Holder, Journal, Lock, RunDir, RunState, StopMode, StopRequest, Submission, layout, list_runs};
use crate::ui::Ui;

use super::format;

/// How often the queue is asked.
pub const POLL: Duration = Duration::from_secs(5);

/// Slurm's programs, for questions.
pub fn tools(environment: &Environment) -> Tools {
    let inherited = |name: &&String| name.starts_with("SLURM_") && !name.starts_with("SLURM_CONF");
    Tools { secrets: Vec::new(), unset: environment.vars().keys().filter(inherited).cloned().collect() }
}

/// Tasks of a run that have not said that they are over; 0 for a run of this machine.
pub fn open_tasks(run: &RunDir) -> usize {
    if !run.layout().slurm().is_dir() {
        return 0;
    }
    run.state().map_or(0, |state| state.open_tasks())
}

/// The runs of these results directories whose jobs are not over, newest first.
pub fn with_jobs(dirs: &[PathBuf]) -> Vec<RunDir> {
    let runs = dirs.iter().filter_map(|dir| list_runs(dir).ok()).flatten();
    let mut open: Vec<RunDir> = runs.filter(|run| open_tasks(run) > 0).collect();
    open.reverse();
    open
}

/// What the queue has of a run.
///
/// # Errors
/// In words, when it cannot be asked.
pub fn queue(run: &RunDir, state: &RunState, environment: &Environment) -> Result<Vec<Queued>, String> {
    let jobs = jobs(state);
    let mut tasks = tools(environment).queue(&job_name(run.path()))?;
    tasks.retain(|task| jobs.contains(&task.job));
    Ok(tasks)
}

/// Slurm's numbers of the jobs of a run that have tasks which are not over.
pub fn jobs(state: &RunState) -> Vec<String> {
    let ended =
        |number: u32| state.tasks.iter().filter(|((of, _), task)| *of == number && task.ended.is_some()).count();
    let open =
        state.jobs.iter().filter(|(number, job)| ended(**number) < usize::try_from(job.tasks).unwrap_or(usize::MAX));
    open.filter_map(|(_, job)| job.job.clone()).collect()
}

/// Ends the jobs of a run, and waits until the queue has none of them. True where that was so in the end.
///
/// # Errors
/// When the request to stop cannot be written.
pub async fn stop(
    run: &RunDir,
    mode: StopMode,
    limit: Duration,
    environment: &Environment,
    ui: &Ui,
) -> Result<bool, Error> {
    let state = run.state()?;
    let (name, jobs, tools) = (run.name(), jobs(&state), tools(environment));
    let host = nix::unistd::gethostname().map(|host| host.to_string_lossy().into_owned()).unwrap_or_default();
    let by = format!("stop, process {} on {host}", std::process::id());
    // First: what begins from now on sees it, and the front submits nothing any more.
    StopRequest { mode, by }.keep(run.layout())?;
    ui.say(&format!("run {name}: asked {} to end (scancel {})", format::count(jobs.len(), "job"), jobs.join(" ")));
    let calls: &[&[&str]] = match mode {
        StopMode::AfterCurrent => &[&["--state=PENDING"], &["--signal=USR2", "--batch"]],
        StopMode::InOrder => &[&["--state=PENDING"], &["--signal=TERM", "--batch"]],
        StopMode::Now => &[&[]],
    };
    for options in calls.iter().filter(|_| !jobs.is_empty()) {
        if let Err(error) = tools.cancel(options, &jobs) {
            ui.warn(&format!("`scancel {}`: {error}", options.join(" ")));
        }
    }
    if mode == StopMode::AfterCurrent {
        ui.out(&format!("run {name}: what waited is cancelled; tasks that run end after their experiment"));
        return Ok(true);
    }
    let began = Instant::now();
    let mut forced = mode == StopMode::Now;
    loop {
        match queue(run, &state, environment) {
            Ok(tasks) if tasks.is_empty() => break,
            Ok(tasks) => ui.say(&format!("  still in the queue: {}", format::count(tasks.len(), "task"))),
            Err(error) => ui.warn(&format!("the queue cannot be asked: {error}")),
        }
        if began.elapsed() > limit {
            if std::mem::replace(&mut forced, true) {
                return Ok(false);
            }
            ui.warn(&format!(
                "run {name}: tasks have not ended in {}; they are killed",
                format::seconds(limit.as_secs_f64())
            ));
            let _ = tools.cancel(&[], &jobs);
        }
        tokio::time::sleep(POLL.min(Duration::from_secs(2))).await;
    }
    close(run, ui).await?;
    ui.out(&format!("run {name}: its jobs have ended; results are kept"));
    Ok(true)
}

/// Writes the end of a run into its journal: its front does so, and where there is none, this process.
async fn close(run: &RunDir, ui: &Ui) -> Result<(), Error> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let began = Instant::now();
    let lock_path = run.path().parent().map(layout::results_lock);
    let Some(lock_path) = lock_path else { return Ok(()) };
    let mut lock = loop {
        match Lock::take(&lock_path)? {
            Ok(lock) => break lock,
            Err(holder) if began.elapsed() > PATIENCE => {
                let who = holder.unwrap_or_else(Holder::unknown);
                ui.warn(&format!("its front has not ended yet: {who}"));
                return Ok(());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    let state = run.state()?;
    if state.open_tasks() == 0 && state.finished.is_some() {
        return Ok(());
    }
    let zone: Tz = run.manifest().ok().and_then(|manifest| manifest.timezone.parse().ok()).unwrap_or(chrono_tz::UTC);
    let holder = Holder {
        process: crate::model::ProcessId::current(),
        user: format::user(nix::unistd::geteuid().as_raw()),
        since: format::moment(Utc::now(), zone),
        run: run.path().to_owned(),
    };
    lock.sign(&lock_path, &holder)?;
    let mut bus = Bus::new(Journal::open(&run.layout().journal())?, zone)?;
    let mut publish = |event: Event| bus.publish(&event, true);
    for (number, _) in state.jobs.iter().filter(|(_, job)| job.tasks > 0) {
        let Ok(submission) = Submission::read(run.layout(), *number) else { continue };
        for task in 0..submission.tasks.len() {
            let task = u32::try_from(task).unwrap_or(u32::MAX);
            let ended = state.tasks.get(&(*number, task)).and_then(|state| state.ended);
            // One that was told to end might have been started again by Slurm; the queue does not have it any more.
            if ended.is_none_or(|(_, why)| why == Some(Cause::Interrupted)) {
                let said = "`vllm-bench stop`".to_owned();
                publish(Event::TaskLost { submission: *number, task, cause: Cause::JobCancelled, said })?;
            }
        }
    }
    let outcomes = state.attempts.values().filter_map(|attempts| attempts.last()?.outcome.as_ref());
    let (mut passed, mut failed) = (0, 0);
    for outcome in outcomes {
        match outcome {
            crate::model::Outcome::Passed { .. } => passed += 1,
            crate::model::Outcome::Failed(_) => failed += 1,
            crate::model::Outcome::Interrupted => {}
        }
    }
    publish(Event::RunFinished { passed, failed, skipped: 0, interrupted: true, seconds: 0.0 })?;
    Ok(())
}

//! What `status` knows, as data: a pure function of a run's files as read, its lock, and the time.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use serde::Serialize;

use super::remaining::{Sample, remaining};
use crate::commands::cluster;
use crate::commands::find_run::{ExperimentHead, Head};
use crate::dashboard::State;
use crate::execute::slurm::Queued;
use crate::model::Stamped;
use crate::model::{Event, Failure, Outcome, Phase, ProcessId};
use crate::record::{Holder, RunState};

/// Version of the JSON that `status --json` prints.
pub const SCHEMA: u32 = 1;
/// How many failures are shown in full.
const LAST_FAILURES: usize = 5;

/// Everything `status` shows. In JSON what is not known is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this format.
    pub schema: u32,
    /// The run; `None` where there is none.
    pub run: Option<RunReport>,
    /// Every vLLM process of this machine, ours included.
    pub vllm_processes: Vec<ProcessReport>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// An orchestrator holds its lock.
    Live,
    /// Every experiment was attempted to its end.
    Finished,
    /// It was asked to end before that.
    Interrupted,
    /// The journal says that it runs, and nobody does.
    Died,
    /// It was prepared and never begun.
    NotStarted,
    /// Its jobs are queued or running on a cluster, and no front watches them.
    Submitted,
}

/// What a run has on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobsReport {
    /// Slurm's numbers of the array jobs that are not over.
    pub jobs: Vec<String>,
    /// Tasks of all array jobs.
    pub tasks: usize,
    /// Those that have said that they are over, or were found to be.
    pub over: usize,
    /// Tasks that run now; `None` where the queue could not be asked.
    pub running: Option<usize>,
    /// Tasks that wait.
    pub waiting: Option<usize>,
    /// Why the queue could not be asked.
    pub problem: Option<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The run directory, absolute.
    pub path: String,
    /// The name of the directory.
    pub name: String,
    /// The name that its user gave it.
    pub given_name: Option<String>,
    /// No metric of it was measured on a real server.
    pub simulated: bool,
    /// How it stands.
    pub standing: Standing,
    /// The orchestrator of a live run.
    pub orchestrator: Option<Orchestrator>,
    /// How it was asked to stop.
    pub stop_requested: Option<String>,
    /// 1 = never resumed; 0 = never begun.
    pub session: usize,
    /// When this session began, in the run's time zone.
    pub began: Option<String>,
    /// When the last event happened, in the run's time zone.
    pub last_event: Option<String>,
    /// Length of this session so far.
    pub elapsed_seconds: Option<f64>,
    /// Expected from the mean of finished attempts; absent while none is finished, and in a run that is not live.
    pub remaining_seconds: Option<f64>,
    /// What it has on a cluster.
    pub jobs: Option<JobsReport>,
    /// What neighbours cost, where it was measured (`--parallel auto`), in a sentence.
    pub neighbours: Option<String>,
    /// Seconds since that is being measured; `None` where it is not.
    pub checking_neighbours_seconds: Option<f64>,
    /// The experiment under way; the first of several.
    pub experiment: Option<ExperimentReport>,
    /// All experiments under way.
    pub under_way: Vec<ExperimentReport>,
    /// How many experiments stand how.
    pub counts: Counts,
    /// How many failures have which cause, the most frequent first.
    pub failures_by_cause: Vec<CauseCount>,
    /// The last failures, the newest first.
    pub last_failures: Vec<FailureReport>,
    /// Combinations that a rule leaves out, with the reason.
    pub skips: Vec<String>,
    /// Lines of the journal that could not be read (a crash cuts one).
    pub unreadable_journal_lines: usize,
}

/// Who writes to a live run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Orchestrator {
    /// Its process number.
    pub pid: i32,
    /// Its user.
    pub user: String,
    /// Since when, in the run's time zone.
    pub since: String,
    /// Whether it goes on without a terminal; `None` where that cannot be seen.
    pub detached: Option<bool>,
}

/// The experiment under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExperimentReport {
    /// Position in the plan, from 1.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// From 1, over all resumes.
    pub attempt: u32,
    /// Its lane, from 1, in a run with lanes.
    pub lane: Option<u32>,
    /// The devices that it has there.
    pub devices: Vec<String>,
    /// Where it is: `launching`, `starting`, `ready`, `measuring`, `draining`.
    pub phase: &'static str,
    /// How far the server's start is; `None` in the other phases.
    pub start_phase: Option<String>,
    /// Seconds in this phase (for a run that died: until its last event).
    pub phase_seconds: Option<f64>,
    /// Seconds in this attempt.
    pub seconds: Option<f64>,
    /// Leader of the server's process group.
    pub server_pid: Option<i32>,
    /// The server's port.
    pub port: Option<u16>,
    /// Leader of the benchmark client's process group.
    pub client_pid: Option<i32>,
    /// The newest log line worth showing.
    pub log_line: Option<String>,
}

/// How many experiments stand how; `planned` is the sum of all but `skipped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Experiments in the plan.
    pub planned: usize,
    /// With a valid result.
    pub passed: usize,
    /// Without one, and not to be tried again in this session.
    pub failed: usize,
    /// Under way.
    pub running: usize,
    /// Not begun yet, or begun and interrupted.
    pub to_do: usize,
    /// Combinations that a rule leaves out.
    pub skipped: usize,
}

/// A cause and how often it was one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseCount {
    /// The cause.
    pub cause: String,
    /// How many experiments failed with it.
    pub count: usize,
}

/// One failed experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// Its name.
    pub name: String,
    /// The cause.
    pub cause: String,
    /// One line for a human.
    pub summary: String,
    /// Where in its life it was.
    pub phase: String,
    /// The folder of what was kept before it was ended, relative to the run directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// A vLLM process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessReport {
    /// Its number.
    pub pid: i32,
    /// Its user.
    pub user: String,
    /// `server`, `benchmark` or `engine`.
    pub kind: String,
    /// Its command line, cut.
    pub command: String,
    /// Whether vllm-bench started it.
    pub ours: bool,
    /// The run that it belongs to.
    pub run: Option<String>,
    /// The experiment that it belongs to.
    pub experiment: Option<String>,
}

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The run directory.
    pub path: &'a std::path::Path,
    /// Its manifest.
    pub head: &'a Head,
    /// Its journal.
    pub entries: &'a [Stamped],
    /// Lines of it that could not be read.
    pub unreadable: usize,
    /// Who holds its lock.
    pub holder: Option<&'a Holder>,
    /// Whether the holder has no terminal.
    pub detached: Option<bool>,
    /// The moment for which it is made.
    pub now: DateTime<Utc>,
    /// What the queue of a cluster has of it; `None` for a run of this machine.
    pub queue: Option<Result<&'a [Queued], &'a str>>,
}

impl RunReport {
    /// Whether something of it may be under way now.
    pub fn goes_on(&self) -> bool {
        matches!(self.standing, Standing::Live | Standing::Submitted)
    }

    /// Adds a run up.
    pub fn new(sources: Sources<'_>) -> Self {
        Self::with_states(sources).0
    }

    /// The same, and how each experiment of the plan stands, in its order.
    pub fn with_states(sources: Sources<'_>) -> (Self, Vec<State>) {
        let mut state = RunState::replay(sources.entries);
        let live = sources.holder.is_some();
        // A holder that has not written its first event yet goes on where another one stopped.
        let mut session = Session::of(sources.entries);
        if sources.holder.is_some_and(|holder| state.process.is_some_and(|process| process != holder.process)) {
            let RunState { attempts, sessions, jobs, tasks, .. } = state;
            let live = if jobs.is_empty() { IndexMap::new() } else { state.live };
            state = RunState { attempts, sessions, jobs, tasks, live, ..RunState::default() };
            session = Session::default();
        }
        let jobs = jobs_report(&state, sources.queue);
        let standing = standing(live, &state, jobs.as_ref());
        let live = live || standing == Standing::Submitted;
        // In a run that died, time stopped with its last event.
        let now = if live { Some(sources.now) } else { state.last_event };
        let tally = Tally::of(sources.head, &state, &session, live);
        let elapsed_seconds = since(now, state.session_began);
        let experiments = || state.live.values().map(|live| experiment(live, now));
        let name = sources.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = RunReport {
            path: sources.path.to_string_lossy().into_owned(),
            name,
            given_name: sources.head.name.clone(),
            simulated: sources.head.simulated,
            standing,
            jobs,
            orchestrator: sources.holder.map(|holder| orchestrator(holder, sources.detached)),
            remaining_seconds: if live { tally.remaining(sources.head, &state, sources.now) } else { None },
            neighbours: state.neighbours.as_ref().map(|known| known.why.clone()),
            checking_neighbours_seconds: state.checking.and_then(|began| since(now, Some(began))),
            experiment: experiments().next(),
            under_way: experiments().collect(),
            stop_requested: state.stop_requested.clone(),
            session: state.sessions,
            began: session.began.clone(),
            last_event: sources.entries.last().map(|entry| entry.at.clone()),
            elapsed_seconds,
            counts: tally.counts,
            failures_by_cause: by_cause(&tally.failures),
            last_failures: tally.failures.iter().rev().take(LAST_FAILURES).map(|(n, f)| failure(n, f)).collect(),
            skips: sources.head.plan.skips.iter().map(|skip| skip.reason.clone()).collect(),
            unreadable_journal_lines: sources.unreadable,
        };
        (report, tally.states)
    }
}

/// What a run has on a cluster; `None` where it has nothing there.
fn jobs_report(state: &RunState, queue: Option<Result<&[Queued], &str>>) -> Option<JobsReport> {
    let tasks: usize = state.jobs.values().map(|job| usize::try_from(job.tasks).unwrap_or(usize::MAX)).sum();
    (!state.jobs.is_empty()).then(|| JobsReport {
        jobs: cluster::jobs(state),
        tasks,
        over: tasks.saturating_sub(state.open_tasks()),
        running: queue.and_then(Result::ok).map(|tasks| tasks.iter().filter(|task| task.is_running()).count()),
        waiting: queue.and_then(Result::ok).map(|tasks| tasks.iter().filter(|task| !task.is_running()).count()),
        problem: queue.and_then(Result::err).map(str::to_owned),
    })
}

fn standing(live: bool, state: &RunState, jobs: Option<&JobsReport>) -> Standing {
    // Where the queue cannot be asked, the run's own files are believed.
    let queued =
        jobs.is_some_and(|jobs| jobs.running.zip(jobs.waiting).is_none_or(|(running, waiting)| running + waiting > 0));
    match state.finished {
        _ if live => Standing::Live,
        _ if state.open_tasks() > 0 && queued => Standing::Submitted,
        Some(true) => Standing::Interrupted,
        Some(false) => Standing::Finished,
        None if state.sessions == 0 => Standing::NotStarted,
        None => Standing::Died,
    }
}

fn orchestrator(holder: &Holder, detached: Option<bool>) -> Orchestrator {
    Orchestrator { pid: holder.process.pid, user: holder.user.clone(), since: holder.since.clone(), detached }
}

fn experiment(live: &crate::record::Live, now: Option<DateTime<Utc>>) -> ExperimentReport {
    let (phase, start_phase) = match live.phase {
        Phase::Launching => ("launching", None),
        Phase::Starting(start) => ("starting", Some(start.to_string())),
        Phase::Ready => ("ready", None),
        Phase::Measuring => ("measuring", None),
        Phase::Draining => ("draining", None),
    };
    ExperimentReport {
        index: live.index,
        name: live.name.clone(),
        attempt: live.attempt,
        lane: live.placement.as_ref().and_then(|placement| placement.lane),
        devices: live.placement.as_ref().map(|placement| placement.devices.clone()).unwrap_or_default(),
        phase,
        start_phase,
        phase_seconds: since(now, live.phase_began),
        seconds: since(now, live.began),
        server_pid: live.server.map(|(process, _)| process.pid),
        port: live.server.map(|(_, port)| port),
        client_pid: live.client.map(|ProcessId { pid, .. }| pid),
        log_line: live.line.clone(),
    }
}

fn failure(name: &str, failure: &Failure) -> FailureReport {
    FailureReport {
        name: name.to_owned(),
        cause: failure.cause.to_string(),
        summary: failure.summary.clone(),
        phase: failure.phase.to_string(),
        kept: failure.kept.as_ref().map(|folder| folder.display().to_string()),
    }
}

fn by_cause(failures: &[(&str, &Failure)]) -> Vec<CauseCount> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, failure) in failures {
        *counts.entry(failure.cause.to_string()).or_default() += 1;
    }
    let mut counts: Vec<CauseCount> = counts.into_iter().map(|(cause, count)| CauseCount { cause, count }).collect();
    counts.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    counts
}

fn since(now: Option<DateTime<Utc>>, then: Option<DateTime<Utc>>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit")]
    Some((now? - then?).num_milliseconds().max(0) as f64 / 1000.0)
}

/// What only the newest session tells.
#[derive(Debug, Default)]
struct Session {
    began: Option<String>,
    /// Names with an outcome in it, in order.
    finished: Vec<String>,
}

impl Session {
    fn of(entries: &[Stamped]) -> Self {
        let mut session = Self::default();
        for entry in entries {
            if let Event::RunStarted { .. } = &entry.event {
                session = Self { began: Some(entry.at.clone()), finished: Vec::new() };
            } else if let Event::ExperimentFinished { name, .. } = &entry.event {
                session.finished.push(name.clone());
            }
        }
        session
    }
}

/// Experiments by how they stand.
struct Tally<'a> {
    counts: Counts,
    /// Of each experiment of the plan.
    states: Vec<State>,
    /// In the order in which they failed.
    failures: Vec<(&'a str, &'a Failure)>,
    /// What is not begun, in running order.
    to_do: Vec<&'a str>,
}

impl<'a> Tally<'a> {
    /// A live run tries again what failed in an earlier session, so that is still to do; in a run at rest the newest
    /// attempt says how an experiment stands.
    fn of(head: &'a Head, state: &'a RunState, session: &'a Session, live: bool) -> Self {
        let finished: HashSet<&str> = session.finished.iter().map(String::as_str).collect();
        let mut counts = Counts {
            planned: head.plan.experiments.len(),
            skipped: head.plan.skipped.max(head.plan.skips.len()),
            ..Counts::default()
        };
        let mut failed: BTreeMap<&str, &Failure> = BTreeMap::new();
        let mut to_do = Vec::new();
        let mut states = Vec::with_capacity(head.plan.experiments.len());
        // A kill between a result and its entry in the journal: the resume found the result, and says so.
        let reused: HashSet<&str> = state.reused.iter().map(String::as_str).collect();
        for name in head.plan.experiments.iter().map(|experiment| experiment.name.as_str()) {
            let outcome = state.newest(name).and_then(|attempt| attempt.outcome.as_ref());
            let one = match outcome {
                _ if live && state.live.contains_key(name) => State::Running,
                Some(Outcome::Passed { .. }) => State::Passed,
                _ if reused.contains(name) => State::Passed,
                Some(Outcome::Failed(failure)) if !live || finished.contains(name) => {
                    failed.insert(name, failure);
                    State::Failed
                }
                Some(Outcome::Failed(_) | Outcome::Interrupted) | None => {
                    to_do.push(name);
                    State::ToDo
                }
            };
            match one {
                State::Running => counts.running += 1,
                State::Passed => counts.passed += 1,
                State::Failed => counts.failed += 1,
                State::ToDo => counts.to_do += 1,
            }
            states.push(one);
        }
        // Failures of earlier sessions first, in order of their first attempt, then those of this one as they came.
        let earlier = state.attempts.keys().filter(|name| !finished.contains(name.as_str()));
        let order = earlier.chain(&session.finished);
        let failures = order.filter_map(|name| Some((name.as_str(), failed.remove(name.as_str())?))).collect();
        Tally { counts, states, failures, to_do }
    }

    /// What is left, at the prices measured so far.
    fn remaining(&self, head: &Head, state: &RunState, now: DateTime<Utc>) -> Option<f64> {
        if state.finished.is_some() {
            return None;
        }
        let by_name: BTreeMap<&str, &ExperimentHead> =
            head.plan.experiments.iter().map(|e| (e.name.as_str(), e)).collect();
        let attempts = state.attempts.iter().flat_map(|(name, attempts)| attempts.iter().map(move |a| (name, a)));
        let samples: Vec<Sample<'_>> = attempts
            .filter(|(_, attempt)| !matches!(attempt.outcome, None | Some(Outcome::Interrupted)))
            .filter_map(|(name, attempt)| {
                let (experiment, timings) = (*by_name.get(name.as_str())?, attempt.timings.as_ref()?);
                let start = timings.startup.map(|startup| startup + timings.teardown.unwrap_or_default());
                let measurement = (timings.total - start.unwrap_or_default()).max(0.0);
                measurement.is_finite().then_some(Sample { experiment, start, measurement })
            })
            .collect();
        let live: Vec<(&ExperimentHead, f64)> = state
            .live
            .values()
            .filter_map(|live| Some((*by_name.get(live.name.as_str())?, since(Some(now), live.began).unwrap_or(0.0))))
            .filter(|_| self.counts.running > 0)
            .collect();
        let pending: Vec<&ExperimentHead> = self.to_do.iter().filter_map(|name| by_name.get(name).copied()).collect();
        let (Some((first, _)), true) = (live.split_first(), live.len() > 1) else {
            return remaining(&pending, live.first().copied(), &samples);
        };
        // As many at once as now; what is under way ends by itself.
        let rests: Vec<f64> = live.iter().filter_map(|one| remaining(&[], Some(*one), &samples)).collect();
        let to_come = remaining(&pending, Some((first.0, f64::INFINITY)), &samples)?;
        #[expect(clippy::cast_precision_loss, reason = "lanes are few")]
        let shared = (rests.iter().sum::<f64>() + to_come) / live.len() as f64;
        Some(rests.into_iter().fold(shared, f64::max))
    }
}

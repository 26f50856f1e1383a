//! What a journal adds up to: attempts, outcomes, and where a live run is.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;

use crate::model::{
    Cause, Event, NeighboursChecked, Outcome, Phase, Placement, ProcessId, Repeat, Stamped, Timings, UntilDecided,
};

/// One attempt at an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// How it ended; `None` while it runs, or where the run died in it.
    pub outcome: Option<Outcome>,
    /// Where its time went; absent while it runs.
    pub timings: Option<Timings>,
}

/// The experiment that is under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Position in the plan, from 1.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// From 1.
    pub attempt: u32,
    /// Where it is.
    pub phase: Phase,
    /// When the attempt began.
    pub began: Option<DateTime<Utc>>,
    /// When the phase began.
    pub phase_began: Option<DateTime<Utc>>,
    /// Where it runs, in a run with lanes.
    pub placement: Option<Placement>,
    /// The server's leader and port, once launched.
    pub server: Option<(ProcessId, u16)>,
    /// The client's leader, once launched.
    pub client: Option<ProcessId>,
    /// The newest line worth showing.
    pub line: Option<String>,
}

/// An array job of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// Slurm's number of it; `None` where it is not known whether it was submitted.
    pub job: Option<String>,
    /// How many tasks it has; 0 where Slurm refused it.
    pub tasks: u32,
}

/// A task of an array job: (number of the job within the run, index in the array).
pub type TaskKey = (u32, u32);

/// What is known of a task that began, or is over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskState {
    /// Slurm's number of its array job.
    pub job: Option<String>,
    /// Its node.
    pub host: Option<String>,
    /// Its process, on that node.
    pub process: Option<ProcessId>,
    /// What it measures.
    pub names: Vec<String>,
    /// When it began (for the last time).
    pub began: Option<DateTime<Utc>>,
    /// When it ended, and why before all was measured; absent while it may still run.
    pub ended: Option<(Option<DateTime<Utc>>, Option<Cause>)>,
}

/// What the journal of a run adds up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// Attempts of every experiment that was begun, in order of first attempt.
    pub attempts: IndexMap<String, Vec<Attempt>>,
    /// Names whose earlier result was taken by the newest session.
    pub reused: Vec<String>,
    /// The experiments under way, in the order in which they began; one for each block that runs.
    pub live: IndexMap<String, Live>,
    /// What neighbours cost, as it was measured last.
    pub neighbours: Option<NeighboursChecked>,
    /// Since when that is being measured.
    pub checking: Option<DateTime<Utc>>,
    /// Names that a strategy asked for, over all sessions.
    pub planned: HashSet<String>,
    /// How often the run was begun (1 = never resumed).
    pub sessions: usize,
    /// When the first session began.
    pub began: Option<DateTime<Utc>>,
    /// When the newest session began.
    pub session_began: Option<DateTime<Utc>>,
    /// The newest session's orchestrator.
    pub process: Option<ProcessId>,
    /// Whether the newest session was asked to stop.
    pub stop_requested: Option<String>,
    /// Whether the newest session said that it is over; `Some(true)` = interrupted.
    pub finished: Option<bool>,
    /// When the last event happened.
    pub last_event: Option<DateTime<Utc>>,
    /// The array jobs of the run, by their numbers within it.
    pub jobs: IndexMap<u32, JobState>,
    /// Their tasks that began, or are over.
    pub tasks: IndexMap<TaskKey, TaskState>,
    /// Whether the newest front has left its jobs to themselves.
    pub left: bool,
}

impl RunState {
    /// Replays a journal.
    pub fn replay(entries: &[Stamped]) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// Takes one more entry into account.
    pub fn apply(&mut self, entry: &Stamped) {
        let at = entry.time();
        self.last_event = at.or(self.last_event);
        match &entry.event {
            Event::RunStarted { process, .. } => {
                self.sessions += 1;
                self.began = self.began.or(at);
                self.session_began = at;
                self.process = Some(*process);
                self.reused.clear();
                self.checking = None;
                self.forget_live();
                self.stop_requested = None;
                self.finished = None;
                self.left = false;
            }
            Event::NeighboursBeingChecked { .. } => self.checking = at,
            Event::NeighboursChecked { lanes, threshold, within, why, metrics, .. } => {
                self.checking = None;
                let (lanes, threshold, within) = (*lanes, *threshold, *within);
                let (why, metrics) = (why.clone(), metrics.clone());
                self.neighbours = Some(NeighboursChecked { lanes, threshold, within, metrics, why });
            }
            Event::ExperimentsPlanned { names, .. } => self.planned.extend(names.iter().cloned()),
            Event::ExperimentReused { name } => self.reused.push(name.clone()),
            Event::ExperimentStarted { index, name, attempt, placement, .. } => {
                self.attempts.entry(name.clone()).or_default().push(Attempt {
                    number: *attempt,
                    outcome: None,
                    timings: None,
                });
                let live = Live {
                    index: *index,
                    name: name.clone(),
                    attempt: *attempt,
                    phase: Phase::Launching,
                    began: at,
                    phase_began: at,
                    placement: placement.as_deref().cloned(),
                    server: None,
                    client: None,
                    line: None,
                };
                self.live.insert(name.clone(), live);
            }
            Event::ServerLaunched { name, process, port, .. } => {
                self.update(name, |live| live.server = Some((*process, *port)))
            }
            Event::ServerReused { name, process, port, .. } => {
                self.update(name, |live| live.server = Some((*process, *port)))
            }
            Event::BenchmarkLaunched { name, process, .. } => self.update(name, |live| live.client = Some(*process)),
            Event::PhaseChanged { name, now } => self.update(name, |live| {
                live.phase = *now;
                live.phase_began = at;
                if *now == Phase::Measuring {
                    // From now on it is the client's.
                    live.line = None;
                }
            }),
            Event::Progress { name, line } => self.update(name, |live| live.line = Some(line.clone())),
            Event::ExperimentFinished { name, attempt, outcome, timings, .. } => {
                self.live.shift_remove(name);
                let attempts = self.attempts.entry(name.clone()).or_default();
                if let Some(open) = attempts.iter_mut().rev().find(|open| open.number == *attempt) {
                    open.outcome = Some(outcome.clone());
                    open.timings = Some(timings.clone());
                }
            }
            Event::StopRequested { by } => self.stop_requested = Some(by.clone()),
            Event::RunFinished { interrupted, .. } => {
                self.finished = Some(*interrupted);
                self.checking = None;
                self.forget_live();
            }
            Event::JobSubmitting { submission, tasks } => {
                self.jobs.insert(*submission, JobState { job: None, tasks: *tasks });
            }
            Event::JobSubmitted { submission, job, tasks } => {
                self.jobs.insert(*submission, JobState { job: Some(job.clone()), tasks: *tasks });
            }
            Event::JobRefused { submission, .. } => {
                self.jobs.insert(*submission, JobState { job: None, tasks: 0 });
            }
            Event::TaskStarted { submission, task, job, host, process, names, .. } => {
                // A task that is started again goes on where it was cut off.
                names.iter().for_each(|name| drop(self.live.shift_remove(name)));
                let state = self.tasks.entry((*submission, *task)).or_default();
                (state.job, state.host, state.process) = (Some(job.clone()), Some(host.clone()), Some(*process));
                (state.names, state.began, state.ended) = (names.clone(), at, None);
            }
            Event::TaskEnded { submission, task, why } => self.task_over((*submission, *task), at, *why),
            Event::TaskLost { submission, task, cause, .. } => self.task_over((*submission, *task), at, Some(*cause)),
            Event::FrontLeft { .. } => self.left = true,
            Event::Notice { .. } | Event::ForeignEnded { .. } | Event::ServerReady { .. } | Event::TornDown { .. } => {}
        }
    }

    fn update(&mut self, name: &str, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.live.get_mut(name) {
            change(live);
        }
    }

    /// A session begins or ends: what was under way is not any more, but for what tasks of a cluster measure.
    fn forget_live(&mut self) {
        let running = self.tasks.values().filter(|task| task.ended.is_none());
        let held: HashSet<&String> = running.flat_map(|task| &task.names).collect();
        self.live.retain(|name, _| held.contains(name));
    }

    fn task_over(&mut self, key: TaskKey, at: Option<DateTime<Utc>>, why: Option<Cause>) {
        let task = self.tasks.entry(key).or_default();
        task.ended = Some((at, why));
        for name in &task.names {
            self.live.shift_remove(name);
        }
    }

    /// Tasks of array jobs that are not over, as far as the run's own files say.
    pub fn open_tasks(&self) -> usize {
        let submitted: usize = self.jobs.values().map(|job| usize::try_from(job.tasks).unwrap_or(usize::MAX)).sum();
        submitted.saturating_sub(self.tasks.values().filter(|task| task.ended.is_some()).count())
    }

    /// Whether an experiment of the plan is to be measured: each is, but where starts are added until the answer is decided.
    pub fn is_asked(&self, until: Option<UntilDecided>, name: &str, repeat: Repeat) -> bool {
        until.is_none_or(|until| {
            repeat.start <= until.first || self.planned.contains(name) || self.attempts.contains_key(name)
        })
    }

    /// The newest attempt at an experiment.
    pub fn newest(&self, name: &str) -> Option<&Attempt> {
        self.attempts.get(name)?.last()
    }

    /// The number that the next attempt at an experiment gets.
    pub fn next_attempt(&self, name: &str) -> u32 {
        self.newest(name).map_or(1, |attempt| attempt.number.saturating_add(1))
    }

    /// Whether every experiment was attempted to its end and nobody interrupted the newest session.
    pub fn is_finished(&self) -> bool {
        self.finished == Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ForeignProcess;

    fn replayed(events: Vec<Event>) -> RunState {
        let entry = |event| Stamped { v: crate::record::SCHEMA, seq: 1, at: String::new(), event };
        RunState::replay(&events.into_iter().map(entry).collect::<Vec<_>>())
    }

    fn started(name: &str, attempt: u32) -> Event {
        Event::ExperimentStarted { index: 1, name: name.into(), attempt, axes: None, placement: None }
    }

    #[test]
    fn two_experiments_may_be_under_way_and_each_has_its_own_events() {
        let line = |name: &str, line: &str| Event::Progress { name: name.into(), line: line.into() };
        let state = replayed(vec![started("a", 1), started("b", 1), line("a", "of a"), line("b", "of b")]);
        let lines: Vec<_> = state.live.values().map(|live| (live.name.as_str(), live.line.as_deref())).collect();
        assert_eq!(lines, [("a", Some("of a")), ("b", Some("of b"))]);
    }

    #[test]
    fn what_was_asked_for_is_what_comes_first_what_was_planned_and_what_was_begun() {
        let planned = Event::ExperimentsPlanned { names: vec!["planned".into()], why: String::new() };
        let none = Event::ForeignEnded { processes: Vec::<ForeignProcess>::new() };
        let state = replayed(vec![planned, started("begun", 1), none]);
        let until = Some(UntilDecided { first: 3, max: 8 });
        let at = |start| Repeat { start, run: 1 };
        let asked = |name: &str, start| state.is_asked(until, name, at(start));
        assert!(asked("any", 3) && asked("planned", 4) && asked("begun", 8));
        assert!(!asked("any", 4));
        assert!(state.is_asked(None, "any", at(9)), "all of any other plan");
    }

    #[test]
    fn the_last_number_of_an_attempt_ends_no_run() {
        assert_eq!(replayed(vec![started("a", u32::MAX)]).next_attempt("a"), u32::MAX);
        assert_eq!(replayed(vec![started("a", 2)]).next_attempt("a"), 3);
    }
}

//! What the front knows, and what it does at each look: one pass over files, one question to the queue, decisions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use tokio::sync::oneshot;

use super::front::{Asked, FrontPlan, Holders, Progress};
use super::plan::{Array, arrays};
use super::request::{ArrayJob, Shape, comment, job_name};
use super::tools::{Queued, Submitted};
use super::verdict::{self, Said};
use crate::bounded;
use crate::execute::block::BlockEnd;
use crate::execute::server::NotStarted;
use crate::execute::{Attempted, Error};
use crate::model::{Cause, Event, Experiment, Failure, Headline, Outcome, Phase, Stamped};
use crate::plan::{Block, OnFailure};
use crate::record::{self, Lock, RunState, SCHEMA, ShardTails, StopRequest, Submission, TaskKey, TaskPlan, layout};

/// The queue is asked at most so often, whatever the size of the run.
const POLL: Duration = Duration::from_secs(5);
/// So long Slurm may be silent before it is told.
const SILENT: Duration = Duration::from_secs(60);
/// Files of other machines may be seen so late: what looks missing is looked for again.
const SETTLE: Duration = Duration::from_secs(6);
/// The controller is asked for what became of a job at most so often.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// How long one waits after a refusal that time may cure.
const LATER: Duration = Duration::from_secs(30);
/// A submission of which nobody knows whether Slurm has it is looked for so long.
const LOOKED_FOR: Duration = Duration::from_secs(15);
/// So often an experiment may have waited in vain behind others in a task that met its time limit.
const MOST_BEHIND: u32 = 10;
/// So many lines of a task's output are kept with a failure.
const TAIL: usize = 50;
/// MaxArraySize where the cluster does not tell it.
const MOST_IN_ARRAY: usize = 1001;

/// A submitted task that is not over.
#[derive(Debug)]
struct Open {
    names: Vec<String>,
    /// Since when the queue has not known it.
    missing: Option<Instant>,
    /// Since when it has been submitted, or found.
    since: Instant,
    /// Whether an earlier front submitted it, and this one has not seen it in the queue: what cut it off is no failure of this session.
    is_earlier: bool,
}

/// An experiment that the campaign waits for.
#[derive(Debug)]
struct Tracked {
    experiment: Arc<Experiment>,
    /// Attempts that had their outcome when it was asked for.
    base: usize,
    /// Attempts that had begun when it was submitted.
    begun: usize,
    /// How the last task that had it ended, where that was before its outcome.
    cut: Option<Cut>,
    /// How often it was cut off, by cause.
    cuts: HashMap<Cause, u32>,
    /// Whether there was no room for it in the queue.
    postponed: bool,
    /// Not to be submitted before.
    not_before: Option<Instant>,
    /// Since when its result has been said to be there and was not seen.
    unseen: Option<Instant>,
    outcome: Option<Outcome>,
}

/// How a task ended before all was measured.
#[derive(Debug, Clone)]
struct Cut {
    cause: Cause,
    /// Who says so.
    said: String,
    /// The last lines that the task printed.
    tail: Vec<String>,
    /// It was over before this session.
    is_earlier: bool,
}

/// A block that the campaign waits for.
#[derive(Debug)]
struct Waiting {
    names: Vec<String>,
    block: Block,
    done: Option<oneshot::Sender<Result<BlockEnd, Error>>>,
}

/// The queue as it was last seen.
#[derive(Debug, Default)]
struct Queue {
    /// When it was asked for last.
    asked: Option<Instant>,
    /// When it answered last.
    answered: Option<Instant>,
    tasks: Vec<Queued>,
    /// By job and index.
    index: HashMap<(String, u32), usize>,
    error: Option<String>,
    told_silent: bool,
}

/// What the front knows.
pub(super) struct Watch {
    plan: FrontPlan,
    state: RunState,
    tails: ShardTails,
    queue: Queue,
    open: BTreeMap<TaskKey, Open>,
    holders: Holders,
    tracked: HashMap<String, Tracked>,
    waiting: Vec<Waiting>,
    /// The most tasks in one array, once known.
    most: Option<usize>,
    /// When the controller was asked for what became of a job, and what it said.
    said: HashMap<String, (Instant, HashMap<u32, Said>)>,
    /// Submissions of which it is not known whether Slurm has them.
    torn: BTreeMap<u32, Instant>,
    /// The last array job of each shape in this session.
    last_job: HashMap<Shape, (u32, String)>,
    over: usize,
    /// Seconds that tasks took.
    took: Vec<f64>,
    stopping: bool,
    stopped_by_failure: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("open", &self.open.len())
            .field("tracked", &self.tracked.len())
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Reads what the run's files say so far: jobs of an earlier front among it.
    pub(super) fn new(plan: FrontPlan) -> Result<Self, Error> {
        let layout = plan.run.layout();
        for folder in layout.slurm_folders() {
            std::fs::create_dir_all(&folder).map_err(record::Error::write(&folder))?;
        }
        let mut tails = ShardTails::new(layout);
        let news = tails.read().map_err(record::Error::read(&layout.shards()))?;
        let own = record::read_journal(&layout.journal())?.entries;
        let state = RunState::replay(&record::by_time(vec![own, news]));
        let mut watch = Self {
            state,
            tails,
            queue: Queue::default(),
            open: BTreeMap::new(),
            holders: Holders::new(),
            tracked: HashMap::new(),
            waiting: Vec::new(),
            most: None,
            said: HashMap::new(),
            torn: BTreeMap::new(),
            last_job: HashMap::new(),
            over: 0,
            took: Vec::new(),
            stopping: false,
            stopped_by_failure: false,
            plan,
        };
        watch.find_open()?;
        Ok(watch)
    }

    /// The tasks of earlier fronts that are not known to be over.
    fn find_open(&mut self) -> Result<(), Error> {
        let jobs: Vec<(u32, bool)> =
            self.state.jobs.iter().filter(|(_, job)| job.tasks > 0).map(|(n, job)| (*n, job.job.is_none())).collect();
        for (number, torn) in jobs {
            let Ok(submission) = Submission::read(self.plan.run.layout(), number) else { continue };
            for task in 0..submission.tasks.len() {
                let key = (number, u32::try_from(task).unwrap_or(u32::MAX));
                if !self.has_ended(key) {
                    let names = submission.tasks[task].experiments.iter().map(|(name, _)| name.clone()).collect();
                    self.opened(key, names);
                    if let Some(open) = self.open.get_mut(&key) {
                        open.is_earlier = true;
                    }
                }
            }
            if torn {
                self.torn.insert(number, Instant::now());
            }
        }
        Ok(())
    }

    fn opened(&mut self, key: TaskKey, names: Vec<String>) {
        for name in &names {
            self.holders.insert(name.clone(), key);
        }
        self.open.insert(key, Open { names, missing: None, since: Instant::now(), is_earlier: false });
    }

    /// Whether a task's own journal, or an earlier verdict, says that it is over for good. One that was interrupted may be started
    /// again by Slurm.
    fn has_ended(&self, key: TaskKey) -> bool {
        let ended = self.state.tasks.get(&key).and_then(|task| task.ended);
        ended.is_some_and(|(_, why)| why != Some(Cause::Interrupted))
    }

    /// Records an event of the front's own, and takes it into account.
    fn event(&mut self, event: Event) {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, false);
        self.state.apply(&Stamped { v: SCHEMA, seq: 0, at, event: event.clone() });
        self.plan.live.0.event(event);
    }

    /// Blocks that the campaign asks for.
    pub(super) fn take(&mut self, asked: Vec<Asked>) {
        for Asked { block, done } in asked {
            let names: Vec<String> = block.experiments.iter().map(|experiment| experiment.name.clone()).collect();
            for experiment in &block.experiments {
                let base = self.outcomes(&experiment.name);
                let tracked = Tracked {
                    experiment: Arc::clone(experiment),
                    base,
                    begun: self.state.attempts.get(&experiment.name).map_or(0, Vec::len),
                    cut: None,
                    cuts: HashMap::new(),
                    postponed: false,
                    not_before: None,
                    unseen: None,
                    outcome: None,
                };
                self.tracked.insert(experiment.name.clone(), tracked);
            }
            self.waiting.push(Waiting { names, block, done: Some(done) });
        }
    }

    /// How many attempts at an experiment have come to an outcome that counts.
    fn outcomes(&self, name: &str) -> usize {
        let attempts = self.state.attempts.get(name).into_iter().flatten();
        attempts.filter(|attempt| matches!(&attempt.outcome, Some(Outcome::Passed { .. } | Outcome::Failed(_)))).count()
    }

    /// One look at everything.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        self.read_news()?;
        self.heed_stop();
        self.ask_queue();
        self.find_torn();
        self.judge_tasks();
        self.settle();
        self.submit()?;
        self.answer();
        self.tell();
        Ok(())
    }

    /// Every block is submitted, or settled: nothing is left to do but to watch.
    pub(super) fn all_submitted(&self) -> bool {
        let held = |name: &String| self.holders.contains_key(name) || self.tracked[name].outcome.is_some();
        self.torn.is_empty() && self.waiting.iter().all(|waiting| waiting.names.iter().all(held))
    }

    /// Leaves what is queued and running to itself.
    pub(super) fn leave(&mut self) {
        for waiting in &mut self.waiting {
            if let Some(done) = waiting.done.take() {
                let outcomes = settled(&waiting.names, &self.tracked);
                let _ = done.send(Ok(BlockEnd { outcomes, interrupted: true, ..BlockEnd::default() }));
            }
        }
    }

    /// The record cannot be kept, or read.
    pub(super) fn fail(&mut self, error: Error) {
        let mut error = Some(error);
        for waiting in &mut self.waiting {
            if let Some(done) = waiting.done.take() {
                let end = match error.take() {
                    Some(error) => Err(error),
                    None => Ok(BlockEnd { interrupted: true, ..BlockEnd::default() }),
                };
                let _ = done.send(end);
            }
        }
    }

    fn read_news(&mut self) -> Result<(), Error> {
        let folder = self.plan.run.layout().shards();
        for stamped in self.tails.read().map_err(record::Error::read(&folder))? {
            self.state.apply(&stamped);
            if let Event::TaskStarted { submission, job, .. } = &stamped.event
                && self.torn.remove(submission).is_some()
            {
                let (submission, job) = (*submission, job.clone());
                let tasks = self.state.jobs.get(&submission).map_or(0, |state| state.tasks);
                self.event(Event::JobSubmitted { submission, job, tasks });
            }
            self.plan.watcher.news(&stamped);
        }
        Ok(())
    }

    /// Somebody asked that the jobs end: nothing is submitted any more.
    fn heed_stop(&mut self) {
        if !self.stopping
            && let Some(request) = StopRequest::read(self.plan.run.layout())
        {
            self.stopping = true;
            self.event(Event::StopRequested { by: request.by });
        }
    }

    fn ask_queue(&mut self) {
        if self.open.is_empty() || self.queue.asked.is_some_and(|at| at.elapsed() < POLL) {
            return;
        }
        let name = job_name(self.plan.run.path());
        self.queue.asked = Some(Instant::now());
        match self.plan.tools.queue(&name) {
            Ok(tasks) => {
                if std::mem::take(&mut self.queue.told_silent) {
                    self.plan.live.0.say("Slurm answers again".to_owned());
                }
                let key = |(at, task): (usize, &Queued)| Some(((task.job.clone(), task.task?), at));
                self.queue.index = tasks.iter().enumerate().filter_map(key).collect();
                (self.queue.tasks, self.queue.error) = (tasks, None);
                self.queue.answered = Some(Instant::now());
            }
            Err(error) => {
                let silent = self.queue.answered.is_none_or(|at| at.elapsed() > SILENT);
                if silent && !self.queue.told_silent {
                    self.queue.told_silent = true;
                    self.plan.live.0.say(format!(
                        "Slurm does not answer ({error}): the run goes on by the tasks' own files, and Slurm is asked again and again"
                    ));
                }
                self.queue.error = Some(error);
            }
        }
        // The limit counts from the end of an answer that was slow.
        self.queue.asked = Some(Instant::now());
    }

    /// Looks for submissions that an earlier front may have made, or a call of `sbatch` without an answer.
    fn find_torn(&mut self) {
        let Some(answered) = self.queue.answered else { return };
        let torn: Vec<(u32, Instant)> = self.torn.iter().map(|(number, since)| (*number, *since)).collect();
        for (number, since) in torn {
            let wanted = comment(self.plan.run.path(), number);
            let found = self.queue.tasks.iter().find(|task| task.comment == wanted).map(|task| task.job.clone());
            let tasks = self.state.jobs.get(&number).map_or(0, |job| job.tasks);
            if let Some(job) = found {
                self.torn.remove(&number);
                self.event(Event::JobSubmitted { submission: number, job, tasks });
            } else if answered.saturating_duration_since(since) > LOOKED_FOR {
                self.torn.remove(&number);
                self.refused(number, "the queue does not have it: it was never submitted".to_owned());
            }
        }
    }

    /// A job is not there: its experiments are free again.
    fn refused(&mut self, number: u32, why: String) {
        self.event(Event::JobRefused { submission: number, why });
        let keys: Vec<TaskKey> = self.open.keys().filter(|(submission, _)| *submission == number).copied().collect();
        let closed: Vec<Open> = keys.into_iter().filter_map(|key| self.close(key)).collect();
        for name in closed.into_iter().flat_map(|open| open.names) {
            if let Some(tracked) = self.tracked.get_mut(&name) {
                tracked.not_before = Some(Instant::now() + LATER);
            }
        }
    }

    fn close(&mut self, key: TaskKey) -> Option<Open> {
        let open = self.open.remove(&key)?;
        for name in &open.names {
            if self.holders.get(name) == Some(&key) {
                self.holders.remove(name);
            }
        }
        Some(open)
    }

    fn job_of(&self, key: TaskKey) -> Option<String> {
        let known = self.state.jobs.get(&key.0).and_then(|job| job.job.clone());
        known.or_else(|| self.state.tasks.get(&key).and_then(|task| task.job.clone()))
    }

    /// Which tasks are over, and why.
    fn judge_tasks(&mut self) {
        let keys: Vec<TaskKey> = self.open.keys().copied().collect();
        let missing_since = self.queue.answered.filter(|_| self.queue.error.is_none());
        let mut asked: HashMap<String, Vec<(TaskKey, bool)>> = HashMap::new();
        for key in keys {
            let ended = self.state.tasks.get(&key).and_then(|task| task.ended);
            if let Some((at, why)) = ended
                && why != Some(Cause::Interrupted)
            {
                self.over(key, at, why);
                continue;
            }
            let Some(job) = self.job_of(key) else { continue };
            if let Some(at) = self.queue.index.get(&(job.clone(), key.1)) {
                let never = self.queue.tasks[*at].reason.contains("DependencyNeverSatisfied");
                if let Some(open) = self.open.get_mut(&key) {
                    open.missing = None;
                    open.is_earlier = false;
                }
                if never {
                    let _ = self.plan.tools.cancel(&[], &[format!("{job}_{}", key.1)]);
                    let said = "squeue says DependencyNeverSatisfied".to_owned();
                    self.lost(
                        key,
                        Cut { cause: Cause::DependencyNeverSatisfied, said, tail: Vec::new(), is_earlier: false },
                    );
                }
                continue;
            }
            let Some(open) = self.open.get_mut(&key) else { continue };
            // The queue was asked after the task was submitted, and does not have it.
            if missing_since.is_some_and(|answered| answered > open.since) {
                let since = *open.missing.get_or_insert_with(Instant::now);
                if since.elapsed() >= SETTLE {
                    asked.entry(job).or_default().push((key, ended.is_some()));
                }
            }
        }
        for (job, tasks) in asked {
            self.find_out(&job, &tasks);
        }
    }

    /// What became of tasks that the queue does not have, and that did not say so.
    fn find_out(&mut self, job: &str, tasks: &[(TaskKey, bool)]) {
        if self.said.get(job).is_none_or(|(at, _)| at.elapsed() >= ASK_AGAIN) {
            let indices: Vec<u32> = tasks.iter().map(|(key, _)| key.1).collect();
            let said = self.plan.tools.says(job, &indices);
            self.said.insert(job.to_owned(), (Instant::now(), said));
        }
        for (key, interrupted) in tasks {
            let said = self.said.get(job).and_then(|(_, said)| said.get(&key.1)).cloned();
            let is_over = said.as_ref().is_some_and(Said::is_over);
            let waited =
                self.open.get(key).and_then(|open| open.missing).map_or(Duration::ZERO, |since| since.elapsed());
            let out_of_patience = waited >= self.plan.request.patience;
            if !is_over && !out_of_patience && !*interrupted {
                continue;
            }
            if self.is_measured_now(*key) {
                continue;
            }
            let output = self.output_of(job, key.1);
            let began = self.state.tasks.contains_key(key);
            let known = said.as_ref().filter(|said| said.is_over());
            let cause = match verdict::cause(known, &output, began) {
                Some(cause) => cause,
                None if *interrupted => Cause::JobCancelled,
                // Completed, and yet no word of its end is there: files of other machines may be seen late.
                None if !out_of_patience => continue,
                None => Cause::LostByScheduler,
            };
            let told = known.map_or_else(
                || match interrupted {
                    true => "it was told to end, and the queue does not have it any more".to_owned(),
                    false => format!("neither the queue nor the accounting has known it for {} s", waited.as_secs()),
                },
                Said::told,
            );
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|line| (*line).to_owned()).collect();
            self.lost(*key, Cut { cause, said: told, tail, is_earlier: false });
        }
    }

    /// Whether a process still measures an experiment of a task: it holds the lock, whatever the scheduler thinks of its node.
    fn is_measured_now(&self, key: TaskKey) -> bool {
        let layout = self.plan.run.layout();
        let names = self.open.get(&key).map(|open| open.names.as_slice()).unwrap_or_default();
        names.iter().map(|name| layout.experiment_lock(name)).any(|path| path.exists() && Lock::holder(&path).is_some())
    }

    /// The end of what a task printed.
    fn output_of(&self, job: &str, task: u32) -> String {
        const END: u64 = 16 << 10;
        let path = self.plan.run.layout().task_output(job, task);
        let read = || {
            let (mut file, meta) = bounded::open_known(&path)?;
            file.seek(SeekFrom::Start(meta.len().saturating_sub(END)))?;
            let mut bytes = Vec::new();
            file.take(END).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// A task is over without having said so.
    fn lost(&mut self, key: TaskKey, cut: Cut) {
        self.event(Event::TaskLost { submission: key.0, task: key.1, cause: cut.cause, said: cut.said.clone() });
        self.cut_off(key, &cut);
    }

    /// A task has said how it ended.
    fn over(&mut self, key: TaskKey, at: Option<chrono::DateTime<Utc>>, why: Option<Cause>) {
        let began = self.state.tasks.get(&key).and_then(|task| task.began);
        if let (Some(began), Some(at)) = (began, at) {
            self.took.push((at - began).as_seconds_f64().max(0.0));
        }
        // Of a task that has measured all nothing was cut off: what has no outcome in its journal lies in the result files.
        let (cause, said) = match why {
            Some(cause) => (cause, "the task has ended in order, as the signal before its limit told it"),
            None => (Cause::LostByScheduler, "the task says that it has measured all"),
        };
        self.cut_off(key, &Cut { cause, said: said.to_owned(), tail: Vec::new(), is_earlier: false });
    }

    /// Frees the experiments of a task that is over; those without an outcome were cut off.
    fn cut_off(&mut self, key: TaskKey, cut: &Cut) {
        let Some(open) = self.close(key) else { return };
        self.over += 1;
        for name in open.names {
            if let Some(tracked) = self.tracked.get_mut(&name).filter(|tracked| tracked.outcome.is_none()) {
                tracked.cut = Some(Cut { is_earlier: open.is_earlier, ..cut.clone() });
            }
        }
    }

    /// What experiments came to that no task holds any more.
    fn settle(&mut self) {
        let free: Vec<String> = self
            .tracked
            .iter()
            .filter(|(name, tracked)| tracked.outcome.is_none() && !self.holders.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        let mut without = Vec::new();
        for name in free {
            let Some(outcome) = self.outcome_of(&name) else {
                without.push(name);
                continue;
            };
            if matches!(outcome, Outcome::Failed(_)) && self.plan.policy.on_failure == OnFailure::Stop {
                self.stop_by_failure();
            }
            if let Some(tracked) = self.tracked.get_mut(&name) {
                tracked.outcome = Some(outcome);
            }
        }
        without.iter().for_each(|name| self.after_a_cut(name));
    }

    /// The outcome of an experiment in this session, as files say.
    fn outcome_of(&mut self, name: &str) -> Option<Outcome> {
        let tracked = &self.tracked[name];
        let newest = self.state.newest(name).and_then(|attempt| attempt.outcome.clone());
        let fresh = self.outcomes(name) > tracked.base;
        if let Some(Outcome::Failed(failure)) = newest.clone().filter(|_| fresh) {
            return Some(Outcome::Failed(failure));
        }
        // Only what was ever in a task can have a result by now.
        if tracked.cut.is_none() && !fresh {
            return None;
        }
        let found = self.plan.run.valid_result(&tracked.experiment);
        found.map(|record| Outcome::Passed { headline: Headline::of(&record.vllm) })
    }

    /// An experiment was in a task that is over, and has no outcome: it is submitted again, or has failed.
    fn after_a_cut(&mut self, name: &str) {
        let passed = matches!(
            self.state.newest(name).and_then(|attempt| attempt.outcome.as_ref()),
            Some(Outcome::Passed { .. })
        );
        let Some(tracked) = self.tracked.get_mut(name) else { return };
        let Some(cut) = tracked.cut.clone() else { return };
        // The task says that it passed, and its file is not seen yet.
        if passed && tracked.unseen.get_or_insert_with(Instant::now).elapsed() < self.plan.request.patience {
            return;
        }
        tracked.cut = None;
        tracked.unseen = None;
        if self.stopping {
            tracked.outcome = Some(Outcome::Interrupted);
            return;
        }
        if cut.is_earlier {
            // Submitted again, as what was never begun.
            return;
        }
        let cause = cut.cause;
        let cuts = tracked.cuts.entry(cause).or_default();
        *cuts += 1;
        let (cuts, retry) = (*cuts, self.plan.policy.retry.for_cause(cause));
        // One that waited behind others in a task that met its limit has had no attempt yet.
        let behind = cause == Cause::TimeLimit && !self.has_begun(name) && cuts <= MOST_BEHIND;
        if behind || cuts <= retry.attempts {
            if let Some(tracked) = self.tracked.get_mut(name) {
                tracked.not_before = Some(Instant::now() + retry.back_off);
            }
            self.plan.live.0.say(format!("`{name}` is submitted again: {} ({})", cause.title(), cut.said));
            return;
        }
        self.record_failure(name, cut);
    }

    /// Whether an attempt at an experiment has begun since it was submitted.
    fn has_begun(&self, name: &str) -> bool {
        let begun = self.tracked.get(name).map_or(0, |tracked| tracked.begun);
        self.state.attempts.get(name).map_or(0, Vec::len) > begun
    }

    /// Records that an experiment has failed without a measurement of its own.
    fn record_failure(&mut self, name: &str, cut: Cut) {
        let Some(experiment) = self.tracked.get(name).map(|tracked| Arc::clone(&tracked.experiment)) else { return };
        let cut_short = |outcome: &Option<Outcome>| matches!(outcome, None | Some(Outcome::Interrupted));
        let newest = self.state.newest(name).filter(|attempt| cut_short(&attempt.outcome) && self.has_begun(name));
        let open = newest.map(|attempt| attempt.number);
        let attempt = open.unwrap_or_else(|| self.state.next_attempt(name));
        let job = (self.plan.job)(&experiment, attempt);
        if open.is_none() {
            let started = Event::ExperimentStarted {
                index: experiment.index,
                name: experiment.name.clone(),
                attempt,
                axes: Some(Box::new(experiment.axes.clone())),
                placement: None,
            };
            self.event(started);
        }
        let summary = format!("{}: {}", cut.cause.title(), cut.said);
        let failure = Failure { log_tail: cut.tail, ..Failure::plain(cut.cause, Phase::Launching, summary) };
        let nothing =
            NotStarted { outcome: Outcome::Failed(failure.clone()), startup: None, steps: Vec::new(), teardown: None };
        let came = Attempted::not_started(nothing, &job, &self.plan.context, tokio::time::Instant::now());
        self.plan.live.0.finished(&job, &came);
        self.state.apply(&Stamped {
            v: SCHEMA,
            seq: 0,
            at: Utc::now().to_rfc3339_opts(SecondsFormat::Millis, false),
            event: Event::ExperimentFinished {
                index: experiment.index,
                name: name.to_owned(),
                attempt,
                outcome: Outcome::Failed(failure.clone()),
                timings: came.timings,
                metrics: std::collections::BTreeMap::default(),
            },
        });
        if let Some(tracked) = self.tracked.get_mut(name) {
            tracked.outcome = Some(Outcome::Failed(failure));
        }
        if self.plan.policy.on_failure == OnFailure::Stop {
            self.stop_by_failure();
        }
    }

    /// `on-failure: stop`: what waits is cancelled, what runs is measured to its end.
    fn stop_by_failure(&mut self) {
        if std::mem::replace(&mut self.stopped_by_failure, true) {
            return;
        }
        self.stopping = true;
        let jobs: HashSet<String> = self.open.keys().filter_map(|key| self.job_of(*key)).collect();
        if !jobs.is_empty() {
            let _ = self.plan.tools.cancel(&["--state=PENDING"], &jobs.into_iter().collect::<Vec<_>>());
        }
    }

    /// Submits what no task holds and has no outcome.
    fn submit(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let mut blocks = Vec::new();
        for waiting in &self.waiting {
            let free = |experiment: &&Arc<Experiment>| {
                let tracked = &self.tracked[&experiment.name];
                tracked.outcome.is_none()
                    && tracked.cut.is_none()
                    && !self.holders.contains_key(&experiment.name)
                    && tracked.not_before.is_none_or(|at| at <= now)
            };
            let pending: Vec<Arc<Experiment>> = waiting.block.experiments.iter().filter(free).cloned().collect();
            if !pending.is_empty() {
                blocks.push(Block { experiments: pending, known_failure: None });
            }
        }
        if blocks.is_empty() {
            return Ok(());
        }
        if self.stopping {
            for experiment in blocks.iter().flat_map(|block| &block.experiments) {
                if let Some(tracked) = self.tracked.get_mut(&experiment.name) {
                    tracked.outcome = Some(Outcome::Interrupted);
                }
            }
            return Ok(());
        }
        let most = match self.most {
            Some(most) => most,
            None => *self.most.insert(self.plan.tools.most_in_array().unwrap_or(MOST_IN_ARRAY)),
        };
        let mut left: Vec<Array> = arrays(blocks, &self.plan.request, most);
        left.reverse();
        while let Some(array) = left.pop() {
            match self.submit_one(&array)? {
                Came::In | Came::Unclear => {}
                Came::TooMany(why) if array.tasks.len() > 1 => {
                    // Half as many at a time: what a limit leaves room for is found in a few steps.
                    let mut first = array;
                    let rest = first.tasks.split_off(first.tasks.len().div_ceil(2));
                    left.push(Array { shape: first.shape, tasks: rest });
                    left.push(first);
                    tracing::debug!(why, "fewer tasks in one array");
                }
                Came::TooMany(why) if !self.open.is_empty() => {
                    // There is room again when what is queued has gone.
                    left.push(array);
                    self.postpone(&left, &why);
                    return Ok(());
                }
                Came::TooMany(why) | Came::Refused(why) => self.give_up(&array, &why),
            }
        }
        Ok(())
    }

    fn submit_one(&mut self, array: &Array) -> Result<Came, Error> {
        let layout = self.plan.run.layout().clone();
        let number = layout::first_free(|n| layout.submission(n));
        let plan = |blocks: &Vec<Block>| {
            let experiments = blocks.iter().flat_map(|block| &block.experiments);
            let one =
                |experiment: &Arc<Experiment>| (experiment.name.clone(), self.state.next_attempt(&experiment.name));
            TaskPlan { experiments: experiments.map(one).collect() }
        };
        let Shape { nodes, gpus_per_node } = array.shape;
        let tasks: Vec<TaskPlan> = array.tasks.iter().map(plan).collect();
        let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
        let submission = Submission { schema: SCHEMA, number, nodes, gpus_per_node, tasks };
        submission.keep(&layout)?;
        let script = layout.batch_script(number);
        let text = self.plan.request.script(self.plan.run.path(), number, &self.plan.program);
        record::atomic::keep_again_with(&script, |out| out.write_all(text.as_bytes()))?;
        let chained = self.last_job.get(&array.shape).filter(|(last, _)| {
            self.plan.request.workers.is_some() && self.open.keys().any(|(submission, _)| submission == last)
        });
        let outputs = layout.task_outputs();
        let job = ArrayJob {
            run: self.plan.run.path(),
            submission: number,
            shape: array.shape,
            tasks: array.tasks.len(),
            output: &outputs,
            script: &script,
            after: chained.map(|(_, job)| job.as_str()),
            secrets: &self.plan.secrets,
        };
        let options = self.plan.request.options(&job);
        self.event(Event::JobSubmitting { submission: number, tasks: count });
        let names = |task: &TaskPlan| task.experiments.iter().map(|(name, _)| name.clone()).collect();
        let keep = |watch: &mut Self| {
            for name in submission.tasks.iter().flat_map(|task| &task.experiments).map(|(name, _)| name) {
                let begun = watch.state.attempts.get(name).map_or(0, Vec::len);
                if let Some(tracked) = watch.tracked.get_mut(name) {
                    tracked.begun = begun;
                }
            }
            for (task, plan) in submission.tasks.iter().enumerate() {
                watch.opened((number, u32::try_from(task).unwrap_or(u32::MAX)), names(plan));
            }
        };
        Ok(match self.plan.tools.submit(&options) {
            Submitted::As(job) => {
                self.event(Event::JobSubmitted { submission: number, job: job.clone(), tasks: count });
                self.last_job.insert(array.shape, (number, job));
                keep(self);
                Came::In
            }
            Submitted::Unclear(why) => {
                self.plan
                    .live
                    .0
                    .say(format!("`sbatch` gave no clear answer ({why}): the queue is looked through for the job"));
                keep(self);
                self.torn.insert(number, Instant::now());
                Came::Unclear
            }
            Submitted::Limit(why) => {
                self.event(Event::JobRefused { submission: number, why: why.clone() });
                Came::TooMany(why)
            }
            Submitted::Refused(why) => {
                self.event(Event::JobRefused { submission: number, why: why.clone() });
                Came::Refused(why)
            }
        })
    }

    /// What a limit has no room for is submitted later.
    fn postpone(&mut self, arrays: &[Array], why: &str) {
        let mut told = true;
        for experiment in experiments(arrays) {
            let Some(tracked) = self.tracked.get_mut(&experiment.name) else { continue };
            told &= std::mem::replace(&mut tracked.postponed, true);
            tracked.not_before = Some(Instant::now() + LATER);
        }
        if !told {
            self.plan.live.0.say(format!("the rest is submitted when there is room for it: {why}"));
        }
    }

    fn give_up(&mut self, array: &Array, why: &str) {
        let names: Vec<String> = experiments(std::slice::from_ref(array)).map(|e| e.name.clone()).collect();
        for name in names {
            let cut =
                Cut { cause: Cause::SubmissionRefused, said: why.to_owned(), tail: Vec::new(), is_earlier: false };
            self.record_failure(&name, cut);
        }
    }

    /// Tells the campaign of the blocks that are over.
    fn answer(&mut self) {
        let stopped = self.stopped_by_failure;
        for waiting in &mut self.waiting {
            let over = waiting.names.iter().all(|name| self.tracked[name].outcome.is_some());
            if let (true, Some(done)) = (over, waiting.done.take_if(|_| over)) {
                let outcomes = settled(&waiting.names, &self.tracked);
                let interrupted = outcomes.len() < waiting.names.len();
                let _ = done.send(Ok(BlockEnd {
                    interrupted: interrupted && !stopped,
                    stopped_by_failure: stopped,
                    outcomes,
                    ..BlockEnd::default()
                }));
            }
        }
        self.waiting.retain(|waiting| waiting.done.is_some());
    }

    /// Says how far the tasks are.
    fn tell(&self) {
        let jobs: HashSet<String> = self.open.keys().filter_map(|key| self.job_of(*key)).collect();
        let known = || self.queue.tasks.iter().filter(|task| jobs.contains(&task.job));
        let running = known().filter(|task| task.is_running()).count();
        let waits: Vec<&str> = known().filter(|task| !task.is_running()).map(|task| task.reason.as_str()).collect();
        let mut reasons: HashMap<&str, usize> = HashMap::new();
        for reason in waits.iter().filter(|reason| **reason != "None") {
            *reasons.entry(reason).or_default() += 1;
        }
        let reason =
            reasons.into_iter().max_by_key(|(reason, count)| (*count, *reason)).map(|(reason, _)| reason.to_owned());
        let silent = self.queue.error.clone().filter(|_| self.queue.told_silent);
        let since = self.queue.answered.map_or(Duration::ZERO, |at| at.elapsed());
        self.plan.watcher.progress(&Progress {
            running,
            waiting: self.open.len().saturating_sub(running),
            reason,
            over: self.over,
            tasks: self.over + self.open.len(),
            left: self.left(running),
            silent: silent.map(|error| (since, error)),
        });
    }

    /// What is left, at the mean length of the tasks that ended, and with as many at once as run now.
    fn left(&self, running: usize) -> Option<Duration> {
        if self.took.is_empty() || running == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "numbers of tasks")]
        let (mean, rounds) = (
            self.took.iter().sum::<f64>() / self.took.len() as f64,
            // Those that run are half done, on average.
            (self.open.len() as f64 - running as f64 / 2.0) / running as f64,
        );
        Duration::try_from_secs_f64(mean * rounds).ok()
    }
}

/// What came of a call of `sbatch`.
enum Came {
    In,
    Unclear,
    TooMany(String),
    Refused(String),
}

fn experiments(arrays: &[Array]) -> impl Iterator<Item = &Arc<Experiment>> {
    arrays.iter().flat_map(|array| &array.tasks).flatten().flat_map(|block| &block.experiments)
}

/// The outcomes of a block's experiments that are final.
fn settled(names: &[String], tracked: &HashMap<String, Tracked>) -> Vec<(Arc<Experiment>, Outcome)> {
    let one = |name: &String| {
        let tracked = tracked.get(name)?;
        let outcome = tracked.outcome.clone().filter(|outcome| !matches!(outcome, Outcome::Interrupted))?;
        Some((Arc::clone(&tracked.experiment), outcome))
    };
    names.iter().filter_map(one).collect()
}

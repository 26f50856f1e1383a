//! What the front knows, and what it does at each look: one pass over files, one question to the queue, decisions.

mod judge;
mod settle;
mod submit;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use tokio::sync::oneshot;

use super::front::{Asked, FrontPlan, Holders, Progress};
use super::plan::Array;
use super::request::Shape;
use super::tools::Queued;
use super::verdict::Said;
use crate::execute::Error;
use crate::execute::block::BlockEnd;
use crate::model::{Cause, Event, Experiment, Outcome, Stamped};
use crate::plan::Block;
use crate::record::{self, RunState, SCHEMA, ShardTails, StopRequest, Submission, TaskKey};

/// How long one waits after a refusal that time may cure.
const LATER: Duration = Duration::from_secs(30);

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
        let all = record::by_time(vec![own, news]);
        all.iter().for_each(|stamped| plan.watcher.before(stamped));
        let state = RunState::replay(&all);
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

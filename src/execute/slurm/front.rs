//! The front: submits blocks as tasks, watches their journals and the queue, and says what became of each block.
//!
//! It works on a thread of its own, which asks Slurm's programs and reads files. Blocks come from the campaign through
//! [`SlurmExecutor`]; a block is over when the tasks' own files say so for each of its experiments.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::request::Request;
use super::tools::Tools;
use super::watch::Watch;
use crate::execute::block::{BlockEnd, Policy};
use crate::execute::{Emitter, Error, Executor, Job, UnitContext};
use crate::model::{Capacity, Experiment, Stamped};
use crate::plan::Block;
use crate::process::{Stop, StopLevel};
use crate::record::RunDir;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Blocks that come shortly after each other are submitted together.
const GATHER: Duration = Duration::from_millis(300);

/// How far the tasks are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that run, as far as Slurm says.
    pub running: usize,
    /// Tasks that wait.
    pub waiting: usize,
    /// Why most of them wait, in Slurm's words.
    pub reason: Option<String>,
    /// Tasks that are over.
    pub over: usize,
    /// All tasks of this session and those that it found.
    pub tasks: usize,
    /// What is left, where that can be told.
    pub left: Option<Duration>,
    /// Since when Slurm has not answered, and what it last said; `None` where it answers.
    pub silent: Option<(Duration, String)>,
}

/// Is told what happens.
pub trait Watcher: Send {
    /// This happened before this front began: another one may have seen it, or none.
    fn before(&self, stamped: &Stamped);

    /// A task has written this into its journal.
    fn news(&self, stamped: &Stamped);

    /// How far the tasks are.
    fn progress(&self, progress: &Progress);
}

/// Makes the job of an attempt at an experiment.
pub type MakeJob = Box<dyn Fn(&Arc<Experiment>, u32) -> Job + Send>;

/// Everything that a front works with.
pub struct FrontPlan {
    /// What is asked of Slurm.
    pub request: Request,
    /// Its programs.
    pub tools: Tools,
    /// The run.
    pub run: RunDir,
    /// This program, as nodes find it.
    pub program: PathBuf,
    /// Names of secret variables that tasks need.
    pub secrets: Vec<String>,
    /// For what is recorded of experiments that no task measured.
    pub context: UnitContext,
    /// Which failures are tried again, and what one means for the others.
    pub policy: Policy,
    /// Makes the job of an attempt at an experiment.
    pub job: MakeJob,
    /// Where events go, and who is told to stop.
    pub live: (Emitter, Stop),
    /// Who is told.
    pub watcher: Box<dyn Watcher>,
    /// Leaves once everything is submitted.
    pub detach: bool,
}

impl std::fmt::Debug for FrontPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontPlan").field("request", &self.request).field("run", &self.run).finish_non_exhaustive()
    }
}

/// A block that the campaign waits for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) block: Block,
    pub(super) done: oneshot::Sender<Result<BlockEnd, Error>>,
}

#[derive(Debug, Default)]
struct Inbox {
    asked: Vec<Asked>,
    /// The campaign is over: nothing comes any more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

/// Runs blocks as tasks of a cluster: all that are asked for at once.
#[derive(Debug)]
pub struct SlurmExecutor {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SlurmExecutor {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the files of the run cannot be read.
    pub fn start(plan: FrontPlan) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (stop, detach) = (plan.live.1.clone(), plan.detach);
        let mut watch = Watch::new(plan)?;
        let inbox = Arc::clone(&shared);
        let thread = std::thread::spawn(move || work(&mut watch, &inbox, &stop, detach));
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for SlurmExecutor {
    fn drop(&mut self) {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.news.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Executor for SlurmExecutor {
    fn capacity(&self) -> Capacity {
        Capacity::blocks(usize::MAX)
    }

    fn run(&self, block: Block) -> BoxFuture<'_, Result<BlockEnd, Error>> {
        let (done, end) = oneshot::channel();
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).asked.push(Asked { block, done });
        self.shared.news.notify_all();
        // A front that is gone leaves its blocks to a resume.
        async move { end.await.unwrap_or_else(|_| Ok(BlockEnd { interrupted: true, ..BlockEnd::default() })) }.boxed()
    }
}

/// Looks again and again, until the campaign is over, the front is to leave, or the record breaks.
fn work(watch: &mut Watch, shared: &Shared, stop: &Stop, detach: bool) {
    let mut quiet = Instant::now();
    loop {
        let (asked, closed) = {
            let inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            let empty = |inbox: &mut Inbox| inbox.asked.is_empty() && !inbox.closed;
            let waited = shared.news.wait_timeout_while(inbox, LOOK, empty);
            let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut inbox.asked), inbox.closed)
        };
        if closed {
            return;
        }
        if !asked.is_empty() {
            watch.take(asked);
            quiet = Instant::now();
            continue_gathering();
            continue;
        }
        if stop.level() >= StopLevel::AfterCurrent {
            return watch.leave();
        }
        if quiet.elapsed() < GATHER {
            continue;
        }
        if let Err(error) = watch.look() {
            return watch.fail(error);
        }
        if detach && watch.all_submitted() {
            return watch.leave();
        }
    }
}

/// The campaign asks for block after block without a pause: a moment later all of them are there.
fn continue_gathering() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Which task measures an experiment.
pub(super) type Holders = HashMap<String, crate::record::TaskKey>;

//! Blocks on this machine: the steps of [`Machine`] with real processes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::block::{BlockEnd, Machine, Policy, Seen, Step, Turn};
use super::compile_lock::CompileLock;
use super::lanes::Neighbours;
use super::server::{NotStarted, Server};
use super::unit::measure;
use super::{
    Attempted, Binding, Emitter, Error, Lease, Leases, Places, Scope, UnitContext, end_foreign, end_leftovers, port,
};
use crate::model::{Capacity, Cause, Event, Experiment, Failure, Outcome, Phase};
use crate::plan::Block;
use crate::process::{Stop, StopLevel};
use crate::record::Lock;

/// One attempt that is to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to measure.
    pub experiment: Arc<Experiment>,
    /// From 1, over all resumes.
    pub attempt: u32,
    /// The server's port.
    pub port: u16,
    /// What its processes are bound to.
    pub binding: Binding,
    /// Where its files go.
    pub places: Places,
    /// When it began, as shown and recorded; set by the recorder's clock.
    pub started: String,
}

/// Makes jobs: names and numbers are fresh when an experiment's turn comes.
pub trait Jobs: Send + Sync {
    /// The next attempt at an experiment, with a server of its own on this port.
    fn fresh(&self, experiment: &Arc<Experiment>, port: u16) -> Job;

    /// A name for the log of a server that is about to be launched, where other processes launch servers for the same run; held until it is
    /// there, so that no two have the same.
    fn claim_log(&self, job: &mut Job) -> Option<Lock>;

    /// The next attempt at an experiment on the server of `earlier`.
    fn on_server_of(&self, earlier: &Job, experiment: &Arc<Experiment>) -> Job;
}

/// Takes blocks through their lives, somewhere.
pub trait Executor: Send + Sync {
    /// What is free now.
    fn capacity(&self) -> Capacity;

    /// Measures a block; to be called only where there is room for one. What a failed experiment came to is in the end; an error is that
    /// of the tool.
    fn run(&self, block: Block) -> BoxFuture<'_, Result<BlockEnd, Error>>;
}

/// Runs blocks on this machine, each on a lease.
pub struct LocalExecutor {
    pub(super) context: Arc<UnitContext>,
    pub(super) jobs: Arc<dyn Jobs>,
    pub(super) emit: Emitter,
    pub(super) stop: Stop,
    policy: Policy,
    keep_foreign: bool,
    began: Instant,
    leases: Mutex<Leases>,
    neighbours: Mutex<Neighbours>,
}

impl std::fmt::Debug for LocalExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalExecutor")
            .field("policy", &self.policy)
            .field("leases", &self.leases)
            .finish_non_exhaustive()
    }
}

impl LocalExecutor {
    /// An executor on these leases. `keep_foreign`: other people's servers are left alone. With lanes only those on
    /// the devices of a lane are in its way.
    pub fn new(
        context: UnitContext,
        policy: Policy,
        jobs: Arc<dyn Jobs>,
        (emit, stop): (Emitter, Stop),
        keep_foreign: bool,
        leases: Leases,
    ) -> Self {
        Self {
            context: Arc::new(context),
            jobs,
            emit,
            stop,
            policy,
            keep_foreign,
            began: Instant::now(),
            leases: Mutex::new(leases),
            neighbours: Mutex::default(),
        }
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same without lanes: one block at a time, on the whole machine.
    #[must_use]
    pub fn without_lanes(self) -> Self {
        self.leases().give_up_lanes();
        self
    }

    /// The same with one block at a time, bound as it would be beside others.
    #[must_use]
    pub fn one_at_a_time(self) -> Self {
        self.leases().keep_one();
        self
    }

    fn neighbours(&self) -> MutexGuard<'_, Neighbours> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn block(&self, block: Block, lease: &mut Lease) -> Result<BlockEnd, Error> {
        let policy = Policy { chooses_ports: lease.chooses_ports(), ..self.policy.clone() };
        let mut machine = Machine::new(block, policy);
        let mut hands = Hands { executor: self, lease, stop: self.stop.clone(), attempt: None, server: None };
        let mut seen = Seen::Nothing;
        loop {
            let steps = machine.next(seen, hands.stop.level());
            seen = Seen::Nothing;
            for step in steps {
                if step == Step::End {
                    return Ok(machine.into_end());
                }
                if let Some(now) = hands.step(step).await? {
                    seen = now;
                }
            }
        }
    }
}

impl Executor for LocalExecutor {
    fn capacity(&self) -> Capacity {
        let (blocks, free) = self.leases().free();
        Capacity { blocks, free, at: self.began.elapsed() }
    }

    fn run(&self, block: Block) -> BoxFuture<'_, Result<BlockEnd, Error>> {
        let lease = self.leases().take(block.server().and_then(|(server, _)| server.devices()));
        async move {
            // Nobody was to ask: the block is left for a resume.
            let Some((lane, mut lease)) = lease else {
                return Ok(BlockEnd { interrupted: true, ..BlockEnd::default() });
            };
            self.neighbours().block_begins();
            let end = self.block(block, &mut lease).await;
            self.neighbours().block_ends();
            self.leases().back(lane, lease);
            end
        }
        .boxed()
    }
}

/// The attempt at hand.
struct Attempt {
    job: Job,
    began: Instant,
    /// What came of it so far.
    came: Option<Attempted>,
}

/// What does the steps of one block.
struct Hands<'e> {
    executor: &'e LocalExecutor,
    lease: &'e mut Lease,
    stop: Stop,
    attempt: Option<Attempt>,
    server: Option<Server>,
}

impl Hands<'_> {
    /// Does one step; what was seen, where it is a step whose outcome is asked for.
    async fn step(&mut self, step: Step) -> Result<Option<Seen>, Error> {
        let (executor, emit) = (self.executor, &self.executor.emit);
        match step {
            Step::Clear => {
                let (grace, keep) = (executor.context.grace, executor.keep_foreign);
                let scope = executor.context.scope_of(&self.lease.binding);
                end_foreign_and_leftovers(&scope, grace, keep, emit, &mut self.stop).await?;
            }
            Step::Begin { experiment, shares_server } => self.begin(&experiment, shares_server),
            Step::Start => return Ok(Some(self.start().await)),
            Step::Reuse => self.reuse(),
            Step::Measure(turn) => return Ok(Some(self.measure(turn).await)),
            Step::Keep => {
                if let Some(Attempt { job, came: Some(came), .. }) = &self.attempt {
                    emit.keep(job, came);
                }
            }
            Step::Record => self.record(),
            Step::RecordFailure(failure) => self.record_failure(failure),
            Step::Say(text) => emit.say(text),
            Step::Pause(duration) => {
                pause(duration, &mut self.stop).await;
                return Ok(Some(Seen::Paused));
            }
            Step::CheckHealth => {
                let well = match &mut self.server {
                    Some(server) => server.is_healthy(&executor.context, &mut self.stop).await,
                    None => false,
                };
                return Ok(Some(Seen::Health(well)));
            }
            Step::Drain { of_attempt } => {
                self.drain(of_attempt).await;
                return Ok(Some(Seen::Drained));
            }
            Step::End => {}
        }
        Ok(None)
    }

    fn begin(&mut self, experiment: &Arc<Experiment>, shares_server: bool) {
        let earlier = self.attempt.take().filter(|_| shares_server);
        let job = match &earlier {
            Some(earlier) => self.executor.jobs.on_server_of(&earlier.job, experiment),
            None => self.executor.jobs.fresh(experiment, self.lease.next_port()),
        };
        let job = Job { binding: self.lease.binding.clone(), ..job };
        self.executor.emit.event(Event::ExperimentStarted {
            index: experiment.index,
            name: experiment.name.clone(),
            attempt: job.attempt,
            axes: Some(Box::new(experiment.axes.clone())),
            placement: job.binding.placement.clone().map(Box::new),
        });
        self.attempt = Some(Attempt { job, began: Instant::now(), came: None });
    }

    async fn start(&mut self) -> Seen {
        let Some(attempt) = &mut self.attempt else { return Seen::Nothing };
        let (context, emit) = (&self.executor.context, &self.executor.emit);
        let compiling = CompileLock::take(&attempt.job, context, emit, &mut self.stop).await;
        let claimed = self.executor.jobs.claim_log(&mut attempt.job);
        match Server::start(&attempt.job, context, emit, &mut self.stop, (compiling, claimed)).await {
            Ok(server) => {
                self.server = Some(server);
                Seen::Ready
            }
            Err(not) => {
                let (outcome, launched) = (not.outcome.clone(), not.startup);
                attempt.came = Some(Attempted::not_started(*not, &attempt.job, context, attempt.began));
                // Our server is ended: whoever holds the port now is somebody else, and whoever held it before anything was launched was.
                let was_taken = launched.is_none()
                    && matches!(&outcome, Outcome::Failed(failure) if failure.cause == Cause::PortInUse);
                let stolen = (was_taken || port::is_taken(attempt.job.port)).then_some(attempt.job.port);
                Seen::NotStarted { outcome, stolen }
            }
        }
    }

    fn reuse(&self) {
        if let (Some(Attempt { job, .. }), Some(server)) = (&self.attempt, &self.server) {
            self.executor.emit.event(Event::ServerReused {
                name: job.experiment.name.clone(),
                process: server.group.leader,
                port: job.port,
            });
        }
    }

    async fn measure(&mut self, turn: Turn) -> Seen {
        let (Some(attempt), Some(server)) = (&mut self.attempt, &mut self.server) else { return Seen::Nothing };
        let (context, emit) = (&self.executor.context, &self.executor.emit);
        let lane = attempt.job.binding.placement.as_ref().and_then(|placement| placement.lane);
        lane.into_iter().for_each(|lane| self.executor.neighbours().measures(lane));
        let mut came = measure(&attempt.job, server, turn, context, emit, &mut self.stop).await;
        came.neighbours = lane.map(|lane| self.executor.neighbours().measured(lane));
        let outcome = came.outcome.clone();
        attempt.came = Some(came);
        Seen::Measured(outcome)
    }

    fn record(&mut self) {
        if let Some(Attempt { job, came, .. }) = &mut self.attempt
            && let Some(came) = came.take()
        {
            self.executor.emit.finished(job, &came);
        }
    }

    fn record_failure(&mut self, failure: Failure) {
        let Some(attempt) = &self.attempt else { return };
        let nothing =
            NotStarted { outcome: Outcome::Failed(failure), startup: None, steps: Vec::new(), teardown: None };
        let came = Attempted::not_started(nothing, &attempt.job, &self.executor.context, attempt.began);
        self.executor.emit.finished(&attempt.job, &came);
    }

    async fn drain(&mut self, of_attempt: bool) {
        let Some(server) = self.server.take() else { return };
        let (context, emit) = (&self.executor.context, &self.executor.emit);
        if let (true, Some(attempt)) = (of_attempt, &self.attempt) {
            emit.phase(&attempt.job.experiment, Phase::Draining);
        }
        let proof = server.drain(context, emit, &mut self.stop).await;
        if let (true, Some(Attempt { came: Some(came), .. })) = (of_attempt, &mut self.attempt) {
            came.drained(proof);
        }
    }
}

async fn pause(duration: Duration, stop: &mut Stop) {
    tokio::select! {
        () = tokio::time::sleep(duration) => (),
        () = stop.reached(StopLevel::AfterCurrent) => (),
    }
}

/// Ends leftovers of ours, and says so.
///
/// # Errors
/// When the registry of live groups cannot be used: without it, nothing may be started.
pub async fn end_all_leftovers(grace: Duration, emit: &Emitter, stop: &mut Stop) -> Result<(), Error> {
    for reaped in end_leftovers(grace, stop).await? {
        let owner = &reaped.record.owner;
        let proof = match reaped.emptied.empty {
            Some(true) => "",
            Some(false) => ": not all of them could be ended",
            None => {
                ": that none is left is not proven, because no cgroup held them when both their guard and their run died"
            }
        };
        emit.say(format!(
            "ended {} process(es) that the {} of `{}` had left behind (run `{}`){proof}",
            reaped.processes,
            owner.role,
            owner.experiment,
            owner.run.display()
        ));
    }
    Ok(())
}

/// Ends leftovers of ours and, unless told otherwise, other vLLM processes of this user in this scope (rule 14).
///
/// # Errors
/// As [`end_all_leftovers`].
pub async fn end_foreign_and_leftovers(
    scope: &Scope,
    grace: Duration,
    keep_foreign: bool,
    emit: &Emitter,
    stop: &mut Stop,
) -> Result<(), Error> {
    end_all_leftovers(grace, emit, stop).await?;
    if !keep_foreign {
        let processes = end_foreign(scope, grace, stop).await;
        if !processes.is_empty() {
            emit.event(Event::ForeignEnded { processes });
        }
    }
    Ok(())
}

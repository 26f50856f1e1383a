//! One server start after the other, and on each all measurements that share it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::server::{NotStarted, Server};
use super::unit::{Turn, measure};
use super::{Attempted, Emitter, Places, UnitContext, end_foreign, end_leftovers};
use crate::model::{Cause, Event, Experiment, Failure, Outcome, Phase, ServerConfig, Workload};
use crate::plan::{FailureReason, OnFailure, starts};
use crate::process::{Error, Stop, StopLevel};

/// One attempt that is to be made.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What to measure.
    pub experiment: &'a Experiment,
    /// From 1, over all resumes.
    pub attempt: u32,
    /// The server's port.
    pub port: u16,
    /// Where its files go.
    pub places: Places,
    /// When it began, as shown and recorded; set by the recorder's clock.
    pub started: String,
}

/// Makes jobs: names, numbers and the port are fresh when an experiment's turn comes.
pub trait Jobs<'p> {
    /// The next attempt at an experiment, with a server of its own.
    fn fresh(&mut self, experiment: &'p Experiment) -> Job<'p>;

    /// The next attempt at an experiment on the server of `earlier`.
    fn on_server_of(&mut self, earlier: &Job<'p>, experiment: &'p Experiment) -> Job<'p>;

    /// Whether the next server gets another port where somebody took this one.
    fn chooses_ports(&self) -> bool;
}

/// What a session of a run came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Experiments with a valid result.
    pub passed: usize,
    /// Experiments without one.
    pub failed: usize,
    /// Whether the run was ended before all jobs were done.
    pub interrupted: bool,
    /// Whether it ended because a failure was to end it.
    pub stopped_by_failure: bool,
}

/// Takes every experiment through its life. Ends at the first failure only when told to (rule 4); ends in order when
/// asked to.
///
/// # Errors
/// When the registry of live groups cannot be used: without it, nothing may be started.
pub async fn run_all<'p>(
    pending: &[&'p Experiment],
    jobs: &mut dyn Jobs<'p>,
    context: &UnitContext,
    keep_foreign: bool,
    emit: &mut Emitter<'_>,
    stop: &mut Stop,
) -> Result<Totals, Error> {
    let mut run = Run { jobs, context, keep_foreign, totals: Totals::default(), failed_servers: Vec::new() };
    for block in starts(pending, context.reuse) {
        if run.is_over(stop) {
            break;
        }
        run.block(block, emit, stop).await?;
    }
    Ok(run.totals)
}

struct Run<'r, 'p> {
    jobs: &'r mut dyn Jobs<'p>,
    context: &'r UnitContext,
    keep_foreign: bool,
    totals: Totals,
    /// Server configurations that will never start, with what their last start came to.
    failed_servers: Vec<(&'p ServerConfig, Failure)>,
}

/// What is still to be measured on one server configuration.
struct Queue<'p> {
    experiments: VecDeque<&'p Experiment>,
    /// Attempts that failed, by experiment.
    failed: HashMap<&'p str, u32>,
    /// Starts that failed, one after the other.
    failed_starts: u32,
    /// Starts whose port was taken by somebody else between the look at it and the server's bind.
    stolen_ports: u32,
}

/// So many ports in a row may be stolen; whoever takes them all does not do it by chance.
const MOST_STOLEN: u32 = 5;

impl<'p> Run<'_, 'p> {
    /// Whether no further server may be started.
    fn is_over(&mut self, stop: &Stop) -> bool {
        if stop.level() >= StopLevel::AfterCurrent {
            self.totals.interrupted = true;
        }
        self.totals.interrupted || self.totals.stopped_by_failure
    }

    /// All measurements of one server start; more starts where one dies.
    async fn block(
        &mut self,
        experiments: Vec<&'p Experiment>,
        emit: &mut Emitter<'_>,
        stop: &mut Stop,
    ) -> Result<(), Error> {
        let mut queue =
            Queue { experiments: experiments.into(), failed: HashMap::new(), failed_starts: 0, stolen_ports: 0 };
        while let Some(&first) = queue.experiments.front() {
            if self.is_over(stop) {
                break;
            }
            end_foreign_and_leftovers(self.context.grace, self.keep_foreign, emit, stop).await?;
            let began = Instant::now();
            let job = self.jobs.fresh(first);
            begin(&job, emit);
            if let Some((_, failure)) = self.failed_servers.iter().find(|(server, _)| **server == first.server) {
                let failure = never_started(failure);
                self.give_up(job, &mut queue, failure, None, began, emit);
                continue;
            }
            match Server::start(&job, self.context, emit, stop).await {
                Ok(server) => self.measurements(job, server, &mut queue, emit, stop).await,
                Err(not) => self.not_started(job, *not, &mut queue, began, emit, stop).await,
            }
        }
        Ok(())
    }

    /// A start failed: it is tried again, or everything that needs it has failed.
    async fn not_started(
        &mut self,
        job: Job<'p>,
        not: NotStarted,
        queue: &mut Queue<'p>,
        began: Instant,
        emit: &mut Emitter<'_>,
        stop: &mut Stop,
    ) {
        let Outcome::Failed(failure) = not.outcome.clone() else {
            self.totals.interrupted = true;
            emit.finished(&job, &Attempted::not_started(not, &job, self.context, began));
            return;
        };
        // Our server is ended: whoever holds the port now is somebody else.
        let stolen =
            matches!(failure.cause, Cause::PortInUse | Cause::ForeignServer) && super::port::holder(job.port).is_some();
        if stolen && self.jobs.chooses_ports() && queue.stolen_ports < MOST_STOLEN {
            queue.stolen_ports += 1;
            let text = format!("port {} was taken by somebody else meanwhile: the next one is tried at once", job.port);
            emit.finished(&job, &Attempted::not_started(not, &job, self.context, began));
            emit.event(Event::Notice { text });
            return;
        }
        let retry = self.context.retry.for_cause(failure.cause);
        queue.failed_starts += 1;
        if queue.failed_starts <= retry.attempts {
            emit.finished(&job, &Attempted::not_started(not, &job, self.context, began));
            again(&job, &failure, retry.back_off, emit, stop).await;
            return;
        }
        if [FailureReason::Oom, FailureReason::InvalidConfig].iter().any(|reason| reason.covers(failure.cause)) {
            self.failed_servers.push((&job.experiment.server, failure.clone()));
        }
        self.give_up(job, queue, failure, Some(not), began, emit);
    }

    /// Records the failure for the job and for everything else that waits for the same server.
    fn give_up(
        &mut self,
        job: Job<'p>,
        queue: &mut Queue<'p>,
        failure: Failure,
        not: Option<NotStarted>,
        began: Instant,
        emit: &mut Emitter<'_>,
    ) {
        let nothing = || NotStarted {
            outcome: Outcome::Failed(never_started(&failure)),
            startup: None,
            steps: Vec::new(),
            teardown: None,
        };
        let not = not.unwrap_or_else(nothing);
        emit.finished(&job, &Attempted::not_started(not, &job, self.context, began));
        self.fail();
        queue.experiments.pop_front();
        while let Some(experiment) = queue.experiments.pop_front() {
            if self.totals.stopped_by_failure {
                return;
            }
            let began = Instant::now();
            let next = self.jobs.on_server_of(&job, experiment);
            begin(&next, emit);
            emit.finished(&next, &Attempted::not_started(nothing(), &next, self.context, began));
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.totals.failed += 1;
        self.totals.stopped_by_failure |= self.context.on_failure == OnFailure::Stop;
    }

    /// Measures on a ready server until the queue is empty, the server is no good any more, or the run is to end.
    async fn measurements(
        &mut self,
        first: Job<'p>,
        mut server: Server,
        queue: &mut Queue<'p>,
        emit: &mut Emitter<'_>,
        stop: &mut Stop,
    ) {
        queue.failed_starts = 0;
        let mut workloads: Vec<&Workload> = Vec::new();
        let mut job = first;
        for on_start in 1.. {
            let experiment = job.experiment;
            queue.experiments.pop_front();
            let turn = Turn { on_start, new_workload: !workloads.contains(&&experiment.workload) };
            workloads.push(&experiment.workload);
            let mut attempted = measure(&job, &mut server, turn, self.context, emit, stop).await;
            let fit = self.judge(experiment, &attempted, queue);
            if !queue.experiments.is_empty() && fit && !self.is_over(stop) {
                emit.finished(&job, &attempted);
                self.after_failure(&job, &attempted, queue, emit, stop).await;
                pause(self.context.cooldown, stop).await;
                if !self.is_over(stop)
                    && let Some(&next) = queue.experiments.front()
                    && server.is_healthy(self.context, stop).await
                {
                    job = self.jobs.on_server_of(&job, next);
                    begin(&job, emit);
                    emit.event(Event::ServerReused {
                        name: next.name.clone(),
                        process: server.group.leader,
                        port: job.port,
                    });
                    continue;
                }
                if !self.is_over(stop) {
                    let text = "the server is not healthy any more: another one is started for the rest".to_owned();
                    emit.event(Event::Notice { text });
                }
                server.drain(self.context, emit, stop).await;
                return;
            }
            // The result is safe before the server is ended, which may take its time.
            emit.keep(&job, &attempted);
            emit.phase(experiment, Phase::Draining);
            attempted.drained(server.drain(self.context, emit, stop).await);
            emit.finished(&job, &attempted);
            self.after_failure(&job, &attempted, queue, emit, stop).await;
            if !queue.experiments.is_empty() {
                pause(self.context.cooldown, stop).await;
            }
            return;
        }
    }

    /// Counts an outcome, queues what is to be tried again, and says whether the server may be used further.
    fn judge(&mut self, experiment: &'p Experiment, attempted: &Attempted, queue: &mut Queue<'p>) -> bool {
        match &attempted.outcome {
            Outcome::Passed { .. } => {
                self.totals.passed += 1;
                true
            }
            Outcome::Interrupted => {
                self.totals.interrupted = true;
                false
            }
            Outcome::Failed(failure) => {
                let failed = queue.failed.entry(&experiment.name).or_default();
                *failed += 1;
                if *failed <= self.context.retry.for_cause(failure.cause).attempts {
                    // What failed comes last: the others must not suffer from it twice.
                    queue.experiments.push_back(experiment);
                } else {
                    self.fail();
                }
                matches!(failure.cause, Cause::BenchmarkFailed | Cause::ResultInvalid)
            }
        }
    }

    /// Says that a failed measurement comes again, and waits as long as the policy says.
    async fn after_failure(
        &self,
        job: &Job<'p>,
        attempted: &Attempted,
        queue: &Queue<'p>,
        emit: &mut Emitter<'_>,
        stop: &mut Stop,
    ) {
        let comes_again = queue.experiments.back().is_some_and(|last| last.name == job.experiment.name);
        if let (Outcome::Failed(failure), true) = (&attempted.outcome, comes_again) {
            let back_off = self.context.retry.for_cause(failure.cause).back_off;
            again(job, failure, back_off, emit, stop).await;
        }
    }
}

fn begin(job: &Job<'_>, emit: &mut Emitter<'_>) {
    let experiment = job.experiment;
    emit.event(Event::ExperimentStarted {
        index: experiment.index,
        name: experiment.name.clone(),
        attempt: job.attempt,
        axes: Some(Box::new(experiment.axes.clone())),
    });
}

async fn again(job: &Job<'_>, failure: &Failure, back_off: Duration, emit: &mut Emitter<'_>, stop: &mut Stop) {
    let text = format!("`{}` is tried again ({})", job.experiment.name, failure.cause.title());
    emit.event(Event::Notice { text });
    pause(back_off, stop).await;
}

async fn pause(duration: Duration, stop: &mut Stop) {
    if duration.is_zero() {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(duration) => (),
        () = stop.reached(StopLevel::AfterCurrent) => (),
    }
}

/// The failure of an experiment whose server configuration did not start for another one.
fn never_started(failure: &Failure) -> Failure {
    let mut failure = failure.clone();
    // The log's lines are with the first of them.
    failure.log_tail.clear();
    let known = "not started: ";
    if !failure.summary.starts_with(known) {
        failure.summary = format!("{known}this server configuration failed before: {}", failure.summary);
    }
    failure
}

/// Ends leftovers of ours and, unless told otherwise, other vLLM processes of this user (rule 14).
///
/// # Errors
/// As [`run_all`].
pub async fn end_foreign_and_leftovers(
    grace: Duration,
    keep_foreign: bool,
    emit: &mut Emitter<'_>,
    stop: &mut Stop,
) -> Result<(), Error> {
    for reaped in end_leftovers(grace, stop).await? {
        let owner = &reaped.record.owner;
        let proof = match reaped.emptied.empty {
            Some(true) => "",
            Some(false) => ": not all of them could be ended",
            None => {
                ": that none is left is not proven, because no cgroup held them when both their guard and their run died"
            }
        };
        emit.event(Event::Notice {
            text: format!(
                "ended {} process(es) that the {} of `{}` had left behind (run `{}`){proof}",
                reaped.processes,
                owner.role,
                owner.experiment,
                owner.run.display()
            ),
        });
    }
    if !keep_foreign {
        let processes = end_foreign(grace, stop).await;
        if !processes.is_empty() {
            emit.event(Event::ForeignEnded { processes });
        }
    }
    Ok(())
}

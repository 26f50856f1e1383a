//! The life of one block, as a pure state machine: experiments that share a server start, retries, failures, a stop at any point.
//!
//! It knows no process, no clock and no file. It is told what was seen ([`Seen`]) and says what to do next ([`Step`]); the last
//! step of each answer is the one whose outcome is to be told. `local.rs` does the steps with real processes, tests with none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Cause, Experiment, Failure, Outcome, Workload};
use crate::plan::{Block, FailureReason, OnFailure, RetryPolicy};
use crate::process::StopLevel;

/// So many ports in a row may be stolen; whoever takes them all does not do it by chance.
const MOST_STOLEN: u32 = 5;

/// What a block came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockEnd {
    /// Outcomes that are final, in the order in which they came.
    pub outcomes: Vec<(Arc<Experiment>, Outcome)>,
    /// Whether it was ended before all was measured.
    pub interrupted: bool,
    /// Whether a failure was to end the run.
    pub stopped_by_failure: bool,
    /// Why the server configuration will never start, where that was seen.
    pub never_starts: Option<Failure>,
}

/// What the machine decides by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// Which failures are tried again.
    pub retry: RetryPolicy,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
    /// Pause after each measurement.
    pub cooldown: Duration,
    /// Whether the next server gets another port where somebody took this one.
    pub chooses_ports: bool,
}

/// How a measurement stands to others on the same server start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// From 1.
    pub on_start: u32,
    /// Whether its workload has not run on this start yet.
    pub new_workload: bool,
}

/// One thing to do. "The attempt" is the one that the last [`Step::Begin`] began.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// End what would be in the way of a server: leftovers, and other people's servers where that is allowed.
    Clear,
    /// Begin an attempt; on the server that runs, or with one of its own.
    Begin {
        /// What to measure.
        experiment: Arc<Experiment>,
        /// Whether it uses the server (or shares the fate) of the attempt before.
        shares_server: bool,
    },
    /// Start the attempt's server. Tell [`Seen::Ready`] or [`Seen::NotStarted`].
    Start,
    /// Say that the attempt uses a server that runs already.
    Reuse,
    /// Measure the attempt on its server. Tell [`Seen::Measured`].
    Measure(Turn),
    /// The attempt's result must be safe from now on, before its server is ended.
    Keep,
    /// The attempt is over: record it as it was seen, with the end of its server where that was seen since.
    Record,
    /// The attempt is over, with this failure and no start of its own.
    RecordFailure(Failure),
    /// Tell the user.
    Say(String),
    /// Wait, or until a stop. Tell [`Seen::Paused`].
    Pause(Duration),
    /// Ask the server whether it is well. Tell [`Seen::Health`].
    CheckHealth,
    /// End the server and prove it; `of_attempt` = the proof belongs to the attempt. Tell [`Seen::Drained`].
    Drain {
        /// Whether the attempt is still to be recorded.
        of_attempt: bool,
    },
    /// The block is over.
    End,
}

/// What was seen of the last step.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Nothing yet: the block begins.
    Nothing,
    /// The server is ready.
    Ready,
    /// It is not, and is ended.
    NotStarted {
        /// Why.
        outcome: Outcome,
        /// The port, where it is somebody else's now.
        stolen: Option<u16>,
    },
    /// A measurement is over.
    Measured(Outcome),
    /// A pause is over.
    Paused,
    /// Whether the server is well.
    Health(bool),
    /// The server is ended.
    Drained,
}

/// Where the block is: what the answer to the last step means.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// No server, nothing awaited.
    Idle,
    /// A server is starting for the front of the queue.
    Starting,
    /// A measurement is under way; the attempt's experiment.
    Measuring(Arc<Experiment>),
    /// A pause between two measurements on one server: what is still to be waited for after this one.
    BetweenMeasurements(VecDeque<Duration>),
    /// The server is asked whether it is well.
    Checking,
    /// The server is being ended; the attempt that is to be recorded with it, and its outcome.
    Draining(Option<(Arc<Experiment>, Outcome)>),
    /// A pause without a server: what is still to be waited for.
    WithoutServer(VecDeque<Duration>),
    /// Over.
    Over,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    queue: VecDeque<Arc<Experiment>>,
    /// Attempts that failed, by experiment.
    failed: HashMap<String, u32>,
    /// Starts that failed, one after the other.
    failed_starts: u32,
    /// Starts whose port was taken by somebody else between the look at it and the server's bind.
    stolen_ports: u32,
    /// Workloads that ran on the server that runs now.
    workloads: Vec<Workload>,
    /// Experiments that were begun on it.
    begun: HashSet<String>,
    on_start: u32,
    state: State,
    end: BlockEnd,
}

impl Machine {
    /// For a block.
    pub fn new(block: Block, policy: Policy) -> Self {
        Self {
            policy,
            queue: block.experiments.into(),
            failed: HashMap::new(),
            failed_starts: 0,
            stolen_ports: 0,
            workloads: Vec::new(),
            begun: HashSet::new(),
            on_start: 0,
            state: State::Idle,
            end: BlockEnd { never_starts: block.known_failure, ..BlockEnd::default() },
        }
    }

    /// What the block came to.
    pub fn into_end(self) -> BlockEnd {
        self.end
    }

    /// The next steps. `stop` is the level now: what was not measured because of it counts as interrupted.
    pub fn next(&mut self, seen: Seen, stop: StopLevel) -> Vec<Step> {
        match (std::mem::replace(&mut self.state, State::Over), seen) {
            (State::Starting, Seen::Ready) => self.first_measurement(),
            (State::Starting, Seen::NotStarted { outcome, stolen }) => self.not_started(outcome, stolen, stop),
            (State::Measuring(experiment), Seen::Measured(outcome)) => self.measured(experiment, outcome, stop),
            (State::BetweenMeasurements(pauses), Seen::Paused) => self.between(pauses, Vec::new(), stop),
            (State::Checking, Seen::Health(well)) => self.checked(well, stop),
            (State::Draining(attempt), Seen::Drained) => self.drained(attempt, stop),
            (State::WithoutServer(pauses), Seen::Paused) => self.without_server(pauses, Vec::new(), stop),
            (State::Idle, Seen::Nothing) => self.next_server(Vec::new(), stop),
            // What belongs to no step that was asked for changes nothing: the block ends.
            (_, _) => vec![Step::End],
        }
    }

    /// Whether no further measurement may begin.
    fn is_over(&mut self, stop: StopLevel) -> bool {
        if stop >= StopLevel::AfterCurrent {
            self.end.interrupted = true;
        }
        self.end.interrupted || self.end.stopped_by_failure
    }

    /// Nothing runs: a server for what is still in the queue.
    fn next_server(&mut self, mut steps: Vec<Step>, stop: StopLevel) -> Vec<Step> {
        let Some(first) = self.queue.front().cloned() else { return over(steps) };
        if self.is_over(stop) {
            return over(steps);
        }
        steps.extend([Step::Clear, Step::Begin { experiment: Arc::clone(&first), shares_server: false }]);
        if let Some(failure) = self.end.never_starts.clone() {
            let failure = never_started(&failure);
            steps.push(Step::RecordFailure(failure.clone()));
            self.give_up(&failure, &mut steps);
            return self.next_server(steps, stop);
        }
        self.state = State::Starting;
        steps.push(Step::Start);
        steps
    }

    fn first_measurement(&mut self) -> Vec<Step> {
        self.failed_starts = 0;
        self.workloads.clear();
        self.begun.clear();
        self.on_start = 0;
        match self.queue.front().cloned() {
            Some(first) => vec![self.measure(first)],
            None => vec![Step::End],
        }
    }

    fn measure(&mut self, experiment: Arc<Experiment>) -> Step {
        self.queue.pop_front();
        self.on_start += 1;
        let new_workload = !self.workloads.contains(&experiment.workload);
        self.workloads.push(experiment.workload.clone());
        self.begun.insert(experiment.name.clone());
        self.state = State::Measuring(experiment);
        Step::Measure(Turn { on_start: self.on_start, new_workload })
    }

    /// A start failed: it is tried again, or everything that needs it has failed.
    fn not_started(&mut self, outcome: Outcome, stolen: Option<u16>, stop: StopLevel) -> Vec<Step> {
        let mut steps = vec![Step::Record];
        let Outcome::Failed(failure) = outcome else {
            self.end.interrupted = true;
            return over(steps);
        };
        let Some(first) = self.queue.front().cloned() else { return over(steps) };
        let stolen = stolen.filter(|_| matches!(failure.cause, Cause::PortInUse | Cause::ForeignServer));
        if let Some(port) = stolen
            && self.policy.chooses_ports
            && self.stolen_ports < MOST_STOLEN
        {
            self.stolen_ports += 1;
            let text = format!("port {port} was taken by somebody else meanwhile: the next one is tried at once");
            steps.push(Step::Say(text));
            return self.next_server(steps, stop);
        }
        let retry = self.policy.retry.for_cause(failure.cause);
        self.failed_starts += 1;
        if self.failed_starts <= retry.attempts {
            steps.push(again(&first, &failure));
            return self.without_server([retry.back_off].into(), steps, stop);
        }
        if [FailureReason::Oom, FailureReason::InvalidConfig].iter().any(|reason| reason.covers(failure.cause)) {
            self.end.never_starts = Some(failure.clone());
        }
        self.give_up(&failure, &mut steps);
        self.next_server(steps, stop)
    }

    /// The attempt at the front failed for good, and with it everything else that waits for the same server.
    fn give_up(&mut self, failure: &Failure, steps: &mut Vec<Step>) {
        let mut failure = failure.clone();
        if let Some(first) = self.queue.pop_front() {
            self.fail(first, &failure);
        }
        failure = never_started(&failure);
        while !self.end.stopped_by_failure
            && let Some(experiment) = self.queue.pop_front()
        {
            steps.push(Step::Begin { experiment: Arc::clone(&experiment), shares_server: true });
            steps.push(Step::RecordFailure(failure.clone()));
            self.fail(experiment, &failure);
        }
    }

    fn fail(&mut self, experiment: Arc<Experiment>, failure: &Failure) {
        self.end.outcomes.push((experiment, Outcome::Failed(failure.clone())));
        self.end.stopped_by_failure |= self.policy.on_failure == OnFailure::Stop;
    }

    /// A measurement is over: the next one on the same server, or the server's end.
    fn measured(&mut self, experiment: Arc<Experiment>, outcome: Outcome, stop: StopLevel) -> Vec<Step> {
        let is_fit = self.judge(&experiment, &outcome);
        // What is tried again sends the same prompts: on the same server it would find those of its first try in the prefix cache.
        let is_new = self.queue.front().is_some_and(|next| !self.begun.contains(&next.name));
        if is_new && is_fit && !self.is_over(stop) {
            let (steps, pauses) = self.after(Some((experiment, outcome)), vec![Step::Record]);
            return self.between(pauses, steps, stop);
        }
        // The result is safe before the server is ended, which may take its time.
        self.state = State::Draining(Some((experiment, outcome)));
        vec![Step::Keep, Step::Drain { of_attempt: true }]
    }

    /// Counts an outcome, queues what is to be tried again, and says whether the server may be used further.
    fn judge(&mut self, experiment: &Arc<Experiment>, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Passed { .. } => {
                self.end.outcomes.push((Arc::clone(experiment), outcome.clone()));
                true
            }
            Outcome::Interrupted => {
                self.end.interrupted = true;
                false
            }
            Outcome::Failed(failure) => {
                let failed = self.failed.entry(experiment.name.clone()).or_default();
                *failed += 1;
                if *failed <= self.policy.retry.for_cause(failure.cause).attempts {
                    // What failed comes last: the others must not suffer from it twice.
                    self.queue.push_back(Arc::clone(experiment));
                } else {
                    self.fail(Arc::clone(experiment), failure);
                }
                matches!(failure.cause, Cause::BenchmarkFailed | Cause::ResultInvalid)
            }
        }
    }

    /// What follows a recorded attempt: that it comes again, and how long to wait before the next.
    fn after(
        &self,
        attempt: Option<(Arc<Experiment>, Outcome)>,
        mut steps: Vec<Step>,
    ) -> (Vec<Step>, VecDeque<Duration>) {
        let mut pauses = VecDeque::new();
        if let Some((experiment, Outcome::Failed(failure))) = &attempt
            && self.queue.back().is_some_and(|last| last.name == experiment.name)
        {
            steps.push(again(experiment, failure));
            pauses.push_back(self.policy.retry.for_cause(failure.cause).back_off);
        }
        if !self.queue.is_empty() {
            pauses.push_back(self.policy.cooldown);
        }
        (steps, pauses)
    }

    /// The pauses between two measurements, then the question whether the server is well.
    fn between(&mut self, mut pauses: VecDeque<Duration>, mut steps: Vec<Step>, stop: StopLevel) -> Vec<Step> {
        if let Some(pause) = next_pause(&mut pauses).filter(|_| stop < StopLevel::AfterCurrent) {
            self.state = State::BetweenMeasurements(pauses);
            steps.push(Step::Pause(pause));
            return steps;
        }
        if self.is_over(stop) {
            self.state = State::Draining(None);
            steps.push(Step::Drain { of_attempt: false });
            return steps;
        }
        self.state = State::Checking;
        steps.push(Step::CheckHealth);
        steps
    }

    fn checked(&mut self, well: bool, stop: StopLevel) -> Vec<Step> {
        if well && let Some(experiment) = self.queue.front().cloned() {
            let begin = Step::Begin { experiment: Arc::clone(&experiment), shares_server: true };
            return vec![begin, Step::Reuse, self.measure(experiment)];
        }
        let mut steps = Vec::new();
        if !self.is_over(stop) {
            let text = "the server is not healthy any more: another one is started for the rest".to_owned();
            steps.push(Step::Say(text));
        }
        self.state = State::Draining(None);
        steps.push(Step::Drain { of_attempt: false });
        steps
    }

    fn drained(&mut self, attempt: Option<(Arc<Experiment>, Outcome)>, stop: StopLevel) -> Vec<Step> {
        let Some(attempt) = attempt else { return self.next_server(Vec::new(), stop) };
        let (steps, pauses) = self.after(Some(attempt), vec![Step::Record]);
        self.without_server(pauses, steps, stop)
    }

    /// The pauses before another server.
    fn without_server(&mut self, mut pauses: VecDeque<Duration>, mut steps: Vec<Step>, stop: StopLevel) -> Vec<Step> {
        if let Some(pause) = next_pause(&mut pauses).filter(|_| stop < StopLevel::AfterCurrent) {
            self.state = State::WithoutServer(pauses);
            steps.push(Step::Pause(pause));
            return steps;
        }
        self.next_server(steps, stop)
    }
}

fn over(mut steps: Vec<Step>) -> Vec<Step> {
    steps.push(Step::End);
    steps
}

/// The next pause that takes time.
fn next_pause(pauses: &mut VecDeque<Duration>) -> Option<Duration> {
    std::iter::from_fn(|| pauses.pop_front()).find(|pause| !pause.is_zero())
}

fn again(experiment: &Experiment, failure: &Failure) -> Step {
    Step::Say(format!("`{}` is tried again ({})", experiment.name, failure.cause.title()))
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

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;

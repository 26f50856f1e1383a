//! The engine behind the HTTP server: groups of requests, each on a scheduler of its own, in simulated or real time.
//!
//! Requests of our own client carry the headers of [`Session`]. The engine then moves a session's clock only while
//! `min(concurrency, total - completed)` of its requests are in flight (lock-step), so that every simulated time is the same
//! however fast or loaded the real machine is. All other requests share one group whose clock follows the real one.
//! Between steps the group sleeps simulated time / speed, never less than a few milliseconds at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::metrics::{Gauges, Metrics};
use super::model::{CostModel, hash};
use super::neighbours::{Neighbours, Work as Busy};
use super::noise::Noise;
use super::prefix::{Blocks, PrefixCache};
use super::scheduler::{Limits, Nanos, Scheduler, Step};
use super::settings::Speed;
use super::speculation::{Drafts, Speculation};
use super::timing::Turn;
use super::trigger::Trigger;

/// Tokens that may wait in one burst.
const MOST_IN_BURST: usize = 128;
/// How long a group without requests stays.
const IDLE: Duration = Duration::from_secs(60);
/// How long a session waits for requests that its client owes, before it goes on without them.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the headers `x-vllm-bench-sim-*` of our own client say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name of the session (`...-session`).
    pub id: String,
    /// Number of this request (`...-index`), from 0: the order of requests that arrive at the same time.
    pub index: u64,
    /// Requests that the session will send (`...-total`).
    pub total: u64,
    /// How many of them at once (`...-concurrency`).
    pub concurrency: u64,
    /// Simulated time of the arrival in nanoseconds (`...-arrival`).
    pub arrival: Nanos,
    /// The session is a warm-up (`...-warmup: 1`).
    pub warmup: bool,
    /// Which measurement of a plan it is (`...-draw`, `...-position`); `None` for one that no plan has.
    pub turn: Option<Turn>,
}

/// A request for the engine.
#[derive(Clone, Debug)]
pub struct Work {
    /// The session, if our own client asks.
    pub session: Option<Session>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Its full blocks; none where the prefix cache is off.
    pub blocks: Arc<Blocks>,
    /// Tokens to generate.
    pub output_tokens: u64,
    /// It ends because `max_tokens` is reached.
    pub by_length: bool,
}

/// Tokens of one request that came since the last burst.
#[derive(Debug)]
pub struct Burst {
    /// Simulated time of each token.
    pub times: Vec<Nanos>,
    /// No more will come.
    pub last: bool,
}

enum Command {
    Submit {
        id: u64,
        work: Work,
        bursts: mpsc::UnboundedSender<Burst>,
    },
    /// A request of the session was answered without the engine.
    Answered,
    Abort {
        id: u64,
    },
}

type Group = mpsc::UnboundedSender<Command>;

/// The answer to a request as it comes. Dropping it before its end aborts the request.
pub struct Answer {
    id: u64,
    group: Group,
    bursts: mpsc::UnboundedReceiver<Burst>,
}

impl Answer {
    /// The next tokens; `None` when the engine is gone.
    pub async fn next(&mut self) -> Option<Burst> {
        self.bursts.recv().await
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // An engine that has finished the request, or ended, ignores it.
        let _ = self.group.send(Command::Abort { id: self.id });
    }
}

/// How the machine varies, and by how much on this start of the server.
#[derive(Clone, Copy, Debug)]
pub struct Variation {
    /// What varies.
    pub noise: Noise,
    /// The seed of the simulation.
    pub seed: u64,
    /// By what this start multiplies the time of every step.
    pub start: f64,
}

impl Variation {
    /// By what the time of every step of a session is multiplied.
    fn of(&self, session: Option<&Session>) -> f64 {
        let turn = session.and_then(|session| session.turn);
        self.start * turn.map_or(1.0, |turn| self.noise.of_turn(self.seed, turn))
    }
}

/// What an engine is.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What things cost.
    pub cost: CostModel,
    /// What bounds a step.
    pub limits: Limits,
    /// Seed of its random numbers.
    pub seed: u64,
    /// Simulated seconds per real second.
    pub speed: Speed,
    /// How it varies.
    pub variation: Variation,
    /// Speculative decoding, where it is on.
    pub speculation: Option<Speculation>,
    /// Whether prefixes of prompts are kept.
    pub prefix_caching: bool,
}

/// Everything that groups share.
pub struct Engine {
    machine: Machine,
    prefixes: Option<Mutex<PrefixCache>>,
    trigger: Option<Trigger>,
    /// Other servers of the same run, where these disturb it.
    neighbours: Option<Arc<Neighbours>>,
    groups: Mutex<HashMap<String, Group>>,
    next_id: AtomicU64,
    /// Benchmarks that have begun on this server start.
    pub loads: AtomicU64,
    /// Counters of all groups.
    pub metrics: Metrics,
    /// Its process is stopped: it takes no step.
    frozen: AtomicBool,
}

/// How often a frozen engine looks whether it may go on.
const FROZEN: Duration = Duration::from_millis(20);

impl Engine {
    /// An engine without requests.
    pub fn new(machine: Machine, trigger: Option<Trigger>) -> Engine {
        let Limits { block_size, kv_blocks, .. } = machine.limits;
        let prefixes = machine.prefix_caching.then(|| Mutex::new(PrefixCache::new(block_size, kv_blocks)));
        let metrics = Metrics::default();
        metrics.with(|counters| {
            counters.drafts = machine.speculation.map(|speculation| Drafts::none(speculation.tokens));
        });
        Engine {
            machine,
            prefixes,
            trigger,
            neighbours: None,
            groups: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            metrics,
            frozen: AtomicBool::new(false),
        }
    }

    /// Whether it has had a request.
    pub fn was_asked(&self) -> bool {
        self.next_id.load(Ordering::Relaxed) > 0
    }

    /// Its process was stopped, or goes on.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::Relaxed);
    }

    /// The same beside other servers of its run.
    pub fn beside(self, neighbours: Option<Arc<Neighbours>>) -> Engine {
        Engine { neighbours, ..self }
    }

    /// Tokens per block where prefixes of prompts are kept; else `None`.
    pub fn keeps_prefixes(&self) -> Option<u64> {
        self.prefixes.is_some().then_some(self.machine.limits.block_size)
    }

    /// Forgets all prefixes.
    pub fn forget_prefixes(&self) {
        self.with_prefixes(PrefixCache::clear);
    }

    fn with_prefixes<T>(&self, use_cache: impl FnOnce(&mut PrefixCache) -> T) -> Option<T> {
        let mut cache = self.prefixes.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(use_cache(&mut cache))
    }

    /// The trigger of the fault `die-in-benchmark`.
    pub fn trigger(&self) -> Option<&Trigger> {
        self.trigger.as_ref()
    }

    /// Starts a request.
    pub fn submit(self: &Arc<Self>, work: Work) -> Answer {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, bursts) = mpsc::unbounded_channel();
        let session = work.session.clone();
        let group = self.send(session.as_ref(), Command::Submit { id, work, bursts: sender });
        Answer { id, group, bursts }
    }

    /// A request of a session was answered without the engine (an error): it counts as completed.
    pub fn answered(self: &Arc<Self>, session: &Session) {
        self.send(Some(session), Command::Answered);
    }

    /// Sends to the group of a session, making the group when it is not there (any more).
    fn send(self: &Arc<Self>, session: Option<&Session>, command: Command) -> Group {
        let name = session.map_or("", |session| session.id.as_str());
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match groups.get(name) {
            None => command,
            Some(group) => match group.send(command) {
                Ok(()) => return group.clone(),
                Err(mpsc::error::SendError(command)) => command,
            },
        };
        let (group, commands) = mpsc::unbounded_channel();
        tokio::spawn(Actor::new(Arc::clone(self), session, commands).run());
        let _ = group.send(command);
        groups.insert(name.to_string(), group.clone());
        group
    }
}

struct InFlight {
    bursts: mpsc::UnboundedSender<Burst>,
    times: Vec<Nanos>,
    arrival: Nanos,
    newest: Nanos,
    first: bool,
    work: Work,
}

/// One group of requests with its scheduler and its clock.
struct Actor {
    engine: Arc<Engine>,
    name: String,
    session: Option<Session>,
    commands: mpsc::UnboundedReceiver<Command>,
    scheduler: Scheduler,
    requests: HashMap<u64, InFlight>,
    /// Requests that have not arrived yet in simulated time, by arrival, number in the session, and id.
    pending: BTreeSet<(Nanos, u64, u64)>,
    completed: u64,
    first_arrival: Option<Nanos>,
    anchor: (Instant, Nanos),
    steps: u64,
    /// While it has work: others are slower by it.
    busy: Option<Busy>,
}

impl Actor {
    fn new(engine: Arc<Engine>, session: Option<&Session>, commands: mpsc::UnboundedReceiver<Command>) -> Actor {
        let kind = session.map_or("live", |session| if session.warmup { "warm-up" } else { "measured" });
        let machine = &engine.machine;
        let scheduler = Scheduler::new(machine.limits, machine.cost.clone(), machine.seed ^ hash(kind))
            .varied(machine.variation.of(session), machine.speculation);
        Actor {
            name: session.map(|session| session.id.clone()).unwrap_or_default(),
            session: session.cloned(),
            commands,
            scheduler,
            requests: HashMap::new(),
            pending: BTreeSet::new(),
            completed: 0,
            first_arrival: None,
            anchor: (Instant::now(), 0),
            steps: 0,
            busy: None,
            engine,
        }
    }

    async fn run(mut self) {
        let drafts = Drafts::none(self.engine.machine.speculation.map_or(0, |speculation| speculation.tokens));
        let mut step = Step { drafts, ..Step::default() };
        loop {
            while self.engine.frozen.load(Ordering::Relaxed) {
                tokio::time::sleep(FROZEN).await;
            }
            while let Ok(command) = self.commands.try_recv() {
                self.handle(command);
            }
            if !self.may_advance() {
                self.flush();
                if !self.wait().await {
                    break;
                }
                continue;
            }
            self.admit();
            if !self.scheduler.is_idle() {
                if let Some(neighbours) = &self.engine.neighbours {
                    self.busy.get_or_insert_with(|| neighbours.work());
                    self.scheduler.disturb(neighbours.factor());
                }
                self.scheduler.step(&mut step);
                if self.deliver(&mut step) {
                    // The server is about to die, or hangs: nothing more comes out of it.
                    std::future::pending::<()>().await;
                }
                self.pace().await;
            }
        }
        let mut groups = self.engine.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.get(&self.name).is_some_and(mpsc::UnboundedSender::is_closed) {
            groups.remove(&self.name);
        }
        drop(groups);
        self.engine.metrics.gauges(&self.name, None);
    }

    /// Waits for the next command; false when the group ends.
    async fn wait(&mut self) -> bool {
        let done = self.session.as_ref().is_some_and(|session| self.completed >= session.total);
        // Also where a client is gone that owes requests.
        if self.requests.is_empty() {
            self.busy = None;
        }
        let patience = match self.requests.is_empty() {
            true if done => Duration::ZERO,
            true => IDLE,
            false => PATIENCE,
        };
        let received = tokio::time::timeout(patience, self.commands.recv()).await;
        match received {
            Ok(Some(command)) => {
                if self.session.is_none() && self.requests.is_empty() {
                    self.anchor = (Instant::now(), self.scheduler.now());
                }
                self.handle(command);
                true
            }
            Ok(None) => false,
            Err(_) if self.requests.is_empty() => {
                // Closed under the lock of the map, so that no request gets lost in between.
                let _groups = self.engine.groups.lock().unwrap_or_else(PoisonError::into_inner);
                self.commands.close();
                !self.commands.is_empty()
            }
            Err(_) => {
                // The client owes requests and does not send them: go on with what there is.
                if let Some(session) = &mut self.session {
                    session.concurrency = session.concurrency.min(self.requests.len() as u64);
                }
                true
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Submit { id, work, bursts } => {
                let now = self.scheduler.now();
                let (arrival, index) = match &work.session {
                    Some(session) => (session.arrival.max(now), session.index),
                    None => (now, id),
                };
                self.first_arrival.get_or_insert(arrival);
                self.engine.metrics.with(|counters| {
                    counters.prompt_tokens += work.prompt_tokens;
                    counters.prefix_queries += work.prompt_tokens;
                });
                self.pending.insert((arrival, index, id));
                let request = InFlight { bursts, times: Vec::new(), arrival, newest: arrival, first: true, work };
                self.requests.insert(id, request);
            }
            Command::Answered => self.completed += 1,
            Command::Abort { id } => {
                if self.requests.remove(&id).is_some() {
                    self.pending.retain(|(.., pending)| *pending != id);
                    self.scheduler.abort(id);
                    self.completed += 1;
                    self.engine.metrics.with(|counters| counters.by_abort += 1);
                }
            }
        }
    }

    /// May the clock move? In a session only when all requests that can be in flight are.
    fn may_advance(&self) -> bool {
        let in_flight = self.requests.len() as u64;
        let owed = self
            .session
            .as_ref()
            .map_or(1, |session| session.concurrency.min(session.total.saturating_sub(self.completed)).max(1));
        in_flight >= owed
    }

    /// Queues what has arrived; an idle scheduler jumps to the next arrival.
    fn admit(&mut self) {
        if let Some((arrival, ..)) = self.pending.first().filter(|_| self.scheduler.is_idle()) {
            self.scheduler.advance_to(*arrival);
        }
        while self.pending.first().is_some_and(|(arrival, ..)| *arrival <= self.scheduler.now()) {
            let Some((.., id)) = self.pending.pop_first() else { break };
            let Some(request) = self.requests.get(&id) else { continue };
            let Work { prompt_tokens, output_tokens, blocks, .. } = &request.work;
            let cached = self.engine.with_prefixes(|cache| cache.found(blocks, *prompt_tokens)).unwrap_or(0);
            self.engine.metrics.with(|counters| counters.prefix_hits += cached);
            if !self.scheduler.add(id, *prompt_tokens, *output_tokens, cached) {
                let _ = request.bursts.send(Burst { times: Vec::new(), last: true });
                self.requests.remove(&id);
                self.completed += 1;
            }
        }
    }

    /// Hands out the tokens of a step; true when the server is to die now.
    fn deliver(&mut self, step: &mut Step) -> bool {
        let now = self.scheduler.now();
        let (engine, requests, mut finished) = (&self.engine, &mut self.requests, 0);
        engine.metrics.with(|counters| {
            counters.preemptions += step.preempted;
            if let Some(drafts) = &mut counters.drafts {
                drafts.take(&mut step.drafts);
            }
            for (id, count, last) in &step.tokens {
                let Some(request) = requests.get_mut(id) else { continue };
                if request.first {
                    engine.with_prefixes(|cache| cache.keep(&request.work.blocks));
                }
                counters.tokens(*count, request.first, now - request.newest);
                (request.newest, request.first) = (now, false);
                request.times.extend((0..*count).map(|_| now));
                if *last || request.times.len() >= MOST_IN_BURST {
                    let times = std::mem::take(&mut request.times);
                    let _ = request.bursts.send(Burst { times, last: *last });
                }
                if *last {
                    counters.finished(request.work.by_length, now - request.arrival);
                    requests.remove(id);
                    finished += 1;
                }
            }
        });
        self.completed += finished;
        match self.engine.trigger() {
            Some(trigger) if !self.session.as_ref().is_some_and(|session| session.warmup) => {
                let dies = trigger.check(
                    self.engine.loads.load(Ordering::Relaxed),
                    finished,
                    now - self.first_arrival.unwrap_or(now),
                );
                if dies {
                    self.flush();
                }
                dies
            }
            _ => false,
        }
    }

    fn flush(&mut self) {
        for request in self.requests.values_mut().filter(|request| !request.times.is_empty()) {
            let times = std::mem::take(&mut request.times);
            let _ = request.bursts.send(Burst { times, last: false });
        }
        let gauges = Gauges {
            running: self.scheduler.running(),
            waiting: self.scheduler.waiting() + self.pending.len(),
            kv_usage: self.scheduler.kv_usage(),
        };
        self.engine.metrics.gauges(&self.name, Some(gauges));
    }

    /// Sleeps until the real time of the simulated one, once it is worth a sleep.
    async fn pace(&mut self) {
        self.steps += 1;
        let speed = self.engine.machine.speed;
        if !speed.is_infinite() {
            let due = self.anchor.0 + speed.real((self.scheduler.now() - self.anchor.1) as f64 / 1e9);
            let worth = if speed.factor() > 1.0 { Duration::from_millis(4) } else { Duration::from_millis(1) };
            if due.saturating_duration_since(Instant::now()) >= worth {
                self.flush();
                tokio::time::sleep_until(due).await;
                return;
            }
        }
        if self.steps.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
}

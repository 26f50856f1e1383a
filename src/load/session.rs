//! A load from its first request to its last: the feeder that makes requests, the workers that send them, and what they
//! share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::arrival::{Arrival, Schedule};
use super::clock::{ArrivalClock, Clock};
use super::connection::{self, Tls};
use super::prompt::PromptSource;
use super::request::{Form, Writer};
use super::sample::{Failure, FailureClass, Sample};
use super::target::Target;
use super::timing::Timing;
use super::wire::Reply;
use super::worker::Worker;

/// Limits of time; `None` = none.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one request, from its start to its end.
    pub request: Option<Duration>,
    /// Without a token of any request, while some are under way: the load is ended. Where the server's counters are known, they
    /// must stand still as well; answers in one piece are ended only then. One stream that has begun may be silent [`ALONE`]
    /// times as long while others go on: a server may have preempted it.
    pub stall: Option<Duration>,
    /// Of the whole load: what is still running then is given up.
    pub total: Option<Duration>,
}

/// How many times the stall limit one stream may be silent while others go on.
pub const ALONE: u32 = 5;

/// What a load is.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where requests go.
    pub target: Target,
    /// What they have in common.
    pub form: Form,
    /// When they go.
    pub arrival: Arrival,
    /// How many are under way at most; `None` = as many as there are.
    pub max_concurrency: Option<u64>,
    /// How many there are; `None` = as many as fit into `duration`.
    pub requests: Option<u64>,
    /// Samples in all, where the last request asks for the rest.
    pub samples: Option<u64>,
    /// Number of the first prompt.
    pub first_prompt: u64,
    /// After so long no further request is sent; those under way are waited for.
    pub duration: Option<Duration>,
    /// For the gaps between requests.
    pub seed: u64,
    /// Limits of time.
    pub limits: Limits,
    /// After so many failed requests the load is ended.
    pub max_failures: Option<u64>,
    /// Keep the text of answers.
    pub keep_text: bool,
    /// Keep headers that tell of time.
    pub keep_headers: bool,
    /// Threads that send and read; 0 = chosen by the load.
    pub threads: usize,
    /// Use the kernel's arrival times where there are any.
    pub kernel_clock: bool,
    /// Where its times come from.
    pub timing: Arc<dyn Timing>,
    /// Why nothing is to be sent; every request is accounted for.
    pub over: Option<GaveUp>,
}

impl Spec {
    /// Samples that a request asks for.
    fn samples_of(&self, index: u64) -> u32 {
        let n = self.form.n.max(1);
        let is_last = self.requests.is_some_and(|all| index + 1 == all);
        match self.samples.filter(|_| is_last) {
            Some(all) => u32::try_from(all.saturating_sub(index * u64::from(n))).unwrap_or(n).clamp(1, n),
            None => n,
        }
    }
}

/// A request that waits to be sent.
#[derive(Debug)]
pub(super) struct Work {
    pub index: u64,
    pub due: Option<u64>,
    pub body: Arc<[u8]>,
    pub prompt_len: Option<u64>,
    pub output_len: Option<u64>,
    pub n: u32,
}

/// How a load goes, while it goes.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests sent.
    pub sent: AtomicU64,
    /// Requests under way.
    pub active: AtomicU64,
    /// Most requests under way at once.
    pub peak: AtomicU64,
    /// Requests over.
    pub done: AtomicU64,
    /// Failed ones among them.
    pub failed: AtomicU64,
    /// Output tokens of requests that are over.
    pub tokens: AtomicU64,
    /// Sum of their times to first token in microseconds.
    pub ttft_sum_us: AtomicU64,
    /// Number of those.
    pub ttft_count: AtomicU64,
    /// When the load began.
    began: OnceLock<Instant>,
    /// Nanoseconds after that: the last token of any request, or the end of one.
    moved: AtomicU64,
    /// The last movement of the server's counters, and whether it has any.
    server_moved: AtomicU64,
    server_counts: AtomicBool,
    /// The signal that asked to stop; 0: none.
    stop: AtomicU8,
    abort: AtomicBool,
}

impl Live {
    /// The server's counters have been read; `moved`: they are others than before.
    pub fn server_counted(&self, moved: bool) {
        let now = self.began.get().map_or(0, |began| u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if moved || !self.server_counts.swap(true, Ordering::Relaxed) {
            self.server_moved.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// A token came, or a request ended.
    pub(super) fn moves(&self, at: u64) {
        self.moved.fetch_max(at, Ordering::Relaxed);
    }

    /// Since when nothing has moved, where that can be told. `streams`: tokens can be seen as they come.
    pub(super) fn still_since(&self, streams: bool) -> Option<u64> {
        let counts = self.server_counts.load(Ordering::Relaxed);
        let server = if counts { self.server_moved.load(Ordering::Relaxed) } else { 0 };
        (streams || counts).then(|| self.moved.load(Ordering::Relaxed).max(server))
    }

    /// Sends nothing more and gives up what is under way, as this signal asks.
    pub fn stop(&self, signal: u8) {
        self.stop.store(signal, Ordering::Relaxed);
    }

    /// The signal that asked to stop.
    pub fn stopped_by(&self) -> Option<u8> {
        Some(self.stop.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// Whether somebody asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped_by().is_some()
    }

    /// Comes back when somebody asked to stop.
    pub async fn stopped(&self) {
        while !self.is_stopped() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_stopped() || self.abort.load(Ordering::Relaxed)
    }

    pub(super) fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }
}

/// What is left when a load is over.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Seconds from its beginning to its last answer.
    pub duration: f64,
    /// When the first request began, in nanoseconds on its clock.
    pub first_start: u64,
    /// When the last request began.
    pub last_start: u64,
    /// When the number of requests under way first reached what was asked for, or its peak.
    pub full_at: u64,
    /// Most requests under way at once.
    pub peak_concurrency: u64,
    /// Requests that were never sent.
    pub not_sent: u64,
    /// Requests sent more than [`LATE`] after they were due.
    pub late: u64,
    /// The latest of them, in seconds.
    pub latest: f64,
    /// Which instant counts as an arrival.
    pub arrival_clock: ArrivalClock,
    /// Threads that sent and read.
    pub threads: usize,
    /// The signal that asked to stop.
    pub stopped: Option<u8>,
    /// Why the load was ended before its time.
    pub gave_up: Option<GaveUp>,
}

/// Why a load is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GaveUp {
    /// The server takes no connections any more.
    ServerGone,
    /// As many requests failed as were allowed to.
    TooManyFailures,
    /// The limit of the whole load.
    TimeIsUp,
    /// Nothing moved any more.
    Hung,
}

/// A request that is sent later than this after it was due counts as late.
pub const LATE: Duration = Duration::from_millis(1);

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No prompts.
    #[error("cannot make the prompts")]
    Prompts(#[from] super::dataset::Error),
    /// No certificate can have this name.
    #[error("`{host}` is not a name that a certificate can have")]
    ServerName {
        /// The name.
        host: String,
    },
    /// The system refused.
    #[error("cannot set up the sockets of the load")]
    Setup(#[from] std::io::Error),
    /// A thread of the load died.
    #[error("a thread of the load died: this is a bug")]
    Died,
}

/// How long a prompt that is still being made is waited for when the load is over.
const FEEDER: Duration = Duration::from_secs(2);

/// Bytes of requests that are made before they are sent.
const MOST_WAITING_BYTES: usize = 16 << 20;

/// Requests on their way from the feeder to the workers.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// Room for more, or reason to leave.
    room: Condvar,
    /// There is something, or there will be nothing.
    filled: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Work>,
    bytes: usize,
    /// The feeder waits for room.
    full: bool,
    /// Nothing more will come.
    complete: bool,
    hungry: Vec<Arc<mio::Waker>>,
}

/// What a worker finds in the queue.
pub(super) enum Next {
    Work(Work),
    /// Not due before this time.
    Later(u64),
    /// The feeder is behind: a wake-up follows.
    Starved,
    /// All is sent.
    Nothing,
}

impl Queue {
    fn push(&self, work: Work, live: &Live) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes > MOST_WAITING_BYTES {
            state.full = true;
            self.filled.notify_all();
        }
        while state.full && !live.is_over() {
            let waited = self.room.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if live.is_over() {
            return false;
        }
        state.bytes += work.body.len() + 128;
        state.waiting.push_back(work);
        for waker in state.hungry.drain(..) {
            let _ = waker.wake();
        }
        true
    }

    fn complete(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.complete = true;
        for waker in state.hungry.drain(..) {
            let _ = waker.wake();
        }
        self.filled.notify_all();
    }

    /// Waits until there is enough to begin with.
    fn wait_filled(&self, live: &Live, until: Option<Instant>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.complete && state.bytes <= MOST_WAITING_BYTES && !live.is_over() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            let waited = self.filled.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub fn next(&self, now: u64, waker: &Arc<mio::Waker>) -> Next {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.waiting.front() {
            Some(work) => match work.due {
                Some(due) if due > now => Next::Later(due),
                _ => {
                    let Some(work) = state.waiting.pop_front() else { return Next::Nothing };
                    state.bytes = state.bytes.saturating_sub(work.body.len() + 128);
                    // Woken for each request alone the feeder would be a second load.
                    if state.full && state.bytes <= MOST_WAITING_BYTES / 2 {
                        state.full = false;
                        self.room.notify_one();
                    }
                    Next::Work(work)
                }
            },
            None if state.complete => Next::Nothing,
            None => {
                state.hungry.push(Arc::clone(waker));
                Next::Starved
            }
        }
    }

    fn left(&self) -> Vec<Work> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.drain(..).collect()
    }
}

/// What all threads of a load share.
#[derive(Debug)]
pub(super) struct Shared {
    pub spec: Spec,
    pub writer: Writer,
    pub tls: Option<Tls>,
    pub queues: Vec<Queue>,
    pub live: Arc<Live>,
    /// Requests that may have begun: in a burst, those up to the end of the batch.
    pub allowed: AtomicU64,
    /// Wakers of all workers, for the next batch.
    pub wakers: Mutex<Vec<Arc<mio::Waker>>>,
    pub first_start: AtomicU64,
    pub last_start: AtomicU64,
    pub full_at: AtomicU64,
    pub late: AtomicU64,
    pub latest: AtomicU64,
    pub clock_failed: AtomicBool,
    pub gave_up: Mutex<Option<GaveUp>>,
    /// Connections refused since one was accepted.
    pub refused: AtomicU64,
}

impl Shared {
    pub fn give_up(&self, why: GaveUp) {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.live.abort();
    }
}

/// Runs a load to its end in this thread and hands every request to `each` as it ends.
///
/// # Errors
/// When it cannot begin, or prompts cannot be made.
pub fn run(
    spec: Spec,
    source: &Arc<dyn PromptSource>,
    live: &Arc<Live>,
    each: &mut dyn FnMut(Sample),
) -> Result<Ended, Error> {
    let tls = match spec.target.tls {
        false => None,
        true => Some(
            connection::tls(&spec.target.host, spec.target.insecure)
                .map_err(|_| Error::ServerName { host: spec.target.host.clone() })?,
        ),
    };
    raise_descriptor_limit();
    let threads = threads(&spec);
    let open = matches!(spec.arrival, Arrival::Open { .. });
    let queues = (0..if open { threads } else { 1 }).map(|_| Queue::default()).collect();
    let batch = match spec.arrival {
        Arrival::Burst => spec.max_concurrency.or(spec.requests).unwrap_or(1),
        _ => u64::MAX,
    };
    let shared = Arc::new(Shared {
        writer: Writer::new(spec.form.clone(), &spec.target),
        tls,
        queues,
        live: Arc::clone(live),
        allowed: AtomicU64::new(batch),
        wakers: Mutex::default(),
        first_start: AtomicU64::new(u64::MAX),
        last_start: AtomicU64::new(0),
        full_at: AtomicU64::new(u64::MAX),
        late: AtomicU64::new(0),
        latest: AtomicU64::new(0),
        clock_failed: AtomicBool::new(false),
        gave_up: Mutex::default(),
        refused: AtomicU64::new(0),
        spec,
    });
    if let Some(why) = shared.spec.over {
        shared.give_up(why);
    }
    let (sender, receiver) = mpsc::channel::<Vec<Sample>>();
    let mut failed = None;
    let mut last_end = 0u64;
    let feeder = {
        let (shared, source) = (Arc::clone(&shared), Arc::clone(source));
        std::thread::spawn(move || feed(&shared, source.as_ref()))
    };
    let until = shared.spec.limits.total.map(|total| Instant::now() + total);
    if !shared.queues.iter().all(|queue| queue.wait_filled(&shared.live, until)) {
        shared.give_up(GaveUp::TimeIsUp);
    }
    std::thread::scope(|scope| {
        let clock = Clock::since(*shared.live.began.get_or_init(Instant::now));
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let worker = Worker::new(&shared, number, threads, clock, sender.clone());
                scope.spawn(move || worker.and_then(Worker::run))
            })
            .collect();
        drop(sender);
        for samples in receiver {
            for sample in samples {
                last_end = last_end.max(sample.ended).max(sample.end());
                each(sample);
            }
        }
        for worker in workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed = Some(Error::Setup(error)),
                Err(_) => failed = Some(Error::Died),
            }
        }
    });
    // Whoever still makes prompts has nobody to make them for; one that is under way is not waited for.
    shared.live.abort();
    let patience = Instant::now() + FEEDER;
    while !feeder.is_finished() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    if feeder.is_finished() {
        match feeder.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(Error::Prompts(error)),
            Err(_) => failed = Some(Error::Died),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let not_sent = not_sent(&shared, last_end, each);
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let first_start = load(&shared.first_start);
    let gave_up = *shared.gave_up.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = shared.spec.kernel_clock && !shared.clock_failed.load(Ordering::Relaxed);
    Ok(Ended {
        duration: last_end as f64 / 1e9,
        first_start: if first_start == u64::MAX { 0 } else { first_start },
        last_start: load(&shared.last_start),
        full_at: Some(load(&shared.full_at)).filter(|at| *at != u64::MAX).unwrap_or(0),
        peak_concurrency: load(&live.peak),
        not_sent,
        late: load(&shared.late),
        latest: load(&shared.latest) as f64 / 1e9,
        arrival_clock: if kernel { ArrivalClock::Kernel } else { ArrivalClock::Read },
        threads,
        stopped: live.stopped_by(),
        gave_up,
    })
}

/// Requests that no one sent, as failures.
fn not_sent(shared: &Shared, at: u64, each: &mut dyn FnMut(Sample)) -> u64 {
    let sent = shared.live.sent.load(Ordering::Relaxed);
    let mut count = 0;
    let mut left: Vec<Work> = shared.queues.iter().flat_map(Queue::left).collect();
    left.sort_by_key(|work| work.index);
    let all = shared.spec.requests.unwrap_or(0);
    let next = left.last().map_or(sent, |work| work.index + 1);
    let mut emit = |index: u64, due, prompt_len, output_len| {
        let n = shared.spec.samples_of(index);
        count += 1;
        each(Sample {
            index,
            due,
            started: at,
            connected: None,
            ended: at,
            prompt_len,
            output_len,
            n,
            reply: Reply::default(),
            failure: Some(Failure::new(FailureClass::NotSent, "the load was ended before it was sent")),
        });
    };
    if shared.spec.requests.is_some() {
        for work in left {
            emit(work.index, work.due, work.prompt_len, work.output_len);
        }
        (next..all).for_each(|index| emit(index, None, None, None));
    }
    count
}

/// Makes requests ahead of their sending.
fn feed(shared: &Shared, source: &dyn PromptSource) -> Result<(), super::dataset::Error> {
    let made = make(shared, source);
    shared.queues.iter().for_each(Queue::complete);
    if made.is_err() {
        shared.live.abort();
    }
    made
}

fn make(shared: &Shared, source: &dyn PromptSource) -> Result<(), super::dataset::Error> {
    let spec = &shared.spec;
    let mut schedule = match spec.arrival {
        Arrival::Open { rate, burstiness, ramp_up } => {
            Some(Schedule::new(spec.requests, rate, burstiness, ramp_up, spec.seed))
        }
        _ => None,
    };
    for index in 0..spec.requests.unwrap_or(u64::MAX) {
        if shared.live.is_over() {
            return Ok(());
        }
        let due = match &mut schedule {
            Some(schedule) => schedule.next().map(|seconds| (seconds * 1e9) as u64),
            None => None,
        };
        // A load that is limited in time is over when the next request is due too late; a closed one ends at the workers.
        if let (Some(due), Some(duration)) = (due, spec.duration)
            && due >= u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
        {
            return Ok(());
        }
        // A load that is limited in time ends with its prompts, if they are fewer.
        if spec.requests.is_none() && source.available().is_some_and(|all| spec.first_prompt + index >= all) {
            return Ok(());
        }
        let prompt = source.prompt(spec.first_prompt + index)?;
        let n = spec.samples_of(index);
        let body = shared.writer.body(index, &prompt, n).into();
        let output_len = spec.form.output_len(prompt.output_len);
        let n = spec.form.samples(n);
        let work = Work { index, due, body, prompt_len: prompt.prompt_len, output_len, n };
        let queue = (index % shared.queues.len() as u64) as usize;
        if !shared.queues[queue].push(work, &shared.live) {
            return Ok(());
        }
    }
    Ok(())
}

/// Threads for a load: one keeps up with hundreds of streams; a core is left to the server for each.
fn threads(spec: &Spec) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let streams = spec.max_concurrency.or(spec.requests).unwrap_or(256);
    let wanted = if spec.threads > 0 { spec.threads } else { (streams / 256 + 1) as usize };
    let most = if spec.threads > 0 { 256 } else { (cores / 2).max(1) };
    wanted.clamp(1, most).min(usize::try_from(streams.max(1)).unwrap_or(usize::MAX)).min(spec.timing.most_threads())
}

/// Every stream is a descriptor.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

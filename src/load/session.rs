//! A workload from its first request to its last: the feeder that makes requests, the workers that send them, and what they
//! share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::arrival::Arrival;
use super::clock::{ArrivalClock, Clock};
use super::connection::{self, Tls};
use super::dataset;
use super::feeder::feed;
pub use super::live::Live;
use super::prompt::PromptSource;
use super::queue::{Queue, Work};
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
    /// Without a token of any request, while some are under way: the workload is ended. Where the server's counters are known, they
    /// must stand still as well; answers in one piece are ended only then. One stream that has begun may be silent [`ALONE`]
    /// times as long while others go on: a server may have preempted it.
    pub stall: Option<Duration>,
    /// Of the whole workload: what is still running then is given up.
    pub total: Option<Duration>,
}

/// How many times the stall limit one stream may be silent while others go on.
pub const ALONE: u32 = 5;

/// What a workload is.
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
    /// After so many failed requests the workload is ended.
    pub max_failures: Option<u64>,
    /// Keep the text of answers.
    pub keep_text: bool,
    /// Keep headers that tell of time.
    pub keep_headers: bool,
    /// Threads that send and read; 0 = chosen by the load generator.
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
    pub(super) fn samples_of(&self, index: u64) -> u32 {
        let n = self.form.n.max(1);
        let is_last = self.requests.is_some_and(|all| index + 1 == all);
        match self.samples.filter(|_| is_last) {
            Some(all) => u32::try_from(all.saturating_sub(index * u64::from(n))).unwrap_or(n).clamp(1, n),
            None => n,
        }
    }
}

/// What is left when a workload is over.
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
    /// Those of them that waited for their prompts, which were made more slowly than they were needed.
    pub starved: u64,
    /// Which instant counts as an arrival.
    pub arrival_clock: ArrivalClock,
    /// Threads that sent and read.
    pub threads: usize,
    /// The signal that asked to stop.
    pub stopped: Option<u8>,
    /// Why the workload was ended before its time.
    pub gave_up: Option<GaveUp>,
}

/// Why a workload is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GaveUp {
    /// The server takes no connections any more.
    ServerGone,
    /// As many requests failed as were allowed to.
    TooManyFailures,
    /// The limit of the whole workload.
    TimeIsUp,
    /// Nothing moved any more.
    Hung,
}

/// A request that is sent later than this after it was due counts as late; where requests wait for a free stream, later than
/// this after there was one that had to wait for the prompt.
pub const LATE: Duration = Duration::from_millis(1);

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A prompt cannot be made.
    #[error("cannot make the prompt with the number {number} (they count from 0)")]
    Prompts {
        /// Its number in the source of the prompts.
        number: u64,
        /// Why.
        source: dataset::Error,
    },
    /// No certificate can have this name.
    #[error("`{host}` is not a name that a certificate can have")]
    ServerName {
        /// The name.
        host: String,
    },
    /// The system refused.
    #[error("cannot set up the sockets of the workload")]
    Setup(#[from] std::io::Error),
    /// A thread of it died.
    #[error("a thread of the load generator died: this is a bug")]
    Died,
}

/// How long a prompt that is still being made is waited for when the workload is over.
const FEEDER: Duration = Duration::from_secs(2);

/// What all threads of a workload share.
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
    pub starved: AtomicU64,
    pub clock_failed: AtomicBool,
    pub gave_up: Mutex<Option<GaveUp>>,
    /// Connections refused since one was accepted.
    pub refused: AtomicU64,
}

impl Shared {
    pub fn new(spec: Spec, tls: Option<Tls>, live: Arc<Live>, threads: usize) -> Self {
        let (queues, batch) = match spec.arrival {
            Arrival::Open { .. } => (threads, u64::MAX),
            Arrival::Burst => (1, spec.max_concurrency.or(spec.requests).unwrap_or(1)),
            Arrival::Closed => (1, u64::MAX),
        };
        Self {
            writer: Writer::new(spec.form.clone(), &spec.target),
            tls,
            queues: (0..queues).map(|_| Queue::default()).collect(),
            live,
            allowed: AtomicU64::new(batch),
            wakers: Mutex::default(),
            first_start: AtomicU64::new(u64::MAX),
            last_start: AtomicU64::new(0),
            full_at: AtomicU64::new(u64::MAX),
            late: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            clock_failed: AtomicBool::new(false),
            gave_up: Mutex::default(),
            refused: AtomicU64::new(0),
            spec,
        }
    }

    pub fn give_up(&self, why: GaveUp) {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.live.abort();
    }

    /// What is left when the last answer came at `last_end`.
    fn ended(&self, last_end: u64, not_sent: u64, threads: usize) -> Ended {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let known = |value: &AtomicU64| Some(load(value)).filter(|at| *at != u64::MAX).unwrap_or(0);
        let kernel = self.spec.kernel_clock && !self.clock_failed.load(Ordering::Relaxed);
        Ended {
            duration: last_end as f64 / 1e9,
            first_start: known(&self.first_start),
            last_start: load(&self.last_start),
            full_at: known(&self.full_at),
            peak_concurrency: load(&self.live.peak),
            not_sent,
            late: load(&self.late),
            latest: load(&self.latest) as f64 / 1e9,
            starved: load(&self.starved),
            arrival_clock: if kernel { ArrivalClock::Kernel } else { ArrivalClock::Read },
            threads,
            stopped: self.live.stopped_by(),
            gave_up: *self.gave_up.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Runs a workload to its end in this thread and hands every request to `each` as it ends.
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
    let shared = Arc::new(Shared::new(spec, tls, Arc::clone(live), threads));
    if let Some(why) = shared.spec.over {
        shared.give_up(why);
    }
    let feeder = {
        let (shared, source) = (Arc::clone(&shared), Arc::clone(source));
        std::thread::spawn(move || feed(&shared, source.as_ref()))
    };
    let until = shared.spec.limits.total.map(|total| Instant::now() + total);
    if !shared.queues.iter().all(|queue| queue.wait_filled(&shared.live, until)) {
        shared.give_up(GaveUp::TimeIsUp);
    }
    let mut last_end = 0u64;
    let sent = send(&shared, threads, &mut |sample| {
        last_end = last_end.max(sample.ended).max(sample.end());
        each(sample);
    });
    // Whoever still makes prompts has nobody to make them for; one that is under way is not waited for.
    shared.live.abort();
    let patience = Instant::now() + FEEDER;
    while !feeder.is_finished() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    if feeder.is_finished() {
        feeder.join().map_err(|_| Error::Died)??;
    }
    sent?;
    let not_sent = not_sent(&shared, last_end, each);
    Ok(shared.ended(last_end, not_sent, threads))
}

/// Sends the requests of the queues and reads the answers, in so many threads.
fn send(shared: &Shared, threads: usize, each: &mut dyn FnMut(Sample)) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel::<Vec<Sample>>();
    std::thread::scope(|scope| {
        let clock = Clock::since(shared.live.begin());
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let worker = Worker::new(shared, number, threads, clock, sender.clone());
                scope.spawn(move || worker.and_then(Worker::run))
            })
            .collect();
        drop(sender);
        receiver.into_iter().flatten().for_each(each);
        // All are joined, whatever one of them says.
        let ends: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ends.into_iter().try_for_each(|end| end.map_err(|_| Error::Died)?.map_err(Error::Setup))
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
            failure: Some(Failure::new(FailureClass::NotSent, "the workload was ended before it was sent")),
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

/// Threads for a workload: one keeps up with hundreds of streams; a core is left to the server for each.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::super::prompt::{Content, Prompt};
    use super::super::timing::Machine;
    use super::*;

    /// Ten requests, two at a time, to nobody.
    pub fn spec() -> Spec {
        Spec {
            target: Target::new("http://127.0.0.1:9", "/v1/completions", false).unwrap(),
            form: Form {
                chat: false,
                model: "m".into(),
                lora_modules: Vec::new(),
                lora_seed: 0,
                stream: true,
                n: 1,
                ignore_eos: true,
                logprobs: None,
                extra_body: serde_json::Map::new(),
                headers: Vec::new(),
                api_key: None,
                request_id_prefix: None,
            },
            arrival: Arrival::Closed,
            max_concurrency: Some(2),
            requests: Some(10),
            samples: None,
            first_prompt: 0,
            duration: None,
            seed: 1,
            limits: Limits { request: None, stall: None, total: None },
            max_failures: None,
            keep_text: false,
            keep_headers: false,
            threads: 1,
            kernel_clock: false,
            timing: Arc::new(Machine),
            over: None,
        }
    }

    #[derive(Debug)]
    struct Same;

    impl PromptSource for Same {
        fn available(&self) -> Option<u64> {
            None
        }

        fn prompt(&self, _: u64) -> Result<Prompt, dataset::Error> {
            Ok(Prompt { content: Content::Text("x".into()), prompt_len: Some(1), output_len: Some(1), id: None })
        }
    }

    #[test]
    fn the_last_request_asks_for_the_samples_that_are_left() {
        let spec = Spec { form: Form { n: 4, ..spec().form }, requests: Some(3), samples: Some(10), ..spec() };
        assert_eq!([0, 1, 2].map(|index| spec.samples_of(index)), [4, 4, 2]);
        let whole = Spec { samples: None, ..spec };
        assert_eq!(whole.samples_of(2), 4);
    }

    #[test]
    fn there_are_no_more_threads_than_streams_or_than_its_times_allow() {
        #[derive(Debug)]
        struct One;
        impl Timing for One {
            fn most_threads(&self) -> usize {
                1
            }
        }
        assert_eq!(threads(&Spec { threads: 8, max_concurrency: Some(3), ..spec() }), 3);
        assert_eq!(threads(&Spec { threads: 8, max_concurrency: Some(300), ..spec() }), 8);
        assert_eq!(threads(&Spec { threads: 8, max_concurrency: Some(300), timing: Arc::new(One), ..spec() }), 1);
        assert_eq!(threads(&Spec { threads: 0, max_concurrency: Some(1), ..spec() }), 1);
    }

    /// Each request is accounted for, in its order, though none is sent.
    #[test]
    fn a_workload_that_is_over_before_it_begins_sends_nothing() {
        let source: Arc<dyn PromptSource> = Arc::new(Same);
        let mut seen = Vec::new();
        let over = Spec { over: Some(GaveUp::Hung), ..spec() };
        let ended = run(over, &source, &Arc::default(), &mut |sample| {
            seen.push((sample.index, sample.failure.map(|failure| failure.class)));
        })
        .unwrap();
        assert_eq!(seen, (0..10).map(|index| (index, Some(FailureClass::NotSent))).collect::<Vec<_>>());
        assert_eq!((ended.not_sent, ended.gave_up, ended.peak_concurrency), (10, Some(GaveUp::Hung), 0));
    }

    #[test]
    fn a_signal_that_came_before_is_heard() {
        let (source, live): (Arc<dyn PromptSource>, Arc<Live>) = (Arc::new(Same), Arc::default());
        live.stop(15);
        let ended = run(spec(), &source, &live, &mut |_| {}).unwrap();
        assert_eq!((ended.not_sent, ended.stopped), (10, Some(15)));
    }
}

//! The thread that sends and reads. Each turn: wait for sockets, read all that are ready and note when their bytes came,
//! and only then look at what the bytes say. Nothing else happens between the kernel and the notes.

mod judge;
mod limits;
mod pace;
mod reading;
mod sending;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd};

use super::arrival::Arrival;
use super::clock::Clock;
use super::connection::{Connection, InFlight};
use super::queue::{Next, Work};
use super::sample::Sample;
use super::session::{LATE, Shared};
use super::wire::{Exchange, Expect};
use pace::{Rush, Starving};

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Memory into which all ready sockets are read in one turn.
const ARENA: usize = 1 << 20;
/// Most bytes read of one socket at a time.
const MOST_READ: usize = 64 << 10;
/// Room for what the kernel tells beside the bytes.
const CONTROL: usize = 512;
/// How often limits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Samples that are handed over together, at most.
const BUNDLE: usize = 256;
/// How long a sample may wait for others.
const FLUSH: Duration = Duration::from_millis(20);
/// How long tokens are let gather.
const COALESCE: Duration = Duration::from_micros(100);
/// Pause after a refused connection.
const HOLD: Duration = Duration::from_millis(250);
/// How long the body of a refusal may take.
const REFUSAL: Duration = Duration::from_secs(2);
/// A server that takes no connection for so long is gone.
const GONE: Duration = Duration::from_secs(1);

/// What was read of one connection.
struct Piece {
    slot: usize,
    /// Which of the connections that had this slot.
    serial: u64,
    what: What,
    at: u64,
}

enum What {
    Bytes { from: usize, to: usize },
    End,
    Failed(io::Error),
}

pub(super) struct Worker<'a> {
    shared: &'a Shared,
    queue: usize,
    clock: Clock,
    poll: Poll,
    waker: Arc<Waker>,
    timer: Option<TimerFd>,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    idle: Vec<usize>,
    active: usize,
    slots: usize,
    arena: Vec<u8>,
    control: Vec<u8>,
    pieces: Vec<Piece>,
    again: Vec<usize>,
    samples: Vec<Sample>,
    sender: mpsc::Sender<Vec<Sample>>,
    hold_until: u64,
    all_taken: bool,
    last_tick: u64,
    last_flush: u64,
    rush: Rush,
    starving: Starving,
    /// Requests that are over.
    ended: u64,
    /// Connections opened so far.
    opened: u64,
    /// When a token last came to it, or a request of it ended.
    moved: u64,
}

impl<'a> Worker<'a> {
    pub fn new(
        shared: &'a Shared,
        number: usize,
        workers: usize,
        clock: Clock,
        sender: mpsc::Sender<Vec<Sample>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&waker));
        let open = matches!(shared.spec.arrival, Arrival::Open { .. });
        let timer = if open {
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
            poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
            Some(timer)
        } else {
            None
        };
        let most = shared.spec.max_concurrency.or(shared.spec.requests.filter(|_| !open)).unwrap_or(u64::MAX);
        let share = most / workers as u64 + u64::from((number as u64) < most % workers as u64);
        let slots = if shared.spec.arrival == Arrival::Burst { most } else { share };
        Ok(Self {
            shared,
            queue: number % shared.queues.len(),
            clock,
            poll,
            waker,
            timer,
            connections: Vec::new(),
            vacant: Vec::new(),
            idle: Vec::new(),
            active: 0,
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
            arena: vec![0; ARENA],
            control: vec![0; CONTROL],
            pieces: Vec::new(),
            again: Vec::new(),
            samples: Vec::new(),
            sender,
            hold_until: 0,
            all_taken: false,
            last_tick: 0,
            last_flush: 0,
            rush: Rush::default(),
            starving: Starving::default(),
            ended: 0,
            opened: 0,
            moved: 0,
        })
    }

    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.start_requests();
            if self.active == 0 && self.is_done() {
                self.flush(true);
                return Ok(());
            }
            if self.shared.live.is_over() {
                self.give_up_all();
                self.flush(true);
                return Ok(());
            }
            self.flush(false);
            let wait = if self.again.is_empty() { self.patience() } else { Duration::ZERO };
            if self.rush.is_on() && self.again.is_empty() {
                // The kernel has noted when bytes came: reading many at once costs both sides less than being woken for each.
                std::thread::sleep(COALESCE);
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let now = self.clock.turn();
            let mut from = 0;
            for slot in std::mem::take(&mut self.again) {
                from = self.read(slot, false, from);
            }
            for event in &events {
                let slot = event.token();
                if slot == WAKER || slot == TIMER {
                    continue;
                }
                if event.is_writable() || event.is_error() {
                    self.writable(slot.0, now);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    from = self.read(slot.0, event.is_read_closed(), from);
                }
            }
            let seen = self.pieces.len();
            let before = self.ended;
            self.parse();
            self.rush.turn(now, seen > 0 && self.ended == before && self.shared.spec.kernel_clock);
            if now.saturating_sub(self.last_tick) >= nanos(TICK) {
                self.last_tick = now;
                self.check_limits(now);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.all_taken || self.is_past_duration()
    }

    fn is_past_duration(&self) -> bool {
        self.shared.spec.duration.is_some_and(|duration| self.clock.now() >= nanos(duration))
    }

    fn patience(&self) -> Duration {
        let hold = self.hold_until.saturating_sub(self.clock.now());
        if hold > 0 { Duration::from_nanos(hold).min(TICK) } else { TICK }
    }

    /// Starts as many requests as may be under way and are due.
    fn start_requests(&mut self) {
        let shared = self.shared;
        let burst = shared.spec.arrival == Arrival::Burst;
        while self.active < self.slots && !shared.live.is_over() && !self.is_past_duration() {
            let now = self.clock.now();
            if now < self.hold_until {
                return;
            }
            if burst {
                let allowed = shared.allowed.load(Ordering::Acquire);
                let reserve = |sent: u64| (sent < allowed).then_some(sent + 1);
                if shared.live.sent.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).is_err() {
                    self.all_taken =
                        shared.spec.requests.is_some_and(|all| shared.live.sent.load(Ordering::Acquire) >= all);
                    return;
                }
            }
            match shared.queues[self.queue].next(shared.spec.timing.horizon(now), &self.waker) {
                Next::Work(work) => {
                    if !burst {
                        shared.live.sent.fetch_add(1, Ordering::AcqRel);
                    }
                    self.start(work);
                    continue;
                }
                Next::Later(due) => {
                    self.starving.over();
                    self.set_timer(due.saturating_sub(now));
                }
                Next::Starved => self.starving.found_none(self.slots.saturating_sub(self.active), now),
                Next::Nothing => self.all_taken = true,
            }
            if burst {
                shared.live.sent.fetch_sub(1, Ordering::AcqRel);
            }
            return;
        }
    }

    fn set_timer(&self, after: u64) {
        if let Some(timer) = &self.timer {
            let after = TimeSpec::from_duration(Duration::from_nanos(after.max(1)));
            let _ = timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty());
        }
    }

    fn start(&mut self, work: Work) {
        let shared = self.shared;
        let timing = &shared.spec.timing;
        let expect = Expect {
            stream: shared.spec.form.stream,
            told: timing.told(),
            samples: work.n,
            tokens: work.output_len.map(|length| length.saturating_mul(u64::from(work.n))),
            keep_text: shared.spec.keep_text,
            keep_headers: shared.spec.keep_headers,
        };
        let sent = self.clock.now();
        let started = timing.start(work.index, work.due, sent);
        let flight = InFlight {
            index: work.index,
            due: work.due,
            started,
            sent,
            connected: None,
            prompt_len: work.prompt_len,
            output_len: work.output_len,
            n: work.n,
            exchange: Exchange::new(expect),
            heard: sent,
            body: work.body,
            reused: false,
        };
        let starving_since = self.starving.served();
        if let Some(due) = work.due.or(starving_since) {
            let late = timing.lateness(due, started);
            if late > nanos(LATE) {
                shared.late.fetch_add(1, Ordering::Relaxed);
                shared.latest.fetch_max(late, Ordering::Relaxed);
                shared.starved.fetch_add(u64::from(starving_since.is_some()), Ordering::Relaxed);
            }
        }
        self.active += 1;
        let active = shared.live.active.fetch_add(1, Ordering::AcqRel) + 1;
        shared.live.peak.fetch_max(active, Ordering::Relaxed);
        shared.first_start.fetch_min(started, Ordering::Relaxed);
        shared.last_start.fetch_max(started, Ordering::Relaxed);
        let full = shared.spec.max_concurrency.or(shared.spec.requests).unwrap_or(u64::MAX);
        if active >= full.min(shared.spec.requests.unwrap_or(u64::MAX)) {
            shared.full_at.fetch_min(started, Ordering::Relaxed);
        }
        self.send(flight);
    }

    /// Hands over what has ended, in bundles: waking the thread that counts costs more than counting.
    fn flush(&mut self, all: bool) {
        let now = self.clock.now();
        let due = all || self.samples.len() >= BUNDLE || now.saturating_sub(self.last_flush) >= nanos(FLUSH);
        if due && !self.samples.is_empty() {
            self.last_flush = now;
            // Nobody listens any more only when the workload is over.
            let _ = self.sender.send(std::mem::take(&mut self.samples));
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use super::super::dataset;
    use super::super::live::Live;
    use super::super::prompt::{Content, Prompt, PromptSource};
    use super::super::session::tests::spec;
    use super::super::session::{Ended, Spec, run};
    use super::super::target::Target;
    use super::*;

    /// A server that answers one token to each request, for as long as the test lives.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let body = "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
                    while let Ok(count @ 1..) = stream.read(&mut piece) {
                        seen.extend_from_slice(&piece[..count]);
                        // Each request is one small object.
                        if seen.ends_with(b"}") {
                            seen.clear();
                            let _ = stream.write_all(answer.as_bytes());
                        }
                    }
                });
            }
        });
        address
    }

    /// Prompts of which one is made only after the request before it has ended, and some time.
    #[derive(Debug)]
    struct Slow {
        late: Option<u64>,
        live: Arc<Live>,
    }

    impl PromptSource for Slow {
        fn available(&self) -> Option<u64> {
            None
        }

        fn prompt(&self, index: u64) -> Result<Prompt, dataset::Error> {
            while self.late == Some(index) && self.live.done.load(Ordering::Acquire) < index && !self.live.is_over() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.late == Some(index) {
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(Prompt { content: Content::Text("x".into()), prompt_len: Some(1), output_len: Some(1), id: None })
        }
    }

    fn sent(late: Option<u64>) -> (Vec<Sample>, Ended) {
        let live = Arc::new(Live::default());
        let source: Arc<dyn PromptSource> = Arc::new(Slow { late, live: Arc::clone(&live) });
        let target = Target::new(&format!("http://{}", server()), "/v1/completions", false).unwrap();
        let spec = Spec { target, requests: Some(3), max_concurrency: Some(1), ..spec() };
        let mut samples = Vec::new();
        let ended = run(spec, &source, &live, &mut |sample| samples.push(sample)).unwrap();
        (samples, ended)
    }

    #[test]
    fn requests_are_sent_one_after_the_other_on_one_connection() {
        let (samples, ended) = sent(None);
        assert!(samples.iter().all(|sample| sample.failure.is_none()), "{samples:?}");
        let connected: Vec<bool> = samples.iter().map(|sample| sample.connected.is_some()).collect();
        assert_eq!(connected, [true, false, false]);
        assert!(samples.windows(2).all(|pair| pair[0].end() <= pair[1].started));
        assert_eq!((ended.peak_concurrency, ended.not_sent, ended.starved), (1, 0, 0));
    }

    /// The first requests do not wait for prompts that are needed later, and a stream that has to wait for one is counted.
    #[test]
    fn a_prompt_that_comes_too_late_is_counted_as_late_sending() {
        let (samples, ended) = sent(Some(2));
        assert!(samples.len() == 3 && samples.iter().all(|sample| sample.failure.is_none()), "{samples:?}");
        assert_eq!((ended.late, ended.starved), (1, 1));
        assert!(ended.latest > LATE.as_secs_f64());
    }
}

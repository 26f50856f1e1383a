//! The thread that sends and reads. Each turn: wait for sockets, read all that are ready and note when their bytes came,
//! and only then look at what the bytes say. Nothing else happens between the kernel and the notes.

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
use super::connection::{Connection, Got, InFlight};
use super::sample::{Failure, FailureClass, Sample};
use super::session::{ALONE, GaveUp, LATE, Next, Shared, Work};
use super::wire::{Exchange, Expect, Progress, Reply};

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
/// A turn that follows the one before so soon, and ends no request, is one of a busy stream of tokens.
const QUICK: Duration = Duration::from_micros(300);
/// After so many of these, tokens are let gather.
const QUICK_TURNS: u32 = 8;
/// How long.
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
    last_turn: u64,
    quick_turns: u32,
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
            last_turn: 0,
            quick_turns: 0,
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
            if self.quick_turns >= QUICK_TURNS && self.again.is_empty() {
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
            let quick = now.saturating_sub(self.last_turn) < nanos(QUICK) && seen > 0 && self.ended == before;
            self.last_turn = now;
            self.quick_turns = if quick && self.shared.spec.kernel_clock { self.quick_turns + 1 } else { 0 };
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
                Next::Later(due) => self.set_timer(due.saturating_sub(now)),
                Next::Starved => {}
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
        if let Some(due) = work.due {
            let late = timing.lateness(due, started);
            if late > nanos(LATE) {
                shared.late.fetch_add(1, Ordering::Relaxed);
                shared.latest.fetch_max(late, Ordering::Relaxed);
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

    /// Sends a request on a connection at hand, or on a new one.
    fn send(&mut self, mut flight: InFlight) {
        while let Some(slot) = self.idle.pop() {
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            flight.reused = true;
            write_request(self.shared, connection, &flight);
            if connection.write().is_err() {
                self.close(slot);
                continue;
            }
            connection.flight = Some(flight);
            return;
        }
        flight.reused = false;
        let spec = &self.shared.spec;
        let opened = Connection::open(spec.target.address, self.shared.tls.as_ref(), spec.kernel_clock).and_then(
            |mut connection| {
                let slot = self.vacant.pop().unwrap_or(self.connections.len());
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Err(error) = self.poll.registry().register(&mut connection.stream, Token(slot), interest) {
                    self.vacant.push(slot);
                    return Err(error);
                }
                Ok((slot, connection))
            },
        );
        match opened {
            Ok((slot, mut connection)) => {
                write_request(self.shared, &mut connection, &flight);
                let written = connection.write();
                connection.flight = Some(flight);
                self.opened += 1;
                connection.serial = self.opened;
                if slot == self.connections.len() {
                    self.connections.push(Some(connection));
                } else {
                    self.connections[slot] = Some(connection);
                }
                if let Err(error) = written {
                    self.refused();
                    self.fail(slot, FailureClass::Connect, error.to_string());
                }
            }
            Err(error) => {
                let detail = match error.raw_os_error() {
                    Some(code) if code == nix::errno::Errno::EMFILE as i32 => {
                        format!("{error}: raise the limit of open files (ulimit -n)")
                    }
                    _ => error.to_string(),
                };
                self.refused();
                self.finish(flight, Some(Failure::new(FailureClass::Connect, detail)), self.clock.now());
            }
        }
    }

    fn writable(&mut self, slot: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        if !connection.established {
            match connection.stream.take_error() {
                Ok(Some(error)) | Err(error) => {
                    self.refused();
                    return self.fail(slot, FailureClass::Connect, error.to_string());
                }
                Ok(None) if connection.stream.peer_addr().is_err() => return,
                Ok(None) => {
                    connection.established = true;
                    self.shared.refused.store(0, Ordering::Relaxed);
                    if let Some(flight) = &mut connection.flight {
                        flight.connected = self.shared.spec.timing.connected(now, flight.started);
                    }
                }
            }
        }
        if connection.wants_write()
            && let Err(error) = connection.write()
        {
            self.broken(slot, error, now);
        }
    }

    /// Reads a socket into the arena from `from` on; hands back where the next one begins.
    fn read(&mut self, slot: usize, closed: bool, mut from: usize) -> usize {
        if ARENA - from < MOST_READ {
            self.parse();
            from = 0;
        }
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return from };
        let to = from + MOST_READ;
        let got = connection.read(&mut self.arena[from..to], &mut self.control);
        let read = self.clock.now();
        let serial = connection.serial;
        let what = match got {
            Ok(Got::Nothing) => return from,
            Ok(Got::End) => What::End,
            Err(error) => What::Failed(error),
            Ok(Got::Bytes(count, stamp)) => {
                if count == MOST_READ || closed {
                    self.again.push(slot);
                }
                let at = match stamp {
                    Some(stamp) => self.clock.arrival(stamp, connection.last_arrival, read),
                    None => {
                        if self.shared.spec.kernel_clock {
                            self.shared.clock_failed.store(true, Ordering::Relaxed);
                        }
                        read
                    }
                };
                connection.last_arrival = at;
                self.pieces.push(Piece { slot, serial, what: What::Bytes { from, to: from + count }, at });
                return from + count;
            }
        };
        self.pieces.push(Piece { slot, serial, what, at: read });
        from
    }

    /// Looks at what was read.
    fn parse(&mut self) {
        let mut pieces = std::mem::take(&mut self.pieces);
        for Piece { slot, serial, what, at } in pieces.drain(..) {
            // A slot may have gone to another connection since.
            if self.connections.get(slot).and_then(Option::as_ref).is_none_or(|connection| connection.serial != serial)
            {
                continue;
            }
            match what {
                What::Bytes { from, to } => self.bytes(slot, from, to, at),
                What::End => self.end(slot, at),
                What::Failed(error) => self.broken(slot, error, at),
            }
        }
        self.pieces = pieces;
        self.shared.live.moves(self.moved);
    }

    fn bytes(&mut self, slot: usize, from: usize, to: usize, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        connection.established = true;
        let decrypted = match connection.decrypt(&self.arena[from..to]) {
            Ok(decrypted) => decrypted,
            Err(error) => return self.fail(slot, FailureClass::Connect, format!("TLS: {error}")),
        };
        if connection.wants_write() && connection.write().is_err() {
            return self.end(slot, at);
        }
        let (bytes, goodbye) = match &decrypted {
            Some((content, goodbye)) => (&content[..], *goodbye),
            None => (&self.arena[from..to], false),
        };
        let Some(flight) = &mut connection.flight else {
            // Nobody asked: a server that speaks out of turn, or the goodbye of TLS.
            if !bytes.is_empty() || goodbye {
                self.close(slot);
            }
            return;
        };
        if !bytes.is_empty() {
            let heard = at;
            let at = self.shared.spec.timing.arrival(at, flight.started);
            let tokens = flight.exchange.reply().events;
            let progress = flight.exchange.push(bytes, at);
            if flight.exchange.reply().events != tokens {
                flight.heard = heard;
                self.moved = self.moved.max(heard);
            }
            match progress {
                Ok(Progress::More) => {}
                Ok(Progress::Complete { keep_alive }) => return self.complete(slot, keep_alive, at),
                Err(broken) => return self.fail(slot, FailureClass::Malformed, broken.to_string()),
            }
        }
        if goodbye {
            self.end(slot, at);
        }
    }

    /// The server closed the connection.
    fn end(&mut self, slot: usize, at: u64) {
        let Some(flight) = self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|c| c.flight.as_mut())
        else {
            return self.close(slot);
        };
        if flight.reused && !flight.exchange.has_begun() {
            return self.send_again(slot);
        }
        match flight.exchange.closed(at) {
            Ok(true) => self.complete(slot, false, at),
            Ok(false) if flight.exchange.reply().done => self.complete(slot, false, at),
            Ok(false) => {
                let seen = flight.exchange.reply().events;
                let detail = match flight.exchange.has_begun() {
                    true => {
                        format!("the server closed the connection after {seen} tokens, before the end of its answer")
                    }
                    false => "the server closed the connection without an answer".to_owned(),
                };
                self.fail(slot, FailureClass::StreamBroken, detail);
            }
            Err(broken) => self.fail(slot, FailureClass::Malformed, broken.to_string()),
        }
    }

    /// Reading or writing failed.
    fn broken(&mut self, slot: usize, error: io::Error, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let established = connection.established;
        let Some(flight) = connection.flight.as_mut() else { return self.close(slot) };
        if flight.reused && !flight.exchange.has_begun() {
            return self.send_again(slot);
        }
        let _ = at;
        let seen = flight.exchange.reply().events;
        if established {
            return self.fail(slot, FailureClass::StreamBroken, format!("{error}, after {seen} tokens"));
        }
        self.refused();
        self.fail(slot, FailureClass::Connect, error.to_string());
    }

    /// The server closed a connection in the moment in which it was used again.
    fn send_again(&mut self, slot: usize) {
        let flight =
            self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|connection| connection.flight.take());
        self.close(slot);
        if let Some(flight) = flight {
            self.send(flight);
        }
    }

    fn complete(&mut self, slot: usize, keep_alive: bool, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(flight) = connection.flight.take() else { return };
        if keep_alive {
            self.idle.push(slot);
        } else {
            self.close(slot);
        }
        let failure = judge(&flight, self.shared.spec.form.stream);
        self.finish(flight, failure, at);
    }

    fn fail(&mut self, slot: usize, class: FailureClass, detail: String) {
        let flight =
            self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|connection| connection.flight.take());
        self.close(slot);
        if let Some(flight) = flight {
            let now = self.clock.now();
            // What the server said before says more.
            let told = || {
                let refused = flight.exchange.refusal().map(|words| (FailureClass::HttpStatus, words));
                let error = flight.exchange.reply().error.clone();
                refused.or_else(|| error.map(|words| (FailureClass::InStreamError, words)))
            };
            let told = if class == FailureClass::Cancelled { None } else { told() };
            let (class, detail) = told.unwrap_or((class, detail));
            let failure = Failure::new(class, detail);
            self.finish(flight, Some(failure), now);
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) {
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.idle.retain(|idle| *idle != slot);
            self.vacant.push(slot);
        }
    }

    /// A request is over.
    fn finish(&mut self, flight: InFlight, failure: Option<Failure>, at: u64) {
        let shared = self.shared;
        self.ended += 1;
        self.moved = self.moved.max(self.clock.now());
        let reply = flight.exchange.into_reply();
        let live = &shared.live;
        let ended = shared.spec.timing.end(flight.started, reply.last, at);
        if failure.is_some() {
            let failed = live.failed.fetch_add(1, Ordering::Relaxed) + 1;
            if shared.spec.max_failures.is_some_and(|most| failed >= most) {
                shared.give_up(GaveUp::TooManyFailures);
            }
        } else if let Some(first) = reply.first {
            live.ttft_sum_us.fetch_add(first.saturating_sub(flight.started) / 1000, Ordering::Relaxed);
            live.ttft_count.fetch_add(1, Ordering::Relaxed);
        }
        live.tokens
            .fetch_add(if failure.is_none() { reply.output_tokens().0 } else { reply.events }, Ordering::Relaxed);
        self.active -= 1;
        live.active.fetch_sub(1, Ordering::AcqRel);
        self.samples.push(Sample {
            index: flight.index,
            due: flight.due,
            started: flight.started,
            connected: flight.connected,
            ended,
            prompt_len: flight.prompt_len,
            output_len: flight.output_len,
            n: flight.n,
            reply,
            failure,
        });
        let done = live.done.fetch_add(1, Ordering::AcqRel) + 1;
        if shared.spec.arrival == Arrival::Burst && done == shared.allowed.load(Ordering::Acquire) {
            shared.allowed.fetch_add(shared.spec.max_concurrency.unwrap_or(u64::MAX / 2), Ordering::AcqRel);
            for waker in shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = waker.wake();
            }
        }
    }

    /// Hands over what has ended, in bundles: waking the thread that counts costs more than counting.
    fn flush(&mut self, all: bool) {
        let now = self.clock.now();
        let due = all || self.samples.len() >= BUNDLE || now.saturating_sub(self.last_flush) >= nanos(FLUSH);
        if due && !self.samples.is_empty() {
            self.last_flush = now;
            // Nobody listens any more only when the load is over.
            let _ = self.sender.send(std::mem::take(&mut self.samples));
        }
    }

    /// A connection was refused: no hurry with the next one; and after a while the server is gone.
    fn refused(&mut self) {
        let now = self.clock.now();
        self.hold_until = now + nanos(HOLD);
        let since = &self.shared.refused;
        let first = match since.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(first) => first,
        };
        if now.saturating_sub(first) > nanos(GONE) {
            self.shared.give_up(GaveUp::ServerGone);
        }
    }

    fn check_limits(&mut self, now: u64) {
        let limits = self.shared.spec.limits;
        if limits.total.is_some_and(|total| now >= nanos(total)) {
            return self.shared.give_up(GaveUp::TimeIsUp);
        }
        self.end_refusals(now);
        if limits.request.is_none() && limits.stall.is_none() {
            return;
        }
        if limits.stall.is_some_and(|limit| self.is_hung(limit, now)) {
            return self.shared.give_up(GaveUp::Hung);
        }
        for slot in 0..self.connections.len() {
            let Some(flight) = self.connections[slot].as_ref().and_then(|connection| connection.flight.as_ref()) else {
                continue;
            };
            let began = self.shared.spec.timing.limited_from(flight.started, flight.heard);
            let too_long = limits.request.filter(|limit| now.saturating_sub(began) > nanos(*limit));
            let silent = limits.stall.map(|limit| limit.saturating_mul(ALONE)).filter(|limit| {
                flight.exchange.reply().first.is_some() && now.saturating_sub(flight.heard) > nanos(*limit)
            });
            let tokens = flight.exchange.reply().events;
            let detail = match (too_long, silent) {
                (Some(limit), _) => {
                    format!("no end after {} s ({tokens} tokens): --request-timeout", limit.as_secs_f64())
                }
                (_, Some(limit)) => {
                    let limit = limit.as_secs_f64();
                    format!("no further token for {limit} s after {tokens} tokens: {ALONE} times --stall-timeout")
                }
                _ => continue,
            };
            self.fail(slot, FailureClass::Timeout, detail);
        }
    }

    /// A refused request is over, whether its body ends or not.
    fn end_refusals(&mut self, now: u64) {
        for slot in 0..self.connections.len() {
            let flight = self.connections[slot].as_ref().and_then(|connection| connection.flight.as_ref());
            let Some(exchange) = flight.map(|flight| &flight.exchange) else { continue };
            let is_late = exchange.reply().first_byte.is_some_and(|first| now.saturating_sub(first) > nanos(REFUSAL));
            if is_late && let Some(detail) = exchange.refusal() {
                self.fail(slot, FailureClass::HttpStatus, detail);
            }
        }
    }

    /// Whether a request of this worker has waited for the limit, and nothing has moved meanwhile: no token of any request,
    /// nor the counters of the server where it has some.
    fn is_hung(&self, limit: Duration, now: u64) -> bool {
        let Some(still_since) = self.shared.live.still_since(self.shared.spec.form.stream) else { return false };
        let flights = self.connections.iter().filter_map(|slot| slot.as_ref()?.flight.as_ref());
        let waits = flights.filter(|flight| flight.exchange.refusal().is_none()).map(|flight| flight.sent).min();
        waits.is_some_and(|sent| now.saturating_sub(sent.max(still_since)) > nanos(limit))
    }

    fn give_up_all(&mut self) {
        let why = *self.shared.gave_up.lock().unwrap_or_else(PoisonError::into_inner);
        let (class, detail) = match why {
            Some(GaveUp::TimeIsUp) => (FailureClass::Timeout, "under way at the limit of the whole load".to_owned()),
            Some(GaveUp::Hung) => {
                let limit = self.shared.spec.limits.stall.unwrap_or_default().as_secs_f64();
                (FailureClass::Timeout, format!("no token of any request for {limit} s: --stall-timeout"))
            }
            Some(GaveUp::ServerGone | GaveUp::TooManyFailures) | None => {
                (FailureClass::Cancelled, "under way when the load was ended".to_owned())
            }
        };
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|connection| connection.flight.is_some()) {
                self.fail(slot, class, detail.clone());
            }
        }
    }
}

fn write_request(shared: &Shared, connection: &mut Connection, flight: &InFlight) {
    let more = shared.spec.timing.headers(flight.index, flight.started);
    shared.writer.request(flight.index, &flight.body, &more, connection.outgoing());
}

/// What a complete answer is worth.
fn judge(flight: &InFlight, stream: bool) -> Option<Failure> {
    let reply: &Reply = flight.exchange.reply();
    if let Some(refusal) = flight.exchange.refusal() {
        return Some(Failure::new(FailureClass::HttpStatus, refusal));
    }
    if let Some(error) = &reply.error {
        return Some(Failure::new(FailureClass::InStreamError, error.clone()));
    }
    let asked = flight.output_len.map(|length| length.saturating_mul(u64::from(flight.n)));
    if let Some(why) = reply.implausible_usage(asked, flight.body.len() as u64) {
        return Some(Failure::new(FailureClass::Malformed, why));
    }
    let is_counted = reply.usage.is_some_and(|usage| usage.completion_tokens.is_some());
    if reply.output_tokens().0 == 0 && (is_counted || reply.finished > 0) {
        return Some(Failure::new(FailureClass::NoToken, "the answer has no token"));
    }
    if stream && reply.first.is_none() {
        return Some(Failure::new(FailureClass::Malformed, flight.exchange.without_token()));
    }
    if !stream && reply.samples == 0 {
        return Some(Failure::new(FailureClass::Malformed, "the answer has no choices"));
    }
    if stream && !reply.done && reply.finished < reply.samples {
        let detail =
            format!("the stream ended after {} tokens without [DONE] and without a finish_reason", reply.events);
        return Some(Failure::new(FailureClass::StreamBroken, detail));
    }
    None
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! The times of a simulation in the load generator: which measurement of a plan a workload is, the headers by which the
//! simulated server keeps its requests together, when they start, and the times that the server tells with its tokens.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::engine::Session;
use crate::load::timing::Timing;
use crate::load::wire::{Broken, ToldTimes};

/// Which measurement of a plan a workload is: the orchestrator tells its client, and the client a
/// simulated server, whose times vary by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Follows from the experiment and its repeat.
    pub draw: u64,
    /// The experiment's position in the plan, from 1.
    pub position: u64,
}

impl Turn {
    /// The variable of the client's script that carries the draw, in hexadecimal.
    pub const DRAW: &'static str = "VLLM_BENCH_SIM_RUN";
    /// The variable of the client's script that carries the position.
    pub const POSITION: &'static str = "VLLM_BENCH_SIM_POSITION";

    /// What the two variables say; `None` for a workload that is no part of a plan.
    pub fn of<'a>(lookup: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let draw = u64::from_str_radix(lookup(Self::DRAW)?.trim(), 16).ok()?;
        let position = lookup(Self::POSITION).and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        Some(Self { draw, position })
    }
}

/// What a workload tells the simulated server of itself.
#[derive(Debug, Clone)]
pub struct SimSession {
    /// Tells it from others.
    pub name: String,
    /// Requests in all.
    pub total: u64,
    /// Requests at a time.
    pub concurrency: u64,
    /// It is not what is measured.
    pub warmup: bool,
    /// Requests of a batch, where the next ones wait for all of them: every batch is a session of its own.
    pub batch: Option<u64>,
    /// Which measurement of a plan it is, if it is one.
    pub turn: Option<Turn>,
}

/// What all headers of a session begin with.
const HEADERS: &str = "x-vllm-bench-sim-";

impl SimSession {
    /// A session with a name that no other has.
    pub fn new(total: u64, concurrency: u64, warmup: bool) -> Self {
        let name = format!("{}-{:016x}", std::process::id(), rand::random::<u64>());
        Self { name, total, concurrency, warmup, batch: None, turn: None }
    }

    /// The headers by which the simulated server keeps the requests of one session together.
    fn headers(&self, index: u64, arrival: u64) -> String {
        let mut text = String::with_capacity(240);
        let (name, total, concurrency) = match self.batch.filter(|batch| *batch > 0) {
            None => (self.name.clone(), self.total, self.concurrency),
            Some(size) => {
                let number = index / size;
                let held = self.total.saturating_sub(number * size).min(size);
                (format!("{}-{number}", self.name), held, held)
            }
        };
        let fields: [(&str, &dyn std::fmt::Display); 6] = [
            ("session", &name),
            ("index", &index),
            ("total", &total),
            ("concurrency", &concurrency),
            ("arrival", &arrival),
            ("warmup", &u8::from(self.warmup)),
        ];
        for (name, value) in fields {
            let _ = write!(text, "{HEADERS}{name}: {value}\r\n");
        }
        if let Some(Turn { draw, position }) = self.turn {
            let _ = write!(text, "{HEADERS}draw: {draw}\r\n{HEADERS}position: {position}\r\n");
        }
        text
    }
}

impl Session {
    /// The session that the headers of a request name.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(format!("{HEADERS}{name}")).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        Some(Self {
            id: text("session")?.to_string(),
            index: number("index")?,
            total: number("total")?,
            concurrency: number("concurrency")?.max(1),
            arrival: number("arrival")?,
            warmup: number("warmup") == Some(1),
            turn: number("draw").map(|draw| Turn { draw, position: number("position").unwrap_or(1) }),
        })
    }
}

/// Simulated clocks: a request starts when the one before it on its stream has ended, or when it is due.
#[derive(Debug)]
pub struct SimTiming {
    session: SimSession,
    clocks: Mutex<Clocks>,
}

#[derive(Debug, Default)]
struct Clocks {
    /// Of the streams that are free.
    free: Vec<u64>,
    /// Beginning of the batch under way.
    batch: u64,
}

impl SimTiming {
    /// The times of one session.
    pub fn new(session: SimSession) -> Self {
        Self { session, clocks: Mutex::default() }
    }

    fn clocks(&self) -> std::sync::MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timing for SimTiming {
    /// Several would start requests in another order each time.
    fn most_threads(&self) -> usize {
        1
    }

    fn told(&self) -> Option<ToldTimes> {
        Some(told)
    }

    /// Simulated time does not wait for this machine's.
    fn horizon(&self, _: u64) -> u64 {
        u64::MAX
    }

    fn start(&self, index: u64, due: Option<u64>, _: u64) -> u64 {
        let mut clocks = self.clocks();
        let Some(size) = self.session.batch else {
            return clocks.free.pop().unwrap_or(0).max(due.unwrap_or(0));
        };
        // A batch begins when the slowest of the one before has ended.
        if index.is_multiple_of(size.max(1)) {
            clocks.batch = clocks.free.drain(..).max().unwrap_or(clocks.batch);
        }
        clocks.batch
    }

    fn headers(&self, index: u64, started: u64) -> String {
        self.session.headers(index, started)
    }

    fn lateness(&self, _: u64, _: u64) -> u64 {
        0
    }

    /// Connecting takes no simulated time.
    fn connected(&self, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn arrival(&self, at: u64, _: u64) -> u64 {
        at
    }

    /// Real limits hold for what is real: silence.
    fn limited_from(&self, _: u64, heard: u64) -> u64 {
        heard
    }

    fn end(&self, started: u64, last: u64, _: u64) -> u64 {
        let ended = last.max(started);
        self.clocks().free.push(ended);
        ended
    }
}

/// The latest time that a simulation tells: a year, in nanoseconds.
const MOST: u64 = 366 * 24 * 3600 * 1_000_000_000;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    sim_times_ns: Option<&'a RawValue>,
}

/// The times of the tokens of an event, in nanoseconds.
fn told(event: &[u8]) -> Result<Option<Vec<u64>>, Broken> {
    // What is no event at all is said by whoever reads the rest of it.
    let raw = serde_json::from_slice::<Event<'_>>(event).ok().and_then(|event| event.sim_times_ns);
    let Some(raw) = raw else { return Ok(None) };
    let times: Vec<u64> = serde_json::from_str(raw.get())
        .map_err(|error| Broken::Told { reason: format!("the simulated server tells times that are none: {error}") })?;
    match times.iter().find(|nanos| **nanos > MOST) {
        Some(nanos) => Err(Broken::Told {
            reason: format!("the simulated server tells the time of {nanos} ns, more than a year after its beginning"),
        }),
        None => Ok(Some(times)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_off_an_event_where_they_can_be_times() {
        let read = |text: &str| told(text.as_bytes());
        assert_eq!(read(r#"{"choices":[{"text":"x"}],"sim_times_ns":[1,2]}"#), Ok(Some(vec![1, 2])));
        assert_eq!(read(r#"{"choices":[],"sim_times_ns":[]}"#), Ok(Some(vec![])));
        for none in [r#"{"choices":[]}"#, r#"{"sim_times_ns":null}"#, "[DONE]", "{", ""] {
            assert_eq!(read(none), Ok(None), "{none}");
        }
        for wrong in ["[18446744073709551615]", "[-1]", "\"x\"", "7"] {
            assert!(matches!(read(&format!("{{\"sim_times_ns\":{wrong}}}")), Err(Broken::Told { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_request_starts_when_a_stream_is_free_and_a_batch_when_all_are() {
        let stream = SimTiming::new(SimSession::new(4, 2, false));
        assert_eq!((stream.start(0, None, 99), stream.start(1, Some(7), 99)), (0, 7));
        assert_eq!((stream.end(0, 30, 99), stream.end(7, 0, 99)), (30, 7));
        assert_eq!((stream.start(2, None, 99), stream.start(3, Some(50), 99)), (7, 50));

        let batch = SimTiming::new(SimSession { batch: Some(2), ..SimSession::new(4, 2, false) });
        assert_eq!((batch.start(0, None, 99), batch.start(1, None, 99)), (0, 0));
        assert_eq!((batch.end(0, 30, 99), batch.end(0, 20, 99)), (30, 20));
        assert_eq!((batch.start(2, None, 99), batch.start(3, None, 99)), (30, 30));
    }

    #[test]
    fn the_server_reads_what_the_headers_say() {
        let turn = Some(Turn { draw: 5, position: 3 });
        let session = SimSession { batch: Some(4), turn, ..SimSession::new(6, 4, true) };
        let mut headers = HeaderMap::new();
        for line in session.headers(5, 70).lines() {
            let (name, value) = line.split_once(": ").unwrap();
            headers.insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let read = Session::of(&headers).unwrap();
        assert_eq!((read.id, read.index), (format!("{}-1", session.name), 5));
        assert_eq!((read.total, read.concurrency, read.arrival, read.warmup, read.turn), (2, 2, 70, true, turn));
        assert!(Session::of(&HeaderMap::new()).is_none());
    }
}

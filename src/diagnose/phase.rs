//! Following a server while it starts: in which phase it is, what it last said, and whether it is lost already.
//!
//! [`PhaseTracker`] is fed the log as it grows and must keep up with a flood, so a line is looked at once, by one search
//! for literals. It has no clock: who needs times notes them when [`PhaseTracker::feed`] reports a change.

use crate::model::{Cause, StartPhase};
use crate::words::cut_chars;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::line::{Lines, clean_line, parse, strip_ansi};
use super::pattern::{TABLE, any_of};

/// A line that certainly means that the server will never be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// What this line shows. The whole log may show a root cause above it: ask [`super::diagnose`].
    pub cause: Cause,
    /// The line, cleaned.
    pub line: String,
}

/// What a literal in a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Phase(StartPhase),
    /// A server starts: everything before belongs to an earlier one.
    Banner,
    /// Some row of the table may call this line fatal.
    Fatal,
    /// Of no interest to a person who waits.
    Boring,
}

/// Literals that vLLM 0.6 to current prints. The first that a line holds decides, and of two at one place the earlier here.
const MARKS: &[(&str, Mark)] = &[
    ("vLLM API server version", Mark::Banner),
    ("█  version ", Mark::Banner),
    ("args: ", Mark::Phase(StartPhase::Configuring)),
    ("importing.py:", Mark::Phase(StartPhase::Importing)),
    ("Automatically detected platform", Mark::Phase(StartPhase::Importing)),
    ("Available plugins for group", Mark::Phase(StartPhase::Importing)),
    ("torch/utils/flop_counter.py", Mark::Phase(StartPhase::Importing)),
    ("torch/_library/triton.py", Mark::Phase(StartPhase::Importing)),
    ("oneAPI environment", Mark::Boring),
    ("Resolved architecture", Mark::Phase(StartPhase::Configuring)),
    ("Using max model len", Mark::Phase(StartPhase::Configuring)),
    ("Started engine process with PID", Mark::Phase(StartPhase::Configuring)),
    ("Waiting for init message from front-end", Mark::Phase(StartPhase::Configuring)),
    ("Initializing a V", Mark::Phase(StartPhase::Configuring)),
    ("Initializing an LLM engine", Mark::Phase(StartPhase::Configuring)),
    (".safetensors: ", Mark::Phase(StartPhase::Downloading)),
    ("Fetching ", Mark::Phase(StartPhase::Downloading)),
    ("Downloading ", Mark::Phase(StartPhase::Downloading)),
    ("Starting to load model", Mark::Phase(StartPhase::Loading)),
    ("Loading safetensors checkpoint shards", Mark::Phase(StartPhase::Loading)),
    ("Loading pt checkpoint shards", Mark::Phase(StartPhase::Loading)),
    ("Loading model from", Mark::Phase(StartPhase::Loading)),
    ("Loading weights on", Mark::Phase(StartPhase::Loading)),
    ("Loading weights took", Mark::Phase(StartPhase::Loading)),
    ("Loading model weights took", Mark::Phase(StartPhase::Profiling)),
    ("Model loading took", Mark::Phase(StartPhase::Profiling)),
    ("Memory profiling takes", Mark::Phase(StartPhase::Profiling)),
    ("torch.compile takes", Mark::Phase(StartPhase::Profiling)),
    ("Available KV cache memory", Mark::Phase(StartPhase::Profiling)),
    ("GPU KV cache size", Mark::Phase(StartPhase::Profiling)),
    ("CPU KV cache size", Mark::Phase(StartPhase::Profiling)),
    ("# GPU blocks", Mark::Phase(StartPhase::Profiling)),
    ("# xpu blocks", Mark::Phase(StartPhase::Profiling)),
    ("# cpu blocks", Mark::Phase(StartPhase::Profiling)),
    ("Maximum concurrency for", Mark::Phase(StartPhase::Profiling)),
    ("torch.compile cache", Mark::Phase(StartPhase::Compiling)),
    ("vLLM's torch.compile", Mark::Phase(StartPhase::Compiling)),
    ("Using cache directory", Mark::Phase(StartPhase::Compiling)),
    ("Dynamo bytecode transform time", Mark::Phase(StartPhase::Compiling)),
    ("Compiling a graph for", Mark::Phase(StartPhase::Compiling)),
    ("Cache the graph", Mark::Phase(StartPhase::Compiling)),
    ("Directly load the compiled graph", Mark::Phase(StartPhase::Compiling)),
    ("Start compiling function", Mark::Phase(StartPhase::Compiling)),
    ("Warming up model for the compilation", Mark::Phase(StartPhase::Compiling)),
    ("Capturing ", Mark::Phase(StartPhase::Capturing)),
    ("Graph capturing finished", Mark::Phase(StartPhase::Capturing)),
    ("init engine (profile", Mark::Phase(StartPhase::StartingApi)),
    ("Starting vLLM server on", Mark::Phase(StartPhase::StartingApi)),
    ("Starting vLLM API server", Mark::Phase(StartPhase::StartingApi)),
    ("Available routes are", Mark::Phase(StartPhase::StartingApi)),
    ("Started server process", Mark::Phase(StartPhase::StartingApi)),
    ("Waiting for application startup", Mark::Phase(StartPhase::StartingApi)),
    ("Application startup complete", Mark::Phase(StartPhase::Ready)),
    ("Uvicorn running on", Mark::Phase(StartPhase::Ready)),
    ("Route: /", Mark::Boring),
    ("[Gloo] Rank", Mark::Boring),
    ("OMP tid:", Mark::Boring),
    ("\"GET /health", Mark::Boring),
    ("\"GET /v1/models", Mark::Boring),
];

struct Marks {
    any: Regex,
    marks: Vec<(&'static str, Mark)>,
}

static ALL_MARKS: LazyLock<Marks> = LazyLock::new(|| {
    let fatal = TABLE.rows().iter().filter(|row| row.fatal).map(|row| (row.needle, Mark::Fatal));
    let marks: Vec<(&str, Mark)> = MARKS.iter().copied().chain(fatal).collect();
    Marks { any: any_of(marks.iter().map(|(literal, _)| *literal)), marks }
});

fn mark_of(line: &[u8]) -> Option<Mark> {
    let found = ALL_MARKS.any.find(line)?;
    ALL_MARKS.marks.iter().find(|(literal, _)| literal.as_bytes() == found.as_bytes()).map(|(_, mark)| *mark)
}

/// How many bytes of the newest line are kept for display.
const NEWEST_CAP: usize = 1024;

/// How many characters of a line are shown.
const SHOWN_CHARS: usize = 400;

/// Follows one server's log from launch to readiness. Memory is bounded, whatever it is fed.
#[derive(Debug)]
pub struct PhaseTracker {
    lines: Lines,
    state: State,
}

#[derive(Debug)]
struct State {
    phase: StartPhase,
    ready: bool,
    newest: Vec<u8>,
    fatal: Option<Fatal>,
}

impl Default for PhaseTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl PhaseTracker {
    /// A tracker of a server that was just launched.
    pub fn new() -> Self {
        Self {
            lines: Lines::new(),
            state: State { phase: StartPhase::Launching, ready: false, newest: Vec::new(), fatal: None },
        }
    }

    /// Takes the next bytes of the log, cut anywhere, and returns the phases that were entered, in order.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<StartPhase> {
        let Self { lines, state } = self;
        let mut entered = Vec::new();
        lines.feed(chunk, |_, line| entered.extend(state.take(line)));
        entered
    }

    /// Takes what is left without an end of line: the log will not grow any more.
    pub fn finish(&mut self) -> Vec<StartPhase> {
        let Self { lines, state } = self;
        let mut entered = Vec::new();
        lines.finish(|_, line| entered.extend(state.take(line)));
        entered
    }

    /// The launch script handed over to vLLM, which imports for seconds without a line (0.32). Returns the phase that was
    /// entered; none where the log was faster.
    pub fn handed_over(&mut self) -> Option<StartPhase> {
        (self.state.phase == StartPhase::Launching).then(|| self.state.enter(StartPhase::Importing))
    }

    /// The phase it is in.
    pub fn phase(&self) -> StartPhase {
        self.state.phase
    }

    /// Whether the log says that the API is up. A hint: readiness is proven by asking the server.
    pub fn ready_hint(&self) -> bool {
        self.state.ready
    }

    /// The first line that certainly means that this server will never be ready.
    pub fn fatal(&self) -> Option<&Fatal> {
        self.state.fatal.as_ref()
    }

    /// The newest line worth showing to a person who waits.
    pub fn newest_line(&self) -> Option<String> {
        let shown = cut_chars(&clean_line(&self.state.newest), SHOWN_CHARS);
        (!shown.is_empty()).then_some(shown)
    }
}

impl State {
    fn take(&mut self, line: &[u8]) -> Option<StartPhase> {
        let mark = mark_of(line);
        if mark != Some(Mark::Boring) && line.iter().any(u8::is_ascii_alphanumeric) {
            self.newest.clear();
            self.newest.extend_from_slice(&line[..line.len().min(NEWEST_CAP)]);
        }
        match mark? {
            Mark::Boring => None,
            Mark::Fatal => {
                self.judge(line);
                None
            }
            Mark::Phase(phase) => {
                self.ready |= phase == StartPhase::Ready;
                (phase.stage() > self.phase.stage() || (phase.stage() == self.phase.stage() && phase != self.phase))
                    .then(|| self.enter(phase))
            }
            Mark::Banner => {
                // A second banner is a second server in the same log.
                (self.phase != StartPhase::Configuring).then(|| {
                    self.ready = false;
                    self.fatal = None;
                    self.enter(StartPhase::Configuring)
                })
            }
        }
    }

    fn enter(&mut self, phase: StartPhase) -> StartPhase {
        self.phase = phase;
        phase
    }

    fn judge(&mut self, line: &[u8]) {
        if self.fatal.is_some() || self.ready {
            return;
        }
        let stripped = strip_ansi(line);
        let row = TABLE.find(parse(&stripped)).map(|index| &TABLE.rows()[index]);
        if let Some(row) = row.filter(|row| row.fatal) {
            self.fatal = Some(Fatal { cause: row.cause, line: cut_chars(&clean_line(line), SHOWN_CHARS) });
        }
    }
}

#[cfg(test)]
mod tests;

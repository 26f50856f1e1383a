//! Reading a whole log, of any size, for the newest attempt's failure.
//!
//! One pass, bounded memory: lines that hold none of the table's literals are dropped at once; of those that match, a few
//! per row are kept. [`super::verdict`] then weighs them against how the server ended.

use std::io::{self, Read};
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::carrier::unwrap;
use super::compile;
use super::finding::Finding;
use super::line::{Level, Lines, Parsed, clean_line, parse, strip_ansi};
use super::pattern::{Rank, TABLE, any_of};
use super::verdict;
use crate::model::Ending;
use crate::words::cut_chars;

/// Diagnoses a log that is in memory. `ending` is how the server ended, if that is known.
pub fn diagnose(log: &[u8], ending: Option<Ending>) -> Finding {
    let mut scanner = Scanner::new();
    scanner.feed(log);
    scanner.finish(ending)
}

/// Diagnoses a log as it is read, in bounded memory. The only input is `reader`; it may hold any bytes.
pub fn diagnose_reader(mut reader: impl Read, ending: Option<Ending>) -> io::Result<Finding> {
    let mut scanner = Scanner::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(scanner.finish(ending)),
            Ok(read) => scanner.feed(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How many different lines are kept per row of the table.
const HITS_PER_ROW: usize = 3;

/// How many different exceptions are kept from the start of an attempt, and as many from its end.
const EXCEPTIONS: usize = 4;

/// How many of the last lines are kept for an ending that nothing explains.
const LAST_LINES: usize = 3;

/// How many characters of a message are kept: enough for every number that advice wants.
const MESSAGE_CHARS: usize = 2000;

/// How many bytes of an ordinary line are kept.
const LAST_LINE_BYTES: usize = 2048;

/// A line that a row of the table matched.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) row: usize,
    pub(super) line: u64,
    /// The line, cleaned.
    pub(super) text: String,
    /// The line without prefixes, trimmed.
    pub(super) message: String,
    /// How often it came, and where last.
    pub(super) times: u32,
    pub(super) last_line: u64,
}

impl Hit {
    pub(super) fn rank(&self) -> Rank {
        TABLE.rows()[self.row].rank
    }
}

/// A Python exception that no row knows.
#[derive(Clone, Debug)]
pub(super) struct Exception {
    pub(super) line: u64,
    pub(super) text: String,
    pub(super) message: String,
    /// How often it was printed: the engine logs the exception that ends it more than once.
    pub(super) times: u32,
    /// Where it was raised, as file, line and function, as far as a traceback told.
    pub(super) raised: Option<String>,
}

/// What the newest attempt in a log has shown so far.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// The API said that it was up.
    pub(super) ready: bool,
    /// vLLM's CPU backend wrote it.
    pub(super) on_cpu: bool,
    /// An orderly stop began after that: what follows is its noise.
    pub(super) stopping: bool,
    pub(super) hits: Vec<Hit>,
    pub(super) exceptions: Vec<Exception>,
    last: Vec<(u64, Vec<u8>)>,
    order: Order,
    /// The process whose traceback is being read: its next line that is not indented is the exception, whatever its name.
    trace: Option<Vec<u8>>,
    /// The newest frame of that traceback.
    frame: Option<String>,
    /// The rest of the file is older than this attempt: consoles show the newest line first.
    closed: bool,
}

/// Which way the lines run, as far as they show it.
#[derive(Clone, Debug, Default)]
struct Order {
    forward: u32,
    backward: u32,
    time: Vec<u8>,
    after_header: bool,
}

impl Order {
    /// Tracebacks say it surely, times only together: lines of several processes overtake each other.
    fn is_reversed(&self) -> bool {
        self.backward >= self.forward.saturating_add(2)
    }

    fn vote(&mut self, forward: bool, weight: u32) {
        let side = if forward { &mut self.forward } else { &mut self.backward };
        *side = side.saturating_add(weight);
    }

    fn time(&mut self, time: &[u8]) {
        if !self.time.is_empty() && self.time != time {
            self.vote(self.time.as_slice() < time, 1);
        }
        self.time.clear();
        self.time.extend_from_slice(time);
    }
}

/// Reads a log piece by piece. [`diagnose`] and [`diagnose_reader`] are made of it.
#[derive(Debug)]
pub struct Scanner {
    lines: Lines,
    attempt: Attempt,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

/// Literals that say where an attempt stands.
const MARKERS: [&str; 12] = [
    "API server version",
    " version ",
    "usage: ",
    "initializing oneAPI environment",
    "Application startup complete",
    "Uvicorn running on",
    "Shutting down",
    "device_config=cpu",
    "detected platform cpu",
    "[cpu_worker.py",
    "Error",
    TRACEBACK,
];

/// The first line of a traceback.
const TRACEBACK: &str = "Traceback (most recent call last)";

/// What a line must hold to be looked at.
static WORTH_A_LOOK: LazyLock<Regex> = LazyLock::new(|| {
    any_of(TABLE.rows().iter().map(|row| row.needle).chain(MARKERS).chain(["Exception", "Unsupported"]))
});

/// A new server begins: vLLM's banner (as a line, or beside its logo since 0.15), argparse's usage, or oneAPI's prelude.
static BEGINS: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"vLLM API server version \d",
        r"|\[(?:api_)?utils\.py:\d+\].*\bversion \d+\.\d+\S*\s*$",
        r"|^usage: (?:vllm|api_server)",
        r"|:: initializing oneAPI environment",
    ))
});

static READY: LazyLock<Regex> =
    LazyLock::new(|| compile(r"INFO: +(?:Application startup complete|Uvicorn running on)"));

/// What only the CPU backend says.
static ON_CPU: LazyLock<Regex> =
    LazyLock::new(|| any_of(["device_config=cpu", "detected platform cpu", "[cpu_worker.py"]));

static STOPS: LazyLock<Regex> = LazyLock::new(|| compile(r"INFO: +Shutting down"));

/// `SomeError: message` where a traceback ends: at the start of a line.
static EXCEPTION: LazyLock<Regex> = LazyLock::new(|| {
    compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Unsupported|NotFound|Timeout|Failure)(?:: |:?$)")
});

impl Scanner {
    /// A scanner that has read nothing.
    pub fn new() -> Self {
        Self { lines: Lines::new(), attempt: Attempt::default() }
    }

    /// Takes the next bytes of the log, cut anywhere.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self { lines, attempt } = self;
        lines.feed(chunk, |number, line| attempt.take(number, line));
    }

    /// The log has ended: what does it show?
    pub fn finish(mut self, ending: Option<Ending>) -> Finding {
        let Self { lines, attempt } = &mut self;
        lines.finish(|number, line| attempt.take(number, line));
        verdict::judge(attempt, ending)
    }
}

/// A frame of a traceback.
static FRAME: LazyLock<Regex> = LazyLock::new(|| compile(r#"File \\?"([^"]*)", line (\d+), in (\S+)"#));

/// What ends a traceback without a logger's level: a name, then a message or nothing.
static NAMED: LazyLock<Regex> = LazyLock::new(|| compile(r"^[A-Za-z_][\w.]*(?:: |:?\s*$)"));

impl Attempt {
    fn take(&mut self, number: u64, line: &[u8]) {
        if self.closed {
            return;
        }
        self.remember(number, line);
        let watching = self.trace.is_some() || self.order.after_header;
        if !watching && !WORTH_A_LOOK.is_match(line) && !line.contains(&0) {
            return;
        }
        for piece in unwrap(line) {
            if !self.closed {
                self.look(number, &piece);
            }
        }
    }

    fn look(&mut self, number: u64, line: &[u8]) {
        let stripped = strip_ansi(line);
        self.on_cpu |= ON_CPU.is_match(&stripped);
        let parsed = parse(&stripped);
        if parsed.level != Level::Error && self.mark(number, line, parsed) {
            return;
        }
        let ends_traceback = self.follow(parsed);
        if self.stopping {
            return;
        }
        if let Some(row) = TABLE.find(parsed) {
            self.hit(row, number, line, parsed);
        } else if ends_traceback || (parsed.level != Level::Benign && EXCEPTION.is_match(parsed.content)) {
            self.exception(number, line, parsed);
        }
    }

    /// Whether this line ends a traceback. Keeps the direction of the file on the way.
    fn follow(&mut self, line: Parsed<'_>) -> bool {
        if let Some(time) = line.time {
            self.order.time(time);
        }
        let framed = |line: &[u8]| FRAME.is_match(line);
        if std::mem::take(&mut self.order.after_header) && framed(line.content) {
            self.order.vote(true, 2);
        }
        let content = line.content.trim_ascii_end();
        if content.windows(TRACEBACK.len()).any(|part| part == TRACEBACK.as_bytes()) {
            let before = self.last.len().checked_sub(2).and_then(|at| self.last.get(at));
            let same_process = |before: &[u8]| parse(&strip_ansi(before)).process == line.process;
            if before.is_some_and(|(_, before)| framed(before) && same_process(before)) {
                self.order.vote(false, 2);
            }
            self.order.after_header = true;
            self.frame = None;
            self.trace = (line.level != Level::Benign && !self.order.is_reversed()).then(|| line.process.to_vec());
            return false;
        }
        if self.trace.as_deref() == Some(line.process)
            && let Some(found) = FRAME.captures(content)
        {
            let [path, number, function] = found.extract().1.map(String::from_utf8_lossy);
            let path = path.rsplit_once("-packages/").map_or(path.as_ref(), |(_, inner)| inner);
            self.frame = Some(cut_chars(&clean_line(format!("{path}:{number} ({function})").as_bytes()), 160));
        }
        let ends = self.trace.as_deref() == Some(line.process) && !content.is_empty() && !content.starts_with(b" ");
        if ends {
            self.trace = None;
        }
        ends && match line.level {
            Level::Error => true,
            Level::Plain => NAMED.is_match(content),
            Level::Benign => false,
        }
    }

    /// Whether the file shows its newest line first.
    pub(super) fn is_reversed(&self) -> bool {
        self.order.is_reversed()
    }

    /// The line that the attempt ends with, as far as it was read.
    pub(super) fn last_number(&self) -> u64 {
        self.last.last().map_or(0, |(number, _)| *number)
    }

    /// Takes a line that says where the attempt stands; false when it is no such line.
    fn mark(&mut self, number: u64, line: &[u8], parsed: Parsed<'_>) -> bool {
        if BEGINS.is_match(parsed.body) {
            if self.is_reversed() {
                self.closed = true;
                return true;
            }
            *self = Attempt { order: std::mem::take(&mut self.order), ..Attempt::default() };
            self.remember(number, line);
        } else if READY.is_match(parsed.content) {
            // Whatever it was, it did not keep the server from becoming ready.
            self.ready = true;
            if self.is_reversed() {
                self.hits.retain(|hit| TABLE.rows()[hit.row].cause.strikes_running_server());
                self.closed = true;
                return true;
            }
            self.hits.clear();
            self.exceptions.clear();
        } else if self.ready && STOPS.is_match(parsed.content) {
            self.stopping = true;
        } else {
            return false;
        }
        true
    }

    /// Keeps the last few lines that say anything.
    fn remember(&mut self, number: u64, line: &[u8]) {
        if !line.iter().any(u8::is_ascii_alphanumeric) {
            return;
        }
        let mut kept = if self.last.len() < LAST_LINES { Vec::new() } else { self.last.remove(0).1 };
        kept.clear();
        kept.extend_from_slice(&line[..line.len().min(LAST_LINE_BYTES)]);
        self.last.push((number, kept));
    }

    fn hit(&mut self, row: usize, number: u64, line: &[u8], parsed: Parsed<'_>) {
        if self.ready && !TABLE.rows()[row].cause.strikes_running_server() {
            return;
        }
        let message = message_of(parsed);
        let same_row = self.hits.iter_mut().filter(|known| known.row == row);
        let mut kept = 0;
        for known in same_row {
            if same(&known.message, &message) {
                known.times = known.times.saturating_add(1);
                known.last_line = number;
                return;
            }
            kept += 1;
        }
        if kept < HITS_PER_ROW {
            self.hits.push(Hit { row, line: number, text: text_of(line), message, times: 1, last_line: number });
        }
    }

    fn exception(&mut self, number: u64, line: &[u8], parsed: Parsed<'_>) {
        let message = message_of(parsed);
        if ["KeyboardInterrupt", "SystemExit", "asyncio.exceptions.CancelledError"]
            .iter()
            .any(|end| message.starts_with(end))
        {
            return;
        }
        if let Some(known) = self.exceptions.iter_mut().find(|known| same(&known.message, &message)) {
            known.times = known.times.saturating_add(1);
            return;
        }
        let raised = self.frame.take();
        if self.exceptions.len() >= 2 * EXCEPTIONS {
            self.exceptions.remove(EXCEPTIONS);
        }
        self.exceptions.push(Exception { line: number, text: text_of(line), message, times: 1, raised });
    }

    /// The last lines that say anything, oldest first.
    pub(super) fn last_lines(&self) -> impl Iterator<Item = (u64, String)> {
        self.last.iter().map(|(number, line)| (*number, clean_line(line)))
    }
}

fn text_of(line: &[u8]) -> String {
    cut_chars(&clean_line(line), MESSAGE_CHARS)
}

fn message_of(parsed: Parsed<'_>) -> String {
    cut_chars(clean_line(parsed.content).trim(), MESSAGE_CHARS)
}

/// Whether two messages are the same but for numbers: ranks, process ids, addresses of several processes that fail alike.
fn same(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = char> {
        text.chars().filter(|c| !c.is_ascii_hexdigit())
    }
    letters(one).eq(letters(other))
}

#[cfg(test)]
mod tests;

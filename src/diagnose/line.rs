//! From bytes to lines to what a line says: assembling, cleaning, and taking vLLM's prefixes off.
//!
//! A log is bytes: it may hold any encoding, colours, progress bars redrawn with `\r`, and lines without end. Memory is
//! bounded by [`LINE_CAP`] whatever comes.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::compile;

use super::carrier::uncarry;

/// The most bytes of one line that are looked at. The rest of a longer line is dropped.
pub(crate) const LINE_CAP: usize = 64 * 1024;

/// Cuts chunks of any size into lines.
///
/// `\n` ends a line and counts; `\r` ends a piece of a line (a progress bar redrawn in place), so that pieces of one line
/// share its number, as an editor shows it. Empty pieces are not reported.
#[derive(Debug)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { partial: Vec::new(), number: 1 }
    }

    /// Reports every piece that `chunk` completes, with its 1-based line number.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut sink: impl FnMut(u64, &[u8])) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (piece, tail) = rest.split_at(end);
            let ended_by_newline = tail[0] == b'\n';
            rest = &tail[1..];
            if self.partial.is_empty() {
                if !piece.is_empty() {
                    sink(self.number, &piece[..piece.len().min(LINE_CAP)]);
                }
            } else {
                self.push(piece);
                sink(self.number, &self.partial);
                self.partial.clear();
            }
            self.number += u64::from(ended_by_newline);
        }
        self.push(rest);
    }

    /// Reports what is left without an end of line.
    pub(crate) fn finish(&mut self, mut sink: impl FnMut(u64, &[u8])) {
        if !self.partial.is_empty() {
            sink(self.number, &self.partial);
            self.partial.clear();
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = LINE_CAP - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// How loud a line is, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// No level: what Python, a shell or a library printed.
    Plain,
    /// Debug, info or warning: nothing failed, whatever words it uses.
    Benign,
    /// Error or critical.
    Error,
}

/// A line without the prefixes of process and logger; indentation of the message itself is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) level: Level,
    /// The line as the server wrote it: without what carried it here, with the prefixes of process and logger.
    pub(crate) body: &'a [u8],
    /// Which process says it (`(EngineCore pid=7) `), as far as the line tells.
    pub(crate) process: &'a [u8],
    /// When it was logged (`11-22 06:13:38`), as far as the line tells.
    pub(crate) time: Option<&'a [u8]>,
    pub(crate) content: &'a [u8],
}

impl Parsed<'_> {
    /// Whether this is a line of source that a traceback quotes: it names an error without being one.
    pub(crate) fn is_quoted_source(&self) -> bool {
        let code = self.content.trim_ascii_start();
        let always: [&[u8]; 6] = [b"raise ", b"File \"", b"\"", b"f\"", b"^^", b"~~"];
        let indented: [&[u8]; 5] = [b"return ", b"assert ", b"self.", b"logger.", b"if "];
        always.iter().any(|start| code.starts_with(start))
            || (code.len() < self.content.len() && indented.iter().any(|start| code.starts_with(start)))
    }
}

/// `[rank0]:`, `(EngineCore_DP0 pid=1)` and Ray's names, then vLLM's logger in the forms of 0.6
/// (`ERROR 11-22 06:13:38 engine.py:366]`) and later (`[core.py:97]`).
static PREFIX: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"^(?P<process>(?:\[(?:rank|default)\d+\]: ?|\((?:[A-Za-z][^()]*\b)?pid=[^()]*\)(?:0m)? ?|\((?:raylet|gcs_server|autoscaler)\b[^()]*\) ?)*)",
        r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) +(?P<time>\d\d-\d\d \d\d:\d\d(?::\d\d)?(?:\.\d+)?) (?:\[[^\]\s]*\]|\S+:\d+\]) ?)?",
    ))
});

/// Lines of other loggers that say themselves that they are no errors.
static BENIGN: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"^(?:(?:DEBUG|INFO|WARNING):|\[(?:DEBUG|INFO|WARNING)\]|\[[WI]\d+ |[WI]\d{4} \d\d:\d\d:\d\d)",
        r"|\|CCL_(?:WARN|INFO|DEBUG)\|",
        r"|^\S+:\d+: \w*Warning: ",
        r"|^(?:[\w-]+:\d+:\d+ \[\d+\] )?NCCL INFO ",
    ))
});

/// Takes the prefixes off a line that [`strip_ansi`] has cleaned.
pub(crate) fn parse(line: &[u8]) -> Parsed<'_> {
    let body = uncarry(line);
    let (skip, process, level, time) = match PREFIX.captures(body) {
        Some(found) => {
            let named = |name| found.name(name).map(|part| part.as_bytes());
            (found.get(0).map_or(0, |all| all.end()), named("process"), named("level"), named("time"))
        }
        None => (0, None, None, None),
    };
    let content = &body[skip..];
    let level = match level {
        Some(b"ERROR" | b"CRITICAL") => Level::Error,
        Some(_) => Level::Benign,
        None if BENIGN.is_match(content) => Level::Benign,
        None if content.starts_with(b"ERROR:") || content.starts_with(b"CRITICAL:") => Level::Error,
        None => Level::Plain,
    };
    Parsed { level, body, process: process.unwrap_or_default(), time, content }
}

/// Removes terminal sequences (colours, titles), also those whose escape byte got lost (`[0;36m`) or was written out
/// (`\u001b[0;36m` in JSON, `#033[36m` in syslog, `^[[36m`) on the way.
pub(crate) fn strip_ansi(line: &[u8]) -> Cow<'_, [u8]> {
    static SEQUENCE: LazyLock<Regex> = LazyLock::new(|| {
        compile(concat!(
            r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^\[\]]?",
            r"|(?:\\u001[bB]|\\x1[bB]|\\033|\\e|#033|\^\[)\[[\d;]*m|\[\d+;\d+m",
        ))
    });
    if !line.contains(&0x1b) && !line.windows(2).any(|two| two[1] == b'[' && two[0] != b' ' || two == b"[0") {
        return Cow::Borrowed(line);
    }
    SEQUENCE.replace_all(line, &b""[..])
}

/// One line as a person reads it: no terminal sequences, no control characters, valid UTF-8.
pub fn clean_line(line: &[u8]) -> String {
    let stripped = strip_ansi(line);
    let text = String::from_utf8_lossy(&stripped);
    let cleaned: String =
        text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control() && !is_format(*c)).collect();
    cleaned.trim_end().to_owned()
}

/// Marks that change how the text around them is shown: direction overrides, zero-width joiners, byte order marks.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The last `n` lines of a log, cleaned, oldest first; what a progress bar drew over is left out.
pub fn tail_lines(log: &[u8], n: usize) -> Vec<String> {
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    if body.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = body
        .rsplit(|byte| *byte == b'\n')
        .take(n)
        .map(|line| {
            let shown = line.rsplit(|byte| *byte == b'\r').find(|piece| !piece.is_empty()).unwrap_or_default();
            clean_line(&shown[..shown.len().min(LINE_CAP)])
        })
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<(u64, String)> {
        let mut lines = Lines::new();
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |number, piece| seen.push((number, clean_line(piece))));
        }
        lines.finish(|number, piece| seen.push((number, clean_line(piece))));
        seen
    }

    #[test]
    fn newlines_count_and_carriage_returns_do_not() {
        let expected =
            [(1, "a"), (2, "10%"), (2, "90%"), (2, "done"), (4, "z")].map(|(number, text)| (number, text.to_owned()));
        assert_eq!(pieces(&[b"a\n10%\r90%\rdone\r\n\nz"]), expected);
        assert_eq!(pieces(&[b"a\n1", b"0%\r9", b"0%\rdone\r", b"\n", b"\nz"]), expected);
    }

    #[test]
    fn a_line_without_end_is_cut_and_memory_stays_bounded() {
        let mut lines = Lines::new();
        for _ in 0..10 {
            lines.feed(&[b'x'; 40_000], |_, _| panic!("no line has ended"));
        }
        assert!(lines.partial.capacity() <= 2 * LINE_CAP);
        let mut seen = Vec::new();
        lines.feed(b"\nnext\n", |number, piece| seen.push((number, piece.len())));
        assert_eq!(seen, [(1, LINE_CAP), (2, 4)]);
    }

    #[test]
    fn prefixes_of_every_generation_come_off() {
        let cases: [(&str, Level, &str); 14] = [
            ("ERROR 11-22 06:13:38 [core.py:97] ValueError: x", Level::Error, "ValueError: x"),
            ("(EngineCore_DP0 pid=64528) ERROR 11-18 13:44:09 [core.py:842]   File", Level::Error, "  File"),
            ("RROR", Level::Plain, "RROR"),
            ("ERROR 12-18 19:47:34 engine.py:366] ValueError: x", Level::Error, "ValueError: x"),
            ("(VllmWorker rank=1 pid=2445156) Traceback", Level::Plain, "Traceback"),
            (
                "(RayWorkerWrapper pid=410, ip=172.24.0.105) ERROR 01-14 03:08:55 worker_base.py:467] x",
                Level::Error,
                "x",
            ),
            ("vllm-1  | INFO 11-18 18:07:17 api_server.py:175] x", Level::Benign, "x"),
            (
                "2026-06-05T03:00:47.94Z (EngineCore_DP0 pid=528) ERROR 06-05 03:00:47 [core.py:936] x",
                Level::Error,
                "x",
            ),
            ("[rank0]: RuntimeError: x", Level::Plain, "RuntimeError: x"),
            (
                "(APIServer pid=3070) INFO:     Application startup complete.",
                Level::Benign,
                "INFO:     Application startup complete.",
            ),
            ("ERROR:    [Errno 98] x", Level::Error, "ERROR:    [Errno 98] x"),
            ("CRITICAL 05-12 13:46:00 [core_client.py:359] x", Level::Error, "x"),
            (
                "[W1122 06:13:39.574911999 utils.cpp:103] Warning: x",
                Level::Benign,
                "[W1122 06:13:39.574911999 utils.cpp:103] Warning: x",
            ),
            (
                "/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: x",
                Level::Benign,
                "/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: x",
            ),
        ];
        for (line, level, content) in cases {
            let parsed = parse(line.as_bytes());
            assert_eq!((parsed.level, String::from_utf8_lossy(parsed.content).as_ref()), (level, content), "{line}");
        }
    }

    #[test]
    fn cleaning_leaves_only_what_can_be_read() {
        assert_eq!(
            clean_line(b"\x1b[0;36m(APIServer pid=1)\x1b[0;0m a\tb\x07\xff \x1b]0;title\x07\r"),
            "(APIServer pid=1) a b\u{fffd}"
        );
        assert_eq!(clean_line(b"[0;36m(APIServer pid=1)[0;0m x"), "(APIServer pid=1) x");
        assert_eq!(clean_line(b"\x1b"), "");
        assert_eq!(clean_line("\u{202e}live\u{200b}".as_bytes()), "live");
    }

    #[test]
    fn the_tail_shows_what_a_terminal_would_show() {
        let log = b"one\n 1%\r50%\r100%\r\nthree\n";
        assert_eq!(tail_lines(log, 2), ["100%", "three"]);
        assert_eq!(tail_lines(log, 9), ["one", "100%", "three"]);
        assert_eq!(tail_lines(b"", 3), Vec::<String>::new());
        assert_eq!(tail_lines(b"a\n\n", 3), ["a", ""]);
    }
}

//! Why did this server not come up, or not stay up? What a log of vLLM shows, and how far a start has come.
//!
//! Three questions, each with one entry:
//!
//! - [`diagnose`] and [`diagnose_reader`]: the root cause in a whole log, with the lines that show it and what to do;
//! - [`PhaseTracker`]: live, while a server starts: its phase, its newest line, whether it is lost already;
//! - [`Cause`]: the closed set of words for every way an experiment can fail, the benchmark's included.
//!
//! The knowledge is one table ([`rows`]) of patterns with the real lines that they were made from: XPU, CUDA, ROCm and CPU
//! builds, vLLM 0.6 to current. What a line means, its rank between root cause and consequence, and its advice stand in the
//! row; numbers in the line make the advice exact. What no row knows is judged by the shape of its exception ([`shape`]), and what
//! carried a log from the server to a file is taken off first ([`carrier`]).
//!
//! This module opens no file and starts nothing: its only input is the bytes or the reader that it is given, which may be
//! gigabytes, not UTF-8, or one endless line. It has no clock and knows nothing of sweeps.

mod advice;
mod carrier;
mod finding;
mod line;
mod pattern;
mod phase;
mod progress;
mod scan;
mod shape;
mod verdict;

pub use finding::{Finding, MAX_EVIDENCE, MAX_EVIDENCE_CHARS, render_text};
pub use line::{clean_line, tail_lines};
pub use pattern::{Rank, Row, rows};
pub use phase::{Fatal, PhaseTracker};
pub use progress::requests_done;
pub use scan::{Scanner, diagnose, diagnose_reader};

/// Compiles a pattern over bytes, where classes are ASCII and `.` is any byte but `\n`. Patterns are constants of this
/// module, all compiled by tests.
fn compile(pattern: &str) -> regex::bytes::Regex {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a constant pattern compiles")
}

#[cfg(test)]
mod fixtures_test;
#[cfg(test)]
mod issues_test;

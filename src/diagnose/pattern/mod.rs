//! The one table of lines that show a failure: pattern, cause, rank, advice, and a real line for each.
//!
//! Rows are matched on the message of a line (prefixes taken off, see [`super::line`]), never on benign levels unless the
//! row says so. Of several rows on one line the lowest rank wins, then the earlier row. The examples are lines that vLLM and
//! what lies beneath it really print; `source` says where each was met. A test holds every row to its examples.

mod build;
mod device;
mod platform;
mod process;
mod setup;

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet, RegexSetBuilder};

use super::line::{Level, Parsed};
use crate::model::Cause;

/// How near to the root of a failure a line stands. The nearest line of a log names the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Says exactly what is wrong.
    Root,
    /// Says what is wrong, unless something more exact does: retries and wrappers print it too.
    Likely,
    /// A device, driver or collective failed; why, it does not say.
    Device,
    /// A process died or a check failed; why, it does not say.
    Process,
    /// Follows from a failure elsewhere.
    Consequence,
    /// Counts only when nothing else explains a server that did not become ready.
    Hint,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What the line shows.
    pub cause: Cause,
    /// How near to the root it stands.
    pub rank: Rank,
    /// Bytes that every matching line holds: the fast filter before the pattern.
    pub needle: &'static str,
    /// Pattern over the bytes of the message; classes are ASCII.
    pub pattern: &'static str,
    /// Sentences for the reader; empty = those of the cause.
    pub advice: &'static [&'static str],
    /// Whether this line certainly means that the server will never be ready.
    pub fatal: bool,
    /// Whether the line counts even at the levels debug, info and warning.
    pub any_level: bool,
    /// Whether the line passes on what failed elsewhere, in whatever form: no other row may claim it.
    pub wraps: bool,
    /// Real lines, without prefixes.
    pub examples: &'static [&'static str],
    /// Backend, release and public issue that the line comes from.
    pub source: &'static str,
}

impl Row {
    const fn new(cause: Cause, needle: &'static str, pattern: &'static str) -> Self {
        Self {
            cause,
            rank: Rank::Root,
            needle,
            pattern,
            advice: &[],
            fatal: false,
            any_level: false,
            wraps: false,
            examples: &[],
            source: "",
        }
    }

    const fn rank(mut self, rank: Rank) -> Self {
        self.rank = rank;
        self
    }

    const fn advice(mut self, advice: &'static [&'static str]) -> Self {
        self.advice = advice;
        self
    }

    const fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    const fn any_level(mut self) -> Self {
        self.any_level = true;
        self
    }

    const fn wraps(mut self) -> Self {
        self.rank = Rank::Consequence;
        self.wraps = true;
        self
    }

    const fn seen(mut self, source: &'static str, examples: &'static [&'static str]) -> Self {
        self.source = source;
        self.examples = examples;
        self
    }
}

/// The table with its patterns compiled together.
pub(crate) struct Table {
    rows: Vec<Row>,
    set: RegexSet,
}

impl Table {
    /// Every row, in the order of the table.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row that a line shows, if any.
    pub(crate) fn find(&self, line: Parsed<'_>) -> Option<usize> {
        self.set
            .matches(line.content)
            .iter()
            .filter(|&index| self.rows[index].any_level || line.level != Level::Benign)
            .min_by_key(|&index| (!self.rows[index].wraps, self.rows[index].rank, index))
            .filter(|_| !line.is_quoted_source())
    }
}

/// The table, compiled once.
pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let rows: Vec<Row> = [device::ROWS, setup::ROWS, build::ROWS, platform::ROWS, process::ROWS].concat();
    let set = RegexSetBuilder::new(rows.iter().map(|row| row.pattern))
        .unicode(false)
        .size_limit(64 << 20)
        .dfa_size_limit(16 << 20)
        .build()
        .expect("the table's patterns compile");
    Table { rows, set }
});

/// One pattern that finds any of `needles`.
pub(crate) fn any_of<'a>(needles: impl IntoIterator<Item = &'a str>) -> Regex {
    let mut needles: Vec<&str> = needles.into_iter().collect();
    needles.sort_unstable();
    needles.dedup();
    let alternatives: Vec<String> = needles.into_iter().map(regex::escape).collect();
    Regex::new(&alternatives.join("|")).expect("literals compile")
}

/// Every row of the table, for documents and tests.
pub fn rows() -> &'static [Row] {
    TABLE.rows()
}

#[cfg(test)]
mod tests;

//! What has no metrics and why, and what is suspect.

use indexmap::IndexMap;
use serde::Serialize;

use super::super::display::{clean, configuration, cut, quantity};
use super::super::text::status;
use super::table::told;
use crate::analyse::{FailedAttempt, Row, RunTable, Status};
use crate::model::Unit;

/// Reasons and log lines: so many characters.
const REASON: usize = 600;
/// So many failures of a cause stand open.
const OPEN: usize = 5;
/// Names of models inside a line.
const MODEL: usize = 80;

/// Failures of one cause with the same advice.
#[derive(Serialize)]
pub(super) struct Group {
    cause: String,
    advice: Vec<String>,
    count: usize,
    parts: Vec<Part>,
}

/// Some failures of a group: the first ones stand open, the others are folded.
#[derive(Serialize)]
struct Part {
    folded: bool,
    rows: Vec<Failed>,
}

/// One failure.
#[derive(Serialize)]
struct Failed {
    /// Index of its row.
    row: usize,
    name: String,
    facts: String,
    summary: String,
    /// Numbers and texts of the log's lines that show it, the best first.
    evidence: Vec<(u64, String)>,
    log: Option<String>,
    /// The folder of what was kept before it was ended.
    kept: Option<String>,
}

/// A name, and what is to be said of it.
#[derive(Serialize)]
pub(super) struct Said {
    name: String,
    said: Vec<String>,
}

/// Everything that went wrong, or was not done.
#[derive(Serialize)]
pub(super) struct Problems {
    failures: Vec<Group>,
    failed: usize,
    open: Vec<Said>,
    never: usize,
    skips: Vec<Said>,
    skipped: usize,
    warnings: Vec<Said>,
    unreadable: Vec<Said>,
}

fn experiment(row: &Row) -> String {
    format!("{}, {}", cut(&row.axes.model, MODEL), configuration(row))
}

impl Problems {
    /// Of a table.
    pub fn of(table: &RunTable) -> Self {
        let failures = failures(table);
        let open = table.rows.iter().filter(|row| matches!(row.status, Status::Interrupted | Status::Running));
        let suspect = table.rows.iter().filter(|row| told(row).next().is_some());
        let skips = skips(table);
        Self {
            failed: failures.iter().map(|group| group.count).sum(),
            failures,
            open: open.map(|row| Said { name: experiment(row), said: vec![status(row)] }).collect(),
            never: table.rows.iter().filter(|row| row.status == Status::NotRun).count(),
            skipped: skips.iter().map(|rule| rule.said.len()).sum(),
            skips,
            warnings: suspect.map(warnings_from).collect(),
            unreadable: table
                .unreadable
                .iter()
                .map(|file| Said { name: cut(&file.file, 200), said: vec![cut(&file.reason, REASON)] })
                .collect(),
        }
    }
}

fn failures(table: &RunTable) -> Vec<Group> {
    let mut groups: IndexMap<(String, &[String]), Vec<Failed>> = IndexMap::new();
    for (index, row) in table.rows.iter().enumerate() {
        match &row.status {
            Status::Failed(failed) => {
                let cause = failed.cause.map_or("cause not recorded".to_owned(), |cause| cause.to_string());
                groups.entry((cause, &failed.advice)).or_default().push(attempt(index, row, failed));
            }
            Status::Invalid(reason) => {
                let failed = plain(index, row, reason);
                groups.entry(("the result does not count".to_owned(), &[])).or_default().push(failed);
            }
            Status::Valid | Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => {}
        }
    }
    let group = |((cause, advice), mut rows): ((String, &[String]), Vec<Failed>)| {
        let count = rows.len();
        // One or two folded ones would take as much room as they save.
        let rest = if count > OPEN + 2 { rows.split_off(OPEN) } else { Vec::new() };
        let parts = [Part { folded: false, rows }, Part { folded: true, rows: rest }];
        let advice = advice.iter().map(|advice| cut(advice, REASON)).collect();
        Group { cause, advice, count, parts: parts.into_iter().filter(|part| !part.rows.is_empty()).collect() }
    };
    groups.into_iter().map(group).collect()
}

fn plain(index: usize, row: &Row, summary: &str) -> Failed {
    let mut facts = Vec::new();
    facts.extend(row.timings.as_ref().map(|timings| format!("after {}", quantity(timings.total, Unit::Seconds))));
    facts.extend(row.attempt.filter(|&attempt| attempt > 1).map(|attempt| format!("attempt {attempt}")));
    Failed {
        row: index,
        name: experiment(row),
        facts: facts.join(", "),
        summary: cut(summary, REASON),
        evidence: Vec::new(),
        log: None,
        kept: None,
    }
}

fn attempt(index: usize, row: &Row, failed: &FailedAttempt) -> Failed {
    let plain = plain(index, row, &failed.summary);
    let phase = failed.phase.map(|phase| format!("while {phase}"));
    let facts = [phase, Some(plain.facts.clone()).filter(|facts| !facts.is_empty())];
    Failed {
        facts: facts.into_iter().flatten().collect::<Vec<String>>().join(", "),
        evidence: failed.evidence.iter().map(|evidence| (evidence.line, cut(&evidence.text, REASON))).collect(),
        log: failed.log.as_ref().map(|log| clean(&log.display().to_string())),
        kept: failed.kept.as_ref().map(|folder| clean(&folder.display().to_string())),
        ..plain
    }
}

/// By rule: what stands behind it once, then each combination's reason.
fn skips(table: &RunTable) -> Vec<Said> {
    let mut rules: IndexMap<String, Vec<String>> = IndexMap::new();
    for row in &table.rows {
        if let Status::Skipped { rule, explanation, reason } = &row.status {
            let heading = clean(explanation.as_deref().unwrap_or(rule));
            rules.entry(heading).or_default().push(cut(reason, REASON));
        }
    }
    rules.into_iter().map(|(name, said)| Said { name, said }).collect()
}

fn warnings_from(row: &Row) -> Said {
    let said = told(row).map(|warning| {
        let excluded = if warning.kind.excludes() { " (excluded from the ranking)" } else { "" };
        format!("{}{excluded}", cut(&warning.text, REASON))
    });
    Said { name: cut(&row.name, 160), said: said.collect() }
}

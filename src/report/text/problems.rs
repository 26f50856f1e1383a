//! What has no metrics, why, and what to do next.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::super::answer;
use super::super::display::{configuration, counted, cut, quantity};
use super::super::export::Analysis;
use super::super::page::{Page, Tone};
use super::metrics::status;
use crate::analyse::{Counts, FailedAttempt, Origin, Row, RunTable, Status};
use crate::model::{Cause, Unit};
use crate::record::layout::{self, Layout};

/// Names of models inside a line.
const MODEL: usize = 44;
/// Evidence and reasons: about three lines.
const REASON: usize = 280;

/// A row and why it failed.
type Failed<'a> = (&'a Row, &'a FailedAttempt);

/// Failures by cause: what to do stands once, each experiment with the line that shows it.
pub(super) fn failures(page: &mut Page, table: &RunTable) {
    let mut groups: IndexMap<(Option<Cause>, &[String]), Vec<Failed<'_>>> = IndexMap::new();
    let mut invalid: Vec<(&Row, &str)> = Vec::new();
    for row in &table.rows {
        match &row.status {
            Status::Failed(failed) => {
                groups.entry((failed.cause, &failed.advice)).or_default().push((row, failed.as_ref()));
            }
            Status::Invalid(reason) => invalid.push((row, reason)),
            Status::Valid | Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => {}
        }
    }
    let count = groups.values().map(Vec::len).sum::<usize>() + invalid.len();
    if count == 0 {
        return;
    }
    page.heading(&format!("Failures ({count})"));
    for ((cause, advice), failed) in groups {
        page.gap();
        let cause = cause.map_or("cause not recorded".to_owned(), |cause| cause.to_string());
        page.paragraph(2, "", Tone::Bad, &format!("{cause} ({})", counted(failed.len(), "experiment")));
        for (row, failed) in failed {
            failure(page, row, failed);
        }
        for advice in advice {
            page.field(4, "do", 5, Tone::Plain, &cut(advice, REASON));
        }
    }
    if !invalid.is_empty() {
        page.gap();
        page.paragraph(2, "", Tone::Bad, &format!("result does not count ({})", counted(invalid.len(), "experiment")));
        for (row, reason) in invalid {
            page.paragraph(4, "- ", Tone::Plain, &experiment(row));
            page.field(6, "why", 3, Tone::Plain, &cut(reason, REASON));
        }
    }
}

fn experiment(row: &Row) -> String {
    format!("{}, {}", cut(&row.axes.model, MODEL), configuration(row))
}

fn failure(page: &mut Page, row: &Row, failed: &FailedAttempt) {
    let mut facts = Vec::new();
    facts.extend(failed.phase.map(|phase| format!("while {phase}")));
    facts.extend(row.timings.as_ref().map(|timings| format!("after {}", quantity(timings.total, Unit::Seconds))));
    facts.extend(row.attempt.filter(|&attempt| attempt > 1).map(|attempt| format!("attempt {attempt}")));
    let facts = if facts.is_empty() { String::new() } else { format!(": {}", facts.join(", ")) };
    page.paragraph(4, "- ", Tone::Plain, &format!("{}{facts}", experiment(row)));
    let mut field = |label: &str, value: &str| page.field(6, label, 3, Tone::Plain, &cut(value, REASON));
    field("why", &failed.summary);
    if let Some(evidence) = failed.evidence.first() {
        field("log", &format!("line {}: {}", evidence.line, evidence.text));
    }
    if let Some(log) = &failed.log {
        field("in", &log.display().to_string());
    }
    if let Some(kept) = &failed.kept {
        field("kept", &kept.display().to_string());
    }
}

/// What was never begun, or not taken to its end.
pub(super) fn not_measured(page: &mut Page, table: &RunTable) {
    let open: Vec<&Row> = table
        .rows
        .iter()
        .filter(|row| matches!(row.status, Status::Interrupted | Status::Running | Status::NotRun))
        .collect();
    if open.is_empty() {
        return;
    }
    page.heading(&format!("Not measured ({})", open.len()));
    let (begun, never): (Vec<&Row>, Vec<&Row>) = open.into_iter().partition(|row| row.status != Status::NotRun);
    for row in begun {
        page.paragraph(2, "- ", Tone::Plain, &format!("{}: {}", experiment(row), status(row)));
    }
    // The tables above name them; a list of hundreds would only bury what matters.
    if !never.is_empty() {
        let text = format!("{} never begun: `not run` in the tables above", counted(never.len(), "experiment"));
        page.paragraph(2, "- ", Tone::Plain, &text);
    }
}

/// Combinations that a rule left out: what stands behind a rule once, then each with its reason.
pub(super) fn skips(page: &mut Page, table: &RunTable) {
    let mut rules: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in &table.rows {
        if let Status::Skipped { rule, explanation, reason } = &row.status {
            let heading = explanation.as_deref().unwrap_or(rule);
            match rules.iter_mut().find(|(known, _)| *known == heading) {
                Some((_, reasons)) => reasons.push(reason),
                None => rules.push((heading, vec![reason])),
            }
        }
    }
    if rules.is_empty() {
        return;
    }
    let count: usize = rules.iter().map(|(_, reasons)| reasons.len()).sum();
    page.heading(&format!("Skipped by a rule ({count})"));
    for (explanation, reasons) in rules {
        page.gap();
        page.paragraph(2, "", Tone::Plain, &format!("{explanation}."));
        for reason in reasons {
            page.paragraph(4, "- ", Tone::Plain, &cut(reason, REASON));
        }
    }
}

/// Files that were passed over.
pub(super) fn unreadable(page: &mut Page, table: &RunTable) {
    if table.unreadable.is_empty() {
        return;
    }
    page.heading(&format!("Files that do not count ({})", table.unreadable.len()));
    for file in &table.unreadable {
        page.paragraph(2, "- ", Tone::Plain, &cut(&file.file, WIDEST_FILE));
        page.paragraph(4, "", Tone::Plain, &cut(&file.reason, REASON));
    }
}

/// So many answers have a step of their own.
const SERVED: usize = 4;
/// File names: about two lines.
const WIDEST_FILE: usize = 190;

/// What to do next.
pub(super) fn next(page: &mut Page, analysis: &Analysis<'_>, counts: &Counts, rows: &[&Row]) {
    let table = analysis.table;
    page.heading("What to do next");
    let own = matches!(table.facts.origin, Origin::VllmBench { .. });
    let mut step = |text: String| page.paragraph(2, "- ", Tone::Plain, &text);
    let open = counts.without_result();
    if table.facts.live {
        step("Follow the run with `vllm-bench status --watch`; analyse it again when it is over.".into());
    } else if own && open > 0 {
        step(format!("Run what is missing ({}) with the same command and `--resume`.", counted(open, "experiment")));
    } else if open > 0 {
        let missing = counted(open, "experiment");
        step(format!("Measure what has no valid result ({missing}) with `vllm-bench run`; old logs are in `logs/`."));
    }
    for group in analysis.answers().iter().take(SERVED) {
        let Ok(found) = &group.choice else { continue };
        let scripts = || Layout::new(PathBuf::new());
        if let Some(choice) = found.chosen().filter(|_| own && analysis.table.more.is_empty()) {
            let script = scripts().server_script(&choice.row.server_name);
            let script = cut(&script.display().to_string(), 230);
            let which = match found.basis.is_established() || found.options.len() == 1 {
                true => "the recommended configuration",
                false => "the configuration with the best mean (not established as the best)",
            };
            step(format!("Serve {} with {which}: `{script}`.", cut(&group.title(), 80)));
        }
    }
    let mut next: indexmap::IndexMap<String, Vec<String>> = indexmap::IndexMap::new();
    for group in analysis.answers() {
        if let Some(text) = group.choice.as_ref().ok().and_then(answer::next) {
            next.entry(text).or_default().push(cut(&group.title(), 80));
        }
    }
    for (text, of) in next.into_iter().take(SERVED) {
        // What holds for every answer needs no name.
        let of = if of.len() < analysis.answers().len() { format!("{}: ", of.join("; ")) } else { String::new() };
        step(format!("{of}{text}"));
    }
    if table.is_all_simulated() {
        step("Measure for real: the same command without `--engine sim`.".into());
    }
    if rows.is_empty() && open == 0 {
        step("Plan a sweep with `vllm-bench run --dry-run`, then measure it with `vllm-bench run`.".into());
    }
    step(format!(
        "Every metric (p99, ITL, seconds): `{}`; vLLM's own: `{}`.",
        layout::SUMMARY_CSV,
        layout::RAW_RESULTS
    ));
}

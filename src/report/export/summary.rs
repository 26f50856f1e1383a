//! `summary.txt`: a run on one page.

use std::io::Write;

use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{Counts, Row, RunTable, Status};
use crate::model::Unit;
use crate::record::layout;
use crate::report::display::{clean, counted, cut, duration, quantity};
use crate::report::page::{Page, Style, Tone};
use crate::report::text::{banner, load_fields, status};

const LABEL: usize = 14;

/// The summary of a run.
pub struct Summary;

impl Exporter<Analysis<'_>> for Summary {
    fn format(&self) -> Format {
        Format::one("summary", "A run on one page", "txt")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(analysis.table).as_bytes())?)
    }
}

/// Renders the summary. The same table gives the same text.
fn render(table: &RunTable) -> String {
    let mut page = Page::new(Style::PLAIN);
    let counts = Counts::of(&table.rows);
    page.title("vllm-bench · summary", &cut(&table.facts.title(), 60));
    if let Some(banner) = banner(table) {
        page.paragraph(1, "!! ", Tone::Warning, &banner);
    }
    page.gap();
    head(&mut page, table, &counts);
    page.heading("Load");
    load_fields(&mut page, table);
    passed(&mut page, &table.rows);
    failed(&mut page, &table.rows);
    left(&mut page, &table.rows);
    page.heading("Files");
    let files = [
        ("analysis", layout::ANALYSIS),
        ("table", layout::SUMMARY_CSV),
        ("all results", layout::RAW_RESULTS),
        ("logs", "logs/"),
        ("scripts", "scripts/"),
        ("events", layout::JOURNAL),
    ];
    for (label, file) in files {
        page.field(2, label, LABEL, Tone::Plain, file);
    }
    page.finish()
}

fn head(page: &mut Page, table: &RunTable, counts: &Counts) {
    let facts = &table.facts;
    let mut field = |label: &str, value: String| page.field(1, label, LABEL, Tone::Plain, &value);
    field("Created", facts.created.clone().unwrap_or_else(|| "unknown".into()));
    let sessions = if facts.sessions > 1 { format!(" in {} sessions", facts.sessions) } else { String::new() };
    field("Duration", facts.duration.map_or("unknown".into(), |seconds| duration(seconds) + &sessions));
    field("Planned", counts.planned.to_string());
    field("Passed", counts.passed.to_string());
    field("Failed", counts.failed.to_string());
    for (label, count) in
        [("Interrupted", counts.interrupted), ("Running", counts.running), ("Not run", counts.not_run)]
    {
        if count > 0 {
            field(label, count.to_string());
        }
    }
    field("Skipped", counts.skipped.to_string());
    let rate = counts.success_rate().map_or("n/a".into(), |rate| {
        format!("{:.1} % ({} of {} planned)", rate * 100.0, counts.passed, counts.planned)
    });
    field("Success rate", rate);
}

fn seconds(row: &Row) -> String {
    row.timings.as_ref().map_or("n/a".into(), |timings| quantity(timings.total, Unit::Seconds))
}

fn passed(page: &mut Page, rows: &[Row]) {
    let passed: Vec<&Row> = rows.iter().filter(|row| row.is_valid()).collect();
    if passed.is_empty() {
        return;
    }
    page.heading(&format!("Passed ({})", passed.len()));
    for row in passed {
        let simulated = if row.simulated { "  (simulated)" } else { "" };
        page.line(Tone::Plain, &format!("  {:>12}  {}{simulated}", seconds(row), clean(&row.name)));
        for warning in row.warnings() {
            page.paragraph(16, "warning: ", Tone::Warning, &warning.text);
        }
    }
}

fn failed(page: &mut Page, rows: &[Row]) {
    let mut failed = rows
        .iter()
        .filter_map(|row| match &row.status {
            Status::Failed(failed) => Some((
                row,
                match failed.cause {
                    Some(cause) => format!("{cause}: {}", failed.summary),
                    None => failed.summary.clone(),
                },
            )),
            Status::Invalid(reason) => Some((row, format!("invalid result: {reason}"))),
            Status::Valid | Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => None,
        })
        .peekable();
    if failed.peek().is_none() {
        return;
    }
    let failed: Vec<_> = failed.collect();
    page.heading(&format!("Failed ({})", failed.len()));
    for (row, reason) in failed {
        page.line(Tone::Bad, &format!("  {:>12}  {}", seconds(row), clean(&row.name)));
        page.paragraph(16, "", Tone::Plain, &reason);
    }
}

/// What was left out, and what is still to do.
fn left(page: &mut Page, rows: &[Row]) {
    let skipped: Vec<&str> = rows
        .iter()
        .filter_map(|row| match &row.status {
            Status::Skipped { reason, .. } => Some(reason.as_str()),
            Status::Valid
            | Status::Invalid(_)
            | Status::Failed(_)
            | Status::Interrupted
            | Status::Running
            | Status::NotRun => None,
        })
        .collect();
    if !skipped.is_empty() {
        page.heading(&format!("Skipped ({})", skipped.len()));
        for reason in skipped {
            page.paragraph(2, "- ", Tone::Plain, reason);
        }
    }
    let open: Vec<&Row> = rows
        .iter()
        .filter(|row| matches!(row.status, Status::Interrupted | Status::Running | Status::NotRun))
        .collect();
    if !open.is_empty() {
        page.heading(&format!("Without an outcome: {}", counted(open.len(), "experiment")));
        for row in open {
            page.line(Tone::Plain, &format!("  {:>12}  {}", status(row), clean(&row.name)));
        }
    }
}

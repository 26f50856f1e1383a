//! The figures: statistics, tables by model, and what is best.

use super::super::columns::{self, Column};
use super::super::display::{ABSENT, configuration, counted, cut, eager, figure, quantity, quantization, tp};
use super::super::page::{Page, Tone};
use crate::analyse::{Best, Metric, RANKED, Row, RunTable, Status, best_by_model, best_overall as rank, overall};

/// Names of models in headings.
const MODEL: usize = 90;
/// The status column, so that a line stays below 120 columns.
const STATUS: usize = 36;
/// As many rows as tie are named.
const TIES: usize = 8;

fn caption(text: &str, table: &RunTable) -> String {
    if table.simulated { format!("{text} (SIMULATED)") } else { text.to_owned() }
}

/// Overall statistics over the rows that compare.
pub(super) fn statistics(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let title = format!("Overall statistics over {}", counted(rows.len(), "valid result"));
    page.heading(&caption(&title, table));
    if rows.is_empty() {
        page.paragraph(2, "", Tone::Plain, "There is no valid result yet.");
        return;
    }
    let columns = [
        Column::text("Metric"),
        Column::figures("Min"),
        Column::figures("Mean"),
        Column::figures("Median"),
        Column::figures("Max"),
        Column::text("Unit"),
    ];
    let lines = overall(rows).into_iter().map(|(metric, stats)| {
        let unit = metric.unit();
        let cells = stats.map_or([ABSENT; 4].map(str::to_owned), |stats| {
            [stats.min, stats.mean, stats.median, stats.max].map(|value| figure(value, unit))
        });
        let line = [metric.label().to_owned()].into_iter().chain(cells).chain([unit.symbol().to_owned()]);
        (Tone::Plain, line.collect())
    });
    columns::put(page, &columns, lines.collect());
    let left_out = table.rows.iter().filter(|row| row.is_valid()).count() - rows.len();
    if left_out > 0 {
        page.gap();
        let text = format!("{} left out of the statistics and rankings.", counted(left_out, "simulated row"));
        page.paragraph(2, "! ", Tone::Warning, &text);
    }
}

/// One table per model.
pub(super) fn by_model(page: &mut Page, table: &RunTable) {
    page.heading(&caption("Results by model", table));
    let groups = table.by_model();
    if groups.is_empty() {
        page.paragraph(2, "", Tone::Plain, "No experiment was planned.");
    }
    for (model, rows) in groups {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", cut(model, MODEL)));
        page.gap();
        let columns = [
            Column::figures("TP"),
            Column::text("Quant"),
            Column::text("Eager"),
            Column::figures("Req/s"),
            Column::figures("Out tok/s"),
            Column::figures("TTFT ms"),
            Column::figures("TPOT ms"),
            Column::text("Status"),
        ];
        columns::put(page, &columns, rows.into_iter().map(line).collect());
    }
}

fn line(row: &Row) -> (Tone, Vec<String>) {
    let mut cells = vec![tp(&row.axes), quantization(&row.axes), eager(&row.axes)];
    let shown = |metric: Metric| row.metrics.get(metric).map(|value| figure(value, metric.unit()));
    cells.extend(RANKED.map(|metric| shown(metric).unwrap_or_else(|| ABSENT.to_owned())));
    cells.push(cut(&status(row), STATUS));
    let tone = match row.status {
        Status::Valid => Tone::Plain,
        Status::Invalid(_) | Status::Failed(_) => Tone::Bad,
        Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => Tone::Faint,
    };
    (tone, cells)
}

/// The status of a row in a few words.
pub(in crate::report) fn status(row: &Row) -> String {
    match &row.status {
        Status::Valid if row.simulated => "ok (simulated)".into(),
        Status::Valid => "ok".into(),
        Status::Invalid(_) => "invalid result".into(),
        Status::Failed(failed) => failed.cause.map_or("failed".into(), |cause| format!("failed: {cause}")),
        Status::Skipped { .. } => "skipped".into(),
        Status::Interrupted => "interrupted".into(),
        Status::Running => "running".into(),
        Status::NotRun => "not run".into(),
    }
}

/// The best of each model.
pub(super) fn best_per_model(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let models = best_by_model(rows);
    if models.is_empty() {
        return;
    }
    page.heading(&caption("Best per model", table));
    for (model, bests) in models {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", cut(model, MODEL)));
        page.gap();
        put_bests(page, &bests, |row| configuration(&row.axes));
    }
}

/// The best of all.
pub(super) fn best_overall(page: &mut Page, table: &RunTable, rows: &[&Row]) {
    let bests = rank(rows);
    if bests.is_empty() {
        return;
    }
    page.heading(&caption("Best overall", table));
    put_bests(page, &bests, |row| format!("{}  {}", cut(&row.axes.model, 44), configuration(&row.axes)));
}

fn put_bests(page: &mut Page, bests: &[Best<'_>], name: impl Fn(&Row) -> String) {
    let columns = [Column::text("Best by"), Column::figures("Value"), Column::text("Configuration")];
    let mut lines = Vec::new();
    for best in bests {
        for (i, row) in best.rows.iter().take(TIES).enumerate() {
            let (label, value) = if i == 0 {
                (best.metric.label().to_owned(), quantity(best.value, best.metric.unit()))
            } else {
                (String::new(), "same".to_owned())
            };
            lines.push((Tone::Good, vec![label, value, name(row)]));
        }
        if let Some(more @ 1..) = best.rows.len().checked_sub(TIES) {
            lines.push((Tone::Good, vec![String::new(), "same".into(), format!("and {more} more")]));
        }
    }
    columns::put(page, &columns, lines);
}

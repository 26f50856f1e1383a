//! Two runs beside each other, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::display::{configuration, counted, cut, figure};
use super::page::{Page, Style, Tone};
use super::{columns, columns::Column};
use crate::analyse::{Comparison, Effect, Facts, Figure, Outcome, Row, RunTable};

/// What differs between the environments of two runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// In the first run.
    pub before: String,
    /// In the second.
    pub after: String,
}

/// Finds what differs, as far as the runs say: vLLM, engine, vllm-bench, and the facts that the caller knows.
pub fn differences(before: &Facts, after: &Facts, more: Vec<(String, String, String)>) -> Vec<Difference> {
    let versions = |facts: &Facts| facts.vllm_versions.join(", ");
    let engine = |facts: &Facts| facts.engine.map(|engine| engine.to_string()).unwrap_or_default();
    let path = |facts: &Facts| facts.vllm_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut all = vec![
        ("vLLM".to_owned(), versions(before), versions(after)),
        ("engine".to_owned(), engine(before), engine(after)),
        ("path of vLLM".to_owned(), path(before), path(after)),
    ];
    all.extend(more);
    all.into_iter().filter(|(_, a, b)| a != b).map(|(what, before, after)| Difference { what, before, after }).collect()
}

/// A value as code; what nobody recorded is said in words.
fn quoted(value: &str) -> String {
    if value.is_empty() { "not known".to_owned() } else { format!("`{value}`") }
}

fn name(row: &Row) -> String {
    let load = row.axes.workload_label();
    let load = if load.is_empty() { load } else { format!(", at {load}") };
    format!("{}  {}{load}", cut(&row.axes.model, 44), configuration(&row.axes))
}

/// What speaks against believing a measurement, of both runs: `before` or `after`, the row, and the warning.
fn warnings<'t>((before, after): (&'t RunTable, &'t RunTable)) -> Vec<(&'static str, &'t Row, &'t str)> {
    let of = |which: &'static str, table: &'t RunTable| {
        let rows = table.rows.iter().flat_map(|row| row.warnings().map(move |warning| (row, warning)));
        rows.map(move |(row, warning)| (which, row, warning.text.as_str())).collect::<Vec<_>>()
    };
    [of("before", before), of("after", after)].concat()
}

fn percent(relative: f64) -> String {
    format!("{:+.1} %", relative * 100.0)
}

fn cells(effect: &Effect) -> [String; 6] {
    let known = Figure::of(&effect.metric);
    let shown = |value: f64| known.as_ref().map_or(value.to_string(), |known| figure(value, known.unit));
    let change = &effect.change;
    let interval =
        change.interval.map_or("-".to_owned(), |(low, high)| format!("{} to {}", percent(low), percent(high)));
    [
        known.as_ref().map_or_else(|| effect.metric.clone(), |known| known.label.clone()),
        shown(change.before),
        shown(change.after),
        percent(change.relative),
        interval,
        said(effect),
    ]
}

fn said(effect: &Effect) -> String {
    match effect.outcome {
        Outcome::Better => "better".into(),
        Outcome::Worse => "WORSE".into(),
        Outcome::Same => "same".into(),
        Outcome::NotTold if effect.change.interval.is_none() => "not told: one run each".into(),
        Outcome::NotTold => "not told".into(),
    }
}

const COLUMNS: [&str; 6] = ["Figure", "Before", "After", "Change", "95 % interval", ""];

/// As text for a terminal or a log.
pub fn text(
    comparison: &Comparison<'_>,
    tables: (&RunTable, &RunTable),
    environment: &[Difference],
    threshold: f64,
    style: Style,
) -> String {
    let mut page = Page::new(style);
    let (before, after) = tables;
    page.title("vllm-bench · comparison", &cut(&format!("{} -> {}", before.facts.run, after.facts.run), 70));
    if before.simulated || after.simulated {
        page.paragraph(1, "!! ", Tone::Warning, super::text::SIMULATED);
    }
    for different in environment {
        let (before, after) = (quoted(&different.before), quoted(&different.after));
        let text = format!("{} differs: {before} before, {after} now", different.what);
        page.paragraph(1, "!! ", Tone::Warning, &text);
    }
    for warning in &comparison.warnings {
        page.paragraph(1, "!! ", Tone::Warning, warning);
    }
    page.heading(&format!(
        "{} in both, a change above {:.1} % counts",
        counted(comparison.matched.len(), "configuration"),
        threshold * 100.0
    ));
    for matched in &comparison.matched {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", name(matched.row)));
        page.gap();
        let lines = matched.effects.iter().map(|effect| {
            let tone = match effect.outcome {
                Outcome::Better => Tone::Good,
                Outcome::Worse => Tone::Bad,
                Outcome::Same | Outcome::NotTold => Tone::Plain,
            };
            (tone, cells(effect).to_vec())
        });
        let mut shape = vec![Column::text(COLUMNS[0])];
        shape.extend(COLUMNS[1..5].iter().map(|title| Column::figures(*title)));
        shape.push(Column::text(""));
        columns::put(&mut page, &shape, lines.collect());
    }
    for (title, rows) in [("Only before", &comparison.missing), ("Only now", &comparison.added)] {
        if !rows.is_empty() {
            page.heading(title);
            for row in rows {
                page.paragraph(2, "", Tone::Warning, &name(row));
            }
        }
    }
    let warnings = warnings(tables);
    if !warnings.is_empty() {
        page.heading("Warnings");
        for (which, row, text) in warnings {
            page.paragraph(2, "! ", Tone::Warning, &format!("{which}: {}: {text}", cut(&row.name, 60)));
        }
    }
    page.finish()
}

/// A cell of a Markdown table.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

/// As Markdown for a pull request.
pub fn markdown(
    comparison: &Comparison<'_>,
    tables: (&RunTable, &RunTable),
    environment: &[Difference],
    threshold: f64,
) -> String {
    let (before, after) = tables;
    let mut text = format!("### vllm-bench: `{}` against `{}`\n\n", cell(&after.facts.run), cell(&before.facts.run));
    if before.simulated || after.simulated {
        text.push_str("**SIMULATED**: a timing model made these figures up.\n\n");
    }
    for different in environment {
        let _ = writeln!(
            text,
            "> **{} differs**: {} before, {} now",
            cell(&different.what),
            quoted(&cell(&different.before)),
            quoted(&cell(&different.after))
        );
    }
    for warning in &comparison.warnings {
        let _ = writeln!(text, "> **{}**", cell(warning));
    }
    let worse = comparison.matched.iter().flat_map(|m| &m.effects).filter(|e| e.outcome == Outcome::Worse).count();
    let better = comparison.matched.iter().flat_map(|m| &m.effects).filter(|e| e.outcome == Outcome::Better).count();
    let _ = writeln!(
        text,
        "\n{worse} worse, {better} better, by more than {:.1} % and beyond noise (95 %, all figures together).\n\n\
         | configuration | figure | before | after | change | 95 % interval | |\n| --- | --- | ---: | ---: | ---: | ---: | --- |",
        threshold * 100.0
    );
    for matched in &comparison.matched {
        for effect in &matched.effects {
            let cells = cells(effect).map(|text| cell(&text));
            let _ = writeln!(text, "| {} | {} |", cell(&name(matched.row)), cells.join(" | "));
        }
    }
    for (title, rows) in [("Only before", &comparison.missing), ("Only now", &comparison.added)] {
        if !rows.is_empty() {
            let names: Vec<String> = rows.iter().map(|row| cell(&name(row))).collect();
            let _ = writeln!(text, "\n{title}: {}", names.join("; "));
        }
    }
    for (which, row, warning) in warnings(tables) {
        let _ = writeln!(text, "\n> **warning** ({which}) {}: {}", cell(&row.name), cell(warning));
    }
    text
}

/// As JSON.
pub fn json(
    comparison: &Comparison<'_>,
    tables: (&RunTable, &RunTable),
    environment: &[Difference],
    threshold: f64,
) -> Value {
    let (before, after) = tables;
    let names = |rows: &[&Row]| -> Vec<String> { rows.iter().map(|row| row.name.clone()).collect() };
    json!({
        "before": before.facts.run,
        "after": after.facts.run,
        "simulated": before.simulated || after.simulated,
        "threshold": threshold,
        "environment": environment,
        "not_comparable": comparison.warnings,
        "configurations": comparison.matched.iter().map(|matched| json!({
            "name": matched.row.name, "model": matched.row.axes.model, "effects": matched.effects,
        })).collect::<Vec<Value>>(),
        "only_before": names(&comparison.missing),
        "only_after": names(&comparison.added),
        "warnings": warnings(tables).into_iter().map(|(which, row, text)| json!({
            "run": which, "name": row.name, "warning": text,
        })).collect::<Vec<Value>>(),
        "worse": comparison.has_worse(),
    })
}

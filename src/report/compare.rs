//! Two runs beside each other, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::display::{configuration, counted, cut, figure};
use super::page::{Page, Style, Tone};
use super::{columns, columns::Column};
use crate::analyse::{Comparison, Effect, Facts, Failing, Figure, Outcome, Row, RunTable};

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
    let interval =
        effect.interval.map_or("-".to_owned(), |(low, high)| format!("{} to {}", percent(low), percent(high)));
    [
        known.as_ref().map_or_else(|| effect.metric.clone(), |known| known.label.clone()),
        shown(effect.before),
        shown(effect.after),
        percent(effect.relative),
        interval,
        said(effect),
    ]
}

fn said(effect: &Effect) -> String {
    match (effect.outcome, effect.starts_needed) {
        (Outcome::Better, _) => "better".into(),
        (Outcome::Worse, _) => "WORSE".into(),
        (Outcome::Same, _) => "same".into(),
        (Outcome::NotDecided, _) if effect.interval.is_none() => "not decided: one start each".into(),
        (Outcome::NotDecided, Some(starts)) => format!("not decided: about {starts} starts of each would"),
        (Outcome::NotDecided, None) => "not decided".into(),
    }
}

/// Whether a row of the table says nothing: the same, and not to be seen to have changed.
fn is_quiet(effect: &Effect) -> bool {
    effect.outcome == Outcome::Same && effect.relative.abs() < 0.0005
}

/// The verdict in a line, for people and for CI.
fn verdict(comparison: &Comparison<'_>, threshold: f64) -> String {
    let [worse, better, same, open] =
        [Outcome::Worse, Outcome::Better, Outcome::Same, Outcome::NotDecided].map(|outcome| comparison.count(outcome));
    let failing = comparison.failing.iter().filter(|failing| failing.is_worse).count();
    let word = match (comparison.has_worse(), better, open) {
        (true, ..) => "WORSE",
        (false, 1.., _) => "BETTER",
        (false, 0, 0) => "SAME",
        (false, 0, _) => "NOT DECIDED",
    };
    let failing =
        if failing > 0 { format!(", {} now", counted(failing, "failing configuration")) } else { String::new() };
    format!(
        "{word}: {worse} worse, {better} better, {same} same, {open} not decided by {:.1} %{failing}",
        threshold * 100.0
    )
}

/// What a comparison of two runs cannot tell.
const SESSIONS: &str = "Each run is one session: what differs between sessions (other load on the machine, its temperature, a restart) \
    counts as a change. Measure both in turn where it matters.";

/// Configurations of which more starts fail now, as sentences.
fn failing(comparison: &Comparison<'_>) -> Vec<String> {
    let one = |failing: &Failing<'_>| {
        let (before, after) = (failing.before, failing.after);
        format!(
            "{}: {} of {} failed, {} of {} before ({})",
            cut(&failing.row.name, 80),
            after.failed,
            counted(after.of, "start"),
            before.failed,
            before.of,
            cut(&failing.why, 160)
        )
    };
    comparison.failing.iter().map(one).collect()
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
    let tone = if comparison.has_worse() { Tone::Bad } else { Tone::Plain };
    page.line(tone, &verdict(comparison, threshold));
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
        "{} in both; a change counts where its whole interval lies beyond {:.1} %",
        counted(comparison.matched.len(), "configuration"),
        threshold * 100.0
    ));
    for matched in &comparison.matched {
        page.gap();
        page.line(Tone::Heading, &format!("  {}", name(matched.row)));
        page.gap();
        if let Some(why) = &matched.not_comparable {
            page.paragraph(2, "! ", Tone::Warning, &format!("nothing is decided, {}", cut(why, 300)));
        }
        let quiet = matched.effects.iter().filter(|effect| is_quiet(effect)).count();
        let lines = matched.effects.iter().filter(|effect| !is_quiet(effect)).map(|effect| {
            let tone = match effect.outcome {
                Outcome::Better => Tone::Good,
                Outcome::Worse => Tone::Bad,
                Outcome::Same | Outcome::NotDecided => Tone::Plain,
            };
            (tone, cells(effect).to_vec())
        });
        let mut shape = vec![Column::text(COLUMNS[0])];
        shape.extend(COLUMNS[1..5].iter().map(|title| Column::figures(*title)));
        shape.push(Column::text(""));
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            columns::put(&mut page, &shape, lines);
        }
        if quiet > 0 {
            page.paragraph(2, "", Tone::Faint, &format!("{} the same", counted(quiet, "metric")));
        }
    }
    page.gap();
    page.paragraph(1, "", Tone::Faint, SESSIONS);
    let failing = failing(comparison);
    if !failing.is_empty() {
        page.heading("Failing now");
        failing.iter().for_each(|text| page.paragraph(2, "! ", Tone::Bad, text));
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
    let _ = writeln!(
        text,
        "\n**{}**\n\n| configuration | figure | before | after | change | 95 % interval | |\n| --- | --- | ---: | ---: | ---: | ---: | --- |",
        verdict(comparison, threshold)
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
    for failing in failing(comparison) {
        let _ = writeln!(text, "\n> **failing now**: {}", cell(&failing));
    }
    for matched in &comparison.matched {
        if let Some(why) = &matched.not_comparable {
            let _ = writeln!(text, "\n> **nothing is decided** of {}: {}", cell(&matched.row.name), cell(why));
        }
    }
    let _ = writeln!(text, "\n{SESSIONS}");
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
        "verdict": verdict(comparison, threshold),
        "before": before.facts.run,
        "after": after.facts.run,
        "simulated": before.simulated || after.simulated,
        "threshold": threshold,
        "environment": environment,
        "not_comparable": comparison.warnings,
        "configurations": comparison.matched.iter().map(|matched| json!({
            "name": matched.row.name, "model": matched.row.axes.model, "effects": matched.effects, "not_comparable": matched.not_comparable,
        })).collect::<Vec<Value>>(),
        "failing": comparison.failing.iter().map(|failing| json!({
            "name": failing.row.name, "before": failing.before, "after": failing.after, "why": failing.why, "worse": failing.is_worse,
        })).collect::<Vec<Value>>(),
        "only_before": names(&comparison.missing),
        "only_after": names(&comparison.added),
        "warnings": warnings(tables).into_iter().map(|(which, row, text)| json!({
            "run": which, "name": row.name, "warning": text,
        })).collect::<Vec<Value>>(),
        "worse": comparison.has_worse(),
    })
}

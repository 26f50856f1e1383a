//! Two runs beside each other, as text, Markdown and JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::display::{configuration, counted, cut, in_unit};
use super::page::{Page, Style, Tone};
use super::{columns, columns::Column};
use crate::analyse::{Comparison, Effect, Facts, Matched, Outcome, Row, RunTable};
use crate::model::Metric;

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

/// Finds what differs, as far as the runs say: vLLM, engine, vllm-bench, and the facts that the caller knows. Results tell the version of
/// vLLM: one that has none has no other version.
pub fn differences(before: &RunTable, after: &RunTable, more: Vec<(String, String, String)>) -> Vec<Difference> {
    let has_results = [before, after].iter().all(|table| table.rows.iter().any(Row::is_valid));
    let (before, after) = (&before.facts, &after.facts);
    let versions = |facts: &Facts| if has_results { facts.vllm_versions.join(", ") } else { String::new() };
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
    let known = Metric::of(&effect.metric);
    let shown = |value: f64| known.as_ref().map_or(value.to_string(), |known| in_unit(value, known.unit));
    // Of nothing there are no parts.
    let (change, interval) = match effect.interval {
        _ if effect.of_largest && effect.before == 0.0 && effect.after != 0.0 => ("from 0".to_owned(), None),
        interval => (percent(effect.relative), interval),
    };
    let interval = interval.map_or("-".to_owned(), |(low, high)| format!("{} to {}", percent(low), percent(high)));
    [
        known.as_ref().map_or_else(|| effect.metric.clone(), |known| known.label.clone()),
        shown(effect.before),
        shown(effect.after),
        change,
        interval,
        said(effect),
    ]
}

fn said(effect: &Effect) -> String {
    match (effect.outcome, effect.starts_needed) {
        (Outcome::Better, _) => "better".into(),
        (Outcome::Worse, _) => "WORSE".into(),
        (Outcome::Same, _) => "same".into(),
        (Outcome::NotDecided, _) if effect.interval.is_none() && effect.n == (1, 1) => {
            "not decided: one start each".into()
        }
        (Outcome::NotDecided, _) if effect.interval.is_none() => "not decided: starts do not differ".into(),
        (Outcome::NotDecided, Some(starts)) => format!("not decided: about {starts} starts of each would"),
        (Outcome::NotDecided, None) => "not decided".into(),
    }
}

/// Whether a row of the table says nothing: neither better nor worse, and `+0.0 %`.
fn is_quiet(effect: &Effect) -> bool {
    matches!(effect.outcome, Outcome::Same | Outcome::NotDecided) && effect.relative.abs() < 0.0005
}

/// The metrics of a configuration that did not change, in a sentence; `None` where all did.
fn quiet(effects: &[Effect]) -> Option<String> {
    let mut outcomes: Vec<(String, Vec<String>)> = Vec::new();
    for effect in effects.iter().filter(|effect| is_quiet(effect)) {
        let label = Metric::of(&effect.metric).map_or_else(|| effect.metric.clone(), |known| known.label);
        match outcomes.iter_mut().find(|(known, _)| *known == said(effect)) {
            Some((_, labels)) => labels.push(label),
            None => outcomes.push((said(effect), vec![label])),
        }
    }
    let words: Vec<String> =
        outcomes.into_iter().map(|(outcome, labels)| format!("{} ({outcome})", labels.join(", "))).collect();
    (!words.is_empty()).then(|| format!("changed by less than 0.05 %: {}", words.join("; ")))
}

/// Metrics that one of the runs has not, as sentences.
fn unmeasured(matched: &Matched<'_>) -> Vec<String> {
    let one = |(key, before, after): &(String, bool, bool)| {
        let which = match (before, after) {
            (true, false) => "after",
            (false, true) => "before",
            (false, false) | (true, true) => "in either run",
        };
        format!("`{key}` was not measured {which}")
    };
    matched.unmeasured.iter().map(one).collect()
}

/// The verdict in a line, for people and for CI.
fn verdict(comparison: &Comparison<'_>, threshold: f64) -> String {
    let [worse, better, same, open] =
        [Outcome::Worse, Outcome::Better, Outcome::Same, Outcome::NotDecided].map(|outcome| comparison.count(outcome));
    let word = match comparison.outcome() {
        Outcome::Worse => "WORSE",
        Outcome::Better => "BETTER",
        Outcome::Same => "SAME",
        Outcome::NotDecided => "NOT DECIDED",
    };
    let failing = comparison.failing.iter().filter(|failing| failing.is_worse).count();
    let mut text = format!(
        "{word}: {worse} worse, {better} better, {same} same, {open} not decided (metrics, by {:.1} %)",
        threshold * 100.0
    );
    let more = [
        (failing, "failing now"),
        (comparison.lost.len(), "with more failing requests"),
        (comparison.missing.len(), "not measured after"),
    ];
    for (count, what) in more.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "; {} {what}", counted(count, "configuration"));
    }
    text
}

/// What a comparison of two runs cannot tell.
const SESSIONS: &str = "Each run is one session: what differs between sessions (other load on the machine, its temperature, a restart) \
    counts as a change, and the intervals do not know of it. Where both can be configurations of one sweep, `order: interleaved` measures \
    them in turn.";

/// Configurations of which starts or requests fail, as sentences, each with whether that is worse.
fn failing(comparison: &Comparison<'_>) -> Vec<(bool, String)> {
    let starts = comparison.failing.iter().map(|failing| {
        let (before, after) = (failing.before, failing.after);
        let why = if failing.why.is_empty() { String::new() } else { format!(" ({})", cut(&failing.why, 160)) };
        let text = format!(
            "{}: {} of {} failed, {} of {} before{why}",
            cut(&failing.row.name, 80),
            after.failed,
            counted(after.of, "start"),
            before.failed,
            before.of,
        );
        (failing.is_worse, text)
    });
    let requests = comparison.lost.iter().map(|lost| {
        let (before, after) = (100.0 * lost.before, 100.0 * lost.after);
        (true, format!("{}: {after:.1} % of the requests failed, {before:.1} % before", cut(&lost.row.name, 80)))
    });
    starts.chain(requests).collect()
}

const COLUMNS: [&str; 6] = ["Metric", "Before", "After", "Change", "95 % interval", ""];

/// So many configurations without a change are named.
const MOST_NAMES: usize = 12;

/// Whether all of a configuration is the same, with nothing to say of it.
fn is_unchanged(matched: &Matched<'_>) -> bool {
    let same = |effect: &Effect| effect.outcome == Outcome::Same && is_quiet(effect);
    matched.not_comparable.is_none()
        && matched.unmeasured.is_empty()
        && !matched.effects.is_empty()
        && matched.effects.iter().all(same)
}

/// The table of one configuration.
fn put(page: &mut Page, matched: &Matched<'_>) {
    page.gap();
    page.line(Tone::Heading, &format!("  {}", name(matched.row)));
    page.gap();
    if let Some(why) = &matched.not_comparable {
        page.paragraph(2, "! ", Tone::Warning, &format!("nothing is decided, {}", cut(why, 300)));
    }
    let lines = matched.effects.iter().filter(|effect| !is_quiet(effect)).map(|effect| {
        let tone = match effect.outcome {
            Outcome::Better => Tone::Good,
            Outcome::Worse => Tone::Bad,
            Outcome::Same | Outcome::NotDecided => Tone::Plain,
        };
        (tone, cells(effect).to_vec())
    });
    let mut shape = vec![Column::text(COLUMNS[0])];
    shape.extend(COLUMNS[1..5].iter().map(|title| Column::metrics(*title)));
    shape.push(Column::text(""));
    let lines: Vec<_> = lines.collect();
    if !lines.is_empty() {
        columns::put(page, &shape, lines);
    }
    for text in quiet(&matched.effects).into_iter().chain(unmeasured(matched)) {
        page.paragraph(2, "", Tone::Faint, &text);
    }
}

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
    page.title("vllm-bench · comparison", &cut(&format!("{} -> {}", before.facts.title(), after.facts.title()), 70));
    if before.is_all_simulated() {
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
    let (unchanged, changed): (Vec<&Matched<'_>>, Vec<&Matched<'_>>) =
        comparison.matched.iter().partition(|matched| is_unchanged(matched));
    changed.into_iter().for_each(|matched| put(&mut page, matched));
    if !unchanged.is_empty() {
        page.gap();
        let names: Vec<String> = unchanged.iter().take(MOST_NAMES).map(|matched| name(matched.row)).collect();
        let more = if unchanged.len() > MOST_NAMES { ", …" } else { "" };
        let text = format!(
            "{} the same in every metric: {}{more}",
            counted(unchanged.len(), "configuration"),
            names.join(", ")
        );
        page.paragraph(2, "", Tone::Faint, &text);
    }
    page.gap();
    page.paragraph(1, "", Tone::Faint, SESSIONS);
    let failing = failing(comparison);
    if !failing.is_empty() {
        page.heading("Failures");
        for (is_worse, text) in failing {
            page.paragraph(2, "! ", if is_worse { Tone::Bad } else { Tone::Warning }, &text);
        }
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
    let mut text = format!(
        "### {}\n\n`{}` against `{}`\n\n",
        verdict(comparison, threshold),
        cell(&after.facts.title()),
        cell(&before.facts.title())
    );
    if before.is_all_simulated() {
        text.push_str("**SIMULATED**: a timing model made these metrics up.\n\n");
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
    text.push_str(
        "\n| configuration | metric | before | after | change | 95 % interval | |\n| --- | --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut folded = Vec::new();
    for matched in &comparison.matched {
        let name = cell(&name(matched.row));
        for effect in matched.effects.iter().filter(|effect| !is_quiet(effect)) {
            let cells = cells(effect).map(|text| cell(&text));
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        let sentences = quiet(&matched.effects).into_iter().chain(unmeasured(matched));
        folded.extend(sentences.map(|said| format!("- {name}: {}", cell(&said))));
    }
    if !folded.is_empty() {
        let _ = writeln!(text, "\n{}", folded.join("\n"));
    }
    for (title, rows) in [("Only before", &comparison.missing), ("Only now", &comparison.added)] {
        if !rows.is_empty() {
            let names: Vec<String> = rows.iter().map(|row| cell(&name(row))).collect();
            let _ = writeln!(text, "\n{title}: {}", names.join("; "));
        }
    }
    for (is_worse, failing) in failing(comparison) {
        let word = if is_worse { "failing now" } else { "failures" };
        let _ = writeln!(text, "\n> **{word}**: {}", cell(&failing));
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
        "outcome": comparison.outcome(),
        "note": SESSIONS,
        "before": before.facts.run,
        "after": after.facts.run,
        "simulated": before.is_all_simulated(),
        "threshold": threshold,
        "environment": environment,
        "not_comparable": comparison.warnings,
        "configurations": comparison.matched.iter().map(|matched| json!({
            "name": matched.row.name, "model": matched.row.axes.model, "effects": matched.effects, "not_comparable": matched.not_comparable,
            "unmeasured": matched.unmeasured.iter().map(|(key, before, after)| json!({
                "metric": key, "before": before, "after": after,
            })).collect::<Vec<Value>>(),
        })).collect::<Vec<Value>>(),
        "failing": comparison.failing.iter().map(|failing| json!({
            "name": failing.row.name, "before": failing.before, "after": failing.after, "why": failing.why, "worse": failing.is_worse,
        })).collect::<Vec<Value>>(),
        "failing_requests": comparison.lost.iter().map(|lost| json!({
            "name": lost.row.name, "before": lost.before, "after": lost.after,
        })).collect::<Vec<Value>>(),
        "only_before": names(&comparison.missing),
        "only_after": names(&comparison.added),
        "warnings": warnings(tables).into_iter().map(|(which, row, text)| json!({
            "run": which, "name": row.name, "warning": text,
        })).collect::<Vec<Value>>(),
        "worse": comparison.has_worse(),
    })
}

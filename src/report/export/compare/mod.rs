//! Two runs beside each other: what each format says.

mod json;
mod markdown;
mod text;

pub use json::Json;
pub use markdown::Markdown;
pub use text::Text;

use std::fmt::Write as _;

use crate::analyse::{Comparison, Effect, Facts, Matched, Outcome, Row, RunTable};
use crate::model::Metric;
use crate::report::display::{configuration, counted, cut, in_unit};

/// A comparison of two runs, and what is said beside it.
#[derive(Debug)]
pub struct Compared<'a> {
    /// Metric by metric.
    pub comparison: Comparison<'a>,
    /// The run before and the run after.
    pub tables: (&'a RunTable, &'a RunTable),
    /// How their environments differ.
    pub environment: &'a [Difference],
    /// Changes below this part do not matter.
    pub threshold: f64,
    /// Whether they are the sides of one run, measured in turn.
    pub in_turn: bool,
}

impl Compared<'_> {
    /// What it can tell, and what not.
    fn note(&self) -> &'static str {
        if self.in_turn { IN_TURN } else { SESSIONS }
    }
}

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
    format!("{}, {}{load}", cut(&row.axes.model, 44), configuration(row))
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

/// What a comparison of the two sides of one run can tell.
const IN_TURN: &str = "Both were started in turn in one run, each first as often as the other: what changes from one session to the next, and \
    a steady drift of the machine, meets both alike.";

/// What a comparison of two runs cannot tell.
const SESSIONS: &str = "Each run is one session: what differs between sessions (other load on the machine, its temperature, a restart) \
    counts as a change, and the intervals do not know of it. `vllm-bench run --against RUN` measures both in turn in one run.";

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

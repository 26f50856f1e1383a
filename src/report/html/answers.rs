//! The recommendation as shown: what to use, why, how sure, the command, and the table of options.

use serde::Serialize;

use super::super::display::{ABSENT, clean, configuration, counted, cut, figure, quantity};
use super::super::recommend::{ranked, sentences};
use super::shell;
use crate::analyse::{
    Basis, Best, Choice, Figure, Ranked, Ranking, Recommendation, RunTable, Unit, Wanted, best_by_model,
};

/// So many options stand in the table of an answer.
const OPTIONS: usize = 10;
/// So many left-out configurations are named.
const LEFT_OUT: usize = 12;
/// Names of models in headings.
const MODEL: usize = 120;

/// One answer, for a model under a load.
#[derive(Serialize)]
pub(super) struct Shown {
    heading: String,
    found: Option<Found>,
    left_out: Vec<(String, String)>,
    left_out_more: usize,
}

#[derive(Serialize)]
struct Found {
    name: String,
    configuration: String,
    figures: Vec<(String, String)>,
    sentences: Vec<String>,
    single: bool,
    sure: String,
    command: String,
    options: Vec<Line>,
    more: usize,
}

#[derive(Serialize)]
struct Line {
    mark: &'static str,
    label: &'static str,
    configuration: String,
    devices: String,
    value: String,
    latency: String,
    n: usize,
    front: bool,
}

/// The ranked figure in words.
pub(super) fn ranked_by(wanted: &Wanted) -> String {
    let per = if wanted.per_device { " per device" } else { "" };
    format!("{}{per}", label(&wanted.rank_by))
}

fn label(key: &str) -> String {
    Figure::of(key).map_or_else(|| key.to_owned(), |figure| figure.label)
}

fn unit(key: &str) -> Option<Unit> {
    Figure::of(key).map(|figure| figure.unit)
}

fn amount(key: &str, value: Option<f64>) -> String {
    value.map_or(ABSENT.to_owned(), |value| {
        unit(key).map_or_else(|| format!("{value:.2}"), |unit| quantity(value, unit))
    })
}

/// All answers as shown.
pub(super) fn of(answers: &[Ranked<'_>], wanted: &Wanted) -> Vec<Shown> {
    answers.iter().map(|answer| one(answer, wanted)).collect()
}

fn one(answer: &Ranked<'_>, wanted: &Wanted) -> Shown {
    let heading = cut(&answer.title(), MODEL);
    let (found, mut left_out) = match &answer.choice {
        Ok(recommendation) => {
            let left = recommendation.left_out.iter().map(|left| (cut(&left.row.name, 120), cut(&left.why, 200)));
            (Some(found(recommendation, wanted)), left.collect::<Vec<_>>())
        }
        Err(left) => (None, left.iter().map(|left| (cut(&left.row.name, 120), cut(&left.why, 200))).collect()),
    };
    let left_out_more = left_out.len().saturating_sub(LEFT_OUT);
    left_out.truncate(LEFT_OUT);
    Shown { heading, found, left_out, left_out_more }
}

fn found(found: &Recommendation<'_>, wanted: &Wanted) -> Found {
    let choice = &found.options[found.choice];
    let row = choice.row;
    let mut figures = vec![(ranked_by(wanted), amount(&wanted.rank_by, Some(choice.value)))];
    figures.push((label(&wanted.latency), amount(&wanted.latency, choice.latency)));
    if let Some(devices) = row.about.devices {
        figures.push(("Devices".into(), devices.to_string()));
    }
    figures.push(("Measurements".into(), choice.n.to_string()));
    if let Some(noise) = found.noise {
        figures.push(("Noise".into(), format!("{:.1} %", 100.0 * noise)));
    }
    let order = ranked(found, wanted);
    let lines = order.iter().take(OPTIONS).map(|&index| line(found, index, wanted));
    Found {
        name: clean(&row.name),
        configuration: configuration(&row.axes),
        figures,
        sentences: sentences(found, wanted).iter().map(|sentence| clean(sentence)).collect(),
        single: found.basis == Basis::Single,
        sure: sure(found),
        command: shell::line(&row.about.serve_command),
        options: lines.collect(),
        more: order.len().saturating_sub(OPTIONS),
    }
}

/// How sure a choice is, in a few words.
fn sure(found: &Recommendation<'_>) -> String {
    match (found.basis, found.equals.len()) {
        (Basis::Single, _) => "one measurement of each".to_owned(),
        (Basis::Starts | Basis::RunsOfOneStart | Basis::NoiseFloor, 0) if found.options.len() == 1 => {
            "the only one".to_owned()
        }
        (Basis::Starts | Basis::RunsOfOneStart | Basis::NoiseFloor, 0) => "told apart from all others".to_owned(),
        (Basis::Starts | Basis::RunsOfOneStart | Basis::NoiseFloor, n) => {
            format!("{} not told apart", counted(n, "other"))
        }
    }
}

fn line(found: &Recommendation<'_>, index: usize, wanted: &Wanted) -> Line {
    let option: &Choice<'_> = &found.options[index];
    let (mark, label) = if index == found.choice {
        ("choice", "choice")
    } else if found.equals.contains(&index) {
        ("equal", "not told apart")
    } else {
        ("", "")
    };
    let number = |key: &str, value: f64| unit(key).map_or_else(|| format!("{value:.2}"), |unit| figure(value, unit));
    Line {
        mark,
        label,
        configuration: configuration(&option.row.axes),
        devices: option.row.about.devices.map_or(ABSENT.to_owned(), |devices| devices.to_string()),
        value: number(&wanted.rank_by, option.value),
        latency: option.latency.map_or(ABSENT.to_owned(), |value| number(&wanted.latency, value)),
        n: option.n,
        front: option.on_front,
    }
}

/// The best by each ranked figure.
#[derive(Serialize)]
pub(super) struct Bests {
    heading: String,
    lines: Vec<(String, String, String, String)>,
}

/// The best by each figure, for each model and load.
pub(super) fn bests(table: &RunTable) -> Vec<Bests> {
    let rows = table.comparable();
    best_by_model(&rows).iter().map(by_figure).collect()
}

fn by_figure(ranking: &Ranking<'_>) -> Bests {
    let load = if ranking.workload.is_empty() { String::new() } else { format!(", at {}", clean(&ranking.workload)) };
    let line = |best: &Best<'_>| {
        let named = best.rows.first().map_or(String::new(), |(row, _)| configuration(&row.axes));
        let value = best.rows.first().map_or(best.value, |(_, value)| *value);
        (best.metric.label().to_owned(), quantity(value, best.metric.unit()), named, note(best))
    };
    Bests {
        heading: format!("{}{load}", cut(ranking.model.unwrap_or_default(), MODEL)),
        lines: ranking.bests.iter().map(line).collect(),
    }
}

/// How far the best by a figure can be trusted.
fn note(best: &Best<'_>) -> String {
    let mut said = Vec::new();
    match (best.basis, best.rows.len()) {
        (Basis::Single, 0 | 1) => said.push("one measurement of each".to_owned()),
        (Basis::Single, n) => said.push(format!("{} with the very same figure", counted(n - 1, "other"))),
        (_, 0 | 1) => said.push(format!("mean of {}, told apart from all others", best.measurements)),
        (_, n) => said.push(format!("mean of {}; {} not told apart", best.measurements, counted(n - 1, "other"))),
    }
    if let Some(repeats) = best.repeats_needed.filter(|_| best.rows.len() > 1) {
        said.push(format!("{} of each would tell", counted(repeats, "repeat")));
    }
    if best.barred > 0 {
        said.push(format!("{} with a better figure left out for doubts", counted(best.barred, "row")));
    }
    said.join("; ")
}

//! The answers as shown: what to use, why, how sure, the command, and the table of options.

use serde::Serialize;

use super::super::answer;
use super::super::display::{ABSENT, clean, configuration, cut, in_unit, quantity};
use super::super::text::nothing;
use super::shell;
use crate::analyse::{Answer, Choice, RankingSpec, Recommendation};
use crate::model::{Metric, Unit};

/// So many options stand in the table of an answer.
const OPTIONS: usize = 10;
/// So many excluded configurations are named.
const LEFT_OUT: usize = 12;
/// Names of models in headings.
const MODEL: usize = 120;

/// One answer, for a model under a workload.
#[derive(Serialize)]
pub(super) struct Shown {
    heading: String,
    found: Option<Found>,
    nothing: &'static str,
    left_out: Vec<(String, String)>,
    left_out_more: usize,
}

#[derive(Serialize)]
struct Found {
    name: String,
    configuration: String,
    metrics: Vec<(String, String)>,
    sentences: Vec<String>,
    warnings: Vec<String>,
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
    interval: String,
    latency: String,
    n: usize,
    front: bool,
}

fn label(key: &str) -> String {
    Metric::of(key).map_or_else(|| key.to_owned(), |metric| metric.label)
}

fn unit(key: &str) -> Option<Unit> {
    Metric::of(key).map(|metric| metric.unit)
}

fn amount(key: &str, value: Option<f64>) -> String {
    value.map_or(ABSENT.to_owned(), |value| {
        unit(key).map_or_else(|| format!("{value:.2}"), |unit| quantity(value, unit))
    })
}

/// All answers as shown.
pub(super) fn of(answers: &[Answer<'_>], wanted: &RankingSpec) -> Vec<Shown> {
    answers.iter().map(|answer| one(answer, wanted)).collect()
}

fn one(answer: &Answer<'_>, wanted: &RankingSpec) -> Shown {
    let (found, all) = match &answer.choice {
        Ok(recommendation) => (found(recommendation, wanted), &recommendation.left_out),
        Err(left) => (None, left),
    };
    let mut left_out: Vec<(String, String)> =
        all.iter().take(LEFT_OUT).map(|left| (cut(&left.row.name, 120), cut(&left.why, 300))).collect();
    left_out.truncate(LEFT_OUT);
    Shown {
        heading: cut(&answer.title(), MODEL),
        found,
        nothing: nothing(wanted),
        left_out_more: all.len() - left_out.len(),
        left_out,
    }
}

fn found(found: &Recommendation<'_>, wanted: &RankingSpec) -> Option<Found> {
    let choice = found.chosen()?;
    let row = choice.row;
    let per = if found.per_device { " per device" } else { "" };
    let mut metrics = vec![(format!("{}{per}", label(&wanted.rank_by)), amount(&wanted.rank_by, Some(choice.value)))];
    metrics.push((label(&wanted.latency), amount(&wanted.latency, choice.latency)));
    if let Some(devices) = row.about.devices {
        metrics.push(("Devices".into(), devices.to_string()));
    }
    metrics.push(("Starts".into(), choice.n.to_string()));
    if let Some(noise) = found.noise {
        metrics.push(("Noise".into(), format!("{:.1} %", 100.0 * noise)));
    }
    let lines = found.options.iter().enumerate().take(OPTIONS);
    Some(Found {
        name: clean(&row.name),
        configuration: configuration(&row.axes),
        metrics,
        sentences: answer::sentences(found, wanted).iter().map(|sentence| clean(sentence)).collect(),
        warnings: answer::warnings(found).iter().map(|warning| clean(warning)).collect(),
        single: !found.basis.is_established(),
        sure: answer::how_sure(found),
        command: shell::line(&row.start_command()),
        options: lines.map(|(index, option)| line(found, index, option, wanted)).collect(),
        more: found.options.len().saturating_sub(OPTIONS),
    })
}

fn line(found: &Recommendation<'_>, index: usize, option: &Choice<'_>, wanted: &RankingSpec) -> Line {
    let (mark, label) = match answer::mark(found, index) {
        ">" => ("choice", "choice"),
        "=" => ("equal", "may be the best"),
        "?" => ("", "undecided"),
        _ => ("", ""),
    };
    let number = |key: &str, value: f64| unit(key).map_or_else(|| format!("{value:.2}"), |unit| in_unit(value, unit));
    Line {
        mark,
        label,
        configuration: configuration(&option.row.axes),
        devices: option.row.about.devices.map_or(ABSENT.to_owned(), |devices| devices.to_string()),
        value: number(&wanted.rank_by, option.value),
        interval: answer::interval(option, &wanted.rank_by),
        latency: option.latency.map_or(ABSENT.to_owned(), |value| number(&wanted.latency, value)),
        n: option.n,
        front: option.on_front,
    }
}

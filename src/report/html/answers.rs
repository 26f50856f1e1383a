//! The answers as shown: what to use, why, how sure, the command, and the table of options.

use serde::Serialize;

use super::super::answer::{self, Mark, Told};
use super::super::display::{ABSENT, clean, cut, quantity};
use super::super::export::Analysis;
use crate::analyse::RankingSpec;
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
pub(super) fn of(analysis: &Analysis<'_>) -> Vec<Shown> {
    let wanted = &analysis.wanted;
    let one = |told: Told<'_, '_>| Shown {
        heading: cut(&told.title(), MODEL),
        found: told.found().map(|found| of_found(&found, wanted)),
        nothing: told.nothing(),
        left_out: told.left_out().take(LEFT_OUT).map(|(name, why)| (cut(name, 120), cut(why, 300))).collect(),
        left_out_more: told.left_out().len().saturating_sub(LEFT_OUT),
    };
    Told::all(analysis).map(one).collect()
}

fn of_found(found: &answer::Found<'_, '_>, wanted: &RankingSpec) -> Found {
    let answer::Found { recommendation, choice, .. } = found;
    let per = if recommendation.per_device { " per device" } else { "" };
    let mut metrics = vec![(format!("{}{per}", label(&wanted.rank_by)), amount(&wanted.rank_by, Some(choice.value)))];
    metrics.push((label(&wanted.latency), amount(&wanted.latency, choice.latency)));
    if let Some(devices) = choice.row.about.devices {
        metrics.push(("Devices".into(), devices.to_string()));
    }
    metrics.push(("Starts".into(), choice.n.to_string()));
    if let Some(noise) = recommendation.noise {
        metrics.push(("Noise".into(), format!("{:.1} %", 100.0 * noise)));
    }
    Found {
        name: clean(&choice.row.name),
        configuration: found.configuration(),
        metrics,
        sentences: found.sentences().iter().map(|sentence| clean(sentence)).collect(),
        warnings: found.warnings().iter().map(|warning| clean(warning)).collect(),
        single: !recommendation.basis.is_established(),
        sure: found.how_sure(),
        command: found.command(),
        options: found.options().take(OPTIONS).map(line).collect(),
        more: found.options().len().saturating_sub(OPTIONS),
    }
}

fn line(line: answer::Line<'_, '_>) -> Line {
    Line {
        mark: match line.mark {
            Mark::Choice => "choice",
            Mark::MayBeBest => "equal",
            Mark::Undecided | Mark::None => "",
        },
        label: line.mark.words(),
        devices: line.devices().unwrap_or_else(|| ABSENT.to_owned()),
        configuration: line.configuration,
        value: line.value,
        interval: line.interval,
        latency: line.latency.unwrap_or_else(|| ABSENT.to_owned()),
        n: line.option.n,
        front: line.option.on_front,
    }
}

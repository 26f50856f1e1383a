//! Configurations by a metric, best mean first, with those that may be the best.

use super::super::chart::{Bar, Bars, Body, Chart, Entry, Panel, Sampled};
use super::super::data::{Data, Shot, ends, is_better, mean_of, metric};
use super::super::kind::Plot;
use super::super::look::{Look, OTHERS};
use super::super::words::{in_sentence, intervals, with_unit};
use crate::analyse::{Estimate, RankingSpec, Recommendation, Row, Standing, choose};
use crate::model::{Better, Metric};
use crate::record::layout;
use crate::report::Refusal;
use crate::report::answer;

/// Bars on one sheet.
const BARS: usize = 40;
/// Panels on one sheet, one for each model and load.
const PANELS: usize = 6;

struct Ranked<'a> {
    label: String,
    estimate: Estimate,
    row: &'a Row,
    believed: bool,
}

/// Draws it.
///
/// # Errors
/// When no result has the metric, or more models and loads differ than fit on a sheet.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let named = data.query.metric.as_deref().or(data.query.y.as_deref());
    let asked = data.query.wanted(data.table);
    let usual = asked.rank_by.clone();
    let key = named.unwrap_or(&usual);
    let shown = metric("--metric", key)?;
    // Without a metric it is the answer of `recommend`; a metric that is named is shown as it stands in the results.
    let wanted = match named {
        None => asked,
        Some(key) => RankingSpec { per_device: false, ..RankingSpec::by(key, shown.better.unwrap_or(Better::Higher)) },
    };
    let (load, server): (Vec<String>, Vec<String>) = data.rest(&[]).into_iter().partition(|key| data.is_load(key));
    let groups = data.groups(&load);
    let sheets: Vec<_> = groups
        .iter()
        .filter_map(|group| {
            let rows: Vec<&Row> = group.shots.iter().map(|shot| shot.row).collect();
            let ranked = ranked(data, group.shots.clone(), &server, &shown, scale(&rows, &wanted));
            let found = choose(&in_order(data, &rows), &wanted).ok();
            (!ranked.is_empty()).then_some((group.label.clone(), ranked, found))
        })
        .collect();
    if sheets.is_empty() {
        return Err(Refusal::missing(
            format!("no result has `{key}`"),
            "choose another metric with `--metric KEY`".into(),
        ));
    }
    let panels_shown = sheets.len().min(PANELS);
    let bars = (BARS / panels_shown).max(5);
    let mut estimates = Vec::new();
    let (mut hidden, mut single) = (0, false);
    let per_device = sheets.iter().any(|(_, _, found)| found.as_ref().is_some_and(|found| found.per_device));
    let panels: Vec<Panel> = sheets
        .iter()
        .take(panels_shown)
        .map(|(title, ranked, found)| {
            single |= found.as_ref().is_none_or(|found| !found.basis.is_established());
            hidden += ranked.len().saturating_sub(bars);
            estimates.extend(ranked.iter().take(bars).map(|one| one.estimate));
            let best = |one: &Ranked<'_>| {
                shown.better.is_some() && found.as_ref().is_some_and(|found| may_be_best(found, one.row))
            };
            let rows = ranked.iter().take(bars).map(|one| bar(one, best(one), &shown));
            Panel {
                title: title.clone(),
                facts: String::new(),
                body: Body::Bars(Bars { label: wanted.objective(per_device), rows: rows.collect() }),
            }
        })
        .collect();
    let mut caption = data.caption();
    caption.push(intervals(&estimates));
    caption.extend(wanted.about());
    caption.push(match single {
        true => "Which one is best is not established: `vllm-bench recommend` says why.".into(),
        false => {
            "May be the best: the best is among these with a probability of 95 % (comparisons with the best).".into()
        }
    });
    let found = sheets.iter().take(panels_shown).filter_map(|(_, _, found)| found.as_ref());
    caption.extend(found.flat_map(answer::warnings).map(|warning| format!("Warning: {warning}.")));
    if hidden > 0 {
        caption.push(format!("The best {bars} of each model and load; … and {hidden} more."));
    }
    if sheets.len() > panels_shown {
        let (shown, all) = (panels_shown, sheets.len());
        caption.push(format!("The first {shown} of {all} models and loads; `--where KEY=VALUE` draws the others."));
    }
    let mut legend = vec![Entry {
        label: if single { "best mean".into() } else { "may be the best".into() },
        look: Look::of(0),
        sample: Sampled::Field,
    }];
    if sheets.iter().any(|(_, ranked, _)| ranked.len() > 1) {
        legend.push(Entry { label: "others".into(), look: Look { colour: LIGHT, ..OTHERS }, sample: Sampled::Field });
    }
    if sheets.iter().flat_map(|(_, ranked, _)| ranked).any(|one| !one.believed) {
        legend.push(Entry { label: "with warnings, not checked".into(), look: OTHERS, sample: Sampled::Field });
    }
    let chart = Chart {
        title: format!(
            "Configurations by {}{}",
            in_sentence(&shown.label),
            if per_device { " per device" } else { "" }
        ),
        subtitle: data.common(&[]),
        panels,
        columns: 1,
        legend,
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::ranking(key), chart }])
}

/// Bars that are not the best.
const LIGHT: &str = "#9cc7e3";

/// What every value of these rows is divided by.
fn scale<'r>(rows: &[&Row], wanted: &RankingSpec) -> impl Fn(&'r Row) -> f64 + use<'r> {
    let known = wanted.per_device && rows.iter().all(|row| row.about.devices.is_some_and(|devices| devices > 0));
    move |row: &Row| row.about.devices.filter(|_| known).map_or(1.0, |devices| 1.0 / f64::from(devices))
}

/// The rows of the table that share model and workload with these, failed ones too, as every answer asks them.
fn in_order<'a>(data: &Data<'a>, rows: &[&'a Row]) -> Vec<&'a Row> {
    let shares = |row: &&Row| {
        let same = |known: &&Row| known.axes.model == row.axes.model && known.axes.workload == row.axes.workload;
        !row.is_valid() && !row.is_skipped() && rows.iter().any(same)
    };
    let here = |row: &&Row| rows.iter().any(|known| std::ptr::eq(*known, *row));
    data.table.rows.iter().filter(|row| here(row) || shares(row)).collect()
}

/// Whether a configuration is in the set of the best; where there is no set, whether it is the choice.
fn may_be_best(found: &Recommendation<'_>, row: &Row) -> bool {
    let chosen = found.chosen().is_some_and(|choice| choice.row.is_of(row));
    chosen || found.options.iter().any(|option| option.standing == Standing::MayBeBest && option.row.is_of(row))
}

/// Configurations in the order of their means.
fn ranked<'a>(
    data: &Data<'a>,
    shots: Vec<&Shot<'a>>,
    server: &[String],
    shown: &Metric,
    scale: impl Fn(&'a Row) -> f64,
) -> Vec<Ranked<'a>> {
    let mut ranked: Vec<Ranked<'a>> = data
        .groups_of(shots, server)
        .into_iter()
        .filter_map(|one| {
            let first = one.shots.first()?.row;
            let by = scale(first);
            let value = |shot: &Shot<'_>| shot.row.metric(&shown.key).map(|value| value * by);
            let label = if one.label.is_empty() { "the only one".to_owned() } else { one.label };
            Some(Ranked {
                label,
                estimate: mean_of(&one.shots, &value)?,
                row: first,
                believed: one.shots.iter().all(|shot| shot.row.may_be_best()),
            })
        })
        .collect();
    ranked.sort_by(|a, b| {
        let (x, y) = (a.estimate.mean, b.estimate.mean);
        let order = if is_better(shown.better, x, y) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
        if x == y { a.label.cmp(&b.label) } else { order }
    });
    ranked
}

fn bar(one: &Ranked<'_>, best: bool, shown: &Metric) -> Bar {
    let look = match (one.believed, best) {
        (false, _) => OTHERS,
        (true, true) => Look::of(0),
        (true, false) => Look { colour: LIGHT, ..OTHERS },
    };
    let warning = if one.believed { "" } else { " (suspect)" };
    Bar {
        label: one.label.clone(),
        parts: vec![(one.estimate.mean.max(0.0), look)],
        range: ends(&one.estimate),
        within: Vec::new(),
        value: format!("{}{warning}", with_unit(one.estimate.mean, shown)),
    }
}

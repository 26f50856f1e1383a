//! Configurations by a figure, best first, with what cannot be told from the best.

use super::super::chart::{Bar, Bars, Body, Chart, Entry, Panel, Sampled};
use super::super::data::{Data, Shot, axis_label, ends, figure, in_sentence, intervals, is_better, mean_of, with_unit};
use super::super::kind::{Picture, Refusal};
use super::super::look::{Look, OTHERS};
use crate::analyse::{Basis, Candidate, Estimate, Figure, decide};
use crate::record::layout;

/// Bars on one sheet.
const BARS: usize = 40;
/// Panels on one sheet, one for each model and load.
const PANELS: usize = 6;

struct Ranked {
    label: String,
    estimate: Estimate,
    starts: Vec<Vec<f64>>,
    devices: u32,
    overrides: usize,
    believed: bool,
}

/// Draws it.
///
/// # Errors
/// When no result has the figure, or more models and loads differ than fit on a sheet.
pub fn draw(data: &Data<'_>) -> Result<Vec<Picture>, Refusal> {
    let key = data.query.figure.as_deref().or(data.query.y.as_deref()).unwrap_or("output_throughput");
    let shown = figure("--figure", key)?;
    let (load, server): (Vec<String>, Vec<String>) = data.rest(&[]).into_iter().partition(|key| data.is_load(key));
    let groups = data.groups(&load);
    let sheets: Vec<_> = groups
        .iter()
        .filter_map(|group| {
            let ranked = ranked(data, group.shots.clone(), &server, &shown);
            (!ranked.is_empty()).then_some((group.label.clone(), ranked))
        })
        .collect();
    if sheets.is_empty() {
        return Err(Refusal::missing(
            format!("no result has `{key}`"),
            "choose another figure with `--figure KEY`".into(),
        ));
    }
    let panels_shown = sheets.len().min(PANELS);
    let bars = (BARS / panels_shown).max(5);
    let mut estimates = Vec::new();
    let (mut hidden, mut single) = (0, false);
    let panels: Vec<Panel> = sheets
        .iter()
        .take(panels_shown)
        .map(|(title, ranked)| {
            let (set, basis) = best(ranked, &shown);
            single |= basis == Basis::Single;
            hidden += ranked.len().saturating_sub(bars);
            estimates.extend(ranked.iter().take(bars).map(|one| one.estimate));
            let rows = ranked.iter().take(bars).enumerate().map(|(i, one)| bar(one, set.contains(&i), &shown));
            Panel {
                title: title.clone(),
                facts: String::new(),
                body: Body::Bars(Bars { label: axis_label(key), rows: rows.collect() }),
            }
        })
        .collect();
    let mut caption = data.caption();
    caption.push(intervals(&estimates));
    caption.push(match single {
        true => "Nothing was repeated, so that nothing says how far the first can be trusted.".into(),
        false => "Cannot be told from the best: all pairs tested, corrected together (Holm), at 95 %.".into(),
    });
    if hidden > 0 {
        caption.push(format!("The best {bars} of each model and load; … and {hidden} more."));
    }
    if sheets.len() > panels_shown {
        let (shown, all) = (panels_shown, sheets.len());
        caption.push(format!("The first {shown} of {all} models and loads; `--where KEY=VALUE` draws the others."));
    }
    let mut legend = vec![Entry {
        label: if single { "best figure".into() } else { "cannot be told from the best".into() },
        look: Look::of(0),
        sample: Sampled::Field,
    }];
    if sheets.iter().any(|(_, ranked)| ranked.len() > 1) {
        legend.push(Entry { label: "others".into(), look: Look { colour: LIGHT, ..OTHERS }, sample: Sampled::Field });
    }
    if sheets.iter().flat_map(|(_, ranked)| ranked).any(|one| !one.believed) {
        legend.push(Entry { label: "doubtful, not asked".into(), look: OTHERS, sample: Sampled::Field });
    }
    let chart = Chart {
        title: format!("Configurations by {}", in_sentence(&shown.label)),
        subtitle: data.common(&[]),
        panels,
        columns: 1,
        legend,
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Picture { stem: layout::picture::ranking(key), chart }])
}

/// Bars that are not the best.
const LIGHT: &str = "#9cc7e3";

/// Configurations in the order of their means.
fn ranked<'a>(data: &Data<'a>, shots: Vec<&Shot<'a>>, server: &[String], shown: &Figure) -> Vec<Ranked> {
    let mut ranked: Vec<Ranked> = data
        .groups_of(shots, server)
        .into_iter()
        .filter_map(|one| {
            let value = |shot: &Shot<'_>| shot.row.figure(&shown.key);
            let first = one.shots.first()?.row;
            let label = if one.label.is_empty() { "the only one".to_owned() } else { one.label };
            Some(Ranked {
                label,
                estimate: mean_of(&one.shots, &value)?,
                starts: starts(&one.shots, &shown.key),
                devices: first.about.devices.unwrap_or(u32::MAX),
                overrides: first.about.overrides,
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

fn starts(shots: &[&Shot<'_>], key: &str) -> Vec<Vec<f64>> {
    let mut starts: indexmap::IndexMap<(&str, u32), Vec<f64>> = indexmap::IndexMap::new();
    for shot in shots {
        let number = shot.row.repeat.map_or(1, |repeat| repeat.start);
        starts.entry((&*shot.row.about.run, number)).or_default().extend(shot.row.figure(key));
    }
    starts.into_values().filter(|values| !values.is_empty()).collect()
}

/// Those that cannot be told from the best, by place.
fn best(ranked: &[Ranked], shown: &Figure) -> (Vec<usize>, Basis) {
    let believed: Vec<usize> = (0..ranked.len()).filter(|i| ranked[*i].believed).collect();
    let Some(better) = shown.better else { return (Vec::new(), Basis::Single) };
    let candidate = |i: &usize| Candidate {
        starts: ranked[*i].starts.clone(),
        devices: ranked[*i].devices,
        overrides: ranked[*i].overrides,
    };
    match decide(&believed.iter().map(candidate).collect::<Vec<_>>(), better, None) {
        Some(decision) if decision.basis != Basis::Single => {
            (decision.set.iter().filter_map(|i| believed.get(*i).copied()).collect(), decision.basis)
        }
        Some(decision) => (believed.get(decision.leader).copied().into_iter().collect(), Basis::Single),
        None => (believed.first().copied().into_iter().collect(), Basis::Single),
    }
}

fn bar(one: &Ranked, best: bool, shown: &Figure) -> Bar {
    let look = match (one.believed, best) {
        (false, _) => OTHERS,
        (true, true) => Look::of(0),
        (true, false) => Look { colour: LIGHT, ..OTHERS },
    };
    let doubt = if one.believed { "" } else { " (doubtful)" };
    Bar {
        label: one.label.clone(),
        parts: vec![(one.estimate.mean.max(0.0), look)],
        range: ends(&one.estimate),
        value: format!("{}{doubt}", with_unit(one.estimate.mean, shown)),
    }
}

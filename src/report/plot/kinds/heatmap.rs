//! A metric over two settings.

use indexmap::{IndexMap, IndexSet};

use super::super::chart::{Body, Chart, Heat, Panel};
use super::super::data::{Data, Group, Shot, is_better, mean_of, metric, setting};
use super::super::kind::{Over, Plot};
use super::super::words::{axis_label, key_words, word};
use crate::analyse::estimate;
use crate::model::Metric;
use crate::record::layout;
use crate::report::Refusal;

/// Panels on one sheet.
const PANELS: usize = 6;

/// Draws it: `--x` and `--y` are the settings, `--metric` is what the colours show.
///
/// # Errors
/// When no two settings have several values, or more models and loads differ than fit on a sheet.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let shown = metric("--metric", data.query.metric.as_deref().unwrap_or("output_throughput"))?;
    let (x, y) = axes(data)?;
    let rest = data.rest(&[&x, &y]);
    let (apart, over): (Vec<String>, Vec<String>) = rest.into_iter().partition(|key| data.is_load(key));
    let groups = data.groups(&apart);
    if groups.len() > PANELS {
        return Err(Refusal::missing(
            format!("there are {} different models and loads beside `{x}` and `{y}`", groups.len()),
            format!("choose one with `--where {}=VALUE`, or other axes with `--x KEY --y KEY`", apart[0]),
        ));
    }
    let panels: Vec<Panel> = groups.iter().filter_map(|group| panel(data, group, (&x, &y), &shown)).collect();
    if panels.is_empty() {
        return Err(Refusal::missing(
            format!("no result has `{}`", shown.key),
            "choose another metric with `--metric KEY`".into(),
        ));
    }
    let mut caption = data.caption();
    let which = match data.query.over {
        Over::Best => "the best",
        Over::Mean => "the mean",
    };
    caption.push(match over.is_empty() {
        true => "Each cell is the mean over the repeats of its configuration.".into(),
        false => format!("Each cell is {which} over all values of {} (means over repeats).", over.join(", ")),
    });
    caption.push("The red frame is the best cell. A cell with a dash was not measured, or has no valid result.".into());
    if panels.len() > 1 {
        caption.push("Each panel has colours of its own.".into());
    }
    let chart = Chart {
        title: format!("{} by {} and {}", shown.label, key_words(&y), key_words(&x)),
        subtitle: data.common(&[&x, &y]),
        columns: if panels.len() > 1 { 2 } else { 1 },
        panels,
        legend: Vec::new(),
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::HEATMAP.into(), chart }])
}

/// The axes as asked for; else the two settings with the most values, those of the load and the model first, as cells never mix
/// them.
fn axes(data: &Data<'_>) -> Result<(String, String), Refusal> {
    let mut free = data.rest(&["max-concurrency"]);
    if data.differing.iter().any(|key| key == "max-concurrency") {
        free.push("max-concurrency".into());
    }
    let values = |key: &str| data.shots.iter().map(|shot| setting(shot.row, key)).collect::<IndexSet<_>>().len();
    free.sort_by_key(|key| (!data.is_load(key), std::cmp::Reverse(values(key))));
    let mut take = |flag: &str, wanted: Option<&String>, other: Option<&str>| -> Result<Option<String>, Refusal> {
        let found = match wanted {
            Some(key) => Some(data.known(flag, key)?),
            None => free.iter().find(|key| Some(key.as_str()) != other).cloned(),
        };
        free.retain(|key| Some(key) != found.as_ref());
        Ok(found)
    };
    let asked = data.query.y.as_deref().map(super::super::data::full_key);
    let x = take("--x", data.query.x.as_ref(), asked.as_deref())?;
    let y = take("--y", data.query.y.as_ref(), x.as_deref())?;
    match (x, y) {
        (Some(x), Some(y)) if x != y => Ok((x, y)),
        _ => Err(Refusal::missing(
            "a heat map needs two settings with several values, and the measurements do not have them".into(),
            "sweep two: `max-num-seqs: [64, 256]` and `max-concurrency: [8, 32]` in a sweep file".into(),
        )),
    }
}

fn panel(data: &Data<'_>, group: &Group<'_, '_>, (x, y): (&str, &str), shown: &Metric) -> Option<Panel> {
    let names = |key: &str| -> Vec<Option<String>> {
        let groups = data.groups_of(group.shots.clone(), &[key.to_owned()]);
        let first = |group: &Group<'_, '_>| setting(group.shots.first()?.row, key).map(std::borrow::Cow::into_owned);
        groups.iter().map(first).collect()
    };
    let (columns, rows) = (names(x), names(y));
    let over: Vec<String> = data.rest(&[x, y]);
    let mut places: IndexMap<[Option<String>; 2], Vec<&Shot<'_>>> = IndexMap::new();
    for shot in group.shots.iter().copied() {
        let place = [x, y].map(|key| setting(shot.row, key).map(std::borrow::Cow::into_owned));
        places.entry(place).or_default().push(shot);
    }
    let cell = |column: &Option<String>, row: &Option<String>| {
        let configurations = data.groups_of(places.get(&[column.clone(), row.clone()])?.clone(), &over);
        let means: Vec<f64> = configurations
            .iter()
            .filter_map(|one| Some(mean_of(&one.shots, &|shot| shot.row.metric(&shown.key))?.mean))
            .collect();
        match data.query.over {
            Over::Mean => estimate(&means).map(|estimate| estimate.mean),
            Over::Best => means.into_iter().reduce(|a, b| if is_better(shown.better, a, b) { a } else { b }),
        }
    };
    let cells: Vec<Vec<Option<f64>>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect();
    let mut best: Option<(usize, usize, f64)> = None;
    for (i, row) in cells.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            if let Some(value) = value
                && best.is_none_or(|(_, _, known)| is_better(shown.better, *value, known))
            {
                best = Some((i, j, *value));
            }
        }
    }
    let best = best?;
    let models: IndexSet<&str> = data.shots.iter().map(|shot| shot.row.axes.model.as_str()).collect();
    let name = |key: &str, value: &Option<String>| match (key, value) {
        ("model" | "quantization" | "enforce-eager", value) => word(key, value.as_deref(), &models),
        (_, Some(value)) => crate::report::display::clean(value),
        (_, None) => "not set".into(),
    };
    Some(Panel {
        title: group.label.clone(),
        facts: String::new(),
        body: Body::Heat(Heat {
            x_label: axis_label(x),
            y_label: axis_label(y),
            xs: columns.iter().map(|value| name(x, value)).collect(),
            ys: rows.iter().map(|value| name(y, value)).collect(),
            cells,
            label: format!("{} ({})", shown.label, shown.unit.symbol()),
            best: shown.better.map(|_| (best.0, best.1)),
        }),
    })
}

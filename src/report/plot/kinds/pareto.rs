//! What is gained against what is waited for: each configuration a point, the front, and the recommended one.

use indexmap::IndexMap;

use super::super::chart::{Axis, Body, Chart, Entry, Panel, Point, Sampled, Series, Shape, Xy};
use super::super::data::{Data, Shot, ends, mean_of, metric};
use super::super::kind::Plot;
use super::super::look::{Dash, Look, MARKED, Marker, NAMED, OTHERS};
use super::super::scale::{Counting, Scale};
use super::super::words::{axis_label, in_sentence, intervals};
use super::lines::{legend, named};
use crate::analyse::{Estimate, RankingSpec, Row};
use crate::model::{Better, Metric};
use crate::record::layout;
use crate::report::Refusal;
use crate::report::answer;
use crate::report::export::Analysis;
use crate::report::front::front;

/// A configuration on the plot.
struct Spot {
    label: String,
    point: Point,
    estimates: [Estimate; 2],
    believed: bool,
    recommended: bool,
}

/// Configurations of one model and load.
struct Cloud {
    label: String,
    spots: Vec<Spot>,
}

/// Draws it.
///
/// # Errors
/// When no result has both metrics.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let asked = data.query.wanted(data.table);
    // An objective that is a latency is no gain: throughput is drawn against latency all the same.
    let usual = if asked.better == Better::Higher { asked.rank_by.as_str() } else { "output_throughput" };
    let (x, y) = (data.query.x.as_deref().unwrap_or(&asked.latency), data.query.y.as_deref());
    let y = y.or(data.query.metric.as_deref()).unwrap_or(usual);
    let (latency, gain) = (metric("--x", x)?, metric("--y", y)?);
    let better = gain.better.unwrap_or(Better::Higher);
    let of_all = if y == asked.rank_by { asked.per_device } else { Metric::is_of_all_devices(y) };
    let per_device = of_all && data.shots.iter().all(|shot| shot.row.about.devices.is_some_and(|devices| devices > 0));
    let wanted = RankingSpec {
        rank_by: y.into(),
        better,
        per_device,
        latency: x.into(),
        limits: Vec::new(),
        ..RankingSpec::default()
    };
    let analysis = Analysis::by(data.table, Vec::new(), asked.clone());
    let clouds = clouds(data, &wanted, &analysis);
    if clouds.is_empty() {
        return Err(Refusal::missing(
            format!("no result has both `{x}` and `{y}`"),
            "`vllm-bench analyze` lists the metrics of the results".into(),
        ));
    }
    let peaks: Vec<(usize, Vec<f64>)> = clouds
        .iter()
        .enumerate()
        .map(|(i, cloud)| (i, cloud.spots.iter().map(|spot| spot.point.y).collect()))
        .collect();
    let named = named(&peaks, Some(better), NAMED);
    let mut series = Vec::new();
    for (i, cloud) in clouds.iter().enumerate() {
        let look = super::lines::look(&named, i);
        series.push(Series {
            points: steps(cloud, better),
            look: Look { dash: Dash::Solid, width: 1.4, ..look },
            shape: Shape::Bare,
        });
        let quiet = clouds.iter().map(|cloud| cloud.spots.len()).sum::<usize>() > 60;
        let of = |believed: bool| cloud.spots.iter().filter(move |spot| spot.believed == believed);
        let plain = |spot: &Spot| Point { x_range: None, y_range: None, ..spot.point };
        let points = of(true).map(|spot| if quiet && !spot.recommended { plain(spot) } else { spot.point }).collect();
        series.push(Series { points, look, shape: Shape::Cloud });
        let warned = Look { marker: Marker::Cross, ..OTHERS };
        series.push(Series { points: of(false).map(plain).collect(), look: warned, shape: Shape::Cloud });
        let recommended = cloud.spots.iter().filter(|spot| spot.recommended).map(plain).collect();
        series.push(Series { points: recommended, look: MARKED, shape: Shape::Marks });
    }
    let all = || clouds.iter().flat_map(|cloud| &cloud.spots);
    let xs =
        all().flat_map(|s| [Some(s.point.x), s.point.x_range.map(|r| r.1), s.point.x_range.map(|r| r.0)]).flatten();
    let ys =
        all().flat_map(|s| [Some(s.point.y), s.point.y_range.map(|r| r.1), s.point.y_range.map(|r| r.0)]).flatten();
    let label = if per_device { format!("{} per device ({})", gain.label, gain.unit.symbol()) } else { axis_label(y) };
    let (low, high) = all().fold((f64::INFINITY, 0.0f64), |(l, h), s| (l.min(s.point.x), h.max(s.point.x)));
    let log = low > 0.0 && high / low > 20.0;
    let counting = if log { Counting::Log10 } else { Counting::Linear };
    let xs: Vec<f64> = if log { all().map(|spot| spot.point.x).collect() } else { xs.map(|x| x.max(0.0)).collect() };
    let panel = Xy {
        x: Axis { label: axis_label(x), scale: Scale::of(counting, xs, true), ticks: None },
        y: Axis { label: label.clone(), scale: Scale::of(Counting::Linear, ys.map(|y| y.max(0.0)), true), ticks: None },
        series,
        bins: Vec::new(),
        boxes: Vec::new(),
        verticals: Vec::new(),
    };
    let chart = Chart {
        title: format!(
            "{} against {}",
            label.rsplit_once(" (").map_or(label.as_str(), |(words, _)| words),
            in_sentence(&latency.label)
        ),
        subtitle: data.common(&[]),
        panels: vec![Panel { title: String::new(), facts: String::new(), body: Body::Xy(Box::new(panel)) }],
        columns: 1,
        legend: entries(&clouds, &named),
        caption: caption(data, &clouds, named.len(), better, &analysis),
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::PARETO.into(), chart }])
}

/// The configurations by model and load, with the choice of `recommend` among each.
fn clouds(data: &Data<'_>, wanted: &RankingSpec, analysis: &Analysis<'_>) -> Vec<Cloud> {
    let keys: Vec<String> = data.rest(&[]);
    let (load, server): (Vec<String>, Vec<String>) = keys.into_iter().partition(|key| data.is_load(key));
    let answers = analysis.answers().iter().filter_map(|answer| answer.choice.as_ref().ok());
    let chosen: Vec<&Row> = answers.filter_map(|found| Some(found.chosen()?.row)).collect();
    let mut clouds = Vec::new();
    for group in data.groups(&load) {
        let scale = |row: &Row| match row.about.devices {
            Some(devices) if wanted.per_device => 1.0 / f64::from(devices.max(1)),
            _ => 1.0,
        };
        let mut spots = Vec::new();
        for one in data.groups_of(group.shots.clone(), &server) {
            let value = |shot: &Shot<'_>| shot.row.metric(&wanted.rank_by).map(|value| value * scale(shot.row));
            let latency = |shot: &Shot<'_>| shot.row.metric(&wanted.latency);
            let (Some(y), Some(x)) = (mean_of(&one.shots, &value), mean_of(&one.shots, &latency)) else { continue };
            spots.push(Spot {
                point: Point { x: x.mean, y: y.mean, x_range: ends(&x), y_range: ends(&y) },
                estimates: [x, y],
                believed: one.shots.iter().all(|shot| shot.row.may_be_best()),
                recommended: one.shots.iter().any(|shot| chosen.iter().any(|row| std::ptr::eq(*row, shot.row))),
                label: one.label,
            });
        }
        if !spots.is_empty() {
            clouds.push(Cloud { label: group.label, spots });
        }
    }
    clouds
}

/// From the lowest latency to the best metric, in steps: what no other beats in both.
fn steps(cloud: &Cloud, better: Better) -> Vec<Point> {
    let spots: Vec<&Spot> = cloud.spots.iter().filter(|spot| spot.believed).collect();
    let places: Vec<(f64, f64)> = spots.iter().map(|spot| (spot.point.x, spot.point.y)).collect();
    let mut points: Vec<Point> = Vec::new();
    for index in front(&places, (Better::Lower, better)) {
        let (x, y) = places[index];
        let corner = points.last().map(|last| Point { x, y: last.y, ..Point::default() });
        points.extend(corner);
        points.push(Point { x, y, ..Point::default() });
    }
    points
}

fn entries(clouds: &[Cloud], named: &[usize]) -> Vec<Entry> {
    let chosen = |cloud: &Cloud| {
        let spot = cloud.spots.iter().find(|spot| spot.recommended).filter(|spot| !spot.label.is_empty());
        spot.map(|spot| format!("recommended: {}", spot.label))
    };
    let labels: Vec<String> = clouds
        .iter()
        .map(|cloud| {
            let parts = [Some(cloud.label.clone()).filter(|label| !label.is_empty()), chosen(cloud)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
        })
        .collect();
    let mut entries = legend(&labels, named, clouds.len(), Sampled::LineAndMark);
    let label = if clouds.len() == 1 {
        chosen(&clouds[0]).unwrap_or_else(|| "recommended".into())
    } else {
        "recommended".into()
    };
    if clouds.iter().flat_map(|cloud| &cloud.spots).any(|spot| spot.recommended) {
        entries.push(Entry { label, look: MARKED, sample: Sampled::Mark });
    }
    if clouds.iter().flat_map(|cloud| &cloud.spots).any(|spot| !spot.believed) {
        let look = Look { marker: Marker::Cross, ..OTHERS };
        entries.push(Entry { label: "with warnings, not checked".into(), look, sample: Sampled::Mark });
    }
    entries
}

fn caption(data: &Data<'_>, clouds: &[Cloud], named: usize, better: Better, analysis: &Analysis<'_>) -> Vec<String> {
    let mut caption = data.caption();
    let spots: usize = clouds.iter().map(|cloud| cloud.spots.len()).sum();
    caption.push(format!(
        "{spots} configurations. The line joins what no other of its model and load beats in both ({} and less latency).",
        if better == Better::Higher { "more" } else { "less" }
    ));
    let estimates: Vec<Estimate> = clouds.iter().flat_map(|c| &c.spots).flat_map(|spot| spot.estimates).collect();
    caption.push(intervals(&estimates));
    if spots > 60 && estimates.iter().any(|estimate| estimate.n > 1) {
        caption.push("Above 60 configurations only the recommended ones show their intervals.".into());
    }
    if clouds.len() > named {
        caption.push(format!(
            "Named are the {named} of {} models and loads with the best metric; the others are grey.",
            clouds.len()
        ));
    }
    let asked = &analysis.wanted;
    let limits = asked.about().map(|said| format!(" {said}")).unwrap_or_default();
    caption.push(format!(
        "Recommended: by {}, as `vllm-bench recommend` says.{limits}",
        asked.objective(asked.per_device)
    ));
    let found = analysis.answers().iter().filter_map(|answer| answer.choice.as_ref().ok());
    caption.extend(found.flat_map(answer::warnings).map(|warning| format!("Warning: {warning}.")));
    // The same sentence for every model and load is said once.
    let mut known = IndexMap::new();
    caption.retain(|line| known.insert(line.clone(), ()).is_none());
    caption
}

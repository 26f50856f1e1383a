//! What devices and server did in the course of the measurements.

use super::super::chart::{Axis, Body, Chart, Panel, Point, Sampled, Series, Shape, Xy};
use super::super::data::{Data, Shot};
use super::super::kind::Plot;
use super::super::look::NAMED;
use super::super::scale::{Counting, Scale};
use super::lines::{legend, look, metric_axis, named};
use crate::analyse::{Moment, token_rate};
use crate::model::Better;
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::Sample;

/// What a panel shows: its axis, and the value of a moment.
type Of = (&'static str, fn(&Moment) -> Option<f64>);

/// The panels below the throughput, in reading order; those of which nothing is known are left out.
const PANELS: [Of; 6] = [
    ("Power of the devices (W)", |moment| moment.power_w),
    ("Use of the devices (%)", |moment| moment.utilization_pct),
    ("Clock of the devices (MHz)", |moment| moment.clock_mhz),
    ("Temperature of the warmest (°C)", |moment| moment.temperature_c),
    ("Requests that the server works on", |moment| moment.running),
    ("Processors of the server (100 % = one core)", |moment| moment.server_cpu_pct),
];

/// Draws it: every measurement is a line.
///
/// # Errors
/// When no measurement has a series of samples.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let mut unusable = 0;
    let mut read = |shot: &Shot<'_>| {
        let moments = crate::results::read_samples(shot.row);
        unusable += usize::from(moments.is_err());
        moments.ok().flatten().filter(|moments| !moments.is_empty())
    };
    let all: Vec<(&Shot<'_>, Vec<Moment>)> =
        data.shots.iter().filter_map(|shot| read(shot).map(|moments| (shot, moments))).collect();
    if all.is_empty() {
        return Err(Refusal::missing(
            "no measurement has samples of devices and server".into(),
            "measure with `vllm-bench run --telemetry 1s`: the default on real servers".into(),
        ));
    }
    let rates: Vec<Vec<Point>> = all.iter().map(|(_, moments)| points(token_rate(moments))).collect();
    let middle = |points: &Vec<Point>| Some(Sample::new(points.iter().map(|point| point.y))?.median());
    let peaks: Vec<(usize, Vec<f64>)> =
        rates.iter().enumerate().filter_map(|(i, points)| Some((i, vec![middle(points)?]))).collect();
    let names = named(&peaks, Some(Better::Higher), NAMED);
    let of_panel = |of: fn(&Moment) -> Option<f64>| -> Vec<Vec<Point>> {
        let course = |moments: &Vec<Moment>| points(moments.iter().filter_map(|moment| Some((moment.at, of(moment)?))));
        all.iter().map(|(_, moments)| course(moments)).collect()
    };
    let end = all.iter().filter_map(|(_, moments)| moments.last()).map(|moment| moment.at).fold(0.0, f64::max);
    let mut panels = Vec::new();
    let courses = PANELS.into_iter().map(|(label, of)| (label, of_panel(of)));
    for (label, courses) in std::iter::once(("Output throughput (tok/s)", rates.clone())).chain(courses) {
        if courses.iter().all(Vec::is_empty) {
            continue;
        }
        let series = courses.into_iter().enumerate().filter(|(_, points)| !points.is_empty());
        let mut series: Vec<Series> =
            series.map(|(i, points)| Series { points, look: look(&names, i), shape: Shape::Bare }).collect();
        series.sort_by(|a, b| a.look.width.total_cmp(&b.look.width));
        let ys: Vec<f64> = series.iter().flat_map(|series| series.points.iter().map(|point| point.y)).collect();
        let scale = Scale::of(Counting::Linear, vec![0.0, end], true);
        let x = Axis { label: "Seconds since the first sample".into(), scale, ticks: None };
        let y = metric_axis(label.into(), &ys);
        let xy = Xy { x, y, series, bins: Vec::new(), boxes: Vec::new(), verticals: Vec::new() };
        panels.push(Panel { title: String::new(), facts: String::new(), body: Body::Xy(Box::new(xy)) });
    }
    if panels.is_empty() {
        return Err(Refusal::missing(
            "the samples say nothing of devices or server".into(),
            "measure longer, or sample more often: `vllm-bench run --telemetry 0.2s`".into(),
        ));
    }
    let mut caption = data.caption();
    caption.push("The first samples are taken before the first request. Throughput is what the server counted between two samples.".into());
    if data.simulated() {
        caption
            .push("Seconds are those of this machine: a simulated server plays its times faster (--sim-speed).".into());
    }
    let without = data.shots.len() - all.len() - unusable;
    if without > 0 {
        caption.push(format!("{without} measured without samples and not shown."));
    }
    if unusable > 0 {
        caption.push(format!("{unusable} with samples that cannot be read and not shown."));
    }
    let labels: Vec<String> = all.iter().map(|(shot, _)| shot.row.name.clone()).collect();
    Ok(vec![Plot {
        stem: layout::plot::of(&data.run_name(), "telemetry"),
        chart: Chart {
            title: "Devices and server over time".into(),
            subtitle: String::new(),
            columns: panels.len().min(2),
            panels,
            legend: legend(&labels, &names, labels.len(), Sampled::Line),
            caption,
            simulated: data.simulated(),
        },
    }])
}

fn points(values: impl IntoIterator<Item = (f64, f64)>) -> Vec<Point> {
    let points = values.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    points.map(|(x, y)| Point { x, y, ..Point::default() }).collect()
}

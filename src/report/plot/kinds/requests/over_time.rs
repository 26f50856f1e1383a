//! A metric of requests in the course of the measurement.

use super::super::super::chart::{Axis, Body, Chart, Panel, Point, Sampled, Series, Shape, Xy};
use super::super::super::data::{Data, Group, Shot};
use super::super::super::kind::Plot;
use super::super::super::look::NAMED;
use super::super::super::scale::{Counting, Scale};
use super::super::lines::{legend, look, named};
use super::{Of, RANKS, caption, refused, sheets, subtitle, xy};
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::{self, Sample};

/// Measurements whose single requests are shown beside their moving averages.
const CLOUDS: usize = 4;

/// A metric of requests against the time at which they were sent.
///
/// # Errors
/// As [`super::histogram`].
pub fn over_time(data: Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let of = data.query.y.as_deref().or(data.query.metric.as_deref()).map_or(Ok(Of::Ttft), Of::parse)?;
    let data = data.with_requests().only_with_requests()?;
    let (file, label, _) = of.facts();
    let mut plots = Vec::new();
    for sheet in sheets(&data)? {
        // Times of different measurements are not one time: each measurement is a series.
        let timed = sheet.groups.iter().flat_map(|group| &group.shots).all(|shot| has_times(of, shot));
        let courses: Vec<(String, Vec<Point>)> = sheet
            .groups
            .iter()
            .flat_map(|group| group.shots.iter().map(move |shot| (group, *shot)))
            .map(|(group, shot)| (name(group, shot), course(of, shot, timed)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        if courses.is_empty() {
            return Err(refused(of));
        }
        let total = courses.len();
        let peaks: Vec<(usize, Vec<f64>)> = courses
            .iter()
            .enumerate()
            .filter_map(|(i, (_, points))| Some((i, vec![Sample::new(points.iter().map(|p| p.y))?.median()])))
            .collect();
        let named = named(&peaks, of.better(), NAMED);
        let mut all = Vec::new();
        for (i, (_, points)) in courses.iter().enumerate().filter(|_| total <= CLOUDS) {
            all.push(Series { points: points.clone(), look: look(&named, i), shape: Shape::Dust });
        }
        let mut averages: Vec<Series> = courses
            .iter()
            .enumerate()
            .map(|(i, (_, points))| Series { points: moving(points), look: look(&named, i), shape: Shape::Bare })
            .collect();
        averages.sort_by(|a, b| a.look.width.total_cmp(&b.look.width));
        all.extend(averages);
        let xs: Vec<f64> = courses.iter().flat_map(|(_, points)| points.iter().map(|p| p.x)).collect();
        let ys: Vec<f64> = all.iter().flat_map(|series| series.points.iter().map(|p| p.y)).collect();
        let label_x = if timed { "Time since the first request (s)" } else { "Requests in the order of their sending" };
        let x = Axis { label: label_x.into(), scale: Scale::of(Counting::Linear, xs, true), ticks: None };
        let y = super::super::lines::metric_axis(of.label(), &ys);
        let mut caption = caption(&data, &sheet);
        caption.retain(|line| !line.starts_with("Requests of repeats"));
        if !timed {
            caption.push("These results do not say when requests were sent (`--client builtin` records it).".into());
        }
        let points = if total <= CLOUDS { "Points are requests; lines" } else { "Lines" };
        caption.push(format!("{points} are centred moving averages over max(5, n/20) requests."));
        if total > CLOUDS {
            caption.push(format!("Single requests are drawn for up to {CLOUDS} measurements."));
        }
        if total > named.len() {
            caption
                .push(format!("Named are the {} of {total} with the best median; the others are grey.", named.len()));
        }
        let labels: Vec<String> = courses.into_iter().map(|(label, _)| label).collect();
        plots.push(Plot {
            stem: layout::plot::of(&sheet.id, &format!("{file}_over_time")),
            chart: Chart {
                title: format!("{label} over time"),
                subtitle: subtitle(&data, &sheet),
                panels: vec![Panel {
                    title: String::new(),
                    facts: String::new(),
                    body: Body::Xy(Box::new(Xy { series: all, ..xy(x, y) })),
                }],
                columns: 1,
                legend: legend(&labels, &named, total, Sampled::Line),
                caption,
                simulated: data.simulated(),
            },
        });
    }
    Ok(plots)
}

/// The configuration and which of its measurements.
fn name(group: &Group<'_, '_>, shot: &Shot<'_>) -> String {
    let label = if group.label.is_empty() { shot.row.name.as_str() } else { group.label.as_str() };
    match shot.row.repeat.filter(|_| group.shots.len() > 1) {
        Some(repeat) => format!("{label}, start {} run {}", repeat.start, repeat.run),
        None => label.to_owned(),
    }
}

/// Whether it is known when each request was sent.
fn has_times(of: Of, shot: &Shot<'_>) -> bool {
    shot.requests.as_ref().is_some_and(|requests| requests.start_s.len() == of.values(shot).len())
}

/// The requests by the time of their sending; where that is not recorded, by their number.
fn course(of: Of, shot: &Shot<'_>, timed: bool) -> Vec<Point> {
    let values = of.values(shot);
    let Some(requests) = &shot.requests else { return Vec::new() };
    // TPOT has no value for an answer of one token: the values are no longer those of the requests in their order.
    if values.len() != requests.len() {
        return Vec::new();
    }
    let x = |i: usize| if timed { requests.start_s[i] } else { (i + 1) as f64 };
    let points = values.into_iter().enumerate().map(|(i, y)| Point { x: x(i), y, ..Point::default() });
    points.filter(|point| point.x.is_finite() && point.y.is_finite()).collect()
}

/// The centred moving average over max(5, n/20) requests (S3); at the ends over those that there are.
fn moving(points: &[Point]) -> Vec<Point> {
    let n = points.len();
    let half = (n / 20).max(5) / 2;
    let mean = |i: usize| {
        let window = &points[i.saturating_sub(half)..(i + half + 1).min(n)];
        stats::mean(window.iter().map(|point| point.y)).unwrap_or(f64::NAN)
    };
    let every = n.div_ceil(RANKS).max(1);
    (0..n).step_by(every).map(|i| Point { x: points[i].x, y: mean(i), ..Point::default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moving_average_is_centred_and_as_wide_as_asked() {
        let points: Vec<Point> =
            (0..10).map(|i| Point { x: f64::from(i), y: f64::from(i), ..Point::default() }).collect();
        let means: Vec<f64> = moving(&points).iter().map(|p| p.y).collect();
        assert_eq!(means[..3], [1.0, 1.5, 2.0]);
        assert_eq!(means[5], 5.0);
    }
}

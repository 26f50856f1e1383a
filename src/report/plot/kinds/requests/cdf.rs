//! The share of requests below each value.

use super::super::super::chart::{Axis, Body, Chart, Entry, Panel, Point, Sampled, Series, Shape, Vertical};
use super::super::super::data::Data;
use super::super::super::kind::Plot;
use super::super::super::look::{Dash, Look, NAMED};
use super::super::super::scale::{Counting, Scale, short};
use super::super::lines::{legend, look, named};
use super::{Of, RANKS, caption, refused, sheets, subtitle, xy};
use crate::analyse::samples_beyond;
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::Sample;

/// The percentiles that are marked, with the number of their look and their dash.
const PERCENTILES: [(f64, usize, Dash); 3] = [(0.5, 1, Dash::Long), (0.95, 3, Dash::StrokeDot), (0.99, 5, Dash::Dots)];

/// The share of requests below each value.
///
/// # Errors
/// When the results do not tell single requests apart.
pub fn cdf(data: Data<'_>, of: Of) -> Result<Vec<Plot>, Refusal> {
    let data = data.with_requests().only_with_requests()?;
    let (file, label, unit) = of.facts();
    let mut plots = Vec::new();
    for sheet in sheets(&data)? {
        let samples: Vec<(usize, Sample)> =
            sheet.groups.iter().enumerate().filter_map(|(i, group)| Some((i, of.sample(&group.shots)?))).collect();
        if samples.is_empty() {
            return Err(refused(of));
        }
        let medians: Vec<(usize, Vec<f64>)> = samples.iter().map(|(i, sample)| (*i, vec![sample.median()])).collect();
        let named = named(&medians, of.better(), NAMED);
        let (low, high) =
            samples.iter().fold((f64::INFINITY, 0.0f64), |(l, h), (_, s)| (l.min(s.min()), h.max(s.max())));
        let counting = if low > 0.0 && high / low > 30.0 { Counting::Log10 } else { Counting::Linear };
        let x = Axis { label: of.label(), scale: Scale::of(counting, [low, high], true), ticks: None };
        let y = Axis { label: "Share of requests".into(), scale: Scale::exact(0.0, 1.0), ticks: None };
        let mut panel = xy(x, y);
        let curve = |(i, sample): &(usize, Sample)| Series {
            points: ranks(sample),
            look: look(&named, *i),
            shape: Shape::Steps,
        };
        let (front, back): (Vec<_>, Vec<_>) = samples.iter().partition(|(i, _)| named.contains(i));
        panel.series = back.into_iter().chain(front).map(curve).collect();
        let mut caption = caption(&data, &sheet);
        let mut labels: Vec<String> = sheet.groups.iter().map(|group| group.label.clone()).collect();
        let (mut facts, mut entries) = (String::new(), Vec::new());
        if let [(_, sample)] = samples.as_slice() {
            panel.verticals = PERCENTILES
                .into_iter()
                .map(|(q, n, dash)| Vertical {
                    at: sample.quantile(q).unwrap_or_default(),
                    look: Look { dash, ..Look::of(n) },
                })
                .collect();
            facts = statistics(sample, unit).join(", ");
            let line = |(q, n, dash)| Entry {
                label: percentile(sample, q, unit),
                look: Look { dash, ..Look::of(n) },
                sample: Sampled::Line,
            };
            entries = PERCENTILES.into_iter().map(line).collect();
        } else {
            for (i, sample) in &samples {
                let n = sample.sorted().len();
                let parts = [percentile(sample, 0.5, unit), percentile(sample, 0.99, unit)];
                labels[*i] = format!("{} · n {n} · {}", labels[*i], parts.join(" · "));
            }
        }
        entries.extend(legend(&labels, &named, samples.len(), Sampled::Line));
        caption.push("Step i of n sorted requests stands at i/n. Completed requests only.".into());
        if samples.len() > named.len() {
            let best = format!(
                "Named are the {} of {} with the best median; the others are grey.",
                named.len(),
                samples.len()
            );
            caption.push(best);
        }
        plots.push(Plot {
            stem: layout::plot::of(&sheet.id, &format!("{file}_cdf")),
            chart: Chart {
                title: format!("{label}: share of requests"),
                subtitle: subtitle(&data, &sheet),
                panels: vec![Panel { title: String::new(), facts, body: Body::Xy(Box::new(panel)) }],
                columns: 1,
                legend: entries,
                caption,
                simulated: data.simulated(),
            },
        });
    }
    Ok(plots)
}

/// At most [`RANKS`] of the steps, the last among them.
fn ranks(sample: &Sample) -> Vec<Point> {
    let values = sample.sorted();
    let n = values.len();
    let every = n.div_ceil(RANKS).max(1);
    let at = |i: usize| Point { x: values[i], y: (i + 1) as f64 / n as f64, ..Point::default() };
    let mut points: Vec<Point> = (0..n).step_by(every).map(at).collect();
    if !(n - 1).is_multiple_of(every) {
        points.push(at(n - 1));
    }
    points
}

/// `p99 41.2 ms`, with a word where few values carry it.
fn percentile(sample: &Sample, q: f64, unit: &str) -> String {
    let value = sample.quantile(q).unwrap_or_default();
    let carried = samples_beyond(sample.sorted().len() as u64, q);
    let name = short(q * 100.0);
    let rests = if carried < 5 { format!(" (of {carried} at or beyond)") } else { String::new() };
    format!("p{name} {} {unit}{rests}", short(value))
}

/// S3's box: n, mean, std, min, max.
fn statistics(sample: &Sample, unit: &str) -> Vec<String> {
    let values = sample.sorted();
    let deviation = crate::analyse::estimate(values).and_then(|estimate| estimate.sd);
    let mut lines = vec![format!("n = {}", values.len()), format!("mean = {} {unit}", short(sample.mean()))];
    lines.extend(deviation.map(|sd| format!("std = {} {unit}", short(sd))));
    lines.push(format!("min = {} {unit}", short(sample.min())));
    lines.push(format!("max = {} {unit}", short(sample.max())));
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_curve_ends_at_all_requests(values in proptest::collection::vec(0.0f64..1e4, 1..3000)) {
            let points = ranks(&Sample::new(values.iter().copied()).unwrap());
            prop_assert!(points.len() <= RANKS + 1);
            prop_assert_eq!(points.last().unwrap().y, 1.0);
        }
    }
}

//! How a metric of requests is distributed.

use super::super::super::chart::{Axis, Bin, Body, Chart, Panel, Xy};
use super::super::super::data::{Data, Group};
use super::super::super::kind::Plot;
use super::super::super::scale::{Counting, Scale, short};
use super::{Of, caption, refused, sheets, subtitle, xy};
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::Sample;

/// Panels of histograms on one sheet.
const PANELS: usize = 6;

/// How a metric of requests is distributed.
///
/// # Errors
/// When the results do not tell single requests apart, or the metric is unknown.
pub fn histogram(data: Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let of = data.query.y.as_deref().or(data.query.metric.as_deref()).map_or(Ok(Of::Ttft), Of::parse)?;
    let data = data.with_requests().only_with_requests()?;
    let (file, label, unit) = of.facts();
    let mut plots = Vec::new();
    for sheet in sheets(&data)? {
        let samples: Vec<(&Group<'_, '_>, Sample)> =
            sheet.groups.iter().filter_map(|group| Some((group, of.sample(&group.shots)?))).collect();
        if samples.is_empty() {
            return Err(refused(of));
        }
        let shown = &samples[..samples.len().min(PANELS)];
        let panel = |(group, sample): &(&Group<'_, '_>, Sample)| {
            let whole = matches!(of, Of::PromptTokens | Of::CompletionTokens);
            let bins = bins(sample, whole);
            let mut ends: Vec<f64> = bins.iter().flat_map(|bin| [bin.from, bin.to]).collect();
            if let [bin] = bins.as_slice() {
                // One value alone: room around it.
                let room = (bin.to - bin.from) * 5.0;
                ends.extend([bin.from - room, bin.to + room]);
            }
            let x = Axis { label: of.label(), scale: Scale::of(Counting::Linear, ends, false), ticks: None };
            let most = bins.iter().map(|bin| bin.count).fold(1.0, f64::max);
            let y =
                Axis { label: "Requests".into(), scale: Scale::of(Counting::Linear, [0.0, most], true), ticks: None };
            let (n, mean, median) = (sample.sorted().len(), short(sample.mean()), short(sample.median()));
            Panel {
                title: if samples.len() == 1 { String::new() } else { group.label.clone() },
                facts: format!("n = {n}, mean {mean} {unit}, median {median} {unit}"),
                body: Body::Xy(Box::new(Xy { bins, ..xy(x, y) })),
            }
        };
        let panels: Vec<Panel> = shown.iter().map(panel).collect();
        let mut caption = caption(&data, &sheet);
        caption
            .push("Width of the bars: 2 × interquartile range / n^(1/3) (Freedman and Diaconis), 5 to 60 bars.".into());
        if shown.len() > 1 {
            caption.push("Each panel has axes of its own.".into());
        }
        if samples.len() > shown.len() {
            caption.push(format!(
                "The first {} of {} configurations; `--where KEY=VALUE` or `--each` draws the others.",
                shown.len(),
                samples.len()
            ));
        }
        plots.push(Plot {
            stem: layout::plot::of(&sheet.id, &format!("{file}_hist")),
            chart: Chart {
                title: format!("{label}: distribution over requests"),
                subtitle: subtitle(&data, &sheet),
                columns: if panels.len() > 1 { 2 } else { 1 },
                panels,
                legend: Vec::new(),
                caption,
                simulated: data.simulated(),
            },
        });
    }
    Ok(plots)
}

/// Bars of equal width; of whole numbers none narrower than one.
fn bins(sample: &Sample, whole: bool) -> Vec<Bin> {
    let values = sample.sorted();
    let (low, high) = (sample.min(), sample.max());
    if high <= low {
        let half = if whole { 0.5 } else { (low.abs() * 0.01).max(1e-9) };
        return vec![Bin { from: low - half, to: low + half, count: values.len() as f64 }];
    }
    let q = |q: f64| sample.quantile(q).unwrap_or(low);
    let rough = 2.0 * (q(0.75) - q(0.25)) / (values.len() as f64).cbrt();
    let count = if rough > 0.0 { ((high - low) / rough).ceil() } else { 30.0 }.clamp(5.0, 60.0);
    let (start, width, count) = if whole {
        let width = ((high - low + 1.0) / count).ceil().max(1.0);
        (low - 0.5, width, ((high - low + 1.0) / width).ceil())
    } else {
        (low, (high - low) / count, count)
    };
    let count = count as usize;
    let mut bins: Vec<Bin> = (0..count)
        .map(|i| Bin { from: start + i as f64 * width, to: start + (i + 1) as f64 * width, count: 0.0 })
        .collect();
    for value in values {
        let index = (((value - start) / width) as usize).min(count - 1);
        bins[index].count += 1.0;
    }
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_request_is_in_one_bar(values in proptest::collection::vec(0.0f64..1e4, 1..300), whole: bool) {
            let values: Vec<f64> = values.into_iter().map(|v| if whole { v.round() } else { v }).collect();
            let sample = Sample::new(values.iter().copied()).unwrap();
            let bins = bins(&sample, whole);
            prop_assert_eq!(bins.iter().map(|bin| bin.count).sum::<f64>(), values.len() as f64);
            prop_assert!(bins.len() <= 60 && bins.iter().all(|bin| bin.to > bin.from));
        }
    }
}

//! Single requests: their distribution, and their course in time (S3).

use super::super::chart::{Axis, Bin, Body, Chart, Entry, Panel, Point, Sampled, Series, Shape, Vertical, Xy};
use super::super::data::{Data, Group, Shot};
use super::super::kind::Plot;
use super::super::look::{Dash, Look, NAMED};
use super::super::scale::{Counting, Scale, short};
use super::concurrency::rates;
use super::lines::{legend, look, named, split};
use crate::analyse::samples_beyond;
use crate::model::Better;
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::{self, Sample};

/// A metric of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Time to the first token.
    Ttft,
    /// Time per further token.
    Tpot,
    /// Time to the last token.
    Latency,
    /// Tokens per second.
    Throughput,
    /// Tokens of the prompt.
    PromptTokens,
    /// Tokens of the answer.
    CompletionTokens,
}

/// All of them with what they are called: by the user, in file names, on axes, unit.
const FACTS: [(Of, &str, &str, &str, &str); 6] = [
    (Of::Ttft, "ttft", "ttft", "TTFT", "ms"),
    (Of::Tpot, "tpot", "tpot", "TPOT", "ms"),
    (Of::Latency, "latency", "latency", "Latency", "ms"),
    (Of::Throughput, "throughput", "throughput", "Output throughput of a request", "tok/s"),
    (Of::PromptTokens, "prompt-tokens", "prompt_tokens", "Prompt length", "tokens"),
    (Of::CompletionTokens, "completion-tokens", "completion_tokens", "Answer length", "tokens"),
];

/// The percentiles that are marked, with the number of their look and their dash.
const PERCENTILES: [(f64, usize, Dash); 3] = [(0.5, 1, Dash::Long), (0.95, 3, Dash::StrokeDot), (0.99, 5, Dash::Dots)];
/// Points of a curve: more would not be seen.
const RANKS: usize = 1000;
/// Panels of histograms on one sheet.
const PANELS: usize = 6;
/// Measurements whose single requests are shown beside their moving averages.
const CLOUDS: usize = 4;

impl Of {
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        let found = FACTS.into_iter().find(|fact| fact.0 == self);
        found.map_or(("", "", ""), |(_, _, file, label, unit)| (file, label, unit))
    }

    fn label(self) -> String {
        let (_, label, unit) = self.facts();
        format!("{label} ({unit})")
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let wanted = text.replace('_', "-");
        let wanted = match wanted.trim_end_matches("-ms") {
            "e2el" | "e2e" => "latency",
            "input-tokens" | "input-len" => "prompt-tokens",
            "output-tokens" | "output-len" => "completion-tokens",
            other => other,
        };
        FACTS.into_iter().find(|fact| fact.1 == wanted).map(|fact| fact.0).ok_or_else(|| Refusal::Wrong {
            message: format!("invalid value `{}` for `--y`: it is no metric of a request", text.escape_debug()),
            hint: format!("there is: {}", FACTS.map(|fact| fact.1).join(", ")),
        })
    }

    fn better(self) -> Option<Better> {
        match self {
            Of::Ttft | Of::Tpot | Of::Latency => Some(Better::Lower),
            Of::Throughput => Some(Better::Higher),
            Of::PromptTokens | Of::CompletionTokens => None,
        }
    }

    fn values(self, shot: &Shot<'_>) -> Vec<f64> {
        let Some(requests) = &shot.requests else { return Vec::new() };
        match self {
            Of::Ttft => requests.ttft_ms.clone(),
            Of::Tpot => requests.tpot_ms.clone(),
            Of::Latency => requests.e2el_ms.clone(),
            Of::Throughput => rates(shot),
            Of::PromptTokens => requests.input_tokens.clone(),
            Of::CompletionTokens => requests.output_tokens.clone(),
        }
    }

    fn sample(self, shots: &[&Shot<'_>]) -> Option<Sample> {
        Sample::new(shots.iter().flat_map(|shot| self.values(shot)))
    }
}

/// Measurements to draw, and what the names of their files begin with.
struct Sheet<'a, 'd> {
    id: String,
    groups: Vec<Group<'a, 'd>>,
    over: Vec<String>,
}

/// One sheet with a group per configuration, or (`--each`) one sheet per measurement.
fn sheets<'a, 'd>(data: &'d Data<'a>) -> Result<Vec<Sheet<'a, 'd>>, Refusal> {
    if data.query.each {
        let one = |shot: &'d Shot<'a>| {
            let several = !data.table.more.is_empty();
            let id = if several { format!("{}_{}", shot.row.about.run, shot.row.name) } else { shot.row.name.clone() };
            let groups = vec![Group { label: shot.row.name.clone(), shots: vec![shot] }];
            Sheet { id, groups, over: Vec::new() }
        };
        return Ok(data.shots.iter().map(one).collect());
    }
    let (by, over) = split(data, &data.rest(&[]), &[])?;
    Ok(vec![Sheet { id: data.run_name(), groups: data.groups(&by), over }])
}

fn refused(of: Of) -> Refusal {
    Refusal::missing(
        format!("the results do not say the {} of single requests", of.facts().1.to_lowercase()),
        "measure with `vllm-bench run --bench-arg save-detailed`".into(),
    )
}

fn xy(x: Axis, y: Axis) -> Xy {
    Xy { x, y, series: Vec::new(), bins: Vec::new(), boxes: Vec::new(), verticals: Vec::new() }
}

fn caption(data: &Data<'_>, sheet: &Sheet<'_, '_>) -> Vec<String> {
    let mut caption = data.caption();
    if let [Group { label, shots }] = sheet.groups.as_slice()
        && data.query.each
    {
        caption[0] = format!("Run {}; measurement {label}.", shots.first().map_or("", |shot| &*shot.row.about.run));
    }
    if sheet.groups.iter().any(|group| group.shots.len() > 1) {
        caption.push("Requests of repeats are taken together.".into());
    }
    if !sheet.over.is_empty() {
        caption.push(format!("Requests of all values of {} are taken together.", sheet.over.join(", ")));
    }
    caption
}

/// `p99 41.2 ms`, with a word where few values carry it.
fn percentile(sample: &Sample, q: f64, unit: &str) -> String {
    let value = sample.quantile(q).unwrap_or_default();
    let carried = samples_beyond(sample.sorted().len() as u64, q);
    let name = short(q * 100.0);
    let rests = if carried < 5 { format!(" (of {carried} at or beyond)") } else { String::new() };
    format!("p{name} {} {unit}{rests}", short(value))
}

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

fn subtitle(data: &Data<'_>, sheet: &Sheet<'_, '_>) -> String {
    if data.query.each {
        return sheet.groups.first().map(|group| group.label.clone()).unwrap_or_default();
    }
    data.common(&[])
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

/// A metric of requests against the time at which they were sent.
///
/// # Errors
/// As [`histogram`].
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
        let y = super::lines::metric_axis(of.label(), &ys);
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_moving_average_is_centred_and_as_wide_as_asked() {
        let points: Vec<Point> =
            (0..10).map(|i| Point { x: f64::from(i), y: f64::from(i), ..Point::default() }).collect();
        let means: Vec<f64> = moving(&points).iter().map(|p| p.y).collect();
        assert_eq!(means[..3], [1.0, 1.5, 2.0]);
        assert_eq!(means[5], 5.0);
    }

    #[test]
    fn names_of_metrics_are_the_users() {
        assert_eq!(Of::parse("e2el_ms"), Ok(Of::Latency));
        assert_eq!(Of::parse("prompt_tokens"), Ok(Of::PromptTokens));
        assert!(matches!(Of::parse("speed"), Err(Refusal::Wrong { .. })));
    }

    proptest! {
        #[test]
        fn every_request_is_in_one_bar(values in proptest::collection::vec(0.0f64..1e4, 1..300), whole: bool) {
            let values: Vec<f64> = values.into_iter().map(|v| if whole { v.round() } else { v }).collect();
            let sample = Sample::new(values.iter().copied()).unwrap();
            let bins = bins(&sample, whole);
            prop_assert_eq!(bins.iter().map(|bin| bin.count).sum::<f64>(), values.len() as f64);
            prop_assert!(bins.len() <= 60 && bins.iter().all(|bin| bin.to > bin.from));
            let points = ranks(&sample);
            prop_assert!(points.len() <= RANKS + 1);
            prop_assert_eq!(points.last().unwrap().y, 1.0);
        }
    }
}

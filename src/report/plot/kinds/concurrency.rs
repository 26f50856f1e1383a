//! Metrics against concurrency: S2's two panels and its lines per number of devices, S3's dashboard.

use super::super::chart::{Axis, Body, BoxPlot, Chart, Entry, Panel, Sampled, Series, Shape, Xy};
use super::super::data::{Data, Shot, metric};
use super::super::kind::Plot;
use super::super::look::{Dash, Look, NAMED};
use super::super::scale::{Counting, Scale, Tick, separated};
use super::super::svg::TEXT;
use super::super::words::{axis_label, intervals, key_words};
use super::lines::{Drawn, Line, Lines, legend, lines, look, metric_axis, over, reach, series, unnamed};
use crate::analyse::{Estimate, Requests, Row};
use crate::model::Better;
use crate::record::layout;
use crate::report::Refusal;
use crate::stats::Sample;

/// Tokens per second of one request, for its user: the mean over the requests of tokens divided by latency where single requests
/// are known; else the mean number of tokens divided by the mean latency (which is TTFT and as many TPOT as tokens follow).
pub fn tokens_per_second_of_a_request(row: &Row, requests: Option<&Requests>) -> Option<f64> {
    if let Some(sample) = requests.and_then(|requests| Sample::new(rates_of(requests))) {
        return Some(sample.mean());
    }
    let metric = |key: &str| row.metric(key);
    let tokens = metric("total_output_tokens")? / metric("completed").filter(|count| *count > 0.0)?;
    let latency = metric("mean_e2el_ms")
        .or_else(|| Some(metric("mean_ttft_ms")? + metric("mean_tpot_ms")? * (tokens - 1.0).max(0.0)))?;
    (latency > 0.0 && tokens > 0.0).then(|| tokens / latency * 1e3)
}

/// The same of a measurement in a plot.
pub fn per_request(shot: &Shot<'_>) -> Option<f64> {
    tokens_per_second_of_a_request(shot.row, shot.requests.as_ref())
}

/// Tokens per second of each request.
pub fn rates(shot: &Shot<'_>) -> Vec<f64> {
    shot.requests.as_ref().map(rates_of).unwrap_or_default()
}

fn rates_of(requests: &Requests) -> Vec<f64> {
    if requests.output_tokens.len() != requests.e2el_ms.len() {
        return Vec::new();
    }
    let pairs = requests.output_tokens.iter().zip(&requests.e2el_ms);
    pairs.filter(|(_, ms)| **ms > 0.0).map(|(tokens, ms)| tokens / ms * 1e3).collect()
}

const PER_REQUEST: &str =
    "Per request: tokens of an answer divided by its latency (from the sending to the last token), mean over requests.";

fn xy(x: Axis, y: Axis, series: Vec<Series>) -> Xy {
    Xy { x, y, series, bins: Vec::new(), boxes: Vec::new(), verticals: Vec::new() }
}

fn panel(title: &str, xy: Xy) -> Panel {
    Panel { title: title.to_owned(), facts: String::new(), body: Body::Xy(Box::new(xy)) }
}

fn labels(lines: &Lines<'_, '_>) -> Vec<String> {
    lines.lines.iter().map(|line| line.label.clone()).collect()
}

fn all_estimates(drawn: &[Drawn]) -> Vec<Estimate> {
    drawn.iter().flat_map(|d| d.estimates.iter().copied()).collect()
}

fn missing(what: &str) -> Refusal {
    Refusal::missing(format!("no result has {what}"), "measure with `vllm-bench run --bench-arg save-detailed`".into())
}

/// S2's two panels.
///
/// # Errors
/// As [`lines`], and when no result has the metrics.
pub fn throughput(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let lines = lines(data, "max-concurrency", &[])?;
    let key = data.query.y.as_deref().unwrap_or("output_throughput");
    let shown = metric("--y", key)?;
    let total = lines.drawn(&|shot| shot.row.metric(key));
    let each = lines.drawn(&per_request);
    if total.is_empty() {
        return Err(missing(&format!("`{key}`")));
    }
    let named = lines.named(&total, shown.better, NAMED);
    let title = format!("{} against {}", shown.label, key_words(&lines.x));
    let mut panels = vec![panel(
        &format!("{} of the server", shown.label),
        xy(lines.axis(), metric_axis(axis_label(key), &reach(&total)), series(&total, &named, Shape::Line)),
    )];
    let mut caption = data.caption();
    caption.push(intervals(&all_estimates(&total)));
    if each.is_empty() {
        panels.push(Panel {
            title: "Output throughput of one request".into(),
            facts: String::new(),
            body: super::empty("no result has the latencies that it takes"),
        });
    } else {
        let y = metric_axis("Output throughput per request (tok/s)".into(), &reach(&each));
        panels.push(panel("Output throughput of one request", xy(lines.axis(), y, series(&each, &named, Shape::Line))));
        caption.push(PER_REQUEST.into());
    }
    caption.push("Total: all tokens divided by the duration of the measurement.".into());
    caption.extend(over(&lines.over));
    caption.extend(unnamed(total.len(), named.len(), "throughput"));
    let chart = Chart {
        title,
        subtitle: data.common(&[&lines.x]),
        panels,
        columns: 2,
        legend: legend(&labels(&lines), &named, total.len(), Sampled::LineAndMark),
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::BATCH_SIZES.into(), chart }])
}

/// S2's lines per number of devices.
///
/// # Errors
/// As [`lines`], and when no result has the metric.
pub fn scaling(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let lines = lines(data, "max-concurrency", &["devices"])?;
    let key = data.query.y.as_deref().unwrap_or("output_throughput");
    let shown = metric("--y", key)?;
    let drawn = lines.drawn(&|shot| shot.row.metric(key));
    if drawn.is_empty() {
        return Err(missing(&format!("`{key}`")));
    }
    let named = lines.named(&drawn, shown.better, NAMED);
    let mut caption = data.caption();
    caption.push(intervals(&all_estimates(&drawn)));
    caption.extend(over(&lines.over));
    caption.extend(unnamed(drawn.len(), named.len(), &shown.label.to_lowercase()));
    let y = metric_axis(axis_label(key), &reach(&drawn));
    let mut entries = legend(&labels(&lines), &named, drawn.len().max(2), Sampled::LineAndMark);
    entries.truncate(if drawn.len() > named.len() { named.len() + 1 } else { named.len() });
    let chart = Chart {
        title: format!("{} by number of devices", shown.label),
        subtitle: data.common(&[&lines.x, "tensor-parallel-size"]),
        panels: vec![panel("", xy(lines.axis(), y, series(&drawn, &named, Shape::Line)))],
        columns: 1,
        legend: entries,
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::COMBINED.into(), chart }])
}

/// A panel of S3's dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Requests per second.
    Throughput,
    /// Percentiles of the latency.
    Latency,
    /// Boxes of the TTFT.
    Ttft,
    /// Tokens per second of a request.
    Tokens,
}

/// Lines on a dashboard with a look of their own: two or three curves and boxes of each must stay apart.
const ON_DASHBOARD: usize = 4;

/// What solid, dashed and dotted lines mean.
fn dashes(parts: &[Part]) -> Vec<Entry> {
    let (latency, tokens) = (parts.contains(&Part::Latency), parts.contains(&Part::Tokens));
    let texts = match (latency, tokens) {
        (true, true) => {
            ["p50 of the latency, mean of tok/s", "p95 of the latency, median of tok/s", "p99 of the latency"]
        }
        (true, false) => ["p50", "p95", "p99"],
        (false, true) => ["mean", "median", ""],
        (false, false) => return Vec::new(),
    };
    let entry = |(label, dash): (&str, Dash)| Entry {
        label: label.into(),
        look: Look { colour: TEXT, dash, ..Look::of(0) },
        sample: Sampled::Line,
    };
    texts
        .into_iter()
        .zip([Dash::Solid, Dash::Long, Dash::Dots])
        .filter(|(text, _)| !text.is_empty())
        .map(entry)
        .collect()
}

struct Board<'a, 'd> {
    lines: Lines<'a, 'd>,
    named: Vec<usize>,
    estimates: Vec<Estimate>,
    simulated: bool,
}

/// S3's dashboard.
///
/// # Errors
/// As [`lines`], and when there is nothing for any panel.
pub fn dashboard(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let board = Board::new(data)?;
    let parts = [Part::Throughput, Part::Latency, Part::Ttft, Part::Tokens];
    let panels: Vec<Panel> = parts
        .into_iter()
        .map(|part| {
            board.part(part).unwrap_or_else(|why| Panel {
                title: part.title().into(),
                facts: String::new(),
                body: super::empty(&why),
            })
        })
        .collect();
    Ok(vec![board.plot(
        data,
        format!("Performance against {}", key_words(&board.lines.x)),
        panels,
        &parts,
        "dashboard",
    )])
}

/// One panel of S3's dashboard by itself.
///
/// # Errors
/// As [`lines`], and when the results do not have what it needs.
pub fn one_of_dashboard(data: &Data<'_>, part: Part) -> Result<Vec<Plot>, Refusal> {
    let board = Board::new(data)?;
    let mut panel = board
        .part(part)
        .map_err(|why| Refusal::missing(why, "measure with `vllm-bench run --bench-arg save-detailed`".into()))?;
    panel.title = String::new();
    let title = format!("{} against {}", part.title(), key_words(&board.lines.x));
    Ok(vec![board.plot(data, title, vec![panel], &[part], part.word())])
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Part::Throughput => "Request throughput",
            Part::Latency => "Latency (p50, p95, p99)",
            Part::Ttft => "Time to first token",
            Part::Tokens => "Output throughput of one request",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Part::Throughput => "throughput",
            Part::Latency => "latency",
            Part::Ttft => "ttft",
            Part::Tokens => "tokens_per_sec",
        }
    }

    /// What only the lines with a look of their own have.
    fn of_named(self) -> Option<&'static str> {
        match self {
            Part::Throughput => None,
            Part::Latency => Some("p95 and p99"),
            Part::Ttft => Some("boxes"),
            Part::Tokens => Some("medians"),
        }
    }

    /// What is said in the caption.
    fn note(self) -> &'static str {
        match self {
            Part::Throughput => "Throughput: requests divided by the duration.",
            Part::Latency => "Latency: from the sending of a request to its last token.",
            Part::Ttft => {
                "Boxes: quartiles and median of all requests (repeats together), whiskers p5 and p95, diamond: mean."
            }
            Part::Tokens => PER_REQUEST,
        }
    }
}

impl<'a, 'd> Board<'a, 'd> {
    fn new(data: &'d Data<'a>) -> Result<Self, Refusal> {
        let lines = lines(data, "max-concurrency", &[])?;
        let drawn = lines.drawn(&|shot| shot.row.metric("request_throughput"));
        let named = lines.named(&drawn, Some(Better::Higher), ON_DASHBOARD);
        Ok(Self { named, estimates: all_estimates(&drawn), lines, simulated: data.simulated() })
    }

    fn plot(&self, data: &Data<'_>, title: String, panels: Vec<Panel>, parts: &[Part], stem: &str) -> Plot {
        let mut caption = data.caption();
        caption.push(intervals(&self.estimates));
        caption.extend(parts.iter().map(|part| part.note().to_owned()));
        caption.extend(over(&self.lines.over));
        let total = self.lines.lines.len();
        caption.extend(unnamed(total, self.named.len(), "request throughput"));
        let more: Vec<&str> = parts.iter().filter_map(|part| part.of_named()).collect();
        if total > self.named.len() && !more.is_empty() {
            caption.push(format!("Only the named ones have {}; `--where KEY=VALUE` draws others.", more.join(", ")));
        }
        let mut entries = legend(&labels(&self.lines), &self.named, total, Sampled::LineAndMark);
        entries.extend(dashes(parts));
        let chart = Chart {
            title,
            subtitle: data.common(&[&self.lines.x]),
            columns: if panels.len() > 1 { 2 } else { 1 },
            panels,
            legend: entries,
            caption,
            simulated: self.simulated,
        };
        Plot { stem: layout::plot::of(&data.run_name(), stem), chart }
    }

    fn part(&self, part: Part) -> Result<Panel, String> {
        let need = "the results have no metrics of single requests (`--bench-arg save-detailed`)".to_owned();
        let body = match part {
            Part::Throughput => {
                let drawn = self.lines.drawn(&|shot| shot.row.metric("request_throughput"));
                if drawn.is_empty() {
                    return Err("the results have no `request_throughput`".into());
                }
                let y = metric_axis("Request throughput (req/s)".into(), &reach(&drawn));
                xy(self.lines.axis(), y, series(&drawn, &self.named, Shape::Line))
            }
            Part::Latency => {
                let at = [("median_e2el_ms", 0.5), ("p95_e2el_ms", 0.95), ("p99_e2el_ms", 0.99)];
                let curves = at
                    .map(|(key, q)| self.lines.drawn(&move |shot| shot.row.metric(key).or_else(|| quantile(shot, q))));
                self.curves(curves, "Latency of a request (ms)").ok_or(need)?
            }
            Part::Tokens => {
                let median = |shot: &Shot<'_>| Sample::new(rates(shot)).map(|sample| sample.median());
                let curves = [self.lines.drawn(&per_request), self.lines.drawn(&median), Vec::new()];
                self.curves(curves, "Output throughput per request (tok/s)").ok_or(need)?
            }
            Part::Ttft => self.boxes().ok_or(need)?,
        };
        Ok(panel(part.title(), body))
    }

    /// Two or three curves per line, distinguished by their dashes; of lines without a name the first alone.
    fn curves(&self, curves: [Vec<Drawn>; 3], label: &str) -> Option<Xy> {
        if curves[0].is_empty() {
            return None;
        }
        let mut all = Vec::new();
        let mut values = Vec::new();
        for (drawn, dash) in curves.iter().zip([Dash::Solid, Dash::Long, Dash::Dots]) {
            let known: Vec<&Drawn> =
                drawn.iter().filter(|d| dash == Dash::Solid || self.named.contains(&d.index)).collect();
            for d in known {
                let look = look(&self.named, d.index).dashed(dash);
                // One curve of three carries intervals, or they would hide each other.
                let points: Vec<_> = d
                    .points
                    .iter()
                    .map(|p| super::super::chart::Point {
                        y_range: p.y_range.filter(|_| dash == Dash::Solid && look.width > 1.5),
                        ..*p
                    })
                    .collect();
                values.extend(points.iter().flat_map(|p| [Some(p.y), p.y_range.map(|r| r.1)]).flatten());
                all.push(Series { points, look, shape: Shape::Line });
            }
        }
        all.sort_by(|a, b| a.look.width.total_cmp(&b.look.width));
        Some(xy(self.lines.axis(), metric_axis(label.into(), &values), all))
    }

    fn boxes(&self) -> Option<Xy> {
        let levels = &self.lines.levels;
        let count = self.named.len().max(1) as f64;
        let mut boxes = Vec::new();
        for (slot, index) in self.named.iter().enumerate() {
            let Line { places, .. } = self.lines.lines.get(*index)?;
            for (x, shots) in places {
                let place = levels.iter().position(|level| level == x)? as f64;
                let values =
                    shots.iter().filter_map(|shot| shot.requests.as_ref()).flat_map(|r| r.ttft_ms.iter().copied());
                let Some(sample) = Sample::new(values) else { continue };
                let q = |q: f64| sample.quantile(q).unwrap_or_default();
                boxes.push(BoxPlot {
                    at: place + (slot as f64 - (count - 1.0) / 2.0) * 0.8 / count,
                    width: 0.62 / count,
                    five: [q(0.05), q(0.25), q(0.5), q(0.75), q(0.95)],
                    mean: sample.mean(),
                    look: Look::of(slot),
                });
            }
        }
        if boxes.is_empty() {
            return None;
        }
        let values: Vec<f64> = boxes.iter().flat_map(|one| one.five.into_iter().chain([one.mean])).collect();
        let tick = |(i, level): (usize, &f64)| Tick { at: i as f64, label: separated(*level, 0) };
        let x = Axis {
            label: axis_label(&self.lines.x),
            scale: Scale::exact(-0.5, levels.len() as f64 - 0.5),
            ticks: Some(levels.iter().enumerate().map(tick).collect()),
        };
        let mut y = metric_axis("TTFT (ms)".into(), &values);
        if y.scale.counting() == Counting::Linear {
            y.scale = Scale::of(Counting::Linear, values, true);
        }
        Some(Xy { boxes, ..xy(x, y, Vec::new()) })
    }
}

fn quantile(shot: &Shot<'_>, q: f64) -> Option<f64> {
    Sample::new(shot.requests.as_ref()?.e2el_ms.iter().copied())?.quantile(q)
}

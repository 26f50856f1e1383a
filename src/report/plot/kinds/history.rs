//! A metric of configurations over runs: means with their intervals, levels, and where these change.

use super::super::chart::{Axis, Body, Chart, Entry, Panel, Point, Sampled, Series, Shape, Vertical, Xy};
use super::super::kind::Plot;
use super::super::look::{Dash, Look, MARKED, OTHERS};
use super::super::scale::{Counting, Scale, Tick};
use super::super::words::intervals;
use crate::analyse::{ALPHA, Estimate, Outcome, Trend};
use crate::record::layout;
use crate::report::display::{counted, cut};
use crate::report::trend;

/// Panels on one sheet.
const PANELS: usize = 6;
/// Of so many runs each has its mark and interval; of more, marks alone.
const WITH_INTERVALS: usize = 120;

/// A level.
const LEVEL: Look = Look { colour: "#d55e00", marker: MARKED.marker, dash: Dash::Solid, width: 2.0 };
/// Where a level became better, and where worse.
const BETTER: Look = Look { colour: "#009e73", marker: MARKED.marker, dash: Dash::Solid, width: 2.0 };
const WORSE: Look = Look { dash: Dash::Long, ..MARKED };
/// Where another vLLM was measured.
const RELEASE: Look = Look { colour: "#7a7a7a", dash: Dash::Dots, ..OTHERS };

/// Draws trends, each in a panel of its own. `None` where there is none.
pub fn draw(trends: &[Trend<'_>]) -> Option<Plot> {
    let first = trends.first()?;
    let shown = &trends[..trends.len().min(PANELS)];
    let panels: Vec<Panel> = shown.iter().map(|trend| panel(trend, shown.len() > 1)).collect();
    let estimates: Vec<Estimate> =
        shown.iter().flat_map(|trend| trend.points.iter().map(|point| point.estimate)).collect();
    let has = |is: &dyn Fn(&Trend<'_>) -> bool| shown.iter().any(is);
    let change = |outcome: Outcome| has(&|of| of.levels.steps.iter().any(|step| of.outcome(step.change) == outcome));
    let entry = |label: &str, look: Look, sample: Sampled| Entry { label: label.to_owned(), look, sample };
    let legend = [
        Some(entry("mean of a run", Look::of(0), Sampled::Mark)),
        Some(entry("level", LEVEL, Sampled::Line)),
        change(Outcome::Better).then(|| entry("better from here on", BETTER, Sampled::Line)),
        change(Outcome::Worse).then(|| entry("worse from here on", WORSE, Sampled::Line)),
        has(&|of| !releases(of).is_empty()).then(|| entry("another vLLM", RELEASE, Sampled::Line)),
    ];
    let mut caption = vec![
        intervals(&estimates),
        format!(
            "Changes of the level by circular binary segmentation, false alarm rate {:.0} % of a trend.",
            ALPHA * 100.0
        ),
    ];
    if trends.len() > shown.len() {
        caption.push(format!(
            "{} more are not drawn: `--config` says which to show.",
            counted(trends.len() - shown.len(), "trend")
        ));
    }
    let chart = Chart {
        title: format!("{} over runs", first.metric.label),
        subtitle: if shown.len() == 1 { trend::of(first) } else { String::new() },
        panels,
        columns: 1,
        legend: legend.into_iter().flatten().collect(),
        caption,
        simulated: shown.iter().any(|trend| trend.row().is_some_and(|row| row.simulated)),
    };
    Some(Plot { stem: layout::plot::HISTORY.to_owned(), chart })
}

/// The places at which another vLLM was measured than in the run before.
fn releases(trend: &Trend<'_>) -> Vec<usize> {
    let version = |at: usize| trend.points[at].measured.row.about.vllm_version.as_deref();
    (1..trend.points.len()).filter(|at| version(*at).is_some() && version(*at) != version(at - 1)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "runs are few")]
fn panel(trend: &Trend<'_>, is_titled: bool) -> Panel {
    let many = trend.points.len() > WITH_INTERVALS;
    let points: Vec<Point> = trend
        .points
        .iter()
        .enumerate()
        .map(|(at, point)| Point {
            x: at as f64,
            y: point.estimate.mean,
            y_range: point.estimate.interval.filter(|_| !many).map(|of| (of.low, of.high)),
            x_range: None,
        })
        .collect();
    let mut series: Vec<Series> = levels(trend);
    let values: Vec<f64> = points
        .iter()
        .flat_map(|point| [Some(point.y), point.y_range.map(|of| of.0), point.y_range.map(|of| of.1)])
        .flatten()
        .chain((0..trend.levels.means.len()).map(|index| trend.level(index)))
        .collect();
    series.push(Series { points, look: Look::of(0), shape: if many { Shape::Dust } else { Shape::Cloud } });
    let between = |at: usize| at as f64 - 0.5;
    let changes = trend.levels.steps.iter().map(|step| Vertical {
        at: between(step.at),
        look: if trend.outcome(step.change) == Outcome::Better { BETTER } else { WORSE },
    });
    let releases = releases(trend).into_iter().map(|at| Vertical { at: between(at), look: RELEASE });
    let last = trend.points.len().saturating_sub(1) as f64;
    let ticks = trend.points.iter().enumerate().map(|(at, point)| Tick {
        at: at as f64,
        label: trend::when(point.run, false).chars().take("2026-02-25".len()).collect(),
    });
    let xy = Xy {
        x: Axis {
            label: "Runs, the oldest first".into(),
            scale: Scale::exact(-0.5, last + 0.5),
            ticks: Some(thinned(ticks.collect())),
        },
        y: Axis {
            label: format!("{} ({})", trend.metric.label, trend.metric.unit.symbol()),
            // Not from zero: a change of a few parts of a hundred is what is looked for.
            scale: Scale::of(Counting::Linear, values, false),
            ticks: None,
        },
        series,
        bins: Vec::new(),
        boxes: Vec::new(),
        verticals: releases.chain(changes).collect(),
    };
    let title = if is_titled { cut(&trend::of(trend), 120) } else { String::new() };
    Panel { title, facts: String::new(), body: Body::Xy(Box::new(xy)) }
}

/// So many dates fit below the axis.
const DATES: usize = 10;

/// Some of many ticks, the first and what is as far from the next.
fn thinned(ticks: Vec<Tick>) -> Vec<Tick> {
    let each = ticks.len().div_ceil(DATES).max(1);
    ticks.into_iter().step_by(each).collect()
}

/// The levels as lines.
#[expect(clippy::cast_precision_loss, reason = "runs are few")]
fn levels(trend: &Trend<'_>) -> Vec<Series> {
    let steps = trend.levels.steps.iter().map(|step| step.at);
    let ends: Vec<usize> = std::iter::once(0).chain(steps).chain([trend.points.len()]).collect();
    let line = |(index, ends): (usize, &[usize])| {
        let y = trend.level(index);
        let at = |end: usize| Point { x: end as f64 - 0.5, y, ..Point::default() };
        Series { points: vec![at(ends[0]), at(ends[1])], look: LEVEL, shape: Shape::Bare }
    };
    ends.windows(2).enumerate().map(line).collect()
}

//! What ran when and where: one row for each device, or for each lane where devices are not known.

use indexmap::IndexSet;

use super::super::bars::GAP;
use super::super::chart::{Bar, Bars, Body, Chart, Entry, Panel, Sampled};
use super::super::data::Data;
use super::super::kind::Plot;
use super::super::look::{Dash, Look, Marker};
use super::super::scale::short;
use crate::analyse::{Facts, LaneSpan, Step};
use crate::record::layout;
use crate::report::Refusal;
use crate::report::display::counted;

const STARTING: &str = "#c9d6df";
const BESIDE: &str = "#0072b2";
const ALONE: &str = "#009e73";
const LOST: &str = "#d55e00";
const ENDING: &str = "#555555";
const CHECKING: &str = "#e69f00";

fn look(colour: &'static str) -> Look {
    Look { colour, marker: Marker::Square, dash: Dash::Solid, width: 1.0 }
}

/// Draws it.
///
/// # Errors
/// When no run has a journal that says when something ran.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let runs: Vec<&Facts> =
        std::iter::once(&data.table.facts).chain(&data.table.more).filter(|facts| !facts.spans.is_empty()).collect();
    if runs.is_empty() {
        return Err(Refusal::missing(
            "nothing says when the measurements ran".into(),
            "runs of vllm-bench keep a journal; other sources do not".into(),
        ));
    }
    let mut used: IndexSet<&'static str> = IndexSet::new();
    let panels = runs.iter().map(|facts| panel(facts, data, runs.len() > 1, &mut used)).collect();
    let all = [
        (CHECKING, "measuring what neighbours cost"),
        (STARTING, "starting"),
        (BESIDE, "measuring beside others"),
        (ALONE, "measuring alone"),
        (LOST, "measuring, without a valid result"),
        (ENDING, "ending"),
    ];
    let legend = all
        .into_iter()
        .filter(|(colour, _)| used.contains(colour))
        .map(|(colour, label)| Entry { label: label.into(), look: look(colour), sample: Sampled::Field })
        .collect();
    let mut caption = data.caption();
    let attempts: usize = runs.iter().map(|facts| facts.spans.iter().filter(|span| span.lane > 0).count()).sum();
    caption.push(format!(
        "{} as the journal tells; between two sessions of a run no time passes. Numbers are those of the experiments in the plan ([n/N] on the screen).",
        counted(attempts, "attempt")
    ));
    let chart = Chart {
        title: "What ran when and where".into(),
        subtitle: String::new(),
        panels,
        columns: 1,
        legend,
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::LANES.into(), chart }])
}

/// The rows of a run: its devices in the order of their names as people count, else its lanes.
fn rows(spans: &[LaneSpan]) -> Vec<String> {
    let mut rows: IndexSet<String> = spans.iter().filter(|span| span.lane > 0).flat_map(places).collect();
    rows.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    if rows.is_empty() {
        // It ended before its first attempt.
        rows.insert("all lanes".to_owned());
    }
    rows.into_iter().collect()
}

/// On which rows a span lies.
fn places(span: &LaneSpan) -> Vec<String> {
    match span.devices.as_slice() {
        [] => vec![format!("lane {}", span.lane)],
        devices => devices.to_vec(),
    }
}

fn panel(facts: &Facts, data: &Data<'_>, named: bool, used: &mut IndexSet<&'static str>) -> Panel {
    let spans = &facts.spans;
    let mut bars: Vec<Bar> = Vec::new();
    let mixed = spans.iter().any(|span| !span.devices.is_empty());
    for row in rows(spans) {
        let mut steps: Vec<(&'static str, f64, f64, Option<usize>)> = spans
            .iter()
            // A check took all devices; a session without lanes has none.
            .filter(
                |span| if span.lane == 0 { !mixed || !row.starts_with("lane ") } else { places(span).contains(&row) },
            )
            .flat_map(|span| {
                let measuring = match span.lost {
                    true => LOST,
                    false if is_alone(span, facts, data) => ALONE,
                    false => BESIDE,
                };
                let number = number(span, facts, data);
                let is_measured = move |step: Step| number.filter(|_| step == Step::Measuring);
                span.steps
                    .iter()
                    .map(move |(step, from, to)| (colour(*step, measuring), *from, *to, is_measured(*step)))
            })
            .filter(|(_, from, to, _)| to > from)
            .collect();
        steps.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (mut parts, mut within, mut at, mut busy) = (Vec::new(), Vec::new(), 0.0, 0.0);
        for (colour, from, to, number) in steps {
            // What was recorded at the same moment touches.
            let from = from.max(at);
            if from > at {
                parts.push((from - at, look(GAP)));
            }
            if to > from {
                used.insert(colour);
                parts.push((to - from, look(colour)));
                within.extend(number.map(|number| (from, to, number.to_string())));
                busy += to - from;
                at = to;
            }
        }
        bars.push(Bar { label: row, parts, range: None, value: format!("busy {} s", short(busy)), within });
    }
    let title = if named { facts.title() } else { String::new() };
    let label = "Seconds since the run began".into();
    Panel { title, facts: String::new(), body: Body::Bars(Bars { label, rows: bars }) }
}

/// Its number in the plan, from 1: rows are in its order.
fn number(span: &LaneSpan, facts: &Facts, data: &Data<'_>) -> Option<usize> {
    let own = data.table.rows.iter().filter(|row| *row.about.run == *facts.run);
    own.enumerate().find(|(_, row)| row.name == span.name).map(|(place, _)| place + 1)
}

/// Whether nothing ran beside a measurement, as its result says, or because the run has no lanes.
fn is_alone(span: &LaneSpan, facts: &Facts, data: &Data<'_>) -> bool {
    if span.devices.is_empty() {
        return true;
    }
    let row = data.table.rows.iter().find(|row| row.name == span.name && *row.about.run == *facts.run);
    row.is_some_and(|row| row.about.neighbours == Some(0))
}

fn colour(step: Step, measuring: &'static str) -> &'static str {
    match step {
        Step::Starting => STARTING,
        Step::Measuring => measuring,
        Step::Ending => ENDING,
        Step::Checking => CHECKING,
    }
}

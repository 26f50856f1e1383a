//! Where the seconds of a server's start go.

use indexmap::{IndexMap, IndexSet};

use super::super::chart::{Bar, Bars, Body, Chart, Entry, Panel, Sampled};
use super::super::data::{Data, Group};
use super::super::kind::Plot;
use super::super::look::{Dash, Look, Marker};
use super::super::scale::short;
use crate::model::{StartPhase, Timings};
use crate::record::layout;
use crate::report::Refusal;
use crate::report::display::counted;

/// Bars on one sheet.
const BARS: usize = 40;

/// Colours of the phases, in their order; neighbours differ in brightness too.
const COLOURS: [(StartPhase, &str); 10] = [
    (StartPhase::Launching, "#333333"),
    (StartPhase::Importing, "#56b4e9"),
    (StartPhase::Configuring, "#0b4f7d"),
    (StartPhase::Downloading, "#e69f00"),
    (StartPhase::Loading, "#d55e00"),
    (StartPhase::Profiling, "#7fd4b8"),
    (StartPhase::Compiling, "#009e73"),
    (StartPhase::Capturing, "#cc79a7"),
    (StartPhase::StartingApi, "#7b68b0"),
    (StartPhase::Ready, "#b8a3d9"),
];
const UNKNOWN: &str = "#d0d0d0";

fn look(colour: &'static str) -> Look {
    Look { colour, marker: Marker::Square, dash: Dash::Solid, width: 1.0 }
}

/// Mean seconds by phase (`None`: phases were not read) over the starts of a configuration.
struct Start {
    label: String,
    phases: IndexMap<Option<StartPhase>, f64>,
    total: f64,
    n: usize,
}

/// Draws it.
///
/// # Errors
/// When no measurement says how long its server took to start.
pub fn draw(data: &Data<'_>) -> Result<Vec<Plot>, Refusal> {
    let keys: Vec<String> =
        data.rest(&["max-concurrency"]).into_iter().filter(|key| key == "model" || !data.is_load(key)).collect();
    let mut starts: Vec<Start> = data.groups(&keys).iter().filter_map(start).collect();
    if starts.is_empty() {
        return Err(Refusal::missing(
            "no measurement says how long its server took to start".into(),
            "runs of vllm-bench record it; other sources do not".into(),
        ));
    }
    starts.sort_by(|a, b| b.total.total_cmp(&a.total).then_with(|| a.label.cmp(&b.label)));
    let total = starts.len();
    let servers: usize = starts.iter().map(|start| start.n).sum();
    let longest_first: Vec<Start> = starts.into_iter().take(BARS).collect();
    let known: IndexSet<Option<StartPhase>> =
        longest_first.iter().flat_map(|start| start.phases.keys().copied()).collect();
    let mut legend: Vec<Entry> = COLOURS
        .into_iter()
        .filter(|(phase, _)| known.contains(&Some(*phase)))
        .map(|(phase, colour)| Entry { label: phase.label().into(), look: look(colour), sample: Sampled::Field })
        .collect();
    if known.contains(&None) {
        legend.push(Entry { label: "phases not known".into(), look: look(UNKNOWN), sample: Sampled::Field });
    }
    let mut caption = data.caption();
    caption.push(format!(
        "{}. Bars are means over the starts of a configuration, longest first; phases as read off the server's log.",
        counted(servers, "server start")
    ));
    if total > BARS {
        caption.push(format!("The {BARS} longest; … and {} more.", total - BARS));
    }
    let chart = Chart {
        title: "Start of the server by phase".into(),
        subtitle: data.common(&["max-concurrency"]),
        panels: vec![Panel {
            title: String::new(),
            facts: String::new(),
            body: Body::Bars(Bars {
                label: "Seconds from launch to ready".into(),
                rows: longest_first.iter().map(|start| bar(start, total == 1)).collect(),
            }),
        }],
        columns: 1,
        legend,
        caption,
        simulated: data.simulated(),
    };
    Ok(vec![Plot { stem: layout::plot::STARTUP.into(), chart }])
}

/// What is known of the starts of a configuration: measurements on a shared server have its start once.
fn start(group: &Group<'_, '_>) -> Option<Start> {
    let mut servers: IndexMap<(&str, u32, &str), &Timings> = IndexMap::new();
    for shot in &group.shots {
        let row = shot.row;
        let Some(timings) = row.timings.as_ref().filter(|timings| timings.startup.is_some_and(f64::is_finite)) else {
            continue;
        };
        let number = row.repeat.map_or(1, |repeat| repeat.start);
        let server = if row.server_name.is_empty() { row.name.as_str() } else { row.server_name.as_str() };
        servers.entry((&*row.about.run, number, server)).or_insert(timings);
    }
    if servers.is_empty() {
        return None;
    }
    let n = servers.len();
    let share = |seconds: f64| seconds / n as f64;
    let mut sums: IndexMap<Option<StartPhase>, f64> = IndexMap::new();
    let mut total = 0.0;
    for timings in servers.values() {
        let startup = timings.startup.unwrap_or_default();
        total += startup;
        let steps = timings.startup_phases.iter().filter(|step| step.seconds.is_finite() && step.seconds > 0.0);
        let told: f64 = steps.clone().map(|step| step.seconds).sum();
        for step in steps {
            *sums.entry(Some(step.phase)).or_default() += step.seconds;
        }
        if startup - told > 0.02 * startup {
            *sums.entry(None).or_default() += startup - told;
        }
    }
    let order = |phase: &Option<StartPhase>| COLOURS.iter().position(|(known, _)| Some(*known) == *phase).unwrap_or(99);
    sums.sort_by(|a, _, b, _| order(a).cmp(&order(b)));
    let phases = sums.into_iter().map(|(phase, seconds)| (phase, share(seconds))).collect();
    Some(Start { label: group.label.clone(), phases, total: share(total), n })
}

fn bar(start: &Start, alone: bool) -> Bar {
    let colour = |phase: &Option<StartPhase>| {
        COLOURS.iter().find(|(known, _)| Some(*known) == *phase).map_or(UNKNOWN, |(_, colour)| *colour)
    };
    let n = if start.n > 1 { format!(" (n = {})", start.n) } else { String::new() };
    Bar {
        label: if alone { "all".into() } else { start.label.clone() },
        parts: start.phases.iter().map(|(phase, seconds)| (*seconds, look(colour(phase)))).collect(),
        range: None,
        within: Vec::new(),
        value: format!("{} s{n}", short(start.total)),
    }
}

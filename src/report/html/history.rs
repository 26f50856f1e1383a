//! `history --format html`: runs over time as one page without a script.

use serde::Serialize;

use super::super::display::{counted, cut, in_unit};
use super::super::export::History;
use super::super::plot::{self, Size};
use super::super::trend;
use super::policy;
use crate::analyse::{LevelStep, Outcome, Past, Trend};

const PAGE: &str = include_str!("history.html");
const STYLE: &str = include_str!("history.css");

/// Everything that the template asks for.
#[derive(Serialize)]
struct View<'a> {
    title: String,
    csp: String,
    style: &'a str,
    simulated: bool,
    facts: Vec<(&'static str, String)>,
    trends: Vec<Shown>,
    others: usize,
    runs: Vec<Run>,
}

/// A trend.
#[derive(Serialize)]
struct Shown {
    title: String,
    unit: &'static str,
    simulated: bool,
    workload: String,
    apart: Option<String>,
    changes: Vec<Change>,
    sentences: Vec<String>,
    outside: Option<String>,
    plot: String,
    points: Vec<Line>,
}

#[derive(Serialize)]
struct Change {
    class: &'static str,
    verdict: &'static str,
    text: String,
}

/// A run on a trend.
#[derive(Serialize)]
struct Line {
    run: String,
    date: String,
    vllm: String,
    mean: String,
    interval: String,
    starts: usize,
    class: &'static str,
    change: String,
    changed: String,
}

#[derive(Serialize)]
struct Run {
    title: String,
    simulated: bool,
    date: String,
    vllm: String,
    outcome: String,
    plan: String,
    best: Vec<String>,
    skipped: Option<String>,
}

/// Renders the page. The same runs give the same bytes.
pub fn render(history: &History<'_>) -> String {
    let style = format!("{}{STYLE}", super::STYLE);
    let simulated = history.runs.iter().any(|run| run.simulated)
        && history.runs.iter().all(|run| run.simulated || run.skipped.is_some());
    let dates = [history.runs.first(), history.runs.last()].map(|run| run.map(|run| trend::when(run, true)));
    let [from, to] = dates.map(Option::unwrap_or_default);
    let facts = vec![
        ("Runs", counted(history.runs.len(), "run")),
        ("From", from),
        ("To", to),
        ("Metric", format!("{} ({})", history.metric.label, history.metric.unit.symbol())),
    ];
    let view = View {
        title: cut(&format!("History of {}", history.place), 160),
        csp: policy(None, &style),
        style: &style,
        simulated,
        facts,
        trends: history.trends.iter().map(shown).collect(),
        others: history.others,
        runs: history.runs.iter().rev().map(run).collect(),
    };
    super::filled(PAGE, view)
}

fn class(trend: &Trend<'_>, step: &LevelStep) -> &'static str {
    match trend.outcome(step.change) {
        Outcome::Better => "good",
        Outcome::Worse | Outcome::Same | Outcome::NotDecided => "bad",
    }
}

fn shown(of: &Trend<'_>) -> Shown {
    let newest = trend::newest(of);
    let (outside, inside) = match newest {
        Some((true, text)) => (Some(text), None),
        Some((false, text)) => (None, Some(text)),
        None => (None, None),
    };
    let quiet = of.levels.steps.is_empty().then(|| trend::no_change(of));
    let change = |(index, step): (usize, &LevelStep)| Change {
        class: class(of, step),
        verdict: trend::verdict(of, step),
        text: trend::step(of, index, step),
    };
    let drawn = plot::over_runs(std::slice::from_ref(of));
    Shown {
        title: trend::of(of),
        unit: of.metric.unit.symbol(),
        simulated: of.row().is_some_and(|row| row.simulated),
        workload: trend::workload(of),
        apart: of.apart.as_ref().map(|why| cut(why, 300)),
        changes: of.levels.steps.iter().enumerate().map(change).collect(),
        sentences: quiet.into_iter().chain(inside).chain(trend::noise(of)).collect(),
        outside,
        // Every text in it is escaped where it is drawn.
        plot: drawn.map(|plot| plot::svg(&plot, Size::default())).unwrap_or_default(),
        points: (0..of.points.len()).map(|at| line(of, at)).collect(),
    }
}

fn line(of: &Trend<'_>, at: usize) -> Line {
    let (point, unit) = (&of.points[at], of.metric.unit);
    let step = of.levels.steps.iter().find(|step| step.at == at);
    let interval = point.estimate.interval.map(|of| format!("{} to {}", in_unit(of.low, unit), in_unit(of.high, unit)));
    Line {
        run: cut(&point.run.facts.title(), 80),
        date: trend::when(point.run, false),
        vllm: point
            .measured
            .row
            .about
            .vllm_version
            .as_deref()
            .map_or_else(|| "-".to_owned(), |version| cut(version, 40)),
        mean: in_unit(point.estimate.mean, unit),
        interval: interval.unwrap_or_else(|| "-".to_owned()),
        starts: point.estimate.n,
        class: step.map_or("", |step| class(of, step)),
        change: step
            .map(|step| format!("{} {}", trend::verdict(of, step), trend::percent(of.part(step.change))))
            .unwrap_or_default(),
        changed: trend::changed(&point.changed),
    }
}

fn run(run: &Past) -> Run {
    Run {
        title: cut(&run.facts.title(), 100),
        simulated: run.simulated,
        date: trend::when(run, true),
        vllm: trend::version(run),
        outcome: trend::outcome(&run.counts),
        plan: trend::plan(run),
        best: run.best.iter().map(trend::best).collect(),
        skipped: run.skipped.as_ref().map(|why| cut(why, 300)),
    }
}

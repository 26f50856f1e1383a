//! Runs over time for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::super::{ExportError, Exporter, Format, Sink};
use super::History;
use crate::analyse::{ALPHA, Best, Fixed, LevelStep, Past, Point, Trend};
use crate::report::display::label;
use crate::report::trend;

/// For programs.
pub struct Json;

/// Version of the format.
const SCHEMA: u32 = 1;

impl Exporter<History<'_>> for Json {
    fn format(&self) -> Format {
        Format::one("json", "For programs", "json")
    }

    fn write(&self, history: &History<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        let json = json!({
            "schema": SCHEMA,
            "metric": history.metric.key,
            "alpha": ALPHA,
            "runs": history.runs.iter().map(run).collect::<Vec<Value>>(),
            "trends": history.trends.iter().map(trend_of).collect::<Vec<Value>>(),
            "other_trends": history.others,
        });
        Ok(writeln!(out, "{json:#}")?)
    }
}

fn run(run: &Past) -> Value {
    let counts = &run.counts;
    let best = |best: &Best| {
        json!({
            "group": best.group, "configuration": label(&best.axes, &Fixed::default()), "objective": best.objective, "unit": best.unit.symbol(),
            "value": best.value, "interval": best.interval,
        })
    };
    json!({
        "run": run.facts.run,
        "name": run.facts.name,
        "created": run.facts.created,
        "timezone": run.facts.timezone,
        "live": run.facts.live,
        "simulated": run.simulated,
        "vllm_versions": run.facts.vllm_versions,
        "planned": counts.planned, "passed": counts.passed, "failed": counts.failed, "skipped": counts.skipped,
        "interrupted": counts.interrupted, "running": counts.running, "not_run": counts.not_run,
        "plan": run.plan.iter().map(|(key, values)| json!({ "key": key, "values": values })).collect::<Vec<Value>>(),
        "best": run.best.iter().map(best).collect::<Vec<Value>>(),
        "on_no_trend": run.skipped,
        "excluded": run.measured.iter().filter_map(|of| {
            Some(json!({ "name": of.row.name, "why": of.excluded.as_ref()? }))
        }).collect::<Vec<Value>>(),
    })
}

fn point(point: &Point<'_>) -> Value {
    json!({
        "run": point.run.facts.run, "name": point.run.facts.name, "created": point.run.facts.created,
        "vllm_version": point.measured.row.about.vllm_version.as_deref(), "experiment": point.measured.row.name,
        "mean": point.estimate.mean, "interval": point.estimate.interval, "starts": point.estimate.n, "changed": point.changed,
    })
}

fn trend_of(of: &Trend<'_>) -> Value {
    let part = |(low, high): (f64, f64)| json!({ "low": of.part(low), "high": of.part(high) });
    let step = |(index, step): (usize, &LevelStep)| {
        json!({
            "at": step.at, "run": of.points.get(step.at).map(|point| &point.run.facts.run), "p": step.p,
            "outcome": of.outcome(step.change), "relative": of.part(step.change), "interval": step.interval.map(part),
            "before": of.level(index), "after": of.level(index + 1), "changed": of.changed_at(index),
        })
    };
    let newest = of.levels.newest.map(|newest| {
        json!({
            "relative": of.part(newest.change), "expected": part((-newest.half, newest.half)), "outside": newest.is_outside(),
            "runs_before": newest.before,
        })
    });
    json!({
        "configuration": trend::of(of),
        "settings": of.points.last().map(|point| &*point.measured.settings),
        "metric": of.metric.key,
        "unit": of.metric.unit.symbol(),
        "simulated": of.row().is_some_and(|row| row.simulated),
        "apart": of.apart,
        "relative_to": if of.is_relative() { "level" } else { "largest" },
        "points": of.points.iter().map(point).collect::<Vec<Value>>(),
        "levels": (0..of.levels.means.len()).map(|index| of.level(index)).collect::<Vec<f64>>(),
        "changes": of.levels.steps.iter().enumerate().map(step).collect::<Vec<Value>>(),
        "sd": of.levels.sd,
        "newest": newest,
    })
}

//! Runs over time as one table: a line for each run, or for each run of each trend where trends are asked for.

use std::io;

use super::super::{ExportError, Exporter, Format, Sink};
use super::History;
use crate::analyse::{Fixed, Past, Trend};
use crate::report::trend;

/// One table.
pub struct Csv;

/// Of a run.
const RUN: [&str; 17] = [
    "run",
    "name",
    "created",
    "timezone",
    "vllm",
    "simulated",
    "planned",
    "passed",
    "failed",
    "skipped",
    "plan",
    "best",
    "objective",
    "value",
    "low",
    "high",
    "on_no_trend",
];
/// Of a run on a trend.
const POINT: [&str; 20] = [
    "trend",
    "configuration",
    "metric",
    "unit",
    "simulated",
    "run",
    "name",
    "created",
    "timezone",
    "vllm",
    "starts",
    "mean",
    "low",
    "high",
    "level",
    "change",
    "change_low",
    "change_high",
    "p",
    "changed",
];

impl Exporter<History<'_>> for Csv {
    fn format(&self) -> Format {
        Format::one("csv", "One table", "csv")
    }

    fn write(&self, history: &History<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        let mut csv = ::csv::Writer::from_writer(out);
        let written = if history.asked { points(history, &mut csv) } else { runs(history, &mut csv) };
        written.map_err(io::Error::from)?;
        Ok(csv.flush()?)
    }
}

type Writer<'w, 'o> = ::csv::Writer<&'w mut Sink<'o>>;

fn number(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

fn runs(history: &History<'_>, csv: &mut Writer<'_, '_>) -> Result<(), ::csv::Error> {
    csv.write_record(RUN)?;
    let one = |run: &Past| {
        let best = run.best.first();
        [
            run.facts.run.clone(),
            text(run.facts.name.as_deref()),
            text(run.facts.created.as_deref()),
            text(run.facts.timezone.as_deref()),
            run.facts.vllm_versions.join(" "),
            run.simulated.to_string(),
            run.counts.planned.to_string(),
            run.counts.passed.to_string(),
            run.counts.failed.to_string(),
            run.counts.skipped.to_string(),
            trend::plan(run),
            best.map(|best| crate::report::label(&best.axes, &Fixed::default())).unwrap_or_default(),
            best.map(|best| format!("{} ({})", best.objective, best.unit.symbol())).unwrap_or_default(),
            number(best.map(|best| best.value)),
            number(best.and_then(|best| best.interval).map(|of| of.low)),
            number(best.and_then(|best| best.interval).map(|of| of.high)),
            text(run.skipped.as_deref()),
        ]
    };
    history.runs.iter().try_for_each(|run| csv.write_record(one(run)))
}

fn points(history: &History<'_>, csv: &mut Writer<'_, '_>) -> Result<(), ::csv::Error> {
    csv.write_record(POINT)?;
    let mut all = history.trends.iter().enumerate();
    all.try_for_each(|(number, of)| (0..of.points.len()).try_for_each(|at| csv.write_record(line(number + 1, of, at))))
}

fn line(trend_number: usize, of: &Trend<'_>, at: usize) -> [String; 20] {
    let point = &of.points[at];
    let facts = &point.run.facts;
    let step = of.levels.steps.iter().find(|step| step.at == at);
    let interval = step.and_then(|step| step.interval);
    let row = &point.measured.row;
    [
        trend_number.to_string(),
        trend::of(of),
        of.metric.key.clone(),
        of.metric.unit.symbol().to_owned(),
        row.simulated.to_string(),
        facts.run.clone(),
        text(facts.name.as_deref()),
        text(facts.created.as_deref()),
        text(facts.timezone.as_deref()),
        text(row.about.vllm_version.as_deref()),
        point.estimate.n.to_string(),
        point.estimate.mean.to_string(),
        number(point.estimate.interval.map(|of| of.low)),
        number(point.estimate.interval.map(|of| of.high)),
        of.level(of.levels.of(at)).to_string(),
        number(step.map(|step| of.part(step.change))),
        number(interval.map(|(low, _)| of.part(low))),
        number(interval.map(|(_, high)| of.part(high))),
        number(step.map(|step| step.p)),
        trend::changed(&point.changed),
    ]
}

//! The analysis as CSV: one line per measurement, every setting, every metric; then what the repeats of its configuration say.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use super::analysis::{metric_keys, requests_under};
use super::cells::{cause, number, reason, status};
use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{
    Base, Estimate, Interval, RankingSpec, Row, Standing, all_settings, bases, load_labels, over_starts, settings,
    starts_by,
};
use crate::model::{Metric, Unit};

/// What stands before the settings.
const FIRST: [&str; 19] = [
    "run",
    "name",
    "model",
    "workload",
    "status",
    "cause",
    "reason",
    "simulated",
    "warnings",
    "may_be_best",
    "groups",
    "baseline",
    "start",
    "repeat",
    "device",
    "currency",
    "source",
    "neighbours",
    "replaced",
];

/// One table.
pub struct Csv;

impl Exporter<Analysis<'_>> for Csv {
    fn format(&self) -> Format {
        Format::one("csv", "One table", "csv")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(write(analysis, out)?)
    }
}

fn write(analysis: &Analysis<'_>, out: &mut dyn Write) -> io::Result<()> {
    let rows = &analysis.table.rows;
    let columns = Columns::of(analysis);
    let estimates = estimates(rows, &analysis.wanted.rank_by);
    let standings = standings(analysis);
    let bases = bases(analysis.table, &analysis.wanted);
    let over: HashMap<*const Row, &Base<'_>> =
        bases.iter().flat_map(|base| base.rows.iter().map(move |row| (std::ptr::from_ref(*row), base))).collect();
    let mut csv = ::csv::Writer::from_writer(out);
    csv.write_record(columns.names(&analysis.wanted.rank_by))?;
    let all: Vec<&Row> = rows.iter().collect();
    for (index, (row, load)) in rows.iter().zip(load_labels(&all)).enumerate() {
        let over = over.get(&std::ptr::from_ref(row));
        let mut fields = first(row, load);
        columns.fields(row, &mut fields);
        let of = estimates.get(&index);
        fields.push(of.map(|of| of.n.to_string()).unwrap_or_default());
        let interval = of.and_then(|of| of.interval);
        for value in [
            of.map(|of| of.mean),
            of.and_then(|of| of.sd),
            interval.map(|interval| interval.low),
            interval.map(|interval| interval.high),
        ] {
            fields.push(number(value, Unit::TokensPerSecond));
        }
        let place = standings.get(&std::ptr::from_ref(row)).copied().unwrap_or_default();
        fields.extend([place.standing.to_owned(), place.choice.to_string()]);
        fields.push(place.mean.map(|_| objective(&analysis.wanted, place.per_device)).unwrap_or_default());
        let interval = place.interval;
        for value in [place.mean, interval.map(|interval| interval.low), interval.map(|interval| interval.high)] {
            fields.push(number(value, Unit::TokensPerSecond));
        }
        fields.push(over.and_then(|base| Some(base.used.as_ref()?.row.name.clone())).unwrap_or_default());
        fields.push(over.and_then(|base| base.warning()).unwrap_or_default());
        csv.write_record(fields)?;
    }
    csv.flush()
}

fn first(row: &Row, load: String) -> Vec<String> {
    let warnings: Vec<&str> = row.about.warnings.iter().map(|warning| warning.kind.name()).collect();
    let repeat = row.repeat.map(|repeat| (repeat.start.to_string(), repeat.run.to_string())).unwrap_or_default();
    vec![
        row.about.run.to_string(),
        row.name.clone(),
        row.axes.model.clone(),
        load,
        status(&row.status).to_owned(),
        cause(&row.status),
        reason(&row.status),
        row.simulated.to_string(),
        warnings.join(" "),
        row.may_be_best().to_string(),
        row.groups.join(", "),
        row.baseline.to_string(),
        repeat.0,
        repeat.1,
        row.about.device.as_deref().unwrap_or_default().to_owned(),
        row.about.currency.as_deref().unwrap_or_default().to_owned(),
        row.source.as_ref().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default(),
        row.about.neighbours.map(|neighbours| neighbours.to_string()).unwrap_or_default(),
        row.replaced.to_string(),
    ]
}

/// The columns that depend on the rows.
struct Columns {
    settings: Vec<String>,
    load: Vec<String>,
    metrics: Vec<String>,
}

impl Columns {
    fn of(analysis: &Analysis<'_>) -> Self {
        let rows = &analysis.table.rows;
        let mut settings: Vec<String> = Vec::new();
        for (key, _) in rows.iter().flat_map(all_settings) {
            if !settings.contains(&key) {
                settings.push(key);
            }
        }
        let load: BTreeSet<&String> = rows.iter().flat_map(|row| row.load.0.keys()).collect();
        Self { settings, load: load.into_iter().cloned().collect(), metrics: metric_keys(rows) }
    }

    fn percentiles(&self) -> impl Iterator<Item = &String> {
        self.metrics.iter().filter(|key| Metric::quantile(key).is_some_and(|(_, latency)| latency != "itl"))
    }

    fn names(&self, rank_by: &str) -> Vec<String> {
        let mut names: Vec<String> = FIRST.map(str::to_owned).into();
        names.extend(self.settings.iter().map(|key| format!("serve.{key}")));
        names.extend(self.load.iter().map(|key| format!("bench.{key}")));
        names.extend(self.metrics.iter().cloned());
        names.extend(self.percentiles().map(|key| format!("{key}_samples_beyond")));
        names.push("samples".into());
        names.extend(["mean", "sd", "low", "high"].map(|what| format!("repeats.{rank_by}.{what}")));
        names.extend(
            ["standing", "choice", "objective", "objective.mean", "objective.low", "objective.high"].map(str::to_owned),
        );
        names.extend(["speedup.baseline", "speedup.warning"].map(str::to_owned));
        names
    }

    fn fields(&self, row: &Row, fields: &mut Vec<String>) {
        let own = all_settings(row);
        let set = |key: &String| own.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        fields.extend(self.settings.iter().map(|key| set(key).unwrap_or_default()));
        fields.extend(self.load.iter().map(|key| row.load.0.get(key).map(ToString::to_string).unwrap_or_default()));
        let unit = |key: &String| Metric::of(key).map_or(Unit::Seconds, |metric| metric.unit);
        fields.extend(self.metrics.iter().map(|key| number(row.metric(key), unit(key))));
        fields.extend(self.percentiles().map(|key| {
            let under = row.metric(key).and_then(|_| requests_under(row, key));
            under.map(|requests| requests.to_string()).unwrap_or_default()
        }));
    }
}

/// The objective as a key: `output_throughput per device`.
fn objective(wanted: &RankingSpec, per_device: bool) -> String {
    format!("{}{}", wanted.rank_by, if per_device { " per device" } else { "" })
}

/// What the answer says of the configuration of a row.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    standing: &'static str,
    choice: bool,
    per_device: bool,
    mean: Option<f64>,
    interval: Option<Interval>,
}

/// Where the configuration of each row stands, whether it is the choice, and its mean; every measurement of it says so.
fn standings<'a>(analysis: &Analysis<'a>) -> HashMap<*const Row, Place> {
    let valid: Vec<&Row> = analysis.table.rows.iter().filter(|row| row.stands()).collect();
    let all: HashMap<*const Row, Vec<&Row>> = settings(&valid)
        .into_iter()
        .flat_map(|rows| rows.iter().map(|row| (std::ptr::from_ref(*row), rows.clone())).collect::<Vec<_>>())
        .collect();
    let mut found = HashMap::new();
    for answer in analysis.answers() {
        let Ok(recommendation) = &answer.choice else { continue };
        for (index, option) in recommendation.options.iter().enumerate() {
            let place = Place {
                standing: match option.standing {
                    Standing::MayBeBest => "may-be-best",
                    Standing::NotBest => "not-best",
                    Standing::Undecided => "undecided",
                },
                choice: index == recommendation.choice,
                per_device: recommendation.per_device,
                mean: Some(option.value),
                interval: option.estimate.and_then(|estimate| estimate.interval),
            };
            let rows = all.get(&std::ptr::from_ref(option.row)).into_iter().flatten();
            found.extend(rows.map(|row| (std::ptr::from_ref(*row), place)));
        }
    }
    found
}

/// What the repeats of each row's configuration say of a metric, by the row's index.
fn estimates(rows: &[Row], key: &str) -> HashMap<usize, Estimate> {
    let valid: Vec<(usize, &Row)> = rows.iter().enumerate().filter(|(_, row)| row.stands()).collect();
    let index: HashMap<*const Row, usize> = valid.iter().map(|(i, row)| (std::ptr::from_ref(*row), *i)).collect();
    let all: Vec<&Row> = valid.iter().map(|(_, row)| *row).collect();
    let mut found = HashMap::new();
    for rows in settings(&all) {
        if let Some(of) = starts_by(&rows, key).and_then(|starts| over_starts(&starts)) {
            found.extend(rows.iter().filter_map(|row| Some((*index.get(&std::ptr::from_ref(*row))?, of))));
        }
    }
    found
}

//! From the table to groups of rows that may be drawn as one: the same model, the same load, the same settings. What rows differ
//! in is told; nothing is averaged over unless the caption says so.

use std::borrow::Cow;

use indexmap::{IndexMap, IndexSet};

use super::kind::Query;
use super::words::{are, were, word};
use crate::analyse::{Estimate, Requests, Row, RunTable, Status, over_starts, spread};
use crate::model::{Better, Metric};
use crate::report::Refusal;
use crate::report::display::{clean, counted};

/// Keys of the load that follow the one on the axis: with more requests in flight, more are sent.
const FOLLOWERS: [&str; 4] = ["num-prompts", "num-prompts-per-concurrency", "num-warmups", "max-num-seqs"];
/// Keys in which measurements may differ and still be the same.
const NEVER: [&str; 4] = ["seed", "port", "host", "base-url"];

/// One measurement, and its requests where a plot asks for them.
#[derive(Debug, Clone)]
pub struct Shot<'a> {
    /// Its row.
    pub row: &'a Row,
    /// Request by request.
    pub requests: Option<Requests>,
}

/// What a plot is drawn of.
pub struct Data<'a> {
    /// The table.
    pub table: &'a RunTable,
    /// The measurements that count and are asked for.
    pub shots: Vec<Shot<'a>>,
    /// The keys in which they differ.
    pub differing: Vec<String>,
    /// What the user asks for.
    pub query: &'a Query,
    /// What is left out, as sentences for the caption.
    pub left_out: Vec<String>,
}

/// Measurements of one configuration (or of several, where the caption says so).
#[derive(Debug, Clone)]
pub struct Group<'a, 'd> {
    /// What tells it from the others.
    pub label: String,
    /// Its measurements.
    pub shots: Vec<&'d Shot<'a>>,
}

/// A value by key: of the settings, and `run`, `devices`, `experiment`.
pub fn setting<'r>(row: &'r Row, key: &str) -> Option<Cow<'r, str>> {
    match key {
        "run" => Some(Cow::Borrowed(&*row.about.run)),
        "experiment" => Some(Cow::Borrowed(row.name.as_str())),
        "devices" => row.about.devices.map(|devices| devices.to_string().into()),
        _ => row.setting(key),
    }
}

/// `tp` is `tensor-parallel-size`.
pub fn full_key(key: &str) -> String {
    let key = key.trim().trim_start_matches("--").replace('_', "-");
    match key.as_str() {
        "tp" => "tensor-parallel-size".into(),
        "pp" => "pipeline-parallel-size".into(),
        "dp" => "data-parallel-size".into(),
        "concurrency" | "batch" | "batch-size" => "max-concurrency".into(),
        "input-len" => "random-input-len".into(),
        "output-len" => "random-output-len".into(),
        "gpus" => "devices".into(),
        _ => key,
    }
}

/// Every key that any row has, the best known first.
fn keys(rows: &[&Row]) -> IndexSet<String> {
    let mut keys: IndexSet<String> =
        ["model", "tensor-parallel-size", "quantization", "enforce-eager"].map(str::to_owned).into();
    for row in rows {
        keys.extend(row.axes.server.iter().map(|(key, _)| key.clone()));
        keys.extend(row.about.flags.keys().cloned());
        keys.extend(row.axes.workload.iter().map(|(key, _)| key.clone()));
        keys.extend(row.load.0.keys().cloned());
    }
    keys.retain(|key| !NEVER.contains(&key.as_str()));
    keys
}

/// The keys in which rows differ.
pub fn differing(rows: &[&Row]) -> Vec<String> {
    let spreads = spread(rows.iter().map(|row| &*row.load));
    let of_load: IndexMap<&str, bool> = spreads.iter().map(|s| (s.flag.as_str(), s.differs())).collect();
    let differs = |key: &String| {
        let first = rows.first().and_then(|row| row.setting(key));
        let differs = rows.iter().any(|row| row.setting(key) != first);
        // Counted values of a load may differ by a hundredth and are the same.
        differs && of_load.get(key.as_str()).copied().unwrap_or(true)
    };
    keys(rows).into_iter().filter(differs).collect()
}

impl<'a> Data<'a> {
    /// The measurements of a table that count and are asked for.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(table: &'a RunTable, query: &'a Query) -> Result<Self, Refusal> {
        let comparable = table.comparable();
        let known = keys(&comparable);
        for (key, value) in &query.only {
            let key = key.as_str();
            let here = |row: &&Row| setting(row, key).is_some_and(|found| found == value.as_str());
            if !comparable.iter().any(here) {
                let mut values: Vec<String> =
                    comparable.iter().filter_map(|row| setting(row, key)).map(|value| clean(&value)).collect();
                values.sort();
                values.dedup();
                values.truncate(12);
                return Err(match values.is_empty() {
                    true => Refusal::unknown("--where", key, &known),
                    false => Refusal::missing(
                        format!("no measurement has `{key}` = `{}`", clean(value)),
                        format!("there is: {}", values.join(", ")),
                    ),
                });
            }
        }
        let wanted = |row: &&Row| {
            query.only.iter().all(|(key, value)| setting(row, key).is_some_and(|found| found == value.as_str()))
        };
        let rows: Vec<&Row> = comparable.into_iter().filter(wanted).collect();
        if rows.is_empty() {
            return Err(Refusal::missing(
                format!("`{}` has no valid result to draw", table.facts.run),
                "`vllm-bench analyze` says what came of it".into(),
            ));
        }
        let mut left_out = Vec::new();
        let planned = table.rows.iter().filter(|row| !row.is_skipped()).count();
        let valid = table.rows.iter().filter(|row| matches!(row.status, Status::Valid)).count();
        if valid < planned {
            left_out.push(format!("{} of {planned} experiments have no valid result.", planned - valid));
        }
        let suspect = rows.iter().filter(|row| !row.may_be_best()).count();
        if suspect > 0 {
            left_out.push(format!("{} suspect (`analyze` says why).", are(suspect, "measurement")));
        }
        let simulated = table.rows.iter().filter(|row| row.is_valid() && row.simulated).count();
        if simulated > 0 && rows.iter().any(|row| !row.simulated) {
            left_out.push(format!("{} simulated and not shown.", are(simulated, "measurement")));
        }
        let differing = differing(&rows);
        let shots = rows.into_iter().map(|row| Shot { row, requests: None }).collect();
        Ok(Self { table, shots, differing, query, left_out })
    }

    /// Whether anything drawn is simulated.
    pub fn simulated(&self) -> bool {
        self.shots.iter().any(|shot| shot.row.simulated)
    }

    /// Reads what the results say of each request.
    pub fn with_requests(mut self) -> Self {
        let mut unusable = 0;
        for shot in &mut self.shots {
            match crate::results::read_requests(shot.row) {
                Ok(requests) => shot.requests = requests.map(|r| Requests { itl_ms: Vec::new(), ..r }),
                Err(_) => unusable += 1,
            }
        }
        if unusable > 0 {
            self.left_out.push(format!("{} with arrays that cannot be read.", are(unusable, "result")));
        }
        self
    }

    /// Only the measurements with requests.
    ///
    /// # Errors
    /// When there is none.
    pub fn only_with_requests(mut self) -> Result<Self, Refusal> {
        let all = self.shots.len();
        self.shots.retain(|shot| shot.requests.as_ref().is_some_and(|requests| !requests.is_empty()));
        if self.shots.is_empty() {
            return Err(Refusal::missing(
                "the results have no metrics of single requests".into(),
                "measure with `vllm-bench run --bench-arg save-detailed`".into(),
            ));
        }
        if self.shots.len() < all {
            let without = all - self.shots.len();
            self.left_out.push(format!("{} measured without save-detailed and not shown.", were(without)));
        }
        let rows: Vec<&Row> = self.shots.iter().map(|shot| shot.row).collect();
        self.differing = differing(&rows);
        Ok(self)
    }

    /// The value of a key by which series are distinguished, or of an axis; `Err` where no row has it.
    ///
    /// # Errors
    /// When no measurement has the key.
    pub fn known(&self, flag: &str, key: &str) -> Result<String, Refusal> {
        let key = full_key(key);
        if self.shots.iter().any(|shot| setting(shot.row, &key).is_some()) {
            return Ok(key);
        }
        let rows: Vec<&Row> = self.shots.iter().map(|shot| shot.row).collect();
        Err(Refusal::unknown(flag, &key, &keys(&rows)))
    }

    /// Whether a key says which load it is (or which model): these are never averaged over.
    pub fn is_load(&self, key: &str) -> bool {
        let of_load =
            |row: &Row| row.load.0.contains_key(key) || row.axes.workload.iter().any(|(known, _)| known == key);
        key == "model" || key != "max-model-len" && self.shots.iter().any(|shot| of_load(shot.row))
    }

    /// The keys in which measurements differ, without the ones on axes and those that follow the number of requests in flight.
    pub fn rest(&self, axes: &[&str]) -> Vec<String> {
        let level = "max-concurrency";
        let levels = axes.contains(&level) || self.differing.iter().any(|key| key == level);
        let follows = |key: &str| {
            let mut values: IndexMap<Option<Cow<'_, str>>, Option<Cow<'_, str>>> = IndexMap::new();
            levels
                && FOLLOWERS.contains(&key)
                && self.shots.iter().all(|shot| {
                    let value = setting(shot.row, key);
                    *values.entry(setting(shot.row, level)).or_insert_with(|| value.clone()) == value
                })
        };
        let same_as_devices = |key: &str| axes.contains(&"devices") && key == "tensor-parallel-size";
        let rest = self.differing.iter().filter(|key| !axes.contains(&key.as_str()));
        rest.filter(|key| !follows(key) && !same_as_devices(key)).cloned().collect()
    }

    /// Measurements by the values of these keys, in order of appearance (numbers by size).
    pub fn groups(&self, keys: &[String]) -> Vec<Group<'a, '_>> {
        self.groups_of(self.shots.iter().collect(), keys)
    }

    /// The same of some of the measurements.
    pub fn groups_of<'d>(&self, shots: Vec<&'d Shot<'a>>, keys: &[String]) -> Vec<Group<'a, 'd>> {
        let mut groups: IndexMap<Vec<Option<String>>, Vec<&'d Shot<'a>>> = IndexMap::new();
        for shot in shots {
            let values = keys.iter().map(|key| setting(shot.row, key).map(Cow::into_owned)).collect();
            groups.entry(values).or_default().push(shot);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        let places = |values: &[Option<String>]| -> Vec<(f64, String)> {
            values.iter().map(|value| order(value.as_deref())).collect()
        };
        groups.sort_by(|(a, _), (b, _)| places(a).partial_cmp(&places(b)).unwrap_or(std::cmp::Ordering::Equal));
        let models: IndexSet<&str> = self.shots.iter().map(|shot| shot.row.axes.model.as_str()).collect();
        let label = |values: &[Option<String>]| {
            let words: Vec<String> =
                keys.iter().zip(values).map(|(key, value)| word(key, value.as_deref(), &models)).collect();
            words.join(", ")
        };
        groups.into_iter().map(|(values, shots)| Group { label: label(&values), shots }).collect()
    }

    /// The name of the runs.
    pub fn run_name(&self) -> String {
        let mut names = vec![self.table.facts.run.as_str()];
        names.extend(self.table.more.iter().map(|facts| facts.run.as_str()));
        names.dedup();
        if names.len() > 3 {
            return format!("{} and {} more", names[0], names.len() - 1);
        }
        names.join(", ")
    }

    /// What all have in common: model and load.
    pub fn common(&self, axes: &[&str]) -> String {
        let Some(first) = self.shots.first() else { return String::new() };
        let same = |key: &str| !self.differing.iter().any(|known| known == key) && !axes.contains(&key);
        let mut parts = Vec::new();
        let models: IndexSet<&str> = self.shots.iter().map(|shot| shot.row.axes.model.as_str()).collect();
        match models.len() {
            1 => parts.push(clean(&first.row.axes.model)),
            n => parts.push(format!("{n} models")),
        }
        let shown =
            ["dataset-name", "random-input-len", "random-output-len", "max-concurrency", "request-rate", "num-prompts"];
        for key in shown.into_iter().filter(|key| same(key)) {
            parts.extend(first.row.load.0.get(key).map(|value| format!("{key} {}", clean(&value.to_string()))));
        }
        for key in ["tensor-parallel-size", "quantization", "enforce-eager"] {
            if same(key) && setting(first.row, key).is_some() {
                parts.push(word(key, setting(first.row, key).as_deref(), &models));
            }
        }
        parts.join(" · ")
    }

    /// The beginning of every caption.
    pub fn caption(&self) -> Vec<String> {
        let experiments: IndexSet<(&str, &str)> =
            self.shots.iter().map(|shot| (&*shot.row.about.run, shot.row.name.as_str())).collect();
        let mut caption = vec![format!("Run {}; {}.", self.run_name(), counted(experiments.len(), "measurement"))];
        if self.simulated() {
            caption
                .push("SIMULATED: a timing model made these metrics up; they say nothing about any hardware.".into());
        }
        caption.extend(self.query.only.iter().map(|(key, value)| format!("Only {key} = {}.", clean(value))));
        caption.extend(self.left_out.iter().cloned());
        caption
    }
}

/// Numbers by size, then texts; what is not set first.
fn order(value: Option<&str>) -> (f64, String) {
    let number = value.and_then(|value| value.parse::<f64>().ok()).filter(|number| number.is_finite());
    match (value, number) {
        (None, _) => (f64::MIN, String::new()),
        (Some(_), Some(number)) => (number, String::new()),
        (Some(text), None) => (f64::MAX, text.to_owned()),
    }
}

/// What the measurements of a group say of a metric, over server starts.
pub fn mean_of(shots: &[&Shot<'_>], value: &dyn Fn(&Shot<'_>) -> Option<f64>) -> Option<Estimate> {
    let mut starts: IndexMap<(&str, u32), Vec<f64>> = IndexMap::new();
    for shot in shots {
        if let Some(value) = value(shot).filter(|value| value.is_finite()) {
            let start = shot.row.repeat.map_or(1, |repeat| repeat.start);
            starts.entry((&*shot.row.about.run, start)).or_default().push(value);
        }
    }
    over_starts(&starts.into_values().collect::<Vec<_>>())
}

/// The interval of an estimate, as ends.
pub fn ends(estimate: &Estimate) -> Option<(f64, f64)> {
    estimate.interval.map(|interval| (interval.low, interval.high))
}

/// A metric by its key.
///
/// # Errors
/// When there is none of this key.
pub fn metric(flag: &str, key: &str) -> Result<Metric, Refusal> {
    Metric::of(key).ok_or_else(|| Refusal::Wrong {
        message: format!("invalid value `{}` for `{flag}`: it is no metric", key.escape_debug()),
        hint: "such as output_throughput, request_throughput, mean_ttft_ms, p99_tpot_ms".into(),
    })
}

/// The better of two values.
pub fn is_better(better: Option<Better>, a: f64, b: f64) -> bool {
    match better {
        Some(Better::Lower) => a < b,
        Some(Better::Higher) | None => a > b,
    }
}

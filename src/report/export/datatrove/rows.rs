//! One line per configuration, in the cluster sweep's columns.

use std::io::{self, Write};

use indexmap::IndexMap;

use super::UNNAMED;
use crate::analyse::{FailedAttempt, Row, Status, load_labels, over_starts, settings, short_settings};
use crate::model::{Cause, VllmMetric};
use crate::plan::FailureReason;

/// The columns, in their order.
pub(super) const COLUMNS: [&str; 35] = [
    "experiment",
    "prompt_template_name",
    "model",
    "tp",
    "pp",
    "dp",
    "mns",
    "mnbt",
    "gmu",
    "bs",
    "kvc",
    "spec",
    "quant",
    "gpus_for_1b_tokens_per_hour",
    "node_days_to_process_1b_tokens",
    "gpu_days_to_process_1b_tokens",
    "input_tps_per_gpu",
    "output_tps_per_gpu",
    "tokens_input_per_sec",
    "tokens_output_per_sec",
    "avg_running_reqs",
    "avg_waiting_reqs",
    "avg_gpu_kvc_usage",
    "avg_prefix_cache_hit_rate",
    "prompt_tokens_total",
    "completion_tokens_total",
    "mean_input_tokens",
    "mean_output_tokens",
    "successful_requests",
    "e2e_time",
    "inference_time",
    "e2e_per_1k_per_gpu",
    "inference_per_1k_per_gpu",
    "path",
    "comment",
];

/// A configuration under one load.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Its first measurement that counts, else its first.
    pub row: &'a Row,
    /// Those that count.
    pub valid: Vec<&'a Row>,
    /// Its load, `default` where there is one.
    pub prompt: String,
}

impl Line<'_> {
    /// The mean of a metric over the server starts of the measurements that count, as in every answer.
    pub fn metric(&self, key: &str) -> Option<f64> {
        let mut starts: IndexMap<u32, Vec<f64>> = IndexMap::new();
        for row in &self.valid {
            if let Some(value) = of_row(row, key) {
                starts.entry(row.repeat.map_or(1, |repeat| repeat.start)).or_default().push(value);
            }
        }
        over_starts(&starts.into_values().collect::<Vec<_>>()).map(|of| of.mean)
    }

    /// Why there are no metrics, or what is to be known of them.
    pub fn comment(&self) -> String {
        let mut said = Vec::new();
        match &self.row.status {
            Status::Valid => {
                if let Some(failed) = self.row.metrics.get(VllmMetric::Failed).filter(|failed| *failed > 0.0) {
                    said.push(format!("failed_requests={failed:.0}"));
                }
                if self.valid.len() > 1 {
                    said.push(format!("mean of {}", self.valid.len()));
                }
                said.extend(self.row.about.warnings.iter().map(|warning| warning.kind.name().to_owned()));
            }
            Status::Failed(failed) => said.push(word(failed)),
            Status::Invalid(_) => said.push("stats.json not found".into()),
            Status::Skipped { .. } => said.push("skipped".into()),
            Status::Interrupted => said.push("interrupted".into()),
            Status::Running => said.push("running".into()),
            Status::NotRun => said.push("not run".into()),
        }
        if self.row.simulated && !said.iter().any(|said| said == "simulated") {
            said.push("simulated".into());
        }
        said.join("; ")
    }
}

/// The cluster sweep's word for a failure; ours where it has none.
fn word(failed: &FailedAttempt) -> String {
    let Some(cause) = failed.cause else { return "failed".into() };
    classes(cause).map_or_else(|| cause.to_string(), str::to_owned)
}

/// The cluster sweep's class of a cause, where it has one.
pub(super) fn classes(cause: Cause) -> Option<&'static str> {
    let classes = [
        (FailureReason::Oom, "OOM"),
        (FailureReason::Timeout, "timeout"),
        (FailureReason::ServerTimeout, "timeout"),
        (FailureReason::ServerFail, "server_fail"),
    ];
    classes.iter().find(|(class, _)| class.covers(cause)).map(|(_, word)| *word)
}

/// The key of a load's metadata that names the template of its prompts.
const TEMPLATE: &str = "prompt_template_name=";

/// What stands for the prompts of a row: the name of their template, and what loads have of their own beside it.
fn prompt(row: &Row, label: Option<&String>) -> String {
    let label = label.filter(|label| !label.is_empty());
    let metadata = row.load.0.get("metadata").map(ToString::to_string).unwrap_or_default();
    let template = metadata.split_whitespace().find_map(|word| word.strip_prefix(TEMPLATE)).map(str::to_owned);
    match (template, label) {
        (Some(name), Some(label)) if !label.contains(TEMPLATE) => format!("{name}, {label}"),
        (Some(name), _) => name,
        (None, label) => label.cloned().unwrap_or_else(|| "default".to_owned()),
    }
}

fn of_row(row: &Row, key: &str) -> Option<f64> {
    let metric = |metric: VllmMetric| row.metrics.get(metric);
    match key {
        "tokens_output_per_sec" => metric(VllmMetric::OutputThroughput),
        "tokens_input_per_sec" => {
            let seconds = metric(VllmMetric::Duration).filter(|seconds| *seconds > 0.0)?;
            Some(metric(VllmMetric::TotalInputTokens)? / seconds)
        }
        "prompt_tokens_total" => metric(VllmMetric::TotalInputTokens),
        "completion_tokens_total" => metric(VllmMetric::TotalOutputTokens),
        "successful_requests" => metric(VllmMetric::Completed),
        "inference_time" => metric(VllmMetric::Duration),
        "e2e_time" => row.metric("e2e_s"),
        _ => row.metric(key),
    }
}

/// The configurations of each experiment (named group), each under each load once, in order of appearance.
pub(super) fn experiments<'a>(rows: &[&'a Row]) -> Vec<(String, Vec<Line<'a>>)> {
    let labels: std::collections::HashMap<*const Row, String> =
        rows.iter().map(|row| std::ptr::from_ref(*row)).zip(load_labels(rows)).collect();
    let mut experiments: IndexMap<String, Vec<Line<'a>>> = IndexMap::new();
    for measured in settings(rows) {
        let valid: Vec<&Row> = measured.iter().copied().filter(|row| row.is_valid()).collect();
        let Some(row) = valid.first().or(measured.first()).copied() else { continue };
        let prompt = prompt(row, labels.get(&std::ptr::from_ref(row)));
        let line = || Line { row, valid: valid.clone(), prompt: prompt.clone() };
        if row.groups.is_empty() {
            experiments.entry(UNNAMED.to_owned()).or_default().push(line());
        }
        for group in &row.groups {
            experiments.entry(group.clone()).or_default().push(line());
        }
    }
    experiments.into_iter().collect()
}

/// Writes lines, each with the name of its experiment.
///
/// # Errors
/// When the writer refuses.
pub(super) fn write<'l>(lines: impl Iterator<Item = (&'l str, &'l Line<'l>)>, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = ::csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    for (experiment, line) in lines {
        let words = short_settings(line.row);
        csv.write_record(COLUMNS.map(|column| match column {
            "experiment" => experiment.to_owned(),
            "prompt_template_name" => line.prompt.clone(),
            "model" => line.row.axes.model.clone(),
            "path" => path(line.row),
            "comment" => line.comment(),
            _ => match words.iter().find(|(word, _)| *word == column) {
                Some((_, value)) => value.clone(),
                None => number(column, line.metric(column)),
            },
        }))?;
    }
    csv.flush()
}

/// Where its result is, below the results directory.
fn path(row: &Row) -> String {
    let file = row.source.as_ref().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    if file.is_empty() { row.about.run.to_string() } else { format!("{}/{file}", row.about.run) }
}

/// Six decimals, as the cluster sweep writes them; counts as whole numbers.
fn number(column: &str, value: Option<f64>) -> String {
    let counts = ["prompt_tokens_total", "completion_tokens_total", "successful_requests"];
    match value {
        None => String::new(),
        Some(value) if counts.contains(&column) && value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.6}"),
    }
}

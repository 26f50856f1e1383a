//! Scenarios of a file; those of S3 with the files and tables that its documents name.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::files::{failed, file_name};
use super::progress::Watched;
use super::{Measured, all, completions, exit_code};
use crate::cli::LoadArgs;
use crate::config::{Environment, LoadLayers, Scenario, Scenarios, read_scenarios};
use crate::error::Error;
use crate::exit;
use crate::load::metrics::Summary;
use crate::record;
use crate::ui::Ui;

/// Runs the scenarios of a file.
pub(super) async fn run(
    layers: &LoadLayers,
    args: &LoadArgs,
    file: &Path,
    watched: &Watched,
    environment: &Environment,
    ui: &Ui,
) -> Result<u8, Error> {
    match read_scenarios(layers, file, environment)? {
        Scenarios::Load(list) => load(list, watched, environment, ui).await,
        Scenarios::Completions(list) => completions::run(args, list, watched, environment, ui).await,
    }
}

/// S3: one table of requests per workload, one per scenario, and a summary of all.
async fn load(list: Vec<Scenario>, watched: &Watched, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let (mut rows, mut folder, mut code) = (Vec::new(), PathBuf::new(), exit::OK);
    for scenario in list {
        let what = scenario.description.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        ui.say(&format!("scenario {}{what}", scenario.name));
        let mut settings = scenario.layers.settings(environment)?;
        settings.scenario = Some(file_name(&scenario.name));
        folder.clone_from(&settings.result_dir);
        let loads = all(&settings, watched, ui).await?;
        let combined = folder.join(format!("{}_all_runs.csv", file_name(&scenario.name)));
        for load in &loads {
            if let Some((run_id, path)) = &load.requests {
                append_rows(path, &combined)?;
                rows.push(Row::of(run_id, &scenario.name, load));
            }
        }
        code = code.max(exit_code(&loads));
        if loads.iter().any(|load| load.ended.stopped.is_some()) {
            break;
        }
    }
    rows.sort_by(|a, b| (&a.scenario, a.concurrency).cmp(&(&b.scenario, b.concurrency)));
    record::atomic::write(&folder.join("summary.csv"), &summary_csv(&rows)?)?;
    record::atomic::write(&folder.join("summary.md"), summary_md(&rows).as_bytes())?;
    ui.say(&format!("summary: {} and summary.md beside it", folder.join("summary.csv").display()));
    Ok(code)
}

/// Appends the rows of one table to another, whose header is the same.
fn append_rows(from: &Path, to: &Path) -> Result<(), Error> {
    let text = crate::bounded::read(from, crate::bounded::RESULT)
        .map_err(|source| Error::Record(record::Error::read(from)(source)))?;
    let is_new = !to.exists();
    let rows = if is_new { &text[..] } else { text.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default() };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(to);
    file.and_then(|mut file| file.write_all(rows)).map_err(|source| failed(to, source))
}

/// A line of S3's summary.
#[derive(Debug)]
struct Row {
    run_id: String,
    scenario: String,
    concurrency: u64,
    prefill: u64,
    max_new: Option<u64>,
    total: u64,
    completed: u64,
    failed: u64,
    ttft: Option<Summary>,
    latency: Summary,
    tokens_per_sec: Summary,
    /// `None` where nothing counted those of some prompt.
    prompt_tokens: Option<f64>,
    completion_tokens: f64,
    errors: String,
    simulated: bool,
}

impl Row {
    fn of(run_id: &str, scenario: &str, load: &Measured) -> Self {
        let (metrics, point) = (&load.metrics, &load.point);
        let mut errors: Vec<(String, u64)> =
            metrics.failures.values().flat_map(|failures| failures.examples.clone()).collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let errors: Vec<String> = errors
            .iter()
            .take(3)
            .map(|(text, count)| format!("{}: {count}", text.chars().take(30).collect::<String>()))
            .collect();
        let per_request =
            |total: u64| if metrics.completed > 0 { total as f64 / metrics.completed as f64 } else { 0.0 };
        Self {
            run_id: run_id.to_owned(),
            scenario: scenario.to_owned(),
            concurrency: point.max_concurrency.unwrap_or(0),
            prefill: point.input_len,
            max_new: point.output_len,
            total: metrics.completed + metrics.failed,
            completed: metrics.completed,
            failed: metrics.failed,
            ttft: metrics.has_ttft.then(|| metrics.ttft.clone()),
            latency: metrics.e2el.clone(),
            tokens_per_sec: metrics.tokens_per_second_per_user.clone(),
            prompt_tokens: metrics.total_input.map(per_request),
            completion_tokens: per_request(metrics.total_output),
            errors: if errors.is_empty() { "None".into() } else { errors.join("; ") },
            simulated: load.result.contains_key("simulated"),
        }
    }

    fn success(&self) -> String {
        format!("{:.1}%", 100.0 * self.completed as f64 / self.total.max(1) as f64)
    }

    /// A percentile, or nothing where no request was completed.
    fn at(&self, summary: Option<&Summary>, which: f64) -> Option<f64> {
        let summary = summary.filter(|_| self.completed > 0)?;
        summary.percentiles.iter().find(|(known, _)| *known == which).map(|(_, value)| *value)
    }
}

const SUMMARY_COLUMNS: [&str; 21] = [
    "run_id",
    "scenario",
    "concurrency",
    "prefill_tokens",
    "max_new_tokens",
    "total_requests",
    "successful_requests",
    "failed_requests",
    "success_rate",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "ttft_p99_ms",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "tokens_per_sec_p50",
    "tokens_per_sec_p95",
    "avg_prompt_tokens",
    "avg_completion_tokens",
    "error_types",
    "simulated",
];

fn summary_csv(rows: &[Row]) -> Result<Vec<u8>, Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| failed(Path::new("summary.csv"), std::io::Error::other(error));
    out.write_record(SUMMARY_COLUMNS).map_err(wrong)?;
    for row in rows {
        let some = |value: Option<f64>| value.map(|value| format!("{value:.2}")).unwrap_or_default();
        let (ttft, latency, rate) = (row.ttft.as_ref(), Some(&row.latency), Some(&row.tokens_per_sec));
        let mut fields = vec![
            row.run_id.clone(),
            row.scenario.clone(),
            row.concurrency.to_string(),
            row.prefill.to_string(),
            row.max_new.map(|value| value.to_string()).unwrap_or_default(),
            row.total.to_string(),
            row.completed.to_string(),
            row.failed.to_string(),
            row.success(),
        ];
        for (summary, which) in [
            (ttft, 50.0),
            (ttft, 95.0),
            (ttft, 99.0),
            (latency, 50.0),
            (latency, 95.0),
            (latency, 99.0),
            (rate, 50.0),
            (rate, 95.0),
        ] {
            fields.push(some(row.at(summary, which)));
        }
        fields.extend([
            row.prompt_tokens.map(|tokens| format!("{tokens:.1}")).unwrap_or_default(),
            format!("{:.1}", row.completion_tokens),
            row.errors.clone(),
            row.simulated.to_string(),
        ]);
        out.write_record(fields).map_err(wrong)?;
    }
    out.into_inner().map_err(|error| failed(Path::new("summary.csv"), error.into_error()))
}

fn summary_md(rows: &[Row]) -> String {
    let mut text = String::from("# Benchmark summary\n");
    if rows.iter().any(|row| row.simulated) {
        text.push_str("\n**SIMULATED**: the server is the simulated vLLM; a timing model made these numbers up.\n");
    }
    let mut scenario = None;
    for row in rows {
        if scenario != Some(&row.scenario) {
            scenario = Some(&row.scenario);
            text.push_str(&format!(
                "\n## {}\n\n| CC | Prefill | MaxNew | Success | TTFT p50/p95/p99 (ms) | Latency p50/p95/p99 (ms) | Tok/s p50/p95 |\n\
                 |---|---|---|---|---|---|---|\n",
                row.scenario
            ));
        }
        let some = |summary: Option<&Summary>, which: &[f64]| {
            let values =
                which.iter().map(|which| row.at(summary, *which).map_or("-".into(), |value| format!("{value:.1}")));
            values.collect::<Vec<String>>().join("/")
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            row.concurrency,
            row.prefill,
            row.max_new.map(|value| value.to_string()).unwrap_or_default(),
            row.success(),
            some(row.ttft.as_ref(), &[50.0, 95.0, 99.0]),
            some(Some(&row.latency), &[50.0, 95.0, 99.0]),
            some(Some(&row.tokens_per_sec), &[50.0, 95.0]),
        ));
    }
    let errors: Vec<&Row> = rows.iter().filter(|row| row.failed > 0).collect();
    if !errors.is_empty() {
        text.push_str("\n## Errors\n\n");
        for row in errors {
            text.push_str(&format!("- {}: {}\n", row.run_id, row.errors.replace('|', "/")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scenarios_become_names_of_files() {
        assert_eq!(file_name("Small Load/../x"), "Small_Load_.._x");
        assert_eq!((file_name(".."), file_name("")), ("_".to_owned(), "_".to_owned()));
    }
}

//! S4's completions: a result for each number of samples, and a report of all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::{failed, file_name};
use super::progress::Watched;
use super::{Measured, all, exit_code};
use crate::cli::LoadArgs;
use crate::config::{Environment, LoadSettings, Scenario};
use crate::error::Error;
use crate::exit;
use crate::load::metrics::Summary;
use crate::record;
use crate::report;
use crate::stats;
use crate::ui::Ui;

/// S4: one result for each number of samples, and a report of all.
pub(super) async fn run(
    args: &LoadArgs,
    list: Vec<Scenario>,
    watched: &Watched,
    environment: &Environment,
    ui: &Ui,
) -> Result<u8, Error> {
    let (mut reports, mut folder, mut code) = (Vec::new(), PathBuf::new(), exit::OK);
    for scenario in list {
        ui.say(&format!("scenario {}", scenario.name));
        let mut settings = scenario.layers.settings(environment)?;
        if settings.api_key.is_none() {
            settings.api_key = scenario.api_key;
        }
        folder.clone_from(&settings.result_dir);
        let loads = all(&settings, watched, ui).await?;
        let prompt = settings.prompts.spec.text.clone().unwrap_or_default();
        for load in &loads {
            let samples = load.point.completions.unwrap_or(0);
            let name = format!("benchmark_{}_{samples}_completions.json", file_name(&scenario.name));
            save(&settings.result_dir.join(name), load, ui)?;
            reports.push((scenario.name.clone(), prompt.clone(), report(load)));
        }
        code = code.max(exit_code(&loads));
        if loads.iter().any(|load| load.ended.stopped.is_some()) {
            break;
        }
    }
    if !args.no_csv {
        let name = format!("benchmark_report_{}.csv", chrono::Local::now().format("%Y%m%d_%H%M%S"));
        let path = folder.join(name);
        record::atomic::write(&path, &report_csv(&reports)?)?;
        ui.say(&format!("report: {}", path.display()));
    }
    ui.out(&comparison("Completions", "num_completions", &reports));
    Ok(code)
}

/// The reports of `--completions`, `--compare` and `--concurrent-tests`.
pub(super) fn reports(args: &LoadArgs, settings: &LoadSettings, loads: &[Measured], ui: &Ui) -> Result<(), Error> {
    let by_concurrency = !args.concurrent_tests.is_empty();
    let prompt = settings.prompts.spec.text.clone().unwrap_or_default();
    let mut reports = Vec::new();
    for load in loads {
        if settings.save_result {
            let (kind, number) = match by_concurrency {
                true => ("concurrent", load.point.max_concurrency.unwrap_or(0)),
                false => ("completions", load.point.completions.unwrap_or(0)),
            };
            save(&settings.result_dir.join(format!("benchmark_{number}_{kind}.json")), load, ui)?;
        }
        reports.push((settings.label.clone().unwrap_or_default(), prompt.clone(), report(load)));
    }
    if by_concurrency {
        ui.out(&comparison("Concurrent", "concurrent_requests", &reports));
    } else {
        ui.out(&comparison("Completions", "num_completions", &reports));
    }
    Ok(())
}

/// S4's result. Latencies are those of completed requests: a failed one has none.
fn report(load: &Measured) -> Value {
    let (metrics, whole) = (&load.metrics, &load.whole);
    let asked = load.point.completions.unwrap_or(whole.requests * u64::from(load.point.n));
    let mean = stats::mean(whole.latencies.iter().copied()).unwrap_or_default();
    let some = |value: f64| if whole.latencies.is_empty() { Value::Null } else { value.into() };
    let mut value = json!({
        "timestamp": chrono::Local::now().format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        "num_completions": asked,
        "num_requests": whole.requests,
        "concurrent_requests": load.point.max_concurrency,
        "total_time": metrics.duration,
        "avg_latency": some(mean),
        "throughput": if metrics.duration > 0.0 { metrics.sequences as f64 / metrics.duration } else { 0.0 },
        "success_rate": metrics.sequences as f64 / asked.max(1) as f64,
        "error_count": metrics.failed,
        "response_times": whole.latencies,
        "server_metrics": whole.server,
        "completions": metrics.sequences,
        "output_throughput": metrics.output_throughput,
        "errors": metrics.failures,
    });
    if load.result.contains_key("simulated")
        && let Value::Object(map) = &mut value
    {
        map.insert("simulated".into(), true.into());
    }
    value
}

fn save(path: &Path, load: &Measured, ui: &Ui) -> Result<(), Error> {
    record::atomic::write_json(path, &report(load))?;
    ui.say(&format!("result: {}", path.display()));
    Ok(())
}

const REPORT_COLUMNS: [&str; 15] = [
    "scenario",
    "prompt",
    "num_completions",
    "num_requests",
    "concurrent_requests",
    "total_time",
    "avg_latency",
    "throughput",
    "success_rate",
    "error_count",
    "min_latency",
    "max_latency",
    "median_latency",
    "std_dev_latency",
    "simulated",
];

fn report_csv(reports: &[(String, String, Value)]) -> Result<Vec<u8>, Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let wrong = |error: csv::Error| failed(Path::new("benchmark_report.csv"), std::io::Error::other(error));
    out.write_record(REPORT_COLUMNS).map_err(wrong)?;
    for (scenario, prompt, report) in reports {
        let mut times: Vec<f64> =
            report["response_times"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let summary = Summary::of(&mut times, &[]);
        let some = |value: f64| if times.is_empty() { String::new() } else { format!("{value:.6}") };
        let text = |key: &str| match &report[key] {
            Value::Null => String::new(),
            value => value.to_string(),
        };
        let mut fields = vec![scenario.clone(), prompt.clone()];
        fields.extend(REPORT_COLUMNS[2..10].iter().map(|key| text(key)));
        fields.extend([
            some(times.first().copied().unwrap_or(0.0)),
            some(times.last().copied().unwrap_or(0.0)),
            some(summary.median),
            some(summary.std),
            (report.get("simulated").is_some()).to_string(),
        ]);
        out.write_record(fields).map_err(wrong)?;
    }
    out.into_inner().map_err(|error| failed(Path::new("benchmark_report.csv"), error.into_error()))
}

/// S4's table.
fn comparison(head: &'static str, key: &str, reports: &[(String, String, Value)]) -> String {
    let row = |(scenario, _, report): &(String, String, Value)| {
        let number = |key: &str| report[key].as_f64();
        let some = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let name = if scenario.is_empty() { String::new() } else { format!("{scenario}: ") };
        vec![
            format!("{name}{}", report[key]),
            some(number("total_time")),
            some(number("throughput")),
            some(number("avg_latency")),
            number("success_rate").map_or("-".into(), |rate| format!("{:.1}", rate * 100.0)),
        ]
    };
    let table =
        report::table(&[head, "Time (s)", "Throughput (1/s)", "Latency (s)", "Success %"], reports.iter().map(row));
    let simulated = reports.iter().any(|(_, _, report)| report.get("simulated").is_some());
    format!("{}{table}", if simulated { "SIMULATED\n" } else { "" })
}

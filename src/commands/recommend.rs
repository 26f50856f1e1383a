//! `recommend`: the configuration to use, why, and the command that starts it.

use indexmap::IndexMap;

use super::analyze;
use crate::analyse::{Better, Limit, Metric, Row, RunTable, Wanted, choose};
use crate::cli::RecommendArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::recommend::{Answer, json, text};
use crate::report::{Style, load_run};
use crate::ui::Ui;

/// Recommends for each model and load by itself. Exit code 3 when no configuration keeps the limits.
///
/// # Errors
/// When the run cannot be found or read, or a flag is wrong.
pub fn run(args: &RecommendArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wanted = wanted(args)?;
    let run = analyze::target(args.run.as_deref(), args.results_dir.as_deref(), environment)?;
    let table = load_run(&run)?;
    let answers = answers(&table, &wanted);
    if answers.is_empty() {
        return Err(Error::Nothing {
            message: format!("`{}` has no valid result to choose from", table.facts.run),
            hint: "`vllm-bench analyze` says what came of it".into(),
        });
    }
    match args.format.as_deref().unwrap_or("text") {
        "text" => {
            let style = if ui.display.color_out { Style::COLOR } else { Style::PLAIN };
            ui.out_raw(text(&answers, &wanted, table.simulated, style).as_bytes());
        }
        "json" => ui.out(&format!("{:#}", json(&answers, &wanted, table.simulated))),
        other => {
            return Err(Error::Usage {
                message: format!("invalid value `{other}` for `--format`: expected `text` or `json`"),
                hint: "leave it out for text".into(),
            });
        }
    }
    Ok(if answers.iter().any(|answer| answer.choice.is_err()) { exit::NOTHING } else { exit::OK })
}

fn wanted(args: &RecommendArgs) -> Result<Wanted, Error> {
    let figure = |flag: &str, key: &str| {
        let known = Metric::ALL.into_iter().find(|metric| metric.key() == key).and_then(Metric::better);
        let percentile = key.starts_with('p') && key.ends_with("_ms");
        known.or(percentile.then_some(Better::Lower)).ok_or_else(|| Error::Usage {
            message: format!(
                "invalid value `{}` for `{flag}`: it is no figure that can be better or worse",
                key.escape_debug()
            ),
            hint: "such as output_throughput, request_throughput, mean_ttft_ms, p99_tpot_ms".into(),
        })
    };
    let rank_by = args.rank_by.clone().unwrap_or_else(|| "output_throughput".into());
    let better = figure("--rank-by", &rank_by)?;
    let latency = args.latency.clone().unwrap_or_else(|| "mean_ttft_ms".into());
    figure("--latency", &latency)?;
    let mut limits = Vec::new();
    for text in args.slo.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        limits.push(Limit::parse(text).ok_or_else(|| Error::Usage {
            message: format!("invalid value `{}` for `--slo`: expected `METRIC.STATISTIC<MS`", text.escape_debug()),
            hint: "such as `--slo 'ttft.p99<500,tpot.mean<50'`".into(),
        })?);
    }
    Ok(Wanted { rank_by, better, per_device: better == Better::Higher && !args.total, latency, limits })
}

fn answers<'a>(table: &'a RunTable, wanted: &Wanted) -> Vec<Answer<'a>> {
    let measured = table.rows.iter().any(|row| row.is_valid() && !row.simulated);
    let mut groups: IndexMap<(&str, String), Vec<&Row>> = IndexMap::new();
    for row in table.rows.iter().filter(|row| !(row.is_skipped() || measured && row.simulated)) {
        groups.entry((row.axes.model.as_str(), row.axes.workload_label())).or_default().push(row);
    }
    groups
        .into_iter()
        .filter(|(_, rows)| rows.iter().any(|row| row.is_valid()))
        .map(|((model, workload), rows)| {
            let choice = choose(&rows, wanted);
            let named = |left: crate::analyse::LeftOut<'_>| (left.row.name.clone(), left.why);
            Answer { model, workload, choice: choice.map_err(|all| all.into_iter().map(named).collect()) }
        })
        .collect()
}

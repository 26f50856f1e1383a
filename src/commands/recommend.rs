//! `recommend`: the configuration to use, why, and the command that starts it.

use super::analyze;
use crate::analyse::{Better, Figure, Limit, Wanted};
use crate::cli::RecommendArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::recommend::{answers, json, text};
use crate::report::{Style, load_run};
use crate::ui::Ui;

/// Recommends for each model and load by itself. Exit code 3 when no configuration keeps the limits.
///
/// # Errors
/// When the run cannot be found or read, or a flag is wrong.
pub fn run(args: &RecommendArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wanted = wanted(args.rank_by.as_deref(), args.latency.as_deref(), args.total, &args.slo)?;
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

/// What the flags `--rank-by`, `--latency`, `--total` and `--slo` ask for.
///
/// # Errors
/// When one of them names no figure, or is no limit.
pub(super) fn wanted(
    rank_by: Option<&str>,
    latency: Option<&str>,
    total: bool,
    slo: &[String],
) -> Result<Wanted, Error> {
    let figure = |flag: &str, key: &str| {
        Figure::of(key).and_then(|figure| figure.better).ok_or_else(|| Error::Usage {
            message: format!(
                "invalid value `{}` for `{flag}`: it is no figure that can be better or worse",
                key.escape_debug()
            ),
            hint: "such as output_throughput, request_throughput, mean_ttft_ms, p99_tpot_ms".into(),
        })
    };
    let plain = Wanted::default();
    let rank_by = rank_by.map_or(plain.rank_by, str::to_owned);
    let better = figure("--rank-by", &rank_by)?;
    let latency = latency.map_or(plain.latency, str::to_owned);
    figure("--latency", &latency)?;
    let mut limits = Vec::new();
    for text in slo.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        limits.push(Limit::parse(text).ok_or_else(|| Error::Usage {
            message: format!("invalid value `{}` for `--slo`: expected `METRIC.STATISTIC<MS`", text.escape_debug()),
            hint: "such as `--slo 'ttft.p99<500,tpot.mean<50'`".into(),
        })?);
    }
    Ok(Wanted { rank_by, better, per_device: better == Better::Higher && !total, latency, limits })
}

//! `recommend`: the configuration to use, why, and the command that starts it.

use super::compare::percent;
use super::{analyze, asked};
use crate::analyse::{Figure, LimitsFrom, Wanted, answers, derive};
use crate::cli::{ChoiceArgs, RecommendArgs, RecommendFormat};
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::Style;
use crate::report::recommend::{json, text};
use crate::ui::Ui;

/// Recommends for each model and load by itself. Exit code 3 when no configuration keeps the limits.
///
/// # Errors
/// When the run cannot be found or read, or a flag is wrong.
pub fn run(args: &RecommendArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wanted = wanted(&args.choice)?;
    let assumed = asked::assumptions(&args.cost, environment)?;
    let mut table = analyze::table(&args.runs, args.results_dir.as_deref(), environment)?;
    asked::baseline(&args.against.baseline, &mut table, ui)?;
    derive(&mut table, &assumed);
    let wanted = asked::usual_limits(wanted, &args.choice.slo, &table, ui)?;
    let keys = asked::group_keys(&args.group_by, &table)?;
    let answers = answers(&table, &keys, &wanted);
    if answers.is_empty() {
        return Err(Error::Nothing {
            message: format!("`{}` has no valid result to choose from", table.facts.run),
            hint: "`vllm-bench analyze` says what came of it".into(),
        });
    }
    match args.format.unwrap_or_default() {
        RecommendFormat::Text => {
            let style = if ui.display.color_out { Style::COLOR } else { Style::PLAIN };
            ui.out_raw(text(&answers, &wanted, table.simulated, style).as_bytes());
        }
        RecommendFormat::Json => ui.out(&format!("{:#}", json(&answers, &wanted, table.simulated))),
    }
    let damage = analyze::tell_damage(&table, ui);
    Ok(if answers.iter().any(|answer| answer.choice.is_err()) { exit::NOTHING } else { damage })
}

/// What the flags `--rank-by`, `--latency`, `--total`, `--slo`, `--margin` and `--max-failure-rate` ask for.
///
/// # Errors
/// When one of them names no figure, or is no limit.
pub(super) fn wanted(args: &ChoiceArgs) -> Result<Wanted, Error> {
    let plain = Wanted::default();
    let rank_by = asked::figure("--rank-by", args.rank_by.as_deref().unwrap_or(&plain.rank_by))?;
    let latency = asked::figure("--latency", args.latency.as_deref().unwrap_or(&plain.latency))?;
    let per_device = Figure::is_of_all_devices(&rank_by.0.key) && !args.total;
    let limits = asked::limits(&args.slo)?;
    let margin = args.margin.as_deref().map(|text| percent("--margin", text)).transpose()?;
    let failures = args.max_failure_rate.as_deref().map(|text| percent("--max-failure-rate", text)).transpose()?;
    Ok(Wanted {
        rank_by: rank_by.0.key,
        better: rank_by.1,
        per_device,
        latency: latency.0.key,
        limits,
        limits_from: LimitsFrom::Flag,
        margin: margin.unwrap_or(plain.margin),
        failures: failures.unwrap_or(plain.failures),
    })
}

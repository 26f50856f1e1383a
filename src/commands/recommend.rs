//! `recommend`: the configuration to use, why, and the command that starts it.

use super::analyze::{self, print};
use super::choice;
use crate::analyse::derive;
use crate::cli::RecommendArgs;
use crate::commands::query_args;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::export::Analysis;
use crate::ui::Ui;

/// Recommends for each model and load by itself. Exit code 3 when no configuration keeps the limits.
///
/// # Errors
/// When the run cannot be found or read, or a flag is wrong.
pub fn run(args: &RecommendArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wanted = choice::of_flags(&args.choice)?;
    let assumed = query_args::assumptions(&args.cost, environment)?;
    let mut table = analyze::table(&args.runs, args.results_dir.as_deref(), environment)?;
    query_args::baseline(&args.against.baseline, &mut table, ui)?;
    derive(&mut table, &assumed);
    let wanted = choice::of_runs(wanted, &args.choice, &table, ui)?;
    if wanted.rank_by == "speedup" {
        query_args::tell_excluded_baselines(&table, &wanted, ui);
    }
    let keys = query_args::group_keys(&args.group_by, &table)?;
    let analysis = Analysis::by(&table, keys, wanted);
    if analysis.answers().is_empty() {
        return Err(Error::Nothing {
            message: format!("`{}` has no valid result to choose from", table.facts.run),
            hint: "`vllm-bench analyze` says what came of it".into(),
        });
    }
    print(args.format().exporter(), &analysis, ui)?;
    let damage = analyze::tell_damage(&table, ui);
    Ok(if analysis.answers().iter().any(|answer| answer.choice.is_err()) { exit::NOTHING } else { damage })
}

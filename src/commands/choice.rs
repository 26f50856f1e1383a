//! By what configurations are chosen: the flags of every command that gives an answer, over what the runs keep of their sweep.

use super::format::percent;
use crate::analyse::{Limit, LimitsFrom, Objective, ObjectiveFrom, RankingSpec, Row, RunTable};
use crate::cli::ChoiceArgs;
use crate::commands::query_args;
use crate::config::{self, Settings};
use crate::error::Error;
use crate::model::Metric;
use crate::report::clean;
use crate::ui::Ui;

/// What the flags say, before anything is read.
///
/// # Errors
/// When one of them names no metric, is no limit, or has no effect.
pub(super) fn of_flags(args: &ChoiceArgs) -> Result<RankingSpec, Error> {
    let plain = RankingSpec::default();
    let latency = query_args::metric("--latency", args.latency.as_deref().unwrap_or(&plain.latency))?;
    let limits = query_args::limits(&args.slo)?;
    let margin = args.margin.as_deref().map(|text| percent("--margin", text)).transpose()?;
    let failures = args.max_failure_rate.as_deref().map(|text| percent("--max-failure-rate", text)).transpose()?;
    let wanted = RankingSpec {
        latency: latency.0.key,
        limits,
        limits_from: LimitsFrom::Flag,
        margin: margin.unwrap_or(plain.margin),
        failures: failures.unwrap_or(plain.failures),
        ..plain
    };
    let Some(text) = &args.objective else { return Ok(wanted) };
    let objective = objective("--objective", text)?;
    if args.total && !Metric::is_of_all_devices(&objective.key) {
        return Err(Error::Usage {
            message: format!("`--total` has no effect with `--objective {}`", objective.key),
            hint: "it is for throughputs of the whole server, which count per device without it: leave it out".into(),
        });
    }
    Ok(wanted.with_objective(objective, ObjectiveFrom::Flag))
}

/// An objective that the user writes.
fn objective(flag: &str, text: &str) -> Result<Objective, Error> {
    if let Some(objective) = Objective::parse(text) {
        return Ok(objective);
    }
    let key = text.trim().strip_prefix("total:").unwrap_or(text.trim());
    // The error for a key that is no metric; one that is has a `total:` that means nothing.
    query_args::metric(flag, key)?;
    Err(Error::Usage {
        message: format!("invalid value `{}` for `{flag}`: {}", text.escape_debug(), NOT_OF_ALL),
        hint: format!("write `{key}`"),
    })
}

const NOT_OF_ALL: &str = "`total:` is for throughputs of the whole server";

/// What the flags say, over what the runs keep: their objective where `--objective` names none, and the limits of their sweep files
/// where `--slo` names none.
///
/// # Errors
/// When a limit of `--slo` is on a metric that no result has.
pub(super) fn of_runs(wanted: RankingSpec, args: &ChoiceArgs, table: &RunTable, ui: &Ui) -> Result<RankingSpec, Error> {
    let wanted = match args.objective {
        Some(_) => wanted,
        None => {
            let (wanted, wrong) = wanted.with_objective_of(table);
            for (text, run) in wrong {
                let (text, run) = (clean(&text), clean(&run));
                ui.warn(&format!(
                    "the objective `{text}` of the run {run} is no metric with a direction: the default is used"
                ));
            }
            wanted
        }
    };
    let wanted = wanted.with_starts_of(table);
    let wanted = RankingSpec { per_device: wanted.per_device && !args.total, ..wanted };
    if !args.slo.is_empty() {
        return known_limits(&wanted, table).map(|()| wanted);
    }
    let (wanted, wrong) = wanted.with_limits_of(table);
    for (text, run) in wrong {
        ui.warn(&format!(
            "`{}` of the sweep file's `slo` is no limit on a metric: no limit of the run {} is used",
            clean(&text),
            clean(&run)
        ));
    }
    Ok(wanted)
}

/// Refuses a limit on a metric that no result has: nothing could keep it.
fn known_limits(wanted: &RankingSpec, table: &RunTable) -> Result<(), Error> {
    let valid: Vec<&Row> = table.rows.iter().filter(|row| row.is_valid()).collect();
    let unknown = |limit: &&Limit| !valid.is_empty() && valid.iter().all(|row| row.metric(&limit.key).is_none());
    let Some(limit) = wanted.limits.iter().find(unknown) else { return Ok(()) };
    let latency = Metric::quantile(&limit.key).map(|(_, latency)| format!("_{latency}_ms"));
    let fixed = Metric::keys().filter(|key| valid.iter().any(|row| row.metric(key).is_some()));
    let known: std::collections::BTreeSet<String> = valid
        .iter()
        .flat_map(|row| row.about.further.keys().map(str::to_owned))
        .chain(fixed.map(str::to_owned))
        .filter(|key| latency.as_ref().is_some_and(|latency| key.ends_with(latency.as_str())))
        .collect();
    Err(Error::Usage {
        message: format!("invalid value `{limit}` for `--slo`: no result has `{}`", limit.key.escape_debug()),
        hint: match known.is_empty() {
            true => "docs/analysis.md says where each metric comes from".into(),
            false => format!(
                "there is: {}; vLLM's flag --metric-percentiles adds others to a measurement",
                known.iter().map(|key| clean(key)).collect::<Vec<_>>().join(", ")
            ),
        },
    })
}

/// Checks the objective of a sweep before anything is measured.
///
/// # Errors
/// When it is no metric with a direction, or one that its results will not have.
pub(super) fn check_objective(settings: &Settings, ui: &Ui) -> Result<(), Error> {
    let Some(raw) = &settings.objective else { return Ok(()) };
    let text = raw.node.scalar().unwrap_or_default();
    let wrong = |expected: &str, hint: String| -> Result<(), Error> {
        Err(config::Error::wrong(&raw.node, &raw.path, expected, Some(hint)).into())
    };
    let Some(objective) = Objective::parse(&text) else {
        let key = text.trim().strip_prefix("total:").unwrap_or(text.trim());
        return match query_args::metric("--objective", key) {
            Ok(_) => wrong(
                &format!("a metric of the whole server after `total:`, as {NOT_OF_ALL}"),
                format!("write `{key}`"),
            ),
            Err(error) => wrong("the key of a metric with a direction", error.hints().join("; ")),
        };
    };
    let has_goals = settings.sweep.groups.iter().any(|group| group.bench.iter().any(|axis| axis.key == "goodput"));
    if objective.key == "request_goodput" && !has_goals {
        let hint = "add `goodput: [[\"ttft:500\", \"tpot:50\"]]` under `bench` (milliseconds), or name another metric";
        return wrong("a metric that the results have: `request_goodput` needs goals", hint.into());
    }
    if objective.key.starts_with("cost_") {
        ui.warn(&format!(
            "the run itself knows no prices: `vllm-bench recommend --prices FILE` answers by `{}` when it has ended",
            objective.key
        ));
    }
    Ok(())
}

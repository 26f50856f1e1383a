//! The configuration to use, for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{
    Answer, BY_MODEL, Basis, Beside, Choice, LeftOut, Limit, LimitsFrom, RankingSpec, Recommendation, RunTable,
    Standing,
};
use crate::report::answer;
use crate::report::html::shell_line;

/// For programs.
pub struct Json;

impl Exporter<Analysis<'_>> for Json {
    fn format(&self) -> Format {
        Format::one("json", "For programs", "json")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(writeln!(out, "{:#}", json(analysis))?)
    }
}

/// How many valid simulated rows no answer is about, as others were measured.
fn left_out_simulated(table: &RunTable) -> usize {
    let simulated = table.rows.iter().filter(|row| row.is_valid() && row.simulated).count();
    if table.is_all_simulated() { 0 } else { simulated }
}

/// What the choice gives and takes against another option, as parts of that one's metrics.
fn cost(choice: &Choice<'_>, theirs: &Choice<'_>) -> Value {
    let part = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs.filter(|theirs| *theirs > 0.0)? - 1.0);
    json!({
        "name": theirs.row.name,
        "value": part(Some(choice.value), Some(theirs.value)),
        "latency": part(choice.latency, theirs.latency),
        "devices": choice.row.about.devices.zip(theirs.row.about.devices).map(|(a, b)| i64::from(a) - i64::from(b)),
    })
}

fn option(option: &Choice<'_>) -> Value {
    json!({
        "name": option.row.name, "value": option.value, "latency_ms": option.latency,
        "n": option.n, "measurements": option.measurements,
        "interval": option.estimate.and_then(|estimate| estimate.interval),
        "standing": option.standing, "failures": option.failures,
        "devices": option.row.about.devices, "neighbours": option.row.about.neighbours, "on_pareto_front": option.on_front,
        "serve_command": option.row.about.serve_command,
        "serve_environment": option.row.about.serve_environment,
        "warnings": option.warnings.iter().map(|warning| warning.text.as_str()).collect::<Vec<_>>(),
    })
}

fn found(found: &Recommendation<'_>, beside: Option<&Beside>, wanted: &RankingSpec) -> Value {
    let choice = found.chosen();
    let in_set = found.options.iter().filter(|option| option.standing == Standing::MayBeBest);
    json!({
        "choice": choice.map(option),
        "command": choice.map(|choice| shell_line(&choice.row.start_command())).filter(|command| !command.is_empty()),
        "why": found.why,
        "significantly_best": found.significantly_best,
        "within_margin": found.within_margin && found.basis != Basis::BesideOthers,
        "beside_others": beside.map(|of| json!({"settings": of.settings, "most": of.most, "cost": of.cost, "open": of.open.len()})),
        "basis": found.basis,
        "set": in_set.map(|option| option.row.name.as_str()).collect::<Vec<_>>(),
        "per_device": found.per_device,
        "noise": found.noise,
        "starts_needed": found.starts_needed,
        "limits_unconfirmed": found.limits_unconfirmed,
        "next": answer::next(found),
        "sentences": answer::sentences(found, beside, wanted),
        "options": found.options.iter().map(option).collect::<Vec<Value>>(),
        "left_out": left_out(&found.left_out),
        "runner_up": choice.zip(found.runner_up()).map(|(choice, theirs)| cost(choice, theirs)),
    })
}

fn left_out(all: &[LeftOut<'_>]) -> Vec<(String, String)> {
    all.iter().map(|left| (left.row.name.clone(), left.why.clone())).collect()
}

/// As JSON.
pub(in crate::report::export) fn json(analysis: &Analysis<'_>) -> Value {
    let (table, wanted) = (analysis.table, &analysis.wanted);
    let group = |answer: &Answer<'_>| -> serde_json::Map<String, Value> {
        answer.group.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
    };
    let all: Vec<Value> = analysis
        .answers()
        .iter()
        .map(|answer| {
            let mut value = match &answer.choice {
                Err(left) => json!({"choice": null, "left_out": left_out(left)}),
                Ok(recommendation) => found(recommendation, answer.beside.as_ref(), wanted),
            };
            value["model"] = json!(answer.value(BY_MODEL));
            value["group"] = Value::Object(group(answer));
            value["workload"] = json!(answer.workload);
            value
        })
        .collect();
    let limit = |limit: &Limit| {
        json!({
            "metric": limit.key, if limit.above { "above" } else { "below" }: limit.value, "inclusive": limit.inclusive,
        })
    };
    let from = (!wanted.limits.is_empty() || wanted.limits_from == LimitsFrom::Different).then_some(wanted.limits_from);
    json!({
        "objective": wanted.rank_by, "objective_from": wanted.objective_from, "per_device": wanted.per_device,
        "margin": wanted.margin, "max_failure_rate": wanted.failures, "simulated": table.is_all_simulated(),
        "simulated_left_out": left_out_simulated(table),
        "limits": wanted.limits.iter().map(limit).collect::<Vec<Value>>(), "limits_from": from, "answers": all,
    })
}

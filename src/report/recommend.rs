//! The configuration to use, as text and JSON.

use serde_json::{Value, json};

use super::answer;
use super::display::{configuration, cut};
use super::page::{Page, Style, Tone};
use super::text::ranking;
use crate::analyse::{
    Answer, BY_MODEL, Choice, LeftOut, Limit, LimitsFrom, RankingSpec, Recommendation, Row, RunTable, Standing,
};

/// The command that starts a configuration as it was measured.
fn command(row: &Row) -> String {
    super::html::shell_line(&row.start_command())
}

/// How many valid simulated rows no answer is about, as others were measured.
fn left_out_simulated(table: &RunTable) -> usize {
    let simulated = table.rows.iter().filter(|row| row.is_valid() && row.simulated).count();
    if table.is_all_simulated() { 0 } else { simulated }
}

/// As text.
pub fn text(answers: &[Answer<'_>], wanted: &RankingSpec, table: &RunTable, style: Style) -> String {
    let mut page = Page::new(style);
    page.title("vllm-bench · recommendation", &cut(&format!("by {}", wanted.objective(wanted.per_device)), 60));
    if let Some(banner) = super::text::banner(table) {
        page.paragraph(1, "!! ", Tone::Warning, &banner);
    }
    if let Some(said) = wanted.about() {
        page.paragraph(1, "", Tone::Plain, &cut(&said, 1000));
    }
    for answer in answers {
        page.heading(&cut(&answer.title(), 90));
        let found = match &answer.choice {
            Ok(found) => found,
            Err(left_out) => {
                ranking::none(&mut page, left_out, wanted);
                continue;
            }
        };
        if let Some(choice) = found.chosen() {
            page.line(Tone::Good, &format!("  Use  {}", configuration(&choice.row.axes)));
            if !choice.row.about.serve_command.is_empty() {
                page.gap();
                // In one piece, so that it can be copied.
                page.line(Tone::Plain, &format!("    {}", command(choice.row)));
                page.gap();
            }
        }
        ranking::one(&mut page, answer, found, wanted);
    }
    page.finish()
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
        "devices": option.row.about.devices, "on_pareto_front": option.on_front,
        "serve_command": option.row.about.serve_command,
        "serve_environment": option.row.about.serve_environment,
        "warnings": option.warnings.iter().map(|warning| warning.text.as_str()).collect::<Vec<_>>(),
    })
}

fn found(found: &Recommendation<'_>, wanted: &RankingSpec) -> Value {
    let choice = found.chosen();
    let in_set = found.options.iter().filter(|option| option.standing == Standing::MayBeBest);
    json!({
        "choice": choice.map(option),
        "command": choice.map(|choice| command(choice.row)).filter(|command| !command.is_empty()),
        "why": found.why,
        "significantly_best": found.significantly_best,
        "basis": found.basis,
        "set": in_set.map(|option| option.row.name.as_str()).collect::<Vec<_>>(),
        "per_device": found.per_device,
        "noise": found.noise,
        "starts_needed": found.starts_needed,
        "limits_unconfirmed": found.limits_unconfirmed,
        "next": answer::next(found),
        "sentences": answer::sentences(found, wanted),
        "options": found.options.iter().map(option).collect::<Vec<Value>>(),
        "left_out": left_out(&found.left_out),
        "runner_up": choice.zip(found.runner_up()).map(|(choice, theirs)| cost(choice, theirs)),
    })
}

fn left_out(all: &[LeftOut<'_>]) -> Vec<(String, String)> {
    all.iter().map(|left| (left.row.name.clone(), left.why.clone())).collect()
}

/// As JSON.
pub fn json(answers: &[Answer<'_>], wanted: &RankingSpec, table: &RunTable) -> Value {
    let group = |answer: &Answer<'_>| -> serde_json::Map<String, Value> {
        answer.group.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
    };
    let all: Vec<Value> = answers
        .iter()
        .map(|answer| {
            let mut value = match &answer.choice {
                Err(left) => json!({"choice": null, "left_out": left_out(left)}),
                Ok(recommendation) => found(recommendation, wanted),
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

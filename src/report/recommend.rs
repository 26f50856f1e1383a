//! The configuration to use, as text and JSON.

use serde_json::{Value, json};

use super::columns::{self, Column};
use super::display::{configuration, counted, cut};
use super::page::{Page, Style, Tone};
use crate::analyse::{BY_MODEL, Basis, Choice, Figure, LeftOut, Limit, LimitsFrom, Ranked, Recommendation, Wanted};

/// The ranked figure in words of a machine.
fn unit(wanted: &Wanted) -> String {
    let per = if wanted.per_device { " per device" } else { "" };
    format!("{}{per}", wanted.rank_by)
}

fn latency(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.2}"))
}

/// The command that starts a configuration.
fn command(choice: &Choice<'_>) -> String {
    let words = &choice.row.about.serve_command;
    let quoted: Vec<String> = words
        .iter()
        .map(|word| shlex::try_quote(word).map_or_else(|_| word.clone(), |quoted| quoted.into_owned()))
        .collect();
    quoted.join(" ")
}

/// What the choice rests on, in words.
fn rests_on(found: &Recommendation<'_>) -> String {
    let choice = &found.options[found.choice];
    match found.basis {
        Basis::Single => "one measurement of each configuration: nothing says how far such figures differ from run to run. \
            Repeat the first ones (`repeats:` in a sweep file, or `run --noise-check 5`) before trusting a small difference."
            .into(),
        Basis::Starts => format!("{} over several server starts.", counted(choice.n, "measurement")),
        Basis::RunsOfOneStart => {
            format!("{} on one server start each: what a start has of its own is not in it.", counted(choice.n, "measurement"))
        }
        Basis::NoiseFloor => "the noise of this machine.".into(),
    }
}

/// As text.
pub fn text(answers: &[Ranked<'_>], wanted: &Wanted, simulated: bool, style: Style) -> String {
    let mut page = Page::new(style);
    page.title("vllm-bench · recommendation", &cut(&format!("by {}", unit(wanted)), 60));
    if simulated {
        page.paragraph(1, "!! ", Tone::Warning, super::text::SIMULATED);
    }
    if let Some(said) = wanted.about_limits() {
        page.paragraph(1, "", Tone::Plain, &cut(&said, 1000));
    }
    for answer in answers {
        page.heading(&cut(&answer.title(), 90));
        let found = match &answer.choice {
            Ok(found) => found,
            Err(left_out) => {
                page.paragraph(2, "", Tone::Bad, "No configuration keeps the limits:");
                for left in left_out {
                    page.paragraph(4, "- ", Tone::Plain, &format!("{}: {}", cut(&left.row.name, 80), left.why));
                }
                continue;
            }
        };
        one(&mut page, found, wanted);
    }
    page.finish()
}

fn one(page: &mut Page, found: &Recommendation<'_>, wanted: &Wanted) {
    let choice = &found.options[found.choice];
    page.line(Tone::Good, &format!("  Use  {}", configuration(&choice.row.axes)));
    if !choice.row.about.serve_command.is_empty() {
        page.gap();
        // In one piece, so that it can be copied.
        page.line(Tone::Plain, &format!("    {}", command(choice)));
    }
    page.gap();
    let devices = choice.row.about.devices.map_or(String::new(), |n| format!(" on {}", counted(n as usize, "device")));
    page.paragraph(
        2,
        "",
        Tone::Plain,
        &format!(
            "{} {:.2}{devices}, {} {} {}.",
            unit(wanted),
            choice.value,
            wanted.latency,
            latency(choice.latency),
            Figure::of(&wanted.latency).map(|of| of.unit.symbol()).unwrap_or_default()
        ),
    );
    for sentence in sentences(found, wanted) {
        page.paragraph(2, "", Tone::Plain, &sentence);
    }
    page.gap();
    let shape = [
        Column::text(""),
        Column::text("Configuration"),
        Column::figures("Devices"),
        Column::figures(unit(wanted)),
        Column::figures(wanted.latency.clone()),
        Column::figures("n"),
        Column::text("Pareto"),
    ];
    let lines = ranked(found, wanted).into_iter().map(|index| {
        let option = &found.options[index];
        let (mark, tone) = if index == found.choice {
            (">", Tone::Good)
        } else if found.equals.contains(&index) {
            ("=", Tone::Plain)
        } else {
            ("", Tone::Plain)
        };
        let cells = vec![
            mark.to_owned(),
            configuration(&option.row.axes),
            option.row.about.devices.map_or("-".into(), |n| n.to_string()),
            format!("{:.2}", option.value),
            latency(option.latency),
            option.n.to_string(),
            if option.on_front { "front".into() } else { String::new() },
        ];
        (tone, cells)
    });
    columns::put(page, &shape, lines.collect());
    for option in &found.options {
        for warning in option.row.warnings() {
            page.paragraph(2, "! ", Tone::Warning, &format!("{}: {}", cut(&option.row.name, 80), warning.text));
        }
    }
    for left in &found.left_out {
        page.paragraph(2, "! ", Tone::Warning, &format!("left out: {}: {}", cut(&left.row.name, 80), left.why));
    }
}

/// Why it is the choice, how sure that is, and what it costs against the runner-up: a paragraph each.
pub(super) fn sentences(found: &Recommendation<'_>, wanted: &Wanted) -> Vec<String> {
    let choice = &found.options[found.choice];
    let reason = match found.equals.len() {
        0 if found.options.len() == 1 => "It is the only one that keeps the limits.".to_owned(),
        0 if found.basis == Basis::Single => {
            #[expect(clippy::float_cmp, reason = "a tie is the very same figure")]
            let same = found.options.iter().filter(|option| option.value == choice.value).count() - 1;
            match same {
                0 => "It has the best figure.".to_owned(),
                n => format!("It has the best figure, the very same as {}.", counted(n, "other")),
            }
        }
        0 => "It is the best.".to_owned(),
        n => format!(
            "It cannot be told from {} (95 %, noise {:.1} %), and takes the fewest devices and flags of them.",
            counted(n, "other"),
            100.0 * found.noise.unwrap_or(0.0)
        ),
    };
    let mut said = vec![format!("{reason} This rests on {}", rests_on(found))];
    if let Some(repeats) = found.repeats_needed.filter(|_| !found.equals.is_empty()) {
        said.push(format!("{} of each would tell the first two apart.", counted(repeats, "repeat")));
    }
    if let Some(runner_up) = runner_up(found) {
        let theirs = &found.options[runner_up];
        let more = match (choice.latency, theirs.latency) {
            (Some(ours), Some(theirs)) if theirs > 0.0 => {
                format!(", {:+.1} % {}", (ours / theirs - 1.0) * 100.0, wanted.latency)
            }
            _ => String::new(),
        };
        let devices = match (choice.row.about.devices, theirs.row.about.devices) {
            (Some(ours), Some(theirs)) if ours != theirs => format!(", on {ours} instead of {theirs} devices"),
            _ => String::new(),
        };
        said.push(format!(
            "Against the runner-up, {}: {:+.1} % {}{more}{devices}.",
            configuration(&theirs.row.axes),
            (choice.value / theirs.value - 1.0) * 100.0,
            unit(wanted)
        ));
    }
    said
}

/// What the choice gives and takes against another option, as parts of that one's figures.
fn cost(found: &Recommendation<'_>, theirs: &Choice<'_>) -> Value {
    let choice = &found.options[found.choice];
    let part = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs.filter(|theirs| *theirs > 0.0)? - 1.0);
    json!({
        "name": theirs.row.name,
        "value": part(Some(choice.value), Some(theirs.value)),
        "latency": part(choice.latency, theirs.latency),
        "devices": choice.row.about.devices.zip(theirs.row.about.devices).map(|(a, b)| i64::from(a) - i64::from(b)),
    })
}

/// Options, the best value first.
pub(super) fn ranked(found: &Recommendation<'_>, wanted: &Wanted) -> Vec<usize> {
    let mut order: Vec<usize> = (0..found.options.len()).collect();
    let value = |index: usize| found.options[index].value;
    order.sort_by(|a, b| match wanted.better {
        crate::analyse::Better::Higher => value(*b).total_cmp(&value(*a)),
        crate::analyse::Better::Lower => value(*a).total_cmp(&value(*b)),
    });
    order
}

/// The next one by value that is no equal.
fn runner_up(found: &Recommendation<'_>) -> Option<usize> {
    let others = (0..found.options.len()).filter(|index| *index != found.choice && !found.equals.contains(index));
    let apart = |index: &usize| (found.options[*index].value - found.options[found.choice].value).abs();
    others.min_by(|a, b| apart(a).total_cmp(&apart(b)))
}

/// As JSON.
pub fn json(answers: &[Ranked<'_>], wanted: &Wanted, simulated: bool) -> Value {
    let option = |option: &Choice<'_>| {
        json!({
            "name": option.row.name, "value": option.value, "latency_ms": option.latency, "n": option.n,
            "interval": option.estimate.and_then(|estimate| estimate.interval),
            "devices": option.row.about.devices, "on_pareto_front": option.on_front,
            "serve_command": option.row.about.serve_command,
            "warnings": option.row.warnings().map(|warning| warning.text.as_str()).collect::<Vec<_>>(),
        })
    };
    let group = |answer: &Ranked<'_>| -> serde_json::Map<String, Value> {
        answer.group.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
    };
    let left_out = |all: &[LeftOut<'_>]| -> Vec<(String, String)> {
        all.iter().map(|left| (left.row.name.clone(), left.why.clone())).collect()
    };
    let all: Vec<Value> = answers
        .iter()
        .map(|answer| match &answer.choice {
            Err(left) => json!({
                "model": answer.value(BY_MODEL), "group": group(answer), "workload": answer.workload, "choice": null,
                "left_out": left_out(left),
            }),
            Ok(found) => json!({
                "model": answer.value(BY_MODEL),
                "group": group(answer),
                "workload": answer.workload,
                "choice": option(&found.options[found.choice]),
                "equals": found.equals.iter().map(|index| option(&found.options[*index])).collect::<Vec<Value>>(),
                "basis": found.basis,
                "noise": found.noise,
                "repeats_needed": found.repeats_needed,
                "options": ranked(found, wanted).into_iter().map(|index| option(&found.options[index])).collect::<Vec<Value>>(),
                "left_out": left_out(&found.left_out),
                "runner_up": runner_up(found).map(|index| cost(found, &found.options[index])),
            }),
        })
        .collect();
    let limit = |limit: &Limit| json!({"figure": limit.key, if limit.above { "above" } else { "below" }: limit.value});
    let from = (!wanted.limits.is_empty() || wanted.limits_from == LimitsFrom::Different).then_some(wanted.limits_from);
    json!({
        "rank_by": wanted.rank_by, "per_device": wanted.per_device, "simulated": simulated,
        "limits": wanted.limits.iter().map(limit).collect::<Vec<Value>>(), "limits_from": from, "answers": all,
    })
}

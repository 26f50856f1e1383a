//! What plots call settings, metrics and intervals.

use indexmap::IndexSet;

use super::scale::short;
use crate::analyse::Estimate;
use crate::model::Metric;
use crate::report::display::{clean, counted};

pub(super) fn are(count: usize, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}

pub(super) fn were(count: usize) -> String {
    format!("{} {}", counted(count, "measurement"), if count == 1 { "was" } else { "were" })
}

/// A setting in a word or two.
pub fn word(key: &str, value: Option<&str>, models: &IndexSet<&str>) -> String {
    let value = value.map(clean);
    match (key, value.as_deref()) {
        ("model", Some(model)) => short_model(model, models),
        ("tensor-parallel-size", Some(size)) => format!("tp {size}"),
        ("pipeline-parallel-size", Some(size)) => format!("pp {size}"),
        ("data-parallel-size", Some(size)) => format!("dp {size}"),
        ("devices", Some("1")) => "1 device".into(),
        ("devices", Some(count)) => format!("{count} devices"),
        ("max-concurrency", Some(level)) => format!("concurrency {level}"),
        ("random-input-len", Some(length)) => format!("input {length}"),
        ("random-output-len", Some(length)) => format!("output {length}"),
        ("quantization", Some("none")) => "not quantized".into(),
        ("quantization" | "run" | "experiment", Some(value)) => value.to_owned(),
        ("enforce-eager", Some("true")) => "eager".into(),
        ("enforce-eager", Some("false")) => "graphs".into(),
        (key, Some("true" | "yes")) => key.to_owned(),
        (key, Some(value)) => format!("{key} {value}"),
        (key, None) => format!("{key} not set"),
    }
}

/// The last part of a model's name, where no other model shares it.
fn short_model(model: &str, models: &IndexSet<&str>) -> String {
    let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let mine = last(model);
    let shared = models.iter().filter(|other| last(&clean(other)) == mine).count() > 1;
    if shared || mine.is_empty() { model.to_owned() } else { mine }
}

/// What intervals mean, for the caption: `n` of each estimate.
pub fn intervals(estimates: &[Estimate]) -> String {
    let (least, most) = estimates.iter().fold((usize::MAX, 0), |(l, m), e| (l.min(e.n), m.max(e.n)));
    let n = if least >= most { most.to_string() } else { format!("{least} to {most}") };
    match most {
        0 | 1 => "One server start of each (n = 1): there is no interval.".into(),
        _ => format!(
            "Means over n = {n} server starts; bars are 95 % intervals of each mean by itself{}.",
            if least < 2 { "; where n = 1 there is none" } else { "" }
        ),
    }
}

/// The key's label with its unit; a key that has none is shown as it is.
pub fn axis_label(key: &str) -> String {
    match Metric::of(key) {
        Some(metric) => format!("{} ({})", metric.label, metric.unit.symbol()),
        None => match key {
            "max-concurrency" => "Concurrency (requests in flight)".into(),
            "random-input-len" => "Prompt length (tokens)".into(),
            "random-output-len" => "Answer length (tokens)".into(),
            "request-rate" => "Request rate (req/s)".into(),
            "devices" => "Devices".into(),
            key => key.to_owned(),
        },
    }
}

/// In the middle of a sentence: `TTFT` stays as it is.
pub fn in_sentence(label: &str) -> String {
    let mut chars = label.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => label.to_owned(),
    }
}

/// A setting in a title.
pub fn key_words(key: &str) -> String {
    match key {
        "max-concurrency" => "concurrency".into(),
        "devices" => "number of devices".into(),
        "random-input-len" => "prompt length".into(),
        "random-output-len" => "answer length".into(),
        key => key.to_owned(),
    }
}

/// A value with its unit.
pub fn with_unit(value: f64, metric: &Metric) -> String {
    format!("{} {}", short(value), metric.unit.symbol())
}

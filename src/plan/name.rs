//! Names of experiments: for humans and file names, never parsed back.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::{Axes, Identity, Repeat};

/// The longest name: with the suffixes of result and log files it stays below the 255 bytes a file name may have.
const LONGEST: usize = 180;
/// So much of the model's name is always there.
const SHORTEST_MODEL: usize = 24;

/// `{model}_tp{N}_quant-{q}_eager-{bool}` with `/` written as `_`, then what else varies: `_mns-512_cc-32`, then which
/// measurement it is, unless it is the first: `_start2_run3`.
pub fn experiment_name(axes: &Axes, repeat: Repeat) -> String {
    let mut tail = varying(&axes.workload);
    if repeat.start > 1 {
        tail += &format!("_start{}", repeat.start);
    }
    if repeat.run > 1 {
        tail += &format!("_run{}", repeat.run);
    }
    named(axes, &tail)
}

/// The name of a server configuration: that of its experiments without their workload.
pub(super) fn server_name(axes: &Axes) -> String {
    named(axes, "")
}

fn named(axes: &Axes, tail: &str) -> String {
    let tail = format!(
        "_tp{}_quant-{}_eager-{}{}{tail}",
        axes.tensor_parallel_size,
        sanitize(axes.quantization_label()),
        axes.enforce_eager,
        varying(&axes.server)
    );
    let mut model = sanitize(&axes.model);
    model.truncate(LONGEST.saturating_sub(tail.len()).max(SHORTEST_MODEL));
    let mut name = format!("{model}{tail}");
    name.truncate(LONGEST);
    name
}

fn varying(keys: &IndexMap<String, String>) -> String {
    keys.iter().map(|(key, value)| format!("_{}-{}", sanitize(abbreviation(key)), short(value))).collect()
}

/// What is customary for a flag in names and tables; the flag itself where nothing is.
pub fn abbreviation(key: &str) -> &str {
    match key {
        "pipeline-parallel-size" => "pp",
        "data-parallel-size" => "dp",
        "max-num-seqs" => "mns",
        "max-num-batched-tokens" => "mnbt",
        "gpu-memory-utilization" => "gmu",
        "block-size" => "bs",
        "kv-cache-dtype" => "kvc",
        "speculative-config" => "spec",
        "max-concurrency" => "cc",
        "random-input-len" => "in",
        "random-output-len" => "out",
        "num-prompts" => "n",
        "request-rate" => "rate",
        other => other.strip_prefix("env.").unwrap_or(other),
    }
}

/// A value in a name: speculative decoding by its method and length, other JSON and long texts cut. Names that become
/// alike by it are told apart by their identity.
fn short(value: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(value).ok().filter(serde_json::Value::is_object);
    let speculation = json.as_ref().and_then(|json| {
        let method = json.get("method").or_else(|| json.get("model"))?.as_str()?;
        let method = method.rsplit('/').next().unwrap_or(method);
        let tokens = json.get("num_speculative_tokens").and_then(serde_json::Value::as_u64);
        Some(tokens.map_or_else(|| method.to_owned(), |tokens| format!("{method}-{tokens}")))
    });
    let mut text = sanitize(&speculation.unwrap_or_else(|| value.to_owned()));
    text.truncate(24);
    text
}

/// Replaces every character that is not a letter, digit, `.`, `-` or `_` by `_`, and a leading dot or dash too (a
/// hidden file, or a file that reads as a flag). The result is ASCII.
pub fn sanitize(text: &str) -> String {
    text.chars()
        .enumerate()
        .map(|(i, c)| match c {
            '.' | '-' if i == 0 => '_',
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
            _ => '_',
        })
        .collect()
}

/// Makes names unique: where several settings share one, each gets the first digits of its identity. `taken` are names
/// that are given away already. A name and its identity come in for every experiment; repeats differ in name already.
pub(super) fn make_unique(names: &mut [(String, Identity)], taken: &HashSet<String>) {
    let mut seen: HashMap<String, Vec<Identity>> = HashMap::new();
    for (name, identity) in names.iter() {
        let identities = seen.entry(name.to_lowercase()).or_default();
        if !identities.contains(identity) {
            identities.push(identity.clone());
        }
    }
    for (name, identity) in names.iter_mut() {
        if seen[&name.to_lowercase()].len() > 1 || taken.contains(name) {
            *name = format!("{name}_{}", identity.short());
        }
        if taken.contains(name) {
            *name = format!("{name}-{}", identity.long());
        }
    }
}

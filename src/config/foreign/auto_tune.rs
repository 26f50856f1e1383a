//! The batch files of vLLM's `auto_tune` (`batch_auto_tune.sh`): a list of jobs, each a grid of `num_seqs_list` by
//! `num_batched_tokens_list` on one server configuration.

use super::{Draft, Translated, entries, missing, number, positive, unknown, wrong};
use crate::config::tree::{Diagnostic, Kind, Node};

const FORMAT: &str = "a batch file of vLLM's auto_tune";
const KEYS: [&str; 12] = [
    "base",
    "model",
    "system",
    "tp",
    "download-dir",
    "input-len",
    "output-len",
    "max-model-len",
    "min-cache-hit-pct",
    "max-latency-allowed-ms",
    "num-seqs-list",
    "num-batched-tokens-list",
];
/// How many requests its script sends.
const PROMPTS: u64 = 1000;

/// Whether this is a list of such jobs.
pub(super) fn is_one(tree: &Node) -> bool {
    let is_job = |job: &Node| {
        job.entries().is_some_and(|map| {
            map.keys().any(|key| ["num-seqs-list", "num-batched-tokens-list"].contains(&lower(key).as_str()))
        })
    };
    tree.items().is_some_and(|jobs| !jobs.is_empty() && jobs.iter().all(is_job))
}

/// Its script takes keys in any case.
fn lower(key: &str) -> String {
    super::dashes(&key.to_ascii_lowercase())
}

pub(super) fn translate(tree: &Node) -> Result<Translated, Diagnostic> {
    let mut draft = Draft::new(&tree.origin);
    for (i, job) in tree.items().unwrap_or_default().iter().enumerate() {
        add(&mut draft, job, &format!("[{}]", i + 1))?;
    }
    draft.note(tree, "the request rate is `inf` throughout: auto_tune's search for the highest rate within the latency is not done; `recommend --slo` asks for a latency afterwards");
    draft.note(tree, "auto_tune starts with `--load-format dummy`; here the weights are loaded");
    Ok(draft.finish(FORMAT))
}

fn add(draft: &mut Draft, job: &Node, path: &str) -> Result<(), Diagnostic> {
    let map: indexmap::IndexMap<String, _> =
        entries(job, path)?.into_iter().map(|(key, entry)| (key.to_ascii_lowercase(), entry)).collect();
    if let Some((key, entry)) = map.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        return Err(unknown(entry, path, key, &KEYS));
    }
    let needed = ["model", "input-len", "output-len"];
    let absent: Vec<&str> = needed.into_iter().filter(|key| !map.contains_key(*key)).collect();
    let (Some(model), Some(input), Some(output)) = (map.get("model"), map.get("input-len"), map.get("output-len"))
    else {
        return Err(missing(job, path, &absent));
    };
    let mut group = Node::map(&job.origin);
    group.put(&["serve", "model"], model.value.clone());
    for (theirs, ours) in [("tp", "tensor-parallel-size"), ("max-model-len", "max-model-len")] {
        if let Some(entry) = map.get(theirs) {
            positive(&entry.value, &format!("{path}.{theirs}"))?;
            group.put(&["serve", ours], entry.value.clone());
        }
    }
    if let Some(entry) =
        map.get("download-dir").filter(|entry| entry.value.scalar().is_some_and(|text| !text.is_empty()))
    {
        group.put(&["serve", "download-dir"], entry.value.clone());
    }
    for (theirs, ours) in [("num-seqs-list", "max-num-seqs"), ("num-batched-tokens-list", "max-num-batched-tokens")] {
        if let Some(entry) = map.get(theirs) {
            let at = format!("{path}.{theirs}");
            let text = entry.value.scalar().unwrap_or_default().to_owned();
            let values = text
                .split_whitespace()
                .map(|word| Node::new(Kind::Number(word.to_owned()), &entry.value.origin))
                .collect::<Vec<_>>();
            if values.is_empty() {
                return Err(wrong(&entry.value, &at, "whole numbers with spaces between, such as \"128 256\""));
            }
            for value in &values {
                positive(value, &at)?;
            }
            group.put(&["serve", ours], Node::list(values, &entry.value.origin));
        }
    }
    let tokens = positive(&input.value, &format!("{path}.input_len"))?;
    positive(&output.value, &format!("{path}.output_len"))?;
    let hit =
        map.get("min-cache-hit-pct").and_then(|entry| entry.value.scalar()).and_then(|text| text.parse::<u64>().ok());
    let prefix = tokens * hit.unwrap_or(0).min(100) / 100;
    for (key, value) in [
        ("dataset-name", Node::text("random", &job.origin)),
        ("random-input-len", number((tokens - prefix).max(1), &input.value)),
        ("random-output-len", output.value.clone()),
        ("ignore-eos", Node::new(Kind::Bool(true), &job.origin)),
        ("num-prompts", number(PROMPTS, job)),
        ("request-rate", Node::text("inf", &job.origin)),
    ] {
        group.put(&["bench", key], value);
    }
    if prefix > 0 {
        group.put(&["bench", "random-prefix-len"], number(prefix, &input.value));
    }
    if let Some(entry) = map.get("max-latency-allowed-ms") {
        let limit = positive(&entry.value, &format!("{path}.max_latency_allowed_ms"))?;
        group.put(&["bench", "goodput"], Node::text(format!("e2el:{limit}"), &entry.value.origin));
    }
    for key in ["base", "system"] {
        if let Some(entry) = map.get(key) {
            draft.note(&entry.value, &format!("`{key}` is not used: this machine and its vLLM are taken"));
        }
    }
    draft.groups.push(group);
    Ok(())
}

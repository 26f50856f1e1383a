//! Files of other tools that are no sweeps of ours and are not translated: they are named, with the next step.

use super::dashes;
use crate::config::tree::{Diagnostic, Kind, Node};

/// What a file of a known format is, and what to do with it; `None` where it is none of these.
pub(super) fn named(tree: &Node) -> Option<Diagnostic> {
    let has = |key: &str| has(tree, key);
    let refuse = |what: &str, hint: &str| {
        Some(
            Diagnostic::new(&tree.origin, "", format!("this is {what}: vllm-bench does not read it"))
                .hint(hint.to_owned()),
        )
    };
    if let Some(limit) = sla(tree) {
        return Some(
            Diagnostic::new(&tree.origin, "", "these are limits for `--sla-params` of `vllm bench sweep serve_sla`: they say nothing that could be measured")
                .hint(format!("run a sweep, then ask for each limit: `vllm-bench recommend --slo '{limit}'`; or write it in the sweep file as `slo: '{limit}'`")),
        );
    }
    if has("treatments") || (has("experiment") && (has("design") || has("setup") || has("run"))) {
        return refuse(
            "an experiment of llm-d-benchmark",
            "write its factors as lists: those of the workload under `bench` (`question_len` as `prefix-repetition-suffix-len` or `random-input-len`, `output_len` as `random-output-len`), those of the server under `serve`; vllm-bench multiplies them",
        );
    }
    let inner = |key: &str| tree.entries().is_some_and(|map| map.values().any(|entry| self::has(&entry.value, key)));
    if inner("seq-len-configs") || inner("search-space") || (inner("model-prefix") && inner("runner")) {
        return refuse(
            "a configuration of InferenceX (InferenceMAX)",
            "write `isl` and `osl` as `bench: {random-input-len: …, random-output-len: …}`, `tp` as `serve: {tensor-parallel-size: […]}`, and `conc-start` to `conc-end` as `bench: {max-concurrency: […]}`",
        );
    }
    if (has("rate-type") && (has("data") || has("target"))) || (has("target") && (has("profile") || has("rate"))) {
        return refuse(
            "a scenario of GuideLLM",
            "write `rate` as `bench: {request-rate: […]}` (`rate_type: concurrent`: `max-concurrency`), and `prompt_tokens` and `output_tokens` of `data` as `bench: {dataset-name: random, random-input-len: …, random-output-len: …}`",
        );
    }
    if let Some(key) = list_of_runs(tree) {
        return refuse(
            &format!("a list of runs of another tool (`{key}`)"),
            "write each of them as an entry of `experiments`: the flags of the server under `serve`, those of the load under `bench`: `experiments: [{serve: {model: M, max-model-len: 2000}}]`",
        );
    }
    None
}

/// The key of a list of maps that are flags of a server each, where nothing else is in the file.
fn list_of_runs(tree: &Node) -> Option<&str> {
    const OWN: [&str; 7] = ["experiments", "serve", "bench", "env", "exclude", "include", "rules"];
    const FLAGS: [&str; 5] = ["model", "args", "tensor-parallel-size", "tensor-parallel-sizes", "max-model-len"];
    let [(key, entry)] = tree.entries()?.iter().collect::<Vec<_>>()[..] else { return None };
    let runs = entry.value.items().filter(|runs| !runs.is_empty())?;
    let is_run = |run: &Node| FLAGS.iter().any(|flag| has(run, flag));
    (!OWN.contains(&dashes(key).as_str()) && runs.iter().all(is_run)).then_some(key.as_str())
}

fn has(node: &Node, key: &str) -> bool {
    node.entries().is_some_and(|map| map.keys().any(|known| dashes(known) == key))
}

/// The first limit of a file of limits, as `--slo` writes it: maps whose values are all comparisons.
fn sla(tree: &Node) -> Option<String> {
    let sets: Vec<&Node> = match tree.items() {
        Some(items) => items.iter().collect(),
        None => tree.entries()?.values().map(|entry| &entry.value).collect(),
    };
    let is_limit = |node: &Node| matches!(&node.kind, Kind::Text(text) if text.trim_start().starts_with(['<', '>']));
    let all = sets.iter().all(|set| {
        set.entries().is_some_and(|map| !map.is_empty() && map.values().all(|entry| is_limit(&entry.value)))
    });
    let (key, entry) = sets.first().filter(|_| all)?.entries()?.first()?;
    let (statistic, rest) = key.split_once('_').unwrap_or(("", key));
    let name = match rest.strip_suffix("_ms") {
        Some(metric) if ["p50", "p90", "p95", "p99", "mean", "median"].contains(&statistic) => {
            format!("{metric}.{statistic}")
        }
        _ => key.clone(),
    };
    Some(format!("{name}{}", entry.value.scalar()?.replace(' ', "")))
}

//! The scenario files of the asynchronous load generator: `defaults`, `scenarios`.

use super::{Draft, Translated, dashes, entries, missing, positive, several, unknown, wrong};
use crate::config::tree::{Diagnostic, Kind, Node};

const FORMAT: &str = "a scenario file of the asynchronous load generator";
const DEFAULTS: [&str; 4] = ["base-url", "model", "temperature", "stream"];
const KEYS: [&str; 12] = [
    "description",
    "prefill-tokens",
    "max-new-tokens",
    "concurrencies",
    "num-requests",
    "requests-per-user",
    "rag",
    "prompt-file",
    "target-prefill-tokens",
    "history-turns",
    "dolly-questions",
    "temperature",
];

pub(super) fn translate(tree: &Node) -> Result<Translated, Diagnostic> {
    let mut draft = Draft::new(&tree.origin);
    let map = entries(tree, "")?;
    if let Some((key, entry)) = map.iter().find(|(key, _)| !["defaults", "scenarios"].contains(&key.as_str())) {
        return Err(unknown(entry, "", key, &["defaults", "scenarios"]));
    }
    if let Some(defaults) = map.get("defaults").filter(|entry| entry.value.kind != Kind::Null) {
        for (key, entry) in entries(&defaults.value, "defaults")? {
            match key.as_str() {
                "model" => draft.tree.put(&["serve", "model"], entry.value.clone()),
                "temperature" => draft.tree.put(&["bench", "temperature"], entry.value.clone()),
                "base-url" => draft.note(&entry.value, "`base_url` is not used: vllm-bench starts the server itself"),
                "stream" if entry.value.kind == Kind::Bool(true) => {}
                "stream" => draft.note(&entry.value, "`stream` is not taken over: `vllm bench serve` always streams"),
                _ => return Err(unknown(entry, "defaults", &key, &DEFAULTS)),
            }
        }
    }
    draft.tree.put(&["bench", "dataset-name"], Node::text("random", &tree.origin));
    let scenarios = map.get("scenarios").ok_or_else(|| missing(tree, "", &["scenarios"]))?;
    let all = scenarios.value.entries().filter(|all| !all.is_empty());
    let all = all.ok_or_else(|| wrong(&scenarios.value, "scenarios", "a map of scenarios"))?;
    for (name, entry) in all {
        add(&mut draft, name, &entry.value)?;
    }
    Ok(draft.finish(FORMAT))
}

fn add(draft: &mut Draft, name: &str, scenario: &Node) -> Result<(), Diagnostic> {
    let path = format!("scenarios.{name}");
    let map = entries(scenario, &path)?;
    if let Some((key, entry)) = map.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        return Err(unknown(entry, &path, key, &KEYS));
    }
    let required = ["prefill-tokens", "max-new-tokens", "concurrencies", "num-requests"];
    let absent: Vec<&str> = required.into_iter().filter(|key| !map.contains_key(*key)).collect();
    if !absent.is_empty() {
        return Err(missing(scenario, &path, &absent));
    }
    let mut bench = Node::map(&scenario.origin);
    let prefill = map.get("target-prefill-tokens").or_else(|| map.get("prefill-tokens"));
    for (entry, ours) in [(prefill, "random-input-len"), (map.get("max-new-tokens"), "random-output-len")] {
        if let Some(entry) = entry {
            positive(&entry.value, &format!("{path}.{ours}"))?;
            bench.put(&[ours], entry.value.clone());
        }
    }
    if let Some(levels) = map.get("concurrencies") {
        let all = several(&levels.value);
        if all.is_empty() {
            return Err(wrong(&levels.value, &format!("{path}.concurrencies"), "a list of whole numbers"));
        }
        for level in all {
            positive(level, &format!("{path}.concurrencies"))?;
        }
        bench.put(&["max-concurrency"], levels.value.clone());
    }
    match (map.get("requests-per-user"), map.get("num-requests")) {
        (Some(per_user), _) => bench.put(&["num-prompts-per-concurrency"], per_user.value.clone()),
        (None, Some(total)) => bench.put(&["num-prompts"], total.value.clone()),
        (None, None) => {}
    }
    if let Some(temperature) = map.get("temperature") {
        bench.put(&["temperature"], temperature.value.clone());
    }
    let mut group = Node::map(&scenario.origin);
    group.put(&["name"], Node::text(name, &scenario.origin));
    group.put(&["bench"], bench);
    draft.groups.push(group);
    for key in ["prompt-file", "history-turns", "dolly-questions"] {
        if let Some(entry) = map.get(key) {
            let theirs = dashes(key).replace('-', "_");
            draft.note(&entry.value, &format!("`{theirs}` of `{name}` is not taken over: `vllm bench serve` cannot send these prompts; random ones of the same length are used"));
        }
    }
    Ok(())
}

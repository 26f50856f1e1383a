//! The configuration files of the completions benchmark: `server`, `benchmark`, `test_scenarios`.
//!
//! Its program asks for N completions with at most C requests in flight: each request asks for n = max(1, N div C)
//! samples, so that ceil(N / n) requests are sent.

use super::{Draft, Translated, entries, missing, number, positive, several, unknown, wrong};
use crate::config::tree::{Diagnostic, Kind, Node};

const FORMAT: &str = "a configuration of the completions benchmark";
/// What its program falls back on.
const DEFAULT_IN_FLIGHT: u64 = 20;
/// What its program fixes.
const MAX_TOKENS: u64 = 4050;

pub(super) fn translate(tree: &Node) -> Result<Translated, Diagnostic> {
    let mut draft = Draft::new(&tree.origin);
    let map = entries(tree, "")?;
    let top = ["server", "benchmark", "test-scenarios"];
    if let Some((key, entry)) = map.iter().find(|(key, _)| !top.contains(&key.as_str())) {
        return Err(unknown(entry, "", key, &top));
    }
    if let Some(server) = map.get("server") {
        for (key, entry) in entries(&server.value, "server")? {
            match key.as_str() {
                "model" => draft.tree.put(&["serve", "model"], entry.value.clone()),
                "url" => draft.note(&entry.value, "`url` is not used: vllm-bench starts the server itself"),
                "auth-token" => {
                    draft.note(
                        &entry.value,
                        "`auth_token` is not taken over: set VLLM_API_KEY in the environment where one is wanted",
                    );
                }
                "timeout" => draft.tree.put(&["timeouts", "benchmark"], entry.value.clone()),
                _ => return Err(unknown(entry, "server", &key, &["url", "model", "auth-token", "timeout"])),
            }
        }
    }
    let mut most = DEFAULT_IN_FLIGHT;
    if let Some(benchmark) = map.get("benchmark") {
        let keys = ["max-concurrent-requests", "default-prompt", "default-completions"];
        for (key, entry) in entries(&benchmark.value, "benchmark")? {
            match key.as_str() {
                "max-concurrent-requests" => most = positive(&entry.value, "benchmark.max_concurrent_requests")?,
                "default-prompt" | "default-completions" => {}
                _ => return Err(unknown(entry, "benchmark", &key, &keys)),
            }
        }
    }
    for (key, value) in [
        ("dataset-name", Kind::Text("random".into())),
        ("random-output-len", Kind::Number(MAX_TOKENS.to_string())),
        ("temperature", Kind::Number("0.7".into())),
    ] {
        draft.tree.put(&["bench", key], Node::new(value, &tree.origin));
    }
    let scenarios = map.get("test-scenarios").ok_or_else(|| missing(tree, "", &["test_scenarios"]))?;
    let list = scenarios.value.items().filter(|items| !items.is_empty());
    let list = list.ok_or_else(|| wrong(&scenarios.value, "test_scenarios", "a list of scenarios"))?;
    for (i, scenario) in list.iter().enumerate() {
        add(&mut draft, scenario, &format!("test_scenarios[{i}]"), most)?;
    }
    Ok(draft.finish(FORMAT))
}

fn add(draft: &mut Draft, scenario: &Node, path: &str, most: u64) -> Result<(), Diagnostic> {
    let map = entries(scenario, path)?;
    let keys = ["name", "completions", "prompt"];
    if let Some((key, entry)) = map.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
        return Err(unknown(entry, path, key, &keys));
    }
    let absent: Vec<&str> = ["name", "completions"].into_iter().filter(|key| !map.contains_key(*key)).collect();
    let (Some(name), Some(completions)) = (map.get("name"), map.get("completions")) else {
        return Err(missing(scenario, path, &absent));
    };
    for node in several(&completions.value) {
        let asked = positive(node, &format!("{path}.completions"))?;
        let in_flight = asked.min(most);
        let samples = (asked / in_flight).max(1);
        let group = draft.group(&name.value);
        group.put(&["bench", "max-concurrency"], number(in_flight, node));
        group.put(&["bench", "num-prompts"], number(asked.div_ceil(samples), node));
        group.put(&["bench", "extra-body"], Node::text(format!("{{\"n\":{samples}}}"), &node.origin));
    }
    if let Some(prompt) = map.get("prompt") {
        draft.note(&prompt.value, "`prompt` is not taken over: `vllm bench serve` cannot send one text; random prompts of its default length are used");
    }
    Ok(())
}

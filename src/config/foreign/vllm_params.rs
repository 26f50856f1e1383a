//! vLLM's own parameter files, `--serve-params` and `--bench-params` of `vllm bench sweep serve`: a list of maps of flags, or
//! a map of such maps by name. Each map is one combination.

use std::collections::BTreeSet;

use super::{Draft, Translated, dashes};
use crate::config::tree::{Diagnostic, Kind, Node};
use crate::config::vllm_flags;

pub(super) const SERVE_FORMAT: &str = "`--serve-params` of `vllm bench sweep serve`";
pub(super) const BENCH_FORMAT: &str = "`--bench-params` of `vllm bench sweep serve`";

/// Flags by which the parameters of a load are known.
const BENCH: [&str; 16] = [
    "max-concurrency",
    "request-rate",
    "burstiness",
    "num-prompts",
    "random-input-len",
    "random-output-len",
    "random-prefix-len",
    "random-range-ratio",
    "dataset-name",
    "dataset-path",
    "ignore-eos",
    "num-warmups",
    "goodput",
    "percentile-metrics",
    "sharegpt-output-len",
    "ramp-up-strategy",
];

/// `None` where it is no such file.
pub(super) fn translate(tree: &Node) -> Option<Result<Translated, Diagnostic>> {
    let sets = sets(tree)?;
    let keys = || sets.iter().filter_map(|(_, set)| set.entries()).flat_map(|map| map.keys().map(|key| dashes(key)));
    let own: Vec<String> = keys().filter(|key| key != "_benchmark-name").collect();
    if !own.is_empty() && !own.iter().any(|key| vllm_flags::is_known(key)) {
        // A map with one of our keys misspelt is told by the reader of our own files.
        return tree.items().map(|_| Err(no_flags(tree, &own)));
    }
    let is_bench = keys().any(|key| BENCH.contains(&key.as_str()));
    let (section, format) = if is_bench { ("bench", BENCH_FORMAT) } else { ("serve", SERVE_FORMAT) };
    let mut draft = Draft::new(&tree.origin);
    for (name, set) in sets {
        let mut group = Node::map(&set.origin);
        if let Some(name) = name {
            group.put(&["name"], Node::text(name, &set.origin));
        }
        group.put(&[section], Node::map(&set.origin));
        for (key, entry) in set.entries()? {
            if key == "_benchmark_name" {
                group.put(&["name"], entry.value.clone());
            } else {
                // A list is one value there: several words after the flag.
                let value = match &entry.value.kind {
                    Kind::List(_) => Node::list(vec![entry.value.clone()], &entry.value.origin),
                    Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => entry.value.clone(),
                };
                group.put(&[section, key], value);
            }
        }
        draft.groups.push(group);
    }
    Some(Ok(draft.finish(format)))
}

fn no_flags(tree: &Node, keys: &[String]) -> Diagnostic {
    let distinct: BTreeSet<&String> = keys.iter().collect();
    let mut shown: Vec<String> = distinct.iter().take(4).map(|key| format!("`{key}`")).collect();
    if distinct.len() > shown.len() {
        shown.push("…".to_owned());
    }
    Diagnostic::new(
        &tree.origin,
        "",
        format!(
            "a list of maps, and none of their keys is a flag of `vllm serve` or `vllm bench serve`: {}",
            shown.join(", ")
        ),
    )
    .hint("docs/foreign-formats.md has the formats that are read")
}

/// The combinations with their names: a list of maps, or a map whose values are all maps and whose names are none of ours.
fn sets(tree: &Node) -> Option<Vec<(Option<String>, &Node)>> {
    if let Some(items) = tree.items() {
        let maps = !items.is_empty() && items.iter().all(|item| item.entries().is_some());
        return maps.then(|| items.iter().map(|item| (None, item)).collect());
    }
    let map = tree.entries().filter(|map| !map.is_empty())?;
    let ours = crate::config::language::spelling::is_top_level;
    let named =
        map.iter().all(|(key, entry)| !ours(key) && entry.value.entries().is_some_and(|inner| !inner.is_empty()));
    named.then(|| map.iter().map(|(key, entry)| (Some(key.clone()), &entry.value)).collect())
}

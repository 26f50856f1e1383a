//! The serving tests of vLLM's CI (`serving-tests*.json`): a list of tests, or `tests` over `defaults`. Each test is one
//! server, measured at every rate of `qps_list` and every number of `max_concurrency_list`.

use indexmap::IndexMap;

use super::{Draft, Translated, entries, missing, several, unknown, wrong};
use crate::config::tree::{Diagnostic, Entry, Kind, Node};

const FORMAT: &str = "serving tests of vLLM's CI";
const SECTIONS: [(&str, &str); 3] =
    [("server-parameters", "serve"), ("client-parameters", "bench"), ("server-environment-variables", "env")];
const LISTS: [(&str, &str); 2] = [("qps-list", "request-rate"), ("max-concurrency-list", "max-concurrency")];
/// What the client is told by vllm-bench itself.
const OURS: [&str; 7] = ["model", "host", "port", "base-url", "save-result", "result-dir", "result-filename"];

/// Whether this is a list of tests, or tests over defaults.
pub(super) fn is_one(tree: &Node) -> bool {
    let of_tests = |node: &Node| {
        let has = |key: &str| node.entries().is_some_and(|map| map.keys().any(|known| super::dashes(known) == key));
        has("test-name") && (has("server-parameters") || has("client-parameters") || has("parameters"))
    };
    match tree.items() {
        Some(items) => items.iter().any(of_tests),
        None => tree.get("tests").and_then(Node::items).is_some_and(|tests| tests.iter().any(of_tests)),
    }
}

pub(super) fn translate(tree: &Node) -> Result<Translated, Diagnostic> {
    let mut draft = Draft::new(&tree.origin);
    let mut defaults = IndexMap::new();
    let tests = match tree.items() {
        Some(tests) => tests,
        None => {
            let map = entries(tree, "")?;
            if let Some((key, entry)) = map.iter().find(|(key, _)| !["defaults", "tests"].contains(&key.as_str())) {
                return Err(unknown(entry, "", key, &["defaults", "tests"]));
            }
            if let Some(entry) = map.get("defaults").filter(|entry| entry.value.kind != Kind::Null) {
                defaults = known(&entry.value, "defaults")?;
            }
            let tests = map.get("tests").ok_or_else(|| missing(tree, "", &["tests"]))?;
            tests.value.items().ok_or_else(|| wrong(&tests.value, "tests", "a list of tests"))?
        }
    };
    for (i, test) in tests.iter().enumerate() {
        add(&mut draft, test, &format!("tests[{}]", i + 1), &defaults)?;
    }
    Ok(draft.finish(FORMAT))
}

/// The keys of a test or of the defaults.
fn known<'n>(node: &'n Node, path: &str) -> Result<IndexMap<String, &'n Entry>, Diagnostic> {
    let map = entries(node, path)?;
    if let Some(entry) = map.get("parameters") {
        return Err(Diagnostic::new(
            &entry.key,
            path,
            "this is a latency, throughput or startup test of vLLM's CI: it starts no server",
        )
        .hint("`serving-tests*.json` are what can be read as a sweep"));
    }
    let all: Vec<&str> = ["test-name"].into_iter().chain(SECTIONS.iter().chain(&LISTS).map(|(key, _)| *key)).collect();
    match map.iter().find(|(key, _)| !all.contains(&key.as_str())) {
        Some((key, entry)) => Err(unknown(entry, path, key, &all)),
        None => Ok(map),
    }
}

fn add(draft: &mut Draft, test: &Node, path: &str, defaults: &IndexMap<String, &Entry>) -> Result<(), Diagnostic> {
    let map = known(test, path)?;
    let name = map.get("test-name").ok_or_else(|| missing(test, path, &["test_name"]))?;
    let mut group = Node::map(&name.value.origin);
    group.put(&["name"], name.value.clone());
    for (theirs, ours) in SECTIONS {
        // A test's own parameters win over the defaults, key by key.
        for from in [defaults.get(theirs), map.get(theirs)].into_iter().flatten() {
            if from.value.kind == Kind::Null {
                continue;
            }
            let section =
                from.value.entries().ok_or_else(|| wrong(&from.value, &format!("{path}.{theirs}"), "a map"))?;
            for (key, entry) in section {
                let flag = if ours == "env" { key.clone() } else { super::dashes(key) };
                if ours != "bench" || !OURS.contains(&flag.as_str()) {
                    group.put(&[ours, &flag], value(&entry.value));
                }
            }
        }
    }
    let model = |section: &str| -> Option<String> {
        let of = |map: &IndexMap<String, &Entry>| Some(map.get(section)?.value.get("model")?.scalar()?.to_owned());
        of(&map).or_else(|| of(defaults))
    };
    if let (Some(server), Some(client)) = (model("server-parameters"), model("client-parameters"))
        && server != client
    {
        draft.note(
            &name.value,
            &format!(
                "left out, as vLLM's CI leaves it out: its client names the model `{client}`, its server `{server}`"
            ),
        );
        return Ok(());
    }
    for (theirs, ours) in LISTS {
        let list = map.get(theirs).or_else(|| defaults.get(theirs)).filter(|entry| entry.value.kind != Kind::Null);
        match list {
            Some(entry) if several(&entry.value).is_empty() => {
                return Err(wrong(&entry.value, &format!("{path}.{theirs}"), "a list of numbers"));
            }
            Some(entry) => group.put(&["bench", ours], entry.value.clone()),
            None if ours == "max-concurrency" => {
                // Its script sends all prompts at once then.
                if let Some(prompts) = group.get("bench").and_then(|bench| bench.get("num-prompts")).cloned() {
                    group.put(&["bench", ours], prompts);
                }
            }
            None => {}
        }
    }
    draft.groups.push(group);
    Ok(())
}

/// A value as a flag takes it: an empty text is a switch, a list is several words after the flag.
fn value(node: &Node) -> Node {
    match &node.kind {
        Kind::Text(text) if text.is_empty() => Node::new(Kind::Bool(true), &node.origin),
        Kind::List(_) => Node::list(vec![node.clone()], &node.origin),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => node.clone(),
    }
}

//! Sweep files of other tools, read as they are and translated into our language. Every value keeps its place, so that
//! later errors point into the user's own file; what cannot be taken over is noted, never dropped quietly.
//!
//! `docs/foreign-formats.md` has the tables.

mod auto_tune;
mod cluster;
mod cluster_prompts;
mod completions;
mod others;
mod scenarios;
mod vllm_ci;
mod vllm_params;

use indexmap::IndexMap;

use super::Origin;
use super::tree::{Diagnostic, Entry, Kind, Node};
use crate::model::Client;
use crate::nearest::nearest;

/// What a foreign file says, in our language.
#[derive(Debug, Clone, PartialEq)]
pub struct Translated {
    /// The sweep.
    pub tree: Node,
    /// Whose format it is.
    pub format: &'static str,
    /// What was not taken over, and what was taken for granted; each with its place.
    pub notes: Vec<String>,
    /// Flags of `vllm serve` that the format's program sets by itself: a vLLM that does not know them does without.
    pub implied: &'static [&'static str],
}

/// Translates a foreign file for this client; `None` where it is one of ours.
pub fn translate(tree: &Node, client: Client) -> Option<Result<Translated, Diagnostic>> {
    let has = |key: &str| tree.entries().is_some_and(|map| map.keys().any(|known| dashes(known) == key));
    if has("experiments") && (has("fixed-args") || has("script")) {
        Some(cluster::translate(tree, client))
    } else if has("scenarios") && !has("serve") {
        Some(scenarios::translate(tree))
    } else if has("test-scenarios") {
        Some(completions::translate(tree))
    } else if vllm_ci::is_one(tree) {
        Some(vllm_ci::translate(tree))
    } else if auto_tune::is_one(tree) {
        Some(auto_tune::translate(tree))
    } else if let Some(trouble) = others::named(tree) {
        Some(Err(trouble))
    } else {
        vllm_params::translate(tree)
    }
}

/// vLLM multiplies its two parameter files with each other: every set of server flags with every set of load flags.
pub fn multiply(documents: &mut [(Node, Option<&'static str>)]) {
    let find = |format| documents.iter().position(|(_, of)| *of == Some(format));
    let (Some(serve), Some(bench)) = (find(vllm_params::SERVE_FORMAT), find(vllm_params::BENCH_FORMAT)) else { return };
    let groups = |at: usize| documents[at].0.get("experiments").and_then(Node::items).unwrap_or_default().to_vec();
    let (servers, loads) = (groups(serve), groups(bench));
    let mut product = Vec::new();
    for server in &servers {
        for load in &loads {
            let mut group = server.clone();
            if let Some(section) = load.get("bench") {
                group.put(&["bench"], section.clone());
            }
            let names = [server, load].into_iter().filter_map(|node| node.get("name")?.scalar());
            let name = names.collect::<Vec<_>>().join(" / ");
            if !name.is_empty() {
                group.put(&["name"], Node::text(name, &load.origin));
            }
            product.push(group);
        }
    }
    let origin = documents[serve].0.origin.clone();
    documents[serve].0.put(&["experiments"], Node::list(product, &origin));
    documents[bench].0 = Node::map(&origin);
}

/// Keys are read with dashes or underscores.
fn dashes(key: &str) -> String {
    key.replace('_', "-")
}

/// What is being made of a file.
struct Draft {
    tree: Node,
    groups: Vec<Node>,
    notes: Vec<String>,
    origin: Origin,
}

impl Draft {
    fn new(origin: &Origin) -> Self {
        Self { tree: Node::map(origin), groups: Vec::new(), notes: Vec::new(), origin: origin.clone() }
    }

    /// Notes something about a place.
    fn note(&mut self, at: &Node, text: &str) {
        let note = format!("{}: {text}", at.origin);
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A new group of this name.
    fn group(&mut self, name: &Node) -> &mut Node {
        let mut group = Node::map(&name.origin);
        group.put(&["name"], name.clone());
        self.groups.push(group);
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn finish(mut self, format: &'static str) -> Translated {
        let groups = Node::list(self.groups, &self.origin);
        self.tree.put(&["experiments"], groups);
        Translated { tree: self.tree, format, notes: self.notes, implied: &[] }
    }
}

/// A number that follows from others.
fn number(value: u64, like: &Node) -> Node {
    Node::new(Kind::Number(value.to_string()), &like.origin)
}

/// The entries of a map, by their names with dashes.
pub(super) fn entries<'n>(node: &'n Node, path: &str) -> Result<IndexMap<String, &'n Entry>, Diagnostic> {
    let map = node.entries().ok_or_else(|| wrong(node, path, "a map of keys"))?;
    Ok(map.iter().map(|(key, entry)| (dashes(key), entry)).collect())
}

pub(super) fn wrong(node: &Node, path: &str, expected: &str) -> Diagnostic {
    Diagnostic::new(&node.origin, path, format!("expected {expected}, found {}", node.describe()))
        .hint("docs/foreign-formats.md has every key of this format")
}

pub(super) fn unknown(entry: &Entry, path: &str, key: &str, known: &[&str]) -> Diagnostic {
    let at = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let trouble = Diagnostic::new(&entry.key, &at, format!("`{key}` is no key of this format"));
    match nearest(key, known.iter().copied()) {
        Some(near) => trouble.hint(format!("did you mean `{near}`?")),
        None => trouble.hint(format!("it has: {}", known.join(", "))),
    }
}

pub(super) fn missing(node: &Node, path: &str, keys: &[&str]) -> Diagnostic {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    Diagnostic::new(&node.origin, path, format!("misses {}", keys.join(", ")))
        .hint("docs/foreign-formats.md has every key of this format")
}

/// A whole number of at least 1.
pub(super) fn positive(node: &Node, path: &str) -> Result<u64, Diagnostic> {
    let number = node.scalar().and_then(|text| text.parse().ok()).filter(|number| *number >= 1);
    number.ok_or_else(|| wrong(node, path, "a whole number of at least 1"))
}

/// A list, or one value as a list of one.
pub(super) fn several(node: &Node) -> Vec<&Node> {
    node.items().map_or_else(|| vec![node], |items| items.iter().collect())
}

//! A sweep file as it was written: a tree of values, each of which knows where it stands.
//!
//! YAML, JSON and TOML, flags, environment variables and presets all become such trees; they are merged as trees, so
//! that every value that is used in the end still knows its origin.

mod de;
mod merge;
mod toml;
mod yaml;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Origin;

pub use de::{At, Raw, join, read};
pub use merge::{merge, merge_axes, rivals};
pub use toml::parse_toml;
pub use yaml::{is_number, parse_json, parse_yaml, plain};

/// How deep values may be nested.
pub const DEEPEST: usize = 24;
/// How many values a file may have, repeated ones (aliases) counted as often as they are used.
pub const LARGEST: usize = 200_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What was written.
    pub kind: Kind,
    /// Where.
    pub origin: Origin,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// YAML's `null`, `~` or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, in its own spelling: `0.90` stays `0.90`.
    Number(String),
    /// Anything else that is one word or text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys in the order of the file.
    Map(IndexMap<String, Entry>),
}

/// A key's place, and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Where the key stands.
    pub key: Origin,
    /// Its value.
    pub value: Node,
}

/// Something about a document that is wrong: where, and what to do about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// Where; `None` where it is not known yet.
    pub origin: Option<Origin>,
    /// The keys that lead there; empty at the top, or where the text itself cannot be read.
    pub path: String,
    /// What is wrong, and what was expected.
    pub problem: String,
    /// The next steps.
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// Something wrong at a place.
    pub fn new(origin: &Origin, path: &str, problem: impl Into<String>) -> Self {
        Self { origin: Some(origin.clone()), path: path.to_owned(), problem: problem.into(), hints: Vec::new() }
    }

    /// With one more next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// At this place, unless it already has one.
    #[must_use]
    pub fn or_at(mut self, origin: &Origin, path: &str) -> Self {
        if self.origin.is_none() {
            self.origin = Some(origin.clone());
            path.clone_into(&mut self.path);
        }
        self
    }
}

impl Node {
    /// A node.
    pub fn new(kind: Kind, origin: &Origin) -> Self {
        Self { kind, origin: origin.clone() }
    }

    /// A text.
    pub fn text(text: impl Into<String>, origin: &Origin) -> Self {
        Self::new(Kind::Text(text.into()), origin)
    }

    /// A list.
    pub fn list(items: Vec<Node>, origin: &Origin) -> Self {
        Self::new(Kind::List(items), origin)
    }

    /// A map without keys.
    pub fn map(origin: &Origin) -> Self {
        Self::new(Kind::Map(IndexMap::new()), origin)
    }

    /// The map's entries; `None` where it is no map.
    pub fn entries(&self) -> Option<&IndexMap<String, Entry>> {
        match &self.kind {
            Kind::Map(map) => Some(map),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => None,
        }
    }

    /// The map's entries, to change them; `None` where it is no map.
    pub fn entries_mut(&mut self) -> Option<&mut IndexMap<String, Entry>> {
        match &mut self.kind {
            Kind::Map(map) => Some(map),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => None,
        }
    }

    /// The list's items; `None` where it is no list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => None,
        }
    }

    /// Leaves out the items of a list that are not wanted.
    pub fn keep_items(&mut self, wanted: impl Fn(&Node) -> bool) {
        if let Kind::List(items) = &mut self.kind {
            items.retain(wanted);
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.get(key).map(|entry| &entry.value)
    }

    /// The value below several keys, outermost first.
    pub fn find(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Sets the value below several keys; maps are made on the way, and what is in the way is replaced.
    pub fn put(&mut self, path: &[&str], value: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if self.entries().is_none() {
            self.kind = Kind::Map(IndexMap::new());
        }
        let origin = value.origin.clone();
        if let Some(map) = self.entries_mut() {
            let fresh = || Entry { key: origin.clone(), value: Node::map(&origin) };
            map.entry((*first).to_owned()).or_insert_with(fresh).value.put(rest, value);
        }
    }

    /// One word or number as text; `None` for nothing, lists and maps.
    pub fn scalar(&self) -> Option<String> {
        match &self.kind {
            Kind::Bool(on) => Some(on.to_string()),
            Kind::Number(text) | Kind::Text(text) => Some(text.clone()),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// What it is, in words.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(on) => format!("`{on}`"),
            Kind::Number(text) => format!("the number `{text}`"),
            Kind::Text(text) => {
                let shown: String = text.escape_debug().take(60).collect();
                let more = if shown.len() < text.len() { "…" } else { "" };
                format!("the text `{shown}{more}`")
            }
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map of keys".to_owned(),
        }
    }
}

//! A sweep file as it was written: a tree of values, each of which knows where it stands.
//!
//! YAML, JSON and TOML, flags, environment variables and presets all become such trees; they are merged as trees, so
//! that every value that is used in the end still knows its origin.

use indexmap::IndexMap;

use super::Origin;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What was written.
    pub kind: Kind,
    /// Where.
    pub origin: Origin,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key stands.
    pub key: Origin,
    /// Its value.
    pub value: Node,
}

//! From a tree to Rust types, through serde: errors know the key path and the place, and [`At`] and [`Raw`] keep them
//! for what is checked later.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeSeed, IntoDeserializer, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer as Serde};

use super::{Diagnostic, Entry, Kind, Node, Origin};
use crate::config::vllm_flags;
use crate::nearest::nearest;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub origin: Origin,
    /// The keys that lead to it: `experiments[2].serve`.
    pub path: String,
}

/// A value as it was written, with its place: for what has several forms.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// The value.
    pub node: Node,
    /// The keys that lead to it.
    pub path: String,
}

/// Reads a tree into a type.
///
/// # Errors
/// The first thing in it that the type does not have.
pub fn read<'t, T: Deserialize<'t>>(tree: &'t Node) -> Result<T, Diagnostic> {
    T::deserialize(Reader { node: tree, path: String::new() })
}

/// Names by which [`At`] and [`Raw`] ask the reader for the place.
const AT: &str = "$vllm-bench::At";
const RAW: &str = "$vllm-bench::Raw";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Serde<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let origin = decoded(seq.next_element::<String>()?)?;
                let path = seq.next_element::<String>()?.unwrap_or_default();
                let value = seq.next_element::<T>()?.ok_or_else(|| de::Error::custom("a value is missing"))?;
                Ok(At { value, origin, path })
            }
        }
        deserializer.deserialize_tuple_struct(AT, 3, AtVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Serde<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let node = decoded(seq.next_element::<String>()?)?;
                Ok(Raw { node, path: seq.next_element::<String>()?.unwrap_or_default() })
            }
        }
        deserializer.deserialize_tuple_struct(RAW, 2, RawVisitor)
    }
}

/// serde's data model has no place for a place: it travels as text.
fn decoded<T: de::DeserializeOwned, E: de::Error>(text: Option<String>) -> Result<T, E> {
    serde_json::from_str(&text.unwrap_or_default()).map_err(E::custom)
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<String, Diagnostic> {
    serde_json::to_string(value).map_err(de::Error::custom)
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl de::Error for Diagnostic {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { origin: None, path: String::new(), problem: message.to_string(), hints: Vec::new() }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "a sequence" => "a list".to_owned(),
            word if word.starts_with("struct ") || word == "a map" => "a map of keys".to_owned(),
            other => other.to_owned(),
        };
        let trouble = Self::custom(format!("expected {expected}, found {}", found(&unexpected)));
        match expected.as_str() {
            "a list" => trouble.hint("write each of them on a line of its own, after `- `"),
            _ => trouble.hint("write keys below it, indented, or on one line as `{key: value}`"),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let trouble = Self::custom(format!("the key `{field}` is not known here"));
        match nearest(field, expected.iter().copied()) {
            Some(near) => trouble.hint(format!("did you mean `{near}`?")),
            None if expected.contains(&"bench")
                && expected.contains(&"serve")
                && let Some((section, flag)) = vllm_flags::meant(field) =>
            {
                let words = if flag == field.replace('_', "-") {
                    "it is a flag of vLLM:"
                } else {
                    "did you mean a flag of vLLM?"
                };
                trouble.hint(format!("{words} write it below `{section}`: `{section}: {{{flag}: …}}`"))
            }
            None if expected.contains(&"bench") && expected.contains(&"serve") => trouble
                .hint("flags of `vllm serve` belong under `serve`, those of `vllm bench serve` under `bench`")
                .hint(format!("the keys here are: {}", expected.join(", "))),
            None => trouble.hint(format!("the keys here are: {}", expected.join(", "))),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the key `{field}` is missing")).hint(format!("add `{field}: …`"))
    }
}

fn found(unexpected: &de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Bool(on) => format!("`{on}`"),
        de::Unexpected::Str(text) => format!("the text `{}`", text.escape_debug()),
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a map of keys".to_owned(),
        other => other.to_string(),
    }
}

/// One node and the way to it.
struct Reader<'t> {
    node: &'t Node,
    path: String,
}

impl<'t> Reader<'t> {
    fn placed<T>(result: Result<T, Diagnostic>, node: &Node, path: &str) -> Result<T, Diagnostic> {
        result.map_err(|trouble| trouble.or_at(&node.origin, path))
    }

    fn any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
        let Reader { node, path } = self;
        let result = match &node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(on) => visitor.visit_bool(*on),
            Kind::Number(text) | Kind::Text(text) => visitor.visit_borrowed_str(text),
            Kind::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), path: &path }),
            Kind::Map(map) => visitor.visit_map(Entries { entries: map.iter(), value: None, path: &path }),
        };
        Self::placed(result, node, &path)
    }
}

impl<'t> Serde<'t> for Reader<'t> {
    type Error = Diagnostic;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
        self.any(visitor)
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Diagnostic> {
        // A key without a value is there: its place is needed to say that a value is missing.
        visitor.visit_some(self)
    }

    fn deserialize_tuple_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Diagnostic> {
        let Reader { node, path } = self;
        let head = match name {
            AT => vec![encoded(&node.origin)?, path.clone()],
            RAW => vec![encoded(node)?, path.clone()],
            _ => return Reader { node, path }.any(visitor),
        };
        let rest = (name == AT).then(|| Reader { node, path: path.clone() });
        Self::placed(visitor.visit_seq(Placed { head: head.into_iter(), rest }), node, &path)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Diagnostic> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple map
        struct enum identifier ignored_any
    }
}

/// A place in front of a value.
struct Placed<'t> {
    head: std::vec::IntoIter<String>,
    rest: Option<Reader<'t>>,
}

impl<'t> SeqAccess<'t> for Placed<'t> {
    type Error = Diagnostic;
    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, Diagnostic> {
        if let Some(text) = self.head.next() {
            let text: value::StringDeserializer<Diagnostic> = text.into_deserializer();
            return seed.deserialize(text).map(Some);
        }
        self.rest.take().map(|reader| seed.deserialize(reader)).transpose()
    }
}

struct Items<'t, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
    path: &'p str,
}

impl<'t> SeqAccess<'t> for Items<'t, '_> {
    type Error = Diagnostic;
    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, Diagnostic> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = format!("{}[{}]", self.path, index + 1);
        let result = seed.deserialize(Reader { node, path: path.clone() });
        Reader::placed(result, node, &path).map(Some)
    }
}

struct Entries<'t, 'p> {
    entries: indexmap::map::Iter<'t, String, Entry>,
    value: Option<(&'t Node, String)>,
    path: &'p str,
}

impl<'t> de::MapAccess<'t> for Entries<'t, '_> {
    type Error = Diagnostic;
    fn next_key_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, Diagnostic> {
        let Some((key, entry)) = self.entries.next() else { return Ok(None) };
        self.value = Some((&entry.value, join(self.path, key)));
        let text: value::BorrowedStrDeserializer<'t, Diagnostic> = value::BorrowedStrDeserializer::new(key);
        seed.deserialize(text).map(Some).map_err(|trouble| trouble.or_at(&entry.key, self.path))
    }

    fn next_value_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<S::Value, Diagnostic> {
        let (node, path) = self.value.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        let result = seed.deserialize(Reader { node, path: path.clone() });
        Reader::placed(result, node, &path)
    }
}

/// A key path, one key longer.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::language::Document;
    use crate::config::load;

    #[test]
    fn values_keep_their_place_and_their_path() {
        let tree = load::parse("experiments:\n  - name: a\n    serve: {x: 0.90}\n", "a.yaml").unwrap();
        let document: Document = read(&tree).unwrap();
        let group = &document.experiments.unwrap().value[0];
        assert_eq!((group.origin.to_string().as_str(), group.path.as_str()), ("a.yaml:2:5", "experiments[1]"));
        let serve = group.value.serve.as_ref().unwrap();
        assert_eq!(serve.path, "experiments[1].serve");
        assert_eq!(serve.node.get("x").unwrap().kind, Kind::Number("0.90".into()));
        assert_eq!(serve.node, *tree.get("experiments").unwrap().items().unwrap()[0].get("serve").unwrap());
    }

    #[test]
    fn unknown_keys_are_named_with_their_place_and_the_nearest() {
        for (yaml, place, path, problem, hint) in [
            ("sreve: {}", "a.yaml:1:1", "", "the key `sreve` is not known here", "did you mean `serve`?"),
            (
                "timeouts: {x: 1}",
                "a.yaml:1:12",
                "timeouts",
                "the key `x` is not known here",
                "the keys here are: startup, benchmark, stall, grace",
            ),
            (
                "experiments: {a: 1}",
                "a.yaml:1:14",
                "experiments",
                "expected a list, found a map of keys",
                "write each of them on a line of its own, after `- `",
            ),
        ] {
            let tree = load::parse(yaml, "a.yaml").unwrap();
            let trouble = read::<Document>(&tree).unwrap_err();
            assert_eq!(trouble.origin.unwrap().to_string(), place);
            assert_eq!((trouble.path.as_str(), trouble.problem.as_str()), (path, problem));
            assert_eq!(trouble.hints, [hint]);
        }
    }
}

//! YAML and JSON. Plain words are typed by the core rules of YAML 1.2, so that `no` stays a word and `0.90` keeps its
//! spelling.

use std::collections::HashMap;

use indexmap::IndexMap;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::{DEEPEST, Diagnostic, Entry, Kind, LARGEST, Node, Origin};

/// Reads YAML; `None` for a file with nothing in it. `place` makes an origin of a line and a column.
///
/// # Errors
/// When it is no YAML, or YAML that no sweep needs: several documents, tags, too large.
pub fn parse_yaml(text: &str, place: &dyn Fn(usize, usize) -> Origin) -> Result<Option<Node>, Diagnostic> {
    let mut builder = Builder { place, open: Vec::new(), done: None, anchors: HashMap::new(), size: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| not_yaml(text, &at(place, error.marker()), error.info()))?;
        builder.take(event, span)?;
    }
    Ok(builder.done)
}

/// Reads JSON strictly, for messages that speak of JSON; then as the YAML that it is.
///
/// # Errors
/// When it is no JSON.
pub fn parse_json(text: &str, place: &dyn Fn(usize, usize) -> Origin) -> Result<Option<Node>, Diagnostic> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let origin = place(error.line().max(1), error.column().max(1));
        return Err(Diagnostic::new(&origin, "", format!("this is no JSON: {message}"))
            .hint("close every bracket and quote, and leave no comma after a last element; or write YAML (.yaml)"));
    }
    // YAML takes no tab after a colon. In JSON one is white space: texts cannot have it.
    parse_yaml(&text.replace('\t', " "), place)
}

/// The type of a plain word by YAML's core rules.
pub fn plain(word: &str) -> Kind {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        word if is_number(word) => Kind::Number(word.to_owned()),
        word => Kind::Text(word.to_owned()),
    }
}

/// Whether a plain word is a number: decimal, with fraction and exponent, `0x`, `0o`, `.inf` or `.nan`.
pub fn is_number(word: &str) -> bool {
    let digits = |text: &str, valid: fn(&char) -> bool| !text.is_empty() && text.chars().all(|c| valid(&c));
    if let Some(hex) = word.strip_prefix("0x") {
        return digits(hex, char::is_ascii_hexdigit);
    }
    if let Some(octal) = word.strip_prefix("0o") {
        return digits(octal, |c| ('0'..='7').contains(c));
    }
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(word, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = |e: &str| digits(e.strip_prefix(['-', '+']).unwrap_or(e), char::is_ascii_digit);
    (whole.len() + fraction.len() > 0)
        && whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit())
        && exponent.is_none_or(exponent_fits)
}

fn at(place: &dyn Fn(usize, usize) -> Origin, marker: &Marker) -> Origin {
    place(marker.line().max(1), marker.col() + 1)
}

fn not_yaml(text: &str, origin: &Origin, info: &str) -> Diagnostic {
    let trouble = Diagnostic::new(origin, "", format!("this is no YAML: {info}"));
    let line = match origin {
        Origin::File { line, .. } | Origin::Preset { line, .. } => *line,
        Origin::Flag(_) | Origin::Variable(_) => 1,
    };
    let indented_by_tab = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let near = text.lines().skip(line.saturating_sub(2)).take(3).any(indented_by_tab);
    if near {
        return trouble.hint("YAML is indented with spaces: replace the tabs");
    }
    trouble.hint("put texts with `:`, `#`, `{`, `[`, `*`, `&`, `!` or `%` at their beginning into quotes, and check the indentation")
}

/// A list or map that is being read.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Origin)>,
    /// What `<<` brings, in order.
    merged: Vec<Node>,
    /// Values within, itself included.
    size: usize,
}

struct Builder<'p> {
    place: &'p dyn Fn(usize, usize) -> Origin,
    open: Vec<Open>,
    done: Option<Node>,
    /// Anchored values and how many values they hold.
    anchors: HashMap<usize, (Node, usize)>,
    size: usize,
}

/// The key that brings another map's keys.
const MERGE: &str = "<<";

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let origin = at(self.place, &span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.done.is_none() => Ok(()),
            Event::DocumentStart(_) => Err(Diagnostic::new(&origin, "", "a second document begins here")
                .hint("keep one document per file; `vllm-bench run FILE FILE` merges several files")),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => {
                    self.count(size, depth(&node), &origin)?;
                    self.finish(node, 0, size, &origin)
                }
                None => Err(Diagnostic::new(&origin, "", "an alias may not be used within its own anchor")
                    .hint("write the value out")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar(&text, style, tag.as_deref(), &origin)?;
                self.count(1, 0, &origin)?;
                self.finish(Node::new(kind, &origin), anchor, 1, &origin)
            }
            Event::SequenceStart(anchor, tag) => self.begin(Kind::List(Vec::new()), anchor, tag.as_deref(), &origin),
            Event::MappingStart(anchor, tag) => self.begin(Kind::Map(IndexMap::new()), anchor, tag.as_deref(), &origin),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.open.pop() else { return Ok(()) };
                for node in std::mem::take(&mut open.merged) {
                    bring(&mut open.node, node);
                }
                self.finish(open.node, open.anchor, open.size, &origin)
            }
        }
    }

    fn begin(&mut self, kind: Kind, anchor: usize, tag: Option<&Tag>, origin: &Origin) -> Result<(), Diagnostic> {
        check_tag(tag, origin)?;
        self.count(1, 1, origin)?;
        self.open.push(Open { node: Node::new(kind, origin), anchor, key: None, merged: Vec::new(), size: 1 });
        Ok(())
    }

    /// Counts values before they are kept: a few lines of aliases can stand for billions of values.
    fn count(&mut self, size: usize, levels: usize, origin: &Origin) -> Result<(), Diagnostic> {
        self.size = self.size.saturating_add(size);
        if self.size > LARGEST {
            let problem = format!("the file has more than {LARGEST} values once its aliases are filled in");
            return Err(Diagnostic::new(origin, "", problem)
                .hint("use fewer aliases (`*name`); a range such as `1..64` is one value"));
        }
        if self.open.len() + levels > DEEPEST {
            return Err(Diagnostic::new(origin, "", format!("values are nested deeper than {DEEPEST} levels"))
                .hint("write deeply nested JSON as one text in quotes"));
        }
        Ok(())
    }

    /// A value is complete: it becomes a key, the value of one, an element, or the document.
    fn finish(&mut self, node: Node, anchor: usize, size: usize, origin: &Origin) -> Result<(), Diagnostic> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(node);
            return Ok(());
        };
        open.size += size;
        match (&mut open.node.kind, open.key.take()) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(map), None) => {
                let key = key_of(&node)?;
                if let Some(first) = map.get(&key) {
                    return Err(twice(&key, origin, &first.key));
                }
                open.key = Some((key, origin.clone()));
            }
            (Kind::Map(_), Some((key, place))) if key == MERGE => open.merged.extend(merged(node, &place)?),
            (Kind::Map(map), Some((key, place))) => drop(map.insert(key, Entry { key: place, value: node })),
            (Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_), _) => {}
        }
        Ok(())
    }
}

/// The error for a key that stands twice in one map.
pub(super) fn twice(key: &str, origin: &Origin, first: &Origin) -> Diagnostic {
    let line = match first {
        Origin::File { line, .. } | Origin::Preset { line, .. } => format!("line {line}"),
        Origin::Flag(_) | Origin::Variable(_) => first.to_string(),
    };
    Diagnostic::new(origin, "", format!("the key `{key}` stands here for the second time; the first is in {line}"))
        .hint("keep one of them; several values of a key are a list: `[1, 2]`")
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(map) => 1 + map.values().map(|entry| depth(&entry.value)).max().unwrap_or(0),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => 0,
    }
}

fn key_of(node: &Node) -> Result<String, Diagnostic> {
    match &node.kind {
        Kind::Null => Ok("null".to_owned()),
        Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => Ok(node.scalar().unwrap_or_default()),
        Kind::List(_) | Kind::Map(_) => Err(Diagnostic::new(&node.origin, "", "a key must be a word")
            .hint("put texts that begin with `{` or `[` into quotes")),
    }
}

fn merged(node: Node, place: &Origin) -> Result<Vec<Node>, Diagnostic> {
    match node.kind {
        Kind::Map(_) => Ok(vec![node]),
        Kind::List(items) if items.iter().all(|item| item.entries().is_some()) => Ok(items),
        Kind::List(_) | Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {
            Err(Diagnostic::new(place, "", "`<<` needs a map, or a list of maps")
                .hint("name an anchor that is on a map: `base: &base {…}`, then `<<: *base`"))
        }
    }
}

/// Adds the keys of a merged map that are not there yet.
fn bring(node: &mut Node, from: Node) {
    if let (Kind::Map(map), Kind::Map(more)) = (&mut node.kind, from.kind) {
        for (key, entry) in more {
            map.entry(key).or_insert(entry);
        }
    }
}

fn check_tag(tag: Option<&Tag>, origin: &Origin) -> Result<(), Diagnostic> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            let shown = format!("{}{}", tag.handle, tag.suffix);
            Err(Diagnostic::new(origin, "", format!("the tag `{shown}` has no meaning here"))
                .hint("leave it out; a text that begins with `!` belongs in quotes"))
        }
        Some(_) | None => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, origin: &Origin) -> Result<Kind, Diagnostic> {
    check_tag(tag, origin)?;
    Ok(match (tag.map(|tag| tag.suffix.as_str()), style) {
        (Some("str"), _) => Kind::Text(text.to_owned()),
        (Some(_), _) | (None, ScalarStyle::Plain) => plain(text),
        (None, _) => Kind::Text(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn parse(text: &str) -> Result<Node, String> {
        load::parse(text, "a.yaml").map_err(|trouble| {
            format!("{}: {}", trouble.origin.map(|origin| origin.to_string()).unwrap_or_default(), trouble.problem)
        })
    }

    fn kind(text: &str) -> Kind {
        parse(&format!("k: {text}")).unwrap().get("k").unwrap().kind.clone()
    }

    #[test]
    fn plain_words_are_typed_by_the_core_rules_and_quoted_ones_are_texts() {
        let (number, text) = (|t: &str| Kind::Number(t.into()), |t: &str| Kind::Text(t.into()));
        for word in ["0.90", "1e3", "-3", "+5", ".5", "5.", "0x1F", "0o17", ".inf", "-.Inf", ".nan", "007"] {
            assert_eq!(kind(word), number(word), "{word}");
        }
        for word in ["no", "yes", "on", "1_000", "1.2.3", "1..8", "e5", "-", "2024-01-01", "12:30", "0x", "1e", "."] {
            if word != "-" {
                assert_eq!(kind(word), text(word), "{word}");
            }
        }
        assert_eq!([kind("true"), kind("False")], [Kind::Bool(true), Kind::Bool(false)]);
        assert_eq!([kind("~"), kind("null"), kind("")], [Kind::Null, Kind::Null, Kind::Null]);
        assert_eq!([kind("'1'"), kind("\"true\""), kind("!!str 1")], [text("1"), text("true"), text("1")]);
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let tree = parse("\u{feff}a: 1\r\nb:\r\n  - x\r\n  - {c: y}\r\n").unwrap();
        let items = tree.get("b").unwrap().items().unwrap();
        assert_eq!(tree.get("a").unwrap().origin.to_string(), "a.yaml:1:4");
        assert_eq!(items[0].origin.to_string(), "a.yaml:3:5");
        assert_eq!(items[1].get("c").unwrap().origin.to_string(), "a.yaml:4:9");
        assert_eq!(tree.entries().unwrap()["b"].key.to_string(), "a.yaml:2:1");
    }

    #[test]
    fn aliases_and_merge_keys_are_filled_in() {
        let tree = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\nd: *a").unwrap();
        let at = |path: &[&str]| tree.find(path).and_then(Node::scalar);
        assert_eq!([at(&["b", "x"]), at(&["b", "y"])], [Some("1".into()), Some("3".into())]);
        assert_eq!([at(&["c", "y"]), at(&["c", "z"])], [Some("2".into()), Some("4".into())]);
        assert_eq!(at(&["d", "x"]), Some("1".into()));
    }

    #[test]
    fn what_no_sweep_needs_is_refused_with_its_place() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (below, here) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            bomb += &format!("{here}: &{here} [{}]\n", vec![format!("*{below}"); 10].join(", "));
        }
        for (text, problem) in [
            ("a: 1\nb: 2\na: 3", "a.yaml:3:1: the key `a` stands here for the second time; the first is in line 1"),
            ("a: 1\n---\nb: 2", "a.yaml:2:1: a second document begins here"),
            ("a: !env X", "a.yaml:1:4: the tag `!env` has no meaning here"),
            ("a: &a [*a]", "a.yaml:1:8: an alias may not be used within its own anchor"),
            ("? [a]\n: b", "a.yaml:1:3: a key must be a word"),
            ("a: {<<: 3}", "a.yaml:1:5: `<<` needs a map, or a list of maps"),
            (&bomb, "a.yaml:6:8: the file has more than 200000 values once its aliases are filled in"),
            (&format!("a: {}", "[".repeat(60)), "a.yaml:1:27: values are nested deeper than 24 levels"),
            ("", "a.yaml:1:1: the file is empty"),
            ("# nothing\n", "a.yaml:1:1: the file is empty"),
        ] {
            assert_eq!(parse(text).unwrap_err(), problem, "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn json_may_have_tabs_between_what_it_says() {
        let tree = load::parse("{\"a\":\t1,\n\t\"b\":\t2}", "a.json").unwrap();
        assert_eq!(tree.get("b").unwrap().origin.to_string(), "a.json:2:7");
    }

    #[test]
    fn json_and_toml_give_the_same_tree() {
        fn bare(node: &Node) -> serde_json::Value {
            match &node.kind {
                Kind::Map(map) => map.iter().map(|(k, e)| (k.clone(), bare(&e.value))).collect(),
                Kind::List(items) => items.iter().map(bare).collect(),
                Kind::Number(text) => format!("number {text}").into(),
                other => format!("{other:?}").into(),
            }
        }
        let yaml = load::parse("serve: {model: org/a, x: [1, 0.90, true], n: {a: b}}", "a.yaml").unwrap();
        let json = r#"{"serve": {"model": "org\/a",
	"x": [1, 0.90, true], "n": {"a": "b"}}}"#;
        let json = load::parse(json, "a.json").unwrap();
        let toml = load::parse("[serve]\nmodel = 'org/a'\nx = [1, 0.90, true]\n[serve.n]\na = 'b'", "a.toml").unwrap();
        assert_eq!(bare(&json), bare(&yaml));
        assert_eq!(bare(&toml), bare(&yaml));
        assert_eq!(toml.find(&["serve", "n", "a"]).unwrap().origin.to_string(), "a.toml:5:5");
        let dates = load::parse("a = 2024-01-01\nb = 0x1F\nc = 1_000", "a.toml").unwrap();
        assert_eq!(dates.get("a").unwrap().kind, Kind::Text("2024-01-01".into()));
        assert_eq!(dates.get("b").unwrap().kind, Kind::Number("31".into()));
        assert_eq!(dates.get("c").unwrap().kind, Kind::Number("1000".into()));
    }
}

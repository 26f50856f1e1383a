//! TOML. Dates are texts.

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{DEEPEST, Diagnostic, Entry, Kind, Node, Origin};

/// Reads TOML; `None` for a file with nothing in it. `place` makes an origin of a line and a column.
///
/// # Errors
/// When it is no TOML.
pub fn parse_toml(text: &str, place: &dyn Fn(usize, usize) -> Origin) -> Result<Option<Node>, Diagnostic> {
    let lines = Lines::of(text, place);
    let table = DeTable::parse(text).map_err(|error| {
        let origin = lines.at(error.span().map_or(0, |span| span.start));
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        Diagnostic::new(&origin, "", format!("this is no TOML: {message}")).hint(
            "texts stand in quotes, every key once, and a table's keys below its `[name]`; YAML (.yaml) is shorter",
        )
    })?;
    if table.get_ref().is_empty() {
        return Ok(None);
    }
    map(table.get_ref(), 0, &lines, 0).map(Some)
}

/// Byte offsets to lines and columns.
struct Lines<'p> {
    text: &'p str,
    starts: Vec<usize>,
    place: &'p dyn Fn(usize, usize) -> Origin,
}

impl<'p> Lines<'p> {
    fn of(text: &'p str, place: &'p dyn Fn(usize, usize) -> Origin) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, place }
    }

    fn at(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        (self.place)(line, before.chars().count() + 1)
    }
}

fn map(table: &DeTable<'_>, offset: usize, lines: &Lines<'_>, depth: usize) -> Result<Node, Diagnostic> {
    let mut entries = IndexMap::new();
    for (key, value) in table {
        let place = lines.at(key.span().start);
        entries.insert(key.get_ref().to_string(), Entry { key: place, value: node(value, lines, depth + 1)? });
    }
    Ok(Node::new(Kind::Map(entries), &lines.at(offset)))
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>, depth: usize) -> Result<Node, Diagnostic> {
    let origin = lines.at(value.span().start);
    if depth > DEEPEST {
        return Err(Diagnostic::new(&origin, "", format!("values are nested deeper than {DEEPEST} levels"))
            .hint("write deeply nested JSON as one text in quotes"));
    }
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Kind::Number(number.as_str().replace('_', "")),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            Kind::Number(i64::from_str_radix(&digits, number.radix()).map_or(digits, |number| number.to_string()))
        }
        DeValue::Float(number) => Kind::Number(number.as_str().replace('_', "")),
        DeValue::Boolean(on) => Kind::Bool(*on),
        DeValue::Datetime(date) => Kind::Text(date.to_string()),
        DeValue::Array(items) => {
            Kind::List(items.iter().map(|item| node(item, lines, depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return map(table, value.span().start, lines, depth),
    };
    Ok(Node::new(kind, &origin))
}

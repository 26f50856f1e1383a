//! What Python makes of values: `str`, `repr`, `json.dumps`, `strftime`.

use std::fmt::Write as _;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, Value};

use super::limits::{grown, nested, work};
use super::methods::View;
use super::wrong;

/// `str(value)`; nothing of an undefined value.
///
/// # Errors
/// When a limit is passed.
pub fn text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            work(text.len())?;
            Ok(text.to_owned())
        }
        ValueKind::Undefined => Ok(String::new()),
        _ => repr(value),
    }
}

/// `repr(value)`.
///
/// # Errors
/// When a limit is passed.
pub fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    work(out.len())?;
    Ok(out)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    nested(depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key).unwrap_or_default(), depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() || is_lazy(value) => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            let view = value.downcast_object_ref::<View>();
            if let Some(view) = view {
                let _ = write!(out, "{}(", view.name);
            }
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(out, &item, depth + 1)?;
                count = index + 1;
            }
            out.push_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
            if view.is_some() {
                out.push(')');
            }
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    grown(out.len())
}

/// A slice or a sum of lists: a list in Python, made on demand by minijinja.
fn is_lazy(value: &Value) -> bool {
    value.kind() == ValueKind::Iterable
}

/// A number as Python prints it.
pub fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// `repr` of a float: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16 on.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// A string in quotes, escaped as `repr` does it.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable`: no control, format, private, unassigned or separator character but the space. Rust's `escape_debug`
/// uses the same categories; the letter before keeps it from escaping marks as well.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut buffer = String::from("a");
    buffer.push(c);
    buffer.escape_debug().nth(1) == Some(c)
}

/// Arguments of `json.dumps`.
#[derive(Debug, Clone)]
pub struct Dump {
    /// Write everything beyond ASCII as `\uXXXX`.
    pub ascii: bool,
    /// What each level is indented by; `None` = all on one line.
    pub indent: Option<String>,
    /// Between items.
    pub item: String,
    /// Between key and value.
    pub key: String,
    /// Order keys.
    pub sort: bool,
}

/// `json.dumps(value)`.
///
/// # Errors
/// What Python refuses: undefined values, functions, keys that are lists.
pub fn json(value: &Value, dump: &Dump) -> Result<String, Error> {
    let mut out = String::new();
    write_json(&mut out, value, dump, 0)?;
    work(out.len())?;
    Ok(out)
}

fn write_json(out: &mut String, value: &Value, dump: &Dump, depth: usize) -> Result<(), Error> {
    nested(depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&json_number(value)),
        ValueKind::String => json_string(out, value.as_str().unwrap_or_default(), dump.ascii),
        ValueKind::Seq | ValueKind::Iterable if value.downcast_object_ref::<View>().is_none() => {
            let mut empty = true;
            out.push('[');
            for item in value.try_iter()?.checked() {
                start_item(out, dump, depth + 1, &mut empty);
                write_json(out, &item?, dump, depth + 1)?;
            }
            end_items(out, dump, depth, empty);
            out.push(']');
        }
        ValueKind::Map => {
            let mut empty = true;
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if dump.sort {
                keys.sort();
            }
            out.push('{');
            for key in keys {
                start_item(out, dump, depth + 1, &mut empty);
                let name = match key.kind() {
                    ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                    ValueKind::Number => json_number(&key),
                    ValueKind::None => "null".into(),
                    ValueKind::Bool => if key.is_true() { "true" } else { "false" }.into(),
                    kind => return Err(wrong(format!("keys must be str, int, float, bool or None, not {kind}"))),
                };
                json_string(out, &name, dump.ascii);
                out.push_str(&dump.key);
                write_json(out, &value.get_item(&key)?, dump, depth + 1)?;
            }
            end_items(out, dump, depth, empty);
            out.push('}');
        }
        kind => return Err(wrong(format!("Object of type {kind} is not JSON serializable"))),
    }
    grown(out.len())
}

fn start_item(out: &mut String, dump: &Dump, depth: usize, empty: &mut bool) {
    if !*empty {
        out.push_str(&dump.item);
    }
    *empty = false;
    new_line(out, dump, depth);
}

fn end_items(out: &mut String, dump: &Dump, depth: usize, empty: bool) {
    if !empty {
        new_line(out, dump, depth);
    }
}

fn new_line(out: &mut String, dump: &Dump, depth: usize) {
    if let Some(indent) = &dump.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.to_owned(),
    }
}

fn json_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `datetime.strftime` of a time without a zone, in the C locale.
///
/// # Errors
/// When the format cannot be written.
pub fn strftime(now: &chrono::DateTime<chrono::Local>, format: &str) -> Result<String, Error> {
    work(format.len())?;
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let flags = rest[1..].find(|c| !matches!(c, '-' | '_' | '0' | '^' | '#')).map_or(rest.len(), |end| end + 1);
        let Some(letter) = rest[flags..].chars().next() else { break };
        let end = flags + letter.len_utf8();
        let directive = &rest[..end];
        rest = &rest[end..];
        let mut one = String::new();
        let known = match letter {
            // Microseconds; and a time without a zone has neither its name nor its offset.
            'f' => write!(one, "{}", now.format("%6f")).is_ok(),
            'z' | 'Z' => true,
            'a' | 'A' | 'b' | 'B' | 'c' | 'C' | 'd' | 'D' | 'e' | 'F' | 'g' | 'G' | 'h' | 'H' | 'I' | 'j' | 'k'
            | 'l' | 'm' | 'M' | 'n' | 'p' | 'P' | 'r' | 'R' | 's' | 'S' | 't' | 'T' | 'u' | 'U' | 'V' | 'w' | 'W'
            | 'x' | 'X' | 'y' | 'Y' | '%' => write!(one, "{}", now.format(directive)).is_ok(),
            _ => false,
        };
        out.push_str(if known { &one } else { directive });
    }
    out.push_str(rest);
    Ok(out)
}

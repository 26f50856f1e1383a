//! Methods of Python's strings, dictionaries and lists, as far as Jinja2's immutable sandbox lets templates call them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::limits::{MOST_PADDED, grown, work};
use super::{items, python, wrong};

/// Calls a method that minijinja does not know.
///
/// # Errors
/// When there is no such method, or it is called wrongly.
pub fn call(_: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => dictionary(value, method, args),
        ValueKind::Seq | ValueKind::Iterable => list(value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// `str.isspace` of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What `strip` takes away: characters, or white space.
pub fn stripped<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let is_in = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(is_in) } else { text };
    if end { text.trim_end_matches(is_in) } else { text }
}

/// An argument by its place or its name.
struct Arguments {
    placed: Vec<Value>,
    named: Kwargs,
}

impl Arguments {
    fn of(args: &[Value]) -> Result<Self, Error> {
        let (placed, named): (Rest<Value>, Kwargs) = from_args(args)?;
        Ok(Self { placed: placed.0, named })
    }

    fn get(&self, at: usize, name: &str) -> Option<Value> {
        self.placed.get(at).cloned().or_else(|| self.named.get(name).ok()).filter(|value| !value.is_none())
    }

    fn text(&self, at: usize, name: &str) -> Result<Option<String>, Error> {
        let text = |value: Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(format!("{name} must be str")));
        self.get(at, name).map(text).transpose()
    }

    fn needed(&self, at: usize, name: &str) -> Result<String, Error> {
        self.text(at, name)?.ok_or_else(|| wrong(format!("{name} is missing")))
    }

    fn number(&self, at: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(at, name).map(i64::try_from).transpose()
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    if method == "format" {
        return formatted(FormatStyle::StrFormat, text, args).map(Value::from);
    }
    work(text.len())?;
    let given = Arguments::of(args)?;
    Ok(match method {
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "casefold" => text.to_lowercase().replace('ß', "ss").into(),
        "capitalize" => capitalized(text).into(),
        "title" => titled(text).into(),
        "swapcase" => text.chars().flat_map(swapped).collect::<String>().into(),
        "strip" => stripped(text, given.text(0, "chars")?.as_deref(), true, true).into(),
        "lstrip" => stripped(text, given.text(0, "chars")?.as_deref(), true, false).into(),
        "rstrip" => stripped(text, given.text(0, "chars")?.as_deref(), false, true).into(),
        "removeprefix" => text.strip_prefix(&*given.needed(0, "prefix")?).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(&*given.needed(0, "suffix")?).unwrap_or(text).into(),
        "replace" => {
            let (old, new) = (given.needed(0, "old")?, given.needed(1, "new")?);
            replaced(text, &old, &new, given.number(2, "count")?)?.into()
        }
        "split" => split(text, given.text(0, "sep")?.as_deref(), given.number(1, "maxsplit")?, false)?,
        "rsplit" => split(text, given.text(0, "sep")?.as_deref(), given.number(1, "maxsplit")?, true)?,
        "splitlines" => {
            let keep = given.get(0, "keepends").is_some_and(|keep| keep.is_true());
            lines(text)
                .into_iter()
                .map(|(line, end)| Value::from(if keep { format!("{line}{end}") } else { line.into() }))
                .collect()
        }
        "partition" | "rpartition" => partition(text, &given.needed(0, "sep")?, method == "rpartition")?,
        "startswith" | "endswith" => {
            let text = part(text, given.number(1, "start")?, given.number(2, "end")?).map_or("", |(_, part)| part);
            let what = given.get(0, "prefix").ok_or_else(|| wrong(format!("{method} needs a text")))?;
            let fits = |what: &Value| {
                let what = what.as_str().ok_or_else(|| wrong(format!("{method} takes str or a tuple of str")))?;
                Ok::<bool, Error>(if method == "startswith" { text.starts_with(what) } else { text.ends_with(what) })
            };
            if what.as_str().is_some() {
                fits(&what)?.into()
            } else if what.downcast_object_ref::<Tuple>().is_some() {
                items(&what)?.iter().try_fold(false, |found, one| Ok::<bool, Error>(found || fits(one)?))?.into()
            } else {
                return Err(wrong(format!("{method} takes str or a tuple of str")));
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => find(text, method, &given)?,
        "join" => {
            let what = given.get(0, "iterable").ok_or_else(|| wrong("join needs a list"))?;
            let (mut all, mut between) = (String::new(), "");
            for item in items(&what)? {
                let item = item.as_str().ok_or_else(|| wrong("join takes a list of str"))?;
                all.extend([std::mem::replace(&mut between, text), item]);
                grown(all.len())?;
            }
            all.into()
        }
        "ljust" | "rjust" | "center" | "zfill" => padded(text, method, &given)?.into(),
        "expandtabs" => expanded(text, given.number(0, "tabsize")?.unwrap_or(8))?.into(),
        "isspace" => every(text, is_space),
        "isdigit" | "isdecimal" => every(text, |c| c.is_ascii_digit() || is_other_digit(c)),
        "isnumeric" => every(text, char::is_numeric),
        "isalnum" => every(text, char::is_alphanumeric),
        "isalpha" => every(text, |c| c.is_alphabetic() && !c.is_numeric()),
        "isascii" => text.is_ascii().into(),
        "islower" => (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into(),
        "isupper" => (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into(),
        "istitle" => (titled(text) == text && text.chars().any(char::is_alphabetic)).into(),
        "isprintable" => python::repr(&Value::from(text.replace(['\'', '\\'], "")))?.chars().all(|c| c != '\\').into(),
        "isidentifier" => {
            let mut chars = text.chars();
            let first = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
            (first && chars.all(|c| c == '_' || c.is_alphanumeric())).into()
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn every(text: &str, is: impl Fn(char) -> bool) -> Value {
    (!text.is_empty() && text.chars().all(is)).into()
}

/// Digits beyond ASCII.
fn is_other_digit(c: char) -> bool {
    !c.is_ascii() && c.is_numeric() && !c.is_alphabetic()
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

/// `str.capitalize`.
pub fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect())
}

/// `str.title`: a letter after something that is none becomes a capital.
fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

/// `text[start:end]` with the place where it starts, in characters; `None` when the start lies behind the end.
fn part(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if start.is_none() && end.is_none() {
        return Some((0, text));
    }
    let length = text.chars().count();
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add_unsigned(length as u64).max(0) } else { at };
        usize::try_from(at).unwrap_or(usize::MAX)
    };
    let (start, end) = (start.map_or(0, place), end.map_or(length, place).min(length));
    if start > length || start > end {
        return None;
    }
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    Some((start, &text[byte(start)..byte(end)]))
}

fn find(text: &str, method: &str, given: &Arguments) -> Result<Value, Error> {
    let what = given.needed(0, "sub")?;
    let inside = part(text, given.number(1, "start")?, given.number(2, "end")?);
    if method == "count" {
        let count = inside.map_or(0, |(_, part)| part.matches(&*what).count());
        return Ok(count.into());
    }
    let found = inside.and_then(|(start, part)| {
        let at = if method.starts_with('r') { part.rfind(&*what) } else { part.find(&*what) }?;
        Some(start + part[..at].chars().count())
    });
    match found {
        Some(at) => Ok(at.into()),
        None if method.ends_with("index") => Err(wrong("substring not found")),
        None => Ok((-1).into()),
    }
}

fn split(text: &str, separator: Option<&str>, most: Option<i64>, from_right: bool) -> Result<Value, Error> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let parts: Vec<&str> = match separator {
        Some("") => return Err(wrong("empty separator")),
        Some(separator) if from_right => {
            let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
            parts.reverse();
            parts
        }
        Some(separator) => text.splitn(most.saturating_add(1), separator).collect(),
        None => words(text, most, from_right),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `split` without a separator: words between runs of white space; the part beyond the most keeps its own.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = stripped(text, None, !from_right, from_right);
    while !rest.is_empty() {
        let at = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match at.filter(|_| parts.len() < most) {
            Some(at) if from_right => {
                let width = rest[at..].chars().next().map_or(1, char::len_utf8);
                parts.push(&rest[at + width..]);
                rest = stripped(&rest[..at], None, false, true);
            }
            Some(at) => {
                parts.push(&rest[..at]);
                rest = stripped(&rest[at..], None, true, false);
            }
            None => {
                parts.push(rest);
                break;
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// Lines with their ends, as `splitlines` finds them.
pub fn lines(text: &str) -> Vec<(&str, &str)> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let Some(at) = rest.find(is_end) else {
            found.push((rest, ""));
            break;
        };
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        found.push((&rest[..at], &rest[at..at + width]));
        rest = &rest[at + width..];
    }
    found
}

fn partition(text: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let found = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match (found, from_right) {
        (Some((before, after)), _) => [before, separator, after],
        (None, true) => ["", "", text],
        (None, false) => [text, "", ""],
    };
    Ok(Tuple::from(parts.map(Value::from)).into())
}

/// `str.replace`, of which at most so many.
pub fn replaced(text: &str, old: &str, new: &str, most: Option<i64>) -> Result<String, Error> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let found = if new.len() > old.len() { text.matches(old).take(most).count() } else { 0 };
    grown(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, most))
}

/// `str.format`, and `%` of a text.
pub fn formatted(style: FormatStyle, template: &str, args: &[Value]) -> Result<String, Error> {
    work(template.len())?;
    let mark = if style == FormatStyle::Printf { '%' } else { '{' };
    let (mut fields, mut asked) = (0usize, 0usize);
    for field in template.split(mark).skip(1) {
        fields += 1;
        let how = match style {
            FormatStyle::Printf => {
                field.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(field, |(_, how)| how)
            }
            FormatStyle::StrFormat => {
                field.split('}').next().and_then(|field| field.split_once(':')).map_or("", |(_, how)| how)
            }
        };
        let end = match style {
            FormatStyle::Printf => how.find(|c: char| !(c.is_ascii_digit() || " #+-.*".contains(c))),
            FormatStyle::StrFormat => None,
        };
        let numbers =
            how[..end.unwrap_or(how.len())].split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        asked = numbers.fold(asked, |sum, digits| sum.saturating_add(digits.parse().unwrap_or(usize::MAX)));
    }
    if asked > MOST_PADDED {
        return Err(wrong(format!("a format asks for more than {MOST_PADDED} characters")));
    }
    let mut longest = 0;
    for value in args.iter().filter(|value| !matches!(value.kind(), ValueKind::Iterable)) {
        longest = longest.max(python::text(value)?.len());
    }
    grown(template.len().saturating_add(fields.saturating_mul(longest)))?;
    format(style, template, args)
}

fn padded(text: &str, method: &str, given: &Arguments) -> Result<String, Error> {
    let width = given.number(0, "width")?.ok_or_else(|| wrong(format!("{method} needs a width")))?;
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    if missing > MOST_PADDED {
        return Err(wrong(format!("{method} to {width} characters is too much")));
    }
    let fill = given.text(1, "fillchar")?.unwrap_or_else(|| " ".into());
    if fill.chars().count() != 1 {
        return Err(wrong("The fill character must be exactly one character long"));
    }
    let fill = |count: usize| fill.repeat(count);
    Ok(match method {
        "ljust" => format!("{text}{}", fill(missing)),
        "rjust" => format!("{}{text}", fill(missing)),
        "zfill" => {
            let sign = text.len() - text.trim_start_matches(['+', '-']).len();
            let sign = sign.min(1);
            format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
        }
        _ => {
            // CPython's rule for the odd one.
            let width = text.chars().count() + missing;
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill(left), fill(missing - left))
        }
    })
}

fn expanded(text: &str, size: i64) -> Result<String, Error> {
    let size = usize::try_from(size).unwrap_or(0).min(1000);
    grown(text.len().saturating_add(text.matches('\t').count().saturating_mul(size)))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let count = if size == 0 { 0 } else { size - column % size };
                out.push_str(&" ".repeat(count));
                column += count;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out)
}

fn dictionary(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let keys = || items(value);
    Ok(match method {
        "keys" => View::of("dict_keys", keys()?),
        "values" => {
            View::of("dict_values", keys()?.iter().map(|key| value.get_item(key)).collect::<Result<Vec<_>, _>>()?)
        }
        "items" => {
            let pair = |key: &Value| Ok(Value::from(Tuple::from([key.clone(), value.get_item(key)?])));
            View::of("dict_items", keys()?.iter().map(pair).collect::<Result<Vec<_>, Error>>()?)
        }
        "get" => {
            let (key, default): (&Value, Option<&Value>) = from_args(args)?;
            let found = keys()?.iter().any(|one| one == key);
            if found { value.get_item(key)? } else { default.cloned().unwrap_or_else(|| Value::from(())) }
        }
        "copy" => value.clone(),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    Ok(match method {
        "count" => {
            let (what,): (&Value,) = from_args(args)?;
            items(value)?.iter().filter(|item| *item == what).count().into()
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = items(value)?.iter().position(|item| item == what);
            at.ok_or_else(|| wrong(format!("{} is not in list", python::repr(what).unwrap_or_default())))?.into()
        }
        "copy" => items(value)?.into(),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// What `keys`, `values` and `items` of a dictionary give: it has a length and can be gone through, and is no list.
#[derive(Debug)]
pub struct View {
    /// Its name in Python.
    pub name: &'static str,
    /// What it has.
    pub items: Vec<Value>,
}

impl View {
    fn of(name: &'static str, items: Vec<Value>) -> Value {
        Value::from_object(Self { name, items })
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }
}

/// Jinja2's `joiner`: nothing when called first, the separator from then on.
#[derive(Debug)]
struct Joiner {
    separator: String,
    used: AtomicBool,
}

impl Object for Joiner {
    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(Value::from(if used { self.separator.as_str() } else { "" }))
    }
}

/// Makes a joiner.
pub fn joiner(separator: String) -> Value {
    Value::from_object(Joiner { separator, used: AtomicBool::new(false) })
}

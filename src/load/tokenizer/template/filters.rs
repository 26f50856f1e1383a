//! Filters, tests and functions where minijinja's differ from Jinja2's, and those that `source` writes into templates.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use minijinja::filters as builtin;
use minijinja::formatting::FormatStyle;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State};

use super::limits;
use super::methods::{View, capitalized, formatted, lines, replaced, stripped};
use super::python::{Dump, json, text};
use super::{is_iterable, items, wrong};

/// Puts them into an environment.
pub fn register(environment: &mut Environment<'_>) {
    // Jinja2 has no such filters.
    for name in ["bool", "chain", "lines", "split", "zip"] {
        environment.remove_filter(name);
    }
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("string", |value: Value| -> Result<Value, Error> {
        Ok(if value.as_str().is_some() { value } else { text(&value)?.into() })
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", |value: &Value, chars: Option<String>| {
        Ok::<_, Error>(like(value, stripped(&text(value)?, chars.as_deref(), true, true)))
    });
    environment.add_filter("upper", |value: &Value| Ok::<_, Error>(like(value, &text(value)?.to_uppercase())));
    environment.add_filter("lower", |value: &Value| Ok::<_, Error>(like(value, &text(value)?.to_lowercase())));
    environment.add_filter("capitalize", |value: &Value| Ok::<_, Error>(like(value, &capitalized(&text(value)?))));
    environment.add_filter("replace", |value: &Value, old: &Value, new: &Value, count: Option<i64>| {
        replaced(&text(value)?, &text(old)?, &text(new)?, count)
    });
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("list", items);
    environment
        .add_filter("first", |value: &Value| Ok::<_, Error>(items(value)?.into_iter().next().unwrap_or_default()));
    environment.add_filter("last", |value: &Value| {
        if value.downcast_object_ref::<Generator>().is_some() {
            return Err(wrong("'generator' object is not reversible"));
        }
        Ok(items(value)?.into_iter().next_back().unwrap_or_default())
    });
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("wordcount", |value: &Value| {
        let text = text(value)?;
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
        Ok::<_, Error>(words.count())
    });
    environment.add_filter("safe", |value: &Value| text(value).map(Value::from_safe_string));
    for name in ["e", "escape"] {
        environment.add_filter(name, |value: &Value| if value.is_safe() { Ok(value.clone()) } else { escaped(value) });
    }
    environment.add_filter("forceescape", |value: &Value| escaped(value));
    generators(environment);
    environment.add_filter("__iterable", |value: Value| match value.kind() {
        // minijinja does not know the last character of a text.
        ValueKind::String | ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain => {
            items(&value).map(Value::from)
        }
        _ => Ok(value),
    });
    environment.add_filter("__percent", |template: &str, value: &Value| {
        let many = value.downcast_object_ref::<Tuple>().is_some();
        let values = if many { items(value)? } else { vec![value.clone()] };
        formatted(FormatStyle::Printf, template, &values)
    });
    environment.add_filter("__within", |value: Value, namespaces: Rest<Value>| {
        limits::may_be_put(&value, &namespaces, 0).map(|()| value)
    });
    environment.add_function("__concat", |parts: Rest<Value>| {
        let mut all = String::new();
        for part in parts.iter() {
            all.push_str(&text(part)?);
            limits::grown(all.len())?;
        }
        Ok::<_, Error>(all)
    });
    environment.add_function("__sum", |terms: Rest<Value>| {
        let mut terms = terms.0.into_iter();
        let first = terms.next().unwrap_or_default();
        terms.try_fold(first, |sum, term| add(&sum, &term))
    });
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        let lazy = value.downcast_object_ref::<Generator>().is_some() || value.downcast_object_ref::<View>().is_some();
        !lazy && matches!(value.kind(), Undefined | String | Seq | Map | Iterable)
    });
    environment.add_test("callable", |value: &Value| matches!(value.kind(), ValueKind::Plain));
}

/// A text that is safe where the value is.
fn like(value: &Value, text: &str) -> Value {
    if value.is_safe() { Value::from_safe_string(text.to_owned()) } else { text.into() }
}

/// markupsafe's `escape`.
fn escaped(value: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for c in text(value)?.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    limits::grown(out.len())?;
    Ok(Value::from_safe_string(out))
}

/// `a + b`: texts, of which a safe one escapes the other; numbers; lists.
fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    use ValueKind::{Bool, Iterable, Number, Seq};
    let refused = || wrong(format!("tried to use + operator on unsupported types {} and {}", a.kind(), b.kind()));
    if let (Some(first), Some(second)) = (a.as_str(), b.as_str()) {
        if !a.is_safe() && !b.is_safe() {
            limits::grown(first.len() + second.len())?;
            return Ok(format!("{first}{second}").into());
        }
        let part = |value: &Value| if value.is_safe() { text(value) } else { text(&escaped(value)?) };
        let sum = format!("{}{}", part(a)?, part(b)?);
        limits::grown(sum.len())?;
        return Ok(Value::from_safe_string(sum));
    }
    match (a.kind(), b.kind()) {
        (Number | Bool, Number | Bool) if is_whole(a) && is_whole(b) => {
            let sum = i128::try_from(a.clone())?.checked_add(i128::try_from(b.clone())?);
            Ok(sum.ok_or_else(refused)?.into())
        }
        (Number | Bool, Number | Bool) => Ok((f64::try_from(a.clone())? + f64::try_from(b.clone())?).into()),
        (Seq | Iterable, Seq | Iterable) => {
            let tuple = |value: &Value| value.downcast_object_ref::<Tuple>().is_some();
            let all: Vec<Value> = items(a)?.into_iter().chain(items(b)?).collect();
            match (tuple(a), tuple(b)) {
                (true, true) => Ok(Tuple::from(all).into()),
                (false, false) => Ok(all.into()),
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_integer() || value.kind() == ValueKind::Bool
}

/// What Python makes on demand and only once.
#[derive(Debug)]
pub struct Generator {
    left: Mutex<VecDeque<Value>>,
}

impl Generator {
    /// What it still has.
    pub fn left(&self) -> Vec<Value> {
        self.left.lock().map(|left| left.iter().cloned().collect()).unwrap_or_default()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = Arc::clone(self);
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.left.lock().ok()?.pop_front())))
    }
}

/// Filters whose answers are generators in Jinja2.
fn generators(environment: &mut Environment<'_>) {
    fn generator(made: Vec<Value>) -> Result<Value, Error> {
        Ok(Value::from_object(Generator { left: Mutex::new(made.into()) }))
    }
    // Jinja2 looks at the items only of what is true: None has none.
    fn listed(value: &Value) -> Result<Value, Error> {
        Ok(if value.is_true() { items(value)? } else { Vec::new() }.into())
    }
    type More = Rest<ValueOrKwargs>;
    environment.add_filter("map", |state: &mut State, value: &Value, more: More| {
        generator(builtin::map(state, listed(value)?, more)?)
    });
    environment.add_filter("select", |state: &mut State, value: &Value, test: Option<Cow<'_, str>>, more: More| {
        generator(builtin::select(state, listed(value)?, test, more)?)
    });
    environment.add_filter("reject", |state: &mut State, value: &Value, test: Option<Cow<'_, str>>, more: More| {
        generator(builtin::reject(state, listed(value)?, test, more)?)
    });
    type Test<'a> = Option<Cow<'a, str>>;
    environment.add_filter(
        "selectattr",
        |state: &mut State, value: &Value, key: Cow<'_, str>, test: Test<'_>, more: More| {
            generator(builtin::selectattr(state, listed(value)?, key, test, more)?)
        },
    );
    environment.add_filter(
        "rejectattr",
        |state: &mut State, value: &Value, key: Cow<'_, str>, test: Test<'_>, more: More| {
            generator(builtin::rejectattr(state, listed(value)?, key, test, more)?)
        },
    );
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::String => Ok(text(value)?.chars().count()),
        ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
            Err(wrong("object of type 'generator' has no len()"))
        }
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => match value.len() {
            Some(length) => Ok(length),
            None => Ok(items(value)?.len()),
        },
        kind => Err(wrong(format!("object of type {kind} has no len()"))),
    }
}

/// Jinja2's `indent(width=4, first=False, blank=False)`.
fn indent(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| placed.get(at).cloned().or_else(|| named.get(name).ok());
    let by = match argument(0, "width") {
        Some(width) if width.as_str().is_some() => text(&width)?,
        width => {
            let width = width.map_or(Ok(4), i64::try_from)?;
            let width = usize::try_from(width).unwrap_or(0);
            if width > limits::MOST_PADDED {
                return Err(wrong(format!("indent by more than {} characters", limits::MOST_PADDED)));
            }
            " ".repeat(width)
        }
    };
    let is_set = |at, name| argument(at, name).is_some_and(|value: Value| value.is_true());
    let (first, blank) = (is_set(1, "first"), is_set(2, "blank"));
    named.assert_all_used()?;
    let whole = text(value)? + "\n";
    let lines = lines(&whole);
    limits::grown(whole.len().saturating_add(lines.len().saturating_mul(by.len())))?;
    let mut out = String::new();
    for (index, (line, _)) in lines.into_iter().enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        let indented = if index > 0 { blank || !line.is_empty() } else { first };
        out.push_str(if indented { &by } else { "" });
        out.push_str(line);
    }
    Ok(like(value, &out))
}

/// Jinja2's `int`: the default where there is no number.
fn int(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let argument = |at: usize, name: &str| placed.get(at).cloned().or_else(|| named.get(name).ok());
    let default = argument(0, "default").filter(|value| !value.is_undefined()).unwrap_or_else(|| 0.into());
    let base = argument(1, "base").and_then(|base| u32::try_from(base).ok()).filter(|base| (2..=36).contains(base));
    named.assert_all_used()?;
    match value.kind() {
        ValueKind::Undefined => Err(wrong("an undefined value is no number")),
        ValueKind::Bool => Ok(i64::from(value.is_true()).into()),
        ValueKind::Number if value.is_integer() => Ok(value.clone()),
        ValueKind::Number => Ok(whole(f64::try_from(value.clone())?).unwrap_or(default)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim().replace('_', "");
            let base = base.unwrap_or(10);
            let digits = match base {
                16 => text.trim_start_matches("0x"),
                8 => text.trim_start_matches("0o"),
                2 => text.trim_start_matches("0b"),
                _ => &text,
            };
            let number = i128::from_str_radix(digits, base).ok().map(Value::from);
            Ok(number.or_else(|| whole(text.parse().ok()?)).unwrap_or(default))
        }
        _ => Ok(default),
    }
}

fn whole(value: f64) -> Option<Value> {
    (value.is_finite() && value.abs() < 1e38).then(|| Value::from(value.trunc() as i128))
}

/// Jinja2's `float`: the default where there is no number.
fn float(value: &Value, default: Option<Value>) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(wrong("an undefined value is no number")),
        ValueKind::Number | ValueKind::Bool => Ok(f64::try_from(value.clone())?.into()),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim().replace('_', "");
            Ok(text.parse::<f64>().map_or_else(|_| default.unwrap_or_else(|| 0.0.into()), Value::from))
        }
        _ => Ok(default.unwrap_or_else(|| 0.0.into())),
    }
}

/// transformers' `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| placed.get(at).cloned().or_else(|| named.get(name).ok());
    let given = |at: usize, name: &str| argument(at, name).filter(|value| !value.is_none() && !value.is_undefined());
    let indent = given(1, "indent").map(|indent| match indent.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => i64::try_from(indent).map(|width| " ".repeat(usize::try_from(width).unwrap_or(0).min(1000))),
    });
    let indent = indent.transpose()?;
    let (item, key) = match given(2, "separators") {
        Some(pair) => {
            let pair = items(&pair)?;
            let [item, key] = pair.as_slice() else { return Err(wrong("separators must be a pair of str")) };
            (text(item)?, text(key)?)
        }
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let is_set = |at, name| given(at, name).is_some_and(|value| value.is_true());
    let dump = Dump { ascii: is_set(0, "ensure_ascii"), indent, item, key, sort: is_set(3, "sort_keys") };
    named.assert_all_used()?;
    if value.downcast_object_ref::<Generator>().is_some() {
        return Err(wrong("Object of type generator is not JSON serializable"));
    }
    json(value, &dump)
}

fn join(value: &Value, separator: Option<&Value>, named: Kwargs) -> Result<String, Error> {
    let named_separator: Option<Value> = named.get("d")?;
    let separator = separator.or(named_separator.as_ref()).map(text).transpose()?.unwrap_or_default();
    let attribute: Option<Value> = named.get("attribute")?;
    named.assert_all_used()?;
    let mut all = String::new();
    for (index, item) in items(value)?.into_iter().enumerate() {
        if index > 0 {
            all.push_str(&separator);
        }
        all.push_str(&match &attribute {
            Some(attribute) => text(&item.get_item(attribute)?)?,
            None => text(&item)?,
        });
        limits::grown(all.len())?;
    }
    Ok(all)
}

//! Values of axes: words, numbers, switches, ranges, JSON, and lists of them.

use std::fmt::Write as _;

use crate::config::Origin;
use crate::config::tree::{Diagnostic, Kind, Node, join};
use crate::plan::Value;

/// A range with more values is a mistake.
pub const LONGEST_RANGE: u64 = 1_000_000;

/// One value of an axis and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The value.
    pub value: Value,
    /// Its place.
    pub origin: Origin,
}

/// The values of an axis: one, or a list; ranges are spelled out.
///
/// # Errors
/// When the list or a range is empty, or a text holds control characters.
pub fn axis(node: &Node, path: &str) -> Result<Vec<Placed>, Diagnostic> {
    let Kind::List(items) = &node.kind else { return one(node, path) };
    if items.is_empty() {
        return Err(Diagnostic::new(&node.origin, path, "the list is empty: an axis needs at least one value")
            .hint("leave the key out, or write `none` to leave vLLM's flag out"));
    }
    let mut values = Vec::new();
    for item in items {
        match &item.kind {
            Kind::List(words) => {
                values.push(Placed { value: several(words, item, path)?, origin: item.origin.clone() })
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => {
                values.extend(one(item, path)?)
            }
        }
    }
    if values.len() as u64 > LONGEST_RANGE {
        return Err(Diagnostic::new(&node.origin, path, format!("the axis has more than {LONGEST_RANGE} values"))
            .hint("use a larger step, such as `1..1024:64`"));
    }
    Ok(values)
}

/// Whether a word means that the flag is left out.
pub fn is_none(text: &str) -> bool {
    matches!(text, "none" | "None")
}

/// What is no list: one value, or the values of a range.
fn one(node: &Node, path: &str) -> Result<Vec<Placed>, Diagnostic> {
    let placed = |value| Placed { value, origin: node.origin.clone() };
    let value = match &node.kind {
        Kind::Null => Value::Omitted,
        Kind::Bool(on) => Value::Switch(*on),
        Kind::Number(text) => Value::Text(text.clone()),
        Kind::Text(text) if is_none(text) => Value::Omitted,
        Kind::Text(text) => match range(text).map_err(|problem| not_a_range(node, path, text, &problem))? {
            Some(numbers) => return Ok(numbers.into_iter().map(|n| placed(Value::Text(n.to_string()))).collect()),
            None => Value::Text(checked(text, node, path)?),
        },
        Kind::Map(_) => Value::Text(json(node, path)?),
        Kind::List(words) => several(words, node, path)?,
    };
    Ok(vec![placed(value)])
}

fn several(words: &[Node], list: &Node, path: &str) -> Result<Value, Diagnostic> {
    let mut texts = Vec::new();
    for word in words {
        for placed in one(word, path)? {
            match placed.value {
                Value::Text(text) => texts.push(text),
                Value::Switch(on) => texts.push(on.to_string()),
                Value::Omitted | Value::List(_) => {
                    return Err(Diagnostic::new(
                        &word.origin,
                        path,
                        format!("expected a word or a number, found {}", word.describe()),
                    )
                    .hint("a list inside a list is one value made of several words: `[[1, 2, 4]]`"));
                }
            }
        }
    }
    if texts.is_empty() {
        return Err(Diagnostic::new(&list.origin, path, "the inner list is empty: a value needs at least one word")
            .hint("write `none` to leave vLLM's flag out"));
    }
    Ok(Value::List(texts))
}

fn not_a_range(node: &Node, path: &str, text: &str, problem: &str) -> Diagnostic {
    Diagnostic::new(&node.origin, path, format!("the range `{}` {problem}", text.escape_debug()))
        .hint("ranges are `1..8`, `1..32:4` (every fourth) and `pow2:1..256` (powers of two), the smaller end first")
}

/// The numbers of a range; `None` where the text is none.
fn range(text: &str) -> Result<Option<Vec<u64>>, String> {
    let text = text.trim();
    let (powers, rest) = text.strip_prefix("pow2:").map_or((false, text), |rest| (true, rest));
    let Some((low, rest)) = rest.split_once("..") else {
        return if powers { Err("has no `..`".to_owned()) } else { Ok(None) };
    };
    let (high, step) = rest.split_once(':').map_or((rest, None), |(high, step)| (high, Some(step)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !(is_number(low) && is_number(high) && step.is_none_or(is_number)) {
        return if powers { Err("has an end that is no whole number".to_owned()) } else { Ok(None) };
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| "has a number that is too large".to_owned());
    let (low, high, step) = (number(low)?, number(high)?, step.map(number).transpose()?);
    if low > high {
        return Err(format!("is empty: {low} is above {high}"));
    }
    let numbers: Vec<u64> = match (powers, step) {
        (true, Some(_)) => return Err("has a step: powers of two have none".to_owned()),
        (true, None) => (0..64).map(|exponent| 1_u64 << exponent).filter(|n| (low..=high).contains(n)).collect(),
        (false, Some(0)) => return Err("has the step 0".to_owned()),
        (false, step) => {
            let step = step.unwrap_or(1);
            if (high - low) / step >= LONGEST_RANGE {
                return Err(format!("has more than {LONGEST_RANGE} values"));
            }
            (0..=(high - low) / step).map(|at| low + at * step).collect()
        }
    };
    if numbers.is_empty() {
        return Err(format!("is empty: there is no power of two from {low} to {high}"));
    }
    Ok(Some(numbers))
}

fn checked(text: &str, node: &Node, path: &str) -> Result<String, Diagnostic> {
    match text.chars().find(|c| c.is_control()) {
        Some(control) => {
            let problem = format!("the text holds the control character `{}`", control.escape_default());
            Err(Diagnostic::new(&node.origin, path, problem)
                .hint("remove it: a value reaches vLLM as one word on a command line"))
        }
        None => Ok(text.to_owned()),
    }
}

/// Compact JSON; numbers keep their spelling where JSON has it.
pub fn json(node: &Node, path: &str) -> Result<String, Diagnostic> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = String::new();
    match &node.kind {
        Kind::Null => out.push_str("null"),
        Kind::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
        Kind::Number(text) if serde_json::from_str::<serde_json::Number>(text).is_ok() => out.push_str(text),
        Kind::Number(text) | Kind::Text(text) => out.push_str(&quoted(text)),
        Kind::List(items) => {
            let items: Vec<String> = items.iter().map(|item| json(item, path)).collect::<Result<_, _>>()?;
            let _ = write!(out, "[{}]", items.join(","));
        }
        Kind::Map(map) => {
            let of = |(key, entry): (&String, &crate::config::tree::Entry)| {
                Ok(format!("{}:{}", quoted(key), json(&entry.value, &join(path, key))?))
            };
            let entries: Vec<String> = map.iter().map(of).collect::<Result<_, Diagnostic>>()?;
            let _ = write!(out, "{{{}}}", entries.join(","));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn values(yaml: &str) -> Result<Vec<Value>, String> {
        let tree = load::parse(&format!("x: {yaml}"), "a.yaml").unwrap();
        let values = axis(tree.get("x").unwrap(), "serve.x").map_err(|trouble| trouble.problem)?;
        Ok(values.into_iter().map(|placed| placed.value).collect())
    }

    fn texts(yaml: &str) -> Vec<String> {
        let text = |value| match value {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        };
        values(yaml).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn every_form_of_a_value_is_read() {
        assert_eq!(texts("0.90"), ["0.90"]);
        assert_eq!(texts("[1, b, '0x10']"), ["1", "b", "0x10"]);
        assert_eq!(texts("no"), ["no"]);
        assert_eq!(values("[true, false]").unwrap(), [Value::Switch(true), Value::Switch(false)]);
        for none in ["none", "None", "null", "~", "", "'none'"] {
            assert_eq!(values(none).unwrap(), [Value::Omitted], "{none}");
        }
        assert_eq!(values("[[1, 2, 4]]").unwrap(), [Value::List(vec!["1".into(), "2".into(), "4".into()])]);
        assert_eq!(values("[[pow2:1..4]]").unwrap(), [Value::List(vec!["1".into(), "2".into(), "4".into()])]);
        assert_eq!(
            texts("{method: ngram, num_speculative_tokens: 6, deep: [1.50, {a: ~}]}"),
            [r#"{"method":"ngram","num_speculative_tokens":6,"deep":[1.50,{"a":null}]}"#]
        );
        assert_eq!(texts(r#"'{"a": 1}'"#), [r#"{"a": 1}"#]);
    }

    #[test]
    fn ranges_are_spelled_out() {
        assert_eq!(texts("pow2:1..256"), ["1", "2", "4", "8", "16", "32", "64", "128", "256"]);
        assert_eq!(texts("pow2:3..20"), ["4", "8", "16"]);
        assert_eq!(texts("1..32:4"), ["1", "5", "9", "13", "17", "21", "25", "29"]);
        assert_eq!(texts("[1..3, 8, 'pow2:16..32']"), ["1", "2", "3", "8", "16", "32"]);
        assert_eq!(texts("5..5"), ["5"]);
        for path in ["../models/a", "a..b", "1..b"] {
            assert_eq!(texts(path), [path], "a path is no range");
        }
    }

    #[test]
    fn bad_ranges_say_why() {
        for (text, problem) in [
            ("8..1", "the range `8..1` is empty: 8 is above 1"),
            ("pow2:5..7", "the range `pow2:5..7` is empty: there is no power of two from 5 to 7"),
            ("1..8:0", "the range `1..8:0` has the step 0"),
            ("0..1000000", "the range `0..1000000` has more than 1000000 values"),
            ("pow2:a..b", "the range `pow2:a..b` has an end that is no whole number"),
            ("1..99999999999999999999999", "the range `1..99999999999999999999999` has a number that is too large"),
            ("[]", "the list is empty: an axis needs at least one value"),
            ("[[]]", "the inner list is empty: a value needs at least one word"),
            (r#""a\tb""#, r"the text holds the control character `\t`"),
        ] {
            assert_eq!(values(text).unwrap_err(), problem, "{text}");
        }
    }
}

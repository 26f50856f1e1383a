//! Conditions as the language writes them: `{quantization: fp8, max-num-seqs: "> bench.max-concurrency"}`.

use super::spelling::condition_key;
use super::value::axis;
use crate::config::tree::{Diagnostic, Kind, Node, Raw, join};
use crate::plan::{Comparison, Condition, Operand, Term, Test};

/// Reads the value of `when`.
///
/// # Errors
/// When it is no map, is empty, or a test cannot be read.
pub fn condition(when: &Raw) -> Result<Condition, Diagnostic> {
    let (node, path) = (&when.node, &when.path);
    let entries = node.entries().ok_or_else(|| {
        Diagnostic::new(&node.origin, path, format!("expected a map of keys, found {}", node.describe()))
            .hint("write `when: {quantization: fp8, enforce-eager: false}`")
    })?;
    if entries.is_empty() {
        return Err(Diagnostic::new(&node.origin, path, "the condition is empty: it would hold for everything")
            .hint("name at least one key, such as `when: {quantization: fp8}`"));
    }
    let term = |(key, entry): (&String, &crate::config::tree::Entry)| {
        Ok(Term { key: key.clone(), test: test(&entry.value, &join(path, key))? })
    };
    Ok(Condition { terms: entries.iter().map(term).collect::<Result<_, Diagnostic>>()? })
}

/// The operators, the longer ones first.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::Not),
    ("==", Operator::Is),
    ("<=", Operator::Compare(Comparison::LessOrEqual)),
    (">=", Operator::Compare(Comparison::GreaterOrEqual)),
    ("<", Operator::Compare(Comparison::Less)),
    (">", Operator::Compare(Comparison::Greater)),
];

#[derive(Clone, Copy)]
enum Operator {
    Is,
    Not,
    Compare(Comparison),
}

fn test(node: &Node, path: &str) -> Result<Test, Diagnostic> {
    if let Kind::Text(text) = &node.kind
        && text.trim_start().starts_with(['<', '>', '!', '='])
    {
        return compared(text.trim(), node, path);
    }
    Ok(Test::OneOf(axis(node, path)?.into_iter().map(|placed| placed.value).collect()))
}

fn compared(text: &str, node: &Node, path: &str) -> Result<Test, Diagnostic> {
    let wrong = |problem: String, hint: &str| Err(Diagnostic::new(&node.origin, path, problem).hint(hint));
    let known = "the operators are `!=`, `<`, `<=`, `>` and `>=`; a value alone means that it is equal";
    let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)));
    let Some((operator, right)) = found else {
        return wrong(format!("`{}` begins with no operator", text.escape_debug()), known);
    };
    if right.starts_with(['<', '>', '=', '!']) {
        let sign: String = text.chars().take_while(|c| "<>=!".contains(*c)).collect();
        let hint = match sign.as_str() {
            "<>" => "did you mean `!=`?",
            _ => known,
        };
        return wrong(format!("`{sign}` is no operator"), hint);
    }
    let right = right.trim();
    if right.is_empty() {
        return wrong(format!("`{text}` has nothing after the operator"), "add a value: `\"> 4\"`");
    }
    let word = || {
        let node = Node::new(crate::config::tree::plain(right), &node.origin);
        axis(&node, path).map(|values| values.into_iter().map(|placed| placed.value).collect())
    };
    match operator {
        Operator::Is => word().map(Test::OneOf),
        Operator::Not => word().map(Test::NoneOf),
        Operator::Compare(comparison) => {
            let is_key = right.starts_with(|c: char| c.is_ascii_alphabetic())
                && right.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            match right.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Test::Compare(comparison, Operand::Number(right.to_owned()))),
                Ok(_) | Err(_) if is_key => Ok(Test::Compare(comparison, Operand::Key(condition_key(right)))),
                Ok(_) | Err(_) => wrong(
                    format!("`{}` is compared with neither a number nor a key", text.escape_debug()),
                    "write `\"> 4\"`, or `\"> bench.max-concurrency\"`",
                ),
            }
        }
    }
}

/// The keys that a condition names, those it compares with included: (key of the term, key).
pub fn keys(condition: &Condition) -> impl Iterator<Item = (&str, &str)> {
    condition.terms.iter().flat_map(|term| {
        let other = match &term.test {
            Test::Compare(_, Operand::Key(key)) => Some(key.as_str()),
            Test::Compare(_, Operand::Number(_)) | Test::OneOf(_) | Test::NoneOf(_) => None,
        };
        std::iter::once(term.key.as_str()).chain(other).map(|key| (term.key.as_str(), key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::plan::Value;

    fn read(yaml: &str) -> Result<Condition, String> {
        let node = load::parse(yaml, "a.yaml").unwrap();
        condition(&Raw { node, path: "when".into() }).map_err(|trouble| trouble.problem)
    }

    fn only(yaml: &str) -> Test {
        read(&format!("k: {yaml}")).unwrap().terms.remove(0).test
    }

    #[test]
    fn every_test_is_read() {
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(only("fp8"), Test::OneOf(vec![text("fp8")]));
        assert_eq!(only("none"), Test::OneOf(vec![Value::Omitted]));
        assert_eq!(only("[2, 4]"), Test::OneOf(vec![text("2"), text("4")]));
        assert_eq!(only("false"), Test::OneOf(vec![Value::Switch(false)]));
        assert_eq!(only("'!= fp8'"), Test::NoneOf(vec![text("fp8")]));
        assert_eq!(only("'!=none'"), Test::NoneOf(vec![Value::Omitted]));
        assert_eq!(only("'== 4'"), Test::OneOf(vec![text("4")]));
        assert_eq!(only("'< 4'"), Test::Compare(Comparison::Less, Operand::Number("4".into())));
        assert_eq!(only("'>=0.5'"), Test::Compare(Comparison::GreaterOrEqual, Operand::Number("0.5".into())));
        assert_eq!(
            only("'> bench.max_concurrency'"),
            Test::Compare(Comparison::Greater, Operand::Key("bench.max-concurrency".into()))
        );
    }

    #[test]
    fn bad_tests_say_why() {
        for (yaml, problem) in [
            ("k: '=< 4'", "`=< 4` begins with no operator"),
            ("k: '<> 4'", "`<>` is no operator"),
            ("k: '=== 4'", "`===` is no operator"),
            ("k: '>'", "`>` has nothing after the operator"),
            ("k: '> $x'", "`> $x` is compared with neither a number nor a key"),
            ("{}", "the condition is empty: it would hold for everything"),
            ("[a]", "expected a map of keys, found a list"),
        ] {
            assert_eq!(read(yaml).unwrap_err(), problem, "{yaml}");
        }
    }
}

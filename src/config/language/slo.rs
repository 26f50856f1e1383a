//! Limits on metrics (`slo`) as the language writes them. Which metrics there are is not known here.

use crate::config::Origin;
use crate::config::tree::{Diagnostic, Kind, Node, Raw, join};

/// A limit as a sweep file states it.
#[derive(Debug, Clone, PartialEq)]
pub struct StatedLimit {
    /// The name of the metric, `ttft.p99`; empty where name and value are one text (`ttft.p99<500`).
    pub name: String,
    /// The value, as written.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
    /// The keys that lead to it.
    pub path: String,
}

const HINT: &str =
    "write `slo: {ttft: {p99: 500}, tpot: {mean: 50}}` (milliseconds), or `slo: 'ttft.p99<500,tpot.mean<50'`";

/// Reads `slo`: names with values, one below the other, or the words of `--slo`, as a text or a list of them.
///
/// # Errors
/// When something else stands where a limit or a value is expected.
pub fn stated(raw: &Raw) -> Result<Vec<StatedLimit>, Diagnostic> {
    let mut found = Vec::new();
    match &raw.node.kind {
        Kind::Null => {}
        Kind::Text(_) => words(&raw.node, &raw.path, &mut found)?,
        Kind::List(items) => {
            for (at, item) in items.iter().enumerate() {
                words(item, &format!("{}[{}]", raw.path, at + 1), &mut found)?;
            }
        }
        Kind::Map(_) => below(&raw.node, &raw.path, "", &mut found)?,
        Kind::Bool(_) | Kind::Number(_) => return Err(wrong(&raw.node, &raw.path, "limits on metrics")),
    }
    Ok(found)
}

fn wrong(node: &Node, path: &str, expected: &str) -> Diagnostic {
    Diagnostic::new(&node.origin, path, format!("expected {expected}, found {}", node.describe())).hint(HINT)
}

fn words(node: &Node, path: &str, found: &mut Vec<StatedLimit>) -> Result<(), Diagnostic> {
    let Kind::Text(text) = &node.kind else {
        return Err(wrong(node, path, "a limit such as `ttft.p99<500`"));
    };
    let limit = |word: &str| StatedLimit {
        name: String::new(),
        value: word.to_owned(),
        origin: node.origin.clone(),
        path: path.to_owned(),
    };
    found.extend(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(limit));
    Ok(())
}

fn below(node: &Node, path: &str, name: &str, found: &mut Vec<StatedLimit>) -> Result<(), Diagnostic> {
    for (key, entry) in node.entries().into_iter().flatten() {
        let (node, path) = (&entry.value, join(path, key));
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        match &node.kind {
            Kind::Null => {}
            Kind::Map(_) => below(node, &path, &name, found)?,
            Kind::Number(value) | Kind::Text(value) => {
                found.push(StatedLimit { name, value: value.clone(), origin: node.origin.clone(), path });
            }
            Kind::Bool(_) | Kind::List(_) => return Err(wrong(node, &path, "a number, or a text such as `> 100`")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::parse_yaml;

    fn read(yaml: &str) -> Result<Vec<(String, String, String)>, Diagnostic> {
        let place = |line, column| Origin::File { path: "a.yaml".into(), line, column };
        let tree = parse_yaml(yaml, &place).unwrap().unwrap();
        let raw = Raw { node: tree.get("slo").unwrap().clone(), path: "slo".into() };
        Ok(stated(&raw)?.into_iter().map(|limit| (limit.name, limit.value, limit.path)).collect())
    }

    #[test]
    fn limits_are_names_with_values_or_words() {
        let own = |all: &[(&str, &str, &str)]| -> Vec<(String, String, String)> {
            all.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
        };
        assert_eq!(
            read("slo: {ttft: {p99: 500, mean: '< 9'}, output_throughput: '> 100', tpot: null}").unwrap(),
            own(&[
                ("ttft.p99", "500", "slo.ttft.p99"),
                ("ttft.mean", "< 9", "slo.ttft.mean"),
                ("output_throughput", "> 100", "slo.output_throughput"),
            ])
        );
        assert_eq!(read("slo: 'a<1, b<2'").unwrap(), own(&[("", "a<1", "slo"), ("", "b<2", "slo")]));
        assert_eq!(read("slo: ['a<1', 'b<2']").unwrap(), own(&[("", "a<1", "slo[1]"), ("", "b<2", "slo[2]")]));
        assert_eq!(read("slo: {}").unwrap(), []);
        assert_eq!(read("slo:").unwrap(), []);
        for (wrong, path) in
            [("slo: 5", "slo"), ("slo: true", "slo"), ("slo: [5]", "slo[1]"), ("slo: {ttft: [1]}", "slo.ttft")]
        {
            let trouble = read(wrong).unwrap_err();
            assert_eq!(
                (trouble.path.as_str(), trouble.origin.is_some(), trouble.hints.len()),
                (path, true, 1),
                "{wrong}"
            );
        }
    }
}

//! What MLflow takes: names, lengths, numbers of entries. What is more is cut or split here, so that nothing is refused. Pure.
//!
//! The limits are those of MLflow 2.8 to 3.17 (`mlflow/utils/validation.py`). An older server refuses longer values: they are cut again
//! ([`Batch::shortened`]) and sent once more.

use serde_json::{Value, json};

use crate::words::cut_chars;

/// Entries of one request in all.
const BATCH: usize = 1000;
/// Params of one request; and tags.
const BATCH_PARAMS: usize = 100;
/// Characters of a name.
const NAME: usize = 250;
/// Characters of a param's value: more is cut by the server.
const PARAM: usize = 6000;
/// Characters of a tag's value: the least that any server takes.
const TAG: usize = 5000;
/// Characters of a value that every server takes.
const SHORT: usize = 250;

/// A value of a metric at a step and a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its name.
    pub key: String,
    /// Finite.
    pub value: f64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Its step.
    pub step: i64,
}

/// A name and a value.
pub type Pair = (String, String);

/// A name as MLflow takes it: letters, digits, `_`, `-`, `.`, blanks, `:` and `/`, and none that means another path.
pub fn name(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "_-. :/".contains(c) { c } else { '_' };
    let text: String = text.chars().map(fit).collect();
    let parts = text.split('/').filter(|part| !["", ".", ".."].contains(part));
    let mut name = parts.collect::<Vec<_>>().join("/");
    if name.len() > NAME {
        // What is cut still differs.
        let digest = super::digest(text.as_bytes());
        name.truncate(NAME - 9);
        name = format!("{}_{}", name.trim_end_matches('/'), &digest[..8]);
    }
    if name.is_empty() { "_".to_owned() } else { name }
}

/// Entries whose names are fit and differ: a name that has been taken gets a number.
pub fn named(pairs: impl IntoIterator<Item = Pair>) -> Vec<Pair> {
    let mut taken = std::collections::HashSet::new();
    let mut all = Vec::new();
    for (key, value) in pairs {
        let plain = name(&key);
        let numbered = (2..).map(|n| format!("{}_{n}", &plain[..plain.len().min(NAME - 8)]));
        let key = std::iter::once(plain.clone()).chain(numbered).find(|key| taken.insert(key.clone()));
        all.push((key.unwrap_or(plain), value));
    }
    all
}

/// The value of a param.
pub fn param(text: &str) -> String {
    cut_chars(text, PARAM)
}

/// The value of a tag.
pub fn tag(text: &str) -> String {
    cut_chars(text, TAG)
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Metrics.
    pub points: Vec<Point>,
    /// Params.
    pub params: Vec<Pair>,
    /// Tags.
    pub tags: Vec<Pair>,
}

impl Batch {
    /// Everything in as few requests as the limits allow. Tags are last: where one says that all has been sent, all has.
    pub fn split(points: Vec<Point>, params: Vec<Pair>, tags: Vec<Pair>) -> Vec<Self> {
        let mut batches = vec![Self::default()];
        let full = |batch: &Batch, of: usize, most: usize| batch.len() >= BATCH || of >= most;
        for param in params {
            if batches.last().is_some_and(|last| full(last, last.params.len(), BATCH_PARAMS)) {
                batches.push(Self::default());
            }
            batches.last_mut().iter_mut().for_each(|last| last.params.push(param.clone()));
        }
        for point in points {
            if batches.last().is_some_and(|last| full(last, 0, 1)) {
                batches.push(Self::default());
            }
            batches.last_mut().iter_mut().for_each(|last| last.points.push(point.clone()));
        }
        for tag in tags {
            if batches.last().is_some_and(|last| full(last, last.tags.len(), BATCH_PARAMS)) {
                batches.push(Self::default());
            }
            batches.last_mut().iter_mut().for_each(|last| last.tags.push(tag.clone()));
        }
        batches.retain(|batch| batch.len() > 0);
        batches
    }

    fn len(&self) -> usize {
        self.points.len() + self.params.len() + self.tags.len()
    }

    /// The same with values that every server takes; `None` where they are short already.
    pub fn shortened(&self) -> Option<Self> {
        let is_long = |(_, value): &Pair| value.chars().nth(SHORT).is_some();
        let short = |(key, value): &Pair| (key.clone(), cut_chars(value, SHORT));
        self.params.iter().chain(&self.tags).any(is_long).then(|| Self {
            points: self.points.clone(),
            params: self.params.iter().map(short).collect(),
            tags: self.tags.iter().map(short).collect(),
        })
    }

    /// As the body of `runs/log-batch`.
    pub fn body(&self, run: &str) -> Value {
        json!({"run_id": run, "metrics": points(&self.points), "params": pairs(&self.params), "tags": pairs(&self.tags)})
    }
}

fn points(points: &[Point]) -> Vec<Value> {
    let one =
        |point: &Point| json!({"key": point.key, "value": point.value, "timestamp": point.at, "step": point.step});
    points.iter().map(one).collect()
}

/// Names and values as MLflow writes them.
pub fn pairs(pairs: &[Pair]) -> Vec<Value> {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_and_differ() {
        assert_eq!(name("serve.max-num-seqs"), "serve.max-num-seqs");
        assert_eq!(name("p99.9_ttft_ms"), "p99.9_ttft_ms");
        assert_eq!(name("a\"b\u{e9}%"), "a_b__");
        for (text, expected) in [("../x", "x"), ("a//b/./c/", "a/b/c"), ("..", "_"), ("", "_")] {
            assert_eq!(name(text), expected, "{text}");
        }
        let long = name(&"x".repeat(300));
        assert_eq!(long.len(), NAME);
        assert_ne!(long, name(&"x".repeat(301)));
        let keys = named(["a!", "a?", "a_"].map(|key| (key.to_owned(), String::new())));
        assert_eq!(keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a_", "a__2", "a__3"]);
        assert_eq!(tag(&"é".repeat(9000)).chars().count(), TAG);
    }

    proptest::proptest! {
        #[test]
        fn no_request_is_larger_than_the_limits_and_nothing_is_lost(points in 0..3000_usize, params in 0..350_usize, tags in 0..250_usize) {
            let pair = |n: usize| (n.to_string(), String::new());
            let all: Vec<Point> = (0..points).map(|n| Point { key: n.to_string(), value: 0.0, at: 0, step: 0 }).collect();
            let batches = Batch::split(all.clone(), (0..params).map(pair).collect(), (0..tags).map(pair).collect());
            for batch in &batches {
                proptest::prop_assert!(batch.len() <= BATCH && batch.params.len() <= 100 && batch.tags.len() <= 100);
            }
            let sent: Vec<Point> = batches.iter().flat_map(|batch| batch.points.clone()).collect();
            proptest::prop_assert_eq!(sent, all);
            proptest::prop_assert_eq!(batches.iter().map(|batch| batch.params.len()).sum::<usize>(), params);
            proptest::prop_assert_eq!(batches.iter().map(|batch| batch.tags.len()).sum::<usize>(), tags);
            // Nothing comes after the last tag.
            let last = batches.iter().rposition(|batch| !batch.tags.is_empty());
            proptest::prop_assert!(last.is_none_or(|last| last + 1 == batches.len()));
        }
    }

    #[test]
    fn values_of_old_servers_are_shorter() {
        let batch = Batch { params: vec![("a".into(), "x".repeat(600))], ..Batch::default() };
        let short = batch.shortened().unwrap();
        assert_eq!(short.params[0].1.chars().count(), SHORT);
        assert_eq!(short.shortened(), None);
    }
}

//! Further metrics of a row by their keys. A table may have a hundred thousand rows with two dozen of them each: those with a
//! fixed key lie in an array, without an allocation and without a copy of the key.

use std::borrow::Cow;

use super::vllm_metrics::Sparse;
use crate::model::DERIVED;

/// How many keys are fixed.
const FIXED: usize = DERIVED.len();

/// Metrics by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricValues {
    fixed: Sparse<FIXED>,
    /// In the order of their keys.
    others: Vec<(Cow<'static, str>, f64)>,
}

/// Where a metric lies.
#[derive(Debug, Clone, Copy)]
pub enum Place<'k> {
    /// In the array of fixed keys.
    Fixed(usize),
    /// Among the others.
    Other(&'k str),
}

impl<'k> Place<'k> {
    /// The place of a key.
    pub fn of(key: &'k str) -> Self {
        DERIVED.iter().position(|(known, ..)| *known == key).map_or(Place::Other(key), Place::Fixed)
    }
}

impl MetricValues {
    /// A metric.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.at(&Place::of(key))
    }

    /// The metric at a place.
    pub fn at(&self, place: &Place<'_>) -> Option<f64> {
        match place {
            Place::Fixed(index) => self.fixed.get(*index),
            Place::Other(key) => self.others.get(self.position(key).ok()?).map(|(_, value)| *value),
        }
    }

    /// Puts a metric in, in place of the one under its key.
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: f64) {
        let key = key.into();
        if let Place::Fixed(index) = Place::of(&key) {
            self.fixed.set(index, Some(value));
            return;
        }
        match self.position(&key) {
            Ok(at) => self.others[at].1 = value,
            Err(at) => self.others.insert(at, (key, value)),
        }
    }

    /// Puts a metric in, unless there is one under its key.
    pub fn insert_new(&mut self, key: impl Into<Cow<'static, str>>, value: f64) {
        let key = key.into();
        if self.get(&key).is_none() {
            self.insert(key, value);
        }
    }

    /// Puts many in, each in place of the one under its key.
    pub fn extend(&mut self, more: impl IntoIterator<Item = (Cow<'static, str>, f64)>) {
        more.into_iter().for_each(|(key, value)| self.insert(key, value));
    }

    /// Takes out what is under keys of this kind.
    pub fn remove(&mut self, is_gone: impl Fn(&str) -> bool) {
        for (index, (key, ..)) in DERIVED.into_iter().enumerate() {
            if self.fixed.get(index).is_some() && is_gone(key) {
                self.fixed.set(index, None);
            }
        }
        self.others.retain(|(key, _)| !is_gone(key));
    }

    /// Keys and metrics: those with a fixed key first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        let fixed = self.fixed.iter().zip(DERIVED).filter_map(|(value, (key, ..))| Some((key, value?)));
        fixed.chain(self.others.iter().map(|(key, value)| (key.as_ref(), *value)))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.others.binary_search_by(|(known, _)| known.as_ref().cmp(key))
    }
}

impl FromIterator<(String, f64)> for MetricValues {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(metrics: I) -> Self {
        let mut found = Self::default();
        found.extend(metrics.into_iter().map(|(key, value)| (key.into(), value)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_under_a_key_counts() {
        let mut metrics: MetricValues =
            [("b", 1.0), ("a", 2.0), ("b", 3.0)].map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a", 2.0), ("b", 3.0)]);
        metrics.extend([("c".into(), 4.0), ("a".into(), 5.0)]);
        metrics.insert_new("a", 6.0);
        metrics.insert_new("aa", 7.0);
        metrics.remove(|key| key == "b");
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a", 5.0), ("aa", 7.0), ("c", 4.0)]);
        assert_eq!((metrics.get("c"), metrics.get("b")), (Some(4.0), None));
    }

    #[test]
    fn fixed_keys_are_as_others() {
        let mut metrics = MetricValues::default();
        metrics.extend([("x".into(), 1.0), ("speedup".into(), 2.0), ("devices".into(), 4.0)]);
        metrics.insert_new("speedup", 3.0);
        metrics.insert("devices", 8.0);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("speedup", 2.0), ("devices", 8.0), ("x", 1.0)]);
        metrics.remove(|key| key == "speedup");
        assert_eq!((metrics.get("speedup"), metrics.get("devices"), metrics.get("x")), (None, Some(8.0), Some(1.0)));
    }
}

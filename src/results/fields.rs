//! The plain values of one result. A directory may hold ten thousand results of thirty each, and every one is asked a few times
//! and let go: the keys lie in one text, and are looked for in the order in which they stand.

use serde_json::Value;

use crate::analyse::VllmMetrics;
use crate::model::{Unit, VllmMetric};
use crate::record::ResultValues;

/// Latencies without which a result is none: whether they are there is asked of the JSON.
const AS_JSON: [VllmMetric; 2] = [VllmMetric::MeanTtft, VllmMetric::MeanTpot];

/// Values by key.
#[derive(Debug, Default)]
pub(super) struct Values {
    keys: String,
    /// A tag of each key: keys with different tags differ.
    tags: Vec<u64>,
    /// Where each key ends, and its value.
    members: Vec<(usize, Value)>,
    metrics: VllmMetrics,
    /// The metric that is likely the next: most files are in vLLM's order.
    next: usize,
}

impl Values {
    /// Puts a value in; of several under one key the last one counts. Most metrics are held as numbers alone, in
    /// [`Self::metrics`].
    pub fn push(&mut self, key: &str, value: Value) {
        let likely = VllmMetric::ALL.get(self.next).copied().filter(|metric| metric.key() == key);
        if let Some(metric) = likely.or_else(|| VllmMetric::of(key)) {
            self.next = metric as usize + 1;
            self.metrics.set(metric, value.as_f64());
            if value.is_number() && !AS_JSON.contains(&metric) && metric.unit() == Unit::Milliseconds {
                return;
            }
        }
        if self.members.is_empty() {
            // As much as vLLM's client writes.
            self.keys.reserve(768);
            self.members.reserve(40);
            self.tags.reserve(40);
        }
        self.keys.push_str(key);
        self.tags.push(tag(key));
        self.members.push((self.keys.len(), value));
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let wanted = tag(key);
        let alike = self.tags.iter().enumerate().rev().filter(|(_, tag)| **tag == wanted);
        alike.map(|(i, _)| i).find(|i| self.key(*i) == Some(key)).map(|i| &self.members[i].1)
    }

    fn key(&self, member: usize) -> Option<&str> {
        self.keys.get(self.begin(member)..self.members.get(member)?.0)
    }

    /// The metrics under vLLM's names.
    pub fn metrics(&self) -> VllmMetrics {
        self.metrics
    }

    /// Takes a metric for not known, whatever the file says.
    pub fn forget(&mut self, metric: VllmMetric) {
        self.metrics.set(metric, None);
    }

    /// Whether there is one.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values as they stand in the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let pairs = self.members.iter().enumerate();
        pairs.filter_map(|(i, (_, value))| Some((self.key(i)?, value)))
    }

    fn begin(&self, member: usize) -> usize {
        member.checked_sub(1).map_or(0, |before| self.members[before].0)
    }
}

/// The first and the last eight bytes of a key, mixed with its length.
fn tag(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    number(bytes.first_chunk()).rotate_left(17) ^ number(bytes.last_chunk()) ^ bytes.len() as u64
}

impl ResultValues for Values {
    fn value(&self, key: &str) -> Option<&Value> {
        self.get(key)
    }
    fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64).or_else(|| self.metrics.get(VllmMetric::of(key)?))
    }
    fn each_time(&self, take: &mut dyn FnMut(&str, f64)) {
        let times = VllmMetric::ALL.into_iter().filter(|metric| metric.unit() == Unit::Milliseconds);
        times
            .filter_map(|metric| Some((metric.key(), self.metrics.get(metric)?)))
            .for_each(|(key, value)| take(key, value));
        let others = self.iter().filter(|(key, _)| key.ends_with("_ms") && VllmMetric::of(key).is_none());
        others.filter_map(|(key, value)| Some((key, value.as_f64()?))).for_each(|(key, value)| take(key, value));
    }
}

impl FromIterator<(String, Value)> for Values {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(members: I) -> Self {
        let mut values = Self::default();
        members.into_iter().for_each(|(key, value)| values.push(&key, value));
        values
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::results::fields::*;

    #[test]
    fn keys_are_told_apart_and_the_last_one_counts() {
        let members = [("a", json!(1)), ("ab", json!("x")), ("", json!(null)), ("b", json!(2)), ("a", json!(3))];
        let values: Values = members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let found = ["a", "ab", "", "b", "aa", "xa"].map(|key| values.get(key).cloned());
        assert_eq!(found, [Some(json!(3)), Some(json!("x")), Some(json!(null)), Some(json!(2)), None, None]);
        assert_eq!(values.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "ab", "", "b", "a"]);
    }

    #[test]
    fn metrics_are_numbers_in_any_order() {
        let members = [
            ("median_ttft_ms", json!(2.5)),
            ("mean_ttft_ms", json!(3)),
            ("completed", json!(7)),
            ("p99_itl_ms", json!("x")),
            ("p99_tpot_ms", json!(1)),
            ("p99_tpot_ms", json!(null)),
        ];
        let values: Values = members.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let of = |metric| values.metrics().get(metric);
        let found = [
            VllmMetric::MedianTtft,
            VllmMetric::MeanTtft,
            VllmMetric::Completed,
            VllmMetric::P99Itl,
            VllmMetric::P99Tpot,
        ]
        .map(of);
        assert_eq!(found, [Some(2.5), Some(3.0), Some(7.0), None, None]);
        assert_eq!((values.get("mean_ttft_ms"), values.get("median_ttft_ms")), (Some(&json!(3)), None));
    }
}

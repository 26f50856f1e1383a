//! What a metric is, by its key: vLLM's keys of a result, its percentiles (`p95_ttft_ms`), and what is derived from them. Every
//! flag that takes a metric (`--objective`, axes of plots), every heading and every unit asks here.

use super::vllm_metric::{DERIVED, startup_phase};
use super::{Better, Unit, VllmMetric};

/// A metric that a row may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its key.
    pub key: String,
    /// In words.
    pub label: String,
    /// What it counts.
    pub unit: Unit,
    /// Which direction is better; `None` for what only describes.
    pub better: Option<Better>,
}

/// The latencies of vLLM that have statistics: part of the key, in words.
const LATENCIES: [(&str, &str); 4] = [("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2el", "E2E latency")];

impl Metric {
    /// The metric with this key; `None` where there is none.
    pub fn of(key: &str) -> Option<Self> {
        let metric = |label: String, unit, better| Self { key: key.to_owned(), label, unit, better };
        if let Some(known) = VllmMetric::of(key) {
            return Some(metric(known.label().to_owned(), known.unit(), known.better()));
        }
        if let Some((_, label, unit, better)) = DERIVED.into_iter().find(|(known, ..)| *known == key) {
            return Some(metric(label.to_owned(), unit, better));
        }
        if let Some(phase) = startup_phase(key) {
            return Some(metric(format!("Server start: {}", phase.label()), Unit::Seconds, Some(Better::Lower)));
        }
        let (percentile, latency) = percentile_of(key)?;
        let (_, words) = LATENCIES.into_iter().find(|(name, _)| *name == latency)?;
        Some(metric(format!("P{percentile} {words}"), Unit::Milliseconds, Some(Better::Lower)))
    }

    /// The keys with a fixed name, vLLM's first.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        VllmMetric::ALL.into_iter().map(VllmMetric::key).chain(DERIVED.into_iter().map(|(key, ..)| key))
    }

    /// The percentile that it is, as a part of 1, and the latency (`ttft`) that it is of; `None` for any other metric.
    pub fn quantile(key: &str) -> Option<(f64, &str)> {
        if let Some(latency) = key.strip_prefix("median_").and_then(|rest| rest.strip_suffix("_ms")) {
            return Some((0.5, latency));
        }
        let (percentile, latency) = percentile_of(key)?;
        Some((percentile.parse::<f64>().ok()? / 100.0, latency))
    }

    /// Whether it is a throughput of the whole server, which more devices make larger.
    pub fn is_of_all_devices(key: &str) -> bool {
        key.ends_with("_throughput") || key == "request_goodput"
    }
}

/// `p99.9_ttft_ms` as `99.9` and `ttft`.
fn percentile_of(key: &str) -> Option<(&str, &str)> {
    let (percentile, latency) = key.strip_prefix('p')?.strip_suffix("_ms")?.rsplit_once('_')?;
    let number: f64 = percentile.parse().ok()?;
    let known = LATENCIES.into_iter().any(|(name, _)| name == latency);
    (known && (0.0..=100.0).contains(&number)).then_some((percentile, latency))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_words_unit_and_direction() {
        let of = |key| Metric::of(key).map(|metric| (metric.label, metric.unit, metric.better));
        assert_eq!(
            of("output_throughput"),
            Some(("Output throughput".into(), Unit::TokensPerSecond, Some(Better::Higher)))
        );
        assert_eq!(of("p99.9_e2el_ms"), Some(("P99.9 E2E latency".into(), Unit::Milliseconds, Some(Better::Lower))));
        assert_eq!(of("completed"), Some(("Completed requests".into(), Unit::Requests, None)));
        assert_eq!(
            of("gpu_days_to_process_1b_tokens").map(|(_, unit, better)| (unit, better)),
            Some((Unit::DeviceDays, Some(Better::Lower)))
        );
        assert_eq!(
            of("startup_starting_api_s").map(|(label, ..)| label),
            Some("Server start: starting the API".into())
        );
        for wrong in ["", "p", "p_ms", "p101_ttft_ms", "pinf_ttft_ms", "p99_x_ms", "ttft", "p99_ttft", "startup_x_s"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_fixed_key_is_known_and_none_twice() {
        let keys: Vec<&str> = Metric::keys().collect();
        let distinct: std::collections::BTreeSet<&str> = keys.iter().copied().collect();
        assert_eq!(keys.len(), distinct.len());
        assert!(keys.iter().all(|key| Metric::of(key).is_some_and(|metric| metric.key == **key)));
    }

    #[test]
    fn percentiles_say_which_they_are() {
        assert_eq!(Metric::quantile("p95_tpot_ms"), Some((0.95, "tpot")));
        assert_eq!(Metric::quantile("median_ttft_ms"), Some((0.5, "ttft")));
        assert_eq!(Metric::quantile("mean_ttft_ms"), None);
    }
}

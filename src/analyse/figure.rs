//! What a figure is, by its key: vLLM's keys of a result, its percentiles (`p95_ttft_ms`), and what is derived from them. Every
//! flag that takes a figure (`--rank-by`, axes of plots), every heading and every unit asks here.

use super::{Better, Metric, Unit};

/// A figure that a row may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
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

impl Figure {
    /// The figure with this key; `None` where there is none.
    pub fn of(key: &str) -> Option<Self> {
        if let Some(metric) = Metric::ALL.into_iter().find(|metric| metric.key() == key) {
            return Some(Self {
                key: key.to_owned(),
                label: metric.label().to_owned(),
                unit: metric.unit(),
                better: metric.better(),
            });
        }
        let (percentile, latency) = key.strip_prefix('p')?.strip_suffix("_ms")?.rsplit_once('_')?;
        let (_, words) = LATENCIES.into_iter().find(|(name, _)| *name == latency)?;
        let number: f64 = percentile.parse().ok()?;
        (0.0..=100.0).contains(&number).then(|| Self {
            key: key.to_owned(),
            label: format!("P{percentile} {words}"),
            unit: Unit::Milliseconds,
            better: Some(Better::Lower),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_words_unit_and_direction() {
        let of = |key| Figure::of(key).map(|figure| (figure.label, figure.unit, figure.better));
        assert_eq!(
            of("output_throughput"),
            Some(("Output throughput".into(), Unit::TokensPerSecond, Some(Better::Higher)))
        );
        assert_eq!(of("p99.9_e2el_ms"), Some(("P99.9 E2E latency".into(), Unit::Milliseconds, Some(Better::Lower))));
        assert_eq!(of("completed"), Some(("Completed requests".into(), Unit::Requests, None)));
        for wrong in ["", "p", "p_ms", "p101_ttft_ms", "pinf_ttft_ms", "p99_x_ms", "ttft", "p99_ttft"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}

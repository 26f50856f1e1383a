//! Mean, median, standard deviation and percentiles, as numpy computes them.

use serde::Serialize;

use crate::stats;

/// One metric over all requests, in milliseconds. All 0 when there is no sample, as vLLM does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation of the population.
    pub std: f64,
    /// Percentiles that were asked for, as (which, value).
    pub percentiles: Vec<(f64, f64)>,
}

impl Summary {
    /// Over values in any order, which are sorted.
    pub fn of(values: &mut [f64], percentiles: &[f64]) -> Self {
        values.sort_by(f64::total_cmp);
        if values.is_empty() {
            return Self { percentiles: percentiles.iter().map(|which| (*which, 0.0)).collect(), ..Self::default() };
        }
        let mean = stats::mean(values.iter().copied()).unwrap_or_default();
        let variance = stats::mean(values.iter().map(|value| (value - mean).powi(2))).unwrap_or_default();
        Self {
            mean,
            median: percentile(values, 50.0),
            std: variance.sqrt(),
            percentiles: percentiles.iter().map(|which| (*which, percentile(values, *which))).collect(),
        }
    }
}

/// The percentile of sorted samples; 0 of none.
pub fn percentile(sorted: &[f64], which: f64) -> f64 {
    stats::quantile(sorted, which / 100.0).unwrap_or_default()
}

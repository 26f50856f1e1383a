//! Intervals of the percentiles of rows whose result has each request (`--save-detailed`). Read only when asked for.

use std::collections::BTreeMap;

use super::load_requests;
use crate::analyse::{Figure, Metric, QuantileInterval, Requests, Row, RunTable, quantile_interval};

/// Adds them where each request is known; a result without is left as it is. Intervals between tokens are not independent of each
/// other, so that they get none.
pub fn add_quantiles(table: &mut RunTable) {
    for row in table.rows.iter_mut().filter(|row| row.is_valid()) {
        if let Ok(Some(requests)) = load_requests(row) {
            row.about.quantiles = intervals(row, requests);
        }
    }
}

fn intervals(row: &Row, requests: Requests) -> BTreeMap<String, QuantileInterval> {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let lists =
        [("ttft", sorted(requests.ttft_ms)), ("tpot", sorted(requests.tpot_ms)), ("e2el", sorted(requests.e2el_ms))];
    let known = Metric::ALL.into_iter().filter(|metric| row.metrics.get(*metric).is_some());
    let known: Vec<String> =
        known.map(|metric| metric.key().to_owned()).chain(row.about.figures.keys().map(str::to_owned)).collect();
    let interval = |key: String| {
        let (q, latency) = Figure::quantile(&key)?;
        let (_, values) = lists.iter().find(|(name, _)| *name == latency)?;
        let interval = quantile_interval(values, q)?;
        Some((key, interval))
    };
    known.into_iter().filter_map(interval).collect()
}

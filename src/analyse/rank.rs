//! Rows of the same settings, and their measurements by server start.

use indexmap::IndexMap;

use super::Row;
use super::inference::over_starts;
use crate::model::{Identity, VllmMetric};

/// The metrics that every screen shows, in the order of the reports.
pub const RANKED: [VllmMetric; 4] =
    [VllmMetric::RequestThroughput, VllmMetric::OutputThroughput, VllmMetric::MeanTtft, VllmMetric::MeanTpot];

/// The measurements of a metric by server start; `None` where none has it.
pub fn starts_of(rows: &[&Row], metric: VllmMetric) -> Option<Vec<Vec<f64>>> {
    starts_by(rows, metric.key())
}

/// The same of a metric by its key.
pub fn starts_by(rows: &[&Row], key: &str) -> Option<Vec<Vec<f64>>> {
    let mut starts: IndexMap<u32, Vec<f64>> = IndexMap::new();
    for row in rows {
        if let Some(value) = row.metric(key) {
            starts.entry(row.repeat.map_or(1, |repeat| repeat.start)).or_default().push(value);
        }
    }
    (!starts.is_empty()).then(|| starts.into_values().collect())
}

/// The mean over server starts of a metric by its key, as in every answer; `None` where no row has it.
pub fn mean_over_starts(rows: &[&Row], key: &str) -> Option<f64> {
    starts_by(rows, key).and_then(|starts| over_starts(&starts)).map(|of| of.mean)
}

/// The same, where every row has the metric; `None` where one has not.
pub(super) fn starts_of_rows(rows: &[&Row], key: &str) -> Option<Vec<Vec<f64>>> {
    rows.iter().all(|row| row.metric(key).is_some()).then(|| starts_by(rows, key)).flatten()
}

/// The rows of each setting; repeats of the same settings are one.
pub fn settings<'a>(rows: &[&'a Row]) -> Vec<Vec<&'a Row>> {
    /// What rows share that are repeats of each other.
    #[derive(PartialEq, Eq, Hash)]
    enum Key<'k> {
        Repeated(&'k Identity),
        Alone(usize),
    }
    let mut settings: IndexMap<Key<'_>, Vec<&'a Row>> = IndexMap::new();
    for (i, row) in rows.iter().enumerate() {
        let key = match (&row.identity, row.repeat) {
            (Some(identity), Some(_)) => Key::Repeated(identity),
            (Some(_) | None, _) => Key::Alone(i),
        };
        settings.entry(key).or_default().push(row);
    }
    settings.into_values().collect()
}

//! A table with its answers, and what formats take from its rows.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::analyse::{Answer, BY_MODEL, RankingSpec, Row, RunTable, answers, samples_beyond};
use crate::model::{Metric, VllmMetric};

/// A table with its answers, which are computed once and shown by every format.
#[derive(Debug)]
pub struct Analysis<'a> {
    /// All rows.
    pub table: &'a RunTable,
    /// The objective, and within which limits.
    pub wanted: RankingSpec,
    /// The keys that the user groups by; none = by model.
    pub group_by: Vec<String>,
    /// What the user calls it; `None` = by its run.
    pub title: Option<String>,
    answers: OnceLock<Vec<Answer<'a>>>,
}

impl<'a> Analysis<'a> {
    /// By what its runs ask for, for each model and workload.
    pub fn of(table: &'a RunTable) -> Self {
        Self::by(table, Vec::new(), RankingSpec::of(table))
    }

    /// By these keys and this objective.
    pub fn by(table: &'a RunTable, group_by: Vec<String>, wanted: RankingSpec) -> Self {
        Self { table, wanted, group_by, title: None, answers: OnceLock::new() }
    }

    /// Of each group by itself.
    pub fn answers(&self) -> &[Answer<'a>] {
        self.answers.get_or_init(|| match self.group_by.as_slice() {
            [] => answers(self.table, &[BY_MODEL.to_owned()], &self.wanted),
            keys => answers(self.table, keys, &self.wanted),
        })
    }
}

/// Every metric of a row: key and value, vLLM's first.
pub(super) fn metrics(row: &Row) -> impl Iterator<Item = (&str, f64)> {
    let metrics = VllmMetric::ALL.into_iter().filter_map(|metric| Some((metric.key(), row.metrics.get(metric)?)));
    metrics.chain(row.about.further.iter())
}

/// The keys of all metrics that any row has: those with a fixed name in their order, then the others.
pub(super) fn metric_keys(rows: &[Row]) -> Vec<String> {
    let there: BTreeSet<&str> = rows.iter().flat_map(|row| metrics(row).map(|(key, _)| key)).collect();
    let fixed: Vec<&str> = Metric::keys().filter(|key| there.contains(key)).collect();
    let others = there.iter().filter(|key| !fixed.contains(*key)).copied();
    fixed.iter().copied().chain(others).map(str::to_owned).collect()
}

/// How many requests lie at or beyond a percentile of a row; `None` where it is no percentile of requests, or their number is not known.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
pub(super) fn requests_under(row: &Row, key: &str) -> Option<u64> {
    let (q, latency) = Metric::quantile(key)?;
    let completed = row.metrics.get(VllmMetric::Completed).filter(|completed| *completed >= 0.0)?;
    // Intervals between tokens are no requests, and those of one answer are not independent.
    (latency != "itl").then(|| samples_beyond(completed as u64, q))
}

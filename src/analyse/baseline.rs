//! Every configuration against the one that the sweep calls its baseline.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{Metric, Row, load_labels};

/// One configuration against the baseline of its model and load.
#[derive(Debug, Clone, PartialEq)]
pub struct Against<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// The first measurement of the baseline.
    pub baseline: &'a Row,
    /// Mean output throughput over the baseline's; above 1 = faster.
    pub output_throughput: Option<f64>,
    /// Mean TTFT over the baseline's; below 1 = faster.
    pub ttft: Option<f64>,
    /// Mean TPOT over the baseline's; below 1 = faster.
    pub tpot: Option<f64>,
}

/// Compares valid rows with the baseline of the same model and load: the first of several that has a valid result, in
/// the order of the plan. Repeats count with their mean.
pub fn against_baseline<'a>(rows: &[&'a Row]) -> Vec<Against<'a>> {
    let mut settings: IndexMap<(&str, String, String), Vec<&'a Row>> = IndexMap::new();
    let labels = load_labels(rows);
    for ((i, row), load) in rows.iter().enumerate().zip(labels).filter(|((_, row), _)| row.is_valid()) {
        let identity = row.identity.as_ref().map_or_else(|| i.to_string(), ToString::to_string);
        settings.entry((row.axes.model.as_str(), load, identity)).or_default().push(row);
    }
    let mut baselines: HashMap<(&str, &str), &Vec<&'a Row>> = HashMap::new();
    for ((model, load, _), rows) in &settings {
        if rows.iter().any(|row| row.baseline) {
            baselines.entry((model, load.as_str())).or_insert(rows);
        }
    }
    let mut compared = Vec::new();
    for ((model, load, _), measured) in &settings {
        let Some(baseline) = baselines.get(&(*model, load.as_str())) else { continue };
        let (Some(row), Some(first)) = (measured.first(), baseline.first()) else { continue };
        if row.identity == first.identity {
            continue;
        }
        let ratio = |metric| Some(mean(measured, metric)? / mean(baseline, metric).filter(|value| *value > 0.0)?);
        compared.push(Against {
            row,
            baseline: first,
            output_throughput: ratio(Metric::OutputThroughput),
            ttft: ratio(Metric::MeanTtft),
            tpot: ratio(Metric::MeanTpot),
        });
    }
    compared
}

fn mean(rows: &[&Row], metric: Metric) -> Option<f64> {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.metrics.get(metric)).collect();
    #[expect(clippy::cast_precision_loss, reason = "repeats are few")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;
    use crate::plan::{Context, Engine, Sweep, expand, fixture::axis};

    #[test]
    fn a_configuration_is_compared_with_the_first_baseline_that_works() {
        let mut sweep = Sweep::new(Engine::Vllm);
        sweep.context = Context::default();
        sweep.groups.push(crate::plan::Group {
            serve: vec![axis("model", "a"), axis("tensor-parallel-size", "1,2,4")],
            ..crate::plan::Group::default()
        });
        let identities: Vec<_> = expand(&sweep).experiments.into_iter().map(|e| e.identity).collect();
        let mut rows = [row("a", 1, 1.0, 8.0), row("a", 2, 1.0, 10.0), row("a", 4, 1.0, 5.0)];
        for (row, identity) in rows.iter_mut().zip(identities) {
            row.identity = Some(identity);
        }
        (rows[0].baseline, rows[1].baseline) = (true, true);
        rows[0].status = super::super::Status::NotRun;
        let rows: Vec<&Row> = rows.iter().collect();
        let against = against_baseline(&rows);
        assert_eq!(against.len(), 1);
        assert_eq!((against[0].row.name.as_str(), against[0].baseline.name.as_str()), ("a_tp4", "a_tp2"));
        assert_eq!((against[0].ttft, against[0].tpot), (Some(0.5), None));
    }
}

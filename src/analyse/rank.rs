//! Which row is best by which figure. Only valid rows are asked, and all that tie are named.

use indexmap::IndexMap;

use super::table::group_by_model;
use super::{Better, Metric, Row};

/// The figures by which rows are ranked, in the order of the reports.
pub const RANKED: [Metric; 4] =
    [Metric::RequestThroughput, Metric::OutputThroughput, Metric::MeanTtft, Metric::MeanTpot];

/// The best by one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Best<'a> {
    /// By which figure.
    pub metric: Metric,
    /// The best value: the mean over the repeats of the same settings.
    pub value: f64,
    /// Of every setting that has it, the first measurement.
    pub rows: Vec<&'a Row>,
    /// How many measurements the value is the mean of.
    pub measurements: usize,
}

/// The best of some rows that share a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking<'a> {
    /// The model; `None` over all models.
    pub model: Option<&'a str>,
    /// What the load has of its own among the loads of the sweep; empty where there is one load.
    pub workload: String,
    /// The best by every ranked figure that is known.
    pub bests: Vec<Best<'a>>,
}

/// The best of these rows by one figure; `None` where no valid row has it, or it has no better direction. Repeats of the
/// same settings count as one, with their mean: the luckiest of them proves nothing.
pub fn best<'a>(rows: &[&'a Row], metric: Metric) -> Option<Best<'a>> {
    let better = metric.better()?;
    let mut settings: IndexMap<String, (&'a Row, Vec<f64>)> = IndexMap::new();
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.is_valid()) {
        if let Some(value) = row.metrics.get(metric) {
            let key = match (&row.identity, row.repeat) {
                (Some(identity), Some(_)) => identity.to_string(),
                (Some(_) | None, _) => i.to_string(),
            };
            settings.entry(key).or_insert_with(|| (row, Vec::new())).1.push(value);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "repeats are few")]
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let value = settings.values().map(|(_, values)| mean(values)).reduce(|a, b| match better {
        Better::Higher => a.max(b),
        Better::Lower => a.min(b),
    })?;
    #[expect(clippy::float_cmp, reason = "a tie is the very same figure")]
    let tied: Vec<&(&Row, Vec<f64>)> = settings.values().filter(|(_, values)| mean(values) == value).collect();
    let measurements = tied.first().map_or(0, |(_, values)| values.len());
    Some(Best { metric, value, rows: tied.into_iter().map(|(row, _)| *row).collect(), measurements })
}

fn bests<'a>(rows: &[&'a Row]) -> Vec<Best<'a>> {
    RANKED.into_iter().filter_map(|metric| best(rows, metric)).collect()
}

/// The best over all models, for each load by itself.
pub fn best_overall<'a>(rows: &[&'a Row]) -> Vec<Ranking<'a>> {
    by_load(None, rows)
}

/// The best of each model, for each load by itself; models without a valid row are left out.
pub fn best_by_model<'a>(rows: &[&'a Row]) -> Vec<Ranking<'a>> {
    group_by_model(rows.iter().copied()).into_iter().flat_map(|(model, rows)| by_load(Some(model), &rows)).collect()
}

fn by_load<'a>(model: Option<&'a str>, rows: &[&'a Row]) -> Vec<Ranking<'a>> {
    let mut loads: IndexMap<String, Vec<&'a Row>> = IndexMap::new();
    for row in rows {
        loads.entry(row.axes.workload_label()).or_default().push(row);
    }
    let rank = |(workload, rows): (String, Vec<&'a Row>)| Ranking { model, workload, bests: bests(&rows) };
    loads.into_iter().map(rank).filter(|ranking| !ranking.bests.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::table::tests::row;
    use super::*;

    fn names(best: Option<Best<'_>>) -> Vec<String> {
        best.map(|best| best.rows.iter().map(|row| row.name.clone()).collect()).unwrap_or_default()
    }

    #[test]
    fn throughput_is_best_when_high_and_latency_when_low() {
        let rows = [row("a", 2, 1.0, 10.0), row("a", 4, 2.0, 20.0)];
        let rows: Vec<&Row> = rows.iter().collect();
        assert_eq!(names(best(&rows, Metric::RequestThroughput)), ["a_tp4"]);
        assert_eq!(names(best(&rows, Metric::MeanTtft)), ["a_tp2"]);
        assert_eq!(best(&rows, Metric::MeanTpot), None);
        assert_eq!(best(&rows, Metric::Completed), None);
    }

    #[test]
    fn all_that_tie_are_named() {
        let rows = [row("a", 2, 3.0, 1.0), row("b", 2, 3.0, 2.0), row("c", 2, 1.0, 1.0)];
        let rows: Vec<&Row> = rows.iter().collect();
        assert_eq!(names(best(&rows, Metric::RequestThroughput)), ["a_tp2", "b_tp2"]);
        assert_eq!(names(best(&rows, Metric::MeanTtft)), ["a_tp2", "c_tp2"]);
    }

    #[test]
    fn a_row_that_is_not_valid_is_never_best() {
        let mut rows = [row("a", 2, 9.0, 1.0), row("b", 2, 1.0, 5.0)];
        rows[0].status = Status::Invalid("torn".into());
        let rows: Vec<&Row> = rows.iter().collect();
        assert_eq!(names(best(&rows, Metric::RequestThroughput)), ["b_tp2"]);
        let by_model = best_by_model(&rows);
        assert_eq!(by_model.iter().map(|ranking| ranking.model).collect::<Vec<_>>(), [Some("b")]);
    }
}

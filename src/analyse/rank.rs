//! Which row is best by which figure. Only valid rows are asked, and all that tie are named.

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
    /// The best value.
    pub value: f64,
    /// Every row that has it.
    pub rows: Vec<&'a Row>,
}

/// The best of these rows by one figure; `None` where no valid row has it, or it has no better direction.
pub fn best<'a>(rows: &[&'a Row], metric: Metric) -> Option<Best<'a>> {
    let better = metric.better()?;
    let known = || rows.iter().filter(|row| row.is_valid()).filter_map(|row| Some((*row, row.metrics.get(metric)?)));
    let value = known().map(|(_, value)| value).reduce(|a, b| match better {
        Better::Higher => a.max(b),
        Better::Lower => a.min(b),
    })?;
    #[expect(clippy::float_cmp, reason = "a tie is the very same figure")]
    let rows = known().filter(|(_, figure)| *figure == value).map(|(row, _)| row).collect();
    Some(Best { metric, value, rows })
}

/// The best of these rows by every ranked figure that is known.
pub fn best_overall<'a>(rows: &[&'a Row]) -> Vec<Best<'a>> {
    RANKED.into_iter().filter_map(|metric| best(rows, metric)).collect()
}

/// The best of each model; models without a valid row are left out.
pub fn best_by_model<'a>(rows: &[&'a Row]) -> Vec<(&'a str, Vec<Best<'a>>)> {
    group_by_model(rows.iter().copied())
        .into_iter()
        .map(|(model, rows)| (model, best_overall(&rows)))
        .filter(|(_, bests)| !bests.is_empty())
        .collect()
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
        assert_eq!(by_model.iter().map(|(model, _)| *model).collect::<Vec<_>>(), ["b"]);
    }
}

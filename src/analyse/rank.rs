//! Which row is best by which figure. Only valid rows are asked, and all that tie are named.

use indexmap::IndexMap;

use super::table::group_by_model;
use super::{Basis, Better, Candidate, Metric, Row, decide, load_labels};
use crate::plan::Identity;

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
    /// Every setting that cannot be told from the one with the best mean (its first measurement) with its own mean; where
    /// nothing was repeated, those that tie. The recommended one first: fewer devices, then fewer flags, then the better mean.
    pub rows: Vec<(&'a Row, f64)>,
    /// How many measurements the best mean is the mean of.
    pub measurements: usize,
    /// What the choice rests on.
    pub basis: Basis,
    /// Relative standard deviation between repeats, where there are any.
    pub noise: Option<f64>,
    /// Repeats of each that would tell the first two of the set apart.
    pub repeats_needed: Option<usize>,
    /// Rows that have a better figure and a doubt that bars them.
    pub barred: usize,
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

/// The measurements of a figure by server start; `None` where none has it.
pub fn starts_of(rows: &[&Row], metric: Metric) -> Option<Vec<Vec<f64>>> {
    starts_by(rows, metric.key())
}

/// The same of a figure by its key.
pub fn starts_by(rows: &[&Row], key: &str) -> Option<Vec<Vec<f64>>> {
    let mut starts: IndexMap<u32, Vec<f64>> = IndexMap::new();
    for row in rows {
        if let Some(value) = row.figure(key) {
            starts.entry(row.repeat.map_or(1, |repeat| repeat.start)).or_default().push(value);
        }
    }
    (!starts.is_empty()).then(|| starts.into_values().collect())
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

/// The best of these rows by one figure; `None` where no valid row has it, or it has no better direction. Repeats of the
/// same settings count as one, with their mean: the luckiest of them proves nothing.
pub fn best<'a>(rows: &[&'a Row], metric: Metric) -> Option<Best<'a>> {
    let better = metric.better()?;
    let has = |row: &&&Row| row.metrics.get(metric).is_some();
    let believed: Vec<&Row> = rows.iter().filter(|row| row.may_be_best()).filter(has).copied().collect();
    let valid: Vec<&Row> = rows.iter().filter(|row| row.is_valid()).filter(has).copied().collect();
    // Where all are doubtful there is still one that is best, and its doubts are told.
    let asked = if believed.is_empty() { &valid } else { &believed };
    if asked.iter().all(|row| row.identity.is_none() || row.repeat.is_none()) {
        let barred = if believed.is_empty() { &[][..] } else { &valid };
        return best_of_single(asked, barred, metric, better);
    }
    let settings = settings(asked);
    let starts: Vec<Vec<Vec<f64>>> = settings.iter().filter_map(|rows| starts_of(rows, metric)).collect();
    let mean = |starts: &[Vec<f64>]| {
        let all: Vec<f64> = starts.concat();
        #[expect(clippy::cast_precision_loss, reason = "repeats are few")]
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        mean
    };
    let means: Vec<f64> = starts.iter().map(|starts| mean(starts)).collect();
    let order = |a: f64, b: f64| match better {
        Better::Higher => a.max(b),
        Better::Lower => a.min(b),
    };
    let value = means.iter().copied().reduce(order)?;
    let candidates: Vec<Candidate> = settings
        .iter()
        .zip(&starts)
        .map(|(rows, starts)| Candidate {
            starts: starts.clone(),
            devices: rows.first().and_then(|row| row.about.devices).unwrap_or(u32::MAX),
            overrides: rows.first().map_or(0, |row| row.about.overrides),
        })
        .collect();
    let decision = decide(&candidates, better, None).filter(|decision| decision.basis != Basis::Single);
    let first = |index: usize| Some((*settings.get(index)?.first()?, *means.get(index)?));
    #[expect(clippy::float_cmp, reason = "a tie is the very same figure")]
    let tied = || (0..means.len()).filter(|index| means[*index] == value).filter_map(first).collect();
    let leader = decision.as_ref().map_or_else(|| means.iter().position(|mean| *mean == value), |d| Some(d.leader))?;
    let barred = valid.iter().filter(|row| !row.may_be_best()).filter_map(|row| row.metrics.get(metric));
    Some(Best {
        metric,
        value: means[leader],
        rows: decision.as_ref().map_or_else(tied, |decision| decision.set.iter().copied().filter_map(first).collect()),
        measurements: starts[leader].iter().map(Vec::len).sum(),
        basis: decision.as_ref().map_or(Basis::Single, |decision| decision.basis),
        noise: decision.as_ref().and_then(|decision| decision.noise),
        repeats_needed: decision.and_then(|decision| decision.repeats_needed),
        barred: if believed.is_empty() { 0 } else { barred.filter(|other| order(*other, value) == *other).count() },
    })
}

/// The best where nothing was measured more than once, as [`best`] finds it, without looking for repeats in thousands of rows.
fn best_of_single<'a>(asked: &[&'a Row], valid: &[&Row], metric: Metric, better: Better) -> Option<Best<'a>> {
    let order = |a: f64, b: f64| match better {
        Better::Higher => a.max(b),
        Better::Lower => a.min(b),
    };
    let figures = || asked.iter().filter_map(|row| Some((*row, row.metrics.get(metric)?)));
    let value = figures().map(|(_, figure)| figure).reduce(order)?;
    #[expect(clippy::float_cmp, reason = "a tie is the very same figure")]
    let rows = figures().filter(|(_, figure)| *figure == value).collect();
    let barred = valid.iter().filter(|row| !row.may_be_best()).filter_map(|row| row.metrics.get(metric));
    #[expect(clippy::float_cmp, reason = "the better of the two is one of them")]
    let barred = barred.filter(|other| order(*other, value) == *other).count();
    Some(Best { metric, value, rows, measurements: 1, basis: Basis::Single, noise: None, repeats_needed: None, barred })
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
    for (row, load) in rows.iter().zip(load_labels(rows)) {
        loads.entry(load).or_default().push(row);
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
        best.map(|best| best.rows.iter().map(|(row, _)| row.name.clone()).collect()).unwrap_or_default()
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

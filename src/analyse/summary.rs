//! A run in a few metrics.

use super::{RANKED, Row, Status};
use crate::model::VllmMetric;
use crate::stats::{Sample, Stats};

/// How many rows came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Experiments of the plan.
    pub planned: usize,
    /// With a valid result.
    pub passed: usize,
    /// Failed, or with a result that does not count.
    pub failed: usize,
    /// Ended by the user before their end.
    pub interrupted: usize,
    /// Under way.
    pub running: usize,
    /// Never begun.
    pub not_run: usize,
    /// Combinations that a rule left out; not among the planned.
    pub skipped: usize,
}

impl Counts {
    /// Counts rows.
    pub fn of(rows: &[Row]) -> Self {
        let mut counts = Self::default();
        for row in rows {
            let kind = match row.status {
                Status::Valid => &mut counts.passed,
                Status::Invalid(_) | Status::Failed(_) => &mut counts.failed,
                Status::Interrupted => &mut counts.interrupted,
                Status::Running => &mut counts.running,
                Status::NotRun => &mut counts.not_run,
                Status::Skipped { .. } => &mut counts.skipped,
            };
            *kind += 1;
        }
        counts.planned = rows.len() - counts.skipped;
        counts
    }

    /// Planned experiments without a valid result.
    pub fn without_result(&self) -> usize {
        self.planned - self.passed
    }

    /// Passed of planned, 0 to 1; `None` where nothing was planned.
    #[expect(clippy::cast_precision_loss, reason = "counts of experiments")]
    pub fn success_rate(&self) -> Option<f64> {
        (self.planned > 0).then(|| self.passed as f64 / self.planned as f64)
    }
}

/// Statistics of every ranked metric over these rows; `None` where no row has it.
pub fn overall(rows: &[&Row]) -> [(VllmMetric, Option<Stats>); RANKED.len()] {
    RANKED.map(|metric| {
        let values = rows.iter().filter_map(|row| row.metrics.get(metric));
        (metric, Sample::new(values).map(|sample| sample.stats()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut rows: Vec<Row> = (0u32..5).map(|tp| row("m", tp, f64::from(tp), 1.0)).collect();
        rows[0].status = Status::Invalid("torn".into());
        rows[1].status = Status::Interrupted;
        rows[2].status = Status::Skipped { rule: "fp8-needs-eager".into(), explanation: None, reason: "r".into() };
        let counts = Counts::of(&rows);
        assert_eq!((counts.planned, counts.passed, counts.failed, counts.skipped), (4, 2, 1, 1));
        assert_eq!((counts.without_result(), counts.success_rate()), (2, Some(0.5)));
        assert_eq!(Counts::of(&[]).success_rate(), None);
        let valid: Vec<&Row> = rows.iter().filter(|row| row.is_valid()).collect();
        let stats = overall(&valid);
        assert_eq!(stats[0].1.map(|s| (s.count, s.min, s.max)), Some((2, 3.0, 4.0)));
        assert_eq!(stats[3].1, None);
    }
}

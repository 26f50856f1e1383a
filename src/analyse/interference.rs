//! What neighbours cost a measurement: one server is measured alone and beside busy ones, in turn. Pure.
//!
//! Both measurements of a pair are made on the same server start, so that what starts differ by cancels; their order alternates, so that
//! a steady drift of the machine does. What is left is averaged as a ratio (a mean of logarithms) with Student's t over the pairs.
//! The pairs are looked at after each one from the third on: the level of each look is divided by their number (Bonferroni).

use super::inference::{mean, t_quantile};
use crate::model::Better;

/// Pairs before the first look.
pub const FEWEST_PAIRS: usize = 3;
/// Pairs at most.
pub const MOST_PAIRS: usize = 8;
/// What may be claimed wrongly about the threshold, on either side of it, over all looks.
const ALPHA: f64 = 0.05;

/// How much worse a measurement is beside neighbours, as parts: 0.02 = it takes 2 % more, or yields 1/1.02.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// The mean.
    pub mean: f64,
    /// Where it is, as far as the pairs tell.
    pub low: f64,
    /// The other end.
    pub high: f64,
}

/// How a cost stands to what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is shown to be no more.
    Within,
    /// It is shown to be more.
    Above,
    /// The pairs do not tell.
    Open,
}

/// The cost by pairs of a metric: alone, and beside neighbours. `None` for fewer than two, or where there is nothing to divide.
pub fn cost(pairs: &[(f64, f64)], better: Better) -> Option<Cost> {
    let logs: Vec<f64> = pairs
        .iter()
        .map(|(alone, beside)| match better {
            Better::Higher => (alone / beside).ln(),
            Better::Lower => (beside / alone).ln(),
        })
        .collect();
    if logs.len() < 2 || !logs.iter().all(|log| log.is_finite()) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "pairs are few")]
    let n = logs.len() as f64;
    let middle = mean(&logs);
    let variance = logs.iter().map(|log| (log - middle).powi(2)).sum::<f64>() / (n - 1.0);
    #[expect(clippy::cast_precision_loss, reason = "looks are few")]
    let looks = (MOST_PAIRS - FEWEST_PAIRS + 1) as f64;
    let half = t_quantile(1.0 - ALPHA / looks, n - 1.0)? * (variance / n).sqrt();
    let part = |log: f64| log.exp() - 1.0;
    Some(Cost { mean: part(middle), low: part(middle - half), high: part(middle + half) })
}

impl Cost {
    /// How it stands to a threshold.
    pub fn verdict(&self, threshold: f64) -> Verdict {
        if self.high <= threshold {
            Verdict::Within
        } else if self.low > threshold {
            Verdict::Above
        } else {
            Verdict::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neighbours_cost_is_told_with_how_sure_it_is() {
        let alike = [(100.0, 100.2), (100.1, 99.9), (99.8, 99.9), (100.0, 100.0)];
        let found = cost(&alike, Better::Higher).unwrap();
        assert!(found.mean.abs() < 0.001 && found.verdict(0.02) == Verdict::Within, "{found:?}");
        let slower = [(100.0, 95.2), (100.1, 95.4), (99.8, 95.0), (100.0, 95.3)];
        let found = cost(&slower, Better::Higher).unwrap();
        assert!((found.mean - 0.05).abs() < 0.002 && found.verdict(0.02) == Verdict::Above, "{found:?}");
        // A time that is longer is worse by as much.
        let times: Vec<(f64, f64)> = slower.iter().map(|(alone, beside)| (1.0 / alone, 1.0 / beside)).collect();
        assert!((cost(&times, Better::Lower).unwrap().mean - found.mean).abs() < 1e-12);
        let noisy = [(100.0, 90.0), (95.0, 104.0), (102.0, 99.0)];
        assert_eq!(cost(&noisy, Better::Higher).unwrap().verdict(0.02), Verdict::Open);
        assert_eq!((cost(&alike[..1], Better::Higher), cost(&[(1.0, 0.0); 3], Better::Higher)), (None, None));
    }
}

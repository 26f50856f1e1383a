//! Variances of a few samples each, moderated by what all of them say together. Pure.
//!
//! Three starts tell little of a variance. The empirical Bayes of Smyth (2004, *Statistical Applications in Genetics and Molecular
//! Biology* 3, article 3; `fitFDist` and `squeezeVar` of limma) takes the variances of all configurations as drawn from a scaled
//! inverse chi-squared distribution, estimates its two parameters by the moments of their logarithms, and draws each variance towards
//! the common one. A single configuration that is much noisier than the others (largest variance, F test with a correction for
//! having looked for the largest) keeps its own and takes no part in the estimate, as in the robust version (Phipson and others 2016).

use statrs::distribution::{ContinuousCDF, FisherSnedecor};
use statrs::function::gamma::digamma;

use super::inference::Group;

/// Fewer samples than this say nothing of how variances are spread: each keeps its own.
const FEWEST: usize = 3;
/// Variances below this part of the median are taken for it: a logarithm of zero says nothing (as limma does).
const LEAST: f64 = 1e-5;
/// Below this probability the largest variance is another noise than that of the others.
const ODD: f64 = 0.05;

/// A variance for a test, with its degrees of freedom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moderated {
    /// The variance of a value.
    pub variance: f64,
    /// Its degrees of freedom.
    pub freedom: f64,
}

/// The moderated variance of each sample, in their order. Samples of fewer than two values have no group and get none.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn moderated(groups: &[Option<Group>]) -> Vec<Option<Moderated>> {
    let known: Vec<Group> = groups.iter().flatten().copied().collect();
    let total: f64 = known.iter().map(|group| (group.n - 1) as f64).sum();
    let prior = Prior::of(&known);
    let mut place = 0;
    groups
        .iter()
        .map(|group| {
            let group = (*group)?;
            let own = Moderated { variance: group.variance, freedom: (group.n - 1) as f64 };
            let index = place;
            place += 1;
            Some(prior.as_ref().filter(|prior| prior.odd != Some(index)).map_or(own, |prior| prior.squeeze(own, total)))
        })
        .collect()
}

/// The distribution from which variances are drawn.
struct Prior {
    variance: f64,
    freedom: f64,
    /// The one that is much noisier than the others.
    odd: Option<usize>,
}

impl Prior {
    #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
    fn of(groups: &[Group]) -> Option<Self> {
        if groups.len() < FEWEST {
            return None;
        }
        let freedom = |index: usize| (groups[index].n - 1) as f64;
        let all: Vec<usize> = (0..groups.len()).collect();
        let largest = all.iter().copied().max_by(|a, b| groups[*a].variance.total_cmp(&groups[*b].variance))?;
        let others: Vec<usize> = all.iter().copied().filter(|index| *index != largest).collect();
        if let Some((variance, prior)) = fit(groups, &others)
            && let Ok(f) = FisherSnedecor::new(freedom(largest), prior.min(1e6))
            && f.sf(groups[largest].variance / variance) * (groups.len() as f64) < ODD
        {
            return Some(Self { variance, freedom: prior, odd: Some(largest) });
        }
        fit(groups, &all).map(|(variance, freedom)| Self { variance, freedom, odd: None })
    }

    /// Between the own variance and the common one, each with the weight of its degrees of freedom; these are never more than all
    /// samples have together.
    fn squeeze(&self, own: Moderated, total: f64) -> Moderated {
        let prior = self.freedom.min(total);
        let freedom = prior + own.freedom;
        let variance = (prior * self.variance + own.freedom * own.variance) / freedom;
        Moderated { variance, freedom: freedom.min(total) }
    }
}

/// Scale and degrees of freedom of the prior, from the moments of the logarithms of these variances; `None` where most are
/// zero. Infinite degrees of freedom are 1e6: variances are no more different than chance makes them.
#[expect(clippy::cast_precision_loss, reason = "configurations are few")]
fn fit(groups: &[Group], of: &[usize]) -> Option<(f64, f64)> {
    const INFINITE: f64 = 1e6;
    let mut sorted: Vec<f64> = of.iter().map(|index| groups[*index].variance).collect();
    sorted.sort_by(f64::total_cmp);
    let least = LEAST * sorted[sorted.len() / 2];
    if least <= 0.0 {
        return None;
    }
    let half = |index: &usize| (groups[*index].n - 1) as f64 / 2.0;
    let e: Vec<f64> = of
        .iter()
        .map(|index| groups[*index].variance.max(least).ln() - digamma(half(index)) + half(index).ln())
        .collect();
    let count = e.len() as f64;
    let mean = e.iter().sum::<f64>() / count;
    let spread = e.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let excess = spread - of.iter().map(|index| trigamma(half(index))).sum::<f64>() / count;
    if excess <= 0.0 {
        // Then the pooled variance is the maximum likelihood estimate of the scale, as in limma.
        let degrees: f64 = of.iter().map(|index| 2.0 * half(index)).sum();
        let sum: f64 = of.iter().map(|index| 2.0 * half(index) * groups[*index].variance).sum();
        return Some((sum / degrees, INFINITE));
    }
    let freedom = (2.0 * trigamma_inverse(excess)).min(INFINITE);
    Some(((mean + digamma(freedom / 2.0) - (freedom / 2.0).ln()).exp(), freedom))
}

/// The derivative of digamma: the recurrence up to 6, then the asymptotic series (Abramowitz and Stegun 6.4.6, 6.4.12).
pub(super) fn trigamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 6.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    sum + 1.0 / x
        + square / 2.0
        + square / x * (1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square / 30.0)))
}

/// The `x` at which [`trigamma`] has this value, which must be positive; by bisection, as it falls.
pub(super) fn trigamma_inverse(value: f64) -> f64 {
    let (mut low, mut high) = (1e-6f64, 1e7f64);
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        if trigamma(middle) > value { low = middle } else { high = middle }
    }
    (low * high).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-9), "{found} is not {expected}");
    }

    fn groups(variances: &[f64], n: usize) -> Vec<Option<Group>> {
        variances.iter().map(|variance| Some(Group { n, mean: 0.0, variance: *variance })).collect()
    }

    #[test]
    fn trigamma_is_scipys() {
        // scipy.special.polygamma(1, x)
        for (x, expected) in
            [(0.5, 4.934_802_200_544_679), (1.0, 1.644_934_066_848_226_4), (7.5, 0.142_615_896_696_703_8)]
        {
            near(trigamma(x), expected);
            near(trigamma_inverse(expected), x);
        }
    }

    #[test]
    fn variances_alike_become_one_and_an_odd_one_keeps_its_own() {
        let calm = moderated(&groups(&[1.0, 1.2, 0.9, 1.1, 1.0, 0.95], 3));
        let first = calm[0].unwrap();
        assert!((first.variance - 1.03).abs() < 0.1 && first.freedom >= 11.9, "{first:?}");
        let odd = moderated(&groups(&[1.0, 1.2, 0.9, 1.1, 1.0, 400.0], 3));
        assert_eq!(odd[5], Some(Moderated { variance: 400.0, freedom: 2.0 }));
        assert!(odd[0].unwrap().variance < 2.0, "{odd:?}");
        // Two samples say nothing of how variances are spread, and none of a single value.
        assert_eq!(moderated(&groups(&[1.0, 9.0], 4))[1], Some(Moderated { variance: 9.0, freedom: 3.0 }));
        assert_eq!(moderated(&[None]), [None]);
        assert_eq!(moderated(&groups(&[0.0; 4], 3))[0], Some(Moderated { variance: 0.0, freedom: 2.0 }));
    }
}

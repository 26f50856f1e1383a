//! What a few repeats allow to say: intervals and tests. Pure.
//!
//! Sources: Student's t; one-way random effects by the method of moments (Searle, Casella and McCulloch 1992).

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Share of intervals that hold the truth.
pub const CONFIDENCE: f64 = 0.95;
/// A relative standard deviation below this is none: repeats that agree to so many digits were not measured apart.
pub(super) const NO_NOISE: f64 = 1e-7;

/// The estimate of the measurements of one configuration: a server start counts once, with the mean of its measurements, as
/// they share whatever that start had of its own. One start is one sample, without an interval.
pub fn over_starts(starts: &[Vec<f64>]) -> Option<Estimate> {
    if starts.iter().any(Vec::is_empty) {
        return None;
    }
    estimate(&starts.iter().map(|start| mean(start)).collect::<Vec<f64>>())
}

/// An interval that holds the true mean with a probability of [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What a sample says of the mean.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Number of values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation of the sample (n - 1); `None` for one value.
    pub sd: Option<f64>,
    /// `None` for one value, and for values that do not differ: nothing is known of their spread.
    pub interval: Option<Interval>,
}

/// Arithmetic mean; NaN of nothing.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Variance of a sample (n - 1); `None` below two values.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    (values.len() > 1).then(|| values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// The quantile of Student's t with these degrees of freedom.
pub fn t_quantile(p: f64, freedom: f64) -> Option<f64> {
    StudentsT::new(0.0, 1.0, freedom).ok().map(|t| t.inverse_cdf(p))
}

/// P(T >= t) of Student's t with these degrees of freedom.
pub fn t_above(t: f64, freedom: f64) -> f64 {
    if !t.is_finite() {
        return 0.0;
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |dist| dist.sf(t))
}

/// The estimate of a sample; `None` of nothing or of what is not finite.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let (n, mean) = (values.len(), mean(values));
    let sd = variance(values).map(f64::sqrt);
    let interval = sd.filter(|sd| *sd > NO_NOISE * mean.abs()).and_then(|sd| {
        let half = t_quantile(f64::midpoint(1.0, CONFIDENCE), (n - 1) as f64)? * sd / (n as f64).sqrt();
        Some(Interval { low: mean - half, high: mean + half })
    });
    Some(Estimate { n, mean, median: median(values), sd, interval })
}

/// The spread of a mean that a test works with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their variance (n - 1).
    pub variance: f64,
}

impl Group {
    /// Of at least two values.
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self { n: values.len(), mean: mean(values), variance: variance(values)? })
    }
}

/// The variance that all groups share, with its degrees of freedom; `None` where there is none.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn pooled(groups: &[Group]) -> Option<(f64, f64)> {
    let freedom: usize = groups.iter().map(|group| group.n - 1).sum();
    let sum: f64 = groups.iter().map(|group| group.variance * (group.n - 1) as f64).sum();
    (freedom > 0).then(|| (sum / freedom as f64, freedom as f64))
}

/// Where the spread of repeats comes from.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Components {
    /// Standard deviation between server starts.
    pub between_starts: f64,
    /// Standard deviation between measurements on one start.
    pub within_start: f64,
}

/// One-way random effects, by the method of moments: `starts` holds the measurements of each start. `None` below two starts,
/// or where no start has two measurements.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn components(starts: &[Vec<f64>]) -> Option<Components> {
    let (k, n) = (starts.len(), starts.iter().map(Vec::len).sum::<usize>());
    if k < 2 || n <= k || starts.iter().any(Vec::is_empty) {
        return None;
    }
    let grand = mean(&starts.concat());
    let between: f64 = starts.iter().map(|s| s.len() as f64 * (mean(s) - grand).powi(2)).sum::<f64>() / (k - 1) as f64;
    let within: f64 = starts
        .iter()
        .map(|values| {
            let own = mean(values);
            values.iter().map(|value| (value - own).powi(2)).sum::<f64>()
        })
        .sum::<f64>()
        / (n - k) as f64;
    let squares: f64 = starts.iter().map(|s| (s.len() as f64).powi(2)).sum();
    let size = (n as f64 - squares / n as f64) / (k - 1) as f64;
    let variance = ((between - within) / size).max(0.0);
    Some(Components { between_starts: variance.sqrt(), within_start: within.sqrt() })
}

/// How many values of a sample of `n` lie at or beyond its quantile `q`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "requests are fewer than 2^53"
)]
pub fn samples_beyond(n: u64, q: f64) -> u64 {
    let tail = q.min(1.0 - q);
    // A bit above, so that 100 x 0.01 is 1 and not 2.
    (n as f64 * tail - 1e-9).ceil().max(0.0) as u64
}

/// Starts of each of two configurations with which a relative difference would be seen in noise of relative standard
/// deviation `sd` with a power of 80 %, at a one-sided `level`; `None` where that is more than a thousand.
pub fn starts_to_separate(difference: f64, sd: f64, level: f64) -> Option<usize> {
    const MOST: usize = 1000;
    if difference.abs() <= 0.0 || !difference.is_finite() || !sd.is_finite() {
        return None;
    }
    // More starts show smaller differences.
    let show = |n: usize| detectable(sd, n, level).is_some_and(|least| least <= difference.abs());
    let (mut low, mut high) = (2, MOST);
    while low < high {
        let middle = low.midpoint(high);
        if show(middle) { high = middle } else { low = middle + 1 }
    }
    show(low).then_some(low)
}

/// The minimum detectable effect: the relative difference that `n` starts of each of two configurations show with a power of 80 %, in noise
/// of relative standard deviation `sd`, at a one-sided `level`; `None` below two starts.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn detectable(sd: f64, n: usize, level: f64) -> Option<f64> {
    const POWER: f64 = 0.8;
    let freedom = (2 * n).checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
    Some((t_quantile(1.0 - level, freedom)? + t_quantile(POWER, freedom)?) * sd * (2.0 / n as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    const A: [f64; 5] = [10.1, 9.8, 10.4, 10.0, 9.9];
    const B: [f64; 4] = [10.9, 10.2, 11.5, 10.7];

    // Reference values: scipy 1.16.3, numpy 2.4.6.

    /// The table of docs/analysis.md, in part.
    #[test]
    fn the_coverage_of_an_interval_is_the_documented_one() {
        use rand::{RngExt, SeedableRng};
        let random = &mut rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let open = |random: &mut rand_chacha::ChaCha8Rng| random.random::<f64>().max(f64::MIN_POSITIVE);
        let mut normal = |random: &mut rand_chacha::ChaCha8Rng| {
            (-2.0 * open(random).ln()).sqrt() * (std::f64::consts::TAU * random.random::<f64>()).cos()
        };
        let mut held = |starts: usize, draw: &mut dyn FnMut(&mut rand_chacha::ChaCha8Rng) -> f64| {
            let is_in = |values: Vec<f64>| {
                let interval = estimate(&values).and_then(|of| of.interval).unwrap();
                interval.low <= 0.0 && 0.0 <= interval.high
            };
            let samples = 20_000;
            let count = (0..samples).filter(|_| is_in((0..starts).map(|_| draw(random)).collect())).count();
            100.0 * count as f64 / f64::from(samples)
        };
        let near = |found: f64, documented: f64| assert!((found - documented).abs() < 1.2, "{found}: {documented}");
        near(held(3, &mut normal), 95.0);
        near(held(3, &mut |random| -open(random).ln() - 1.0), 88.0);
        let mut humps = |random: &mut rand_chacha::ChaCha8Rng| {
            0.2 * normal(random) + if random.random::<f64>() < 0.5 { 1.0 } else { -1.0 }
        };
        near(held(3, &mut humps), 76.0);
        near(held(4, &mut humps), 88.0);
        near(held(5, &mut humps), 94.0);
    }

    #[test]
    fn the_interval_of_a_mean_is_scipys() {
        // scipy.stats.t.interval(0.95, 4, loc=mean, scale=sem)
        let of = estimate(&A).unwrap();
        let interval = of.interval.unwrap();
        near(interval.low, 9.754147480901297);
        near(interval.high, 10.325852519098701);
        assert_eq!((of.n, of.median), (5, 10.0));
        let one = estimate(&[3.0]).unwrap();
        assert_eq!((one.sd, one.interval), (None, None), "one sample has no made-up interval");
        let equal = estimate(&[94.5, 94.5, 94.5]).unwrap();
        assert_eq!(
            (equal.sd, equal.interval),
            (Some(0.0), None),
            "and values that do not differ have none of no width"
        );
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_test_of_two_means_is_scipys() {
        // scipy.stats.ttest_ind(a, b, equal_var=False): its statistic, degrees of freedom and P
        near(2.0 * t_above(2.7265547370059546, 3.8816773904517476), 0.05437646921698372);
        let (a, b) = (Group::of(&A).unwrap(), Group::of(&B).unwrap());
        // sum of squares over 3 + 4 degrees of freedom, by hand
        let (variance, freedom) = pooled(&[a, b]).unwrap();
        near(variance, (4.0 * a.variance + 3.0 * b.variance) / 7.0);
        near(freedom, 7.0);
    }

    #[test]
    fn the_spread_between_starts_is_told_from_that_within_one() {
        let starts = [vec![10.0, 10.2, 9.9], vec![11.0, 11.1, 10.8], vec![9.5, 9.7, 9.6]];
        // sqrt((MSB - MSW) / 3) and sqrt(MSW), the mean squares as in scipy.stats.f_oneway (F = 77.4706)
        let found = components(&starts).unwrap();
        near(found.between_starts, 0.6938886664887122);
        near(found.within_start, 0.13743685418725488);
        assert_eq!(components(&[vec![1.0], vec![2.0]]), None);
        assert_eq!(components(&[vec![1.0, 2.0]]), None);
    }

    #[test]
    fn starts_count_once_and_one_sample_has_no_interval() {
        assert_eq!(over_starts(&[vec![3.0]]).map(|of| (of.n, of.sd, of.interval)), Some((1, None, None)));
        let of = over_starts(&[vec![1.0, 3.0], vec![4.0]]).unwrap();
        assert_eq!((of.n, of.mean), (2, 3.0));
        assert_eq!(over_starts(&[]), None);
        // However often one start is measured, it is one sample.
        let one = over_starts(&[vec![1.0, 2.0, 3.0]]).unwrap();
        assert_eq!((one.n, one.mean, one.interval), (1, 2.0, None));
    }

    #[test]
    fn a_p99_of_a_hundred_requests_samples_beyond_one_of_them() {
        assert_eq!(
            (
                samples_beyond(100, 0.99),
                samples_beyond(150, 0.99),
                samples_beyond(1000, 0.99),
                samples_beyond(100, 0.5)
            ),
            (1, 2, 10, 50)
        );
    }

    #[test]
    fn more_repeats_tell_smaller_differences() {
        near(t_quantile(0.975, 4.0).unwrap(), 2.7764451051977987);
        // (t(0.975, 18) + t(0.8, 18)) x 2 % x sqrt(2 / 10)
        near(detectable(0.02, 10, 0.025).unwrap(), (2.10092204024096 + 0.8620486679895988) * 0.02 * 0.2f64.sqrt());
        assert_eq!(detectable(0.02, 1, 0.025), None);
        let needed = starts_to_separate(0.03, 0.02, 0.025).unwrap();
        let least = |n: usize| detectable(0.02, n, 0.025).unwrap();
        assert!(least(needed) <= 0.03 && least(needed - 1) > 0.03, "{needed}");
        assert_eq!(starts_to_separate(0.0, 0.02, 0.025), None);
        assert_eq!(starts_to_separate(1e-9, 0.5, 0.025), None);
    }
}

//! What a few repeats allow to say: intervals, tests, corrections for many of them. Pure.
//!
//! Sources: Student's t and Welch's test with the Welch-Satterthwaite degrees of freedom (Welch 1947); the percentile
//! bootstrap (Efron and Tibshirani 1993); Holm's step-down correction (Holm 1979); Bartlett's test of equal variances
//! (Bartlett 1937); one-way random effects by the method of moments (Searle, Casella and McCulloch 1992); intervals of a quantile
//! by order statistics (Conover 1999, 3.2; `scipy.stats.quantile_test`).

use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF, StudentsT};

/// Share of intervals that hold the truth.
pub const CONFIDENCE: f64 = 0.95;
/// Resamples of a bootstrap.
const RESAMPLES: usize = 4000;
/// From so many values on, skewness can be seen.
const ENOUGH_FOR_SKEWNESS: usize = 8;
/// A sample with a larger skewness (absolute value) gets a bootstrap interval.
const SKEWED: f64 = 1.0;

/// The estimate of the measurements of one configuration: a server start counts once, with the mean of its measurements, as
/// they share whatever that start had of its own; those of a single start count each.
pub fn over_starts(starts: &[Vec<f64>]) -> Option<Estimate> {
    match starts {
        [] => None,
        [only] => estimate(only),
        several if several.iter().any(Vec::is_empty) => None,
        several => estimate(&several.iter().map(|start| mean(start)).collect::<Vec<f64>>()),
    }
}

/// How an interval was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Student's t.
    T,
    /// Percentiles of resamples.
    Bootstrap,
}

/// An interval that holds the true mean with a probability of [`CONFIDENCE`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// How it was made.
    pub method: Method,
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
    /// `None` for one value: nothing is known of its spread.
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

/// The adjusted Fisher-Pearson skewness G1; `None` where it is not defined.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
fn skewness(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    if values.len() < 3 {
        return None;
    }
    let mean = mean(values);
    let moment = |k: i32| values.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let second = moment(2);
    (second > 0.0).then(|| moment(3) / second.powf(1.5) * (n * (n - 1.0)).sqrt() / (n - 2.0))
}

/// The quantile of Student's t with these degrees of freedom.
pub fn t_quantile(p: f64, freedom: f64) -> Option<f64> {
    StudentsT::new(0.0, 1.0, freedom).ok().map(|t| t.inverse_cdf(p))
}

/// P(|T| >= |t|).
fn t_two_sided(t: f64, freedom: f64) -> f64 {
    if !t.is_finite() {
        return 0.0;
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |dist| (2.0 * dist.sf(t.abs())).min(1.0))
}

/// The estimate of a sample; `None` of nothing or of what is not finite.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let (n, mean) = (values.len(), mean(values));
    let sd = variance(values).map(f64::sqrt);
    let skewed = n >= ENOUGH_FOR_SKEWNESS && skewness(values).is_some_and(|skewness| skewness.abs() > SKEWED);
    let interval = match sd {
        Some(_) if skewed => Some(bootstrap(values)),
        Some(sd) => t_quantile(f64::midpoint(1.0, CONFIDENCE), (n - 1) as f64).map(|t| {
            let half = t * sd / (n as f64).sqrt();
            Interval { low: mean - half, high: mean + half, method: Method::T }
        }),
        None => None,
    };
    Some(Estimate { n, mean, median: median(values), sd, interval })
}

/// The percentile bootstrap of the mean. The same values give the same interval.
pub fn bootstrap(values: &[f64]) -> Interval {
    let mut state = 0x00b0_075e_ed00;
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: f64 = (0..values.len()).map(|_| values[draw(&mut state, values.len())]).sum();
            #[expect(clippy::cast_precision_loss, reason = "repeats are few")]
            let mean = drawn / values.len() as f64;
            mean
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Interval { low: quantile(&means, tail), high: quantile(&means, 1.0 - tail), method: Method::Bootstrap }
}

/// An index below `n` (SplitMix64: Steele, Lea and Flood 2014): the same draws everywhere, with nothing from outside.
fn draw(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    usize::try_from((u128::from(mixed) * n as u128) >> 64).unwrap_or(0)
}

/// Linear interpolation between closest ranks, of sorted values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`q` is between 0 and 1"
)]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
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

/// A difference of two means, with how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Of the first less the second.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// Degrees of freedom.
    pub freedom: f64,
    /// P of a difference as large as this between equals (two-sided).
    pub p: f64,
}

impl Difference {
    fn new(mean: f64, error: f64, freedom: f64) -> Self {
        let p = if error > 0.0 { t_two_sided(mean / error, freedom) } else { f64::from(u8::from(mean == 0.0)) };
        Self { mean, error, freedom, p }
    }

    /// The interval that holds the true difference with this probability.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let half = t_quantile(f64::midpoint(1.0, confidence), self.freedom).unwrap_or(f64::INFINITY) * self.error;
        (self.mean - half, self.mean + half)
    }
}

/// Welch's test: two groups, each with a variance of its own.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn welch(a: Group, b: Group) -> Difference {
    let (va, vb) = (a.variance / a.n as f64, b.variance / b.n as f64);
    let error = (va + vb).sqrt();
    let below = va * va / (a.n - 1) as f64 + vb * vb / (b.n - 1) as f64;
    let freedom = if below > 0.0 { (va + vb).powi(2) / below } else { (a.n + b.n - 2) as f64 };
    Difference::new(a.mean - b.mean, error, freedom)
}

/// The variance that all groups share, with its degrees of freedom; `None` where there is none.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn pooled(groups: &[Group]) -> Option<(f64, f64)> {
    let freedom: usize = groups.iter().map(|group| group.n - 1).sum();
    let sum: f64 = groups.iter().map(|group| group.variance * (group.n - 1) as f64).sum();
    (freedom > 0).then(|| (sum / freedom as f64, freedom as f64))
}

/// Two groups that share a variance with others.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn with_pooled(a: Group, b: Group, variance: f64, freedom: f64) -> Difference {
    let error = (variance * (1.0 / a.n as f64 + 1.0 / b.n as f64)).sqrt();
    Difference::new(a.mean - b.mean, error, freedom)
}

/// Bartlett's test: P of variances as different as these among equals.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn bartlett(groups: &[Group]) -> Option<f64> {
    let (shared, freedom) = pooled(groups)?;
    if groups.len() < 2 || shared <= 0.0 || groups.iter().any(|group| group.variance <= 0.0) {
        return None;
    }
    let k = groups.len() as f64;
    let own: f64 = groups.iter().map(|group| (group.n - 1) as f64 * group.variance.ln()).sum();
    let inverse: f64 = groups.iter().map(|group| 1.0 / (group.n - 1) as f64).sum();
    let correction = 1.0 + (inverse - 1.0 / freedom) / (3.0 * (k - 1.0));
    let statistic = (freedom * shared.ln() - own) / correction;
    ChiSquared::new(k - 1.0).ok().map(|dist| dist.sf(statistic.max(0.0)))
}

/// Holm's step-down correction: each p so that all of them together err with the probability of one.
#[expect(clippy::cast_precision_loss, reason = "tests are fewer than 2^53")]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut corrected, mut highest) = (vec![1.0; p.len()], 0.0f64);
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        corrected[index] = highest;
    }
    corrected
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

/// An interval that holds the true quantile with a probability of at least [`CONFIDENCE`], whatever the distribution. Each
/// end is a value of the sample; `None` = the sample is too small to say anything on that side.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct QuantileInterval {
    /// Values of the sample.
    pub n: u64,
    /// Its lower end.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

/// The interval of the quantile `q` of independent values, by the binomial distribution of how many of them lie below it;
/// `None` of nothing, and for a `q` that is not between 0 and 1.
pub fn quantile_interval(sorted: &[f64], q: f64) -> Option<QuantileInterval> {
    if sorted.is_empty() || !(0.0..1.0).contains(&q) {
        return None;
    }
    let n = sorted.len() as u64;
    let below = Binomial::new(q, n).ok()?;
    let tail = (1.0 - CONFIDENCE) / 2.0;
    // The smallest k with P(K <= k) >= p, by bisection.
    let inverse = |p: f64| {
        let (mut low, mut high) = (0, n);
        while low < high {
            let middle = low.midpoint(high);
            if below.cdf(middle) >= p { high = middle } else { low = middle + 1 }
        }
        low
    };
    let at = |rank: Option<u64>| sorted.get(usize::try_from(rank?).ok()?).copied();
    // With P(K < low) <= tail the value of this rank (from 1) is below the quantile; likewise above.
    Some(QuantileInterval { n, low: at(inverse(tail).checked_sub(1)), high: at(Some(inverse(1.0 - tail))) })
}

/// How many values of a sample of `n` lie at or beyond its quantile `q`: what the figure rests on.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "requests are fewer than 2^53"
)]
pub fn rests_on(n: u64, q: f64) -> u64 {
    let tail = q.min(1.0 - q);
    // A bit above, so that 100 x 0.01 is 1 and not 2.
    (n as f64 * tail - 1e-9).ceil().max(0.0) as u64
}

/// Repeats of each of two configurations with which a relative difference would be told from noise of relative standard
/// deviation `sd` with a power of 80 %, at `alpha` (two-sided); `None` where that is more than a thousand.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn repeats_to_tell(difference: f64, sd: f64, alpha: f64) -> Option<usize> {
    const POWER: f64 = 0.8;
    const MOST: usize = 1000;
    if difference.abs() <= 0.0 || !difference.is_finite() || !sd.is_finite() {
        return None;
    }
    (2..=MOST).find(|n| {
        let freedom = (2 * n - 2) as f64;
        let critical = t_quantile(1.0 - alpha / 2.0, freedom).unwrap_or(f64::INFINITY);
        let reach = t_quantile(POWER, freedom).unwrap_or(f64::INFINITY);
        (critical + reach) * sd * (2.0 / *n as f64).sqrt() <= difference.abs()
    })
}

/// The relative difference that `n` repeats of each of two configurations tell with a power of 80 %, for noise of relative
/// standard deviation `sd`, at 5 % (two-sided); `None` below two repeats.
#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
pub fn resolvable(sd: f64, n: usize) -> Option<f64> {
    let freedom = (2 * n).checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
    let critical = t_quantile(f64::midpoint(1.0, CONFIDENCE), freedom)?;
    Some((critical + t_quantile(0.8, freedom)?) * sd * (2.0 / n as f64).sqrt())
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

    #[test]
    fn the_interval_of_a_mean_is_scipys() {
        // scipy.stats.t.interval(0.95, 4, loc=mean, scale=sem)
        let of = estimate(&A).unwrap();
        let interval = of.interval.unwrap();
        near(interval.low, 9.754147480901297);
        near(interval.high, 10.325852519098701);
        assert_eq!((of.n, of.median, interval.method), (5, 10.0, Method::T));
        let one = estimate(&[3.0]).unwrap();
        assert_eq!((one.sd, one.interval), (None, None), "one sample has no made-up interval");
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_skewed_sample_gets_a_bootstrap() {
        let skewed = [1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8, 9.0, 1.1, 1.2];
        // scipy.stats.skew(x, bias=False)
        near(skewness(&skewed).unwrap(), 3.141379809150333);
        let interval = estimate(&skewed).unwrap().interval.unwrap();
        // scipy.stats.bootstrap((x,), mean, n_resamples=200000, method="percentile"): 1.0 to 3.48; resampling has its own noise.
        assert_eq!(interval.method, Method::Bootstrap);
        assert!((interval.low - 1.0).abs() < 0.05 && (interval.high - 3.48).abs() < 0.15, "{interval:?}");
        assert_eq!(bootstrap(&skewed), bootstrap(&skewed), "the same values, the same interval");
    }

    #[test]
    fn tests_of_two_means_are_scipys() {
        let (a, b) = (Group::of(&A).unwrap(), Group::of(&B).unwrap());
        // scipy.stats.ttest_ind(a, b, equal_var=False)
        let test = welch(a, b);
        near(test.mean / test.error, -2.7265547370059546);
        near(test.p, 0.05437646921698372);
        near(test.freedom, 3.8816773904517476);
        let (low, high) = test.interval(0.95);
        near(low, -1.594065860841835);
        near(high, 0.024065860841834708);
        // scipy.stats.ttest_ind(a, b)
        let (variance, freedom) = pooled(&[a, b]).unwrap();
        near(with_pooled(a, b, variance, freedom).p, 0.020517889413578065);
    }

    #[test]
    fn variances_and_many_tests_are_judged_as_scipy_and_holm_do() {
        let groups: Vec<Group> = [&A[..], &B[..], &[10.0, 12.0, 9.5, 10.4]].map(|v| Group::of(v).unwrap()).into();
        // scipy.stats.bartlett
        near(bartlett(&groups).unwrap(), 0.04187987683712205);
        // Holm (1979), by hand.
        for (found, expected) in holm(&[0.01, 0.04, 0.03, 0.005]).into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
            near(found, expected);
        }
        // By the closure of Bonferroni's tests (scripts/check_statistics.py).
        let ties = holm(&[0.2, 0.011, 0.011, 0.5, 0.002, 0.049, 0.6]);
        for (found, expected) in ties.into_iter().zip([0.6, 0.066, 0.066, 1.0, 0.014, 0.196, 1.0]) {
            near(found, expected);
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
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
    fn intervals_of_quantiles_are_scipys() {
        // scipy.stats.quantile_test(range(1, n + 1), p=q).confidence_interval(0.95), scipy 1.17.1 (scripts/check_statistics.py)
        for (n, q, low, high) in [
            (100i32, 0.5, Some(40.0), Some(61.0)),
            (1000, 0.99, Some(983.0), Some(997.0)),
            (100, 0.99, Some(97.0), None),
            (5, 0.5, None, None),
        ] {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            let found = quantile_interval(&values, q).unwrap();
            assert_eq!((found.low, found.high, found.n), (low, high, u64::from(n.unsigned_abs())), "{n} {q}");
        }
        assert_eq!(quantile_interval(&[], 0.5), None);
        assert_eq!(quantile_interval(&[1.0], 1.0), None);
    }

    #[test]
    fn starts_count_once_and_one_sample_has_no_interval() {
        assert_eq!(over_starts(&[vec![3.0]]).map(|of| (of.n, of.sd, of.interval)), Some((1, None, None)));
        let of = over_starts(&[vec![1.0, 3.0], vec![4.0]]).unwrap();
        assert_eq!((of.n, of.mean), (2, 3.0));
        assert_eq!(over_starts(&[]), None);
    }

    #[test]
    fn a_p99_of_a_hundred_requests_rests_on_one_of_them() {
        assert_eq!(
            (rests_on(100, 0.99), rests_on(150, 0.99), rests_on(1000, 0.99), rests_on(100, 0.5)),
            (1, 2, 10, 50)
        );
    }

    #[test]
    fn more_repeats_tell_smaller_differences() {
        near(t_quantile(0.975, 4.0).unwrap(), 2.7764451051977987);
        // (t(0.975, 18) + t(0.8, 18)) x 2 % x sqrt(2 / 10)
        near(resolvable(0.02, 10).unwrap(), (2.10092204024096 + 0.8620486679895988) * 0.02 * 0.2f64.sqrt());
        assert_eq!(resolvable(0.02, 1), None);
        let needed = repeats_to_tell(0.03, 0.02, 0.05).unwrap();
        assert!(resolvable(0.02, needed).unwrap() <= 0.03 && resolvable(0.02, needed - 1).unwrap() > 0.03, "{needed}");
        assert_eq!(repeats_to_tell(0.0, 0.02, 0.05), None);
        assert_eq!(repeats_to_tell(1e-9, 0.5, 0.05), None);
    }
}

//! Plain statistics over one sample, by the rules of numpy (which are vLLM's too): the only place where a mean or a quantile is made.

/// The arithmetic mean; `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "nobody measures 2^53 values")]
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The quantile `q` (0 to 1) of ascending values by linear interpolation, as `numpy.quantile`; `None` of nothing, and for any other `q`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`q` is between 0 and 1, so the position is an index"
)]
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1).filter(|_| (0.0..=1.0).contains(&q))?;
    let position = last as f64 * q;
    let low = position.floor() as usize;
    let (a, b) = (*sorted.get(low)?, *sorted.get((low + 1).min(last))?);
    let t = position - position.floor();
    // Of the two ways to write the line, numpy takes the one that starts at the nearer end.
    Some(if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) })
}

/// Finite numbers, at least one, in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample(Vec<f64>);

/// The metrics of a sample that the reports show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// How many values.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The middle value, or the mean of the two middle ones.
    pub median: f64,
}

impl Sample {
    /// A sample of these values; `None` where there is none, or one is NaN or infinite.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        Some(Self(values))
    }

    /// The values, ascending.
    pub fn sorted(&self) -> &[f64] {
        &self.0
    }

    /// The smallest value.
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// The largest value.
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// The arithmetic mean.
    #[expect(clippy::cast_precision_loss, reason = "nobody measures 2^53 experiments")]
    pub fn mean(&self) -> f64 {
        let n = self.0.len() as f64;
        let mean = self.0.iter().sum::<f64>() / n;
        // A sum beyond the largest float: divide first. The result lies between the extremes in any case.
        let mean = if mean.is_finite() { mean } else { self.0.iter().map(|value| value / n).sum() };
        mean.clamp(self.min(), self.max())
    }

    /// The middle value, or the mean of the two middle ones (the predecessor took the upper of the two).
    pub fn median(&self) -> f64 {
        let half = self.0.len() / 2;
        let upper = self.0[half];
        if self.0.len() % 2 == 1 { upper } else { f64::midpoint(self.0[half - 1], upper) }
    }

    /// The quantile `q`; see [`quantile`].
    pub fn quantile(&self, q: f64) -> Option<f64> {
        quantile(&self.0, q)
    }

    /// What the reports show.
    pub fn stats(&self) -> Stats {
        Stats { count: self.0.len(), min: self.min(), max: self.max(), mean: self.mean(), median: self.median() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample::new(values.iter().copied()).unwrap()
    }

    #[test]
    fn nothing_has_no_mean_and_no_quantile() {
        assert_eq!((mean([]), mean([1.0, 2.0, 6.0])), (None, Some(3.0)));
        assert_eq!((quantile(&[], 0.5), quantile(&[7.0], 1.0)), (None, Some(7.0)));
    }

    #[test]
    fn nothing_and_what_is_no_number_have_no_statistics() {
        for values in [&[][..], &[f64::NAN], &[1.0, f64::INFINITY], &[f64::NEG_INFINITY, 2.0]] {
            assert_eq!(Sample::new(values.iter().copied()), None, "{values:?}");
        }
    }

    #[test]
    fn trap_5_the_median_of_an_even_count_is_the_mean_of_the_two_middle_values() {
        assert_eq!(sample(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(sample(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(sample(&[7.0]).stats(), Stats { count: 1, min: 7.0, max: 7.0, mean: 7.0, median: 7.0 });
    }

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([1, 2, 3, 4, 10], [0, .25, .5, .9, .99, 1]) (numpy 2.3)
        let s = sample(&[1.0, 2.0, 3.0, 4.0, 10.0]);
        for (q, expected) in [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.9, 7.6), (0.99, 9.76), (1.0, 10.0)] {
            assert!((s.quantile(q).unwrap() - expected).abs() < 1e-12, "{q}");
        }
        assert_eq!(s.quantile(1.01), None);
        assert_eq!(s.quantile(f64::NAN), None);
    }

    #[test]
    fn the_largest_floats_do_not_overflow() {
        let stats = sample(&[f64::MAX, f64::MAX]).stats();
        assert_eq!((stats.mean, stats.median), (f64::MAX, f64::MAX));
    }

    /// Straight from the definition: weights of the two neighbours.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    fn naive_quantile(values: &[f64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let h = (sorted.len() as f64 - 1.0) * q;
        let (low, high) = (h.floor() as usize, h.ceil() as usize);
        if low == high { sorted[low] } else { sorted[low] * (high as f64 - h) + sorted[high] * (h - low as f64) }
    }

    proptest! {
        #[test]
        fn a_quantile_is_the_naive_one_and_lies_in_the_sample(
            values in proptest::collection::vec(-1e6f64..1e6, 1..200), q in 0.0f64..=1.0
        ) {
            let s = sample(&values);
            let quantile = s.quantile(q).unwrap();
            prop_assert!((quantile - naive_quantile(&values, q)).abs() <= 1e-6);
            prop_assert!(s.min() <= quantile && quantile <= s.max());
            prop_assert!((s.median() - s.quantile(0.5).unwrap()).abs() <= 1e-6);
            let stats = s.stats();
            prop_assert!(stats.min <= stats.mean && stats.mean <= stats.max);
        }
    }
}

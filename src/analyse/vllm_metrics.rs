//! The values of vLLM's metrics in one row.

use crate::model::VllmMetric;

/// How many there are.
const COUNT: usize = VllmMetric::ALL.len();

/// Numbers that may be absent, in half the room of options: NaN stands for what is not there.
#[derive(Clone, Copy)]
pub(super) struct Sparse<const N: usize>([f64; N]);

impl<const N: usize> Sparse<N> {
    /// The number at a place; `None` where there is none, and beyond the last place.
    pub fn get(&self, place: usize) -> Option<f64> {
        self.0.get(place).copied().filter(|value| !value.is_nan())
    }

    /// Puts a number in or takes it out; what is not finite is absent.
    pub fn set(&mut self, place: usize, value: Option<f64>) {
        if let Some(at) = self.0.get_mut(place) {
            *at = value.filter(|value| value.is_finite()).unwrap_or(f64::NAN);
        }
    }

    /// All places.
    pub fn iter(&self) -> impl Iterator<Item = Option<f64>> {
        (0..N).map(|place| self.get(place))
    }
}

impl<const N: usize> Default for Sparse<N> {
    fn default() -> Self {
        Self([f64::NAN; N])
    }
}

impl<const N: usize> PartialEq for Sparse<N> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<const N: usize> std::fmt::Debug for Sparse<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The metrics of one row; what is not known is absent, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VllmMetrics(Sparse<COUNT>);

impl VllmMetrics {
    /// No metric.
    pub fn none() -> Self {
        Self::default()
    }

    /// A metric.
    pub fn get(&self, metric: VllmMetric) -> Option<f64> {
        self.0.get(metric as usize)
    }

    /// Sets or removes a metric; NaN and infinities count as absent.
    pub fn set(&mut self, metric: VllmMetric, value: Option<f64>) {
        self.0.set(metric as usize, value);
    }

    /// Only the counts of requests: what a result that is not valid may still say.
    pub fn counts_only(&self) -> Self {
        let mut counts = Self::default();
        for metric in [VllmMetric::Completed, VllmMetric::Failed] {
            counts.set(metric, self.get(metric));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_absent() {
        let mut metrics = VllmMetrics::none();
        for (metric, value) in
            [(VllmMetric::Completed, f64::NAN), (VllmMetric::Failed, f64::INFINITY), (VllmMetric::Duration, 1.5)]
        {
            metrics.set(metric, Some(value));
        }
        assert_eq!(VllmMetric::ALL.map(|metric| metrics.get(metric)).into_iter().flatten().collect::<Vec<_>>(), [1.5]);
    }
}

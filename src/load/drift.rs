//! Whether a workload took the same from its beginning to its end. Pure.
//!
//! Requests are not independent: those that wait in one queue or share one batch are slow together, and the lengths of answers differ. A
//! ratio of two halves alone is beyond a fifth in a quarter to a half of workloads in which nothing changes. So the trend over blocks of requests
//! is held against what blocks differ by themselves, and against how alike neighbouring blocks are.

use crate::stats;

/// Blocks of requests, in the order in which they began.
const BLOCKS: usize = 10;
/// Fewer requests say nothing.
const LEAST: usize = 2 * BLOCKS;
/// Student's t with 8 degrees of freedom, 99.8 %: the level at which workloads without a trend are rarely called drifting even where queues
/// make neighbouring blocks alike (`stationary_loads_are_rarely_called_drifting`).
const T: f64 = 4.501;
/// The autocorrelation of the residuals of so few blocks is estimated too low by about this much.
const BIAS: f64 = 0.2;
/// No more is made of an autocorrelation of so few blocks.
const MOST_INFLATION: f64 = 6.0;

/// By how much requests of the second half took longer than those of the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Latency of the second half over that of the first, by the trend over all.
    pub ratio: f64,
    /// The interval of it (99.8 %).
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// From when each request began and what it took, in nanoseconds; `peak`: most requests under way at once. The first and the last so many
/// requests are left out (a quarter of all at most): the server is not yet, or no more, under the whole workload. `None` for fewer than 20 others,
/// and where all were under way at once: such a workload has no first and second half.
pub fn drift(requests: impl Iterator<Item = (u64, u64)>, peak: u64) -> Option<Drift> {
    let mut rows: Vec<(u64, u64)> = requests.filter(|(_, took)| *took > 0).collect();
    rows.sort_unstable();
    if peak >= rows.len() as u64 {
        return None;
    }
    let edge = usize::try_from(peak).unwrap_or(usize::MAX).min(rows.len() / 4);
    let steady = rows.get(edge..rows.len() - edge).filter(|steady| steady.len() >= LEAST)?;
    let bound = |block: usize| block * steady.len() / BLOCKS;
    let block = |block: usize| {
        let rows = &steady[bound(block)..bound(block + 1)];
        stats::mean(rows.iter().map(|(_, took)| (*took as f64).ln())).unwrap_or(f64::NAN)
    };
    let blocks: Vec<f64> = (0..BLOCKS).map(block).collect();
    let at = |block: usize| block as f64 - (BLOCKS - 1) as f64 / 2.0;
    let spread: f64 = (0..BLOCKS).map(|block| at(block).powi(2)).sum();
    let mean = stats::mean(blocks.iter().copied())?;
    let slope = blocks.iter().enumerate().map(|(i, value)| at(i) * (value - mean)).sum::<f64>() / spread;
    let residuals: Vec<f64> = blocks.iter().enumerate().map(|(i, value)| value - mean - slope * at(i)).collect();
    let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let neighbours: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let alike = if squares > 0.0 { neighbours / squares + BIAS } else { 0.0 };
    let inflation =
        if alike < 1.0 { ((1.0 + alike) / (1.0 - alike)).clamp(1.0, MOST_INFLATION) } else { MOST_INFLATION };
    let error = (squares / (BLOCKS - 2) as f64 / spread * inflation).sqrt();
    let ratio = |slope: f64| (slope * (BLOCKS / 2) as f64).exp();
    Some(Drift { ratio: ratio(slope), low: ratio(slope - T * error), high: ratio(slope + T * error) })
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn normal(random: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// A workload: so many requests, of which so many are served at once, each with a log-normal time that grows by a part over the workload. At a
    /// rate (part of what the server can do) they come by a Poisson process, else the next one is sent when one has ended.
    pub(crate) struct Shape {
        pub requests: usize,
        pub servers: usize,
        pub spread: f64,
        pub rate: Option<f64>,
        pub growth: f64,
    }

    impl Shape {
        pub(crate) fn run(&self, seed: u64) -> (Vec<(u64, u64)>, u64) {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let mut free = vec![0.0f64; self.servers];
            let (mut rows, mut ends, mut clock, mut peak) = (Vec::new(), Vec::<f64>::new(), 0.0, 0);
            for number in 0..self.requests {
                let next = (0..self.servers).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap();
                let due = match self.rate {
                    Some(rate) => {
                        let mean = (self.spread * self.spread / 2.0).exp();
                        clock -=
                            random.random::<f64>().max(f64::MIN_POSITIVE).ln() * mean / (rate * self.servers as f64);
                        clock
                    }
                    None => free[next],
                };
                let took =
                    (self.spread * normal(random)).exp() * (1.0 + self.growth * number as f64 / self.requests as f64);
                free[next] = free[next].max(due) + took;
                ends.retain(|end| *end > due);
                ends.push(free[next]);
                peak = peak.max(ends.len() as u64);
                rows.push(((due * 1e9) as u64, ((free[next] - due) * 1e9) as u64));
            }
            (rows, peak)
        }

        /// The share of workloads that are called drifting: by the halves alone, as before, and by the trend.
        fn called(&self, loads: u64) -> (f64, f64) {
            let halves = |rows: &[(u64, u64)]| {
                let mean =
                    |rows: &[(u64, u64)]| rows.iter().map(|(_, took)| *took as f64).sum::<f64>() / rows.len() as f64;
                let (first, second) = rows.split_at(rows.len() / 2);
                mean(second) / mean(first)
            };
            let is_far = |ratio: f64| (ratio - 1.0).abs() > 0.2;
            let (mut before, mut now) = (0, 0);
            for seed in 0..loads {
                let (mut rows, peak) = self.run(seed);
                rows.sort_unstable();
                before += u64::from(is_far(halves(&rows)));
                let found = drift(rows.iter().copied(), peak);
                now += u64::from(found.is_some_and(|of| is_far(of.ratio) && (of.low > 1.0 || of.high < 1.0)));
            }
            (before as f64 / loads as f64, now as f64 / loads as f64)
        }
    }

    #[test]
    fn stationary_loads_are_rarely_called_drifting() {
        let shape = |requests, servers, spread, rate| Shape { requests, servers, spread, rate, growth: 0.0 };
        let shapes = [
            shape(40, 4, 0.8, None),
            shape(100, 8, 0.1, None),
            shape(100, 8, 0.8, None),
            shape(200, 32, 1.0, None),
            shape(100, 4, 0.5, Some(0.5)),
            shape(100, 4, 0.5, Some(0.8)),
            shape(60, 1, 0.5, Some(0.8)),
            shape(400, 4, 0.5, Some(0.8)),
        ];
        let (mut before, mut now) = (0.0, 0.0);
        for (number, shape) in shapes.iter().enumerate() {
            let (halves, trend) = shape.called(400);
            assert!(trend <= 0.05, "{number}: {trend} (by the halves alone {halves})");
            (before, now) = (before + halves / shapes.len() as f64, now + trend / shapes.len() as f64);
        }
        // What it was: about a third of them.
        assert!(before > 0.2 && now < 0.03, "{before} {now}");
    }

    #[test]
    fn a_load_that_becomes_slower_is_called_drifting() {
        let shape = |spread, growth| Shape { requests: 100, servers: 8, spread, rate: None, growth };
        assert!(shape(0.1, 1.0).called(200).1 > 0.95);
        assert!(shape(0.1, 0.6).called(200).1 > 0.5);
        let overload = Shape { requests: 100, servers: 4, spread: 0.5, rate: Some(1.5), growth: 0.0 };
        assert!(overload.called(200).1 > 0.5);
        let (rows, peak) = Shape { requests: 19, servers: 1, spread: 0.1, rate: None, growth: 2.0 }.run(1);
        assert_eq!(drift(rows.into_iter(), peak), None);
        // All at once: they wait for each other.
        assert_eq!(drift((0..40u64).map(|number| (number, 1000 + 100 * number)), 40), None);
        // Nothing that varies at all: the trend itself.
        let found = drift((0..40u64).map(|number| (number, 1000 + 100 * number)), 1).unwrap();
        assert!(found.low > 1.2 && found.ratio > 1.5, "{found:?}");
        let found = drift((0..40u64).map(|number| (number, 1000)), 1).unwrap();
        assert!((found.ratio - 1.0).abs() < 1e-9 && found.high < 1.2, "{found:?}");
    }
}

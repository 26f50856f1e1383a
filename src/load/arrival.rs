//! When requests are due.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the rate grows over a workload (`--ramp-up-strategy`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RampUp {
    /// By the same number of requests per second.
    Linear {
        /// Requests per second at the beginning.
        start: f64,
        /// At the end.
        end: f64,
    },
    /// By the same factor.
    Exponential {
        /// Requests per second at the beginning.
        start: f64,
        /// At the end.
        end: f64,
    },
}

/// The shape of a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// The next request is sent when one has ended, as many at once as the concurrency says.
    Closed,
    /// As many at once as the concurrency says, and the next ones when all of these have ended (S2's batches).
    Burst,
    /// Requests come by the clock, whatever the server does.
    Open {
        /// Requests per second.
        rate: f64,
        /// Shape of the gamma distribution of gaps: 1 = Poisson process, infinite = equal gaps.
        burstiness: f64,
        /// How the rate grows, if it does; `rate` is then the end's.
        ramp_up: Option<RampUp>,
    },
}

/// Due times in seconds, one after the other.
#[derive(Debug)]
pub struct Schedule {
    random: ChaCha8Rng,
    rate: f64,
    burstiness: f64,
    ramp_up: Option<RampUp>,
    count: Option<u64>,
    index: u64,
    at: f64,
    scale: f64,
}

impl Schedule {
    /// The due times of `count` requests (`None` = without end). With a known count and a fixed rate the last one is due
    /// at count / rate, as with vLLM's client, which scales the random gaps so that all seeds offer the same workload.
    pub fn new(count: Option<u64>, rate: f64, burstiness: f64, ramp_up: Option<RampUp>, seed: u64) -> Self {
        let mut schedule = Self {
            random: ChaCha8Rng::seed_from_u64(seed ^ 0xa441),
            rate,
            burstiness,
            ramp_up,
            count,
            index: 0,
            at: 0.0,
            scale: 1.0,
        };
        if let (Some(count), None) = (count, ramp_up) {
            let random = schedule.random.clone();
            let whole = (0..count).fold(0.0, |_, _| schedule.step());
            schedule.scale = count as f64 / rate / whole.max(f64::MIN_POSITIVE);
            (schedule.random, schedule.index, schedule.at) = (random, 0, 0.0);
        }
        schedule
    }

    /// The rate at the current request.
    fn current_rate(&self) -> f64 {
        let last = self.count.map_or(u64::MAX, |count| count.saturating_sub(1)).max(1);
        let progress = self.index as f64 / last as f64;
        match self.ramp_up {
            None => self.rate,
            Some(RampUp::Linear { start, end }) => start + (end - start) * progress,
            Some(RampUp::Exponential { start, end }) => start * (end / start).powf(progress),
        }
    }

    fn step(&mut self) -> f64 {
        let rate = self.current_rate();
        let gap = if self.burstiness.is_infinite() {
            1.0 / rate
        } else {
            gamma(&mut self.random, self.burstiness) / (rate * self.burstiness)
        };
        self.index += 1;
        self.at += gap;
        self.at
    }
}

impl Iterator for Schedule {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        if self.count.is_some_and(|count| self.index >= count) {
            return None;
        }
        let scale = self.scale;
        Some(self.step() * scale)
    }
}

/// A sample of the gamma distribution with scale 1 (Marsaglia and Tsang, 2000).
fn gamma(random: &mut ChaCha8Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(random, shape + 1.0) * random.random::<f64>().max(f64::MIN_POSITIVE).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (u1, u2): (f64, f64) = (random.random::<f64>().max(f64::MIN_POSITIVE), random.random());
        let normal = (-2.0 * u1.ln()).sqrt() * (std::f64::consts::TAU * u2).cos();
        let v = (1.0 + c * normal).powi(3);
        let u: f64 = random.random::<f64>().max(f64::MIN_POSITIVE);
        if v > 0.0 && u.ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(burstiness: f64) -> Vec<f64> {
        let due: Vec<f64> = Schedule::new(Some(4000), 4.0, burstiness, None, 1).collect();
        assert!((due[3999] - 1000.0).abs() < 1e-6 && due.windows(2).all(|pair| pair[0] <= pair[1]));
        due.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn gaps_have_the_spread_that_burstiness_says() {
        // The coefficient of variation of a gamma distribution is 1 / sqrt(shape).
        for (burstiness, expected) in [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5), (f64::INFINITY, 0.0)] {
            let gaps = gaps(burstiness);
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt() / mean;
            assert!((spread - expected).abs() < 0.1, "{burstiness}: {spread}");
        }
    }

    #[test]
    fn without_a_count_the_rate_holds_and_a_ramp_grows() {
        let due: Vec<f64> = Schedule::new(None, 10.0, f64::INFINITY, None, 1).take(20).collect();
        assert!((due[19] - 2.0).abs() < 1e-9);
        let ramp = RampUp::Linear { start: 1.0, end: 3.0 };
        let due: Vec<f64> = Schedule::new(Some(3), f64::INFINITY, f64::INFINITY, Some(ramp), 1).collect();
        let expected = [1.0, 1.5, 1.5 + 1.0 / 3.0];
        assert!(due.iter().zip(expected).all(|(due, expected)| (due - expected).abs() < 1e-9), "{due:?}");
        let ramp = RampUp::Exponential { start: 1.0, end: 4.0 };
        let due: Vec<f64> = Schedule::new(Some(3), f64::INFINITY, f64::INFINITY, Some(ramp), 1).collect();
        assert!((due[2] - 1.75).abs() < 1e-9, "{due:?}");
    }
}

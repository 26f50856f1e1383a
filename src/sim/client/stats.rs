//! The numbers of a benchmark, by vLLM's definitions. Pure.

/// What became of one request; times in nanoseconds since the benchmark began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When it was sent.
    pub sent: u64,
    /// When each token came.
    pub times: Vec<u64>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// The text that came.
    pub text: String,
    /// Why it failed.
    pub error: Option<String>,
}

impl Outcome {
    fn end(&self) -> u64 {
        self.times.last().copied().unwrap_or(self.sent)
    }

    /// Time to first token in seconds.
    pub fn ttft(&self) -> f64 {
        seconds(self.times.first().map_or(0, |first| first - self.sent))
    }

    /// Time of the whole request in seconds.
    pub fn latency(&self) -> f64 {
        seconds(self.end() - self.sent)
    }

    /// Time per output token after the first, in seconds.
    pub fn tpot(&self) -> Option<f64> {
        let tokens = self.times.len();
        (tokens > 1).then(|| (self.latency() - self.ttft()) / (tokens - 1) as f64)
    }

    /// Times between tokens in seconds.
    pub fn itls(&self) -> Vec<f64> {
        self.times.windows(2).map(|pair| seconds(pair[1] - pair[0])).collect()
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// One metric over all requests, in milliseconds. All 0 when there is no sample, as vLLM does.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation of the population.
    pub std: f64,
    /// Percentiles that were asked for, as (which, value).
    pub percentiles: Vec<(f64, f64)>,
}

impl Summary {
    fn of(samples_s: &[f64], percentiles: &[f64]) -> Summary {
        let mut sorted: Vec<f64> = samples_s.iter().map(|sample| sample * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() {
            sorted.push(0.0);
        }
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let variance = sorted.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / sorted.len() as f64;
        Summary {
            mean,
            median: percentile(&sorted, 50.0),
            std: variance.sqrt(),
            percentiles: percentiles.iter().map(|which| (*which, percentile(&sorted, *which))).collect(),
        }
    }
}

/// The percentile of sorted samples by linear interpolation, as numpy's default.
pub fn percentile(sorted: &[f64], which: f64) -> f64 {
    let at = which / 100.0 * (sorted.len().saturating_sub(1)) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => 0.0,
    }
}

/// The numbers of a whole benchmark.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Named as in vLLM's result.
pub struct Metrics {
    pub duration: f64,
    pub completed: usize,
    pub failed: usize,
    pub total_input: u64,
    pub total_output: u64,
    pub request_throughput: f64,
    pub request_goodput: Option<f64>,
    pub output_throughput: f64,
    pub total_token_throughput: f64,
    pub max_output_tokens_per_s: f64,
    pub max_concurrent_requests: u64,
    pub ttft: Summary,
    pub tpot: Summary,
    pub itl: Summary,
    pub e2el: Summary,
}

/// Computes the numbers; `goodput` holds limits in milliseconds for `ttft`, `tpot`, `e2el`.
pub fn metrics(outcomes: &[Outcome], percentiles: &[f64], goodput: &[(String, f64)]) -> Metrics {
    let good: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.error.is_none()).collect();
    let duration = seconds(outcomes.iter().map(Outcome::end).max().unwrap_or(0)).max(1e-9);
    let collect = |f: fn(&Outcome) -> Option<f64>| good.iter().filter_map(|outcome| f(outcome)).collect::<Vec<f64>>();
    let itls: Vec<f64> = good.iter().flat_map(|outcome| outcome.itls()).collect();
    let total_input = good.iter().map(|outcome| outcome.prompt_tokens).sum();
    let total_output = good.iter().map(|outcome| outcome.times.len() as u64).sum();
    let meets = |outcome: &&&Outcome| {
        goodput.iter().all(|(metric, limit_ms)| {
            let value = match metric.as_str() {
                "ttft" => outcome.ttft(),
                "tpot" => outcome.tpot().unwrap_or(0.0),
                _ => outcome.latency(),
            };
            value * 1000.0 <= *limit_ms
        })
    };
    let (tokens_per_s, concurrent) = peaks(&good);
    Metrics {
        duration,
        completed: good.len(),
        failed: outcomes.len() - good.len(),
        total_input,
        total_output,
        request_throughput: good.len() as f64 / duration,
        request_goodput: (!goodput.is_empty()).then(|| good.iter().filter(meets).count() as f64 / duration),
        output_throughput: total_output as f64 / duration,
        total_token_throughput: (total_input + total_output) as f64 / duration,
        max_output_tokens_per_s: tokens_per_s,
        max_concurrent_requests: concurrent,
        ttft: Summary::of(&collect(|outcome| Some(outcome.ttft())), percentiles),
        tpot: Summary::of(&collect(Outcome::tpot), percentiles),
        itl: Summary::of(&itls, percentiles),
        e2el: Summary::of(&collect(|outcome| Some(outcome.latency())), percentiles),
    }
}

/// The most tokens in any second and the most requests that touch one second, as vLLM 0.14.1 counts them.
fn peaks(good: &[&Outcome]) -> (f64, u64) {
    let begin = good.iter().map(|outcome| outcome.sent).min().unwrap_or(0);
    let end = good.iter().map(|outcome| outcome.end()).max().unwrap_or(0);
    let second = |time: u64| ((time - begin) / 1_000_000_000) as usize;
    let (mut tokens, mut requests) = (vec![0u64; second(end.max(begin)) + 1], vec![0u64; second(end.max(begin)) + 1]);
    for outcome in good {
        outcome.times.iter().for_each(|time| tokens[second(*time)] += 1);
        requests[second(outcome.sent)..=second(outcome.end())].iter_mut().for_each(|count| *count += 1);
    }
    (tokens.iter().max().copied().unwrap_or(0) as f64, requests.iter().max().copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_as_numpy_does() {
        // numpy.percentile([1, 2, 3, 4], [0, 25, 50, 99, 100])
        let sorted = [1.0, 2.0, 3.0, 4.0];
        for (which, expected) in [(0.0, 1.0), (25.0, 1.75), (50.0, 2.5), (99.0, 3.97), (100.0, 4.0)] {
            assert!((percentile(&sorted, which) - expected).abs() < 1e-12);
        }
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert_eq!(percentile(&[], 99.0), 0.0);
    }

    #[test]
    fn definitions_are_those_of_vllm() {
        let ms = 1_000_000;
        let outcome = |sent: u64, times: &[u64]| Outcome {
            sent: sent * ms,
            times: times.iter().map(|time| time * ms).collect(),
            prompt_tokens: 10,
            ..Outcome::default()
        };
        let failed = Outcome { error: Some("x".into()), ..Outcome::default() };
        let outcomes = [outcome(0, &[100, 150, 300]), outcome(50, &[250]), failed];
        let m = metrics(&outcomes, &[99.0], &[("ttft".into(), 150.0)]);
        assert_eq!((m.completed, m.failed, m.total_input, m.total_output), (2, 1, 20, 4));
        assert!((m.ttft.mean - 150.0).abs() < 1e-9 && (m.ttft.std - 50.0).abs() < 1e-9);
        assert!((m.tpot.mean - 100.0).abs() < 1e-9, "one token gives no TPOT");
        assert!((m.itl.median - 100.0).abs() < 1e-9);
        assert!((m.duration - 0.3).abs() < 1e-9);
        assert!((m.request_goodput.unwrap_or(0.0) - 1.0 / 0.3).abs() < 1e-9);
        assert_eq!((m.max_output_tokens_per_s, m.max_concurrent_requests), (4.0, 2));
        let none = metrics(&[], &[99.0], &[]);
        assert_eq!((none.completed, none.ttft.mean, none.request_goodput), (0, 0.0, None));
    }
}

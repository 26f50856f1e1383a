//! The figures of vLLM's benchmark: their names, units and which direction is better, each stated once.

/// A figure of `vllm bench serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is vLLM's key of the same name")]
pub enum Metric {
    Completed,
    Failed,
    Duration,
    TotalInputTokens,
    TotalOutputTokens,
    RequestThroughput,
    OutputThroughput,
    TotalTokenThroughput,
    MeanTtft,
    MedianTtft,
    StdTtft,
    P99Ttft,
    MeanTpot,
    MedianTpot,
    StdTpot,
    P99Tpot,
    MeanItl,
    MedianItl,
    StdItl,
    P99Itl,
    MeanE2el,
    MedianE2el,
    StdE2el,
    P99E2el,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Requests per second.
    RequestsPerSecond,
    /// Tokens per second.
    TokensPerSecond,
    /// Devices (GPUs, XPUs).
    Devices,
    /// Days of one device.
    DeviceDays,
    /// Days of one node.
    NodeDays,
    /// One figure over another.
    Ratio,
    /// Parts of a hundred.
    Percent,
    /// Money, in the currency of the user's price file.
    Money,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The larger one.
    Higher,
    /// The smaller one.
    Lower,
}

/// Number of metrics.
const COUNT: usize = 24;

/// vLLM's key, our words, unit; in the order of [`Metric`].
const FACTS: [(&str, &str, Unit); COUNT] = [
    ("completed", "Completed requests", Unit::Requests),
    ("failed", "Failed requests", Unit::Requests),
    ("duration", "Duration of the measurement", Unit::Seconds),
    ("total_input_tokens", "Input tokens", Unit::Tokens),
    ("total_output_tokens", "Output tokens", Unit::Tokens),
    ("request_throughput", "Request throughput", Unit::RequestsPerSecond),
    ("output_throughput", "Output throughput", Unit::TokensPerSecond),
    ("total_token_throughput", "Total token throughput", Unit::TokensPerSecond),
    ("mean_ttft_ms", "Mean TTFT", Unit::Milliseconds),
    ("median_ttft_ms", "Median TTFT", Unit::Milliseconds),
    ("std_ttft_ms", "Standard deviation of TTFT", Unit::Milliseconds),
    ("p99_ttft_ms", "P99 TTFT", Unit::Milliseconds),
    ("mean_tpot_ms", "Mean TPOT", Unit::Milliseconds),
    ("median_tpot_ms", "Median TPOT", Unit::Milliseconds),
    ("std_tpot_ms", "Standard deviation of TPOT", Unit::Milliseconds),
    ("p99_tpot_ms", "P99 TPOT", Unit::Milliseconds),
    ("mean_itl_ms", "Mean ITL", Unit::Milliseconds),
    ("median_itl_ms", "Median ITL", Unit::Milliseconds),
    ("std_itl_ms", "Standard deviation of ITL", Unit::Milliseconds),
    ("p99_itl_ms", "P99 ITL", Unit::Milliseconds),
    ("mean_e2el_ms", "Mean E2E latency", Unit::Milliseconds),
    ("median_e2el_ms", "Median E2E latency", Unit::Milliseconds),
    ("std_e2el_ms", "Standard deviation of E2E latency", Unit::Milliseconds),
    ("p99_e2el_ms", "P99 E2E latency", Unit::Milliseconds),
];

impl Metric {
    /// Every metric, in vLLM's order.
    pub const ALL: [Metric; COUNT] = [
        Metric::Completed,
        Metric::Failed,
        Metric::Duration,
        Metric::TotalInputTokens,
        Metric::TotalOutputTokens,
        Metric::RequestThroughput,
        Metric::OutputThroughput,
        Metric::TotalTokenThroughput,
        Metric::MeanTtft,
        Metric::MedianTtft,
        Metric::StdTtft,
        Metric::P99Ttft,
        Metric::MeanTpot,
        Metric::MedianTpot,
        Metric::StdTpot,
        Metric::P99Tpot,
        Metric::MeanItl,
        Metric::MedianItl,
        Metric::StdItl,
        Metric::P99Itl,
        Metric::MeanE2el,
        Metric::MedianE2el,
        Metric::StdE2el,
        Metric::P99E2el,
    ];

    /// The metric with this key.
    pub fn of(key: &str) -> Option<Self> {
        Metric::ALL.into_iter().find(|metric| metric.key() == key)
    }

    /// vLLM's key.
    pub fn key(self) -> &'static str {
        FACTS[self as usize].0
    }

    /// In words.
    pub fn label(self) -> &'static str {
        FACTS[self as usize].1
    }

    /// Its unit: the one place that says so (the predecessor called output tokens per second "req/s").
    pub fn unit(self) -> Unit {
        FACTS[self as usize].2
    }

    /// Which direction is better; `None` for what only describes.
    pub fn better(self) -> Option<Better> {
        match self.unit() {
            Unit::RequestsPerSecond | Unit::TokensPerSecond => Some(Better::Higher),
            Unit::Milliseconds => Some(Better::Lower),
            Unit::Requests
            | Unit::Tokens
            | Unit::Seconds
            | Unit::Devices
            | Unit::DeviceDays
            | Unit::NodeDays
            | Unit::Ratio
            | Unit::Percent
            | Unit::Money => None,
        }
    }
}

impl Unit {
    /// As shown after a figure.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Tokens => "tokens",
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::RequestsPerSecond => "req/s",
            Unit::TokensPerSecond => "tok/s",
            Unit::Devices => "devices",
            Unit::DeviceDays => "device-days",
            Unit::NodeDays => "node-days",
            Unit::Ratio => "x",
            Unit::Percent => "%",
            Unit::Money => "of the price file's currency",
        }
    }
}

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

/// The figures of one row; what is not known is absent, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics(Sparse<COUNT>);

impl Metrics {
    /// No figure.
    pub fn none() -> Self {
        Self::default()
    }

    /// A figure.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(metric as usize)
    }

    /// Sets or removes a figure; NaN and infinities count as absent.
    pub fn set(&mut self, metric: Metric, value: Option<f64>) {
        self.0.set(metric as usize, value);
    }

    /// Only the counts of requests: what a result that is not valid may still say.
    pub fn counts_only(&self) -> Self {
        let mut counts = Self::default();
        for metric in [Metric::Completed, Metric::Failed] {
            counts.set(metric, self.get(metric));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_stand_in_the_order_of_the_metrics() {
        for (i, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, i);
        }
        assert_eq!(Metric::P99E2el.key(), "p99_e2el_ms");
        assert_eq!(Metric::MeanTpot.key(), "mean_tpot_ms");
    }

    #[test]
    fn trap_5_output_throughput_is_in_tokens_per_second() {
        assert_eq!(Metric::OutputThroughput.unit().symbol(), "tok/s");
        assert_eq!(Metric::RequestThroughput.unit().symbol(), "req/s");
    }

    #[test]
    fn what_is_not_finite_is_absent() {
        let mut metrics = Metrics::none();
        for (metric, value) in [(Metric::Completed, f64::NAN), (Metric::Failed, f64::INFINITY), (Metric::Duration, 1.5)]
        {
            metrics.set(metric, Some(value));
        }
        assert_eq!(Metric::ALL.map(|metric| metrics.get(metric)).into_iter().flatten().collect::<Vec<_>>(), [1.5]);
        assert_eq!((Metric::of("mean_itl_ms"), Metric::of("x")), (Some(Metric::MeanItl), None));
    }
}

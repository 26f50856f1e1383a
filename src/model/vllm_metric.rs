//! The metrics of vLLM's benchmark: their names, units and which direction is better, each stated once.

use super::StartPhase;

/// A metric of `vllm bench serve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is vLLM's key of the same name")]
pub enum VllmMetric {
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

/// What a metric counts.
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
    /// One metric over another.
    Ratio,
    /// Parts of a hundred.
    Percent,
    /// Money, in the currency of the user's price file.
    Money,
    /// Watts.
    Watts,
    /// Joules.
    Joules,
    /// Degrees Celsius.
    Celsius,
    /// Megahertz.
    Megahertz,
    /// GiB.
    Gibibytes,
}

/// Which of two metrics is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The larger one.
    Higher,
    /// The smaller one.
    Lower,
}

/// Number of metrics.
const COUNT: usize = 24;

/// vLLM's key, our words, unit; in the order of [`VllmMetric`].
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

impl VllmMetric {
    /// Every metric, in vLLM's order.
    pub const ALL: [VllmMetric; COUNT] = [
        VllmMetric::Completed,
        VllmMetric::Failed,
        VllmMetric::Duration,
        VllmMetric::TotalInputTokens,
        VllmMetric::TotalOutputTokens,
        VllmMetric::RequestThroughput,
        VllmMetric::OutputThroughput,
        VllmMetric::TotalTokenThroughput,
        VllmMetric::MeanTtft,
        VllmMetric::MedianTtft,
        VllmMetric::StdTtft,
        VllmMetric::P99Ttft,
        VllmMetric::MeanTpot,
        VllmMetric::MedianTpot,
        VllmMetric::StdTpot,
        VllmMetric::P99Tpot,
        VllmMetric::MeanItl,
        VllmMetric::MedianItl,
        VllmMetric::StdItl,
        VllmMetric::P99Itl,
        VllmMetric::MeanE2el,
        VllmMetric::MedianE2el,
        VllmMetric::StdE2el,
        VllmMetric::P99E2el,
    ];

    /// The metric with this key.
    pub fn of(key: &str) -> Option<Self> {
        VllmMetric::ALL.into_iter().find(|metric| metric.key() == key)
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
            | Unit::Money
            | Unit::Watts
            | Unit::Joules
            | Unit::Celsius
            | Unit::Megahertz
            | Unit::Gibibytes => None,
        }
    }
}

impl Unit {
    /// As shown after a metric.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Tokens => "tokens",
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::Watts => "W",
            Unit::Joules => "J",
            Unit::Celsius => "°C",
            Unit::Megahertz => "MHz",
            Unit::Gibibytes => "GiB",
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

/// Every metric with a fixed key that is no [`VllmMetric`]: key, words, unit, direction.
pub(crate) const DERIVED: [(&str, &str, Unit, Option<Better>); 39] = [
    ("output_tps_per_gpu", "Output tok/s per device", Unit::TokensPerSecond, Some(Better::Higher)),
    ("input_tps_per_gpu", "Input tok/s per device", Unit::TokensPerSecond, Some(Better::Higher)),
    ("total_tps_per_gpu", "Total tok/s per device", Unit::TokensPerSecond, Some(Better::Higher)),
    ("output_tps_per_user", "Output tok/s per user", Unit::TokensPerSecond, Some(Better::Higher)),
    ("gpu_days_to_process_1b_tokens", "Device-days per 1e9 output tokens", Unit::DeviceDays, Some(Better::Lower)),
    ("node_days_to_process_1b_tokens", "Node-days per 1e9 output tokens", Unit::NodeDays, Some(Better::Lower)),
    ("gpus_for_1b_tokens_per_hour", "Devices for 1e9 output tokens per hour", Unit::Devices, Some(Better::Lower)),
    ("cost_per_1m_output_tokens", "Cost per 1e6 output tokens", Unit::Money, Some(Better::Lower)),
    ("energy_cost_per_1m_output_tokens", "Cost of energy per 1e6 output tokens", Unit::Money, Some(Better::Lower)),
    ("cost_per_1m_tokens", "Cost per 1e6 tokens, input and output", Unit::Money, Some(Better::Lower)),
    ("speedup", "Speed-up per device against the baseline", Unit::Ratio, Some(Better::Higher)),
    ("devices", "Devices", Unit::Devices, None),
    ("mean_input_tokens", "Mean input tokens", Unit::Tokens, None),
    ("mean_output_tokens", "Mean output tokens", Unit::Tokens, None),
    ("inference_per_1k_per_gpu", "Device-seconds per 1,000 requests", Unit::Seconds, Some(Better::Lower)),
    ("e2e_per_1k_per_gpu", "Device-seconds per 1,000 requests, start included", Unit::Seconds, Some(Better::Lower)),
    ("startup_s", "Server start", Unit::Seconds, Some(Better::Lower)),
    ("e2e_s", "Whole experiment", Unit::Seconds, None),
    ("avg_running_reqs", "Running requests on average", Unit::Requests, None),
    ("avg_waiting_reqs", "Waiting requests on average", Unit::Requests, None),
    ("avg_gpu_kvc_usage", "KV cache use on average", Unit::Percent, None),
    ("avg_prefix_cache_hit_rate", "Prefix cache hit rate on average", Unit::Percent, None),
    ("preemptions", "Preemptions", Unit::Requests, Some(Better::Lower)),
    // vLLM's own, where the user sets goals (`--goodput`): requests per second that keep them.
    ("request_goodput", "Request goodput", Unit::RequestsPerSecond, Some(Better::Higher)),
    // Devices and host, sampled while requests run.
    ("mean_power_w", "Power of the devices on average", Unit::Watts, Some(Better::Lower)),
    ("max_power_w", "Power of the devices at most", Unit::Watts, Some(Better::Lower)),
    ("idle_power_w", "Power of the devices before the first request", Unit::Watts, Some(Better::Lower)),
    ("energy_j", "Energy of the devices", Unit::Joules, Some(Better::Lower)),
    ("joules_per_output_token", "Energy per output token", Unit::Joules, Some(Better::Lower)),
    ("output_tokens_per_joule", "Output tok/s per watt", Unit::Ratio, Some(Better::Higher)),
    ("mean_utilization_pct", "Use of the devices on average", Unit::Percent, None),
    ("max_device_memory_gib", "Device memory at most", Unit::Gibibytes, None),
    ("max_temperature_c", "Temperature of the hottest device at most", Unit::Celsius, Some(Better::Lower)),
    ("mean_clock_mhz", "Clock of the devices on average", Unit::Megahertz, None),
    ("throttled_pct", "Samples in which a device was throttled", Unit::Percent, Some(Better::Lower)),
    ("mean_server_cpu_pct", "Processor use of the server (100 % = one core)", Unit::Percent, None),
    ("mean_client_cpu_pct", "Processor use of the client (100 % = one core)", Unit::Percent, None),
    ("max_host_memory_gib", "Host memory at most", Unit::Gibibytes, None),
    ("host_energy_j", "Energy of the processors", Unit::Joules, Some(Better::Lower)),
];

/// Phases of a server's start that take time.
pub(crate) const PHASES: [StartPhase; 9] = [
    StartPhase::Launching,
    StartPhase::Importing,
    StartPhase::Configuring,
    StartPhase::Downloading,
    StartPhase::Loading,
    StartPhase::Profiling,
    StartPhase::Compiling,
    StartPhase::Capturing,
    StartPhase::StartingApi,
];

/// The key of the seconds in a phase: `startup_starting_api_s`.
pub(crate) fn phase_key(phase: StartPhase) -> String {
    format!("startup_{}_s", phase.word().replace('-', "_"))
}

/// The phase whose seconds a key holds.
pub(crate) fn startup_phase(key: &str) -> Option<StartPhase> {
    PHASES.into_iter().find(|phase| phase_key(*phase) == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_stand_in_the_order_of_the_metrics() {
        for (i, metric) in VllmMetric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, i);
        }
        assert_eq!(VllmMetric::P99E2el.key(), "p99_e2el_ms");
        assert_eq!(VllmMetric::MeanTpot.key(), "mean_tpot_ms");
    }

    #[test]
    fn trap_5_output_throughput_is_in_tokens_per_second() {
        assert_eq!(VllmMetric::OutputThroughput.unit().symbol(), "tok/s");
        assert_eq!(VllmMetric::RequestThroughput.unit().symbol(), "req/s");
    }
}

//! Numbers that every release of vLLM refuses: the bounds of its configuration classes (`Field(gt=…, le=…)` in `vllm/config`)
//! and of its benchmark client, which no help text tells. Data only, with the one question that is asked of it.

/// What a number must be.
#[derive(Debug, Clone, Copy)]
struct Range {
    flag: &'static str,
    least: f64,
    /// The least one itself is too small.
    above: bool,
    most: f64,
    /// The largest one itself is too large.
    below: bool,
    expected: &'static str,
}

const fn at_least(flag: &'static str, least: f64, expected: &'static str) -> Range {
    Range { flag, least, above: false, most: f64::INFINITY, below: false, expected }
}

const fn more_than_zero(flag: &'static str, most: f64, expected: &'static str) -> Range {
    Range { flag, least: 0.0, above: true, most, below: false, expected }
}

const ONE: &str = "1 or more";
const ZERO: &str = "0 or more";
const POSITIVE: &str = "more than 0";
const PART: &str = "more than 0 and at most 1";

const SERVE: &[Range] = &[
    more_than_zero("gpu-memory-utilization", 1.0, PART),
    at_least("tensor-parallel-size", 1.0, ONE),
    at_least("pipeline-parallel-size", 1.0, ONE),
    at_least("data-parallel-size", 1.0, ONE),
    at_least("max-num-seqs", 1.0, ONE),
    at_least("max-num-batched-tokens", 1.0, ONE),
    at_least("max-num-partial-prefills", 1.0, ONE),
    at_least("max-long-partial-prefills", 1.0, ONE),
    at_least("long-prefill-token-threshold", 0.0, ZERO),
    at_least("stream-interval", 1.0, ONE),
    at_least("max-loras", 1.0, ONE),
    at_least("swap-space", 0.0, ZERO),
    at_least("cpu-offload-gb", 0.0, ZERO),
    // -1 stands for the longest that fits.
    at_least("max-model-len", -1.0, "-1 or more"),
    at_least("max-logprobs", -1.0, "-1 or more"),
];

const BENCH: &[Range] = &[
    at_least("num-prompts", 1.0, ONE),
    at_least("max-concurrency", 1.0, ONE),
    at_least("num-warmups", 0.0, ZERO),
    at_least("random-input-len", 0.0, ZERO),
    at_least("random-output-len", 1.0, ONE),
    at_least("random-prefix-len", 0.0, ZERO),
    Range {
        flag: "random-range-ratio",
        least: 0.0,
        above: false,
        most: 1.0,
        below: true,
        expected: "0 or more and less than 1",
    },
    more_than_zero("request-rate", f64::INFINITY, POSITIVE),
    more_than_zero("burstiness", f64::INFINITY, POSITIVE),
    at_least("temperature", 0.0, ZERO),
    more_than_zero("top-p", 1.0, PART),
    Range { flag: "min-p", least: 0.0, above: false, most: 1.0, below: false, expected: "from 0 to 1" },
];

/// What a number after this flag must be, where it is not; `None` for words, for flags without known bounds, and within them.
fn expected(ranges: &[Range], flag: &str, value: &str) -> Option<&'static str> {
    let flag = flag.replace('_', "-");
    let range = ranges.iter().find(|range| range.flag == flag)?;
    let number = value.trim().parse::<f64>().ok()?;
    let low = if range.above { number <= range.least } else { number < range.least };
    let high = if range.below { number >= range.most } else { number > range.most };
    (low || high || number.is_nan()).then_some(range.expected)
}

/// As [`expected`], for `vllm serve`.
pub fn of_serve(flag: &str, value: &str) -> Option<&'static str> {
    expected(SERVE, flag, value)
}

/// As [`expected`], for `vllm bench serve`.
pub fn of_bench(flag: &str, value: &str) -> Option<&'static str> {
    expected(BENCH, flag, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::{Asked, Help};

    #[test]
    fn numbers_out_of_range_are_refused_and_all_others_pass() {
        assert_eq!(of_serve("gpu-memory-utilization", "1.7"), Some(PART));
        for (flag, value) in [
            ("gpu_memory_utilization", "0"),
            ("max-num-seqs", "0"),
            ("tensor-parallel-size", "-2"),
            ("max-model-len", "-3"),
        ] {
            assert!(of_serve(flag, value).is_some(), "{flag} {value}");
        }
        for (flag, value) in [
            ("gpu-memory-utilization", "1"),
            ("gpu-memory-utilization", "0.05"),
            ("max-model-len", "-1"),
            ("max-model-len", "auto"),
            ("max-num-batched-tokens", "8k"),
            ("seed", "-5"),
        ] {
            assert_eq!(of_serve(flag, value), None, "{flag} {value}");
        }
        assert!(of_bench("random-range-ratio", "1").is_some() && of_bench("request-rate", "-1").is_some());
        assert_eq!((of_bench("request-rate", "inf"), of_bench("temperature", "0")), (None, None));
    }

    #[test]
    fn the_flags_with_bounds_are_flags_of_a_release_that_we_know() {
        let knows = |serve: bool, flag: &str| {
            Help::RECORDED.iter().any(|version| {
                let help = Help::recorded(version).unwrap();
                let values = ["1".to_owned()];
                let known = if serve { &help.serve } else { &help.bench };
                known.check(&Asked { flag, values: &values }).is_none()
            })
        };
        let unknown: Vec<&str> =
            SERVE.iter().filter(|range| !knows(true, range.flag)).map(|range| range.flag).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let unknown: Vec<&str> =
            BENCH.iter().filter(|range| !knows(false, range.flag)).map(|range| range.flag).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

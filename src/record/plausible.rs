//! Whether what a result says can be true, for every source: our own clients, and other programs. Pure.
//!
//! What is impossible makes a result invalid; what is merely suspicious is a warning. Nothing is corrected here.

use serde_json::{Map, Value};

use crate::bounded;

/// The plain values of a result.
pub trait ResultValues {
    /// A value as the file has it.
    fn value(&self, key: &str) -> Option<&Value>;
    /// A number under a key.
    fn number(&self, key: &str) -> Option<f64>;
    /// Calls `take` with every key that is a time in milliseconds, and its number.
    fn each_time(&self, take: &mut dyn FnMut(&str, f64));
}

impl ResultValues for Map<String, Value> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.get(key)
    }
    fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }
    fn each_time(&self, take: &mut dyn FnMut(&str, f64)) {
        let numbers = self.iter().filter(|(key, _)| key.ends_with("_ms"));
        numbers.filter_map(|(key, value)| Some((key, value.as_f64()?))).for_each(|(key, value)| take(key, value));
    }
}

/// The latencies of vLLM's results.
const LATENCIES: [&str; 4] = ["ttft", "tpot", "itl", "e2el"];
/// Their keys: mean, smallest, median, largest, 99th percentile.
const KEYS: [[&str; 5]; 4] = [
    ["mean_ttft_ms", "min_ttft_ms", "median_ttft_ms", "max_ttft_ms", "p99_ttft_ms"],
    ["mean_tpot_ms", "min_tpot_ms", "median_tpot_ms", "max_tpot_ms", "p99_tpot_ms"],
    ["mean_itl_ms", "min_itl_ms", "median_itl_ms", "max_itl_ms", "p99_itl_ms"],
    ["mean_e2el_ms", "min_e2el_ms", "median_e2el_ms", "max_e2el_ms", "p99_e2el_ms"],
];
/// No request takes eleven days, in milliseconds; no measurement does, in seconds.
const MOST_MS: f64 = 1e9;
const MOST_SECONDS: f64 = 1e6;
/// No server makes as many requests or tokens per second.
const MOST_PER_SECOND: f64 = 1e9;
/// No measurement has as many requests or tokens.
const MOST_COUNTED: f64 = 1e15;
/// Rounding of what a program writes.
const ROUNDING: f64 = 1e-6;
/// Metrics that contradict each other differ by more than this part.
const CONTRADICTION: f64 = 0.05;
/// No device makes a token of an answer in less time, and no server begins one, in milliseconds.
const LEAST_TPOT_MS: f64 = 0.1;
const LEAST_TTFT_MS: f64 = 0.2;
/// Parts of the requests that may be in flight on average: fewer, and their times are too short for the duration; more, too long.
const IN_FLIGHT: (f64, f64) = (0.05, 2.0);

/// Whether a client wrote that a number is none (`NaN`): then it is not known, and says nothing against the others.
pub fn is_not_known(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| bounded::NO_NUMBERS.contains(&text))
}

/// What of a result cannot be true; `None` where all can.
pub fn impossible(values: &impl ResultValues) -> Option<String> {
    let completed = values.number("completed").unwrap_or(0.0);
    outside(values, completed).or_else(|| impossible_times(values)).or_else(|| nothing_done(values, completed))
}

/// Counts, rates and the duration, each by itself.
fn outside(values: &impl ResultValues, completed: f64) -> Option<String> {
    for key in ["total_input_tokens", "total_output_tokens", "completed"] {
        let Some(value) = values.number(key) else { continue };
        if !(0.0..=MOST_COUNTED).contains(&value) || value.fract() != 0.0 {
            return Some(format!("`{key}` is {value}: a count was expected"));
        }
    }
    if values.value("duration").is_some_and(|value| !value.is_number() && !is_not_known(Some(value))) {
        return Some("`duration` is no number: seconds above 0 were expected".to_owned());
    }
    if let Some(duration) = values.number("duration")
        && !(duration > 0.0 && duration <= MOST_SECONDS)
    {
        return Some(format!("`duration` is {duration}: seconds above 0 were expected"));
    }
    for key in ["request_goodput", "max_output_tokens_per_s", "max_concurrent_requests"] {
        if let Some(value) = values.number(key).filter(|value| !(0.0..=MOST_PER_SECOND).contains(value)) {
            return Some(format!("`{key}` is {value}: no server has such a rate"));
        }
    }
    for (key, made) in [
        ("request_throughput", Some(completed)),
        ("output_throughput", values.number("total_output_tokens")),
        ("total_token_throughput", values.number("total_output_tokens")),
    ] {
        let Some(value) = values.number(key) else { continue };
        if !(0.0..=MOST_PER_SECOND).contains(&value) {
            return Some(format!("`{key}` is {value}: no server has such a rate"));
        }
        if value == 0.0 && made.is_some_and(|made| made > 0.0) {
            return Some(format!("`{key}` is 0 though requests were completed"));
        }
    }
    None
}

/// Times that are none, and percentiles out of order.
fn impossible_times(values: &impl ResultValues) -> Option<String> {
    let mut wrong: Option<String> = None;
    // Latency, percentile, value.
    let mut quantiles: Vec<(usize, f64, f64)> = Vec::with_capacity(16);
    values.each_time(&mut |key, value| {
        if wrong.is_some() {
            return;
        }
        if !(0.0..=MOST_MS).contains(&value) {
            wrong = Some(format!("`{key}` is {value}: no request takes such a time in milliseconds"));
        } else if let Some((latency, percentile)) = quantile(key) {
            quantiles.push((latency, percentile, value));
        }
    });
    if wrong.is_some() {
        return wrong;
    }
    quantiles.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let in_order = quantiles.windows(2).find_map(|pair| {
        let [(latency, low, below), (other, high, above)] = pair else { return None };
        (latency == other && low < high && *below > above * (1.0 + ROUNDING) + ROUNDING).then(|| {
            let [lower, higher] = [low, high].map(|percentile| key_of(values, *latency, *percentile));
            format!("`{lower}` is {below}, above `{higher}`, which is {above}")
        })
    });
    in_order.or_else(|| impossible_means(values))
}

/// The key of a percentile, as the result has it.
fn key_of(values: &impl ResultValues, latency: usize, percentile: f64) -> String {
    let mut found = String::new();
    values.each_time(&mut |key, _| {
        if quantile(key) == Some((latency, percentile)) {
            found = key.to_owned();
        }
    });
    found
}

/// Means that no such values have: below the smallest, above the largest, or below half of the median (half of all values, of
/// which none is below 0, are at least the median).
fn impossible_means(values: &impl ResultValues) -> Option<String> {
    KEYS.iter().zip(LATENCIES).find_map(|([mean, min, median, max, _], latency)| {
        let [mean, min, median, max] = [mean, min, median, max].map(|key| values.number(key));
        let mean = mean?;
        let slack = |bound: f64| bound * CONTRADICTION + ROUNDING;
        let low = min.into_iter().chain(median.map(|median| median / 2.0)).fold(0.0, f64::max);
        let high = max.unwrap_or(f64::INFINITY);
        (mean < low - slack(low) || mean > high + slack(high)).then(|| {
            format!(
                "`mean_{latency}_ms` is {mean}, which contradicts the median, the smallest or the largest beside it"
            )
        })
    })
}

/// The statistic and the number of the latency that a key names: `p99`, 0 for `p99_ttft_ms`.
fn latency_of(key: &str) -> Option<(&str, usize)> {
    let (statistic, latency) = key.strip_suffix("_ms")?.rsplit_once('_')?;
    Some((statistic, LATENCIES.iter().position(|known| *known == latency)?))
}

/// Which percentile of which latency a key names.
fn quantile(key: &str) -> Option<(usize, f64)> {
    let (statistic, latency) = latency_of(key)?;
    let percentile = match statistic {
        "min" => 0.0,
        "median" => 50.0,
        "max" => 100.0,
        other => other.strip_prefix('p')?.parse().ok()?,
    };
    (0.0..=100.0).contains(&percentile).then_some((latency, percentile))
}

/// Completed requests that took no time or made no token.
fn nothing_done(values: &impl ResultValues, completed: f64) -> Option<String> {
    if completed <= 0.0 {
        return None;
    }
    let zero = |key: &str| values.number(key) == Some(0.0);
    if zero("total_output_tokens") && values.number("mean_ttft_ms").is_some() {
        return Some(format!("{completed:.0} requests were completed, and no answer has a token"));
    }
    // Answers that are not streamed have no times of tokens: clients write 0 under all of these keys then.
    let times = ["mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms"];
    let streamed = times.into_iter().any(|key| values.number(key).is_some_and(|time| time != 0.0));
    let key =
        ["mean_ttft_ms", "mean_e2el_ms"].into_iter().find(|key| zero(key) && (streamed || *key != "mean_ttft_ms"))?;
    Some(format!("`{key}` is 0: no answer takes no time"))
}

/// What of a result contradicts the rest of it, or is nothing that was ever measured.
pub fn suspicious(values: &impl ResultValues) -> Vec<String> {
    let mut found = contradictions(values);
    let number = |key: &str| values.number(key);
    let per_answer = number("total_output_tokens").zip(number("completed")).map(|(tokens, answers)| tokens / answers);
    if let Some(tpot) = number("mean_tpot_ms")
        && per_answer.is_some_and(|tokens| tokens > 1.0)
        && tpot < LEAST_TPOT_MS
    {
        found.push(format!("a mean TPOT of {tpot:.4} ms is faster than any device: seconds in place of milliseconds?"));
    }
    if let Some(ttft) = number("mean_ttft_ms").filter(|ttft| *ttft > 0.0 && *ttft < LEAST_TTFT_MS) {
        found.push(format!("a mean TTFT of {ttft:.4} ms is faster than any server: seconds in place of milliseconds?"));
    }
    if let (Some(ttft), Some(e2el)) = (number("mean_ttft_ms"), number("mean_e2el_ms"))
        && ttft > e2el * (1.0 + CONTRADICTION)
    {
        found.push(format!("the mean TTFT of {ttft:.2} ms is above the mean E2E latency of {e2el:.2} ms"));
    }
    found.extend(times_against_duration(values, per_answer));
    found.extend(beyond_the_rest(values));
    found
}

/// Times that are longer than the whole measurement, means above the 99th percentile, rates beyond those that hold them, prompts
/// without a token.
fn beyond_the_rest(values: &impl ResultValues) -> Vec<String> {
    let number = |key: &str| values.number(key);
    let mut found = Vec::new();
    if let Some(duration) = number("duration").filter(|duration| *duration > 0.0) {
        let most = duration * 1e3 * (1.0 + CONTRADICTION);
        values.each_time(&mut |key, value| {
            if value > most && latency_of(key).is_some() {
                found.push(format!("`{key}` is {value:.2} ms, longer than the whole measurement of {duration:.2} s"));
            }
        });
    }
    // Of the gaps between tokens there are very many: a few of each thousand, each as long as a prompt takes to compute, lift their
    // mean above the 99th percentile.
    for ([mean_key, .., p99_key], _) in KEYS.iter().zip(LATENCIES).filter(|(_, latency)| *latency != "itl") {
        if let (Some(mean), Some(p99)) = (number(mean_key), number(p99_key))
            && mean > p99 * (1.0 + CONTRADICTION) + ROUNDING
        {
            found.push(format!("`{mean_key}` is {mean:.2}, above `{p99_key}`, which is {p99:.2}"));
        }
    }
    if let (Some(good), Some(all)) = (number("request_goodput"), number("request_throughput"))
        && good > all * (1.0 + CONTRADICTION)
    {
        found.push(format!("`request_goodput` is {good:.2}, above `request_throughput`, which is {all:.2}"));
    }
    if let (Some(asked), Some(completed)) = (number("num_prompts"), number("completed"))
        && asked > 0.0
        && completed > asked
    {
        found.push(format!("`completed` is {completed:.0}, above `num_prompts`, which is {asked:.0}"));
    }
    if number("total_input_tokens") == Some(0.0) && number("completed").is_some_and(|completed| completed > 0.0) {
        found.push("`total_input_tokens` is 0, and requests were completed".to_owned());
    }
    found
}

/// Rates that differ from counts over the duration.
fn contradictions(values: &impl ResultValues) -> Vec<String> {
    let number = |key: &str| values.number(key);
    let Some(duration) = number("duration").filter(|duration| *duration > 0.0) else { return Vec::new() };
    let tokens = number("total_input_tokens").zip(number("total_output_tokens")).map(|(input, output)| input + output);
    let rates = [
        ("request_throughput", number("completed"), "requests"),
        ("output_throughput", number("total_output_tokens"), "output tokens"),
        ("total_token_throughput", tokens, "tokens"),
    ];
    let contradiction = |(key, count, what): (&str, Option<f64>, &str)| {
        let (stated, count) = (number(key)?, count?);
        let counted = count / duration;
        ((stated - counted).abs() > counted.max(stated) * CONTRADICTION).then(|| {
            format!("`{key}` is {stated:.2}, but {count:.0} {what} in {duration:.2} s are {counted:.2} per second")
        })
    };
    rates.into_iter().filter_map(contradiction).collect()
}

/// By Little's law, requests in flight are the rate times the latency: neither nearly none nor more than were sent at once.
fn times_against_duration(values: &impl ResultValues, per_answer: Option<f64>) -> Option<String> {
    let number = |key: &str| values.number(key);
    let (completed, duration) = (number("completed")?, number("duration").filter(|duration| *duration > 0.0)?);
    let estimated = || Some(number("mean_ttft_ms")? + number("mean_tpot_ms")? * (per_answer? - 1.0).max(0.0));
    let latency = number("mean_e2el_ms").or_else(estimated)?;
    let in_flight = completed * latency / 1e3 / duration;
    let most = number("max_concurrency").filter(|most| *most >= 1.0).map_or(completed, |most| most.min(completed));
    let endless = values.value("request_rate").is_some_and(|rate| {
        let is_endless = |text: &str| ["inf", "infinity"].iter().any(|word| text.eq_ignore_ascii_case(word));
        rate.as_str().is_some_and(is_endless) || rate.as_f64().is_some_and(f64::is_infinite)
    });
    let ramps = values.value("ramp_up_strategy").is_some_and(|ramp| !ramp.is_null());
    let what = if in_flight > most * IN_FLIGHT.1 {
        "long"
    } else if in_flight < most * IN_FLIGHT.0 && endless && !ramps {
        "short"
    } else {
        return None;
    };
    Some(format!(
        "a mean latency of {latency:.2} ms is too {what} for {completed:.0} requests in {duration:.2} s, {most:.0} of them at once"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(change: Value) -> Map<String, Value> {
        let whole = json!({"completed": 10, "duration": 4.0, "total_input_tokens": 320, "total_output_tokens": 640,
            "request_throughput": 2.5, "output_throughput": 160.0, "total_token_throughput": 240.0, "request_rate": "inf",
            "max_concurrency": 4, "mean_ttft_ms": 85.0, "median_ttft_ms": 80.0, "p99_ttft_ms": 120.0, "mean_tpot_ms": 20.0,
            "median_tpot_ms": 20.0, "p99_tpot_ms": 25.0, "mean_e2el_ms": 1345.0});
        let (Value::Object(mut whole), Value::Object(change)) = (whole, change) else { panic!() };
        whole.extend(change);
        whole
    }

    #[test]
    fn a_true_result_is_neither_impossible_nor_suspicious() {
        let whole = result(json!({}));
        assert_eq!((impossible(&whole), suspicious(&whole)), (None, vec![]));
        // One token an answer has no time between tokens.
        let single = json!({"total_output_tokens": 10, "output_throughput": 2.5, "total_token_throughput": 82.5,
            "mean_tpot_ms": 0.0, "median_tpot_ms": 0.0, "p99_tpot_ms": 0.0, "mean_e2el_ms": null, "max_concurrency": null,
            "request_rate": 3.0});
        assert_eq!((impossible(&result(single.clone())), suspicious(&result(single))), (None, vec![]));
        // A gap as long as a prompt takes to compute, once in two hundred, is more than the other 199 together.
        let gaps = json!({"mean_itl_ms": 31.0, "median_itl_ms": 20.0, "p99_itl_ms": 24.0, "num_prompts": 10});
        assert_eq!((impossible(&result(gaps.clone())), suspicious(&result(gaps))), (None, vec![]));
    }

    #[test]
    fn what_cannot_be_is_named_with_its_key_and_value() {
        for (change, key, words) in [
            (json!({"mean_ttft_ms": -25.0}), "mean_ttft_ms", "is -25"),
            (json!({"p99_tpot_ms": 1e308}), "p99_tpot_ms", "no request takes"),
            (json!({"std_ttft_ms": -1.0}), "std_ttft_ms", "is -1"),
            (json!({"median_ttft_ms": 130.0}), "median_ttft_ms", "above `p99_ttft_ms`"),
            (json!({"p90_ttft_ms": 130.0}), "p90_ttft_ms", "above `p99_ttft_ms`"),
            (json!({"duration": 0.0}), "duration", "is 0"),
            (json!({"duration": -4.0}), "duration", "is -4"),
            (json!({"output_throughput": -1.0}), "output_throughput", "is -1"),
            (json!({"request_throughput": 1e308}), "request_throughput", "no server"),
            (json!({"output_throughput": 0.0}), "output_throughput", "is 0 though"),
            (json!({"total_output_tokens": -640}), "total_output_tokens", "a count"),
            (json!({"total_input_tokens": 3.5}), "total_input_tokens", "a count"),
            (json!({"mean_ttft_ms": 0.0}), "mean_ttft_ms", "contradicts the median"),
            (json!({"mean_ttft_ms": 0.0, "median_ttft_ms": 0.0}), "mean_ttft_ms", "no answer takes no time"),
            (json!({"mean_ttft_ms": 20.0}), "mean_ttft_ms", "contradicts the median"),
            (json!({"max_tpot_ms": 30.0, "mean_tpot_ms": 40.0}), "mean_tpot_ms", "the largest"),
            (json!({"duration": null}), "duration", "no number"),
            (json!({"duration": "4"}), "duration", "no number"),
            (json!({"request_goodput": -5.0}), "request_goodput", "is -5"),
            (json!({"max_output_tokens_per_s": -3.0}), "max_output_tokens_per_s", "is -3"),
            (
                json!({"total_output_tokens": 0, "output_throughput": 0.0, "total_token_throughput": 80.0}),
                "no answer",
                "a token",
            ),
        ] {
            let said = impossible(&result(change.clone())).unwrap_or_else(|| panic!("{change} is taken"));
            assert!(said.contains(key) && said.contains(words), "{change}: {said}");
        }
    }

    #[test]
    fn what_contradicts_the_rest_is_suspicious() {
        for (change, words) in [
            (json!({"output_throughput": 900.0}), "640 output tokens in 4.00 s are 160.00 per second"),
            (json!({"request_throughput": 5.0}), "10 requests in 4.00 s"),
            (json!({"total_token_throughput": 24.0}), "960 tokens in 4.00 s"),
            (
                json!({"mean_tpot_ms": 0.02, "median_tpot_ms": 0.02, "p99_tpot_ms": 0.03}),
                "seconds in place of milliseconds?",
            ),
            (
                json!({"mean_ttft_ms": 0.085, "median_ttft_ms": 0.08, "p99_ttft_ms": 0.12}),
                "seconds in place of milliseconds?",
            ),
            (json!({"mean_tpot_ms": 0.0, "median_tpot_ms": 0.0, "p99_tpot_ms": 0.0}), "faster than any device"),
            (json!({"mean_e2el_ms": 60.0}), "above the mean E2E latency"),
            (
                json!({"mean_e2el_ms": 1.345, "mean_ttft_ms": 0.5, "median_ttft_ms": 0.5, "p99_ttft_ms": 0.6}),
                "too short for 10 requests",
            ),
            (json!({"mean_e2el_ms": 134_500.0}), "too long for 10 requests"),
            (
                json!({"mean_e2el_ms": null, "mean_tpot_ms": 20_000.0, "median_tpot_ms": 20_000.0, "p99_tpot_ms": 20_000.0}),
                "too long for 10 requests",
            ),
            (json!({"p99_itl_ms": 1e6}), "`p99_itl_ms` is 1000000.00 ms, longer than the whole measurement"),
            (json!({"std_ttft_ms": 1e8}), "longer than the whole measurement"),
            (json!({"mean_tpot_ms": 26.5}), "`mean_tpot_ms` is 26.50, above `p99_tpot_ms`, which is 25.00"),
            (json!({"request_goodput": 99.0}), "above `request_throughput`"),
            (json!({"num_prompts": 9}), "`completed` is 10, above `num_prompts`, which is 9"),
            (json!({"total_input_tokens": 0, "total_token_throughput": 160.0}), "`total_input_tokens` is 0"),
        ] {
            let result = result(change.clone());
            assert_eq!(impossible(&result), None, "{change}");
            let said = suspicious(&result).join("; ");
            assert!(said.contains(words), "{change}: {said}");
        }
    }
}

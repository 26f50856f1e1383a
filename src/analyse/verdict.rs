//! Whether the metrics of an experiment can be believed. Pure.
//!
//! Every warning is carried into every ranking: a row with one is reported, not ranked, unless the warning is about all rows alike
//! (a simulated run among simulated runs).

use serde::Serialize;
use serde_json::Value;

/// What makes a metric suspect: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// Requests failed: the load was not what was asked for.
    FailedRequests,
    /// The load was ended before its time.
    EndedEarly,
    /// Prompts were found in the prefix cache where none should be.
    PrefixCacheHits,
    /// The KV cache was too small: requests were begun again.
    Preemptions,
    /// Fewer requests per second were sent than asked for.
    RateNotAchieved,
    /// Requests waited in the client.
    ClientQueueing,
    /// The first half of the measurement was another one than the second.
    Drift,
    /// Answers were shorter than asked for.
    ShortOutputs,
    /// Answers were longer than asked for.
    LongOutputs,
    /// The server counted other tokens than it streamed.
    MiscountedTokens,
    /// Fewer samples came back than were asked for.
    FewerSamples,
    /// The server counted other prompts than were asked for.
    PromptTokens,
    /// The first request took many times as long as the others.
    SlowFirstRequest,
    /// Requests count as completed whose answer has no token.
    EmptyAnswers,
    /// Metrics contradict each other, or are nothing that was ever measured.
    ImplausibleMetrics,
    /// Others used the devices meanwhile.
    SharedDevices,
    /// Devices were throttled, the host swapped, or a sensor told what cannot be.
    Devices,
    /// Tokens were counted as pieces of the stream.
    EstimatedTokens,
    /// The metrics are synthetic: a timing model.
    Simulated,
}

impl WarningKind {
    /// As written in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailedRequests => "failed-requests",
            Self::EndedEarly => "ended-early",
            Self::PrefixCacheHits => "prefix-cache-hits",
            Self::Preemptions => "preemptions",
            Self::RateNotAchieved => "rate-not-achieved",
            Self::ClientQueueing => "client-queueing",
            Self::Drift => "drift",
            Self::ShortOutputs => "short-outputs",
            Self::LongOutputs => "long-outputs",
            Self::MiscountedTokens => "miscounted-tokens",
            Self::FewerSamples => "fewer-samples",
            Self::PromptTokens => "prompt-tokens",
            Self::SlowFirstRequest => "slow-first-request",
            Self::EmptyAnswers => "empty-answers",
            Self::ImplausibleMetrics => "implausible-metrics",
            Self::SharedDevices => "shared-devices",
            Self::Devices => "devices",
            Self::EstimatedTokens => "estimated-tokens",
            Self::Simulated => "simulated",
        }
    }

    /// Whether a row with it may not be called best. The others are told beside the row.
    pub fn excludes(self) -> bool {
        match self {
            Self::FailedRequests
            | Self::EndedEarly
            | Self::PrefixCacheHits
            | Self::RateNotAchieved
            | Self::ClientQueueing
            | Self::ShortOutputs
            | Self::LongOutputs
            | Self::MiscountedTokens
            | Self::FewerSamples
            | Self::EmptyAnswers
            | Self::ImplausibleMetrics => true,
            // A preemption is what this configuration does under this load; drift and estimates make a metric less exact.
            // So do other prompts than were meant, a first request that the server was not ready for, and neighbours on the device.
            Self::Preemptions
            | Self::Drift
            | Self::PromptTokens
            | Self::SlowFirstRequest
            | Self::SharedDevices
            | Self::Devices
            | Self::EstimatedTokens
            | Self::Simulated => false,
        }
    }
}

/// One warning, with what was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Warning {
    /// Of which kind.
    pub kind: WarningKind,
    /// In words.
    pub text: String,
}

/// What is known of a measurement beside its metrics. What is not known raises no warning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signs {
    /// Completed ones.
    pub completed: Option<f64>,
    /// Failed ones.
    pub failed: Option<f64>,
    /// Why the load was ended before its time.
    pub ended_early: Option<String>,
    /// Share of prompt tokens that were found in the prefix cache (0 to 1).
    pub prefix_hits: Option<f64>,
    /// The workload shares prefixes on purpose.
    pub shares_prefixes: bool,
    /// Requests that were begun again.
    pub preemptions: Option<f64>,
    /// Requests per second asked for; finite.
    pub offered_rate: Option<f64>,
    /// Requests per second of the schedule, between the first and the last request that was due.
    pub scheduled_rate: Option<f64>,
    /// Requests per second sent, between the first and the last.
    pub achieved_rate: Option<f64>,
    /// Mean milliseconds that requests waited in the client.
    pub client_queue_ms: Option<f64>,
    /// Mean TTFT, to compare with.
    pub mean_ttft_ms: Option<f64>,
    /// Latency of the second half of the requests over that of the first half, and the interval of it.
    pub drift: Option<(f64, (f64, f64))>,
    /// Answers shorter than asked for.
    pub short: Option<f64>,
    /// Answers longer than asked for.
    pub long: Option<f64>,
    /// Answers whose tokens the server counts otherwise than it streamed them.
    pub miscounted: Option<f64>,
    /// Samples that came back, and those that were asked for.
    pub samples: Option<(f64, f64)>,
    /// Tokens of the prompts as asked for, and as they were counted.
    pub prompt_tokens: Option<(f64, f64)>,
    /// Milliseconds of the first request, and how many times the median of the others that is.
    pub first_request: Option<(f64, f64)>,
    /// Tokens of all answers.
    pub output_tokens: Option<f64>,
    /// The fewest and the most tokens of an answer that were asked for, where the model could not end it by itself.
    pub asked_tokens: Option<(f64, f64)>,
    /// Answers without a token, where each request is known.
    pub empty: Option<EmptyAnswers>,
    /// What of the metrics is not to be believed, in words.
    pub implausible: Vec<String>,
    /// Who else used the devices, in words.
    pub shared_with: Vec<String>,
    /// What devices and host say of it, in sentences.
    pub devices: Vec<String>,
    /// Answers whose tokens are estimates.
    pub estimated: Option<f64>,
    /// The metrics are simulated.
    pub simulated: bool,
}

impl Signs {
    /// From a result: `number` knows its top level, `own` is what only the builtin client writes. What else says whether it
    /// can be believed is the caller's.
    pub fn of_result(number: impl Fn(&str) -> Option<f64>, own: Option<&Value>) -> Self {
        let at = |pointer: &str| own.and_then(|own| own.pointer(pointer));
        let metric = |pointer: &str| at(pointer).and_then(Value::as_f64);
        let text = |pointer: &str| at(pointer).and_then(Value::as_str);
        let interrupted = at("/interrupted").and_then(Value::as_bool) == Some(true);
        let input = metric("/prompt_tokens/server").or_else(|| number("total_input_tokens"));
        let cached = metric("/cached_prompt_tokens").zip(input.filter(|tokens| *tokens > 0.0));
        let offered = text("/offered_rate").and_then(|rate| rate.parse().ok()).filter(|rate: &f64| rate.is_finite());
        let (offered_rate, achieved_rate) = match own {
            Some(_) => (offered, metric("/achieved_rate")),
            None => held_back(&number).unzip(),
        };
        Self {
            completed: number("completed"),
            failed: number("failed"),
            ended_early: text("/gave_up").map(str::to_owned).or(interrupted.then(|| "interrupted".to_owned())),
            prefix_hits: metric("/server/prefix_cache_hit_rate").or(cached.map(|(cached, input)| cached / input)),
            shares_prefixes: at("/shares_prefixes").and_then(Value::as_bool).unwrap_or(false),
            preemptions: metric("/server/preemptions"),
            offered_rate,
            scheduled_rate: metric("/scheduled_rate"),
            achieved_rate,
            client_queue_ms: metric("/client_queue_time_ms/mean"),
            mean_ttft_ms: number("mean_ttft_ms"),
            drift: metric("/drift").zip(metric("/drift_interval/0").zip(metric("/drift_interval/1"))),
            short: metric("/failures/short/count"),
            long: metric("/failures/long/count"),
            miscounted: metric("/failures/miscounted/count"),
            samples: metric("/sequences").zip(metric("/sequences_asked")),
            prompt_tokens: metric("/prompt_tokens/counted").zip(metric("/prompt_tokens/server")),
            first_request: metric("/first_request/ms").zip(metric("/first_request/times_the_median")),
            estimated: metric("/estimated_token_counts"),
            output_tokens: number("total_output_tokens"),
            ..Self::default()
        }
    }
}

/// The rate that was asked for and the one that was sent, of a result of vLLM's own client, which writes no such rate: where as many
/// requests were under way as it may send at once, the others waited in it. `None` where nothing held it back.
fn held_back(number: &impl Fn(&str) -> Option<f64>) -> Option<(f64, f64)> {
    /// Beyond this part of the concurrency it is at its limit.
    const FULL: f64 = 0.9;
    let positive = |key: &str| number(key).filter(|value| value.is_finite() && *value > 0.0);
    let (offered, most) = (positive("request_rate")?, positive("max_concurrency")?);
    let (completed, duration) = (positive("completed")?, positive("duration")?);
    let tokens = number("total_output_tokens").map(|tokens| (tokens / completed - 1.0).max(0.0));
    let estimated = || Some(number("mean_ttft_ms")? + number("mean_tpot_ms")? * tokens?);
    let latency = positive("mean_e2el_ms").or_else(estimated)? / 1e3;
    // The last requests only end when all are sent.
    let sending = Some(duration - latency).filter(|seconds| *seconds > 0.0)?;
    let ramps = number("ramp_up_end_rps").is_some();
    (!ramps && completed * latency / duration >= FULL * most).then_some((offered, completed / sending))
}

/// Completed requests whose answer has no token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmptyAnswers {
    /// How many.
    pub count: usize,
    /// Completed ones.
    pub of: usize,
    /// Mean TTFT of the others, in milliseconds.
    pub mean_ttft_ms_of_others: Option<f64>,
}

/// Answers with fewer tokens than this part of what was asked for are short.
const SHORT: f64 = 0.95;
/// More of the prompt tokens than this in the cache is no accident.
const PREFIX_HITS: f64 = 0.01;
/// An achieved rate below this part of the offered one is another load.
const RATE: f64 = 0.95;
/// A client queue above this part of the mean TTFT hides what users would see.
const QUEUE: f64 = 0.1;
/// Halves of a measurement that differ by more than this.
const DRIFT: f64 = 0.2;
/// Prompts whose number of tokens differs by more than this part, and by more than what begins or ends each text, are others.
const PROMPTS: f64 = 0.05;
const AROUND: f64 = 2.0;
/// A first request that takes more times as long as the others was not served by a server that was ready.
const FIRST: f64 = 5.0;
/// And by so many milliseconds longer.
const FIRST_MS: f64 = 50.0;

/// All warnings about a measurement, the gravest kinds first.
pub fn warnings_from(signs: &Signs) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warning = |kind, text: String| found.push(Warning { kind, text });
    let above = |value: Option<f64>, most: f64| value.filter(|value| *value > most);
    if let Some(failed) = above(signs.failed, 0.0) {
        let of = signs.completed.map(|completed| format!(" of {:.0}", completed + failed)).unwrap_or_default();
        warning(WarningKind::FailedRequests, format!("{failed:.0}{of} requests failed"));
    }
    if let Some(why) = &signs.ended_early {
        warning(WarningKind::EndedEarly, format!("the load was ended early: {why}"));
    }
    if let Some(hits) = above(signs.prefix_hits, PREFIX_HITS).filter(|_| !signs.shares_prefixes) {
        warning(
            WarningKind::PrefixCacheHits,
            format!("{:.1} % of the prompt tokens came from the prefix cache", hits * 100.0),
        );
    }
    // Between n requests there are n - 1 gaps, and the last is due after the time of n: the rate between them is a little below what is
    // asked for, by construction. The schedule itself is known where our client wrote it.
    let requests = signs.completed.unwrap_or(0.0) + signs.failed.unwrap_or(0.0);
    let due = signs.offered_rate.map(|rate| if requests > 1.0 { rate * (requests - 1.0) / requests } else { rate });
    if let (Some(due), Some(achieved)) = (signs.scheduled_rate.or(due), signs.achieved_rate)
        && achieved < due * RATE
    {
        let asked = signs.offered_rate.unwrap_or(due);
        warning(WarningKind::RateNotAchieved, format!("{achieved:.2} requests/s were sent, {asked:.2} were asked for"));
    }
    if let (Some(queue), Some(ttft)) = (signs.client_queue_ms, signs.mean_ttft_ms)
        && queue > ttft * QUEUE
    {
        warning(
            WarningKind::ClientQueueing,
            format!("requests waited {queue:.1} ms in the client, beside a TTFT of {ttft:.1} ms"),
        );
    }
    if let Some(short) = above(signs.short, 0.0) {
        warning(WarningKind::ShortOutputs, format!("{short:.0} answers were shorter than asked for"));
    }
    if let Some(long) = above(signs.long, 0.0) {
        warning(WarningKind::LongOutputs, format!("{long:.0} answers were longer than asked for"));
    }
    if let Some(miscounted) = above(signs.miscounted, 0.0) {
        let text = format!("the server counted the tokens of {miscounted:.0} answers otherwise than it streamed them");
        warning(WarningKind::MiscountedTokens, text);
    }
    if let Some((came, asked)) = signs.samples.filter(|(came, asked)| came < asked) {
        warning(WarningKind::FewerSamples, format!("{came:.0} samples came back, {asked:.0} were asked for"));
    }
    let around = signs.completed.unwrap_or(0.0) * AROUND;
    if let Some((asked, server)) =
        signs.prompt_tokens.filter(|(asked, server)| (server - asked).abs() > asked * PROMPTS + around)
    {
        let text = format!("prompts have {server:.0} tokens as counted, {asked:.0} were asked for");
        warning(WarningKind::PromptTokens, text);
    }
    if let Some((ms, times)) = signs.first_request.filter(|(ms, times)| *times > FIRST && ms - ms / times > FIRST_MS) {
        let text = format!(
            "the first request took {ms:.0} ms, {times:.0} times as long as the others: the server was not warmed up, and \
             means are too long"
        );
        warning(WarningKind::SlowFirstRequest, text);
    }
    let told = above(signs.short, 0.0).or_else(|| above(signs.long, 0.0));
    if let (None, Some(tokens), Some((least, most)), Some(completed)) =
        (told, signs.output_tokens, signs.asked_tokens, above(signs.completed, 0.0))
        && !(completed * least * SHORT..=completed * most / SHORT).contains(&tokens)
    {
        let mean = tokens / completed;
        let kind = if mean > most { WarningKind::LongOutputs } else { WarningKind::ShortOutputs };
        let asked = if most > least { format!("{least:.0} to {most:.0}") } else { format!("{least:.0}") };
        let text = format!("answers have {mean:.1} tokens on average, and {asked} were asked for with ignore-eos");
        warning(kind, text);
    }
    if let Some(EmptyAnswers { count, of, mean_ttft_ms_of_others }) =
        signs.empty.as_ref().filter(|empty| empty.count > 0)
    {
        let has = if *count == 1 { "has" } else { "have" };
        let others = match (mean_ttft_ms_of_others, signs.mean_ttft_ms) {
            (Some(others), Some(all)) => format!(": the mean TTFT of the others is {others:.2} ms, not {all:.2} ms"),
            _ => String::new(),
        };
        warning(WarningKind::EmptyAnswers, format!("{count} of {of} completed requests {has} no output token{others}"));
    } else if let (Some(tokens), Some(completed)) = (signs.output_tokens, signs.completed)
        && tokens < completed
    {
        let text =
            format!("{completed:.0} requests were completed with {tokens:.0} output tokens: some answers have none");
        warning(WarningKind::EmptyAnswers, text);
    }
    for text in &signs.implausible {
        warning(WarningKind::ImplausibleMetrics, text.clone());
    }
    if let Some(preemptions) = above(signs.preemptions, 0.0) {
        warning(
            WarningKind::Preemptions,
            format!("{preemptions:.0} requests were preempted: the KV cache was too small"),
        );
    }
    // A large ratio alone says little: requests that wait in one queue are slow together (`load::drift`).
    let is_known = |(low, high): (f64, f64)| low > 1.0 || high < 1.0;
    if let Some((drift, (low, high))) =
        signs.drift.filter(|(drift, interval)| (drift - 1.0).abs() > DRIFT && is_known(*interval))
    {
        let text = format!(
            "requests of the second half took {drift:.2} times as long as those of the first (interval {low:.2} to {high:.2})"
        );
        warning(WarningKind::Drift, text);
    }
    if !signs.shared_with.is_empty() {
        warning(WarningKind::SharedDevices, signs.shared_with.join("; "));
    }
    if !signs.devices.is_empty() {
        warning(WarningKind::Devices, signs.devices.join("; "));
    }
    if let Some(estimated) = above(signs.estimated, 0.0) {
        warning(WarningKind::EstimatedTokens, format!("the tokens of {estimated:.0} answers are estimates"));
    }
    if signs.simulated {
        warning(WarningKind::Simulated, "its metrics are synthetic (a timing model)".into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sign_raises_its_warning_and_nothing_known_raises_none() {
        assert_eq!(warnings_from(&Signs::default()), []);
        let base = Signs { completed: Some(90.0), mean_ttft_ms: Some(100.0), ..Signs::default() };
        let empty = EmptyAnswers { count: 1, of: 90, mean_ttft_ms_of_others: Some(101.1) };
        let cases: [(WarningKind, Signs); 22] = [
            (WarningKind::EmptyAnswers, Signs { empty: Some(empty), ..base.clone() }),
            (WarningKind::EmptyAnswers, Signs { output_tokens: Some(80.0), ..base.clone() }),
            (WarningKind::ImplausibleMetrics, Signs { implausible: vec!["x".into()], ..base.clone() }),
            (
                WarningKind::ShortOutputs,
                Signs { output_tokens: Some(1440.0), asked_tokens: Some((256.0, 256.0)), ..base.clone() },
            ),
            (WarningKind::FailedRequests, Signs { failed: Some(10.0), ..base.clone() }),
            (WarningKind::EndedEarly, Signs { ended_early: Some("interrupted".into()), ..base.clone() }),
            (WarningKind::PrefixCacheHits, Signs { prefix_hits: Some(0.5), ..base.clone() }),
            (WarningKind::RateNotAchieved, Signs { offered_rate: Some(4.0), achieved_rate: Some(3.0), ..base.clone() }),
            (WarningKind::ClientQueueing, Signs { client_queue_ms: Some(11.0), ..base.clone() }),
            (WarningKind::ShortOutputs, Signs { short: Some(1.0), ..base.clone() }),
            (
                WarningKind::LongOutputs,
                Signs { output_tokens: Some(46080.0), asked_tokens: Some((256.0, 256.0)), ..base.clone() },
            ),
            (WarningKind::LongOutputs, Signs { long: Some(6.0), ..base.clone() }),
            (WarningKind::MiscountedTokens, Signs { miscounted: Some(6.0), ..base.clone() }),
            (WarningKind::FewerSamples, Signs { samples: Some((256.0, 500.0)), ..base.clone() }),
            (WarningKind::PromptTokens, Signs { prompt_tokens: Some((1558.0, 1966.0)), ..base.clone() }),
            (WarningKind::SlowFirstRequest, Signs { first_request: Some((2000.0, 37.0)), ..base.clone() }),
            (WarningKind::Preemptions, Signs { preemptions: Some(3.0), ..base.clone() }),
            (WarningKind::Drift, Signs { drift: Some((1.5, (1.2, 1.9))), ..base.clone() }),
            (WarningKind::SharedDevices, Signs { shared_with: vec!["x".into()], ..base.clone() }),
            (WarningKind::Devices, Signs { devices: vec!["x".into()], ..base.clone() }),
            (WarningKind::EstimatedTokens, Signs { estimated: Some(2.0), ..base.clone() }),
            (WarningKind::Simulated, Signs { simulated: true, ..base.clone() }),
        ];
        for (kind, signs) in cases {
            let found = warnings_from(&signs);
            assert_eq!(found.iter().map(|warning| warning.kind).collect::<Vec<_>>(), [kind], "{}", kind.name());
        }
        let meant = Signs {
            prefix_hits: Some(0.5),
            shares_prefixes: true,
            achieved_rate: Some(3.9),
            offered_rate: Some(4.0),
            samples: Some((4.0, 4.0)),
            prompt_tokens: Some((90.0 * 8.0, 90.0 * 9.0)),
            first_request: Some((9.0, 9.0)),
            // Wide apart by chance alone, and lengths that are drawn from a range.
            drift: Some((1.5, (0.9, 2.4))),
            output_tokens: Some(90.0 * 250.0),
            asked_tokens: Some((128.0, 384.0)),
            ..base.clone()
        };
        assert_eq!(warnings_from(&meant), []);
        // 16 requests at 1 request/s: 15 gaps within 16 s, and a schedule of random gaps that was kept.
        let few =
            Signs { completed: Some(16.0), offered_rate: Some(1.0), achieved_rate: Some(15.0 / 16.0), ..base.clone() };
        assert_eq!(warnings_from(&few), []);
        let kept = Signs { scheduled_rate: Some(0.7), achieved_rate: Some(0.699), ..few.clone() };
        assert_eq!(warnings_from(&kept), []);
        let late = warnings_from(&Signs { achieved_rate: Some(0.6), ..kept });
        assert_eq!(late.iter().map(|warning| warning.kind).collect::<Vec<_>>(), [WarningKind::RateNotAchieved]);
    }

    #[test]
    fn the_file_of_vllms_client_shows_a_rate_that_its_concurrency_held_back() {
        let kinds = |rate: f64, concurrency: Option<f64>, duration: f64| -> Vec<WarningKind> {
            let number = |key: &str| match key {
                "request_rate" => Some(rate),
                "max_concurrency" => concurrency,
                "completed" => Some(100.0),
                "failed" => Some(0.0),
                "duration" => Some(duration),
                "mean_ttft_ms" => Some(100.0),
                "mean_tpot_ms" => Some(10.0),
                "total_output_tokens" => Some(100.0 * 91.0),
                _ => None,
            };
            warnings_from(&Signs::of_result(number, None)).iter().map(|warning| warning.kind).collect()
        };
        // Each takes 1 s; four at once are 4 requests/s, whatever is asked for.
        assert_eq!(kinds(8.0, Some(4.0), 25.0), [WarningKind::RateNotAchieved]);
        assert_eq!(kinds(4.0, Some(4.0), 26.0), []);
        assert_eq!(kinds(8.0, Some(64.0), 13.5), []);
        assert_eq!(kinds(8.0, None, 13.5), []);
    }
}

//! The loads of a sweep: every combination of what has several values, and when their requests are sent.

use std::time::Duration;

use super::numbers::{MOST_POINTS, always, argument, beyond_limit, invalid, limited, number, whole, whole_numbers};
use super::prompts::PromptSettings;
use crate::cli::{LoadArgs, LoadPattern, RampUpStrategy};
use crate::config::Error;
use crate::load::arrival::{Arrival, RampUp};

/// One load of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Requests under way at most.
    pub max_concurrency: Option<u64>,
    /// Requests per second.
    pub request_rate: f64,
    /// Requests in all; `None` = as many as fit into the duration.
    pub num_prompts: Option<u64>,
    /// Tokens of prompts.
    pub input_len: u64,
    /// Tokens of answers; `None` = as the data set says.
    pub output_len: Option<u64>,
    /// When requests come.
    pub arrival: Arrival,
    /// Samples per request.
    pub n: u32,
    /// Samples in all, where the last request asks for the rest.
    pub completions: Option<u64>,
    /// Which measurement of the same load, from 1.
    pub run: u32,
}

pub(super) fn ramp_up(args: &LoadArgs) -> Result<Option<RampUp>, Error> {
    let rate = |flag, text: &Option<String>| {
        number(flag, text.as_ref(), |rate| rate >= 0.0 && rate.is_finite(), "a number from 0")
    };
    let start = rate("--ramp-up-start-rps", &args.ramp_up_start_rps)?;
    let end = rate("--ramp-up-end-rps", &args.ramp_up_end_rps)?;
    let Some(strategy) = args.ramp_up_strategy else {
        if start.is_some() || end.is_some() {
            return Err(argument(
                "--ramp-up-strategy",
                "is missing",
                "add `--ramp-up-strategy linear` or `exponential`",
            ));
        }
        return Ok(None);
    };
    if args.request_rate.is_some() {
        let hint = "leave --request-rate out: the ramp sets the rate";
        return Err(argument("--request-rate", "contradicts --ramp-up-strategy", hint));
    }
    let (Some(start), Some(end)) = (start, end) else {
        return Err(argument("--ramp-up-strategy", "needs both ends", "add --ramp-up-start-rps and --ramp-up-end-rps"));
    };
    if start > end || end == 0.0 {
        return Err(argument("--ramp-up-end-rps", "is below --ramp-up-start-rps, or 0", "a ramp goes up"));
    }
    match strategy {
        RampUpStrategy::Linear => Ok(Some(RampUp::Linear { start: start.max(1e-6), end })),
        RampUpStrategy::Exponential if start > 0.0 => Ok(Some(RampUp::Exponential { start, end })),
        RampUpStrategy::Exponential => {
            Err(argument("--ramp-up-start-rps", "is 0, which never grows", "begin with 1 or more"))
        }
    }
}

/// The loads of a sweep: every combination of what has several values, the concurrency innermost.
pub(super) fn points(
    args: &LoadArgs,
    prompts: &PromptSettings,
    ramp_up: Option<RampUp>,
    burstiness: f64,
    limit: Option<Duration>,
) -> Result<(&'static str, Vec<Point>), Error> {
    let n = whole("--n", args.n.as_ref(), 1)?.unwrap_or(1);
    let n = u32::try_from(n).map_err(|_| invalid("--n", &n.to_string(), "a smaller number"))?;
    let runs = always("--num-runs", whole("--num-runs", args.num_runs.as_ref(), 1)?)?;
    let mut concurrencies: Vec<Option<u64>> = match &args.max_concurrency {
        Some(text) => whole_numbers("--max-concurrency", text, 1)?.into_iter().map(Some).collect(),
        None => vec![None],
    };
    if !args.concurrent_tests.is_empty() {
        let texts = args.concurrent_tests.join(",");
        concurrencies = whole_numbers("--concurrent-tests", &texts, 1)?.into_iter().map(Some).collect();
    }
    let rates: Vec<f64> = match &args.request_rate {
        None => vec![f64::INFINITY],
        Some(text) => text
            .split(',')
            .map(|item| {
                let rate = item.trim().parse::<f64>().ok().filter(|rate| *rate > 0.0);
                rate.ok_or_else(|| invalid("--request-rate", text, "requests per second above 0, or inf"))
            })
            .collect::<Result<_, _>>()?,
    };
    let pattern = match args.load_pattern {
        None if ramp_up.is_some() || rates.iter().any(|rate| rate.is_finite()) => "open",
        asked => asked.unwrap_or(LoadPattern::Closed).name(),
    };
    let by_clock = ramp_up.is_some() || rates.iter().all(|rate| rate.is_finite());
    if pattern == "open" && !by_clock {
        return Err(argument("--load-pattern", "open needs a rate", "add --request-rate, or use `closed`"));
    }
    if pattern != "open" && rates.iter().any(|rate| rate.is_finite()) {
        let problem = format!("a rate contradicts --load-pattern {pattern}");
        return Err(argument("--request-rate", problem, "leave one of the two out"));
    }
    if pattern == "burst" && concurrencies.contains(&None) {
        return Err(argument("--load-pattern", "burst needs the size of a batch", "add --max-concurrency"));
    }
    let per_stream = whole("--num-prompts-per-concurrency", args.num_prompts_per_concurrency.as_ref(), 1)?;
    let completions: Vec<u64> = match (&args.completions, args.compare.as_slice()) {
        (_, [_, ..]) => whole_numbers("--compare", &args.compare.join(","), 1)?,
        (Some(text), []) => whole_numbers("--completions", text, 1)?,
        (None, []) => Vec::new(),
    };
    let requests: Vec<Option<u64>> = match &args.num_prompts {
        Some(text) => whole_numbers("--num-prompts", text, 1)?.into_iter().map(Some).collect(),
        // S2: one batch for each size.
        None if pattern == "burst" && limit.is_none() => vec![None],
        None if limit.is_some() => vec![None],
        None => vec![Some(1000)],
    };
    if per_stream.is_some() && concurrencies.contains(&None) {
        return Err(argument(
            "--num-prompts-per-concurrency",
            "needs --max-concurrency",
            "add it, or use --num-prompts",
        ));
    }
    let lists = [prompts.input_lens.len(), prompts.output_lens.len(), rates.len(), requests.len(), concurrencies.len()];
    let all = lists.iter().chain([&completions.len().max(1)]).fold(runs, |all, list| all.saturating_mul(*list as u64));
    if all > MOST_POINTS {
        let problem =
            format!("makes {all} loads with what has several values: at most {MOST_POINTS} are made by one call");
        return Err(argument("--num-runs", problem, "ask for fewer at once"));
    }
    let mut points = Vec::new();
    for input_len in &prompts.input_lens {
        for output_len in &prompts.output_lens {
            for rate in &rates {
                for requests in &requests {
                    for concurrency in &concurrencies {
                        let num_prompts = match (per_stream, concurrency) {
                            (Some(each), Some(streams)) => {
                                let all = each.saturating_mul(*streams);
                                limited("--num-prompts", all).map_err(|_| over_per_stream(each, *streams)).map(Some)?
                            }
                            _ if pattern == "burst" && limit.is_none() => requests.or(*concurrency),
                            _ => *requests,
                        };
                        let arrival = match pattern {
                            "closed" => Arrival::Closed,
                            "burst" => Arrival::Burst,
                            _ => Arrival::Open { rate: *rate, burstiness, ramp_up },
                        };
                        let point = Point {
                            max_concurrency: *concurrency,
                            request_rate: *rate,
                            num_prompts,
                            input_len: *input_len,
                            output_len: *output_len,
                            arrival,
                            n,
                            completions: None,
                            run: 1,
                        };
                        let made = match completions.is_empty() {
                            true => vec![point],
                            false => completions.iter().map(|all| spread(&point, *all)).collect(),
                        };
                        for point in made {
                            points.extend(
                                (1..=u32::try_from(runs).unwrap_or(u32::MAX)).map(|run| Point { run, ..point.clone() }),
                            );
                        }
                    }
                }
            }
        }
    }
    Ok((pattern, points))
}

fn over_per_stream(each: u64, streams: u64) -> Error {
    let expected = beyond_limit("num-prompts", u64::MAX).unwrap_or_default();
    let problem = format!(
        "makes {} requests of {each} for each of {streams}: expected a number {expected}",
        each.saturating_mul(streams)
    );
    argument("--num-prompts-per-concurrency", problem, "ask for fewer")
}

/// S4: so many samples over so many streams; every request asks for as many as make one round (n = N / C), and the rest comes
/// from one more request.
pub fn spread(point: &Point, completions: u64) -> Point {
    let streams = point.max_concurrency.unwrap_or(10).min(completions).max(1);
    let n = (completions / streams).max(1);
    Point {
        max_concurrency: Some(streams),
        num_prompts: Some(completions.div_ceil(n)),
        n: u32::try_from(n).unwrap_or(u32::MAX),
        completions: Some(completions),
        ..point.clone()
    }
}

//! Values of flags: numbers within limits, durations, pairs. A wrong one is named with its flag and what was expected.

use std::time::Duration;

use crate::config::language::policy::pause;
use crate::config::{Error, Origin, parse_duration};

/// A value that is none.
pub fn invalid(flag: &'static str, value: &str, expected: &str) -> Error {
    let value = value.escape_debug().to_string();
    Error::Invalid {
        origin: Origin::flag(flag.trim_start_matches('-')),
        value,
        expected: expected.to_owned(),
        hint: None,
    }
}

/// A flag that is wrong beside the others.
pub fn argument(flag: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Argument {
        origin: Origin::flag(flag.trim_start_matches('-')),
        problem: problem.into(),
        hints: vec![hint.into()],
    }
}

/// What a load may be asked for at most: more would be held in memory, or have no end.
const MOST: [(&[&str], u64, &str); 4] = [
    (
        &["num-prompts", "num-warmups", "completions", "compare"],
        100_000_000,
        "up to 100000000 (the requests of one load)",
    ),
    (
        &[
            "input-len",
            "random-input-len",
            "random-prefix-len",
            "sonnet-input-len",
            "sonnet-prefix-len",
            "prefix-repetition-prefix-len",
            "prefix-repetition-suffix-len",
        ],
        16_000_000,
        "up to 16000000 (the tokens of one prompt)",
    ),
    (&["max-concurrency", "concurrent-tests"], 1_000_000, "up to 1000000 (each request under way is a socket)"),
    (&["num-runs"], MOST_POINTS, "up to 100000 (the loads of one call)"),
];

/// Loads of one call.
pub const MOST_POINTS: u64 = 100_000;

/// What is expected of a flag of `load` instead of a number that is beyond its limit.
pub fn beyond_limit(flag: &str, number: u64) -> Option<&'static str> {
    let flag = flag.trim_start_matches('-');
    MOST.iter().find(|(flags, most, _)| flags.contains(&flag) && number > *most).map(|(_, _, expected)| *expected)
}

/// A number that is not beyond the limit of its flag.
pub fn limited(flag: &'static str, number: u64) -> Result<u64, Error> {
    beyond_limit(flag, number)
        .map_or(Ok(number), |expected| Err(invalid(flag, &number.to_string(), &format!("a number {expected}"))))
}

/// A whole number within limits.
pub fn whole(flag: &'static str, text: Option<&String>, least: u64) -> Result<Option<u64>, Error> {
    text.map(|text| {
        let number = text.trim().replace('_', "").parse::<u64>().ok().filter(|number| *number >= least);
        limited(flag, number.ok_or_else(|| invalid(flag, text, &format!("a whole number from {least}")))?)
    })
    .transpose()
}

/// A number that is valid.
pub fn number(
    flag: &'static str,
    text: Option<&String>,
    valid: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<Option<f64>, Error> {
    text.map(|text| {
        let number = text.trim().parse::<f64>().ok().filter(|number| !number.is_nan() && valid(*number));
        number.ok_or_else(|| invalid(flag, text, expected))
    })
    .transpose()
}

/// A length of time.
pub fn duration(flag: &'static str, text: Option<&String>) -> Result<Option<Duration>, Error> {
    text.map(|text| {
        parse_duration(text).ok_or_else(|| invalid(flag, text, "a duration such as `300`, `90s`, `5m` or `2h`"))
    })
    .transpose()
}

/// `8`, `1,2,4`, `pow2:1..256`.
pub fn whole_numbers(flag: &'static str, text: &str, least: u64) -> Result<Vec<u64>, Error> {
    let expected = format!("whole numbers from {least}: `8`, `1,2,4` or `pow2:1..256`");
    let wrong = || invalid(flag, text, &expected);
    let mut numbers = Vec::new();
    for item in text.split(',').map(str::trim) {
        if let Some(range) = item.strip_prefix("pow2:") {
            let (from, to) = range.split_once("..").ok_or_else(wrong)?;
            let (from, to): (u64, u64) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
            let powers = (0..63).map(|power| 1u64 << power).filter(|number| (from..=to).contains(number));
            let before = numbers.len();
            numbers.extend(powers);
            if numbers.len() == before {
                return Err(wrong());
            }
        } else {
            numbers.push(item.replace('_', "").parse().map_err(|_| wrong())?);
        }
    }
    if numbers.is_empty() || numbers.iter().any(|number| *number < least) {
        return Err(wrong());
    }
    numbers.into_iter().map(|number| limited(flag, number)).collect()
}

/// Pairs of words.
pub fn pairs(
    flag: &'static str,
    items: &[String],
    separator: char,
    expected: &str,
) -> Result<Vec<(String, String)>, Error> {
    items
        .iter()
        .map(|item| {
            let (key, value) = item.split_once(separator).ok_or_else(|| invalid(flag, item, expected))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// A duration, where `0` is none at all.
pub fn pause_of(flag: &'static str, text: &str) -> Result<Option<Duration>, Error> {
    let expected = "a duration such as `120`, `90s` or `5m`, or `0` for no limit";
    let limit = pause(text).ok_or_else(|| invalid(flag, text, expected))?;
    Ok((!limit.is_zero()).then_some(limit))
}

/// What some layer always says: the defaults are the lowest of them.
pub fn always<T>(flag: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| argument(flag, "has no value", "give it one, or leave it out for the default"))
}

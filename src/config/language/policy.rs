//! Retries and reasons of failures as the language writes them.

use std::time::Duration;

use super::value::is_none;
use crate::config::parse_duration;
use crate::config::tree::{Diagnostic, Kind, Node, Raw, join};
use crate::nearest::nearest;
use crate::plan::{FailureReason, Retry, RetryPolicy};

/// More attempts than anybody waits for.
const MOST_ATTEMPTS: u32 = 1000;
/// Sampled more often, sensors tell nothing new and the sampler itself would be a load.
const SHORTEST: Duration = Duration::from_millis(100);

/// Reads `retry`.
///
/// # Errors
/// When a reason is unknown, or a number or duration cannot be read.
pub fn retry(raw: &Raw) -> Result<RetryPolicy, Diagnostic> {
    let (node, path) = (&raw.node, &raw.path);
    match &node.kind {
        Kind::Null => Ok(RetryPolicy::default()),
        Kind::Text(text) if is_none(text) => Ok(RetryPolicy::default()),
        Kind::Map(map) => {
            let entry = |(key, entry): (&String, &crate::config::tree::Entry)| {
                let reason = reason(key).map_err(|trouble| trouble.or_at(&entry.key, path))?;
                Ok((reason, attempts(&entry.value, &join(path, key))?))
            };
            Ok(RetryPolicy(map.iter().map(entry).collect::<Result<_, Diagnostic>>()?))
        }
        Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_) => Err(Diagnostic::new(
            &node.origin,
            path,
            format!("expected reasons and attempts, or `none`, found {}", node.describe()),
        )
        .hint("write `retry: {crash: 1, timeout: {attempts: 2, back-off: 30s}}`")),
    }
}

fn attempts(node: &Node, path: &str) -> Result<Retry, Diagnostic> {
    let wrong = |node: &Node, path: &str, expected: &str| {
        Diagnostic::new(&node.origin, path, format!("expected {expected}, found {}", node.describe()))
    };
    let number = |node: &Node, path: &str| {
        let number = node.scalar().and_then(|text| text.trim().parse().ok()).filter(|n: &u32| *n <= MOST_ATTEMPTS);
        number.ok_or_else(|| {
            wrong(node, path, &format!("a whole number up to {MOST_ATTEMPTS}"))
                .hint("it is the number of further attempts; 0 = not tried again")
        })
    };
    let Kind::Map(map) = &node.kind else {
        return Ok(Retry { attempts: number(node, path)?, back_off: Duration::ZERO });
    };
    let mut retry = Retry { attempts: 1, back_off: Duration::ZERO };
    for (key, entry) in map {
        let (node, path) = (&entry.value, &join(path, key));
        match key.as_str() {
            "attempts" => retry.attempts = number(node, path)?,
            "back-off" => {
                let read = node.scalar().and_then(|text| pause(&text));
                retry.back_off = read.ok_or_else(|| {
                    wrong(node, path, "a duration such as `30s`").hint("units are `ms`, `s`, `m` and `h`")
                })?;
            }
            _ => {
                return Err(Diagnostic::new(&entry.key, path, format!("the key `{key}` is not known here"))
                    .hint("the keys here are: attempts, back-off"));
            }
        }
    }
    Ok(retry)
}

/// A duration that may be nothing.
pub fn pause(text: &str) -> Option<Duration> {
    match text.trim() {
        "0" | "0s" | "0ms" | "0m" | "0h" => Some(Duration::ZERO),
        text => parse_duration(text),
    }
}

/// Reads `telemetry`: how often to sample, or `None` for never. `auto` is each second on a real server, never on a simulated one.
///
/// # Errors
/// When it is none of these.
pub fn telemetry(raw: &Raw, simulated: bool) -> Result<Option<Duration>, Diagnostic> {
    const EVERY: Duration = Duration::from_secs(1);
    let automatic = (!simulated).then_some(EVERY);
    let wrong = |node: &Node, path: &str, expected: &str| {
        Diagnostic::new(&node.origin, path, format!("expected {expected}, found {}", node.describe()))
            .hint("as in `telemetry: 1s`, or `telemetry: {enable: true, interval-ms: 500}`")
    };
    let word = |node: &Node, path: &str| match node.scalar().as_deref().map(str::trim) {
        Some("auto") => Ok(automatic),
        Some("off" | "false" | "no" | "none") => Ok(None),
        Some("on" | "true" | "yes") => Ok(Some(EVERY)),
        Some(text) => match parse_duration(text).filter(|every| *every >= SHORTEST) {
            Some(every) => Ok(Some(every)),
            None => Err(wrong(node, path, "a duration of at least 100 ms such as `1s`, `auto` or `off`")),
        },
        None => Err(wrong(node, path, "a duration such as `1s`, `auto` or `off`")),
    };
    let Kind::Map(map) = &raw.node.kind else { return word(&raw.node, &raw.path) };
    let (mut enabled, mut interval) = (automatic, None);
    for (key, entry) in map {
        let (node, path) = (&entry.value, &join(&raw.path, key));
        match key.as_str() {
            "enable" => enabled = word(node, path)?,
            "interval-ms" => {
                let number = node.scalar().and_then(|text| text.parse().ok()).map(Duration::from_millis);
                let number = number.filter(|every| *every >= SHORTEST);
                interval = Some(number.ok_or_else(|| wrong(node, path, "milliseconds, at least 100"))?);
            }
            // What tells most is taken by itself.
            "source" if node.scalar().as_deref() == Some("auto") => {}
            "source" => return Err(wrong(node, path, "`auto`")),
            _ => {
                return Err(Diagnostic::new(&entry.key, path, format!("the key `{key}` is not known here"))
                    .hint("the keys here are: enable, interval-ms, source"));
            }
        }
    }
    Ok(enabled.map(|every| interval.unwrap_or(every)))
}

fn reason(word: &str) -> Result<FailureReason, Diagnostic> {
    FailureReason::from_name(word).ok_or_else(|| {
        let names = FailureReason::names();
        let trouble = Diagnostic {
            origin: None,
            path: String::new(),
            problem: format!("`{}` is no reason of a failure", word.escape_debug()),
            hints: Vec::new(),
        };
        match nearest(word, names.iter().copied()) {
            Some(near) => trouble.hint(format!("did you mean `{near}`?")),
            None => trouble.hint(format!("the reasons are: {}", names.join(", "))),
        }
    })
}

/// Reads `skip-failure-reasons`: a list, one word, or `none`.
///
/// # Errors
/// When a word is no reason.
pub fn reasons(raw: &Raw) -> Result<Vec<FailureReason>, Diagnostic> {
    let one = |node: &Node| match node.scalar() {
        Some(word) => reason(&word).map_err(|trouble| trouble.or_at(&node.origin, &raw.path)),
        None => Err(Diagnostic::new(&node.origin, &raw.path, format!("expected a reason, found {}", node.describe()))
            .hint("write `skip-failure-reasons: [oom, invalid-config]`, or `none`")),
    };
    match &raw.node.kind {
        Kind::Null => Ok(Vec::new()),
        Kind::Text(text) if is_none(text) => Ok(Vec::new()),
        Kind::List(items) => match items.as_slice() {
            [item] if item.scalar().is_some_and(|text| is_none(&text)) => Ok(Vec::new()),
            items => items.iter().map(one).collect(),
        },
        Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => one(&raw.node).map(|reason| vec![reason]),
    }
}

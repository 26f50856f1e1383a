//! What the arrays of each request in a result (`--save-detailed`) say of the measurement: answers without a token, and drift.

use crate::analyse::EmptyAnswers;
use crate::load::drift::{Drift, drift};
use crate::stats;

/// The sum of an array of numbers: of the times between the tokens of an answer only that is wanted.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(from = "Vec<f64>")]
pub(super) struct Sum(f64);

impl From<Vec<f64>> for Sum {
    fn from(all: Vec<f64>) -> Self {
        Self(all.iter().sum())
    }
}

/// Whether a request has an error text.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(from = "Option<String>")]
pub(super) struct IsError(bool);

impl From<Option<String>> for IsError {
    fn from(text: Option<String>) -> Self {
        Self(text.is_some_and(|text| !text.is_empty()))
    }
}

/// The drift of the completed requests of vLLM's own client. Its times are seconds, of no clock in particular; a release that writes none
/// writes requests in the order of their sending, and `most` of them were under way at once.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is no number, or below 0, becomes 0")]
pub(super) fn drift_of(
    starts: &[f64],
    ttfts: &[f64],
    further: &[Sum],
    failed: &[IsError],
    most: Option<f64>,
) -> Option<Drift> {
    if further.len() != ttfts.len() || !(starts.is_empty() || starts.len() == ttfts.len()) {
        return None;
    }
    let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
    let first = starts.iter().copied().reduce(f64::min);
    let start = |index: usize| match first {
        Some(first) => nanoseconds(starts[index] - first),
        None => index as u64,
    };
    let completed = |index: &usize| failed.get(*index).is_none_or(|of| !of.0) && ttfts[*index] > 0.0;
    let requests: Vec<(u64, u64)> = (0..ttfts.len())
        .filter(completed)
        .map(|index| (start(index), nanoseconds(ttfts[index] + further[index].0)))
        .collect();
    let peak = if first.is_some() { under_way(&requests) } else { most? as u64 };
    drift(requests.into_iter(), peak)
}

/// How many of the requests (begin, and what it took) were under way at once, at most.
fn under_way(requests: &[(u64, u64)]) -> u64 {
    let begins = requests.iter().map(|(start, _)| (*start, 1i64));
    let ends = requests.iter().map(|(start, took)| (start.saturating_add(*took), -1));
    let mut changes: Vec<(u64, i64)> = begins.chain(ends).collect();
    changes.sort_unstable();
    let mut now = 0;
    let most = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    most.max().and_then(|most| u64::try_from(most).ok()).unwrap_or(0)
}

/// Which of the requests that count as completed have no token. Where some failed, the arrays hold those too.
#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 requests")]
pub(super) fn empty_answers(lengths: &[f64], ttfts: &[f64], completed: Option<f64>) -> Option<EmptyAnswers> {
    if lengths.is_empty() || completed != Some(lengths.len() as f64) {
        return None;
    }
    let count = lengths.iter().filter(|tokens| **tokens <= 0.0).count();
    let others: Vec<f64> =
        ttfts.iter().zip(lengths).filter(|(_, tokens)| **tokens > 0.0).map(|(ttft, _)| *ttft).collect();
    let known = ttfts.len() == lengths.len();
    let mean = stats::mean(others).filter(|_| known).map(|mean| mean * 1e3);
    Some(EmptyAnswers { count, of: lengths.len(), mean_ttft_ms_of_others: mean })
}

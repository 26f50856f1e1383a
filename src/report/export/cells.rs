//! Single values as CSV and JSON have them: words that stay the same, and numbers in full precision.

use std::fmt::Write as _;

use crate::analyse::Status;
use crate::model::Unit;

/// A number in full precision: counts as integers, very large and very small ones with an exponent.
pub(super) fn number(value: Option<f64>, unit: Unit) -> String {
    let mut out = String::new();
    put_number(&mut out, value, unit);
    out
}

pub(super) fn put_number(out: &mut String, value: Option<f64>, unit: Unit) {
    match (value, unit) {
        (None, _) => {}
        (Some(value), Unit::Requests | Unit::Tokens) if value.fract() == 0.0 && value.abs() < 1e15 => {
            // Writing into memory never fails.
            #[expect(clippy::cast_possible_truncation, reason = "a whole number below 1e15")]
            let _ = write!(out, "{}", value as i64);
        }
        (Some(value), _) => out.push_str(ryu::Buffer::new().format(value)),
    }
}

/// The status in a word that stays the same.
pub(in crate::report) fn status(status: &Status) -> &'static str {
    match status {
        Status::Valid => "valid",
        Status::Invalid(_) => "invalid",
        Status::Failed(_) => "failed",
        Status::Skipped { .. } => "skipped",
        Status::Interrupted => "interrupted",
        Status::Running => "running",
        Status::NotRun => "not-run",
    }
}

/// The cause of a failure; empty where there is none.
pub(super) fn cause(status: &Status) -> String {
    match status {
        Status::Failed(failed) => failed.cause.map(|cause| cause.to_string()).unwrap_or_default(),
        Status::Valid
        | Status::Invalid(_)
        | Status::Skipped { .. }
        | Status::Interrupted
        | Status::Running
        | Status::NotRun => String::new(),
    }
}

/// Why there is no result, in words; empty where there is one.
pub(super) fn reason(status: &Status) -> String {
    match status {
        Status::Failed(failed) => failed.summary.clone(),
        Status::Invalid(reason) | Status::Skipped { reason, .. } => reason.clone(),
        Status::Valid | Status::Interrupted | Status::Running | Status::NotRun => String::new(),
    }
}

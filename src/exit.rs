//! Exit codes: a documented part of the interface (README, docs/reference.md), so each is a named constant.

/// Every planned experiment has a valid result, or was skipped by a rule.
pub const OK: u8 = 0;
/// The run ended and at least one experiment failed.
pub const EXPERIMENT_FAILED: u8 = 1;
/// A bad flag, file or plan: nothing was started.
pub const USAGE: u8 = 2;
/// Nothing to do, or nothing found.
pub const NOTHING: u8 = 3;
/// The environment: vLLM missing, port taken, no device.
pub const ENVIRONMENT: u8 = 4;
/// A run directory or report could not be read or written, or is locked.
pub const RECORD: u8 = 5;
/// A bug in vllm-bench.
pub const BUG: u8 = 70;
/// Base of "ended by signal n, after an orderly stop": the code is `SIGNAL + n`.
pub const SIGNAL: u8 = 128;

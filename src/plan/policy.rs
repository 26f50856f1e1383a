//! What to do about failures: which are tried again, which are left alone when a run goes on.

use std::time::Duration;

use crate::model::Cause;

/// A word for one or several causes, as `retry` and `skip-failure-reasons` take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    /// Device memory ran out, with weights or with the KV cache; or the main memory of a job.
    Oom,
    /// A process ended by itself, whoever's it was.
    Crash,
    /// Any limit was reached, or nothing moved any more.
    Timeout,
    /// The server did not start, or died.
    ServerFail,
    /// The server was not ready within its limit.
    ServerTimeout,
    /// The client did not end within its limit.
    BenchTimeout,
    /// The client failed, or its result is none.
    BenchFail,
    /// Requests failed.
    RequestFail,
    /// vLLM refuses the configuration.
    InvalidConfig,
    /// The run or the job was ended before the experiment was.
    Cancelled,
    /// A node failed, the job was preempted, or the scheduler lost it.
    Scheduler,
    /// Exactly this cause.
    Exactly(Cause),
}

/// The words that stand for several causes.
const CLASSES: [(&str, FailureReason); 12] = [
    ("oom", FailureReason::Oom),
    ("out-of-memory", FailureReason::Oom),
    ("crash", FailureReason::Crash),
    ("timeout", FailureReason::Timeout),
    ("server-fail", FailureReason::ServerFail),
    ("server-timeout", FailureReason::ServerTimeout),
    ("bench-timeout", FailureReason::BenchTimeout),
    ("bench-fail", FailureReason::BenchFail),
    ("request-fail", FailureReason::RequestFail),
    ("invalid-config", FailureReason::InvalidConfig),
    ("cancelled", FailureReason::Cancelled),
    ("scheduler", FailureReason::Scheduler),
];

impl FailureReason {
    /// Reads a word in any case, with dashes or underscores; `None` where it is no reason.
    pub fn from_name(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase().replace('_', "-");
        let class = CLASSES.iter().find(|(name, _)| *name == word).map(|(_, reason)| *reason);
        class.or_else(|| Cause::ALL.into_iter().find(|cause| cause.word() == word).map(FailureReason::Exactly))
    }

    /// Every word that [`FailureReason::from_name`] takes.
    pub fn names() -> Vec<&'static str> {
        CLASSES.iter().map(|(name, _)| *name).chain(Cause::ALL.iter().map(|cause| cause.word())).collect()
    }

    /// Whether a failure is one of these.
    pub fn covers(self, cause: Cause) -> bool {
        match self {
            FailureReason::Oom => {
                matches!(cause, Cause::OutOfDeviceMemory | Cause::KvCacheTooSmall | Cause::JobOutOfMemory)
            }
            FailureReason::Crash => matches!(
                cause,
                Cause::Crashed
                    | Cause::ServerDied
                    | Cause::EngineCoreFailed
                    | Cause::LevelZero
                    | Cause::KilledBySystem
                    | Cause::BenchmarkFailed
                    | Cause::LaunchFailed
            ),
            FailureReason::Timeout => {
                matches!(
                    cause,
                    Cause::StartupTimeout
                        | Cause::Hung
                        | Cause::BenchmarkTimeout
                        | Cause::BenchmarkHung
                        | Cause::TimeLimit
                )
            }
            FailureReason::ServerFail => {
                cause.is_server() && !matches!(cause, Cause::StartupTimeout) || cause == Cause::ServerDied
            }
            FailureReason::ServerTimeout => matches!(cause, Cause::StartupTimeout | Cause::Hung),
            FailureReason::BenchTimeout => matches!(cause, Cause::BenchmarkTimeout | Cause::BenchmarkHung),
            FailureReason::BenchFail => matches!(cause, Cause::BenchmarkFailed | Cause::ResultInvalid),
            FailureReason::RequestFail => cause == Cause::RequestsFailed,
            FailureReason::InvalidConfig => matches!(
                cause,
                Cause::InvalidFlag
                    | Cause::UnsupportedQuantization
                    | Cause::UnsupportedDtype
                    | Cause::UnsupportedModel
                    | Cause::NotEnoughDevices
            ),
            FailureReason::Cancelled => matches!(cause, Cause::Interrupted | Cause::JobCancelled),
            FailureReason::Scheduler => {
                matches!(cause, Cause::NodeFailed | Cause::Preempted | Cause::LostByScheduler)
            }
            FailureReason::Exactly(exactly) => cause == exactly,
        }
    }
}

impl std::fmt::Display for FailureReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let class = CLASSES.iter().find(|(_, reason)| reason == self).map(|(name, _)| *name);
        match self {
            FailureReason::Exactly(cause) => f.write_str(cause.word()),
            _ => f.write_str(class.unwrap_or_default()),
        }
    }
}

/// How often a failure is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retry {
    /// Further attempts, beyond the first.
    pub attempts: u32,
    /// Pause before each of them.
    pub back_off: Duration,
}

/// How often which failure is tried again within one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryPolicy(
    /// In the order of the file; an exact cause beats a class wherever it stands, and a later one an earlier one.
    pub Vec<(FailureReason, Retry)>,
);

impl RetryPolicy {
    /// What the policy says of a cause; nothing said = not tried again.
    pub fn for_cause(&self, cause: Cause) -> Retry {
        let exact = self.0.iter().rev().find(|(reason, _)| *reason == FailureReason::Exactly(cause));
        let class = || self.0.iter().rev().find(|(reason, _)| reason.covers(cause));
        exact.or_else(class).map(|(_, retry)| *retry).unwrap_or_default()
    }
}

/// What a failed experiment means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Nothing (rule 4).
    #[default]
    Continue,
    /// The run ends, in order, after the failure is recorded.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_are_not() {
        for (word, expected) in [
            ("OOM", Some(FailureReason::Oom)),
            ("server_fail", Some(FailureReason::ServerFail)),
            ("Timeout", Some(FailureReason::Timeout)),
            ("unsupported-dtype", Some(FailureReason::Exactly(Cause::UnsupportedDtype))),
            ("omm", None),
        ] {
            assert_eq!(FailureReason::from_name(word), expected, "{word}");
        }
        assert!(FailureReason::names().iter().all(|name| FailureReason::from_name(name).is_some()));
    }

    #[test]
    fn an_exact_cause_beats_its_class() {
        let retry = |attempts| Retry { attempts, back_off: Duration::ZERO };
        let policy =
            RetryPolicy(vec![(FailureReason::Exactly(Cause::ServerDied), retry(3)), (FailureReason::Crash, retry(1))]);
        assert_eq!(policy.for_cause(Cause::ServerDied).attempts, 3);
        assert_eq!(policy.for_cause(Cause::Crashed).attempts, 1);
        assert_eq!(policy.for_cause(Cause::OutOfDeviceMemory).attempts, 0);
        // `UR_RESULT_ERROR_OUT_OF_RESOURCES` alone may be a lost device: it is tried again as a crash, and no word for memory covers it.
        assert_eq!(policy.for_cause(Cause::LevelZero).attempts, 1);
        assert!(!FailureReason::Oom.covers(Cause::LevelZero));
    }
}

//! What can be wrong with what the user asks for.

use super::Origin;
use crate::plan::FlagError;

/// A setting is wrong; nothing was started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A value that the setting cannot have.
    #[error("invalid value `{value}` for {origin}: expected {expected}")]
    Invalid {
        /// Where the value stands.
        origin: Origin,
        /// As written.
        value: String,
        /// What would be valid.
        expected: String,
        /// The next step, where there is one beyond the expectation.
        hint: Option<String>,
    },
    /// A list with nothing in it.
    #[error("{origin} needs at least one value")]
    Empty {
        /// Where the list stands.
        origin: Origin,
    },
    /// A `--serve-arg` or `--bench-arg` that cannot be read.
    #[error("invalid value `{value}` for {origin}")]
    Flag {
        /// Where it stands.
        origin: Origin,
        /// As written.
        value: String,
        /// Why.
        source: FlagError,
    },
    /// A flag of vLLM that vllm-bench sets itself.
    #[error("`{flag}` cannot be set through {origin}: vllm-bench sets it itself")]
    Reserved {
        /// Where it stands.
        origin: Origin,
        /// vLLM's flag.
        flag: String,
        /// What to use instead.
        instead: String,
    },
    /// `--serve-arg=no:FLAG` for a flag that is not there.
    #[error("{origin} drops `{flag}`, which is not among the default flags")]
    NothingToDrop {
        /// Where it stands.
        origin: Origin,
        /// vLLM's flag.
        flag: String,
        /// The flags there are.
        known: Vec<String>,
    },
    /// Every combination is left out by a rule.
    #[error("the plan is empty: a rule leaves out every combination")]
    EmptyPlan {
        /// The first rule's explanation.
        explanation: String,
    },
}

impl Error {
    /// The next steps.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Error::Invalid { hint, .. } => hint.iter().cloned().collect(),
            Error::Empty { .. } => Vec::new(),
            Error::Flag { .. } => {
                vec!["write `FLAG=VALUE`, `FLAG` for a switch, or `no:FLAG` to drop a default one".into()]
            }
            Error::Reserved { instead, .. } => vec![instead.clone()],
            Error::NothingToDrop { known, .. } => vec![format!("the default flags are: {}", known.join(", "))],
            Error::EmptyPlan { explanation } => vec![format!("{explanation}; add `--enforce-eager true`")],
        }
    }
}

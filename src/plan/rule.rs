//! Combinations that are left out, each with its reason.

use serde::{Deserialize, Serialize};

use super::Axes;

/// A rule that leaves a combination out of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// fp8 without eager execution: vLLM's engine core fails to initialise (a known failure on XPU).
    Fp8NeedsEager,
}

impl Rule {
    /// Every rule, in the order in which they are asked.
    pub const ALL: [Rule; 1] = [Rule::Fp8NeedsEager];

    /// Whether the rule leaves this combination out.
    pub fn skips(self, axes: &Axes) -> bool {
        match self {
            Rule::Fp8NeedsEager => axes.quantization.as_deref() == Some("fp8") && !axes.enforce_eager,
        }
    }

    /// The warning shown for a combination that is left out.
    pub fn reason(self, axes: &Axes) -> String {
        match self {
            Rule::Fp8NeedsEager => format!(
                "Skipping {} tp={} quant=fp8 eager=false (known failure)",
                axes.model, axes.tensor_parallel_size
            ),
        }
    }

    /// What stands behind the rule, in one sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Rule::Fp8NeedsEager => {
                "fp8 without eager execution ends in \"RuntimeError: Engine core initialization failed\" in vLLM's XPU build"
            }
        }
    }
}

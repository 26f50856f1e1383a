//! What can be wrong with what the user asks for.

use super::Origin;
use super::tree::{Diagnostic, Node};
use crate::model::FlagError;
use crate::words;

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
    /// A flag or variable whose value has a meaning that is wrong.
    #[error("{origin}: {problem}")]
    Argument {
        /// Where it stands.
        origin: Origin,
        /// What is wrong.
        problem: String,
        /// The next steps.
        hints: Vec<String>,
    },
    /// Something in a sweep file, or in what all layers add up to.
    #[error("{}", document(.0))]
    Document(Diagnostic),
    /// Every combination is left out by a rule.
    #[error("the plan is empty: {} every combination", leave_out(.rules))]
    EmptyPlan {
        /// The rules that leave out combinations, by name; `include` where nothing meets what it asks for.
        rules: Vec<String>,
        /// The first rule's explanation.
        explanation: String,
    },
}

impl From<Diagnostic> for Error {
    /// Flags and variables have their own wording: they have no key path.
    fn from(trouble: Diagnostic) -> Self {
        match trouble.origin {
            Some(origin @ (Origin::Flag(_) | Origin::Variable(_))) => {
                Error::Argument { origin, problem: trouble.problem, hints: trouble.hints }
            }
            Some(Origin::File { .. } | Origin::Preset { .. }) | None => Error::Document(trouble),
        }
    }
}

/// Which rules leave out: `the rule `a` leaves out`, `the rules `a`, `b` leave out`.
fn leave_out(rules: &[String]) -> String {
    let named = rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", ");
    match rules.len() {
        1 => format!("the rule {named} leaves out"),
        _ => format!("the rules {named} leave out"),
    }
}

/// What to do where rules leave out everything.
fn ways_out(rules: &[String], explanation: &str) -> Vec<String> {
    /// The rule of the presets; what it leaves out runs with eager execution.
    const NEEDS_EAGER: &str = "fp8-needs-eager";
    const INCLUDE: &str = "include";
    let mut ways = vec![explanation.to_owned()];
    let named = rules.iter().filter(|rule| *rule != INCLUDE);
    let flags: Vec<String> = named.map(|rule| format!("--no-rule {}", words::shell(rule))).collect();
    if rules.iter().any(|rule| rule == NEEDS_EAGER) {
        ways.push("`--enforce-eager true` measures with eager execution".into());
    }
    if !flags.is_empty() {
        let what = if flags.len() == 1 { "the rule off" } else { "the rules off" };
        ways.push(format!("`{}` switches {what} and measures these combinations", flags.join(" ")));
    }
    if rules.iter().any(|rule| rule == INCLUDE) {
        ways.push("nothing meets a condition under `include`: change one of them, or leave `include` out".into());
    }
    ways
}

fn document(trouble: &Diagnostic) -> String {
    let place = trouble.origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default();
    let path = if trouble.path.is_empty() { String::new() } else { format!("{}: ", trouble.path) };
    format!("{place}{path}{}", trouble.problem)
}

/// What to write instead, where nothing better is known.
fn next_step(path: &str, expected: &str) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    match expected {
        words if words.contains("duration") => format!("write `{key}: 90s`; units are `ms`, `s`, `m` and `h`"),
        words if words.starts_with("`true`") => format!("write `{key}: true`, `{key}: false`, or leave the key out"),
        words if words.starts_with("a whole number") => {
            // `a whole number from 3 to 100`: the least of them is a value.
            let least = words.strip_prefix("a whole number from ").and_then(|range| range.split_whitespace().next());
            format!("write `{key}: {}`, or leave the key out", least.unwrap_or("1"))
        }
        _ => format!("write another value after `{key}:`, or leave the key out"),
    }
}

impl Error {
    /// A value that its key cannot have; in the words of the place where it stands.
    pub fn wrong(node: &Node, path: &str, expected: &str, hint: Option<String>) -> Self {
        let digits = node.scalar().is_some_and(|text| text.len() > 9 && text.bytes().all(|byte| byte.is_ascii_digit()));
        let expected =
            if digits && expected.starts_with("a whole number") { "a smaller whole number" } else { expected };
        if node.origin.is_document() {
            let problem = format!("expected {expected}, found {}", node.describe());
            let hints = vec![hint.unwrap_or_else(|| next_step(path, expected))];
            return Error::Document(Diagnostic {
                origin: Some(node.origin.clone()),
                path: path.to_owned(),
                problem,
                hints,
            });
        }
        let value = node.scalar().unwrap_or_default().escape_debug().to_string();
        Error::Invalid { origin: node.origin.clone(), value, expected: expected.to_owned(), hint }
    }

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
            Error::Argument { hints, .. } => hints.clone(),
            Error::Document(trouble) => trouble.hints.clone(),
            Error::EmptyPlan { rules, explanation } => ways_out(rules, explanation),
        }
    }
}

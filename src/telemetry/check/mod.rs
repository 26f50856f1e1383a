//! The judgements of `vllm-bench check`: facts in, lines out. Nothing here reads the machine.
//!
//! `machine` judges what the host offers, `engine` what vLLM needs, `network` the port and the way out, `watched` what can be sampled.

mod engine;
mod machine;
mod network;
mod program;
mod watched;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use engine::{
    LockFacts, SetvarsFacts, VllmFacts, device_locks, devices, hf_cache, hf_home, hf_hub_cache, hf_token,
    hf_token_file, setvars, simulated, vllm,
};
pub use machine::{disk, memory, open_files, results_dir, shm, timezone};
pub use network::{port, proxy, shown_argv};
pub use program::{ProgramFacts, program};
pub use watched::{WatchedFacts, telemetry};

/// How good or bad a line is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A run may work, or work worse than it could.
    Warning,
    /// A run would fail.
    Failure,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckLine {
    /// Stable name in kebab case, such as `results-dir`.
    pub name: &'static str,
    /// The verdict.
    pub level: Level,
    /// One sentence about what was found.
    pub message: String,
    /// What to do about it; always there unless the level is ok.
    pub next_step: Option<String>,
    /// The facts, for `--json`. Never holds a secret.
    pub data: Value,
}

impl CheckLine {
    fn ok(name: &'static str, message: impl Into<String>, data: Value) -> Self {
        Self { name, level: Level::Ok, message: message.into(), next_step: None, data }
    }

    fn warning(name: &'static str, message: impl Into<String>, next_step: impl Into<String>, data: Value) -> Self {
        Self { name, level: Level::Warning, message: message.into(), next_step: Some(next_step.into()), data }
    }

    fn failure(name: &'static str, message: impl Into<String>, next_step: impl Into<String>, data: Value) -> Self {
        Self { level: Level::Failure, ..Self::warning(name, message, next_step, data) }
    }
}

/// The worst level of the lines; ok when there are none.
pub fn overall(lines: &[CheckLine]) -> Level {
    lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok)
}

const GIB: u64 = 1 << 30;

/// `9.5 GiB`, for people. Whole below 1 GiB in MiB.
fn shown_bytes(bytes: u64) -> String {
    if bytes >= GIB { format!("{:.1} GiB", bytes as f64 / GIB as f64) } else { format!("{} MiB", bytes >> 20) }
}

/// `2`, `2 and 4`, `2, 4 and 8`.
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_line_decides() {
        let line = |level| CheckLine { level, ..CheckLine::ok("x", "", Value::Null) };
        for (levels, worst) in [
            (vec![], Level::Ok),
            (vec![Level::Ok, Level::Ok], Level::Ok),
            (vec![Level::Warning, Level::Ok], Level::Warning),
            (vec![Level::Warning, Level::Failure, Level::Ok], Level::Failure),
        ] {
            let lines: Vec<_> = levels.iter().copied().map(line).collect();
            assert_eq!(overall(&lines), worst, "{levels:?}");
        }
    }

    #[test]
    fn a_line_as_json() {
        let line = CheckLine::warning("shm", "small", "more", serde_json::json!({"total_bytes": 1}));
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"name":"shm","level":"warning","message":"small","next_step":"more","data":{"total_bytes":1}}"#
        );
    }

    #[test]
    fn sizes_and_lists_for_people() {
        assert_eq!([shown_bytes(64 << 20), shown_bytes(10 * GIB)], ["64 MiB", "10.0 GiB"]);
        let words = |text: &str| listed(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!([words(""), words("2"), words("2 4"), words("2 4 8")], ["", "2", "2 and 4", "2, 4 and 8"]);
    }
}

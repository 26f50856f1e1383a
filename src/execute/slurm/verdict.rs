//! What the scheduler says of a task that has not said itself how it ended. Pure.

use crate::model::Cause;

/// What Slurm says of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// `COMPLETED`, `NODE_FAIL`, `CANCELLED by 0` …
    pub state: String,
    /// `ExitCode`: code and signal.
    pub exit: String,
    /// Who said so: `scontrol`, `sacct`.
    pub by: &'static str,
}

impl Said {
    /// The word of the state.
    fn word(&self) -> &str {
        self.state.split([' ', '+']).next().unwrap_or_default()
    }

    /// Whether the task is over, in this state.
    pub fn is_over(&self) -> bool {
        matches!(
            self.word(),
            "COMPLETED"
                | "FAILED"
                | "CANCELLED"
                | "TIMEOUT"
                | "NODE_FAIL"
                | "PREEMPTED"
                | "OUT_OF_MEMORY"
                | "BOOT_FAIL"
                | "DEADLINE"
                | "REVOKED"
        )
    }

    /// As it is shown.
    pub fn told(&self) -> String {
        let exit = if self.exit.is_empty() { String::new() } else { format!(", exit code {}", self.exit) };
        format!("{} says {}{exit}", self.by, self.state)
    }
}

/// Why a task is over that has not said so itself: by what Slurm printed into its output, which is there before any accounting, else by
/// the state that Slurm gives it. `began`: it had begun to measure. `None` where neither tells.
pub fn cause(said: Option<&Said>, output: &str, began: bool) -> Option<Cause> {
    by_output(output).or_else(|| by_state(said?, began))
}

/// What `slurmstepd` and `srun` write into the output of a job that they end.
fn by_output(output: &str) -> Option<Cause> {
    // The last word counts: a task that was started again has the end of its first start in the same file.
    let line = |line: &str| {
        let slurm = line.starts_with("slurmstepd") || line.starts_with("srun") || line.contains("*** JOB ");
        [
            ("DUE TO TIME LIMIT", Cause::TimeLimit),
            ("DUE TO NODE FAILURE", Cause::NodeFailed),
            ("DUE TO PREEMPTION", Cause::Preempted),
            ("oom_kill event", Cause::JobOutOfMemory),
            ("oom-kill event", Cause::JobOutOfMemory),
            ("Exceeded job memory limit", Cause::JobOutOfMemory),
            ("exceeded memory limit", Cause::JobOutOfMemory),
            ("CANCELLED AT", Cause::JobCancelled),
        ]
        .into_iter()
        .find(|(words, _)| slurm && line.contains(words))
        .map(|(_, cause)| cause)
    };
    output.lines().filter_map(line).next_back()
}

fn by_state(said: &Said, began: bool) -> Option<Cause> {
    Some(match said.word() {
        "TIMEOUT" | "DEADLINE" => Cause::TimeLimit,
        "NODE_FAIL" | "BOOT_FAIL" => Cause::NodeFailed,
        "PREEMPTED" | "REVOKED" => Cause::Preempted,
        "OUT_OF_MEMORY" => Cause::JobOutOfMemory,
        "CANCELLED" => Cause::JobCancelled,
        "FAILED" if !began => Cause::LaunchFailed,
        "FAILED" => Cause::KilledBySystem,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: &str) -> Said {
        Said { state: state.into(), exit: "0:0".into(), by: "sacct" }
    }

    #[test]
    fn every_state_of_an_end_has_its_cause_and_the_others_none() {
        for (state, expected) in [
            ("TIMEOUT", Some(Cause::TimeLimit)),
            ("NODE_FAIL", Some(Cause::NodeFailed)),
            ("PREEMPTED", Some(Cause::Preempted)),
            ("OUT_OF_MEMORY", Some(Cause::JobOutOfMemory)),
            ("CANCELLED by 1000", Some(Cause::JobCancelled)),
            ("FAILED", Some(Cause::KilledBySystem)),
            ("COMPLETED", None),
        ] {
            assert!(said(state).is_over(), "{state}");
            assert_eq!(cause(Some(&said(state)), "", true), expected, "{state}");
        }
        for state in ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"] {
            assert!(!said(state).is_over(), "{state}");
        }
        assert_eq!(cause(Some(&said("FAILED")), "", false), Some(Cause::LaunchFailed));
        assert_eq!(cause(None, "", true), None);
    }

    #[test]
    fn what_slurm_printed_into_the_output_comes_first_and_its_last_word_counts() {
        let ended = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T10:00:00 DUE TO TIME LIMIT ***\n";
        assert_eq!(cause(Some(&said("CANCELLED")), ended, true), Some(Cause::TimeLimit));
        let again = format!(
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T10:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n{ended}"
        );
        assert_eq!(cause(None, &again, true), Some(Cause::TimeLimit));
        let oom = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.\n";
        assert_eq!(cause(Some(&said("FAILED")), oom, true), Some(Cause::JobOutOfMemory));
        assert_eq!(cause(None, "a prompt about jobs CANCELLED AT noon", true), None, "nobody's words but Slurm's");
    }
}

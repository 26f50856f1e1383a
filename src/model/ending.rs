//! How a server's process ended, as the caller saw it. The log says why; the ending says what to believe of it.

use serde::{Deserialize, Serialize};

use super::StartPhase;

/// How the server ended.
///
/// The last three mean that *we* ended it: what the log shows after that (workers that vanish, an engine that dies) is our
/// own doing and counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It exited by itself with this code.
    Exited(i32),
    /// A signal that we did not send ended it.
    Signaled(i32),
    /// It was not ready within the limit, and we ended it.
    TimedOut {
        /// The phase it was in when the limit came.
        phase: StartPhase,
        /// The limit, in seconds.
        seconds: u64,
    },
    /// It printed nothing and did nothing for too long, and we ended it.
    Hung {
        /// The phase it was in, as far as the log showed.
        phase: StartPhase,
        /// How long it had been silent, in seconds.
        seconds: u64,
    },
    /// We ended it in order: the experiment was over, or the run was interrupted.
    Stopped,
}

impl Ending {
    /// Whether we ended the server, rather than it itself or someone else.
    pub const fn is_ours(self) -> bool {
        match self {
            Ending::Exited(_) | Ending::Signaled(_) => false,
            Ending::TimedOut { .. } | Ending::Hung { .. } | Ending::Stopped => true,
        }
    }

    /// The signal that ended it: its own, or the one that a shell's exit code (128 + n) reports.
    pub(crate) const fn signal(self) -> Option<i32> {
        match self {
            Ending::Signaled(signal) => Some(signal),
            Ending::Exited(code) if code > 128 && code < 128 + 65 => Some(code - 128),
            Ending::Exited(_) | Ending::TimedOut { .. } | Ending::Hung { .. } | Ending::Stopped => None,
        }
    }
}

/// `SIGKILL` for 9, and so on; `signal 42` for one without a name. Numbers are Linux's on x86-64 and AArch64.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reports_signals_as_exit_codes() {
        assert_eq!(Ending::Exited(137).signal(), Some(9));
        assert_eq!(Ending::Signaled(11).signal(), Some(11));
        assert_eq!(Ending::Exited(1).signal(), None);
        assert_eq!(Ending::Exited(255).signal(), None);
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(40), "signal 40");
    }

    #[test]
    fn endings_survive_json() {
        for (ending, json) in [
            (Ending::Exited(1), r#"{"exited":1}"#),
            (Ending::Signaled(9), r#"{"signaled":9}"#),
            (
                Ending::TimedOut { phase: StartPhase::Loading, seconds: 300 },
                r#"{"timed-out":{"phase":"loading","seconds":300}}"#,
            ),
            (Ending::Stopped, r#""stopped""#),
        ] {
            assert_eq!(serde_json::to_string(&ending).unwrap(), json);
            assert_eq!(serde_json::from_str::<Ending>(json).unwrap(), ending);
        }
    }
}

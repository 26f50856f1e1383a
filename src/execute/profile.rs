//! The login shell before a server or a client: while the user's profile runs, nothing of vLLM has begun.
//!
//! A profile that hangs (a lock that a `kill -9` left, a network folder that is gone) costs its time twice per experiment
//! and prints nothing. It is told by the program of the group's leader: a shell until the script hands over with `exec`.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::ProcessId;
use crate::process::procfs;

/// A login shell that takes longer is named.
const SLOW: Duration = Duration::from_secs(5);
/// How often the leader's program is looked at, where nothing else sets the pace.
const EVERY: Duration = Duration::from_millis(250);
/// How many characters of a command line are shown.
const SHOWN: usize = 120;

/// What was seen of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// It handed over to the program, or ended.
    Over,
    /// It takes long: what it waits for, and what to do.
    Slow(String),
}

/// Watches the leader of a group from its launch to the end of its shell.
#[derive(Debug)]
pub(super) struct Profile {
    leader: ProcessId,
    /// Its command line when it was launched: a `vllm` that is a shell script is another one.
    launched: Vec<String>,
    login: bool,
    since: Instant,
    told: bool,
    over: bool,
}

impl Profile {
    /// Watches from now. `login`: the shell is a login shell, which reads the user's profile.
    pub fn new(leader: ProcessId, login: bool) -> Self {
        let launched = procfs::argv(leader.pid);
        Self { leader, launched, login, since: Instant::now(), told: false, over: false }
    }

    /// What is new: each sign comes once.
    pub fn look(&mut self) -> Option<Sign> {
        if self.over {
            return None;
        }
        if self.launched.is_empty() {
            // For a moment after `exec` a process shows no command line.
            self.launched = procfs::argv(self.leader.pid);
        }
        if !procfs::is_shell(self.leader.pid) || procfs::argv(self.leader.pid) != self.launched {
            self.over = true;
            return Some(Sign::Over);
        }
        if self.told || self.since.elapsed() < SLOW {
            return None;
        }
        self.told = true;
        Some(Sign::Slow(said(self.login, waits_for(self.leader.pid).as_deref())))
    }

    /// Waits for a shell that takes long; never comes back for one that does not.
    pub async fn slow(mut self) -> String {
        loop {
            match self.look() {
                Some(Sign::Slow(text)) => return text,
                Some(Sign::Over) => std::future::pending::<()>().await,
                None => tokio::time::sleep(EVERY).await,
            }
        }
    }
}

/// The command that a shell waits for: the last of its descendants, where it has any.
fn waits_for(shell: i32) -> Option<String> {
    let all = procfs::all();
    let below = procfs::descendants(shell, &all).into_iter().filter(|stat| !stat.is_dead());
    let last = below.max_by_key(|stat| (stat.start_time, stat.pid))?;
    Some(format!("`{}` (process {})", procfs::command_line(last.pid, SHOWN), last.pid))
}

fn said(login: bool, waits_for: Option<&str>) -> String {
    let seconds = SLOW.as_secs();
    let on = waits_for.map(|what| format!(", now in {what}")).unwrap_or_default();
    if login {
        format!(
            "the login shell has run this user's profile for {seconds} s{on}; vLLM starts when it is through. \
             `--login off` does without the profile (not in the XPU container, whose profile sets paths)"
        )
    } else {
        format!("the launch script has run for {seconds} s before vLLM{on}; what it sources (`setvars.sh`) takes long")
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn shell(script: &str) -> (std::process::Child, ProcessId) {
        let child = Command::new("bash").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        (child, process)
    }

    #[tokio::test]
    async fn a_shell_that_waits_is_named_with_what_it_waits_for_and_one_that_handed_over_is_not() {
        let (mut child, leader) = shell("sleep 1000; true");
        let mut profile = Profile::new(leader, true);
        while waits_for(leader.pid).is_none_or(|what| !what.contains("sleep 1000")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A busy machine may have taken long until here.
        profile.since = Instant::now();
        assert_eq!(profile.look(), None, "not before its time");
        profile.since -= SLOW;
        let Some(Sign::Slow(text)) = profile.look() else { panic!("not named") };
        assert!(text.contains("now in `sleep 1000` (process ") && text.contains("`--login off`"), "{text}");
        assert_eq!(profile.look(), None, "named once");
        let below = procfs::descendants(leader.pid, &procfs::all());
        for process in below {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL);
        }
        child.wait().unwrap();
        assert_eq!(profile.look(), Some(Sign::Over));

        let (mut child, leader) = shell("exec sleep 1000");
        let mut profile = Profile::new(leader, true);
        while profile.look() != Some(Sign::Over) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

//! The container in which a group's command runs, as its runtime knows it.
//!
//! `docker run` is only a client: it can die while the container that it asked for lives on under a daemon, outside of every group
//! and cgroup of ours. So a group that is a container is known by the container's name, which is the group's token, and by its number,
//! which the runtime writes into a file: its processes are members of the group, it is ended through its runtime, and the group is
//! empty only when the runtime says that there is no such container. The runtime is asked, never believed by its exit code: whoever
//! waits for all children of a process may take that away.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::registry::{self, MARKER};
use crate::bounded;

/// How long a runtime may take for one answer; to remove a container it waits for the container's processes.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a container may take to be gone once it was removed.
const REMOVAL: Duration = Duration::from_secs(10);
/// So long a container may still come to be, whose client was ended in the middle of asking for it.
const UNBORN: Duration = Duration::from_secs(1);
/// How often the runtime is asked meanwhile.
const POLL: Duration = Duration::from_millis(200);

/// What a group takes longer to end because it is a container.
pub(super) const LONGER: Duration = Duration::from_secs(60);

/// The runtime of a group's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Runtime {
    /// Its program (`docker`, `podman`), as an absolute path.
    pub program: PathBuf,
}

/// What a runtime says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// There is none of this name.
    Gone,
    /// There is one.
    There,
    /// It does not answer, or not in words that are known.
    Unknown,
}

/// The name of the container of a group, as a launch script has it: the guard gives the script the group's token.
pub fn name_in_script() -> String {
    registry::cgroup_name(&in_script())
}

/// The label of the container of a group, as a launch script has it.
pub fn label_in_script() -> String {
    format!("vllm-bench.group={}", in_script())
}

/// The file that gets the container's number, as a launch script has it.
///
/// # Errors
/// When this user's directory for the registry cannot be used.
pub fn id_file_in_script() -> Result<String, super::Error> {
    Ok(id_file(&registry::home()?, &in_script()).to_string_lossy().into_owned())
}

/// Whether a word of a launch script holds the group's token, which the shell is to put in: only the three words above do.
pub fn holds_token(word: &str) -> bool {
    word.contains(&in_script())
        && (word == name_in_script() || word == label_in_script() || id_file_in_script().is_ok_and(|file| file == word))
}

fn in_script() -> String {
    format!("${MARKER}")
}

/// Where the runtime writes the number of the container of a group.
pub(super) fn id_file(home: &Path, token: &str) -> PathBuf {
    home.join("groups").join(format!("{token}.cid"))
}

/// The number of the container of a group; `None` before there is one.
pub(super) fn id_of(token: &str) -> Option<String> {
    let text = bounded::read_text(&id_file(&registry::home().ok()?, token), bounded::NOTE).ok()?;
    let id = text.trim();
    let is_id = (12..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| id.to_owned())
}

impl Runtime {
    /// Sends the container's first process a signal. Where there is no container, nothing happens.
    pub(super) async fn tell(&self, token: &str, signal: Signal) {
        let signal = format!("--signal={}", signal.as_str());
        let _ = self.ask(&["kill", &signal, &registry::cgroup_name(token)]).await;
    }

    /// Removes the container of a group, with whatever runs in it, and says what is known of it then.
    pub(super) async fn remove(&self, token: &str) -> Presence {
        let name = registry::cgroup_name(token);
        let began = Instant::now();
        loop {
            let presence = self.presence(&name).await;
            let unborn = id_of(token).is_none() && began.elapsed() < UNBORN;
            match presence {
                Presence::Gone if !unborn => return presence,
                Presence::There | Presence::Unknown if began.elapsed() >= REMOVAL => return presence,
                Presence::There => drop(self.ask(&["rm", "--force", &name]).await),
                Presence::Gone | Presence::Unknown => {}
            }
            sleep(POLL).await;
        }
    }

    async fn presence(&self, name: &str) -> Presence {
        match self.ask(&["container", "inspect", "--format", "{{.Id}}", name]).await {
            Some(said) => presence_of(&said),
            None => Presence::Unknown,
        }
    }

    /// What the runtime says, on both of its streams; `None` where it cannot be started, or says nothing in time.
    async fn ask(&self, words: &[&str]) -> Option<String> {
        let mut command = Command::new(&self.program);
        command.args(words);
        tokio::task::spawn_blocking(move || said_by(command)).await.ok()?
    }
}

fn presence_of(said: &str) -> Presence {
    let is_id = |line: &str| line.len() >= 12 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    if said.lines().any(|line| is_id(line.trim())) {
        Presence::There
    } else if said.to_ascii_lowercase().contains("no such container") {
        Presence::Gone
    } else {
        Presence::Unknown
    }
}

fn said_by(mut command: Command) -> Option<String> {
    let (mut reader, writer) = std::io::pipe().ok()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().ok()?).stderr(writer).process_group(0);
    let mut child = command.spawn().ok()?;
    // It holds the pipe's other end.
    drop(command);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.by_ref().take(1 << 20).read_to_end(&mut bytes);
        let _ = tell.send(bytes);
    });
    let said = told.recv_timeout(ANSWER).ok();
    if said.is_none() {
        let _ = i32::try_from(child.id()).map(|pid| killpg(Pid::from_raw(pid), Signal::SIGKILL));
    }
    let _ = child.wait();
    said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_gone_only_when_its_runtime_says_so() {
        let id = "c0ffee5a7d3e4f11c0ffee5a7d3e4f11c0ffee5a7d3e4f11c0ffee5a7d3e4f11";
        for (said, is) in [
            (format!("{id}\n"), Presence::There),
            ("Error: No such container: vllm-bench-1\n".to_owned(), Presence::Gone),
            ("[]\nError response from daemon: No such container: vllm-bench-1\n".to_owned(), Presence::Gone),
            ("Error: no such container vllm-bench-1\n".to_owned(), Presence::Gone),
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.".to_owned(), Presence::Unknown),
            (String::new(), Presence::Unknown),
        ] {
            assert_eq!(presence_of(&said), is, "{said}");
        }
    }

    #[test]
    fn only_the_words_of_the_token_are_left_to_the_shell() {
        assert!(holds_token(&name_in_script()) && holds_token(&label_in_script()));
        assert!(holds_token(&id_file_in_script().unwrap()));
        for word in ["$(id)$GUARDED_BY_VLLM_BENCH", "x-$GUARDED_BY_VLLM_BENCH", "$HOME"] {
            assert!(!holds_token(word), "{word}");
        }
    }
}

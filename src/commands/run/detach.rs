//! `run --detach`: the same run in a session of its own, without the terminal.
//!
//! The detached process reports through its standard output, a pipe at first, where its run directory is; then it
//! turns standard output and error to `run.log`. Until then its errors appear on the terminal as those of any command.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::config::safe_words;
use crate::error::Error;
use crate::exit;
use crate::record::RunDir;
use crate::ui::Ui;

/// What the detached process reports when its run directory stands.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    pid: u32,
    run: PathBuf,
    log: PathBuf,
    resumed: bool,
}

/// Starts the detached process and returns when its run has begun, or with its exit code when it could not.
///
/// # Errors
/// When it cannot be started.
pub fn start(command_line: &[String], ui: &Ui) -> Result<u8, Error> {
    let args: Vec<String> = command_line.iter().skip(1).filter(|arg| *arg != "--detach").cloned().collect();
    // It lives for hours, and its command line is seen by every user.
    let (args, secrets) = safe_words(&args);
    let mut child = Command::new("/proc/self/exe")
        .arg0(command_line.first().map_or("vllm-bench", String::as_str))
        .args(args)
        .envs(secrets)
        .arg("--detached-child")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let Ok(ready) = serde_json::from_str::<Ready>(&line) else {
        // It ended before its run began, and has said why on the terminal.
        let status = child.wait()?;
        return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::BUG));
    };
    let dir = ready.run.parent().unwrap_or(Path::new(".")).display().to_string();
    let what = if ready.resumed { "the run goes on" } else { "a new run has begun" };
    ui.out(&format!("{what} without the terminal: process {}", ready.pid));
    ui.out(&format!("  run directory  {}", ready.run.display()));
    ui.out(&format!("  log            {}", ready.log.display()));
    ui.out(&format!("  follow it      vllm-bench status --watch --results-dir {dir}"));
    ui.out(&format!("                 vllm-bench logs --results-dir {dir}"));
    ui.out(&format!("  end it         vllm-bench stop --results-dir {dir}"));
    Ok(exit::OK)
}

/// Whether the process that waits for the detached one to begin is gone: nobody reads what it would be told.
pub fn nobody_waits() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    let mut pipe = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let asked = poll(&mut pipe, PollTimeout::ZERO);
    asked.is_ok() && pipe[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Leaves the terminal's session, so that its end does not reach this process.
pub fn leave_terminal() {
    if let Err(error) = nix::unistd::setsid() {
        tracing::warn!(%error, "could not begin a session of its own");
    }
}

/// Tells the waiting parent that the run has begun, and turns output to `run.log`.
///
/// # Errors
/// When the log cannot be opened.
pub fn report_ready(run: &RunDir, resumed: bool) -> Result<(), Error> {
    let path = run.layout().run_log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(crate::record::Error::write(&path))?;
    let ready = Ready { pid: std::process::id(), run: run.path().to_owned(), log: path, resumed };
    let mut line = serde_json::to_string(&ready).map_err(std::io::Error::from)?;
    line.push('\n');
    // The parent may have been ended meanwhile; the run goes on.
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    nix::unistd::dup2_stdout(&log).map_err(std::io::Error::from)?;
    nix::unistd::dup2_stderr(&log).map_err(std::io::Error::from)?;
    Ok(())
}

//! Runs one vendor tool (`xpu-smi`, `nvidia-smi`, …) with a time limit, in a process group of its own that is ended whole.
//!
//! A wedged card makes such tools hang for ever, sometimes beyond SIGKILL (state D): after the limit the group is killed and
//! the caller goes on without waiting for a process that cannot die.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// No more than this many bytes of each stream are kept.
const OUTPUT_CAP_BYTES: u64 = 8 << 20;
/// How often the tool is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long a finished or killed tool's pipes and exit status may take to arrive.
const SETTLE: Duration = Duration::from_millis(500);

/// What a tool that ended by itself left behind.
#[derive(Debug)]
pub struct ToolOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// The first 8 MiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 8 MiB of its standard error.
    pub stderr: Vec<u8>,
}

impl ToolOutput {
    /// Standard output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last line that says something, of standard error or else standard output: the tool's own complaint.
    pub fn complaint(&self) -> Option<String> {
        let last = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
        };
        last(&self.stderr).or_else(|| last(&self.stdout))
    }
}

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("`{}` could not be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// It was still running at the limit, and was killed with its group.
    #[error("`{}` gave no answer within {} s and was ended", program.display(), limit.as_secs_f64())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// Its end could not be observed.
    #[error("`{}` could not be waited for", program.display())]
    Wait {
        /// The program.
        program: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// How long a program may take that is known to be slow.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// So long it may use no processor time.
    pub idle: Duration,
    /// So long it may take in all.
    pub most: Duration,
}

/// How often it is looked whether a program works.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often one is told that a program is waited for.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// Runs `command` to its end, or until it does nothing any more: a program that works is waited for. `tell` gets the time
/// waited so far, every 15 s.
pub fn run_patiently(command: Command, patience: Patience, tell: impl Fn(Duration)) -> Result<ToolOutput, ToolError> {
    let began = Instant::now();
    let (mut spent, mut worked) = (0, began);
    let (mut told, mut looked) = (began, began);
    run_while(command, |group| {
        let now = Instant::now();
        // All of `/proc` is read for it: seldom, and before it is called idle.
        if now - looked >= LOOK_EVERY.min(patience.idle / 2) {
            looked = now;
            let spent_now = processor_ticks(group);
            if spent_now != spent {
                (spent, worked) = (spent_now, now);
            }
        }
        if now - told >= TELL_EVERY {
            told = now;
            tell(now - began);
        }
        let (idle, total) = (now - worked, now - began);
        if idle >= patience.idle {
            Err(idle)
        } else if total >= patience.most {
            Err(total)
        } else {
            Ok(())
        }
    })
}

/// The processor time, in clock ticks, of the live processes of a group and of their children that have ended.
fn processor_ticks(group: Pid) -> u64 {
    let ticks = |entry: std::fs::DirEntry| -> Option<u64> {
        entry.file_name().to_str()?.parse::<i32>().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        // Behind the name: state is field 3, the group field 5, the four times fields 14 to 17.
        (fields.get(2)?.parse() == Ok(group.as_raw())).then_some(())?;
        Some(fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum())
    };
    std::fs::read_dir("/proc").map_or(0, |entries| entries.flatten().filter_map(ticks).sum())
}

/// Runs `command` to its end, or to `limit` (wall time), with nothing on its standard input. Whatever is left of its process
/// group is killed in either case.
pub fn run_limited(command: Command, limit: Duration) -> Result<ToolOutput, ToolError> {
    let deadline = Instant::now() + limit;
    run_while(command, |_| if Instant::now() >= deadline { Err(limit) } else { Ok(()) })
}

/// As [`run_limited`], and ended at once where `is_over` says that nobody waits for its answer any more.
pub fn run_unless(command: Command, limit: Duration, is_over: impl Fn() -> bool) -> Result<ToolOutput, ToolError> {
    let began = Instant::now();
    run_while(command, |_| match is_over() || began.elapsed() >= limit {
        true => Err(began.elapsed().min(limit)),
        false => Ok(()),
    })
}

/// Runs `command` as long as `goes_on` (asked between two looks) lets it: its error is how long it was waited for.
fn run_while(
    mut command: Command,
    mut goes_on: impl FnMut(Pid) -> Result<(), Duration>,
) -> Result<ToolOutput, ToolError> {
    let program = PathBuf::from(command.get_program());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = match start(&mut command) {
        Ok(child) => child,
        Err(source) => return Err(ToolError::Start { program, source }),
    };
    let (done, finished) = mpsc::channel();
    let stdout = child.stdout.take().map(|stream| collect(stream, done.clone()));
    let stderr = child.stderr.take().map(|stream| collect(stream, done));
    let group = Pid::from_raw(child.id().cast_signed());

    let mut over = None;
    let ended = exited(group, || match goes_on(group) {
        Ok(()) => true,
        Err(waited) => {
            over = Some(waited);
            false
        }
    });
    // The leader is not reaped yet (WNOWAIT): its number still names this group and no other.
    let _ = killpg(group, Signal::SIGKILL);
    match ended {
        Ok(true) => {}
        Ok(false) => {
            // Reap it if it can die at all; a process in state D is left to init.
            if matches!(exited_within(group, SETTLE), Ok(true)) {
                let _ = child.wait();
            }
            return Err(ToolError::TimedOut { program, limit: over.unwrap_or_default() });
        }
        Err(errno) => return Err(ToolError::Wait { program, source: errno.into() }),
    }
    let status = child.wait().map_err(|source| ToolError::Wait { program, source })?;
    // A grandchild that left the group may hold the pipes open: take what has come.
    for _ in 0..2 {
        if finished.recv_timeout(SETTLE).is_err() {
            break;
        }
    }
    Ok(ToolOutput { status, stdout: taken(stdout), stderr: taken(stderr) })
}

/// Spawns, and tries again while the file is open for writing elsewhere (an upgrade in progress, a fork at a bad moment).
fn start(command: &mut Command) -> std::io::Result<Child> {
    let mut attempt = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy && attempt < 20 => {
                attempt += 1;
                thread::sleep(POLL * attempt);
            }
            other => return other,
        }
    }
}

/// Whether the process ended within `limit`. It is left as a zombie, so that its number stays ours.
fn exited_within(pid: Pid, limit: Duration) -> Result<bool, Errno> {
    let deadline = Instant::now() + limit;
    exited(pid, || Instant::now() < deadline)
}

/// Whether the process ended before `goes_on` said no.
fn exited(pid: Pid, mut goes_on: impl FnMut() -> bool) -> Result<bool, Errno> {
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
        if !goes_on() {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

type Shared = Arc<Mutex<Vec<u8>>>;

/// Reads `stream` on a thread into a buffer that can be looked at before the end. Beyond the cap it is read and dropped, so
/// that the tool never blocks on a full pipe.
fn collect(mut stream: impl Read + Send + 'static, done: mpsc::Sender<()>) -> Shared {
    let buffer = Shared::default();
    let kept = Arc::clone(&buffer);
    thread::spawn(move || {
        let mut piece = [0; 16 * 1024];
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    let Ok(mut kept) = kept.lock() else { break };
                    let room = usize::try_from(OUTPUT_CAP_BYTES).unwrap_or(usize::MAX).saturating_sub(kept.len());
                    kept.extend_from_slice(&piece[..count.min(room)]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = done.send(());
    });
    buffer
}

fn taken(buffer: Option<Shared>) -> Vec<u8> {
    buffer.and_then(|shared| shared.lock().map(|mut bytes| std::mem::take(&mut *bytes)).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let output =
            run_limited(shell("echo out; echo one >&2; echo two >&2; exit 3"), Duration::from_secs(60)).unwrap();
        assert_eq!(output.text(), "out\n");
        assert_eq!(output.complaint().as_deref(), Some("two"));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_tool_that_hangs_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; trap '' TERM; wait", file.display());
        let error = run_limited(shell(&script), Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // Gone, or a zombie that waits for init. A signal takes a moment to be acted on; without one it sleeps for 1000 s.
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().unwrap_or("").trim().chars().next();
            !matches!(state, None | Some('Z' | 'X'))
        };
        let patience = Instant::now() + Duration::from_secs(60);
        while alive() && Instant::now() < patience {
            thread::sleep(POLL);
        }
        assert!(!alive(), "the tool's child lives");
    }

    #[test]
    fn a_program_that_works_is_waited_for_and_one_that_does_nothing_is_not() {
        let patience = Patience { idle: Duration::from_secs(1), most: Duration::from_secs(600) };
        let idle = run_patiently(shell("sleep 1000"), patience, |_| {}).unwrap_err();
        assert!(matches!(idle, ToolError::TimedOut { .. }), "{idle}");
        // Works for longer than it may be idle, and ends.
        let works = "s=$(date +%s%N); while [ $(( ($(date +%s%N) - s) / 1000000 )) -lt 1500 ]; do :; done; echo over";
        assert_eq!(run_patiently(shell(works), patience, |_| {}).unwrap().text(), "over\n");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_keep_us() {
        // `setsid` leaves the group, holds stdout, and would run for 1000 s; it is ended below by its own pid.
        let output = run_limited(shell("setsid sleep 1000 & echo $!"), Duration::from_secs(60)).unwrap();
        let pid: i32 = output.text().trim().parse().unwrap();
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        assert!(output.status.success());
    }

    #[test]
    fn a_flood_is_capped_and_does_not_block() {
        let output = run_limited(shell("head -c 20000000 /dev/zero"), Duration::from_secs(60)).unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout.len() as u64, OUTPUT_CAP_BYTES);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run_limited(Command::new("/nonexistent/xpu-smi"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "`/nonexistent/xpu-smi` could not be started");
    }
}

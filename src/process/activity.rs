//! What processes do, by what `/proc` counts: processor time, bytes read and written, states, where they wait in the kernel.
//!
//! A number or word that cannot be read is absent. `/proc/PID/cmdline` may wait for the memory of a process that is stuck in the
//! kernel: whoever asks for [`Activity::of`] does so on a thread of its own.

use std::collections::HashMap;
use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::Members;
use super::procfs::{self, Stat};
use crate::model::ProcessId;

/// Threads of a process that are looked at; of more, these.
const MOST_THREADS: usize = 512;

/// Clock ticks in a second, the unit of processor time.
pub fn ticks_per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.filter(|ticks| *ticks > 0).map_or(100.0, |ticks| ticks as f64)
}

/// What the members of a group have done so far. Two of them say what was done in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Processor time in clock ticks and bytes read and written, by process.
    by_process: HashMap<ProcessId, (u64, u64)>,
}

/// What was done between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Processor time, all processes together, clock ticks.
    pub ticks: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Processes that were not there before.
    pub began: usize,
}

impl Work {
    /// Of these members now.
    pub fn of(members: &Members) -> Self {
        let one = |stat: &Stat| Some((stat.process(), (procfs::cpu_ticks(stat.pid)?, bytes(stat.pid).unwrap_or(0))));
        Self { by_process: members.find().iter().filter_map(one).collect() }
    }

    /// What was done since an earlier look. What processes did that have ended meanwhile is not known.
    pub fn since(&self, before: &Self) -> Done {
        let mut done = Done::default();
        for (process, (ticks, bytes)) in &self.by_process {
            let known = before.by_process.get(process);
            let (ticks_then, bytes_then) = known.copied().unwrap_or_default();
            done.began += usize::from(known.is_none());
            done.ticks += ticks.saturating_sub(ticks_then);
            done.bytes += bytes.saturating_sub(bytes_then);
        }
        done
    }
}

/// Bytes that a process has read and written, from and to anything but sockets, and what was read for it as pages of files.
fn bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(number("rchar:")? + number("wchar:")? + number("read_bytes:")?)
}

/// A thread at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// One letter: `R`, `S`, `D`, `T` …
    pub state: char,
    /// The function of the kernel in which it waits; `None` where it does not, or that is hidden.
    pub waits_in: Option<String>,
    /// Processor time, clock ticks.
    pub ticks: u64,
}

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Which.
    pub process: ProcessId,
    /// Its parent.
    pub parent: i32,
    /// Its title, or its program and first argument.
    pub title: String,
    /// Its state.
    pub state: char,
    /// Processor time of all its threads, clock ticks.
    pub ticks: u64,
    /// Its threads, the first one first.
    pub threads: Vec<Thread>,
}

impl Activity {
    /// Of a process; `None` where it is gone. May wait for the memory of a process that is stuck.
    pub fn of(stat: &Stat) -> Option<Self> {
        let now = procfs::stat(stat.pid).filter(|now| now.start_time == stat.start_time)?;
        let mut threads = threads(stat.pid);
        threads.sort_by_key(|thread| (thread.tid != stat.pid, thread.tid));
        let ticks = procfs::cpu_ticks(stat.pid)?;
        let title = title(stat.pid);
        Some(Self { process: now.process(), parent: now.parent, title, state: now.state, ticks, threads })
    }

    /// Whether a signal or a debugger has stopped it, or its cgroup is frozen.
    pub fn is_stopped(&self) -> bool {
        let frozen = |thread: &Thread| thread.waits_in.as_ref().is_some_and(|place| place.contains("freez"));
        matches!(self.state, 'T' | 't') || self.threads.first().is_some_and(frozen)
    }

    /// A thread that waits in the kernel and cannot be interrupted.
    pub fn in_kernel(&self) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.state == 'D')
    }

    /// Where its first thread waits.
    pub fn waits_in(&self) -> Option<&str> {
        self.threads.first()?.waits_in.as_deref()
    }

    /// Whether a thread of it waits for something from outside: a socket, a pipe. `None` where that is hidden.
    pub fn waits_for_others(&self) -> Option<bool> {
        let places: Vec<&str> = self.threads.iter().filter_map(|thread| thread.waits_in.as_deref()).collect();
        let outside = ["poll", "select", "wait_woken", "sk_wait", "skb_wait", "tcp_recv", "inet_csk"];
        (!places.is_empty()).then(|| places.iter().any(|place| outside.iter().any(|word| place.contains(word))))
    }
}

fn title(pid: i32) -> String {
    const LONGEST: usize = 120;
    let argv = procfs::argv(pid);
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let file = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    match argv.as_slice() {
        [] => name(),
        // vLLM's and other programs that write a title in the place of their arguments.
        [title] => title.chars().take(LONGEST).collect(),
        // An interpreter with its script, and the first word: `python vllm serve`.
        [program, rest @ ..] => {
            let words = rest.iter().take(2).filter(|word| !word.starts_with('-') && word.len() < 60);
            let words: Vec<String> = std::iter::once(file(program)).chain(words.map(file)).collect();
            words.join(" ").chars().take(LONGEST).collect()
        }
    }
}

fn threads(pid: i32) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().take(MOST_THREADS).filter_map(|entry| thread(&entry.path())).collect()
}

fn thread(folder: &std::path::Path) -> Option<Thread> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let (tid, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // `0` where it does not wait, and where it may not be told.
    let place = fs::read_to_string(folder.join("wchan")).unwrap_or_default();
    let place = Some(place.trim().to_owned()).filter(|place| !place.is_empty() && place != "0");
    Some(Thread {
        tid: tid.trim().parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        waits_in: place,
        // Fields 14 and 15 of the line; the state is field 3.
        ticks: number(11)? + number(12)?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    struct Own(Child);

    impl Own {
        fn start(words: &[&str]) -> Self {
            Self(Command::new(words[0]).args(&words[1..]).spawn().unwrap())
        }

        fn stat(&self) -> Stat {
            procfs::stat(self.0.id().cast_signed()).unwrap()
        }

        /// Looks until it is so.
        fn until(&self, so: impl Fn(&Activity) -> bool) -> Activity {
            for _ in 0..2000 {
                let now = Activity::of(&self.stat()).unwrap();
                if so(&now) {
                    return now;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            panic!("never so: {:?}", Activity::of(&self.stat()))
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn stopped_waiting_and_busy_processes_are_told_apart() {
        let own = Own::start(&["sleep", "600"]);
        let asleep = own.until(|now| now.state == 'S' && now.title == "sleep 600");
        assert!(!asleep.is_stopped() && asleep.in_kernel().is_none());
        // Where the kernel tells it, it is no socket.
        assert_ne!(asleep.waits_for_others(), Some(true), "{asleep:?}");
        kill(Pid::from_raw(asleep.process.pid), Signal::SIGSTOP).unwrap();
        assert!(own.until(|now| now.state == 'T').is_stopped());
        let busy = Own::start(&["sh", "-c", "while :; do :; done"]);
        let before = busy.until(|now| now.ticks > 0).ticks;
        assert!(busy.until(|now| now.ticks > before).in_kernel().is_none());
    }

    #[test]
    fn what_was_done_is_the_difference_of_two_looks() {
        let process = |pid| ProcessId { pid, start_time: 7 };
        let work = |list: &[(i32, u64, u64)]| Work {
            by_process: list.iter().map(|(pid, ticks, bytes)| (process(*pid), (*ticks, *bytes))).collect(),
        };
        let before = work(&[(1, 10, 100), (2, 5, 50)]);
        assert_eq!(before.since(&before), Done::default());
        let after = work(&[(1, 12, 100), (3, 4, 9)]);
        assert_eq!(after.since(&before), Done { ticks: 6, bytes: 9, began: 1 });
    }

    #[test]
    fn what_is_gone_is_absent() {
        let gone = Stat { pid: 1 << 22, state: 'S', parent: 1, group: 1, session: 1, threads: 1, start_time: 1 };
        assert_eq!(Activity::of(&gone), None);
        assert!(ticks_per_second() >= 1.0 && bytes(gone.pid).is_none());
    }
}

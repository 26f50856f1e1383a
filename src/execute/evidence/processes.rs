//! Processes that are looked at while they may hang: states, threads, where they wait, and their stacks.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::execute::hang::Member;
use crate::model::ProcessId;
use crate::process::Members;
use crate::process::activity::{Activity, ticks_per_second};
use crate::process::procfs::{self, Stat};
use crate::telemetry::{netport, run_unless};

/// Between two looks at the processes.
pub(super) const APART: Duration = Duration::from_secs(1);
/// For one look at all processes.
pub(super) const LOOK: Duration = Duration::from_secs(3);
/// For the stacks of one Python process.
const PY_SPY: Duration = Duration::from_secs(8);
/// Processes of a group that are looked at.
const MOST_PROCESSES: usize = 128;

/// Looks at each process on a thread of its own: one that is stuck hides no other.
pub(super) fn each<T: Send + 'static>(
    processes: &[Stat],
    limit: Duration,
    look: impl Fn(&Stat) -> T + Copy + Send + 'static,
) -> Vec<(i32, Option<T>)> {
    let (tell, told) = mpsc::channel();
    let deadline = std::time::Instant::now() + limit;
    let mut found: Vec<(i32, Option<T>)> = processes.iter().map(|stat| (stat.pid, None)).collect();
    for stat in processes.iter().copied() {
        let tell = tell.clone();
        let _ = std::thread::Builder::new().spawn(move || drop(tell.send((stat.pid, look(&stat)))));
    }
    drop(tell);
    while let Ok((pid, seen)) = told.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
        if let Some(place) = found.iter_mut().find(|(known, _)| *known == pid) {
            place.1 = Some(seen);
        }
    }
    found
}

/// What two looks saw.
pub(super) struct Looked {
    pub server: Vec<Member>,
    pub client: Vec<Member>,
    pub connected: bool,
}

pub(super) type Side = (Members, ProcessId);

pub(super) fn look_twice(server: &Side, client: Option<&Side>, port: u16) -> Looked {
    let look = |members: &Members| {
        let stats: Vec<Stat> = members.find().into_iter().take(MOST_PROCESSES).collect();
        let seen = each(&stats, LOOK, Activity::of);
        stats
            .iter()
            .zip(seen)
            .filter_map(|(stat, (_, seen))| seen.unwrap_or_else(|| Some(bare(stat))))
            .collect::<Vec<Activity>>()
    };
    let both = || [Some(server), client].map(|side| side.map(|(members, _)| look(members)).unwrap_or_default());
    let (first, began) = (both(), std::time::Instant::now());
    std::thread::sleep(APART);
    let (second, seconds) = (both(), began.elapsed().as_secs_f64());
    let members = |then: &[Activity], now: Vec<Activity>, leader: Option<ProcessId>| -> Vec<Member> {
        now.into_iter().map(|now| member(then, now, seconds, leader)).collect()
    };
    let [server_then, client_then] = first;
    let [server_now, client_now] = second;
    let pids: Vec<i32> = client_now.iter().map(|activity| activity.process.pid).collect();
    Looked {
        server: members(&server_then, server_now, Some(server.1)),
        client: members(&client_then, client_now, client.map(|(_, leader)| *leader)),
        connected: !netport::connected_pids(Path::new("/"), port, &pids).is_empty(),
    }
}

/// A process of which nothing can be read but its state.
fn bare(stat: &Stat) -> Activity {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", stat.pid)).unwrap_or_default().trim().to_owned();
    let ticks = procfs::cpu_ticks(stat.pid).unwrap_or(0);
    Activity {
        process: stat.process(),
        parent: stat.parent,
        title: name,
        state: stat.state,
        ticks,
        threads: Vec::new(),
    }
}

fn member(then: &[Activity], now: Activity, seconds: f64, leader: Option<ProcessId>) -> Member {
    let before = then.iter().find(|before| before.process == now.process);
    let ticks = before.map_or(0, |before| now.ticks.saturating_sub(before.ticks));
    let busy = ticks as f64 / ticks_per_second() / seconds.max(0.001);
    let was_stuck = before.is_some_and(|before| before.in_kernel().is_some() || before.state == 'D');
    let place = |thread: &crate::process::activity::Thread| thread.waits_in.clone();
    let unknown = || (now.state == 'D').then(|| "where is hidden".to_owned());
    let stuck = now.in_kernel().and_then(place).or_else(unknown).filter(|_| was_stuck);
    let runs = |activity: &Activity| activity.state == 'R' || activity.threads.iter().any(|thread| thread.state == 'R');
    let runs = before.is_some_and(runs) && runs(&now);
    Member { leads: leader == Some(now.process), busy, runs, stuck, now }
}

/// The stacks of a process in the kernel, by thread; root alone may read them.
pub(super) fn kernel_stacks(stat: &Stat) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", stat.pid)) else { return String::new() };
    let mut text = String::new();
    for task in tasks.flatten().take(64) {
        let mut stack = String::new();
        let read = std::fs::File::open(task.path().join("stack"))
            .and_then(|file| file.take(16 << 10).read_to_string(&mut stack));
        match read {
            Ok(_) if stack.trim().is_empty() => {}
            Ok(_) => {
                let _ = writeln!(text, "    stack of {} in the kernel:", task.file_name().to_string_lossy());
                for line in stack.lines() {
                    let _ = writeln!(text, "      {line}");
                }
            }
            Err(error) => {
                let _ = writeln!(text, "    stacks in the kernel: {error}");
                break;
            }
        }
    }
    text
}

/// A process, its threads and its stacks as text.
pub(super) fn describe(text: &mut String, group: &str, member: &Member, stacks: Option<&str>) {
    let Activity { process, parent, title, state, threads, .. } = &member.now;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let fact = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" ?");
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let leads = if member.leads { ", the first process" } else { "" };
    let _ = writeln!(
        text,
        "{group}: process {} `{title}` (parent {parent}{leads})\n    state {state}, {:.0} % of a core, memory {}, context switches {} \
         voluntary and {} not",
        process.pid,
        member.busy * 100.0,
        fact("VmRSS:"),
        fact("voluntary_ctxt_switches:"),
        fact("nonvoluntary_ctxt_switches:"),
    );
    if let Some(place) = &member.stuck {
        let _ = writeln!(text, "    cannot be interrupted: {place}");
    }
    for thread in threads {
        let place = thread.waits_in.as_deref().unwrap_or("-");
        let seconds = thread.ticks as f64 / ticks_per_second();
        let _ = writeln!(
            text,
            "    thread {} {:<16} state {}  in {place:<28} {seconds:.2} s",
            thread.tid, thread.name, thread.state
        );
    }
    match stacks {
        Some(stacks) => text.push_str(stacks),
        None => text.push_str("    its stacks could not be read in time\n"),
    }
    text.push('\n');
}

/// Whether a process may run Python: no shell, nor this program (its own client, a simulated server).
pub(super) fn may_be_python(pid: i32) -> bool {
    !procfs::is_shell(pid) && procfs::is_this_program(pid) != Some(true)
}

/// The Python stacks of a process. `--nonblocking`: py-spy does not stop the process for it, which fails with one that is stopped
/// already, and never ends with one that is stuck in the kernel.
pub(super) fn dump(py_spy: &Path, path: &str, pid: i32, is_over: &AtomicBool) -> String {
    let mut command = Command::new(py_spy);
    command
        .args(["dump", "--nonblocking", "--pid", &pid.to_string()])
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8");
    match run_unless(command, PY_SPY, || is_over.load(Ordering::Relaxed)) {
        Ok(output) if output.status.success() => output.text(),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = said.split("Stack backtrace:").next().unwrap_or_default().trim().replace('\n', "\n    ");
            format!("Process {pid}: py-spy says\n    {said}\n")
        }
        Err(error) => format!("Process {pid}: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_stuck_hides_no_other() {
        let stat = |pid| Stat { pid, state: 'D', parent: 1, group: 1, session: 1, threads: 1, start_time: 1 };
        let never = |stat: &Stat| {
            if stat.pid == 2 {
                std::thread::sleep(Duration::from_secs(3600));
            }
            stat.pid * 10
        };
        let seen = each(&[stat(1), stat(2), stat(3)], Duration::from_millis(500), never);
        assert_eq!(seen[0], (1, Some(10)));
        assert_eq!((seen[1], seen[2]), ((2, None), (3, Some(30))));
    }
}

//! What is kept before anything that stands still is ended: states and stacks of the processes, what the server still says, the ends of
//! the logs, the devices, the kernel's log. With it, who stands still is judged.
//!
//! Whatever is looked at here may itself hang (a process that is stuck in the kernel, a debugger that waits for it, a server that
//! takes connections and answers none), so each look has a limit of its own and its own thread, which is left behind where it does not
//! come back; all of it has one limit, and a stop ends it at once. Every file is bounded and free of secrets and control characters.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::hang::{ENGINE_TITLE, Found, Health, Member, Seen};
use super::{Job, UnitContext};
use crate::bounded;
use crate::diagnose::tail_lines;
use crate::load::server::Reading;
use crate::model::{ComputeUnit, ProcessId, StartPhase};
use crate::process::activity::{Activity, ticks_per_second};
use crate::process::procfs::{self, Stat};
use crate::process::{Members, Stop};
use crate::record::{atomic, layout};
use crate::telemetry::{DeviceKind, Probe, Sample, Sampler, mebibytes, netport, run_limited, run_unless};

/// All of it together.
const ALL: Duration = Duration::from_secs(25);
/// Between two looks at the processes, and two samples of the devices.
const APART: Duration = Duration::from_secs(1);
/// For one look at all processes.
const LOOK: Duration = Duration::from_secs(3);
/// For the stacks of one Python process.
const PY_SPY: Duration = Duration::from_secs(8);
/// Processes whose Python stacks are taken at once, and in all.
const PY_SPY_AT_ONCE: usize = 4;
const PY_SPY_MOST: usize = 24;
/// For an answer of the server.
const ANSWER: Duration = Duration::from_secs(2);
/// For the devices.
const DEVICES: Duration = Duration::from_secs(6);
/// For the kernel's log, and for the logs.
const KERNEL: Duration = Duration::from_secs(3);
/// Processes of a group that are looked at.
const MOST_PROCESSES: usize = 128;
/// Lines of a log, and of the kernel's.
const LOG_LINES: usize = 400;
/// Bytes of a log's end that are read for them.
const LOG_BYTES: u64 = 512 << 10;
/// Bytes of one file.
const MOST_BYTES: usize = 2 << 20;

/// What is looked at.
pub(super) struct Scene {
    /// Where it is kept; made here.
    pub folder: PathBuf,
    /// The server's processes and its first one.
    pub server: (Members, ProcessId),
    /// The client's, where one runs.
    pub client: Option<(Members, ProcessId)>,
    /// The phase of a start; `None` while it is measured.
    pub starting: Option<StartPhase>,
    /// `http://HOST:PORT` of the server.
    pub base: String,
    /// Whether the server has counted anything since the client began.
    pub was_asked: Option<bool>,
}

/// What was kept.
pub(super) struct Kept {
    /// What was seen of the processes and the server.
    pub seen: Seen,
    /// The folder, where it could be made.
    pub folder: Option<PathBuf>,
    starting: bool,
}

impl Kept {
    /// Nothing was seen.
    pub fn nothing() -> Self {
        Self { seen: Seen::nothing(), folder: None, starting: false }
    }

    /// Who stands still.
    pub fn found(&self) -> Found<'_> {
        if self.starting { self.seen.while_starting() } else { self.seen.while_measuring() }
    }
}

/// Looks at everything and keeps it. A stop cuts it short; what was seen until then is kept.
pub(super) async fn keep(scene: Scene, job: &Job, context: &UnitContext, stop: &mut Stop) -> Kept {
    let made = std::fs::create_dir(&scene.folder);
    if let Err(error) = &made {
        tracing::warn!(%error, folder = %scene.folder.display(), "evidence cannot be kept");
    }
    let over = Over::default();
    let gathered = Gathered {
        seen: Mutex::new(Seen { was_asked: scene.was_asked, ..Seen::nothing() }),
        notes: Mutex::default(),
        folder: made.is_ok().then(|| scene.folder.clone()),
    };
    let looks = async {
        tokio::join!(
            gathered.processes(&scene, job, context, &over),
            gathered.server(&scene, context),
            gathered.logs(&scene, job),
            gathered.devices(&scene, job, context),
            gathered.kernel(context),
        );
    };
    let ended = stop.cuts_short(tokio::time::timeout(ALL, looks)).await;
    if !matches!(ended, Some(Ok(()))) {
        gathered.note(format!(
            "cut short {}",
            if ended.is_some() { "at the limit of all looks" } else { "by the user's stop" }
        ));
    }
    drop(over);
    let Gathered { seen, notes, folder } = gathered;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let kept = Kept { seen, folder, starting: scene.starting.is_some() };
    let notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = &kept.folder {
        let written = write(folder, layout::evidence::SUMMARY, &summary(&scene, job, &kept, &notes));
        if let Err(error) = written {
            tracing::warn!(%error, "evidence cannot be kept");
        }
    }
    kept
}

/// Tells tools that are under way that nobody waits for them any more.
#[derive(Default)]
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What has come so far.
struct Gathered {
    seen: Mutex<Seen>,
    notes: Mutex<Vec<String>>,
    folder: Option<PathBuf>,
}

impl Gathered {
    fn note(&self, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn sees(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn write(&self, name: &str, text: &str) {
        if let Some(folder) = &self.folder
            && let Err(error) = write(folder, name, text)
        {
            self.note(format!("{name}: {error}"));
        }
    }

    /// The processes, twice; then their stacks.
    async fn processes(&self, scene: &Scene, job: &Job, context: &UnitContext, over: &Over) {
        let (server, client) = (scene.server.clone(), scene.client.clone());
        let port = job.port;
        let looked = aside(LOOK * 2 + APART * 2, move || look_twice(&server, client.as_ref(), port)).await;
        let Some(Looked { server, client, connected }) = looked else {
            return self.note("the processes could not be looked at within their limit".into());
        };
        let pids: Vec<Stat> =
            server.iter().chain(&client).filter_map(|member| procfs::stat(member.now.process.pid)).collect();
        self.sees(|seen| {
            (seen.server, seen.client, seen.connected) = (server.clone(), client.clone(), connected);
        });
        let stacks = aside(LOOK + APART, move || each(&pids, LOOK, kernel_stacks)).await.unwrap_or_default();
        let mut text = String::new();
        for (group, members) in [("server", &server), ("client", &client)] {
            for member in members {
                let stack = stacks.iter().find(|(pid, _)| *pid == member.now.process.pid);
                describe(&mut text, group, member, stack.and_then(|(_, stack)| stack.as_deref()));
            }
        }
        self.write(layout::evidence::PROCESSES, &text);
        self.python_stacks(&server, &client, context, over).await;
    }

    /// The stacks of Python, where py-spy is there.
    async fn python_stacks(&self, server: &[Member], client: &[Member], context: &UnitContext, over: &Over) {
        let Some(py_spy) = find_py_spy(context) else {
            return self.note(
                "stacks of Python: no `py-spy` on PATH or beside vllm (`pip install py-spy`; a container needs `--cap-add SYS_PTRACE`)"
                    .into(),
            );
        };
        let mut pids: Vec<(bool, i32)> = server
            .iter()
            .chain(client)
            .filter(|member| may_be_python(member.now.process.pid))
            .map(|member| (!member.now.title.starts_with(ENGINE_TITLE), member.now.process.pid))
            .collect();
        if pids.is_empty() {
            return self.note("stacks of Python: no process here runs Python".into());
        }
        // The engine's first.
        pids.sort_unstable();
        let left = pids.len().saturating_sub(PY_SPY_MOST);
        let waiting =
            Arc::new(Mutex::new(pids.into_iter().take(PY_SPY_MOST).map(|(_, pid)| pid).collect::<VecDeque<_>>()));
        let all = (0..PY_SPY_AT_ONCE).map(|_| {
            let (waiting, py_spy, is_over) = (Arc::clone(&waiting), py_spy.clone(), Arc::clone(&over.0));
            let environment = context.probe.environment.get("PATH").cloned().unwrap_or_default();
            aside(ALL, move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let mut stacks = Vec::new();
                while let Some(pid) = next().filter(|_| !is_over.load(Ordering::Relaxed)) {
                    stacks.push(dump(&py_spy, &environment, pid, &is_over));
                }
                stacks
            })
        });
        let stacks = futures_util::future::join_all(all).await.into_iter().flatten().flatten();
        let mut text = stacks.collect::<Vec<_>>().join("\n");
        if left > 0 {
            let _ = writeln!(text, "\n{left} more processes were not looked at");
        }
        self.write(layout::evidence::PYTHON, &text);
    }

    /// What the server still says.
    async fn server(&self, scene: &Scene, context: &UnitContext) {
        let health = async {
            let asked = context.http.get(format!("{}/health", scene.base)).timeout(ANSWER).send().await;
            match asked {
                Ok(answer) if answer.status().is_success() => Health::Well,
                Ok(answer) => Health::Unwell(answer.status().as_u16()),
                Err(error) if error.is_connect() && !error.is_timeout() => Health::Closed,
                Err(_) => Health::Silent,
            }
        };
        let metrics = async {
            let asked = async {
                let answer = context.http.get(format!("{}/metrics", scene.base)).timeout(ANSWER).send().await;
                let answer = answer.map_err(|error| bounded::chain(&error))?;
                let (status, body) = (answer.status(), bounded::body(answer, MOST_BYTES as u64).await?);
                match status.is_success() {
                    true => Ok(String::from_utf8_lossy(&body).into_owned()),
                    false => Err(format!("HTTP {status}")),
                }
            };
            tokio::time::timeout(ANSWER, asked)
                .await
                .unwrap_or_else(|_| Err(format!("no answer in {} s", ANSWER.as_secs())))
        };
        let (health, metrics) = tokio::join!(health, metrics);
        let under_way = metrics.as_ref().ok().and_then(|text| Reading::parse(text).under_way());
        self.sees(|seen| (seen.health, seen.under_way) = (health, under_way));
        let said = match health {
            Health::Well => "answered".to_owned(),
            Health::Unwell(status) => format!("answered with {status}"),
            Health::Silent => format!("no answer in {} s", ANSWER.as_secs()),
            Health::Closed => "nobody listens".to_owned(),
        };
        let (metrics, body) = match metrics {
            Ok(body) => ("answered".to_owned(), body),
            Err(reason) => (reason, String::new()),
        };
        self.write(layout::evidence::METRICS, &format!("# GET /health: {said}\n# GET /metrics: {metrics}\n{body}"));
    }

    /// The ends of the logs.
    async fn logs(&self, scene: &Scene, job: &Job) {
        let client = scene.client.is_some().then(|| job.places.benchmark_log.clone());
        let logs = [
            (layout::evidence::SERVER_LOG, Some(job.places.server_log.clone())),
            (layout::evidence::CLIENT_LOG, client),
        ];
        for (name, log) in logs {
            let Some(log) = log else { continue };
            match aside(KERNEL, move || end_of(&log)).await {
                Some(Ok(lines)) => self.write(name, &(lines.join("\n") + "\n")),
                Some(Err(error)) => self.note(format!("{name}: {error}")),
                None => self.note(format!("{name}: it could not be read within {} s", KERNEL.as_secs())),
            }
        }
    }

    /// The devices and the host, twice: shares and watts are means between the two.
    async fn devices(&self, scene: &Scene, job: &Job, context: &UnitContext) {
        let (probe, kind, units) = (context.probe.clone(), context.devices, context.units_of(&job.binding));
        let groups = [Some(scene.server.0.clone()), scene.client.as_ref().map(|(members, _)| members.clone())];
        match aside(DEVICES, move || sample(probe, kind, &units, groups)).await {
            Some(text) => self.write(layout::evidence::DEVICES, &text),
            None => self.note(format!("the devices did not answer within {} s", DEVICES.as_secs())),
        }
    }

    /// The kernel's log.
    async fn kernel(&self, context: &UnitContext) {
        let probe = context.probe.clone();
        match aside(KERNEL, move || kernel_log(&probe)).await {
            Some(Ok(text)) => self.write(layout::evidence::KERNEL, &text),
            Some(Err(reason)) => self.note(format!("the kernel's log: {reason}")),
            None => self.note(format!("the kernel's log could not be read within {} s", KERNEL.as_secs())),
        }
    }
}

/// Does something that may never come back on a thread of its own, which is left behind then; `None` where it is not done in time. No
/// thread of the runtime: the end of the program would wait for that.
async fn aside<T: Send + 'static>(limit: Duration, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("evidence".into()).spawn(move || drop(done.send(look()))).ok()?;
    tokio::time::timeout(limit, answer).await.ok()?.ok()
}

/// Looks at each process on a thread of its own: one that is stuck hides no other.
fn each<T: Send + 'static>(
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
struct Looked {
    server: Vec<Member>,
    client: Vec<Member>,
    connected: bool,
}

type Side = (Members, ProcessId);

fn look_twice(server: &Side, client: Option<&Side>, port: u16) -> Looked {
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
fn kernel_stacks(stat: &Stat) -> String {
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
fn describe(text: &mut String, group: &str, member: &Member, stacks: Option<&str>) {
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
fn may_be_python(pid: i32) -> bool {
    !procfs::is_shell(pid) && procfs::is_this_program(pid) != Some(true)
}

/// py-spy on PATH, or beside the `vllm` of this run.
fn find_py_spy(context: &UnitContext) -> Option<PathBuf> {
    let program = &context.engine.program;
    let real = program.canonicalize().ok();
    let beside =
        [Some(program.clone()), real].into_iter().flatten().filter_map(|path| Some(path.parent()?.join("py-spy")));
    context.probe.find_tool("py-spy").or_else(|| beside.into_iter().find(|path| path.is_file()))
}

/// The Python stacks of a process. `--nonblocking`: py-spy does not stop the process for it, which fails with one that is stopped
/// already, and never ends with one that is stuck in the kernel.
fn dump(py_spy: &Path, path: &str, pid: i32, is_over: &AtomicBool) -> String {
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

/// The last lines of a log.
fn end_of(log: &Path) -> std::io::Result<Vec<String>> {
    use std::io::Seek;
    let mut file = bounded::open(log)?;
    let start = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(std::io::SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    Ok(tail_lines(&bytes, LOG_LINES))
}

fn sample(probe: Probe, kind: DeviceKind, units: &[ComputeUnit], groups: [Option<Members>; 2]) -> String {
    let [server, client] = groups.map(|members| -> Vec<i32> {
        members.map(|members| members.find().iter().map(|stat| stat.pid).collect()).unwrap_or_default()
    });
    let mut sampler = Sampler::new(probe, kind, units);
    sampler.sample(&server, &client);
    std::thread::sleep(APART);
    let Sample { devices, host, .. } = sampler.sample(&server, &client);
    let number = |value: Option<f64>, unit: &str| value.map_or("?".to_owned(), |value| format!("{value:.1} {unit}"));
    let mut text = String::new();
    for device in &devices {
        let memory = |bytes: Option<u64>| number(mebibytes(bytes), "MiB");
        let throttled = if device.throttled.is_empty() { "no".to_owned() } else { device.throttled.join(", ") };
        let _ = writeln!(
            text,
            "device {}: utilisation {}, memory {} of {}, power {}, temperature {}, clock {}, throttled: {throttled}",
            device.address,
            number(device.utilization_pct, "%"),
            memory(device.memory_used_bytes),
            memory(device.memory_total_bytes),
            number(device.power_w, "W"),
            number(device.temperature_c, "°C"),
            number(device.clock_mhz, "MHz"),
        );
    }
    if devices.is_empty() {
        text.push_str("no device tells anything\n");
    }
    let _ = writeln!(
        text,
        "host: processors {} of one core (server {}, client {}), memory {}, swap {}, load {}",
        number(host.cpu_pct, "%"),
        number(host.server_cpu_pct, "%"),
        number(host.client_cpu_pct, "%"),
        number(mebibytes(host.memory_used_bytes), "MiB"),
        number(mebibytes(host.swap_used_bytes), "MiB"),
        number(host.load, ""),
    );
    for warning in sampler.warnings() {
        let _ = writeln!(text, "{warning}");
    }
    text
}

/// The end of the kernel's log: from `/dev/kmsg`, else from `dmesg`.
fn kernel_log(probe: &Probe) -> Result<String, String> {
    let own = kmsg(&probe.at("/dev/kmsg"));
    let lines = match own {
        Ok(lines) => lines,
        Err(error) => {
            let dmesg = probe.find_tool("dmesg").ok_or_else(|| format!("/dev/kmsg: {error}; no `dmesg`"))?;
            let output = run_limited(Command::new(dmesg), KERNEL / 2)
                .map_err(|failed| format!("/dev/kmsg: {error}; {failed}"))?;
            if !output.status.success() {
                return Err(output.complaint().unwrap_or_else(|| "dmesg failed".into()));
            }
            output
                .text()
                .lines()
                .rev()
                .take(LOG_LINES)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect()
        }
    };
    Ok(Vec::from(lines).join("\n") + "\n")
}

/// The last records of the kernel's ring buffer. Reading it takes nothing from other readers.
fn kmsg(path: &Path) -> std::io::Result<VecDeque<String>> {
    const MOST: usize = 1 << 20;
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut lines = VecDeque::new();
    let mut record = [0; 8192];
    for _ in 0..MOST {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                lines.push_back(kernel_line(&String::from_utf8_lossy(&record[..length])));
                if lines.len() > LOG_LINES {
                    lines.pop_front();
                }
            }
            // Read to the end; or a record was overwritten meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPIPE as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

/// `6,339,5140900,-;the text` and lines of facts, as `[    5.140900] the text`.
fn kernel_line(record: &str) -> String {
    let line = record.lines().next().unwrap_or_default();
    let Some((head, text)) = line.split_once(';') else { return line.to_owned() };
    match head.split(',').nth(2).and_then(|micros| micros.parse::<u64>().ok()) {
        Some(micros) => format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000),
        None => text.to_owned(),
    }
}

fn summary(scene: &Scene, job: &Job, kept: &Kept, notes: &[String]) -> String {
    let found = kept.found();
    let during = scene.starting.map_or("the measurement".to_owned(), |phase| format!("the start ({})", phase.label()));
    let mut text = format!(
        "What was seen when `{}`, attempt {}, did not move any more in {during}, before anything was ended.\n\n{}.\n",
        job.experiment.name,
        job.attempt,
        found.clause()
    );
    for advice in found.advice() {
        let _ = writeln!(text, "- {advice}");
    }
    let _ = writeln!(text, "\n{:<7} {:>8}  {:<5} {:>7}  {:<28} title", "group", "process", "state", "core", "waits in");
    for (group, members) in [("server", &kept.seen.server), ("client", &kept.seen.client)] {
        for member in members {
            let Activity { process, title, state, .. } = &member.now;
            let place = member.stuck.as_deref().or(member.now.waits_in()).unwrap_or("-");
            let busy = member.busy * 100.0;
            let _ = writeln!(text, "{group:<7} {:>8}  {state:<5} {busy:>5.0} %  {place:<28} {title}", process.pid);
        }
    }
    if !notes.is_empty() {
        let _ = writeln!(text, "\nNot here, or not whole:");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
    }
    text
}

/// Writes one file, cut to its bound.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), crate::record::Error> {
    let cut = (0..=text.len().min(MOST_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    atomic::keep_again_with(&folder.join(name), |out| {
        out.write_all(&text.as_bytes()[..cut])?;
        if cut < text.len() { out.write_all(b"\n(cut here)\n") } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_the_kernel_become_lines() {
        assert_eq!(
            kernel_line("6,339,5140900,-;xe 0000:03:00.0: reset\n SUBSYSTEM=pci\n"),
            "[    5.140900] xe 0000:03:00.0: reset"
        );
        assert_eq!(kernel_line("no record"), "no record");
        assert_eq!(kernel_line("6,x;text"), "text");
    }

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

    #[tokio::test]
    async fn what_never_comes_back_is_left_behind() {
        assert_eq!(aside(Duration::from_secs(60), || 7).await, Some(7));
        let never = aside(Duration::from_millis(20), || std::thread::sleep(Duration::from_secs(3600))).await;
        assert_eq!(never, None);
    }

    #[test]
    fn files_are_bounded_and_free_of_what_a_terminal_acts_on() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.txt", &format!("\u{1b}[31mred {}", "é".repeat(MOST_BYTES))).unwrap();
        let text = std::fs::read_to_string(folder.path().join("a.txt")).unwrap();
        assert!(text.starts_with("\\u001b[31mred") && text.ends_with("\n(cut here)\n"));
        assert!(text.len() < MOST_BYTES + 100);
    }

    #[test]
    fn the_end_of_a_log_is_read_and_no_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(end_of(&path).unwrap(), ["a", "b"]);
        assert!(end_of(Path::new("/dev/zero")).is_err());
    }
}

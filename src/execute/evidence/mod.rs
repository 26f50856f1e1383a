//! What is kept before anything that stands still is ended: states and stacks of the processes, what the server still says, the ends of
//! the logs, the devices, the kernel's log. With it, who stands still is judged.
//!
//! Whatever is looked at here may itself hang (a process that is stuck in the kernel, a debugger that waits for it, a server that
//! takes connections and answers none), so each look has a limit of its own and its own thread, which is left behind where it does not
//! come back; all of it has one limit, and a stop ends it at once. Every file is bounded and free of secrets and control characters.

mod machine;
mod processes;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hang::{ENGINE_TITLE, Found, Health, Member, Seen};
use super::{Job, UnitContext};
use crate::bounded;
use crate::load::server::Reading;
use crate::model::StartPhase;
use crate::process::Stop;
use crate::process::activity::Activity;
use crate::process::procfs::{self, Stat};
use crate::record::{atomic, layout};
use machine::{KERNEL, end_of, kernel_log, sample};
use processes::{APART, LOOK, Looked, Side, describe, dump, each, kernel_stacks, look_twice, may_be_python};

/// All of it together.
const ALL: Duration = Duration::from_secs(25);
/// Processes whose Python stacks are taken at once, and in all.
const PY_SPY_AT_ONCE: usize = 4;
const PY_SPY_MOST: usize = 24;
/// For an answer of the server.
const ANSWER: Duration = Duration::from_secs(2);
/// For the devices.
const DEVICES: Duration = Duration::from_secs(6);
/// Bytes of one file.
const MOST_BYTES: usize = 2 << 20;

/// What is looked at.
pub(super) struct Scene {
    /// Where it is kept; made here.
    pub folder: PathBuf,
    /// The server's processes and its first one.
    pub server: Side,
    /// The client's, where one runs.
    pub client: Option<Side>,
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

/// py-spy on PATH, or beside the `vllm` of this run.
fn find_py_spy(context: &UnitContext) -> Option<PathBuf> {
    let program = &context.engine.program;
    let real = program.canonicalize().ok();
    let beside =
        [Some(program.clone()), real].into_iter().flatten().filter_map(|path| Some(path.parent()?.join("py-spy")));
    context.probe.find_tool("py-spy").or_else(|| beside.into_iter().find(|path| path.is_file()))
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
}

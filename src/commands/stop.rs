//! `vllm-bench stop`: ends live runs in order, and whatever server of ours is left. The orchestrator ends its own
//! children; this command only asks, waits and looks after what nobody cares for.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::cli::StopArgs;
use crate::commands::cluster;
use crate::commands::find_run;
use crate::commands::find_run::{Found, Head};
use crate::commands::format;
use crate::config::Environment;
use crate::dashboard;
use crate::error::Error;
use crate::execute::end_leftovers;
use crate::exit;
use crate::process::registry::Reaped;
use crate::process::{Stop, foreign, procfs};
use crate::record::{self, Holder, Live, RunState, layout};
use crate::ui::Ui;

/// What a run needs to end beyond its grace period: two groups one after the other, proof, reports.
const MARGIN: Duration = Duration::from_secs(120);
/// The grace period of a run whose manifest cannot be read.
const GRACE: Duration = Duration::from_secs(30);
/// How often it is looked whether a run has ended.
const POLL: Duration = Duration::from_millis(50);
/// How often it is said that this takes time.
const TALK: Duration = Duration::from_secs(5);

/// What is asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopMode {
    /// Finish the experiment under way.
    AfterCurrent,
    /// SIGTERM, grace, SIGKILL.
    InOrder,
    /// SIGKILL at once.
    Now,
}

impl StopMode {
    fn of(args: &StopArgs) -> Self {
        match (args.after_current, args.now) {
            (true, _) => StopMode::AfterCurrent,
            (false, true) => StopMode::Now,
            (false, false) => StopMode::InOrder,
        }
    }

    /// How the jobs of a run on a cluster are ended.
    fn of_jobs(self) -> record::StopMode {
        match self {
            StopMode::AfterCurrent => record::StopMode::AfterCurrent,
            StopMode::InOrder => record::StopMode::InOrder,
            StopMode::Now => record::StopMode::Now,
        }
    }

    /// How an orchestrator is asked (see `run`).
    fn signal(self) -> Signal {
        match self {
            StopMode::AfterCurrent => Signal::SIGUSR1,
            StopMode::InOrder => Signal::SIGTERM,
            StopMode::Now => Signal::SIGUSR2,
        }
    }
}

/// Asks a live run to end, without waiting for it; what was asked of whom, in a sentence.
///
/// # Errors
/// In words, when it is not live, or cannot be asked from here.
pub(super) fn ask_run(run: record::RunDir, mode: dashboard::StopMode) -> Result<String, String> {
    let name = run.name();
    if cluster::open_tasks(&run) > 0 {
        return Err(format!("run {name} has jobs on a cluster: `vllm-bench stop` ends them"));
    }
    let found = Found { holder: run.live(), run };
    let Some(holder) = &found.holder else { return Err(format!("run {name} is not live")) };
    verify(&found, holder)?;
    let (mode, what) = match mode {
        dashboard::StopMode::AfterCurrent => (StopMode::AfterCurrent, "to end after what is under way"),
        dashboard::StopMode::InOrder => (StopMode::InOrder, "to end in order"),
        dashboard::StopMode::Now => (StopMode::Now, "to end at once"),
    };
    match ask(holder, mode) {
        Asked::Yes => Ok(format!("run {name} was asked {what}")),
        Asked::Gone => Ok(format!("run {name} ended by itself")),
        Asked::Deaf => Err(format!("run {name} was started with {} ignored, and does not hear it", mode.signal())),
        Asked::Refused(errno) => Err(format!("run {name} cannot be stopped from here: {}", why_not(holder, errno))),
    }
}

/// How asking went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The orchestrator got the signal.
    Yes,
    /// It had ended meanwhile.
    Gone,
    /// It was started with this signal ignored, and it stays ignored.
    Deaf,
    /// It is not to be seen or signalled from here.
    Refused(Errno),
}

/// Stops what is live.
///
/// # Errors
/// When nothing is, or the registry of process groups cannot be used.
pub async fn run(args: &StopArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wish = StopMode::of(args);
    let dirs = find_run::results_dirs(args.results_dir.as_deref(), environment);
    let mut live: Vec<Found> = match &args.run {
        Some(named) => vec![live_one(named, &dirs, environment)?],
        None => dirs.iter().filter_map(|dir| find_run::live_run(dir)).collect(),
    };
    if args.run.is_none() {
        let left = cluster::with_jobs(&dirs).into_iter().map(|run| Found { run, holder: None });
        let known: Vec<PathBuf> = live.iter().map(|found| found.run.path().to_owned()).collect();
        live.extend(left.filter(|found| !known.iter().any(|path| path == found.run.path())));
    }
    if args.results_dir.is_none() && !args.all && live.len() > 1 {
        return Err(several(&live, environment));
    }
    let mut elsewhere: Vec<Found> = Vec::new();
    if args.results_dir.is_none() && args.run.is_none() {
        let others = find_run::registered_results_dirs().into_iter().filter(|dir| !dirs.contains(dir));
        elsewhere = others.filter_map(|dir| find_run::live_run(&dir)).collect();
    }
    if args.all || live.is_empty() && is_meant(&elsewhere, environment, ui) {
        live.append(&mut elsewhere);
    }
    let mut code = exit::OK;
    let mut stopped = 0;
    for found in &live {
        if cluster::open_tasks(&found.run) > 0 {
            match cluster::stop(&found.run, wish.of_jobs(), grace_of(found) + MARGIN, environment, ui).await? {
                true => stopped += 1,
                false => code = exit::ENVIRONMENT,
            }
            ui.hint(&format!("resume with `{}`", format::resume(found.run.path(), environment)));
            continue;
        }
        let Some(holder) = &found.holder else { continue };
        if let Err(reason) = verify(found, holder) {
            ui.warn(&format!("run {} is not ended: {reason}", found.run.name()));
            code = exit::ENVIRONMENT;
            continue;
        }
        match stop_run(found, holder, wish, environment, ui).await {
            Ok(()) => stopped += 1,
            Err(Failed) => code = exit::ENVIRONMENT,
        }
    }
    let grace = live.iter().map(grace_of).max().unwrap_or(GRACE);
    let reaped = match wish {
        StopMode::AfterCurrent => Vec::new(),
        StopMode::InOrder => end_leftovers(grace, &mut Stop::never()).await?,
        StopMode::Now => end_leftovers(Duration::ZERO, &mut Stop::never()).await?,
    };
    for reaped in &reaped {
        if !tell_reaped(reaped, ui) {
            code = exit::ENVIRONMENT;
        }
    }
    if stopped == 0 && reaped.is_empty() && code == exit::OK {
        return Err(nothing(&dirs, &elsewhere, environment));
    }
    Ok(code)
}

/// The run that the user named, which must be live.
fn live_one(named: &Path, dirs: &[PathBuf], environment: &Environment) -> Result<Found, Error> {
    let found = find_run::named(named, dirs, environment)?;
    if found.holder.is_some() || cluster::open_tasks(&found.run) > 0 {
        return Ok(found);
    }
    let place = format::path(found.run.path(), environment.working_directory());
    Err(Error::Nothing {
        message: format!("nothing to stop: the run `{place}` is not live"),
        hint: "`vllm-bench list` shows the runs and which of them is running".into(),
    })
}

/// Whether the user, asked on the terminal, means the one run that is live somewhere else.
fn is_meant(elsewhere: &[Found], environment: &Environment, ui: &Ui) -> bool {
    let [found] = elsewhere else { return false };
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let place = format::path(found.run.path(), environment.working_directory());
    let question = format!("no run is live here; end the one in `{place}`? Type `yes` to end it:");
    ui.ask(&question).as_deref() == Some("yes")
}

/// Whether the process that a lock names is an orchestrator of ours that holds this very lock: whoever may write to a shared
/// results directory can write any number into it.
fn verify(found: &Found, holder: &Holder) -> Result<(), String> {
    let pid = holder.process.pid;
    let Some(stat) = procfs::stat(pid).filter(|stat| stat.start_time == holder.process.start_time && pid > 1) else {
        // It is told by the attempt to ask it.
        return Ok(());
    };
    if stat.is_dead() {
        return Ok(());
    }
    let me = nix::unistd::geteuid();
    if procfs::uid(pid).is_some_and(|uid| uid != me.as_raw()) && !me.is_root() {
        return Err(why_not(holder, Errno::EPERM));
    }
    let not_ours =
        |what: &str| format!("its lock names process {pid}, which {what}: the lock was not written by that process");
    if procfs::is_this_program(pid) == Some(false) {
        return Err(not_ours("is no vllm-bench"));
    }
    let lock = found.run.path().parent().map(layout::results_lock);
    if lock.as_deref().and_then(|lock| procfs::holds_lock(pid, lock)) == Some(false) {
        return Err(not_ours("does not hold it"));
    }
    Ok(())
}

/// The user was told why.
struct Failed;

/// Ending the wrong run loses hours of somebody's: with several live, one must be named.
fn several(live: &[Found], environment: &Environment) -> Error {
    let from = environment.working_directory();
    let places: Vec<String> =
        live.iter().filter_map(|found| Some(format!("`{}`", format::path(found.run.path().parent()?, from)))).collect();
    Error::Usage {
        message: format!("{} runs are live: in {}", live.len(), places.join(" and ")),
        hint: "say which one: `vllm-bench stop RUN`, or `--results-dir DIR`; `--all` ends all of yours".to_owned(),
    }
}

fn nothing(dirs: &[PathBuf], elsewhere: &[Found], environment: &Environment) -> Error {
    let from = environment.working_directory();
    let others: Vec<String> = elsewhere
        .iter()
        .filter_map(|found| Some(format!("`{}`", format::path(found.run.path().parent()?, from))))
        .collect();
    let places: Vec<String> = dirs.iter().map(|dir| format!("`{}`", format::path(dir, from))).collect();
    let unplanned = foreign::vllm_processes().iter().filter(|process| process.group_token.is_none()).count();
    let hint = if !others.is_empty() {
        format!(
            "a run of yours is live in {}: `--results-dir DIR` ends {}, `--all` every run of yours",
            others.join(" and "),
            if others.len() == 1 { "that one" } else { "one of them" }
        )
    } else if unplanned > 0 {
        format!(
            "{} of this machine not started by vllm-bench: `vllm-bench status` lists them",
            if unplanned == 1 { "one vLLM process is".to_owned() } else { format!("{unplanned} vLLM processes are") }
        )
    } else {
        "`vllm-bench status` shows the newest run".to_owned()
    };
    Error::Nothing {
        message: format!("nothing to stop: no run is live in {}, and no server of ours is left", places.join(" or ")),
        hint,
    }
}

/// Asks one run to end, waits until it has, and says what that was.
async fn stop_run(
    found: &Found,
    holder: &Holder,
    wish: StopMode,
    environment: &Environment,
    ui: &Ui,
) -> Result<(), Failed> {
    let name = found.run.name();
    // What is under way now is what will have been ended.
    let before = found.run.state().unwrap_or_default();
    match ask(holder, wish) {
        Asked::Yes => {}
        Asked::Gone => {
            ui.out(&format!("run {name} ended by itself"));
            return Ok(());
        }
        Asked::Deaf => {
            ui.warn(&format!("run {name} was started with {} ignored, and does not hear it", wish.signal()));
            ui.hint("`vllm-bench stop --now` kills its servers at once; without that it ends by itself");
            return Err(Failed);
        }
        Asked::Refused(errno) => {
            ui.warn(&format!("run {name} cannot be stopped from here: {}", why_not(holder, errno)));
            return Err(Failed);
        }
    }
    if wish == StopMode::AfterCurrent {
        ui.out(&format!("run {name}: asked to end after {}", under_way(&before)));
        ui.hint("`vllm-bench status --watch` shows when it has; `vllm-bench stop` ends it sooner");
        return Ok(());
    }
    let limit = grace_of(found) + MARGIN;
    ui.say(&format!("run {name}: asked process {} to end, for up to {}", holder.process.pid, whole(limit)));
    if !ended(holder, limit, ui).await {
        ui.warn(&format!("run {name} (process {}) has not ended in {}", holder.process.pid, whole(limit)));
        ui.hint("`vllm-bench stop --now` kills its servers at once");
        return Err(Failed);
    }
    for line in told(found, &before) {
        ui.out(&line);
    }
    if !found.run.state().is_ok_and(|state| state.is_finished()) {
        ui.hint(&format!("resume with `{}`", format::resume(found.run.path(), environment)));
    }
    Ok(())
}

/// Sends the signal to exactly the process that signed the lock.
fn ask(holder: &Holder, wish: StopMode) -> Asked {
    if holder.process.pid <= 1 {
        return Asked::Refused(Errno::EINVAL);
    }
    match procfs::stat(holder.process.pid) {
        // The lock is held, so its holder lives: in another container, where its number means another process.
        None => return Asked::Refused(Errno::ESRCH),
        Some(stat) if stat.start_time != holder.process.start_time => return Asked::Refused(Errno::ESRCH),
        Some(stat) if stat.is_dead() => return Asked::Gone,
        Some(_) => {}
    }
    if procfs::ignores(holder.process.pid, wish.signal()) {
        return Asked::Deaf;
    }
    let pid = Pid::from_raw(holder.process.pid);
    match kill(pid, wish.signal()) {
        Ok(()) => {
            // A stopped run hears of it when it goes on.
            let _ = kill(pid, Signal::SIGCONT);
            Asked::Yes
        }
        Err(Errno::ESRCH) => Asked::Gone,
        Err(errno) => Asked::Refused(errno),
    }
}

fn why_not(holder: &Holder, errno: Errno) -> String {
    let (pid, user) = (holder.process.pid, format::plain(&holder.user));
    match errno {
        Errno::ESRCH => format!(
            "its process {pid} of {user} is not to be seen; if it runs in a container, call `vllm-bench stop` there"
        ),
        Errno::EPERM => format!("process {pid} belongs to {user}"),
        errno => format!("process {pid} of {user}: {}", errno.desc()),
    }
}

/// Waits until the orchestrator is gone: the kernel frees its lock then.
async fn ended(holder: &Holder, limit: Duration, ui: &Ui) -> bool {
    let start = Instant::now();
    let mut talk = start + TALK;
    while holder.process.is_alive() {
        let now = Instant::now();
        if now >= start + limit {
            return false;
        }
        if now >= talk {
            talk = now + TALK;
            ui.say(&format!("  still ending, {}", whole(now - start)));
        }
        sleep(POLL).await;
    }
    true
}

fn grace_of(found: &Found) -> Duration {
    let seconds = Head::read(&found.run).ok().and_then(|head| head.limits).map(|limits| limits.grace);
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(GRACE)
}

fn whole(duration: Duration) -> String {
    format::seconds(duration.as_secs_f64())
}

fn under_way(state: &RunState) -> String {
    let one = |live: &Live| format!("experiment {}, {}", live.index, format::plain(&live.name));
    match state.live.values().map(one).collect::<Vec<_>>() {
        none if none.is_empty() => "what is under way".into(),
        some => some.join(" and "),
    }
}

/// What became of a run that was stopped.
fn told(found: &Found, before: &RunState) -> Vec<String> {
    let mut lines = vec![format!("run {} has ended", found.run.name())];
    for live in before.live.values() {
        let server = live.server.map(|(process, port)| format!("server process {} on port {port}", process.pid));
        let client = live.client.map(|process| format!("client process {}", process.pid));
        let processes: Vec<String> = server.into_iter().chain(client).collect();
        let processes = if processes.is_empty() { String::new() } else { format!(": {}", processes.join(", ")) };
        lines.push(format!("  ended in experiment {}, {}{processes}", live.index, format::plain(&live.name)));
    }
    lines
}

/// Says what a crash had left and what became of it; false where something could not be ended.
fn tell_reaped(reaped: &Reaped, ui: &Ui) -> bool {
    let owner = &reaped.record.owner;
    let leader = reaped.record.leader.map_or(String::new(), |leader| format!(" of group {}", leader.pid));
    let experiment = format::plain(&owner.experiment);
    let processes =
        if reaped.processes == 1 { "1 process".to_owned() } else { format!("{} processes", reaped.processes) };
    if reaped.emptied.empty != Some(false) {
        let killed = if reaped.emptied.killed { " (killed)" } else { "" };
        ui.out(&format!("ended what was left of the {} of {experiment}: {processes}{leader}{killed}", owner.role));
        if reaped.emptied.empty.is_none() {
            ui.warn("that no further process is left is not proven: no cgroup held them when their guard and their run died");
            ui.hint("`vllm-bench status` lists the vLLM processes of this machine");
        }
        return true;
    }
    let left: Vec<String> = reaped.emptied.left.iter().map(ToString::to_string).collect();
    ui.warn(&format!("the {} of {experiment} could not be ended: processes {}", owner.role, left.join(", ")));
    ui.hint(
        "a process that survives SIGKILL hangs in a device driver: it goes when the driver lets go, or at a reboot",
    );
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::commands::fixture::{Fixture, holder};
    use crate::model::ProcessId;

    /// A process that stands for an orchestrator and notes the signals that it gets.
    struct Orchestrator {
        child: Child,
        lines: std::io::BufReader<std::process::ChildStdout>,
    }

    impl Orchestrator {
        fn start() -> Self {
            let script = "trap 'echo after-current' USR1; trap 'echo now; exit' USR2; trap 'echo in-order; exit' TERM
                          echo ready; while :; do read -r line || exit; done";
            let mut child = Command::new("bash")
                .args(["-c", script])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let lines = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut started = Self { child, lines };
            assert_eq!(started.next(), "ready");
            started
        }

        fn next(&mut self) -> String {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut self.lines, &mut line).unwrap();
            line.trim().to_owned()
        }

        fn holder(&self, fixture: &Fixture) -> Holder {
            Holder { process: ProcessId::of(i32::try_from(self.child.id()).unwrap()).unwrap(), ..holder(fixture) }
        }
    }

    impl Drop for Orchestrator {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn quiet() -> Ui {
        Ui::new(crate::ui::Display::PLAIN)
    }

    #[test]
    fn each_wish_is_its_own_signal() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        for (wish, word) in
            [(StopMode::AfterCurrent, "after-current"), (StopMode::InOrder, "in-order"), (StopMode::Now, "now")]
        {
            let mut orchestrator = Orchestrator::start();
            assert_eq!(ask(&orchestrator.holder(&fixture), wish), Asked::Yes);
            assert_eq!(orchestrator.next(), word);
        }
    }

    #[tokio::test]
    async fn a_run_that_ends_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        fixture.session(0, 3).begin(1, 1, "a").measure(5, "a");
        let orchestrator = Orchestrator::start();
        let holder = orchestrator.holder(&fixture);
        let found = Found { run: fixture.run(), holder: Some(holder.clone()) };
        assert!(stop_run(&found, &holder, StopMode::InOrder, &Environment::default(), &quiet()).await.is_ok());
        assert!(!holder.process.is_alive());
        assert_eq!(
            told(&found, &found.run.state().unwrap()),
            ["run r has ended", "  ended in experiment 1, a: server process 4300 on port 8000, client process 4400"]
        );
    }

    #[test]
    fn nobody_but_the_very_holder_is_signalled() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        let orchestrator = Orchestrator::start();
        let mut other = orchestrator.holder(&fixture);
        other.process.start_time += 1;
        assert_eq!(ask(&other, StopMode::Now), Asked::Refused(Errno::ESRCH));
        other.process.pid = 0;
        assert_eq!(ask(&other, StopMode::Now), Asked::Refused(Errno::EINVAL));
        other.process.pid = -1;
        assert_eq!(ask(&other, StopMode::Now), Asked::Refused(Errno::EINVAL));
        assert!(orchestrator.holder(&fixture).process.is_alive());
    }

    #[test]
    fn a_lock_that_names_another_program_or_is_held_by_another_process_is_not_believed() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        let orchestrator = Orchestrator::start();
        let found = |holder: &Holder| Found { run: fixture.run(), holder: Some(holder.clone()) };
        let forged = orchestrator.holder(&fixture);
        assert!(verify(&found(&forged), &forged).unwrap_err().contains("is no vllm-bench"));
        // This very program, but the lock is held by nobody or by it.
        let own = Holder { process: ProcessId::current(), ..forged };
        let lock = crate::record::Lock::take(&layout::results_lock(home.path())).unwrap().unwrap();
        assert_eq!(verify(&found(&own), &own), Ok(()));
        drop(lock);
        let path = layout::results_lock(home.path());
        let mut command = Command::new("flock");
        command.arg(&path).args(["bash", "-c", "echo ready; read -r line"]);
        let Ok(mut other) = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()
        else {
            return;
        };
        std::io::Read::read(other.stdout.as_mut().unwrap(), &mut [0; 8]).unwrap();
        if procfs::holds_lock(i32::try_from(other.id()).unwrap(), &path) == Some(true) {
            assert!(verify(&found(&own), &own).unwrap_err().contains("does not hold it"));
        }
        drop(other.stdin.take());
        other.wait().unwrap();
    }

    #[test]
    fn the_grace_period_is_that_of_the_manifest() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        let found = Found { run: fixture.run(), holder: None };
        assert_eq!(grace_of(&found), Duration::from_secs(30));
        fixture.write_manifest("{");
        assert_eq!(grace_of(&found), GRACE);
    }
}

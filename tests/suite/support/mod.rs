//! What every test of the binary needs: a scene of its own, a builder for calls, and the proof that nothing is left.
//!
//! A scene is a temporary directory and a marker. The marker is in the environment of everything that a call starts and
//! in every launch script, so that a process, script or record that stays behind is told from those of other tests,
//! which run at the same time. Nothing here waits for a time: it waits for a condition, with a generous limit.
#![allow(dead_code, reason = "every test file uses a part of it")]

pub mod mlflow;
pub mod results;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_vllm-bench");
/// The model of most sweeps.
pub const MODEL: &str = "org/tiny";
/// The first experiment of [`Scene::sweep`].
pub const FIRST: &str = "org_tiny_tp1_quant-none_eager-true";
/// The second one.
pub const SECOND: &str = "org_tiny_tp1_quant-none_eager-false";

/// In the environment and the scripts of everything that a scene starts.
const SCENE: &str = "IT_SCENE";
/// Where runs lock their devices.
pub const DEVICE_LOCKS: &str = "VLLM_BENCH_DEVICE_LOCKS";
/// In the environment of everything that one call starts.
const CALL: &str = "IT_CALL";
/// After this a condition is taken for one that never comes. Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Where this user's calls have their locks and the records of live groups.
fn shared_home() -> PathBuf {
    PathBuf::from(format!("/tmp/vllm-bench-{}", nix::unistd::geteuid()))
}

/// A port that nobody has, away from those that `--port auto` tries and from those that the kernel gives away.
pub fn free_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let from = 12_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let next = u16::try_from(COUNTER.fetch_add(1, Ordering::Relaxed)).unwrap();
    (from + next..32_000).find(free).expect("a free port")
}

fn unique() -> String {
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a condition.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < LIMIT, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says loudly that a test could not be made.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    // Past the capture of the test harness.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {why} ***\n");
}

/// A temporary directory with a marker. When it is dropped, nothing of it may be left.
#[derive(Debug)]
pub struct Scene {
    id: String,
    dir: TempDir,
}

impl Scene {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// A scene in a directory below this one.
    pub fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("vb-it-").tempdir_in(parent).unwrap();
        for name in ["home", "results", "calls"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { id: unique(), dir }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Where [`Scene::sweep`] makes its run directories.
    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// A bare call of the program.
    pub fn call(&self, command: &[&str]) -> Call<'_> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let env = [
            ("PATH", path),
            ("HOME", self.path("home").into()),
            (SCENE, self.id.clone().into()),
            (CALL, unique().into()),
            // Tests run at the same time on the same cores: each scene has locks of its own.
            (DEVICE_LOCKS, self.path("devices").into()),
        ];
        Call {
            scene: self,
            wrapper: Vec::new(),
            command: command.iter().map(OsString::from).collect(),
            options: Vec::new(),
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            stays: false,
        }
    }

    /// A sweep of two tiny experiments on the simulated vLLM, as fast as this machine computes.
    pub fn sweep(&self) -> Call<'_> {
        self.call(&["run"])
            .set("--engine", ["sim"])
            .set("--sim-speed", ["inf"])
            .set("--port", ["auto"])
            .set("--models", [MODEL])
            .set("--tp", ["1"])
            .set("--quantization", ["none"])
            .set("--enforce-eager", ["true", "false"])
            .set("--input-len", ["8"])
            .set("--output-len", ["8"])
            .set("--num-prompts", ["4"])
            .set("--concurrency", ["2"])
            .set("--results-dir", [self.results().to_str().unwrap()])
            .set("--env", [format!("{SCENE}={}", self.id).as_str()])
            .set("--retry", ["none"])
            .flag("--keep-foreign")
    }

    /// `vllm-bench run` of a sweep file on the simulated vLLM.
    pub fn sweep_of(&self, file: &Path) -> Call<'_> {
        self.call(&["run", file.to_str().unwrap()])
            .set("--engine", ["sim"])
            .set("--sim-speed", ["inf"])
            .set("--port", ["auto"])
            .set("--results-dir", [self.results().to_str().unwrap()])
            .set("--env", [self.mark().as_str()])
            .flag("--keep-foreign")
    }

    /// The variable by which the processes of this scene are known.
    pub fn mark(&self) -> String {
        format!("{SCENE}={}", self.id)
    }

    /// The same with another program as `vllm`. Its simulated vLLM, if it goes on to one, is as fast.
    pub fn sweep_with(&self, vllm: &Path) -> Call<'_> {
        self.sweep()
            .set("--engine", ["vllm"])
            .without("--sim-speed")
            .set("--vllm-bin", [vllm.to_str().unwrap()])
            .set("--setvars", ["none"])
            .flag("--no-preflight")
            .also("--env", "VLLM_BENCH_SIM_SPEED=inf")
    }

    /// Writes a program.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A `vllm` that does this first and then goes on as the simulated one.
    pub fn vllm_that(&self, first: &str) -> PathBuf {
        self.program("fake/vllm", &format!("#!/bin/bash\n{first}\nexec {BIN} sim-vllm \"$@\"\n"))
    }

    /// The run directories of a results directory, oldest first.
    pub fn runs_in(&self, results: &Path) -> Vec<RunFiles> {
        let mut runs: Vec<PathBuf> = fs::read_dir(results)
            .map(|entries| entries.flatten().map(|entry| entry.path()).filter(|p| p.is_dir()).collect())
            .unwrap_or_default();
        runs.sort_by_key(|path| fs::metadata(path.join("manifest.json")).and_then(|m| m.modified()).ok());
        runs.into_iter().map(RunFiles).collect()
    }

    pub fn runs(&self) -> Vec<RunFiles> {
        self.runs_in(&self.results())
    }

    /// The only run directory.
    pub fn run(&self) -> RunFiles {
        let mut runs = self.runs();
        assert_eq!(runs.len(), 1, "one run directory was expected:\n{}", tree(self.root()));
        runs.remove(0)
    }

    /// Living processes of this scene, with their command lines: by the marker in their environment, and by the directory
    /// in which they work, because those that rename themselves overwrite their environment.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = self.mark();
        processes(|pid| has_variable(pid, &mark) == Some(true) || works_below(pid, self.root()))
    }

    /// Waits until no process, script or record of this scene is there.
    pub fn wait_until_nothing_is_left(&self) {
        wait_for("nothing of the scene is left", || self.left().is_empty().then_some(()));
    }

    /// Every process, script and registry record of this scene.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.processes().into_iter().map(|(pid, line)| format!("process {pid} `{line}`")).collect();
        left.extend(self.scripts().iter().map(|path| format!("script {}", path.display())));
        left.extend(self.records().iter().map(|record| format!("record {record}")));
        left
    }

    /// Launch scripts of this scene in `/tmp`.
    pub fn scripts(&self) -> Vec<PathBuf> {
        let mark = format!("export {SCENE}={}\n", self.id);
        let names = fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("vllm-bench-") && name.ends_with(".sh")
        });
        names.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&mark))).collect()
    }

    /// Records of live groups of this scene.
    pub fn records(&self) -> Vec<Value> {
        let entries = [shared_home(), self.private_home()].map(|home| fs::read_dir(home.join("groups")).into_iter());
        entries
            .into_iter()
            .flatten()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
            // Other tests put what is no record there.
            .filter(|entry| entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20))
            .filter_map(|entry| serde_json::from_slice::<Value>(&fs::read(entry.path()).ok()?).ok())
            .filter(|record| {
                record
                    .pointer("/owner/run")
                    .and_then(Value::as_str)
                    .is_some_and(|run| Path::new(run).starts_with(self.root()))
            })
            .collect()
    }

    /// Where calls that are [`Call::alone`] have their locks and the records of live groups.
    fn private_home(&self) -> PathBuf {
        self.path("private")
    }

    /// The record of the live group with this role (`server`, `benchmark`).
    pub fn record(&self, role: &str) -> Value {
        wait_for("the record of a group", || {
            self.records().into_iter().find(|r| r["owner"]["role"] == role && !r["leader"].is_null())
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let start = Instant::now();
        let mut left = self.left();
        // A test that failed has already said why; one that passed may have left what is about to end by itself.
        while !left.is_empty() && !std::thread::panicking() && start.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(20));
            left = self.left();
        }
        for _ in 0..50 {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            for (pid, _) in processes {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for path in self.scripts() {
            let _ = fs::remove_file(path);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "the test left behind:\n{}", left.join("\n"));
        }
    }
}

/// One call of the program. To be consumed by [`Call::ends`], [`Call::exits`] or [`Call::start`].
#[must_use = "a call that is not started tests nothing"]
pub struct Call<'s> {
    scene: &'s Scene,
    wrapper: Vec<OsString>,
    command: Vec<OsString>,
    options: Vec<(String, Vec<OsString>)>,
    env: Vec<(String, OsString)>,
    stays: bool,
}

impl<'s> Call<'s> {
    /// Sets a flag with its values, in the place of earlier ones.
    pub fn set<'v>(mut self, flag: &str, values: impl IntoIterator<Item = &'v str>) -> Self {
        let values = values.into_iter().map(OsString::from).collect();
        match self.options.iter_mut().find(|(name, _)| name == flag) {
            Some((_, old)) => *old = values,
            None => self.options.push((flag.to_owned(), values)),
        }
        self
    }

    /// One more occurrence of a flag that may be repeated.
    pub fn also(mut self, flag: &str, value: &str) -> Self {
        self.options.push((flag.to_owned(), vec![value.into()]));
        self
    }

    /// A flag without a value.
    pub fn flag(mut self, flag: &str) -> Self {
        self.options.push((flag.to_owned(), Vec::new()));
        self
    }

    pub fn without(mut self, flag: &str) -> Self {
        self.options.retain(|(name, _)| name != flag);
        self
    }

    pub fn fault(self, fault: &str) -> Self {
        self.set("--sim-fault", [fault])
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Runs the program by way of another one.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Runs it in a mount namespace in which no other run sees its locks and records, and none ends what it leaves; where
    /// `hide` says so, no cgroup can be reached either. `None` where that cannot be had.
    pub fn alone(self, hide: bool) -> Option<Self> {
        let (mine, home) = (self.scene.private_home(), shared_home());
        for dir in [&mine, &home] {
            fs::create_dir_all(dir).unwrap();
        }
        let cgroups = if hide { "mount -t tmpfs none /sys/fs/cgroup && " } else { "" };
        let script = format!("mount --bind '{}' '{}' && {cgroups}exec \"$@\"", mine.display(), home.display());
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
        if !works.is_ok_and(|output| output.status.success()) {
            skipped("a call with records of its own: `unshare --mount` is not to be had here");
            return None;
        }
        let port = free_port().to_string();
        Some(self.through(&wrapper).set("--port", [port.as_str()]))
    }

    /// Processes may outlive this call (`--detach`).
    pub fn stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Live<'s> {
        let mut words: Vec<OsString> = Vec::new();
        if signals_are_ignored() {
            // These tests run in the background of a script, or under `nohup`. The program leaves such a signal ignored; here it
            // must not be.
            words.extend(["/usr/bin/env", "--default-signal=HUP,INT,QUIT"].map(OsString::from));
        }
        words.extend(self.wrapper);
        words.push(BIN.into());
        words.extend(self.command);
        for (flag, values) in self.options {
            words.push(flag.into());
            words.extend(values);
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|kind| self.scene.path(&format!("calls/{number}.{kind}")));
        let mark = self.env.iter().find(|(name, _)| name == CALL).map(|(_, value)| value.clone()).unwrap();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env_clear()
            .envs(self.env)
            .current_dir(self.scene.root())
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let mark = format!("{CALL}={}", mark.to_string_lossy());
        let since = stat_field(child.id(), START).unwrap_or(0);
        Live { since, scene: self.scene, words, child, out, err, mark, stays: self.stays }
    }

    /// Runs it to its end.
    pub fn ends(self) -> Ended<'s> {
        self.start().ends()
    }

    /// Runs it to its end, which must be this exit code.
    pub fn exits(self, code: i32) -> Ended<'s> {
        self.ends().with_code(code)
    }
}

fn signals_are_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let bits = [Signal::SIGHUP, Signal::SIGINT].map(|signal| 1 << (signal as i32 - 1));
    mask.is_some_and(|mask| bits.iter().any(|bit| mask & bit != 0))
}

/// A call under way.
pub struct Live<'s> {
    scene: &'s Scene,
    words: Vec<OsString>,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    mark: String,
    /// When it began, in clock ticks after boot.
    since: u64,
    stays: bool,
}

impl<'s> Live<'s> {
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for an event of the newest run that has these words in its line.
    pub fn event(&mut self, words: &[&str]) -> Value {
        let results = self.scene.results();
        let start = Instant::now();
        loop {
            let over = self.child.try_wait().unwrap();
            let lines = self.scene.runs_in(&results).pop().map(|run| run.journal_text()).unwrap_or_default();
            let found = lines.lines().rev().find(|line| words.iter().all(|word| line.contains(word)));
            if let Some(event) = found.and_then(|line| serde_json::from_str(line).ok()) {
                return event;
            }
            if over.is_some() || start.elapsed() > LIMIT {
                panic!("waited in vain for the event {words:?}\n{}", self.story(over));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it started and still lives. Of one without an environment its ancestors tell; an orphan is taken for its own
    /// if it began later.
    fn processes(&self) -> Vec<(i32, String)> {
        processes(|pid| match has_variable(pid, &self.mark) {
            Some(has) => has,
            None if !works_below(pid, self.scene.root()) => false,
            None => {
                let line = std::iter::successors(stat_field(pid, PARENT), |pid| stat_field(*pid, PARENT));
                let known = line
                    .filter_map(|pid| i32::try_from(pid).ok())
                    .take_while(|pid| works_below(*pid, self.scene.root()))
                    .find_map(|pid| has_variable(pid, &self.mark));
                known.unwrap_or(stat_field(pid, START).is_some_and(|start| start >= self.since))
            }
        })
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end. Unless it was told otherwise, no process that it started may be there then.
    pub fn ends(mut self) -> Ended<'s> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LIMIT {
                let story = self.story(None);
                let _ = self.child.kill();
                panic!("the call does not end\n{story}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let left = if self.stays { Vec::new() } else { self.processes() };
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let ended = Ended {
            scene: self.scene,
            status,
            stdout: read(&self.out),
            stderr: read(&self.err),
            command: shown(&self.words),
        };
        ended.check(left.is_empty(), &format!("processes are left: {left:?}"));
        ended
    }

    fn story(&self, status: Option<ExitStatus>) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        story(self.scene, &shown(&self.words), status, &read(&self.out), &read(&self.err))
    }
}

/// A call that has ended.
pub struct Ended<'s> {
    scene: &'s Scene,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    command: String,
}

impl Ended<'_> {
    pub fn with_code(self, code: i32) -> Self {
        self.check(self.status.code() == Some(code), &format!("exit code {code} was expected"));
        self
    }

    /// Fails with all there is to know about the call.
    pub fn check(&self, good: bool, what: &str) {
        if !good {
            let status = Some(self.status);
            panic!("{what}\n{}", story(self.scene, &self.command, status, &self.stdout, &self.stderr));
        }
    }

    /// Standard error has these words.
    pub fn says(&self, words: &str) -> &Self {
        self.check(self.stderr.contains(words), &format!("stderr should say: {words}"));
        self
    }

    /// Standard output has these words.
    pub fn prints(&self, words: &str) -> &Self {
        self.check(self.stdout.contains(words), &format!("stdout should have: {words}"));
        self
    }
}

/// The files of one run.
#[derive(Debug, Clone)]
pub struct RunFiles(pub PathBuf);

impl RunFiles {
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn name(&self) -> String {
        self.0.file_name().unwrap().to_string_lossy().into_owned()
    }

    pub fn json(&self, name: &str) -> Value {
        let path = self.path(name);
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}\n{}", path.display(), tree(&self.0)));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn result(&self, experiment: &str) -> Value {
        self.json(&format!("{experiment}_results.json"))
    }

    pub fn failure(&self, experiment: &str) -> Value {
        self.json(&format!("{experiment}_failure.json"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub fn journal_text(&self) -> String {
        fs::read_to_string(self.path("journal.jsonl")).unwrap_or_default()
    }

    /// Every event, each line of which must parse.
    pub fn journal(&self) -> Vec<Value> {
        let text = self.journal_text();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.journal().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// The outcomes of an experiment (`passed`, `failed`, `interrupted`) by attempt.
    pub fn outcomes(&self, experiment: &str) -> Vec<(u64, String)> {
        self.events("experiment-finished")
            .iter()
            .filter(|event| event["name"] == experiment)
            .map(|event| (event["attempt"].as_u64().unwrap(), event["outcome"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// This experiment has a valid result, on disk and in the journal.
    pub fn assert_passed(&self, experiment: &str) {
        let result = self.result(experiment);
        assert_eq!((result["completed"].as_u64(), result["failed"].as_u64()), (Some(4), Some(0)), "{result}");
        assert_eq!(result["vllm_bench"]["name"], experiment);
        // A server that goes on to serve others is ended after them.
        if !result["vllm_bench"]["teardown"].is_null() {
            assert_proof(&result["vllm_bench"]["teardown"]);
        }
        assert!(!self.has(&format!("{experiment}_failure.json")), "{}", tree(&self.0));
        assert_eq!(self.outcomes(experiment).last().map(|(_, outcome)| outcome.as_str()), Some("passed"));
    }

    /// The journal tells the whole story of a run in one session: beginnings and ends match, every proof is complete.
    pub fn assert_journal_complete(&self) {
        let journal = self.journal();
        let kinds: Vec<&str> = journal.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"run-started"), Some(&"run-finished")), "{kinds:?}");
        let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!(count("experiment-started"), count("experiment-finished"), "{kinds:?}");
        assert_eq!(count("server-launched"), count("torn-down"), "{kinds:?}");
        for proof in self.events("torn-down") {
            assert_proof(&proof["proof"]);
        }
        assert!(fs::read_dir(self.path(".unchecked")).map_or(0, Iterator::count) == 0, "{}", tree(&self.0));
    }
}

/// A teardown proof without a gap. A process of another test may have taken the port since; then the proof names it.
pub fn assert_proof(proof: &Value) {
    assert_eq!(proof["group_empty"], true, "{proof}");
    assert!(proof["port_closed"] == true || proof["port_held_by"].is_string(), "{proof}");
    assert_ne!(proof["device_memory_back"], false, "{proof}");
}

/// Whether the environment of a process has this entry; `None` where it has none, or overwrote it.
pub fn has_variable(pid: i32, entry: &str) -> Option<bool> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let known = bytes.iter().any(|&b| b != 0);
    known.then(|| bytes.split(|&b| b == 0).any(|variable| variable == entry.as_bytes()))
}

fn works_below(pid: i32, folder: &Path) -> bool {
    pid != std::process::id().cast_signed()
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
}

/// Fields of `/proc/PID/stat` after the name: the parent, and the start in clock ticks after boot.
const PARENT: usize = 1;
const START: usize = 19;

fn stat_field(pid: impl std::fmt::Display, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(field)?.parse().ok()
}

/// Living processes.
fn processes(wanted: impl Fn(i32) -> bool) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| wanted(*pid))
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X', 'x']) && !rest.is_empty())
        })
        .map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn story(scene: &Scene, command: &str, status: Option<ExitStatus>, stdout: &str, stderr: &str) -> String {
    let status = match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        },
        None => "still running".into(),
    };
    let journal = scene.runs().pop().map(|run| run.journal_text()).unwrap_or_default();
    let journal: Vec<&str> = journal.lines().filter(|line| !line.contains("phase-changed")).collect();
    let journal = journal[journal.len().saturating_sub(12)..].join("\n");
    format!(
        "--- command: {command}\n--- directory: {}\n--- status: {status}\n--- files:\n{}--- stdout:\n{stdout}\n--- stderr:\n{stderr}\n--- journal:\n{journal}\n---",
        scene.root().display(),
        tree(scene.root())
    )
}

fn shown(words: &[OsString]) -> String {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}

/// Every file below a directory, with its size.
pub fn tree(root: &Path) -> String {
    let mut text = String::new();
    for path in files(root) {
        let size = fs::symlink_metadata(&path).map_or(0, |meta| meta.size());
        let _ = writeln!(text, "  {size:>8}  {}", path.strip_prefix(root).unwrap_or(&path).display());
    }
    text
}

/// Every file below a directory.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

//! The launch scripts: what `bash --login` runs, for the server and for the benchmark client.
//!
//! A login shell resets PATH, so the program is named by its absolute path. The script ends in `exec`, so that signals
//! reach vLLM itself. Everything that comes from the user is quoted for the shell; secrets are never in it: they travel
//! in the process environment.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use crate::model::{Client, Engine, Experiment, Identity, Isolation, ProcessId, Repeat, Side};
use crate::process::container::holds_token;
use crate::process::{Role, pid_namespace};
use crate::sim::settings::START;
use crate::sim::timing::Turn;
use crate::words::quoted;

/// The server backend: a program, and what comes before the arguments that vLLM would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineCommand {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments before those of vLLM (`sim-vllm` for the simulated one).
    pub prefix: Vec<String>,
}

impl EngineCommand {
    /// A vLLM that is installed.
    pub fn of(program: PathBuf) -> Self {
        Self { program, prefix: Vec::new() }
    }

    /// The command that sends the workload of an experiment: `vllm bench serve`, or this very program's `load`. `stall`: after
    /// a quarter more than that without a token it gives up, where its server is not found to stand still before.
    ///
    /// # Errors
    /// When this program does not know its own path.
    pub fn client_of(&self, experiment: &Experiment, stall: Option<Duration>) -> std::io::Result<Self> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Ok(match experiment.workload.client {
            Client::Vllm => Self {
                program: self.program.clone(),
                prefix: [self.prefix.clone(), words(&["bench", "serve"])].concat(),
            },
            Client::Builtin => {
                let simulated = experiment.engine == Engine::Sim;
                let mut prefix = words(if simulated { &["load", "--simulated"] } else { &["load"] });
                // Longer than ours: whoever sees both sides, and keeps the evidence, judges first.
                let stall = stall.map_or(0.0, |stall| stall.as_secs_f64() * 1.25 + 1.0);
                prefix.extend(["--stall-timeout".to_owned(), format!("{stall}s")]);
                Self { program: std::env::current_exe()?, prefix }
            }
        })
    }
}

/// Local addresses that no proxy may see (rules 6 and 9).
const NO_PROXY: &str = "localhost,127.0.0.1,0.0.0.0";

/// Where the client finds the server (rule 13), unless the server was told to listen on one address only.
const CLIENT_HOST: &str = "0.0.0.0";

/// The address on which a server is asked whether it is ready, and to which its client goes.
pub fn client_host(experiment: &Experiment) -> &str {
    experiment.server.flags.get_text("host").unwrap_or(CLIENT_HOST)
}

/// What a script depends on besides the experiment.
#[derive(Debug, Clone)]
pub struct ScriptContext<'a> {
    /// The program, and what comes before its arguments.
    pub engine: &'a EngineCommand,
    /// oneAPI's environment script, where it exists.
    pub setvars: Option<&'a Path>,
    /// The server's port.
    pub port: u16,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What narrows the server to the devices of its lane.
    pub variables: &'a [(String, String)],
}

/// The arguments of `vllm` for the server of an experiment.
pub fn serve_args(experiment: &Experiment, port: u16) -> Vec<String> {
    let mut args = vec!["serve".to_owned(), experiment.server.model.clone(), "--port".to_owned(), port.to_string()];
    args.extend(experiment.server.flags.to_args());
    args
}

/// The arguments of the client for the load of an experiment; its result goes to `result`.
pub fn bench_args(experiment: &Experiment, port: u16, result: &Path) -> Vec<String> {
    let folder = result.parent().unwrap_or(Path::new("/"));
    let file = result.file_name().unwrap_or_default();
    let host = client_host(experiment);
    let mut args: Vec<String> = ["--host", host, "--port"].map(str::to_owned).to_vec();
    args.extend([port.to_string(), "--model".to_owned()]);
    let served = experiment.server.served_model();
    args.push(served.to_owned());
    if served != experiment.server.model && !experiment.workload.flags.contains("tokenizer") {
        args.extend(["--tokenizer".to_owned(), experiment.server.model.clone()]);
    }
    args.extend(workload_args(experiment));
    if experiment.workload.client == Client::Builtin && !experiment.workload.flags.contains("num-warmups") {
        // By itself it warms up; in a sweep the workload says how much.
        args.extend(["--num-warmups", "0"].map(str::to_owned));
    }
    args.push("--save-result".to_owned());
    args.extend(["--result-dir".to_owned(), folder.to_string_lossy().into_owned()]);
    args.extend(["--result-filename".to_owned(), file.to_string_lossy().into_owned()]);
    args
}

/// The arguments of the client for a warm-up of `prompts` requests, like the one that is measured after it. Its
/// prompts are others, so that none of them is in the prefix cache afterwards.
pub fn warmup_args(experiment: &Experiment, port: u16, result: &Path, prompts: u64) -> Vec<String> {
    let mut warmup = experiment.clone();
    warmup.workload.flags.text("num-prompts", prompts);
    if let Isolation::Seed(seed) = &mut warmup.isolation {
        *seed = (*seed).wrapping_add(1) % (1 << 32);
    }
    bench_args(&warmup, port, result)
}

/// The flags of the load, with the seed that keeps this measurement's prompts apart from those of others.
fn workload_args(experiment: &Experiment) -> Vec<String> {
    let mut flags = experiment.workload.flags.clone();
    if experiment.workload.client == Client::Builtin {
        // It never runs a model's code: the permission means nothing to it.
        flags.remove("trust-remote-code");
    }
    if let Isolation::Seed(seed) = experiment.isolation {
        flags.text("seed", seed);
    }
    flags.to_args()
}

/// The text of a launch script.
pub fn script(role: Role, experiment: &Experiment, args: &[String], context: &ScriptContext<'_>) -> String {
    script_after(role, experiment, args, context, &[])
}

/// The same, with lines of the shell before the program.
pub(super) fn script_after(
    role: Role,
    experiment: &Experiment,
    args: &[String],
    context: &ScriptContext<'_>,
    before: &[String],
) -> String {
    let mut command = format!(" {}", quoted(&context.engine.program.to_string_lossy()));
    for word in &context.engine.prefix {
        match holds_token(word) {
            // The guard says which container this is.
            true => drop(write!(command, " \"{word}\"")),
            false => drop(write!(command, " {}", quoted(word))),
        }
    }
    command.push_str(&command_lines(args));
    script_of(role, experiment, context, before, &command)
}

/// A script that ends in this command, whose words are quoted where they must be.
pub(super) fn script_of(
    role: Role,
    experiment: &Experiment,
    context: &ScriptContext<'_>,
    before: &[String],
    command: &str,
) -> String {
    let mut text = String::from("#!/bin/bash\n");
    let _ = writeln!(text, "# vllm-bench: {role} of experiment {} ({})", experiment.name, experiment.identity.short());
    if experiment.engine == Engine::Sim {
        text.push_str("# SIMULATED: the simulated vLLM inside vllm-bench, no real server\n");
    }
    text.push('\n');
    if let Some(setvars) = context.setvars {
        let _ = writeln!(text, "source {} --force", quoted(&setvars.to_string_lossy()));
    }
    let _ = writeln!(text, "export no_proxy={NO_PROXY}${{no_proxy:+,$no_proxy}}");
    let _ = writeln!(text, "export NO_PROXY={NO_PROXY}${{NO_PROXY:+,$NO_PROXY}}");
    if let Some(folder) = context.engine.program.parent().filter(|folder| folder.is_absolute()) {
        text.push_str(
            "# What is installed beside vllm (ninja, python) is found although the login shell reset PATH.\n",
        );
        let _ = writeln!(text, "export PATH={}:\"$PATH\"", quoted(&folder.to_string_lossy()));
    }
    for (name, value) in &experiment.server.env {
        let _ = writeln!(text, "export {name}={}", quoted(value));
    }
    if role == Role::Server {
        for (name, value) in context.variables {
            let _ = writeln!(text, "export {name}={} # of its lane", quoted(value));
        }
    }
    for name in &experiment.server.secret_env {
        let _ = writeln!(text, "# {name} is set in the process environment (its value is never written)");
    }
    if experiment.engine == Engine::Sim {
        let _ = writeln!(text, "export VLLM_BENCH_ATTEMPT={}", context.attempt);
        simulated_turn(&mut text, role, experiment);
    }
    for line in before {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "\nexec{command}");
    text
}

/// So far the numbers of starts are apart from which the noise of the two sides of `run --against` is drawn.
const OTHER_SIDE: u32 = 1_000_000;

/// What the simulated noise of this start, or of this measurement, is drawn from: the same whenever it is made again.
fn simulated_turn(text: &mut String, role: Role, experiment: &Experiment) {
    let Experiment { server, workload, index, side, .. } = experiment;
    // Two sides with the same settings are started at other times: they vary by themselves.
    let apart = if *side == Some(Side::Before) { OTHER_SIDE } else { 0 };
    let repeat = Repeat { start: experiment.repeat.start.saturating_add(apart), ..experiment.repeat };
    let _ = match role {
        Role::Server => writeln!(text, "export {START}={:016x}", Identity::draw_of_start(server, repeat)),
        Role::Benchmark => writeln!(
            text,
            "export {}={:016x}\nexport {}={index}",
            Turn::DRAW,
            Identity::draw_of_measurement(server, workload, repeat),
            Turn::POSITION
        ),
    };
}

/// One flag with its value per line, so that a person can read and edit the command.
fn command_lines(args: &[String]) -> String {
    let mut text = String::new();
    for arg in args {
        let breaks = arg.starts_with('-');
        text.push_str(if breaks { " \\\n  " } else { " " });
        text.push_str(&quoted(arg));
    }
    text
}

/// Where launch scripts are written.
const SCRIPT_DIR: &str = "/tmp";
/// Beginning of their names.
const SCRIPT_PREFIX: &str = "vllm-bench-";
/// Beginning of the last line: who wrote the script, so that one that a crash left is known as such.
const WRITER: &str = "# written by process ";

/// Writes a script below `/tmp`: a new file, never through a link, writable by its owner alone and executable.
///
/// # Errors
/// When `/tmp` is full or not writable.
pub fn write_exclusively(role: Role, text: &str) -> Result<PathBuf, Error> {
    let path = Path::new(SCRIPT_DIR).join(format!("{SCRIPT_PREFIX}{role}-{:016x}.sh", rand::random::<u64>()));
    let me = ProcessId::current();
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        file.write_all(format!("{text}{WRITER}{} {} {}\n", me.pid, me.start_time, pid_namespace()).as_bytes())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755))
    };
    write().map_err(|source| Error::Script { path: path.clone(), source })?;
    Ok(path)
}

/// Removes scripts of this user whose writers are gone: a crash between writing and launching leaves one.
pub fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(SCRIPT_DIR) else { return };
    let me = nix::unistd::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(SCRIPT_PREFIX) && name.ends_with(".sh"));
        let is_file = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == me);
        if ours && is_file && !writer(&entry.path()).is_none_or(|writer| writer.is_alive()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Who wrote a script; `None` where it does not say, as while it is being written, or where the number means nothing
/// here: it was written in another PID namespace (a container that shares `/tmp`).
fn writer(path: &Path) -> Option<ProcessId> {
    let text = crate::bounded::read_text(path, crate::bounded::NOTE).ok()?;
    let mut words = text.lines().last()?.strip_prefix(WRITER)?.split(' ');
    let (pid, start, namespace) = (words.next()?, words.next()?, words.next()?);
    if namespace != pid_namespace() {
        return None;
    }
    Some(ProcessId { pid: pid.parse().ok()?, start_time: start.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::axis;
    use crate::plan::{Group, Sweep, Value, expand};

    fn experiment(model: &str, engine: Engine) -> Experiment {
        let mut serve = vec![axis("model", "m"), axis("dtype", "bfloat16"), axis("trust-remote-code", "true")];
        serve[0].values = vec![Value::Text(model.to_owned())];
        serve.extend([axis("tensor-parallel-size", "2"), axis("quantization", "fp8"), axis("enforce-eager", "true")]);
        let group =
            Group { serve, env: vec![axis("A", "b $(c)")], bench: vec![axis("num-prompts", "4")], ..Group::default() };
        let sweep = Sweep { groups: vec![group], secret_env: vec!["HF_TOKEN".into()], ..Sweep::new(engine) };
        expand(&sweep).experiments.remove(0)
    }

    fn server_script(model: &str) -> String {
        let engine = EngineCommand { program: "/opt/v env/bin/vllm".into(), prefix: vec![] };
        let context = ScriptContext {
            engine: &engine,
            setvars: Some(Path::new("/opt/intel/oneapi/setvars.sh")),
            port: 8000,
            attempt: 1,
            variables: &[],
        };
        let experiment = experiment(model, Engine::Vllm);
        script(Role::Server, &experiment, &serve_args(&experiment, 8000), &context)
    }

    #[test]
    fn rules_9_and_10_the_server_script_sources_oneapi_and_bypasses_the_proxy() {
        insta::assert_snapshot!(server_script("org/model"));
    }

    #[test]
    fn rule_13_the_client_talks_to_0_0_0_0() {
        let args = bench_args(&experiment("m", Engine::Vllm), 8001, Path::new("/r/.unchecked/x.json"));
        assert_eq!(
            args.join(" "),
            "--host 0.0.0.0 --port 8001 --model m --num-prompts 4 --dataset-name random --temperature 0 --ignore-eos --save-result --result-dir /r/.unchecked \
             --result-filename x.json"
        );
    }

    /// Runs the script with a program that prints its arguments, one per line, as vLLM would receive them.
    #[test]
    fn whatever_a_model_is_called_it_arrives_as_one_argument() {
        for model in ["a b", "it's", "$(touch /tmp/owned)", "`id`", "a\"b", "x;y", "*", "a\\b", "ünï", "!!", "${HOME}"]
        {
            let engine = EngineCommand { program: "/usr/bin/printf".into(), prefix: vec!["%s\\n".into()] };
            let context = ScriptContext { engine: &engine, setvars: None, port: 1, attempt: 1, variables: &[] };
            let experiment = experiment(model, Engine::Vllm);
            let text = script(Role::Server, &experiment, &serve_args(&experiment, 1), &context);
            let path = write_exclusively(Role::Server, &text).unwrap();
            let output = std::process::Command::new("bash").arg("--login").arg(&path).output().unwrap();
            std::fs::remove_file(&path).unwrap();
            let lines = String::from_utf8(output.stdout).unwrap();
            assert_eq!(lines.lines().nth(1), Some(model), "{text}\n{lines}");
        }
    }

    #[test]
    fn a_script_whose_writer_is_gone_is_removed() {
        let mine = write_exclusively(Role::Server, "#!/bin/bash\n").unwrap();
        let stale = Path::new(SCRIPT_DIR).join(format!("{SCRIPT_PREFIX}server-stale-{}.sh", std::process::id()));
        let theirs = stale.with_file_name(format!("{SCRIPT_PREFIX}server-theirs-{}.sh", std::process::id()));
        let script = |namespace: &str| format!("#!/bin/bash\n{WRITER}{} 1 {namespace}\n", std::process::id());
        std::fs::write(&stale, script(&pid_namespace())).unwrap();
        std::fs::write(&theirs, script("pid:[1]")).unwrap();
        remove_stale();
        assert!(mine.exists() && !stale.exists());
        assert!(theirs.exists(), "a script of another container was removed");
        std::fs::remove_file(&mine).unwrap();
        std::fs::remove_file(&theirs).unwrap();
    }

    #[test]
    fn rule_10_scripts_are_executable_and_writable_by_their_owner_alone() {
        let path = write_exclusively(Role::Server, "#!/bin/bash\n").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode, 0o755);
    }
}

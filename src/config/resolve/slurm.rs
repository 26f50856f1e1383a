//! What Slurm is asked for, from the key `slurm`.

use std::time::Duration;

use super::words;
use crate::config::language::Slurm;
use crate::config::tree::{Diagnostic, Kind, Node, Raw, is_number, join};
use crate::config::{Environment, Error, is_executable, parse_duration};
use crate::execute::slurm::{GpuRequest, MOST_BEFORE, Request, TimeLimit};
use crate::nearest::nearest;
use crate::safe;

/// The keys of `slurm`.
const KEYS: [&str; 22] = [
    "partition",
    "qos",
    "account",
    "reservation",
    "time",
    "stop-before",
    "workers",
    "tasks",
    "nodes-per-task",
    "cpus-per-gpu",
    "cpus-per-task",
    "mem-per-cpu",
    "gpus",
    "gpu-type",
    "prelude",
    "prelude-file",
    "container",
    "program",
    "export",
    "requeue",
    "patience",
    "sbatch",
];

/// Options of `sbatch` that have a key of their own, or that vllm-bench sets itself.
const RESERVED: [(&str, &str); 28] = [
    ("partition", "write `slurm.partition`"),
    ("qos", "write `slurm.qos`"),
    ("account", "write `slurm.account`"),
    ("reservation", "write `slurm.reservation`"),
    ("time", "write `slurm.time`"),
    ("nodes", "write `slurm.nodes-per-task`"),
    ("ntasks", "each task of the array is one process: leave it out"),
    ("ntasks-per-node", "each task of the array is one process: leave it out"),
    ("cpus-per-task", "write `slurm.cpus-per-task`"),
    ("cpus-per-gpu", "write `slurm.cpus-per-gpu`"),
    ("mem-per-cpu", "write `slurm.mem-per-cpu`"),
    ("gres", "GPUs follow from the ranks of each server; write `slurm.gpus` and `slurm.gpu-type`"),
    ("gpus", "GPUs follow from the ranks of each server; write `slurm.gpus` and `slurm.gpu-type`"),
    ("gpus-per-node", "GPUs follow from the ranks of each server; write `slurm.gpus` and `slurm.gpu-type`"),
    ("export", "write `slurm.export`"),
    ("requeue", "write `slurm.requeue`"),
    ("no-requeue", "write `slurm.requeue: false`"),
    ("signal", "write `slurm.stop-before`"),
    ("array", "the array follows from the plan; `slurm.workers` limits how many tasks run at once"),
    ("job-name", "jobs are found again by their name: leave it out"),
    ("comment", "jobs are found again by their comment: leave it out"),
    ("output", "output goes into the run directory: leave it out"),
    ("error", "output goes into the run directory: leave it out"),
    ("open-mode", "output goes into the run directory: leave it out"),
    ("parsable", "leave it out"),
    ("wrap", "write `slurm.prelude` or `slurm.container`"),
    ("test-only", "`--dry-run` shows what would be submitted"),
    ("wait", "`run` waits unless it is told `--detach`"),
];

/// Reads it.
///
/// # Errors
/// The first value that cannot be used.
pub fn resolve(slurm: Option<&Slurm>, environment: &Environment) -> Result<Request, Error> {
    let nothing = Slurm::default();
    let slurm = slurm.unwrap_or(&nothing);
    let default = Request::default();
    let text = |raw: &Option<Raw>, what: &str| words::optional(raw.as_ref(), what, one_line);
    let number =
        |raw: &Option<Raw>| words::optional(raw.as_ref(), "a whole number of at least 1", words::positive::<u32>);
    let path = |raw: &Option<Raw>| {
        let named = words::optional(raw.as_ref(), "a path", words::non_empty)?;
        Ok::<_, Error>(named.map(|named| environment.absolute(named)))
    };
    let time_limit = "a time as Slurm writes it: minutes, `HH:MM:SS` or `D-HH:MM`";
    let gpus = match &slurm.gpus {
        None => default.gpus,
        some => words::choice(
            some.as_ref(),
            "slurm.gpus",
            &[("gres", GpuRequest::Gres), ("gpus-per-node", GpuRequest::GpusPerNode), ("none", GpuRequest::None)],
        )?,
    };
    let time = words::optional(slurm.time.as_ref(), time_limit, TimeLimit::read)?;
    let switch = words::optional(slurm.requeue.as_ref(), "`true` or `false`", words::switch)?;
    Ok(Request {
        partition: text(&slurm.partition, "the name of a partition")?,
        qos: text(&slurm.qos, "the name of a QOS")?,
        account: text(&slurm.account, "the name of an account")?,
        reservation: text(&slurm.reservation, "the name of a reservation")?,
        stop_before: stop_before(slurm.stop_before.as_ref(), time.as_ref())?,
        time,
        workers: number(&slurm.workers)?,
        tasks: number(&slurm.tasks)?,
        nodes_per_task: number(&slurm.nodes_per_task)?.unwrap_or(1),
        cpus_per_gpu: number(&slurm.cpus_per_gpu)?,
        cpus_per_task: number(&slurm.cpus_per_task)?,
        mem_per_cpu: words::optional(
            slurm.mem_per_cpu.as_ref(),
            "an amount of memory as Slurm writes it: `22G`, `22528M`, or a number of MiB",
            memory,
        )?,
        gpus,
        gpu_type: text(&slurm.gpu_type, "the type of a GPU, such as `a100`")?,
        prelude: prelude(slurm.prelude.as_ref())?,
        prelude_file: path(&slurm.prelude_file)?,
        container: secret_free(
            slurm.container.as_ref(),
            text(&slurm.container, "the command that starts a container")?,
        )?,
        program: path(&slurm.program)?,
        export: text(&slurm.export, "`ALL`, `NONE` or names of variables")?.unwrap_or(default.export),
        requeue: switch.unwrap_or(default.requeue),
        patience: words::optional(slurm.patience.as_ref(), "a duration such as `5m`", parse_duration)?
            .unwrap_or(default.patience),
        sbatch: slurm.sbatch.as_ref().map(options).transpose()?.unwrap_or_default(),
    })
}

/// Says what to write instead of a key that is an option of `sbatch` and no key of `slurm`. What is near a key is left to the reader.
///
/// # Errors
/// The first such key.
pub fn check_keys(tree: &Node) -> Result<(), Diagnostic> {
    for (key, entry) in tree.get("slurm").and_then(Node::entries).into_iter().flatten() {
        if KEYS.contains(&key.as_str()) {
            continue;
        }
        let trouble = |problem: String| Diagnostic::new(&entry.key, "slurm", problem);
        if key == "gpus-per-node" {
            let problem =
                "`gpus-per-node` is no key of its own: each task asks for as many GPUs as its server has ranks";
            return Err(trouble(problem.to_owned())
                .hint("to ask for them with `--gpus-per-node`, write `slurm: {gpus: gpus-per-node}` or `--slurm gpus=gpus-per-node`")
                .hint("their number follows from tensor-, pipeline- and data-parallel-size; `sbatch: {exclusive: true}` takes whole nodes"));
        }
        if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
            return Err(trouble(format!("the key `{key}` is not known here")).hint(*instead));
        }
        if nearest(key, KEYS.into_iter()).is_none() {
            return Err(trouble(format!("the key `{key}` is not known here"))
                .hint(format!("any other option of sbatch stands below `sbatch`: `slurm: {{sbatch: {{{key}: …}}}}`, or `--slurm sbatch.{key}=…`"))
                .hint(format!("the keys here are: {}", KEYS.join(", "))));
        }
    }
    Ok(())
}

/// Refuses files that batch scripts need and that are not here. In a container there may be others.
///
/// # Errors
/// The first that is missing.
pub fn check_files(slurm: Option<&Slurm>, request: &Request) -> Result<(), Error> {
    let Some(slurm) = slurm else { return Ok(()) };
    if let (Some(raw), Some(file)) = (&slurm.prelude_file, &request.prelude_file)
        && !file.is_file()
    {
        let hint = "where only the nodes have it, source it in `prelude`: `slurm: {prelude: [\"source FILE\"]}`";
        return Err(Error::wrong(&raw.node, &raw.path, "a file that is there", Some(hint.to_owned())));
    }
    if let (Some(raw), Some(file), None) = (&slurm.program, &request.program, &request.container)
        && !is_executable(file)
    {
        let hint =
            "name this program on the shared disk; where only the nodes have it, write `container: env` beside it";
        let expected = "a program that is there and may be executed";
        return Err(Error::wrong(&raw.node, &raw.path, expected, Some(hint.to_owned())));
    }
    Ok(())
}

/// How long before its limit a task is told to end: there must be time before that.
fn stop_before(raw: Option<&Raw>, time: Option<&TimeLimit>) -> Result<Duration, Error> {
    let before = words::optional(raw, "a duration such as `120s`", parse_duration)?;
    let limit = time.and_then(|time| Some((time, time.length?)));
    if let (Some(raw), Some(before), Some((time, length))) = (raw, before, limit)
        && before >= length
    {
        let expected = format!("a duration below `time` ({})", time.text);
        let hint = "without `stop-before` a task ends 120 s before its limit, or after half of it".to_owned();
        return Err(Error::wrong(&raw.node, &raw.path, &expected, Some(hint)));
    }
    if let (Some(raw), Some(_)) = (raw, before.filter(|before| *before > MOST_BEFORE)) {
        let expected = format!("at most {} s, the most that Slurm takes", MOST_BEFORE.as_secs());
        return Err(Error::wrong(&raw.node, &raw.path, &expected, None));
    }
    Ok(before.unwrap_or_else(|| Request::usual_stop_before(time)))
}

/// An amount of memory as Slurm reads it: a number, and K, M, G or T.
fn memory(text: &str) -> Option<String> {
    let text = text.trim();
    let split = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.to_ascii_uppercase();
    let is_unit = ["", "K", "M", "G", "T", "KB", "MB", "GB", "TB"].contains(&unit.as_str());
    (is_unit && number.parse::<u64>().is_ok_and(|number| number > 0)).then(|| text.to_owned())
}

fn one_line(text: &str) -> Option<String> {
    words::non_empty(text).filter(|text| !text.contains(['\n', '\r'])).map(|text| text.trim().to_owned())
}

/// Lines of the script: a text, or a list of lines.
fn prelude(raw: Option<&Raw>) -> Result<Vec<String>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(Vec::new()) };
    // A number or a switch is no command: somebody meant another key.
    let line = |node: &Node| match &node.kind {
        Kind::Text(text) if !is_number(text) && !text.contains('\0') => Some(text.clone()),
        Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    };
    let texts: Option<Vec<String>> = match raw.node.items() {
        Some(items) => items.iter().map(line).collect(),
        None => line(&raw.node).map(|text| vec![text]),
    };
    let hint = "as in `prelude: [\"module load cuda/12.8\"]`".to_owned();
    let texts = texts.ok_or_else(|| Error::wrong(&raw.node, &raw.path, "lines of a shell script", Some(hint)))?;
    let lines: Vec<String> = texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    secret_free(Some(raw), Some(lines.join("\n")))?;
    Ok(lines)
}

/// Refuses text of the batch script with a secret in it: scripts are files, and Slurm keeps a copy.
fn secret_free(raw: Option<&Raw>, text: Option<String>) -> Result<Option<String>, Error> {
    match (raw, &text) {
        (Some(raw), Some(text)) if safe::holds_secret(text) => {
            let problem = "it holds a secret, and a batch script is a file that others can read";
            let hint =
                "export the secret before `vllm-bench run`, or let the prelude source a file that only you can read";
            Err(Diagnostic::new(&raw.node.origin, &raw.path, problem).hint(hint).into())
        }
        _ => Ok(text),
    }
}

/// Other options of `sbatch`.
fn options(raw: &Raw) -> Result<Vec<(String, Option<String>)>, Error> {
    let Some(map) = raw.node.entries() else {
        if raw.node.kind == Kind::Null {
            return Ok(Vec::new());
        }
        let hint = "write `sbatch: {constraint: h100}`".to_owned();
        return Err(Error::wrong(&raw.node, &raw.path, "options of `sbatch` and their values", Some(hint)));
    };
    let mut options = Vec::new();
    for (key, entry) in map {
        let name = key.trim_start_matches('-');
        let path = join(&raw.path, key);
        if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
            let problem = format!("`--{name}` of sbatch is set by vllm-bench itself");
            return Err(Diagnostic::new(&entry.key, &path, problem).hint(*instead).into());
        }
        let is_name = name.len() > 1
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_name {
            let problem = format!("`{}` is no long option of sbatch", key.escape_debug());
            return Err(Diagnostic::new(&entry.key, &path, problem).hint("write `constraint`, not `-C`").into());
        }
        let one = |node: &Node| match &node.kind {
            Kind::Bool(true) => Ok(Some((name.to_owned(), None))),
            Kind::Bool(false) | Kind::Null => Ok(None),
            Kind::Number(text) | Kind::Text(text) if one_line(text).is_some() => {
                Ok(Some((name.to_owned(), Some(text.trim().to_owned()))))
            }
            _ => Err(Error::wrong(node, &path, "a word, a number, `true` or `false`", None)),
        };
        for node in entry.value.items().unwrap_or(std::slice::from_ref(&entry.value)) {
            options.extend(one(node)?);
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunArgs;
    use crate::config::{Preset, Settings};

    fn refused(slurm: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.yaml");
        std::fs::write(&file, format!("serve: {{model: org/m}}\nexecutor: slurm\nslurm:\n{slurm}\n")).unwrap();
        let args = RunArgs { files: vec!["s.yaml".into()], ..RunArgs::default() };
        let environment = Environment::of(&[], dir.path());
        match Settings::resolve(&args, &environment, Preset::Full) {
            Ok(_) => "nothing".to_owned(),
            Err(error) => format!("{error} / {}", error.hints().join(" / ")),
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_place_and_its_key() {
        for (yaml, place, words) in [
            ("  mem-per-cpu: 22X", "s.yaml:4:16: slurm.mem-per-cpu: ", "expected an amount of memory"),
            ("  mem-per-cpu: 0", "s.yaml:4:16: slurm.mem-per-cpu: ", "expected an amount of memory"),
            ("  prelude: 3", "s.yaml:4:12: slurm.prelude: ", "expected lines of a shell script, found the number `3`"),
            ("  prelude: [module load x, true]", "slurm.prelude: ", "expected lines of a shell script"),
            ("  patience: 0", "s.yaml:4:13: slurm.patience: ", "expected a duration"),
            ("  time: 10\n  stop-before: 10m", "s.yaml:5:16: slurm.stop-before: ", "a duration below `time` (10)"),
            ("  stop-before: 20h", "s.yaml:4:16: slurm.stop-before: ", "at most 65535 s"),
            ("  program: /nowhere/x", "s.yaml:4:12: slurm.program: ", "expected a program that is there"),
            ("  prelude-file: nowhere.sh", "s.yaml:4:17: slurm.prelude-file: ", "expected a file that is there"),
            ("  gpus-per-node: 4", "s.yaml:4:3: slurm: ", "write `slurm: {gpus: gpus-per-node}`"),
            ("  nodes: 2", "s.yaml:4:3: slurm: ", "write `slurm.nodes-per-task`"),
            ("  exclusive: true", "s.yaml:4:3: slurm: ", "`slurm: {sbatch: {exclusive: …}}`"),
            ("  partitoin: x", "s.yaml:4:3: slurm: ", "did you mean `partition`?"),
        ] {
            let told = refused(yaml);
            assert!(told.contains(place) && told.contains(words), "{yaml}: {told}");
        }
        for yaml in [
            "  mem-per-cpu: 22G",
            "  mem-per-cpu: 22528",
            "  prelude: module load x",
            "  time: 10\n  stop-before: 9m",
            "  container: podman run x\n  program: /nowhere/x",
        ] {
            assert_eq!(refused(yaml), "nothing", "{yaml}");
        }
    }

    #[test]
    fn the_keys_are_those_of_the_language() {
        let schema = serde_json::to_value(schemars::schema_for!(Slurm)).unwrap();
        let mut properties: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = KEYS.to_vec();
        properties.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, properties);
    }
}

//! What Slurm is asked for, from the key `slurm`.

use super::words;
use crate::config::language::Slurm;
use crate::config::language::policy::pause;
use crate::config::tree::{Diagnostic, Kind, Node, Raw, join};
use crate::config::{Environment, Error, parse_duration};
use crate::execute::slurm::{GpuRequest, Request, TimeLimit};
use crate::safe;

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
    let time = "a time as Slurm writes it: minutes, `HH:MM:SS` or `D-HH:MM`";
    let gpus = match &slurm.gpus {
        None => default.gpus,
        some => words::choice(
            some.as_ref(),
            "slurm.gpus",
            &[("gres", GpuRequest::Gres), ("gpus-per-node", GpuRequest::GpusPerNode), ("none", GpuRequest::None)],
        )?,
    };
    let switch = words::optional(slurm.requeue.as_ref(), "`true` or `false`", words::switch)?;
    Ok(Request {
        partition: text(&slurm.partition, "the name of a partition")?,
        qos: text(&slurm.qos, "the name of a QOS")?,
        account: text(&slurm.account, "the name of an account")?,
        reservation: text(&slurm.reservation, "the name of a reservation")?,
        time: words::optional(slurm.time.as_ref(), time, TimeLimit::read)?,
        stop_before: words::optional(slurm.stop_before.as_ref(), "a duration such as `120s`", parse_duration)?
            .unwrap_or(default.stop_before),
        workers: number(&slurm.workers)?,
        tasks: number(&slurm.tasks)?,
        nodes_per_task: number(&slurm.nodes_per_task)?.unwrap_or(1),
        cpus_per_gpu: number(&slurm.cpus_per_gpu)?,
        cpus_per_task: number(&slurm.cpus_per_task)?,
        mem_per_cpu: text(&slurm.mem_per_cpu, "an amount of memory such as `22G`")?,
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
        patience: words::optional(slurm.patience.as_ref(), "a duration such as `5m`", pause)?
            .unwrap_or(default.patience),
        sbatch: slurm.sbatch.as_ref().map(options).transpose()?.unwrap_or_default(),
    })
}

fn one_line(text: &str) -> Option<String> {
    words::non_empty(text).filter(|text| !text.contains(['\n', '\r'])).map(|text| text.trim().to_owned())
}

/// Lines of the script: a text, or a list of lines.
fn prelude(raw: Option<&Raw>) -> Result<Vec<String>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(Vec::new()) };
    let texts: Option<Vec<String>> = match raw.node.items() {
        Some(items) => items.iter().map(Node::scalar).collect(),
        None => raw.node.scalar().map(|text| vec![text]),
    };
    let texts = texts.filter(|texts| texts.iter().all(|text| !text.contains('\0')));
    let texts = texts.ok_or_else(|| Error::wrong(&raw.node, &raw.path, "lines of a shell script", None))?;
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

//! `--dry-run`: the plan, the skips with their reasons, and the exact scripts. Needs neither vLLM nor devices.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::commands::host_facts;
use crate::config::{Environment, Place, PortChoice, Settings};
use crate::error::Error;
use crate::execute::{EngineCommand, Purpose, ScriptContext, bench_args, script, serve_args};
use crate::exit;
use crate::model::{Client, Experiment, Plan};
use crate::nearest::nearest;
use crate::plan::Section;
use crate::process::Role;
use crate::record::layout::Layout;
use crate::ui::Ui;

use super::{contained, engine};

/// Prints the plan and the scripts of one experiment (by name or number) or of all.
///
/// # Errors
/// When the experiment named is not in the plan.
pub fn show(
    (settings, plan): (&Settings, &Plan),
    which: Option<&str>,
    lanes: Option<&str>,
    environment: &Environment,
    ui: &Ui,
) -> Result<u8, Error> {
    let chosen: Vec<&Experiment> = match which {
        None => plan.experiments.iter().collect(),
        Some(which) => vec![find(plan, which)?],
    };
    ui.out_raw(listing(settings, plan).as_bytes());
    if let Some(lanes) = lanes {
        ui.out(lanes);
    }
    if settings.place == Place::Slurm && which.is_none() {
        super::slurm::dry_run(settings, plan, environment, ui)?;
    }
    let (engine, note) = engine_command(settings, environment);
    if let Some(note) = note {
        ui.say(&note);
    }
    let container = settings.container.as_ref().filter(|_| !settings.simulated()).and_then(|_| {
        let kind = crate::telemetry::devices::detect(&host_facts::probe(settings, environment)).kind;
        contained::container(settings, environment, kind).inspect_err(|error| ui.say(&format!("note: {error}"))).ok()?
    });
    let context = ScriptContext {
        engine: &engine,
        setvars: settings.setvars.as_deref().filter(|path| container.is_none() && path.is_file()),
        port: match settings.port {
            PortChoice::Fixed(port) => port,
            PortChoice::Auto => 8000,
        },
        attempt: 1,
        variables: &[],
    };
    if context.setvars.is_none() && settings.setvars.is_some() && !settings.simulated() && container.is_none() {
        ui.say("note: oneAPI's setvars.sh is not here; where it exists, both scripts source it first");
    }
    let layout = Layout::new(settings.results_dir.join("RUN"));
    for experiment in chosen {
        let result = layout.unchecked(&experiment.name);
        let server_args = serve_args(experiment, context.port);
        let bench_args = bench_args(experiment, context.port, &result);
        let engine_of = |role, args: &[String], writes| match &container {
            Some(container) if role == Role::Server || experiment.workload.client == Client::Vllm => container
                .engine(&Purpose { role, experiment, args, writes, variables: &[], cores: &[], run: layout.root() }),
            Some(_) | None => engine.clone(),
        };
        let server = engine_of(Role::Server, &server_args, None);
        let program = engine_of(Role::Benchmark, &bench_args, result.parent()).client_of(experiment, settings.stall)?;
        let server_context = ScriptContext { engine: &server, ..context.clone() };
        let client_context = ScriptContext { engine: &program, ..context.clone() };
        let server = script(Role::Server, experiment, &server_args, &server_context);
        let client = script(Role::Benchmark, experiment, &bench_args, &client_context);
        let heading = format!("\n=== {} of {}: {}", experiment.index, plan.experiments.len(), experiment.name);
        ui.out(&ui.bold(&heading));
        let shell = if settings.login { "bash --login" } else { "bash" };
        ui.out(&format!("--- server script (run as `{shell} SCRIPT`)\n{server}"));
        ui.out(&format!("--- benchmark script (run as `{shell} SCRIPT`)\n{client}"));
    }
    Ok(exit::OK)
}

fn engine_command(settings: &Settings, environment: &Environment) -> (EngineCommand, Option<String>) {
    if settings.simulated()
        && let Ok(engine) = engine::simulated()
    {
        return (engine, None);
    }
    match engine::find(settings, environment) {
        Ok(program) => (EngineCommand { program, prefix: Vec::new() }, None),
        Err(error) => (
            EngineCommand {
                program: settings.vllm_bin.clone().unwrap_or_else(|| PathBuf::from("vllm")),
                prefix: Vec::new(),
            },
            Some(format!("note: {error}; a run would resolve it to an absolute path")),
        ),
    }
}

fn find<'p>(plan: &'p Plan, which: &str) -> Result<&'p Experiment, Error> {
    let number = which.parse::<usize>().ok();
    let found = plan.experiments.iter().find(|e| Some(e.index) == number || e.name == which);
    found.ok_or_else(|| {
        let names = || plan.experiments.iter().map(|experiment| experiment.name.as_str());
        let near: Vec<String> = names().filter(|name| name.contains(which)).take(5).map(|n| format!("`{n}`")).collect();
        let near =
            nearest(which, names()).map(|name| vec![format!("`{name}`")]).filter(|_| near.is_empty()).unwrap_or(near);
        let count = plan.experiments.len();
        Error::Usage {
            message: format!(
                "`--dry-run {}`: the plan has no such experiment; {}",
                which.escape_debug(),
                match count {
                    0 => "it is empty".to_owned(),
                    1 => "there is 1, of number 1".to_owned(),
                    _ => format!("there are {count}, from 1 to {count}"),
                }
            ),
            hint: match (number, near.as_slice()) {
                _ if is_file_name(which) => {
                    "sweep files stand before the flags: `vllm-bench run FILES --dry-run` prints all of their experiments".to_owned()
                }
                (Some(_), _) | (None, []) => {
                    "`--dry-run` alone prints all, with their numbers and names; `vllm-bench plan` lists them".to_owned()
                }
                (None, near) => format!("there is: {}", near.join(", ")),
            },
        }
    })
}

/// Whether this was meant as a sweep file rather than as the name of an experiment.
fn is_file_name(word: &str) -> bool {
    let extension = Path::new(word).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["yaml", "yml", "json", "toml"].contains(&extension)
}

/// The numbered plan, then what is skipped and why.
fn listing(settings: &Settings, plan: &Plan) -> String {
    let mut text = String::new();
    let combinations = plan.experiments.len() + plan.skips.len();
    let mark = if settings.simulated() { " (SIMULATED: the built-in simulated vLLM)" } else { "" };
    let _ = writeln!(
        text,
        "{combinations} combinations, {} experiments, {} skipped{mark}",
        plan.experiments.len(),
        plan.skips.len()
    );
    let metric = |flag: &str| settings.sweep.shown(Section::Bench, flag);
    let _ = writeln!(
        text,
        "load: {} prompts of {} tokens, {} tokens of output each, {} in flight",
        metric("num-prompts"),
        metric("random-input-len"),
        metric("random-output-len"),
        metric("max-concurrency")
    );
    let _ = writeln!(
        text,
        "limits: {} s to ready{}, {} s for the benchmark, {} without a token, {} s from SIGTERM to SIGKILL",
        settings.start_limit.limit.as_secs_f64(),
        match settings.start_limit.extends {
            true => format!(" ({} s with progress)", settings.start_limit.most().as_secs_f64()),
            false => String::new(),
        },
        settings.timeout_benchmark.as_secs_f64(),
        settings.stall.map_or("any time".to_owned(), |stall| format!("{} s", stall.as_secs_f64())),
        settings.grace.as_secs_f64()
    );
    let _ = writeln!(text, "results: {}\n", display(&settings.results_dir));
    let width = plan.experiments.len().to_string().len();
    for experiment in &plan.experiments {
        let _ = writeln!(text, "{:>width$}  {}  {}", experiment.index, experiment.identity.short(), experiment.name);
    }
    if !plan.skips.is_empty() {
        text.push('\n');
        for skip in &plan.skips {
            let _ = writeln!(text, "{}", skip.reason);
        }
        if let Some(skip) = plan.skips.first() {
            let _ = writeln!(text, "why: {}", skip.explanation.as_deref().unwrap_or(&skip.reason));
        }
    }
    text
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

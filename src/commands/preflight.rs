//! Before the first start: are all flags of all configurations known to the vLLM that is here?

use std::collections::BTreeSet;
use std::path::Path;

use crate::commands::host_facts;
use clap::CommandFactory;

use crate::cli::LoadLine;
use crate::config::{Environment, LoadLayers, Settings};
use crate::error::Error;
use crate::execute::bench_args;
use crate::model::{Client, Identity, ServerConfig};
use crate::plan::{Axis, Baseline, PROMPTS_PER_CONCURRENCY, Section, Value};
use crate::preflight::{Asked, Help, Known, Problem, Shell, ask, ranges};
use crate::releases::{self, Side};
use crate::sim::flags::{SERVE, ServeConfig};
use crate::sim::settings::SimSettings;
use crate::ui::Ui;

/// Checks the flags against the real vLLM.
///
/// # Errors
/// Every flag that it would refuse, each with its place and the nearest one that it knows.
pub fn check(settings: &Settings, environment: &Environment, program: &Path, ui: &Ui) -> Result<(), Error> {
    if !settings.preflight {
        return Ok(());
    }
    check_loads(settings, environment)?;
    match help(settings, environment, program, ui) {
        Some(help) => report(settings, &help, program, ui),
        None => Ok(()),
    }
}

/// What the real vLLM knows; `None`, and a warning, where nobody can tell.
fn help(settings: &Settings, environment: &Environment, program: &Path, ui: &Ui) -> Option<Help> {
    let cache = environment.cache_dir().join("preflight");
    let version = settings.sweep.context.vllm_version.as_deref();
    let env: Vec<(String, String)> = fixed_env(settings);
    let setvars = settings.setvars.as_deref().filter(|path| path.is_file());
    let shell = setvars.map(|setvars| Shell { setvars, login: settings.login });
    match ask(program, shell, &env, version, &cache, |text| ui.say(text)) {
        Ok(help) => Some(help),
        Err(error) => {
            // A vLLM that cannot tell its flags may still serve: the run decides.
            let recorded = version.and_then(|version| Help::recorded(version.split('+').next().unwrap_or(version)));
            match &recorded {
                Some(_) => ui.warn(&format!("{error}; the flags are checked against those recorded of this release")),
                None => ui.warn(&format!("the flags were not checked: {error}")),
            }
            recorded
        }
    }
}

/// Leaves out flags that a file's format sets by itself and that the vLLM that is here does not know.
pub fn leave_out_unknown(settings: &mut Settings, environment: &Environment, program: Option<&Path>, ui: &Ui) {
    let implied = std::mem::take(&mut settings.implied);
    let is_set = |settings: &Settings, flag: &str| {
        settings.sweep.groups.iter().any(|group| group.serve.iter().any(|axis| axis.key == flag))
    };
    if !settings.preflight || !implied.iter().any(|flag| is_set(settings, flag)) {
        return;
    }
    let help = match program {
        Some(program) => help(settings, environment, program, ui),
        // The simulated one plays 0.14.1, which knows them; of one that is not there nothing is known.
        None => None,
    };
    let Some(help) = help else { return };
    for flag in implied.into_iter().filter(|flag| !help.serve.has(flag)) {
        if is_set(settings, flag) {
            ui.warn(&format!("`--{flag}` is left out: this vLLM does not know it"));
        }
        settings.sweep.groups.iter_mut().for_each(|group| group.serve.retain(|axis| axis.key != flag));
    }
}

fn report(settings: &Settings, help: &Help, program: &Path, ui: &Ui) -> Result<(), Error> {
    let problems = problems(settings, help);
    for warning in &problems.warnings {
        ui.warn(warning);
    }
    if problems.errors.is_empty() {
        return Ok(());
    }
    Err(Error::Preflight { program: program.to_owned(), problems: problems.errors })
}

/// Checks the flags against those of vLLM 0.14.1, which the simulated vLLM plays.
///
/// # Errors
/// As [`check`].
pub fn check_simulated(settings: &Settings, environment: &Environment, ui: &Ui) -> Result<(), Error> {
    if settings.preflight {
        check_loads(settings, environment)?;
        warn_of_devices(settings, ui);
        warn_of_faults(settings, ui)?;
    }
    match Help::of_0_14_1() {
        Some(help) if settings.preflight => report(settings, &help, Path::new("the simulated vLLM 0.14.1"), ui),
        Some(_) | None => Ok(()),
    }
}

/// So many different loads are looked at before the first start.
const MOST_LOADS: usize = 1000;

/// Takes the loads of the built-in client as that will take them: what it would refuse, it refuses now.
fn check_loads(settings: &Settings, environment: &Environment) -> Result<(), Error> {
    if settings.sweep.client != Client::Builtin {
        return Ok(());
    }
    // As the client will have it.
    let environment = environment.with(&settings.secret_env);
    let mut seen = BTreeSet::new();
    for experiment in &settings.plan()?.experiments {
        if seen.len() >= MOST_LOADS || !seen.insert(Identity::of_workload(&experiment.workload).to_string()) {
            continue;
        }
        let words = bench_args(experiment, 8000, Path::new("/result.json"));
        let Ok(args) = LoadLine::read(words) else {
            // An unknown flag, which is told with its place.
            continue;
        };
        // The variables of a load are none of a run's.
        let loads = LoadLayers::read(&args.written, &[], &environment.without_settings())?.settings(&environment)?;
        if loads.points.len() != 1 || args.scenarios.is_some() {
            return Err(Error::Usage {
                message: format!("the load of `{}` is {} loads", experiment.name, loads.points.len()),
                hint: "in a sweep each load is measured and recorded by itself: write the values as a list of YAML"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Variables that have one value: vLLM's import may need them (`VLLM_TARGET_DEVICE`).
fn fixed_env(settings: &Settings) -> Vec<(String, String)> {
    let axes = settings.sweep.groups.first().map(|group| group.env.as_slice()).unwrap_or_default();
    let single = |axis: &Axis| match axis.values.as_slice() {
        [Value::Text(value)] => Some((axis.key.clone(), value.clone())),
        _ => None,
    };
    axes.iter().filter_map(single).collect()
}

/// So many values of one flag are named.
const VALUES: usize = 3;

#[derive(Default)]
struct Problems {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// One line per flag, however many values are wrong.
fn problems(settings: &Settings, help: &Help) -> Problems {
    let mut found = Problems::default();
    let mut seen = BTreeSet::new();
    let builtin = (settings.sweep.client == Client::Builtin).then(|| Known::of_command(&LoadLine::command()));
    let bench = builtin.as_ref().unwrap_or(&help.bench);
    for group in &settings.sweep.groups {
        for (section, axes, known) in
            [(Section::Serve, &group.serve, &help.serve), (Section::Bench, &group.bench, bench)]
        {
            for axis in axes.iter().filter(|axis| axis.key != "model" && axis.key != PROMPTS_PER_CONCURRENCY) {
                if seen.insert((section, axis.key.clone(), axis.values.clone())) {
                    judge(settings, section, axis, known, &mut found);
                }
            }
        }
    }
    if let Some(Baseline::Values(axes)) = &settings.sweep.baseline {
        axes.iter()
            .filter(|axis| axis.key != "model")
            .for_each(|axis| judge(settings, Section::Serve, axis, &help.serve, &mut found));
    }
    for list in [&mut found.errors, &mut found.warnings] {
        let mut told = BTreeSet::new();
        list.retain(|line| told.insert(line.clone()));
    }
    found
}

fn judge(settings: &Settings, section: Section, axis: &Axis, known: &Known, found: &mut Problems) {
    let of = |value: &Value| {
        let (flag, values) = written(&axis.key, value, section)?;
        let problem =
            known.check(&Asked { flag: &flag, values: &values }).or_else(|| out_of_range(section, &flag, &values))?;
        let place = host_facts::place(settings, section, &axis.key, &value.shown());
        Some((flag, problem, place.map(|place| format!("{place}: ")).unwrap_or_default()))
    };
    let all: Vec<_> = axis.values.iter().filter_map(of).collect();
    let Some((flag, problem, place)) = all.first() else { return };
    let command = match (section, settings.sweep.client) {
        (Section::Bench, Client::Builtin) => "vllm-bench load",
        (Section::Bench, Client::Vllm) => "vllm bench serve",
        _ => "vllm serve",
    };
    let what = match problem {
        Problem::WrongChoice { choices, .. } if all.len() > 1 => {
            let wrong = all.iter().filter_map(|(_, problem, _)| match problem {
                Problem::WrongChoice { value, .. } => Some(format!("`{value}`")),
                _ => None,
            });
            let values: Vec<String> = wrong.take(VALUES).collect();
            let more = all.len().saturating_sub(VALUES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("does not take {}{more} (it takes {})", values.join(", "), choices.join(", "))
        }
        Problem::Unknown { .. } => {
            let side = if section == Section::Bench { Side::Bench } else { Side::Serve };
            match releases::became(side, flag) {
                Some(became) => format!("is not known: {became}"),
                None => problem.to_string(),
            }
        }
        problem => problem.to_string(),
    };
    let text = format!("{place}`--{flag}` of `{command}` {what}");
    if problem.is_warning() {
        found.warnings.push(text);
    } else {
        found.errors.push(text);
    }
}

/// A number that no release of vLLM takes there.
fn out_of_range(section: Section, flag: &str, values: &[String]) -> Option<Problem> {
    let expected = |value: &String| match section {
        Section::Serve => ranges::of_serve(flag, value),
        Section::Bench => ranges::of_bench(flag, value),
        Section::Env => None,
    };
    values.iter().find_map(|value| Some(Problem::OutOfRange { value: value.clone(), expected: expected(value)? }))
}

/// Checks what is known of every release, where no vLLM is at hand: whether numbers are in range.
///
/// # Errors
/// Every number that is not.
pub fn check_without_vllm(settings: &Settings) -> Result<(), Error> {
    if !settings.preflight {
        return Ok(());
    }
    let mut errors: Vec<String> = Vec::new();
    for group in &settings.sweep.groups {
        for (section, axes) in [(Section::Serve, &group.serve), (Section::Bench, &group.bench)] {
            for (axis, value) in axes.iter().flat_map(|axis| axis.values.iter().map(move |value| (axis, value))) {
                let Some((flag, values)) = written(&axis.key, value, section) else { continue };
                let Some(problem) = out_of_range(section, &flag, &values) else { continue };
                let place = host_facts::place(settings, section, &axis.key, &value.shown());
                let line =
                    format!("{}`--{flag}` {problem}", place.map(|place| format!("{place}: ")).unwrap_or_default());
                if !errors.contains(&line) {
                    errors.push(line);
                }
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::Preflight { program: Path::new("vLLM, in every release that is known").to_owned(), problems: errors })
}

/// Warns of configurations that need more devices than the simulated machine has: they fail there, as they would on a real one.
fn warn_of_devices(settings: &Settings, ui: &Ui) {
    let there = simulation(settings).devices;
    let too_many: BTreeSet<u32> = settings.sweep.tensor_parallel_sizes().into_iter().filter(|tp| *tp > there).collect();
    if !too_many.is_empty() {
        let sizes: Vec<String> = too_many.iter().map(u32::to_string).collect();
        ui.warn(&format!(
            "tensor-parallel-size {} is more than the {there} devices of the simulated machine: these experiments will fail; \
             `--sim-devices` gives it more",
            sizes.join(", ")
        ));
    }
}

fn simulation(settings: &Settings) -> SimSettings {
    let variable =
        |name: &str| settings.simulation.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    SimSettings::from_lookup(variable).unwrap_or_default()
}

/// A fault whose conditions no server of the plan meets would never strike.
fn warn_of_faults(settings: &Settings, ui: &Ui) -> Result<(), Error> {
    let faults = simulation(settings).faults;
    if faults.iter().all(|fault| fault.only_if.is_empty()) {
        return Ok(());
    }
    let plan = settings.plan()?;
    let mut servers: Vec<&ServerConfig> = plan.experiments.iter().map(|experiment| &experiment.server).collect();
    servers.dedup();
    let server = |server: &ServerConfig| {
        let words: Vec<String> = std::iter::once(server.model.clone()).chain(server.flags.to_args()).collect();
        SERVE.parse(&words).ok().map(ServeConfig::new)
    };
    let servers: Vec<ServeConfig> = servers.into_iter().filter_map(server).collect();
    for fault in faults.iter().filter(|fault| !servers.iter().any(|server| fault.applies(1, |key| server.flag(key)))) {
        let conditions: Vec<String> = fault.only_if.iter().map(|(key, value)| format!("{key}={value}")).collect();
        ui.warn(&format!(
            "`--sim-fault`: no server of this sweep has `{}`: the fault never strikes",
            conditions.join(",")
        ));
    }
    Ok(())
}

/// The flag and its values as they would be written.
fn written(key: &str, value: &Value, section: Section) -> Option<(String, Vec<String>)> {
    let (name, value) = value.flag(key, section)?;
    Some(match value {
        crate::model::FlagValue::Switch(_) => (name, Vec::new()),
        crate::model::FlagValue::Text(text) => (name, vec![text]),
        crate::model::FlagValue::List(words) => (name, words),
    })
}

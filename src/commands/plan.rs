//! `vllm-bench plan`: what a sweep would measure, and what that costs. Combinations are looked at one by one, so that
//! a million of them can be listed.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use super::run::{Lanes, engine, idle_flags};
use super::{choice, preflight};
use crate::cli::PlanArgs;
use crate::commands::{format, host_facts, query_args};
use crate::config::{Environment, Place, Preset, Settings};
use crate::error::Error;
use crate::exit;
use crate::model::{Experiment, Identity, Skip};
use crate::plan::{Baseline, Candidate, Counts, Judgement, Selection, expand};
use crate::ui::Ui;

/// So many lines are shown without `--all`.
const LINES: usize = 200;
/// Plans up to this size are made whole: then the order, the names and the numbers shown are those of the run.
pub const WHOLE: u64 = 10_000;
/// Above so many combinations it is said that they are being counted.
const LONG: u64 = 500_000;

/// Runs `plan`.
///
/// # Errors
/// When a file, variable or flag is wrong, or vLLM does not know a flag.
pub fn run(args: &PlanArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    query_args::no_other_run("plan", &args.run)?;
    let mut settings = Settings::resolve(&args.run, environment, Preset::Full)?;
    query_args::check_slo(&settings)?;
    choice::check_objective(&settings, ui)?;
    for note in settings.notes.iter().chain(&settings.warnings) {
        ui.warn(note);
    }
    let found = (!settings.simulated()).then(|| engine::find(&settings, environment).ok());
    let program = found.flatten();
    host_facts::gather(&mut settings, environment, program.as_deref());
    preflight::leave_out_unknown(&mut settings, environment, program.as_deref(), ui);
    let counts = count(&settings, ui)?;
    match (&program, settings.simulated()) {
        (Some(program), false) => preflight::check(&settings, environment, program, ui)?,
        (None, false) => {
            preflight::check_without_vllm(&settings)?;
            ui.say("note: no vLLM here: its version is not part of the identities, and no name of a flag was checked");
        }
        (_, true) => preflight::check_simulated(&settings, environment, ui)?,
    }
    if args.output.is_json() {
        return print_json(&settings, &counts, ui);
    }
    ui.out_raw(summary(&settings, &counts).as_bytes());
    ui.out_raw(super::estimate::text(&settings, &counts).as_bytes());
    idle_flags(&settings, false).iter().for_each(|idle| ui.warn(idle));
    if counts.distinct <= WHOLE && settings.place == Place::Local {
        match Lanes::of(&settings, &settings.plan()?, environment) {
            Ok(lanes) => lanes.iter().for_each(|lanes| ui.out(&lanes.outline(&settings))),
            // It may run on another machine.
            Err(error) => ui.warn(&format!("on this machine `run` refuses it: {error}")),
        }
    }
    ui.out("");
    if counts.distinct <= WHOLE {
        list_plan(&settings, args.all, ui);
    } else {
        list_lazily(&settings, args.all, ui);
    }
    Ok(exit::OK)
}

/// Counts a sweep and warns of rules that match nothing.
///
/// # Errors
/// When nothing is left to measure.
pub fn count(settings: &Settings, ui: &Ui) -> Result<Counts, Error> {
    let selection = Selection::new(&settings.sweep);
    if selection.size() > LONG {
        ui.say(&format!("{} are looked at one by one: this takes a while", many(selection.size(), "combination")));
    }
    let mut counts = selection.count();
    if matches!(settings.sweep.baseline, Some(Baseline::Values(_) | Baseline::VllmDefaults)) && counts.distinct <= WHOLE
    {
        add_baseline(settings, &mut counts);
    }
    for warning in host_facts::idle_rules(settings, &counts.idle) {
        ui.warn(&warning);
    }
    if counts.kept == 0 {
        // Says which rule leaves everything out.
        settings.plan()?;
    }
    Ok(counts)
}

/// Counts what the baseline adds to the combinations.
fn add_baseline(settings: &Settings, counts: &mut Counts) {
    let plan = expand(&settings.sweep);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let settings_of = |e: &Experiment| (e.identity.clone(), Identity::of_server(e.engine, &e.server, &plan.context));
    let (distinct, servers): (HashSet<Identity>, HashSet<Identity>) = plan.experiments.iter().map(settings_of).unzip();
    let added = count(distinct.len()).saturating_sub(counts.distinct);
    counts.kept += added;
    counts.distinct += added;
    counts.measurements = count(plan.experiments.len());
    counts.servers = count(servers.len());
    let starts = u64::from(settings.sweep.repeats.starts);
    counts.starts = if settings.sweep.reuse { counts.servers * starts } else { counts.measurements };
}

/// The size of a sweep in a few lines.
pub fn summary(settings: &Settings, counts: &Counts) -> String {
    let at_most = if settings.sweep.repeats.auto { "at most " } else { "" };
    let most = |count, noun| format!("{at_most}{}", many(count, noun));
    let mark = if settings.simulated() { " (SIMULATED: the built-in simulated vLLM)" } else { "" };
    let left_out: u64 = counts.left_out.values().sum();
    let mut text = format!(
        "{}, {}, {left_out} skipped{mark}\n",
        many(counts.combinations, "combination"),
        most(counts.measurements, "experiment")
    );
    for (rule, count) in &counts.left_out {
        text += &format!("  {count} left out by `{rule}`\n");
    }
    if counts.kept > counts.distinct {
        let shared = counts.kept - counts.distinct;
        text += &format!(
            "  {} distinct settings: {shared} are asked for more than once, measured once and listed in each group\n",
            counts.distinct
        );
    }
    let repeats = settings.sweep.repeats;
    if repeats.runs > 1 || repeats.starts > 1 {
        let starts = match repeats.until_decided() {
            Some(until) => format!("{} to {} fresh starts, until it is decided", until.first, until.max),
            None => format::count(repeats.starts as usize, "fresh start"),
        };
        text +=
            &format!("  {} settings x {starts} x {}\n", counts.distinct, format::count(repeats.runs as usize, "run"));
    }
    text +=
        &format!("  {} for {}\n", most(counts.starts, "server start"), many(counts.servers, "server configuration"));
    text
}

fn many(count: u64, noun: &str) -> String {
    format::count(usize::try_from(count).unwrap_or(usize::MAX), noun)
}

fn list_plan(settings: &Settings, all: bool, ui: &Ui) {
    let plan = expand(&settings.sweep);
    let width = plan.experiments.len().to_string().len();
    let shown = if all { plan.experiments.len() } else { LINES };
    for experiment in plan.experiments.iter().take(shown) {
        let baseline = if experiment.baseline { "  (baseline)" } else { "" };
        let groups =
            if experiment.groups.is_empty() { String::new() } else { format!("  [{}]", experiment.groups.join(", ")) };
        ui.out(&format!(
            "{:>width$}  {}  {}{groups}{baseline}",
            experiment.index,
            experiment.identity.short(),
            experiment.name
        ));
    }
    more(plan.experiments.len().saturating_sub(shown), ui);
    let skips = if all { plan.skips.len() } else { LINES };
    if !plan.skips.is_empty() {
        ui.out("");
    }
    plan.skips.iter().take(skips).for_each(|skip| ui.out(&skip.reason));
    more(plan.skips.len().saturating_sub(skips), ui);
    let mut told: Vec<&Skip> = Vec::new();
    for skip in &plan.skips {
        if let Some(explanation) = &skip.explanation
            && !told.iter().any(|known| known.rule == skip.rule)
        {
            ui.out(&format!("why {}: {explanation}", skip.rule));
            told.push(skip);
        }
    }
}

/// One line per kept combination, in the order of the file, without making more than one at a time.
fn list_lazily(settings: &Settings, all: bool, ui: &Ui) {
    let selection = Selection::new(&settings.sweep);
    let kept = selection.iter().filter(|candidate| selection.judge(*candidate) == Judgement::Kept);
    let shown = if all { usize::MAX } else { LINES };
    let mut lines = String::new();
    let mut rest = 0usize;
    for (i, candidate) in kept.enumerate() {
        if i >= shown {
            rest += 1;
            continue;
        }
        lines += &format!("{:>8}  {}\n", i + 1, selection.shown(candidate));
        if lines.len() > 1 << 16 {
            ui.out_raw(lines.as_bytes());
            lines.clear();
        }
    }
    ui.out_raw(lines.as_bytes());
    more(rest, ui);
}

fn more(rest: usize, ui: &Ui) {
    if rest > 0 {
        ui.out(&format!("… and {rest} more (`--all` shows them)"));
    }
}

fn print_json(settings: &Settings, counts: &Counts, ui: &Ui) -> Result<u8, Error> {
    let head = json!({
        "simulated": settings.simulated(),
        "combinations": counts.combinations,
        "experiments": counts.measurements,
        "distinct_settings": counts.distinct,
        "server_configurations": counts.servers,
        "server_starts": counts.starts,
        "left_out": counts.left_out,
    });
    let mut whole = head;
    if counts.distinct <= WHOLE {
        let plan = serde_json::to_value(expand(&settings.sweep)).map_err(std::io::Error::from)?;
        whole["plan"] = plan;
    } else {
        whole["plan"] = Json::Null;
    }
    ui.out(&serde_json::to_string_pretty(&whole).map_err(std::io::Error::from)?);
    Ok(exit::OK)
}

impl Selection<'_> {
    /// One combination in a line.
    fn shown(&self, candidate: Candidate) -> String {
        self.axes(candidate).to_string()
    }
}

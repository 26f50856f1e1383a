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
use crate::fold::fold;
use crate::model::{Experiment, Identity, Plan, Skip};
use crate::plan::{Axis, Baseline, Candidate, Counts, Judgement, Selection, Value, expand};
use crate::report::{Style, words_table};
use crate::ui::Ui;

/// So many groups have a table of their own.
const GROUPS: usize = 8;
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
    put(&summary(&settings, &counts), ui);
    put(&super::estimate::text(&settings, &counts), ui);
    idle_flags(&settings, false).iter().for_each(|idle| ui.warn(idle));
    if counts.distinct <= WHOLE && settings.place == Place::Local {
        match Lanes::of(&settings, &settings.plan()?, environment) {
            Ok(lanes) => lanes.iter().for_each(|lanes| put(&lanes.outline(&settings), ui)),
            // It may run on another machine.
            Err(error) => ui.warn(&format!("on this machine `run` refuses it: {error}")),
        }
    }
    put(&axes(&settings, super::analyze::style_of(ui)), ui);
    let plan = (counts.distinct <= WHOLE).then(|| expand(&settings.sweep));
    match (&plan, args.all) {
        (Some(plan), true) => list_plan(plan, ui),
        (None, true) => list_lazily(&settings, ui),
        (_, false) => ui.out(&format!("`--all` lists {}, `--json` has all of it", many_experiments(&counts))),
    }
    plan.iter().for_each(|plan| say_why(plan, ui));
    Ok(exit::OK)
}

/// Lines that end between words where a terminal shows them.
fn put(text: &str, ui: &Ui) {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let folded = ui.display.columns_out.map(|columns| fold(text, columns));
    ui.out(folded.as_deref().unwrap_or(text));
}

fn many_experiments(counts: &Counts) -> String {
    match counts.measurements {
        1 => "the experiment".to_owned(),
        more => format!("the {}", many(more, "experiment")),
    }
}

/// What varies in each group of a sweep, as a table, and what has one value.
fn axes(settings: &Settings, style: Style) -> String {
    let groups = &settings.sweep.groups;
    let mut text = String::new();
    for group in groups.iter().take(GROUPS) {
        let name = group.name.as_deref().filter(|_| groups.len() > 1);
        text += &name.map_or_else(|| "\n".to_owned(), |name| format!("\ngroup `{name}`\n"));
        let of = |what: &'static str, axes: &'_ [Axis]| {
            axes.iter().map(move |axis| (what, axis.clone())).collect::<Vec<_>>()
        };
        let all = [of(SERVER, &group.serve), of(VARIABLE, &group.env), of(WORKLOAD, &group.bench)].concat();
        let (vary, fixed): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, axis)| axis.values.len() > 1);
        let cells = |(of, axis): &(&str, Axis)| {
            let values: Vec<String> = axis.values.iter().map(|value| format::plain(&value.shown())).collect();
            vec![axis.key.clone(), values.len().to_string(), values.join(", "), (*of).to_owned()]
        };
        if !vary.is_empty() {
            text += &words_table(&["Varies", "N", "Values", "Of"], vary.iter().map(cells), style);
        }
        let set = fixed.iter().filter(|(_, axis)| axis.values.first() != Some(&Value::Omitted));
        let fixed: Vec<String> = set
            .filter_map(|(_, axis)| match axis.values.first()? {
                Value::Switch(true) => Some(axis.key.clone()),
                value => Some(format!("{} {}", axis.key, format::plain(&value.shown()))),
            })
            .collect();
        if !fixed.is_empty() {
            text += &format!("  same for all: {}\n", fixed.join(", "));
        }
    }
    if let Some(more @ 1..) = groups.len().checked_sub(GROUPS) {
        text += &format!("\nand {more} more groups: `--json` has them\n");
    }
    text + "\n"
}

/// What an axis is of.
const SERVER: &str = "server";
/// What an axis is of.
const VARIABLE: &str = "server's environment";
/// What an axis is of.
const WORKLOAD: &str = "workload";

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

fn list_plan(plan: &Plan, ui: &Ui) {
    let width = plan.experiments.len().to_string().len();
    for experiment in &plan.experiments {
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
    if !plan.skips.is_empty() {
        ui.out("");
    }
    plan.skips.iter().for_each(|skip| ui.out(&skip.reason));
}

/// What stands behind each rule that leaves something out.
fn say_why(plan: &Plan, ui: &Ui) {
    let mut told: Vec<&Skip> = Vec::new();
    for skip in &plan.skips {
        if let Some(explanation) = &skip.explanation
            && !told.iter().any(|known| known.rule == skip.rule)
        {
            put(&format!("why {}: {explanation}", skip.rule), ui);
            told.push(skip);
        }
    }
}

/// One line per kept combination, in the order of the file, without making more than one at a time.
fn list_lazily(settings: &Settings, ui: &Ui) {
    let selection = Selection::new(&settings.sweep);
    let kept = selection.iter().filter(|candidate| selection.judge(*candidate) == Judgement::Kept);
    let mut lines = String::new();
    for (i, candidate) in kept.enumerate() {
        lines += &format!("{:>8}  {}\n", i + 1, selection.shown(candidate));
        if lines.len() > 1 << 16 {
            ui.out_raw(lines.as_bytes());
            lines.clear();
        }
    }
    ui.out_raw(lines.as_bytes());
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

//! `compare`: is the second run better or worse than the first, and how sure is that?

use std::path::{Path, PathBuf};

use super::run::resume::drivers;
use super::{analyze, asked, locate};
use crate::analyse::{Noise, RunTable, compare, nearest_difference, noise_of};
use crate::cli::{CompareArgs, CompareFormat};
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::record::{Manifest, RunDir};
use crate::report::{self, Style, load_run};
use crate::ui::Ui;

/// Compares two runs. Exit code 1 when a figure became worse by more than the threshold and beyond noise.
///
/// # Errors
/// When a run cannot be found or read, or a flag is wrong.
pub fn run(args: &CompareArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let threshold = percent("--threshold", args.threshold.as_deref().unwrap_or("3%"))?;
    let figures = asked::figures(&args.figures)?;
    let (before, after) = (table(&args.before, args, environment)?, table(&args.after, args, environment)?);
    let noise = match &args.noise {
        Some(run) => noise_of(&table(run, args, environment)?, &figures),
        None => Noise::new(),
    };
    let ignore = asked::ignored(&args.ignore, [&before, &after])?;
    let comparison = compare(&before, &after, &figures, threshold, &noise, &ignore);
    if comparison.matched.is_empty() && comparison.failing.is_empty() {
        return Err(nothing_in_common(&before, &after));
    }
    let environment = report::compare::differences(&before.facts, &after.facts, machines(&before, &after));
    let tables = (&before, &after);
    match args.format.unwrap_or_default() {
        CompareFormat::Text => {
            let style = if ui.display.color_out { Style::COLOR } else { Style::PLAIN };
            ui.out_raw(report::compare::text(&comparison, tables, &environment, threshold, style).as_bytes());
        }
        CompareFormat::Markdown => {
            ui.out_raw(report::compare::markdown(&comparison, tables, &environment, threshold).as_bytes())
        }
        CompareFormat::Json => {
            ui.out(&format!("{:#}", report::compare::json(&comparison, tables, &environment, threshold)))
        }
    }
    let damage = analyze::tell_damage(&before, ui).max(analyze::tell_damage(&after, ui));
    Ok(if comparison.has_worse() { exit::EXPERIMENT_FAILED } else { damage })
}

/// Says in which settings the most alike configurations of two runs differ.
fn nothing_in_common(before: &RunTable, after: &RunTable) -> Error {
    const SHOWN: usize = 4;
    let differ = nearest_difference(before, after);
    let word = |(key, [a, b]): &(String, [String; 2])| format!("{key} ({} and {})", report::clean(a), report::clean(b));
    let mut words: Vec<String> = differ.iter().take(SHOWN).map(word).collect();
    if let Some(more @ 1..) = differ.len().checked_sub(SHOWN) {
        words.push(format!("and {more} more"));
    }
    let keys: Vec<&str> = differ.iter().take(SHOWN).map(|(key, _)| key.as_str()).collect();
    Error::Nothing {
        message: format!("`{}` and `{}` have no configuration in common", before.facts.run, after.facts.run),
        hint: match differ.is_empty() {
            true => "their flags, variables and workloads are the same: the client (`--client`), the engine or the seed of the \
                simulation differs; `--ignore client` compares them all the same"
                .into(),
            false => format!(
                "the most alike differ in {}; `--ignore {}` compares them all the same",
                words.join(", "),
                keys.join(",")
            ),
        },
    }
}

/// `3%`, `0.03`.
pub(super) fn percent(flag: &str, text: &str) -> Result<f64, Error> {
    let number = match text.trim().strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|number| number / 100.0),
        None => text.trim().parse::<f64>(),
    };
    number.ok().filter(|number| (0.0..1.0).contains(number)).ok_or_else(|| Error::Usage {
        message: format!(
            "invalid value `{}` for `{flag}`: expected a part below 1, such as `3%` or `0.03`",
            text.escape_debug()
        ),
        hint: format!("write `{flag} 3%`"),
    })
}

/// A run by its path or name.
fn table(run: &Path, args: &CompareArgs, environment: &Environment) -> Result<RunTable, Error> {
    let path: PathBuf = match locate::find(Some(run), args.results_dir.as_deref(), environment) {
        Ok(found) => found.run.path().to_owned(),
        Err(error) => {
            let path = environment.absolute(run);
            if path.is_dir() { path } else { return Err(error) }
        }
    };
    Ok(load_run(&path)?)
}

/// What the manifests say of the machines, as (what, before, after).
fn machines(before: &RunTable, after: &RunTable) -> Vec<(String, String, String)> {
    let manifest = |table: &RunTable| RunDir::open(&table.facts.directory).ok()?.manifest().ok();
    let (Some(a), Some(b)) = (manifest(before), manifest(after)) else { return Vec::new() };
    let facts = |manifest: &Manifest| -> Vec<(&'static str, String)> {
        let (host, devices) = (&manifest.host, &manifest.devices);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let names: Vec<String> = devices.devices.iter().map(|device| device.name.clone().unwrap_or_default()).collect();
        vec![
            ("host", text(&host.hostname)),
            ("kernel", text(&host.kernel)),
            ("operating system", text(&host.os)),
            ("processor", text(&host.cpu_model)),
            ("processors", number(host.logical_cpus.map(f64::from))),
            ("processors of the container", number(host.cgroup_cpus)),
            ("kind of devices", format!("{:?}", devices.kind).to_lowercase()),
            ("devices", format!("{} ({})", devices.slots, names.join(", "))),
            ("driver of the devices", drivers(devices)),
            ("version of vllm-bench", manifest.vllm_bench.clone()),
        ]
    };
    let pairs = facts(&a).into_iter().zip(facts(&b));
    let mut all: Vec<_> = pairs.map(|((what, before), (_, after))| (what.to_owned(), before, after)).collect();
    // A snapshot that one of the runs did not know is no difference that anybody saw.
    let weights =
        b.plan.context.differences(&a.plan.context).into_iter().filter(|(what, ..)| what.starts_with("the model"));
    all.extend(weights.map(|(what, before, after)| (format!("the snapshot of {what}"), before, after)));
    all
}

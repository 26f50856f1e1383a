//! `compare`: is the second run better or worse than the first, and how sure is that?

use std::path::{Path, PathBuf};

use super::analyze::{self, print};
use super::dashboard::push;
use super::format::percent;
use super::run::resume::drivers;
use crate::analyse::{Noise, RunTable, compare, nearest_difference, noise_of};
use crate::cli::CompareArgs;
use crate::commands::{find_run, query_args};
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::model::Metric;
use crate::record::{Manifest, RunDir};
use crate::report;
use crate::report::export::{Compared, differences};
use crate::results::read_run;
use crate::telemetry::NOT_ASKED;
use crate::ui::Ui;

/// The change that matters where nobody says otherwise.
pub(super) const THRESHOLD: f64 = 0.03;

/// Compares two runs. Exit code 1 when a metric became worse by more than the threshold and beyond noise, or a configuration fails now.
///
/// # Errors
/// When a run cannot be found or read, or a flag is wrong.
pub fn run(args: &CompareArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let gateway = args.pushgateway.as_deref().map(query_args::gateway).transpose()?;
    let threshold = args.threshold.as_deref().map_or(Ok(THRESHOLD), |text| percent("--threshold", text))?;
    let metrics = query_args::metrics(&args.metrics)?;
    let first = table(&args.before, args, environment)?;
    let whole = first.facts.run.clone();
    let [before, after] = match &args.after {
        Some(after) => [first, table(after, args, environment)?],
        None => sides(first)?,
    };
    refuse_simulated_beside_real(["the run before", "the run after"], [&before, &after])?;
    let noise = match &args.noise {
        Some(run) => {
            let of = table(run, args, environment)?;
            refuse_simulated_beside_real(["the run of `--noise`", "the run after"], [&of, &after])?;
            noise(run, &of, &metrics)?
        }
        None => Noise::new(),
    };
    let pairing = query_args::pairing(&args.ignore, &args.match_on, [&before, &after])?;
    let comparison = compare(&before, &after, &metrics, threshold, &noise, &pairing);
    if comparison.matched.is_empty() && comparison.failing.is_empty() {
        return Err(nothing_in_common(&before, &after));
    }
    let environment = match &args.after {
        Some(_) => differences(&before, &after, machines(&before, &after)),
        None => differences(&before, &after, changed(&before, &after)),
    };
    let compared = Compared {
        comparison,
        tables: (&before, &after),
        environment: &environment,
        threshold,
        in_turn: args.after.is_none(),
    };
    print(args.format().exporter(), &compared, ui)?;
    if let Some(gateway) = gateway {
        let [before, after] =
            if args.after.is_some() { [&before, &after].map(|of| of.facts.run.as_str()) } else { ["before", &whole] };
        let change = push::change_of(&compared.comparison, before);
        if let Err(why) = push::comparison(&gateway, after, &change) {
            ui.warn(&format!("the Pushgateway at {} does not take the comparison: {why}", gateway.shown()));
        }
    }
    let damage = analyze::tell_damage(&before, ui).max(analyze::tell_damage(&after, ui));
    Ok(if compared.comparison.has_worse() { exit::EXPERIMENT_FAILED } else { damage })
}

/// The two sides of a run that was measured with `--against`.
fn sides(table: RunTable) -> Result<[RunTable; 2], Error> {
    table.sides().ok_or_else(|| Error::Usage {
        message: format!("`{}` has one side alone: two runs are compared", report::clean(&table.facts.run)),
        hint: "name the run after as well; `vllm-bench run --against RUN` measures both sides in one run".into(),
    })
}

/// In which settings the two sides of a run differ, as (what, before, after).
fn changed(before: &RunTable, after: &RunTable) -> Vec<(String, String, String)> {
    nearest_difference(before, after).into_iter().map(|(key, [then, now])| (key, then, now)).collect()
}

/// A timing model and a measurement are not alike: there is no verdict where one side is simulated and the other is not.
fn refuse_simulated_beside_real(which: [&str; 2], tables: [&RunTable; 2]) -> Result<(), Error> {
    let (simulated, real) = match tables.map(RunTable::is_all_simulated) {
        [true, false] => (0, 1),
        [false, true] => (1, 0),
        [true, true] | [false, false] => return Ok(()),
    };
    let name = |side: usize| format!("{}, `{}`,", which[side], report::clean(&tables[side].facts.run));
    Err(Error::Nothing {
        message: format!("no verdict: {} is simulated, and {} was measured", name(simulated), name(real)),
        hint: "a timing model gave the metrics of one, and they say nothing of the other: compare two runs on real vLLM, or two with \
               `--engine sim`"
            .into(),
    })
}

/// What a run says of noise.
fn noise(path: &Path, table: &RunTable, metrics: &[Metric]) -> Result<Noise, Error> {
    let noise = noise_of(table, metrics);
    if noise.is_empty() {
        return Err(Error::Nothing {
            message: format!(
                "`{}` says nothing of noise: no configuration in it has these metrics of two server starts",
                path.display()
            ),
            hint: "`vllm-bench run --noise-check 5` measures one configuration on five starts".into(),
        });
    }
    Ok(noise)
}

/// Says why two runs have nothing to compare: what was not measured, or the settings in which their most alike configurations differ.
fn nothing_in_common(before: &RunTable, after: &RunTable) -> Error {
    const SHOWN: usize = 4;
    for table in [before, after] {
        if !table.rows.iter().any(|row| row.is_valid()) {
            return Error::Nothing {
                message: format!("`{}` has no valid result to compare", report::clean(&table.facts.run)),
                hint: format!("`vllm-bench status {}` says what became of it", report::clean(&table.facts.run)),
            };
        }
    }
    let differ = nearest_difference(before, after);
    let word = |(key, [a, b]): &(String, [String; 2])| {
        format!("{} ({} and {})", report::clean(key), report::clean(a), report::clean(b))
    };
    let mut words: Vec<String> = differ.iter().take(SHOWN).map(word).collect();
    if let Some(more @ 1..) = differ.len().checked_sub(SHOWN) {
        words.push(format!("and {more} more"));
    }
    let keys: Vec<String> = differ.iter().take(SHOWN).map(|(key, _)| report::clean(key)).collect();
    let versions = |table: &RunTable| table.facts.vllm_versions.join(", ");
    let (then, now) = (versions(before), versions(after));
    let releases = if then == now || then.is_empty() || now.is_empty() {
        String::new()
    } else {
        format!(" (vLLM differs too, {then} and {now}, which keeps nothing from being compared)")
    };
    Error::Nothing {
        message: format!(
            "`{}` and `{}` have no configuration in common",
            report::clean(&before.facts.run),
            report::clean(&after.facts.run)
        ),
        hint: match differ.is_empty() {
            true => format!(
                "all that their results say of their settings is the same: a variable that is a secret may differ; `--match model` \
                 compares them all the same{releases}"
            ),
            false => format!(
                "the most alike differ in {}; `--ignore {}` compares them all the same{releases}",
                words.join(", "),
                keys.join(",")
            ),
        },
    }
}

/// A run by its path or name.
fn table(run: &Path, args: &CompareArgs, environment: &Environment) -> Result<RunTable, Error> {
    let path: PathBuf = match find_run::find(Some(run), args.results_dir.as_deref(), environment) {
        Ok(found) => found.run.path().to_owned(),
        Err(error) => {
            let path = environment.absolute(run);
            if path.is_dir() { path } else { return Err(error) }
        }
    };
    Ok(read_run(&path)?)
}

/// What the manifests say of the machines, as (what, before, after).
fn machines(before: &RunTable, after: &RunTable) -> Vec<(String, String, String)> {
    let manifest = |table: &RunTable| RunDir::open(&table.facts.directory).ok()?.manifest().ok();
    let (Some(a), Some(b)) = (manifest(before), manifest(after)) else { return Vec::new() };
    let are_named = [&a, &b].iter().all(|run| are_devices_named(run));
    let pairs = machine(&a, are_named).into_iter().zip(machine(&b, are_named));
    let mut all: Vec<_> = pairs.map(|((what, before), (_, after))| (what.to_owned(), before, after)).collect();
    // A snapshot that one of the runs did not know is no difference that anybody saw.
    let weights =
        b.plan.context.differences(&a.plan.context).into_iter().filter(|(what, ..)| what.starts_with("the model"));
    all.extend(weights.map(|(what, before, after)| (format!("the snapshot of {what}"), before, after)));
    all
}

/// What the machine's devices are called among the facts of [`machine`].
pub(super) const DEVICES: &str = "devices";

/// Whether a manifest names the devices: where the tool was not asked, another source names the same ones otherwise.
pub(super) fn are_devices_named(manifest: &Manifest) -> bool {
    !manifest.devices.sources.iter().any(|source| source == NOT_ASKED)
}

/// What a manifest says of the machine: what, and its value; empty where it does not say it. Devices and their drivers by name, or their number
/// alone.
pub(super) fn machine(manifest: &Manifest, are_named: bool) -> Vec<(&'static str, String)> {
    let (host, devices) = (&manifest.host, &manifest.devices);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let names = devices.devices.iter().map(|device| device.name.clone().unwrap_or_default());
    let names: Vec<String> = names.filter(|_| are_named).collect();
    vec![
        ("host", text(&host.hostname)),
        ("kernel", text(&host.kernel)),
        ("operating system", text(&host.os)),
        ("processor", text(&host.cpu_model)),
        ("processors", number(host.logical_cpus.map(f64::from))),
        ("processors of the container", number(host.cgroup_cpus)),
        ("kind of devices", format!("{:?}", devices.kind).to_lowercase()),
        (DEVICES, format!("{} ({})", devices.slots, names.join(", "))),
        ("driver of the devices", if are_named { drivers(devices) } else { String::new() }),
        ("version of vllm-bench", manifest.vllm_bench.clone()),
    ]
}

//! `history`: the runs of a results directory in the order of time, and what became of a configuration's metric. Reads only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local, NaiveDateTime, TimeZone, Utc};

use super::analyze::print;
use super::compare::{DEVICES, are_devices_named, machine};
use super::{find_run, format, query_args};
use crate::analyse::{
    Facts, Measured, Origin, Past, RankingSpec, RunTable, SNAPSHOT_OF, Search, Trend, ambiguous_in, trends,
};
use crate::cli::HistoryArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::model::Metric;
use crate::nearest::nearest;
use crate::record::{RunDir, atomic};
use crate::report::export::{Drawing, History, PLOT, PlotExporter, in_memory, whole_file};
use crate::report::plot::{self, Size};
use crate::report::{self, clean};
use crate::results::{Dated, dated, read_dated, read_run};
use crate::ui::Ui;

/// Trends that are shown where no configuration is named, and where one is.
const SHOWN: usize = 4;
const SHOWN_WHERE_NAMED: usize = 12;
/// Pixels of a PNG per CSS pixel.
const SCALE: f64 = 2.0;

/// Shows the runs, or trends over them. Exit code 0 whatever became of a metric; 3 when there is no run, or none on a trend that is asked for;
/// 5 when the record of a run is damaged.
///
/// # Errors
/// When a flag is wrong, there is nothing to show, or a file cannot be written.
pub fn run(args: &HistoryArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let metric = args.metric.as_deref().map(|key| query_args::metric("--metric", key)).transpose()?;
    let last = last(args.last.as_deref())?;
    let plot =
        args.plot.as_deref().map(|file| Ok::<_, Error>((environment.absolute(file), drawn_as(file)?))).transpose()?;
    let asked = args.metric.is_some() || !args.config.is_empty() || !args.ignore.is_empty();
    let conditions = conditions(&args.config)?;
    let named = args.directory.as_deref().or(args.results_dir.as_deref());
    if let Some(file) = named.map(|named| environment.absolute(named)).filter(|named| named.is_file()) {
        return Err(Error::Usage {
            message: format!("`{}` is a file: `history` is of a results directory", file.display()),
            hint: "name the directory; `vllm-bench analyze FILE` shows one result".into(),
        });
    }
    let dirs = find_run::results_dirs(named, environment);
    let mut all = Vec::new();
    for dir in &dirs {
        all.extend(dated(dir)?);
    }
    let metric = match metric {
        Some((metric, _)) => metric,
        None => usual(&all),
    };
    let mut runs = read(&all, &metric);
    if runs.is_empty() {
        return Err(find_run::no_run(&dirs, environment));
    }
    let older = runs.len().saturating_sub(last);
    runs.drain(..older);
    let asked_for = Asked { conditions, ignore: ignored(&args.ignore, &runs)? };
    asked_for.check(&runs)?;
    let found = trends(&runs, &metric, &asked_for.ignore, |of| asked_for.is_met(of), &mut Search::default());
    let (found, others) = shown(found, asked, !args.config.is_empty());
    if found.is_empty() && (asked || plot.is_some()) {
        return Err(nothing(&runs, &metric));
    }
    let place = dirs.iter().map(|dir| format::path(dir, environment.working_directory())).collect::<Vec<_>>();
    let place = format!("{} in {}", format::count(runs.len(), "run"), place.join(" and "));
    let history = History { place, runs: &runs, metric: &metric, trends: found, others, asked };
    if let Some((file, format)) = &plot {
        draw(&history, file, *format, ui)?;
    }
    match args.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => {
            let path = environment.absolute(output);
            whole_file(args.format().exporter(), &history, |content| atomic::write_with(&path, content))?;
            ui.say(&format!("written: {}", path.display()));
        }
        None => print(args.format().exporter(), &history, ui)?,
    }
    Ok(tell_damage(&runs, ui))
}

/// The number of `--last`.
fn last(text: Option<&str>) -> Result<usize, Error> {
    let Some(text) = text else { return Ok(usize::MAX) };
    text.trim().parse().ok().filter(|last| *last > 0).ok_or_else(|| Error::Usage {
        message: format!("invalid value `{}` for `--last`: expected a whole number of at least 1", text.escape_debug()),
        hint: "such as `--last 30`; leave it out for all runs".into(),
    })
}

/// The format of a plot by the name of its file.
fn drawn_as(file: &Path) -> Result<&'static PlotExporter, Error> {
    let ending = file.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    PLOT.into_iter().find(|format| format.format().ending() == ending).ok_or_else(|| Error::Usage {
        message: format!(
            "invalid value `{}` for `--plot`: expected a file that ends in `.svg` or `.png`",
            file.display()
        ),
        hint: "such as `--plot history.svg`".into(),
    })
}

/// A condition of `--config`.
enum Condition {
    /// A setting has this value.
    Setting(String, String),
    /// It is called so.
    Name(String),
}

/// The conditions of `--config`: settings between commas, or the name of a configuration.
fn conditions(values: &[String]) -> Result<Vec<Condition>, Error> {
    let wrong = |text: &str| Error::Usage {
        message: format!(
            "invalid value `{}` for `--config`: expected KEY=VALUE, or the name of an experiment",
            text.escape_debug()
        ),
        hint: "such as `--config tp=2,max-num-seqs=64`".into(),
    };
    let mut found = Vec::new();
    for value in values {
        let parts = query_args::parts(value).into_iter().map(str::trim).filter(|part| !part.is_empty());
        let before = found.len();
        for part in parts {
            found.push(match part.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => match key.trim() {
                    "name" => Condition::Name(value.trim().to_owned()),
                    key => Condition::Setting(query_args::setting_key(key), value.trim().to_owned()),
                },
                Some(_) => return Err(wrong(part)),
                None => Condition::Name(part.to_owned()),
            });
        }
        if found.len() == before {
            return Err(wrong(value));
        }
    }
    Ok(found)
}

/// What trends are asked for.
struct Asked {
    conditions: Vec<Condition>,
    ignore: Vec<String>,
}

/// The value of a setting of a configuration.
fn setting(of: &Measured, key: &str) -> Option<String> {
    of.settings.get(key).cloned().or_else(|| of.row.setting(key).map(std::borrow::Cow::into_owned))
}

/// Whether two values are the same: as texts, or as numbers.
#[expect(clippy::float_cmp, reason = "what is written in another way is the very same number")]
fn same(a: &str, b: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    a == b || number(a).zip(number(b)).is_some_and(|(a, b)| a == b)
}

impl Condition {
    fn is_met(&self, of: &Measured) -> bool {
        match self {
            Self::Setting(key, value) => setting(of, key).is_some_and(|found| same(&found, value)),
            Self::Name(name) => of.names.contains(name),
        }
    }
}

impl Asked {
    fn is_met(&self, of: &Measured) -> bool {
        self.conditions.iter().all(|condition| condition.is_met(of))
    }

    /// Refuses conditions that nothing meets, with what is near, and settings that tell configurations of one run apart.
    fn check(&self, runs: &[Past]) -> Result<(), Error> {
        let measured: Vec<&Measured> = runs.iter().flat_map(|run| &run.measured).collect();
        let unmet = |condition: &&Condition| !measured.iter().any(|of| condition.is_met(of));
        if let Some(condition) = self.conditions.iter().find(unmet).filter(|_| !measured.is_empty()) {
            return Err(unknown(condition, &measured));
        }
        if !measured.is_empty() && !measured.iter().any(|of| self.is_met(of)) {
            return Err(Error::Usage {
                message: "no configuration has all of the settings of `--config`".into(),
                hint: "leave one out; `vllm-bench history --json` has the settings of each trend".into(),
            });
        }
        match ambiguous_in(runs, &self.ignore, |of| self.is_met(of)) {
            None => Ok(()),
            Some((run, [first, second])) => Err(Error::Usage {
                message: format!(
                    "`--ignore {}` makes two configurations of the run `{}` the same: {} and {}",
                    self.ignore.join(","),
                    clean(&run.facts.run),
                    clean(first),
                    clean(second)
                ),
                hint:
                    "say with `--config` which of them is meant, or ignore only settings that each run has one value of"
                        .into(),
            }),
        }
    }
}

/// The error for a condition that nothing meets.
fn unknown(condition: &Condition, measured: &[&Measured]) -> Error {
    let wrong = |why: String, known: BTreeSet<String>, word: &str| Error::Usage {
        message: format!("invalid value for `--config`: {why}"),
        hint: match nearest(word, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{}`?", clean(near)),
            None => format!("there is: {}", query_args::some_of(&known.iter().cloned().collect::<Vec<_>>())),
        },
    };
    match condition {
        Condition::Name(name) => {
            let known = measured.iter().flat_map(|of| of.names.clone()).collect();
            wrong(format!("no experiment is called `{}`", name.escape_debug()), known, name)
        }
        Condition::Setting(key, value) => {
            let values: BTreeSet<String> = measured.iter().filter_map(|of| setting(of, key)).collect();
            if values.is_empty() {
                let known = measured.iter().flat_map(|of| of.settings.keys().cloned()).collect();
                return wrong(format!("no run has a setting `{}`", key.escape_debug()), known, key);
            }
            wrong(format!("no configuration has {key} `{}`", value.escape_debug()), values, value)
        }
    }
}

/// The settings of `--ignore`: of the server alone, as a trend is of one workload, one model and one engine.
fn ignored(values: &[String], runs: &[Past]) -> Result<Vec<String>, Error> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let measured = || runs.iter().flat_map(|run| &run.measured);
    let known: BTreeSet<String> = measured().flat_map(|of| of.settings.keys().cloned()).collect();
    let keys = query_args::setting_keys("--ignore", values, &known)?;
    let of_workload = |key: &&String| {
        ["model", "engine", "client"].contains(&key.as_str())
            || measured().any(|of| of.row.load.0.contains_key(*key) && !of.row.about.flags.contains_key(*key))
            || measured().any(|of| of.row.axes.workload.iter().any(|(axis, _)| axis == *key))
    };
    match keys.iter().find(of_workload) {
        None => Ok(keys),
        Some(key) => Err(Error::Usage {
            message: format!(
                "`--ignore {}` would mix what cannot be compared: a trend is of one model, workload and engine",
                clean(key)
            ),
            hint: "ignore settings of the server alone".into(),
        }),
    }
}

/// The metric where none is named: the objective of the newest run.
fn usual(all: &[Dated]) -> Metric {
    let newest = all.iter().rev().filter_map(|dated| match dated {
        Dated::Folder(path) => read_run(path).ok(),
        Dated::File(..) => None,
    });
    let wanted = newest.map(|table| RankingSpec::of(&table)).next().unwrap_or_default();
    // The key of an objective is that of a metric.
    Metric::of(&wanted.rank_by).unwrap_or_else(|| Metric {
        key: wanted.rank_by.clone(),
        label: wanted.rank_by,
        unit: crate::model::Unit::Ratio,
        better: Some(wanted.better),
    })
}

/// Reads all runs, in the order of time.
fn read(all: &[Dated], metric: &Metric) -> Vec<Past> {
    let one = |dated: &Dated, table: Result<RunTable, String>| match table {
        Ok(table) => {
            let mut past = Past::of(table, metric);
            past.machine = machine_of(&dated.path());
            past
        }
        Err(why) => {
            let facts = Facts::bare(dated.path(), dated.name(), Origin::Predecessor);
            let mut past = Past::unreadable(facts, why.clone());
            past.facts.damaged.push(why);
            past
        }
    };
    let mut runs: Vec<(Option<DateTime<Utc>>, PathBuf, Past)> = read_dated(all, one)
        .into_iter()
        .zip(all)
        .filter_map(|(past, dated)| past.map(|past| (instant(&past, dated), dated.path(), past)))
        .collect();
    runs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    runs.into_iter().map(|(.., past)| past).collect()
}

/// When a run began; what other programs write is in the zone of this machine.
fn instant(past: &Past, dated: &Dated) -> Option<DateTime<Utc>> {
    let of_text = past.facts.created.as_deref().and_then(|text| {
        let naive = || {
            ["%Y%m%d-%H%M%S", "%Y%m%d_%H%M"].into_iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        };
        let local = || Local.from_local_datetime(&naive()?).earliest().map(|at| at.with_timezone(&Utc));
        DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc)).or_else(local)
    });
    let of_run = || RunDir::at(&dated.path()).and_then(|run| run.created());
    let of_file = || std::fs::metadata(dated.path()).ok()?.modified().ok().map(DateTime::<Utc>::from);
    of_text.or_else(of_run).or_else(of_file)
}

/// What the manifest of a run says of its machine, and of the snapshots of its models.
fn machine_of(path: &Path) -> Vec<(String, String)> {
    let Some(manifest) = RunDir::at(path).and_then(|run| run.manifest().ok()) else { return Vec::new() };
    let named = are_devices_named(&manifest);
    let facts = machine(&manifest, named).into_iter().filter(|(what, _)| named || *what != DEVICES);
    let snapshots =
        manifest.plan.context.models.iter().map(|(model, commit)| (format!("{SNAPSHOT_OF}{model}"), commit.clone()));
    facts.map(|(what, value)| (what.to_owned(), value)).chain(snapshots).collect()
}

/// The trends that are shown, and how many are not. A trend of one run is shown where it is asked for.
fn shown(mut all: Vec<Trend<'_>>, asked: bool, is_named: bool) -> (Vec<Trend<'_>>, usize) {
    let most = all.first().map_or(0, |first| first.points.len());
    if most < 2 && !asked {
        return (Vec::new(), 0);
    }
    let count = match is_named {
        true => SHOWN_WHERE_NAMED,
        false => all.iter().take_while(|of| of.points.len() == most).count().min(SHOWN),
    };
    let others = all.len().saturating_sub(count);
    all.truncate(count);
    (all, others)
}

/// The error where there is no trend.
fn nothing(runs: &[Past], metric: &Metric) -> Error {
    if runs.iter().all(|run| run.measured.is_empty()) {
        return Error::Nothing {
            message: "no run has a valid result".into(),
            hint: "`vllm-bench history` without flags says what came of each".into(),
        };
    }
    let excluded = runs.iter().flat_map(|run| &run.measured).find_map(|of| of.excluded.as_ref());
    Error::Nothing {
        message: format!("no result that counts has `{}`", metric.key),
        hint: match excluded {
            Some(why) => format!("results are excluded: {}", clean(why)),
            None => "name another with `--metric`; docs/analysis.md has all".into(),
        },
    }
}

/// Draws the trends into a file.
fn draw(history: &History<'_>, file: &Path, format: &PlotExporter, ui: &Ui) -> Result<(), Error> {
    let Some(plot) = plot::over_runs(&history.trends) else { return Ok(()) };
    let drawing = Drawing { plot: &plot, size: Size::default(), scale: SCALE };
    atomic::write(file, &in_memory(format, &drawing, report::Style::PLAIN)?)?;
    ui.say(&format!("written: {}", file.display()));
    Ok(())
}

/// Names on standard error the runs whose record is damaged; the exit code that it means.
fn tell_damage(runs: &[Past], ui: &Ui) -> u8 {
    let damaged: Vec<&Past> = runs.iter().filter(|run| !run.facts.damaged.is_empty()).collect();
    for run in &damaged {
        ui.warn(&format!("{} is on no trend: {}", clean(&run.facts.run), clean(&run.facts.damaged.join("; "))));
    }
    if damaged.is_empty() { exit::OK } else { exit::RECORD }
}

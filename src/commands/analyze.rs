//! `analyze`, and the analysis at the end of every run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::analyse::{Assumptions, Counts, OPTIMIZED, Origin, RunTable, derive};
use crate::cli::AnalyzeArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::record::layout::Layout;
use crate::record::{atomic, layout};
use crate::report::export::{
    Analysis, AnalysisExporter, DatatroveTree, Exporter, Files, Format, Sink, in_memory, whole_file,
};
use crate::report::{Ended, Style, Written, end, on_screen, render, write_all};
use crate::results::{add_server_logs, read_run, read_runs};
use crate::ui::Ui;

use super::choice;
use crate::commands::{find_run, format, query_args};

/// Refuses flags that have no effect with a format, rather than let the user believe that they did.
fn refuse_idle(format: Format, args: &AnalyzeArgs) -> Result<(), Error> {
    let others = [
        ("--detail", args.detail),
        ("--group-by", !args.group_by.is_empty()),
        ("--baseline", !args.against.baseline.is_empty()),
        ("--prices", args.cost.prices.is_some()),
        ("--devices-per-node", args.cost.devices_per_node.is_some()),
    ];
    let given = args.choice.given().into_iter().chain(others).filter(|(_, given)| *given);
    match given.map(|(flag, _)| flag).find(|flag| format.ignores.contains(flag)) {
        None => Ok(()),
        Some(flag) => Err(Error::Usage {
            message: format!("`{flag}` has no effect with `--format {}`", format.name),
            hint: "leave it out, or take another format".into(),
        }),
    }
}

/// What the answer is written with.
fn exporter(args: &AnalyzeArgs) -> Result<&'static AnalysisExporter, Error> {
    let exporter = args.format().exporter();
    if args.layout.is_none() {
        return Ok(exporter);
    }
    if exporter.format().name != DatatroveTree.format().name || args.output.is_none() {
        return Err(Error::Usage {
            message: "`--layout datatrove` is about the files of `--format datatrove`, in a directory".into(),
            hint: "add `--format datatrove --output DIR`".into(),
        });
    }
    Ok(&DatatroveTree)
}

/// Analyses runs, writes their reports beside the one run that is its own, or where the user says, and prints the answer. Exit
/// code 0 when every experiment has a valid result, 1 when one has not or a result file is broken, 3 when there is nothing to analyse.
///
/// # Errors
/// When a run cannot be read, a report cannot be written, or a flag is wrong.
pub fn run(args: &AnalyzeArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let exporter = exporter(args)?;
    let format = exporter.format();
    refuse_idle(format, args)?;
    let assumed = query_args::assumptions(&args.cost, environment)?;
    let wanted = choice::of_flags(&args.choice)?;
    let mut table = table(&args.runs, args.results_dir.as_deref(), environment)?;
    let keys = query_args::group_keys(&args.group_by, &table)?;
    let renamed = query_args::baseline(&args.against.baseline, &mut table, ui)?;
    prepare(&mut table, &assumed, renamed, args.detail || format.needs_server_logs, ui);
    let wanted = choice::of_runs(wanted, &args.choice, &table, ui)?;
    let asked = !keys.is_empty() || args.choice.given().iter().any(|(_, given)| *given);
    let analysis = Analysis::by(&table, keys, wanted);
    let output = args.output.as_deref().map(|path| environment.absolute(path));
    match (&output, format.files) {
        (_, Files::Several) => several(exporter, &analysis, output.as_deref(), ui)?,
        (Some(output), Files::One(ending)) => {
            let path = file_in(output, ending);
            whole_file(exporter, &analysis, |content| atomic::write_with(&path, content))?;
            ui.say(&format!("written: {}", path.display()));
        }
        // Reports belong beside a run of its own; several, and files of others, are left as they are.
        (None, Files::One(_)) if args.is_default() && is_own(&table) => {
            // What stands there is the answer to what the run asks, not to what the user asks today.
            let of_run = asked.then(|| Analysis::of(&table));
            write_beside(of_run.as_ref().unwrap_or(&analysis), &analysis, ui)?;
        }
        (None, Files::One(_)) => print(exporter, &analysis, ui)?,
    }
    let code = code(&table, ui);
    // The process ends: to free a hundred thousand rows one by one first would only take time.
    std::mem::forget(analysis);
    std::mem::forget(table);
    Ok(code)
}

/// Writes a format to standard output.
///
/// # Errors
/// Those of the format.
pub(super) fn print<A: ?Sized>(exporter: &dyn Exporter<A>, answer: &A, ui: &Ui) -> Result<(), Error> {
    ui.out_raw(&in_memory(exporter, answer, style_of(ui))?);
    Ok(())
}

/// Whether it is one run, with reports of its own.
fn is_own(table: &RunTable) -> bool {
    let of_files = matches!(table.facts.origin, Origin::Files(_));
    table.more.is_empty() && !of_files && table.facts.directory.is_dir()
}

pub(super) fn style_of(ui: &Ui) -> Style {
    Style::of(ui.display.color_out, ui.display.columns_out)
}

/// What the flags add to a table.
fn prepare(table: &mut RunTable, assumed: &Assumptions, renamed: bool, logs: bool, ui: &Ui) {
    if logs {
        add_server_logs(table);
    }
    // The metrics that need nothing of the user are there already.
    if renamed || logs || *assumed != Assumptions::default() {
        derive(table, assumed);
    }
    if assumed.prices.as_ref().is_some_and(|prices| prices.default.is_some() || !prices.devices.is_empty()) {
        let without: std::collections::BTreeSet<String> = table
            .rows
            .iter()
            .filter(|row| row.metric(OPTIMIZED).is_some() && row.metric("cost_per_1m_output_tokens").is_none())
            .map(|row| row.about.device.as_deref().unwrap_or("an unknown device").to_owned())
            .collect();
        for device in without {
            ui.warn(&format!("the price file has no price for {device}, and no `default`: its rows have no cost"));
        }
    }
}

/// The file to write: the one named, or one of ours in a directory that is there.
fn file_in(output: &Path, ending: &str) -> PathBuf {
    if output.is_dir() { output.join(format!("{}.{ending}", layout::ANALYSIS_STEM)) } else { output.to_owned() }
}

/// Prints the tables of a format that is several files, and writes these into the directory that the user names.
fn several(exporter: &AnalysisExporter, analysis: &Analysis<'_>, output: Option<&Path>, ui: &Ui) -> Result<(), Error> {
    if let Some(file) = output.filter(|output| output.exists() && !output.is_dir()) {
        return Err(Error::Usage {
            message: format!(
                "`--output {}` is a file: `--format {}` writes several",
                file.display(),
                exporter.format().name
            ),
            hint: "name a directory; it is made where there is none".into(),
        });
    }
    let mut tables = Vec::new();
    let mut sink = Sink::new(&mut tables, Style::PLAIN).into_directory(output);
    exporter.write(analysis, &mut sink)?;
    let written = sink.written();
    ui.out_raw(&tables);
    match output {
        Some(directory) => {
            ui.say(&format!("in {}:", directory.display()));
            for path in written.iter().take(NAMED) {
                ui.say(&format!("  {}", path.strip_prefix(directory).unwrap_or(path).display()));
            }
            if let Some(more @ 1..) = written.len().checked_sub(NAMED) {
                ui.say(&format!("  and {more} more"));
            }
        }
        None => ui.say("`--output DIR` writes the files of it"),
    }
    Ok(())
}

/// So many files are named one by one.
const NAMED: usize = 40;

/// The sources named as one table; else the newest run. A directory without manifests may be one of the Python predecessor's.
///
/// # Errors
/// When there is none, or one cannot be read.
pub(super) fn table(
    runs: &[PathBuf],
    results_dir: Option<&Path>,
    environment: &Environment,
) -> Result<RunTable, Error> {
    match runs {
        [] => Ok(read_run(&target(None, results_dir, environment)?)?),
        [only] => Ok(read_run(&target(Some(only), results_dir, environment)?)?),
        several => {
            let found = several.iter().map(|run| target(Some(run), results_dir, environment));
            let paths = found.collect::<Result<Vec<PathBuf>, Error>>()?;
            if let Some(twice) = paths.iter().enumerate().find(|(i, path)| paths[..*i].contains(path)) {
                return Err(Error::Usage {
                    message: format!("`{}` is named twice", twice.1.display()),
                    hint: "its measurements would count as repeats of themselves: name each run once".into(),
                });
            }
            Ok(read_runs(&paths)?)
        }
    }
}

/// The run named, else the newest; what has no manifest may come from another program.
///
/// # Errors
/// When there is none.
pub(super) fn target(
    run: Option<&Path>,
    results_dir: Option<&Path>,
    environment: &Environment,
) -> Result<PathBuf, Error> {
    // A directory without folders holds no run of ours: it need not be looked through for one first.
    let flat = run.map(|path| environment.absolute(path)).filter(|path| has_no_folders(path));
    if let Some(flat) = flat {
        return Ok(flat);
    }
    // It writes beside what it reads: never in a live run of another directory that the user did not name.
    let found = match (run, results_dir) {
        (None, None) => find_run::find_here(environment),
        (run, results_dir) => find_run::find(run, results_dir, environment),
    };
    match found {
        Ok(found) => Ok(found.run.path().to_owned()),
        Err(error) => {
            let named = run.or(results_dir).map(|path| environment.absolute(path));
            let defaults = find_run::results_dirs(None, environment);
            // A file is named on purpose, whatever it is; a directory may also be a default.
            let foreign = |path: &PathBuf| path.is_dir() || (run.is_some() && path.exists());
            let candidates = if named.is_some() { named.into_iter().collect() } else { defaults };
            candidates.into_iter().find(foreign).ok_or_else(|| match (run, error) {
                (Some(run), Error::NotFound { nearest, .. }) => {
                    find_run::no_source(run, &find_run::results_dirs(results_dir, environment), nearest, environment)
                }
                (_, error) => error,
            })
        }
    }
}

/// Whether a path is a directory that has no folder, and is no run of ours, as far as its file system counts them.
fn has_no_folders(path: &Path) -> bool {
    let links = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|metadata| metadata.nlink());
    links == Some(2) && !path.join(layout::MANIFEST).exists()
}

/// Analyses the run that this process has just ended, while it still holds the lock: the reports beside it, and what of them a screen
/// shows. Returns the exit code that its results mean.
///
/// # Errors
/// As [`run`].
pub fn analyse_ended(run: &Path, interrupted: bool, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let mut table = read_run(run)?;
    table.facts.live = false;
    let analysis = Analysis::of(&table);
    write_all(run, &analysis)?;
    let here = environment.working_directory();
    let ended = Ended {
        run: &run.strip_prefix(here).unwrap_or(run).to_string_lossy(),
        directory: &format::path(run, here),
        interrupted,
        skips_kept: Layout::new(run).skipped().is_file(),
    };
    ui.out_raw(end(&analysis, ended, style_of(ui)).as_bytes());
    Ok(code(&table, ui))
}

/// Writes the reports beside the run, and prints what the user asks.
fn write_beside<'t>(of_run: &Analysis<'t>, asked: &Analysis<'t>, ui: &Ui) -> Result<(), Error> {
    let directory = &of_run.table.facts.directory;
    let Written { paths, analysis } = write_all(directory, of_run)?;
    let style = style_of(ui);
    let shown = if style == Style::PLAIN && std::ptr::eq(of_run, asked) { analysis } else { render(asked, style) };
    ui.out_raw(on_screen(&shown).as_bytes());
    ui.say(&format!("reports in {}:", directory.display()));
    for path in &paths {
        ui.say(&format!("  {}", path.file_name().unwrap_or_default().to_string_lossy()));
    }
    Ok(())
}

fn code(table: &RunTable, ui: &Ui) -> u8 {
    match tell_damage(table, ui) {
        exit::OK if Counts::of(&table.rows).without_result() + table.lost() > 0 => exit::EXPERIMENT_FAILED,
        code => code,
    }
}

/// Names on standard error what of the records is damaged; the exit code that it means.
pub(super) fn tell_damage(table: &RunTable, ui: &Ui) -> u8 {
    let damaged = table.damaged();
    damaged.iter().for_each(|what| ui.warn(what));
    if damaged.is_empty() { exit::OK } else { exit::RECORD }
}

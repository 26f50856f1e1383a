//! `report`: a run as one HTML page.

use std::path::{Path, PathBuf};

use super::analyze::{self, print};
use super::choice;
use crate::analyse::{Assumptions, RunTable, derive};
use crate::cli::ReportArgs;
use crate::commands::query_args;
use crate::config::Environment;
use crate::error::Error;
use crate::record::{atomic, layout};
use crate::report::export::{Analysis, Html, whole_file};
use crate::results::read_runs;
use crate::ui::Ui;

/// Writes the page. Exit code 0 whatever came of the experiments: the page says it.
///
/// # Errors
/// When a run cannot be found or read, a flag is wrong, or the page cannot be written.
pub fn run(args: &ReportArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let wanted = choice::of_flags(&args.choice)?;
    if args.runs.len() > 1 && args.output.is_none() {
        return Err(Error::Usage {
            message: "a page over several runs belongs into none of them: `--output` is missing".into(),
            hint: format!("such as `--output {}`, or `--output -` for standard output", layout::REPORT),
        });
    }
    let runs = targets(args, environment)?;
    let mut table = read_runs(&runs)?;
    if query_args::baseline(&args.against.baseline, &mut table, ui)? {
        derive(&mut table, &Assumptions::default());
    }
    let wanted = choice::of_runs(wanted, &args.choice, &table, ui)?;
    let mut analysis = Analysis::by(&table, Vec::new(), wanted);
    analysis.title.clone_from(&args.title);
    let path = match args.output.as_deref() {
        Some(path) if path == Path::new("-") => {
            print(&Html, &analysis, ui)?;
            return Ok(analyze::tell_damage(&table, ui));
        }
        Some(path) => file(&environment.absolute(path), &table),
        None => table.facts.directory.join(layout::REPORT),
    };
    whole_file(&Html, &analysis, |content| match args.output {
        Some(_) => atomic::write_with(&path, content),
        None => atomic::keep_again_with(&path, content),
    })?;
    ui.say("the page, to be opened in a browser:");
    ui.out(&path.display().to_string());
    Ok(analyze::tell_damage(&table, ui))
}

/// A folder that is there gets a file of the usual name.
fn file(path: &Path, table: &RunTable) -> PathBuf {
    let named =
        if table.more.is_empty() { format!("{}-{}", table.facts.run, layout::REPORT) } else { layout::REPORT.into() };
    if path.is_dir() { path.join(named) } else { path.to_owned() }
}

fn targets(args: &ReportArgs, environment: &Environment) -> Result<Vec<PathBuf>, Error> {
    let results_dir = args.results_dir.as_deref();
    if args.runs.is_empty() {
        return Ok(vec![analyze::target(None, results_dir, environment)?]);
    }
    args.runs.iter().map(|run| analyze::target(Some(run), results_dir, environment)).collect()
}

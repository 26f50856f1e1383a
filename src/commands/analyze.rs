//! `analyze`, and the analysis at the end of every run.

use std::path::{Path, PathBuf};

use crate::analyse::{Counts, RunTable};
use crate::cli::AnalyzeArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::{Style, load_run, render_text, write_all};
use crate::ui::Ui;

use super::locate;

/// Analyses a run, writes its reports beside it and prints the answer. Exit code 0 when every experiment has a valid
/// result, 1 when one has not or a result file is broken, 3 when there is nothing to analyse.
///
/// # Errors
/// When the run cannot be read or the reports cannot be written.
pub fn run(args: &AnalyzeArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    analyse(load_run(&target(args.run.as_deref(), args.results_dir.as_deref(), environment)?)?, ui)
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
    let foreign = |path: PathBuf| path.exists().then_some(path);
    // It writes beside what it reads: never in a live run of another directory that the user did not name.
    let found = match (run, results_dir) {
        (None, None) => locate::find_here(environment),
        (run, results_dir) => locate::find(run, results_dir, environment),
    };
    match found {
        Ok(found) => Ok(found.run.path().to_owned()),
        Err(error) => {
            let named = run.or(results_dir).map(|path| environment.absolute(path));
            let defaults = locate::results_dirs(None, environment);
            let candidates = if named.is_some() { named.into_iter().collect() } else { defaults };
            candidates.into_iter().find_map(foreign).ok_or(error)
        }
    }
}

/// Analyses the run that this process has just ended, while it still holds the lock. Returns the exit code that its
/// results mean.
///
/// # Errors
/// As [`run`].
pub fn analyse_ended(run: &Path, ui: &Ui) -> Result<u8, Error> {
    let mut table = load_run(run)?;
    table.facts.live = false;
    let code = analyse(table, ui)?;
    ui.say("`vllm-bench report` makes one page of it: table, plots, recommendation");
    Ok(code)
}

fn analyse(table: RunTable, ui: &Ui) -> Result<u8, Error> {
    let directory = table.facts.directory.clone();
    let written: Vec<PathBuf> = write_all(&directory, &table)?;
    let style = if ui.display.color_out { Style::COLOR } else { Style::PLAIN };
    ui.out_raw(render_text(&table, style).as_bytes());
    ui.say(&format!("reports in {}:", directory.display()));
    for path in &written {
        ui.say(&format!("  {}", path.file_name().unwrap_or_default().to_string_lossy()));
    }
    let without = Counts::of(&table.rows).without_result() + table.lost();
    Ok(if without > 0 { exit::EXPERIMENT_FAILED } else { exit::OK })
}

//! `analyze`, and the analysis at the end of every run.

use std::path::{Path, PathBuf};

use crate::analyse::Counts;
use crate::cli::AnalyzeArgs;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::report::{Style, load_run, render_text, write_all};
use crate::ui::Ui;

/// Analyses a run, writes its reports beside it and prints the answer. Exit code 0 when every experiment has a valid
/// result, 1 when one has not, 3 when there is nothing to analyse.
///
/// # Errors
/// When the run cannot be read or the reports cannot be written.
pub fn run(args: &AnalyzeArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let path = super::locate::run_to_show(args.run.as_deref(), args.results_dir.as_deref(), environment)?;
    analyse_run(&path, ui)
}

/// Analyses one run directory. Returns the exit code that its results mean.
///
/// # Errors
/// When the run cannot be read or the reports cannot be written.
pub fn analyse_run(run: &Path, ui: &Ui) -> Result<u8, Error> {
    let table = load_run(run)?;
    let directory = table.facts.directory.clone();
    let written: Vec<PathBuf> = write_all(&directory, &table)?;
    let style = if ui.display.color_out { Style::COLOR } else { Style::PLAIN };
    ui.out_raw(render_text(&table, style).as_bytes());
    ui.say(&format!("reports in {}:", directory.display()));
    for path in &written {
        ui.say(&format!("  {}", path.file_name().unwrap_or_default().to_string_lossy()));
    }
    let without = Counts::of(&table.rows).without_result();
    Ok(if without > 0 { exit::EXPERIMENT_FAILED } else { exit::OK })
}

//! `vllm-bench plan`: what a sweep would measure.

use crate::cli::PlanArgs;
use crate::config::{Environment, Preset, Settings};
use crate::error::Error;
use crate::exit;
use crate::ui::Ui;

/// Runs `plan`.
///
/// # Errors
/// When a file, variable or flag is wrong.
pub fn run(args: &PlanArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let settings = Settings::resolve(&args.run, environment, Preset::Full)?;
    for note in settings.notes.iter().chain(&settings.warnings) {
        ui.warn(note);
    }
    let plan = settings.plan()?;
    ui.out(&format!("{} experiments, {} left out", plan.experiments.len(), plan.skipped()));
    Ok(exit::OK)
}

//! `analyze`, and the analysis at the end of every run.

use std::path::Path;

use crate::error::Error;
use crate::ui::Ui;

/// Analyses a run directory, writes its reports and prints the answer.
///
/// # Errors
/// When the run cannot be read or the reports cannot be written.
pub fn analyse_run(_run: &Path, _ui: &Ui) -> Result<(), Error> {
    Ok(())
}

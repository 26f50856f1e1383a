//! `vllm-bench config`: the settings in effect, and the schema of sweep files.

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::commands::query_args;
use crate::config::{Environment, Preset, Settings, language, show};
use crate::error::Error;
use crate::exit;
use crate::ui::Ui;

/// Runs `config`.
///
/// # Errors
/// When a file, variable or flag is wrong.
pub fn run(args: &ConfigArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    match &args.command {
        ConfigCommand::Show(args) => {
            let settings = Settings::resolve(args, environment, Preset::Full)?;
            query_args::check_slo(&settings)?;
            for note in settings.notes.iter().chain(&settings.warnings) {
                ui.warn(note);
            }
            ui.out(show(&settings).trim_end());
        }
        ConfigCommand::Schema => ui.out(language::schema::text().trim_end()),
    }
    Ok(exit::OK)
}

//! `vllm-bench config`: the settings in effect, and the schema of sweep files.

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::commands::query_args;
use crate::config::{Environment, LoadLayers, Preset, Settings, language, show, show_load};
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
            query_args::no_other_run("config show", args)?;
            let settings = Settings::resolve(args, environment, Preset::Full)?;
            query_args::check_slo(&settings)?;
            for note in settings.notes.iter().chain(&settings.warnings) {
                ui.warn(note);
            }
            ui.out(show(&settings).trim_end());
        }
        ConfigCommand::Load(args) => {
            let layers = LoadLayers::read(&args.written, &args.files, environment)?;
            // What cannot be used is refused, and secrets are known.
            layers.settings(environment)?;
            layers.notes.iter().for_each(|note| ui.warn(note));
            ui.out(show_load(&layers.tree()).trim_end());
        }
        ConfigCommand::Schema => ui.out(language::schema::text().trim_end()),
    }
    Ok(exit::OK)
}

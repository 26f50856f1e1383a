//! One short file per subcommand: settings -> stages -> exit code.

pub mod analyze;
pub mod check;
pub mod diagnose;
pub mod run;

use crate::cli::{Cli, Command};
use crate::config::{Environment, Preset};
use crate::error::Error;
use crate::ui::Ui;

/// Runs the subcommand and returns its exit code.
///
/// # Errors
/// When the tool itself fails; a failed experiment is an exit code.
pub async fn dispatch(cli: &Cli, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    match &cli.command {
        Command::Run(args) => run::run(args, environment, Preset::Full, ui).await,
        Command::Sanity(args) => run::run(args, environment, Preset::Sanity, ui).await,
        Command::Check(args) => check::run(args, environment, ui).await,
        Command::Diagnose(args) => diagnose::run(args, environment, ui),
        _ => Ok(0),
    }
}

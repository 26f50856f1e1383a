//! One file per subcommand: settings -> stages -> exit code.

pub mod analyze;
pub mod backup;
pub mod check;
mod choice;
pub mod clean;
mod cluster;
pub mod compare;
pub mod completions;
pub mod config;
pub mod dashboard;
pub mod diagnose;
mod estimate;
pub mod export;
pub mod find_run;
#[cfg(test)]
mod fixture;
mod format;
pub mod history;
mod host_facts;
pub mod list;
pub mod load;
pub mod logs;
pub mod plan;
pub mod plot;
mod preflight;
pub mod prompts;
mod query_args;
pub mod rank;
pub mod recommend;
mod render;
pub mod report;
pub mod run;
pub mod status;
pub mod stop;
mod tail;
mod tracking;

use crate::cli::{Cli, Command};
use crate::config::{Environment, Preset};
use crate::error::Error;
use crate::exit;
use crate::ui::Ui;

/// Runs the subcommand of `cli` to its end and returns the exit code.
///
/// The runtime is made here and not in `main`: what is polled in the library is compiled with it, once.
pub fn run(cli: &Cli, environment: &Environment, ui: &Ui) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.error(&error.into());
            return exit::BUG;
        }
    };
    let code = runtime.block_on(dispatch(cli, environment, ui)).unwrap_or_else(|error| {
        ui.error(&error);
        error.exit_code()
    });
    let code = match ui.finish() {
        Err(error) if code == exit::OK => {
            ui.error(&error);
            error.exit_code()
        }
        Ok(()) | Err(_) => code,
    };
    // A thread that still reads standard input must not keep the program.
    runtime.shutdown_background();
    code
}

/// Runs the subcommand and returns its exit code.
///
/// # Errors
/// When the tool itself fails; a failed experiment is an exit code.
async fn dispatch(cli: &Cli, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    match &cli.command {
        Command::Run(args) => run::run(args, environment, Preset::Full, ui).await,
        Command::Sanity(args) => run::run(args, environment, Preset::Sanity, ui).await,
        Command::Config(args) => config::run(args, environment, ui),
        Command::Plan(args) => plan::run(args, environment, ui),
        Command::List(args) => list::run(args, environment, ui),
        Command::Status(args) => status::run(args, environment, ui).await,
        Command::Dashboard(args) => dashboard::run(args, environment, ui).await,
        Command::Stop(args) => stop::run(args, environment, ui).await,
        Command::Logs(args) => logs::run(args, environment, ui).await,
        Command::Check(args) => check::run(args, environment, ui).await,
        Command::Analyze(args) => analyze::run(args, environment, ui),
        Command::Compare(args) => compare::run(args, environment, ui),
        Command::History(args) => history::run(args, environment, ui),
        Command::Recommend(args) => recommend::run(args, environment, ui),
        Command::Plot(args) => plot::run(args, environment, ui),
        Command::Report(args) => report::run(args, environment, ui),
        Command::Export(args) => export::run(args, environment, ui).await,
        Command::Backup(args) => backup::run(args, environment, ui).await,
        Command::Clean(args) => clean::run(args, environment, ui),
        Command::Load(args) => load::run(args, environment, ui).await,
        Command::Prompts(args) => prompts::run(args, environment, ui).await,
        Command::Diagnose(args) => diagnose::run(args, environment, ui),
        Command::Completions(args) => completions::run(args, ui),
        Command::Man => completions::man(ui),
        Command::Rank { order, rank } => rank::run(order, *rank, environment).await,
        Command::Task(args) => run::task::run(args, environment, ui).await,
        // Played by `main` before there are settings or a printer.
        Command::SimVllm { .. } | Command::Guard => Ok(exit::BUG),
    }
}

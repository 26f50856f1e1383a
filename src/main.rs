//! argv in, `ExitCode` out. (For trying the commands of this branch; the real one replaces it.)

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use vllm_bench::cli::{Cli, Command};
use vllm_bench::commands::{backup, clean, completions, logs, status, stop};
use vllm_bench::config::Environment;
use vllm_bench::ui::{Display, Terminal, Ui};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = Environment::read();
    let terminal = Terminal {
        stdout: std::io::stdout().is_terminal(),
        stderr: std::io::stderr().is_terminal(),
        no_color: environment.get("NO_COLOR").is_some(),
        dumb: environment.get("TERM") == Some("dumb"),
        ci: environment.get("CI").is_some(),
    };
    let ui = Ui::new(Display::decide(cli.color, cli.quiet, cli.verbose, terminal));
    let result = match &cli.command {
        Command::Status(args) => status::run(args, &environment, &ui).await,
        Command::Stop(args) => stop::run(args, &environment, &ui).await,
        Command::Logs(args) => logs::run(args, &environment, &ui).await,
        Command::Backup(args) => backup::run(args, &environment, &ui).await,
        Command::Clean(args) => clean::run(args, &environment, &ui),
        Command::Completions(args) => completions::run(args, &ui),
        Command::Man => completions::man(&ui),
        Command::Run(_)
        | Command::Sanity(_)
        | Command::Check(_)
        | Command::Analyze(_)
        | Command::Diagnose(_)
        | Command::SimVllm { .. }
        | Command::Guard => return ExitCode::FAILURE,
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

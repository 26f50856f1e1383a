//! argv in, `ExitCode` out.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use vllm_bench::cli::{Cli, Command};
use vllm_bench::config::Environment;
use vllm_bench::ui::{Display, Talk, Terminal, Ui};
use vllm_bench::{commands, exit, process, sim};

fn main() -> ExitCode {
    process::keep_files_ours();
    process::signals::survive_file_size_limit();
    let cli = match Cli::read(Environment::words()) {
        Ok(cli) => cli,
        Err(error) => return said_by_clap(&error),
    };
    let cli = match cli.command {
        // The two roles in which this program plays another one: no settings, no printer.
        Command::Guard => return process::guard_main(),
        Command::SimVllm { args } => return sim::main(args),
        command => Cli { command, ..cli },
    };
    let environment = Environment::read();
    environment.learn_secrets();
    std::panic::set_hook(Box::new(|info| Talk::plain().line(&info.to_string())));
    let terminal = Terminal {
        stdout: std::io::stdout().is_terminal(),
        stderr: std::io::stderr().is_terminal(),
        no_color: environment.get("NO_COLOR").is_some(),
        dumb: environment.get("TERM") == Some("dumb"),
        ci: environment.get("CI").is_some(),
        columns_out: columns(std::io::stdout()),
        columns_err: columns(std::io::stderr()),
    };
    let ui = Ui::new(Display::decide(cli.color, cli.quiet, cli.verbose, terminal));
    start_tracing(cli.verbose, ui.display.color_err);
    ExitCode::from(commands::run(&cli, &environment, &ui))
}

/// How wide a terminal is.
fn columns(stream: impl AsFd) -> Option<usize> {
    terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0))
}

/// Help, the version, and what is wrong with the flags. Help that does not arrive is an error, unless its reader has closed the
/// pipe.
fn said_by_clap(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        Environment::read().learn_secrets();
        Talk::plain().line(&error.render().to_string());
        return ExitCode::from(exit::USAGE);
    }
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(lost) if lost.kind() != std::io::ErrorKind::BrokenPipe => {
            Talk::plain().line(&format!("error: could not write standard output: {lost}"));
            ExitCode::from(exit::RECORD)
        }
        Ok(()) | Err(_) => ExitCode::from(exit::OK),
    }
}

fn start_tracing(verbose: u8, color: bool) {
    let level = match verbose {
        0 => "warn",
        1 => "vllm_bench=debug,warn",
        _ => "vllm_bench=trace,info",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(move || Talk::new(color))
        .with_ansi(color)
        .with_target(false)
        .without_time()
        .init();
}

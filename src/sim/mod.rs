//! The simulated vLLM: this binary plays `vllm serve` and `vllm bench serve` so that sweeps can be planned, tried and tested
//! without a device. `vllm-bench sim-vllm ARGS...` takes exactly what `vllm` takes. Everything it yields says simulated.
//!
//! - [`settings`], [`fault`]: what the machine is and what goes wrong, from environment variables
//! - [`noise`]: how measurements vary; [`neighbours`]: how servers of one run disturb each other; [`prefix`], [`speculation`]: prefix cache and speculative decoding, as far as their counters show them
//! - [`argparse`], [`flags`]: the command line of vLLM
//! - [`model`], [`scheduler`]: pure: what a step costs, and which requests are in it
//! - [`engine`]: the scheduler against clocks and channels; [`metrics`], [`tokens`], [`openai`]: what HTTP shows of it; [`trigger`]: when it dies
//! - [`timing`]: its times in the load generator
//! - [`ray`]: `ray start`, for servers on several nodes
//! - [`server`]: processes, start, log, HTTP; [`client`]: the benchmark
//!
//! It is the exception to "only `ui` prints" and "only `config` reads the environment": it plays another program.

pub mod argparse;
pub mod client;
pub mod engine;
pub mod fault;
pub mod flags;
pub mod log;
pub mod metrics;
pub mod model;
pub mod neighbours;
pub mod noise;
pub mod openai;
pub mod prefix;
pub mod ray;
pub mod scheduler;
pub mod server;
pub mod settings;
pub mod speculation;
pub mod timing;
pub mod tokens;
pub mod trigger;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Plays `vllm` with these arguments (without a program name).
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.first().is_some_and(|role| server::process::is_child(role)) {
        return server::process::child_main(&words);
    }
    if words.first().is_some_and(|role| role == ray::HEAD) {
        return ray::head(words.get(1));
    }
    let command: Vec<&str> = words.iter().take(2).map(String::as_str).collect();
    if let ["--version" | "-v", ..] = command[..] {
        let _ = writeln!(std::io::stdout(), "{}", server::VERSION);
        return ExitCode::SUCCESS;
    }
    let settings = match settings::SimSettings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "simulated vllm: error: {error}");
            return ExitCode::from(2);
        }
    };
    match command[..] {
        ["serve", ..] => server::main(&words[1..], settings),
        ["bench", "serve"] => client::main(&words[2..], settings),
        // Beside vLLM stands `ray`: here it is a word of the same program.
        ["ray", ..] => ray::main(&words[1..], &settings),
        [other, ..] => server::refuse(&argparse::main_refusal(&format!(
            "argument subparser: invalid choice: '{other}' (choose from 'chat', 'complete', 'serve', 'bench', 'collect-env', 'run-batch')"
        ))),
        [] => server::refuse(&argparse::main_refusal("the following arguments are required: subparser")),
    }
}

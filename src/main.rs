//! argv in, `ExitCode` out.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(command) if command == "sim-vllm" => vllm_bench::sim::main(args.collect()),
        _ => ExitCode::from(2),
    }
}

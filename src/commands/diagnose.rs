//! `diagnose`: the cause of a failure, from any log of a vLLM server.

use std::io::{BufReader, Read};

use crate::bounded::{self, Ends};
use crate::cli::DiagnoseArgs;
use crate::config::Environment;
use crate::diagnose::{diagnose_reader, render_text};
use crate::error::Error;
use crate::exit;
use crate::ui::Ui;

/// Reads a log, or standard input, and prints what it shows. Exit code 0 when the log shows no failure, 1 when it does.
///
/// # Errors
/// When the file cannot be read.
pub fn run(args: &DiagnoseArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let input = |source| Error::Input { path: args.file.clone(), source };
    let log: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let path = environment.absolute(&args.file);
        let log = bounded::open_named(&path).and_then(|file| Ends::of(file, bounded::RESULT)).map_err(input)?;
        if let Some(half) = log.half() {
            ui.warn(&format!(
                "{}: it is too large to read whole; its first and last {} MiB are",
                path.display(),
                half >> 20
            ));
        }
        Box::new(log)
    };
    let finding = diagnose_reader(BufReader::with_capacity(1 << 18, log), None).map_err(input)?;
    if args.output.is_json() {
        let text = serde_json::to_string_pretty(&finding).map_err(std::io::Error::from)?;
        ui.out(&text);
    } else {
        ui.out_raw(render_text(&finding).as_bytes());
    }
    Ok(if finding.cause.is_some() { exit::EXPERIMENT_FAILED } else { exit::OK })
}

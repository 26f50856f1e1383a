//! Writes to stdout and stderr. A closed pipe (`vllm-bench status | head -1`) ends nothing but the writing.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{BufRead, Write};

use anstyle::{AnsiColor, Style};

use super::Display;
use crate::error::Error;

/// The terminal, or the pipes in its place.
#[derive(Debug, Clone)]
pub struct Ui {
    /// What is shown, and how.
    pub display: Display,
}

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

impl Ui {
    /// A printer for this display.
    pub fn new(display: Display) -> Self {
        Self { display }
    }

    /// The same printer for output that goes to a file: no colour, no line that changes in place.
    pub fn without_terminal(&self) -> Self {
        Self { display: Display { color_out: false, color_err: false, live: false, ..self.display } }
    }

    /// Data, to stdout. Printed even with `--quiet`.
    pub fn out(&self, text: &str) {
        write_line(std::io::stdout().lock(), text);
    }

    /// Data that brings its own line ends, to stdout.
    pub fn out_raw(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Talk, to stderr; nothing with `--quiet`.
    pub fn say(&self, text: &str) {
        if self.display.talk {
            write_line(std::io::stderr().lock(), text);
        }
    }

    /// A warning, to stderr; nothing with `--quiet`.
    pub fn warn(&self, text: &str) {
        self.say(&format!("{}: {text}", self.paint_err(YELLOW, "warning")));
    }

    /// A next step, to stderr.
    pub fn hint(&self, text: &str) {
        self.say(&format!("{}: {text}", self.paint_err(BOLD, "hint")));
    }

    /// An error with its chain of causes and its hints, to stderr, always.
    pub fn error(&self, error: &Error) {
        let mut text = format!("{}: {error}", self.paint_err(RED, "error"));
        let mut source = error.source();
        while let Some(cause) = source {
            let _ = write!(text, "\n  {} {cause}", self.paint_err(DIM, "because:"));
            source = cause.source();
        }
        for hint in error.hints() {
            let _ = write!(text, "\n{}: {hint}", self.paint_err(BOLD, "hint"));
        }
        write_line(std::io::stderr().lock(), &text);
    }

    /// Asks on stderr and reads one line from stdin; `None` at its end.
    pub fn ask(&self, question: &str) -> Option<String> {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{question} ").and_then(|()| stderr.flush());
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim().to_owned()),
        }
    }

    /// Good news, on stdout.
    pub fn good(&self, text: &str) -> String {
        paint(self.display.color_out, GREEN, text)
    }

    /// Something to look at, on stdout.
    pub fn caution(&self, text: &str) -> String {
        paint(self.display.color_out, YELLOW, text)
    }

    /// Bad news, on stdout.
    pub fn bad(&self, text: &str) -> String {
        paint(self.display.color_out, RED, text)
    }

    /// Less important, on stdout.
    pub fn dim(&self, text: &str) -> String {
        paint(self.display.color_out, DIM, text)
    }

    /// A heading, on stdout.
    pub fn bold(&self, text: &str) -> String {
        paint(self.display.color_out, BOLD, text)
    }

    /// The same, on stderr.
    pub fn paint_err(&self, style: Style, text: &str) -> String {
        paint(self.display.color_err, style, text)
    }
}

fn paint(color: bool, style: Style, text: &str) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

fn write_line(mut to: impl Write, text: &str) {
    let _ = writeln!(to, "{text}").and_then(|()| to.flush());
}

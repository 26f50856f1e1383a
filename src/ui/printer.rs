//! Writes to stdout and stderr. A closed pipe (`vllm-bench status | head -1`) ends nothing but the writing; anything else that
//! keeps data from standard output is remembered, and the command ends with an error.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anstyle::{AnsiColor, Style};

use super::Display;
use super::block::Block;
use crate::error::Error;
use crate::fold::fold;
use crate::safe::{self, Sgr};

/// The terminal, or the pipes in its place.
#[derive(Debug, Clone)]
pub struct Ui {
    /// What is shown, and how.
    pub display: Display,
    /// What first kept data from standard output; shared by all copies.
    lost: Arc<OnceLock<io::Error>>,
    /// The lines that change in place; shared by all copies.
    block: Arc<Mutex<Block>>,
}

/// What is taken for the size of a terminal that does not say it: columns and rows.
const USUAL: (usize, usize) = (80, 24);

const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

impl Ui {
    /// A printer for this display.
    pub fn new(display: Display) -> Self {
        Self { display, lost: Arc::default(), block: Arc::default() }
    }

    /// The same printer for output that goes to a file: no colour, no line that changes in place.
    pub fn without_terminal(&self) -> Self {
        let Display { talk, verbose, .. } = self.display;
        let display = Display { talk, verbose, ..Display::PLAIN };
        Self { display, lost: Arc::clone(&self.lost), block: Arc::default() }
    }

    /// Data, to stdout. Printed even with `--quiet`.
    pub fn out(&self, text: &str) {
        let text = safe::shown(text, colours(self.display.color_out));
        self.above(|| self.note(write_line(std::io::stdout().lock(), &text)));
    }

    /// Text that brings its own line ends, to stdout.
    pub fn out_raw(&self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.out_harmless(safe::shown(text, colours(self.display.color_out)).as_bytes()),
            Err(_) => self.out_harmless(bytes),
        }
    }

    /// Bytes that hold nothing that may not be shown, and that a terminal may act on: a cleaned log, a cleared screen.
    pub fn out_harmless(&self, bytes: &[u8]) {
        self.above(|| {
            let mut stdout = std::io::stdout().lock();
            self.note(stdout.write_all(bytes).and_then(|()| stdout.flush()));
        });
    }

    /// Lines that change in place at the bottom of the terminal, made for its size (columns and rows); nothing where they are not shown.
    pub(super) fn show_live(&self, lines: impl FnOnce(usize, usize) -> Vec<String>) {
        if self.display.live {
            let (columns, rows) = size();
            to_stderr(&self.block().show(lines(columns, rows), columns));
        }
    }

    /// Takes these lines away.
    pub(super) fn end_live(&self) {
        to_stderr(&self.block().clear(size().0));
    }

    /// How wide the terminal behind stderr is now; `None` where there is none.
    pub(super) fn columns(&self) -> Option<usize> {
        if self.display.live { Some(size().0) } else { self.display.columns_err }
    }

    /// The same printer for the terminal behind stdout as it is now, and how many rows that has.
    pub fn measured(&self) -> (Self, Option<usize>) {
        let size = terminal_size::terminal_size_of(std::io::stdout());
        let columns_out = size.map(|(columns, _)| usize::from(columns.0)).or(self.display.columns_out);
        let display = Display { columns_out, ..self.display };
        let rows = size.map(|(_, rows)| usize::from(rows.0));
        (Self { display, lost: Arc::clone(&self.lost), block: Arc::clone(&self.block) }, rows)
    }

    /// Writes something above the lines that change in place.
    fn above(&self, write: impl FnOnce()) {
        let mut block = self.block();
        if block.is_empty() {
            return write();
        }
        let columns = size().0;
        let lines = block.take();
        to_stderr(&lines.erased(columns));
        write();
        *block = lines;
        to_stderr(&block.drawn());
    }

    fn block(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that data did not reach standard output. Whoever closes a pipe has seen enough.
    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = self.lost.set(error);
        }
    }

    /// Whether everything that was to go to standard output did, but for a pipe that its reader closed.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn finish(&self) -> Result<(), Error> {
        self.note(std::io::stdout().lock().flush());
        match self.lost.get() {
            None => Ok(()),
            // An error of the system cannot be copied, but made again.
            Some(error) => {
                Err(Error::Output(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)))
            }
        }
    }

    /// Talk, to stderr; nothing with `--quiet`.
    pub fn say(&self, text: &str) {
        if self.display.talk {
            self.talk(text);
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
        self.talk(&text);
    }

    /// Lines on stderr that end between words.
    fn talk(&self, text: &str) {
        let folded = self.columns().map(|columns| fold(text, columns));
        let talk = Talk::new(self.display.color_err);
        self.above(|| talk.line(folded.as_deref().unwrap_or(text)));
    }

    /// Asks on stderr and reads one line from stdin; `None` at its end.
    pub fn ask(&self, question: &str) -> Option<String> {
        let mut stderr = std::io::stderr().lock();
        let question = safe::shown(question, colours(self.display.color_err));
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

/// Standard error, for what is not said through a [`Ui`]: before there is one, by tracing, in a panic.
#[derive(Debug)]
pub struct Talk {
    colours: Sgr,
}

impl Talk {
    /// With the colours that tracing and the printer use, or without.
    pub fn new(color: bool) -> Self {
        Self { colours: colours(color) }
    }

    /// Without colour.
    pub fn plain() -> Self {
        Self::new(false)
    }

    /// One line, or several.
    pub fn line(&self, text: &str) {
        let _ = write_line(std::io::stderr().lock(), &safe::shown(text.trim_end_matches('\n'), self.colours));
    }
}

impl Write for Talk {
    /// Each piece is a whole message.
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let text = safe::shown(&String::from_utf8_lossy(piece), self.colours);
        std::io::stderr().lock().write_all(text.as_bytes())?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

/// Which colour sequences may pass where colour is shown, or not.
fn colours(color: bool) -> Sgr {
    if color { Sgr::Ours } else { Sgr::None }
}

fn paint(color: bool, style: Style, text: &str) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Columns and rows of the terminal behind stderr.
fn size() -> (usize, usize) {
    let known = terminal_size::terminal_size_of(std::io::stderr());
    known.map_or(USUAL, |(columns, rows)| (usize::from(columns.0).max(1), usize::from(rows.0).max(1)))
}

/// What moves the cursor, and lines that were made harmless.
fn to_stderr(text: &str) {
    if !text.is_empty() {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

fn write_line(mut to: impl Write, text: &str) -> io::Result<()> {
    writeln!(to, "{text}").and_then(|()| to.flush())
}

//! A page of text: headings, fields and paragraphs, with or without colour. Colour only repeats what words say.

use std::borrow::Cow;

use anstyle::{AnsiColor, Effects, Style as Ansi};
use unicode_width::UnicodeWidthStr;

use super::display::{clean, wrap};

/// Width of rules and paragraphs, at most.
pub(super) const WIDTH: usize = 100;
/// Tables may be a little wider.
pub(super) const WIDEST: usize = 120;

/// Text beside a label has at least so many columns, whatever the terminal has.
const LEAST: usize = 24;

/// How a page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colours are used.
    pub color: bool,
    /// Rules and paragraphs are no wider, in columns.
    pub width: usize,
    /// Tables are no wider, where they can be narrower.
    pub widest: usize,
}

impl Style {
    /// Without colour: for files, and for terminals that want none.
    pub const PLAIN: Style = Style { color: false, width: WIDTH, widest: WIDEST };
    /// With ANSI colours.
    pub const COLOR: Style = Style { color: true, width: WIDTH, widest: WIDEST };

    /// For a terminal of so many columns; for files and pipes, where there is none.
    pub fn of(color: bool, columns: Option<usize>) -> Style {
        let at_most = |most: usize| columns.map_or(most, |columns| columns.min(most));
        Style { color, width: at_most(WIDTH), widest: at_most(WIDEST) }
    }
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Heading,
    Good,
    Bad,
    Warning,
    Faint,
}

impl Tone {
    fn ansi(self) -> Ansi {
        match self {
            Tone::Plain => Ansi::new(),
            Tone::Heading => Ansi::new().effects(Effects::BOLD),
            Tone::Good => Ansi::new().fg_color(Some(AnsiColor::Green.into())),
            Tone::Bad => Ansi::new().fg_color(Some(AnsiColor::Red.into())),
            Tone::Warning => Ansi::new().fg_color(Some(AnsiColor::Yellow.into())).effects(Effects::BOLD),
            Tone::Faint => Ansi::new().effects(Effects::DIMMED),
        }
    }
}

/// Text under construction.
pub(super) struct Page {
    out: String,
    style: Style,
}

impl Page {
    pub fn new(style: Style) -> Self {
        Self { out: String::new(), style }
    }

    /// Columns for a table.
    pub fn widest(&self) -> usize {
        self.style.widest
    }

    /// Puts the sections of another page behind these.
    pub fn append(&mut self, other: Page) {
        if !other.out.is_empty() {
            self.gap();
            self.out.push_str(&other.out);
        }
    }

    /// The text; it ends with one line break.
    pub fn finish(self) -> String {
        self.out
    }

    /// One line as it is, without what could harm a terminal. Leading blanks stay.
    pub fn line(&mut self, tone: Tone, text: &str) {
        let text = text.trim_end();
        let body = text.trim_start_matches(' ');
        let indent = &text[..text.len() - body.len()];
        let plain = body.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let body: Cow<'_, str> =
            if !plain && body.chars().any(char::is_control) { clean(body).into() } else { body.into() };
        self.out.push_str(indent);
        if self.style.color && tone != Tone::Plain && !body.is_empty() {
            let ansi = tone.ansi();
            self.out.push_str(&format!("{ansi}{body}{ansi:#}"));
        } else {
            self.out.push_str(&body);
        }
        self.out.push('\n');
    }

    /// An empty line, unless the last one is empty.
    pub fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// The title of the page: left, right, between two rules.
    pub fn title(&mut self, left: &str, right: &str) {
        let rule = "═".repeat(self.style.width);
        let between = self.style.width.saturating_sub(2).saturating_sub(left.width() + right.width()).max(2);
        self.line(Tone::Faint, &rule);
        self.line(Tone::Heading, &format!(" {left}{}{right}", " ".repeat(between)));
        self.line(Tone::Faint, &rule);
    }

    /// The heading of a section.
    pub fn heading(&mut self, text: &str) {
        self.gap();
        let rest = self.style.width.saturating_sub(text.width() + 4);
        self.line(Tone::Heading, &format!("── {text} {}", "─".repeat(rest)));
        self.out.push('\n');
    }

    /// Columns for text behind so many others.
    fn room(&self, hang: usize) -> usize {
        self.style.width.saturating_sub(hang).max(LEAST)
    }

    /// A label and its value, wrapped under itself.
    pub fn field(&mut self, indent: usize, label: &str, label_width: usize, tone: Tone, value: &str) {
        let hang = indent + label_width + 2;
        for (i, part) in wrap(value, self.room(hang)).into_iter().enumerate() {
            let label = if i == 0 { label } else { "" };
            let pad = label_width.saturating_sub(label.width()) + 2;
            self.line(tone, &format!("{}{label}{}{part}", " ".repeat(indent), " ".repeat(pad)));
        }
    }

    /// A paragraph with a mark before its first line (`- `, `! `, or nothing).
    pub fn paragraph(&mut self, indent: usize, mark: &str, tone: Tone, text: &str) {
        let hang = indent + mark.width();
        for (i, part) in wrap(text, self.room(hang)).into_iter().enumerate() {
            let before = if i == 0 { format!("{}{mark}", " ".repeat(indent)) } else { " ".repeat(hang) };
            self.line(tone, &format!("{before}{part}"));
        }
    }
}

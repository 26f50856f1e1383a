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

/// The widest terminal that tables and rules follow.
const WIDEST_TERMINAL: usize = 200;

/// How a page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colours are used.
    pub color: bool,
    /// Paragraphs are no wider, in columns: longer lines are hard to read.
    pub width: usize,
    /// Rules are so wide.
    pub rule: usize,
    /// Tables are no wider.
    pub widest: usize,
}

impl Style {
    /// Without colour: for files, and for terminals that want none.
    pub const PLAIN: Style = Style { color: false, width: WIDTH, rule: WIDTH, widest: WIDEST };
    /// With ANSI colours.
    pub const COLOR: Style = Style { color: true, ..Style::PLAIN };

    /// For a terminal of so many columns; for files and pipes, where there is none.
    pub fn of(color: bool, columns: Option<usize>) -> Style {
        let Some(columns) = columns else { return Style { color, ..Style::PLAIN } };
        let all = columns.min(WIDEST_TERMINAL);
        Style { color, width: columns.min(WIDTH), rule: all, widest: all }
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
        let rule = "═".repeat(self.style.rule);
        self.line(Tone::Faint, &rule);
        match self.style.rule.saturating_sub(2).checked_sub(left.width() + right.width()).filter(|blanks| *blanks > 1) {
            Some(between) => self.line(Tone::Heading, &format!(" {left}{}{right}", " ".repeat(between))),
            None => [left, right].into_iter().for_each(|text| self.paragraph(1, "", Tone::Heading, text)),
        }
        self.line(Tone::Faint, &rule);
    }

    /// The heading of a section.
    pub fn heading(&mut self, text: &str) {
        self.gap();
        match self.style.rule.checked_sub(text.width() + 4) {
            Some(rest) => self.line(Tone::Heading, &format!("── {text} {}", "─".repeat(rest))),
            None => self.paragraph(0, "── ", Tone::Heading, text),
        }
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

    /// Words and values side by side, on as many lines as they need.
    pub fn packed(&mut self, indent: usize, tone: Tone, parts: &[String]) {
        let mut line = String::new();
        for part in parts {
            if !line.is_empty() && line.width() + 3 + part.width() > self.room(indent) {
                self.paragraph(indent, "", tone, &std::mem::take(&mut line));
            }
            line.push_str(if line.is_empty() { "" } else { " · " });
            line.push_str(part);
        }
        if !line.is_empty() {
            self.paragraph(indent, "", tone, &line);
        }
    }

    /// A command, to be copied: in one line, or in several that the shell takes as one. `false`, and nothing is put, where these would be
    /// more than `most`.
    pub fn command(&mut self, indent: usize, words: &[String], most: usize) -> bool {
        let room = self.style.widest.saturating_sub(indent);
        let whole: usize = words.iter().map(|word| word.width() + 1).sum();
        let mut lines: Vec<String> = Vec::new();
        for (i, word) in words.iter().enumerate() {
            // A flag stays with its value.
            let value = words.get(i + 1).filter(|_| is_value(words, i + 1)).map_or(0, |value| value.width() + 1);
            let needed = word.width() + value;
            match lines.last_mut() {
                Some(line) if whole <= room + 1 || line.width() + 1 + needed + 2 <= room => {
                    line.push(' ');
                    line.push_str(word);
                }
                Some(line) if is_value(words, i) => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(if i == 0 { word.clone() } else { format!("  {word}") }),
            }
        }
        if lines.len() > most {
            return false;
        }
        let last = lines.len().saturating_sub(1);
        for (i, line) in lines.iter().enumerate() {
            let end = if i < last { " \\" } else { "" };
            self.line(Tone::Plain, &format!("{}{line}{end}", " ".repeat(indent)));
        }
        true
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

/// Whether a word of a command is the value of the flag before it.
fn is_value(words: &[String], i: usize) -> bool {
    let flag = |before: &String| before.starts_with("--") && !before.contains('=');
    i.checked_sub(1).and_then(|before| words.get(before)).is_some_and(flag) && !words[i].starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_broken_between_flags_and_stays_one_command() {
        let words = ["vllm", "serve", "org/tiny", "--max-num-seqs", "512", "--enforce-eager"].map(str::to_owned);
        let at = |columns: usize, most: usize| {
            let mut page = Page::new(Style::of(false, Some(columns)));
            page.command(4, &words, most).then(|| page.finish())
        };
        assert_eq!(at(80, 1).unwrap(), "    vllm serve org/tiny --max-num-seqs 512 --enforce-eager\n");
        let broken = "    vllm serve org/tiny \\\n      --max-num-seqs 512 \\\n      --enforce-eager\n";
        assert_eq!(at(40, 3).unwrap(), broken);
        assert_eq!(at(40, 2), None);
    }
}

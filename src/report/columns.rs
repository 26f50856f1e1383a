//! Tables without frames: columns that align by the width of their characters, a rule under the heading.

use std::borrow::Cow;

use super::display::{width, wrap};
use super::page::{Page, Tone};

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// One column.
pub(super) struct Column {
    title: Cow<'static, str>,
    side: Side,
}

impl Column {
    /// A column of words.
    pub fn text(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), side: Side::Left }
    }

    /// A column of metrics.
    pub fn metrics(title: impl Into<Cow<'static, str>>) -> Self {
        Self { title: title.into(), side: Side::Right }
    }
}

/// Blanks between two columns.
const GAP: usize = 3;
/// Blanks before a line.
const INDENT: usize = 2;
/// A first column that is made narrower keeps so many.
const NARROWEST: usize = 16;

/// Lines of cells under construction. A table may have ten thousand lines: their text lies in one piece.
pub(super) struct Table<'c> {
    columns: &'c [Column],
    widths: Vec<usize>,
    text: String,
    /// Where each cell ends, line by line.
    ends: Vec<usize>,
    tones: Vec<Tone>,
}

impl<'c> Table<'c> {
    pub fn new(columns: &'c [Column]) -> Self {
        let widths = columns.iter().map(|column| width(&column.title)).collect();
        Self { columns, widths, text: String::new(), ends: Vec::new(), tones: Vec::new() }
    }

    /// Begins a line, which takes a cell for every column.
    pub fn line(&mut self, tone: Tone) {
        self.tones.push(tone);
    }

    /// Puts a cell behind the others of the line: what `write` adds to the text, clean and of one line.
    pub fn cell(&mut self, write: impl FnOnce(&mut String)) {
        let begin = self.text.len();
        write(&mut self.text);
        let wide = width(self.text.get(begin..).unwrap_or_default());
        if let Some(widest) = self.widths.get_mut(self.ends.len() % self.columns.len().max(1)) {
            *widest = (*widest).max(wide);
        }
        self.ends.push(self.text.len());
    }

    /// Puts the table on a page, two blanks in.
    pub fn put(self, page: &mut Page) {
        self.put_within(page, usize::MAX);
    }

    /// The same in lines of at most so many columns: a first cell that needs more room than the others leave goes on below itself,
    /// because what tells it from the others may stand at its end.
    pub fn put_within(mut self, page: &mut Page, most: usize) {
        let others: usize = self.widths.iter().skip(1).map(|width| GAP + width).sum();
        let room = most.saturating_sub(INDENT + others).max(NARROWEST);
        let is_wrapped = self.widths.first().is_some_and(|first| *first > room);
        if is_wrapped {
            self.widths[0] = room;
        }
        let mut line = String::new();
        for (i, column) in self.columns.iter().enumerate() {
            put_cell(&mut line, column.side, self.widths[i], &column.title, i == 0);
        }
        page.line(Tone::Heading, &line);
        let rule = self.widths.iter().sum::<usize>() + GAP * self.columns.len().saturating_sub(1);
        page.line(Tone::Faint, &format!("  {}", "─".repeat(rule)));
        let mut begin = 0;
        for (tone, ends) in self.tones.iter().zip(self.ends.chunks(self.columns.len().max(1))) {
            line.clear();
            let mut below = Vec::new();
            for (i, (column, end)) in self.columns.iter().zip(ends).enumerate() {
                let cell = self.text.get(begin..*end).unwrap_or_default();
                begin = *end;
                if i == 0 && is_wrapped {
                    // What goes on stands two blanks in.
                    below = wrap(cell, room.saturating_sub(2));
                    let first = if below.is_empty() { String::new() } else { below.remove(0) };
                    put_cell(&mut line, column.side, room, &first, true);
                } else {
                    put_cell(&mut line, column.side, self.widths[i], cell, i == 0);
                }
            }
            page.line(*tone, &line);
            for part in below {
                page.line(*tone, &format!("    {part}"));
            }
        }
    }
}

/// Puts a table on a page, two blanks in. Cells must be clean and of one line.
pub(super) fn put(page: &mut Page, columns: &[Column], rows: Vec<(Tone, Vec<String>)>) {
    let mut table = Table::new(columns);
    for (tone, cells) in rows {
        table.line(tone);
        cells.iter().for_each(|cell| table.cell(|text| text.push_str(cell)));
    }
    table.put(page);
}

fn put_cell(line: &mut String, side: Side, widest: usize, cell: &str, first: bool) {
    let blanks = widest.saturating_sub(width(cell));
    let (before, after) = match side {
        Side::Left => (0, blanks),
        Side::Right => (blanks, 0),
    };
    put_blanks(line, before + if first { INDENT } else { GAP });
    line.push_str(cell);
    put_blanks(line, after);
}

fn put_blanks(line: &mut String, count: usize) {
    const BLANKS: &str = "                                ";
    let mut left = count;
    while left > 0 {
        let now = left.min(BLANKS.len());
        line.push_str(&BLANKS[..now]);
        left -= now;
    }
}

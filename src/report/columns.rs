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
/// The same where there is little room.
const NARROW_GAP: usize = 2;
/// Blanks before a line.
const INDENT: usize = 2;
/// A column that is made narrower keeps so many.
const NARROWEST: usize = 16;
/// Blanks before what goes on below the first line of a row.
const BELOW: usize = 4;

/// Lines of cells under construction. A table may have ten thousand lines: their text lies in one piece.
pub(super) struct Table<'c> {
    columns: &'c [Column],
    /// Of the cells alone.
    widths: Vec<usize>,
    text: String,
    /// Where each cell ends, line by line.
    ends: Vec<usize>,
    tones: Vec<Tone>,
}

/// How a table is laid out.
struct Shape {
    widths: Vec<usize>,
    gap: usize,
    /// The column whose cells go on below themselves.
    wrapped: Option<usize>,
}

impl<'c> Table<'c> {
    pub fn new(columns: &'c [Column]) -> Self {
        Self { columns, widths: vec![0; columns.len()], text: String::new(), ends: Vec::new(), tones: Vec::new() }
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

    /// Puts the table on a page, two blanks in, and no wider than its tables may be: headings take several lines, then the widest column
    /// of words goes on below itself, and where even that is too wide each row becomes a few lines of words and values.
    pub fn put(self, page: &mut Page) {
        match self.shape(page.widest()) {
            Some(shape) => self.put_columns(page, &shape),
            None => self.put_rows(page),
        }
    }

    /// The first layout that fits; `None` where none does.
    fn shape(&self, most: usize) -> Option<Shape> {
        let with_headings = |heading: fn(&str) -> usize| -> Vec<usize> {
            self.columns.iter().zip(&self.widths).map(|(column, cells)| heading(&column.title).max(*cells)).collect()
        };
        let total =
            |widths: &[usize], gap: usize| INDENT + widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
        let widths = with_headings(width);
        if total(&widths, GAP) <= most {
            return Some(Shape { widths, gap: GAP, wrapped: None });
        }
        let mut widths = with_headings(longest_piece);
        if let Some(gap) = [GAP, NARROW_GAP].into_iter().find(|gap| total(&widths, *gap) <= most) {
            return Some(Shape { widths, gap, wrapped: None });
        }
        let words = |(_, column): &(usize, &Column)| matches!(column.side, Side::Left);
        let widest = self.columns.iter().enumerate().filter(words).max_by_key(|(i, _)| widths[*i]).map(|(i, _)| i)?;
        for gap in [GAP, NARROW_GAP] {
            let room = widths[widest].saturating_sub(total(&widths, gap).saturating_sub(most));
            if room >= NARROWEST {
                widths[widest] = room;
                return Some(Shape { widths, gap, wrapped: Some(widest) });
            }
        }
        None
    }

    fn put_columns(&self, page: &mut Page, Shape { widths, gap, wrapped }: &Shape) {
        let headings: Vec<Vec<String>> =
            self.columns.iter().zip(widths).map(|(column, room)| in_pieces(&column.title, *room)).collect();
        let high = headings.iter().map(Vec::len).max().unwrap_or_default();
        let mut line = String::new();
        for row in 0..high {
            line.clear();
            for (i, (column, heading)) in self.columns.iter().zip(&headings).enumerate() {
                // They stand on the rule.
                let piece = (row + heading.len()).checked_sub(high).and_then(|piece| heading.get(piece));
                let before = if i == 0 { INDENT } else { *gap };
                put_cell(&mut line, column.side, widths[i], piece.map_or("", String::as_str), before);
            }
            page.line(Tone::Heading, &line);
        }
        let rule = widths.iter().sum::<usize>() + gap * widths.len().saturating_sub(1);
        page.line(Tone::Faint, &format!("  {}", "─".repeat(rule)));
        let (mut begin, mut below) = (0, Vec::new());
        for (tone, ends) in self.tones.iter().zip(self.ends.chunks(self.columns.len().max(1))) {
            line.clear();
            let mut at = 0;
            for (i, (column, end)) in self.columns.iter().zip(ends).enumerate() {
                let cell = self.text.get(begin..*end).unwrap_or_default();
                begin = *end;
                let before = if i == 0 { INDENT } else { *gap };
                let begins = at + before;
                at = begins + widths[i];
                if *wrapped == Some(i) && width(cell) > widths[i] {
                    // What goes on stands two blanks in.
                    let mut pieces = wrap(cell, widths[i].saturating_sub(2));
                    put_cell(&mut line, column.side, widths[i], &pieces.remove(0), before);
                    below.extend(pieces.into_iter().map(|piece| format!("{}{piece}", " ".repeat(begins + 2))));
                } else {
                    put_cell(&mut line, column.side, widths[i], cell, before);
                }
            }
            page.line(*tone, &line);
            below.drain(..).for_each(|piece| page.line(*tone, &piece));
        }
    }

    /// Each row by itself: its name, and below it what else is known of it.
    fn put_rows(&self, page: &mut Page) {
        let mut begin = 0;
        for (tone, ends) in self.tones.iter().zip(self.ends.chunks(self.columns.len().max(1))) {
            let (mut name, mut named, mut values) = (String::new(), false, Vec::new());
            for (column, end) in self.columns.iter().zip(ends) {
                let cell = self.text.get(begin..*end).unwrap_or_default();
                begin = *end;
                if cell.is_empty() {
                    continue;
                }
                if column.title.is_empty() || (!named && matches!(column.side, Side::Left)) {
                    named |= !column.title.is_empty();
                    name.push_str(if name.is_empty() { "" } else { " " });
                    name.push_str(cell);
                } else {
                    values.push(format!("{} {cell}", column.title));
                }
            }
            page.paragraph(INDENT, "", *tone, &name);
            page.packed(BELOW, Tone::Plain, &values);
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

/// Where a heading may be broken: `max-num-` `seqs`.
fn pieces(heading: &str) -> impl Iterator<Item = &str> {
    heading.split_inclusive(['-', ' '])
}

fn longest_piece(heading: &str) -> usize {
    pieces(heading).map(|piece| width(piece.trim_end())).max().unwrap_or_default()
}

/// A heading in lines of at most so many columns.
fn in_pieces(heading: &str, room: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for piece in pieces(heading) {
        if !line.is_empty() && width(&line) + width(piece.trim_end()) > room {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        line.push_str(piece);
    }
    lines.push(line.trim_end().to_owned());
    lines
}

fn put_cell(line: &mut String, side: Side, widest: usize, cell: &str, gap: usize) {
    let blanks = widest.saturating_sub(width(cell));
    let (before, after) = match side {
        Side::Left => (0, blanks),
        Side::Right => (blanks, 0),
    };
    put_blanks(line, before + gap);
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

#[cfg(test)]
mod tests {
    use super::super::page::Style;
    use super::*;

    fn table(columns: usize) -> String {
        let shape = [
            Column::text(""),
            Column::text("Configuration"),
            Column::metrics("max-num-seqs"),
            Column::metrics("TTFT ms"),
        ];
        let rows = [("tp 1, kv-cache-dtype fp8", "512", "10.00"), ("tp 2", "1024", "123.45")];
        let mut page = Page::new(Style::of(false, Some(columns)));
        let row = |(name, seqs, ttft): (&str, &str, &str)| {
            (Tone::Plain, vec![">".to_owned(), name.to_owned(), seqs.to_owned(), ttft.to_owned()])
        };
        put(&mut page, &shape, rows.map(row).to_vec());
        page.finish()
    }

    #[test]
    fn a_table_is_as_wide_as_there_is_room_for_it() {
        let whole = "      Configuration              max-num-seqs   TTFT ms\n  \
            ─────────────────────────────────────────────────────\n  \
            >   tp 1, kv-cache-dtype fp8            512     10.00\n  \
            >   tp 2                               1024    123.45\n";
        assert_eq!(table(60), whole);
        let headings_broken =
            "                                  max-    TTFT\n                                  num-\n";
        assert!(!table(50).contains("max-num-seqs"), "{}\n{headings_broken}", table(50));
        assert!(table(40).contains("\n        fp8"), "{}", table(40));
        assert!(table(26).contains("    max-num-seqs 512\n"), "{}", table(26));
        for columns in [26, 30, 40, 50, 60, 100] {
            let text = table(columns);
            assert!(text.lines().all(|line| width(line) <= columns), "{columns}:\n{text}");
        }
    }
}

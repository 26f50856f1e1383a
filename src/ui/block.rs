//! Lines that change in place at the bottom of a terminal, below whatever is printed meanwhile.
//!
//! The cursor stands behind the last of them. Before anything else is written they are erased: up by as many rows as they take at the
//! terminal's width of that moment (a terminal that became narrower has folded them), then everything below is cleared.

use crate::fold::width;

/// The lines, as they stand on the terminal.
#[derive(Debug, Default)]
pub(super) struct Block {
    drawn: Vec<String>,
}

/// To the beginning of the row, and clear what is below.
const CLEAR: &str = "\r\x1b[J";

impl Block {
    /// Whether any line stands there.
    pub fn is_empty(&self) -> bool {
        self.drawn.is_empty()
    }

    /// Leaves none behind, and answers with them.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// What draws them.
    pub fn drawn(&self) -> String {
        self.drawn.join("\n")
    }

    /// What takes them off a terminal of so many columns.
    pub fn erased(&self, columns: usize) -> String {
        if self.drawn.is_empty() {
            return String::new();
        }
        let rows: usize = self.drawn.iter().map(|line| width(line).div_ceil(columns.max(1)).max(1)).sum();
        match rows {
            1 => CLEAR.to_owned(),
            more => format!("\x1b[{}A{CLEAR}", more - 1),
        }
    }

    /// What makes `lines` stand there instead; empty where nothing changes.
    pub fn show(&mut self, lines: Vec<String>, columns: usize) -> String {
        if lines == self.drawn {
            return String::new();
        }
        let out = format!("{}{}", self.erased(columns), lines.join("\n"));
        self.drawn = lines;
        out
    }

    /// What takes all of them away.
    pub fn clear(&mut self, columns: usize) -> String {
        self.show(Vec::new(), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lines_are_replaced_where_they_stand() {
        let mut block = Block::default();
        assert_eq!(block.show(lines(&["a", "b"]), 10), "a\nb");
        assert_eq!(block.show(lines(&["a", "b"]), 10), "", "nothing to do");
        assert_eq!((block.erased(10), block.drawn()), ("\x1b[1A\r\x1b[J".to_owned(), "a\nb".to_owned()));
        assert_eq!(block.show(lines(&["c"]), 10), "\x1b[1A\r\x1b[Jc");
        assert_eq!((block.clear(10), block.clear(10)), ("\r\x1b[J".to_owned(), String::new()));
        assert!(block.is_empty());
    }

    #[test]
    fn a_terminal_that_became_narrower_has_folded_them() {
        let mut block = Block::default();
        block.show(lines(&["123456789", "\x1b[1m1234\x1b[0m"]), 10);
        assert_eq!(block.clear(4), "\x1b[3A\r\x1b[J");
    }
}

//! Lines that end between words where the terminal would cut them anywhere. Pure.

use unicode_width::UnicodeWidthChar;

/// The text with its lines broken at blanks so that none is wider than `columns`, as far as words allow. A line that goes on
/// is indented as its beginning is. What stands between backticks is a command to be copied: it is never broken.
pub fn fold(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| fold_line(line, columns)).collect();
    lines.join("\n")
}

fn fold_line(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let body = line.trim_start_matches(' ');
    let indent = " ".repeat(line.len() - body.len());
    let (mut out, mut used) = (indent.clone(), indent.len());
    for (number, word) in words(body).into_iter().enumerate() {
        let wide = width(word);
        if number > 0 && used + 1 + wide > columns {
            out.push('\n');
            out.push_str(&indent);
            used = indent.len();
        } else if number > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += wide;
    }
    out
}

/// The parts between blanks; blanks between two backticks are no end.
pub fn words(text: &str) -> Vec<&str> {
    let (mut words, mut begin, mut quoted) = (Vec::new(), 0, false);
    let closes = |at: usize| text[at..].contains('`');
    for (at, c) in text.char_indices() {
        match c {
            '`' => quoted = !quoted && closes(at + 1),
            ' ' if !quoted => {
                words.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[begin..]);
    words
}

/// Columns that a text takes; colours take none.
pub fn width(text: &str) -> usize {
    let mut escaped = false;
    let mut columns = 0;
    for c in text.chars() {
        match (escaped, c) {
            (false, '\x1b') => escaped = true,
            (true, 'm') => escaped = false,
            (true, _) => {}
            (false, c) => columns += c.width().unwrap_or(0),
        }
    }
    columns
}

/// At most `columns` of a text in one line, with an ellipsis where it is cut; colours take none, and end with it.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut out, mut used, mut escaped, mut coloured) = (String::new(), 0, false, false);
    for c in text.chars() {
        let wide = if escaped || c == '\x1b' { 0 } else { c.width().unwrap_or(0) };
        if used + wide >= columns && wide > 0 {
            break;
        }
        coloured |= c == '\x1b';
        escaped = (escaped || c == '\x1b') && c != 'm';
        used += wide;
        out.push(c);
    }
    out.push('…');
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words_and_keep_their_indentation() {
        assert_eq!(fold("one two three", 8), "one two\nthree");
        assert_eq!(fold("  because: one two three\nshort", 14), "  because: one\n  two three\nshort");
        assert_eq!(fold("exactly ten", 11), "exactly ten");
        assert_eq!(fold("a b", 1), "a\nb");
        assert_eq!(fold("", 8), "");
    }

    #[test]
    fn commands_and_long_words_stay_whole() {
        let text = "hint: use `vllm-bench run --resume RUN` for it";
        assert_eq!(fold(text, 20), "hint: use\n`vllm-bench run --resume RUN`\nfor it");
        assert_eq!(fold("see /a/very/long/path/to/a/file now", 10), "see\n/a/very/long/path/to/a/file\nnow");
        assert_eq!(fold("a lonely ` is no quotation mark", 12), "a lonely `\nis no\nquotation\nmark");
    }

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        assert_eq!((cut("one two", 7), cut("one two", 6)), ("one two".to_owned(), "one t…".to_owned()));
        assert_eq!(cut("\x1b[31mred\x1b[0m and more", 6), "\x1b[31mred\x1b[0m a…\x1b[0m");
        assert_eq!(cut("模型模型", 4), "模…");
    }

    #[test]
    fn colours_take_no_columns() {
        assert_eq!(fold("\x1b[33mwarning\x1b[0m: one two", 16), "\x1b[33mwarning\x1b[0m: one two");
    }
}

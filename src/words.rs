//! Words as people read them and shells take them: quoted, counted, cut. Pure.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// One word of a script, for bash. A NUL byte, which no argument can hold, is dropped; all others stay as they are.
pub fn quoted(text: &str) -> String {
    let text: String = text.chars().filter(|c| *c != '\0').collect();
    shlex::try_quote(&text).map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// One word of a command that is shown, to be copied into a shell. A word with characters that would not be seen, or that would reorder what is seen, is written
/// with their numbers (`$'…'`): what is shown is what is run.
pub fn shell(text: &str) -> String {
    if !text.chars().any(hidden)
        && let Ok(quoted) = shlex::try_quote(text)
    {
        return quoted.into_owned();
    }
    let mut out = String::from("$'");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\'' | '\\' => out.extend(['\\', c]),
            c if hidden(c) && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if hidden(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// A command line, word by word.
pub fn shell_line<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(shell).collect::<Vec<_>>().join(" ")
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `1 run`, `2 runs`.
pub fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `35 s`, `2 min 5 s`, `3 h 20 min`, `2 d 4 h`.
pub fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.max(0.0)).map_or(0, |d| d.as_secs());
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// At most `most` characters; what is too long ends in `…`.
pub fn cut_chars(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(most.saturating_sub(1)).map_or(text.len(), |(at, _)| at);
            format!("{}…", &text[..end])
        }
    }
}

/// At most `width` columns of a terminal; what is too long loses its end.
pub fn cut_end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = columns(text.chars(), width.saturating_sub(1));
    cut.push('…');
    cut
}

/// At most `width` columns; what is too long loses its middle, because names differ at their ends.
pub fn cut_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = columns(text.chars(), room / 2);
    let tail: String = columns(text.chars().rev(), room - room / 2).chars().rev().collect();
    format!("{head}…{tail}")
}

fn columns(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut columns = 0;
    chars
        .take_while(|c| {
            columns += c.width().unwrap_or(0);
            columns <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_needs_it_and_shows_what_it_holds() {
        for (text, quoted) in [
            ("plain-1.5", "plain-1.5"),
            ("two words", "'two words'"),
            ("it's", "\"it's\""),
            ("$(id)", "'$(id)'"),
            ("", "''"),
            ("a\nb\u{202e}c\u{7}", "$'a\\nb\\u202ec\\x07'"),
        ] {
            assert_eq!(shell(text), quoted);
        }
        assert_eq!((quoted("a\u{202e}b c\0"), quoted("x")), ("'a\u{202e}b c'".to_owned(), "x".to_owned()));
        assert_eq!(shell_line(["vllm", "serve", "a b"]), "vllm serve 'a b'");
    }

    #[test]
    fn what_is_too_long_is_cut_by_characters_or_columns() {
        assert_eq!((cut_chars("模型模型", 3), cut_chars("abc", 3)), ("模型…".to_owned(), "abc".to_owned()));
        assert_eq!((cut_end("模型模型模型", 7), cut_end("abc", 3)), ("模型模…".to_owned(), "abc".to_owned()));
        assert_eq!(cut_middle("openai_gpt-oss-20b_tp2_quant-none_eager-true", 21), "openai_gpt…eager-true");
        assert_eq!((counted(1, "run"), counted(0, "run")), ("1 run".to_owned(), "0 runs".to_owned()));
    }
}

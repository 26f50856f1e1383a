//! Makes visible what a terminal acts on instead of showing it.
//!
//! The form is that of JSON (`\u001b`), so that JSON which passes through here still says the same.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Which colour sequences pass: only those that this program writes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sgr {
    /// None: files, pipes, terminals without colour.
    None,
    /// Those of the printer, the reports and tracing: bold, dim, italic, the eight colours, and their end.
    Ours,
}

/// A character that a terminal may act on instead of showing it: control characters, and marks that turn the direction of text.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Whether these bytes hold nothing that must be looked at closer: no control byte but line ends and tabs, and no lead byte of a
/// harmful character.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | 0x80..=0xc1 | 0xc3..=0xe1 | 0xe3..=0xff))
}

/// The text with harmful characters made visible. Line ends (`\n`, `\r\n`) and tabs stay.
pub fn escape(text: &str, colours: Sgr) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if after.starts_with('\n') => out.push(c),
            '\u{1b}' if colours == Sgr::Ours => match our_sequence(after) {
                Some(length) => {
                    out.push_str(&rest[..1 + length]);
                    rest = &after[length..];
                    continue;
                }
                None => push(c, &mut out),
            },
            c if is_harmful(c) => push(c, &mut out),
            c => out.push(c),
        }
        rest = after;
    }
    Cow::Owned(out)
}

fn push(c: char, out: &mut String) {
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

/// The length of a colour sequence of ours after its ESC: `[0m`, `[1m`, `[2m`, `[3m`, `[30m` to `[37m`.
fn our_sequence(after: &str) -> Option<usize> {
    let body = after.strip_prefix('[')?;
    let end = body.find('m').filter(|end| *end <= 2)?;
    let known = matches!(&body[..end], "0" | "1" | "2" | "3" | "30" | "31" | "32" | "33" | "34" | "35" | "36" | "37");
    known.then_some(end + 2)
}

/// The same for a stream of bytes that arrives in pieces; no colour passes.
#[derive(Debug, Clone, Default)]
pub struct Escaper {
    /// The beginning of a character, or a carriage return, that the next byte decides on.
    held: Vec<u8>,
}

impl Escaper {
    /// What may be written after this piece has arrived.
    pub fn feed<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held.is_empty() && is_plain(piece) {
            return Cow::Borrowed(piece);
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let mut out = Vec::with_capacity(bytes.len() + 16);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let length = match rest {
                [b'\r'] | [0xc2] | [0xe2] | [0xe2, 0x80..=0x81] => {
                    self.held = rest.to_vec();
                    break;
                }
                [b'\r', b'\n', ..] => 2,
                [0xc2, 0x80..=0x9f, ..] => 2,
                [0xe2, 0x80, 0xa8..=0xae, ..] | [0xe2, 0x81, 0xa6..=0xa9, ..] => 3,
                _ => 1,
            };
            let (character, _) = rest.split_at(length);
            match character {
                [b'\n' | b'\t'] | [b'\r', b'\n'] => out.extend_from_slice(character),
                [byte] if byte.is_ascii_control() => out.extend(format!("\\u{byte:04x}").into_bytes()),
                [_] => out.extend_from_slice(character),
                _ => {
                    let c = std::str::from_utf8(character).ok().and_then(|text| text.chars().next());
                    match c.filter(|c| is_harmful(*c)) {
                        Some(c) => out.extend(format!("\\u{:04x}", u32::from(c)).into_bytes()),
                        None => out.extend_from_slice(character),
                    }
                }
            }
            at += length;
        }
        Cow::Owned(out)
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        match std::mem::take(&mut self.held) {
            held if held == b"\r" => b"\\u000d".to_vec(),
            held => held,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_our_own_colours_pass() {
        assert_eq!(escape("lädt 模型\r\n\tx", Sgr::None), "lädt 模型\r\n\tx");
        assert_eq!(
            escape("a\u{1b}[31mb\u{7}c\rd\u{9b}2Je\u{202e}", Sgr::None),
            "a\\u001b[31mb\\u0007c\\u000dd\\u009b2Je\\u202e"
        );
        assert_eq!(escape("\u{1b}[1m\u{1b}[31mb\u{1b}[0m", Sgr::Ours), "\u{1b}[1m\u{1b}[31mb\u{1b}[0m");
        for bad in
            ["\u{1b}[2J", "\u{1b}[8m", "\u{1b}]0;t\u{7}", "\u{1b}[1;31m", "\u{1b}c", "\u{1b}", "\u{1b}[", "\u{1b}[?25l"]
        {
            assert!(!escape(bad, Sgr::Ours).contains('\u{1b}'), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_escaped_as_the_whole_text(text in "[a\u{1b}\r\n\u{85}\u{202e}\u{2029}é€\u{7f}]{0,40}", cut in 0usize..60) {
            let cut = cut.min(text.len());
            let mut escaper = Escaper::default();
            let mut out = escaper.feed(&text.as_bytes()[..cut]).into_owned();
            out.extend_from_slice(&escaper.feed(&text.as_bytes()[cut..]));
            out.extend(escaper.finish());
            prop_assert_eq!(String::from_utf8(out).unwrap(), escape(&text, Sgr::None).into_owned());
        }
    }
}

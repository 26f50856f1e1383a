//! Makes the bytes of a log harmless for a terminal, piece by piece.

use crate::safe::is_harmful;

/// The longest escape sequence that is waited for.
const LONGEST_SEQUENCE: usize = 64;
/// The longest text (a title, a link) inside an escape sequence that is swallowed.
const LONGEST_STRING: usize = 4096;

/// Where in a stream of characters one is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// Inside ESC `[`: its parameters so far.
    Control(String),
    /// Inside ESC `]` or another string that a terminal acts on: its length, and whether ESC came last.
    Swallow(usize, bool),
}

/// Shows text, line ends, tabs and (where wanted) colours; everything else that a terminal would act on is made
/// visible or dropped.
#[derive(Debug, Clone)]
pub struct Sanitizer {
    color: bool,
    state: State,
    /// The beginning of a character whose end has not arrived.
    carry: Vec<u8>,
    after_return: bool,
    colored: bool,
}

impl Sanitizer {
    /// `color`: whether colours pass.
    pub fn new(color: bool) -> Self {
        Self { color, state: State::Text, carry: Vec::new(), after_return: false, colored: false }
    }

    /// What may be written after this piece has arrived.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(piece);
        let mut out = String::with_capacity(bytes.len());
        let mut rest: &[u8] = &bytes;
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.text(text, &mut out);
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text(std::str::from_utf8(valid).unwrap_or_default(), &mut out);
                    match error.error_len() {
                        Some(bad) => {
                            self.text("\u{fffd}", &mut out);
                            rest = &after[bad..];
                        }
                        None => {
                            self.carry = after.to_vec();
                            break;
                        }
                    }
                }
            }
        }
        out.into_bytes()
    }

    /// The end of a log: what was held back, and the colours switched off.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = String::new();
        if !std::mem::take(&mut self.carry).is_empty() {
            self.text("\u{fffd}", &mut out);
        }
        self.state = State::Text;
        self.after_return = false;
        if std::mem::take(&mut self.colored) {
            out.push_str("\x1b[0m");
        }
        out.into_bytes()
    }

    fn text(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.character(c, out);
        }
    }

    fn character(&mut self, c: char, out: &mut String) {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.plain(c, out),
            State::Escape => match c {
                '[' => self.state = State::Control(String::new()),
                ']' | 'P' | 'X' | '^' | '_' => self.state = State::Swallow(0, false),
                // ESC ( B and the like: ESC is shown, the rest is text.
                _ => {
                    out.push_str("^[");
                    self.plain(c, out);
                }
            },
            State::Control(parameters) => self.control(parameters, c, out),
            State::Swallow(length, escape) => {
                let over = c == '\x07' || c == '\u{9c}' || (escape && c == '\\');
                if c == '\n' || (!over && length >= LONGEST_STRING) {
                    // It has no end: what follows is text again.
                    self.plain(c, out);
                } else if !over {
                    self.state = State::Swallow(length + 1, c == '\x1b');
                }
            }
        }
    }

    /// Colours end in `m`; everything else that ESC `[` begins moves the cursor, clears, or worse: dropped.
    fn control(&mut self, mut parameters: String, c: char, out: &mut String) {
        match c {
            'm' if self.color && parameters.chars().all(|p| p.is_ascii_digit() || p == ';' || p == ':') => {
                self.colored = !matches!(parameters.as_str(), "" | "0");
                out.push_str("\x1b[");
                out.push_str(&parameters);
                out.push('m');
            }
            '\x40'..='\x7e' => {}
            '\x20'..='\x3f' if parameters.len() < LONGEST_SEQUENCE => {
                parameters.push(c);
                self.state = State::Control(parameters);
            }
            _ => self.plain(c, out),
        }
    }

    fn plain(&mut self, c: char, out: &mut String) {
        let after_return = std::mem::replace(&mut self.after_return, c == '\r');
        match c {
            '\n' if after_return => {}
            '\n' | '\t' => out.push(c),
            // A progress bar writes over its line; here each state gets a line of its own.
            '\r' => out.push('\n'),
            '\x1b' => self.state = State::Escape,
            '\0'..='\x1f' => {
                out.push('^');
                out.push(char::from(c as u8 ^ 0x40));
            }
            '\x7f' => out.push_str("^?"),
            c if is_harmful(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(color: bool, bytes: &[u8]) -> String {
        let mut sanitizer = Sanitizer::new(color);
        let mut out = sanitizer.feed(bytes);
        out.extend(sanitizer.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_passes_and_what_a_terminal_acts_on_does_not() {
        assert_eq!(shown(false, "INFO\tlädt 模型\n".as_bytes()), "INFO\tlädt 模型\n");
        assert_eq!(shown(false, b"a\x1b[31mred\x1b[0m b"), "ared b");
        assert_eq!(shown(true, b"a\x1b[31mred\x1b[0m b"), "a\x1b[31mred\x1b[0m b");
        assert_eq!(shown(true, b"\x1b[1;38:5:9mopen"), "\x1b[1;38:5:9mopen\x1b[0m");
        assert_eq!(shown(true, b"a\x1b[2J\x1b[Hb\x1b[?25lc\x1b[6nd"), "abcd");
        assert_eq!(shown(true, b"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x1bP1$r\x1b\\d"), "abcd");
        assert_eq!(shown(true, b"a\x07b\x00c\x7fd\x1bce"), "a^Gb^@c^?d^[ce");
        assert_eq!(shown(true, b"10%\r20%\r\ndone\r\n"), "10%\n20%\ndone\n");
        assert_eq!(shown(true, b"a\xff\xfeb\xc3"), "a\u{fffd}\u{fffd}b\u{fffd}");
        assert_eq!(shown(true, "a\u{9b}31mb\u{202e}c".as_bytes()), "a\u{fffd}31mb\u{fffd}c");
        assert_eq!(shown(true, b"\x1b]never closed\nnext"), "\nnext");
    }

    proptest! {
        #[test]
        fn nothing_harmful_passes_and_the_cut_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(b';')], 0..200),
            cut in 0usize..200,
            color in any::<bool>(),
        ) {
            let whole = shown(color, &bytes);
            let mut sanitizer = Sanitizer::new(color);
            let cut = cut.min(bytes.len());
            let mut pieces = sanitizer.feed(&bytes[..cut]);
            pieces.extend(sanitizer.feed(&bytes[cut..]));
            pieces.extend(sanitizer.finish());
            prop_assert_eq!(String::from_utf8(pieces).unwrap(), whole.clone());
            let mut rest = whole.as_str();
            while let Some(at) = rest.find('\x1b') {
                let sequence = &rest[at + 1..];
                let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                prop_assert!(color && sequence.starts_with('[') && sequence[end..].starts_with('m'));
                rest = &sequence[end..];
            }
            prop_assert!(whole.chars().all(|c| !is_harmful(c) || matches!(c, '\n' | '\t' | '\x1b')));
        }
    }
}

//! Server-sent events from pieces of any size (WHATWG HTML, "Server-sent events": lines end in LF, CRLF or CR; `data` fields
//! of one event are joined by LF; lines that begin with a colon are comments).
//!
//! One relaxation: an event is handed out at its line's end when no further `data` line follows in the bytes at hand,
//! rather than at the empty line after it, since every known server sends one `data` line per event and the empty line
//! can come in a later packet. Two `data` lines of one event that arrive in different packets are therefore two events.

use super::Broken;

/// The longest line that is kept. An event with log probabilities of many tokens stays far below.
const MOST_LINE: usize = 8 << 20;

/// Splits a stream into the payloads of its events.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
    /// The last byte was a CR: a LF right after it belongs to it.
    after_cr: bool,
    /// Nothing has been read yet: a byte order mark may come.
    begun: bool,
}

impl Splitter {
    /// Feeds bytes; `each` gets the payload of every `data` field that they complete.
    ///
    /// # Errors
    /// When a line is too long, or what `each` returns.
    pub fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Broken>) -> Result<(), Broken> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            let is_cr = rest[end] == b'\r';
            if self.held.is_empty() {
                let line = self.first(line);
                field(line, each)?;
            } else {
                self.hold(line)?;
                let held = std::mem::take(&mut self.held);
                let line = self.first(&held);
                field(line, each)?;
                self.held = held;
                self.held.clear();
            }
            rest = if is_cr {
                self.after_cr = after.is_empty();
                after.strip_prefix(b"\n").unwrap_or(after)
            } else {
                after
            };
        }
        self.hold(rest)
    }

    /// Ends the stream: hands out a last line that no line break ended.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn end(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<(), Broken>) -> Result<(), Broken> {
        let held = std::mem::take(&mut self.held);
        let line = self.first(&held);
        field(line, each)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.held.len() + bytes.len() > MOST_LINE {
            return Err(Broken::LineTooLong { limit: MOST_LINE });
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// A line without the byte order mark that the first one may have.
    fn first<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        if std::mem::replace(&mut self.begun, true) {
            return line;
        }
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    }
}

/// Hands out the payload of a `data` line; every other line (comments, `event`, `id`, `retry`, empty) says nothing here.
fn field(line: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Broken>) -> Result<(), Broken> {
    let Some(payload) = line.strip_prefix(b"data:") else { return Ok(()) };
    let payload = payload.trim_ascii();
    if payload.is_empty() { Ok(()) } else { each(payload) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        let mut each = |payload: &[u8]| {
            found.push(String::from_utf8_lossy(payload).into_owned());
            Ok(())
        };
        for piece in pieces {
            splitter.push(piece, &mut each).unwrap();
        }
        splitter.end(&mut each).unwrap();
        found
    }

    #[test]
    fn the_same_events_wherever_the_bytes_are_cut_and_however_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                ["\u{feff}: ping", "data: {\"a\":1}", "", "event: x", "data:{\"b\":\"é\"}", "", "data: [DONE]", "", ""];
            let text = text.join(end).into_bytes();
            for cut in 0..=text.len() {
                for second in [cut, text.len().min(cut + 1), text.len()] {
                    let pieces = [&text[..cut], &text[cut..second], &text[second..]];
                    assert_eq!(split(&pieces), ["{\"a\":1}", "{\"b\":\"é\"}", "[DONE]"], "{end:?} {cut} {second}");
                }
            }
        }
    }

    #[test]
    fn a_last_line_without_an_end_counts_and_a_line_without_end_is_refused() {
        assert_eq!(split(&[b"data: x"]), ["x"]);
        let mut splitter = Splitter::default();
        let piece = vec![b'a'; 1 << 20];
        let error = (0..9).find_map(|_| splitter.push(&piece, &mut |_| Ok(())).err());
        assert_eq!(error, Some(Broken::LineTooLong { limit: MOST_LINE }));
    }
}

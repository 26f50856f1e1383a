//! Server-sent events from pieces of any size (WHATWG HTML, "Server-sent events": lines end in LF, CRLF or CR; `data` fields
//! of one event are joined by LF; lines that begin with a colon are comments).
//!
//! One relaxation: a `data` line that is whole JSON is handed out at once, rather than at the empty line after its event,
//! since every known server sends one `data` line per event and the empty line can come in a later packet. One that is the
//! beginning of a JSON text is joined with those that follow, up to the empty line.

use super::Broken;

/// The longest line that is kept. An event with log probabilities of many tokens stays far below.
const MOST_LINE: usize = 8 << 20;

/// What the events of a stream are handed to: the data, and whether the event is named `error`.
type Each<'a> = dyn FnMut(&[u8], bool) -> Result<(), Broken> + 'a;

/// Splits a stream into the payloads of its events.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
    /// The last byte was a CR: a LF right after it belongs to it.
    after_cr: bool,
    /// Nothing has been read yet: a byte order mark may come.
    begun: bool,
    /// The event whose lines come is named `error`.
    is_error: bool,
    /// Data of this event was handed out.
    handed: bool,
    /// `data` lines of this event that are no whole yet, joined.
    pending: Vec<u8>,
}

impl Splitter {
    /// Feeds bytes; `each` gets the data of every event that they complete. It answers [`Broken::Unfinished`] to the first of
    /// several lines, and gets it again with the others.
    ///
    /// # Errors
    /// When an event is too long, or what `each` returns.
    pub fn push(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<(), Broken> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            let is_cr = rest[end] == b'\r';
            if self.held.is_empty() {
                self.line(line, each)?;
            } else {
                self.hold(line)?;
                let held = std::mem::take(&mut self.held);
                self.line(&held, each)?;
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

    /// Ends the stream: hands out a last event that no line break or empty line ended.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn end(&mut self, each: &mut Each<'_>) -> Result<(), Broken> {
        let held = std::mem::take(&mut self.held);
        self.line(&held, each)?;
        self.end_of_event(each)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.held.len() + bytes.len() > MOST_LINE {
            return Err(Broken::LineTooLong { limit: MOST_LINE });
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// One line, without its end. Comments, `id` and `retry` say nothing here.
    fn line(&mut self, line: &[u8], each: &mut Each<'_>) -> Result<(), Broken> {
        // The first line may have a byte order mark.
        let line = match std::mem::replace(&mut self.begun, true) {
            true => line,
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
        };
        if let Some(payload) = line.strip_prefix(b"data:") {
            return self.data(payload.trim_ascii(), each);
        }
        if line.is_empty() {
            return self.end_of_event(each);
        }
        if let Some(name) = line.strip_prefix(b"event:") {
            self.is_error = name.trim_ascii().eq_ignore_ascii_case(b"error");
            if self.is_error && self.handed {
                // The name came after the data.
                return each(b"", true);
            }
        }
        Ok(())
    }

    fn data(&mut self, payload: &[u8], each: &mut Each<'_>) -> Result<(), Broken> {
        if payload.is_empty() {
            return Ok(());
        }
        if self.pending.is_empty() {
            self.handed = true;
            let handed = each(payload, self.is_error);
            if !matches!(handed, Err(Broken::Unfinished { .. })) {
                return handed;
            }
        } else {
            self.pending.push(b'\n');
        }
        if self.pending.len() + payload.len() > MOST_LINE {
            return Err(Broken::LineTooLong { limit: MOST_LINE });
        }
        self.pending.extend_from_slice(payload);
        Ok(())
    }

    fn end_of_event(&mut self, each: &mut Each<'_>) -> Result<(), Broken> {
        self.handed = false;
        let is_error = std::mem::take(&mut self.is_error);
        if self.pending.is_empty() {
            return Ok(());
        }
        each(&std::mem::take(&mut self.pending), is_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        let mut each = |payload: &[u8], _| {
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
        let error = (0..9).find_map(|_| splitter.push(&piece, &mut |_, _| Ok(())).err());
        assert_eq!(error, Some(Broken::LineTooLong { limit: MOST_LINE }));
    }

    #[test]
    fn data_lines_of_one_event_are_joined_and_a_named_error_is_told() {
        let text = "data: {\"a\":\ndata: 1\ndata: }\n\nevent: error\ndata: boom\n\ndata: {}\n\ndata: x\nevent: Error\n\n\
                    event: ping\ndata: {}\n\ndata: {\"cut\"";
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let mut splitter = Splitter::default();
            let mut found = Vec::new();
            let mut each = |payload: &[u8], is_error: bool| {
                let text = String::from_utf8_lossy(payload).into_owned();
                if text.starts_with('{') && !text.ends_with('}') {
                    return Err(Broken::Unfinished { reason: String::new(), excerpt: text });
                }
                found.push((text, is_error));
                Ok(())
            };
            splitter.push(first.as_bytes(), &mut each).unwrap();
            splitter.push(second.as_bytes(), &mut each).unwrap();
            assert!(splitter.end(&mut each).is_err(), "an event that never was whole");
            let expected =
                [("{\"a\":\n1\n}", false), ("boom", true), ("{}", false), ("x", false), ("", true), ("{}", false)];
            let found: Vec<(&str, bool)> = found.iter().map(|(text, is_error)| (text.as_str(), *is_error)).collect();
            assert_eq!(found, expected, "cut at {cut}");
        }
    }
}

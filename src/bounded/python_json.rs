//! Numbers that are none, as Python's `json` writes them (`NaN`, `Infinity`): no other parser takes them, and one of them must not
//! discard the rest of a result.

use std::io::{self, Read};

/// JSON as Python writes it: numbers that are none stand there as bare words, which no other parser takes. They come out as texts
/// (`"NaN"`), so that the rest of the object can be read; nothing else is changed.
#[derive(Debug)]
pub struct PythonJson<R> {
    source: R,
    /// What was read and not passed on yet, from `at`.
    raw: Vec<u8>,
    at: usize,
    ended: bool,
    in_text: bool,
    /// What can be passed on, from `given`.
    out: Vec<u8>,
    given: usize,
}

/// The words that Python writes for numbers that are none.
pub const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

impl<R: Read> PythonJson<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self { source, raw: Vec::new(), at: 0, ended: false, in_text: false, out: Vec::new(), given: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        const PIECE: usize = 64 << 10;
        self.raw.drain(..self.at);
        self.at = 0;
        let kept = self.raw.len();
        self.raw.resize(kept + PIECE, 0);
        let read = loop {
            match self.source.read(&mut self.raw[kept..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.raw.truncate(kept + read.as_ref().copied().unwrap_or(0));
        self.ended = read? == 0;
        Ok(())
    }

    /// Passes on what can be judged: a word that may go on in the next piece waits for it.
    fn pass(&mut self) {
        const LONGEST: usize = 9;
        while let Some(rest) = self.raw.get(self.at..).filter(|rest| !rest.is_empty()) {
            let is_stop = |byte: &u8| match self.in_text {
                true => matches!(byte, b'"' | b'\\'),
                false => matches!(byte, b'"' | b'N' | b'I' | b'-'),
            };
            let plain = rest.iter().position(is_stop).unwrap_or(rest.len());
            self.out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            let rest = &rest[plain..];
            let Some(first) = rest.first() else { return };
            if rest.len() < LONGEST && !self.ended && *first != b'"' {
                return;
            }
            let taken = match (first, NO_NUMBERS.into_iter().find(|word| rest.starts_with(word.as_bytes()))) {
                (b'"', _) => {
                    self.in_text = !self.in_text;
                    1
                }
                (b'\\', _) => rest.len().min(2),
                (_, Some(word)) => {
                    self.out.extend_from_slice(format!("\"{word}\"").as_bytes());
                    self.at += word.len();
                    continue;
                }
                (_, None) => 1,
            };
            self.out.extend_from_slice(&rest[..taken]);
            self.at += taken;
        }
    }
}

impl<R: Read> Read for PythonJson<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.given == self.out.len() {
            self.out.clear();
            self.given = 0;
            if self.ended {
                return Ok(0);
            }
            self.refill()?;
            self.pass();
        }
        let count = (self.out.len() - self.given).min(into.len());
        into[..count].copy_from_slice(&self.out[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_that_are_none_become_texts_wherever_a_piece_ends() {
        /// Gives a byte or a few at a time.
        struct Slow<'t>(&'t [u8], usize);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(self.0.len()).min(into.len());
                into[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
        let text = r#"{"a": NaN, "b NaN \" -Infinity": -Infinity, "c": [-1, NaN, Infinity, null], "d\\": "Infinity", "e": NaN}"#;
        let expected = r#"{"a": "NaN", "b NaN \" -Infinity": "-Infinity", "c": [-1, "NaN", "Infinity", null], "d\\": "Infinity", "e": "NaN"}"#;
        for piece in [1, 2, 3, 8, 9, 10, 1000] {
            let mut out = String::new();
            PythonJson::new(Slow(text.as_bytes(), piece)).read_to_string(&mut out).unwrap();
            assert_eq!(out, expected, "{piece}");
        }
        let mut out = String::new();
        PythonJson::new(&b"-Inf"[..]).read_to_string(&mut out).unwrap();
        assert_eq!(out, "-Inf");
    }
}

//! The framing of an HTTP/1.1 body (RFC 9112, section 6): chunked, of known length, or until the connection closes.

use super::{Broken, excerpt};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `transfer-encoding: chunked`.
    Chunked,
    /// `content-length`.
    Length(u64),
    /// The connection closes.
    Close,
}

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a line with a chunk's size.
    Size,
    /// In a chunk, with bytes to come.
    Data(u64),
    /// In the line break after a chunk.
    AfterData,
    /// In the lines after the last chunk.
    Trailer,
    /// Behind everything.
    End,
}

/// Reads a body.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    at: At,
    /// The beginning of a line of the framing.
    line: Vec<u8>,
}

/// The longest line of the framing.
const MOST_LINE: usize = 4096;

impl Body {
    /// A body of which nothing has been read.
    pub fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Chunked => At::Size,
            Framing::Length(0) => At::End,
            Framing::Length(length) => At::Data(length),
            Framing::Close => At::Data(u64::MAX),
        };
        Self { framing, at, line: Vec::new() }
    }

    /// Whether all of it has been read.
    pub fn is_complete(&self) -> bool {
        self.at == At::End
    }

    /// Whether the closing of the connection is a proper end.
    pub fn may_end_here(&self) -> bool {
        self.is_complete() || self.framing == Framing::Close
    }

    /// Feeds bytes; `each` gets the pieces of the content. What comes after the end is ignored.
    ///
    /// # Errors
    /// When the framing is broken, or what `each` returns.
    pub fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Broken>) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.at {
                At::End => return Ok(()),
                At::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    each(&rest[..take])?;
                    rest = &rest[take..];
                    let left = left - take as u64;
                    self.at = match (left, self.framing) {
                        (0, Framing::Chunked) => At::AfterData,
                        (0, _) => At::End,
                        (left, _) => At::Data(left),
                    };
                }
                At::Size | At::AfterData | At::Trailer => {
                    let end = memchr::memchr(b'\n', rest);
                    let piece = &rest[..end.unwrap_or(rest.len())];
                    if self.line.len() + piece.len() > MOST_LINE {
                        return Err(Broken::ChunkSize { found: excerpt(piece, 40) });
                    }
                    self.line.extend_from_slice(piece);
                    let Some(end) = end else { return Ok(()) };
                    rest = &rest[end + 1..];
                    self.next_line()?;
                    self.line.clear();
                }
            }
        }
        Ok(())
    }

    fn next_line(&mut self) -> Result<(), Broken> {
        let line = self.line.trim_ascii();
        self.at = match self.at {
            At::Size => match chunk_size(line)? {
                0 => At::Trailer,
                size => At::Data(size),
            },
            At::AfterData if line.is_empty() => At::Size,
            At::AfterData => return Err(Broken::ChunkSize { found: excerpt(line, 40) }),
            At::Trailer if line.is_empty() => At::End,
            at => at,
        };
        Ok(())
    }
}

/// The size in a chunk's first line; what follows a semicolon is an extension.
fn chunk_size(line: &[u8]) -> Result<u64, Broken> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    size.and_then(|text| u64::from_str_radix(text, 16).ok())
        .filter(|size| *size < 1 << 60)
        .ok_or_else(|| Broken::ChunkSize { found: excerpt(line, 40) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(framing: Framing, pieces: &[&[u8]]) -> Result<(String, bool), Broken> {
        let (mut body, mut content) = (Body::new(framing), Vec::new());
        for piece in pieces {
            body.push(piece, &mut |bytes| {
                content.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok((String::from_utf8_lossy(&content).into_owned(), body.is_complete()))
    }

    #[test]
    fn chunks_are_joined_wherever_the_bytes_are_cut() {
        let text = b"5;x=y\r\nhello\r\n1\r\n \r\nA\r\n0123456789\r\n0\r\nx-trailer: 1\r\n\r\nrest";
        for cut in 0..=text.len() {
            let read = read(Framing::Chunked, &[&text[..cut], &text[cut..]]).unwrap();
            assert_eq!(read, ("hello 0123456789".to_owned(), true), "{cut}");
        }
    }

    #[test]
    fn lengths_and_closing() {
        assert_eq!(read(Framing::Length(3), &[b"ab", b"cd"]).unwrap(), ("abc".to_owned(), true));
        assert_eq!(read(Framing::Length(0), &[b"x"]).unwrap(), (String::new(), true));
        assert_eq!(read(Framing::Close, &[b"ab", b"cd"]).unwrap(), ("abcd".to_owned(), false));
        assert_eq!(read(Framing::Chunked, &[b"5\r\nhel"]).unwrap(), ("hel".to_owned(), false));
    }

    #[test]
    fn a_broken_framing_is_told() {
        for text in ["zz\r\n", "+5\r\nhello\r\n", "5\r\nhelloXX\r\n", "ffffffffffffffff\r\n", "\r\n"] {
            assert!(matches!(read(Framing::Chunked, &[text.as_bytes()]), Err(Broken::ChunkSize { .. })), "{text:?}");
        }
        assert!(read(Framing::Chunked, &[&[b'1'; 5000]]).is_err());
    }
}

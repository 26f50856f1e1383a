//! The head of an HTTP/1.1 answer, as it arrives.

use super::{Broken, Framing, excerpt};

/// The longest head of an answer.
const MOST_HEAD: usize = 64 << 10;
/// Interim answers (1xx) in one piece, at most.
const MOST_INTERIM: usize = 64;
/// The only status of its hundred that is final: another protocol follows.
const SWITCHING: u16 = 101;

/// What a head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub status: u16,
    pub framing: Framing,
    /// The connection can carry another request.
    pub keep_alive: bool,
    /// The content type, where it is not that of a stream.
    pub content: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// Headers that tell of time.
    pub timed: Vec<(String, String)>,
}

/// Reads a head.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    held: Vec<u8>,
}

impl HeadReader {
    /// Feeds bytes; once the head is whole it is handed back, with how many bytes of this piece belong to it. Interim answers
    /// before it are left out.
    ///
    /// # Errors
    /// When it is no head, too long, or that of an answer that cannot be read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, Broken> {
        let mut used = 0;
        for _ in 0..MOST_INTERIM {
            let before = self.held.len();
            self.held.extend_from_slice(&bytes[used..]);
            let mut headers = [httparse::EMPTY_HEADER; 96];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.held).map_err(|error| Broken::Head { reason: error.to_string() })?;
            let httparse::Status::Complete(length) = parsed else {
                if self.held.len() > MOST_HEAD {
                    return Err(Broken::HeadTooLong { limit: MOST_HEAD });
                }
                return Ok(None);
            };
            let status = response.code.unwrap_or(0);
            if (100..200).contains(&status) && status != SWITCHING {
                // An interim answer: the real one follows, in this very piece or in the next.
                used = bytes.len() - (self.held.len() - length);
                self.held.clear();
                if used == bytes.len() {
                    return Ok(None);
                }
                continue;
            }
            let head = Head::of(&response)?;
            self.held = Vec::new();
            return Ok(Some((head, used + length - before)));
        }
        Err(Broken::Head { reason: format!("more than {MOST_INTERIM} interim answers") })
    }
}

impl Head {
    fn of(response: &httparse::Response<'_, '_>) -> Result<Self, Broken> {
        let status = response.code.unwrap_or(0);
        let mut head = Self {
            status,
            framing: Framing::Close,
            keep_alive: response.version == Some(1),
            content: None,
            location: None,
            timed: Vec::new(),
        };
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            head.add(&header.name.to_ascii_lowercase(), value)?;
        }
        // RFC 9112, section 6.3, and RFC 9110, section 15.3.6, for 205.
        if matches!(status, SWITCHING | 204 | 304) || (status == 205 && head.framing == Framing::Close) {
            head.framing = Framing::Length(0);
            head.keep_alive = false;
        }
        head.keep_alive &= head.framing != Framing::Close;
        Ok(head)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), Broken> {
        match name {
            "content-length" if self.framing != Framing::Chunked => {
                let length = value.parse().map_err(|_| Broken::Head {
                    reason: format!("content-length is `{}`", excerpt(value.as_bytes(), 40)),
                })?;
                self.framing = Framing::Length(length);
            }
            "transfer-encoding" if value.to_ascii_lowercase().contains("chunked") => self.framing = Framing::Chunked,
            "connection" if value.eq_ignore_ascii_case("close") => self.keep_alive = false,
            "content-type" if !value.starts_with("text/event-stream") => {
                self.content = Some(excerpt(value.as_bytes(), 80));
            }
            "content-encoding" if !value.eq_ignore_ascii_case("identity") => {
                return Err(Broken::Encoded { encoding: excerpt(value.as_bytes(), 40) });
            }
            "location" if (300..400).contains(&self.status) => self.location = Some(excerpt(value.as_bytes(), 400)),
            name if tells_of_time(name) => self.timed.push((name.to_owned(), value.chars().take(200).collect())),
            _ => {}
        }
        Ok(())
    }
}

fn tells_of_time(name: &str) -> bool {
    ["time", "latency", "throughput"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<(Head, usize)>, Broken> {
        HeadReader::default().push(text.as_bytes())
    }

    #[test]
    fn a_head_is_the_same_wherever_it_is_cut_and_what_follows_is_the_body_s() {
        let text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nContent-Length: 3\r\nLocation: /v2\r\n\
                    Content-Type: text/html\r\nX-Process-Time: 7\r\n\r\nabc";
        let (whole, used) = read(text).unwrap().unwrap();
        assert_eq!(&text[used..], "abc");
        let expected = Head {
            status: 302,
            framing: Framing::Length(3),
            keep_alive: true,
            content: Some("text/html".into()),
            location: Some("/v2".into()),
            timed: vec![("x-process-time".into(), "7".into())],
        };
        assert_eq!(whole, expected);
        for cut in 0..used {
            let mut reader = HeadReader::default();
            assert_eq!(reader.push(&text.as_bytes()[..cut]), Ok(None), "cut at {cut}");
            assert_eq!(reader.push(&text.as_bytes()[cut..]).unwrap().unwrap().1, used - cut, "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert!(matches!(read("SSH-2.0-OpenSSH"), Err(Broken::Head { .. })));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MOST_HEAD));
        assert!(matches!(read(&long), Err(Broken::HeadTooLong { .. })));
        let zipped = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
        assert_eq!(read(zipped), Err(Broken::Encoded { encoding: "gzip".into() }));
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").is_err());
        assert!(read(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(65)).is_err());
    }
}

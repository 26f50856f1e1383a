//! What an answer adds up to.

use super::Usage;

/// What an answer adds up to. Times are nanoseconds on the caller's clock.
#[derive(Debug, Default)]
pub struct Reply {
    /// HTTP status, once the head is read.
    pub status: Option<u16>,
    /// Arrival of the first byte.
    pub first_byte: Option<u64>,
    /// Arrival of the first token.
    pub first: Option<u64>,
    /// The end: arrival of the last token, or of an answer in one piece.
    pub last: u64,
    /// Times between events with tokens of the same sample, in units of 100 ns.
    pub gaps: Vec<u32>,
    /// Events with tokens, all samples together: an estimate of the tokens, for a server may send several in one event.
    pub events: u64,
    /// One of them printed something.
    pub printed: bool,
    /// Events with a text, a thought or a tool call.
    pub texts: u64,
    /// Bytes of these, in UTF-8.
    pub text_bytes: u64,
    /// Events and ends without: special tokens, parts of a character.
    pub quiet: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Samples that were seen.
    pub samples: u32,
    /// Samples whose end was told.
    pub finished: u32,
    /// The stream was ended by `[DONE]`.
    pub done: bool,
    /// The server's own count.
    pub usage: Option<Usage>,
    /// It gave several that differ, in words.
    pub recounted: Option<String>,
    /// The server's error, in the stream.
    pub error: Option<String>,
    /// The text of the first sample, if kept.
    pub text: String,
    /// Headers that were kept.
    pub headers: Vec<(String, String)>,
    /// The times are those that the server told.
    pub told: bool,
}

impl Reply {
    /// Notes an event: whether it says anything, and how many bytes that is.
    pub(super) fn note(&mut self, prints: bool, bytes: u64) {
        self.printed |= prints;
        if prints {
            self.texts += 1;
            self.text_bytes = self.text_bytes.saturating_add(bytes);
        } else {
            self.quiet += 1;
        }
    }
}

//! From bytes of a socket to what a model said: HTTP framing, server-sent events, chunks. No sockets and no clocks in
//! here: bytes come in with the instant at which they arrived, so that all of it can be fed anything.

mod body;
mod chunk;
mod count;
mod exchange;
mod head;
mod reader;
mod reply;
mod sse;

pub use body::{Body, Framing};
pub use chunk::{Chunk, Classifier, End, Piece, Usage};
pub use exchange::{Exchange, Expect, Progress};
pub use reply::Reply;
pub use sse::Splitter;

/// Reads the times of the tokens of an event off its data, in nanoseconds; `None` where it tells none.
pub type ToldTimes = fn(&[u8]) -> Result<Option<Vec<u64>>, Broken>;

/// Why an answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The head is not HTTP.
    #[error("the answer does not begin as HTTP does: {reason}")]
    Head {
        /// What the parser says.
        reason: String,
    },
    /// The head is longer than any server sends.
    #[error("the head of the answer is longer than {limit} bytes")]
    HeadTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A chunk size is no number.
    #[error("the size of a chunk is no hexadecimal number, or larger than any answer: `{found}`")]
    ChunkSize {
        /// The line as found, cut.
        found: String,
    },
    /// One line of the stream never ends.
    #[error("a line of the stream is longer than {limit} bytes")]
    LineTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is compressed.
    #[error("the answer is compressed (content-encoding `{encoding}`), which was not asked for")]
    Encoded {
        /// How.
        encoding: String,
    },
    /// An answer to a request that was not made.
    #[error("an event belongs to sample {index}, and {asked} were asked for (they count from 0)")]
    Sample {
        /// The sample.
        index: u32,
        /// Samples asked for.
        asked: u32,
    },
    /// An event is not JSON as an OpenAI-compatible server sends it.
    #[error("an event is not what an OpenAI-compatible server sends ({reason}): {excerpt}")]
    Event {
        /// What the JSON reader says.
        reason: String,
        /// Its beginning.
        excerpt: String,
    },
    /// An event is the beginning of JSON: the rest may come in a further line.
    #[error("an event is not what an OpenAI-compatible server sends ({reason}): {excerpt}")]
    Unfinished {
        /// What the JSON reader says.
        reason: String,
        /// Its beginning.
        excerpt: String,
    },
    /// The server tells times that are none.
    #[error("{reason}")]
    Told {
        /// What it tells.
        reason: String,
    },
    /// The stream goes on for ever.
    #[error("the stream went on after {events} events, far more than the {asked} tokens that were asked for")]
    Endless {
        /// Events read.
        events: u64,
        /// Tokens asked for.
        asked: u64,
    },
}

/// The beginning of bytes as text, for messages: at most `most` bytes, control characters shown as such.
pub fn excerpt(bytes: &[u8], most: usize) -> String {
    let cut = &bytes[..bytes.len().min(most)];
    let mut text: String =
        String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    text = text.trim().to_owned();
    if bytes.len() > most {
        text.push('…');
    }
    text
}

//! What became of one request.

use std::fmt;

use serde::Serialize;

use super::wire::Reply;

/// Why a request failed: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// No connection to the server.
    Connect,
    /// A limit of time.
    Timeout,
    /// The server refused the request.
    HttpStatus,
    /// The connection was closed before the answer was complete.
    StreamBroken,
    /// The server sent an error in the stream.
    InStreamError,
    /// What came is not an answer, or contradicts itself.
    Malformed,
    /// The answer is whole and has no token.
    NoToken,
    /// Fewer samples than were asked for. Such a request counts as completed; it is listed, and `load` ends with exit code 1.
    FewerSamples,
    /// Fewer tokens than `--ignore-eos` asked for. Such a request counts as completed; it is listed.
    Short,
    /// More tokens than were asked for. Such a request counts as completed; it is listed.
    Long,
    /// The server counts other tokens than it streamed, or gave several counts. Such a request counts as completed; it is listed.
    Miscounted,
    /// Given up by us: the workload was ended while it was under way.
    Cancelled,
    /// Never sent: the server was gone, or the workload was ended before.
    NotSent,
}

impl FailureClass {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 13] = [
        Self::Connect,
        Self::Timeout,
        Self::HttpStatus,
        Self::StreamBroken,
        Self::InStreamError,
        Self::Malformed,
        Self::NoToken,
        Self::FewerSamples,
        Self::Short,
        Self::Long,
        Self::Miscounted,
        Self::Cancelled,
        Self::NotSent,
    ];

    /// As written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::HttpStatus => "http-status",
            Self::StreamBroken => "stream-broken",
            Self::InStreamError => "in-stream-error",
            Self::Malformed => "malformed",
            Self::NoToken => "no-token",
            Self::FewerSamples => "fewer-samples",
            Self::Short => "short",
            Self::Long => "long",
            Self::Miscounted => "miscounted",
            Self::Cancelled => "cancelled",
            Self::NotSent => "not-sent",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Of which kind.
    pub class: FailureClass,
    /// What was seen.
    pub detail: String,
}

impl Failure {
    /// A failure with what was seen.
    pub fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }
}

/// One request. Times are nanoseconds since the workload began, on a monotonic clock.
#[derive(Debug)]
pub struct Sample {
    /// Its number, from 0.
    pub index: u64,
    /// When it was due, in a workload that follows the clock.
    pub due: Option<u64>,
    /// When it began: before connecting, or before its first byte was written on a connection at hand.
    pub started: u64,
    /// When its connection was there, if it needed one.
    pub connected: Option<u64>,
    /// When it was over.
    pub ended: u64,
    /// Tokens of the prompt as counted before it was sent.
    pub prompt_len: Option<u64>,
    /// Tokens asked for, of one sample.
    pub output_len: Option<u64>,
    /// Samples asked for.
    pub n: u32,
    /// What came.
    pub reply: Reply,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

impl Sample {
    /// Seconds from its start to the first token; `None` for an answer in one piece.
    pub fn ttft(&self) -> Option<f64> {
        self.reply.first.map(|first| seconds(first.saturating_sub(self.started)))
    }

    /// Seconds from its start to its last token.
    pub fn latency(&self) -> f64 {
        seconds(self.end().saturating_sub(self.started))
    }

    /// When it ended: at its last token. vLLM's client takes the last event of a chat, which tells the usage and may come late.
    pub fn end(&self) -> u64 {
        self.reply.last.max(self.started)
    }

    /// Seconds that it waited in the client after it was due.
    pub fn queue_time(&self) -> Option<f64> {
        self.due.map(|due| seconds(self.started.saturating_sub(due)))
    }

    /// Tokens of its answers, and whether that is an estimate.
    pub fn output_tokens(&self) -> (u64, bool) {
        self.reply.output_tokens()
    }

    /// Seconds per output token after the first (vLLM: (latency - TTFT) / (tokens - 1)); `None` below two tokens, or where
    /// no first token was told.
    pub fn tpot(&self) -> Option<f64> {
        let (tokens, _) = self.output_tokens();
        let per_sample = tokens / u64::from(self.reply.samples.max(1));
        let ttft = self.ttft()?;
        (per_sample > 1).then(|| (self.latency() - ttft).max(0.0) / (per_sample - 1) as f64)
    }

    /// Tokens of the prompt: as counted before it was sent, else the server's count (a chat, which its template makes longer).
    pub fn prompt_tokens(&self) -> Option<u64> {
        self.prompt_len.or(self.reply.usage.and_then(|usage| usage.prompt_tokens))
    }

    /// How many of its tokens came with the first `events` of its events. Where a server sends several tokens in one event,
    /// nothing tells how many: they are spread evenly.
    pub fn tokens_after(&self, events: u64) -> u64 {
        let (tokens, _) = self.output_tokens();
        let share = u128::from(tokens) * u128::from(events) / u128::from(self.reply.events.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// What is listed of a request that counts as completed: how its answer is another one than what was asked for, or than
    /// what the server counts.
    pub fn remarks(&self, ignore_eos: bool) -> Vec<Failure> {
        let mut found = Vec::new();
        if self.failure.is_some() {
            return found;
        }
        let mut remark = |class, detail: String| found.push(Failure { class, detail });
        let (tokens, estimate) = self.output_tokens();
        if let Some(asked) = self.output_len.map(|length| length.saturating_mul(u64::from(self.n))) {
            if ignore_eos && !estimate && tokens < asked {
                remark(FailureClass::Short, format!("{tokens} tokens of {asked} under --ignore-eos"));
            }
            // Where nobody counts, an event with a text has a token at least.
            let least = if estimate { self.reply.texts } else { tokens };
            if least > asked {
                remark(FailureClass::Long, format!("{least} tokens, where {asked} were asked for"));
            }
        }
        if let Some(why) = self.reply.miscounted() {
            remark(FailureClass::Miscounted, why);
        }
        let came = self.reply.samples.max(self.reply.finished);
        if came < self.n {
            remark(FailureClass::FewerSamples, format!("{came} of {} samples came back", self.n));
        }
        found
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

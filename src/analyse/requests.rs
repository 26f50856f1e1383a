//! One measurement, request by request.

/// What is known of the completed requests of one measurement, in the order in which they were begun. A list is empty where the
/// file does not have it; those of requests have the same length otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requests {
    /// Seconds from the first request to the start of each.
    pub start_s: Vec<f64>,
    /// Milliseconds to the first token.
    pub ttft_ms: Vec<f64>,
    /// Mean milliseconds between further tokens; of requests with one token there is none, so that it may be shorter.
    pub tpot_ms: Vec<f64>,
    /// Milliseconds from the start to the last token.
    pub e2el_ms: Vec<f64>,
    /// Milliseconds between tokens, of all requests.
    pub itl_ms: Vec<f64>,
    /// Tokens of each prompt.
    pub input_tokens: Vec<f64>,
    /// Tokens of each answer.
    pub output_tokens: Vec<f64>,
}

impl Requests {
    /// How many.
    pub fn len(&self) -> usize {
        self.ttft_ms.len().max(self.e2el_ms.len())
    }

    /// Whether nothing is known of any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

//! What one event of a completion says: a token, only a role, an error, the usage.
//!
//! The events of one stream are alike but for the text of the token. The first one is read as JSON; the next ones are
//! compared with it, byte by byte, around the text, and read as JSON only where they differ. That is exact: equal bytes
//! mean equal JSON, and the text in between is checked to be a plain JSON string.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Broken, excerpt};

/// Token counts as the server states them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answers, all samples together.
    #[serde(default)]
    pub completion_tokens: Option<u64>,
    /// More on the prompt.
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

impl Usage {
    /// Tokens of the prompt that came from the prefix cache, where the server says so.
    pub fn cached_tokens(&self) -> Option<u64> {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// What one event says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Tokens (one event of one sample), as (sample, text).
    pub tokens: Vec<Piece>,
    /// Choices, whatever was in them.
    pub choices: u32,
    /// Samples that ended here.
    pub finished: u32,
    /// Those of them that said nothing here: the end of a stream, or a last token that prints nothing.
    pub ends: Vec<End>,
    /// The usage, where the event has it.
    pub usage: Option<Usage>,
    /// The server's error, as written.
    pub error: Option<String>,
    /// The simulated times of the tokens in nanoseconds, from a simulated server.
    pub simulated: Option<Vec<u64>>,
}

/// The end of a sample that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Which sample.
    pub sample: u32,
    /// It ended because it was as long as asked for: it has tokens, whether they print anything or not.
    pub by_length: bool,
}

/// A token of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which sample (`choices[].index`).
    pub sample: u32,
    /// Its text, if it is kept.
    pub text: String,
    /// It has a text, a thought or a tool call.
    pub prints: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(default)]
    sim_times_ns: Option<Vec<u64>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<Said<'a>>,
    #[serde(borrow, default)]
    message: Option<Said<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

/// An empty string, list or object says nothing.
fn says_something(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| !matches!(raw.get(), "\"\"" | "[]" | "{}"))
}

impl<'a> Said<'a> {
    /// What the model said or thought here.
    fn text(&self) -> Option<&'a RawValue> {
        [self.content, self.reasoning, self.reasoning_content].into_iter().find(|raw| says_something(*raw)).flatten()
    }

    /// Text, a thought or a tool call.
    fn says_something(&self) -> bool {
        self.text().is_some() || says_something(self.tool_calls)
    }

    /// A token: text, thought, a tool call, or content that is there and empty (a token that prints nothing). An event that
    /// carries only the role is none.
    fn is_token(&self) -> bool {
        self.says_something() || (self.role.is_none() && (self.content.is_some() || self.reasoning.is_some()))
    }
}

/// The bytes around the text of the last token.
#[derive(Debug, Default)]
struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
    sample: u32,
}

/// Reads the events of one stream.
#[derive(Debug, Default)]
pub struct Classifier {
    template: Option<Template>,
    keep_text: bool,
}

impl Classifier {
    /// For a stream whose text is kept or not.
    pub fn new(keep_text: bool) -> Self {
        Self { template: None, keep_text }
    }

    /// The sample whose next plain token this is, as told by comparing with the token before; `None` = read it as JSON.
    pub fn plain_token<'a>(&self, payload: &'a [u8]) -> Option<(u32, &'a str)> {
        let template = self.template.as_ref()?;
        let middle = payload.strip_prefix(&template.before[..])?.strip_suffix(&template.after[..])?;
        if memchr::memchr2(b'"', b'\\', middle).is_some() {
            return None;
        }
        Some((template.sample, std::str::from_utf8(middle).ok()?))
    }

    /// Reads an event as JSON.
    ///
    /// # Errors
    /// When it is not JSON, or not what an OpenAI-compatible server sends.
    pub fn read(&mut self, payload: &[u8]) -> Result<Chunk, Broken> {
        let broken = |reason: &dyn std::fmt::Display| Broken::Event {
            reason: reason.to_string(),
            excerpt: excerpt(payload, 160),
        };
        let text = std::str::from_utf8(payload).map_err(|_| broken(&"invalid UTF-8"))?;
        if !text.starts_with('{') {
            return Err(broken(&"no object"));
        }
        let event: Event<'_> = serde_json::from_str(text).map_err(|cause| broken(&cause))?;
        let is_error = event.object.is_some_and(|object| object.get() == "\"error\"");
        if let Some(error) = event.error.map(RawValue::get).or(is_error.then_some(text)) {
            return Ok(Chunk { error: Some(excerpt(error.as_bytes(), 400)), ..Chunk::default() });
        }
        let mut chunk = Chunk { usage: event.usage, simulated: event.sim_times_ns, ..Chunk::default() };
        let choices = event.choices.unwrap_or_default();
        chunk.choices = u32::try_from(choices.len()).unwrap_or(u32::MAX);
        for choice in &choices {
            let ended = says_something(choice.finish_reason);
            chunk.finished += u32::from(ended);
            let said = choice.delta.as_ref().or(choice.message.as_ref());
            let (token, prints) = match said {
                Some(said) => (said.is_token(), said.says_something()),
                None => (true, says_something(choice.text)),
            };
            if ended && !prints {
                let by_length = choice.finish_reason.is_some_and(|reason| reason.get() == "\"length\"");
                chunk.ends.push(End { sample: choice.index, by_length });
                continue;
            }
            if !token {
                continue;
            }
            let raw = match said {
                Some(said) => said.text(),
                None => choice.text,
            };
            let kept = raw.filter(|_| self.keep_text).and_then(|raw| serde_json::from_str(raw.get()).ok());
            chunk.tokens.push(Piece { sample: choice.index, text: kept.unwrap_or_default(), prints });
            if !ended && choices.len() == 1 && chunk.simulated.is_none() && chunk.usage.is_none() {
                self.learn(payload, choice.index, raw);
            }
        }
        Ok(chunk)
    }

    /// Remembers what stands around the text of a token.
    fn learn(&mut self, payload: &[u8], sample: u32, raw: Option<&RawValue>) {
        let Some(raw) = raw.map(RawValue::get).filter(|raw| raw.len() >= 2 && raw.starts_with('"')) else { return };
        let begin = (raw.as_ptr() as usize).wrapping_sub(payload.as_ptr() as usize) + 1;
        let end = begin + raw.len() - 2;
        let (Some(before), Some(after)) = (payload.get(..begin), payload.get(end..)) else { return };
        let template = self.template.get_or_insert_default();
        template.before.clear();
        template.before.extend_from_slice(before);
        template.after.clear();
        template.after.extend_from_slice(after);
        template.sample = sample;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str) -> Chunk {
        Classifier::new(true).read(payload.as_bytes()).unwrap()
    }

    fn tokens(payload: &str) -> Vec<(u32, String)> {
        read(payload).tokens.into_iter().map(|piece| (piece.sample, piece.text)).collect()
    }

    #[test]
    fn what_is_a_token_and_what_is_none() {
        let one = |text: &str| vec![(0, text.to_owned())];
        assert_eq!(tokens(r#"{"choices":[{"index":0,"text":"a\n","finish_reason":null}]}"#), one("a\n"));
        assert_eq!(tokens(r#"{"choices":[{"index":0,"text":"","finish_reason":null}]}"#), one(""));
        let end = |text: &str| (tokens(text), read(text).ends);
        let ended = |by_length| (vec![], vec![End { sample: 0, by_length }]);
        assert_eq!(end(r#"{"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#), ended(true));
        assert_eq!(end(r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#), ended(false));
        assert_eq!(tokens(r#"{"choices":[{"index":2,"delta":{"content":"b"}}]}"#), [(2, "b".to_owned())]);
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#), []);
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"x"}}]}"#), one("x"));
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#), []);
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"content":""}}]}"#), one(""));
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#), one("hm"));
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"role":"assistant","reasoning":"hm"}}]}"#), one("hm"));
        assert_eq!(tokens(r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]}"#), one(""));
        assert_eq!(tokens(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}"#), []);
    }

    #[test]
    fn usage_errors_and_simulated_times() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}"#;
        let usage = read(usage).usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens()), (Some(3), Some(5), Some(2)));
        assert!(read(r#"{"error":{"message":"no","code":500}}"#).error.unwrap().contains("no"));
        assert!(read(r#"{"object":"error","message":"old style"}"#).error.unwrap().contains("old style"));
        assert_eq!(read(r#"{"choices":[{"text":"x"}],"sim_times_ns":[1,2]}"#).simulated, Some(vec![1, 2]));
        for broken in ["", "{", "[]", "7", "\"x\"", r#"{"choices":7}"#, r#"{"choices":[{"index":-1}]}"#] {
            assert!(Classifier::new(false).read(broken.as_bytes()).is_err(), "{broken}");
        }
        assert!(Classifier::new(false).read(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    }

    #[test]
    fn a_token_like_the_one_before_is_known_without_reading_json() {
        let event =
            |text: &str| format!(r#"{{"id":"c-1","choices":[{{"index":0,"text":"{text}","finish_reason":null}}]}}"#);
        let mut classifier = Classifier::new(true);
        assert_eq!(classifier.plain_token(event("a").as_bytes()), None, "nothing to compare with yet");
        classifier.read(event("a").as_bytes()).unwrap();
        assert_eq!(classifier.plain_token(event(" bc").as_bytes()), Some((0, " bc")));
        assert_eq!(classifier.plain_token(event("").as_bytes()), Some((0, "")));
        for other in [event("x\\n"), event("\",\"text\":\"y"), event("a").replace("null", "\"stop\""), "[DONE]".into()]
        {
            assert_eq!(classifier.plain_token(other.as_bytes()), None, "{other}");
        }
        let cut = &event("abc")[..30];
        assert_eq!(classifier.plain_token(cut.as_bytes()), None);
    }

    proptest::proptest! {
        /// Comparing and reading give the same, whatever stands in the text.
        #[test]
        fn comparing_is_exact(first in "[ -~]{0,12}", second in ".{0,12}", chat: bool) {
            let event = |text: &str| {
                let text = serde_json::to_string(text).unwrap();
                if chat {
                    format!(r#"{{"choices":[{{"index":1,"delta":{{"content":{text}}},"finish_reason":null}}]}}"#)
                } else {
                    format!(r#"{{"choices":[{{"index":1,"text":{text},"finish_reason":null}}]}}"#)
                }
            };
            let mut classifier = Classifier::new(true);
            classifier.read(event(&first).as_bytes()).unwrap();
            let payload = event(&second);
            if let Some((sample, text)) = classifier.plain_token(payload.as_bytes()) {
                let read = Classifier::new(true).read(payload.as_bytes()).unwrap();
                proptest::prop_assert_eq!(read.tokens, vec![Piece { sample, text: text.to_owned(), prints: !text.is_empty() }]);
            }
        }
    }
}

//! What one event of a completion says: a token, only a role, an error, the usage.
//!
//! The events of one stream are alike but for the text of the token. The first one is read as JSON; the next ones are
//! compared with it, byte by byte, around the text, and read as JSON only where they differ. That is exact: equal bytes
//! mean equal JSON, and the text in between is checked to be a plain JSON string.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use serde_json::value::RawValue;

use super::{Broken, excerpt};

/// Token counts as the server states them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(default, deserialize_with = "count")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answers, all samples together.
    #[serde(default, deserialize_with = "count")]
    pub completion_tokens: Option<u64>,
    /// More on the prompt.
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

impl Usage {
    /// Tokens of the prompt that came from the prefix cache, where the server says so. More than the prompt has are no count.
    pub fn cached_tokens(&self) -> Option<u64> {
        let cached = self.prompt_tokens_details?.cached_tokens?;
        self.prompt_tokens.is_none_or(|all| cached <= all).then_some(cached)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
}

/// A count: a whole number, also where it is written as `8.0`.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    /// Up to here every whole number is itself in binary64.
    const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = |value: &f64| value.fract() == 0.0 && (0.0..=MOST_EXACT).contains(value);
    let exact = number.as_u64().or_else(|| number.as_f64().filter(whole).map(|value| value as u64));
    exact.map(Some).ok_or_else(|| D::Error::custom(format!("`{number}` is no count")))
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
    /// Bytes of these in UTF-8.
    pub bytes: u64,
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
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
}

impl Event<'_> {
    /// The server's error: an `error`, an object that calls itself one, or a message in place of an answer.
    fn error<'t>(&'t self, text: &'t str) -> Option<&'t str> {
        let is_error = self.object.is_some_and(|object| object.get() == "\"error\"");
        let says = self.message.is_some() || self.detail.is_some();
        let instead = self.choices.is_none() && self.usage.is_none() && says;
        self.error.map(RawValue::get).or((is_error || instead).then_some(text))
    }
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, deserialize_with = "count")]
    index: Option<u64>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<Said<'a>>,
    #[serde(borrow, default)]
    message: Option<Said<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Reasons to finish that are none: the answer was given up (vLLM: `error`, `abort`).
const GIVEN_UP: [&str; 6] = ["error", "abort", "aborted", "cancelled", "canceled", "failed"];

impl Choice<'_> {
    /// Why the server gave this answer up, in its words.
    fn error(&self) -> Option<String> {
        if let Some(error) = self.error {
            return Some(excerpt(error.get().as_bytes(), MOST_WORDS));
        }
        let raw = self.finish_reason?.get();
        let reason: serde_json::Value = serde_json::from_str(raw).ok()?;
        let name = reason.as_str().or_else(|| reason.get("type")?.as_str())?;
        let given_up = GIVEN_UP.iter().any(|word| name.eq_ignore_ascii_case(word));
        given_up.then(|| format!("finish_reason {}", excerpt(raw.as_bytes(), MOST_WORDS)))
    }
}

/// How much of a server's error is kept, in bytes.
pub(super) const MOST_WORDS: usize = 400;

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

/// Bytes of a JSON string's text; of anything else, as it is written.
fn length(raw: Option<&RawValue>) -> u64 {
    let Some(raw) = raw.map(RawValue::get) else { return 0 };
    let bytes = match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => text.len(),
        _ => serde_json::from_str::<String>(raw).map_or(raw.len(), |text| text.len()),
    };
    bytes as u64
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

    /// Bytes of what is said. vLLM sends a thought under both names.
    fn bytes(&self) -> u64 {
        let thought = length(self.reasoning).max(length(self.reasoning_content));
        length(self.content).saturating_add(thought).saturating_add(length(self.tool_calls))
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
        let event: Event<'_> = serde_json::from_str(text).map_err(|cause| match cause.is_eof() {
            true => Broken::Unfinished { reason: cause.to_string(), excerpt: excerpt(payload, 160) },
            false => broken(&cause),
        })?;
        if let Some(error) = event.error(text) {
            return Ok(Chunk { error: Some(excerpt(error.as_bytes(), MOST_WORDS)), ..Chunk::default() });
        }
        let mut chunk = Chunk { usage: event.usage, ..Chunk::default() };
        let choices = event.choices.unwrap_or_default();
        chunk.choices = u32::try_from(choices.len()).unwrap_or(u32::MAX);
        for choice in &choices {
            let sample = u32::try_from(choice.index.unwrap_or(0)).unwrap_or(u32::MAX);
            chunk.error = chunk.error.take().or_else(|| choice.error());
            let ended = says_something(choice.finish_reason);
            chunk.finished += u32::from(ended);
            let said = choice.delta.as_ref().or(choice.message.as_ref());
            let (token, prints, bytes) = match said {
                Some(said) => (said.is_token(), said.says_something(), said.bytes()),
                None => (true, says_something(choice.text), length(choice.text)),
            };
            if ended && !prints {
                let by_length = choice.finish_reason.is_some_and(|reason| reason.get() == "\"length\"");
                chunk.ends.push(End { sample, by_length });
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
            chunk.tokens.push(Piece { sample, text: kept.unwrap_or_default(), prints, bytes });
            if !ended && choices.len() == 1 && chunk.usage.is_none() {
                self.learn(payload, sample, raw);
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
    fn usage_and_errors() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}"#;
        let usage = read(usage).usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens()), (Some(3), Some(5), Some(2)));
        let absurd: Usage =
            serde_json::from_str(r#"{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}"#).unwrap();
        assert_eq!(absurd.cached_tokens(), None, "more than the prompt has");
        assert!(read(r#"{"error":{"message":"no","code":500}}"#).error.unwrap().contains("no"));
        assert!(read(r#"{"object":"error","message":"old style"}"#).error.unwrap().contains("old style"));
        for broken in ["", "{", "[]", "7", "\"x\"", r#"{"choices":7}"#, r#"{"choices":[{"index":-1}]}"#] {
            assert!(Classifier::new(false).read(broken.as_bytes()).is_err(), "{broken}");
        }
        assert!(Classifier::new(false).read(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    }

    #[test]
    fn an_answer_that_was_given_up_is_an_error_in_the_server_s_words() {
        let error = |payload: &str| read(payload).error;
        for reason in ["\"error\"", "\"abort\"", "\"Aborted\"", r#"{"type":"abort","message":"boom"}"#] {
            let said = error(&format!(r#"{{"choices":[{{"index":0,"text":"x","finish_reason":{reason}}}]}}"#));
            assert_eq!(said, Some(format!("finish_reason {reason}")));
        }
        let chat = r#"{"choices":[{"index":0,"delta":{},"error":{"message":"boom"},"finish_reason":"error"}]}"#;
        assert_eq!(error(chat).as_deref(), Some(r#"{"message":"boom"}"#));
        for instead in [r#"{"message":"boom"}"#, r#"{"detail":"boom"}"#] {
            assert_eq!(error(instead).as_deref(), Some(instead));
        }
        for reason in ["null", "\"stop\"", "\"length\"", "\"tool_calls\"", "7", "{\"type\":\"stop\"}"] {
            let payload =
                format!(r#"{{"error":null,"choices":[{{"text":"x","error":null,"finish_reason":{reason}}}]}}"#);
            assert_eq!(error(&payload), None);
        }
        assert_eq!(error(r#"{"message":"m","choices":[{"text":"x"}]}"#), None);
        assert_eq!(error(r#"{"type":"ping"}"#), None);
    }

    #[test]
    fn counts_are_whole_numbers_however_they_are_written() {
        let count = |number: &str| {
            let usage =
                format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{number},"completion_tokens":{number}}}}}"#);
            let usage = Classifier::new(false).read(usage.as_bytes()).ok()?.usage?;
            assert_eq!(usage.prompt_tokens, usage.completion_tokens);
            Some(usage.completion_tokens)
        };
        for (number, expected) in [
            ("8", Some(Some(8))),
            ("8.0", Some(Some(8))),
            ("8e0", Some(Some(8))),
            ("18446744073709551615", Some(Some(u64::MAX))),
            ("null", Some(None)),
            ("8.5", None),
            ("-8", None),
            ("-8.0", None),
            ("1e30", None),
            ("\"8\"", None),
        ] {
            assert_eq!(count(number), expected, "{number}");
        }
        assert_eq!(tokens(r#"{"choices":[{"index":2.0,"text":"b"}]}"#), [(2, "b".to_owned())]);
    }

    #[test]
    fn the_bytes_of_a_text_are_those_that_it_says() {
        let bytes = |payload: &str| read(payload).tokens[0].bytes;
        assert_eq!(bytes(r#"{"choices":[{"text":"ab\u00e9\n"}]}"#), 5);
        assert_eq!(bytes(r#"{"choices":[{"delta":{"content":"ab","reasoning":"cde","reasoning_content":"cde"}}]}"#), 5);
        assert!(bytes(r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}"#) > 10);
        assert_eq!(bytes(r#"{"choices":[{"text":""}]}"#), 0);
    }

    #[test]
    fn the_beginning_of_json_is_told_from_what_is_none() {
        let error = |payload: &str| Classifier::new(false).read(payload.as_bytes()).unwrap_err();
        assert!(matches!(error(r#"{"choices":"#), Broken::Unfinished { .. }));
        assert!(matches!(error(r#"{"choices":}"#), Broken::Event { .. }));
        assert!(matches!(error("garbage"), Broken::Event { .. }));
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
                let (prints, bytes) = (!text.is_empty(), text.len() as u64);
                proptest::prop_assert_eq!(read.tokens, vec![Piece { sample, text: text.to_owned(), prints, bytes }]);
            }
        }
    }
}

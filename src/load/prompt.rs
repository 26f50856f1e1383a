//! What a request asks: a prompt, how long it is, and how long its answer may be.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool` or another one that the chat template knows.
    pub role: String,
    /// What is said: a text, a list of parts (`{"type": "text", "text": …}`), or nothing beside tool calls.
    #[serde(default)]
    pub content: Value,
    /// Whatever else it has (`tool_calls`, `tool_call_id`, `name`, `reasoning_content`): sent as it is.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Message {
    /// A text.
    pub fn new(role: &str, text: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: Value::String(text.into()), more: Map::new() }
    }

    /// Its text; parts are joined by line ends, as vLLM joins them.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                let texts: Vec<&str> =
                    parts.iter().filter_map(|part| part.as_str().or(part.get("text")?.as_str())).collect();
                texts.join("\n")
            }
            _ => String::new(),
        }
    }

    /// The type of its first part that is no text, as `image_url`.
    pub fn beyond_text(&self) -> Option<&str> {
        let parts = self.content.as_array()?;
        parts
            .iter()
            .filter_map(|part| part.get("type")?.as_str())
            .find(|kind| !matches!(*kind, "text" | "input_text" | "output_text" | "refusal" | "thinking"))
    }

    /// What is wrong with its form, if anything.
    pub fn fault(&self) -> Option<String> {
        match &self.content {
            Value::String(_) => None,
            Value::Null if self.role == "assistant" => None,
            Value::Array(parts) => {
                let is_part = |part: &Value| {
                    let kind = part.get("type").and_then(Value::as_str);
                    part.is_string()
                        || kind.is_some_and(|kind| kind != "text" || part.get("text").is_some_and(Value::is_string))
                };
                let at = parts.iter().position(|part| !is_part(part))?;
                Some(format!("part {} of a `content` is no {{type, text}}", at + 1))
            }
            Value::Null => Some(format!("a message of role `{}` has no `content`", self.role)),
            _ => Some("`content` is neither a text nor a list of parts".into()),
        }
    }
}

/// A prompt in one of the forms that an OpenAI-compatible server takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text: `prompt` of completions, one user message of a chat.
    Text(String),
    /// Token ids: `prompt` of completions only.
    TokenIds(Vec<u32>),
    /// Messages: `messages` of a chat; a completion gets them through the model's chat template.
    Messages(Vec<Message>),
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What is sent.
    pub content: Content,
    /// Tokens of it as counted here, as vLLM's client counts them (without what a chat template adds on the server);
    /// `None` where nothing could count them: the server's usage says it then.
    pub prompt_len: Option<u64>,
    /// Tokens to ask for at most; `None` = the server's default.
    pub output_len: Option<u64>,
    /// Name of the prompt in its source (`prompt_id`), else its number.
    pub id: Option<String>,
}

/// Where prompts come from. The same source gives the same prompt for the same number, in any process and from any
/// thread: `prompt` is a pure function of the source and the number.
pub trait PromptSource: Send + Sync + std::fmt::Debug {
    /// How many different prompts there are; `None` = as many as asked for (generated ones).
    fn available(&self) -> Option<u64>;

    /// The prompt with a number, from 0.
    ///
    /// # Errors
    /// When it cannot be made, as where a server is asked to count its tokens.
    fn prompt(&self, index: u64) -> Result<Prompt, super::dataset::Error>;
}

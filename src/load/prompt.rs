//! What a request asks: a prompt, how long it is, and how long its answer may be.

use serde::{Deserialize, Serialize};

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
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

//! The model's tokenizer: from its files, or through the server.

use super::prompt::Message;

/// Counts and makes tokens as the model does.
pub trait Tokenizer: Send + Sync + std::fmt::Debug {
    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// When the text cannot be encoded, or the server does not answer.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// Token ids of a text with the special tokens that the tokenizer adds by default (as calling a Hugging Face tokenizer
    /// does, which is how vLLM's client counts the tokens of data sets).
    ///
    /// # Errors
    /// As `encode`.
    fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// The text of token ids.
    ///
    /// # Errors
    /// As `encode`.
    fn decode(&self, ids: &[u32]) -> Result<String, Error>;

    /// `vocab_size` of a Hugging Face tokenizer: without added tokens.
    fn vocab_size(&self) -> u32;

    /// Ids that random prompts never contain (`all_special_ids`).
    fn special_ids(&self) -> &[u32];

    /// How many special tokens are added to a single sequence (`num_special_tokens_to_add`).
    fn special_tokens_added(&self) -> u32;

    /// The text of messages through the model's chat template, with the prompt for the answer.
    ///
    /// # Errors
    /// When there is no chat template, or it refuses the messages.
    fn chat(&self, messages: &[Message]) -> Result<String, Error>;
}

/// Why tokens could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Placeholder until the real ones stand.
    #[error("tokenizer: {0}")]
    Other(String),
}

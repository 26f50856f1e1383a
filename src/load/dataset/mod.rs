//! Data sets: from a file, a cache or the hub to prompts.

/// Why there are no prompts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::Error),
}

//! The model's tokenizer: from its files, or through the server.

mod conversation;
mod growth;
mod hf;
mod server;
mod special;
mod template;

#[cfg(test)]
pub(crate) use hf::tests::words as test_words;

use std::path::PathBuf;

use super::prompt::Message;

pub use conversation::Conversation;
pub use hf::HfTokenizer;
pub use server::ServerTokenizer;
pub use template::ChatTemplate;

/// Whose reading of `tokenizer_config.json` counts. The same files give other tokens: transformers 4 lets the class of the
/// tokenizer put `bos_token` before texts (`add_bos_token`), and cleans spaces before punctuation when ids become text
/// (`clean_up_tokenization_spaces`); transformers 5 does neither where there is a `tokenizer.json` with BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rules {
    /// vLLM up to 0.19 (measured with transformers 4.57).
    #[default]
    Transformers4,
    /// vLLM from 0.20 on (measured with transformers 5.24).
    Transformers5,
}

impl Rules {
    /// Those of a release of vLLM, as in `0.14.1`.
    pub fn of_vllm(version: &str) -> Option<Self> {
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(if (major, minor) >= (0, 20) { Self::Transformers5 } else { Self::Transformers4 })
    }
}

/// Counts and makes tokens as the model does.
pub trait Tokenizer: Send + Sync + std::fmt::Debug {
    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// When the text cannot be encoded, or the server does not answer.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// Tokens of a text with the special ones that the tokenizer adds by default (as calling a Hugging Face tokenizer does,
    /// which is how vLLM's client counts the tokens of data sets).
    ///
    /// # Errors
    /// As `encode`.
    fn count_with_special(&self, text: &str) -> Result<u64, Error>;

    /// The text of token ids.
    ///
    /// # Errors
    /// As `encode`.
    fn decode(&self, ids: &[u32]) -> Result<String, Error>;

    /// `vocab_size` of a Hugging Face tokenizer: without added tokens.
    fn vocab_size(&self) -> u32;

    /// Ids that random prompts never contain (`all_special_ids`).
    fn special_ids(&self) -> &[u32];

    /// Special tokens that are added to a single sequence (`num_special_tokens_to_add`).
    fn special_tokens_added(&self) -> u32;

    /// Whether each call is a request to the server: none is to be made while that is measured.
    fn is_remote(&self) -> bool {
        false
    }

    /// The text of messages through the model's chat template, with the prompt for the answer.
    ///
    /// # Errors
    /// When there is no chat template, or it refuses the messages.
    fn chat(&self, messages: &[Message]) -> Result<String, Error>;

    /// Tokens of messages as the server counts them: through the chat template, which has the special tokens in it.
    ///
    /// # Errors
    /// As `chat`.
    fn count_chat(&self, messages: &[Message]) -> Result<u64, Error> {
        Ok(self.encode(&self.chat(messages)?)?.len() as u64)
    }
}

/// Why tokens cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such tokenizer.
    #[error("there is no tokenizer of `{name}`: looked for tokenizer.json in {}", places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NotFound {
        /// As asked for.
        name: String,
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// A file of it cannot be read.
    #[error("cannot read the tokenizer `{}`: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tokenizer refuses a text.
    #[error("the tokenizer refuses a text: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// No chat template, or one that refuses.
    #[error("cannot apply the chat template of the model: {reason}")]
    Template {
        /// Why.
        reason: String,
    },
    /// The server did not answer.
    #[error("the server does not count tokens at `{url}`: {reason}")]
    Server {
        /// What was asked.
        url: String,
        /// What came.
        reason: String,
    },
}

/// Where models lie that were fetched from Hugging Face's hub.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub hub: Option<PathBuf>,
}

impl Cache {
    /// The newest snapshot of a repository (`models` or `datasets`), if there is one.
    pub fn snapshot(&self, kind: &str, name: &str) -> Option<PathBuf> {
        let folder = self.hub.as_ref()?.join(format!("{kind}--{}", name.replace('/', "--")));
        let named = crate::bounded::read_text(&folder.join("refs/main"), crate::bounded::NOTE)
            .ok()
            .map(|revision| folder.join("snapshots").join(revision.trim()))
            .filter(|path| path.is_dir());
        named.or_else(|| {
            let mut all: Vec<PathBuf> =
                std::fs::read_dir(folder.join("snapshots")).ok()?.flatten().map(|entry| entry.path()).collect();
            all.sort_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
            all.pop()
        })
    }
}

/// Finds a tokenizer: a folder, a `tokenizer.json`, or a name in the cache.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn find(name: &str, cache: &Cache, rules: Rules) -> Result<HfTokenizer, Error> {
    let path = PathBuf::from(name);
    let mut places = Vec::new();
    let candidates = [Some(path), cache.snapshot("models", name)];
    for path in candidates.into_iter().flatten() {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path };
        // What is no regular file is named by its reader.
        if file.exists() {
            return HfTokenizer::load(&file, rules);
        }
        let file = if file.ends_with("tokenizer.json") { file } else { file.join("tokenizer.json") };
        places.push(file);
    }
    Err(Error::NotFound { name: name.to_owned(), places })
}

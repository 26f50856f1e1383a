//! Data sets: from a seed, a file, a cache or the hub to prompts.

mod candidate;
mod hub;
pub mod numpy;
mod rag;
mod random;
mod rows;
mod sonnet;
mod texts;

use std::path::PathBuf;
use std::sync::Arc;

use super::prompt::{Content, Message, Prompt, PromptSource};
use super::target::Secret;
use super::tokenizer::{self, Tokenizer};

pub use random::{Random, Words};
pub use texts::{messages_of, plain};

/// Why there are no prompts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A flag has a value that does not fit.
    #[error("`--{flag}` is {found}: {expected}")]
    Flag {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A data set needs something that is not there.
    #[error("{what} needs {needs}")]
    Needs {
        /// Which data set.
        what: &'static str,
        /// What it needs, and the next step.
        needs: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}`{}: {reason}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: Option<u64>,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// The hub did not give it.
    #[error("cannot get the data set `{name}`: {reason}")]
    Hub {
        /// Which one.
        name: String,
        /// Why.
        reason: String,
    },
    /// Fewer prompts than asked for.
    #[error("{asked} prompts were asked for and {name} has {available} ({filters}): each is used once")]
    TooFew {
        /// Which data set.
        name: String,
        /// How many were asked for.
        asked: u64,
        /// How many there are.
        available: u64,
        /// What was left out.
        filters: String,
    },
}

/// Prompts that are all made: a list.
#[derive(Debug)]
pub struct List {
    prompts: Vec<Prompt>,
    /// Begin again at the end.
    again: bool,
}

impl List {
    /// Prompts in this order; `again` = more than there are may be asked for.
    pub fn new(prompts: Vec<Prompt>, again: bool) -> Self {
        Self { prompts, again }
    }
}

impl PromptSource for List {
    fn available(&self) -> Option<u64> {
        (!self.again).then_some(self.prompts.len() as u64)
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        let length = self.prompts.len() as u64;
        let at = if self.again { index % length.max(1) } else { index };
        let prompt = usize::try_from(at).ok().and_then(|at| self.prompts.get(at)).cloned();
        prompt.ok_or_else(|| Error::TooFew {
            name: "the data set".into(),
            asked: index + 1,
            available: length,
            filters: "after all filters".into(),
        })
    }
}

/// Prompts with a system message before each.
#[derive(Debug)]
pub struct WithSystem {
    inner: Source,
    text: String,
}

impl WithSystem {
    /// Puts `text` before every prompt of `inner`.
    pub fn new(inner: Source, text: String) -> Self {
        Self { inner, text }
    }
}

impl PromptSource for WithSystem {
    fn available(&self) -> Option<u64> {
        self.inner.available()
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        let prompt = self.inner.prompt(index)?;
        let mut messages = vec![Message::new("system", self.text.clone())];
        match prompt.content {
            Content::Text(text) => messages.push(Message::new("user", text)),
            Content::Messages(more) => messages.extend(more.into_iter().filter(|message| message.role != "system")),
            ids @ Content::TokenIds(_) => return Ok(Prompt { content: ids, ..prompt }),
        }
        // The server's usage counts what the system message adds.
        Ok(Prompt { content: Content::Messages(messages), prompt_len: None, ..prompt })
    }
}

/// Made prompts for a chat: how long the chat template makes them is not known here, and the server's usage says it.
#[derive(Debug)]
struct ForChat(Source);

impl PromptSource for ForChat {
    fn available(&self) -> Option<u64> {
        self.0.available()
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        Ok(Prompt { prompt_len: None, ..self.0.prompt(index)? })
    }
}

/// A source that many threads ask.
pub type Source = Arc<dyn PromptSource>;

/// A tokenizer that many threads ask.
pub type SharedTokenizer = Arc<dyn Tokenizer>;

/// Which data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// Prompts of exact length without meaning.
    Random,
    /// Prefixes, each before many suffixes.
    #[value(name = "prefix_repetition", alias = "prefix-repetition")]
    PrefixRepetition,
    /// ShareGPT's conversations.
    #[value(name = "sharegpt")]
    ShareGpt,
    /// Lines of a poem.
    Sonnet,
    /// vLLM's JSONL, or S3's prepared prompts.
    Custom,
    /// One text, or the lines of one.
    Text,
    /// A file with columns.
    File,
    /// A data set of the hub.
    Hf,
    /// Databricks' Dolly.
    Dolly,
    /// Stanford's Alpaca.
    Alpaca,
    /// OpenAssistant's first questions.
    #[value(name = "openassistant")]
    OpenAssistant,
    /// Passages with a question.
    Rag,
}

impl Name {
    /// All names, with what they stand for.
    pub const ALL: [(&'static str, Self, &'static str); 12] = [
        ("random", Self::Random, "made from the tokenizer: exact lengths, no meaning; those of vLLM's client"),
        (
            "prefix_repetition",
            Self::PrefixRepetition,
            "made from the tokenizer: some prefixes, each before many suffixes",
        ),
        (
            "sharegpt",
            Self::ShareGpt,
            "ShareGPT's JSON: first questions, as many tokens as the answers (--dataset-path)",
        ),
        ("sonnet", Self::Sonnet, "lines of a text, some of them shared by all prompts (--dataset-path)"),
        ("custom", Self::Custom, "JSONL with `prompt` or `messages`, `output_tokens` (--dataset-path)"),
        ("text", Self::Text, "one text for all (--prompt), or each line of a file (--dataset-path)"),
        ("file", Self::File, "a column of a parquet, JSONL, JSON or CSV file (--dataset-path, --prompt-column)"),
        ("hf", Self::Hf, "a data set of Hugging Face's hub or its cache (--dataset-path ORG/NAME)"),
        ("dolly", Self::Dolly, "databricks/databricks-dolly-15k: instructions with context, 50 tokens and more"),
        ("alpaca", Self::Alpaca, "tatsu-lab/alpaca: instructions with input, 50 tokens and more"),
        ("openassistant", Self::OpenAssistant, "OpenAssistant/oasst1: first questions, 50 tokens and more"),
        ("rag", Self::Rag, "passages of a text with a question and earlier turns, --input-len tokens"),
    ];

    /// The data set that a file stands for.
    pub fn of_path(path: &str) -> Self {
        let path = std::path::Path::new(path);
        match path.extension().and_then(|end| end.to_str()) {
            Some("txt" | "text" | "md") => Self::Text,
            Some("parquet" | "csv" | "tsv" | "jsonl" | "json") => Self::File,
            _ if path.is_file() => Self::File,
            _ => Self::Hf,
        }
    }
}

/// How the hub is reached.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    /// What was fetched before.
    pub cache: tokenizer::Cache,
    /// Its address.
    pub endpoint: String,
    /// The user's token.
    pub token: Option<Secret>,
    /// Nothing may be fetched.
    pub offline: bool,
}

/// What prompts are asked for.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Which data set.
    pub name: Name,
    /// File or name of it.
    pub path: Option<String>,
    /// The one prompt of `text`.
    pub text: Option<String>,
    /// How many prompts.
    pub count: u64,
    /// For all choices.
    pub seed: u64,
    /// Tokens of made prompts; the middle of S3's filter.
    pub input_len: u64,
    /// Tokens of answers; `None` = as the data set says.
    pub output_len: Option<u64>,
    /// Lengths of made prompts vary by this part.
    pub range_ratio: f64,
    /// Tokens that made prompts begin with.
    pub prefix_len: u64,
    /// Token ids rather than text.
    pub token_ids: bool,
    /// Suffix tokens of `prefix_repetition`.
    pub suffix_len: u64,
    /// Prefixes of `prefix_repetition`.
    pub prefixes: u64,
    /// Column with the prompt.
    pub column: Option<String>,
    /// Text around it.
    pub template: Option<String>,
    /// Subset of a data set of the hub.
    pub subset: Option<String>,
    /// Split of a data set of the hub.
    pub split: Option<String>,
    /// Name of a data set whose files `path` has.
    pub hub_name: Option<String>,
    /// Fewest tokens of a prompt.
    pub min_tokens: Option<u64>,
    /// Most tokens of a prompt.
    pub max_tokens: Option<u64>,
    /// Earlier turns of `rag`.
    pub history_turns: u64,
    /// Mix the order.
    pub shuffle: bool,
    /// Use prompts again when there are too few.
    pub again: bool,
    /// Completions get custom prompts through the model's chat template.
    pub chat_template: bool,
    /// The endpoint takes messages.
    pub chat: bool,
    /// How the hub is reached.
    pub hub: Hub,
}

/// Opens a data set.
///
/// # Errors
/// When it cannot be read, or has too few prompts.
pub fn open(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Source, Error> {
    let is_made = matches!(spec.name, Name::Random | Name::PrefixRepetition);
    if matches!(spec.name, Name::PrefixRepetition | Name::Sonnet | Name::Rag) {
        held(spec)?;
    }
    let source = open_any(spec, tokenizer)?;
    Ok(if is_made && spec.chat { Arc::new(ForChat(source)) } else { source })
}

/// Tokens of prompts that are all held in memory: about 4 GB of text.
const MOST_HELD: u64 = 1 << 30;

/// Whether the prompts of a data set may all be held in memory.
///
/// # Errors
/// When they would have too many tokens.
pub fn held(spec: &Spec) -> Result<(), Error> {
    let tokens = match spec.name {
        Name::PrefixRepetition => spec.prefix_len.saturating_add(spec.suffix_len),
        Name::Random => spec.prefix_len.saturating_add(spec.input_len),
        _ => spec.input_len,
    };
    let most = MOST_HELD / tokens.max(1);
    if spec.count <= most {
        return Ok(());
    }
    let found = if spec.count == u64::MAX { "not given".into() } else { spec.count.to_string() };
    let expected = format!("expected at most {most} of {tokens} tokens each: they are all held in memory");
    Err(Error::Flag { flag: "num-prompts", found, expected })
}

fn open_any(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Source, Error> {
    match (spec.name, tokenizer) {
        (Name::Random, Some(tokenizer)) => Random {
            input_len: spec.input_len,
            output_len: spec.output_len.unwrap_or(128),
            range_ratio: spec.range_ratio,
            prefix_len: spec.prefix_len,
            count: spec.count,
            seed: spec.seed,
            token_ids: spec.token_ids,
        }
        .open(tokenizer),
        (Name::Random, None) => Ok(Arc::new(Words {
            input_len: spec.input_len,
            output_len: spec.output_len.unwrap_or(128),
            seed: spec.seed,
        })),
        (Name::PrefixRepetition, Some(tokenizer)) => {
            let lengths = (spec.prefix_len, spec.suffix_len);
            let output = spec.output_len.unwrap_or(128);
            let numbers = (spec.count, spec.seed);
            let prompts = random::prefix_repetition(tokenizer.as_ref(), lengths, spec.prefixes, output, numbers)?;
            Ok(Arc::new(List::new(prompts, spec.again)))
        }
        (Name::PrefixRepetition, None) => Err(Error::Needs {
            what: "prefix_repetition",
            needs: "the model's tokenizer: name it with --tokenizer".into(),
        }),
        (_, tokenizer) => Ok(Arc::new(List::new(texts::open(spec, tokenizer)?, spec.again))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Some data set, one prompt.
    pub fn spec(name: Name) -> Spec {
        Spec {
            name,
            path: None,
            text: None,
            count: 1,
            seed: 1,
            input_len: 100,
            output_len: Some(16),
            range_ratio: 0.0,
            prefix_len: 0,
            token_ids: false,
            suffix_len: 4,
            prefixes: 2,
            column: None,
            template: None,
            subset: None,
            split: None,
            hub_name: None,
            min_tokens: None,
            max_tokens: None,
            history_turns: 2,
            shuffle: true,
            again: false,
            chat_template: true,
            chat: false,
            hub: Hub { offline: true, ..Hub::default() },
        }
    }

    #[test]
    fn prompts_that_are_all_held_are_refused_where_they_are_too_many() {
        for name in [Name::PrefixRepetition, Name::Sonnet, Name::Rag] {
            for count in [1 << 40, u64::MAX] {
                let error = open(&Spec { count, ..spec(name) }, None).unwrap_err().to_string();
                assert!(error.contains("--num-prompts") && error.contains("held in memory"), "{error}");
            }
        }
    }

    #[test]
    fn a_list_ends_or_begins_again() {
        let one = Spec { text: Some("a".into()), count: 2, ..spec(Name::Text) };
        let source = open(&one, None).unwrap();
        assert_eq!((source.available(), source.prompt(1).is_ok(), source.prompt(2).is_err()), (Some(2), true, true));
        let source = open(&Spec { again: true, ..one }, None).unwrap();
        assert_eq!((source.available(), source.prompt(7).is_ok()), (None, true));
    }
}

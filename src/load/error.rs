//! Why there is no workload, whatever part of it says so.

use super::{dataset, server, session, target, tokenizer};

/// A workload could not be made or run. (A request that failed is no error but a [`super::sample::Failure`].)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address.
    #[error(transparent)]
    Target(#[from] target::Error),
    /// The server does not say what it serves.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// The prompts.
    #[error("there are no prompts to send")]
    Dataset(#[source] dataset::Error),
    /// The workload itself.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The server did not answer a first request in time.
    #[error("the server did not answer a first request within {seconds} s: {last}")]
    NotReady {
        /// The limit.
        seconds: u64,
        /// What was seen last.
        last: String,
    },
}

impl Error {
    /// Whether something outside of the command line is to blame.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Session(session::Error::Prompts { source: dataset::Error::Tokenizer(error), .. }) => {
                matches!(error, tokenizer::Error::Server { .. })
            }
            Self::Server(_) | Self::NotReady { .. } | Self::Session(_) => true,
            Self::Target(target::Error::Address { .. }) => false,
            Self::Target(_) => true,
            Self::Tokenizer(error) => matches!(error, tokenizer::Error::Server { .. }),
            Self::Dataset(error) => matches!(error, dataset::Error::Hub { .. }),
        }
    }

    /// The next steps.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Target(target::Error::Address { .. }) => "write --base-url http://HOST:PORT, or --host and --port",
            Self::Target(_) => "check the name, or give the address itself",
            Self::Server(_) => "is the server up? `curl URL/health`; --model names the model without asking",
            Self::NotReady { .. } => "look into the server's log; --ready-check-timeout-sec waits longer",
            Self::Tokenizer(tokenizer::Error::NotFound { .. }) => {
                "give --tokenizer the folder with the model's tokenizer.json, or `none` to let the server count"
            }
            Self::Tokenizer(_) => "--tokenizer none lets the server count the tokens",
            Self::Dataset(error) | Self::Session(session::Error::Prompts { source: error, .. }) => match error {
                dataset::Error::TooFew { .. } => {
                    "ask for fewer (--num-prompts), widen --min-tokens and --max-tokens-filter, or add --oversample"
                }
                dataset::Error::Tokenizer(_) | dataset::Error::Needs { .. } => {
                    "`vllm-bench prompts list` shows what each data set needs"
                }
                dataset::Error::Hub { .. } => "HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE say how the hub is reached",
                _ => "`vllm-bench prompts inspect` shows what would be sent",
            },
            Self::Session(_) => "if it happens again, please report it with the command",
        };
        vec![hint.to_owned()]
    }
}

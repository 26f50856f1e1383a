//! `prompts render`: the text that a chat template makes of messages, as Hugging Face transformers makes it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::cli::{PromptArgs, PromptsRenderArgs};
use crate::config::{Environment, TokenizerChoice, resolve_prompts};
use crate::error::Error;
use crate::exit;
use crate::load::dataset;
use crate::load::error as load;
use crate::load::tokenizer::{self, ChatTemplate, Conversation, HfTokenizer, Tokenizer};
use crate::ui::Ui;

/// Where the text comes from.
enum Renderer {
    /// A template by itself; special tokens are variables of the conversation.
    Alone(Template),
    /// A model's tokenizer, with a template of its own or another one.
    Model(Box<HfTokenizer>, Option<Template>),
}

/// A template that the user named.
struct Template {
    compiled: ChatTemplate,
    file: PathBuf,
}

impl Template {
    fn read(path: &Path, environment: &Environment) -> Result<Self, Error> {
        let text = read(&environment.absolute(path))?;
        let file = path.to_owned();
        let compiled = ChatTemplate::new(&text).map_err(|reason| Error::Load(refused(&reason, &file).into()))?;
        Ok(Self { compiled, file })
    }
}

fn refused(reason: &str, file: &Path) -> tokenizer::Error {
    tokenizer::Error::Template { reason: format!("{reason}, in `{}`", file.display()) }
}

/// Runs `prompts render`.
///
/// # Errors
/// When a file cannot be read, or a template refuses a conversation.
pub fn run(args: &PromptsRenderArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let template = args.chat_template.as_ref().map(|path| Template::read(path, environment)).transpose()?;
    let flags =
        PromptArgs { tokenizer: args.tokenizer.clone(), tokenizer_mode: args.tokenizer_mode, ..PromptArgs::default() };
    let settings = resolve_prompts(&flags, 0, environment)?;
    let renderer = match (&settings.tokenizer, template) {
        (TokenizerChoice::Named(name), template) => {
            let found = tokenizer::find(name, &settings.cache, settings.rules.unwrap_or_default());
            Renderer::Model(Box::new(found.map_err(|error| Error::Load(error.into()))?), template)
        }
        (_, Some(template)) => Renderer::Alone(template),
        (_, None) => {
            return Err(Error::Usage {
                message: "prompts render needs a template".into(),
                hint: "name a file with --chat-template, or a model with --tokenizer".into(),
            });
        }
    };
    let mut refused = false;
    for conversation in conversations(&environment.absolute(&args.messages))? {
        let answer = renderer.render(&conversation, args.special_tokens);
        match (args.output.is_json(), answer) {
            (true, Ok((text, tokens))) => ui.out(&json!({"text": text, "tokens": tokens}).to_string()),
            (true, Err(error)) => {
                refused = true;
                ui.out(&json!({"error": error.to_string()}).to_string());
            }
            (false, Ok((text, _))) => ui.out_raw(text.as_bytes()),
            (false, Err(error)) => return Err(Error::Load(error.into())),
        }
    }
    Ok(if refused { exit::EXPERIMENT_FAILED } else { exit::OK })
}

impl Renderer {
    /// The text, and how many tokens it has where a tokenizer is there.
    fn render(&self, conversation: &Conversation, special: bool) -> Result<(String, Option<u64>), tokenizer::Error> {
        let own = |template: &Template, named: &Map<String, Value>| {
            let rendered = template.compiled.render(&conversation.variables(named));
            rendered.map_err(|reason| refused(&reason, &template.file))
        };
        let (text, model) = match self {
            Self::Alone(template) => return Ok((own(template, &Map::new())?, None)),
            Self::Model(model, Some(template)) => (own(template, model.named_tokens())?, model),
            Self::Model(model, None) => (model.render(conversation)?, model),
        };
        let tokens = if special { model.count_with_special(&text)? } else { model.encode(&text)?.len() as u64 };
        Ok((text, Some(tokens)))
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| {
        let path = path.to_owned();
        Error::Load(load::Error::Dataset(dataset::Error::File { path, source }))
    };
    crate::bounded::read_named(path, crate::bounded::RESULT).map_err(failed)
}

/// The conversations of a file: one as JSON, or one on each line.
fn conversations(path: &Path) -> Result<Vec<Conversation>, Error> {
    let text = read(path)?;
    let wrong = |line: Option<u64>, reason: String| {
        let path = path.to_owned();
        Error::Load(load::Error::Dataset(dataset::Error::Format { path, line, reason }))
    };
    if let Ok(whole) = serde_json::from_str::<Value>(&text) {
        return Ok(vec![Conversation::of_json(whole).map_err(|reason| wrong(None, reason))?]);
    }
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let value: Value = serde_json::from_str(text).map_err(|error| wrong(Some(line), error.to_string()))?;
        found.push(Conversation::of_json(value).map_err(|reason| wrong(Some(line), reason))?);
    }
    if found.is_empty() { Err(wrong(None, "it has no conversation".into())) } else { Ok(found) }
}

//! `prompts render`: the text that a chat template makes of messages, as Hugging Face transformers makes it.

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
    Alone(ChatTemplate),
    /// A model's tokenizer, with a template of its own or another one.
    Model(Box<HfTokenizer>, Option<ChatTemplate>),
}

/// Runs `prompts render`.
///
/// # Errors
/// When a file cannot be read, or a template refuses a conversation.
pub fn run(args: &PromptsRenderArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let template = match &args.chat_template {
        Some(path) => {
            let text = read(&environment.absolute(path))?;
            let compiled = ChatTemplate::new(&text);
            Some(compiled.map_err(|reason| template_refused(&format!("{reason}, in `{}`", path.display())))?)
        }
        None => None,
    };
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

fn template_refused(reason: &str) -> Error {
    Error::Load(tokenizer::Error::Template { reason: reason.to_owned() }.into())
}

impl Renderer {
    /// The text, and how many tokens it has where a tokenizer is there.
    fn render(&self, conversation: &Conversation, special: bool) -> Result<(String, Option<u64>), tokenizer::Error> {
        let own = |template: &ChatTemplate, named: &Map<String, Value>| {
            template.render(&conversation.variables(named)).map_err(|reason| tokenizer::Error::Template { reason })
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

fn read(path: &std::path::Path) -> Result<String, Error> {
    let failed = |source| {
        let path = path.to_owned();
        Error::Load(load::Error::Dataset(dataset::Error::File { path, source }))
    };
    if !path.is_file() {
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The conversations of a file: one as JSON, or one on each line.
fn conversations(path: &std::path::Path) -> Result<Vec<Conversation>, Error> {
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

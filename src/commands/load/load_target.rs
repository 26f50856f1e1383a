//! What a workload is aimed at: server, model, tokenizer.

use std::sync::Arc;

use crate::config::{LoadSettings, TokenizerChoice};
use crate::error::Error;
use crate::load::dataset::{Name, SharedTokenizer};
use crate::load::server::{Model, Server};
use crate::load::target::Target;
use crate::load::tokenizer::{self, Cache, HfTokenizer, Rules, ServerTokenizer};
use crate::ui::Ui;

/// Everything that all workloads of a sweep share.
#[derive(Debug)]
pub struct Prepared {
    /// Where requests go.
    pub target: Target,
    /// For everything that is not a request of the workload.
    pub server: Server,
    /// The model, as the user or the server names it.
    pub model_id: String,
    /// Its name in requests.
    pub model: String,
    /// What is written as the tokenizer.
    pub tokenizer_id: String,
    /// It.
    pub tokenizer: Option<SharedTokenizer>,
    /// The server is a simulated one.
    pub is_simulated: bool,
}

/// Asks the server and opens the tokenizer.
pub(super) async fn prepare(settings: &LoadSettings, ui: &Ui) -> Result<Prepared, Error> {
    let target = Target::new(&settings.base_url, &settings.endpoint, settings.insecure)?;
    let server = Server::new(&target.base, settings.api_key.clone(), settings.headers.clone(), settings.insecure)
        .map_err(load)?;
    let models = server.models().await;
    let first = models.as_ref().ok().and_then(|models| models.first().cloned());
    let (model_id, model) = match (&settings.model, &settings.served_model_name) {
        (Some(model), served) => (model.clone(), served.clone().unwrap_or_else(|| model.clone())),
        (None, Some(served)) => (served.clone(), served.clone()),
        (None, None) => {
            let first = models.map_err(load)?.swap_remove(0);
            ui.say(&format!("model of the server: {}", first.id));
            // vLLM's client: the root is the model's id, and the id its name in requests.
            (first.root.unwrap_or_else(|| first.id.clone()), first.id)
        }
    };
    let is_simulated = settings.simulated || first.as_ref().is_some_and(|model| model.simulated);
    let rules = match (settings.prompts.rules, &settings.prompts.tokenizer) {
        (Some(rules), _) => rules,
        (None, TokenizerChoice::Absent) => Rules::default(),
        (None, _) => server.version().await.and_then(|version| Rules::of_vllm(&version)).unwrap_or_default(),
    };
    let names = (model_id.as_str(), model.as_str());
    let (tokenizer_id, tokenizer) = tokenizer_of(settings, &target, names, first.as_ref(), rules, ui).await?;
    Ok(Prepared { target, server, model_id, model, tokenizer_id, tokenizer, is_simulated })
}

fn load(error: impl Into<crate::load::error::Error>) -> Error {
    Error::Load(error.into())
}

/// Opens a tokenizer by name.
pub fn named(name: &str, cache: &Cache, rules: Rules) -> Result<SharedTokenizer, Error> {
    Ok(Arc::new(tokenizer::find(name, cache, rules).map_err(load)?))
}

/// Opens a tokenizer beside what else is waited for: a signal is heard meanwhile.
async fn found(name: &str, cache: &Cache, rules: Rules) -> Result<Result<HfTokenizer, tokenizer::Error>, Error> {
    let (name, cache) = (name.to_owned(), cache.clone());
    let opened = tokio::task::spawn_blocking(move || tokenizer::find(&name, &cache, rules)).await;
    opened.map_err(|_| load(crate::load::session::Error::Died))
}

async fn tokenizer_of(
    settings: &LoadSettings,
    target: &Target,
    (model_id, model): (&str, &str),
    served: Option<&Model>,
    rules: Rules,
    ui: &Ui,
) -> Result<(String, Option<SharedTokenizer>), Error> {
    let cache = &settings.prompts.cache;
    match &settings.prompts.tokenizer {
        TokenizerChoice::Absent => return Ok((model_id.to_owned(), None)),
        TokenizerChoice::Named(name) => {
            let found = found(name, cache, rules).await?.map_err(load)?;
            return Ok((name.clone(), Some(Arc::new(found))));
        }
        TokenizerChoice::Auto => {}
    }
    // The model's own files: as it is named here, or as the server was told, if it is this machine.
    let root = served.and_then(|model| model.root.as_deref()).filter(|root| *root != model_id);
    for name in [Some(model_id), root].into_iter().flatten() {
        match found(name, cache, rules).await? {
            Ok(found) => return Ok((name.to_owned(), Some(Arc::new(found)))),
            Err(tokenizer::Error::NotFound { .. }) => {}
            Err(error) => return Err(load(error)),
        }
    }
    let fixed = settings.prompts.spec.name == Name::Text && settings.prompts.spec.text.is_some();
    if fixed {
        // One text for all: the server's usage counts it.
        return Ok((model_id.to_owned(), None));
    }
    let (base, name, key) = (target.base.clone(), model.to_owned(), settings.api_key.clone());
    let insecure = settings.insecure;
    let connected = tokio::task::spawn_blocking(move || ServerTokenizer::connect(&base, &name, key, insecure)).await;
    match connected {
        Ok(Ok(tokenizer)) => {
            ui.say("the server counts tokens: no tokenizer.json of the model was found here (--tokenizer)");
            Ok((model_id.to_owned(), Some(Arc::new(tokenizer))))
        }
        _ => {
            ui.warn("nothing here can count tokens: prompts are made of words, and the server's usage says how long they were (--tokenizer)");
            Ok((model_id.to_owned(), None))
        }
    }
}

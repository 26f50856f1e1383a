//! `prompts`: what a load would send, and what the model answers.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::load::{named, one_by_one};
use crate::cli::{Backend, PromptsAnswersArgs, PromptsArgs, PromptsBuildArgs, PromptsCommand, PromptsInspectArgs};
use crate::config::{Environment, LoadLayers, PromptSettings, TokenizerChoice, resolve_prompts};
use crate::error::Error;
use crate::exit;
use crate::load::dataset::{self, Name, SharedTokenizer, Source};
use crate::load::prompt::{Content, Message, Prompt};
use crate::record;
use crate::ui::Ui;

/// Runs `prompts`.
///
/// # Errors
/// When a flag is wrong, or there are no such prompts.
pub async fn run(args: &PromptsArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    match &args.command {
        PromptsCommand::List => {
            let mut text = String::new();
            for (name, _, what) in Name::ALL {
                let _ = writeln!(text, "{name:<18} {what}");
            }
            ui.out_raw(text.as_bytes());
            Ok(exit::OK)
        }
        PromptsCommand::Inspect(args) => inspect(args, environment, ui).await,
        PromptsCommand::Render(args) => super::render::run(args, environment, ui),
        PromptsCommand::Build(args) => build(args, environment, ui).await,
        PromptsCommand::Answers(args) => answers(args, environment, ui).await,
    }
}

fn seed(text: Option<&String>) -> Result<u64, Error> {
    text.map_or(Ok(0), |text| {
        text.parse().map_err(|_| Error::Usage {
            message: format!("invalid value `{}` for `--seed`: expected a whole number", text.escape_debug()),
            hint: "write `--seed 0`".into(),
        })
    })
}

/// So many prompts are looked at unless another number is asked for.
const MOST_LOOKED_AT: u64 = 500;

/// `--num-prompts` of what holds all prompts in memory.
fn count(asked: u64, settings: &PromptSettings) -> Result<u64, Error> {
    const MOST: u64 = 10_000_000;
    if asked > MOST {
        return Err(Error::Usage {
            message: format!("--num-prompts is {asked}: at most {MOST} prompts are held in memory"),
            hint: "ask for fewer".into(),
        });
    }
    let made = matches!(settings.spec.name, Name::Random | Name::PrefixRepetition | Name::Sonnet | Name::Rag);
    if made {
        dataset::held(&dataset::Spec { count: asked, ..settings.spec.clone() })
            .map_err(|error| Error::Load(crate::load::error::Error::Dataset(error)))?;
    }
    Ok(asked.max(1))
}

/// The first prompts of a data set.
async fn collect(
    mut settings: PromptSettings,
    tokenizer: Option<SharedTokenizer>,
    count: u64,
    ui: &Ui,
) -> Result<Vec<Prompt>, Error> {
    if tokenizer.is_none() {
        ui.warn("nothing counts tokens here: name the model's tokenizer with --tokenizer");
    }
    settings.spec.count = count;
    settings.spec.chat = true;
    let system = settings.system_prompt.clone();
    let made = tokio::task::spawn_blocking(move || -> Result<Vec<Prompt>, dataset::Error> {
        let source: Source = dataset::open(&settings.spec, tokenizer.clone())?;
        let source: Source = match system {
            Some(text) => Arc::new(dataset::WithSystem::new(source, text)),
            None => source,
        };
        (0..source.available().map_or(count, |all| all.min(count)))
            .map(|index| counted(source.prompt(index)?, tokenizer.as_ref()))
            .collect()
    })
    .await;
    match made {
        Ok(made) => made.map_err(|error| Error::Load(crate::load::error::Error::Dataset(error))),
        Err(_) => Err(Error::Load(crate::load::session::Error::Died.into())),
    }
}

/// A prompt with its tokens, as a chat has them where there is a template.
fn counted(prompt: Prompt, tokenizer: Option<&SharedTokenizer>) -> Result<Prompt, dataset::Error> {
    let (None, Some(tokenizer)) = (prompt.prompt_len, tokenizer) else { return Ok(prompt) };
    let messages = dataset::messages_of(&prompt.content).unwrap_or_default();
    if messages.iter().any(|message| message.beyond_text().is_some()) {
        return Ok(prompt);
    }
    let prompt_len = match tokenizer.count_chat(&messages) {
        Ok(tokens) => tokens,
        Err(_) => tokenizer.count_with_special(&dataset::plain(&prompt.content))?,
    };
    Ok(Prompt { prompt_len: Some(prompt_len), ..prompt })
}

/// The tokenizer that was named.
fn tokenizer_of(settings: &PromptSettings) -> Result<Option<SharedTokenizer>, Error> {
    match &settings.tokenizer {
        TokenizerChoice::Named(name) => named(name, &settings.cache, settings.rules.unwrap_or_default()).map(Some),
        TokenizerChoice::Auto | TokenizerChoice::Absent => Ok(None),
    }
}

async fn inspect(args: &PromptsInspectArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let settings = resolve_prompts(&args.prompts, seed(args.seed.as_ref())?, environment)?;
    let asked = count(args.num_prompts.unwrap_or(MOST_LOOKED_AT), &settings)?;
    let tokenizer = tokenizer_of(&settings)?;
    let prompts = match collect(settings.clone(), tokenizer.clone(), asked, ui).await {
        Err(Error::Load(crate::load::error::Error::Dataset(dataset::Error::TooFew { available, .. })))
            if args.num_prompts.is_none() && available > 0 =>
        {
            collect(settings, tokenizer.clone(), available, ui).await?
        }
        prompts => prompts?,
    };
    let prompts = tokio::task::spawn_blocking(move || through_template(prompts, tokenizer.as_ref())).await;
    let Ok(prompts) = prompts else { return Err(Error::Load(crate::load::session::Error::Died.into())) };
    let (prompts, texts): (Vec<Prompt>, Vec<Option<String>>) = prompts.into_iter().unzip();
    if !args.stats_only {
        for (index, (prompt, text)) in prompts.iter().zip(&texts).take(args.show).enumerate() {
            ui.out_raw(shown(index as u64, prompt).as_bytes());
            if let Some(text) = text {
                ui.out_raw(format!("--- through the chat template\n{}\n\n", safe(text)).as_bytes());
            }
        }
    }
    ui.out_raw(statistics(&prompts).as_bytes());
    if let Some(path) = &args.save_json {
        let path = environment.absolute(path);
        let all: Vec<_> = prompts.iter().enumerate().map(|(index, prompt)| prepared(index as u64, prompt)).collect();
        record::atomic::write_json(&path, &all)?;
        ui.say(&format!("prompts: {}", path.display()));
    }
    if let Some(path) = &args.save_text {
        let path = environment.absolute(path);
        let text: String = prompts.iter().enumerate().map(|(index, prompt)| shown(index as u64, prompt)).collect();
        record::atomic::write(&path, text.as_bytes())?;
        ui.say(&format!("prompts: {}", path.display()));
    }
    Ok(exit::OK)
}

async fn build(args: &PromptsBuildArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let settings = resolve_prompts(&args.prompts, seed(args.seed.as_ref())?, environment)?;
    let count = count(args.num_prompts, &settings)?;
    let tokenizer = tokenizer_of(&settings)?;
    let prompts = collect(settings, tokenizer, count, ui).await?;
    let path = environment.absolute(&args.output);
    let mut text = String::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let _ = writeln!(text, "{}", prepared(index as u64, prompt));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| Error::Record(record::Error::write(folder)(source)))?;
    }
    record::atomic::write(&path, text.as_bytes())?;
    ui.out_raw(statistics(&prompts).as_bytes());
    ui.say(&format!("{} prompts: {} (--dataset-name custom --dataset-path)", prompts.len(), path.display()));
    Ok(exit::OK)
}

async fn answers(args: &PromptsAnswersArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let mut written = args.load.written.clone();
    for flag in ["dashboard", "metrics-open", "pushgateway"].iter().filter(|flag| written.contains_key(**flag)) {
        ui.warn(&format!("`--{flag}` has no effect with `prompts answers`"));
    }
    let mut write = |flag: &str, value: String| drop(written.insert(flag.to_owned(), vec![value]));
    write("num-prompts", args.start.saturating_add(args.show).max(1).to_string());
    write("max-concurrency", "1".into());
    if !LoadLayers::read(&args.load.written, &args.load.files, environment)?.has("backend") {
        write("backend", Backend::OpenaiChat.name().into());
    }
    let settings = LoadLayers::read(&written, &args.load.files, environment)?.settings(environment)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let prompts = one_by_one(&settings, args.start, args.show, Arc::clone(&seen), ui).await?;
    let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
    let mut failed = 0;
    for (index, answer) in seen {
        let prompt: &Prompt = &prompts[usize::try_from(index - args.start).unwrap_or(0)];
        ui.out_raw(shown(index, prompt).as_bytes());
        match answer {
            Ok(text) => ui.out(&format!("--- answer\n{text}\n")),
            Err(reason) => {
                failed += 1;
                ui.out(&format!("--- failed\n{reason}\n"));
            }
        }
    }
    Ok(if failed > 0 { exit::EXPERIMENT_FAILED } else { exit::OK })
}

/// Prompts as a chat gets them: counted with what the template adds, and the text that it makes.
fn through_template(prompts: Vec<Prompt>, tokenizer: Option<&SharedTokenizer>) -> Vec<(Prompt, Option<String>)> {
    let seen = |mut prompt: Prompt| {
        let messages = dataset::messages_of(&prompt.content);
        let Some((tokenizer, messages)) = tokenizer.zip(messages) else { return (prompt, None) };
        let Ok(text) = tokenizer.chat(&messages) else { return (prompt, None) };
        prompt.prompt_len = tokenizer.count_chat(&messages).ok().or(prompt.prompt_len);
        (prompt, Some(text))
    };
    prompts.into_iter().map(seen).collect()
}

/// A message for people: its text, or its JSON where it has more than that.
fn said(message: &Message) -> String {
    let is_plain = message.content.is_string() && message.more.is_empty();
    let text = if is_plain { message.text() } else { json!(message).to_string() };
    format!("[{}] {text}", message.role)
}

/// A prompt for people.
fn shown(index: u64, prompt: &Prompt) -> String {
    let tokens = prompt.prompt_len.map_or("tokens not counted".to_owned(), |tokens| format!("{tokens} tokens"));
    let id = prompt.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
    let output = prompt.output_len.map(|length| format!(", {length} asked for")).unwrap_or_default();
    let body = match &prompt.content {
        Content::Text(text) => text.clone(),
        Content::TokenIds(ids) => format!("{ids:?}"),
        Content::Messages(messages) => messages.iter().map(said).collect::<Vec<_>>().join("\n"),
    };
    format!("=== prompt {index}{id}: {tokens}{output}\n{}\n\n", safe(&body))
}

/// Control characters would play with the terminal.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// S3's form of a prepared prompt.
fn prepared(index: u64, prompt: &Prompt) -> serde_json::Value {
    let messages = match &prompt.content {
        Content::Messages(messages) => json!(messages),
        Content::Text(text) => json!([{"role": "user", "content": text}]),
        Content::TokenIds(_) => json!([]),
    };
    let id = prompt.id.clone().unwrap_or_else(|| format!("prompt-{index:05}"));
    json!({"prompt_id": id, "messages": messages, "token_stats": {"total_prefill_tokens": prompt.prompt_len}, "output_tokens": prompt.output_len})
}

/// S3's statistics: tokens, characters, and how far prompts are from the length of the first.
fn statistics(prompts: &[Prompt]) -> String {
    let chars: Vec<u64> = prompts.iter().map(|prompt| dataset::plain(&prompt.content).chars().count() as u64).collect();
    let tokens: Vec<u64> = prompts.iter().filter_map(|prompt| prompt.prompt_len).collect();
    let mut text = format!("Prompts:     {}\n", prompts.len());
    let mut line = |name: &str, values: &[u64]| {
        if let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) {
            let mean = values.iter().sum::<u64>() as f64 / values.len() as f64;
            let _ = writeln!(text, "{name:<12} mean {mean:.1}, min {least}, max {most}, range {}", most - least);
        }
    };
    line("Tokens:", &tokens);
    line("Characters:", &chars);
    if let Some(first) = tokens.first().filter(|first| **first > 0) {
        let share = |tokens: &u64| *tokens as f64 / *first as f64 * 100.0;
        let count = |low: f64, high: f64| tokens.iter().filter(|t| share(t) >= low && share(t) < high).count();
        let _ = writeln!(
            text,
            "Of the first one's {first} tokens: {} below 90 %, {} from 90 to 95 %, {} from 95 to 105 %, {} above",
            count(0.0, 90.0),
            count(90.0, 95.0),
            count(95.0, 105.000_001),
            count(105.000_001, f64::INFINITY),
        );
    }
    text
}

//! Prompts that people wrote: from rows to prompts, filtered, counted, each used once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::random::shuffle;
use super::rows::{self, Row, Rows, format, kind};
use super::{Error, Name, SharedTokenizer, Spec, hub, rag};
use crate::load::prompt::{Content, Message, Prompt};

/// What S3 puts before each prompt.
const ASSISTANT: &str = "You are a helpful assistant.";

/// A prompt before it is counted.
#[derive(Debug, Clone)]
struct Candidate {
    id: Option<String>,
    content: Content,
    /// What a person answered, where the data set tells: the length of the answer.
    answer: Option<String>,
    output_len: Option<u64>,
    /// Tokens as the file states them.
    stated: Option<u64>,
}

impl Candidate {
    fn of(content: Content) -> Self {
        Self { id: None, content, answer: None, output_len: None, stated: None }
    }
}

/// What prompts are left out.
#[derive(Debug, Clone, Copy)]
struct Filter {
    least_chars: usize,
    least: Option<u64>,
    most: Option<u64>,
    /// vLLM's limits for ShareGPT: 4 tokens at least on both sides, 1024 of the prompt, 2048 in all.
    sharegpt: bool,
    once: bool,
}

/// Opens a data set of texts.
///
/// # Errors
/// When it cannot be read, counted, or has too few prompts.
pub fn open(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Vec<Prompt>, Error> {
    if spec.name == Name::Rag {
        return rag::build(spec, tokenizer);
    }
    if spec.name == Name::Sonnet {
        return sonnet(spec, tokenizer);
    }
    let (name, mut candidates) = candidates(spec)?;
    if candidates.len() == 0 {
        return Err(Error::TooFew { name, asked: spec.count, available: 0, filters: "no row has a prompt".into() });
    }
    if spec.shuffle && spec.name != Name::Text {
        shuffle(&mut candidates.order, &mut ChaCha8Rng::seed_from_u64(spec.seed));
    }
    let preset = matches!(spec.name, Name::Dolly | Name::Alpaca | Name::OpenAssistant);
    let filter = Filter {
        least_chars: if preset { 10 } else { 1 },
        least: spec.min_tokens.or(preset.then_some(50)),
        most: spec.max_tokens.or(preset.then_some((2 * spec.input_len).max(500))),
        sharegpt: spec.name == Name::ShareGpt,
        once: preset,
    };
    choose(spec, &name, &candidates, filter, tokenizer.as_ref())
}

/// Counts candidates until there are enough.
fn choose(
    spec: &Spec,
    name: &str,
    candidates: &Candidates,
    filter: Filter,
    tokenizer: Option<&SharedTokenizer>,
) -> Result<Vec<Prompt>, Error> {
    let needs_counts = filter.least.is_some() || filter.most.is_some() || filter.sharegpt;
    if needs_counts && tokenizer.is_none() {
        let needs = "the model's tokenizer to choose prompts by their tokens: name it with --tokenizer".into();
        return Err(Error::Needs { what: "the data set", needs });
    }
    let (all, mut seen, mut prompts) = (candidates.len(), HashSet::new(), Vec::new());
    let (mut short, mut long, mut twice) = (0u64, 0u64, 0u64);
    for index in 0..all {
        if prompts.len() as u64 >= spec.count {
            break;
        }
        let Some(candidate) = candidates.get(spec, index)? else { continue };
        let text = plain(&candidate.content);
        if text.chars().count() < filter.least_chars {
            short += 1;
            continue;
        }
        if filter.once && !seen.insert(text.clone()) {
            twice += 1;
            continue;
        }
        let content = adapt(spec, candidate.content, tokenizer)?;
        let prompt_len = match tokenizer {
            Some(tokenizer) => Some(tokenizer.count_with_special(&plain(&content))?),
            None => candidate.stated,
        };
        if prompt_len.is_some_and(|tokens| filter.least.is_some_and(|least| tokens < least)) {
            short += 1;
            continue;
        }
        if prompt_len.is_some_and(|tokens| filter.most.is_some_and(|most| tokens > most)) {
            long += 1;
            continue;
        }
        let mut output_len = spec.output_len.or(candidate.output_len);
        if output_len.is_none()
            && let (Some(answer), Some(tokenizer)) = (&candidate.answer, tokenizer)
        {
            output_len = Some(tokenizer.count_with_special(answer)?);
        }
        if filter.sharegpt {
            let (prompt, output) = (prompt_len.unwrap_or(0), output_len.unwrap_or(0));
            if prompt < 4 || (spec.output_len.is_none() && output < 4) {
                short += 1;
                continue;
            }
            if prompt > 1024 || prompt + output > 2048 {
                long += 1;
                continue;
            }
        }
        let prompt_len = if spec.chat { chat_tokens(&content, tokenizer, prompt_len) } else { prompt_len };
        prompts.push(Prompt { content, prompt_len, output_len, id: candidate.id });
    }
    // `u64::MAX` asks for all there are.
    let enough = prompts.len() as u64 >= spec.count || (spec.count == u64::MAX && !prompts.is_empty());
    if !enough && (!spec.again || prompts.is_empty()) {
        let filters = format!("of {all} rows {short} are too short, {long} too long, {twice} there twice");
        return Err(Error::TooFew {
            name: name.to_owned(),
            asked: spec.count,
            available: prompts.len() as u64,
            filters,
        });
    }
    Ok(prompts)
}

/// Tokens of a chat with what its template adds; `plain` where nothing here knows the template, `None` for what only the
/// server can count.
pub(super) fn chat_tokens(content: &Content, tokenizer: Option<&SharedTokenizer>, plain: Option<u64>) -> Option<u64> {
    let Some(tokenizer) = tokenizer else { return plain };
    let messages = messages_of(content)?;
    if messages.iter().any(|message| message.beyond_text().is_some()) {
        return None;
    }
    tokenizer.count_chat(&messages).ok().or(plain)
}

/// The messages that a chat gets for a prompt.
pub fn messages_of(content: &Content) -> Option<Vec<Message>> {
    match content {
        Content::Messages(messages) => Some(messages.clone()),
        Content::Text(text) => Some(vec![Message::new("user", text.clone())]),
        Content::TokenIds(_) => None,
    }
}

/// The text of a prompt, for counting and comparing.
pub fn plain(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::TokenIds(_) => String::new(),
        Content::Messages(messages) => messages.iter().map(Message::text).collect::<Vec<_>>().join("\n"),
    }
}

/// The form that the endpoint takes: messages for a chat; for a completion text, through the chat template where there is
/// one and it is not left out.
fn adapt(spec: &Spec, content: Content, tokenizer: Option<&SharedTokenizer>) -> Result<Content, Error> {
    if spec.chat {
        return Ok(content);
    }
    let messages = match &content {
        Content::Messages(messages) => messages.clone(),
        Content::Text(text) if spec.name == Name::Custom => {
            vec![Message::new("user", text.clone())]
        }
        _ => return Ok(content),
    };
    if let Some(kind) = messages.iter().find_map(Message::beyond_text) {
        let needs =
            format!("--backend openai-chat: a message has a part of type `{kind}`, which a completion cannot have");
        return Err(Error::Needs { what: "the data set", needs });
    }
    match tokenizer {
        Some(tokenizer) if spec.chat_template => Ok(Content::Text(tokenizer.chat(&messages)?)),
        None if spec.chat_template && spec.name == Name::Custom => {
            let needs =
                "the model's chat template: name the model with --tokenizer, or add --skip-chat-template".into();
            Err(Error::Needs { what: "custom", needs })
        }
        _ => Ok(Content::Text(messages.iter().map(Message::text).collect::<Vec<_>>().join("\n\n"))),
    }
}

/// What prompts are chosen from: one text as often as it is asked for, or rows, of which each is parsed once more when its turn
/// comes.
struct Candidates {
    same: Option<(Candidate, usize)>,
    rows: Rows,
    path: PathBuf,
    /// Numbers of the rows that have a prompt.
    order: Vec<usize>,
}

impl Candidates {
    fn len(&self) -> usize {
        self.same.as_ref().map_or(self.order.len(), |(_, count)| *count)
    }

    fn get(&self, spec: &Spec, index: usize) -> Result<Option<Candidate>, Error> {
        match &self.same {
            Some((same, _)) => Ok(Some(same.clone())),
            None => self.of_row(spec, self.order[index]),
        }
    }

    fn of_row(&self, spec: &Spec, number: usize) -> Result<Option<Candidate>, Error> {
        let (line, row) = self.rows.get(number)?;
        candidate(spec, &row, &self.path, line)
    }
}

fn candidates(spec: &Spec) -> Result<(String, Candidates), Error> {
    if let (Name::Text, Some(text)) = (spec.name, &spec.text) {
        let count = usize::try_from(spec.count).unwrap_or(usize::MAX);
        let same = Some((Candidate::of(Content::Text(text.clone())), count));
        let (rows, path, order) = Default::default();
        return Ok(("--prompt".into(), Candidates { same, rows, path, order }));
    }
    let (name, rows, path) = load(spec)?;
    let mut found = Candidates { same: None, rows, path, order: Vec::new() };
    for number in 0..found.rows.len() {
        if found.of_row(spec, number)?.is_some() {
            found.order.push(number);
        }
    }
    Ok((name, found))
}

/// The rows, what they are called, and where they are.
fn load(spec: &Spec) -> Result<(String, Rows, PathBuf), Error> {
    let preset = match spec.name {
        Name::Dolly => Some("databricks/databricks-dolly-15k"),
        Name::Alpaca => Some("tatsu-lab/alpaca"),
        Name::OpenAssistant => Some("OpenAssistant/oasst1"),
        _ => None,
    };
    if let Some(path) = &spec.path
        && (Path::new(path).exists() || !matches!(spec.name, Name::Hf))
    {
        let path = PathBuf::from(path);
        let rows = rows::read(&path)?;
        return Ok((path.display().to_string(), rows, path));
    }
    let repository = preset.or(spec.hub_name.as_deref()).or(spec.path.as_deref());
    let Some(repository) = repository else {
        let needs = "a file or a data set: name it with --dataset-path".into();
        return Err(Error::Needs { what: "the data set", needs });
    };
    let rows = hub::rows(&spec.hub, repository, spec.subset.as_deref(), spec.split.as_deref())?;
    Ok((repository.to_owned(), rows, PathBuf::from(repository)))
}

fn text<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

/// The prompt of a row; `None` = the row has none, as an answer in a conversation.
fn candidate(spec: &Spec, row: &Row, path: &Path, line: Option<u64>) -> Result<Option<Candidate>, Error> {
    let with_system = |text: String| {
        Candidate::of(Content::Messages(vec![Message::new("system", ASSISTANT), Message::new("user", text)]))
    };
    let joined = |first: &str, label: &str, second: &str| {
        let first = text(row, first)?;
        Some(match text(row, second) {
            Some(second) => format!("{first}\n\n{label}:\n{second}"),
            None => first.to_owned(),
        })
    };
    let found = match spec.name {
        Name::Dolly => joined("instruction", "Context", "context").map(with_system),
        Name::Alpaca => joined("instruction", "Input", "input").map(with_system),
        Name::OpenAssistant => {
            let first = text(row, "role") == Some("prompter") && text(row, "parent_id").is_none();
            text(row, "text").filter(|_| first).map(|text| with_system(text.to_owned()))
        }
        Name::ShareGpt => conversation(row),
        Name::Custom => return custom(row, path, line).map(Some),
        _ => return column(spec, row, path, line),
    };
    Ok(found)
}

/// ShareGPT: the first two turns.
fn conversation(row: &Row) -> Option<Candidate> {
    let turns = row.get("conversations").or(row.get("conversation"))?.as_array()?;
    let value = |at: usize| turns.get(at)?.get("value").or(turns.get(at)?.get("content"))?.as_str().map(str::to_owned);
    Some(Candidate { answer: Some(value(1)?), ..Candidate::of(Content::Text(value(0)?)) })
}

/// vLLM's custom data set, and S3's prepared prompts.
fn custom(row: &Row, path: &Path, line: Option<u64>) -> Result<Candidate, Error> {
    let content = match (row.get("messages"), row.get("prompt")) {
        (Some(messages), _) => {
            Content::Messages(conversation_of(messages).map_err(|reason| format(path, line, &reason))?)
        }
        (None, Some(Value::String(text))) => Content::Text(text.clone()),
        (None, Some(other)) => {
            return Err(format(path, line, &format!("`prompt` is {}: expected a text", kind(other))));
        }
        (None, None) => return Err(format(path, line, "has neither `prompt` nor `messages`")),
    };
    let output_len = match row.get("output_tokens") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_u64().ok_or_else(|| {
            format(path, line, &format!("`output_tokens` is {}: expected a whole number", kind(value)))
        })?),
    };
    let id = row.get("prompt_id").map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    let stated = row.get("token_stats").and_then(|stats| stats.get("total_prefill_tokens")?.as_u64());
    Ok(Candidate { id, content, answer: None, output_len, stated })
}

/// Messages as an OpenAI-compatible server takes them.
fn conversation_of(messages: &Value) -> Result<Vec<Message>, String> {
    let messages: Vec<Message> = serde_json::from_value(messages.clone())
        .map_err(|error| format!("`messages` is not a list of {{role, content}}: {error}"))?;
    match messages.iter().find_map(Message::fault) {
        Some(fault) => Err(format!("`messages`: {fault}")),
        None if messages.is_empty() => Err("`messages` is empty".into()),
        None => Ok(messages),
    }
}

/// Columns that hold prompts, where none is named.
const COLUMNS: [&str; 5] = ["prompt", "text", "instruction", "question", "query"];

fn column(spec: &Spec, row: &Row, path: &Path, line: Option<u64>) -> Result<Option<Candidate>, Error> {
    if spec.column.is_none() && spec.template.is_none() {
        if row.contains_key("messages") || row.contains_key("prompt_id") {
            return custom(row, path, line).map(Some);
        }
        if row.contains_key("conversations") {
            return Ok(conversation(row));
        }
    }
    let wanted = match &spec.column {
        Some(column) => column.as_str(),
        None => COLUMNS.into_iter().find(|column| row.contains_key(*column)).unwrap_or("prompt"),
    };
    let value = wanted.split('.').try_fold(None, |found: Option<&Value>, part| match found {
        None => row.get(part).map(Some),
        Some(value) => value.get(part).map(Some),
    });
    let value = value.flatten();
    let document = match value {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) if spec.template.is_none() => {
            let there: Vec<&str> = row.keys().map(String::as_str).collect();
            let reason = format!("has no column `{wanted}`; there are: {} (--prompt-column)", there.join(", "));
            return Err(format(path, line, &reason));
        }
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let document = cut(spec, &document);
    let text = match &spec.template {
        None => document,
        Some(template) => fill(template, &document, row, path, line)?,
    };
    let empty = text.trim().is_empty();
    Ok((!empty).then(|| Candidate::of(Content::Text(text))))
}

/// S5: `[[DOCUMENT]]`, and any column as `{column}`.
fn fill(template: &str, document: &str, row: &Row, path: &Path, line: Option<u64>) -> Result<String, Error> {
    let mut out = String::with_capacity(template.len() + document.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("[[DOCUMENT]]") {
            out.push_str(document);
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
        let is_name =
            |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
        match name.filter(is_name) {
            Some(name) => {
                let value = row.get(name).ok_or_else(|| {
                    let there: Vec<&str> = row.keys().map(String::as_str).collect();
                    format(
                        path,
                        line,
                        &format!("has no column `{name}` for --prompt-template; there are: {}", there.join(", ")),
                    )
                })?;
                out.push_str(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                rest = &rest[name.len() + 2..];
            }
            None => {
                out.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// S5: a document is cut to three characters for each token of room, at a line's end if there is one in its second half.
fn cut(spec: &Spec, document: &str) -> String {
    let Some(room) = spec.max_tokens else { return document.to_owned() };
    let most = usize::try_from(room.saturating_mul(3)).unwrap_or(usize::MAX);
    if spec.template.is_none() || document.len() <= most {
        return document.to_owned();
    }
    let mut end = most;
    while !document.is_char_boundary(end) {
        end -= 1;
    }
    let head = &document[..end];
    match head.rfind('\n') {
        Some(line) if line > end / 2 => head[..line].to_owned(),
        _ => head.to_owned(),
    }
}

/// vLLM's sonnet data set: lines of a poem, some of them shared by all prompts.
fn sonnet(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Vec<Prompt>, Error> {
    const BASE: &str = "Pick as many lines as you can from these poem lines:\n";
    let tokenizer = tokenizer.ok_or_else(|| Error::Needs {
        what: "sonnet",
        needs: "the model's tokenizer: name it with --tokenizer".into(),
    })?;
    let path = PathBuf::from(
        spec.path
            .as_deref()
            .ok_or_else(|| Error::Needs { what: "sonnet", needs: "a text: name it with --dataset-path".into() })?,
    );
    let text = crate::bounded::read_named(&path, crate::bounded::RESULT)
        .map_err(|source| Error::File { path: path.clone(), source })?;
    let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(format(&path, None, "has no lines"));
    }
    let count = |text: &str| tokenizer.count_with_special(text);
    let mut tokens = 0;
    for line in &lines {
        tokens += count(line)?;
    }
    let average = (tokens as f64 / lines.len() as f64).max(1.0);
    let formatted = |text: &str| -> Result<String, Error> {
        let message = Message::new("user", text);
        // A model without a chat template gets the text as it is.
        Ok(tokenizer.chat(&[message]).unwrap_or_else(|_| text.to_owned()))
    };
    let base = count(&formatted(BASE)?)?;
    if spec.input_len <= base {
        let expected = format!("expected more than the {base} tokens of the question itself");
        return Err(Error::Flag { flag: "sonnet-input-len", found: spec.input_len.to_string(), expected });
    }
    let number = |tokens: u64| (tokens.saturating_sub(base) as f64 / average).round() as usize;
    let (mut all, shared) = (number(spec.input_len), number(spec.prefix_len).min(lines.len()));
    let prefix: String = lines[..shared].concat();
    let mut random = ChaCha8Rng::seed_from_u64(spec.seed);
    let (mut prompts, mut tries) = (Vec::new(), 0u64);
    while (prompts.len() as u64) < spec.count {
        tries += 1;
        let extra: String = (shared..all).map(|_| lines[random.random_range(0..lines.len())]).collect();
        let text = format!("{BASE}{prefix}{extra}");
        let whole = formatted(&text)?;
        let tokens = count(&whole)?;
        if tokens <= spec.input_len {
            let content = Content::Text(if spec.chat { text } else { whole });
            prompts.push(Prompt { content, prompt_len: Some(tokens), output_len: spec.output_len, id: None });
            tries = 0;
        } else if tries.is_multiple_of(50) && all > shared {
            // Lines that are all alike can be one too many every time.
            all -= 1;
        } else if tries > 5000 {
            let expected = "expected more: no choice of lines stays below it".into();
            return Err(Error::Flag { flag: "sonnet-input-len", found: spec.input_len.to_string(), expected });
        }
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dataset::tests::spec;

    fn words() -> SharedTokenizer {
        std::sync::Arc::new(crate::load::tokenizer::test_words().1)
    }

    fn with(name: Name, file: &str, text: &str, count: u64) -> (tempfile::TempDir, Spec) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let path = Some(path.display().to_string());
        (folder, Spec { path, count, ..spec(name) })
    }

    fn texts(spec: &Spec) -> Vec<String> {
        open(spec, Some(words())).unwrap().iter().map(|prompt| plain(&prompt.content)).collect()
    }

    fn long(words: usize) -> String {
        (0..words).map(|n| ["b", "c", "d", "e"][n % 4]).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn presets_choose_and_count_by_tokens() {
        let rows = [
            format!("{{\"instruction\": \"{}\", \"context\": \"{}\"}}", long(40), long(20)),
            format!("{{\"instruction\": \"{}\", \"context\": \"\"}}", long(60)),
            format!("{{\"instruction\": \"{}\"}}", long(60)),
            format!("{{\"instruction\": \"{}\"}}", long(10)),
            format!("{{\"instruction\": \"{}\"}}", long(5000)),
        ];
        let (_folder, spec) = with(Name::Dolly, "dolly.jsonl", &rows.join("\n"), 2);
        let spec = Spec { chat: true, shuffle: false, ..spec };
        let prompts = open(&spec, Some(words())).unwrap();
        assert!(plain(&prompts[0].content).contains("Context:"));
        assert_eq!(prompts[1].prompt_len, Some(70), "60, the system message's five words, and what the template adds");
        let error = open(&Spec { count: 3, ..spec.clone() }, Some(words())).unwrap_err().to_string();
        assert!(error.contains("has 2 (of 5 rows 1 are too short, 1 too long, 1 there twice)"), "{error}");
        assert!(matches!(open(&spec, None), Err(Error::Needs { .. })));
    }

    #[test]
    fn openassistant_takes_first_questions_only() {
        let row = |role: &str, parent: &str| {
            format!("{{\"text\": \"{} {role}{parent}\", \"role\": \"{role}\", \"parent_id\": {parent}}}", long(60))
        };
        let rows = [
            row("prompter", "null"),
            row("assistant", "null"),
            row("prompter", "\\\"x\\\"").replace("\\\"", "\"").replace("\"x\"\"", "x\""),
        ];
        let (_folder, spec) = with(Name::OpenAssistant, "oasst.jsonl", &rows[..2].join("\n"), 1);
        assert_eq!(texts(&Spec { chat: true, ..spec.clone() }).len(), 1);
        assert!(open(&Spec { count: 2, chat: true, ..spec }, Some(words())).is_err());
    }

    #[test]
    fn custom_takes_prompts_and_messages_and_the_chat_template() {
        let text = "{\"prompt\": \"a b\", \"output_tokens\": 7}\n{\"prompt_id\": \"p2\", \"messages\": [{\"role\": \"user\", \
            \"content\": \"c\"}], \"token_stats\": {\"total_prefill_tokens\": 9}}\n";
        let (_folder, spec) = with(Name::Custom, "c.jsonl", text, 2);
        let spec = Spec { shuffle: false, output_len: None, ..spec };
        let prompts = open(&spec, Some(words())).unwrap();
        assert_eq!(prompts[0].content, Content::Text("<s> user a b\n</s>".into()));
        assert_eq!((prompts[0].output_len, prompts[1].id.as_deref()), (Some(7), Some("p2")));
        let plain = Spec { chat_template: false, ..spec.clone() };
        assert_eq!(open(&plain, Some(words())).unwrap()[0].content, Content::Text("a b".into()));
        assert_eq!(
            open(&Spec { chat: true, ..spec.clone() }, None).unwrap()[1].prompt_len,
            Some(9),
            "as the file says"
        );
        for (text, says) in [
            ("{\"text\": 1}", "neither `prompt` nor `messages`"),
            ("{\"prompt\": 1}", "expected a text"),
            ("{\"prompt\": \"a\", \"output_tokens\": \"x\"}", "whole number"),
            ("{\"messages\": [1]}", "list of {role, content}"),
        ] {
            let (_folder, spec) = with(Name::Custom, "c.jsonl", text, 1);
            let error = open(&spec, Some(words())).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn sharegpt_keeps_vllm_s_limits_and_takes_the_answer_s_length() {
        let entry = |prompt: usize, answer: usize| {
            format!("{{\"conversations\": [{{\"value\": \"{}\"}}, {{\"value\": \"{}\"}}]}}", long(prompt), long(answer))
        };
        let rows = [entry(10, 20), entry(2, 20), entry(10, 2), entry(1100, 10), "{\"conversations\": []}".into()];
        let (_folder, spec) = with(Name::ShareGpt, "s.json", &format!("[{}]", rows.join(",")), 1);
        let spec = Spec { output_len: None, ..spec };
        let prompts = open(&spec, Some(words())).unwrap();
        assert_eq!((prompts[0].prompt_len, prompts[0].output_len), (Some(10), Some(20)));
        assert!(open(&Spec { count: 2, ..spec }, Some(words())).is_err());
    }

    #[test]
    fn columns_and_templates() {
        let text = "{\"q\": {\"body\": \"b c\"}, \"lang\": \"d\"}\n";
        let (_folder, spec) = with(Name::File, "f.jsonl", text, 1);
        let named = Spec { column: Some("q.body".into()), ..spec.clone() };
        assert_eq!(texts(&named), ["b c"]);
        let template = Some("In {lang}: [[DOCUMENT]] {not a column}".to_owned());
        assert_eq!(texts(&Spec { template, ..named.clone() }), ["In d: b c {not a column}"]);
        let error = open(&spec, Some(words())).unwrap_err().to_string();
        assert!(error.contains("no column `prompt`; there are: q, lang"), "{error}");
        let template = Some("{nowhere}".to_owned());
        let error = open(&Spec { template, ..named }, Some(words())).unwrap_err().to_string();
        assert!(error.contains("no column `nowhere`"), "{error}");
        let long = format!("{{\"text\": \"{}\"}}", "abcd\\n".repeat(50));
        let (_folder, spec) = with(Name::File, "g.jsonl", &long, 1);
        let spec = Spec { template: Some("[[DOCUMENT]]".into()), max_tokens: Some(20), ..spec };
        assert_eq!(texts(&spec)[0], "abcd\n".repeat(12).trim_end(), "60 characters, at a line's end");
    }

    #[test]
    fn texts_and_sonnets() {
        let one = Spec { text: Some("a b c".into()), count: 3, ..spec(Name::Text) };
        assert_eq!(texts(&one), ["a b c"; 3]);
        let (_folder, lines) = with(Name::Text, "t.txt", "one\ntwo\n", 2);
        assert_eq!(texts(&lines), ["one", "two"]);
        let poem = "b c d e\n".repeat(30);
        let (_folder, sonnet) = with(Name::Sonnet, "s.txt", &poem, 4);
        let sonnet = Spec { input_len: 100, prefix_len: 40, output_len: Some(9), ..sonnet };
        let prompts = open(&sonnet, Some(words())).unwrap();
        assert!(
            prompts
                .iter()
                .all(|prompt| (80..=100).contains(&prompt.prompt_len.unwrap()) && prompt.output_len == Some(9))
        );
        assert!(open(&Spec { input_len: 3, ..sonnet }, Some(words())).is_err());
    }
}

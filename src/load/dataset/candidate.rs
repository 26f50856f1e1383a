//! From a row of a data set to a prompt that is not counted yet.

use std::path::Path;

use serde_json::Value;

use super::rows::{Row, format, kind};
use super::{Error, Name, Spec};
use crate::load::prompt::{Content, Message};

/// What S3 puts before each prompt.
const ASSISTANT: &str = "You are a helpful assistant.";

/// A prompt before it is counted.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub id: Option<String>,
    pub content: Content,
    /// What a person answered, where the data set tells: the length of the answer.
    pub answer: Option<String>,
    pub output_len: Option<u64>,
    /// Tokens as the file states them.
    pub stated: Option<u64>,
}

impl Candidate {
    pub fn of(content: Content) -> Self {
        Self { id: None, content, answer: None, output_len: None, stated: None }
    }
}

/// The prompt of a row; `None` = the row has none, as an answer in a conversation.
pub(super) fn candidate(spec: &Spec, row: &Row, path: &Path, line: Option<u64>) -> Result<Option<Candidate>, Error> {
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

fn text<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
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

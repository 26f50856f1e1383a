//! Single words of the language: numbers, switches, durations, paths.

use std::str::FromStr;

use crate::config::Error;
use crate::config::layers;
use crate::config::tree::{Diagnostic, Kind, Raw};
use crate::model::{Client, Engine};

/// Reads a word that some layer always has.
///
/// # Errors
/// When it is missing, no single word, or not what is expected.
pub fn one<T>(raw: Option<&Raw>, key: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    optional(raw, expected, parse)?.ok_or_else(|| {
        let mut trouble = Diagnostic {
            origin: None,
            path: key.to_owned(),
            problem: format!("a value is missing: expected {expected}"),
            hints: vec![format!("write a value after `{key}:`, or leave the key out")],
        };
        trouble.origin = raw.map(|raw| raw.node.origin.clone());
        Error::Document(trouble)
    })
}

/// Reads a word that need not be there.
///
/// # Errors
/// When it is no single word, or not what is expected.
pub fn optional<T>(raw: Option<&Raw>, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(None) };
    let parsed = raw.node.scalar().and_then(|text| parse(&text));
    parsed.map(Some).ok_or_else(|| Error::wrong(&raw.node, &raw.path, expected, None))
}

/// Reads one of a few words.
///
/// # Errors
/// When it is another; with the nearest one.
pub fn choice<T: Copy>(raw: Option<&Raw>, key: &str, choices: &[(&str, T)]) -> Result<T, Error> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let expected = match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    };
    let find = |text: &str| choices.iter().find(|(name, _)| *name == text.trim()).map(|(_, value)| *value);
    let near = raw.and_then(|raw| raw.node.scalar()).and_then(|word| {
        crate::nearest::nearest(&word, names.iter().copied()).map(|near| format!("did you mean `{near}`?"))
    });
    match raw.filter(|raw| raw.node.kind != Kind::Null) {
        Some(raw) => match raw.node.scalar().and_then(|text| find(&text)) {
            Some(value) => Ok(value),
            None => Err(Error::wrong(&raw.node, &raw.path, &expected, near)),
        },
        None => one(raw, key, &expected, find),
    }
}

/// A number of at least 1.
pub fn positive<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Option<T> {
    text.trim().parse().ok().filter(|number| *number >= T::from(1))
}

/// A whole number.
pub fn whole<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

/// `true` or `false`, also as `1`, `yes`, `on`.
pub fn switch(text: &str) -> Option<bool> {
    layers::read_bool(text)
}

/// Text that is not only blanks.
pub fn non_empty(text: &str) -> Option<String> {
    (!text.trim().is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// What sends the workload.
pub fn client(text: &str) -> Option<Client> {
    match text {
        "vllm" => Some(Client::Vllm),
        "builtin" => Some(Client::Builtin),
        _ => None,
    }
}

/// The server backend.
pub fn engine(text: &str) -> Option<Engine> {
    match text {
        "vllm" => Some(Engine::Vllm),
        "sim" => Some(Engine::Sim),
        _ => None,
    }
}

/// Whether a variable may be called so.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

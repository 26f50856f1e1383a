//! A tokenizer from the files of a model: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

use super::{Error, Tokenizer};
use crate::load::prompt::Message;

/// A fast tokenizer of Hugging Face.
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: u32,
    special: Vec<u32>,
    added: u32,
    /// `tokenizer_config.json`.
    config: Map<String, Value>,
    template: Option<String>,
}

impl fmt::Debug for HfTokenizer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HfTokenizer").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

/// Keys of `tokenizer_config.json` and `special_tokens_map.json` that name special tokens.
const SPECIAL_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl HfTokenizer {
    /// Reads a `tokenizer.json` and what lies beside it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let inner = tokenizers::Tokenizer::from_file(file)
            .map_err(|error| Error::File { path: file.to_owned(), reason: error.to_string() })?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let read = |name: &str| -> Result<Map<String, Value>, Error> {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => {
                    serde_json::from_slice(&bytes).map_err(|error| Error::File { path, reason: error.to_string() })
                }
                Err(_) => Ok(Map::new()),
            }
        };
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let template = std::fs::read_to_string(folder.join("chat_template.jinja")).ok().or_else(|| template(&config));
        let vocab_size = u32::try_from(inner.get_vocab_size(false)).unwrap_or(u32::MAX);
        let mut special = BTreeSet::new();
        for source in [&config, &map] {
            let single = SPECIAL_KEYS.iter().filter_map(|key| source.get(*key));
            let more = ["additional_special_tokens", "extra_special_tokens"];
            let more = more.iter().filter_map(|key| source.get(*key)?.as_array()).flatten();
            special.extend(single.chain(more).filter_map(|token| inner.token_to_id(content(token)?)));
        }
        if special.is_empty() {
            let added = inner.get_added_tokens_decoder();
            special.extend(added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id));
        }
        let added = inner.encode("", true).map_or(0, |encoding| encoding.get_ids().len());
        Ok(Self {
            inner,
            vocab_size,
            special: special.into_iter().collect(),
            added: u32::try_from(added).unwrap_or(0),
            config,
            template,
        })
    }
}

/// A token as text, or as an object with its text.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// The chat template of `tokenizer_config.json`: one text, or a list of named ones.
fn template(config: &Map<String, Value>) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
            default.or(named.first())?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

fn refused(error: tokenizers::Error) -> Error {
    Error::Refused { reason: error.to_string() }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.inner.encode_fast(text, false).map_err(refused)?.get_ids().to_vec())
    }

    fn count_with_special(&self, text: &str) -> Result<u64, Error> {
        Ok(self.inner.encode_fast(text, true).map_err(refused)?.get_ids().len() as u64)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.inner.decode(ids, false).map_err(refused)
    }

    fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    fn special_ids(&self) -> &[u32] {
        &self.special
    }

    fn special_tokens_added(&self) -> u32 {
        self.added
    }

    fn chat(&self, messages: &[Message]) -> Result<String, Error> {
        let failed = |reason: String| Error::Template { reason };
        let template = self.template.as_deref().ok_or_else(|| failed("it has none".into()))?;
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| failed(format!("{error:#}")))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| chrono::Local::now().format(&format).to_string());
        environment.add_template("chat", template).map_err(|error| failed(format!("{error:#}")))?;
        let mut values: Map<String, Value> = SPECIAL_KEYS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), content(self.config.get(*key)?)?.into())))
            .collect();
        values.insert("messages".into(), serde_json::json!(messages));
        values.insert("add_generation_prompt".into(), true.into());
        let template = environment.get_template("chat").map_err(|error| failed(format!("{error:#}")))?;
        template.render(minijinja::value::Serde(values)).map_err(|error| failed(format!("{error:#}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tokenizer of words, with a chat template, in a folder of its own.
    pub fn words() -> (tempfile::TempDir, HfTokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let words = ["<s>", "</s>", "a", "b", "c", "d", "e", "f", "g", "h"];
        let vocab: Map<String, Value> =
            words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let special = |id: u64| {
            serde_json::json!({"id": id, "content": words[id as usize], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        let tokenizer = serde_json::json!({
            "version": "1.0", "added_tokens": [special(0), special(1)], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null, "truncation": null,
            "padding": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"},
        });
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let template = "{% for message in messages %}<s> {{ message['role'] }} {{ message.content.strip() }}\n{% endfor %}\
            {% if add_generation_prompt %}{{ eos_token }}{% endif %}";
        let config =
            serde_json::json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template});
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = HfTokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
        (folder, tokenizer)
    }

    #[test]
    fn files_become_a_tokenizer() {
        let (folder, tokenizer) = words();
        assert_eq!(tokenizer.encode("a b h").unwrap(), [2, 3, 9]);
        assert_eq!(tokenizer.decode(&[2, 3]).unwrap(), "a b");
        assert_eq!((tokenizer.vocab_size(), tokenizer.special_ids()), (10, [0, 1].as_slice()));
        let user = Message { role: "user".into(), content: " a b ".into() };
        assert_eq!(tokenizer.chat(&[user]).unwrap(), "<s> user a b\n</s>");
        let cache = super::super::Cache::default();
        assert!(super::super::find(&folder.path().display().to_string(), &cache).is_ok());
        let error = super::super::find("nobody/nothing", &cache).unwrap_err().to_string();
        assert!(error.contains("nobody/nothing/tokenizer.json"), "{error}");
    }

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, "{").unwrap();
        assert!(matches!(HfTokenizer::load(&file), Err(Error::File { .. })));
    }
}

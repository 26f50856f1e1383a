//! A tokenizer from the files of a model: `tokenizer.json`, `tokenizer_config.json`, chat templates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::PostProcessor as _;

use super::conversation::{self, Conversation};
use super::growth;
use super::special::{add_tokens, as_llama_5, class_of, content, put_ends, special_tokens};
use super::template::ChatTemplate;
use super::{Error, Rules, Tokenizer};
use crate::bounded;
use crate::contained::contained;
use crate::load::prompt::Message;

/// A fast tokenizer of Hugging Face.
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: u32,
    special: Vec<u32>,
    added: u32,
    clean_up: bool,
    /// Named special tokens (`bos_token`), which chat templates use.
    named: Map<String, Value>,
    templates: BTreeMap<String, Template>,
}

impl fmt::Debug for HfTokenizer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HfTokenizer").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

/// A chat template, and the file that has it.
#[derive(Debug)]
struct Template {
    text: String,
    file: PathBuf,
}
/// Largest `tokenizer.json` that is read: the largest known one has 35 MB.
const MOST_BYTES: u64 = 256 << 20;

/// What is in a file beside `tokenizer.json`; `None` = there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match bounded::read(path, bounded::TEXT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

fn failed(path: &Path, reason: impl fmt::Display) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}

fn object(path: &Path) -> Result<Option<Map<String, Value>>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(path, error))
}

fn text(path: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| failed(path, "it is not UTF-8"))
}

/// Runs a call of the tokenizers library. It expects its files to be whole: a damaged one can pass its reader and panic when a text
/// is encoded.
///
/// # Errors
/// What it says, or what it panicked with.
fn library<T>(call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    match contained(call) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(said) => Err(format!("the file is damaged: the tokenizers library gave up ({said})")),
    }
}

impl HfTokenizer {
    /// Reads a `tokenizer.json` and what lies beside it.
    ///
    /// # Errors
    /// When a file cannot be read, or is damaged.
    pub fn load(file: &Path, rules: Rules) -> Result<Self, Error> {
        let damaged = |reason: String| Error::File { path: file.to_owned(), reason };
        let bytes = bounded::read(file, MOST_BYTES).map_err(|error| failed(file, error))?;
        library(|| Ok(growth::check(&bytes))).and_then(|checked| checked).map_err(damaged)?;
        let mut inner = library(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(damaged)?;
        drop(bytes);
        let folder = file.parent().unwrap_or(Path::new("."));
        let config = object(&folder.join("tokenizer_config.json"))?;
        let map = object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let is_alone = config.is_none();
        let config = config.unwrap_or_default();
        // transformers counts and encodes whole texts, whatever the file says.
        inner.with_padding(None);
        library(|| inner.with_truncation(None).map(|_| ())).map_err(damaged)?;
        let vocab_size = library(|| Ok(inner.get_vocab_size(false))).map_err(damaged)?;
        let model = object(&folder.join("config.json"))?.unwrap_or_default();
        let model_type = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let class = class_of(&config, model_type);
        if rules == Rules::Transformers5
            && model_type == "llama"
            && class.is_some_and(|(names, ..)| names[0] == "Llama")
        {
            library(|| as_llama_5(&mut inner, &config)).map_err(damaged)?;
        }
        let (named, more) = special_tokens(&config, &map, class);
        library(|| add_tokens(&mut inner, &config, &named, &more)).map_err(damaged)?;
        let named: Map<String, Value> =
            named.into_iter().filter_map(|(key, token)| Some((key, content(&token)?.into()))).collect();
        library(|| put_ends(&mut inner, &config, class, &named, rules)).map_err(damaged)?;
        let texts = named.values().filter_map(Value::as_str).chain(more.iter().filter_map(content));
        let mut special: BTreeSet<u32> = texts.filter_map(|token| inner.token_to_id(token)).collect();
        if is_alone && special.is_empty() {
            let added = inner.get_added_tokens_decoder();
            special.extend(added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id));
        }
        let added = library(|| Ok(inner.get_post_processor().map_or(0, |post| post.added_tokens(false))));
        let is_bpe = matches!(inner.get_model(), tokenizers::ModelWrapper::BPE(_));
        let cleans = config.get("clean_up_tokenization_spaces").and_then(Value::as_bool).unwrap_or(false);
        let tokenizer = Self {
            vocab_size: u32::try_from(vocab_size).unwrap_or(u32::MAX),
            special: special.into_iter().collect(),
            added: u32::try_from(added.map_err(damaged)?).unwrap_or(0),
            clean_up: cleans && (rules == Rules::Transformers4 || !is_bpe),
            named,
            templates: templates(folder, &config)?,
            inner,
        };
        tokenizer.try_out().map_err(|error| damaged(error.to_string()))?;
        Ok(tokenizer)
    }

    /// Some damage shows when texts are encoded: better before a workload than within.
    fn try_out(&self) -> Result<(), Error> {
        let ids = self.encode("Hello, world! 1 2 é\n")?;
        self.decode(&ids)?;
        self.count_with_special("a")?;
        Ok(())
    }

    /// The text of a conversation through the chat template.
    ///
    /// # Errors
    /// When there is no template, or it refuses.
    pub fn render(&self, conversation: &Conversation) -> Result<String, Error> {
        let failed = |reason: String| Error::Template { reason };
        let with_tools = conversation.has_tools().then(|| self.templates.get("tool_use")).flatten();
        let Some(template) = with_tools.or_else(|| self.templates.get("default")) else {
            let names: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            return Err(failed(match names.as_slice() {
                [] => "it has none".into(),
                names => format!("there is none named `default`, only {}", names.join(", ")),
            }));
        };
        let rendered = ChatTemplate::new(&template.text)
            .and_then(|compiled| compiled.render(&conversation.variables(&self.named)));
        rendered.map_err(|reason| failed(format!("{reason}, in `{}`", template.file.display())))
    }

    /// Named special tokens (`bos_token`), as chat templates have them.
    pub fn named_tokens(&self) -> &Map<String, Value> {
        &self.named
    }

    fn has_content_parts(&self) -> bool {
        self.templates.get("default").is_some_and(|template| conversation::takes_parts(&template.text))
    }
}

/// The chat templates of a model by their names. Files of their own come before `tokenizer_config.json`.
fn templates(folder: &Path, config: &Map<String, Value>) -> Result<BTreeMap<String, Template>, Error> {
    let mut found = BTreeMap::new();
    let mut put = |name: &str, text: String, file: &Path| {
        drop(found.insert(name.to_owned(), Template { text, file: file.to_owned() }));
    };
    let file = folder.join("chat_template.jinja");
    let mut alone = false;
    if let Some(template) = text(&file)? {
        put("default", template, &file);
        alone = true;
    }
    for entry in std::fs::read_dir(folder.join("additional_chat_templates")).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .filter(|_| path.extension().is_some_and(|end| end == "jinja"));
        if let (Some(name), Some(template)) = (name, text(&path)?) {
            put(name, template, &path);
            alone = true;
        }
    }
    if alone {
        return Ok(found);
    }
    let file = folder.join("tokenizer_config.json");
    match config.get("chat_template") {
        Some(Value::String(template)) => put("default", template.clone(), &file),
        Some(Value::Array(named)) => {
            let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).map(str::to_owned);
            let all = named.iter().filter_map(|one| Some((text(one, "name")?, text(one, "template")?)));
            all.for_each(|(name, text)| put(&name, text, &file));
        }
        Some(Value::Object(named)) => {
            let all = named.iter().filter_map(|(name, one)| Some((name, one.as_str()?.to_owned())));
            all.for_each(|(name, text)| put(name, text, &file));
        }
        _ => {}
    }
    let file = folder.join("chat_template.json");
    if found.is_empty()
        && let Some(object) = object(&file)?
        && let Some(template) = object.get("chat_template").and_then(Value::as_str)
    {
        found.insert("default".to_owned(), Template { text: template.to_owned(), file });
    }
    Ok(found)
}

fn refused(reason: String) -> Error {
    Error::Refused { reason }
}

/// transformers' `clean_up_tokenization`, which some models ask for when ids become text.
fn cleaned(text: &str) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        library(|| Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec())).map_err(refused)
    }

    fn count_with_special(&self, text: &str) -> Result<u64, Error> {
        library(|| Ok(self.inner.encode_fast(text, true)?.get_ids().len() as u64)).map_err(refused)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let text = library(|| self.inner.decode(ids, false)).map_err(refused)?;
        Ok(if self.clean_up { cleaned(&text) } else { text })
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
        self.render(&Conversation::of_server(messages, self.has_content_parts())?)
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
        let tokenizer = HfTokenizer::load(&folder.path().join("tokenizer.json"), Rules::default()).unwrap();
        (folder, tokenizer)
    }

    #[test]
    fn files_become_a_tokenizer() {
        let (folder, tokenizer) = words();
        assert_eq!(tokenizer.encode("a b h").unwrap(), [2, 3, 9]);
        assert_eq!(tokenizer.decode(&[2, 3]).unwrap(), "a b");
        assert_eq!((tokenizer.vocab_size(), tokenizer.special_ids()), (10, [0, 1].as_slice()));
        let user = Message::new("user", " a b ");
        assert_eq!(tokenizer.chat(&[user]).unwrap(), "<s> user a b\n</s>");
        let cache = super::super::Cache::default();
        assert!(super::super::find(&folder.path().display().to_string(), &cache, Rules::default()).is_ok());
        let error = super::super::find("nobody/nothing", &cache, Rules::default()).unwrap_err().to_string();
        assert!(error.contains("nobody/nothing/tokenizer.json"), "{error}");
    }

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokenizer.json");
        std::fs::write(&file, "{").unwrap();
        assert!(matches!(HfTokenizer::load(&file, Rules::default()), Err(Error::File { .. })));
    }

    #[test]
    fn files_beside_it_are_regular_and_small_or_absent() {
        for name in
            ["tokenizer_config.json", "special_tokens_map.json", "config.json", "chat_template.jinja", "tokenizer.json"]
        {
            let (folder, _) = words();
            let path = folder.path().join(name);
            let _ = std::fs::remove_file(&path);
            let load =
                || super::super::find(&folder.path().display().to_string(), &Default::default(), Rules::default());
            std::fs::create_dir(&path).unwrap();
            let error = load().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("a directory, not a regular file"), "{error}");
            std::fs::remove_dir(&path).unwrap();
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let error = load().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("a named pipe"), "{error}");
            std::fs::remove_file(&path).unwrap();
            std::fs::File::create(&path).unwrap().set_len(100 << 30).unwrap();
            let error = load().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("it is larger than"), "{error}");
        }
    }

    #[test]
    fn a_file_that_makes_very_much_of_little_text_is_refused() {
        let replace =
            |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let times = |count: usize| serde_json::json!({"type": "Sequence", "normalizers": vec![replace("b", &"b".repeat(10)); count]});
        let load = |part: &str, value: Value| {
            let folder = changed(|file| file[part] = value, serde_json::json!({}));
            HfTokenizer::load(&folder.path().join("tokenizer.json"), Rules::default())
                .map_err(|error| error.to_string())
        };
        let error = load("normalizer", times(9)).unwrap_err();
        assert!(error.contains("tokenizer.json`: its normalizer makes more than 1000 characters of one"), "{error}");
        assert!(load("normalizer", times(1)).is_ok());
        // Llama's, several times over.
        let plain = vec![replace(" ", "\u{2581}"); 50];
        assert!(load("normalizer", serde_json::json!({"type": "Sequence", "normalizers": plain})).is_ok());
        let single = |count: usize| {
            serde_json::json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": vec![serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}); count]})
        };
        let error = load("post_processor", single(100_000)).unwrap_err();
        assert!(error.contains("its post-processor makes 100000 texts"), "{error}");
        assert!(load("post_processor", single(1)).is_ok());
    }

    #[test]
    fn a_template_that_refuses_is_named() {
        let folder = changed(|_| {}, serde_json::json!({"chat_template": "{{ raise_exception('no') }}"}));
        let error = load(&folder, Rules::default()).chat(&[]).unwrap_err().to_string();
        assert!(
            error.contains("no (line 1 of the template), in `") && error.contains("tokenizer_config.json`"),
            "{error}"
        );
    }

    /// A folder with a tokenizer whose parts are changed.
    fn changed(tokenizer: impl FnOnce(&mut Value), config: Value) -> tempfile::TempDir {
        let (folder, _) = words();
        let path = folder.path().join("tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        tokenizer(&mut file);
        std::fs::write(&path, file.to_string()).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        folder
    }

    fn load(folder: &tempfile::TempDir, rules: Rules) -> HfTokenizer {
        HfTokenizer::load(&folder.path().join("tokenizer.json"), rules).unwrap()
    }

    #[test]
    fn the_begin_is_put_by_the_class_up_to_transformers_4() {
        let config = |class: &str, puts: bool| serde_json::json!({"tokenizer_class": class, "add_bos_token": puts, "bos_token": "<s>", "eos_token": "</s>", "unk_token": null});
        for (class, puts, rules, tokens) in [
            ("LlamaTokenizerFast", true, Rules::Transformers4, 3),
            ("LlamaTokenizerFast", false, Rules::Transformers4, 2),
            ("LlamaTokenizerFast", true, Rules::Transformers5, 2),
            ("PreTrainedTokenizerFast", true, Rules::Transformers4, 2),
        ] {
            let folder = changed(|_| {}, config(class, puts));
            let tokenizer = load(&folder, rules);
            assert_eq!(tokenizer.count_with_special("a b").unwrap(), tokens, "{class} {puts} {rules:?}");
            assert_eq!(u64::from(tokenizer.special_tokens_added()), tokens - 2);
            assert_eq!(tokenizer.encode("a b").unwrap().len(), 2);
        }
        assert_eq!(Rules::of_vllm("0.14.1"), Some(Rules::Transformers4));
        assert_eq!(Rules::of_vllm("0.32.0"), Some(Rules::Transformers5));
        assert_eq!(Rules::of_vllm("dev"), None);
    }

    #[test]
    fn named_tokens_may_be_a_map_and_are_added_where_they_are_missing() {
        let config = serde_json::json!({"bos_token": "<s>", "extra_special_tokens": {"image_token": "c", "boi_token": "<boi>"},
            "chat_template": "{{ image_token }}{{ boi_token }}{{ messages[0].content }}"});
        let folder = changed(|_| {}, config);
        let tokenizer = load(&folder, Rules::default());
        assert_eq!((tokenizer.vocab_size(), tokenizer.special_ids()), (10, [0, 4, 10].as_slice()));
        assert_eq!(tokenizer.encode("a <boi> b").unwrap(), [2, 10, 3]);
        assert_eq!(tokenizer.chat(&[Message::new("user", "a")]).unwrap(), "c<boi>a");
    }

    #[test]
    fn spaces_are_cleaned_where_the_model_and_its_time_want_it() {
        let config = serde_json::json!({"clean_up_tokenization_spaces": true});
        let folder = changed(|file| file["model"]["vocab"]["."] = 10.into(), config);
        assert_eq!(load(&folder, Rules::Transformers4).decode(&[2, 10]).unwrap(), "a.");
        assert_eq!(cleaned("a , b n't x ' y"), "a, bn't x'y");
    }

    #[test]
    fn templates_come_from_every_place() {
        let named = serde_json::json!({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]});
        let folder = changed(|_| {}, named);
        let tokenizer = load(&folder, Rules::default());
        let conversation = |value: Value| Conversation::of_json(value).unwrap();
        assert_eq!(tokenizer.render(&conversation(serde_json::json!([]))).unwrap(), "d");
        assert_eq!(tokenizer.render(&conversation(serde_json::json!({"messages": [], "tools": []}))).unwrap(), "t");
        std::fs::write(folder.path().join("chat_template.json"), "{\"chat_template\": \"j\"}").unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
        assert_eq!(load(&folder, Rules::default()).chat(&[]).unwrap(), "j");
        std::fs::write(folder.path().join("chat_template.jinja"), "f").unwrap();
        std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
        std::fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), "x").unwrap();
        let tokenizer = load(&folder, Rules::default());
        assert_eq!(tokenizer.chat(&[]).unwrap(), "f");
        assert_eq!(tokenizer.render(&conversation(serde_json::json!({"messages": [], "tools": []}))).unwrap(), "x");
    }

    #[test]
    fn truncation_and_padding_of_the_file_do_not_count() {
        let pad = serde_json::json!({"strategy": {"Fixed": 1_000_000_000_000u64}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
        let cut = serde_json::json!({"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"});
        let folder = changed(
            |file| {
                file["padding"] = pad;
                file["truncation"] = cut;
            },
            serde_json::json!({}),
        );
        assert_eq!(load(&folder, Rules::default()).encode("a b c").unwrap(), [2, 3, 4]);
    }

    /// Every value of the file, one by one, becomes something else: an error that names the file, or a tokenizer.
    #[test]
    fn no_damage_panics() {
        let (folder, _) = words();
        let path = folder.path().join("tokenizer.json");
        let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut pointers = Vec::new();
        collect(&whole, String::new(), &mut pointers);
        let others = [
            Value::Null,
            serde_json::json!(-1),
            serde_json::json!(u64::MAX),
            serde_json::json!(""),
            serde_json::json!([]),
            serde_json::json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", -1.0]]}),
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
            serde_json::json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "a"}),
            serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true, "content": "a", "start": 9, "stop": 9}),
        ];
        for pointer in &pointers {
            for other in &others {
                let mut damaged = whole.clone();
                *damaged.pointer_mut(pointer).unwrap() = other.clone();
                std::fs::write(&path, damaged.to_string()).unwrap();
                match HfTokenizer::load(&path, Rules::default()) {
                    Ok(tokenizer) => drop((tokenizer.encode("a b"), tokenizer.decode(&[0, 3, 99]))),
                    Err(error) => assert!(error.to_string().contains("tokenizer.json"), "{pointer}: {error}"),
                }
            }
        }
        assert!(pointers.len() > 30);
    }

    fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    collect(field, format!("{at}/{key}"), pointers);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(item, format!("{at}/{index}"), pointers);
                }
            }
            _ => {}
        }
        pointers.push(at);
    }
}

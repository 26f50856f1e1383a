//! Special tokens, and what the classes of transformers do with them beside the files of a model.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;

use super::Rules;

/// Keys of `tokenizer_config.json` and `special_tokens_map.json` that name special tokens.
const SPECIAL_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Special tokens that classes of transformers have where the files name none, and whether the class puts the first of a
/// text before it by itself (transformers 4: `update_post_processor`).
pub(super) type Class = (&'static [&'static str], &'static [(&'static str, &'static str)], bool);
const CLASSES: [Class; 6] = [
    (&["Llama", "CodeLlama"], &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")], true),
    (
        &["Gemma"],
        &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
        true,
    ),
    (
        &["Cohere"],
        &[("bos_token", "<BOS_TOKEN>"), ("eos_token", "<|END_OF_TURN_TOKEN|>"), ("unk_token", "<UNK>")],
        true,
    ),
    (
        &["Qwen2"],
        &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
        false,
    ),
    (
        &["GPT2"],
        &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
        false,
    ),
    (
        &["GPTNeoX"],
        &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
        false,
    ),
];

/// The row of a tokenizer's class.
pub(super) fn class_of(config: &Map<String, Value>, model_type: &str) -> Option<&'static Class> {
    let name = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or(match model_type {
        "llama" | "mistral" | "mixtral" => "Llama",
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "Gemma",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => "Qwen2",
        "cohere" | "cohere2" => "Cohere",
        _ => "",
    });
    let name = name.strip_suffix("Fast").unwrap_or(name);
    let name = name.strip_suffix("Tokenizer").unwrap_or(name);
    CLASSES.iter().find(|(names, ..)| names.contains(&name))
}

/// transformers 5 makes Llama's tokenizer anew of its vocabulary: the space before a text is put by the pre-tokenizer, once
/// (`legacy: false`) or after each special token.
pub(super) fn as_llama_5(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
) -> Result<(), tokenizers::Error> {
    let is = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let puts = is("add_prefix_space", true);
    let scheme = if !puts {
        "never"
    } else if is("legacy", false) {
        "always"
    } else {
        "first"
    };
    let mut decoders = serde_json::json!([
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
    ]);
    if let (true, Some(all)) = (puts, decoders.as_array_mut()) {
        all.push(serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let decoder: tokenizers::DecoderWrapper =
        serde_json::from_value(serde_json::json!({"type": "Sequence", "decoders": decoders}))?;
    let space = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    let before: tokenizers::PreTokenizerWrapper = serde_json::from_value(space)?;
    inner.with_normalizer(None::<tokenizers::NormalizerWrapper>)?;
    inner.with_pre_tokenizer(Some(before));
    inner.with_decoder(Some(decoder));
    Ok(())
}

/// Named special tokens, and further ones without names.
pub(super) fn special_tokens(
    config: &Map<String, Value>,
    map: &Map<String, Value>,
    class: Option<&'static Class>,
) -> (Vec<(String, Value)>, Vec<Value>) {
    let mut named: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, token: &Value| {
        if content(token).is_some() && !named.iter().any(|(there, _)| there == key) {
            named.push((key.to_owned(), token.clone()));
        }
    };
    let get = |key: &str| config.get(key).or_else(|| map.get(key));
    for key in SPECIAL_KEYS {
        let default = class.and_then(|(_, tokens, _)| tokens.iter().find(|(name, _)| *name == key));
        match (get(key), default) {
            (Some(token), _) => put(key, token),
            (None, Some((_, token))) => put(key, &Value::from(*token)),
            (None, None) => {}
        }
    }
    // Tokens of one model, as Gemma 3's `image_token`.
    for (key, token) in
        config.iter().filter(|(key, _)| key.ends_with("_token") && !SPECIAL_KEYS.contains(&key.as_str()))
    {
        put(key, token);
    }
    let mut more = Vec::new();
    for key in ["extra_special_tokens", "additional_special_tokens"] {
        match get(key) {
            Some(Value::Object(tokens)) => tokens.iter().for_each(|(key, token)| put(key, token)),
            Some(Value::Array(tokens)) => more.extend(tokens.iter().filter(|token| content(token).is_some()).cloned()),
            _ => {}
        }
    }
    (named, more)
}

/// A token as text, or as an object with its text.
pub(super) fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Adds the tokens that the configuration names and the vocabulary's list of added tokens lacks.
pub(super) fn add_tokens(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    named: &[(String, Value)],
    more: &[Value],
) -> Result<(), tokenizers::Error> {
    let there: BTreeSet<String> = inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
    let token = |value: &Value, special: bool| {
        let is = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
        let text = content(value).filter(|text| !text.is_empty() && !there.contains(*text))?;
        let special = special || is("special", false);
        Some(
            AddedToken::from(text.to_owned(), special)
                .lstrip(is("lstrip", false))
                .rstrip(is("rstrip", false))
                .single_word(is("single_word", false))
                .normalized(is("normalized", !special)),
        )
    };
    let mut decoder: Vec<(u64, &Value)> = config
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(id, value)| Some((id.parse().ok()?, value)))
        .collect();
    decoder.sort_by_key(|(id, _)| *id);
    let mut wanted: Vec<AddedToken> = decoder.into_iter().filter_map(|(_, value)| token(value, false)).collect();
    wanted.extend(named.iter().map(|(_, value)| value).chain(more).filter_map(|value| token(value, true)));
    let (special, plain): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|token| token.special);
    inner.add_tokens(plain)?;
    inner.add_special_tokens(special)?;
    Ok(())
}

/// Puts `bos_token` and `eos_token` around texts, as the class of the tokenizer does in transformers 4. transformers 5 takes
/// what `tokenizer.json` says.
pub(super) fn put_ends(
    inner: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    class: Option<&'static Class>,
    named: &Map<String, Value>,
    rules: Rules,
) -> Result<(), tokenizers::Error> {
    if rules == Rules::Transformers5 || !class.is_some_and(|(_, _, puts)| *puts) {
        return Ok(());
    }
    let token = |key: &str, put: &str, default: bool| -> Option<(String, u32)> {
        let wanted = config.get(put).map_or(default, |value| value.as_bool().unwrap_or(false));
        let text = named.get(key)?.as_str().filter(|_| wanted)?;
        Some((text.to_owned(), inner.token_to_id(text)?))
    };
    let (bos, eos) = (token("bos_token", "add_bos_token", true), token("eos_token", "add_eos_token", false));
    let mut single: Vec<String> = bos.iter().map(|(text, _)| format!("{text}:0")).collect();
    single.push("$A:0".into());
    single.extend(eos.iter().map(|(text, _)| format!("{text}:0")));
    let tokens: Vec<(String, u32)> = bos.into_iter().chain(eos).collect();
    let post = TemplateProcessing::builder().try_single(single)?.special_tokens(tokens).build()?;
    inner.with_post_processor(Some(post));
    Ok(())
}

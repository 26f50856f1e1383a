//! Whether a `tokenizer.json` makes very much of little text: rules that multiply each other take all memory with a long prompt.

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer as _, NormalizerWrapper};

/// How many times as long a text may become.
const MOST_TIMES: usize = 1000;
/// Bytes that one rule may make of the text below.
const MOST_BYTES: usize = 16 << 20;
/// Pieces that are put around a text, and how often the text itself is among them.
const MOST_PIECES: (usize, usize) = (1000, 10);
/// Characters that rules are about.
const TEXT: &str =
    "Hello, world! 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ \u{e9}\u{4e2d}\n\t'\"._-";

#[derive(serde::Deserialize)]
struct Parts {
    normalizer: Option<Value>,
    post_processor: Option<Value>,
}

/// Looks at the parts of a file that can make a text longer.
///
/// # Errors
/// What makes too much of a text.
pub fn check(file: &[u8]) -> Result<(), String> {
    // What cannot be read is told by the tokenizers library.
    let Ok(Parts { normalizer, post_processor }) = serde_json::from_slice(file) else { return Ok(()) };
    let mut rules = Vec::new();
    flat(normalizer.as_ref(), "normalizers", &mut rules);
    grows(&rules)?;
    let mut processors = Vec::new();
    flat(post_processor.as_ref(), "processors", &mut processors);
    processors.into_iter().try_for_each(surrounds)
}

/// A rule, or those of a sequence.
fn flat<'v>(part: Option<&'v Value>, list: &str, found: &mut Vec<&'v Value>) {
    let Some(part) = part.filter(|part| !part.is_null()) else { return };
    match part.get(list).and_then(Value::as_array) {
        Some(inner) => inner.iter().for_each(|part| flat(Some(part), list, found)),
        None => found.push(part),
    }
}

fn grows(rules: &[&Value]) -> Result<(), String> {
    let pattern = |rule: &&Value| rule.get("pattern")?.get("String")?.as_str().map(str::to_owned);
    let text = rules.iter().filter_map(pattern).fold(TEXT.to_owned(), |text, pattern| text + &pattern);
    let most = text.len().saturating_mul(MOST_TIMES);
    let too_much = || Err(format!("its normalizer makes more than {MOST_TIMES} characters of one"));
    let mut text = NormalizedString::from(text);
    for rule in rules {
        let content = rule.get("content").and_then(Value::as_str).map_or(1, str::len);
        if text.get().len().saturating_mul(content) > most.max(MOST_BYTES) {
            return too_much();
        }
        let Ok(rule) = serde_json::from_value::<NormalizerWrapper>((*rule).clone()) else { return Ok(()) };
        if rule.normalize(&mut text).is_err() {
            return Ok(());
        }
        if text.get().len() > most {
            return too_much();
        }
    }
    Ok(())
}

fn surrounds(processor: &Value) -> Result<(), String> {
    let pieces = processor.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts = pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count();
    if pieces.len() > MOST_PIECES.0 || texts > MOST_PIECES.1 {
        return Err(format!("its post-processor makes {texts} texts and {} pieces of one text", pieces.len()));
    }
    Ok(())
}

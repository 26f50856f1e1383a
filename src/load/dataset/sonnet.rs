//! vLLM's sonnet data set.

use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rows::format;
use super::{Error, SharedTokenizer, Spec};
use crate::load::prompt::{Content, Message, Prompt};

/// vLLM's sonnet data set: lines of a poem, some of them shared by all prompts.
pub(super) fn build(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Vec<Prompt>, Error> {
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

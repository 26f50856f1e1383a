//! Long prompts in the manner of retrieval: pieces of a text, a question, earlier turns (S3's `generate_rag_prompts`).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::random::shuffle;
use super::rows::format;
use super::{Error, SharedTokenizer, Spec};
use crate::load::prompt::{Content, Message, Prompt};

/// A text to take pieces from, where none is named.
const TEXT: &str = include_str!("rag.txt");

/// The system message.
const SYSTEM: &str =
    "You answer questions from the passages that you are given. Say so when they do not hold the answer.";

const QUESTIONS: [&str; 8] = [
    "What is the main point of these passages",
    "Which of the passages contradict each other",
    "Name three facts from the passages, with the place of each",
    "What would a reader still have to look up",
    "How do the first and the last passage belong together",
    "Which numbers are given, and what do they measure",
    "What follows from the passages for someone who plans a journey",
    "Explain the second passage to a child",
];

const TURNS: [(&str, &str); 4] = [
    ("Where do these passages come from?", "They are parts of a collection about trade, weather and the sea."),
    (
        "Are they all by the same writer?",
        "The style is the same throughout, so that is likely, but they do not say so.",
    ),
    ("Is there anything about harbours?", "Yes: harbours, their lights and their tolls come up several times."),
    ("Which passage is the oldest?", "None of them gives a year, so that cannot be told from the text alone."),
];

/// Builds the prompts.
///
/// # Errors
/// When there is no tokenizer, or the text is too short.
pub fn build(spec: &Spec, tokenizer: Option<SharedTokenizer>) -> Result<Vec<Prompt>, Error> {
    let tokenizer = tokenizer
        .ok_or_else(|| Error::Needs { what: "rag", needs: "the model's tokenizer: name it with --tokenizer".into() })?;
    let text = match &spec.path {
        Some(path) => crate::bounded::read_named(path.as_ref(), crate::bounded::RESULT)
            .map_err(|source| Error::File { path: path.into(), source })?,
        None => TEXT.to_owned(),
    };
    let mut chunks: Vec<(String, u64)> = Vec::new();
    for chunk in text.split("\n\n").map(str::trim).filter(|chunk| !chunk.is_empty()) {
        chunks.push((chunk.to_owned(), tokenizer.count_with_special(chunk)?));
    }
    if chunks.is_empty() {
        return Err(format(spec.path.as_deref().unwrap_or_default().as_ref(), None, "has no paragraphs"));
    }
    let questions: Vec<String> = QUESTIONS.iter().map(|question| asked(question)).collect();
    (0..spec.count)
        .map(|index| {
            let mut random = ChaCha8Rng::seed_from_u64(spec.seed);
            random.set_stream(index);
            let question = &questions[random.random_range(0..questions.len())];
            one(spec, &tokenizer, &chunks, question, &mut random, index)
        })
        .collect()
}

/// A question ends as one.
fn asked(question: &str) -> String {
    let question = question.trim();
    if question.ends_with('?') { question.to_owned() } else { format!("{question}?") }
}

fn one(
    spec: &Spec,
    tokenizer: &SharedTokenizer,
    chunks: &[(String, u64)],
    question: &str,
    random: &mut ChaCha8Rng,
    index: u64,
) -> Result<Prompt, Error> {
    let target = spec.input_len;
    let message = |role: &str, content: &str| Message::new(role, content);
    let mut used = tokenizer.count_with_special(SYSTEM)? + tokenizer.count_with_special(question)?;
    let mut messages = vec![message("system", SYSTEM)];
    let most_history = 300.min(target / 4);
    let mut history = 0;
    for (user, assistant) in TURNS.iter().cycle().take(usize::try_from(spec.history_turns).unwrap_or(0)) {
        let tokens = tokenizer.count_with_special(user)? + tokenizer.count_with_special(assistant)?;
        if history + tokens > most_history {
            break;
        }
        history += tokens;
        messages.extend([message("user", user), message("assistant", assistant)]);
    }
    used += history;
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    shuffle(&mut order, random);
    let mut passages = String::new();
    for at in order.into_iter().cycle() {
        if used >= target {
            break;
        }
        let (chunk, tokens) = &chunks[at];
        if used + tokens > target + target * 15 / 100 {
            // A part of it, so that the length is met.
            let ids = tokenizer.encode(chunk)?;
            let room = usize::try_from(target - used).unwrap_or(0).min(ids.len());
            passages.push_str(&tokenizer.decode(&ids[..room])?);
            break;
        }
        passages.push_str(chunk);
        passages.push_str("\n\n");
        used += tokens.max(&1);
    }
    messages.push(message("user", &format!("Passages:\n{}\n\nQuestion: {question}", passages.trim_end())));
    let content = if spec.chat {
        Content::Messages(messages)
    } else {
        // A model without a chat template gets the texts one after the other.
        let joined = || messages.iter().map(Message::text).collect::<Vec<_>>().join("\n\n");
        Content::Text(tokenizer.chat(&messages).unwrap_or_else(|_| joined()))
    };
    let tokens = tokenizer.count_with_special(&super::texts::plain(&content))?;
    let tokens = Some(tokens);
    let prompt_len = if spec.chat { super::texts::chat_tokens(&content, Some(tokenizer), tokens) } else { tokens };
    Ok(Prompt { content, prompt_len, output_len: spec.output_len, id: Some(format!("rag-{index:05}")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::dataset::Name;
    use crate::load::dataset::tests::spec;

    #[test]
    fn prompts_are_within_15_percent_of_the_target_and_the_same_every_time() {
        let tokenizer: SharedTokenizer = std::sync::Arc::new(crate::load::tokenizer::test_words().1);
        let spec = Spec { input_len: 600, count: 20, chat: true, ..spec(Name::Rag) };
        let prompts = build(&spec, Some(tokenizer.clone())).unwrap();
        for prompt in &prompts {
            // The template adds two words a message, and one at the end.
            assert!((510..=703).contains(&prompt.prompt_len.unwrap()), "{:?}", prompt.prompt_len);
            let Content::Messages(messages) = &prompt.content else { panic!() };
            assert!(messages.last().unwrap().text().ends_with('?') && messages.len() == 6, "{}", messages.len());
        }
        assert_eq!(prompts, build(&spec, Some(tokenizer)).unwrap());
        assert!(build(&spec, None).is_err());
    }
}

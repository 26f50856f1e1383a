//! Prompts that people wrote: from rows to prompts, filtered, counted, each used once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::candidate::{Candidate, candidate};
use super::random::shuffle;
use super::rows::{self, Rows};
use super::{Error, Name, SharedTokenizer, Spec, hub, rag, sonnet};
use crate::load::prompt::{Content, Message, Prompt};

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
        return sonnet::build(spec, tokenizer);
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
    // A document in a template was cut to its room already: without a tokenizer that is all there is.
    let is_cut = spec.template.is_some() && tokenizer.is_none();
    let most = filter.most.filter(|_| !is_cut);
    let needs_counts = filter.least.is_some() || most.is_some() || filter.sharegpt;
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
        if prompt_len.is_some_and(|tokens| most.is_some_and(|most| tokens > most)) {
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

//! From the events of one answer to what they add up to.

use super::chunk::MOST_WORDS;
use super::{Broken, Classifier, End, Expect, Reply, Usage, excerpt};

/// The most text that is kept of one answer.
const MOST_TEXT: usize = 4 << 20;
/// Samples of one request that are kept apart.
const MOST_SAMPLES: usize = 4096;
/// Events after which a stream of unknown length is endless.
const MOST_EVENTS: u64 = 8 << 20;
/// Events beyond twice the tokens asked for after which a stream is endless.
const SLACK: u64 = 1024;
/// Counts of tokens that are kept of one answer.
const MOST_COUNTS: usize = 8;

/// What the events go into.
#[derive(Debug)]
pub(super) struct Reader {
    expect: Expect,
    classifier: Classifier,
    pub reply: Reply,
    /// Time of the last token of each sample.
    lasts: Vec<Option<u64>>,
    /// Ends that said nothing, with their times, until it is known whether they were tokens.
    ends: Vec<(End, u64)>,
    /// Counts of the whole answer, where they differ.
    counts: Vec<Usage>,
    /// An event has come.
    begun: bool,
}

impl Reader {
    /// For an answer of which nothing has come.
    pub fn new(expect: Expect) -> Self {
        let mut gaps = Vec::new();
        if expect.stream {
            gaps.reserve_exact(usize::try_from(expect.tokens.unwrap_or(0)).unwrap_or(0).min(4096));
        }
        Self {
            expect,
            classifier: Classifier::new(expect.keep_text),
            reply: Reply { gaps, ..Reply::default() },
            lasts: Vec::new(),
            ends: Vec::new(),
            counts: Vec::new(),
            begun: false,
        }
    }

    /// Whether an event has come.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Data of an event that arrived at `at`.
    pub fn event(&mut self, payload: &[u8], is_error: bool, at: u64) -> Result<(), Broken> {
        self.begun = true;
        if self.reply.done {
            // Nothing counts after `[DONE]`, nor is it read.
            return Ok(());
        }
        if is_error {
            self.failed(&excerpt(payload, MOST_WORDS));
            return Ok(());
        }
        let told = self.expect.told.map_or(Ok(None), |read| read(payload))?;
        if told.is_none()
            && let Some((sample, text)) = self.classifier.plain_token(payload)
        {
            keep(&mut self.reply.text, self.expect.keep_text && sample == 0, text);
            self.reply.note(!text.is_empty(), text.len() as u64);
            return self.token(sample, at);
        }
        if payload == b"[DONE]" {
            self.reply.done = true;
            return self.settle();
        }
        let chunk = self.classifier.read(payload)?;
        if let Some(usage) = chunk.usage {
            self.count(usage, chunk.choices > 0);
        }
        if let Some(error) = &chunk.error {
            self.failed(error);
        }
        self.reply.finished += chunk.finished;
        chunk.tokens.iter().for_each(|piece| self.reply.note(piece.prints, piece.bytes));
        self.reply.quiet += chunk.ends.len() as u64;
        for piece in &chunk.tokens {
            keep(&mut self.reply.text, self.expect.keep_text && piece.sample == 0, &piece.text);
        }
        if let Some(times) = told {
            self.reply.told = true;
            let sample = chunk.tokens.first().map_or(0, |piece| piece.sample);
            return times.into_iter().try_for_each(|time| self.token(sample, time));
        }
        for piece in &chunk.tokens {
            self.token(piece.sample, at)?;
        }
        for end in chunk.ends {
            self.in_range(end.sample)?;
            if self.ends.len() >= MOST_SAMPLES {
                return Err(Broken::Endless { events: self.ends.len() as u64, asked: self.expect.tokens.unwrap_or(0) });
            }
            self.ends.push((end, at));
        }
        Ok(())
    }

    /// The server's error, of which further lines may come.
    pub fn failed(&mut self, words: &str) {
        match &mut self.reply.error {
            None if words.is_empty() => self.reply.error = Some("an event named `error`".into()),
            None => self.reply.error = Some(words.to_owned()),
            Some(known) if known.len() < MOST_WORDS && !words.is_empty() => {
                known.push(' ');
                known.push_str(words);
            }
            Some(_) => {}
        }
    }

    /// Where not one event came: an error of the server that is no event, as a gateway sends it.
    pub fn refused(&mut self, body: &[u8]) {
        if self.begun || !body.starts_with(b"{") {
            return;
        }
        if let Some(words) = self.classifier.read(body).ok().and_then(|chunk| chunk.error) {
            self.failed(&words);
        }
    }

    /// A count of tokens. One that comes with a part of the answer grows with it; others are of the whole.
    fn count(&mut self, usage: Usage, grows: bool) {
        let before = self.reply.usage;
        let known = before.filter(|before| before.completion_tokens.is_some());
        if (grows && !self.counts.is_empty()) || (known.is_some() && usage.completion_tokens.is_none()) {
            return;
        }
        self.reply.usage = Some(usage);
        if grows {
            return;
        }
        // Where there is one sample, the whole has no fewer than a part.
        let fell = known.filter(|known| {
            self.counts.is_empty() && self.reply.samples <= 1 && known.completion_tokens > usage.completion_tokens
        });
        for usage in fell.into_iter().chain([usage]) {
            if self.counts.last() == Some(&usage) {
                continue;
            }
            self.counts.truncate(MOST_COUNTS - 1);
            self.counts.push(usage);
        }
    }

    /// Finds out which count is taken, and whether ends that said nothing were tokens, once all is known. They were where the server counts one token
    /// for each event and for each end (the token at which a text ends prints nothing); and where nothing else tells of the
    /// tokens that there were.
    pub fn settle(&mut self) -> Result<(), Broken> {
        self.reply.choose(&self.counts, self.expect.tokens);
        let ends = std::mem::take(&mut self.ends);
        let counted = self.reply.usage.and_then(|usage| usage.completion_tokens);
        let nothing_else = self.reply.events == 0
            && counted.map_or_else(|| ends.iter().any(|(end, _)| end.by_length), |tokens| tokens > 0);
        if nothing_else || counted == Some(self.reply.events + ends.len() as u64) {
            for (end, at) in ends {
                self.token(end.sample, at)?;
            }
        }
        Ok(())
    }

    /// Whether a sample can be one of those that were asked for.
    fn in_range(&self, sample: u32) -> Result<(), Broken> {
        let asked = self.expect.samples;
        if sample < asked && (sample as usize) < MOST_SAMPLES {
            Ok(())
        } else {
            Err(Broken::Sample { index: sample, asked })
        }
    }

    fn token(&mut self, sample: u32, at: u64) -> Result<(), Broken> {
        self.in_range(sample)?;
        let reply = &mut self.reply;
        let number = sample as usize;
        if self.lasts.len() <= number {
            self.lasts.resize(number + 1, None);
        }
        match self.lasts[number].replace(at) {
            Some(last) => reply.gaps.push(gap(at.saturating_sub(last))),
            None => reply.samples += 1,
        }
        reply.first.get_or_insert(at);
        reply.last = reply.last.max(at);
        reply.events += 1;
        if reply.events > most_events(self.expect.tokens) {
            return Err(Broken::Endless { events: reply.events, asked: self.expect.tokens.unwrap_or(0) });
        }
        Ok(())
    }

    /// An answer in one piece: there is no time to a first token.
    pub fn whole(&mut self, body: &[u8], at: u64) -> Result<(), Broken> {
        let told = self.expect.told.map_or(Ok(None), |read| read(body))?;
        let chunk = self.classifier.read(body)?;
        let reply = &mut self.reply;
        (reply.usage, reply.error, reply.finished) = (chunk.usage, chunk.error, chunk.finished);
        reply.samples = chunk.choices;
        chunk.tokens.iter().for_each(|piece| reply.note(piece.prints, piece.bytes));
        reply.quiet += chunk.ends.len() as u64;
        // At least one each, where nobody counts.
        let by_length = chunk.ends.iter().filter(|end| end.by_length).count();
        reply.events = (chunk.tokens.len() + by_length) as u64;
        reply.done = reply.error.is_none() && chunk.choices > 0;
        reply.told = told.is_some();
        reply.last = told.map_or(at, |times| times.into_iter().max().unwrap_or(0));
        if let Some(piece) = chunk.tokens.first() {
            keep(&mut reply.text, self.expect.keep_text, &piece.text);
        }
        Ok(())
    }
}

/// The most events that an answer may have, where so many tokens were asked for: one that goes on is endless.
fn most_events(asked: Option<u64>) -> u64 {
    asked.map_or(MOST_EVENTS, |tokens| tokens.saturating_mul(2).saturating_add(SLACK))
}

/// A time between two tokens as it is kept.
fn gap(nanos: u64) -> u32 {
    u32::try_from(nanos / 100).unwrap_or(u32::MAX)
}

fn keep(text: &mut String, wanted: bool, more: &str) {
    if wanted && text.len() + more.len() <= MOST_TEXT {
        text.push_str(more);
    }
}

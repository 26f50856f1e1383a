//! The tokens that a server counts, held against what was asked for and what it sent. Pure.

use super::{Reply, Usage};

/// Tokens that a server may add to a prompt: a template, a system message of its own.
const MOST_ADDED: u64 = 1 << 20;
/// Tokens in one event without a text, at most: special tokens print nothing, and a server that guesses ahead sends several.
const QUIET: u64 = 16;
/// Tokens that a short answer may have beyond its bytes: thoughts that the server keeps to itself.
const HIDDEN: u64 = 1024;

impl Reply {
    /// Why the server's own counts cannot be true; `None` where they can. `asked`: tokens asked for, all samples together.
    /// `request`: bytes of the request.
    pub fn implausible_usage(&self, asked: Option<u64>, request: u64) -> Option<String> {
        let usage = self.usage?;
        if let Some(prompt) = usage.prompt_tokens.filter(|tokens| *tokens > request.saturating_add(MOST_ADDED)) {
            return Some(format!("the server counts {prompt} prompt tokens in a request of {request} bytes"));
        }
        let tokens = usage.completion_tokens?;
        if let Some(asked) = asked.filter(|asked| tokens > *asked && tokens > self.most_tokens()) {
            let sent = self.sent();
            return Some(format!("the server counts {tokens} tokens, but {asked} were asked for and {sent}"));
        }
        (tokens > self.bytes.max(HIDDEN)).then(|| self.beyond(tokens))
    }

    /// Why the server's count of the answer is another one than what it streamed, though it can be true: the answer counts,
    /// with this said beside it.
    pub fn miscounted(&self) -> Option<String> {
        let (tokens, estimate) = self.output_tokens();
        let why = if estimate { None } else { self.differs(tokens) };
        let all: Vec<&str> = self.recounted.iter().chain(&why).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Which of several counts is taken: the last one that neither what was asked for nor what was streamed contradicts,
    /// else the last one.
    pub(super) fn choose(&mut self, counts: &[Usage], asked: Option<u64>) {
        let ([_, .., last] | [last]) = counts else { return };
        let stands = |usage: &&Usage| {
            usage
                .completion_tokens
                .is_none_or(|tokens| asked.is_none_or(|asked| tokens <= asked) && self.differs(tokens).is_none())
        };
        let taken = *counts.iter().rev().find(stands).unwrap_or(last);
        self.usage = Some(taken);
        if counts.len() > 1 {
            let all: Vec<String> = counts.iter().map(words).collect();
            let (all, taken) = (all.join(", then "), words(&taken));
            self.recounted = Some(format!("the server gave several counts: {all}; taken: {taken}"));
        }
    }

    /// Tokens of the answers: the server's count, else the events. The second value tells an estimate. vLLM's client takes a
    /// count of 0 beside a text for none, too.
    pub fn output_tokens(&self) -> (u64, bool) {
        match self.usage.and_then(|usage| usage.completion_tokens) {
            Some(0) if self.printed => (self.events, true),
            Some(tokens) => (tokens, false),
            None => (self.events, true),
        }
    }

    /// How a count differs from what was streamed. An answer in one piece does not tell: special tokens are left out of it.
    fn differs(&self, tokens: u64) -> Option<String> {
        self.first?;
        if tokens > self.most_tokens() {
            return Some(self.beyond(tokens));
        }
        // One more may come with each sample: a prompt that is repeated.
        let least = self.texts.saturating_sub(u64::from(self.samples));
        (tokens < least).then(|| format!("the server counts {tokens} tokens, but {}", self.sent()))
    }

    fn beyond(&self, tokens: u64) -> String {
        format!("the server counts {tokens} tokens, but {}", self.sent())
    }

    /// The most tokens that were sent: one has a byte of text at least, but special ones and parts of a character have none.
    fn most_tokens(&self) -> u64 {
        self.text_bytes.saturating_add(self.texts).saturating_add(self.quiet.saturating_mul(QUIET))
    }

    fn sent(&self) -> String {
        format!("sent {} bytes of text in {} events", self.text_bytes, self.texts.saturating_add(self.quiet))
    }
}

/// A count in words.
fn words(usage: &Usage) -> String {
    let number = |count: Option<u64>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
    format!("{} tokens for a prompt of {}", number(usage.completion_tokens), number(usage.prompt_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt: u64, tokens: u64) -> Usage {
        serde_json::from_str(&format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{tokens}}}"#)).unwrap()
    }

    /// Eight events of three bytes each.
    fn streamed(tokens: u64) -> Reply {
        Reply {
            first: Some(1),
            events: 8,
            texts: 8,
            text_bytes: 24,
            bytes: 1300,
            samples: 1,
            printed: true,
            usage: Some(usage(10, tokens)),
            ..Reply::default()
        }
    }

    #[test]
    fn a_count_is_held_against_what_was_asked_for_and_what_was_sent() {
        for (tokens, asked, fails, is_told) in [
            (8, Some(8), false, false),
            // Several tokens come in one event.
            (24, Some(64), false, false),
            (500, Some(8), true, true),
            (500, Some(500), false, true),
            (100, Some(99), true, true),
            (100, None, false, true),
            (u64::MAX, Some(8), true, true),
            (u64::MAX, None, true, true),
            (4_000_000, Some(4_000_000), true, true),
            // Asked for less, and streamed: another workload, which is said elsewhere.
            (20, Some(8), false, false),
            // Fewer than came.
            (7, Some(8), false, false),
            (3, Some(8), false, true),
        ] {
            let reply = streamed(tokens);
            let (why, told) = (reply.implausible_usage(asked, 100), reply.miscounted());
            assert_eq!((why.is_some(), told.is_some()), (fails, is_told), "{tokens} of {asked:?}: {why:?}, {told:?}");
        }
        let prompt = Reply { usage: Some(usage(u64::MAX, 8)), ..streamed(8) };
        assert!(prompt.implausible_usage(Some(8), 100).is_some());
    }

    #[test]
    fn tokens_that_print_nothing_are_no_contradiction() {
        // After its end a model that must go on may send special tokens only, several of them at once.
        let quiet = Reply { texts: 2, quiet: 6, text_bytes: 6, ..streamed(64) };
        assert_eq!((quiet.miscounted(), quiet.implausible_usage(Some(64), 100)), (None, None));
        // An answer in one piece leaves them out.
        let whole = Reply { first: None, texts: 1, events: 1, text_bytes: 4, ..streamed(500) };
        assert_eq!((whole.miscounted(), whole.implausible_usage(Some(500), 100)), (None, None));
        assert!(whole.implausible_usage(Some(100), 100).is_some());
        // A count of 0 beside a text is none.
        assert_eq!(streamed(0).miscounted(), None);
    }

    #[test]
    fn of_several_counts_the_last_that_can_be_is_taken_and_that_is_said() {
        for (counts, asked, taken) in [
            (&[8, 16][..], Some(8), 8),
            (&[8, 16], Some(64), 16),
            (&[8, 3], Some(8), 8),
            (&[8, 9, 500], None, 9),
            (&[100, 500], Some(8), 500),
        ] {
            let mut reply = streamed(8);
            let counts: Vec<Usage> = counts.iter().map(|tokens| usage(10, *tokens)).collect();
            reply.choose(&counts, asked);
            assert_eq!(reply.output_tokens(), (taken, false), "{counts:?}");
            assert!(reply.miscounted().unwrap().contains("several counts"), "{counts:?}");
        }
        let mut once = streamed(8);
        once.choose(&[usage(10, 8)], Some(8));
        assert_eq!(once.miscounted(), None);
        once.choose(&[], Some(8));
        assert_eq!(once.output_tokens(), (8, false));
    }
}

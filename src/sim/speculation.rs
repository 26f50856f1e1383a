//! Speculative decoding of a simulated server, as far as its counters and times show it: each step drafts tokens for every
//! sequence that decodes, checks them all at once, and takes those up to the first that is refused. Which part is accepted is
//! an assumption about each method, not a property of models or prompts.

use rand::{Rng, RngExt};
use serde_json::Value;

/// The most draft tokens that are believed.
const MOST_TOKENS: u64 = 64;

/// `--speculative-config`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// `num_speculative_tokens`.
    pub tokens: u64,
    /// The chance that a draft token is accepted where those before it were.
    pub acceptance: f64,
    /// What drafting one token costs, as a part of a step.
    pub cost: f64,
}

impl Speculation {
    /// Reads vLLM's JSON; `None` where it asks for nothing that can be simulated.
    pub fn of(text: &str) -> Option<Self> {
        let config: Value = serde_json::from_str(text).ok()?;
        let tokens = config.get("num_speculative_tokens")?.as_u64().filter(|tokens| *tokens > 0)?.min(MOST_TOKENS);
        let word = |key: &str| config.get(key).and_then(Value::as_str);
        let method = word("method").or_else(|| word("model").filter(|model| ["ngram", "[ngram]"].contains(model)));
        let (acceptance, cost) = match method.unwrap_or("draft_model") {
            "ngram" | "[ngram]" => (0.35, 0.002),
            "suffix" => (0.45, 0.002),
            "medusa" | "mlp_speculator" => (0.5, 0.02),
            "eagle" => (0.6, 0.04),
            "eagle3" => (0.7, 0.04),
            mtp if mtp.ends_with("mtp") => (0.75, 0.05),
            _ => (0.65, 0.1),
        };
        Some(Self { tokens, acceptance, cost })
    }

    /// How many of so many draft tokens are accepted.
    pub fn accepted(&self, drafted: u64, random: &mut impl Rng) -> u64 {
        (0..drafted).take_while(|_| random.random::<f64>() < self.acceptance).count() as u64
    }
}

/// What was drafted and accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drafts {
    /// How often a sequence was drafted for.
    pub drafts: u64,
    /// Tokens drafted.
    pub tokens: u64,
    /// Tokens accepted, by their position in the draft.
    pub accepted: Vec<u64>,
}

impl Drafts {
    /// Nothing yet, of drafts of so many tokens.
    pub fn none(tokens: u64) -> Self {
        Self { accepted: vec![0; usize::try_from(tokens).unwrap_or(0)], ..Self::default() }
    }

    /// Adds one draft.
    pub fn add(&mut self, drafted: u64, accepted: u64) {
        self.drafts += 1;
        self.tokens += drafted;
        for count in self.accepted.iter_mut().take(usize::try_from(accepted).unwrap_or(0)) {
            *count += 1;
        }
    }

    /// Adds those of `other` and empties it.
    pub fn take(&mut self, other: &mut Drafts) {
        self.drafts += std::mem::take(&mut other.drafts);
        self.tokens += std::mem::take(&mut other.tokens);
        self.accepted.iter_mut().zip(&mut other.accepted).for_each(|(all, one)| *all += std::mem::take(one));
    }

    /// Tokens accepted at any position.
    pub fn all_accepted(&self) -> u64 {
        self.accepted.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn vllms_configurations_are_read() {
        let of = |text: &str| Speculation::of(text).map(|found| (found.tokens, found.acceptance));
        assert_eq!(of(r#"{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 5}"#), Some((4, 0.35)));
        assert_eq!(of(r#"{"model": "[ngram]", "num_speculative_tokens": 4}"#), Some((4, 0.35)));
        assert_eq!(of(r#"{"model": "org/draft", "num_speculative_tokens": 3}"#), Some((3, 0.65)));
        assert_eq!(of(r#"{"method": "deepseek_mtp", "num_speculative_tokens": 1}"#), Some((1, 0.75)));
        for text in ["", "None", "{}", r#"{"method": "ngram"}"#, r#"{"num_speculative_tokens": 0}"#] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn fewer_are_accepted_the_further_they_look() {
        let speculation = Speculation::of(r#"{"method": "eagle3", "num_speculative_tokens": 3}"#).unwrap();
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut drafts = Drafts::none(3);
        for _ in 0..20_000 {
            let accepted = speculation.accepted(3, &mut random);
            drafts.add(3, accepted);
        }
        for (position, accepted) in drafts.accepted.iter().enumerate() {
            let rate = *accepted as f64 / 20_000.0;
            assert!((rate - 0.7_f64.powi(position as i32 + 1)).abs() < 0.02, "{position}: {rate}");
        }
        let mut all = Drafts::none(3);
        all.take(&mut drafts.clone());
        assert_eq!((&all, all.tokens), (&drafts, 60_000));
        drafts.take(&mut Drafts::none(3));
        assert_eq!(all.all_accepted(), drafts.accepted.iter().sum::<u64>());
    }
}

//! Prompts without meaning, of exact lengths: vLLM's `random` and `prefix_repetition` data sets, and words where nothing can
//! count tokens.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::numpy::DefaultRng;
use super::{Error, SharedTokenizer};
use crate::load::prompt::{Content, Prompt, PromptSource};
use crate::load::tokenizer::Tokenizer;

/// What `random` prompts are to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    /// Tokens of a prompt.
    pub input_len: u64,
    /// Tokens of its answer.
    pub output_len: u64,
    /// Lengths vary by this part.
    pub range_ratio: f64,
    /// Tokens that all begin with.
    pub prefix_len: u64,
    /// How many.
    pub count: u64,
    /// For all of it.
    pub seed: u64,
    /// Token ids rather than text.
    pub token_ids: bool,
}

/// Up to so many tokens in all, prompts are made exactly in vLLM's order, and kept.
const KEPT_TOKENS: u64 = 20_000_000;

#[derive(Debug)]
struct Lengths {
    input: Drawn,
    output: Drawn,
    offset: Drawn,
}

/// One number for each prompt.
#[derive(Debug)]
enum Drawn {
    /// The same for all: nothing was drawn.
    Same(u32),
    Each(Vec<u32>),
}

impl Drawn {
    /// `low` included, `high` excluded.
    fn new(rng: &mut DefaultRng, low: u64, high: u64, count: usize) -> Self {
        let mut one = || u32::try_from(rng.integer(low, high)).unwrap_or(u32::MAX);
        if high.saturating_sub(low) <= 1 { Self::Same(one()) } else { Self::Each((0..count).map(|_| one()).collect()) }
    }

    fn at(&self, index: usize) -> u32 {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers[index],
        }
    }

    fn sum(&self, count: usize) -> u64 {
        match self {
            Self::Same(number) => u64::from(*number).saturating_mul(count as u64),
            Self::Each(numbers) => numbers.iter().map(|number| u64::from(*number)).sum(),
        }
    }
}

/// Random prompts.
#[derive(Debug)]
struct RandomPrompts {
    tokenizer: SharedTokenizer,
    spec: Random,
    lengths: Lengths,
    prefix: Vec<u32>,
    allowed: Vec<u32>,
}

impl Random {
    /// The prompts that vLLM's client makes of the same flags and tokenizer.
    ///
    /// # Errors
    /// When a length is none, or the tokenizer fails.
    pub fn open(self, tokenizer: SharedTokenizer) -> Result<super::Source, Error> {
        if !(0.0..1.0).contains(&self.range_ratio) {
            let expected = "expected 0 or more and less than 1".into();
            return Err(Error::Flag { flag: "random-range-ratio", found: self.range_ratio.to_string(), expected });
        }
        let real = self.input_len.saturating_sub(u64::from(tokenizer.special_tokens_added()));
        let bounds = |middle: u64| {
            let low = (middle as f64 * (1.0 - self.range_ratio)).floor() as u64;
            (low, (middle as f64 * (1.0 + self.range_ratio)).ceil() as u64)
        };
        let (input_low, input_high) = bounds(real);
        if input_low + self.prefix_len < 1 {
            let expected = format!("with {} special tokens no token would be left", tokenizer.special_tokens_added());
            return Err(Error::Flag { flag: "random-input-len", found: self.input_len.to_string(), expected });
        }
        let (output_low, output_high) = bounds(self.output_len);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let vocabulary = u64::from(tokenizer.vocab_size());
        let mut rng = DefaultRng::new(self.seed);
        let mut draw = |low, high| Drawn::new(&mut rng, low, high, count);
        let lengths = Lengths {
            input: draw(input_low, input_high + 1),
            output: draw(output_low.max(1), output_high.max(1) + 1),
            offset: draw(0, vocabulary),
        };
        let special = tokenizer.special_ids();
        let allowed: Vec<u32> = (0..tokenizer.vocab_size()).filter(|id| !special.contains(id)).collect();
        if allowed.is_empty() {
            return Err(Error::Needs { what: "random", needs: "a tokenizer with tokens that are not special".into() });
        }
        let prefix = (0..self.prefix_len)
            .map(|_| allowed[usize::try_from(rng.integer(0, allowed.len() as u64)).unwrap_or(0)])
            .collect();
        let prompts = RandomPrompts { tokenizer, spec: self, lengths, prefix, allowed };
        let tokens = prompts.lengths.input.sum(count).saturating_add(self.prefix_len.saturating_mul(self.count));
        if self.token_ids || tokens > KEPT_TOKENS {
            return Ok(Arc::new(prompts));
        }
        let is_remote = prompts.tokenizer.is_remote();
        let prompts = InOrder { prompts, made: Mutex::new((Vec::new(), rng)) };
        // A tokenizer that refuses is found out with the first prompt; requests to a server come before what is measured.
        let first = if is_remote { self.count } else { self.count.min(1) };
        if let Some(last) = first.checked_sub(1) {
            prompts.prompt(last)?;
        }
        Ok(Arc::new(prompts))
    }
}

impl RandomPrompts {
    /// The place of a prompt, if there are so many.
    fn at(&self, index: u64) -> Result<usize, Error> {
        let at = usize::try_from(index).ok().filter(|_| index < self.spec.count);
        at.ok_or_else(|| Error::TooFew {
            name: "random".into(),
            asked: index.saturating_add(1),
            available: self.spec.count,
            filters: "--num-prompts".into(),
        })
    }

    fn make(&self, index: usize, rng: &mut DefaultRng) -> Result<Prompt, Error> {
        let (length, offset) = (self.lengths.input.at(index) as usize, self.lengths.offset.at(index) as usize);
        let mut ids = self.prefix.clone();
        ids.extend((0..length).map(|at| self.allowed[(offset + index + at) % self.allowed.len()]));
        let output_len = Some(u64::from(self.lengths.output.at(index)));
        if self.spec.token_ids {
            let prompt_len = Some(ids.len() as u64);
            return Ok(Prompt { content: Content::TokenIds(ids), prompt_len, output_len, id: None });
        }
        let (text, tokens) = exact_text(self.tokenizer.as_ref(), ids, rng)?;
        Ok(Prompt { content: Content::Text(text), prompt_len: Some(tokens), output_len, id: None })
    }
}

impl PromptSource for RandomPrompts {
    fn available(&self) -> Option<u64> {
        Some(self.spec.count)
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        let at = self.at(index)?;
        self.make(at, &mut DefaultRng::new(self.spec.seed ^ (index << 1) ^ 0x5851_f42d))
    }
}

/// Random prompts in vLLM's order: all draw from one generator, one after the other. Each is made when it is first asked for,
/// with those before it.
#[derive(Debug)]
struct InOrder {
    prompts: RandomPrompts,
    made: Mutex<(Vec<Prompt>, DefaultRng)>,
}

impl PromptSource for InOrder {
    fn available(&self) -> Option<u64> {
        self.prompts.available()
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        let at = self.prompts.at(index)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, rng) = &mut *made;
        while kept.len() <= at {
            kept.push(self.prompts.make(kept.len(), rng)?);
        }
        Ok(kept[at].clone())
    }
}

/// How often a text is mended until its tokens are as many as wanted (vLLM: `max_retry`).
const MOST_TRIES: usize = 10;

/// A text whose tokens are as many as `ids`, where that can be had, and how many they are: neighbours may merge when the
/// text of random tokens is read again.
fn exact_text(tokenizer: &dyn Tokenizer, mut ids: Vec<u32>, rng: &mut DefaultRng) -> Result<(String, u64), Error> {
    let wanted = ids.len();
    for tries in 0.. {
        let text = tokenizer.decode(&ids)?;
        let read = tokenizer.encode(&text)?;
        // A text that is too long and is cut to the same tokens comes again in every further try.
        let comes_again = read.len() > wanted && read[..wanted] == ids[..];
        if read.len() == wanted || comes_again || tries >= MOST_TRIES {
            return Ok((text, read.len() as u64));
        }
        ids = read;
        while ids.len() < wanted {
            ids.push(u32::try_from(rng.integer(0, u64::from(tokenizer.vocab_size()))).unwrap_or(0));
        }
        ids.truncate(wanted);
    }
    Ok((String::new(), 0))
}

/// vLLM's `prefix_repetition`: some prefixes, each before many suffixes.
///
/// # Errors
/// When there are more prefixes than prompts, or the tokenizer fails.
pub fn prefix_repetition(
    tokenizer: &dyn Tokenizer,
    (prefix_len, suffix_len): (u64, u64),
    prefixes: u64,
    output_len: u64,
    (count, seed): (u64, u64),
) -> Result<Vec<Prompt>, Error> {
    let per_prefix = count / prefixes.max(1);
    if per_prefix == 0 {
        let expected = format!("expected at least --prefix-repetition-num-prefixes = {prefixes}");
        return Err(Error::Flag { flag: "num-prompts", found: count.to_string(), expected });
    }
    let mut rng = DefaultRng::new(seed);
    let mut text = |length: u64| -> Result<(String, u64), Error> {
        let vocabulary = u64::from(tokenizer.vocab_size());
        let ids = (0..length).map(|_| u32::try_from(rng.integer(0, vocabulary)).unwrap_or(0)).collect();
        exact_text(tokenizer, ids, &mut rng)
    };
    let mut prompts = Vec::new();
    for _ in 0..prefixes {
        let (prefix, prefix_tokens) = text(prefix_len)?;
        for _ in 0..per_prefix {
            let (suffix, tokens) = text(suffix_len)?;
            prompts.push(Prompt {
                content: Content::Text(format!("{prefix}{suffix}")),
                prompt_len: Some(prefix_tokens + tokens),
                output_len: Some(output_len),
                id: None,
            });
        }
    }
    let mut order = ChaCha8Rng::seed_from_u64(seed);
    shuffle(&mut prompts, &mut order);
    Ok(prompts)
}

/// Fisher and Yates.
pub fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.random_range(0..=last));
    }
}

/// Random lower-case words, where nothing can count tokens: about two characters a token, as S2 found.
#[derive(Debug, Clone)]
pub struct Words {
    /// Tokens of a prompt, about.
    pub input_len: u64,
    /// Tokens of its answer.
    pub output_len: u64,
    /// For all of it.
    pub seed: u64,
}

impl PromptSource for Words {
    fn available(&self) -> Option<u64> {
        None
    }

    fn prompt(&self, index: u64) -> Result<Prompt, Error> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(index);
        let mut text = String::new();
        let wanted = usize::try_from(self.input_len.saturating_mul(2)).unwrap_or(usize::MAX).min(1 << 26);
        while text.len() < wanted {
            let length = random.random_range(3..=10);
            text.extend((0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))));
            text.push(' ');
        }
        text.truncate(wanted.max(1));
        let content = Content::Text(text.trim_end().to_owned());
        Ok(Prompt { content, prompt_len: None, output_len: Some(self.output_len), id: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tokenizer::{self, HfTokenizer};

    fn words() -> (tempfile::TempDir, SharedTokenizer) {
        let (folder, tokenizer): (_, HfTokenizer) = crate::load::tokenizer::test_words();
        (folder, Arc::new(tokenizer))
    }

    fn random(count: u64) -> Random {
        Random { input_len: 20, output_len: 10, range_ratio: 0.5, prefix_len: 3, count, seed: 3, token_ids: false }
    }

    #[test]
    fn prompts_have_the_tokens_that_they_say_and_are_the_same_every_time() {
        let (_folder, tokenizer) = words();
        let (one, two) = (random(30).open(tokenizer.clone()).unwrap(), random(30).open(tokenizer.clone()).unwrap());
        let mut lengths = std::collections::BTreeSet::new();
        for index in 0..30 {
            let prompt = one.prompt(index).unwrap();
            assert_eq!(prompt, two.prompt(index).unwrap());
            let Content::Text(text) = &prompt.content else { panic!("{prompt:?}") };
            assert_eq!(Some(tokenizer.encode(text).unwrap().len() as u64), prompt.prompt_len);
            assert!((13..=33).contains(&prompt.prompt_len.unwrap()) && (5..=15).contains(&prompt.output_len.unwrap()));
            lengths.insert(prompt.prompt_len);
        }
        assert!(lengths.len() > 5);
        assert!(matches!(one.prompt(30), Err(Error::TooFew { available: 30, .. })));
    }

    #[test]
    fn token_ids_are_exact_and_never_special() {
        let (_folder, tokenizer) = words();
        let source = Random { token_ids: true, range_ratio: 0.0, ..random(5) }.open(tokenizer).unwrap();
        let Content::TokenIds(ids) = source.prompt(4).unwrap().content else { panic!() };
        assert_eq!(ids.len(), 23);
        assert!(ids.iter().all(|id| (2..10).contains(id)), "{ids:?}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (_folder, tokenizer) = words();
        assert!(Random { range_ratio: 1.0, ..random(1) }.open(tokenizer.clone()).is_err());
        assert!(Random { input_len: 0, prefix_len: 0, ..random(1) }.open(tokenizer.clone()).is_err());
        let made = prefix_repetition(tokenizer.as_ref(), (4, 2), 3, 7, (10, 1)).unwrap();
        assert_eq!((made.len(), made[0].output_len), (9, Some(7)));
        assert!(prefix_repetition(tokenizer.as_ref(), (4, 2), 30, 7, (10, 1)).is_err());
    }

    /// Tokens whose texts are read as fewer tokens, as more, and as more again and again: `ab` is one token though `a` and `b`
    /// are tokens, `cd` is none, and `#` stands for three.
    #[derive(Debug, Default)]
    struct Letters {
        calls: std::sync::atomic::AtomicU64,
        is_remote: bool,
    }

    impl Tokenizer for Letters {
        fn encode(&self, text: &str) -> Result<Vec<u32>, tokenizer::Error> {
            let (mut ids, mut rest) = (Vec::new(), text);
            while let Some(first) = rest.chars().next() {
                match first {
                    _ if rest.starts_with("ab") => ids.push(20),
                    '#' => ids.extend([26, 27, 28]),
                    letter => ids.push(u32::from(letter) - u32::from('a')),
                }
                rest = &rest[if rest.starts_with("ab") { 2 } else { 1 }..];
            }
            Ok(ids)
        }

        fn decode(&self, ids: &[u32]) -> Result<String, tokenizer::Error> {
            self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let letter = |id: &u32| match id {
                20 => "ab".to_owned(),
                21..=24 => "cd".to_owned(),
                25.. => "#".to_owned(),
                id => char::from(b'a' + u8::try_from(*id).unwrap()).to_string(),
            };
            Ok(ids.iter().map(letter).collect())
        }

        fn count_with_special(&self, text: &str) -> Result<u64, tokenizer::Error> {
            Ok(self.encode(text)?.len() as u64)
        }

        fn vocab_size(&self) -> u32 {
            30
        }

        fn special_ids(&self) -> &[u32] {
            &[]
        }

        fn special_tokens_added(&self) -> u32 {
            0
        }

        fn chat(&self, _: &[crate::load::prompt::Message]) -> Result<String, tokenizer::Error> {
            Ok(String::new())
        }

        fn is_remote(&self) -> bool {
            self.is_remote
        }
    }

    /// vLLM's loop as it is, to its last try.
    fn exact_to_the_end(tokenizer: &dyn Tokenizer, mut ids: Vec<u32>, rng: &mut DefaultRng) -> (String, u64) {
        let wanted = ids.len();
        for tries in 0.. {
            let text = tokenizer.decode(&ids).unwrap();
            ids = tokenizer.encode(&text).unwrap();
            if ids.len() == wanted || tries >= MOST_TRIES {
                return (text, ids.len() as u64);
            }
            while ids.len() < wanted {
                ids.push(rng.integer(0, u64::from(tokenizer.vocab_size())) as u32);
            }
            ids.truncate(wanted);
        }
        unreachable!()
    }

    proptest::proptest! {
        /// Leaving out tries that change nothing changes nothing: neither the text nor what the next prompt draws.
        #[test]
        fn a_text_that_would_come_again_is_known_at_once(ids in proptest::collection::vec(0u32..30, 0..12), seed: u64) {
            let (letters, mut one, mut two) = (Letters::default(), DefaultRng::new(seed), DefaultRng::new(seed));
            let short = exact_text(&letters, ids.clone(), &mut one).unwrap();
            proptest::prop_assert_eq!(short, exact_to_the_end(&letters, ids, &mut two));
            proptest::prop_assert_eq!(one.integer(0, 1 << 40), two.integer(0, 1 << 40));
        }
    }

    #[test]
    fn prompts_are_made_when_they_are_asked_for_but_by_a_server_before() {
        let calls = |letters: &Letters| letters.calls.load(std::sync::atomic::Ordering::Relaxed);
        let open = |is_remote| {
            let letters = Arc::new(Letters { is_remote, ..Letters::default() });
            (letters.clone(), random(500).open(letters).unwrap())
        };
        let (here, source) = open(false);
        assert!(calls(&here) <= 1 + MOST_TRIES as u64, "the first one only");
        let (server, all) = open(true);
        let made = calls(&server);
        assert!(made >= 500);
        // In whatever order they are asked for.
        let last = source.prompt(499).unwrap();
        let made_here = calls(&here);
        assert!((0..500).rev().all(|index| source.prompt(index).unwrap() == all.prompt(index).unwrap()));
        assert_eq!((last, calls(&server), calls(&here)), (all.prompt(499).unwrap(), made, made_here));
    }

    /// Numbers that are the same for all are not held for each.
    #[test]
    fn what_is_not_drawn_takes_no_room() {
        let (_folder, tokenizer) = words();
        let many = Random { range_ratio: 0.0, token_ids: true, ..random(1000) }.open(tokenizer.clone()).unwrap();
        let few = Random { range_ratio: 0.0, token_ids: true, ..random(999) }.open(tokenizer).unwrap();
        assert_eq!(many.prompt(998).unwrap().output_len, few.prompt(998).unwrap().output_len);
        let mut rng = DefaultRng::new(1);
        assert!(matches!(Drawn::new(&mut rng, 5, 6, usize::MAX), Drawn::Same(5)));
        assert_eq!(Drawn::Same(7).sum(usize::MAX), u64::MAX);
    }

    #[test]
    fn words_are_about_two_characters_a_token() {
        let source = Words { input_len: 100, output_len: 5, seed: 1 };
        let Content::Text(text) = source.prompt(3).unwrap().content else { panic!() };
        assert!((190..=200).contains(&text.len()));
        assert_eq!(source.prompt(3).unwrap(), source.prompt(3).unwrap());
        assert_ne!(source.prompt(3).unwrap(), source.prompt(4).unwrap());
    }
}

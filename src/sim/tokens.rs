//! A tokenizer that needs no files: a token is up to seven letters or digits with the space before them, or one other
//! character. Ids are hashes; those that were given out can be turned back.

use std::collections::HashMap;

use super::model::hash;

const MOST_REMEMBERED: usize = 100_000;

/// Splits a text into its tokens.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (token, tail) = rest.split_at(token_len(rest)?);
        rest = tail;
        Some(token)
    })
}

fn token_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    let start = usize::from(first == b' ');
    let word = bytes[start..].iter().take(7).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    if word > 0 {
        return Some(start + word);
    }
    text.chars().next().map(char::len_utf8)
}

/// How many tokens a text has.
pub fn count(text: &str) -> u64 {
    split(text).count() as u64
}

/// The n-th word of the simulated model's language, with its space: one token.
pub fn word(n: u64) -> [u8; 5] {
    const CONSONANTS: &[u8; 16] = b"bcdfghjklmnprstv";
    const VOWELS: &[u8; 4] = b"aeio";
    let pick = |shift: u32, letters: &[u8]| letters[((n >> shift) as usize) & (letters.len() - 1)];
    [b' ', pick(0, CONSONANTS), pick(4, VOWELS), pick(6, CONSONANTS), pick(10, VOWELS)]
}

/// Appends the n-th word to a text.
pub fn push_word(text: &mut String, n: u64) {
    text.extend(word(n).iter().map(|byte| char::from(*byte)));
}

/// Token ids, as `/tokenize` and `/detokenize` give them.
#[derive(Debug, Default)]
pub struct Vocabulary {
    known: HashMap<u32, String>,
}

impl Vocabulary {
    /// The ids of a text's tokens, below `size`.
    pub fn encode(&mut self, text: &str, size: u32) -> Vec<u32> {
        split(text)
            .map(|token| {
                let id = (hash(token) % u64::from(size.max(1))) as u32;
                if self.known.len() < MOST_REMEMBERED {
                    self.known.entry(id).or_insert_with(|| token.to_string());
                }
                id
            })
            .collect()
    }

    /// A text for ids: what they stood for, or else a made-up word.
    pub fn decode(&self, ids: impl IntoIterator<Item = u32>) -> String {
        let mut text = String::new();
        for id in ids {
            match self.known.get(&id) {
                Some(token) => text.push_str(token),
                None => push_word(&mut text, u64::from(id)),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_make_up_the_text_again() {
        for text in ["", "Hello, world!", "  two spaces\n", "extraordinarily", "naïve — ü"] {
            assert_eq!(split(text).collect::<String>(), text);
            let mut vocabulary = Vocabulary::default();
            let ids = vocabulary.encode(text, 151_936);
            assert_eq!(vocabulary.decode(ids), text);
        }
        assert_eq!(count("Hello, world!"), 4);
    }

    #[test]
    fn every_word_is_one_token() {
        let mut text = String::new();
        (0..5000).for_each(|n| push_word(&mut text, n));
        assert_eq!(count(&text), 5000);
    }
}

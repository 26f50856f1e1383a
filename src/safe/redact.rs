//! Takes secrets out of bytes: whole texts, and streams that arrive in pieces.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::{REDACTED, forms};

/// At the end of a text that was cut off, so much of a secret's beginning counts as the secret.
const CUT: usize = 8;

/// Replaces secrets in a byte stream that arrives in pieces. Clones share what is searched for.
#[derive(Clone, Default)]
pub struct Redactor {
    patterns: Option<Arc<Patterns>>,
    carry: Vec<u8>,
}

/// The forms of all secrets. Upper and lower case are alike.
struct Patterns {
    automaton: AhoCorasick,
    /// In lower case and sorted, for the question whether something begins one of them.
    folded: Vec<Vec<u8>>,
    /// Which bytes, in lower case, begin one.
    first: [bool; 256],
    longest: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Redactor({} forms)", self.patterns.as_ref().map_or(0, |patterns| patterns.folded.len()))
    }
}

impl Redactor {
    /// A redactor for these secrets, in all their forms; those that are not looked for ([`super::is_searched`]) are ignored.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| super::is_searched(secret.as_ref()));
        let mut folded: Vec<Vec<u8>> = secrets
            .flat_map(|secret| forms(secret.as_ref()))
            .map(|mut form| {
                form.make_ascii_lowercase();
                form
            })
            .collect();
        folded.sort();
        folded.dedup();
        let mut first = [false; 256];
        folded.iter().filter_map(|form| form.first()).for_each(|byte| first[usize::from(*byte)] = true);
        // Of two that begin at the same place, the longer one goes whole.
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::LeftmostLongest)
            .build(&folded)
            .ok()
            .filter(|_| !folded.is_empty());
        let longest = folded.iter().map(Vec::len).max().unwrap_or(0);
        let patterns = automaton.map(|automaton| Arc::new(Patterns { automaton, folded, first, longest }));
        Self { patterns, carry: Vec::new() }
    }

    /// The bytes that may be written after this piece has arrived. An end that could be the beginning of a secret is
    /// held back until the next piece decides.
    pub fn feed<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(patterns) = self.patterns.clone() else { return Cow::Borrowed(piece) };
        if self.carry.is_empty() && patterns.open_end(piece, 0).is_none() && !patterns.automaton.is_match(piece) {
            return Cow::Borrowed(piece);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(piece);
        let mut out = Vec::with_capacity(bytes.len());
        let mut from = 0;
        loop {
            let open = patterns.open_end(&bytes, from);
            let found = patterns.automaton.find(&bytes[from..]).map(|found| (from + found.start(), from + found.end()));
            match (found, open) {
                // What begins earlier and may still grow decides first.
                (Some((start, end)), open) if open.is_none_or(|open| start < open) => {
                    out.extend_from_slice(&bytes[from..start]);
                    out.extend_from_slice(REDACTED.as_bytes());
                    from = end;
                }
                (_, open) => {
                    let open = open.unwrap_or(bytes.len());
                    out.extend_from_slice(&bytes[from..open]);
                    self.carry = bytes.split_off(open);
                    return Cow::Owned(out);
                }
            }
        }
    }

    /// What was held back, at the end of the stream: a secret that could have been the beginning of a longer one goes, and so does
    /// the larger part of one.
    pub fn finish(&mut self) -> Vec<u8> {
        let carry = std::mem::take(&mut self.carry);
        match &self.patterns {
            Some(patterns) => patterns.replace_cut(&carry).into_owned(),
            None => carry,
        }
    }

    /// A whole text.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.patterns {
            Some(patterns) => utf8(patterns.replace(text.as_bytes()), text),
            None => Cow::Borrowed(text),
        }
    }

    /// A text whose end was cut off.
    pub fn cut_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.patterns {
            Some(patterns) => utf8(patterns.replace_cut(text.as_bytes()), text),
            None => Cow::Borrowed(text),
        }
    }
}

/// A form may begin or end inside of a character only where the text holds no such form.
fn utf8<'a>(bytes: Cow<'a, [u8]>, text: &'a str) -> Cow<'a, str> {
    match bytes {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

impl Patterns {
    fn replace<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut found = self.automaton.find_iter(bytes).peekable();
        if found.peek().is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for one in found {
            out.extend_from_slice(&bytes[from..one.start()]);
            out.extend_from_slice(REDACTED.as_bytes());
            from = one.end();
        }
        out.extend_from_slice(&bytes[from..]);
        Cow::Owned(out)
    }

    /// The same where the end was cut off.
    fn replace_cut<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        // Cut with a mark, as everything here is that is shortened.
        let (body, mark) = match bytes.strip_suffix("…".as_bytes()) {
            Some(body) => (body, "…"),
            None => (bytes, ""),
        };
        match self.open_end(body, 0).filter(|open| body.len() - open >= CUT) {
            Some(open) => {
                let mut out = self.replace(&body[..open]).into_owned();
                out.extend_from_slice(REDACTED.as_bytes());
                out.extend_from_slice(mark.as_bytes());
                Cow::Owned(out)
            }
            None => self.replace(bytes),
        }
    }

    /// Where, from `from` on, an end begins that is the beginning of a form and not all of it.
    fn open_end(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let begin = from.max((bytes.len() + 1).saturating_sub(self.longest));
        (begin..bytes.len())
            .filter(|at| self.first[usize::from(bytes[*at].to_ascii_lowercase())])
            .find(|at| self.begins_one(&bytes[*at..]))
    }

    /// Whether a form begins so and is longer.
    fn begins_one(&self, end: &[u8]) -> bool {
        let end = end.to_ascii_lowercase();
        let at = self.folded.partition_point(|form| form.as_slice() <= end.as_slice());
        self.folded.get(at).is_some_and(|form| form.starts_with(&end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(redactor: &Redactor, pieces: &[&[u8]]) -> String {
        let mut redactor = redactor.clone();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&redactor.feed(piece));
        }
        out.extend(redactor.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_found_wherever_the_pieces_are_cut() {
        let text = b"token=hf_planted_secret; again hf_planted_secrehf_planted_secret end hf_pla";
        let redactor = Redactor::new(["hf_planted_secret"]);
        for cut in 0..text.len() {
            assert_eq!(
                fed(&redactor, &[&text[..cut], &text[cut..]]),
                "token=[redacted]; again hf_planted_secre[redacted] end hf_pla",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn of_two_secrets_of_which_one_begins_the_other_the_longer_one_goes_whole() {
        let redactor = Redactor::new(["planted-one", "planted-one-and-more"]);
        let text = b"a planted-one b planted-one-and-more c planted-one-and d planted-one";
        for cut in 0..text.len() {
            for second in cut..text.len() {
                let pieces = [&text[..cut], &text[cut..second], &text[second..]];
                assert_eq!(fed(&redactor, &pieces), "a [redacted] b [redacted] c [redacted]-and d [redacted]", "{cut}");
            }
        }
    }

    #[test]
    fn the_beginning_of_a_secret_at_a_cut_goes_too() {
        let redactor = Redactor::new(["hf_planted_secret"]);
        assert_eq!(redactor.cut_text("x hf_planted_s"), "x [redacted]");
        assert_eq!(redactor.cut_text("x hf_planted_s…"), "x [redacted]…");
        assert_eq!(redactor.cut_text("x hf_plan"), "x hf_plan");
        assert_eq!(redactor.text("x hf_planted_s"), "x hf_planted_s");
    }

    proptest! {
        #[test]
        fn bytes_without_secrets_pass_unchanged(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let mut redactor = Redactor::new(["an-unlikely-secret"]);
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend_from_slice(&redactor.feed(piece));
            }
            out.extend(redactor.finish());
            prop_assert_eq!(out, pieces.concat());
        }

        /// Whatever the secrets, the form, the text around it and the cuts.
        #[test]
        fn no_form_of_a_secret_passes(
            secrets in proptest::collection::vec("[!-~äß]{8,24}", 1..4),
            which in any::<prop::sample::Index>(),
            form in any::<prop::sample::Index>(),
            upper in any::<bool>(),
            around in ("[ -~\n]{0,12}", "[ -~\n]{0,12}"),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            prop_assume!(secrets.iter().all(|secret| crate::safe::is_searched(secret)));
            let redactor = Redactor::new(&secrets);
            let all = forms(which.get::<String>(&secrets));
            let form = String::from_utf8(form.get(&all).clone()).unwrap();
            let form = if upper { form.to_ascii_uppercase() } else { form };
            let text = format!("{} {form} {}", around.0, around.1);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let mut redactor = redactor;
            let mut out = Vec::new();
            for pair in at.windows(2) {
                out.extend_from_slice(&redactor.feed(&text.as_bytes()[pair[0]..pair[1]]));
            }
            out.extend(redactor.finish());
            let out = String::from_utf8_lossy(&out).to_ascii_lowercase();
            prop_assert!(!out.contains(&form.to_ascii_lowercase()), "{form} in {out}");
        }
    }
}

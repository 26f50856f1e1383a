//! Takes secrets out of a stream of bytes before it reaches a file.

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Secrets shorter than this are not searched for: they would occur by chance.
const SHORTEST: usize = 6;

/// Replaces secrets in a byte stream that arrives in pieces.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    secrets: Vec<Vec<u8>>,
    carry: Vec<u8>,
}

impl Redactor {
    /// A redactor for these secrets; very short ones are ignored.
    pub fn new<S: Into<Vec<u8>>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut secrets: Vec<Vec<u8>> = secrets.into_iter().map(Into::into).filter(|s| s.len() >= SHORTEST).collect();
        // The longest first, so that a secret that contains another goes whole.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets, carry: Vec::new() }
    }

    /// The bytes that may be written after this piece has arrived. An end that could be the beginning of a secret is
    /// held back until the next piece decides.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return piece.to_vec();
        }
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(piece);
        let (mut out, rest) = self.replace(&bytes);
        let held = self.longest_open_end(rest);
        out.extend_from_slice(&rest[..rest.len() - held]);
        self.carry = rest[rest.len() - held..].to_vec();
        out
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// Redacts a whole text.
    pub fn text(&self, text: &str) -> String {
        let mut fresh = Self { secrets: self.secrets.clone(), carry: Vec::new() };
        let mut bytes = fresh.feed(text.as_bytes());
        bytes.extend(fresh.finish());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Everything up to the last secret, replaced, and what comes after it.
    fn replace<'a>(&self, bytes: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let mut out = Vec::with_capacity(bytes.len());
        let (mut start, mut i) = (0, 0);
        while i < bytes.len() {
            match self.secrets.iter().find(|secret| bytes[i..].starts_with(secret)) {
                Some(secret) => {
                    out.extend_from_slice(&bytes[start..i]);
                    out.extend_from_slice(REDACTED.as_bytes());
                    i += secret.len();
                    start = i;
                }
                None => i += 1,
            }
        }
        (out, &bytes[start..])
    }

    fn longest_open_end(&self, bytes: &[u8]) -> usize {
        self.secrets
            .iter()
            .flat_map(|secret| (1..secret.len().min(bytes.len() + 1)).rev().find(|&n| bytes.ends_with(&secret[..n])))
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_found_wherever_the_pieces_are_cut() {
        let text = b"token=hf_planted_secret; again hf_planted_secrehf_planted_secret end hf_plan";
        for cut in 0..text.len() {
            let mut redactor = Redactor::new(["hf_planted_secret"]);
            let mut out = redactor.feed(&text[..cut]);
            out.extend(redactor.feed(&text[cut..]));
            out.extend(redactor.finish());
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "token=[redacted]; again hf_planted_secre[redacted] end hf_plan",
                "cut at {cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_without_secrets_pass_unchanged(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let mut redactor = Redactor::new(["an-unlikely-secret"]);
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend(redactor.feed(piece));
            }
            out.extend(redactor.finish());
            prop_assert_eq!(out, pieces.concat());
        }
    }
}

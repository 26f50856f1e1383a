//! What may be written and shown: no secret, and nothing that a terminal acts on.
//!
//! Every secret value that this program learns of is told to [`learn`]: variables and flags by their names, headers, what stands
//! before the host of a URL, keys of JSON, files with a key. Everything that is written or shown goes through here on its way:
//! the printer, the atomic and the append-only files, the guard's logs, the files of `load`. The list of secrets is the one
//! state that the whole process shares, as a logger is: a writer that had to be handed it could be forgotten.
//!
//! Values are looked for as they are and in the forms in which they usually travel (see [`forms`]). Which values are looked for at
//! all is said by [`is_searched`]: one that would occur by chance would shred every log.

mod escape;
mod find;
mod forms;
mod name;
mod redact;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{PoisonError, RwLock};

pub use escape::{Escaper, Sgr, escape, is_harmful};
pub use find::{
    NameValue, in_header, in_secret, in_text, in_variable, in_webhook, in_words, is_reference, is_searched,
    is_secret_header, is_secret_variable, json_secrets, within, without_secrets,
};
pub use forms::forms;
pub use name::{is_harmless_header, is_secret_key, is_secret_name};
pub use redact::Redactor;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

struct Known {
    values: BTreeSet<String>,
    redactor: Option<Redactor>,
}

static KNOWN: RwLock<Known> = RwLock::new(Known { values: BTreeSet::new(), redactor: None });

/// From now on these values are written and shown nowhere. Values that are not looked for ([`is_searched`]) are passed over.
pub fn learn<S: Into<String>>(values: impl IntoIterator<Item = S>) {
    let new: Vec<String> = values.into_iter().map(Into::into).filter(|value| is_searched(value)).collect();
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let before = known.values.len();
    known.values.extend(new);
    if known.values.len() != before {
        known.redactor = Some(Redactor::new(known.values.iter().map(String::as_str)));
    }
}

/// All values that were learnt, for the guard of a group, which is another process.
pub fn values() -> Vec<String> {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).values.iter().cloned().collect()
}

/// A redactor for a stream of its own.
pub fn redactor() -> Redactor {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).redactor.clone().unwrap_or_default()
}

/// The text without secrets.
pub fn redact(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    match &known.redactor {
        Some(redactor) => redactor.text(text),
        None => Cow::Borrowed(text),
    }
}

/// The same for text that was cut off somewhere: a secret of which only the beginning is left goes too.
pub fn redact_cut(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    match &known.redactor {
        Some(redactor) => redactor.cut_text(text),
        None => Cow::Borrowed(text),
    }
}

/// Whether the text holds a secret that was learnt.
pub fn holds_secret(text: &str) -> bool {
    matches!(redact(text), Cow::Owned(_))
}

/// Bytes fit for a text file: without secrets, and without what a terminal acts on. Bytes that are no text (a plot) stay as they
/// are.
pub fn file_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(bytes) {
        Ok(text) => match redact(text) {
            Cow::Borrowed(text) => into_bytes(escape(text, Sgr::None)),
            Cow::Owned(text) => Cow::Owned(escape(&text, Sgr::None).into_owned().into_bytes()),
        },
        Err(_) => Cow::Borrowed(bytes),
    }
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Text fit for a terminal: without secrets, and with what a terminal would act on made visible; colours as `colours` says.
pub fn shown(text: &str, colours: Sgr) -> String {
    let redacted = redact(text);
    escape(&redacted, colours).into_owned()
}

/// A writer that lets nothing through that may not be written into a text file. [`SafeWriter::finish`] must end it: the end of what
/// was written may be held back until then.
#[derive(Debug)]
pub struct SafeWriter<W> {
    to: W,
    redactor: Redactor,
    escaper: Escaper,
}

impl<W: Write> SafeWriter<W> {
    /// Writes into `to`.
    pub fn new(to: W) -> Self {
        Self { to, redactor: redactor(), escaper: Escaper::default() }
    }

    /// Writes what was held back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let rest = self.redactor.finish();
        let mut rest = self.escaper.feed(&rest).into_owned();
        rest.extend(self.escaper.finish());
        self.to.write_all(&rest)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for SafeWriter<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let redacted = self.redactor.feed(piece);
        self.to.write_all(&self.escaper.feed(&redacted))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_is_written_nowhere() {
        learn(["learnt-by-this-test/1+", "short"]);
        assert_eq!(redact("a learnt-by-this-test/1+ b short"), "a [redacted] b short");
        assert_eq!(redact("q=learnt-by-this-test%2F1%2B&x"), "q=[redacted]&x");
        assert!(values().contains(&"learnt-by-this-test/1+".to_owned()));
        assert_eq!(redact_cut("HTTP 401: learnt-by-thi"), "HTTP 401: [redacted]");
        let mut writer = SafeWriter::new(Vec::new());
        for piece in ["x learnt-by-", "this-test/1+ \u{1b}[3", "1m y\u{202e}\n"] {
            writer.write_all(piece.as_bytes()).unwrap();
        }
        let written = String::from_utf8(writer.finish().unwrap()).unwrap();
        assert_eq!(written, "x [redacted] \\u001b[31m y\\u202e\n");
        assert_eq!(file_bytes(b"\x89PNG\x1b\x00"), &b"\x89PNG\x1b\x00"[..]);
    }
}

//! The top level of JSON objects, read from a stream in pieces: plain values are taken, arrays and objects are passed over
//! without looking at more than brackets and strings. So a result with the times of every request costs little more than
//! reading it, and no memory.
//!
//! It judges less than a parser: what it takes for odd is read again by one, which says what is wrong. What lies inside an
//! array that is passed over is checked for its brackets, its strings and bytes that no JSON has.

use std::io::{self, Read};

use memchr::{memchr2, memchr3};

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is not what it should be; a parser says why.
    Odd,
    /// The disk says why.
    Read(io::Error),
}

/// What to do with an array or object under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Pass over it.
    Nothing,
    /// Its text, if it is not longer than this.
    UpTo(usize),
    /// Its text.
    Whole,
}

/// The value of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member<'v> {
    /// The text of a string, number, `true`, `false` or `null`.
    Plain(&'v str),
    /// The text of an array or object.
    Compound(&'v str),
    /// An array or object that was passed over.
    PassedOver,
}

/// What stands at the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// An object, perhaps one of several.
    Object,
    /// A list.
    List,
    /// Neither.
    Other,
}

/// A reader of objects.
#[derive(Debug)]
pub(crate) struct Scanner<'b, R> {
    source: R,
    buffer: &'b mut Vec<u8>,
    at: usize,
    end: usize,
    key: Vec<u8>,
    value: Vec<u8>,
    in_list: bool,
    objects: usize,
}

impl<'b, R: Read> Scanner<'b, R> {
    /// Reads from `source` through `buffer`, whose content is lost.
    pub fn new(source: R, buffer: &'b mut Vec<u8>) -> Self {
        buffer.resize(PIECE, 0);
        Self { source, buffer, at: 0, end: 0, key: Vec::new(), value: Vec::new(), in_list: false, objects: 0 }
    }

    /// What the file begins with; nothing but blanks is taken from it.
    pub fn beginning(&mut self) -> Result<Beginning, Stop> {
        Ok(match self.after_blanks()? {
            Some(b'{') => Beginning::Object,
            Some(b'[') => Beginning::List,
            _ => Beginning::Other,
        })
    }

    /// Whether there is another object, one after the other or in a list.
    pub fn another(&mut self) -> Result<bool, Stop> {
        let mut next = self.after_blanks()?;
        if self.objects == 0 && next == Some(b'[') {
            self.at += 1;
            self.in_list = true;
            next = self.after_blanks()?;
        } else if self.in_list && next == Some(b',') && self.objects > 0 {
            self.at += 1;
            return if self.after_blanks()? == Some(b'{') { Ok(true) } else { Err(Stop::Odd) };
        }
        match next {
            Some(b'{') if !self.in_list || self.objects == 0 => Ok(true),
            Some(b']') if self.in_list => {
                self.at += 1;
                if self.after_blanks()?.is_none() { Ok(false) } else { Err(Stop::Odd) }
            }
            None if !self.in_list && self.objects > 0 => Ok(false),
            _ => Err(Stop::Odd),
        }
    }

    /// Reads the object that begins here.
    pub fn object(
        &mut self,
        keep: impl Fn(&str) -> Keep,
        mut take: impl FnMut(&str, Member<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.at += 1;
        let mut next = self.after_blanks()?;
        let mut first = true;
        loop {
            match (next, first) {
                (Some(b'}'), true) => break,
                (Some(b'"'), _) => {}
                _ => return Err(Stop::Odd),
            }
            first = false;
            if self.member_at_hand(&mut take)? {
                match self.after_blanks()? {
                    Some(b',') => {
                        self.at += 1;
                        next = self.after_blanks()?;
                        continue;
                    }
                    Some(b'}') => break,
                    _ => return Err(Stop::Odd),
                }
            }
            let mut key = std::mem::take(&mut self.key);
            key.clear();
            self.string(&mut key)?;
            if self.after_blanks()? != Some(b':') {
                return Err(Stop::Odd);
            }
            self.at += 1;
            let mut value = std::mem::take(&mut self.value);
            value.clear();
            let name = name_of(text(&key)?)?;
            let member = match self.after_blanks()? {
                Some(b'"') => {
                    self.string(&mut value)?;
                    Member::Plain(text(&value)?)
                }
                Some(b'[' | b'{') => {
                    let keep = keep(&name);
                    if self.compound(keep, &mut value)? { Member::Compound(text(&value)?) } else { Member::PassedOver }
                }
                Some(_) => {
                    self.word(&mut value)?;
                    Member::Plain(text(&value)?)
                }
                None => return Err(Stop::Odd),
            };
            take(&name, member)?;
            drop(name);
            (self.key, self.value) = (key, value);
            match self.after_blanks()? {
                Some(b',') => {
                    self.at += 1;
                    next = self.after_blanks()?;
                }
                Some(b'}') => break,
                _ => return Err(Stop::Odd),
            }
        }
        self.at += 1;
        self.objects += 1;
        Ok(())
    }

    /// Takes the member that begins here, where the whole of it lies in the buffer and its value is plain: nothing is copied.
    /// Otherwise false, and nothing is taken.
    fn member_at_hand(&mut self, take: &mut impl FnMut(&str, Member<'_>) -> Result<(), Stop>) -> Result<bool, Stop> {
        let rest = &self.buffer[self.at..self.end];
        let Some(key) = length_of_string(rest) else { return Ok(false) };
        let colon = key + blanks(&rest[key..]);
        if rest.get(colon) != Some(&b':') {
            return Ok(false);
        }
        let begin = colon + 1 + blanks(&rest[colon + 1..]);
        let value = &rest[begin..];
        let length = match value.first() {
            Some(b'"') => length_of_string(value),
            Some(b'[' | b'{') | None => None,
            Some(_) => value.iter().position(|byte| ends_word(*byte)),
        };
        let Some(length) = length else { return Ok(false) };
        // Looked at once as text; both ends of both parts are ASCII.
        let end = begin + length;
        let member = text(&rest[..end])?;
        let value = member.get(begin..end).unwrap_or_default();
        take(&name_of(member.get(..key).unwrap_or_default())?, Member::Plain(value))?;
        self.at += end;
        Ok(true)
    }

    /// Reads more; false at the end.
    fn more(&mut self) -> Result<bool, Stop> {
        loop {
            match self.source.read(self.buffer) {
                Ok(read) => {
                    (self.at, self.end) = (0, read);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Read(error)),
            }
        }
    }

    /// The next byte that is no blank, which stays.
    fn after_blanks(&mut self) -> Result<Option<u8>, Stop> {
        loop {
            while self.at < self.end {
                match self.buffer[self.at] {
                    b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                    other => return Ok(Some(other)),
                }
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// Takes a string with its quotes.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        out.push(b'"');
        self.at += 1;
        self.rest_of_string(&mut |piece| out.extend_from_slice(piece))
    }

    /// From behind the first quote of a string to behind its last.
    fn rest_of_string(&mut self, pass: &mut impl FnMut(&[u8])) -> Result<(), Stop> {
        loop {
            let piece = &self.buffer[self.at..self.end];
            match memchr2(b'"', b'\\', piece) {
                Some(found) if piece[found] == b'"' => {
                    pass(&piece[..=found]);
                    self.at += found + 1;
                    return Ok(());
                }
                Some(found) => {
                    pass(&piece[..=found]);
                    self.at += found + 1;
                    if self.at == self.end && !self.more()? {
                        return Err(Stop::Odd);
                    }
                    pass(&self.buffer[self.at..=self.at]);
                    self.at += 1;
                }
                None => {
                    pass(piece);
                    self.at = self.end;
                }
            }
            if self.at == self.end && !self.more()? {
                return Err(Stop::Odd);
            }
        }
    }

    /// Takes a number or a word: everything up to what may stand after a value.
    fn word(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        loop {
            let piece = &self.buffer[self.at..self.end];
            let length = piece.iter().position(|byte| ends_word(*byte));
            out.extend_from_slice(&piece[..length.unwrap_or(piece.len())]);
            self.at += length.unwrap_or(piece.len());
            if length.is_some() {
                return Ok(());
            }
            // No number is as long.
            if out.len() > 4096 || !self.more()? {
                return Err(Stop::Odd);
            }
        }
    }

    /// Passes over an array or object; whether its text was kept.
    fn compound(&mut self, keep: Keep, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let most = match keep {
            Keep::Nothing => 0,
            Keep::UpTo(most) => most,
            Keep::Whole => usize::MAX,
        };
        let mut whole = most > 0;
        let mut pass = |piece: &[u8]| {
            if whole && out.len() + piece.len() > most {
                whole = false;
                out.clear();
            }
            if whole {
                out.extend_from_slice(piece);
            }
        };
        // Only brackets of the outer kind are counted: the others lie in pairs within them, or the file is odd anyway.
        let (open, close) = if self.buffer[self.at] == b'[' { (b'[', b']') } else { (b'{', b'}') };
        let mut depth = 0usize;
        loop {
            let piece = &self.buffer[self.at..self.end];
            let found = memchr3(open, close, b'"', piece);
            let length = found.map_or(piece.len(), |found| found + 1);
            if !is_ascii_text(&piece[..length]) {
                return Err(Stop::Odd);
            }
            pass(&piece[..length]);
            self.at += length;
            match found.map(|found| piece[found]) {
                Some(b'"') => self.rest_of_string(&mut pass)?,
                Some(byte) if byte == open => depth += 1,
                Some(_) => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(whole);
                    }
                }
                None => {
                    if !self.more()? {
                        return Err(Stop::Odd);
                    }
                }
            }
        }
    }
}

/// How many blanks stand first.
fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(bytes.len())
}

/// What may stand after a number or a word.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')
}

/// The length of the string that begins here, with both its quotes; `None` where its end is not here.
fn length_of_string(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let found = at + memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// The name that a key spells.
fn name_of(key: &str) -> Result<std::borrow::Cow<'_, str>, Stop> {
    let inner = key.get(1..key.len() - 1).unwrap_or_default();
    if !is_unescaped(inner) {
        return serde_json::from_str::<String>(key).map(Into::into).map_err(|_| Stop::Odd);
    }
    Ok(inner.into())
}

/// Whether a text stands in JSON as it is. One look at every byte, without an early end, so that it runs over many at once.
pub(super) fn is_unescaped(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'))
}

fn text(bytes: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(bytes).map_err(|_| Stop::Odd)
}

/// Whether all bytes may stand outside strings: a crash can leave blocks of zeros in a file.
fn is_ascii_text(bytes: &[u8]) -> bool {
    const TAB: u8 = b'\t';
    // One comparison for both ends of the range, so that it runs over many bytes at once.
    bytes.iter().fold(0, |most, byte| byte.wrapping_sub(TAB).max(most)) <= b'~' - TAB
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use crate::results::scan::*;

    /// Gives a few bytes at a time.
    struct Slow<'t>(&'t [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(into.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    /// The objects of a text as the scanner sees them: compound values only where they are short.
    fn scan(text: &[u8], step: usize) -> Result<Vec<Map<String, Value>>, Stop> {
        let mut buffer = Vec::new();
        let mut scanner = Scanner::new(Slow(text, step), &mut buffer);
        let mut objects = Vec::new();
        while scanner.another()? {
            let mut object = Map::new();
            scanner.object(
                |_| Keep::UpTo(12),
                |key, member| {
                    let value = match member {
                        Member::Plain(text) | Member::Compound(text) => {
                            serde_json::from_str(text).map_err(|_| Stop::Odd)?
                        }
                        Member::PassedOver => json!("passed over"),
                    };
                    object.insert(key.to_owned(), value);
                    Ok(())
                },
            )?;
            objects.push(object);
        }
        Ok(objects)
    }

    #[test]
    fn plain_values_are_taken_and_the_rest_is_passed_over() {
        let text =
            br#" {"a": 1.50, "b\"\u00e9": "x\\\"y", "c": [1, [2, "]\\"], {"z": "}"}], "d": {"e": [{}]}, "f": null,
            "g": [1, 2], "h": -1e-3 ,"i":true} "#;
        for step in 1..200 {
            let objects = scan(text, step).unwrap();
            let expected = json!({"a": 1.5, "b\"é": "x\\\"y", "c": "passed over", "d": {"e": [{}]}, "f": null, "g": [1, 2],
                "h": -1e-3, "i": true});
            assert_eq!(Value::Object(objects[0].clone()), expected, "{step}");
        }
    }

    #[test]
    fn objects_in_lines_and_in_lists() {
        for (text, count) in
            [("{}", 1), ("{} {\"a\":1}\n{}\n", 3), ("[]", 0), ("[{}]", 1), (" [ {\"a\": 1} , {} ] ", 2)]
        {
            assert_eq!(scan(text.as_bytes(), 3).map(|objects| objects.len()).unwrap(), count, "{text}");
        }
        for odd in [
            "",
            " ",
            "1",
            "[1]",
            "[{}",
            "[{},]",
            "[,{}]",
            "[{} {}]",
            "{},{}",
            "{}]",
            "[]{}",
            "{}x",
            "[{}]x",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":[}",
            "{\"a\":[1}",
            "{\"a\":\"x}",
            "{\"a\":[\"]}",
            "{\"a\":[1,\0]}",
            "{\"a\":1 2}",
            "{a:1}",
        ] {
            assert!(matches!(scan(odd.as_bytes(), 2), Err(Stop::Odd)), "{odd}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9f64..1e9).prop_map(Value::from),
            "[\\PC\"\\\\\\[\\]{}\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec(("[a-z\"\\\\{]{0,4}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_a_parser_takes_is_taken_wherever_it_is_split(
            members in proptest::collection::vec(("[a-z\"\\\\]{0,6}", any_json()), 0..6), step in 1usize..40, pretty: bool
        ) {
            let object: Map<String, Value> = members.into_iter().collect();
            let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) }.unwrap();
            let seen = scan(text.as_bytes(), step).unwrap();
            prop_assert_eq!(seen.len(), 1);
            for (key, value) in &object {
                let known = &seen[0][key];
                let plain = !value.is_array() && !value.is_object();
                prop_assert!(known == value || !plain && known == "passed over", "{} {}", known, value);
            }
        }

        #[test]
        fn no_file_that_is_cut_off_is_taken(value in any_json(), cut in 0.0f64..1.0) {
            let text = json!({"completed": 1, "x": value, "last": 2.5}).to_string();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
            let end = (text.len() as f64 * cut) as usize;
            prop_assert!(scan(&text.as_bytes()[..end], 7).is_err());
        }
    }
}

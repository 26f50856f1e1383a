//! The forms in which a secret usually travels.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// A form that is shorter would occur by chance.
const SHORTEST: usize = 6;
/// Longer secrets are searched for in pieces of this size.
const PIECE: usize = 1024;

/// The forms of a secret: as it is; in JSON, also twice escaped; in HTML; in URLs; quoted for a shell; as Rust and Python show
/// strings; in base32 from its beginning; in base64, also in the middle of something larger; in hexadecimal. Upper and lower
/// case count as the same where they are searched for.
pub fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<String> = Vec::new();
    for piece in pieces(secret) {
        all.push(piece.clone());
        all.extend(in_json(&piece));
        all.extend(in_html(&piece));
        all.extend(in_urls(&piece));
        all.extend(in_shells(&piece));
        all.extend(in_programs(&piece));
        all.extend(in_base64(piece.as_bytes()));
        all.push(base32(piece.as_bytes()));
        all.push(piece.bytes().map(|byte| format!("{byte:02x}")).collect());
    }
    let mut all: Vec<Vec<u8>> = all
        .into_iter()
        // A backslash at the end may be half of an escape sequence of the text around it.
        .map(|form| form.trim_end_matches('\\').as_bytes().to_vec())
        .filter(|form| form.len() >= SHORTEST)
        .collect();
    all.sort();
    all.dedup();
    all
}

/// A secret of many lines, each by itself: logs show it so. A very long one in pieces.
fn pieces(secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = secret.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----"));
    let whole = if secret.contains('\n') { Vec::new() } else { vec![secret] };
    for line in whole.into_iter().chain(lines) {
        let characters: Vec<char> = line.chars().collect();
        found.extend(characters.chunks(PIECE).map(|chunk| chunk.iter().collect::<String>()));
    }
    found.sort();
    found.dedup();
    found
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// As Python's `json` writes it: ASCII alone.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

fn in_json(secret: &str) -> Vec<String> {
    let once = json(secret);
    let mut all = vec![once.clone(), ascii(&once), json(&once), json(&ascii(&once)), once.replace('/', "\\/")];
    let mut guarded = once;
    for c in ['<', '>', '&', '\''] {
        guarded = guarded.replace(c, &format!("\\u{:04x}", u32::from(c)));
    }
    all.push(guarded);
    all
}

fn in_html(secret: &str) -> Vec<String> {
    let amp = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut all = vec![amp.clone()];
    for (double, single) in [("&quot;", "&#x27;"), ("&#34;", "&#39;"), ("&quot;", "&#39;"), ("&quot;", "&apos;")] {
        let quoted = amp.replace('"', double).replace('\'', single);
        all.push(quoted.replace('/', "&#x2f;"));
        all.push(quoted);
    }
    all
}

fn percent(secret: &str, kept: &str, space: &str) -> String {
    let mut out = String::new();
    for byte in secret.bytes() {
        match byte {
            b' ' => out.push_str(space),
            byte if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02x}");
            }
        }
    }
    out
}

fn in_urls(secret: &str) -> Vec<String> {
    // Strictly (RFC 3986), as Python's `quote`, as JavaScript's `encodeURIComponent`, as forms, in paths, and every byte.
    let mut all: Vec<String> = [
        ("-._~", "%20"),
        ("-._~/", "%20"),
        ("-_.!~*'()", "%20"),
        ("*-._", "+"),
        ("-._~", "+"),
        ("-._~!$&'()*+,;=:@", "%20"),
        ("-._~!$&'()*+,;=:@/?", "%20"),
    ]
    .iter()
    .map(|(kept, space)| percent(secret, kept, space))
    .collect();
    all.push(secret.bytes().map(|byte| format!("%{byte:02x}")).collect());
    all.push(percent(&percent(secret, "-._~", "%20"), "-._~", "%20"));
    all
}

fn in_shells(secret: &str) -> Vec<String> {
    let mut all = vec![secret.replace('\'', "'\\''"), secret.replace('\'', "'\"'\"'"), secret.replace('\'', "\\'")];
    let escaped = |special: &dyn Fn(char) -> bool| {
        secret.chars().fold(String::new(), |mut out, c| {
            if special(c) {
                out.push('\\');
            }
            out.push(c);
            out
        })
    };
    all.push(escaped(&|c| "\"\\$`".contains(c)));
    all.push(escaped(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_./:=@%+,".contains(c)));
    all.push(escaped(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_./:=@%+".contains(c)));
    all.push(escaped(&|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_".contains(c)));
    if let Ok(quoted) = shlex::try_quote(secret) {
        let bare = quoted.strip_prefix(['\'', '"']).unwrap_or(&quoted);
        all.push(bare.strip_suffix(['\'', '"']).unwrap_or(bare).to_owned());
    }
    all
}

/// As Rust and Python show strings.
fn in_programs(secret: &str) -> Vec<String> {
    let backslashes = secret.replace('\\', "\\\\");
    let mut bytes = String::new();
    for byte in secret.bytes() {
        match byte {
            b'\\' => bytes.push_str("\\\\"),
            b' '..=b'~' => bytes.push(char::from(byte)),
            byte => {
                let _ = write!(bytes, "\\x{byte:02x}");
            }
        }
    }
    vec![
        secret.escape_debug().to_string(),
        secret.escape_default().to_string(),
        backslashes.replace('\'', "\\'"),
        backslashes,
        bytes.replace('\'', "\\'"),
        bytes,
    ]
}

/// Whole, and as it stands in the middle of something larger: the characters that other bytes have no part in, for each of the
/// three places where it may begin.
/// RFC 4648, without the padding.
fn base32(secret: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(secret.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0u32, 0);
    let mut put = |value: u32| text.push(char::from(ALPHABET[(value & 31) as usize]));
    for byte in secret {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    text
}

fn in_base64(secret: &[u8]) -> Vec<String> {
    let mut all: Vec<String> = vec![
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
    ];
    for before in 0..3usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret);
        let cut_front = [0, 2, 3][before];
        let whole = bytes.len() / 3 * 4 + [0, 1, 2][bytes.len() % 3];
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&bytes);
            all.extend(text.get(cut_front..whole.min(text.len())).map(str::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(secret: &str, form: &str) {
        let all = forms(secret);
        assert!(
            all.iter().any(|one| one.eq_ignore_ascii_case(form.as_bytes())),
            "{form} is no form of {secret}: {:?}",
            all.iter().map(|form| String::from_utf8_lossy(form)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_usual_forms_are_there() {
        for form in [
            r#"p/q"r's&t u"#,
            "OAXXCITSE5ZSM5BAOU",
            r#"p/q\"r's&t u"#,
            r#"p/q\\\"r's&t u"#,
            r#"p\/q\"r's&t u"#,
            "p/q&quot;r&#x27;s&amp;t u",
            "p/q&#34;r&#39;s&amp;t u",
            "p&#x2f;q&quot;r&#x27;s&amp;t u",
            "p%2Fq%22r%27s%26t%20u",
            "p/q%22r%27s%26t%20u",
            "p%2Fq%22r's%26t%20u",
            "p%2Fq%22r%27s%26t+u",
            r#"p/q"r'\''s&t u"#,
            r#"p/q"r'"'"'s&t u"#,
            r#"p/q\"r\'s\&t\ u"#,
            "702f71227227732674207 5".replace(' ', "").as_str(),
        ] {
            has(r#"p/q"r's&t u"#, form);
        }
        has("schlüssel-1", "schl\\u00fcssel-1");
        has("schlüssel-1", "schl%c3%bcssel-1");
        has("back\\slash", "back\\\\slash");
        has("back\\slash", "back\\\\\\\\slash");
    }

    #[test]
    fn base64_of_something_that_holds_the_secret_holds_one_of_its_forms() {
        for secret in ["secret", "secret7", "secret78", "pl~nted>>secret?"] {
            for before in ["", "u", "us", "use", "user:"] {
                for after in ["", "x", "xy", "xyz"] {
                    for engine in [&STANDARD, &URL_SAFE] {
                        let text = engine.encode(format!("{before}{secret}{after}"));
                        let held =
                            forms(secret).iter().any(|form| text.as_bytes().windows(form.len()).any(|w| w == form));
                        assert!(held, "{before}{secret}{after}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_of_many_lines_is_searched_for_line_by_line() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nab\n-----END PRIVATE KEY-----";
        assert!(forms(key).contains(&b"MIIEvQIBADANBgkqhkiG".to_vec()));
        assert!(forms(key).iter().all(|form| !form.starts_with(b"-----")));
    }
}

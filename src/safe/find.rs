//! Finds secrets: in variables, flags, headers, URLs, JSON, command lines and texts with lines such as `NAME=VALUE`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::Regex;
use serde_json::Value;

use super::REDACTED;
use super::name::{is_harmless_header, is_secret_key, is_secret_name};

/// Shorter values are not looked for: they occur by chance.
const SHORTEST: usize = 6;
/// Parts of a value (one of a list, the text after a colon) must be longer.
const SHORTEST_PART: usize = 8;
/// Texts are looked through up to here.
const MOST_TEXT: usize = 1 << 20;

/// A name and a value.
pub type NameValue<'a> = (&'a str, &'a str);

/// Words that people put where a secret is asked for, and that stand everywhere else too.
const COMMON: [&str; 36] = [
    "true",
    "false",
    "none",
    "null",
    "default",
    "enabled",
    "disabled",
    "localhost",
    "password",
    "changeme",
    "redacted",
    "undefined",
    "unknown",
    "required",
    "optional",
    "completed",
    "benchmark",
    "vllm-bench",
    "simulated",
    "not-needed",
    "no-key",
    "sk-no-key",
    "not-required",
    "placeholder",
    "anonymous",
    "username",
    "authorization",
    "random",
    "auto-detect",
    "bfloat16",
    "float16",
    "ngram",
    "concurrency",
    "max-concurrency",
    "chat-completions",
    "production",
];

/// Whether a value is looked for in what is written and shown. Not looked for are: values of fewer than six characters, numbers of
/// fewer than ten digits, single words of one case with fewer than eight letters, common words, and paths of files that exist. Where
/// such a value stands under the name of a secret, it is left out all the same.
pub fn is_searched(value: &str) -> bool {
    let value = value.trim();
    let number = || {
        value.chars().filter(char::is_ascii_digit).count() < 10
            && value.chars().all(|c| "0123456789.,+-eE_:".contains(c))
    };
    let word = || {
        value.len() < 8
            && (value.chars().all(|c| c.is_ascii_lowercase() || "-_".contains(c))
                || value.chars().all(|c| c.is_ascii_uppercase() || "-_".contains(c)))
    };
    let common = || COMMON.contains(&value.to_ascii_lowercase().replace('_', "-").as_str());
    let blank = || value.chars().all(|c| !c.is_alphanumeric());
    let path = || value.starts_with('/') && value.len() < 4096 && Path::new(value).exists();
    value.len() >= SHORTEST && !number() && !word() && !common() && !blank() && !path() && !is_reference(value)
}

/// `${NAME}` or `$NAME`: where a secret is, not the secret.
pub fn is_reference(value: &str) -> bool {
    let name = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or(value.strip_prefix('$'));
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Schemes that stand before the secret in a header.
const SCHEMES: [&str; 7] = ["bearer", "basic", "token", "apikey", "digest", "negotiate", "key"];

/// The token after `Bearer` and the like.
fn after_scheme(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()).then(|| (scheme, rest.trim()))
}

/// What is secret in the value of a secret: it, and the parts that could show up without the rest.
pub fn in_secret(value: &str) -> Vec<String> {
    let value = value.trim().trim_matches(['"', '\'']);
    if value.is_empty() || is_reference(value) {
        return Vec::new();
    }
    if let Some((scheme, token)) = after_scheme(value) {
        let mut found = vec![token.to_owned()];
        if scheme.eq_ignore_ascii_case("basic") {
            found.extend(decoded(token));
        }
        return found;
    }
    let mut found = vec![value.to_owned()];
    found.extend(within(value));
    found.extend(json_secrets(value));
    if value.contains('\n') {
        found.extend(in_text(value));
    }
    let parts =
        value.split([',', ';', ' ', '\n', '|']).flat_map(|part| [Some(part), part.split_once([':', '=']).map(|p| p.1)]);
    found.extend(parts.flatten().filter(|part| part.len() >= SHORTEST_PART && *part != value).map(str::to_owned));
    found.extend(decoded(value));
    found
}

/// `user:password` in base64, as registries and `Basic` have it: both together, and the password.
fn decoded(text: &str) -> Vec<String> {
    let bare = text.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare));
    let Some(text) = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { return Vec::new() };
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !text.chars().any(char::is_control) => {
            vec![password.to_owned(), text]
        }
        _ => Vec::new(),
    }
}

/// The secrets that stand within a text, whatever the text is for: before the host of a URL, after `Bearer` and `Basic`, and the
/// value behind the name of a secret, be it a part of a query, a pair of a connection string, or a flag.
pub fn within(text: &str) -> Vec<String> {
    static PAIR: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r#"([A-Za-z_][A-Za-z0-9_.-]*)\s*(?:[=:]|%3[Dd])\s*(?:(?i:bearer|basic|token|apikey)\s+)?("[^"]+"|'[^']+'|[^\s,;&|"'{}\[\]]+)"#,
        )
    });
    // A pair of a query stands within what looks like the value of `https:`.
    static QUERY: LazyLock<Regex> = LazyLock::new(|| pattern(r#"[?&#]([A-Za-z_][A-Za-z0-9_.-]*)=([^&#\s"']+)"#));
    static FLAG: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(?:^|\s)--?([A-Za-z][A-Za-z0-9-]*)\s+("[^"]+"|'[^']+'|[^\s"'-]\S*)"#));
    static USER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?:^|\s)(?:-u|--user)(?:\s+|=)?[^\s:]+:(\S+)"));
    static SCHEME: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\b(bearer|basic)\s+([a-z0-9._~+/=-]{8,})"));
    static KEY: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)[?&](?:key|code)=([^&\s]{16,})"));
    let mut found = Vec::new();
    for pair in [&PAIR, &QUERY, &FLAG].into_iter().flat_map(|pattern| pattern.captures_iter(text)) {
        let value = pair[2].trim_matches(['"', '\'']);
        if is_secret_name(&pair[1]) && !is_special_token(value) {
            found.extend(in_secret_itself(value));
        }
    }
    for scheme in SCHEME.captures_iter(text) {
        let token = &scheme[2];
        // Prose has these words too.
        if token.len() >= 20 || token.contains(|c: char| c.is_ascii_digit()) {
            found.push(token.to_owned());
            found.extend(decoded(token));
        }
    }
    found.extend(USER.captures_iter(text).chain(KEY.captures_iter(text)).map(|part| part[1].to_owned()));
    found.retain(|secret| is_searched(secret));
    found.extend(userinfo(text));
    found
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern compiles")
}

/// A value, and what it says where it is `user:password` in base64.
fn in_secret_itself(value: &str) -> Vec<String> {
    let mut found = vec![value.to_owned()];
    let plain = unpercent(value);
    if plain != value {
        found.push(plain);
    }
    found.extend(decoded(value));
    found
}

/// Users of URLs that are nobody's secret.
const USERS: [&str; 10] =
    ["git", "user", "username", "root", "admin", "anonymous", "guest", "ubuntu", "postgres", "oauth2"];

/// The secrets before the host of each URL in a text: `user:password`, the password, both also without percent signs; a user
/// alone where it is long enough to be a token, and a shorter one together with its host.
fn userinfo(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("://") {
        let rest = &text[at + 3..];
        let Some(info) = before_host(rest) else { continue };
        let secret = match info.split_once(':') {
            Some((_, password)) => password,
            None if info.len() >= 16 => info,
            // A name may be a name elsewhere: it is hidden where it stands in a URL.
            None if !USERS.contains(&info) && !info.is_empty() && !is_reference(info) => {
                let host = rest[info.len() + 1..].split(['/', '?', '#', ' ', '"', '\'']).next().unwrap_or_default();
                found.push(format!("{info}@{host}"));
                continue;
            }
            None => continue,
        };
        for text in [secret, info] {
            let plain = unpercent(text);
            if plain != text {
                found.push(plain);
            }
            found.push(text.to_owned());
        }
    }
    found.retain(|secret| !secret.is_empty() && !is_reference(secret));
    found
}

/// What stands before the `@` of a URL after its `://`. A password with a slash in it should have been encoded; it is found too, for
/// what stands before that slash is no port.
fn before_host(rest: &str) -> Option<&str> {
    let word = rest.split([' ', '"', '\'', '\n', '\t', '<', '>']).next().unwrap_or_default();
    let authority = word.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((info, _)) = authority.rsplit_once('@') {
        return Some(info);
    }
    let (_, port) = authority.split_once(':')?;
    let is_port = port.chars().all(|c| c.is_ascii_digit());
    if is_port { None } else { word.rsplit_once('@').map(|(info, _)| info) }
}

fn unpercent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[at], pair) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The texts under secret keys of JSON; none where the text is no JSON.
pub fn json_secrets(text: &str) -> Vec<String> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return Vec::new();
    }
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let mut found = Vec::new();
    walk(&value, false, &mut found);
    found
}

fn walk(value: &Value, secret: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let headers = matches!(
                    key.to_ascii_lowercase().as_str(),
                    "headers" | "header" | "extra_headers" | "default_headers"
                );
                if let (true, Value::Object(headers)) = (headers, value) {
                    for (name, value) in headers {
                        if let (false, Some(text)) = (is_harmless_header(name), value.as_str()) {
                            found.extend(in_secret(text));
                        }
                    }
                } else {
                    walk(value, is_secret_key(key), found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, secret, found)),
        Value::String(text) if secret && !is_special_token(text) => found.extend(in_secret(text)),
        Value::String(text) => found.extend(within(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `</s>`, `[PAD]`, `<|im_end|>`: tokens of text.
fn is_special_token(text: &str) -> bool {
    (text.starts_with('<') && text.ends_with('>')) || (text.starts_with('[') && text.ends_with(']'))
}

/// What is secret in a value of `--notify`: all of a webhook's address behind its host.
pub fn in_webhook(text: &str) -> Vec<String> {
    let text = text.trim();
    let mut found = within(text);
    let is_url = ["http://", "https://"].iter().any(|scheme| text.to_ascii_lowercase().starts_with(scheme));
    if let (true, Some((_, rest))) = (is_url && !text.contains(REDACTED), text.split_once("://")) {
        let path = rest.split_once(['/', '?', '#']).map_or("", |(_, path)| path);
        found.push(path.to_owned());
        // A part may show up without the rest.
        found.extend(path.split(['/', '?', '&', '=', '#']).filter(|part| part.len() >= 16).map(str::to_owned));
    }
    found.retain(|secret| !secret.is_empty());
    found
}

/// What is secret in a variable. Its name may say so, or its value.
pub fn in_variable(name: &str, value: &str) -> Vec<String> {
    let mut found = if is_secret_name(name) { in_secret(value) } else { Vec::new() };
    found.extend(within(value));
    found.extend(json_secrets(value));
    found.extend(by_shape(value));
    // Settings of this program in variables: `VLLM_BENCH_ENV` has a variable on each line.
    if name.starts_with("VLLM_BENCH_") {
        for line in value.lines() {
            found.extend(in_argument(line));
            if name == "VLLM_BENCH_NOTIFY" {
                found.extend(in_webhook(line));
            }
        }
    }
    found
}

/// Whether a variable must be kept out of everything that is written: by its name, or by what is in its value.
pub fn is_secret_variable(name: &str, value: &str) -> bool {
    is_secret_name(name)
        || !within(value).is_empty()
        || json_secrets(value).iter().any(|secret| is_searched(secret))
        || !by_shape(value).is_empty()
}

/// Tokens that are known by their shape, whatever they are called.
fn by_shape(text: &str) -> Vec<String> {
    static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}",
            r"|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{20,}|nvapi-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}",
            r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
        ))
        .expect("a constant pattern compiles")
    });
    SHAPES.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

/// What is secret in a header, written `KEY=VALUE` or `KEY: VALUE`.
pub fn in_header(header: &str) -> Vec<String> {
    match split_header(header) {
        Some((name, value)) if !is_harmless_header(name) => in_secret(value),
        Some((_, value)) => within(value),
        None => Vec::new(),
    }
}

fn split_header(header: &str) -> Option<NameValue<'_>> {
    let at = header.find(['=', ':'])?;
    Some((header[..at].trim(), header[at + 1..].trim()))
}

/// Whether a header carries a secret: by its name, or because its value would be looked for and it is not known to be harmless.
pub fn is_secret_header(name: &str, value: &str) -> bool {
    !is_harmless_header(name)
        && !value.is_empty()
        && (is_secret_name(name) || in_secret(value).iter().any(|secret| is_searched(secret)))
}

/// Flags of this program whose value is a name and a value, or several.
const WITH_VALUES: [&str; 5] = ["env", "serve-arg", "bench-arg", "metadata", "lora-modules"];

/// What is secret in a command line.
pub fn in_words<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    let mut found = Vec::new();
    for (flag, value) in flags(words) {
        found.extend(match flag {
            Some(flag) => in_flag(flag, value),
            None => in_argument(value),
        });
    }
    found
}

/// The words of a command line as flags with their values; words that belong to none stand alone. `--header` and the like may
/// have several values.
fn flags<S: AsRef<str>>(words: &[S]) -> Vec<(Option<&str>, &str)> {
    let mut pairs = Vec::new();
    let mut flag = None;
    for word in words.iter().map(AsRef::as_ref) {
        match word.strip_prefix("--") {
            Some(name) => match name.split_once('=') {
                Some((name, value)) => {
                    pairs.push((Some(name), value));
                    flag = None;
                }
                None => flag = Some(name),
            },
            None => pairs.push((flag, word)),
        }
    }
    pairs
}

fn in_flag(flag: &str, value: &str) -> Vec<String> {
    let mut found = if is_secret_name(flag) { in_secret(value) } else { Vec::new() };
    found.extend(match flag {
        "header" | "headers" => in_header(value),
        "notify" => in_webhook(value),
        _ => in_argument(value),
    });
    found
}

/// What is secret in a word that may be `NAME=VALUE`, `header=NAME=VALUE`, a URL, or JSON.
fn in_argument(word: &str) -> Vec<String> {
    let mut found = within(word);
    found.extend(json_secrets(word));
    found.extend(by_shape(word));
    let bare = word.trim_start_matches('-');
    if let Some((name, value)) = bare.split_once('=').or_else(|| bare.split_once(' ').filter(|_| bare != word)) {
        if WITH_VALUES.contains(&name) || name.starts_with("VLLM_BENCH_") {
            found.extend(in_argument(value));
        } else if name == "header" {
            found.extend(in_header(value));
        } else if is_secret_name(name) {
            found.extend(in_secret(value));
        } else if !value.is_empty() {
            found.extend(json_secrets(value));
            found.extend(within(value));
        }
    }
    found
}

/// What is secret in a text of lines such as `NAME=VALUE`, `export NAME="VALUE"`, `NAME: VALUE` or `"name": "value"`: `.env`
/// files, sweep files before they are read.
pub fn in_text(text: &str) -> Vec<String> {
    static PAIR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r#"(?m)["']?([A-Za-z_][A-Za-z0-9_.-]*)["']?[ \t]*[=:][ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,{}\[\]#]+)"#,
        )
        .expect("a constant pattern compiles")
    });
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MOST_TEXT).last().unwrap_or(0);
    let text = if text.len() <= MOST_TEXT { text } else { &text[..end] };
    let mut found = userinfo(text);
    found.extend(by_shape(text));
    for pair in PAIR.captures_iter(text) {
        let (name, value) = (&pair[1], pair[2].trim_matches(['"', '\'']));
        if name == "header" {
            found.extend(in_header(value));
        } else if is_secret_name(name) && !is_special_token(value) {
            found.extend(in_secret(value));
            // As JSON and YAML escape it.
            if let Ok(Value::String(plain)) = serde_json::from_str(&pair[2]) {
                found.extend(in_secret(&plain));
            }
        }
    }
    found
}

/// A command line as it may be recorded: what stands under the name of a secret is left out however short it is, and so is every
/// secret that was learnt.
pub fn without_secrets<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    let mut shown = Vec::new();
    let mut flag: Option<String> = None;
    for word in words.iter().map(AsRef::as_ref) {
        let name = word.strip_prefix("--");
        let text = match (name, &flag) {
            (Some(name), _) => {
                flag = (!name.contains('=')).then(|| name.to_owned());
                match name.split_once('=') {
                    Some((name, value)) => Cow::Owned(format!("--{name}={}", hidden(name, value))),
                    None => Cow::Borrowed(word),
                }
            }
            (None, Some(flag)) => hidden(flag, word),
            (None, None) => hidden("", word),
        };
        shown.push(super::redact(&text).into_owned());
    }
    shown
}

/// The value of a flag without its secrets.
fn hidden<'v>(flag: &str, value: &'v str) -> Cow<'v, str> {
    if is_secret_name(flag) {
        return Cow::Borrowed(if is_reference(value) { value } else { REDACTED });
    }
    let bare = value.trim_start_matches('-');
    let pair = value.split_once('=');
    match (flag, pair) {
        ("header", _) => match split_header(value) {
            Some((name, text)) if is_secret_header(name, text) && !text.contains("${") => {
                Cow::Owned(format!("{}{REDACTED}", &value[..value.len() - text.len()]))
            }
            _ => Cow::Borrowed(value),
        },
        (_, Some((name, text))) if !bare.starts_with(['{', '[']) && !name.contains(char::is_whitespace) => {
            let inner = name.trim_start_matches('-');
            let kept = if is_secret_variable(inner, text) && within(text).is_empty() && !text.starts_with(['{', '[']) {
                Cow::Borrowed(if is_reference(text) { text } else { REDACTED })
            } else {
                hidden(inner, text)
            };
            Cow::Owned(format!("{name}={kept}"))
        }
        _ => {
            let secrets: Vec<String> = [within(value), json_secrets(value), by_shape(value)].concat();
            let mut text = value.to_owned();
            for secret in secrets.iter().filter(|secret| secret.len() > 1) {
                text = text.replace(secret.as_str(), REDACTED);
            }
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn holds(found: &[String], secret: &str) {
        assert!(found.iter().any(|one| one == secret), "{secret} is not among {found:?}");
    }

    #[test]
    fn values_that_would_occur_by_chance_are_not_looked_for() {
        for value in [
            "",
            "1",
            "true",
            "abc12",
            "12345678",
            "0.95",
            "EMPTY",
            "dummy",
            "secret",
            "password",
            "/tmp",
            "${HF_TOKEN}",
            "--------",
        ] {
            assert!(!is_searched(value), "{value}");
        }
        for value in ["abc123", "hunter2", "correcthorse", "1234567890", "/not/there+AbC", "pass word"] {
            assert!(is_searched(value), "{value}");
        }
    }

    #[test]
    fn secrets_are_found_in_variables() {
        holds(&in_variable("API_TOKENS", "planted-one,planted-two"), "planted-two");
        holds(&in_variable("https_proxy", "http://user:pl%40nted@proxy:911"), "pl@nted");
        holds(&in_variable("https_proxy", "http://user:pl%40nted@proxy:911"), "user:pl%40nted");
        holds(&userinfo("http://user:pl/nted+@proxy:911/x"), "pl/nted+");
        assert!(userinfo("http://host:8000/a@b https://host/x@y [::1]").is_empty());
        holds(&in_variable("REGISTRY_AUTH", r#"{"auths": {"ghcr.io": {"auth": "dXNlcjpwbGFudGVk"}}}"#), "planted");
        holds(
            &in_variable("OTHER", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz"),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
        );
        holds(&in_variable("VLLM_BENCH_ENV", "A=b\nHF_TOKEN=planted"), "planted");
        holds(&in_variable("VLLM_BENCH_BENCH_ARG", "header=X-Key=planted"), "planted");
        assert!(in_variable("PATH", "/usr/bin:/bin").is_empty());
        assert!(
            is_secret_variable("https_proxy", "http://u:p@h") && !is_secret_variable("https_proxy", "http://h:911")
        );
        assert!(!is_secret_variable("X", r#"{"eos_token": "</s>", "max_tokens": 5}"#));
    }

    #[test]
    fn secrets_are_found_in_command_lines() {
        let words = |text: &str| -> Vec<String> { text.split('|').map(str::to_owned).collect() };
        for line in [
            "run|--env|HF_TOKEN=planted",
            "run|--env=HF_TOKEN=planted",
            "run|--bench-arg|header=Authorization=Bearer planted",
            "run|--bench-arg=header=Authorization=Bearer planted",
            "run|--bench-arg|--header X-Api-Key=planted",
            "load|--header|Accept=x|X-Api-Key=planted",
            "load|--header=Cookie=planted",
            r#"load|--extra-body|{"nested": {"api_key": "planted"}}"#,
            r#"run|--bench-arg|extra-body={"headers": {"X-Own": "planted"}}"#,
            r#"run|--serve-arg|hf-overrides={"token": "planted"}"#,
            "load|--base-url|http://user:planted@host:8000",
            "load|--metadata|a=b|api_key=planted",
            "run|--serve-arg|api-key=planted",
            "run|--api-key|planted",
        ] {
            holds(&in_words(&words(line)), "planted");
            let shown = without_secrets(&words(line)).join("|");
            assert!(!shown.contains("planted"), "{line}: {shown}");
        }
        let harmless = words(
            "run|--models|org/m|--serve-arg|max-num-batched-tokens=8192|--bench-arg|header=Accept=text/plain|--tp|1,2",
        );
        assert!(in_words(&harmless).iter().all(|found| !is_searched(found)), "{:?}", in_words(&harmless));
        assert_eq!(without_secrets(&harmless), harmless);
        let reference = words("run|--bench-arg|header=X-Key=${MY_KEY}");
        assert_eq!(without_secrets(&reference), reference);
    }

    #[test]
    fn secrets_are_found_within_values_whatever_their_names_are() {
        for value in [
            "authorization=Bearer Zq9-planted",
            "Authorization: Basic Zq9-planted",
            "host=h password=Zq9-planted user=u",
            "https://h/x?token=Zq9-planted",
            "https://h/x?a=b&sig=Zq9-planted&c=d",
            "https://h/k?X-Amz-Credential=Zq9-planted",
            "--api-key Zq9-planted --x",
            "-u user:Zq9-planted",
            "Bearer Zq9-planted",
            "machine h login u password 'Zq9-planted' password=Zq9-planted",
        ] {
            holds(&in_variable("ANY", value), "Zq9-planted");
            assert!(is_secret_variable("ANY", value), "{value}");
            let words = ["run".to_owned(), "--env".to_owned(), format!("ANY={value}")];
            assert!(!without_secrets(&words).concat().contains("planted"), "{value}");
            holds(&in_words(&["run", "--bench-arg", &format!("dataset-path={value}")]), "Zq9-planted");
        }
        for harmless in [
            "a basic understanding of bearer bonds",
            "https://h/x?max_tokens=100&n=5",
            "max-num-batched-tokens=8192,x=y",
            "--max-model-len 8192 --dtype bfloat16",
            "ssh://git@host/x http://user@proxy:1",
            "TORCH_LOGS=+dynamo",
        ] {
            assert_eq!(within(harmless), <[String; 0]>::default(), "{harmless}");
        }
        holds(&within("http://Zq9plant@proxy:1/x"), "Zq9plant@proxy:1");
    }

    #[test]
    fn secrets_are_found_in_texts() {
        for text in [
            "export HF_TOKEN=planted\n",
            "HF_TOKEN='planted'",
            "env:\n  HF_TOKEN: planted # mine\n",
            r#"{"env": {"HF_TOKEN": "planted"}}"#,
            "curl https://u:planted@host/x",
        ] {
            holds(&in_text(text), "planted");
        }
        assert!(in_text("max-num-batched-tokens: 8192\neos_token: '</s>'\nkey: value\n").is_empty());
    }

    #[test]
    fn basic_credentials_are_decoded() {
        let found = in_header("Authorization: Basic dXNlcjpwbGFudGVk");
        holds(&found, "planted");
        holds(&found, "dXNlcjpwbGFudGVk");
    }
}

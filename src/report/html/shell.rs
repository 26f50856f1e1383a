//! Command lines that can be copied into a shell, and that show what they hold.

use crate::words;

/// One word as a shell takes it.
pub(in crate::report) fn word(text: &str) -> String {
    // The value of a variable is quoted, not its name.
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if let Some((name, value)) = text.split_once('=').filter(|(name, value)| is_name(name) && !value.is_empty()) {
        return format!("{name}={}", word(value));
    }
    words::shell(text)
}

/// A whole command line.
pub(in crate::report) fn line<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    words.into_iter().map(|text| word(text)).collect::<Vec<String>>().join(" ")
}

/// The command line of vllm-bench itself; the manifest may hold it with or without the program's name.
pub(super) fn own(arguments: &[String]) -> String {
    let rest = match arguments.split_first() {
        Some((first, rest)) if first.ends_with("vllm-bench") => rest,
        Some(_) | None => arguments,
    };
    format!("vllm-bench {}", line(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_run() {
        let words = ["vllm", "serve", "a model", "$(id)", "it's", "a\nb\u{202e}c\u{7}"].map(str::to_owned);
        assert_eq!(line(&words), r#"vllm serve 'a model' '$(id)' "it's" $'a\nb\u202ec\x07'"#);
        assert_eq!(own(&["/usr/bin/vllm-bench".into(), "run".into()]), "vllm-bench run");
        assert_eq!(own(&["run".into(), "a b".into()]), "vllm-bench run 'a b'");
    }
}

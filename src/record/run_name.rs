//! Names that users give to runs: what may be one. A name lives in the manifest; the directory keeps its stamp.

use unicode_width::UnicodeWidthStr;

use super::layout;
use crate::safe::is_harmful;

/// Stands for the newest run wherever a run is asked for.
pub const LATEST: &str = "latest";
/// A longer name, in columns of a terminal, would fit no table.
const LONGEST: usize = 64;

/// Why a text cannot be the name of a run: what is expected instead. `None` where it can.
pub fn problem(name: &str) -> Option<String> {
    let starts = |c: char| c.is_alphanumeric() || c == '_';
    Some(match name {
        _ if name.trim().is_empty() => "at least one letter or digit".to_owned(),
        _ if name.chars().any(is_harmful) => "a name without control characters".to_owned(),
        _ if name.contains(['/', '\\']) => "a name without slashes: it is no path".to_owned(),
        _ if name != name.trim() => "a name without blanks around it".to_owned(),
        _ if !name.starts_with(starts) => "a name that begins with a letter, a digit or `_`".to_owned(),
        _ if name.width() > LONGEST => format!("a name of at most {LONGEST} columns"),
        _ if name.eq_ignore_ascii_case(LATEST) => format!("another name: `{LATEST}` is the newest run"),
        _ if layout::is_stamp(name) => "another name: run directories are called like this one".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_readable_word_or_several_and_never_a_path_or_a_stamp() {
        let long = "x".repeat(LONGEST);
        for name in ["baseline", "after the update", "7", "v0.14.1+cu13", "模型", "20260225_14", "latest2", &long] {
            assert_eq!(problem(name), None, "{name}");
        }
        let longer = format!("{long}x");
        for name in [
            "",
            "  ",
            "a/b",
            "a\\b",
            "..",
            ".tmp-x",
            "-x",
            " x",
            "x ",
            "a\nb",
            "\u{1b}[31mred",
            "latest",
            "Latest",
            "20260225_1430",
            "20260225_1430_12",
            &longer,
        ] {
            assert!(problem(name).is_some(), "{name:?}");
        }
    }
}

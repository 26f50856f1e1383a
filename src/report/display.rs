//! How single values are shown. Names and log lines come from outside: nothing in them may move the cursor, change
//! colours, reverse the text or break a table.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::analyse::{EAGER, Fixed, QUANTIZATION, Row, ShownAxes, TP};
use crate::fold::words;
use crate::model::Unit;
pub(super) use crate::words::counted;
use crate::words::cut_end;

/// What stands where a value is not known.
pub(super) const ABSENT: &str = "n/a";

/// The text without escape sequences, control characters and invisible marks of direction; each run of white space
/// (line breaks too) becomes one blank.
pub fn clean(text: &str) -> String {
    if is_clean(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next_if(|c| matches!(c, '[' | ']')) {
                // A control sequence ends with a byte from `@` to `~`.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // An operating system command ends with BEL or ESC.
                Some(_) => while chars.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n')).is_some() {},
                None => {}
            },
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    out.trim().to_owned()
}

/// Whether a text is plain ASCII, in which there is nothing to clean.
fn is_clean(text: &str) -> bool {
    let bytes = text.as_bytes();
    let blanks = || bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ') || text.contains("  ");
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~')) && !blanks()
}

/// Columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    // Most are ASCII, of which each letter takes one.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) { text.len() } else { UnicodeWidthStr::width(text) }
}

/// Marks that reorder or hide what follows.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The cleaned text, cut to a width with an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    cut_end(&clean(text), width)
}

/// The cleaned text in lines of at most this width, broken between words; a longer word is broken within, but no
/// path: it stands whole on its own line, to be copied.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in words(&clean(text)) {
        if used > 0 && used + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        let is_path = is_path(word);
        for c in word.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > width && used > 0 && !is_path {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += wide;
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// Whether a word is a path of a file, between quotation marks or not.
fn is_path(word: &str) -> bool {
    let word = word.trim_start_matches(['`', '\'', '"', '(']);
    ["/", "./", "../", "~/"].iter().any(|begin| word.starts_with(begin))
}

/// A value with as many decimals as its unit deserves.
pub(super) fn in_unit(value: f64, unit: Unit) -> String {
    let mut out = String::new();
    put_value(&mut out, value, unit);
    out
}

/// A time has no more decimals than this, and two.
const MOST_ZEROS: i32 = 12;

/// The same behind a text.
pub(super) fn put_value(out: &mut String, value: f64, unit: Unit) {
    let decimals = match unit {
        Unit::Requests | Unit::Tokens => 0,
        Unit::TokensPerSecond | Unit::Seconds | Unit::Percent | Unit::Watts | Unit::Celsius | Unit::Gibibytes => 1,
        // A token's, or a measurement's.
        Unit::Joules if value.abs() < 100.0 => 3,
        Unit::Joules => 1,
        Unit::Megahertz => 0,
        Unit::Milliseconds | Unit::Devices | Unit::Ratio => 2,
        Unit::RequestsPerSecond | Unit::DeviceDays | Unit::NodeDays | Unit::Money => 3,
    };
    let smallest = 0.5 / 10f64.powi(decimals);
    let is_time = matches!(unit, Unit::Seconds | Unit::Milliseconds);
    if is_time && value != 0.0 && value.abs() < smallest {
        // Times are read by people, and a power of ten is easily missed: plain digits, three of them.
        let zeros = (1..MOST_ZEROS).find(|zeros| value.abs() * 10f64.powi(*zeros) >= 1.0).unwrap_or(MOST_ZEROS);
        let _ = write!(out, "{value:.*}", usize::try_from(zeros + 2).unwrap_or_default());
        return;
    }
    if value.abs() >= 1e9 || (value != 0.0 && value.abs() < smallest) {
        // Writing into memory never fails.
        let _ = write!(out, "{value:.2e}");
        return;
    }
    let _ = write!(out, "{value:.*}", usize::try_from(decimals).unwrap_or_default());
}

/// A value with its unit.
pub(super) fn quantity(value: f64, unit: Unit) -> String {
    format!("{} {}", in_unit(value, unit), unit.symbol())
}

/// Seconds as `1 h 2 m 3 s`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a run, clamped")]
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.clamp(0.0, 1e12).round() as u64;
    format!("{} h {} m {} s", whole / 3600, whole / 60 % 60, whole % 60)
}

/// Whether vLLM ran without compiled graphs, in a word.
pub(super) fn eager(axes: &ShownAxes) -> String {
    axes.enforce_eager.map_or(ABSENT.to_owned(), |eager| eager.to_string())
}

/// Devices per layer.
pub(super) fn tp(axes: &ShownAxes) -> String {
    axes.tensor_parallel_size.map_or(ABSENT.to_owned(), |tp| tp.to_string())
}

/// The quantization, fit for a column.
pub(super) fn quantization(axes: &ShownAxes) -> String {
    axes.quantization.as_deref().map_or(ABSENT.to_owned(), |quantization| cut(quantization, 20))
}

/// What tells a row's server from the others of its table: `tp 2, eager true, max-num-seqs 64`. Where nothing does, or nobody has looked,
/// what is set.
pub fn configuration(row: &Row) -> String {
    label(&row.axes, &row.about.fixed)
}

/// The same of settings among which `fixed` are the same everywhere.
pub fn label(axes: &ShownAxes, fixed: &Fixed) -> String {
    let mut parts: Vec<String> = Vec::new();
    if fixed.is_known() {
        parts.extend((!fixed.has(TP)).then(|| format!("tp {}", tp(axes))));
        parts.extend((!fixed.has(QUANTIZATION)).then(|| format!("quant {}", quantization(axes))));
        parts.extend((!fixed.has(EAGER)).then(|| format!("eager {}", eager(axes))));
        let varying = axes.server.iter().filter(|(key, _)| !fixed.has(key));
        parts.extend(varying.map(|(key, value)| format!("{key} {}", cut(value, 40))));
    }
    if parts.is_empty() {
        parts.extend(axes.tensor_parallel_size.map(|tp| format!("tp {tp}")));
        let quantized = axes.quantization.as_deref().is_some_and(|value| value != "none");
        parts.extend(quantized.then(|| format!("quant {}", quantization(axes))));
        parts.extend((axes.enforce_eager == Some(true)).then(|| "eager true".to_owned()));
        parts.extend(axes.server.iter().map(|(key, value)| format!("{key} {}", cut(value, 40))));
    }
    if parts.is_empty() { "settings not known".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_harm_a_terminal_is_taken_out() {
        assert_eq!(clean("a\u{1b}[31mred\u{1b}[0m\r\n\tb\u{7}"), "ared b");
        assert_eq!(clean("\u{1b}]0;title\u{7}x\u{202e}y\u{9b}z"), "xyz");
        assert_eq!(clean("\u{1b}[31"), "");
    }

    #[test]
    fn long_and_wide_text_is_cut_by_its_width() {
        assert_eq!(cut("日本語モデル", 7), "日本語…");
        assert_eq!(cut("short", 5), "short");
        assert_eq!(wrap("aa bb cccccc", 5), ["aa bb", "ccccc", "c"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("use `a b` now", 8), ["use", "`a b`", "now"], "a command is not broken");
        let path = "/home/user/results/20260225_1430/logs/a-long-name.log";
        assert_eq!(wrap(&format!("see {path} for it"), 20), ["see", path, "for it"], "a path is not broken");
    }

    #[test]
    fn metrics_fit_their_units() {
        assert_eq!(in_unit(1.0 / 3.0, Unit::RequestsPerSecond), "0.333");
        assert_eq!(in_unit(0.0001, Unit::RequestsPerSecond), "1.00e-4");
        assert_eq!(in_unit(0.0, Unit::Milliseconds), "0.00");
        assert_eq!(in_unit(8.62e-7, Unit::Seconds), "0.000000862");
        assert_eq!(in_unit(0.0499, Unit::Seconds), "0.0499");
        assert_eq!(in_unit(-0.001, Unit::Milliseconds), "-0.00100");
        assert_eq!(in_unit(1e-300, Unit::Seconds), "0.00000000000000");
        assert_eq!(in_unit(1e300, Unit::Milliseconds), "1.00e300");
        assert_eq!(duration(3723.4), "1 h 2 m 3 s");
        assert_eq!(duration(f64::NAN), "0 h 0 m 0 s");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_asked(text in "\\PC{0,40}[ \\x00-\\x1f]{0,5}.{0,40}", width in 2usize..30) {
            prop_assert!(cut(&text, width).width() <= width);
            for line in wrap(&text, width) {
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}

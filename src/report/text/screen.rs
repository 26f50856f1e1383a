//! What of an analysis a screen shows.

use std::borrow::Cow;

use crate::record::layout;

/// Lines of a section that are shown where a file holds all of them.
const MOST_LINES: usize = 1000;

/// The analysis without the lines that no screen is made for: of a section of more than [`MOST_LINES`] the others are counted.
pub fn on_screen(analysis: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let (mut of_section, mut left_out, mut whole_until) = (0, 0, 0);
    let mut at = 0;
    for line in analysis.split_inclusive('\n') {
        let end = at + line.len();
        if is_heading(line) {
            tell(&mut shown, left_out);
            (of_section, left_out) = (0, 0);
        }
        of_section += 1;
        if of_section > MOST_LINES {
            if left_out == 0 {
                shown.push_str(analysis.get(whole_until..at).unwrap_or_default());
            }
            left_out += 1;
            whole_until = end;
        }
        at = end;
    }
    if whole_until == 0 {
        return Cow::Borrowed(analysis);
    }
    if left_out == 0 {
        shown.push_str(analysis.get(whole_until..).unwrap_or_default());
    }
    tell(&mut shown, left_out);
    Cow::Owned(shown)
}

/// Says how many lines are not shown.
fn tell(shown: &mut String, left_out: usize) {
    if left_out > 0 {
        shown.push_str(&format!("  ... {left_out} more lines, all of them in {}\n\n", layout::ANALYSIS));
    }
}

/// Whether a line begins a section, with colour or without.
fn is_heading(line: &str) -> bool {
    const RULE: &str = "── ";
    line.starts_with(RULE) || (line.starts_with('\u{1b}') && line.contains("m── "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, lines: usize) -> String {
        let body: String = (1..lines).map(|line| format!("  {title} {line}\n")).collect();
        format!("── {title} ───\n{body}")
    }

    #[test]
    fn long_sections_are_cut_on_the_screen_and_what_is_left_out_is_counted() {
        let short = format!("title\n{}{}", section("a", 20), section("b", MOST_LINES));
        assert_eq!(on_screen(&short), short);
        let long =
            format!("title\n{}{}{}", section("a", MOST_LINES + 30), section("b", 3), section("c", 2 * MOST_LINES));
        let shown = on_screen(&long);
        let told = |count: usize| format!("  ... {count} more lines, all of them in detailed_analysis.txt\n\n");
        let expected = format!(
            "title\n{}{}{}{}{}",
            section("a", MOST_LINES),
            told(30),
            section("b", 3),
            section("c", MOST_LINES),
            told(MOST_LINES)
        );
        assert_eq!(shown, expected);
        let coloured = long.replace("── ", "\u{1b}[1m── ");
        assert_eq!(on_screen(&coloured), expected.replace("── ", "\u{1b}[1m── "));
    }
}

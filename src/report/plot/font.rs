//! The font of every picture, compiled in: a picture does not depend on what the machine has installed.
//!
//! Arimo has the widths of Arial, Helvetica and Liberation Sans, so that an SVG shown with one of these fits as measured here.

use std::sync::LazyLock;

use resvg::usvg::fontdb;
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};
use unicode_width::UnicodeWidthChar;

use crate::report::display::clean;

/// `font-family` of every text.
pub const FAMILY: &str = "Arimo, 'Liberation Sans', Arial, Helvetica, sans-serif";
const REGULAR: &[u8] = include_bytes!("fonts/Arimo-Regular-subset.ttf");
const BOLD: &[u8] = include_bytes!("fonts/Arimo-Bold-subset.ttf");
/// Width of a letter that the font does not have, in em; wide ones take two.
const UNKNOWN: f64 = 0.6;

/// How strong letters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As text is.
    Regular,
    /// Titles.
    Bold,
}

struct Widths {
    font: Option<FontRef<'static>>,
    ascii: [f64; 128],
}

static FONTS: LazyLock<[Widths; 2]> = LazyLock::new(|| [REGULAR, BOLD].map(Widths::of));

impl Widths {
    fn of(bytes: &'static [u8]) -> Self {
        let mut widths = Self { font: FontRef::new(bytes).ok(), ascii: [UNKNOWN; 128] };
        for code in 32..127u8 {
            widths.ascii[usize::from(code)] = widths.look_up(char::from(code));
        }
        widths
    }

    /// Em.
    fn look_up(&self, c: char) -> f64 {
        let unknown = UNKNOWN * f64::from(u8::try_from(c.width().unwrap_or(1)).unwrap_or(1));
        let Some(font) = &self.font else { return unknown };
        let metrics = font.glyph_metrics(Size::new(1.0), LocationRef::default());
        let glyph = font.charmap().map(c).filter(|glyph| glyph.to_u32() != 0);
        glyph.and_then(|glyph| metrics.advance_width(glyph)).map_or(unknown, f64::from)
    }

    fn of_char(&self, c: char) -> f64 {
        self.ascii.get(c as usize).copied().unwrap_or_else(|| self.look_up(c))
    }
}

fn widths(weight: Weight) -> &'static Widths {
    match weight {
        Weight::Regular => &FONTS[0],
        Weight::Bold => &FONTS[1],
    }
}

/// The width of a text in the unit of `size`.
pub fn width(text: &str, size: f64, weight: Weight) -> f64 {
    let widths = widths(weight);
    text.chars().map(|c| widths.of_char(c)).sum::<f64>() * size
}

/// The cleaned text, with an ellipsis in its middle where it is wider than this: both ends of a name tell most.
pub fn fit(text: &str, size: f64, weight: Weight, room: f64) -> String {
    let text = clean(text);
    if width(&text, size, weight) <= room {
        return text;
    }
    let widths = widths(weight);
    let chars: Vec<char> = text.chars().collect();
    let mut left = room - widths.of_char('…') * size;
    let (mut head, mut tail) = (0, chars.len());
    while head < tail {
        let front = head <= chars.len() - tail;
        let next = widths.of_char(chars[if front { head } else { tail - 1 }]) * size;
        if next > left {
            break;
        }
        left -= next;
        if front { head += 1 } else { tail -= 1 }
    }
    let parts: [String; 2] = [chars[..head].iter().collect(), chars[tail..].iter().collect()];
    format!("{}…{}", parts[0], parts[1])
}

/// The cleaned text in lines of at most this width; a word that is wider is shortened.
pub fn wrap(text: &str, size: f64, weight: Weight, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in clean(text).split(' ').filter(|word| !word.is_empty()) {
        let word = fit(word, size, weight, room);
        match lines.last_mut() {
            Some(line) if width(line, size, weight) + width(&word, size, weight) + 0.3 * size <= room => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(_) | None => lines.push(word),
        }
    }
    lines
}

/// The text with an empty box for every letter that the font does not have.
pub fn drawable(text: &str) -> String {
    let known = |c: char| {
        c.is_ascii()
            || widths(Weight::Regular)
                .font
                .as_ref()
                .and_then(|font| font.charmap().map(c))
                .is_some_and(|g| g.to_u32() != 0)
    };
    text.chars().map(|c| if known(c) { c } else { '□' }).collect()
}

/// The fonts for drawing PNGs.
pub fn database() -> fontdb::Database {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(BOLD.to_vec());
    fonts.set_sans_serif_family("Arimo");
    fonts.set_serif_family("Arimo");
    fonts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_have_the_widths_of_arial() {
        // Arial's advance widths, in 1/2048 em: 0 1139, W 1933, i 455; bold 0 1139.
        for (text, expected) in [("0", 1139.0), ("W", 1933.0), ("i", 455.0)] {
            assert!((width(text, 2048.0, Weight::Regular) - expected).abs() < 1.0, "{text}");
        }
        assert!((width("0", 2048.0, Weight::Bold) - 1139.0).abs() < 1.0);
        assert!(width("モ", 10.0, Weight::Regular) > 10.0);
        assert!(database().len() == 2);
        assert_eq!(drawable("Größe ≤ モデル…"), "Größe ≤ □□□…");
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        let cut = fit("organisation/model-with-a-long-name-FP8", 12.0, Weight::Regular, 120.0);
        assert!(cut.starts_with("organ") && cut.ends_with("FP8") && cut.contains('…'), "{cut}");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_room(text in ".{0,80}", room in 20.0f64..400.0) {
            prop_assert!(width(&fit(&text, 12.0, Weight::Bold, room), 12.0, Weight::Bold) <= room);
            for line in wrap(&text, 12.0, Weight::Regular, room) {
                prop_assert!(width(&line, 12.0, Weight::Regular) <= room);
            }
        }
    }
}

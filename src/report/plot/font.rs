//! The font of every plot, compiled in: a plot does not depend on what the machine has installed.
//!
//! Arimo has the widths of Arial, Helvetica and Liberation Sans, so that an SVG shown with one of these fits as measured here.

use std::fmt::Write as _;
use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId, OutlineBuilder};
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
    font: Option<Face<'static>>,
    ascii: [f64; 128],
}

static FONTS: LazyLock<[Widths; 2]> = LazyLock::new(|| [REGULAR, BOLD].map(Widths::of));

impl Widths {
    fn of(bytes: &'static [u8]) -> Self {
        let mut widths = Self { font: Face::parse(bytes, 0).ok(), ascii: [UNKNOWN; 128] };
        for code in 32..127u8 {
            widths.ascii[usize::from(code)] = widths.look_up(char::from(code));
        }
        widths
    }

    /// Em.
    fn look_up(&self, c: char) -> f64 {
        let advance = |(font, glyph): (&Face<'_>, GlyphId)| {
            font.glyph_hor_advance(glyph).map(|advance| f64::from(advance) / f64::from(font.units_per_em()))
        };
        let unknown = || UNKNOWN * f64::from(u8::try_from(c.width().unwrap_or(1)).unwrap_or(1));
        self.glyph(c).and_then(advance).unwrap_or_else(unknown)
    }

    fn glyph(&self, c: char) -> Option<(&Face<'static>, GlyphId)> {
        let font = self.font.as_ref()?;
        Some((font, font.glyph_index(c).filter(|glyph| glyph.0 != 0)?))
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

/// The outlines of a text whose first letter stands at a point, as the data of an SVG path: an empty box for every letter that the font
/// does not have.
pub fn outlines(text: &str, size: f64, weight: Weight, (x, y): (f64, f64)) -> String {
    let widths = widths(weight);
    let mut pen = Pen { path: String::new(), x, y, scale: 1.0 };
    for c in text.chars() {
        let wide = widths.of_char(c) * size;
        match widths.glyph(c) {
            Some((font, glyph)) => {
                pen.scale = size / f64::from(font.units_per_em());
                font.outline_glyph(glyph, &mut pen);
            }
            None => {
                let (left, right, top, line) = (0.08 * size, wide - 0.08 * size, 0.7 * size, 0.06 * size);
                pen.scale = 1.0;
                pen.frame(left, right, 0.0, top);
                // The inner one runs the other way: its area stays empty.
                pen.frame(right - line, left + line, line, top - line);
            }
        }
        pen.x += wide;
    }
    pen.path
}

/// Writes outlines, in units of a font with the y axis upwards, as the data of a path.
struct Pen {
    path: String,
    x: f64,
    y: f64,
    scale: f64,
}

impl Pen {
    fn write(&mut self, command: char, points: &[(f32, f32)]) {
        self.path.push(command);
        for (x, y) in points {
            let (x, y) = (self.x + f64::from(*x) * self.scale, self.y - f64::from(*y) * self.scale);
            let _ = write!(self.path, "{x:.3} {y:.3} ");
        }
    }

    fn frame(&mut self, left: f64, right: f64, low: f64, high: f64) {
        let [left, right, low, high] = [left, right, low, high].map(|side| side as f32);
        self.write('M', &[(left, low)]);
        self.write('L', &[(right, low), (right, high), (left, high)]);
        self.close();
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.write('M', &[(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.write('L', &[(x, y)]);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.write('Q', &[(x1, y1), (x, y)]);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.write('C', &[(x1, y1), (x2, y2), (x, y)]);
    }

    fn close(&mut self) {
        self.path.push('Z');
    }
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
        // A letter that the font has is drawn; one that it does not have is a box: two frames of four corners.
        assert!(outlines("ß≤…", 12.0, Weight::Regular, (0.0, 0.0)).contains('Q'));
        let unknown = outlines("モ", 12.0, Weight::Bold, (3.0, 9.0));
        assert_eq!((unknown.matches('Z').count(), unknown.matches('Q').count()), (2, 0), "{unknown}");
        assert!(unknown.starts_with("M3.960 9.000 "), "{unknown}");
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

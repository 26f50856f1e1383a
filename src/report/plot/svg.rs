//! A small writer of SVG: what the plots need, every text escaped, numbers short, the same input the same bytes.

use std::fmt::Write as _;

use super::font::{self, FAMILY, Weight};
use super::look::{Dash, Look, Marker};
use crate::report::display::clean;

/// Where a text stands in relation to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// Ends there.
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ink {
    /// Height of the letters.
    pub size: f64,
    /// Strength.
    pub weight: Weight,
    /// Colour.
    pub colour: &'static str,
    /// Place.
    pub anchor: Anchor,
    /// Turned by so many degrees (clockwise).
    pub turn: f64,
}

impl Ink {
    /// Regular dark text that begins at its point.
    pub const fn new(size: f64) -> Self {
        Self { size, weight: Weight::Regular, colour: TEXT, anchor: Anchor::Start, turn: 0.0 }
    }

    /// Strong.
    pub const fn bold(self) -> Self {
        Self { weight: Weight::Bold, ..self }
    }

    /// In another place.
    pub const fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// In another colour.
    pub const fn colour(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }

    /// Turned.
    pub const fn turn(self, turn: f64) -> Self {
        Self { turn, ..self }
    }
}

/// Colour of text.
pub const TEXT: &str = "#1a1a1a";
/// Colour of what is said beside.
pub const QUIET: &str = "#4d4d4d";
/// Colour of the lines behind the data.
pub const GRID: &str = "#e0e0e0";
/// Colour of the lines at the axes.
pub const FRAME: &str = "#7a7a7a";

/// How letters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// As text, which can be searched and copied, in a font of the machine that shows it.
    Text,
    /// As outlines, which need no font.
    Outlines,
}

/// A plot under construction.
#[derive(Debug)]
pub struct Svg {
    out: String,
    letters: Letters,
}

/// A number as short as it can be, in hundredths.
fn number(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(-1e6, 1e6) } else { 0.0 };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text as XML takes it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No characters at all, says XML.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

impl Svg {
    /// An opaque light sheet of this size; `title` and `description` are for those who cannot see it.
    pub fn new(width: f64, height: f64, letters: Letters, title: &str, description: &str) -> Self {
        let (w, h) = (number(width), number(height));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
             font-family=\"{FAMILY}\">\n<title>{}</title>\n<desc>{}</desc>\n",
            escape(title),
            escape(description)
        );
        let _ = writeln!(out, "<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>");
        Self { out, letters }
    }

    /// The whole.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }

    /// A filled rectangle.
    pub fn rect(&mut self, (x, y, width, height): (f64, f64, f64, f64), fill: &str, stroke: Option<&str>) {
        let stroke = stroke.map(|colour| format!(" stroke=\"{colour}\"")).unwrap_or_default();
        let (width, height) = (number(width.max(0.0)), number(height.max(0.0)));
        // Of no width or height nothing is seen.
        if width == "0" || height == "0" {
            return;
        }
        let _ = writeln!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"{stroke}/>",
            number(x),
            number(y)
        );
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64, dash: Dash) {
        let (x1, y1, x2, y2) = (number(from.0), number(from.1), number(to.0), number(to.1));
        if (&x1, &y1) == (&x2, &y2) {
            return;
        }
        let _ = writeln!(
            self.out,
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"{colour}\" stroke-width=\"{}\"{}/>",
            number(width),
            dash.attribute()
        );
    }

    /// A line through points.
    pub fn polyline(&mut self, points: &[(f64, f64)], colour: &str, width: f64, dash: Dash) {
        let mut path: Vec<(String, String)> = points.iter().map(|(x, y)| (number(*x), number(*y))).collect();
        path.dedup();
        if path.len() < 2 {
            return;
        }
        let _ = write!(self.out, "<path d=\"");
        for (i, (x, y)) in path.iter().enumerate() {
            let _ = write!(self.out, "{}{x} {y}", if i == 0 { "M" } else { "L" });
        }
        let _ = writeln!(
            self.out,
            "\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{}/>",
            number(width),
            dash.attribute()
        );
    }

    /// A mark at a point; `size` is its radius.
    pub fn mark(&mut self, (x, y): (f64, f64), size: f64, look: &Look) {
        let (x0, x1, y0, y1) = (number(x - size), number(x + size), number(y - size), number(y + size));
        let (x, y) = (number(x), number(y));
        let colour = look.colour;
        let path = match look.marker {
            Marker::Circle => {
                let _ = writeln!(self.out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"{colour}\"/>", number(size));
                return;
            }
            Marker::Ring => {
                let _ = writeln!(
                    self.out,
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    number(size)
                );
                return;
            }
            Marker::Cross => {
                let _ = writeln!(
                    self.out,
                    "<path d=\"M{x0} {y0}L{x1} {y1}M{x0} {y1}L{x1} {y0}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
                );
                return;
            }
            Marker::Plus => {
                let _ = writeln!(
                    self.out,
                    "<path d=\"M{x} {y0}L{x} {y1}M{x0} {y}L{x1} {y}\" stroke=\"{colour}\" stroke-width=\"2.2\"/>"
                );
                return;
            }
            Marker::Square => format!("M{x0} {y0}L{x1} {y0}L{x1} {y1}L{x0} {y1}Z"),
            Marker::Up => format!("M{x} {y0}L{x1} {y1}L{x0} {y1}Z"),
            Marker::Down => format!("M{x} {y1}L{x1} {y0}L{x0} {y0}Z"),
            Marker::Diamond => format!("M{x} {y0}L{x1} {y}L{x} {y1}L{x0} {y}Z"),
        };
        let _ = writeln!(self.out, "<path d=\"{path}\" fill=\"{colour}\"/>");
    }

    /// A text, escaped.
    pub fn text(&mut self, (x, y): (f64, f64), text: &str, ink: Ink) {
        let (at, size) = ((x, y), number(ink.size));
        let (x, y) = (number(x), number(y));
        let turn = if ink.turn == 0.0 {
            String::new()
        } else {
            format!(" transform=\"rotate({} {x} {y})\"", number(ink.turn))
        };
        if self.letters == Letters::Outlines {
            let path = outlines(at, text, ink);
            let _ = writeln!(self.out, "<path d=\"{path}\" fill=\"{}\"{turn}/>", ink.colour);
            return;
        }
        let anchor = match ink.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let weight = match ink.weight {
            Weight::Regular => "",
            Weight::Bold => " font-weight=\"bold\"",
        };
        let _ = writeln!(
            self.out,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\"{weight}{anchor}{turn}>{}</text>",
            ink.colour,
            escape(text)
        );
    }
}

fn outlines((x, y): (f64, f64), text: &str, ink: Ink) -> String {
    let text = clean(text);
    let part = match ink.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => 0.5,
        Anchor::End => 1.0,
    };
    let left = x - part * font::width(&text, ink.size, ink.weight);
    font::outlines(&text, ink.size, ink.weight, (left, y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_finite() {
        for (value, text) in
            [(1.0, "1"), (-0.001, "0"), (2.5, "2.5"), (f64::NAN, "0"), (1e300, "1000000"), (0.333, "0.33")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escape("<b>&\"'\u{202e}\u{0}\u{ffff}\u{1b}[31mx"), "&lt;b&gt;&amp;&quot;&#39;\u{fffd}x");
    }
}

//! A panel of bars, one below the other.

use super::area::{Area, TICKS};
use super::chart::{Bar, Bars};
use super::font::{Weight, fit, width};
use super::look::Dash;
use super::scale::{Counting, Scale};
use super::svg::{Anchor, FRAME, GRID, Ink, Svg, TEXT};

/// A part of this colour is not drawn: nothing is there.
pub const GAP: &str = "none";

const ROW: f64 = 23.0;
const LABEL: f64 = 12.0;
const BELOW: f64 = 46.0;

/// The height that it likes to have.
pub fn height(bars: &Bars) -> f64 {
    bars.rows.len() as f64 * ROW + BELOW + 10.0
}

fn end(bar: &Bar) -> f64 {
    bar.parts.iter().map(|(value, _)| value).sum()
}

/// Draws it.
pub fn draw(svg: &mut Svg, bars: &Bars, (x, y, wide, high): Area) {
    let widest = |texts: &mut dyn Iterator<Item = &str>| {
        texts.map(|text| width(&crate::report::display::clean(text), LABEL, Weight::Regular)).fold(0.0, f64::max)
    };
    let left = widest(&mut bars.rows.iter().map(|bar| bar.label.as_str())).min(wide * 0.45) + 10.0;
    let right = widest(&mut bars.rows.iter().map(|bar| bar.value.as_str())).min(wide * 0.35) + 14.0;
    let (from, room) = (x + left, (wide - left - right).max(20.0));
    let ends = bars.rows.iter().flat_map(|bar| [Some(end(bar)), bar.range.map(|range| range.1)]).flatten();
    let scale = Scale::of(Counting::Linear, ends.chain([0.0]), true);
    let bottom = y + (high - BELOW).max(20.0);
    for tick in scale.ticks((room / 90.0) as usize) {
        let at = from + scale.at(tick.at) * room;
        svg.line((at, y), (at, bottom), GRID, 1.0, Dash::Solid);
        svg.text((at, bottom + TICKS + 5.0), &tick.label, Ink::new(TICKS).anchor(Anchor::Middle));
    }
    let step = (bottom - y) / bars.rows.len().max(1) as f64;
    let size = LABEL.min(step * 0.8);
    for (i, bar) in bars.rows.iter().enumerate() {
        let middle = y + (i as f64 + 0.5) * step;
        let thick = (step * 0.66).min(18.0);
        let label = fit(&bar.label, size, Weight::Regular, left - 10.0);
        svg.text((from - 8.0, middle + size * 0.36), &label, Ink::new(size).anchor(Anchor::End));
        let mut sum = 0.0;
        for (value, look) in &bar.parts {
            let (a, b) = (from + scale.at(sum) * room, from + scale.at(sum + value) * room);
            if look.colour != GAP {
                svg.rect((a, middle - thick / 2.0, b - a, thick), look.colour, None);
            }
            sum += value;
        }
        for (start, end, text) in &bar.within {
            let (a, b) = (from + scale.at(*start) * room, from + scale.at(*end) * room);
            if width(text, size, Weight::Regular) + 4.0 <= b - a {
                let ink = Ink::new(size).anchor(Anchor::Middle).colour("#ffffff");
                svg.text(((a + b) / 2.0, middle + size * 0.36), text, ink);
            }
        }
        let mut tip = from + scale.at(sum) * room;
        if let Some((low, high)) = bar.range {
            let (a, b) = (from + scale.at(low) * room, from + scale.at(high) * room);
            // A light edge, as a dark bar may lie below.
            svg.line((a, middle), (b, middle), "#ffffff", 3.4, Dash::Solid);
            svg.line((a, middle), (b, middle), TEXT, 1.3, Dash::Solid);
            for end in [a, b] {
                svg.line((end, middle - thick * 0.3), (end, middle + thick * 0.3), TEXT, 1.3, Dash::Solid);
            }
            tip = tip.max(b);
        }
        let value = fit(&bar.value, size, Weight::Regular, x + wide - tip - 6.0);
        // No line of the grid goes through the metric.
        let room = (tip + 4.0, middle - size * 0.6, width(&value, size, Weight::Regular) + 4.0, size * 1.2);
        svg.rect(room, "#ffffff", None);
        svg.text((tip + 6.0, middle + size * 0.36), &value, Ink::new(size));
    }
    svg.line((from, y), (from, bottom), FRAME, 1.0, Dash::Solid);
    let text = fit(&bars.label, LABEL, Weight::Regular, wide);
    let middle = (from + room / 2.0).max(x + width(&text, LABEL, Weight::Regular) / 2.0);
    svg.text((middle, bottom + TICKS + LABEL + 12.0), &text, Ink::new(LABEL).anchor(Anchor::Middle));
}

//! A field of colours.

use super::area::{Area, TICKS};
use super::chart::Heat;
use super::font::{Weight, fit, width};
use super::look::MARKED;
use super::scale::{Counting, Scale, short};
use super::svg::{Anchor, FRAME, Ink, QUIET, Svg, TEXT};

const LABEL: f64 = 12.5;
const CELL: f64 = 30.0;
/// Room of the scale of colours.
const SCALE: f64 = 96.0;
/// The widest name of a row or column.
const NAME: f64 = 190.0;

/// From light to dark with a steady fall of brightness, so that it also works in grey (after cividis: Nunez, Anderton and
/// Renslow 2018, turned round).
const RAMP: [(u8, u8, u8); 5] = [(255, 240, 170), (205, 186, 110), (130, 131, 120), (66, 85, 110), (0, 32, 81)];

fn colour(part: f64) -> (String, &'static str) {
    let part = part.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let index = (part.floor() as usize).min(RAMP.len() - 2);
    let t = part - index as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * t).round() as u8;
    let (a, b) = (RAMP[index], RAMP[index + 1]);
    let (r, g, blue) = (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2));
    let light = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(blue);
    (format!("#{r:02x}{g:02x}{blue:02x}"), if light > 128.0 { TEXT } else { "#ffffff" })
}

/// Room for the names of the columns: beside each other where they fit, else upright.
fn below(heat: &Heat, cell: f64) -> (f64, bool) {
    let widest = heat.xs.iter().map(|name| width(name, TICKS, Weight::Regular)).fold(0.0, f64::max);
    if widest + 8.0 <= cell { (TICKS + LABEL + 22.0, false) } else { (widest.min(NAME) + LABEL + 26.0, true) }
}

fn left(heat: &Heat) -> f64 {
    heat.ys.iter().map(|name| width(name, TICKS, Weight::Regular)).fold(0.0, f64::max).min(NAME) + LABEL + 22.0
}

/// The height that it likes to have.
pub fn height(heat: &Heat, wide: f64) -> f64 {
    let cell = (wide - left(heat) - SCALE) / heat.xs.len().max(1) as f64;
    let row = if heat.ys.len() <= 8 { 44.0 } else { CELL };
    (heat.ys.len() as f64 * row).clamp(190.0, 900.0) + below(heat, cell).0
}

/// Draws it.
pub fn draw(svg: &mut Svg, heat: &Heat, (x, y, wide, high): Area) {
    let left = left(heat);
    let (from, room) = (x + left, (wide - left - SCALE).max(20.0));
    let cell_width = room / heat.xs.len().max(1) as f64;
    let (below, upright) = below(heat, cell_width);
    let tall = (high - below).max(20.0);
    let cell_height = tall / heat.ys.len().max(1) as f64;
    let values = || heat.cells.iter().flatten().flatten().copied().filter(|value| value.is_finite());
    let (low, top) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let part = |value: f64| if top > low { (value - low) / (top - low) } else { 0.5 };
    for (row, cells) in heat.cells.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            let (cx, cy) = (from + column as f64 * cell_width, y + row as f64 * cell_height);
            let area = (cx + 0.5, cy + 0.5, cell_width - 1.0, cell_height - 1.0);
            let centre = (cx + cell_width / 2.0, cy + cell_height / 2.0 + TICKS * 0.36);
            let Some(value) = cell else {
                svg.rect(area, "#f2f2f2", Some("#d0d0d0"));
                if cell_width > 14.0 && cell_height > 12.0 {
                    svg.text(centre, "–", Ink::new(TICKS).anchor(Anchor::Middle).colour(QUIET));
                }
                continue;
            };
            let (fill, ink) = colour(part(*value));
            svg.rect(area, &fill, None);
            let text = short(*value);
            if width(&text, TICKS, Weight::Regular) + 6.0 <= cell_width && cell_height >= TICKS + 2.0 {
                svg.text(centre, &text, Ink::new(TICKS).anchor(Anchor::Middle).colour(ink));
            }
        }
    }
    if let Some((row, column)) = heat.best {
        let (cx, cy) = (from + column as f64 * cell_width, y + row as f64 * cell_height);
        for inset in [1.0, 2.0, 3.0] {
            let area = (cx + inset, cy + inset, cell_width - 2.0 * inset, cell_height - 2.0 * inset);
            svg.rect(area, "none", Some(MARKED.colour));
        }
    }
    names(svg, heat, (from, y, room, tall), upright);
    let bottom = y + tall;
    let ink = Ink::new(LABEL).anchor(Anchor::Middle);
    svg.text((from + room / 2.0, bottom + below - 8.0), &fit(&heat.x_label, LABEL, Weight::Regular, room), ink);
    svg.text((x + LABEL, y + tall / 2.0), &fit(&heat.y_label, LABEL, Weight::Regular, tall), ink.turn(-90.0));
    if low <= top {
        bar(svg, (x + wide - SCALE + 22.0, y, 14.0, tall), &heat.label, (low, top));
    }
}

/// Names of rows and columns; of those that would touch, the later ones are left out.
fn names(svg: &mut Svg, heat: &Heat, (from, y, room, tall): Area, upright: bool) {
    let (cell_width, cell_height) = (room / heat.xs.len().max(1) as f64, tall / heat.ys.len().max(1) as f64);
    let every = |cell: f64| ((TICKS + 3.0) / cell.max(0.1)).ceil().max(1.0) as usize;
    for (i, name) in heat.ys.iter().enumerate().step_by(every(cell_height)) {
        let at = (from - 6.0, y + (i as f64 + 0.5) * cell_height + TICKS * 0.36);
        svg.text(at, &fit(name, TICKS, Weight::Regular, NAME), Ink::new(TICKS).anchor(Anchor::End));
    }
    let step = if upright { every(cell_width) } else { 1 };
    for (i, name) in heat.xs.iter().enumerate().step_by(step) {
        let x = from + (i as f64 + 0.5) * cell_width;
        let text = fit(name, TICKS, Weight::Regular, NAME);
        if upright {
            let at = (x + TICKS * 0.36, y + tall + 6.0);
            svg.text(at, &text, Ink::new(TICKS).anchor(Anchor::End).turn(-90.0));
        } else {
            svg.text((x, y + tall + TICKS + 5.0), &text, Ink::new(TICKS).anchor(Anchor::Middle));
        }
    }
}

fn bar(svg: &mut Svg, (x, y, wide, tall): Area, label: &str, (low, high): (f64, f64)) {
    const STEPS: usize = 40;
    let step = tall / STEPS as f64;
    for i in 0..STEPS {
        let part = 1.0 - (i as f64 + 0.5) / STEPS as f64;
        svg.rect((x, y + i as f64 * step, wide, step + 0.5), &colour(part).0, None);
    }
    svg.rect((x, y, wide, tall), "none", Some(FRAME));
    let scale = if high > low { Scale::exact(low, high) } else { Scale::of(Counting::Linear, [low, high], false) };
    let mut free = f64::INFINITY;
    for tick in scale.ticks((tall / 32.0) as usize) {
        let at = y + (1.0 - scale.at(tick.at)) * tall + TICKS * 0.36;
        if at + TICKS <= free {
            svg.text((x + wide + 5.0, at), &fit(&tick.label, TICKS, Weight::Regular, 44.0), Ink::new(TICKS));
            free = at;
        }
    }
    let text = fit(label, 11.5, Weight::Regular, tall);
    svg.text((x - 6.0, y + tall / 2.0), &text, Ink::new(11.5).anchor(Anchor::Middle).turn(-90.0));
}

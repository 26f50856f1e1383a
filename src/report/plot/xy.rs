//! A panel with two axes.

use super::area::{Area, TICKS};
use super::chart::{Axis, Bin, BoxPlot, Point, Series, Shape, Vertical, Xy};
use super::font::{Weight, fit, width};
use super::look::{Dash, Look};
use super::scale::Tick;
use super::svg::{Anchor, FRAME, GRID, Ink, Svg};

const LABEL: f64 = 12.5;

/// Places in the panel.
struct Frame<'a> {
    area: Area,
    x: &'a Axis,
    y: &'a Axis,
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        self.area.0 + self.x.scale.at(value) * self.area.2
    }

    fn y(&self, value: f64) -> f64 {
        self.area.1 + (1.0 - self.y.scale.at(value)) * self.area.3
    }

    fn at(&self, point: &Point) -> (f64, f64) {
        (self.x(point.x), self.y(point.y))
    }
}

/// Draws it.
pub fn draw(svg: &mut Svg, xy: &Xy, (x, y, wide, high): Area) {
    let below = TICKS + LABEL + 20.0;
    let plot_height = (high - below - 6.0).max(20.0);
    let y_ticks = ticks(&xy.y, (plot_height / 36.0) as usize);
    let widest = y_ticks.iter().map(|tick| width(&tick.label, TICKS, Weight::Regular)).fold(0.0, f64::max);
    let left = widest.min(wide / 3.0) + LABEL + 22.0;
    let area = (x + left, y + 6.0, (wide - left - 12.0).max(20.0), plot_height);
    let frame = Frame { area, x: &xy.x, y: &xy.y };
    axes(svg, &frame, &y_ticks);
    for bin in &xy.bins {
        bar(svg, &frame, bin);
    }
    for one in &xy.boxes {
        boxed(svg, &frame, one, xy.x.ticks.as_ref().map_or(1, Vec::len));
    }
    for series in &xy.series {
        points(svg, &frame, series);
    }
    verticals(svg, &frame, &xy.verticals);
}

fn ticks(axis: &Axis, wanted: usize) -> Vec<Tick> {
    axis.ticks.clone().unwrap_or_else(|| axis.scale.ticks(wanted.max(2)))
}

/// Grid, frame, ticks and labels. Of labels that would touch, the later ones are left out: the ticks stay.
fn axes(svg: &mut Svg, frame: &Frame<'_>, y_ticks: &[Tick]) {
    let (left, top, wide, high) = frame.area;
    let (right, bottom) = (left + wide, top + high);
    let mut free = f64::INFINITY;
    for tick in y_ticks {
        let y = frame.y(tick.at);
        svg.line((left, y), (right, y), GRID, 1.0, Dash::Solid);
        if y + TICKS * 1.1 <= free {
            let text = fit(&tick.label, TICKS, Weight::Regular, wide / 2.0);
            svg.text((left - 6.0, y + TICKS * 0.36), &text, Ink::new(TICKS).anchor(Anchor::End));
            free = y;
        }
    }
    let widest = |ticks: &[Tick]| ticks.iter().map(|t| width(&t.label, TICKS, Weight::Regular)).fold(20.0, f64::max);
    let wanted = (wide / (widest(&frame.x.scale.ticks(8)) + 26.0)) as usize;
    let x_ticks = ticks(frame.x, wanted.min(12));
    let room = wide / x_ticks.len().max(1) as f64;
    let mut free = left - 30.0;
    for tick in &x_ticks {
        let x = frame.x(tick.at);
        svg.line((x, top), (x, bottom), GRID, 1.0, Dash::Solid);
        svg.line((x, bottom), (x, bottom + 4.0), FRAME, 1.0, Dash::Solid);
        let text = fit(&tick.label, TICKS, Weight::Regular, room.max(60.0));
        let half = width(&text, TICKS, Weight::Regular) / 2.0;
        if x - half >= free && x + half <= right + 14.0 {
            svg.text((x, bottom + TICKS + 6.0), &text, Ink::new(TICKS).anchor(Anchor::Middle));
            free = x + half + 6.0;
        }
    }
    svg.line((left, top), (left, bottom), FRAME, 1.0, Dash::Solid);
    svg.line((left, bottom), (right, bottom), FRAME, 1.0, Dash::Solid);
    let ink = Ink::new(LABEL).anchor(Anchor::Middle);
    let text = fit(&frame.x.label, LABEL, Weight::Regular, wide + 30.0);
    svg.text((left + wide / 2.0, bottom + TICKS + LABEL + 12.0), &text, ink);
    let text = fit(&frame.y.label, LABEL, Weight::Regular, high);
    let widest = y_ticks.iter().map(|t| width(&t.label, TICKS, Weight::Regular)).fold(0.0, f64::max);
    svg.text((left - widest.min(wide / 2.0) - 15.0, top + high / 2.0), &text, ink.turn(-90.0));
}

fn points(svg: &mut Svg, frame: &Frame<'_>, series: &Series) {
    let look = &series.look;
    let places: Vec<(f64, f64)> = series.points.iter().map(|point| frame.at(point)).collect();
    for (point, at) in series.points.iter().zip(&places) {
        ranges(svg, frame, point, *at, look);
    }
    let mark = |svg: &mut Svg, size: f64| places.iter().for_each(|at| svg.mark(*at, size, look));
    match series.shape {
        Shape::Line => {
            svg.polyline(&places, look.colour, look.width, look.dash);
            mark(svg, if look.width > 1.5 { 4.0 } else { 2.0 });
        }
        Shape::Bare => svg.polyline(&places, look.colour, look.width, look.dash),
        Shape::Steps => svg.polyline(&stairs(&places, frame.y(0.0)), look.colour, look.width, look.dash),
        Shape::Cloud => mark(svg, 4.0),
        Shape::Dust => places.iter().for_each(|at| {
            svg.mark(*at, 1.6, &Look { marker: super::look::Marker::Circle, ..*look });
        }),
        Shape::Marks => mark(svg, 9.0),
    }
}

/// From the ground up, one step at each point.
fn stairs(places: &[(f64, f64)], ground: f64) -> Vec<(f64, f64)> {
    let mut path = Vec::with_capacity(places.len() * 2);
    let mut height = ground;
    for (x, y) in places {
        path.push((*x, height));
        path.push((*x, *y));
        height = *y;
    }
    path
}

fn ranges(svg: &mut Svg, frame: &Frame<'_>, point: &Point, (x, y): (f64, f64), look: &Look) {
    if let Some((low, high)) = point.y_range {
        let (a, b) = (frame.y(low), frame.y(high));
        svg.line((x, a), (x, b), look.colour, 1.2, Dash::Solid);
        for end in [a, b] {
            svg.line((x - 4.0, end), (x + 4.0, end), look.colour, 1.2, Dash::Solid);
        }
    }
    if let Some((low, high)) = point.x_range {
        let (a, b) = (frame.x(low), frame.x(high));
        svg.line((a, y), (b, y), look.colour, 1.2, Dash::Solid);
        for end in [a, b] {
            svg.line((end, y - 4.0), (end, y + 4.0), look.colour, 1.2, Dash::Solid);
        }
    }
}

fn bar(svg: &mut Svg, frame: &Frame<'_>, bin: &Bin) {
    let (from, to, top, ground) = (frame.x(bin.from), frame.x(bin.to), frame.y(bin.count), frame.y(0.0));
    if bin.count > 0.0 {
        svg.rect((from, top, (to - from).max(1.0), ground - top), "#5aa0d0", Some("#0b4f7d"));
    }
}

fn boxed(svg: &mut Svg, frame: &Frame<'_>, one: &BoxPlot, places: usize) {
    let room = frame.area.2 / places.max(1) as f64;
    let half = (room * one.width / 2.0).clamp(1.5, 40.0);
    let x = frame.x(one.at);
    let [low, lower, median, upper, high] = one.five.map(|value| frame.y(value));
    let colour = one.look.colour;
    for (from, to) in [(low, lower), (upper, high)] {
        svg.line((x, from), (x, to), colour, 1.3, Dash::Solid);
    }
    for end in [low, high] {
        svg.line((x - half * 0.6, end), (x + half * 0.6, end), colour, 1.3, Dash::Solid);
    }
    svg.rect((x - half, upper, half * 2.0, lower - upper), "#ffffff", Some(colour));
    svg.line((x - half, median), (x + half, median), colour, 2.4, Dash::Solid);
    svg.mark((x, frame.y(one.mean)), 3.2, &Look { marker: super::look::Marker::Diamond, ..one.look });
}

fn verticals(svg: &mut Svg, frame: &Frame<'_>, lines: &[Vertical]) {
    let (_, top, _, high) = frame.area;
    for line in lines {
        let x = frame.x(line.at);
        svg.line((x, top), (x, top + high), line.look.colour, 2.0, line.look.dash);
    }
}

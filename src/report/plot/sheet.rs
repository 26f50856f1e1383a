//! The sheet of paper: title, panels, legend and caption, each in a place of its own.

use super::area::Area;
use super::bars;
use super::chart::{Body, Chart, Entry, Panel, Sampled};
use super::font::{Weight, fit, width, wrap};
use super::heat;
use super::svg::{Anchor, Ink, Letters, QUIET, Svg};
use super::xy;

/// How large a plot is, in CSS pixels (96 to the inch). What is not given is chosen by the content.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    /// Width.
    pub width: Option<f64>,
    /// Height.
    pub height: Option<f64>,
}

const MARGIN: f64 = 18.0;
const GAP: f64 = 22.0;
const TITLE: f64 = 17.0;
const SUBTITLE: f64 = 12.0;
const LEGEND: f64 = 12.0;
const CAPTION: f64 = 11.0;
const SAMPLE: f64 = 30.0;
/// Width and height of a panel that says nothing else.
const PANEL: (f64, f64) = (924.0, 420.0);
const BESIDE: (f64, f64) = (560.0, 340.0);
/// Lines of the subtitle.
const SUBTITLE_LINES: usize = 3;

/// Draws a chart as SVG.
pub fn draw(chart: &Chart, size: Size, letters: Letters) -> String {
    let columns = chart.columns.clamp(1, chart.panels.len().max(1));
    let wide = if columns > 1 { BESIDE.0 } else { PANEL.0 };
    let natural = 2.0 * MARGIN + columns as f64 * wide + (columns - 1) as f64 * GAP;
    let page = size.width.unwrap_or(natural);
    let inner = page - 2.0 * MARGIN;
    let badge = if chart.simulated { width(BADGE, 13.0, Weight::Bold) + 24.0 } else { 0.0 };
    let title = wrap(&chart.title, TITLE, Weight::Bold, inner - badge);
    let mut subtitle = wrap(&chart.subtitle, SUBTITLE, Weight::Regular, inner);
    shorten(&mut subtitle, SUBTITLE_LINES);
    let legend = flow(&chart.legend, inner);
    let caption = wrap(&chart.caption.join(" "), CAPTION, Weight::Regular, inner);

    let head = MARGIN + lines(title.len(), TITLE) + lines(subtitle.len(), SUBTITLE) + 10.0;
    let foot = lines(legend.len(), LEGEND * 1.3) + 10.0 + lines(caption.len(), CAPTION) + MARGIN - 4.0;
    let rows = chart.panels.len().div_ceil(columns).max(1);
    let panel_width = (inner - (columns - 1) as f64 * GAP) / columns as f64;
    let between = (rows - 1) as f64 * GAP;
    let liked: Vec<f64> = chart
        .panels
        .chunks(columns)
        .map(|row| row.iter().map(|panel| height(panel, columns, panel_width)).fold(60.0, f64::max))
        .collect();
    let sum: f64 = liked.iter().sum();
    let page_height = size.height.unwrap_or(head + sum + between + foot);
    let stretch = ((page_height - head - foot - between) / sum.max(1.0)).max(0.1);
    let heights: Vec<f64> = liked.into_iter().map(|liked| liked * stretch).collect();

    let mut svg = Svg::new(page, page_height, letters, &chart.title, &chart.caption.join(" "));
    let mut y = MARGIN;
    for line in &title {
        y += TITLE * 1.25;
        svg.text((MARGIN, y - TITLE * 0.3), line, Ink::new(TITLE).bold());
    }
    for line in &subtitle {
        y += SUBTITLE * 1.25;
        svg.text((MARGIN, y - SUBTITLE * 0.2), line, Ink::new(SUBTITLE).colour(QUIET));
    }
    if chart.simulated {
        stamp(&mut svg, page - MARGIN, MARGIN, badge);
    }
    let mut y = head;
    for (row, high) in chart.panels.chunks(columns).zip(&heights) {
        for (i, panel) in row.iter().enumerate() {
            let x = MARGIN + i as f64 * (panel_width + GAP);
            draw_panel(&mut svg, panel, (x, y, panel_width, *high));
        }
        y += high + GAP;
    }
    let mut y = y - GAP + 10.0;
    for line in &legend {
        for (x, entry) in line {
            draw_entry(&mut svg, entry, (MARGIN + x, y), inner - x);
        }
        y += LEGEND * 1.3 * 1.25;
    }
    for line in &caption {
        y += CAPTION * 1.25;
        svg.text((MARGIN, y), line, Ink::new(CAPTION).colour(QUIET));
    }
    svg.finish()
}

const BADGE: &str = "SIMULATED";

fn stamp(svg: &mut Svg, right: f64, top: f64, badge: f64) {
    let colour = "#b3261e";
    svg.rect((right - badge + 8.0, top, badge - 8.0, 22.0), "#fff4f2", Some(colour));
    let ink = Ink::new(13.0).bold().colour(colour).anchor(Anchor::Middle);
    svg.text((right - (badge - 8.0) / 2.0, top + 15.8), BADGE, ink);
}

fn lines(count: usize, size: f64) -> f64 {
    count as f64 * size * 1.25
}

/// At most so many lines; the last one says that there were more.
fn shorten(lines: &mut Vec<String>, most: usize) {
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.push_str(" …");
        }
    }
}

/// The legend in lines: each entry with its place from the left. Columns are as wide as the widest entry.
fn flow(entries: &[Entry], room: f64) -> Vec<Vec<(f64, &Entry)>> {
    let widest = entries
        .iter()
        .map(|entry| SAMPLE + width(&crate::report::display::clean(&entry.label), LEGEND, Weight::Regular) + 24.0)
        .fold(0.0, f64::max);
    let columns = ((room / widest.max(1.0)).floor() as usize).clamp(1, entries.len().max(1));
    let wide = if columns == 1 { room } else { widest };
    entries
        .chunks(columns)
        .map(|line| line.iter().enumerate().map(|(i, entry)| (i as f64 * wide, entry)).collect())
        .collect()
}

fn draw_entry(svg: &mut Svg, entry: &Entry, (x, y): (f64, f64), room: f64) {
    let middle = y + LEGEND * 0.55;
    let (line, mark) = match entry.sample {
        Sampled::LineAndMark => (true, true),
        Sampled::Line => (true, false),
        Sampled::Mark => (false, true),
        Sampled::Field => {
            svg.rect((x + 4.0, middle - 5.0, SAMPLE - 12.0, 10.0), entry.look.colour, None);
            (false, false)
        }
    };
    if line {
        svg.line((x, middle), (x + SAMPLE - 6.0, middle), entry.look.colour, entry.look.width, entry.look.dash);
    }
    if mark {
        svg.mark((x + SAMPLE / 2.0 - 3.0, middle), 4.0, &entry.look);
    }
    let text = fit(&entry.label, LEGEND, Weight::Regular, room - SAMPLE);
    svg.text((x + SAMPLE, middle + LEGEND * 0.36), &text, Ink::new(LEGEND));
}

/// The height that a panel likes to have.
fn height(panel: &Panel, columns: usize, width: f64) -> f64 {
    let natural = if columns > 1 { BESIDE.1 } else { PANEL.1 };
    match &panel.body {
        Body::Xy(_) => natural,
        Body::Bars(bars) => bars::height(bars) + if panel.title.is_empty() { 0.0 } else { 20.0 },
        Body::Heat(heat) => heat::height(heat, width),
        Body::Empty(_) => 120.0,
    }
}

fn draw_panel(svg: &mut Svg, panel: &Panel, (x, mut y, width, mut height): Area) {
    if !panel.title.is_empty() {
        let text = fit(&panel.title, 13.0, Weight::Bold, width);
        svg.text((x, y + 11.0), &text, Ink::new(13.0).bold());
        (y, height) = (y + 20.0, height - 20.0);
    }
    if !panel.facts.is_empty() {
        let text = fit(&panel.facts, 11.5, Weight::Regular, width);
        svg.text((x, y + 8.0), &text, Ink::new(11.5).colour(QUIET));
        (y, height) = (y + 15.0, height - 15.0);
    }
    let area = (x, y, width, height);
    match &panel.body {
        Body::Xy(xy) => xy::draw(svg, xy, area),
        Body::Bars(bars) => bars::draw(svg, bars, area),
        Body::Heat(heat) => heat::draw(svg, heat, area),
        Body::Empty(why) => nothing(svg, why, area),
    }
}

fn nothing(svg: &mut Svg, why: &str, (x, y, width, height): Area) {
    svg.rect((x + 6.0, y + 4.0, width - 12.0, height - 12.0), "#f7f7f7", Some("#c8c8c8"));
    let text = wrap(&format!("Nothing to draw: {why}."), 12.0, Weight::Regular, width - 60.0);
    for (i, line) in text.iter().enumerate() {
        let at = (x + width / 2.0, y + height / 2.0 + i as f64 * 16.0);
        svg.text(at, line, Ink::new(12.0).colour(QUIET).anchor(Anchor::Middle));
    }
}

//! What a plot shows, before anything is drawn: plain data.

use super::look::Look;
use super::scale::{Scale, Tick};

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Under which model and load.
    pub subtitle: String,
    /// Its panels, in reading order.
    pub panels: Vec<Panel>,
    /// How many stand beside each other.
    pub columns: usize,
    /// What the looks mean.
    pub legend: Vec<Entry>,
    /// Run, n, meaning of intervals, what is left out: sentences.
    pub caption: Vec<String>,
    /// Whether any of its data come from the simulated vLLM.
    pub simulated: bool,
}

/// A line of the legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it stands for.
    pub label: String,
    /// Its look.
    pub look: Look,
    /// How it is drawn.
    pub sample: Sampled,
}

/// What the legend shows of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// A line with its mark.
    LineAndMark,
    /// A line alone.
    Line,
    /// A mark alone.
    Mark,
    /// A filled field.
    Field,
}

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows; empty where it is the only one.
    pub title: String,
    /// A few metrics below the title; may be empty.
    pub facts: String,
    /// Its content.
    pub body: Body,
}

/// The kinds of panels.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Two axes.
    Xy(Box<Xy>),
    /// Bars from left to right, one below the other.
    Bars(Bars),
    /// A field of colours.
    Heat(Heat),
    /// Nothing, and why.
    Empty(String),
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it counts, with its unit.
    pub label: String,
    /// Its scale.
    pub scale: Scale,
    /// Its ticks, where they are not the scale's own round values.
    pub ticks: Option<Vec<Tick>>,
}

/// A panel with two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Xy {
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// Lines and clouds, drawn in this order.
    pub series: Vec<Series>,
    /// Bars of a histogram.
    pub bins: Vec<Bin>,
    /// Boxes.
    pub boxes: Vec<BoxPlot>,
    /// Upright lines; the legend says what they are, as words beside close lines would cover each other and the data.
    pub verticals: Vec<Vertical>,
}

/// A point with what is known of its spread.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// From left to right.
    pub x: f64,
    /// From bottom to top.
    pub y: f64,
    /// Interval of `x`.
    pub x_range: Option<(f64, f64)>,
    /// Interval of `y`.
    pub y_range: Option<(f64, f64)>,
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its points.
    pub points: Vec<Point>,
    /// Its look.
    pub look: Look,
    /// How its points are joined.
    pub shape: Shape,
}

/// How points are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// By lines, with marks.
    Line,
    /// By lines, without marks.
    Bare,
    /// By steps that go up at each point.
    Steps,
    /// Not at all.
    Cloud,
    /// Not at all, small and pale marks.
    Dust,
    /// Not at all, large marks.
    Marks,
}

/// A bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// From.
    pub from: f64,
    /// To.
    pub to: f64,
    /// How many values.
    pub count: f64,
}

/// Quartiles, whiskers and mean of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxPlot {
    /// Its place.
    pub at: f64,
    /// Its width, as part of the room between two places.
    pub width: f64,
    /// Lower whisker, lower quartile, median, upper quartile, upper whisker.
    pub five: [f64; 5],
    /// Mean.
    pub mean: f64,
    /// Its look.
    pub look: Look,
}

/// An upright line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vertical {
    /// Where.
    pub at: f64,
    /// Its look.
    pub look: Look,
}

/// A panel of bars.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What their length counts, with its unit.
    pub label: String,
    /// The bars from top to bottom.
    pub rows: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its parts from left to right.
    pub parts: Vec<(f64, Look)>,
    /// Interval of its end.
    pub range: Option<(f64, f64)>,
    /// What is written at its end.
    pub value: String,
    /// What is written within it where there is room, light on dark: from where to where.
    pub within: Vec<(f64, f64, String)>,
}

/// A field of colours.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// What goes from left to right.
    pub x_label: String,
    /// What goes from top to bottom.
    pub y_label: String,
    /// The columns.
    pub xs: Vec<String>,
    /// The rows.
    pub ys: Vec<String>,
    /// Values, row by row; `None` where nothing was measured.
    pub cells: Vec<Vec<Option<f64>>>,
    /// What the colours count, with its unit.
    pub label: String,
    /// The place of the best cell, as row and column.
    pub best: Option<(usize, usize)>,
}

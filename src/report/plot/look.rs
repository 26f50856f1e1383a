//! Colours, markers and dashes: no two series differ by colour alone.

/// A mark at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Circle,
    /// A square.
    Square,
    /// A triangle on its base.
    Up,
    /// A diamond.
    Diamond,
    /// A triangle on its tip.
    Down,
    /// Two lines, upright.
    Plus,
    /// Two lines, slanted.
    Cross,
    /// A circle around something.
    Ring,
}

/// How a line is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dash {
    /// Not at all.
    Solid,
    /// Long strokes.
    Long,
    /// Points.
    Dots,
    /// Stroke and point.
    StrokeDot,
    /// Short strokes.
    Short,
    /// Stroke and two points.
    StrokeDots,
    /// Very long strokes.
    Wide,
}

impl Dash {
    /// The attribute of an SVG element.
    pub fn attribute(self) -> &'static str {
        match self {
            Dash::Solid => "",
            Dash::Long => " stroke-dasharray=\"8 3\"",
            Dash::Dots => " stroke-dasharray=\"2 3\"",
            Dash::StrokeDot => " stroke-dasharray=\"9 3 2 3\"",
            Dash::Short => " stroke-dasharray=\"4 3\"",
            Dash::StrokeDots => " stroke-dasharray=\"9 3 2 3 2 3\"",
            Dash::Wide => " stroke-dasharray=\"14 4\"",
        }
    }
}

/// What a series looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Its colour.
    pub colour: &'static str,
    /// Its marks.
    pub marker: Marker,
    /// Its line.
    pub dash: Dash,
    /// Width of its line.
    pub width: f64,
}

/// Series with a look of their own; further ones are grey.
pub const NAMED: usize = 7;

/// The colours of Okabe and Ito (2008), which people with any kind of colour vision tell apart, without yellow (too light on
/// white).
const LOOKS: [Look; NAMED] = [
    Look { colour: "#0072b2", marker: Marker::Circle, dash: Dash::Solid, width: 2.0 },
    Look { colour: "#d55e00", marker: Marker::Square, dash: Dash::Long, width: 2.0 },
    Look { colour: "#009e73", marker: Marker::Up, dash: Dash::Dots, width: 2.0 },
    Look { colour: "#a8518a", marker: Marker::Diamond, dash: Dash::StrokeDot, width: 2.0 },
    Look { colour: "#c68400", marker: Marker::Down, dash: Dash::Short, width: 2.0 },
    Look { colour: "#333333", marker: Marker::Plus, dash: Dash::StrokeDots, width: 2.0 },
    Look { colour: "#3d9bd6", marker: Marker::Cross, dash: Dash::Wide, width: 2.0 },
];

/// What is not named one by one.
pub const OTHERS: Look = Look { colour: "#b0b0b0", marker: Marker::Circle, dash: Dash::Solid, width: 1.0 };
/// What is marked.
pub const MARKED: Look = Look { colour: "#b3261e", marker: Marker::Ring, dash: Dash::Solid, width: 2.0 };

impl Look {
    /// The look of the n-th series.
    pub fn of(index: usize) -> Self {
        LOOKS.get(index).copied().unwrap_or(OTHERS)
    }

    /// The same with another line.
    pub fn dashed(self, dash: Dash) -> Self {
        Self { dash, ..self }
    }
}

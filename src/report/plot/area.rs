//! Where on a sheet something is drawn, and how large its ticks are written.

/// Part of the sheet: x, y, width, height.
pub type Area = (f64, f64, f64, f64);

/// Height of the letters at the axes.
pub const TICKS: f64 = 11.5;

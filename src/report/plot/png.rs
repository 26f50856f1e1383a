//! From SVG to PNG, with nothing but what is compiled in.

use resvg::{tiny_skia, usvg};

/// The largest side of a plot, in pixels.
pub const LARGEST: f64 = 20_000.0;

/// Draws an SVG whose letters are outlines, with `scale` pixels per CSS pixel (2 = 192 to the inch).
///
/// # Errors
/// In words, when the plot is too large for memory.
pub fn draw(svg: &str, scale: f64) -> Result<Vec<u8>, String> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default()).map_err(|error| error.to_string())?;
    let side = |length: f32| (f64::from(length) * scale).ceil().clamp(1.0, LARGEST) as u32;
    let (width, height) = (side(tree.size().width()), side(tree.size().height()));
    let mut sheet =
        tiny_skia::Pixmap::new(width, height).ok_or_else(|| format!("no memory for {width} x {height} pixels"))?;
    let transform = tiny_skia::Transform::from_scale(scale as f32, scale as f32);
    resvg::render(&tree, transform, &mut sheet.as_mut());
    sheet.encode_png().map_err(|error| error.to_string())
}

//! The configuration to use, why, and the command that starts it.

mod json;
mod text;

pub use json::Json;
pub(super) use json::json;
pub use text::Text;

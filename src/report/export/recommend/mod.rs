//! The configuration to use, why, and the command that starts it.

mod json;
mod text;

pub use json::Json;
pub(super) use json::json;
pub use text::Text;

use crate::analyse::Row;

/// The command that starts a configuration as it was measured.
fn command(row: &Row) -> String {
    crate::report::html::shell_line(&row.start_command())
}

//! Rows in, bytes out: what a run looks like as text, CSV and JSON.
//!
//! The same run directory gives the same bytes: no clock, no absolute path, nothing read back that was written here.
mod load;
pub use load::load_run;

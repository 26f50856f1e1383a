//! Children: spawned in groups of their own, watched by one wait loop, owned until proven empty.

mod identity;
pub mod procfs;

pub use identity::{ProcessId, boot_id};

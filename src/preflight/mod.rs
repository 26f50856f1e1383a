//! What an installed vLLM knows: its version, its flags, their choices, read off its own help texts.
//!
//! A flag that vLLM does not know fails each server half a minute after its launch; here it fails before anything is
//! started. Knows nothing of sweeps.

mod ask;
mod flag_spec;
pub mod ranges;
mod version;

pub use ask::{Error, Help, PATIENCE, Shell, ask};
pub use flag_spec::{Asked, FlagSpec, Kind, Known, Problem, Takes};
pub use version::{asker, installed_version};

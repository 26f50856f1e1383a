//! What the user asks for: flags over environment variables over a preset, resolved into [`Settings`] in which every
//! value is known and knows where it came from.
//!
//! The only module that reads the environment.

mod duration;
mod environment;
mod error;
mod layers;
mod secret;
mod settings;

pub use duration::parse_duration;
pub use environment::{Environment, is_executable};
pub use error::Error;
pub use layers::{Origin, Preset};
pub use secret::is_secret_name;
pub use settings::{PortChoice, Settings};

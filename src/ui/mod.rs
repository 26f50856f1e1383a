//! The only code that writes to a terminal. Everything passes through [`crate::safe`] on its way. stdout carries data, stderr carries talk.

mod display;
mod load;
mod printer;
mod reporter;
mod rows;

pub use display::{Display, Terminal};
pub use load::LoadScreen;
pub use printer::{Talk, Ui};
pub use reporter::Reporter;

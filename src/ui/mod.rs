//! The only code that writes to a terminal. stdout carries data, stderr carries talk.

mod display;
mod printer;

pub use display::{Display, Terminal};
pub use printer::Ui;

//! The only code that writes to a terminal. Everything passes through [`crate::safe`] on its way. stdout carries data, stderr carries talk.

mod block;
mod display;
mod live;
mod load;
mod printer;
mod reporter;
mod titles;

pub use display::{Display, Terminal};
pub use load::LoadScreen;
pub use printer::{Talk, Ui};
pub use reporter::Reporter;
pub use titles::{Titles, shared_by_all};

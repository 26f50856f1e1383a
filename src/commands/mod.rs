//! One file per subcommand: settings, then stages, then an exit code.

pub mod backup;
pub mod clean;
pub mod completions;
#[cfg(test)]
mod fixture;
pub mod locate;
pub mod logs;
pub mod status;
pub mod stop;
mod wording;

//! From the language to what the later stages work with.

pub mod axes;
pub mod slurm;
pub mod sweep;
pub mod words;

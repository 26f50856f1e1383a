//! Where a value came from, in the words with which a user can find it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A flag of the command line, without its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A place in a sweep file.
    File {
        /// As the user named it.
        path: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A line of a preset, or (`defaults`) of the run settings below all presets.
    Preset {
        /// Its name.
        name: String,
        /// From 1.
        line: usize,
    },
}

impl Origin {
    /// A flag.
    pub fn flag(name: &str) -> Self {
        Origin::Flag(name.to_owned())
    }

    /// Whether it stands in a sweep file or a preset, where a key path helps to find it.
    pub fn is_document(&self) -> bool {
        matches!(self, Origin::File { .. } | Origin::Preset { .. })
    }

    /// Whether nobody said it: it stands below all presets.
    pub fn is_default(&self) -> bool {
        matches!(self, Origin::Preset { name, .. } if name == super::DEFAULTS)
    }

    /// The origin as `config show` and the manifest say it: `flag --tp`, `sweep.yaml:12`, `preset full`, `default`.
    pub fn short(&self) -> String {
        match self {
            Origin::Flag(name) => format!("flag --{name}"),
            Origin::Variable(name) => format!("environment {name}"),
            Origin::File { path, line, .. } => format!("{path}:{line}"),
            Origin::Preset { .. } if self.is_default() => "default".to_owned(),
            Origin::Preset { name, .. } => format!("preset {name}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "`--{name}`"),
            Origin::Variable(name) => write!(f, "the environment variable `{name}`"),
            Origin::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Origin::Preset { name, line } => write!(f, "line {line} of the preset `{name}`"),
        }
    }
}

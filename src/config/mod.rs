//! What the user asks for: flags over environment variables over sweep files over a preset, resolved into [`Settings`] in
//! which every value is known and knows where it came from.
//!
//! The only module that reads the environment.

mod assemble;
mod duration;
mod env_file;
mod environment;
mod error;
pub mod foreign;
mod handover;
mod how_to_run;
mod kept;
pub mod language;
mod layers;
pub mod load;
mod loadgen;
mod origin;
mod places;
mod prices;
mod resolve;
mod scenarios;
mod settings;
mod show;
mod simulation;
pub mod tree;
mod vllm_flags;

pub use crate::safe::is_secret_name;
pub use duration::parse_duration;
pub use environment::{Environment, is_executable};
pub use error::Error;
pub use handover::safe_words;
pub use how_to_run::{Finalists, Parallel, Place, PortChoice, Pushed};
pub use kept::Kept;
pub use layers::setting_keys;
pub use loadgen::{
    LoadLayers, LoadSettings, Point, PromptSettings, TokenizerChoice, resolve_prompts, spread, whole_numbers,
};
pub use origin::Origin;
pub use places::Places;
pub use prices::{PriceFile, read_prices};
pub use scenarios::{Scenario, Scenarios, read_scenarios};
pub use settings::Settings;
pub use show::{show, show_load};

/// Secrets are shown as this.
const HIDDEN: &str = crate::safe::REDACTED;

/// Whether a variable of a sweep is a secret: by its name, or by a value that has one in it.
pub(crate) fn is_secret_entry(name: &str, node: &tree::Node) -> bool {
    // What a manifest keeps of one is this.
    let holds =
        |text: &str| text == HIDDEN || crate::safe::is_secret_variable(name, text) || crate::safe::holds_secret(text);
    let secret = |node: &tree::Node| node.scalar().is_some_and(|text| holds(&text));
    is_secret_name(name) || secret(node) || node.items().is_some_and(|items| items.iter().any(secret))
}

/// The name of the run settings below all presets.
pub const DEFAULTS: &str = "defaults";

/// The base presets; compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// `vllm-bench run` without files.
    Full,
    /// `vllm-bench sanity`.
    Sanity,
    /// Nothing but run settings.
    None,
}

impl Preset {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Full => "full",
            Preset::Sanity => "sanity",
            Preset::None => "none",
        }
    }
}

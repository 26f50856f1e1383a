//! Command-line flags of vLLM, in the order in which they are written.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// One flag's value: a bare switch (`--enforce-eager`) or a text (`--dtype bfloat16`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlagValue {
    /// A bare switch; written as `true` in JSON.
    Switch(True),
    /// A value, exactly as vLLM will receive it.
    Text(String),
    /// Several values after one flag (`--cudagraph-capture-sizes 1 2 4`).
    List(Vec<String>),
}

/// The JSON literal `true`: a switch that is off is simply absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;
    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Ok(True) } else { Err("a switch that is off must be left out") }
    }
}

impl From<True> for bool {
    fn from(_: True) -> bool {
        true
    }
}

impl FlagValue {
    /// A bare switch.
    pub const SWITCH: FlagValue = FlagValue::Switch(True);

    /// The values after the flag; a switch has none.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let words = match self {
            FlagValue::Switch(_) => &[],
            FlagValue::Text(text) => std::slice::from_ref(text),
            FlagValue::List(words) => words.as_slice(),
        };
        words.iter().map(String::as_str)
    }
}

/// Why a `--serve-arg` or `--bench-arg` could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Nothing before the equals sign.
    #[error("`{0}` names no flag")]
    Empty(String),
    /// A character that no flag of vLLM has.
    #[error("`{0}` is not the name of a flag: letters, digits, `-`, `_` and `.` are")]
    Name(String),
    /// A control character (newline, NUL …) in the value.
    #[error("the value of `{0}` holds a control character")]
    Control(String),
}

/// Flags of one command. Names are vLLM's long names without the leading dashes, with dashes between words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(IndexMap<String, FlagValue>);

impl Flags {
    /// No flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a bare switch; `no-x` and `x` replace each other, because the last one given is meant.
    pub fn switch(&mut self, name: &str) -> &mut Self {
        self.set(name, FlagValue::SWITCH)
    }

    /// Sets a flag with a value.
    pub fn text(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.set(name, FlagValue::Text(value.to_string()))
    }

    /// Sets a flag, keeping the place of one that is already there.
    pub fn set(&mut self, name: &str, value: FlagValue) -> &mut Self {
        let name = normalize(name);
        let opposite = name.strip_prefix("no-").map_or_else(|| format!("no-{name}"), str::to_owned);
        self.0.shift_remove(&opposite);
        self.0.insert(name, value);
        self
    }

    /// Drops a flag. Returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.shift_remove(&normalize(name)).is_some()
    }

    /// The value of a flag; `None` where it is not given.
    pub fn get(&self, name: &str) -> Option<&FlagValue> {
        self.0.get(&normalize(name))
    }

    /// The text of a flag; `None` where it is absent or a switch.
    pub fn get_text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(FlagValue::Text(text)) => Some(text),
            Some(FlagValue::Switch(_) | FlagValue::List(_)) | None => None,
        }
    }

    /// Whether a flag is given.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The flags in the order of the command line.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FlagValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The command-line arguments: `--flag`, or `--flag=value` where the value begins with a dash (argparse would
    /// read it as another flag), else `--flag value`.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        for (name, value) in &self.0 {
            match value {
                FlagValue::Switch(_) => args.push(format!("--{name}")),
                FlagValue::Text(text) if text.starts_with('-') || text.is_empty() => {
                    args.push(format!("--{name}={text}"));
                }
                FlagValue::Text(text) => args.extend([format!("--{name}"), text.clone()]),
                FlagValue::List(words) => {
                    args.push(format!("--{name}"));
                    args.extend(words.iter().cloned());
                }
            }
        }
        args
    }

    /// Reads what a user wrote after `--serve-arg=`: `max-num-seqs=256`, `--max_num_seqs=256`, `enforce-eager`.
    ///
    /// # Errors
    /// When no flag is named, or a name or value holds characters that no command line should.
    pub fn parse_arg(text: &str) -> Result<(String, FlagValue), FlagError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, FlagValue::Text(value.to_owned())),
            None => match text.trim().split_once(char::is_whitespace) {
                Some((name, value)) => (name, FlagValue::Text(value.trim().to_owned())),
                None => (text, FlagValue::SWITCH),
            },
        };
        let name = normalize(name.trim());
        if name.is_empty() {
            return Err(FlagError::Empty(text.to_owned()));
        }
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(FlagError::Name(name));
        }
        if let FlagValue::Text(value) = &value
            && value.chars().any(char::is_control)
        {
            return Err(FlagError::Control(name));
        }
        Ok((name, value))
    }
}

impl FromIterator<(String, FlagValue)> for Flags {
    fn from_iter<T: IntoIterator<Item = (String, FlagValue)>>(iter: T) -> Self {
        let mut flags = Flags::new();
        for (name, value) in iter {
            flags.set(&name, value);
        }
        flags
    }
}

/// vLLM's long name of a flag: no leading dashes, dashes for underscores, the short names spelled out.
pub fn normalize(name: &str) -> String {
    let name = name.trim_start_matches('-').replace('_', "-");
    match name.as_str() {
        "tp" => "tensor-parallel-size".to_owned(),
        "pp" => "pipeline-parallel-size".to_owned(),
        "dp" => "data-parallel-size".to_owned(),
        "q" => "quantization".to_owned(),
        "gpu-memory-util" => "gpu-memory-utilization".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_every_spelling() {
        for text in ["max-num-seqs=256", "--max_num_seqs=256", "--max-num-seqs 256"] {
            assert_eq!(Flags::parse_arg(text), Ok(("max-num-seqs".into(), FlagValue::Text("256".into()))), "{text}");
        }
        assert_eq!(Flags::parse_arg("enforce-eager"), Ok(("enforce-eager".into(), FlagValue::SWITCH)));
        assert_eq!(
            Flags::parse_arg("speculative-config={\"method\": \"ngram\"}").map(|f| f.1),
            Ok(FlagValue::Text("{\"method\": \"ngram\"}".into()))
        );
    }

    #[test]
    fn bad_arguments_are_refused() {
        assert!(matches!(Flags::parse_arg("=3"), Err(FlagError::Empty(_))));
        assert!(matches!(Flags::parse_arg("a$(b)=3"), Err(FlagError::Name(_))));
        assert!(matches!(Flags::parse_arg("a=3\n4"), Err(FlagError::Control(_))));
    }

    #[test]
    fn a_switch_and_its_negation_replace_each_other() {
        let mut flags = Flags::new();
        flags.switch("no-enable-prefix-caching").switch("enable-prefix-caching");
        assert_eq!(flags.to_args(), ["--enable-prefix-caching"]);
    }

    #[test]
    fn a_value_that_looks_like_a_flag_stays_a_value() {
        let mut flags = Flags::new();
        flags.text("seed", -1).text("dtype", "bfloat16");
        assert_eq!(flags.to_args(), ["--seed=-1", "--dtype", "bfloat16"]);
    }
}

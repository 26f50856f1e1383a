//! The part of Python's argparse (as vLLM extends it) that its command line shows: underscores for dashes, `--flag=value`,
//! unambiguous prefixes, `--no-flag`, and its error messages.

use indexmap::IndexMap;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number.
    Int,
    /// A whole number; `8k` and `8K` are allowed.
    HumanInt,
    /// A number.
    Float,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// One or more texts.
    Many,
    /// `--flag` or `--no-flag`.
    Bool,
    /// `--flag`.
    Switch,
}

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name without dashes.
    pub name: &'static str,
    /// Short spelling with its dash, such as `-tp`, or empty.
    pub short: &'static str,
    /// What it takes.
    pub kind: Kind,
}

/// One command: what its usage line and its errors say.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Name in errors, such as `vllm serve`.
    pub program: &'static str,
    /// The usage line without `usage: `.
    pub usage: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
    /// How many words without a dash it takes at most.
    pub positionals: usize,
}

/// What argparse prints when it exits with code 2 (or help, code 0).
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The text for stderr (help: stdout).
    pub text: String,
    /// It is help that was asked for.
    pub help: bool,
}

/// The flags that were given, in order, by long name; booleans are `True` or `False`.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    values: IndexMap<&'static str, Vec<String>>,
    /// Words without a dash.
    pub positionals: Vec<String>,
}

impl Parsed {
    /// The value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// All values of a flag.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// A number that the parser has checked, or a default.
    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// Is a boolean on?
    pub fn on(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, |text| text == "True")
    }

    /// Flags and values in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.values.iter().map(|(name, values)| (*name, values.as_slice()))
    }
}

const MAIN_USAGE: &str = "usage: vllm [-h] [-v] {chat,complete,serve,bench,collect-env,run-batch} ...";

/// The refusal of the top-level parser, which is the one that reports what no subcommand knows.
pub fn main_refusal(message: &str) -> Refusal {
    Refusal { text: format!("{MAIN_USAGE}\nvllm: error: {message}\n"), help: false }
}

impl Command {
    fn refuse(&self, message: &str) -> Refusal {
        Refusal { text: format!("usage: {}\n{}: error: {message}\n", self.usage, self.program), help: false }
    }

    fn spelling(flag: &Flag) -> String {
        let mut text = format!("--{}", flag.name);
        if flag.kind == Kind::Bool {
            text.push_str(&format!(", --no-{}", flag.name).replace(", ", "/"));
        }
        if !flag.short.is_empty() {
            text.push('/');
            text.push_str(flag.short);
        }
        text
    }

    /// Parses the words after the subcommand.
    pub fn parse(&self, words: &[String]) -> Result<Parsed, Refusal> {
        let (mut parsed, mut unknown) = (Parsed::default(), Vec::new());
        let mut rest = words.iter().peekable();
        while let Some(word) = rest.next() {
            if word == "--help" || word == "-h" {
                return Err(Refusal { text: self.help(), help: true });
            }
            if !is_flag(word) {
                if parsed.positionals.len() < self.positionals {
                    parsed.positionals.push(word.clone());
                } else {
                    unknown.push(word.clone());
                }
                continue;
            }
            let (key, inline) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value.to_string())),
                None => (word.as_str(), None),
            };
            let Some((flag, negated)) = self.find(key)? else {
                unknown.push(word.clone());
                continue;
            };
            let mut values = Vec::new();
            match flag.kind {
                Kind::Bool | Kind::Switch => {
                    if let Some(value) = inline {
                        let message = format!("argument {}: ignored explicit argument '{value}'", Self::spelling(flag));
                        return Err(self.refuse(&message));
                    }
                    values.push(if negated { "False" } else { "True" }.to_string());
                }
                Kind::Many => {
                    values.extend(inline);
                    while let Some(next) = rest.next_if(|next| !is_flag(next)) {
                        values.push(next.clone());
                    }
                }
                _ => values.extend(inline.or_else(|| rest.next_if(|next| !is_flag(next)).cloned())),
            }
            parsed.values.insert(flag.name, self.check(flag, values)?);
        }
        if unknown.is_empty() { Ok(parsed) } else { Err(main_refusal(&unrecognized(&unknown))) }
    }

    fn help(&self) -> String {
        let mut text = format!(
            "usage: {}\n\nSIMULATED by vllm-bench: the flags of vLLM that the simulation knows.\n\noptions:\n",
            self.usage
        );
        for flag in self.flags {
            text.push_str(&format!("  {}\n", Self::spelling(flag)));
        }
        text
    }

    /// The flag behind a spelling and whether it is its `--no-` form: exact first, then the only one with that prefix.
    fn find(&self, key: &str) -> Result<Option<(&'static Flag, bool)>, Refusal> {
        let flags = self.flags;
        if let Some(flag) = flags.iter().find(|flag| !flag.short.is_empty() && flag.short == key) {
            return Ok(Some((flag, false)));
        }
        let Some(name) = key.strip_prefix("--").map(|name| name.replace('_', "-")) else { return Ok(None) };
        let spellings = || {
            flags.iter().flat_map(|flag| {
                let negative = (flag.kind == Kind::Bool).then(|| (format!("no-{}", flag.name), flag, true));
                std::iter::once((flag.name.to_string(), flag, false)).chain(negative)
            })
        };
        if let Some((_, flag, negated)) = spellings().find(|(spelling, ..)| *spelling == name) {
            return Ok(Some((flag, negated)));
        }
        let near: Vec<_> = spellings().filter(|(spelling, ..)| spelling.starts_with(&name)).collect();
        match near.as_slice() {
            [] => Ok(None),
            [(_, flag, negated)] => Ok(Some((flag, *negated))),
            many => {
                let names: Vec<String> = many.iter().map(|(spelling, ..)| format!("--{spelling}")).collect();
                Err(self.refuse(&format!("ambiguous option: --{name} could match {}", names.join(", "))))
            }
        }
    }

    fn check(&self, flag: &Flag, mut values: Vec<String>) -> Result<Vec<String>, Refusal> {
        let refuse = |what: &str| Err(self.refuse(&format!("argument {}: {what}", Self::spelling(flag))));
        let Some(value) = values.last_mut() else {
            return refuse(if flag.kind == Kind::Many {
                "expected at least one argument"
            } else {
                "expected one argument"
            });
        };
        match flag.kind {
            Kind::Int if value.parse::<i64>().is_err() => refuse(&format!("invalid int value: '{value}'")),
            Kind::Float if value.parse::<f64>().is_err() => refuse(&format!("invalid float value: '{value}'")),
            Kind::HumanInt => match human(value) {
                Some(number) => {
                    *value = number.to_string();
                    Ok(values)
                }
                None => refuse(&format!("invalid human_readable_int value: '{value}'")),
            },
            Kind::Choice(words) if !words.contains(&value.as_str()) => {
                let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
                refuse(&format!("invalid choice: '{value}' (choose from {})", words.join(", ")))
            }
            _ => Ok(values),
        }
    }
}

/// argparse's message for words that no parser knows.
pub fn unrecognized(words: &[String]) -> String {
    format!("unrecognized arguments: {}", words.join(" "))
}

fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && word.parse::<f64>().is_err()
}

fn human(text: &str) -> Option<u64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (number, unit) = text.split_at(text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?);
    let factor: f64 = match unit {
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "K" => 1024.0,
        "M" => 1024.0 * 1024.0,
        "G" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number >= 0.0).then_some((number * factor) as u64)
}

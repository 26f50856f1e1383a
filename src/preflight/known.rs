//! Flags, as argparse prints them under `--help`, and whether a command line would be taken.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::nearest::nearest;

/// What may stand after a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takes {
    /// Nothing: a bare switch.
    Nothing,
    /// Nothing, and there is `--no-…` too.
    OnOff,
    /// One value.
    One,
    /// Several values.
    Many,
}

/// One flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagSpec {
    /// Its long names without dashes in front; the first is the one that help texts lead with.
    pub names: Vec<String>,
    /// What may stand after it.
    pub takes: Takes,
    /// Whether its value may be left out (`--x [X]`, `--x [X ...]`).
    #[serde(default)]
    pub optional: bool,
    /// The values it takes; empty = any.
    pub choices: Vec<String>,
}

/// Every flag of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// In the order of the help text.
    pub flags: Vec<FlagSpec>,
}

/// A flag as a sweep would write it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Without dashes in front.
    pub flag: &'a str,
    /// What stands after it; nothing for a switch.
    pub values: &'a [String],
}

/// Why vLLM would refuse a flag, or what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No such flag.
    Unknown {
        /// The one that was most likely meant.
        nearest: Option<String>,
    },
    /// `--no-x`, where there is only `--x`.
    NoOpposite {
        /// `x`.
        flag: String,
    },
    /// A switch was asked for, a value is needed.
    NeedsValue,
    /// A value was given to a switch.
    TakesNoValue,
    /// Several values, one is taken.
    OneValue,
    /// None of the values that the flag takes.
    WrongChoice {
        /// As asked for.
        value: String,
        /// What it takes.
        choices: Vec<String>,
        /// The one that was most likely meant.
        nearest: Option<String>,
    },
    /// The beginning of several flags.
    Ambiguous {
        /// Which.
        candidates: Vec<String>,
    },
    /// The beginning of one flag: argparse takes it.
    Abbreviated {
        /// The whole name.
        full: String,
    },
}

impl Problem {
    /// Whether vLLM takes it all the same.
    pub fn is_warning(&self) -> bool {
        matches!(self, Problem::Abbreviated { .. })
    }
}

/// A phrase that follows the flag's name.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unknown { nearest: Some(nearest) } => write!(f, "is not known; there is `--{nearest}`"),
            Problem::Unknown { nearest: None } => f.write_str("is not known"),
            Problem::NoOpposite { flag } => {
                write!(f, "is not known: `--{flag}` has no opposite, so write `none` to leave it out")
            }
            Problem::NeedsValue => f.write_str("needs a value"),
            Problem::TakesNoValue => f.write_str("takes no value: write `true`, or `none` to leave it out"),
            Problem::OneValue => f.write_str("takes one value, not several"),
            Problem::WrongChoice { value, choices, nearest } => {
                write!(f, "does not take `{value}`")?;
                if let Some(nearest) = nearest {
                    write!(f, "; most likely `{nearest}` is meant")?;
                }
                write!(f, " (it takes {})", choices.join(", "))
            }
            Problem::Ambiguous { candidates } => {
                let candidates: Vec<String> = candidates.iter().map(|name| format!("`--{name}`")).collect();
                write!(f, "is the beginning of several flags: {}", candidates.join(", "))
            }
            Problem::Abbreviated { full } => write!(f, "is short for `--{full}`: write it out"),
        }
    }
}

impl Known {
    /// Those of a command of this program.
    pub fn of_command(command: &clap::Command) -> Self {
        let flags = command.get_arguments().filter_map(|arg| {
            let mut names = vec![arg.get_long()?.to_owned()];
            names.extend(arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
            let takes = match (arg.get_action(), arg.get_num_args()) {
                (clap::ArgAction::SetTrue, _) => Takes::Nothing,
                (_, Some(range)) if range.max_values() > 1 => Takes::Many,
                _ => Takes::One,
            };
            let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
            Some(FlagSpec { names, takes, optional, choices: Vec::new() })
        });
        Self { flags: flags.collect() }
    }

    /// Reads a help text; `None` where it lists no flag.
    pub fn parse(help: &str) -> Option<Self> {
        let mut flags = Vec::new();
        let mut lines = help.lines();
        while let Some(line) = lines.next() {
            let Some(first) = line.strip_prefix("  ").filter(|rest| rest.starts_with('-')) else { continue };
            flags.extend(parse_head(&whole_head(first, &mut lines)));
        }
        (!flags.is_empty()).then_some(Self { flags })
    }

    /// What is wrong with a flag; `None` where vLLM takes it.
    pub fn check(&self, asked: &Asked<'_>) -> Option<Problem> {
        let name = asked.flag.replace('_', "-");
        if let Some(flag) = self.find(&name) {
            return check_values(flag, asked.values);
        }
        // `--compilation-config.level 3`: a key within a flag whose value is JSON.
        if let Some((head, _)) = name.split_once('.')
            && self.find(head).is_some_and(|flag| matches!(flag.takes, Takes::One | Takes::Many))
        {
            return None;
        }
        let positive = name.strip_prefix("no-").and_then(|positive| self.find(positive));
        if let Some(flag) = positive {
            return Some(Problem::NoOpposite { flag: flag.names.first().cloned().unwrap_or_default() });
        }
        let names = || self.flags.iter().flat_map(|flag| &flag.names).map(String::as_str);
        let candidates: Vec<&str> = names().filter(|known| known.starts_with(&name)).collect();
        match candidates.as_slice() {
            [] => Some(Problem::Unknown { nearest: nearest(&name, names()).map(str::to_owned) }),
            [one] => {
                let values = self.find(one).and_then(|flag| check_values(flag, asked.values));
                values.or_else(|| Some(Problem::Abbreviated { full: (*one).to_owned() }))
            }
            several => Some(Problem::Ambiguous { candidates: several.iter().map(|name| (*name).to_owned()).collect() }),
        }
    }

    fn find(&self, name: &str) -> Option<&FlagSpec> {
        self.flags.iter().find(|flag| flag.names.iter().any(|known| known == name))
    }
}

fn check_values(flag: &FlagSpec, values: &[String]) -> Option<Problem> {
    match (flag.takes, values.len()) {
        (Takes::Nothing | Takes::OnOff, 0) => return None,
        (Takes::Nothing | Takes::OnOff, _) => return Some(Problem::TakesNoValue),
        (Takes::One | Takes::Many, 0) if flag.optional => return None,
        (Takes::One | Takes::Many, 0) => return Some(Problem::NeedsValue),
        (Takes::One, 2..) => return Some(Problem::OneValue),
        (Takes::One, 1) | (Takes::Many, _) => {}
    }
    let wrong = values.iter().find(|value| !flag.choices.is_empty() && !flag.choices.contains(value))?;
    Some(Problem::WrongChoice {
        value: wrong.clone(),
        choices: flag.choices.clone(),
        // One number is not meant for another because they share a digit.
        nearest: Some(wrong)
            .filter(|wrong| wrong.parse::<f64>().is_err())
            .and_then(|wrong| nearest(wrong, flag.choices.iter().map(String::as_str)))
            .map(str::to_owned),
    })
}

/// A head whose list of choices goes on in the next lines, as one line. No more than a list is followed: where its end does
/// not come, the head stays as it began.
fn whole_head(first: &str, lines: &mut std::str::Lines<'_>) -> String {
    let open = |head: &str| {
        let head = head.split("  ").next().unwrap_or(head);
        head.contains('{') && head.matches('{').count() > head.matches('}').count()
    };
    let mut head = first.to_owned();
    let mut ahead = lines.clone();
    while open(&head) {
        let more = ahead.next().map(str::trim).filter(|more| !more.is_empty() && !more.starts_with('-'));
        let Some(more) = more else { return first.to_owned() };
        head.push_str(more);
    }
    if head.len() > first.len() {
        *lines = ahead;
    }
    head
}

/// One head of argparse: `--x X, -s X`, `--x, --no-x`, `--x {a,b}`, `--x X [X ...]`, then two spaces and the help.
fn parse_head(line: &str) -> Option<FlagSpec> {
    let head = line.split("  ").next().unwrap_or(line);
    let mut names = Vec::new();
    let mut takes = Takes::Nothing;
    let mut choices = Vec::new();
    let mut optional = false;
    let mut rest = head;
    while rest.starts_with('-') {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if let Some(long) = name.strip_prefix("--").filter(|long| !long.is_empty()) {
            names.push(long.replace('_', "-"));
        }
        let (value, next) = match after.strip_prefix(' ') {
            Some(value) => split_value(value),
            None => ("", after),
        };
        if !value.is_empty() {
            takes = if value.contains("...") { Takes::Many } else { Takes::One };
            optional = value.starts_with('[');
            choices = choices_of(value);
        }
        rest = next.trim_start_matches([',', ' ']);
    }
    let opposite = |name: &String| names.contains(&format!("no-{name}"));
    if takes == Takes::Nothing && names.iter().any(opposite) {
        takes = Takes::OnOff;
    }
    (!names.is_empty()).then_some(FlagSpec { names, takes, optional, choices })
}

/// The value's placeholder, up to the comma before the next name: commas within braces belong to it.
fn split_value(text: &str) -> (&str, &str) {
    let mut depth = 0i32;
    for (i, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth <= 0 => return text.split_at(i),
            _ => {}
        }
    }
    (text, "")
}

/// The choices of `{a,b}` and of `{a,b} [{a,b} ...]`; none for `{a,b} or name registered in --tool-parser-plugin`, whose list
/// is not the whole of it.
fn choices_of(value: &str) -> Vec<String> {
    let inside = value.trim_start_matches('[').strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let closed = inside.filter(|(_, after)| after.is_empty() || after.starts_with([' ', ']']) && after.contains("..."));
    closed.map(|(list, _)| list.split(',').map(|choice| choice.trim().to_owned()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVE: &str = include_str!("fixtures/serve-0.14.1.txt");
    const BENCH: &str = include_str!("fixtures/bench-0.14.1.txt");

    fn check(known: &Known, flag: &str, values: &[&str]) -> Option<String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        known.check(&Asked { flag, values: &values }).map(|problem| problem.to_string())
    }

    #[test]
    fn every_flag_of_the_real_help_texts_is_read() {
        for text in [SERVE, BENCH] {
            let heads = text.lines().filter(|line| line.starts_with("  -")).count();
            assert_eq!(Known::parse(text).unwrap().flags.len(), heads);
        }
        assert_eq!(Known::parse("usage: vllm\n"), None);
    }

    #[test]
    fn kinds_of_flags_are_told_apart() {
        let (serve, bench) = (Known::parse(SERVE).unwrap(), Known::parse(BENCH).unwrap());
        let takes = |known: &Known, name: &str| known.find(name).map(|flag| flag.takes);
        assert_eq!(takes(&serve, "enforce-eager"), Some(Takes::OnOff));
        assert_eq!(takes(&serve, "no-enforce-eager"), Some(Takes::OnOff));
        assert_eq!(takes(&serve, "cudagraph-capture-sizes"), Some(Takes::Many));
        assert_eq!(takes(&serve, "tensor-parallel-size"), Some(Takes::One));
        assert_eq!(takes(&serve, "headless"), Some(Takes::Nothing));
        assert_eq!(takes(&bench, "ignore-eos"), Some(Takes::Nothing));
        assert_eq!(takes(&bench, "header"), Some(Takes::Many));
        assert!(serve.find("kv-cache-dtype").unwrap().choices.contains(&"fp8_e4m3".to_owned()));
    }

    #[test]
    fn what_vllm_would_refuse_is_named_with_the_next_step() {
        let (serve, bench) = (Known::parse(SERVE).unwrap(), Known::parse(BENCH).unwrap());
        assert_eq!(check(&serve, "max-num-seqs", &["8"]), None);
        assert_eq!(check(&serve, "max_num_seqs", &["8"]), None);
        assert_eq!(check(&serve, "compilation-config.level", &["3"]), None);
        assert_eq!(check(&serve, "max-num-seq", &["8"]).unwrap(), "is short for `--max-num-seqs`: write it out");
        assert_eq!(check(&serve, "max-nun-seqs", &["8"]).unwrap(), "is not known; there is `--max-num-seqs`");
        assert_eq!(check(&serve, "max-num-seqs", &[]).unwrap(), "needs a value");
        assert_eq!(check(&serve, "max-num-seqs", &["1", "2"]).unwrap(), "takes one value, not several");
        assert_eq!(
            check(&bench, "ignore-eos", &["8"]).unwrap(),
            "takes no value: write `true`, or `none` to leave it out"
        );
        assert_eq!(
            check(&serve, "no-headless", &[]).unwrap(),
            "is not known: `--headless` has no opposite, so write `none` to leave it out"
        );
        let wrong = check(&serve, "kv-cache-dtype", &["fp8_e4m4"]).unwrap();
        assert!(
            wrong.starts_with("does not take `fp8_e4m4`; most likely `fp8_e4m3` is meant (it takes auto, "),
            "{wrong}"
        );
        assert!(check(&serve, "max-num", &["8"]).unwrap().contains("several flags"));
    }

    #[test]
    fn what_vllm_takes_is_not_refused() {
        let (serve, bench) = (Known::parse(SERVE).unwrap(), Known::parse(BENCH).unwrap());
        // Its help reads `{…} or name registered in --tool-parser-plugin`.
        assert_eq!(check(&serve, "tool-call-parser", &["of_a_plugin"]), None);
        assert_eq!(check(&serve, "hf-token", &[]), None);
        assert_eq!(check(&bench, "header", &[]), None);
        assert_eq!(check(&bench, "goodput", &[]).unwrap(), "needs a value");
        assert!(check(&serve, "collect-detailed-traces", &["modle"]).unwrap().contains("`model` is meant"));
    }

    #[test]
    fn a_list_of_choices_may_wrap() {
        let known = Known::parse("  --x {a,b,\n      c}  text {\n  --y Y  text\n").unwrap();
        assert_eq!(known.find("x").unwrap().choices, ["a", "b", "c"]);
        assert_eq!(known.flags.len(), 2);
        let unclosed = Known::parse("  --x {a,b\n  --y Y  text\n").unwrap();
        assert_eq!(unclosed.flags.len(), 2);
    }
}

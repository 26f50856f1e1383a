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
    /// What its value must be, where the help text tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A number: its default is one, or it counts something.
    Number,
    /// A JSON document.
    Json,
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
    /// No number where one is wanted.
    NoNumber {
        /// As asked for.
        value: String,
    },
    /// A number that is too small or too large.
    OutOfRange {
        /// As asked for.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// No JSON where it is wanted.
    NoJson {
        /// As asked for.
        value: String,
        /// What is wrong with it.
        error: String,
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
            Problem::NoNumber { value } => write!(f, "takes a number, not `{value}`"),
            Problem::OutOfRange { value, expected } => write!(f, "takes a number {expected}, not `{value}`"),
            Problem::NoJson { value, error } => write!(f, "takes JSON, and `{value}` is none ({error})"),
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
            let values = arg.get_possible_values();
            let choices = values.iter().flat_map(|value| value.get_name_and_aliases()).map(str::to_owned);
            let choices = if takes == Takes::Nothing { Vec::new() } else { choices.collect() };
            Some(FlagSpec { names, takes, optional, choices, kind: None })
        });
        Self { flags: flags.collect() }
    }

    /// Reads a help text; `None` where it lists no flag.
    pub fn parse(help: &str) -> Option<Self> {
        let mut flags = Vec::new();
        let mut lines = help.lines();
        while let Some(line) = lines.next() {
            let Some(first) = line.strip_prefix("  ").filter(|rest| rest.starts_with('-')) else { continue };
            let head = whole_head(first, &mut lines);
            let Some(mut flag) = parse_head(&head) else { continue };
            let mut text = head.split_once("  ").map_or(String::new(), |(_, text)| text.trim().to_owned());
            for more in lines.clone().take_while(|more| more.starts_with("     ")) {
                text.push(' ');
                text.push_str(more.trim());
            }
            flag.kind =
                Some(&flag).filter(|flag| flag.choices.is_empty()).and_then(|flag| kind_of(flag.takes, text.trim()));
            flags.push(flag);
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

    /// Whether there is a flag of this name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
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
    if let Some(problem) = flag.kind.and_then(|kind| values.iter().find_map(|value| wrong_kind(kind, value))) {
        return Some(problem);
    }
    let wrong = values.iter().find(|value| !flag.choices.is_empty() && !is_choice(value, &flag.choices))?;
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

/// argparse reads a number before it looks whether it is one of the choices: `016` and `16` are the same.
fn is_choice(value: &str, choices: &[String]) -> bool {
    let number = |text: &str| text.trim().replace('_', "").parse::<i64>().ok();
    choices.iter().any(|choice| choice == value || number(choice).is_some_and(|choice| number(value) == Some(choice)))
}

/// What the text of a flag tells of its value.
fn kind_of(takes: Takes, text: &str) -> Option<Kind> {
    const COUNTS: [&str; 6] = [
        "Number of ",
        "The number of ",
        "Maximum number of ",
        "The maximum number of ",
        "Max number of ",
        "Minimum number of ",
    ];
    if !matches!(takes, Takes::One | Takes::Many) {
        return None;
    }
    if text.contains("valid JSON string") || text.starts_with("A JSON string") {
        return Some(Kind::Json);
    }
    let default = text.rsplit_once("(default: ").and_then(|(_, rest)| rest.strip_suffix(')'));
    let counts = COUNTS.iter().any(|words| text.starts_with(words));
    (counts || default.is_some_and(|default| default.parse::<f64>().is_ok())).then_some(Kind::Number)
}

/// What is certainly no value of this kind. Words that vLLM has for numbers (`auto`, `none`, `inf`, `1k`), lists of numbers
/// and JSON pass: vLLM itself decides.
fn wrong_kind(kind: Kind, value: &str) -> Option<Problem> {
    match kind {
        Kind::Json => {
            let error = serde_json::from_str::<serde_json::Value>(value).err()?;
            // vLLM takes some words, too; what begins like JSON was meant to be it.
            value
                .trim_start()
                .starts_with(['{', '[', '"'])
                .then(|| Problem::NoJson { value: value.to_owned(), error: error.to_string() })
        }
        Kind::Number => {
            let word = value.trim().to_ascii_lowercase();
            let number = |part: &str| {
                let digits = part.trim().trim_end_matches(['k', 'm', 'g', 't']).replace('_', "");
                digits.parse::<f64>().is_ok()
            };
            let passes = ["auto", "none", "default"].contains(&word.as_str())
                || word.starts_with(['{', '['])
                || word.split(',').all(number);
            (!passes).then(|| Problem::NoNumber { value: value.to_owned() })
        }
    }
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
    (!names.is_empty()).then_some(FlagSpec { names, takes, optional, choices, kind: None })
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
    use crate::preflight::Help;

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
    fn values_are_checked_as_far_as_the_help_tells_their_types() {
        for version in Help::RECORDED {
            let help = Help::recorded(version).unwrap();
            let serve = |flag: &str, value: &str| check(&help.serve, flag, &[value]);
            assert_eq!(serve("max-num-seqs", "abc").unwrap(), "takes a number, not `abc`", "{version}");
            assert_eq!(serve("tensor-parallel-size", "two").unwrap(), "takes a number, not `two`", "{version}");
            assert!(
                serve("compilation-config", "{\"level\": 3").unwrap().starts_with("takes JSON, and `{"),
                "{version}"
            );
            for (flag, value) in [
                ("max-num-seqs", "256"),
                ("max-model-len", "32k"),
                ("gpu-memory-utilization", "0.5"),
                ("compilation-config", "3"),
                ("compilation-config", "{\"level\": 3}"),
                ("port", "8000"),
                ("seed", "0"),
                ("served-model-name", "abc"),
                ("load-format", "auto"),
                ("tool-call-parser", "of_a_plugin"),
            ] {
                assert_eq!(serve(flag, value), None, "{version}: --{flag} {value}");
            }
            let bench = |flag: &str, value: &str| check(&help.bench, flag, &[value]);
            assert_eq!(bench("num-prompts", "many").unwrap(), "takes a number, not `many`", "{version}");
            for (flag, value) in
                [("request-rate", "inf"), ("metric-percentiles", "50,99"), ("random-range-ratio", "0.5"), ("seed", "1")]
            {
                assert_eq!(bench(flag, value), None, "{version}: --{flag} {value}");
            }
        }
    }

    #[test]
    fn choices_that_are_numbers_are_compared_as_numbers() {
        let known = Known::parse("  --block-size {1,8,16}\n").unwrap();
        assert_eq!(check(&known, "block-size", &["016"]), None);
        assert!(check(&known, "block-size", &["7"]).is_some());
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

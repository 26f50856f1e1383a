//! Axes of one section: which keys there may be, and which values these keys may have.

use indexmap::IndexMap;

use super::words::is_variable_name;
use super::words::positive;
use crate::config::language::value::{Placed, axis};
use crate::config::tree::{Diagnostic, Entry, Kind, Node, join, plain};
use crate::config::{Error, is_secret_entry, is_secret_name};
use crate::plan::{Axis, PROMPTS_PER_CONCURRENCY, Section, Value};
use crate::process::registry::MARKER;

/// Keys of a section and the way to each: those of a group have another than those of the sweep.
pub type Keys = IndexMap<String, (Entry, String)>;

/// Flags of `vllm serve` that stand elsewhere in a sweep file, or nowhere.
const NOT_SERVE: [(&str, &str); 5] = [
    ("port", "use the key `port` of the top level"),
    ("no-quantization", "use `quantization: none`"),
    ("no-enforce-eager", "use `enforce-eager: false`"),
    ("api-key", "set the environment variable `VLLM_API_KEY`: a key on a command line is seen by every user"),
    ("uds", "vllm-bench talks to the server over TCP; use the key `port` of the top level"),
];

/// The same for `vllm bench serve`.
const NOT_BENCH: [(&str, &str); 8] = [
    ("model", "use `serve.model`"),
    ("port", "use the key `port` of the top level"),
    ("host", "the client always talks to the server of its experiment"),
    ("base-url", "the client always talks to the server of its experiment"),
    ("save-result", "results are always saved"),
    ("result-dir", "use the key `results-dir` of the top level"),
    ("result-filename", "results are named after their experiment"),
    ("append-result", "every experiment has a result of its own"),
];

/// The entries of a section with the way to each; none where the section says nothing.
///
/// # Errors
/// When the section is no map.
pub fn keys(node: Option<&Node>, path: &str) -> Result<Keys, Error> {
    match node.map(|node| (node, &node.kind)) {
        None | Some((_, Kind::Null)) => Ok(Keys::new()),
        Some((_, Kind::Map(map))) => {
            Ok(map.iter().map(|(key, entry)| (key.clone(), (entry.clone(), join(path, key)))).collect())
        }
        Some((node, Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::List(_))) => {
            Err(Diagnostic::new(&node.origin, path, format!("expected a map of keys, found {}", node.describe()))
                .hint(format!("write one key per line below `{path}:`, such as `max-num-seqs: [128, 256]`"))
                .into())
        }
    }
}

/// Lays a group's keys over the sweep's. A flag and its opposite replace each other.
pub fn over(mut below: Keys, above: Keys, section: Section) -> Keys {
    for (key, entry) in above {
        for rival in rivals(&key, section) {
            below.shift_remove(&rival);
        }
        below.insert(key, entry);
    }
    below
}

fn rivals(key: &str, section: Section) -> Vec<String> {
    crate::config::tree::rivals(key, section == Section::Env)
}

/// Reads the axes of a section.
///
/// # Errors
/// The first key that may not be there, or value that it may not have.
pub fn read(keys: &Keys, section: Section) -> Result<Vec<(Axis, Vec<Placed>)>, Error> {
    keys.iter()
        .map(|(key, (entry, path))| {
            check_key(key, entry, path, section)?;
            let values = values(key, &entry.value, path, section)?;
            Ok((Axis { key: key.clone(), values: values.iter().map(|v| v.value.clone()).collect() }, values))
        })
        .collect()
}

fn check_key(key: &str, entry: &Entry, path: &str, section: Section) -> Result<(), Error> {
    let refused = |problem: String, hint: &str| Err(Diagnostic::new(&entry.key, path, problem).hint(hint).into());
    let reserved: &[(&str, &str)] = match section {
        Section::Serve => &NOT_SERVE,
        Section::Bench => &NOT_BENCH,
        Section::Env if key == MARKER => {
            return refused(
                format!("`{key}` cannot be set here: vllm-bench sets it itself, to mark the processes of a run"),
                "leave it out",
            );
        }
        Section::Env if is_variable_name(key) => return Ok(()),
        Section::Env => {
            let problem = format!("`{}` is not the name of a variable", key.escape_debug());
            return refused(problem, "names are made of letters, digits and `_`, and begin with no digit");
        }
    };
    if let Some((_, instead)) = reserved.iter().find(|(flag, _)| *flag == key) {
        return refused(format!("`--{key}` cannot be set here: vllm-bench sets it itself"), instead);
    }
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
        let problem = format!("`{}` is not the name of a flag", key.escape_debug());
        return refused(problem, "names are made of letters, digits, `-`, `_` and `.`");
    }
    if is_secret_name(key) {
        return refused(
            format!("`--{key}` cannot be set here: a secret on a command line is seen by every user"),
            "set it as an environment variable, under `env` or outside of vllm-bench",
        );
    }
    Ok(())
}

fn values(key: &str, node: &Node, path: &str, section: Section) -> Result<Vec<Placed>, Error> {
    // A model is named, never counted: `1..8` may be a path. Words of the command line are single values too.
    let values = match (&node.kind, key, section) {
        (Kind::List(items), "model", Section::Serve) if !items.is_empty() => items.iter().map(model).collect(),
        (Kind::List(_), "model", Section::Serve) => axis(node, path)?,
        (_, "model", Section::Serve) => vec![model(node)],
        (Kind::List(items), "quantization", Section::Serve) => {
            // On the command line only `none` means none (rule 1); files may write it as YAML does.
            let other = |item: &&Node| !item.origin.is_document() && item.scalar().is_some_and(|text| text == "None");
            if let Some(item) = items.iter().find(other) {
                return Err(Error::wrong(item, path, QUANTIZATION, Some(NO_QUANTIZATION.to_owned())));
            }
            axis(node, path)?
        }
        // A secret is never taken apart, so that no message shows it.
        (_, key, Section::Env) if is_secret_entry(key, node) => secret(node, path)?,
        _ => axis(node, path).map_err(|trouble| from_command_line(trouble, node))?,
    };
    for value in &values {
        let shown = if value.value == Value::Omitted { Kind::Null } else { plain(&value.value.shown()) };
        let found = Node::new(shown, &value.origin);
        check_value(key, &value.value, &found, path, section)?;
    }
    Ok(values)
}

fn model(node: &Node) -> Placed {
    let value = node.scalar().map_or(Value::Omitted, Value::Text);
    Placed { value, origin: node.origin.clone() }
}

fn secret(node: &Node, path: &str) -> Result<Vec<Placed>, Error> {
    let one = |node: &Node| match &node.kind {
        Kind::Null => Ok(Placed { value: Value::Omitted, origin: node.origin.clone() }),
        _ => match model(node) {
            Placed { value: Value::Text(text), .. } if text.contains(['\0', '\n', '\r']) => {
                Err(Diagnostic::new(&node.origin, path, "the secret holds a line break").hint("put it on one line"))
            }
            placed if placed.value != Value::Omitted => Ok(placed),
            _ => Err(Diagnostic::new(&node.origin, path, "expected a text").hint("put the secret into quotes")),
        },
    };
    match &node.kind {
        Kind::List(items) if !items.is_empty() => Ok(items.iter().map(one).collect::<Result<_, _>>()?),
        _ => Ok(vec![one(node)?]),
    }
}

fn from_command_line(trouble: Diagnostic, node: &Node) -> Error {
    match &trouble.origin {
        Some(origin) if !origin.is_document() => Error::Invalid {
            origin: origin.clone(),
            value: node.scalar().unwrap_or_default().escape_debug().to_string(),
            expected: format!("a value for vLLM ({})", trouble.problem),
            hint: trouble.hints.first().cloned(),
        },
        Some(_) | None => trouble.into(),
    }
}

/// Metrics of the load that must be at least 1.
const METRICS: [&str; 5] =
    ["random-input-len", "random-output-len", "max-concurrency", "num-prompts", PROMPTS_PER_CONCURRENCY];

fn check_value(key: &str, value: &Value, node: &Node, path: &str, section: Section) -> Result<(), Error> {
    let number = "a whole number of at least 1";
    let wrong = |expected: &str, hint: Option<&str>| Err(Error::wrong(node, path, expected, hint.map(str::to_owned)));
    let is_number = |value: &Value| *value == Value::Omitted || positive::<u64>(&value.shown()).is_some();
    match (section, key) {
        (Section::Serve, "model") => match value {
            Value::Text(text) if is_model(text) => Ok(()),
            _ => wrong("a Hugging Face id or a path", None),
        },
        (Section::Serve, "tensor-parallel-size") => match value {
            Value::Omitted => Ok(()),
            other if positive::<u32>(&other.shown()).is_some() => Ok(()),
            _ => wrong(number, None),
        },
        // vLLM itself knows more spellings (`10k`, `auto`): a file may use them.
        (Section::Serve, "max-model-len") if !node.origin.is_document() && !is_number(value) => wrong(number, None),
        (Section::Serve, "enforce-eager") => match value {
            Value::Omitted | Value::Switch(_) => Ok(()),
            Value::Text(_) | Value::List(_) => wrong("`true` or `false`", None),
        },
        (Section::Serve, "quantization") => {
            quantization(value).map_or(Ok(()), |(expected, hint)| wrong(expected, hint))
        }
        (Section::Bench, key) if METRICS.contains(&key) && !is_number(value) => wrong(number, None),
        (Section::Serve | Section::Bench | Section::Env, _) => Ok(()),
    }
}

/// A model reaches vLLM as one argument; what no id and no path has is refused.
fn is_model(text: &str) -> bool {
    let text = text.trim_matches(' ');
    !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control) && text.len() <= 1024
}

/// Rule 1: vLLM knows neither `--quantization none` nor `off`; `none` means that the flag is left out.
const QUANTIZATION: &str = "a quantization method of vLLM, or `none`";
const NO_QUANTIZATION: &str = "`none` leaves vLLM's flag out, which is how vLLM runs without quantization";

/// What was expected, and the next step, where the value is none.
fn quantization(value: &Value) -> Option<(&'static str, Option<&'static str>)> {
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match value {
        Value::Omitted => None,
        Value::Text(text) if matches!(text.as_str(), "off" | "NONE" | "null" | "false") => {
            Some((QUANTIZATION, Some(NO_QUANTIZATION)))
        }
        Value::Switch(_) => Some((QUANTIZATION, Some(NO_QUANTIZATION))),
        Value::Text(text) if is_word(text) => None,
        Value::Text(_) | Value::List(_) => {
            Some(("a quantization method of vLLM (letters, digits, `-`, `_`), or `none`", None))
        }
    }
}

//! `--env-file`: variables by which other tools of vLLM are set up (`MODEL`, `PORT`, `GPU_MEM_UTIL` …), as values of the sweep language.
//!
//! Nothing reads such a file unless it is asked for. A variable of the file that is set in the environment has the environment's value.

use std::path::PathBuf;

use super::resolve::words::is_variable_name;
use super::tree::{Kind, Node};
use super::{Environment, Error, Origin};
use crate::{bounded, safe};

/// The variables that act in a run, and where each stands in the language.
const OF_RUN: [(&str, &[&str]); 9] = [
    ("MODEL", &["serve", "model"]),
    ("PORT", &["port"]),
    ("HOST", &["serve", "host"]),
    ("GPU_MEM_UTIL", &["serve", "gpu-memory-utilization"]),
    ("MAX_MODEL_LEN", &["serve", "max-model-len"]),
    ("KV_CACHE_DTYPE", &["serve", "kv-cache-dtype"]),
    ("MAX_NUM_SEQS", &["serve", "max-num-seqs"]),
    ("MAX_NUM_BATCHED_TOKENS", &["serve", "max-num-batched-tokens"]),
    ("HF_TOKEN", &["env", "HF_TOKEN"]),
];
/// The same of a load. The hub's token is a variable there.
const OF_LOAD: [(&str, &[&str]); 4] =
    [("MODEL", &["bench", "model"]), ("PORT", &["bench", "port"]), ("HOST", &["bench", "host"]), ("HF_TOKEN", &[])];

/// What a file says.
#[derive(Debug)]
pub(super) struct Found {
    /// As a tree of the language.
    pub tree: Node,
    /// Variables that it sets and the environment does not.
    pub set: Vec<(String, String)>,
    /// What of it has no effect.
    pub notes: Vec<String>,
}

/// A variable of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: String,
    value: String,
    line: usize,
}

/// What a file, or the `.env` of a directory, says of a run.
///
/// # Errors
/// When it cannot be read, or a line of it is no variable.
pub(super) fn of_run(named: &str, asked: &Origin, environment: &Environment) -> Result<Found, Error> {
    layer(named, asked, environment, &OF_RUN)
}

/// What it says of a load. What is the server's is no mistake there.
///
/// # Errors
/// As [`of_run`].
pub(super) fn of_load(named: &str, asked: &Origin, environment: &Environment) -> Result<Found, Error> {
    layer(named, asked, environment, &OF_LOAD)
}

fn layer(
    named: &str,
    asked: &Origin,
    environment: &Environment,
    acting: &[(&str, &'static [&'static str])],
) -> Result<Found, Error> {
    let path = place(named, environment);
    let text = bounded::read_text(&path, bounded::NOTE).map_err(|error| Error::Argument {
        origin: asked.clone(),
        problem: format!("`{}` cannot be read: {error}", path.display()),
        hints: vec!["name a file of lines `NAME=VALUE`, or a directory that has one called `.env`".to_owned()],
    })?;
    safe::learn(safe::in_text(&text));
    let variables = read(&text).map_err(|line| Error::Argument {
        origin: Origin::File { path: named.to_owned(), line, column: 1 },
        // What stands there may be a secret.
        problem: "expected `NAME=VALUE`".to_owned(),
        hints: vec!["names are of letters, digits and `_`; comments begin with `#`".to_owned()],
    })?;
    let mut found = Found { tree: Node::map(asked), set: Vec::new(), notes: Vec::new() };
    let mut idle = Vec::new();
    for Variable { name, value, line } in variables {
        let Some((_, path)) = acting.iter().find(|(known, _)| *known == name) else {
            if OF_RUN.iter().all(|(known, _)| *known != name) {
                idle.push(name);
            }
            continue;
        };
        let (value, origin) = match environment.get(&name) {
            Some(value) => (value.to_owned(), Origin::Variable(name.clone())),
            None => (value, Origin::File { path: named.to_owned(), line, column: 1 }),
        };
        if value.is_empty() {
            continue;
        }
        if path.is_empty() {
            found.set.push((name, value));
            continue;
        }
        // vLLM derives it where the flag is absent.
        let by_itself = name == "MAX_MODEL_LEN" && value.eq_ignore_ascii_case("auto");
        found.tree.put(path, if by_itself { Node::new(Kind::Null, &origin) } else { Node::text(value, &origin) });
    }
    if !idle.is_empty() {
        let known: Vec<&str> = acting.iter().map(|(name, _)| *name).collect();
        found.notes.push(format!("{named}: {} has no effect here; these have: {}", idle.join(", "), known.join(", ")));
    }
    Ok(found)
}

/// The file: of a directory it is its `.env`.
fn place(named: &str, environment: &Environment) -> PathBuf {
    let path = environment.absolute(named);
    if path.is_dir() { path.join(".env") } else { path }
}

/// The variables of a text, the last of each name; the number of the first line that is none.
fn read(text: &str) -> Result<Vec<Variable>, usize> {
    let mut found: Vec<Variable> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(number)?;
        let name = name.trim();
        if !is_variable_name(name) {
            return Err(number);
        }
        let value = value_of(value.trim()).ok_or(number)?;
        found.retain(|variable| variable.name != name);
        found.push(Variable { name: name.to_owned(), value, line: number });
    }
    Ok(found)
}

/// What stands between quotes, else all up to a comment. Nothing is expanded.
fn value_of(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c));
    let value = match quote {
        Some(quote) => {
            let (value, rest) = text[1..].split_once(quote)?;
            let rest = rest.trim();
            (rest.is_empty() || rest.starts_with('#')).then_some(value)?
        }
        None if text.starts_with('#') => "",
        None => text.split(" #").next().unwrap_or(text).trim_end(),
    };
    (!value.contains('\0')).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_quotes_and_exports_are_those_of_a_shell() {
        let text = "# of the tool\nMODEL=a\nexport MODEL = \"org/b c\" # the last one counts\n\nPORT=8001 # free\nHOST='#1'\nX=\nY=#\n";
        let read = read(text).unwrap();
        let shown: Vec<_> = read.iter().map(|v| (v.name.as_str(), v.value.as_str(), v.line)).collect();
        assert_eq!(
            shown,
            [("MODEL", "org/b c", 3), ("PORT", "8001", 5), ("HOST", "#1", 6), ("X", "", 7), ("Y", "", 8)]
        );
        for (wrong, line) in [("A=1\nno variable\n", 2), ("1A=2", 1), ("A='x", 1), ("A='x'y", 1)] {
            assert_eq!(super::read(wrong).unwrap_err(), line, "{wrong}");
        }
    }

    #[test]
    fn the_environment_wins_and_what_is_unknown_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(".env"),
            "MODEL=m\nPORT=8001\nMAX_MODEL_LEN=auto\nENABLE_TELEMETRY=1\nHF_TOKEN=hf_planted\n",
        )
        .unwrap();
        let environment = Environment::of(&[("PORT", "9000"), ("HOST", "not asked for")], dir.path());
        let Found { tree, notes, .. } = of_run(".", &Origin::flag("env-file"), &environment).unwrap();
        let shown = |path: &[&str]| tree.find(path).map(|node| (node.scalar(), node.origin.short()));
        assert_eq!(shown(&["serve", "model"]), Some((Some("m".into()), ".:1".into())));
        assert_eq!(shown(&["port"]), Some((Some("9000".into()), "environment PORT".into())));
        assert_eq!(shown(&["serve", "max-model-len"]), Some((None, ".:3".into())));
        assert_eq!(shown(&["serve", "host"]), None);
        assert!(notes[0].contains("ENABLE_TELEMETRY") && !notes[0].contains("MODEL has"), "{notes:?}");
        let load = of_load(".", &Origin::flag("env-file"), &environment).unwrap();
        assert_eq!(load.tree.find(&["bench", "port"]).unwrap().scalar().as_deref(), Some("9000"));
        assert_eq!(load.set, [("HF_TOKEN".to_owned(), "hf_planted".to_owned())]);
        assert!(of_run("absent", &Origin::flag("env-file"), &environment).unwrap_err().to_string().contains("absent"));
    }
}

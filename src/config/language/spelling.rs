//! One spelling for every key, so that files, presets, variables and flags can be merged key by key.

use indexmap::IndexMap;

use crate::config::Origin;
use crate::config::tree::{Diagnostic, Entry, Kind, Node, rivals};
use crate::model::normalize;
use crate::nearest::nearest;

/// Other names of keys of the top level and of groups.
const ALIASES: [(&str, &str); 7] = [
    ("docker", "container"),
    ("serve-args", "serve"),
    ("bench-args", "bench"),
    ("output-dir", "results-dir"),
    ("time-zone", "timezone"),
    ("groups", "experiments"),
    ("links", "link"),
];

/// Whether a key is one of a sweep file's top level, in any spelling.
pub fn is_top_level(key: &str) -> bool {
    let key = own(key);
    let more = ["num-runs", "server", "$schema"];
    more.contains(&key.as_str()) || super::schema::top_level().contains(&key)
}

/// Brings a sweep file into the one spelling.
///
/// # Errors
/// When two spellings of the same key are used at once, or `server` asks for what there is not yet.
pub fn canonical(tree: Node) -> Result<Node, Diagnostic> {
    let found = tree.describe();
    let origin = tree.origin;
    let Kind::Map(entries) = tree.kind else {
        return Err(Diagnostic::new(&origin, "", format!("a sweep file is a map of keys, this is {found}"))
            .hint("begin with `serve:` and, below it, `model: ORG/NAME`"));
    };
    let mut whole = Renamed { path: String::new(), map: IndexMap::new() };
    for (key, entry) in entries {
        let key = own(&key);
        match key.as_str() {
            "num-runs" => whole.nested("repeats", "runs", entry)?,
            "server" => server(entry, &mut whole)?,
            _ => {
                let value = section(&key, entry.value, &key)?;
                whole.insert(key, Entry { value, ..entry })?;
            }
        }
    }
    Ok(Node { kind: Kind::Map(whole.map), origin })
}

/// A key of ours: dashes, and the name that we use.
fn own(key: &str) -> String {
    let key = key.replace('_', "-");
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| (*name).to_owned())
}

/// A map under new names.
struct Renamed {
    path: String,
    map: IndexMap<String, Entry>,
}

impl Renamed {
    fn insert(&mut self, key: String, entry: Entry) -> Result<(), Diagnostic> {
        if let Some(first) = self.map.get_mut(&key) {
            // Both say what stands below them: `server.env` and `env`, `num-runs` and `repeats`.
            if let (Kind::Map(map), Kind::Map(more)) = (&mut first.value.kind, &entry.value.kind)
                && more.keys().all(|key| !map.contains_key(key))
            {
                map.extend(more.clone());
                return Ok(());
            }
            let place = match &first.key {
                Origin::File { line, .. } | Origin::Preset { line, .. } => format!("line {line}"),
                Origin::Flag(_) | Origin::Variable(_) => first.key.to_string(),
            };
            let problem = format!("`{key}` is given twice in different spellings; the first is in {place}");
            return Err(Diagnostic::new(&entry.key, &self.path, problem).hint("keep one of them"));
        }
        self.map.insert(key, entry);
        Ok(())
    }

    fn nested(&mut self, outer: &str, inner: &str, entry: Entry) -> Result<(), Diagnostic> {
        let key = entry.key.clone();
        let map = IndexMap::from([(inner.to_owned(), entry)]);
        self.insert(outer.to_owned(), Entry { value: Node::new(Kind::Map(map), &key), key })
    }
}

fn renamed(node: Node, path: &str, name: &dyn Fn(&str) -> String) -> Result<Node, Diagnostic> {
    let Kind::Map(entries) = node.kind else { return Ok(node) };
    let mut renamed = Renamed { path: path.to_owned(), map: IndexMap::new() };
    for (key, entry) in entries {
        renamed.insert(name(&key), entry)?;
    }
    Ok(Node { kind: Kind::Map(renamed.map), origin: node.origin })
}

/// The value of a key of the top level.
fn section(key: &str, node: Node, path: &str) -> Result<Node, Diagnostic> {
    let dashes = |key: &str| key.replace('_', "-");
    match key {
        "serve" | "bench" | "baseline" => contradictions(renamed(node, path, &normalize)?, path),
        "retry" => {
            let node = renamed(node, path, &|key| dashes(&key.to_ascii_lowercase()))?;
            each_value(node, path, &|node, path| renamed(node, path, &dashes))
        }
        "repeats" | "timeouts" | "sim" | "rules" => renamed(node, path, &dashes),
        "container" => renamed(container(node), path, &dashes),
        "slurm" => each_value_of(renamed(node, path, &dashes)?, "sbatch", |node| renamed(node, path, &dashes)),
        "exclude" | "include" => each_item(node, path, &rule),
        "experiments" => each_item(node, path, &group),
        _ => Ok(node),
    }
}

/// `container: IMAGE` is `container: {image: IMAGE}`.
fn container(node: Node) -> Node {
    match &node.kind {
        Kind::Map(_) | Kind::List(_) | Kind::Null => node,
        Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {
            let origin = node.origin.clone();
            let entry = Entry { key: origin.clone(), value: node };
            Node::new(Kind::Map(IndexMap::from([("image".to_owned(), entry)])), &origin)
        }
    }
}

/// Two keys that cannot both hold.
fn contradictions(node: Node, path: &str) -> Result<Node, Diagnostic> {
    for (key, entry) in node.entries().into_iter().flatten() {
        for rival in rivals(key, false) {
            if let Some(other) = node.get(&rival).filter(|_| key.len() > rival.len()) {
                let problem = format!("`{key}` and `{rival}` contradict each other");
                let line = match &other.origin {
                    Origin::File { line, .. } | Origin::Preset { line, .. } => format!("the other is in line {line}; "),
                    Origin::Flag(_) | Origin::Variable(_) => String::new(),
                };
                return Err(Diagnostic::new(&entry.key, path, problem).hint(format!("{line}keep one of them")));
            }
        }
    }
    Ok(node)
}

fn group(node: Node, path: &str) -> Result<Node, Diagnostic> {
    let Kind::Map(entries) = node.kind else { return Ok(node) };
    let mut renamed = Renamed { path: path.to_owned(), map: IndexMap::new() };
    for (key, entry) in entries {
        let key = own(&key);
        let value = section(&key, entry.value, &format!("{path}.{key}"))?;
        renamed.insert(key, Entry { value, ..entry })?;
    }
    Ok(Node { kind: Kind::Map(renamed.map), origin: node.origin })
}

fn rule(node: Node, path: &str) -> Result<Node, Diagnostic> {
    let node = renamed(node, path, &|key| key.replace('_', "-"))?;
    each_value_of(node, "when", |node| renamed(node, &format!("{path}.when"), &condition_key))
}

/// `serve.max_num_seqs` -> `serve.max-num-seqs`; names of variables stay as they are, and so do words that may be one.
pub fn condition_key(key: &str) -> String {
    let variable =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    match key.split_once('.') {
        Some(("env", _)) => key.to_owned(),
        Some((section @ ("serve" | "bench"), name)) => format!("{section}.{}", normalize(name)),
        Some(_) | None if variable(key) => key.to_owned(),
        Some(_) | None => normalize(key),
    }
}

fn each_item(
    node: Node,
    path: &str,
    change: &dyn Fn(Node, &str) -> Result<Node, Diagnostic>,
) -> Result<Node, Diagnostic> {
    let Kind::List(items) = node.kind else { return Ok(node) };
    let items = items.into_iter().enumerate().map(|(at, item)| change(item, &format!("{path}[{}]", at + 1)));
    Ok(Node { kind: Kind::List(items.collect::<Result<_, _>>()?), origin: node.origin })
}

fn each_value(
    node: Node,
    path: &str,
    change: &dyn Fn(Node, &str) -> Result<Node, Diagnostic>,
) -> Result<Node, Diagnostic> {
    let Kind::Map(entries) = node.kind else { return Ok(node) };
    let changed = entries.into_iter().map(|(key, entry)| {
        let value = change(entry.value, &format!("{path}.{key}"))?;
        Ok((key, Entry { value, ..entry }))
    });
    Ok(Node { kind: Kind::Map(changed.collect::<Result<_, Diagnostic>>()?), origin: node.origin })
}

fn each_value_of(
    mut node: Node,
    key: &str,
    change: impl Fn(Node) -> Result<Node, Diagnostic>,
) -> Result<Node, Diagnostic> {
    if let Some(entry) = node.entries_mut().and_then(|map| map.get_mut(key)) {
        let value = std::mem::replace(&mut entry.value, Node::new(Kind::Null, &entry.key));
        entry.value = change(value)?;
    }
    Ok(node)
}

/// Keys of `server`, as other descriptions of sweeps have it.
const SERVER: [&str; 8] = ["mode", "command", "prelude", "env", "server-ready-timeout", "container", "docker", "slurm"];

fn server(entry: Entry, whole: &mut Renamed) -> Result<(), Diagnostic> {
    let Kind::Map(entries) = entry.value.kind else {
        return Err(Diagnostic::new(
            &entry.key,
            "server",
            format!("expected a map of keys, found {}", entry.value.describe()),
        )
        .hint("write `server: {command: [vllm, serve]}`"));
    };
    for (key, entry) in entries {
        let key = key.replace('_', "-");
        let path = format!("server.{key}");
        match key.as_str() {
            "mode" => match entry.value.scalar().as_deref() {
                // Which image it is, `container` says.
                Some("spawn" | "docker" | "container") => {}
                Some("slurm") => {
                    let value = Node::text("slurm", &entry.value.origin);
                    whole.insert("executor".into(), Entry { key: entry.key, value })?;
                }
                _ => {
                    let problem = format!(
                        "expected `spawn`, `docker` or `slurm`, found {}: other modes are not supported yet",
                        entry.value.describe()
                    );
                    return Err(Diagnostic::new(&entry.value.origin, &path, problem)
                        .hint("leave `mode` out: vllm-bench starts every server itself"));
                }
            },
            "command" => {
                if let Some(program) = program(&entry.value, &path)? {
                    let value = Node::text(program, &entry.value.origin);
                    whole.insert("vllm-bin".into(), Entry { key: entry.key, value })?;
                }
            }
            "prelude" => {
                let value = Node::text(setvars(&entry.value, &path)?, &entry.value.origin);
                whole.insert("setvars".into(), Entry { key: entry.key, value })?;
            }
            "server-ready-timeout" => whole.nested("timeouts", "startup", entry)?,
            "env" | "container" | "docker" | "slurm" => {
                let key = own(&key);
                let value = section(&key, entry.value, &path)?;
                whole.insert(key, Entry { value, ..entry })?;
            }
            _ => {
                let trouble = Diagnostic::new(&entry.key, "server", format!("the key `{key}` is not known here"));
                return Err(match nearest(&key, SERVER.into_iter()) {
                    Some(near) => trouble.hint(format!("did you mean `{near}`?")),
                    None => trouble.hint(format!("the keys here are: {}", SERVER.join(", "))),
                });
            }
        }
    }
    Ok(())
}

fn words(node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) => items.iter().map(Node::scalar).collect(),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => shlex::split(&node.scalar()?),
    }
}

/// The program of `[PROGRAM, serve]`; `None` where it is `vllm`, which is looked for on PATH.
fn program(node: &Node, path: &str) -> Result<Option<String>, Diagnostic> {
    let words = words(node).unwrap_or_default();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["vllm"] | ["vllm", "serve"] => Ok(None),
        [program] | [program, "serve"] => Ok(Some((*program).to_owned())),
        _ => {
            Err(Diagnostic::new(&node.origin, path, format!("expected `[PROGRAM, serve]`, found {}", node.describe()))
                .hint("flags of `vllm serve` belong under `serve`"))
        }
    }
}

/// The path of `source PATH`.
fn setvars(node: &Node, path: &str) -> Result<String, Diagnostic> {
    let lines: Option<Vec<String>> = match &node.kind {
        Kind::List(items) => items.iter().map(Node::scalar).collect(),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => {
            node.scalar().map(|text| vec![text])
        }
    };
    let lines = lines.unwrap_or_default();
    let sourced = match lines.as_slice() {
        [line] => shlex::split(line).filter(|words| matches!(words.first().map(String::as_str), Some("source" | "."))),
        _ => None,
    };
    sourced.and_then(|words| words.get(1).cloned()).ok_or_else(|| {
        Diagnostic::new(&node.origin, path, "expected one line `source /path/of/setvars.sh --force`")
            .hint("set variables under `env`; other commands belong in a script that is sourced")
    })
}

//! Laying the layers upon each other: run settings, preset, sweep files, environment variables, flags.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::handover::hand_over;
use super::kept::Kept;
use super::language::spelling::canonical;
use super::layers::Layers;
use super::resolve::words;
use super::tree::{Diagnostic, Entry, Kind, Node, merge, merge_axes};
use super::{Environment, Error, Origin, Preset, env_file, foreign, is_secret_name, load};
use crate::model::{Client, FlagError, FlagValue, Flags};
use crate::nearest::nearest;

/// All layers as one tree.
#[derive(Debug)]
pub struct Assembled {
    /// What is asked for; groups have only what no flag and no variable overrides.
    pub tree: Node,
    /// What the user should know of the files.
    pub notes: Vec<String>,
    /// Flags of `vllm serve` that a file's format sets by itself, where its program would.
    pub implied: Vec<&'static str>,
}

/// Flags of `vllm serve` that have a flag of ours, and flags that nobody may set.
const RESERVED_SERVE: [(&str, &str); 10] = [
    ("model", "use `--models`"),
    ("port", "use `--port`"),
    ("tensor-parallel-size", "use `--tp`"),
    ("quantization", "use `--quantization`"),
    ("no-quantization", "use `--quantization none`"),
    ("enforce-eager", "use `--enforce-eager true`"),
    ("no-enforce-eager", "use `--enforce-eager false`"),
    ("max-model-len", "use `--max-model-len`"),
    ("api-key", "set the environment variable `VLLM_API_KEY`: a key on a command line is seen by every user"),
    ("uds", "vllm-bench talks to the server over TCP; use `--port`"),
];

/// The same for `vllm bench serve`.
const RESERVED_BENCH: [(&str, &str); 12] = [
    ("model", "use `--models`"),
    ("port", "use `--port`"),
    ("host", "the client always talks to the server of its experiment"),
    ("base-url", "the client always talks to the server of its experiment"),
    ("random-input-len", "use `--input-len`"),
    ("random-output-len", "use `--output-len`"),
    ("max-concurrency", "use `--concurrency`"),
    ("num-prompts", "use `--num-prompts`"),
    ("save-result", "results are always saved"),
    ("result-dir", "use `--results-dir`"),
    ("result-filename", "results are named after their experiment"),
    ("append-result", "every experiment has a result of its own"),
];

/// The axes of the presets, which stay behind all other flags of the server.
const LAST: [&str; 3] = ["tensor-parallel-size", "quantization", "enforce-eager"];

/// Lists of the top level.
const LISTS: [&str; 3] = ["experiments", "exclude", "include"];

/// Lays all layers upon each other; `kept` are the settings of a run that goes on.
///
/// # Errors
/// The first thing that cannot be read, with its place.
pub fn assemble(
    files: &[PathBuf],
    layers: &Layers,
    environment: &Environment,
    default: Option<Preset>,
    kept: Option<&Kept>,
) -> Result<Assembled, Error> {
    let mut notes = Vec::new();
    let mut documents = Vec::new();
    let mut named = None;
    let mut implied = Vec::new();
    let read = files.iter().map(|file| load::load(file, environment)).collect::<Result<Vec<Node>, _>>()?;
    let client = client(&read, layers, kept);
    for (file, mut tree) in files.iter().zip(read) {
        let mut format = None;
        if let Some(translated) = foreign::translate(&tree, client) {
            let translated = translated?;
            tree = translated.tree;
            format = Some(translated.format);
            implied.extend(translated.implied);
            notes.push(format!("{}: read as {}", file.display(), translated.format));
            notes.extend(translated.notes);
        }
        let tree = canonical(tree)?;
        if let Some(preset) = tree.get("preset").filter(|node| node.kind != Kind::Null) {
            named = Some((Preset::of(preset, "preset")?, preset.origin.clone()));
        }
        documents.push((tree, format));
    }
    if let Some((text, origin)) = layers.one("preset") {
        named = Some((Preset::of(&Node::text(text, &origin), "preset")?, origin));
    }
    let built_in = Origin::Preset { name: super::DEFAULTS.to_owned(), line: 1 };
    let whole = kept.filter(|kept| kept.is_whole());
    let brought = whole.and_then(|kept| {
        let node = kept.tree().get("preset")?;
        Some((Preset::of(node, "preset").ok()?, node.origin.clone()))
    });
    let default = default.map(|preset| (preset, built_in.clone()));
    let (preset, origin) = named.or(brought).or(default).unwrap_or((Preset::None, built_in));
    let mut tree = match whole {
        // The values of its preset are in it.
        Some(kept) => merge(Preset::defaults()?, kept.tree().clone()),
        None => merge(Preset::defaults()?, preset.tree()?),
    };
    foreign::multiply(&mut documents);
    let mut lists: Vec<&str> = LISTS.into_iter().filter(|_| whole.is_some()).collect();
    for (document, _) in documents {
        // The lists of files that are named again stand in the place of those that they gave the run.
        lists.retain(|key| {
            let again = document.get(key).is_some_and(|node| node.kind != Kind::Null);
            if again && let Some(list) = tree.entries_mut().and_then(|map| map.get_mut(*key)) {
                list.value.keep_items(|item| matches!(item.origin, Origin::Preset { .. }));
            }
            !again
        });
        tree = merge(tree, document);
    }
    if let Some(map) = tree.entries_mut() {
        map.shift_remove("$schema");
        map.shift_remove("preset");
        // Lists with nothing below them say nothing.
        map.retain(|key, entry| !LISTS.contains(&key.as_str()) || entry.value.kind != Kind::Null);
        let value = Node::text(preset.name(), &origin);
        map.shift_insert(0, "preset".to_owned(), Entry { key: origin, value });
    }
    let mut given = given(layers, environment, &tree)?;
    if let Some((named, asked)) = layers.one("env-file") {
        let found = env_file::of_run(&named, &asked, environment)?;
        given = merge(found.tree, given);
        notes.extend(found.notes);
    }
    if let Some(kept) = kept {
        given = kept.below(given);
        tree = if kept.is_whole() { tree } else { kept.over(tree) };
    }
    Ok(Assembled { tree: hand_over(over_everything(tree, given), environment)?, notes, implied })
}

/// The client for which files of other tools are translated: a flag over a variable over the last file over the run that goes on.
/// A word that names none is refused where the sweep is resolved.
fn client(files: &[Node], layers: &Layers, kept: Option<&Kept>) -> Client {
    let said = layers.one("client").map(|(word, _)| word);
    let said = said.or_else(|| files.iter().rev().find_map(|file| file.get("client")?.scalar()));
    let said = said.or_else(|| kept?.tree().get("client")?.scalar());
    said.and_then(|word| words::client(&word)).unwrap_or(Client::Vllm)
}

/// Flags and variables as a tree.
fn given(layers: &Layers, environment: &Environment, below: &Node) -> Result<Node, Error> {
    let mut given = layers.tree()?;
    arguments(layers, "serve-arg", "serve", &RESERVED_SERVE, below, &mut given)?;
    arguments(layers, "bench-arg", "bench", &RESERVED_BENCH, below, &mut given)?;
    variables(layers, environment, &mut given)?;
    retries(layers, &mut given)?;
    no_rules(layers, &mut given)?;
    cluster(layers, &mut given)?;
    Ok(given)
}

/// The keys of a section, in the sweep and in all its groups.
fn known(section: &str, tree: &Node) -> Vec<String> {
    let groups = tree.get("experiments").and_then(Node::items).unwrap_or_default();
    let maps = std::iter::once(tree).chain(groups).filter_map(|node| node.get(section)?.entries());
    let mut keys: Vec<String> = Vec::new();
    for key in maps.flat_map(IndexMap::keys).filter(|key| !LAST.contains(&key.as_str()) && *key != "model") {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

/// `--serve-arg` and `--bench-arg`.
fn arguments(
    layers: &Layers,
    key: &'static str,
    section: &str,
    reserved: &[(&str, &str)],
    below: &Node,
    given: &mut Node,
) -> Result<(), Error> {
    let Some((texts, origin)) = layers.values(key) else { return Ok(()) };
    let mut known = known(section, below);
    known.extend(known_here(section, given, &known));
    for text in &texts {
        let flag = |source: FlagError| Error::Flag { origin: origin.clone(), value: text.clone(), source };
        if let Some(dropped) = text.trim_start_matches('-').strip_prefix("no:") {
            let (name, _) = Flags::parse_arg(dropped).map_err(flag)?;
            if !known.contains(&name) {
                return Err(Error::NothingToDrop { origin, flag: name, known });
            }
            given.put(&[section, &name], Node::new(Kind::Null, &origin));
            continue;
        }
        let (name, value) = Flags::parse_arg(text).map_err(flag)?;
        if let Some((_, instead)) = reserved.iter().find(|(flag, _)| *flag == name) {
            return Err(Error::Reserved { origin, flag: format!("--{name}"), instead: (*instead).to_owned() });
        }
        if is_secret_name(&name) {
            let instead = "set it as an environment variable: a secret on a command line is seen by every user";
            return Err(Error::Reserved { origin, flag: format!("--{name}"), instead: instead.to_owned() });
        }
        let kind = match value {
            FlagValue::Switch(_) => Kind::Bool(true),
            FlagValue::Text(text) => Kind::Text(text),
            FlagValue::List(words) => {
                Kind::List(vec![Node::list(words.iter().map(|w| Node::text(w, &origin)).collect(), &origin)])
            }
        };
        let entry = Entry { key: origin.clone(), value: Node::new(kind, &origin) };
        if given.get(section).is_none() {
            given.put(&[section], Node::map(&origin));
        }
        if let Some(map) = given.entries_mut().and_then(|map| map.get_mut(section)?.value.entries_mut()) {
            merge_axes(map, IndexMap::from([(name.clone(), entry)]), false);
        }
        known.push(name);
    }
    Ok(())
}

fn known_here(section: &str, given: &Node, known: &[String]) -> Vec<String> {
    let keys = given.get(section).and_then(Node::entries).into_iter().flat_map(IndexMap::keys);
    keys.filter(|key| !known.contains(key) && !LAST.contains(&key.as_str()) && *key != "model").cloned().collect()
}

/// `--env`.
fn variables(layers: &Layers, environment: &Environment, given: &mut Node) -> Result<(), Error> {
    let Some((texts, origin)) = layers.values("env") else { return Ok(()) };
    let expected = "`NAME=VALUE`, or the `NAME` of a variable that is set; names are of letters, digits and `_`";
    for entry in texts.iter().filter(|entry| !entry.is_empty()) {
        let invalid = |value: &str| {
            let value = value.escape_debug().to_string();
            Error::Invalid { origin: origin.clone(), value, expected: expected.to_owned(), hint: None }
        };
        // A name alone: its value is taken over, and stands on no command line.
        let (name, value) = match entry.split_once('=') {
            Some(pair) => pair,
            None => (entry.as_str(), environment.get(entry).ok_or_else(|| invalid(entry))?),
        };
        if !words::is_variable_name(name) || value.contains(['\0', '\n', '\r']) {
            return Err(invalid(name));
        }
        given.put(&["env", name], Node::text(value, &origin));
    }
    Ok(())
}

/// `--retry REASON=N`, or `--retry none`.
fn retries(layers: &Layers, given: &mut Node) -> Result<(), Error> {
    let Some((texts, origin)) = layers.values("retry") else { return Ok(()) };
    if texts.is_empty() {
        return Err(Error::Empty { origin });
    }
    for text in &texts {
        match text.split_once('=') {
            Some((reason, attempts)) => {
                let reason = reason.trim().to_ascii_lowercase().replace('_', "-");
                given.put(&["retry", &reason], Node::text(attempts.trim(), &origin));
            }
            None if text == "none" => given.put(&["retry"], Node::text("none", &origin)),
            None => {
                let value = text.escape_debug().to_string();
                return Err(Error::Invalid { origin, value, expected: "`REASON=N`, or `none`".into(), hint: None });
            }
        }
    }
    Ok(())
}

/// `--no-rule NAME`: as `rules: {NAME: false}`. Whether there is such a rule is seen when all layers are read.
fn no_rules(layers: &Layers, given: &mut Node) -> Result<(), Error> {
    let Some((names, origin)) = layers.values("no-rule") else { return Ok(()) };
    if names.iter().all(|name| name.trim().is_empty()) {
        return Err(Error::Empty { origin });
    }
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        given.put(&["rules", name], Node::new(Kind::Bool(false), &origin));
    }
    Ok(())
}

/// `--slurm KEY=VALUE`: as a key of `slurm`; `sbatch.NAME=VALUE` is any other option of `sbatch`.
fn cluster(layers: &Layers, given: &mut Node) -> Result<(), Error> {
    let Some((texts, origin)) = layers.values("slurm") else { return Ok(()) };
    for text in texts.iter().filter(|text| !text.trim().is_empty()) {
        let Some((key, value)) = text.split_once('=') else {
            let value = text.escape_debug().to_string();
            let hint = Some("`--slurm partition=main`, `--slurm sbatch.constraint=h100`".to_owned());
            return Err(Error::Invalid { origin, value, expected: "`KEY=VALUE`".into(), hint });
        };
        let key = key.trim().trim_start_matches('-').replace('_', "-");
        let path: Vec<&str> = std::iter::once("slurm").chain(key.splitn(2, '.')).collect();
        let origin = of_key(&origin, &key);
        // `true` and `false` are switches; everything else is read by its key.
        let kind = match value.trim() {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            value => Kind::Text(value.to_owned()),
        };
        given.put(&path, Node::new(kind, &origin));
    }
    Ok(())
}

/// Where one key of several stands: `--slurm time`.
fn of_key(origin: &Origin, key: &str) -> Origin {
    match origin {
        Origin::Flag(name) => Origin::Flag(format!("{name} {key}")),
        Origin::Variable(name) => Origin::Variable(format!("{name}: {key}")),
        origin @ (Origin::File { .. } | Origin::Preset { .. }) => origin.clone(),
    }
}

/// Lays flags and variables over the sweep, and over each of its groups.
fn over_everything(mut tree: Node, given: Node) -> Node {
    for section in ["serve", "bench", "env"] {
        let Some(above) = given.get(section).and_then(Node::entries) else { continue };
        let groups = tree.entries_mut().and_then(|map| match &mut map.get_mut("experiments")?.value.kind {
            Kind::List(groups) => Some(groups),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => None,
        });
        for group in groups.into_iter().flatten() {
            let Some(map) = group.entries_mut().and_then(|map| map.get_mut(section)?.value.entries_mut()) else {
                continue;
            };
            merge_axes(map, above.clone(), section == "env");
            map.retain(|key, _| !above.contains_key(key));
        }
    }
    let before: Vec<String> =
        tree.get("serve").and_then(Node::entries).into_iter().flat_map(IndexMap::keys).cloned().collect();
    let mut merged = merge(tree, given);
    if let Some(serve) = merged.entries_mut().and_then(|map| map.get_mut("serve")?.value.entries_mut()) {
        let added: Vec<String> = serve.keys().filter(|key| !before.contains(key)).cloned().collect();
        for key in added.iter().filter(|key| !LAST.contains(&key.as_str())) {
            let first = serve.keys().position(|key| LAST.contains(&key.as_str()));
            if let (Some(first), Some(at)) = (first, serve.get_index_of(key))
                && first < at
            {
                serve.move_index(at, first);
            }
        }
    }
    merged
}

impl Preset {
    /// Reads a preset's name.
    fn of(node: &Node, path: &str) -> Result<Self, Error> {
        let word = node.scalar().unwrap_or_default();
        let found = [Preset::Full, Preset::Sanity, Preset::None].into_iter().find(|preset| preset.name() == word);
        found.ok_or_else(|| {
            let expected = "a preset: `full`, `sanity` or `none`";
            let near = nearest(&word, ["full", "sanity", "none"].into_iter());
            Error::wrong(node, path, expected, near.map(|near| format!("did you mean `{near}`?")))
        })
    }

    /// The run settings below all presets.
    fn defaults() -> Result<Node, Diagnostic> {
        compiled_in(super::DEFAULTS, include_str!("presets/defaults.yaml"))
    }

    fn tree(self) -> Result<Node, Diagnostic> {
        match self {
            Preset::Full => compiled_in("full", include_str!("presets/full.yaml")),
            Preset::Sanity => compiled_in("sanity", include_str!("presets/sanity.yaml")),
            Preset::None => Ok(Node::map(&Origin::Preset { name: "none".to_owned(), line: 1 })),
        }
    }
}

pub(super) fn compiled_in(name: &str, text: &str) -> Result<Node, Diagnostic> {
    let place = |line, _| Origin::Preset { name: name.to_owned(), line };
    let tree = super::tree::parse_yaml(text, &place)?;
    canonical(tree.unwrap_or_else(|| Node::map(&place(1, 1))))
}

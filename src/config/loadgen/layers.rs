//! The layers of a load, as one tree: defaults, files, a scenario, variables and flags, each value with its origin. The tree has one
//! section, `bench`, as a sweep file has it: the flags of a load are keys of the same language.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, CommandFactory};

use crate::cli::{LoadArgs, LoadLine, Written};
use crate::config::assemble::compiled_in;
use crate::config::foreign::unknown;
use crate::config::language::spelling::canonical;
use crate::config::layers::{Layers, Shape, read_bool};
use crate::config::tree::{Diagnostic, Kind, Node, rivals};
use crate::config::{DEFAULTS, Environment, Error, Origin, env_file, load};
use crate::nearest::nearest;

use super::{LoadSettings, resolve};

/// The section of a sweep file in which flags of a load stand.
const SECTION: &str = "bench";

/// A flag of `load`, as clap knows it.
struct Flag {
    name: String,
    aliases: Vec<String>,
    shape: Shape,
    /// The closed set of its values; empty where any may be given.
    values: Vec<clap::builder::PossibleValue>,
}

static FLAGS: LazyLock<BTreeMap<String, Flag>> = LazyLock::new(|| {
    let command = LoadLine::command();
    let flag = |arg: &clap::Arg| {
        let name = arg.get_long()?.to_owned();
        let several = matches!(arg.get_action(), ArgAction::Append);
        let shape = match arg.get_action() {
            ArgAction::SetTrue => Shape::On,
            _ if several => Shape::Lines,
            _ => Shape::Text,
        };
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned).collect();
        let values = if matches!(shape, Shape::On) { Vec::new() } else { arg.get_possible_values() };
        Some((name.clone(), Flag { name, aliases, shape, values }))
    };
    command.get_arguments().filter_map(flag).collect()
});

/// Flags of which one takes the place of the others of its group, whatever layer they are of.
const RIVALS: [&[&str]; 5] = [
    &["completions", "compare"],
    &["max-concurrency", "concurrent-tests"],
    &["api-key-env", "api-key-file"],
    &["base-url", "host"],
    &["base-url", "port"],
];

/// Flags that are for one call: no file and no variable has them.
const ONE_CALL: [&str; 7] = ["env-file", "scenarios", "name", "simulated", "dashboard", "metrics-open", "mlflow"];

fn flag_of(key: &str) -> Option<&'static Flag> {
    FLAGS.get(key).or_else(|| FLAGS.values().find(|flag| flag.aliases.iter().any(|alias| alias == key)))
}

fn shape(key: &str) -> Option<Shape> {
    flag_of(key).map(|flag| flag.shape)
}

/// Whether a variable is a setting of a load, by its name without the prefix, as a flag.
pub fn is_setting(key: &str) -> bool {
    FLAGS.contains_key(key) && !ONE_CALL.contains(&key)
}

/// The layers of one load.
#[derive(Debug, Clone)]
pub struct LoadLayers {
    /// Defaults, files, and a scenario.
    below: Node,
    /// Variables, and flags over them.
    given: Node,
    /// What the user should know of the files.
    pub notes: Vec<String>,
    /// Variables that an environment file sets and the environment does not.
    set: Vec<(String, String)>,
}

impl LoadLayers {
    /// Reads them: flags over `VLLM_BENCH_LOAD_*` variables over the files over the defaults.
    ///
    /// # Errors
    /// When a file cannot be read or has a key that is no flag of `load`, or a switch is neither on nor off.
    pub fn read(written: &Written, files: &[PathBuf], environment: &Environment) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let mut below = compiled_in(DEFAULTS, include_str!("../presets/load.yaml"))?;
        for file in files {
            below = lay(below, of_file(file, environment, &mut notes)?);
        }
        let variables = Layers::new(BTreeMap::new(), environment, LOAD_PREFIX, shape);
        for name in variables.unknown_variables(is_setting) {
            notes.push(format!("the environment variable `{name}` is no setting of `load`"));
        }
        let flags = Layers::new(written.clone(), &Environment::default(), LOAD_PREFIX, shape);
        let tree = |layers: &Layers| {
            let mut tree = Node::map(&Origin::flag("…"));
            for flag in FLAGS.values().filter(|flag| is_setting(&flag.name) || layers.is_flag(&flag.name)) {
                if let Some(node) = layers.node(&flag.name)? {
                    tree.put(&[SECTION, &flag.name], node);
                }
            }
            Ok::<Node, Error>(tree)
        };
        let mut given = lay(tree(&variables)?, tree(&flags)?);
        let mut set = Vec::new();
        if let Some((named, asked)) = flags.one("env-file") {
            let found = env_file::of_load(&named, &asked, environment)?;
            given = lay(found.tree, given);
            notes.extend(found.notes);
            set = found.set;
        }
        Ok(Self { below, given, notes, set })
    }

    /// The same with the values of a scenario above the files and below what the user says for this call.
    #[must_use]
    pub fn with_scenario(&self, mut scenario: Node) -> Self {
        let mut layers = self.clone();
        if let Some(section) = layers.given.entries_mut().and_then(|map| map.get_mut(SECTION)?.value.entries_mut()) {
            section.shift_remove("scenarios");
        }
        std::mem::swap(&mut layers.below, &mut scenario);
        layers.below = lay(scenario, layers.below);
        layers
    }

    /// Whether anything but a default says this.
    pub fn has(&self, key: &str) -> bool {
        let is_said = |node: &Node| !matches!(node.origin, Origin::Preset { .. });
        self.given.find(&[SECTION, key]).or_else(|| self.below.find(&[SECTION, key])).is_some_and(is_said)
    }

    /// All layers as one tree.
    pub fn tree(&self) -> Node {
        lay(self.below.clone(), self.given.clone())
    }

    /// What they add up to, as flags.
    ///
    /// # Errors
    /// When a value is none of a closed set, or two flags exclude each other.
    pub fn args(&self) -> Result<LoadArgs, Error> {
        let tree = self.tree();
        let mut words = Vec::new();
        for (key, entry) in tree.get(SECTION).and_then(Node::entries).into_iter().flatten() {
            let Some(flag) = FLAGS.get(key) else { continue };
            flag.words(&entry.value, &mut words)?;
        }
        LoadLine::read(words).map_err(|error| {
            let text = error.to_string();
            let problem = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::Argument {
                origin: Origin::flag("help"),
                problem,
                hints: vec!["`vllm-bench config load` shows which layer says what".into()],
            }
        })
    }

    /// The settings of the load.
    ///
    /// # Errors
    /// When a value is none, or two contradict each other; with the place where it stands.
    pub fn settings(&self, environment: &Environment) -> Result<LoadSettings, Error> {
        resolve(&self.args()?, &environment.with(&self.set)).map_err(|error| self.placed(error))
    }

    /// An error that names a flag, at the place where its value stands.
    fn placed(&self, error: Error) -> Error {
        let tree = self.tree();
        let find = |origin: &Origin| {
            let Origin::Flag(name) = origin else { return None };
            let place = &tree.find(&[SECTION, &flag_of(name)?.name])?.origin;
            (place != origin).then(|| (place.clone(), format!("{SECTION}.{name}")))
        };
        match error {
            Error::Invalid { origin, value, expected, hint } => match find(&origin) {
                Some((place, path)) if place.is_document() => {
                    Error::wrong(&Node::text(value, &place), &path, &expected, hint)
                }
                Some((origin, _)) => Error::Invalid { origin, value, expected, hint },
                None => Error::Invalid { origin, value, expected, hint },
            },
            Error::Argument { origin, problem, hints } => match find(&origin) {
                Some((place, path)) if place.is_document() => {
                    Error::Document(Diagnostic { origin: Some(place), path, problem, hints })
                }
                Some((origin, _)) => Error::Argument { origin, problem, hints },
                None => Error::Argument { origin, problem, hints },
            },
            other => other,
        }
    }
}

/// What variables of a load begin with; the others of ours are those of a run.
pub const LOAD_PREFIX: &str = "VLLM_BENCH_LOAD_";

impl Flag {
    /// The words of a command line that say this value.
    fn words(&self, node: &Node, words: &mut Vec<String>) -> Result<(), Error> {
        let wrong = |node: &Node, expected: &str, near: Option<String>| {
            Error::wrong(node, &format!("{SECTION}.{}", self.name), expected, near)
        };
        let scalar = |node: &Node| node.scalar().ok_or_else(|| wrong(node, "a word, a number or a list of them", None));
        let texts = match (&node.kind, self.shape) {
            (Kind::Null, _) => return Ok(()),
            (_, Shape::On) => {
                let on = node.scalar().as_deref().and_then(read_bool);
                words.extend(on.is_some_and(|on| on).then(|| format!("--{}", self.name)));
                return on.map(|_| ()).ok_or_else(|| wrong(node, "`true` or `false`", None));
            }
            // A JSON object of the file is the text that the flag takes.
            (Kind::Map(_), _) => vec![crate::config::show::json(node).to_string()],
            (Kind::List(items), Shape::Lines) => items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?,
            (Kind::List(items), _) => vec![items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?.join(",")],
            _ => vec![scalar(node)?],
        };
        for text in texts {
            let is = |value: &clap::builder::PossibleValue| value.matches(&text, true);
            if !self.values.is_empty() && !self.values.iter().any(is) {
                let names: Vec<&str> = self.values.iter().map(clap::builder::PossibleValue::get_name).collect();
                let near = nearest(&text, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                return Err(wrong(node, &format!("one of {}", names.join(", ")), near));
            }
            words.push(format!("--{}={text}", self.name));
        }
        Ok(())
    }
}

/// The flags of a load in a sweep file: its section `bench`, and the model where there is one.
fn of_file(file: &std::path::Path, environment: &Environment, notes: &mut Vec<String>) -> Result<Node, Error> {
    let tree = load::load(file, environment)?;
    let scenarios = ["scenarios", "test_scenarios", "test-scenarios"];
    if let Some(entry) = tree.entries().and_then(|map| scenarios.iter().find_map(|key| map.get(*key))) {
        let trouble = Diagnostic::new(&entry.key, "", "this is a file of scenarios");
        return Err(trouble.hint(format!("run them with `--scenarios {}`", file.display())).into());
    }
    let tree = canonical(tree)?;
    let mut bench = Node::map(&tree.origin);
    let models = tree.find(&["serve", "model"]).map(|node| node.items().unwrap_or(std::slice::from_ref(node)));
    match models {
        Some([one]) => bench.put(&[SECTION, "model"], one.clone()),
        Some([_, _, ..]) => notes.push(format!("{}: it has several models: `--model` says which", file.display())),
        Some([]) | None => {}
    }
    for (key, entry) in tree.get(SECTION).and_then(Node::entries).into_iter().flatten() {
        match flag_of(key).filter(|flag| is_setting(&flag.name)) {
            Some(flag) if bench.find(&[SECTION, &flag.name]).is_some_and(|_| flag.name != "model") => {
                let problem = format!("`{}` is there already, under another name", flag.name);
                return Err(Diagnostic::new(&entry.key, SECTION, problem).hint("keep one of the two").into());
            }
            Some(flag) => bench.put(&[SECTION, &flag.name], entry.value.clone()),
            None => {
                let known: Vec<&str> = FLAGS.keys().map(String::as_str).filter(|key| is_setting(key)).collect();
                let trouble = unknown(entry, SECTION, key, &known);
                return Err(Diagnostic { problem: format!("`{key}` is no flag of `load`"), ..trouble }.into());
            }
        }
    }
    if tree.get("experiments").and_then(Node::items).is_some_and(|groups| !groups.is_empty()) {
        notes
            .push(format!("{}: a load takes the section `bench` alone, and no group of `experiments`", file.display()));
    }
    Ok(bench)
}

/// Lays a layer upon the ones below it: a flag takes the place of its rivals there, too. Rivals of one layer stay, and are refused.
fn lay(mut below: Node, above: Node) -> Node {
    let Kind::Map(mut sections) = above.kind else { return below };
    let Some(above) = sections.shift_remove(SECTION) else { return below };
    if below.get(SECTION).is_none() {
        below.put(&[SECTION], Node::map(&above.key));
    }
    let map = below.entries_mut().and_then(|map| map.get_mut(SECTION)?.value.entries_mut());
    if let (Some(map), Kind::Map(above)) = (map, above.value.kind) {
        for key in above.keys() {
            let groups = RIVALS.iter().filter(|group| group.contains(&key.as_str()));
            let others =
                groups.flat_map(|group| group.iter()).filter(|rival| *rival != key).map(|rival| (*rival).to_owned());
            for rival in others.chain(rivals(key, false)) {
                // A default is in nobody's way, and counts again where a layer above takes the other's place.
                if map.get(&rival).is_some_and(|entry| !entry.value.origin.is_default()) {
                    map.shift_remove(&rival);
                }
            }
        }
        map.extend(above);
    }
    below
}

//! Scenario files as `load --scenarios` runs them: those of the asynchronous load generator (S3), and configurations of the
//! completions benchmark (S4). Each scenario becomes a layer of a load, above the files and below variables and flags.

use std::path::Path;

use super::foreign::{entries, missing, positive, several, unknown, wrong};
use super::tree::{Diagnostic, Entry, Kind, Node};
use super::{Environment, Error, LoadLayers, Origin};
use crate::load::target::Secret;

/// A scenario as a layer of a load.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it does, in its author's words.
    pub description: Option<String>,
    /// All layers, its own among them.
    pub layers: LoadLayers,
    /// The key of the server, from the file.
    pub api_key: Option<Secret>,
}

/// Whose scenarios they are.
#[derive(Debug, Clone)]
pub enum Scenarios {
    /// S3's: requests at several concurrencies.
    Load(Vec<Scenario>),
    /// S4's: numbers of samples.
    Completions(Vec<Scenario>),
}

/// What the completions benchmark fixes.
const COMPLETIONS_MAX_TOKENS: &str = "4050";
const COMPLETIONS_TEMPERATURE: &str = "0.7";
const COMPLETIONS_CONCURRENT: &str = "20";
const SYSTEM: &str = "You are a helpful assistant.";

/// Reads the scenarios of a file, all of them or one.
///
/// # Errors
/// When the file is none of the two, or a key of it is wrong.
pub fn read_scenarios(layers: &LoadLayers, file: &Path, environment: &Environment) -> Result<Scenarios, Error> {
    let tree = super::load::load(file, environment)?;
    let map = entries(&tree, "")?;
    let of_load = map.contains_key("scenarios");
    let known: &[&str] = if of_load { &["defaults", "scenarios"] } else { &["server", "benchmark", "test-scenarios"] };
    let whole = of_load || map.contains_key("test-scenarios");
    if let Some((key, entry)) = map.iter().find(|(key, _)| whole && !known.contains(&key.as_str())) {
        return Err(unknown(entry, "", key, known).into());
    }
    let mut scenarios = if of_load {
        Scenarios::Load(load_scenarios(&tree, layers, file, environment)?)
    } else if map.contains_key("test-scenarios") {
        Scenarios::Completions(completion_scenarios(&tree, layers)?)
    } else {
        return Err(missing(&tree, "", &["scenarios"]).into());
    };
    let (Scenarios::Load(list) | Scenarios::Completions(list)) = &mut scenarios;
    if let Some(name) = &layers.args()?.name {
        let names: Vec<String> = list.iter().map(|scenario| scenario.name.clone()).collect();
        list.retain(|scenario| scenario.name == *name);
        if list.is_empty() {
            let origin = super::Origin::flag("name");
            let problem = format!("there is no scenario `{name}` in `{}`", file.display());
            return Err(Error::Argument { origin, problem, hints: vec![format!("there is: {}", names.join(", "))] });
        }
    }
    Ok(scenarios)
}

fn text(node: &Node) -> Option<String> {
    node.scalar().filter(|_| node.kind != Kind::Null)
}

/// What a scenario says of its load.
#[derive(Clone)]
struct Layer(Node);

impl Layer {
    fn new(tree: &Node) -> Self {
        Self(Node::map(&tree.origin))
    }

    /// Sets a flag, as the file says it.
    fn put(&mut self, flag: &str, value: Option<&Entry>) {
        if let Some(entry) = value.filter(|entry| entry.value.kind != Kind::Null) {
            self.0.put(&["bench", flag], entry.value.clone());
        }
    }

    /// Sets a flag as the tool fixes it whose file it is.
    fn fix(&mut self, flag: &str, value: &str) {
        self.0.put(&["bench", flag], Node::text(value, &Origin::Preset { name: "scenarios".to_owned(), line: 1 }));
    }
}

fn load_scenarios(
    tree: &Node,
    layers: &LoadLayers,
    file: &Path,
    environment: &Environment,
) -> Result<Vec<Scenario>, Error> {
    let map = entries(tree, "")?;
    let mut base = Layer::new(tree);
    base.fix("backend", "openai-chat");
    base.fix("base-url", "http://localhost:8000/v1");
    base.fix("result-dir", "results");
    base.fix("percentile-metrics", "ttft,tpot,itl,e2el");
    base.fix("metric-percentiles", "50,95,99");
    if let Some(defaults) = map.get("defaults").filter(|entry| entry.value.kind != Kind::Null) {
        for (key, entry) in entries(&defaults.value, "defaults")? {
            match key.as_str() {
                "base-url" | "model" | "temperature" => base.put(&key, Some(entry)),
                "stream" => match entry.value.kind {
                    Kind::Bool(stream) => {
                        base.0.put(&["bench", "non-streaming"], Node::new(Kind::Bool(!stream), &entry.value.origin));
                    }
                    _ => return Err(wrong(&entry.value, "defaults.stream", "`true` or `false`").into()),
                },
                _ => {
                    return Err(
                        unknown(entry, "defaults", &key, &["base-url", "model", "temperature", "stream"]).into()
                    );
                }
            }
        }
    }
    if let Some(model) = environment.get("MODEL") {
        base.0.put(&["bench", "model"], Node::text(model, &Origin::Variable("MODEL".to_owned())));
    }
    let all = map.get("scenarios").map(|entry| &entry.value);
    let list = all.and_then(Node::entries).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong(all.unwrap_or(tree), "scenarios", "a map of scenarios"))?;
    list.iter()
        .map(|(name, entry)| load_scenario(name, &entry.value, base.clone(), layers, (file, environment)))
        .collect()
}

const KEYS: [&str; 12] = [
    "description",
    "prefill-tokens",
    "max-new-tokens",
    "concurrencies",
    "num-requests",
    "requests-per-user",
    "rag",
    "prompt-file",
    "target-prefill-tokens",
    "history-turns",
    "dolly-questions",
    "temperature",
];

fn load_scenario(
    name: &str,
    node: &Node,
    mut layer: Layer,
    layers: &LoadLayers,
    (file, environment): (&Path, &Environment),
) -> Result<Scenario, Error> {
    let path = format!("scenarios.{name}");
    let map = entries(node, &path)?;
    if let Some((key, entry)) = map.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        return Err(unknown(entry, &path, key, &KEYS).into());
    }
    let required = ["prefill-tokens", "max-new-tokens", "concurrencies", "num-requests"];
    let absent: Vec<&str> = required.into_iter().filter(|key| !map.contains_key(*key)).collect();
    if !absent.is_empty() {
        return Err(missing(node, &path, &absent).into());
    }
    let number = |key: &str| -> Result<Option<&Entry>, Diagnostic> {
        let Some(entry) = map.get(key) else { return Ok(None) };
        positive(&entry.value, &format!("{path}.{key}")).map(|_| Some(*entry))
    };
    let is_rag = map.get("rag").is_some_and(|entry| entry.value.kind == Kind::Bool(true));
    let prefill = if is_rag { number("target-prefill-tokens")? } else { None }.or(number("prefill-tokens")?);
    layer.put("input-len", prefill);
    layer.put("output-len", number("max-new-tokens")?);
    layer.put("temperature", map.get("temperature").copied());
    if let Some(levels) = map.get("concurrencies") {
        let all = several(&levels.value);
        if all.is_empty() {
            return Err(wrong(&levels.value, &format!("{path}.concurrencies"), "a list of whole numbers").into());
        }
        for level in all {
            positive(level, &format!("{path}.concurrencies"))?;
        }
        layer.put("max-concurrency", Some(levels));
    }
    match number("requests-per-user")? {
        Some(each) => layer.put("num-prompts-per-concurrency", Some(each)),
        None => layer.put("num-prompts", number("num-requests")?),
    }
    if !["dataset-name", "dataset-path", "prompt"].iter().any(|key| layers.has(key)) {
        let prepared = map.get("prompt-file").and_then(|entry| Some((text(&entry.value)?, &entry.value.origin)));
        match prepared {
            Some((prepared, origin)) => {
                // Relative to the scenario file, as its authors keep them, or to where the program was called.
                let beside = environment.absolute(file).parent().map(|folder| folder.join(&prepared));
                let found = beside.filter(|path| path.is_file()).unwrap_or_else(|| environment.absolute(&prepared));
                layer.fix("dataset-name", "custom");
                layer.0.put(&["bench", "dataset-path"], Node::text(found.display().to_string(), origin));
                layer.fix("disable-shuffle", "true");
            }
            None => layer.fix("dataset-name", if is_rag { "rag" } else { "dolly" }),
        }
    }
    layer.put("history-turns", map.get("history-turns").copied());
    let description = map.get("description").and_then(|entry| text(&entry.value));
    Ok(Scenario { name: name.to_owned(), description, layers: layers.with_scenario(layer.0), api_key: None })
}

fn completion_scenarios(tree: &Node, layers: &LoadLayers) -> Result<Vec<Scenario>, Error> {
    let map = entries(tree, "")?;
    let mut base = Layer::new(tree);
    let mut api_key = None;
    base.fix("backend", "openai-chat");
    base.fix("result-dir", "res");
    base.fix("max-concurrency", COMPLETIONS_CONCURRENT);
    base.fix("temperature", COMPLETIONS_TEMPERATURE);
    base.fix("output-len", COMPLETIONS_MAX_TOKENS);
    base.fix("system-prompt", SYSTEM);
    base.fix("non-streaming", "true");
    if let Some(server) = map.get("server") {
        for (key, entry) in entries(&server.value, "server")? {
            match key.as_str() {
                "url" => base.put("base-url", Some(entry)),
                "model" => base.put("model", Some(entry)),
                "auth-token" => api_key = text(&entry.value).map(Secret::new),
                "timeout" => base.put("request-timeout", Some(entry)),
                _ => return Err(unknown(entry, "server", &key, &["url", "model", "auth-token", "timeout"]).into()),
            }
        }
    }
    let mut prompt = None;
    if let Some(benchmark) = map.get("benchmark") {
        for (key, entry) in entries(&benchmark.value, "benchmark")? {
            match key.as_str() {
                "max-concurrent-requests" => {
                    positive(&entry.value, "benchmark.max_concurrent_requests")?;
                    base.put("max-concurrency", Some(entry));
                }
                "default-prompt" => prompt = Some(entry),
                "default-completions" => {}
                _ => {
                    let known = ["max-concurrent-requests", "default-prompt", "default-completions"];
                    return Err(unknown(entry, "benchmark", &key, &known).into());
                }
            }
        }
    }
    let scenarios = map.get("test-scenarios").map(|entry| &entry.value);
    let list = scenarios.and_then(Node::items).filter(|items| !items.is_empty());
    let list = list.ok_or_else(|| wrong(scenarios.unwrap_or(tree), "test_scenarios", "a list of scenarios"))?;
    list.iter()
        .enumerate()
        .map(|(number, node)| {
            let path = format!("test_scenarios[{number}]");
            let map = entries(node, &path)?;
            let keys = ["name", "completions", "prompt"];
            if let Some((key, entry)) = map.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
                return Err(unknown(entry, &path, key, &keys).into());
            }
            let absent: Vec<&str> = ["name", "completions"].into_iter().filter(|key| !map.contains_key(*key)).collect();
            let (Some(name), Some(completions)) = (map.get("name"), map.get("completions")) else {
                return Err(missing(node, &path, &absent).into());
            };
            for number in several(&completions.value) {
                positive(number, &format!("{path}.completions"))?;
            }
            let mut layer = base.clone();
            layer.put("compare", Some(completions));
            if !layers.has("dataset-name") && !layers.has("dataset-path") {
                layer.put("prompt", map.get("prompt").copied().filter(|entry| text(&entry.value).is_some()).or(prompt));
            }
            Ok(Scenario {
                name: text(&name.value).unwrap_or_else(|| path.clone()),
                description: None,
                layers: layers.with_scenario(layer.0),
                api_key: api_key.clone(),
            })
        })
        .collect()
}

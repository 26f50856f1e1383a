//! Scenario files as `load --scenarios` runs them: those of the asynchronous load generator (S3), and configurations of the
//! completions benchmark (S4). Each scenario becomes the flags of a load; flags of the command line win.

use std::path::Path;

use super::foreign::{entries, missing, positive, several, unknown, wrong};
use super::tree::{Diagnostic, Kind, Node};
use super::{Environment, Error};
use crate::cli::{Backend, LoadArgs};
use crate::load::dataset;
use crate::load::target::Secret;

/// A scenario as flags.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it does, in its author's words.
    pub description: Option<String>,
    /// Its flags.
    pub args: LoadArgs,
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
const COMPLETIONS_CONCURRENT: u64 = 20;
const SYSTEM: &str = "You are a helpful assistant.";

/// Reads the scenarios of a file, all of them or one.
///
/// # Errors
/// When the file is none of the two, or a key of it is wrong.
pub fn read_scenarios(args: &LoadArgs, file: &Path, environment: &Environment) -> Result<Scenarios, Error> {
    let tree = super::load::load(file, environment)?;
    let map = entries(&tree, "")?;
    let of_load = map.contains_key("scenarios");
    let known: &[&str] = if of_load { &["defaults", "scenarios"] } else { &["server", "benchmark", "test-scenarios"] };
    let whole = of_load || map.contains_key("test-scenarios");
    if let Some((key, entry)) = map.iter().find(|(key, _)| whole && !known.contains(&key.as_str())) {
        return Err(unknown(entry, "", key, known).into());
    }
    let mut scenarios = if of_load {
        Scenarios::Load(load_scenarios(&tree, args, file, environment)?)
    } else if map.contains_key("test-scenarios") {
        Scenarios::Completions(completion_scenarios(&tree, args)?)
    } else {
        return Err(missing(&tree, "", &["scenarios"]).into());
    };
    let (Scenarios::Load(list) | Scenarios::Completions(list)) = &mut scenarios;
    if let Some(name) = &args.name {
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

/// Sets a flag that the command line does not.
fn default<T>(flag: &mut Option<T>, value: Option<T>) {
    if flag.is_none() {
        *flag = value;
    }
}

fn load_scenarios(
    tree: &Node,
    flags: &LoadArgs,
    file: &Path,
    environment: &Environment,
) -> Result<Vec<Scenario>, Error> {
    let map = entries(tree, "")?;
    let mut base = flags.clone();
    default(&mut base.backend, Some(Backend::OpenaiChat));
    default(&mut base.model, environment.get("MODEL").map(str::to_owned));
    if base.host.is_none() && base.port.is_none() {
        default(&mut base.base_url, Some("http://localhost:8000/v1".into()));
    }
    if let Some(defaults) = map.get("defaults").filter(|entry| entry.value.kind != Kind::Null) {
        for (key, entry) in entries(&defaults.value, "defaults")? {
            match key.as_str() {
                "base-url" if flags.base_url.is_none() && flags.host.is_none() && flags.port.is_none() => {
                    base.base_url = text(&entry.value);
                }
                "base-url" => {}
                "model" => default(&mut base.model, text(&entry.value)),
                "temperature" => default(&mut base.temperature, text(&entry.value)),
                "stream" => match entry.value.kind {
                    Kind::Bool(stream) => base.non_streaming |= !stream,
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
    let all = map.get("scenarios").map(|entry| &entry.value);
    let list = all.and_then(Node::entries).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong(all.unwrap_or(tree), "scenarios", "a map of scenarios"))?;
    list.iter().map(|(name, entry)| load_scenario(name, &entry.value, &base, file, environment)).collect()
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
    base: &LoadArgs,
    file: &Path,
    environment: &Environment,
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
    let number = |key: &str| -> Result<Option<u64>, Diagnostic> {
        map.get(key).map(|entry| positive(&entry.value, &format!("{path}.{key}"))).transpose()
    };
    let mut args = base.clone();
    let is_rag = map.get("rag").is_some_and(|entry| entry.value.kind == Kind::Bool(true));
    let prefill = if is_rag { number("target-prefill-tokens")? } else { None }.or(number("prefill-tokens")?);
    default(&mut args.prompts.input_len, prefill.map(|tokens| tokens.to_string()));
    default(&mut args.prompts.output_len, number("max-new-tokens")?.map(|tokens| tokens.to_string()));
    default(&mut args.temperature, map.get("temperature").and_then(|entry| text(&entry.value)));
    if let (Some(levels), None) = (map.get("concurrencies"), &args.max_concurrency) {
        let all = several(&levels.value);
        if all.is_empty() {
            return Err(wrong(&levels.value, &format!("{path}.concurrencies"), "a list of whole numbers").into());
        }
        let levels: Result<Vec<String>, Diagnostic> =
            all.iter().map(|level| Ok(positive(level, &format!("{path}.concurrencies"))?.to_string())).collect();
        args.max_concurrency = Some(levels?.join(","));
    }
    if args.num_prompts.is_none() && args.num_prompts_per_concurrency.is_none() {
        args.num_prompts_per_concurrency = number("requests-per-user")?.map(|number| number.to_string());
        if args.num_prompts_per_concurrency.is_none() {
            args.num_prompts = number("num-requests")?.map(|number| number.to_string());
        }
    }
    let chosen =
        args.prompts.dataset_name.is_some() || args.prompts.dataset_path.is_some() || args.prompts.prompt.is_some();
    if !chosen {
        let prepared = map.get("prompt-file").and_then(|entry| text(&entry.value));
        match prepared {
            Some(prepared) => {
                // Relative to the scenario file, as its authors keep them, or to where the program was called.
                let beside = environment.absolute(file).parent().map(|folder| folder.join(&prepared));
                let found = beside.filter(|path| path.is_file()).unwrap_or_else(|| environment.absolute(&prepared));
                args.prompts.dataset_name = Some(dataset::Name::Custom);
                args.prompts.dataset_path = Some(found.display().to_string());
                args.prompts.disable_shuffle = true;
            }
            None if is_rag => args.prompts.dataset_name = Some(dataset::Name::Rag),
            None => args.prompts.dataset_name = Some(dataset::Name::Dolly),
        }
    }
    default(&mut args.prompts.history_turns, map.get("history-turns").and_then(|entry| text(&entry.value)));
    default(&mut args.percentile_metrics, Some("ttft,tpot,itl,e2el".into()));
    default(&mut args.metric_percentiles, Some("50,95,99".into()));
    let description = map.get("description").and_then(|entry| text(&entry.value));
    Ok(Scenario { name: name.to_owned(), description, args, api_key: None })
}

fn completion_scenarios(tree: &Node, flags: &LoadArgs) -> Result<Vec<Scenario>, Error> {
    let map = entries(tree, "")?;
    let mut base = flags.clone();
    let mut api_key = None;
    default(&mut base.backend, Some(Backend::OpenaiChat));
    if let Some(server) = map.get("server") {
        for (key, entry) in entries(&server.value, "server")? {
            match key.as_str() {
                "url" if flags.host.is_none() && flags.port.is_none() => {
                    default(&mut base.base_url, text(&entry.value))
                }
                "url" => {}
                "model" => default(&mut base.model, text(&entry.value)),
                "auth-token" => api_key = text(&entry.value).map(Secret::new),
                "timeout" => default(&mut base.request_timeout, text(&entry.value)),
                _ => return Err(unknown(entry, "server", &key, &["url", "model", "auth-token", "timeout"]).into()),
            }
        }
    }
    let (mut most, mut prompt) = (COMPLETIONS_CONCURRENT, None);
    if let Some(benchmark) = map.get("benchmark") {
        for (key, entry) in entries(&benchmark.value, "benchmark")? {
            match key.as_str() {
                "max-concurrent-requests" => most = positive(&entry.value, "benchmark.max_concurrent_requests")?,
                "default-prompt" => prompt = text(&entry.value),
                "default-completions" => {}
                _ => {
                    let known = ["max-concurrent-requests", "default-prompt", "default-completions"];
                    return Err(unknown(entry, "benchmark", &key, &known).into());
                }
            }
        }
    }
    default(&mut base.max_concurrency, Some(most.to_string()));
    default(&mut base.temperature, Some(COMPLETIONS_TEMPERATURE.into()));
    default(&mut base.prompts.output_len, Some(COMPLETIONS_MAX_TOKENS.into()));
    default(&mut base.prompts.system_prompt, Some(SYSTEM.into()));
    base.non_streaming = true;
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
            let numbers: Result<Vec<String>, Diagnostic> = several(&completions.value)
                .iter()
                .map(|number| Ok(positive(number, &format!("{path}.completions"))?.to_string()))
                .collect();
            let mut args = base.clone();
            if args.compare.is_empty() && args.completions.is_none() {
                args.compare = numbers?;
            }
            let own = map.get("prompt").and_then(|entry| text(&entry.value)).or_else(|| prompt.clone());
            if args.prompts.dataset_name.is_none() && args.prompts.dataset_path.is_none() {
                default(&mut args.prompts.prompt, own);
            }
            Ok(Scenario {
                name: text(&name.value).unwrap_or_else(|| path.clone()),
                description: None,
                args,
                api_key: api_key.clone(),
            })
        })
        .collect()
}

//! The experiment files of the SLURM sweep (datatrove's inference benchmark): `fixed_args`, `experiments`.
//!
//! Its own defaults are filled in for every setting of vLLM, so that a value that is written and one that is left out
//! are the same setting, as they are there. What SLURM needs is put under `slurm`, and acts where the executor is `slurm`; what the
//! data pipeline needs is kept under `pipeline`. The prompts are those of its data set where the built-in client sends them
//! (`cluster_prompts`), else random ones of the same room.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::cluster_prompts::{self, PROMPTS};
use super::{Draft, Translated, dashes, entries, missing, number, positive, several, unknown, wrong};
use crate::config::Origin;
use crate::config::tree::{Diagnostic, Entry, Kind, Node};
use crate::model::Client;

const FORMAT: &str = "an experiment file of the SLURM sweep";

/// Arguments that are flags of `vllm serve`: theirs, ours, their default (empty = left out).
const SERVE: [(&str, &str, &str); 14] = [
    ("model-name-or-path", "model", "Qwen/Qwen3-0.6B"),
    ("model-revision", "revision", ""),
    ("trust-remote-code", "trust-remote-code", ""),
    ("model-max-context", "max-model-len", "32768"),
    ("max-num-seqs", "max-num-seqs", "256"),
    ("max-num-batched-tokens", "max-num-batched-tokens", "8192"),
    ("gpu-memory-utilization", "gpu-memory-utilization", "0.9"),
    ("block-size", "block-size", "16"),
    ("kv-cache-dtype", "kv-cache-dtype", "auto"),
    ("optimization-level", "optimization-level", "3"),
    ("speculative-config", "speculative-config", ""),
    ("tp", "tensor-parallel-size", "1"),
    ("pp", "pipeline-parallel-size", "1"),
    ("dp", "data-parallel-size", "1"),
];

/// Arguments that are flags of `vllm bench serve`.
const BENCH: [(&str, &str, &str); 7] = [
    ("max-concurrent-generations", "max-concurrency", "500"),
    ("max-examples", "num-prompts", ""),
    ("max-tokens", "random-output-len", "16384"),
    ("seed", "seed", ""),
    ("temperature", "temperature", ""),
    ("top-p", "top-p", ""),
    ("top-k", "top-k", ""),
];

/// The flag that its program sets beside an fp8 KV cache.
pub(super) const KV_SCALES: &str = "calculate-kv-scales";

/// Arguments of SLURM: keys of `slurm`.
const SLURM: [&str; 9] =
    ["qos", "time", "partition", "account", "reservation", "nodes-per-task", "cpus-per-gpu", "mem-per-cpu", "sbatch"];

/// Arguments of the data pipeline. `tasks` and `workers` are those of one run there, which is one task here.
const PIPELINE: [&str; 13] = [
    "benchmark-mode",
    "workers",
    "tasks",
    "local-execution",
    "enable-monitoring",
    "metric-interval",
    "examples-per-chunk",
    "output-dataset-name",
    "output-private",
    "output-dir",
    "server-type",
    "gdn-prefill-backend",
    "job-name",
];

pub(super) fn translate(tree: &Node, client: Client) -> Result<Translated, Diagnostic> {
    let mut draft = Draft::new(&tree.origin);
    let top = ["script", "continue-on-failure", "fixed-args", "experiments"];
    let map = entries(tree, "")?;
    for (key, entry) in &map {
        if !top.contains(&key.as_str()) {
            return Err(unknown(entry, "", key, &top));
        }
    }
    if let Some(script) = map.get("script") {
        draft.note(&script.value, "`script` is not run: vllm-bench runs `vllm bench serve` itself");
    }
    if let Some(flag) = map.get("continue-on-failure") {
        let word = if flag.value.kind == Kind::Bool(false) { "stop" } else { "continue" };
        draft.tree.put(&["on-failure"], Node::text(word, &flag.value.origin));
    }
    let fixed = match map.get("fixed-args") {
        Some(entry) if entry.value.kind != Kind::Null => arguments(&entry.value, "fixed_args")?,
        Some(_) | None => IndexMap::new(),
    };
    let experiments = map.get("experiments").ok_or_else(|| missing(tree, "", &["experiments"]))?;
    let list = experiments.value.items().filter(|items| !items.is_empty());
    let list = list.ok_or_else(|| wrong(&experiments.value, "experiments", "a list of experiments"))?;
    for (i, experiment) in list.iter().enumerate() {
        add(&mut draft, &fixed, experiment, &format!("experiments[{i}]"), client)?;
    }
    Ok(Translated { implied: &[KV_SCALES], ..draft.finish(FORMAT) })
}

/// Arguments by their names with dashes, each one known.
fn arguments<'n>(node: &'n Node, path: &str) -> Result<IndexMap<String, &'n Entry>, Diagnostic> {
    let map = entries(node, path)?;
    let known: Vec<&str> = SERVE
        .iter()
        .chain(&BENCH)
        .map(|(key, _, _)| *key)
        .chain(SLURM)
        .chain(PIPELINE)
        .chain(PROMPTS)
        .chain(["quantization"])
        .collect();
    for (key, entry) in &map {
        if key == "name" {
            return Err(Diagnostic::new(&entry.key, &format!("{path}.name"), "`name` stands beside `args`, not in it")
                .hint("move it up, to the `name` of the experiment"));
        }
        if !known.contains(&key.as_str()) {
            return Err(unknown(entry, path, key, &known));
        }
    }
    Ok(map)
}

fn add(
    draft: &mut Draft,
    fixed: &IndexMap<String, &Entry>,
    experiment: &Node,
    path: &str,
    client: Client,
) -> Result<(), Diagnostic> {
    let map = entries(experiment, path)?;
    if let Some((key, entry)) = map.iter().find(|(key, _)| !["name", "args"].contains(&key.as_str())) {
        return Err(unknown(entry, path, key, &["name", "args"]));
    }
    let name = map.get("name").ok_or_else(|| missing(experiment, path, &["name"]))?.value.clone();
    let mut merged = fixed.clone();
    if let Some(args) = map.get("args").filter(|args| args.value.kind != Kind::Null) {
        merged.extend(arguments(&args.value, &format!("{path}.args"))?);
    }
    keep(draft, &merged, client);
    let caches = caches(&merged, &experiment.origin)?;
    let loads = match client {
        Client::Vllm => random_loads(&merged, experiment, path)?,
        Client::Builtin => cluster_prompts::loads(draft, &merged, experiment, path)?,
    };
    for (context, load) in &loads {
        for (cache, scales) in &caches {
            let mut serve = Node::map(&experiment.origin);
            let mut bench = Node::map(&experiment.origin);
            for (theirs, ours, default) in SERVE {
                put(&mut serve, ours, merged.get(theirs).map(|e| &e.value), default, theirs, &experiment.origin)?;
            }
            put(
                &mut serve,
                "quantization",
                merged.get("quantization").map(|e| &e.value),
                "",
                "quantization",
                &experiment.origin,
            )?;
            for (theirs, ours, default) in BENCH.into_iter().filter(|(key, ..)| *key != "max-tokens") {
                put(&mut bench, ours, merged.get(theirs).map(|e| &e.value), default, theirs, &experiment.origin)?;
            }
            serve.put(&["dtype"], Node::text("bfloat16", &experiment.origin));
            serve.put(&["max-model-len"], context.clone());
            serve.put(&["kv-cache-dtype"], cache.clone());
            if *scales {
                serve.put(&[KV_SCALES], Node::new(Kind::Bool(true), &cache.origin));
            }
            for (key, value) in load {
                bench.put(&[key], value.clone());
            }
            let group = draft.group(&name);
            group.put(&["serve"], serve);
            group.put(&["bench"], bench);
            group.put(&["env", "USE_TF"], Node::new(Kind::Number("0".into()), &experiment.origin));
        }
    }
    if let Some(examples) = merged.get("max-examples").filter(|e| e.value.scalar().as_deref() == Some("-1")) {
        draft.note(
            &examples.value,
            "`max-examples: -1` (the whole data set) leaves `num-prompts` to the client's default",
        );
    }
    Ok(())
}

/// A load: the context that it needs, and what `bench` has beside the arguments of its own name.
pub(super) type Loads = Vec<(Node, Vec<(&'static str, Node)>)>;

/// The prompt's length follows from two arguments: where they are axes, each pair is a group.
fn random_loads(merged: &IndexMap<String, &Entry>, experiment: &Node, path: &str) -> Result<Loads, Diagnostic> {
    let origin = &experiment.origin;
    let outputs = choices(merged, "max-tokens", 16384, experiment, path)?;
    let mut loads = Loads::new();
    for (context, context_node) in choices(merged, "model-max-context", 32768, experiment, path)? {
        for (output, output_node) in &outputs {
            let load = vec![
                ("random-output-len", output_node.clone()),
                ("dataset-name", Node::text("random", origin)),
                ("ignore-eos", Node::new(Kind::Bool(true), origin)),
                ("random-input-len", number(context.saturating_sub(*output).max(1), output_node)),
            ];
            loads.push((context_node.clone(), load));
        }
    }
    Ok(loads)
}

/// Types of the KV cache, those of fp8 apart: beside them the format's program sets `calculate_kv_scales`.
fn caches(merged: &IndexMap<String, &Entry>, origin: &Origin) -> Result<Vec<(Node, bool)>, Diagnostic> {
    let mut all = Node::map(origin);
    put(&mut all, "kv", merged.get("kv-cache-dtype").map(|e| &e.value), "auto", "kv-cache-dtype", origin)?;
    let Some(node) = all.get("kv") else { return Ok(vec![(Node::text("auto", origin), false)]) };
    let is_fp8 = |node: &Node| node.scalar().is_some_and(|text| text.starts_with("fp8"));
    let (fp8, others): (Vec<&Node>, Vec<&Node>) = several(node).into_iter().partition(|node| is_fp8(node));
    let one_or_list = |nodes: Vec<&Node>, scales: bool| match nodes.as_slice() {
        [] => None,
        [one] => Some(((*one).clone(), scales)),
        _ => Some((Node::list(nodes.into_iter().cloned().collect(), &node.origin), scales)),
    };
    Ok([one_or_list(others, false), one_or_list(fp8, true)].into_iter().flatten().collect())
}

/// The values of an argument, as numbers.
pub(super) fn choices(
    merged: &IndexMap<String, &Entry>,
    key: &str,
    default: u64,
    experiment: &Node,
    path: &str,
) -> Result<Vec<(u64, Node)>, Diagnostic> {
    match merged.get(key) {
        Some(entry) => several(&entry.value)
            .into_iter()
            .map(|node| Ok((positive(node, &format!("{path}.args.{key}"))?, node.clone())))
            .collect(),
        None => Ok(vec![(default, number(default, experiment))]),
    }
}

/// Puts an argument's values, or its default, under our name.
pub(super) fn put(
    target: &mut Node,
    ours: &str,
    given: Option<&Node>,
    default: &str,
    theirs: &str,
    origin: &Origin,
) -> Result<(), Diagnostic> {
    let Some(given) = given else {
        if !default.is_empty() {
            target.put(&[ours], Node::text(default, origin));
        }
        return Ok(());
    };
    let values =
        several(given).into_iter().map(|node| value(node, theirs)).collect::<Result<Vec<Node>, Diagnostic>>()?;
    let node = match values.as_slice() {
        [one] => one.clone(),
        _ => Node::list(values, &given.origin),
    };
    target.put(&[ours], node);
    Ok(())
}

/// One value: `None`, `null` and nothing are off; what the format's program would refuse is refused.
fn value(node: &Node, theirs: &str) -> Result<Node, Diagnostic> {
    let text = node.scalar().unwrap_or_default();
    let off = node.kind == Kind::Null
        || node.scalar().is_some_and(|t| ["", "none", "null"].contains(&t.to_lowercase().as_str()));
    let null = || Node::new(Kind::Null, &node.origin);
    let refuse = |expected: &str| Err(wrong(node, theirs, expected));
    match theirs {
        "quantization" if off => Ok(null()),
        "quantization" if text != "bitsandbytes" => refuse("`bitsandbytes`, or `None`"),
        "kv-cache-dtype" if !["auto", "fp8_e4m3", "fp8_e5m2"].contains(&text.as_str()) => {
            refuse("`auto`, `fp8_e4m3` or `fp8_e5m2`")
        }
        "speculative-config" if off => Ok(null()),
        "speculative-config" => speculation(node),
        "model-revision" if text == "main" => Ok(null()),
        "max-examples" if text == "-1" => Ok(null()),
        _ if off => Ok(null()),
        _ if node.scalar().is_none() => refuse("a word or a number"),
        _ => Ok(node.clone()),
    }
}

/// ngram gets the look-up length that the format's program gives it; JSON is written compactly.
fn speculation(node: &Node) -> Result<Node, Diagnostic> {
    let json: Option<Json> = match &node.kind {
        Kind::Text(text) => serde_json::from_str(text).ok(),
        Kind::Map(_) => Some(json(node)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::List(_) => None,
    };
    let Some(Json::Object(mut map)) = json else {
        return Err(wrong(node, "speculative-config", "a JSON object, or `None`"));
    };
    if map.get("method").and_then(Json::as_str) == Some("ngram") {
        let tokens = map.get("num_speculative_tokens").and_then(Json::as_u64).unwrap_or_default();
        map.insert("prompt_lookup_max".to_owned(), tokens.saturating_sub(1).into());
    }
    Ok(Node::text(Json::Object(map).to_string(), &node.origin))
}

fn json(node: &Node) -> Json {
    match &node.kind {
        Kind::Null => Json::Null,
        Kind::Bool(on) => (*on).into(),
        Kind::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Kind::Text(text) => text.clone().into(),
        Kind::List(items) => items.iter().map(json).collect(),
        Kind::Map(map) => Json::Object(map.iter().map(|(key, entry)| (key.clone(), json(&entry.value))).collect()),
    }
}

/// What is for SLURM acts there; what is for the data pipeline is kept, and said to have no effect.
fn keep(draft: &mut Draft, merged: &IndexMap<String, &Entry>, client: Client) {
    let of_prompts = |key: &str| client == Client::Vllm && PROMPTS.contains(&key);
    let of_pipeline = |key: &str| PIPELINE.contains(&key) || of_prompts(key);
    let kept: Vec<(&String, &&Entry)> = merged.iter().filter(|(key, _)| of_pipeline(key)).collect();
    if let Some((_, first)) = kept.first() {
        let names: Vec<&str> = kept.iter().map(|(key, _)| key.as_str()).collect();
        let random = if kept.iter().any(|(key, _)| of_prompts(key)) {
            " (prompts are random, of model-max-context - max-tokens tokens; `--client builtin` sends those of the data set)"
        } else {
            ""
        };
        draft.note(&first.value, &format!("{}: kept with the run, without effect{random}", names.join(", ")));
    }
    let cluster: Vec<(&String, &&Entry)> = merged.iter().filter(|(key, _)| SLURM.contains(&key.as_str())).collect();
    if let Some((_, first)) = cluster.first() {
        let names: Vec<&str> = cluster.iter().map(|(key, _)| key.as_str()).collect();
        let text = format!("{}: taken over under `slurm`, in effect with `--executor slurm`", names.join(", "));
        draft.note(&first.value, &text);
    }
    for (key, entry) in cluster.into_iter().chain(kept) {
        let pair = key.as_str() == "prompt-template"
            && entry.value.items().is_some_and(|items| items.iter().all(|item| item.items().is_none()));
        let several = entry.value.items().filter(|items| !pair && items.len() > 1);
        if several.is_some() {
            draft.note(&entry.value, &format!("the values of `{key}` make no difference to what is measured"));
        }
        let is_slurm = SLURM.contains(&key.as_str());
        let first = entry.value.items().and_then(<[Node]>::first).filter(|_| is_slurm);
        let section = if is_slurm { "slurm" } else { "pipeline" };
        draft.tree.put(&[section, &dashes(key)], first.unwrap_or(&entry.value).clone());
    }
}

//! The settings of a run that exists: how its manifest keeps them, and how they lie below flags that are given again.
//!
//! Every layer of then stands directly below the same layer of now: a flag of now wins over a flag of then, which wins over a
//! variable of now, and so on; a preset of now never wins. So a run that is named brings everything back, and a variable that
//! a flag had overruled at the beginning does not come through when the flag is not repeated.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::HIDDEN;
use super::tree::{Entry, Kind, Node, merge};
use super::{Origin, is_secret_entry, show};
use crate::mlflow::Place;
use crate::notify;

/// How to run, beside what is measured: these come back even where the plan is another one (`--extend`).
const HOW_TO_RUN: [&str; 30] = [
    "warmup",
    "cooldown",
    "telemetry",
    "timeouts",
    "retry",
    "on-failure",
    "skip-failure-reasons",
    "preflight",
    "name",
    "port",
    "timezone",
    "setvars",
    "login",
    "vllm-bin",
    "container",
    "keep-foreign",
    "device-locks",
    "show-logs",
    "pushgateway",
    "slo",
    "objective",
    "parallel",
    "parallel-threshold",
    "finalists",
    "reuse",
    "executor",
    "slurm",
    "mlflow",
    "notify",
    // The same machine is played on: another seed would be another experiment, which no table tells from the first.
    "sim",
];

/// The settings of a run that exists.
#[derive(Debug, Clone)]
pub struct Kept {
    tree: Node,
}

impl Kept {
    /// What a manifest keeps of a resolved tree: all of it, but for the values of secrets.
    pub(super) fn of(mut tree: Node) -> Self {
        hide(&mut tree);
        hide_addresses(&mut tree);
        let groups = tree.entries_mut().and_then(|map| map.get_mut("experiments"));
        if let Some(Kind::List(groups)) = groups.map(|entry| &mut entry.value.kind) {
            groups.iter_mut().for_each(hide);
        }
        Self { tree }
    }

    /// Reads what [`Kept::to_json`] made.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(json: &Json) -> Result<Self, serde_json::Error> {
        serde::Deserialize::deserialize(json).map(|tree| Self { tree })
    }

    /// The tree with its origins, for the manifest; null where it cannot be written.
    pub fn to_json(&self) -> Json {
        serde_json::to_value(&self.tree).unwrap_or_default()
    }

    /// Only how to run: what is measured is said anew.
    #[must_use]
    pub fn how_to_run(mut self) -> Self {
        if let Some(map) = self.tree.entries_mut() {
            map.retain(|key, _| HOW_TO_RUN.contains(&key.as_str()));
        }
        self
    }

    /// All of it but the name, which is that of one run alone.
    #[must_use]
    pub fn without_name(mut self) -> Self {
        if let Some(map) = self.tree.entries_mut() {
            map.shift_remove("name");
        }
        self
    }

    /// Every setting, flat: key path -> value and origin.
    pub fn record(&self) -> IndexMap<String, (Json, String)> {
        show::record(&self.tree, true)
    }

    /// Whether it says what is measured, and not only how.
    pub(super) fn is_whole(&self) -> bool {
        self.tree.get("serve").is_some()
    }

    /// The tree.
    pub(super) fn tree(&self) -> &Node {
        &self.tree
    }

    /// What flags and variables of then say, with those of now over it.
    pub(super) fn below(&self, mut now: Node) -> Node {
        let mut then = Node::map(&self.tree.origin);
        walk(&self.tree, &mut Vec::new(), &mut |path, node| {
            if rank(&node.origin) >= VARIABLE {
                then.put(path, node.clone());
            }
        });
        let mut overruled: Vec<Vec<String>> = Vec::new();
        walk(&now, &mut Vec::new(), &mut |path, node| {
            if then.find(path).is_some_and(|then| rank(&then.origin) > rank(&node.origin)) {
                overruled.push(path.iter().map(|key| (*key).to_owned()).collect());
            }
        });
        overruled.iter().for_each(|path| remove(&mut now, path));
        merge(then, now)
    }

    /// Lays how to run over a tree that was made without it, wherever that holds nothing better.
    pub(super) fn over(&self, mut tree: Node) -> Node {
        let mut better = Node::map(&self.tree.origin);
        walk(&self.tree, &mut Vec::new(), &mut |path, node| {
            let now = tree.find(path).map_or(0, |now| rank(&now.origin));
            if now == 0 || rank(&node.origin) > now {
                better.put(path, node.clone());
            }
        });
        tree = merge(tree, better);
        tree
    }
}

/// The rank of what an environment variable says.
const VARIABLE: u8 = 2;

/// Which of two values counts: the one with the higher rank.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Preset { .. } => 0,
        Origin::File { .. } => 1,
        Origin::Variable(_) => VARIABLE,
        Origin::Flag(_) => 3,
    }
}

/// Calls `see` for every value: sections and other maps key by key, lists as a whole. Not for the preset's name, which is
/// spent when its values are in the tree.
fn walk<'n>(node: &'n Node, path: &mut Vec<&'n str>, see: &mut impl FnMut(&[&str], &Node)) {
    for (key, entry) in node.entries().into_iter().flatten() {
        if path.is_empty() && key == "preset" {
            continue;
        }
        path.push(key);
        match &entry.value.kind {
            Kind::Map(map) if !map.is_empty() && path.len() == 1 => walk(&entry.value, path, see),
            _ => see(path, &entry.value),
        }
        path.pop();
    }
}

fn remove(tree: &mut Node, path: &[String]) {
    let Some((last, above)) = path.split_last() else { return };
    let mut node = Some(tree);
    for key in above {
        node = node.and_then(|node| node.entries_mut()?.get_mut(key)).map(|entry| &mut entry.value);
    }
    if let Some(map) = node.and_then(Node::entries_mut) {
        map.shift_remove(last);
    }
}

/// An address with a user and a password is kept as none at all: it must be said again.
pub(super) fn hide_login(tree: &mut Node) {
    let Some(entry) = tree.entries_mut().and_then(|map| map.get_mut("pushgateway")) else { return };
    if entry.value.scalar().is_some_and(|text| text.contains('@')) {
        entry.value.kind = Kind::Text(HIDDEN.to_owned());
    }
}

/// Takes the values of secret variables out of a section `env`.
fn hide(node: &mut Node) {
    let env = node.entries_mut().and_then(|map| map.get_mut("env")?.value.entries_mut());
    let secrets = env.into_iter().flatten().filter(|(name, entry)| is_secret_entry(name, &entry.value));
    for Entry { value, .. } in secrets.map(|(_, entry)| entry) {
        if value.kind != Kind::Null {
            value.kind = Kind::Text(HIDDEN.to_owned());
        }
    }
}

/// Takes user and password out of `mlflow`, and what is behind the host out of the webhooks of `notify`.
pub(super) fn hide_addresses(tree: &mut Node) {
    let change = |node: &mut Node, safe: &dyn Fn(&str) -> Option<String>| {
        if let Some(text) = node.scalar().and_then(|text| safe(&text)) {
            node.kind = Kind::Text(text);
        }
    };
    let Some(map) = tree.entries_mut() else { return };
    if let Some(entry) = map.get_mut("mlflow") {
        change(&mut entry.value, &|text| {
            Place::parse(text).filter(|place| place.user.is_some()).map(|place| place.base)
        });
    }
    match map.get_mut("notify").map(|entry| &mut entry.value) {
        Some(Node { kind: Kind::List(items), .. }) => items.iter_mut().for_each(|item| change(item, &notify::hidden)),
        Some(one) => change(one, &notify::hidden),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, RunArgs};
    use crate::config::{Environment, Preset, Settings, setting_keys};

    fn args(words: &[String]) -> RunArgs {
        let words = ["vllm-bench".to_owned(), "run".to_owned()].into_iter().chain(words.iter().cloned());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => *args,
            _ => unreachable!(),
        }
    }

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// Settings made anew, in a directory of their own.
    fn fresh(words: &[String], vars: &[(&str, &str)]) -> Settings {
        Settings::resolve(&args(words), &Environment::of(vars, Path::new("/begun")), Preset::Full).unwrap()
    }

    /// Settings of a run that goes on, called from elsewhere, after its manifest was written and read.
    fn again(run: &Settings, words: &[String], vars: &[(&str, &str)]) -> Settings {
        let kept = Kept::from_json(&serde_json::from_str(&run.kept().to_json().to_string()).unwrap()).unwrap();
        let environment = Environment::of(vars, Path::new("/elsewhere"));
        Settings::resolve_over(&args(words), &environment, Preset::Full, Some(&kept)).unwrap()
    }

    /// Everything that settings mean, without where it stood.
    fn meaning(settings: &Settings) -> String {
        format!(
            "{:?}",
            (
                (
                    &settings.sweep,
                    &settings.name,
                    &settings.results_dir,
                    settings.port,
                    &settings.setvars,
                    &settings.vllm_bin,
                    &settings.device_locks
                ),
                (
                    settings.start_limit,
                    settings.timeout_benchmark,
                    settings.grace,
                    settings.cooldown,
                    settings.telemetry
                ),
                (
                    settings.stall,
                    settings.zone,
                    settings.keep_foreign,
                    settings.show_logs,
                    &settings.pushgateway,
                    settings.preflight,
                    settings.login,
                    &settings.slo
                ),
                (&settings.retry, settings.on_failure, &settings.skip_failure_reasons, settings.warmup_prompts),
                (&settings.simulation, settings.objective.as_ref().and_then(|raw| raw.node.scalar())),
                (settings.place, &settings.slurm, &settings.container),
                (settings.parallel, settings.parallel_threshold, settings.finalists),
                (&settings.mlflow, &settings.notify),
            )
        )
    }

    /// A value that is none of the defaults, and what else it needs; `None` where it is for one call and no part of a run.
    fn example(key: &str) -> Option<(&'static str, &'static [&'static str])> {
        Some(match key {
            // Of an environment file the values come back.
            "yes" | "extend" | "env-file" => return None,
            "login" => ("off", &[]),
            "models" => ("org/other,./local", &[]),
            "tp" => ("2", &[]),
            "quantization" => ("fp8,none", &[]),
            "enforce-eager" => ("true", &[]),
            "no-rule" => ("fp8-needs-eager", &[]),
            "max-model-len" => ("2048", &["--input-len=8", "--output-len=8"]),
            "input-len" | "output-len" => ("77", &[]),
            "concurrency" => ("3", &[]),
            "num-prompts" => ("9", &[]),
            "runs" | "starts" => ("2", &[]),
            "max-starts" => ("5", &["--starts=auto"]),
            "order" => ("interleaved", &[]),
            "order-seed" => ("7", &["--order=random"]),
            "no-reuse" | "no-preflight" | "keep-foreign" | "show-logs" => ("true", &[]),
            "warmup" => ("8", &[]),
            "cooldown" | "telemetry" => ("2s", &[]),
            "timeout-startup" => ("77s+", &[]),
            "timeout-benchmark" | "grace" | "stall-timeout" => ("77s", &[]),
            "objective" => ("mean_ttft_ms", &[]),
            "on-failure" => ("stop", &[]),
            "skip-failure-reasons" => ("oom", &[]),
            "pushgateway" => ("http://gateway:9091", &[]),
            "name" => ("first try", &[]),
            "port" => ("auto", &[]),
            "results-dir" => ("results", &[]),
            "device-locks" => ("locks", &[]),
            "timezone" => ("UTC", &[]),
            "setvars" => ("oneapi/setvars.sh", &[]),
            "vllm-bin" => ("bin/vllm", &[]),
            "container" => ("vllm/vllm-openai:v0.14.1", &[]),
            "container-runtime" => ("podman", &["--container=x"]),
            "container-arg" => ("--privileged", &["--container=x"]),
            "engine" => ("sim", &[]),
            "client" => ("builtin", &[]),
            "executor" => ("slurm", &[]),
            "slurm" => ("partition=main", &[]),
            "sim-speed" => ("50", &["--engine=sim"]),
            "sim-seed" => ("5", &["--engine=sim"]),
            "sim-devices" => ("2", &["--engine=sim"]),
            "sim-device-memory" => ("12", &["--engine=sim"]),
            "sim-noise" => ("5%", &["--engine=sim"]),
            "sim-noise-within" => ("0", &["--engine=sim"]),
            "sim-drift" => ("0.1%", &["--engine=sim"]),
            "sim-outliers" => ("10%", &["--engine=sim"]),
            "sim-interference" => ("5%", &["--engine=sim"]),
            "parallel" => ("auto", &[]),
            "parallel-threshold" => ("5%", &[]),
            "finalists" => ("off", &[]),
            "mlflow" => ("http://tracking:5000", &[]),
            "notify" => ("notify-send 'a run'", &[]),
            "sim-fault" => ("network@eager=false#1", &["--engine=sim"]),
            "serve-arg" => ("max-num-seqs=0.50", &[]),
            "bench-arg" => ("no:dataset-name", &[]),
            "env" => ("HF_TOKEN=hf_planted", &[]),
            "retry" => ("crash=5", &[]),
            "preset" => ("sanity", &[]),
            other => panic!("say here how `{other}` comes back, or why it is for one call only"),
        })
    }

    #[test]
    fn every_setting_comes_back_from_the_manifest_or_is_for_one_call_only() {
        for (key, _) in setting_keys() {
            let Some((value, more)) = example(key) else { continue };
            let switch = ["no-reuse", "no-preflight", "keep-foreign", "show-logs"].contains(&key);
            let flag = if switch { format!("--{key}") } else { format!("--{key}={value}") };
            let variable = format!("VLLM_BENCH_{}", key.to_ascii_uppercase().replace('-', "_"));
            let given: Vec<String> = words(more).into_iter().chain([flag]).collect();
            let by_flag = fresh(&given, &[]);
            let by_variable = fresh(&words(more), &[(&variable, value)]);
            assert_ne!(
                meaning(&by_flag),
                meaning(&fresh(&words(more), &[])),
                "the example for `{key}` changes nothing"
            );
            for run in [by_flag, by_variable] {
                let back = again(&run, &[], &[]);
                assert_eq!(meaning(&back), meaning(&run), "{key}");
                assert!(back.secret_env.is_empty(), "the values of secrets come from the environment: {key}");
                assert_eq!(meaning(&again(&back, &[], &[])), meaning(&run), "and once more: {key}");
                // Said again, it is the same. A path is another one from elsewhere.
                if !["results-dir", "setvars", "vllm-bin", "device-locks"].contains(&key) {
                    assert_eq!(meaning(&again(&run, &given, &[])), meaning(&run), "{key}");
                }
            }
        }
        let text = fresh(&words(&["--env=HF_TOKEN=hf_planted", "--env=A=b"]), &[]).kept().to_json().to_string();
        assert!(text.contains("HF_TOKEN") && !text.contains("hf_planted"), "{text}");
    }

    #[test]
    fn what_a_sweep_file_says_comes_back_without_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("sweep.yaml"),
            "preset: sanity\nserve: {max-num-seqs: [64, pow2:128..256]}\nenv: {HF_TOKEN: hf_planted, A: [1, 2]}\n\
             experiments:\n  - {name: first, serve: {dtype: float16, tp: [1, 2]}}\n  - {}\n\
             exclude: [{when: {max-num-seqs: '> 64'}, name: big}]\nrules: {big: false}\nslo: {ttft: {p99: 200}}\n\
             retry: {crash: {attempts: 2, back-off: 3s}}\nkeep-foreign: true\nport: 8100\ntimeouts: {grace: 9s}\n\
             on-failure: stop\nwarmup: 4\nbaseline: first\ndevices: 4\nlink: [{max-num-seqs: max-concurrency}]\n",
        )
        .unwrap();
        let begun = Environment::of(&[], dir.path());
        let run = Settings::resolve(&args(&words(&["sweep.yaml", "--tp=4"])), &begun, Preset::Full).unwrap();
        assert_eq!(meaning(&again(&run, &[], &[])), meaning(&run));
        assert_eq!((run.kept().record()["keep-foreign"].1.as_str(), run.grace.as_secs()), ("sweep.yaml:11", 9));
        // The same file again, with or without the flag, adds nothing to its lists and loses nothing to it.
        let kept = run.kept();
        for call in [&["sweep.yaml"][..], &["sweep.yaml", "--tp=4"]] {
            let same = Settings::resolve_over(&args(&words(call)), &begun, Preset::Full, Some(&kept)).unwrap();
            assert_eq!(meaning(&same), meaning(&run), "{call:?}");
        }
        let how =
            Settings::resolve_over(&args(&words(&["--port=auto"])), &begun, Preset::Full, Some(&kept.how_to_run()));
        let how = how.unwrap();
        assert!(how.keep_foreign && how.grace.as_secs() == 9 && how.warmup_prompts == 4);
        assert_eq!(how.port, crate::config::PortChoice::Auto);
        assert_eq!(how.sweep.groups.len(), 1, "what is measured is said anew");
    }

    #[test]
    fn flags_win_over_the_run_and_the_run_over_variables_that_its_flags_had_overruled() {
        let port = |settings: &Settings| format!("{:?}", settings.port);
        let run = fresh(&words(&["--port=9000"]), &[("VLLM_BENCH_PORT", "9001")]);
        assert_eq!(port(&again(&run, &[], &[("VLLM_BENCH_PORT", "9001")])), "Fixed(9000)");
        assert_eq!(port(&again(&run, &words(&["--port=9002"]), &[("VLLM_BENCH_PORT", "9001")])), "Fixed(9002)");
        let run = fresh(&[], &[]);
        assert_eq!(port(&again(&run, &[], &[("VLLM_BENCH_PORT", "9001")])), "Fixed(9001)");
        let run = fresh(&words(&["--preset=sanity", "--timeout-startup=5"]), &[]);
        assert_eq!(again(&run, &words(&["--preset=sanity"]), &[]).start_limit.limit.as_secs(), 5);
    }
}

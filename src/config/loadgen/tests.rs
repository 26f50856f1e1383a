//! Flags, variables and files of a load, and what they come to.

use std::path::Path;

use super::*;
use crate::cli::LoadLine;
use crate::load::arrival::Arrival;

/// Flags, variables and files, as layers.
fn layers(line: &str, vars: &[(&str, &str)], dir: &Path) -> Result<LoadLayers, Error> {
    let args = LoadLine::read(line.split_whitespace().map(str::to_owned)).unwrap();
    LoadLayers::read(&args.written, &args.files, &Environment::of(vars, dir))
}

fn load_with(line: &str, vars: &[(&str, &str)], dir: &Path) -> Result<LoadSettings, Error> {
    layers(line, vars, dir)?.settings(&Environment::of(vars, dir))
}

fn load(line: &str) -> Result<LoadSettings, Error> {
    load_with(line, &[("OPENAI_API_KEY", "sk-x")], Path::new("/"))
}

#[test]
fn the_defaults_are_those_of_vllm_s_client() {
    let settings = load("").unwrap();
    assert_eq!((settings.base_url.as_str(), settings.endpoint.as_str()), ("http://127.0.0.1:8000", "/v1/completions"));
    let point = Point {
        max_concurrency: None,
        request_rate: f64::INFINITY,
        num_prompts: Some(1000),
        input_len: 1024,
        output_len: Some(128),
        arrival: Arrival::Closed,
        n: 1,
        completions: None,
        run: 1,
    };
    assert_eq!(settings.points, [point]);
    assert!(settings.ignore_eos && settings.stream && settings.api_key.is_some());
    let warmups = |line: &str| {
        let settings = load(line).unwrap();
        settings.warmups(&settings.points[0])
    };
    assert_eq!((warmups(""), warmups("--max-concurrency 4"), warmups("--num-prompts 3")), (32, 4, 3));
    assert_eq!((warmups("--num-warmups 0"), warmups("--num-warmups 50")), (0, 50));
    let stall = |line: &str| load(line).unwrap().limits.stall;
    assert_eq!((stall(""), stall("--stall-timeout 0")), (Some(Duration::from_secs(120)), None));
    assert!(!format!("{settings:?}").contains("sk-x"));
}

#[test]
fn lists_sweep() {
    let settings = load("--max-concurrency pow2:1..256 --load-pattern burst --input-len 10,20").unwrap();
    assert_eq!(settings.points.len(), 18);
    assert_eq!(settings.points[8].max_concurrency, Some(256));
    assert_eq!(settings.points[8].num_prompts, Some(256), "S2: one batch of each size");
    let settings = load("--compare 10 50 100 --max-concurrency 20").unwrap();
    let seen: Vec<_> = settings.points.iter().map(|p| (p.num_prompts, p.max_concurrency, p.n)).collect();
    assert_eq!(seen, [(Some(10), Some(10), 1), (Some(25), Some(20), 2), (Some(20), Some(20), 5)]);
    let settings = load("--max-concurrency 4 --num-prompts-per-concurrency 5 --num-runs 2").unwrap();
    assert_eq!(
        settings.points.iter().map(|p| (p.num_prompts, p.run)).collect::<Vec<_>>(),
        [(Some(20), 1), (Some(20), 2)]
    );
}

#[test]
fn whole_addresses_of_s2_and_s4_are_understood() {
    let settings = load("--url http://h:1/v1/chat/completions").unwrap();
    assert_eq!((settings.base_url.as_str(), settings.endpoint.as_str()), ("http://h:1", "/v1/chat/completions"));
    assert!(settings.chat);
    assert_eq!(load("--base-url http://h:1/v1").unwrap().base_url, "http://h:1");
}

#[test]
fn wrong_values_are_refused_by_the_name_of_their_flag() {
    for (line, flag) in [
        ("--max-concurrency 0", "--max-concurrency"),
        ("--max-concurrency pow2:5..7", "--max-concurrency"),
        ("--request-rate 0", "--request-rate"),
        ("--request-rate 5 --load-pattern burst", "--request-rate"),
        ("--load-pattern burst", "--load-pattern"),
        ("--load-pattern open", "--load-pattern"),
        ("--backend openai-chat --endpoint /v1/completions", "--endpoint"),
        ("--port 70000", "--port"),
        ("--ramp-up-strategy linear", "--ramp-up-strategy"),
        ("--ramp-up-strategy linear --request-rate 4", "--request-rate"),
        ("--ramp-up-start-rps 1", "--ramp-up-strategy"),
        ("--goodput ttfb:3", "--goodput"),
        ("--extra-body [1]", "--extra-body"),
        ("--extra-body {", "--extra-body"),
        ("--header a", "--header"),
        ("--header content-length=3", "--header"),
        ("--metric-percentiles 101", "--metric-percentiles"),
        ("--percentile-metrics x", "--percentile-metrics"),
        ("--random-range-ratio 1", "--random-range-ratio"),
        ("--api-key-env NOWHERE", "--api-key-env"),
        ("--request-timeout soon", "--request-timeout"),
        ("--trust-remote-code", "--trust-remote-code"),
        ("--no-stream", "--no-stream"),
        ("--save-detailed", "--save-detailed"),
        ("--result-filename x", "--result-filename"),
        ("--completions 5 --compare 1 2", "--compare"),
        ("--completions 5 --n 2", "--n"),
        ("--num-prompts 5 --num-prompts-per-concurrency 2 --max-concurrency 2", "--num-prompts-per-concurrency"),
        ("--max-concurrency 5 --concurrent-tests 1 2", "--concurrent-tests"),
        ("--system-prompt x", "--system-prompt"),
        ("--backend openai-chat --prompt-format token-ids", "--prompt-format"),
        ("--stall-timeout soon", "--stall-timeout"),
        ("--burstiness 0", "--burstiness"),
        ("--num-prompts 1000000000000", "--num-prompts"),
        ("--num-warmups 1000000000000", "--num-warmups"),
        ("--completions 1000000000000", "--completions"),
        ("--random-input-len 10000000000", "--random-input-len"),
        ("--input-len 16000001", "up to 16000000 (the tokens of one prompt)"),
        ("--random-prefix-len 10000000000", "--random-prefix-len"),
        ("--max-concurrency 1000000000", "--max-concurrency"),
        ("--num-runs 4000000000", "--num-runs"),
        ("--num-runs 100000 --max-concurrency 1,2", "--num-runs"),
        ("--num-prompts-per-concurrency 100000000 --max-concurrency 9", "--num-prompts-per-concurrency"),
    ] {
        let error = load(line).unwrap_err().to_string();
        assert!(error.contains(flag), "{line}: {error}");
    }
}

#[test]
fn closed_sets_are_told_with_their_values() {
    for (flag, wrong, right) in [
        ("--load-pattern", "wavy", "closed, burst, open"),
        ("--backend", "tgi", "vllm, openai, openai-chat"),
        ("--dataset-name", "random-mm", "random, prefix_repetition, sharegpt"),
        ("--arrival-clock", "sun", "kernel, read"),
        ("--tokenizer-mode", "slow", "auto, hf, transformers4, transformers5"),
        ("--prompt-format", "words", "text, token-ids"),
        ("--ramp-up-strategy", "steep", "linear, exponential"),
    ] {
        let error = LoadLine::read([flag.to_owned(), wrong.to_owned()]).unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(&format!("[possible values: {right}")), "{error}");
    }
    let settings = load("--dataset-name PREFIX-Repetition").unwrap();
    assert_eq!(settings.prompts.spec.name, dataset::Name::PrefixRepetition);
}

/// A value that is none of the default, and what else it needs; `None` where it is for one call.
fn example(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "env-file" | "scenarios" | "name" | "simulated" | "trust-remote-code" | "no-stream" | "dashboard"
        | "metrics-open" | "mlflow" => {
            return None;
        }
        "pushgateway" => ("http://gateway:9091", ""),
        "base-url" => ("http://h:1", ""),
        "host" => ("h", ""),
        "endpoint" => ("/v1/chat/completions", ""),
        "backend" => ("openai-chat", ""),
        "model" | "served-model-name" | "lora-modules" | "label" | "request-id-prefix" | "tokenizer" => ("m", ""),
        "header" | "metadata" => ("a=b c", ""),
        "api-key-env" => ("HOME", ""),
        "api-key-file" => ("key", ""),
        "system-prompt" => ("be brief", "--backend openai-chat"),
        "num-prompts-per-concurrency" => ("3", "--max-concurrency 2"),
        "request-rate" => ("4", ""),
        "load-pattern" => ("burst", "--max-concurrency 2"),
        "ramp-up-strategy" => ("linear", "--ramp-up-start-rps 1 --ramp-up-end-rps 2"),
        "ramp-up-start-rps" => ("1", "--ramp-up-strategy linear --ramp-up-end-rps 2"),
        "ramp-up-end-rps" => ("3", "--ramp-up-strategy linear --ramp-up-start-rps 1"),
        "duration" | "cool-down" | "request-timeout" | "stall-timeout" | "total-timeout" => ("7s", ""),
        "prompt" => ("two words", ""),
        "dataset-name" => ("sonnet", ""),
        "dataset-path" | "requests-csv" | "csv" | "result-dir" => ("place", ""),
        "result-filename" => ("place", "--save-result"),
        "save-detailed" => ("true", "--save-result"),
        "random-range-ratio" | "top-p" | "min-p" | "temperature" => ("0.5", ""),
        "frequency-penalty" | "presence-penalty" => ("-0.5", ""),
        "extra-body" => ("{\"a\": 1}", ""),
        "prompt-format" => ("text", ""),
        "tokenizer-mode" => ("transformers4", ""),
        "sharegpt-output-len" => ("7", "--dataset-name sharegpt"),
        "sonnet-input-len" | "sonnet-output-len" | "sonnet-prefix-len" => ("7", "--dataset-name sonnet"),
        "custom-output-len" => ("7", "--dataset-name custom"),
        "hf-output-len" => ("7", "--dataset-name hf"),
        "hf-subset" | "hf-split" | "hf-name" | "prompt-column" | "prompt-template" => ("x", ""),
        "prefix-repetition-prefix-len" | "prefix-repetition-output-len" => ("7", "--dataset-name prefix_repetition"),
        "goodput" => ("ttft:200", ""),
        "percentile-metrics" => ("ttft", ""),
        "arrival-clock" => ("read", ""),
        name if is_switch(name) => ("true", ""),
        _ => ("7", ""),
    })
}

fn is_switch(name: &str) -> bool {
    let command = <LoadLine as clap::CommandFactory>::command();
    let takes = |arg: &clap::Arg| arg.get_long() == Some(name) && arg.get_action().takes_values();
    !command.get_arguments().any(takes)
}

#[test]
fn every_flag_is_a_variable_and_a_key_of_a_file_as_well_and_each_knows_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "sk-file").unwrap();
    let command = <LoadLine as clap::CommandFactory>::command();
    let mut tried = 0;
    for name in command.get_arguments().filter_map(|arg| arg.get_long()).filter(|name| *name != "help") {
        let Some((value, more)) = example(name) else { continue };
        let variable = format!("VLLM_BENCH_LOAD_{}", name.to_ascii_uppercase().replace('-', "_"));
        let yaml =
            format!("bench:\n  {name}: {}\n", if is_switch(name) { value.to_owned() } else { format!("{value:?}") });
        std::fs::write(dir.path().join("load.yaml"), yaml).unwrap();
        let words: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
        let flag = if is_switch(name) { format!("--{name}") } else { format!("--{name}={value}") };
        let meaning = |words: Vec<String>, vars: &[(&str, &str)], origin: &str| {
            let args = LoadLine::read(words).unwrap();
            let vars = [vars, &[("HOME", "/h")]].concat();
            let environment = Environment::of(&vars, dir.path());
            let layers = LoadLayers::read(&args.written, &args.files, &environment).unwrap();
            assert_eq!(layers.tree().find(&["bench", name]).map(|node| node.origin.short()).as_deref(), Some(origin));
            format!("{:?}", layers.settings(&environment).unwrap_or_else(|error| panic!("{name}: {error}")))
        };
        let by_flag = meaning([&words[..], &[flag]].concat(), &[], &format!("flag --{name}"));
        let by_variable = meaning(words.clone(), &[(&variable, value)], &format!("environment {variable}"));
        let by_file = meaning([&["load.yaml".to_owned()], &words[..]].concat(), &[], "load.yaml:2");
        assert_eq!((&by_variable, &by_file), (&by_flag, &by_flag), "{name}");
        tried += 1;
    }
    assert!(tried > 70, "{tried}");
}

#[test]
fn flags_win_over_variables_and_those_over_files_and_rivals_go() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("load.yaml"),
        "serve: {model: org/m}\nbench: {max_concurrency: [1, 2], num-prompts: 9, batch-size: 4, base-url: 'http://f:1'}\n",
    )
    .unwrap();
    let twice = layers("load.yaml", &[], dir.path()).unwrap_err().to_string();
    assert!(twice.contains("load.yaml:2"), "two spellings of a flag: {twice}");
    let yaml = "serve: {model: org/m}\nbench: {max_concurrency: [1, 2], num-prompts: 9, base-url: 'http://f:1'}\n";
    std::fs::write(dir.path().join("load.yaml"), yaml).unwrap();
    let plain = load_with("load.yaml", &[], dir.path()).unwrap();
    assert_eq!((plain.points.len(), plain.model.as_deref()), (2, Some("org/m")));
    assert_eq!(plain.base_url, "http://f:1");
    let vars = [("VLLM_BENCH_LOAD_NUM_PROMPTS", "5"), ("VLLM_BENCH_LOAD_HOST", "v")];
    let both = load_with("load.yaml --num-prompts-per-concurrency 3", &vars, dir.path()).unwrap();
    assert_eq!(both.points.iter().map(|point| point.num_prompts).collect::<Vec<_>>(), [Some(3), Some(6)]);
    assert_eq!(both.base_url, "http://v:8000", "a host takes the place of the whole address");
}

#[test]
fn what_is_wrong_is_named_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let told = |yaml: &str, vars: &[(&str, &str)]| {
        std::fs::write(dir.path().join("load.yaml"), yaml).unwrap();
        let error = load_with("load.yaml", vars, dir.path()).unwrap_err();
        format!("{error} | {}", error.hints().join("; "))
    };
    for (yaml, vars, words) in [
        (
            "bench: {max-concurrency: 0}",
            &[][..],
            "load.yaml:1:26: bench.max-concurrency: expected whole numbers from 1",
        ),
        ("bench: {backend: tgi}", &[], "load.yaml:1:18: bench.backend: expected one of vllm, openai, openai-chat"),
        ("bench: {max-concurency: 4}", &[], "`max-concurency` is no flag of `load` | did you mean `max-concurrency`?"),
        ("scenarios: {a: {}}", &[], "run them with `--scenarios load.yaml`"),
        ("bench: {}", &[("VLLM_BENCH_LOAD_PORT", "auto")], "the environment variable `VLLM_BENCH_LOAD_PORT`"),
        ("bench: {}", &[("VLLM_BENCH_LOAD_SAVE_RESULT", "maybe")], "expected `true` or `false`"),
        ("bench: {}", &[("VLLM_BENCH_LOAD_BACKEND", "opnai")], "did you mean `openai`?"),
        ("bench: {burstiness: 2, goodput: ttfb:3}", &[], "load.yaml:1:33: bench.goodput"),
    ] {
        let told = told(yaml, vars);
        assert!(told.contains(words), "{yaml} {vars:?}: {told}");
    }
    let layers = layers("", &[("VLLM_BENCH_LOAD_MAX_CONCURENCY", "3")], dir.path()).unwrap();
    assert_eq!(layers.notes, ["the environment variable `VLLM_BENCH_LOAD_MAX_CONCURENCY` is no setting of `load`"]);
}

//! Files of the five systems and of vLLM, read as they are. The expected numbers were counted by hand from each format's
//! own rules: every list is an axis, groups add up.

use std::path::Path;

use vllm_bench::analyse::Limit;
use vllm_bench::cli::RunArgs;
use vllm_bench::config::{Environment, Preset, Settings};
use vllm_bench::plan::{Counts, Selection, expand};

fn settings(files: &[&str], change: impl FnOnce(&mut RunArgs)) -> Settings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps/examples");
    let mut args = RunArgs { files: files.iter().map(|file| folder.join(file)).collect(), ..RunArgs::default() };
    change(&mut args);
    Settings::resolve(&args, &Environment::of(&[], Path::new("/")), Preset::Full).unwrap()
}

/// Every YAML example of the documentation is a sweep that loads.
#[test]
fn the_examples_of_the_documentation_load() {
    let text = include_str!("../../docs/sweep-files.md");
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let mut limits = Vec::new();
    let counts: Vec<_> = examples
        .iter()
        .map(|example| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("sweep.yaml");
            std::fs::write(&file, example).unwrap();
            let settings = settings(&[file.to_str().unwrap()], |_| ());
            limits.extend(settings.slo.iter().map(|own| Limit::stated(&own.name, &own.value).unwrap().to_string()));
            let counts = count(&settings);
            (counts.combinations, counts.kept, counts.idle.len())
        })
        .collect();
    // 2 models x 2 tp x 3 sequences x 2 quantizations x 2 loads, without fp8 at 256 sequences.
    // 3 tp x 2 sequences x 2 eager at 32 in flight (512 is never kept); tp 2 and 4 only eager: 4 + 4 are left, and of
    // the 4 with tp 1 `include` keeps the 2 with 64 sequences.
    assert_eq!(counts, [(48, 40, 0), (1, 1, 0), (24, 6, 0)]);
    assert_eq!(limits, ["p99_ttft_ms < 500", "mean_tpot_ms < 50", "output_throughput > 100"]);
}

/// The files of vLLM's own CI and tuning script, counted by hand: 2 tests at 7 numbers in flight; 2 jobs of 2 by 2.
#[test]
fn files_of_vllms_ci_and_auto_tune_are_sweeps() {
    let ci = settings(&["vllm-ci-serving-tests.json"], |_| ());
    assert_eq!(count(&ci).kept, 14);
    let plan = expand(&ci.sweep);
    let server = &plan.experiments[0].server;
    let words = server.flags.to_args().join(" ");
    assert!(words.contains("--tensor-parallel-size 1") && words.contains("--trust-remote-code"), "{words}");
    assert_eq!(server.env["VLLM_CPU_KVCACHE_SPACE"], "40");
    let tuned = settings(&["vllm-auto-tune-batch.json"], |_| ());
    assert_eq!(count(&tuned).kept, 8);
}

fn count(settings: &Settings) -> Counts {
    Selection::new(&settings.sweep).count()
}

#[test]
fn the_slurm_sweeps_sample_has_759_runs_and_741_settings_in_8_experiments() {
    let settings = settings(&["cluster-sweep.yaml"], |_| ());
    let counts = count(&settings);
    assert_eq!((counts.kept, counts.distinct, counts.measurements), (759, 741, 741));
    let names: std::collections::BTreeSet<_> = settings.sweep.groups.iter().filter_map(|g| g.name.as_deref()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [
            "tier0-large",
            "tier0-medium",
            "tier0-small",
            "tier0-tiny",
            "tier1-large",
            "tier1-medium",
            "tier1-small",
            "tier1-tiny"
        ]
    );
    let plan = expand(&settings.sweep);
    assert_eq!(plan.experiments.len(), 741);
    let shared: Vec<_> = plan.experiments.iter().filter(|e| e.groups.len() > 1).collect();
    assert_eq!(shared.len(), 18, "what two tiers ask for is listed in both");
    assert!(shared.iter().all(|e| e.groups[0].starts_with("tier0") && e.groups[1].starts_with("tier1")));
    let files: std::collections::HashSet<_> = plan.experiments.iter().map(|e| e.name.to_lowercase()).collect();
    assert_eq!(files.len(), 741);
    assert!(settings.notes.iter().any(|note| note.contains("qos")), "{:?}", settings.notes);
}

#[test]
fn a_setting_of_the_slurm_sweep_reaches_vllm_as_its_program_writes_it() {
    let plan = expand(&settings(&["cluster-sweep.yaml"], |_| ()).sweep);
    let ngram = plan.experiments.iter().find(|e| e.name.contains("spec-ngram-6")).unwrap();
    let flag = |name: &str| ngram.server.flags.get_text(name).unwrap_or_default().to_owned();
    assert_eq!(flag("speculative-config"), r#"{"method":"ngram","num_speculative_tokens":6,"prompt_lookup_max":5}"#);
    assert_eq!(
        (flag("max-model-len"), flag("dtype"), flag("block-size")),
        ("8192".into(), "bfloat16".into(), "16".into())
    );
    let load = |name: &str| ngram.workload.flags.get_text(name).unwrap_or_default().to_owned();
    assert_eq!((load("random-input-len"), load("random-output-len")), ("4096".into(), "4096".into()));
    assert_eq!((load("max-concurrency"), load("num-prompts")), ("5000".into(), "10000".into()));
    assert!(!ngram.server.flags.contains("quantization"));
}

#[test]
fn the_examples_of_the_slurm_sweeps_document_load() {
    assert_eq!(count(&settings(&["cluster-quick-start.yaml"], |_| ())).kept, 3);
    let speculative = settings(&["cluster-speculative.yaml"], |_| ());
    assert_eq!(count(&speculative).kept, 3);
    let without = |e: &vllm_bench::model::Experiment| !e.server.flags.contains("speculative-config");
    assert!(expand(&speculative.sweep).experiments.iter().any(without), "`None` leaves the flag out");
}

#[test]
fn scenario_files_load() {
    for file in ["scenarios.yaml", "scenarios-rag.yaml"] {
        let settings = settings(&[file], |_| ());
        // 4 + 3 + 4 concurrencies.
        assert_eq!(count(&settings).kept, 11, "{file}");
        let plan = expand(&settings.sweep);
        let heavy = plan.experiments.iter().find(|e| e.groups == ["rag_heavy"]).unwrap();
        assert_eq!(heavy.axes.model, "facebook/opt-1.3b");
        assert_eq!(heavy.workload.flags.get_text("random-input-len"), Some("3000"));
        assert_eq!(heavy.workload.num_prompts(), Some(8 * 20), "20 requests per user");
        assert!(settings.notes.iter().any(|note| note.contains("prompt_file")), "{:?}", settings.notes);
    }
}

#[test]
fn the_completions_benchmarks_file_loads_without_its_token() {
    let settings = settings(&["benchmark_config.json"], |_| ());
    assert_eq!(count(&settings).kept, 9);
    let plan = expand(&settings.sweep);
    let heavy: Vec<_> = plan.experiments.iter().filter(|e| e.groups == ["Heavy Load"]).collect();
    let shown = |name: &str| {
        heavy.iter().map(|e| e.workload.flags.get_text(name).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // 5,000 completions, 32 in flight: n = 156, 33 requests.
    assert_eq!(shown("num-prompts"), ["33", "33", "33"]);
    assert_eq!(shown("extra-body"), [r#"{"n":31}"#, r#"{"n":62}"#, r#"{"n":156}"#]);
    let everything = format!("{settings:?} {plan:?}");
    assert!(!everything.contains("token-abc123"), "the token must go nowhere");
}

#[test]
fn the_native_example_loads() {
    let settings = settings(&["native.yaml"], |_| ());
    // 2 tp x 2 quantizations x 2 eager x 2 models x 2 max-num-seqs x 2 concurrencies, a quarter of it fp8 without eager.
    let counts = count(&settings);
    assert_eq!((counts.combinations, counts.left_out.values().sum::<u64>()), (64, 16));
}

#[test]
fn vllms_own_parameter_files_load_and_multiply() {
    let model = |args: &mut RunArgs| args.models = vec!["m".into()];
    assert_eq!(count(&settings(&["vllm-serve-params.json"], model)).kept, 3);
    let bench = settings(&["vllm-bench-params.json"], model);
    let names: Vec<_> = bench.sweep.groups.iter().filter_map(|group| group.name.as_deref()).collect();
    assert_eq!(names, ["short", "long"]);
    // Both files: every server under every load, as `vllm bench sweep serve` does it.
    let both = settings(&["vllm-serve-params.json", "vllm-bench-params.json"], model);
    assert_eq!(count(&both).kept, 6);
}

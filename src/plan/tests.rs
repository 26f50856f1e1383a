//! What a plan promises.

use crate::model::{Context, Engine, Experiment, Isolation, Plan, Repeat};
use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::fixture::{axis, fp8_needs_eager, grid};
use super::*;

fn names(plan: &Plan) -> Vec<&str> {
    plan.experiments.iter().map(|e| e.name.as_str()).collect()
}

/// A sweep of one group; each argument is `key=value,value`.
fn sweep(serve: &[&str], bench: &[&str]) -> Sweep {
    let axes = |texts: &[&str]| {
        texts.iter().filter_map(|text| text.split_once('=')).map(|(key, values)| axis(key, values)).collect()
    };
    let group = Group { serve: axes(serve), bench: axes(bench), ..Group::default() };
    Sweep { groups: vec![group], ..Sweep::new(Engine::Vllm) }
}

fn when(key: &str, test: Test) -> Exclusion {
    let when = Condition { terms: vec![Term { key: key.into(), test }] };
    Exclusion { name: "mine".into(), when, reason: "no".into(), explanation: None }
}

#[test]
fn the_default_grid_has_27_experiments_and_9_skips() {
    let plan = expand(&grid(&["a", "b", "c"], "2,4,8", Engine::Vllm));
    assert_eq!((plan.experiments.len(), plan.skips.len(), plan.skipped()), (27, 9, 9));
    assert_eq!(
        names(&plan)[..4],
        [
            "a_tp2_quant-none_eager-true",
            "a_tp2_quant-none_eager-false",
            "a_tp2_quant-fp8_eager-true",
            "a_tp4_quant-none_eager-true"
        ]
    );
    assert!(plan.experiments.iter().all(|e| e.name == e.server_name()));
}

#[test]
fn rule_1_quantization_none_leaves_the_flag_out() {
    for experiment in &expand(&grid(&["a"], "2,4,8", Engine::Vllm)).experiments {
        let args = experiment.server.flags.to_args();
        assert_eq!(args.contains(&"--quantization".into()), experiment.axes.quantization.is_some());
        assert!(!args.contains(&"none".into()) && !args.contains(&"off".into()));
    }
}

#[test]
fn rule_8_fp8_without_eager_is_skipped_with_its_warning() {
    let plan = expand(&grid(&["org/m"], "2", Engine::Vllm));
    assert_eq!(plan.skips[0].reason, "Skipping org/m tp=2 quant=fp8 eager=false (known failure)");
    assert!(plan.experiments.iter().all(|e| e.axes.quantization.is_none() || e.axes.enforce_eager));
    let off = Sweep { rules_off: vec!["fp8-needs-eager".into()], ..grid(&["m"], "2", Engine::Vllm) };
    assert_eq!(expand(&off).experiments.len(), 4);
}

#[test]
fn a_flag_left_out_is_not_eager() {
    let mut sweep = sweep(&["model=m", "quantization=fp8"], &[]);
    sweep.exclude = vec![fp8_needs_eager()];
    assert_eq!(expand(&sweep).experiments.len(), 0);
    assert_eq!(expand(&self::sweep(&["model=m", "enforce-eager=false,none"], &[])).experiments.len(), 1);
}

#[test]
fn names_that_would_collide_stay_apart() {
    let plan = expand(&grid(&["a/b_c", "a_b/c"], "2,4,8", Engine::Vllm));
    assert_eq!(names(&plan).into_iter().collect::<HashSet<_>>().len(), 18);
    assert!(plan.experiments[0].name.starts_with("a_b_c_tp2_quant-none_eager-true_"));
    assert_eq!(plan.experiments.iter().map(Experiment::server_name).collect::<HashSet<_>>().len(), 18);
}

#[test]
fn a_value_given_twice_is_planned_once() {
    assert_eq!(expand(&grid(&["a", "a"], "2,4,8", Engine::Vllm)).experiments.len(), 9);
    assert_eq!(expand(&sweep(&["model=m", "gpu-memory-utilization=0.9,0.90"], &[])).experiments.len(), 1);
}

#[test]
fn any_flag_is_an_axis_and_shows_in_the_name() {
    let plan = expand(&sweep(&["model=org/m", "max-num-seqs=256,512"], &["max-concurrency=8,32", "num-prompts=9"]));
    assert_eq!(
        names(&plan),
        [
            "org_m_tp1_quant-none_eager-false_mns-256_cc-8",
            "org_m_tp1_quant-none_eager-false_mns-256_cc-32",
            "org_m_tp1_quant-none_eager-false_mns-512_cc-8",
            "org_m_tp1_quant-none_eager-false_mns-512_cc-32"
        ]
    );
    assert_eq!(plan.experiments[3].server_name(), "org_m_tp1_quant-none_eager-false_mns-512");
    assert_eq!(
        plan.experiments[3].workload.flags.to_args().join(" "),
        "--max-concurrency 32 --num-prompts 9 --dataset-name random --temperature 0 --ignore-eos"
    );
    assert_eq!(
        plan.experiments[0].axes.to_string(),
        "org/m tp=1 quant=none eager=false max-num-seqs=256 max-concurrency=8"
    );
}

#[test]
fn a_switch_that_is_off_is_written_where_vllm_has_its_opposite() {
    let mut sweep =
        sweep(&["model=m", "enable-prefix-caching=false", "no-enable-chunked-prefill=false"], &["ignore-eos=false"]);
    sweep.groups[0]
        .serve
        .push(Axis { key: "cudagraph-capture-sizes".into(), values: vec![Value::List(vec!["1".into(), "2".into()])] });
    let plan = expand(&sweep);
    let experiment = &plan.experiments[0];
    assert_eq!(
        experiment.server.flags.to_args().join(" "),
        "--no-enable-prefix-caching --enable-chunked-prefill --cudagraph-capture-sizes 1 2"
    );
    // The sweep has a word on `ignore-eos`: it stays off.
    assert_eq!(experiment.workload.flags.to_args().join(" "), "--dataset-name random --temperature 0");
}

#[test]
fn conditions_look_at_server_and_load() {
    let count = |exclude: Exclusion| {
        let mut sweep = sweep(&["model=m", "max-num-seqs=8,16,32"], &["max-concurrency=8,16,32"]);
        sweep.exclude = vec![exclude];
        expand(&sweep).experiments.len()
    };
    let number = |n: &str| Operand::Number(n.into());
    assert_eq!(count(when("max-num-seqs", Test::Compare(Comparison::Greater, number("8")))), 3);
    assert_eq!(count(when("bench.max-concurrency", Test::Compare(Comparison::LessOrEqual, number("16")))), 3);
    let key = Operand::Key("max-num-seqs".into());
    assert_eq!(count(when("max-concurrency", Test::Compare(Comparison::Greater, key))), 6);
    let values = |texts: &[&str]| texts.iter().map(|t| Value::Text((*t).into())).collect();
    assert_eq!(count(when("max-num-seqs", Test::OneOf(values(&["8", "16.0"])))), 3);
    assert_eq!(count(when("max-num-seqs", Test::NoneOf(values(&["8"])))), 3);
    assert_eq!(count(when("absent", Test::OneOf(vec![Value::Omitted]))), 0);
    assert_eq!(count(when("absent", Test::OneOf(values(&["8"])))), 9);
}

#[test]
fn include_keeps_only_what_it_names() {
    let mut sweep = sweep(&["model=m", "max-num-seqs=8,16,32"], &[]);
    sweep.include = vec![when("max-num-seqs", Test::OneOf(vec![Value::Text("16".into())]))];
    let plan = expand(&sweep);
    assert_eq!((plan.experiments.len(), plan.skipped()), (1, 2));
}

#[test]
fn built_in_rules_can_be_switched_off() {
    let check = |change: fn(&mut Sweep), rule: &str, serve: &[&str], bench: &[&str], kept: usize| {
        let mut sweep = sweep(serve, bench);
        change(&mut sweep);
        assert_eq!(expand(&sweep).experiments.len(), kept, "{rule}");
        assert!(Selection::new(&sweep).count().left_out.contains_key(rule), "{rule}");
        sweep.rules_off = vec![rule.to_owned()];
        assert!(expand(&sweep).experiments.len() > kept, "{rule} off");
    };
    check(|s| s.devices = Some(4), "devices", &["model=m", "tp=1,2,4", "pipeline-parallel-size=1,2"], &[], 5);
    let heads = |s: &mut Sweep| {
        let facts = ModelFacts { attention_heads: Some(12), max_position_embeddings: Some(100) };
        s.models.insert("m".into(), facts);
    };
    check(heads, "attention-heads", &["model=m", "tp=1,4,8"], &[], 2);
    check(
        |_| (),
        "context-length",
        &["model=m", "max-model-len=64,256"],
        &["random-input-len=60", "random-output-len=60"],
        1,
    );
    check(heads, "context-length", &["model=m"], &["random-input-len=60", "random-output-len=40,60"], 1);
    check(
        |_| (),
        "batched-tokens",
        &["model=m", "enable-chunked-prefill=true,false", "max-model-len=4096", "max-num-batched-tokens=2048"],
        &[],
        1,
    );
}

#[test]
fn linked_keys_have_the_same_value() {
    let link = Link { serve: "max-num-seqs".into(), bench: "max-concurrency".into() };
    let mut both = sweep(&["model=m", "max-num-seqs=8,16"], &["max-concurrency=8,16,32"]);
    both.links = vec![link.clone()];
    assert_eq!(expand(&both).experiments.len(), 2);
    let mut one = sweep(&["model=m", "max-num-seqs=8,16"], &[]);
    one.links = vec![link];
    let plan = expand(&one);
    let loads: Vec<_> = plan.experiments.iter().map(|e| e.workload.flags.to_args().join(" ")).collect();
    let work = "--dataset-name random --temperature 0 --ignore-eos";
    assert_eq!(loads, [format!("--max-concurrency 8 {work}"), format!("--max-concurrency 16 {work}")]);
}

#[test]
fn prompts_can_follow_concurrency() {
    let plan = expand(&sweep(&["model=m"], &["max-concurrency=4,8", "num-prompts-per-concurrency=10"]));
    let prompts: Vec<_> = plan.experiments.iter().map(|e| e.workload.num_prompts()).collect();
    assert_eq!(prompts, [Some(40), Some(80)]);
}

#[test]
fn what_two_groups_ask_for_is_measured_once_and_listed_in_both() {
    let mut sweep = sweep(&["model=m", "max-num-seqs=8,16"], &[]);
    sweep.groups[0].name = Some("tier0".into());
    let second = Group {
        name: Some("tier1".into()),
        serve: vec![axis("model", "m"), axis("max_num_seqs", "16,32")],
        ..Group::default()
    };
    sweep.groups.push(second);
    let plan = expand(&sweep);
    let groups: Vec<_> = plan.experiments.iter().map(|e| e.groups.join("+")).collect();
    assert_eq!(groups, ["tier0", "tier0+tier1", "tier1"]);
    let counts = Selection::new(&sweep).count();
    assert_eq!((counts.combinations, counts.kept, counts.distinct, counts.starts), (4, 4, 3, 3));
}

#[test]
fn repeats_share_an_identity_and_not_a_name() {
    let mut sweep = sweep(&["model=m"], &["max-concurrency=1,2"]);
    sweep.repeats = Repeats { runs: 2, starts: 2, auto: false };
    let plan = expand(&sweep);
    let tails: Vec<_> =
        names(&plan).into_iter().map(|n| n.trim_start_matches("m_tp1_quant-none_eager-false_")).collect();
    assert_eq!(
        tails,
        [
            "cc-1",
            "cc-1_run2",
            "cc-2",
            "cc-2_run2",
            "cc-1_start2",
            "cc-1_start2_run2",
            "cc-2_start2",
            "cc-2_start2_run2"
        ]
    );
    assert_eq!(plan.experiments.iter().map(|e| &e.identity).collect::<HashSet<_>>().len(), 2);
    let split = |reuse| blocks(plan.experiments.iter().cloned().map(Arc::new), reuse);
    assert_eq!(split(true).iter().map(|block| block.experiments.len()).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(split(false).len(), 8);
    let first = expand(&Sweep { repeats: Repeats::default(), ..sweep });
    assert_eq!(first.experiments[0].name, plan.experiments[0].name, "more repeats must not rename what is there");
}

#[test]
fn order_decides_which_start_comes_when() {
    let order = |order| {
        let mut sweep = sweep(&["model=a,b", "max-num-seqs=1,2"], &[]);
        (sweep.repeats.starts, sweep.order) = (2, order);
        let plan = expand(&sweep);
        let shown = |e: &Experiment| format!("{}{}s{}", e.axes.model, e.axes.server["max-num-seqs"], e.repeat.start);
        plan.experiments.iter().map(shown).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(Order::Grouped), "a1s1 a1s2 a2s1 a2s2 b1s1 b1s2 b2s1 b2s2");
    assert_eq!(order(Order::Interleaved), "a1s1 a2s1 b1s1 b2s1 a1s2 a2s2 b1s2 b2s2");
    assert_eq!(order(Order::Random(7)), order(Order::Random(7)));
    assert_ne!(order(Order::Random(7)), order(Order::Random(8)));
}

#[test]
fn measurements_on_one_server_are_kept_apart() {
    let isolation = |serve: &[&str], bench: &[&str], env: Option<&str>, runs| {
        let mut sweep = sweep(serve, bench);
        sweep.groups[0].env.extend(env.map(|value| axis("VLLM_SERVER_DEV_MODE", value)));
        sweep.repeats.runs = runs;
        expand(&sweep).experiments.iter().map(|e| e.isolation).collect::<Vec<_>>()
    };
    assert_eq!(isolation(&["model=m"], &[], None, 1), [Isolation::FreshServer]);
    assert_eq!(isolation(&["model=m", "no-enable-prefix-caching=true"], &[], None, 2), [Isolation::CacheOff; 2]);
    assert_eq!(isolation(&["model=m"], &[], Some("1"), 2), [Isolation::Reset; 2]);
    assert_eq!(isolation(&["model=m"], &["seed=3"], None, 2), [Isolation::None; 2]);
    assert_eq!(isolation(&["model=m"], &["dataset-name=sharegpt"], None, 2), [Isolation::None; 2]);
    let seeds = isolation(&["model=m"], &["max-concurrency=1,2"], None, 2);
    assert!(matches!(seeds[..], [Isolation::Seed(a), Isolation::Seed(b), ..] if a != b), "{seeds:?}");
    assert_eq!(seeds, isolation(&["model=m"], &["max-concurrency=1,2"], None, 2), "the same prompts in every session");
}

#[test]
fn the_baseline_is_marked_or_added() {
    let with = |baseline| {
        let mut sweep = sweep(&["model=m", "tp=1,2", "max-num-seqs=8,16"], &["num-prompts=1"]);
        sweep.baseline = Some(baseline);
        let plan = expand(&sweep);
        let marked = plan.experiments.iter().filter(|e| e.baseline);
        (plan.experiments.len(), marked.map(|e| e.name.clone()).collect::<Vec<_>>())
    };
    let (count, marked) = with(Baseline::Values(vec![axis("tensor-parallel-size", "1,2"), axis("max-num-seqs", "16")]));
    assert_eq!((count, marked.len()), (4, 2));
    let (count, marked) = with(Baseline::VllmDefaults);
    assert_eq!((count, marked), (5, vec!["m_tp1_quant-none_eager-false_mns-default".to_owned()]));
}

#[test]
fn a_larger_sweep_keeps_the_names_of_what_was_measured() {
    let old = expand(&sweep(&["model=m"], &["max-concurrency=1"]));
    let new = expand(&sweep(&["model=m", "max-num-seqs=none,64"], &["max-concurrency=1,2"]));
    let grown = extend(&old, new);
    assert_eq!(grown.experiments.len(), 4);
    assert_eq!(grown.experiments[0], old.experiments[0]);
    assert_eq!(grown.experiments.iter().map(|e| e.index).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(names(&grown).into_iter().collect::<HashSet<_>>().len(), 4);
}

#[test]
fn metrics_of_another_vllm_or_device_have_another_identity() {
    let identity = |version: Option<&str>, kind: Option<&str>| {
        let (vllm_version, device_kind) = (version.map(str::to_owned), kind.map(str::to_owned));
        let context = Context { vllm_version, device_kind, ..Context::default() };
        expand(&Sweep { context, ..sweep(&["model=m"], &[]) }).experiments[0].identity.clone()
    };
    let all = [
        identity(None, None),
        identity(Some("0.14.1"), None),
        identity(Some("0.15.0"), None),
        identity(Some("0.14.1"), Some("xpu")),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 4);
}

#[test]
fn other_weights_of_any_model_that_a_start_reads_are_another_identity() {
    for flag in [
        r#"speculative-config={"model":"org/draft"}"#,
        "speculative-config.model=org/draft",
        "tokenizer=org/draft",
        "lora-modules=sql=org/draft",
        r#"lora-modules={"path":"org/draft"}"#,
    ] {
        let identity = |commit: Option<&str>| {
            let models = commit.map(|commit| ("org/draft".to_owned(), commit.to_owned())).into_iter().collect();
            let context = Context { models, ..Context::default() };
            let plan = expand(&Sweep { context, ..sweep(&["model=m", flag], &[]) });
            assert_eq!(plan.problem(), None);
            plan.experiments[0].identity.clone()
        };
        let all = [identity(None), identity(Some("abc1234")), identity(Some("abc1235"))];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3, "{flag}");
    }
}

#[test]
fn a_million_combinations_are_counted_one_by_one() {
    let numbers = (1..=100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let mut sweep = sweep(
        &["model=m", &format!("max-num-seqs={numbers}"), &format!("block-size={numbers}")],
        &[&format!("max-concurrency={numbers}")],
    );
    sweep.exclude = vec![when("block-size", Test::Compare(Comparison::Greater, Operand::Number("50".into())))];
    let counts = Selection::new(&sweep).count();
    assert_eq!((counts.combinations, counts.kept, counts.starts), (1_000_000, 500_000, 5_000));
    assert_eq!(counts.left_out["mine"], 500_000);
}

/// A sweep of `repeats` over axes of these flags, all of them with the same values.
fn long_sweep(flags: &[String], values: &[String], models: &[String]) -> Sweep {
    let text = |values: &[String]| values.iter().cloned().map(Value::Text).collect::<Vec<_>>();
    let mut serve = vec![Axis { key: "model".into(), values: text(models) }];
    serve.extend(flags.iter().map(|key| Axis { key: key.clone(), values: text(values) }));
    Sweep {
        groups: vec![Group { serve, ..Group::default() }],
        repeats: Repeats { runs: 3, starts: 2, auto: false },
        ..Sweep::new(Engine::Vllm)
    }
}

#[test]
fn repeats_with_long_names_have_files_of_their_own() {
    let flags: Vec<String> = (0..5).map(|i| format!("enable-some-rather-long-named-feature-number-{i}")).collect();
    let plan = expand(&long_sweep(&flags, &["true".into(), "false".into()], &["org/m".into()]));
    assert_eq!(plan.experiments.len(), 32 * 6);
    assert_eq!(names(&plan).into_iter().collect::<HashSet<_>>().len(), 32 * 6);
    for experiment in &plan.experiments {
        assert!(experiment.name.len() <= 180 && experiment.name.contains(experiment.identity.short()));
        let Repeat { start, run } = experiment.repeat;
        assert!(start == 1 || experiment.name.contains(&format!("_start{start}")), "{}", experiment.name);
        assert!(run == 1 || experiment.name.ends_with(&format!("_run{run}")), "{}", experiment.name);
    }
}

#[test]
fn a_name_that_looks_like_another_with_its_repeat_or_its_identity_is_no_other() {
    let plain = expand(&sweep(&["model=m"], &["some-flag=1,2"]));
    let digits = plain.experiments[0].identity.short().to_owned();
    // `1_run2` is what the second run of `1` is called; `M` and `m` are one name on some file systems.
    let values = format!("some-flag=1,1_run2,1_{digits},1_start2_run2");
    let mut sweep = sweep(&["model=m,M"], &[&values]);
    sweep.repeats = Repeats { runs: 2, starts: 2, auto: false };
    let plan = expand(&sweep);
    let lower: HashSet<_> = plan.experiments.iter().map(|e| e.name.to_lowercase()).collect();
    assert_eq!((plan.experiments.len(), lower.len()), (32, 32));
    // What is added later takes no name that differs in upper case only.
    let old = expand(&self::sweep(&["model=m"], &["some-flag=1,2"]));
    let grown = extend(&old, expand(&self::sweep(&["model=M"], &["some-flag=1,2"])));
    let lower: HashSet<_> = grown.experiments.iter().map(|e| e.name.to_lowercase()).collect();
    let servers: HashSet<_> = grown.experiments.iter().map(|e| e.server_name().to_lowercase()).collect();
    assert_eq!((grown.experiments.len(), lower.len(), servers.len()), (4, 4, 2));
}

proptest! {
    #[test]
    fn every_file_is_of_one_experiment_however_long_and_alike_the_names(
        flags in proptest::collection::hash_set("[a-b]{1,3}-[a-c]{20,60}", 0..4),
        values in proptest::collection::hash_set("[aA1é漢_]{1,3}|[xX]{20,40}|1_run2", 1..4),
        models in proptest::collection::hash_set("(org/)?[mMé]{1,2}|m{170,200}[a-c]", 1..4),
    ) {
        let list = |set: HashSet<String>| { let mut list: Vec<String> = set.into_iter().collect(); list.sort(); list };
        let plan = expand(&long_sweep(&list(flags), &list(values), &list(models)));
        let layout = crate::record::layout::Layout::new("/r");
        let file = |e: &Experiment| layout.result(&e.name).to_string_lossy().to_lowercase();
        let files: HashSet<_> = plan.experiments.iter().map(file).collect();
        let meant: HashSet<_> = plan.experiments.iter().map(|e| (&e.identity, e.repeat)).collect();
        prop_assert_eq!(files.len(), plan.experiments.len());
        prop_assert_eq!(meant.len(), plan.experiments.len());
        let servers: HashSet<_> = plan.experiments.iter().map(|e| e.server_name().to_lowercase()).collect();
        let starts: HashSet<_> = plan.experiments.iter().map(|e| format!("{:?}", e.server)).collect();
        prop_assert_eq!(servers.len(), starts.len());
        for experiment in &plan.experiments {
            prop_assert!(experiment.name.len() + "_benchmark.4294967295.log".len() <= 255);
            prop_assert!(experiment.name.is_ascii() && !experiment.name.contains('/'));
        }
    }

    #[test]
    fn distinct_settings_have_distinct_identities_and_file_names(
        models in proptest::collection::hash_set("[a-cB/_. $'-]{1,6}", 1..5),
        keys in proptest::collection::hash_map("[a-c]{1,2}(-[a-b])?", proptest::collection::hash_set("[0-9a-b.]{1,30}|\\{\"a\":[0-9]\\}", 1..4), 0..3),
        loads in proptest::collection::hash_set("[0-9]{1,3}", 1..3),
    ) {
        let mut serve = vec![Axis { key: "model".into(), values: models.iter().cloned().map(Value::Text).collect() }];
        for (key, values) in keys.iter().filter(|(key, _)| !["dp", "pp", "tp", "q"].contains(&key.as_str())) {
            serve.push(Axis { key: key.clone(), values: values.iter().cloned().map(Value::Text).collect() });
        }
        let bench = vec![Axis { key: "max-concurrency".into(), values: loads.iter().cloned().map(Value::Text).collect() }];
        let sweep = Sweep {
            groups: vec![Group { serve, bench, ..Group::default() }],
            repeats: Repeats { runs: 2, starts: 1, auto: false },
            ..Sweep::new(Engine::Vllm)
        };
        let plan = expand(&sweep);
        let names: HashSet<_> = plan.experiments.iter().map(|e| e.name.to_lowercase()).collect();
        let settings: HashSet<_> = plan.experiments.iter().map(|e| format!("{:?} {:?}", e.server, e.workload)).collect();
        let identities: HashSet<_> = plan.experiments.iter().map(|e| &e.identity).collect();
        prop_assert_eq!(names.len(), plan.experiments.len());
        prop_assert_eq!(identities.len(), settings.len());
        prop_assert_eq!(Selection::new(&sweep).count().distinct as usize, identities.len());
        for name in names {
            prop_assert!(name.len() < 220);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
        }
    }
}

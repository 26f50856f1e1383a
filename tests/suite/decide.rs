//! From metrics to a decision: `recommend`, `compare` and `run --noise-check`, as a user calls them.

use crate::support::Scene;
use serde_json::Value;

/// Two configurations, each on several fresh starts; the simulated vLLM's eager mode is slower.
fn repeated<'s>(scene: &'s Scene, starts: &str, seed: &str) -> crate::support::Call<'s> {
    scene
        .sweep()
        .set("--starts", [starts])
        .set("--sim-seed", [seed])
        .set("--num-prompts", ["24"])
        .set("--concurrency", ["4"])
        .set("--results-dir", [seed])
        // Draws depend on the variable by which this scene is known: they must be small beside the difference of the two.
        .set("--sim-noise", ["0.2%"])
        .set("--sim-noise-within", ["0.1%"])
}

fn json(ended: &crate::support::Ended<'_>) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}\n{}", ended.stdout))
}

#[test]
fn the_recommendation_names_the_faster_one_with_its_command() {
    let scene = Scene::new();
    repeated(&scene, "3", "1").exits(0).prints("mean of 3 starts").prints("Use  ");
    let ended = scene.call(&["recommend", "--results-dir", "1"]).exits(0);
    ended.prints("eager false").prints("SIMULATED").prints("serve org/tiny").prints("Against the runner-up");
    let found = json(&scene.call(&["recommend", "--results-dir", "1", "--format", "json"]).exits(0));
    assert_eq!(found["simulated"], true);
    let answer = &found["answers"][0];
    assert_eq!(answer["choice"]["name"], crate::support::SECOND);
    assert_eq!((&answer["choice"]["n"], &answer["why"]), (&3.into(), &"best-mean".into()));
    assert_eq!(answer["basis"], "starts", "three starts that differ, as the simulation's do");
    assert!(answer["choice"]["serve_command"].as_array().unwrap().iter().any(|word| word == "serve"));
    // A limit that only one of them keeps decides, whatever is faster.
    let slower =
        answer["options"].as_array().unwrap().iter().find(|option| option["name"] == crate::support::FIRST).unwrap();
    // Between the two, further from the slower one than its starts are from each other.
    let between = slower["value"].as_f64().unwrap() * 0.3 + answer["choice"]["value"].as_f64().unwrap() * 0.7;
    let limit = format!("output_throughput<{between}");
    let found = json(&scene.call(&["recommend", "--results-dir", "1", "--format", "json", "--slo", &limit]).exits(0));
    assert_eq!(found["answers"][0]["choice"]["name"], crate::support::FIRST);
    assert!(found["answers"][0]["left_out"][0][1].as_str().unwrap().contains("output_throughput is"));
    assert_eq!(found["answers"][0]["limits_unconfirmed"], false);
    let ended = scene.call(&["recommend", "--results-dir", "1", "--slo", "ttft.p97<5"]).exits(2);
    ended.says("no result has `p97_ttft_ms`").says("p99_ttft_ms");
    let ended = scene.call(&["recommend", "--results-dir", "1", "--slo", "ttft.p99<0.001"]).exits(3);
    ended.prints("No configuration keeps the limits").prints("p99_ttft_ms is");
}

#[test]
fn one_measurement_of_each_is_recommended_with_a_warning() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let ended = scene.call(&["recommend"]).set("--results-dir", [scene.results().to_str().unwrap()]).exits(0);
    ended.prints("is not established: one start").prints("To decide: 3 starts of each");
}

#[test]
fn a_run_compared_with_itself_has_changed_in_nothing_and_a_slower_one_is_told() {
    let scene = Scene::new();
    repeated(&scene, "3", "1").exits(0);
    repeated(&scene, "3", "2").exits(0);
    let run = |seed: &str| -> String { scene.runs_in(&scene.path(seed))[0].0.to_str().unwrap().to_owned() };
    let (first, second) = (run("1"), run("2"));
    let found = json(&scene.call(&["compare", &first, &first, "--format", "json"]).exits(0));
    let outcomes: Vec<&str> = found["configurations"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|one| one["effects"].as_array().unwrap())
        .map(|effect| effect["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes.len(), 6, "two configurations, three metrics");
    assert!(outcomes.iter().all(|outcome| ["same", "not-decided"].contains(outcome)), "{outcomes:?}");
    assert_eq!(found["environment"], serde_json::json!([]));
    // The seed of the simulation varies its steps; settings differ by it, so that nothing matches.
    let ended = scene.call(&["compare", &first, &second]).exits(3);
    ended.says("no configuration in common").says("`--ignore env.VLLM_BENCH_SIM_SEED`");
    scene.call(&["compare", &first, &second, "--ignore", "env.VLLM_BENCH_SIM_SEED"]).ends().prints("by 3.0 %");
    scene.call(&["compare", &first, &second, "--ignore", "max-num-seq"]).exits(2).says("--ignore");
    let markdown = scene.call(&["compare", &first, &first, "--format", "markdown"]).exits(0);
    markdown
        .prints("| configuration | metric |")
        .prints("**SIMULATED**")
        .prints("0 worse, 0 better")
        .prints("Each run is one session");
    // Other runs of the same settings, with starts that differ by a part of a thousand, and one whose TTFT is made worse by hand.
    let copy = scene.path("slower");
    let base = scene.path("base");
    for (place, factor) in [(&base, 1.0), (&copy, 1.5)] {
        copy_all(std::path::Path::new(&first), place);
        for name in [crate::support::FIRST, crate::support::SECOND] {
            for (path, part) in results_of(place, name).iter().zip([1.0, 1.001, 0.999]) {
                let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
                for statistic in ["mean", "median", "std", "p99"] {
                    let time = &mut value[format!("{statistic}_ttft_ms")];
                    *time = (time.as_f64().unwrap() * factor * part).into();
                }
                std::fs::write(path, value.to_string()).unwrap();
            }
        }
    }
    let first = base.to_str().unwrap().to_owned();
    let slower = copy.to_str().unwrap();
    let ended = scene.call(&["compare", &first, slower]).exits(1);
    ended.prints("WORSE").prints("+50.0 %");
    scene.call(&["compare", slower, &first]).exits(0).prints("better");
    scene.call(&["compare", &first, slower, "--threshold", "60%"]).exits(0);
    scene.call(&["compare", &first, slower, "--threshold", "many"]).exits(2).says("--threshold");
    scene.call(&["compare", &first, "nowhere"]).ends().says("nowhere");
    // A configuration of which two of three starts fail now is worse, whatever the third one measured.
    let failing = scene.path("failing");
    copy_all(std::path::Path::new(&first), &failing);
    let names = results_of(&failing, crate::support::FIRST);
    assert_eq!(names.len(), 3);
    for path in &names[..2] {
        std::fs::write(path, "{}").unwrap();
    }
    let failing = failing.to_str().unwrap();
    let ended = scene.call(&["compare", &first, failing]).exits(1);
    ended.prints("1 configuration failing now").prints("2 of 3 starts failed, 0 of 3 before");
    scene.call(&["compare", failing, &first]).exits(0).prints("0 of 3 starts failed, 2 of 3 before");
}

/// The result files of an experiment in a run directory.
fn results_of(directory: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_result = |path: &std::path::PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        file.starts_with(name) && file.ends_with("_results.json")
    };
    let mut found: Vec<_> = paths.filter(is_result).collect();
    found.sort();
    found
}

/// Writes a result of vLLM's client as `PLACE/NAME`, with these members beside or in place of its own; returns the place.
fn result_file(scene: &Scene, place: &str, name: &str, more: Value) -> String {
    let mut result = serde_json::json!({
        "model_id": "org/m", "num_prompts": 100, "request_rate": "inf", "max_concurrency": 8, "completed": 100, "failed": 0,
        "duration": 12.8, "total_input_tokens": 12800, "total_output_tokens": 12800, "request_throughput": 7.8125,
        "output_throughput": 1000.0, "total_token_throughput": 2000.0, "mean_ttft_ms": 5.0, "p99_ttft_ms": 10.0, "mean_tpot_ms": 0.5,
    });
    for (key, value) in more.as_object().unwrap() {
        result[key] = value.clone();
    }
    let place = scene.path(place);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join(name), result.to_string()).unwrap();
    place.to_str().unwrap().to_owned()
}

#[test]
fn what_keeps_runs_apart_is_named_and_can_be_ignored() {
    let scene = Scene::new();
    let before = result_file(&scene, "before", "a.json", serde_json::json!({"max_num_seqs": 1}));
    // Whatever the file is called: the time is in its name.
    let same = result_file(&scene, "same", "b.json", serde_json::json!({"max_num_seqs": 1}));
    let ended = scene.call(&["compare", &before, &same]).exits(0);
    let first = ended.stdout.lines().next().unwrap();
    assert!(first.starts_with("NOT DECIDED: 0 worse, 0 better, 0 same, 3 not decided"), "{first}");
    ended.prints("changed by less than 0.05 %").prints("one start each");
    assert!(!ended.stdout.contains("+0.0 %"), "{}", ended.stdout);
    let markdown = scene.call(&["compare", &before, &same, "--format", "markdown"]).exits(0);
    assert!(markdown.stdout.starts_with("### NOT DECIDED: "), "{}", markdown.stdout);
    assert!(!markdown.stdout.contains("+0.0 %"), "{}", markdown.stdout);

    let other =
        result_file(&scene, "other", "a.json", serde_json::json!({"max_num_seqs": 2, "output_throughput": 1200.0}));
    let ended = scene.call(&["compare", &before, &other]).exits(3);
    ended.says("max-num-seqs (1 and 2)").says("`--ignore max-num-seqs`");
    scene.call(&["compare", &before, &other, "--ignore", "max-num-seqs"]).exits(0).prints("+20.0 %");
    scene.call(&["compare", &before, &other, "--match", "model,max-concurrency"]).exits(0).prints("+20.0 %");
    scene.call(&["compare", &before, &other, "--match", "max-num-seqs"]).exits(3);
    scene.call(&["compare", &before, &other, "--match", "modle"]).exits(2).says("--match").says("`model`");
    scene.call(&["compare", &before, &other, "--match", ","]).exits(2).says("--match");
    scene.call(&["compare", &before, &other, "--match", "model", "--ignore", "model"]).exits(2);
    for (more, words) in [
        (serde_json::json!({"max_num_seqs": 1, "model_id": "org/n"}), "model (org/m and org/n)"),
        (serde_json::json!({"max_num_seqs": 1, "max_concurrency": 64}), "max-concurrency (8 and 64)"),
    ] {
        let other = result_file(&scene, "third", "a.json", more);
        scene.call(&["compare", &before, &other]).exits(3).says(words);
    }
    // What would make configurations of one run the same is refused: these are no repeats.
    result_file(&scene, "before", "c.json", serde_json::json!({"max_num_seqs": 4}));
    let ended = scene.call(&["compare", &before, &other, "--ignore", "max-num-seqs"]).exits(2);
    ended.says("`--ignore` makes several configurations of the run before").says("max-num-seqs (1, 4)");
    scene.call(&["compare", &before, &other, "--match", "model"]).exits(2).says("--match model,max-num-seqs");
    // A run that repeats nothing says nothing of noise.
    scene.call(&["compare", &before, &same, "--noise", &same]).exits(3).says("says nothing of noise");
    // Requests that fail now are worse, whatever the others measured.
    let failed = serde_json::json!({
        "max_num_seqs": 1, "failed": 40, "completed": 60, "total_input_tokens": 7680, "total_output_tokens": 7680, "duration": 7.68,
    });
    let failing = result_file(&scene, "failing", "a.json", failed);
    let ended = scene.call(&["compare", &same, &failing]).exits(1);
    ended.prints("WORSE: ").prints("1 of 1 start failed, 0 of 1 before (40 of 100 requests failed)");
    scene.call(&["compare", &failing, &same]).exits(0).prints("0 of 1 start failed, 1 of 1 before");
    // A metric that none of them has does not vanish.
    let faster = serde_json::json!({"max_num_seqs": 1, "output_throughput": 1200.0});
    let faster = result_file(&scene, "faster", "a.json", faster);
    let ended = scene.call(&["compare", &same, &faster, "--metrics", "output_throughput,p90_ttft_ms"]).exits(0);
    ended.prints("`p90_ttft_ms` was not measured in either run");
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_noise_check_repeats_one_configuration_and_says_what_can_be_resolved() {
    let scene = Scene::new();
    let ended = scene.sweep().set("--noise-check", ["4"]).exits(0);
    ended.prints("4 of 4 passed").prints("Repeats of the same configuration").prints("MDE 10");
    let run = scene.run();
    assert_eq!(run.events("server-launched").len(), 4, "each on a fresh start");
    scene.sweep().set("--noise-check", ["1"]).exits(2).says("--noise-check");
}

#[test]
fn wrong_words_are_refused_with_the_flag_s_name() {
    let scene = Scene::new();
    for (words, told) in [
        (&["recommend", "--slo", "ttft<5"][..], "--slo"),
        (&["recommend", "--objective", "completed"], "--objective"),
        (&["recommend", "--latency", "speed"], "--latency"),
        (&["recommend", "--margin", "many"], "--margin"),
        (&["recommend", "--max-failure-rate", "2"], "--max-failure-rate"),
    ] {
        scene.call(words).exits(2).says(told);
    }
}

/// A sweep file with these limits, run with three starts of each of two configurations; returns the run's path.
fn with_limits(scene: &Scene, directory: &str, slo: &str) -> String {
    let file = scene.path("limits.yaml");
    let text = format!(
        "serve: {{model: org/tiny, enforce-eager: [true, false], max-model-len: 2048}}\n\
         bench: {{dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 8, max-concurrency: 2, ignore-eos: true}}\n\
         {slo}\n"
    );
    std::fs::write(&file, text).unwrap();
    scene.sweep_of(&file).set("--results-dir", [scene.path(directory).to_str().unwrap()]).exits(0);
    scene.runs_in(&scene.path(directory))[0].0.to_str().unwrap().to_owned()
}

#[test]
fn limits_of_the_sweep_file_are_kept_unless_the_user_names_others() {
    let scene = Scene::new();
    let run = with_limits(&scene, "one", "slo: {ttft: {p99: 0.001}, output_throughput: 1}");
    let ended = scene.call(&["recommend", &run]).exits(3);
    ended.prints("Limits of the sweep file (`slo`): p99_ttft_ms < 0.001, output_throughput > 1.");
    ended.prints("p99_ttft_ms is");
    let found = json(&scene.call(&["recommend", &run, "--format", "json"]).exits(3));
    assert_eq!(found["limits_from"], "sweep-file");
    assert_eq!(
        found["limits"],
        serde_json::json!([
            {"metric": "p99_ttft_ms", "below": 0.001, "inclusive": false},
            {"metric": "output_throughput", "above": 1.0, "inclusive": false},
        ])
    );
    // A flag takes the place of all of them; an empty one of all without another.
    let ended = scene.call(&["recommend", &run, "--slo", "ttft.p99<1000000"]).exits(0);
    ended.prints("Limits of `--slo`: p99_ttft_ms < 1000000.");
    let found = json(&scene.call(&["recommend", &run, "--slo", "", "--format", "json"]).exits(0));
    assert_eq!((&found["limits"], &found["limits_from"]), (&serde_json::json!([]), &Value::Null));
    // Every answer keeps them.
    let none = "No configuration keeps the limits";
    scene.call(&["analyze", &run, "--objective", "mean_ttft_ms"]).exits(0).prints(none).prints("of the sweep file");
    scene.call(&["analyze", &run, "--group-by", "enforce-eager"]).exits(0).prints(none);
    scene.call(&["analyze", &run, "--format", "markdown"]).exits(0).prints(none).prints("of the sweep file");
    let found = json(&scene.call(&["analyze", &run, "--format", "json"]).exits(0));
    assert_eq!(found["ranking"]["limits_from"], "sweep-file");
    scene.call(&["analyze", &run]).exits(0).prints(none).prints("of the sweep file");
    scene.call(&["report", &run, "--output", "-"]).exits(0).prints("Limits of the sweep file").prints(none);
    // Of several runs they count where they are the same, in whatever words and order.
    let same = with_limits(&scene, "two", "slo: ['output_throughput>1', 'ttft.p99<0.001']");
    scene.call(&["recommend", &run, &same]).exits(3).prints("Limits of the sweep file");
    let other = with_limits(&scene, "three", "");
    let found = scene.call(&["recommend", &run, &other]).exits(0);
    found.prints("No limits: those of the runs' sweep files (`slo`) differ.");
    let found = json(&scene.call(&["recommend", &run, &other, "--format", "json"]).exits(0));
    assert_eq!((&found["limits"], &found["limits_from"]), (&serde_json::json!([]), &"different".into()));
    // A run of a version for which `slo` was only kept: none is used, and that is said.
    let manifest = std::path::Path::new(&run).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("\"slo.ttft.p99\""), "{text}");
    std::fs::write(&manifest, text.replace("slo.ttft.p99", "slo.ttft-ms")).unwrap();
    scene.call(&["recommend", &run]).exits(0).says("`ttft-ms: 0.001` of the sweep file's `slo` is no limit");
}

/// The fields of a CSV by column, line by line.
fn lines_of(text: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let line = |record: csv::StringRecord| names.iter().cloned().zip(record.iter().map(str::to_owned)).collect();
    reader.records().map(|record| line(record.unwrap())).collect()
}

/// A run with all that an answer must get right: two models, two workloads, three starts of each, an axis of the environment, limits, an
/// objective, one start that failed, and a warning of each configuration. Its `vllm` writes down what it is told, one line a start.
fn with_everything(scene: &Scene) -> (String, std::path::PathBuf, String) {
    let seen = scene.path("seen");
    let vllm = scene.vllm_that(&format!(
        "if [ \"$1\" = serve ]; then\n\
           echo \"$* | $(env | grep -E '^(VLLM_|IT_SCENE)' | grep -v '^VLLM_BENCH_ATTEMPT' | sort | tr '\\n' ' ')\" >> '{}'\n\
           if [ \"$VLLM_ATTENTION_BACKEND\" = TRITON_ATTN ] && [ \"$2\" = org/tiny ] && mkdir '{}' 2>/dev/null; then exit 3; fi\n\
         fi",
        seen.display(),
        scene.path("failed").display()
    ));
    let file = scene.path("answer.yaml");
    let text = "serve: {model: [org/tiny, org/tiny-two], max-model-len: 2048}\n\
                env: {VLLM_ATTENTION_BACKEND: [FLASH_ATTN, TRITON_ATTN]}\n\
                bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 8, max-concurrency: [1, 2], ignore-eos: true}\n\
                repeats: {starts: 3}\nslo: {ttft: {p99: 1000000}}\nobjective: request_throughput\nclient: builtin\nretry: none\n";
    std::fs::write(&file, text).unwrap();
    let ended = scene
        .call(&["run", file.to_str().unwrap()])
        .set("--vllm-bin", [vllm.to_str().unwrap()])
        .set("--setvars", ["none"])
        .set("--login", ["off"])
        .set("--port", ["auto"])
        .set("--results-dir", [scene.path("runs").to_str().unwrap()])
        .set("--env", [scene.mark().as_str()])
        .also("--env", "VLLM_BENCH_SIM_SPEED=inf")
        .flag("--no-preflight")
        .flag("--keep-foreign")
        .exits(1);
    let run = scene.runs_in(&scene.path("runs"))[0].0.to_str().unwrap().to_owned();
    (run, seen, ended.stdout.clone())
}

/// Puts preemptions into every result of a run: a warning that excludes nothing.
fn with_preemptions(run: &str) {
    for entry in std::fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("_results.json") && !path.ends_with("raw_results.json") {
            let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            value["vllm_bench_load"]["server"] = serde_json::json!({"preemptions": 3});
            std::fs::write(&path, value.to_string()).unwrap();
        }
    }
}

/// What the fake `vllm` writes down when the printed command is run in a shell that has nothing else.
fn arrives(command: &str, seen: &std::path::Path) -> String {
    use std::os::unix::process::CommandExt as _;
    let lines = || std::fs::read_to_string(seen).unwrap_or_default();
    let before = lines().lines().count();
    let mut child = std::process::Command::new("bash")
        .args(["-c", &format!("exec {command}")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let line = crate::support::wait_for("the server of the printed command", || {
        lines().lines().nth(before).map(str::to_owned)
    });
    let group = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    line
}

#[test]
fn every_format_says_the_same_answer_and_its_command_starts_what_was_measured() {
    let scene = Scene::new();
    let (run, seen, end) = with_everything(&scene);
    let measured = std::fs::read_to_string(&seen).unwrap();
    // The end of the run gave the same answer, before there were warnings: short on the screen, whole in its file.
    let whole = std::fs::read_to_string(std::path::Path::new(&run).join("detailed_analysis.txt")).unwrap();
    let first = json(&scene.call(&["recommend", &run, "--format", "json"]).exits(0));
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    with_preemptions(&run);
    let found = json(&scene.call(&["recommend", &run, "--format", "json"]).exits(0));
    assert_eq!((&found["objective"], &found["objective_from"]), (&"request_throughput".into(), &"run".into()));
    assert_eq!(found["limits_from"], "sweep-file");
    let exported = json(&scene.call(&["analyze", &run, "--format", "json"]).exits(1));
    assert_eq!(found, exported["ranking"], "recommend and analyze");
    let answers = found["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 4, "one for each model and workload");
    for (answer, before) in answers.iter().zip(first["answers"].as_array().unwrap()) {
        assert_eq!((&answer["choice"]["name"], &answer["set"]), (&before["choice"]["name"], &before["set"]));
        for sentence in before["sentences"].as_array().unwrap() {
            assert!(flat(&whole).contains(&flat(sentence.as_str().unwrap())), "the end of run: {sentence}\n{whole}");
        }
    }
    let short = end.lines().filter(|line| line.contains(", at max-concurrency ") && line.contains(" req/s")).count();
    assert_eq!(short, answers.len(), "each has a line at the end of the run:\n{end}");
    let files = scene.path("datatrove");
    let [analysis, recommended, markdown, page, csv, datatrove] = [
        &["analyze", &run][..],
        &["recommend", &run],
        &["analyze", &run, "--format", "markdown"],
        &["report", &run, "--output", "-"],
        &["analyze", &run, "--format", "csv"],
        &["analyze", &run, "--format", "datatrove", "--output", files.to_str().unwrap()],
    ]
    .map(|words| scene.call(words).ends().stdout.clone());
    let [ranking, pareto] =
        ["ranking", "pareto"].map(|kind| scene.call(&["plot", kind, &run, "--output", "-"]).exits(0).stdout.clone());
    let stated = "The objective is that of the run (`objective`).";
    for text in [&analysis, &recommended, &markdown, &page, &datatrove] {
        assert!(flat(text).contains(stated), "{text}");
    }
    for (name, text) in [("ranking", &ranking), ("pareto", &pareto)] {
        assert!(
            text.contains("Request throughput per device") || text.contains("request throughput per device"),
            "{name}: {text}"
        );
    }
    let lines = lines_of(&csv);
    let summary = std::fs::read_to_string(files.join("optimization_summary.csv")).unwrap();
    let summary = lines_of(&summary);
    let mut excluded = 0;
    for answer in answers {
        let choice = &answer["choice"];
        let name = choice["name"].as_str().unwrap();
        for sentence in answer["sentences"].as_array().unwrap().iter().map(|sentence| sentence.as_str().unwrap()) {
            for (format, text) in [("analyze", &analysis), ("recommend", &recommended), ("markdown", &markdown)] {
                assert!(flat(text).contains(&flat(sentence)), "{format}: {sentence}\n{text}");
            }
            assert!(flat(&page).contains(&flat(sentence).replace('/', "&#x2f;")), "report: {sentence}");
        }
        // The warning of the choice excludes nothing and is printed with it.
        let warning = "3 requests were preempted: the KV cache was too small";
        // What other tests have on these cores is a warning as well, and no part of this one.
        let told = choice["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|text| !text.as_str().unwrap().contains("also used by"));
        assert_eq!(told.collect::<Vec<_>>(), [warning]);
        let warning = format!("{name}: {warning}");
        for (format, text) in
            [("analyze", &analysis), ("recommend", &recommended), ("markdown", &markdown), ("report", &page)]
        {
            assert!(flat(text).contains(&warning), "{format}: {warning}\n{text}");
        }
        for (format, text) in [("datatrove", &datatrove), ("ranking", &ranking), ("pareto", &pareto)] {
            assert!(text.contains("preempted"), "{format}: {text}");
        }
        // What failed is excluded everywhere.
        for left in answer["left_out"].as_array().unwrap() {
            excluded += 1;
            assert_eq!(left[1], "1 of 3 starts failed (crashed)");
            for text in [&analysis, &recommended, &markdown, &page] {
                assert!(flat(text).contains("1 of 3 starts failed (crashed)"), "{text}");
            }
        }
        // The table of all measurements has the same choice, set, mean and interval.
        for option in answer["options"].as_array().unwrap() {
            let own: Vec<_> = lines.iter().filter(|line| line["name"] == option["name"].as_str().unwrap()).collect();
            let [own] = own.as_slice() else { panic!("{option}") };
            assert_eq!(own["choice"], (option["name"] == name).to_string());
            assert_eq!(own["standing"], option["standing"].as_str().unwrap());
            assert_eq!(own["objective"], "request_throughput per device");
            // There is no interval where the starts do not differ at all.
            let number = |column: &str| own[column].parse::<f64>().ok();
            assert!(number("objective.mean").is_some());
            assert_eq!(number("objective.mean"), option["value"].as_f64());
            assert_eq!(number("objective.low"), option["interval"]["low"].as_f64());
            assert_eq!(number("objective.high"), option["interval"]["high"].as_f64());
        }
        // The cluster sweep's file has the choice, in its own metric.
        let workload = answer["workload"].as_str().unwrap();
        let of_cluster = summary
            .iter()
            .find(|line| line["model"] == answer["model"].as_str().unwrap() && line["workload"] == workload)
            .unwrap();
        let row = exported["configurations"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        let tps = row["metrics"]["output_tps_per_gpu"]["mean"].as_f64().unwrap();
        let written: f64 = of_cluster["overall_tps"].parse().unwrap();
        assert!((written / tps - 1.0).abs() < 1e-6, "{written} and {tps}");
        // The command starts what was measured: these flags and variables, no others.
        let command = answer["command"].as_str().unwrap();
        assert!(command.starts_with("env ") && recommended.contains(command), "{command}\n{recommended}");
        let told = arrives(command, &seen);
        assert!(measured.lines().any(|line| line == told), "{told}\nis not among\n{measured}");
        let backend = choice["serve_environment"]["VLLM_ATTENTION_BACKEND"].as_str().unwrap();
        assert!(told.contains(&format!(" VLLM_ATTENTION_BACKEND={backend} ")), "{told}");
    }
    assert_eq!(excluded, 2, "one start failed, with both of its workloads");
    let in_turn = lines.iter().map(|line| line["start"].as_str()).collect::<Vec<_>>();
    assert_eq!(in_turn[..8], ["1"; 8], "several starts are measured in turn: {in_turn:?}");
}

#[test]
fn the_objective_is_chosen_once_and_kept_with_the_run() {
    let scene = Scene::new();
    let results = scene.results();
    scene.sweep().set("--objective", ["total:output_throughput"]).exits(0).prints("Output throughput (tok/s)");
    let kept = scene.run().json("manifest.json");
    assert_eq!(kept["settings"]["objective"]["value"], "total:output_throughput");
    let results = results.to_str().unwrap();
    let asked = |words: &[&str]| {
        let all = [&["recommend", "--results-dir", results, "--format", "json"], words].concat();
        let found = json(&scene.call(&all).exits(0));
        (found["objective"].clone(), found["per_device"].clone(), found["objective_from"].clone())
    };
    assert_eq!(asked(&[]), ("output_throughput".into(), false.into(), "run".into()));
    assert_eq!(asked(&["--objective", "output_throughput"]), ("output_throughput".into(), true.into(), "flag".into()));
    // The name of before is another one for it.
    assert_eq!(asked(&["--rank-by", "mean_ttft_ms"]), ("mean_ttft_ms".into(), false.into(), "flag".into()));
    // Wrong ones are refused before anything starts, with their place.
    scene
        .sweep()
        .set("--objective", ["output_troughput"])
        .exits(2)
        .says("`--objective`")
        .says("did you mean `output_throughput`?");
    scene
        .sweep()
        .set("--objective", ["total:mean_ttft_ms"])
        .exits(2)
        .says("`total:` is for throughputs")
        .says("write `mean_ttft_ms`");
    scene.sweep().set("--objective", ["request_goodput"]).exits(2).says("needs goals").says("`goodput:");
    let file = scene.path("wrong.yaml");
    std::fs::write(&file, "preset: sanity\nobjective: completed\n").unwrap();
    let plan = scene.call(&["plan", file.to_str().unwrap()]).exits(2);
    plan.says("wrong.yaml:2:12: objective: expected the key of a metric with a direction");
    for (words, told) in [
        (&["recommend", "--objective", "p99_ttft_ms", "--total"][..], "`--total` has no effect"),
        (&["plot", "throughput", "--objective", "p99_ttft_ms"], "`--objective` has no effect with `plot throughput`"),
        (&["plot", "ranking", "--metric", "ttft", "--slo", "ttft.p99<5"], "`--slo` has no effect with `--metric`"),
    ] {
        scene.call(words).exits(2).says(told);
    }
}

#[test]
fn goodput_is_an_objective() {
    let scene = Scene::new();
    let file = scene.path("goodput.yaml");
    std::fs::write(
        &file,
        "serve: {model: org/tiny, enforce-eager: [true, false], max-model-len: 2048}\nobjective: request_goodput\n\
         bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 8, max-concurrency: 2, \
         ignore-eos: true, goodput: [['ttft:1000000', 'tpot:1000000']]}\n",
    )
    .unwrap();
    let ended = scene.sweep_of(&file).exits(0);
    ended.prints("Request goodput per device (req/s)").prints("Use  ");
    let run = scene.run().0;
    let found = json(&scene.call(&["recommend", run.to_str().unwrap(), "--format", "json"]).exits(0));
    assert!(found["answers"][0]["choice"]["value"].as_f64().unwrap() > 0.0);
    scene
        .call(&["plot", "ranking", run.to_str().unwrap(), "--output", "-"])
        .exits(0)
        .prints("request goodput per device");
}

/// A row of a failure has the settings of its plan, the variables too: it is paired as a measured one is.
#[test]
fn what_fails_afterwards_is_worse_whatever_is_ignored() {
    let scene = Scene::new();
    repeated(&scene, "1", "1").exits(0);
    repeated(&scene, "1", "1").set("--sim-fault", ["out-of-memory"]).set("--results-dir", ["2"]).exits(1);
    let run = |place: &str| -> String { scene.runs_in(&scene.path(place))[0].0.to_str().unwrap().to_owned() };
    let (before, after) = (run("1"), run("2"));
    let ended = scene.call(&["compare", &before, &after, "--ignore", "env.VLLM_BENCH_SIM_FAULT"]).exits(1);
    ended.prints("2 configurations failing now").prints("1 of 1 start failed");
}

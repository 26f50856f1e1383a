//! From figures to a decision: `recommend`, `compare` and `run --noise-check`, as a user calls them.

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
}

fn json(ended: &crate::support::Ended<'_>) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}\n{}", ended.stdout))
}

#[test]
fn the_recommendation_names_the_faster_one_with_its_command() {
    let scene = Scene::new();
    repeated(&scene, "3", "1")
        .exits(0)
        .prints("Repeats of the same configuration")
        .prints("mean of 3 starts")
        .prints("Use  ");
    let ended = scene.call(&["recommend", "--results-dir", "1"]).exits(0);
    ended.prints("eager false").prints("SIMULATED").prints("serve org/tiny").prints("Against the runner-up");
    let found = json(&scene.call(&["recommend", "--results-dir", "1", "--format", "json"]).exits(0));
    assert_eq!(found["simulated"], true);
    let answer = &found["answers"][0];
    assert_eq!(answer["choice"]["name"], crate::support::SECOND);
    assert_eq!((&answer["choice"]["n"], &answer["why"]), (&3.into(), &"best-mean".into()));
    // Without noise between starts nothing says how far they would differ.
    let basis = answer["basis"].as_str().unwrap();
    assert!(["starts", "no-variance"].contains(&basis), "{basis}");
    assert!(answer["choice"]["serve_command"].as_array().unwrap().iter().any(|word| word == "serve"));
    // A limit that only one of them keeps decides, whatever is faster.
    let slower =
        answer["options"].as_array().unwrap().iter().find(|option| option["name"] == crate::support::FIRST).unwrap();
    let limit = format!("output_throughput<{}", slower["value"].as_f64().unwrap() * 1.01);
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
    assert_eq!(outcomes.len(), 6, "two configurations, three figures");
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
    let ended = scene.call(&["compare", &same, &faster, "--figures", "output_throughput,p90_ttft_ms"]).exits(0);
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
        (&["recommend", "--rank-by", "completed"], "--rank-by"),
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
    scene
        .call(&["run", file.to_str().unwrap()])
        .set("--engine", ["sim"])
        .set("--sim-speed", ["inf"])
        .set("--port", ["auto"])
        .set("--results-dir", [scene.path(directory).to_str().unwrap()])
        .set("--env", [scene.mark().as_str()])
        .flag("--keep-foreign")
        .exits(0);
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
            {"figure": "p99_ttft_ms", "below": 0.001, "inclusive": false},
            {"figure": "output_throughput", "above": 1.0, "inclusive": false},
        ])
    );
    // A flag takes the place of all of them; an empty one of all without another.
    let ended = scene.call(&["recommend", &run, "--slo", "ttft.p99<1000000"]).exits(0);
    ended.prints("Limits of `--slo`: p99_ttft_ms < 1000000.");
    let found = json(&scene.call(&["recommend", &run, "--slo", "", "--format", "json"]).exits(0));
    assert_eq!((&found["limits"], &found["limits_from"]), (&serde_json::json!([]), &Value::Null));
    // Every answer keeps them.
    let none = "No configuration keeps the limits";
    scene.call(&["analyze", &run, "--rank-by", "mean_ttft_ms"]).exits(0).prints(none).prints("of the sweep file");
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

#[test]
fn every_format_says_the_same_answer_and_its_command_carries_the_variables() {
    let scene = Scene::new();
    let file = scene.path("answer.yaml");
    let text = "serve: {model: org/tiny, enforce-eager: [true, false], max-model-len: 2048}\n\
                env: {VLLM_ATTENTION_BACKEND: [FLASH_ATTN, TRITON_ATTN]}\n\
                bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 8, max-concurrency: [1, 2], ignore-eos: true}\n\
                repeats: {starts: 3}\nslo: {ttft: {p99: 1000000}}\n";
    std::fs::write(&file, text).unwrap();
    let ended = scene
        .call(&["run", file.to_str().unwrap()])
        .set("--engine", ["sim"])
        .set("--sim-speed", ["inf"])
        .set("--port", ["auto"])
        .set("--results-dir", [scene.path("runs").to_str().unwrap()])
        .set("--env", [scene.mark().as_str()])
        .flag("--keep-foreign")
        .exits(0);
    let run = scene.runs_in(&scene.path("runs"))[0].0.to_str().unwrap().to_owned();
    let found = json(&scene.call(&["recommend", &run, "--format", "json"]).exits(0));
    let exported = json(&scene.call(&["analyze", &run, "--format", "json"]).exits(0));
    assert_eq!(found, exported["ranking"], "recommend and analyze");
    let answers = found["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2, "one for each workload");
    let analysis = std::fs::read_to_string(std::path::Path::new(&run).join("detailed_analysis.txt")).unwrap();
    let [recommended, markdown, page, csv] = [
        &["recommend", &run][..],
        &["analyze", &run, "--format", "markdown"],
        &["report", &run, "--output", "-"],
        &["analyze", &run, "--format", "csv"],
    ]
    .map(|words| scene.call(words).exits(0).stdout.clone());
    // Screens break lines.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = lines_of(&csv);
    for answer in answers {
        let choice = &answer["choice"];
        for sentence in answer["sentences"].as_array().unwrap().iter().map(|sentence| sentence.as_str().unwrap()) {
            for (name, text) in [
                ("the end of run", &ended.stdout),
                ("the file", &analysis),
                ("recommend", &recommended),
                ("markdown", &markdown),
            ] {
                assert!(flat(text).contains(&flat(sentence)), "{name}: {sentence}\n{text}");
            }
            assert!(flat(&page).contains(&flat(sentence).replace('/', "&#x2f;")), "report: {sentence}");
        }
        // The table of all measurements has the same choice and the same mean.
        let own: Vec<_> = lines.iter().filter(|line| line["name"] == choice["name"].as_str().unwrap()).collect();
        assert_eq!((own.len(), own[0]["choice"].as_str()), (1, "true"));
        let total: f64 = own[0]["repeats.output_throughput.mean"].parse().unwrap();
        let mean = choice["value"].as_f64().unwrap() * choice["devices"].as_f64().unwrap();
        assert!((total / mean - 1.0).abs() < 1e-4, "{total} and {mean}");
        assert_eq!((&choice["n"], own[0]["samples"].as_str()), (&3.into(), "3"));
        // The command starts what was measured: the same words and variables as its script.
        let command = answer["command"].as_str().unwrap();
        let backend = choice["serve_environment"]["VLLM_ATTENTION_BACKEND"].as_str().unwrap();
        assert!(
            command.starts_with("env ") && command.contains(&format!("VLLM_ATTENTION_BACKEND={backend} ")),
            "{command}"
        );
        assert!(recommended.contains(command), "{command}\n{recommended}");
    }
    let in_turn = lines.iter().map(|line| line["start"].as_str()).collect::<Vec<_>>();
    assert_eq!(in_turn[..8], ["1"; 8], "several starts are measured in turn: {in_turn:?}");
}

//! `analyze` on what other programs wrote, and on what is no result at all.

use crate::support::Scene;
use crate::support::results::{Results, result};
use serde_json::json;

fn path(results: &Results) -> &str {
    results.path().to_str().unwrap()
}

#[test]
fn a_name_of_nothing_is_told_with_where_was_looked_and_what_is_near() {
    let scene = Scene::new();
    let here = |words: &[&str]| {
        let ended = scene.call(words).exits(3);
        ended.says("neither a run nor a file `nothing.json` was found: looked for the path `");
        ended.says("nothing.json`, and for a run of this name in `");
        ended
    };
    let nowhere = scene.path("folder/nothing.json").to_str().unwrap().to_owned();
    let ended = scene.call(&["analyze", &nowhere]).exits(3);
    ended.says("neither a run nor a file").says("name a run, a results directory or a file of results");
    let results = scene.results().to_str().unwrap().to_owned();
    here(&["analyze", "nothing.json", "--results-dir", &results]).says("hint: name a run");
    // A run that is there is named; a file with nearly the same name is meant more likely.
    scene.sweep().exits(0);
    let run = scene.run().0.file_name().unwrap().to_str().unwrap().to_owned();
    for command in [&["analyze"][..], &["recommend"], &["report"], &["plot", "ranking"]] {
        here(&[command, &["nothing.json", "--results-dir", &results]].concat()).says(&format!("there is: {run}"));
    }
    std::fs::create_dir(scene.path("folder")).unwrap();
    std::fs::write(scene.path("folder/nothings.json"), "{}").unwrap();
    scene.call(&["analyze", &nowhere]).exits(3).says("did you mean `").says("folder/nothings.json`?");
}

#[test]
fn a_sweep_of_vllm_is_analysed_by_what_it_varied() {
    let scene = Scene::new();
    let sweep = Results::new(scene.path("sweep/20260101_100000"));
    for seqs in [32, 64] {
        let folder = format!("SERVE--max_num_seqs={seqs}-BENCH--max_concurrency=4");
        for run in 0..2 {
            let more =
                json!({"run_number": run, "max_num_seqs": seqs, "output_throughput": f64::from(seqs * 10 + run)});
            sweep.result(&format!("{folder}/run={run}.json"), more);
        }
        let both = [result(json!({"run_number": 0})), result(json!({"run_number": 1}))];
        sweep.put(&format!("{folder}/summary.json"), serde_json::to_string(&both).unwrap());
    }
    let ended = scene.call(&["analyze", scene.path("sweep").to_str().unwrap()]).exits(0);
    ended.prints("4 of 4 passed").prints("vllm bench sweep serve");
    // Nothing is written into what belongs to others.
    assert!(!sweep.path().join("results_summary.csv").exists());
    let ended = scene.call(&["analyze", path(&sweep), "--format", "csv"]).exits(0);
    let mut table = csv::Reader::from_reader(ended.stdout.as_bytes());
    let head = table.headers().unwrap().clone();
    let seqs = head.iter().position(|name| name == "serve.mns").unwrap();
    let values: Vec<String> = table.records().map(|record| record.unwrap()[seqs].to_owned()).collect();
    assert_eq!(values, ["32", "32", "64", "64"], "{}", ended.stdout);
}

#[test]
fn what_cannot_be_read_is_named_and_the_exit_code_says_so() {
    let scene = Scene::new();
    let results = Results::new(scene.path("files"));
    results.result("a.json", json!({})).result("b.json", json!({"max_concurrency": 8}));
    results.put("other.json", "{\"hello\": 1}").pipe("pipe.json");
    let ended = scene.call(&["analyze", path(&results)]).exits(0);
    ended.prints("2 of 2 passed").prints("other.json").prints("pipe.json").prints("not a regular file");
    // Something else is no lost result; a broken one is.
    results.put("cut.json", &result(json!({}))["model_id"].to_string().as_bytes()[..3]);
    let whole = serde_json::to_string(&result(json!({}))).unwrap();
    results.put("torn.json", &whole[..whole.len() / 2]).huge("huge.json").put("empty.json", "");
    let ended = scene.call(&["analyze", path(&results)]).exits(1);
    ended.prints("2 of 2 passed").prints("torn.json").prints("cut off: EOF").prints("larger than 1024 MiB");
    ended.prints("empty.json");
    // Lines that were appended before the one that is cut off count.
    let lines = Results::new(scene.path("lines"));
    lines.put("l.json", format!("{whole}\n{whole}\n{}", &whole[..100]));
    let ended = scene.call(&["analyze", path(&lines)]).exits(1);
    ended.prints("2 of 2 passed").prints("l.json");
}

#[test]
fn a_directory_without_results_says_what_was_looked_for() {
    let scene = Scene::new();
    let results = Results::new(scene.path("nothing"));
    scene.call(&["analyze", path(&results)]).exits(3).says("no results in").says("vllm bench sweep serve");
    results.put("other.json", "{\"hello\": 1}");
    scene.call(&["analyze", path(&results)]).exits(3).says("`other.json`: not a benchmark result");
    let file = results.path().join("other.json");
    scene.call(&["analyze", file.to_str().unwrap()]).exits(5).says("is no result");
}

#[test]
fn detailed_results_do_not_come_out_again() {
    let scene = Scene::new();
    let results = Results::new(scene.path("detailed"));
    let requests = 2000;
    let arrays = json!({
        "ttfts": vec![0.123_456_789; requests], "itls": vec![vec![0.012_345_678; 20]; requests],
        "generated_texts": vec!["a \"}]\\ text"; requests], "errors": vec![""; requests],
    });
    results.result("org_m_tp2_quant-none_eager-true_results.json", arrays);
    scene.call(&["analyze", path(&results)]).exits(0).prints("1 of 1 passed");
    let raw: serde_json::Value = serde_json::from_str(&results.read("raw_results.json")).unwrap();
    assert_eq!(raw[0]["left_out"], json!(["ttfts", "itls", "generated_texts", "errors"]));
    assert_eq!(raw[0]["data"]["output_throughput"], json!(256.0));
    assert!(results.read("raw_results.json").len() < 4000);
}

#[test]
fn requests_one_by_one_make_a_row() {
    let scene = Scene::new();
    let results = Results::new(scene.path("requests"));
    results.put(
        "requests.csv",
        "run_id,qid,ttft_ms,latency_ms,prompt_tokens,completion_tokens,error,start_s,end_s\n\
         r,0,10,110,8,11,,0,0.11\nr,1,20,220,8,11,,0.78,1\n",
    );
    scene.call(&["analyze", path(&results)]).exits(0).prints("2.000").prints("22.0").prints("15.00");
}

#[test]
fn what_sglang_measured_is_no_setting_and_what_vllm_counted_of_drafts_is_shown() {
    let scene = Scene::new();
    let of_sglang = |rate: u32, tokens: u32| {
        json!({"backend": "sglang", "dataset_name": "random", "request_rate": rate, "completed": 300, "duration": 100.0,
            "total_input_tokens": 30000, "total_output_tokens": 30000, "total_output_tokens_retokenized": tokens,
            "concurrency": f64::from(tokens) / 1e4, "accept_length": null, "mean_e2e_latency_ms": 800.0,
            "median_e2e_latency_ms": 790.0, "median_ttft_ms": 80.0, "median_itl_ms": 9.0, "output_throughput": 300.0})
        .to_string()
    };
    let lines = [of_sglang(1, 29990), of_sglang(2, 29980)].join("\n");
    std::fs::write(scene.path("sglang.jsonl"), lines).unwrap();
    let ended = scene.call(&["analyze", scene.path("sglang.jsonl").to_str().unwrap()]).exits(0);
    ended.prints("2 of 2 passed").prints("3.000");
    for measured in ["retokenized", "concurrency"] {
        assert!(!ended.stdout.contains(measured), "{measured} is shown as a setting:\n{}", ended.stdout);
    }
    let drafts = Results::new(scene.path("drafts"));
    drafts.result("one.json", json!({"spec_decode_acceptance_rate": 61.5, "spec_decode_acceptance_length": 2.23}));
    let ended = scene.call(&["analyze", path(&drafts), "--format", "csv"]).exits(0);
    ended.prints("spec_decode_acceptance_rate").prints("61.5").prints("2.23");
}

/// What stands in the place of a wrong name, ending or folder is told with what there is.
#[test]
fn wrong_names_and_places_are_told_with_what_there_is() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run().0.file_name().unwrap().to_str().unwrap().to_owned();
    let results = scene.results().to_str().unwrap().to_owned();
    for words in [&["compare", "a", "b"][..], &["logs", "--no-follow", "--run", "2027"], &["status", "2027"]] {
        scene.call(&[words, &["--results-dir", &results]].concat()).exits(3).says(&format!("there is: {run}"));
    }
    let page = scene.call(&["report", &run, "--results-dir", &results, "-o", "/proc/nowhere/page.html"]).ends();
    page.says("could not write `/proc/nowhere/page.html`").says("hint: choose a place");
    assert!(!page.stderr.contains(".tmp-"), "{}", page.stderr);
    let chosen = scene.call(&["recommend", &run, "--results-dir", &results]).ends();
    assert!(!chosen.stdout.contains("keeps the limits"), "no limits were asked for:\n{}", chosen.stdout);
}

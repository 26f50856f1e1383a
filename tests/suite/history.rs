//! `history`: runs over time, from result files as `load` and `vllm bench serve` write them; run directories are read by the examples of the
//! documents.

use std::fs;

use serde_json::{Value, json};

use crate::support::Scene;
use crate::support::results::Results;

/// A result on each of so many days, with this throughput: eight before a change and five after it.
fn nightly(scene: &Scene) -> Results {
    let results = Results::new(scene.path("nightly"));
    let noise = [1.0, -2.0, 3.0, 0.0, -3.0, 2.0, -1.0];
    for day in 1..=13u32 {
        let level = if day <= 8 { 1000.0 } else { 940.0 };
        let rate = level + noise[day as usize % noise.len()];
        results.result(&format!("night-{day:02}.json"), result(&format!("202601{day:02}-020000"), 4, rate));
    }
    // Another workload, in a folder of its own.
    results.result("other/a.json", result("20260103-030000", 64, 5000.0));
    results.put("notes.txt", "no result").put("prompts.json", "{\"prompts\": []}");
    results
}

/// What a result says at this date, with so many requests in flight, of so many tokens per second.
fn result(date: &str, concurrency: u32, rate: f64) -> Value {
    json!({
        "date": date, "max_concurrency": concurrency, "duration": 512.0 / rate, "request_throughput": rate / 32.0,
        "output_throughput": rate, "total_token_throughput": 3.0 * rate,
    })
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_change_of_the_level_is_told_in_every_format() {
    let scene = Scene::new();
    let results = nightly(&scene);
    let dir = results.path().to_str().unwrap().to_owned();
    let history = |more: &[&str]| scene.call(&[&["history", &dir][..], more].concat());

    let listed = history(&[]).exits(0);
    listed.prints("14 runs in").prints("2026-01-13 02:00 (zone not known)").prints("1 passed, 0 failed, 0 skipped");
    listed.prints("WORSE -6.0 %").prints("from night-09.json (2026-01-09 02:00");
    let newest = listed.stdout.find("night-13.json").unwrap();
    assert!(newest < listed.stdout.find("night-01.json").unwrap(), "the newest first");

    let whole = history(&["--metric", "output_throughput", "--config", "max-concurrency=4"]).exits(0);
    whole.prints("Output throughput (tok/s) over 13 runs").prints("worse -6.0 %").prints("Runs scatter by 0.");
    assert!(!whole.stdout.contains("5000"), "another workload is on no trend of this one");

    let json = json_of(&history(&["--metric", "output_throughput", "--json"]).exits(0).stdout);
    let [trend] = json["trends"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((trend["points"].as_array().unwrap().len(), &json["other_trends"]), (13, &json!(1)));
    let [change] = trend["changes"].as_array().unwrap().as_slice() else { panic!("{trend}") };
    assert_eq!((&change["run"], &change["outcome"]), (&json!("night-09.json"), &json!("worse")));
    let ends = ["low", "high"].map(|end| change["interval"][end].as_f64().unwrap());
    assert!(ends[0] < -0.059 && -0.061 < ends[1] && ends[1] < -0.055, "{change}");

    let csv = history(&["--config", "max-concurrency=4", "--format", "csv"]).exits(0).stdout;
    assert!(csv.lines().count() == 14 && csv.starts_with("trend,configuration,metric,unit,"), "{csv}");
    assert_eq!(history(&["--format", "csv"]).exits(0).stdout.lines().count(), 15);
    assert_eq!(json_of(&history(&["--json", "--last", "3"]).exits(0).stdout)["runs"].as_array().unwrap().len(), 3);

    let page = scene.path("page.html");
    let plot = scene.path("plot.svg");
    history(&["--format", "html", "-o", page.to_str().unwrap(), "--plot", plot.to_str().unwrap()]).exits(0);
    let page = fs::read_to_string(page).unwrap();
    for words in ["Content-Security-Policy", "style-src", "<svg", "night-09.json", "worse -6.0 %"] {
        assert!(page.contains(words), "{words}");
    }
    for harm in ["<script", "style=\"", "onload", "src=\"http"] {
        assert!(!page.contains(harm), "{harm}");
    }
    let plot = fs::read_to_string(plot).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("worse from here on"), "{plot}");
}

#[test]
fn what_is_wrong_is_named_with_what_is_near_and_what_is_broken_is_skipped() {
    let scene = Scene::new();
    let results = nightly(&scene);
    let dir = results.path().to_str().unwrap().to_owned();
    let history = |more: &[&str]| scene.call(&[&["history", &dir][..], more].concat());
    for (more, words) in [
        (&["--metric", "output_thruput"][..], "did you mean `output_throughput`?"),
        (&["--config", "max-concurency=4"], "did you mean `max-concurrency`?"),
        (&["--config", "max-concurrency=5"], "no configuration has max-concurrency `5`"),
        (&["--config", "max-concurrency=4,num-prompts=17"], "no configuration has num-prompts `17`"),
        (&["--config", "night-0.json"], "no experiment is called"),
        (&["--config", ","], "expected KEY=VALUE"),
        (&["--ignore", "max-concurrency"], "a trend is of one model, workload and engine"),
        (&["--last", "0"], "a whole number of at least 1"),
        (&["--plot", "x.pdf"], "ends in `.svg` or `.png`"),
    ] {
        history(more).exits(2).says(words);
    }
    history(&["--metric", "mean_power_w"]).exits(3).says("no result that counts has `mean_power_w`");
    scene.call(&["history", "nowhere"]).exits(3).says("there is no run in");
    let file = results.path().join("night-01.json");
    scene.call(&["history", file.to_str().unwrap()]).exits(2).says("is a file");
    // A result that is cut, and a run whose manifest is.
    results.put("night-14.json", "{\"date\": \"20260114-020000\", \"comp");
    results.put("20260115_0200/manifest.json", "{");
    let ended = history(&["--metric", "output_throughput"]).exits(5);
    ended.says("night-14.json is on no trend").says("20260115_0200 is on no trend").prints("over 13 runs");
}

//! `report`, as a user calls it.

use crate::support::Scene;

#[test]
fn the_page_lies_in_the_run_directory_and_its_name_is_printed() {
    let scene = Scene::new();
    scene.sweep().exits(0).prints("vllm-bench report");
    let run = scene.run().0;
    let ended = scene.call(&["report", "--results-dir", "results"]).exits(0);
    assert_eq!(ended.stdout.trim_end(), run.join("report.html").to_str().unwrap());
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("SIMULATED") && page.contains("sim-vllm serve org") && page.contains("Recommendation"));
    // Once more: the same bytes, the old ones replaced, nothing unfinished beside it.
    scene.call(&["report", run.to_str().unwrap()]).exits(0);
    assert_eq!(std::fs::read_to_string(run.join("report.html")).unwrap(), page);
    let names: Vec<String> = std::fs::read_dir(&run)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| name.starts_with(".tmp-")), "{names:?}");
    let ended = scene.call(&["report", run.to_str().unwrap(), "--output", "-", "--title", "a <b> title"]).exits(0);
    assert!(ended.stdout.contains("<h1>a &lt;b&gt; title</h1>"));
    // The page is no result: an analysis sees what it saw before.
    scene.call(&["analyze", run.to_str().unwrap()]).exits(0).prints("2 of 2 passed");
}

#[test]
fn several_runs_are_one_page_somewhere_else() {
    let scene = Scene::new();
    for results in ["one", "two"] {
        scene.sweep().set("--results-dir", [results]).exits(0);
    }
    let runs: Vec<String> =
        ["one", "two"].map(|name| scene.runs_in(&scene.path(name))[0].0.to_str().unwrap().to_owned()).into();
    scene.call(&["report", &runs[0], &runs[1]]).exits(2).says("--output");
    scene.call(&["report", &runs[0], &runs[1], "--output", "both.html"]).exits(0);
    let page = std::fs::read_to_string(scene.path("both.html")).unwrap();
    assert!(page.contains("<dt>Runs</dt>") && page.contains("mean of 2"), "{}", page.len());
    scene.call(&["report", &runs[0], "--output", "nowhere/page.html"]).exits(5).says("nowhere/page.html");
}

#[test]
fn wrong_words_are_refused_and_nothing_is_written() {
    let scene = Scene::new();
    scene.call(&["report", "--slo", "ttft<5"]).exits(2).says("--slo");
    scene.call(&["report", "--objective", "completed"]).exits(2).says("--objective");
    scene.call(&["report", "nowhere"]).ends().says("nowhere");
    scene.sweep().exits(0);
    let run = scene.run().0;
    scene.call(&["report", run.to_str().unwrap(), "--slo", "ttft.p99<0.001"]).exits(0);
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("No configuration keeps the limits."));
}

//! `plot`, as a user calls it: every kind on a simulated run, files that are what they say, and refusals with a next step.

use std::fs;
use std::path::Path;

use crate::support::{Call, Scene};

/// Four configurations under three loads, with the metrics of single requests.
fn measured(scene: &Scene) -> Call<'_> {
    let sweep = "
serve: {model: org/tiny, tensor-parallel-size: [1, 2], enforce-eager: [true, false]}
bench:
  dataset-name: random
  random-input-len: 8
  random-output-len: 8
  max-concurrency: [1, 2, 4]
  num-prompts: 8
  ignore-eos: true
  save-detailed: true
";
    fs::write(scene.path("sweep.yaml"), sweep).unwrap();
    scene
        .call(&["run", "sweep.yaml"])
        .set("--engine", ["sim"])
        .set("--sim-speed", ["inf"])
        .set("--port", ["auto"])
        .set("--results-dir", [scene.results().to_str().unwrap()])
        .set("--env", [scene.mark().as_str()])
        .set("--retry", ["none"])
        .flag("--keep-foreign")
}

const KINDS: [&str; 18] = [
    "throughput",
    "scaling",
    "ttft-cdf",
    "latency-cdf",
    "throughput-cdf",
    "histogram",
    "over-time",
    "dashboard",
    "dashboard-throughput",
    "dashboard-latency",
    "dashboard-ttft",
    "dashboard-tokens",
    "pareto",
    "heatmap",
    "interaction",
    "startup",
    "lanes",
    "ranking",
];

/// Width and height of a PNG, by its header; it is whole to its last part.
fn size(path: &Path) -> (u32, u32) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n", "{}", path.display());
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 8;
    while bytes[at + 4..at + 8] != *b"IEND" {
        // Length, name, content, checksum.
        at += 12 + usize::try_from(number(at)).unwrap();
        assert!(at + 12 <= bytes.len(), "{} is damaged", path.display());
    }
    assert_eq!(at + 12, bytes.len(), "{}", path.display());
    (number(16), number(20))
}

#[test]
fn every_kind_is_drawn_and_is_what_its_name_says() {
    let scene = Scene::new();
    measured(&scene).exits(0);
    let run = scene.run();
    let results = scene.results();
    let results = results.to_str().unwrap();
    let list = scene.call(&["plot", "list"]).exits(0);
    for kind in KINDS {
        list.prints(kind);
        let ended = scene.call(&["plot", kind, "--output", "-", "--results-dir", results]).exits(0);
        let tree = roxmltree::Document::parse(&ended.stdout).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let texts: Vec<&str> = tree.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
        assert!(texts.contains(&"SIMULATED"), "{kind}: {texts:?}");
        assert!(texts.iter().any(|text| text.contains(&run.name())), "{kind} does not name the run: {texts:?}");
        let again = scene.call(&["plot", kind, "--output", "-", "--results-dir", results]).exits(0);
        assert_eq!(ended.stdout, again.stdout, "{kind}: the same run, other bytes");
    }
    // All of them as PNG, in the run's own folder, under the names of the earlier tools.
    scene.call(&["plot", "all", "--results-dir", results, "--dpi", "96"]).exits(0);
    let id = run.name();
    for name in ["batch_size_throughput", "combined_throughput_comparison", "pareto", "heatmap", "startup_phases"] {
        let (width, height) = size(&run.path(&format!("plots/{name}.png")));
        assert!((600..2000).contains(&width) && (100..3000).contains(&height), "{name}: {width} x {height}");
    }
    for what in ["ttft_cdf", "latency_cdf", "throughput_cdf", "prompt_tokens_hist", "ttft_over_time", "dashboard"] {
        size(&run.path(&format!("plots/{id}_{what}.png")));
    }
    let left = crate::support::files(&run.path("plots"));
    assert!(left.iter().all(|path| path.extension().is_some_and(|ending| ending == "png")), "{left:?}");
}

#[test]
fn one_plot_per_measurement_and_the_size_that_was_asked_for() {
    let scene = Scene::new();
    measured(&scene).exits(0);
    let run = scene.run();
    let path = run.0.to_str().unwrap();
    scene.call(&["plot", "ttft-cdf", path, "--each", "--output", "each", "--format", "svg"]).exits(0);
    let each = crate::support::files(&scene.path("each"));
    assert_eq!(each.len(), 12, "two sizes, eager or not, three loads: {each:?}");
    for file in &each {
        let text = fs::read_to_string(file).unwrap();
        assert!(file.to_str().unwrap().ends_with("_ttft_cdf.svg"), "{file:?}");
        for words in ["p50 ", "p95 ", "p99 ", "n = 8", "std = ", "at or beyond"] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }
    let wanted = ["plot", "ranking", path, "--output", "r.png", "--width", "500", "--height", "700", "--dpi", "192"];
    scene.call(&wanted).exits(0);
    assert_eq!(size(&scene.path("r.png")), (1000, 1400));
    // The plots of several runs belong to none of them.
    let copy = scene.path("copy");
    assert!(std::process::Command::new("cp").arg("-r").args([&run.0, &copy]).status().unwrap().success());
    let both = ["plot", "ranking", path, copy.to_str().unwrap()];
    scene.call(&both).exits(0).says("plots/ranking_output_throughput.png");
    assert!(scene.path("plots/ranking_output_throughput.png").exists());
    let only = ["plot", "ranking", path, "--where", "tp=2", "--where", "max-concurrency=4", "--output", "-"];
    let ended = scene.call(&only).exits(0);
    ended.prints("Only tensor-parallel-size = 2");
    assert!(!ended.stdout.contains("tp 1"), "{}", ended.stdout);
}

#[test]
fn wrong_words_and_missing_data_are_told_with_the_next_step() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let path = run.0.to_str().unwrap();
    for (words, code, told) in [
        (&["plot", "pie"][..], 2, "[possible values: throughput, scaling, ttft-cdf"),
        (&["plot", "ttft-cfd", path], 2, "a similar value exists: 'ttft-cdf'"),
        (&["plot", "ttft-cdf", path], 3, "save-detailed"),
        (&["plot", "throughput", path], 3, "one value of `max-concurrency`"),
        (&["plot", "heatmap", path], 3, "two settings"),
        (&["plot", "ranking", path, "--metric", "speed"], 2, "--metric"),
        (&["plot", "ranking", path, "--where", "tp"], 2, "--where"),
        (&["plot", "ranking", path, "--where", "tp=9"], 3, "there is: 1"),
        (&["plot", "ranking", path, "--where", "tpp=9"], 2, "--where"),
        (&["plot", "ranking", path, "--width", "7"], 2, "--width"),
        (&["plot", "ranking", path, "--format", "gif"], 2, "[possible values: svg, png]"),
        (&["plot", "ranking", path, "--format", "png", "--output", "-"], 2, "--format"),
        (&["plot", "heatmap", path, "--over", "luck"], 2, "--over"),
        (&["plot", "all", path, "--output", "x.png"], 2, "name a folder"),
        (&["plot", "ranking", "nowhere"], 3, "nowhere"),
    ] {
        scene.call(words).exits(code).says(told);
    }
    // What the data do not allow is said, and the rest is drawn.
    let ended = scene.call(&["plot", "all", path, "--output", "some", "--format", "svg"]).exits(0);
    ended.says("not drawn: ttft-cdf").says("ranking_output_throughput.svg");
    // A run that cannot be written into.
    scene.program("file", "");
    scene.call(&["plot", "ranking", path, "--output", "file/x.svg"]).exits(5).says("could not write");
}

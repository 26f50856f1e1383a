//! Files that are not what their names say: no pipe is waited for, nothing endless is read, and what is damaged is named.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::{FIRST, SECOND, Scene};

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

/// Memory of every call below: an endless file must not fill it.
const LIMITED: [&str; 3] = ["bash", "-c", "ulimit -v 4000000; exec \"$0\" \"$@\""];

#[test]
fn a_client_that_leaves_a_pipe_fails_and_the_run_ends() {
    let scene = Scene::new();
    let vllm = scene.vllm_that(
        r#"if [ "$1" = bench ]; then
  while [ $# -gt 0 ]; do
    case "$1" in --result-dir) dir=$2;; --result-filename) name=$2;; esac; shift
  done
  mkfifo "$dir/$name"; exit 0
fi"#,
    );
    scene.sweep_with(&vllm).exits(1).says("could not be read: it is a named pipe, not a regular file");
    let failure = scene.run().failure(FIRST);
    assert_eq!(failure["cause"], "result-invalid");
}

#[test]
fn a_folder_or_a_pipe_among_the_files_of_a_run_does_not_stop_a_resume() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false#1").exits(1);
    let run = scene.run();
    fs::create_dir_all(run.path(".unchecked/folder/deep")).unwrap();
    fifo(&run.path(".unchecked/pipe"));
    fifo(&run.path(&format!("{SECOND}_failure.json")));
    scene.sweep().fault("network@eager=false#1").flag("--resume").exits(0);
    run.assert_passed(SECOND);
}

#[test]
fn no_reader_waits_for_a_pipe_or_reads_a_device() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let dir = run.path(".").to_str().unwrap().trim_end_matches("/.").to_owned();
    let result = run.path(&format!("{FIRST}_results.json"));
    let whole = fs::read(&result).unwrap();
    fs::remove_file(&result).unwrap();
    symlink("/dev/zero", &result).unwrap();
    let ended = scene.call(&["analyze", &dir]).through(&LIMITED).exits(1);
    ended.prints("not a regular file");
    fs::remove_file(&result).unwrap();
    fs::write(&result, whole).unwrap();
    // A hole of 100 GB.
    let other = run.path(&format!("{SECOND}_results.json"));
    fs::File::create(&other).unwrap().set_len(100 << 30).unwrap();
    let ended = scene.call(&["analyze", &dir]).through(&LIMITED).exits(1);
    ended.prints("larger than 1024 MiB");
    fs::remove_file(&other).unwrap();
    let results = scene.results();
    fifo(&results.join(".vllm-bench.lock"));
    scene.call(&["status", &dir]).exits(0);
    scene.sweep().exits(5).says("it is a named pipe, not a regular file");
}

#[test]
fn what_is_named_must_be_a_regular_file_too() {
    let scene = Scene::new();
    fifo(&scene.path("pipe.yaml"));
    scene.call(&["plan", "pipe.yaml"]).exits(2).says("it is a named pipe, not a regular file");
    scene.call(&["plan", "/dev/zero"]).exits(2).says("it is a device, not a regular file");
    scene.call(&["diagnose", "pipe.yaml"]).exits(2);
    // What a shell makes of `<(…)` is read.
    let through =
        ["bash", "-c", "exec \"$0\" plan <(echo '{serve: {model: org/m}, bench: {num-prompts: 3}}') --no-preflight"];
    let ended = scene.call(&[]).through(&through).exits(0);
    ended.prints("1 experiment");
}

#[test]
fn too_many_combinations_and_an_endless_key_are_refused_at_once() {
    let scene = Scene::new();
    let values: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    let axes: String = ["max-num-seqs", "block-size", "max-num-batched-tokens", "max-model-len", "swap-space"]
        .map(|key| format!("  {key}: [{}]\n", values.join(", ")))
        .concat();
    fs::write(scene.path("many.yaml"), format!("serve:\n  model: org/m\n{axes}")).unwrap();
    scene.call(&["plan", "many.yaml"]).exits(2).says("the axes make 10000000000 combinations");
    fs::write(scene.path("key.yaml"), format!("{}: 1\n", "k".repeat(10 << 20))).unwrap();
    let ended = scene.call(&["plan", "key.yaml"]).exits(2);
    assert!(ended.stderr.len() < 10_000, "the key is shown cut: {} bytes", ended.stderr.len());
}

/// A run of two experiments of which one failed.
fn one_of_two(scene: &Scene) -> crate::support::RunFiles {
    scene.sweep().fault("network@eager=false").exits(1);
    scene.run()
}

#[test]
fn a_failure_does_not_vanish_with_the_manifest() {
    let scene = Scene::new();
    let run = one_of_two(&scene);
    let results = scene.results();
    let results = results.to_str().unwrap();
    let manifest = run.path("manifest.json");
    let whole = fs::read(&manifest).unwrap();
    let damages: [&dyn Fn(); 4] = [
        &|| fs::write(&manifest, &whole[..whole.len() / 2]).unwrap(),
        &|| fs::write(&manifest, "").unwrap(),
        &|| fs::remove_file(&manifest).unwrap(),
        &|| fifo(&manifest),
    ];
    for damage in damages {
        damage();
        let ended = scene.call(&["analyze", "--results-dir", results]).exits(5);
        ended.says("`manifest.json` is damaged or gone").says("2 experiments were planned, 2 left a trace");
        ended.prints("1 of 2 passed, 1 failed").prints("DAMAGED");
        scene.call(&["status", "--results-dir", results]).exits(5).says("manifest.json");
        scene.call(&["logs", "--no-follow", "--results-dir", results]).exits(5).says("manifest.json");
    }
    let call = |words: &[&str]| scene.call(words).set("--results-dir", [results]);
    call(&["report"]).set("--output", ["-"]).exits(5).says("damaged or gone").prints("damaged or gone");
    call(&["recommend"]).exits(5).says("damaged or gone");
    call(&["plot", "ranking"]).set("--output", ["ranking.svg"]).exits(5).says("damaged or gone");
    let dir = run.path("..").join(run.name());
    let dir = dir.to_str().unwrap();
    scene.call(&["compare", dir, dir]).exits(5).says("damaged or gone");
    call(&["backup"]).exits(5).says("copied as it is");
}

#[test]
fn an_older_run_does_not_stand_for_a_damaged_newest_one() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let old = scene.run().name();
    scene.sweep().fault("network@eager=false").flag("--fresh").exits(1);
    let new = scene.runs().into_iter().find(|run| run.name() != old).unwrap();
    fs::write(new.path("manifest.json"), "{").unwrap();
    let results = scene.results();
    let ended = scene.call(&["analyze", "--results-dir", results.to_str().unwrap()]).exits(5);
    ended.prints(&new.name()).prints("1 of 2 passed, 1 failed");
    scene.call(&["status", "--results-dir", results.to_str().unwrap()]).exits(5).prints(&new.name());
}

#[test]
fn a_damaged_journal_or_failure_is_named() {
    let scene = Scene::new();
    let run = one_of_two(&scene);
    let dir = run.path(".");
    let dir = dir.to_str().unwrap().trim_end_matches("/.");
    let journal = fs::read_to_string(run.path("journal.jsonl")).unwrap();
    // The line that a crash cuts is no damage.
    fs::write(run.path("journal.jsonl"), &journal[..journal.len() - 20]).unwrap();
    scene.call(&["analyze", dir]).exits(1);
    for damaged in [journal.replace("\"event\"", "\"evnt\""), String::new()] {
        fs::write(run.path("journal.jsonl"), damaged).unwrap();
        scene.call(&["analyze", dir]).exits(5).says("journal.jsonl").prints("1 of 2 passed, 1 failed");
    }
    fifo(&run.path("journal.jsonl"));
    scene.call(&["analyze", dir]).exits(5).says("`journal.jsonl` cannot be read: it is a named pipe");
    scene.call(&["status", dir]).exits(5).says("journal.jsonl");
    fs::remove_file(run.path("journal.jsonl")).unwrap();
    fs::write(run.path("journal.jsonl"), &journal).unwrap();
    fs::write(run.path(&format!("{SECOND}_failure.json")), "{").unwrap();
    scene.call(&["analyze", dir]).exits(1).prints(&format!("{SECOND}_failure.json")).prints("1 of 2 passed, 1 failed");
}

#[test]
fn what_a_result_says_is_judged_for_every_source_and_told_in_every_format() {
    let scene = Scene::new();
    let result = |more: &str| {
        format!(
            r#"{{"backend": "vllm", "model_id": "org/m", "completed": 10, "failed": 0, "num_prompts": 10, "request_rate": "inf",
            "duration": 4.0, "total_input_tokens": 320, "total_output_tokens": 640, "request_throughput": 2.5,
            "output_throughput": 160.0, "mean_ttft_ms": 51.81, "median_ttft_ms": 57.0, "p99_ttft_ms": 65.0,
            "mean_tpot_ms": 20.0, "median_tpot_ms": 20.0, "p99_tpot_ms": 21.0{more}}}"#
        )
    };
    let ttfts = "\"ttfts\": [0.06, 0.06, 0.06, 0.06, 0.0, 0.05, 0.05, 0.06, 0.06, 0.06]";
    let warned = result(&format!(", \"output_lens\": [64, 64, 64, 64, 0, 64, 64, 64, 64, 128], {ttfts}"));
    fs::write(scene.path("zero.json"), warned).unwrap();
    let text = "1 of 10 completed requests has no output token: the mean TTFT of the others is 57.78 ms, not 51.81 ms";
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for format in ["text", "markdown", "json", "html"] {
        let ended = scene.call(&["analyze", "zero.json", "--format", format]).exits(0);
        ended.check(plain(&ended.stdout).contains(text), format);
    }
    scene.call(&["analyze", "zero.json", "--format", "csv"]).exits(0).prints("empty-answers");
    scene.call(&["compare", "zero.json", "zero.json"]).ends();
    for (more, words) in [
        (", \"mean_ttft_ms\": -25.0", "`mean_ttft_ms` is -25"),
        (", \"p99_tpot_ms\": 1e308", "`p99_tpot_ms` is"),
        (", \"median_ttft_ms\": 70.0", "above `p99_ttft_ms`"),
        (", \"output_throughput\": -1.0", "`output_throughput` is -1"),
        (", \"duration\": 0.0", "`duration` is 0"),
        (", \"total_output_tokens\": 0, \"output_throughput\": 0.0", "no answer has a token"),
    ] {
        fs::write(scene.path("bad.json"), result(more)).unwrap();
        let ended = scene.call(&["analyze", "bad.json"]).exits(1);
        ended.check(plain(&ended.stdout).contains(words), words);
    }
    for (more, words) in [
        (", \"output_throughput\": 900.0", "`output_throughput` is 900.00"),
        (
            ", \"mean_tpot_ms\": 0.02, \"median_tpot_ms\": 0.02, \"p99_tpot_ms\": 0.03",
            "seconds in place of milliseconds?",
        ),
        (", \"max_concurrency\": 1", "is too long for 10 requests"),
    ] {
        fs::write(scene.path("odd.json"), result(more)).unwrap();
        let ended = scene.call(&["analyze", "odd.json"]).exits(0);
        ended.check(plain(&ended.stdout).contains(words), words);
    }
}

#[test]
fn a_journal_that_is_a_link_is_not_written_through() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false").exits(1);
    let run = scene.run();
    let outside = scene.path("outside.jsonl");
    fs::rename(run.path("journal.jsonl"), &outside).unwrap();
    symlink(&outside, run.path("journal.jsonl")).unwrap();
    let before = fs::read(&outside).unwrap();
    scene.call(&["run", "--resume", &format!("results/{}", run.name())]).exits(5).says("journal.jsonl");
    assert_eq!(fs::read(&outside).unwrap(), before);
}

#[test]
fn what_a_killed_clean_left_is_no_run() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    let run = scene.run();
    let left = scene.results().join(".tmp-clean-20990101_0000-0123");
    fs::create_dir(&left).unwrap();
    let mut manifest = run.json("manifest.json");
    manifest["created"] = "2099-01-01T00:00:00+02:00".into();
    fs::write(left.join("manifest.json"), manifest.to_string()).unwrap();
    let results = scene.results();
    let ended = scene.call(&["analyze", "--results-dir", results.to_str().unwrap()]).exits(0);
    ended.check(!format!("{}{}", ended.stdout, ended.stderr).contains(".tmp-clean"), "the half-removed run is shown");
}

#[test]
fn a_result_copied_under_the_identity_of_another_does_not_count() {
    let scene = Scene::new();
    scene.sweep().fault("network@eager=false").exits(1);
    let run = scene.run();
    let manifest = run.json("manifest.json");
    let mut copy = run.json(&format!("{FIRST}_results.json"));
    copy["vllm_bench"]["name"] = SECOND.into();
    copy["vllm_bench"]["identity"] = manifest["plan"]["experiments"][1]["identity"].clone();
    fs::write(run.path(&format!("{SECOND}_results.json")), copy.to_string()).unwrap();
    let ended = scene.call(&["analyze", &format!("results/{}", run.name())]).exits(1);
    ended.check(
        format!("{}{}", ended.stdout, ended.stderr).contains("it was edited, or copied"),
        "the copy is not named",
    );
    let edited = run
        .json(&format!("{FIRST}_results.json"))
        .to_string()
        .replace("\"random-input-len\":\"8\"", "\"random-input-len\":\"1\"");
    fs::write(run.path(&format!("{FIRST}_results.json")), edited).unwrap();
    scene.call(&["analyze", &format!("results/{}", run.name())]).exits(1).prints("0 of 2 passed");
}

//! The user's rules (sources/1), each by a test that has its number, end to end through the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{BIN, FIRST, SECOND, Scene, skipped};

#[test]
fn rule_1_quantization_none_never_reaches_vllm() {
    let scene = Scene::new();
    let seen = scene.path("argv");
    let vllm = scene.vllm_that(&format!("echo \"$@\" >> '{}'", seen.display()));
    scene.sweep_with(&vllm).set("--quantization", ["none", "fp8"]).set("--enforce-eager", ["true"]).exits(0);
    let seen = fs::read_to_string(seen).unwrap();
    let serves: Vec<&str> = seen.lines().filter(|line| line.starts_with("serve ")).collect();
    assert!(!serves[0].contains("quantization"), "{seen}");
    assert!(serves[1].contains(" --quantization fp8 "), "{seen}");
    for wrong in ["off", "None"] {
        let refused = scene.sweep().set("--quantization", [wrong]).exits(2);
        refused.says("`none` leaves vLLM's flag out");
    }
    scene.sweep().also("--serve-arg", "quantization=none").exits(2).says("use `--quantization`");
}

#[test]
fn rule_4_a_failed_experiment_never_ends_the_sweep() {
    let scene = Scene::new();
    let ended = scene
        .sweep()
        .set("--tp", ["1", "2"])
        .set("--quantization", ["none", "fp8"])
        .fault("out-of-memory@tp=1,quantization=none,eager=true;benchmark-exits@tp=2,eager=false")
        .exits(1);
    let run = scene.run();
    run.assert_journal_complete();
    let end = run.events("run-finished").remove(0);
    let count = |key: &str| end[key].as_u64().unwrap();
    assert_eq!((count("passed"), count("failed"), count("skipped")), (4, 2, 2));
    for name in [
        "org_tiny_tp1_quant-none_eager-false",
        "org_tiny_tp1_quant-fp8_eager-true",
        "org_tiny_tp2_quant-fp8_eager-true",
    ] {
        run.assert_passed(name);
    }
    assert_eq!(run.failure("org_tiny_tp1_quant-none_eager-true")["cause"], "out-of-device-memory");
    assert_eq!(run.failure("org_tiny_tp2_quant-none_eager-false")["cause"], "benchmark-failed");
    ended.says("[6/6]");
    let summary = fs::read_to_string(run.path("summary.txt")).unwrap();
    assert!(summary.contains("out-of-device-memory") && summary.contains("benchmark-failed"), "{summary}");
}

#[test]
fn rule_5_files_are_named_after_their_experiment() {
    let scene = Scene::new();
    scene.sweep().set("--models", ["Qwen/Qwen3-4B"]).set("--tp", ["2"]).set("--enforce-eager", ["true"]).exits(0);
    let run = scene.run();
    let name = "Qwen_Qwen3-4B_tp2_quant-none_eager-true";
    for file in [
        format!("{name}_results.json"),
        format!("logs/{name}_server.log"),
        format!("logs/{name}_benchmark.log"),
        format!("scripts/{name}_server.sh"),
        "summary.txt".into(),
        "detailed_analysis.txt".into(),
        "results_summary.csv".into(),
    ] {
        assert!(run.has(&file), "{file} is missing:\n{}", crate::support::tree(&run.0));
    }
    // Two models whose names would be the same.
    let scene = Scene::new();
    scene.sweep().set("--models", ["a/b_c", "a_b/c"]).set("--enforce-eager", ["true"]).exits(0);
    let names = scene.run().events("experiment-finished");
    assert_ne!(names[0]["name"], names[1]["name"]);
}

#[test]
fn rule_8_fp8_without_eager_is_skipped_with_a_warning() {
    let scene = Scene::new();
    let ended = scene.sweep().set("--quantization", ["none", "fp8"]).exits(0);
    ended.says("warning: Skipping org/tiny tp=1 quant=fp8 eager=false (known failure)").says("[3/3]");
    let run = scene.run();
    assert_eq!(run.json("manifest.json")["plan"]["skips"].as_array().unwrap().len(), 1);
    let kept = fs::read_to_string(run.path("skipped.log")).unwrap();
    assert!(
        kept.starts_with("warning: Skipping org/tiny tp=1 quant=fp8 eager=false (known failure)\n  why: "),
        "{kept}"
    );
    assert!(!run.journal_text().contains("quant-fp8_eager-false"));
    let all = scene.sweep().set("--quantization", ["fp8"]).set("--enforce-eager", ["false"]).exits(2);
    all.says("the rule `fp8-needs-eager` leaves out every combination").says("Engine core initialization failed");
    // With a way out: the flag, or another value.
    all.says("`--no-rule fp8-needs-eager` switches the rule off").says("`--enforce-eager true`");
    let plan =
        scene.call(&["plan", "--quantization", "fp8", "--enforce-eager", "false", "--no-rule", "fp8-needs-eager"]);
    plan.exits(0).prints("9 experiments, 0 skipped");
    let unknown = scene.sweep().also("--no-rule", "fp8-need-eager").exits(2);
    unknown.says("`--no-rule`: there is no rule `fp8-need-eager`").says("did you mean `fp8-needs-eager`?");
    unknown.says("the rules are: fp8-needs-eager, devices, attention-heads, context-length, batched-tokens");
}

/// What a launch script looks like at the moment when it runs.
fn scripts_at_work() -> (String, String) {
    let scene = Scene::new();
    let setvars = scene.program("setvars.sh", "export ONEAPI_WAS_SOURCED=\"$*\"\n");
    // The parent's command line: how the script was started. `exec` has replaced the shell by then, so ask before.
    let vllm = scene.vllm_that(&format!(
        "{{ echo \"$1: no_proxy=$no_proxy NO_PROXY=$NO_PROXY oneapi=$ONEAPI_WAS_SOURCED login=$(shopt -q login_shell; echo $?)\"; \
         for f in /tmp/vllm-bench-*-*.sh; do grep -q 'IT_SCENE='$IT_SCENE'$' $f && stat -c '%a' $f && cat $f; done; }} >> '{}' 2>&1",
        scene.path("seen").display()
    ));
    scene
        .sweep_with(&vllm)
        .set("--enforce-eager", ["true"])
        .set("--setvars", [setvars.to_str().unwrap()])
        .env("no_proxy", "corp.example")
        .exits(0);
    let seen = fs::read_to_string(scene.path("seen")).unwrap();
    let (serve, bench) = seen.split_at(seen.find("\nbench: ").unwrap());
    (serve.to_owned(), bench.to_owned())
}

#[test]
fn rules_9_and_10_both_scripts_bypass_the_proxy_and_source_oneapi_in_a_login_shell() {
    let (serve, bench) = scripts_at_work();
    for text in [&serve, &bench] {
        assert!(text.contains("no_proxy=localhost,127.0.0.1,0.0.0.0,corp.example"), "{text}");
        assert!(text.contains(" NO_PROXY=localhost,127.0.0.1,0.0.0.0"), "{text}");
        assert!(text.contains("oneapi=--force"), "setvars.sh --force was sourced: {text}");
        assert!(text.contains("\n755\n#!/bin/bash\n"), "the script lies in /tmp, executable: {text}");
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is missing: {text}"));
        assert!(at("setvars.sh --force") < at("export no_proxy="));
        assert!(at("export no_proxy=") < at("\nexec "));
    }
}

#[test]
fn rule_10_scripts_run_in_a_login_shell() {
    let scene = Scene::new();
    // Only a login shell reads this.
    fs::write(scene.path("home/.profile"), "export FROM_PROFILE=yes\n").unwrap();
    let vllm = scene.vllm_that(&format!("echo \"$1 $FROM_PROFILE\" >> '{}'", scene.path("seen").display()));
    scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).exits(0);
    assert_eq!(fs::read_to_string(scene.path("seen")).unwrap(), "serve yes\nbench yes\n");
    let script = scene.run().path(&format!("scripts/{FIRST}_server.sh"));
    assert!(script.exists(), "and is kept");
}

#[test]
fn rule_10_health_is_a_status_code_and_not_a_body() {
    let scene = Scene::new();
    // 503 is not healthy; an empty 200 is. The simulated vLLM answers as the real one: 200 with an empty body.
    let ended = scene.sweep().set("--enforce-eager", ["true"]).fault("late-healthy:4").exits(0);
    let run = scene.run();
    let log = fs::read_to_string(run.path(&format!("logs/{FIRST}_server.log"))).unwrap();
    let refused = log.matches("\"GET /health HTTP/1.1\" 503").count();
    ended.check(refused == 4, &format!("four times 503, then ready: {refused}\n{log}"));
    run.assert_passed(FIRST);
}

#[test]
fn rule_11_only_a_benchmark_that_succeeded_counts() {
    for (result, words) in [
        (r#"{"completed": 0, "failed": 4}"#, "no request was completed"),
        (r#"{"completed": 3, "failed": 1}"#, "1 of 4 requests failed"),
        (r#"{"completed": 3, "failed": 0}"#, "3 requests were completed, 4 were asked for"),
        (r#"{"num_successes": 4, "num_failures": 0}"#, "no number under `completed`"),
        (r#"{"completed": 4, "failed": 0, "request_throughput": 1.0}"#, "no number under `output_throughput`"),
        ("[]", "not a JSON object"),
    ] {
        let scene = Scene::new();
        let vllm = scene.program(
            "fake/vllm",
            &format!(
                "#!/bin/bash\n[ \"$1\" = serve ] && exec {BIN} sim-vllm \"$@\"\n\
                 while [ $# -gt 0 ]; do case $1 in --result-dir) dir=$2;; --result-filename) file=$2;; esac; shift; done\n\
                 echo '{result}' > \"$dir/$file\"\n"
            ),
        );
        let ended = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).exits(1);
        let run = scene.run();
        let failure = run.failure(FIRST);
        ended.check(failure["summary"].as_str().unwrap().contains(words), &format!("{words}: {failure:#}"));
        assert!(!run.has(&format!("{FIRST}_results.json")));
    }
}

#[test]
fn rule_12_a_failed_start_is_noticed_at_once_and_shows_50_lines() {
    let scene = Scene::new();
    let vllm = scene
        .program("fake/vllm", "#!/bin/bash\nfor i in $(seq 1 200); do echo \"line $i of the log\"; done\nexit 1\n");
    // With this limit a poll that missed the death would run into the test's own limit.
    let ended = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).set("--timeout-startup", ["1h"]).exits(1);
    let tail = scene.run().failure(FIRST)["log_tail"].clone();
    let tail = tail.as_array().unwrap();
    assert_eq!(tail.len(), 50);
    assert_eq!((tail[0].as_str(), tail[49].as_str()), (Some("line 151 of the log"), Some("line 200 of the log")));
    let shown = ended.stderr.lines().filter(|line| line.contains("| line ")).count();
    ended.check(shown == 50, &format!("50 lines are shown, not {shown}"));
}

#[test]
fn rule_13_the_client_connects_to_0_0_0_0() {
    let scene = Scene::new();
    scene.sweep().set("--enforce-eager", ["true"]).exits(0);
    let run = scene.run();
    let result = run.result(FIRST);
    let command: Vec<&str> =
        result["vllm_bench"]["bench_command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let host = command.iter().position(|word| *word == "--host").unwrap();
    assert_eq!(command[host + 1], "0.0.0.0");
    let script = fs::read_to_string(run.path(&format!("scripts/{FIRST}_benchmark.sh"))).unwrap();
    assert!(script.contains("--host 0.0.0.0"), "{script}");
    scene.sweep().also("--bench-arg", "host=127.0.0.1").exits(2).says("the client always talks to the server");
}

/// In namespaces of its own, so that no vLLM of this machine is in reach: what is ended here was planted here.
#[test]
fn rule_14_other_vllm_processes_are_ended_before_a_start() {
    let wrapper =
        ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skipped("rule 14 end to end: namespaces of one's own (`unshare --user --pid --mount`) are not to be had here");
        return;
    }
    // Not below /tmp: there the namespace has its own.
    let scene = Scene::below(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")));
    fs::create_dir(scene.path("tmp")).unwrap();
    let server = scene.program("foreign/vllm", "import time\ntime.sleep(600)\n");
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|p| fs::metadata(p).is_ok());
    let Some(python) = python else {
        skipped("rule 14 end to end: there is no python3 to play a foreign vLLM");
        return;
    };
    let inside = scene.program(
        "inside.sh",
        &format!(
            "#!/bin/bash\n\
             mount --bind '{tmp}' /tmp || exit 90\n\
             {python} '{server}' serve some/model & serve=$!\n\
             {python} '{server}' bench serve & bench=$!\n\
             (exec -a VLLM::EngineCore sleep 600) & engine=$!\n\
             (exec -a 'vim vllm serve' sleep 600) & editor=$!\n\
             sleep 600 & other=$!\n\
             until tr '\\0' ' ' < /proc/$engine/cmdline | grep -q VLLM && tr '\\0' ' ' < /proc/$serve/cmdline | grep -q serve; do :; done\n\
             \"$@\"; code=$?\n\
             for name in serve bench engine editor other; do\n\
               state=ended; grep -qE '^State:[[:space:]]+[^ZX]' /proc/${{!name}}/status 2>/dev/null && state=alive\n\
               echo \"$name $state\"\n\
             done\n\
             kill -9 $editor $other $serve $bench $engine 2>/dev/null\n\
             exit $code\n",
            tmp = scene.path("tmp").display(),
            server = server.display(),
        ),
    );
    assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o111, 0o111);
    let through: Vec<&str> = wrapper.into_iter().chain([inside.to_str().unwrap()]).collect();
    // Its own /tmp has its own port locks: it must not choose the ports that other tests choose by theirs.
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string();
    // Not `--engine sim`, which leaves others alone: the simulated vLLM as somebody's `vllm`.
    let vllm = scene.vllm_that("");
    let sweep = || {
        scene
            .sweep_with(&vllm)
            .set("--enforce-eager", ["true"])
            .set("--grace", ["2"])
            .set("--port", [port.as_str()])
            .through(&through)
    };

    let kept = sweep().exits(0);
    kept.prints("serve alive\nbench alive\nengine alive\neditor alive\nother alive\n");

    let ended = sweep().without("--keep-foreign").exits(0);
    ended.prints("serve ended\nbench ended\nengine ended\neditor alive\nother alive\n");
    ended.says("ended another vLLM process: ").says("serve some/model").says("VLLM::EngineCore");
    let journal: String = scene.runs().iter().map(crate::support::RunFiles::journal_text).collect();
    assert!(journal.contains("experiment-finished") && !journal.contains("\"outcome\":\"failed\""), "{journal}");
}

#[test]
fn rule_15_every_run_has_its_own_directory_stamped_in_jerusalem_time() {
    let scene = Scene::new();
    for _ in 0..2 {
        scene.sweep().set("--enforce-eager", ["true"]).exits(0);
    }
    let runs = scene.runs();
    assert_eq!(runs.len(), 2, "nothing is overwritten");
    for run in &runs {
        let name = run.name();
        let manifest = run.json("manifest.json");
        assert_eq!(manifest["timezone"], "Asia/Jerusalem");
        // 2026-02-25T14:30:05.123+02:00 -> 20260225_1430
        let created = manifest["created"].as_str().unwrap();
        assert!(created.ends_with("+02:00") || created.ends_with("+03:00"), "{created}");
        let stamp: String = created[..16].chars().filter(char::is_ascii_digit).collect();
        let stamp = format!("{}_{}", &stamp[..8], &stamp[8..]);
        assert!(name == stamp || name == format!("{stamp}_2"), "{name} was made at {created}");
    }
    let utc = scene.path("utc");
    scene
        .sweep()
        .set("--enforce-eager", ["false"])
        .set("--timezone", ["UTC"])
        .set("--results-dir", [utc.to_str().unwrap()])
        .exits(0);
    let run = scene.runs_in(&utc).remove(0);
    assert!(
        run.json("manifest.json")["created"].as_str().unwrap().ends_with('Z')
            || run.json("manifest.json")["created"].as_str().unwrap().ends_with("+00:00")
    );
    run.assert_passed(SECOND);
}

//! A secret reaches the server and the client through their environment, and nothing that is written or shown.

use std::fs;

use crate::support::{FIRST, Scene, files};

const TOKEN: &str = "hf_planted_in_the_environment";
const SET: &str = "hf_planted_with_env_flag";
const KEY: &str = "sk-planted-api-key";

fn assert_nowhere(scene: &Scene, extra: &[(&str, &str)]) {
    for path in files(scene.root()) {
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in [TOKEN, SET, KEY] {
            assert!(!text.contains(secret), "`{secret}` stands in {}", path.display());
        }
    }
    for (place, text) in extra {
        for secret in [TOKEN, SET, KEY] {
            assert!(!text.contains(secret), "`{secret}` is shown: {place}");
        }
    }
}

#[test]
fn no_secret_is_written_or_shown_even_if_the_server_prints_its_environment() {
    let scene = Scene::new();
    // What the processes were given is looked at from inside, by length: the test must not write the secrets itself.
    // The scripts and records that live only while the run does are copied.
    let seen = scene.path("seen");
    let vllm = scene.vllm_that(&format!(
        "env\nenv >&2\ncat /proc/self/environ\n\
         echo \"$1 ${{#HF_TOKEN}} ${{#VLLM_API_KEY}} ${{#OPENAI_API_KEY}}\" >> '{seen}'\n\
         cp /tmp/vllm-bench-*-*.sh '{root}/calls/' 2>/dev/null\ncp -r /tmp/vllm-bench-$UID/groups '{root}/calls/' 2>/dev/null",
        seen = seen.display(),
        root = scene.root().display()
    ));
    let ended = scene
        .sweep_with(&vllm)
        .set("--enforce-eager", ["true"])
        .also("--env", &format!("HF_TOKEN={SET}"))
        .env("HF_TOKEN", TOKEN)
        .env("VLLM_API_KEY", KEY)
        .flag("--show-logs")
        .flag("-vv")
        .exits(0);
    let run = scene.run();
    run.assert_passed(FIRST);
    let expected = format!("{} {} {}", SET.len(), KEY.len(), KEY.len());
    let seen = fs::read_to_string(seen).unwrap();
    assert_eq!(seen, format!("serve {expected}\nbench {expected}\n"), "the secrets did arrive");
    let log = fs::read_to_string(run.path(&format!("logs/{FIRST}_server.log"))).unwrap();
    assert!(log.contains("HF_TOKEN=[redacted]") && log.contains("VLLM_API_KEY=[redacted]"), "{log}");
    let manifest = fs::read_to_string(run.path("manifest.json")).unwrap();
    assert!(manifest.contains("HF_TOKEN=[redacted]"), "{manifest}");
    assert_nowhere(&scene, &[("stdout", &ended.stdout), ("stderr", &ended.stderr)]);
}

#[test]
fn no_secret_is_kept_of_a_failure() {
    let scene = Scene::new();
    // A real failure that quotes the token, as a traceback does; cut into two writes on purpose.
    let (a, b) = TOKEN.split_at(9);
    let vllm = scene.program(
        "fake/vllm",
        "#!/bin/bash\nprintf 'OSError: You are trying to access a gated repo. token=%s' \"${HF_TOKEN:0:9}\"\nprintf '%s\\n' \"${HF_TOKEN:9}\"\nexit 1\n",
    );
    let ended = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).env("HF_TOKEN", TOKEN).exits(1);
    let failure = scene.run().failure(FIRST);
    assert!(failure["evidence"][0]["text"].as_str().unwrap().contains("token=[redacted]"), "{failure:#}");
    let _ = (a, b);
    assert_nowhere(&scene, &[("stdout", &ended.stdout), ("stderr", &ended.stderr)]);
}

#[test]
fn no_secret_is_in_a_dry_run_or_an_error() {
    let scene = Scene::new();
    let dry = scene
        .sweep()
        .also("--env", &format!("HF_TOKEN={SET}"))
        .env("HF_TOKEN", TOKEN)
        .env("VLLM_API_KEY", KEY)
        .flag("--dry-run")
        .exits(0);
    dry.prints("# HF_TOKEN is set in the process environment");
    let refused = scene.sweep().also("--env", &format!("HF-TOKEN={SET}")).exits(2);
    let reserved = scene.sweep().also("--serve-arg", &format!("api-key={KEY}")).exits(2);
    reserved.says("VLLM_API_KEY");
    for ended in [&dry, &refused, &reserved] {
        assert_nowhere(&scene, &[("stdout", &ended.stdout), ("stderr", &ended.stderr)]);
    }
}

#[test]
fn no_secret_is_in_the_files_of_a_resumed_or_detached_run() {
    let scene = Scene::new();
    let sweep = || {
        scene.sweep().fault("network@eager=false").also("--env", &format!("HF_TOKEN={SET}")).env("VLLM_API_KEY", KEY)
    };
    sweep().exits(1);
    let again = sweep().flag("--detach").stays().exits(0);
    scene.wait_until_nothing_is_left();
    // Its hint quotes the command line of the run.
    let name = scene.run().name();
    let refused = sweep().set("--output-len", ["9"]).set("--resume", [name.as_str()]).exits(2);
    assert_nowhere(&scene, &[("stdout", &again.stdout), ("stderr", &again.stderr), ("hint", &refused.stderr)]);
}

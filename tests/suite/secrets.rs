//! A secret reaches the server and the client through their environment, and nothing that is written or shown.

use std::fs;

use crate::support::{BIN, FIRST, MODEL, Scene, files};

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

/// The part that all secrets of the following tests have in common, in the forms in which it could be found.
const MARK: &str = "pl4nted/Mark+";

/// Whether bytes hold the mark of a secret, as it is or in base64, URLs or capitals.
fn holds_mark(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    let mark = MARK.to_lowercase();
    // `pl4nted/Mark+` in base64, at each of the three places where it may begin.
    let encoded = ["cgw0bnrlzc9nyxjrk", "bsng50zwqvtwfyays", "wbdrudgvkl01hcmsr"];
    text.contains(&mark)
        || text.contains(&mark.replace('/', "%2f").replace('+', "%2b"))
        || text.contains(&mark.replace('/', "\\/"))
        || encoded.iter().any(|form| text.contains(form))
}

fn assert_no_mark(scene: &Scene, shown: &[(&str, &[u8])]) {
    for path in files(scene.root()) {
        assert!(!holds_mark(&fs::read(&path).unwrap_or_default()), "a secret stands in {}", path.display());
        assert!(!holds_mark(path.to_string_lossy().as_bytes()), "a secret stands in the name {}", path.display());
    }
    for (place, bytes) in shown {
        assert!(!holds_mark(bytes), "a secret is shown: {place}: {}", String::from_utf8_lossy(bytes));
    }
}

/// A `vllm` that prints all that it was given, also encoded, puts some of it into its result, and copies what lives only for a while.
fn talkative(scene: &Scene) -> std::path::PathBuf {
    let root = scene.root().display().to_string();
    scene.vllm_that(&format!(
        "env; env | base64 -w0; echo; env | grep -v DB_PASSWORD | sed 's#/#%2F#g; s#+#%2B#g'; env | tr a-z A-Z; cat /proc/self/environ; echo \"$@\"\n\
         ps -eo pid,args > '{root}/calls/ps-'$$\n\
         cp /tmp/vllm-bench-*-*.sh '{root}/calls/' 2>/dev/null\ncp -r /tmp/vllm-bench-$UID/groups '{root}/calls/' 2>/dev/null\n\
         if [ \"$1\" = bench ]; then {BIN} sim-vllm \"$@\"; code=$?\n\
         while [ $# -gt 0 ]; do case $1 in --result-dir) dir=$2;; --result-filename) name=$2;; esac; shift; done\n\
         sed -i \"1s#{{#{{\\\"echo\\\": \\\"Bearer $OPENAI_API_KEY\\\", \\\"proxy\\\": \\\"$https_proxy\\\", #\" \"$dir/$name\"; exit $code; fi",
    ))
}

/// Everything that shows or copies a run.
const SHOWING: [&[&str]; 12] = [
    &["status"],
    &["status", "--json"],
    &["analyze"],
    &["analyze", "--format", "json"],
    &["analyze", "--format", "csv"],
    &["analyze", "--format", "markdown"],
    &["report", "-o", "page.html"],
    &["recommend"],
    &["logs", "--no-follow"],
    &["backup"],
    &["backup", "--archive"],
    &["check"],
];

#[test]
fn whatever_way_a_secret_is_handed_over_it_works_and_is_written_and_shown_nowhere() {
    let scene = Scene::new();
    let vllm = talkative(&scene);
    fs::write(scene.path(".env"), format!("export DOT_ENV_TOKEN=\"{MARK}dot-env\"\n")).unwrap();
    let sweep = || {
        let mut sweep = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]);
        for (name, secret) in [
            ("API_TOKENS", format!("{MARK}one,{MARK}two")),
            ("REGISTRY_AUTH", format!("user:{MARK}auth")),
            ("WANDB_KEY", format!("{MARK}wandb")),
            ("DB_PASSWORD", format!("{MARK}p\"w'd\\")),
            ("AWS_SECRET_ACCESS_KEY", format!("{MARK}aws")),
            ("HF_TOKEN", format!("{MARK}prefix")),
            ("VLLM_API_KEY", format!("{MARK}prefix-of-another")),
            ("http_proxy", format!("http://user:{}http@proxy.invalid:911", MARK.replace('/', "%2F"))),
            ("DOT_ENV_TOKEN", format!("{MARK}dot-env")),
            ("CONFIG", format!("{{\"registry\": {{\"password\": \"{MARK}json\"}}}}")),
        ] {
            sweep = sweep.env(name, &secret);
        }
        sweep
            .also("--env", &format!("https_proxy=http://user:{MARK}env@proxy.invalid:911"))
            .also("--env", &format!("OTHER_TOKEN={MARK}other"))
            .also("--env", "WANDB_KEY")
            .also("--bench-arg", &format!("header=Authorization=Bearer {MARK}header"))
    };
    let ended = sweep().flag("--show-logs").flag("-vv").ends();
    let run = scene.run();
    run.assert_passed(FIRST);
    let log = fs::read_to_string(run.path(&format!("logs/{FIRST}_server.log"))).unwrap();
    for name in ["API_TOKENS", "WANDB_KEY", "DB_PASSWORD", "OTHER_TOKEN"] {
        assert!(log.contains(&format!("{name}=[redacted]")), "{name}: {log}");
    }
    assert!(log.contains("https_proxy=[redacted]") && log.contains("http_proxy=http://[redacted]@proxy"), "{log}");
    let result = run.result(FIRST);
    assert_eq!(result["echo"], "Bearer [redacted]", "what the client wrote is kept without the secret");
    let names = result["vllm_bench"]["env"].as_object().unwrap();
    assert!(!names.contains_key("https_proxy") && !names.contains_key("OTHER_TOKEN"), "{names:?}");
    let mut shown = vec![("stdout".to_owned(), ended.stdout), ("stderr".to_owned(), ended.stderr)];
    for words in SHOWING {
        let call = scene.call(words);
        let call =
            if words[0] == "check" { call } else { call.set("--results-dir", [scene.results().to_str().unwrap()]) };
        let ended = call.env("HF_TOKEN", &format!("{MARK}prefix")).ends();
        ended.check(ended.status.code().is_some_and(|code| code <= 1 || words[0] == "check"), "it should work");
        shown.push((words.join(" "), format!("{}{}", ended.stdout, ended.stderr)));
    }
    let detached = sweep().flag("--detach").stays().exits(0);
    scene.wait_until_nothing_is_left();
    let dry = sweep().flag("--dry-run").exits(0);
    shown.extend([
        ("detach".to_owned(), detached.stderr + &detached.stdout),
        ("dry run".to_owned(), dry.stdout + &dry.stderr),
    ]);
    // The archive is compressed.
    let archive = files(scene.root()).into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(fs::File::open(archive).unwrap()), &mut bytes)
        .unwrap();
    shown.push(("archive".to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
    fs::remove_file(scene.path(".env")).unwrap();
    // This very test is in the list of processes, with its command lines of vllm-bench itself: they are the user's.
    for path in files(&scene.path("calls")).iter().filter(|path| path.to_string_lossy().contains("/ps-")) {
        let text = fs::read_to_string(path).unwrap();
        let typed = [format!("{BIN} run"), format!("{BIN} load --base-url"), format!("{BIN} load --api-key")];
        let ours = text.lines().filter(|line| !typed.iter().any(|typed| line.contains(typed)));
        fs::write(path, ours.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let shown: Vec<(&str, &[u8])> = shown.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    assert_no_mark(&scene, &shown);
}

#[test]
fn secrets_in_flags_reach_the_builtin_client_in_its_environment() {
    let scene = Scene::new();
    let ended = scene
        .sweep()
        .set("--enforce-eager", ["true"])
        .set("--client", ["builtin"])
        .also("--bench-arg", &format!("header=X-Gateway={MARK}gateway"))
        .also("--bench-arg", &format!("extra-body={{\"api_key\": \"{MARK}body\"}}"))
        .exits(0);
    let run = scene.run();
    run.assert_passed(FIRST);
    let bench = run.result(FIRST)["vllm_bench"]["bench"].clone();
    assert_eq!(bench["header"], "X-Gateway=${SECRET_HEADER_X_GATEWAY}", "{bench}");
    assert_eq!(bench["extra-body"], "{\"api_key\":\"${SECRET_BODY_API_KEY}\"}", "{bench}");
    assert_no_mark(&scene, &[("stdout", ended.stdout.as_bytes()), ("stderr", ended.stderr.as_bytes())]);
    // A run that goes on asks for the variable; with it, it needs nothing else.
    let name = run.name();
    fs::remove_file(run.path(&format!("{FIRST}_results.json"))).unwrap();
    let again = || scene.call(&["run", "--resume", &name]).set("--results-dir", [scene.results().to_str().unwrap()]);
    let secret = format!("{MARK}gateway");
    let again = again()
        .set("--port", ["auto"])
        .flag("--keep-foreign")
        .env("SECRET_HEADER_X_GATEWAY", &secret)
        .env("SECRET_BODY_API_KEY", &secret)
        .exits(0);
    run.assert_passed(FIRST);
    assert_no_mark(&scene, &[("stdout", again.stdout.as_bytes()), ("stderr", again.stderr.as_bytes())]);
    // Another value of the secret is no other experiment.
    let identity = |value: &str| {
        let dry = scene.sweep().set("--client", ["builtin"]).also("--bench-arg", &format!("header=X-Gateway={value}"));
        let dry = dry.flag("--dry-run").exits(0);
        dry.stdout.lines().find(|line| line.ends_with(FIRST)).unwrap().to_owned()
    };
    assert_eq!(identity(&format!("{MARK}a")), identity(&format!("{MARK}b")));
}

#[test]
fn a_secret_that_could_only_travel_on_a_command_line_is_refused_with_the_way_that_works() {
    let scene = Scene::new();
    for (flag, value, hint) in [
        ("--bench-arg", format!("header=X-Gateway={MARK}1"), "--client builtin"),
        ("--bench-arg", format!("extra-body={{\"api_key\": \"{MARK}2\"}}"), "--client builtin"),
        ("--bench-arg", format!("metadata=api_key={MARK}3"), "leave it out"),
        ("--serve-arg", format!("hf-overrides={{\"token\": \"{MARK}4\"}}"), "config=FILE"),
        ("--serve-arg", format!("download-dir=https://user:{MARK}5@host/x"), "config=FILE"),
        ("--serve-arg", format!("hf-token={MARK}6"), "environment variable"),
        ("--models", format!("https://user:{MARK}7@host/model"), "HF_TOKEN"),
        ("--serve-arg", format!("revision={MARK}known"), "config=FILE"),
    ] {
        let call = scene.sweep().without("--models").set("--models", [MODEL]).without(flag).also(flag, &value);
        let call = if flag == "--models" { call } else { call.set("--models", [MODEL]) };
        let refused = call.env("MY_TOKEN", &format!("{MARK}known")).flag("--dry-run").exits(2);
        refused.says(hint);
        assert_no_mark(&scene, &[("stdout", refused.stdout.as_bytes()), ("stderr", refused.stderr.as_bytes())]);
    }
    let missing = scene.sweep().set("--client", ["builtin"]).also("--bench-arg", "header=X-A=${NOT_SET}").exits(2);
    missing.says("NOT_SET");
}

#[test]
fn real_flags_that_count_tokens_are_no_secrets() {
    let scene = Scene::new();
    let dry = scene
        .sweep()
        .also("--serve-arg", "long-prefill-token-threshold=2048")
        .also("--serve-arg", "dbo-decode-token-threshold=32")
        .also("--serve-arg", "dbo-prefill-token-threshold=512")
        .also("--serve-arg", "max-num-batched-tokens=8192")
        .also("--serve-arg", "return-tokens-as-token-ids")
        .also("--serve-arg", "hf-overrides={\"eos_token_id\": 2, \"pad_token\": \"</s>\"}")
        .also("--serve-arg", "compilation-config={\"pass_config\": {\"enable_fusion\": true}}")
        .also("--bench-arg", "header=X-Request-Id=abcdefgh")
        .flag("--dry-run")
        .exits(0);
    for words in ["--long-prefill-token-threshold 2048", "--dbo-decode-token-threshold 32", "X-Request-Id=abcdefgh"] {
        dry.prints(words);
    }
}

/// A server that refuses everything and says what it was asked: the whole request, headers and all.
fn echoing(status: &'static str, model: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !String::from_utf8_lossy(&request).contains("\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => request.extend_from_slice(&buffer[..n]),
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let (status, body) = if text.starts_with("GET /v1/models") {
                    ("200 OK", serde_json::json!({"data": [{"id": model}]}).to_string())
                } else {
                    (status, serde_json::json!({"error": {"message": format!("refused: {text}")}}).to_string())
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn what_a_server_echoes_of_a_key_is_in_no_file_of_a_load_and_on_no_screen() {
    let scene = Scene::new();
    let url = echoing("401 Unauthorized", MODEL);
    for scenario in
        [&["--save-result", "--save-detailed", "--requests-csv", "r.csv", "--csv", "c.csv"][..], &["--append-result"]]
    {
        let ended = scene
            .call(&["load", "--base-url", &url, "--num-prompts", "3", "--tokenizer", "none", "--no-server-metrics"])
            .set("--header", [&*format!("X-Gateway={MARK}gateway"), "X-Ref=${REF_VALUE}"])
            .set("--extra-body", [&*format!("{{\"nested\": {{\"secret\": \"{MARK}body\"}}}}")])
            .env("OPENAI_API_KEY", &format!("{MARK}key"))
            .env("REF_VALUE", &format!("{MARK}reference"))
            .set("--metadata", [&*format!("api_key={MARK}metadata")])
            .flag(scenario[0]);
        let ended = scenario[1..].iter().fold(ended, |call, word| call.flag(word)).exits(1);
        ended.prints("HTTP 401: ");
        ended.prints("[redacted]");
        assert_no_mark(&scene, &[("stdout", ended.stdout.as_bytes()), ("stderr", ended.stderr.as_bytes())]);
    }
    assert!(fs::read_to_string(scene.path("r.csv")).unwrap().contains("[redacted]"));
    let refused =
        scene.call(&["load", "--base-url", &format!("http://user:{MARK}x@127.0.0.1:1"), "--num-prompts", "1"]).exits(2);
    refused.says("--api-key-env");
    let unknown = scene.call(&["load", "--api-key", &format!("{MARK}y")]).exits(2);
    assert_no_mark(&scene, &[("stderr", refused.stderr.as_bytes()), ("clap", unknown.stderr.as_bytes())]);
}

#[test]
fn what_a_terminal_would_act_on_is_shown_escaped() {
    const NASTY: &str = "org/\u{1b}]0;owned\u{7}\u{1b}[2Jm\u{9b}31m\u{202e}x";
    let scene = Scene::new();
    let clean = |name: &str, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let bad = text.chars().find(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || *c == '\u{202e}');
        assert!(bad.is_none(), "{name} has {bad:?}: {text:?}");
    };
    let url = echoing("500 Oops \u{1b}[31m", NASTY);
    let ended = scene
        .call(&["load", "--base-url", &url, "--num-prompts", "2", "--tokenizer", "none", "--no-server-metrics"])
        .flag("--save-result")
        .set("--requests-csv", ["r.csv"])
        .exits(1);
    ended.says("\\u001b]0;owned\\u0007");
    clean("stdout", ended.stdout.as_bytes());
    clean("stderr", ended.stderr.as_bytes());
    // Results of another program with such a name, in every format.
    let result = serde_json::json!({
        "model_id": NASTY, "completed": 4, "failed": 0, "duration": 1.0, "total_input_tokens": 8, "total_output_tokens": 8,
        "request_throughput": 4.0, "output_throughput": 8.0, "mean_ttft_ms": 3.0, "mean_tpot_ms": 4.0, "note\u{1b}[2J": NASTY,
    });
    fs::create_dir_all(scene.path("others")).unwrap();
    fs::write(scene.path("others/one.json"), result.to_string()).unwrap();
    for format in ["text", "markdown", "csv", "json", "html"] {
        let ended = scene.call(&["analyze", "others", "--format", format]).ends();
        clean(&format!("analyze as {format}"), ended.stdout.as_bytes());
        clean(&format!("analyze as {format}, stderr"), ended.stderr.as_bytes());
        scene.call(&["analyze", "others", "--format", format, "-o", &format!("out.{format}")]).ends();
    }
    scene.call(&["report", "others", "-o", "page.html"]).ends();
    scene.call(&["plot", "ranking", "others", "-o", "plot.svg"]).ends();
    fs::remove_dir_all(scene.path("others")).unwrap();
    // A lock that says so, held by somebody.
    let lock = fs::File::create(
        scene
            .path("held/.vllm-bench.lock")
            .parent()
            .map(|dir| {
                fs::create_dir_all(dir).unwrap();
                dir.join(".vllm-bench.lock")
            })
            .unwrap(),
    )
    .unwrap();
    fs::write(
        scene.path("held/.vllm-bench.lock"),
        serde_json::json!({"process": {"pid": std::process::id(), "start-time": 1}, "user": NASTY, "since": NASTY, "run": NASTY}).to_string(),
    )
    .unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
    for words in [&["status"][..], &["stop"], &["clean"]] {
        let ended = scene.call(words).set("--results-dir", ["held"]).ends();
        clean(&format!("{words:?}"), (ended.stdout + &ended.stderr).as_bytes());
    }
    drop(held);
    fs::remove_file(scene.path("held/.vllm-bench.lock")).unwrap();
    // A run named so, keys and values of a sweep file.
    fs::create_dir_all(scene.results().join("a\u{1b}[31mrun")).unwrap();
    fs::write(scene.path("bad\u{1b}[2J.yaml"), "serve: {\"mod\\e[31mel\": x, model: \"a\\e[31mb\"}\n").unwrap();
    for words in [
        &["run", "bad\u{1b}[2J.yaml", "--dry-run"][..],
        &["plan", "bad\u{1b}[2J.yaml"],
        &["status", "a\u{1b}[31mrun"],
        &["analyze", "no\u{1b}[31mne"],
        &["logs", "\u{1b}[31mx"],
        &["run", "--nonsense\u{1b}[31m"],
        &["run", "--color", "always", "--models", "\u{1b}[8m\u{1b}]0;t\u{7}", "--dry-run"],
        &["diagnose", "none\u{1b}[31m.log"],
        &["load", "--base-url", "http://h\u{1b}[31m/"],
    ] {
        let ended = scene.call(words).ends();
        let without_our_own = |text: &str| {
            ["0", "1", "2", "31", "32", "33"]
                .iter()
                .fold(text.to_owned(), |text, code| text.replace(&format!("\u{1b}[{code}m"), ""))
        };
        let colours = words.contains(&"always");
        for (name, text) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
            let text = if colours { without_our_own(text) } else { text.clone() };
            clean(&format!("{words:?} {name}"), text.as_bytes());
        }
    }
    for path in files(scene.root()) {
        let name = path.to_string_lossy();
        if !name.contains(".yaml") && !name.contains("/calls/") {
            clean(&name, &fs::read(&path).unwrap());
        }
    }
}

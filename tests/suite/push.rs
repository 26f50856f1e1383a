//! `--pushgateway` of `run`, `load` and `compare`: what arrives, what is kept of it, and that nothing depends on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use crate::support::{FIRST, Scene, files, wait_for};

const PASSWORD: &str = "gr8-secret-of-the-gateway";

/// What a Pushgateway got.
#[derive(Debug, Clone)]
struct Push {
    path: String,
    authorization: String,
    body: String,
}

impl Push {
    /// The value of the only sample whose line begins so.
    fn value(&self, begin: &str) -> f64 {
        let lines: Vec<&str> = self.body.lines().filter(|line| line.starts_with(begin)).collect();
        assert_eq!(lines.len(), 1, "{begin} in\n{}", self.body);
        lines[0].rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

/// A Pushgateway that keeps what it gets.
struct Gateway {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Push>>>,
}

impl Gateway {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut text, mut bytes) = (String::new(), [0; 8192]);
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    text += std::str::from_utf8(&bytes[..read]).unwrap();
                    if let Some(push) = push(&text) {
                        kept.lock().unwrap().push(push);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                        break;
                    }
                }
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://bench:{PASSWORD}@{}", self.address)
    }

    fn pushes(&self) -> Vec<Push> {
        self.seen.lock().unwrap().clone()
    }

    fn last(&self) -> Push {
        self.pushes().pop().expect("nothing was pushed")
    }
}

/// A request, once it is whole.
fn push(text: &str) -> Option<Push> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let mut first = head.split(' ');
    assert_eq!(first.next(), Some("PUT"), "what was pushed before is replaced: {head}");
    assert_eq!(header("content-type: "), "text/plain; version=0.0.4; charset=utf-8");
    let length: usize = header("content-length: ").parse().ok()?;
    let path = first.next()?.to_owned();
    (body.len() >= length).then(|| Push { path, authorization: header("authorization: "), body: body.to_owned() })
}

/// No file of a scene has the password.
fn assert_not_kept(scene: &Scene) {
    for path in files(scene.root()) {
        let text = fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{}", path.display());
    }
}

#[test]
fn a_run_pushes_from_its_beginning_to_its_end_and_keeps_no_password() {
    let (scene, gateway) = (Scene::new(), Gateway::start());
    let ended = scene.sweep().fault("out-of-memory@eager=true").set("--pushgateway", [gateway.url().as_str()]).exits(1);
    let run = scene.run();
    let group = format!("/run/{}", run.name());
    ended
        .says(&format!("metrics are pushed to http://{}/metrics/job/vllm-bench/instance/", gateway.address))
        .says(&group);
    let pushes = gateway.pushes();
    assert!(pushes.len() >= 2, "at once and at the end: {}", pushes.len());
    for push in &pushes {
        assert!(push.path.contains("/results@base64/") && push.path.ends_with(&group), "{}", push.path);
        assert_eq!(push.authorization, "Basic YmVuY2g6Z3I4LXNlY3JldC1vZi10aGUtZ2F0ZXdheQ==");
        assert!(!push.body.contains("# EOF") && !push.body.contains("# UNIT"), "the older text: {}", push.body);
    }
    let last = gateway.last();
    assert_eq!(last.value("vllm_bench_run_live{"), 0.0);
    let of = |state: &str| last.value(&format!("vllm_bench_experiments{{run=\"{}\",state=\"{state}\"}}", run.name()));
    assert_eq!((of("passed"), of("failed"), of("running")), (1.0, 1.0, 0.0));
    assert!(last.value("vllm_bench_last_output_tokens_per_second{") > 0.0);
    assert_eq!(last.value("vllm_bench_failures_total{"), 1.0);
    assert!(!ended.stderr.contains(PASSWORD) && !ended.stdout.contains(PASSWORD));
    assert_not_kept(&scene);
    // A resumed run cannot know it, and says so; with the variable it pushes again.
    let path = run.0.to_str().unwrap();
    let before = gateway.pushes().len();
    scene.call(&["run", "--resume", path]).exits(1).says("had a password in it, which no record keeps");
    assert_eq!(gateway.pushes().len(), before);
    scene.call(&["run", "--resume", path]).env("VLLM_BENCH_PUSHGATEWAY", &gateway.url()).exits(1);
    assert_eq!(gateway.last().value("vllm_bench_sessions_total{"), 3.0);
    assert_not_kept(&scene);
}

#[test]
fn a_run_that_is_detached_has_the_password_on_no_command_line() {
    let (scene, gateway) = (Scene::new(), Gateway::start());
    scene
        .sweep()
        .fault("hang-loading")
        .set("--pushgateway", [gateway.url().as_str()])
        .flag("--detach")
        .stays()
        .exits(0);
    wait_for("a push", || gateway.pushes().pop());
    assert_eq!(gateway.last().value("vllm_bench_run_live{"), 1.0);
    for (pid, line) in scene.processes() {
        assert!(!line.contains(PASSWORD), "{pid}: {line}");
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&words).contains(PASSWORD), "{pid}");
    }
    scene.call(&["stop", "--results-dir", scene.results().to_str().unwrap()]).exits(0);
    wait_for("the last push", || gateway.pushes().pop().filter(|push| push.value("vllm_bench_run_live{") == 0.0));
    assert_not_kept(&scene);
}

#[test]
fn a_gateway_that_is_gone_is_told_of_once_and_costs_the_run_nothing() {
    let scene = Scene::new();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = scene.sweep().set("--pushgateway", [format!("http://{gone}").as_str()]).exits(0);
    let told = format!("the Pushgateway at http://{gone} does not take the metrics");
    assert_eq!(ended.stderr.matches(&told).count(), 1, "{}", ended.stderr);
    scene.run().assert_passed(FIRST);
    // One that takes connections and never answers is waited for no longer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let other = scene.path("other");
    scene.sweep().set("--results-dir", [other.to_str().unwrap()]).set("--pushgateway", [url.as_str()]).exits(0);
}

#[test]
fn a_wrong_address_is_refused_where_it_stands_without_being_repeated() {
    let scene = Scene::new();
    let wrong = format!("ftp://u:{PASSWORD}@gateway");
    for call in [
        scene.sweep().set("--pushgateway", [wrong.as_str()]),
        scene.call(&["load", "--pushgateway", &wrong]),
        scene.call(&["compare", "a", "b", "--pushgateway", &wrong]),
    ] {
        let ended = call.exits(2);
        ended.says("expected the address of a Pushgateway such as `http://gateway:9091`");
        assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    }
    let file = scene.path("sweep.yaml");
    fs::write(&file, "serve: {model: org/tiny}\npushgateway: gateway:9091\n").unwrap();
    scene.sweep_of(&file).exits(2).says("sweep.yaml:2").says("pushgateway: http://gateway:9091");
    // It is shown by `config` without its password.
    let fine = format!("http://u:{PASSWORD}@gateway:9091");
    let shown = scene.call(&["config", "show", "--pushgateway", &fine, "--engine", "sim"]).exits(0);
    assert!(shown.stdout.contains("pushgateway") && !shown.stdout.contains(PASSWORD), "{}", shown.stdout);
}

#[test]
fn a_comparison_is_pushed_with_what_became_worse() {
    let (scene, gateway) = (Scene::new(), Gateway::start());
    for (name, seats) in [("before", "256"), ("after", "1")] {
        let sweep = scene.sweep().set("--enforce-eager", ["true"]).set("--name", [name]).set("--starts", ["3"]);
        let sweep = sweep.set("--num-prompts", ["16"]).set("--concurrency", ["8"]);
        sweep.set("--serve-arg", [format!("max-num-seqs={seats}").as_str()]).set("--sim-noise", ["1%"]).exits(0);
    }
    let results = scene.results();
    let flags =
        ["--ignore", "max-num-seqs", "--results-dir", results.to_str().unwrap(), "--pushgateway", &gateway.url()];
    scene.call(&[&["compare", "before", "after"][..], &flags].concat()).exits(1);
    let last = gateway.last();
    assert!(last.path.contains("/run/") && last.path.contains("/before/"), "{}", last.path);
    assert_eq!(last.value("vllm_bench_compare_worse{"), 1.0);
    assert!(last.body.contains("metric=\"output_throughput\",outcome=\"worse\"} 1.0"), "{}", last.body);
    // Who does not take it changes no verdict.
    let words = ["compare", "after", "before", "--ignore", "max-num-seqs", "--results-dir", results.to_str().unwrap()];
    let alone = scene.call(&words).ends();
    let pushed = scene.call(&[&words[..], &["--pushgateway", "http://127.0.0.1:9"]].concat()).ends();
    pushed.says("does not take the comparison");
    assert_eq!((pushed.stdout, pushed.status), (alone.stdout, alone.status));
}

#[test]
fn a_measurement_is_seen_while_it_goes_on_and_what_was_sampled_outlives_a_kill() {
    let (scene, gateway) = (Scene::new(), Gateway::start());
    let go = scene.path("go");
    let vllm = scene.vllm_that(&format!(
        "if [ \"$1\" = bench ]; then printf ' 50%%|#####     | 2/4\\n'; until [ -e '{}' ]; do sleep 0.02; done; fi",
        go.display()
    ));
    let sweep = || scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).set("--telemetry", ["100ms"]);
    let run = sweep().set("--pushgateway", [gateway.url().as_str()]).start();
    let series = wait_for("the series of samples", || {
        let file = scene.runs().first()?.path(&format!("telemetry/{FIRST}.csv"));
        fs::read_to_string(&file).ok().filter(|text| text.matches(",measuring,").count() > 2).map(|_| file)
    });
    run.kill();
    scene.wait_until_nothing_is_left();
    let kept = fs::read_to_string(&series).unwrap();
    assert!(kept.starts_with("timestamp,") && kept.ends_with('\n'), "{kept}");
    // The next attempt has a series of its own.
    let path = scene.run().0.to_str().unwrap().to_owned();
    let again = scene.call(&["run", "--resume", &path, "--pushgateway", &gateway.url()]).start();
    let second = series.with_file_name(format!("{FIRST}.2.csv"));
    wait_for("the next series", || fs::read_to_string(&second).ok().filter(|text| text.contains(",measuring,")));
    again.signal(Signal::SIGINT);
    again.ends().with_code(130);
    assert_eq!(fs::read_to_string(&series).unwrap(), kept);
    fs::write(go, "").unwrap();
    scene.call(&["run", "--resume", &path]).exits(0);
    assert_eq!(
        scene.run().result(FIRST)["vllm_bench"]["telemetry"]["file"],
        format!("telemetry/{FIRST}.3.csv"),
        "the result names its own"
    );
}

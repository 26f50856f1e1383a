//! `dashboard` and `run --dashboard`: who may ask, what is sent, and that a run never depends on it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Live, Scene, wait_for};

/// A dashboard that is being served.
struct Site {
    port: u16,
    token: String,
}

/// An answer of it.
struct Answer {
    code: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Site {
    /// Waits for the link that a call prints or says.
    fn of(call: &Live<'_>) -> Self {
        let link = wait_for("the link of the dashboard", || {
            let said = call.stdout() + &call.stderr();
            said.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:")).map(str::to_owned)
        });
        let (place, token) = link.split_once("/?token=").unwrap();
        Self { port: place.rsplit_once(':').unwrap().1.parse().unwrap(), token: token.to_owned() }
    }

    fn connect(&self, line: &str, headers: &[&str]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = format!("Host: 127.0.0.1:{}", self.port);
        let own =
            if headers.iter().any(|header| header.starts_with("Host:")) { Vec::new() } else { vec![host.as_str()] };
        let headers = [own, headers.to_vec()].concat().join("\r\n");
        write!(stream, "{line} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n").unwrap();
        BufReader::new(stream)
    }

    fn head(reader: &mut BufReader<TcpStream>) -> (u16, BTreeMap<String, String>) {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let code = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
                None => return (code, headers),
            }
        }
    }

    fn ask(&self, line: &str, headers: &[&str]) -> Answer {
        let mut reader = self.connect(line, headers);
        let (code, headers) = Self::head(&mut reader);
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        Answer { code, headers, body }
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// With the token.
    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[&self.bearer()])
    }

    /// The events of a stream until one of this kind: kind, number, data.
    fn events(&self, path: &str, last: Option<&str>, until: &str) -> Vec<(String, String, Value)> {
        let bearer = self.bearer();
        let last = last.map(|id| format!("Last-Event-ID: {id}"));
        let headers: Vec<&str> = std::iter::once(bearer.as_str()).chain(last.as_deref()).collect();
        let mut reader = self.connect(&format!("GET {path}"), &headers);
        let (code, headers) = Self::head(&mut reader);
        assert_eq!((code, headers["content-type"].as_str()), (200, "text/event-stream"));
        let mut events = Vec::new();
        let (mut kind, mut id, mut data) = (String::new(), String::new(), None);
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended before `{until}`: {events:?}");
            match line.trim_end().split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
                // An event ends with an empty line; the lengths of chunks stand between others.
                _ if line.trim_end().is_empty() => {
                    let Some(data) = data.take() else { continue };
                    events.push((kind.clone(), id.clone(), data));
                    if kind == until {
                        return events;
                    }
                }
                _ => {}
            }
        }
    }
}

fn rows(events: &[(String, String, Value)]) -> Vec<Value> {
    events.iter().filter(|(kind, ..)| kind == "rows").flat_map(|(.., rows)| rows.as_array().unwrap().clone()).collect()
}

/// Serves what is there, does something with it, and ends it.
fn served(scene: &Scene, flags: &[&str], work: impl FnOnce(&Site)) {
    let results = scene.results().to_str().unwrap().to_owned();
    let words = [&["dashboard", &results, "--listen", "127.0.0.1:0"], flags].concat();
    let call = scene.call(&words).start();
    work(&Site::of(&call));
    call.signal(Signal::SIGINT);
    call.ends().with_code(0);
}

#[test]
fn nobody_is_answered_without_the_token_or_under_a_foreign_name() {
    let scene = Scene::new();
    scene.sweep().exits(0);
    served(&scene, &[], |site| {
        for path in
            ["/", "/page.js", "/api/runs", "/api/events", "/api/log", "/plot.svg", "/report", "/metrics", "/no/such"]
        {
            for token in ["", "Authorization: Bearer 00000000000000000000000000000000", "Cookie: vllm_bench=x", "X: y"]
            {
                let answer = site.ask(&format!("GET {path}"), &[token]);
                assert_eq!(answer.code, 401, "{path} {token}");
                assert!(!answer.body.contains("org/tiny"), "{path}");
            }
            let foreign = site.ask(&format!("GET {path}"), &["Host: evil.example", &site.bearer()]);
            assert_eq!(foreign.code, 421, "{path}");
        }
        assert_eq!(
            site.ask(&format!("GET /api/runs?token={}", site.token), &[]).code,
            401,
            "a link opens the page alone"
        );
        for host in ["localhost", "[::1]:9", "127.0.0.1"] {
            assert_eq!(site.ask("GET /api/runs", &[&format!("Host: {host}"), &site.bearer()]).code, 200, "{host}");
        }
        // The link gives a cookie, and the page is reached with it.
        let welcome = site.ask(&format!("GET /?token={}", site.token), &[]);
        assert_eq!(welcome.code, 200);
        let cookie = welcome.header("set-cookie").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(&site.token));
        assert!(!welcome.body.contains(&site.token), "the page does not keep it");
        let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
        let page = site.ask("GET /", &[&cookie]);
        assert!(page.code == 200 && page.body.contains("/page.js"));
        assert_eq!(site.ask("GET /api/runs", &[&cookie]).code, 200);
        // No script but the file, nothing from elsewhere, and no inline script to be let through.
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(!page.body.contains("<script>") && !page.body.contains(" onclick"), "{}", page.body);
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(page.header(name), value);
        }
        let token = std::fs::metadata(format!("/tmp/vllm-bench-{}/dashboard.token", nix::unistd::geteuid())).unwrap();
        assert_eq!(token.permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn what_is_sent_is_what_status_and_recommend_say_and_a_stream_goes_on_where_it_was_cut() {
    let scene = Scene::new();
    scene.sweep().fault("out-of-memory@eager=true").exits(1);
    let run = scene.run().0.to_str().unwrap().to_owned();
    served(&scene, &[], |site| {
        let listed = site.get("/api/runs").json();
        assert_eq!(
            (listed["runs"][0]["path"].as_str(), listed["current"].as_str()),
            (Some(run.as_str()), Some(run.as_str()))
        );
        let events = site.events("/api/events", None, "answer");
        let shown = rows(&events);
        assert_eq!(shown.iter().map(|row| row["state"].as_str().unwrap()).collect::<Vec<_>>(), ["failed", "passed"]);
        let failure = &shown[0]["failure"];
        assert_eq!(failure["cause"], "out-of-device-memory");
        assert!(
            !failure["evidence"].as_array().unwrap().is_empty() && !failure["advice"].as_array().unwrap().is_empty()
        );
        let status: Value = serde_json::from_str(&scene.call(&["status", &run, "--json"]).exits(0).stdout).unwrap();
        let sent = &events.iter().find(|(kind, ..)| kind == "status").unwrap().2["status"];
        assert_eq!(sent["run"], status["run"]);
        let recommend = scene.call(&["recommend", &run, "--format", "json"]).exits(0).stdout;
        assert_eq!(events.last().unwrap().2["recommend"], serde_json::from_str::<Value>(&recommend).unwrap());
        // Nothing has happened since the last event; the first ones are sent again to who saw less.
        let last = events.iter().find(|(kind, ..)| kind == "rows").unwrap().1.clone();
        assert_eq!(last.parse::<usize>().unwrap(), scene.run().journal().len());
        assert_eq!(rows(&site.events("/api/events", Some(&last), "status")).len(), 0);
        assert_eq!(rows(&site.events("/api/events", Some("0"), "status")).len(), 2);
        let log = site.get(&format!("/api/log?name={}", crate::support::FIRST)).json();
        assert!(log["lines"].as_array().unwrap().len() > 3, "{log}");
        assert_eq!(site.get("/api/log?name=../../etc/passwd").code, 404);
        assert_eq!(site.get("/api/events?run=/etc").code, 404);
        let plot = site.get("/plot.svg?kind=ranking");
        assert!(plot.code == 200 && plot.body.contains("<svg"), "{}", plot.body);
        assert_eq!(site.get("/plot.svg?kind=none").code, 404);
        let report = site.get("/report");
        assert!(report.code == 200 && report.body.contains("Content-Security-Policy"));
    });
}

#[test]
fn hostile_names_are_data_and_never_part_of_the_page() {
    let scene = Scene::new();
    let name = "<img src=x onerror=alert(1)></script>";
    scene.sweep().set("--models", [name, crate::support::MODEL]).set("--name", ["n&<b>x"]).exits(0);
    served(&scene, &[], |site| {
        let events = site.events("/api/events", None, "answer");
        let whole = rows(&events).iter().filter(|row| row["configuration"].as_str().unwrap().contains(name)).count();
        assert_eq!(whole, 2, "it is whole, in JSON");
        assert_eq!(site.get("/api/runs").header("content-type"), "application/json");
        let page = site.get("/");
        assert!(!page.body.contains("onerror") && !page.body.contains("n&<b>x"));
        let metrics = site.get("/metrics").body;
        assert!(metrics.contains("name=\"n&<b>x\""), "{metrics}");
        for path in ["/plot.svg?kind=ranking", "/report"] {
            assert!(!site.get(path).body.contains("<img src=x"), "{path}");
        }
    });
}

#[test]
fn metrics_need_the_token_unless_they_are_open_and_counters_survive_a_resume() {
    let scene = Scene::new();
    scene.sweep().fault("out-of-memory@eager=true").exits(1);
    let value = |text: &str, begin: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let run = scene.run().name();
    let failed = format!("vllm_bench_attempts_total{{run=\"{run}\",outcome=\"failed\"}}");
    let sessions = format!("vllm_bench_sessions_total{{run=\"{run}\"}}");
    served(&scene, &[], |site| {
        assert_eq!(site.ask("GET /metrics", &[]).code, 401);
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let answer = site.ask("GET /metrics", &[&site.bearer(), accept]);
        assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(answer.body.ends_with("# EOF\n"));
        // Who asks for nothing gets what all can read.
        let older = site.get("/metrics");
        assert!(older.header("content-type").starts_with("text/plain; version=0.0.4"));
        assert!(older.body.contains("# TYPE vllm_bench_attempts_total counter\n") && !older.body.contains("# EOF"));
        assert_eq!((value(&answer.body, &failed), value(&answer.body, &sessions)), (1.0, 1.0));
        assert!(value(&answer.body, "vllm_bench_last_output_tokens_per_second{") > 0.0);
        let by_link = site.ask(&format!("GET /metrics?token={}", site.token), &[]);
        assert_eq!(value(&by_link.body, &failed), 1.0);
    });
    let path = scene.run().0.to_str().unwrap().to_owned();
    scene.call(&["run", "--resume", &path]).exits(1);
    served(&scene, &["--metrics-open"], |site| {
        let open = site.ask("GET /metrics", &[]);
        assert_eq!((open.code, value(&open.body, &failed), value(&open.body, &sessions)), (200, 2.0, 2.0));
        assert_eq!(site.ask("GET /api/runs", &[]).code, 401);
    });
}

#[test]
fn a_live_run_is_shown_and_says_good_bye_to_those_who_watch() {
    let scene = Scene::new();
    let run = scene.sweep().set("--sim-speed", ["20"]).set("--dashboard", ["127.0.0.1:0"]).start();
    let site = Site::of(&run);
    let events = site.events("/api/events", None, "bye");
    let state = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["state"].as_str().unwrap().to_owned());
    let newest: BTreeMap<String, String> = rows(&events).iter().map(state).collect();
    assert!(newest.len() == 2 && newest.values().all(|state| state == "passed"), "{newest:?}");
    let statuses: Vec<&Value> =
        events.iter().filter(|(kind, ..)| kind == "status").map(|(.., status)| status).collect();
    assert_eq!(statuses[0]["status"]["run"]["standing"], "live");
    assert_eq!(statuses.last().unwrap()["status"]["run"]["standing"], "finished");
    run.ends().with_code(0);
    assert!(!scene.run().journal_text().contains(&site.token));
}

#[test]
fn a_run_goes_on_without_a_dashboard_where_its_port_is_taken() {
    let scene = Scene::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = scene.sweep().set("--dashboard", [address.as_str()]).exits(0);
    ended.says(&format!("the dashboard cannot listen on {address}")).says("the run goes on without a dashboard");
    ended.says("name another port").says("`vllm-bench dashboard` shows the run as well");
    scene.call(&["dashboard", "--listen", &address]).exits(2).says("cannot listen").says("`--listen 127.0.0.1:0`");
    scene.call(&["run", "--dashboard", "no-address", "--engine", "sim"]).exits(2).says("expected a port");
}

#[test]
fn a_run_is_stopped_from_the_page_only_where_that_is_allowed() {
    let scene = Scene::new();
    let slow = || scene.sweep().fault("hang-loading").set("--dashboard", ["127.0.0.1:0"]);
    let run = slow().start();
    let site = Site::of(&run);
    let refused = site.ask("POST /stop?mode=in-order", &[&site.bearer()]);
    assert_eq!(refused.code, 403);
    assert!(refused.body.contains("--allow-control"), "{}", refused.body);
    assert_eq!(site.ask("GET /stop?mode=in-order", &[&site.bearer()]).code, 405);
    run.signal(Signal::SIGINT);
    run.ends().with_code(130);

    let run = slow().flag("--allow-control").start();
    let site = Site::of(&run);
    assert_eq!(site.ask("POST /stop?mode=in-order", &[]).code, 401);
    let welcome = site.ask(&format!("GET /?token={}", site.token), &[]);
    let cookie = format!("Cookie: {}", welcome.header("set-cookie").split(';').next().unwrap());
    let strange = ["Origin: http://127.0.0.1:1", cookie.as_str()];
    assert_eq!(site.ask("POST /stop?mode=in-order", &strange).code, 403, "another page of this machine");
    assert_eq!(site.ask("POST /stop?mode=in-order", &[&cookie]).code, 403);
    assert_eq!(site.ask("POST /stop?mode=never", &[&site.bearer()]).code, 400);
    let own = format!("Origin: http://127.0.0.1:{}", site.port);
    let said = site.ask("POST /stop?mode=in-order", &[&own, &cookie]);
    assert!(said.code == 200 && said.body.contains("was asked to end in order"), "{}", said.body);
    run.ends().with_code(143);
}

#[test]
fn what_is_measured_is_seen_while_it_goes_on() {
    let scene = Scene::new();
    let go = scene.path("go");
    let vllm = scene.vllm_that(&format!(
        "if [ \"$1\" = bench ]; then printf ' 50%%|#####     | 2/4\\n'; until [ -e '{}' ]; do sleep 0.02; done; fi",
        go.display()
    ));
    let sweep = scene.sweep_with(&vllm).set("--enforce-eager", ["true"]).set("--telemetry", ["100ms"]);
    let run = sweep.set("--dashboard", ["127.0.0.1:0"]).start();
    let site = Site::of(&run);
    let seen = wait_for("what is seen of it", || {
        let events = site.events("/api/events", None, "seen");
        let seen = events.into_iter().find(|(kind, ..)| kind == "seen")?.2;
        (seen[0]["running"].is_number() && seen[0]["requests"].is_number()).then_some(seen)
    });
    assert_eq!((&seen[0]["requests_done"], &seen[0]["requests"]), (&2.into(), &4.into()), "{seen}");
    assert_eq!(seen[0]["name"], crate::support::FIRST);
    let metrics = site.get("/metrics").body;
    for line in [
        "vllm_bench_current_requests_done{",
        "vllm_bench_server_requests_running{",
        "vllm_bench_server_kv_cache_ratio{",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    std::fs::write(go, "").unwrap();
    run.ends().with_code(0);
    // Nothing is under way any more.
    served(&scene, &[], |site| assert!(!site.get("/metrics").body.contains("vllm_bench_server_requests_running")));
}

/// A server of one model that answers no request until it is told to.
fn slow_server() -> (String, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let go = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&go);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told = std::sync::Arc::clone(&told);
            std::thread::spawn(move || slow_answer(stream, &told));
        }
    });
    (url, go)
}

fn slow_answer(stream: TcpStream, told: &std::sync::atomic::AtomicBool) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).is_ok_and(|read| read > 2) {
        let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        length = last.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = if head.starts_with("GET /v1/models") {
        "{\"object\":\"list\",\"data\":[{\"id\":\"org/tiny\",\"object\":\"model\"}]}".to_owned()
    } else if head.starts_with("POST /v1/completions") {
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let part = |text: &str| {
            format!("data: {{\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"finish_reason\":null}}]}}\n\n")
        };
        let usage =
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2,\"total_tokens\":10}}\n\n";
        format!("{}{}{usage}data: [DONE]\n\n", part(" a"), part(" b"))
    } else {
        String::new()
    };
    let code = if answer.is_empty() { "404 Not Found" } else { "200 OK" };
    let kind = if answer.starts_with("data") { "text/event-stream" } else { "application/json" };
    let head = format!(
        "HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.len()
    );
    let _ = reader.get_mut().write_all(format!("{head}{answer}").as_bytes());
}

#[test]
fn a_load_is_shown_while_it_goes_on_and_its_end_too() {
    let scene = Scene::new();
    let (url, go) = slow_server();
    let flags = "--model org/tiny --dataset-name random --prompt-format text --random-input-len 8 --random-output-len 2 --num-prompts 6 \
                 --max-concurrency 3 --num-warmups 0 --label a<b>\"c --dashboard 127.0.0.1:0";
    let words: Vec<&str> = ["load", "--base-url", &url].into_iter().chain(flags.split_whitespace()).collect();
    let load = scene.call(&words).start();
    let site = Site::of(&load);
    for path in ["/", "/api/load", "/metrics", "/load.js", "/no/such"] {
        assert_eq!(site.ask(&format!("GET {path}"), &[]).code, 401, "{path}");
        assert_eq!(site.ask(&format!("GET {path}"), &[&site.bearer(), "Host: evil.example"]).code, 421, "{path}");
    }
    let told = wait_for("three requests under way", || {
        Some(site.get("/api/load").json()).filter(|told| told["load"]["active"] == 3)
    });
    let now = &told["load"];
    assert_eq!((&now["name"], &now["planned"], &now["live"]), (&"a<b>\"c".into(), &6.into(), &true.into()), "{told}");
    assert_eq!((&now["counted"]["sent"], &now["counted"]["done"]), (&3.into(), &0.into()), "{told}");
    let page = site.get("/");
    assert!(page.body.contains("/load.js") && !page.body.contains("a<b>") && !page.body.contains("<script>"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let metrics = site.get("/metrics").body;
    assert!(metrics.contains("vllm_bench_load_requests_in_flight{run=\"a<b>\\\"c\"} 3.0"), "{metrics}");
    go.store(true, std::sync::atomic::Ordering::Relaxed);
    // Who watches sees the end; who does not keeps nobody waiting.
    let last = wait_for("the end", || Some(site.get("/api/load").json()).filter(|told| told["over"] == true));
    assert_eq!((&last["load"]["live"], &last["load"]["counted"]["done"]), (&false.into(), &6.into()), "{last}");
    assert!(last["load"]["last"]["output_throughput"].as_f64().unwrap() > 0.0, "{last}");
    load.ends().with_code(0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words: Vec<&str> = ["load", "--base-url", &url]
        .into_iter()
        .chain(flags.split_whitespace())
        .map(|word| if word == "127.0.0.1:0" { address.as_str() } else { word })
        .collect();
    scene.call(&words).exits(0).says("the load goes on without a dashboard");
    scene.call(&["load", "--base-url", &url, "--dashboard", "no-address"]).exits(2).says("expected a port");
}

//! The page: what is in it, that it is the same each time, that nothing from outside becomes part of it, and how large it gets.

use base64::Engine as _;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fixture::Fixture;
use super::read_run;
use crate::analyse::{RankingSpec, RunTable, WarningKind};
use crate::model::{Engine, Repeat};
use crate::report::export::Analysis;
use crate::report::html::render;

const HOSTILE: &str = "<img src=x onerror=alert(1)>";
const ENDS: &str = "</script><script>alert(2)</script>";

/// Two models; passes, a failure, one never begun.
fn small(model: &str, evidence: &str, engine: Engine) -> Fixture {
    let mut run = Fixture::new(&["Qwen/Qwen3-4B", model], &[2, 4], engine);
    run.pass(0, 1.5, 120.0);
    run.pass(1, 1.75, 110.0);
    run.fail(2, "the server exited with code 1", evidence);
    run.pass(4, 0.5, 300.0);
    run.close(12.0)
}

fn page(run: &Fixture) -> String {
    let table = read_run(run.path()).unwrap();
    render(&Analysis::of(&table))
}

/// What stands between the first occurrence of `from` and the next of `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text.find(from).unwrap_or_else(|| panic!("no {from}")) + from.len();
    &text[start..start + text[start..].find(to).unwrap()]
}

fn data(page: &str) -> Value {
    serde_json::from_str(between(page, "<script type=\"application/json\" id=\"data\">", "</script>")).unwrap()
}

/// The page without its style, data and script.
fn body(page: &str) -> String {
    let (start, end) = (page.find("</style>").unwrap(), page.find("<script").unwrap());
    page[start + "</style>".len()..end].to_owned()
}

#[test]
fn a_small_run() {
    let page = page(&small("org/other", "RuntimeError: no", Engine::Vllm));
    insta::assert_snapshot!("page", body(&page));
    insta::assert_snapshot!("page_data", format!("{:#}", data(&page)));
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    assert_eq!(page(&run), page(&run));
    // Nothing of the place where it is read.
    assert!(!page(&run).contains(run.path().parent().unwrap().to_str().unwrap()));
}

#[test]
fn a_simulated_run_says_so_on_top_and_at_each_metric() {
    let page = page(&small("org/other", "RuntimeError: no", Engine::Sim));
    let body = body(&page);
    assert!(body.contains("<strong>SIMULATED</strong>") && page.contains("(SIMULATED)</title>"));
    assert_eq!(body.matches("<span class=\"tag warn\">simulated</span>").count(), 3, "answer, experiments, plots");
    assert_eq!(data(&page)["simulated"], true);
}

#[test]
fn what_comes_from_outside_is_text() {
    let run = small(HOSTILE, ENDS, Engine::Vllm);
    let mut table = read_run(run.path()).unwrap();
    for row in &mut table.rows {
        row.about.serve_command.extend([HOSTILE.to_owned(), ENDS.to_owned(), "\u{202e}".to_owned()]);
    }
    table.facts.command_line.push("a\" onfocus=\"alert(1)".into());
    table.facts.run = ENDS.into();
    let mut analysis = Analysis::of(&table);
    analysis.title = Some(format!("{HOSTILE}{ENDS}"));
    let page = render(&analysis);
    let body = body(&page);
    for raw in ["<img", "<script", "</script", "onfocus=\"", "\u{202e}"] {
        assert!(!body.contains(raw), "{raw} in the page");
    }
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert_eq!(page.matches("</script").count(), 2);
    // The same text, to be read.
    assert!(body.contains("&lt;img src=x onerror=alert(1)&gt;"));
    let data = data(&page);
    assert_eq!(data["settings"][0]["values"][1], HOSTILE);
    assert!(data["words"].as_array().unwrap().iter().any(|word| word.as_str().unwrap().contains("\\u202e")));
}

#[test]
fn a_failure_shows_every_line_that_its_record_holds_as_text() {
    let run = small("org/other", "RuntimeError: the first", Engine::Vllm);
    let path = run.dir.layout().failure(&run.experiment(2).name);
    let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let evidence = record.pointer_mut("/evidence").and_then(Value::as_array_mut).unwrap();
    evidence.push(serde_json::json!({"line": 7, "text": "the second <b>&amp;</b>"}));
    evidence.push(serde_json::json!({"line": 8, "text": HOSTILE}));
    std::fs::write(&path, record.to_string()).unwrap();
    let body = body(&page(&run));
    let log = between(&body, "<pre class=\"log\">", "</pre>");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (line, (number, text)) in lines.iter().zip([
        (123, "RuntimeError: the first"),
        (7, "the second &lt;b&gt;&amp;amp;&lt;&#x2f;b&gt;"),
        (8, "&lt;"),
    ]) {
        assert!(
            line.starts_with("<span class=\"faint\">logs") && line.contains(&format!(":{number}</span> ")),
            "{line}"
        );
        assert!(line.contains(text), "{text} is not in {line}");
        assert_eq!(line.matches('<').count(), 2, "nothing but the number is marked up: {line}");
    }
}

#[test]
fn the_policy_lets_this_script_and_style_run_and_nothing_else() {
    let page = page(&small("org/other", "RuntimeError: no", Engine::Vllm));
    let policy = between(&page, "http-equiv=\"Content-Security-Policy\" content=\"", "\"")
        .replace("&#x27;", "'")
        .replace("&#x2f;", "/");
    let hash =
        |text: &str| format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text)));
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.contains(&format!("script-src {};", hash(between(&page, "<script>", "</script>")))), "{policy}");
    assert!(policy.contains(&format!("style-src {};", hash(between(&page, "<style>", "</style>")))), "{policy}");
    assert!(!policy.contains("unsafe"));
}

#[test]
fn the_script_puts_text_into_the_page_as_text_and_asks_for_nothing() {
    let page = page(&small("org/other", "RuntimeError: no", Engine::Vllm));
    let script = between(&page, "<script>", "</script>");
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "XMLHttpRequest",
        "import(",
    ] {
        assert!(!script.contains(word), "{word}");
    }
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for word in ["http://", "https://", "url(\"", "@import", " src="] {
        assert!(!outside.contains(word), "{word}");
    }
}

#[test]
fn limits_decide_and_an_empty_run_is_a_page_too() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    let table = read_run(run.path()).unwrap();
    let limit = crate::analyse::Limit::parse("ttft.mean<1").unwrap();
    let wanted = RankingSpec { limits: vec![limit], ..RankingSpec::default() };
    let page = render(&Analysis::by(&table, Vec::new(), wanted));
    assert!(
        page.contains("No configuration keeps the limits.") && page.contains("Limits of `--slo`: mean_ttft_ms &lt; 1.")
    );
    let none = RunTable { rows: Vec::new(), ..table };
    assert!(render(&Analysis::of(&none)).contains("There is no valid result to choose from."));
}

#[test]
fn repeats_are_shown_with_their_interval_and_warnings_with_their_row() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    let mut table = read_run(run.path()).unwrap();
    let first = table.rows[0].clone();
    table.rows.truncate(1);
    for start in 1..=3 {
        let mut row = first.clone();
        row.repeat = Some(Repeat { start, run: 1 });
        row.metrics.set(crate::model::VllmMetric::OutputThroughput, Some(100.0 + f64::from(start)));
        table.rows.push(row);
    }
    table.rows.remove(0);
    let kind = WarningKind::ShortOutputs;
    table.rows[2].about.warnings.push(crate::analyse::Warning { kind, text: "2 answers were shorter".into() });
    let data = data(&render(&Analysis::of(&table)));
    assert_eq!(data["groups"][0]["rows"], serde_json::json!([0, 1, 2]));
    let at = data["metrics"].as_array().unwrap().iter().position(|f| f["key"] == "output_throughput").unwrap();
    // 102 +- t(0.975, 2) x 1 / sqrt(3) = 4.302653 x 0.577350.
    assert_eq!(data["groups"][0]["f"][at], serde_json::json!([102, 99.5159, 104.484, 3]));
    assert_eq!((&data["rows"][2]["b"], &data["rows"][2]["d"][0]), (&1.into(), &"2 answers were shorter".into()));
}

#[test]
fn fronts_are_those_of_each_model_and_load_without_what_is_excluded() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    let mut table = read_run(run.path()).unwrap();
    let first = table.rows[0].clone();
    table.rows.clear();
    // Model, load, throughput, latency; the last one of each model and load is beaten in both.
    for (model, load, throughput, ttft) in [
        ("a", "1", 100.0, 10.0),
        ("a", "1", 200.0, 20.0),
        ("a", "1", 90.0, 20.0),
        ("b", "1", 900.0, 5.0),
        ("b", "1", 950.0, 6.0),
        ("a", "2", 50.0, 9.0),
    ] {
        let mut row = first.clone();
        row.axes.model = model.into();
        row.axes.workload = vec![("max-concurrency".into(), load.into())];
        row.metrics.set(crate::model::VllmMetric::OutputThroughput, Some(throughput));
        row.metrics.set(crate::model::VllmMetric::MeanTtft, Some(ttft));
        table.rows.push(row);
    }
    let fronts = |table: &RunTable| {
        let data = data(&render(&Analysis::of(table)));
        let at =
            |key: &str| data["metrics"].as_array().unwrap().iter().position(|metric| metric["key"] == key).unwrap();
        let pair = [at("output_throughput"), at("mean_ttft_ms")];
        let all = data["fronts"].as_array().unwrap();
        all.iter().find(|of| of[0] == pair[0] && of[1] == pair[1]).map(|of| of[2].clone())
    };
    assert_eq!(fronts(&table), Some(serde_json::json!([[1, 0], [4, 3]])));
    let kind = WarningKind::ShortOutputs;
    table.rows[4].about.warnings.push(crate::analyse::Warning { kind, text: "2 answers were shorter".into() });
    assert_eq!(fronts(&table), Some(serde_json::json!([[1, 0]])), "one point is no line");
}

#[test]
fn the_page_groups_its_answers_as_it_is_asked() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    let table = read_run(run.path()).unwrap();
    let says = |group_by: &[&str], heading: &str| {
        let keys = group_by.iter().map(|key| (*key).to_owned()).collect();
        let page = render(&Analysis::by(&table, keys, RankingSpec::default()));
        page.contains(&format!("<h3 class=\"inline\">{heading}"))
    };
    assert!(says(&[], "Qwen&#x2f;Qwen3-4B") && !says(&[], "tensor-parallel-size 2"));
    assert!(says(&["tensor-parallel-size"], "tensor-parallel-size 2"));
    assert!(!says(&["tensor-parallel-size"], "Qwen&#x2f;Qwen3-4B"));
}

#[test]
fn a_thousand_experiments_fit_into_two_megabytes() {
    let run = small("org/other", "RuntimeError: no", Engine::Vllm);
    let mut table = read_run(run.path()).unwrap();
    let (passed, failed) = (table.rows[0].clone(), table.rows[2].clone());
    table.rows = (0..1000)
        .map(|index| {
            let mut row = if index % 10 == 0 { failed.clone() } else { passed.clone() };
            row.name = format!("{}_{index:04}_with_the_usual_length_of_a_name", row.name);
            row.axes.server.push(("max-num-seqs".into(), index.to_string()));
            row.about.serve_command = (0..40).map(|word| format!("--flag-number-{word}={}", index / 7)).collect();
            row.about.bench_command = row.about.serve_command.clone();
            row.about.further = (50..95).map(|p| (format!("p{p}_ttft_ms"), f64::from(p) * f64::from(index))).collect();
            row
        })
        .collect();
    let page = render(&Analysis::of(&table));
    assert_eq!(data(&page)["rows"].as_array().unwrap().len(), 1000);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

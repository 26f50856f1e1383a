//! Every kind, with few and with many measurements: it parses, nothing is clipped, no two texts cover each other, the same data give
//! the same bytes.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::font::{Weight, width};
use super::{Kind, Over, Query, Size, plots, png, svg};
use crate::analyse::{About, Facts, LaneSpan, Load, LoadValue, Row, RunTable, ShownAxes, Status, Step, VllmMetrics};
use crate::model::{Repeat, StartPhase, StartStep, Timings, VllmMetric};
use crate::report::Refusal;

/// What a hostile or careless name may hold.
const NASTY: &str = "org/<b>&\"'\u{202e}\u{0}\u{1b}[31mモデル-שלום";

fn load(concurrency: u32) -> Arc<Load> {
    let exact = |value: &str| LoadValue::Exact(value.to_owned());
    let flags = [
        ("random-input-len", exact("1024")),
        ("max-concurrency", exact(&concurrency.to_string())),
        ("num-prompts", exact(&(concurrency * 4).to_string())),
    ];
    Arc::new(Load(flags.map(|(key, value)| (key.to_owned(), value)).into()))
}

/// A measurement of the i-th configuration.
fn row(i: usize, model: &str, tp: u32, seqs: u32, concurrency: u32, start: u32) -> Row {
    let speed = f64::from(tp).sqrt() * f64::from(concurrency).powf(0.7) * (1.0 + 0.01 * f64::from(start));
    let mut metrics = VllmMetrics::none();
    let per_request = 64.0;
    let values = [
        (VllmMetric::Completed, 64.0),
        (VllmMetric::TotalOutputTokens, 64.0 * per_request),
        (VllmMetric::RequestThroughput, speed),
        (VllmMetric::OutputThroughput, speed * per_request * (1.0 + f64::from(seqs) / 4096.0)),
        (VllmMetric::MeanTtft, 40.0 * f64::from(concurrency) / f64::from(tp)),
        (VllmMetric::MeanTpot, 10.0 + f64::from(concurrency)),
    ];
    values.into_iter().for_each(|(metric, value)| metrics.set(metric, Some(value)));
    let step = |phase, seconds| StartStep { phase, seconds };
    let steps = vec![step(StartPhase::Importing, 4.0), step(StartPhase::Loading, 9.0 / f64::from(tp))];
    Row {
        name: format!("x{i}_tp{tp}_cc{concurrency}_start{start}"),
        axes: ShownAxes {
            model: model.to_owned(),
            tensor_parallel_size: Some(tp),
            quantization: Some("none".into()),
            enforce_eager: Some(true),
            server: vec![("max-num-seqs".into(), seqs.to_string())],
            workload: vec![("max-concurrency".into(), concurrency.to_string())],
        },
        status: Status::Valid,
        metrics,
        simulated: true,
        identity: None,
        attempt: None,
        timings: Some(Timings { startup: Some(15.0), startup_phases: steps, ..Timings::default() }),
        load: load(concurrency),
        repeat: Some(Repeat { start, run: 1 }),
        groups: Vec::new(),
        baseline: false,
        side: None,
        alone: false,
        replaced: false,
        server_name: format!("x{model}_tp{tp}_{seqs}"),
        source: None,
        about: About {
            run: "20260225_1430".into(),
            devices: Some(tp),
            flags: Arc::new(IndexMap::from([("max-num-seqs".to_owned(), seqs.to_string())])),
            ..About::default()
        },
    }
}

/// Two lanes of two devices each, in turn.
fn spans(rows: &[Row]) -> Vec<LaneSpan> {
    let one = |(place, row): (usize, &Row)| {
        let (lane, at) = (place % 2, (place / 2) as f64 * 20.0);
        let devices = [2 * lane, 2 * lane + 1].map(|number| format!("sim:{number}")).to_vec();
        let steps = vec![
            (Step::Starting, at, at + 5.0),
            (Step::Measuring, at + 5.0, at + 17.0),
            (Step::Ending, at + 17.0, at + 19.0),
        ];
        LaneSpan { name: row.name.clone(), lane: lane as u32 + 1, devices, lost: false, steps }
    };
    rows.iter().enumerate().map(one).collect()
}

fn table(rows: Vec<Row>) -> RunTable {
    let facts = Facts { run: "20260225_1430".into(), spans: spans(&rows), ..Facts::for_tests() };
    RunTable { facts, more: Vec::new(), rows, unreadable: Vec::new(), simulated: true }
}

/// About `n` measurements: models, sizes and levels as many as it takes, two starts of each from 30 on.
fn sweep(n: usize) -> RunTable {
    let (models, sizes, seqs, starts) = match n {
        0..=3 => (1, 1, 1, 1),
        4..=30 => (1, 3, 2, 2),
        _ => (3, 4, 4, 2),
    };
    let names =
        ["org/tiny", NASTY, "meta-llama/Llama-3.1-70B-Instruct-with-a-name-that-does-not-end-soon-w8a8-quantized"];
    let levels: &[u32] = if n > 30 { &[1, 8, 64, 256] } else { &[1, 8, 32] };
    let mut rows = Vec::new();
    for (model, name) in names.iter().enumerate().take(models) {
        for tp in (0..sizes).map(|exponent| 1 << exponent) {
            for seq in (0..seqs).map(|exponent| 64 << exponent) {
                for level in levels {
                    rows.extend((1..=starts).map(|start| row(model, name, tp, seq, *level, start)));
                }
            }
        }
    }
    table(rows)
}

/// The same with the arrays of single requests in files.
fn detailed(mut table: RunTable, dir: &Path) -> RunTable {
    for (i, row) in table.rows.iter_mut().enumerate() {
        let mut text = String::new();
        let n = 40;
        let list = |value: &dyn Fn(usize) -> String| (0..n).map(value).collect::<Vec<_>>().join(",");
        let ttft = row.metrics.get(VllmMetric::MeanTtft).unwrap() / 1e3;
        let _ = write!(
            text,
            r#"{{"ttfts":[{}],"itls":[{}],"input_lens":[{}],"output_lens":[{}],"start_times":[{}],"completed":{n}}}"#,
            list(&|k| (ttft * (1.0 + ((k * 7919 + i) % 13) as f64 / 5.0)).to_string()),
            list(&|k| format!("[{}]", 0.01 * (1 + k % 3) as f64)),
            list(&|k| (100 + k % 9).to_string()),
            list(&|_| "2".into()),
            list(&|k| (k as f64 * 0.25).to_string()),
        );
        let name = format!("{i}.json");
        std::fs::write(dir.join(&name), text).unwrap();
        row.source = Some(name.into());
        let mut text = String::from(
            "elapsed_ms,gpu_id,gpu_utilization_pct,power_usage_w,temperature_c,clock_mhz,generation_tokens\n",
        );
        for k in 0..12 {
            let (power, tokens) = (200.0 + 10.0 * (k % 3) as f64 + i as f64, k * (100 + i));
            let _ = writeln!(text, "{},a,{},{power},{},2400,{tokens}", k * 1000, 80 + k % 7, 50 + k);
        }
        let name = format!("{i}.csv");
        std::fs::write(dir.join(&name), text).unwrap();
        row.about.samples = Some(name.into());
        row.about.directory = dir.into();
    }
    table
}

fn parse(svg: &str) -> Document<'_> {
    Document::parse(svg).unwrap_or_else(|error| panic!("{error}\n{svg}"))
}

/// The texts with what they cover: left, top, right, bottom.
fn texts(svg: &Document<'_>) -> Vec<(String, [f64; 4])> {
    let of = |node: Node<'_, '_>| {
        let number = |key| node.attribute(key).map_or(0.0, |value| value.parse::<f64>().unwrap());
        let (x, y, size, text) = (number("x"), number("y"), number("font-size"), node.text().unwrap_or_default());
        let weight = if node.has_attribute("font-weight") { Weight::Bold } else { Weight::Regular };
        let wide = width(text, size, weight);
        let left = match node.attribute("text-anchor") {
            None => 0.0,
            Some("middle") => -wide / 2.0,
            Some(_) => -wide,
        };
        // Ascent and descent of Arimo.
        let corners = [(left, -0.905 * size), (left + wide, 0.212 * size)];
        let turn = node
            .attribute("transform")
            .map_or(0.0, |turn| turn["rotate(".len()..].split(' ').next().unwrap().parse().unwrap());
        let (sin, cos) = f64::to_radians(turn).sin_cos();
        let places = [0, 1].map(|i| [0, 1].map(|j| (corners[i].0, corners[j].1))).concat();
        let (xs, ys): (Vec<f64>, Vec<f64>) =
            places.iter().map(|(dx, dy)| (x + dx * cos - dy * sin, y + dx * sin + dy * cos)).unzip();
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (text.to_owned(), [least(&xs), least(&ys), most(&xs), most(&ys)])
    };
    svg.descendants().filter(|node| node.has_tag_name("text")).map(of).collect()
}

/// Every text lies on the sheet, and no two cover each other.
fn check_texts(what: &str, svg: &str) {
    let parsed = parse(svg);
    let found = texts(&parsed);
    assert!(found.len() > 3, "{what}: {} texts", found.len());
    let side = |key| parsed.root_element().attribute(key).unwrap().parse::<f64>().unwrap();
    let (width, height) = (side("width"), side("height"));
    for (i, (text, area @ [left, top, right, bottom])) in found.iter().enumerate() {
        let inside = *left > -1.0 && *top > -1.0 && *right < width + 1.0 && *bottom < height + 1.0;
        assert!(inside, "{what}: `{text}` is clipped: {area:?} of {width} x {height}");
        for (other, there) in &found[..i] {
            let wide = right.min(there[2]) - left.max(there[0]);
            let high = bottom.min(there[3]) - top.max(there[1]);
            assert!(wide < 1.5 || high < 3.5, "{what}: `{text}` covers `{other}`: {area:?} {there:?}");
        }
    }
}

/// A query that the kind can answer.
fn query(kind: Kind, y: Option<&str>) -> Query {
    match kind {
        Kind::Heatmap => Query { x: Some("tp".into()), y: Some("max-concurrency".into()), ..Query::default() },
        _ => Query { y: y.map(str::to_owned), ..Query::default() },
    }
}

#[test]
fn nothing_is_clipped_or_covered_with_3_30_and_300_measurements() {
    for n in [3, 30, 300] {
        let dir = tempfile::tempdir().unwrap();
        let table = detailed(sweep(n), dir.path());
        for kind in Kind::ALL {
            for y in [None, Some("throughput")].into_iter().take(if kind == Kind::OverTime { 2 } else { 1 }) {
                match plots(&table, kind, &query(kind, y)) {
                    Ok(plots) => plots.iter().for_each(|plot| {
                        let svg = svg(plot, Size::default());
                        assert!(svg.contains("SIMULATED"), "{kind:?}");
                        check_texts(&format!("{} with {n}", kind.name()), &svg);
                    }),
                    Err(refusal) => {
                        assert!(
                            n == 3 && [Kind::Heatmap, Kind::Interaction].contains(&kind),
                            "{kind:?} {n}: {refusal:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn small_and_large_sheets_hold_what_they_show() {
    let dir = tempfile::tempdir().unwrap();
    let table = detailed(sweep(30), dir.path());
    for kind in Kind::ALL {
        for plot in plots(&table, kind, &query(kind, None)).unwrap() {
            for (width, height) in [(Some(1600.0), None), (Some(700.0), None), (Some(200.0), Some(200.0))] {
                let svg = svg(&plot, Size { width, height });
                if height.is_none() {
                    check_texts(&format!("{} at {width:?}", kind.name()), &svg);
                }
                parse(&svg);
            }
        }
    }
}

#[test]
fn the_same_run_gives_the_same_bytes_and_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let table = detailed(sweep(30), dir.path());
    for kind in Kind::ALL {
        let draw = || svg(&plots(&table, kind, &query(kind, None)).unwrap()[0], Size::default());
        assert_eq!(draw(), draw(), "{kind:?}");
    }
    let ranking = &plots(&table, Kind::Ranking, &Query::default()).unwrap()[0];
    let pixels = png(ranking, Size::default(), 1.0).unwrap();
    assert_eq!(pixels, png(ranking, Size::default(), 1.0).unwrap());
    assert_eq!(pixels[..8], *b"\x89PNG\r\n\x1a\n");
}

#[test]
fn loads_and_models_are_never_averaged_over_in_silence() {
    let table = sweep(300);
    let by = |by: &str| Query { by: vec![by.into()], ..Query::default() };
    match plots(&table, Kind::Throughput, &by("tensor-parallel-size")) {
        Err(Refusal::Wrong { message, hint }) => {
            assert!(message.contains("`model`"), "{message}");
            assert!(hint.contains("--by tensor-parallel-size,model"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    // Over settings of the server a mean is taken where the user says so, and the caption says so too.
    let plot = &plots(&table, Kind::Throughput, &Query { by: vec!["model".into()], ..Query::default() }).unwrap()[0];
    let caption = plot.chart.caption.join(" ");
    assert!(caption.contains("mean over all values of tensor-parallel-size, max-num-seqs"), "{caption}");
    // More series than looks: the others are grey and counted.
    let plot = &plots(&table, Kind::Throughput, &Query::default()).unwrap()[0];
    assert_eq!(plot.chart.legend.last().unwrap().label, "… and 41 more");
    let caption = plot.chart.caption.join(" ");
    assert!(caption.contains("Named are the 7 of 48"), "{caption}");
}

#[test]
fn what_the_data_do_not_hold_is_refused_with_the_next_step() {
    let few = sweep(3);
    for (kind, step) in
        [(Kind::TtftCdf, "save-detailed"), (Kind::Histogram, "save-detailed"), (Kind::Interaction, "sweep file")]
    {
        match plots(&few, kind, &Query::default()) {
            Err(Refusal::Missing { hint, .. }) => assert!(hint.contains(step), "{hint}"),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
    let one_level = table(few.rows[..1].to_vec());
    match plots(&one_level, Kind::Throughput, &Query::default()) {
        Err(Refusal::Missing { message, .. }) => {
            assert!(message.contains("one value of `max-concurrency`"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    for (query, flag) in [
        (Query { x: Some("max-concurency".into()), ..Query::default() }, "--x"),
        (Query { y: Some("speed".into()), ..Query::default() }, "--y"),
        (Query { by: vec!["colour".into()], ..Query::default() }, "--by"),
    ] {
        match plots(&few, Kind::Throughput, &query) {
            Err(Refusal::Wrong { message, .. }) => assert!(message.contains(flag), "{message}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(plots(&table(Vec::new()), Kind::Ranking, &Query::default()), Err(Refusal::Missing { .. })));
}

#[test]
fn a_few_plots_stay_as_they_are() {
    let small = Size { width: Some(480.0), height: Some(260.0) };
    let draw = |kind| svg(&plots(&sweep(3), kind, &Query::default()).unwrap()[0], small);
    insta::assert_snapshot!("pareto", draw(Kind::Pareto));
    insta::assert_snapshot!("startup", draw(Kind::Startup));
    insta::assert_snapshot!("lanes", draw(Kind::Lanes));
}

#[test]
fn a_heat_map_shows_the_best_or_the_mean_and_says_which() {
    let table = sweep(30);
    let ask = |over| {
        let query = Query { over, ..query(Kind::Heatmap, None) };
        plots(&table, Kind::Heatmap, &query).unwrap()[0].chart.clone()
    };
    let (best, mean) = (ask(Over::Best), ask(Over::Mean));
    let first = |chart: &super::chart::Chart| match &chart.panels[0].body {
        super::chart::Body::Heat(heat) => heat.cells[0][0].unwrap(),
        other => panic!("{other:?}"),
    };
    // max-num-seqs 64 and 128 differ by their parts of 4096.
    let (a, b) = (first(&best), first(&mean));
    assert!((a / b - (1.0 + 128.0 / 4096.0) / (1.0 + 96.0 / 4096.0)).abs() < 1e-9, "{a} {b}");
    assert!(best.caption.join(" ").contains("the best over all values of max-num-seqs"));
    assert!(mean.caption.join(" ").contains("the mean over all values of max-num-seqs"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_metric_and_no_name_breaks_a_plot(
        values in proptest::collection::vec(
            prop_oneof![Just(0.0), Just(1e-9), Just(1e12), Just(f64::MAX), Just(-1.0), -1e3f64..1e3, Just(f64::NAN)], 1..24),
        name in "\\PC{0,40}[\\x00-\\x1f<>&\"']{0,5}.{0,300}",
    ) {
        let mut rows = Vec::new();
        for (i, value) in values.iter().enumerate() {
            let mut row = row(i % 2, if i % 2 == 0 { &name } else { "m" }, 1 << (i % 3), 64, 1 << (i % 4), 1);
            for metric in [VllmMetric::OutputThroughput, VllmMetric::MeanTtft, VllmMetric::RequestThroughput] {
                row.metrics.set(metric, Some(*value));
            }
            row.timings = Some(Timings { startup: Some(*value), ..Timings::default() });
            rows.push(row);
        }
        let table = table(rows);
        for kind in Kind::ALL {
            if let Ok(plots) = plots(&table, kind, &Query::default()) {
                for plot in plots {
                    parse(&svg(&plot, Size::default()));
                }
            }
        }
    }
}

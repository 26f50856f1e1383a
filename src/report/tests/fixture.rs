//! Run directories for tests, made of the real types.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::model::{
    Cause, Engine, Event, Evidence, Experiment, Failure, Outcome, Phase, Plan, ProcessId, Stamped, StartPhase,
    StartStep, TeardownProof, Timings,
};
use crate::plan::fixture::{axis, grid};
use crate::plan::{Sweep, expand};
use crate::record::{FailureRecord, Limits, Manifest, ResultMeta, ResultRecord, RunDir, SCHEMA, VllmInfo, atomic};

/// A result as vLLM 0.14.1 wrote it.
pub const SAMPLE: &str = include_str!("vllm_bench_serve_0.14.1.json");

/// A result of 16 prompts with these metrics.
pub fn result(model: &str, request_throughput: f64, ttft: f64) -> Map<String, Value> {
    let mut result: Map<String, Value> = serde_json::from_str(SAMPLE).unwrap();
    result.insert("model_id".into(), json!(model));
    result.insert("request_throughput".into(), json!(request_throughput));
    result.insert("output_throughput".into(), json!(request_throughput * 32.0));
    // In accord with the rates: 16 requests with 32 tokens each.
    let duration = 16.0 / request_throughput;
    let tokens = result["total_input_tokens"].as_f64().unwrap() + result["total_output_tokens"].as_f64().unwrap();
    result.insert("duration".into(), json!(duration));
    result.insert("total_token_throughput".into(), json!(tokens / duration));
    // Medians, deviations and percentiles go with their mean.
    for (latency, mean) in [("ttft", ttft), ("tpot", ttft / 10.0)] {
        let scale = mean / result[&format!("mean_{latency}_ms")].as_f64().unwrap();
        for statistic in ["mean", "median", "std", "p99"] {
            let value = result.get_mut(&format!("{statistic}_{latency}_ms")).unwrap();
            *value = json!((value.as_f64().unwrap() * scale * 1e4).round() / 1e4);
        }
    }
    result
}

/// A run directory under construction.
pub struct Fixture {
    _temporary: tempfile::TempDir,
    pub dir: RunDir,
    pub plan: Plan,
    engine: Engine,
    entries: Vec<Stamped>,
}

impl Fixture {
    pub fn new(models: &[&str], tensor_parallel_sizes: &[u32], engine: Engine) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("20260225_1430");
        for folder in ["logs", "scripts"] {
            std::fs::create_dir_all(path.join(folder)).unwrap();
        }
        let plan = expand(&sweep(models, tensor_parallel_sizes, engine));
        atomic::write_json(&path.join("manifest.json"), &manifest(&plan, engine)).unwrap();
        let mut fixture =
            Self { _temporary: temporary, dir: RunDir::open(&path).unwrap(), plan, engine, entries: Vec::new() };
        let planned = fixture.plan.experiments.len();
        let process = ProcessId { pid: 1, start_time: 1 };
        fixture.event(0, Event::RunStarted { process, simulated: false, resumed: false, planned, pending: planned });
        fixture
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn experiment(&self, i: usize) -> Experiment {
        self.plan.experiments[i].clone()
    }

    pub fn result_path(&self, i: usize) -> PathBuf {
        self.dir.layout().result(&self.plan.experiments[i].name)
    }

    /// Notes an event, so many seconds after the beginning.
    pub fn event(&mut self, second: u32, event: Event) {
        let at = format!("2026-02-25T{:02}:{:02}:{:02}.000+02:00", 14 + second / 3600, second / 60 % 60, second % 60);
        self.entries.push(Stamped { v: SCHEMA, seq: self.entries.len() as u64 + 1, at, event });
    }

    pub fn start(&mut self, i: usize) {
        let name = self.plan.experiments[i].name.clone();
        self.event(1, Event::ExperimentStarted { index: i + 1, name, attempt: 1, axes: None, placement: None });
    }

    pub fn finish(&mut self, i: usize, outcome: Outcome) {
        let name = self.plan.experiments[i].name.clone();
        self.event(
            2,
            Event::ExperimentFinished {
                index: i + 1,
                name,
                attempt: 1,
                outcome,
                timings: timings(i),
                metrics: Default::default(),
            },
        );
    }

    /// A valid result.
    pub fn pass(&mut self, i: usize, request_throughput: f64, ttft: f64) {
        let experiment = self.experiment(i);
        let mut vllm = result(&experiment.axes.model, request_throughput, ttft);
        // Prompts as long as the plan asks for.
        if let Some(length) = experiment.workload.flags.get_text("random-input-len") {
            let tokens = 16.0 * length.parse::<f64>().unwrap();
            let all = tokens + vllm["total_output_tokens"].as_f64().unwrap();
            vllm.insert("total_input_tokens".into(), json!(tokens as u64));
            vllm.insert("total_token_throughput".into(), json!(all / vllm["duration"].as_f64().unwrap()));
        }
        let record = ResultRecord { vllm, vllm_bench: Some(self.meta(i)) };
        record.write(&self.result_path(i)).unwrap();
        self.start(i);
        self.finish(i, Outcome::Passed { headline: crate::model::Headline::default() });
    }

    pub fn meta(&self, i: usize) -> ResultMeta {
        let experiment = self.experiment(i);
        ResultMeta {
            schema: SCHEMA,
            simulated: self.engine == Engine::Sim,
            name: experiment.name,
            identity: experiment.identity,
            attempt: 1,
            axes: experiment.axes,
            engine: self.engine,
            client: experiment.workload.client,
            vllm_version: (self.engine == Engine::Vllm).then(|| "0.14.1".into()),
            serve: experiment.server.flags,
            env: experiment.server.env,
            bench: experiment.workload.flags,
            serve_command: vec!["vllm".into(), "serve".into()],
            bench_command: vec!["vllm".into(), "bench".into(), "serve".into()],
            started: "2026-02-25T14:30:01+02:00".into(),
            timings: timings(i),
            teardown: Some(TeardownProof { group_empty: Some(true), ..TeardownProof::default() }),
            repeat: experiment.repeat,
            on_start: 1,
            isolation: experiment.isolation,
            prefix_cache: None,
            preemptions: None,
            shared_with: Vec::new(),
            telemetry: None,
            groups: experiment.groups.clone(),
            baseline: experiment.baseline,
            server_log: None,
            server_log_span: None,
            placement: None,
            neighbours: None,
        }
    }

    /// A failure file, and the journal's word for it.
    pub fn fail(&mut self, i: usize, summary: &str, evidence: &str) {
        let experiment = self.experiment(i);
        let failure = failure(summary, evidence);
        let record = FailureRecord {
            schema: SCHEMA,
            simulated: self.engine == Engine::Sim,
            name: experiment.name.clone(),
            identity: experiment.identity,
            attempt: 1,
            axes: experiment.axes,
            failure: failure.clone(),
            started: "2026-02-25T14:30:01+02:00".into(),
            timings: timings(i),
            teardown: None,
            server_log: format!("logs/{}_server.log", experiment.name).into(),
            benchmark_log: None,
            invalid_result: None,
        };
        atomic::write_json(&self.dir.layout().failure(&experiment.name), &record).unwrap();
        std::fs::write(self.dir.path().join(&record.server_log), "").unwrap();
        self.start(i);
        self.finish(i, Outcome::Failed(failure));
    }

    /// Writes the journal.
    pub fn close(mut self, seconds: f64) -> Self {
        self.event(3, Event::RunFinished { passed: 0, failed: 0, skipped: 0, interrupted: false, seconds });
        self.write_journal();
        self
    }

    pub fn write_journal(&self) {
        let lines: Vec<String> = self.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        std::fs::write(self.dir.layout().journal(), lines.join("\n") + "\n").unwrap();
    }
}

pub fn failure(summary: &str, evidence: &str) -> Failure {
    Failure {
        evidence: vec![Evidence { line: 123, text: evidence.into() }],
        advice: vec!["read the last lines of the server's log; start the server by hand with its script".into()],
        ..Failure::plain(Cause::Crashed, Phase::Starting(StartPhase::Launching), summary.into())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a small index")]
fn timings(i: usize) -> Timings {
    Timings {
        startup: Some(30.5 + i as f64),
        startup_phases: vec![StartStep { phase: StartPhase::Launching, seconds: 1.0 }],
        benchmark: Some(60.25),
        teardown: Some(2.0),
        total: 93.0 + i as f64,
    }
}

fn sweep(models: &[&str], tensor_parallel_sizes: &[u32], engine: Engine) -> Sweep {
    let tps: Vec<String> = tensor_parallel_sizes.iter().map(ToString::to_string).collect();
    let mut sweep = grid(models, &tps.join(","), engine);
    let group = &mut sweep.groups[0];
    group.serve.splice(1..1, [axis("dtype", "bfloat16"), axis("max-model-len", "10000")]);
    let bench = [
        ("dataset-name", "random"),
        ("random-input-len", "1024"),
        ("random-output-len", "32"),
        ("ignore-eos", "true"),
        ("max-concurrency", "4"),
        ("num-prompts", "16"),
        ("num-warmups", "3"),
    ];
    group.bench = bench.map(|(key, value)| axis(key, value)).to_vec();
    sweep
}

fn manifest(plan: &Plan, engine: Engine) -> Manifest {
    Manifest {
        name: None,
        sweep: serde_json::Value::Null,
        schema: SCHEMA,
        vllm_bench: "0.1.0".into(),
        simulated: engine == Engine::Sim,
        run: "20260225_1430".into(),
        created: "2026-02-25T14:30:00+02:00".into(),
        timezone: "Asia/Jerusalem".into(),
        command_line: ["run", "--tp", "2", "4", "--models", "a model"].map(Into::into).into(),
        working_directory: "/root".into(),
        engine,
        vllm: (engine == Engine::Vllm).then(|| VllmInfo { path: "/opt/venv/bin/vllm".into(), version: None }),
        settings: IndexMap::new(),
        limits: Limits { startup: 300.0, startup_most: None, benchmark: 1800.0, stall: Some(120.0), grace: 30.0 },
        host: crate::telemetry::HostInfo::default(),
        devices: crate::telemetry::DeviceReport {
            kind: crate::telemetry::DeviceKind::Cpu,
            devices: Vec::new(),
            slots: 1,
            sources: Vec::new(),
            problems: Vec::new(),
        },
        plan: plan.clone(),
    }
}

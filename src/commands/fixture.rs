//! Run directories made by hand, for the tests of the commands around a run.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::model::ProcessId;
use crate::record::{Holder, Lock, RunDir, layout};

/// A run directory that grows as a test says.
pub struct Fixture {
    path: PathBuf,
}

impl Fixture {
    /// A run with three experiments, `a`, `b`, `c`, and one skip.
    pub fn new(results_dir: &Path, name: &str) -> Self {
        let fixture = Self { path: results_dir.join(name) };
        for folder in ["logs", "scripts"] {
            std::fs::create_dir_all(fixture.path.join(folder)).unwrap();
        }
        fixture.plan(&["a", "b", "c"]);
        fixture
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run as the code sees it.
    pub fn run(&self) -> RunDir {
        RunDir::open(&self.path).unwrap()
    }

    /// Other experiments.
    pub fn plan(&self, names: &[&str]) {
        let experiments: Vec<Value> =
            names.iter().enumerate().map(|(i, name)| json!({"index": i + 1, "name": name})).collect();
        self.write_manifest(
            &json!({
                "schema": 1, "vllm-bench": "0.1.0", "simulated": true, "run": "r",
                "created": "2026-02-25T14:30:00+02:00", "timezone": "Asia/Jerusalem",
                "limits": {"startup": 300.0, "benchmark": 1800.0, "grace": 30.0},
                "plan": {"experiments": experiments, "skips": [{"reason": "Skipping m tp=2 quant=fp8 eager=false (known failure)"}]},
            })
            .to_string(),
        );
    }

    /// Another moment of birth.
    pub fn created(&self, at: &str) {
        let text = std::fs::read_to_string(self.path.join("manifest.json")).unwrap();
        self.write_manifest(&text.replace("2026-02-25T14:30:00+02:00", at));
    }

    /// A name.
    pub fn name(&self, name: &str) {
        let text = std::fs::read_to_string(self.path.join("manifest.json")).unwrap();
        self.write_manifest(&text.replace(r#""run":"r""#, &format!(r#""run":"r","name":"{name}""#)));
    }

    /// Any manifest.
    pub fn write_manifest(&self, text: &str) {
        std::fs::write(self.path.join("manifest.json"), text).unwrap();
    }

    /// One journal entry, `second` seconds after 14:30:00.
    pub fn event(&self, second: u32, mut event: Value) -> &Self {
        let at = format!(
            "2026-02-25T{:02}:{:02}:{:02}.000+02:00",
            14 + (1800 + second) / 3600,
            (1800 + second) % 3600 / 60,
            second % 60
        );
        event["v"] = json!(1);
        event["at"] = json!(at);
        self.journal_bytes(format!("{event}\n").as_bytes())
    }

    /// Bytes at the end of the journal.
    pub fn journal_bytes(&self, bytes: &[u8]) -> &Self {
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(self.path.join("journal.jsonl")).unwrap();
        file.write_all(bytes).unwrap();
        self
    }

    /// A session begins.
    pub fn session(&self, second: u32, planned: usize) -> &Self {
        self.event(second, json!({"event": "run-started", "process": me(), "resumed": second > 0, "planned": planned, "pending": planned}))
    }

    /// An attempt begins, and its server is launched.
    pub fn begin(&self, second: u32, index: usize, name: &str) -> &Self {
        self.event(second, json!({"event": "experiment-started", "index": index, "name": name, "attempt": 1})).event(
            second,
            json!({"event": "server-launched", "name": name, "process": {"pid": 4300, "start-time": 7}, "port": 8000}),
        )
    }

    /// The benchmark client is launched.
    pub fn measure(&self, second: u32, name: &str) -> &Self {
        self.event(second, json!({"event": "phase-changed", "name": name, "now": {"phase": "measuring"}})).event(
            second,
            json!({"event": "benchmark-launched", "name": name, "process": {"pid": 4400, "start-time": 8}}),
        )
    }

    /// An attempt passed.
    pub fn pass(&self, second: u32, index: usize, name: &str, total: f64) -> &Self {
        self.finish(second, index, name, total, json!({"outcome": "passed", "headline": {}}))
    }

    /// An attempt failed.
    pub fn fail(&self, second: u32, index: usize, name: &str, total: f64) -> &Self {
        let failure = json!({
            "outcome": "failed", "cause": "crashed", "summary": "the server exited with code 1 while it was loading the weights",
            "phase": {"phase": "ready"}, "evidence": [], "advice": [], "log_tail": [],
        });
        self.finish(second, index, name, total, failure)
    }

    /// An attempt was interrupted.
    pub fn interrupt(&self, second: u32, index: usize, name: &str) -> &Self {
        self.finish(second, index, name, 3.0, json!({"outcome": "interrupted"}))
    }

    fn finish(&self, second: u32, index: usize, name: &str, total: f64, mut outcome: Value) -> &Self {
        outcome["event"] = json!("experiment-finished");
        outcome["index"] = json!(index);
        outcome["name"] = json!(name);
        outcome["attempt"] = json!(1);
        outcome["timings"] = json!({"total": total});
        self.event(second, outcome)
    }

    /// The run is over.
    pub fn over(&self, second: u32, interrupted: bool) -> &Self {
        self.event(second, json!({"event": "run-finished", "passed": 0, "failed": 0, "skipped": 1, "interrupted": interrupted, "seconds": f64::from(second)}))
    }

    /// Writes a log.
    pub fn log(&self, file: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path.join("logs").join(file);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn me() -> Value {
    serde_json::to_value(ProcessId::current()).unwrap()
}

/// Who holds the lock of a fixture.
pub fn holder(fixture: &Fixture) -> Holder {
    Holder {
        process: ProcessId::current(),
        user: "ana".into(),
        since: "2026-02-25 14:30:00".into(),
        run: fixture.path().to_owned(),
    }
}

/// Makes a run live: this process holds the lock of its results directory.
pub fn hold(fixture: &Fixture) -> Lock {
    let path = layout::results_lock(fixture.path().parent().unwrap());
    let mut lock = Lock::take(&path).unwrap().unwrap();
    lock.sign(&path, &holder(fixture)).unwrap();
    lock
}

//! Results and failures of experiments.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::plausible::{self, ResultValues};
use super::{Error, atomic};
use crate::bounded::{self, NoObject, PythonJson};
use crate::model::{
    Axes, Client, Engine, Experiment, Failure, Flags, Identity, Isolation, Placement, PrefixCache, Repeat,
    TeardownProof, Telemetry, Timings,
};

/// Why the client's result does not count (rule 11 and beyond it).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The client wrote none.
    #[error("the benchmark client wrote no result")]
    Missing,
    /// It is not JSON, or not an object.
    #[error("the benchmark client's result is not a JSON object: {0}")]
    Unparsable(String),
    /// A key of vLLM's result is not there, or not a number.
    #[error("the benchmark client's result has no number under `{0}`")]
    NoKey(&'static str),
    /// No request succeeded.
    #[error("no request was completed ({failed} failed)")]
    NoneCompleted {
        /// Failed requests.
        failed: u64,
    },
    /// Some requests failed.
    #[error("{failed} of {} requests failed", failed.saturating_add(*completed))]
    SomeFailed {
        /// Failed requests.
        failed: u64,
        /// Completed requests.
        completed: u64,
    },
    /// Fewer or more requests than asked for.
    #[error("{completed} requests were completed, {asked} were asked for")]
    Count {
        /// Completed requests.
        completed: u64,
        /// Prompts asked for.
        asked: u64,
    },
    /// A value that cannot be.
    #[error("the result cannot be: {0}")]
    Impossible(String),
}

/// Whether the client's result, of which `values` knows the top level, counts: `completed` > 0, `failed` == 0, as many completed as
/// prompts asked for, and nothing in it that cannot be ([`plausible`]).
///
/// # Errors
/// The first reason why it does not.
pub fn validate(values: &impl ResultValues, num_prompts: Option<u64>) -> Result<(), Invalid> {
    validate_with(values, num_prompts, &["request_throughput", "output_throughput", "mean_ttft_ms", "mean_tpot_ms"])
}

/// As [`validate`], for a program that writes other metrics than vLLM: only the named ones must be there.
///
/// # Errors
/// As [`validate`].
pub fn validate_with(
    values: &impl ResultValues,
    num_prompts: Option<u64>,
    needed: &[&'static str],
) -> Result<(), Invalid> {
    let value = |key: &str| values.value(key);
    let count = |key: &'static str| value(key).and_then(Value::as_u64).ok_or(Invalid::NoKey(key));
    let completed = count("completed")?;
    let failed = match value("failed") {
        None => 0,
        Some(_) => count("failed")?,
    };
    if completed == 0 {
        return Err(Invalid::NoneCompleted { failed });
    }
    if failed > 0 {
        return Err(Invalid::SomeFailed { failed, completed });
    }
    if let Some(asked) = num_prompts
        && asked != completed
    {
        return Err(Invalid::Count { completed, asked });
    }
    for key in needed {
        if !values.number(key).is_some_and(f64::is_finite) && !plausible::is_not_known(values.value(key)) {
            return Err(Invalid::NoKey(key));
        }
    }
    plausible::impossible(values).map_or(Ok(()), |what| Err(Invalid::Impossible(what)))
}

/// Ours in a result file, under the key `vllm_bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultMeta {
    /// Format version.
    pub schema: u32,
    /// True where the simulated vLLM yielded the metrics.
    pub simulated: bool,
    /// Name of the experiment.
    pub name: String,
    /// Its identity: a resume takes a result for no other.
    pub identity: Identity,
    /// Which attempt yielded it, from 1.
    pub attempt: u32,
    /// The grid values.
    pub axes: Axes,
    /// What played vLLM.
    pub engine: Engine,
    /// What drove the load.
    #[serde(default, skip_serializing_if = "Client::is_vllm")]
    pub client: Client,
    /// vLLM's version as its log says.
    pub vllm_version: Option<String>,
    /// Flags of `vllm serve`.
    pub serve: Flags,
    /// Environment set by the plan, without secrets.
    pub env: std::collections::BTreeMap<String, String>,
    /// Flags of `vllm bench serve`.
    pub bench: Flags,
    /// The server's command line as run.
    pub serve_command: Vec<String>,
    /// The client's command line as run.
    pub bench_command: Vec<String>,
    /// When the attempt began, in the run's time zone (RFC 3339).
    pub started: String,
    /// Where the time went, in seconds.
    pub timings: Timings,
    /// What was seen after the server was ended; absent where it went on to serve another measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<TeardownProof>,
    /// Which measurement of these settings.
    #[serde(default)]
    pub repeat: Repeat,
    /// The ordinal of the measurement on its server start, from 1.
    #[serde(default = "first")]
    pub on_start: u32,
    /// What kept the prefix cache out of the metrics.
    #[serde(default)]
    pub isolation: Isolation,
    /// What the server's counters say of its prefix cache over the measurement; absent where it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_cache: Option<PrefixCache>,
    /// Requests that the server began again during the measurement, by its counter; absent where it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptions: Option<f64>,
    /// Who else used the devices before it or after it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<String>,
    /// What devices and host did meanwhile, where they were sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// The named groups that ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether others are compared with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    /// The server's log, relative to the run directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_log: Option<PathBuf>,
    /// Which bytes of it were written during the measurement, from and up to: a log may serve several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_log_span: Option<[u64; 2]>,
    /// Where it ran, in a run with lanes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Other blocks of its run that were under way while it was measured, the most at a time: 0 = it was alone. Absent in a run
    /// without lanes, where it always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<u32>,
}

impl ResultMeta {
    /// What it says of itself that is not so of the experiment whose identity it names: it was edited, or is a copy of another's.
    /// `None` where all fits.
    pub fn contradiction(&self, experiment: &Experiment) -> Option<String> {
        let key = if self.name != experiment.name {
            "name"
        } else if self.axes != experiment.axes {
            "axes"
        } else if self.serve != experiment.server.flags {
            "serve"
        } else if self.bench != experiment.workload.flags {
            "bench"
        } else {
            return None;
        };
        Some(format!(
            "its `vllm_bench.{key}` is not that of the experiment whose identity it has: it was edited, or copied"
        ))
    }
}

/// In files of version 0.1 every measurement is the first on its server.
fn first() -> u32 {
    1
}

/// A result file: vLLM's keys on top, ours under `vllm_bench`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// vLLM's keys, in vLLM's order.
    #[serde(flatten)]
    pub vllm: Map<String, Value>,
    /// Ours; absent in files of other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_bench: Option<ResultMeta>,
}

impl ResultRecord {
    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        atomic::keep_json(path, self)
    }

    /// Reads a record; a large one without the arrays of its requests.
    ///
    /// # Errors
    /// When the file cannot be read or is not a result.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |source| Error::Parse { path: path.to_owned(), what: "benchmark result", source };
        let mut vllm = match bounded::read_object(path, &[OURS]) {
            Ok(object) => object,
            Err(NoObject::Io(source)) => return Err(Error::read(path)(source)),
            Err(NoObject::Json(source)) => return Err(wrong(source)),
        };
        let ours = vllm.shift_remove(OURS).filter(|ours| !ours.is_null());
        Ok(Self { vllm, vllm_bench: ours.map(serde_json::from_value).transpose().map_err(wrong)? })
    }

    /// Writes the record with all that the client wrote into the file `client`, however large: it is copied, and our part put
    /// behind it.
    ///
    /// # Errors
    /// When the disk refuses, or the client's file is no JSON object any more.
    pub fn write_behind(&self, client: &Path, path: &Path) -> Result<(), Error> {
        let file = bounded::open(client).map_err(Error::read(client))?;
        let ours = serde_json::to_vec(&self.vllm_bench).map_err(|error| Error::write(path)(error.into()))?;
        let end = last_bracket(&file).map_err(Error::read(client))?;
        atomic::write_with(path, |out| {
            io::copy(&mut PythonJson::new((&file).take(end)), out)?;
            out.write_all(b", \"vllm_bench\": ")?;
            out.write_all(&ours)?;
            out.write_all(b"}\n")
        })
    }

    /// Whether this is a valid result of exactly this experiment.
    pub fn counts_for(&self, identity: &Identity, repeat: Repeat, num_prompts: Option<u64>) -> bool {
        self.vllm_bench.as_ref().is_some_and(|meta| meta.identity == *identity && meta.repeat == repeat)
            && validate(&self.vllm, num_prompts).is_ok()
    }
}

/// The key of our own part.
const OURS: &str = "vllm_bench";

/// Where the last `}` of a JSON object stands. The file is at its beginning afterwards.
fn last_bracket(mut file: &File) -> io::Result<u64> {
    const BLANKS: u64 = 4096;
    let size = file.metadata()?.len();
    let begin = size.saturating_sub(BLANKS);
    file.seek(SeekFrom::Start(begin))?;
    let mut end = Vec::new();
    file.take(BLANKS).read_to_end(&mut end)?;
    file.rewind()?;
    let at = end.iter().rposition(|byte| *byte == b'}').ok_or_else(|| io::Error::other("it is no JSON object"))?;
    Ok(begin + at as u64)
}

/// `{name}_failure.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Format version.
    pub schema: u32,
    /// True where the simulated vLLM failed, not a real one.
    pub simulated: bool,
    /// Name of the experiment.
    pub name: String,
    /// Its identity.
    pub identity: Identity,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The grid values.
    pub axes: Axes,
    /// Cause, evidence, advice, phase, exit status, last log lines.
    #[serde(flatten)]
    pub failure: Failure,
    /// When the attempt began, in the run's time zone (RFC 3339).
    pub started: String,
    /// Where the time went, in seconds.
    pub timings: Timings,
    /// What was seen after the server was ended; absent where none was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teardown: Option<TeardownProof>,
    /// The server's log, relative to the run directory.
    pub server_log: PathBuf,
    /// The client's log, relative to the run directory; absent where the client was not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark_log: Option<PathBuf>,
    /// The client's result that does not count, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_result: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(mut change: impl FnMut(&mut Map<String, Value>), expected: Result<(), Invalid>) {
        let mut result = json!({
            "completed": 4, "failed": 0, "request_throughput": 1.0, "output_throughput": 2.0,
            "mean_ttft_ms": 3.0, "mean_tpot_ms": 4.0
        });
        change(result.as_object_mut().unwrap());
        assert_eq!(validate(result.as_object().unwrap(), Some(4)), expected);
    }

    #[test]
    fn counts_that_nobody_can_add_up_are_told_all_the_same() {
        let told = Invalid::SomeFailed { failed: u64::MAX, completed: 4 }.to_string();
        assert_eq!(told, "18446744073709551615 of 18446744073709551615 requests failed");
    }

    #[test]
    fn rule_11_only_a_complete_result_counts() {
        check(|_| (), Ok(()));
        check(|r| r["completed"] = json!(0), Err(Invalid::NoneCompleted { failed: 0 }));
        check(|r| r["failed"] = json!(1), Err(Invalid::SomeFailed { failed: 1, completed: 4 }));
        check(|r| r["completed"] = json!(3), Err(Invalid::Count { completed: 3, asked: 4 }));
        check(|r| r["completed"] = json!("4"), Err(Invalid::NoKey("completed")));
        check(|r| r["failed"] = json!(null), Err(Invalid::NoKey("failed")));
        check(|r| r["mean_ttft_ms"] = json!(null), Err(Invalid::NoKey("mean_ttft_ms")));
        check(|r| drop(r.remove("failed")), Ok(()));
        // What a client could not compute (Python's NaN) discards no result; a key that is not there does.
        check(|r| r["mean_tpot_ms"] = json!("NaN"), Ok(()));
        check(|r| r["completed"] = json!("NaN"), Err(Invalid::NoKey("completed")));
        check(|r| r["mean_ttft_ms"] = json!("fast"), Err(Invalid::NoKey("mean_ttft_ms")));
        let what = "`mean_ttft_ms` is -25: no request takes such a time in milliseconds";
        check(|r| r["mean_ttft_ms"] = json!(-25.0), Err(Invalid::Impossible(what.into())));
    }
}

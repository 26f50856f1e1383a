//! The directory tree of the cluster sweep, for programs that read it: one folder per configuration, with its `stats.json`, the log
//! of its server, and what came of its job.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde_json::{Value, json};

use super::rows::{Line, classes};
use super::{Datatrove, Sweep};
use crate::analyse::{Status, short_settings};
use crate::bounded;
use crate::model::VllmMetric;
use crate::record::layout;
use crate::report::export::{Analysis, ExportError, Exporter, Format, Sink};

/// The files of the cluster sweep with the tree that its own programs read.
pub struct DatatroveTree;

impl Exporter<Analysis<'_>> for DatatroveTree {
    fn format(&self) -> Format {
        Datatrove.format()
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Datatrove.write(analysis, out)?;
        let found = Sweep::of(analysis)?;
        let mut used: HashMap<Vec<String>, usize> = HashMap::new();
        for (experiment, lines) in &found.experiments {
            for line in lines {
                let mut way = segments(experiment, line);
                let times = used.entry(way.clone()).and_modify(|times| *times += 1).or_insert(1);
                if let (true, Some(last)) = (*times > 1, way.last_mut()) {
                    // Its names do not say all that differs: nothing is overwritten.
                    last.push_str(&format!("_{times}"));
                }
                one(&way, line, out)?;
            }
        }
        Ok(())
    }
}

/// The folders of a configuration, from the experiment on.
fn segments(experiment: &str, line: &Line<'_>) -> Vec<String> {
    let words = short_settings(line.row);
    let value = |word: &str| words.iter().find(|(known, _)| *known == word).map_or("", |(_, value)| value.as_str());
    let model = line.row.axes.model.split_once('/').map_or(line.row.axes.model.as_str(), |(_, name)| name);
    let mut way = vec![experiment.to_owned(), line.prompt.clone(), model.replace('-', "_")];
    way.push(format!("tp{}-pp{}-dp{}", value("tp"), value("pp"), value("dp")));
    way.extend(["mns", "mnbt", "gmu", "bs", "kvc", "spec", "quant"].map(|word| format!("{word}_{}", value(word))));
    way
}

fn one(way: &[String], line: &Line<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
    let about = &line.row.about;
    if let Some(log) = &about.server_log {
        let path = about.directory.join(log);
        let copy = |file: &mut dyn Write| match bounded::open(&path) {
            Ok(mut log) => {
                let [from, to] = about.server_log_span.unwrap_or([0, u64::MAX]);
                log.seek(SeekFrom::Start(from))?;
                io::copy(&mut log.take(to.saturating_sub(from)), file).map(|_| ())
            }
            Err(_) => Ok(()),
        };
        out.file(|directory| layout::cluster::server_log(directory, way), copy)?;
    }
    if matches!(line.row.status, Status::Valid) {
        let stats = stats(line);
        let write = |file: &mut dyn Write| serde_json::to_writer_pretty(file, &stats).map_err(io::Error::from);
        out.file(|directory| layout::cluster::stats(directory, way), write)?;
    }
    let said = said(line);
    out.file(|directory| layout::cluster::job_log(directory, way), |file| file.write_all(said.as_bytes()))
}

/// `stats.json`, with what its programs look for.
fn stats(line: &Line<'_>) -> Value {
    let metric = |key: &str| line.metric(key);
    let number = |key: &str| metric(key).unwrap_or_default();
    let total = |key: &str, mean: &str| json!({"total": number(key), "mean": metric(mean)});
    json!([{
        "name": "vllm-bench: Model call",
        "time_stats": {"total": number("e2e_time"), "global_mean": number("e2e_time")},
        "stats": {
            "prompt_tokens": total("prompt_tokens_total", "mean_input_tokens"),
            "completion_tokens": total("completion_tokens_total", "mean_output_tokens"),
            "successful_requests": number("successful_requests"),
            "failed_requests": line.row.metrics.get(VllmMetric::Failed).unwrap_or_default(),
            "inference_time": {"total": number("inference_time")},
        },
    }])
}

/// What came of it, with the words by which its programs know a failure.
fn said(line: &Line<'_>) -> String {
    let mut text = format!("vllm-bench: {} of run {}: {}\n", line.row.name, line.row.about.run, line.comment());
    if let Status::Failed(failed) = &line.row.status {
        text.push_str(&format!("{}\n", failed.summary));
        for seen in &failed.evidence {
            text.push_str(&format!("{}\n", seen.text));
        }
        let word = failed.cause.and_then(classes).map(|word| match word {
            "OOM" => "OutOfMemoryError",
            "timeout" => "DUE TO TIME LIMIT",
            _ => "Failed to start VLLMServer server",
        });
        if let Some(word) = word {
            text.push_str(&format!("in the words of the cluster sweep: {word}\n"));
        }
    }
    text
}

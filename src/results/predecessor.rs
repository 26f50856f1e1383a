//! Directories of the Python predecessor: no manifest, the settings in the names of the files.
//!
//! Here, and only here, a file name is parsed: `{model}_tp{N}_quant-{q}_eager-{bool}_results.json`, from the right, so
//! that a model or a quantization may hold `_` and `tp`. What the name does not say stays unknown.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;

use crate::analyse::{
    About, Facts, FailedAttempt, Load, LoadValue, Origin, Row, RunTable, ShownAxes, Status, Unreadable, warnings_from,
};
use crate::record::{Error, Invalid, layout, validate};
use crate::results::intern::Shared;
use crate::results::parallel;
use crate::results::result_file;
use crate::results::result_file::{Members, Refusal, ResultFile};
use crate::results::shown;
use crate::results::signs::signs;

/// Bytes of results that are held so that a report need not read them again.
const MOST_HELD: usize = 32 << 20;

/// The result files of a directory, in order of their names.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn result_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    // Compared as names: paths would be taken apart for every comparison.
    let mut files: Vec<OsString> = std::fs::read_dir(dir)
        .map_err(Error::read(dir))?
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|file| layout::is_result(&shown(Path::new(file))))
        .collect();
    files.sort_unstable();
    Ok(files.into_iter().map(PathBuf::from).collect())
}

/// Whether a file's name is one of the predecessor's.
pub(super) fn is_named(file: &Path) -> bool {
    let name = shown(file);
    name.strip_suffix(layout::RESULT_SUFFIX).is_some_and(|stem| parse_name(stem).is_some())
}

/// Loads the result files of a directory that has no manifest.
pub(super) fn load(dir: &Path, files: &[PathBuf]) -> RunTable {
    let shared = Mutex::new(Shared::default());
    let read = parallel::map(files, |file, buffer| -> Result<Option<(Row, Option<String>)>, Refusal> {
        let Some(mut result) = result_file::read(&dir.join(file), buffer, Members::Copied)? else { return Ok(None) };
        let mut row = row(file, &result)?;
        shared.lock().unwrap_or_else(PoisonError::into_inner).share(&mut row);
        row.about.members = result.members.take();
        let version = result.meta.and_then(Result::ok).and_then(|meta| meta.vllm_version);
        Ok(Some((row, version)))
    });
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let run = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (name, directory): (Arc<str>, Arc<Path>) = (run.as_str().into(), dir.into());
    let mut rows = Vec::with_capacity(files.len());
    let mut unreadable = Vec::new();
    let mut versions: Vec<String> = Vec::new();
    let mut held = 0;
    for (file, read) in files.iter().zip(read) {
        match read {
            Ok(Some((mut row, version))) => {
                versions.extend(version.filter(|version| !versions.contains(version)));
                row.about.run = Arc::clone(&name);
                row.about.directory = Arc::clone(&directory);
                held += row.about.members.as_ref().map_or(0, |members| members.len());
                if held > MOST_HELD {
                    row.about.members = None;
                }
                rows.push(row);
            }
            Ok(None) => {}
            Err(Refusal { reason, lost }) => {
                unreadable.push(Unreadable { file: file.to_string_lossy().into_owned(), reason, lost });
            }
        }
    }
    RunTable {
        more: Vec::new(),
        simulated: rows.iter().any(|row| row.simulated),
        facts: Facts {
            created: layout::is_stamp(&run).then(|| run.clone()),
            vllm_versions: versions,
            ..Facts::bare(dir.to_owned(), run, Origin::Predecessor)
        },
        rows,
        unreadable,
    }
}

/// The row of one file.
pub(super) fn row(file: &Path, result: &ResultFile) -> Result<Row, Refusal> {
    if !result.metrics.contains_key("completed") {
        return Err(Refusal::foreign("not a benchmark result: it has no `completed`"));
    }
    let file_text = shown(file);
    let stem = file_text.strip_suffix(layout::RESULT_SUFFIX).unwrap_or(&file_text);
    let name = parse_name(stem);
    // A copy of one of our own results says itself what it is.
    let meta = match &result.meta {
        None => None,
        Some(Ok(meta)) => Some(meta),
        Some(Err(reason)) => return Err(Refusal::broken(reason.clone())),
    };
    let asked = match meta {
        Some(meta) => meta.bench.get_text("num-prompts").and_then(|text| text.parse().ok()),
        None => result.metrics.get("num_prompts").and_then(serde_json::Value::as_u64),
    };
    let status = match validate(&result.metrics, asked) {
        Ok(()) => Status::Valid,
        Err(invalid) => without_result(&invalid),
    };
    let valid = matches!(status, Status::Valid);
    let metrics = result.metrics();
    let axes = meta.map_or_else(|| axes(stem, name, result.text("model_id")), |meta| (&meta.axes).into());
    Ok(Row {
        metrics: if valid { metrics } else { metrics.counts_only() },
        simulated: meta.is_some_and(|meta| meta.simulated),
        identity: meta.map(|meta| meta.identity.clone()),
        attempt: meta.map(|meta| meta.attempt),
        timings: meta.map(|meta| meta.timings.clone()),
        load: Arc::new(if valid { load_of(result) } else { Load::default() }),
        server_name: stem.to_owned(),
        source: Some(file.to_owned()),
        // Its program sets no other size of parallelism.
        about: About {
            devices: name.map(|(_, tp, _, _)| tp),
            warnings: if valid { warnings_from(&signs(result, meta.map(AsRef::as_ref))) } else { Vec::new() },
            ..About::default()
        },
        ..Row::bare(stem.to_owned(), axes, status)
    })
}

/// The predecessor kept results of failed benchmarks under the results name: they are failures.
pub(super) fn without_result(invalid: &Invalid) -> Status {
    let summary = invalid.to_string();
    match invalid {
        Invalid::NoneCompleted { .. } | Invalid::SomeFailed { .. } | Invalid::Count { .. } => {
            Status::Failed(Box::new(FailedAttempt::of(summary)))
        }
        Invalid::Missing | Invalid::Unparsable(_) | Invalid::NoKey(_) | Invalid::Impossible(_) => {
            Status::Invalid(summary)
        }
    }
}

/// The grid values in a file's name. The slash that the name lost comes from the result's `model_id`, where the two
/// agree, and is not guessed otherwise.
pub(super) fn axes(stem: &str, name: Option<Parsed<'_>>, model_id: Option<String>) -> ShownAxes {
    let Some((model, tp, quantization, eager)) = name else {
        return ShownAxes::of_model(model_id.unwrap_or_else(|| stem.to_owned()));
    };
    ShownAxes {
        model: model_id.filter(|id| id.replace('/', "_") == model).unwrap_or_else(|| model.to_owned()),
        tensor_parallel_size: Some(tp),
        quantization: Some(quantization.to_owned()),
        enforce_eager: Some(eager),
        server: Vec::new(),
        workload: Vec::new(),
    }
}

/// Model, tensor parallel size, quantization, whether eager.
pub(super) type Parsed<'n> = (&'n str, u32, &'n str, bool);

pub(super) fn parse_name(stem: &str) -> Option<Parsed<'_>> {
    let (rest, eager) = stem.rsplit_once("_eager-")?;
    let eager = match eager {
        "true" | "True" => true,
        "false" | "False" => false,
        _ => return None,
    };
    let (rest, quantization) = rest.rsplit_once("_quant-")?;
    let (model, tp) = rest.rsplit_once("_tp")?;
    let digits = !tp.is_empty() && tp.bytes().all(|b| b.is_ascii_digit());
    let tp = tp.parse().ok().filter(|_| digits)?;
    (!model.is_empty() && !quantization.is_empty()).then_some((model, tp, quantization, eager))
}

/// The load as far as vLLM's result tells: it counts tokens, it does not say how many were asked for.
fn load_of(result: &ResultFile) -> Load {
    let mut load: IndexMap<String, LoadValue> = counted_load(result).into_iter().collect();
    for (flag, key) in [
        ("num-prompts", "num_prompts"),
        ("max-concurrency", "max_concurrency"),
        ("request-rate", "request_rate"),
        ("backend", "backend"),
    ] {
        load.extend(result.text(key).map(|value| (flag.to_owned(), LoadValue::Exact(value))));
    }
    Load(load)
}

/// Tokens per request, as they were counted.
pub(super) fn counted_load(result: &ResultFile) -> Vec<(String, LoadValue)> {
    let per_request = |key| Some(result.number(key)? / result.number("completed").filter(|count| *count > 0.0)?);
    [("random-input-len", "total_input_tokens"), ("random-output-len", "total_output_tokens")]
        .into_iter()
        .filter_map(|(flag, key)| Some((flag.to_owned(), LoadValue::About(per_request(key)?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::results::predecessor::*;

    #[test]
    fn trap_4_names_are_parsed_from_the_right() {
        for (stem, expected) in [
            ("Qwen_Qwen3-4B_tp2_quant-none_eager-true", Some(("Qwen_Qwen3-4B", 2, "none", true))),
            ("org_m_tp16_quant-gptq_marlin_eager-false", Some(("org_m", 16, "gptq_marlin", false))),
            ("org_tp5-mini_tp2_quant-fp8_eager-true", Some(("org_tp5-mini", 2, "fp8", true))),
            ("a_quant-x_eager-true_tp4_quant-fp8_eager-false", Some(("a_quant-x_eager-true", 4, "fp8", false))),
            ("org_m_tp2_quant-none", None),
            ("org_m_tp+2_quant-none_eager-true", None),
            ("org_m_tp99999999999_quant-none_eager-true", None),
            ("_tp2_quant-none_eager-true", None),
            ("org_m_quant-none_eager-true", None),
            ("org_m_tp2_quant-none_eager-maybe", None),
            ("", None),
        ] {
            assert_eq!(parse_name(stem), expected, "{stem}");
        }
    }

    #[test]
    fn trap_4_the_slash_comes_from_the_result_and_is_never_guessed() {
        let stem = "org_tp5-mini_tp2_quant-none_eager-true";
        let model = |id: Option<&str>| axes(stem, parse_name(stem), id.map(str::to_owned)).model;
        assert_eq!(model(Some("org/tp5-mini")), "org/tp5-mini");
        assert_eq!(model(Some("other/model")), "org_tp5-mini");
        assert_eq!(model(None), "org_tp5-mini");
    }
}

//! One result file, read with suspicion.
//!
//! A result may carry arrays of every request (`--save-detailed`, a hundred times the size of the rest): they are
//! passed over while reading, never kept.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::analyse::Metrics;
use crate::record::{ResultMeta, SCHEMA};

/// A result file beyond this size is not read.
const LARGEST: u64 = 1 << 30;

/// What a result file says.
#[derive(Debug)]
pub(super) struct ResultFile {
    /// vLLM's keys with a plain value, without arrays and objects.
    pub figures: Map<String, Value>,
    /// Ours: absent in files of other programs; `Err` where it is there and cannot be read.
    pub meta: Option<Result<Box<ResultMeta>, String>>,
    /// What our own load generator adds.
    pub load: Option<Value>,
}

impl ResultFile {
    /// A figure, where it is a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.figures.get(key).and_then(Value::as_f64)
    }

    /// A value in the spelling of the command line.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.figures.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Figures of vLLM's metrics beyond the fixed ones, such as `p95_ttft_ms`.
    pub fn percentiles(&self) -> std::collections::BTreeMap<String, f64> {
        let known = |key: &str| crate::analyse::Metric::ALL.into_iter().any(|metric| metric.key() == key);
        let named = |key: &str| ["_ttft_ms", "_tpot_ms", "_itl_ms", "_e2el_ms"].iter().any(|end| key.ends_with(end));
        let figures = self.figures.iter().filter(|(key, _)| named(key) && !known(key));
        figures.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect()
    }

    /// The figures under vLLM's names.
    pub fn metrics(&self) -> Metrics {
        Metrics::from_lookup(|key| self.number(key))
    }
}

/// Reads the text of a result file; `None` where there is none.
///
/// # Errors
/// Why it cannot be taken, in words that go after "the file is".
pub(in crate::report) fn read_text(path: &Path) -> Result<Option<String>, String> {
    // Not opened before its kind is known: opening a named pipe would wait for its writer.
    let size = match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err("not a regular file".into()),
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
        Err(error) => return Err(format!("not readable: {error}")),
    };
    if size > LARGEST {
        return Err(format!("larger than {} MiB", LARGEST >> 20));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
        .map_err(|error| format!("not readable: {error}"))?;
    if bytes.is_empty() {
        return Err("empty".into());
    }
    String::from_utf8(bytes).map(Some).map_err(|error| format!("not text: {}", error.utf8_error()))
}

/// Reads a result file; `None` where there is none.
///
/// # Errors
/// As [`read_text`]; and when it is not a JSON object.
pub(super) fn read(path: &Path) -> Result<Option<ResultFile>, String> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let Fields { figures, ours, load } = serde_json::from_str(&text).map_err(|error| json_reason(&error))?;
    Ok(Some(ResultFile { figures, meta: ours.map(read_meta), load }))
}

fn json_reason(error: &serde_json::Error) -> String {
    if error.is_eof() {
        format!("cut off: {error}")
    } else if error.is_data() {
        format!("not a JSON object: {error}")
    } else {
        format!("not JSON: {error}")
    }
}

fn read_meta(value: Value) -> Result<Box<ResultMeta>, String> {
    if let Some(schema) = value.get("schema").and_then(Value::as_u64).filter(|&schema| schema > u64::from(SCHEMA)) {
        return Err(format!("of format version {schema}; this vllm-bench reads up to {SCHEMA}"));
    }
    serde_json::from_value(value)
        .map(Box::new)
        .map_err(|error| format!("not readable in its `vllm_bench` part: {error}"))
}

/// The top level of a result file.
struct Fields {
    figures: Map<String, Value>,
    ours: Option<Value>,
    load: Option<Value>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;
        impl<'de> Visitor<'de> for TopLevel {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields { figures: Map::new(), ours: None, load: None };
                while let Some(key) = map.next_key::<String>()? {
                    if key == "vllm_bench" {
                        fields.ours = Some(map.next_value()?);
                    } else if key == "vllm_bench_load" {
                        fields.load = Some(map.next_value()?);
                    } else if let Plain(Some(value)) = map.next_value()? {
                        fields.figures.insert(key, value);
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(TopLevel)
    }
}

/// A value, unless it is an array or an object.
struct Plain(Option<Value>);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Plain;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Plain, E> {
                Ok(Plain(Some(Value::Null)))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(Some(value.into())))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain(Some(value.into())))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain(Some(value.into())))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain(Some(value.into())))
            }
            fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
                Ok(Plain(Some(value.into())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plain, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Plain(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Plain, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Plain(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(content: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        std::fs::write(&path, content).unwrap();
        read(&path).unwrap_err()
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        assert_eq!(reason(b""), "empty");
        assert_eq!(reason(b"{\"a\": [1, 2"), "cut off: EOF while parsing a list at line 1 column 11");
        assert_eq!(reason(b"[]"), "not a JSON object: invalid type: sequence, expected an object at line 1 column 0");
        assert_eq!(reason(b"{\"a\": NaN}"), "not JSON: expected value at line 1 column 7");
        assert_eq!(reason(b"{\"a\": 1e999}"), "not JSON: number out of range at line 1 column 11");
        assert_eq!(reason(b"\xff\xfe"), "not text: invalid utf-8 sequence of 1 bytes from index 0");
        assert!(reason("[".repeat(100_000).as_bytes()).starts_with("not a JSON object"));
        assert!(reason(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).starts_with("cut off"));
    }

    #[test]
    fn a_pipe_under_the_name_of_a_result_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path).unwrap_err(), "not a regular file");
        assert!(read(&dir.path().join("absent")).unwrap().is_none());
    }

    #[test]
    fn arrays_of_requests_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x_results.json");
        std::fs::write(&path, r#"{"completed": 2, "ttfts": [0.1, [2]], "x": {"a": {}}, "backend": "openai"}"#).unwrap();
        let file = read(&path).unwrap().unwrap();
        assert_eq!(file.figures.keys().collect::<Vec<_>>(), ["completed", "backend"]);
        assert!(file.meta.is_none());
    }
}

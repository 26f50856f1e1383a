//! `raw_results.json`: every result that can be read, in one list of `{filename, config, data}`.
//!
//! The files are copied through one by one, as they are: memory is that of the largest, and no digit changes.

use std::io::{self, Write};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::json;

use super::csv::status;
use super::load::read_text;
use crate::analyse::{Row, RunTable};

/// Writes the list, in the order of the rows.
///
/// # Errors
/// When the writer refuses.
pub(super) fn write(run: &Path, table: &RunTable, out: &mut dyn Write) -> io::Result<()> {
    let mut separator = "\n";
    out.write_all(b"[")?;
    for row in &table.rows {
        let Some(source) = &row.source else { continue };
        // Gone or changed since the table was made: the others are still worth having.
        let Ok(Some(text)) = read_text(&run.join(source)) else { continue };
        if serde_json::from_str::<IgnoredAny>(&text).is_err() {
            continue;
        }
        out.write_all(separator.as_bytes())?;
        separator = ",\n";
        write!(out, "{{\n\"filename\": {},\n", json!(source.to_string_lossy()))?;
        write!(out, "\"config\": {},\n\"data\": ", config(row))?;
        out.write_all(text.trim().as_bytes())?;
        out.write_all(b"\n}")?;
    }
    out.write_all(b"\n]\n")
}

/// The settings of a result, and whether it counts.
fn config(row: &Row) -> serde_json::Value {
    let mut config = json!({
        "model": row.axes.model,
        "tp": row.axes.tensor_parallel_size,
        "quant": row.axes.quantization,
        "eager": row.axes.enforce_eager,
        "status": status(&row.status),
        "simulated": row.simulated,
        "identity": row.identity,
    });
    for (key, value) in &row.axes.server {
        config[format!("serve.{key}")] = json!(value);
    }
    for (key, value) in &row.axes.workload {
        config[format!("bench.{key}")] = json!(value);
    }
    if let Some(repeat) = row.repeat {
        (config["start"], config["run"]) = (json!(repeat.start), json!(repeat.run));
    }
    if row.baseline {
        config["baseline"] = json!(true);
    }
    config
}

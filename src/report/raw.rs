//! `raw_results.json`: every result that can be read, in one list of `{filename, config, data}`.
//!
//! The values are copied as they stand in the files: no digit changes. What a result says of every single request
//! (`--save-detailed`) is left out, and `left_out` names it: the files themselves hold it, and copies of all would be as
//! large as all of them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::json;

use super::csv::status;
use super::load::{Keep, Member, Scanner, Stop, in_parallel};
use crate::analyse::{Row, RunTable};

/// What vLLM's client says of every request.
const OF_REQUESTS: [&str; 9] = [
    "input_lens",
    "output_lens",
    "ttfts",
    "itls",
    "latencies",
    "start_times",
    "queue_times",
    "generated_texts",
    "errors",
];
/// Another array or object beyond this size is left out too.
const LARGEST: usize = 256 << 10;
/// Files whose text is held at once.
const PORTION: usize = 256;

/// Writes the list, in the order of the rows.
///
/// # Errors
/// When the writer refuses.
pub(super) fn write(run: &Path, table: &RunTable, out: &mut dyn Write) -> io::Result<()> {
    let mut separator: &[u8] = b"\n";
    out.write_all(b"[")?;
    // Results of one file stand together; each file is read once.
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.source.is_some()).collect();
    let files: Vec<&[&Row]> =
        rows.chunk_by(|a, b| a.source == b.source && a.about.directory == b.about.directory).collect();
    for portion in files.chunks(PORTION) {
        for entry in in_parallel(portion, |rows, buffer| entries(run, rows, buffer)).into_iter().flatten() {
            out.write_all(separator)?;
            separator = b",\n";
            out.write_all(&entry)?;
        }
    }
    out.write_all(b"\n]\n")
}

/// The entries of the rows of one file.
fn entries(run: &Path, rows: &[&Row], buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let Some((source, directory)) = rows.first().and_then(|row| Some((row.source.as_ref()?, &row.about.directory)))
    else {
        return entries;
    };
    let directory = if directory.as_os_str().is_empty() { run } else { directory };
    // Gone or changed since the table was made: the others are still worth having.
    let Ok(file) = File::open(directory.join(source)) else { return entries };
    let mut scanner = Scanner::new(file, buffer);
    let mut next = 0;
    for row in rows {
        let wanted = row.about.part.unwrap_or(0);
        let mut data = None;
        while next <= wanted {
            data = scanner.another().and_then(|another| if another { copy(&mut scanner) } else { Err(Stop::Odd) }).ok();
            if data.is_none() {
                return entries;
            }
            next += 1;
        }
        let Some((data, left_out)) = data else { continue };
        let mut entry = Vec::with_capacity(data.len() + 512);
        let filename = json!(source.to_string_lossy());
        entry.extend_from_slice(format!("{{\n\"filename\": {filename},\n\"config\": {},\n", config(row)).as_bytes());
        if !left_out.is_empty() {
            entry.extend_from_slice(format!("\"left_out\": {},\n", json!(left_out)).as_bytes());
        }
        entry.extend_from_slice(b"\"data\": {");
        entry.extend_from_slice(&data);
        entry.extend_from_slice(b"\n}\n}");
        entries.push(entry);
    }
    entries
}

/// The members of the next object, and the names of those that are left out.
fn copy(scanner: &mut Scanner<'_, File>) -> Result<(Vec<u8>, Vec<String>), Stop> {
    let (mut data, mut left_out) = (Vec::new(), Vec::new());
    scanner.object(
        |key| if OF_REQUESTS.contains(&key) { Keep::Nothing } else { Keep::UpTo(LARGEST) },
        |key, member| {
            match member {
                // What was passed over while loading has never been parsed.
                Member::Compound(text) if serde_json::from_str::<IgnoredAny>(text).is_err() => {
                    left_out.push(key.to_owned());
                }
                Member::Plain(text) | Member::Compound(text) => {
                    data.extend_from_slice(if data.is_empty() { b"\n  " } else { b",\n  " });
                    serde_json::to_writer(&mut data, key).map_err(|_| Stop::Odd)?;
                    data.extend_from_slice(b": ");
                    data.extend_from_slice(text.as_bytes());
                }
                Member::PassedOver => left_out.push(key.to_owned()),
            }
            Ok(())
        },
    )?;
    Ok((data, left_out))
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

//! `raw_results.json`: every result that can be read, in one list of `{filename, config, data}`.
//!
//! The values are copied as they stand in the files: no digit changes. What a result says of every single request
//! (`--save-detailed`) is left out, and `left_out` names it: the files themselves hold it, and copies of all would be as
//! large as all of them.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::de::IgnoredAny;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::cells::status;
use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{Row, RunTable};
use crate::results::{Keep, Member, Scanner, Stop, in_parallel, put_member};
use crate::results::{OF_REQUESTS, shown};

/// Another array or object beyond this size is left out too.
const LARGEST: usize = 256 << 10;
/// Files whose text is held at once.
const PORTION: usize = 256;

/// All results.
pub struct RawResults;

impl Exporter<Analysis<'_>> for RawResults {
    fn format(&self) -> Format {
        Format::one("raw-results", "Every result in one list", "json")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(write(analysis.table, out)?)
    }
}

/// Writes the list, in the order of the rows.
fn write(table: &RunTable, out: &mut dyn Write) -> io::Result<()> {
    let run = &table.facts.directory;
    let mut separator: &[u8] = b"\n";
    out.write_all(b"[")?;
    // Results of one file stand together; each file is read once.
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.source.is_some()).collect();
    let files: Vec<&[&Row]> =
        rows.chunk_by(|a, b| file_of(a) == file_of(b) && a.about.directory == b.about.directory).collect();
    let mut put = |entry: Vec<u8>| {
        out.write_all(separator)?;
        separator = b",\n";
        out.write_all(&entry)
    };
    for portion in files.chunks(PORTION) {
        // Threads are for reading: what is in memory is written by this one.
        if portion.iter().all(|rows| held(rows).is_some()) {
            portion.iter().flat_map(|rows| entries(run, rows, &mut Vec::new())).try_for_each(&mut put)?;
        } else {
            in_parallel(portion, |rows, buffer| entries(run, rows, buffer)).flatten().try_for_each(&mut put)?;
        }
    }
    out.write_all(b"\n]\n")
}

/// The row of a file whose text is in memory.
fn held<'r>(rows: &[&'r Row]) -> Option<(&'r Row, &'r [u8])> {
    match rows {
        [row] => Some((row, row.about.members.as_deref()?)),
        _ => None,
    }
}

/// The entries of the rows of one file.
fn entries(run: &Path, rows: &[&Row], buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    let Some((source, directory)) = rows.first().and_then(|row| Some((row.source.as_ref()?, &row.about.directory)))
    else {
        return entries;
    };
    if let Some((row, members)) = held(rows) {
        return vec![entry(row, source, members, &[])];
    }
    let directory = if directory.as_os_str().is_empty() { run } else { directory };
    // Gone or changed since the table was made: the others are still worth having.
    let Ok(file) = crate::bounded::open(&directory.join(source)) else { return entries };
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
        entries.push(entry(row, source, &data, &left_out));
    }
    entries
}

/// Names are compared as texts: two paths would be taken apart.
fn file_of(row: &Row) -> Option<&OsStr> {
    row.source.as_ref().map(|source| source.as_os_str())
}

/// One entry of the list.
fn entry(row: &Row, source: &Path, data: &[u8], left_out: &[String]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(data.len() + 512);
    entry.extend_from_slice(b"{\n\"filename\": ");
    put_json(&mut entry, &*shown(source));
    entry.extend_from_slice(b",\n\"config\": ");
    put_json(&mut entry, &Config(row));
    entry.extend_from_slice(b",\n");
    if !left_out.is_empty() {
        entry.extend_from_slice(b"\"left_out\": ");
        put_json(&mut entry, left_out);
        entry.extend_from_slice(b",\n");
    }
    entry.extend_from_slice(b"\"data\": {");
    entry.extend_from_slice(data);
    entry.extend_from_slice(b"\n}\n}");
    entry
}

/// Writes a value; `null` for one that JSON does not know, which none of these is.
fn put_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let begun = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(begun);
        out.extend_from_slice(b"null");
    }
}

/// The members of the next object, and the names of those that are left out.
fn copy(scanner: &mut Scanner<'_, impl Read>) -> Result<(Vec<u8>, Vec<String>), Stop> {
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
                    put_member(&mut data, key, text)?;
                }
                Member::PassedOver => left_out.push(key.to_owned()),
            }
            Ok(())
        },
    )?;
    Ok((data, left_out))
}

/// The settings of a result, and whether it counts.
struct Config<'r>(&'r Row);

impl Serialize for Config<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(row) = self;
        let axes = &row.axes;
        let mut config = serializer.serialize_map(None)?;
        config.serialize_entry("model", &axes.model)?;
        config.serialize_entry("tp", &axes.tensor_parallel_size)?;
        config.serialize_entry("quant", &axes.quantization)?;
        config.serialize_entry("eager", &axes.enforce_eager)?;
        config.serialize_entry("status", status(&row.status))?;
        config.serialize_entry("simulated", &row.simulated)?;
        config.serialize_entry("identity", &row.identity)?;
        for (key, value) in &axes.server {
            config.serialize_entry(&format!("serve.{key}"), value)?;
        }
        for (key, value) in &axes.workload {
            config.serialize_entry(&format!("bench.{key}"), value)?;
        }
        if let Some(repeat) = row.repeat {
            config.serialize_entry("start", &repeat.start)?;
            config.serialize_entry("run", &repeat.run)?;
        }
        if row.baseline {
            config.serialize_entry("baseline", &true)?;
        }
        config.end()
    }
}

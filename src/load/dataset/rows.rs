//! Rows of a file: JSONL, JSON, CSV, parquet, or the lines of a text.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use super::Error;

/// One row: column to value.
pub type Row = Map<String, Value>;

/// A row and the line it stands on, from 1, where lines mean something.
pub type Placed = (Option<u64>, Row);

/// The longest line that is read.
const MOST_LINE: u64 = 64 << 20;

/// Reads a whole file by what its name ends with; without a known ending, by how it begins.
///
/// # Errors
/// When it cannot be read, or a row of it is none.
pub fn read(path: &Path) -> Result<Vec<Placed>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    let ending = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let file = crate::bounded::open_named(path).map_err(failed)?;
    match ending.as_str() {
        "parquet" => parquet(path, file),
        "csv" => csv(path, file, b','),
        "tsv" => csv(path, file, b'\t'),
        "json" => json(path, file),
        "txt" | "text" | "md" => lines(path, file),
        _ => jsonl(path, file),
    }
}

fn jsonl(path: &Path, file: File) -> Result<Vec<Placed>, Error> {
    let mut rows = Vec::new();
    for (number, line) in whole_lines(path, file).enumerate() {
        let number = number as u64 + 1;
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str::<Value>(&line)
            .map_err(|error| format(path, Some(number), &format!("not JSON: {error}")))?;
        rows.push((Some(number), object(path, Some(number), row)?));
    }
    Ok(rows)
}

/// An array of rows, an object of columns, or an object with one list of rows in it.
fn json(path: &Path, file: File) -> Result<Vec<Placed>, Error> {
    let value: Value = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| format(path, Some(error.line() as u64), &format!("not JSON: {error}")))?;
    let items = match value {
        Value::Array(items) => items,
        Value::Object(map) => match map.into_iter().find_map(|(_, value)| match value {
            Value::Array(items) => Some(items),
            _ => None,
        }) {
            Some(items) => items,
            None => return Err(format(path, None, "expected a list of objects")),
        },
        _ => return Err(format(path, None, "expected a list of objects")),
    };
    items.into_iter().map(|item| Ok((None, object(path, None, item)?))).collect()
}

fn csv(path: &Path, file: File, delimiter: u8) -> Result<Vec<Placed>, Error> {
    let mut reader = ::csv::ReaderBuilder::new().delimiter(delimiter).flexible(false).from_reader(BufReader::new(file));
    let wrong = |error: ::csv::Error| {
        let line = error.position().map(::csv::Position::line);
        format(path, line, &error.to_string())
    };
    let headers = reader.headers().map_err(wrong)?.clone();
    reader
        .records()
        .map(|record| {
            let record = record.map_err(wrong)?;
            let line = record.position().map(::csv::Position::line);
            let row = headers.iter().zip(&record).map(|(name, value)| (name.to_owned(), value.into())).collect();
            Ok((line, row))
        })
        .collect()
}

/// The library panics on some damaged files.
fn parquet(path: &Path, file: File) -> Result<Vec<Placed>, Error> {
    let read = crate::contained::contained(|| parquet_rows(path, file));
    read.unwrap_or_else(|said| Err(format(path, None, &format!("not parquet, or damaged: {said}"))))
}

fn parquet_rows(path: &Path, file: File) -> Result<Vec<Placed>, Error> {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    let wrong = |error: ::parquet::errors::ParquetError| format(path, None, &format!("not parquet: {error}"));
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let rows = reader.get_row_iter(None).map_err(wrong)?;
    rows.map(|row| Ok((None, object(path, None, row.map_err(wrong)?.to_json_value())?))).collect()
}

fn lines(path: &Path, file: File) -> Result<Vec<Placed>, Error> {
    let mut rows = Vec::new();
    for (number, line) in whole_lines(path, file).enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            let row = [("text".to_owned(), Value::from(line.trim_end()))].into_iter().collect();
            rows.push((Some(number as u64 + 1), row));
        }
    }
    Ok(rows)
}

/// Lines of bounded length, as UTF-8.
fn whole_lines(path: &Path, file: File) -> impl Iterator<Item = Result<String, Error>> {
    let (path, mut reader, mut number) = (path.to_owned(), BufReader::new(file), 0u64);
    std::iter::from_fn(move || {
        number += 1;
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MOST_LINE + 1);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) if line.len() as u64 > MOST_LINE => {
                Some(Err(format(&path, Some(number), "a line of more than 64 MiB: is this a file of text?")))
            }
            Ok(_) => Some(
                String::from_utf8(line).map_err(|_| format(&path, Some(number), "not UTF-8: is this a file of text?")),
            ),
            Err(source) => Some(Err(Error::File { path: path.clone(), source })),
        }
    })
}

fn object(path: &Path, line: Option<u64>, value: Value) -> Result<Row, Error> {
    match value {
        Value::Object(row) => Ok(row),
        Value::String(text) => Ok([("text".to_owned(), Value::from(text))].into_iter().collect()),
        other => Err(format(path, line, &format!("expected an object with columns, found {}", kind(&other)))),
    }
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An error at a place of a file.
pub fn format(path: &Path, line: Option<u64>, reason: &str) -> Error {
    Error::Format { path: path.to_owned(), line, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &[u8]) -> Result<Vec<Placed>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    fn texts(rows: Vec<Placed>) -> Vec<String> {
        rows.into_iter().map(|(_, row)| row["prompt"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_format_gives_rows() {
        for (name, text) in [
            ("a.jsonl", "{\"prompt\": \"x\"}\n\n{\"prompt\": \"y\"}"),
            ("a.json", "[{\"prompt\": \"x\"}, {\"prompt\": \"y\"}]"),
            ("b.json", "{\"version\": 1, \"rows\": [{\"prompt\": \"x\"}, {\"prompt\": \"y\"}]}"),
            ("a.csv", "prompt,more\nx,1\ny,2\n"),
            ("a.tsv", "prompt\tmore\nx\t1\ny\t2\n"),
        ] {
            assert_eq!(texts(read_text(name, text.as_bytes()).unwrap()), ["x", "y"], "{name}");
        }
        assert_eq!(read_text("a.txt", b"one\n\ntwo\n").unwrap().len(), 2);
    }

    /// A file of two rows.
    fn parquet_file() -> Vec<u8> {
        use ::parquet::data_type::{ByteArray, ByteArrayType};
        use ::parquet::file::writer::SerializedFileWriter;
        let schema = "message schema { REQUIRED BYTE_ARRAY prompt (UTF8); }";
        let schema = std::sync::Arc::new(::parquet::schema::parser::parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("x"), ByteArray::from("y")], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn parquet_gives_rows() {
        assert_eq!(texts(read_text("a.parquet", &parquet_file()).unwrap()), ["x", "y"]);
    }

    #[test]
    fn no_byte_of_a_parquet_file_makes_it_panic() {
        let whole = parquet_file();
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff, whole[at] ^ 1] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                // Rows, or an error that names the file.
                if let Err(error) = read_text("a.parquet", &damaged) {
                    assert!(error.to_string().contains("a.parquet"), "{error}");
                }
            }
            assert!(read_text("a.parquet", &whole[..at]).is_err());
        }
    }

    #[test]
    fn what_is_no_data_set_is_named_with_its_line() {
        for (name, text, line) in [
            ("a.jsonl", &b"{\"prompt\": 1}\n{oops\n"[..], Some(2)),
            ("a.jsonl", b"[1]\n", Some(1)),
            ("a.jsonl", b"\xff\xfe\n", Some(1)),
            ("a.json", b"{\"a\": 1}", None),
            ("a.json", b"7", None),
            ("a.csv", b"a,b\n1\n", Some(2)),
            ("a.parquet", b"no", None),
        ] {
            match read_text(name, text) {
                Err(Error::Format { line: found, .. }) => assert_eq!(found, line, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(matches!(read(Path::new("/nowhere.jsonl")), Err(Error::File { .. })));
        assert!(matches!(read(Path::new("/")), Err(Error::File { .. })));
    }
}

//! Rows of a file: JSONL, JSON, CSV, parquet, or the lines of a text.

use std::fs::File;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Error;

/// One row: column to value.
pub type Row = Map<String, Value>;

/// A row and the line it stands on, from 1, where lines mean something.
pub type Placed = (Option<u64>, Row);

/// The longest line that is read.
const MOST_LINE: usize = 64 << 20;
/// The largest file: its text is held in memory.
pub const MOST_BYTES: u64 = 4 << 30;

/// Rows as their files write them: one is parsed when it is asked for.
#[derive(Debug, Default)]
pub struct Rows {
    files: Vec<Text>,
    places: Vec<Place>,
}

/// A file.
#[derive(Debug)]
struct Text {
    path: PathBuf,
    text: String,
    form: Form,
}

/// How a row is written.
#[derive(Debug)]
enum Form {
    Json,
    Line,
    Csv { headers: ::csv::StringRecord, delimiter: u8 },
}

/// Where a row is.
#[derive(Debug)]
struct Place {
    start: usize,
    length: usize,
    /// From 1; 0 where lines mean nothing.
    line: u32,
    file: u32,
}

impl Place {
    fn of(start: usize, length: usize, line: u64) -> Self {
        Self { start, length, line: u32::try_from(line).unwrap_or(u32::MAX), file: 0 }
    }
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// One of them.
    ///
    /// # Errors
    /// When it is none.
    pub fn get(&self, index: usize) -> Result<Placed, Error> {
        let place = &self.places[index];
        let Text { path, text, form } = &self.files[place.file as usize];
        let text = &text[place.start..place.start + place.length];
        let line = (place.line > 0).then_some(u64::from(place.line));
        let row = match form {
            Form::Line => [("text".to_owned(), Value::from(text.trim_end()))].into_iter().collect(),
            Form::Json => {
                let row =
                    serde_json::from_str(text).map_err(|error| format(path, line, &format!("not JSON: {error}")))?;
                object(path, line, row)?
            }
            Form::Csv { headers, delimiter } => {
                let mut reader =
                    ::csv::ReaderBuilder::new().delimiter(*delimiter).has_headers(false).from_reader(text.as_bytes());
                let record =
                    reader.records().next().transpose().map_err(|error| format(path, line, &error.to_string()))?;
                let record = record.unwrap_or_default();
                headers.iter().zip(&record).map(|(name, value)| (name.to_owned(), value.into())).collect()
            }
        };
        Ok((line, row))
    }

    /// Those of another file come after these.
    pub fn extend(&mut self, more: Self) {
        let before = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.extend(more.files);
        self.places.extend(more.places.into_iter().map(|place| Place { file: place.file + before, ..place }));
    }
}

/// Reads a whole file by what its name ends with; without a known ending, by how it begins.
///
/// # Errors
/// When it cannot be read, is too large, or is no text.
pub fn read(path: &Path) -> Result<Rows, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    let ending = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
    let file = crate::bounded::open_named(path).map_err(failed)?;
    if file.metadata().is_ok_and(|meta| meta.len() > MOST_BYTES) {
        return Err(failed(crate::bounded::too_large(MOST_BYTES)));
    }
    if ending == "parquet" {
        return parquet(path, file);
    }
    let bytes = crate::bounded::read_from(file, MOST_BYTES).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = memchr::memchr_iter(b'\n', before).count() as u64 + 1;
        format(path, Some(line), "not UTF-8: is this a file of text?")
    })?;
    let (places, form) = match ending.as_str() {
        "csv" => csv(path, &text, b',')?,
        "tsv" => csv(path, &text, b'\t')?,
        "json" => (json(path, &text)?, Form::Json),
        "txt" | "text" | "md" => (lines(path, &text)?, Form::Line),
        _ => (lines(path, &text)?, Form::Json),
    };
    Ok(Rows { files: vec![Text { path: path.to_owned(), text, form }], places })
}

/// The lines that are not blank.
fn lines(path: &Path, text: &str) -> Result<Vec<Place>, Error> {
    let (mut places, mut start) = (Vec::new(), 0);
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    for (number, end) in (1..).zip(ends) {
        let line = &text[start..end];
        if line.len() > MOST_LINE {
            return Err(format(path, Some(number), "a line of more than 64 MiB: is this a file of text?"));
        }
        if !line.is_empty() && !line.trim().is_empty() {
            places.push(Place::of(start, line.len(), number));
        }
        start = end + 1;
    }
    Ok(places)
}

/// An array of rows, an object of columns, or an object with one list of rows in it.
fn json(path: &Path, text: &str) -> Result<Vec<Place>, Error> {
    let wrong = |error: serde_json::Error| format(path, Some(error.line() as u64), &format!("not JSON: {error}"));
    let none = || format(path, None, "expected a list of objects");
    let list = match text.trim_start().as_bytes().first() {
        Some(b'[') => text,
        Some(b'{') => {
            let columns: IndexMap<String, &RawValue> = serde_json::from_str(text).map_err(wrong)?;
            let lists = columns.into_values().map(RawValue::get);
            lists.into_iter().find(|value| value.starts_with('[')).ok_or_else(none)?
        }
        _ => return Err(serde_json::from_str::<&RawValue>(text).map_or_else(wrong, |_| none())),
    };
    let rows: Vec<&RawValue> = serde_json::from_str(list).map_err(wrong)?;
    let start = |row: &str| row.as_ptr() as usize - text.as_ptr() as usize;
    Ok(rows.into_iter().map(RawValue::get).map(|row| Place::of(start(row), row.len(), 0)).collect())
}

fn csv(path: &Path, text: &str, delimiter: u8) -> Result<(Vec<Place>, Form), Error> {
    let mut reader = ::csv::ReaderBuilder::new().delimiter(delimiter).flexible(false).from_reader(text.as_bytes());
    let wrong = |error: ::csv::Error| {
        let line = error.position().map(::csv::Position::line);
        format(path, line, &error.to_string())
    };
    let headers = reader.headers().map_err(wrong)?.clone();
    let (mut places, mut record) = (Vec::new(), ::csv::ByteRecord::new());
    while reader.read_byte_record(&mut record).map_err(wrong)? {
        let Some(place) = record.position() else { continue };
        let (start, end) = (place.byte() as usize, reader.position().byte() as usize);
        places.push(Place::of(start, end - start, place.line()));
    }
    Ok((places, Form::Csv { headers, delimiter }))
}

/// The library panics on some damaged files.
fn parquet(path: &Path, file: File) -> Result<Rows, Error> {
    let read = crate::contained::contained(|| parquet_rows(path, file));
    read.unwrap_or_else(|said| Err(format(path, None, &format!("not parquet, or damaged: {said}"))))
}

/// What a row would be in a file of JSON takes a small part of the room that its values take.
fn parquet_rows(path: &Path, file: File) -> Result<Rows, Error> {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    let wrong = |error: ::parquet::errors::ParquetError| format(path, None, &format!("not parquet: {error}"));
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let (mut text, mut places) = (String::new(), Vec::new());
    for row in reader.get_row_iter(None).map_err(wrong)? {
        let row = row.map_err(wrong)?.to_json_value().to_string();
        if (text.len() + row.len()) as u64 > MOST_BYTES {
            return Err(format(path, None, &format!("its rows are larger than {} GiB", MOST_BYTES >> 30)));
        }
        places.push(Place::of(text.len(), row.len(), 0));
        text.push_str(&row);
    }
    Ok(Rows { files: vec![Text { path: path.to_owned(), text, form: Form::Json }], places })
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
        let rows = read(&path)?;
        (0..rows.len()).map(|index| rows.get(index)).collect()
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
            ("b.csv", "prompt,more\n\n\"x\",\"1\n2\"\n\ny,2"),
        ] {
            assert_eq!(texts(read_text(name, text.as_bytes()).unwrap()), ["x", "y"], "{name}");
        }
        assert_eq!(read_text("a.txt", b"one\n\ntwo\n").unwrap().len(), 2);
    }

    /// Rows are held as they are written: a few bytes beside their text.
    #[test]
    fn rows_take_the_room_of_their_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "\n".repeat(3_000_000) + "{\"prompt\":\"x\"}\r\n{\"prompt\":\"y\"}").unwrap();
        let rows = read(&path).unwrap();
        assert_eq!((rows.len(), size_of::<Place>()), (2, 24), "blank lines are no rows");
        assert_eq!(rows.get(1).unwrap().0, Some(3_000_002));
        let mut all = Rows::default();
        all.extend(rows);
        all.extend(read(&path).unwrap());
        assert_eq!((all.len(), all.get(3).unwrap().1["prompt"].as_str()), (4, Some("y")));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::File::create(&path).unwrap().set_len(100 << 30).unwrap();
        assert!(matches!(read(&path), Err(Error::File { source, .. }) if source.to_string().contains("4096 MiB")));
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

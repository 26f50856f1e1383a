//! What others made, read without waiting and with an end: only regular files, up to a size, and bodies of answers likewise.
//!
//! A named pipe waits for its writer, a device may do something when it is opened or never end, and a link leads anywhere. Every
//! reader of the program opens files here. The limits are stated in docs/limits.md.

mod python_json;

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

pub use python_json::{NO_NUMBERS, PythonJson};

/// Notes of one process or one file: locks, records of groups, keys, settings of a model.
pub const NOTE: u64 = 1 << 20;
/// Text that a person wrote, and what a program says of itself.
pub const TEXT: u64 = 16 << 20;
/// Manifests, journals and failure records: a run of very many experiments has large ones.
pub const RECORD: u64 = 256 << 20;
/// A result with the arrays of each request; data sets.
pub const RESULT: u64 = 1 << 30;
/// A result beyond this size is never held in memory whole.
pub const LARGE: u64 = 16 << 20;
/// How much of a line of a log is looked at.
const LINE: u64 = 64 << 10;
/// Texts in a result beyond this length are no setting and no metric.
const LONG_TEXT: usize = 64 << 10;

/// Opens a regular file for reading. Nothing else is opened at all: what a file is, is looked at first, and again when it is open.
///
/// # Errors
/// When there is none, it may not be read, or it is something else.
pub fn open(path: &Path) -> io::Result<File> {
    open_known(path).map(|(file, _)| file)
}

/// As [`open`], with what the file system says of it.
///
/// # Errors
/// As [`open`].
pub fn open_known(path: &Path) -> io::Result<(File, Metadata)> {
    require_regular(&std::fs::metadata(path)?)?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    require_regular(&metadata)?;
    Ok((file, metadata))
}

/// As [`open`], for a file that the user named: `/dev/stdin` and what a shell makes of `<(…)` may be pipes, and only they.
///
/// # Errors
/// As [`open`].
pub fn open_named(path: &Path) -> io::Result<File> {
    let own = ["/dev/stdin", "/dev/fd/", "/proc/self/fd/"]
        .iter()
        .any(|place| path.as_os_str().as_encoded_bytes().starts_with(place.as_bytes()));
    if own && std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo() || meta.file_type().is_socket()) {
        return File::open(path);
    }
    open(path)
}

/// Whether it is a regular file.
///
/// # Errors
/// What it is instead.
pub fn require_regular(meta: &Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// Reads a regular file of at most so many bytes.
///
/// # Errors
/// As [`open`], and when it is larger.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    // Said at once, rather than after the limit was read.
    if file.metadata()?.len() > most {
        return Err(too_large(most));
    }
    read_from(file, most)
}

/// As [`read`], for what must be text.
///
/// # Errors
/// As [`read`], and when it is none.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    text_of(read(path, most)?)
}

/// As [`read_text`], for a file that the user named.
///
/// # Errors
/// As [`read_text`].
pub fn read_named(path: &Path, most: u64) -> io::Result<String> {
    text_of(read_from(open_named(path)?, most)?)
}

/// Reads what is open, up to so many bytes.
///
/// # Errors
/// When it is larger, or cannot be read.
pub fn read_from(source: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

/// Of a file that is too large the beginning and the end, as many bytes of each.
pub struct Ends {
    file: io::Take<File>,
    end: Option<(u64, u64)>,
}

impl Ends {
    /// A file beyond `most` bytes is read at its beginning and its end, half of them each.
    ///
    /// # Errors
    /// When the file does not know its size.
    pub fn of(file: File, most: u64) -> io::Result<Self> {
        let (size, half) = (file.metadata()?.len(), most / 2);
        let end = (size > most).then_some((size - half, half));
        Ok(Self { file: file.take(if end.is_some() { half } else { u64::MAX }), end })
    }

    /// How many bytes of each are read; `None` where all is.
    pub fn half(&self) -> Option<u64> {
        self.end.map(|(_, half)| half)
    }
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let Some((from, half)) = self.end.take() else { return Ok(0) };
        self.file.get_mut().seek(SeekFrom::Start(from))?;
        self.file.set_limit(half);
        self.file.read(buffer)
    }
}

/// The lines of a log without their ends. Of a line that is longer than [`LINE`] only its beginning is given.
pub fn lines(mut reader: impl BufRead) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        reader.by_ref().take(LINE).read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == LINE {
            reader.skip_until(b'\n').ok()?;
        }
        Some(line)
    })
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is no text: {}", error.utf8_error())))
}

/// The error of what is larger than so many bytes.
pub fn too_large(most: u64) -> io::Error {
    let most = if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{} KiB", most >> 10) };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most}"))
}

/// Whether a write met the limit of file sizes of its process (`ulimit -f`).
pub fn is_file_size_limit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EFBIG as i32)
}

/// Why a JSON object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NoObject {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no JSON object.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Reads a JSON object. One that is larger than [`LARGE`] comes without its arrays, objects and long texts, but for the members
/// named in `keep`: the arrays of each request are most of such a file.
///
/// # Errors
/// When it cannot be read, is larger than [`RESULT`], or is no object.
pub fn read_object(path: &Path, keep: &[&str]) -> Result<Map<String, Value>, NoObject> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    if size > RESULT {
        return Err(too_large(RESULT).into());
    }
    if size <= LARGE {
        let bytes = read_from(file, LARGE)?;
        return Ok(serde_json::from_slice(&bytes)
            .or_else(|error| serde_json::from_reader(PythonJson::new(bytes.as_slice())).map_err(|_| error))?);
    }
    let reader = BufReader::with_capacity(1 << 16, PythonJson::new(file.take(RESULT)));
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let object = Light { keep }.deserialize(&mut parser)?;
    parser.end()?;
    Ok(object)
}

/// Takes the plain members of an object.
struct Light<'k> {
    keep: &'k [&'k str],
}

impl<'de> DeserializeSeed<'de> for Light<'_> {
    type Value = Map<String, Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Light<'_> {
    type Value = Map<String, Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if self.keep.contains(&key.as_str()) {
                object.insert(key, map.next_value()?);
            } else if let Plain(Some(value)) = map.next_value()? {
                object.insert(key, value);
            }
        }
        Ok(object)
    }
}

/// A value, unless it is an array, an object or a very long text: those are passed over and never held.
#[derive(Debug)]
pub struct Plain(pub Option<Value>);

impl<'de> serde::Deserialize<'de> for Plain {
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
                Ok(Plain((value.len() <= LONG_TEXT).then(|| value.into())))
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

/// The body of an answer of at most so many bytes: a server may never end one.
///
/// # Errors
/// When it breaks off, or is larger.
pub async fn body(mut response: reqwest::Response, most: u64) -> Result<Vec<u8>, String> {
    let too_large = || format!("its answer is larger than {} MiB", most >> 20);
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// As [`body`], for JSON.
///
/// # Errors
/// As [`body`], and when it is no JSON.
pub async fn json_body(response: reqwest::Response, most: u64) -> Result<Value, String> {
    let bytes = body(response, most).await?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_none_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link, folder) = (dir.path().join("pipe"), dir.path().join("link"), dir.path().to_owned());
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let socket = dir.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in [(pipe, "a named pipe"), (link, "a device"), (folder, "a directory"), (socket, "a socket")]
        {
            for error in [open(&path).unwrap_err(), read(&path, 8).unwrap_err(), open_named(&path).unwrap_err()] {
                assert_eq!(error.to_string(), format!("it is {what}, not a regular file"));
            }
        }
        assert_eq!(open(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(read_text(&path, 8).unwrap(), "12345678");
        assert_eq!(read(&path, 7).unwrap_err().to_string(), "it is larger than 0 KiB");
        // A hole of 100 GB takes no room on the disk, and none in memory.
        File::create(&path).unwrap().set_len(100 << 30).unwrap();
        assert_eq!(read(&path, NOTE).unwrap_err().to_string(), "it is larger than 1 MiB");
        assert_eq!(read_object(&path, &[]).unwrap_err().to_string(), "it is larger than 1024 MiB");
    }

    #[test]
    fn of_a_large_file_the_beginning_and_the_end_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "abcdefgh").unwrap();
        let text = |most| io::read_to_string(Ends::of(File::open(&path).unwrap(), most).unwrap()).unwrap();
        assert_eq!([text(8), text(7), text(2)], ["abcdefgh", "abcfgh", "ah"]);
        File::create(&path).unwrap().set_len(100 << 30).unwrap();
        assert_eq!(text(1 << 10), "\0".repeat(1 << 10));
    }

    #[test]
    fn of_a_long_line_only_the_beginning_is_given() {
        let text = format!("one\n\n{}\nlast", "x".repeat(5 * LINE as usize));
        let found: Vec<usize> = lines(text.as_bytes()).map(|line| line.len()).collect();
        assert_eq!(found, [3, 0, LINE as usize, 4]);
        assert_eq!(lines(&b"a\n"[..]).collect::<Vec<_>>(), [b"a"]);
    }

    #[test]
    fn of_a_large_object_only_what_is_plain_or_wanted_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let gaps = vec!["0.0123456789"; 1_500_000].join(",");
        std::fs::write(
            &path,
            format!(r#"{{"completed": 3, "itls": [{gaps}], "text": "{gaps}", "ours": {{"a": [1]}}}}"#),
        )
        .unwrap();
        let object = read_object(&path, &["ours"]).unwrap();
        assert_eq!(Value::Object(object), serde_json::json!({"completed": 3, "ours": {"a": [1]}}));
        std::fs::write(&path, format!(r#"{{"completed": 3, "itls": [{gaps}]}} x {gaps}"#)).unwrap();
        assert!(matches!(read_object(&path, &[]), Err(NoObject::Json(_))));
    }
}

//! Sweep files: read, checked to be text, and parsed into trees.

use std::path::Path;

use super::tree::{Diagnostic, Node, parse_json, parse_toml, parse_yaml};
use super::{Environment, Origin};
use crate::bounded;
use crate::nearest::nearest;
use crate::safe;

/// No sweep is larger; a log or a model that was named by mistake is.
const LARGEST_FILE: u64 = bounded::TEXT;

/// Reads one sweep file into a tree.
///
/// # Errors
/// When there is no such file, or it holds no sweep; with its place and what to do.
pub fn load(named: &Path, environment: &Environment) -> Result<Node, Diagnostic> {
    let shown = named.display().to_string();
    let bytes = read(named, &environment.absolute(named), &shown)?;
    let text = text_of(bytes, &shown)?;
    // Before anything of it can be quoted in an error.
    safe::learn(safe::in_text(&text));
    parse(&text, &shown)
}

/// Parses the text of a sweep file by the extension of its name.
///
/// # Errors
/// When it cannot be read.
pub fn parse(text: &str, shown: &str) -> Result<Node, Diagnostic> {
    // Columns are counted after a byte order mark, as editors do.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let place = |line, column| Origin::File { path: shown.to_owned(), line, column };
    let extension = Path::new(shown).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let tree = match extension.as_deref() {
        Some("json") => parse_json(text, &place),
        Some("toml") => parse_toml(text, &place),
        Some(_) | None => parse_yaml(text, &place),
    }?;
    match tree {
        None => Err(Diagnostic::new(&place(1, 1), "", "the file is empty").hint(
            "begin with `serve:` and, below it, `model: ORG/NAME`; `vllm-bench config show` prints a whole sweep",
        )),
        Some(tree) => Ok(tree),
    }
}

fn nowhere(shown: &str, problem: String) -> Diagnostic {
    Diagnostic { origin: None, path: String::new(), problem: format!("{shown}: {problem}"), hints: Vec::new() }
}

fn read(named: &Path, path: &Path, shown: &str) -> Result<Vec<u8>, Diagnostic> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => nowhere(shown, "there is no such file".to_owned()).hint(others(named, path)),
        std::io::ErrorKind::PermissionDenied => {
            nowhere(shown, "it may not be read".to_owned()).hint(format!("`chmod u+r {shown}` makes it readable"))
        }
        std::io::ErrorKind::FileTooLarge | std::io::ErrorKind::InvalidInput => {
            nowhere(shown, error.to_string()).hint("name a sweep file: YAML, JSON or TOML")
        }
        _ => nowhere(shown, format!("it could not be read: {error}")).hint("name a file that can be read"),
    };
    if path.is_dir() {
        let trouble = nowhere(shown, "this is a directory, not a sweep file".to_owned());
        return Err(trouble.hint(format!("name a file in it, such as `{}`", named.join("sweep.yaml").display())));
    }
    let file = bounded::open_named(path).map_err(failed)?;
    bounded::read_from(file, LARGEST_FILE).map_err(failed)
}

/// What else there is beside a file that does not exist.
fn others(named: &Path, path: &Path) -> String {
    let is_sweep = |name: &String| {
        let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
        ["yaml", "yml", "json", "toml"].contains(&extension)
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let entries = std::fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(is_sweep).take(1000).collect();
    names.sort();
    let wanted = named.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{}`?", named.with_file_name(near).display()),
        None if names.is_empty() => "write one: `vllm-bench config show > sweep.yaml` prints a whole sweep".to_owned(),
        None => format!("there is: {}", names.iter().take(5).cloned().collect::<Vec<_>>().join(", ")),
    }
}

fn text_of(bytes: Vec<u8>, shown: &str) -> Result<String, Diagnostic> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let before = bytes.get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() + 1;
        let byte = bytes.get(at).copied().unwrap_or_default();
        let origin = Origin::File { path: shown.to_owned(), line, column };
        Diagnostic::new(&origin, "", format!("the byte 0x{byte:02x} is no UTF-8"))
            .hint("save the file as UTF-8 (`iconv -t UTF-8`), or name a sweep file: YAML, JSON or TOML")
    })
}

//! Which files of a directory may be results.

use std::path::{Path, PathBuf};

use crate::record::{Error, layout};

/// How the names of results end; others are taken too where they begin like JSON.
const ENDS: [&str; 4] = ["json", "jsonl", "ndjson", "csv"];
/// How the names of other things end, which are not even looked into.
const OTHERS: [&str; 9] = ["log", "txt", "sh", "py", "md", "yaml", "png", "svg", "html"];

/// The files of a directory that may be results, in order of their names. Our own reports are none.
///
/// # Errors
/// When the directory cannot be read.
pub(in crate::results) fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let own = [layout::RAW_RESULTS, layout::SUMMARY_CSV, layout::MANIFEST, layout::JOURNAL];
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(Error::read(directory))?
        .flatten()
        .filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|file| {
            let name = file.to_string_lossy();
            !name.starts_with('.') && !own.contains(&name.as_ref()) && !OTHERS.contains(&end_of(file).as_str())
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Whether a file is told where it is no result: its name promises one.
pub(super) fn promises(file: &Path) -> bool {
    ENDS.contains(&end_of(file).as_str())
}

fn end_of(file: &Path) -> String {
    file.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The folders of a directory, in order of their names.
///
/// # Errors
/// When the directory cannot be read.
pub(in crate::results) fn folders(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(directory)
        .map_err(Error::read(directory))?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|folder| !folder.to_string_lossy().starts_with('.'))
        .collect();
    folders.sort();
    Ok(folders)
}

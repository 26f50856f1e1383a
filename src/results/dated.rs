//! Everything in a results directory that was measured at one time: our runs, directories of the predecessor, and result files of `load`
//! or `vllm bench serve`, each of which is a measurement of its own.

use std::path::{Path, PathBuf};

use super::{files, load_one, parallel, predecessor};
use crate::analyse::{Assumptions, RunTable, derive};
use crate::record::{Error, RunDir, layout, list_runs};

/// Something that was measured at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dated {
    /// A run directory, or one of the predecessor.
    Folder(PathBuf),
    /// A result file, in its folder.
    File(PathBuf, PathBuf),
}

impl Dated {
    /// What it is called.
    pub fn name(&self) -> String {
        let (Self::Folder(path) | Self::File(_, path)) = self;
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.clone(),
            Self::File(folder, file) => folder.join(file),
        }
    }
}

/// What there is in a results directory and in the folders directly below it that are no runs.
///
/// # Errors
/// When the directory cannot be read.
pub fn dated(directory: &Path) -> Result<Vec<Dated>, Error> {
    let mut found: Vec<Dated> = list_runs(directory)?.iter().map(|run| Dated::Folder(run.path().to_owned())).collect();
    if !directory.is_dir() {
        return Ok(found);
    }
    let of_folder = |folder: &Path| -> Result<Vec<Dated>, Error> {
        Ok(files::candidates(folder)?.into_iter().map(|file| Dated::File(folder.to_owned(), file)).collect())
    };
    found.extend(of_folder(directory)?);
    for folder in files::folders(directory)? {
        let folder = directory.join(folder);
        if RunDir::at(&folder).is_some() {
            continue;
        }
        let results = predecessor::result_files(&folder)?;
        let is_stamp = folder.file_name().and_then(|name| name.to_str()).is_some_and(layout::is_stamp);
        if !results.is_empty() && (is_stamp || results.iter().any(|file| predecessor::is_named(file))) {
            found.push(Dated::Folder(folder));
        } else {
            found.extend(of_folder(&folder)?);
        }
    }
    Ok(found)
}

/// Reads all of them, several at a time, and makes something of each at once: the tables of a thousand runs would need much memory. `None`
/// for a file that is no result and does not look like one.
pub fn read_dated<R: Send>(
    all: &[Dated],
    work: impl Fn(&Dated, Result<RunTable, String>) -> R + Sync,
) -> Vec<Option<R>> {
    let one = |dated: &Dated, buffer: &mut Vec<u8>| {
        let table = match dated {
            Dated::Folder(path) => load_one(path).map_err(|error| crate::bounded::chain(&error)),
            Dated::File(folder, file) => files::dated_file(folder, file, buffer)?,
        };
        let table = table.map(|mut table| {
            derive(&mut table, &Assumptions::default());
            table
        });
        Some(work(dated, table))
    };
    parallel::map(all, one).collect()
}

//! One run directory: made once, found again, read as a whole.

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Deserialize;

use super::layout::{self, Layout};
use super::shards;
use super::{
    Error, Holder, JournalText, Lock, Manifest, ResultMeta, ResultRecord, RunState, SCHEMA, atomic, read_journal,
};
use crate::bounded;
use crate::model::Experiment;
use crate::plan::sanitize;

/// A run directory that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    layout: Layout,
}

impl RunDir {
    /// Makes the directory of a new run in `results_dir`, stamped with the minute; a second run in the same minute
    /// gets its own (`20260225_1430_2`).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(results_dir: &Path, now: DateTime<Utc>, zone: Tz) -> Result<Self, Error> {
        std::fs::create_dir_all(results_dir).map_err(Error::write(results_dir))?;
        let stamp = layout::stamp(now, zone);
        let mut n = 1u32;
        let root = loop {
            let name = if n == 1 { stamp.clone() } else { format!("{stamp}_{n}") };
            let root = results_dir.join(name);
            match std::fs::create_dir(&root) {
                Ok(()) => break root,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                Err(source) => return Err(Error::Write { path: root, source }),
            }
        };
        let run = Self { layout: Layout::new(root) };
        run.make_folders()?;
        Ok(run)
    }

    /// Opens an existing run directory.
    ///
    /// # Errors
    /// When there is no manifest.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let layout = Layout::new(path);
        if layout.manifest().is_file() { Ok(Self { layout }) } else { Err(Error::NotARun(path.to_owned())) }
    }

    /// The run directory at `path`, also where its manifest is damaged or gone but other files of a run are there.
    pub fn at(path: &Path) -> Option<Self> {
        Self::open(path).ok().or_else(|| Self::remains(path))
    }

    /// A run directory without a usable manifest: there is something under its name, or a journal, or the failure of an experiment.
    fn remains(path: &Path) -> Option<Self> {
        let layout = Layout::new(path);
        let is_there = |path: PathBuf| path.symlink_metadata().is_ok();
        if !path.is_dir() {
            return None;
        }
        let traces = || {
            let entries = std::fs::read_dir(path).ok()?.flatten();
            let mut failures = entries.filter(|entry| layout::is_failure(&entry.file_name().to_string_lossy()));
            let ours = |entry: std::fs::DirEntry| {
                bounded::read_text(&entry.path(), bounded::TEXT).is_ok_and(|text| text.contains("\"identity\""))
            };
            failures.any(ours).then_some(())
        };
        let journal = || {
            let text = read_journal(&layout.journal()).unwrap_or_default();
            is_there(layout.journal()) && (!text.entries.is_empty() || layout.unchecked_dir().is_dir())
        };
        (is_there(layout.manifest()) || journal() || traces().is_some()).then_some(Self { layout })
    }

    /// When it was made, as its manifest says; where that is damaged, when its journal begins, or its directory was changed.
    pub fn created(&self) -> Option<DateTime<Utc>> {
        let header: Result<Header, Error> = atomic::read_json(&self.layout.manifest(), "manifest");
        let stated = header.ok().and_then(|header| DateTime::parse_from_rfc3339(&header.created).ok());
        let journal = || self.journal().ok()?.entries.first()?.time();
        let changed = || std::fs::metadata(self.path()).ok()?.modified().ok().map(DateTime::<Utc>::from);
        stated.map(|at| at.with_timezone(&Utc)).or_else(journal).or_else(changed)
    }

    /// Makes what a crash or a clean-up may have left missing, and removes unfinished files, before a run goes on.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prepare_resume(&self) -> Result<(), Error> {
        self.make_folders()?;
        let unchecked = self.layout.unchecked_dir();
        for entry in std::fs::read_dir(&unchecked).map_err(Error::read(&unchecked))?.flatten() {
            remove_whatever(&entry.path()).map_err(Error::write(&entry.path()))?;
        }
        let root = self.path();
        for entry in std::fs::read_dir(root).map_err(Error::read(root))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(layout::TEMPORARY_PREFIX) {
                remove_whatever(&entry.path()).map_err(Error::write(&entry.path()))?;
            }
        }
        Ok(())
    }

    /// Makes what may be missing, and removes nothing: tasks of a cluster may be at work in it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prepare_beside_tasks(&self) -> Result<(), Error> {
        self.make_folders()
    }

    fn make_folders(&self) -> Result<(), Error> {
        self.require_own()?;
        // What is a file or a link where a client writes its results is none of ours.
        let unchecked = self.layout.unchecked_dir();
        if unchecked.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            std::fs::remove_file(&unchecked).map_err(Error::write(&unchecked))?;
        }
        for dir in [self.layout.logs(), self.layout.scripts(), unchecked] {
            std::fs::create_dir_all(&dir).map_err(Error::write(&dir))?;
            atomic::require_folder(&dir)?;
        }
        Ok(())
    }

    /// Refuses a run directory that is a link: it may lead to somebody else's files.
    ///
    /// # Errors
    /// [`Error::Swapped`].
    pub fn require_own(&self) -> Result<(), Error> {
        atomic::require_folder(self.path())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The name that its user gave it; `None` where it has none, or its manifest is damaged.
    pub fn given_name(&self) -> Option<String> {
        let header: Result<Header, Error> = atomic::read_json(&self.layout.manifest(), "manifest");
        header.ok()?.name
    }

    /// What a user calls it: the name that it was given, else that of its directory.
    pub fn called(&self) -> String {
        self.given_name().unwrap_or_else(|| self.name())
    }

    /// The names of its files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its manifest.
    ///
    /// # Errors
    /// When it cannot be read, or is newer than this program.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let path = self.layout.manifest();
        let header: Header = atomic::read_json(&path, "manifest")?;
        if header.schema > SCHEMA {
            return Err(Error::Newer { path, found: header.schema, known: SCHEMA });
        }
        atomic::read_json(&path, "manifest")
    }

    /// Its journal, with those of the tasks of a cluster among it, by time.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn journal(&self) -> Result<JournalText, Error> {
        let own = read_journal(&self.layout.journal())?;
        shards::with_shards(own, &self.layout)
    }

    /// What its journal adds up to.
    ///
    /// # Errors
    /// As [`RunDir::journal`].
    pub fn state(&self) -> Result<RunState, Error> {
        Ok(RunState::replay(&self.journal()?.entries))
    }

    /// The valid result of exactly this experiment, if there is one. A missing, torn, foreign or invalid file is none.
    pub fn valid_result(&self, experiment: &Experiment) -> Option<ResultRecord> {
        let record = ResultRecord::read(&self.layout.result(&experiment.name)).ok()?;
        let own = record.vllm_bench.as_ref().is_some_and(|meta| meta.contradiction(experiment).is_none());
        (own && record.counts_for(&experiment.identity, experiment.repeat, experiment.workload.num_prompts()))
            .then_some(record)
    }

    /// Refuses to let an experiment take a place where the valid result of another one lies: what was measured is never set aside
    /// or overwritten for it. A copy of what lies under its own name too is no loss.
    ///
    /// # Errors
    /// When such a result is there.
    pub fn require_own_place(&self, experiment: &Experiment) -> Result<(), Error> {
        let path = self.layout.result(&experiment.name);
        let Ok(ResultRecord { vllm, vllm_bench: Some(meta) }) = ResultRecord::read(&path) else { return Ok(()) };
        let same = |other: &ResultMeta| meta.identity == other.identity && meta.repeat == other.repeat;
        let own = meta.identity == experiment.identity && meta.repeat == experiment.repeat;
        let asked = meta.bench.get_text("num-prompts").and_then(|text| text.parse().ok());
        if own || super::validate(&vllm, asked).is_err() {
            return Ok(());
        }
        // The name comes from a file: it must not lead out of the directory.
        if sanitize(&meta.name) == meta.name && meta.name != experiment.name {
            let kept = ResultRecord::read(&self.layout.result(&meta.name)).ok();
            let valid = kept.filter(|kept| super::validate(&kept.vllm, asked).is_ok());
            if valid.and_then(|kept| kept.vllm_bench).is_some_and(|kept| same(&kept)) {
                return Ok(());
            }
        }
        let owner = format!("{} ({}{})", meta.name, meta.identity.short(), meta.repeat);
        Err(Error::Occupied { path, owner })
    }

    /// Who writes to it now; `None` where it is not live.
    pub fn live(&self) -> Option<Holder> {
        let results_dir = self.path().parent()?;
        let holder = Lock::holder(&layout::results_lock(results_dir))?;
        (holder.run.file_name() == self.path().file_name()).then_some(holder)
    }
}

/// Removes a file or a link, or a folder with all that is in it (not what links in it lead to).
///
/// # Errors
/// When the disk refuses; what is not there is no error.
pub fn remove_whatever(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The part of a manifest that tells when it was made, how it is called and whether it can be read.
#[derive(Deserialize)]
struct Header {
    schema: u32,
    #[serde(default)]
    created: String,
    #[serde(default)]
    name: Option<String>,
}

/// Removes what a crash before the first manifest left: run directories of ours that hold nothing yet. Only for the
/// holder of the results directory's lock. Directories with anything else in them stay, whoever made them.
pub fn remove_empty_runs(results_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(results_dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let layout = Layout::new(entry.path());
        // Only we make this folder, and make it last.
        if layout.manifest().exists() || !layout.unchecked_dir().is_dir() {
            continue;
        }
        for file in std::fs::read_dir(layout.root()).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(layout::TEMPORARY_PREFIX) {
                let _ = std::fs::remove_file(file.path());
            }
        }
        // Fails, and leaves all there is, where a folder is not empty.
        for folder in [layout.logs(), layout.scripts(), layout.unchecked_dir(), layout.root().to_owned()] {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Every run in a results directory, oldest first. One whose manifest is damaged is among them: it must not vanish.
///
/// # Errors
/// When the results directory exists and cannot be read; a missing one has no runs.
pub fn list_runs(results_dir: &Path) -> Result<Vec<RunDir>, Error> {
    let entries = match std::fs::read_dir(results_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: results_dir.to_owned(), source }),
    };
    let mut runs: Vec<(Option<DateTime<Utc>>, PathBuf, RunDir)> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        // What was being removed, or copied, when its program was killed.
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with(layout::TEMPORARY_PREFIX))
        .filter_map(|entry| {
            let run = RunDir::at(&entry.path())?;
            Some((run.created(), entry.path(), run))
        })
        .collect();
    runs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(runs.into_iter().map(|(_, _, run)| run).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn rule_15_two_runs_in_one_minute_have_their_own_directories() {
        let dir = tempfile::tempdir().unwrap();
        let now = Utc.with_ymd_and_hms(2026, 2, 25, 12, 30, 0).unwrap();
        let names: Vec<_> =
            (0..3).map(|_| RunDir::create(dir.path(), now, chrono_tz::Asia::Jerusalem).unwrap().name()).collect();
        assert_eq!(names, ["20260225_1430", "20260225_1430_2", "20260225_1430_3"]);
    }

    #[test]
    fn a_run_that_died_before_its_manifest_leaves_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let now = Utc.with_ymd_and_hms(2026, 2, 25, 12, 30, 0).unwrap();
        let make = || RunDir::create(dir.path(), now, chrono_tz::UTC).unwrap();
        let (dead, used) = (make(), make());
        std::fs::write(dead.path().join(".tmp-abc"), "{").unwrap();
        std::fs::write(used.layout().logs().join("x_server.log"), "a line").unwrap();
        let predecessors = dir.path().join("20260101_0000");
        std::fs::create_dir_all(predecessors.join("logs")).unwrap();
        remove_empty_runs(dir.path());
        assert!(!dead.path().exists());
        assert!(used.layout().logs().join("x_server.log").exists() && used.layout().unchecked_dir().exists());
        assert!(predecessors.join("logs").exists());
    }

    #[test]
    fn going_on_removes_unfinished_and_unchecked_files() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), Utc::now(), chrono_tz::UTC).unwrap();
        let files = [run.path().join(".tmp-abc"), run.layout().unchecked("x"), run.layout().unchecked("folder")];
        files[..2].iter().for_each(|file| std::fs::write(file, "{").unwrap());
        std::fs::create_dir_all(files[2].join("deeper")).unwrap();
        std::fs::write(files[2].join("deeper/file"), "x").unwrap();
        run.prepare_resume().unwrap();
        assert!(files.iter().all(|file| !file.exists()));
    }

    #[test]
    fn a_directory_without_a_manifest_is_not_a_run() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("20260225_1430")).unwrap();
        assert_eq!(list_runs(dir.path()).unwrap(), []);
        assert_eq!(list_runs(&dir.path().join("absent")).unwrap(), []);
    }
}

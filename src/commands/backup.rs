//! `vllm-bench backup`: a verified copy of a results directory, of a live one too. Links are copied, never followed.

mod copy;
mod inventory;

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use nix::sys::signal::Signal;

use self::copy::{Failed, Job, Sum, to_archive, to_tree};
use self::inventory::Inventory;
use crate::cli::BackupArgs;
use crate::commands::{find_run, format};
use crate::config::{self, Environment, Origin};
use crate::error::Error;
use crate::exit;
use crate::process::signals::{self, Signals};
use crate::record::{self, Lock, layout};
use crate::ui::Ui;

/// Beginning of the names of unfinished backups.
const TEMPORARY: &str = ".tmp-backup-";
/// The end of an archive's name.
const ARCHIVE: &str = ".tar.gz";

/// Copies a results directory.
///
/// # Errors
/// When there is none, the disk has no room for a copy, or it could not be written or verified; nothing is left then.
pub async fn run(args: &BackupArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let plan = Plan::new(args, environment, Utc::now())?;
    ui.say(&format!("copying `{}` …", format::path(&plan.from, environment.working_directory())));
    let cancelled = Arc::new(AtomicBool::new(false));
    let work = tokio::task::spawn_blocking({
        let cancelled = Arc::clone(&cancelled);
        move || plan.carry_out(&cancelled)
    });
    let mut terminate = Signals::of(Signal::SIGTERM)?;
    let mut work = std::pin::pin!(work);
    let (result, by) = tokio::select! {
        result = &mut work => (result, 0),
        () = signals::interrupted() => { cancelled.store(true, Ordering::Relaxed); (work.await, 2) }
        () = terminate.next() => { cancelled.store(true, Ordering::Relaxed); (work.await, 15) }
    };
    match result.map_err(io::Error::other)? {
        Ok(done) => {
            tell(&done, environment, ui);
            done.damaged.iter().for_each(|what| ui.warn(what));
            Ok(if done.damaged.is_empty() { exit::OK } else { exit::RECORD })
        }
        Err(Stopped::Cancelled) => {
            ui.warn("ended: nothing is left of the unfinished copy");
            Ok(exit::SIGNAL + by)
        }
        Err(Stopped::Failed(error)) => Err(*error),
    }
}

/// What of the runs in a directory, or of the run that it is, cannot be read.
fn damaged(from: &Path) -> Vec<String> {
    let runs = match record::RunDir::at(from) {
        Some(run) => vec![run],
        None => record::list_runs(from).unwrap_or_default(),
    };
    runs.iter().filter_map(|run| run.manifest().err()).map(|error| format!("copied as it is: {error}")).collect()
}

fn tell(done: &Done, environment: &Environment, ui: &Ui) {
    let Sum { files, links, bytes } = done.sum;
    let links = if links > 0 {
        format!(", {}", format::count(usize::try_from(links).unwrap_or(0), "link"))
    } else {
        String::new()
    };
    let packed = done.packed.map_or(String::new(), |packed| format!(", {} packed", format::bytes(packed)));
    let files = format::count(usize::try_from(files).unwrap_or(usize::MAX), "file");
    let place = format::path(&done.place, environment.working_directory());
    ui.out(&format!("{place}: {files}{links}, {bytes} bytes ({}){packed}, verified", format::bytes(bytes)));
    if done.live {
        ui.say("a run is live: the copy holds what was recorded until now");
    }
    for path in &done.left_out {
        ui.warn(&format!("`{}` is no file and was left out", format::plain(&path.to_string_lossy())));
    }
}

/// A finished backup.
#[derive(Debug)]
struct Done {
    place: PathBuf,
    sum: Sum,
    /// Size of the archive.
    packed: Option<u64>,
    live: bool,
    left_out: Vec<PathBuf>,
    /// Runs whose record is damaged: they were copied as they are.
    damaged: Vec<String>,
}

#[derive(Debug)]
enum Stopped {
    Cancelled,
    Failed(Box<Error>),
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Stopped::Failed(Box::new(error.into()))
    }
}

/// What the user named: a directory as it is, else a run.
fn named(run: &Path, results_dir: Option<&Path>, environment: &Environment) -> Result<PathBuf, Error> {
    let path = environment.absolute(run);
    if path.is_dir() {
        return Ok(path);
    }
    let dirs = find_run::results_dirs(results_dir, environment);
    Ok(find_run::named(run, &dirs, environment)?.run.path().to_owned())
}

/// What is to be done.
#[derive(Debug)]
struct Plan {
    /// The directory to copy.
    from: PathBuf,
    /// The folder inside the backup that it becomes: its name where it is a single run.
    below: PathBuf,
    /// Where the backup is made.
    beside: PathBuf,
    /// `{results-dir}_{stamp}`, without a number and an ending.
    stem: String,
    archive: bool,
}

impl Plan {
    fn new(args: &BackupArgs, environment: &Environment, now: DateTime<Utc>) -> Result<Self, Error> {
        let zone = zone(args.timezone.as_deref(), environment)?;
        let from = match &args.run {
            Some(run) => named(run, args.results_dir.as_deref(), environment)?,
            None => find_run::one_results_dir(args.results_dir.as_deref(), environment),
        };
        if !from.is_dir() || Inventory::of(&from)?.items.is_empty() {
            return Err(Error::Nothing {
                message: format!("nothing to back up in `{}`", format::path(&from, environment.working_directory())),
                hint: "name the place with `--results-dir DIR`".into(),
            });
        }
        // One run alone is copied as a results directory that holds this run.
        let (results_dir, below) = match (from.parent(), from.file_name()) {
            (Some(parent), Some(name)) if find_run::is_run(&from) => (parent, PathBuf::from(name)),
            _ => (from.as_path(), PathBuf::new()),
        };
        let (Some(beside), Some(name)) = (results_dir.parent(), results_dir.file_name()) else {
            return Err(Error::Usage {
                message: format!("`{}` has no name that a copy could have", results_dir.display()),
                hint: "name a results directory with `--results-dir DIR`".into(),
            });
        };
        let stem = format!("{}_{}", name.to_string_lossy(), layout::stamp(now, zone));
        Ok(Self { beside: beside.to_owned(), stem, below, archive: args.archive, from })
    }

    /// Removes what backups that were killed have left here. One that is being written is locked.
    fn remove_killed(&self) {
        for entry in std::fs::read_dir(&self.beside).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                continue;
            }
            let path = entry.path();
            let is_folder = match entry.file_type() {
                Ok(kind) if kind.is_dir() => true,
                Ok(kind) if kind.is_file() => false,
                _ => continue,
            };
            let killed = std::fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            // What cannot be removed stays: it is in nobody's way.
            match (killed, is_folder) {
                (true, true) => drop(std::fs::remove_dir_all(&path)),
                (true, false) => drop(std::fs::remove_file(&path)),
                (false, _) => {}
            }
        }
    }

    fn carry_out(&self, cancelled: &AtomicBool) -> Result<Done, Stopped> {
        self.remove_killed();
        let live = self.is_live();
        let inventory = Inventory::of(&self.from)?;
        self.check_room(inventory.bytes())?;
        let job = Job { from: &self.from, inventory: &inventory, below: &self.below, live, cancelled };
        let (place, sum, packed) = if self.archive { self.archived(&job)? } else { self.copied(&job)? };
        Ok(Done { place, sum, packed, live, left_out: inventory.left_out, damaged: damaged(&self.from) })
    }

    /// A run that begins while this copies is as consistent as a crash would leave it: every reader stands that.
    fn is_live(&self) -> bool {
        let results_dir =
            if self.below.as_os_str().is_empty() { Some(self.from.as_path()) } else { self.from.parent() };
        results_dir.is_some_and(|dir| Lock::holder(&layout::results_lock(dir)).is_some())
    }

    fn copied(&self, job: &Job<'_>) -> Result<(PathBuf, Sum, Option<u64>), Stopped> {
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempdir_in(&self.beside)
            .map_err(record::Error::write(&self.beside))?;
        // Held until it has its name: the lock says that somebody writes to it.
        let _lock = locked(std::fs::File::open(temporary.path()));
        let sum = to_tree(job, temporary.path()).map_err(|failed| self.explain(failed))?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temporary.path(), open).map_err(record::Error::write(temporary.path()))?;
        for place in self.places() {
            if place.symlink_metadata().is_ok() {
                continue;
            }
            match std::fs::rename(temporary.path(), &place) {
                Ok(()) => {
                    drop(temporary.keep());
                    return Ok((place, sum, None));
                }
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(source) => return Err(record::Error::Write { path: place, source }.into()),
            }
        }
        Err(Stopped::Cancelled)
    }

    fn archived(&self, job: &Job<'_>) -> Result<(PathBuf, Sum, Option<u64>), Stopped> {
        let mut temporary = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .suffix(ARCHIVE)
            .tempfile_in(&self.beside)
            .map_err(record::Error::write(&self.beside))?;
        let _lock = locked(temporary.as_file().try_clone());
        let sum = to_archive(job, temporary.as_file(), temporary.path(), &self.stem)
            .map_err(|failed| self.explain(failed))?;
        let packed = temporary.as_file().metadata().map_err(record::Error::read(temporary.path()))?.len();
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temporary.as_file().set_permissions(readable).map_err(record::Error::write(temporary.path()))?;
        for place in self.places() {
            match temporary.persist_noclobber(&place) {
                Ok(_) => return Ok((place, sum, Some(packed))),
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => temporary = error.file,
                Err(error) => return Err(record::Error::Write { path: place, source: error.error }.into()),
            }
        }
        Err(Stopped::Cancelled)
    }

    /// `NAME`, `NAME_2`, `NAME_3` …
    fn places(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let end = if self.archive { ARCHIVE } else { "" };
        (1u32..).map(move |n| {
            let number = if n == 1 { String::new() } else { format!("_{n}") };
            self.beside.join(format!("{}{number}{end}", self.stem))
        })
    }

    fn check_room(&self, needed: u64) -> Result<(), record::Error> {
        let free = nix::sys::statvfs::statvfs(&self.beside)
            .map_err(|errno| record::Error::read(&self.beside)(errno.into()))
            .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()))?;
        // An archive of logs is a tenth of them; half is asked for.
        let needed = if self.archive { needed / 2 } else { needed };
        if needed > free {
            return Err(record::Error::write(&self.beside)(io::Error::other(no_room(needed, free))));
        }
        Ok(())
    }

    fn explain(&self, failed: Failed) -> Stopped {
        match failed {
            Failed::Cancelled => Stopped::Cancelled,
            Failed::Reading(path, source) => record::Error::Read { path, source }.into(),
            Failed::Writing(source) => record::Error::Write { path: self.beside.join(&self.stem), source }.into(),
            Failed::Different { written, read } => {
                let text = format!(
                    "{} files with {} bytes were written, {} with {} were read back",
                    written.files, written.bytes, read.files, read.bytes
                );
                record::Error::Write { path: self.beside.join(&self.stem), source: io::Error::other(text) }.into()
            }
        }
    }
}

/// A lock on an unfinished backup; without one, where the file system has none, it is written all the same.
fn locked(file: io::Result<std::fs::File>) -> Option<std::fs::File> {
    let file = file.ok()?;
    file.try_lock().ok()?;
    Some(file)
}

fn no_room(needed: u64, free: u64) -> String {
    format!(
        "the copy needs {} and {} are free there: free some space, or remove runs with `vllm-bench clean`",
        format::bytes(needed),
        format::bytes(free)
    )
}

fn zone(flag: Option<&str>, environment: &Environment) -> Result<Tz, Error> {
    let variable = "VLLM_BENCH_TIMEZONE";
    let (text, origin) = match (flag, environment.get(variable)) {
        (Some(text), _) => (text, Origin::Flag("timezone".into())),
        (None, Some(text)) => (text, Origin::Variable(variable.into())),
        (None, None) => return Ok(chrono_tz::Asia::Jerusalem),
    };
    Tz::from_str(text).map_err(|_| {
        Error::Config(config::Error::Invalid {
            origin,
            value: text.to_owned(),
            expected: "a name such as `Asia/Jerusalem` or `UTC`".into(),
            hint: None,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use chrono::TimeZone;

    use super::*;
    use crate::commands::fixture::{Fixture, hold};

    struct Place {
        home: tempfile::TempDir,
        fixture: Fixture,
    }

    impl Place {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let fixture = Fixture::new(&home.path().join("experiment_results"), "20260101_1000");
            fixture.session(0, 3).log("a_server.log", b"log\n");
            std::fs::write(home.path().join("secret"), "not ours").unwrap();
            symlink("../../secret", fixture.path().join("out")).unwrap();
            symlink(home.path(), fixture.path().join("home")).unwrap();
            std::fs::write(fixture.path().join(".tmp-half"), "half").unwrap();
            Self { home, fixture }
        }

        fn plan(&self, archive: bool, results_dir: Option<&str>) -> Result<Plan, Error> {
            let args = BackupArgs { run: None, results_dir: results_dir.map(PathBuf::from), archive, timezone: None };
            let now = Utc.with_ymd_and_hms(2026, 2, 25, 12, 30, 0).unwrap();
            Plan::new(&args, &Environment::of(&[], self.home.path()), now)
        }

        fn carry_out(&self, archive: bool) -> Done {
            self.plan(archive, None).unwrap().carry_out(&AtomicBool::new(false)).unwrap()
        }

        /// Names beside the results directory.
        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.home.path()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn what_a_killed_backup_left_goes_with_the_next_one_and_a_live_one_stays() {
        let place = Place::new();
        let at = |name: &str| place.home.path().join(name);
        std::fs::create_dir_all(at(".tmp-backup-killed/run")).unwrap();
        std::fs::write(at(".tmp-backup-killed.tar.gz"), "half").unwrap();
        std::fs::create_dir(at(".tmp-backup-live")).unwrap();
        symlink(place.home.path(), at(".tmp-backup-link")).unwrap();
        let live = std::fs::File::open(at(".tmp-backup-live")).unwrap();
        live.lock().unwrap();
        place.carry_out(false);
        let left: Vec<String> = place.names().into_iter().filter(|name| name.starts_with(TEMPORARY)).collect();
        assert_eq!(left, [".tmp-backup-link", ".tmp-backup-live"]);
    }

    #[test]
    fn rule_5_a_backup_is_stamped_and_a_second_one_in_the_same_minute_has_its_own_name() {
        let place = Place::new();
        let done = place.carry_out(false);
        assert_eq!((done.sum.files, done.sum.links), (3, 2));
        place.carry_out(false);
        place.carry_out(true);
        place.carry_out(true);
        assert_eq!(
            place.names(),
            [
                "experiment_results",
                "experiment_results_20260225_1430",
                "experiment_results_20260225_1430.tar.gz",
                "experiment_results_20260225_1430_2",
                "experiment_results_20260225_1430_2.tar.gz",
                "secret"
            ]
        );
    }

    #[test]
    fn links_stay_links_and_unfinished_files_stay_out() {
        let place = Place::new();
        let copy = place.carry_out(false).place.join("20260101_1000");
        assert_eq!(std::fs::read_link(copy.join("out")).unwrap(), Path::new("../../secret"));
        assert!(copy.join("home").symlink_metadata().unwrap().is_symlink());
        assert!(!copy.join(".tmp-half").exists());
        for file in ["manifest.json", "journal.jsonl", "logs/a_server.log"] {
            assert_eq!(
                std::fs::read(copy.join(file)).unwrap(),
                std::fs::read(place.fixture.path().join(file)).unwrap()
            );
        }
        let archive = place.carry_out(true).place;
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap()));
        let mut found: Vec<(String, tar::EntryType)> = tar
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().entry_type()))
            .filter(|(_, kind)| *kind != tar::EntryType::Directory)
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let top = "experiment_results_20260225_1430/20260101_1000";
        assert_eq!(
            found,
            [
                (format!("{top}/home"), tar::EntryType::Symlink),
                (format!("{top}/journal.jsonl"), tar::EntryType::Regular),
                (format!("{top}/logs/a_server.log"), tar::EntryType::Regular),
                (format!("{top}/manifest.json"), tar::EntryType::Regular),
                (format!("{top}/out"), tar::EntryType::Symlink),
            ]
        );
    }

    #[test]
    fn the_journal_of_a_live_run_is_never_torn() {
        let place = Place::new();
        let whole = std::fs::read(place.fixture.path().join("journal.jsonl")).unwrap();
        place.fixture.journal_bytes(br#"{"v":1,"at":"2026"#);
        let _lock = hold(&place.fixture);
        let done = place.carry_out(false);
        assert!(done.live);
        assert_eq!(std::fs::read(done.place.join("20260101_1000/journal.jsonl")).unwrap(), whole);
        assert!(!done.place.join(layout::RESULTS_LOCK).exists());
        assert!(place.carry_out(true).packed.is_some());
    }

    #[test]
    fn one_run_alone_becomes_a_results_directory_with_this_run() {
        let place = Place::new();
        for archive in [false, true] {
            let plan = place.plan(archive, Some("experiment_results/20260101_1000")).unwrap();
            let done = plan.carry_out(&AtomicBool::new(false)).unwrap();
            assert_eq!(done.place.parent().unwrap(), place.home.path());
        }
        let copy = place.home.path().join("experiment_results_20260225_1430");
        assert_eq!(record::list_runs(&copy).unwrap().len(), 1);
    }

    #[test]
    fn nothing_half_written_is_left() {
        let place = Place::new();
        let before = place.names();
        for archive in [false, true] {
            let plan = place.plan(archive, None).unwrap();
            assert!(matches!(plan.carry_out(&AtomicBool::new(true)), Err(Stopped::Cancelled)));
            assert!(plan.check_room(u64::MAX).is_err());
            assert_eq!(place.names(), before);
        }
        assert_eq!(place.plan(false, Some("absent")).unwrap_err().exit_code(), exit::NOTHING);
    }

    #[test]
    fn the_time_zone_is_that_of_the_flag_or_the_variable() {
        let environment = Environment::of(&[("VLLM_BENCH_TIMEZONE", "UTC")], Path::new("/"));
        assert_eq!(zone(None, &environment).unwrap(), chrono_tz::UTC);
        assert_eq!(zone(Some("Europe/Berlin"), &environment).unwrap(), chrono_tz::Europe::Berlin);
        assert_eq!(zone(Some("Mars"), &environment).unwrap_err().exit_code(), exit::USAGE);
    }
}

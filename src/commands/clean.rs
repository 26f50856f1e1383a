//! `vllm-bench clean`: removes runs, after asking. Never a live one, never through a link, never a folder that
//! vllm-bench did not make.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::cli::CleanArgs;
use crate::commands::cluster;
use crate::commands::find_run;
use crate::commands::find_run::Head;
use crate::commands::format;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::model::ProcessId;
use crate::record::{self, Holder, Lock, RunDir, layout, list_runs};
use crate::ui::Ui;

/// Beginning of the names of runs that are being removed.
const TEMPORARY: &str = ".tmp-clean-";
/// Runs whose names are shown in full; the others are counted.
const SHOWN: usize = 40;

/// Removes runs.
///
/// # Errors
/// When there is nothing to remove, nobody to ask, or a run is live, not ours or cannot be removed.
pub fn run(args: &CleanArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let dirs = find_run::results_dirs(args.results_dir.as_deref(), environment);
    let choice = choose(args, &dirs, environment)?;
    for run in &choice.live {
        ui.say(&format!("run {} is live and stays", run.name()));
    }
    for path in &choice.unreadable {
        ui.warn(&format!("`{}` has a manifest that vllm-bench cannot read and stays", path.display()));
    }
    if choice.victims.is_empty() {
        return Err(Error::Nothing {
            message: "nothing to clean".into(),
            hint: match args.keep_last {
                Some(_) => "there are no more runs than `--keep-last` keeps".into(),
                None => "name the place with `--results-dir DIR`".into(),
            },
        });
    }
    ui.out(&table(&choice.victims, environment.working_directory()));
    if !args.yes && !agreed(&choice.victims, ui)? {
        ui.say("nothing was removed");
        return Ok(exit::OK);
    }
    let mut freed = 0;
    for victim in &choice.victims {
        remove(victim)?;
        freed += victim.bytes;
    }
    ui.out(&format!("removed {}, {} freed", format::count(choice.victims.len(), "run"), format::bytes(freed)));
    Ok(exit::OK)
}

/// Asks for the whole word.
fn agreed(victims: &[Victim], ui: &Ui) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage {
            message: "there is no terminal to ask at, so nothing was removed".into(),
            hint: "add `--yes` to remove without being asked".into(),
        });
    }
    let question = format!("Remove {} for good? Type \"yes\":", format::count(victims.len(), "run"));
    Ok(ui.ask(&question).as_deref() == Some("yes"))
}

/// A folder that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    path: PathBuf,
    /// When it was made; empty for what an earlier clean-up left.
    created: String,
    experiments: usize,
    results: usize,
    bytes: u64,
}

/// What goes and what stays.
#[derive(Debug, Default)]
struct Choice {
    victims: Vec<Victim>,
    live: Vec<RunDir>,
    /// Runs by their looks, with a manifest that is none of ours, torn, or newer.
    unreadable: Vec<PathBuf>,
}

fn choose(args: &CleanArgs, dirs: &[PathBuf], environment: &Environment) -> Result<Choice, Error> {
    let mut choice = Choice::default();
    if !args.runs.is_empty() {
        for named in &args.runs {
            let victim = named_victim(named, dirs, environment)?;
            if !choice.victims.contains(&victim) {
                choice.victims.push(victim);
            }
        }
        return Ok(choice);
    }
    // `--results-dir` that is itself a run means this run.
    if let Some(dir) = args.results_dir.as_deref().filter(|dir| find_run::is_run(&environment.absolute(dir))) {
        choice.victims.push(named_victim(dir, dirs, environment)?);
        return Ok(choice);
    }
    let mut runs = Vec::new();
    for dir in dirs {
        for run in list_runs(dir)? {
            match Victim::of(&run) {
                Ok(victim) => runs.push((Head::read(&run)?.created_at(), run, victim)),
                Err(_) => choice.unreadable.push(run.path().to_owned()),
            }
        }
        choice.victims.extend(leftovers(dir));
    }
    runs.sort_by(|a, b| (&a.0, a.1.path()).cmp(&(&b.0, b.1.path())));
    let going = runs.len().saturating_sub(args.keep_last.unwrap_or(0));
    for (_, run, victim) in runs.into_iter().take(going) {
        if run.live().is_some() || cluster::open_tasks(&run) > 0 {
            choice.live.push(run)
        } else {
            choice.victims.push(victim)
        }
    }
    Ok(choice)
}

/// A run that the user named; everything that speaks against removing it is an error.
fn named_victim(named: &Path, dirs: &[PathBuf], environment: &Environment) -> Result<Victim, Error> {
    let found = find_run::named(named, dirs, environment)?;
    let path = found.run.path();
    // A results directory stands for its newest run elsewhere; here the user must say which run goes.
    let is_the_same = find_run::is_called(&found.run, named)
        || path.file_name() == environment.absolute(named).file_name()
        || std::fs::canonicalize(environment.absolute(named))
            .is_ok_and(|named| std::fs::canonicalize(path).is_ok_and(|path| path == named));
    if !is_the_same {
        return Err(Error::Usage {
            message: format!("`{}` is no run but holds runs", named.display()),
            hint: "name the runs, or write `--results-dir DIR` to remove all of them".into(),
        });
    }
    if let Some(holder) = found.holder {
        return Err(record::Error::Locked { path: path.to_owned(), holder: Box::new(holder) }.into());
    }
    if cluster::open_tasks(&found.run) > 0 {
        return Err(Error::Usage {
            message: format!("jobs of `{}` are queued or running", path.display()),
            hint: "end them first: `vllm-bench stop`".into(),
        });
    }
    Victim::of(&found.run)
}

impl Victim {
    /// Proves that a folder is a run of ours: no link, with a manifest of ours that is a file of its own.
    fn of(run: &RunDir) -> Result<Self, Error> {
        let path = run.path();
        let is_link = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
        if is_link(path) || is_link(&run.layout().manifest()) {
            return Err(Error::Usage {
                message: format!("`{}` is a link: vllm-bench removes only folders that it made", path.display()),
                hint: "remove the link yourself, or name the folder that it points to".into(),
            });
        }
        let head = Head::read(run)?;
        let results = head.plan.experiments.iter().filter(|e| run.layout().result(&e.name).is_file()).count();
        Ok(Self {
            path: path.to_owned(),
            created: head.created,
            experiments: head.plan.experiments.len(),
            results,
            bytes: size(path),
        })
    }
}

/// What earlier clean-ups could not remove.
fn leftovers(results_dir: &Path) -> Vec<Victim> {
    let entries = std::fs::read_dir(results_dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let path = entry.path();
            Victim { bytes: size(&path), path, created: String::new(), experiments: 0, results: 0 }
        })
        .collect()
}

/// Bytes of all files below a folder; links count as what they are.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match std::fs::symlink_metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Removes a folder: renamed first, so that a half-removed run is never taken for a run; under the lock of the results
/// directory, so that no run goes on in it meanwhile.
fn remove(victim: &Victim) -> Result<(), Error> {
    let path = &victim.path;
    let results_dir = path.parent().unwrap_or(Path::new("/"));
    let lock_path = layout::results_lock(results_dir);
    let lock = match Lock::take(&lock_path)? {
        Ok(mut lock) => {
            lock.sign(&lock_path, &cleaner(results_dir))?;
            Some(lock)
        }
        // A live run holds it: it goes on in its own directory and in no other.
        Err(Some(holder)) if holder.run.file_name() != path.file_name() => None,
        Err(Some(holder)) => return Err(record::Error::Locked { path: path.clone(), holder: Box::new(holder) }.into()),
        Err(None) => {
            return Err(Error::Usage {
                message: format!("a run is just beginning in `{}`", results_dir.display()),
                hint: "try again in a moment".into(),
            });
        }
    };
    let hidden = if is_hidden(path) { path.clone() } else { hide(path, results_dir)? };
    std::fs::remove_dir_all(&hidden).map_err(record::Error::write(&hidden))?;
    drop(lock);
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

fn hide(path: &Path, results_dir: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = results_dir.join(format!("{TEMPORARY}{name}-{:016x}", rand::random::<u64>()));
    std::fs::rename(path, &hidden).map_err(record::Error::write(path))?;
    Ok(hidden)
}

/// Whoever finds the lock taken meanwhile is told by whom.
fn cleaner(results_dir: &Path) -> Holder {
    Holder {
        process: ProcessId::current(),
        user: format::user(nix::unistd::geteuid().as_raw()),
        since: "a moment ago (vllm-bench clean)".into(),
        run: results_dir.join(TEMPORARY),
    }
}

fn table(victims: &[Victim], from: &Path) -> String {
    let shown = &victims[..victims.len().min(SHOWN)];
    let paths: Vec<String> = shown.iter().map(|victim| format::path(&victim.path, from)).collect();
    let width = paths.iter().map(String::len).max().unwrap_or(0).max(3);
    let mut lines =
        vec![format!("{:<width$}  {:<16}  {:>11}  {:>7}  {:>9}", "RUN", "MADE", "EXPERIMENTS", "RESULTS", "SIZE")];
    for (victim, path) in shown.iter().zip(paths) {
        let made = victim.created.get(..16).unwrap_or("").replace('T', " ");
        let made = if made.is_empty() { "left over".to_owned() } else { format::plain(&made) };
        let bytes = format::bytes(victim.bytes);
        lines
            .push(format!("{path:<width$}  {made:<16}  {:>11}  {:>7}  {bytes:>9}", victim.experiments, victim.results));
    }
    if let Some(more @ 1..) = victims.len().checked_sub(SHOWN) {
        lines.push(format!("and {more} more"));
    }
    let bytes = format::bytes(victims.iter().map(|victim| victim.bytes).sum());
    lines.push(format!("{} in all, {bytes}", format::count(victims.len(), "run")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::commands::fixture::{Fixture, hold};

    struct Place {
        home: tempfile::TempDir,
        runs: Vec<Fixture>,
    }

    impl Place {
        fn new(runs: usize) -> Self {
            let home = tempfile::tempdir().unwrap();
            let make = |i: usize| {
                let fixture = Fixture::new(&home.path().join("experiment_results"), &format!("r{i}"));
                fixture.created(&format!("2026-02-{:02}T14:30:00+02:00", i + 1));
                fixture
            };
            let runs = (0..runs).map(make).collect();
            Self { home, runs }
        }

        fn environment(&self) -> Environment {
            Environment::of(&[], self.home.path())
        }

        fn choose(&self, runs: &[&str], keep_last: Option<usize>) -> Result<Vec<String>, Error> {
            let args = self.args(runs, keep_last);
            let dirs = find_run::results_dirs(None, &self.environment());
            let choice = choose(&args, &dirs, &self.environment())?;
            Ok(choice.victims.iter().map(|v| v.path.file_name().unwrap().to_string_lossy().into_owned()).collect())
        }

        fn args(&self, runs: &[&str], keep_last: Option<usize>) -> CleanArgs {
            CleanArgs { runs: runs.iter().map(PathBuf::from).collect(), results_dir: None, keep_last, yes: true }
        }

        fn clean(&self, runs: &[&str], keep_last: Option<usize>) -> Result<u8, Error> {
            let display = crate::ui::Display::PLAIN;
            run(&self.args(runs, keep_last), &self.environment(), &Ui::new(display))
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.home.path().join("experiment_results")).unwrap();
            let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|name| name != layout::RESULTS_LOCK);
            names.sort();
            names
        }
    }

    #[test]
    fn the_oldest_go_and_nothing_to_clean_is_exit_3() {
        let place = Place::new(3);
        assert_eq!(place.choose(&[], Some(1)).unwrap(), ["r0", "r1"]);
        assert_eq!(place.choose(&[], None).unwrap(), ["r0", "r1", "r2"]);
        assert_eq!(place.choose(&["r1", "experiment_results/r1", "./experiment_results/r1/"], None).unwrap(), ["r1"]);
        assert_eq!(place.clean(&[], Some(3)).unwrap_err().exit_code(), exit::NOTHING);
        assert_eq!(place.clean(&[], Some(1)).unwrap(), exit::OK);
        assert_eq!(place.names(), ["r2"]);
    }

    #[test]
    fn a_live_run_is_never_touched() {
        let place = Place::new(2);
        let _lock = hold(&place.runs[0]);
        assert_eq!(place.clean(&["r0"], None).unwrap_err().exit_code(), exit::RECORD);
        assert_eq!(place.clean(&[], None).unwrap(), exit::OK);
        assert_eq!(place.names(), ["r0"]);
        let victim = Victim::of(&place.runs[0].run()).unwrap();
        assert!(remove(&victim).is_err());
        assert!(place.runs[0].path().exists());
    }

    #[test]
    fn links_lead_nowhere() {
        let place = Place::new(1);
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        let elsewhere = Fixture::new(outside.path(), "run");
        symlink(outside.path(), place.runs[0].path().join("out")).unwrap();
        symlink(elsewhere.path(), place.home.path().join("experiment_results/linked")).unwrap();
        assert_eq!(place.choose(&[], None).unwrap(), ["r0"]);
        assert_eq!(place.clean(&["linked"], None).unwrap_err().exit_code(), exit::USAGE);
        assert_eq!(place.clean(&[], None).unwrap(), exit::OK);
        assert!(outside.path().join("precious").exists() && elsewhere.path().join("manifest.json").exists());
        assert_eq!(place.names(), ["linked"]);
    }

    #[test]
    fn a_folder_that_vllm_bench_did_not_make_stays() {
        let place = Place::new(4);
        place.runs[0].write_manifest("{}");
        place.runs[1].write_manifest(r#"{"schema": 99}"#);
        place.runs[2]
            .write_manifest(r#"{"schema": 1, "created": "2026-02-01T00:00:00+02:00", "name": "another tool's"}"#);
        std::fs::create_dir(place.home.path().join("experiment_results/20250101_1000")).unwrap();
        for name in ["r0", "r1", "r2"] {
            assert_eq!(place.clean(&[name], None).unwrap_err().exit_code(), exit::RECORD, "{name}");
        }
        assert_eq!(place.clean(&["20250101_1000"], None).unwrap_err().exit_code(), exit::NOTHING);
        assert_eq!(place.clean(&["experiment_results"], None).unwrap_err().exit_code(), exit::USAGE);
        assert_eq!(place.clean(&[], None).unwrap(), exit::OK);
        assert_eq!(place.names(), ["20250101_1000", "r0", "r1", "r2"]);
    }

    #[test]
    fn what_an_earlier_clean_up_left_goes_too() {
        let place = Place::new(1);
        std::fs::create_dir_all(place.home.path().join("experiment_results/.tmp-clean-r9-1/logs")).unwrap();
        assert_eq!(place.clean(&[], Some(1)).unwrap(), exit::OK);
        assert_eq!(place.names(), ["r0"]);
    }

    #[test]
    fn the_table_is_aligned() {
        let victim = |name: &str, bytes| Victim {
            path: format!("/w/experiment_results/{name}").into(),
            created: "2026-02-25T14:30:00+02:00".into(),
            experiments: 27,
            results: 26,
            bytes,
        };
        insta::assert_snapshot!(table(
            &[victim("20260225_1430", 12_345_678), victim("20260225_1430_2", 9)],
            Path::new("/w")
        ));
    }
}

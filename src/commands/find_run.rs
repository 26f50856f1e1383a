//! Finds results directories and runs: what the user named, else the live run, else the newest. Reads only.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::config::Environment;
use crate::error::Error;
use crate::model::{Event, Repeat, UntilDecided};
use crate::process::registry;
use crate::record::run_name::LATEST;
use crate::record::{self, Holder, Limits, Lock, RunDir, SCHEMA, atomic, layout, list_runs};

use crate::commands::format;

/// Where runs are made unless the user says otherwise: `run`, `sanity`.
pub const DEFAULT_RESULTS_DIRS: [&str; 2] = ["experiment_results", "sanity_test_results"];
/// The variable that names another results directory.
const VARIABLE: &str = "VLLM_BENCH_RESULTS_DIR";

/// A run, and who writes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The run.
    pub run: RunDir,
    /// Who writes to it now; `None` where it is not live.
    pub holder: Option<Holder>,
}

/// What the commands around a run need of its manifest. Less than [`record::Manifest`], so that a run stays visible
/// whatever its report of devices looks like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    /// Format version.
    pub schema: u32,
    /// Which vllm-bench made it: the sign that this folder is ours.
    pub vllm_bench: String,
    /// Whether no metric was measured on a real server.
    #[serde(default)]
    pub simulated: bool,
    /// The name that its user gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// When, RFC 3339.
    #[serde(default)]
    pub created: String,
    /// Time limits.
    pub limits: Option<Limits>,
    /// The experiments.
    pub plan: PlanHead,
}

/// The plan's names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PlanHead {
    /// In running order.
    pub experiments: Vec<ExperimentHead>,
    /// Combinations that a rule leaves out.
    #[serde(default)]
    pub skips: Vec<SkipHead>,
    /// How many there are of them; of a very large plan not all are listed.
    #[serde(default)]
    pub skipped: usize,
    /// Where not all of it is measured.
    #[serde(default)]
    pub until_decided: Option<UntilDecided>,
}

/// What names one experiment, and what it shares with others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExperimentHead {
    /// Position in the plan, from 1.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Name of the server configuration; that of the experiment where the manifest has none.
    #[serde(default)]
    server_name: String,
    /// Which measurement of the same settings.
    #[serde(default)]
    pub repeat: Repeat,
    /// What varies.
    #[serde(default)]
    pub axes: AxesHead,
}

/// The axes by which experiments share prices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct AxesHead {
    /// The model.
    #[serde(default)]
    pub model: String,
    /// The workload's keys that vary.
    #[serde(default)]
    pub workload: IndexMap<String, String>,
}

impl ExperimentHead {
    /// What its server is called.
    pub fn server_name(&self) -> &str {
        if self.server_name.is_empty() { &self.name } else { &self.server_name }
    }
}

/// Why a combination is left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SkipHead {
    /// For the user.
    pub reason: String,
}

impl Head {
    /// Reads it.
    ///
    /// # Errors
    /// When the manifest cannot be read, is none of ours, or is newer than this program.
    pub fn read(run: &RunDir) -> Result<Self, record::Error> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let path = run.layout().manifest();
        let version: Version = atomic::read_json(&path, "manifest of vllm-bench")?;
        if version.schema > SCHEMA {
            return Err(record::Error::Newer { path, found: version.schema, known: SCHEMA });
        }
        let mut head: Self = atomic::read_json(&path, "manifest of vllm-bench")?;
        if head.plan.until_decided.is_some() {
            let (state, until) = (run.state().unwrap_or_default(), head.plan.until_decided);
            head.plan.experiments.retain(|e| state.is_asked(until, &e.name, e.repeat));
        }
        Ok(head)
    }

    /// Reads it; where the manifest is damaged or gone, what the journal says of the plan, and what is wrong with the manifest.
    ///
    /// # Errors
    /// When neither says anything, or a newer version wrote it.
    pub fn read_or_remains(run: &RunDir) -> Result<(Self, Option<String>), record::Error> {
        let error = match Self::read(run) {
            Ok(head) => return Ok((head, None)),
            Err(error @ record::Error::Newer { .. }) => return Err(error),
            Err(error) => error,
        };
        let entries = run.journal().map(|journal| journal.entries).unwrap_or_default();
        if entries.is_empty() {
            return Err(error);
        }
        let mut experiments: Vec<ExperimentHead> = Vec::new();
        let mut simulated = false;
        for entry in &entries {
            match &entry.event {
                Event::ExperimentStarted { index, name, .. } if experiments.iter().all(|known| known.name != *name) => {
                    experiments.push(ExperimentHead {
                        index: *index,
                        name: name.clone(),
                        server_name: String::new(),
                        repeat: Repeat::FIRST,
                        axes: AxesHead::default(),
                    });
                }
                Event::RunStarted { simulated: made_up, .. } => simulated |= made_up,
                _ => {}
            }
        }
        let head = Self {
            schema: SCHEMA,
            vllm_bench: String::new(),
            simulated,
            name: None,
            created: entries.first().map(|entry| entry.at.clone()).unwrap_or_default(),
            limits: None,
            plan: PlanHead { experiments, skips: Vec::new(), skipped: 0, until_decided: None },
        };
        Ok((head, Some(format!("{error}: only what was begun is known, as the journal says"))))
    }

    /// When the run was made.
    pub fn created_at(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(&self.created).ok().map(|at| at.with_timezone(&Utc))
    }
}

/// The results directories to look at: the one named, else that of the environment and the two defaults.
pub fn results_dirs(named: Option<&Path>, environment: &Environment) -> Vec<PathBuf> {
    let dirs: Vec<PathBuf> = match named {
        Some(named) => {
            let named = tidy(environment, named);
            vec![if is_run(&named) { parent(&named) } else { named }]
        }
        None => {
            let variable = environment.get(VARIABLE).map(|dir| tidy(environment, dir));
            variable.into_iter().chain(DEFAULT_RESULTS_DIRS.map(|dir| environment.absolute(dir))).collect()
        }
    };
    distinct(dirs)
}

/// The one results directory to work on: the one named, else that of the environment, else the full sweep's.
pub fn one_results_dir(named: Option<&Path>, environment: &Environment) -> PathBuf {
    let named = named.or(environment.get(VARIABLE).map(Path::new)).unwrap_or(Path::new(DEFAULT_RESULTS_DIRS[0]));
    tidy(environment, named)
}

/// Results directories of this user's runs that have live process groups, wherever they are.
pub fn registered_results_dirs() -> Vec<PathBuf> {
    let records = registry::records().unwrap_or_default();
    distinct(records.iter().filter(|record| record.is_cared_for()).map(|record| parent(&record.owner.run)).collect())
}

/// The live run of a results directory.
pub fn live_run(results_dir: &Path) -> Option<Found> {
    let holder = Lock::holder(&layout::results_lock(results_dir))?;
    let run = RunDir::open(&results_dir.join(holder.run.file_name()?)).ok()?;
    Some(Found { run, holder: Some(holder) })
}

/// The run to show: the one named, else the live one, else the newest.
///
/// # Errors
/// When there is none, or none of this name.
pub fn find(run: Option<&Path>, results_dir: Option<&Path>, environment: &Environment) -> Result<Found, Error> {
    if let Some(named) = results_dir.map(|dir| tidy(environment, dir)).filter(|dir| run.is_none() && is_run(dir)) {
        return open(&named);
    }
    let dirs = results_dirs(results_dir, environment);
    match run {
        Some(run) => named(run, &dirs, environment),
        None if results_dir.is_none() => find_in(&dirs, &registered_results_dirs(), environment),
        None => find_in(&dirs, &[], environment),
    }
}

/// The live run of the results directories of this place, else their newest; not what runs elsewhere.
///
/// # Errors
/// When there is none.
pub fn find_here(environment: &Environment) -> Result<Found, Error> {
    find_in(&results_dirs(None, environment), &[], environment)
}

/// The one rule by which every command picks a run: the newest live run in `dirs`, else the newest run there, else the newest
/// live run in `others`. Which runs elsewhere have a process at this moment changes from one second to the next: where there
/// is a run at all in `dirs`, they decide nothing.
fn find_in(dirs: &[PathBuf], others: &[PathBuf], environment: &Environment) -> Result<Found, Error> {
    if let Some(live) = newest_live(dirs) {
        return Ok(live);
    }
    if let Some(run) = newest(dirs)? {
        return Ok(Found { run, holder: None });
    }
    newest_live(others).ok_or_else(|| no_run(dirs, environment))
}

/// Of several live runs the one that was made last.
fn newest_live(dirs: &[PathBuf]) -> Option<Found> {
    dirs.iter().filter_map(|dir| live_run(dir)).max_by_key(|found| found.run.created())
}

/// Says where another run is live, when the one that is shown is not: a reader may have meant that one.
pub fn live_elsewhere(found: &Found, environment: &Environment) -> Option<String> {
    if found.holder.is_some() {
        return None;
    }
    let other = newest_live(&registered_results_dirs()).filter(|other| other.run.path() != found.run.path())?;
    let place = other.run.path().parent().map(|dir| format::path(dir, environment.working_directory()))?;
    Some(format!("a run is live elsewhere: `--results-dir {place}` shows it"))
}

/// The run that the user named: by path, by the name of its directory in one of the results directories, as `latest`, or by the
/// name that it was given.
///
/// # Errors
/// When there is none of this name, with the nearest names; when several have it.
pub fn named(run: &Path, dirs: &[PathBuf], environment: &Environment) -> Result<Found, Error> {
    let as_path = tidy(environment, run);
    if is_run(&as_path) {
        return open(&as_path);
    }
    if let Some(name) = only_word(run)
        && let Some(path) = dirs.iter().map(|dir| dir.join(name)).find(|path| is_run(path))
    {
        return open(&path);
    }
    if as_path.is_dir() && !list_runs(&as_path)?.is_empty() {
        return find_in(&[as_path], &[], environment);
    }
    match called(run, dirs, environment)? {
        Some(run) => Ok(Found { holder: run.live(), run }),
        None => Err(unknown(run, dirs)),
    }
}

/// The run that `latest` means, or that was given this name.
///
/// # Errors
/// When there is no newest run, or several runs were given the name.
pub fn called(name: &Path, dirs: &[PathBuf], environment: &Environment) -> Result<Option<RunDir>, Error> {
    let Some(name) = only_word(name).and_then(OsStr::to_str) else { return Ok(None) };
    if name == LATEST {
        return newest(dirs)?.map(Some).ok_or_else(|| no_run(dirs, environment));
    }
    let mut found: Vec<RunDir> = Vec::new();
    for dir in dirs {
        found.extend(list_runs(dir)?.into_iter().filter(|run| run.given_name().as_deref() == Some(name)));
    }
    if let [_, _, ..] = found.as_slice() {
        let from = environment.working_directory();
        let places: Vec<String> = found.iter().map(|run| format!("`{}`", format::path(run.path(), from))).collect();
        return Err(Error::Usage {
            message: format!("{} runs are called `{}`: {}", found.len(), name.escape_debug(), places.join(" and ")),
            hint: "name the directory of the one that is meant".into(),
        });
    }
    Ok(found.pop())
}

/// Whether the user means a run by this name, and not by a path.
pub fn is_called(run: &RunDir, name: &Path) -> bool {
    name == Path::new(LATEST) || run.given_name().is_some_and(|given| name == Path::new(&given))
}

/// The error where no run has this name: the name that is near, then the newest runs.
pub fn unknown(run: &Path, dirs: &[PathBuf]) -> Error {
    const NEWEST: usize = 3;
    let name = run.display().to_string();
    let runs = || dirs.iter().map(|dir| list_runs(dir).unwrap_or_default());
    let all: Vec<String> = runs().flatten().flat_map(|run| run.given_name().into_iter().chain([run.name()])).collect();
    let near = crate::nearest::nearest(&name, all.iter().map(String::as_str)).map(str::to_owned);
    let mut nearest: Vec<String> = near.into_iter().collect();
    for run in runs().flat_map(|runs| runs.into_iter().rev().take(NEWEST)) {
        if !nearest.iter().any(|near| *near == run.called() || *near == run.name()) {
            nearest.push(run.called());
        }
    }
    Error::NotFound { what: "run", name, place: dirs.first().cloned().unwrap_or_default(), nearest }
}

/// Refuses a name that another run of the results directory has, or that is the name of a directory there.
///
/// # Errors
/// With the run that has it, and the way out.
pub fn require_free_name(name: &str, results_dir: &Path, environment: &Environment) -> Result<(), Error> {
    let owner = list_runs(results_dir)?.into_iter().find(|run| run.name() == name || run.called() == name);
    let path = match owner {
        Some(run) => run.path().to_owned(),
        None if results_dir.join(name).symlink_metadata().is_ok() => results_dir.join(name),
        None => return Ok(()),
    };
    let (place, word) = (format::path(&path, environment.working_directory()), format::word(name));
    Err(Error::Usage {
        message: format!("the name `{}` is taken: `{place}` has it", name.escape_debug()),
        hint: format!(
            "choose another with `--name`; `vllm-bench run --resume {word}` goes on with that run, and `vllm-bench clean {word}` \
             removes it"
        ),
    })
}

/// What is one word, and no path.
fn only_word(name: &Path) -> Option<&OsStr> {
    let mut parts = name.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(word)), None) => Some(word),
        _ => None,
    }
}

/// The error where nothing that can be analysed has the name that the user wrote: what was looked for, where, and what is near.
pub fn no_source(named: &Path, dirs: &[PathBuf], runs: Vec<String>, environment: &Environment) -> Error {
    let from = environment.working_directory();
    let as_path = environment.absolute(named);
    let places: Vec<String> = dirs.iter().map(|dir| format!("`{}`", format::path(dir, from))).collect();
    let message = format!(
        "neither a run nor a file `{}` was found: looked for the path `{}`, and for a run of this name in {}",
        named.display().to_string().escape_debug(),
        format::path(&as_path, from),
        places.join(" and ")
    );
    // A slip of the pen in the last part of the path.
    let beside: Vec<String> = as_path
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let name = as_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let near = crate::nearest::nearest(&name, beside.iter().map(String::as_str));
    // A name without a folder is more likely that of a run.
    let run = only_word(named).and_then(|_| crate::nearest::nearest(&name, runs.iter().map(String::as_str)));
    let hint = match near {
        _ if run.is_some() => format!("did you mean the run `{}`?", run.unwrap_or_default().escape_debug()),
        Some(near) => {
            format!("did you mean `{}`?", format::path(&as_path.with_file_name(near), from).escape_debug())
        }
        None if !runs.is_empty() => format!("there is: {}", runs.join(", ")),
        None => {
            "name a run, a results directory or a file of results (docs/sources.md says which are read), or none for \
                 the newest run"
                .into()
        }
    };
    Error::Nothing { message, hint }
}

/// The error where there is no run.
pub fn no_run(dirs: &[PathBuf], environment: &Environment) -> Error {
    let from = environment.working_directory();
    let places: Vec<String> = dirs.iter().map(|dir| format!("`{}`", format::path(dir, from))).collect();
    Error::Nothing {
        message: format!("there is no run in {}", places.join(" or ")),
        hint: "start one with `vllm-bench run`, or name the place with `--results-dir DIR`".into(),
    }
}

/// Whether a path is a run, also one whose manifest is damaged.
pub fn is_run(path: &Path) -> bool {
    RunDir::at(path).is_some()
}

fn open(path: &Path) -> Result<Found, Error> {
    let run = RunDir::at(path).ok_or_else(|| record::Error::NotARun(path.to_owned()))?;
    let holder = run.live();
    Ok(Found { run, holder })
}

fn newest(dirs: &[PathBuf]) -> Result<Option<RunDir>, Error> {
    let mut candidates = Vec::new();
    for dir in dirs {
        if let Some(run) = list_runs(dir)?.pop() {
            candidates.push((run.created(), run));
        }
    }
    candidates.sort_by_key(|(created, _)| *created);
    Ok(candidates.pop().map(|(_, run)| run))
}

/// Absolute, and with a last component that is a name: `..` at the end is resolved.
fn tidy(environment: &Environment, path: impl AsRef<Path>) -> PathBuf {
    let path = environment.absolute(path);
    if path.components().any(|part| part == Component::ParentDir) {
        return std::fs::canonicalize(&path).unwrap_or(path);
    }
    path
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

fn distinct(dirs: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for dir in dirs.into_iter().filter(|dir| dir.as_os_str() != OsStr::new("")) {
        if !seen.contains(&dir) {
            seen.push(dir);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture::{Fixture, hold};

    #[test]
    fn a_live_run_wins_over_a_newer_one_and_the_newest_over_both_defaults_is_next() {
        let home = tempfile::tempdir().unwrap();
        let old = Fixture::new(&home.path().join("experiment_results"), "20260101_1000");
        old.created("2026-01-01T10:00:00+02:00");
        let new = Fixture::new(&home.path().join("sanity_test_results"), "20251231_1000");
        new.created("2026-01-02T10:00:00+02:00");
        let environment = Environment::of(&[], home.path());
        let dirs = results_dirs(None, &environment);
        assert_eq!(find_in(&dirs, &[], &environment).unwrap().run.path(), new.path());
        let _lock = hold(&old);
        let live = find_in(&dirs, &[], &environment).unwrap();
        assert_eq!(live.run.path(), old.path());
        assert_eq!(live.holder.unwrap().user, "ana");
        assert_eq!(find_in(&dirs[1..], &dirs[..1], &environment).unwrap().run.path(), new.path(), "not live, but here");
        let empty = [home.path().join("nothing")];
        assert_eq!(find_in(&empty, &dirs[..1], &environment).unwrap().run.path(), old.path(), "where nothing is here");
        // Of two that are live the newer one, whatever the order of their places.
        let _other = hold(&new);
        for places in [dirs.clone(), dirs.iter().rev().cloned().collect()] {
            assert_eq!(find_in(&places, &[], &environment).unwrap().run.path(), new.path());
        }
    }

    #[test]
    fn a_run_is_named_by_path_by_name_or_through_its_results_directory() {
        let home = tempfile::tempdir().unwrap();
        let run = Fixture::new(&home.path().join("sanity_test_results"), "20260101_1000");
        let environment = Environment::of(&[], home.path());
        for name in
            ["20260101_1000", "sanity_test_results/20260101_1000", "sanity_test_results", "./sanity_test_results/"]
        {
            assert_eq!(find(Some(Path::new(name)), None, &environment).unwrap().run.path(), run.path(), "{name}");
        }
        let here = Environment::of(&[], run.path());
        for name in [".", "../20260101_1000", "logs/.."] {
            let found = find(None, Some(Path::new(name)), &here).unwrap().run;
            assert_eq!(found.path().canonicalize().unwrap(), run.path().canonicalize().unwrap(), "{name}");
        }
        assert_eq!(results_dirs(Some(run.path()), &environment), [home.path().join("sanity_test_results")]);
        let error = find(Some(Path::new("2026")), None, &environment).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::NOTHING);
        assert_eq!(error.hints(), ["there is: 20260101_1000"]);
    }

    #[test]
    fn a_run_is_found_by_the_name_that_it_was_given_and_the_newest_as_latest() {
        let home = tempfile::tempdir().unwrap();
        let results = home.path().join("experiment_results");
        let old = Fixture::new(&results, "20260101_1000");
        old.name("baseline");
        let new = Fixture::new(&results, "20260101_1001");
        new.created("2026-02-26T14:30:00+02:00");
        let environment = Environment::of(&[], home.path());
        let found =
            |name: &str| find(Some(Path::new(name)), None, &environment).map(|found| found.run.path().to_owned());
        assert_eq!(found("baseline").unwrap(), old.path());
        assert_eq!(found("latest").unwrap(), new.path());
        assert!(is_called(&old.run(), Path::new("baseline")) && !is_called(&new.run(), Path::new("baseline")));
        let error = found("baselin").unwrap_err();
        assert_eq!((error.exit_code(), error.hints()[0].as_str()), (3, "there is: baseline, 20260101_1001"));
        // A path wins over a name, and a directory over both.
        new.name("20260101_1000");
        assert_eq!(found("20260101_1000").unwrap(), old.path());
        let twin = Fixture::new(&home.path().join("sanity_test_results"), "20260101_1002");
        twin.name("baseline");
        let error = found("baseline").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        for place in ["`./experiment_results/20260101_1000`", "`./sanity_test_results/20260101_1002`"] {
            assert!(error.to_string().contains(place), "{error}");
        }
    }

    #[test]
    fn a_name_is_given_once_in_a_results_directory() {
        let home = tempfile::tempdir().unwrap();
        let results = home.path().join("experiment_results");
        Fixture::new(&results, "20260101_1000").name("baseline");
        Fixture::new(&results, "by-hand");
        std::fs::create_dir(results.join("notes")).unwrap();
        let environment = Environment::of(&[], home.path());
        let taken = |name: &str| require_free_name(name, &results, &environment).map_err(|error| error.to_string());
        assert_eq!(taken("tuned"), Ok(()));
        for (name, place) in [("baseline", "20260101_1000"), ("by-hand", "by-hand"), ("notes", "notes")] {
            let place = format!("`./experiment_results/{place}` has it");
            assert!(taken(name).is_err_and(|error| error.contains(&place)), "{name}");
        }
        let elsewhere = home.path().join("sanity_test_results");
        assert!(require_free_name("baseline", &elsewhere, &environment).is_ok());
    }

    #[test]
    fn the_variable_adds_a_results_directory_and_no_run_is_exit_3() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment::of(&[(VARIABLE, "elsewhere")], home.path());
        let dirs = results_dirs(None, &environment);
        assert_eq!(dirs[0], home.path().join("elsewhere"));
        assert_eq!(dirs.len(), 3);
        assert_eq!(one_results_dir(None, &environment), dirs[0]);
        let error = find_in(&dirs, &[], &environment).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no run in `./elsewhere` or `./experiment_results` or `./sanity_test_results`"
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_foreign_or_newer_manifest_is_told() {
        let home = tempfile::tempdir().unwrap();
        let run = Fixture::new(home.path(), "r");
        assert!(Head::read(&run.run()).is_ok());
        run.write_manifest(r#"{"schema": 99}"#);
        assert!(matches!(Head::read(&run.run()), Err(record::Error::Newer { found: 99, .. })));
        for text in ["", "{", r#"{"schema": 1}"#, r#"{"schema": 1, "plan": {"experiments": []}}"#, "[]"] {
            run.write_manifest(text);
            assert!(matches!(Head::read(&run.run()), Err(record::Error::Parse { .. })), "{text}");
        }
    }
}

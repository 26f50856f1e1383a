//! `vllm-bench logs`: prints the newest log, follows it, and moves on as experiments change. Reads only.

mod sanitize;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::sanitize::Sanitizer;
use super::tail::{JournalTail, Tail};
use crate::cli::LogsArgs;
use crate::commands::find_run;
use crate::commands::find_run::{Found, Head};
use crate::commands::format;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::model::Event;
use crate::model::Stamped;
use crate::process::Role;
use crate::record::layout::Layout;
use crate::record::{Holder, RunDir, RunState};
use crate::ui::Ui;

/// How often it is looked for something new.
const POLL: Duration = Duration::from_millis(150);
/// How many names are listed where one is not clear.
const NAMES: usize = 10;

/// Shows logs.
///
/// # Errors
/// When there is no such run, experiment or log, or it cannot be read.
pub async fn run(args: &LogsArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let Meant { found, wanted, damaged, is_named } = meant(args, environment)?;
    if !is_named && args.results_dir.is_none() {
        find_run::live_elsewhere(&found, environment).iter().for_each(|note| ui.say(note));
    }
    damaged.iter().for_each(|what| ui.warn(what));
    let role = match (args.server, args.benchmark) {
        (true, _) => Some(Role::Server),
        (false, true) => Some(Role::Benchmark),
        (false, false) => None,
    };
    let mut scene = Scene { wanted, role, attempt: 1 };
    let mut journal = JournalTail::of_run(&found.run);
    let entries = journal.read().map_err(unreadable(&found.run.layout().journal()))?;
    let newest = entries.iter().filter_map(|entry| scene.apply(entry)).last();
    let at = entries.last().and_then(|entry| chrono::DateTime::parse_from_rfc3339(&entry.at).ok());
    if let Some(times) = at.and_then(format::log_times) {
        ui.say(&times);
    }
    let state = RunState::replay(&entries);
    let follow = !args.no_follow && is_open(&found, &state, &scene, newest.is_some());
    if newest.is_none() && !follow {
        return Err(no_log(&found, &scene));
    }
    let mut show = Show { layout: found.run.layout().clone(), ui, current: None };
    match newest {
        Some(target) => show.begin(target, Some(args.lines))?,
        None => ui.say("no log yet: waiting for the first"),
    }
    show.drain()?;
    if follow && let Some(holder) = &found.holder {
        let follower = Follower { journal, scene, run: &found.run, holder };
        follower.follow(&mut show).await?;
    }
    show.end();
    Ok(if damaged.is_empty() { exit::OK } else { exit::RECORD })
}

/// Of what the logs are shown.
struct Meant {
    found: Found,
    wanted: Option<String>,
    damaged: Vec<String>,
    /// Whether the user named the run.
    is_named: bool,
}

/// The run and the experiment that the user means. A word that is no experiment may name a run, as everywhere.
fn meant(args: &LogsArgs, environment: &Environment) -> Result<Meant, Error> {
    let of_run = |found: Found, is_named: bool| {
        let damaged = found.run.manifest().err().map(|error| error.to_string()).into_iter().collect();
        Meant { found, wanted: None, damaged, is_named }
    };
    let found = find_run::find(args.run.as_deref(), args.results_dir.as_deref(), environment);
    let Some(text) = &args.experiment else { return Ok(of_run(found?, args.run.is_some())) };
    let selected = found.and_then(|found| {
        let (head, wrong) = Head::read_or_remains(&found.run)?;
        let wanted = Some(select(&head, text, found.run.path())?);
        Ok(Meant { found, wanted, damaged: wrong.into_iter().collect(), is_named: args.run.is_some() })
    });
    match selected {
        Err(error @ (Error::NotFound { .. } | Error::Nothing { .. })) if args.run.is_none() => {
            let dirs = find_run::results_dirs(args.results_dir.as_deref(), environment);
            match find_run::named(Path::new(text), &dirs, environment) {
                Ok(found) => Ok(of_run(found, true)),
                Err(Error::NotFound { nearest, .. }) => Err(with_runs(error, text, nearest)),
                Err(_) => Err(error),
            }
        }
        selected => selected,
    }
}

/// The error where a word is neither an experiment nor a run: the run that is near comes before the experiments.
fn with_runs(error: Error, text: &str, runs: Vec<String>) -> Error {
    let near = crate::nearest::nearest(text, runs.iter().map(String::as_str)).map(str::to_owned);
    match error {
        Error::NotFound { name, place, nearest, .. } => Error::NotFound {
            what: "experiment or run",
            name,
            place,
            nearest: near.into_iter().chain(nearest).collect(),
        },
        error => error,
    }
}

/// Whether more can come: the run is live, and the experiment asked for is not over.
fn is_open(found: &Found, state: &RunState, scene: &Scene, has_log: bool) -> bool {
    let Some(holder) = &found.holder else { return false };
    let over = state.finished.is_some() && state.process == Some(holder.process);
    let wanted_is_over = scene.wanted.as_ref().is_some_and(|wanted| has_log && !state.live.contains_key(wanted));
    !over && !wanted_is_over
}

fn no_log(found: &Found, scene: &Scene) -> Error {
    let what = scene.role.map_or("log".to_owned(), |role| format!("log of a {role}"));
    let of = scene.wanted.as_ref().map_or("run".to_owned(), |name| format!("experiment {}, run", format::plain(name)));
    Error::Nothing {
        message: format!("there is no {what} of {of} {} yet", found.run.name()),
        hint: "`vllm-bench status` shows which experiments were begun".into(),
    }
}

/// The experiment that the user means: by name, by number, or by a part of a name that only one has.
fn select(head: &Head, text: &str, place: &Path) -> Result<String, Error> {
    let experiments = &head.plan.experiments;
    let exact = experiments.iter().find(|experiment| experiment.name == text);
    let number = text.parse::<usize>().ok();
    if let Some(found) = exact.or_else(|| experiments.iter().find(|experiment| Some(experiment.index) == number)) {
        return Ok(found.name.clone());
    }
    let fitting: Vec<&str> =
        experiments.iter().map(|experiment| experiment.name.as_str()).filter(|name| name.contains(text)).collect();
    match fitting.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Error::NotFound {
            what: "experiment",
            name: text.to_owned(),
            place: place.to_owned(),
            nearest: experiments.iter().take(NAMES).map(|experiment| experiment.name.clone()).collect(),
        }),
        many => {
            let more = if many.len() > NAMES { ", …" } else { "" };
            let names: Vec<String> = many.iter().take(NAMES).map(|name| format!("`{name}`")).collect();
            Err(Error::Usage {
                message: format!("`{text}` is a part of {} names", many.len()),
                hint: format!("write a number or more of one of these: {}{more}", names.join(", ")),
            })
        }
    }
}

/// A log to show.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: String,
    /// As the journal says; a journal of version 0.1 does not.
    log: Option<PathBuf>,
    role: Role,
    attempt: u32,
}

impl Target {
    fn path(&self, layout: &Layout) -> PathBuf {
        if let Some(log) = &self.log {
            return layout.root().join(log);
        }
        match self.role {
            Role::Server => layout.server_log(&self.name, 1),
            Role::Benchmark => layout.benchmark_log(&self.name, 1),
        }
    }

    fn header(&self) -> String {
        let attempt = if self.attempt > 1 { format!(" (attempt {})", self.attempt) } else { String::new() };
        format!("==> {} {}{attempt} <==", format::plain(&self.name), self.role)
    }
}

/// Reads off the journal which log comes next.
#[derive(Debug)]
struct Scene {
    wanted: Option<String>,
    role: Option<Role>,
    attempt: u32,
}

impl Scene {
    fn apply(&mut self, entry: &Stamped) -> Option<Target> {
        let (name, role, log) = if let Event::ServerLaunched { name, log, .. } = &entry.event {
            (name, Role::Server, log)
        } else if let Event::BenchmarkLaunched { name, log, .. } = &entry.event {
            (name, Role::Benchmark, log)
        } else {
            if let Event::ExperimentStarted { attempt, .. } = &entry.event {
                self.attempt = *attempt;
            }
            return None;
        };
        let shown = self.role.is_none_or(|only| only == role) && self.wanted.as_ref().is_none_or(|only| only == name);
        shown.then(|| Target { name: name.clone(), log: log.clone(), role, attempt: self.attempt })
    }

    /// Whether nothing more will come.
    fn is_over(&self, entry: &Stamped) -> bool {
        let ours = |name: &String| self.wanted.as_ref() == Some(name);
        matches!(&entry.event, Event::RunFinished { .. })
            || matches!(&entry.event, Event::ExperimentFinished { name, .. } if ours(name))
    }
}

/// Watches a live run.
struct Follower<'a> {
    journal: JournalTail,
    scene: Scene,
    run: &'a RunDir,
    holder: &'a Holder,
}

impl Follower<'_> {
    /// Shows what comes until the run ends; Ctrl-C is a normal end.
    async fn follow(mut self, show: &mut Show<'_>) -> Result<(), Error> {
        let mut interrupted = std::pin::pin!(crate::process::signals::interrupted());
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = &mut interrupted => return Ok(()),
            }
            if self.step(show)? || format::stdout_is_gone() {
                return Ok(());
            }
        }
    }

    /// Shows what is new; true where nothing more will come.
    fn step(&mut self, show: &mut Show<'_>) -> Result<bool, Error> {
        // Asked before reading: what was written before the end is still shown.
        let mut over = !self.is_live();
        let path = self.run.layout().journal();
        let mut next = VecDeque::new();
        for entry in self.journal.read().map_err(unreadable(&path))? {
            over |= self.scene.is_over(&entry);
            next.extend(self.scene.apply(&entry));
        }
        show.drain()?;
        for target in next {
            show.begin(target, None)?;
            show.drain()?;
        }
        Ok(over)
    }

    /// A holder in another container cannot be seen; its lock can.
    fn is_live(&self) -> bool {
        self.holder.process.is_alive() || self.run.live().is_some()
    }
}

/// What is being shown.
struct Show<'a> {
    layout: Layout,
    ui: &'a Ui,
    current: Option<(Target, Tail, Sanitizer)>,
}

impl Show<'_> {
    /// Moves on to another log; from its first byte, or from its last `lines`.
    fn begin(&mut self, target: Target, lines: Option<usize>) -> Result<(), Error> {
        let path = target.path(&self.layout);
        // A new attempt takes the place of the old log: the reader notices that by itself.
        if let Some((current, tail, _)) = &mut self.current
            && tail.path() == path
        {
            *current = target;
            return Ok(());
        }
        let tail = match lines {
            Some(lines) => Tail::last_lines(&path, lines).map_err(unreadable(&path))?,
            None => Tail::whole(&path),
        };
        self.end();
        self.ui.say(&target.header());
        self.current = Some((target, tail, Sanitizer::new(self.ui.display.color_out)));
        Ok(())
    }

    /// Writes what is new.
    fn drain(&mut self) -> Result<(), Error> {
        let Some((target, tail, sanitizer)) = &mut self.current else { return Ok(()) };
        loop {
            let piece = tail.read().map_err(unreadable(tail.path()))?;
            if piece.restarted {
                self.ui.out_harmless(&sanitizer.finish());
                self.ui.say(&target.header());
            }
            if piece.bytes.is_empty() || format::stdout_is_gone() {
                return Ok(());
            }
            self.ui.out_harmless(&sanitizer.feed(&piece.bytes));
        }
    }

    fn end(&mut self) {
        if let Some((_, _, mut sanitizer)) = self.current.take() {
            self.ui.out_harmless(&sanitizer.finish());
        }
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Record(crate::record::Error::Read { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture::{Fixture, hold, holder};

    fn targets(fixture: &Fixture, wanted: Option<&str>, role: Option<Role>) -> Vec<(String, Role)> {
        let mut scene = Scene { wanted: wanted.map(str::to_owned), role, attempt: 1 };
        let entries = fixture.run().journal().unwrap().entries;
        entries.iter().filter_map(|entry| scene.apply(entry)).map(|target| (target.name, target.role)).collect()
    }

    #[test]
    fn an_experiment_is_named_by_number_name_or_a_part_that_only_one_has() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        fixture.plan(&["m_tp2_eager-true", "m_tp2_eager-false", "m_tp4_eager-true", "m_tp2"]);
        let head = Head::read(&fixture.run()).unwrap();
        let pick = |text: &str| select(&head, text, fixture.path());
        assert_eq!(pick("2").unwrap(), "m_tp2_eager-false");
        assert_eq!(pick("m_tp2").unwrap(), "m_tp2");
        assert_eq!(pick("tp4").unwrap(), "m_tp4_eager-true");
        let ambiguous = pick("eager-true").unwrap_err();
        assert_eq!(ambiguous.exit_code(), exit::USAGE);
        assert_eq!(
            ambiguous.hints(),
            ["write a number or more of one of these: `m_tp2_eager-true`, `m_tp4_eager-true`"]
        );
        assert_eq!(pick("tp8").unwrap_err().exit_code(), exit::NOTHING);
        assert_eq!(pick("99").unwrap_err().exit_code(), exit::NOTHING);
    }

    #[test]
    fn the_journal_says_which_log_is_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        fixture.session(0, 3).begin(1, 1, "a").measure(5, "a").pass(9, 1, "a", 8.0).begin(10, 2, "b");
        let all = [("a", Role::Server), ("a", Role::Benchmark), ("b", Role::Server)];
        let expected: Vec<(String, Role)> = all.map(|(name, role)| (name.to_owned(), role)).to_vec();
        assert_eq!(targets(&fixture, None, None), expected);
        assert_eq!(targets(&fixture, Some("a"), None), expected[..2]);
        assert_eq!(targets(&fixture, None, Some(Role::Benchmark)), expected[1..2]);
        assert_eq!(targets(&fixture, Some("c"), None), []);
    }

    #[test]
    fn a_run_is_followed_while_it_is_live_and_an_experiment_while_it_is_under_way() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        fixture.session(0, 3).begin(1, 1, "a").pass(9, 1, "a", 8.0).begin(10, 2, "b");
        let live = Found { run: fixture.run(), holder: Some(holder(&fixture)) };
        let rest = Found { run: fixture.run(), holder: None };
        let open = |found: &Found, wanted: Option<&str>, has_log: bool| {
            let scene = Scene { wanted: wanted.map(str::to_owned), role: None, attempt: 1 };
            is_open(found, &found.run.state().unwrap(), &scene, has_log)
        };
        assert!(open(&live, None, true) && open(&live, Some("b"), true) && open(&live, Some("c"), false));
        assert!(!open(&live, Some("a"), true));
        assert!(!open(&rest, None, true) && !open(&rest, Some("c"), false));
        fixture.over(20, false);
        assert!(!open(&live, None, true));
    }

    #[test]
    fn following_moves_on_and_ends_with_the_run() {
        let home = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(home.path(), "r");
        let _lock = hold(&fixture);
        let (run, holder) = (fixture.run(), holder(&fixture));
        fixture.session(0, 3).begin(1, 1, "a");
        fixture.log("a_server.log", b"one\n");
        let display = crate::ui::Display::PLAIN;
        let ui = Ui::new(display);
        let mut show = Show { layout: run.layout().clone(), ui: &ui, current: None };
        let scene = Scene { wanted: None, role: None, attempt: 1 };
        let mut follower =
            Follower { journal: JournalTail::new(&run.layout().journal()), scene, run: &run, holder: &holder };
        let name = |show: &Show<'_>| show.current.as_ref().map(|(target, _, _)| target.header());
        assert!(!follower.step(&mut show).unwrap());
        assert_eq!(name(&show).unwrap(), "==> a server <==");
        fixture.measure(5, "a").pass(6, 1, "a", 5.0).begin(7, 2, "b");
        fixture.log("a_benchmark.log", b"two\n");
        assert!(!follower.step(&mut show).unwrap());
        assert_eq!(name(&show).unwrap(), "==> b server <==");
        fixture.over(9, false);
        assert!(follower.step(&mut show).unwrap());
    }
}

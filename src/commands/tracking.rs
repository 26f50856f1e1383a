//! What tells others of a run while it goes on: the sending to MLflow, and whoever is notified.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::format;
use crate::config::{Environment, Settings};
use crate::error::Error;
use crate::exit;
use crate::mlflow::{Choice, Ended, Export, FAREWELL, Live, Place, Server, Source, Tally, URI_VARIABLE};
use crate::notify::{About, Notifier, Target};
use crate::record::{Manifest, RunDir};
use crate::report::export::{Analysis, RECOMMEND, in_memory};
use crate::report::{Style, configuration};
use crate::results::read_run;
use crate::ui::Ui;
use crate::words::shell;

/// What was left out is told of so many.
const TOLD: usize = 5;
/// So many choices stand in a message.
const MOST_CHOICES: usize = 3;
/// A wait is told of when it takes so long.
const NOTICED: Duration = Duration::from_secs(1);

/// The server that is meant; `None` where none is.
///
/// # Errors
/// When it is that of the environment, and there is none.
pub fn server(choice: &Choice, environment: &Environment) -> Result<Option<Server>, Error> {
    let place = match choice {
        Choice::Off => return Ok(None),
        Choice::At(place) => place.clone(),
        Choice::Environment => of_environment(environment)?.ok_or_else(|| Error::Usage {
            message: format!("`--mlflow` names no server, and `{URI_VARIABLE}` is not set"),
            hint: "name one: `--mlflow http://HOST:5000`; `--mlflow off` sends nothing".into(),
        })?,
    };
    Ok(Some(Server::of(place, |name| environment.get(name))))
}

/// The server that `MLFLOW_TRACKING_URI` names.
///
/// # Errors
/// When what it has is no server.
pub fn of_environment(environment: &Environment) -> Result<Option<Place>, Error> {
    let Some(uri) = environment.get(URI_VARIABLE).filter(|uri| !uri.trim().is_empty()) else { return Ok(None) };
    Place::parse(uri).map(Some).ok_or_else(|| Error::Usage {
        message: format!("`{URI_VARIABLE}` names `{}`, which is not the URI of a tracking server", uri.escape_debug()),
        hint: "vllm-bench sends to a server: `mlflow server` starts one, `--mlflow http://HOST:5000` names it".into(),
    })
}

/// What follows a run of this process.
#[derive(Debug)]
pub struct Tracking {
    mlflow: Option<Live>,
    notifier: Option<Notifier>,
    run: RunDir,
}

/// Checks what is asked for before anything is begun, and says what cannot be told.
///
/// # Errors
/// When the MLflow server is that of an environment that has none.
pub fn check(settings: &Settings, environment: &Environment, ui: &Ui) -> Result<(), Error> {
    server(&settings.mlflow, environment)?;
    for target in &settings.notify {
        match target {
            Target::NotKept(shown) => {
                ui.warn(&format!("{shown} is told nothing: the address of a webhook is not kept with a run"));
                ui.hint("give `--notify URL` again, or begin runs with `--notify '${VARIABLE}'`");
            }
            Target::Variable(name) if target.resolved(|name| environment.get(name)).is_none() => {
                ui.warn(&format!("nobody is told by `${{{name}}}`: the variable `{name}` has no URL and no command"));
            }
            Target::Variable(_) | Target::Webhook(_) | Target::Command(_) => {}
        }
    }
    Ok(())
}

/// Begins to follow a run, and says where it is sent. What goes wrong is a warning: the run goes on.
pub fn beside(run: &RunDir, manifest: &Manifest, settings: &Settings, environment: &Environment, ui: &Ui) -> Tracking {
    // Checked before anything was begun.
    let server = server(&settings.mlflow, environment).unwrap_or_default();
    let mlflow = server.and_then(|server| match Live::start(run.clone(), server) {
        Ok(live) => {
            ui.say(&format!("mlflow: {}", live.place()));
            Some(live)
        }
        Err(error) => {
            ui.warn(&format!("mlflow: {error}; the run goes on without"));
            None
        }
    });
    let by_default = settings.record.get("mlflow").is_none_or(|(_, origin)| origin == "default");
    if mlflow.is_none() && by_default && environment.get(URI_VARIABLE).is_some() {
        ui.say(&format!("note: `{URI_VARIABLE}` is set; nothing is sent there without `--mlflow`"));
    }
    let targets: Vec<Target> =
        settings.notify.iter().filter_map(|target| target.resolved(|name| environment.get(name))).collect();
    let about = About {
        run: run.called(),
        directory: run.path().display().to_string(),
        host: manifest.host.hostname.clone().unwrap_or_else(|| "an unknown host".to_owned()),
        simulated: manifest.simulated,
        unset: environment.own_variables(),
    };
    let notifier = (!targets.is_empty()).then(|| Notifier::start(&targets, about));
    Tracking { mlflow, notifier, run: run.clone() }
}

impl Tracking {
    /// Who is told what happens, if anybody is.
    pub fn notifier(&self) -> Option<Notifier> {
        self.notifier.clone()
    }

    /// The comparison of a run with the one before found it worse.
    pub fn became_worse(&self, against: &str) {
        if let Some(notifier) = &self.notifier {
            let text =
                format!("is worse than {against}: `vllm-bench compare {}` says in what", self.run.path().display());
            notifier.tell("regression", &text, json!({"against": against}));
        }
    }

    /// This process ends, and the run with this exit code (`None`: its jobs go on): all are told, and what MLflow has not got is sent, both
    /// for a bounded time, which a signal ends.
    pub fn farewell(self, code: Option<u8>, environment: &Environment, signals: impl Fn() -> u32, ui: &Ui) {
        let before = signals();
        let enough = || signals() > before;
        // A front of a cluster that found nothing to do has nothing to tell either: another one has told the end.
        let finished = || {
            let of = self.run.state().unwrap_or_default().attempts;
            of.values().flatten().filter(|attempt| attempt.outcome.is_some()).count()
        };
        if let (Some(notifier), Some(code)) = (&self.notifier, code)
            && notifier.is_news(&format!("end after {}", format::count(finished(), "attempt")))
        {
            let (text, more) = ended(&self.run, code);
            notifier.tell("end", &text, more);
        }
        if let Some(live) = self.mlflow {
            let (began, said) = (Instant::now(), Cell::new(false));
            let place = live.place().to_owned();
            let ended = live.farewell(|| {
                if began.elapsed() >= NOTICED && !said.replace(true) {
                    ui.say("mlflow: sending what is missing, for 30 s at most (Ctrl-C ends it)");
                }
                enough()
            });
            match ended {
                Ended::Through(tally) => {
                    tell(&tally, ui);
                    if tally.missing() > 0 {
                        hint(&self.run, environment, ui);
                    }
                }
                Ended::Cut(why) => {
                    ui.warn(&format!("mlflow: not all is at {place}: {why}"));
                    hint(&self.run, environment, ui);
                }
            }
        }
        if let Some(notifier) = self.notifier {
            notifier.farewell(enough).iter().for_each(|wrong| ui.warn(wrong));
        }
    }
}

/// Sends result files, for a bounded time. What goes wrong is a warning.
pub async fn send_files(server: Option<&Server>, files: Vec<PathBuf>, ui: &Ui) {
    let Some(server) = server.filter(|_| !files.is_empty()) else { return };
    let until = Instant::now() + FAREWELL;
    for file in files {
        let shown = file.display().to_string();
        let mut export = match Export::new(Source::File(file), server.clone()) {
            Ok(export) => export,
            Err(why) => return ui.warn(&format!("mlflow: {why}")),
        };
        export.end_by(Some(until));
        match export.pass(false).await {
            Ok(Some(tally)) => tell(&tally, ui),
            Ok(None) => {}
            Err(trouble) => {
                ui.warn(&format!("mlflow: not sent to {}: {trouble}", export.place()));
                return ui.hint(&format!("`vllm-bench export mlflow {}` sends it", shell(&shown)));
            }
        }
    }
}

fn hint(run: &RunDir, environment: &Environment, ui: &Ui) {
    let path = format::path(run.path(), environment.working_directory());
    ui.hint(&format!("the run itself has everything; `vllm-bench export mlflow {path}` sends the rest"));
}

/// Says what became of a pass.
pub fn tell(tally: &Tally, ui: &Ui) {
    for what in tally.left_out.iter().take(TOLD) {
        ui.warn(&format!("mlflow: {what}"));
    }
    if let Some(more @ 1..) = tally.left_out.len().checked_sub(TOLD) {
        ui.warn(&format!("mlflow: … and {more} more"));
    }
    let there = tally.all - tally.missing();
    let link = tally.link.as_ref().map(|link| format!(": {link}")).unwrap_or_default();
    ui.say(&format!("mlflow: {there} of {} there{link}", format::count(tally.all, "measurement")));
}

/// How a run ended, in words and for programs.
fn ended(run: &RunDir, code: u8) -> (String, Value) {
    let how = match code {
        exit::OK => "is over",
        exit::EXPERIMENT_FAILED => "is over, with failures",
        code if code > exit::SIGNAL => "was interrupted",
        _ => "ended with an error",
    };
    let Ok(table) = read_run(run.path()) else { return (how.to_owned(), json!({"exit_code": code})) };
    let planned: Vec<_> = table.rows.iter().filter(|row| !row.is_skipped()).collect();
    let passed = planned.iter().filter(|row| row.is_valid()).count();
    let json_of = || {
        let analysis = Analysis::of(&table);
        let exporter = RECOMMEND.iter().find(|exporter| exporter.format().name == "json")?;
        serde_json::from_slice::<Value>(&in_memory(*exporter, &analysis, Style::PLAIN).ok()?).ok()
    };
    let recommend = if passed > 0 { json_of() } else { None };
    let answers = recommend.as_ref().and_then(|json| json.pointer("/answers")?.as_array());
    // The choice of each model and workload, by what it sets: the name of a repeat says less.
    let chosen = |answer: &Value| {
        let name = answer.pointer("/choice/name")?.as_str()?;
        let row = table.rows.iter().find(|row| row.name == name)?;
        let metrics = answer.pointer("/sentences/0")?.as_str()?;
        Some(format!("{}, {}: {}", row.axes.model, configuration(row), metrics.trim_end_matches('.')))
    };
    let mut chosen: Vec<String> = answers.into_iter().flatten().filter_map(chosen).collect();
    if let Some(more @ 1..) = chosen.len().checked_sub(MOST_CHOICES) {
        chosen.truncate(MOST_CHOICES);
        chosen.push(format!("and {}", format::count(more, "more answer")));
    }
    let best = (!chosen.is_empty()).then(|| chosen.join("; "));
    let count = format::count(planned.len(), "experiment");
    let best_text = best.as_ref().map(|best| format!(". Best: {best}")).unwrap_or_default();
    let more = json!({
        "exit_code": code, "planned": planned.len(), "passed": passed, "without_result": planned.len() - passed,
        "seconds": table.facts.duration, "best": best,
    });
    (format!("{how}: {passed} of {count} passed{best_text}"), more)
}

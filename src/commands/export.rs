//! `export`: a run to another program's server.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tracking::{of_environment, tell};
use crate::cli::{ExportArgs, ExportCommand, MlflowArgs};
use crate::commands::{find_run, format};
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::mlflow::{Choice, EXPECTED, Export, Note, Place, Server, Source, Tally, Trouble};
use crate::record::RunDir;
use crate::safe;
use crate::ui::Ui;

/// How often one is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs `export`.
///
/// # Errors
/// When there is no such run, no server is named, or it does not take all.
pub async fn run(args: &ExportArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    match &args.command {
        ExportCommand::Mlflow(args) => mlflow(args, environment, ui).await,
    }
}

/// Sends what is missing, and looks afterwards whether it is there.
async fn mlflow(args: &MlflowArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let source = source(args, environment)?;
    let server = Server::of(place(args, &source, environment)?, |name| environment.get(name));
    let mut export = Export::new(source.clone(), server).map_err(elsewhere)?;
    ui.say(&format!("mlflow: {} to {}", shown(&source, environment), export.place()));
    if args.dry_run {
        let tally = export.look().await.map_err(|trouble| wrong(trouble, &export))?;
        ui.out(&format!("{} of {} missing there", tally.missing(), format::count(tally.all, "measurement")));
        return Ok(exit::OK);
    }
    let tally = match watched(&mut export, false, ui).await? {
        Some(tally) => tally,
        None => {
            ui.say("another process sends this run now: waiting for it");
            let tally = watched(&mut export, true, ui).await?;
            tally.ok_or_else(|| elsewhere("another process goes on sending this run: nothing was sent".to_owned()))?
        }
    };
    tell(&tally, ui);
    if tally.all == 0 {
        ui.say("nothing was measured yet: there is nothing to send");
    }
    // A server may say yes and keep nothing.
    let kept = export.look().await.map_err(|trouble| wrong(trouble, &export))?;
    if tally.missing() > 0 || kept.missing() > 0 {
        let missing = kept.missing().max(tally.missing());
        let all = format::count(tally.all, "measurement");
        return Err(elsewhere(format!("{missing} of {all} are not there: the server did not take or keep them")));
    }
    if let Some(link) = &tally.link {
        ui.out(link);
    }
    Ok(exit::OK)
}

/// A pass, with a word now and then of how far it is.
async fn watched(export: &mut Export, patient: bool, ui: &Ui) -> Result<Option<Tally>, Error> {
    let (progress, place) = (export.progress(), export.place());
    let mut told = 0;
    let pass = export.pass(patient);
    tokio::pin!(pass);
    loop {
        tokio::select! {
            passed = &mut pass => return passed.map_err(|trouble| failed(trouble, &place)),
            () = tokio::time::sleep(TELL_EVERY) => {
                let now = progress.load(Ordering::Relaxed);
                if now != std::mem::replace(&mut told, now) {
                    ui.say(&format!("mlflow: {} so far", format::count(now, "measurement")));
                }
            }
        }
    }
}

fn elsewhere(message: String) -> Error {
    let hint = "call it again when that is seen to: what is there is not sent twice".to_owned();
    Error::Elsewhere { message: format!("mlflow: {message}"), hint }
}

fn wrong(trouble: Trouble, export: &Export) -> Error {
    failed(trouble, &export.place())
}

fn failed(trouble: Trouble, place: &str) -> Error {
    match trouble {
        Trouble::Files(error) => error.into(),
        Trouble::Server(failure) => elsewhere(format!("{place}: {failure}")),
    }
}

fn shown(source: &Source, environment: &Environment) -> String {
    let path = match source {
        Source::Run(run) => run.path(),
        Source::File(file) => file,
    };
    format::path(path, environment.working_directory())
}

/// The run, or the file, that is meant.
fn source(args: &MlflowArgs, environment: &Environment) -> Result<Source, Error> {
    if let Some(named) = args.run.as_deref().map(|named| environment.absolute(named)).filter(|path| path.is_file()) {
        return Ok(Source::File(named));
    }
    let found = find_run::find(args.run.as_deref(), args.results_dir.as_deref(), environment)?;
    Ok(Source::Run(found.run))
}

/// The server that is meant: of the flag, the variable, where the run was sent, its settings, the environment of MLflow.
fn place(args: &MlflowArgs, source: &Source, environment: &Environment) -> Result<Place, Error> {
    for (what, text) in
        [("--mlflow", args.mlflow.as_deref()), ("VLLM_BENCH_MLFLOW", environment.get("VLLM_BENCH_MLFLOW"))]
    {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        safe::learn(safe::within(text));
        match Choice::parse(text) {
            Some(Choice::At(place)) => return Ok(place),
            Some(Choice::Environment) => break,
            Some(Choice::Off) | None => {
                return Err(Error::Usage {
                    message: format!("invalid value `{}` for `{what}`: expected {EXPECTED}", text.escape_debug()),
                    hint: "such as `--mlflow http://127.0.0.1:5000`".into(),
                });
            }
        }
    }
    let asks_environment = args.mlflow.as_deref() == Some(crate::mlflow::FROM_ENVIRONMENT);
    let known = source.run().filter(|_| !asks_environment).and_then(|run| of_run(run.path(), run));
    match known {
        Some(place) => Ok(place),
        None => of_environment(environment)?.ok_or_else(|| Error::Usage {
            message: format!("no MLflow server is named for {}", shown(source, environment)),
            hint: "name one: `--mlflow http://HOST:5000`, or set MLFLOW_TRACKING_URI".into(),
        }),
    }
}

fn of_run(path: &Path, run: &RunDir) -> Option<Place> {
    let noted = Note::of(path).last().and_then(|last| Place::parse(&last.uri));
    let kept = || Place::parse(run.manifest().ok()?.settings.get("mlflow")?.value.as_str()?);
    noted.or_else(kept)
}

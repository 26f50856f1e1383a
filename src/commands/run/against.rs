//! `run --against RUN`: what RUN measured is measured again, in turn with what is asked for now, in one run. Both meet the machine as it is
//! today, which two runs do not.

use std::path::Path;

use super::resume::{self, Asked};
use super::{Session, make_plan};
use crate::cli::RunArgs;
use crate::commands::{find_run, format};
use crate::config::Settings;
use crate::error::Error;
use crate::model::{Before, Experiment, Plan};
use crate::plan::{Order, alternate};
use crate::record::{Manifest, RunDir};

/// Starts of each side where nobody says how many: each is first twice.
const STARTS: u32 = 4;
/// Fewer decide nothing.
const FEWEST: u32 = 3;

/// Settings and plan of such a run.
///
/// # Errors
/// When RUN cannot be found, read or started again, or does not fit what is asked for.
pub fn session(named: &Path, asked: Asked<'_>) -> Result<Session, Error> {
    let Asked { args, environment, preset, ui } = asked;
    let run = find_run::find(Some(named), args.results_dir.as_deref().map(Path::new), environment)?.run;
    let manifest = resume::checked(&run)?;
    if manifest.plan.before.is_some() {
        return Err(refused(&run, "it is itself such a comparison", "name the run that was its own `--against`"));
    }
    // The name is that run's, not this one's.
    let kept = resume::kept(&run, &manifest)?.without_name();
    // Without a sweep of its own, what is asked for is RUN's with the flags of now over it.
    let below = args.files.is_empty().then_some(&kept);
    let mut settings = Settings::resolve_over(args, environment, preset, below)?;
    if let (true, None, Some(parent)) = (below.is_some(), &args.results_dir, run.path().parent()) {
        settings.results_dir = parent.to_owned();
    }
    if settings.sweep.engine != manifest.engine {
        let why = format!("its engine is `{}`, and here it is `{}`", manifest.engine, settings.sweep.engine);
        return Err(refused(&run, &why, "a timing model and a measurement are not alike: take the same `--engine`"));
    }
    if settings.container.is_some() || kept.record().get("container.image").is_some_and(|(image, _)| image != "none") {
        let why = "with `container` the two sides would not have the vLLM that each names";
        return Err(refused(
            &run,
            why,
            "measure each image in a run of its own, and compare them: `vllm-bench compare`",
        ));
    }
    let starts = starts(args, &settings, below.is_some())?;
    (settings.sweep.repeats.starts, settings.sweep.repeats.auto) = (starts, false);
    settings.sweep.order = Order::Interleaved;
    let (before, what) = before(&run, &manifest, &kept, &settings, asked)?;
    let after = make_plan(&mut settings, args, environment, None, ui)?;
    let sizes = [&before, &after].map(|plan| plan.experiments.len());
    let plan = alternate(before, after, what, settings.sweep.reuse).ok_or_else(|| {
        let [before, after] = sizes.map(|size| format::count(size, "experiment"));
        refused(
            &run,
            &format!("it has another number of server starts ({before} with {starts} starts of each, and {after} now)"),
            "ask for as many configurations as it has: each is measured in turn with the one in its place",
        )
    })?;
    settings.record.insert("against".to_owned(), (run.name().into(), "flag --against".to_owned()));
    Ok(Session { settings, plan, earlier: None })
}

/// How often each side is started.
fn starts(args: &RunArgs, settings: &Settings, of_run: bool) -> Result<u32, Error> {
    let repeats = settings.sweep.repeats;
    if repeats.auto && args.starts.is_some() {
        return Err(Error::Usage {
            message: "`--starts auto` adds starts to what may be the best, and `--against` starts both sides in turn"
                .into(),
            hint: format!("give a number of at least {FEWEST}"),
        });
    }
    let said = args.starts.is_some() || !of_run && repeats.starts > 1;
    match repeats.starts {
        starts if said && starts >= FEWEST && !repeats.auto => Ok(starts),
        starts if said && !repeats.auto => Err(Error::Usage {
            message: format!("{} of each side decide nothing", format::count(starts as usize, "start")),
            hint: format!("`--starts {STARTS}` starts each four times, and each is first twice"),
        }),
        _ => Ok(STARTS),
    }
}

/// The plan of RUN with as many starts, on its own vLLM.
fn before(
    run: &RunDir,
    manifest: &Manifest,
    kept: &crate::config::Kept,
    now: &Settings,
    asked: Asked<'_>,
) -> Result<(Plan, Before), Error> {
    let Asked { environment, preset, .. } = asked;
    let mut then = Settings::resolve_over(&RunArgs::default(), &environment.without_settings(), preset, Some(kept))?;
    resume::require_same_machine(&mut then, run, manifest, environment)?;
    then.sweep.context = manifest.plan.context.clone();
    then.sweep.repeats = now.sweep.repeats;
    (then.sweep.order, then.sweep.reuse) = (now.sweep.order, now.sweep.reuse);
    let plan = then.plan()?;
    let known = |experiment: &Experiment| manifest.plan.experiments.iter().any(|e| e.identity == experiment.identity);
    if let Some(new) = plan.experiments.iter().find(|experiment| !known(experiment)) {
        let why = format!("its settings now make `{}`, which it did not measure", new.name);
        return Err(refused(run, &why, "measure it anew with `vllm-bench run`, and compare with that"));
    }
    let vllm = manifest.vllm.as_ref().map(|vllm| vllm.path.clone());
    if let Some(program) = vllm.as_ref().filter(|program| !program.is_file()) {
        let why = format!("its vLLM, `{}`, is not here any more", program.display());
        return Err(refused(run, &why, "put it back, or compare two runs with `vllm-bench compare`"));
    }
    Ok((plan, Before { run: run.name(), vllm, context: manifest.plan.context.clone() }))
}

fn refused(run: &RunDir, why: &str, hint: &str) -> Error {
    Error::Usage { message: format!("`--against {}`: {why}", run.name()), hint: hint.to_owned() }
}

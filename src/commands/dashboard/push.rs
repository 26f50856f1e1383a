//! `--pushgateway`: what `/metrics` says of a run, a load or a comparison, pushed from where nothing can be scraped.

use std::path::Path;
use std::sync::Arc;

use super::key;
use super::runs::Runs;
use crate::analyse::{COMPARED, Comparison, Noise, Outcome, Pairing, RunTable, compare};
use crate::config::Environment;
use crate::dashboard::{Change, Gateway, Labels, LoadSource, Pusher, RunText, of_change, of_load, push_once};
use crate::model::Metric;
use crate::record::RunDir;

/// The labels of a run: those of another machine, or of another results directory, may be called like it.
pub fn labels_of_run(run: &RunDir) -> Labels {
    let path = run.path();
    let text = |path: Option<&Path>| path.unwrap_or(Path::new("")).to_string_lossy().into_owned();
    vec![("instance", host()), ("results", text(path.parent())), ("run", text(path.file_name().map(Path::new)))]
}

/// The labels of a load.
pub fn labels_of_load(name: &str) -> Labels {
    vec![("instance", host()), ("run", name.to_owned())]
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// Pushes a run until the pusher is ended. `trouble` is told once why the gateway does not take it.
pub fn run(
    gateway: &Gateway,
    run: &RunDir,
    environment: &Environment,
    trouble: impl Fn(String) + Send + 'static,
) -> Option<Pusher> {
    let dir = run.path().parent().map(Path::to_owned).unwrap_or_default();
    let runs = Arc::new(Runs::new(vec![dir], Some(run.path().to_owned()), environment));
    let text = RunText::new(runs, key(run.path()));
    let told = told(gateway, trouble);
    Pusher::start(gateway.clone(), labels_of_run(run), move |is_last| text.text(is_last), told).ok()
}

/// Pushes a load in the same way.
pub fn load(gateway: &Gateway, load: Arc<dyn LoadSource>, trouble: impl Fn(String) + Send + 'static) -> Option<Pusher> {
    let told = told(gateway, trouble);
    Pusher::start(gateway.clone(), labels_of_load(&load.now().name), move |_| Some(of_load(&load.now())), told).ok()
}

/// What is said of a gateway that does not take what is pushed.
fn told(gateway: &Gateway, trouble: impl Fn(String) + Send + 'static) -> impl Fn(&str) + Send + 'static {
    let shown = gateway.shown().to_owned();
    move |why| {
        trouble(format!(
            "the Pushgateway at {shown} does not take the metrics: {why}; it is tried again, and nothing waits for it"
        ))
    }
}

/// Pushes a comparison once.
///
/// # Errors
/// Why the gateway did not take it.
pub fn comparison(gateway: &Gateway, run: &str, change: &Change) -> Result<(), String> {
    let labels = vec![("instance", host()), ("run", run.to_owned()), ("before", change.before.clone())];
    push_once(gateway, &labels, &of_change(run, change))
}

/// What a comparison says, in numbers.
pub fn change_of(comparison: &Comparison<'_>, before: &str) -> Change {
    const OUTCOMES: [(Outcome, &str); 4] = [
        (Outcome::Better, "better"),
        (Outcome::Worse, "worse"),
        (Outcome::Same, "same"),
        (Outcome::NotDecided, "not-decided"),
    ];
    let effects = || comparison.matched.iter().flat_map(|matched| &matched.effects);
    let mut metrics: Vec<&String> = effects().map(|effect| &effect.metric).collect();
    metrics.sort();
    metrics.dedup();
    let counted = |metric: &String, outcome: Outcome| {
        effects().filter(|effect| effect.metric == *metric && effect.outcome == outcome).count()
    };
    let outcomes = metrics.iter().flat_map(|metric| {
        OUTCOMES.iter().map(|(outcome, word)| ((*metric).clone(), *word, counted(metric, *outcome)))
    });
    Change {
        before: before.to_owned(),
        worse: comparison.has_worse(),
        outcomes: outcomes.collect(),
        failing: comparison.failing.iter().filter(|failing| failing.is_worse).count(),
        lost_requests: comparison.lost.len(),
    }
}

/// What `compare` says of the two sides of a run, by the usual metrics and threshold; `None` where it has one side alone.
pub fn change_within(table: &RunTable) -> Option<Change> {
    let [before, after] = table.sides()?;
    let metrics: Vec<Metric> = COMPARED.iter().filter_map(|metric| Metric::of(metric.key())).collect();
    let threshold = crate::commands::compare::THRESHOLD;
    let comparison = compare(&before, &after, &metrics, threshold, &Noise::new(), &Pairing::All);
    let decided = !comparison.matched.is_empty() || !comparison.failing.is_empty();
    decided.then(|| change_of(&comparison, "before"))
}

//! The runs of results directories, as the dashboard asks for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::one::One;
use super::push::change_within;
use super::{all_runs, key};
use crate::commands::{find_run, list, stop};
use crate::config::Environment;
use crate::dashboard::{Answer, Run, Source, StopMode};
use crate::error::Error;
use crate::record::RunDir;
use crate::report::Style;
use crate::report::export::{Analysis, Drawing, Html, RECOMMEND, Svg, in_memory};
use crate::report::plot::{self, Kind, Query, Size};
use crate::results::read_run;

/// Metrics of devices and host that are told beside a result.
const READINGS: [&str; 10] = [
    "mean_power_w",
    "max_power_w",
    "idle_power_w",
    "energy_j",
    "joules_per_output_token",
    "mean_utilization_pct",
    "max_device_memory_gib",
    "max_temperature_c",
    "mean_clock_mhz",
    "throttled_pct",
];

/// The runs of some results directories.
#[derive(Debug)]
pub(super) struct Runs {
    dirs: Vec<PathBuf>,
    /// The run to show first.
    chosen: Option<PathBuf>,
    environment: Environment,
}

impl Runs {
    /// Those of these directories.
    pub fn new(dirs: Vec<PathBuf>, chosen: Option<PathBuf>, environment: &Environment) -> Self {
        Self { dirs, chosen, environment: environment.clone() }
    }

    /// A run by its path, if it is one of those that are shown.
    fn find(&self, path: &str) -> Option<RunDir> {
        let path = Path::new(path);
        let known = path.parent().is_some_and(|dir| self.dirs.iter().any(|known| known == dir));
        if known && path.file_name().is_some() { RunDir::at(path) } else { None }
    }

    fn known(&self, path: &str) -> Result<RunDir, String> {
        self.find(path).ok_or_else(|| "there is no such run".to_owned())
    }
}

fn words(error: impl Into<Error>) -> String {
    let error: Error = error.into();
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Source for Runs {
    fn runs(&self) -> Result<Value, String> {
        list::without_answers(&self.dirs).map_err(words)
    }

    fn current(&self) -> Option<String> {
        let live = || self.dirs.iter().find_map(|dir| find_run::live_run(dir)).map(|found| found.run);
        let newest = || all_runs(&self.dirs).into_iter().max_by_key(RunDir::created);
        let chosen = self.chosen.clone().or_else(|| Some(live().or_else(newest)?.path().to_owned()));
        chosen.map(|path| key(&path))
    }

    fn open(&self, path: &str) -> Option<Box<dyn Run>> {
        Some(Box::new(One::new(self.find(path)?, self.environment.clone())))
    }

    fn answer(&self, path: &str) -> Result<Answer, String> {
        let run = self.known(path)?;
        let table = read_run(run.path()).map_err(words)?;
        if table.rows.iter().all(|row| !row.is_valid()) {
            return Ok(Answer::default());
        }
        let analysis = Analysis::of(&table);
        let json = RECOMMEND.iter().find(|exporter| exporter.format().name == "json");
        let recommend = match json {
            Some(exporter) => in_memory(*exporter, &analysis, Style::PLAIN).map_err(words)?,
            None => Vec::new(),
        };
        let recommend = serde_json::from_slice(&recommend).map_err(|error| error.to_string())?;
        let readings: BTreeMap<_, _> = table
            .rows
            .iter()
            .map(|row| {
                let of = READINGS.iter().filter_map(|key| Some((*key, row.metric(key)?)));
                (row.name.to_string(), of.collect::<Vec<_>>())
            })
            .filter(|(_, of)| !of.is_empty())
            .collect();
        Ok(Answer { recommend, readings, change: change_within(&table) })
    }

    fn report(&self, path: &str) -> Result<String, String> {
        let table = read_run(self.known(path)?.path()).map_err(words)?;
        let page = in_memory(&Html, &Analysis::of(&table), Style::PLAIN).map_err(words)?;
        String::from_utf8(page).map_err(|error| error.to_string())
    }

    fn plot(&self, path: &str, kind: &str) -> Result<String, String> {
        let run = self.known(path)?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or("there is no such plot")?;
        let table = read_run(run.path()).map_err(words)?;
        let plots = plot::plots(&table, kind, &Query::default()).map_err(words)?;
        let first = plots.first().ok_or("there is nothing to draw")?;
        let drawing = Drawing { plot: first, size: Size { width: None, height: None }, scale: 1.0 };
        let svg = in_memory(&Svg, &drawing, Style::PLAIN).map_err(words)?;
        String::from_utf8(svg).map_err(|error| error.to_string())
    }

    fn stop(&self, path: &str, mode: StopMode) -> Result<String, String> {
        stop::ask_run(self.known(path)?, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fixture::Fixture;

    #[test]
    fn only_runs_of_the_directories_are_opened() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let inside = Fixture::new(home.path(), "r");
        let outside = Fixture::new(elsewhere.path(), "r");
        let runs = Runs::new(vec![home.path().to_owned()], None, &Environment::default());
        assert!(runs.open(&key(inside.path())).is_some());
        assert_eq!(runs.current(), Some(key(inside.path())));
        for bad in
            [key(outside.path()), format!("{}/../r", key(inside.path())), key(home.path()), "/".into(), String::new()]
        {
            assert!(runs.open(&bad).is_none(), "{bad}");
        }
        let through =
            format!("{}/r/../../{}/r", home.path().display(), elsewhere.path().file_name().unwrap().display());
        assert!(runs.open(&through).is_none(), "{through}");
    }
}

//! The files and the table of the cluster sweep (huggingface/datatrove, `examples/inference/benchmark`): one line per configuration
//! in its columns, and what the sweep gained. Repeats of a configuration count with their mean; its throughput holds no server start,
//! and its devices are tensor x pipeline x data parallel size.

mod rows;
mod summary;
mod table;

use std::path::{Path, PathBuf};

use crate::analyse::{OVERALL, Optimized, RankingSpec, Row, RunTable, is_in_tier, optimize};
use crate::record::{Error, atomic, layout};
use rows::Line;

/// The name of an experiment that belongs to no group.
const UNNAMED: &str = "experiment";

/// What is written and shown.
#[derive(Debug)]
pub struct Datatrove<'a> {
    table: &'a RunTable,
    /// Lines by experiment.
    experiments: Vec<(String, Vec<Line<'a>>)>,
    /// Names of the parts of the summary.
    parts: Vec<String>,
    /// By what the best of each part is chosen.
    wanted: RankingSpec,
    optimized: Vec<Optimized<'a>>,
}

impl<'a> Datatrove<'a> {
    /// Of a table; the parts of the summary are the values of a setting, or the tiers where none is named. The best of each part is
    /// that of every other answer by `wanted`.
    pub fn new(table: &'a RunTable, group_by: Option<&str>, wanted: &RankingSpec) -> Self {
        let rows: Vec<&'a Row> = table.rows.iter().filter(|row| !row.is_skipped()).collect();
        let comparable = table.judged();
        let value = |row: &Row, key: &str| match key {
            "group" => row.groups.clone(),
            "run" => vec![row.about.run.to_string()],
            _ => row.setting(key).map(std::borrow::Cow::into_owned).into_iter().collect(),
        };
        let (parts, optimized) = match group_by {
            None => {
                let asked: Vec<String> = ["tier0", "tier1", OVERALL].map(str::to_owned).into();
                (asked.clone(), optimize(&comparable, &asked, is_in_tier, wanted))
            }
            Some(key) => {
                let mut parts: Vec<String> = comparable.iter().flat_map(|row| value(row, key)).collect();
                parts.sort();
                parts.dedup();
                parts.push(OVERALL.to_owned());
                let belongs = |row: &Row, part: &str| part == OVERALL || value(row, key).iter().any(|own| own == part);
                let optimized = optimize(&comparable, &parts, belongs, wanted);
                (parts, optimized)
            }
        };
        Self { table, experiments: rows::experiments(&rows), parts, wanted: wanted.clone(), optimized }
    }

    /// Writes the three kinds of files into a directory that is there, each whole or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, directory: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut written = Vec::new();
        for (experiment, lines) in &self.experiments {
            let path = layout::experiment_csv(directory, experiment);
            atomic::write_with(&path, |out| rows::write(lines.iter().map(|line| (experiment.as_str(), line)), out))?;
            written.push(path);
        }
        let all = directory.join(layout::BENCHMARKING_RESULTS);
        let lines =
            || self.experiments.iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name.as_str(), line)));
        atomic::write_with(&all, |out| rows::write(lines(), out))?;
        let summary = directory.join(layout::OPTIMIZATION_SUMMARY);
        atomic::write_with(&summary, |out| summary::write(&self.parts, &self.optimized, out))?;
        written.extend([all, summary]);
        Ok(written)
    }

    /// The tables of the experiments and of the gain, as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Some(banner) = super::text::banner(self.table) {
            text.push_str(&format!("!! {banner}\n\n"));
        }
        for (experiment, lines) in &self.experiments {
            text.push_str(&table::render(experiment, lines));
            text.push('\n');
        }
        text.push_str(&summary::render(&self.optimized, &self.wanted));
        text
    }
}

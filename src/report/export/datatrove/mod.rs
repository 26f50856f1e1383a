//! The files and the table of the cluster sweep (huggingface/datatrove, `examples/inference/benchmark`): one line per configuration
//! in its columns, and what the sweep gained. Repeats of a configuration count with their mean; its throughput holds no server start,
//! and its devices are tensor x pipeline x data parallel size.

mod rows;
mod summary;
mod table;
mod tree;

use std::io::Write;

use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{OVERALL, Optimized, RankingSpec, Row, RunTable, is_in_tier, optimize};
use crate::record::layout;
use crate::report::Refusal;
use rows::Line;
pub use tree::DatatroveTree;

/// The files of the cluster sweep.
pub struct Datatrove;

impl Exporter<Analysis<'_>> for Datatrove {
    fn format(&self) -> Format {
        Format {
            // It reads the servers' logs anyway, and has no latency beside the choice.
            ignores: &["--latency", "--detail"],
            needs_server_logs: true,
            ..Format::several("datatrove", "The files of the cluster sweep")
        }
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        let found = Sweep::of(analysis)?;
        out.write_all(found.render().as_bytes())?;
        let lines =
            || found.experiments.iter().flat_map(|(name, lines)| lines.iter().map(move |line| (name.as_str(), line)));
        for (experiment, _) in &found.experiments {
            let own = lines().filter(|(name, _)| name == experiment);
            out.file(|directory| layout::experiment_csv(directory, experiment), |file| rows::write(own, file))?;
        }
        out.file(|directory| directory.join(layout::BENCHMARKING_RESULTS), |file| rows::write(lines(), file))?;
        let summary = |file: &mut dyn Write| summary::write(&found.parts, &found.optimized, file);
        out.file(|directory| directory.join(layout::OPTIMIZATION_SUMMARY), summary)
    }
}

/// The name of an experiment that belongs to no group.
const UNNAMED: &str = "experiment";

/// What is written and shown.
#[derive(Debug)]
struct Sweep<'a> {
    table: &'a RunTable,
    /// Lines by experiment.
    experiments: Vec<(String, Vec<Line<'a>>)>,
    /// Names of the parts of the summary.
    parts: Vec<String>,
    /// By what the best of each part is chosen.
    wanted: RankingSpec,
    optimized: Vec<Optimized<'a>>,
}

impl<'a> Sweep<'a> {
    /// Of an analysis, which may be grouped by one key.
    fn of(analysis: &Analysis<'a>) -> Result<Self, ExportError> {
        let group_by = match analysis.group_by.as_slice() {
            [] => None,
            [key] => Some(key.as_str()),
            [_, second, ..] => {
                return Err(ExportError::Refused(Refusal::Wrong {
                    message: format!(
                        "`--format datatrove` groups by one key: `{}` is the second",
                        second.escape_debug()
                    ),
                    hint: "name one key".into(),
                }));
            }
        };
        Ok(Self::new(analysis.table, group_by, &analysis.wanted))
    }

    /// Of a table; the parts of the summary are the values of a setting, or the tiers where none is named. The best of each part is
    /// that of every other answer by `wanted`.
    fn new(table: &'a RunTable, group_by: Option<&str>, wanted: &RankingSpec) -> Self {
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

    /// The tables of the experiments and of the gain, as text.
    fn render(&self) -> String {
        let mut text = String::new();
        if let Some(banner) = crate::report::text::banner(self.table) {
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

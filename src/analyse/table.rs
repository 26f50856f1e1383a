//! The table of rows behind every report.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::row::Row;
use crate::model::{Engine, Identity, NeighboursChecked, Side};

/// A file among the results that is not one, or not one that can be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// Its name in the run directory.
    pub file: String,
    /// Why.
    pub reason: String,
    /// Whether a result may have been lost with it: it is broken, not merely something else.
    pub lost: bool,
}

/// Who wrote the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// vllm-bench, in this version.
    VllmBench {
        /// As the manifest says.
        version: String,
    },
    /// The Python predecessor, or a copy of result files alone: no manifest.
    Predecessor,
    /// Result files of another program, or of our load generator alone.
    Files(Program),
}

/// Which program wrote result files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `vllm bench sweep serve`.
    Sweep,
    /// `vllm bench serve`, or a client that writes its format.
    Client,
    /// Requests one by one (`requests.csv`).
    Requests,
    /// Several of them.
    Several,
}

impl Program {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Program::Sweep => "`vllm bench sweep serve`: only the settings that it varied are known",
            Program::Client => "`vllm bench serve`: server arguments are not known",
            Program::Requests => "a load generator, request by request: server arguments are not known",
            Program::Several => "several programs: settings that a file does not say are not known",
        }
    }
}

/// What an attempt at an experiment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its server starts.
    Starting,
    /// Its load runs.
    Measuring,
    /// Its server ends.
    Ending,
    /// No attempt: what neighbours cost is measured.
    Checking,
}

/// An attempt with what it did when.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneSpan {
    /// Name of the experiment; empty for what is none.
    pub name: String,
    /// Its lane, from 1; 0 = all.
    pub lane: u32,
    /// The devices that it had; none where nobody recorded them.
    pub devices: Vec<String>,
    /// Whether it came to no valid result: it failed, was interrupted, or its run died.
    pub lost: bool,
    /// What it did: from and to, in seconds of the run.
    pub steps: Vec<(Step, f64, f64)>,
}

/// What a report says about the run as a whole. Recorded facts only: the same run gives the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The run directory as found on this machine; never shown, because it depends on who looks.
    pub directory: PathBuf,
    /// The name of the directory.
    pub run: String,
    /// The name that its user gave it.
    pub name: Option<String>,
    /// Who wrote it.
    pub origin: Origin,
    /// When (RFC 3339), or the stamp in the directory's name.
    pub created: Option<String>,
    /// Name of the run's time zone.
    pub timezone: Option<String>,
    /// What played vLLM.
    pub engine: Option<Engine>,
    /// Path of vLLM.
    pub vllm_path: Option<PathBuf>,
    /// Versions of vLLM that yielded the rows; more than one is worth a word.
    pub vllm_versions: Vec<String>,
    /// The arguments of vllm-bench, secrets redacted.
    pub command_line: Vec<String>,
    /// Seconds over all sessions, as the journal tells.
    pub duration: Option<f64>,
    /// How often the run was begun.
    pub sessions: usize,
    /// Whether it is going on now.
    pub live: bool,
    /// Lines of the journal that could not be read.
    pub unreadable_journal_lines: usize,
    /// Files of the record (manifest, journal) that are damaged or gone: some of what was planned or failed may not be here.
    pub damaged: Vec<String>,
    /// The limits (`slo`) that its sweep file states: name, and value as written; see [`super::Limit::stated`].
    pub slo: Vec<(String, String)>,
    /// The objective that it keeps, as written; `None` where it keeps none. See [`super::Objective::parse`].
    pub objective: Option<String>,
    /// Starts were added until the answer was decided, to at most so many of each configuration.
    pub until: Option<usize>,
    /// What neighbours cost, where that was measured before lanes were used.
    pub neighbours: Option<NeighboursChecked>,
    /// What ran when and where, as the journal tells.
    pub spans: Vec<LaneSpan>,
}

impl Facts {
    /// Of results of which nobody recorded more than where they are.
    pub fn bare(directory: PathBuf, run: String, origin: Origin) -> Self {
        Self {
            directory,
            run,
            name: None,
            origin,
            created: None,
            timezone: None,
            engine: None,
            vllm_path: None,
            vllm_versions: Vec::new(),
            command_line: Vec::new(),
            duration: None,
            sessions: 0,
            live: false,
            unreadable_journal_lines: 0,
            damaged: Vec::new(),
            slo: Vec::new(),
            objective: None,
            until: None,
            neighbours: None,
            spans: Vec::new(),
        }
    }

    /// What the run is called: its name, and its directory.
    pub fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.run.clone(), |name| format!("{name} ({})", self.run))
    }
}

/// Everything a report says about one run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunTable {
    /// The run as a whole; the first of several.
    pub facts: Facts,
    /// The other runs, where several are analysed together.
    pub more: Vec<Facts>,
    /// Experiments in running order, then the combinations that rules left out.
    pub rows: Vec<Row>,
    /// Files among the results that could not be taken.
    pub unreadable: Vec<Unreadable>,
    /// Whether any metric comes from the simulated vLLM.
    pub simulated: bool,
}

impl RunTable {
    /// The rows that statistics and rankings are of: the valid ones of those that answers are about.
    pub fn comparable(&self) -> Vec<&Row> {
        self.judged().into_iter().filter(|row| row.is_valid()).collect()
    }

    /// The planned rows that answers and speed-ups are about, whatever became of them: where some were measured, no simulated ones. What
    /// others are measured against (`run --against`) is not asked.
    pub fn judged(&self) -> Vec<&Row> {
        let measured = self.rows.iter().any(|row| row.is_valid() && !row.simulated);
        self.rows.iter().filter(|row| !row.is_skipped() && row.counts(measured)).collect()
    }

    /// The two sides of a run that was measured in turn with another one (`run --against`), each as a run of its own: before and after. `None`
    /// for any other run.
    pub fn sides(&self) -> Option<[Self; 2]> {
        let side = |side: Side, name: &str| {
            let mut table = self.clone();
            table.rows.retain(|row| row.side == Some(side));
            table.rows.iter_mut().for_each(|row| row.side = None);
            table.facts.run = format!("{} ({name})", self.facts.run);
            let mut versions: Vec<String> =
                table.rows.iter().filter_map(|row| Some(row.about.vllm_version.as_deref()?.to_owned())).collect();
            versions.sort();
            versions.dedup();
            table.facts.vllm_versions = versions;
            table
        };
        if !self.rows.iter().any(|row| row.side == Some(Side::Before)) {
            return None;
        }
        let [mut before, after] = [side(Side::Before, "before"), side(Side::After, "after")];
        // Those in the same place were measured in turn: they are one configuration before and after, whatever differs.
        let [old, new] = [&before, &after].map(Self::settings);
        if old.len() == new.len() {
            for row in &mut before.rows {
                let place = old.iter().position(|settings| Some(settings) == row.about.settings.as_ref());
                row.about.settings = place.and_then(|place| new.get(place).cloned()).or(row.about.settings.take());
            }
        }
        Some([before, after])
    }

    /// What its configurations are by their settings, each once, in the order in which they come first.
    fn settings(&self) -> Vec<Identity> {
        let mut all: Vec<Identity> = Vec::new();
        for settings in self.rows.iter().filter_map(|row| row.about.settings.as_ref()) {
            if !all.contains(settings) {
                all.push(settings.clone());
            }
        }
        all
    }

    /// Whether all that counts is simulated. Where real rows stand beside simulated ones these are marked one by one, and left out of all
    /// that compares: they are never under one banner.
    pub fn is_all_simulated(&self) -> bool {
        self.simulated && self.rows.iter().all(|row| row.simulated || !row.is_valid())
    }

    /// Files with which a result may have been lost.
    pub fn lost(&self) -> usize {
        self.unreadable.iter().filter(|file| file.lost).count()
    }

    /// What of the records of all its runs is damaged, each with its run.
    pub fn damaged(&self) -> Vec<String> {
        let facts = std::iter::once(&self.facts).chain(&self.more);
        facts.flat_map(|facts| facts.damaged.iter().map(|what| format!("{}: {what}", facts.run))).collect()
    }

    /// The planned rows by model: models in order of appearance, rows in order of their grid values.
    pub fn by_model(&self) -> Vec<(&str, Vec<&Row>)> {
        group_by_model(self.rows.iter().filter(|row| !row.is_skipped()))
    }
}

/// Groups rows by model, in order of appearance; within a model in order of the grid values.
pub(super) fn group_by_model<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<(&'a str, Vec<&'a Row>)> {
    let mut groups: IndexMap<&str, Vec<&Row>> = IndexMap::new();
    for row in rows {
        groups.entry(row.axes.model.as_str()).or_default().push(row);
    }
    for rows in groups.values_mut() {
        rows.sort_by_cached_key(|row| (row.axes.order(), row.repeat));
    }
    groups.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::axes::ShownAxes;
    use super::super::row::Status;
    use super::*;
    use crate::model::VllmMetric;

    /// A valid row with one metric for each of the ranked metrics.
    pub fn row(model: &str, tp: u32, request_throughput: f64, ttft: f64) -> Row {
        let axes = ShownAxes {
            tensor_parallel_size: Some(tp),
            quantization: Some("none".into()),
            enforce_eager: Some(true),
            ..ShownAxes::of_model(model.to_owned())
        };
        let mut row = Row::bare(format!("{model}_tp{tp}"), axes, Status::Valid);
        row.metrics.set(VllmMetric::RequestThroughput, Some(request_throughput));
        row.metrics.set(VllmMetric::MeanTtft, Some(ttft));
        row
    }

    /// A table of these rows.
    pub fn table_of(rows: Vec<Row>) -> RunTable {
        RunTable { facts: Facts::for_tests(), more: Vec::new(), rows, unreadable: Vec::new(), simulated: false }
    }

    #[test]
    fn trap_5_tensor_parallelism_sorts_as_a_number() {
        let mut rows: Vec<Row> = [16, 2, 8, 4].map(|tp| row("m", tp, 1.0, 1.0)).into();
        rows.insert(0, row("other", 1, 1.0, 1.0));
        rows[1].axes.tensor_parallel_size = None;
        let groups = group_by_model(&rows);
        assert_eq!(groups.iter().map(|(model, _)| *model).collect::<Vec<_>>(), ["other", "m"]);
        let order: Vec<_> = groups[1].1.iter().map(|row| row.axes.tensor_parallel_size).collect();
        assert_eq!(order, [Some(2), Some(4), Some(8), None]);
    }

    #[test]
    fn simulated_rows_are_not_compared_with_measured_ones() {
        let mut rows: Vec<Row> = [2, 4].map(|tp| row("m", tp, 1.0, 1.0)).into();
        rows[0].simulated = true;
        let mut table =
            RunTable { facts: Facts::for_tests(), more: Vec::new(), rows, unreadable: Vec::new(), simulated: true };
        assert_eq!((table.comparable().len(), table.is_all_simulated()), (1, false));
        table.rows[1].simulated = true;
        assert_eq!((table.comparable().len(), table.is_all_simulated()), (2, true));
    }

    impl Facts {
        /// Nothing known.
        pub fn for_tests() -> Self {
            Self::bare(PathBuf::new(), "r".into(), Origin::Predecessor)
        }
    }
}

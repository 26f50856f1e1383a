//! What is asked of an answer: the objective, the limits, the margin. Chosen once, by the user's flags or by what the runs keep of their
//! sweep, and the same for every screen and format. Pure.

use super::{Facts, Limit, MARGIN, RunTable};
use crate::model::{Better, Metric, Side};

/// The objective where nobody names another, as a user would write it.
pub const OBJECTIVE: &str = "output_throughput";

/// Before the key of a throughput: that of the whole server, not per device.
const TOTAL: &str = "total:";

/// By what configurations are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// Key of the metric.
    pub key: String,
    /// Which direction of it is better.
    pub better: Better,
    /// Divided by the devices that the configuration takes.
    pub per_device: bool,
}

impl Objective {
    /// Reads the key of a metric with a direction. A throughput of the whole server counts per device, but for
    /// `total:KEY`. `None` where it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (key, total) = text.strip_prefix(TOTAL).map_or((text, false), |key| (key, true));
        let of_all = Metric::is_of_all_devices(key);
        let better = Metric::of(key)?.better.filter(|_| of_all || !total)?;
        Some(Self { key: key.to_owned(), better, per_device: of_all && !total })
    }
}

/// Who asks for the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitsFrom {
    /// The user, with `--slo`.
    #[default]
    Flag,
    /// The sweep file of the run (`slo:`).
    SweepFile,
    /// Nobody: the sweep files of the runs have limits that differ.
    Different,
}

/// Who names the objective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveFrom {
    /// Nobody.
    #[default]
    Default,
    /// The user, with `--objective`.
    Flag,
    /// The run: its sweep file (`objective:`) or `run --objective`.
    Run,
    /// Nobody: the runs have objectives that differ.
    Different,
}

/// What is asked of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RankingSpec {
    /// Key of the metric of the objective.
    pub rank_by: String,
    /// Which direction of it is better.
    pub better: Better,
    /// Divided by the devices that the configuration takes.
    pub per_device: bool,
    /// Who names it.
    pub objective_from: ObjectiveFrom,
    /// vLLM's key of the latency on the other axis.
    pub latency: String,
    /// Limits.
    pub limits: Vec<Limit>,
    /// Who asks for them.
    pub limits_from: LimitsFrom,
    /// Relative difference that matters.
    pub margin: f64,
    /// Share of starts that may fail (0 to 1).
    pub failures: f64,
    /// The run added starts until the answer was decided, to at most so many of each configuration.
    pub until: Option<usize>,
    /// The run measured two sides in turn (`run --against`): what is asked is about the side after.
    pub after: bool,
}

impl RankingSpec {
    /// By this metric, within no limits: per device where it is a throughput of the whole server.
    pub fn by(rank_by: &str, better: Better) -> Self {
        let per_device = Metric::is_of_all_devices(rank_by);
        Self { rank_by: rank_by.to_owned(), better, per_device, ..Self::default() }
    }

    /// What the runs of a table ask for: the objective and the limits that they keep.
    pub fn of(table: &RunTable) -> Self {
        Self::default().with_objective_of(table).0.with_limits_of(table).0.with_starts_of(table)
    }

    /// The same by this objective.
    #[must_use]
    pub fn with_objective(self, objective: Objective, from: ObjectiveFrom) -> Self {
        let Objective { key, better, per_device } = objective;
        Self { rank_by: key, better, per_device, objective_from: from, ..self }
    }

    /// The objective in words: `Output throughput per device (tok/s)`.
    pub fn objective(&self, per_device: bool) -> String {
        let per = if per_device { " per device" } else { "" };
        let known = Metric::of(&self.rank_by);
        known.map_or_else(|| self.rank_by.clone(), |of| format!("{}{per} ({})", of.label, of.unit.symbol()))
    }

    /// Who names the objective, in a sentence; `None` where that needs no word.
    fn about_objective(&self) -> Option<String> {
        match self.objective_from {
            ObjectiveFrom::Default | ObjectiveFrom::Flag => None,
            ObjectiveFrom::Run => {
                Some("The objective is that of the run (`objective`). `--objective` takes another in its place.".into())
            }
            ObjectiveFrom::Different => Some(
                "The objectives of the runs (`objective`) differ: it is the default. `--objective` says which to take."
                    .into(),
            ),
        }
    }

    /// The limits and where they come from, in a sentence; `None` where there are none to speak of.
    fn about_limits(&self) -> Option<String> {
        let all: Vec<String> = self.limits.iter().map(ToString::to_string).collect();
        let all = all.join(", ");
        match self.limits_from {
            LimitsFrom::Different => {
                Some("No limits: those of the runs' sweep files (`slo`) differ. `--slo` says which to keep.".into())
            }
            LimitsFrom::Flag | LimitsFrom::SweepFile if all.is_empty() => None,
            LimitsFrom::Flag => Some(format!("Limits of `--slo`: {all}.")),
            LimitsFrom::SweepFile => {
                Some(format!("Limits of the sweep file (`slo`): {all}. `--slo` takes others in their place."))
            }
        }
    }

    /// Where the objective comes from, and the limits; `None` where there is nothing to say.
    pub fn about(&self) -> Option<String> {
        let said: Vec<String> =
            self.about_objective().into_iter().chain(self.about_limits()).chain(self.about_sides()).collect();
        (!said.is_empty()).then(|| said.join(" "))
    }

    /// The objective of a table's runs: that of several counts only where it is the same. The second value names what is no objective, with
    /// its run: then the default is taken for it.
    #[must_use]
    pub fn with_objective_of(self, table: &RunTable) -> (Self, Vec<(String, String)>) {
        let mut wrong = Vec::new();
        let mut of_run = |facts: &Facts| {
            let text = facts.objective.as_deref().unwrap_or(OBJECTIVE);
            Objective::parse(text).or_else(|| {
                wrong.push((text.to_owned(), facts.run.clone()));
                Objective::parse(OBJECTIVE)
            })
        };
        let all: Vec<Option<Objective>> = facts_of(table).map(&mut of_run).collect();
        let usual = Objective::parse(OBJECTIVE);
        let first = all.first().cloned().flatten();
        let wanted = match first {
            Some(first) if all.iter().all(|other| other.as_ref() == Some(&first)) => {
                let from = if usual.as_ref() == Some(&first) { ObjectiveFrom::Default } else { ObjectiveFrom::Run };
                self.with_objective(first, from)
            }
            Some(_) | None => Self { objective_from: ObjectiveFrom::Different, ..self },
        };
        (wanted, wrong)
    }

    /// The limits of the sweep files of a table's runs: those of several count only where they are the same. The second value names what
    /// is no limit, with its run: then none of that run is used.
    #[must_use]
    pub fn with_limits_of(mut self, table: &RunTable) -> (Self, Vec<(String, String)>) {
        let mut wrong = Vec::new();
        let mut of_run = |facts: &Facts| {
            let read = |(name, value): &(String, String)| {
                let text = || if name.is_empty() { value.clone() } else { format!("{name}: {value}") };
                Limit::stated(name, value).ok_or_else(text)
            };
            facts.slo.iter().map(read).collect::<Result<Vec<Limit>, String>>().unwrap_or_else(|text| {
                wrong.push((text, facts.run.clone()));
                Vec::new()
            })
        };
        let all: Vec<Vec<Limit>> = facts_of(table).map(&mut of_run).collect();
        let same =
            |a: &[Limit], b: &[Limit]| a.iter().all(|one| b.contains(one)) && b.iter().all(|one| a.contains(one));
        let first = all.first().cloned().unwrap_or_default();
        if all.iter().all(|other| same(&first, other)) {
            (self.limits, self.limits_from) = (first, LimitsFrom::SweepFile);
        } else {
            (self.limits, self.limits_from) = (Vec::new(), LimitsFrom::Different);
        }
        (self, wrong)
    }
}

impl RankingSpec {
    /// How the runs of a table added starts, where all did so in the same way: then what was looked at on the way counts.
    #[must_use]
    pub fn with_starts_of(self, table: &RunTable) -> Self {
        let until = table.facts.until.filter(|until| table.more.iter().all(|other| other.until == Some(*until)));
        let after = table.rows.iter().any(|row| row.side == Some(Side::Before));
        Self { until, after, ..self }
    }

    fn about_sides(&self) -> Option<String> {
        self.after.then(|| "This is the answer for the side after; `vllm-bench compare` on this run says whether the side before was better.".into())
    }
}

fn facts_of(table: &RunTable) -> impl Iterator<Item = &Facts> {
    std::iter::once(&table.facts).chain(&table.more)
}

impl Default for RankingSpec {
    /// The most output tokens per second and device, whatever the latency.
    fn default() -> Self {
        Self {
            rank_by: OBJECTIVE.into(),
            better: Better::Higher,
            per_device: true,
            objective_from: ObjectiveFrom::Default,
            latency: "mean_ttft_ms".into(),
            limits: Vec::new(),
            limits_from: LimitsFrom::Flag,
            margin: MARGIN,
            failures: 0.0,
            until: None,
            after: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table_of;
    use super::*;

    #[test]
    fn an_objective_is_a_metric_with_a_direction_and_a_throughput_counts_per_device() {
        let of = |text| Objective::parse(text).map(|found| (found.key, found.better, found.per_device));
        assert_eq!(of(OBJECTIVE), Some((OBJECTIVE.to_owned(), Better::Higher, true)));
        assert_eq!(of(" total:output_throughput"), Some((OBJECTIVE.to_owned(), Better::Higher, false)));
        assert_eq!(of("request_goodput"), Some(("request_goodput".to_owned(), Better::Higher, true)));
        assert_eq!(of("p99_ttft_ms"), Some(("p99_ttft_ms".to_owned(), Better::Lower, false)));
        for wrong in ["", "total:", "total:p99_ttft_ms", "completed", "output_troughput", "total:output_tps_per_gpu"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let usual = RankingSpec::default();
        assert_eq!(
            RankingSpec::default().with_objective(Objective::parse(OBJECTIVE).unwrap(), ObjectiveFrom::Default),
            usual
        );
    }

    #[test]
    fn runs_keep_their_objective_and_those_of_several_count_where_they_agree() {
        let of = |objectives: &[Option<&str>]| {
            let mut table = table_of(Vec::new());
            let facts = |text: &Option<&str>| Facts { objective: text.map(str::to_owned), ..Facts::for_tests() };
            let mut all = objectives.iter().map(facts);
            table.facts = all.next().unwrap();
            table.more = all.collect();
            let (wanted, wrong) = RankingSpec::default().with_objective_of(&table);
            (wanted.rank_by.clone(), wanted.per_device, wanted.objective_from, wrong.len())
        };
        let usual = |from, wrong| (OBJECTIVE.to_owned(), true, from, wrong);
        assert_eq!(of(&[None]), usual(ObjectiveFrom::Default, 0));
        assert_eq!(of(&[Some(OBJECTIVE), None]), usual(ObjectiveFrom::Default, 0));
        assert_eq!(of(&[Some("mean_ttft_ms")]), ("mean_ttft_ms".to_owned(), false, ObjectiveFrom::Run, 0));
        let total = Some("total:output_throughput");
        assert_eq!(of(&[total, total]), (OBJECTIVE.to_owned(), false, ObjectiveFrom::Run, 0));
        assert_eq!(of(&[total, None]), usual(ObjectiveFrom::Different, 0));
        assert_eq!(of(&[Some("speed")]), usual(ObjectiveFrom::Default, 1));
    }

    #[test]
    fn it_is_said_who_asks_for_the_limits_and_the_objective() {
        let wanted = |limits: &[&str]| RankingSpec {
            limits: limits.iter().map(|text| Limit::parse(text).unwrap()).collect(),
            ..RankingSpec::by("request_throughput", Better::Higher)
        };
        let from = |limits: &[&str], limits_from| RankingSpec { limits_from, ..wanted(limits) }.about();
        assert_eq!(from(&[], LimitsFrom::Flag), None);
        assert_eq!(from(&[], LimitsFrom::SweepFile), None);
        assert_eq!(from(&["ttft.p99<5"], LimitsFrom::Flag).as_deref(), Some("Limits of `--slo`: p99_ttft_ms < 5."));
        assert!(from(&["ttft.p99<5"], LimitsFrom::SweepFile).is_some_and(|said| said.contains("of the sweep file")));
        assert!(from(&[], LimitsFrom::Different).is_some_and(|said| said.contains("differ")));
        let by = |objective_from| RankingSpec { objective_from, ..wanted(&["ttft.p99<5"]) }.about().unwrap();
        assert!(
            by(ObjectiveFrom::Run).starts_with("The objective is that of the run")
                && by(ObjectiveFrom::Run).contains("--slo")
        );
        assert!(by(ObjectiveFrom::Different).contains("differ") && !by(ObjectiveFrom::Flag).contains("objective"));
    }
}

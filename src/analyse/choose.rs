//! The configuration to use: limits on latency first, then the figure that matters, then what it costs. Pure.

use std::fmt;

use super::inference::over_starts;
use super::rank::{settings, starts_by};
use super::{Basis, Better, Candidate, Decision, Estimate, Figure, Row, decide};

/// A limit on a figure: `ttft.p99<500`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// vLLM's key: `p99_ttft_ms`.
    pub key: String,
    /// The figure must be below it (milliseconds), or above it for a throughput.
    pub value: f64,
    /// Above rather than below.
    pub above: bool,
}

impl Limit {
    /// Reads `METRIC.STATISTIC<MILLISECONDS` (`ttft.p99<500`, `tpot.mean<50`) or `KEY<VALUE`, `KEY>VALUE` with the key of any
    /// figure.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value, above) = match (text.split_once('<'), text.split_once('>')) {
            (Some((name, value)), None) => (name, value, false),
            (None, Some((name, value))) => (name, value, true),
            _ => return None,
        };
        let value = value.trim_start_matches('=').trim().parse::<f64>().ok().filter(|value| value.is_finite())?;
        let name = name.trim();
        let key = match name.split_once('.') {
            Some((metric, statistic)) if ["ttft", "tpot", "itl", "e2el"].contains(&metric) => {
                let percentile = statistic.strip_prefix('p').is_some_and(|which| which.parse::<f64>().is_ok());
                let known = ["mean", "median", "std"].contains(&statistic) || percentile;
                known.then(|| format!("{statistic}_{metric}_ms"))?
            }
            Some(_) => return None,
            None => name.to_owned(),
        };
        Figure::of(&key)?;
        Some(Self { key, value, above })
    }

    /// Reads a limit of a sweep file. Below the name of a figure stands a sign and a number (`"> 100"`), or a number alone: the figure
    /// must be better than it. Without a name it is as [`Limit::parse`] reads it.
    pub fn stated(name: &str, value: &str) -> Option<Self> {
        if name.is_empty() {
            return Self::parse(value);
        }
        let name = name.replace('-', "_");
        if value.contains(['<', '>']) {
            return Self::parse(&format!("{name}{}", value.trim()));
        }
        let limit = Self::parse(&format!("{name}<{value}"))?;
        Some(Self { above: Figure::of(&limit.key)?.better == Some(Better::Higher), ..limit })
    }

    /// Whether a value keeps it.
    pub fn holds(&self, value: f64) -> bool {
        if self.above { value > self.value } else { value < self.value }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, if self.above { ">" } else { "<" }, self.value)
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

/// One configuration with its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// Mean of the ranked figure.
    pub value: f64,
    /// Mean of the latency on the other axis; `None` where it is not known.
    pub latency: Option<f64>,
    /// Measurements.
    pub n: usize,
    /// What the measurements say of the mean; of several server starts each counts once.
    pub estimate: Option<Estimate>,
    /// No other has both more throughput and less latency.
    pub on_front: bool,
}

/// Why a configuration is not asked.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut<'a> {
    /// Its first measurement.
    pub row: &'a Row,
    /// In words.
    pub why: String,
}

/// What is recommended.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation<'a> {
    /// All that keep the limits, best value first.
    pub options: Vec<Choice<'a>>,
    /// Index of the choice among them.
    pub choice: usize,
    /// The others that cannot be told from it.
    pub equals: Vec<usize>,
    /// What it rests on.
    pub basis: Basis,
    /// Relative noise of repeats.
    pub noise: Option<f64>,
    /// Repeats that would tell the first two apart.
    pub repeats_needed: Option<usize>,
    /// Those that are not asked.
    pub left_out: Vec<LeftOut<'a>>,
}

/// What is asked of a recommendation.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// vLLM's key of the ranked figure.
    pub rank_by: String,
    /// Which direction of it is better.
    pub better: Better,
    /// Divided by the devices that the configuration takes.
    pub per_device: bool,
    /// vLLM's key of the latency on the other axis.
    pub latency: String,
    /// Limits.
    pub limits: Vec<Limit>,
    /// Who asks for them.
    pub limits_from: LimitsFrom,
}

impl Wanted {
    /// The limits and where they come from, in a sentence; `None` where there are none to speak of.
    pub fn about_limits(&self) -> Option<String> {
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
}

impl Default for Wanted {
    /// The most output tokens per second and device, whatever the latency.
    fn default() -> Self {
        Self {
            rank_by: "output_throughput".into(),
            better: Better::Higher,
            per_device: true,
            latency: "mean_ttft_ms".into(),
            limits: Vec::new(),
            limits_from: LimitsFrom::Flag,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "repeats are few")]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Chooses among rows of one model and load; `Err` holds those left out where none is left.
///
/// # Errors
/// When no configuration keeps the limits.
pub fn choose<'a>(rows: &[&'a Row], wanted: &Wanted) -> Result<Recommendation<'a>, Vec<LeftOut<'a>>> {
    let (mut left_out, mut asked) = (Vec::new(), Vec::new());
    for rows in settings(rows) {
        let Some(row) = rows.first().copied() else { continue };
        match refused(&rows, wanted) {
            Some(why) => left_out.push(LeftOut { row, why }),
            None => asked.push(rows),
        }
    }
    let scale = |row: &Row| match row.about.devices {
        Some(devices) if wanted.per_device => 1.0 / f64::from(devices),
        _ => 1.0,
    };
    let mut starts_of_all = Vec::new();
    let mut options = Vec::new();
    for rows in &asked {
        let Some(row) = rows.first().copied() else { continue };
        let Some(mut starts) = starts_by(rows, &wanted.rank_by) else { continue };
        starts.iter_mut().flatten().for_each(|value| *value *= scale(row));
        let Some(value) = mean(&starts.concat()) else { continue };
        let latencies: Vec<f64> = rows.iter().filter_map(|row| row.figure(&wanted.latency)).collect();
        let (n, estimate) = (starts.concat().len(), over_starts(&starts));
        options.push(Choice { row, value, latency: mean(&latencies), n, estimate, on_front: false });
        starts_of_all.push(starts);
    }
    let candidates: Vec<Candidate> = options
        .iter()
        .zip(&starts_of_all)
        .map(|(option, starts)| Candidate {
            starts: starts.clone(),
            devices: option.row.about.devices.unwrap_or(u32::MAX),
            overrides: option.row.about.overrides,
        })
        .collect();
    let Some(decision) = decide(&candidates, wanted.better, None) else { return Err(left_out) };
    let Decision { set, leader, basis, noise, repeats_needed, .. } = decision;
    // One measurement of each: nothing tells equals, so that the best figure is all there is.
    let (choice, equals) = match basis {
        Basis::Single => (leader, Vec::new()),
        Basis::Starts | Basis::RunsOfOneStart | Basis::NoiseFloor => {
            let first = set.first().copied().unwrap_or(leader);
            (first, set.into_iter().filter(|index| *index != first).collect())
        }
    };
    mark_front(&mut options, wanted.better);
    Ok(Recommendation { options, choice, equals, basis, noise, repeats_needed, left_out })
}

/// Why a configuration is not asked, if it is not.
fn refused(rows: &[&Row], wanted: &Wanted) -> Option<String> {
    let measured: Vec<&&Row> = rows.iter().filter(|row| row.is_valid()).collect();
    if measured.is_empty() {
        return Some("it has no valid result".into());
    }
    if let Some(doubt) = measured.iter().flat_map(|row| &row.about.doubts).find(|doubt| doubt.kind.bars()) {
        return Some(doubt.text.clone());
    }
    let value_of = |key: &str| mean(&measured.iter().filter_map(|row| row.figure(key)).collect::<Vec<f64>>());
    if value_of(&wanted.rank_by).is_none() {
        return Some(format!("its result has no `{}`", wanted.rank_by));
    }
    wanted.limits.iter().find_map(|limit| match value_of(&limit.key) {
        None if Figure::quantile(&limit.key).is_some() => {
            Some(format!("its result has no `{}` (vLLM's flag --metric-percentiles)", limit.key))
        }
        None => Some(format!("its result has no `{}`", limit.key)),
        Some(value) if limit.holds(value) => None,
        Some(value) => {
            let sign = if limit.above { "not above" } else { "not below" };
            Some(format!("{} is {value:.2}, {sign} {}", limit.key, limit.value))
        }
    })
}

/// Marks what no other beats in both: a better figure and less latency.
fn mark_front(options: &mut [Choice<'_>], better: Better) {
    let gain = |value: f64| if better == Better::Higher { value } else { -value };
    let points: Vec<(f64, Option<f64>)> = options.iter().map(|option| (gain(option.value), option.latency)).collect();
    let mut order: Vec<(usize, f64, f64)> =
        points.iter().enumerate().filter_map(|(index, (value, latency))| Some((index, *value, (*latency)?))).collect();
    // By the figure, best first; of equals the least latency first. Then a point is on the front when it has less latency than
    // all that are better, or is the very same as one that is on it.
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.total_cmp(&b.2)));
    let mut last: Option<(f64, f64)> = None;
    for (index, value, latency) in order {
        #[expect(clippy::float_cmp, reason = "the very same figures")]
        let on_front = last.is_none_or(|(best, least)| latency < least || latency == least && value == best);
        options[index].on_front = on_front;
        if on_front {
            last = Some((value, latency));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metric;
    use super::super::table::tests::row;
    use super::*;
    use crate::plan::Repeat;

    fn wanted(limits: &[&str]) -> Wanted {
        Wanted {
            rank_by: "request_throughput".into(),
            better: Better::Higher,
            per_device: true,
            latency: "mean_ttft_ms".into(),
            limits: limits.iter().map(|text| Limit::parse(text).unwrap()).collect(),
            limits_from: LimitsFrom::Flag,
        }
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        let limit = |text| Limit::parse(text).map(|limit| (limit.key, limit.value, limit.above));
        assert_eq!(limit("ttft.p99<500"), Some(("p99_ttft_ms".into(), 500.0, false)));
        assert_eq!(limit(" tpot.mean <= 50 "), Some(("mean_tpot_ms".into(), 50.0, false)));
        assert_eq!(limit("output_throughput>1000"), Some(("output_throughput".into(), 1000.0, true)));
        assert_eq!(limit("startup_s<60"), Some(("startup_s".into(), 60.0, false)));
        for wrong in [
            "speed_ms<5",
            "ttft.p101<5",
            "ttft<5",
            "ttft.p<5",
            "ttft.best<5",
            "x.mean<5",
            "ttft.p99",
            "ttft.p99<x",
            "a<b>c",
            "",
        ] {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn limits_of_a_sweep_file_stand_below_their_figure() {
        let limit = |name, value| Limit::stated(name, value).map(|limit| limit.to_string());
        assert_eq!(limit("ttft.p99", "500").as_deref(), Some("p99_ttft_ms < 500"));
        assert_eq!(limit("ttft.p99.9", " < 500").as_deref(), Some("p99.9_ttft_ms < 500"));
        assert_eq!(limit("mean-tpot-ms", "<= 50").as_deref(), Some("mean_tpot_ms < 50"));
        assert_eq!(limit("", "tpot.mean<50").as_deref(), Some("mean_tpot_ms < 50"));
        // A number alone is what the figure must be better than.
        assert_eq!(limit("output_throughput", "100").as_deref(), Some("output_throughput > 100"));
        assert_eq!(limit("output_throughput", "< 100").as_deref(), Some("output_throughput < 100"));
        for (name, wrong) in [("ttft-ms", "200"), ("ttft", "200"), ("ttft.p99", "fast"), ("ttft.p99", ""), ("", "500")]
        {
            assert_eq!(limit(name, wrong), None, "{name}: {wrong}");
        }
    }

    #[test]
    fn it_is_said_who_asks_for_the_limits() {
        let from = |limits: &[&str], limits_from| Wanted { limits_from, ..wanted(limits) }.about_limits();
        assert_eq!(from(&[], LimitsFrom::Flag), None);
        assert_eq!(from(&[], LimitsFrom::SweepFile), None);
        assert_eq!(from(&["ttft.p99<5"], LimitsFrom::Flag).as_deref(), Some("Limits of `--slo`: p99_ttft_ms < 5."));
        assert!(from(&["ttft.p99<5"], LimitsFrom::SweepFile).is_some_and(|said| said.contains("of the sweep file")));
        assert!(from(&[], LimitsFrom::Different).is_some_and(|said| said.contains("differ")));
    }

    #[test]
    fn fewer_devices_win_per_device_and_limits_leave_out() {
        let mut rows = [row("m", 1, 10.0, 400.0), row("m", 2, 16.0, 200.0), row("m", 4, 20.0, 250.0)];
        for (row, devices) in rows.iter_mut().zip([1, 2, 4]) {
            row.about.devices = Some(devices);
        }
        let all: Vec<&Row> = rows.iter().collect();
        let found = choose(&all, &wanted(&[])).unwrap();
        assert_eq!(found.options[found.choice].row.name, "m_tp1");
        let front: Vec<bool> = found.options.iter().map(|option| option.on_front).collect();
        assert_eq!(front, [true, true, false]);
        let found = choose(&all, &wanted(&["ttft.mean<300"])).unwrap();
        assert_eq!(found.options[found.choice].row.name, "m_tp2");
        assert!(found.left_out[0].why.contains("mean_ttft_ms is 400.00, not below 300"), "{}", found.left_out[0].why);
        assert_eq!(choose(&all, &wanted(&["ttft.p99<1"])).unwrap_err().len(), 3);
    }

    #[test]
    fn among_equals_the_one_with_fewer_devices_is_chosen() {
        let mut rows = Vec::new();
        for (tp, base) in [(2u32, 10.0), (4, 10.1)] {
            for start in 1..=4u32 {
                let mut row = row("m", tp, base + f64::from(start) * 0.2, 100.0);
                row.repeat = Some(Repeat { start, run: 1 });
                row.identity = serde_json::from_value(format!("{tp:064}").into()).ok();
                row.about.devices = Some(tp);
                rows.push(row);
            }
        }
        let all: Vec<&Row> = rows.iter().collect();
        let wanted = Wanted { per_device: false, ..wanted(&[]) };
        let found = choose(&all, &wanted).unwrap();
        assert_eq!(found.options[found.choice].row.axes.tensor_parallel_size, Some(2));
        assert_eq!((found.equals.len(), found.basis), (1, Basis::Starts));
        assert!(found.repeats_needed.is_some_and(|needed| needed > 4));
        assert_eq!(all[0].metrics.get(Metric::RequestThroughput), Some(10.2));
    }
}

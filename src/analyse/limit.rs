//! Limits on metrics: `ttft.p99<500`. A limit holds with confidence over server starts, not for their mean. Pure.

use std::fmt;

use super::decide::FEWEST_STARTS;
use super::inference::{CONFIDENCE, Group, mean, t_quantile};
use super::moderate::moderated;
use crate::model::{Better, Metric};

/// A limit on a metric: `ttft.p99<500`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// vLLM's key: `p99_ttft_ms`.
    pub key: String,
    /// The metric must be below it (milliseconds), or above it for a throughput.
    pub value: f64,
    /// Above rather than below.
    pub above: bool,
    /// The value itself keeps it (`<=`, `>=`).
    pub inclusive: bool,
}

/// How the keys of what is sampled of devices and host end: `mean_power_w`.
const SAMPLED_UNITS: [&str; 5] = ["w", "c", "mhz", "pct", "gib"];

impl Limit {
    /// Reads `METRIC.STATISTIC<MILLISECONDS` (`ttft.p99<500`, `tpot.mean<=50`), the same of what is sampled of devices and host
    /// (`power.mean<400`, `temperature.max<90`), or `KEY<VALUE`, `KEY>=VALUE` with the key of any metric.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value, above) = match (text.split_once('<'), text.split_once('>')) {
            (Some((name, value)), None) => (name, value, false),
            (None, Some((name, value))) => (name, value, true),
            _ => return None,
        };
        let (value, inclusive) = value.strip_prefix('=').map_or((value, false), |value| (value, true));
        let value = value.trim().parse::<f64>().ok().filter(|value| value.is_finite())?;
        let name = name.trim();
        let key = match name.split_once('.') {
            Some((metric, statistic)) if ["ttft", "tpot", "itl", "e2el"].contains(&metric) => {
                let percentile = statistic.strip_prefix('p').is_some_and(|which| which.parse::<f64>().is_ok());
                let known = ["mean", "median", "std"].contains(&statistic) || percentile;
                known.then(|| format!("{statistic}_{metric}_ms"))?
            }
            Some((metric, statistic)) => {
                let of_unit = |unit: &&str| format!("{statistic}_{metric}_{unit}");
                SAMPLED_UNITS.iter().map(of_unit).find(|key| Metric::of(key).is_some())?
            }
            None => name.to_owned(),
        };
        Metric::of(&key)?;
        Some(Self { key, value, above, inclusive })
    }

    /// Reads a limit of a sweep file. Below the name of a metric stands a sign and a number (`"> 100"`), or a number alone: the metric
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
        Some(Self { above: Metric::of(&limit.key)?.better == Some(Better::Higher), ..limit })
    }

    /// Whether a value keeps it.
    pub fn holds(&self, value: f64) -> bool {
        #[expect(clippy::float_cmp, reason = "the very value that the limit names")]
        let is_it = self.inclusive && value == self.value;
        is_it || if self.above { value > self.value } else { value < self.value }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (self.above, self.inclusive) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        write!(f, "{} {sign} {}", self.key, self.value)
    }
}

/// Whether a configuration keeps a limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kept {
    /// With confidence: three starts or more, and the bound of their mean keeps it.
    Yes,
    /// Each of its one or two starts keeps it, which confirms nothing; in words.
    Unconfirmed(String),
    /// It does not, or is not shown to, or has no such metric; in words.
    No(String),
}

impl Kept {
    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Kept::No(why), _) | (Kept::Unconfirmed(_) | Kept::Yes, Kept::No(why)) => Kept::No(why),
            (Kept::Unconfirmed(why), _) | (Kept::Yes, Kept::Unconfirmed(why)) => Kept::Unconfirmed(why),
            (Kept::Yes, Kept::Yes) => Kept::Yes,
        }
    }
}

/// Whether each configuration keeps a limit, by the metric's values on each of its starts (`None` where a measurement has none).
///
/// With three starts or more the one-sided confidence bound of the mean must keep it: Student's t with moderated variances, never one below
/// the configuration's own, at 5 % over all configurations together (Bonferroni). With fewer the worst start must, and that is unconfirmed.
pub(super) fn kept(starts: &[Option<Vec<Vec<f64>>>], limit: &Limit) -> Vec<Kept> {
    let flat = || starts.iter().flatten().flatten().flatten();
    let logarithms = limit.value > 0.0 && flat().all(|value| *value > 0.0);
    let scale = |value: f64| if logarithms { value.ln() } else { value };
    let back = |value: f64| if logarithms { value.exp() } else { value };
    let values: Vec<Option<Vec<f64>>> = starts
        .iter()
        .map(|starts| {
            let means = starts.as_ref()?.iter().map(|start| scale(mean(start)));
            Some(means.collect::<Vec<f64>>()).filter(|values| !values.is_empty())
        })
        .collect();
    let groups: Vec<Option<Group>> =
        values.iter().map(|values| Group::of(values.as_deref().filter(|values| values.len() > 1)?)).collect();
    #[expect(clippy::cast_precision_loss, reason = "configurations are few")]
    let level = (1.0 - CONFIDENCE) / values.len().max(2) as f64;
    let bounds = moderated(&groups);
    values
        .iter()
        .zip(groups.iter().zip(bounds))
        .map(|(values, (group, moderated))| {
            let Some(values) = values else { return Kept::No(absent(limit)) };
            let (n, keeping) = (values.len(), values.iter().filter(|value| limit.holds(back(**value))).count());
            let starts = if n == 1 { "start keeps" } else { "starts keep" };
            let of = format!("{keeping} of {n} {starts} {limit}");
            let (Some(group), Some(moderated), true) = (group, moderated, n >= FEWEST_STARTS) else {
                let worst = values.iter().copied().reduce(if limit.above { f64::min } else { f64::max });
                return match worst.map(back) {
                    Some(worst) if !limit.holds(worst) => Kept::No(format!("{}: {}", broken(limit, worst), of)),
                    _ => Kept::Unconfirmed(format!("{of}; {FEWEST_STARTS} starts confirm it")),
                };
            };
            #[expect(clippy::cast_precision_loss, reason = "starts are few")]
            let error = (moderated.variance.max(group.variance) / n as f64).sqrt();
            let half = t_quantile(1.0 - level, moderated.freedom).unwrap_or(f64::INFINITY) * error;
            let bound = back(if limit.above { group.mean - half } else { group.mean + half });
            match limit.holds(bound) {
                true => Kept::Yes,
                false if limit.holds(back(group.mean)) => {
                    let end = if limit.above { "lower" } else { "upper" };
                    Kept::No(format!(
                        "{} is {:.2} on average, and its {end} confidence bound is {bound:.2}: {of}, which does not show \
                         that it does (more starts may)",
                        limit.key,
                        back(group.mean)
                    ))
                }
                false => Kept::No(format!("{}: {of}", broken(limit, back(group.mean)))),
            }
        })
        .collect()
}

fn broken(limit: &Limit, value: f64) -> String {
    let sign = match (limit.above, limit.inclusive) {
        (true, true) => "below",
        (true, false) => "not above",
        (false, true) => "above",
        (false, false) => "not below",
    };
    format!("{} is {value:.2}, {sign} {}", limit.key, limit.value)
}

fn absent(limit: &Limit) -> String {
    let hint = if Metric::quantile(&limit.key).is_some() { " (vLLM's flag --metric-percentiles)" } else { "" };
    format!("a result of it has no `{}`{hint}", limit.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them() {
        let limit = |text| Limit::parse(text).map(|limit| (limit.key, limit.value, limit.above, limit.inclusive));
        assert_eq!(limit("ttft.p99<500"), Some(("p99_ttft_ms".into(), 500.0, false, false)));
        assert_eq!(limit(" tpot.mean <= 50 "), Some(("mean_tpot_ms".into(), 50.0, false, true)));
        assert_eq!(limit("output_throughput>1000"), Some(("output_throughput".into(), 1000.0, true, false)));
        assert_eq!(limit("startup_s<60"), Some(("startup_s".into(), 60.0, false, false)));
        for wrong in [
            "speed_ms<5",
            "ttft.p101<5",
            "ttft<5",
            "ttft.p<5",
            "ttft.best<5",
            "x.mean<5",
            "ttft.p99",
            "ttft.p99<x",
            "ttft.p99<==5",
            "a<b>c",
            "",
        ] {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
        let holds = |text: &str, value| Limit::parse(text).unwrap().holds(value);
        assert!(holds("ttft.p99<=5", 5.0) && !holds("ttft.p99<5", 5.0) && holds("output_throughput>=5", 5.0));
        let key = |text: &str| Limit::parse(text).map(|limit| limit.key);
        for (text, expected) in [
            ("power.mean<400", Some("mean_power_w")),
            ("temperature.max<90", Some("max_temperature_c")),
            ("server_cpu.mean<800", Some("mean_server_cpu_pct")),
            ("host_memory.max<100", Some("max_host_memory_gib")),
            ("power.p99<400", None),
            ("humidity.mean<4", None),
        ] {
            assert_eq!(key(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn limits_of_a_sweep_file_stand_below_their_metric() {
        let limit = |name, value| Limit::stated(name, value).map(|limit| limit.to_string());
        assert_eq!(limit("ttft.p99", "500").as_deref(), Some("p99_ttft_ms < 500"));
        assert_eq!(limit("ttft.p99.9", " < 500").as_deref(), Some("p99.9_ttft_ms < 500"));
        assert_eq!(limit("mean-tpot-ms", "<= 50").as_deref(), Some("mean_tpot_ms <= 50"));
        assert_eq!(limit("", "tpot.mean<50").as_deref(), Some("mean_tpot_ms < 50"));
        // A number alone is what the metric must be better than.
        assert_eq!(limit("output_throughput", "100").as_deref(), Some("output_throughput > 100"));
        assert_eq!(limit("output_throughput", "< 100").as_deref(), Some("output_throughput < 100"));
        for (name, wrong) in [("ttft-ms", "200"), ("ttft", "200"), ("ttft.p99", "fast"), ("ttft.p99", ""), ("", "500")]
        {
            assert_eq!(limit(name, wrong), None, "{name}: {wrong}");
        }
    }

    #[test]
    fn a_limit_holds_with_confidence_and_not_for_the_mean() {
        let verdict = |text: &str, all: &[&[f64]]| -> Vec<&'static str> {
            let starts: Vec<Option<Vec<Vec<f64>>>> = all
                .iter()
                .map(|values| {
                    Some(values.iter().map(|value| vec![*value]).collect::<Vec<_>>()).filter(|s| !s.is_empty())
                })
                .collect();
            let word = |kept: Kept| match kept {
                Kept::Yes => "yes",
                Kept::Unconfirmed(_) => "unconfirmed",
                Kept::No(_) => "no",
            };
            kept(&starts, &Limit::parse(text).unwrap()).into_iter().map(word).collect()
        };
        assert_eq!(verdict("ttft.p99<500", &[&[100.0, 100.0, 100.0, 100.0, 2095.0]]), ["no"]);
        assert_eq!(verdict("ttft.p99<500", &[&[400.0, 402.0, 398.0]]), ["yes"]);
        assert_eq!(verdict("ttft.p99<500", &[&[499.0, 402.0, 598.0]]), ["no"]);
        assert_eq!(
            verdict("ttft.p99<500", &[&[400.0, 402.0], &[400.0, 502.0], &[499.0]]),
            ["unconfirmed", "no", "unconfirmed"]
        );
        assert_eq!(verdict("ttft.p99<500", &[&[]]), ["no"], "no metric is no pass");
        assert_eq!(verdict("preemptions<=0", &[&[0.0, 0.0, 0.0], &[0.0, 1.0, 0.0]]), ["yes", "no"]);
        assert_eq!(verdict("preemptions<0", &[&[0.0, 0.0, 0.0]]), ["no"]);
        assert_eq!(verdict("output_throughput>90", &[&[100.0, 101.0, 99.0]]), ["yes"]);
    }
}

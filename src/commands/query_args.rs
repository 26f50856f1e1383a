//! What `analyze`, `recommend` and `compare` are asked: metrics, groups, limits, prices. A wrong word is named with its flag, what was
//! expected, and the nearest that is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::analyse::{
    Assumptions, Base, COMPARED, Limit, NAME, Pairing, Prices, RankingSpec, RunTable, Unmarked, ambiguous, bases,
    described, mark_baseline,
};
use crate::cli::{CostArgs, RunArgs};
use crate::config::tree::Diagnostic;
use crate::config::{self, Environment, Settings, read_prices};
use crate::dashboard::Gateway;
use crate::error::Error;
use crate::model::{Better, Metric};
use crate::nearest::nearest;
use crate::ui::Ui;

/// Refuses flags that say what a run does with other runs, where a sweep alone is shown.
///
/// # Errors
/// When one of them is given.
pub(super) fn no_other_run(command: &str, args: &RunArgs) -> Result<(), Error> {
    let given = [
        ("--against", args.against.is_some()),
        ("--extend", args.extend.is_some()),
        ("--noise-check", args.noise_check.is_some()),
        ("--resume", args.resume.is_some()),
    ];
    if args.wait.is_some() {
        return Err(Error::Usage {
            message: format!("`--wait` has no effect with `{command}`, which starts nothing"),
            hint: "`vllm-bench run --wait` waits for devices that another run holds".to_owned(),
        });
    }
    let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    Err(Error::Usage {
        message: format!("`{flag}` has no effect with `{command}`, which shows what a sweep asks for"),
        hint: format!("`vllm-bench run --dry-run {flag} …` shows what such a run would measure, and starts nothing"),
    })
}

/// Words between commas, of all uses of a flag.
fn words(values: &[String]) -> impl Iterator<Item = &str> {
    values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// A metric with a direction, by its key.
pub(super) fn metric(flag: &str, key: &str) -> Result<(Metric, Better), Error> {
    let Some(found) = Metric::of(key) else { return Err(unknown_metric(flag, key, false)) };
    match found.better {
        Some(better) => Ok((found, better)),
        None => Err(unknown_metric(flag, key, true)),
    }
}

fn unknown_metric(flag: &str, key: &str, describes: bool) -> Error {
    let directed = || Metric::keys().filter(|key| Metric::of(key).is_some_and(|metric| metric.better.is_some()));
    let near = nearest(key, directed()).or_else(|| crate::nearest::nearest_part(key, directed()));
    let hint = match near.filter(|_| !describes) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "such as output_throughput, output_tps_per_gpu, mean_ttft_ms, p99_tpot_ms; docs/analysis.md has all".into()
        }
    };
    let message =
        format!("invalid value `{}` for `{flag}`: expected the key of a metric with a direction", key.escape_debug());
    Error::Usage { message, hint }
}

/// The Pushgateway of `--pushgateway`.
pub(super) fn gateway(text: &str) -> Result<Gateway, Error> {
    Gateway::parse(text).map_err(|expected| Error::Usage {
        message: format!("invalid value for `--pushgateway`: expected {expected}"),
        hint: "user and password, where it asks for them, stand before the host: `http://USER:PASSWORD@gateway:9091`"
            .into(),
    })
}

/// The metrics of `compare`.
pub(super) fn metrics(values: &[String]) -> Result<Vec<Metric>, Error> {
    let mut named: Vec<Metric> = Vec::new();
    for key in words(values) {
        let (metric, _) = metric("--metrics", key)?;
        if !named.contains(&metric) {
            named.push(metric);
        }
    }
    let usual = || COMPARED.into_iter().filter_map(|metric| Metric::of(metric.key())).collect();
    Ok(if named.is_empty() { usual() } else { named })
}

/// The limits of `--slo`.
pub(super) fn limits(values: &[String]) -> Result<Vec<Limit>, Error> {
    let limit = |text: &str| {
        Limit::parse(text).filter(is_tail).ok_or_else(|| {
            let name = text.split(['<', '>']).next().unwrap_or_default().trim();
            let near = nearest_limit(name).or_else(|| nearest_of_limit(text).map(str::to_owned));
            Error::Usage {
                message: format!(
                    "invalid value `{}` for `--slo`: expected `METRIC.STATISTIC<MS`, or `KEY<VALUE` with the key of a metric",
                    text.escape_debug()
                ),
                hint: near.map_or_else(
                    || "such as `--slo 'ttft.p99<500,tpot.mean<50'`".into(),
                    |near| format!("did you mean `{near}`?"),
                ),
            }
        })
    };
    words(values).map(limit).collect()
}

/// The metric that is meant by a limit whose name is none.
fn nearest_of_limit(text: &str) -> Option<&'static str> {
    let key = text.split(['<', '>']).next().unwrap_or_default().trim();
    nearest(key, Metric::keys()).filter(|near| *near != key)
}

/// The limit that is meant where its metric or its statistic is misspelt: `tttft.p99`, `ttft.p9`.
fn nearest_limit(name: &str) -> Option<String> {
    const METRICS: [&str; 4] = ["ttft", "tpot", "itl", "e2el"];
    const STATISTICS: [&str; 7] = ["mean", "median", "std", "p50", "p90", "p95", "p99"];
    let (metric, statistic) = name.split_once('.')?;
    let metric = nearest(metric, METRICS.into_iter())?;
    let percentile = statistic
        .strip_prefix('p')
        .is_some_and(|which| which.parse().is_ok_and(|which: f64| (50.0..=100.0).contains(&which)));
    let known = STATISTICS.contains(&statistic) || percentile;
    let statistic = if known { statistic } else { nearest(statistic, STATISTICS.into_iter().rev())? };
    Some(format!("{metric}.{statistic}")).filter(|near| near != name)
}

/// A limit on a percentile below the median says nothing of the slow requests: it is a slip.
fn is_tail(limit: &Limit) -> bool {
    Metric::quantile(&limit.key).is_none_or(|(part, _)| part >= 0.5)
}

/// Checks the limits of the sweep files (`slo`), so that nothing is measured under limits that no report can keep.
///
/// # Errors
/// The first that is no limit on a metric, with its place.
pub(super) fn check_slo(settings: &Settings) -> Result<(), Error> {
    for stated in &settings.slo {
        if Limit::stated(&stated.name, &stated.value).is_some_and(|limit| is_tail(&limit)) {
            continue;
        }
        let text = format!("{}{}", stated.name.replace('-', "_"), stated.value);
        let problem = if stated.name.is_empty() {
            format!(
                "expected `METRIC.STATISTIC<MS`, or `KEY<VALUE` with the key of a metric, found `{}`",
                text.escape_debug()
            )
        } else {
            format!(
                "expected a number for a metric (`ttft: {{p99: 500}}`, `output_throughput: \"> 100\"`), found `{}: {}`",
                stated.name.escape_debug(),
                stated.value.escape_debug()
            )
        };
        let named = if stated.name.is_empty() { text.as_str() } else { &text[..stated.name.len()] };
        let name = named.split(['<', '>']).next().unwrap_or_default().trim();
        let near = nearest_limit(name).or_else(|| nearest_of_limit(named).map(str::to_owned));
        let misspelt = near.is_some() && !stated.name.is_empty();
        let problem = if misspelt { format!("there is no metric `{}`", stated.name.escape_debug()) } else { problem };
        let hint = near.map_or_else(
            || {
                "write `slo: {ttft: {p99: 500}, tpot: {mean: 50}}` (milliseconds); docs/analysis.md has all metrics"
                    .into()
            },
            |near| format!("did you mean `{near}`?"),
        );
        return Err(config::Error::Document(Diagnostic::new(&stated.origin, &stated.path, problem).hint(hint)).into());
    }
    Ok(())
}

/// How `compare` pairs configurations, by `--ignore` and `--match`.
///
/// # Errors
/// When a key is no setting of the runs, when no key is named, or when the keys make configurations of one run the same.
pub(super) fn pairing(ignore: &[String], matched: &[String], tables: [&RunTable; 2]) -> Result<Pairing, Error> {
    let pairing = match (ignore.is_empty(), matched.is_empty()) {
        (true, true) => return Ok(Pairing::All),
        (false, _) => Pairing::Ignore(setting_keys("--ignore", ignore, &known_settings(tables))?),
        (true, false) => Pairing::Match(setting_keys("--match", matched, &known_settings(tables))?),
    };
    for (table, which) in tables.into_iter().zip(["before", "after"]) {
        let differ = ambiguous(table, &pairing);
        if differ.is_empty() {
            continue;
        }
        let words: Vec<String> = differ
            .iter()
            .map(|(key, values)| {
                let values: Vec<String> = values.iter().map(|value| crate::report::clean(value)).collect();
                format!("{} ({})", crate::report::clean(key), some_of(&values))
            })
            .collect();
        let flag = if matched.is_empty() { "--ignore" } else { "--match" };
        return Err(Error::Usage {
            message: format!(
                "`{flag}` makes several configurations of the run {which}, `{}`, the same: they differ in {}",
                crate::report::clean(&table.facts.run),
                some_of(&words)
            ),
            hint: match matched.is_empty() {
                true => "ignore only settings that each run has one value of".into(),
                false => format!("add what tells them apart, such as `--match {},{}`", matched.join(","), differ[0].0),
            },
        });
    }
    Ok(pairing)
}

/// The settings of these runs.
fn known_settings(tables: [&RunTable; 2]) -> BTreeSet<String> {
    let rows = tables.into_iter().flat_map(|table| &table.rows);
    rows.flat_map(|row| described(row).into_keys()).collect()
}

/// A setting by vLLM's flag name, whatever short word is written for it.
pub(super) fn setting_key(word: &str) -> String {
    let word = word.trim();
    if word.starts_with("env.") { word.to_owned() } else { crate::report::plot::full_key(word) }
}

/// Names of these settings, by vLLM's flag names.
///
/// # Errors
/// When one is none of them, or none is named.
pub(super) fn setting_keys(flag: &str, values: &[String], known: &BTreeSet<String>) -> Result<Vec<String>, Error> {
    let keys: Vec<String> = words(values).map(setting_key).collect();
    let all = || some_of(&known.iter().map(|key| crate::report::clean(key)).collect::<Vec<_>>());
    if keys.is_empty() {
        let message = format!("invalid value for `{flag}`: it names no setting");
        return Err(Error::Usage { message, hint: format!("there is: {}", all()) });
    }
    match keys.iter().find(|key| !known.contains(*key)) {
        None => Ok(keys),
        Some(wrong) => Err(Error::Usage {
            message: format!("invalid value `{}` for `{flag}`: it is no setting of these runs", wrong.escape_debug()),
            hint: match nearest(wrong, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there is: {}", all()),
            },
        }),
    }
}

/// The keys of `--group-by`, which these rows have.
pub(super) fn group_keys(values: &[String], table: &RunTable) -> Result<Vec<String>, Error> {
    let known = crate::analyse::group_keys(table);
    let keys: Vec<String> = words(values).map(|word| word.trim_start_matches('-').replace('_', "-")).collect();
    if let Some(wrong) = keys.iter().find(|key| !known.contains(*key)) {
        let message =
            format!("invalid value `{}` for `--group-by`: it is no setting of these rows", wrong.escape_debug());
        let hint = match nearest(wrong, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "such as model, tensor-parallel-size, group, run, or a flag of vLLM that is set".into(),
        };
        return Err(Error::Usage { message, hint });
    }
    Ok(keys)
}

/// Parts between commas that stand in no brackets: a value may be JSON.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[from..]);
    found
}

/// Some of what there is, for a hint.
pub(super) fn some_of(known: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<String> = known.iter().take(SHOWN).map(|word| crate::report::clean(word)).collect();
    if known.len() > SHOWN {
        shown.push(format!("and {} more", known.len() - SHOWN));
    }
    shown.join(", ")
}

/// Says where speed-ups are over a baseline that is excluded, or there are none because of that.
pub(super) fn tell_excluded_baselines(table: &RunTable, wanted: &RankingSpec, ui: &Ui) {
    bases(table, wanted).iter().filter_map(Base::warning).for_each(|warning| ui.warn(&warning));
}

/// Takes the configuration that `--baseline` names for what others are compared with. Returns whether there is one: then the metrics
/// have to be derived again.
///
/// # Errors
/// When it is no setting, no configuration has it, or several of the same model and load have.
pub(super) fn baseline(values: &[String], table: &mut RunTable, ui: &Ui) -> Result<bool, Error> {
    let given = || values.join(",");
    let mut asked = Vec::new();
    for part in values.iter().flat_map(|value| parts(value)).map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) =
            part.split_once('=').filter(|(key, value)| !key.trim().is_empty() && !value.is_empty())
        else {
            return Err(Error::Usage {
                message: format!("invalid value `{}` for `--baseline`: expected KEY=VALUE", part.escape_debug()),
                hint: "such as `--baseline tensor-parallel-size=1,max-num-seqs=256`, or `--baseline name=EXPERIMENT`"
                    .into(),
            });
        };
        asked.push((crate::report::plot::full_key(key), value.trim().to_owned()));
    }
    if asked.is_empty() {
        return match values.is_empty() {
            true => Ok(false),
            false => Err(Error::Usage {
                message: "`--baseline` names nothing: expected KEY=VALUE".into(),
                hint: "leave it out for the baseline of the sweep".into(),
            }),
        };
    }
    let without = mark_baseline(table, &asked).map_err(|unmarked| no_baseline(&given(), unmarked))?;
    for place in without.iter().take(SOME_WITHOUT) {
        ui.warn(&format!(
            "`--baseline {}` has no valid result of {}: nothing is compared there",
            given().escape_debug(),
            crate::report::clean(place)
        ));
    }
    if let Some(more @ 1..) = without.len().checked_sub(SOME_WITHOUT) {
        ui.warn(&format!("nor of {more} more models and loads"));
    }
    Ok(true)
}

/// So many models and loads without a baseline are named.
const SOME_WITHOUT: usize = 4;

fn no_baseline(given: &str, unmarked: Unmarked) -> Error {
    let invalid = |why: String| format!("invalid value `{}` for `--baseline`: {why}", given.escape_debug());
    let near = |word: &str, known: &[String]| {
        nearest(word, known.iter().map(String::as_str)).map(|near| format!("did you mean `{}`?", near.escape_debug()))
    };
    let (message, hint) = match unmarked {
        Unmarked::Key { key, known } => (
            invalid(format!("`{}` is no setting of these rows", key.escape_debug())),
            near(&key, &known).unwrap_or_else(|| format!("there is: {}, and name", some_of(&known))),
        ),
        Unmarked::Value { key, value, known } => (
            invalid(match key.as_str() {
                NAME => format!("no experiment is called `{}`", value.escape_debug()),
                _ => format!("no configuration has {key} {}", value.escape_debug()),
            }),
            match near(&value, &known).filter(|_| key == NAME) {
                Some(near) => near,
                None => format!("there is: {}", some_of(&known)),
            },
        ),
        Unmarked::Together { nearest, otherwise } => {
            let otherwise: Vec<String> = otherwise.iter().map(|(key, value)| format!("{key} {value}")).collect();
            (
                invalid("no configuration has all of these".into()),
                format!(
                    "the nearest, {}, has {}",
                    crate::report::clean(&nearest),
                    crate::report::clean(&otherwise.join(", "))
                ),
            )
        }
        Unmarked::Ambiguous { names: [first, second], differ } => (
            invalid(format!(
                "{} and {} both have these settings under the same load",
                crate::report::clean(&first),
                crate::report::clean(&second)
            )),
            match differ {
                Some((key, [one, other])) => {
                    let (one, other) = (crate::report::clean(&one), crate::report::clean(&other));
                    format!("add `{key}={one}` or `{key}={other}`, or write `name=EXPERIMENT`")
                }
                None => "name one of them: `name=EXPERIMENT`".into(),
            },
        ),
    };
    Error::Usage { message, hint }
}

/// Prices and the size of a node.
pub(super) fn assumptions(cost: &CostArgs, environment: &Environment) -> Result<Assumptions, Error> {
    let mut assumed = Assumptions::default();
    if let Some(text) = &cost.devices_per_node {
        assumed.devices_per_node = text.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::Usage {
            message: format!(
                "invalid value `{}` for `--devices-per-node`: expected a whole number of at least 1",
                text.escape_debug()
            ),
            hint: "leave it out for 8".into(),
        })?;
    }
    if let Some(file) = &cost.prices {
        let file = read_prices(file, environment)?;
        let currency: Arc<str> = file.currency.into();
        assumed.prices = Some(Prices { currency, default: file.default, kwh: file.kwh, devices: file.devices });
    }
    Ok(assumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_of_json_separate_nothing() {
        assert_eq!(parts("a=1, b=2"), ["a=1", " b=2"]);
        assert_eq!(
            parts(r#"speculative-config={"method":"ngram","n":[1,2]},b=2"#),
            [r#"speculative-config={"method":"ngram","n":[1,2]}"#, "b=2"]
        );
        assert_eq!(parts("a=}],b"), ["a=}]", "b"]);
    }
}

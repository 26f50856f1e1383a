//! Rows by what the user groups them by, each group with its answer. Pure.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::beside::{Beside, Sides};
use super::choose::weigh_limits;
use super::{LeftOut, RankingSpec, Recommendation, Row, RunTable, choose, load_labels};

/// The grouping where nobody asks for another.
pub const BY_MODEL: &str = "model";

/// What the rows of a group share: key and value.
type Group = Vec<(String, String)>;

/// One group with its answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// What its rows share: key and value, in the order asked for.
    pub group: Vec<(String, String)>,
    /// Which load; empty where there is one.
    pub workload: String,
    /// The answer; `Err` holds why each configuration is left out.
    pub choice: Result<Recommendation<'a>, Vec<LeftOut<'a>>>,
    /// What was measured beside others; `None` where nothing was that counts.
    pub beside: Option<Beside>,
}

impl Answer<'_> {
    /// The group in words: the model by its name, others with their key, then the load.
    pub fn title(&self) -> String {
        let word = |(key, value): &(String, String)| match key.as_str() {
            BY_MODEL => value.clone(),
            _ => format!("{key} {value}"),
        };
        let mut parts: Vec<String> = self.group.iter().map(word).collect();
        if !self.workload.is_empty() {
            parts.push(format!("at {}", self.workload));
        }
        if parts.is_empty() { "all".into() } else { parts.join(", ") }
    }

    /// The value of a key of the group.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.group.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// Every key by which these rows can be grouped.
pub fn group_keys(table: &RunTable) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> =
        ["model", "tensor-parallel-size", "quantization", "enforce-eager", "group", "run"].map(str::to_owned).into();
    let mut last = None;
    for row in &table.rows {
        keys.extend(row.axes.server.iter().chain(&row.axes.workload).map(|(key, _)| key.clone()));
        let (flags, load) = (std::ptr::from_ref(&*row.about.flags), std::ptr::from_ref(&*row.load));
        if last != Some((flags, load)) {
            last = Some((flags, load));
            keys.extend(row.about.flags.keys().chain(row.load.0.keys()).cloned());
        }
    }
    keys
}

/// The values of a row under a key; a row may belong to several named groups.
fn values(row: &Row, key: &str) -> Vec<String> {
    match key {
        "group" if row.groups.is_empty() => vec!["none".into()],
        "group" => row.groups.clone(),
        "run" => vec![row.about.run.to_string()],
        _ => vec![row.setting(key).map_or_else(|| "default".to_owned(), std::borrow::Cow::into_owned)],
    }
}

/// Groups the planned rows by these keys and by load, and answers for each group that has a valid result. Where some were measured,
/// simulated rows are left out.
pub fn answers<'a>(table: &'a RunTable, keys: &[String], wanted: &RankingSpec) -> Vec<Answer<'a>> {
    let rows = table.judged();
    let mut groups: IndexMap<(Group, String), Vec<&Row>> = IndexMap::new();
    for (row, load) in rows.iter().zip(load_labels(&rows)) {
        let mut names: Vec<Group> = vec![Vec::new()];
        for key in keys {
            let values = values(row, key);
            let with = |name: &Group, value: &String| -> Group {
                name.iter().cloned().chain([(key.clone(), value.clone())]).collect()
            };
            names = names.iter().flat_map(|name| values.iter().map(move |value| with(name, value))).collect();
        }
        for name in names {
            groups.entry((name, load.clone())).or_default().push(row);
        }
    }
    let sides = Sides::of(table);
    groups
        .into_iter()
        .filter(|(_, rows)| rows.iter().any(|row| row.is_valid()))
        .map(|((group, workload), rows)| {
            let mut choice = choose(&rows, wanted);
            let beside = sides.as_ref().and_then(|sides| sides.tell(&choice, wanted));
            match (&mut choice, &beside) {
                (Ok(found), Some(beside)) => found.weigh(beside),
                (Err(left_out), Some(beside)) => weigh_limits(left_out, beside),
                (_, None) => {}
            }
            Answer { group, workload, choice, beside }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{row, table_of};
    use super::*;
    use crate::model::{Better, VllmMetric};

    #[test]
    fn a_row_of_two_groups_is_ranked_in_both_and_loads_stay_apart() {
        let mut rows = vec![row("m", 1, 1.0, 1.0), row("m", 2, 2.0, 1.0), row("m", 4, 3.0, 1.0)];
        rows[0].groups = vec!["tier0".into(), "tier1".into()];
        rows[1].groups = vec!["tier0".into()];
        rows[2].groups = vec!["tier0".into()];
        rows[2].axes.workload = vec![("max-concurrency".into(), "64".into())];
        let wanted = RankingSpec {
            rank_by: VllmMetric::RequestThroughput.key().into(),
            better: Better::Higher,
            per_device: false,
            latency: "mean_ttft_ms".into(),
            ..RankingSpec::default()
        };
        let table = table_of(rows);
        let found = answers(&table, &["group".to_owned()], &wanted);
        let best = |ranked: &Answer<'_>| {
            let choice = ranked.choice.as_ref().unwrap();
            (ranked.title(), choice.options[choice.choice].row.name.clone())
        };
        assert_eq!(
            found.iter().map(best).collect::<Vec<_>>(),
            [
                ("group tier0".to_owned(), "m_tp2".to_owned()),
                ("group tier1".to_owned(), "m_tp1".to_owned()),
                ("group tier0, at max-concurrency 64".to_owned(), "m_tp4".to_owned()),
            ]
        );
        assert!(group_keys(&table).contains("max-concurrency"));
    }
}

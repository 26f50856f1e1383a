//! Whether two measurements by different releases of vLLM did the same work. Pure.

use super::Row;
use crate::releases::{CHANGES, DefaultChange, Side, What};

/// What of a measurement decides it.
struct Told<'a> {
    version: &'a str,
    row: &'a Row,
}

impl Told<'_> {
    fn command(&self, side: Side) -> &[String] {
        match side {
            Side::Serve => &self.row.about.serve_command,
            Side::Bench => &self.row.about.bench_command,
        }
    }

    /// The value with which a flag was in force, written or not; `None` where the command is not known.
    fn value(&self, change: &DefaultChange, is_new: bool) -> Option<String> {
        let command = self.command(change.side);
        if command.is_empty() {
            return None;
        }
        if let Some((flag, value)) = change.only_with
            && written(command, flag).is_some_and(|written| written != value)
        {
            return Some("without effect".into());
        }
        let default = if is_new { change.after } else { change.before };
        let builtin = change.builtin.filter(|_| !command.iter().any(|word| word == "bench"));
        Some(written(command, change.flag).unwrap_or_else(|| builtin.unwrap_or(default).to_owned()))
    }
}

/// The value of a flag in a command line; `on` for a switch, `off` for its opposite.
fn written(command: &[String], flag: &str) -> Option<String> {
    let mut words = command.iter().peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { continue };
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        if name.replace('_', "-") == flag {
            let next = words.peek().filter(|next| !next.starts_with("--")).map(|next| next.as_str());
            return Some(value.or(next).unwrap_or("on").to_owned());
        }
        if name.strip_prefix("no-") == Some(flag) {
            return Some("off".into());
        }
    }
    None
}

/// Why a row of one release and a row of another are not comparable, or not wholly; empty where nothing is known.
pub fn differences(before: &Row, after: &Row) -> Vec<String> {
    let told = |row: &'_ Row| row.about.vllm_version.clone();
    let (Some(a), Some(b)) = (told(before), told(after)) else { return Vec::new() };
    let swapped = crate::releases::number(&a) > crate::releases::number(&b);
    let (first, second) = (Told { version: &a, row: before }, Told { version: &b, row: after });
    let (old, new) = if swapped { (second, first) } else { (first, second) };
    let mut found = Vec::new();
    for change in CHANGES.iter().filter(|change| change.lies_between(old.version, new.version)) {
        let What::Default(default) = &change.what else { continue };
        let (Some(was), Some(is)) = (old.value(default, false), new.value(default, true)) else { continue };
        if was == is {
            continue;
        }
        let flag = default.flag;
        let values = format!("`--{flag}` is `{was}` with vLLM {} and `{is}` with {}", old.version, new.version);
        found.push(if default.work {
            format!("{OTHER_WORK}, so not comparable: {values}; write `{flag}` out in both runs")
        } else {
            format!("the server is not set up alike: {values} (vLLM's default changed)")
        });
    }
    // What makes results incomparable comes first.
    found.sort_by_key(|text| !is_other_work(text));
    found
}

/// How a difference begins that makes results incomparable.
const OTHER_WORK: &str = "not the same work";

/// Whether a difference is one that makes results incomparable.
pub fn is_other_work(difference: &str) -> bool {
    difference.starts_with(OTHER_WORK)
}

/// The same over a table of several releases: each reason once.
pub fn across(rows: &[Row]) -> Vec<String> {
    let mut firsts: Vec<&Row> = Vec::new();
    let valid = || rows.iter().filter(|row| row.is_valid() && !row.simulated && row.about.vllm_version.is_some());
    for row in valid() {
        if !firsts.iter().any(|first| first.about.vllm_version == row.about.vllm_version) {
            firsts.push(row);
        }
    }
    if firsts.len() < 2 {
        return Vec::new();
    }
    let mut found: Vec<String> = Vec::new();
    for row in valid() {
        for first in &firsts {
            for text in differences(first, row) {
                if !found.contains(&text) {
                    found.push(text);
                }
            }
        }
        if found.len() >= MOST {
            break;
        }
    }
    found
}

/// So many reasons are looked for.
const MOST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::table::tests::row as any;

    fn row(version: &str, bench: &str, serve: &str) -> Row {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let mut row = any("m", 1, 1.0, 1.0);
        row.about.vllm_version = Some(version.into());
        row.about.bench_command = words(bench);
        row.about.serve_command = words(serve);
        row
    }

    #[test]
    fn a_default_that_changed_makes_results_incomparable_unless_it_is_written_out() {
        let serve = "vllm serve m --gpu-memory-utilization 0.9 --disable-cascade-attn";
        let old = row("0.14.1", "vllm bench serve --ignore-eos", serve);
        let new = row("0.32.0", "vllm bench serve --ignore-eos", serve);
        let [text] = differences(&old, &new).try_into().unwrap();
        assert_eq!(
            text,
            "not the same work, so not comparable: `--temperature` is `0` with vLLM 0.14.1 and `what the model's own \
             configuration says` with 0.32.0; write `temperature` out in both runs"
        );
        assert_eq!(differences(&new, &old), std::slice::from_ref(&text), "in either order");
        let written = row("0.32.0", "vllm bench serve --ignore-eos --temperature 0", serve);
        assert_eq!(differences(&old, &written), Vec::<String>::new(), "0 is what 0.14.1 sends");
        let ours = row("0.32.0", "vllm-bench load --ignore-eos", serve);
        assert_eq!(differences(&old, &ours), Vec::<String>::new(), "the built-in client sends 0");
        let other = row("0.32.0", "vllm bench serve --ignore-eos --temperature 0", "vllm serve m");
        let texts = differences(&old, &other);
        assert!(texts.iter().any(|text| text.contains("`--disable-cascade-attn` is `on`")), "{texts:?}");
        let across = across(&[old, new]);
        assert_eq!(across, [text]);
    }

    #[test]
    fn a_default_matters_only_where_its_condition_holds() {
        let old = row("0.10.2", "vllm bench serve --dataset-name sharegpt --temperature 0", "vllm serve m --seed 0");
        let new = row("0.14.1", "vllm bench serve --dataset-name sharegpt --temperature 0", "vllm serve m --seed 0");
        let work = |a: &Row, b: &Row| differences(a, b).into_iter().filter(|text| text.contains("ignore-eos")).count();
        assert_eq!(work(&old, &new), 0);
        let old = row("0.10.2", "vllm bench serve --dataset-name random --temperature 0", "vllm serve m --seed 0");
        let new = row("0.14.1", "vllm bench serve --dataset-name random --temperature 0", "vllm serve m --seed 0");
        assert_eq!(work(&old, &new), 1);
    }
}

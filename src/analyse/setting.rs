//! A configuration in the short words of the cluster sweep (`mns=512, spec=ngram_6`). Pure.

use std::borrow::Cow;

use serde_json::Value;

use super::Row;

/// The cluster sweep's words, vLLM's flags, and what a flag that is not set stands for; `None` = vLLM decides by the device, and
/// nobody wrote down how.
const WORDS: [(&str, &str, Option<&str>); 10] = [
    ("tp", "tensor-parallel-size", Some("1")),
    ("pp", "pipeline-parallel-size", Some("1")),
    ("dp", "data-parallel-size", Some("1")),
    ("mns", "max-num-seqs", None),
    ("mnbt", "max-num-batched-tokens", None),
    ("gmu", "gpu-memory-utilization", None),
    ("bs", "block-size", None),
    ("kvc", "kv-cache-dtype", Some("auto")),
    ("spec", "speculative-config", Some("none")),
    ("quant", "quantization", Some("none")),
];

/// What stands for a value that vLLM chose.
const DEFAULT: &str = "default";

/// Flags that say nothing about how fast a server is.
pub(super) const IRRELEVANT: [&str; 6] = ["model", "host", "port", "served-model-name", "uvicorn-log-level", "api-key"];

/// The ten words that the cluster sweep has columns for, with the row's values, in its order.
pub fn short_settings(row: &Row) -> [(&'static str, String); 10] {
    // Of a file that does not say which devices the server took, what else it was told is not known either: nothing is
    // taken for vLLM's default.
    let complete = row.about.devices.is_some();
    WORDS.map(|(word, flag, unset)| {
        let unset = unset.filter(|_| complete);
        let value = row.set(flag).map(|value| short(word, &value));
        (word, value.unwrap_or_else(|| unset.unwrap_or(DEFAULT).to_owned()))
    })
}

/// Every setting of the server in short words: the ten, then all others under vLLM's names.
pub fn all_settings(row: &Row) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        short_settings(row).into_iter().map(|(word, value)| (word.to_owned(), value)).collect();
    if let Some(eager) = row.axes.enforce_eager {
        all.push(("enforce-eager".into(), eager.to_string()));
    }
    let known = |key: &str| {
        IRRELEVANT.contains(&key) || key == "enforce-eager" || WORDS.iter().any(|(_, flag, _)| *flag == key)
    };
    let flags = row.about.flags.iter().chain(row.axes.server.iter().map(|(key, value)| (key, value)));
    for (key, value) in flags.filter(|(key, _)| !known(key)) {
        if !all.iter().any(|(seen, _)| seen == key) {
            all.push((key.clone(), value.clone()));
        }
    }
    all
}

/// What a configuration sets in another way than the baseline.
pub fn different(row: &Row, baseline: &Row) -> Vec<(String, String)> {
    let (ours, theirs) = (all_settings(row), all_settings(baseline));
    let value = |all: &[(String, String)], key: &str| all.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut found: Vec<(String, String)> =
        ours.iter().filter(|(key, own)| value(&theirs, key).as_ref() != Some(own)).cloned().collect();
    let dropped = theirs.iter().filter(|(key, _)| value(&ours, key).is_none());
    found.extend(dropped.map(|(key, _)| (key.clone(), DEFAULT.to_owned())));
    found
}

/// A value as the cluster sweep writes it.
fn short(word: &str, value: &str) -> String {
    match word {
        "gmu" => value.parse::<f64>().map_or_else(|_| value.to_owned(), |part| format!("{:.0}", part * 100.0)),
        "kvc" => value.replace('_', ""),
        "quant" if value == "bitsandbytes" => "bnb".into(),
        "spec" => speculation(value).unwrap_or(Cow::Borrowed(value)).into_owned(),
        _ => value.to_owned(),
    }
}

/// `{"method": "ngram", "num_speculative_tokens": 6}` as `ngram_6`; a draft model by its name.
fn speculation(value: &str) -> Option<Cow<'_, str>> {
    let json: Value = serde_json::from_str(value).ok()?;
    let named = json.get("model").filter(|_| json.get("method").is_none()).or_else(|| json.get("method"))?.as_str()?;
    let name = named.rsplit('/').next().unwrap_or(named);
    let tokens = json.get("num_speculative_tokens").and_then(Value::as_u64);
    Some(tokens.map_or_else(|| name.to_owned(), |tokens| format!("{name}_{tokens}")).into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::table::tests::row;
    use super::*;

    fn with(flags: &[(&str, &str)]) -> Row {
        let mut row = row("m", 2, 1.0, 1.0);
        row.about.devices = Some(2);
        row.about.flags = Arc::new(flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        row
    }

    #[test]
    fn values_are_written_as_the_cluster_sweep_writes_them() {
        let row = with(&[
            ("max-num-seqs", "512"),
            ("gpu-memory-utilization", "0.57"),
            ("kv-cache-dtype", "fp8_e4m3"),
            ("speculative-config", r#"{"method":"ngram","num_speculative_tokens":6,"prompt_lookup_max":5}"#),
        ]);
        let written: Vec<String> = short_settings(&row).iter().map(|(word, value)| format!("{word}={value}")).collect();
        // S5 4: 0.57 was cut to 56.
        assert_eq!(
            written.join(" "),
            "tp=2 pp=1 dp=1 mns=512 mnbt=default gmu=57 bs=default kvc=fp8e4m3 spec=ngram_6 quant=none"
        );
        let draft = with(&[("speculative-config", r#"{"model":"org/draft","num_speculative_tokens":3}"#)]);
        assert_eq!(short_settings(&draft)[8].1, "draft_3");
    }

    #[test]
    fn only_what_differs_from_the_baseline_is_named() {
        let base = with(&[("max-num-seqs", "256"), ("async-scheduling", "true"), ("port", "1")]);
        let mut best = with(&[("max-num-seqs", "512"), ("dtype", "bfloat16"), ("port", "2")]);
        best.axes.enforce_eager = Some(false);
        let found: Vec<String> = different(&best, &base).iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(found, ["mns=512", "enforce-eager=false", "dtype=bfloat16", "async-scheduling=default"]);
        assert_eq!(different(&base, &base), []);
    }
}

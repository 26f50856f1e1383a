//! What of a result says whether it can be believed: of our own, with what its plan asked for, and of others.

use crate::analyse::Signs;
use crate::model::VllmMetric;
use crate::record::{ResultMeta, plausible};
use crate::results::result_file::ResultFile;

/// What of a result says whether it can be believed. Where nobody says how it was measured, hits of the prefix cache may
/// be meant.
pub(super) fn signs(result: &ResultFile, meta: Option<&ResultMeta>) -> Signs {
    let own = result.load.as_ref();
    let bench = |flag: &str| meta.and_then(|meta| meta.bench.get_text(flag));
    let prefix = bench("random-prefix-len").is_some_and(|length| length != "0");
    let signs = Signs::of_result(|key| result.number(key), own);
    let unknown = meta.is_none() && own.and_then(|own| own.get("shares_prefixes")).is_none();
    // What the plan asked for, against what was counted: another client, or another server, did other work. To the prompts of a chat our
    // own client adds the template.
    let planned = || {
        let asked = asked_prompt(|flag| bench(flag).map(str::to_owned))? * signs.completed?;
        let counted = result.metrics().get(VllmMetric::TotalInputTokens)?;
        let chat = own.is_some() && bench("backend").is_some_and(|backend| backend.contains("chat"));
        Some((asked, if chat { counted.min(asked) } else { counted }))
    };
    let differs = |(asked, counted): &(f64, f64)| asked != counted;
    Signs {
        prompt_tokens: planned().filter(differs).or(signs.prompt_tokens),
        preemptions: signs.preemptions.or(meta.and_then(|meta| meta.preemptions)),
        prefix_hits: signs.prefix_hits.or_else(|| meta.and_then(found_cold)),
        shares_prefixes: signs.shares_prefixes
            || prefix
            || unknown
            || matches!(bench("dataset-name"), Some("prefix_repetition" | "sonnet" | "rag")),
        asked_tokens: meta.and_then(|meta| {
            asked_tokens(|flag| meta.bench.get_text(flag).map(str::to_owned), meta.bench.contains("ignore-eos"))
        }),
        empty: result.empty.clone(),
        drift: signs.drift.or(result.drift.filter(|_| own.is_none()).map(|of| (of.ratio, (of.low, of.high)))),
        implausible: plausible::suspicious(&result.metrics),
        shared_with: meta.map(|meta| meta.shared_with.clone()).unwrap_or_default(),
        devices: meta.and_then(|meta| Some(meta.telemetry.as_ref()?.warnings.clone())).unwrap_or_default(),
        simulated: meta.is_some_and(|meta| meta.simulated),
        ..signs
    }
}

/// The part of the prompt tokens that was found in the prefix cache, by the server's counters over the measurement. vLLM's
/// client sends the first prompt again and again to warm up: what that finds is left out.
fn found_cold(meta: &ResultMeta) -> Option<f64> {
    let cache = meta.prefix_cache.filter(|cache| cache.queries > 0.0)?;
    let flag = |name: &str| meta.bench.get_text(name).and_then(|text| text.parse::<f64>().ok());
    let warmups = flag("num-warmups").unwrap_or(0.0);
    let request = cache.queries / (flag("num-prompts").unwrap_or(1000.0) + warmups);
    let own = if warmups > 0.0 { (warmups + 1.0) * request } else { 0.0 };
    Some((cache.hits - own).max(0.0) / cache.queries)
}

/// The fewest and the most tokens that an answer must have, where the model could not end one by itself.
pub(super) fn asked_tokens(flag: impl Fn(&str) -> Option<String>, ignores_eos: bool) -> Option<(f64, f64)> {
    let number = |name: &str| flag(name).and_then(|text| text.parse::<f64>().ok());
    let asked = [
        "random-output-len",
        "output-len",
        "sonnet-output-len",
        "custom-output-len",
        "hf-output-len",
        "sharegpt-output-len",
    ]
    .into_iter()
    .find_map(number)
    .filter(|asked| ignores_eos && *asked > 0.0)?;
    let range = range(&flag, "output")?;
    Some(((asked * (1.0 - range)).floor().max(1.0), (asked * (1.0 + range)).ceil()))
}

/// How many tokens each random prompt has; `None` where they are drawn from a range, or it is another data set.
fn asked_prompt(flag: impl Fn(&str) -> Option<String>) -> Option<f64> {
    let number = |name: &str| flag(name).and_then(|text| text.parse::<f64>().ok());
    let random = flag("dataset-name").is_none_or(|name| name == "random");
    let asked = number("random-input-len").filter(|asked| random && *asked > 0.0)?;
    (range(&flag, "input")? <= 0.0).then_some(asked + number("random-prefix-len").unwrap_or(0.0))
}

/// The part by which lengths are drawn around what is asked for: one number, or (newer releases) JSON with one for each side. `None` where it
/// is something else.
fn range(flag: &impl Fn(&str) -> Option<String>, side: &str) -> Option<f64> {
    let Some(text) = flag("random-range-ratio") else { return Some(0.0) };
    let of_side = || serde_json::from_str::<serde_json::Value>(&text).ok()?.get(side)?.as_f64();
    text.parse::<f64>().ok().or_else(of_side).map(|range| range.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use crate::results::signs::*;

    #[test]
    fn lengths_that_are_drawn_from_a_range_are_asked_for_as_one() {
        let of = |flags: &[(&str, &str)]| {
            let flag = |name: &str| flags.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            (asked_tokens(flag, true), asked_prompt(flag))
        };
        let plain = [("random-output-len", "256"), ("random-input-len", "100"), ("random-prefix-len", "20")];
        let with = |ratio: &'static str| [&plain[..], &[("random-range-ratio", ratio)]].concat();
        assert_eq!(of(&plain), (Some((256.0, 256.0)), Some(120.0)));
        assert_eq!(of(&with("0.5")), (Some((128.0, 384.0)), None));
        assert_eq!(of(&with(r#"{"input": 0.0, "output": 0.25}"#)), (Some((192.0, 320.0)), Some(120.0)));
        assert_eq!(of(&with("much")), (None, None));
        assert_eq!(of(&[("dataset-name", "sonnet"), ("random-input-len", "9")]), (None, None));
    }
}

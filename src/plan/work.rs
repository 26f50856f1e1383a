//! What decides the work of a measurement, written out: no release of vLLM and no client may choose it by its own default.
//!
//! `vllm bench serve` sent temperature 0 until 0.15.0 and sends none in 0.32.0; 0.10.2 lets random prompts end early and
//! 0.14.1 does not (`crate::releases`). A sweep says both, so that its metrics mean the same with every release and with
//! `vllm-bench load`, and they are part of the workload's identity.

use crate::model::Flags;

/// Clients' backends that generate text and take sampling parameters.
const GENERATING: [&str; 7] =
    ["openai", "openai-chat", "openai-completions", "vllm", "vllm-chat", "openai-comp", "openai-responses"];
/// Data sets whose prompts mean nothing: their answers have the length that was asked for.
const RANDOM: [&str; 2] = ["random", "random-mm"];

/// Adds what is not said. `is_said` tells whether the sweep has a word on a flag, be it that it is to be left out.
pub(super) fn spell_out(bench: &mut Flags, is_said: impl Fn(&str) -> bool) {
    if !is_said("dataset-name") && !is_said("dataset-path") {
        bench.text("dataset-name", "random");
    }
    let backend = bench.get_text("backend").or_else(|| bench.get_text("endpoint-type")).unwrap_or("openai");
    if !GENERATING.contains(&backend) {
        return;
    }
    let body = bench.get_text("extra-body").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    let in_body = |key: &str| body.as_ref().is_some_and(|body| body.get(key).is_some());
    let temperature = !is_said("temperature") && !in_body("temperature");
    let random = bench.get_text("dataset-name").is_some_and(|name| RANDOM.contains(&name));
    let whole = random && !is_said("ignore-eos") && !is_said("no-ignore-eos") && !in_body("ignore_eos");
    if temperature {
        bench.text("temperature", 0);
    }
    if whole {
        bench.switch("ignore-eos");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(flags: &[(&str, &str)]) -> Vec<String> {
        let mut bench = Flags::new();
        for (name, value) in flags {
            bench.text(name, value);
        }
        spell_out(&mut bench, |name| flags.iter().any(|(said, _)| *said == name));
        bench.to_args()
    }

    #[test]
    fn what_decides_the_work_is_written_out_unless_the_sweep_says_it() {
        assert_eq!(spelled(&[]), ["--dataset-name", "random", "--temperature", "0", "--ignore-eos"]);
        assert_eq!(
            spelled(&[("dataset-name", "sharegpt"), ("temperature", "0.7")]),
            ["--dataset-name", "sharegpt", "--temperature", "0.7"]
        );
        assert_eq!(spelled(&[("dataset-path", "a.jsonl")]), ["--dataset-path", "a.jsonl", "--temperature", "0"]);
        assert_eq!(
            spelled(&[("extra-body", r#"{"temperature": 0.5, "ignore_eos": false}"#)])[2..],
            ["--dataset-name".to_owned(), "random".to_owned()]
        );
        // Nothing is generated: vLLM's client refuses sampling parameters there.
        assert_eq!(
            spelled(&[("backend", "openai-embeddings")]),
            ["--backend", "openai-embeddings", "--dataset-name", "random"]
        );
    }
}

//! Single requests: their distribution, and their course in time (S3).

mod cdf;
mod histogram;
mod over_time;

pub use cdf::cdf;
pub use histogram::histogram;
pub use over_time::over_time;

use super::super::chart::{Axis, Xy};
use super::super::data::{Data, Group, Shot};
use super::concurrency::rates;
use super::lines::split;
use crate::model::Better;
use crate::report::Refusal;
use crate::stats::Sample;

/// Points of a curve: more would not be seen.
const RANKS: usize = 1000;

/// A metric of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Time to the first token.
    Ttft,
    /// Time per further token.
    Tpot,
    /// Time to the last token.
    Latency,
    /// Tokens per second.
    Throughput,
    /// Tokens of the prompt.
    PromptTokens,
    /// Tokens of the answer.
    CompletionTokens,
}

/// All of them with what they are called: by the user, in file names, on axes, unit.
const FACTS: [(Of, &str, &str, &str, &str); 6] = [
    (Of::Ttft, "ttft", "ttft", "TTFT", "ms"),
    (Of::Tpot, "tpot", "tpot", "TPOT", "ms"),
    (Of::Latency, "latency", "latency", "Latency", "ms"),
    (Of::Throughput, "throughput", "throughput", "Output throughput of a request", "tok/s"),
    (Of::PromptTokens, "prompt-tokens", "prompt_tokens", "Prompt length", "tokens"),
    (Of::CompletionTokens, "completion-tokens", "completion_tokens", "Answer length", "tokens"),
];

impl Of {
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        let found = FACTS.into_iter().find(|fact| fact.0 == self);
        found.map_or(("", "", ""), |(_, _, file, label, unit)| (file, label, unit))
    }

    fn label(self) -> String {
        let (_, label, unit) = self.facts();
        format!("{label} ({unit})")
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let wanted = text.replace('_', "-");
        let wanted = match wanted.trim_end_matches("-ms") {
            "e2el" | "e2e" => "latency",
            "input-tokens" | "input-len" => "prompt-tokens",
            "output-tokens" | "output-len" => "completion-tokens",
            other => other,
        };
        FACTS.into_iter().find(|fact| fact.1 == wanted).map(|fact| fact.0).ok_or_else(|| Refusal::Wrong {
            message: format!("invalid value `{}` for `--y`: it is no metric of a request", text.escape_debug()),
            hint: format!("there is: {}", FACTS.map(|fact| fact.1).join(", ")),
        })
    }

    fn better(self) -> Option<Better> {
        match self {
            Of::Ttft | Of::Tpot | Of::Latency => Some(Better::Lower),
            Of::Throughput => Some(Better::Higher),
            Of::PromptTokens | Of::CompletionTokens => None,
        }
    }

    fn values(self, shot: &Shot<'_>) -> Vec<f64> {
        let Some(requests) = &shot.requests else { return Vec::new() };
        match self {
            Of::Ttft => requests.ttft_ms.clone(),
            Of::Tpot => requests.tpot_ms.clone(),
            Of::Latency => requests.e2el_ms.clone(),
            Of::Throughput => rates(shot),
            Of::PromptTokens => requests.input_tokens.clone(),
            Of::CompletionTokens => requests.output_tokens.clone(),
        }
    }

    fn sample(self, shots: &[&Shot<'_>]) -> Option<Sample> {
        Sample::new(shots.iter().flat_map(|shot| self.values(shot)))
    }
}

/// Measurements to draw, and what the names of their files begin with.
struct Sheet<'a, 'd> {
    id: String,
    groups: Vec<Group<'a, 'd>>,
    over: Vec<String>,
}

/// One sheet with a group per configuration, or (`--each`) one sheet per measurement.
fn sheets<'a, 'd>(data: &'d Data<'a>) -> Result<Vec<Sheet<'a, 'd>>, Refusal> {
    if data.query.each {
        let one = |shot: &'d Shot<'a>| {
            let several = !data.table.more.is_empty();
            let id = if several { format!("{}_{}", shot.row.about.run, shot.row.name) } else { shot.row.name.clone() };
            let groups = vec![Group { label: shot.row.name.clone(), shots: vec![shot] }];
            Sheet { id, groups, over: Vec::new() }
        };
        return Ok(data.shots.iter().map(one).collect());
    }
    let (by, over) = split(data, &data.rest(&[]), &[])?;
    Ok(vec![Sheet { id: data.run_name(), groups: data.groups(&by), over }])
}

fn refused(of: Of) -> Refusal {
    Refusal::missing(
        format!("the results do not say the {} of single requests", of.facts().1.to_lowercase()),
        "measure with `vllm-bench run --bench-arg save-detailed`".into(),
    )
}

fn xy(x: Axis, y: Axis) -> Xy {
    Xy { x, y, series: Vec::new(), bins: Vec::new(), boxes: Vec::new(), verticals: Vec::new() }
}

fn caption(data: &Data<'_>, sheet: &Sheet<'_, '_>) -> Vec<String> {
    let mut caption = data.caption();
    if let [Group { label, shots }] = sheet.groups.as_slice()
        && data.query.each
    {
        caption[0] = format!("Run {}; measurement {label}.", shots.first().map_or("", |shot| &*shot.row.about.run));
    }
    if sheet.groups.iter().any(|group| group.shots.len() > 1) {
        caption.push("Requests of repeats are taken together.".into());
    }
    if !sheet.over.is_empty() {
        caption.push(format!("Requests of all values of {} are taken together.", sheet.over.join(", ")));
    }
    caption
}

fn subtitle(data: &Data<'_>, sheet: &Sheet<'_, '_>) -> String {
    if data.query.each {
        return sheet.groups.first().map(|group| group.label.clone()).unwrap_or_default();
    }
    data.common(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metrics_are_the_users() {
        assert_eq!(Of::parse("e2el_ms"), Ok(Of::Latency));
        assert_eq!(Of::parse("prompt_tokens"), Ok(Of::PromptTokens));
        assert!(matches!(Of::parse("speed"), Err(Refusal::Wrong { .. })));
    }
}

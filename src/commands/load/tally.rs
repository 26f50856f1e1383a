//! What is added up while requests end.

use serde_json::{Map, Value};

use crate::config::LoadSettings;
use crate::load::metrics::Collector;
use crate::load::output::Details;
use crate::load::sample::Sample;

/// What is added up while requests end.
pub(super) struct Tally {
    pub collector: Collector,
    pub details: Option<Details>,
    pub latencies: Vec<f64>,
    usage: [(u64, f64); 3],
    headers: std::collections::BTreeMap<String, (u64, f64, String)>,
}

impl Tally {
    pub fn new(settings: &LoadSettings) -> Self {
        Self {
            collector: Collector::new(settings.ignore_eos, settings.goodput.clone()),
            details: settings.save_detailed.then(Details::default),
            latencies: Vec::new(),
            usage: [(0, 0.0); 3],
            headers: Default::default(),
        }
    }

    pub fn add(&mut self, sample: &Sample) {
        self.collector.add(sample);
        if let Some(details) = &mut self.details {
            details.add(sample);
        }
        if sample.failure.is_some() {
            return;
        }
        self.latencies.push(sample.latency());
        if let Some(usage) = sample.reply.usage {
            let (prompt, completion) = (usage.prompt_tokens, usage.completion_tokens);
            let total = prompt.zip(completion).map(|(prompt, completion)| prompt.saturating_add(completion));
            for (sum, value) in self.usage.iter_mut().zip([prompt, completion, total]) {
                if let Some(value) = value {
                    *sum = (sum.0 + 1, sum.1 + value as f64);
                }
            }
        }
        for (name, value) in &sample.reply.headers {
            let entry = self.headers.entry(name.clone()).or_default();
            entry.2.clone_from(value);
            if let Ok(number) = value.trim_end_matches(|c: char| c.is_alphabetic()).parse::<f64>() {
                *entry = (entry.0 + 1, entry.1 + number, value.clone());
            }
        }
    }

    /// S4: what the server tells of itself, numbers as their mean, texts as the last one.
    pub fn server(&self) -> Map<String, Value> {
        let names = ["prompt_tokens", "completion_tokens", "total_tokens"];
        let mut map: Map<String, Value> = names
            .iter()
            .zip(self.usage)
            .filter(|(_, (count, _))| *count > 0)
            .map(|(name, (count, sum))| ((*name).to_owned(), (sum / count as f64).into()))
            .collect();
        for (name, (count, sum, last)) in &self.headers {
            let value = if *count > 0 { (sum / *count as f64).into() } else { last.clone().into() };
            map.insert(name.clone(), value);
        }
        map
    }
}

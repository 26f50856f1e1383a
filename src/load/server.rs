//! The server's side of a workload: its models, and its metrics before, during and after.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::target::Secret;
use crate::bounded;
use crate::stats;

/// A model has no longer name; what is longer would be part of every request.
const LONGEST_NAME: usize = 4096;

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or none that can be read.
    #[error("the server does not list its models at `{url}`: {reason}")]
    Models {
        /// What was asked.
        url: String,
        /// What came.
        reason: String,
    },
    /// No HTTP client.
    #[error("cannot set up the HTTP client: {0}")]
    Client(reqwest::Error),
}

/// What a server says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name in requests.
    pub id: String,
    /// Where its files are, as the server was told.
    pub root: Option<String>,
    /// The server is a simulated one.
    pub simulated: bool,
}

/// Asks a server about itself; never through a proxy.
#[derive(Debug, Clone)]
pub struct Server {
    base: String,
    http: reqwest::Client,
    api_key: Option<Secret>,
    headers: Vec<(String, String)>,
}

/// A server that does not tell its release or its metrics in this time is not waited for.
pub const METADATA_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

impl Server {
    /// The server at `base`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        base: &str,
        api_key: Option<Secret>,
        headers: Vec<(String, String)>,
        insecure: bool,
    ) -> Result<Self, Error> {
        let http = crate::http::client(insecure)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(Error::Client)?;
        Ok(Self { base: base.to_owned(), http, api_key, headers })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    /// The models that it serves.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn models(&self) -> Result<Vec<Model>, Error> {
        let failed = |reason: String| Error::Models { url: format!("{}/v1/models", self.base), reason };
        let response = self
            .request(reqwest::Method::GET, "/v1/models")
            .send()
            .await
            .map_err(|error| failed(bounded::chain(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(failed(format!("HTTP {status}")));
        }
        let body = bounded::json_body(response, bounded::TEXT).await.map_err(failed)?;
        let models: Vec<Model> = body
            .get("data")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|model| {
                Some(Model {
                    id: model.get("id")?.as_str().filter(|id| id.len() <= LONGEST_NAME)?.to_owned(),
                    root: model.get("root").and_then(Value::as_str).map(str::to_owned),
                    simulated: model.get("simulated").and_then(Value::as_bool).unwrap_or(false),
                })
            })
            .collect();
        if models.is_empty() {
            Err(failed(format!("it lists none with a name of at most {LONGEST_NAME} bytes")))
        } else {
            Ok(models)
        }
    }

    /// The release of vLLM, as `/version` says it; `None` where it does not.
    pub async fn version(&self) -> Option<String> {
        let asked = self.request(reqwest::Method::GET, "/version").timeout(METADATA_LIMIT);
        let response = asked.send().await.ok()?;
        let body: Value = if response.status().is_success() { response.json().await.ok()? } else { return None };
        body.get("version")?.as_str().map(str::to_owned)
    }

    /// Its metrics now; `None` where it has none.
    pub async fn metrics(&self) -> Option<Reading> {
        let response = self.request(reqwest::Method::GET, "/metrics").timeout(METADATA_LIMIT).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let text = bounded::body(response, bounded::TEXT).await.ok()?;
        Some(Reading::parse(&String::from_utf8_lossy(&text)))
    }

    /// Begins or ends a profile of the server.
    ///
    /// # Errors
    /// What came instead.
    pub async fn profile(&self, start: bool) -> Result<(), String> {
        let path = if start { "/start_profile" } else { "/stop_profile" };
        let response =
            self.request(reqwest::Method::POST, path).send().await.map_err(|error| bounded::chain(&error))?;
        if response.status().is_success() { Ok(()) } else { Err(format!("HTTP {} at {path}", response.status())) }
    }
}

/// Metrics of vLLM at one moment, summed over engines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    values: BTreeMap<String, f64>,
    /// Accepted draft tokens by position.
    accepted: BTreeMap<u32, f64>,
    /// Of everything that vLLM counts.
    fingerprint: u64,
}

/// A server at one moment. Counters count from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ServerState {
    /// Requests that it works on.
    pub running: Option<f64>,
    /// Requests that wait.
    pub waiting: Option<f64>,
    /// Part of the KV cache in use, 0 to 1.
    pub kv_cache_usage: Option<f64>,
    /// Prompt tokens so far.
    pub prompt_tokens: Option<f64>,
    /// Output tokens so far.
    pub generation_tokens: Option<f64>,
    /// Requests that were begun again so far.
    pub preemptions: Option<f64>,
    /// Prompt tokens looked up in the prefix cache so far.
    pub prefix_queries: Option<f64>,
    /// Those that were found there.
    pub prefix_hits: Option<f64>,
    /// Times to the first token so far, seconds of all requests together.
    pub ttft_sum: Option<f64>,
    /// Requests that have had a first token so far.
    pub ttft_count: Option<f64>,
}

/// What is read, without `vllm:`.
const NAMES: [&str; 17] = [
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    // Its name before 0.10.
    "gpu_cache_usage_perc",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "external_prefix_cache_queries_total",
    "external_prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "request_success_total",
    "time_to_first_token_seconds_sum",
    "time_to_first_token_seconds_count",
    "spec_decode_num_drafts_total",
    "spec_decode_num_draft_tokens_total",
    "spec_decode_num_accepted_tokens_total",
];

impl Reading {
    /// Reads the text of `/metrics` (Prometheus' exposition format).
    pub fn parse(text: &str) -> Self {
        let mut reading = Self::default();
        let mut everything = std::hash::DefaultHasher::new();
        for line in text.lines() {
            let Some(line) = line.trim().strip_prefix("vllm:") else { continue };
            line.hash(&mut everything);
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let Some(value) = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()) else { continue };
            if name == "spec_decode_num_accepted_tokens_per_pos_total" {
                let position = line.split("position=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
                if let Some(position) = position {
                    *reading.accepted.entry(position).or_default() += value;
                }
            } else if NAMES.contains(&name) {
                *reading.values.entry(name.to_owned()).or_default() += value;
            }
        }
        reading.fingerprint = everything.finish();
        reading
    }

    /// Whether the server counts tokens at all (`--disable-log-stats` switches that off).
    pub fn counts_tokens(&self) -> bool {
        self.values.contains_key("generation_tokens_total")
    }

    /// Tokens that were generated so far; `None` where the server does not count them.
    pub fn generated(&self) -> Option<f64> {
        self.get("generation_tokens_total")
    }

    /// Requests that are worked on or wait now; `None` where the server does not count them.
    pub fn under_way(&self) -> Option<f64> {
        Some(self.get("num_requests_running")? + self.get("num_requests_waiting").unwrap_or(0.0))
    }

    /// Whether anything that vLLM counts is other than in another reading: its engine has worked in between.
    pub fn differs(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint
    }

    /// Prompt tokens that were looked up in the prefix cache since `before`, and those that were found there or in a tier
    /// behind it; `None` where the server does not count them.
    pub fn prefix_cache_since(&self, before: &Self) -> Option<(f64, f64)> {
        let since = |name: &str| Some((self.get(name)? - before.get(name).unwrap_or(0.0)).max(0.0));
        let external = since("external_prefix_cache_hits_total").unwrap_or(0.0);
        Some((since("prefix_cache_queries_total")?, since("prefix_cache_hits_total")? + external))
    }

    /// Requests that were begun again since `before`; `None` where the server does not count them.
    pub fn preemptions_since(&self, before: &Self) -> Option<f64> {
        let name = "num_preemptions_total";
        Some((self.get(name)? - before.get(name).unwrap_or(0.0)).max(0.0))
    }

    fn get(&self, name: &str) -> Option<f64> {
        let old = || (name == "kv_cache_usage_perc").then(|| self.values.get("gpu_cache_usage_perc")).flatten();
        self.values.get(name).or_else(old).copied()
    }

    /// What a series of readings keeps of each.
    pub fn state(&self) -> ServerState {
        ServerState {
            running: self.get("num_requests_running"),
            waiting: self.get("num_requests_waiting"),
            kv_cache_usage: self.get("kv_cache_usage_perc"),
            prompt_tokens: self.get("prompt_tokens_total"),
            generation_tokens: self.get("generation_tokens_total"),
            preemptions: self.get("num_preemptions_total"),
            prefix_queries: self.get("prefix_cache_queries_total"),
            prefix_hits: self.get("prefix_cache_hits_total"),
            ttft_sum: self.get("time_to_first_token_seconds_sum"),
            ttft_count: self.get("time_to_first_token_seconds_count"),
        }
    }
}

/// Metrics over a workload.
#[derive(Debug, Default)]
pub struct Watch {
    before: Option<Reading>,
    during: Vec<Reading>,
}

impl Watch {
    /// Begins with what is seen before.
    pub fn begin(before: Option<Reading>) -> Self {
        Self { before, during: Vec::new() }
    }

    /// Whether the server has metrics at all.
    pub fn is_possible(&self) -> bool {
        self.before.is_some()
    }

    /// Adds what is seen during the workload.
    pub fn during(&mut self, reading: Reading) {
        self.during.push(reading);
    }

    /// What came of it, under `server`, and vLLM's keys on speculative decoding beside it.
    pub fn end(self, after: Option<Reading>) -> Map<String, Value> {
        let mut map = Map::new();
        let (Some(before), Some(after)) = (self.before, after) else { return map };
        let delta = |name: &str| Some((after.get(name)? - before.get(name).unwrap_or(0.0)).max(0.0));
        let gauge = |name: &str| {
            let values: Vec<f64> = self.during.iter().filter_map(|reading| reading.get(name)).collect();
            let most = values.iter().copied().fold(f64::NAN, f64::max);
            stats::mean(values).map(|mean| json!({"mean": mean, "max": most}))
        };
        let hits = match (delta("prefix_cache_hits_total"), delta("prefix_cache_queries_total")) {
            (Some(hits), Some(queries)) if queries > 0.0 => Some(hits / queries),
            _ => None,
        };
        map.insert(
            "server".into(),
            json!({
                "readings": self.during.len(),
                "running": gauge("num_requests_running"),
                "waiting": gauge("num_requests_waiting"),
                "kv_cache_usage": gauge("kv_cache_usage_perc"),
                "preemptions": delta("num_preemptions_total"),
                "prefix_cache_hit_rate": hits,
                "prompt_tokens": delta("prompt_tokens_total"),
                "generation_tokens": delta("generation_tokens_total"),
                "requests": delta("request_success_total"),
            }),
        );
        let (drafts, tokens, accepted) = (
            delta("spec_decode_num_drafts_total").unwrap_or(0.0),
            delta("spec_decode_num_draft_tokens_total").unwrap_or(0.0),
            delta("spec_decode_num_accepted_tokens_total").unwrap_or(0.0),
        );
        if tokens > 0.0 {
            let by_position: Vec<f64> = after
                .accepted
                .iter()
                .map(|(at, value)| (value - before.accepted.get(at).unwrap_or(&0.0)) / drafts.max(1.0))
                .collect();
            let length = if drafts > 0.0 { 1.0 + accepted / drafts } else { 0.0 };
            map.insert("spec_decode_acceptance_rate".into(), (accepted / tokens * 100.0).into());
            map.insert("spec_decode_acceptance_length".into(), length.into());
            map.insert("spec_decode_num_drafts".into(), (drafts as u64).into());
            map.insert("spec_decode_draft_tokens".into(), (tokens as u64).into());
            map.insert("spec_decode_accepted_tokens".into(), (accepted as u64).into());
            map.insert("spec_decode_per_position_acceptance_rates".into(), by_position.into());
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_add_up_over_a_load() {
        let text = |running: u32, tokens: u32, accepted: u32| {
            format!(
                "# HELP vllm:num_requests_running x\nvllm:num_requests_running{{engine=\"0\"}} {running}\n\
                 vllm:num_requests_running{{engine=\"1\"}} 1.0\nvllm:generation_tokens_total{{engine=\"0\"}} {tokens}\n\
                 vllm:prefix_cache_queries_total{{}} {}\nvllm:prefix_cache_hits_total{{}} {tokens}\n\
                 vllm:spec_decode_num_drafts_total{{}} {accepted}\nvllm:spec_decode_num_draft_tokens_total{{}} {}\n\
                 vllm:spec_decode_num_accepted_tokens_total{{}} {accepted}\n\
                 vllm:spec_decode_num_accepted_tokens_per_pos_total{{position=\"0\"}} {accepted}\nother 5\n",
                tokens * 4,
                accepted * 2
            )
        };
        let mut watch = Watch::begin(Some(Reading::parse(&text(0, 100, 10))));
        watch.during(Reading::parse(&text(3, 150, 15)));
        watch.during(Reading::parse(&text(5, 180, 17)));
        let map = watch.end(Some(Reading::parse(&text(0, 200, 20))));
        assert_eq!(map["server"]["running"], json!({"mean": 5.0, "max": 6.0}));
        assert_eq!(map["server"]["generation_tokens"], json!(100.0));
        assert_eq!(map["server"]["prefix_cache_hit_rate"], json!(0.25));
        assert_eq!(map["spec_decode_acceptance_rate"], json!(50.0));
        assert_eq!(map["spec_decode_acceptance_length"], json!(2.0));
        assert_eq!(map["spec_decode_per_position_acceptance_rates"], json!([1.0]));
        assert!(Watch::begin(None).end(None).is_empty());
        let (before, after) = (Reading::parse(&text(0, 100, 10)), Reading::parse(&text(0, 200, 10)));
        assert!(before.counts_tokens() && before.differs(&after) && !before.differs(&before.clone()));
        assert_eq!(after.prefix_cache_since(&before), Some((400.0, 100.0)));
        assert!(!Reading::parse("other 5\n").counts_tokens());
    }
}

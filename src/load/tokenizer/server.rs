//! Tokens counted by the server: vLLM's `/tokenize` and `/detokenize`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Error, Tokenizer};
use crate::load::prompt::Message;
use crate::load::target::Secret;

/// The tokenizer of a server.
#[derive(Debug)]
pub struct ServerTokenizer {
    base: String,
    model: String,
    api_key: Option<Secret>,
    http: reqwest::Client,
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    vocab_size: u32,
}

/// Ids below this are byte tokens and the like in every known vocabulary; ids up to it exist in every one.
const SAFE_VOCABULARY: u32 = 1000;

impl ServerTokenizer {
    /// The tokenizer of the server at `base`; asked once, to see that it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn connect(base: &str, model: &str, api_key: Option<Secret>, insecure: bool) -> Result<Self, Error> {
        let failed = |reason: String| Error::Server { url: format!("{base}/tokenize"), reason };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let http = crate::http::client(insecure)
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let tokenizer = Self {
            base: base.to_owned(),
            model: model.to_owned(),
            api_key,
            http,
            runtime: Some(runtime),
            vocab_size: SAFE_VOCABULARY,
        };
        tokenizer.encode("a")?;
        Ok(tokenizer)
    }

    fn ask(&self, path: &str, body: Value) -> Result<Value, Error> {
        let url = format!("{}{path}", self.base);
        let failed = |reason: String| Error::Server { url: url.clone(), reason };
        let mut request = self.http.post(&url).json(&body);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose());
        }
        let Some(runtime) = &self.runtime else { return Err(failed("it is being closed".into())) };
        runtime.block_on(async {
            let response = request.send().await.map_err(|error| failed(error.to_string()))?;
            let status = response.status();
            if !status.is_success() {
                return Err(failed(format!("HTTP {status}")));
            }
            crate::bounded::json_body(response, crate::bounded::RECORD).await.map_err(failed)
        })
    }

    fn tokens(&self, body: Value) -> Result<Value, Error> {
        self.ask("/tokenize", body)
    }
}

impl Drop for ServerTokenizer {
    fn drop(&mut self) {
        // A runtime must not wait for its end inside of another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Tokenizer for ServerTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let answer = self.tokens(json!({"model": self.model, "prompt": text, "add_special_tokens": false}))?;
        let ids = answer.get("tokens").and_then(Value::as_array);
        ids.map(|ids| ids.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).collect())
            .ok_or_else(|| Error::Server {
                url: format!("{}/tokenize", self.base),
                reason: "the answer has no `tokens`".into(),
            })
    }

    fn count_with_special(&self, text: &str) -> Result<u64, Error> {
        let answer = self.tokens(json!({"model": self.model, "prompt": text, "add_special_tokens": true}))?;
        answer.get("count").and_then(Value::as_u64).ok_or_else(|| Error::Server {
            url: format!("{}/tokenize", self.base),
            reason: "the answer has no `count`".into(),
        })
    }

    fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        let answer = self.ask("/detokenize", json!({"model": self.model, "tokens": ids}))?;
        answer.get("prompt").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| Error::Server {
            url: format!("{}/detokenize", self.base),
            reason: "the answer has no `prompt`".into(),
        })
    }

    fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    fn special_ids(&self) -> &[u32] {
        &[]
    }

    fn special_tokens_added(&self) -> u32 {
        0
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn count_chat(&self, messages: &[Message]) -> Result<u64, Error> {
        let answer = self.tokens(json!({"model": self.model, "messages": messages, "add_generation_prompt": true}))?;
        answer.get("count").and_then(Value::as_u64).ok_or_else(|| Error::Server {
            url: format!("{}/tokenize", self.base),
            reason: "the answer has no `count`".into(),
        })
    }

    fn chat(&self, _: &[Message]) -> Result<String, Error> {
        Err(Error::Template { reason: "it is on the server; use --backend openai-chat, or --tokenizer".into() })
    }
}

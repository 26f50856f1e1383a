//! What is sent: the head that all requests share, and the body of each.

use std::io::Write as _;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::prompt::{Content, Prompt};
use super::target::{Secret, Target};

/// Everything that the requests of a workload have in common.
#[derive(Debug, Clone)]
pub struct Form {
    /// `/v1/chat/completions` rather than `/v1/completions`.
    pub chat: bool,
    /// The model's name in requests.
    pub model: String,
    /// LoRA modules of which each request names one in place of the model.
    pub lora_modules: Vec<String>,
    /// For the choice among them.
    pub lora_seed: u64,
    /// Answers come as streams.
    pub stream: bool,
    /// Samples per request.
    pub n: u32,
    /// Generate to the last token asked for.
    pub ignore_eos: bool,
    /// `logprobs` of the request.
    pub logprobs: Option<u32>,
    /// Sampling parameters and whatever else goes into the body; wins over everything else.
    pub extra_body: Map<String, Value>,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// The key that the server asks for.
    pub api_key: Option<Secret>,
    /// What request ids (`x-request-id`) begin with; `None` = no such header.
    pub request_id_prefix: Option<String>,
}

/// Writes requests.
#[derive(Debug)]
pub struct Writer {
    form: Form,
    head: Vec<u8>,
    /// The body before the prompt, for each LoRA module.
    before: Vec<Vec<u8>>,
    /// The body after prompt, length and `n`, without the closing brace.
    after: Vec<u8>,
    /// The key of the length, unless the extra body sets it.
    length_key: Option<&'static str>,
}

impl Writer {
    /// For one endpoint.
    pub fn new(form: Form, target: &Target) -> Self {
        let mut head = Vec::new();
        let accept = if form.stream { "text/event-stream, application/json" } else { "application/json" };
        let _ = write!(
            head,
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: vllm-bench/{}\r\nAccept: {accept}\r\nContent-Type: application/json\r\n",
            target.path,
            target.host,
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(key) = &form.api_key {
            let _ = write!(head, "Authorization: Bearer {}\r\n", key.expose());
        }
        for (name, value) in &form.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let (before, after) = form.around();
        let length_key = if form.chat { "max_completion_tokens" } else { "max_tokens" };
        let length_key = Some(length_key).filter(|key| !form.extra_body.contains_key(*key));
        Self { form, head, before, after, length_key }
    }

    /// The body of a request.
    pub fn body(&self, index: u64, prompt: &Prompt, n: u32) -> Vec<u8> {
        let before = &self.before[self.module(index)];
        let mut body = Vec::with_capacity(before.len() + self.after.len() + size(&prompt.content) + 64);
        body.extend_from_slice(before);
        body.extend_from_slice(if self.form.chat { b"\"messages\":" } else { b"\"prompt\":" });
        // Writing into memory does not fail, and neither do keys that are texts.
        let _ = match (&prompt.content, self.form.chat) {
            (Content::Text(text), false) => serde_json::to_writer(&mut body, text),
            (Content::Text(text), true) => {
                serde_json::to_writer(&mut body, &json!([{"role": "user", "content": text}]))
            }
            (Content::TokenIds(ids), _) => serde_json::to_writer(&mut body, ids),
            (Content::Messages(messages), _) => serde_json::to_writer(&mut body, messages),
        };
        if let (Some(key), Some(length)) = (self.length_key, prompt.output_len) {
            let _ = write!(body, ",\"{key}\":{length}");
        }
        if n > 1 && !self.form.extra_body.contains_key("n") {
            let _ = write!(body, ",\"n\":{n}");
        }
        body.extend_from_slice(&self.after);
        body.push(b'}');
        body
    }

    /// Appends the whole request with a body of [`Writer::body`] to `out`.
    pub fn request(&self, index: u64, body: &[u8], more_headers: &str, out: &mut Vec<u8>) {
        out.reserve(self.head.len() + body.len() + more_headers.len() + 96);
        out.extend_from_slice(&self.head);
        if let Some(prefix) = &self.form.request_id_prefix {
            let _ = write!(out, "x-request-id: {prefix}{index}\r\n");
        }
        out.extend_from_slice(more_headers.as_bytes());
        let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
        out.extend_from_slice(body);
    }

    /// Which LoRA module a request names: at random, the same one every time.
    fn module(&self, index: u64) -> usize {
        if self.before.len() < 2 {
            return 0;
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.form.lora_seed ^ 0x10_4a);
        random.set_stream(index);
        random.random_range(0..self.before.len())
    }

    /// What the requests have in common.
    pub fn form(&self) -> &Form {
        &self.form
    }
}

/// What of a request decides the work that it is.
const WORK: [&str; 12] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "ignore_eos",
    "seed",
    "logprobs",
    "stream",
    "n",
];

impl Form {
    /// What decides the work of a request, as it is sent; for the record. A key that is not there is the server's default.
    pub fn work(&self) -> Map<String, Value> {
        let mut work = self.parameters();
        work.entry("ignore_eos").or_insert(json!(false));
        work.entry("stream").or_insert(json!(false));
        work.entry("n").or_insert(self.n.into());
        work.retain(|key, _| WORK.contains(&key.as_str()));
        work
    }

    /// Tokens of an answer that a request asks for in fact: the extra body wins.
    pub fn output_len(&self, length: Option<u64>) -> Option<u64> {
        let key = |key: &str| self.extra_body.get(key);
        let own = key("max_completion_tokens").filter(|_| self.chat).or_else(|| key("max_tokens"));
        own.map_or(length, Value::as_u64)
    }

    /// Samples that a request asks for in fact.
    pub fn samples(&self, n: u32) -> u32 {
        let own = self.extra_body.get("n").and_then(Value::as_u64);
        own.map_or(n, |own| u32::try_from(own).unwrap_or(u32::MAX))
    }

    /// The body but for model, prompt, length and `n`.
    fn parameters(&self) -> Map<String, Value> {
        let mut rest = Map::new();
        rest.insert("temperature".into(), json!(0.0));
        if !self.chat {
            // vLLM's client asks for it, and so do we, to be given the same work.
            rest.insert("repetition_penalty".into(), json!(1.0));
        }
        if let Some(logprobs) = self.logprobs {
            rest.insert("logprobs".into(), if self.chat { json!(true) } else { json!(logprobs) });
            if self.chat {
                rest.insert("top_logprobs".into(), json!(logprobs));
            }
        }
        if self.stream {
            rest.insert("stream".into(), json!(true));
            rest.insert("stream_options".into(), json!({"include_usage": true}));
        }
        if self.ignore_eos {
            rest.insert("ignore_eos".into(), json!(true));
        }
        for (key, value) in &self.extra_body {
            rest.insert(key.clone(), value.clone());
        }
        rest
    }

    /// The body around prompt and length.
    fn around(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let rest = self.parameters();
        let models = if self.lora_modules.is_empty() { std::slice::from_ref(&self.model) } else { &self.lora_modules };
        let before = models
            .iter()
            .map(|model| {
                let mut before = b"{\"model\":".to_vec();
                let _ = serde_json::to_writer(&mut before, model);
                before.push(b',');
                before
            })
            .collect();
        let mut after = Vec::new();
        for (key, value) in &rest {
            after.push(b',');
            let _ = serde_json::to_writer(&mut after, key);
            after.push(b':');
            let _ = serde_json::to_writer(&mut after, value);
        }
        (before, after)
    }
}

fn size(content: &Content) -> usize {
    match content {
        Content::Text(text) => text.len() + text.len() / 8,
        Content::TokenIds(ids) => ids.len() * 7,
        Content::Messages(messages) => {
            messages.iter().map(|message| message.content.as_str().map_or(256, str::len) * 9 / 8 + 40).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::prompt::Message;

    fn form(chat: bool) -> Form {
        Form {
            chat,
            model: "m \"x\"".into(),
            lora_modules: vec![],
            lora_seed: 0,
            stream: true,
            n: 1,
            ignore_eos: true,
            logprobs: None,
            extra_body: Map::new(),
            headers: vec![("x-a".into(), "b".into())],
            api_key: Some(Secret::new("sk-1")),
            request_id_prefix: Some("bench-".into()),
        }
    }

    fn body(form: &Form, content: Content) -> Value {
        let target = Target::new("http://127.0.0.1:1", "/v1/completions", false).unwrap();
        let prompt = Prompt { content, prompt_len: None, output_len: Some(7), id: None };
        serde_json::from_slice(&Writer::new(form.clone(), &target).body(0, &prompt, 1)).unwrap()
    }

    #[test]
    fn bodies_are_what_vllm_s_client_sends() {
        let text = Content::Text("a\"\n".into());
        assert_eq!(
            body(&form(false), text.clone()),
            json!({"model": "m \"x\"", "prompt": "a\"\n", "max_tokens": 7, "temperature": 0.0, "repetition_penalty": 1.0,
                "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true})
        );
        assert_eq!(body(&form(false), Content::TokenIds(vec![1, 2]))["prompt"], json!([1, 2]));
        let chat = body(&form(true), text);
        assert_eq!(chat["messages"], json!([{"role": "user", "content": "a\"\n"}]));
        assert_eq!((&chat["max_completion_tokens"], chat.get("max_tokens")), (&json!(7), None));
        let message = Message::new("system", "s");
        let chat = body(&form(true), Content::Messages(vec![message]));
        assert_eq!(chat["messages"], json!([{"role": "system", "content": "s"}]));
    }

    #[test]
    fn every_lora_module_is_named_and_always_by_the_same_requests() {
        let target = Target::new("http://127.0.0.1:1", "/v1/completions", false).unwrap();
        let writer = Writer::new(Form { lora_modules: vec!["l1".into(), "l2".into()], ..form(false) }, &target);
        let prompt = Prompt { content: Content::Text("x".into()), prompt_len: None, output_len: None, id: None };
        let name = |index| serde_json::from_slice::<Value>(&writer.body(index, &prompt, 1)).unwrap()["model"].clone();
        let names: Vec<Value> = (0..20).map(name).collect();
        assert!(names.contains(&json!("l1")) && names.contains(&json!("l2")));
        assert_eq!(names, (0..20).map(name).collect::<Vec<_>>());
    }

    #[test]
    fn the_extra_body_wins() {
        let mut form = form(false);
        form.extra_body = json!({"temperature": 0.7, "max_tokens": 3, "top_k": 5}).as_object().unwrap().clone();
        let body = body(&form, Content::Text("x".into()));
        assert_eq!((&body["temperature"], &body["max_tokens"], &body["top_k"]), (&json!(0.7), &json!(3), &json!(5)));
        assert_eq!((form.output_len(Some(7)), form.samples(2)), (Some(3), 2));
        let work = json!({"temperature": 0.7, "repetition_penalty": 1.0, "top_k": 5, "ignore_eos": true, "stream": true, "n": 1});
        assert_eq!(Value::from(form.work()), work);
    }

    #[test]
    fn the_head_carries_the_key_and_debug_output_does_not() {
        let target = Target::new("http://127.0.0.1:1", "/v1/completions", false).unwrap();
        let writer = Writer::new(form(false), &target);
        let mut out = Vec::new();
        writer.request(3, b"{}", "x-more: 1\r\n", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{text}");
        for line in ["Authorization: Bearer sk-1\r\n", "x-request-id: bench-3\r\n", "x-a: b\r\n", "x-more: 1\r\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"), "{text}");
        assert!(!format!("{:?}", writer.form()).contains("sk-1"));
    }
}

//! Result files of other programs, for tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Result files under construction in a directory.
pub struct Results(PathBuf);

impl Results {
    /// In a directory that is made.
    pub fn new(directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file with this content.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// A result of `vllm bench serve` with these keys more, or others.
    pub fn result(&self, name: &str, more: Value) -> &Self {
        self.put(name, Value::Object(result(more)).to_string())
    }

    /// A named pipe, which nobody writes to.
    pub fn pipe(&self, name: &str) -> &Self {
        nix::unistd::mkfifo(&self.0.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        self
    }

    /// A file that has a size and takes no space.
    pub fn huge(&self, name: &str) -> &Self {
        fs::File::create(self.0.join(name)).unwrap().set_len((1 << 30) + 1).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

/// A result as `vllm bench serve` 0.14.1 writes it.
pub fn result(more: Value) -> Map<String, Value> {
    let result = json!({
        "date": "20260101-100000", "endpoint_type": "openai", "backend": "openai", "label": null, "model_id": "org/m",
        "tokenizer_id": "org/m", "num_prompts": 16, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 4,
        "duration": 2.0, "completed": 16, "failed": 0, "total_input_tokens": 1024, "total_output_tokens": 512,
        "request_throughput": 8.0, "request_goodput": null, "output_throughput": 256.0, "total_token_throughput": 768.0,
        "mean_ttft_ms": 20.0, "median_ttft_ms": 19.0, "std_ttft_ms": 1.0, "p99_ttft_ms": 25.0, "mean_tpot_ms": 2.0,
        "median_tpot_ms": 2.0, "std_tpot_ms": 0.1, "p99_tpot_ms": 2.5,
    });
    let (Value::Object(mut result), Value::Object(more)) = (result, more) else { unreachable!() };
    result.extend(more);
    result
}

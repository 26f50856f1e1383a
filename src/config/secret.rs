//! Which names are names of secrets.

/// Whether the value of a variable or flag of this name must never be written: tokens, keys, passwords.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    // Settings of tokenizers and token limits are no secrets.
    if name.contains("TOKENIZER") || name.contains("TOKENS") || name.contains("MAX_TOKEN") {
        return false;
    }
    ["TOKEN", "API_KEY", "APIKEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY", "ACCESS_KEY"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in
            ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "api-key", "AWS_SECRET_ACCESS_KEY", "db_password"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["VLLM_WORKER_MULTIPROC_METHOD", "TOKENIZERS_PARALLELISM", "MAX_NUM_BATCHED_TOKENS", "HF_HOME", "KEYBOARD"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}

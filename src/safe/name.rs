//! Which names are names of secrets: of variables, flags, headers, and keys of JSON.

/// The words of a name: `HF_TOKEN`, `hf-token` and `hfToken` are `hf`, `token`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && before.is_ascii_lowercase();
        if !c.is_ascii_alphanumeric() || begins {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Names that hold one of these, once their separators are dropped, are names of secrets.
const HOLDS: [&str; 12] = [
    "apikey",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "credential",
    "privatekey",
    "accesskey",
    "authtoken",
    "accesstoken",
    "connectionstring",
];
/// Words of which each alone makes a name that of a secret.
const WORDS: [&str; 21] = [
    "auth",
    "authorization",
    "authentication",
    "bearer",
    "jwt",
    "pat",
    "pass",
    "pwd",
    "pw",
    "cookie",
    "cookies",
    "creds",
    "cred",
    "webhook",
    "sig",
    "signature",
    "dsn",
    "sas",
    "netrc",
    "pgpass",
    "sshpass",
];
/// What a name ends in that tells where a secret is, or something of it, but not the secret.
const ABOUT: [&str; 33] = [
    "path",
    "file",
    "files",
    "dir",
    "directory",
    "folder",
    "home",
    "socket",
    "sock",
    "type",
    "mode",
    "method",
    "format",
    "name",
    "names",
    "enabled",
    "disabled",
    "timeout",
    "ttl",
    "url",
    "uri",
    "endpoint",
    "host",
    "port",
    "config",
    "class",
    "length",
    "count",
    "len",
    "provider",
    "env",
    "var",
    "variable",
];
/// Tokens of text, not of access: what is counted, and what a tokenizer has.
const TEXT: [&str; 72] = [
    "max",
    "min",
    "num",
    "number",
    "total",
    "count",
    "per",
    "batched",
    "threshold",
    "limit",
    "budget",
    "len",
    "length",
    "long",
    "prefill",
    "decode",
    "prompt",
    "input",
    "output",
    "completion",
    "generated",
    "new",
    "special",
    "bos",
    "eos",
    "pad",
    "unk",
    "sep",
    "cls",
    "mask",
    "start",
    "end",
    "image",
    "video",
    "audio",
    "speech",
    "added",
    "additional",
    "return",
    "skip",
    "stop",
    "bad",
    "draft",
    "speculative",
    "chunk",
    "chunked",
    "context",
    "cached",
    "rate",
    "only",
    "as",
    "think",
    "dispatch",
    "dispatcher",
    "drop",
    "capacity",
    "padding",
    "expert",
    "experts",
    "block",
    "blocks",
    "step",
    "steps",
    "window",
    "slots",
    "pool",
    "pooling",
    "forced",
    "healing",
    "scheduled",
    "partial",
    "details",
];
/// Keys that open nothing.
const OTHER_KEYS: [&str; 24] = [
    "cache",
    "sort",
    "primary",
    "foreign",
    "metric",
    "metrics",
    "index",
    "public",
    "group",
    "partition",
    "routing",
    "row",
    "column",
    "kv",
    "query",
    "lookup",
    "hash",
    "dict",
    "state",
    "up",
    "down",
    "host",
    "any",
    "arrow",
];

/// Whether the value of a variable or flag of this name must never be written: tokens, keys, passwords.
pub fn is_secret_name(name: &str) -> bool {
    // `--compilation-config.pass_config.x`: the last key is what has the value.
    let name = name.rsplit('.').next().unwrap_or(name);
    let words = words(name);
    let joined = words.concat();
    // The working directory, as shells have it.
    if matches!(name, "PWD" | "OLDPWD") || joined.contains("tokeni") {
        return false;
    }
    let last = words.last().map(String::as_str).unwrap_or_default();
    // `--allow-credentials` and the like are switches.
    let switch =
        words.first().is_some_and(|first| matches!(first.as_str(), "allow" | "no" | "enable" | "disable" | "require"));
    if switch || ABOUT.contains(&last) {
        return false;
    }
    if HOLDS.iter().any(|word| joined.contains(word)) {
        return true;
    }
    if words.iter().any(|word| WORDS.contains(&word.as_str())) {
        return true;
    }
    let text = || words.iter().any(|word| TEXT.contains(&word.as_str()));
    // `token_id` of a model's configuration, `token-ids`.
    let of_text = matches!(last, "id" | "ids" | "index" | "size" | "ratio");
    if words.iter().any(|word| word.ends_with("token") || word.ends_with("tokens")) {
        return !of_text && !text();
    }
    let is_key = |word: &str| word == "key" || word == "keys";
    // `key` alone is a key of anything.
    let key = words.len() > 1 && words.iter().any(|word| is_key(word));
    key && !of_text && !words.iter().any(|word| OTHER_KEYS.contains(&word.as_str()))
}

/// Whether the text under this key of JSON is a secret. In JSON stand configurations of models too, with their tokens of text.
pub fn is_secret_key(key: &str) -> bool {
    is_secret_name(key) || matches!(key.to_ascii_lowercase().as_str(), "token" | "bearer" | "sas" | "sig" | "signature")
}

/// Headers whose values are no secrets. Every other one may be: gateways invent their own.
const HARMLESS: [&str; 44] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "warning",
    "x-request-id",
    "x-correlation-id",
    "x-trace-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-data-parallel-rank",
    "x-priority",
    "x-model",
    "x-session-affinity",
];

/// Whether the value of this header is known to be no secret.
pub fn is_harmless_header(name: &str) -> bool {
    HARMLESS.contains(&name.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in [
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "VLLM_API_KEY",
            "OPENAI_API_KEY",
            "api-key",
            "apiKey",
            "API_TOKENS",
            "REGISTRY_AUTH",
            "WANDB_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "AWS_SESSION_TOKEN",
            "db_password",
            "PGPASSWORD",
            "MYSQL_PWD",
            "DB_PASS",
            "SMTP_PASSWD",
            "CLIENT_SECRET",
            "GCP_CREDENTIALS",
            "AZURE_CREDS",
            "GITHUB_PAT",
            "SSH_PASSPHRASE",
            "SLACK_WEBHOOK",
            "SESSION_COOKIE",
            "JWT",
            "NPM_AUTH",
            "authToken",
            "hf-token",
            "Authorization",
            "x-api-key",
            "AZURE_STORAGE_CONNECTION_STRING",
            "NGC_CLI_API_KEY",
            "HFTOKEN",
            "SIGNING_KEYS",
            "TOKEN",
            "LANGCHAIN_API_KEY",
            "WANDB_API_KEY",
            "DOCKER_AUTH_CONFIG_TOKEN",
            "ENCRYPTION_KEY",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "VLLM_WORKER_MULTIPROC_METHOD",
            "TOKENIZERS_PARALLELISM",
            "MAX_NUM_BATCHED_TOKENS",
            "MAX_TOKENS",
            "HF_HOME",
            "KEYBOARD",
            "PWD",
            "OLDPWD",
            "HF_TOKEN_PATH",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "SSH_AUTH_SOCK",
            "XAUTHORITY",
            "AUTH_TYPE",
            "SECRET_NAME",
            "key",
            "keys",
            "eos_token",
            "bos_token_id",
            "pad_token",
            "image_token_index",
            "kv-cache-dtype",
            "sort_key",
            "PATH",
            "MONKEY",
            "AUTHOR",
            "GIT_AUTHOR_NAME",
            "num_speculative_tokens",
            "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE",
            "BYPASS",
            "compilation-config.pass_config.fuse_norm",
            "pass_config",
            "no_proxy",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    /// Every flag of vLLM, as its help texts have them: these are secrets, and no other is.
    #[test]
    fn of_vllm_s_flags_those_that_carry_secrets_are_secret_and_no_other() {
        let texts = [
            include_str!("../preflight/fixtures/serve-0.14.1.txt"),
            include_str!("../preflight/fixtures/bench-0.14.1.txt"),
        ];
        let mut secret = std::collections::BTreeSet::new();
        for word in texts.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')) {
            if let Some(flag) = word.strip_prefix("--").filter(|flag| is_secret_name(flag)) {
                secret.insert(flag);
            }
        }
        assert_eq!(secret.into_iter().collect::<Vec<_>>(), ["api-key", "hf-token"]);
        for flag in [
            "long-prefill-token-threshold",
            "dbo-decode-token-threshold",
            "dbo-prefill-token-threshold",
            "max-num-batched-tokens",
            "max-num-partial-prefills",
            "return-tokens-as-token-ids",
            "tokens-only",
            "tokenizer",
            "tokenizer-mode",
            "tokenizer-revision",
            "skip-tokenizer-init",
            "enable-prompt-tokens-details",
            "disable-log-stats",
            "max-logprobs",
            "num-lookahead-slots",
            "ssl-keyfile",
            "allow-credentials",
            "h11-max-header-count",
            "enable-auto-tool-choice",
            "moe-token-threshold",
            "max-cudagraph-tokens",
            "max-num-scheduled-tokens",
            "moe-token-dispatcher",
            "api-key-env",
            "api-key-file",
            "sharegpt-output-len",
        ] {
            assert!(!is_secret_name(flag), "{flag}");
        }
    }

    #[test]
    fn headers_are_secret_unless_they_are_known_not_to_be() {
        for name in ["Accept", "Content-Type", "X-Request-Id", "user-agent"] {
            assert!(is_harmless_header(name), "{name}");
        }
        for name in ["Authorization", "x-api-key", "Cookie", "X-Tenant"] {
            assert!(!is_harmless_header(name), "{name}");
        }
    }
}

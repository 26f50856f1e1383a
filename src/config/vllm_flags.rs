//! The flags of vLLM's releases that we know, from their help texts: for what a sweep file most likely means.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::nearest::nearest;

fn names(texts: &[&'static str]) -> HashSet<&'static str> {
    let words = texts.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')));
    words.filter_map(|word| word.strip_prefix("--")).filter(|name| !name.is_empty()).collect()
}

static SERVE: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    names(&[
        include_str!("../preflight/fixtures/serve-0.10.2.txt"),
        include_str!("../preflight/fixtures/serve-0.32.0.txt"),
    ])
});

static BENCH: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    names(&[
        include_str!("../preflight/fixtures/bench-0.10.2.txt"),
        include_str!("../preflight/fixtures/bench-0.32.0.txt"),
    ])
});

/// Whether `vllm serve` or `vllm bench serve` of a release that we know has such a flag, written with dashes. Parts of a JSON flag
/// are written with a dot.
pub fn is_known(key: &str) -> bool {
    let name = key.split('.').next().unwrap_or(key);
    let has = |name: &str| SERVE.contains(name) || BENCH.contains(name);
    has(name) || name.strip_prefix("no-").is_some_and(has)
}

/// Where a key belongs that stands at the top of a sweep file and is, or nearly is, a flag of vLLM; with its name.
pub fn meant(key: &str) -> Option<(&'static str, &'static str)> {
    let key = key.replace('_', "-");
    for (section, flags) in [("serve", &*SERVE), ("bench", &*BENCH)] {
        if let Some(flag) = flags.get(key.as_str()) {
            return Some((section, flag));
        }
    }
    for (section, flags) in [("serve", &*SERVE), ("bench", &*BENCH)] {
        let mut sorted: Vec<&str> = flags.iter().copied().collect();
        sorted.sort_unstable();
        if let Some(flag) = nearest(&key, sorted.into_iter()) {
            return Some((section, flag));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_known_and_meant() {
        assert!(
            is_known("max-num-seqs") && is_known("no-enable-prefix-caching") && is_known("compilation-config.mode")
        );
        assert!(!is_known("gpu") && !is_known("tensor-paralel-size"));
        assert_eq!(meant("modle"), Some(("serve", "model")));
        assert_eq!(meant("max_num_seqs"), Some(("serve", "max-num-seqs")));
        assert_eq!(meant("request-rate"), Some(("bench", "request-rate")));
        assert_eq!(meant("zzz"), None);
    }
}

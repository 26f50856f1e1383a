//! What changed between releases of vLLM: defaults, names of flags, names of metrics, keys of results. Data, in one place.
//!
//! Each row was read off the help texts and sources of 0.10.2, 0.14.1, 0.15.0 and 0.32.0 (`preflight/fixtures`): between which
//! of these a change came is known, and not in which release in between. What differs for no sweep is left out.

/// Which command a flag belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `vllm serve`.
    Serve,
    /// `vllm bench serve`.
    Bench,
}

impl Side {
    /// As it is typed.
    pub const fn command(self) -> &'static str {
        match self {
            Side::Serve => "vllm serve",
            Side::Bench => "vllm bench serve",
        }
    }
}

/// What a flag does where it is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultChange {
    /// Of which command.
    pub side: Side,
    /// Without dashes in front.
    pub flag: &'static str,
    /// The value in the older releases, as it would be written.
    pub before: &'static str,
    /// The value in the newer releases.
    pub after: &'static str,
    /// What `vllm-bench load` does, whatever vLLM is there; for flags of the client.
    pub builtin: Option<&'static str>,
    /// The value of another flag of the same command under which alone it matters.
    pub only_with: Option<(&'static str, &'static str)>,
    /// Whether the client sends other work for it, so that results cannot be compared.
    pub work: bool,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A default.
    Default(DefaultChange),
    /// A flag that is gone, and what takes its place.
    Flag {
        /// Of which command.
        side: Side,
        /// Without dashes in front.
        old: &'static str,
        /// As a user would write it; nothing where nothing does.
        new: Option<&'static str>,
    },
    /// A metric of `/metrics` that has another name.
    VllmMetric {
        /// In the older releases.
        old: &'static str,
        /// In the newer ones.
        new: &'static str,
    },
    /// A key of a result that older releases do not write.
    ResultKey {
        /// The key.
        new: &'static str,
    },
}

/// One change, and between which releases it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The last release that is known to be as before.
    pub old: &'static str,
    /// The first release that is known to be as now.
    pub new: &'static str,
    /// What it is.
    pub what: What,
}

const fn serve_default(old: &'static str, new: &'static str, flag: &'static str, values: [&'static str; 2]) -> Change {
    let [before, after] = values;
    let change = DefaultChange { side: Side::Serve, flag, before, after, builtin: None, only_with: None, work: false };
    Change { old, new, what: What::Default(change) }
}

const fn flag(
    old: &'static str,
    new: &'static str,
    side: Side,
    gone: &'static str,
    now: Option<&'static str>,
) -> Change {
    Change { old, new, what: What::Flag { side, old: gone, new: now } }
}

const fn metric(old: &'static str, new: &'static str) -> Change {
    Change { old: "0.10.2", new: "0.14.1", what: What::VllmMetric { old, new } }
}

const fn key(new: &'static str) -> Change {
    Change { old: "0.10.2", new: "0.14.1", what: What::ResultKey { new } }
}

/// All known changes.
pub const CHANGES: &[Change] = &[
    // What the client sends.
    Change {
        old: "0.15.0",
        new: "0.32.0",
        what: What::Default(DefaultChange {
            side: Side::Bench,
            flag: "temperature",
            before: "0",
            after: "what the model's own configuration says",
            builtin: Some("0"),
            only_with: None,
            work: true,
        }),
    },
    Change {
        old: "0.10.2",
        new: "0.14.1",
        what: What::Default(DefaultChange {
            side: Side::Bench,
            flag: "ignore-eos",
            before: "off",
            after: "on",
            builtin: Some("on"),
            only_with: Some(("dataset-name", "random")),
            work: true,
        }),
    },
    flag("0.10.2", "0.14.1", Side::Bench, "endpoint-type", Some("--backend")),
    flag("0.10.2", "0.14.1", Side::Bench, "custom-skip-chat-template", Some("--skip-chat-template")),
    flag("0.15.0", "0.32.0", Side::Bench, "sonnet-input-len", Some("--input-len")),
    flag("0.15.0", "0.32.0", Side::Bench, "sonnet-output-len", Some("--output-len")),
    flag("0.15.0", "0.32.0", Side::Bench, "sonnet-prefix-len", None),
    // What the server does.
    serve_default("0.15.0", "0.32.0", "gpu-memory-utilization", ["0.9", "0.92"]),
    serve_default("0.10.2", "0.14.1", "async-scheduling", ["off", "on where it can be"]),
    serve_default("0.10.2", "0.14.1", "seed", ["random", "0"]),
    serve_default("0.15.0", "0.32.0", "disable-cascade-attn", ["off", "chosen by vLLM"]),
    serve_default("0.10.2", "0.14.1", "disable-hybrid-kv-cache-manager", ["off", "chosen by vLLM"]),
    flag("0.10.2", "0.14.1", Side::Serve, "cuda-graph-sizes", Some("--cudagraph-capture-sizes")),
    flag("0.10.2", "0.14.1", Side::Serve, "max-seq-len-to-capture", Some("--max-cudagraph-capture-size")),
    flag("0.10.2", "0.14.1", Side::Serve, "task", Some("--runner and --convert")),
    flag("0.10.2", "0.14.1", Side::Serve, "override-pooler-config", Some("--pooler-config")),
    flag("0.10.2", "0.14.1", Side::Serve, "guided-decoding-backend", Some("--structured-outputs-config.backend")),
    flag("0.10.2", "0.14.1", Side::Serve, "rope-scaling", Some("--hf-overrides")),
    flag("0.10.2", "0.14.1", Side::Serve, "rope-theta", Some("--hf-overrides")),
    flag("0.10.2", "0.14.1", Side::Serve, "num-redundant-experts", Some("--eplb-config.num_redundant_experts")),
    flag("0.10.2", "0.14.1", Side::Serve, "disable-mm-preprocessor-cache", Some("--mm-processor-cache-gb 0")),
    flag("0.10.2", "0.14.1", Side::Serve, "disable-async-output-proc", None),
    flag("0.10.2", "0.14.1", Side::Serve, "num-lookahead-slots", None),
    flag("0.10.2", "0.14.1", Side::Serve, "preemption-mode", None),
    flag("0.10.2", "0.14.1", Side::Serve, "scheduler-delay-factor", None),
    flag("0.10.2", "0.14.1", Side::Serve, "lora-extra-vocab-size", None),
    flag(
        "0.15.0",
        "0.32.0",
        Side::Serve,
        "disable-log-requests",
        Some("no flag: requests are not logged unless `--enable-log-requests` asks for it"),
    ),
    flag("0.15.0", "0.32.0", Side::Serve, "swap-space", None),
    flag("0.15.0", "0.32.0", Side::Serve, "calculate-kv-scales", None),
    flag("0.15.0", "0.32.0", Side::Serve, "max-num-partial-prefills", None),
    flag("0.15.0", "0.32.0", Side::Serve, "max-long-partial-prefills", None),
    flag("0.15.0", "0.32.0", Side::Serve, "disable-frontend-multiprocessing", None),
    flag("0.15.0", "0.32.0", Side::Serve, "logits-processor-pattern", Some("--logits-processors")),
    // What they say.
    metric("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    metric("vllm:gpu_prefix_cache_hits", "vllm:prefix_cache_hits"),
    metric("vllm:gpu_prefix_cache_queries", "vllm:prefix_cache_queries"),
    metric("vllm:time_per_output_token_seconds", "vllm:inter_token_latency_seconds"),
    key("failed"),
    key("request_goodput"),
    key("max_output_tokens_per_s"),
    key("max_concurrent_requests"),
    Change { old: "0.15.0", new: "0.32.0", what: What::ResultKey { new: "rtfx" } },
];

/// A version as numbers that can be compared: as text, 0.9 comes after 0.14. What follows the release (`rc1`, `+cpu`) is
/// left out. `None` for what is no release (`0.1.dev1+g123`, `nightly`).
pub fn number(version: &str) -> Option<Vec<u32>> {
    let plain = version.trim().trim_start_matches('v').split('+').next()?;
    if plain.contains("dev") {
        return None;
    }
    let parts = plain.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    let parts: Vec<u32> = parts.take_while(Option::is_some).flatten().collect();
    (parts.len() >= 2).then_some(parts)
}

impl Change {
    /// Whether it lies, or may lie, between two versions.
    pub fn lies_between(&self, one: &str, other: &str) -> bool {
        let (Some(a), Some(b)) = (number(one), number(other)) else { return false };
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        low != high && !self.is_new_in(&low) && !self.is_old_in(&high)
    }

    fn is_new_in(&self, version: &[u32]) -> bool {
        number(self.new).is_some_and(|new| version >= new.as_slice())
    }

    fn is_old_in(&self, version: &[u32]) -> bool {
        number(self.old).is_some_and(|old| version <= old.as_slice())
    }
}

/// Flags of the client whose default changed between two versions, or may have, so that other work is sent: `--temperature`.
pub fn work_flags_between(one: &str, other: &str) -> Vec<String> {
    let work = CHANGES.iter().filter(|change| change.lies_between(one, other)).filter_map(|change| match change.what {
        What::Default(DefaultChange { flag, work: true, .. }) => Some(format!("`--{flag}`")),
        What::Default(_) | What::Flag { .. } | What::VllmMetric { .. } | What::ResultKey { .. } => None,
    });
    work.collect()
}

/// What became of a flag that a vLLM does not know: a phrase for a message, `None` where the table does not know it either.
pub fn became(side: Side, name: &str) -> Option<String> {
    CHANGES.iter().find_map(|change| match change.what {
        What::Flag { side: of, old, new } if of == side && old == name => Some(match new {
            Some(new) if new.starts_with("--") => format!("it was replaced by `{new}` after {}", change.old),
            Some(new) => format!("it is gone since {} at the latest: {new}", change.new),
            None => format!("it is gone since {} at the latest, with nothing in its place", change.new),
        }),
        What::Flag { .. } | What::Default(_) | What::VllmMetric { .. } | What::ResultKey { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Help;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(number("0.9.2") < number("0.14.1rc2+cpu"));
        assert_eq!(number("v0.32.0"), Some(vec![0, 32, 0]));
        assert_eq!(number("0.1.dev1+g5b01"), None);
        assert_eq!(number("nightly"), None);
    }

    #[test]
    fn a_change_lies_between_the_releases_on_its_two_sides() {
        let change = CHANGES[0];
        for (one, other, expected) in [
            ("0.14.1", "0.32.0", true),
            ("0.32.0", "0.14.1+cpu", true),
            ("0.14.1", "0.15.0", false),
            ("0.32.0", "0.33.0", false),
            // Where exactly it came is not known: it may lie between these.
            ("0.14.1", "0.20.0", true),
            ("0.20.0", "0.32.0", true),
            ("0.32.0", "0.32.0", false),
            ("unknown", "0.32.0", false),
        ] {
            assert_eq!(change.lies_between(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn flags_that_decide_the_work_are_named_between_releases() {
        assert_eq!(work_flags_between("0.32.0", "0.14.1"), ["`--temperature`"]);
        assert_eq!(work_flags_between("0.10.2", "0.15.0"), ["`--ignore-eos`"]);
        assert_eq!(work_flags_between("xpu", "cpu"), <[String; 0]>::default());
    }

    /// Every row about a flag holds in the recorded help texts.
    #[test]
    fn the_table_agrees_with_the_recorded_help_texts() {
        let help = |version: &str| Help::recorded(version).unwrap();
        for change in CHANGES {
            let (old, new) = (help(change.old), help(change.new));
            let pick =
                |help: &Help, side: Side| if side == Side::Serve { help.serve.clone() } else { help.bench.clone() };
            let has = |help: &Help, side: Side, name: &str| {
                pick(help, side).flags.iter().any(|flag| flag.names.iter().any(|known| known == name))
            };
            match change.what {
                What::Default(default) => {
                    assert!(
                        has(&old, default.side, default.flag) && has(&new, default.side, default.flag),
                        "{change:?}"
                    );
                }
                What::Flag { side, old: gone, new: now } => {
                    assert!(has(&old, side, gone) && !has(&new, side, gone), "{change:?}");
                    for word in now.unwrap_or_default().split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                        let name = word.split('.').next().unwrap();
                        assert!(has(&new, side, name), "{change:?}: {name}");
                    }
                }
                What::VllmMetric { .. } | What::ResultKey { .. } => {}
            }
        }
    }
}

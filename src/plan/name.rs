//! Names of experiments: for humans and file names, never parsed back.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use crate::model::{Axes, Identity, Repeat};

/// The longest name: with the suffixes of result and log files it stays below the 255 bytes a file name may have.
const LONGEST: usize = 180;
/// So much of the model's name is always there.
const SHORTEST_MODEL: usize = 24;

/// So much of a name stays where a long key is put behind it.
const HEAD: usize = 120;

/// `{model}_tp{N}_quant-{q}_eager-{bool}` with `/` written as `_`, then what else varies: `_mns-512_cc-32`, then which
/// measurement it is, unless it is the first: `_start2_run3`. Where that is longer than [`LONGEST`], the settings are cut, and
/// the first digits of the identity stand before the measurement: neither is ever cut away.
pub fn experiment_name(axes: &Axes, repeat: Repeat, identity: &Identity) -> String {
    let (plain, measurement) = (plain_name(axes), measurement(repeat));
    if plain.len() + measurement.len() <= LONGEST {
        return plain + &measurement;
    }
    cut(axes, &format!("_{}{measurement}", identity.short()))
}

/// What a combination is called that is not measured and has no files.
pub fn combination_name(axes: &Axes) -> String {
    let mut name = plain_name(axes);
    name.truncate(LONGEST);
    name
}

/// The name of a server configuration: that of its experiments without their workload.
pub(super) fn server_name(axes: &Axes, identity: &Identity) -> String {
    let plain = settings_name(axes, "");
    if plain.len() <= LONGEST { plain } else { cut_settings(axes, "", &format!("_{}", identity.short())) }
}

/// `_start2_run3`; nothing of what is the first.
fn measurement(repeat: Repeat) -> String {
    let part = |what: &str, n: u32| if n > 1 { format!("_{what}{n}") } else { String::new() };
    part("start", repeat.start) + &part("run", repeat.run)
}

fn plain_name(axes: &Axes) -> String {
    settings_name(axes, &varying(&axes.workload))
}

fn settings_name(axes: &Axes, workload: &str) -> String {
    sanitize(&axes.model) + &rest(axes, workload)
}

/// All of a name behind the model.
fn rest(axes: &Axes, workload: &str) -> String {
    format!(
        "_tp{}_quant-{}_eager-{}{}{workload}",
        axes.tensor_parallel_size,
        sanitize(axes.quantization_label()),
        axes.enforce_eager,
        varying(&axes.server)
    )
}

fn cut(axes: &Axes, kept: &str) -> String {
    cut_settings(axes, &varying(&axes.workload), kept)
}

/// A name of at most [`LONGEST`] that ends with `kept`. The model is cut first, because the settings tell more.
fn cut_settings(axes: &Axes, workload: &str, kept: &str) -> String {
    let room = LONGEST.saturating_sub(kept.len());
    let (mut name, rest) = (sanitize(&axes.model), rest(axes, workload));
    name.truncate(room.saturating_sub(rest.len()).max(SHORTEST_MODEL));
    name += &rest;
    name.truncate(room);
    name + kept
}

fn varying(keys: &IndexMap<String, String>) -> String {
    keys.iter().map(|(key, value)| format!("_{}-{}", sanitize(abbreviation(key)), short(value))).collect()
}

/// What is customary for a flag in names and tables; the flag itself where nothing is.
pub fn abbreviation(key: &str) -> &str {
    match key {
        "pipeline-parallel-size" => "pp",
        "data-parallel-size" => "dp",
        "max-num-seqs" => "mns",
        "max-num-batched-tokens" => "mnbt",
        "gpu-memory-utilization" => "gmu",
        "block-size" => "bs",
        "kv-cache-dtype" => "kvc",
        "speculative-config" => "spec",
        "max-concurrency" => "cc",
        "random-input-len" => "in",
        "random-output-len" => "out",
        "num-prompts" => "n",
        "request-rate" => "rate",
        other => other.strip_prefix("env.").unwrap_or(other),
    }
}

/// A value in a name: speculative decoding by its method and length, other JSON and long texts cut. Names that become
/// alike by it are distinguished by their identity.
fn short(value: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(value).ok().filter(serde_json::Value::is_object);
    let speculation = json.as_ref().and_then(|json| {
        let method = json.get("method").or_else(|| json.get("model"))?.as_str()?;
        let method = method.rsplit('/').next().unwrap_or(method);
        let tokens = json.get("num_speculative_tokens").and_then(serde_json::Value::as_u64);
        Some(tokens.map_or_else(|| method.to_owned(), |tokens| format!("{method}-{tokens}")))
    });
    let mut text = sanitize(&speculation.unwrap_or_else(|| value.to_owned()));
    text.truncate(24);
    text
}

/// Replaces every character that is not a letter, digit, `.`, `-` or `_` by `_`, and a leading dot or dash too (a
/// hidden file, or a file that reads as a flag). The result is ASCII.
pub fn sanitize(text: &str) -> String {
    text.chars()
        .enumerate()
        .map(|(i, c)| match c {
            '.' | '-' if i == 0 => '_',
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
            _ => '_',
        })
        .collect()
}

/// Whether a name, as read from a file, can be one that this module made: it stays within its directory, and is no hidden file.
pub(super) fn is_safe(name: &str) -> bool {
    const LONGEST_READ: usize = 240;
    !name.is_empty() && name.len() <= LONGEST_READ && sanitize(name) == name
}

/// What a name is given to: two things with the same key may share a name, and no others may.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// All settings.
    pub identity: Identity,
    /// Which measurement of them; the first for a server.
    pub repeat: Repeat,
}

impl Key {
    /// `name` told from others: the more often it had to be, the more of the key is in it.
    fn distinguish(&self, name: &str, times: usize) -> String {
        let Repeat { start, run } = self.repeat;
        // ASCII, as every name is.
        let head = name.get(..HEAD).unwrap_or(name);
        match times {
            0 => name.to_owned(),
            1 => format!("{name}_{}", self.identity.short()),
            2 => format!("{head}_{}-start{start}-run{run}", self.identity.long()),
            3 => format!("{head}_{}-start{start}-run{run}", self.identity),
            more => format!("{head}_{}-start{start}-run{run}-{more}", self.identity),
        }
    }
}

/// Makes names unique, whatever they are called, on file systems too that know no upper and lower case: where several keys share
/// a name, or it is one of the `taken` (in lower case), each gets the first digits of its identity; where that is not enough, more
/// of its key.
pub(super) fn make_unique(names: &mut [(String, Key)], taken: &HashSet<String>) {
    let mut times = vec![0; names.len()];
    let plain: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
    loop {
        let mut holders: HashMap<String, (&Key, bool)> = HashMap::with_capacity(names.len());
        for (name, key) in names.iter() {
            let (first, shared) = holders.entry(name.to_lowercase()).or_insert((key, false));
            *shared |= *first != key;
        }
        let again: Vec<usize> = (0..names.len())
            .filter(|i| {
                let name = names[*i].0.to_lowercase();
                taken.contains(&name) || holders.get(&name).is_some_and(|(_, shared)| *shared)
            })
            .collect();
        if again.is_empty() {
            return;
        }
        for i in again {
            times[i] += 1;
            names[i].0 = names[i].1.distinguish(&plain[i], times[i]);
        }
    }
}

//! All layers as one sweep file, each value with its origin; and the same, flat, for the manifest. Secrets in neither.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::HIDDEN;
use super::kept::hide_addresses;
use super::tree::{Entry, Kind, Node, join, plain};
use super::{Settings, is_secret_entry};
use crate::safe::{holds_secret, is_secret_header};

/// What is measured stands before how.
const FIRST: [&str; 10] =
    ["preset", "serve", "env", "bench", "experiments", "exclude", "include", "rules", "link", "baseline"];

/// The settings as a sweep file that loads to the same sweep; origins as comments.
pub fn show(settings: &Settings) -> String {
    let mut page = Page { lines: Vec::new() };
    let mut resolved = settings.resolved.clone();
    hide_addresses(&mut resolved);
    let mut entries: Vec<(&String, &Entry)> = resolved.entries().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()));
    let mut after_block = false;
    for (key, entry) in entries {
        let block = matches!(&entry.value.kind, Kind::Map(map) if !map.is_empty())
            || matches!(&entry.value.kind, Kind::List(items) if items.iter().any(|item| item.entries().is_some()));
        if block || after_block {
            page.lines.push((String::new(), None));
        }
        after_block = block;
        match (key.as_str(), &entry.value.kind) {
            ("preset", _) => {
                let name = entry.value.scalar().unwrap_or_default();
                let origin = entry.value.origin.short();
                let what =
                    if name == "none" { origin } else { format!("all of the preset {name} is below ({origin})") };
                page.lines.push(("preset: none".to_owned(), Some(what)));
            }
            ("env", Kind::Map(map)) => page.variables(map),
            ("serve" | "bench", Kind::Map(map)) => page.axes(key, map, 0),
            _ => page.entry(key, &entry.value, 0, false),
        }
    }
    page.text()
}

/// The settings of a load as the section `bench` of a sweep file, which `load FILE` takes; origins as comments. The values of secret
/// headers, and addresses that have a user or a password, are left out.
pub fn show_load(tree: &Node) -> String {
    let mut page = Page { lines: Vec::new() };
    let mut map = tree.get("bench").and_then(Node::entries).cloned().unwrap_or_default();
    if let Some(Kind::List(items)) = map.get_mut("header").map(|entry| &mut entry.value.kind) {
        for item in items {
            let text = item.scalar().unwrap_or_default();
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            if is_secret_header(name, value) || holds_secret(&text) {
                item.kind = Kind::Text(format!("{name}={HIDDEN}"));
            }
        }
    }
    // Whatever stands before the host, however short: what is short is not looked for in what is printed.
    for key in ["pushgateway", "base-url"] {
        if let Some(address) = map.get_mut(key).map(|entry| &mut entry.value)
            && address.scalar().is_some_and(|text| text.contains('@'))
        {
            address.kind = Kind::Text(HIDDEN.to_owned());
        }
    }
    page.axes("bench", &map, 0);
    page.text()
}

/// Lines with their origins.
struct Page {
    lines: Vec<(String, Option<String>)>,
}

impl Page {
    /// Comments stand below each other, but for lines that are longer than most.
    fn text(&self) -> String {
        let lengths = self.lines.iter().filter(|(_, origin)| origin.is_some()).map(|(line, _)| line.chars().count());
        let column = lengths.filter(|length| *length <= 60).max().unwrap_or(0);
        let mut text = String::new();
        for (line, origin) in &self.lines {
            let _ = match origin {
                Some(origin) => {
                    let gap = column.saturating_sub(line.chars().count());
                    writeln!(text, "{line}{:gap$}  # {}", "", origin.escape_debug())
                }
                None => writeln!(text, "{line}"),
            };
        }
        text
    }

    fn line(&mut self, indent: usize, text: &str, origin: Option<&Node>) {
        let origin = origin.map(|node| node.origin.short());
        self.lines.push((format!("{:indent$}{text}", ""), origin));
    }

    /// A section: each axis on one line.
    fn axes(&mut self, key: &str, map: &IndexMap<String, Entry>, indent: usize) {
        if map.is_empty() {
            return self.line(indent, &format!("{key}: {{}}"), None);
        }
        self.line(indent, &format!("{key}:"), None);
        for (key, entry) in map {
            let value = if entry.value.kind == Kind::Null { "none".to_owned() } else { flow(&entry.value) };
            self.line(indent + 2, &format!("{}: {value}", word(key)), Some(&entry.value));
        }
    }

    /// Variables; of secrets only the names.
    fn variables(&mut self, map: &IndexMap<String, Entry>) {
        let open: IndexMap<String, Entry> = map
            .iter()
            .filter(|(key, entry)| !is_secret_entry(key, &entry.value))
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect();
        self.axes("env", &open, 0);
        for (key, entry) in map.iter().filter(|(key, entry)| is_secret_entry(key, &entry.value)) {
            self.line(2, &format!("# {}: {HIDDEN}", word(key)), Some(&entry.value));
        }
    }

    fn entry(&mut self, key: &str, node: &Node, indent: usize, axes: bool) {
        match &node.kind {
            Kind::Map(map) if axes && ["serve", "env", "bench"].contains(&key) => self.axes(key, map, indent),
            Kind::Map(map) if !map.is_empty() && key != "when" => {
                self.line(indent, &format!("{}:", word(key)), None);
                for (key, entry) in map {
                    self.entry(key, &entry.value, indent + 2, false);
                }
            }
            Kind::List(items) if items.iter().any(|item| item.entries().is_some()) => {
                self.line(indent, &format!("{}:", word(key)), None);
                for item in items {
                    self.item(item, indent + 2);
                }
            }
            _ => self.line(indent, &format!("{}: {}", word(key), flow(node)), Some(node)),
        }
    }

    /// One element of `experiments`, `exclude` and the like.
    fn item(&mut self, item: &Node, indent: usize) {
        let start = self.lines.len();
        match item.entries() {
            Some(map) if !map.is_empty() => {
                for (key, entry) in map {
                    self.entry(key, &entry.value, indent + 2, true);
                }
            }
            Some(_) | None => self.line(indent + 2, &flow(item), Some(item)),
        }
        if let Some((line, _)) = self.lines.get_mut(start) {
            line.replace_range(indent..indent + 1, "-");
        }
    }
}

/// A value on one line.
fn flow(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Bool(on) => on.to_string(),
        Kind::Number(text) => text.clone(),
        Kind::Text(text) => word(text),
        Kind::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Kind::Map(map) => {
            let entry = |(key, entry): (&String, &Entry)| format!("{}: {}", word(key), flow(&entry.value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A text, in quotes where YAML would read it as something else.
fn word(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | '+');
    let separated = |part: &str| !part.is_empty() && part.chars().all(harmless);
    let simple = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.'))
        && text.split([' ', ':']).all(separated)
        && text != "..."
        && matches!(plain(text), Kind::Text(_));
    if simple {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                write!(quoted, "\\u{:04x}", u32::from(c))
            }
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

/// The tree as a flat list for the manifest: key path -> value and origin. What only a simulation needs is left out of
/// real runs.
pub(super) fn record(tree: &Node, simulated: bool) -> IndexMap<String, (Json, String)> {
    let mut record = IndexMap::new();
    for (key, entry) in tree.entries().into_iter().flatten().filter(|(key, _)| simulated || *key != "sim") {
        flatten(key, key, &entry.value, &mut record);
    }
    record
}

fn flatten(path: &str, key: &str, node: &Node, record: &mut IndexMap<String, (Json, String)>) {
    match &node.kind {
        Kind::Map(map) if ["serve", "bench", "env"].contains(&key) => {
            for (name, entry) in map {
                let hidden = key == "env" && is_secret_entry(name, &entry.value);
                let value = if hidden { HIDDEN.into() } else { json(&entry.value) };
                record.insert(join(path, name), (value, entry.value.origin.short()));
            }
        }
        Kind::Map(map) if !map.is_empty() => {
            for (key, entry) in map {
                flatten(&join(path, key), key, &entry.value, record);
            }
        }
        Kind::List(items) if items.iter().any(|item| item.entries().is_some()) => {
            for (at, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{}]", at + 1), "", item, record);
            }
        }
        _ => drop(record.insert(path.to_owned(), (json(node), node.origin.short()))),
    }
}

/// A value as JSON.
pub(super) fn json(node: &Node) -> Json {
    match &node.kind {
        Kind::Null => Json::Null,
        Kind::Bool(on) => Json::Bool(*on),
        Kind::Number(text) => text.parse::<serde_json::Number>().map_or_else(|_| text.as_str().into(), Json::Number),
        Kind::Text(text) => text.as_str().into(),
        Kind::List(items) => Json::Array(items.iter().map(json).collect()),
        Kind::Map(map) => Json::Object(map.iter().map(|(key, entry)| (key.clone(), json(&entry.value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::cli::RunArgs;
    use crate::config::{Environment, Preset};

    fn resolve(args: &RunArgs, vars: &[(&str, &str)], dir: &Path) -> Settings {
        Settings::resolve(args, &Environment::of(vars, dir), Preset::Full).unwrap()
    }

    #[test]
    fn passwords_in_addresses_are_not_shown_however_short() {
        let args = RunArgs {
            pushgateway: Some("http://u:pw7@gw:9091".into()),
            mlflow: Some(Some("http://u:pw7@ml:5000".into())),
            notify: vec!["http://h/pw7".into()],
            ..RunArgs::default()
        };
        let text = show(&resolve(&args, &[], Path::new("/")));
        assert!(!text.contains("pw7") && text.contains("http://ml:5000") && text.contains("http://h/"), "{text}");
        let load = "bench: {pushgateway: 'http://u:pw7@gw:9091', base-url: 'http://u:pw7@h:8000'}\n";
        let place = |line, column| super::super::Origin::File { path: "f.yaml".into(), line, column };
        let load = crate::config::tree::parse_yaml(load, &place).unwrap().unwrap();
        assert!(!show_load(&load).contains("pw7"));
    }

    /// Loads what was shown; everything that a run depends on must be as before.
    fn assert_loads_again(settings: &Settings, dir: &Path) {
        let text = show(settings);
        std::fs::write(dir.join("shown.yaml"), &text).unwrap();
        let args = RunArgs { files: vec!["shown.yaml".into()], ..RunArgs::default() };
        let again = resolve(&args, &[], dir);
        let bare = |settings: &Settings| {
            let mut sweep = settings.sweep.clone();
            sweep.secret_env.clear();
            let rules = sweep.exclude.iter_mut().chain(sweep.groups.iter_mut().flat_map(|group| &mut group.exclude));
            // Without a reason of its own a rule is named by its place, which is another one now.
            rules.filter(|rule| rule.reason.starts_with("left out by")).for_each(|rule| rule.reason.clear());
            format!(
                "{sweep:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                settings.results_dir,
                [settings.start_limit.limit, settings.timeout_benchmark, settings.grace, settings.cooldown],
                (settings.port, settings.stall),
                settings.retry,
                settings.skip_failure_reasons,
                settings.setvars,
                settings.warmup_prompts,
            )
        };
        assert_eq!(bare(&again), bare(settings), "{text}");
    }

    #[test]
    fn a_whole_sweep_is_shown_with_its_origins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("sweep.yaml"),
            "preset: sanity\nserve:\n  max-num-seqs: [64, pow2:128..256]\n  speculative-config: {method: ngram, n: 0.50}\n\
             \x20 served-model-name: 'a: b # c'\nexperiments:\n  - name: first\n    serve: {dtype: float16, tp: 4}\n\
             \x20   exclude: [{when: {max-num-seqs: '> 64'}}]\n  - {}\nslo: {ttft: {p99: 200}}\n\
             retry: {server_died: {attempts: 2, back_off: 3s}}\nlink: [{max_num_seqs: max-concurrency}]\n",
        )
        .unwrap();
        let args = RunArgs {
            files: vec!["sweep.yaml".into()],
            tp: vec!["1,2".into()],
            env: vec!["HF_TOKEN=hf_planted".into(), "A=b c".into()],
            serve_arg: vec!["no:block-size".into(), "seed=-1".into(), "x=007".into()],
            ..RunArgs::default()
        };
        let settings = resolve(&args, &[("VLLM_BENCH_RUNS", "3")], dir.path());
        let text = show(&settings);
        assert!(!text.contains("hf_planted"), "{text}");
        insta::assert_snapshot!(text);
        assert_loads_again(&settings, dir.path());
    }

    #[test]
    fn presets_load_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_loads_again(&resolve(&RunArgs::default(), &[], dir.path()), dir.path());
        let sanity = RunArgs { preset: Some("sanity".into()), retry: vec!["none".into()], ..RunArgs::default() };
        assert_loads_again(&resolve(&sanity, &[], dir.path()), dir.path());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_loads_again(texts in proptest::collection::vec("[^\\pC]{0,12}|[a-e0-9:#&*!|>%@'\"{}\\[\\], .~-]{0,8}", 1..6)) {
            let dir = tempfile::tempdir().unwrap();
            let mut args = RunArgs { preset: Some("none".into()), models: vec!["m".into()], ..RunArgs::default() };
            args.serve_arg = texts.iter().enumerate().map(|(at, text)| format!("x{at}={text}")).collect();
            let environment = Environment::of(&[], dir.path());
            match Settings::resolve(&args, &environment, Preset::Full) {
                Ok(settings) => assert_loads_again(&settings, dir.path()),
                // What is refused is so by its own text, whatever stands beside it.
                Err(error) => {
                    let refused = |text: &String| {
                        let serve_arg = vec![format!("x0={text}")];
                        Settings::resolve(&RunArgs { serve_arg, ..args.clone() }, &environment, Preset::Full).is_err()
                    };
                    prop_assert!(texts.iter().any(refused), "{error}: {texts:?}");
                }
            }
        }
    }
}

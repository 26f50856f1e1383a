//! The sweep: groups, conditions, rules, links, the baseline.

use std::collections::{BTreeMap, HashSet};

use super::axes::{self, Keys};
use super::words;
use crate::config::language::condition::{condition, keys};
use crate::config::language::value::is_none;
use crate::config::language::{Document, Group as WrittenGroup, Rule as WrittenRule};
use crate::config::tree::{At, Diagnostic, Kind, Node, Raw, join};
use crate::config::vllm_flags;
use crate::config::{Error, Origin, Places, is_secret_entry};
use crate::model::{Engine, normalize};
use crate::nearest::nearest;
use crate::plan::{
    Axis, Baseline, Condition, Exclusion, Group, Link, Order, PROMPTS_PER_CONCURRENCY, Repeats, Rule, Section,
    Selection, Sweep, Value,
};

/// A sweep and what belongs to it but is not part of it.
#[derive(Debug)]
pub struct Resolved {
    /// The sweep.
    pub sweep: Sweep,
    /// Secret variables with their values.
    pub secrets: Vec<(String, String)>,
    /// Where everything stands.
    pub places: Places,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Combinations are looked at one by one: more would take minutes and all memory.
const MOST_COMBINATIONS: u64 = 10_000_000;

const SECTIONS: [(Section, &str); 3] = [(Section::Serve, "serve"), (Section::Env, "env"), (Section::Bench, "bench")];

/// Resolves the document. `simulation`: variables that every server of a simulated run gets.
///
/// # Errors
/// The first thing that cannot be used, with its place.
pub fn resolve(document: &Document, engine: Engine, simulation: &[(String, String)]) -> Result<Resolved, Error> {
    let mut resolver =
        Resolver { places: Places::default(), warnings: Vec::new(), secrets: BTreeMap::new(), simulation };
    let mut sweep = Sweep::new(engine);
    sweep.groups = resolver.groups(document)?;
    sweep.exclude = resolver.rules(document.exclude.as_deref().unwrap_or_default(), "exclude")?;
    sweep.include = resolver.rules(document.include.as_deref().unwrap_or_default(), "include")?;
    resolver.check_keys(document, &sweep)?;
    sweep.rules_off = rules_off(document.rules.as_ref(), &sweep)?;
    sweep.links = links(document.link.as_ref(), &sweep)?;
    sweep.baseline = baseline(document.baseline.as_ref(), &sweep)?;
    sweep.repeats = repeats(document)?;
    let seed = words::one(document.order_seed.as_ref(), "order-seed", "a whole number", words::whole::<u64>)?;
    sweep.order = words::choice(
        document.order.as_ref(),
        "order",
        &[
            // Several starts of each are compared with each other: then a drift of the machine must hit all alike.
            ("auto", if sweep.repeats.starts > 1 { Order::Interleaved } else { Order::Grouped }),
            ("grouped", Order::Grouped),
            ("interleaved", Order::Interleaved),
            ("random", Order::Random(seed)),
        ],
    )?;
    if let (true, Order::Grouped, Some(raw)) = (sweep.repeats.auto, sweep.order, &document.order) {
        let problem = "starts are added in turn (`starts: auto`), which is no grouped order";
        let hint = "leave `order` out, or write `interleaved` or `random`";
        return Err(Diagnostic::new(&raw.node.origin, &raw.path, problem).hint(hint).into());
    }
    sweep.reuse = words::one(document.reuse.as_ref(), "reuse", "`true` or `false`", words::switch)?;
    sweep.devices = words::optional(document.devices.as_ref(), "a whole number of at least 1", words::positive::<u32>)?;
    let combinations = Selection::new(&sweep).size();
    if combinations > MOST_COMBINATIONS {
        let problem = format!(
            "the axes make {combinations} combinations; a sweep may have at most {MOST_COMBINATIONS} before its conditions"
        );
        let hint =
            "leave out values or axes, or split the sweep with `experiments`: every combination is a measurement";
        return Err(Diagnostic::new(&top(document), "", &problem).hint(hint).into());
    }
    sweep.secret_env = resolver.secrets.keys().cloned().collect();
    Ok(Resolved {
        sweep,
        secrets: resolver.secrets.into_iter().collect(),
        places: resolver.places,
        warnings: resolver.warnings,
    })
}

struct Resolver<'s> {
    places: Places,
    warnings: Vec<String>,
    secrets: BTreeMap<String, String>,
    simulation: &'s [(String, String)],
}

fn node(raw: Option<&Raw>) -> Option<&Node> {
    raw.map(|raw| &raw.node)
}

impl Resolver<'_> {
    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    fn groups(&mut self, document: &Document) -> Result<Vec<Group>, Error> {
        let base = [
            axes::keys(node(document.serve.as_ref()), "serve")?,
            axes::keys(node(document.env.as_ref()), "env")?,
            axes::keys(node(document.bench.as_ref()), "bench")?,
        ];
        let Some(written) = &document.experiments else {
            let nothing = At { value: WrittenGroup::default(), origin: top(document), path: String::new() };
            return Ok(vec![self.group(&nothing, &base)?]);
        };
        if written.value.is_empty() {
            let problem = "the list is empty: nothing would be measured";
            let trouble = Diagnostic::new(&written.origin, &written.path, problem);
            return Err(trouble.hint("leave `experiments` out, or add a group: `- {name: a, serve: {…}}`").into());
        }
        written.value.iter().map(|group| self.group(group, &base)).collect()
    }

    fn group(&mut self, written: &At<WrittenGroup>, base: &[Keys; 3]) -> Result<Group, Error> {
        let mut group =
            Group { name: words::optional(written.value.name.as_ref(), "a name", group_name)?, ..Group::default() };
        let [serve, env, bench] = base.clone();
        let own = |raw: Option<&Raw>, name: &str| axes::keys(node(raw), &join(&written.path, name));
        let serve = axes::over(serve, own(written.value.serve.as_ref(), "serve")?, Section::Serve);
        let bench = axes::over(bench, own(written.value.bench.as_ref(), "bench")?, Section::Bench);
        let own_env = own(written.value.env.as_ref(), "env")?;
        if let Some((name, (entry, path))) =
            own_env.iter().find(|(name, (entry, _))| is_secret_entry(name, &entry.value))
        {
            let problem = format!("the secret `{name}` cannot differ between groups");
            return Err(Diagnostic::new(&entry.key, path, problem).hint("move it to `env` of the top level").into());
        }
        let env = axes::over(env, own_env, Section::Env);
        if !serve.contains_key("model") {
            let trouble = Diagnostic::new(
                &written.origin,
                &join(&written.path, "serve"),
                "the sweep has no model: the key `model` is missing",
            );
            let near = nearest("model", serve.keys().map(String::as_str));
            return Err(trouble
                .hint(match near {
                    Some(near) => format!("did you mean `model` in place of `{near}`?"),
                    None => "add `model: ORG/NAME` under `serve`, or name models with `--models`".to_owned(),
                })
                .into());
        }
        for (own_keys, section) in [(&serve, Section::Serve), (&env, Section::Env), (&bench, Section::Bench)] {
            let axes = self.section(own_keys, section)?;
            match section {
                Section::Serve => group.serve = axes,
                Section::Env => group.env = axes,
                Section::Bench => group.bench = axes,
            }
        }
        per_concurrency(&bench, &group)?;
        if let Some(rules) = &written.value.exclude {
            group.exclude = self.rules(rules, &join(&written.path, "exclude"))?;
        }
        Ok(group)
    }

    fn section(&mut self, keys: &Keys, section: Section) -> Result<Vec<Axis>, Error> {
        let mut found = Vec::new();
        for (mut axis, values) in axes::read(keys, section)? {
            let path = keys.get(&axis.key).map(|(_, path)| path.as_str()).unwrap_or_default();
            let secret = section == Section::Env
                && keys.get(&axis.key).is_some_and(|(entry, _)| is_secret_entry(&axis.key, &entry.value));
            if secret {
                self.secret(&axis, &values, path)?;
                continue;
            }
            if section == Section::Env {
                axis.values = axis.values.into_iter().map(variable).collect();
            }
            let mut kept: Vec<Value> = Vec::new();
            let mut seen = HashSet::new();
            for (value, placed) in axis.values.iter().zip(&values) {
                if !seen.insert(value.canonical()) {
                    let shown = value.shown();
                    let place = if placed.origin.is_document() {
                        format!("{}: {path}", placed.origin)
                    } else {
                        placed.origin.to_string()
                    };
                    self.warn(format!("{place}: the value `{shown}` is given twice; it is planned once"));
                    continue;
                }
                self.places.note_value(section, &axis.key, value, &placed.origin);
                kept.push(value.clone());
            }
            axis.values = kept;
            found.push(axis);
        }
        if section == Section::Env {
            for (name, value) in self.simulation {
                found.retain(|axis| axis.key != *name);
                found.push(Axis { key: name.clone(), values: vec![Value::Text(value.clone())] });
            }
        }
        Ok(found)
    }

    /// A secret travels in the environment of the process: it cannot be an axis, and it is never written.
    fn secret(
        &mut self,
        axis: &Axis,
        values: &[crate::config::language::value::Placed],
        path: &str,
    ) -> Result<(), Error> {
        match axis.values.as_slice() {
            [Value::Omitted] => Ok(()),
            [one] => {
                self.secrets.insert(axis.key.clone(), one.shown());
                Ok(())
            }
            _ => {
                let origin = values.first().map(|value| value.origin.clone());
                let problem = "a secret has one value: it cannot be an axis of the sweep".to_owned();
                let trouble = Diagnostic { origin, path: path.to_owned(), problem, hints: Vec::new() };
                Err(trouble.hint("give it one value, or set it in the environment of vllm-bench").into())
            }
        }
    }

    fn rules(&mut self, written: &[At<WrittenRule>], path: &str) -> Result<Vec<Exclusion>, Error> {
        let mut rules = Vec::new();
        for (at, rule) in written.iter().enumerate() {
            let name = words::optional(rule.value.name.as_ref(), "a name", group_name)?;
            let name = name.unwrap_or_else(|| format!("{path}[{}]", at + 1));
            let when = condition(&rule.value.when)?;
            let reason = words::optional(rule.value.reason.as_ref(), "a text", words::non_empty)?;
            let explanation = words::optional(rule.value.explanation.as_ref(), "a text", words::non_empty)?;
            let place = match &rule.origin {
                Origin::File { path, line, .. } => format!("{path}:{line}"),
                other => other.short(),
            };
            let reason = reason.unwrap_or_else(|| format!("left out by {place}"));
            self.places.note_rule(&name, &rule.origin);
            rules.push(Exclusion { name, when, reason, explanation });
        }
        Ok(rules)
    }

    /// Conditions over keys that no group has: most likely misspelled. Those of presets are not the user's.
    fn check_keys(&mut self, document: &Document, sweep: &Sweep) -> Result<(), Error> {
        let mut known: Vec<(Section, String)> = Vec::new();
        for group in &sweep.groups {
            for (section, axes) in
                [(Section::Serve, &group.serve), (Section::Env, &group.env), (Section::Bench, &group.bench)]
            {
                known.extend(axes.iter().map(|axis| (section, axis.key.clone())));
            }
        }
        let lists = [(document.exclude.as_deref(), &sweep.exclude), (document.include.as_deref(), &sweep.include)];
        let mut rules: Vec<(&At<WrittenRule>, &Condition)> = Vec::new();
        for (written, exclusions) in lists {
            rules.extend(written.unwrap_or_default().iter().zip(exclusions.iter().map(|rule| &rule.when)));
        }
        let groups = document.experiments.as_ref().map_or(&[][..], |groups| &groups.value);
        for (written, group) in groups.iter().zip(&sweep.groups) {
            let own = written.value.exclude.as_deref().unwrap_or_default();
            rules.extend(own.iter().zip(group.exclude.iter().map(|rule| &rule.when)));
        }
        let mut warnings = Vec::new();
        let mut wrong = None;
        for (written, when) in rules.into_iter().filter(|(written, _)| matches!(written.origin, Origin::File { .. })) {
            for (term, key) in keys(when).filter(|(_, key)| !is_known(key, &known)) {
                let entry = written.value.when.node.entries().and_then(|map| map.get(term));
                let place = entry.map_or(&written.origin, |e| if term == key { &e.key } else { &e.value.origin });
                let near = nearest(
                    key.rsplit_once('.').map_or(key, |(_, name)| name),
                    known.iter().map(|(_, key)| key.as_str()),
                );
                let name = key.rsplit_once('.').map_or(key, |(_, name)| name);
                if let Some(near) = near.filter(|_| !vllm_flags::is_known(name)) {
                    let problem = format!("`{key}` is set nowhere in the sweep, and is no flag of vLLM");
                    let trouble = Diagnostic::new(place, &written.value.when.path, problem);
                    wrong.get_or_insert(trouble.hint(format!("did you mean `{near}`?")));
                }
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                warnings.push(format!("{place}: {}: nothing in the sweep sets `{key}`{near}", written.value.when.path));
            }
        }
        if let Some(trouble) = wrong {
            return Err(trouble.into());
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        Ok(())
    }
}

/// Where the document begins, for what is missing in it: the last layer that says something of the server.
fn top(document: &Document) -> Origin {
    let nodes = [node(document.serve.as_ref()), node(document.bench.as_ref()), node(document.preset.as_ref())];
    let first = nodes.into_iter().flatten().next().map(|node| node.origin.clone());
    first.unwrap_or(Origin::Preset { name: crate::config::DEFAULTS.to_owned(), line: 1 })
}

fn group_name(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// A variable is always a text.
fn variable(value: Value) -> Value {
    match value {
        Value::Switch(on) => Value::Text(on.to_string()),
        Value::List(words) => Value::Text(words.join(" ")),
        other @ (Value::Omitted | Value::Text(_)) => other,
    }
}

fn is_known(key: &str, known: &[(Section, String)]) -> bool {
    let has = |section: Option<Section>, name: &str| {
        known.iter().any(|(of, key)| key == name && section.is_none_or(|section| section == *of))
    };
    let prefixed = SECTIONS
        .iter()
        .find_map(|(section, word)| Some(has(Some(*section), key.strip_prefix(word)?.strip_prefix('.')?)));
    has(None, key) || prefixed.unwrap_or(false)
}

fn per_concurrency(keys: &Keys, group: &Group) -> Result<(), Error> {
    let Some((entry, path)) = keys.get(PROMPTS_PER_CONCURRENCY) else { return Ok(()) };
    if group.bench.iter().any(|axis| axis.key == "max-concurrency") {
        return Ok(());
    }
    let problem = "there is no `max-concurrency` to multiply with";
    Err(Diagnostic::new(&entry.key, path, problem)
        .hint("add `max-concurrency` under `bench`, or use `num-prompts`")
        .into())
}

fn rules_off(raw: Option<&Raw>, sweep: &Sweep) -> Result<Vec<String>, Error> {
    let mut off = Vec::new();
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(off) };
    let own = sweep.exclude.iter().chain(&sweep.include).chain(sweep.groups.iter().flat_map(|group| &group.exclude));
    let mut known: Vec<&str> = own.map(|rule| rule.name.as_str()).collect();
    for rule in Rule::ALL {
        known.push(rule.name());
    }
    for (name, (entry, path)) in axes::keys(Some(&raw.node), &raw.path)? {
        if !known.contains(&name.as_str()) {
            let trouble = Diagnostic::new(&entry.key, &raw.path, format!("there is no rule `{name}`"));
            let trouble = match nearest(&name, known.iter().copied()) {
                Some(near) => trouble.hint(format!("did you mean `{near}`?")),
                None => trouble,
            };
            return Err(trouble.hint(format!("the rules are: {}", known.join(", "))).into());
        }
        let raw = Raw { node: entry.value, path };
        if !words::one(Some(&raw), &name, "`true` or `false`", words::switch)? {
            off.push(name);
        }
    }
    Ok(off)
}

fn links(raw: Option<&Raw>, sweep: &Sweep) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    let Some(raw) = raw.filter(|raw| raw.node.kind != Kind::Null) else { return Ok(links) };
    let maps: Vec<(&Node, String)> = match &raw.node.kind {
        Kind::List(items) => {
            items.iter().enumerate().map(|(at, item)| (item, format!("{}[{}]", raw.path, at + 1))).collect()
        }
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => {
            vec![(&raw.node, raw.path.clone())]
        }
    };
    let sets = |axes: fn(&Group) -> &Vec<Axis>, key: &str| {
        sweep.groups.iter().any(|group| axes(group).iter().any(|axis| axis.key == key))
    };
    for (map, path) in maps {
        for (serve, (entry, path)) in axes::keys(Some(map), &path)? {
            let expected = "a flag of `vllm bench serve`, such as `max-concurrency`";
            let bench = entry.value.scalar().filter(|text| !text.trim().is_empty());
            let Some(bench) = bench else { return Err(Error::wrong(&entry.value, &path, expected, None)) };
            let link = Link { serve: normalize(&serve), bench: normalize(bench.trim()) };
            if !sets(|group| &group.serve, &link.serve) && !sets(|group| &group.bench, &link.bench) {
                let problem = format!("neither `serve.{}` nor `bench.{}` has a value", link.serve, link.bench);
                return Err(Diagnostic::new(&entry.key, &path, problem)
                    .hint("give one of the two its values: the other takes them over")
                    .into());
            }
            links.push(link);
        }
    }
    Ok(links)
}

fn baseline(raw: Option<&Raw>, sweep: &Sweep) -> Result<Option<Baseline>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    match &raw.node.kind {
        Kind::Null => Ok(None),
        Kind::Text(text) if is_none(text) => Ok(None),
        Kind::Text(text) if text.replace('_', "-") == "vllm-defaults" => Ok(Some(Baseline::VllmDefaults)),
        Kind::Map(_) => {
            let keys = axes::keys(Some(&raw.node), &raw.path)?;
            let axes = axes::read(&keys, Section::Serve)?.into_iter().map(|(axis, _)| axis).collect();
            Ok(Some(Baseline::Values(axes)))
        }
        Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) => {
            let name = raw.node.scalar().unwrap_or_default();
            let names: Vec<&str> = sweep.groups.iter().filter_map(|group| group.name.as_deref()).collect();
            if names.contains(&name.trim()) {
                return Ok(Some(Baseline::Named(name.trim().to_owned())));
            }
            let trouble =
                Diagnostic::new(&raw.node.origin, &raw.path, format!("no group is named `{}`", name.escape_debug()));
            let near = nearest(&name, names.iter().copied().chain(["vllm-defaults"]));
            Err(match near {
                Some(near) => trouble.hint(format!("did you mean `{near}`?")),
                None => trouble
                    .hint("write `vllm-defaults`, the name of a group of `experiments`, or flags of `vllm serve`"),
            }
            .into())
        }
        Kind::List(_) => {
            let expected = "`vllm-defaults`, the name of a group, or flags of `vllm serve`";
            Err(Error::wrong(&raw.node, &raw.path, expected, None))
        }
    }
}

fn repeats(document: &Document) -> Result<Repeats, Error> {
    let written = document.repeats.clone().unwrap_or_default();
    let number = "a whole number from 1 to 10000";
    let few = |text: &str| words::positive::<u32>(text).filter(|number| *number <= 10_000);
    let runs = words::one(written.runs.as_ref(), "repeats.runs", number, few)?;
    let starts = |text: &str| if text == "auto" { Some(None) } else { few(text).map(Some) };
    let starts =
        words::one(written.starts.as_ref(), "repeats.starts", "a whole number from 1 to 10000, or `auto`", starts)?;
    // Fewer than three starts decide nothing.
    let most = |text: &str| few(text).filter(|number| (3..=100).contains(number));
    let max = words::one(written.max.as_ref(), "repeats.max", "a whole number from 3 to 100", most)?;
    Ok(match starts {
        Some(starts) => Repeats { runs, starts, auto: false },
        None => Repeats { runs, starts: max, auto: true },
    })
}

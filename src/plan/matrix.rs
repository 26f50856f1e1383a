//! From a sweep to its plan: which combinations are kept, which are the same, in which order they are measured.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::{IndexMap, IndexSet};

use super::name::{Key, make_unique, server_name};
use super::selection::Selection;
use super::sweep::{ENFORCE_EAGER, MODEL, PROMPTS_PER_CONCURRENCY, QUANTIZATION, Section, TENSOR_PARALLEL};
use super::{Sweep, Value, experiment_name, schedule};
use crate::model::{Axes, Experiment, Flags, Identity, Isolation, Plan, Repeat, ServerConfig, Skip, Workload};

/// So many left-out combinations are kept with their reasons; the others are counted.
const SKIPS_KEPT: usize = 1000;

/// One combination that is kept, with all its settings.
#[derive(Debug, Clone)]
pub struct Setting {
    /// What names and tables show.
    pub axes: Axes,
    /// The server.
    pub server: ServerConfig,
    /// The load.
    pub workload: Workload,
    /// Of both, in the sweep's context.
    pub identity: Identity,
    /// Of the server.
    pub server_identity: Identity,
    /// The named groups that ask for it.
    pub groups: IndexSet<String>,
    /// Whether others are compared with it.
    pub baseline: bool,
}

/// A sweep's plan, made whole: every experiment in running order.
pub fn expand(sweep: &Sweep) -> Plan {
    let selection = Selection::new(sweep);
    let (settings, skips, skipped) = settings(sweep, &selection);
    let experiments = number(schedule::arrange(sweep, settings));
    let until_decided = sweep.repeats.until_decided();
    Plan {
        identity: Identity::of_plan(&experiments, until_decided),
        experiments,
        skips,
        skipped,
        context: sweep.context.clone(),
        until_decided,
        before: None,
    }
}

/// Every kept setting once, in the order of the file, and what was left out.
fn settings(sweep: &Sweep, selection: &Selection<'_>) -> (Vec<Setting>, Vec<Skip>, usize) {
    let mut found: IndexMap<Identity, Setting> = IndexMap::new();
    let (mut skips, mut skipped) = (Vec::new(), 0);
    let mut seen_skips = HashSet::new();
    for candidate in selection.iter() {
        let setting = || selection.setting(candidate);
        match selection.judge(candidate) {
            super::Judgement::Untied => {}
            super::Judgement::Kept => {
                let setting = setting();
                let groups = setting.groups.clone();
                let known = found.entry(setting.identity.clone()).or_insert(setting);
                known.groups.extend(groups);
            }
            super::Judgement::LeftOut { rule, reason, explanation } => {
                let axes = selection.axes(candidate);
                if skips.len() >= SKIPS_KEPT {
                    skipped += 1;
                } else if seen_skips.insert(format!("{axes} {rule}")) {
                    let reason = format!("Skipping {axes} ({reason})");
                    skips.push(Skip { axes, rule, reason, explanation });
                    skipped += 1;
                }
            }
        }
    }
    let mut settings: Vec<Setting> = found.into_values().collect();
    super::baseline::mark(sweep, selection, &mut settings);
    (settings, skips, skipped)
}

/// Gives experiments their numbers and names.
fn number(mut experiments: Vec<Experiment>) -> Vec<Experiment> {
    let name = |e: &Experiment| (experiment_name(&e.axes, e.repeat, &e.identity), key(e));
    let mut names: Vec<_> = experiments.iter().map(name).collect();
    make_unique(&mut names, &HashSet::new());
    for (i, (experiment, (name, _))) in experiments.iter_mut().zip(names).enumerate() {
        (experiment.index, experiment.name) = (i + 1, name);
    }
    name_servers(&mut experiments, &[]);
    experiments
}

/// What the name of an experiment stands for.
pub(super) fn key(experiment: &Experiment) -> Key {
    Key { identity: experiment.identity.clone(), repeat: experiment.repeat }
}

/// Server configurations get names of their own; where two would share one, each gets the digits of its identity. Those of `old`
/// experiments keep theirs.
fn name_servers(experiments: &mut [Experiment], old: &[Experiment]) {
    let identity = |e: &Experiment| Identity::of_server(e.engine, &e.server, &crate::model::Context::default());
    let mut known: HashMap<Identity, String> = HashMap::new();
    for experiment in old {
        known.entry(identity(experiment)).or_insert_with(|| experiment.server_name().to_owned());
    }
    let taken: HashSet<String> = known.values().map(|name| name.to_lowercase()).collect();
    let name = |e: &Experiment| {
        let identity = identity(e);
        (server_name(&e.axes, &identity), Key { identity, repeat: Repeat::FIRST })
    };
    let mut names: Vec<_> =
        experiments.iter().map(name).filter(|(_, key)| !known.contains_key(&key.identity)).collect();
    make_unique(&mut names, &taken);
    known.extend(names.into_iter().map(|(name, key)| (key.identity, name)));
    for experiment in experiments {
        if let Some(name) = known.get(&identity(experiment)) {
            experiment.server_name.clone_from(name);
        }
    }
}

/// A plan that holds all of `old` and whatever `new` asks for beyond it. What `old` has keeps its name.
pub fn extend(old: &Plan, new: Plan) -> Plan {
    let known: HashSet<_> = old.experiments.iter().map(key).collect();
    let taken: HashSet<String> = old.experiments.iter().map(|e| e.name.to_lowercase()).collect();
    let mut fresh: Vec<Experiment> = new.experiments.into_iter().filter(|e| !known.contains(&key(e))).collect();
    let mut names: Vec<_> = fresh.iter().map(|e| (e.name.clone(), key(e))).collect();
    make_unique(&mut names, &taken);
    name_servers(&mut fresh, &old.experiments);
    let mut experiments = old.experiments.clone();
    experiments.extend(fresh.into_iter().zip(names).map(|(experiment, (name, _))| Experiment { name, ..experiment }));
    for (i, experiment) in experiments.iter_mut().enumerate() {
        experiment.index = i + 1;
    }
    Plan { identity: Identity::of_plan(&experiments, new.until_decided), experiments, ..new }
}

impl Selection<'_> {
    /// Everything about one combination.
    pub(super) fn setting(&self, candidate: super::Candidate) -> Setting {
        let (space, number) = self.look(candidate);
        let mut flags = Flags::new();
        let mut bench = Flags::new();
        let mut env = BTreeMap::new();
        for (i, slot) in space.slots.iter().enumerate() {
            let value = space.value(number, i);
            match slot.section {
                Section::Serve if slot.key == MODEL => {}
                Section::Env => {
                    if !matches!(value, Value::Omitted) {
                        env.insert(slot.key.clone(), variable(value));
                    }
                }
                section => {
                    let target = if section == Section::Serve { &mut flags } else { &mut bench };
                    if let Some((name, value)) = value.flag(&slot.key, section) {
                        target.set(&name, value);
                    }
                }
            }
        }
        derive_prompts(&mut bench);
        super::work::spell_out(&mut bench, |name| {
            space.slots.iter().any(|slot| slot.section == Section::Bench && slot.key == name)
        });
        let axes = self.axes(candidate);
        let server = ServerConfig { model: axes.model.clone(), flags, env, secret_env: self.sweep.secret_env.clone() };
        let workload = Workload { flags: bench, client: self.sweep.client };
        let (engine, context) = (self.sweep.engine, &self.sweep.context);
        Setting {
            identity: Identity::of_experiment(engine, &server, &workload, context),
            server_identity: Identity::of_server(engine, &server, context),
            axes,
            server,
            workload,
            groups: space.name.iter().cloned().collect(),
            baseline: false,
        }
    }

    /// What names and tables show of one combination.
    pub fn axes(&self, candidate: super::Candidate) -> Axes {
        let (space, number) = self.look(candidate);
        let serve = |key: &str| space.value_of(number, Section::Serve, key);
        let quantization = match serve(QUANTIZATION) {
            Value::Omitted => None,
            value => Some(value.shown()),
        };
        let shown = |sections: &[Section]| {
            let keys = self.varying.iter().filter(|(section, _)| sections.contains(section));
            keys.map(|(section, key)| {
                let label = if *section == Section::Env { format!("env.{key}") } else { key.clone() };
                (label, space.value_of(number, *section, key).shown())
            })
            .collect()
        };
        Axes {
            model: serve(MODEL).shown(),
            tensor_parallel_size: serve(TENSOR_PARALLEL).shown().parse().unwrap_or(1),
            quantization,
            enforce_eager: matches!(serve(ENFORCE_EAGER), Value::Switch(true)),
            server: shown(&[Section::Serve, Section::Env]),
            workload: shown(&[Section::Bench]),
        }
    }
}

fn variable(value: &Value) -> String {
    match value {
        Value::Omitted => String::new(),
        Value::Switch(on) => on.to_string(),
        Value::Text(text) => text.clone(),
        Value::List(words) => words.join(","),
    }
}

/// `num-prompts-per-concurrency` is ours: vLLM gets the product.
fn derive_prompts(bench: &mut Flags) {
    let number = |flags: &Flags, key: &str| flags.get_text(key).and_then(|text| text.parse::<u64>().ok());
    let factor = number(bench, PROMPTS_PER_CONCURRENCY);
    if let (Some(factor), Some(concurrency)) = (factor, number(bench, "max-concurrency")) {
        bench.text("num-prompts", factor.saturating_mul(concurrency));
    }
    bench.remove(PROMPTS_PER_CONCURRENCY);
}

/// What keeps the prefix cache out of a measurement that shares its server start with others.
pub(super) fn isolation(setting: &Setting, run: u32, shared: bool) -> Isolation {
    let flags = &setting.server.flags;
    let seeded = matches!(
        setting.workload.flags.get_text("dataset-name"),
        None | Some("random" | "random-mm" | "random-rerank" | "prefix_repetition")
    );
    if !shared {
        Isolation::FreshServer
    } else if flags.contains("no-enable-prefix-caching") {
        Isolation::CacheOff
    } else if setting.server.env.get("VLLM_SERVER_DEV_MODE").is_some_and(|value| value == "1") {
        Isolation::Reset
    } else if seeded && !setting.workload.flags.contains("seed") {
        Isolation::Seed(Identity::of_workload(&setting.workload).number(run))
    } else {
        Isolation::None
    }
}

/// An experiment of a setting; its number and names come later.
pub(super) fn experiment(sweep: &Sweep, setting: &Setting, repeat: Repeat, shared: bool) -> Experiment {
    Experiment {
        index: 0,
        name: String::new(),
        identity: setting.identity.clone(),
        axes: setting.axes.clone(),
        engine: sweep.engine,
        server: setting.server.clone(),
        workload: setting.workload.clone(),
        server_name: String::new(),
        repeat,
        isolation: isolation(setting, repeat.run, shared),
        groups: setting.groups.iter().cloned().collect(),
        baseline: setting.baseline,
        side: None,
        alone: false,
    }
}

//! All combinations of a sweep, one at a time: nothing is made for a combination until it is looked at, so that a
//! million of them cost a second and no memory.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::condition::Compiled;
use super::space::Space;
use super::sweep::{ENFORCE_EAGER, MODEL, QUANTIZATION, Section, TENSOR_PARALLEL};
use super::{Exclusion, Rule, Sweep, Value};

/// A sweep, ready to be walked through.
#[derive(Debug)]
pub struct Selection<'a> {
    /// What is walked through.
    pub(super) sweep: &'a Sweep,
    pub(super) spaces: Vec<Prepared>,
    /// Keys with more than one value anywhere in the sweep, but for the four that every name has.
    pub(super) varying: Vec<(Section, String)>,
}

#[derive(Debug)]
pub(super) struct Prepared {
    pub space: Space,
    exclude: Vec<(Exclusion, Compiled)>,
    include: Vec<Compiled>,
}

/// One combination: which group, and which of its combinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub(super) group: usize,
    pub(super) number: u64,
}

/// What becomes of a combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is measured.
    Kept,
    /// Linked keys differ: it is no combination at all.
    Untied,
    /// A rule leaves it out.
    LeftOut {
        /// Name of the rule.
        rule: String,
        /// Why, in a few words.
        reason: String,
        /// What stands behind it, in one sentence.
        explanation: Option<String>,
    },
}

/// How much a sweep asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Combinations before any rule, over all groups; linked keys that differ are none.
    pub combinations: u64,
    /// Combinations that are kept, over all groups: one that two groups ask for counts twice.
    pub kept: u64,
    /// Settings that differ.
    pub distinct: u64,
    /// Distinct settings times repeats.
    pub measurements: u64,
    /// Server configurations that differ.
    pub servers: u64,
    /// Server starts.
    pub starts: u64,
    /// Combinations left out, by rule.
    pub left_out: BTreeMap<String, u64>,
    /// Rules of the user that match nothing, by name.
    pub idle: Vec<String>,
}

impl<'a> Selection<'a> {
    /// Prepares a sweep. The baseline's own configurations come last.
    pub fn new(sweep: &'a Sweep) -> Self {
        let on = |e: &&Exclusion| !sweep.rules_off.contains(&e.name);
        let prepare = |mut space: Space| {
            space.exclude.retain(|(e, _)| on(&e));
            let exclude =
                sweep.exclude.iter().filter(on).map(|e| (e.clone(), Compiled::new(&e.when, &space))).collect();
            let include = sweep.include.iter().filter(on).map(|e| Compiled::new(&e.when, &space)).collect();
            Prepared { exclude, include, space }
        };
        let spaces: Vec<Prepared> = sweep.groups.iter().map(|group| prepare(Space::new(group, &sweep.links))).collect();
        let varying = varying(&spaces);
        Self { sweep, spaces, varying }
    }

    /// How many combinations there are before any condition.
    pub fn size(&self) -> u64 {
        self.spaces.iter().fold(0, |sum, prepared| sum.saturating_add(prepared.space.size))
    }

    /// All combinations in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = Candidate> + '_ {
        let numbers = |(group, prepared): (usize, &Prepared)| {
            (0..prepared.space.size).map(move |number| Candidate { group, number })
        };
        self.spaces.iter().enumerate().flat_map(numbers)
    }

    /// What becomes of one.
    pub fn judge(&self, candidate: Candidate) -> Judgement {
        let Some(prepared) = self.spaces.get(candidate.group) else { return Judgement::Untied };
        let (space, number) = (&prepared.space, candidate.number);
        if !space.links_hold(number) {
            return Judgement::Untied;
        }
        let own = space.exclude.iter().chain(&prepared.exclude);
        if let Some((rule, _)) = own.clone().find(|(_, condition)| condition.holds(space, number)) {
            let (rule, reason, explanation) = (rule.name.clone(), rule.reason.clone(), rule.explanation.clone());
            return Judgement::LeftOut { rule, reason, explanation };
        }
        if !prepared.include.is_empty() && !prepared.include.iter().any(|condition| condition.holds(space, number)) {
            let (rule, reason) = ("include".to_owned(), "not among what `include` keeps".to_owned());
            return Judgement::LeftOut { rule, reason, explanation: None };
        }
        for rule in Rule::ALL {
            if self.sweep.rules_off.iter().any(|off| off == rule.name()) {
                continue;
            }
            if let Some(reason) = rule.refuses(space, number, self.sweep) {
                return Judgement::LeftOut { rule: rule.name().to_owned(), reason, explanation: None };
            }
        }
        Judgement::Kept
    }

    /// Walks through all combinations and counts.
    pub fn count(&self) -> Counts {
        let mut counts = Counts::default();
        // One group alone has no setting twice: its axes have no value twice.
        let alone = self.spaces.len() == 1;
        let prints: Vec<Prints> = self.spaces.iter().map(|prepared| Prints::new(&prepared.space)).collect();
        let (mut settings, mut servers) = (HashSet::new(), HashSet::new());
        let mut last_server = None;
        for candidate in self.iter() {
            match self.judge(candidate) {
                Judgement::Untied => continue,
                Judgement::LeftOut { rule, .. } => *counts.left_out.entry(rule).or_default() += 1,
                Judgement::Kept => {
                    counts.kept += 1;
                    let (space, prints) = (&self.spaces[candidate.group].space, &prints[candidate.group]);
                    let (server, whole) = prints.of(space, candidate.number);
                    if alone {
                        counts.distinct += 1;
                        counts.servers += u64::from(last_server != Some(server));
                        last_server = Some(server);
                    } else {
                        settings.insert(whole);
                        servers.insert(server);
                    }
                }
            }
            counts.combinations += 1;
        }
        if !alone {
            (counts.distinct, counts.servers) = (settings.len() as u64, servers.len() as u64);
        }
        let repeats = self.sweep.repeats;
        counts.measurements = counts.distinct * u64::from(repeats.runs) * u64::from(repeats.starts);
        counts.starts = if self.sweep.reuse { counts.servers * u64::from(repeats.starts) } else { counts.measurements };
        counts.idle = self.idle_rules(&counts);
        counts
    }

    /// The user's rules that matched no combination: most likely a misspelt value.
    fn idle_rules(&self, counts: &Counts) -> Vec<String> {
        let on = |e: &&Exclusion| !self.sweep.rules_off.contains(&e.name);
        let own = self.sweep.groups.iter().flat_map(|group| &group.exclude);
        let all = self.sweep.exclude.iter().chain(own).filter(on);
        let mut idle: Vec<String> =
            all.filter(|e| !counts.left_out.contains_key(&e.name)).map(|e| e.name.clone()).collect();
        for (i, rule) in self.sweep.include.iter().filter(on).enumerate() {
            let holds = |c: Candidate| {
                let prepared = &self.spaces[c.group];
                prepared.include.get(i).is_some_and(|condition| condition.holds(&prepared.space, c.number))
            };
            if !self.iter().any(holds) {
                idle.push(rule.name.clone());
            }
        }
        idle
    }

    pub(super) fn look(&self, candidate: Candidate) -> (&Space, u64) {
        (&self.spaces[candidate.group].space, candidate.number)
    }
}

/// Fingerprints of single values; a combination's is their sum, whatever the order of keys.
struct Prints(Vec<(Section, Vec<u128>)>);

impl Prints {
    fn new(space: &Space) -> Self {
        let print = |section: Section, key: &str, value: &Value| match value {
            Value::Omitted => 0,
            Value::Switch(false) if section == Section::Bench || key == ENFORCE_EAGER => 0,
            value => {
                let text = format!("{section:?}\u{1f}{key}\u{1f}{}", value.canonical());
                Sha256::digest(text.as_bytes()).iter().take(16).fold(0u128, |sum, byte| sum << 8 | u128::from(*byte))
            }
        };
        Self(
            space
                .slots
                .iter()
                .map(|s| (s.section, s.values.iter().map(|v| print(s.section, &s.key, v)).collect()))
                .collect(),
        )
    }

    /// Of the server, and of server and workload.
    fn of(&self, space: &Space, number: u64) -> (u128, u128) {
        let (mut server, mut whole) = (0u128, 0u128);
        for (i, (section, values)) in self.0.iter().enumerate() {
            let print = values.get(space.choice(number, i)).copied().unwrap_or_default();
            whole = whole.wrapping_add(print);
            if *section != Section::Bench {
                server = server.wrapping_add(print);
            }
        }
        (server, whole)
    }
}

/// Keys that have more than one value over all groups; a group without the key has it left out.
fn varying(spaces: &[Prepared]) -> Vec<(Section, String)> {
    let mut keys: Vec<(Section, &str)> = Vec::new();
    for slot in spaces.iter().flat_map(|prepared| &prepared.space.slots) {
        if !keys.contains(&(slot.section, slot.key.as_str())) {
            keys.push((slot.section, &slot.key));
        }
    }
    let fixed = [MODEL, TENSOR_PARALLEL, QUANTIZATION, ENFORCE_EAGER];
    keys.retain(|(section, key)| *section != Section::Serve || !fixed.contains(key));
    let several = |(section, key): &(Section, &str)| {
        let mut values: HashSet<String> = HashSet::new();
        for prepared in spaces {
            match prepared.space.slots.iter().find(|s| s.section == *section && s.key == *key) {
                Some(slot) => values.extend(slot.values.iter().map(Value::canonical)),
                None => drop(values.insert(Value::Omitted.canonical())),
            }
        }
        values.len() > 1
    };
    keys.into_iter().filter(several).map(|(section, key)| (section, key.to_owned())).collect()
}

//! Which experiments the others are compared with.

use super::matrix::Setting;
use super::selection::Selection;
use super::sweep::MODEL;
use super::{Axis, Baseline, Group, Judgement, Sweep, Value};

/// Marks the settings that are the baseline, and adds those that the sweep itself does not ask for.
pub(super) fn mark(sweep: &Sweep, _: &Selection<'_>, settings: &mut Vec<Setting>) {
    let Some(baseline) = &sweep.baseline else { return };
    if let Baseline::Named(name) = baseline {
        settings.iter_mut().for_each(|setting| setting.baseline = setting.groups.contains(name));
        return;
    }
    let groups: Vec<Group> = sweep.groups.iter().map(|group| candidates(group, baseline)).collect();
    let only = Sweep { groups, baseline: None, ..sweep.clone() };
    let selection = Selection::new(&only);
    let mut added: Vec<Setting> = Vec::new();
    for candidate in selection.iter().filter(|c| selection.judge(*c) == Judgement::Kept) {
        let mut setting = selection.setting(candidate);
        if let Some(known) = settings.iter_mut().find(|known| known.identity == setting.identity) {
            known.baseline = true;
        } else if !added.iter().any(|known| known.identity == setting.identity) {
            (setting.baseline, setting.groups) = (true, ["baseline".to_owned()].into());
            added.push(setting);
        }
    }
    // Where the sweep has a baseline for a model and load already, no other candidate is measured for its own sake.
    added.retain(|candidate| {
        let same = |known: &&Setting| known.axes.model == candidate.axes.model && known.workload == candidate.workload;
        !settings.iter().filter(same).any(|known| known.baseline)
    });
    for setting in &mut added {
        complete_axes(setting, settings);
    }
    added.append(settings);
    *settings = added;
}

/// What varies in the sweep is shown of the baseline too.
fn complete_axes(setting: &mut Setting, settings: &[Setting]) {
    let Some(other) = settings.first() else { return };
    let flags = &setting.server.flags;
    for key in other.axes.server.keys() {
        let value = match key.strip_prefix("env.") {
            Some(name) => setting.server.env.get(name).cloned(),
            None => flags.get_text(key).map(str::to_owned),
        };
        setting.axes.server.insert(key.clone(), value.unwrap_or_else(|| Value::Omitted.shown()));
    }
    for key in other.axes.workload.keys() {
        let value = setting.workload.flags.get_text(key).map_or_else(|| Value::Omitted.shown(), str::to_owned);
        setting.axes.workload.insert(key.clone(), value);
    }
}

/// A group's baseline: what the baseline names, and everything else that varies left out.
fn candidates(group: &Group, baseline: &Baseline) -> Group {
    let named: &[Axis] = match baseline {
        Baseline::Values(axes) => axes,
        Baseline::VllmDefaults | Baseline::Named(_) => &[],
    };
    let single = |axis: &Axis| match named.iter().find(|n| crate::model::normalize(&n.key) == axis.key) {
        Some(named) => named.clone(),
        None if axis.key == MODEL || axis.values.len() == 1 => axis.clone(),
        None => Axis { key: axis.key.clone(), values: vec![Value::Omitted] },
    };
    let mut serve: Vec<Axis> = group.serve.iter().map(single).collect();
    let missing = named.iter().filter(|n| !group.serve.iter().any(|axis| axis.key == crate::model::normalize(&n.key)));
    serve.extend(missing.cloned());
    Group { serve, env: group.env.iter().map(single).collect(), ..group.clone() }
}

/// Why a named baseline cannot be one; `None` where it can.
pub fn problem(sweep: &Sweep, plan: &crate::model::Plan) -> Option<String> {
    let Some(Baseline::Named(name)) = &sweep.baseline else { return None };
    let mut servers: Vec<(&str, &crate::model::ServerConfig)> = Vec::new();
    for experiment in plan.experiments.iter().filter(|e| e.groups.contains(name)) {
        if !servers.iter().any(|(_, server)| *server == &experiment.server) {
            servers.push((&experiment.axes.model, &experiment.server));
        }
    }
    let twice = servers.iter().find(|(model, _)| servers.iter().filter(|(other, _)| other == model).count() > 1);
    match (servers.is_empty(), twice) {
        (true, _) => Some(format!("the baseline `{name}` has no experiment in the plan")),
        (false, Some((model, _))) => {
            Some(format!("the baseline `{name}` has several server configurations for `{model}`: it must have one"))
        }
        (false, None) => None,
    }
}

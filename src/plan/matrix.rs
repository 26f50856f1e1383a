//! From axes to experiments.

use std::collections::HashSet;

use super::name::make_unique;
use super::{Axes, Engine, Experiment, Identity, Plan, Rule, ServerConfig, Skip, Workload, experiment_name};

/// The axes of a sweep and what all its experiments share.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Slowest axis.
    pub models: Vec<String>,
    /// Second axis.
    pub tensor_parallel_sizes: Vec<u32>,
    /// Third axis; `None` = vLLM's flag is left out.
    pub quantizations: Vec<Option<String>>,
    /// Fastest axis.
    pub enforce_eager: Vec<bool>,
    /// What plays vLLM.
    pub engine: Engine,
    /// Flags and environment that every server shares; its `model` is replaced.
    pub server: ServerConfig,
    /// The load of every experiment.
    pub workload: Workload,
}

/// Expands a grid in the order model, tensor parallelism, quantization, eager. Combinations that are given twice are
/// planned once; those that a rule leaves out are listed with its reason.
pub fn expand(grid: &Grid) -> Plan {
    let mut skips = Vec::new();
    let mut seen = HashSet::new();
    let mut drafts = Vec::new();
    for axes in combinations(grid) {
        if let Some(rule) = Rule::ALL.into_iter().find(|rule| rule.skips(&axes)) {
            let reason = rule.reason(&axes);
            skips.push(Skip { axes, rule, reason });
            continue;
        }
        let server = configure(&grid.server, &axes);
        let identity = Identity::of_experiment(grid.engine, &server, &grid.workload);
        if seen.insert(identity.clone()) {
            drafts.push((axes, server, identity));
        }
    }
    let mut names: Vec<_> =
        drafts.iter().map(|(axes, _, identity)| (experiment_name(axes), identity.clone())).collect();
    make_unique(&mut names);
    let experiments: Vec<Experiment> = drafts
        .into_iter()
        .zip(names)
        .enumerate()
        .map(|(i, ((axes, server, identity), (name, _)))| Experiment {
            index: i + 1,
            name,
            identity,
            axes,
            engine: grid.engine,
            server,
            workload: grid.workload.clone(),
        })
        .collect();
    Plan { identity: Identity::of_plan(experiments.iter().map(|e| &e.identity)), experiments, skips }
}

fn combinations(grid: &Grid) -> impl Iterator<Item = Axes> {
    grid.models.iter().flat_map(move |model| {
        grid.tensor_parallel_sizes.iter().flat_map(move |&tp| {
            grid.quantizations.iter().flat_map(move |quantization| {
                grid.enforce_eager.iter().map(move |&enforce_eager| Axes {
                    model: model.clone(),
                    tensor_parallel_size: tp,
                    quantization: quantization.clone(),
                    enforce_eager,
                })
            })
        })
    })
}

/// Rule 1: a quantization of `None` leaves vLLM's flag out; it is never `--quantization none` or `off`.
fn configure(base: &ServerConfig, axes: &Axes) -> ServerConfig {
    let mut server = base.clone();
    server.model.clone_from(&axes.model);
    server.flags.text("tensor-parallel-size", axes.tensor_parallel_size);
    if let Some(quantization) = &axes.quantization {
        server.flags.text("quantization", quantization);
    }
    if axes.enforce_eager {
        server.flags.switch("enforce-eager");
    }
    server
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::plan::Flags;

    fn grid(models: &[&str]) -> Grid {
        Grid {
            models: models.iter().map(ToString::to_string).collect(),
            tensor_parallel_sizes: vec![2, 4, 8],
            quantizations: vec![None, Some("fp8".into())],
            enforce_eager: vec![true, false],
            engine: Engine::Vllm,
            server: ServerConfig {
                model: String::new(),
                flags: Flags::new(),
                env: BTreeMap::new(),
                secret_env: Vec::new(),
            },
            workload: Workload { flags: Flags::new() },
        }
    }

    #[test]
    fn the_default_grid_has_27_experiments_and_9_skips() {
        let plan = expand(&grid(&["a", "b", "c"]));
        assert_eq!((plan.experiments.len(), plan.skips.len()), (27, 9));
        let order: Vec<_> = plan.experiments.iter().take(4).map(|e| e.name.as_str()).collect();
        assert_eq!(
            order,
            [
                "a_tp2_quant-none_eager-true",
                "a_tp2_quant-none_eager-false",
                "a_tp2_quant-fp8_eager-true",
                "a_tp4_quant-none_eager-true"
            ]
        );
    }

    #[test]
    fn rule_1_quantization_none_leaves_the_flag_out() {
        let plan = expand(&grid(&["a"]));
        for experiment in &plan.experiments {
            let args = experiment.server.flags.to_args();
            assert_eq!(args.contains(&"--quantization".into()), experiment.axes.quantization.is_some());
            assert!(!args.contains(&"none".into()) && !args.contains(&"off".into()));
        }
    }

    #[test]
    fn rule_8_fp8_without_eager_is_skipped_with_its_warning() {
        let plan = expand(&grid(&["org/m"]));
        assert_eq!(plan.skips[0].reason, "Skipping org/m tp=2 quant=fp8 eager=false (known failure)");
        assert!(plan.experiments.iter().all(|e| e.axes.quantization.is_none() || e.axes.enforce_eager));
    }

    #[test]
    fn names_that_would_collide_stay_apart() {
        let plan = expand(&grid(&["a/b_c", "a_b/c"]));
        let names: HashSet<_> = plan.experiments.iter().map(|e| &e.name).collect();
        assert_eq!(names.len(), 18);
        assert!(plan.experiments[0].name.starts_with("a_b_c_tp2_quant-none_eager-true_"));
    }

    #[test]
    fn a_value_given_twice_is_planned_once() {
        assert_eq!(expand(&grid(&["a", "a"])).experiments.len(), 9);
    }

    proptest! {
        #[test]
        fn distinct_settings_have_distinct_identities_and_file_names(
            models in proptest::collection::hash_set("[a-c/_. $'-]{1,6}", 1..6)
        ) {
            let models: Vec<&str> = models.iter().map(String::as_str).collect();
            let plan = expand(&grid(&models));
            let names: HashSet<_> = plan.experiments.iter().map(|e| &e.name).collect();
            let identities: HashSet<_> = plan.experiments.iter().map(|e| &e.identity).collect();
            prop_assert_eq!(names.len(), models.len() * 9);
            prop_assert_eq!(identities.len(), models.len() * 9);
            for name in names {
                prop_assert!(name.len() < 220);
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            }
        }
    }
}

//! The simulated vLLM varies as a machine does, and always alike: noise, prefix cache, speculative decoding.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Call, RunFiles, Scene};

/// Two configurations, two starts of each, two measurements on each start.
fn repeated<'s>(scene: &'s Scene, place: &str) -> Call<'s> {
    scene.sweep().set("--starts", ["2"]).set("--runs", ["2"]).set("--results-dir", [place])
}

/// The measured durations, by name: what noise moves.
fn durations(run: &RunFiles) -> BTreeMap<String, f64> {
    let results =
        std::fs::read_dir(run.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of = |name: String| Some((name.clone(), run.json(&name)["duration"].as_f64()?));
    results.filter(|name| name.ends_with("_results.json") && !name.starts_with("raw_")).filter_map(of).collect()
}

fn measured(scene: &Scene, place: &str, call: Call<'_>) -> BTreeMap<String, f64> {
    call.exits(0);
    let runs = scene.runs_in(&scene.path(place));
    let found = durations(&runs[0]);
    assert_eq!(found.len(), 8, "{found:?}");
    found
}

#[test]
fn the_same_seed_gives_the_same_noise_in_any_order_and_another_seed_another() {
    let scene = Scene::new();
    let grouped = measured(&scene, "a", repeated(&scene, "a").set("--order", ["grouped"]));
    let random = measured(&scene, "b", repeated(&scene, "b").set("--order", ["random"]).set("--order-seed", ["3"]));
    assert_eq!(grouped, random, "the order of measurements changes no result");
    let other = measured(&scene, "c", repeated(&scene, "c").set("--sim-seed", ["9"]));
    assert_ne!(grouped, other);
    let mut values: Vec<f64> = grouped.values().copied().collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    assert_eq!(values.len(), 8, "no two starts and no two measurements are alike: {grouped:?}");
    // Of the same settings, starts are further apart than measurements on one of them.
    let still = repeated(&scene, "d").set("--sim-noise", ["0"]).set("--sim-noise-within", ["0"]);
    let still = measured(&scene, "d", still);
    let mut values: Vec<f64> = still.values().copied().collect();
    values.sort_by(f64::total_cmp);
    let spread = values[3] / values[0] - 1.0;
    assert!(spread < 0.01, "without noise repeats of a configuration are nearly alike: {still:?}");
}

#[test]
fn drift_grows_with_the_place_in_the_plan_and_bad_values_are_named() {
    let scene = Scene::new();
    let call = repeated(&scene, "a").set("--sim-noise", ["0"]).set("--sim-noise-within", ["0"]);
    let found = measured(&scene, "a", call.set("--sim-drift", ["5%"]).set("--order", ["interleaved"]));
    let run = &scene.runs_in(&scene.path("a"))[0];
    let plan = run.json("manifest.json")["plan"]["experiments"].as_array().unwrap().clone();
    let of = |index: usize| {
        let name = plan[index - 1]["name"].as_str().unwrap();
        (name.to_owned(), found[&format!("{name}_results.json")])
    };
    // The first and the last measurement of one configuration are six and more places apart: 30 %.
    let (first, last) = (of(1), of(7));
    assert!(last.1 / first.1 > 1.2, "{first:?} {last:?}");
    for (flag, value) in [("--sim-noise", "2"), ("--sim-drift", "50%"), ("--sim-outliers", "many")] {
        scene.sweep().set(flag, [value]).exits(2).says(flag).says("a part from");
    }
}

#[test]
fn prefix_hits_and_accepted_drafts_are_counted_by_either_client() {
    let scene = Scene::new();
    for client in ["vllm", "builtin"] {
        let speculation = r#"speculative-config={"method":"eagle3","num_speculative_tokens":3}"#;
        scene
            .sweep()
            .set("--enforce-eager", ["true"])
            .set("--client", [client])
            .set("--output-len", ["40"])
            .also("--serve-arg", speculation)
            .set("--results-dir", [client])
            .exits(0);
        let run = &scene.runs_in(&scene.path(client))[0];
        let result = run.result(crate::support::FIRST);
        let length = result["spec_decode_acceptance_length"].as_f64().unwrap();
        assert!((1.5..3.5).contains(&length), "{client}: {length}");
        let rates: Vec<f64> =
            serde_json::from_value(result["spec_decode_per_position_acceptance_rates"].clone()).unwrap();
        assert!(rates.len() == 3 && rates[0] > rates[2], "{client}: {rates:?}");
    }
    // One prompt again and again, with the cache on: what is counted is not cold.
    let place = scene.path("hits");
    let result = scene
        .sweep()
        .set("--enforce-eager", ["true"])
        .set("--input-len", ["64"])
        .also("--serve-arg", "no:no-enable-prefix-caching")
        .also("--serve-arg", "block-size=16")
        .set("--results-dir", [place.to_str().unwrap()])
        .exits(0);
    let run = &scene.runs_in(&place)[0];
    let record: Value = run.result(crate::support::FIRST)["vllm_bench"]["prefix_cache"].clone();
    // vLLM's client warms up with the first prompt: it is found again.
    assert!(record["hits"].as_f64().unwrap() >= 48.0, "{record}\n{}", result.stdout);
}

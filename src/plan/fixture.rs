//! Sweeps for tests.

use super::{Axis, Condition, Exclusion, Group, Sweep, Term, Test, Value};
use crate::model::Engine;

/// `a,b` -> values; `none`, `true` and `false` as in a sweep file.
pub fn axis(key: &str, values: &str) -> Axis {
    let value = |text: &str| match text {
        "none" => Value::Omitted,
        "true" => Value::Switch(true),
        "false" => Value::Switch(false),
        text => Value::Text(text.to_owned()),
    };
    Axis { key: key.to_owned(), values: values.split(',').map(value).collect() }
}

/// The rule of the presets.
pub fn fp8_needs_eager() -> Exclusion {
    let term = |key: &str, value| Term { key: key.to_owned(), test: Test::OneOf(vec![value]) };
    Exclusion {
        name: "fp8-needs-eager".into(),
        when: Condition {
            terms: vec![term("quantization", Value::Text("fp8".into())), term("enforce-eager", Value::Switch(false))],
        },
        reason: "known failure".into(),
        explanation: Some(
            "fp8 without eager execution ends in \"RuntimeError: Engine core initialization failed\" in vLLM's XPU build"
                .into(),
        ),
    }
}

/// The user's grid over these models and tensor parallel sizes, without a load.
pub fn grid(models: &[&str], tps: &str, engine: Engine) -> Sweep {
    let serve = vec![
        Axis { key: "model".into(), values: models.iter().map(|m| Value::Text((*m).to_owned())).collect() },
        axis("tensor-parallel-size", tps),
        axis("quantization", "none,fp8"),
        axis("enforce-eager", "true,false"),
    ];
    let group = Group { serve, ..Group::default() };
    Sweep { groups: vec![group], exclude: vec![fp8_needs_eager()], ..Sweep::new(engine) }
}

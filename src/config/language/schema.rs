//! The JSON Schema of the language, for editors and for programs that write sweeps.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::Document;
use crate::plan::FailureReason;

/// The schema as text, with a line end.
pub fn text() -> String {
    let schema = schemars::schema_for!(Document);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// The keys of a sweep file's top level.
pub fn top_level() -> Vec<String> {
    let schema = schemars::schema_for!(Document);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// A schema written by hand, for what has several forms.
macro_rules! schema {
    ($(#[$doc:meta])* $name:ident, |$generator:ident| $body:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $body
            }
        }
    };
}

schema!(
    /// Anything at all.
    Anything,
    |_g| true.into()
);
schema!(
    /// A word, number or switch.
    Word,
    |_g| json_schema!({"type": ["string", "number", "boolean"]})
);
schema!(
    /// An image, or a map of keys.
    ContainerOrImage,
    |g| {
        let (word, map) = (g.subschema_for::<Word>(), g.subschema_for::<super::Container>());
        json_schema!({"anyOf": [word, map]})
    }
);
schema!(
    /// One word or several.
    Words,
    |g| {
        let word = g.subschema_for::<Word>();
        json_schema!({"anyOf": [word, {"type": "array", "items": word}]})
    }
);
schema!(
    /// One value of an axis.
    AxisValue,
    |_g| json_schema!({
        "description": "A word or number; true or false for a switch; none or null to leave the flag out; a range; a map, which reaches vLLM as JSON.",
        "anyOf": [
            {"type": "string", "description": "A range: 1..8, 1..32:4 (every fourth), pow2:1..256 (powers of two).",
             "pattern": "^(pow2:[0-9]+\\.\\.[0-9]+|[0-9]+\\.\\.[0-9]+(:[1-9][0-9]*)?)$"},
            {"type": ["string", "number", "boolean", "null"]},
            {"type": "object", "description": "JSON for vLLM."}
        ]
    })
);
schema!(
    /// One value, or a list of them.
    Axis,
    |g| {
        let value = g.subschema_for::<AxisValue>();
        let several = json_schema!({"type": "array", "description": "One value made of several words.", "minItems": 1,
            "items": {"type": ["string", "number", "boolean"]}});
        json_schema!({
            "description": "One value, or a list of values: an axis of the sweep.",
            "anyOf": [value, {"type": "array", "minItems": 1, "items": {"anyOf": [value, several]}}]
        })
    }
);
schema!(
    /// Keys and their axes.
    Axes,
    |g| {
        let axis = g.subschema_for::<Axis>();
        json_schema!({"type": "object", "additionalProperties": axis})
    }
);
schema!(
    /// The name of a preset.
    PresetName,
    |_g| json_schema!({"type": "string", "enum": ["none", "full", "sanity"]})
);
schema!(
    /// A duration.
    DurationText,
    |_g| json_schema!({
        "description": "Seconds, or a number with a unit: 250ms, 300s, 5m, 1.5h.",
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(ms|s|sec|m|min|h)?$"}
        ]
    })
);
schema!(
    /// A duration that progress may extend.
    StartLimitText,
    |_g| json_schema!({
        "description": "Seconds, or a number with a unit: 300s, 5m; with a + behind it, a start that makes progress may take up to three times as long.",
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(ms|s|sec|m|min|h)?\\+?$"}
        ]
    })
);
schema!(
    /// A port.
    Port,
    |_g| json_schema!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"const": "auto"}]})
);
schema!(
    /// A whole number of at least 1.
    AtLeastOne,
    |_g| json_schema!({"type": "integer", "minimum": 1})
);
schema!(
    /// A whole number of at least 1, or `auto`.
    StartsOrAuto,
    |_g| json_schema!({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
);
schema!(
    /// How many at once.
    Parallel,
    |_g| json_schema!({"anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["off", "auto"]}]})
);
schema!(
    /// What is measured again alone.
    Finalists,
    |_g| json_schema!({"type": "string", "enum": ["alone", "off"]})
);
schema!(
    /// Rules by name.
    Switches,
    |_g| json_schema!({"type": "object", "additionalProperties": {"type": "boolean"}})
);
schema!(
    /// Flags with the same value.
    Links,
    |_g| {
        let map = json_schema!({"type": "object", "additionalProperties": {"type": "string"}});
        json_schema!({"anyOf": [map, {"type": "array", "items": map}]})
    }
);
schema!(
    /// What others are compared with.
    Baseline,
    |g| {
        let axes = g.subschema_for::<Axes>();
        json_schema!({"anyOf": [{"type": "string", "description": "vllm-defaults, or the name of a group."}, axes]})
    }
);
schema!(
    /// An order.
    OrderName,
    |_g| json_schema!({"type": "string", "enum": ["auto", "grouped", "interleaved", "random"]})
);
schema!(
    /// What a failure means for the others.
    OnFailure,
    |_g| json_schema!({"type": "string", "enum": ["continue", "stop"]})
);
schema!(
    /// The server backend.
    EngineName,
    |_g| json_schema!({"type": "string", "enum": ["vllm", "sim"]})
);
schema!(
    /// Where experiments run.
    ExecutorName,
    |_g| json_schema!({"type": "string", "enum": ["local", "slurm"]})
);
schema!(
    /// How GPUs are asked for.
    GpuRequest,
    |_g| json_schema!({"type": "string", "enum": ["gres", "gpus-per-node", "none"]})
);
schema!(
    /// Options of `sbatch`, without the dashes.
    SbatchOptions,
    |g| {
        let words = g.subschema_for::<Words>();
        json_schema!({"type": "object", "additionalProperties": {"anyOf": [words, {"type": "null"}]}})
    }
);
schema!(
    /// What sends the workload.
    ClientName,
    |_g| json_schema!({"type": "string", "enum": ["vllm", "builtin"]})
);
schema!(
    /// The reason of a failure.
    Reason,
    |_g| json_schema!({"type": "string", "enum": FailureReason::names()})
);
schema!(
    /// Reasons of failures.
    Reasons,
    |g| {
        let reason = g.subschema_for::<Reason>();
        json_schema!({"anyOf": [reason, {"const": "none"}, {"type": "array", "items": reason}]})
    }
);
schema!(
    /// Attempts by reason.
    RetryPolicy,
    |g| {
        let (reason, pause) = (g.subschema_for::<Reason>(), g.subschema_for::<DurationText>());
        let attempts = json_schema!({"type": "integer", "minimum": 0, "maximum": 1000});
        let both = json_schema!({"type": "object", "additionalProperties": false,
            "properties": {"attempts": attempts, "back-off": pause}});
        json_schema!({"anyOf": [
            {"const": "none"},
            {"type": "object", "propertyNames": reason, "additionalProperties": {"anyOf": [attempts, both]}}
        ]})
    }
);
schema!(
    /// Limits on metrics.
    Slo,
    |_g| {
        let limit = json_schema!({
            "description": "A number that the metric must be better than, or a sign and a number: \"< 500\", \"> 100\".",
            "anyOf": [{"type": "number"}, {"type": "string", "pattern": "^ *(<=?|>=?)? *[-+0-9.eE]+ *$"}, {"type": "null"}]
        });
        let words = json_schema!({"type": "string", "description": "As after --slo: ttft.p99<500,tpot.mean<50"});
        let several = json_schema!({"type": "array", "items": words});
        json_schema!({"anyOf": [
            {"type": "object", "additionalProperties": {"anyOf": [
                limit,
                {"type": "object", "description": "Limits of a latency, by statistic: mean, median, std, p99.", "additionalProperties": limit}
            ]}},
            words,
            several
        ]})
    }
);
schema!(
    /// The condition of a rule.
    When,
    |g| {
        let value = g.subschema_for::<AxisValue>();
        json_schema!({
            "type": "object", "minProperties": 1,
            "additionalProperties": {"anyOf": [
                {"type": "string", "pattern": "^ *(!=|==|<=|>=|<|>) *[^<>=! ].*$"},
                value,
                {"type": "array", "minItems": 1, "items": value}
            ]}
        })
    }
);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    fn kept() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/sweep.schema.json")
    }

    #[test]
    fn the_schema_that_is_kept_is_the_one_that_is_written() {
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(kept().parent().unwrap()).unwrap();
            std::fs::write(kept(), text()).unwrap();
        }
        let file = std::fs::read_to_string(kept()).unwrap();
        assert_eq!(file, text(), "`vllm-bench config schema > schema/sweep.schema.json` brings it up to date");
    }

    #[test]
    fn every_key_of_the_presets_is_in_the_schema() {
        let schema: Value = serde_json::from_str(&text()).unwrap();
        for preset in [
            include_str!("../presets/defaults.yaml"),
            include_str!("../presets/full.yaml"),
            include_str!("../presets/sanity.yaml"),
        ] {
            let tree = crate::config::load::parse(preset, "preset.yaml").unwrap();
            check(&schema, &schema, &tree, "");
        }
    }

    /// Walks the tree along the properties of the schema.
    fn check(whole: &Value, schema: &Value, tree: &crate::config::tree::Node, path: &str) {
        let forms = forms(whole, schema);
        if let Some(items) = tree.items() {
            let of: Vec<&Value> = forms.iter().filter_map(|form| form.get("items")).collect();
            assert!(!of.is_empty(), "{path}: no list in the schema");
            items.iter().for_each(|item| check(whole, of[0], item, path));
        }
        for (key, entry) in tree.entries().into_iter().flatten() {
            let path = format!("{path}.{key}");
            let property = forms.iter().find_map(|form| form.get("properties")?.get(key));
            let other = forms.iter().find_map(|form| form.get("additionalProperties").filter(|other| **other != false));
            let inner = property.or(other).unwrap_or_else(|| panic!("{path} is not in the schema"));
            check(whole, inner, &entry.value, &path);
        }
    }

    /// A schema and its alternatives, references followed.
    fn forms<'s>(whole: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
        let mut found = vec![schema];
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            found.extend(forms(whole, whole.pointer(name.trim_start_matches('#')).unwrap()));
        }
        for other in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            found.extend(forms(whole, other));
        }
        found
    }
}

//! Flags and environment variables, as values of the sweep language: each with its origin.

use std::collections::BTreeMap;

use super::tree::{Kind, Node, plain};
use super::{Environment, Error, Origin};
use crate::cli::RunArgs;

/// What the variables of a run begin with.
const RUN_PREFIX: &str = "VLLM_BENCH_";

/// Flags over environment variables, before any value is read.
#[derive(Debug)]
pub struct Layers {
    flags: BTreeMap<String, Vec<String>>,
    variables: BTreeMap<String, String>,
    prefix: &'static str,
    shape: fn(&str) -> Option<Shape>,
}

/// What a setting of the command line is in the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// One value, kept as it is written; only a number is more than text.
    Text,
    /// Words between commas and spaces.
    List,
    /// Words between commas.
    Names,
    /// Words that mean true or false.
    Switches,
    /// The setting turns something on.
    On,
    /// The setting turns something off.
    Off,
    /// Each flag is one value; a variable has one on each line.
    Lines,
}

/// Settings that are one key of the language: (flag, key path, shape).
const KEYS: [(&str, &[&str], Shape); 61] = [
    ("models", &["serve", "model"], Shape::Names),
    ("tp", &["serve", "tensor-parallel-size"], Shape::List),
    ("quantization", &["serve", "quantization"], Shape::List),
    ("enforce-eager", &["serve", "enforce-eager"], Shape::Switches),
    ("max-model-len", &["serve", "max-model-len"], Shape::One),
    ("input-len", &["bench", "random-input-len"], Shape::One),
    ("output-len", &["bench", "random-output-len"], Shape::One),
    ("concurrency", &["bench", "max-concurrency"], Shape::One),
    ("num-prompts", &["bench", "num-prompts"], Shape::One),
    ("runs", &["repeats", "runs"], Shape::One),
    ("starts", &["repeats", "starts"], Shape::One),
    ("max-starts", &["repeats", "max"], Shape::One),
    ("order", &["order"], Shape::One),
    ("order-seed", &["order-seed"], Shape::One),
    ("no-reuse", &["reuse"], Shape::Off),
    ("warmup", &["warmup"], Shape::One),
    ("cooldown", &["cooldown"], Shape::One),
    ("telemetry", &["telemetry"], Shape::One),
    ("timeout-startup", &["timeouts", "startup"], Shape::One),
    ("timeout-benchmark", &["timeouts", "benchmark"], Shape::One),
    ("stall-timeout", &["timeouts", "stall"], Shape::One),
    ("grace", &["timeouts", "grace"], Shape::One),
    ("objective", &["objective"], Shape::One),
    ("on-failure", &["on-failure"], Shape::One),
    ("skip-failure-reasons", &["skip-failure-reasons"], Shape::List),
    ("no-preflight", &["preflight"], Shape::Off),
    ("port", &["port"], Shape::One),
    ("name", &["name"], Shape::One),
    ("results-dir", &["results-dir"], Shape::One),
    ("timezone", &["timezone"], Shape::One),
    ("setvars", &["setvars"], Shape::One),
    ("login", &["login"], Shape::One),
    ("vllm-bin", &["vllm-bin"], Shape::One),
    ("container", &["container", "image"], Shape::One),
    ("container-runtime", &["container", "runtime"], Shape::One),
    ("container-arg", &["container", "args"], Shape::Lines),
    ("engine", &["engine"], Shape::One),
    ("client", &["client"], Shape::One),
    ("executor", &["executor"], Shape::One),
    ("keep-foreign", &["keep-foreign"], Shape::One),
    ("device-locks", &["device-locks"], Shape::One),
    ("show-logs", &["show-logs"], Shape::One),
    ("pushgateway", &["pushgateway"], Shape::One),
    ("mlflow", &["mlflow"], Shape::One),
    ("notify", &["notify"], Shape::Lines),
    ("parallel", &["parallel"], Shape::One),
    ("parallel-threshold", &["parallel-threshold"], Shape::One),
    ("finalists", &["finalists"], Shape::One),
    ("sim-speed", &["sim", "speed"], Shape::One),
    ("sim-seed", &["sim", "seed"], Shape::One),
    ("sim-devices", &["sim", "devices"], Shape::One),
    ("sim-device-memory", &["sim", "device-memory"], Shape::One),
    ("sim-noise", &["sim", "noise"], Shape::One),
    ("sim-noise-within", &["sim", "noise-within"], Shape::One),
    ("sim-drift", &["sim", "drift"], Shape::One),
    ("sim-outliers", &["sim", "outliers"], Shape::One),
    ("sim-interference", &["sim", "interference"], Shape::One),
    ("sim-fault", &["sim", "fault"], Shape::Lines),
    // Not in the tree by themselves; see `assemble`.
    ("serve-arg", &[], Shape::Lines),
    ("bench-arg", &[], Shape::Lines),
    ("slurm", &[], Shape::Lines),
];

/// Settings that are no key of the language, or several.
const OTHERS: [(&str, Shape); 7] = [
    ("env-file", Shape::One),
    ("env", Shape::Lines),
    ("no-rule", Shape::Names),
    ("retry", Shape::List),
    ("preset", Shape::One),
    ("yes", Shape::One),
    ("extend", Shape::One),
];

/// Variables of this prefix that are no settings.
const OTHER_VARIABLES: [&str; 5] =
    ["VLLM_BENCH_ATTEMPT", "VLLM_BENCH_BIN", "VLLM_BENCH_REAL_DIR", "VLLM_BENCH_REAL_MODELS", "VLLM_BENCH_REAL_VLLM"];

/// Settings of the command line and where they stand in a sweep file; nowhere for those that are no key of one.
pub fn setting_keys() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let others = OTHERS.iter().map(|(flag, _)| (*flag, if *flag == "preset" { &["preset"][..] } else { &[] }));
    KEYS.iter().map(|(flag, path, _)| (*flag, *path)).chain(others)
}

fn run_shape(key: &str) -> Option<Shape> {
    let own = KEYS.iter().find(|(name, ..)| *name == key).map(|(_, _, shape)| *shape);
    own.or_else(|| OTHERS.iter().find(|(name, _)| *name == key).map(|(_, shape)| *shape))
}

impl Layers {
    /// Those of a run.
    pub fn of_run(args: &RunArgs, environment: &Environment) -> Self {
        Self::new(flags_of(args), environment, RUN_PREFIX, run_shape)
    }

    /// Puts flags over variables, which begin with `prefix`; `shape` knows the settings.
    pub fn new(
        flags: BTreeMap<String, Vec<String>>,
        environment: &Environment,
        prefix: &'static str,
        shape: fn(&str) -> Option<Shape>,
    ) -> Self {
        let variables = environment
            .vars()
            .iter()
            .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self { flags, variables, prefix, shape }
    }

    /// The values of a setting and where they stand; none where neither layer has it.
    pub fn values(&self, key: &str) -> Option<(Vec<String>, Origin)> {
        let shape = (self.shape)(key);
        if let Some(values) = self.flags.get(key) {
            let values = values.iter().flat_map(|value| split(shape, value)).collect();
            return Some((values, Origin::flag(key)));
        }
        let variable = self.variable(key);
        let value = self.variables.get(&variable)?;
        Some((split(shape, value), Origin::Variable(variable)))
    }

    /// One value, the first.
    pub fn one(&self, key: &str) -> Option<(String, Origin)> {
        let (values, origin) = self.values(key)?;
        Some((values.into_iter().next().unwrap_or_default(), origin))
    }

    /// Whether a flag or a variable has this setting.
    pub fn is_given(&self, key: &str) -> bool {
        self.is_flag(key) || self.variables.contains_key(&self.variable(key))
    }

    /// Whether a flag has this setting.
    pub fn is_flag(&self, key: &str) -> bool {
        self.flags.contains_key(key)
    }

    /// The environment variable of a setting.
    fn variable(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.to_ascii_uppercase().replace('-', "_"))
    }

    /// What is one key of the sweep language, as a tree.
    ///
    /// # Errors
    /// When a list has nothing in it, or a switch is neither on nor off.
    pub fn tree(&self) -> Result<Node, Error> {
        let mut tree = Node::map(&Origin::flag("…"));
        for (key, path, _) in KEYS.iter().filter(|(_, path, _)| !path.is_empty()) {
            if let Some(node) = self.node(key)? {
                tree.put(path, node);
            }
        }
        Ok(tree)
    }

    /// The value of a setting in the sweep language; none where neither layer has it.
    ///
    /// # Errors
    /// When a list has nothing in it, or a switch is neither on nor off.
    pub fn node(&self, key: &str) -> Result<Option<Node>, Error> {
        let (Some((texts, origin)), Some(shape)) = (self.values(key), (self.shape)(key)) else { return Ok(None) };
        let word = |text: &String| Node::new(typed(text), &origin);
        let node = match shape {
            Shape::One => Node::new(typed(texts.first().map_or("", String::as_str)), &origin),
            Shape::Text => {
                let text = texts.first().map_or("", String::as_str);
                let kind = Some(typed(text)).filter(|kind| matches!(kind, Kind::Number(_)));
                Node::new(kind.unwrap_or_else(|| Kind::Text(text.to_owned())), &origin)
            }
            Shape::List | Shape::Names | Shape::Switches if texts.is_empty() => return Err(Error::Empty { origin }),
            // A model may be called like a number or a range.
            Shape::Names | Shape::Lines => {
                Node::list(texts.iter().map(|text| Node::text(text, &origin)).collect(), &origin)
            }
            Shape::List => Node::list(texts.iter().map(word).collect(), &origin),
            Shape::Switches => {
                let switch =
                    |text: &String| Node::new(read_bool(text).map_or_else(|| typed(text), Kind::Bool), &origin);
                Node::list(texts.iter().map(switch).collect(), &origin)
            }
            Shape::On | Shape::Off => match texts.first().and_then(|text| read_bool(text)) {
                Some(on) => Node::new(Kind::Bool(on == (shape == Shape::On)), &origin),
                None => {
                    let value = texts.concat().escape_debug().to_string();
                    return Err(Error::Invalid { origin, value, expected: "`true` or `false`".into(), hint: None });
                }
            },
        };
        Ok(Some(node))
    }

    /// Variables that look like settings and are none; `is_setting` takes a name as a flag.
    pub fn unknown_variables(&self, is_setting: impl Fn(&str) -> bool) -> Vec<String> {
        let key = |name: &str| name.trim_start_matches(self.prefix).to_ascii_lowercase().replace('_', "-");
        self.variables.keys().filter(|name| !is_setting(&key(name))).cloned().collect()
    }
}

/// Whether a variable is known to a run, by its name without the prefix, as a flag.
pub fn is_run_setting(key: &str) -> bool {
    let variable = format!("{RUN_PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"));
    run_shape(key).is_some() || key.starts_with("load-") || OTHER_VARIABLES.contains(&variable.as_str())
}

/// A word of the command line: numbers and switches as in YAML, but nothing is ever left out by accident.
fn typed(text: &str) -> Kind {
    match plain(text) {
        Kind::Null | Kind::List(_) | Kind::Map(_) => Kind::Text(text.to_owned()),
        kind @ (Kind::Bool(_) | Kind::Number(_) | Kind::Text(_)) => kind,
    }
}

/// Words that mean true or false.
pub fn read_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn split(shape: Option<Shape>, value: &str) -> Vec<String> {
    let separator: fn(char) -> bool = match shape {
        Some(Shape::Lines) => return value.lines().map(str::to_owned).collect(),
        Some(Shape::Names) => |c| c == ',',
        Some(Shape::List | Shape::Switches) => |c| c == ',' || c == ' ',
        Some(Shape::One | Shape::Text | Shape::On | Shape::Off) | None => return vec![value.to_owned()],
    };
    let parts: Vec<String> = value.split(separator).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.is_empty() && !value.is_empty() { vec![value.to_owned()] } else { parts }
}

fn flags_of(args: &RunArgs) -> BTreeMap<String, Vec<String>> {
    let lists = [
        ("models", &args.models),
        ("tp", &args.tp),
        ("quantization", &args.quantization),
        ("enforce-eager", &args.enforce_eager),
        ("serve-arg", &args.serve_arg),
        ("bench-arg", &args.bench_arg),
        ("slurm", &args.slurm),
        ("env", &args.env),
        ("container-arg", &args.container_arg),
        ("sim-fault", &args.sim_fault),
        ("notify", &args.notify),
        ("retry", &args.retry),
        ("no-rule", &args.no_rule),
        ("skip-failure-reasons", &args.skip_failure_reasons),
    ];
    let singles = [
        ("preset", &args.preset),
        ("input-len", &args.input_len),
        ("output-len", &args.output_len),
        ("concurrency", &args.concurrency),
        ("num-prompts", &args.num_prompts),
        ("max-model-len", &args.max_model_len),
        ("runs", &args.runs),
        ("starts", &args.starts),
        ("max-starts", &args.max_starts),
        ("order", &args.order),
        ("order-seed", &args.order_seed),
        ("warmup", &args.warmup),
        ("cooldown", &args.cooldown),
        ("telemetry", &args.telemetry),
        ("objective", &args.objective),
        ("on-failure", &args.on_failure),
        ("port", &args.port),
        ("setvars", &args.setvars),
        ("login", &args.login),
        ("vllm-bin", &args.vllm_bin),
        ("container", &args.container),
        ("container-runtime", &args.container_runtime),
        ("env-file", &args.env_file),
        ("timeout-startup", &args.timeout_startup),
        ("timeout-benchmark", &args.timeout_benchmark),
        ("stall-timeout", &args.stall_timeout),
        ("grace", &args.grace),
        ("name", &args.name),
        ("results-dir", &args.results_dir),
        ("device-locks", &args.device_locks),
        ("pushgateway", &args.pushgateway),
        ("timezone", &args.timezone),
        ("engine", &args.engine),
        ("client", &args.client),
        ("executor", &args.executor),
        ("sim-speed", &args.sim_speed),
        ("sim-seed", &args.sim_seed),
        ("sim-devices", &args.sim_devices),
        ("sim-device-memory", &args.sim_device_memory),
        ("sim-noise", &args.sim_noise),
        ("sim-noise-within", &args.sim_noise_within),
        ("sim-drift", &args.sim_drift),
        ("sim-outliers", &args.sim_outliers),
        ("sim-interference", &args.sim_interference),
        ("parallel", &args.parallel),
        ("parallel-threshold", &args.parallel_threshold),
        ("finalists", &args.finalists),
    ];
    let switches = [
        ("keep-foreign", args.keep_foreign),
        ("show-logs", args.show_logs),
        ("no-reuse", args.no_reuse),
        ("no-preflight", args.no_preflight),
        ("yes", args.yes),
    ];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, list.clone()));
    let singles = singles.into_iter().filter_map(|(key, value)| Some((key, vec![value.clone()?])));
    // Without a value it is that of the environment.
    let mlflow = args.mlflow.as_ref().map(|uri| uri.as_deref().unwrap_or(crate::mlflow::FROM_ENVIRONMENT).to_owned());
    let singles = singles.chain(mlflow.map(|uri| ("mlflow", vec![uri])));
    let switches = switches.into_iter().filter(|(_, on)| *on).map(|(key, _)| (key, vec!["true".to_owned()]));
    let all = lists.chain(singles).chain(switches);
    let mut flags: BTreeMap<String, Vec<String>> = all.map(|(key, values)| (key.to_owned(), values)).collect();
    if let Some(run) = &args.extend {
        flags.insert("extend".to_owned(), vec![run.display().to_string()]);
    }
    flags
}

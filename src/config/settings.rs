//! Resolved settings: no value is "maybe the default" any more, and each knows where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;
use indexmap::IndexMap;

use super::layers::Layers;
use super::{Environment, Error, Origin, Preset, is_secret_name, parse_duration};
use crate::cli::RunArgs;
use crate::plan::{
    Axis, Condition, Engine, Exclusion, FlagError, FlagValue, Flags, Group, Plan, Sweep, Term, Test, Value, expand,
};
use crate::sim::settings::{SettingError, SimSettings};

/// Which port the server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChoice {
    /// This one, or none.
    Fixed(u16),
    /// The next free one.
    Auto,
}

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The axes and what all experiments share.
    pub sweep: Sweep,
    /// Where run directories are made; absolute.
    pub results_dir: PathBuf,
    /// Limit from launch to ready.
    pub timeout_startup: Duration,
    /// Limit of the benchmark client.
    pub timeout_benchmark: Duration,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The server's port.
    pub port: PortChoice,
    /// oneAPI's environment script; `None` = not wanted.
    pub setvars: Option<PathBuf>,
    /// The `vllm` the user named; `None` = look on PATH.
    pub vllm_bin: Option<PathBuf>,
    /// Time zone of run directories and times shown.
    pub zone: Tz,
    /// Leave other vLLM processes of this user alone.
    pub keep_foreign: bool,
    /// Show the server's and the client's output live.
    pub show_logs: bool,
    /// Secret variables the user set with `--env`: they go through the process environment, never into a script.
    pub secret_env: Vec<(String, String)>,
    /// Every setting as shown and recorded, secrets redacted.
    pub record: IndexMap<String, (serde_json::Value, String)>,
    /// Things the user should know that are no errors.
    pub warnings: Vec<String>,
    /// The variables that carry the simulation's settings, whatever the engine.
    pub simulation: Vec<(String, String)>,
    /// Keys that a flag or a variable has; the others come from the preset.
    pub given: BTreeSet<&'static str>,
}

/// Settings that shape the plan: with none of them given, a run that is named brings its own plan.
pub const PLAN_KEYS: [&str; 17] = [
    "models",
    "tp",
    "quantization",
    "enforce-eager",
    "input-len",
    "output-len",
    "concurrency",
    "num-prompts",
    "max-model-len",
    "serve-arg",
    "bench-arg",
    "env",
    "engine",
    "sim-seed",
    "sim-devices",
    "sim-device-memory",
    "sim-fault",
];

/// Flags of `vllm serve` that have a flag of ours, and flags that nobody may set.
const RESERVED_SERVE: [(&str, &str); 10] = [
    ("model", "use `--models`"),
    ("port", "use `--port`"),
    ("tensor-parallel-size", "use `--tp`"),
    ("quantization", "use `--quantization`"),
    ("no-quantization", "use `--quantization none`"),
    ("enforce-eager", "use `--enforce-eager true`"),
    ("no-enforce-eager", "use `--enforce-eager false`"),
    ("max-model-len", "use `--max-model-len`"),
    ("api-key", "set the environment variable `VLLM_API_KEY`: a key on a command line is seen by every user"),
    ("uds", "vllm-bench talks to the server over TCP; use `--port`"),
];

/// The same for `vllm bench serve`.
const RESERVED_BENCH: [(&str, &str); 12] = [
    ("model", "use `--models`"),
    ("port", "use `--port`"),
    ("host", "the client always talks to the server of its experiment"),
    ("base-url", "the client always talks to the server of its experiment"),
    ("random-input-len", "use `--input-len`"),
    ("random-output-len", "use `--output-len`"),
    ("max-concurrency", "use `--concurrency`"),
    ("num-prompts", "use `--num-prompts`"),
    ("save-result", "results are always saved"),
    ("result-dir", "use `--results-dir`"),
    ("result-filename", "results are named after their experiment"),
    ("append-result", "every experiment has a result of its own"),
];

impl Settings {
    /// Resolves flags, environment and preset.
    ///
    /// # Errors
    /// The first value that cannot be used, with the place where it stands.
    pub fn resolve(args: &RunArgs, environment: &Environment, preset: Preset) -> Result<Self, Error> {
        let mut reader = Reader { layers: Layers::new(args, environment, preset), record: IndexMap::new() };
        let mut warnings: Vec<String> = reader
            .layers
            .unknown_variables()
            .into_iter()
            .map(|name| format!("the environment variable `{name}` is no setting of vllm-bench"))
            .collect();
        let models = reader.list("models", "a Hugging Face id or a path", read_model)?;
        let tensor_parallel_sizes = reader.list("tp", "a whole number of at least 1", positive::<u32>)?;
        let quantizations = reader.quantizations()?;
        let enforce_eager = reader.list("enforce-eager", "`true` or `false`", read_bool)?;
        let max_model_len = reader.one("max-model-len", "a whole number of at least 1", positive::<u64>)?;
        let engine = reader.one("engine", "`vllm` or `sim`", read_engine)?;
        let mut serve = reader.layers.preset_flags("serve");
        serve.text("max-model-len", max_model_len);
        reader.override_flags("serve-arg", &mut serve, &RESERVED_SERVE)?;
        let bench = reader.bench_flags()?;
        let (mut env, secret_env) = reader.environment()?;
        let simulation = reader.simulation()?;
        if engine == Engine::Sim {
            env.extend(simulation.clone());
        } else {
            reader.record.retain(|key, _| !key.starts_with("sim-"));
        }
        if let (Some(input), Some(output)) = (bench.get_text("random-input-len"), bench.get_text("random-output-len"))
            && let (Ok(input), Ok(output)) = (input.parse::<u64>(), output.parse::<u64>())
            && input.saturating_add(output) > max_model_len
        {
            warnings.push(format!(
                "`--input-len` + `--output-len` ({}) is above `--max-model-len` ({max_model_len}): the server will refuse the requests",
                input.saturating_add(output)
            ));
        }
        let mut secret_names: Vec<String> = secret_env.iter().map(|(name, _)| name.clone()).collect();
        secret_names.sort();
        let axes = |flags: &Flags| -> Vec<Axis> {
            flags.iter().map(|(key, value)| Axis { key: key.to_owned(), values: vec![written(value)] }).collect()
        };
        let mut axis = vec![Axis { key: "model".into(), values: models.into_iter().map(Value::Text).collect() }];
        axis.extend(axes(&serve));
        axis.push(Axis {
            key: "tensor-parallel-size".into(),
            values: tensor_parallel_sizes.iter().map(|tp| Value::Text(tp.to_string())).collect(),
        });
        let quantization = |q: Option<String>| q.map_or(Value::Omitted, Value::Text);
        axis.push(Axis { key: "quantization".into(), values: quantizations.into_iter().map(quantization).collect() });
        axis.push(Axis { key: "enforce-eager".into(), values: enforce_eager.into_iter().map(Value::Switch).collect() });
        let env: Vec<Axis> =
            env.into_iter().map(|(key, value)| Axis { key, values: vec![Value::Text(value)] }).collect();
        let group = Group { name: None, serve: axis, env, bench: axes(&bench), exclude: Vec::new() };
        let term = |key: &str, value| Term { key: key.to_owned(), test: Test::OneOf(vec![value]) };
        let sweep = Sweep {
            engine,
            groups: vec![group],
            exclude: vec![Exclusion {
                name: "fp8-needs-eager".into(),
                when: Condition {
                    terms: vec![
                        term("quantization", Value::Text("fp8".into())),
                        term("enforce-eager", Value::Switch(false)),
                    ],
                },
                reason: "known failure".into(),
                explanation: Some("fp8 without eager execution ends in \"RuntimeError: Engine core initialization failed\" in vLLM's XPU build".into()),
            }],
            secret_env: secret_names,
            ..Sweep::new(engine)
        };
        let given = PLAN_KEYS
            .into_iter()
            .chain([
                "sim-speed",
                "timeout-startup",
                "timeout-benchmark",
                "grace",
                "results-dir",
                "vllm-bin",
                "timezone",
            ])
            .filter(|key| reader.layers.is_given(key))
            .collect();
        let duration = "a duration such as `300`, `300s` or `5m`";
        Ok(Self {
            sweep,
            results_dir: environment.absolute(reader.one("results-dir", "a directory", non_empty)?),
            timeout_startup: reader.one("timeout-startup", duration, parse_duration)?,
            timeout_benchmark: reader.one("timeout-benchmark", duration, parse_duration)?,
            grace: reader.one("grace", duration, parse_duration)?,
            port: reader.one("port", "a number from 1 to 65535, or `auto`", read_port)?,
            setvars: reader
                .one("setvars", "a path, or `none`", non_empty)
                .map(|path| (path != "none").then(|| environment.absolute(path)))?,
            vllm_bin: reader.optional("vllm-bin", "a path", non_empty)?.map(|path| environment.absolute(path)),
            zone: reader.one("timezone", "a name such as `Asia/Jerusalem` or `UTC`", |text| Tz::from_str(text).ok())?,
            // A simulation needs no device: it has no reason to end what others serve.
            keep_foreign: reader.one("keep-foreign", "`true` or `false`", read_bool)? || engine == Engine::Sim,
            show_logs: reader.one("show-logs", "`true` or `false`", read_bool)?,
            secret_env,
            record: reader.record,
            warnings,
            simulation,
            given,
        })
    }

    /// Expands the grid.
    ///
    /// # Errors
    /// When a rule leaves out every combination.
    pub fn plan(&self) -> Result<Plan, Error> {
        let plan = expand(&self.sweep);
        match plan.skips.first() {
            Some(skip) if plan.experiments.is_empty() => {
                Err(Error::EmptyPlan { explanation: skip.explanation.clone().unwrap_or_else(|| skip.reason.clone()) })
            }
            _ => Ok(plan),
        }
    }

    /// Whether a flag or a variable shapes the plan.
    pub fn plan_is_given(&self) -> bool {
        PLAN_KEYS.iter().any(|key| self.given.contains(key))
    }

    /// Whether the simulated vLLM plays the server.
    pub fn simulated(&self) -> bool {
        self.sweep.engine == Engine::Sim
    }
}

/// Reads single settings out of the layers and notes what was read.
struct Reader {
    layers: Layers,
    record: IndexMap<String, (serde_json::Value, String)>,
}

impl Reader {
    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let (texts, origin) = self.take(key);
        if texts.is_empty() {
            return Err(Error::Empty { origin });
        }
        texts.iter().map(|text| parse(text).ok_or_else(|| invalid(&origin, text, expected))).collect()
    }

    fn one<T>(&mut self, key: &'static str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let (texts, origin) = self.take(key);
        let text = texts.first().ok_or_else(|| Error::Empty { origin: origin.clone() })?;
        parse(text).ok_or_else(|| invalid(&origin, text, expected))
    }

    fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        if self.layers.values(key).is_none() { Ok(None) } else { self.one(key, expected, parse).map(Some) }
    }

    /// The texts of a setting, noted for the record.
    fn take(&mut self, key: &'static str) -> (Vec<String>, Origin) {
        let Some((texts, origin)) = self.layers.values(key) else {
            return (Vec::new(), Origin::Flag(key.to_owned()));
        };
        let value = match texts.as_slice() {
            [one] if !matches!(key, "models" | "tp" | "quantization" | "enforce-eager") => one.clone().into(),
            many => many.to_vec().into(),
        };
        let shown = match &origin {
            Origin::Flag(name) => format!("flag --{name}"),
            Origin::Variable(name) => format!("environment {name}"),
            Origin::Preset(preset, _) => format!("preset {preset}"),
        };
        self.record.insert(key.to_owned(), (value, shown));
        (texts, origin)
    }

    /// Rule 1: vLLM knows neither `--quantization none` nor `off`; `none` means that the flag is left out.
    fn quantizations(&mut self) -> Result<Vec<Option<String>>, Error> {
        let (texts, origin) = self.take("quantization");
        if texts.is_empty() {
            return Err(Error::Empty { origin });
        }
        let read = |text: &String| match text.as_str() {
            "none" => Ok(None),
            "off" | "None" | "NONE" | "null" | "false" => Err(Error::Invalid {
                origin: origin.clone(),
                value: text.clone(),
                expected: "a quantization method of vLLM, or `none`".into(),
                hint: Some("`none` leaves vLLM's flag out, which is how vLLM runs without quantization".into()),
            }),
            method if method.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) => {
                Ok(Some(method.to_owned()))
            }
            _ => Err(invalid(&origin, text, "a quantization method of vLLM (letters, digits, `-`, `_`), or `none`")),
        };
        texts.iter().map(read).collect()
    }

    fn bench_flags(&mut self) -> Result<Flags, Error> {
        let number = "a whole number of at least 1";
        let mut bench = self.layers.preset_flags("bench");
        for (key, flag) in [
            ("input-len", "random-input-len"),
            ("output-len", "random-output-len"),
            ("concurrency", "max-concurrency"),
            ("num-prompts", "num-prompts"),
        ] {
            bench.text(flag, self.one(key, number, positive::<u64>)?);
        }
        self.override_flags("bench-arg", &mut bench, &RESERVED_BENCH)?;
        Ok(bench)
    }

    /// Applies `--serve-arg` or `--bench-arg` to the default flags.
    fn override_flags(&mut self, key: &'static str, flags: &mut Flags, reserved: &[(&str, &str)]) -> Result<(), Error> {
        let Some((texts, origin)) = self.layers.values(key) else { return Ok(()) };
        self.take(key);
        for text in &texts {
            let flag = |source: FlagError| Error::Flag { origin: origin.clone(), value: text.clone(), source };
            if let Some(dropped) = text.trim_start_matches('-').strip_prefix("no:") {
                let (name, _) = Flags::parse_arg(dropped).map_err(flag)?;
                let known = flags.iter().map(|(name, _)| name.to_owned()).collect();
                if !flags.remove(&name) {
                    return Err(Error::NothingToDrop { origin, flag: name, known });
                }
                continue;
            }
            let (name, value) = Flags::parse_arg(text).map_err(flag)?;
            if let Some((_, instead)) = reserved.iter().find(|(flag, _)| *flag == name) {
                return Err(Error::Reserved { origin, flag: format!("--{name}"), instead: (*instead).to_owned() });
            }
            if is_secret_name(&name) {
                let instead = "set it as an environment variable: a secret on a command line is seen by every user";
                return Err(Error::Reserved { origin, flag: format!("--{name}"), instead: instead.to_owned() });
            }
            flags.set(&name, value);
        }
        Ok(())
    }

    /// The preset's environment and `--env`, split into what may be written and what may not.
    #[expect(clippy::type_complexity, reason = "two lists of variables")]
    fn environment(&mut self) -> Result<(BTreeMap<String, String>, Vec<(String, String)>), Error> {
        let mut env = self.layers.preset_pairs("server-env");
        let mut secrets = Vec::new();
        let Some((texts, origin)) = self.layers.values("env") else { return Ok((env, secrets)) };
        let mut shown = Vec::new();
        for entry in texts.iter().filter(|entry| !entry.is_empty()) {
            let expected = "`NAME=VALUE`, the name of letters, digits and `_`";
            let (name, value) = entry.split_once('=').ok_or_else(|| invalid(&origin, entry, expected))?;
            let valid = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !valid || value.contains(['\0', '\n', '\r']) {
                return Err(invalid(&origin, name, expected));
            }
            if is_secret_name(name) {
                shown.push(format!("{name}={}", crate::process::REDACTED));
                secrets.push((name.to_owned(), value.to_owned()));
            } else {
                shown.push(entry.clone());
                env.insert(name.to_owned(), value.to_owned());
            }
        }
        // `take` would note the secrets.
        self.record.insert("env".into(), (shown.into(), "flag --env".into()));
        Ok((env, secrets))
    }

    /// The variables that carry the simulation's settings into the scripts, checked before anything starts.
    fn simulation(&mut self) -> Result<Vec<(String, String)>, Error> {
        let keys = [
            ("sim-speed", "VLLM_BENCH_SIM_SPEED"),
            ("sim-seed", "VLLM_BENCH_SIM_SEED"),
            ("sim-devices", "VLLM_BENCH_SIM_DEVICES"),
            ("sim-device-memory", "VLLM_BENCH_SIM_DEVICE_MEMORY_GIB"),
            ("sim-fault", "VLLM_BENCH_SIM_FAULT"),
        ];
        let mut settings = None;
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        for (key, variable) in keys {
            let Some((texts, origin)) = self.layers.values(key) else { continue };
            self.take(key);
            given.insert(variable, texts.join(";"));
            let read = SimSettings::from_lookup(|name| given.get(name).cloned());
            settings = Some(read.map_err(|error| not_simulated(&origin, &texts.join(";"), error))?);
        }
        Ok(settings.map(|settings| settings.to_env()).unwrap_or_default())
    }
}

fn written(value: &FlagValue) -> Value {
    match value {
        FlagValue::Switch(_) => Value::Switch(true),
        FlagValue::Text(text) => Value::Text(text.clone()),
        FlagValue::List(words) => Value::List(words.clone()),
    }
}

/// A setting of the simulation that cannot be used: its own error, without the variable that would carry it.
fn not_simulated(origin: &Origin, value: &str, error: SettingError) -> Error {
    let (expected, hint) = match error {
        SettingError::Variable { source, .. } => return not_simulated(origin, value, *source),
        SettingError::Value { expected, .. } => (expected, None),
        SettingError::Fault(fault) => ("`NAME[:PARAM][@key=value][#ATTEMPTS]`", Some(fault.to_string())),
    };
    let value = value.escape_debug().to_string();
    Error::Invalid { origin: origin.clone(), value, expected: expected.to_owned(), hint }
}

fn invalid(origin: &Origin, value: &str, expected: &str) -> Error {
    Error::Invalid {
        origin: origin.clone(),
        value: value.escape_debug().to_string(),
        expected: expected.to_owned(),
        hint: None,
    }
}

/// A model reaches vLLM as one argument; what no id and no path has is refused.
fn read_model(text: &str) -> Option<String> {
    let text = text.trim_matches(' ');
    let valid = !text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control) && text.len() <= 1024;
    valid.then(|| text.to_owned())
}

fn positive<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Option<T> {
    text.trim().parse().ok().filter(|number| *number >= T::from(1))
}

fn read_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn read_engine(text: &str) -> Option<Engine> {
    match text {
        "vllm" => Some(Engine::Vllm),
        "sim" => Some(Engine::Sim),
        _ => None,
    }
}

fn read_port(text: &str) -> Option<PortChoice> {
    match text.trim() {
        "auto" => Some(PortChoice::Auto),
        number => number.parse().ok().filter(|port| *port > 0).map(PortChoice::Fixed),
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.trim().is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn resolve(change: impl FnOnce(&mut RunArgs), vars: &[(&str, &str)]) -> Result<Settings, String> {
        let mut args = RunArgs::default();
        change(&mut args);
        let environment = Environment::of(vars, Path::new("/work"));
        Settings::resolve(&args, &environment, Preset::Full).map_err(|error| error.to_string())
    }

    fn tps(settings: &Settings) -> Vec<String> {
        let axis = settings.sweep.groups[0].serve.iter().find(|axis| axis.key == "tensor-parallel-size");
        axis.unwrap().values.iter().map(Value::shown).collect()
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_presets_hold_the_defaults_of_the_user() {
        let settings = resolve(|_| (), &[]).unwrap();
        let plan = settings.plan().unwrap();
        assert_eq!((plan.experiments.len(), plan.skips.len()), (27, 9));
        assert_eq!(
            plan.experiments[0].server.flags.to_args().join(" "),
            "--dtype bfloat16 --block-size 64 --gpu-memory-utilization 0.9 --no-enable-prefix-caching --trust-remote-code \
             --disable-sliding-window --no-enable-log-requests --max-num-batched-tokens 8192 --max-model-len 10000 \
             --tensor-parallel-size 2 --enforce-eager"
        );
        assert_eq!(
            plan.experiments[0].workload.flags.to_args().join(" "),
            "--trust-remote-code --dataset-name random --ignore-eos --num-warmups 3 --random-input-len 1024 \
             --random-output-len 1024 --max-concurrency 32 --num-prompts 160"
        );
        assert_eq!(settings.results_dir, Path::new("/work/experiment_results"));
        assert_eq!(plan.experiments[0].server.env["VLLM_WORKER_MULTIPROC_METHOD"], "spawn");
        let sanity =
            Settings::resolve(&RunArgs::default(), &Environment::of(&[], Path::new("/")), Preset::Sanity).unwrap();
        assert_eq!(sanity.plan().unwrap().experiments.len(), 3);
        assert_eq!(sanity.timeout_startup, Duration::from_secs(180));
    }

    #[test]
    fn lists_take_spaces_commas_and_repetition() {
        for tp in [&["2", "4", "8"][..], &["2,4,8"], &["2,4", "8"], &["2 4 8"]] {
            assert_eq!(tps(&resolve(|a| a.tp = owned(tp), &[]).unwrap()), ["2", "4", "8"], "{tp:?}");
        }
        assert_eq!(tps(&resolve(|_| (), &[("VLLM_BENCH_TP", "1, 2")]).unwrap()), ["1", "2"]);
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_each_knows_its_origin() {
        let settings = resolve(
            |a| a.input_len = Some("7".into()),
            &[("VLLM_BENCH_INPUT_LEN", "9"), ("VLLM_BENCH_OUTPUT_LEN", "5")],
        )
        .unwrap();
        assert_eq!(settings.record["input-len"], ("7".into(), "flag --input-len".into()));
        assert_eq!(settings.record["output-len"], ("5".into(), "environment VLLM_BENCH_OUTPUT_LEN".into()));
        assert_eq!(settings.record["concurrency"].1, "preset full");
    }

    #[test]
    fn wrong_values_name_their_place() {
        let check = |change: fn(&mut RunArgs), expected: &str| {
            assert_eq!(resolve(change, &[]).unwrap_err(), expected);
        };
        check(|a| a.tp = vec!["x".into()], "invalid value `x` for `--tp`: expected a whole number of at least 1");
        check(|a| a.tp = vec!["0".into()], "invalid value `0` for `--tp`: expected a whole number of at least 1");
        check(|a| a.tp = vec![String::new()], "`--tp` needs at least one value");
        check(
            |a| a.quantization = vec!["off".into()],
            "invalid value `off` for `--quantization`: expected a quantization method of vLLM, or `none`",
        );
        check(
            |a| a.models = vec!["a\nb".into()],
            "invalid value `a\\nb` for `--models`: expected a Hugging Face id or a path",
        );
        check(
            |a| a.serve_arg = vec!["tp=4".into()],
            "`--tensor-parallel-size` cannot be set through `--serve-arg`: vllm-bench sets it itself",
        );
        check(
            |a| a.serve_arg = vec!["no:nonsense".into()],
            "`--serve-arg` drops `nonsense`, which is not among the default flags",
        );
        assert_eq!(
            resolve(|_| (), &[("VLLM_BENCH_PORT", "70000")]).unwrap_err(),
            "invalid value `70000` for the environment variable `VLLM_BENCH_PORT`: expected a number from 1 to 65535, or `auto`"
        );
    }

    #[test]
    fn serve_args_add_override_and_drop() {
        let settings = resolve(
            |a| {
                a.serve_arg =
                    owned(&["max_num_batched_tokens=4096", "--max-num-seqs=64", "no:dtype", "enable-prefix-caching"])
            },
            &[],
        )
        .unwrap();
        assert_eq!(
            settings.plan().unwrap().experiments[0].server.flags.to_args().join(" "),
            "--block-size 64 --gpu-memory-utilization 0.9 --trust-remote-code --disable-sliding-window \
             --no-enable-log-requests --max-num-batched-tokens 4096 --max-model-len 10000 --max-num-seqs 64 \
             --enable-prefix-caching --tensor-parallel-size 2 --enforce-eager"
        );
    }

    #[test]
    fn a_secret_is_kept_apart_from_what_is_written() {
        let settings = resolve(|a| a.env = owned(&["HF_TOKEN=hf_planted", "A=b c"]), &[]).unwrap();
        assert_eq!(settings.secret_env, [("HF_TOKEN".to_owned(), "hf_planted".to_owned())]);
        let written = format!("{:?} {:?}", settings.sweep, settings.record);
        assert!(!written.contains("hf_planted"), "{written}");
        assert_eq!(settings.plan().unwrap().experiments[0].server.env["A"], "b c");
    }
}

//! Resolved settings: no value is "maybe the default" any more, and each knows where it came from.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;
use indexmap::IndexMap;

use super::HIDDEN;
use super::assemble::{Assembled, assemble};
use super::how_to_run::{Finalists, Parallel, Place, PortChoice, Pushed, RunSettings, run_name};
use super::kept::{Kept, hide_login};
use super::language::Document;
use super::language::slo::{StatedLimit, stated};
use super::layers::{Layers, is_run_setting};
use super::resolve::{slurm, sweep, words};
use super::simulation::{no_faults_of_the_other_client, simulation};
use super::tree::{Kind, Node, Raw, read};
use super::{Environment, Error, Origin, Places, Preset, show};
use crate::cli::RunArgs;
use crate::dashboard::Gateway;
use crate::execute::slurm::Request;
use crate::execute::{ContainerRequest, StartLimit};
use crate::model::{Client, Engine, Plan};
use crate::plan::{FailureReason, OnFailure, RetryPolicy, Section, Sweep, Value, expand};
use crate::{mlflow, notify, safe};

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is measured; devices, facts of models and context are filled in by the commands.
    pub sweep: Sweep,
    /// The name that the run gets.
    pub name: Option<String>,
    /// Where run directories are made; absolute.
    pub results_dir: PathBuf,
    /// Limit from launch to ready.
    pub start_limit: StartLimit,
    /// Limit of the benchmark client.
    pub timeout_benchmark: Duration,
    /// Limit of a benchmark in which nothing moves; `None` = none.
    pub stall: Option<Duration>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// The server's port.
    pub port: PortChoice,
    /// oneAPI's environment script; `None` = not wanted.
    pub setvars: Option<PathBuf>,
    /// Whether launch scripts run in a login shell, which reads the user's profile.
    pub login: bool,
    /// The `vllm` the user named; `None` = look on PATH.
    pub vllm_bin: Option<PathBuf>,
    /// The container in which servers run; `None` = in none.
    pub container: Option<ContainerRequest>,
    /// Time zone of run directories and times shown.
    pub zone: Tz,
    /// Leave other vLLM processes of this user alone.
    pub keep_foreign: bool,
    /// Folder of the locks on devices; `None` = devices are not locked.
    pub device_locks: Option<PathBuf>,
    /// Show the server's and the client's output live.
    pub show_logs: bool,
    /// Where what `/metrics` says of the run is pushed to.
    pub pushgateway: Option<Pushed>,
    /// How often which failure is tried again.
    pub retry: RetryPolicy,
    /// What a failed experiment means for the others.
    pub on_failure: OnFailure,
    /// When a run goes on: failures that are left alone.
    pub skip_failure_reasons: Vec<FailureReason>,
    /// How many blocks run at once.
    pub parallel: Parallel,
    /// With [`Parallel::Auto`]: lanes that cost a larger part than this are given up.
    pub parallel_threshold: f64,
    /// What is measured again alone after lanes.
    pub finalists: Finalists,
    /// To which MLflow server the run is sent.
    pub mlflow: mlflow::Choice,
    /// Who is told of its end, and of what goes wrong.
    pub notify: Vec<notify::Target>,
    /// Warm-up prompts before the first measurement of each workload on a server start.
    pub warmup_prompts: u64,
    /// Pause after each measurement.
    pub cooldown: Duration,
    /// How often devices, host and server are sampled during a measurement; `None` = never.
    pub telemetry: Option<Duration>,
    /// Limits on metrics that a choice must keep; whether there are such metrics is checked by the commands.
    pub slo: Vec<StatedLimit>,
    /// The metric by which configurations are chosen, as written; whether there is such a metric is checked by the commands.
    pub objective: Option<Raw>,
    /// Whether flags, memory and devices are checked before anything starts.
    pub preflight: bool,
    /// Whether nothing is asked.
    pub yes: bool,
    /// Where experiments run.
    pub place: Place,
    /// What Slurm is asked for.
    pub slurm: Request,
    /// The run whose plan is extended.
    pub extend: Option<PathBuf>,
    /// Secret variables the user set: they go through the process environment, never into a script.
    pub secret_env: Vec<(String, String)>,
    /// Every setting as recorded, secrets redacted: key path -> value and origin.
    pub record: IndexMap<String, (serde_json::Value, String)>,
    /// Things the user should know that are no errors.
    pub warnings: Vec<String>,
    /// What the files hold that has no effect, or was not taken over.
    pub notes: Vec<String>,
    /// All layers as one tree of the sweep language. Secrets are in it: use [`show`] and `record` to show it.
    pub resolved: Node,
    /// Where the values of the sweep stand.
    pub places: Places,
    /// The sweep files, absolute, in their order.
    pub files: Vec<PathBuf>,
    /// The variables that carry the simulation's settings, whatever the engine.
    pub simulation: Vec<(String, String)>,
    /// Keys that a flag or a variable has, and `files` where there are sweep files.
    pub given: BTreeSet<&'static str>,
    /// Flags of `vllm serve` that a file's format sets by itself: a vLLM that does not know them does without.
    pub implied: Vec<&'static str>,
}

/// Settings that shape no plan, and change nothing without another one: the user is told so.
const MAY_BE_IDLE: [&str; 7] =
    ["container", "sim-speed", "parallel", "parallel-threshold", "finalists", "port", "slurm"];

/// Settings that shape the plan: with none of them given, a run that goes on is any that is unfinished.
const PLAN_KEYS: [&str; 33] = [
    "files",
    "env-file",
    "preset",
    "models",
    "tp",
    "quantization",
    "enforce-eager",
    "no-rule",
    "input-len",
    "output-len",
    "concurrency",
    "num-prompts",
    "max-model-len",
    "serve-arg",
    "bench-arg",
    "env",
    "runs",
    "starts",
    "max-starts",
    "order",
    "order-seed",
    "no-reuse",
    "engine",
    "client",
    "sim-seed",
    "sim-devices",
    "sim-device-memory",
    "sim-noise",
    "sim-noise-within",
    "sim-drift",
    "sim-outliers",
    "sim-interference",
    "sim-fault",
];

impl Settings {
    /// Resolves flags, environment, sweep files and preset. `default`: the preset without files; `sanity` stays below
    /// files that name none.
    ///
    /// # Errors
    /// The first value that cannot be used, with the place where it stands.
    pub fn resolve(args: &RunArgs, environment: &Environment, default: Preset) -> Result<Self, Error> {
        Self::resolve_over(args, environment, default, None)
    }

    /// As [`Settings::resolve`], over the settings of a run that goes on.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn resolve_over(
        args: &RunArgs,
        environment: &Environment,
        default: Preset,
        kept: Option<&Kept>,
    ) -> Result<Self, Error> {
        no_swallowed_file(args, environment)?;
        let layers = Layers::of_run(args, environment);
        let below = (args.files.is_empty() || default == Preset::Sanity).then_some(default);
        let Assembled { mut tree, notes, implied } = assemble(&args.files, &layers, environment, below, kept)?;
        slurm::check_keys(&tree)?;
        let document: Document = read(&tree)?;
        // From here on only those know it who push.
        hide_login(&mut tree);
        let variables = layers.unknown_variables(is_run_setting).into_iter();
        let mut warnings: Vec<String> =
            variables.map(|name| format!("the environment variable `{name}` is no setting of vllm-bench")).collect();

        let engine = words::one(document.engine.as_ref(), "engine", "`vllm` or `sim`", words::engine)?;
        let simulation = simulation(&document)?;
        let simulated: &[(String, String)] = if engine == Engine::Sim { &simulation } else { &[] };
        let mut resolved = sweep::resolve(&document, engine, simulated)?;
        resolved.sweep.client = words::one(document.client.as_ref(), "client", "`vllm` or `builtin`", words::client)?;
        if resolved.sweep.client == Client::Builtin {
            no_faults_of_the_other_client(&document)?;
        }
        for (name, value) in &resolved.secrets {
            safe::learn(safe::in_secret(value));
            safe::learn(safe::in_variable(name, value));
        }
        warnings.extend(resolved.warnings);
        warnings.extend(too_long(&resolved.sweep));
        let max = tree.find(&["repeats", "max"]).filter(|max| !max.origin.is_default() && !resolved.sweep.repeats.auto);
        warnings
            .extend(max.map(|max| format!("{}: the most starts have no effect without `starts: auto`", max.origin)));

        let run = RunSettings::of(&document, environment, engine == Engine::Sim)?;
        // Of a run that goes on they were there when it began, and on a node they need not be.
        if run.place == Place::Slurm && kept.is_none() {
            slurm::check_files(document.slurm.as_ref(), &run.slurm)?;
        }
        if safe::holds_secret(&run.results_dir.to_string_lossy()) {
            let node = document.results_dir.as_ref().map(|raw| &raw.node);
            let origin = node.map_or_else(|| Origin::flag("results-dir"), |node| node.origin.clone());
            let problem =
                "the path holds a secret, which is written nowhere: no file in it could name its place".to_owned();
            return Err(Error::Argument { origin, problem, hints: vec!["choose another directory".to_owned()] });
        }
        let on = |key: &'static str| layers.one(key).is_some_and(|(text, _)| words::switch(&text) == Some(true));
        let mut given: BTreeSet<&'static str> =
            PLAN_KEYS.into_iter().chain(MAY_BE_IDLE).filter(|key| layers.is_given(key)).collect();
        given.extend((!args.files.is_empty()).then_some("files"));
        Ok(Self {
            sweep: resolved.sweep,
            name: run_name(document.name.as_ref())?,
            results_dir: run.results_dir,
            start_limit: run.start_limit,
            timeout_benchmark: run.timeouts[0],
            stall: run.stall,
            grace: run.timeouts[1],
            port: run.port,
            setvars: run.setvars,
            login: run.login,
            vllm_bin: run.vllm_bin,
            container: run.container,
            zone: run.zone,
            // A simulation needs no device: it has no reason to end what others serve.
            keep_foreign: run.keep_foreign || engine == Engine::Sim,
            device_locks: run.device_locks,
            show_logs: run.show_logs,
            // What a record could not keep does not stand above the variable of now.
            pushgateway: match (run.pushgateway, layers.one("pushgateway")) {
                (Some(Pushed::Forgotten), Some((text, _))) => {
                    Gateway::parse(&text).map_or(Some(Pushed::Forgotten), |gateway| Some(Pushed::To(gateway)))
                }
                (pushed, _) => pushed,
            },
            retry: run.retry,
            on_failure: run.on_failure,
            skip_failure_reasons: run.skip_failure_reasons,
            parallel: run.parallel,
            parallel_threshold: run.parallel_threshold,
            finalists: run.finalists,
            mlflow: run.mlflow,
            notify: run.notify,
            warmup_prompts: run.warmup_prompts,
            cooldown: run.cooldown,
            telemetry: run.telemetry,
            slo: document.slo.as_ref().map(stated).transpose()?.unwrap_or_default(),
            objective: one_word(document.objective.as_ref())?,
            preflight: run.preflight,
            yes: on("yes"),
            place: run.place,
            slurm: run.slurm,
            extend: layers.one("extend").map(|(path, _)| PathBuf::from(path)),
            // Of a run that goes on the names are known, and the values come from the environment.
            secret_env: resolved.secrets.into_iter().filter(|(_, value)| value != HIDDEN).collect(),
            record: show::record(&tree, engine == Engine::Sim),
            warnings,
            notes,
            resolved: tree,
            places: resolved.places,
            files: args.files.iter().map(|file| environment.absolute(file)).collect(),
            simulation,
            given,
            implied,
        })
    }

    /// Expands the sweep.
    ///
    /// # Errors
    /// When a rule leaves out every combination.
    pub fn plan(&self) -> Result<Plan, Error> {
        let plan = expand(&self.sweep);
        match plan.skips.first() {
            Some(skip) if plan.experiments.is_empty() => {
                let mut rules: Vec<String> = Vec::new();
                for skip in &plan.skips {
                    if !rules.contains(&skip.rule) {
                        rules.push(skip.rule.clone());
                    }
                }
                let explanation = skip.explanation.clone().unwrap_or_else(|| skip.reason.clone());
                Err(Error::EmptyPlan { rules, explanation })
            }
            _ => Ok(plan),
        }
    }

    /// What the manifest keeps of them, so that the run brings them back when it goes on.
    pub fn kept(&self) -> Kept {
        let mut tree = self.resolved.clone();
        // A path means the same from wherever the run goes on.
        let results = Some(self.results_dir.clone());
        let image = self.container.as_ref().map(|container| PathBuf::from(&container.image));
        let image = image.filter(|image| image.is_absolute());
        let paths: [(&[&str], &Option<PathBuf>); 7] = [
            (&["container", "image"], &image),
            (&["vllm-bin"], &self.vllm_bin),
            (&["setvars"], &self.setvars),
            (&["device-locks"], &self.device_locks),
            (&["results-dir"], &results),
            (&["slurm", "program"], &self.slurm.program),
            (&["slurm", "prelude-file"], &self.slurm.prelude_file),
        ];
        for (keys, path) in paths {
            let node = tree.find(keys).filter(|node| node.kind != Kind::Null).map(|node| node.origin.clone());
            if let (Some(origin), Some(path)) = (node, path) {
                tree.put(keys, Node::text(path.to_string_lossy(), &origin));
            }
        }
        Kept::of(tree)
    }

    /// Whether a flag, a variable or a file shapes the plan.
    pub fn plan_is_given(&self) -> bool {
        PLAN_KEYS.iter().any(|key| self.given.contains(key))
    }

    /// Whether the simulated vLLM plays the server.
    pub fn simulated(&self) -> bool {
        self.sweep.engine == Engine::Sim
    }
}

/// What must be one word.
fn one_word(raw: Option<&Raw>) -> Result<Option<Raw>, Error> {
    words::optional(raw, "the key of a metric", words::non_empty).map(|found| raw.filter(|_| found.is_some()).cloned())
}

/// Loads that fit no server of their group.
fn too_long(sweep: &Sweep) -> Option<String> {
    sweep.groups.iter().find_map(|group| {
        let metrics = |section: Section, key: &str| -> Vec<u64> {
            let axes = if section == Section::Serve { &group.serve } else { &group.bench };
            let values = axes.iter().filter(|axis| axis.key == key).flat_map(|axis| &axis.values);
            values.filter_map(|value| if let Value::Text(text) = value { text.parse().ok() } else { None }).collect()
        };
        let input = metrics(Section::Bench, "random-input-len").into_iter().min()?;
        let output = metrics(Section::Bench, "random-output-len").into_iter().min()?;
        let context = metrics(Section::Serve, "max-model-len").into_iter().max()?;
        let total = input.saturating_add(output);
        (total > context).then(|| {
            format!("`--input-len` + `--output-len` ({total}) is above `--max-model-len` ({context}): the server will refuse the requests")
        })
    })
}

/// Refuses a sweep file that stands behind a flag which takes several values, and was read as one of them: another sweep
/// would be run.
fn no_swallowed_file(args: &RunArgs, environment: &Environment) -> Result<(), Error> {
    let dry_run: Vec<String> = args.dry_run.iter().flatten().cloned().collect();
    let lists: [(&str, &[String]); 6] = [
        ("models", &args.models),
        ("tp", &args.tp),
        ("quantization", &args.quantization),
        ("enforce-eager", &args.enforce_eager),
        ("skip-failure-reasons", &args.skip_failure_reasons),
        ("dry-run", &dry_run),
    ];
    let is_file = |value: &&String| {
        let path = std::path::Path::new(value.as_str());
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        ["yaml", "yml", "json", "toml"].contains(&extension) && environment.absolute(path).is_file()
    };
    for (flag, values) in lists {
        if let Some(value) = values.iter().find(is_file) {
            return Err(Error::Argument {
                origin: Origin::flag(flag),
                problem: format!("`{value}` is a file, and was read as a value of this flag"),
                hints: vec!["write sweep files before the flags: `vllm-bench run FILES --models …`".to_owned()],
            });
        }
    }
    // A number where files stand is one more experiment for `--dry-run`, which takes one.
    let is_number = |file: &&std::path::PathBuf| {
        file.to_str().is_some_and(|text| text.parse::<u64>().is_ok()) && !environment.absolute(file).exists()
    };
    if args.dry_run.is_some()
        && let Some(number) = args.files.iter().find(is_number)
    {
        return Err(Error::Argument {
            origin: Origin::flag("dry-run"),
            problem: format!(
                "`{}` was read as a sweep file: the flag takes one number, right behind it",
                number.display()
            ),
            hints: vec![format!(
                "write `--dry-run {}` for the scripts of that experiment, or `--dry-run` alone for those of all",
                number.display()
            )],
        });
    }
    Ok(())
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
             --random-output-len 1024 --max-concurrency 32 --num-prompts 160 --temperature 0"
        );
        assert_eq!(settings.results_dir, Path::new("/work/experiment_results"));
        assert_eq!(plan.experiments[0].server.env["VLLM_WORKER_MULTIPROC_METHOD"], "spawn");
        let sanity =
            Settings::resolve(&RunArgs::default(), &Environment::of(&[], Path::new("/")), Preset::Sanity).unwrap();
        assert_eq!(sanity.plan().unwrap().experiments.len(), 3);
        assert_eq!(sanity.start_limit, StartLimit { limit: Duration::from_secs(180), extends: true });
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
        assert_eq!(settings.record["bench.random-input-len"], (7.into(), "flag --input-len".into()));
        assert_eq!(settings.record["bench.random-output-len"], (5.into(), "environment VLLM_BENCH_OUTPUT_LEN".into()));
        assert_eq!(settings.record["bench.max-concurrency"].1, "preset full");
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

    /// Settings of sweep files, by name and text, in a directory of their own.
    fn of_files(
        files: &[(&str, &str)],
        change: impl FnOnce(&mut RunArgs),
        vars: &[(&str, &str)],
        default: Preset,
    ) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut args =
            RunArgs { files: files.iter().map(|(name, _)| PathBuf::from(name)).collect(), ..RunArgs::default() };
        change(&mut args);
        Settings::resolve(&args, &Environment::of(vars, dir.path()), default).map_err(|error| error.to_string())
    }

    fn axis(settings: &Settings, group: usize, key: &str) -> String {
        let group = &settings.sweep.groups[group];
        let axis = group.serve.iter().chain(&group.bench).chain(&group.env).find(|axis| axis.key == key);
        axis.map_or("-".into(), |axis| axis.values.iter().map(Value::shown).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn later_files_variables_and_flags_win_over_files_and_groups() {
        let files = [
            (
                "a.yaml",
                "serve: {model: org/a, max-num-seqs: [1, 2], dtype: half, seed: 1}\nexperiments: [{name: one, serve: {max-num-seqs: 3, dtype: float16}}]",
            ),
            (
                "b.toml",
                "[serve]\nmax_num_seqs = 4\n[[experiments]]\nname = 'two'\n[experiments.bench]\nmax-concurrency = '1..3'\n",
            ),
        ];
        let settings = of_files(&files, |_| (), &[], Preset::Full).unwrap();
        let names: Vec<_> = settings.sweep.groups.iter().map(|group| group.name.clone().unwrap()).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!([axis(&settings, 0, "max-num-seqs"), axis(&settings, 1, "max-num-seqs")], ["3", "4"]);
        assert_eq!(axis(&settings, 1, "max-concurrency"), "1 2 3");
        assert_eq!(axis(&settings, 1, "block-size"), "-", "files stand on no preset");
        let settings = of_files(
            &files,
            |args| args.serve_arg = owned(&["max-num-seqs=9", "no:seed"]),
            &[("VLLM_BENCH_SERVE_ARG", "dtype=auto"), ("VLLM_BENCH_CONCURRENCY", "5")],
            Preset::Full,
        )
        .unwrap();
        for group in 0..2 {
            assert_eq!(axis(&settings, group, "max-num-seqs"), "9");
            assert_eq!(axis(&settings, group, "max-concurrency"), "5");
            assert_eq!(axis(&settings, group, "seed"), "default");
        }
        assert_eq!(axis(&settings, 0, "dtype"), "float16", "a flag replaces the variable of the same name");
        assert_eq!(settings.record["serve.max-num-seqs"].1, "flag --serve-arg");
        assert_eq!(settings.record["serve.model"].1, "a.yaml:1");
        assert_eq!(settings.record["order"].1, "default");
        assert!(settings.plan_is_given());
    }

    #[test]
    fn the_last_file_that_names_a_preset_wins_and_a_flag_over_it() {
        let files = [("a.yaml", "preset: full"), ("b.yaml", "preset: sanity\ntimeouts: {grace: 9s}")];
        let settings = of_files(&files, |_| (), &[], Preset::Full).unwrap();
        assert_eq!(axis(&settings, 0, "max-model-len"), "2048");
        assert_eq!((settings.start_limit.limit.as_secs(), settings.grace.as_secs()), (180, 9));
        let settings = of_files(&files, |args| args.preset = Some("full".into()), &[], Preset::Full).unwrap();
        assert_eq!(axis(&settings, 0, "max-model-len"), "10000");
        let file = [("a.yaml", "bench: {num-prompts: 2}")];
        assert_eq!(axis(&of_files(&file, |_| (), &[], Preset::Sanity).unwrap(), 0, "max-model-len"), "2048");
        assert!(of_files(&file, |_| (), &[], Preset::Full).unwrap_err().contains("the key `model` is missing"));
    }

    #[test]
    fn other_spellings_mean_the_same() {
        let text = "serve_args: {model: m, --tp: 2}\nbench-args: {max_concurrency: 3}\noutput_dir: out\nnum-runs: 4\n\
                    server: {mode: spawn, command: [/opt/vllm, serve], prelude: ['source /x/setvars.sh --force'], \
                    env: {A: true}, server-ready-timeout: 7m, docker: {image: x, shm_size: 2g}}\ntime-zone: UTC";
        let settings = of_files(&[("a.yaml", text)], |_| (), &[], Preset::Full).unwrap();
        assert_eq!([axis(&settings, 0, "tensor-parallel-size"), axis(&settings, 0, "max-concurrency")], ["2", "3"]);
        assert_eq!(axis(&settings, 0, "A"), "true");
        assert!(settings.results_dir.ends_with("out"));
        assert_eq!((settings.sweep.repeats.runs, settings.start_limit.limit.as_secs()), (4, 420));
        assert_eq!(settings.vllm_bin, Some("/opt/vllm".into()));
        assert_eq!(settings.setvars, Some("/x/setvars.sh".into()));
        assert_eq!(settings.zone, Tz::UTC);
        let container = settings.container.unwrap();
        assert_eq!((container.image.as_str(), container.shm_size.as_str()), ("x", "2g"));
    }

    #[test]
    fn run_settings_are_read_from_files_and_flags() {
        let text = "serve: {model: m}\nretry: {oom: {attempts: 2, back-off: 30s}}\non-failure: stop\n\
                    skip-failure-reasons: [oom]\nwarmup: 8\ncooldown: 2s\npreflight: false\nreuse: false\ndevices: 4\n\
                    order: random\norder-seed: 7\nrepeats: {starts: 2}\nbaseline: {dtype: [auto, float16]}\nsim: {speed: 50}";
        let settings = of_files(&[("a.yaml", text)], |_| (), &[], Preset::Full).unwrap();
        let oom = settings.retry.for_cause(crate::model::Cause::OutOfDeviceMemory);
        assert_eq!((oom.attempts, oom.back_off.as_secs()), (2, 30));
        assert_eq!(settings.retry.for_cause(crate::model::Cause::Crashed).attempts, 1, "the default stays");
        assert_eq!(settings.on_failure, OnFailure::Stop);
        assert_eq!(settings.skip_failure_reasons, [FailureReason::Oom]);
        assert_eq!((settings.warmup_prompts, settings.cooldown.as_secs(), settings.preflight), (8, 2, false));
        assert_eq!((settings.sweep.reuse, settings.sweep.devices), (false, Some(4)));
        assert_eq!(settings.sweep.order, crate::plan::Order::Random(7));
        assert_eq!((settings.sweep.repeats.runs, settings.sweep.repeats.starts), (1, 2));
        assert!(
            matches!(&settings.sweep.baseline, Some(crate::plan::Baseline::Values(axes)) if axes[0].values.len() == 2)
        );
        let settings = of_files(
            &[("a.yaml", text)],
            |args| {
                args.retry = owned(&["oom=5", "server_died=3"]);
                (args.no_preflight, args.no_reuse, args.yes) = (true, true, true);
                args.skip_failure_reasons = owned(&["none"]);
                args.order = Some("interleaved".into());
            },
            &[("VLLM_BENCH_WARMUP", "0")],
            Preset::Full,
        )
        .unwrap();
        assert_eq!(settings.retry.for_cause(crate::model::Cause::OutOfDeviceMemory).attempts, 5);
        assert_eq!(settings.retry.for_cause(crate::model::Cause::ServerDied).attempts, 3);
        assert_eq!((settings.warmup_prompts, settings.yes), (0, true));
        assert!(settings.skip_failure_reasons.is_empty());
        assert_eq!(settings.sweep.order, crate::plan::Order::Interleaved);
    }

    #[test]
    fn a_rule_is_switched_off_by_its_flag_wherever_it_stands() {
        let text = "serve: {model: m, max-num-seqs: [1, 2, 4]}\nexclude: [{name: no-two, when: {max-num-seqs: 2}}]\n\
                    include: [{name: small, when: {max-num-seqs: '< 4'}}]\n\
                    experiments: [{exclude: [{name: no-one, when: {max-num-seqs: 1}}]}]";
        let planned = |rules: &[&str]| {
            let settings = of_files(&[("a.yaml", text)], |args| args.no_rule = owned(rules), &[], Preset::Full);
            settings.map(|settings| {
                settings.plan().map(|plan| plan.experiments.len()).map_err(|error| error.hints().join("; "))
            })
        };
        let hints = planned(&[]).unwrap().unwrap_err();
        assert!(hints.contains("`--no-rule no-one --no-rule no-two` switches the rules off"), "{hints}");
        assert!(hints.contains("`include`"), "{hints}");
        for (rules, count) in [
            (&["no-two"][..], 1),
            (&["no-one"], 1),
            (&["no-one,no-two"], 2),
            (&["no-one", "no-two", "small"], 3),
            (&["small"], 1),
        ] {
            assert_eq!(planned(rules).unwrap().unwrap(), count, "{rules:?}");
        }
        assert!(planned(&["no-tow"]).unwrap_err().contains("there is no rule `no-tow`"));
        let by_variable =
            of_files(&[("a.yaml", text)], |_| (), &[("VLLM_BENCH_NO_RULE", "no-one,no-two")], Preset::Full);
        assert_eq!(by_variable.unwrap().plan().unwrap().experiments.len(), 2);
    }

    #[test]
    fn places_of_values_and_rules_are_known() {
        let text = "serve:\n  model: m\n  max-num-seqs: [1,\n    pow2:4..8]\nexclude:\n  - {name: big, when: {max-num-seqs: 8}}";
        let settings = of_files(&[("a.yaml", text)], |_| (), &[], Preset::Full).unwrap();
        let value = |value| settings.places.value(Section::Serve, "max-num-seqs", value).unwrap().to_string();
        assert_eq!([value("1"), value("4"), value("8")], ["a.yaml:3:18", "a.yaml:4:5", "a.yaml:4:5"]);
        assert_eq!(settings.places.key(Section::Serve, "model").unwrap().to_string(), "a.yaml:2:10");
        assert_eq!(settings.places.rule("big").unwrap().to_string(), "a.yaml:6:5");
        assert_eq!(settings.places.key(Section::Bench, "model"), None);
    }

    #[test]
    fn flags_with_a_meaning_of_their_own_say_what_is_wrong() {
        let check = |change: fn(&mut RunArgs), expected: &str| {
            assert_eq!(resolve(change, &[]).unwrap_err(), expected);
        };
        check(|a| a.retry = owned(&["crahs=1"]), "`--retry`: `crahs` is no reason of a failure");
        check(|a| a.retry = owned(&["crash"]), "invalid value `crash` for `--retry`: expected `REASON=N`, or `none`");
        check(
            |a| a.order = Some("x".into()),
            "invalid value `x` for `--order`: expected `auto`, `grouped`, `interleaved` or `random`",
        );
        check(|a| a.runs = Some("0".into()), "invalid value `0` for `--runs`: expected a whole number from 1 to 10000");
        check(
            |a| a.preset = Some("ful".into()),
            "invalid value `ful` for `--preset`: expected a preset: `full`, `sanity` or `none`",
        );
        check(
            |a| a.cooldown = Some("x".into()),
            "invalid value `x` for `--cooldown`: expected a duration such as `10s`",
        );
    }

    #[test]
    fn an_axis_of_a_hundred_thousand_values_is_read_at_once() {
        let text = "serve: {model: m}\nbench: {seed: [0..99999]}";
        // Quadratic work on it would take minutes.
        let settings = of_files(&[("a.yaml", text)], |_| (), &[], Preset::Full).unwrap();
        assert_eq!(settings.sweep.groups[0].bench[0].values.len(), 100_000);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]
        #[test]
        fn no_file_makes_it_panic(
            which in 0..4_usize,
            at in proptest::collection::vec((0..100_usize, proptest::prelude::any::<proptest::sample::Index>(), "\\PC|[\\[\\]{}:,#&*!|>'\"%@`~\\-?\n\t ]{1,3}"), 0..6),
        ) {
            let texts = [
                include_str!("presets/full.yaml"),
                "serve: {model: [a, b], tp: 1..4, x: {y: [1]}}\nexperiments:\n  - name: n\n    bench: {max-concurrency: [1, pow2:2..8]}\n    exclude: [{when: {tp: '> 2', x: none}}]\nretry: {oom: {attempts: 2, back-off: 3s}}\nlink: [{a: max-concurrency}]\nbaseline: n\nserver: {mode: spawn, command: [vllm, serve]}\nsim: {fault: [network]}",
                "{\"serve\": {\"model\": \"m\", \"a\": [1, [2, 3]]}, \"rules\": {\"devices\": false}, \"repeats\": {\"runs\": 2}}",
                "serve = { model = 'm' }\nport = 1\n[[experiments]]\nname = 'a'\n[timeouts]\ngrace = '1s'\n",
            ];
            let mut text: Vec<char> = texts[which].chars().collect();
            for (drop, index, with) in at {
                let at = index.index(text.len() + 1);
                let end = (at + drop % 12).min(text.len());
                text.splice(at..end, with.chars());
            }
            let text: String = text.into_iter().collect();
            let name = ["a.yaml", "a.yaml", "a.json", "a.toml"][which];
            if let Err(message) = of_files(&[(name, &text)], |_| (), &[], Preset::Full) {
                proptest::prop_assert!(message.contains(name) || !message.is_empty());
            }
        }
    }
}

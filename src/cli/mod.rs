//! The command line as clap sees it: types and help texts. No logic, no defaults, no I/O: values stay as written, and
//! `config` resolves them together with environment variables and presets, so that each knows its origin.

mod choice;
mod format;
mod load;
mod ops;
mod plot;
mod prompts;
mod report;
mod run;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use choice::{BaselineArgs, ChoiceArgs, CostArgs, JsonArgs, TextOrJson};
pub use format::{AnalyzeFormat, CompareFormat, HistoryFormat, PlotFormat, RecommendFormat};
pub use load::{ArrivalInstant, Backend, LoadArgs, LoadLine, LoadPattern, RampUpStrategy, Written};
pub use ops::{
    AnalyzeArgs, BackupArgs, CheckArgs, CleanArgs, CompareArgs, CompletionsArgs, DashboardArgs, DiagnoseArgs,
    ExportArgs, ExportCommand, HistoryArgs, ListArgs, LogsArgs, MlflowArgs, RecommendArgs, StatusArgs, StopArgs,
};
pub use plot::{PlotArgs, PlotKind, PlotOver};
pub use prompts::{
    PromptArgs, PromptFormat, PromptsAnswersArgs, PromptsArgs, PromptsBuildArgs, PromptsCommand, PromptsInspectArgs,
    PromptsRenderArgs, TokenizerMode,
};
pub use report::ReportArgs;
pub use run::{ConfigArgs, ConfigCommand, PlanArgs, RunArgs, TaskArgs};

/// Find the fastest way to serve a model with vLLM, on the hardware at hand.
///
/// Expands a grid of server configurations, takes each through a real `vllm serve` and `vllm bench serve`, records
/// everything, survives failures, resumes, and says which configuration to use.
#[derive(Debug, Parser)]
#[command(name = "vllm-bench", version, about, after_long_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// When to use colour (NO_COLOR is honoured too).
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,

    /// Say less: results and errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Say more (-vv: everything vllm-bench knows of itself).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// Reads a command line.
    ///
    /// # Errors
    /// Help, the version, and what is wrong with a flag.
    pub fn read(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = numbers(Self::command()).try_get_matches_from(normalized(words))?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let mut below = &matches;
        while let Some((_, matches)) = below.subcommand() {
            below = matches;
        }
        if let Some(load) = cli.load() {
            load.written = load::written(below);
        }
        Ok(cli)
    }

    /// The flags of a load, where the command has them.
    fn load(&mut self) -> Option<&mut LoadArgs> {
        match &mut self.command {
            Command::Load(args) => Some(args),
            Command::Config(ConfigArgs { command: ConfigCommand::Load(args) }) => Some(args),
            Command::Prompts(args) => match &mut args.command {
                PromptsCommand::Answers(answers) => Some(&mut answers.load),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Lets the value of every flag be a negative number, so that it is told what the flag expects, rather than that `-5` is no flag.
fn numbers(command: clap::Command) -> clap::Command {
    let takes = |arg: &clap::Arg| !arg.is_positional() && arg.get_action().takes_values();
    command.mut_args(|arg| if takes(&arg) { arg.allow_negative_numbers(true) } else { arg }).mut_subcommands(numbers)
}

/// The words of a command line as clap takes them: `load` is as lenient as vLLM's argument parser, for which
/// `--num_prompts` is `--num-prompts`.
fn normalized(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    if words.get(1).is_none_or(|word| word != "sim-vllm") {
        words = with_values(words);
    }
    let Some(load) = words.iter().position(|word| word == "load") else { return words };
    for word in words.iter_mut().skip(load + 1) {
        let Some(text) = word.to_str().filter(|text| text.starts_with("--")) else { continue };
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.contains('_') {
            let name = name.replace('_', "-");
            *word = value.map_or(name.clone(), |value| format!("{name}={value}")).into();
        }
    }
    words
}

/// `--flag -5%` as `--flag=-5%`: no short flag is a digit, and clap takes for a value only what is a number.
fn with_values(words: Vec<OsString>) -> Vec<OsString> {
    let is_negative = |word: &OsString| {
        word.to_str().and_then(|text| text.strip_prefix('-')).is_some_and(|rest| {
            rest.starts_with(|sign: char| sign.is_ascii_digit() || sign == '.') && rest.parse::<f64>().is_err()
        })
    };
    let is_flag = |word: &OsString| {
        word.to_str().is_some_and(|text| text.starts_with("--") && text.len() > 2 && !text.contains('='))
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(words.len());
    for word in words {
        match joined.last_mut() {
            Some(flag) if is_negative(&word) && is_flag(flag) => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal that can show it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the full sweep
    Run(Box<RunArgs>),
    /// Run a quick validation: one model, few tokens
    Sanity(Box<RunArgs>),
    /// Show what a sweep would measure; start nothing
    Plan(Box<PlanArgs>),
    /// Show the settings in effect, or the schema of sweep files
    Config(ConfigArgs),
    /// List the runs: what they are called, how they stand, what they recommend
    List(ListArgs),
    /// Show whether a run is live, how far it is, and what failed
    Status(StatusArgs),
    /// Show the runs of a results directory as a page in the browser, and for Prometheus
    Dashboard(DashboardArgs),
    /// End the live run in order, and whatever server of ours is left
    Stop(StopArgs),
    /// Follow the newest log
    Logs(LogsArgs),
    /// Check whether this machine can run a sweep
    Check(CheckArgs),
    /// Analyse a run and write its reports
    Analyze(AnalyzeArgs),
    /// Compare two runs: what changed, and how sure that is
    Compare(CompareArgs),
    /// Show the runs over time: the trend of a configuration's metric, and where it changed
    History(HistoryArgs),
    /// Say which configuration of a run to use, and why
    Recommend(RecommendArgs),
    /// Draw plots of runs: SVG or PNG
    Plot(Box<PlotArgs>),
    /// Write a run as one HTML page: recommendation, table, plots, failures
    Report(ReportArgs),
    /// Send a run to another program's server
    Export(ExportArgs),
    /// Copy a results directory, verified
    Backup(BackupArgs),
    /// Remove runs, after asking
    Clean(CleanArgs),
    /// Send a workload to a server: `vllm bench serve`, inside this program
    #[command(infer_long_args = true)]
    Load(Box<LoadArgs>),
    /// Look at, prepare or try the prompts of a workload
    Prompts(Box<PromptsArgs>),
    /// Name the cause of a failure from any log of a vLLM server
    Diagnose(DiagnoseArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
    /// The simulated vLLM (used by `--engine sim`)
    #[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
    SimVllm {
        /// What `vllm` would get.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// One task of a run on a cluster (used by its batch scripts)
    #[command(hide = true)]
    Task(TaskArgs),
    /// A process guard (used by `run`)
    #[command(name = "__guard", hide = true)]
    Guard,
    /// Holds a rank of a server on this node (used by `run`)
    #[command(name = "__rank", hide = true)]
    Rank {
        /// What to hold.
        order: std::path::PathBuf,
        /// Its number.
        rank: u32,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  0      every planned experiment has a valid result, or was skipped by a rule
  1      the run ended and at least one experiment failed
  2      a bad flag, file or plan: nothing was started
  3      nothing to do, or nothing found
  4      the environment: vLLM missing, port taken, no device
  5      a run directory could not be read or written, or is locked
  70     a bug in vllm-bench
  128+n  ended by signal n, after an orderly stop";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_begin_with_a_minus_whatever_its_unit() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (flag, read) in [
            ("--sim-noise", (|run| &run.sim_noise) as fn(&RunArgs) -> &Option<String>),
            ("--sim-noise-within", |run| &run.sim_noise_within),
            ("--sim-drift", |run| &run.sim_drift),
            ("--sim-outliers", |run| &run.sim_outliers),
            ("--sim-interference", |run| &run.sim_interference),
            ("--sim-speed", |run| &run.sim_speed),
            ("--parallel-threshold", |run| &run.parallel_threshold),
            ("--cooldown", |run| &run.cooldown),
            ("--noise-check", |run| &run.noise_check),
        ] {
            for value in ["-5%", "-5", "-.5s", "-1e3x"] {
                let cli = Cli::read(words(&format!("vllm-bench run {flag} {value} --yes")).into_iter()).unwrap();
                let Command::Run(run) = cli.command else { unreachable!() };
                assert_eq!((read(&run).as_deref(), run.yes), (Some(value), true), "{flag}");
            }
        }
        let untouched = words("vllm-bench sim-vllm bench serve --x -5%");
        assert_eq!(normalized(untouched.clone().into_iter()), untouched);
        assert!(Cli::read(words("vllm-bench run -5%").into_iter()).is_err(), "no value of a flag");
    }
}

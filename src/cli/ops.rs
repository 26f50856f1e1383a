//! Flags of the commands around a run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::choice::{BaselineArgs, ChoiceArgs, CostArgs, JsonArgs};
use super::format::{AnalyzeFormat, CompareFormat, HistoryFormat, RecommendFormat, or_json};

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where runs are (default: $VLLM_BENCH_RESULTS_DIR, ./experiment_results, ./sanity_test_results)
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// For whom.
    #[command(flatten)]
    pub output: JsonArgs,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Where runs or results of `load` are (default: $VLLM_BENCH_RESULTS_DIR, ./experiment_results, ./sanity_test_results)
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    pub results_dir: Option<PathBuf>,
    /// Show the trend of this metric (default: the objective of the newest run)
    #[arg(long, value_name = "KEY")]
    pub metric: Option<String>,
    /// Show the trend of a configuration: its settings ('tp=2,max-num-seqs=64') or its name (default: those of most runs)
    #[arg(long, value_name = "SETTINGS|NAME")]
    pub config: Vec<String>,
    /// Settings of the server in which the runs of one trend may differ
    #[arg(long, value_name = "KEYS")]
    pub ignore: Vec<String>,
    /// Only so many runs, the newest
    #[arg(long, value_name = "N")]
    pub last: Option<String>,
    /// Draw the trends: a file that ends in .svg or .png
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Where to write (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Format (default text)
    #[arg(long, value_name = "FORMAT")]
    format: Option<HistoryFormat>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl HistoryArgs {
    /// What the history is written as.
    pub fn format(&self) -> HistoryFormat {
        or_json(self.format, self.json)
    }
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The run to show (default: the live one, else the newest)
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Show it again every second until the run ends
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub watch: bool,
    /// With --json: print every event of the run, one per line, as it happens, until the run ends
    #[arg(long, conflicts_with = "watch")]
    pub follow: bool,
    /// For whom.
    #[command(flatten)]
    pub output: JsonArgs,
}

/// Flags of `dashboard`.
#[derive(Debug, Args)]
pub struct DashboardArgs {
    /// The run to show first, or a results directory (default: the live run, else the newest)
    #[arg(value_name = "RUN|DIR")]
    pub run: Option<PathBuf>,
    /// Where runs are (default: $VLLM_BENCH_RESULTS_DIR, ./experiment_results, ./sanity_test_results)
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Where to listen: a port, or ADDRESS:PORT (default 127.0.0.1:8765; port 0: a free one)
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Let the page stop runs
    #[arg(long)]
    pub allow_control: bool,
    /// Answer /metrics without the token
    #[arg(long)]
    pub metrics_open: bool,
    /// A further name under which browsers reach it; addresses, localhost and this machine's name are known
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where to.
    #[command(subcommand)]
    pub command: ExportCommand,
}

/// The subcommands of `export`.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Send what an MLflow server has not got of a run: live, interrupted or finished; twice is once
    Mlflow(MlflowArgs),
}

/// Flags of `export mlflow`.
#[derive(Debug, Args)]
pub struct MlflowArgs {
    /// The run, or a result file of `load` (default: the live run, else the newest)
    #[arg(value_name = "RUN|FILE")]
    pub run: Option<PathBuf>,
    /// The server (default: the one to which the run was sent, else that of its settings, else $MLFLOW_TRACKING_URI)
    #[arg(long, value_name = "URI")]
    pub mlflow: Option<String>,
    /// Where runs are (default: $VLLM_BENCH_RESULTS_DIR, ./experiment_results, ./sanity_test_results)
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Say what is missing there, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The run to end (default: the live one)
    #[arg(value_name = "RUN", conflicts_with = "all")]
    pub run: Option<PathBuf>,
    /// Where the run is (default: $VLLM_BENCH_RESULTS_DIR, ./experiment_results, ./sanity_test_results)
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    pub results_dir: Option<PathBuf>,
    /// End every live run of this user, wherever it is
    #[arg(long)]
    pub all: bool,
    /// Let the experiment under way finish
    #[arg(long, conflicts_with = "now")]
    pub after_current: bool,
    /// Kill at once, without a grace period
    #[arg(long)]
    pub now: bool,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Name, or part of a name, or number of an experiment, or else a run (default: the newest log)
    #[arg(value_name = "EXPERIMENT|RUN")]
    pub experiment: Option<String>,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// The run whose logs to show
    #[arg(long, value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// Only the server's log
    #[arg(long, conflicts_with = "benchmark")]
    pub server: bool,
    /// Only the benchmark client's log
    #[arg(long)]
    pub benchmark: bool,
    /// How many lines to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub lines: usize,
    /// Print and end
    #[arg(long)]
    pub no_follow: bool,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// For whom.
    #[command(flatten)]
    pub output: JsonArgs,
    /// What would play vLLM: `vllm`, or `sim` for the simulated one
    #[arg(long, value_name = "ENGINE", value_parser = ["vllm", "sim"])]
    pub engine: Option<String>,
    /// Where run directories would be made
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<String>,
    /// The port a server would use
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Tensor parallel sizes to check against the devices
    #[arg(long, num_args = 1.., value_name = "N")]
    pub tp: Vec<String>,
    /// The `vllm` program
    #[arg(long, value_name = "PATH")]
    pub vllm_bin: Option<String>,
    /// oneAPI's environment script, or `none`
    #[arg(long, value_name = "PATH")]
    pub setvars: Option<String>,
    /// Folder of the locks on devices, or `none`
    #[arg(long, value_name = "DIR")]
    pub device_locks: Option<String>,
    /// Time zone of run directories
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

/// A directory tree that an analysis is laid out in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DirectoryLayout {
    /// The cluster sweep's.
    Datatrove,
}

/// Flags of `analyze`.
#[derive(Debug, Default, Args)]
pub struct AnalyzeArgs {
    /// The runs or files to analyse, as one table (default: the newest run)
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Format (default text)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<AnalyzeFormat>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Write to this file, or into this directory
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// With --format datatrove and --output: write the cluster sweep's directory tree too, for programs that read it
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<DirectoryLayout>,
    /// By what.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Rank each group by itself: settings, `model`, `group` or `run` (default model)
    #[arg(long, value_name = "KEYS")]
    pub group_by: Vec<String>,
    /// Against what.
    #[command(flatten)]
    pub against: BaselineArgs,
    /// At what cost.
    #[command(flatten)]
    pub cost: CostArgs,
    /// Read the servers' logs too, for averages of the server (slower)
    #[arg(long)]
    pub detail: bool,
}

impl AnalyzeArgs {
    /// What it is written as.
    pub fn format(&self) -> AnalyzeFormat {
        or_json(self.format, self.json)
    }

    /// Whether that is the default.
    pub fn is_default(&self) -> bool {
        self.format().exporter().format().name == AnalyzeFormat::default().exporter().format().name
    }
}

/// Flags of `compare`.
#[derive(Debug, Args, Default)]
pub struct CompareArgs {
    /// The run before
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The run after; none where BEFORE was measured with `run --against`: then its two sides are compared
    #[arg(value_name = "AFTER")]
    pub after: Option<PathBuf>,
    /// Change that matters: 3% or 0.03 (default 3%)
    #[arg(long, value_name = "PART")]
    pub threshold: Option<String>,
    /// A run whose repeats say how far starts differ (`run --noise-check`), beside what these runs say
    #[arg(long, value_name = "RUN")]
    pub noise: Option<PathBuf>,
    /// Settings in which configurations may differ and be compared: flags, env.NAME, model, client
    #[arg(long, value_name = "KEYS", conflicts_with = "match_on")]
    pub ignore: Vec<String>,
    /// The only settings in which configurations must be equal to be compared
    #[arg(long = "match", value_name = "KEYS")]
    pub match_on: Vec<String>,
    /// Metrics to compare (default output_throughput,mean_ttft_ms,mean_tpot_ms)
    #[arg(long, value_name = "KEYS")]
    pub metrics: Vec<String>,
    /// Push what came of it to this Prometheus Pushgateway as well
    #[arg(long, value_name = "URL")]
    pub pushgateway: Option<String>,
    /// Format (default text)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<CompareFormat>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
}

impl CompareArgs {
    /// What it is written as.
    pub fn format(&self) -> CompareFormat {
        or_json(self.format, self.json)
    }
}

/// Flags of `recommend`.
#[derive(Debug, Args)]
pub struct RecommendArgs {
    /// The runs or files to choose from, as one table (default: the newest run)
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// By what.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Choose for each group by itself: settings, `model`, `group` or `run` (default model)
    #[arg(long, value_name = "KEYS")]
    pub group_by: Vec<String>,
    /// Against what.
    #[command(flatten)]
    pub against: BaselineArgs,
    /// At what cost.
    #[command(flatten)]
    pub cost: CostArgs,
    /// Format (default text)
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<RecommendFormat>,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
}

impl RecommendArgs {
    /// What it is written as.
    pub fn format(&self) -> RecommendFormat {
        or_json(self.format, self.json)
    }
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The run to copy, alone (default: all runs of the results directory)
    #[arg(value_name = "RUN")]
    pub run: Option<PathBuf>,
    /// The results directory to copy
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Write one .tar.gz
    #[arg(long)]
    pub archive: bool,
    /// Time zone of the stamp
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

/// Flags of `clean`.
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Runs to remove (default: all)
    #[arg(value_name = "RUN", conflicts_with = "keep_last")]
    pub runs: Vec<PathBuf>,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub results_dir: Option<PathBuf>,
    /// Keep the newest N runs
    #[arg(long, value_name = "N")]
    pub keep_last: Option<usize>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Flags of `diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// A log of `vllm serve`, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// For whom.
    #[command(flatten)]
    pub output: JsonArgs,
}

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

//! Every name on disk, in one place.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// The plan, the settings with their origins, versions, machine, devices, command line.
pub const MANIFEST: &str = "manifest.json";
/// Every event, append-only.
pub const JOURNAL: &str = "journal.jsonl";
/// What a detached run would have shown on the terminal.
pub const RUN_LOG: &str = "run.log";
/// Every combination that a rule left out, with the rule and why.
pub const SKIPPED: &str = "skipped.log";
/// Summary of a run.
pub const SUMMARY: &str = "summary.txt";
/// The analysis of a run.
pub const ANALYSIS: &str = "detailed_analysis.txt";
/// All results in one file.
pub const RAW_RESULTS: &str = "raw_results.json";
/// All results as a table.
pub const SUMMARY_CSV: &str = "results_summary.csv";
/// The report as one page.
pub const REPORT: &str = "report.html";
/// The cluster sweep's table of all experiments.
pub const BENCHMARKING_RESULTS: &str = "benchmarking_results.csv";
/// The cluster sweep's table of what was gained.
pub const OPTIMIZATION_SUMMARY: &str = "optimization_summary.csv";
/// What an analysis is called in a directory that the user names, without the ending.
pub const ANALYSIS_STEM: &str = "analysis";
/// End of the name of every result.
pub const RESULT_SUFFIX: &str = "_results.json";
/// End of the name of every failure.
const FAILURE_SUFFIX: &str = "_failure.json";
/// Held while a run writes into a results directory.
pub const RESULTS_LOCK: &str = ".vllm-bench.lock";
/// Beginning of the name of every unfinished file.
pub const TEMPORARY_PREFIX: &str = ".tmp-";
/// Server and client logs.
pub const LOGS: &str = "logs";
/// The launch scripts as they were run.
pub const SCRIPTS: &str = "scripts";
/// What a client wrote and nobody has checked yet.
pub const UNCHECKED: &str = ".unchecked";
/// Series of samples of devices, host and server.
pub const TELEMETRY: &str = "telemetry";
/// What a run on a cluster has: submissions, scripts, the tasks' journals and output.
const SLURM: &str = "slurm";
/// Plots of a run.
pub const PLOTS: &str = "plots";
/// Locks and marks of configurations whose compile cache is filled, or being filled.
const COMPILE_LOCKS: &str = "vllm-bench-locks";

/// The stamp of a run directory, `YYYYMMDD_HHMM` in the run's time zone (rule 15).
pub fn stamp(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%Y%m%d_%H%M").to_string()
}

/// Whether a name has the form that [`super::RunDir::create`] gives: a stamp, with a number where several began in one minute.
pub fn is_stamp(name: &str) -> bool {
    let (stamp, number) = name.split_at_checked(13).unwrap_or((name, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = number.is_empty() || number.strip_prefix('_').is_some_and(digits);
    number
        && stamp
            .split_once('_')
            .is_some_and(|(day, minute)| day.len() == 8 && minute.len() == 4 && digits(day) && digits(minute))
}

/// The folder of locks for a compile cache, beside it in vLLM's cache folder.
pub fn compile_locks(cache: &Path) -> PathBuf {
    cache.join(COMPILE_LOCKS)
}

/// Held while a server fills the compile cache for a configuration.
pub fn compile_lock(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.lock"))
}

/// There once the compile cache for a configuration is filled.
pub fn compiled(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.done"))
}

/// The paths of one run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the run directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The run directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `manifest.json`.
    pub fn manifest(&self) -> PathBuf {
        self.root.join(MANIFEST)
    }

    /// `journal.jsonl`.
    pub fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// `run.log`.
    pub fn run_log(&self) -> PathBuf {
        self.root.join(RUN_LOG)
    }

    /// `skipped.log`.
    pub fn skipped(&self) -> PathBuf {
        self.root.join(SKIPPED)
    }

    /// To which MLflow servers the run was sent.
    pub fn mlflow(&self) -> PathBuf {
        self.root.join("mlflow.json")
    }

    /// What whoever is notified has been told of the run, where several processes tell it.
    pub fn notified(&self) -> PathBuf {
        self.root.join("notified.json")
    }

    /// Held by who sends the run to one.
    pub fn mlflow_lock(&self) -> PathBuf {
        self.root.join(".mlflow.lock")
    }

    /// `logs/`.
    pub fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// `scripts/`.
    pub fn scripts(&self) -> PathBuf {
        self.root.join(SCRIPTS)
    }

    /// `plots/`.
    pub fn plots(&self) -> PathBuf {
        self.root.join(PLOTS)
    }

    /// What devices, host and server did during the n-th measurement of an experiment, from 1.
    pub fn telemetry(&self, name: &str, n: u32) -> PathBuf {
        self.root.join(TELEMETRY).join(if n <= 1 { format!("{name}.csv") } else { format!("{name}.{n}.csv") })
    }

    /// The folder of unchecked client results.
    pub fn unchecked_dir(&self) -> PathBuf {
        self.root.join(UNCHECKED)
    }

    /// The valid result of an experiment (rule 5).
    pub fn result(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}{RESULT_SUFFIX}"))
    }

    /// Why an experiment has no valid result.
    pub fn failure(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}{FAILURE_SUFFIX}"))
    }

    /// Why an earlier attempt yielded no valid result.
    pub fn old_failure(&self, name: &str, attempt: u32) -> PathBuf {
        self.root.join(format!("{name}_failure.{attempt}.json"))
    }

    /// A file that stood under the results name and was no valid result of its experiment.
    pub fn old_result(&self, name: &str, attempt: u32) -> PathBuf {
        self.root.join(format!("{name}_invalid.{attempt}.json"))
    }

    /// Output of the n-th start of a server configuration, from 1: `…_server.log`, `…_server.2.log`.
    pub fn server_log(&self, server_name: &str, n: u32) -> PathBuf {
        self.logs().join(numbered(server_name, "server", n))
    }

    /// Output of the n-th benchmark client of an experiment, from 1.
    pub fn benchmark_log(&self, name: &str, n: u32) -> PathBuf {
        self.logs().join(numbered(name, "benchmark", n))
    }

    /// Output of the n-th warm-up before an experiment, from 1.
    pub fn warmup_log(&self, name: &str, n: u32) -> PathBuf {
        self.logs().join(numbered(name, "warmup", n))
    }

    /// The n-th folder of what was kept before an attempt at an experiment that stood still was ended, from 1.
    pub fn evidence(&self, name: &str, n: u32) -> PathBuf {
        self.logs().join(if n <= 1 { format!("{name}_evidence") } else { format!("{name}_evidence.{n}") })
    }

    /// What the warm-up wrote; removed after it.
    pub fn warmup_result(&self, name: &str) -> PathBuf {
        self.unchecked_dir().join(format!("{name}_warmup.json"))
    }

    /// The server's launch script, as it was run.
    pub fn server_script(&self, name: &str) -> PathBuf {
        self.scripts().join(format!("{name}_server.sh"))
    }

    /// The benchmark client's launch script, as it was run.
    pub fn benchmark_script(&self, name: &str) -> PathBuf {
        self.scripts().join(format!("{name}_benchmark.sh"))
    }

    /// `slurm/`: of a run on a cluster.
    pub fn slurm(&self) -> PathBuf {
        self.root.join(SLURM)
    }

    /// The folders of `slurm/`: the tasks' output, their journals, and the locks of experiments.
    pub fn slurm_folders(&self) -> [PathBuf; 3] {
        [self.task_outputs(), self.shards(), self.slurm().join("locks")]
    }

    /// Which experiments the tasks of the n-th array job measure.
    pub fn submission(&self, n: u32) -> PathBuf {
        self.slurm().join(format!("{n}.json"))
    }

    /// The batch script of the n-th array job.
    pub fn batch_script(&self, n: u32) -> PathBuf {
        self.slurm().join(format!("{n}.sh"))
    }

    /// Where the tasks' output goes; Slurm names the files.
    pub fn task_outputs(&self) -> PathBuf {
        self.slurm().join("output")
    }

    /// What a task printed.
    pub fn task_output(&self, job: &str, task: u32) -> PathBuf {
        self.task_outputs().join(format!("{job}_{task}.out"))
    }

    /// The folder of the tasks' journals.
    pub fn shards(&self) -> PathBuf {
        self.slurm().join("journal")
    }

    /// The journal of the n-th start of a task, from 1.
    pub fn shard(&self, submission: u32, task: u32, n: u32) -> PathBuf {
        self.shards().join(format!("{submission}-{task}.{n}.jsonl"))
    }

    /// Held by the task that measures an experiment.
    pub fn experiment_lock(&self, name: &str) -> PathBuf {
        self.slurm().join("locks").join(format!("{name}.lock"))
    }

    /// Held while a task chooses the name of a server's log, until the file is there.
    pub fn names_lock(&self) -> PathBuf {
        self.slurm().join("locks").join(".names.lock")
    }

    /// That the jobs of the run are to end.
    pub fn stop_request(&self) -> PathBuf {
        self.slurm().join("stop.json")
    }

    /// What the client wrote and nobody has checked yet.
    pub fn unchecked(&self, name: &str) -> PathBuf {
        self.unchecked_dir().join(format!("{name}.json"))
    }
}

/// The cluster sweep's table of one experiment; a name cannot lead out of the directory, nor stand for another file of it.
pub fn experiment_csv(directory: &Path, experiment: &str) -> PathBuf {
    let name = format!("{}.csv", crate::plan::sanitize(experiment));
    let taken = [BENCHMARKING_RESULTS, OPTIMIZATION_SUMMARY, SUMMARY_CSV].contains(&name.as_str());
    directory.join(if taken { format!("experiment_{name}") } else { name })
}

/// Files of a rank of a server on another node, beside the server's log.
fn beside(server_log: &Path, what: &str) -> PathBuf {
    server_log.with_extension(what)
}

/// Output of a rank.
pub fn rank_log(server_log: &Path, rank: u32) -> PathBuf {
    beside(server_log, &format!("rank{rank}.log"))
}

/// What was seen of a rank's end, written on its node.
pub fn rank_end(server_log: &Path, rank: u32) -> PathBuf {
    beside(server_log, &format!("rank{rank}.json"))
}

/// Output of the command that starts the ranks.
pub fn ranks_log(server_log: &Path) -> PathBuf {
    beside(server_log, "ranks.log")
}

/// The script of the ranks, as it was run.
pub fn rank_script(server_log: &Path) -> PathBuf {
    beside(server_log, "ranks.sh")
}

/// What those who hold ranks are told.
pub fn rank_order(server_log: &Path) -> PathBuf {
    beside(server_log, "ranks.json")
}

/// Files of a folder of evidence.
pub mod evidence {
    /// Who stands still, all processes in a table, and what could not be seen.
    pub const SUMMARY: &str = "summary.txt";
    /// Every process with its threads and their stacks in the kernel.
    pub const PROCESSES: &str = "processes.txt";
    /// The stacks of Python, as py-spy says.
    pub const PYTHON: &str = "python_stacks.txt";
    /// What the server answered.
    pub const METRICS: &str = "metrics.txt";
    /// The end of the server's log.
    pub const SERVER_LOG: &str = "server_log.txt";
    /// The end of the client's log.
    pub const CLIENT_LOG: &str = "client_log.txt";
    /// Devices and host.
    pub const DEVICES: &str = "devices.txt";
    /// The end of the kernel's log.
    pub const KERNEL: &str = "kernel_log.txt";
}

/// The cluster sweep's directory tree: names of folders and files that its own programs read.
pub mod cluster {
    use std::path::{Path, PathBuf};

    /// The folder of a configuration's records; no name leads out of the directory.
    fn logs(directory: &Path, way: &[String]) -> PathBuf {
        let folder = way.iter().fold(directory.to_owned(), |path, name| path.join(crate::plan::sanitize(name)));
        folder.join("inference_logs")
    }

    /// What its pipeline counted.
    pub fn stats(directory: &Path, way: &[String]) -> PathBuf {
        logs(directory, way).join("stats.json")
    }

    /// The log of its server.
    pub fn server_log(directory: &Path, way: &[String]) -> PathBuf {
        logs(directory, way).join("server_logs").join("server_rank_00000_node_0.log")
    }

    /// The output of its job.
    pub fn job_log(directory: &Path, way: &[String]) -> PathBuf {
        logs(directory, way).join("slurm_logs").join("0_0.out")
    }
}

/// The batch-size sweep's table of one configuration on so many devices: its plots read the names of `DIR/MODEL/`. A name cannot lead
/// out of the directory.
pub fn batch_sizes_csv(directory: &Path, folder: &str, devices: Option<u32>) -> PathBuf {
    let stem = plot::BATCH_SIZES;
    let name = devices.map_or_else(|| format!("{stem}.csv"), |devices| format!("{stem}_{devices}_GPU.csv"));
    directory.join(crate::plan::sanitize(folder)).join(name)
}

/// Logs are never renamed: a record that names one stays true. The first has no number.
fn numbered(name: &str, what: &str, n: u32) -> String {
    if n <= 1 { format!("{name}_{what}.log") } else { format!("{name}_{what}.{n}.log") }
}

/// The last of a series of numbered files that exists; the first where none does.
pub fn newest(path: impl Fn(u32) -> PathBuf) -> PathBuf {
    let next = first_free(&path);
    path(next.saturating_sub(1).max(1))
}

/// The first number of a series whose file does not exist.
pub fn first_free(path: impl Fn(u32) -> PathBuf) -> u32 {
    (1..u32::MAX).find(|n| path(*n).symlink_metadata().is_err()).unwrap_or(u32::MAX)
}

/// Whether a file name is that of a result; `raw_results.json` ends like one and is an output, never an input.
pub fn is_result(file: &str) -> bool {
    file.ends_with(RESULT_SUFFIX) && file != RAW_RESULTS && !file.starts_with(TEMPORARY_PREFIX)
}

/// Whether a file is named like the newest failure of an experiment.
pub fn is_failure(file: &str) -> bool {
    file.ends_with(FAILURE_SUFFIX)
}

/// The lock of a results directory.
pub fn results_lock(results_dir: &Path) -> PathBuf {
    results_dir.join(RESULTS_LOCK)
}

/// Names of plots, without their ending. Where earlier tools had a name, it is kept.
pub mod plot {
    /// Throughput against the number of requests in flight.
    pub const BATCH_SIZES: &str = "batch_size_throughput";
    /// The same, one line per number of devices.
    pub const COMBINED: &str = "combined_throughput_comparison";
    /// Throughput against latency.
    pub const PARETO: &str = "pareto";
    /// A metric over two settings.
    pub const HEATMAP: &str = "heatmap";
    /// What settings do alone and together.
    pub const INTERACTION: &str = "interaction";
    /// Phases of server starts.
    pub const STARTUP: &str = "startup_phases";
    /// What ran when and where.
    pub const LANES: &str = "lanes";
    /// A metric over runs.
    pub const HISTORY: &str = "history";
    /// The longest name of a run or experiment in a file name; the rest is cut.
    const LONGEST: usize = 160;

    /// Configurations by a metric.
    pub fn ranking(metric: &str) -> String {
        of("ranking", metric)
    }

    /// The file of a plot.
    pub fn file(stem: &str, ending: &str) -> String {
        format!("{stem}.{ending}")
    }

    /// A plot of a run or an experiment: `{id}_ttft_cdf`.
    pub fn of(id: &str, what: &str) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "._-+=".contains(c) { c } else { '_' };
        let id: String = id.chars().map(safe).take(LONGEST).collect();
        let what: String = what.chars().map(safe).collect();
        format!("{}_{what}", id.trim_start_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn rule_15_run_directories_are_stamped_in_jerusalem_time() {
        let at = Utc.with_ymd_and_hms(2026, 2, 25, 12, 30, 59).unwrap();
        assert_eq!(stamp(at, chrono_tz::Asia::Jerusalem), "20260225_1430");
        // Daylight saving time begins on the Friday before the last Sunday of March.
        let summer = Utc.with_ymd_and_hms(2026, 7, 1, 22, 5, 0).unwrap();
        assert_eq!(stamp(summer, chrono_tz::Asia::Jerusalem), "20260702_0105");
    }

    #[test]
    fn rule_5_files_are_named_after_their_experiment() {
        let layout = Layout::new("/r/20260225_1430");
        let name = "Qwen_Qwen3-4B_tp2_quant-none_eager-true";
        assert_eq!(layout.result(name).file_name().unwrap().to_str().unwrap(), format!("{name}_results.json"));
        assert_eq!(layout.server_log("m.5_tp2", 1).file_name().unwrap(), "m.5_tp2_server.log");
        assert_eq!(layout.server_log("m.5_tp2", 3).file_name().unwrap(), "m.5_tp2_server.3.log");
    }
}

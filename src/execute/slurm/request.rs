//! What Slurm is asked for: the options of `sbatch` and the batch script. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::ServerConfig;
use crate::words::quoted;

/// The longest time before its limit at which Slurm tells a task to end.
pub const MOST_BEFORE: Duration = Duration::from_secs(65_535);

/// What a cluster is asked for, and how a task comes to run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--reservation`.
    pub reservation: Option<String>,
    /// Time limit of one task.
    pub time: Option<TimeLimit>,
    /// So long before it a task ends in order.
    pub stop_before: Duration,
    /// At most so many tasks of one shape at once.
    pub workers: Option<u32>,
    /// At most so many tasks of one shape in all.
    pub tasks: Option<u32>,
    /// Nodes of one task.
    pub nodes_per_task: u32,
    /// Cores for each GPU.
    pub cpus_per_gpu: Option<u32>,
    /// Cores of each node of a task.
    pub cpus_per_task: Option<u32>,
    /// `--mem-per-cpu`.
    pub mem_per_cpu: Option<String>,
    /// How GPUs are asked for.
    pub gpus: GpuRequest,
    /// Their type.
    pub gpu_type: Option<String>,
    /// Lines of the script before the task.
    pub prelude: Vec<String>,
    /// A file that the script sources before the task; absolute.
    pub prelude_file: Option<PathBuf>,
    /// What stands before the task's command line, as shell text.
    pub container: Option<String>,
    /// This program on the nodes; `None` = where it is here.
    pub program: Option<PathBuf>,
    /// `--export`.
    pub export: String,
    /// Whether Slurm may start a task again.
    pub requeue: bool,
    /// After so long a task is given up that Slurm does not know any more.
    pub patience: Duration,
    /// Any other options: name without dashes, value where it has one.
    pub sbatch: Vec<(String, Option<String>)>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            partition: None,
            qos: None,
            account: None,
            reservation: None,
            time: None,
            stop_before: Self::usual_stop_before(None),
            workers: None,
            tasks: None,
            nodes_per_task: 1,
            cpus_per_gpu: None,
            cpus_per_task: None,
            mem_per_cpu: None,
            gpus: GpuRequest::Gres,
            gpu_type: None,
            prelude: Vec::new(),
            prelude_file: None,
            container: None,
            program: None,
            export: "ALL".to_owned(),
            requeue: true,
            patience: Duration::from_secs(300),
            sbatch: Vec::new(),
        }
    }
}

/// How GPUs are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuRequest {
    /// `--gres=gpu:N`.
    Gres,
    /// `--gpus-per-node=N`.
    GpusPerNode,
    /// Not at all: servers on CPUs, or a cluster that does not count its GPUs.
    None,
}

/// A time limit as Slurm writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeLimit {
    /// As written.
    pub text: String,
    /// How long that is; `None` = without end.
    pub length: Option<Duration>,
}

impl TimeLimit {
    /// Reads `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes`, `days-hours:minutes:seconds`
    /// (sbatch(1)), or `UNLIMITED`.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if ["unlimited", "infinite"].contains(&text.to_ascii_lowercase().as_str()) {
            return Some(Self { text: text.to_owned(), length: None });
        }
        let (days, rest) = match text.split_once('-') {
            Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
            None => (None, text),
        };
        let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let (hours, minutes, seconds) = match (days, parts.as_slice()) {
            (None, [minutes]) => (0, *minutes, 0),
            (None, [minutes, seconds]) => (0, *minutes, *seconds),
            (Some(_), [hours]) => (*hours, 0, 0),
            (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
            (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
            _ => return None,
        };
        let days = days.unwrap_or_default();
        let all = days.checked_mul(86_400)?.checked_add(hours.checked_mul(3600)?)?;
        let all = all.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)?;
        (all > 0).then(|| Self { text: text.to_owned(), length: Some(Duration::from_secs(all)) })
    }
}

/// The resources of a task: tasks of one shape share an array job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Nodes.
    pub nodes: u32,
    /// GPUs of each node.
    pub gpus_per_node: u32,
}

impl Shape {
    /// What a server needs: as many devices as it has ranks, on so many nodes, or on fewer where it has fewer ranks.
    pub fn of(server: &ServerConfig, nodes_per_task: u32) -> Self {
        let size =
            |flag: &str| server.flags.get_text(flag).and_then(|text| text.parse::<u32>().ok()).unwrap_or(1).max(1);
        let ranks = ["tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"]
            .into_iter()
            .fold(1, |all: u32, flag| all.saturating_mul(size(flag)));
        let nodes = nodes_per_task.clamp(1, ranks);
        Self { nodes, gpus_per_node: ranks.div_ceil(nodes) }
    }
}

/// One array job.
#[derive(Debug, Clone, Copy)]
pub struct ArrayJob<'a> {
    /// The run directory, absolute.
    pub run: &'a Path,
    /// Which submission of the run.
    pub submission: u32,
    /// Resources of each task.
    pub shape: Shape,
    /// How many tasks it has.
    pub tasks: usize,
    /// Where the tasks' output goes: a folder of the run directory.
    pub output: &'a Path,
    /// The batch script.
    pub script: &'a Path,
    /// The job after which it begins, whatever comes of that.
    pub after: Option<&'a str>,
    /// Names of secret variables that the tasks need.
    pub secrets: &'a [String],
}

impl ArrayJob<'_> {
    /// What the job is called.
    pub fn name(&self) -> String {
        job_name(self.run)
    }

    /// How the job is found again: its run and its number within it.
    pub fn comment(&self) -> String {
        comment(self.run, self.submission)
    }
}

/// What the jobs of a run are called.
pub fn job_name(run: &Path) -> String {
    format!("vllm-bench-{}", run.file_name().unwrap_or_default().to_string_lossy())
}

/// The comment of a submission's job.
pub fn comment(run: &Path, submission: u32) -> String {
    format!("vllm-bench:{submission}:{}", run.display())
}

impl Request {
    /// Whether nodes run the programs that are found here: no container and no prelude brings others.
    pub fn runs_what_is_here(&self) -> bool {
        self.prelude.is_empty() && self.prelude_file.is_none() && self.container.is_none()
    }

    /// The command line of `sbatch` for an array job, without the program itself.
    pub fn options(&self, job: &ArrayJob<'_>) -> Vec<String> {
        let last = job.tasks.saturating_sub(1);
        let most = self.workers.map(|workers| format!("%{workers}")).unwrap_or_default();
        let output = job.output.display().to_string().replace('%', "%%");
        let mut words = vec![
            "--parsable".to_owned(),
            format!("--job-name={}", job.name()),
            format!("--comment={}", job.comment()),
            format!("--array=0-{last}{most}"),
            format!("--nodes={}", job.shape.nodes),
            "--ntasks-per-node=1".to_owned(),
        ];
        words.extend(self.gpu_option(job.shape));
        let cores = self.cpus_per_task.or(self.cpus_per_gpu.map(|cores| cores.saturating_mul(job.shape.gpus_per_node)));
        let mut with = |name: &str, value: Option<String>| words.extend(value.map(|value| format!("--{name}={value}")));
        with("cpus-per-task", cores.map(|cores| cores.to_string()));
        with("mem-per-cpu", self.mem_per_cpu.clone());
        with("partition", self.partition.clone());
        with("qos", self.qos.clone());
        with("account", self.account.clone());
        with("reservation", self.reservation.clone());
        with("time", self.time.as_ref().map(|time| time.text.clone()));
        with("dependency", job.after.map(|after| format!("afterany:{after}")));
        with("signal", Some(format!("B:USR1@{}", self.signal_seconds())));
        words.push(if self.requeue { "--requeue" } else { "--no-requeue" }.to_owned());
        words.push(format!("--output={output}/%A_%a.out"));
        words.push("--open-mode=append".to_owned());
        words.push(format!("--export={}", self.exported(job.secrets)));
        words.extend(self.sbatch.iter().map(|(name, value)| match value {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        }));
        words.push(job.script.display().to_string());
        words
    }

    fn gpu_option(&self, shape: Shape) -> Option<String> {
        let of_type = self.gpu_type.as_ref().map(|kind| format!("{kind}:")).unwrap_or_default();
        match self.gpus {
            GpuRequest::Gres => Some(format!("--gres=gpu:{of_type}{}", shape.gpus_per_node)),
            GpuRequest::GpusPerNode => Some(format!("--gpus-per-node={of_type}{}", shape.gpus_per_node)),
            GpuRequest::None => None,
        }
    }

    /// How long before its limit a task is told to end where nothing is asked for: 120 s, and at most half of the limit.
    pub fn usual_stop_before(time: Option<&TimeLimit>) -> Duration {
        let half = time.and_then(|time| time.length).map_or(Duration::MAX, |length| length / 2);
        Duration::from_secs(120).min(half)
    }

    /// How many seconds before the limit the signal comes: what Slurm takes.
    fn signal_seconds(&self) -> u64 {
        self.stop_before.as_secs().clamp(1, MOST_BEFORE.as_secs())
    }

    /// Names only: a value on a command line is seen by every user.
    fn exported(&self, secrets: &[String]) -> String {
        let word = self.export.to_ascii_uppercase();
        if word == "ALL" || word.starts_with("ALL,") {
            return self.export.clone();
        }
        let named = if word == "NONE" { Vec::new() } else { self.export.split(',').map(str::to_owned).collect() };
        let all: Vec<String> = named.into_iter().chain(secrets.iter().cloned()).collect();
        if all.is_empty() { "NONE".to_owned() } else { all.join(",") }
    }

    /// The batch script of a submission. `program` is this program as it is called here.
    pub fn script(&self, run: &Path, submission: u32, program: &Path) -> String {
        let program = self.program.as_deref().unwrap_or(program);
        let mut lines = vec![
            "#!/bin/bash".to_owned(),
            format!(
                "# vllm-bench {}: submission {submission} of a run; each index of the array is a task.",
                env!("CARGO_PKG_VERSION")
            ),
        ];
        lines.extend(self.prelude.iter().cloned());
        lines.extend(self.prelude_file.as_ref().map(|file| format!("source {}", quoted(&file.to_string_lossy()))));
        let container = self.container.as_ref().map(|words| format!("{} ", words.trim())).unwrap_or_default();
        // `exec`: the signal before the time limit goes to the batch script's own process.
        lines.push(format!(
            "exec {container}{} task --run {} --submission {submission}",
            quoted(&program.to_string_lossy()),
            quoted(&run.to_string_lossy())
        ));
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(secrets: &'a [String], after: Option<&'a str>) -> ArrayJob<'a> {
        ArrayJob {
            run: Path::new("/shared/r/20260225_1430"),
            submission: 3,
            shape: Shape { nodes: 1, gpus_per_node: 2 },
            tasks: 12,
            output: Path::new("/shared/r/20260225_1430/slurm/output"),
            script: Path::new("/shared/r/20260225_1430/slurm/3.sh"),
            after,
            secrets,
        }
    }

    #[test]
    fn time_limits_are_read_as_sbatch_reads_them() {
        let seconds = |text: &str| TimeLimit::read(text).and_then(|limit| limit.length).map(|length| length.as_secs());
        for (text, expected) in [
            ("90", Some(5400)),
            ("0:02", Some(2)),
            ("1:59:00", Some(7140)),
            ("1-0", Some(86_400)),
            ("1-12:30", Some(131_400)),
            ("2-01:00:05", Some(176_405)),
            ("unlimited", None),
            ("", None),
            ("0", None),
            ("1h", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert!(TimeLimit::read("UNLIMITED").is_some() && TimeLimit::read("1h").is_none());
    }

    #[test]
    fn everything_that_is_asked_for_stands_on_the_command_line() {
        let request = Request {
            partition: Some("hopper".into()),
            qos: Some("high".into()),
            account: Some("a".into()),
            reservation: Some("r".into()),
            time: TimeLimit::read("1:59:00"),
            workers: Some(4),
            cpus_per_gpu: Some(11),
            mem_per_cpu: Some("22G".into()),
            gpu_type: Some("h100".into()),
            sbatch: vec![("exclusive".into(), None), ("constraint".into(), Some("ib".into()))],
            ..Request::default()
        };
        let words = request.options(&job(&[], Some("77"))).join(" ");
        assert_eq!(
            words,
            "--parsable --job-name=vllm-bench-20260225_1430 --comment=vllm-bench:3:/shared/r/20260225_1430 --array=0-11%4 --nodes=1 \
             --ntasks-per-node=1 --gres=gpu:h100:2 --cpus-per-task=22 --mem-per-cpu=22G --partition=hopper --qos=high --account=a \
             --reservation=r --time=1:59:00 --dependency=afterany:77 --signal=B:USR1@120 --requeue \
             --output=/shared/r/20260225_1430/slurm/output/%A_%a.out --open-mode=append --export=ALL --exclusive --constraint=ib \
             /shared/r/20260225_1430/slurm/3.sh"
        );
    }

    #[test]
    fn the_usual_signal_before_the_limit_leaves_half_of_it() {
        let usual = |time: &str| Request::usual_stop_before(TimeLimit::read(time).as_ref()).as_secs();
        assert_eq!((usual("1"), usual("1:00:00"), usual("unlimited")), (30, 120, 120));
        let asked =
            Request { time: TimeLimit::read("10"), stop_before: Duration::from_secs(540), ..Request::default() };
        assert_eq!(asked.signal_seconds(), 540, "what is asked for is kept");
    }

    #[test]
    fn of_secrets_only_the_names_are_passed() {
        let secrets = ["HF_TOKEN".to_owned()];
        for (export, expected) in [("ALL", "ALL"), ("NONE", "HF_TOKEN"), ("PATH,HOME", "PATH,HOME,HF_TOKEN")] {
            let request = Request { export: export.into(), ..Request::default() };
            let words = request.options(&job(&secrets, None));
            assert!(words.contains(&format!("--export={expected}")), "{words:?}");
        }
        assert_eq!(Request { export: "none".into(), ..Request::default() }.exported(&[]), "NONE");
    }

    #[test]
    fn gpus_are_asked_for_in_three_ways() {
        let shape = Shape { nodes: 2, gpus_per_node: 4 };
        let of = |gpus| Request { gpus, ..Request::default() }.gpu_option(shape);
        assert_eq!(of(GpuRequest::Gres).as_deref(), Some("--gres=gpu:4"));
        assert_eq!(of(GpuRequest::GpusPerNode).as_deref(), Some("--gpus-per-node=4"));
        assert_eq!(of(GpuRequest::None), None);
    }

    #[test]
    fn the_script_has_the_prelude_the_container_and_quoted_paths() {
        let request = Request {
            prelude: vec!["module load cuda".into()],
            prelude_file: Some("/shared/my env.sh".into()),
            container: Some("srun --container-image=vllm.sqsh".into()),
            ..Request::default()
        };
        let script = request.script(Path::new("/shared/a b/r"), 2, Path::new("/opt/vllm-bench"));
        let lines: Vec<&str> = script.lines().collect();
        assert_eq!(lines[0], "#!/bin/bash");
        assert_eq!(
            lines[2..],
            [
                "module load cuda",
                "source '/shared/my env.sh'",
                "exec srun --container-image=vllm.sqsh /opt/vllm-bench task --run '/shared/a b/r' --submission 2"
            ]
        );
    }
}

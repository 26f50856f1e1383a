//! Slurm's own programs: asked with a limit, read line by line. Their text forms are the same in all releases; JSON is not.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use super::verdict::Said;
use crate::telemetry::{ToolError, ToolOutput, run_limited};

/// How long a question may take.
const ASK: Duration = Duration::from_secs(30);
/// How long a submission may take: a controller under load lets `sbatch` wait.
const SUBMIT: Duration = Duration::from_secs(180);

/// A task that the queue knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queued {
    /// Slurm's number of the array job.
    pub job: String,
    /// Index in the array; `None` for what is no array.
    pub task: Option<u32>,
    /// `PENDING`, `RUNNING`, `COMPLETING` …
    pub state: String,
    /// Why it waits.
    pub reason: String,
    /// The job's comment.
    pub comment: String,
}

impl Queued {
    /// Whether it runs, or ends.
    pub fn is_running(&self) -> bool {
        self.state != "PENDING" && !self.state.starts_with("REQUEUE")
    }
}

/// What came of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// Slurm has it, under this number.
    As(String),
    /// A limit of how many jobs may be submitted was met; in Slurm's words.
    Limit(String),
    /// Slurm does not take it; in its words.
    Refused(String),
    /// Nobody knows whether Slurm has it; why.
    Unclear(String),
}

/// Calls Slurm's programs.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// Variables that `sbatch` passes on beside its environment.
    pub secrets: Vec<(String, String)>,
    /// Variables that no job is to inherit: those of a job in which this process runs itself.
    pub unset: Vec<String>,
}

impl Tools {
    fn run(&self, program: &str, args: &[String], limit: Duration) -> Result<ToolOutput, ToolError> {
        let mut command = Command::new(program);
        command.args(args);
        for name in &self.unset {
            command.env_remove(name);
        }
        run_limited(command, limit)
    }

    /// The answer of a program; in words, why there is none.
    fn ask(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        match self.run(program, &args, ASK) {
            Ok(output) if output.status.success() => Ok(output.text()),
            Ok(output) => {
                Err(output.complaint().unwrap_or_else(|| format!("`{program}` ended with {}", output.status)))
            }
            Err(error) => Err(in_words(&error)),
        }
    }

    /// Submits a job.
    pub fn submit(&self, options: &[String]) -> Submitted {
        let mut command = Command::new("sbatch");
        command.args(options);
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        match run_limited(command, SUBMIT) {
            Ok(output) => {
                let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                submitted(output.status.success(), &output.text(), &complaint)
            }
            Err(error @ ToolError::Start { .. }) => Submitted::Refused(in_words(&error)),
            Err(error) => Submitted::Unclear(in_words(&error)),
        }
    }

    /// The tasks of this user's jobs of this name that are not over.
    ///
    /// # Errors
    /// In words, when the queue cannot be asked.
    pub fn queue(&self, name: &str) -> Result<Vec<Queued>, String> {
        self.ask("squeue", &["-h", "-r", "--me", "-n", name, "-o", "%F|%K|%T|%r|%k"]).map(|text| queue(&text))
    }

    /// How many tasks an array may have, as the cluster's configuration says.
    pub fn most_in_array(&self) -> Option<usize> {
        let text = self.ask("scontrol", &["show", "config"]).ok()?;
        let line = text.lines().find(|line| line.trim_start().starts_with("MaxArraySize"))?;
        line.split_once('=')?.1.trim().parse().ok().filter(|most| *most > 0)
    }

    /// What Slurm says of the tasks of an array job, by index: first the controller, then the accounting for what that does not know.
    pub fn says(&self, job: &str, tasks: &[u32]) -> HashMap<u32, Said> {
        let mut said =
            self.ask("scontrol", &["-o", "show", "job", job]).map(|text| controller(&text)).unwrap_or_default();
        if tasks.iter().any(|task| !said.get(task).is_some_and(Said::is_over)) {
            let text = self.ask("sacct", &["-X", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode"]);
            for (task, account) in text.map(|text| accounting(&text)).unwrap_or_default() {
                if account.is_over() {
                    said.entry(task).or_insert(account);
                }
            }
        }
        said
    }

    /// Cancels or signals jobs. One that is over already is as it should be.
    ///
    /// # Errors
    /// In Slurm's words.
    pub fn cancel(&self, options: &[&str], jobs: &[String]) -> Result<(), String> {
        let args: Vec<String> = options.iter().map(|word| (*word).to_owned()).chain(jobs.iter().cloned()).collect();
        let output = self.run("scancel", &args, ASK).map_err(|error| in_words(&error))?;
        if output.status.success() {
            return Ok(());
        }
        match complaints(&String::from_utf8_lossy(&output.stderr)) {
            Some(words) if words.is_empty() => Err(format!("`scancel` ended with {}", output.status)),
            Some(words) => Err(words),
            None => Ok(()),
        }
    }
}

fn in_words(error: &ToolError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Words of `sbatch` after which the job may have been taken all the same.
const UNCLEAR: [&str; 6] = [
    "Socket timed out",
    "Unable to contact slurm controller",
    "Communication connection failure",
    "Transport endpoint",
    "Connection refused",
    "Zero Bytes were transmitted",
];

/// Words of `scancel` for a job that is over, or that waits and cannot be signalled: what waits is cancelled by a call of its own.
const OVER: [&str; 4] =
    ["Invalid job id specified", "already completing or completed", "Job/step already", "Job is pending execution"];

/// What `scancel` complains of, on one line; `None` where all of it is about jobs that are over.
fn complaints(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_harmless = |line: &&str| OVER.iter().any(|words| line.contains(words));
    let (harmless, others): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(is_harmless);
    if others.is_empty() && !harmless.is_empty() { None } else { Some(others.join("; ")) }
}

/// Words of limits on how many jobs or tasks there may be.
const LIMITS: [&str; 7] = [
    "MaxSubmitJob",
    "MaxSubmit",
    "violates accounting/QOS policy",
    "job submit limit",
    "Invalid job array specification",
    "temporarily unable to accept job",
    "Reached maximum",
];

fn submitted(success: bool, stdout: &str, stderr: &str) -> Submitted {
    let number = stdout.lines().next_back().and_then(|line| line.split(';').next()).map(str::trim).unwrap_or_default();
    if success && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Submitted::As(number.to_owned());
    }
    let words: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let words = if words.is_empty() { "sbatch gave no number and no reason".to_owned() } else { words.join("; ") };
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    if success || has(&UNCLEAR) {
        Submitted::Unclear(words)
    } else if has(&LIMITS) {
        Submitted::Limit(words)
    } else {
        Submitted::Refused(words)
    }
}

/// Reads `squeue -h -r -o "%F|%K|%T|%r|%k"`.
fn queue(text: &str) -> Vec<Queued> {
    let one = |line: &str| {
        let mut parts = line.trim().splitn(5, '|').map(|part| part.trim().to_owned());
        let (job, task, state) = (parts.next()?, parts.next()?, parts.next()?);
        let (reason, comment) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Some(Queued { job, task: task.parse().ok(), state, reason, comment })
    };
    text.lines().filter_map(one).collect()
}

/// Reads `scontrol -o show job`: one line for each task; those that wait together have one line, which says nothing here.
fn controller(text: &str) -> HashMap<u32, Said> {
    let one = |line: &str| {
        let value = |key: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            Some(word.to_owned())
        };
        let said = Said { state: value("JobState")?, exit: value("ExitCode").unwrap_or_default(), by: "scontrol" };
        Some((value("ArrayTaskId")?.parse().ok()?, said))
    };
    text.lines().filter_map(one).collect()
}

/// Reads `sacct -X -n -P -o JobID,State,ExitCode`.
fn accounting(text: &str) -> HashMap<u32, Said> {
    let one = |line: &str| {
        let mut parts = line.trim().split('|');
        let task = parts.next()?.split_once('_')?.1.parse().ok()?;
        let state = parts.next()?.to_owned();
        Some((task, Said { state, exit: parts.next().unwrap_or_default().to_owned(), by: "sacct" }))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_is_taken_refused_limited_or_unclear() {
        assert_eq!(submitted(true, "1234\n", ""), Submitted::As("1234".into()));
        assert_eq!(submitted(true, "1234;lab\n", ""), Submitted::As("1234".into()));
        let refused = "sbatch: error: Batch job submission failed: Invalid partition name specified";
        assert_eq!(submitted(false, "", &format!("{refused}\n")), Submitted::Refused(refused.into()));
        for (words, limit) in [
            (
                "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
                true,
            ),
            ("sbatch: error: Batch job submission failed: Invalid job array specification", true),
            ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", false),
            ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", false),
        ] {
            let came = submitted(false, "", words);
            assert_eq!(matches!(came, Submitted::Limit(_)), limit, "{came:?}");
            assert_eq!(matches!(came, Submitted::Unclear(_)), !limit, "{came:?}");
        }
        assert!(matches!(submitted(true, "", ""), Submitted::Unclear(_)));
    }

    #[test]
    fn to_cancel_what_is_over_is_no_failure() {
        let over = "scancel: error: Kill job error on job id 7: Invalid job id specified\n";
        let ending = "scancel: error: Kill job error on job id 8: Job/step already completing or completed\n";
        let denied = "scancel: error: Kill job error on job id 9: Access/permission denied\n";
        assert_eq!(complaints(&format!("{over}{ending}")), None);
        assert_eq!(complaints(&format!("{over}{denied}")).as_deref(), Some(denied.trim()));
        assert_eq!(complaints("").as_deref(), Some(""));
    }

    #[test]
    fn the_queue_is_read_line_by_line() {
        let text = "12|0|RUNNING|None|vllm-bench:1:/r\n12|1|PENDING|Resources|vllm-bench:1:/r|x\n13|N/A|PENDING|Priority|(null)\n\n";
        let read = queue(text);
        assert_eq!(read.len(), 3);
        assert_eq!((read[0].job.as_str(), read[0].task, read[0].is_running()), ("12", Some(0), true));
        assert_eq!((read[1].reason.as_str(), read[1].comment.as_str()), ("Resources", "vllm-bench:1:/r|x"));
        assert_eq!(read[2].task, None);
    }

    #[test]
    fn the_controller_and_the_accounting_are_read_by_task() {
        let text = "JobId=13 ArrayJobId=12 ArrayTaskId=1 JobName=a b JobState=NODE_FAIL Reason=NodeDown Dependency=(null) ExitCode=0:0\n\
                    JobId=12 ArrayJobId=12 ArrayTaskId=2-5%2 JobName=a JobState=PENDING ExitCode=0:0\n";
        let said = controller(text);
        assert_eq!(said.len(), 1);
        assert_eq!(said[&1].told(), "scontrol says NODE_FAIL, exit code 0:0");
        let said = accounting("12_0|COMPLETED|0:0\n12_1|CANCELLED by 0|0:15\n12_[2-5]|PENDING|0:0\n12|x|y\n");
        assert_eq!(said.len(), 2);
        assert_eq!(said[&1].state, "CANCELLED by 0");
    }
}

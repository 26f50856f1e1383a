//! Runs on a cluster: the front, the tasks and what can go wrong between them, on a Slurm that is played by a script (`slurm_fake/`) whose
//! tasks really run.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Call, FIRST, Live, RunFiles, SECOND, Scene, skipped, wait_for};

/// A scene with a cluster.
struct Cluster {
    scene: Scene,
}

impl Cluster {
    fn new() -> Self {
        let scene = Scene::new();
        let fake = include_str!("slurm_fake/fake.sh");
        for name in ["sbatch", "squeue", "scontrol", "sacct", "scancel", "task"] {
            scene.program(&format!("slurm/bin/{name}"), fake);
        }
        Self { scene }
    }

    /// A file by which a test says what the cluster does.
    fn file(&self, name: &str) -> PathBuf {
        self.scene.path(&format!("slurm/{name}"))
    }

    fn says(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    fn forgets(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    fn on<'s>(&'s self, call: Call<'s>) -> Call<'s> {
        let path = format!("{}:{}", self.file("bin").display(), std::env::var("PATH").unwrap_or_default());
        call.env("PATH", &path).env("FAKE_SLURM", self.file("").to_str().unwrap().trim_end_matches('/'))
    }

    /// The sweep of two experiments.
    fn sweep(&self) -> Call<'_> {
        self.on(self.scene.sweep()).set("--executor", ["slurm"]).stays()
    }

    /// The same with these keys of `slurm`.
    fn sweep_with(&self, keys: &[&str]) -> Call<'_> {
        keys.iter().fold(self.sweep(), |call, key| call.also("--slurm", key))
    }

    fn call(&self, words: &[&str]) -> Call<'_> {
        self.on(self.scene.call(words)).set("--results-dir", [self.scene.results().to_str().unwrap()]).stays()
    }

    fn calls(&self, program: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file("calls")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(&format!("{program} "))).map(str::to_owned).collect()
    }

    fn state(&self, task: &str) -> String {
        fs::read_to_string(self.file(&format!("jobs/{task}/state"))).unwrap_or_default()
    }

    fn process(&self, task: &str) -> Pid {
        let file = self.file(&format!("jobs/{task}/pid"));
        let pid = wait_for("a task's process", || fs::read_to_string(&file).ok()?.parse().ok());
        Pid::from_raw(pid)
    }

    /// Waits until a task has written this into its journal.
    fn task_writes(&self, words: &[&str]) {
        wait_for(&format!("{words:?} in a task's journal"), || {
            let run = self.scene.runs().pop()?;
            shard_text(&run).lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    }
}

/// Everything that tasks wrote into their journals.
fn shard_text(run: &RunFiles) -> String {
    let files = fs::read_dir(run.path("slurm/journal")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn shards(run: &RunFiles) -> Vec<Value> {
    shard_text(run).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Both experiments have a valid result, and each was measured once.
fn assert_measured_once(run: &RunFiles) {
    for name in [FIRST, SECOND] {
        assert_eq!(run.result(name)["completed"], 4);
        let passed = shards(run)
            .into_iter()
            .filter(|e| e["event"] == "experiment-finished" && e["name"] == name && e["outcome"] == "passed");
        assert_eq!(passed.count(), 1, "{name}");
        assert!(!run.has(&format!("{name}_failure.json")));
    }
}

fn wait_until_submitted(live: &mut Live<'_>) {
    live.event(&["job-submitted"]);
}

#[test]
fn a_sweep_runs_as_an_array_of_tasks_and_ends_with_a_table() {
    let cluster = Cluster::new();
    let ended = cluster.sweep_with(&["partition=main", "time=30", "workers=2", "sbatch.constraint=fast"]).exits(0);
    ended.prints("DONE           2").prints("FAILED         0").prints("QUEUED         0");
    let run = cluster.scene.run();
    assert_measured_once(&run);
    let sbatch = cluster.calls("sbatch");
    assert_eq!(sbatch.len(), 1, "{sbatch:?}");
    for word in ["--array=0-1%2", "--partition=main", "--time=30", "--constraint=fast", "--gres=gpu:1", "--requeue"] {
        assert!(sbatch[0].contains(word), "{word}: {}", sbatch[0]);
    }
    let began: Vec<Value> = shards(&run).into_iter().filter(|event| event["event"] == "task-started").collect();
    assert_eq!(began.len(), 2);
    assert!(began.iter().all(|event| event["job"] == "1"));
    // What the run wrote and what its tasks wrote read as one.
    cluster.call(&["status"]).exits(0).prints("finished").prints("2 of 2 done");
    cluster.call(&["analyze", run.0.to_str().unwrap()]).without("--results-dir").exits(0).prints("tok/s");
    // The same command again has nothing to do, and makes no second directory.
    let again = cluster.sweep_with(&["partition=main", "time=30", "workers=2", "sbatch.constraint=fast"]).exits(0);
    again.prints("DONE           2");
    assert_eq!((cluster.scene.runs().len(), cluster.calls("sbatch").len()), (1, 1));
    cluster.scene.wait_until_nothing_is_left();
}

#[test]
fn the_dry_run_prints_what_would_be_submitted_and_submits_nothing() {
    let cluster = Cluster::new();
    cluster.says("max-array", "1");
    let ended = cluster
        .sweep_with(&["prelude=module load cuda", "container=srun --container-image=x.sqsh"])
        .flag("--dry-run")
        .exits(0);
    ended.prints("=== array job 1 of 2: 1 task of 1 node with 1 GPU").prints("sbatch --parsable").prints("--array=0-0");
    ended.prints("module load cuda").prints("exec srun --container-image=x.sqsh").prints(" task --run ");
    assert!(cluster.calls("sbatch").is_empty() && cluster.scene.runs().is_empty());
}

#[test]
fn a_front_that_left_is_picked_up_by_the_same_command_and_nothing_is_submitted_twice() {
    let cluster = Cluster::new();
    cluster.says("hold", "");
    let ended = cluster.sweep().flag("--detach").exits(0);
    ended.prints("SUBMITTED      2").prints("cancel with: scancel 1");
    cluster.call(&["status"]).exits(0).prints("submitted").prints("0 running   2 waiting");
    let again = cluster.sweep().flag("--detach").exits(0);
    again.prints("QUEUED         2").prints("SUBMITTED      0");
    assert_eq!((cluster.calls("sbatch").len(), cluster.scene.runs().len()), (1, 1));
    let live = cluster.call(&["run", "--resume"]).start();
    cluster.forgets("hold");
    live.ends().with_code(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
    assert_eq!(cluster.calls("sbatch").len(), 1);
}

/// The failure happened while no front was there: the one that picks the run up tells it, and none tells it again.
#[test]
fn whoever_is_notified_is_told_each_event_once_whatever_front_reads_it() {
    let cluster = Cluster::new();
    let log = cluster.scene.path("told.log");
    let told = || fs::read_to_string(&log).unwrap_or_default();
    let script = format!("#!/bin/sh\necho \"$NOTIFY_EVENT\" >> '{}'\n", log.display());
    let teller = cluster.scene.program("tell", &script);
    cluster.says("hold", "");
    let sweep = || cluster.sweep().fault("out-of-memory@eager=false#1").also("--notify", teller.to_str().unwrap());
    sweep().flag("--detach").exits(0).prints("SUBMITTED      2");
    assert_eq!(told(), "", "its jobs go on: nothing is over");
    cluster.forgets("hold");
    wait_for("both tasks to end", || {
        let run = cluster.scene.runs().pop()?;
        (shards(&run).iter().filter(|event| event["event"] == "task-ended").count() == 2).then_some(())
    });
    // It tries again what failed, and that passes.
    cluster.call(&["run", "--resume"]).exits(0).prints("DONE           2");
    assert_eq!(told(), "first-failure\nend\n");
    // A front that finds nothing to do, and knows the failure.
    sweep().exits(0).prints("DONE           2");
    assert_eq!(told(), "first-failure\nend\n");
    // What a front itself records is told too.
    cluster.says("sbatch-says", "sbatch: error: Batch job submission failed: Invalid partition name specified\n");
    let other = cluster.sweep().set("--models", ["my/other"]);
    other.also("--notify", teller.to_str().unwrap()).exits(1).says("Invalid partition");
    assert_eq!(told(), "first-failure\nend\nfirst-failure\nend\n");
}

#[test]
fn a_front_that_was_killed_is_picked_up_also_where_it_died_before_it_knew_the_jobs_number() {
    for torn in [false, true] {
        let cluster = Cluster::new();
        cluster.says("hold", "");
        let mut live = cluster.sweep().start();
        wait_until_submitted(&mut live);
        live.kill();
        let run = cluster.scene.run();
        if torn {
            let text = run.journal_text();
            let kept: Vec<&str> = text.lines().filter(|line| !line.contains("job-submitted")).collect();
            fs::write(run.path("journal.jsonl"), kept.join("\n") + "\n").unwrap();
        }
        let live = cluster.sweep().start();
        // The front has asked the queue.
        let before = cluster.calls("squeue").len();
        wait_for("the queue to be asked", || (cluster.calls("squeue").len() > before).then_some(()));
        cluster.forgets("hold");
        live.ends().with_code(0).prints("DONE           2");
        assert_measured_once(&cluster.scene.run());
        assert_eq!(cluster.calls("sbatch").len(), 1, "torn: {torn}");
    }
}

#[test]
fn ctrl_c_leaves_the_jobs_and_says_so() {
    let cluster = Cluster::new();
    cluster.says("hold", "");
    let mut live = cluster.sweep().start();
    wait_until_submitted(&mut live);
    live.signal(Signal::SIGINT);
    let ended = live.ends().with_code(130);
    ended.prints("SUBMITTED      2").prints("cancel with: scancel 1").says("the jobs go on");
    assert_eq!(cluster.state("1_0"), "PENDING");
    cluster.call(&["stop"]).exits(0).prints("its jobs have ended");
    assert_eq!(cluster.state("1_0"), "CANCELLED");
    cluster.call(&["status"]).exits(0).prints("interrupted");
    cluster.forgets("hold");
    cluster.sweep().exits(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
}

#[test]
fn a_refused_submission_is_told_in_slurms_words() {
    let cluster = Cluster::new();
    let words = "sbatch: error: Batch job submission failed: Invalid partition name specified";
    cluster.says("sbatch-says", &format!("{words}\n"));
    let ended = cluster.sweep().exits(1);
    ended.says(words).prints("FAILED         2  submission-refused: 2");
    let run = cluster.scene.run();
    assert_eq!(run.failure(FIRST)["cause"], "submission-refused");
    // Corrected, the same command goes on.
    cluster.forgets("sbatch-says");
    cluster.sweep().exits(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
}

#[test]
fn without_slurms_programs_nothing_is_begun() {
    let cluster = Cluster::new();
    fs::remove_file(cluster.file("bin/sbatch")).unwrap();
    let bin = cluster.file("bin");
    for flags in [&[][..], &["--detach"]] {
        let call = flags.iter().fold(cluster.sweep(), |call, flag| call.flag(flag));
        let refused = call.env("PATH", bin.to_str().unwrap()).exits(4);
        refused.says("`sbatch` was not found on PATH").says("a login node").says("`--dry-run` shows");
    }
    assert!(cluster.scene.runs().is_empty() && fs::read_dir(cluster.scene.results()).unwrap().next().is_none());
}

#[test]
fn a_wrong_value_of_a_flag_names_its_key() {
    let cluster = Cluster::new();
    for (key, words) in [
        ("mem-per-cpu=22X", "invalid value `22X` for `--slurm mem-per-cpu`"),
        ("prelude=3", "invalid value `3` for `--slurm prelude`"),
        ("patience=0", "invalid value `0` for `--slurm patience`"),
        ("workers=0", "invalid value `0` for `--slurm workers`"),
        ("program=/nowhere/x", "invalid value `/nowhere/x` for `--slurm program`"),
        ("prelude-file=/nowhere/x", "invalid value `/nowhere/x` for `--slurm prelude-file`"),
        ("gpus-per-node=2", "`--slurm gpus=gpus-per-node`"),
    ] {
        cluster.sweep_with(&[key]).exits(2).says(words);
    }
    cluster.sweep_with(&["time=10", "stop-before=10m"]).exits(2).says("for `--slurm stop-before`");
    assert!(cluster.calls("sbatch").is_empty() && cluster.scene.runs().is_empty());
}

#[test]
fn a_submission_whose_answer_was_lost_is_found_in_the_queue() {
    let cluster = Cluster::new();
    cluster.says("sbatch-loses-its-answer", "");
    cluster.says("hold", "");
    let mut live = cluster.sweep().start();
    wait_until_submitted(&mut live);
    cluster.forgets("hold");
    live.ends().with_code(0).prints("DONE           2");
    assert_eq!(cluster.calls("sbatch").len(), 1);
    assert_measured_once(&cluster.scene.run());
}

#[test]
fn arrays_are_split_by_the_clusters_limits() {
    let cluster = Cluster::new();
    cluster.says("max-array", "1");
    cluster.sweep().exits(0).prints("DONE           2");
    assert_eq!(cluster.calls("sbatch").len(), 2);
    let cluster = Cluster::new();
    // One task at a time may be submitted: the second is when the first has gone.
    cluster.says("max-submit", "1");
    cluster.sweep().set("--runs", ["1"]).exits(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
}

#[test]
fn a_task_ends_in_order_before_its_time_limit_and_what_it_measured_counts() {
    let cluster = Cluster::new();
    // The second experiment hangs in its first attempt, behind the first in the same task.
    let live = cluster
        .sweep_with(&["tasks=1"])
        .fault("benchmark-hangs@eager=false#1")
        .set("--retry", ["time-limit=1"])
        .start();
    cluster.task_writes(&["benchmark-launched", SECOND]);
    kill(cluster.process("1_0"), Signal::SIGUSR1).unwrap();
    let ended = live.ends().with_code(0);
    ended.prints("DONE           2").says("is submitted again: time limit of the job");
    let run = cluster.scene.run();
    assert_eq!(run.result(SECOND)["vllm_bench"]["attempt"], 2);
    assert!(shards(&run).iter().any(|event| event["event"] == "task-ended" && event["why"] == "time-limit"));
}

#[test]
fn a_cancelled_task_is_a_cause_of_its_own() {
    let cluster = Cluster::new();
    let live = cluster.sweep().fault("benchmark-hangs@eager=false").start();
    cluster.task_writes(&["benchmark-launched", SECOND]);
    let task = task_of(&cluster, SECOND);
    let mut scancel = std::process::Command::new(cluster.file("bin/scancel"));
    let done = scancel.arg(&task).env("FAKE_SLURM", cluster.file("")).status().unwrap();
    assert!(done.success());
    live.ends().with_code(1).prints("FAILED         1  job-cancelled: 1").prints("DONE           1");
    assert_eq!(cluster.scene.run().failure(SECOND)["cause"], "job-cancelled");
    cluster.scene.wait_until_nothing_is_left();
}

/// The task, as `JOB_INDEX`, that measures an experiment.
fn task_of(cluster: &Cluster, name: &str) -> String {
    let run = cluster.scene.run();
    let began = shards(&run).into_iter().find(|event| {
        event["event"] == "task-started" && event["names"].as_array().unwrap().iter().any(|own| own == name)
    });
    let began = began.unwrap();
    format!("{}_{}", began["job"].as_str().unwrap(), began["task"])
}

#[test]
fn a_task_that_slurm_lost_is_submitted_again() {
    let cluster = Cluster::new();
    let live = cluster
        .sweep_with(&["patience=1s"])
        .fault("benchmark-hangs@eager=false#1")
        .set("--retry", ["scheduler=1"])
        .start();
    cluster.task_writes(&["benchmark-launched", SECOND]);
    let task = task_of(&cluster, SECOND);
    let process = cluster.process(&task);
    fs::remove_dir_all(cluster.file(&format!("jobs/{task}"))).unwrap();
    kill(process, Signal::SIGKILL).unwrap();
    let ended = live.ends().with_code(0);
    ended.prints("DONE           2").says("lost by the scheduler");
    assert_eq!(cluster.scene.run().result(SECOND)["vllm_bench"]["attempt"], 2);
    cluster.scene.wait_until_nothing_is_left();
}

#[test]
fn a_task_that_lives_on_is_not_lost_whatever_slurm_says() {
    let cluster = Cluster::new();
    let mut live = cluster.sweep_with(&["patience=100ms"]).set("--sim-speed", ["30"]).start();
    wait_until_submitted(&mut live);
    cluster.task_writes(&["benchmark-launched", SECOND]);
    // The node is lost to Slurm; its processes are not.
    cluster.says("squeue-fails", "");
    cluster.says("forgets", "");
    live.ends().with_code(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
}

#[test]
fn a_requeued_task_goes_on_where_its_first_start_was_cut_off() {
    let cluster = Cluster::new();
    let live = cluster.sweep_with(&["tasks=1"]).fault("benchmark-hangs@eager=false#1").start();
    cluster.task_writes(&["benchmark-launched", SECOND]);
    cluster.says("jobs/1_0/requeue", "yes");
    kill(cluster.process("1_0"), Signal::SIGTERM).unwrap();
    live.ends().with_code(0).prints("DONE           2");
    assert_measured_once(&cluster.scene.run());
    assert_eq!(cluster.calls("sbatch").len(), 1);
    let run = cluster.scene.run();
    let restarts: Vec<Value> =
        shards(&run).into_iter().filter(|e| e["event"] == "task-started").map(|e| e["restart"].clone()).collect();
    assert_eq!(restarts, [0, 1]);
}

#[test]
fn a_job_that_never_reaches_the_program_could_not_be_launched() {
    let cluster = Cluster::new();
    let ended = cluster.sweep_with(&["prelude=echo no such module >&2; exit 3", "patience=1s"]).exits(1);
    ended.prints("FAILED         2  launch-failed: 2");
    let failure = cluster.scene.run().failure(FIRST);
    assert!(failure["log_tail"].to_string().contains("no such module"), "{failure}");
}

#[test]
fn secrets_reach_the_tasks_by_their_environment_and_stand_in_no_file() {
    let cluster = Cluster::new();
    cluster.sweep().also("--env", "HF_TOKEN=hf_plantedsecret123456").exits(0).prints("DONE           2");
    let run = cluster.scene.run();
    for file in crate::support::files(&run.0) {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains("hf_plantedsecret123456"), "{}", file.display());
    }
    assert!(!cluster.calls("sbatch")[0].contains("hf_planted"));
}

/// Real servers on the cores of one node, which two tasks share: each waits with its load until the other is as far.
#[test]
fn tasks_on_the_cores_of_one_node_do_not_refuse_each_other() {
    let bound = |core: &str| std::process::Command::new("taskset").args(["-c", core, "true"]).output();
    let has_two = ["0", "1"].iter().all(|core| bound(core).is_ok_and(|output| output.status.success()));
    if !has_two {
        skipped("two tasks on the cores of one node: this machine has one core, or no `taskset`");
        return;
    }
    for bind in [false, true] {
        let cluster = Cluster::new();
        cluster.says("cpus-on-node", "1");
        if bind {
            cluster.says("bind", "");
        }
        let met = cluster.scene.path("met");
        fs::create_dir(&met).unwrap();
        let vllm = cluster.scene.vllm_that(&format!(
            "if [ \"$1\" = bench ]; then : > '{0}'/$$; until [ $(ls '{0}' | wc -l) -ge 2 ]; do sleep 0.05; done; fi",
            met.display()
        ));
        let sweep = cluster.on(cluster.scene.sweep_with(&vllm)).set("--executor", ["slurm"]).stays();
        sweep.set("--telemetry", ["off"]).exits(0).prints("DONE           2");
        let run = cluster.scene.run();
        assert_measured_once(&run);
        let devices: Vec<Value> =
            [FIRST, SECOND].iter().map(|name| run.result(name)["vllm_bench"]["placement"]["devices"].clone()).collect();
        assert_eq!(devices[0] == devices[1], !bind, "{devices:?}");
    }
}

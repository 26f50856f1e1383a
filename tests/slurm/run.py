#!/usr/bin/env python3
"""Takes vllm-bench through a real Slurm (slurmctld and four virtual nodes of this machine) on the simulated vLLM.

    tests/slurm/run.py [--binary PATH] [--ci] [--only NAME]... [--keep] [--list]

Brings its clusters up and takes them down (setup.sh). One line per check, one per part at the end; the last line is `N passed, N failed`.
Where there can be no cluster (no root, no apt) it says so loudly and ends with 77. Python 3.11, standard library only. See README.md.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import checks  # noqa: E402
from checks import Over, Part, Tally, equal, that  # noqa: E402

#: What `--ci` runs on every commit; the whole list is for the hand.
CI = ("sweep", "node")
#: setup.sh: there can be no cluster here.
LEFT_OUT = 77
#: Every wait for the scheduler and for what it runs.
SLOW = 300.0
#: The least time between two looks at the queue, whatever the size.
POLL = 5.0
#: In the environment of every process that a scenario starts.
MARK = "VB_SLURM_TEST"
#: Slurm's programs whose calls are counted.
COUNTED = ("sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo", "srun")


# --- checks -----------------------------------------------------------------------------------------------------------


def wait_for(what: str, condition, limit: float = SLOW, every: float = 0.2):
    return checks.wait_for(what, condition, limit, every)


# --- the cluster --------------------------------------------------------------------------------------------------------


class Cluster:
    """A slurmctld of its own, with nodes that are all this machine."""

    def __init__(self, directory: Path, *options: str):
        self.dir = directory
        began = time.monotonic()
        code = subprocess.run([HERE / "setup.sh", *options, directory], check=False).returncode
        if code == LEFT_OUT:
            sys.exit(LEFT_OUT)
        that(code == 0, f"setup.sh ended with {code}")
        self.seconds = time.monotonic() - began
        self.env = {"SLURM_CONF": str(directory / "etc/slurm.conf")}

    def ask(self, *words: str, limit: float = 30.0) -> str:
        """One of Slurm's programs, past the counters."""
        done = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=limit, check=False)
        return done.stdout if done.returncode == 0 else ""

    def queue(self, *states: str) -> list[list[str]]:
        """Tasks in the queue: job_task, state, node, name."""
        only = ["-t", ",".join(states)] if states else []
        lines = self.ask("squeue", "-h", "-r", "-o", "%i|%t|%N|%j", *only).splitlines()
        return [line.split("|") for line in lines]

    def empty(self) -> None:
        """Ends whatever is in the queue."""
        self.ask("scancel", "-u", "root")
        wait_for("an empty queue", lambda: not self.queue(), 60)

    def kill_slurmd(self, node: str) -> int:
        pid = int((self.dir / f"run/slurmd-{node}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        return pid

    def start_slurmd(self, node: str) -> None:
        subprocess.run(["slurmd", "-N", node], env={**os.environ, **self.env}, check=True, timeout=30)
        wait_for(f"{node} to be idle", lambda: "idle" in self.ask("sinfo", "-h", "-N", "-n", node, "-p", "main", "-o", "%T"), 90)

    def down(self) -> None:
        subprocess.run([HERE / "setup.sh", "--down", self.dir], check=False)


# --- scenarios ----------------------------------------------------------------------------------------------------------


class Scenario(Part):
    """One of the main parts: its folder, its commands, its checks."""

    def __init__(self, bench: "Bench", name: str):
        super().__init__(bench, name)
        self.mark = f"{name}-{os.getpid()}-{time.monotonic_ns()}"
        self.calls = self.dir / "calls.txt"
        self.cluster = bench.cluster()

    # commands

    def env(self) -> dict[str, str]:
        counters = self.dir / "bin"
        if not counters.exists():
            counters.mkdir()
            for program in COUNTED:
                path = counters / program
                real = shutil.which(program)
                path.write_text(f'#!/bin/sh\nprintf "%s %s %s\\n" "$(date +%s.%N)" {program} "$*" >>"{self.calls}"\nexec {real} "$@"\n')
                path.chmod(0o755)
        return {**self.bench.env, **self.cluster.env, "PATH": f"{counters}:{os.environ['PATH']}", MARK: self.mark}

    def start(self, *args: str) -> subprocess.Popen:
        return self.begin(args, self.env())

    def call(self, *args: str, limit: float = SLOW) -> tuple[int, str]:
        """Runs vllm-bench to its end: exit code and output."""
        child = self.start(*args)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            child.terminate()
            raise AssertionError(f"`vllm-bench {' '.join(args)}` took more than {limit:.0f} s:\n{child.text()[-3000:]}") from None
        return code, child.text()

    def sweep(self, document: dict, *args: str, speed: str = "200", slurm: tuple[str, ...] = (), name: str = "sweep") -> list[str]:
        """Arguments of a run on the cluster, of a sweep file made of `document`."""
        file = self.dir / f"{name}.yaml"
        file.write_text(json.dumps(document))
        words = ["run", str(file), "--engine", "sim", "--sim-speed", speed, "--sim-devices", "4", "--executor", "slurm", "--retry", "none",
                 "--results-dir", str(self.results), "--login", "false", "--env", f"{MARK}={self.mark}", "--yes"]
        for entry in ("time=5", "cpus-per-gpu=1", "mem-per-cpu=400M", *slurm):
            words += ["--slurm", entry]
        return words + list(args)

    def counted(self, program: str) -> list[float]:
        """When one of Slurm's programs was called."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [float(line.split()[0]) for line in lines if line.split()[1] == program]

    # what a run writes

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.results.glob("*/manifest.json"))

    def run(self) -> Path:
        found = self.runs()
        that(len(found) == 1, f"{len(found)} run directories in {self.results}, expected one")
        return found[0]

    def events(self, *kinds: str) -> list[dict]:
        """Events of the front's journal and of those of the tasks."""
        entries = []
        for path in [*self.results.glob("*/journal.jsonl"), *self.results.glob("*/slurm/journal/*.jsonl")]:
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        return [entry for entry in entries if not kinds or entry["event"] in kinds]

    def jobs(self) -> list[str]:
        return [entry["job"] for entry in self.events("job-submitted")]

    def tasks_submitted(self) -> int:
        return sum(entry["tasks"] for entry in self.events("job-submitted"))

    def plan(self) -> list[dict]:
        return json.loads((self.run() / "manifest.json").read_text())["plan"]["experiments"]

    def measured(self) -> list[dict]:
        """The results of the run's experiments."""
        paths = [self.run() / f"{experiment['name']}_results.json" for experiment in self.plan()]
        return [json.loads(path.read_text()) for path in paths if path.exists()]

    def outcomes(self) -> dict[str, str]:
        """Of each experiment: `valid`, or the cause that is recorded; nothing where there is none."""
        code, text = self.call("analyze", str(self.run()), "--format", "json")
        rows = json.loads(text[text.index("{"):text.rindex("}") + 1])["rows"]
        found = {}
        for row in rows:
            status = row["status"]
            found[row["name"]] = "valid" if status == "valid" else (row.get("failure") or {}).get("cause") or row.get("cause") or status
        return found

    def each_has_one(self, **expected: int) -> None:
        """Each experiment of the plan has exactly one valid result or one named cause."""
        with self.check("each experiment has exactly one valid result, or one named cause") as note:
            run, names = self.run(), [experiment["name"] for experiment in self.plan()]
            identities = {experiment["name"]: experiment["identity"] for experiment in self.plan()}
            outcomes = self.outcomes()
            counts: dict[str, int] = {}
            for name in names:
                outcome = outcomes.get(name, "nothing")
                counts[outcome] = counts.get(outcome, 0) + 1
                that(outcome not in ("nothing", "not-run", "running", "interrupted", "invalid"), f"{name}: {outcome}")
                result = run / f"{name}_results.json"
                equal(result.exists(), outcome == "valid", f"a result file of {name}, which is {outcome}")
                if outcome == "valid":
                    equal(json.loads(result.read_text())["vllm_bench"]["identity"], identities[name], f"identity of {name}")
            passed = [e["name"] for e in self.events("experiment-finished") if e["outcome"] == "passed"]
            equal(len(passed), len(set(passed)), "experiments that passed more than once: " + str(sorted(n for n in passed if passed.count(n) > 1)))
            note(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
            for outcome, count in expected.items():
                equal(counts.get(outcome.replace("_", "-"), 0), count, outcome)

    def nothing_left(self) -> None:
        with self.check("no process is left on any node, no task in the queue"):
            try:
                wait_for("the end", lambda: not self.processes() and not self.cluster.queue(), 45)
            except AssertionError:
                raise AssertionError("left:\n" + "\n".join([*self.processes(), *map(str, self.cluster.queue())])) from None

    def processes(self) -> list[str]:
        """Processes of this scenario, on whatever node: by their environment, and by the program that they run."""
        found = []
        mark = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                environ = (entry / "environ").read_bytes().split(b"\0")
                ours = mark in environ
                if not ours and os.readlink(entry / "exe").startswith(str(self.bench.binary)):
                    # vLLM's children overwrite their environment: so do the simulated ones.
                    ours = environ[:1] == [b""] or not environ
                if ours and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().replace(bytes(1), b' ').decode(errors='replace')[:120]}")
        return found


def grid(**more) -> dict:
    """Twelve server configurations under one small load."""
    return {
        "serve": {"model": "org/tiny", "tensor-parallel-size": [1, 2], "max-num-seqs": [64, 128, 256], "enforce-eager": [True, False],
                  **more.pop("serve", {})},
        "bench": {"random-input-len": 8, "random-output-len": 8, "num-prompts": 8, "max-concurrency": 4, **more.pop("bench", {})},
        **more,
    }


def four(**more) -> dict:
    """Four of them, each on a device of its own."""
    return grid(serve={"tensor-parallel-size": 1, "max-num-seqs": [64, 128]}, **more)


def sweep(s: Scenario) -> None:
    """A sweep of 12 experiments: submitted once, watched with few calls, each measured once."""
    began = time.monotonic()
    code, text = s.call(*s.sweep(grid()))
    seconds = time.monotonic() - began
    with s.check("12 experiments on four nodes", needed=True) as note:
        equal(code, 0, f"exit code: {text[-3000:]}")
        nodes = {entry["host"] for entry in s.events("task-started")}
        note(f"{seconds:.0f} s, {len(s.jobs())} array jobs, {s.tasks_submitted()} tasks on {len(nodes)} nodes")
        that(len(nodes) > 1, f"all tasks ran on {nodes}")
    s.each_has_one(valid=12)
    with s.check("squeue is asked at most every five seconds") as note:
        asked = s.counted("squeue")
        gaps = [later - earlier for earlier, later in zip(asked, asked[1:])]
        note(f"{len(asked)} times; sbatch {len(s.counted('sbatch'))}, sacct {len(s.counted('sacct'))}, scontrol {len(s.counted('scontrol'))}")
        that(all(gap > POLL - 0.3 for gap in gaps), f"seconds between calls: {[round(gap, 1) for gap in gaps]}")
    with s.check("where a result says on which devices it ran, it took as many as its server needs") as note:
        said = [result for result in s.measured() if (result["vllm_bench"].get("placement") or {}).get("devices")]
        note(f"{len(said)} of 12 say it")
        for result in said:
            devices = result["vllm_bench"]["placement"]["devices"]
            equal(len(devices), int(result["vllm_bench"]["axes"].get("tensor-parallel-size", 1)), "devices")
    with s.check("the same command again has nothing to submit"):
        before = s.tasks_submitted()
        code, text = s.call(*s.sweep(grid()))
        equal((len(s.runs()), s.tasks_submitted()), (1, before), "runs and tasks submitted")
    s.nothing_left()


def twice(s: Scenario) -> None:
    """A second `run` while the first one's tasks are queued: nothing is submitted twice."""
    words = s.sweep(grid(), speed="20", slurm=("workers=1",))
    code, text = s.call(*words, "--detach")
    with s.check("the first leaves; its tasks are queued", needed=True) as note:
        equal(code, 0, f"exit code: {text[-3000:]}")
        wait_for("tasks in the queue", s.cluster.queue)
        note(f"{s.tasks_submitted()} tasks")
    with s.check("`status` counts them, in under a second of its own") as note:
        began = time.monotonic()
        code, text = s.call("status", "--results-dir", str(s.results))
        note(f"{time.monotonic() - began:.2f} s")
        that("waiting" in text, text)
    before = s.tasks_submitted()
    code, text = s.call(*words)
    with s.check("the second stays to the end and submits nothing"):
        equal(code, 0, f"exit code: {text[-3000:]}")
        equal((len(s.runs()), s.tasks_submitted()), (1, before), "runs and tasks submitted")
    s.each_has_one(valid=12)
    s.nothing_left()


def running(s: Scenario, count: int = 1) -> list[dict]:
    """Tasks that have begun, with the nodes that they run on."""

    def look():
        ended = {(entry["submission"], entry["task"]) for entry in s.events("task-ended")}
        begun = [entry for entry in s.events("task-started") if (entry["submission"], entry["task"]) not in ended]
        return begun if len(begun) >= count else None

    return wait_for(f"{count} running tasks", look, every=0.1)


def node(s: Scenario) -> None:
    """kill -9 of a slurmd under a running task: requeued or named, measured once."""
    child = s.start(*s.sweep(four(), speed="8"))
    with s.check("kill -9 of the slurmd of a node that works", needed=True) as note:
        host = running(s)[0]["host"]
        s.cluster.kill_slurmd(host)
        note(host)
    with s.check("Slurm gives the node up, and takes it back"):
        wait_for(f"{host} to be down", lambda: re.search(r"down|idle", s.cluster.ask("sinfo", "-h", "-N", "-n", host, "-p", "main", "-o", "%T")), 60)
        time.sleep(1)
        s.cluster.start_slurmd(host)
    with s.check("the run goes on to its end"):
        code = child.wait(SLOW)
        that(code in (0, 1), lambda: f"exit code {code}: {child.text()[-3000:]}")
    s.each_has_one()
    s.nothing_left()


def limit(s: Scenario) -> None:
    """A task that reaches its time limit ends in order before it; what it measured until then is safe."""
    document = four(bench={"num-prompts": [8, 40000], "random-output-len": 64})
    code, text = s.call(*s.sweep(document, "--timeout-benchmark", "600", speed="20", slurm=("time=1", "stop-before=15s")), limit=SLOW + 120)
    with s.check("exit code 1"):
        equal(code, 1, f"exit code: {text[-3000:]}")
    s.each_has_one(valid=4, time_limit=4)
    s.nothing_left()


def cancel(s: Scenario) -> None:
    """scancel of one task by hand: named, the others are measured; the same command measures it."""
    child = s.start(*s.sweep(four(), speed="8"))
    with s.check("scancel of a running task", needed=True) as note:
        task = running(s)[0]
        number = f"{task['job']}_{task['task']}"
        s.cluster.ask("scancel", number)
        note(number)
    with s.check("the run goes on to its end"):
        code = child.wait(SLOW)
        that(code in (0, 1), lambda: f"exit code {code}: {child.text()[-3000:]}")
    s.each_has_one()
    s.nothing_left()
    if code == 1:
        code, text = s.call(*s.sweep(four(), speed="50"))
        with s.check("the same command again measures what was cancelled"):
            equal(code, 0, f"exit code: {text[-3000:]}")
        s.each_has_one(valid=4)
    s.nothing_left()


def requeue(s: Scenario) -> None:
    """All running tasks are requeued by the administrator: each is measured once."""
    child = s.start(*s.sweep(four(), speed="8"))
    with s.check("scontrol requeue of every running task", needed=True) as note:
        running(s, 2)
        tasks = [task for task, *_ in s.cluster.queue("R")]
        for task in tasks:
            s.cluster.ask("scontrol", "requeue", task)
        note(f"{len(tasks)} tasks")
    with s.check("the run goes on to its end") as note:
        code = child.wait(SLOW)
        equal(code, 0, f"exit code: {child.text()[-3000:]}")
        note(f"restarts {sorted(entry['restart'] for entry in s.events('task-started'))}")
    s.each_has_one(valid=4)
    s.nothing_left()


def front(s: Scenario) -> None:
    """kill -9 of the front: the tasks go on, the same command picks them up."""
    words = s.sweep(grid(), speed="20", slurm=("workers=2",))
    child = s.start(*words)
    with s.check("kill -9 of the front while tasks run", needed=True):
        running(s)
        child.kill()
        child.wait()
    before = s.tasks_submitted()
    with s.check("the tasks go on without it"):
        done = len(s.events("experiment-finished"))
        wait_for("another result", lambda: len(s.events("experiment-finished")) > done)
    code, text = s.call(*words)
    with s.check("the same command watches them to the end"):
        equal(code, 0, f"exit code: {text[-3000:]}")
        equal((len(s.runs()), s.tasks_submitted()), (1, before), "runs and tasks submitted")
    s.each_has_one(valid=12)
    s.nothing_left()


def stop(s: Scenario) -> None:
    """`stop` ends the jobs in order; `run --resume` goes on."""
    words = s.sweep(grid(), speed="20", slurm=("workers=2",))
    code, text = s.call(*words, "--detach")
    with s.check("`stop` empties the queue", needed=True):
        running(s)
        code, text = s.call("stop", "--results-dir", str(s.results))
        equal(code, 0, f"exit code: {text[-3000:]}")
        wait_for("an empty queue", lambda: not s.cluster.queue(), 60)
    s.nothing_left()
    code, text = s.call("run", "--resume", str(s.run()), "--yes")
    with s.check("`run --resume RUN` measures the rest"):
        equal(code, 0, f"exit code: {text[-3000:]}")
    s.each_has_one(valid=12)
    s.nothing_left()


def refused(s: Scenario) -> None:
    """A partition that is not there: the cause has Slurm's words, nothing waits."""
    code, text = s.call(*s.sweep(four(), slurm=("partition=nowhere",)), limit=60)
    with s.check("refused at once, in Slurm's words"):
        equal(code, 1, f"exit code: {text[-3000:]}")
        that("invalid partition" in text.lower(), text)
    s.each_has_one(submission_refused=4)
    code, text = s.call(*s.sweep(four(), slurm=("partition=main",)))
    with s.check("corrected, the same command measures all"):
        equal(code, 0, f"exit code: {text[-3000:]}")
    s.each_has_one(valid=4)
    s.nothing_left()


def nodes(s: Scenario) -> None:
    """A server on two nodes: ranks by srun, ready together, ended and proven on both; a rank that dies is told."""
    document = grid(serve={"tensor-parallel-size": 8, "max-num-seqs": [64, 128], "enforce-eager": True})
    code, text = s.call(*s.sweep(document, slurm=("nodes-per-task=2",)))
    with s.check("two servers of eight devices on two nodes of four", needed=True) as note:
        equal(code, 0, f"exit code: {text[-3000:]}")
        ends = [json.loads(path.read_text()) for path in s.run().glob("logs/*.rank1.json")]
        equal([end["emptied"]["empty"] for end in ends], [True, True], "the ranks' ends")
        proofs = [result["vllm_bench"]["teardown"] for result in s.measured()]
        that(all(proof["group_empty"] is True for proof in proofs), str(proofs))
        note(f"ended after {max(proof['seconds'] for proof in proofs):.1f} s")
    with s.check("each rank has its own devices"):
        logs = [path.read_text() for path in s.run().glob("logs/*.rank1.log")]
        that(logs and all("headless" in text for text in logs), "no log of a rank")
    s.each_has_one(valid=2)
    s.nothing_left()
    shutil.rmtree(s.results)
    document = grid(serve={"tensor-parallel-size": 8, "max-num-seqs": 64, "enforce-eager": True}, bench={"num-prompts": 4000})
    words = s.sweep(document, "--sim-fault", "rank-dies:60s", speed="20", slurm=("nodes-per-task=2",))
    code, text = s.call(*words)
    with s.check("a rank that dies amid the measurement is the cause"):
        equal(code, 1, f"exit code: {text[-3000:]}")
        failures = [json.loads(path.read_text()) for path in s.run().glob("*_failure.json")]
        equal(failures[0]["cause"], "server-died", "cause")
        that("rank 1 ended" in failures[0]["summary"], failures[0]["summary"])
    s.each_has_one(server_died=1)
    s.nothing_left()


def compile_cache(s: Scenario) -> None:
    """Four starts of one configuration at once: one fills the compile cache, the others wait for it."""
    document = grid(serve={"tensor-parallel-size": 1, "max-num-seqs": 64, "enforce-eager": False}, repeats={"starts": 4})
    code, text = s.call(*s.sweep(document, "--no-reuse", speed="10"))
    with s.check("one start at a time until it is filled") as note:
        equal(code, 0, f"exit code: {text[-3000:]}")
        waited = [entry for entry in s.events("notice") if "fill the compile cache" in entry["text"]]
        equal(len(list(s.run().glob("vllm-bench-locks/*.done"))), 1, "configurations that are compiled")
        note(f"{len(waited)} of 4 waited")
        that(waited, "nobody waited")
    s.each_has_one(valid=4)
    s.nothing_left()


def small_arrays(s: Scenario) -> None:
    """A cluster whose MaxArraySize is 10: 12 experiments are several arrays."""
    s.cluster = s.bench.cluster("--max-array-size", "10")
    code, text = s.call(*s.sweep(grid()))
    with s.check("12 experiments, no index above 9", needed=True) as note:
        equal(code, 0, f"exit code: {text[-3000:]}")
        that(all(entry["task"] < 10 for entry in s.events("task-started")), "an index is too large")
        note(f"{len(s.jobs())} array jobs of {[entry['tasks'] for entry in s.events('job-submitted')]}")
        that(len(s.jobs()) >= 2, "one array was enough")
    s.each_has_one(valid=12)
    s.nothing_left()


def cluster_sweep(s: Scenario) -> None:
    """The cluster sweep's own file: 759 combinations, 741 settings, at full simulated speed."""
    file = ROOT / "tests/sweeps/examples/cluster-sweep.yaml"
    words = ["run", str(file), "--engine", "sim", "--sim-speed", "inf", "--sim-devices", "8", "--executor", "slurm", "--retry", "none",
             "--results-dir", str(s.results), "--login", "false", "--env", f"{MARK}={s.mark}", "--num-prompts", "64", "--output-len", "32",
             "--input-len", "32", "--concurrency", "16", "--no-rule", "context-length", "--yes", "--sim-device-memory", "80"]
    for entry in ("time=5", "cpus-per-gpu=1", "mem-per-cpu=400M"):
        words += ["--slurm", entry]
    began = time.monotonic()
    code, text = s.call(*words, limit=5400)
    with s.check("759 combinations to their end", needed=True) as note:
        that(code in (0, 1), f"exit code {code}: {text[-3000:]}")
        equal(len(s.plan()), 741, "settings")
        note(f"{time.monotonic() - began:.0f} s, {len(s.jobs())} jobs, {s.tasks_submitted()} tasks, squeue {len(s.counted('squeue'))}")
    s.each_has_one()
    out = s.dir / "files"
    code, text = s.call("analyze", str(s.run()), "--format", "datatrove", "--output", str(out), "--layout", "datatrove")
    with s.check("`analyze --format datatrove`: baseline, tiers, speed-ups of each model") as note:
        with open(out / "optimization_summary.csv") as file:
            rows = list(csv.DictReader(file))
        with_baseline = [row for row in rows if row["baseline_tps"]]
        note(f"{len(rows)} models, {len(with_baseline)} with a baseline, best {max(float(row['overall_speedup']) for row in with_baseline):.2f}x")
        equal(len(rows), 18, "models")
        that(all(row["tier0_tps"] and row["overall_speedup"] for row in with_baseline), str(with_baseline))
        that(any(row["tier1_tps"] for row in rows), "no tier 1")
        with open(out / "benchmarking_results.csv") as file:
            equal(len(list(csv.DictReader(file))), 759, "lines, one for each combination")
    s.nothing_left()


def thousand(s: Scenario) -> None:
    """An array of 1,000 blocks: what it costs the front and the controller."""
    document = {"serve": {"model": "org/tiny", "max-num-seqs": "1..1000", "enforce-eager": True},
                "bench": {"random-input-len": 8, "random-output-len": 4, "num-prompts": 4, "max-concurrency": 4}}
    document["serve"]["max-num-seqs"] = list(range(1, 1001))
    began = time.monotonic()
    child = s.start(*s.sweep(document, speed="inf"))
    most, submitted, waits = 0, None, []
    while child.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{child.pid}/status").read_text()
            most = max(most, int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
        if submitted is None and s.tasks_submitted() >= 1000:
            submitted = time.monotonic() - began
        if submitted is not None and len(waits) < 3:
            looked = time.monotonic()
            s.call("status", "--results-dir", str(s.results))
            waits.append(time.monotonic() - looked)
        that(time.monotonic() - began < 3600, "an hour")
        time.sleep(0.5)
    seconds = time.monotonic() - began
    with s.check("1,000 blocks", needed=True) as note:
        equal(child.returncode, 0, f"exit code: {child.text()[-3000:]}")
        asked = s.counted("squeue")
        note(f"submitted after {submitted:.1f} s; done after {seconds:.0f} s; squeue {len(asked)} ({60 * len(asked) / seconds:.1f} a minute), "
             f"sbatch {len(s.counted('sbatch'))}; front {most / 1024:.0f} MiB; status {max(waits):.2f} s")
        that(60 * len(asked) / seconds <= 12.5, "squeue too often")
    s.each_has_one(valid=1000)
    with s.check("`status` of the finished run takes less than a second of CPU") as note:
        # Its own time: how long a busy machine takes says nothing of it.
        before, looked = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        s.call("status", "--results-dir", str(s.results))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        note(f"{own:.2f} s of CPU, {time.monotonic() - looked:.2f} s")
        that(own < 1, "too slow")
    s.nothing_left()


SCENARIOS = {function.__name__: function for function in (
    sweep, twice, node, limit, cancel, requeue, front, stop, refused, nodes, compile_cache, small_arrays, cluster_sweep, thousand)}


# --- the whole --------------------------------------------------------------------------------------------------------


class Bench:
    """What all scenarios share: the program, and clusters by their options."""

    def __init__(self, binary: Path, work: Path):
        self.work = work
        # A name of its own: processes are found by the program that they run.
        self.binary = work / "vllm-bench"
        shutil.copy2(binary, self.binary)
        self.clusters: dict[tuple[str, ...], Cluster] = {}
        drop = ("VLLM_", "SLURM_", "SBATCH_", "CUDA_VISIBLE", "HIP_VISIBLE", "ROCR_VISIBLE", "ZE_AFFINITY")
        home = work / "home"
        home.mkdir()
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        self.env |= {"NO_COLOR": "1", "HOME": str(home)}

    def cluster(self, *options: str) -> Cluster:
        if options not in self.clusters:
            cluster = Cluster(self.work / f"cluster{len(self.clusters)}", *options)
            print(f"     a cluster{' (' + ' '.join(options) + ')' if options else ''} is up after {cluster.seconds:.0f} s", flush=True)
            self.clusters[options] = cluster
        return self.clusters[options]

    def down(self) -> None:
        for cluster in self.clusters.values():
            cluster.down()


def one(bench: Bench, name: str) -> None:
    scenario = Scenario(bench, name)
    try:
        SCENARIOS[name](scenario)
    except Over:
        pass
    except Exception as caught:  # noqa: BLE001
        with scenario.check("the scenario ran to its end"):
            raise caught
    finally:
        with contextlib.suppress(AssertionError):
            scenario.cluster.empty()
    left = scenario.processes()
    if left:
        for line in left:
            with contextlib.suppress(OSError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        with scenario.check("nothing had to be ended at the end"):
            raise AssertionError("\n".join(left))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="the vllm-bench to test (default: cargo build --release)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--ci", action="store_true", help=f"what runs on every commit: {', '.join(CI)}")
    parser.add_argument("--keep", action="store_true", help="keep all evidence, not only that of failures")
    parser.add_argument("--list", action="store_true", help="list the names and end")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:14} {function.__doc__}" for name, function in SCENARIOS.items()))
        return 0
    began = time.monotonic()
    # An end from outside runs the clean-up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    code = subprocess.run([HERE / "setup.sh", "--packages"], check=False).returncode
    if code != 0:
        print("\n*** LEFT OUT: the tests on a Slurm cluster ***\n", file=sys.stderr, flush=True)
        return code
    binary = (args.binary or build()).resolve()
    # Short: sockets lie in it.
    work = Path(tempfile.mkdtemp(prefix="vb-slurm-", dir="/tmp"))
    bench = Bench(binary, work)
    parts = []
    try:
        for name in args.only or (CI if args.ci else SCENARIOS):
            before, start = (Tally.passed, Tally.failed), time.monotonic()
            one(bench, name)
            parts.append((name, Tally.passed - before[0], Tally.failed - before[1], time.monotonic() - start))
    finally:
        bench.down()
        if Tally.failed == 0 and not args.keep and sys.exc_info()[0] is None:
            shutil.rmtree(work)
        else:
            print(f"evidence: {work}", flush=True)
    for name, passed, failed, seconds in parts:
        print(f"     Slurm, {name}: {passed} passed, {failed} failed, {seconds:.0f} s")
    print(f"     {time.monotonic() - began:.0f} s in total")
    print(f"{Tally.passed} passed, {Tally.failed} failed", flush=True)
    return 1 if Tally.failed else 0


def build() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    return ROOT / target / "release/vllm-bench"


if __name__ == "__main__":
    sys.exit(main())

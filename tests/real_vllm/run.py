#!/usr/bin/env python3
"""Takes the released vllm-bench through real vLLM: sweeps, failures, kills, live commands, foreign servers.

    tests/real_vllm/run.py [--release 0.14.1|newest] [--binary PATH] [--ci] [--only NAME]... [--keep] [--list]

Installs what it needs first (setup.sh). One line per check, one per part at the end; the last line is `N passed, N failed`.
Python 3.11, standard library only. See README.md.
"""

import argparse
import contextlib
import csv
import ctypes
import datetime
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import checks  # noqa: E402
from checks import Over, Part, Tally, equal, that  # noqa: E402

#: What `--ci` runs on every commit; the whole list is for the hand.
CI = ("sweep", "died", "load")
#: A planted secret: it must be in nothing that is written.
TOKEN = "hf_plantedByTheRealTests0123456789"
#: From SIGTERM to SIGKILL, by default.
GRACE = 30.0
#: A server without a device gets 3 s before SIGKILL; the rest is for a slow machine.
GONE = 15.0
#: Every wait for something vLLM does: two busy cores are slow.
SLOW = 480.0
#: A load that lasts some seconds on two cores, so that there is time to look and to kill.
LONG_LOAD = ["--num-prompts", "1000", "--concurrency", "8"]

#: The keys of a result of `vllm bench serve` 0.14.1.
RESULT_KEYS = """
    date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness max_concurrency
    duration completed failed total_input_tokens total_output_tokens request_throughput request_goodput
    output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests
    mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms p99_tpot_ms
    mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms
""".split()
#: Keys of a result, and the words under which the client prints the same metric, rounded, into its log.
PRINTED = {
    "completed": "Successful requests:",
    "total_input_tokens": "Total input tokens:",
    "total_output_tokens": "Total generated tokens:",
    "request_throughput": "Request throughput (req/s):",
    "output_throughput": "Output token throughput (tok/s):",
    "mean_ttft_ms": "Mean TTFT (ms):",
    "p99_ttft_ms": "P99 TTFT (ms):",
    "mean_tpot_ms": "Mean TPOT (ms):",
    "median_itl_ms": "Median ITL (ms):",
}
#: Columns of the CSV that have a name of their own.
COLUMNS = {
    "ReqThroughput_req_s": "request_throughput",
    "OutThroughput_tok_s": "output_throughput",
    "TTFT_ms": "mean_ttft_ms",
    "TPOT_ms": "mean_tpot_ms",
}
#: What both clients measure.
METRICS = ("output_throughput", "request_throughput", "mean_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "mean_e2el_ms")
#: What proves that the client is past its import and sends its load.
LOAD_BEGINS = "Starting main benchmark run"


# --- processes --------------------------------------------------------------------------------------------------------


class Process:
    """A line of /proc/PID/stat."""

    def __init__(self, pid: int):
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        self.pid, self.state = pid, fields[0]
        self.parent, self.group, self.session = (int(field) for field in fields[1:4])
        self.start = int(fields[19])

    @property
    def argv(self) -> list[str]:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        return []

    def __str__(self) -> str:
        return f"{self.pid} ({self.state}, group {self.group}) {' '.join(self.argv)[:120]}"


def processes() -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                found.append(Process(int(entry.name)))
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Process(pid).state not in "ZX"
    return False


#: Processes of subprocess.Popen: it waits for them itself.
popened: set[int] = set()


def become_subreaper() -> None:
    """Whatever loses its parent comes to this process: a kill -9 scatters nothing beyond our sight."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[Process]:
    """All live processes below this one; adopted ones that have ended are waited for."""
    everything = processes()
    family, grown = {os.getpid()}, True
    while grown:
        more = {p.pid for p in everything if p.parent in family} - family
        grown = bool(more)
        family |= more
    for process in everything:
        if process.parent == os.getpid() and process.state == "Z" and process.pid not in popened:
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, os.WNOHANG)
    return [p for p in everything if p.pid in family and p.pid != os.getpid() and p.state not in "ZX"]


def wait_for(what: str, condition, limit: float = SLOW, every: float = 0.05):
    return checks.wait_for(what, condition, limit, every)


# --- checks -----------------------------------------------------------------------------------------------------------


def contains(text: str, part: str, what: str) -> None:
    that(part in text, lambda: f"{what}: {part!r} is not in:\n{text[-3000:]}")


class Scenario(Part):
    """One of the main parts: its folder, its commands, its checks."""

    def __init__(self, bench: "Bench", name: str):
        super().__init__(bench, name)
        self.strangers: set[int] = set()

    # commands

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        child = self.begin(args, {**self.bench.env, **env})
        popened.add(child.pid)
        return child

    def call(self, *args: str, limit: float = 60.0, **env: str) -> tuple[int, str]:
        """Runs vllm-bench to its end: exit code and output."""
        child = self.start(*args, **env)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            child.terminate()
            raise AssertionError(f"`vllm-bench {' '.join(args)}` took more than {limit:.0f} s") from None
        return code, child.text()

    def sweep(self, command: str, *args: str, models: list[str], port: str = "", keep: bool = True) -> list[str]:
        """Arguments of run or sanity on the real vLLM; small, tp 1, eager, no quantization unless args say more."""
        # Not `--port auto`: it begins at 8000, which others on this machine may take without asking.
        port = port or str(free_port())
        given = [command, "--vllm-bin", str(self.bench.vllm), "--models", *models, "--tp", "1", "--port", port]
        given += ["--results-dir", str(self.results), "--env", "VLLM_CPU_KVCACHE_SPACE=1"]
        given += ["--timeout-startup", f"{SLOW:.0f}s", "--timeout-benchmark", f"{SLOW:.0f}s"]
        for flag, value in (("--enforce-eager", "true"), ("--quantization", "none")):
            if flag not in args:
                given += [flag, value]
        if "--retry" not in args:
            given += ["--retry", "none"]
        return given + (["--keep-foreign"] if keep else []) + list(args)

    # what a run writes

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.results.glob("*/manifest.json"))

    def run(self) -> Path:
        found = self.runs()
        that(len(found) == 1, f"{len(found)} run directories in {self.results}, expected one")
        return found[0]

    def journal(self) -> list[dict]:
        entries = []
        for path in self.results.glob("*/journal.jsonl"):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    entries.append(json.loads(line))
        return entries

    def events(self, kind: str) -> list[dict]:
        return [entry for entry in self.journal() if entry["event"] == kind]

    def wait_phase(self, child, *phases: str, after: int = 0) -> dict:
        """The first event, beyond the first `after` entries of the journal, that enters one of these phases."""

        def look():
            for entry in self.journal()[after:]:
                if entry["event"] == "phase-changed":
                    now = entry["now"]
                    if now.get("start-phase", now["phase"]) in phases:
                        return entry
            that(child is None or child.poll() is None, lambda: "vllm-bench ended early:\n" + child.text()[-3000:])
            return None

        return wait_for(f"phase {' or '.join(phases)}", look)

    def wait_load(self, name: str) -> None:
        """Until the client of this experiment sends its load."""

        def look():
            logs = self.results.glob(f"*/logs/{name}_benchmark.log")
            return any(LOAD_BEGINS in log.read_text(errors="replace") for log in logs)

        wait_for(f"the load of {name}", look)

    def members(self) -> list[Process]:
        """The processes of this scenario that are alive."""
        return [p for p in descendants() if p.pid not in self.strangers]

    def gone(self, limit: float = GONE) -> float:
        """Seconds until nothing is left."""
        start = time.monotonic()
        try:
            wait_for("the processes to end", lambda: not self.members(), limit)
        except AssertionError:
            left = "\n".join(str(p) for p in self.members())
            raise AssertionError(f"still alive after {limit:.0f} s:\n{left}") from None
        return time.monotonic() - start

    def check_nothing_left(self) -> None:
        with self.check("no process is left, and no script"):
            left = self.members()
            that(not left, lambda: "still alive:\n" + "\n".join(str(p) for p in left))
            for path in Path("/tmp").glob("vllm-bench-*.sh"):
                with contextlib.suppress(OSError):
                    writer = path.read_text().splitlines()[-1].removeprefix("# written by process ").split()
                    that(not (writer and writer[0].isdigit() and int(writer[0]) in popened), f"{path} is left")

    def check_files_parse(self) -> None:
        with self.check("every file parses, no unfinished file is left"):
            for path in self.results.rglob("*"):
                that(not path.name.startswith(".tmp-"), f"{path} is left")
                if path.suffix == ".json":
                    json.loads(path.read_text())
            that(not list(self.run().glob(".unchecked/*")), "an unchecked result is left")
            for line in (self.run() / "journal.jsonl").read_text().splitlines():
                json.loads(line)

    def failure(self, name: str) -> dict:
        return json.loads((self.run() / f"{name}_failure.json").read_text())

    def result(self, name: str) -> dict:
        return json.loads((self.run() / f"{name}_results.json").read_text())


def evidence_is_real(run: Path, failure: dict, log: str = "server_log") -> None:
    """The evidence names lines of the log that are there."""
    that(failure["evidence"], "there is no evidence")
    lines = (run / failure[log]).read_bytes().split(b"\n")
    for seen in failure["evidence"]:
        line = re.sub(r"\x1b\[[0-9;]*m", "", lines[seen["line"] - 1].decode(errors="replace"))
        begin = seen["text"].removesuffix("…").strip()
        that(begin in line, f"line {seen['line']} of the log is\n{line}\nand not\n{seen['text']}")
    that(failure["log_tail"] and len(failure["log_tail"]) <= 50, f"log tail of {len(failure['log_tail'])} lines")
    that(failure["advice"], "there is no advice")


def exactly_once(scenario: Scenario, names: list[str]) -> None:
    passed = [e["name"] for e in scenario.events("experiment-finished") if e["outcome"] == "passed"]
    equal(sorted(passed), sorted(names), "experiments that passed")
    for name in names:
        result = scenario.result(name)
        equal((result["completed"], result["failed"]), (result["num_prompts"], 0), f"completed and failed of {name}")


def told_within(entry: dict, since: float, limit: float, what: str) -> float:
    seconds = datetime.datetime.fromisoformat(entry["at"]).timestamp() - since
    that(0 <= seconds <= limit, f"{what} after {seconds:.2f} s, expected at most {limit} s")
    return seconds


def name_of(model: str, quantization: str = "none", eager: str = "true") -> str:
    flat = re.sub(r"[^A-Za-z0-9._-]", "_", model)
    return f"{flat}_tp1_quant-{quantization}_eager-{eager}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


def healthy(port: int) -> bool:
    with contextlib.suppress(OSError):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    return False


# --- the scenarios ----------------------------------------------------------------------------------------------------


def sweep(s: Scenario) -> None:
    """Models x eager true/false x quantization none/fp8, measured by the real client."""
    models = s.bench.models[: s.bench.of_sweep]
    n = len(models)
    # A compiled start takes as long as all the rest: on every commit there is none.
    eager = ("true",) if s.bench.ci else ("true", "false")
    passed, skipped = n * len(eager), n * (len(eager) - 1)
    axes = [(m, q, e) for m in models for q in ("none", "fp8") for e in eager]
    planned = [name_of(*a) for a in axes if a[1:] != ("fp8", "false")]
    good = [name_of(*a) for a in axes if a[1] == "none"]
    bad = [name_of(*a) for a in axes if a[1:] == ("fp8", "true")]
    load = ["--quantization", "none", "fp8", "--enforce-eager", *eager]
    load += ["--input-len", "8", "--output-len", "8", "--num-prompts", "4", "--concurrency", "2"]
    code, text = s.call(*s.sweep("sanity", *load, "--max-model-len", "2048", models=models), limit=4 * SLOW)
    with s.check(f"{len(axes)} combinations: {passed} pass, {n} fail, {skipped} are skipped by the rule; exit code 1", needed=True):
        equal(code, 1, "exit code")
        manifest = json.loads((s.run() / "manifest.json").read_text())
        equal([e["name"] for e in manifest["plan"]["experiments"]], planned, "plan")
        equal(len(manifest["plan"]["skips"]), skipped, "skips")
        finished = s.events("experiment-finished")
        equal([e["name"] for e in finished], planned, "order of the experiments")
        equal([e["name"] for e in finished if e["outcome"] == "passed"], good, "passed")
        [end] = s.events("run-finished")
        equal((end["passed"], end["failed"], end["skipped"], end["interrupted"]), (passed, n, skipped, False), "totals")
        for skip in manifest["plan"]["skips"]:
            contains(" ".join(text.split()), skip["reason"], "output")
    s.check_nothing_left()
    run = s.run()
    with s.check("results have vLLM's keys, all requests completed, ours beside them"):
        for experiment in manifest["plan"]["experiments"]:
            name = experiment["name"]
            if name not in good:
                that(not (run / f"{name}_results.json").exists(), f"{name} has a result")
                continue
            result = s.result(name)
            ours = result.pop("vllm_bench")
            equal(sorted(set(RESULT_KEYS) - set(result)), [], f"keys missing in the result of {name}")
            equal((result["completed"], result["failed"], result["num_prompts"]), (4, 0, 4), "requests")
            equal(result["total_output_tokens"], 32, "output tokens of 4 x 8")
            # Random tokens become text and tokens again: one more or less per prompt.
            that(28 <= result["total_input_tokens"] <= 36, f"input tokens of 4 x 8: {result['total_input_tokens']}")
            equal(ours["identity"], experiment["identity"], "identity")
            equal((ours["simulated"], ours["engine"], ours["attempt"]), (False, "vllm", 1), "engine")
            that(ours["vllm_version"].startswith(s.bench.version), f"vLLM {ours['vllm_version']}")
            timings = ours["timings"]
            known = sum(timings[part] for part in ("startup", "benchmark", "teardown"))
            that(0 <= timings["total"] - known < 5, f"timings do not add up: {timings}")
            steps = {step["phase"]: step["seconds"] for step in timings["startup_phases"]}
            that({"importing", "configuring", "loading"} <= set(steps), f"phases of the start: {steps}")
            that(abs(sum(steps.values()) - timings["startup"]) < 3, f"phases {steps} of {timings['startup']} s")
            # The CPU build says "Warming up model for the compilation" with --enforce-eager, too: that takes no time.
            compiled = steps.get("compiling", 0) / timings["startup"]
            if name.endswith("eager-true") or s.bench.cold:
                that((compiled > 0.15) == name.endswith("eager-false"), f"{name}: {compiled:.0%} of the start is compiling")
            else:
                that("compiling" in steps, f"{name} compiles nothing: {steps}")
            proof = ours["teardown"]
            equal((proof["group_empty"], proof["port_closed"]), (True, True), "teardown")
            # SIGKILL only after the patience that a server without a device gets: a busy machine may need it.
            in_order = not proof["killed"] or proof["seconds"] >= 3.0
            equal((in_order, proof["strays_ended"]), (True, 0), f"teardown in order: {proof}")
            for role in ("server", "benchmark"):
                that((run / "logs" / f"{name}_{role}.log").stat().st_size > 0, f"log of the {role} of {name}")
                script = (run / "scripts" / f"{name}_{role}.sh").read_text()
                command = ours["serve_command" if role == "server" else "bench_command"]
                that(all(word in script for word in command), f"script of the {role} of {name}")
    with s.check("the metrics are those that vLLM's client printed, in the JSON and in the CSV"):
        rows = {row["Experiment"]: row for row in csv.DictReader(open(run / "results_summary.csv", newline=""))}
        for name in good:
            result = s.result(name)
            log = (run / "logs" / f"{name}_benchmark.log").read_text(errors="replace")
            for key, words in PRINTED.items():
                [printed] = re.findall(rf"^{re.escape(words)}\s+([0-9.]+)", log, re.M)
                that(abs(float(printed) - result[key]) <= 0.00501, f"{name} {key}: {result[key]}, printed {printed}")
            row = rows[name]
            for key in [k for k in row if k in RESULT_KEYS]:
                equal(float(row[key]), float(result[key]), f"{key} of {name} in the CSV")
            for column, key in COLUMNS.items():
                equal(float(row[column]), result[key], f"{column} of {name} in the CSV")
            equal((row["Status"], row["Model"], row["TP"]), ("valid", result["model_id"], "1"), "row")
        by_status = sorted(row["Status"] for row in rows.values())
        equal(by_status, ["failed"] * n + ["skipped"] * skipped + ["valid"] * passed, "rows")
    with s.check("fp8 fails for its real reason: unsupported-quantization") as note:
        for name in bad:
            failure = s.failure(name)
            equal(failure["cause"], "unsupported-quantization", "cause")
            evidence_is_real(run, failure)
            contains(failure["evidence"][0]["text"], "scaled_fp8_quant", "evidence")
            contains(text, "unsupported-quantization", "output")
        note(failure["summary"][:100])
    with s.check("the analysis names everything, and is the same when run again"):
        names = ["summary.txt", "detailed_analysis.txt", "results_summary.csv", "raw_results.json"]
        before = {name: (run / name).read_bytes() for name in names}
        page = before["detailed_analysis.txt"].decode()
        for words in [*models, "unsupported-quantization", "OVERALL", "Recommendation by"]:
            that(words.lower() in page.lower(), f"{words} is not in the analysis:\n{page}")
        # On a machine so busy that a client could not run for a while, a configuration is excluded for it.
        that(re.search(r"It has the\s+best\s+mean|excluded: ", page), f"no choice, and nothing excluded:\n{page}")
        best = max(s.result(name)["request_throughput"] for name in good)
        shown = max(re.findall(r"Request throughput +[0-9.]+ +[0-9.]+ +[0-9.]+ +([0-9.]+) +req/s", page), key=float)
        digits = len(shown.partition(".")[2])
        that(abs(float(shown) - best) <= 0.51 * 10**-digits, f"best throughput overall: {shown}, measured {best}")
        again, _ = s.call("analyze", str(run))
        equal(again, 1, "exit code of analyze")
        equal([n for n in names if (run / n).read_bytes() != before[n]], [], "files that differ")
    with s.check("nothing says simulated"):
        for path in [*run.glob("*.txt"), *run.glob("scripts/*"), s.dir / "01-sanity.txt"]:
            that("simulated" not in path.read_text().lower(), f"{path.name} says simulated")
        for path in run.glob("*.json*"):
            that(not re.search(r'"simulated": ?true|SIMULATED', path.read_text()), f"{path.name} says simulated")
    s.check_files_parse()
    own_cost([s.result(name) for name in good], s.dir / "own-cost.txt")


def own_cost(results: list[dict], path: Path) -> None:
    """Acceptance 5: what vllm-bench itself costs, and where the rest of an experiment goes."""
    lines = ["experiment, seconds: total = startup + client + teardown + own; startup by phase; client: measured, rest"]
    for result in results:
        ours = result["vllm_bench"]
        t = ours["timings"]
        own = t["total"] - t["startup"] - t["benchmark"] - t["teardown"]
        steps = ", ".join(f"{step['phase']} {step['seconds']:.1f}" for step in t["startup_phases"])
        model = Path(result["model_id"]).name
        lines.append(
            f"{model} eager={str(ours['axes']['enforce-eager']).lower()}: {t['total']:.2f} = {t['startup']:.2f} + "
            f"{t['benchmark']:.2f} + {t['teardown']:.2f} + {own:.3f}; {steps}; "
            f"{result['duration']:.2f}, {t['benchmark'] - result['duration']:.2f}"
        )
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(f"     {line}" for line in lines), flush=True)


def failures(s: Scenario) -> None:
    """Configurations that truly fail: each cause named, and the sweep goes on."""
    missing = str(s.dir / "no-such-model")
    there = s.bench.models[0]
    args = s.sweep("sanity", "--max-model-len", "100000", models=[missing, there], port="auto")
    code, text = s.call(*args, limit=2 * SLOW)
    with s.check("a missing model: model-not-found") as note:
        failure = s.failure(name_of(missing))
        equal(failure["cause"], "model-not-found", "cause")
        evidence_is_real(s.run(), failure)
        note(failure["summary"][:100])
    with s.check("the sweep goes on; --max-model-len beyond the model: invalid-flag, advice names the limit; exit 1") as note:
        equal(code, 1, "exit code")
        failure = s.failure(name_of(there))
        equal(failure["cause"], "invalid-flag", "cause")
        evidence_is_real(s.run(), failure)
        contains(" ".join(failure["advice"]), "--max-model-len 4096", "advice")
        note(failure["summary"][:100])
        for cause in ("model-not-found", "invalid-flag"):
            contains(text, cause, "output")
    s.check_nothing_left()
    s.results = s.dir / "flag"
    code, text = s.call(*s.sweep("sanity", "--serve-arg=no-such-flag", "--no-preflight", models=[there]), limit=SLOW)
    with s.check("an unknown flag: invalid-flag, by name; exit 1") as note:
        equal(code, 1, "exit code")
        failure = s.failure(name_of(there))
        equal(failure["cause"], "invalid-flag", "cause")
        evidence_is_real(s.run(), failure)
        contains(failure["evidence"][0]["text"], "--no-such-flag", "evidence")
        note(failure["summary"][:100])
    s.check_nothing_left()


def killed(s: Scenario) -> None:
    """kill -9 of vllm-bench, twice, then the run goes on to its end."""
    models = s.bench.models[:2]
    first, second = (name_of(model) for model in models)
    args = s.sweep("sanity", *LONG_LOAD, models=models)
    child = s.start(*args)
    with s.check("kill -9 while the server loads: nothing is left") as note:
        s.wait_phase(child, "loading")
        before = len(s.members())
        that(any("VLLM::" in p.argv[0] or "spawn_main" in " ".join(p.argv) for p in s.members()), "no engine yet")
        child.kill()
        child.wait()
        note(f"{before} processes gone after {s.gone():.1f} s")
    with s.check("status says that the run died"):
        equal(status(s)["run"]["standing"], "died", "standing")
    child = s.start(*args, "--resume")
    with s.check("resumed; kill -9 while the client measures: nothing is left") as note:
        s.wait_load(first)
        equal(s.events("experiment-finished"), [], "outcomes before the kill")
        before = len(s.members())
        child.kill()
        child.wait()
        note(f"{before} processes gone after {s.gone():.1f} s")
    code, text = s.call(*args, "--resume", limit=3 * SLOW)
    with s.check("resumed to the end: every experiment passes exactly once, exit code 0"):
        equal(code, 0, "exit code")
        exactly_once(s, [first, second])
        equal([e["attempt"] for e in s.events("experiment-started")], [1, 2, 3, 1], "attempts")
        equal(s.result(first)["vllm_bench"]["attempt"], 3, "attempt of the result")
        logs = {path.name for path in (s.run() / "logs").iterdir()}
        kept = {f"{first}_server.log", f"{first}_server.2.log", f"{first}_server.3.log", f"{first}_benchmark.log"}
        that(kept <= logs, f"logs kept: {sorted(logs)}")
        that(not list(s.run().glob("*_failure*.json")), "an interrupted attempt counts as a failure")
    s.check_nothing_left()
    s.check_files_parse()


def guard_of_server(s: Scenario, name: str, orchestrator: int) -> int:
    """The guard is an ancestor of the server; vllm-bench's own process is above it."""
    pid = [e for e in s.events("server-launched") if e["name"] == name][-1]["process"]["pid"]
    found = None
    while pid not in (orchestrator, 0, 1):
        if "vllm-bench-guard" in Process(pid).argv[0]:
            found = pid
        pid = Process(pid).parent
    that(found, "no guard above the server")
    return found


def guard_died(s: Scenario, name: str, group: list[Process], orchestrator: int, at: float) -> str:
    """The failure after a guard was killed at this time, and that nothing of what ran then is left."""
    failure = wait_for("the failure file", lambda: (s.run() / f"{name}_failure.json").exists() and s.failure(name))
    that(failure["cause"] in ("launch-failed", "server-died"), f"cause {failure['cause']}")
    left = [p.pid for p in group if p.pid != orchestrator and alive(p.pid)]
    that(not left, f"processes of the server live on: {left}")
    equal(failure["teardown"]["group_empty"], True, "teardown")
    return f"{failure['cause']}: {failure['summary'][:100]}; recorded after {time.time() - at:.1f} s"


def died(s: Scenario) -> None:
    """SIGKILL of the engine, then (not with --ci) of the API server, while the client measures."""
    link = s.dir / "tiny-qwen3-c"
    link.symlink_to(s.bench.models[0])
    models = s.bench.models[:1] if s.bench.ci else [*s.bench.models[:2], str(link)]
    # A start is what costs: on every commit one server dies; that a sweep goes on after a failure is shown by the simulated vLLM.
    engine_dies, *others = (name_of(model) for model in models)
    child = s.start(*s.sweep("sanity", *LONG_LOAD, models=models))

    def kill_when_measuring(name: str, title: str) -> float:
        s.wait_load(name)
        leader = [e for e in s.events("server-launched") if e["name"] == name][-1]["process"]["pid"]
        if title == "API":
            victim = leader
        else:
            [victim] = [p.pid for p in s.members() if p.group == leader and p.argv[0].startswith(title)]
        time.sleep(0.3)
        at = time.time()
        os.kill(victim, signal.SIGKILL)
        return at

    def noticed(name: str, at: float) -> float:
        s.wait_phase(child, "draining", after=1 + s.journal().index(
            next(e for e in s.journal() if e["event"] == "benchmark-launched" and e["name"] == name)))
        [entry] = [e for e in s.events("phase-changed") if e["name"] == name and e["now"]["phase"] == "draining"]
        # 0.1 to 0.3 s on a quiet machine; the limit tells what was noticed from what was not.
        return told_within(entry, at, 20.0, "noticed")

    for name, title, own in [(engine_dies, "VLLM::EngineCore", "engine-core-failed"), *((name, "API", None) for name in others[:1])]:
        what = "the engine" if own else "the API server"
        with s.check(f"SIGKILL of {what} while measuring: server-died, noticed at once") as note:
            seconds = noticed(name, kill_when_measuring(name, title))
            failure = wait_for("the failure file", lambda: (s.run() / f"{name}_failure.json").exists() and s.failure(name))
            equal(failure["cause"], "server-died", "cause")
            equal(failure["phase"], {"phase": "measuring"}, "phase")
            if own:
                equal(failure["also"][0], own, "the server's own cause")
            contains(failure["summary"], "died during the benchmark", "summary")
            proof = failure["teardown"]
            equal((proof["group_empty"], proof["port_closed"]), (True, True), "teardown")
            note(f"noticed after {seconds:.2f} s, torn down in {proof['seconds']:.1f} s; {failure['summary'][:140]}")
    with s.check("exit code 1" if s.bench.ci else "the next experiment passes; exit code 1"):
        equal(child.wait(SLOW), 1, "exit code")
        exactly_once(s, others[1:])
    s.check_nothing_left()
    s.check_files_parse()


def reuse(s: Scenario) -> None:
    """A sweep file: one server start for several loads; flags checked first; SIGKILL of the engine in the second load."""
    file = s.dir / "sweep.yaml"
    serve = {"model": str(s.bench.models[0]), "enforce-eager": True, "max-model-len": 2048, "dtype": "bfloat16"}
    bench = {"dataset-name": "random", "ignore-eos": True, "random-input-len": 64, "random-output-len": 600,
             "num-prompts": 16, "max-concurrency": [2, 4, 8]}
    common = ["--vllm-bin", str(s.bench.vllm), "--results-dir", str(s.results), "--keep-foreign", "--setvars", "none",
              "--port", str(free_port()), "--env", "VLLM_CPU_KVCACHE_SPACE=1", "--retry", "none"]

    def write(extra: dict) -> None:
        file.write_text(json.dumps({"serve": serve | extra, "bench": bench}))

    with s.check("a misspelt flag is named before any start; the second answer comes from the cache") as note:
        write({"max-nun-seqs": 8})
        seconds, answers = [], []
        for _ in range(2):
            began = time.monotonic()
            code, text = s.call("run", str(file), *common, limit=SLOW, XDG_CACHE_HOME=str(s.dir / "cache"))
            seconds.append(time.monotonic() - began)
            answers.append([(path.name, path.stat().st_mtime_ns) for path in (s.dir / "cache").rglob("preflight/*.json")])
            equal(code, 2, "exit code")
            contains(text, "`--max-nun-seqs` of `vllm serve` is not known; there is `--max-num-seqs`", "the message")
        that(not s.runs(), "a run directory was made")
        that(len(answers[0]) == 1 and answers[0] == answers[1], f"cached answers: {answers}")
        note(f"{seconds[0]:.1f} s, then {seconds[1]:.2f} s")

    write({"max-num-seqs": [8, 16]})
    stem = name_of(s.bench.models[0])
    names = [f"{stem}_mns-{seqs}_cc-{load}" for seqs in (8, 16) for load in (2, 4, 8)]
    child = s.start("run", str(file), *common)
    s.wait_load(names[1])
    [victim] = [p for p in s.members() if p.argv[0].startswith("VLLM::EngineCore")]
    os.kill(victim.pid, signal.SIGKILL)
    code = child.wait(4 * SLOW)
    with s.check("SIGKILL of the engine in the second load loses only that load; three starts, six experiments") as note:
        equal(code, 1, "exit code")
        equal(s.failure(names[1])["cause"], "server-died", "cause")
        exactly_once(s, [name for name in names if name != names[1]])
        equal(len(s.events("server-launched")), 3, "server starts")
        equal([s.result(names[i])["vllm_bench"]["on_start"] for i in (0, 2, 3, 4, 5)], [1, 1, 1, 2, 3], "place on its start")
        seeds = [s.result(name)["vllm_bench"]["isolation"]["seed"] for name in names[3:]]
        equal(len(set(seeds)), 3, "different prompts on one server")
        note(f"seeds {seeds}")
    with s.check("a resume measures only what is missing"):
        code, text = s.call("run", str(file), *common, "--resume", str(s.run()), limit=2 * SLOW)
        equal(code, 0, "exit code")
        equal(len(s.events("server-launched")), 4, "server starts")
        exactly_once(s, names)
    s.check_nothing_left()
    s.check_files_parse()


def status(s: Scenario) -> dict:
    code, text = s.call("status", "--json", "--results-dir", str(s.results))
    that(code in (0, 3), f"exit code of status: {code}")
    return json.JSONDecoder().raw_decode(text.split("\n", 1)[1])[0]


def live(s: Scenario) -> None:
    """status, logs, stop and a second run, against a live detached run; check."""
    code, text = s.call("check", "--json", "--vllm-bin", str(s.bench.vllm), "--tp", "1", "--port", str(free_port()),
                        "--results-dir", str(s.results), limit=SLOW)
    with s.check("check sees this vLLM and its version"):
        report = json.loads(text.split("\n", 1)[1])
        [line] = [line for line in report["lines"] if line["name"] == "vllm"]
        equal(line["level"], "ok", "level")
        contains(line["message"], s.bench.version, "message")
        equal(code, 4 if report["overall"] == "failure" else 0, "exit code")
    model, port = s.bench.models[0], free_port()
    name = name_of(model)
    args = s.sweep("run", *LONG_LOAD, "--input-len", "8", "--output-len", "8", "--max-model-len", "2048",
                   models=[model], port=str(port))
    code, text = s.call(*args, "--detach")
    with s.check("run --detach returns and says how to follow and stop it", needed=True):
        equal(code, 0, "exit code")
        orchestrator = int(re.search(r"process (\d+)", text)[1])
        that(alive(orchestrator), "the detached process does not live")
        equal(Process(orchestrator).session, orchestrator, "its session")
        for words in (str(s.run()), "vllm-bench status", "vllm-bench logs", "vllm-bench stop"):
            contains(text, words, "output")

    def truthful(report: dict, phase: str) -> dict:
        run = report["run"]
        equal((run["standing"], run["orchestrator"]["pid"], run["simulated"]), ("live", orchestrator, False), "run")
        now = run["experiment"]
        equal((now["name"], now["index"], now["phase"], now["port"]), (name, 1, phase, port), "experiment")
        server = Process(now["server_pid"])
        equal(server.group, server.pid, "the server's group")
        contains(" ".join(server.argv), f"serve {model} --port {port}", "the server's arguments")
        ours = [p for p in report["vllm_processes"] if p["pid"] == server.pid]
        equal([(p["kind"], p["ours"], p["experiment"]) for p in ours], [("server", True, name)], "vLLM processes")
        return now

    with s.check("status while loading: phase, pid, port, experiment") as note:
        s.wait_phase(None, "loading")
        now = truthful(status(s), "starting")
        that(now["start_phase"], "no start phase")
        equal(now["client_pid"], None, "client")
        that(not healthy(port), "the server is ready already")
        note(f"starting: {now['start_phase']}")
    with s.check("logs shows the server's lines"):
        code, text = s.call("logs", "--no-follow", "-n", "5", "--results-dir", str(s.results))
        equal(code, 0, "exit code")
        log = (s.run() / "logs" / f"{name}_server.log").read_bytes().decode(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
        shown = [line for line in text.splitlines()[1:] if line and not line.startswith("==>")]
        that(1 <= len(shown) <= 5 and all(line.rstrip() in plain for line in shown), f"shown: {shown}")
    with s.check("a second run on the same results directory is refused with exit code 5, and says who holds it"):
        code, text = s.call(*s.sweep("sanity", models=[model]))
        equal(code, 5, "exit code")
        contains(text, f"process {orchestrator}", "output")
    with s.check("a second run on the same port is refused with exit code 4, and says who holds it"):
        elsewhere, s.results = s.results, s.dir / "second"
        try:
            code, text = s.call(*s.sweep("sanity", models=[model], port=str(port)))
        finally:
            s.results = elsewhere
        equal(code, 4, "exit code")
        contains(text, f"process {orchestrator}", "output")
        contains(text, str(port), "output")
        that(not list((s.dir / "second").glob("*/manifest.json")), "a run directory was made")
    with s.check("status while measuring: the client and the server are there", needed=True) as note:
        s.wait_phase(None, "measuring")
        s.wait_load(name)
        now = truthful(status(s), "measuring")
        contains(" ".join(Process(now["client_pid"]).argv), "bench serve", "the client's arguments")
        that(healthy(port), "nothing answers on the port")
        code, text = s.call("logs", "--server", "--no-follow", "-n", "3", "--results-dir", str(s.results))
        # 0.14.1 puts the name of the process before each line, 0.32.0 not before those of requests.
        that("APIServer" in text or "HTTP/1.1" in text, f"the server's log: {text}")
    with s.check("stop ends it in order and says what it ended") as note:
        began = time.monotonic()
        code, text = s.call("stop", "--results-dir", str(s.results), limit=2 * GRACE)
        equal(code, 0, "exit code")
        that(not alive(orchestrator), "the detached process lives on")
        seconds = time.monotonic() - began
        contains(text, f"server process {now['server_pid']} on port {port}", "output")
        contains(text, name, "output")
        contains(text, "--resume", "output")
        [torn] = s.events("torn-down")
        equal((torn["proof"]["group_empty"], torn["proof"]["killed"]), (True, False), "teardown")
        equal(s.events("run-finished")[-1]["interrupted"], True, "interrupted")
        note(f"{seconds:.1f} s")
    s.check_nothing_left()
    with s.check("status afterwards: interrupted, to do again"):
        run = status(s)["run"]
        equal((run["standing"], run["counts"]["to_do"], run["counts"]["failed"]), ("interrupted", 1, 0), "run")
        that(not (s.run() / f"{name}_failure.json").exists(), "the stop counts as a failure")
    code, text = s.call(*args, "--detach")
    with s.check("run --detach again goes on with the same run, to its end"):
        equal(code, 0, "exit code")
        contains(text, str(s.run()), "the one run directory in the output")
        orchestrator = int(re.search(r"process (\d+)", text)[1])
        wait_for("the end of the run", lambda: not alive(orchestrator), 2 * SLOW)
        exactly_once(s, [name])
        equal(s.result(name)["vllm_bench"]["attempt"], 2, "attempt")
        equal(status(s)["run"]["standing"], "finished", "standing")
    s.check_nothing_left()
    s.check_files_parse()


def foreign(s: Scenario) -> None:
    """A vLLM server that somebody else started is never measured; without --keep-foreign it is ended first."""
    model, port = s.bench.models[0], free_port()
    command = [str(s.bench.vllm), "serve", model, "--port", str(port), "--enforce-eager", "--max-model-len", "2048"]
    with open(s.dir / "foreign-server.log", "w") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**s.bench.env, "VLLM_CPU_KVCACHE_SPACE": "1"},
        )
    popened.add(server.pid)
    with s.check("a plain `vllm serve` is up", needed=True):
        wait_for("the foreign server", lambda: healthy(port) or server.poll() is not None)
        equal(server.poll(), None, "the foreign server's exit code")
    args = lambda keep: s.sweep("sanity", "--serve-arg=no-such-flag", "--no-preflight", models=[model], port=str(port), keep=keep)  # noqa: E731
    with s.check("run on its port with --keep-foreign: exit code 4, it is named, it lives on"):
        code, text = s.call(*args(True))
        equal(code, 4, "exit code")
        contains(text, f"port {port} is taken by process {server.pid}", "output")
        contains(text, "vllm serve", "output")
        that(healthy(port), "the foreign server was ended")
        that(not s.runs(), "a run directory was made")
    with s.check("status lists it as not ours"):
        [seen] = [p for p in status(s)["vllm_processes"] if p["pid"] == server.pid]
        equal((seen["kind"], seen["ours"]), ("server", False), "kind")
    if not s.bench.rule14:
        print(f"skip {s.name}: without --keep-foreign it is ended first (would end every vLLM of this user: set"
              " VLLM_BENCH_TEST_RULE14=1, or let run.py have a PID namespace)", flush=True)
        server.terminate()
        server.wait(60)
    else:
        # The flag that vLLM does not know keeps this short: what counts is what happens before the start.
        code, text = s.call(*args(False), limit=SLOW)
        with s.check("run without --keep-foreign: it is ended first, and listed (rule 14)"):
            that(server.poll() is not None, "the foreign server lives on")
            contains(text, str(server.pid), "output")
            contains(text, "vllm serve", "output")
            equal(code, 1, "exit code")
            equal(s.failure(name_of(model))["cause"], "invalid-flag", "what became of the run itself")
    s.check_nothing_left()


def load(s: Scenario) -> None:
    """`vllm-bench load` and `vllm bench serve`, in turn, on one server; vllm's tools read our files; both clients in a sweep."""
    model, port = s.bench.models[0], free_port()
    command = [str(s.bench.vllm), "serve", model, "--port", str(port), "--enforce-eager", "--max-model-len", "2048",
               "--no-enable-prefix-caching", "--dtype", "bfloat16"]
    with open(s.dir / "server.log", "w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                  env={**s.bench.env, "VLLM_CPU_KVCACHE_SPACE": "1"})
    popened.add(server.pid)
    with s.check("a plain `vllm serve` is up", needed=True):
        wait_for("the server", lambda: healthy(port) or server.poll() is not None)
        equal(server.poll(), None, "the server's exit code")
    flags = ["--backend", "openai", "--host", "127.0.0.1", "--port", str(port), "--model", model, "--dataset-name", "random",
             "--random-input-len", "64", "--random-output-len", "48", "--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el",
             "--save-result", "--result-dir", str(s.dir)]
    ours, theirs = [], []

    def measure(which: list, name: str, prompts: int, streams: int, seed: int) -> dict:
        more = ["--num-prompts", str(prompts), "--max-concurrency", str(streams), "--seed", str(seed), "--result-filename", name]
        if which is ours:
            code, text = s.call("load", *flags, *more, limit=SLOW)
        else:
            done = subprocess.run([str(s.bench.vllm), "bench", "serve", *flags, *more, "--disable-tqdm"], cwd=s.dir, text=True,
                                  env={**s.bench.env, "VLLM_CPU_KVCACHE_SPACE": "1"}, capture_output=True)
            code, text = done.returncode, done.stdout + done.stderr
        equal(code, 0, f"exit code of {name}: {text[-1500:]}")
        found = json.loads((s.dir / name).read_text())
        which.append(found)
        return found

    if s.bench.turns > 1:
        # Once each for nothing: the first requests of a server are its slowest.
        measure(ours, "warm-up-ours.json", 40, 2, 999)
        measure(theirs, "warm-up-theirs.json", 40, 2, 999)
        ours.clear(), theirs.clear()
    beyond = ", metrics within the noise between runs of one client" if s.bench.turns > 1 else ""
    with s.check(f"{s.bench.turns} times in turn: token counts agree exactly{beyond}") as note:
        for turn in range(s.bench.turns):
            pair = [(ours, f"ours-{turn}.json"), (theirs, f"theirs-{turn}.json")]
            for which, name in pair if turn % 2 == 0 else reversed(pair):
                measure(which, name, 80, 2, turn)
        for key in ("completed", "failed", "total_input_tokens", "total_output_tokens", "num_prompts", "model_id", "tokenizer_id"):
            equal([r[key] for r in ours], [r[key] for r in theirs], key)
        wrong = []
        # One run of each tells nothing of the noise.
        for key in METRICS if s.bench.turns > 1 else ():
            a, b = [r[key] for r in ours], [r[key] for r in theirs]
            mean = lambda values: sum(values) / len(values)  # noqa: E731
            apart = lambda values: [abs(x - y) for i, x in enumerate(values) for y in values[:i]]  # noqa: E731
            same = max(mean(apart(a)), mean(apart(b)))
            most = max(apart(a) + apart(b))
            note(f"{key} {mean(a):.4g} and {mean(b):.4g}, {100 * (mean(a) / mean(b) - 1):+.1f} %; two runs of one client differ by "
                 f"{100 * same / mean(b):.1f} % on average, {100 * most / mean(b):.1f} % at most")
            # A clear disagreement fails; a metric beyond the noise of so few runs on a busy machine is only told.
            if abs(mean(a) - mean(b)) > max(most, 0.25 * mean(b)):
                wrong.append(key)
        that(not wrong, f"beyond the noise: {wrong}")

    if s.bench.ci:
        server.terminate()
        server.wait(60)
        # This server is the test's own: its children may take a moment longer.
        with contextlib.suppress(AssertionError):
            wait_for("the end of the server's children", lambda: not s.members(), GONE)
        return s.check_nothing_left()

    with s.check("vLLM's own plot tools read our result files, between their own") as note:
        rows = [measure(ours, f"plot-ours-{n}.json", 10 * n, n, n) | {"client": "vllm-bench load"} for n in (1, 2, 4)]
        rows += [measure(theirs, f"plot-theirs-{n}.json", 10 * n, n, n) | {"client": "vllm bench serve"} for n in (1, 2)]
        for row in rows:
            row["tensor_parallel_size"] = 1
        folder = s.dir / "plots"
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps(rows))
        environment = {**s.bench.env, "MPLBACKEND": "Agg", "VLLM_CPU_KVCACHE_SPACE": "1"}
        for words in (["plot", str(folder), "--var-x", "max_concurrency", "--var-y", "p99_ttft_ms", "--curve-by", "client"],
                      ["plot_pareto", str(folder), "--label-by", "max_concurrency", "--user-count-var", "max_concurrency"]):
            done = subprocess.run([str(s.bench.vllm), "bench", "sweep", *words], cwd=s.dir, env=environment, capture_output=True, text=True)
            equal(done.returncode, 0, f"vllm bench sweep {words[0]}: {(done.stdout + done.stderr)[-1500:]}")
        plots = sorted(path.name for path in folder.rglob("*.png"))
        that(len(plots) >= 2, f"plots: {plots}")
        note(", ".join(plots))
    server.terminate()
    server.wait(60)

    file = s.dir / "sweep.yaml"
    file.write_text(json.dumps({
        "serve": {"model": model, "enforce-eager": True, "max-model-len": 2048, "dtype": "bfloat16"},
        "bench": {"dataset-name": "random", "ignore-eos": True, "random-input-len": 64, "random-output-len": 32,
                  "num-prompts": 40, "max-concurrency": [1, 2, 4]},
    }))
    beside, names = {}, {}
    for client in ("vllm", "builtin"):
        results = s.dir / f"results-{client}"
        with s.check(f"a sweep with `--client {client}`", needed=True):
            code, text = s.call("run", str(file), "--client", client, "--vllm-bin", str(s.bench.vllm), "--results-dir", str(results),
                                "--keep-foreign", "--setvars", "none", "--port", str(free_port()), "--env", "VLLM_CPU_KVCACHE_SPACE=1",
                                "--retry", "none", limit=3 * SLOW)
            equal(code, 0, f"exit code: {text[-2000:]}")
        [run] = [path.parent for path in results.glob("*/manifest.json")]
        names[client] = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
        found = [json.loads(path.read_text()) for path in sorted(run.glob("*_cc-*_results.json"))]
        that(len(found) == 3, f"{len(found)} results")
        beside[client] = [r["vllm_bench"]["timings"]["benchmark"] - r["duration"] for r in found]
    with s.check("both clients leave the same files; seconds of a measurement beside its load") as note:
        equal(names["builtin"], names["vllm"], "files")
        mean = {client: sum(values) / len(values) for client, values in beside.items()}
        note("; ".join(f"{client} {seconds:.2f} s" for client, seconds in mean.items()))
        that(mean["builtin"] < mean["vllm"], "the built-in client takes longer beside its load than vLLM's")
    s.check_nothing_left()


def workloads(s: Scenario) -> None:
    """Ten workloads by `vllm-bench load` and by `vllm bench serve` on one server: the same tokens, request by request."""
    model, port = s.bench.models[0], free_port()
    server = plain_server(s, model, port, "--no-enable-prefix-caching", "--dtype", "bfloat16")
    with s.check("a plain `vllm serve` is up", needed=True):
        wait_for("the server", lambda: healthy(port) or server.poll() is not None)
        equal(server.poll(), None, "the server's exit code")
    lines = [{"prompt": f"Request {n} asks for " + "tokens and " * (n % 7 + 1)} for n in range(24)]
    custom = s.dir / "custom.jsonl"
    custom.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = s.dir / "sharegpt.json"
    talk = lambda n: [{"from": "human", "value": f"Question {n}: " + "what is a sweep " * (n % 5 + 2)},  # noqa: E731
                      {"from": "gpt", "value": "It starts one server for each configuration. " * (n % 4 + 1)}]
    shared.write_text(json.dumps([{"id": str(n), "conversations": talk(n)} for n in range(40)]))
    random = ["--dataset-name", "random", "--ignore-eos"]
    chat = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
    cases = {
        "random": [*random, "--random-input-len", "64", "--random-output-len", "32"],
        "random, lengths within a range": [*random, "--random-input-len", "80", "--random-output-len", "24", "--random-range-ratio", "0.5"],
        "random with a shared prefix": [*random, "--random-prefix-len", "32", "--random-input-len", "32", "--random-output-len", "16"],
        "random at 20 requests/s": [*random, "--random-input-len", "48", "--random-output-len", "16", "--request-rate", "20"],
        "random, one at a time": [*random, "--random-input-len", "128", "--random-output-len", "8", "--max-concurrency", "1"],
        "chat, random": [*chat, *random, "--random-input-len", "64", "--random-output-len", "32"],
        "prefix repetition": ["--dataset-name", "prefix_repetition", "--ignore-eos", "--prefix-repetition-prefix-len", "40",
                              "--prefix-repetition-suffix-len", "24", "--prefix-repetition-num-prefixes", "4",
                              "--prefix-repetition-output-len", "16"],
        "custom": ["--dataset-name", "custom", "--dataset-path", str(custom), "--custom-output-len", "20", "--ignore-eos", "--disable-shuffle"],
        "chat, custom": [*chat, "--dataset-name", "custom", "--dataset-path", str(custom), "--custom-output-len", "20", "--ignore-eos", "--disable-shuffle"],
        "sharegpt": ["--dataset-name", "sharegpt", "--dataset-path", str(shared), "--ignore-eos", "--disable-shuffle"],
    }
    # What is known to differ: the lengths of prompts are compared but for these.
    known = {
        "chat, random": "vLLM's client leaves the chat template out",
        "chat, custom": "vLLM's client leaves the chat template out",
        "prefix repetition": "each client draws the text of its prompts by random numbers of its own",
    }
    if s.bench.release == "newest":
        known["random with a shared prefix"] = "since 0.32 vLLM's client changes the prefix until its text has as many tokens as were asked for"
    for number, (title, flags) in enumerate(cases.items()):
        with s.check(f"{title}: tokens equal, request by request") as note:
            common = ["--host", "127.0.0.1", "--port", str(port), "--model", model, "--num-prompts", "24", "--seed", str(number),
                      "--temperature", "0", "--save-result", "--save-detailed", "--result-dir", str(s.dir), *flags]
            code, text = s.call("load", *common, "--result-filename", f"ours-{number}.json", limit=SLOW)
            equal(code, 0, f"exit code of load: {text[-1500:]}")
            theirs = ["--result-filename", f"theirs-{number}.json", "--disable-tqdm"]
            done = subprocess.run([str(s.bench.vllm), "bench", "serve", *common, *theirs], cwd=s.dir, text=True,
                                  env={**s.bench.env, "VLLM_CPU_KVCACHE_SPACE": "1"}, capture_output=True)
            equal(done.returncode, 0, f"exit code of vllm bench serve: {(done.stdout + done.stderr)[-1500:]}")
            ours, theirs = (json.loads((s.dir / f"{who}-{number}.json").read_text()) for who in ("ours", "theirs"))
            equal((ours["completed"], ours["failed"]), (theirs["completed"], theirs["failed"]), "completed and failed")
            wrong = []
            for key in ("output_lens",) if title in known else ("input_lens", "output_lens"):
                apart = [n for n, (a, b) in enumerate(zip(ours[key], theirs[key], strict=True)) if a != b]
                if apart:
                    n = apart[0]
                    wrong.append(f"{key} differ for {len(apart)} of {len(ours[key])} requests, first {n}: {ours[key][n]} and {theirs[key][n]}")
            same = sum(a == b for a, b in zip(ours["generated_texts"], theirs["generated_texts"]))
            note(f"{ours['total_input_tokens']} + {ours['total_output_tokens']} tokens, {same} of {len(ours['output_lens'])} answers alike"
                 + (f"; lengths of prompts not compared: {known[title]}" if title in known else ""))
            that(not wrong, "; ".join(wrong))
    server.terminate()
    server.wait(60)
    s.check_nothing_left()


def plain_server(s: Scenario, model: str, port: int, *flags: str) -> subprocess.Popen:
    """A `vllm serve` that vllm-bench knows nothing of."""
    command = [str(s.bench.vllm), "serve", model, "--port", str(port), "--enforce-eager", "--max-model-len", "2048", *flags]
    with open(s.dir / f"plain-server-{port}.log", "w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                  env={**s.bench.env, "VLLM_CPU_KVCACHE_SPACE": "1"})
    popened.add(server.pid)
    return server


def guards(s: Scenario) -> None:
    """kill -9 of a guard, then of guard and vllm-bench at once; a neighbour's server lives through all of it and the resume."""
    models = s.bench.models[:2]
    first, second = (name_of(model) for model in models)
    port = free_port()
    neighbour = plain_server(s, models[0], port)
    with s.check("a neighbour's `vllm serve` is up", needed=True):
        wait_for("the neighbour", lambda: healthy(port) or neighbour.poll() is not None)
        equal(neighbour.poll(), None, "the neighbour's exit code")
    s.strangers = {p.pid for p in descendants()}
    theirs = {p.pid: p.start for p in descendants()}

    def neighbour_lives() -> None:
        that(healthy(port), "the neighbour's server does not answer any more")
        now = {p.pid: p.start for p in descendants()}
        lost = [pid for pid, start in theirs.items() if now.get(pid) != start]
        that(not lost, f"processes of the neighbour are gone: {lost}")

    child = s.start(*s.sweep("sanity", *LONG_LOAD, models=models))
    with s.check("kill -9 of the guard while measuring: its server is gone, the failure says so, the sweep goes on") as note:
        s.wait_load(first)
        group = s.members()
        at = time.time()
        os.kill(guard_of_server(s, first, child.pid), signal.SIGKILL)
        note(guard_died(s, first, group, child.pid, at))
    with s.check("the neighbour lives"):
        neighbour_lives()
    with s.check("kill -9 of guard and vllm-bench at once, while measuring: `stop` leaves nothing") as note:
        s.wait_load(second)
        guard = guard_of_server(s, second, child.pid)
        os.kill(guard, signal.SIGKILL)
        child.kill()
        child.wait()
        before = len(s.members())
        s.call("stop", "--results-dir", str(s.results), limit=2 * GRACE)
        note(f"{before} processes after the kills, none {s.gone():.1f} s after `stop`")
    with s.check("the neighbour lives"):
        neighbour_lives()
    code, text = s.call("run", "--resume", str(s.run()), limit=3 * SLOW)
    with s.check("`run --resume RUN`, with nothing else said, ends with one valid result each; the neighbour lives on"):
        equal(code, 0, f"exit code: {text[-2000:]}")
        exactly_once(s, [first, second])
        neighbour_lives()
    neighbour.terminate()
    neighbour.wait(60)
    # Its helpers (`resource_tracker`) end a moment after it.
    wait_for("the neighbour's processes to end", lambda: not any(p.pid in theirs for p in descendants()), GONE)
    s.strangers = set()
    s.check_nothing_left()
    s.check_files_parse()


def decide(s: Scenario) -> None:
    """Two configurations that truly differ, one of them twice under two names (A/A): the one is found, the other is not."""
    file = s.dir / "sweep.yaml"
    file.write_text(json.dumps({
        "serve": {"model": s.bench.models[0], "enforce-eager": True, "max-model-len": 2048, "dtype": "bfloat16"},
        "bench": {"dataset-name": "random", "ignore-eos": True, "random-input-len": 64, "random-output-len": 32,
                  "num-prompts": 64, "max-concurrency": 8},
        # vLLM knows nothing of this variable: what differs in it alone is the same.
        "experiments": [{"name": "wide", "serve": {"max-num-seqs": 8}, "env": {"AA_VARIANT": ["a", "b"]}},
                        {"name": "narrow", "serve": {"max-num-seqs": 1}, "env": {"AA_VARIANT": "a"}}],
        "repeats": {"starts": s.bench.starts}, "order": "interleaved", "warmup": 16,
    }))

    def seats(option: dict) -> int:
        words = " ".join(option["serve_command"]).replace("=", " ").split()
        return int(words[words.index("--max-num-seqs") + 1])

    def measure(turn: int) -> dict:
        results = s.dir / f"results-{turn}"
        code, text = s.call("run", str(file), "--client", "builtin", "--vllm-bin", str(s.bench.vllm), "--results-dir", str(results),
                            "--keep-foreign", "--setvars", "none", "--port", str(free_port()), "--env", "VLLM_CPU_KVCACHE_SPACE=1",
                            limit=(1 + s.bench.starts) * SLOW)
        equal(code, 0, f"exit code: {text[-2000:]}")
        code, text = s.call("recommend", "--results-dir", str(results), "--format", "json")
        equal(code, 0, "exit code of recommend")
        [answer] = json.loads(text.split("\n", 1)[1])["answers"]
        return answer

    with s.check(f"3 configurations, {s.bench.starts} starts each: a difference that is there is found", needed=True) as note:
        answer = measure(1)
        options = answer["options"]
        equal(sorted(seats(option) for option in options), [1, 8, 8], "configurations")
        equal([option["n"] for option in options], [s.bench.starts] * 3, "measurements")
        best = [option for option in options if option["standing"] == "may-be-best"]
        that(all(seats(option) == 8 for option in best), f"the best set: {[option['name'] for option in best]}")
        equal(answer["basis"], "starts", "what it is based on")
        note(", ".join(f"{option['name']} {option['value']:.0f}" for option in options) + f" tok/s; noise {100 * answer['noise']:.1f} %")
    with s.check("A/A: of two names of the same configuration none is called better") as note:
        if len(best) != 2:
            # One comparison in twenty may say so by chance: twice in a row, one in four hundred.
            note("one was called better at first (5 % of such comparisons are), so measured again")
            answer = measure(2)
            best = [option for option in answer["options"] if option["standing"] == "may-be-best"]
        equal(len(best), 2, "configurations in the best set")
        low, high = sorted(option["value"] for option in best)
        note(f"{100 * (high / low - 1):.1f} % apart")
    s.check_nothing_left()


def lanes(s: Scenario) -> None:
    """Two lanes of one core each: 2 x 2 configurations at once, SIGKILL of one engine amid them, and what neighbours cost (A/A)."""
    file = s.dir / "sweep.yaml"

    def write(models: list[str], seqs: list[int], **bench) -> None:
        file.write_text(json.dumps({
            "serve": {"model": models, "enforce-eager": True, "max-model-len": 2048, "dtype": "bfloat16", "max-num-seqs": seqs},
            "bench": {"dataset-name": "random", "ignore-eos": True, "random-input-len": 64, "max-concurrency": 4, **bench},
        }))

    common = ["--client", "builtin", "--vllm-bin", str(s.bench.vllm), "--keep-foreign", "--setvars", "none", "--port", str(free_port()),
              "--env", "VLLM_CPU_KVCACHE_SPACE=1", "--retry", "none", "--finalists", "off", "--login", "off"]

    def cores(process: int) -> str:
        status = Path(f"/proc/{process}/status").read_text()
        return re.search(r"^Cpus_allowed_list:\s*(\S+)", status, re.M)[1]

    write(s.bench.models, [4, 8], **{"random-output-len": 64, "num-prompts": 200})
    child = s.start("run", str(file), *common, "--results-dir", str(s.results), "--parallel", "2")
    begun = lambda: s.events("benchmark-launched")  # noqa: E731
    with s.check("two servers measure at once, each with its client on a core of its own", needed=True) as note:
        wait_for("two loads", lambda: len(begun()) >= 2 or child.poll() is not None)
        that(child.poll() is None, lambda: child.text()[-3000:])
        names = [entry["name"] for entry in begun()[:2]]
        placed = {e["name"]: e["placement"] for e in s.events("experiment-started")}
        seen = {}
        for entry in s.events("server-launched"):
            if entry["name"] in names:
                [engine] = [p.pid for p in s.members() if p.group == entry["process"]["pid"] and p.argv[0].startswith("VLLM::EngineCore")]
                seen[entry["name"]] = (engine, cores(engine))
                equal(cores(engine), placed[entry["name"]]["cores"], "cores of the engine")
        equal(len({core for _, core in seen.values()}), 2, f"different cores: {seen}")
        note(", ".join(f"{name[-5:]} on core {core}" for name, (_, core) in seen.items()))
    victim, other = names
    with s.check("SIGKILL of the engine of one: the measurement beside it is untouched") as note:
        os.kill(seen[victim][0], signal.SIGKILL)
        ended = lambda name: [e for e in s.events("experiment-finished") if e["name"] == name]  # noqa: E731
        [failed] = wait_for("the end of the one", lambda: ended(victim))
        equal((failed["outcome"], s.failure(victim)["cause"]), ("failed", "server-died"), "outcome")
        [passed] = wait_for("the end of the other", lambda: ended(other))
        equal((passed["outcome"], passed["attempt"]), ("passed", 1), "outcome of the other")
        result = s.result(other)
        equal((result["completed"], result["failed"]), (200, 0), "requests of the other")
        that(result["vllm_bench"]["neighbours"] >= 1, "it had a neighbour")
        equal(s.failure(victim)["teardown"]["group_empty"], True, "teardown")
        note(f"{result['output_throughput']:.0f} tok/s")
    with s.check("the rest passes; a resume measures what is missing, on the same lanes"):
        equal(child.wait(3 * SLOW), 1, "exit code")
        code, text = s.call("run", "--resume", str(s.run()), limit=3 * SLOW)
        equal(code, 0, text[-2000:])
        exactly_once(s, sorted({e["name"] for e in s.events("experiment-started")}))
        equal(len({e["name"] for e in s.events("experiment-started")}), 4, "configurations")
    s.check_nothing_left()
    s.check_files_parse()
    with s.check("what neighbours cost on this machine is measured, and what follows from it is done") as note:
        write(s.bench.models[:1], [4, 8], **{"random-output-len": 64, "num-prompts": 150})
        results = s.dir / "auto"
        code, text = s.call("run", str(file), *common, "--results-dir", str(results), "--parallel", "auto", limit=6 * SLOW)
        equal(code, 0, text[-2000:])
        [journal] = results.glob("*/journal.jsonl")
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
        [found] = [entry for entry in entries if entry["event"] == "neighbours-checked"]
        that(len(found["pairs"]) >= 3, f"{found}")
        started = [entry for entry in entries if entry["event"] == "experiment-started"]
        equal(any("placement" in entry for entry in started), found["within"], "lanes are used where they cost little")
        note(found["why"])
    s.check_nothing_left()


def hung(s: Scenario) -> None:
    """SIGSTOP of the engine, then of the API server, while the client measures: who stands still, and what is kept."""
    models = s.bench.models[:2]
    args = s.sweep("sanity", *LONG_LOAD, "--stall-timeout", "20s", models=models)
    child = s.start(*args)
    for model, title, who in ((models[0], "VLLM::EngineCore", "engine"), (models[1], "API", "api-server")):
        name = name_of(model)
        s.wait_load(name)
        leader = [e for e in s.events("server-launched") if e["name"] == name][-1]["process"]["pid"]
        engines = [p.pid for p in s.members() if p.group == leader and p.argv[0].startswith(title)]
        victim = leader if title == "API" else engines[0]
        with s.check(f"SIGSTOP of the {who} while measuring: hung, it is named, evidence is kept") as note:
            time.sleep(1)
            at = time.time()
            os.kill(victim, signal.SIGSTOP)
            failure = wait_for("the failure file", lambda: (s.run() / f"{name}_failure.json").exists() and s.failure(name), SLOW)
            equal((failure["cause"], failure["phase"]), ("hung", {"phase": "measuring"}), "cause and phase")
            hang = failure["hang"]
            equal((hang["who"], hang["does"], hang["process"]["pid"]), (who, "stopped", victim), "who stands still")
            equal(hang["health-answers"], who == "engine", "whether /health is answered")
            kept = s.run() / failure["kept"]
            for file in ("summary.txt", "processes.txt", "metrics.txt", "server_log.txt", "client_log.txt", "devices.txt"):
                that((kept / file).stat().st_size > 0, f"{file} is empty")
            contains((kept / "summary.txt").read_text(), "is stopped", "summary")
            contains((kept / "processes.txt").read_text(), "VLLM::EngineCore", "processes")
            if who == "engine":
                contains((kept / "metrics.txt").read_text(), "vllm:num_requests_running", "metrics")
            if shutil.which("py-spy"):
                contains((kept / "python_stacks.txt").read_text(), "run_engine_core", "stacks of Python")
            equal(failure["teardown"]["group_empty"], True, "teardown")
            note(f"recorded {time.time() - at:.0f} s after SIGSTOP, limit 20 s; {failure['summary'][:160]}")
    with s.check("exit code 1"):
        equal(child.wait(SLOW), 1, "exit code")
    s.check_nothing_left()
    s.check_files_parse()


SCENARIOS = {function.__name__: function for function in (
    sweep, failures, killed, guards, died, hung, reuse, load, workloads, decide, live, foreign, lanes)}


# --- the whole --------------------------------------------------------------------------------------------------------


class Bench:
    """What all scenarios share."""

    def __init__(self, binary: Path, install: Path, work: Path, ci: bool = False):
        self.binary, self.work, self.ci = binary, work, ci
        [self.version] = re.findall(r"^(\d+\.\d+\.\d+)", subprocess.check_output(
            [install / "venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('vllm-cpu'))"], text=True))
        self.vllm = install / "venv/bin/vllm"
        self.models = [str(install / "models" / name) for name in ("tiny-qwen3", "tiny-qwen3-b")]
        self.turns = int(os.environ.get("VLLM_BENCH_TEST_TURNS", "1" if ci else "10"))
        self.starts = int(os.environ.get("VLLM_BENCH_TEST_STARTS", "3"))
        self.of_sweep = int(os.environ.get("VLLM_BENCH_TEST_MODELS", "1" if ci else "2"))
        self.rule14 = os.environ.get("VLLM_BENCH_TEST_RULE14") == "1"
        # Kept between runs, one for each release: what is compiled once is not compiled again.
        cache = install / "cache"
        self.cold = not (cache / "vllm").exists()
        drop = ("VLLM_", "HF_", "OPENAI_", "TORCHINDUCTOR_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        self.env |= {
            "HF_HUB_OFFLINE": "1",
            # Beside others on the same cores.
            "VLLM_BENCH_DEVICE_LOCKS": str(work / "devices"),
            "HF_TOKEN": TOKEN,
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(cache / "vllm"),
            "VLLM_CONFIG_ROOT": str(cache / "config"),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "NO_COLOR": "1",
        }


def build() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    return ROOT / target / "release/vllm-bench"


def set_up(release: str) -> Path:
    subprocess.run([HERE / "setup.sh", "--release", release], check=True)
    return where(release)


def where(release: str) -> Path:
    return Path(subprocess.check_output([HERE / "setup.sh", "--release", release, "--where"], text=True).strip())


def in_namespace(argv: list[str]) -> list[str] | None:
    """The command that runs argv where no other process is seen, and no other registry of live groups."""
    registry = f"/tmp/vllm-bench-{os.geteuid()}"
    inside = 'mkdir -p -m 700 "$0" && mount -t tmpfs -o mode=700 none "$0" && exec "$@"'
    command = ["unshare", "--fork", "--pid", "--mount", "--mount-proc", "--kill-child", "sh", "-c", inside, registry]
    probe = subprocess.run([*command, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return [*command, *argv] if probe.returncode == 0 else None


def end_all() -> list[str]:
    """Ends whatever is left below this process, by number; says what that was."""
    left = [str(process) for process in descendants()]
    for number, limit in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 8.0)):
        for process in descendants():
            with contextlib.suppress(OSError):
                os.kill(process.pid, number)
        with contextlib.suppress(AssertionError):
            wait_for("the end", lambda: not descendants(), limit)
            break
    return left


def no_secret(work: Path) -> None:
    """The planted token is in nothing that was written."""
    for path in work.rglob("*"):
        if path.is_file() and not path.is_symlink():
            that(TOKEN.encode() not in path.read_bytes(), f"the planted HF_TOKEN is in {path}")


def one_namespaced(bench: Bench, name: str) -> bool:
    """Runs a scenario in a PID namespace of its own; False where there can be none."""
    argv = [sys.executable, str(Path(__file__).resolve()), "--binary", str(bench.binary), "--inside", str(bench.work), "--release", bench.release]
    command = in_namespace([*argv, "--only", name])
    if command is None:
        return False
    env = {**os.environ, "VLLM_BENCH_TEST_RULE14": "1"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    popened.add(child.pid)
    counted = False
    for line in child.stdout:
        if match := re.fullmatch(r"(\d+) passed, (\d+) failed\n", line):
            Tally.passed += int(match[1])
            Tally.failed += int(match[2])
            counted = True
        else:
            print(line, end="", flush=True)
    child.wait()
    if not counted:
        Tally.failed += 1
        print(f"FAIL {name}: the run in a PID namespace ended with {child.returncode}", flush=True)
    return True


def one(bench: Bench, name: str) -> None:
    scenario = Scenario(bench, name)
    try:
        SCENARIOS[name](scenario)
    except Over:
        pass
    except Exception as caught:  # noqa: BLE001
        with scenario.check("the scenario ran to its end"):
            raise caught
    left = end_all()
    if left:
        with scenario.check("nothing had to be ended at the end"):
            raise AssertionError("\n".join(left))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="the vllm-bench to test (default: cargo build --release)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--release", default="0.14.1", choices=("0.14.1", "newest"), help="which vLLM (default: 0.14.1)")
    parser.add_argument("--ci", action="store_true", help=f"what runs on every commit, with less repeated: {', '.join(CI)}")
    parser.add_argument("--keep", action="store_true", help="keep all evidence, not only that of failures")
    parser.add_argument("--list", action="store_true", help="list the names and end")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:9} {function.__doc__}" for name, function in SCENARIOS.items()))
        return 0
    began = time.monotonic()
    become_subreaper()
    # An end from outside runs the clean-up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    if args.inside:
        install, work = where(args.release), args.inside
    else:
        install = set_up(args.release)
        work = Path(tempfile.mkdtemp(prefix="vllm-bench-real-"))
    binary = (args.binary or build()).resolve()
    bench = Bench(binary, install, work, args.ci)
    bench.release = args.release
    parts = []
    try:
        for name in args.only or (CI if args.ci else SCENARIOS):
            before, start = (Tally.passed, Tally.failed), time.monotonic()
            if name != "foreign" or bench.rule14 or not one_namespaced(bench, name):
                one(bench, name)
            parts.append((name, Tally.passed - before[0], Tally.failed - before[1], time.monotonic() - start))
        if not args.inside:
            scenario = Scenario(bench, "all")
            with scenario.check("the planted HF_TOKEN is in no file"):
                no_secret(work)
    finally:
        end_all()
        if not args.inside:
            if Tally.failed == 0 and not args.keep and sys.exc_info()[0] is None:
                shutil.rmtree(work)
            else:
                for folder in work.iterdir():
                    if folder.is_dir() and not (folder / "failures.txt").exists() and not args.keep:
                        shutil.rmtree(folder)
                print(f"evidence: {work}", flush=True)
    if not args.inside:
        for name, passed, failed, seconds in parts:
            print(f"     vLLM {bench.version}, {name}: {passed} passed, {failed} failed, {seconds:.0f} s")
        print(f"     {time.monotonic() - began:.0f} s in total")
    print(f"{Tally.passed} passed, {Tally.failed} failed", flush=True)
    return 1 if Tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())

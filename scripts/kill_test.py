#!/usr/bin/env python3
"""kill -9 of a random process at a random time in simulated sweeps, then resume: nothing lost, nothing left.

Beside single processes, guards and the orchestrator are killed together, and guards are stopped (SIGSTOP) alone, before the
orchestrator is killed, and before it is told to end. Engines overwrite their environment as vLLM's do, and the worker leads a
session of its own. Half of the sweeps run where a cgroup holds each group, half where none can be made (`--hold`): there a process
may be lost from sight when guard and orchestrator die at once, and then the program must say that its proof is none.

The seed fixes every choice (which process, when, how long after it appeared); the machine's timing is real, so the same
seed meets the same sweep at slightly different points. Exit 1 when any kill left a process, a temporary file, a record or
an unreadable file behind, or when an experiment did not end with exactly one valid result.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness as h

GRACE = 3.0
SETTLE = GRACE + 5.0
ATTEMPTS = 6
RETRIES = 4
MODELS = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"]
ROLES = [
    "orchestrator", "guard of server", "guard of client", "bash (server)", "bash (client)",
    "API server", "VLLM::EngineCore", "VLLM::Worker", "benchmark client",
]  # fmt: skip
TOGETHER, STOPPED_KILLED = "guards and orchestrator", "guards stopped, orchestrator killed"
STOPPED, STOPPED_TERM = "guards stopped", "guards stopped, then SIGTERM"
ATTACKS = [TOGETHER, STOPPED_KILLED, STOPPED, STOPPED_TERM]
NOT_PROVEN = "is not proven"
SWEEP = [
    "--models", *MODELS, "--tp", "2", "--quantization", "none", "--enforce-eager", "true",
    "--num-prompts", "8", "--concurrency", "4", "--input-len", "64", "--output-len", "16", "--max-model-len", "2048",
    "--grace", f"{GRACE}s", "--setvars", "none",
]  # fmt: skip


def sweep_args(options) -> list[str]:
    """The sweep; with lanes twice as large, so that more wait than run."""
    if options.parallel == "off":
        return SWEEP
    args = list(SWEEP)
    args[args.index("--tp") + 1 : args.index("--tp") + 2] = ["2", "4"]
    return [*args, "--parallel", options.parallel]


class Violation(Exception):
    """Something that must not be."""


def matches(wanted: str, role: str) -> bool:
    return role == wanted or (role == "guard of new group" and wanted.startswith("guard"))


def choose(sweep: h.Sweep, root: int, pick: random.Random, aim: str | None, limit: float):
    """A random process of the tree; or, where a role is aimed at, the first that has it. None = the sweep was over."""
    end = time.monotonic() + limit
    while True:
        tree = sorted(sweep.tree(root), key=lambda proc: proc.start)
        if not any(proc.pid == root for proc in tree):
            return None
        known = [(proc, h.role(proc, root)) for proc in tree]
        if aim is None:
            return pick.choice(known)
        fitting = [(proc, role) for proc, role in known if matches(aim, role)]
        if fitting:
            return pick.choice(fitting)
        if time.monotonic() > end:
            return pick.choice(known)
        time.sleep(0.001)


def surroundings(hold: str, folder: Path) -> tuple[list[str], Path]:
    """A command that gives ours a registry of its own, so that no other run on this machine ends what it leaves; and, for
    `descent`, no cgroup. Without the right to do that: nothing, and the user's registry."""
    registry = folder / "registry"
    registry.mkdir(parents=True, exist_ok=True)
    h.HOME.mkdir(mode=0o700, exist_ok=True)
    hide = "mount -t tmpfs none /sys/fs/cgroup && " if hold == "descent" else ""
    wrapper = ["unshare", "--mount", "sh", "-c", f"mount --bind '{registry}' '{h.HOME}' && {hide}exec \"$@\"", "sh"]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode == 0:
        return wrapper, registry
    if hold == "descent":
        raise SystemExit("--hold descent needs the right to mount in a namespace (`unshare --mount`)")
    return [], h.HOME


class Proofs(threading.Thread):
    """Looks at every proof as it is written: when the journal says that a group is empty, nothing that began before may live
    but the orchestrator and guards."""

    def __init__(self, sweep: h.Sweep, orchestrator: int, lanes: bool) -> None:
        super().__init__(daemon=True)
        self.sweep, self.orchestrator, self.lanes = sweep, orchestrator, lanes
        self.over = threading.Event()
        self.seen = self.unproven = 0
        self.held: set[str] = set()
        self.error: str | None = None

    def run(self) -> None:
        while not self.over.wait(0.01):
            self.look()
        self.look()

    def look(self) -> None:
        run = self.sweep.newest()
        entries = h.journal(run) if run else []
        torn = [entry for entry in entries if entry.get("event") == "torn-down"]
        for entry in torn[self.seen :]:
            self.seen += 1
            proof = entry["proof"]
            self.held.add(proof.get("held_by"))
            if proof["group_empty"] is None:
                self.unproven += 1
            if proof["group_empty"] is not True:
                continue
            booted = time.time() - time.monotonic()
            before = (h.when(entry["at"]) - booted) * os.sysconf("SC_CLK_TCK") - 3
            old = [proc for proc in self.sweep.tree(self.orchestrator) if proc.start < before]
            ours = ("guard", "orchestrator")
            old = [proc for proc in old if not h.role(proc, self.orchestrator).startswith(ours)]
            if self.lanes:
                # The processes of other lanes live on: only those of this server's own.
                launched = [e for e in entries if e.get("event") == "server-launched" and e["name"] == entry["name"]]
                leaders = {e["process"]["pid"] for e in launched}
                old = [proc for proc in old if {proc.pid, proc.group, proc.session, proc.parent} & leaders]
            # What was about to end when the list was made is gone now.
            time.sleep(0.1)
            left = [f"{proc.pid} {h.role(proc, self.orchestrator)}" for proc in old if proc.alive()]
            if left:
                self.error = self.error or f"false proof: the group is said to be empty, and there are {left}"


def guards(sweep: h.Sweep, orchestrator: int) -> list[h.Proc]:
    return [proc for proc in sweep.tree(orchestrator) if h.role(proc, orchestrator, sweep.registry).startswith("guard")]


def send(procs: list[h.Proc], number: int) -> None:
    for proc in procs:
        try:
            os.kill(proc.pid, number)
        except ProcessLookupError:
            pass


def attack(sweep: h.Sweep, child: subprocess.Popen, kind: str, pick: random.Random, options, length: float) -> tuple[str, bool]:
    """Does what the kill is; returns who was its victim, and whether the orchestrator is dead now."""
    if kind != "one":
        found = guards(sweep, child.pid)
        if not found or child.poll() is not None:
            return "none: no guard lived", False
        if kind == TOGETHER:
            # Stopped, the orchestrator cannot do a dead guard's work before it dies itself.
            os.kill(child.pid, signal.SIGSTOP)
            send(guards(sweep, child.pid), signal.SIGKILL)
            child.kill()
        else:
            send(found, signal.SIGSTOP)
            if kind == STOPPED_KILLED:
                child.kill()
            elif kind == STOPPED_TERM:
                child.terminate()
        return kind, kind in (TOGETHER, STOPPED_KILLED)
    aimed = pick.random() < options.aimed
    aim = pick.choice(ROLES) if aimed else None
    after = pick.choice([0.0, pick.uniform(0, 0.03), pick.uniform(0, 0.3)]) if aimed else 0.0
    chosen = choose(sweep, child.pid, pick, aim, limit=4 * length)
    if chosen and after:
        time.sleep(after)
    if chosen is None or not chosen[0].alive():
        return "none: it was over", False
    victim = h.role(chosen[0], child.pid, sweep.registry)
    os.kill(chosen[0].pid, signal.SIGKILL)
    return victim, chosen[0].pid == child.pid


def output(sweep: h.Sweep) -> str:
    return h.read_bytes(str(sweep.folder / "output.txt")).decode(errors="replace")


def settle(sweep: h.Sweep, child: subprocess.Popen, hold: str, kind: str, pick: random.Random, out: dict) -> None:
    """Waits until nothing is left, after the next command where guards cannot have done it."""
    gone = lambda limit: h.wait_until(lambda: not sweep.tree(), limit, 0.05)  # noqa: E731
    began = time.monotonic()
    if kind in (TOGETHER, STOPPED_KILLED):
        if pick.random() < 0.5:
            # The resume does it; what is left after that is found by the last check.
            return
        stop = [*sweep.wrapper, str(sweep.binary), "--color", "never", "stop", "--results-dir", str(sweep.results)]
        with open(sweep.folder / "output.txt", "ab") as file:
            subprocess.run(stop, stdout=file, stderr=file, timeout=120, cwd=sweep.folder)
    if gone(SETTLE):
        out["settled"] = time.monotonic() - began
        return
    left = [f"{proc.pid} {h.role(proc, child.pid)}" for proc in sweep.tree()]
    if hold == "cgroup" or NOT_PROVEN not in output(sweep):
        raise Violation(f"{SETTLE} s after the run had ended these processes are left: {left}")
    out["unproven"] += 1
    sweep.end()


def one_kill(index: int, retry: int, options, binary: Path, base: Path, length: float) -> dict:
    pick = random.Random(f"{options.seed}-{index}-{retry}")
    at = pick.uniform(0, length * 0.7**retry)
    hold = ["cgroup", "descent"][index % 2] if options.hold == "both" else options.hold
    kind = pick.choice(ATTACKS) if pick.random() < options.together else "one"
    folder = base / f"kill-{index:03}-{retry}"
    wrapper, registry = surroundings(hold, folder)
    args = [*sweep_args(options), "--port", str(port(index)), "--sim-speed", str(options.speed)]
    sweep = h.Sweep(binary, args, folder, wrapper=wrapper, registry=registry)
    child = sweep.start()
    proofs = Proofs(sweep, child.pid, options.parallel != "off")
    proofs.start()
    out = {
        "index": index, "folder": folder, "victim": "-", "phase": "-", "outcome": "-", "resumes": 0, "settled": 0.0,
        "error": None, "hold": hold, "unproven": 0,
    }  # fmt: skip
    try:
        time.sleep(at)
        run = sweep.newest()
        phase = h.phase_of(h.journal(run)) if run else "before the run directory"
        out["victim"], dead = attack(sweep, child, kind, pick, options, length)
        if not out["victim"].startswith("none"):
            out["phase"] = phase
        code = child.wait(120)
        out["outcome"] = "run ended" if dead else f"went on, exit {code}"
        settle(sweep, child, hold, kind if not out["victim"].startswith("none") else "one", pick, out)
        out["resumes"] = resume(sweep)
        if sweep.tree() and hold == "descent" and NOT_PROVEN in output(sweep):
            out["unproven"] += 1
            sweep.end()
        check(sweep)
    except Violation as violation:
        out["error"] = str(violation)
    except Exception as error:  # noqa: BLE001 - whatever it was, the kill failed
        place = traceback.extract_tb(error.__traceback__)[-1]
        out["error"] = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    finally:
        proofs.over.set()
        proofs.join()
        out["unproven"] += proofs.unproven
        out["error"] = out["error"] or proofs.error
        if wrong := proofs.held - {hold}:
            out["error"] = out["error"] or f"groups were held by {wrong} where {hold} was expected"
        if out["error"]:
            sweep.end()
        if child.poll() is None:
            child.kill()
        child.wait()
    if out["error"] is None and not options.keep:
        h.discard(sweep.folder)
    return out


def port(index: int) -> int:
    """A port of its own for each sweep: their registries do not know of each other."""
    return 20_000 + (os.getpid() * 16 + index * 8) % 10_000


def resume(sweep: h.Sweep) -> int:
    """Resumes until nothing is left to do (exit code 0 or 3)."""
    for count in range(1, ATTEMPTS + 1):
        # A kill before the manifest stood left no run that could go on: one begins.
        code = sweep.run("--resume") if sweep.newest() else sweep.run()
        if code in (0, 3):
            return count
    raise Violation(f"{ATTEMPTS} resumes did not end it: the last exit code is {code}")


def check(sweep: h.Sweep) -> None:
    """All that must hold when a killed run has been resumed to its end."""
    found = h.runs(sweep.results)
    if len(found) != 1:
        raise Violation(f"{len(found)} run directories with a manifest instead of 1")
    run = found[0]
    check_results(run)
    check_files(run)
    check_journal(run)
    told = subprocess.run([str(sweep.binary), "status", "--json", "--results-dir", str(sweep.results)], capture_output=True, text=True)
    counts = json.loads(told.stdout)["run"]["counts"]
    if counts["passed"] != counts["planned"] or counts["to_do"]:
        raise Violation(f"`status` counts {counts}")
    for folder in sweep.results.iterdir():
        if folder.is_dir() and folder != run and any(path.is_file() for path in folder.rglob("*")):
            raise Violation(f"`{folder.name}` has no manifest but files")
    left = [f"{proc.pid} {proc.comm}" for proc in sweep.tree()]
    for what, names in [("processes", left), ("scripts", sweep.temporary_scripts()), ("records", sweep.registered())]:
        if names:
            raise Violation(f"{what} left: {names}")


def check_results(run: Path) -> None:
    plan = h.load_json(run / "manifest.json")["plan"]["experiments"]
    for experiment in plan:
        result = h.load_json(run / f"{experiment['name']}_results.json")
        if not isinstance(result, dict):
            raise Violation(f"no readable result of {experiment['name']}")
        if result["vllm_bench"]["identity"] != experiment["identity"]:
            raise Violation(f"the result of {experiment['name']} has another identity")
        if result["completed"] != 8 or result["failed"] != 0:
            raise Violation(f"the result of {experiment['name']} is not valid")
    names = {f"{experiment['name']}_results.json" for experiment in plan} | {"raw_results.json"}
    extra = [path.name for path in run.glob("*_results.json") if path.name not in names]
    if extra:
        raise Violation(f"results of no experiment: {extra}")


def check_files(run: Path) -> None:
    for name in ("summary.txt", "detailed_analysis.txt", "results_summary.csv", "raw_results.json"):
        if not (run / name).is_file():
            raise Violation(f"no {name} although the run is complete")
    for path in run.rglob("*"):
        if path.is_dir():
            continue
        if path.name.startswith(".tmp") or path.parent.name == ".unchecked":
            raise Violation(f"temporary file left: {path.relative_to(run)}")
        if path.suffix == ".json" and h.load_json(path) is None:
            raise Violation(f"{path.relative_to(run)} is no JSON")
        if path.suffix == ".sh" and "exec " not in path.read_text():
            raise Violation(f"{path.relative_to(run)} is cut")


def check_journal(run: Path) -> None:
    text = h.read_bytes(str(run / "journal.jsonl"))
    if not text.endswith(b"\n"):
        raise Violation("the journal's last line is torn although the last session ended in order")
    lines = text.split(b"\n")[:-1]
    attempts: dict[str, list[int]] = collections.defaultdict(list)
    passed: collections.Counter[str] = collections.Counter()
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            # A crash may tear the last line of a session: the next one must then begin here.
            if number + 1 < len(lines) and b'"run-started"' not in lines[number + 1]:
                raise Violation(f"line {number + 1} of the journal is torn in the middle of a session") from None
            continue
        if entry["event"] == "experiment-started":
            attempts[entry["name"]].append(entry["attempt"])
        if entry["event"] == "experiment-finished" and entry["outcome"] == "passed":
            passed[entry["name"]] += 1
    for name, numbers in attempts.items():
        if numbers != list(range(1, len(numbers) + 1)):
            raise Violation(f"attempts at {name} are numbered {numbers}")
    twice = [name for name, count in passed.items() if count > 1]
    if twice:
        raise Violation(f"passed more than once: {twice}")


def calibrate(options, binary: Path, base: Path) -> float:
    """How long such a sweep takes here, undisturbed."""
    folder = base / "calibration"
    wrapper, registry = surroundings("cgroup", folder)
    args = [*sweep_args(options), "--port", str(port(options.kills)), "--sim-speed", str(options.speed)]
    sweep = h.Sweep(binary, args, folder, wrapper=wrapper, registry=registry)
    began = time.monotonic()
    code = sweep.run()
    seconds = time.monotonic() - began
    if code != 0:
        raise SystemExit(f"an undisturbed sweep ended with exit code {code}: see {sweep.folder}")
    check(sweep)
    h.discard(sweep.folder)
    return seconds


def summary(outs: list[dict]) -> str:
    counted = collections.Counter(
        (out["hold"], out["victim"], out["phase"], out["outcome"], "VIOLATION" if out["error"] else "all held")
        for out in outs
    )
    rows = [[*key, count] for key, count in sorted(counted.items())]
    return h.table(["held by", "killed", "phase", "the run then", "after resume", "kills"], rows)


def stale_temporaries() -> set[str]:
    """Unfinished files in the registry: they must not outlive the kills."""
    groups = h.HOME / "groups"
    names = os.listdir(groups) if groups.is_dir() else []
    return {name for name in names if not re.fullmatch(r".*\.json", name)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--jobs", type=int, default=4, help="sweeps at a time")
    parser.add_argument("--speed", type=float, default=40, help="--sim-speed of the sweeps")
    parser.add_argument("--aimed", type=float, default=0.5, help="share of kills aimed at one role, so that short-lived processes are met")
    parser.add_argument("--hold", choices=["cgroup", "descent", "both"], default="both", help="what holds the groups")
    parser.add_argument("--together", type=float, default=0.4, help="share of attacks on guards and orchestrator together, or on stopped guards")
    parser.add_argument("--parallel", default="off", help="--parallel of the sweeps: off, auto or a number of lanes")
    parser.add_argument("--only", type=int, help="just this kill of the seed")
    parser.add_argument("--keep", action="store_true", help="keep the evidence of kills that went well too")
    options = parser.parse_args()
    h.require_python()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    binary, base = h.find_binary(options.binary), h.work_folder("kill")
    h.say(f"seed {options.seed}, {options.kills} kills, {options.jobs} at a time; {h.machine()}")
    stale_before = stale_temporaries()
    length = calibrate(options, binary, base)
    h.say(f"an undisturbed sweep takes {length:.1f} s")
    began = time.monotonic()
    outs: list[dict] = []
    lock = threading.Lock()

    def work(index: int) -> None:
        # A kill that came when the sweep was over is none: another one, at an earlier time.
        for retry in range(RETRIES):
            out = one_kill(index, retry, options, binary, base, length)
            if out["error"] or not out["victim"].startswith("none"):
                break
        with lock:
            outs.append(out)
            state = f"VIOLATION: {out['error']}" if out["error"] else "all held"
            h.say(
                f"{len(outs):>4}  kill {index:>3}  {out['hold']:<7}  {out['victim']:<34} in {out['phase']:<20} -> {out['outcome']:<18} "
                f"quiet after {out['settled']:.2f} s, resumes {out['resumes']}  {state}"
            )

    indices = [options.only] if options.only is not None else list(range(options.kills))
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, indices))
    h.say("\n" + summary(outs))
    bad = [out for out in outs if out["error"]]
    real = [out for out in outs if not out["victim"].startswith("none")]
    stale = stale_temporaries() - stale_before
    quiet = [out["settled"] for out in real if out["victim"] == "orchestrator" and not out["error"]]
    unproven = sum(out["unproven"] for out in real)
    h.say(
        f"\nseed {options.seed}: {len(real)} kills ({len(outs) - len(real)} came when the sweep was over), {len(bad)} violations, "
        f"{time.monotonic() - began:.0f} s"
    )
    h.say(f"said to be not proven, and so it was: {unproven} times")
    if quiet:
        h.say(f"a killed orchestrator's processes were gone after {h.median(quiet):.2f} s (median), {max(quiet):.2f} s (most)")
    if stale:
        h.say(f"VIOLATION: unfinished files in the registry: {sorted(stale)}")
    for out in bad:
        h.say(f"kill {out['index']}: {out['error']}\n  evidence: {out['folder']}")
    if bad or stale:
        return 1
    if not options.keep:
        h.discard(base)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

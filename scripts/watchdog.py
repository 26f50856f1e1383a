#!/usr/bin/env python3
"""Every kind of hang that can be provoked: the cause that is recorded, who stands still, in which phase, after how many seconds, and what
was kept. And what is slow, and must not be ended.

Each row is a sweep of one experiment on the simulated vLLM with a short `--stall-timeout`. Seconds count from the last movement (the signal
that stops a process, the last line of a log that counts) to the notice, and from the notice to the record. Exit 1 when a cause, a phase or
who stands still is another than expected, when nothing was kept, when a slow one was ended, or when a process was left.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import harness as h
from rows import ended, find_engine, launched, measured, options, seconds, small_sweep

MODEL = "Qwen/Qwen3-0.6B"
LIMIT = 3.0
# A thread of the program that is stuck in the kernel: a parent that waits for its vfork child cannot be interrupted.
STUCK = "import ctypes; libc = ctypes.CDLL(None); libc.vfork(); libc.pause()"


@dataclass
class Case:
    """One row: what is provoked, and what should be said of it."""

    name: str
    cause: str
    phase: str
    who: str
    fault: str = ""
    stop: str = ""
    client: str = "vllm"
    more: list[str] = field(default_factory=list)
    says: str = ""
    fake: str = ""


def cases() -> list[Case]:
    hang = "hang-in-benchmark"
    found = [
        Case(f"engine stopped (SIGSTOP), {client}", "hung", "measuring", "engine stopped", stop="engine", client=client)
        for client in ("vllm", "builtin")
    ]
    found += [
        Case(f"API server stopped (SIGSTOP), {client}", "hung", "measuring", "api-server stopped", stop="api", client=client)
        for client in ("vllm", "builtin")
    ]
    found += [
        Case("client stopped (SIGSTOP)", "benchmark-hung", "measuring", "client stopped", stop="client"),
        Case("engine deadlocked, vllm", "hung", "measuring", "engine waits", f"{hang}:deadlock+0.2s"),
        Case("engine deadlocked, builtin", "hung", "measuring", "engine waits", f"{hang}:deadlock+0.2s", client="builtin"),
        Case("engine computes, no token comes", "hung", "measuring", "engine busy", f"{hang}:busy+0.2s"),
        Case("API server answers nobody", "hung", "measuring", "api-server waits", f"{hang}:deaf+0.2s"),
        Case("API server answers nobody, log goes on", "hung", "measuring", "api-server waits", f"{hang}:babble+0.2s", says="/health"),
        Case("answers never come, server is well", "hung", "measuring", "requests waits", "streams-fail:silent+all"),
        Case("client stuck", "benchmark-hung", "measuring", "client waits", "benchmark-hangs:connected"),
        Case("engine in the kernel (state D)", "hung", "measuring", "engine in-kernel", f"{hang}:deadlock+0.2s", fake="stuck"),
        Case("deadlock while loading", "hung", "starting (loading)", "engine waits", "hang-loading"),
        Case("deadlock while loading, limit 1 h", "hung", "starting (loading)", "engine waits", "hang-loading", more=["--timeout-startup", "1h"]),
        Case("engine stopped while loading", "hung", "starting (loading)", "engine stopped", "hang-loading:busy", stop="engine at once", more=["--timeout-startup", "1h"]),
        Case("takes connections, answers none", "hung", "starting (ready)", "api-server waits", "hang-accept"),
        Case("/health 503 for ever", "hung", "starting (ready)", "api-server waits", "never-healthy"),
        Case("computes while loading, limit 3 s", "startup-timeout", "starting (loading)", "-", "hang-loading:busy", more=["--timeout-startup", "3s"], says="within 3 s"),
        Case("computes while loading, limit 3 s+", "startup-timeout", "starting (loading)", "-", "hang-loading:busy", more=["--timeout-startup", "3s+"], says="within 9 s"),
        # Slow, and alive.
        Case("slow start, limit 1 s+", "passed", "-", "-", more=["--timeout-startup", "1s+", "--sim-speed", "15"], says="makes progress"),
        Case("tokens trickle", "passed", "-", "-", more=["--output-len", "16", "--num-prompts", "8", "--bench-arg", "request-rate=0.03", "--bench-arg", "burstiness=1000"]),
        Case("no counters, engine works", "passed", "-", "-", more=["--serve-arg", "disable-log-stats", "--sim-speed", "6"]),
        Case("/health silent, tokens come", "passed", "-", "-", "silent-health", more=["--sim-speed", "5"], says="has not answered"),
    ]  # fmt: skip
    return found


def build(case: Case, binary: Path, folder: Path) -> h.Sweep:
    defaults = {"--sim-speed": "20", "--output-len": "1200", "--timeout-startup": "60s"}
    args = small_sweep(
        [MODEL], h.free_port(), "--tp", "1", *([] if "--num-prompts" in case.more else ["--num-prompts", "4"]), "--concurrency", "2",
        "--input-len", "16", "--grace", "1s", "--stall-timeout", f"{LIMIT}s", "--timeout-benchmark", "300s", "--client", case.client, *case.more,
    )  # fmt: skip
    for flag, value in defaults.items():
        if flag not in case.more and not (case.fake and flag == "--sim-speed"):
            args += [flag, value]
    if case.fake:
        # A member that calls itself an engine and is stuck in the kernel, beside the simulated server.
        program = folder / "vllm"
        folder.mkdir(parents=True, exist_ok=True)
        program.write_text(
            f'#!/bin/bash\nexport VLLM_BENCH_SIM_SPEED=20\nif [ "$1" = serve ]; then\n'
            f"export VLLM_BENCH_SIM_FAULT='{case.fault}'\n"
            f'( exec -a VLLM::EngineCore {sys.executable} -c "{STUCK}" ) &\nfi\nexec {binary} sim-vllm "$@"\n'
        )
        program.chmod(0o755)
        return h.Sweep(binary, [*args, "--vllm-bin", str(program), "--no-preflight"], folder, engine="vllm", clean_home=True)
    if case.fault:
        args += ["--sim-fault", case.fault]
    return h.Sweep(binary, args, folder)


def stop(case: Case, sweep: h.Sweep) -> float:
    """Stops the process at its moment; when."""
    pids: dict[str, int] = {}
    early = case.stop.endswith("at once")

    def ready() -> bool:
        run = sweep.newest()
        entries = h.journal(run) if run else []
        pids.update(launched(entries))
        if any(entry["event"] == "phase-changed" and entry["now"].get("start-phase") == "loading" for entry in entries):
            pids["loading"] = 1
        return "loading" in pids if early else "client" in pids

    if not h.wait_until(ready, 120):
        raise TimeoutError("the moment to stop a process never came")
    time.sleep(0.2 if early else 1.5)
    which = case.stop.split()[0]
    server = pids["server"]
    pid = {"engine": find_engine(server), "api": server, "client": pids.get("client")}[which]
    if not pid:
        raise TimeoutError(f"no {which} to stop")
    os.kill(pid, signal.SIGSTOP)
    return time.time()


def measure(case: Case, binary: Path, base: Path, number: int) -> dict:
    folder = base / f"{number:02}"
    sweep = build(case, binary, folder)
    problems: list[str] = []
    child = sweep.start()
    stopped = None
    try:
        if case.stop:
            stopped = stop(case, sweep)
        code = child.wait(240)
    except Exception as error:  # noqa: BLE001 - a row that cannot be measured is a problem, not the end
        problems.append(f"{type(error).__name__}: {error}")
        code = -1
    left = [proc for proc in sweep.tree() if proc.alive()]
    if left:
        problems.append(f"{len(left)} processes left: {[proc.comm for proc in left]}")
    sweep.end()
    child.poll() or child.wait()
    run = sweep.newest()
    entries = h.journal(run) if run else []
    output = (folder / "output.txt").read_text(errors="replace")
    row = {"name": case.name, "cause": "-", "phase": "-", "who": "-", "noticed": None, "kept_in": None, "files": 0, "folder": folder, "problems": problems}
    finished = [entry for entry in entries if entry["event"] == "experiment-finished"]
    if not finished:
        problems.append(f"nothing was recorded (exit code {code})")
        return row
    [outcome] = finished[-1:]
    row["cause"] = outcome.get("cause") or outcome["outcome"]
    if row["cause"] != case.cause:
        problems.append(f"expected the cause {case.cause}: {outcome.get('summary')}")
    if case.says and case.says not in output:
        problems.append(f"{case.says!r} is not said")
    if outcome["outcome"] == "passed":
        return row
    phase = outcome["phase"]
    row["phase"] = phase["phase"] + (f" ({phase['start-phase']})" if "start-phase" in phase else "")
    hang = outcome.get("hang")
    row["who"] = f"{hang['who']} {hang['does']}" if hang else "-"
    for what, expected in (("phase", case.phase), ("who", case.who)):
        if row[what] != expected:
            problems.append(f"expected {what} {expected}: {outcome['summary']}")
    kept = outcome.get("kept")
    if not kept or not (run / kept / "summary.txt").exists():
        problems.append("nothing was kept")
    else:
        row["files"] = len(list((run / kept).iterdir()))
        if kept not in output:
            problems.append("the folder is not named at the end")
    told = next((h.when(e["at"]) for e in entries if e["event"] == "notice" and "evidence is kept" in e.get("text", "")), None)
    if told and stopped:
        row["noticed"] = told - stopped
    elif hang:
        row["noticed"] = float(hang["seconds"])
    if told:
        row["kept_in"] = next((h.when(e["at"]) - told for e in entries if e["event"] == "phase-changed" and h.when(e["at"]) > told), None)
        row["kept_in"] = row["kept_in"] or h.when(outcome["at"]) - told
    return row


def main() -> int:
    given = options(__doc__, jobs=3)
    h.require_python()
    binary, base = h.find_binary(given.binary), h.work_folder("watchdog")
    chosen = [case for case in cases() if not given.only or given.only in case.name]
    h.say(f"{len(chosen)} rows; {h.machine()}; --stall-timeout {LIMIT:.0f} s; py-spy: {shutil.which('py-spy') or 'none'}\n")

    def blank(case: Case) -> dict:
        return {"name": case.name, "cause": "-", "phase": "-", "who": "-", "noticed": None, "kept_in": None, "files": 0, "folder": base}

    rows = measured(chosen, given.jobs, lambda case, number: measure(case, binary, base, number), blank)
    head = ["hang", "cause", "phase", "who stands still", "noticed s", "record s", "files kept"]
    h.say(h.table(head, [[r["name"], r["cause"], r["phase"], r["who"], seconds(r["noticed"], 1), seconds(r["kept_in"], 1), r["files"]] for r in rows]))
    return ended(rows, base, given.keep)


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
"""A thousand simulated experiments in one run: does anything grow?

Prints the cost per experiment of the first and the last hundred, the orchestrator's memory over time, the size of the run
directory, and the time and memory of `status`, `status --json` and `analyze` on it. Exit 1 when the last hundred cost more
than 1.5 times the first, memory grew by more than --growth MiB after the first hundred, or a command took a second.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import time
from pathlib import Path

import harness as h

PER_MODEL = 4


def rss_mib(pid: int) -> float | None:
    found = re.search(rb"VmRSS:\s+(\d+) kB", h.read_bytes(f"/proc/{pid}/status"))
    return int(found[1]) / 1024 if found else None


def costs(entries: list[dict]) -> list[float]:
    """Seconds from the start of each experiment to the start of the next, the tool's own work included."""
    starts = [h.when(entry["at"]) for entry in entries if entry["event"] == "experiment-started"]
    ends = [h.when(entry["at"]) for entry in entries if entry["event"] == "run-finished"]
    points = starts + ends[-1:]
    return [later - earlier for earlier, later in zip(points, points[1:])]


def timed(command: list[str], times: int = 5) -> tuple[float, float, int]:
    """Median seconds, the most memory in MiB, and the bytes of output of a command."""
    seconds, memory, size = [], 0.0, 0
    for _ in range(times):
        began = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - began)
        memory, size = max(memory, usage.ru_maxrss / 1024), len(output)
        if child.returncode not in (0, 1, 3):
            raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}:\n{output.decode(errors='replace')[-2000:]}")
    return h.median(seconds), memory, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--speed", default="inf", help="--sim-speed")
    parser.add_argument("--growth", type=float, default=16, help="MiB that the orchestrator may grow after the first hundred")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    h.require_python()
    binary, base = h.find_binary(options.binary), h.work_folder("scale")
    models = [f"org/model-{number:03}-1B" for number in range(-(-options.experiments // PER_MODEL))]
    args = [
        "--models", *models, "--tp", "1", "2", "--quantization", "none", "awq", "--enforce-eager", "true", "--port", str(h.free_port()),
        "--num-prompts", "2", "--concurrency", "2", "--input-len", "8", "--output-len", "4", "--max-model-len", "256",
        "--setvars", "none", "--sim-speed", options.speed,
    ]  # fmt: skip
    sweep = h.Sweep(binary, args, base / "sweep")
    h.say(f"{len(models) * PER_MODEL} experiments; {h.machine()}; metrics are upper bounds")
    began = time.monotonic()
    child = sweep.start()
    memory: list[tuple[float, float]] = []
    try:
        while child.poll() is None:
            now = rss_mib(child.pid)
            if now:
                memory.append((time.monotonic() - began, now))
            time.sleep(0.5)
    finally:
        sweep.end()
    run = sweep.newest()
    entries = h.journal(run)
    passed = sum(entry["event"] == "experiment-finished" and entry["outcome"] == "passed" for entry in entries)
    h.say(f"exit code {child.returncode}, {passed} passed, {time.monotonic() - began:.0f} s\n")
    each = costs(entries)
    hundred = min(100, len(each) // 2)
    first, last = each[:hundred], each[-hundred:]
    spread = lambda values: [f"{h.median(values):.3f}", f"{h.quantile(values, 0.1):.3f}", f"{h.quantile(values, 0.9):.3f}"]  # noqa: E731
    middle = each[len(each) // 2 - hundred // 2 : len(each) // 2 + hundred // 2]
    h.say(h.table(["experiments", "median s", "10 %", "90 %"], [[f"first {hundred}", *spread(first)], [f"middle {hundred}", *spread(middle)], [f"last {hundred}", *spread(last)]]))
    # The first hundred fill buffers and caches; growth after them would be a leak.
    settled = len(memory) * hundred // max(len(each), 1)
    marks = [memory[min(len(memory) - 1, len(memory) * part // 8)] for part in range(9)]
    h.say("\n" + h.table(["after s", "orchestrator MiB"], [[f"{at:.0f}", f"{mib:.1f}"] for at, mib in marks]))
    growth = max(mib for _, mib in memory[settled:]) - memory[settled][1]
    files = [path for path in run.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    h.say(
        f"\nrun directory: {size / 2**20:.1f} MiB in {len(files)} files ({size / len(each) / 1024:.1f} KiB an experiment); "
        f"journal {(run / 'journal.jsonl').stat().st_size / 2**20:.1f} MiB\n"
    )
    place = ["--results-dir", str(sweep.results)]
    rows, slow = [], []
    for name, command in [("status", ["status", *place]), ("status --json", ["status", "--json", *place]), ("analyze", ["analyze", *place])]:
        seconds, mib, output = timed([str(binary), "--color", "never", *command])
        rows.append([name, f"{seconds:.3f}", f"{mib:.0f}", output])
        if seconds >= 1:
            slow.append(name)
    h.say(h.table(["command", "median s", "most MiB", "bytes of output"], rows))
    ratio = h.median(last) / h.median(first)
    h.say(f"\nlast {hundred} / first {hundred}: {ratio:.2f}; memory grew by {growth:.1f} MiB after the first {hundred}")
    problems = []
    if child.returncode != 0 or passed != len(models) * PER_MODEL:
        problems.append("not every experiment passed")
    if ratio > 1.5:
        problems.append("the last experiments cost more than the first")
    if growth > options.growth:
        problems.append("memory grows")
    if slow:
        problems.append(f"slow: {', '.join(slow)}")
    for problem in problems:
        h.say(f"PROBLEM: {problem}\n  evidence: {base}")
    if not problems and not options.keep:
        h.discard(base)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

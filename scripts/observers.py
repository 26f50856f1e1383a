#!/usr/bin/env python3
"""What watching a sweep costs: alternating pairs of the same simulated sweep, without and with all observers.

With: `--dashboard` with an open page (a stream of events, and /metrics each second), `--pushgateway` and `--mlflow` to an
address where nobody answers, and `--telemetry 1s`. Each pair is measured in turn (without, with; then with, without), so that a drift of the machine meets both
alike. Printed are the seconds per experiment more, of the wall clock and of all processors; exit 3 when the mean of the wall clock is
above --target by more than its 95 % interval allows.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import harness as h

GRID = ["--tp", "1,2", "--quantization", "none", "--enforce-eager", "true,false", "--port", "auto", "--login", "off", "--setvars", "none"]
LOAD = ["--num-prompts", "16", "--concurrency", "4", "--input-len", "64", "--output-len", "32", "--max-model-len", "2048"]
MODELS = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B"]
# Two-sided 95 % of Student's t by degrees of freedom.
T = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09]


def watch(port: int, over: threading.Event) -> None:
    """An open page and a Prometheus that scrapes each second."""
    place = Path(f"/tmp/vllm-bench-{os.geteuid()}/dashboard.token")
    while not over.is_set() and not place.exists():
        time.sleep(0.05)
    bearer = {"Authorization": f"Bearer {place.read_text().strip()}"}
    ask = lambda path: urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=bearer), timeout=20)

    def scrape() -> None:
        while not over.wait(1):
            try:
                ask("/metrics").read()
            except OSError:
                pass

    threading.Thread(target=scrape, daemon=True).start()
    while not over.is_set():
        try:
            with ask("/api/events") as stream:
                for _ in stream:
                    if over.is_set():
                        return
        except OSError:
            time.sleep(0.05)


def once(sweep: h.Sweep, observed: bool, dead: str, experiments: int) -> tuple[float, float]:
    """Seconds per experiment: wall clock, processors."""
    over, port = threading.Event(), h.free_port()
    more = ["--dashboard", f"127.0.0.1:{port}", "--pushgateway", dead, "--mlflow", dead, "--telemetry", "1s"] if observed else ["--telemetry", "off"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    child = sweep.start(*more)
    if observed:
        threading.Thread(target=watch, args=(port, over), daemon=True).start()
    code = child.wait(600)
    wall = time.monotonic() - began
    over.set()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"the sweep ended with exit code {code}: {sweep.folder}")
    passed = [path for path in sweep.newest().glob("*_results.json") if path.name != "raw_results.json"]
    if len(passed) != experiments:
        raise SystemExit(f"{len(passed)} of {experiments} experiments passed: {sweep.folder}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall / experiments, cpu / experiments


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.inf
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, T[min(len(values) - 2, len(T) - 1)] * deviation / math.sqrt(len(values))


def main() -> int:
    h.require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--speed", default="100", help="--sim-speed")
    parser.add_argument("--target", type=float, default=0.05, help="most seconds per experiment")
    parser.add_argument("--silent", action="store_true", help="a gateway that takes connections and never answers, in place of a closed port")
    args = parser.parse_args()
    binary, folder = h.find_binary(args.binary), h.work_folder("observers")
    sweep = h.Sweep(binary, ["--models", ",".join(MODELS), *GRID, *LOAD, "--sim-speed", args.speed], folder)
    experiments = len(MODELS) * 4
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if args.silent:
        listener.listen(64)
    dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    h.say(h.machine())
    walls, cpus, rows = [], [], []
    try:
        once(sweep, False, dead, experiments)
        for number in range(args.pairs):
            order = [False, True] if number % 2 == 0 else [True, False]
            seen = {observed: once(sweep, observed, dead, experiments) for observed in order}
            walls.append(seen[True][0] - seen[False][0])
            cpus.append(seen[True][1] - seen[False][1])
            rows.append([str(number + 1), *(f"{seconds:.3f}" for observed in (False, True) for seconds in seen[observed]), f"{walls[-1]:+.3f}", f"{cpus[-1]:+.3f}"])
    finally:
        sweep.end()
        listener.close()
    h.say(h.table(["pair", "without", "its CPU", "with", "its CPU", "more", "more CPU"], rows))
    (wall, around), (cpu, cpu_around) = interval(walls), interval(cpus)
    h.say(f"\nseconds per experiment more: {wall:+.4f} ± {around:.4f} of the wall clock, {cpu:+.4f} ± {cpu_around:.4f} of processors ({experiments} experiments, {args.pairs} pairs)")
    h.discard(folder)
    if wall - around > args.target:
        h.say(f"MISSED: at most {args.target} s were aimed for")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

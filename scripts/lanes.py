#!/usr/bin/env python3
"""What lanes save on a simulated machine with eight devices: the default grid of 27 alone and with `--parallel auto`.

    python scripts/lanes.py [--binary target/release/vllm-bench] [--speed 25] [--interference 0] [--plot FILE.png]

Both runs measure the same experiments. Printed are the seconds one after the other, those of the lanes' part (from the first attempt to the
last that is not measured again alone), and beside it what comes on top: the check of what neighbours cost, and the finalists. The bound is what
the devices allow: the seconds of all attempts over those of all devices that they hold. Exit 1 where the lanes' part takes more than
1/1.6 of the time of one after the other, or a result is missing or another one than alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from harness import discard, find_binary, journal, machine, require_python, say, table, when, work_folder

AIM = 1.6
DEVICES = 8


def run(binary: Path, folder: Path, name: str, options, *flags: str) -> Path:
    results = folder / name
    call = [binary, "run", "--engine", "sim", "--sim-devices", DEVICES, "--sim-device-memory", 64, "--sim-speed", options.speed, "--port", "auto", "--login", "off",
            "--keep-foreign", "--results-dir", results, "--sim-interference", f"{options.interference}%", *flags]  # fmt: skip
    done = subprocess.run(list(map(str, call)), env={**os.environ, "HOME": str(folder)}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name}: exit {done.returncode}\n{done.stderr}")
    return next(path for path in results.iterdir() if path.is_dir() and not path.is_symlink())


def plan(directory: Path) -> dict[str, dict]:
    experiments = json.loads((directory / "manifest.json").read_text())["plan"]["experiments"]
    return {experiment["name"]: experiment for experiment in experiments}


def span(entries: list[dict]) -> float:
    return when(entries[-1]["at"]) - when(entries[0]["at"]) if entries else 0.0


def parts(directory: Path) -> dict[str, float]:
    """Seconds of the check, of the lanes, and of the finalists."""
    experiments, entries = plan(directory), journal(directory)
    of = lambda alone: [  # noqa: E731
        entry for entry in entries if entry["event"] in ("experiment-started", "experiment-finished")
        and bool(experiments[entry["name"]].get("alone")) is alone
    ]  # fmt: skip
    check = [entry for entry in entries if entry["event"].startswith("neighbours-")]
    return {"check": span(check), "lanes": span(of(False)), "finalists": span(of(True))}


def bound(directory: Path) -> float:
    """How many times as fast the devices allow it to be."""
    experiments = plan(directory)
    alone = taken = 0.0
    for entry in journal(directory):
        if entry["event"] == "experiment-finished":
            seconds = entry["timings"]["total"]
            alone += seconds
            taken += seconds * experiments[entry["name"]]["axes"]["tensor-parallel-size"] / DEVICES
    return alone / taken


def metrics(directory: Path, name: str) -> tuple:
    result = json.loads((directory / f"{name}_results.json").read_text())
    return tuple(result[key] for key in ("completed", "output_throughput", "mean_ttft_ms"))


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary")
    parser.add_argument("--speed", type=float, default=25.0, help="simulated seconds per real second")
    parser.add_argument("--interference", type=float, default=0.0, help="percent")
    parser.add_argument("--plot", type=Path, help="where the Gantt chart goes")
    options = parser.parse_args()
    binary, folder = find_binary(options.binary), work_folder("lanes")
    say(machine())
    sequential = run(binary, folder, "alone", options, "--parallel", "off")
    lanes = run(binary, folder, "lanes", options, "--parallel", "auto")
    alone, of, most = parts(sequential)["lanes"], parts(lanes), bound(sequential)
    ratio = alone / of["lanes"]
    said = [entry["why"] for entry in journal(lanes) if entry["event"] == "neighbours-checked"]
    say(table(["what", "s", "times as fast"], [
        ["one after the other", f"{alone:.1f}", "1.00"],
        ["lanes", f"{of['lanes']:.1f}", f"{ratio:.2f} (bound {most:.2f})"],
        ["on top: what neighbours cost", f"{of['check']:.1f}", ""],
        ["on top: finalists, alone", f"{of['finalists']:.1f}", ""],
        ["lanes with all of it", f"{sum(of.values()):.1f}", f"{alone / sum(of.values()):.2f}"],
    ]))  # fmt: skip
    say("; ".join(said))
    wrong = []
    names = list(plan(sequential))
    if len(names) != 27:
        wrong.append(f"the grid has {len(names)} experiments")
    wrong += [f"no result of {name}" for name in plan(lanes) if not (lanes / f"{name}_results.json").is_file()]
    if options.interference == 0 and not wrong:
        wrong += [f"{name} is another measurement than alone" for name in names if metrics(sequential, name) != metrics(lanes, name)]
    if ratio < AIM:
        wrong.append(f"lanes are {ratio:.2f} times as fast, not {AIM}")
    output = options.plot or folder / "lanes.png"
    subprocess.run([binary, "plot", "lanes", lanes, "--output", output], check=True, capture_output=True)
    say(f"Gantt chart: {output}")
    for what in wrong:
        say(f"WRONG: {what}")
    if not wrong and options.plot:
        discard(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

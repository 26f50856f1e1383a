#!/usr/bin/env python3
"""How often `run --against` calls equal settings changed, and how often it finds a change, on the simulated vLLM with noise.

    python scripts/check_against.py [--binary target/release/vllm-bench] [--runs 100]

For each seed a run of one configuration is made, and measured again with `run --against` and no change: starts of both sides differ by 2 % (standard
deviation), and each experiment is 0.4 % slower than the one before it, as on a machine that gets warmer: 3 % from the first to the last. Counted are,
beside their aims, how often

- a metric is called worse or better where nothing changed (aim: at most 5 %),
- output throughput is called worse where the server may run 6 of 8 requests at once (aim: at least 80 %), the power.

A share fails only where its whole 95 % interval (Wilson) lies beyond its aim.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from harness import discard, find_binary, machine, require_python, say, work_folder
from shares import Aims

BASE = ["--models", "org/tiny", "--tp", "1", "--quantization", "none", "--enforce-eager", "true", "--input-len", "16", "--output-len", "16",
        "--num-prompts", "24", "--concurrency", "8", "--name", "base", "--sim-drift", "0.4%"]


def call(binary, folder, words, expected):
    env = {**os.environ, "HOME": str(folder)}
    done = subprocess.run([str(binary), *map(str, words)], env=env, capture_output=True, text=True)
    if done.returncode not in expected:
        sys.exit(f"{words}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def outcome(binary, folder, seed, flags):
    """The verdicts of the metrics, by key, of one comparison."""
    results = folder / f"seed{seed}"
    run = ["--quiet", "run", "--engine", "sim", "--sim-speed", "inf", "--port", "auto", "--login", "off", "--keep-foreign", "--results-dir", results]
    call(binary, folder, [*run, *BASE, "--sim-seed", seed], {0})
    call(binary, folder, [*run, "--against", "base", *flags], {0, 1})
    said = json.loads(call(binary, folder, ["compare", "latest", "--results-dir", results, "--json"], {0, 1}))
    discard(results)
    (matched,) = said["configurations"]
    return {effect["metric"]: effect["outcome"] for effect in matched["effects"]}


def main():
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--runs", type=int, default=100)
    args = parser.parse_args()
    binary, folder, aims = find_binary(args.binary), work_folder("against"), Aims()
    say(machine())
    changed = found = 0
    for seed in range(1, args.runs + 1):
        verdicts = outcome(binary, folder, seed, [])
        changed += any(verdict in ("worse", "better") for verdict in verdicts.values())
        verdicts = outcome(binary, folder, seed, ["--serve-arg", "max-num-seqs=6"])
        found += verdicts["output_throughput"] == "worse"
    say("equal settings are called changed: " + aims.judge("false alarms", changed, args.runs, 0.05, False))
    say("a real change is called worse: " + aims.judge("power", found, args.runs, 0.80, True))
    discard(folder)
    aims.end()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How right a sweep is that adds starts until it is decided, and what it saves.

    python scripts/check_until.py [--binary target/release/vllm-bench] [--shape steps|close|equal] [--seeds 200] [--whole 40]

One sweep of twelve configurations on the simulated vLLM, whose starts differ by 2 %, is measured with `--starts auto` (three to eight starts of
each) once for each seed, and once without noise, which is the truth. The first `--whole` seeds are measured with eight starts of each as well:
the simulation draws the noise of a start from the seed, the settings and its number, so these are the same starts and the ones left out.
Counted are, beside their aims, how often

- the choice is within the margin (2 %) of the best, by the truth and by the means of eight starts of each (aim: at least 95 %),
- the true best is in the set of the best (aim: at least 95 %),
- the answer calls itself decided and the choice is worse than the best by more than the margin (aim: at most 5 %),

and the share of eight starts of each that was measured. The shape `steps` has configurations 3 to 7 % apart (aim: at most half of the starts);
`close` has seven that are the same and five slower by 2 to 6 %; of `equal` ones one is called significantly better than every other in at
most 5 %. A share fails only where its whole 95 % interval (Wilson) lies beyond its aim.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from harness import discard, find_binary, machine, require_python, say, work_folder
from shares import Aims

MARGIN = 0.02
CONFIGURATIONS = 12
MOST = 8


SHAPES = {
    # Steps of 3 to 7 %.
    "steps": ({"max-num-seqs": list(range(16, 16 - CONFIGURATIONS, -1))},
              {"random-input-len": 16, "random-output-len": 16, "random-range-ratio": 0.8, "num-prompts": 64, "max-concurrency": 16}),
    # Seven that are the same, five that are slower by 2 to 6 %.
    "close": ({"max-num-seqs": 16, "max-num-batched-tokens": [64 * step for step in range(4, 4 + CONFIGURATIONS)]},
              {"random-input-len": 64, "random-output-len": 8, "num-prompts": 48, "max-concurrency": 16}),
    # All the same.
    "equal": ({"max-num-seqs": list(range(100, 100 + CONFIGURATIONS))},
              {"random-input-len": 8, "random-output-len": 8, "num-prompts": 16, "max-concurrency": 8}),
}


def sweep(folder, shape):
    """A sweep file of twelve configurations."""
    serve, bench = SHAPES[shape]
    path = folder / "sweep.json"
    path.write_text(json.dumps({
        "serve": {"model": "org/tiny", "enforce-eager": True, **serve},
        "bench": {"dataset-name": "random", "ignore-eos": True, **bench},
    }))
    return path


def measure(binary, folder, file, name, flags):
    """Runs the sweep; its answer as `recommend` gives it, and how many starts it took."""
    results = folder / name
    env = {**os.environ, "HOME": str(folder)}
    run = [binary, "--quiet", "run", file, "--engine", "sim", "--sim-speed", "inf", "--port", "auto", "--login", "off", "--keep-foreign",
           "--results-dir", results, *flags]
    done = subprocess.run(list(map(str, run)), env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name}: exit {done.returncode}\n{done.stderr}")
    directory = next(path for path in results.iterdir() if path.is_dir())
    said = subprocess.run([binary, "recommend", directory, "--format", "json"], env=env, capture_output=True, text=True, check=True)
    starts = len(list(directory.glob("*_results.json"))) - (directory / "raw_results.json").exists()
    text = (directory / "journal.jsonl").read_text()
    discard(results)
    (group,) = json.loads(said.stdout)["answers"]
    return group, starts, "no further starts: decided" in text


def of(option):
    """Which configuration an option is."""
    return option["name"]


def main():
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--whole", type=int, default=40, help="seeds that are measured with eight starts of each, too")
    parser.add_argument("--shape", choices=SHAPES, default="steps")
    args = parser.parse_args()
    binary, folder, aims = find_binary(args.binary), work_folder("until"), Aims()
    say(machine())
    file = sweep(folder, args.shape)
    truth = {of(option): option["value"] for option in measure(binary, folder, file, "truth", ["--sim-noise", "0", "--sim-noise-within", "0"])[0]["options"]}
    best = max(truth, key=truth.get)
    say("truth: " + ", ".join(f"{value / truth[best]:.3f}" for value in sorted(truth.values(), reverse=True)))
    near = held = wrong = called = took = near_whole = 0
    for seed in range(1, args.seeds + 1):
        group, starts, decided = measure(binary, folder, file, f"auto{seed}", ["--starts", "auto", "--sim-seed", str(seed)])
        options = group["options"]
        choice = of(group["choice"])
        is_near = truth[choice] >= (1 - MARGIN) * truth[best]
        near += is_near
        wrong += decided and not is_near
        held += any(truth[of(option)] == truth[best] and option["standing"] == "may-be-best" for option in options)
        called += group["significantly_best"]
        took += starts
        if seed <= args.whole:
            whole = measure(binary, folder, file, f"whole{seed}", ["--starts", str(MOST), "--sim-seed", str(seed)])[0]
            means = {of(option): option["value"] for option in whole["options"]}
            near_whole += means[choice] >= (1 - MARGIN) * max(means.values())
    n = args.seeds
    if args.shape == "equal":
        say("of equals one is called best: " + aims.judge("called", called, n, 0.05, False))
    else:
        say("the choice is within 2 % of the true best: " + aims.judge("near", near, n, 0.95, True))
        say("… of the best of eight starts of each: " + aims.judge("near the whole", near_whole, min(args.whole, n), 0.95, True))
        say("the true best is in the set: " + aims.judge("held", held, n, 0.95, True))
        say("decided, and wrong by more than 2 %: " + aims.judge("wrong", wrong, n, 0.05, False))
    share = took / (n * CONFIGURATIONS * MOST)
    counts = args.shape == "steps"
    say(f"starts: {share:.3f} of eight of each" + (f" <= 0.5 {'ok' if share <= 0.5 else 'WRONG'}" if counts else ""))
    if counts and share > 0.5:
        aims.failed.append("starts")
    discard(folder)
    aims.end()


if __name__ == "__main__":
    main()

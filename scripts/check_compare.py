"""How often `compare` is right: it is asked about pairs of runs whose truth is known.

    python scripts/check_compare.py [--binary target/release/vllm-bench] [--pairs 1000] [--short] [--venv DIR]

A run of the simulated vLLM is made for each shape (1 and 5 configurations, 3 and 5 starts of each); copies of it get results with a known
change from the first to the second run, noise of 2 % between starts, and noise between sessions (each run is one). The threshold is 3 %.
Counted are

- false alarms: pairs of which any metric is called better or worse whose true change is not beyond the threshold (aim: at most 5 %; with noise
  between sessions it is printed and nothing is promised),
- power: the share of truly changed metrics that are called so, and of unchanged ones that are called the same,
- coverage: pairs of which all intervals hold the true change (aim: at least 93 %), with the mean width of an interval beside that of the
  shortest one that is honest for equal noise (one pooled variance, the same correction).

A share fails only where its whole 95 % interval (Wilson) lies beyond the aim. Seeds are fixed. `--short`: 20 pairs of one shape.
"""

import argparse
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

from shares import Aims, add_arguments, need_scipy

NOISE = 0.02
THRESHOLD = 0.03
METRICS = ["output_throughput", "mean_ttft_ms", "mean_tpot_ms"]


def measured(binary, folder, configurations, starts, order="interleaved"):
    """A run of the simulated vLLM with so many configurations and starts: its directory."""
    sweep = os.path.join(folder, "sweep.json")
    with open(sweep, "w") as file:
        json.dump({
            "serve": {"model": "org/tiny", "max-num-seqs": [16 * (index + 1) for index in range(configurations)]},
            "bench": {"dataset-name": "random", "random-input-len": 8, "random-output-len": 8, "num-prompts": 8, "max-concurrency": 2,
                      "ignore-eos": True},
            "repeats": {"starts": starts}, "order": order,
        }, file)
    results = os.path.join(folder, "results")
    words = [binary, "run", sweep, "--engine", "sim", "--sim-speed", "inf", "--port", "auto", "--results-dir", results, "--keep-foreign"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{done.returncode}: {done.stdout}{done.stderr}")
    [manifest] = glob.glob(os.path.join(results, "*", "manifest.json"))
    return os.path.dirname(manifest)


class Copy:
    """A copy of a run whose results are written again and again."""

    def __init__(self, binary, run, folder):
        self.folder = folder
        shutil.copytree(run, folder)
        rows = json.loads(subprocess.check_output([binary, "analyze", run, "--format", "json"]))["rows"]
        names = sorted({tuple(sorted(row["settings"].items())) for row in rows})
        self.files = [(names.index(tuple(sorted(row["settings"].items()))), row["start"] - 1, row["source"]) for row in rows]
        # All configurations begin as the first one.
        with open(os.path.join(run, rows[0]["source"])) as file:
            self.base = json.load(file)
        self.own = {}
        for _, _, name in self.files:
            with open(os.path.join(run, name)) as file:
                self.own[name] = json.load(file)

    def write(self, factors):
        """Results with the metrics of the first times these factors: [config, start, metric]."""
        for config, start, name in self.files:
            rate, ttft, tpot = (float(factor) for factor in factors[config, start])
            result = dict(self.own[name])
            for key, value in self.base.items():
                if key.endswith("_throughput") or key == "max_output_tokens_per_s":
                    result[key] = value * rate if value is not None else None
                elif key == "duration":
                    result[key] = value / rate
                elif key.endswith("_ttft_ms"):
                    result[key] = value * ttft
                elif key.endswith(("_tpot_ms", "_itl_ms")):
                    result[key] = value * tpot
                elif key.endswith("_e2el_ms"):
                    result[key] = value
            with open(os.path.join(self.folder, name), "w") as file:
                json.dump(result, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default="target/release/vllm-bench")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of runs of each shape")
    parser.add_argument("--short", action="store_true", help="20 pairs of one shape")
    add_arguments(parser)
    args = parser.parse_args()
    need_scipy(args, __file__)
    import numpy as np
    from scipy import stats

    pairs = 20 if args.short else args.pairs
    aims = Aims()
    print("configurations, starts, true change of the throughput (of the others none), noise between sessions | false alarms | "
          "changed: called so | unchanged: called the same | all intervals hold | width, of the shortest honest one, ratio")
    for configurations, starts in [(5, 3)] if args.short else [(1, 3), (1, 5), (5, 3), (5, 5)]:
        with tempfile.TemporaryDirectory() as folder:
            run = measured(args.binary, folder, configurations, starts)
            copies = [Copy(args.binary, run, os.path.join(folder, which)) for which in ("before", "after")]
            cases = [(0.0, 0.0), (-0.03, 0.0), (-0.05, 0.0), (-0.10, 0.0), (0.10, 0.0), (0.0, 0.01), (0.0, 0.02)]
            for change, session in [(-0.10, 0.0)] if args.short else cases:
                name = f"{configurations}, {starts}, {100 * change:+g} %, {100 * session:g} %"
                random = np.random.default_rng([2028, configurations, starts, int(1000 * abs(change)), int(1000 * session)])
                count = {"alarm": 0, "changed": 0, "same": 0, "held": 0}
                widths, unchanged = [], 0
                for _ in range(pairs):
                    logs = NOISE * random.standard_normal((2, configurations, starts, 3)) + session * random.standard_normal((2, 1, 1, 3))
                    logs[1, :, :, 0] += math.log1p(change)
                    for copy, of in zip(copies, logs):
                        copy.write(np.exp(of))
                    words = [args.binary, "compare", copies[0].folder, copies[1].folder, "--format", "json"]
                    done = subprocess.run(words, capture_output=True, text=True)
                    if done.returncode not in (0, 1):
                        sys.exit(f"{done.returncode}: {done.stderr}")
                    found = json.loads(done.stdout)
                    effects = [(effect, change if effect["metric"] == METRICS[0] else 0.0)
                               for one in found["configurations"] for effect in one["effects"]]
                    if len(effects) != 3 * configurations or any(one["not_comparable"] for one in found["configurations"]):
                        sys.exit(f"not what was asked: {done.stdout}")
                    called = ("better", "worse")
                    count["alarm"] += any(effect["outcome"] in called and abs(truth) <= THRESHOLD for effect, truth in effects)
                    right = "worse" if change < 0 else "better"
                    count["changed"] += sum(effect["outcome"] == right for effect, truth in effects if truth != 0.0)
                    count["same"] += sum(effect["outcome"] == "same" for effect, truth in effects if truth == 0.0)
                    unchanged += sum(truth == 0.0 for _, truth in effects)
                    count["held"] += all(effect["interval"][0] <= truth <= effect["interval"][1] for effect, truth in effects)
                    widths += [math.log1p(effect["interval"][1]) - math.log1p(effect["interval"][0]) for effect, _ in effects]
                freedom = 2 * configurations * (starts - 1)
                sd = NOISE * math.sqrt(2 / freedom) * math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
                honest = 2 * stats.t.ppf(1 - 0.025 / (3 * configurations), freedom) * sd * math.sqrt(2 / starts)
                alarms = aims.judge(f"{name}: false alarms", count["alarm"], pairs, 0.05, False) if session == 0 else f"{count['alarm'] / pairs:.3f}"
                held = aims.judge(f"{name}: coverage", count["held"], pairs, 0.93, True) if session == 0 else f"{count['held'] / pairs:.3f}"
                power = f"{count['changed'] / (pairs * configurations):.3f}" if change else "-"
                print(f"{name} | {alarms} | {power} | {count['same'] / unchanged:.3f} | {held} | "
                      f"{100 * np.mean(widths):.1f} %, {100 * honest:.1f} %, {np.mean(widths) / honest:.2f}", flush=True)
    aims.end()


if __name__ == "__main__":
    main()

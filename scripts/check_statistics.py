"""The statistics of vllm-bench against numpy and scipy, by an independent computation.

    python scripts/check_statistics.py [--venv DIR] [--binary target/release/vllm-bench] [--coverage SWEEPS]

Prints the reference values that the unit tests hold (src/analyse/inference.rs, moderate.rs, decide.rs, optimize.rs, stats.rs, derive.rs) and
fails where one differs from what scipy says now. With --binary the program itself is asked for speed-ups too, and with --coverage how often
the intervals that it prints hold the truth, in so many sweeps of each shape: that of a single configuration, of the choice, of a noisy one, and of
all options together (`recommend`), of each configuration by itself (`analyze`), and of the speed-up of the choice (`analyze --format datatrove`); with the mean
width beside that of the shortest interval that is honest for equal normal noise (one pooled variance). Fails where the coverage is below 93 %
for normal, heavy-tailed and outlier starts (the whole 95 % interval of the share; of all together where the noise is equal); for skewed and two-humped ones it is printed: no interval
from a few such starts has it. Those of comparisons: check_compare.py. numpy and scipy are installed into a venv of its own where they are missing.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile

from shares import add_arguments, need_scipy, wilson


def speedups(binary, baseline):
    """What the program says of three configurations under two loads: {(tp, concurrency): (speed-up, tokens/s, devices)}."""
    with tempfile.TemporaryDirectory() as folder:
        for tp, load, tps in [(1, 8, 210.5), (2, 8, 399.25), (4, 8, 512.0), (1, 64, 800.0), (2, 64, 2100.0), (4, 64, 900.0)]:
            result = {
                "model_id": "org/m", "num_prompts": 16, "request_rate": "inf", "max_concurrency": load, "completed": 16, "failed": 0,
                "duration": 2.0, "total_input_tokens": 1024, "total_output_tokens": 512, "request_throughput": 8.0,
                "output_throughput": tps, "total_token_throughput": 3 * tps, "mean_ttft_ms": 20.0, "mean_tpot_ms": 2.0,
                "tensor-parallel-size": str(tp), "pipeline-parallel-size": "1", "data-parallel-size": "1",
            }
            with open(os.path.join(folder, f"tp{tp}-cc{load}.json"), "w") as file:
                json.dump(result, file)
        words = [binary, "analyze", folder, "--format", "json", *(["--baseline", baseline] if baseline else [])]
        rows = json.loads(subprocess.check_output(words))["rows"]
    found = {}
    for row in rows:
        metrics = row["metrics"]
        found[row["devices"], int(row["load"]["max-concurrency"])] = (metrics["speedup"], metrics["output_throughput"], row["devices"])
    assert len(found) == 6, rows
    return found


# With fewer sweeps than this `--coverage` asks a few shapes alone: whether it works at all.
FEW = 200


def coverage(np, stats, binary, sweeps):
    """How often printed intervals hold the truth; returns what does not reach 93 %."""
    from check_decisions import NOISE, ask, deviates, place

    wrong = []

    def judge(name, held, n, promised):
        low, high = wilson(held, n)
        bad = promised and high < 0.93
        if bad:
            wrong.append(name)
        return f"{held / n:.3f}{' WRONG' if bad else ''}"

    def analyzed(text):
        """Intervals of each configuration by its place."""
        return {0: {one["name"]: one["metrics"]["output_throughput"] for one in json.loads(text)["configurations"]}}

    def speedups(text):
        """Intervals of speed-ups by sweep, as printed."""
        found = {}
        for note in " ".join(text.split()).split("- org/m, at ")[1:]:
            sweep = round(float(re.match(r"burstiness ([\d.]+)", note)[1].rstrip("."))) - 1
            interval = re.search(r"speed-up ([\d.]+)x to ([\d.]+)x", note)
            found[sweep] = interval and (float(interval[1]), float(interval[2]))
        return found

    print("configurations, step %, starts, kind, noise of the first | a single one | of the choice | of the first (the noisy one) | all options together | width of the "
          "choice's, of the shortest honest one (for the choice), ratio | speed-up of the choice")
    kinds = ("normal", "heavy tails", "outliers", "log-normal", "two humps")
    shapes = [(1, 0.0, [2], 1.0), (1, 0.0, [3], 1.0), (1, 0.0, [5], 1.0), (1, 0.0, [8], 1.0)] + [
        (k, step, counts, noisy)
        for k in (2, 8, 30)
        for step in (0.0, 0.01, 0.03)
        for counts in ([3] * k, [5] * k, [8] * k)
        for noisy in ((1.0, 4.5) if counts[0] < 8 else (1.0,))
    ]
    if sweeps < FEW:
        kinds, shapes = kinds[:1], [(1, 0.0, [3], 1.0), (8, 0.0, [3] * 8, 1.0), (8, 0.0, [3] * 8, 4.5)]
    for kind in kinds:
        for k, step, counts, noisy in shapes:
            starts = max(counts)
            random = np.random.default_rng([2029, k, int(1000 * step), starts, int(noisy), len(kind)])
            noise = np.full((1, k, 1), NOISE)
            noise[0, 0, 0] *= noisy
            logs = -step * np.arange(k)[None, :, None] + noise * deviates(np, random, kind, (sweeps, k, starts))
            throughput = 1000 * np.exp(logs)
            truth = 1000 * np.exp(-step * np.arange(k) + noise[0, :, 0] ** 2 / 2)
            name = f"{k}, {100 * step:g} %, {starts}, {kind}, x {noisy:g}"
            promised = kind in ("normal", "heavy tails", "outliers")
            answers = ask(binary, throughput, np.full(logs.shape, 10.0), counts, [])
            chosen = together = first = 0
            widths = []
            for answer in answers:
                intervals = {place(option["name"], counts): option["interval"] for option in answer["options"]}
                holds = {of: one["low"] <= truth[of] <= one["high"] for of, one in intervals.items()}
                choice = place(answer["choice"]["name"], counts)
                chosen += holds[choice]
                together += all(holds.values())
                # One of extreme starts may be excluded as implausible: then nothing is printed of it.
                first += holds.get(0, True)
                widths.append((intervals[choice]["high"] - intervals[choice]["low"]) / truth[choice])
            freedom = k * (starts - 1)
            sd = NOISE * math.sqrt(2 / freedom) * math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) if freedom < 300 else NOISE
            honest = 2 * stats.t.ppf(1 - 0.025 / k, freedom) * sd / math.sqrt(starts)
            said = f"{name} | " + (judge(f"{name}: single", chosen, sweeps, promised) if k == 1 else "-")
            if k > 1:
                said += f" | {judge(f'{name}: choice', chosen, sweeps, promised)} | {judge(f'{name}: first', first, sweeps, promised)}"
                said += f" | {judge(f'{name}: all', together, sweeps, promised and noisy == 1)}"
            else:
                said += " | - | - | -"
            width = f" | {100 * np.mean(widths):.1f} %"
            said += width + (f", {100 * honest:.1f} %, {np.mean(widths) / honest:.2f}" if noisy == 1 else "")
            if k > 1:
                gains = ask(binary, throughput, np.full(logs.shape, 10.0), counts, ["--baseline", f"max-num-seqs={k}"],
                            ("analyze", "--format", "datatrove"), speedups)
                held = asked = 0
                for interval, answer in zip(gains, answers):
                    choice = place(answer["choice"]["name"], counts)
                    if interval is not None and choice != k - 1:
                        asked += 1
                        # Two digits are printed.
                        held += interval[0] - 0.005 <= truth[choice] / truth[k - 1] <= interval[1] + 0.005
                said += f" | {judge(f'{name}: speed-up', held, asked, promised) if asked else 'none'} of {asked}"
            print(said, flush=True)
    # Each configuration by itself: one question, as many configurations as sweeps.
    print("each configuration by itself: starts, kind | coverage")
    for kind in kinds:
        for starts in (2, 3, 5, 8):
            random = np.random.default_rng([2030, starts, len(kind)])
            throughput = 1000 * np.exp(NOISE * deviates(np, random, kind, (1, sweeps, starts)))
            [found] = ask(binary, throughput, np.full(throughput.shape, 10.0), [starts] * sweeps, [], ("analyze", "--format", "json"), analyzed)
            truth = 1000 * math.exp(NOISE**2 / 2)
            held = sum(of["interval"]["low"] <= truth <= of["interval"]["high"] for of in found.values())
            print(f"{starts}, {kind} | {judge(f'{starts}, {kind}: by itself', held, len(found), kind in ('normal', 'heavy tails', 'outliers'))}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_arguments(parser)
    parser.add_argument("--coverage", type=int, default=0, metavar="SWEEPS", help="how often the intervals of --binary hold the truth")
    parser.add_argument("--binary", help="the program; without it only the values of the unit tests are checked")
    args = parser.parse_args()
    need_scipy(args, __file__)
    import numpy as np
    import scipy
    from scipy import special, stats

    print(f"numpy {np.__version__}, scipy {scipy.__version__}")
    wrong = []

    def check(what, found, expected, tolerance=1e-9):
        found, expected = np.atleast_1d(found), np.atleast_1d(expected)
        good = np.allclose(found, expected, rtol=tolerance, atol=tolerance)
        print(f"{'ok   ' if good else 'WRONG'} {what}: {list(map(float, found))}")
        if not good:
            wrong.append(what)

    a = [1.0, 2.0, 3.0, 4.0, 10.0]
    check("percentiles (stats.rs)", np.quantile(a, [0, 0.25, 0.5, 0.9, 0.99, 1]), [1, 2, 3, 7.6, 9.76, 10])
    check("t quantile (inference.rs)", stats.t.ppf(0.975, 4), 2.7764451051977987)
    x, y = [10.1, 9.8, 10.4, 10.0, 9.9], [10.9, 10.2, 11.5, 10.7]
    welch = stats.ttest_ind(x, y, equal_var=False)
    check("t test (inference.rs)", [welch.statistic, welch.pvalue, welch.df],
          [-2.7265547370059546, 0.05437646921698372, 3.8816773904517476])
    interval = stats.t.interval(0.95, 4, loc=np.mean(x), scale=stats.sem(x))
    check("interval of a mean (inference.rs, decide.rs)", interval, [9.754147480901297, 10.325852519098701])
    check("trigamma (moderate.rs)", special.polygamma(1, [0.5, 1.0, 7.5]), [4.93480220054468, 1.6449340668482266, 0.1426158966967038])
    # A start with several measurements counts once, with their mean.
    starts = [[100.0, 104.0, 98.0, 101.0], [111.0, 108.0, 114.0]]
    logs = [np.log(values) for values in starts]
    # Speed-ups: the ratio of the means, and the interval of the ratio of geometric means.
    check("speed-up (optimize.rs)", np.mean(starts[1]) / np.mean(starts[0]), 1.1017369727047146)
    interval = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    check("interval of a speed-up (optimize.rs)", np.exp([interval.low, interval.high]), [1.0435112951540588, 1.1631797736740546])
    noisy = np.log([90.0, 150.0, 118.0])
    calm = np.log([100.0, 100.4, 99.9, 100.2])
    interval = stats.ttest_ind(noisy, calm, equal_var=False).confidence_interval(0.95)
    check("interval of a change of a noisy one (decide.rs)", np.expm1([interval.low, interval.high]), [-0.3817475750482534, 1.2007019458982178])
    if args.binary:
        for baseline, of in [(None, 1), ("tensor-parallel-size=2", 2)]:
            found = speedups(args.binary, baseline)
            per_device = {key: tps / devices for key, (_, tps, devices) in found.items()}
            check(
                f"speed-ups that {os.path.basename(args.binary)} finds against tensor parallel size {of}",
                [value for value, _, _ in found.values()],
                [per_device[key] / per_device[of, key[1]] for key in found],
            )
    check("device-days of 1e9 tokens at 10,000/s (derive.rs)", 1e9 / 1e4 / 86400, 1.157407, 1e-6)
    check("devices for 1e9 tokens per hour (derive.rs)", 1e9 / (1e4 * 3600), 27.777778, 1e-7)
    if args.binary and args.coverage:
        wrong += coverage(np, stats, args.binary, args.coverage)
    if wrong:
        sys.exit(f"{len(wrong)} differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

"""The statistics of vllm-bench against numpy and scipy, by an independent computation.

    python scripts/check_statistics.py [--venv DIR] [--binary target/release/vllm-bench]

Prints the reference values that the unit tests hold (src/analyse/inference.rs, moderate.rs, decide.rs, optimize.rs, stats.rs, derive.rs) and
fails where one differs from what scipy says now. With --binary the program itself is asked for speed-ups too. numpy and scipy are
installed into a venv of its own where they are missing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile


def with_scipy(venv, script=__file__):
    """Starts a script again in a venv that has scipy."""
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.check_call([sys.executable, "-m", "venv", venv])
    subprocess.check_call([python, "-m", "pip", "install", "-q", "numpy", "scipy"])
    os.execv(python, [python, os.path.abspath(script), "--inside", *sys.argv[1:]])


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
        figures = row["figures"]
        found[row["devices"], int(row["load"]["max-concurrency"])] = (figures["speedup"], figures["output_throughput"], row["devices"])
    assert len(found) == 6, rows
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "vllm-bench-statistics"))
    parser.add_argument("--inside", action="store_true")
    parser.add_argument("--binary", help="the program; without it only the values of the unit tests are checked")
    args = parser.parse_args()
    try:
        import numpy as np
        import scipy
        from scipy import special, stats
    except ImportError:
        if args.inside:
            raise
        with_scipy(args.venv)
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
    check("Welch (inference.rs)", [welch.statistic, welch.pvalue, welch.df],
          [-2.7265547370059546, 0.05437646921698372, 3.8816773904517476])
    # Order statistics: the interval of a quantile, as `quantile_interval` of inference.rs and its tests.
    for n, q, expected in [(100, 0.5, (40, 61)), (1000, 0.99, (983, 997)), (100, 0.99, (97, None)), (5, 0.5, (None, None))]:
        values = np.arange(1, n + 1)
        found = stats.quantile_test(values, q=0, p=q).confidence_interval(0.95)
        check(
            f"order-statistics interval of the {q} quantile of 1..{n}",
            [-1 if np.isnan(end) else end for end in (found.low, found.high)],
            [-1 if end is None else end for end in expected],
        )
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
    if wrong:
        sys.exit(f"{len(wrong)} differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

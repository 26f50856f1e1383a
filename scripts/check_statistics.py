"""The statistics of vllm-bench against numpy and scipy, by an independent computation.

    python scripts/check_statistics.py [--venv DIR]

Prints the reference values that the unit tests hold (src/analyse/inference.rs, stats.rs, derive.rs) and fails where one differs
from what scipy says now. numpy and scipy are installed into a venv of its own where they are missing.
"""

import argparse
import os
import subprocess
import sys
import tempfile


def with_scipy(venv):
    """Starts itself again in a venv that has scipy."""
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.check_call([sys.executable, "-m", "venv", venv])
    subprocess.check_call([python, "-m", "pip", "install", "-q", "numpy", "scipy"])
    os.execv(python, [python, os.path.abspath(__file__), "--inside"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "vllm-bench-statistics"))
    parser.add_argument("--inside", action="store_true")
    args = parser.parse_args()
    try:
        import numpy as np
        import scipy
        from scipy import stats
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
    skewed = [1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8, 9.0, 1.1, 1.2]
    check("skewness (inference.rs)", stats.skew(skewed, bias=False), 3.141379809150333)
    boot = stats.bootstrap((skewed,), np.mean, n_resamples=100_000, method="percentile", rng=1).confidence_interval
    check("bootstrap interval (inference.rs)", [boot.low, boot.high], [1.0, 3.48], 0.05)
    x, y = [10.1, 9.8, 10.4, 10.0, 9.9], [10.9, 10.2, 11.5, 10.7]
    welch = stats.ttest_ind(x, y, equal_var=False)
    check("Welch (inference.rs)", [welch.statistic, welch.pvalue, welch.df],
          [-2.7265547370059546, 0.05437646921698372, 3.8816773904517476])
    check("pooled t (inference.rs)", stats.ttest_ind(x, y).pvalue, 0.020517889413578065)
    check("Bartlett (inference.rs)", stats.bartlett(x, y, [10.0, 12.0, 9.5, 10.4]).pvalue, 0.04187987683712205)
    # Order statistics: the interval of a quantile, as `quantile_interval` of inference.rs and its tests.
    for n, q, expected in [(100, 0.5, (40, 61)), (1000, 0.99, (983, 997)), (100, 0.99, (97, None)), (5, 0.5, (None, None))]:
        values = np.arange(1, n + 1)
        found = stats.quantile_test(values, q=0, p=q).confidence_interval(0.95)
        check(
            f"order-statistics interval of the {q} quantile of 1..{n}",
            [-1 if np.isnan(end) else end for end in (found.low, found.high)],
            [-1 if end is None else end for end in expected],
        )
    check("device-days of 1e9 tokens at 10,000/s (derive.rs)", 1e9 / 1e4 / 86400, 1.157407, 1e-6)
    check("devices for 1e9 tokens per hour (derive.rs)", 1e9 / (1e4 * 3600), 27.777778, 1e-7)
    if wrong:
        sys.exit(f"{len(wrong)} differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

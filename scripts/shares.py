"""What the check_*.py scripts share: numpy and scipy in a venv of their own, and shares that are held against aims."""

import math
import os
import subprocess
import sys
import tempfile


def wilson(count, n):
    """The 95 % interval of a share."""
    z, p = 1.959964, count / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


class Aims:
    """Judges shares: one fails only where its whole interval lies beyond its aim. `failed` holds the names of those."""

    def __init__(self):
        self.failed = []

    def judge(self, name, count, n, aim, at_least):
        """The share with its interval and its aim, in words."""
        low, high = wilson(count, n)
        bad = high < aim if at_least else low > aim
        if bad:
            self.failed.append(name)
        return f"{count / n:.4f} ({low:.3f} to {high:.3f}) {'>=' if at_least else '<='} {aim:g} {'WRONG' if bad else 'ok'}"

    def end(self):
        """Ends the script with 1 where one failed."""
        if self.failed:
            sys.exit(f"{len(self.failed)} beyond their aims: {'; '.join(self.failed)}")


def add_arguments(parser):
    """`--venv`, and the sign that the script was started again inside it."""
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "vllm-bench-statistics"))
    parser.add_argument("--inside", action="store_true")


def need_scipy(args, script):
    """Starts the script again in a venv that has numpy and scipy, where they are missing here."""
    try:
        import numpy  # noqa: F401
        import scipy  # noqa: F401
    except ImportError:
        if args.inside:
            raise
        python = os.path.join(args.venv, "bin", "python")
        if not os.path.exists(python):
            subprocess.check_call([sys.executable, "-m", "venv", args.venv])
        subprocess.check_call([python, "-m", "pip", "install", "-q", "numpy", "scipy"])
        os.execv(python, [python, os.path.abspath(script), "--inside", *sys.argv[1:]])

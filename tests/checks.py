"""What the scenarios against a real vLLM and on a Slurm cluster share: checks that are counted, and a part with a folder and commands of its own."""

import contextlib
import subprocess
import time
import traceback


class Tally:
    passed = 0
    failed = 0


class Over(Exception):
    """A check failed that the rest of the scenario needs."""


def that(condition, message) -> None:
    if not condition:
        raise AssertionError(message() if callable(message) else message)


def equal(found, expected, what: str) -> None:
    that(found == expected, lambda: f"{what}: found {found!r}, expected {expected!r}")


def wait_for(what: str, condition, limit: float, every: float):
    """The first true value of condition(); a failed check when none comes."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit:.0f} s for {what}")
        time.sleep(every)


class Part:
    """One of the main parts: its folder, its commands, its checks. `bench` has the binary and the folder of all parts."""

    def __init__(self, bench, name: str):
        self.bench, self.name = bench, name
        self.dir = bench.work / name
        self.dir.mkdir()
        self.results = self.dir / "results"
        self.failed = 0
        self.lap = time.monotonic()
        self.commands = 0

    @contextlib.contextmanager
    def check(self, what: str, needed: bool = False):
        notes: list[str] = []
        try:
            yield notes.append
            error = None
        except Over:
            raise
        except Exception as caught:  # noqa: BLE001
            error = caught
        seconds = time.monotonic() - self.lap
        self.lap = time.monotonic()
        note = f" [{'; '.join(notes)}]" if notes else ""
        print(f"{'ok  ' if error is None else 'FAIL'} {self.name}: {what}{note} ({seconds:.1f} s)", flush=True)
        if error is None:
            Tally.passed += 1
            return
        Tally.failed += 1
        self.failed += 1
        detail = str(error) if isinstance(error, AssertionError) else "".join(traceback.format_exception(error))
        print("     " + detail.rstrip().replace("\n", "\n     "), flush=True)
        with open(self.dir / "failures.txt", "a") as file:
            file.write(f"{what}\n{detail}\n\n")
        if needed:
            raise Over

    def begin(self, args, env: dict[str, str]) -> subprocess.Popen:
        """Starts vllm-bench; its output goes to a numbered file."""
        self.commands += 1
        path = self.dir / f"{self.commands:02}-{args[0]}.txt"
        with open(path, "w") as out:
            out.write("$ vllm-bench " + " ".join(args) + "\n")
            out.flush()
            child = subprocess.Popen([self.bench.binary, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                     cwd=self.dir, env=env)
        child.text = path.read_text
        return child

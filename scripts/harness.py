"""What the measurements of this folder share: simulated sweeps, their process trees and their run directories.

Python 3.11, standard library only. Every sweep carries a random marker in its environment (`--env` puts it into the launch
scripts too) and works in a folder of its own, so that each of its processes and temporary scripts is found wherever it went, and
nothing else ever is. Engines overwrite their environment when they rename themselves; the folder in which they work is theirs still.
"""

from __future__ import annotations

import datetime
import glob
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKER = "SWEEP_MARKER"
HOME = Path(f"/tmp/vllm-bench-{os.geteuid()}")


# ---------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Proc:
    """One process as `/proc` shows it."""

    pid: int
    comm: str
    state: str
    parent: int
    group: int
    session: int
    start: int

    def alive(self) -> bool:
        now = read_proc(self.pid)
        return now is not None and now.start == self.start and now.state not in "ZXx"


def read_proc(pid: int) -> Proc | None:
    text = read_bytes(f"/proc/{pid}/stat").decode(errors="replace")
    close = text.rfind(")")
    if close < 0:
        return None
    fields = text[close + 2 :].split()
    comm = text[text.index("(") + 1 : close]
    return Proc(pid, comm, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def processes() -> list[Proc]:
    found = (read_proc(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [proc for proc in found if proc is not None]


def read_bytes(path: str) -> bytes:
    """At most 8 MB of a file: what a process of others says of its arguments and environment may claim to be endless, and a file that is being
    written was seen once to claim a size that no memory holds: it is read again."""
    for _ in range(3):
        try:
            with open(path, "rb") as file:
                return file.read(8 << 20)
        except MemoryError:
            time.sleep(0.05)
        except OSError:
            break
    return b""


def argv(pid: int) -> list[str]:
    return [word.decode(errors="replace") for word in read_bytes(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")]


def works_below(pid: int, folder: Path | None) -> bool:
    try:
        return folder is not None and Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder)
    except OSError:
        return False


def tree(
    marker: str, root: int | None = None, sessions: set[int] | None = None, folder: Path | None = None
) -> list[Proc]:
    """All live processes of a sweep: descendants of `root`, members of `sessions`, whoever carries the marker, and whoever
    works in its folder."""
    everyone = [proc for proc in processes() if proc.state not in "ZXx" and proc.pid != os.getpid()]
    entry = f"{MARKER}={marker}".encode()
    below: set[int] = {root} if root else set()
    while True:
        more = {proc.pid for proc in everyone if proc.parent in below} - below
        if not more:
            break
        below |= more
    return [
        proc
        for proc in everyone
        if proc.pid in below
        or (sessions and proc.session in sessions)
        or entry in read_bytes(f"/proc/{proc.pid}/environ").split(b"\0")
        or works_below(proc.pid, folder)
    ]


def role(proc: Proc, orchestrator: int, home: Path = HOME) -> str:
    """What a process of a sweep is."""
    if proc.pid == orchestrator:
        return "orchestrator"
    words = argv(proc.pid)
    line = " ".join(words)
    if words and words[0] == "vllm-bench-guard":
        return "guard of " + guarded(proc.pid, home)
    if "/tmp/vllm-bench-server-" in line:
        return "bash (server)"
    if "/tmp/vllm-bench-benchmark-" in line:
        return "bash (client)"
    if words and words[0].startswith("VLLM::Engine"):
        return "VLLM::EngineCore"
    if words and words[0].startswith("VLLM::Worker"):
        return "VLLM::Worker"
    if "run" in words and "--results-dir" in words:
        return "orchestrator"
    if "serve" in words and "bench" in words:
        return "benchmark client"
    if "serve" in words:
        return "API server"
    return "other"


def guarded(guard: int, home: Path) -> str:
    """`server` or `client`: told by the guard's children, or by the registry."""
    for path in glob.glob(str(home / "groups" / "*.json")):
        record = load_json(path)
        if isinstance(record, dict) and record.get("guard", {}).get("pid") == guard:
            return "client" if record["owner"]["role"] == "benchmark" else "server"
    return "new group"


def kill_tree(marker: str, folder: Path | None = None) -> None:
    """Ends whatever is left of a sweep: only processes that carry its marker or work in its folder."""
    for proc in tree(marker, folder=folder):
        try:
            os.kill(proc.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_until(condition, limit: float, every: float = 0.01) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


# -------------------------------------------------------------------------------------------------------------- files


def load_json(path) -> object | None:
    try:
        return json.loads(read_bytes(str(path)))
    except (OSError, ValueError):
        return None


def when(at: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.datetime.fromisoformat(at).timestamp()


def journal(run: Path) -> list[dict]:
    """The entries of a journal that can be read."""
    entries = []
    for line in read_bytes(str(run / "journal.jsonl")).split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def runs(results: Path) -> list[Path]:
    """The run directories of a results directory that have a manifest, oldest first."""
    found = [path.parent for path in results.glob("*/manifest.json")]
    return sorted(found, key=lambda run: (str((load_json(run / "manifest.json") or {}).get("created")), run.name))


def phase_of(entries: list[dict]) -> str:
    """Where a run is, by its journal."""
    phase = "before the journal"
    for entry in entries:
        match entry.get("event"):
            case "run-started":
                phase = "between experiments"
            case "experiment-started":
                phase = "launching"
            case "phase-changed":
                phase = entry["now"]["phase"]
            case "experiment-finished":
                phase = "between experiments"
            case "run-finished":
                phase = "after the last"
    return phase


# ------------------------------------------------------------------------------------------------------------- sweeps


@dataclass
class Sweep:
    """A sweep in a results directory of its own, with a marker of its own."""

    binary: Path
    args: list[str]
    folder: Path
    engine: str = "sim"
    environment: dict[str, str] = field(default_factory=dict)
    clean_home: bool = False
    # A command before each of ours.
    wrapper: list[str] = field(default_factory=list)
    # Where its locks and the records of live groups are, as seen from outside of the wrapper.
    registry: Path = HOME
    marker: str = field(default_factory=lambda: f"{random.SystemRandom().getrandbits(64):016x}")

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def command(self, *more: str) -> list[str]:
        return [
            *self.wrapper, str(self.binary), "--color", "never", "run", "--engine", self.engine, "--keep-foreign", "--retry", "none",
            "--results-dir", str(self.results), "--env", f"{MARKER}={self.marker}", *self.args, *more,
        ]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen:
        """Starts it in a session of its own; its output goes to `output.txt`."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        # The launch scripts run under a login shell. The user's profile is kept out of it: what it does takes time of its
        # own, and a kill -9 in the middle of it would harm the user (a stale lock of `pyenv rehash` stalls every later login).
        own = {"HOME": str(home)} if self.engine == "sim" or self.clean_home else {}
        with open(self.folder / "output.txt", "ab") as output:
            output.write(f"\n$ {' '.join(self.command(*more))}\n".encode())
            output.flush()
            return subprocess.Popen(
                self.command(*more),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=self.folder,
                env={**os.environ, MARKER: self.marker, "VLLM_BENCH_DEVICE_LOCKS": str(self.folder / "devices"), **own, **self.environment},
            )  # fmt: skip

    def run(self, *more: str, limit: float = 300) -> int:
        """Runs it to its end."""
        child = self.start(*more)
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            self.end()
            child.wait()
            raise SystemExit(f"the sweep did not end within {limit} s: {self.folder}") from None

    def tree(self, root: int | None = None) -> list[Proc]:
        return tree(self.marker, root, folder=self.folder)

    def end(self) -> None:
        """Ends everything that is left of it."""
        for _ in range(3):
            kill_tree(self.marker, self.folder)
            time.sleep(0.05)

    def newest(self) -> Path | None:
        found = runs(self.results)
        return found[-1] if found else None

    def temporary_scripts(self) -> list[str]:
        """Its launch scripts that are still in /tmp."""
        entry = f"{MARKER}={self.marker}".encode()
        return [path for path in glob.glob("/tmp/vllm-bench-*.sh") if entry in read_bytes(path)]

    def registered(self) -> list[str]:
        """Its groups that are still registered."""
        return [path for path in glob.glob(str(self.registry / "groups" / "*.json")) if str(self.results).encode() in read_bytes(path)]


# ------------------------------------------------------------------------------------------------------------ metrics


def free_port() -> int:
    """A port away from those that other runs on this machine begin with."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_binary(given: str | None) -> Path:
    """The program to measure: the one given, or the release build."""
    path = Path(given) if given else ROOT / "target" / "release" / "vllm-bench"
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is not there: build it with `cargo build --release`, or name one with --binary")
    return path.resolve()


def work_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"vllm-bench-{name}-"))


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def machine() -> str:
    """The machine, without its name."""
    memory = re.search(rb"MemTotal:\s+(\d+)", read_bytes("/proc/meminfo"))
    gib = int(memory[1]) / 2**20 if memory else 0
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release().split('-')[0]}, load {load:.1f} at the start"


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(values: list[float]) -> float:
    return quantile(values, 0.5)


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table that aligns."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    numeric = [all(re.fullmatch(r"[-+]?[\d.,]+|-|", row[i]) for row in cells[1:]) for i in range(len(head))]

    def line(row: list[str]) -> str:
        padded = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric))
        return "| " + " | ".join(padded) + " |"

    rule = "| " + " | ".join("-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric)) + " |"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def say(text: str) -> None:
    print(text, flush=True)


def require_python() -> None:
    if sys.version_info < (3, 11):
        raise SystemExit("Python 3.11 or later is needed")

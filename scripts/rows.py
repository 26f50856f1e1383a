"""A table of which each row is a sweep that meets something: what `fault_table.py` and `watchdog.py` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness as h


def small_sweep(models: list[str], port: int, *more: str) -> list[str]:
    """Flags of a sweep of one configuration for each model."""
    return [
        "--models", *models, "--quantization", "none", "--enforce-eager", "true", "--port", str(port), "--setvars", "none",
        "--max-model-len", "2048", *more,
    ]  # fmt: skip


def launched(entries: list[dict]) -> dict[str, int]:
    """The first server and the first client that a journal tells of: their processes."""
    found: dict[str, int] = {}
    for entry in entries:
        for what, event in (("server", "server-launched"), ("client", "benchmark-launched")):
            if entry["event"] == event:
                found.setdefault(what, entry["process"]["pid"])
    return found


def find_engine(server: int) -> int | None:
    """The engine below an API server."""
    try:
        tasks = os.listdir(f"/proc/{server}/task")
    except OSError:
        return None
    for task in tasks:
        for pid in h.read_bytes(f"/proc/{server}/task/{task}/children").split():
            proc = h.read_proc(int(pid))
            if proc and proc.comm.startswith("VLLM::Engine"):
                return proc.pid
    return None


def seconds(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{max(value, 0):.{digits}f}"


def options(doc: str | None, jobs: int) -> argparse.Namespace:
    """The flags of such a table."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--jobs", type=int, default=jobs, help="sweeps at a time: they mostly wait")
    parser.add_argument("--only", help="only rows whose name contains this")
    parser.add_argument("--keep", action="store_true", help="keep the run directories")
    return parser.parse_args()


def measured(cases: list, jobs: int, measure: Callable[[object, int], dict], blank: Callable[[object], dict]) -> list[dict]:
    """The row of each case; `blank` is the row of one that cannot be measured, to which its problem is added."""

    def work(numbered: tuple[int, object]) -> dict:
        number, case = numbered
        try:
            return measure(case, number)
        except Exception as error:  # noqa: BLE001 - a row that cannot be measured is a problem, not the end
            return blank(case) | {"problems": [f"{type(error).__name__}: {error}"]}

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(work, enumerate(cases)))


def ended(rows: list[dict], base: Path, keep: bool) -> int:
    """Says what is wrong, and removes what is not needed any more; the exit code."""
    bad = [row for row in rows if row["problems"]]
    for row in bad:
        h.say(f"PROBLEM {row['name']}: {'; '.join(row['problems'])}\n  evidence: {row['folder']}")
    if not bad and not keep:
        h.discard(base)
    return 1 if bad else 0

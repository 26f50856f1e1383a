#!/usr/bin/env python3
"""Every fault and cause that can be provoked: how long from the event to its being noticed, and to the recorded outcome.

Each row is a sweep whose first experiment meets the fault; those after it must pass. The event is seen from outside: the
death of a process (by polling /proc every few milliseconds), a line in a log, or, for limits, the limit's own moment.
Exit 1 when something was noticed later than a second after its event, a process was left, another cause than the expected
one was recorded, or the sweep did not go on.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import harness as h
from rows import ended, find_engine, launched, measured, options, seconds, small_sweep

FIRST, SECOND, THIRD = "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B"
LIMIT = 6.0
GRACE = 1.5
POLL = 0.004
NOTICED_WITHIN = 1.0


@dataclass
class Case:
    """One row: what is provoked, what should be recorded, and what the event is."""

    name: str
    cause: str
    event: str
    faults: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    also: str | None = None
    speed: float = 60
    act: str | None = None
    fake: str | None = None
    models: list[str] = field(default_factory=lambda: [FIRST, SECOND])


# What a `vllm` prints and does for the first model, where the simulated vLLM has no fault for it.
FAKES = {
    "vllm-missing": (
        "Traceback (most recent call last):",
        '  File "/usr/local/bin/vllm", line 3, in <module>',
        "    from vllm.entrypoints.cli.main import main",
        "ModuleNotFoundError: No module named 'vllm'",
    ),
    "unsupported-model": (
        "(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "(APIServer pid=1)   Value error, Model architectures ['NewForCausalLM'] are not supported for now. Supported architectures: []",
    ),
    "disk-full": ("(EngineCore_DP0 pid=2) OSError: [Errno 28] No space left on device",),
    "engine-core-failed": (
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    ),
}


def cases() -> list[Case]:
    simple = [
        ("exit-at-start", "crashed"),
        ("exit-at-start:3", "crashed"),
        ("out-of-memory", "out-of-device-memory"),
        ("kv-cache", "kv-cache-too-small"),
        ("kv-cache:small", "kv-cache-too-small"),
        ("port-taken", "port-in-use"),
        ("unknown-flag", "invalid-flag"),
        ("model-not-found", "model-not-found"),
        ("gated-model", "model-gated"),
        ("network", "network"),
        ("quantization-unsupported", "unsupported-quantization"),
        ("dtype-unsupported", "unsupported-dtype"),
        ("too-many-devices", "not-enough-devices"),
        ("level-zero", "level-zero"),
        ("shared-memory", "shared-memory"),
        ("oom-killed", "killed-by-system"),
    ]
    found = [Case(name, cause, "server ends", [name]) for name, cause in simple]
    found += [
        Case("oom-killed:engine", "killed-by-system", "engine ends", ["oom-killed:engine"]),
        Case("hang-loading", "hung", "start limit", ["hang-loading"]),
        Case("hang-accept", "hung", "start limit", ["hang-accept"]),
        Case("never-healthy", "startup-timeout|hung", "start limit", ["never-healthy"]),
        Case("slow start, log still grows", "startup-timeout", "start limit", ["server-floods", "never-healthy"]),
        Case("wrong-model", "foreign-server", "startup line", ["wrong-model"]),
        *[
            Case(f"die-in-benchmark:{how}", "server-died", "engine ends" if how == "engine" else "server ends", [f"die-in-benchmark:{how}"])
            for how in ("kill", "segv", "exit", "engine")
        ],
        Case("die-in-benchmark:kill+0.05s", "server-died", "server ends", ["die-in-benchmark:kill+0.05s"]),
        Case("requests-fail", "requests-failed", "client ends", ["requests-fail"]),
        Case("requests-fail:all", "requests-failed", "client ends", ["requests-fail:all"]),
        Case("streams-fail:break+2", "requests-failed", "client ends", ["streams-fail:break+2"]),
        Case("benchmark-hangs", "benchmark-hung", "benchmark limit", ["benchmark-hangs"]),
        Case("benchmark-floods", "benchmark-timeout", "benchmark limit", ["benchmark-floods"]),
        Case("benchmark-exits", "benchmark-failed", "client ends", ["benchmark-exits"]),
        Case("benchmark-bad-json", "result-invalid", "client ends", ["benchmark-bad-json"]),
        Case("benchmark-no-result", "result-invalid", "client ends", ["benchmark-no-result"]),
        # These do not keep an experiment from passing: what counts is that nothing stays.
        Case("late-healthy", "passed", "none", ["late-healthy"]),
        Case("garbage-log", "passed", "none", ["garbage-log"]),
        Case("server-floods", "passed", "none", ["server-floods"]),
        Case("ignores-sigterm", "passed", "grace over", ["ignores-sigterm"]),
        Case("grandchild-in-group", "passed", "grace over", ["grandchild-in-group"]),
        Case("grandchild-out-of-group", "passed", "grace over", ["grandchild-out-of-group"]),
        # Provoked without a fault of the simulation.
        Case("device memory too small for the model", "out-of-device-memory", "server ends", more=["--sim-device-memory", "3"], models=[THIRD, FIRST]),
        Case("tp 8 on one device", "not-enough-devices", "server ends", more=["--sim-devices", "1", "--tp", "8", "1"], models=[FIRST]),
        Case("kill -9 of the API server, loading", "killed-by-system", "acted", act="kill server", speed=10),
        Case("kill -9 of the server's guard, loading", "launch-failed", "acted", act="kill server guard", speed=10),
        Case("kill -9 of the API server, measuring", "server-died", "acted", ["benchmark-hangs"], act="kill server in benchmark"),
        Case("kill -9 of the engine core, measuring", "server-died", "acted", ["benchmark-hangs"], act="kill engine in benchmark"),
        Case("kill -9 of the client", "benchmark-failed", "acted", ["benchmark-hangs"], act="kill client"),
        Case("kill -9 of the client's guard", "launch-failed", "acted", ["benchmark-hangs"], act="kill client guard"),
        Case("a foreign server answers while ours loads", "foreign-server", "acted", act="foreign server", speed=8),
        *[Case(f"log of: {name}", name, "server ends", fake=name) for name in FAKES],
    ]  # fmt: skip
    return found


class Watch:
    """Follows a sweep from outside: its journal, and the processes of its first experiment."""

    def __init__(self, sweep: h.Sweep, case: Case, port: int):
        self.sweep, self.case, self.port = sweep, case, port
        self.entries: list[dict] = []
        self.size = 0
        self.leaders: dict[str, int] = {}
        self.engine: int | None = None
        self.gone: dict[str, float] = {}
        self.startup_line: float | None = None
        self.acted: float | None = None
        self.foreign: http.server.ThreadingHTTPServer | None = None
        self.started_at = time.monotonic()

    def follow(self, child) -> int:
        while child.poll() is None:
            self.look(child.pid)
            if time.monotonic() - self.started_at > 120:
                raise TimeoutError("the sweep did not end within 120 s")
            time.sleep(POLL)
        self.look(child.pid)
        if self.foreign:
            self.foreign.server_close()
        return child.returncode

    def finished_first(self) -> bool:
        return any(entry["event"] == "experiment-finished" for entry in self.entries)

    def look(self, root: int) -> None:
        run = self.sweep.newest() if not self.size else self.run
        if run is None:
            return
        self.run = run
        now = time.time()
        if not self.finished_first():
            self.watch_processes(now)
        try:
            size = (run / "journal.jsonl").stat().st_size
        except OSError:
            return
        if size != self.size:
            self.size = size
            self.entries = h.journal(run)
            if not self.finished_first():
                self.learn()
        if self.case.act and self.acted is None and not self.finished_first():
            self.act()
        if self.foreign and self.phase()[0] == "draining":
            # Noticed: the next experiment finds the port free.
            self.foreign.shutdown()
            self.foreign.server_close()
            self.foreign = None

    def learn(self) -> None:
        self.leaders = launched(self.entries)

    def watch_processes(self, now: float) -> None:
        watched = dict(self.leaders)
        if "server" in watched and self.engine is None:
            self.engine = find_engine(watched["server"])
        if self.engine:
            watched["engine"] = self.engine
        for what, pid in watched.items():
            proc = h.read_proc(pid)
            if what not in self.gone and (proc is None or proc.state in "ZXx"):
                self.gone[what] = now
        if self.case.event == "startup line" and self.startup_line is None:
            for log in (self.run / "logs").glob("*_server.log"):
                if b"Application startup complete" in h.read_bytes(str(log)):
                    self.startup_line = now

    def phase(self) -> tuple[str, str]:
        for entry in reversed(self.entries):
            if entry["event"] == "phase-changed":
                return entry["now"]["phase"], entry["now"].get("start-phase", "")
        return "", ""

    def act(self) -> None:
        """Provokes what no fault of the simulation does, at its moment."""
        what = self.case.act
        loading = self.phase() == ("starting", "loading") or self.phase() == ("starting", "configuring")
        server, client = self.leaders.get("server"), self.leaders.get("client")
        target = None
        if what in ("kill server", "kill server guard") and loading and server and self.engine:
            target = server
        elif what and what.endswith("in benchmark") and client:
            target = self.engine if "engine" in what else server
        elif what in ("kill client", "kill client guard") and client:
            target = client
        elif what == "foreign server" and loading:
            self.foreign = foreign_server(self.port, FIRST)
            self.acted = time.time()
            return
        if target is None:
            return
        if client and what != "foreign server":
            time.sleep(0.3)
        if what and what.endswith("guard"):
            proc = h.read_proc(target)
            target = proc.parent if proc else None
        if target:
            self.acted = time.time()
            os.kill(target, signal.SIGKILL)


def foreign_server(port: int, model: str) -> http.server.ThreadingHTTPServer:
    """Somebody else's server on the port: healthy, and it even offers the right model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"object": "list", "data": [{"id": model}]}).encode() if "models" in self.path else b""
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        allow_reuse_port = True
        daemon_threads = True

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            super().server_bind()

    server = Server(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, daemon=True).start()
    return server


def fake_vllm(folder: Path, binary: Path, name: str) -> Path:
    """A `vllm` that fails for the first model and is the simulated one for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vllm"
    words = "\n".join(FAKES[name])
    path.write_text(
        "#!/bin/bash\n"
        f'if [ "$1 $2" = "serve {FIRST}" ]; then\nsleep 0.5\ncat >&2 <<\'END\'\n{words}\nEND\nexit 1\nfi\n'
        f'export VLLM_BENCH_SIM_SPEED=60\nexec {binary} sim-vllm "$@"\n'
    )
    path.chmod(0o755)
    return path


def build(case: Case, binary: Path, base: Path, number: int, port: int) -> h.Sweep:
    folder = base / f"{number:02}-{re.sub('[^a-z0-9]+', '-', case.name.lower()).strip('-')}"
    args = small_sweep(
        case.models, port, "--num-prompts", "8", "--concurrency", "4", "--input-len", "64", "--output-len", "16",
        "--grace", f"{GRACE}s", "--timeout-startup", f"{LIMIT}s", "--timeout-benchmark", f"{LIMIT}s", *case.more,
    )  # fmt: skip
    if "--tp" not in case.more:
        args += ["--tp", "1"]
    for fault in case.faults:
        args += ["--sim-fault", f"{fault}@model={FIRST}"]
    if case.fake:
        return h.Sweep(binary, [*args, "--vllm-bin", str(fake_vllm(folder, binary, case.fake))], folder, engine="vllm", clean_home=True)
    return h.Sweep(binary, [*args, "--sim-speed", str(case.speed)], folder)


def event_time(case: Case, watch: Watch, entries: list[dict], noticed: float | None) -> float | None:
    """When it happened, in seconds since the epoch."""

    def at(test) -> float | None:
        return next((h.when(entry["at"]) for entry in entries if test(entry)), None)

    def phase(name: str) -> float | None:
        return at(lambda entry: entry["event"] == "phase-changed" and entry["now"]["phase"] == name)

    match case.event:
        case "server ends":
            return earliest(watch.gone.get("server"), noticed)
        case "engine ends":
            return earliest(watch.gone.get("engine"), noticed)
        case "client ends":
            return earliest(watch.gone.get("client"), noticed)
        case "startup line":
            return earliest(watch.startup_line, noticed)
        case "acted":
            return watch.acted
        case "start limit":
            start = phase("starting")
            return start and start + LIMIT
        case "benchmark limit":
            start = phase("measuring")
            return start and start + LIMIT
        case "grace over":
            start = phase("draining")
            return start and start + GRACE
    return None


def earliest(seen: float | None, noticed: float | None) -> float | None:
    """The event, or the notice where that came first: a fatal line in the log is acted upon before the process has ended,
    and a poll sees an end up to a few milliseconds late."""
    if seen is None:
        return None
    return seen if noticed is None else min(seen, noticed)


def measure(case: Case, binary: Path, base: Path, number: int) -> dict:
    port = h.free_port()
    sweep = build(case, binary, base, number, port)
    watch = Watch(sweep, case, port)
    problems: list[str] = []
    child = sweep.start()
    try:
        code = watch.follow(child)
    except Exception as error:  # noqa: BLE001 - a row that cannot be measured is a problem, not the end
        problems.append(f"{type(error).__name__}: {error}")
        code = -1
    left = sweep.tree()
    if left:
        problems.append(f"{len(left)} processes left: {[proc.comm for proc in left]}")
    sweep.end()
    child.poll() or child.wait()
    entries = h.journal(watch.run) if watch.size else []
    finished = [entry for entry in entries if entry["event"] == "experiment-finished"]
    row = {"name": case.name, "event": case.event, "cause": "-", "noticed": None, "recorded": None, "left": len(left), "on": "no"}
    if not finished:
        problems.append(f"nothing was recorded (exit code {code}): see {sweep.folder}/output.txt")
        return row | {"problems": problems, "folder": sweep.folder}
    faulty = finished[0]
    row["cause"] = faulty.get("cause") or faulty["outcome"]
    if faulty.get("also"):
        row["cause"] += f" ({', '.join(faulty['also'])})"
    about = f"`{faulty['name']}`"
    own = [entry for entry in entries if entry.get("name") == faulty["name"] or about in entry.get("text", "")]
    noticed = next(
        (
            h.when(entry["at"])
            for entry in own
            if (entry["event"] == "phase-changed" and entry["now"]["phase"] == "draining" and case.event != "grace over")
            or (entry["event"] == "notice" and "evidence is kept" in entry["text"])
            or (entry["event"] == "torn-down" and case.event == "grace over")
            or entry["event"] == "experiment-finished"
        ),
        None,
    )
    if case.event != "none":
        event = event_time(case, watch, own, noticed)
        if event is None or noticed is None:
            problems.append("the event was not seen")
        else:
            row["noticed"], row["recorded"] = noticed - event, h.when(faulty["at"]) - event
            if row["noticed"] > NOTICED_WITHIN:
                problems.append(f"noticed {row['noticed']:.2f} s after the event")
    expected = case.cause.split("|")
    if (faulty.get("cause") or faulty["outcome"]) not in expected:
        problems.append(f"expected the cause {case.cause}")
    others = [entry for entry in finished if entry is not faulty]
    if others and all(entry["outcome"] == "passed" for entry in others) and entries[-1]["event"] == "run-finished":
        row["on"] = "yes"
    else:
        problems.append("the sweep did not go on")
    if code != (0 if case.cause == "passed" else 1):
        problems.append(f"exit code {code}")
    return row | {"problems": problems, "folder": sweep.folder}


def main() -> int:
    given = options(__doc__, jobs=2)
    h.require_python()
    binary, base = h.find_binary(given.binary), h.work_folder("faults")
    chosen = [case for case in cases() if not given.only or given.only in case.name]
    h.say(f"{len(chosen)} rows; {h.machine()}; limits {LIMIT} s, grace {GRACE} s; metrics are upper bounds\n")

    def blank(case: Case) -> dict:
        return {"name": case.name, "event": case.event, "cause": "-", "noticed": None, "recorded": None, "left": 0, "on": "no", "folder": base}

    rows = measured(chosen, given.jobs, lambda case, number: measure(case, binary, base, number), blank)
    head = ["fault", "cause recorded", "event", "event -> noticed s", "event -> recorded s", "processes left", "sweep went on"]
    h.say(
        h.table(
            head,
            [[r["name"], r["cause"], r["event"], seconds(r["noticed"], 2), seconds(r["recorded"], 2), r["left"], r["on"]] for r in rows],
        )
    )
    noticed = [row["noticed"] for row in rows if row["noticed"] is not None]
    if noticed:
        h.say(f"\nnoticed: median {h.median(noticed):.2f} s, most {max(noticed):.2f} s")
    return ended(rows, base, given.keep)


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
"""What vllm-bench itself costs per experiment, beyond what vLLM's start, its client and its end need.

Measured twice, independently. Direct: while a sweep runs, this script watches from outside when the server was executed,
when /health first answered, when the client was executed and ended, when the last process of the server was gone, and
adds up what lies between. By hand: the same server and client from a plain shell script without login shell, guard or
record (start, /health every 5 ms, client, SIGTERM to the group, wait until it is empty), alternating with vllm-bench; the
difference of the two is noisier, because vLLM's own start varies, but trusts none of our clocks.

Exit 3 when the direct metric is above --target.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import harness as h

POLL = 0.003
LOAD = ["--num-prompts", "8", "--concurrency", "4", "--input-len", "64", "--output-len", "16", "--max-model-len", "2048"]
MODELS = ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B"]

# A person's script. $1: server script, $2: client script, $3: port. Prints four points in time.
BY_HAND = r"""
set -m
now() { echo "$1 $EPOCHREALTIME"; }
healthy() { { exec 3<>"/dev/tcp/127.0.0.1/$3"; } 2>/dev/null && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -r line <&3 && [[ $line == *" 200"* ]]; }
now start
bash "$1" >server.log 2>&1 &
server=$!
until healthy "$@"; do kill -0 $server 2>/dev/null || exit 1; sleep 0.005; done
exec 3>&-
now ready
bash "$2" >client.log 2>&1 || exit 2
now measured
kill -TERM -- -$server
while pgrep -g $server -r S,R,D,T,I >/dev/null; do sleep 0.005; done
now gone
"""

PIECES = [
    ("launch", "guard, script and login shell, until the server is executed"),
    ("ready", "from the first 200 of /health to `server-ready`"),
    ("client", "guard, script and login shell, until the client is executed"),
    ("client end", "from the client's end to the first signal to the server"),
    ("proof", "from the server's last process to `torn-down`"),
    ("record", "result written and synced, until `experiment-finished`"),
    ("next", "until the next experiment starts (or the run's end is in the journal)"),
]


def health(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b" 200" in connection.recv(64)
    except OSError:
        return False


class Watch:
    """Sees from outside when the processes of each experiment begin and end."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.over = False
        self.waiting: tuple[int, dict] | None = None

    def follow(self, sweep: h.Sweep, earlier: set[Path], child: subprocess.Popen) -> int:
        prober = threading.Thread(target=self.probe, daemon=True)
        prober.start()
        size, leaders, run = 0, {}, None
        draining = False
        while child.poll() is None:
            time.sleep(POLL)
            run = run or next(iter(set(h.runs(sweep.results)) - earlier), None)
            if run is None:
                continue
            now = time.time()
            for what, pid in leaders.items():
                self.look(what, pid, now, draining)
            try:
                grown = (run / "journal.jsonl").stat().st_size
            except OSError:
                continue
            if grown == size:
                continue
            size = grown
            entries = h.journal(run)
            last = max((i for i, e in enumerate(entries) if e["event"] == "experiment-started"), default=None)
            if last is None:
                continue
            index = sum(e["event"] == "experiment-started" for e in entries) - 1
            if index >= len(self.seen):
                self.seen.append({})
                leaders, self.waiting, draining = {}, None, False
            for entry in entries[last:]:
                if entry["event"] == "server-launched" and "server" not in leaders:
                    leaders["server"] = entry["process"]["pid"]
                    self.waiting = (entry["port"], self.seen[-1])
                if entry["event"] == "benchmark-launched":
                    leaders["client"] = entry["process"]["pid"]
                if entry["event"] == "phase-changed" and entry["now"]["phase"] == "draining":
                    draining = True
        self.over = True
        return child.returncode

    def look(self, what: str, pid: int, now: float, draining: bool) -> None:
        seen = self.seen[-1]
        if f"{what} executed" not in seen:
            words = h.argv(pid)
            if words != [""] and os.path.basename(words[0]) != "bash":
                seen[f"{what} executed"] = now
        if what == "client" and "client ended" not in seen:
            proc = h.read_proc(pid)
            if proc is None or proc.state in "ZXx":
                seen["client ended"] = now
        if what == "server" and draining and "server gone" not in seen:
            if not any(proc.group == pid and proc.state not in "ZXx" for proc in h.processes()):
                seen["server gone"] = now

    def probe(self) -> None:
        while not self.over:
            if self.waiting and "healthy" not in self.waiting[1]:
                port, seen = self.waiting
                if health(port):
                    seen["healthy"] = time.time()
            time.sleep(POLL)


def pieces(run: Path, watch: Watch) -> list[dict[str, float]]:
    """The seconds of each piece, one dictionary per experiment."""
    entries = h.journal(run)
    starts = [i for i, e in enumerate(entries) if e["event"] == "experiment-started"]
    found = []
    for number, (first, seen) in enumerate(zip(starts, watch.seen)):
        after = starts[number + 1] if number + 1 < len(starts) else len(entries)
        at = {}
        for entry in entries[first:after]:
            key = entry["now"]["phase"] if entry["event"] == "phase-changed" else entry["event"]
            at.setdefault(key, h.when(entry["at"]))
        end = h.when(entries[after]["at"]) if after < len(entries) else at.get("run-finished", at["experiment-finished"])
        try:
            found.append(
                {
                    "launch": seen["server executed"] - at["experiment-started"],
                    "ready": at["server-ready"] - seen["healthy"],
                    "client": seen["client executed"] - at["server-ready"],
                    "client end": at["draining"] - seen["client ended"],
                    "proof": at["torn-down"] - seen["server gone"],
                    "record": at["experiment-finished"] - at["torn-down"],
                    "next": end - at["experiment-finished"],
                    "total": end - at["experiment-started"],
                    "vLLM start": seen["healthy"] - seen["server executed"],
                    "vLLM client": seen["client ended"] - seen["client executed"],
                    "vLLM end": seen["server gone"] - at["draining"],
                }
            )
        except KeyError as missing:
            raise SystemExit(f"{missing} was not seen in experiment {number + 1} of {run}") from None
    return found


def by_hand(run: Path, folder: Path, environment: dict[str, str], round_number: int) -> list[dict[str, float]]:
    """The same servers and clients, from a person's script."""
    found = []
    plan = h.load_json(run / "manifest.json")["plan"]["experiments"]
    for experiment in plan:
        name = experiment["name"]
        place = folder / f"hand-{round_number}-{name}"
        place.mkdir(parents=True)
        server = (run / "scripts" / f"{name}_server.sh").read_text()
        client = (run / "scripts" / f"{name}_benchmark.sh").read_text()
        # A port of its own: others may have taken the one of the sweep since, and a plain script would measure their server.
        port = str(h.free_port())
        server, client = (re.sub(r"--port \d+", f"--port {port}", text) for text in (server, client))
        client = client.replace(str(run / ".unchecked"), str(place))
        (place / "server.sh").write_text(server)
        (place / "client.sh").write_text(client)
        (place / "by_hand.sh").write_text(BY_HAND)
        done = subprocess.run(
            ["bash", "by_hand.sh", "server.sh", "client.sh", port],
            cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, timeout=600,
        )  # fmt: skip
        at = dict(line.split() for line in done.stdout.split("\n") if line)
        if done.returncode or "gone" not in at:
            raise RuntimeError(f"the script by hand failed with {done.returncode}: {place}")
        start, ready, measured, gone = (float(at[key]) for key in ("start", "ready", "measured", "gone"))
        found.append({"total": gone - start, "start": ready - start, "client": measured - ready, "end": gone - measured})
    return found


def login_shell(environment: dict[str, str]) -> float:
    """What a login shell costs over a plain one: the user's profile."""
    def once(*args: str) -> float:
        began = time.perf_counter()
        subprocess.run(["bash", *args, "-c", ":"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began
    return h.median([once("--login") - once() for _ in range(15)])


def spread(values: list[float]) -> list[str]:
    return [f"{h.median(values):.3f}", f"{h.quantile(values, 0.1):.3f}", f"{h.quantile(values, 0.9):.3f}"]


def measure(title: str, sweep: h.Sweep, rounds: int, hand_rounds: int) -> float:
    direct: list[dict[str, float]] = []
    timings: list[dict] = []
    hand: list[dict[str, float]] = []
    runs: list[float] = []
    for number in range(rounds):
        watch = Watch()
        began = time.monotonic()
        code = watch.follow(sweep, set(h.runs(sweep.results)), sweep.start())
        runs.append(time.monotonic() - began)
        run = sweep.newest()
        if code != 0 or run is None:
            raise SystemExit(f"the sweep ended with exit code {code}: {sweep.folder}")
        direct += pieces(run, watch)
        runs[-1] -= sum(piece["total"] for piece in direct[-len(watch.seen) :])
        timings += [h.load_json(path)["vllm_bench"]["timings"] for path in run.glob("*_results.json") if path.name != "raw_results.json"]
        if number < hand_rounds:
            environment = {**os.environ, h.MARKER: sweep.marker, **sweep.environment, "HOME": str(sweep.folder / "home")}
            try:
                hand += by_hand(run, sweep.folder, environment, number)
            except RuntimeError as error:
                # Another vllm-bench of this user ends what looks like a foreign vLLM: nobody takes care of this one.
                h.say(f"note: {error}")
    h.say(f"### {title}: {len(direct)} experiments with vllm-bench, {len(hand)} by hand, alternating\n")
    rows = [[key, *spread([piece[key] for piece in direct]), text] for key, text in PIECES]
    own = [sum(piece[key] for key, _ in PIECES) for piece in direct]
    rows.append(["sum", *spread(own), "what vllm-bench costs per experiment, seen from outside"])
    h.say(h.table(["piece", "median s", "10 %", "90 %", "what it is"], rows))
    own_clock = [t["total"] - t["startup"] - t["benchmark"] - t["teardown"] for t in timings]
    rows = [
        ["vLLM: start / client / end", " / ".join(f"{h.median([piece[key] for piece in direct]):.2f}" for key in ("vLLM start", "vLLM client", "vLLM end"))],
        ["vllm-bench, whole experiment, median (10 %, 90 %)", "{} ({}, {})".format(*spread([piece["total"] for piece in direct]))],
        ["by the result files: total - startup - benchmark - teardown", f"{h.median(own_clock):.3f}"],
        ["once per run: plan, locks, manifest, analysis", f"{h.median(runs):.3f}"],
        ["a login shell with this user's own profile costs (twice per experiment, not in the above)", f"{login_shell(dict(os.environ)):.3f}"],
    ]  # fmt: skip
    if hand:
        parts = " / ".join(f"{h.median([piece[key] for piece in hand]):.2f}" for key in ("start", "client", "end"))
        whole = [piece["total"] for piece in hand]
        rows[1:1] = [["by hand: start / client / end", parts]]
        rows[3:3] = [
            ["by hand, whole experiment, median (10 %, 90 %)", "{} ({}, {})".format(*spread(whole))],
            ["difference of the medians", f"{h.median([piece['total'] for piece in direct]) - h.median(whole):+.3f}"],
        ]
    h.say("\n" + h.table(["seconds", title], rows) + "\n")
    return h.median(own)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    parser.add_argument("--rounds", type=int, default=6, help="sweeps of three simulated experiments")
    parser.add_argument("--speed", type=float, default=20, help="--sim-speed")
    parser.add_argument("--real", metavar="VLLM_BIN", help="measure with the real vLLM too")
    parser.add_argument("--model", help="its model (a path or an id)")
    parser.add_argument("--real-rounds", type=int, default=3)
    parser.add_argument("--no-sim", action="store_true")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the real vLLM")
    parser.add_argument("--bench-arg", action="append", default=[], help="for the real vLLM's client")
    parser.add_argument("--target", type=float, default=0.3, help="most seconds per experiment")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    h.require_python()
    if bool(options.real) != bool(options.model):
        parser.error("--real and --model go together")
    binary, base = h.find_binary(options.binary), h.work_folder("overhead")
    h.say(f"{h.machine()}; login shells of the sweeps have an empty profile; metrics are upper bounds\n")
    costs = []
    sweeps = []
    common = ["--tp", "1", "--quantization", "none", "--enforce-eager", "true", "--port", "auto", "--setvars", "none", *LOAD]
    if not options.no_sim:
        sweep = h.Sweep(binary, ["--models", *MODELS, *common, "--sim-speed", str(options.speed)], base / "sim")
        sweeps.append(("simulated vLLM", sweep, options.rounds))
    if options.real:
        # Sweeps work in folders of their own.
        options.real = os.path.abspath(options.real)
        options.model = os.path.abspath(options.model) if os.path.exists(options.model) else options.model
        more = [word for pair in options.env for word in ("--env", pair)] + [f"--bench-arg={arg}" for arg in options.bench_arg]
        args = ["--models", options.model, *common, "--vllm-bin", options.real, *more]
        sweeps.append(("real vLLM", h.Sweep(binary, args, base / "real", engine="vllm", clean_home=True), options.real_rounds))
    for title, sweep, rounds in sweeps:
        try:
            costs.append((title, measure(title, sweep, rounds, rounds)))
        finally:
            sweep.end()
    for title, cost in costs:
        h.say(f"{title}: {cost:.3f} s per experiment, target {options.target} s: {'held' if cost <= options.target else 'MISSED'}")
    if not options.keep:
        h.discard(base)
    return 0 if all(cost <= options.target for _, cost in costs) else 3


if __name__ == "__main__":
    raise SystemExit(main())

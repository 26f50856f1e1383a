#!/usr/bin/env python3
"""How exact and how fast load generators are, against a server with known times, all in one run on this machine.

The server (`examples/mock_server.rs`) sends a first token 50 ms after a request and one every 10 ms after it, and says how late
it was itself. Printed for each client and number of streams: mean TTFT and what of it is the client's own (over the server's
real mean), ITL p99, CPU seconds, peak memory, seconds until its first request; then the highest rates that each client drives,
against the same server without pauses and against one that only sends canned bytes. `floor` is the lightest possible reader of
the same streams (`examples/raw_reader.rs`): no parsing, no metrics. Rates are driven with one prompt for all requests by the floor,
`vllm-bench load` and oha: random ones are made while requests are sent, and would be what is measured.

Peers are installed from the package index into a folder of their own (`--peers DIR`, by default below the user's cache):
`vllm bench serve` by tests/real_vllm/setup.sh, AIPerf and GuideLLM by pip, oha by cargo. A further client is given as
`--client NAME=COMMAND`, where `{url}`, `{streams}`, `{requests}`, `{tokens}` and `{result}` are filled in; it writes vLLM's
result file to `{result}`.

Exit 3 when the built-in client misses its aim at 1,000 streams: a TTFT error of at most 1.2 times the floor's, and at most twice
its CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from harness import ROOT, discard, find_binary, free_port, machine, median, require_python, say, table, work_folder

AIPERF, GUIDELLM, OHA = "aiperf==0.13.0", "guidellm==0.8.1", "oha@1.16.0"
TOKENS = 32
LEVELS = {1: 20, 10: 200, 100: 1_000, 500: 3_000, 1_000: 3_000, 2_000: 6_000}
"""Requests at each number of streams."""
SLOW = ("vllm bench serve", "AIPerf", "GuideLLM")
"""Clients in Python: fewer requests where rates are measured."""


@dataclass
class Seen:
    """What one run of a client showed."""

    ttft: float | None = None
    itl_p99: float | None = None
    cpu: float = 0.0
    memory: float = 0.0
    first: float | None = None
    server_ttft: float | None = None
    answers: int = 0
    failed: int = 0
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    trouble: str = ""

    def error(self) -> float | None:
        """Milliseconds of the mean TTFT that are not the server's."""
        if self.ttft is None or self.server_ttft is None:
            return None
        return self.ttft - self.server_ttft


class Mock:
    """The server with known times."""

    def __init__(self, binary: Path, *flags: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen([str(binary), "--port", str(self.port), *flags], stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.ask("/health")
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the mock server does not answer")

    def ask(self, path: str, post: bool = False) -> dict:
        request = urllib.request.Request(self.url + path, data=b"" if post else None)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class Job:
    """One load."""

    url: str
    streams: int
    requests: int
    tokens: int
    folder: Path
    fixed: bool = False
    """One prompt for all, where the client can."""

    @property
    def result(self) -> Path:
        return self.folder / "result.json"


@dataclass
class Client:
    """How to start a client, and where its numbers are."""

    name: str
    command: object
    read: object
    env: dict = field(default_factory=dict)


def vllm_result(job: Job) -> tuple[float, float, int]:
    data = json.loads(job.result.read_text())
    return data["mean_ttft_ms"], data["p99_itl_ms"], int(data.get("failed") or 0)


def floor(binary: Path) -> Client:
    def command(job: Job) -> list[str]:
        address = job.url.removeprefix("http://")
        return [str(binary), "--address", address, "--concurrency", str(job.streams), "--requests", str(job.requests),
                "--output-len", str(job.tokens)]

    def read(job: Job) -> tuple[float, float, int]:
        data = json.loads((job.folder / "out").read_text().strip().splitlines()[-1])
        return data["mean_ttft_ms"], data["p99_itl_ms"], 0

    return Client("floor", command, read)


def ours(binary: Path, tokenizer: Path, name: str = "vllm-bench load", *more: str) -> Client:
    def command(job: Job) -> list[str]:
        return [str(binary), "load", "--base-url", job.url, "--model", "mock", "--tokenizer", str(tokenizer),
                *(["--prompt", "x" * 100, "--output-len", str(job.tokens)] if job.fixed else
                  ["--dataset-name", "random", "--random-input-len", "32", "--random-output-len", str(job.tokens)]),
                "--ignore-eos", "--num-prompts", str(job.requests), "--max-concurrency", str(job.streams), "--num-warmups", "0",
                "--save-result",
                "--goodput", "ttft:1000", "tpot:100", "--percentile-metrics", "ttft,tpot,itl,e2el",
                "--result-dir", str(job.folder), "--result-filename", "result.json", *more]

    return Client(name, command, vllm_result)


def vllm(folder: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [str(folder / "venv/bin/vllm"), "bench", "serve", "--backend", "openai", "--base-url", job.url, "--model", "mock",
                "--tokenizer", str(folder / "models/tiny-qwen3"), "--dataset-name", "random", "--random-input-len", "32",
                "--random-output-len", str(job.tokens), "--ignore-eos", "--num-prompts", str(job.requests),
                "--max-concurrency", str(job.streams), "--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result",
                "--result-dir", str(job.folder), "--result-filename", "result.json", "--disable-tqdm"]

    return Client("vllm bench serve", command, vllm_result, {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"})


def aiperf(folder: Path, tokenizer: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [str(folder / "bin/aiperf"), "profile", "--model", "mock", "--url", job.url, "--endpoint-type", "completions",
                "--streaming", "--tokenizer", str(tokenizer), "--concurrency", str(job.streams),
                "--request-count", str(job.requests), "--synthetic-input-tokens-mean", "32",
                "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", str(job.tokens), "--output-tokens-stddev", "0",
                "--extra-inputs", "ignore_eos:true", "--num-dataset-entries", "100", "--ui", "none",
                "--artifact-dir", str(job.folder / "artifacts")]

    def read(job: Job) -> tuple[float, float, int]:
        data = json.loads(next((job.folder / "artifacts").rglob("profile_export_aiperf.json")).read_text())
        errors = sum(int(error.get("count", 0)) for error in data.get("error_summary") or [])
        gaps = data.get("inter_token_latency") or {}
        return data["time_to_first_token"]["avg"], gaps.get("p99"), errors

    # Where this variable is set at all, it does not take the path of a tokenizer.
    return Client("AIPerf", command, read, {"HF_HUB_OFFLINE": None})


def guidellm(folder: Path, tokenizer: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [str(folder / "bin/guidellm"), "run",
                "--backend", f"kind=openai_http,target={job.url},model=mock,request_format=/v1/completions",
                "--profile", f"kind=concurrent,streams={job.streams}", "--constraint", f"kind=max_requests,count={job.requests}",
                "--tokenizer", f"kind=hf_auto,model={tokenizer}",
                "--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={job.tokens}",
                "--output", f"kind=json,path={job.result}", "--disable-console"]

    def read(job: Job) -> tuple[float, float, int]:
        data = json.loads(job.result.read_text())["benchmarks"][0]["metrics"]
        good = lambda name: data[name]["successful"]
        return (good("time_to_first_token_ms")["mean"], good("inter_token_latency_ms")["percentiles"]["p99"],
                int(data["request_totals"]["errored"]))

    return Client("GuideLLM", command, read, {"HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_CONCURRENCY": "4096"})


def oha(folder: Path) -> Client:
    def command(job: Job) -> list[str]:
        body = json.dumps({"model": "mock", "prompt": "x" * 100, "max_tokens": job.tokens, "temperature": 0.0, "stream": True,
                           "stream_options": {"include_usage": True}, "ignore_eos": True})
        return [str(folder / "bin/oha"), "--no-tui", "--output-format", "json", "-n", str(job.requests), "-c", str(job.streams),
                "-m", "POST", "-T", "application/json", "-d", body, f"{job.url}/v1/completions"]

    def read(job: Job) -> tuple[None, None, int]:
        data = json.loads((job.folder / "out").read_text())
        return None, None, job.requests - int(data["statusCodeDistribution"].get("200", 0))

    return Client("oha", command, read)


def further(text: str) -> Client:
    name, found, line = text.partition("=")
    if not found:
        raise SystemExit(f"--client {text}: expected NAME=COMMAND")

    def command(job: Job) -> list[str]:
        filled = {"url": job.url, "streams": job.streams, "requests": job.requests, "tokens": job.tokens, "result": job.result}
        return [word.format(**filled) for word in shlex.split(line)]

    return Client(name, command, vllm_result)


class Watch(threading.Thread):
    """Peak resident memory of a process and all below it."""

    def __init__(self, pid: int, every: float = 0.05):
        super().__init__(daemon=True)
        self.pid, self.every, self.peak, self.single, self.over = pid, every, 0, True, threading.Event()

    def run(self) -> None:
        while not self.over.wait(self.every if self.single else 0.2):
            family = self.family()
            self.single = len(family) == 1
            self.peak = max([self.peak, sum(self.resident(pid) for pid in family), *map(self.highest, family)])

    def family(self) -> list[int]:
        found, new = [self.pid], [self.pid]
        while new:
            pid = new.pop()
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
                    below = [int(child) for child in children if int(child) not in found]
                    found += below
                    new += below
            except OSError:
                pass
        return found

    @staticmethod
    def highest(pid: int) -> int:
        """The kernel's own peak of a process. (wait4's counts the memory of whoever forked it.)"""
        try:
            line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        except (OSError, StopIteration, IndexError, ValueError):
            return 0

    @staticmethod
    def resident(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0


def measure(client: Client, job: Job, mock: Mock, limit: float) -> Seen:
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    mock.ask("/lateness/reset", post=True)
    seen = Seen()
    with open(job.folder / "out", "wb") as out, open(job.folder / "err", "wb") as err:
        began = time.time_ns()
        env = {name: value for name, value in {**os.environ, **client.env}.items() if value is not None}
        process = subprocess.Popen(client.command(job), stdout=out, stderr=err, env=env,
                                   start_new_session=True, cwd=job.folder)
        watch = Watch(process.pid)
        watch.start()
        timer = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        watch.over.set()
        watch.join()
    server = mock.ask("/lateness")
    seen.cpu = usage.ru_utime + usage.ru_stime
    seen.memory = watch.peak / 1e6
    seen.answers = server["answers"]
    if server["requests"]:
        seen.first = (server["first_request_unix_ns"] - began) / 1e9
        span = (server["last_answer_unix_ns"] - server["first_request_unix_ns"]) / 1e9
        if span > 0:
            seen.requests_per_s, seen.tokens_per_s = server["answers"] / span, server["tokens"] / span
    seen.server_ttft = 50.0 + (server["first"] or {}).get("mean_ms", 0.0)
    try:
        seen.ttft, seen.itl_p99, seen.failed = client.read(job)
    except (OSError, ValueError, KeyError, IndexError, StopIteration, TypeError) as error:
        tail = (job.folder / "err").read_text(errors="replace").strip().splitlines()[-1:]
        seen.trouble = f"exit {process.returncode}, no result ({type(error).__name__}: {error}) {tail}"
    return seen


def install(peers: Path, wanted: list[str]) -> dict[str, Path]:
    """Folders of the peers, by name; those that cannot be installed are named and left out."""
    peers.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, package in (("AIPerf", AIPERF), ("GuideLLM", GUIDELLM)):
        if name not in wanted:
            continue
        folder = peers / package.replace("==", "-")
        if not (folder / "ready").exists():
            say(f"installing {package}")
            shutil.rmtree(folder, ignore_errors=True)
            done = subprocess.run([sys.executable, "-m", "venv", str(folder)]).returncode == 0 and subprocess.run(
                [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", package]).returncode == 0
            if not done:
                say(f"{package} cannot be installed: left out")
                continue
            (folder / "ready").touch()
        found[name] = folder
    if "oha" in wanted:
        folder = peers / OHA.replace("@", "-")
        if not (folder / "bin/oha").exists():
            say(f"installing {OHA}")
            subprocess.run(["cargo", "install", "-q", "--locked", OHA, "--root", str(folder), "--no-default-features",
                            "--features", "rustls"])
        if (folder / "bin/oha").exists():
            found["oha"] = folder
    return found


def show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def middle(runs: list[Seen], what) -> float | None:
    values = [value for value in (what(run) for run in runs) if value is not None]
    return median(values) if values else None


def accuracy(clients: list[Client], levels: list[int], repeats: dict[str, int], mock_binary: Path, folder: Path, limit: float):
    """Every client at every number of streams, in turn; returns the runs by client and level."""
    runs: dict[tuple[str, int], list[Seen]] = {}
    mock = Mock(mock_binary, "--ttft-ms", "50", "--itl-ms", "10")
    try:
        for level in levels:
            for client in clients:
                for turn in range(repeats.get(client.name, repeats["*"])):
                    job = Job(mock.url, level, LEVELS.get(level, 3 * level), TOKENS, folder / "job")
                    seen = measure(client, job, mock, limit)
                    runs.setdefault((client.name, level), []).append(seen)
                    note = f" {seen.trouble}" if seen.trouble else f", {seen.failed} failed" if seen.failed else ""
                    say(f"  {level:>5} streams, {client.name} ({turn + 1}): TTFT {show(seen.ttft)} ms of which the server's "
                        f"{show(seen.server_ttft)}, ITL p99 {show(seen.itl_p99)}, CPU {seen.cpu:.2f} s, "
                        f"{seen.memory:.0f} MB{note}")
    finally:
        mock.end()
    return runs


def rates(clients: list[Client], mock_binary: Path, folder: Path, limit: float) -> list[list[object]]:
    """The highest rates: one-token requests, and streamed tokens, from both kinds of server."""
    rows = []
    for client in clients:
        row: list[object] = [client.name]
        for flags in (["--ttft-ms", "0", "--itl-ms", "0"], ["--canned"]):
            mock = Mock(mock_binary, *flags)
            try:
                slow = client.name in SLOW
                best = []
                streamed = 20_000 if "--canned" in flags else 3_000
                for tokens, fast_count, slow_count in ((1, 60_000, 5_000), (512, streamed, 500)):
                    job = Job(mock.url, 64, slow_count if slow else fast_count, tokens, folder / "job", fixed=True)
                    tries = [measure(client, job, mock, limit) for _ in range(1 if slow else 3)]
                    rate = max(seen.requests_per_s if tokens == 1 else seen.tokens_per_s for seen in tries)
                    best.append(f"{rate:,.0f}" + (" (!)" if any(seen.trouble for seen in tries) else ""))
                row += best
                say(f"  {client.name}, {' '.join(flags)}: {best[0]} requests/s, {best[1]} tokens/s")
            finally:
                mock.end()
        rows.append(row)
    return rows


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--streams", default="1,10,100,500,1000,2000", help="numbers of streams")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each client at each number; medians are shown")
    parser.add_argument("--slow-repeats", type=int, default=1, help="the same for clients in Python")
    parser.add_argument("--only", action="append", help="only this client (may be repeated); the floor is always there")
    parser.add_argument("--client", action="append", default=[], metavar="NAME=COMMAND", help="a further client")
    parser.add_argument("--peers", type=Path, help="where peers are installed")
    parser.add_argument("--real", type=Path, help="folder of tests/real_vllm/setup.sh")
    parser.add_argument("--no-rates", action="store_true", help="leave out the highest rates")
    parser.add_argument("--limit", type=float, default=300, help="seconds that one run may take")
    parser.add_argument("--json", type=Path, help="also write all runs here")
    args = parser.parse_args()
    binary = find_binary(args.binary)
    examples = ROOT / "target/release/examples"
    if not (examples / "mock_server").exists():
        raise SystemExit("build the server and the floor first: cargo build --release --examples")
    setup = ROOT / "tests/real_vllm/setup.sh"
    real = args.real or Path(subprocess.run([str(setup), "--where"], capture_output=True, text=True, check=True).stdout.strip())
    if not (real / "stamp").exists():
        subprocess.run([str(setup), str(real)], check=True)
    tokenizer = real / "models/tiny-qwen3"
    names = ["vllm-bench load", "vllm bench serve", "AIPerf", "GuideLLM", "oha"]
    wanted = [name for name in names if not args.only or name in args.only]
    peers = args.peers or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-bench/peers"
    at = install(peers, wanted)
    clients = [floor(examples / "raw_reader")]
    if "vllm-bench load" in wanted:
        clients += [ours(binary, tokenizer), ours(binary, tokenizer, "vllm-bench load (read)", "--arrival-clock", "read")]
    if "vllm bench serve" in wanted:
        clients.append(vllm(real))
    if "AIPerf" in at:
        clients.append(aiperf(at["AIPerf"], tokenizer))
    if "GuideLLM" in at:
        clients.append(guidellm(at["GuideLLM"], tokenizer))
    clients += [further(text) for text in args.client]
    folder = work_folder("clients")
    levels = [int(level) for level in args.streams.split(",")]
    repeats = {"*": args.repeats, **{name: args.slow_repeats for name in SLOW}}
    say(machine())
    runs = accuracy(clients, levels, repeats, examples / "mock_server", folder, args.limit)
    head = ["client", *(f"{level:,}" for level in levels)]
    known = [client.name for client in clients]

    def matrix(title: str, digits: int, what) -> None:
        say(f"\n{title}")
        say(table(head, [[name, *(show(middle(runs[name, level], what), digits) for level in levels)] for name in known]))

    matrix("mean TTFT in ms, by streams", 1, lambda run: run.ttft)
    matrix("of it the server's own, in ms", 1, lambda run: run.server_ttft)
    matrix("TTFT error in ms: what is not the server's", 2, lambda run: run.error())
    matrix("ITL p99 in ms (10.0 asked for)", 1, lambda run: run.itl_p99)
    matrix("CPU seconds", 2, lambda run: run.cpu)
    matrix("peak memory in MB", 0, lambda run: run.memory)
    matrix("seconds from its launch to its first request", 2, lambda run: run.first)
    rows = []
    if not args.no_rates:
        clients += [oha(at["oha"])] if "oha" in at else []
        rows = rates(clients, examples / "mock_server", folder, args.limit)
        say("\nhighest rates (64 streams): requests of one token per second, streamed tokens per second")
        say(table(["client", "requests/s", "tokens/s", "canned requests/s", "canned tokens/s"], rows))
    if args.json:
        plain = [{"client": name, "streams": level, **vars(run)} for (name, level), found in runs.items() for run in found]
        args.json.write_text(json.dumps({"machine": machine(), "accuracy": plain, "rates": rows}, indent=1) + "\n")
    discard(folder)
    missed = []
    if 1000 in levels and "vllm-bench load" in wanted:
        mine, least = runs["vllm-bench load", 1000], runs["floor", 1000]
        error = lambda found: middle(found, lambda run: run.error()) or 0.0
        cpu = lambda found: middle(found, lambda run: run.cpu) or 0.0
        # An error within a millisecond of none is none: signs differ by the clock.
        if error(mine) > max(1.2 * error(least), 1.0):
            missed.append(f"TTFT error {error(mine):.2f} ms at 1,000 streams, the floor's {error(least):.2f} ms")
        if cpu(mine) > 2 * cpu(least):
            missed.append(f"{cpu(mine):.2f} CPU seconds at 1,000 streams, the floor {cpu(least):.2f}")
    for line in missed:
        say(f"MISSED: {line}")
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

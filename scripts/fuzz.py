#!/usr/bin/env python3
"""Mutated files and streams for every reader: no panic, no hang, no unbounded memory, no exit 0 that hides a failure.

A run directory with one valid and one failed experiment, result files of five programs (vllm-bench, vLLM's client, vLLM's sweep,
SGLang, the Python predecessor) and of load generators (requests one by one), sweep files, the lock of a results directory, and SSE
streams of a mock server. The seed fixes every mutation: `--only K` repeats one. Exit 1 when any of them was not held; its input is
kept then.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 3 << 30  # address space of a call; a debug build maps much of it
PATIENCE = 60.0  # seconds; the machine may be busy
PANIC, BUG = 101, 70
NUMBERS = ["-1", "0", "1e308", "-1e308", "18446744073709551615", "18446744073709551616", "1e-9", "NaN", "Infinity", "1e999", "0.5", "-0.0"]
WORDS = ["", "../../evil", "/dev/zero", "\u6f22\u5b57 \u00e9\u0301", "\x1b[2J", "x" * 5000, "null", "true", "{}", "[", "\\", "'\"", "inf", "_run2"]


# Mutations

def of_bytes(pick: random.Random, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(pick.choice([1, 1, 1, 2, 5])):
        at = pick.randrange(len(data) + 1)
        end = min(len(data), at + pick.choice([1, 2, 8, 64, 1024]))
        match pick.randrange(7):
            case 0:
                for i in range(at, end):
                    data[i] ^= 1 << pick.randrange(8)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * pick.choice([1, 2, 50])
            case 3:
                data[at:at] = pick.randbytes(pick.choice([1, 4, 64]))
            case 4:
                del data[at:]
            case 5:
                data[at:end] = b"\0" * (end - at)
            case 6:
                data[at:at] = pick.choice([b"\r\n", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"]", b"\"", b"[" * 2000, b":" * 100, b","])
    return bytes(data)


def of_text(pick: random.Random, data: bytes) -> bytes:
    """Another number or word in the place of one."""
    text = data.decode("utf-8", "replace")
    kind = pick.choice([r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", r"\"[^\"\\]*\"", r"\b[A-Za-z_][\w.-]*\b"])
    found = list(re.finditer(kind, text))
    if not found:
        return of_bytes(pick, data)
    one = pick.choice(found)
    new = pick.choice(NUMBERS) if kind.startswith("-") else pick.choice(WORDS)
    if kind.startswith('\\"'):
        new = json.dumps(new)
    return (text[: one.start()] + new + text[one.end() :]).encode("utf-8", "surrogatepass")


def of_structure(pick: random.Random, data: bytes) -> bytes:
    """A value of a JSON document gone, doubled or of another kind."""
    try:
        whole = json.loads(data)
    except ValueError:
        return of_text(pick, data)
    places: list[tuple] = []

    def walk(value, depth=0):
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(items)[:200]:
            places.append((value, key))
            if depth < 8:
                walk(inner, depth + 1)

    walk(whole)
    if not places:
        return of_bytes(pick, data)
    holder, key = pick.choice(places)
    new = pick.choice([None, True, -1, 0, 1e308, -25.0, 2**64, "", "x" * 3000, [], {}, [[]], {"a": 1}, [1] * 300, "NaN", "../../evil"])
    match pick.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(pick.randrange(len(holder) + 1), holder[key])
        case _:
            holder[key] = new
    return json.dumps(whole, indent=pick.choice([None, 2]), allow_nan=True).encode()


def mutated(pick: random.Random, data: bytes) -> bytes:
    return pick.choice([of_bytes, of_text, of_structure, of_structure])(pick, data)


def put(pick: random.Random, path: Path, data: bytes, odd: float = 0.08) -> str:
    """Writes a mutation; now and then something that is no regular file. Says which."""
    if path.is_symlink() or path.exists():
        path.unlink()
    if pick.random() >= odd:
        path.write_bytes(mutated(pick, data))
        return "content"
    kind = pick.choice(["fifo", "folder", "zero", "hole", "empty", "gone", "loop", "socket"])
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "zero":
            path.symlink_to("/dev/zero")
        case "hole":
            with path.open("wb") as file:
                file.truncate(100 << 30)
        case "empty":
            path.write_bytes(b"")
        case "loop":
            path.symlink_to(path)
        case "socket":
            here = os.getcwd()  # a socket's path is at most 107 bytes
            listener = socket.socket(socket.AF_UNIX)
            try:
                listener.bind(f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY)}/s")
                (path.parent / "s").rename(path)
            except OSError:
                path.write_bytes(b"")
            finally:
                listener.close()
                os.chdir(here)
    return kind


# Calls

class Call:
    def __init__(self, code: int, seconds: float, out: bytes, err: bytes):
        self.code, self.seconds, self.out, self.err = code, seconds, out, err

    def wrong(self) -> str | None:
        if self.code is None:
            return f"no end within {PATIENCE:.0f} s"
        if self.code in (PANIC, BUG, 134, 139) or self.code < 0 or b"panicked at" in self.err:
            return f"exit {self.code}: {self.err[-300:].decode(errors='replace')}"
        return None


def call(binary: Path, folder: Path, *words: str) -> Call:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_COLOR": "1", "VLLM_BENCH_SIM_SPEED": "inf"}
    began = time.monotonic()
    process = subprocess.Popen(
        [str(binary), *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)), start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=PATIENCE)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        code = None
    return Call(code, time.monotonic() - began, out, err)


# Seeds

def vllm_result(**more) -> dict:
    return {
        "date": "20261122-061239", "endpoint_type": "openai", "backend": "openai", "label": None, "model_id": "org/m",
        "tokenizer_id": "org/m", "num_prompts": 10, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 4,
        "duration": 4.0, "completed": 10, "failed": 0, "total_input_tokens": 320, "total_output_tokens": 640,
        "request_throughput": 2.5, "request_goodput": None, "output_throughput": 160.0, "total_token_throughput": 240.0,
        "mean_ttft_ms": 85.0, "median_ttft_ms": 80.0, "std_ttft_ms": 3.0, "p99_ttft_ms": 120.0, "mean_tpot_ms": 20.0,
        "median_tpot_ms": 20.0, "std_tpot_ms": 0.4, "p99_tpot_ms": 25.0, "mean_itl_ms": 20.0, "median_itl_ms": 20.0,
        "std_itl_ms": 1.0, "p99_itl_ms": 26.0, **more,
    }  # fmt: skip


ARRAYS = {
    "input_lens": [32] * 10, "output_lens": [64] * 10, "ttfts": [0.08] * 10, "itls": [[0.02] * 63] * 10,
    "generated_texts": ["x"] * 10, "errors": [""] * 10, "start_times": [float(i) for i in range(10)],
}  # fmt: skip
SGLANG = {
    "backend": "sglang", "dataset_name": "random", "request_rate": 4.0, "max_concurrency": None, "total_input_tokens": 615860,
    "total_output_tokens": 607936, "mean_e2e_latency_ms": 12896.3, "median_e2e_latency_ms": 12534.8, "median_ttft_ms": 106.06,
    "median_itl_ms": 19.41, "output_throughput": 2047.91, "random_input_len": 1024, "duration": 296.85, "completed": 1200,
}  # fmt: skip
CSV = (
    "run_id,qid,prefill_tokens,max_new_tokens,ttft_ms,latency_ms,prompt_tokens,completion_tokens,error,timestamp,start_s,end_s\n"
    + "".join(f"a,{i},64,8,{10 + i},{100 + i},64,8,,t,{i / 10},{i / 10 + 0.1}\n" for i in range(8))
)


def results() -> dict[str, dict[str, bytes]]:
    """Files of each program, by the name of the case."""
    text = lambda value: json.dumps(value).encode()  # noqa: E731
    runs = [vllm_result(run_number=i, max_num_seqs=seqs) for seqs in (8, 16) for i in (0, 1)]
    return {
        "vllm": {"a.json": text(vllm_result()), "b.json": text(vllm_result(**ARRAYS, date="20261122-061240", duration=4.1))},
        "jsonl": {"all.jsonl": b"\n".join(text(vllm_result(mean_ttft_ms=80.0 + i)) for i in range(3))},
        "sweep": {"x/summary.json": text(runs[:2]), "x/run=0.json": text(runs[0]), "y/run=0.json": text(runs[2])},
        "sglang": {"online.jsonl": text(SGLANG) + b"\n" + text({**SGLANG, "request_rate": 8.0}) + b"\n"},
        "predecessor": {
            "20260101_1000/org_m_tp2_quant-none_eager-true_results.json": text(vllm_result()),
            "20260101_1000/org_m_tp4_quant-fp8_eager-true_results.json": text(vllm_result(failed=1, completed=9)),
        },
        "requests": {"a.csv": CSV.encode(), "a_all_runs.csv": CSV.encode()},
    }


class Seeds:
    """What is mutated: made once."""

    def __init__(self, binary: Path, folder: Path):
        self.results = results()
        self.sweeps = [path for kind in ("examples", "odd", "broken") for path in sorted((ROOT / "tests/sweeps" / kind).iterdir())]
        self.sweeps = [path for path in self.sweeps if path.is_file()]
        place = folder / "seed"
        place.mkdir()
        made = call(
            binary, place, "run", "--engine", "sim", "--sim-speed", "inf", "--port", "auto", "--models", "org/tiny", "--tp", "1",
            "--quantization", "none", "--enforce-eager", "true", "false", "--input-len", "8", "--output-len", "8", "--num-prompts",
            "4", "--concurrency", "2", "--retry", "none", "--keep-foreign", "--results-dir", "results",
            "--sim-fault", "network@eager=false",
        )  # fmt: skip
        if made.code != 1:
            sys.exit(f"the seed run ended with {made.code}:\n{made.err.decode(errors='replace')}")
        self.run = next(path for path in (place / "results").iterdir() if path.is_dir())
        self.files = sorted(path.name for path in self.run.iterdir() if path.suffix in (".json", ".jsonl") and path.name != "raw_results.json")


# Cases: each says what was done, and what was wrong with it

def case_run(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    run = folder / "results" / seeds.run.name
    shutil.copytree(seeds.run, run)
    shutil.copy(seeds.run.parent / ".vllm-bench.lock", run.parent / ".vllm-bench.lock")
    name = pick.choice(seeds.files)
    kind = put(pick, run / name, (seeds.run / name).read_bytes())
    pristine = str(seeds.run)
    words = pick.choice([
        ["analyze", "results"], ["analyze", "results"], ["analyze", "results", "--format", "json"],
        ["status", "--results-dir", "results", "--json"], ["report", "--results-dir", "results", "--output", "-"],
        ["recommend", "--results-dir", "results"], ["plot", "ranking", "--results-dir", "results", "--output", "x.svg"],
        ["compare", pristine, str(run)], ["logs", "--no-follow", "--results-dir", "results"], ["backup", "--results-dir", "results"],
        ["plan", str(run / name), "--no-preflight"],
    ])  # fmt: skip
    done = call(binary, folder, *words)
    wrong = done.wrong()
    if wrong is None and words[0] == "analyze" and done.code == 0:
        wrong = "exit 0, and one of two experiments has no valid result"
    return f"{words[0]} of a run: {name} ({kind})", wrong


def case_result(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    program = pick.choice(sorted(seeds.results))
    files = seeds.results[program]
    for name, data in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    name = pick.choice(sorted(files))
    kind = put(pick, folder / "in" / name, files[name])
    words = pick.choice([
        ["analyze", "in", "--format", "json"], ["analyze", "in", "--detail", "--format", "json"],
        ["analyze", f"in/{name}"], ["recommend", "in"], ["plot", "pareto", "in", "--output", "x.svg"],
        ["report", "in", "--output", "-"],
    ])  # fmt: skip
    done = call(binary, folder, *words)
    wrong = done.wrong()
    if wrong is None and done.code == 0 and "json" in words:
        rows = json.loads(done.out).get("rows", [])
        bad = [row.get("name") for row in rows if row.get("status") not in ("valid", "skipped")]
        wrong = f"exit 0 with rows that are not valid: {bad}" if bad else None
    return f"{words[0]} of {program}: {name} ({kind})", wrong


def case_sweep(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    path = pick.choice(seeds.sweeps)
    kind = put(pick, folder / path.name, path.read_bytes())
    done = call(binary, folder, *pick.choice([["plan", path.name, "--no-preflight"], ["config", "show", path.name], ["run", path.name, "--dry-run", "--engine", "sim"]]))
    return f"sweep file {path.name} ({kind})", done.wrong()


def case_lock(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    results = folder / "results"
    results.mkdir()
    kind = put(pick, results / ".vllm-bench.lock", (seeds.run.parent / ".vllm-bench.lock").read_bytes(), odd=0.3)
    done = call(binary, folder, *pick.choice([["status", "--results-dir", "results"], ["clean", "--dry-run", "--results-dir", "results"]]))
    return f"lock ({kind})", done.wrong()


def case_group(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    """A record of a live group. Its processes never lived: their start times are those of no process."""
    groups = Path(f"/tmp/vllm-bench-{os.geteuid()}/groups")
    process = {"pid": 4_000_000, "start-time": 1}
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {
        "boot-id": boot, "pid-namespace": os.readlink("/proc/self/ns/pid"), "token": f"fuzz-{folder.name}", "orchestrator": process,
        "guard": process, "leader": process, "owner": {"run": str(folder), "experiment": "x", "role": "server", "port": 1},
    }  # fmt: skip
    if not groups.is_dir():
        return "no registry here", None
    path = groups / f"fuzz-{os.getpid()}-{folder.name}.json"
    try:
        kind = put(pick, path, json.dumps(record).encode(), odd=0.3)
        done = call(binary, folder, "status", "--results-dir", "results")
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    return f"record of a group ({kind})", done.wrong()


def case_sse(pick: random.Random, seeds: Seeds, binary: Path, folder: Path) -> tuple[str, str | None]:
    with Mock(pick.randrange(1 << 60)) as mock:
        done = call(
            binary, folder, "load", "--base-url", f"http://127.0.0.1:{mock.port}", "--model", "org/m", "--num-prompts", "3",
            "--max-concurrency", "2", "--prompt", "hello", "--output-len", "8", "--stall-timeout", "2s", "--request-timeout", "5s",
            "--total-timeout", "20s", "--num-warmups", "0", "--save-result", "--result-filename", "r.json",
            *pick.choice([[], ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]]),
        )  # fmt: skip
    wrong = done.wrong()
    if wrong is None and done.code == 0:
        result = json.loads((folder / "r.json").read_text())
        if result.get("completed") != 3 or not result.get("total_output_tokens"):
            wrong = f"exit 0 with {result.get('completed')} of 3 completed, {result.get('total_output_tokens')} tokens"
    return "SSE stream", wrong


class Mock:
    """A server whose streams are mutated, each in its own way."""

    def __init__(self, seed: int):
        self.pick = random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = True

    def __enter__(self) -> Mock:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.open = False
        self.listener.close()

    def serve(self) -> None:
        while self.open:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(stream, self.pick.randrange(1 << 60)), daemon=True).start()

    def answer(self, stream: socket.socket, seed: int) -> None:
        pick = random.Random(seed)
        stream.settimeout(10)
        try:
            with stream:
                while self.open:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        got = stream.recv(65536)
                        if not got:
                            return
                        head += got
                    head, body = head.split(b"\r\n\r\n", 1)
                    length = re.search(rb"content-length: (\d+)", head, re.I)
                    while length and len(body) < int(length[1]):
                        body += stream.recv(65536)
                    if not self.reply(stream, head.split(b" ")[1].decode(), pick):
                        return
        except OSError:
            pass

    def reply(self, stream: socket.socket, path: str, pick: random.Random) -> bool:
        if "completions" not in path:
            data = json.dumps({"data": [{"id": "org/m", "object": "model"}]}).encode() if path.endswith("/models") else b"{}"
            data = mutated(pick, data) if pick.random() < 0.2 else data
            stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
            return True
        delta = (lambda text: {"delta": {"content": text}}) if "chat" in path else (lambda text: {"text": text})
        events = [{"id": "c", "choices": [{"index": 0, **delta(f" w{i}"), "finish_reason": None}]} for i in range(8)]
        events[-1]["choices"][0]["finish_reason"] = "length"
        events.append({"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13}})
        lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]
        mode = pick.randrange(6)
        if mode == 0:
            at = pick.randrange(len(lines))
            lines[at] = mutated(pick, lines[at][6:-2]).join([b"data: ", b"\n\n"])
        data = b"".join(lines)
        if mode == 1:
            data = of_bytes(pick, data)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        if mode == 2:
            head = of_bytes(pick, head)
        sent, at = bytearray(), 0
        while at < len(data):
            end = at + pick.choice([1, 7, 40, 400, 4000])
            piece = data[at:end]
            sent += b"%x\r\n" % len(piece) + piece + b"\r\n"
            at = end
        sent += b"0\r\n\r\n"
        sent = bytes(sent)
        if mode == 3:
            sent = of_bytes(pick, sent)
        stream.sendall(head + sent)
        if mode == 4:
            stream.sendall(b"data: more\n\n" * pick.choice([1, 1000]))
            return False
        return mode == 5 or pick.random() < 0.5


CASES = [(case_run, 35), (case_result, 35), (case_sweep, 20), (case_lock, 3), (case_group, 2), (case_sse, 5)]


def one(number: int, args, seeds: Seeds, place: Path) -> tuple[str, str | None, Path]:
    pick = random.Random(f"{args.seed}/{number}")
    case = pick.choices([case for case, _ in CASES], [weight for _, weight in CASES])[0]
    folder = place / str(number)
    folder.mkdir()
    try:
        what, wrong = case(pick, seeds, args.binary, folder)
    except Exception as error:  # noqa: BLE001: a fault of this script is told like any other
        what, wrong = case.__name__, f"the script failed: {error!r}"
    if wrong is None:
        shutil.rmtree(folder, ignore_errors=True)
    return what, wrong, folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--only", type=int, help="repeat this mutation alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/vllm-bench")
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    place = Path(tempfile.mkdtemp(prefix="vb-fuzz-"))
    began = time.monotonic()
    seeds = Seeds(args.binary, place)
    numbers = [args.only] if args.only is not None else range(args.mutations)
    seen: collections.Counter[str] = collections.Counter()
    violations = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for number, (what, wrong, folder) in zip(numbers, pool.map(lambda number: one(number, args, seeds, place), numbers)):
            seen[re.sub(r":.*| [\w.-]+ \(.*|\(.*", "", what).strip()] += 1
            if wrong is not None:
                violations += 1
                print(f"{number}: {what}: {wrong}\n    kept in {folder}; again: --seed {args.seed} --only {number}", flush=True)
    for what, count in sorted(seen.items()):
        print(f"{count:6}  {what}")
    print(f"{sum(seen.values())} mutations, {violations} violations, {time.monotonic() - began:.0f} s")
    if violations == 0:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

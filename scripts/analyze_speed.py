#!/usr/bin/env python3
"""How fast `vllm-bench analyze` reads many results, and in how much memory.

Result files are made from a seed: plain ones as `vllm bench serve` writes them, ones with the times of every request
(`--save-detailed`, about 0.75 MB each), and among them broken, truncated, foreign, empty and huge ones and a named pipe, each of
which must be named. Beside it: `json.load` over the same files in Python, as the floor for any program that parses them whole,
and the analysis of the Python predecessor, where its `analyze_results.py` is given with `--predecessor FILE`. Times are the best
of `--rounds`, peak memory is the kernel's metric for the child. Exit 3 when an aim is missed: at least 8 times as fast as the
predecessor on 10,000 files, 30 times on 1,000 detailed ones in less than 100 MB, and 100,000 rows in less than `--most` MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from harness import discard, find_binary, machine, require_python, say, table, work_folder

FLOOR = "import json,sys,pathlib\nfor p in sorted(pathlib.Path(sys.argv[1]).glob('*_results.json')):\n" \
        "    try: json.load(open(p))\n    except Exception: pass\n"
AIM_MISSED = 3


def plain(rng: random.Random, model: str, requests: int) -> dict:
    """What `vllm bench serve` 0.14.1 writes."""
    rate = rng.uniform(1, 50)
    result = {
        "date": "20260101-120000", "endpoint_type": "openai", "backend": "openai", "label": None, "model_id": model,
        "tokenizer_id": model, "num_prompts": requests, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 32,
        "duration": requests / rate, "completed": requests, "failed": 0, "total_input_tokens": requests * 1024,
        "total_output_tokens": requests * 128, "request_throughput": rate, "request_goodput": None,
        "output_throughput": rate * 128, "total_token_throughput": rate * 1152, "max_output_tokens_per_s": rate * 150,
        "max_concurrent_requests": 40,
    }
    for name in ("ttft", "tpot", "itl"):
        mean = rng.uniform(5, 200)
        for statistic, factor in (("mean", 1.0), ("median", 0.97), ("std", 0.2), ("p99", 1.7)):
            result[f"{statistic}_{name}_ms"] = mean * factor
    return result


def detailed(rng: random.Random, model: str) -> dict:
    """The same with the arrays of `--save-detailed`: 256 requests of 128 tokens."""
    requests = 256
    result = plain(rng, model, requests)
    result |= {
        "input_lens": [1024] * requests, "output_lens": [128] * requests,
        "ttfts": [rng.random() for _ in range(requests)],
        "itls": [[rng.random() / 20 for _ in range(127)] for _ in range(requests)],
        "start_times": [1000 + rng.random() for _ in range(requests)],
        "generated_texts": ["".join(rng.choices("abcdefgh \"{}[]\\\n", k=60)) for _ in range(requests)],
        "errors": [""] * requests,
    }
    return result


def names(count: int):
    """Names as the predecessor gives them."""
    for number in range(count):
        model, rest = divmod(number, 24)
        size, rest = divmod(rest, 6)
        quantization, eager = divmod(rest, 2)
        yield (f"org/model-{model}",
               f"org_model-{model}_tp{2 ** size}_quant-{('none', 'fp8', 'int8')[quantization]}_eager-{('true', 'false')[eager]}")


def make(folder: Path, count: int, of, seed: int) -> None:
    folder.mkdir()
    rng = random.Random(seed)
    for model, name in names(count):
        (folder / f"{name}_results.json").write_text(json.dumps(of(rng, model)))


def make_bad(folder: Path) -> dict[str, str]:
    """Files that are no results, each with a word of the reason that must be told."""
    good = json.dumps(plain(random.Random(1), "org/bad", 16))
    bad = {
        "cut": (good[: len(good) // 2].encode(), "cut off"),
        "empty": (b"", "empty"),
        "zeros": (good[:200].encode() + b"\0" * 4096, "not JSON"),
        "binary": (b"\xff\xfe\x00\x01", "not text"),
        "trailing": (good.encode() + b"}", "not JSON"),
        "list": (b"[1, 2, 3]", "not a JSON object"),
        "foreign": (b'{"hello": "world"}', "no `completed`"),
        "deep": (b'{"a": ' + b"[" * 200_000, "cut off"),
    }
    expected = {}
    for name, (content, reason) in bad.items():
        path = folder / f"zz-{name}_tp1_quant-none_eager-true_results.json"
        path.write_bytes(content)
        expected[path.name] = reason
    huge = folder / "zz-huge_tp1_quant-none_eager-true_results.json"
    with open(huge, "wb") as file:
        file.truncate((1 << 30) + 1)
    expected[huge.name] = "larger than"
    pipe = folder / "zz-pipe_tp1_quant-none_eager-true_results.json"
    os.mkfifo(pipe)
    expected[pipe.name] = "not a regular file"
    return expected


def measured(command: list[str], rounds: int, before=lambda: None) -> tuple[float, float, int, bytes]:
    """Best seconds, most megabytes, exit code and output of a command."""
    best, peak, code, out = float("inf"), 0.0, 0, b""
    for _ in range(rounds):
        before()
        reading, writing = os.pipe()
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=writing, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"})
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            out = pipe.read()
        _, status, usage = os.wait4(process.pid, 0)
        best = min(best, time.monotonic() - began)
        peak = max(peak, usage.ru_maxrss / 1e3)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    return best, peak, code, out


def tidy(folder: Path) -> None:
    """Removes reports: the predecessor takes its own for a result the second time, and dies of it."""
    for name in ("raw_results.json", "detailed_analysis.txt", "results_summary.csv", "summary.txt"):
        (folder / name).unlink(missing_ok=True)


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--predecessor", type=Path, help="the predecessor's analyze_results.py")
    parser.add_argument("--plain", type=int, default=10_000, help="plain result files")
    parser.add_argument("--detailed", type=int, default=1_000, help="files with the times of every request")
    parser.add_argument("--rows", type=int, default=100_000, help="results in one JSONL file")
    parser.add_argument("--most", type=float, default=600.0, help="MB that the rows may take")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=20261126)
    arguments = parser.parse_args()
    binary = find_binary(arguments.binary)
    work = work_folder("analyze-speed")
    wrong: list[str] = []
    lines = []
    say(machine())

    def compare(what: str, folder: Path, aim: float, most: float | None) -> None:
        ours = measured([str(binary), "analyze", str(folder)], arguments.rounds, lambda: tidy(folder))
        size = sum(path.stat().st_size for path in folder.glob("raw_results.json")) / 1e6
        if ours[2] != 0:
            wrong.append(f"{what}: exit {ours[2]}, expected 0: {ours[3][-500:].decode(errors='replace')}")
        lines.append([what, "vllm-bench", f"{ours[0]:.3f} s", f"{ours[1]:.0f} MB", f"{size:.0f} MB", ""])
        tidy(folder)
        floor = measured([sys.executable, "-c", FLOOR, str(folder)], 1)
        lines.append(["", "json.load", f"{floor[0]:.3f} s", f"{floor[1]:.0f} MB", "", f"{floor[0] / ours[0]:.1f} x"])
        if arguments.predecessor:
            command = [sys.executable, str(arguments.predecessor.resolve()), "--results-dir", str(folder)]
            theirs = measured(command, 1 if aim > 10 else arguments.rounds, lambda: tidy(folder))
            size = sum(path.stat().st_size for path in folder.glob("raw_results.json")) / 1e6
            ratio = theirs[0] / ours[0]
            lines.append(["", "predecessor", f"{theirs[0]:.3f} s", f"{theirs[1]:.0f} MB", f"{size:.0f} MB", f"{ratio:.1f} x"])
            if ratio < aim:
                wrong.append(f"{what}: {ratio:.1f} times as fast as the predecessor, the aim is {aim:.0f}")
            tidy(folder)
        if most is not None and ours[1] > most:
            wrong.append(f"{what}: {ours[1]:.0f} MB, the aim is {most:.0f}")

    folder = work / "plain"
    make(folder, arguments.plain, lambda rng, model: plain(rng, model, 160), arguments.seed)
    compare(f"{arguments.plain} results", folder, 8, None)

    expected = make_bad(folder)
    seconds, peak, code, out = measured([str(binary), "analyze", str(folder)], 1)
    text = " ".join(out.decode(errors="replace").split())
    lines.append([f"with {len(expected)} bad files", "vllm-bench", f"{seconds:.3f} s", f"{peak:.0f} MB", "", ""])
    if code != 1:
        wrong.append(f"bad files among the good: exit {code}, expected 1")
    for name, reason in expected.items():
        at = text.find(name)
        if at < 0 or reason not in text[at : at + 300]:
            wrong.append(f"bad files among the good: `{name}` is not named with `{reason}`")
    shutil.rmtree(folder)

    folder = work / "detailed"
    make(folder, arguments.detailed, detailed, arguments.seed)
    compare(f"{arguments.detailed} detailed results", folder, 30, 100)
    shutil.rmtree(folder)

    rows = work / "rows" / "rows.jsonl"
    rows.parent.mkdir()
    rng = random.Random(arguments.seed)
    with open(rows, "w") as file:
        for number in range(arguments.rows):
            result = plain(rng, f"org/model-{number % 50}", 160) | {"max_concurrency": 2 ** (number % 8)}
            file.write(json.dumps(result) + "\n")
    seconds, peak, code, out = measured([str(binary), "analyze", str(rows.parent)], 1)
    lines.append([f"{arguments.rows} rows in one file", "vllm-bench", f"{seconds:.3f} s", f"{peak:.0f} MB", "", ""])
    if code != 0:
        wrong.append(f"{arguments.rows} rows: exit {code}, expected 0: {out[-500:].decode(errors='replace')}")
    if peak > arguments.most:
        wrong.append(f"{arguments.rows} rows: {peak:.0f} MB, the aim is {arguments.most:.0f}")

    say(table(["files", "read by", "time", "peak memory", "raw_results.json", "as against vllm-bench"], lines))
    for line in wrong:
        say(f"WRONG: {line}")
    discard(work)
    return AIM_MISSED if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The same sweep through vllm-bench and through `vllm bench sweep serve` 0.14.1, on real vLLM, side by side.

3 server configurations x 4 workloads x 2 runs. Prints for each: wall seconds, server starts, measurements with a valid
result, what is left running, and what it leaves on disk. Exit 1 when vllm-bench needs more than three server starts or
yields fewer than 24 valid results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVE = {"enforce-eager": True, "max-model-len": 1024, "no-enable-prefix-caching": True, "dtype": "bfloat16"}
SEQS = [16, 32, 64]
LOADS = [(concurrency, length) for concurrency in (2, 4) for length in (32, 64)]
OUTPUT = 16
PROMPTS = 16
RUNS = 2


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def left() -> list[str]:
    """Processes of vLLM that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if words.startswith("VLLM::") or "vllm serve" in words and "bench" not in words:
                found.append(f"{entry.name} {words[:60]}")
    return found


def ours(binary: str, vllm: str, model: str, folder: Path) -> dict:
    sweep = {
        "serve": {"model": model, **SERVE, "max-num-seqs": SEQS},
        "bench": {
            "dataset-name": "random", "ignore-eos": True, "max-concurrency": [2, 4], "random-input-len": [32, 64],
            "random-output-len": OUTPUT, "num-prompts": PROMPTS,
        },
        "repeats": {"runs": RUNS},
        "vllm-bin": vllm, "port": "auto", "keep-foreign": True, "setvars": "none",
    }
    file = folder / "sweep.json"
    file.write_text(json.dumps(sweep, indent=2))
    began = time.monotonic()
    code = subprocess.run([binary, "run", str(file), "--results-dir", str(folder / "ours")], stdout=subprocess.DEVNULL).returncode
    seconds = time.monotonic() - began
    run = next((folder / "ours").glob("2*"))
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    results = [json.loads(path.read_text()) for path in run.glob("*_results.json") if path.name != "raw_results.json"]
    valid = [r for r in results if r["completed"] == PROMPTS and r["failed"] == 0]
    return {
        "exit code": code, "seconds": seconds, "server starts": sum(e["event"] == "server-launched" for e in events),
        "valid results": len(valid), "left running": left(), "files": sum(p.is_file() for p in run.rglob("*")),
        "server logs": len(list((run / "logs").glob("*_server*.log"))), "summary": (run / "results_summary.csv").is_file(),
    }


def words(settings: dict) -> list[str]:
    return [w for k, v in settings.items() for w in ([f"--{k}"] if v is True else [f"--{k}", str(v)])]


def theirs(vllm: str, model: str, folder: Path) -> dict:
    port = free_port()
    (folder / "serve.json").write_text(json.dumps([{"max_num_seqs": n} for n in SEQS]))
    loads = [{"max_concurrency": c, "random_input_len": n} for c, n in LOADS]
    (folder / "bench.json").write_text(json.dumps(loads))
    # Starts are counted from outside: the server is a script that notes each call.
    starts = folder / "starts"
    shim = folder / "bin" / "vllm"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/bash\n[ \"$1\" = serve ] && echo start >> '{starts}'\nexec '{vllm}' \"$@\"\n")
    shim.chmod(0o755)
    # It empties caches only of a server that is called `vllm`.
    environment = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    serve = " ".join(["vllm", "serve", model, "--port", str(port), *words(SERVE)])
    bench = " ".join(["vllm", "bench", "serve", "--port", str(port), "--model", model, "--dataset-name", "random",
                      "--ignore-eos", "--random-output-len", str(OUTPUT), "--num-prompts", str(PROMPTS),
                      "--ready-check-timeout-sec", "300"])
    command = [vllm, "bench", "sweep", "serve", "--serve-cmd", serve, "--bench-cmd", bench,
               "--serve-params", str(folder / "serve.json"), "--bench-params", str(folder / "bench.json"),
               "--num-runs", str(RUNS), "-o", str(folder / "theirs")]
    began = time.monotonic()
    log = (folder / "theirs.log").open("w")
    child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment)
    code = child.wait()
    seconds = time.monotonic() - began
    time.sleep(2)
    remaining = left()
    for line in remaining:
        os.kill(int(line.split()[0]), signal.SIGKILL)
    results = [json.loads(path.read_text()) for path in (folder / "theirs").rglob("run=*.json")]
    valid = [r for r in results if r.get("completed") == PROMPTS and r.get("failed", 0) == 0]
    end = (folder / "theirs.log").read_text(errors="replace").strip().splitlines()[-1:]
    return {
        "exit code": code, "seconds": seconds,
        "server starts": len(starts.read_text().splitlines()) if starts.exists() else 0, "valid results": len(valid),
        "left running": remaining, "files": sum(p.is_file() for p in (folder / "theirs").rglob("*")), "server logs": 0,
        "summary": any((folder / "theirs").rglob("summary.csv")), "last line": end[0] if end else "",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/vllm-bench")
    parser.add_argument("--real", default=os.environ.get("VLLM_BENCH_REAL_DIR"), help="the folder that tests/real_vllm/setup.sh made")
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--keep", action="store_true", help="leave what both wrote")
    args = parser.parse_args()
    if not args.real:
        parser.error("--real DIR is needed (tests/real_vllm/setup.sh says which)")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    vllm, model = f"{args.real}/venv/bin/vllm", f"{args.real}/models/tiny-qwen3"
    folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    metrics = {}
    if args.only != "theirs":
        metrics["vllm-bench"] = ours(str(Path(args.binary).resolve()), vllm, model, folder)
    if args.only != "ours":
        metrics["vllm bench sweep serve"] = theirs(vllm, model, folder)
    for name, row in metrics.items():
        print(f"\n{name}")
        for key, value in row.items():
            print(f"  {key:14}  {f'{value:.1f}' if isinstance(value, float) else value}")
    if args.keep:
        print(f"\nkept: {folder}")
    else:
        shutil.rmtree(folder)
    mine = metrics.get("vllm-bench")
    return 0 if mine is None or mine["server starts"] == len(SEQS) and mine["valid results"] == len(SEQS) * len(LOADS) * RUNS else 1


if __name__ == "__main__":
    sys.exit(main())

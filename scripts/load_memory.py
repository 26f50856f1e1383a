#!/usr/bin/env python3
"""What memory `vllm-bench load` takes: at 2,000 streams, and after a million requests.

Against the server of `examples/mock_server.rs` (known times, and canned answers) and against the simulated vLLM. Peak resident
memory is the kernel's own metric (VmHWM), read every 20 ms. Exit 1 when a million requests need more than `--most` MB, or more
than 150 bytes for each request beyond the first hundred thousand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from clients import Mock, Watch
from harness import ROOT, discard, find_binary, free_port, machine, require_python, say, table, work_folder


def run(binary: Path, folder: Path, url: str, *flags: str) -> tuple[dict, float]:
    """Runs a load; its result and its peak memory in MB."""
    command = [str(binary), "load", "--base-url", url, "--prompt", "hi", "--tokenizer", "none", "--num-warmups", "0", "--save-result",
               "--result-dir", str(folder), "--result-filename", "result.json", "--disable-tqdm", *flags]
    with open(folder / "out", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        watch = Watch(process.pid, every=0.02)
        watch.start()
        code = process.wait()
        watch.over.set()
        watch.join()
    if code != 0:
        raise SystemExit(f"exit {code}: {(folder / 'out').read_text(errors='replace')[-2000:]}")
    return json.loads((folder / "result.json").read_text()), watch.peak / 1e6


def simulated(binary: Path, folder: Path) -> tuple[subprocess.Popen, str]:
    port = free_port()
    log = open(folder / "server.log", "wb")
    server = subprocess.Popen([str(binary), "sim-vllm", "serve", "org/tiny-1B", "--port", str(port), "--disable-uvicorn-access-log"],
                              stdout=log, stderr=log, env={**os.environ, "VLLM_BENCH_SIM_SPEED": "inf"}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(500):
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url + "/health", timeout=1)
            return server, url
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the simulated server does not answer")


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--most", type=float, default=200.0, help="MB that the requests may take")
    args = parser.parse_args()
    binary, folder = find_binary(args.binary), work_folder("load-memory")
    mock_binary = ROOT / "target/release/examples/mock_server"
    rows, missed = [], []

    def note(what: str, result: dict, peak: float) -> float:
        rows.append([what, f"{result['completed']:,}", f"{result['total_output_tokens']:,}", f"{result['duration']:.1f}", f"{peak:.0f}"])
        say("  " + ", ".join(rows[-1]) + " MB")
        return peak

    mock = Mock(mock_binary, "--ttft-ms", "50", "--itl-ms", "10")
    note("2,000 streams, 64 tokens each", *run(binary, folder, mock.url, "--num-prompts", "6000", "--max-concurrency", "2000", "--output-len", "64"))
    mock.end()
    mock = Mock(mock_binary, "--canned")
    few, many = args.requests // 10, args.requests
    for tokens in (1, 16):
        peaks = [
            note(f"{count:,} requests of {tokens} tokens, canned",
                 *run(binary, folder, mock.url, "--num-prompts", str(count), "--max-concurrency", "64", "--output-len", str(tokens)))
            for count in (few, many)
        ]
        each = (peaks[1] - peaks[0]) * 1e6 / (many - few)
        if peaks[1] > args.most:
            missed.append(f"{peaks[1]:.0f} MB for {many:,} requests of {tokens} tokens")
        # Below that the requests that wait to be sent, which are bounded, are not all there yet.
        if tokens == 1 and few >= 100_000 and each > 150:
            missed.append(f"{each:.0f} bytes for each request of one token")
    mock.end()
    server, url = simulated(binary, folder)
    try:
        peak = note(f"{many:,} requests of 1 token, simulated vLLM",
                    *run(binary, folder, url, "--num-prompts", str(many), "--max-concurrency", "64", "--output-len", "1"))
        if peak > args.most:
            missed.append(f"{peak:.0f} MB for {many:,} simulated requests")
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    say(machine())
    say(table(["load", "requests", "tokens", "seconds", "peak MB"], rows))
    discard(folder)
    for line in missed:
        say(f"MISSED: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

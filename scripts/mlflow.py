#!/usr/bin/env python3
"""A run of 300 simulated experiments into a real MLflow server, which is killed in the middle: nothing is lost, nothing is there twice.

Installs MLflow into an environment of its own (850 MB, minutes; kept for the next time), starts its server, runs a sweep with
`--mlflow`, kills the server's processes (SIGKILL) when the first have arrived, and starts it again while the run goes on. Then kills one
`export mlflow` in the middle, the server in the middle of another one, and lets a third end. Then asks the server's API: one run for the sweep, one nested run for each
experiment, the metrics of the result files, no point twice, files as long as on disk; and once more after a second export.
Prints what it found, and takes a screenshot of the page where there is a Chromium. Exit 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import harness as h

VERSION = "3.17.2"
CHECKED_IN_FULL = 20
FIRST = 10


class Server:
    """MLflow's own server, with everything it keeps in one folder."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder, self.port = program, folder, h.free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.child: subprocess.Popen | None = None

    def start(self) -> None:
        log = open(self.folder / "server.log", "ab")
        command = [
            self.program, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--serve-artifacts",
            "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        self.child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder)
        began = time.monotonic()
        while time.monotonic() - began < 300:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)
        raise SystemExit(f"the server does not start: {self.folder / 'server.log'}")

    def kill(self) -> None:
        if self.child:
            # A session of its own: no other process is in this group.
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.child.wait()
            self.child = None

    def ask(self, call: str, body: dict | None = None, tries: int = 5) -> dict:
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{call}")
        if body is not None:
            request = urllib.request.Request(request.full_url, json.dumps(body).encode(), {"content-type": "application/json"})
        for left in reversed(range(tries)):
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return {}
                raise
            except OSError:
                if not left:
                    raise
                time.sleep(1)
        return {}

    def runs(self, view: str = "ACTIVE_ONLY") -> list[dict]:
        found = self.ask("experiments/get-by-name?experiment_name=vllm-bench")
        if not found:
            return []
        experiment, token, runs = found["experiment"]["experiment_id"], None, []
        while True:
            body = {"experiment_ids": [experiment], "max_results": 200, "run_view_type": view}
            page = self.ask("runs/search", body | ({"page_token": token} if token else {}))
            runs += page.get("runs", [])
            token = page.get("next_page_token")
            if not token:
                return runs


def set_up(folder: Path) -> Path:
    program = folder / "bin" / "mlflow"
    if not (folder / "stamp").exists():
        h.say(f"installing MLflow {VERSION} into {folder}: 850 MB, minutes")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", f"mlflow=={VERSION}"], check=True)
        (folder / "stamp").touch()
    return program


def pairs(run: dict, kind: str) -> dict:
    return {entry["key"]: entry["value"] for entry in run["data"].get(kind, [])}


def check(server: Server, run: Path, experiments: int) -> list[str]:
    """What is wrong at the server."""
    wrong: list[str] = []
    runs = server.runs()
    tags = [pairs(one, "tags") for one in runs]
    parents = [one for one, tag in zip(runs, tags) if tag.get("vllm_bench.key") == "sweep"]
    children = {tag["vllm_bench.experiment"]: one for one, tag in zip(runs, tags) if tag.get("vllm_bench.key") != "sweep"}
    if len(parents) != 1 or len(runs) != experiments + 1 or len(children) != experiments:
        wrong.append(f"{len(parents)} parents, {len(runs)} runs, {len(children)} experiments; expected 1, {experiments + 1}, {experiments}")
    results = sorted(run.glob("*_results.json"))
    results = [path for path in results if path.name != "raw_results.json"]
    for number, path in enumerate(results):
        result = json.loads(path.read_text())
        name = result["vllm_bench"]["name"]
        child = children.get(name)
        if child is None:
            wrong.append(f"{name} is not there")
            continue
        metrics, tag = pairs(child, "metrics"), pairs(child, "tags")
        for key in ("output_throughput", "request_throughput", "mean_ttft_ms", "completed"):
            if metrics.get(key) != result[key]:
                wrong.append(f"{name}: {key} is {metrics.get(key)}, {result[key]} on disk")
        if child["info"]["status"] != "FINISHED" or tag["mlflow.parentRunId"] != parents[0]["info"]["run_id"]:
            wrong.append(f"{name}: {child['info']['status']}, parent {tag.get('mlflow.parentRunId')}")
        if number % max(1, len(results) // CHECKED_IN_FULL) == 0:
            wrong += in_full(server, child, path)
    if parents and parents[0]["info"]["status"] != "FINISHED":
        wrong.append(f"the sweep is {parents[0]['info']['status']}")
    deleted = len(server.runs("DELETED_ONLY"))
    h.say(f"{len(runs)} runs, {len(children)} experiments, {deleted} deleted, {len(results)} results compared")
    return wrong


def in_full(server: Server, child: dict, result: Path) -> list[str]:
    """Each metric has one point for the one measurement, samples have none twice, and files are as long as on disk."""
    wrong = []
    run, name = child["info"]["run_id"], result.name
    for metric in pairs(child, "metrics"):
        history = server.ask(f"metrics/get-history?run_id={run}&metric_key={urllib.request.quote(metric)}").get("metrics", [])
        points = [(point["timestamp"], point["step"]) for point in history]
        if len(set(points)) != len(points) or (len(points) != 1 and not metric.startswith("system/")):
            wrong.append(f"{name}: {metric} has {len(points)} points, {len(set(points))} different ones")
    files = {entry["path"]: entry["file_size"] for entry in server.ask(f"artifacts/list?run_id={run}").get("files", [])}
    if files.get(name) != result.stat().st_size:
        wrong.append(f"{name} has {files.get(name)} bytes there, {result.stat().st_size} on disk")
    return wrong


def screenshot(server: Server, to: Path) -> None:
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        h.say("no screenshot: there is no Chromium (tests/browser/setup.sh installs it)")
        return
    parent = next(run for run in server.runs() if pairs(run, "tags").get("vllm_bench.key") == "sweep")
    link = f"{server.uri}/#/experiments/{parent['info']['experiment_id']}"
    for name, address in (("runs", f"{link}/runs"), ("sweep", f"{link}/runs/{parent['info']['run_id']}")):
        path = to / f"mlflow-{name}.png"
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1100", "--virtual-time-budget=60000",
            f"--user-data-dir={to / 'browser'}", f"--screenshot={path}", address,
        ]  # fmt: skip
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=180, check=False)
        h.say(f"screenshot: {path}" if path.exists() else f"no screenshot of {address}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=300)
    parser.add_argument("--binary", help="default: target/release/vllm-bench")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-bench" / "mlflow"
    parser.add_argument("--venv", type=Path, default=cache, help=f"where MLflow is, or goes (default {cache})")
    parser.add_argument("--speed", default="1000", help="--sim-speed")
    parser.add_argument("--screenshots", type=Path, help="where screenshots go (default: none are taken)")
    options = parser.parse_args()
    h.require_python()
    binary, base = h.find_binary(options.binary), h.work_folder("mlflow")
    server = Server(set_up(options.venv), base / "server")
    # So many requests at a time on one server start.
    widths = max(1, options.experiments // 30)
    sweep = base / "sweep.yaml"
    sweep.write_text(
        "serve: {model: org/tiny-1B, tp: 1, max-num-seqs: [" + ", ".join(str(8 * n) for n in range(1, widths + 1)) + "]}\n"
        "bench: {dataset-name: random, random-input-len: 8, random-output-len: 8, num-prompts: 4, max-concurrency: 1..30}\n"
    )
    experiments = 30 * widths
    wrong: list[str] = []
    live = None
    try:
        server.start()
        results = base / "results"
        command = [
            binary, "run", sweep, "--engine", "sim", "--sim-speed", options.speed, "--port", "auto", "--keep-foreign", "--telemetry", "200ms",
            "--results-dir", results, "--mlflow", server.uri, "--name", "tracked",
        ]  # fmt: skip
        began = time.monotonic()
        live = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(base / "run.err", "w"), cwd=base)
        while len(server.runs()) < min(FIRST, experiments) and live.poll() is None:
            time.sleep(0.5)
        arrived = len(server.runs())
        server.kill()
        h.say(f"the server was killed with {arrived} runs in it, after {time.monotonic() - began:.0f} s")
        time.sleep(10)
        server.start()
        code = live.wait()
        took = time.monotonic() - began
        h.say(f"the run of {experiments} experiments took {took:.0f} s and ended with exit code {code}")
        if code != 0:
            wrong.append(f"the run ended with exit code {code}: {base / 'run.err'}")
        run = next(path for path in results.iterdir() if path.is_dir())
        send = [binary, "export", "mlflow", run]
        for what in ("export", "server"):
            before = len(server.runs())
            cut = subprocess.Popen(send, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=base)
            while len(server.runs()) < min(before + (experiments - before) // 3, experiments) and cut.poll() is None:
                time.sleep(0.5)
            h.say(f"the {what} is killed in the middle of an export: {len(server.runs())} runs are there")
            cut.kill() if what == "export" else server.kill()
            code = cut.wait()
            if what == "server":
                h.say(f"the export without a server ended with exit code {code}")
                wrong += [] if code == 4 else [f"an export whose server dies ends with 4, not {code}"]
                server.start()
        for turn in ("first", "second"):
            began = time.monotonic()
            ended = subprocess.run(send, capture_output=True, text=True, cwd=base)
            h.say(f"the {turn} export took {time.monotonic() - began:.1f} s: exit code {ended.returncode}")
            if ended.returncode:
                wrong.append(f"export: {ended.stderr}")
            wrong += check(server, run, experiments)
        if options.screenshots:
            options.screenshots.mkdir(parents=True, exist_ok=True)
            screenshot(server, options.screenshots.resolve())
    finally:
        if live and live.poll() is None:
            live.send_signal(signal.SIGINT)
            live.wait()
        server.kill()
    for line in wrong[:20]:
        h.say(f"WRONG: {line}")
    if wrong:
        h.say(f"the evidence is in {base}")
        return 1
    h.say("nothing is lost, nothing is there twice")
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Real Prometheus, Alertmanager and Pushgateway around simulated sweeps and a real load.

Checked: what is in `deploy/` by promtool and amtool; the text of `/metrics` by promtool; that a dashboard is scraped and a push
arrives; that each alert rule fires, with the times in it made short; that Alertmanager's webhook arrives; that each expression of
the Grafana dashboard returns data, from a sweep or from a load; that nothing is left running.

The programs are taken from the PATH, else from `--tools DIR` (default: below the user's cache), where the Debian packages are
downloaded and unpacked once: that needs `apt-get`, but no root. Devices are played by a /sys of our own in a mount namespace, which
needs root (or user namespaces): without it the panels and the rule of live devices are named as not checked.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from harness import ROOT, Sweep, discard, find_binary, free_port, kill_tree, require_python, say, table, tree, wait_until, work_folder

PACKAGES = ["prometheus", "prometheus-alertmanager", "prometheus-pushgateway"]
PROGRAMS = ["prometheus", "promtool", "prometheus-alertmanager", "amtool", "prometheus-pushgateway"]
DEPLOY = ROOT / "deploy"
CARD = "0000:03:00.0"
PASSWORD = "pr0metheus-pass"


# -------------------------------------------------------------------------------------------------------------- set-up


def programs(folder: Path) -> dict[str, str]:
    """Where the programs are; they are fetched where they are not there."""
    path = f"{folder}/usr/bin:{os.environ['PATH']}:/usr/sbin"
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    if not all(found.values()):
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise SystemExit(f"Debian's apt-get and dpkg are needed, or these on the PATH: {', '.join(PROGRAMS)}")
        folder.mkdir(parents=True, exist_ok=True)
        say(f"downloading {', '.join(PACKAGES)} into {folder}")
        fetched = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True)
        if fetched.returncode:
            raise SystemExit(f"apt-get download failed: run `apt-get update` as root first, or name --tools DIR\n{fetched.stderr.strip()}")
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
            package.unlink()
        found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    return {name: str(where) for name, where in found.items()}


def beside_its_files(program: str) -> list[str]:
    """Debian's Alertmanager looks for a template below /usr/share: one that is unpacked elsewhere gets a view of its own."""
    share = Path(program).parent.parent / "share"
    if Path("/usr/share/prometheus/alertmanager/default.tmpl").exists():
        return []
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        view = [*unshare, "--propagation", "private", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', str(share)]
        if subprocess.run([*view, "true"], capture_output=True).returncode == 0:
            return view
    raise SystemExit("install prometheus-alertmanager (root is needed): it looks for its template below /usr/share")


class Daemons:
    """Processes of ours, each ended by its number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.all = folder, []

    def start(self, name: str, *command: str, **more) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **more
            )
        self.all.append((name, child))
        return child

    def end(self) -> None:
        for _, child in self.all:
            if child.poll() is None:
                child.terminate()
        for _, child in self.all:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def get(url: str, headers: dict[str, str] | None = None) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
        return answer.read().decode()


def answers(url: str) -> bool:
    try:
        get(url)
        return True
    except (urllib.error.URLError, OSError):
        return False


# ---------------------------------------------------------------------------------------------- the other ends


class Webhook(http.server.BaseHTTPRequestHandler):
    """Gets Alertmanager's messages."""

    seen: list[dict] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Webhook.seen.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


class Engine(http.server.BaseHTTPRequestHandler):
    """An OpenAI server on real time: 20 tokens, 20 ms apart; one request in eight fails. While it is `stuck` nothing ends."""

    protocol_version = "HTTP/1.1"
    number = 0
    stuck = False

    def reply(self, body: bytes, kind: str = "application/json", code: int = 200) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.reply(json.dumps({"object": "list", "data": [{"id": "model", "object": "model", "max_model_len": 4096}]}).encode())
        elif self.path == "/metrics":
            self.reply(b"", "text/plain")
        else:
            self.reply(b"{}", code=200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        Engine.number += 1
        if Engine.number % 8 == 0:
            self.reply(b'{"error": {"message": "no"}}', code=500)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for token in range(20):
                while Engine.stuck:
                    time.sleep(0.1)
                event = {"id": "x", "object": "text_completion", "model": "model", "choices": [{"index": 0, "text": f" w{token}", "finish_reason": None if token < 19 else "length"}]}
                self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
                time.sleep(0.02)
            usage = {"id": "x", "object": "text_completion", "model": "model", "choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 20, "total_tokens": 28}}
            self.chunk(b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_) -> None:
        pass


def serve(handler) -> int:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


# A machine with that /sys and its node, for what is started in it alone: the real /sys and /dev stay as they are.
VIEW = r"""
mkdir -p "$0/dev"
mount --bind "$0/sys" /sys
mount --rbind /dev "$0/dev"
mount -t tmpfs dev /dev
for node in null zero full random urandom tty; do touch /dev/$node; mount --bind "$0/dev/$node" /dev/$node; done
mkdir /dev/shm /dev/pts /dev/dri
mount --rbind "$0/dev/shm" /dev/shm
mount --rbind "$0/dev/pts" /dev/pts
ln -s pts/ptmx /dev/ptmx; ln -s /proc/self/fd /dev/fd; ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr
for node in /dev/dri/renderD128 /dev/kfd; do touch $node; mount --bind "$0/dev/null" $node; done
exec "$@"
"""


class Devices:
    """A /sys with one card, for who runs behind `wrapper`: an Intel one that is throttled, or an AMD one that says how busy it is."""

    def __init__(self, folder: Path, amd: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.sys = folder / "sys"
        card = self.sys / "devices/pci" / CARD
        for part in ["drm/renderD128", "drm/card0", "hwmon/hwmon0", "tile0/gt0/freq0/throttle", "tile0/gt0/gtidle"]:
            (card / part).mkdir(parents=True)
        for part in ["class/drm", "module/xe", "module/amdgpu", "bus/pci/drivers/xe"]:
            (self.sys / part).mkdir(parents=True)
        files = {
            "vendor": "0x8086", "device": "0xe211", "uevent": f"DRIVER=xe\nPCI_CLASS=38000\nPCI_ID=8086:E211\nPCI_SLOT_NAME={CARD}",
            "hwmon/hwmon0/name": "xe", "hwmon/hwmon0/energy1_label": "card", "hwmon/hwmon0/energy1_input": "1000000",
            "hwmon/hwmon0/power1_max": "200000000", "hwmon/hwmon0/temp2_input": "61000", "tile0/gt0/freq0/act_freq": "2400",
            "tile0/gt0/freq0/throttle/status": "1", "tile0/gt0/freq0/throttle/reason_thermal": "1", "tile0/gt0/gtidle/idle_residency_ms": "1000",
        }  # fmt: skip
        if amd:
            files = {
                "vendor": "0x1002", "device": "0x74a1", "uevent": f"DRIVER=amdgpu\nPCI_CLASS=38000\nPCI_ID=1002:74A1\nPCI_SLOT_NAME={CARD}",
                "hwmon/hwmon0/name": "amdgpu", "hwmon/hwmon0/power1_average": "350000000", "hwmon/hwmon0/temp1_label": "junction",
                "hwmon/hwmon0/temp1_input": "71000", "gpu_busy_percent": "97", "mem_info_vram_used": str(4 << 30), "mem_info_vram_total": str(64 << 30),
            }  # fmt: skip
        for name, text in files.items():
            (card / name).write_text(f"{text}\n")
        (self.sys / "class/drm/renderD128").symlink_to(f"../../devices/pci/{CARD}/drm/renderD128")
        (card / "drm/renderD128/device").symlink_to("../..")
        self.energy = card / "hwmon/hwmon0/energy1_input"
        self.idle = card / "tile0/gt0/gtidle/idle_residency_ms"
        self.over = threading.Event()
        self.wrapper = []
        for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
            wrapper = [*unshare, "--propagation", "private", "sh", "-ec", VIEW, str(folder)]
            if subprocess.run([*wrapper, "test", "-e", "/dev/dri/renderD128"], capture_output=True).returncode == 0:
                self.wrapper = wrapper
                break
        if not amd:
            threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        """150 W, a quarter of the time idle."""
        began, last = time.monotonic(), 0.0
        while not self.over.wait(0.05):
            last = time.monotonic() - began
            for path, value in [(self.energy, 1_000_000 + int(last * 150e6)), (self.idle, 1000 + int(last * 250))]:
                draft = path.with_name(f".{path.name}")
                draft.write_text(f"{value}\n")
                draft.rename(path)


# ---------------------------------------------------------------------------------------------------------- checks


class Checks:
    def __init__(self) -> None:
        self.rows, self.wrong = [], []

    def that(self, what: str, held: bool, more: str = "") -> bool:
        self.rows.append([what, "ok" if held else "WRONG", more])
        if not held:
            self.wrong.append(what)
            say(f"WRONG: {what} {more}")
        return held


def tool(*command: str, text: str | None = None) -> tuple[bool, str]:
    ended = subprocess.run(command, input=text, capture_output=True, text=True, cwd=DEPLOY)
    said = (ended.stdout + ended.stderr).strip()
    return ended.returncode == 0, said


def expressions() -> list[tuple[str, str]]:
    """Title and expression of each target, with Grafana's variables in it."""
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


def quick_rules(text: str) -> str:
    """The rules with short times: the same expressions otherwise."""
    for long, short in [
        ("_timestamp_seconds > 3600", "_timestamp_seconds > 3"), ('job="vllm-bench"} > 600', 'job="vllm-bench"} > 25'),
        ("total[10m]) == 0", "total[5s]) == 0"), ("rate(vllm_bench_load_requests_failed_total[1m]) / rate(vllm_bench_load_requests_done_total[1m])",
         "rate(vllm_bench_load_requests_failed_total[10s]) / rate(vllm_bench_load_requests_done_total[10s])"),
    ]:  # fmt: skip
        assert long in text, long
        text = text.replace(long, short)
    return re.sub(r"for: \S+", "for: 1s", text)


class Bench:
    """Everything around the sweeps."""

    def __init__(self, binary: Path, at: dict[str, str], folder: Path, checks: Checks) -> None:
        self.binary, self.at, self.folder, self.checks = binary, at, folder, checks
        self.daemons, self.ports, self.sweeps = Daemons(folder), {}, []
        self.began = time.time()

    def check_files(self) -> None:
        for name, command in [
            ("prometheus.yml", [self.at["promtool"], "check", "config", "--syntax-only", "prometheus.yml"]),
            ("rules.yml", [self.at["promtool"], "check", "rules", "rules.yml"]),
            ("alertmanager.yml", [self.at["amtool"], "check-config", "alertmanager.yml"]),
        ]:
            fine, said = tool(*command)
            self.checks.that(f"deploy/{name} is clean", fine, "" if fine else said)

    def start(self) -> None:
        ports = self.ports = {name: free_port() for name in ["prometheus", "alertmanager", "pushgateway", "dashboard", "load"]}
        self.webhook = serve(Webhook)
        alerts = (DEPLOY / "alertmanager.yml").read_text()
        alerts = alerts.replace("127.0.0.1:9999", f"127.0.0.1:{self.webhook}").replace("group_wait: 10s", "group_wait: 1s").replace("group_interval: 5m", "group_interval: 1s")
        (self.folder / "alertmanager.yml").write_text(alerts)
        (self.folder / "rules.yml").write_text(quick_rules((DEPLOY / "rules.yml").read_text()))
        config = (DEPLOY / "prometheus.yml").read_text()
        for long, short in [
            ("15s", "1s"), ("127.0.0.1:9093", f"127.0.0.1:{ports['alertmanager']}"), ("127.0.0.1:9091", f"127.0.0.1:{ports['pushgateway']}"),
            ('"127.0.0.1:8765"', f'"127.0.0.1:{ports["dashboard"]}", "127.0.0.1:{ports["load"]}"'),
            ("/tmp/vllm-bench-1000/", f"/tmp/vllm-bench-{os.geteuid()}/"),
        ]:  # fmt: skip
            assert long in config, long
            config = config.replace(long, short)
        (self.folder / "prometheus.yml").write_text(config)
        local = lambda name: f"127.0.0.1:{ports[name]}"
        self.daemons.start("pushgateway", self.at["prometheus-pushgateway"], f"--web.listen-address={local('pushgateway')}")
        self.daemons.start(
            "alertmanager", *beside_its_files(self.at["prometheus-alertmanager"]), self.at["prometheus-alertmanager"], f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/am",
            f"--web.listen-address={local('alertmanager')}", "--cluster.listen-address=",
        )  # fmt: skip
        self.daemons.start(
            "prometheus", self.at["prometheus"], f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address={local('prometheus')}",
        )  # fmt: skip
        for name in ["pushgateway", "alertmanager", "prometheus"]:
            self.checks.that(f"{name} is ready", wait_until(lambda: answers(f"http://{local(name)}/-/ready"), 30, 0.1))
        self.gateway = f"http://bench:{PASSWORD}@{local('pushgateway')}"

    def query(self, expr: str) -> list[dict]:
        """What an expression gave since the beginning, second by second."""
        words = urllib.parse.urlencode({"query": expr, "start": self.began, "end": time.time(), "step": "1s"})
        found = json.loads(get(f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query_range?{words}"))
        return found["data"]["result"]

    def sweep(self, name: str, *args: str, wrapper: list[str] | None = None) -> Sweep:
        sweep = Sweep(self.binary, list(args), self.folder / name, wrapper=wrapper or [])
        sweep.folder.mkdir()
        self.sweeps.append(sweep)
        return sweep

    def end(self) -> None:
        for sweep in self.sweeps:
            sweep.end()
        self.daemons.end()


def token() -> str:
    return Path(f"/tmp/vllm-bench-{os.geteuid()}/dashboard.token").read_text().strip()


SMALL = ["--preset", "sanity", "--port", "auto", "--no-preflight", "--login", "off"]


def measure(bench: Bench, devices: Devices, other: Devices) -> None:
    """Sweeps and a load, so that everything is exported once."""
    checks, ports = bench.checks, bench.ports
    # 1. A sweep that is scraped: results, failures in a row, devices, a server under load.
    vllm = bench.folder / "vllm"
    vllm.write_text(f'#!/bin/sh\nexec "{bench.binary}" sim-vllm "$@"\n')
    vllm.chmod(0o755)
    scraped = bench.sweep(
        "scraped", *SMALL, "--tp", "1", "--vllm-bin", str(vllm), "--name", "scraped", "--setvars", "none", "--env", "VLLM_BENCH_SIM_SPEED=8",
        "--num-prompts", "120", "--output-len", "64", "--telemetry", "200ms",
        "--dashboard", f"127.0.0.1:{ports['dashboard']}", wrapper=devices.wrapper,
    )  # fmt: skip
    # Devices of this machine are sampled for a server that may use them: a `vllm` which is the simulated one.
    scraped.engine = "vllm"
    child = scraped.start()
    site = f"http://127.0.0.1:{ports['dashboard']}/metrics"
    headers = {"Authorization": f"Bearer {token()}"} if wait_until(lambda: Path(f"/tmp/vllm-bench-{os.geteuid()}/dashboard.token").exists(), 20) else {}
    wait_until(lambda: child.poll() is not None or bench.query('vllm_bench_current_requests_done'), 60, 0.5)
    texts = {}
    for form, accept in [("OpenMetrics", "application/openmetrics-text"), ("the older text", "*/*")]:
        texts[form] = get(site, {**headers, "Accept": accept})
    fine, said = tool(bench.at["promtool"], "check", "metrics", text=texts["the older text"])
    checks.that("promtool check metrics has nothing to say of a sweep", fine and not said, said)
    checks.that("a sweep ends beside its dashboard", child.wait(300) == 0, str(scraped.folder))
    if other.wrapper:
        busy = bench.sweep(
            "busy", *SMALL, "--tp", "1", "--enforce-eager", "true,false", "--quantization", "none", "--vllm-bin", str(vllm), "--setvars", "none",
            "--env", "VLLM_BENCH_SIM_SPEED=8", "--num-prompts", "120", "--output-len", "64", "--telemetry", "200ms", "--dashboard", f"127.0.0.1:{ports['dashboard']}", wrapper=other.wrapper,
        )  # fmt: skip
        busy.engine = "vllm"
        checks.that("a sweep on another card ends", busy.start().wait(300) == 0, str(busy.folder))
    # 2. What fails, hangs, and stands still, pushed.
    pushed = ["--pushgateway", bench.gateway]
    fails = bench.sweep("fails", *SMALL, "--name", "fails", "--starts", "4", "--sim-fault", "exit-at-start", *pushed)
    checks.that("a sweep of failures ends", fails.start().wait(120) == 1)
    hangs = bench.sweep("hangs", *SMALL, "--name", "hangs", "--sim-fault", "benchmark-hangs", "--stall-timeout", "20s", *pushed)
    hanging = hangs.start()
    # 3. One that is killed while it pushes.
    gone = bench.sweep("gone", *SMALL, "--name", "gone", "--sim-fault", "benchmark-hangs", *pushed)
    going = gone.start()
    name = lambda sweep: sweep.newest().name if sweep.newest() else ""
    checks.that("a push arrives", wait_until(lambda: name(gone) and bench.query(f'vllm_bench_run_live{{run="{name(gone)}", results="{gone.results}"}} == 1'), 30, 0.5))
    os.kill(going.pid, signal.SIGKILL)
    going.wait()
    # 4. A comparison that is worse.
    for run, limit in [("before", "256"), ("after", "1")]:
        side = bench.sweep(run, *SMALL, "--name", run, "--starts", "3", "--num-prompts", "16", "--serve-arg", f"max-num-seqs={limit}", "--sim-noise", "1%")
        side.folder = bench.folder / "compared"
        side.folder.mkdir(exist_ok=True)
        checks.that(f"the sweep `{run}` ends", side.start().wait(120) == 0, str(side.folder))
    compared = subprocess.run(
        [str(bench.binary), "compare", "before", "after", "--ignore", "max-num-seqs,env.SWEEP_MARKER", "--results-dir", str(bench.folder / "compared/results"), *pushed],
        capture_output=True, text=True,
    )  # fmt: skip
    checks.that("compare ends with 1 and says nothing of the gateway", compared.returncode == 1 and "Pushgateway" not in compared.stderr, compared.stderr.strip())
    load(bench, devices, pushed)
    checks.that("the sweep that hangs ends by itself", hanging.wait(180) == 1)


def load(bench: Bench, devices: Devices, pushed: list[str]) -> None:
    """A load on real time with failures; for some seconds nothing of it ends."""
    checks, port = bench.checks, serve(Engine)
    child = bench.daemons.start(
        "load", *devices.wrapper, str(bench.binary), "load", "--base-url", f"http://127.0.0.1:{port}", "--model", "model", "--dataset-name", "random",
        "--prompt-format", "text", "--random-input-len", "8", "--random-output-len", "20", "--num-prompts", "400", "--max-concurrency", "8", "--num-warmups", "0",
        "--label", "a-load", "--telemetry", "--percentile-metrics", "ttft,tpot,itl,e2el", "--num-runs", "2", "--dashboard", f"127.0.0.1:{bench.ports['load']}", *pushed,
    )  # fmt: skip
    site, headers = f"http://127.0.0.1:{bench.ports['load']}/metrics", {"Authorization": f"Bearer {token()}"}
    wait_until(lambda: bench.query('vllm_bench_load_requests_done_total{run="a-load"} > 50') or child.poll() is not None, 60, 0.5)
    try:
        fine, said = tool(bench.at["promtool"], "check", "metrics", text=get(site, headers))
        checks.that("promtool check metrics has nothing to say of a load", fine and not said, said)
    except OSError as error:
        checks.that("the load is scraped", False, str(error))
    Engine.stuck = True
    wait_until(lambda: "VllmBenchLoadStalled" in alerts(bench), 40, 0.5)
    Engine.stuck = False
    checks.that("a load with failures ends with 1", child.wait(240) == 1, str(bench.folder / "load.log"))


def alerts(bench: Bench) -> set[str]:
    """Alerts that have fired since the beginning."""
    return {series["metric"]["alertname"] for series in bench.query('ALERTS{alertstate="firing"}')}


def judge(bench: Bench, devices: Devices) -> None:
    checks = bench.checks
    rules = re.findall(r"alert: (\w+)", (DEPLOY / "rules.yml").read_text())
    of_devices = lambda text: "vllm_bench_device_" in text or "last_device_" in text or "Throttled" in text
    wanted = [rule for rule in rules if devices.wrapper or not of_devices(rule)]
    wait_until(lambda: set(wanted) <= alerts(bench), 60, 1)
    fired = alerts(bench)
    for rule in wanted:
        checks.that(f"the rule {rule} fires", rule in fired)
    wait = lambda: {alert["labels"]["alertname"] for message in Webhook.seen for alert in message["alerts"]}
    # Who is only worth knowing goes to nobody; of a run that is gone nothing else is told.
    messages = {rule for rule in wanted if rule not in ("VllmBenchResultThrottled",)}
    wait_until(lambda: messages <= wait(), 30, 1)
    checks.that("Alertmanager's webhook has got each alert", messages <= wait(), ", ".join(sorted(messages - wait())))
    checks.that("and none that is for nobody", "VllmBenchResultThrottled" not in wait())
    empty, unchecked = [], []
    for title, expr in expressions():
        asked = expr.replace("$run", ".*").replace("$__rate_interval", "10s")
        if not devices.wrapper and of_devices(expr):
            unchecked.append(title)
        elif not bench.query(asked):
            empty.append(f"{title}: {expr}")
    checks.that(f"each of {len(expressions()) - len(unchecked)} expressions of the Grafana dashboard returns data", not empty, "; ".join(empty))
    if unchecked:
        say(f"NOT CHECKED without root: {len(unchecked)} expressions of live devices ({', '.join(sorted(set(unchecked)))}), and two rules")
    for expr in ["vllm_bench_run_live", "vllm_bench_load_live"]:
        last = bench.query(f'{expr}{{job="vllm-bench", instance=""}}')
        ended = [series for series in last if series["metric"]["run"] == "a-load" or "fails" in str(series)]
        checks.that(f"the last push says that it is over: {expr}", all(series["values"][-1][1] == "0" for series in ended))
    found = [path for path in bench.folder.rglob("*") if path.is_file() and "tsdb" not in path.parts and PASSWORD.encode() in path.read_bytes()]
    # Its own line with the command is the harness's.
    found = [path for path in found if path.name != "output.txt"]
    checks.that("the password of the gateway is in no file", not found, ", ".join(map(str, found)))


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="vllm-bench (default: target/release/vllm-bench)")
    parser.add_argument("--tools", type=Path, help="where the Debian packages are unpacked")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    args = parser.parse_args()
    binary = find_binary(args.binary)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-bench/prometheus"
    at = programs(args.tools or cache)
    folder, checks = work_folder("prometheus"), Checks()
    devices, other, bench = Devices(folder / "intel"), Devices(folder / "amd", amd=True), Bench(binary, at, folder, checks)
    try:
        bench.check_files()
        bench.start()
        measure(bench, devices, other)
        judge(bench, devices)
    finally:
        devices.over.set()
        bench.end()
    left = [proc for sweep in bench.sweeps for proc in tree(sweep.marker, folder=sweep.folder)]
    checks.that("nothing is left running", not left, str(left))
    say(table(["what", "", "more"], checks.rows))
    if checks.wrong or args.keep:
        say(f"kept: {folder}")
    else:
        discard(folder)
    return 1 if checks.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

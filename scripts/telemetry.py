#!/usr/bin/env python3
"""Sweeps on made-up devices whose power is known: joules within 2 % of the truth, J/token in every format, and what the sampler costs.

    scripts/telemetry.py [--binary PATH] [--only NAME]... [--list] [--keep]

Each part has a mount namespace of its own, in which /sys is that of a machine with Intel or AMD cards whose counters this script moves,
or a libnvidia-ml.so.1 made here with `cc`, or a vendor's tool that prints what real ones do. The server is the simulated vLLM behind a
program called `vllm`, so that everything is sampled as on a real one. Needs root and `unshare` (77 where there is neither). One line per
check; exit code 1 where one failed. Python 3.11, standard library only.
"""

import argparse
import collections
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 12  # a measurement, about
MOST_OFF = 0.02
CARDS = ("0000:03:00.0", "0000:13:00.0")
INTEL, AMD = ("0x8086", "0xe211", "xe"), ("0x1002", "0x74a1", "amdgpu")

SWEEP = """
serve: {model: org/tiny, tensor-parallel-size: 2}
bench: {num-prompts: 48, max-concurrency: 8, random-input-len: 64, random-output-len: 128, ignore-eos: true}
"""

NVML = r"""
#include <string.h>
#include <time.h>
#include <stdlib.h>
typedef void* D; typedef struct{unsigned v; unsigned long long t,r,f,u;} M2; typedef struct{unsigned g,m;} U;
static double now(void){struct timespec t; clock_gettime(CLOCK_MONOTONIC,&t); return t.tv_sec+t.tv_nsec*1e-9;}
static double watts(D d){return 100.0*(long)d;}
int nvmlInit_v2(void){return 0;} int nvmlInitWithFlags(unsigned f){return 0;} int nvmlShutdown(void){return 0;}
const char* nvmlErrorString(int r){return r?"Not Supported":"Success";}
int nvmlDeviceGetHandleByPciBusId_v2(const char*b,D*d){
  if(!strstr(b,"03:00.0")&&!strstr(b,"13:00.0"))return 6; *d=(D)(long)(strstr(b,"03:00.0")?1:2); return 0;}
int nvmlDeviceGetHandleByUUID(const char*u,D*d){return 6;}
int nvmlDeviceGetMemoryInfo_v2(D d,M2*m){m->t=85520809984ULL;m->r=0;m->u=1ULL<<30;m->f=m->t-m->u;return 0;}
int nvmlDeviceGetUtilizationRates(D d,U*u){u->g=97;u->m=41;return 0;}
int nvmlDeviceGetPowerUsage(D d,unsigned*p){*p=1000*watts(d);return 0;}
int nvmlDeviceGetTotalEnergyConsumption(D d,unsigned long long*x){if(getenv("NO_ENERGY"))return 3;*x=1000*watts(d)*now();return 0;}
int nvmlDeviceGetTemperature(D d,int s,unsigned*t){*t=61;return 0;}
int nvmlDeviceGetClockInfo(D d,int c,unsigned*m){*m=1830;return 0;}
int nvmlDeviceGetCurrentClocksThrottleReasons(D d,unsigned long long*x){*x=4;return 0;}
"""

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=index,name*) printf '0, NVIDIA H100 80GB HBM3, 00000000:03:00.0, 81559, 1, 570.124.06, GPU-a, Disabled\\n1, NVIDIA H100 80GB HBM3, 00000000:13:00.0, 81559, 1, 570.124.06, GPU-b, Disabled\\n';;
--query-gpu=index,util*) printf '0, 97, 1024, 81559, 61, 100.00\\n1, [N/A], 1024, 81559, 60, 200.00\\n';;
esac
"""

ROCM_SMI = """#!/bin/sh
echo '{"card0": {"PCI Bus": "0000:03:00.0", "Average Graphics Package Power (W)": "110.0"}, "card1": {"PCI Bus": "0000:13:00.0", "Average Graphics Package Power (W)": "130.0"}}'
"""

XPU_SMI = """#!/bin/sh
case "$1" in
discovery) echo '{"device_list": [{"device_id": 0, "pci_bdf_address": "0000:03:00.0"}, {"device_id": 1, "pci_bdf_address": "0000:13:00.0"}]}';;
dump) sleep 0.2; printf 'Timestamp, DeviceId, GPU Utilization (%%), GPU Power (W), GPU Core Temperature (Celsius Degree)\\n06:14:46.000, 0, N/A, 70.00, 50.00\\n06:14:46.000, 1, N/A, 80.00, 51.00\\n';;
*) exit 1;;
esac
"""


class Failed(Exception):
    """What a check found instead."""


def need(condition, told) -> None:
    if not condition:
        raise Failed(told)


class Counter(threading.Thread):
    """Moves counters of energy by what a card draws, fifty times a second, and keeps what it wrote: time and microjoules."""

    def __init__(self, files, watts, odd=None):
        super().__init__(daemon=True)
        self.files, self.watts, self.odd = files, watts, odd
        self.over, self.log, self.offset = threading.Event(), [], 0

    def run(self):
        micro, before = 1_000_000.0, time.time()
        began = before
        while not self.over.wait(0.02):
            now = time.time()
            micro += self.watts(now - began) * (now - before) * 1e6
            before = now
            if self.odd:
                self.odd(self, now - began)
            for file in self.files:
                # Written at once: a reader never sees half of a number.
                new = file.with_name(".new")
                new.write_text(f"{int(micro) + self.offset}\n")
                new.replace(file)
            self.log.append((now, micro))

    def joules(self, begins, ends):
        """Between two moments."""
        def at(moment):
            after = next((n for n, (when, _) in enumerate(self.log) if when >= moment), len(self.log) - 1)
            (t0, e0), (t1, e1) = self.log[max(after - 1, 0)], self.log[after]
            return e1 if t1 == t0 else e0 + (e1 - e0) * (moment - t0) / (t1 - t0)
        return (at(ends) - at(begins)) / 1e6


class Machine:
    """The made-up machine of a namespace, and a folder for its sweep."""

    def __init__(self, binary: Path, folder: Path):
        self.binary, self.folder, self.counters, self.env = binary, folder, [], {}
        self.tools = folder / "tools"
        self.tools.mkdir()
        program = folder / "vllm"
        # A server of one speed, whatever this machine does: its times are the simulation's own.
        program.write_text(f'#!/bin/bash\nexec {binary} sim-vllm "$@"\n')
        program.chmod(0o755)
        (folder / "sweep.yaml").write_text(SWEEP)

    def sysfs(self, kind):
        """/sys with two cards. Returns their folders."""
        vendor, device, driver = kind
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "made-up", "/sys"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "made-up", "/dev/dri"], check=True)
        for folder in ("class/drm", "devices/pci", f"bus/pci/drivers/{driver}", f"module/{driver}"):
            Path("/sys", folder).mkdir(parents=True)
        cards = []
        for number, address in enumerate(CARDS):
            card, node = Path("/sys/devices/pci") / address, f"renderD{128 + number}"
            for folder in (f"drm/{node}", f"drm/card{number}", f"hwmon/hwmon{number}", "tile0/gt0/freq0/throttle"):
                (card / folder).mkdir(parents=True)
            for name, text in {
                "vendor": vendor, "device": device, "uevent": f"DRIVER={driver}\nPCI_SLOT_NAME={address}",
                f"hwmon/hwmon{number}/temp2_label": "pkg", f"hwmon/hwmon{number}/temp2_input": "61000",
                "tile0/gt0/freq0/act_freq": "2400", "tile0/gt0/freq0/throttle/reason_thermal": "0",
            }.items():
                (card / name).write_text(text + "\n")
            (card / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
            Path("/sys/class/drm", node).symlink_to(f"../../devices/pci/{address}/drm/{node}")
            (card / f"drm/{node}/device").symlink_to("../..")
            os.mknod(f"/dev/dri/{node}", 0o666 | 0o020000, os.makedev(1, 3))
            cards.append(card)
        return cards

    def energy(self, card: Path, numbers, watts, odd=None, labels=("card", "pkg")):
        """Counters of a card: those of these numbers move, others stand still."""
        hwmon = next((card / "hwmon").iterdir())
        for number, label in enumerate(labels, 1):
            (hwmon / f"energy{number}_label").write_text(label + "\n")
            (hwmon / f"energy{number}_input").write_text("1000000\n")
        counter = Counter([hwmon / f"energy{number}_input" for number in numbers], watts, odd)
        self.counters.append(counter)
        counter.start()
        return counter

    def tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def call(self, *words, code=0) -> str:
        env = {**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}", "HOME": str(self.folder), **self.env}
        came = subprocess.run([str(self.binary), *words], cwd=self.folder, env=env, text=True, capture_output=True, timeout=300)
        need(code is None or came.returncode == code, f"`{' '.join(words)}` ended with {came.returncode}, not {code}: {came.stderr[-800:]}{came.stdout[-400:]}")
        return came.stdout

    def sweep(self):
        """Measures once. Returns the telemetry of the result, its series, and the moments at which the client began and ended."""
        self.call("run", "sweep.yaml", "--vllm-bin", str(self.folder / "vllm"), "--setvars", "none", "--no-preflight", "--login", "false", "--port", "auto",
                  "--client", "builtin", "--telemetry", "500ms", "--device-locks", str(self.folder / "locks"))
        run = max((self.folder / "experiment_results").iterdir())
        result = json.loads(next((run / "benchmarks").glob("*.json")).read_text()) if (run / "benchmarks").is_dir() else None
        if result is None:
            result = json.loads(next(path for path in run.glob("*.json") if "vllm_bench" in json.loads(path.read_text())).read_text())
        # What is not known is absent.
        telemetry = collections.defaultdict(lambda: None, **{"warnings": [], **result["vllm_bench"]["telemetry"]})
        rows = list(csv.DictReader((run / telemetry["file"]).open()))
        for counter in self.counters:
            counter.over.set()
        return result, telemetry, rows


def close(found, truth, what) -> str:
    need(found is not None, f"{what} is not known")
    off = abs(found - truth) / truth
    need(off <= MOST_OFF, f"{what}: {found:.1f}, and the truth is {truth:.1f} ({off:.1%} off)")
    return f"{what} {found:.1f} of {truth:.1f} ({off:.2%} off)"


def moments(rows):
    """The first and the last moment between which tokens grew, as seconds of the clock."""
    from datetime import datetime

    when = lambda row: datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")).timestamp()
    times, tokens = [], []
    for row in rows:
        if row["phase"] == "measuring" and row["generation_tokens"] and when(row) not in times:
            times.append(when(row))
            tokens.append(float(row["prompt_tokens"]) + float(row["generation_tokens"]))
    grown = [n for n in range(1, len(tokens)) if tokens[n] > tokens[n - 1]]
    return times[grown[0]], times[grown[-1] - 1]


PARTS = []


def part(function):
    PARTS.append(function)
    return function


@part
def xe_cards_of_changing_power(machine):
    cards = machine.sysfs(INTEL)
    # Each its own wave, of which a measurement has several.
    waves = [lambda t: 150 + 60 * math.sin(2 * math.pi * t / 3), lambda t: 210 + 80 * math.sin(2 * math.pi * t / 2)]
    counters = [machine.energy(card, [1], wave) for card, wave in zip(cards, waves)]
    result, telemetry, rows = machine.sweep()
    # Energy is mean power times what the requests took.
    begins, ends = moments(rows)
    truth = sum(counter.joules(begins, ends) for counter in counters) * result["duration"] / (ends - begins)
    yield close(telemetry["energy_j"], truth, "joules")
    need(telemetry["energy_from"] == "the energy counter of the whole card", telemetry["energy_from"])
    tokens = result["total_output_tokens"]
    per_token = telemetry["energy_j"] / tokens
    run = max((machine.folder / "experiment_results").iterdir())
    row = next(csv.DictReader(machine.call("analyze", str(run), "--format", "csv").splitlines()))
    yield close(float(row["metrics.joules_per_output_token"] if "metrics.joules_per_output_token" in row else row["joules_per_output_token"]), per_token, "J/token in CSV")
    told = json.loads(machine.call("analyze", str(run), "--format", "json"))["rows"][0]["metrics"]
    yield close(told["joules_per_output_token"], per_token, "J/token in JSON")
    text = machine.call("analyze", str(run))
    line = text[text.index("Power and energy"):].split("tp 2, quant none")[1].split("\n")[0]
    need(f"{per_token:.3f}" in line.split(), f"{per_token}: {line}")
    machine.call("report", str(run), "--output", "page.html")
    page = (machine.folder / "page.html").read_text()
    need("joules_per_output_token" in page, "the page has no J/token")
    machine.call("plot", "telemetry", str(run), "--format", "svg", "--output", "plots")
    drawn = "".join(path.read_text() for path in (machine.folder / "plots").rglob("*.svg"))
    need("W" in drawn and "SIMULATED" not in drawn, "the plot has no power")
    yield "J/token in text, page and plot"
    limited = json.loads(machine.call("recommend", str(run), "--slo", "power.mean<10", "--format", "json", code=3))
    need("power" in json.dumps(limited), "a limit of power is not told")
    yield "a limit of power acts"


@part
def a_card_counter_that_stands_still(machine):
    counters = [machine.energy(card, [2], lambda t: 180) for card in machine.sysfs(INTEL)]
    result, telemetry, rows = machine.sweep()
    yield close(telemetry["energy_j"], 2 * 180 * result["duration"], "joules of the packages")
    need(telemetry["energy_from"] == "the energy counter of the package", telemetry["energy_from"])
    del counters, rows
    yield "it is said that they are the packages'"


@part
def a_counter_that_runs_backwards_once(machine):
    def odd(counter, passed):
        # Every five seconds, and so at least once while something is measured.
        counter.offset = -500_000_000 * int(passed / 5)
    cards = machine.sysfs(INTEL)
    machine.energy(cards[0], [1], lambda t: 120, odd)
    machine.energy(cards[1], [1], lambda t: 100)
    result, telemetry, _ = machine.sweep()
    need(any("dropped" in warning for warning in telemetry["warnings"]), dict(telemetry))
    yield "a warning: " + next(warning for warning in telemetry["warnings"] if "dropped" in warning)
    # The dropped stretch is missing in joules and in seconds alike, or else nothing is said.
    if telemetry["energy_j"] is not None:
        yield close(telemetry["energy_j"], 220 * result["duration"], "joules")


@part
def a_card_that_vanishes(machine):
    cards = machine.sysfs(INTEL)
    machine.energy(cards[0], [1], lambda t: 120)
    def gone(counter, passed):
        if passed > 7:
            counter.over.set()
            counter.files = []
            shutil.rmtree(cards[1] / "hwmon", ignore_errors=True)
    machine.energy(cards[1], [1], lambda t: 100, gone)
    _, telemetry, _ = machine.sweep()
    need(telemetry["power_w"] is None or telemetry["energy_j"] is None or telemetry["warnings"], telemetry)
    yield f"the measurement stands; energy {telemetry['energy_j']}, warnings {telemetry['warnings']}"


@part
def an_amd_card_without_a_counter(machine):
    for card, watts in zip(machine.sysfs(AMD), (110, 130)):
        next((card / "hwmon").iterdir()).joinpath("power1_average").write_text(f"{watts * 1_000_000}\n")
        (card / "gpu_busy_percent").write_text("97\n")
    Path("/dev/kfd").touch()
    result, telemetry, _ = machine.sweep()
    yield close(telemetry["energy_j"], 240 * result["duration"], "joules by power and time")
    need(telemetry["energy_from"] == "power times time", telemetry["energy_from"])


@part
def an_amd_card_of_which_only_the_tool_tells(machine):
    machine.sysfs(AMD)
    Path("/dev/kfd").touch()
    machine.tool("rocm-smi", ROCM_SMI)
    result, telemetry, _ = machine.sweep()
    yield close(telemetry["energy_j"], 240 * result["duration"], "joules by rocm-smi")


@part
def intel_cards_of_which_only_the_tool_tells(machine):
    machine.sysfs(INTEL)
    machine.tool("xpu-smi", XPU_SMI)
    result, telemetry, _ = machine.sweep()
    yield close(telemetry["energy_j"], 150 * result["duration"], "joules by xpu-smi dump")
    checked = machine.call("check", "--json", "--port", "auto", "--vllm-bin", str(machine.folder / "vllm"), code=None)
    line = next(line for line in json.loads(checked)["lines"] if line["name"] == "telemetry")
    need(line["level"] == "ok" and line["data"]["tool"] == "xpu-smi dump" and "power" in line["data"]["told"], line)
    yield "check says so: " + line["message"][:90]


@part
def nvidia_by_its_library(machine):
    if not shutil.which("cc"):
        yield "left out: no `cc` here"
        return
    (machine.folder / "nvml.c").write_text(NVML)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", machine.folder / "libnvidia-ml.so.1", machine.folder / "nvml.c"], check=True)
    machine.tool("nvidia-smi", NVIDIA_SMI)
    machine.env["LD_LIBRARY_PATH"] = str(machine.folder)
    result, telemetry, _ = machine.sweep()
    yield close(telemetry["energy_j"], 300 * result["duration"], "joules by NVML's counter")
    need("NVML" in telemetry["energy_from"], telemetry["energy_from"])
    need(any("throttled" in warning and "power-cap" in warning for warning in telemetry["warnings"]), telemetry["warnings"])
    yield "throttling is a warning with its reason"


@part
def nvidia_by_its_tool(machine):
    machine.tool("nvidia-smi", NVIDIA_SMI)
    result, telemetry, _ = machine.sweep()
    yield close(telemetry["energy_j"], 300 * result["duration"], "joules by nvidia-smi and time")


def inside(name: str, binary: Path, keep: bool) -> int:
    function = next(part for part in PARTS if part.__name__ == name)
    folder = Path(tempfile.mkdtemp(prefix="vllm-bench-telemetry-"))
    machine = Machine(binary, folder)
    wrong = None
    try:
        for line in function(machine):
            print(f"ok      {name}: {line}", flush=True)
    except (Failed, subprocess.SubprocessError, OSError, KeyError, StopIteration) as error:
        wrong = error
        print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
    for counter in machine.counters:
        counter.over.set()
    if keep or wrong:
        print(f"        kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--binary", type=Path, default=ROOT / "target/release/vllm-bench")
    words.add_argument("--only", action="append", default=[])
    words.add_argument("--list", action="store_true")
    words.add_argument("--keep", action="store_true")
    words.add_argument("--inside", help=argparse.SUPPRESS)
    asked = words.parse_args()
    names = [function.__name__ for function in PARTS]
    if asked.list:
        print("\n".join(names))
        return 0
    if asked.inside:
        return inside(asked.inside, asked.binary.resolve(), asked.keep)
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        print("left out: made-up devices need root and mount namespaces")
        return 77
    made = [path for path in ("/dev/dri",) if not Path(path).is_dir()]
    for path in made:
        os.mkdir(path)
    wrong = 0
    try:
        for name in [name for name in names if not asked.only or name in asked.only]:
            call = ["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs made-up /run; exec "$@"', "sh"]
            keep = ["--keep"] if asked.keep else []
            wrong += subprocess.run([*call, sys.executable, __file__, "--inside", name, "--binary", str(asked.binary), *keep]).returncode != 0
    finally:
        for path in made:
            os.rmdir(path)
        if Path("/dev/kfd").is_file():
            os.remove("/dev/kfd")
    print(f"{wrong} of the parts failed" if wrong else "all parts held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

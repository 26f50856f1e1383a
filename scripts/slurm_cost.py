#!/usr/bin/env python3
"""What a sweep costs the controller of a cluster: calls of sbatch and squeue by the minute, simulated for any size.

    scripts/slurm_cost.py [--experiments 100000] [--nodes 1000] [--devices-per-node 8] [--minutes 10] [--max-array-size 1001]
                          [--submit-limit 10000] [--poll 5] [--measure]

The front submits arrays of at most MaxArraySize - 1 tasks as long as the limit of tasks in the queue allows, and looks at the queue once in --poll
seconds, whatever the size. Tasks take --minutes each (log-normal, factor 1.5), on one device. --measure asks a real cluster (SLURM_CONF) what one look
at a queue of 1,000, 5,000 and 9,000 tasks costs it; without it, what was measured on the virtual cluster counts.
"""

import argparse
import heapq
import os
import random
import re
import subprocess
import time
from pathlib import Path

#: Seconds of the controller's CPU: for a look at the queue beside its tasks, for each task that it names, for an array that is submitted,
#: for a task that starts and ends. Measured on the virtual cluster (Slurm 22.05, two cores); --measure measures the first two again.
LOOK, PER_TASK, SUBMIT, LIFE = 0.001, 8e-6, 0.001, 0.0017
#: Bytes of a line of `squeue -h -r -o "%i|%t|%r"`.
LINE = 24


def simulate(args: argparse.Namespace) -> dict:
    draw = random.Random(1)
    slots = args.nodes * args.devices_per_node
    array = min(args.max_array_size - 1, args.submit_limit)
    waiting, pending, now = args.experiments, 0, 0.0
    ends: list[float] = []
    sbatch: list[float] = []
    looks = tasks_named = most_named = 0
    while waiting or pending or ends:
        # One look of the front: what ended is gone, what fits is submitted, and the scheduler starts what it can.
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        while waiting and len(ends) + pending + min(array, waiting) <= args.submit_limit:
            size = min(array, waiting)
            waiting, pending = waiting - size, pending + size
            sbatch.append(now)
        while pending and len(ends) < slots:
            pending -= 1
            heapq.heappush(ends, now + 60 * args.minutes * draw.lognormvariate(0, 0.4))
        looks += 1
        named = pending + len(ends)
        tasks_named += named
        most_named = max(most_named, named)
        now += args.poll
    minutes = now / 60
    peak = max((sum(1 for at in sbatch if begin <= at < begin + 60) for begin in sbatch), default=0)
    cpu = looks * LOOK + tasks_named * PER_TASK + len(sbatch) * SUBMIT + args.experiments * LIFE
    return {"hours": minutes / 60, "sbatch": len(sbatch), "sbatch_peak": peak, "squeue": looks, "per_minute": looks / minutes,
            "most": most_named, "kib": most_named * LINE / 1024, "cpu": cpu / minutes}


def measure() -> None:
    """One look at queues of several sizes, on the cluster of SLURM_CONF: seconds of the call and of the controller's CPU."""
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    pid = int(Path(re.search(r"SlurmctldPidFile=(\S+)", conf)[1]).read_text())
    ticks = os.sysconf("SC_CLK_TCK")

    def cpu() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    largest = int(re.search(r"MaxArraySize=(\d+)", conf)[1]) - 1
    for tasks in (1000, 5000, 9000):
        jobs, left, began = [], tasks, time.monotonic()
        before = cpu()
        while left:
            size = min(left, largest)
            said = subprocess.run(["sbatch", "--parsable", "--hold", f"--array=0-{size - 1}", "--output=/dev/null", "--wrap=true"],
                                  capture_output=True, text=True, check=True)
            jobs.append(said.stdout.strip())
            left -= size
        submitted, submit_cpu = time.monotonic() - began, cpu() - before
        time.sleep(2)
        before, began, lines = cpu(), time.monotonic(), 0
        for _ in range(20):
            lines = subprocess.run(["squeue", "-h", "-r", "-o", "%i|%t|%r"], capture_output=True, text=True, check=True).stdout.count("\n")
        print(f"{tasks} tasks: {len(jobs)} sbatch {submitted:.2f} s, CPU {submit_cpu:.2f} s; squeue of {lines} lines {(time.monotonic() - began) / 20:.3f} s, "
              f"controller's CPU {(cpu() - before) / 20:.4f} s")
        subprocess.run(["scancel", *jobs], check=True)
        time.sleep(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("experiments", 100_000), ("nodes", 1000), ("devices-per-node", 8), ("max-array-size", 1001), ("submit-limit", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--poll", type=float, default=5)
    parser.add_argument("--measure", action="store_true")
    args = parser.parse_args()
    if args.measure:
        measure()
        return
    found = simulate(args)
    print(f"{args.experiments} experiments of {args.minutes:g} min on {args.nodes} nodes of {args.devices_per_node} devices, arrays of at most "
          f"{args.max_array_size - 1}, at most {args.submit_limit} tasks in the queue, a look every {args.poll:g} s")
    print(f"  {found['hours']:.1f} h; sbatch {found['sbatch']} in all, at most {found['sbatch_peak']} in a minute; squeue {found['per_minute']:.1f} a minute, "
          f"{found['squeue']} in all, at most {found['most']} tasks named ({found['kib']:.0f} KiB)")
    print(f"  controller: about {found['cpu']:.2f} s of CPU a minute")
    print(f"  the cluster sweep's own program: sbatch {2 * args.experiments} (a job and a merge job for each), squeue none, and no limit on either")


if __name__ == "__main__":
    main()

"""Run directories of any size, made from one small real one: the same files, other settings and metrics."""

import copy
import hashlib
import json
import math
import random
from pathlib import Path


#: Tokens of a prompt and of an answer.
INPUT, OUTPUT = 512, 128


def grown(template: Path, target: Path, count: int, simulated: bool = True) -> Path:
    """Writes a run of `count` experiments like the first one of `template`; about one in fifteen of them failed."""
    manifest = json.loads((template / "manifest.json").read_text())
    experiment = next(one for one in manifest["plan"]["experiments"] if result_of(template, one).exists())
    result = json.loads(result_of(template, experiment).read_text())
    draw = random.Random(1)
    target.mkdir(parents=True)
    for folder in ("logs", "scripts"):
        (target / folder).mkdir()
    experiments = []
    for index, (settings, load) in enumerate(combinations(count), start=1):
        one = copy.deepcopy(experiment)
        tp, eager, seqs = settings
        one["index"] = index
        one["name"] = one["server_name"] = f"org_model_tp{tp}_eager-{str(eager).lower()}_seqs-{seqs}_c-{load}"
        one["identity"] = hashlib.sha256(one["name"].encode()).hexdigest()
        one["repeat"] = {"start": 1, "run": 1}
        one["axes"] = {"model": "org/model", "tensor-parallel-size": tp, "quantization": None, "enforce-eager": eager,
                       "server": {"max-num-seqs": str(seqs)}, "workload": {"max-concurrency": str(load)}}
        one["server"]["model"] = "org/model"
        one["server"]["flags"].update({"tensor-parallel-size": str(tp), "max-num-seqs": str(seqs)})
        one["workload"]["flags"].update({"max-concurrency": str(load), "num-prompts": str(10 * load),
                                         "random-input-len": str(INPUT), "random-output-len": str(OUTPUT)})
        experiments.append(one)
        if index % 15 == 7:
            continue  # never begun
        write_result(target, one, copy.deepcopy(result), draw, (tp, eager, seqs, load))
    manifest.update({"run": target.name, "simulated": simulated})
    manifest["plan"]["experiments"] = experiments
    manifest["plan"]["skips"] = []
    (target / "manifest.json").write_text(json.dumps(manifest))
    (target / "journal.jsonl").write_text("")
    return target


def result_of(run: Path, experiment: dict) -> Path:
    return run / f"{experiment['name']}_results.json"


def combinations(count: int):
    """`count` pairs of server settings and load, as a grid: the fewer loads the fewer there are."""
    loads = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    servers = [(tp, eager, seqs) for seqs in (64, 128, 256, 512, 1024, 96, 160, 192, 320, 384, 448, 640, 768) for tp in (1, 2, 4, 8) for eager in (False, True)]
    wide = 1 if count <= 4 else 5 if count <= 50 else 10
    return [(servers[index // wide], loads[index % wide]) for index in range(count)]


def write_result(target: Path, experiment: dict, result: dict, draw: random.Random, settings) -> None:
    tp, eager, seqs, load = settings
    batch = min(load, seqs)
    tpot = (14 + 0.11 * batch) / tp**0.7 * (1.35 if eager else 1) * draw.uniform(0.97, 1.03)
    ttft = (60 + 3.2 * load + max(0, load - seqs) * 9) / tp**0.5 * draw.uniform(0.95, 1.05)
    latency = ttft + (OUTPUT - 1) * tpot
    prompts, seconds = 10 * load, 10 * latency / 1000
    # Metrics that fit each other: what contradicts itself is shown as barred.
    rate = prompts / seconds
    result.update({"request_throughput": rate, "output_throughput": rate * OUTPUT, "total_token_throughput": rate * (INPUT + OUTPUT),
                   "max_concurrency": load, "num_prompts": prompts, "completed": prompts, "failed": 0, "duration": seconds,
                   "total_input_tokens": INPUT * prompts, "total_output_tokens": OUTPUT * prompts,
                   "max_concurrent_requests": load, "max_output_tokens_per_s": rate * OUTPUT * 1.1})
    for name, mean in (("ttft", ttft), ("tpot", tpot), ("itl", tpot)):
        spread = {"mean": 1, "median": 0.96, "std": 0.2, "p99": 1.6 + math.log1p(load) / 10}
        for statistic, factor in spread.items():
            result[f"{statistic}_{name}_ms"] = mean * factor
    meta = result["vllm_bench"]
    for key in ("name", "identity", "axes", "repeat"):
        meta[key] = experiment[key]
    meta["serve"], meta["bench"] = experiment["server"]["flags"], experiment["workload"]["flags"]
    meta["serve_command"] = ["vllm", "serve", "org/model", "--tensor-parallel-size", str(tp), "--max-num-seqs", str(seqs)]
    phases = ("importing", 9), ("configuring", 2), ("loading", 24 / tp), ("profiling", 4), ("compiling", 0 if eager else 31), ("capturing", 0 if eager else 7)
    steps = [{"phase": phase, "seconds": seconds * draw.uniform(0.9, 1.1)} for phase, seconds in phases if seconds]
    total = sum(step["seconds"] for step in steps)
    meta["timings"] = {"startup": total, "startup_phases": steps, "benchmark": 60.0, "teardown": 2.0, "total": total + 62}
    result_of(target, experiment).write_text(json.dumps(result))

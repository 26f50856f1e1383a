"""How often the program's decisions are right: it is asked about sweeps whose truth is known.

    python scripts/check_decisions.py [--binary target/release/vllm-bench] [--sweeps 2000] [--short] [--venv DIR]

Each shape is some configurations with true means, a noise between starts, and a number of starts. Its sweeps are written as result files,
one directory per server start, each sweep as a workload of its own, and `recommend --format json` answers all of them in one call. Printed
are, beside their aims, how often

- the true best is in the set of the best (aim: at least 95 %, where it is no exact tie),
- a configuration is called significantly better than every other one that equals it (aim: at most 5 %; 10 % with three starts of which one
  configuration is much noisier),
- a configuration that breaks a limit is recommended (aim: at most 5 % from three starts on),

with the members of the set beside those of comparisons with the best by one pooled variance (Dunnett's critical value, by simulation; aim: at
most 1.15 times as many from 8 configurations on), and what the choice loses on average and at worst beside the best mean. A share fails
only where its whole 95 % interval (Wilson) lies beyond the aim. Seeds are fixed. `--short`: 200 sweeps of a few shapes.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

from check_statistics import with_scipy

NOISE = 0.02


def wilson(count, n):
    """The 95 % interval of a share."""
    z, p = 1.959964, count / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def deviates(np, random, kind, shape):
    """Deviations of starts with a standard deviation of about 1."""
    if kind == "heavy tails":
        return random.standard_t(3, shape) / math.sqrt(3)
    if kind == "log-normal":
        return -(random.lognormal(0, 1, shape) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    if kind == "two humps":
        return np.where(random.random(shape) < 0.5, -1.0, 1.0) + 0.2 * random.standard_normal(shape)
    if kind == "outliers":
        return random.standard_normal(shape) - 5 * (random.random(shape) < 0.05)
    return random.standard_normal(shape)


def result(sweep, config, throughput, p99):
    """A result of `vllm bench serve` with these metrics."""
    return {
        "model_id": "org/m", "num_prompts": 100, "request_rate": "inf", "burstiness": sweep + 1, "max_concurrency": 1, "completed": 100, "failed": 0,
        "duration": 12800 / throughput, "total_input_tokens": 12800, "total_output_tokens": 12800,
        "request_throughput": throughput / 128, "output_throughput": throughput, "total_token_throughput": 2 * throughput,
        "mean_ttft_ms": 0.5 * p99, "p99_ttft_ms": p99, "mean_tpot_ms": 0.5, "run_number": 0, "max_num_seqs": config + 1,
    }


def ask(binary, throughput, p99, counts, flags):
    """The answers of the program, by sweep: values are [sweep, config, start]."""
    sweeps, configs, starts = throughput.shape
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for start in range(starts):
            place = os.path.join(folder, f"start{start}")
            os.mkdir(place)
            places.append(place)
            with open(os.path.join(place, "results.json"), "w") as file:
                one = lambda sweep, config: result(sweep, config, throughput[sweep, config, start], p99[sweep, config, start])
                here = [config for config in range(configs) if start < counts[config]]
                json.dump([one(sweep, config) for sweep in range(sweeps) for config in here], file)
        done = subprocess.run([binary, "recommend", *places, "--format", "json", *flags], capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"{done.returncode}: {done.stderr}")
    answers = {}
    for answer in json.loads(done.stdout)["answers"]:
        answers[round(float(answer["workload"].rsplit(" ", 1)[1])) - 1] = answer
    if sorted(answers) != list(range(sweeps)):
        sys.exit(f"{len(answers)} answers to {sweeps} sweeps")
    return [answers[sweep] for sweep in range(sweeps)]


def pooled_members(np, stats, random, logs):
    """Members of the set by comparisons with the best with one pooled variance."""
    sweeps, configs, starts = logs.shape
    freedom = configs * (starts - 1)
    z = random.standard_normal((20000, configs))
    chi = np.sqrt(random.chisquare(freedom, 20000) / freedom)
    critical = np.quantile(np.max(z[:, 1:] - z[:, :1], axis=1) / chi, 0.95)
    means, variance = logs.mean(axis=2), logs.var(axis=2, ddof=1).mean(axis=1)
    reach = critical * np.sqrt(variance / starts)
    return float((means >= means.max(axis=1, keepdims=True) - reach[:, None]).sum(axis=1).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default="target/release/vllm-bench")
    parser.add_argument("--sweeps", type=int, default=2000, help="sweeps of each shape")
    parser.add_argument("--short", action="store_true", help="200 sweeps of a few shapes")
    parser.add_argument("--only", help="shapes whose name has this word")
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "vllm-bench-statistics"))
    parser.add_argument("--inside", action="store_true")
    args = parser.parse_args()
    try:
        import numpy as np
        from scipy import stats
    except ImportError:
        if args.inside:
            raise
        with_scipy(args.venv, __file__)
    sweeps = 200 if args.short else args.sweeps
    failed = []

    def judge(what, count, n, aim, at_least):
        low, high = wilson(count, n)
        bad = high < aim if at_least else low > aim
        word = ">=" if at_least else "<="
        print(f"  {'WRONG' if bad else 'ok   '} {what}: {count / n:.3f} ({low:.3f} to {high:.3f}), aim {word} {aim}")
        if bad:
            failed.append(what)

    shapes = []
    for k in (2, 8, 30):
        for step in (0.0, 0.01, 0.03, 0.10):
            for starts in (3, 5, 8):
                shapes.append((k, step, "normal", [starts] * k, 1.0, 0.0))
        for kind in ("heavy tails", "log-normal", "two humps", "outliers"):
            for step in (0.0, 0.03):
                shapes.append((k, step, kind, [3] * k, 1.0, 0.0))
        for step in (0.0, 0.01, 0.10):
            for starts in (3, 5):
                shapes.append((k, step, "normal", [starts] * k, 4.5, 0.0))
        for step in (0.0, 0.01):
            shapes.append((k, step, "normal", [3 + 2 * i % 5 for i in range(k)], 1.0, 0.0))
            shapes.append((k, step, "normal", [3] * k, 1.0, 0.10))
        shapes.append((k, 0.01, "normal", [3 + 2 * i % 5 for i in range(k)], 4.5, 0.0))
    if args.short:
        shapes = [shape for shape in shapes if shape[0] == 8 and shape[1] in (0.0, 0.01) and shape[3][0] == 3][:14]
    for index, (k, step, kind, counts, noisy, drift) in enumerate(shapes):
        random = np.random.default_rng([2026, index])
        starts = max(counts)
        name = f"{k} configurations, steps of {100 * step:g} %, {kind}, {starts if min(counts) == starts else f'{min(counts)} to {starts}'} starts"
        name += f", the first {noisy} times as noisy" if noisy > 1 else ""
        name += f", drift of {100 * drift:g} % in turn" if drift else ""
        if args.only and args.only not in name:
            continue
        n = max(sweeps // 4, 100) if k == 30 and not args.short and args.sweeps <= 400 else sweeps
        noise = np.full((1, k, 1), NOISE)
        noise[0, 0, 0] *= noisy
        logs = -step * np.arange(k)[None, :, None] + noise * deviates(np, random, kind, (n, k, starts))
        # In turn: first starts of all, then second ones.
        logs = logs + drift * ((np.arange(starts)[None, :] * k + np.arange(k)[:, None]) / (starts * k))[None]
        throughput = 1000 * np.exp(logs)
        answers = ask(args.binary, throughput, np.full(logs.shape, 10.0), counts, [])
        print(name)
        held = called = members = 0
        losses, losses_of_mean = [], []
        for answer in answers:
            options = answer["options"]
            of = {option["name"]: place(option["name"], counts) for option in options}
            inside = [of[name] for name in answer["set"]]
            held += 0 in inside
            members += len(inside)
            called += answer["significantly_best"]
            losses.append(math.expm1(step * of[answer["choice"]["name"]]))
            losses_of_mean.append(math.expm1(step * of[options[0]["name"]]))
        if step == 0:
            print(f"        the first of the ties is in the set: {held / n:.3f} (reported, not promised)")
            few_and_noisy = noisy > 1 and starts == 3
            judge("one of equals is called significantly better", called, n, 0.10 if few_and_noisy else 0.05, False)
        else:
            judge("the true best is in the set", held, n, 0.95, True)
        ratio = ""
        if min(counts) == starts:
            pooled = pooled_members(np, stats, random, logs)
            ratio = f", pooled {pooled:.2f}, ratio {members / n / pooled:.3f}"
            if k >= 8 and noisy == 1 and kind == "normal" and members / n / pooled > 1.15:
                failed.append("members")
        print(f"        members of the set: {members / n:.2f}{ratio}")
        print(f"        loss of the choice: mean {100 * np.mean(losses):.2f} %, worst {100 * max(losses):.1f} %; of the best mean "
              f"{100 * np.mean(losses_of_mean):.2f} %, {100 * max(losses_of_mean):.1f} %", flush=True)
    for starts in (1, 3, 5):
        for noise in (0.02, 0.05, 0.10):
            name = f"limit: 8 configurations 5 % over it, a slower one 25 % below it, noise {100 * noise:g} %, {starts} starts"
            if args.only and args.only not in name:
                continue
            random = np.random.default_rng([2027, starts, int(1000 * noise)])
            means = np.array([[105.0] * 8 + [75.0]])[:, :, None]
            p99 = means * np.exp(noise * random.standard_normal((sweeps, 9, starts)))
            speed = np.where(np.arange(9) < 8, 1000.0, 800.0)[None, :, None] * np.exp(NOISE * random.standard_normal((sweeps, 9, starts)))
            answers = ask(args.binary, speed, p99, [starts] * 9, ["--slo", "ttft.p99<100"])
            chosen = [answer["choice"] and place(answer["choice"]["name"], [starts] * 9) for answer in answers]
            print(name)
            wrong, good = sum(c is not None and c < 8 for c in chosen), sum(c == 8 for c in chosen)
            if starts >= 3:
                judge("one that breaks the limit is recommended", wrong, sweeps, 0.05, False)
            else:
                unconfirmed = all(answer["choice"] is None or answer["limits_unconfirmed"] for answer in answers)
                print(f"  {'ok   ' if unconfirmed else 'WRONG'} one that breaks the limit is recommended: {wrong / sweeps:.3f}; each "
                      f"choice is marked unconfirmed: {unconfirmed}")
                if not unconfirmed:
                    failed.append(name)
            print(f"        the one that keeps it is recommended: {good / sweeps:.3f}", flush=True)
    if failed:
        sys.exit(f"{len(failed)} beyond their aims: {', '.join(failed)}")


def place(name, counts):
    """Which configuration a row is, by its place in the file of the first start, which has all of them."""
    return (int(name.rsplit("#", 1)[1]) - 1) % len(counts)


if __name__ == "__main__":
    main()

"""How often the program's decisions are right: it is asked about sweeps whose truth is known.

    python scripts/check_decisions.py [--binary target/release/vllm-bench] [--sweeps 2000] [--short] [--only WORDS] [--venv DIR]

Each shape is some configurations with true means, a noise between starts, and a number of starts. Its sweeps are written as result files,
one directory per server start, each sweep as a workload of its own, and `recommend --format json` answers many of them in one call. Shapes
are 2, 8 and 30 configurations, equal or in steps of 1, 3 and 10 %, with 3, 5, 8 starts and unequal numbers (3 to 7); the starts are normal,
have heavy tails, are log-normal, of two humps, or have outliers; the noise of the best is 4.5 times that of the others; the machine drifts by
10 % while configurations are measured in turn. Counted are, beside their aims, how often

- the true best is in the set of the best (aim: at least 95 %, where it is no exact tie; of ties it is printed),
- of equals one is called significantly better than every other one (aim: at most 5 %; 10 % where a configuration of three starts is several
  times noisier),
- a configuration that breaks a limit is recommended (aim: at most 5 % from three starts on; with fewer each choice is marked unconfirmed),
- a run in grouped order makes a claim (aim: never, and it says so),

with the members of the set beside those of comparisons with the best by one pooled variance (Dunnett's critical value, by simulation; aim: at
most 1.15 times as many from 8 configurations of the same normal noise on), and what the choice loses on average and at worst beside the
best mean. A share fails only where its whole 95 % interval (Wilson) lies beyond the aim. Seeds are fixed. `--short`: a few shapes, 150 sweeps.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

from shares import Aims, add_arguments, need_scipy

NOISE = 0.02


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
        "tensor-parallel-size": "1", "pipeline-parallel-size": "1", "data-parallel-size": "1",
    }


def ask(binary, throughput, p99, counts, flags, command=("recommend", "--format", "json"), read=None):
    """The answers of the program, by sweep: values are [sweep, config, start]. Large questions are asked in parts. `read` makes the
    answers by sweep of what the command prints."""
    sweeps, configs, starts = throughput.shape
    part = max(100000 // (configs * starts), 1)
    if sweeps > part:
        parts = [slice(first, first + part) for first in range(0, sweeps, part)]
        return [answer for one in parts for answer in ask(binary, throughput[one], p99[one], counts, flags, command, read)]
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
        done = subprocess.run([binary, command[0], *places, *command[1:], *flags], capture_output=True, text=True)
    if done.returncode not in (0, 3):
        sys.exit(f"{done.returncode}: {done.stderr}")
    answers = (read or by_sweep)(done.stdout)
    if sorted(answers) != list(range(sweeps)):
        sys.exit(f"{len(answers)} answers to {sweeps} sweeps")
    return [answers[sweep] for sweep in range(sweeps)]


def by_sweep(text):
    """The answers of `recommend` by the number of the sweep, which is in its workload."""
    return {round(float(answer["workload"].rsplit(" ", 1)[1])) - 1: answer for answer in json.loads(text)["answers"]}


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
    parser.add_argument("--short", action="store_true", help="150 sweeps of a few shapes")
    parser.add_argument("--only", help="shapes whose name has this word")
    add_arguments(parser)
    args = parser.parse_args()
    need_scipy(args, __file__)
    import numpy as np
    from scipy import stats

    sweeps = 150 if args.short else args.sweeps
    aims = Aims()
    print("configurations, step %, starts, kind, noise of the first | the best in the set, or of equals one called better | members, "
          "pooled, ratio | loss of the choice: mean, worst % | of the best mean")
    for index, (k, step, kind, counts, noisy, drift) in enumerate(short_shapes() if args.short else all_shapes()):
        random = np.random.default_rng([2026, index])
        starts = max(counts)
        number = starts if min(counts) == starts else f"{min(counts)} to {starts}"
        name = f"{k:2}, {100 * step:g} %, {number}, {kind}, x {noisy:g}" + (f", drift {100 * drift:g} %" if drift else "")
        if args.only and args.only not in name:
            continue
        noise = np.full((1, k, 1), NOISE)
        noise[0, 0, 0] *= noisy
        logs = -step * np.arange(k)[None, :, None] + noise * deviates(np, random, kind, (sweeps, k, starts))
        # In turn: first starts of all, then second ones.
        logs = logs + drift * ((np.arange(starts)[None, :] * k + np.arange(k)[:, None]) / (starts * k))[None]
        answers = ask(args.binary, 1000 * np.exp(logs), np.full(logs.shape, 10.0), counts, [])
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
            few_and_noisy = noisy > 1 and counts[0] == 3
            said = "called " + aims.judge(f"{name}: one of equals is called better", called, sweeps, 0.10 if few_and_noisy else 0.05, False)
            said += f", the first in the set {held / sweeps:.3f}"
        else:
            said = "held " + aims.judge(f"{name}: the true best is in the set", held, sweeps, 0.95, True)
        ratio = ""
        if min(counts) == starts and not drift:
            pooled = pooled_members(np, stats, random, logs)
            ratio = f", {pooled:.2f}, {members / sweeps / pooled:.3f}"
            if k >= 8 and noisy == 1 and kind == "normal" and members / sweeps / pooled > 1.15:
                aims.failed.append(f"{name}: members")
                ratio += " WRONG"
        print(f"{name} | {said} | {members / sweeps:.2f}{ratio} | {100 * np.mean(losses):.2f}, {100 * max(losses):.1f} | "
              f"{100 * np.mean(losses_of_mean):.2f}, {100 * max(losses_of_mean):.1f}", flush=True)
    print("limit: 8 configurations 5 % over it, a slower one 25 % below it; starts, noise | one that breaks it is recommended | the good one is")
    for starts, noise in [(1, 0.02), (3, 0.05)] if args.short else [(starts, noise) for starts in (1, 3, 5) for noise in (0.02, 0.05, 0.10)]:
        name = f"limit: {starts}, {100 * noise:g} %"
        if args.only and args.only not in name:
            continue
        random = np.random.default_rng([2027, starts, int(1000 * noise)])
        means = np.array([[105.0] * 8 + [75.0]])[:, :, None]
        p99 = means * np.exp(noise * random.standard_normal((sweeps, 9, starts)))
        speed = np.where(np.arange(9) < 8, 1000.0, 800.0)[None, :, None] * np.exp(NOISE * random.standard_normal((sweeps, 9, starts)))
        answers = ask(args.binary, speed, p99, [starts] * 9, ["--slo", "ttft.p99<100"])
        chosen = [answer["choice"] and place(answer["choice"]["name"], [starts] * 9) for answer in answers]
        wrong, good = sum(c is not None and c < 8 for c in chosen), sum(c == 8 for c in chosen)
        if starts >= 3:
            said = aims.judge(f"{name}: one that breaks the limit is recommended", wrong, sweeps, 0.05, False)
        else:
            unconfirmed = all(answer["choice"] is None or answer["limits_unconfirmed"] for answer in answers)
            said = f"{wrong / sweeps:.4f}, each choice is marked unconfirmed: {unconfirmed}"
            if not unconfirmed:
                aims.failed.append(name)
        print(f"{name} | {said} | {good / sweeps:.3f}", flush=True)
    if not args.only or args.only in "grouped order":
        answer = grouped(np, args.binary)
        good = answer["basis"] == "grouped-order" and not answer["significantly_best"] and not answer["set"]
        print(f"grouped order: basis {answer['basis']}, set {answer['set']}: {'ok' if good else 'WRONG'}")
        if not good or not any("one after the other" in sentence for sentence in answer["sentences"]):
            aims.failed.append("grouped order")
    aims.end()


def all_shapes():
    """Configurations, step, kind, starts of each, how many times noisier the first is, drift: all of the aims."""
    for k in (2, 8, 30):
        counts = [[3] * k, [5] * k, [8] * k, [3 + 2 * i % 5 for i in range(k)]]
        for step in (0.0, 0.01, 0.03, 0.10):
            for kind in ("normal", "heavy tails", "log-normal", "two humps", "outliers"):
                for of in counts:
                    yield k, step, kind, of, 1.0, 0.0
            for of in counts:
                yield k, step, "normal", of, 4.5, 0.0
            for of in counts[:3]:
                yield k, step, "normal", of, 1.0, 0.10


def short_shapes():
    """One of each aim: each can fail, and the weakest are among them."""
    unequal = [3 + 2 * i % 5 for i in range(8)]
    yield 2, 0.0, "normal", [3] * 2, 1.0, 0.0
    yield 8, 0.0, "normal", [3] * 8, 4.5, 0.0
    yield 8, 0.01, "normal", [3] * 8, 1.0, 0.0
    yield 8, 0.01, "normal", unequal, 4.5, 0.0
    yield 8, 0.01, "two humps", [3] * 8, 1.0, 0.0


def grouped(np, binary):
    """The answer of a run that measured one configuration after the other."""
    from check_compare import Copy, measured

    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(binary, measured(binary, folder, 3, 3, "grouped"), os.path.join(folder, "copy"))
        copy.write(np.exp(NOISE * np.random.default_rng(2031).standard_normal((3, 3, 3))))
        done = subprocess.run([binary, "recommend", copy.folder, "--format", "json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["answers"][0]


def place(name, counts):
    """Which configuration a row is, by its place in the file of the first start, which has all of them."""
    return (int(name.rsplit("#", 1)[1]) - 1) % len(counts)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Thirty ways to hand over a secret, and every place where bytes can land.

For each way a sweep on the simulated vLLM, or a load at a server that echoes what it is asked, is run with a random secret. The
program that plays vLLM prints all that it was given, as it is and encoded, cut into small writes. Then every command that shows or
copies a run is called. The secret is looked for, as it is and encoded, in: every file of the results (manifest, journal, scripts,
logs, results, failures, reports, backups, archives unpacked), what the program printed, the launch scripts in /tmp and the records of
live groups while they are there, and the command lines of all processes but the one that the user typed. A way that can only be
refused must be refused with exit code 2, and one that works must have worked: the server or the client says how long the secret was.

    scripts/secrets_test.py [--binary target/release/vllm-bench] [--only NAME]

Python 3.11, standard library only. It prints a table, and ends with 1 where a secret was found or did not arrive.
"""

from __future__ import annotations

import argparse
import base64
import glob
import html
import http.server
import json
import os
import random
import shlex
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from harness import HOME, discard, find_binary, free_port, read_bytes, read_proc, require_python, say, table, work_folder

MODEL = "org/tiny"


def new_secret() -> str:
    """Distinct in every place, with characters that encodings change."""
    alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    word = "".join(random.SystemRandom().choices(alphabet, k=18))
    return f"{word[:9]}/+{word[9:]}"


def forms(secret: str) -> list[bytes]:
    """How a secret could be written. The longest part of it that no encoding around it touches is enough."""
    plain = {
        secret,
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        secret.replace("/", "\\/"),
        html.escape(secret),
        html.escape(secret).replace("/", "&#x2f;"),
        shlex.quote(secret).strip("'"),
        secret.encode().hex(),
    }
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * before + secret.encode()).decode().rstrip("=")
            plain.add(text[(0, 2, 3)[before] : (before + len(secret)) // 3 * 4])
    return [form.lower().encode() for form in plain if len(form) >= 8]


def found_in(data: bytes, wanted: list[bytes]) -> bytes | None:
    data = data.lower()
    return next((form for form in wanted if form in data), None)


# ------------------------------------------------------------------------------------------------------------ servers


class Echo(http.server.BaseHTTPRequestHandler):
    """Refuses every request with all of it; says its models in a way that a terminal would act on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = {"data": [{"id": MODEL}]} if self.path == "/v1/models" else {}
        self.answer(200 if models else 404, json.dumps(models).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode(errors="replace")
        self.server.seen.append(str(self.headers) + body)
        said = {"error": {"message": f"refused: {dict(self.headers)} {body}"}}
        self.answer(401, json.dumps(said).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


TALKATIVE = r"""#!/bin/bash
# All that it was given, as it is and encoded, in small pieces.
{ env; env | base64 -w0; echo; cat /proc/self/environ | tr '\0' '\n' | tr a-z A-Z; echo "argv: $*"; } | dd bs=7 2>/dev/null
python3 - <<'END' 2>/dev/null
import json, os, urllib.parse, html
for value in os.environ.values():
    print(urllib.parse.quote(value, safe=""), json.dumps({"v": json.dumps(value)}), html.escape(value), value.encode().hex())
END
echo "$1 $(python3 -c 'import os,sys,json; print(json.dumps({k: len(v) for k, v in os.environ.items()}))')" >> "SEEN"
if [ "$1" = bench ]; then
  BINARY sim-vllm "$@"; code=$?
  args=("$@")
  for i in "${!args[@]}"; do
    [ "${args[$i]}" = --result-dir ] && dir=${args[$((i + 1))]}
    [ "${args[$i]}" = --result-filename ] && name=${args[$((i + 1))]}
  done
  RESULT="$dir/$name" python3 - <<'END'
import json, os
path = os.environ["RESULT"]
result = json.load(open(path))
result = {"environment": dict(os.environ), **result}
json.dump(result, open(path, "w"))
END
  exit $code
fi
exec BINARY sim-vllm "$@"
"""


# --------------------------------------------------------------------------------------------------------------- ways


@dataclass
class Way:
    """One way to hand over a secret."""

    name: str
    kind: str  # sweep, load
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    refused: bool = False
    # The variable in which the server or the client must see it, and how long it is there.
    arrives: tuple[str, int] | None = None
    # The server of a load must see it.
    sent: bool = False


def ways(secret: str) -> list[Way]:
    quoted = urllib.parse.quote(secret, safe="")
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    n = len(secret)

    def arg(flag: str, value: str) -> list[str]:
        return [flag, value]

    return [
        Way("exported HF_TOKEN", "sweep", env={"HF_TOKEN": secret}, arrives=("HF_TOKEN", n)),
        Way("exported VLLM_API_KEY", "sweep", env={"VLLM_API_KEY": secret}, arrives=("OPENAI_API_KEY", n)),
        Way("exported API_TOKENS", "sweep", env={"API_TOKENS": f"{secret},other-token"}, arrives=("API_TOKENS", n + 12)),
        Way("exported REGISTRY_AUTH", "sweep", env={"REGISTRY_AUTH": json.dumps({"auths": {"r.io": {"auth": basic}}})}),
        Way("exported WANDB_KEY", "sweep", env={"WANDB_KEY": secret}, arrives=("WANDB_KEY", n)),
        Way("exported DB_PASSWORD", "sweep", env={"DB_PASSWORD": secret}, arrives=("DB_PASSWORD", n)),
        Way("exported AWS_SECRET_ACCESS_KEY", "sweep", env={"AWS_SECRET_ACCESS_KEY": secret}),
        Way("exported GCP_CREDENTIALS (JSON)", "sweep", env={"GCP_CREDENTIALS": json.dumps({"private_key": secret})}),
        Way("exported CONFIG (JSON with a password)", "sweep", env={"CONFIG": json.dumps({"a": {"password": secret}})}),
        Way("exported DATABASE_URL", "sweep", env={"DATABASE_URL": f"postgres://user:{quoted}@db:5432/x"}),
        Way("exported https_proxy", "sweep", env={"https_proxy": f"http://user:{quoted}@proxy.invalid:911"}),
        Way("exported VLLM_BENCH_ENV", "sweep", env={"VLLM_BENCH_ENV": f"VLLM_BENCH_SIM_SPEED=inf\nHF_TOKEN={secret}"}, arrives=("HF_TOKEN", n)),
        Way(".env file", "sweep", env={"SOME_TOKEN": secret}, files={".env": f'export SOME_TOKEN="{secret}"\n'}),
        Way("prefix of another secret", "sweep", env={"A_TOKEN": secret[:12], "B_TOKEN": secret}, arrives=("B_TOKEN", n)),
        Way("--env HF_TOKEN=", "sweep", arg("--env", f"HF_TOKEN={secret}"), arrives=("HF_TOKEN", n)),
        Way("--env NAME of an exported one", "sweep", arg("--env", "MY_KEY"), env={"MY_KEY": secret}, arrives=("MY_KEY", n)),
        Way("--env https_proxy=", "sweep", arg("--env", f"https_proxy=http://user:{secret}@proxy.invalid:911")),
        Way("sweep file env", "sweep", ["sweep.yaml"], files={"sweep.yaml": f"env:\n  HF_TOKEN: '{secret}'\n"}, arrives=("HF_TOKEN", n)),
        Way("--env under another name", "sweep", arg("--env", f"PLAIN={secret}"), env={"HF_TOKEN": secret}, arrives=("PLAIN", n)),
        Way(
            "--bench-arg header, Bearer", "sweep", arg("--bench-arg", f"header=Authorization=Bearer {secret}"),
            arrives=("OPENAI_API_KEY", n),
        ),
        Way("--bench-arg header, other", "sweep", arg("--bench-arg", f"header=X-Gateway={secret}"), refused=True),
        Way(
            "--bench-arg header, builtin client", "sweep",
            ["--client", "builtin", "--bench-arg", f"header=X-Gateway={secret}"], arrives=("SECRET_HEADER_X_GATEWAY", n),
        ),
        Way(
            "--bench-arg extra-body, builtin client", "sweep",
            ["--client", "builtin", "--bench-arg", f"extra-body={json.dumps({'api_key': secret})}"],
            arrives=("SECRET_BODY_API_KEY", n),
        ),
        Way("--bench-arg extra-body", "sweep", arg("--bench-arg", f"extra-body={json.dumps({'api_key': secret})}"), refused=True),
        Way("--bench-arg metadata", "sweep", arg("--bench-arg", f"metadata=api_key={secret}"), refused=True),
        Way("--serve-arg api-key", "sweep", arg("--serve-arg", f"api-key={secret}"), refused=True),
        Way("--serve-arg hf-overrides", "sweep", arg("--serve-arg", f"hf-overrides={json.dumps({'token': secret})}"), refused=True),
        Way("a flag's value that is an exported secret", "sweep", arg("--serve-arg", f"revision={secret}"), env={"T_TOKEN": secret}, refused=True),
        Way("load: exported OPENAI_API_KEY", "load", env={"OPENAI_API_KEY": secret}, sent=True),
        Way("load: --api-key-file", "load", arg("--api-key-file", "key"), files={"key": secret + "\n"}, sent=True),
        Way("load: --header", "load", arg("--header", f"X-Gateway={secret}"), sent=True),
        Way("load: --header with ${NAME}", "load", arg("--header", "Authorization=Bearer ${MY}"), env={"MY": secret}, sent=True),
        Way("load: --extra-body", "load", arg("--extra-body", json.dumps({"auth": {"token": secret}})), sent=True),
        Way("load: --metadata", "load", arg("--metadata", f"password={secret}")),
        Way("load: --base-url with a password", "load", arg("--base-url", f"http://user:{quoted}@127.0.0.1:1"), refused=True),
        Way("load: --api-key, which there is not", "load", arg("--api-key", secret), refused=True),
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- trial


@dataclass
class Trial:
    """One way, tried."""

    way: Way
    binary: Path
    secret: str
    folder: Path
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    places: int = 0

    def look(self, place: str, data: bytes) -> None:
        self.places += 1
        form = found_in(data, self.wanted)
        if form is not None:
            at = data.lower().index(form)
            self.leaks.append(f"{place}: …{data[max(0, at - 60) : at + 80]!r}…")

    def run(self) -> None:
        self.wanted = forms(self.secret)
        self.results = self.folder / "results"
        (self.folder / "home").mkdir()
        for name, text in self.way.files.items():
            (self.folder / name).write_text(text)
        watcher = Watcher(self)
        watcher.start()
        try:
            (self.sweep if self.way.kind == "sweep" else self.load)()
        finally:
            watcher.stop()
        for name in self.way.files:
            (self.folder / name).unlink()
        self.look_at_files()

    def call(self, *words: str) -> subprocess.CompletedProcess:
        """Calls the program, as a user types it."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "SWEEP_MARKER": self.folder.name, **self.way.env}
        child = subprocess.Popen(
            [str(self.binary), *words], cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = child.communicate(timeout=300)
        name = " ".join(words[:3])
        self.look(f"stdout of {name}", out)
        self.look(f"stderr of {name}", err)
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def expect(self, done: subprocess.CompletedProcess, code: int) -> bool:
        if done.returncode != code:
            self.faults.append(f"exit code {done.returncode}, not {code}: {done.stderr.decode(errors='replace')[-600:]}")
        return done.returncode == code

    def sweep(self) -> None:
        seen = self.folder / "seen"
        vllm = self.folder / "vllm"
        text = TALKATIVE.replace("BINARY", str(self.binary)).replace("SEEN", str(seen))
        vllm.write_text(text)
        vllm.chmod(0o755)
        files = [word for word in self.way.args if word.endswith(".yaml")]
        more = [word for word in self.way.args if not word.endswith(".yaml")]
        words = [
            "run", *files, "--engine", "vllm", "--vllm-bin", str(vllm), "--setvars", "none", "--no-preflight",
            "--models", MODEL, "--tp", "1", "--quantization", "none", "--enforce-eager", "true", "--input-len", "8",
            "--output-len", "8", "--num-prompts", "2", "--concurrency", "1", "--retry", "none", "--keep-foreign",
            "--port", str(free_port()), "--results-dir", str(self.results), *more,
        ]  # fmt: skip
        # A flag takes the place of the variable.
        if "VLLM_BENCH_ENV" not in self.way.env:
            words += ["--env", "VLLM_BENCH_SIM_SPEED=inf"]
        if self.way.refused:
            self.expect(self.call(*words), 2)
            self.expect(self.call(*words, "--detach"), 2)
            return
        self.call(*words, "--dry-run")
        if not self.expect(self.call(*words, "--show-logs", "-vv"), 0):
            return
        if self.way.arrives:
            name, length = self.way.arrives
            given = [json.loads(line.split(" ", 1)[1]).get(name) for line in seen.read_text().splitlines()]
            if length not in given:
                self.faults.append(f"{name} did not arrive: {given}")
        self.show()
        if self.expect(self.call(*words, "--detach"), 0):
            self.wait_for_the_end()

    def wait_for_the_end(self) -> None:
        mark = f"SWEEP_MARKER={self.folder.name}".encode()
        end = time.monotonic() + 120
        while time.monotonic() < end:
            alive = [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in read_bytes(f"/proc/{pid}/environ").split(b"\0")]
            if not alive:
                return
            time.sleep(0.1)
        self.faults.append("the detached run does not end")

    def show(self) -> None:
        where = ("--results-dir", str(self.results))
        for words in (
            ("status",), ("status", "--json"), ("analyze",), ("analyze", "--format", "json"), ("analyze", "--format", "csv"),
            ("analyze", "--format", "markdown"), ("analyze", "--format", "html", "-o", "page.html"), ("report", "-o", "report.html"),
            ("recommend",), ("logs", "--no-follow"), ("backup",), ("backup", "--archive"),
        ):  # fmt: skip
            self.call(*words, *where)
        self.call("check")
        for path in self.results.glob("*/logs/*.log"):
            self.call("diagnose", str(path))

    def load(self) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [
            "load", "--base-url", f"http://127.0.0.1:{server.server_port}", "--num-prompts", "3", "--tokenizer", "none",
            "--no-server-metrics", "--save-result", "--save-detailed", "--result-dir", str(self.results), "--requests-csv",
            str(self.results / "requests.csv"), "--csv", str(self.results / "loads.csv"), *self.way.args,
        ]  # fmt: skip
        if self.way.refused and "--base-url" in self.way.args:
            words = words[:1] + words[3:]
        self.expect(self.call(*words), 2 if self.way.refused else 1)
        if self.way.sent and not any(found_in(text.encode(), self.wanted) for text in server.seen):
            self.faults.append("the server did not get it")
        server.shutdown()
        self.call("analyze", str(self.results), "--format", "json")

    def look_at_files(self) -> None:
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = str(path.relative_to(self.folder))
            self.look(f"file name {name}", name.encode())
            if name.endswith(".tar.gz"):
                with tarfile.open(path) as archive:
                    for member in archive.getmembers():
                        inner = archive.extractfile(member)
                        if inner:
                            self.look(f"{name}: {member.name}", inner.read())
            else:
                self.look(f"file {name}", path.read_bytes())


def parent(pid: int) -> int:
    """0 where the process is gone."""
    proc = read_proc(pid)
    return proc.parent if proc else 0


class Watcher(threading.Thread):
    """Looks at command lines, launch scripts and records of live groups while a way is tried."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(daemon=True)
        self.trial = trial
        self.over = threading.Event()
        self.known: set[tuple[str, bytes]] = set()

    def stop(self) -> None:
        self.over.set()
        self.join()

    def see(self, place: str, data: bytes) -> None:
        if data and (place, data) not in self.known:
            self.known.add((place, data))
            self.trial.look(place, data)

    def run(self) -> None:
        mark = f"SWEEP_MARKER={self.trial.folder.name}".encode()
        typed = set()
        while not self.over.wait(0.02):
            for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
                line = read_bytes(f"/proc/{pid}/cmdline")
                # What this script starts itself is what the user typed; between fork and exec its children show the same.
                if parent(int(pid)) == os.getpid():
                    typed.add(line)
                if line in typed or mark not in read_bytes(f"/proc/{pid}/environ").split(b"\0"):
                    continue
                # What the program that plays vLLM starts for itself is its own.
                if b"python3" not in line and b"sed" not in line:
                    self.see("command line of a process", line)
            for path in [*glob.glob("/tmp/vllm-bench-*.sh"), *glob.glob(str(HOME / "groups" / "*.json"))]:
                if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
                    self.see(path, read_bytes(path))


def main() -> int:
    require_python()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary")
    parser.add_argument("--only", help="only ways with this in their names")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    options = parser.parse_args()
    binary = find_binary(options.binary)
    rows, bad = [], 0
    for number in range(len(ways(new_secret()))):
        secret = new_secret()
        way = ways(secret)[number]
        if options.only and options.only not in way.name:
            continue
        trial = Trial(way, binary, secret, work_folder("secrets"))
        trial.run()
        outcome = "refused" if way.refused else "works"
        if trial.leaks or trial.faults:
            bad += 1
            outcome = "LEAKS" if trial.leaks else "FAULT"
        rows.append([number + 1, way.name, outcome, trial.places, len(trial.leaks)])
        say(f"{number + 1:3}  {outcome:8} {way.name}")
        for text in [*trial.leaks[:12], *trial.faults]:
            say(f"       {text}")
        if not options.keep:
            discard(trial.folder)
    say("\n" + table(["#", "way", "outcome", "places", "found"], rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Sweeps whose servers run in containers of a real podman: a start, a failure, Ctrl-C, kill -9 of the run, of its podman, and of run and
guard at once. After each, podman has no container of ours left. Needs root; installs podman from Debian's packages where there is none.

    scripts/container_test.py [--binary target/release/vllm-bench] [--only TEXT] [--keep]

The image holds a shell and this program, which plays `vllm` in it. Everything of podman is in a temporary folder."""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE = "localhost/vllm-sim:1"
LIMIT = 90

STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
CONTAINERS = """[containers]
cgroups = "enabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{1}"
[engine.runtimes]
{1} = ["{0}/bin/{1}"]
"""
# Podman asks for more open files than a sandbox may give: what runs the container leaves these limits as they are.
RUNTIME = """#!/usr/bin/env python3
import json, os, sys
for at, word in enumerate(sys.argv):
    if word in ("--bundle", "-b") and "create" in sys.argv:
        path = os.path.join(sys.argv[at + 1], "config.json")
        config = json.load(open(path))
        config["process"].pop("rlimits", None)
        json.dump(config, open(path, "w"))
os.execv("{0}", ["{0}", *sys.argv[1:]])
"""


def install():
    if shutil.which("podman") and (shutil.which("crun") or shutil.which("runc")):
        return
    for words in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "podman", "runc"]):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


class Scene:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.results = folder / "results"
        (folder / "home").mkdir()
        self.env = {**os.environ, "HOME": str(folder / "home"), "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
                    "CONTAINERS_CONF": str(folder / "containers.conf"), "VLLM_BENCH_DEVICE_LOCKS": str(folder / "locks")}
        (folder / "storage.conf").write_text(STORAGE.format(folder))
        (folder / "bin").mkdir()
        tried = None
        for runtime in ("crun", "runc"):
            if not (path := shutil.which(runtime)):
                continue
            (folder / "bin" / runtime).write_text(RUNTIME.format(path))
            (folder / "bin" / runtime).chmod(0o755)
            (folder / "containers.conf").write_text(CONTAINERS.format(folder, runtime))
            if tried is None:
                self.image()
            tried = self.podman("run", "--rm", "--network", "host", "--entrypoint", "vllm", IMAGE, "--version")
            if tried.returncode == 0:
                print(f"podman {self.podman('--version').stdout.split()[-1]} with {runtime}: `vllm --version` says {tried.stdout.strip()}")
                return
        sys.exit(f"podman cannot run here: {tried.stderr if tried else 'neither crun nor runc is there'}")

    def podman(self, *words):
        return subprocess.run(["podman", *words], text=True, capture_output=True, env=self.env)

    def image(self):
        """A root file system: a shell, this program as `vllm`, and the libraries of both."""
        root = self.folder / "root"
        files = {self.binary: "usr/bin/vllm-bench", Path(os.path.realpath("/bin/sh")): "bin/sh"}
        for program in list(files):
            for line in subprocess.run(["ldd", program], text=True, capture_output=True).stdout.splitlines():
                if found := re.search(r"(/\S+) \(0x", line):
                    files[Path(found[1])] = found[1].lstrip("/")
        for source, target in files.items():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(source), root / target)
        (root / "usr/bin/vllm").write_text('#!/bin/sh\nexec /usr/bin/vllm-bench sim-vllm "$@"\n')
        (root / "usr/bin/vllm").chmod(0o755)
        for name in ("tmp", "etc", "root"):
            (root / name).mkdir(exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        with tarfile.open(self.folder / "root.tar", "w") as tar:
            tar.add(root, arcname=".")
        made = self.podman("import", str(self.folder / "root.tar"), IMAGE)
        if made.returncode:
            sys.exit(f"podman import: {made.stderr}")

    def run(self, *more, fault=None):
        words = [self.binary, "run", "--container", IMAGE, "--container-runtime", "podman", "--setvars", "none", "--port", "auto",
                 "--models", "org/tiny", "--tp", "1", "--quantization", "none", "--enforce-eager", "true", "false", "--input-len", "8",
                 "--output-len", "8", "--num-prompts", "4", "--concurrency", "2", "--results-dir", self.results, "--retry", "none",
                 "--keep-foreign", "--grace", "5", "--env", "VLLM_BENCH_SIM_SPEED=inf", *more]
        if fault:
            words += ["--env", f"VLLM_BENCH_SIM_FAULT={fault}"]
        return subprocess.Popen([str(word) for word in words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.env,
                                start_new_session=True)

    def call(self, *words):
        return subprocess.run([self.binary, *words], text=True, capture_output=True, env=self.env, cwd=self.folder)

    def newest(self):
        found = [path for path in self.results.iterdir() if (path / "manifest.json").exists()]
        return max(found, key=lambda path: (path / "manifest.json").stat().st_mtime_ns)

    def events(self, kind=None):
        try:
            lines = (self.newest() / "journal.jsonl").read_text().splitlines()
        except (ValueError, FileNotFoundError):
            return []
        return [event for event in map(json.loads, lines) if kind in (None, event["event"])]

    def ours(self):
        return self.podman("ps", "--all", "--quiet", "--filter", "label=vllm-bench.run").stdout.split()

    def wait(self, what, condition):
        began = time.monotonic()
        while not (found := condition()):
            if time.monotonic() - began > LIMIT:
                raise AssertionError(f"waited in vain for: {what}")
            time.sleep(0.05)
        return found

    def none_left(self):
        began = time.monotonic()
        self.wait("no container of ours", lambda: not self.ours())
        return time.monotonic() - began

    def measuring(self, fault="benchmark-hangs"):
        """A run whose first measurement never ends."""
        before = {path.name for path in self.results.glob("*")}
        run = self.run(fault=fault)
        self.wait("a measurement", lambda: self.newest_after(before) and self.events("benchmark-launched"))
        self.wait("the containers of server and client", lambda: len(self.ours()) == 2)
        return run

    def newest_after(self, before):
        return self.results.exists() and any(path.name not in before and (path / "manifest.json").exists() for path in self.results.iterdir())


def proofs(scene):
    found = [event["proof"] for event in scene.events("torn-down")]
    assert found and all(proof["group_empty"] is True and proof["port_closed"] is True for proof in found), found
    return len(found)


def starts(scene):
    run = scene.run()
    said, _ = run.communicate(timeout=LIMIT)
    assert run.returncode == 0 and "2 of 2 passed" in said, said
    assert not scene.ours()
    return f"2 of 2 passed, {proofs(scene)} proofs"


def failure(scene):
    run = scene.run(fault="level-zero@eager=true")
    said, _ = run.communicate(timeout=LIMIT)
    assert run.returncode == 1 and "1 of 2 passed" in said, said
    assert not scene.ours()
    failed = next(scene.newest().glob("*_failure.json"))
    return f"{json.loads(failed.read_text())['cause']}, {proofs(scene)} proofs"


def interrupted(scene):
    run = scene.measuring()
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=LIMIT)
    assert run.returncode == 130, run.returncode
    assert not scene.ours()
    return f"exit code 130, {proofs(scene)} proofs"


def killed(scene):
    run = scene.measuring()
    run.kill()
    run.communicate(timeout=LIMIT)
    return f"gone after {scene.none_left():.1f} s"


def client_killed(scene):
    run = scene.measuring("benchmark-hangs@eager=true")
    leader = scene.events("server-launched")[-1]["process"]["pid"]
    assert b"podman\0run\0" in Path(f"/proc/{leader}/cmdline").read_bytes(), leader
    os.kill(leader, signal.SIGKILL)
    said, _ = run.communicate(timeout=LIMIT)
    assert run.returncode == 1, said
    return f"exit code 1, gone after {scene.none_left():.1f} s"


def both_killed(scene):
    run = scene.measuring()
    ours = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == run.pid and is_guard(pid)]
    assert ours
    for pid in [run.pid, *ours]:
        os.kill(pid, signal.SIGSTOP)
    for pid in [run.pid, *ours]:
        os.kill(pid, signal.SIGKILL)
    run.wait()
    time.sleep(0.5)
    left = len(scene.ours())
    stopped = scene.call("stop", "--results-dir", str(scene.results))
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    return f"{left} left, `stop` ended them, gone after {scene.none_left():.1f} s"


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def is_guard(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"vllm-bench-guard\0")
    except OSError:
        return False


CHECKS = {"a sweep": starts, "a failure": failure, "Ctrl-C": interrupted, "kill -9 of the run": killed,
          "kill -9 of podman's client": client_killed, "kill -9 of run and guards": both_killed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/vllm-bench")
    parser.add_argument("--only", default="", help="checks whose name has this text")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("root is needed: podman without root needs more of a machine than a test may ask for")
    install()
    if "VB_PRIVATE_TMP" not in os.environ:
        # What a killed run leaves is ended by the next vllm-bench of this user: none but ours may find it.
        os.environ["VB_PRIVATE_TMP"] = "1"
        private = 'mount -t tmpfs tmpfs /tmp && exec "$@"'
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "sh", "-c", private, "sh", sys.executable, *sys.argv])
    folder = Path(tempfile.mkdtemp(prefix="vb-containers-"))
    bad = 0
    try:
        scene = Scene(args.binary.resolve(), folder)
        others = scene.podman("run", "--detach", "--network", "host", "--name", "another", "--entrypoint", "vllm", IMAGE, "serve", "m",
                              "--port", "28765")
        assert others.returncode == 0, others.stderr
        for name, check in CHECKS.items():
            if args.only not in name:
                continue
            began = time.monotonic()
            try:
                print(f"ok    {name}: {check(scene)} ({time.monotonic() - began:.0f} s)", flush=True)
            except (AssertionError, subprocess.TimeoutExpired) as wrong:
                bad += 1
                print(f"WRONG {name}: {wrong}", flush=True)
                scene.call("stop", "--now", "--results-dir", str(scene.results))
        another = scene.podman("ps", "--quiet", "--filter", "name=another").stdout.split()
        bad += len(another) != 1
        state = scene.podman("inspect", "--format", "{{json .State}}", "another").stdout.strip()
        print("ok    another container goes on" if another else f"WRONG another container was ended: {state}")
        scene.podman("rm", "--force", "--all", "--time", "0")
    finally:
        if args.keep or bad:
            print(f"the folder stays while this shell's /tmp does: {folder}") if args.keep else None
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

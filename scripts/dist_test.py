#!/usr/bin/env python3
"""Tries what `scripts/dist.sh` made where it is meant to run: in root file systems of an older and a newer Debian, and in a fresh virtual
environment beside another `vllm-bench`. Prints sizes and seconds. Needs root, debootstrap and Debian's mirror; `.ci/run` does not call it.

    scripts/dist.sh && scripts/dist_test.py [--dist dist] [--suites bullseye trixie] [--roots DIR]"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = "vllm-bench-sweep"


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, text=True, capture_output=True, **more).stdout


def first_command():
    """What README has its reader type first, without cargo."""
    line = re.search(r"^\$ cargo run --release -- (run .*)$", (REPOSITORY / "README.md").read_text(), re.M)
    return shlex.split(line[1])


def root_of(suite, folder, mirror):
    """A minimal root file system of a release of Debian."""
    root = folder / suite
    if not (root / "bin/bash").exists():
        print(f"debootstrap of {suite} …", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", suite, root, mirror], check=True, stdout=subprocess.DEVNULL)
    return root


def inside(root, words):
    """Runs a command with this root: processes, mounts and names of its own."""
    setup = ('set -e; mount --bind "$0" "$0"; cd "$0"; mount -t proc proc proc; mount --rbind /dev dev; mount -t tmpfs tmpfs tmp; '
             'exec chroot . "$@"')
    unshare = ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "bash", "-c", setup, root]
    return subprocess.run([str(word) for word in [*unshare, *words]], text=True, capture_output=True,
                          env={"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"})


def in_debian(archive, suite, folder, mirror):
    root = root_of(suite, folder, mirror)
    with tarfile.open(archive) as packed:
        binary = next(member for member in packed.getmembers() if member.name.endswith("/vllm-bench"))
        target = root / "usr/local/bin/vllm-bench"
        target.write_bytes(packed.extractfile(binary).read())
        target.chmod(0o755)
    glibc = inside(root, ["ldd", "--version"]).stdout.splitlines()[0].split()[-1]
    began = time.monotonic()
    done = inside(root, ["vllm-bench", *first_command(), "--results-dir", "/tmp/results"])
    seconds = time.monotonic() - began
    good = done.returncode == 0 and "27 of 27 passed" in done.stdout + done.stderr
    print(f"{archive.name} on Debian {suite} (glibc {glibc}): {'27 of 27 passed' if good else 'FAILED'} in {seconds:.0f} s")
    if not good:
        print(done.stdout[-2000:], done.stderr[-2000:])
    checked = inside(root, ["vllm-bench", "check"])
    print("  " + next((line for line in (checked.stdout + checked.stderr).splitlines() if "program" in line), "no line of `check`"))
    return good


def other_vllm_bench(folder):
    """A wheel that puts a program `vllm-bench` where pip puts programs, as vLLM's does."""
    wheel = folder / "vllm-99.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm-99.0.data/scripts/vllm-bench", "#!/bin/sh\necho the one of vLLM\n")
        archive.writestr("vllm-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 99.0\n")
        archive.writestr("vllm-99.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("vllm-99.0.dist-info/RECORD", "")
    return wheel


def in_venv(wheel, folder):
    """Both orders of installation: neither takes the other's program away."""
    other = other_vllm_bench(folder)
    good = True
    for order in ([other, wheel], [wheel, other]):
        home = folder / f"venv-{order.index(wheel)}"
        venv.create(home, with_pip=True)
        bin_ = home / "bin"
        for one in order:
            run(bin_ / "pip", "install", "--no-deps", "--no-index", one)
        theirs = run(bin_ / "vllm-bench").strip() if os.access(bin_ / "vllm-bench", os.X_OK) else "gone"
        path = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}
        began = time.monotonic()
        done = subprocess.run([bin_ / PROGRAM, *first_command(), "--results-dir", home / "results"], text=True, capture_output=True)
        seconds = time.monotonic() - began
        version = run(bin_ / "python", "-m", "vllm_bench_sweep", "--version").strip()
        checked = subprocess.run([bin_ / PROGRAM, "check"], text=True, capture_output=True, env=path).stdout
        line = next((line for line in checked.splitlines() if "alone starts" in line), "")
        passed = done.returncode == 0 and "27 of 27 passed" in done.stdout + done.stderr
        fine = passed and theirs == "the one of vLLM" and str(bin_ / "vllm-bench") in line
        print(f"{wheel.name}: {PROGRAM} {'ran README' if passed else 'FAILED'} in {seconds:.0f} s; `vllm-bench` is {theirs!r}; {version}")
        print(f"  {line.strip()}")
        if not fine:
            print(done.stdout[-2000:], done.stderr[-2000:], checked)
        run(bin_ / "pip", "uninstall", "--yes", PROGRAM)
        fine &= not (bin_ / PROGRAM).exists() and (bin_ / "vllm-bench").exists()
        good &= fine
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--suites", nargs="*", default=["bullseye", "trixie"], help="an older and a newer release of Debian")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--roots", type=Path, default=REPOSITORY / "target/roots", help="where the root file systems are kept")
    args = parser.parse_args()
    args.roots.mkdir(parents=True, exist_ok=True)

    machine = os.uname().machine
    archives = sorted(args.dist.glob(f"*-{machine}-*.tar.gz"))
    wheels = sorted(args.dist.glob(f"*_{machine}.whl"))
    if not archives or not wheels:
        sys.exit(f"nothing of {machine} in {args.dist}: call scripts/dist.sh before")
    good = True
    for file in [*archives, *wheels]:
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    for archive in archives:
        for suite in args.suites:
            good &= in_debian(archive, suite, args.roots, args.mirror)
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as folder:
            good &= in_venv(wheel, Path(folder))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

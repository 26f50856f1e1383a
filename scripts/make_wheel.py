#!/usr/bin/env python3
"""Packs a binary as a wheel for pip. Standard library only; `scripts/dist.sh` calls it.

The package is `vllm-bench-sweep`, and so is its program: vLLM's own package has a `vllm-bench`, and pip overwrites without a word what
another package has put there. `python -m vllm_bench_sweep` starts the same program."""

import argparse
import base64
import hashlib
import re
import zipfile
from pathlib import Path

PACKAGE, MODULE = "vllm-bench-sweep", "vllm_bench_sweep"
MAIN = f'''"""Starts the program of this package, wherever pip has put it."""

import os
import sys
import sysconfig
from importlib.metadata import distribution


def program():
    for file in distribution("{PACKAGE}").files or []:
        if file.name == "{PACKAGE}":
            return os.path.realpath(file.locate())
    return os.path.join(sysconfig.get_path("scripts"), "{PACKAGE}")


os.execv(program(), [program(), *sys.argv[1:]])
'''


def tags(target, glibc):
    architecture, libc = re.fullmatch(r"(\w+?)-unknown-linux-(gnu|musl)", target).groups()
    if libc == "musl":
        # Linked statically, it runs on either.
        return [f"py3-none-{name}_{architecture}" for name in ("manylinux_2_17", "musllinux_1_1")]
    return [f"py3-none-manylinux_{glibc.replace('.', '_')}_{architecture}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--target", required=True, help="of rustc, such as x86_64-unknown-linux-gnu")
    parser.add_argument("--glibc", default="2.28", help="the oldest with which it runs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    root = Path(__file__).resolve().parent.parent
    manifest = (root / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.*)"$', manifest, re.M)[1]
    summary = re.search(r'^description = "(.*)"$', manifest, re.M)[1]
    wheel_tags = tags(args.target, args.glibc)
    info, data = f"{MODULE}-{version}.dist-info", f"{MODULE}-{version}.data"
    readme = (root / "README.md").read_text()
    files = {
        f"{MODULE}/__init__.py": (f'__version__ = "{version}"\n'.encode(), 0o644),
        f"{MODULE}/__main__.py": (MAIN.encode(), 0o644),
        f"{data}/scripts/{PACKAGE}": (args.binary.read_bytes(), 0o755),
        f"{info}/licenses/LICENSE": ((root / "LICENSE").read_bytes(), 0o644),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\nSummary: {summary}\nLicense: Apache-2.0\n"
            f"Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{readme}".encode(), 0o644),
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: vllm-bench\nRoot-Is-Purelib: false\n".encode()
            + "".join(f"Tag: {tag}\n" for tag in wheel_tags).encode(), 0o644),
    }
    record = ""
    for name, (content, _) in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = (f"{record}{info}/RECORD,,\n".encode(), 0o644)

    # `py3-none-a.b`: a wheel of several platforms has them all in its name.
    platforms = ".".join(tag.removeprefix("py3-none-") for tag in wheel_tags)
    wheel = args.out / f"{MODULE}-{version}-py3-none-{platforms}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (content, mode) in files.items():
            # The same bytes make the same wheel.
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, (0o100000 | mode) << 16
            archive.writestr(entry, content)
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

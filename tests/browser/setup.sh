#!/usr/bin/env bash
# Installs what the browser test needs: Debian's chromium (when it is missing and we are root) and playwright, in a virtual
# environment of its own. playwright's own browsers are not downloaded.
#
#   tests/browser/setup.sh [DIR]     install into DIR, or say at once that it is there
#   tests/browser/setup.sh --where   print the default DIR and end
#
# DIR     default ${VLLM_BENCH_BROWSER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vllm-bench/browser}
# PYTHON  the interpreter to use (default: python3)
#
# DIR/stamp is written last, so a broken half is never taken for done.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'browser: %s\n' "$*"; }
die() { printf 'browser: error: %s\n' "$1" >&2; shift; (($#)) && printf '  %s\n' "$@" >&2; exit 1; }

case ${1-} in
  -h | --help) sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
default_dir=${VLLM_BENCH_BROWSER_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vllm-bench/browser}
if [[ ${1-} == --where ]]; then printf '%s\n' "$default_dir"; exit 0; fi
[[ ${1-} != -* ]] || die "unknown option $1" "usage: setup.sh [DIR]"
dir=${1:-$default_dir}
mkdir -p -- "$dir" || die "cannot make $dir"
dir=$(cd "$dir" && pwd)

exec 9>"$dir/lock"
flock -n 9 || { say "another set-up is at work in $dir; waiting for it"; flock 9; }

browser_there() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if ! browser_there >/dev/null; then
  ((EUID == 0)) || die "no chromium on the PATH" "Debian or Ubuntu: apt-get install chromium"
  say "installing chromium"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } >"$dir/apt.log" 2>&1 \
    || { tail -n 20 "$dir/apt.log" >&2; die "apt-get could not install chromium" "the whole output is in $dir/apt.log"; }
fi

# The path is part of it: a virtual environment that was moved does not work.
want="$(cat "$here"/{setup.sh,requirements.txt} | sha256sum | cut -d' ' -f1) $dir"
if [[ -f $dir/stamp && $(<"$dir/stamp") == "$want" && -x $dir/venv/bin/python ]]; then say "ready in $dir"; exit 0; fi

rm -rf -- "$dir/stamp" "$dir/venv"
"${PYTHON:-python3}" -m venv "$dir/venv" || die "no Python with venv" "Debian or Ubuntu: apt-get install python3-venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
  --progress-bar off -r "$here/requirements.txt" >"$dir/pip.log" 2>&1 \
  || { tail -n 20 "$dir/pip.log" >&2; die "pip could not install playwright" "the whole output is in $dir/pip.log"; }
printf '%s\n' "$want" >"$dir/stamp.new"
mv -- "$dir/stamp.new" "$dir/stamp"
say "ready in $dir"

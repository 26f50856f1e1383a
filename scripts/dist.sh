#!/usr/bin/env bash
# Makes what is given away: a binary that runs on every Linux with glibc 2.28 or newer (2018), as an archive and as a wheel for pip.
#
#   scripts/dist.sh [OUT]            OUT is `dist` where it is not named
#
# Needed: Rust, Python 3 with venv, network. zig (the linker that knows old glibcs) comes from PyPI into target/dist-tools.
# TARGETS names what is built, such as "x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl"; without it, this
# machine's architecture with glibc, and with musl where `rustup target list --installed` has it. A static (musl) build loads no NVML.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-dist}
tools=target/dist-tools
glibc=2.28
version=$(sed -n '0,/^version = "\(.*\)"$/s//\1/p' Cargo.toml)
here=$(uname -m)
installed=$(rustup target list --installed 2>/dev/null || rustc -vV | sed -n 's/^host: //p')

if [[ -z ${TARGETS:-} ]]; then
  TARGETS=$here-unknown-linux-gnu
  if grep -qx "$here-unknown-linux-musl" <<<"$installed"; then
    TARGETS+=" $here-unknown-linux-musl"
  else
    echo "no static build: \`rustup target add $here-unknown-linux-musl\` makes one possible"
  fi
fi

if [[ ! -x $tools/bin/cargo-zigbuild ]]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" --quiet install 'cargo-zigbuild==0.20.*' 'ziglang==0.13.*'
fi
export PATH=$PWD/$tools/bin:$PATH

mkdir -p "$out"
for target in $TARGETS; do
  case $target in
    *-gnu) asked=$target.$glibc ;;
    *) asked=$target ;;
  esac
  cargo zigbuild --release --locked --target "$asked"
  built=${CARGO_TARGET_DIR:-target}/$target/release/vllm-bench
  name=vllm-bench-$version-$target
  folder=$(mktemp -d)
  mkdir "$folder/$name"
  cp "$built" README.md QUICK_REFERENCE.md CHANGELOG.md LICENSE "$folder/$name/"
  tar -C "$folder" --owner=0 --group=0 --sort=name -czf "$out/$name.tar.gz" "$name"
  rm -r "$folder"
  python3 scripts/make_wheel.py --binary "$built" --target "$target" --glibc "$glibc" --out "$out"
done
(cd "$out" && sha256sum -- *.tar.gz *.whl >SHA256SUMS && ls -l -- *.tar.gz *.whl)

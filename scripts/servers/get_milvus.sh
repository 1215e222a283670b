#!/bin/bash
# Gets a Milvus standalone server, etcd and message queue inside, into
# $LEAT_CACHE/servers/milvus: 58 MB of download, 246 MB on disk, some seconds.
# Needs Linux on x86-64 and Python 3 with pip. Does nothing if it is there.
#
# The server comes out of a Python package; nothing of the package is run.
set -euo pipefail

CACHE=${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}
SERVERS=$CACHE/servers
VERSION=2.3.5
SHA256=69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04 # of the package

say() { echo "servers: milvus: $*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$SERVERS"
exec 9>"$SERVERS/.milvus.lock"
flock -n 9 || { say "waiting for another process that is fetching it"; flock 9; }
if [ "$(cut -d' ' -f1 "$SERVERS/milvus/manifest.txt" 2>/dev/null)" = milvus==$VERSION ]; then
	say "$VERSION is in $SERVERS/milvus"
	exit 0
fi
OTHERWISE="To test with a running server, name it: LEAT_TEST_MILVUS=host:port"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "there is a server for Linux on x86-64 only. $OTHERWISE"
PYTHON=$(command -v python3) || die "python3 is not on the PATH: install Python 3 with pip (Debian: apt-get install python3-pip). $OTHERWISE"
FREE=$(df -Pm "$SERVERS" | awk 'NR == 2 { print $4 }')
[ "$FREE" -ge 600 ] || die "needs 600 MB of room in $SERVERS while it unpacks, $FREE are free"

STARTED=$SECONDS
NEW=$SERVERS/.milvus.new
rm -rf "$NEW"
mkdir -p "$NEW/bin" "$NEW/.get"
trap 'rm -rf "$NEW"' EXIT

if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
	"$PYTHON" -m venv "$NEW/.get/venv" >&2 || die "python3 has neither pip nor venv: install one (Debian: apt-get install python3-pip)"
	PYTHON=$NEW/.get/venv/bin/python
fi
say "downloading $VERSION: 58 MB"
# The platform is named so that any Python takes this package.
"$PYTHON" -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --platform manylinux2014_x86_64 \
	--dest "$NEW/.get" milvus==$VERSION >&2 9>&- || die "download failed (see above)"
WHEEL=$(echo "$NEW"/.get/*.whl)
echo "$SHA256  $WHEEL" | sha256sum --quiet -c - >&2 || die "the package is not the one that was tested"

say "unpacking"
"$PYTHON" - "$WHEEL" "$NEW" <<-'END' || die "unpacking failed (see above)"
	import lzma, os, shutil, sys, zipfile

	wheel, to = sys.argv[1:]
	with zipfile.ZipFile(wheel) as z:
	    for name in z.namelist():
	        base = os.path.basename(name)
	        if name.startswith("milvus/data/bin/") and base.endswith(".lzma"):
	            path, unpack = os.path.join(to, "bin", base[:-5]), lzma.open
	        elif name in ("milvus/data/config.yaml.template", "milvus/data/glog.conf") or base == "LICENSE":
	            path, unpack = os.path.join(to, base), lambda f: f
	        else:
	            continue
	        with z.open(name) as f, open(path, "wb") as out:
	            shutil.copyfileobj(unpack(f), out, 1 << 20)
	        if unpack is lzma.open:
	            os.chmod(path, 0o755)
END
MISSING=$(LD_LIBRARY_PATH="$NEW/bin" ldd "$NEW/bin/milvus" | grep 'not found' || true)
[ -z "$MISSING" ] || die "libraries are missing on this machine: $MISSING. $OTHERWISE"
rm -rf "$NEW/.get"
echo "milvus==$VERSION $SHA256" >"$NEW/manifest.txt"
rm -rf "${SERVERS:?}/milvus"
mv -T "$NEW" "$SERVERS/milvus"
say "$VERSION is in $SERVERS/milvus ($(du -sm "$SERVERS/milvus" | cut -f1) MB, $((SECONDS - STARTED)) s)"

#!/bin/bash
# Builds a MinIO server from its Go module into $LEAT_CACHE/servers/minio: from
# 90 s to 15 minutes, 110 MB. Does nothing if it is there.
#
# The module is checked by its checksum below, and what it needs by the go.sum
# in it. Versions after this one, up to 2026-02-12, never flush the answer of
# ListenBucketNotification.
set -euo pipefail

CACHE=${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}
SERVERS=$CACHE/servers
MODULE=github.com/minio/minio
VERSION=v0.0.0-20250907161309-07c3a429bfed
SUM=h1:deu0m9BiyqnMbGWfJi1PpVyotSXlDnTmRIme1cUXnxo=
RELEASE=2025-09-07T16-13-09Z

say() { echo "servers: minio: $*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$SERVERS"
exec 9>"$SERVERS/.minio.lock"
flock -n 9 || { say "waiting for another process that is building it"; flock 9; }
if [ "$(cut -d' ' -f2 "$SERVERS/minio/manifest.txt" 2>/dev/null)" = $VERSION ]; then
	say "RELEASE.$RELEASE is in $SERVERS/minio"
	exit 0
fi
command -v go >/dev/null || die "go is not on the PATH: leat needs Go 1.26 or newer. To test with a running server, name it: LEAT_TEST_MINIO=user:password@host:port"

STARTED=$SECONDS
NEW=$SERVERS/.minio.new
rm -rf "$NEW"
mkdir -p "$NEW"
trap 'rm -rf "$NEW"; [ -z "${PULSE:-}" ] || kill "$PULSE" 2>/dev/null || true' EXIT

export CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" GOWORK=off
say "downloading $MODULE@$VERSION"
INFO=$(cd "$NEW" && go mod download -json $MODULE@$VERSION) || die "the module could not be downloaded: $INFO"
field() { sed -n "s/^[[:space:]]*\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" <<<"$INFO"; }
[ "$(field Sum)" = $SUM ] || die "the module has the checksum $(field Sum), not $SUM: it is not the one that was tested"
DIR=$(field Dir)

say "downloading what it needs"
(cd "$DIR" && go mod download) 9>&- || die "download failed (see above)"
say "compiling: up to 15 minutes where nothing of it is in Go's build cache"
(while sleep 30 >/dev/null 2>&1; do say "compiling, $((SECONDS - STARTED)) s"; done) 9>&- &
PULSE=$!
TIME=${RELEASE%T*}T$(tr - : <<<"${RELEASE#*T}")
(cd "$DIR" && go build -trimpath -tags kqueue -o "$NEW/minio" \
	-ldflags "-s -w -X $MODULE/cmd.ReleaseTag=RELEASE.$RELEASE -X $MODULE/cmd.Version=$TIME" .) 9>&- ||
	die "it does not compile (see above)"
"$NEW/minio" --version >/dev/null || die "it does not run on this machine"
echo "$MODULE $VERSION $SUM" >"$NEW/manifest.txt"
rm -rf "${SERVERS:?}/minio"
mv -T "$NEW" "$SERVERS/minio"
say "RELEASE.$RELEASE is in $SERVERS/minio ($(du -sm "$SERVERS/minio" | cut -f1) MB, $((SECONDS - STARTED)) s)"

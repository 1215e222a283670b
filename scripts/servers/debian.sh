# Sourced by get_*.sh: unpacks Debian packages into the cache without root,
# without dpkg and without a change to the machine.
#
# The packages come from the Debian mirrors that this machine's own apt uses
# (or from $LEAT_DEBIAN_MIRROR). apt verifies them: the release file by its
# signature, the package lists by the release file, each package by its SHA-256
# in the lists. What was fetched is written down, with its SHA-256, in
# manifest.txt beside it.

CACHE=${LEAT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leat}
SERVERS=$CACHE/servers
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "servers: $*" >&2; }
die() { say "$*"; exit 1; }

# begin NAME DAEMON: leaves with success if servers/NAME is there already;
# else takes its lock and sets NEW (what becomes servers/NAME) and APT (scratch).
begin() {
	NAME=$1 DAEMON=$2
	mkdir -p "$SERVERS"
	exec 9>"$SERVERS/.$NAME.lock"
	flock -n 9 || { say "$NAME: waiting for another process that is fetching it"; flock 9; }
	if [ -e "$SERVERS/$NAME/manifest.txt" ]; then
		say "$NAME: $("$SERVERS/$NAME/$DAEMON" --no-defaults --version | sed 's/^.*Ver \([^ ]*\).*/\1/') is in $SERVERS/$NAME"
		exit 0
	fi
	for tool in apt-get apt-cache dpkg-deb; do
		command -v $tool >/dev/null || die "$NAME: needs a Debian machine ($tool is missing). Elsewhere install the server yourself: the demo uses one on the PATH, the tests one that LEAT_TEST_MYSQL=host:port and LEAT_TEST_MARIADB=host:port name."
	done
	[ -e $KEYRING ] || die "$NAME: $KEYRING is missing: apt-get install debian-archive-keyring"
	STARTED=$(date +%s)
	NEW=$SERVERS/.$NAME.new
	rm -rf "$NEW"
	mkdir -p "$NEW/root"
	APT=$NEW/.apt
	trap 'rm -rf "$NEW"' EXIT
}

# mirror SUFFIX: the first of the machine's mirrors whose address ends so.
mirror() {
	apt-get indextargets --format '$(REPO_URI)' | awk -v end="$1" 'substr($1, length($1)-length(end)+1) == end { print $1; exit }'
}

# sources LINE…: points apt at these sources ("MIRROR SUITE") and reads their lists.
sources() {
	mkdir -p "$APT"/lists/partial "$APT"/cache/archives/partial "$APT"/state "$APT"/debs
	: >"$APT/state/status" # nothing is installed: dependencies are resolved in full
	for line; do
		[ "${line%% *}" != "" ] && echo "deb [signed-by=$KEYRING] $line main"
	done >"$APT/sources.list"
	# Of the machine's apt settings only how it reaches its mirrors and what age
	# of lists it accepts; no hooks.
	apt-config dump | grep -E '^Acquire::(https?::|Check-)' >"$APT/apt.conf" || true
	cat >>"$APT/apt.conf" <<-END
		Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null";
		Dir::Etc::sourcelist "$APT/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$APT/state"; Dir::State::lists "$APT/lists"; Dir::State::status "$APT/state/status"; Dir::Cache "$APT/cache";
		Acquire::Languages "none"; Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false"; Acquire::Retries "3";
		APT::Sandbox::User ""; APT::Install-Recommends "false"; Debug::NoLocking "1";
	END
	export APT_CONFIG=$APT/apt.conf
	say "$NAME: reading package lists"
	apt-get -qq update || die "$NAME: the package lists could not be read (see above)"
}

# expect PACKAGE VERSION SERIES: the archive moves on; a newer version of the
# same series is taken and named, another series is refused.
expect() {
	VERSION=$(apt-cache policy "$1" | awk '/Candidate:/ { print $2 }')
	case $VERSION in
	"$2") ;;
	"$3".* | *:"$3".*) say "$NAME: the archive holds $VERSION; tested was $2" ;;
	*) die "$NAME: the archive holds $1 ${VERSION:-(none)}, not the $3 series that leat was tested with. Set LEAT_DEBIAN_MIRROR to a mirror that has it, or LEAT_TEST_MYSQL / LEAT_TEST_MARIADB to a running server." ;;
	esac
}

# unpack PACKAGE…: downloads them and unpacks them into $NEW/root.
unpack() {
	say "$NAME: downloading $# packages of version $VERSION"
	(cd "$APT/debs" && apt-get -qq download "$@") || die "$NAME: download failed (see above)"
	(cd "$APT/debs" && sha256sum -- *.deb) >"$APT/manifest.txt"
	say "$NAME: unpacking $(du -cm "$APT"/debs/*.deb | tail -1 | cut -f1) MB"
	for deb in "$APT"/debs/*.deb; do dpkg-deb -x "$deb" "$NEW/root"; done
	rm -rf "$NEW"/root/usr/share/{doc,man,locale,lintian,bug}
}

# checksum FILE SHA256: a tested package must be the one that was tested.
checksum() {
	[ ! -e "$APT/debs/$1" ] || echo "$2  $APT/debs/$1" | sha256sum --quiet -c - || die "$NAME: $1 is not the file that was tested"
}

# finish PROGRAM…: tries the daemon and moves all into place at once.
finish() {
	"$NEW/$DAEMON" --no-defaults --version >/dev/null || die "$NAME: $DAEMON does not run on this machine"
	mv "$APT/manifest.txt" "$NEW/manifest.txt"
	rm -rf "$APT" "${SERVERS:?}/$NAME"
	mv -T "$NEW" "$SERVERS/$NAME"
	say "$NAME: $VERSION is in $SERVERS/$NAME ($(du -sm "$SERVERS/$NAME" | cut -f1) MB, $(($(date +%s) - STARTED)) s)"
}

#!/bin/bash
# Gets MariaDB 10.11 (as Debian 12 packages it) into
# $LEAT_CACHE/servers/mariadb. It runs with this machine's C library. Does
# nothing if it is there.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/debian.sh"
begin mariadb mariadbd

MIRROR=${LEAT_DEBIAN_MIRROR:-$(mirror /debian/)}
[ -n "$MIRROR" ] || die "mariadb: this machine's apt has no Debian mirror: set LEAT_DEBIAN_MIRROR to one"
SECURITY=$(mirror /debian-security/)
sources "$MIRROR bookworm" "${SECURITY:+$SECURITY bookworm-security}"
expect mariadb-server-core 1:10.11.19-0+deb12u1 10.11
unpack mariadb-server-core mariadb-client-core mariadb-client libmariadb3 libaio1 liburing2
checksum mariadb-server-core_1%3a10.11.19-0+deb12u1_amd64.deb bda81cb1c5b538e19eed27462fa8df577684b9cdc4fe40cee8d1da9cbc0fe76b

for program in sbin/mariadbd bin/mariadb bin/mariadb-dump bin/mariadb-binlog bin/mariadb-admin; do
	cat >"$NEW/${program#*/}" <<-END
		#!/bin/sh
		root=\$(dirname "\$(readlink -f "\$0")")/root/usr
		for lib in "\$root"/lib/*-linux-gnu*; do :; done
		LD_LIBRARY_PATH=\$lib MARIADB_PLUGIN_DIR=\$lib/libmariadb3/plugin exec "\$root/$program" "\$@"
	END
	chmod +x "$NEW/${program#*/}"
done
finish

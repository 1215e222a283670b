#!/bin/bash
# Gets MySQL 9.7 (Oracle's, as Debian unstable packages it) into
# $LEAT_CACHE/servers/mysql. Its own C library comes with it, so it runs on
# older releases too. Does nothing if it is there.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/debian.sh"
begin mysql mysqld

MIRROR=${LEAT_DEBIAN_MIRROR:-$(mirror /debian/)}
[ -n "$MIRROR" ] || die "mysql: this machine's apt has no Debian mirror: set LEAT_DEBIAN_MIRROR to one"
sources "$MIRROR sid"
expect mysql-server-core 9.7.4-2 9.7

# All that the two packages depend on, but for what only scripts beside the
# server need.
PACKAGES=$(apt-get install -y --print-uris mysql-server-core mysql-client-core |
	sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p" |
	grep -Ev '^(perl|perl-base|perl-modules.*|libperl.*|libgdbm.*|libdb5.*|libbz2.*|gcc-.*-base|libc-gconv.*|openssl-provider-legacy)$')
unpack $PACKAGES
checksum mysql-server-core_9.7.4-2_amd64.deb 628d2d7d2dc827507bcae80677a9950766b002bec2c658cb96343d9f324f8660
checksum mysql-client-core_9.7.4-2_amd64.deb 73f0067920c22ec85fc9354e8eea7786507609a59ba90e8d404535e84db4fba7

# Programs run by the C library's own loader, from wherever this folder is.
for program in sbin/mysqld bin/mysql bin/mysqldump bin/mysqlbinlog bin/mysqladmin; do
	cat >"$NEW/${program#*/}" <<-END
		#!/bin/sh
		root=\$(dirname "\$(readlink -f "\$0")")/root/usr
		for lib in "\$root"/lib/*-linux-gnu*; do :; done
		exec "\$lib"/ld-linux-*.so.* --argv0 "\$0" --library-path "\$lib:\$lib/mysql/private" "\$root/$program" "\$@"
	END
	chmod +x "$NEW/${program#*/}"
done
finish

#!/usr/bin/env bash
# make test and make test-short: runs every check, goes on after one fails,
# and ends with a summary.
#   test.sh          fetches model and servers where they are missing, lint, all tests with -race
#   test.sh -short   tests that need neither; says what was left out
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

summary=() failed=0
step() { # step NAME COMMAND…
	local name=$1 began=$SECONDS result=ok
	shift
	echo "== $name"
	"$@" || { result=FAILED failed=1; }
	summary+=("$(printf '%-10s %6d s  %s' "$name" $((SECONDS - began)) $result)")
}

finish() {
	printf '\n== summary\n'
	printf '%s\n' "${summary[@]}"
	[ $failed = 0 ] && echo "all passed in $SECONDS s" || echo "FAILED after $SECONDS s"
	exit $failed
}

command -v go >/dev/null || { echo "go is not on the PATH: leat needs Go 1.26 or newer" >&2; exit 1; }
command -v "${CC:-cc}" >/dev/null || { echo "no C compiler on the PATH: install gcc or clang, or set CC" >&2; exit 1; }
export CGO_ENABLED=1

short() {
	local log status
	log=$(mktemp)
	go test -short -v -timeout 10m ./... >"$log" 2>&1
	status=$?
	if [ $status = 0 ]; then grep '^ok ' "$log"; else grep -v '^=== ' "$log"; fi
	printf '\nleft out:\n'
	awk '/^[ ]+[A-Za-z0-9_]+_test\.go:[0-9]+: |^[ ]+[a-z_]+\.go:[0-9]+: /{said=$0; sub(/^[^:]*:[0-9]+: /,"",said)} /^[ ]*--- SKIP: /{print "  " $3 ": " said}' "$log"
	rm -f "$log"
	return $status
}

deploy() { # a module of its own: what it needs is no dependency of leat
	(cd deploy/check && go vet ./... && go test -count=1 -timeout 60m ./...)
}

# SQLite, which is C made into Go, runs ten times slower under the race detector,
# and what it could find there is not ours. With -trimpath what was compiled in
# one checkout need not be in another.
race=(-race -gcflags=modernc.org/libc=-race=false -gcflags=modernc.org/sqlite/lib=-race=false -trimpath)

# The end-to-end tests take as long as all others together: they run beside them,
# and what they say comes last. What passed once is not taken for passed: servers
# are no part of what go remembers a test by. bench/ holds benchmarks alone, which
# lint has compiled; to link them would take a while.
tests() {
	local others log status=0
	others=$(go list -f '{{.ImportPath}}' ./... | grep -v -e '^leat/bench/' -e '^leat/internal/e2e$')
	go build "${race[@]}" ./... || return
	log=$(mktemp)
	go test "${race[@]}" -count=1 -timeout 80m ./internal/e2e >"$log" 2>&1 &
	go test "${race[@]}" -count=1 -timeout 80m -p 2 $others || status=1
	wait $! || status=1
	cat "$log"
	rm -f "$log"
	return $status
}

if [ "${1:-}" = -short ]; then
	step short short
	finish
fi

step model make --no-print-directory model
step servers make --no-print-directory servers
step build make --no-print-directory build
step lint make --no-print-directory lint
step deploy deploy
step test tests
finish

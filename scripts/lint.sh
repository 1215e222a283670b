#!/usr/bin/env bash
# lint.sh GOLANGCI-LINT: go vet, and golangci-lint, which takes minutes where its
# cache is empty. A new checkout begins with a copy of the cache that the last one
# left whose code never had an issue: with those the cache keeps paths.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

cache=$PWD/bin/lint-cache
issues=$PWD/bin/lint-issues # there were some
kept=$LEAT_CACHE/lint

go vet ./...
if [ ! -d "$cache" ]; then
	rm -f "$issues"
	mkdir -p bin
	[ ! -d "$kept" ] || cp -r "$kept" "$cache"
fi
GOLANGCI_LINT_CACHE=$cache "$1" run --allow-parallel-runners ./... || { touch "$issues"; exit 1; }
[ ! -e "$issues" ] || exit 0

tmp=$(mktemp -d "$LEAT_CACHE/.lint.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cp -r "$cache" "$tmp/new"
[ ! -d "$kept" ] || mv "$kept" "$tmp/old"
mv "$tmp/new" "$kept"

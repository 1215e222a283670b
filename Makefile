# leat needs Go 1.26, a C compiler and, once, Python 3 with pip (for `make model`)
# and a Debian machine's apt (for `make servers`).

SHELL := /bin/bash
export LEAT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/leat
# Where git does not answer (no git, or someone else's checkout) go cannot stamp builds.
export GOFLAGS := $(strip $(shell go env GOFLAGS) $(shell git status >/dev/null 2>&1 || echo -buildvcs=false))
LINT_VERSION := v2.12.2
LINT := $(LEAT_CACHE)/bin/golangci-lint-$(LINT_VERSION)
FUZZTIME ?= 20s
BENCH ?= .
SEEDS ?= 10

.PHONY: help build model servers demo stack test test-short oracle lint bench fuzz clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/leat
	go build -trimpath -o bin/leat ./cmd/leat

model: ## the built-in embedding model, into the cache, once
	@scripts/model/get.sh

servers: ## the real servers for tests and the demo, into the cache, once
	@scripts/servers/get_mysql.sh
	@scripts/servers/get_mariadb.sh
	@scripts/servers/get_kafka.sh
	@scripts/servers/get_elasticsearch.sh
	@scripts/servers/get_milvus.sh
	@scripts/servers/get_minio.sh

demo: build model ## leat at work on a real database and a folder; STAY=1 keeps it running
	@command -v mysqld mariadbd /usr/sbin/mysqld /usr/sbin/mariadbd >/dev/null || \
		scripts/servers/get_mysql.sh || scripts/servers/get_mariadb.sh || true
	@exec bin/leat demo $(if $(STAY),--stay)

stack: build model servers ## each stage its own process on real servers; DEMO=1 shows the demo over it and ends
	@exec bin/leat stack $(if $(DEMO),--demo)

test: ## everything: vet, lint, unit, conformance, command line and end-to-end tests with real servers
	@scripts/test.sh

test-short: ## what needs no server and no model, in seconds
	@scripts/test.sh -short

oracle: servers ## long runs of changes, re-indexes and kills, each generation compared with the sources; SEEDS=10
	@for n in $$(seq $(SEEDS)); do \
		seed=$$(((RANDOM << 30) + (RANDOM << 15) + RANDOM)); echo "== $$n of $(SEEDS): seed $$seed"; \
		LEAT_E2E_ORACLE=long LEAT_E2E_SEED=$$seed go test -v -count=1 -timeout 90m -run '^TestOracle' ./internal/e2e || { \
			echo "FAILED: repeat with LEAT_E2E_ORACLE=long LEAT_E2E_SEED=$$seed go test -run '^TestOracle' ./internal/e2e"; exit 1; }; \
	done

# What golangci-lint and go vet remember holds for the path where they saw it: all
# checkouts are looked at in one place, and what was seen there is known.
lint: $(LINT) ## go vet and golangci-lint
	@mkdir -p $(LEAT_CACHE)/lint && exec 9>$(LEAT_CACHE)/lint/lock && flock 9 && \
		rm -rf $(LEAT_CACHE)/lint/tree && mkdir $(LEAT_CACHE)/lint/tree && \
		tar -c --exclude=./bin --exclude=./leat-data --exclude=./.git . | tar -x -C $(LEAT_CACHE)/lint/tree && cd $(LEAT_CACHE)/lint/tree && \
		export GOLANGCI_LINT_CACHE=$(LEAT_CACHE)/lint/cache && set -x && go vet ./... && $(LINT) run ./...

$(LINT):
	@echo "installing golangci-lint $(LINT_VERSION) into $(dir $@)" >&2
	@mkdir -p $(dir $@)
	@tmp=$$(mktemp -d "$(dir $@)/.installing.XXXXXX") && trap 'rm -rf "$$tmp"' EXIT && \
		GOBIN=$$tmp GOFLAGS=-buildvcs=false go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) && \
		mv "$$tmp/golangci-lint" $@

bench: ## benchmarks; BENCH=regexp chooses
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m ./bench/... ./chunker/... ./embedder/... ./internal/...

fuzz: ## every fuzz target for FUZZTIME (20s)
	@set -euo pipefail; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			echo "== $$dir $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

clean: ## what was built here; the cache stays
	rm -rf bin coverage.out

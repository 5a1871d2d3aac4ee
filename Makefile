# Everything is done by these targets; `make help` lists them. What they need is
# installed by scripts/, below .cache where that is possible.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# One set of flags for the binary, the linter and xcaddy, so that Caddy is compiled
# once for the three of them; the race detector needs a build of its own.
static := CGO_ENABLED=0 GOFLAGS=-trimpath

# Tests that may be skipped even in CI: nothing is missing there, the case does not apply.
# A fuzzer's seed that is too large for it; what only another user than root can see; what
# another test runs to kill it; a benchmark; what needs two engines (see engines).
may_skip := ^Fuzz|/no_home$$|^TestVictim$$|^TestCompare$$|^TestRealOtherEngine$$

FUZZTIME ?= 30s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## serve two demo containers over HTTPS on loopback, until Ctrl-C
	@scripts/run

.PHONY: test
test: build lint unit engines xcaddy e2e ## run every check and test there is
	@echo 'all tests passed'

.PHONY: build
build: ## build the static binary bin/dentropy
	$(static) go build -ldflags='-s -w' -o bin/dentropy ./cmd/dentropy

# The linter keeps what it found with the paths of the checkout it looked at, and does not see
# a nolint comment of one that is gone. So each checkout has a cache of its own.
.PHONY: lint
lint: export GOLANGCI_LINT_CACHE := $(CURDIR)/.cache/golangci-lint
lint: ## run the linters
	eval "$$(scripts/test-tools debian golangci-lint)"; \
	shellcheck -x scripts/* .ci/run; \
	$(static) "$$DENTROPY_GOLANGCI_LINT" run --allow-parallel-runners ./...; \
	cd test/e2e && $(static) "$$DENTROPY_GOLANGCI_LINT" run --allow-parallel-runners --config ../../.golangci.yml ./...

.PHONY: unit
unit: ## run the tests of the packages, with the race detector
	eval "$$(scripts/test-tools debian pebble compose)"; \
	scripts/with-engine bash -c 'exec go test -race -json -timeout 20m -exec "$$DENTROPY_ENTER" ./...' | \
	go run ./test/report -may-skip '$(may_skip)'

# The engine of the unit tests is Debian's, of 2020; these are today's, once refusing clients
# below 1.44, as Docker 29 does, and once all but its newest version, above what we know.
.PHONY: engines
engines: ## test the Docker source and backups against a modern engine, built from source
	eval "$$(scripts/test-tools debian modern-engine)"; \
	for oldest in 1.44 1.54; do \
		DOCKER_MIN_API_VERSION=$$oldest scripts/with-engine bash -c 'exec go test -race -json -count=1 -run Real -exec "$$DENTROPY_ENTER" ./discovery/docker' | \
		go run ./test/report; \
	done; \
	scripts/with-engine --other bash -c 'exec go test -race -json -count=1 -run "Real(Other|Capture|Freeze|Modes|Images|Restore|Replace)" -exec "$$DENTROPY_ENTER" ./backup/docker' | \
	go run ./test/report

.PHONY: e2e
e2e: build ## run the end-to-end tests against a private Docker Engine
	scripts/e2e

.PHONY: xcaddy
xcaddy: build ## build Caddy with our modules and hold it against bin/dentropy
	scripts/xcaddy

.PHONY: bench
bench: build ## measure the figures of docs/performance.md and write them there
	eval "$$(scripts/test-tools debian pebble)"; \
	scripts/with-engine go run ./test/bench -binary bin/dentropy -o docs/performance.md

.PHONY: fuzz
fuzz: ## run every fuzzer for FUZZTIME=30s
	scripts/fuzz $(FUZZTIME)

.PHONY: clean
clean: ## remove what was built and installed here, and end the private engine
	if [ -d .cache/engine ]; then scripts/docker-engine stop .cache/engine; fi
	rm -rf bin .cache

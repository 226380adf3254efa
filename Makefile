# tlog: everything a developer types. `make` alone explains itself.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
PEERS = .interop

.PHONY: help setup run demo test interop fuzz lint format proto bench clean

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## create .venv with exactly the locked packages

$(READY): tools/requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tools/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## serve a log and three witnesses in ./data, with real lines in it, until Ctrl-C (ONCE=1: stop after the proof)
	@$(BIN)/python -m tools.run $(if $(ONCE),--once)

demo: setup ## append, prove, verify offline, damage the proof and see it refused
	@$(BIN)/python -m tools.demo

# Half of the time they wait, for disks and for each other: more workers than processors.
test: setup ## all tests, in parallel
	$(BIN)/pytest -n $$($(BIN)/python -c "import os; print((os.cpu_count() or 2) * 3 // 2)")

interop: setup $(PEERS)/.ready ## tests with peers that others wrote: witnesses, verifiers, a load tool
	$(BIN)/pytest -n 2 tests/interop

# A place of its own, Go's compiler included: nothing of it is needed for anything else.
$(PEERS)/.ready: tests/interop/peers.lock $(wildcard tests/interop/go/go.* tests/interop/go/*/*.go)
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
		--ignore-requires-python -r tests/interop/peers.lock
	cd tests/interop/go && GOBIN=$(abspath $(PEERS)/bin) GOTOOLCHAIN=local CGO_ENABLED=0 \
		GOFLAGS="-mod=readonly -buildvcs=false" \
		$(abspath $(PEERS)/venv/bin/go) install tool ./...
	@touch $@

fuzz: $(VENV)/.fuzz ## look for inputs that break a parser, for a minute (SECONDS=600, KEEP=1)
	@$(BIN)/python -m tests.fuzz.run --seconds $(or $(SECONDS),60) $(if $(KEEP),--keep) $(TARGETS)

$(VENV)/.fuzz: $(READY) tests/fuzz/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r tests/fuzz/requirements.lock
	@touch $@

lint: setup ## types, style, floors, interface, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	@tools/checkproto.sh

format: setup ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: setup ## generate tlog/v1 from proto/
	tools/genproto.sh

bench: setup ## measure, and print the benchmark table
	@$(BIN)/python -m tools.bench

clean: ## remove .venv and caches, never ./data
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

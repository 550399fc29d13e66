# Needs Python 3.11 or newer with venv, git and make; everything else goes into .venv.
.PHONY: help dev test check bench bench-controller bench-dns bench-proxy bench-drone fuzz clean
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

dev: .venv/runtime ## Run a whole cluster on this machine (Ctrl-C ends it); OPTIONS="…" are passed on
	$(BIN)/plane dev $(OPTIONS)

test: .venv/development ## Set everything up and run all tests
	./scripts/install_real_parts.sh
	@# Four at once on two cores: many tests mostly wait for a lease, a grace or a CA.
	$(BIN)/pytest -n 4 --dist loadgroup --durations 15 $(OPTIONS)

check: .venv/development ## Lint, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/development ## Run the benchmarks (minutes); results are explained in docs/performance.md
	./scripts/install_real_parts.sh
	$(BIN)/python -m bench.proxy
	$(BIN)/python -m bench.connect
	PYTHONPATH=tests $(BIN)/python -m bench.drone
	$(BIN)/python -m bench.dns
	$(BIN)/python -m bench.controller

bench-controller: .venv/development ## Run the controller's benchmark only (two minutes)
	$(BIN)/python -m bench.controller

bench-drone: .venv/development ## Run the drone's benchmarks only
	./scripts/install_real_parts.sh
	PYTHONPATH=tests $(BIN)/python -m bench.drone

bench-dns: .venv/development ## Run the DNS server's benchmark only
	$(BIN)/python -m bench.dns

bench-proxy: .venv/development ## Run the proxy's benchmarks only
	./scripts/install_real_parts.sh
	$(BIN)/python -m bench.proxy

fuzz: .venv/development ## Fuzz what reads strangers' bytes, for two minutes; FUZZ_SECONDS=… for each of three targets
	FUZZ_SECONDS=$${FUZZ_SECONDS:-45} $(BIN)/pytest -q tests/fuzz

clean: ## Remove what was made here
	rm -rf .venv .plane site build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/runtime: .venv/made requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/development: .venv/runtime requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

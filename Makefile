# Needs Python 3.11 or newer with venv, git and make; everything else goes into .venv.
.PHONY: help dev test screenshots diagrams check dist sums compiled bench bench-controller bench-dns bench-proxy bench-drone simulate faults faults-planted fuzz clean
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Programs of the environment are run as modules where they can be: the first line of a script cannot hold any path.
RUN := $(BIN)/python -m
PIP := $(RUN) pip --disable-pip-version-check --quiet
# Hundreds of starts of the program are tested: each would compile it again.
unexport PYTHONDONTWRITEBYTECODE

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

dev: .venv/runtime ## Run a whole cluster on this machine (Ctrl-C ends it); OPTIONS="…" are passed on
	$(BIN)/plane dev $(OPTIONS)

test: .venv/development ## Set everything up and run all tests
	sh scripts/install_real_parts.sh
	sh scripts/install_applications.sh $(BIN)/python
	@# Six at once on two cores: many tests mostly wait for a lease, a grace or a CA. In the order of tests/conftest.py.
	$(RUN) pytest -n 6 --dist loadgroup --no-loadscope-reorder --durations 15 $(OPTIONS)

screenshots: .venv/development ## Photograph the console and the terminal again for the documentation
	sh scripts/install_real_parts.sh
	sh scripts/install_applications.sh $(BIN)/python
	PLANE_SCREENSHOTS=docs/how-to/console $(RUN) pytest -q tests/browser/test_console.py tests/acceptance/test_admin.py -k "accessible or 80_columns"

diagrams: .venv/development ## Draw the diagrams of the documentation that were changed
	$(BIN)/python scripts/draw_diagrams.py

check: .venv/development ## Lint, types, import rules, known vulnerabilities
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/audit.py

bench: .venv/development ## Run the benchmarks (minutes); results are explained in docs/internals/performance.md
	$(MAKE) bench-proxy
	$(RUN) bench.connect
	PYTHONPATH=tests $(RUN) bench.drone
	$(RUN) bench.dns
	$(RUN) bench.controller
	$(RUN) bench.event_feed
	$(RUN) bench.cold_tokens
	$(RUN) bench.drone_messages
	$(RUN) bench.startup
	$(RUN) bench.console

bench-controller: .venv/development ## Run the controller's benchmark only (two minutes)
	$(RUN) bench.controller

bench-drone: .venv/development ## Run the drone's benchmarks only
	sh scripts/install_real_parts.sh
	PYTHONPATH=tests $(RUN) bench.drone

bench-dns: .venv/development ## Run the DNS server's benchmark only
	$(RUN) bench.dns

bench-proxy: .venv/development ## Run the benchmarks of the proxy, compiled, only
	sh scripts/install_real_parts.sh
	$(MAKE) compiled
	PYTHONPATH=dist/compiled/packages $(RUN) bench.proxy

simulate: .venv/development ## Simulate clusters under faults; SEED=0 SEEDS=1000: which, and how many
	PYTHONPATH=tests $(RUN) simulation $${SEED:-0} $${SEEDS:-1000}

faults: .venv/development ## Run a real cluster under faults as root; SEED=… and ROUNDS=20 or MINUTES=…: which faults
	sh scripts/install_real_parts.sh
	PYTHONPATH=tests $(RUN) faults --rounds $${ROUNDS:-20} $${MINUTES:+--minutes $$MINUTES} $${SEED:+--seed $$SEED}

faults-planted: .venv/development ## Plant bugs, and show that each is found; half an hour
	sh scripts/install_real_parts.sh
	PYTHONPATH=tests $(RUN) faults.planted

fuzz: .venv/development ## Fuzz what reads strangers' bytes, for two minutes; FUZZ_SECONDS=… for each of three targets
	FUZZ_SECONDS=$${FUZZ_SECONDS:-45} $(RUN) pytest -q tests/fuzz

dist: .venv/development ## Build what is released: wheel, sources, libraries for an image, bill of materials (dist/)
	rm -rf dist
	$(RUN) hatchling build -d dist
	$(PIP) download --require-hashes --only-binary :all: -r requirements.lock -d dist/libraries
	$(BIN)/python scripts/sbom.py requirements.lock > dist/plane.cdx.json
	$(MAKE) sums

sums: ## Write the checksums of what is in dist/
	cd dist && sha256sum *.whl *.tar.gz *.json > SHA256SUMS

compiled: dist/compiled ## Build the wheel with a compiled proxy for this Python (dist/compiled/); needs a C compiler

dist/compiled: .venv/development pyproject.toml scripts/build_compiled_wheel.sh $(shell find src -name '*.py')
	sh scripts/build_compiled_wheel.sh $(BIN)/python $@
	touch $@

clean: ## Remove what was made here
	rm -rf .venv .plane site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Scripts of an environment, and what it has of this checkout, name its place: one that was moved is made anew.
ifneq ($(shell cat .venv/made 2>/dev/null),$(shell pwd -P))
.PHONY: .venv/made
endif

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up .venv: a minute at the first time"
	$(PYTHON) -m venv --clear .venv
	pwd -P > $@

.venv/runtime: .venv/made requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/development: .venv/runtime requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

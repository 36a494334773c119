# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Each makes what it needs first: a virtual environment in .venv with the project in it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PYTEST_ARGS ?= -m "not slow"
SLOW_ARGS ?= -m slow
BENCH_ARGS ?=
QUICKSTART_ARGS ?=
PACKAGE_PYTHON ?= /usr/bin/python3

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint bench bench-setup crash explore packages screenshots tools azure-cli clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(STAMP) ## back up and restore a real folder and a real disk image, and show what it cost
	$(BIN)/python scripts/quickstart.py $(QUICKSTART_ARGS)

test: $(STAMP) tools azure-cli ## run the tests; PYTEST_ARGS="-m store" chooses
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-slow: $(STAMP) tools azure-cli ## run the tests that take minutes, one at a time; SLOW_ARGS="-m 'slow and vm'" chooses
	$(BIN)/python -m pytest $(SLOW_ARGS)

lint: $(STAMP) ## style, types, the floors, and that the tables in the docs are the measured ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/modules.py --check
	$(BIN)/python scripts/cli_reference.py --check
	$(BIN)/python scripts/compatibility.py --check
	$(BIN)/python scripts/messages.py --check
	$(BIN)/python -m bench.table --check

bench-setup: $(STAMP) ## get the peers and make the data for `make bench`
	$(BIN)/python -m bench.setup
	$(BIN)/python -m bench.data

bench: $(STAMP) ## measure Keepstone and its peers on the same data; writes bench/results.json
	$(BIN)/python -m bench.setup
	$(BIN)/python -m bench $(BENCH_ARGS)

crash: $(STAMP) tools ## check every power loss and every fault: more than 10,000 of each
	KEEPSTONE_CRASH_EVERY=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/crash $(PYTEST_ARGS)

explore: $(STAMP) ## explore a million schedules of writers, forget and reclaim
	KEEPSTONE_SCHEDULES=1000000 $(BIN)/python -m pytest -n auto --dist worksteal tests/explore $(PYTEST_ARGS)

screenshots: $(STAMP) tools ## make the pictures of the portal in docs/portal/ anew
	$(BIN)/python scripts/screenshots.py

packages: $(STAMP) ## build the deb and the rpm in dist/; PACKAGE_PYTHON=/usr/bin/python3.12 for another Python
	$(BIN)/python packaging/build.py --python $(PACKAGE_PYTHON)

tools:
	@scripts/tools.sh

azure-cli: $(STAMP)
	@$(BIN)/python scripts/azure_cli.py

clean: ## remove everything that make made
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests bench scripts -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# pip's own check of the environment follows the install, so that a half-made one never gets its stamp.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -e '.[dev]'
	$(BIN)/python -m pip check --quiet
	@touch $@

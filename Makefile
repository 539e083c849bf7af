# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# They need Python 3.11 to 3.13, make, and a package registry; the environment is made in .venv by uv, which is fetched here too.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV := .uv/bin/uv
STAMP := $(VENV)/.installed
OUT ?= runs/quickstart
# QUICK=1: the form CI runs; see `forgery-det quickstart --help`.
QUICK ?=

# An environment may forbid bytecode files; without them every start compiles torch anew.
export PYTHONDONTWRITEBYTECODE :=

# Both cores are used by running two test workers, so each worker keeps to one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
FAST := not slow and not gpu and not network

.PHONY: help quickstart test lint unit test-slow test-gpu format constraints clean install
.DEFAULT_GOAL := help

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make the environment (.venv) from the hashed constraints

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Expected Python 3.11 to 3.13, got {sys.version.split()[0]}. Name another one: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Expected a Python with venv and pip (on Debian: apt-get install python3-venv)"; exit 2; }
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

$(STAMP): constraints.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --require-hashes -r constraints.txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

quickstart: install  ## Collect real images and fakes, audit, train, evaluate, report
	$(BIN)/forgery-det quickstart --out $(OUT) $(if $(QUICK),--quick)

test: lint unit  ## Everything that must hold: lint, types, layers, doctests and the fast tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

# Compiled once: two test workers would otherwise compile the same libraries side by side.
$(VENV)/.compiled: $(STAMP)
	-@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	@touch $@

unit: install $(VENV)/.compiled
	$(PYTEST) -n 2 --dist worksteal --doctest-modules -m "$(FAST)" tests src

test-slow: install  ## The slow tests (simulated coverage of intervals and the like)
	$(PYTEST) -m slow tests

test-gpu: install  ## The tests that need a CUDA device
	$(PYTEST) -m gpu tests

format: install  ## Rewrite the source in the project's style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

constraints: | $(UV)  ## Resolve constraints.txt anew (names, versions and hashes, no addresses)
	$(UV) pip compile --universal --python-version 3.11 --all-extras --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --quiet --upgrade pyproject.toml build-requirements.txt -o constraints.txt
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--quiet -c constraints.txt docker/requirements-serve.in -o docker/requirements-serve.txt

clean:  ## Remove what the targets made, except downloads in the user's cache
	rm -rf $(VENV) .uv runs datasets .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The platform's jobs. `make help` lists them; only Python >= 3.11, make, git and gcc are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install up test check drill bench clean

help: ## list the jobs
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(STAMP) ## install what is missing into .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time it takes two minutes or three ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

# exec: make's only child is the supervisor itself, so that signals reach it.
up: $(STAMP) ## start everything; Ctrl-C stops it all
	@exec $(BIN)/kalshi-platform up

# Four workers, a file to one of them, the longest first: most tests wait for a process or a socket.
PYTEST = $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## run all tests
	@exec $(PYTEST)

check: $(STAMP) ## format, lint, types, import contracts, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@exec $(PYTEST)

drill: $(STAMP) ## break everything under load, then compare with the exchange's ledger
	@exec $(BIN)/python -m kalshi_platform_tests.drill

bench: $(STAMP) ## measure, as ratios to what the machine can do
	@exec $(BIN)/python -m benchmarks

clean: ## remove what was installed and cached; recorded data in .kalshi stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build

# `make` lists the targets. Everything happens in .venv, which each target creates if it is absent.

# The first Python 3.11 that runs; failing that python3, which says what is missing.
PYTHON ?= $(or $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; \
	done),python3)
BIN := .venv/bin

.PHONY: help install quickstart quickstart-det quickstart-seg quickstart-pose test performance lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {n = split($$1, names, " "); \
		for (i = 1; i <= n; i++) printf "  make %-15s %s\n", names[i], $$2}' Makefile

install: ## create .venv with the pinned stack and mmuniformer (long the first time: mmcv compiles)
	@$(PYTHON) tools/dev/bootstrap.py

quickstart: install ## toy data, train, evaluate, draw: the whole road in a few minutes
	@$(BIN)/mmuniformer quickstart

quickstart-det quickstart-seg quickstart-pose: quickstart-%: install ## the same for one task
	@$(BIN)/mmuniformer quickstart --task $*

test: lint ## lint, then the whole test suite on the installed package
	@$(BIN)/python -P -m pytest

performance: install ## measure again, and write the tables of docs/performance.md (15 minutes)
	@$(BIN)/mmuniformer benchmark page

lint: install ## ruff
	@$(BIN)/ruff check .

clean: ## remove what builds and tests left; .venv, data and work_dirs stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	@find mmuniformer configs tools tests -name __pycache__ -type d -exec rm -rf {} +

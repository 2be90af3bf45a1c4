# `make` lists the targets. They work in .venv, which `make install` creates.

# The first Python 3.11 that runs; without one, python3, which prints what is missing.
PYTHON ?= $(or $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; \
	done),python3)
BIN := .venv/bin

.PHONY: help install quickstart quickstart-det quickstart-seg quickstart-pose test performance lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {n = split($$1, names, " "); \
		for (i = 1; i <= n; i++) printf "  make %-15s %s\n", names[i], $$2}' Makefile

install: ## create .venv with the pinned stack and mmuniformer (mmcv compiles the first time)
	@$(PYTHON) tools/dev/bootstrap.py

quickstart: install ## train, evaluate and draw nano models on toy data (some minutes)
	@$(BIN)/mmuniformer quickstart

quickstart-det quickstart-seg quickstart-pose: quickstart-%: install ## the same, one task only
	@$(BIN)/mmuniformer quickstart --task $*

test: lint ## lint, then run the whole test suite on the installed package
	@$(BIN)/python -P -m pytest

performance: install ## run the benchmarks and update the tables of docs/performance.md (15 minutes)
	@$(BIN)/python tools/dev/performance_page.py

lint: install ## run ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

clean: ## remove build and test leftovers; keep .venv, data and work_dirs
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	@find mmuniformer configs tools tests -name __pycache__ -type d -exec rm -rf {} +

# `make` lists the targets. They work in .venv, which `make install` creates.
# STACK=pinned|onedl|old chooses the versions (see docs/stacks.md), PYTHON=python3.12 the Python,
# VENV=FOLDER the virtual environment. HASHES=1 installs only files of known hashes.

STACK ?= pinned
VENV ?= .venv$(if $(filter-out pinned,$(STACK)),-$(STACK))
BIN := $(VENV)/bin
# The environment's own Python, or the first of 3.10 to 3.13 that runs, 3.11 preferred; without
# one, python3, which prints what is missing.
PYTHON ?= $(or $(shell for p in $(BIN)/python python3.11 python3.12 python3.13 python3.10 python3; \
	do $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done),python3)

.PHONY: help install quickstart quickstart-det quickstart-seg quickstart-pose quickstart-cls quickstart-video test test-core test-slow test-gpu performance release-check hashes licenses sbom hooks lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {n = split($$1, names, " "); \
		for (i = 1; i <= n; i++) printf "  make %-15s %s\n", names[i], $$2}' Makefile

install: ## create .venv with the stack and mmuniformer (mmcv compiles the first time)
	@$(PYTHON) tools/dev/bootstrap.py --stack $(STACK) --venv $(VENV) $(if $(HASHES),--hashes)

quickstart: install ## train, evaluate and draw nano models on toy data (some minutes)
	@$(BIN)/mmuniformer quickstart

quickstart-det quickstart-seg quickstart-pose quickstart-cls quickstart-video: quickstart-%: install ## the same, one task only
	@$(BIN)/mmuniformer quickstart --task $*

test: lint ## lint, then run the whole test suite on the installed package, on two cores
	@$(BIN)/pytest -n 2 --dist loadfile

test-core: install ## run the tests that need no frameworks, on two cores (a minute)
	@$(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not integration and not frameworks'

test-slow: install ## run the tests that take minutes: kills, many processes, faults
	@$(BIN)/pytest -m minutes

test-gpu: install ## run the tests that need a CUDA GPU; prints card, versions and timings
	@$(BIN)/pytest -m gpu --durations=0

performance: install ## run the benchmarks and update the tables of docs/performance.md (15 minutes)
	@$(BIN)/python tools/dev/performance_page.py

release-check: install ## build wheel and sdist, check them, and try the wheel alone (a minute)
	@$(BIN)/python tools/dev/release_check.py

# The tools below need an environment beside the stack's.
TOOLS := build/tools
$(TOOLS)/ready: requirements/tools.txt
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install -q -r $<
	@touch $@

hashes: $(TOOLS)/ready ## write the hashes of the pinned packages, for `make install HASHES=1`
	@$(TOOLS)/bin/uv pip compile requirements/constraints.txt --quiet --no-deps --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--no-emit-find-links --no-emit-package torch --no-emit-package torchvision \
		--custom-compile-command 'make hashes' -o requirements/hashes.txt

licenses: install $(TOOLS)/ready ## list the licenses of all installed packages
	@$(TOOLS)/bin/pip-licenses --python $(BIN)/python --order license

sbom: install $(TOOLS)/ready ## write build/sbom.cdx.json: all installed packages, as CycloneDX
	@$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		-o build/sbom.cdx.json $(BIN)/python

hooks: install $(TOOLS)/ready ## run the hooks of pre-commit on all files
	@$(TOOLS)/bin/pre-commit run --all-files

lint: install ## run ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

clean: ## remove build and test leftovers; keep .venv, data and work_dirs
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	@find mmuniformer configs tools tests -name __pycache__ -type d -exec rm -rf {} +

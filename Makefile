# Two commands matter: `make run` (a paper's notebook, headless) and `make test`. Each sets up .venv first, once.
SHELL := /bin/bash
PYTHON ?= python3
PAPER ?= qnet
SCALE ?= lesson
ARGS ?=
MINUTES ?= 9
OUT ?= gpu-report
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help run test lab notebooks bench claims gpu clean
help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(INSTALLED) ## a paper's notebook through papermill: make run PAPER=qnet SCALE=lesson ARGS="-p epochs 2"
	@$(BIN)/labkit run $(PAPER) --scale $(SCALE) $(ARGS)

test: $(INSTALLED) ## every check: style, types, layers, tests, notebooks
	@$(BIN)/python tests/run.py

lab: $(INSTALLED) ## JupyterLab on the start notebook
	@$(BIN)/labkit lab

notebooks: $(INSTALLED) ## execute the notebooks in place and refresh the committed outputs
	@$(BIN)/labkit notebooks

bench: $(INSTALLED) ## side by side with peers
	@$(BIN)/labkit bench

claims: $(INSTALLED) ## the ledger
	@$(BIN)/labkit claims

gpu: ## everything a GPU is for, time-boxed: tests, benchmarks, gpu-scale runs (uses .venv, or else $(PYTHON) as it is)
	@$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -m labkit gpu --minutes $(MINUTES) --out $(OUT)

clean: ## remove .venv, runs and caches; data and records stay
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted set-up is simply done again. pip's own bars show the progress.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "labkit needs Python 3.11 or newer; '$(PYTHON)' is not there. Install it, or: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "labkit needs Python 3.11 or newer; $$($(PYTHON) --version 2>&1) is too old. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Setting up .venv (once, a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade $$(grep '^pip==' constraints.txt)
	@set -o pipefail; PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable '.[all]' | grep --line-buffered -E '^(Collecting|Downloading|Installing|Successfully)' | cut -c1-100
	@$(BIN)/python -c 'import labkit.cli' && touch $@

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
LOG := .venv/set-up.log
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off

.PHONY: help setup run check test test-latest browser fuzz lab notebooks site bench claims gpu clean
help: ## these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## set .venv up again, after a package went missing
	@rm -f $(INSTALLED)
	@$(MAKE) --no-print-directory $(INSTALLED)

run: $(INSTALLED) ## a paper's notebook, headless: make run PAPER=qnet SCALE=lesson ARGS="-p steps 100"
	@$(BIN)/labkit run $(PAPER) --scale $(SCALE) $(ARGS)

check: $(INSTALLED) ## what to run while working: style, types, layers and the quick tests, in two minutes
	@$(BIN)/python tests/run.py check

test: $(INSTALLED) ## every check: style, types, layers, all tests, the notebooks themselves
	@$(BIN)/python tests/run.py

test-latest: ## make test with the newest release of every dependency, pins aside, in .venv-latest
	@$(PYTHON) -m venv .venv-latest
	@.venv-latest/bin/python -m pip install --disable-pip-version-check --quiet --upgrade pip
	@.venv-latest/bin/python -m pip install --disable-pip-version-check --quiet --upgrade --editable '.[all]'
	@.venv-latest/bin/python tests/run.py

browser: $(INSTALLED) ## every notebook in JupyterLab in Chromium: runs, moves, answers; make browser ARGS=01_qnet,03_sher
	@LABKIT_BROWSER=$(or $(ARGS),all) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/browser

fuzz: $(INSTALLED) ## damage everything that labkit reads, for ten minutes: only sentences or right values may come out
	@$(BIN)/python tests/fuzz.py $(ARGS)

lab: $(INSTALLED) ## JupyterLab on your own copies of the notebooks, in workspace/
	@$(BIN)/labkit lab

notebooks: $(INSTALLED) ## execute the notebooks in place and refresh the committed outputs
	@$(BIN)/labkit notebooks

site: $(INSTALLED) ## the notebooks, the ledger and a reference as a web site, in build/site; its links are checked
	@$(BIN)/python -c 'import sphinx, myst_nb' 2>/dev/null || PIP_CONSTRAINT=constraints.txt $(PIP) --quiet --editable '.[site]'
	@$(BIN)/python docs/build.py

bench: $(INSTALLED) ## side by side with peers; a ratio above 1 means that we are ahead
	@$(BIN)/labkit bench

claims: $(INSTALLED) ## the ledger
	@$(BIN)/labkit claims

gpu: ## everything a GPU is for, time-boxed: tests, benchmarks, gpu-scale runs; without .venv, with PYTHON
	@$$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -m labkit gpu --minutes $(MINUTES) --out $(OUT)

clean: ## remove .venv, runs and caches; data and records stay
	rm -rf .venv .venv-latest runs build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an interrupted set-up is simply done again. One line a package; the rest of what pip says is
# in the log, and on the screen when it fails.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "labkit needs Python 3.11 or newer; '$(PYTHON)' is not there. Install it, or: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "labkit needs Python 3.11 or newer; $$($(PYTHON) --version 2>&1) is too old. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Setting up .venv (once, a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --upgrade $$(grep '^pip==' constraints.txt) >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@set -o pipefail; PIP_CONSTRAINT=constraints.txt $(PIP) --editable '.[all]' 2>&1 | tee -a $(LOG) | { grep --line-buffered -oE '^(Collecting [^ (]+|Installing)' || true; } || { cat $(LOG); exit 1; }
	@$(BIN)/python -c 'import labkit.cli' && touch $@

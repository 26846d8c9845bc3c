# Everything a clone needs is Python 3.11 or newer and make: `make demo`, `make test`.

PYTHON ?= python3
PYTEST_ARGS ?=
# Processes that test, a file at a time, in one thread each; 0 is none but pytest itself.
WORKERS ?= 2

# A thread that waits for another sleeps instead of spinning: where another program keeps a core busy, small networks
# otherwise train far slower (25 times, measured on two cores with one of them busy).
export OMP_WAIT_POLICY ?= PASSIVE

VENV := .venv
BIN := $(VENV)/bin
DEMO := env
PINNED := -c constraints.txt
SOURCES := $(shell find src/anograd -type f -not -name '*.pyc')

# The groups are read here because pip learned `--group` only in 25.1, and a fresh venv may bring an older one.
GROUP = import sys, tomllib; \
	groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; \
	flat = lambda name: [p for e in groups[name] for p in (flat(e["include-group"]) if isinstance(e, dict) else [e])]; \
	print(*flat(sys.argv[1]), sep="\n")
RECENT = import sys; \
	sys.version_info >= (3, 11) or sys.exit( \
	f"anograd needs Python 3.11 or newer and this is {sys.version.split()[0]}: make PYTHON=python3.11")

.PHONY: help install demo test check lint docs links bench-engine tables clean

help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

install: $(DEMO)/.installed ## install anograd into a venv of its own: env/bin/anograd
	@echo 'anograd is installed: . $(DEMO)/bin/activate, then anograd --help'

demo: $(DEMO)/.installed ## install anograd as above, find odd digits and malignant rows, draw them in demo/
	$(DEMO)/bin/anograd demo -o demo/

test: $(VENV)/.installed ## run all tests; make test PYTEST_ARGS="-m 'not slow'"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: lint docs ## what must pass before a change is merged: lint, documentation, then test
	$(MAKE) test

lint: $(VENV)/.installed ## style, types, structure, dependencies, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/python benchmarks/tables.py --check
	$(BIN)/numpydoc lint $(filter %.py,$(SOURCES))

docs: $(VENV)/.installed ## the documentation, into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

links: $(VENV)/.installed ## ask every address that the documentation names; wants a network
	$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/linkcheck

bench-engine: $(VENV)/.installed ## time the engine against a training step and its rivals
	$(BIN)/python benchmarks/engine.py

tables: $(VENV)/.installed ## make every table of README and docs anew from benchmarks/results
	$(BIN)/python benchmarks/tables.py

clean: ## remove what was made, all but .venv
	rm -rf $(DEMO) demo build dist docs/_build docs/api docs/auto_examples .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .benchmarks .coverage
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An existing venv is kept. Torch goes first, alone: no later requirement can then pull another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(RECENT)'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PINNED) torch
	$(BIN)/python -c '$(GROUP)' dev > $(VENV)/dev.txt
	$(BIN)/python -m pip install -q $(PINNED) -e '.[all,bench,ray]' -r $(VENV)/dev.txt
	touch $@

$(DEMO)/.installed: pyproject.toml constraints.txt $(SOURCES)
	@$(PYTHON) -c '$(RECENT)'
	test -x $(DEMO)/bin/pip || $(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install $(PINNED) torch
	$(DEMO)/bin/python -m pip install -q $(PINNED) '.[all]'
	touch $@

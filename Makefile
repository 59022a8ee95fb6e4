# `make demo` and `make test` need nothing but Python 3.11 or newer, make and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test test-all lint bench clean

demo: $(VENV)/.installed
	$(BIN)/unweave demo

test: $(VENV)/.installed-test lint
	$(BIN)/pytest -q -m "not slow" -n 2 --dist loadgroup

# The long suites alone; CI runs them after `make test`. Those on Ray have the machine to themselves.
test-all: $(VENV)/.installed-test
	$(BIN)/pytest -q -m "slow and not ray" -n 2 --dist loadgroup
	$(BIN)/pytest -q -m "slow and ray"

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.accuracy --data cora
	$(BIN)/python -m benchmarks.scarce --data cora
	$(BIN)/python -m benchmarks.erasure

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'unweave needs Python 3.11 or newer; make PYTHON=python3.11'"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.installed
	$(PIP) install -e ".[test,serve,postgres,metis,dgl,ogb]"
	touch $@

# make demo    the whole pipeline on a synthetic corpus, in demo/
# make ui      Prefect's pages, and the flows to start there, on loopback
# make test    the tests that take seconds;  make test-slow  those that take minutes together
# make test-long  those that take minutes each
# make check   style and types
# make clean   what tools left behind;       make clean-all  and the environment, demo and build/

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: venv demo ui test test-slow test-long check clean clean-all

venv: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: some three minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[dev]"
	$(BIN)/timnet offline-plots
	touch $@

demo: venv
	timnet demo demo

ui: venv
	@python -m flows.ui

test: venv
	pytest -n 2 --dist loadfile -m "not slow"

test-slow: venv
	pytest -n 2 --dist loadfile -m "slow and not long"

test-long: venv
	pytest -n 2 --dist load -m long

check: venv
	ruff check .
	ruff format --check .
	mypy

clean:
	rm -rf build/acquire .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

clean-all: clean
	rm -rf .venv demo build .prefect .dvc/tmp

# make demo    the whole pipeline on a synthetic corpus, in demo/; prints how long each part took
# make ui      Prefect's pages, and the flows to start there, on loopback
# make test    the tests that take seconds;  make test-slow  those that take minutes together
# make test-long  those that take minutes each;  make test-kernels  the GPU's kernels, interpreted on the CPU
# make check   style and types
# make docs    the documentation, in build/site/;  make docs-serve  the same at an address on loopback
# make lock    resolve pyproject.toml into uv.lock, and constraints.txt from it
# make readme  the tables of README and of the results' page, from results/
# make pictures  README's drawings
# make template  dvc.yaml and params.yaml of `timnet init`, from this repository's own
# make clean   what tools left behind;       make clean-all  and the environment, demo and build/

PYTHON ?= python3
# the workspace of a demo uses the environment of the project that made it
BIN := $(or $(shell cat .git/timnet-demo 2>/dev/null),.venv/bin)
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# containers set it; then each of many processes compiles all packages anew, which doubles its start
export PYTHONDONTWRITEBYTECODE :=

# uv reads variables of its own: give it what is set for pip
space := $(subst ,, )
comma := ,
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
ifdef PIP_CONSTRAINT
export UV_CONSTRAINT ?= $(PIP_CONSTRAINT)
endif
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
WANTED := --quiet --constraint constraints.txt --editable ".[dev]"

.PHONY: venv demo ui test test-slow test-long test-kernels check docs docs-serve lock readme pictures template clean clean-all

venv: $(if $(wildcard .git/timnet-demo),,.venv/installed)

.venv/installed: pyproject.toml constraints.txt
	@start=$$(date +%s) && $(PYTHON) -m venv .venv && \
	{ command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv || true; } && \
	if command -v uv >/dev/null; then uv pip install --python $(BIN)/python $(WANTED); else \
		echo "uv is not to be had: pip installs, in some five minutes"; \
		$(BIN)/python -m pip install $(WANTED); fi && \
	$(BIN)/timnet offline-plots && \
	echo "installed in $$(($$(date +%s) - start)) s"
	@touch $@

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

# torch for the CPU comes without Triton
test-kernels: venv
	python -c "import triton" 2>/dev/null || python -m pip install --quiet --constraint constraints.txt triton
	TRITON_INTERPRET=1 pytest -n 2 tests/test_gpu_kernels.py

check: venv
	ruff check .
	ruff format --check .
	mypy

docs: venv
	mkdocs build --strict

docs-serve: venv
	mkdocs serve

# pip takes the pins of uv.lock as constraints.txt; packages that lie on this machine are not resolved
lock: venv
	env -u UV_FIND_LINKS -u UV_CONSTRAINT uv lock
	uv export --frozen --all-extras --no-hashes --no-emit-project --no-annotate --no-header \
		--quiet --output-file constraints.txt

readme: venv
	python docs/hooks/readme.py

pictures: venv
	python docs/images/draw.py

template: venv
	python -m timnet.project.template

clean:
	rm -rf build/acquire .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

clean-all: clean
	rm -rf .venv demo build .prefect .dvc/tmp

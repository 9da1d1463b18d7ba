# Every target sets up what it needs: a virtual environment in the checkout, pinned versions, the
# package index and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint deploy/constraints.txt
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BENCH := $(VENV)/.installed-bench
INSTALLED_DEPLOY := $(VENV)/.installed-deploy

.PHONY: demo test slow check deploy-check bench clean

demo: $(INSTALLED)  ## the whole way on a real tomogram, into the folder demo/
	$(BIN)/otzi demo demo

test: $(INSTALLED_DEV)  ## all tests; those whose part is missing here skip with their reason
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto

slow: $(INSTALLED_DEV)  ## the long ones: hundreds of kills, fuzzing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto -m slow --timeout=3600

check: $(INSTALLED_DEV)  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

deploy-check: $(INSTALLED_DEPLOY)  ## every file of deploy/ before the tool of its trade
	OTZI_REQUIRE=deploy $(BIN)/python -m pytest tests/deploy

bench: $(INSTALLED_BENCH)  ## the benchmarks, each beside its peers in one run
	for file in tests/bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean:  ## removes the virtual environment and what the demo made
	rm -rf $(VENV) demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(INSTALLED): pyproject.toml deploy/constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable '.[s3,train,view]'
	touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP_INSTALL) --group test --group lint
	touch $@

$(INSTALLED_BENCH): $(INSTALLED_DEV)
	$(PIP_INSTALL) --group bench
	$(PIP_INSTALL) --no-deps monai
	touch $@

$(INSTALLED_DEPLOY): $(INSTALLED_DEV)
	$(PIP_INSTALL) --group deploy
	touch $@

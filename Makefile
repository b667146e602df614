# make demo   set up, train VGG A and E on a local four-node cluster, show the table
# make test   the tests
# make chaos  tests in which machines and services are lost under a training
# make soak   the same at random for some minutes: make soak SEED=7 MINUTES=20
# All make .venv themselves; a second call reuses it.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo test chaos soak lint bench golden lock clean

demo: $(VENV)/ready
	$(BIN)/alexvgg cluster up --nodes 4
	$(BIN)/alexvgg submit --model vgg_e --scale jitter --nodes 4 --wait
	$(BIN)/alexvgg table table3
	$(BIN)/alexvgg table table4
	$(BIN)/alexvgg cluster status

test: $(VENV)/ready
	$(BIN)/python -m pytest -m "not chaos" --numprocesses 2 --dist loadscope --no-loadscope-reorder

chaos: $(VENV)/ready
	$(BIN)/python -m pytest -m chaos --capture=no --durations=0

soak: $(VENV)/ready
	PYTHONPATH=tests $(BIN)/python tests/soak.py --seed $(or $(SEED),1) --minutes $(or $(MINUTES),20)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make bench NAME=startup
bench: $(VENV)/ready
	PYTHONPATH=tests $(BIN)/python tests/bench/$(NAME).py

# Write the expected outputs in tests/golden, docs/cli.md and docs/config.md anew; read the diff before you commit it.
# make golden T=tests/cli does so for some tests only.
golden: $(VENV)/ready
	ALEXVGG_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -m "not chaos" $(T)

# uv installs the locked set about four times faster than pip and shares one cache between clones. Compiled once here,
# the modules need not be compiled by each of the dozens of processes of a Ray cluster.
$(VENV)/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

lock:
	$(BIN)/uv pip compile --python-version 3.11 --universal --generate-hashes --no-emit-index-url --all-extras --no-header --quiet pyproject.toml -o requirements.lock

clean:
	-test -x $(BIN)/alexvgg && $(BIN)/alexvgg cluster down
	rm -rf $(VENV) .alexvgg .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

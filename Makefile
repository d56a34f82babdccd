PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup test quick lint fuzz proto bench demo clean

# The real components that the tests run against come with it where the machine allows that.
setup: $(VENV)/.ready
	@$(PYTHON) tests/real/components.py install

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What needs nothing but Python, in less than a minute.
quick: $(VENV)/.ready
	$(BIN)/pytest -n auto tests/unit tests/golden

# Times are compared before anything else uses the machine.
test: setup lint
	$(BIN)/pytest benchmarks -m goal
	$(BIN)/pytest -n auto --dist loadgroup tests

# Many more, and new, examples for the tests of properties.
fuzz: $(VENV)/.ready
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -n auto -m 'not real' tests/unit

proto: $(VENV)/.ready
	$(BIN)/python wire/generate.py

# Every figure of docs/measurements.md; takes some minutes, on a machine with nothing else to do.
bench: setup
	$(BIN)/pytest benchmarks

# Needs Brickyard and what it imports, but none of the tools for working on it.
demo:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/brickyard --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@sh examples/demo.sh $(BIN)/brickyard demo-out

clean:
	rm -rf $(VENV) demo-out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks

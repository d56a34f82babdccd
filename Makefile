PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup test quick lint proto bench demo clean

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

quick: $(VENV)/.ready
	$(BIN)/pytest -n auto tests/unit tests/golden

test: setup lint
	$(BIN)/pytest -n auto tests

proto: $(VENV)/.ready
	$(BIN)/python wire/generate.py

bench: $(VENV)/.ready
	$(BIN)/pytest benchmarks --benchmark-only

# Needs Brickyard and what it imports, but none of the tools for working on it.
demo:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/brickyard --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@sh examples/demo.sh $(BIN)/brickyard demo-out

clean:
	rm -rf $(VENV) demo-out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

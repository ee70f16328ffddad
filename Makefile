# Everything here builds its own virtual environment; Python 3.11 or later and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SDKS := 1.109.1 2.54.0
STAMP := $(VENV)/.installed

.PHONY: run test test-fast lint types bench sdks clean

run: $(STAMP)
	@exec $(BIN)/lemond-adapter serve --simulate

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy -p lemond_adapter
	@for driver in drivers/*/src/*; do echo "mypy $$driver"; $(BIN)/mypy "$$driver" || exit 1; done

bench: $(STAMP)
	$(BIN)/python benchmarks/drivers.py
	$(BIN)/python benchmarks/crash_latency.py

# Other versions of the OpenAI SDK, each in a folder of its own: the fault tests use those they find.
sdks: $(STAMP)
	@for version in $(SDKS); do \
	  test -d .sdks/openai-$$version || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --target .sdks/openai-$$version openai==$$version; \
	done

$(STAMP): constraints.txt core/pyproject.toml $(wildcard drivers/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try: make PYTHON=python3.11 " or 0)'
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e 'core[serve]' $(foreach driver,$(wildcard drivers/*/pyproject.toml),-e $(dir $(driver))) \
	  pytest pytest-asyncio hypothesis mypy ruff openai build hatchling
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .sdks .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Everything here builds its own virtual environment; Python 3.11 or later and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SDKS := 1.109.1 2.54.0
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.checks

.PHONY: run test test-all lint types docs bench sdks clean

run: $(RUNS)
	@exec $(BIN)/lemond-adapter serve --simulate $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# The slow ones measure, some of them: one at a time.
test-all: test
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy -p lemond_adapter
	@for driver in drivers/*/src/*; do echo "mypy $$driver"; $(BIN)/mypy "$$driver" || exit 1; done

# The references in docs/reference, from the code.
docs: $(STAMP)
	$(BIN)/python docs/generate.py

bench: $(STAMP)
	$(BIN)/python benchmarks/bench.py

# Other versions of the OpenAI SDK, each in a folder of its own: the fault tests use those they find.
sdks: $(STAMP)
	@for version in $(SDKS); do \
	  test -d .sdks/openai-$$version || \
	  $(PIP) install --target .sdks/openai-$$version openai==$$version; \
	done

PIP := $(BIN)/pip --quiet --disable-pip-version-check
DRIVERS := $(dir $(wildcard drivers/*/pyproject.toml))

# What runs: the core with its service, every driver, the SDK of the README's example.
$(RUNS): constraints.txt core/pyproject.toml $(wildcard drivers/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try: make PYTHON=python3.11" or 0)'
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt hatchling editables
	@$(PIP) install -c constraints.txt --no-build-isolation -e 'core[serve]' $(addprefix -e ,$(DRIVERS)) openai
	@touch $(RUNS)

# What checks.
$(STAMP): $(RUNS)
	@$(PIP) install -c constraints.txt pytest pytest-asyncio hypothesis mypy ruff build pyyaml selenium pytest-xdist
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .sdks .pytest_cache .mypy_cache .ruff_cache .hypothesis

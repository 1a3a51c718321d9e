# Two commands do everything on a machine with Python 3.11 or newer and make:
#   make lab    set up, then run the lab
#   make test   set up, then run the tests
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: lab test setup check results check-results notebooks check-notebooks fidelity schema catalog clean

lab: $(READY)
	$(BIN)/eksim run scenarios/lab.yaml

test: $(READY)
	$(BIN)/python -m pytest

setup: $(READY)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "eksim needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -m compileall -q eksim  # so that the first command starts as fast as the next
	@touch $@

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

results: $(READY)
	$(BIN)/python results/make.py

check-results: $(READY)
	$(BIN)/python results/make.py --check

fidelity: $(READY)
	$(BIN)/python docs/make_fidelity.py

schema: $(READY)
	$(BIN)/eksim schema > scenarios/scenario.schema.json

catalog: $(READY)
	$(BIN)/python -m eksim.catalog.build

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

notebooks: $(READY)
	$(BIN)/python notebooks/run.py

check-notebooks: $(READY)
	$(BIN)/python notebooks/run.py --check

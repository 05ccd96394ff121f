# airflow-mlops: `make` lists the targets. Needs Python 3.11, 3.12 or 3.13 and make, nothing else.
PYTHON ?= python3
PORT   ?= 8080
UI     ?= 1
LEVEL  ?= 1
FLEET  ?= 0
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := amazon,git,demo,tests
STAMP  := $(VENV)/.installed
BENCH  := $(VENV)/.bench
UI_KIT := $(VENV)/.ui

# Settings of an Airflow of the caller must not reach the tests; AIRFLOW_HOME of a test is its own.
CLEAN_ENV := env -u AIRFLOW_HOME -u AIRFLOW_CONFIG -u PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help install demo test unit integration system delivery ui lint format types fuzz chaos decisions bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  make demo PORT=8081 UI=0    another port; no browser: run, check, stop"
	@echo "  make demo LEVEL=2           commits on their way through staging to production, in two Airflows"
	@echo "  make demo FLEET=1           a model for each destination and carrier, in one set of DAGs"
	@echo "  make install PYTHON=python3.12"
	@echo "  make chaos ROWS='kill-local copies'   some rows of its table"

install: $(STAMP)  ## Build .venv from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "There is no '$(PYTHON)' on PATH. Install Python 3.11, 3.12 or 3.13, or say: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "%s is Python %d.%d; airflow-mlops needs 3.11, 3.12 or 3.13. Say: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12" % (sys.executable, *v[:2]))'
	@test -x $(BIN)/python || { echo "Building $(VENV) with $$($(PYTHON) --version) …"; $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	@echo "Installing airflow-mlops[$(EXTRAS)] from constraints.txt; the first time takes a few minutes …"
	$(BIN)/python -m pip install --disable-pip-version-check --prefer-binary -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## Run both pipelines in a real Airflow, then leave its UI at http://localhost:8080
	@$(CLEAN_ENV) $(BIN)/python -u -m airflow_mlops.demo --level $(LEVEL) --port $(PORT) $(if $(filter 1 yes true,$(FLEET)),--fleet) $(if $(filter 0 no false,$(UI)),--no-ui)

# A skipped test proves nothing: where CI is set, it fails the run (tests/conftest.py).
# Unit tests in as many processes as there are cores, at most four; those against services in two, a file in one of
# them; a live Airflow is many processes by itself. One recipe: `make -j` must not run them beside each other.
PYTEST := $(CLEAN_ENV) $(BIN)/python -m pytest -q
UNIT := $(PYTEST) tests/unit -n logical --maxprocesses 4 --dist worksteal
INTEGRATION := $(PYTEST) tests/integration -n logical --maxprocesses 2 --dist loadfile
SYSTEM := $(PYTEST) tests/system

test: $(STAMP)  ## Unit, integration and system tests
	$(UNIT)
	$(INTEGRATION)
	$(SYSTEM)

unit: $(STAMP)  ## Unit tests
	$(UNIT)

integration: $(STAMP)  ## Tests against real services
	$(INTEGRATION)

system: $(STAMP)  ## Tests against a live Airflow
	$(SYSTEM)

delivery: $(STAMP)  ## Kill every task of deliveries between two live Airflows; prints a table
	@$(CLEAN_ENV) $(BIN)/python -u -m tests.chaos.deliveries

# Apart from `install`: only this target drives a browser, and Chromium is the machine's own.
$(UI_KIT): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[ui]'
	@touch $@

ui: $(UI_KIT)  ## The MLOps pages in Chromium against a live Airflow; pictures in .demo-ui-pictures
	@$(CLEAN_ENV) $(BIN)/python -u -m tests.ui.pages

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## ruff: repair and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## mypy
	$(BIN)/mypy

fuzz: $(STAMP)  ## 20,000 mutated pipeline files
	MUTATIONS=20000 $(CLEAN_ENV) $(BIN)/python -m pytest tests/unit/config/test_config_mutations.py -q

chaos: $(STAMP)  ## Kill, fill, corrupt and race registry and deliveries; prints a table
	@$(CLEAN_ENV) $(BIN)/python -m tests.chaos $(ROWS)

# All of them, also after one that misses a target.
decisions: $(STAMP)  ## How often gates, checks and the retrain ledger are wrong, and what they cost; prints tables
	@failed=0; for name in gates holdout drift monitoring ledger; do \
		echo; echo "== benchmarks/bench_$$name.py"; $(CLEAN_ENV) $(BIN)/python benchmarks/bench_$$name.py || failed=1; \
	done; exit $$failed

# Apart from `install`: every Airflow in .venv loads dag-factory's plugin once it is there.
$(BENCH): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(BENCH)  ## Every benchmark in benchmarks/
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(CLEAN_ENV) $(BIN)/python $$script || exit 1; done

clean:  ## Remove what make and the tools made, .venv included
	rm -rf $(VENV) .demo .demo-ui .demo-ui-pictures build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The tasks of this repository; `make help` lists them.
# The environment is made on first use, and again when pyproject.toml or constraints.txt changes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
INSTALLED_SPARK4 := .venv-spark4/.installed

# The first Python of these that runs and fits; or name one: `make PYTHON=/path/to/python3.11 …`. Where none fits,
# tools/environment.py refuses python3 in a sentence.
PYTHON ?= $(shell for candidate in python3.11 python3.12 python3.13 python3; do \
	$$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && { echo $$candidate; exit; }; \
	done; echo python3)

# make_environment(folder, extras): a virtual environment with everything pinned, and a stamp once it is complete.
define make_environment
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 to 3.13 is needed and none was found. Install it (Debian:" \
		"apt-get install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) tools/environment.py make $(1) $(2)
endef

.PHONY: help
help: ## List the targets
	@echo "cdi_dagster: Corporate Data Ingestion as a Dagster project"
	@echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Start with make demo, then make dev. The same from a terminal: $(BIN)/cdi --help"

$(INSTALLED): pyproject.toml constraints.txt
	$(call make_environment,$(VENV),spark$(comma)java$(comma)aws$(comma)postgres$(comma)dev)

$(INSTALLED_SPARK4): pyproject.toml constraints.txt
	$(call make_environment,.venv-spark4,spark4$(comma)aws$(comma)dev)

comma := ,

.PHONY: install
install: $(INSTALLED) ## Make the virtual environment (.venv); every other target does it by itself

.PHONY: wheels
wheels: $(INSTALLED) ## Keep wheels of all packages in .wheels, with which environments are made offline
	@$(PY) tools/environment.py wheels spark,java,aws,postgres,dev

.PHONY: java
java: $(INSTALLED)
	@$(PY) -m cdi_dagster.local_spark.java >/dev/null

.PHONY: demo
demo: $(INSTALLED) java ## Sample days through the real thing: encrypt, coalesce, ingest through Dagster, publish tables
	@$(BIN)/cdi demo

.PHONY: dev
dev: $(INSTALLED) java ## Open the Dagster UI on the demo's home (http://127.0.0.1:3000)
	@$(BIN)/cdi dev

# What takes long: see the markers in pyproject.toml; a test that starts one of these without its marker fails.
QUICK := not (spark or daemon or kill or browser or slow)

.PHONY: test-quick
test-quick: $(INSTALLED) ## Run the quick tests (no Spark, daemon, browser, kill): the loop to work in
	@$(PY) -m cdi_dagster_tests.run_all -m "$(QUICK)" $(ARGS)

.PHONY: test
test: $(INSTALLED) java ## Run all tests, a package for each core side by side
	@[ -n "$(ARGS)" ] || echo "All tests: about half an hour on two cores; make test-quick takes some minutes" >&2
	@$(PY) -m cdi_dagster_tests.run_all $(ARGS)
	@[ -n "$(ARGS)" ] || echo "Next: make check, then CONTRIBUTING.md for what a change comes with" >&2

.PHONY: test-spark4
test-spark4: $(INSTALLED_SPARK4) $(INSTALLED) ## Run the tests that start the jobs' Spark on Spark 4, in its own environment; needs a Java 17 of the machine
	@.venv-spark4/bin/python -m cdi_dagster.local_spark.java >/dev/null
	@.venv-spark4/bin/python -m cdi_dagster_tests.run_all -m "spark and not any_spark" spark s3a/test_publish_tables_on_s3.py $(ARGS)

.PHONY: bench
bench: $(INSTALLED) java ## Measure the Spark job against a plain chain of steps: make bench ARGS="--help"; docs/performance.md
	@$(PY) -m benchmarks $(ARGS)

.PHONY: bench-coalescer
bench-coalescer: $(INSTALLED) ## Measure the coalescer against a plain one: make bench-coalescer ARGS="--help"; docs/performance.md
	@$(PY) -m benchmarks.coalescer $(ARGS)

.PHONY: bench-snapshot
bench-snapshot: $(INSTALLED) java ## Measure the snapshot against a plain Spark program: make bench-snapshot ARGS="--help"; docs/performance.md
	@$(PY) -m benchmarks.snapshot $(ARGS)

.PHONY: check
check: $(INSTALLED) ## Format, lint, types and import contracts, without changing anything
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what the linter can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bundle
bundle: $(INSTALLED) ## Make what a cluster needs (wheels, hashes, bootstrap script) below dist/bundle; cdi deploy uploads it
	@$(BIN)/cdi bundle

# The Spark line whose jars are fetched; each has a list of its own in deploy/s3a.
SPARK ?= 3.5
S3A_JARS := .cdi/jars/spark-$(SPARK)
COPY_JARS := org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies

.PHONY: s3a-jars
s3a-jars: $(S3A_JARS)/.fetched ## Fetch by Maven what local Spark needs to write tables to s3:// (280 MB; SPARK=4.0: 560 MB)

$(S3A_JARS)/.fetched: deploy/s3a/spark-$(SPARK).xml
	@command -v mvn >/dev/null || { echo "Maven is needed and not there. Install it (Debian: apt-get install maven)," \
		"or put the jars that deploy/s3a/spark-$(SPARK).xml names into $(S3A_JARS)" >&2; exit 1; }
	@rm -rf $(S3A_JARS)
	@mvn -q -B --strict-checksums -f $< $(COPY_JARS) "-DoutputDirectory=$(CURDIR)/$(S3A_JARS)"
	@touch $@
	@echo "Local Spark $(SPARK) can now write tables to s3://: the jars are in $(S3A_JARS)"

$(VENV)/.docs: $(INSTALLED)
	@echo "Fetching the generator of the site (some seconds)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

.PHONY: docs
docs: $(VENV)/.docs ## Build the pages as a site in site/, and check every link and command in them
	@$(PY) tools/docs.py

.PHONY: screenshots
screenshots: $(INSTALLED) java ## Take the pictures of docs/images from the UI of the demo; needs Chromium
	@$(PY) tools/screenshots.py

.PHONY: clean
clean: ## Remove environments, caches and the demo's home
	@rm -rf .venv .venv-* .cdi site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache \
		metastore_db derby.log spark-warehouse

# Everything starts from Python 3.11, pip and make. The environment is made in .venv from the pinned versions.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
FLIGHTS := examples/flights/data/weather.parquet
ELEC2 := examples/elec2/data/moves.parquet
CLIENTS := .venv-clients/.ready
OPENBANDIT := examples/openbandit/data/policy.parquet

.PHONY: help demo test check format bench lock data browser promtool clients clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

demo: $(READY) $(FLIGHTS) ## the New York flights of 2013 through the whole loop, and a report of it
	$(BIN)/noria check examples/flights/system.py
	$(BIN)/noria replay examples/flights/system.py --from 2013-01-01 --to 2014-01-01 --every 1d
	@echo
	$(BIN)/noria status examples/flights/system.py
	@echo
	$(BIN)/noria report examples/flights/system.py --to report.html

test: check data browser promtool clients ## exactly what CI runs: the checks, then every test
	$(BIN)/pytest -n 2 --dist worksteal -q

check: $(READY) ## style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) $(FLIGHTS) ## the flights year, timed: where the seconds and the memory go
	$(BIN)/python benchmarks/year.py

lock: $(READY) ## pin every dependency anew
	$(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 --upgrade \
		--no-header --no-emit-index-url --no-emit-find-links --no-annotate -o requirements.lock
	$(BIN)/uv pip compile tests/deployment/protocols/clients.in --python-version 3.11 --upgrade \
		--no-header --no-emit-index-url --no-emit-find-links --no-annotate -o tests/deployment/protocols/clients.txt

data: $(FLIGHTS) $(ELEC2) $(OPENBANDIT) ## fetch the examples' data (once)

$(FLIGHTS): examples/flights/fetch.py examples/fetching.py | $(READY)
	$(BIN)/python $<
	@touch $@

$(ELEC2): examples/elec2/fetch.py examples/fetching.py | $(READY)
	$(BIN)/python $<
	@touch $@

$(OPENBANDIT): examples/openbandit/fetch.py examples/fetching.py | $(READY)
	$(BIN)/python $<
	@touch $@

# The report is looked at in a real browser. Without one, and without the right to install one, those tests say so and are skipped.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
		|| echo "no chromium: the tests that look at the report in a browser will be skipped"

# What the service tells Prometheus is checked by Prometheus's own tool.
promtool:
	@command -v promtool >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } \
		|| echo "no promtool: the tests of what Prometheus is told will be skipped"

# Clients of the service that others wrote. They want other versions of our libraries, so they have an environment of their own.
clients: $(CLIENTS) ## the clients that the service is tested with

$(CLIENTS): tests/deployment/protocols/clients.txt
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean: ## remove what was made, except the fetched archives
	rm -rf .venv .venv-clients .mypy_cache .ruff_cache .pytest_cache .hypothesis examples/*/data examples/*/.noria report.html

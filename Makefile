# inferq: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch is not on PyPI; pip asks this index too.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install lint format test clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/base: requirements-base.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements-base.txt && touch $@

$(VENV)/dev: $(VENV)/base requirements-dev.txt
	@$(PIP) -r requirements-dev.txt && touch $@

install: $(VENV)/dev ## Install everything that lint and tests need into .venv

lint: $(VENV)/dev ## Check style, types and the direction of imports
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --no-cache > /dev/null || $(BIN)/lint-imports --no-cache

format: $(VENV)/dev ## Put the code in order
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

test: $(VENV)/dev ## Run the whole test suite
	@$(BIN)/python -m pytest

clean: ## Remove what make has made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

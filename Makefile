# The one entry: `make help` lists what there is.
#   make suite PROFILE=smoke          another profile
#   make suite ARGS="--only 01 02"    anything `clcae run` takes
#   make test TESTS=tests/unit/test_setup.py
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first supported interpreter found; name another with `make PYTHON=/path/to/python suite`.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c "$(SUPPORTED)" 2>/dev/null && { echo "$$p"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROFILE ?= quick
TESTS ?= tests
WORKERS ?= 2
# GPUs multiply in full float32, as a CPU does; set it to 1 for torch's own choice (TF32 in convolutions).
export NVIDIA_TF32_OVERRIDE ?= 0
# Threads that wait soon go to sleep, as in clcae_lib/__init__.py; this is for JupyterLab, which imports torch first.
export GOMP_SPINCOUNT ?= 10000
ARGS ?=

.PHONY: help install suite test lint format site lab explore bench bench-steps bench-scale bench-cuda test-cuda campaign clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv and install the pinned packages (the other commands do it when needed)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c "$(SUPPORTED)" || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; name one with PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing the pinned packages into $(VENV); this takes a few minutes, once."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

suite: $(STAMP) ## Run the notebooks and write the report (PROFILE=quick|smoke|full, ARGS=...)
	$(BIN)/clcae run --profile $(PROFILE) $(ARGS)

test: $(STAMP) ## Run every test; the notebooks' smoke profile is one of them
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS) $(ARGS)

test-cuda: $(STAMP) ## Run what needs a GPU: trainings against the CPU, bfloat16, resume, inverters (ARGS=...)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-4} $(BIN)/python -m pytest -W default -m cuda -n 0 tests/cuda $(ARGS)

lint: $(STAMP) ## Check style, notebooks included, and that notebooks carry no outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports --no-logo --no-cache
	@find notebooks -name '*.ipynb' -not -path '*/.*' -exec $(BIN)/nbstripout --keep-id --verify {} +
	@! grep -rnPi --include=*.py --include=*.md --include=*.ipynb "$$(paste -sd'|' tests/avoided_words.txt)" \
		clcae_lib docs tests README.md notebooks || { echo "Say it in other words: see docs/contributing.md" >&2; exit 1; }

format: $(STAMP) ## Rewrite sources and notebooks in the project's style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	@find notebooks -name '*.ipynb' -not -path '*/.*' -exec $(BIN)/nbstripout --keep-id {} +

site: $(STAMP) ## Build the website of the course from executed notebooks and docs into build/site
	$(BIN)/python docs/site/build.py --strict

lab: $(STAMP) ## Open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

explore: $(STAMP) ## Serve the latent explorer as a page of its own (ARGS="--port 9000")
	$(BIN)/clcae explore $(ARGS)

bench-steps: $(STAMP) ## Count the operations of a training step of every task, and measure its speed here
	$(BIN)/python -m tests.benchmarks.steps $(ARGS)

bench-scale: $(STAMP) ## Measure photographs, sweeps and inversions in quantity; wants a quiet machine (ARGS="--small")
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.scale $(ARGS)

bench-cuda: $(STAMP) ## Measure trainings and inversions on a GPU, one table (ARGS="--budget 240")
	$(BIN)/python -m tests.benchmarks.cuda $(ARGS)

bench: $(STAMP) ## Measure in a real Chromium how long a slider takes to change the picture
	$(BIN)/python -m tests.browser.benchmark $(ARGS)

campaign: $(STAMP) ## Try again what once fell, hostile weights, kills at random: one table (half an hour; ARGS="--only L4")
	$(BIN)/python -m tests.campaign $(ARGS)

clean: ## Remove the environment and every product of runs, keeping results/reference and the shipped weights
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
	find results -mindepth 1 -maxdepth 1 -not -name reference -not -name README.md -exec rm -rf {} +
	find clcae_lib tests -name __pycache__ -type d -exec rm -rf {} +

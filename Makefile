# Every target sets itself up on first use: a virtual environment in .venv with pinned packages.
# Once that is done, nothing is downloaded again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
# More options for pip, such as the index of the CPU build of torch (see README.md).
PIP_OPTIONS ?=
# A wheel of immutables, which Snakemake needs, ends with Python 3.13: for 3.14 pip compiles it.
COMPILES := import os, shutil, sys, sysconfig; says = sysconfig.get_config_var; \
	compiler = (os.environ.get("CC") or says("CC") or "cc").split()[0]; \
	header = os.path.join(says("INCLUDEPY") or "", "Python.h"); \
	sys.exit(sys.version_info >= (3, 14) and not (shutil.which(compiler) and os.path.exists(header)))
# More options for Snakemake: make results SNAKEMAKE_OPTIONS="--configfile config/mine.yaml"
SNAKEMAKE_OPTIONS ?=
PYTEST_OPTIONS ?=
# A conda command and a local channel, for tests of --use-conda where no channel can be reached.
export BPGO_CONDA_TOOLS ?= $(abspath $(wildcard ../shared/tools/conda))

# Targets stand first: --configfile takes every word that follows it. At its end Snakemake names the
# report and what was drawn, in the folder that its configuration says.
snakemake = $(BIN)/snakemake $(1) --cores $(CORES) $(SNAKEMAKE_OPTIONS)
# Snakemake makes a cache below the home folder; without one that can be written, it gets this one.
ifneq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo yes),yes)
export XDG_CACHE_HOME ?= $(abspath .snakemake/cache)
endif
results smoke video: export BPGO_MAKE = $@  # so that messages say how the call goes on
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help results smoke video figures reference bench pretrain test lint format constraints clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

results: $(VENV)/.main  ## the embedded default: train, sample, score, tables, figures, report
	$(call snakemake,)

smoke: $(VENV)/.main  ## the same steps in two minutes, few of everything
	$(call snakemake,smoke)

video: $(VENV)/.main  ## the embedded video world: text to video and image to video
	$(call snakemake,video)

figures: $(VENV)/.main  ## every table and figure again from stored scores, without training
	$(call snakemake,figures --forcerun statistics)

reference: $(VENV)/.main  ## the tables and figures of the published scores, in a fresh clone too
	$(call snakemake,reference)

bench: $(VENV)/.main  ## time the parts of a training iteration
	$(call snakemake,bench --forcerun bench)

pretrain: $(VENV)/.main  ## make the shipped weights again, from nothing
	$(call snakemake,pretrain)

# Tools for the tests that need a Slurm; see CONTRIBUTING.md.
test: export BPGO_SLURM_TOOLS ?= $(wildcard ../shared/tools/slurm)
test: $(VENV)/.dev  ## all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_OPTIONS)

lint: $(VENV)/.dev  ## style, types, imports, workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# No addresses and no hashes, so the file serves every package index and every build of torch.
# torch itself names the exact CUDA packages it needs; they are not ours to list.
constraints: $(VENV)/.dev  ## pin every package again
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate \
		--all-extras --quiet --output-file constraints.all pyproject.toml
	grep -vE '^(nvidia-|cuda-|triton)' constraints.all > constraints.txt
	rm constraints.all

# What the targets above make in minutes or hours. Other results stay, however long they took; they go
# by name: make clean RESULTS=flux_t2i. Snakemake's notes on how results were made go with the last.
MADE := agreement agreement_i2v agreement_t2v bench benchmarks calibration collected config draws \
	embeddings figures grids harm instrument logs pretrain pretrain_parts prompts reference_rebuilt \
	report runs samples scenes_hard scenes_i2v scenes_t2v scenes_worlds scores second_seeds \
	second_seeds_i2v second_seeds_t2v smoke smoke_arms smoke_arms_t2v statistics tables trust
RESULTS ?= $(MADE)
clean:  ## remove what the targets above made, and caches; RESULTS=NAME removes other results
	@for name in $(RESULTS); do case "$$name" in reference|.*|*/*|*[!a-z0-9_]*) \
		echo "error: RESULTS: '$$name' is not allowed: name folders of results, but reference" >&2; \
		exit 2;; esac; done
	for name in $(RESULTS); do rm -rf "results/$$name"; done
	@kept=$$(ls results | grep -vx reference | tr '\n' ' '); \
		if [ -z "$$kept" ]; then rm -rf .snakemake; \
		else echo "Kept in results: $$kept(make clean RESULTS=NAME removes one)"; fi
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 \
		&& $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
		|| { echo "error: Python 3.11 to 3.14 is needed, and '$(PYTHON)' is not." \
			"Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c '$(COMPILES)' \
		|| { echo "error: for Python 3.14 a package (immutables) is compiled, which needs a C compiler and" \
			"Python's header files (Debian: gcc, python3.14-dev); an older Python needs neither:" \
			"make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# The stamps are written last: an interrupted set-up starts again.
$(VENV)/.main: $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(PINS) | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_OPTIONS) -c constraints.txt -e ".[rewards,cluster,dev]"
	@touch $@ $(VENV)/.main

# make demo: the paper's ladder on real images, in minutes.   make test: everything CI checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint suite docs dist install soak clusters bench gpu mutants
.DEFAULT_GOAL := help

help:
	@sed -n 1p Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "noiseless needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.11"; exit 1; }
	@echo "Installing into $(VENV) (once; a few minutes on a slow network) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/noiseless reproduce

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Checks of the code beside the tests: mypy takes most of a minute on one core where it has no cache yet.
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs 2 lint suite

# A process a core and one more, since some tests wait, but no more than four: each takes some 3 GB.
suite: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$($(BIN)/python -c "import os; print(min(4, (os.cpu_count() or 1) + 1))") \
		--dist loadfile --no-loadscope-reorder -m "not soak"

# The documentation site, in build/site. Every warning is an error.
docs: $(VENV)/.installed
	$(BIN)/zensical build --clean --strict

# sdist and wheel, installed into fresh environments with the newest and the lowest versions of what the package needs.
# LOWEST="--with torch==2.13 torchvision==0.28" replaces some of the lowest.
dist: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) tests/installed.py dist/*.whl
	$(PYTHON) tests/installed.py dist/*.whl --lowest $(LOWEST)

# Long checks: 200 kills, a worker and a node that vanish, 2,000 damaged files, 500 mistaken commands, all hostile runs, parity
# on the paper's models, many modules. Some half an hour. docs/security.md says what the campaigns draw, and how to repeat a seed.
soak: $(VENV)/.installed
	$(BIN)/pytest -m soak -s

# Runs on a real Slurm, Ray cluster, Fabric and FUSE mount of this machine, as far as they are installed; docs/clusters.md says
# what each needs. CLUSTER_PYTHON is a Python that has Ray, Fabric and mfusepy besides this package.
CLUSTER_PYTHON ?= $(BIN)/python
clusters: $(VENV)/.installed
	@code=0; for check in slurm ray lightning object_store; do $(CLUSTER_PYTHON) tests/clusters/on_$$check.py || code=1; done; \
		exit $$code

# What is timed, against what, in one run. About twenty minutes, alone on the machine.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/exact_sum.py
	$(BIN)/python benchmarks/job_start.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/ladder.py --seeds 3

# Everything that a GPU has to show, in ten minutes: bits, parity, no waiting, speed. Writes gpu.json; docs/howto/gpus.md says what is in it.
gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py

# Which changes of one operator or number do the tests notice? Some hours, at low priority; goes on where it was stopped.
mutants: $(VENV)/.installed
	$(BIN)/python benchmarks/mutants.py

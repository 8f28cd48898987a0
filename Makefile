# What a person types; .ci/run types the same. bootstrap.py makes .venv and knows what is up to date.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo core dev test bench bench-full bench-report soak kernels-all kernels-aot gpu gpu-train sanitize fuzz check fix clean distclean

# A Python to make .venv with; unset, a suitable one is looked for: make demo PYTHON=/path/to/python3.12
PYTHON ?=
# How long `make fuzz` takes
SECONDS ?= 300
# Passed on: make test ARGS="-k masks -x"; make demo ARGS="--out somewhere"
ARGS ?=

BIN := .venv/bin
PY_SOURCES := refavs_rt kernels export train benchmarks tests csrc bootstrap.py conftest.py
CPP_SOURCES = $(shell find csrc -name '*.h' -o -name '*.cpp')
BOOTSTRAP = @command -v $(or $(PYTHON),python3) >/dev/null || \
	{ echo "error: no $(or $(PYTHON),python3) found; on Debian or Ubuntu: sudo apt-get install python3" >&2; exit 1; }; \
	PYTHON="$(PYTHON)" $(or $(PYTHON),python3) bootstrap.py

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: core ## install the core into .venv and run it on a short clip: demo-out/overlay.mp4
	@$(BIN)/python -m refavs_rt.demo $(ARGS)

core: ## .venv with the core: numpy, onnxruntime, tokenizers, the web server, the compiled extension
	$(BOOTSTRAP) core

dev: ## complete .venv with every extra, and install the media that scenes are made of
	$(BOOTSTRAP) dev

test: dev ## dev, then all tests, a process a core
	@$(BIN)/pytest -n logical --dist worksteal $(ARGS)

bench: dev ## the benchmarks only, in under ten minutes; ARGS=--save-results keeps the figures
	@$(BIN)/pytest --benchmark-only $(ARGS)

bench-full: dev ## in the background all benchmarks, the preset full and the published flow too; figures are kept as they come
	@$(BIN)/python -m benchmarks.full $(ARGS)

bench-report: dev ## docs/benchmarks.md and its plots from the figures that are kept
	@$(BIN)/python -m benchmarks.report $(ARGS)

soak: dev ## half an hour of the live runtime with a fault every minute, and viewers: soak/soak.png
	@$(BIN)/python -m benchmarks.soak $(ARGS)

kernels-all: dev ## the kernels' tests in every combination, in Triton's interpreter: hours
	@$(BIN)/pytest -m kernels_all $(ARGS)

kernels-aot: dev ## compile every kernel for every card, with no GPU, and check registers and shared memory
	@$(BIN)/python -m refavs_rt.kernels.aot $(ARGS)

gpu: ## on a machine with a GPU, installing nothing: the kernels' tests there, and their figures: gpu-results/
	@PYTHONPATH=. $(or $(PYTHON),python3) -m benchmarks.gpu $(ARGS)

gpu-train: ## there too: train from gpu-train/, which `python -m train leg pack` wrote, for eight minutes: gpu-train-results/
	@PYTHONPATH=. $(or $(PYTHON),python3) -m train leg run $(ARGS)

sanitize: dev ## csrc and its tests with the address, undefined-behaviour and thread sanitizers: a quarter of an hour
	@$(BIN)/python csrc/tests/sanitize.py $(ARGS)

fuzz: ## with Clang's libFuzzer, damaged files and odd addresses into csrc: make fuzz SECONDS=600
	$(BOOTSTRAP) fuzz
	@$(BIN)/python csrc/tests/fuzz.py --seconds $(SECONDS) $(ARGS)

check: dev ## ruff, mypy, clang-format; changes nothing
	@$(BIN)/ruff check $(PY_SOURCES)
	@$(BIN)/ruff format --check $(PY_SOURCES)
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	@echo "make check: nothing to mend"

fix: dev ## let ruff and clang-format mend what they can
	@$(BIN)/ruff check --fix $(PY_SOURCES)
	@$(BIN)/ruff format $(PY_SOURCES)
	@$(BIN)/clang-format -i $(CPP_SOURCES)

clean: ## remove what was built and cached, but not .venv
	@rm -rf build dist demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	@rm -f .venv/stamps/extension
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	@rm -rf .venv

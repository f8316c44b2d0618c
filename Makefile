# Every target sets up what it needs: a virtual environment in .venv with lnbench installed for development.
# Needs Python >= 3.11, a C compiler and make; everything else comes from the package index.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NATIVE := $(wildcard backends/native/CMakeLists.txt backends/native/include/* backends/native/src/* backends/native/src/simd/* \
            lnbench/probe/*.c lnbench/probe/*.h lnbench/probe/CMakeLists.txt CMakeLists.txt)

.PHONY: help verify test test-torch lint native native-test native-test-arm selftest check wheel clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 20

$(STAMP): pyproject.toml $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

verify: $(STAMP)  ## set up, then verify the numpy and native backends over the suite `ci`
	$(BIN)/lnbench verify

test: $(STAMP)  ## set up, then run the tests
	$(BIN)/python -m pytest -n 2

test-torch: $(STAMP)  ## install PyTorch for the processor, then run the tests of the frameworks' backends
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(BIN)/python -m pytest -n 2 tests/backends

lint: $(STAMP)  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

native: $(STAMP)  ## rebuild the C library into the editable install

native-test: $(STAMP)  ## the C library's own tests under the address, undefined-behaviour and thread sanitizers
	PATH="$(CURDIR)/$(BIN):$$PATH" backends/native/run_tests.sh

native-test-arm: $(STAMP)  ## the C library's tests cross-compiled for AArch64 and run under qemu
	PATH="$(CURDIR)/$(BIN):$$PATH" backends/native/run_tests_arm.sh

selftest: $(STAMP)  ## planted bugs must die, correct kernels must not be accused
	$(BIN)/lnbench selftest

check: lint test native-test  ## everything that must hold before a commit

wheel: $(STAMP)  ## build a wheel into dist/
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --wheel

clean:  ## remove what was built (keeps .venv)
	rm -rf build dist

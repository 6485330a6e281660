# Needs Python 3.11 or newer, make and git. Everything else goes into .venv and .tools of this folder.

PYTHON ?= python3
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .tools/bin/uv)
BIN := .venv/bin

# Use a Python that is there, also where .python-version names another one; never fetch one.
export UV_PYTHON ?= >=3.11
export UV_PYTHON_DOWNLOADS ?= never
unexport VIRTUAL_ENV UV_PROJECT_ENVIRONMENT

# Trust the certificates that the system trusts, e.g. those of a company's proxy.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= 1
export UV_NATIVE_TLS ?= 1
endif

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(filter .tools/bin/uv,$(UV)) ## Install everything into .venv; the other targets do it by themselves
	@[ -d .venv ] || echo "Installing into .venv"
	@$(UV) sync --quiet --locked --all-extras --all-packages

.PHONY: check
check: setup ## Lint, check format, types, import rules and the lock file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(UV) lock --check

.PHONY: test
test: setup ## Run the tests on real servers; options for pytest: make test ARGS="-x -k claim"
	$(BIN)/pytest $(ARGS)

.PHONY: demo
demo: setup ## Run the main job end to end on real servers and show what the database says
	$(BIN)/portfolio demo

.PHONY: bench
bench: setup ## Measure the figures, each beside its peer
	$(BIN)/python bench/transitions.py
	$(BIN)/python bench/producer_memory.py --rows 200000

.PHONY: clean
clean: ## Stop the embedded servers of this folder and delete everything that can be made again
	@if [ -x $(BIN)/tasktrail ] && [ -d .tasktrail ]; then $(BIN)/tasktrail dev down; fi
	rm -rf .venv .tools .tasktrail .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist

.tools/bin/uv:
	@echo "There is no uv on the PATH; installing it into .tools"
	@$(PYTHON) -m venv --clear .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

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
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

MADE_UP := ^(secret|password|pw|hunter2|guest|two words|x\\+)$$|BEGIN (RSA )?PRIVATE KEY
.PHONY: secrets
secrets: setup ## Look for secrets in what is committed; those that tests make up are named here
	git ls-files -z -- ':!uv.lock' ':!*.csv' ':!*.png' | xargs -0 $(BIN)/detect-secrets-hook \
		--exclude-secrets '$(MADE_UP)' --exclude-lines 'is_secret = "Secret" in'

.PHONY: audit
audit: setup ## Look up known vulnerabilities of what is locked; needs PyPI's or OSV's database of them
	@$(UV) sync --quiet --locked --inexact --all-extras --all-packages --group audit
	$(UV) export --quiet --locked --all-extras --no-dev --no-emit-workspace | $(BIN)/pip-audit --disable-pip --requirement /dev/stdin

.PHONY: test
test: setup ## Run the tests on real servers, in two processes; options for pytest: make test ARGS="-x -k claim"
	$(BIN)/pytest --numprocesses=2 --dist=loadfile $(ARGS)

.PHONY: coverage
coverage: setup ## Measure which branches of the library the tests take; below 95 % is an error; options for pytest in ARGS
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=2 --dist=loadfile $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95
	@$(BIN)/coverage json --quiet -o - | $(BIN)/python -c 'import json, sys; \
		taken = json.load(sys.stdin)["totals"]["percent_branches_covered"]; \
		print(f"{taken:.1f} % of the branches are taken"); sys.exit(taken < 95)'

.PHONY: mutation
mutation: setup ## Change the rules bit by bit and see whether their tests notice; some of them: make mutation ARGS="retry"
	@$(UV) sync --quiet --locked --inexact --all-extras --all-packages --group mutation
	$(BIN)/python -m tests.mutation.run $(ARGS)

.PHONY: chaos
chaos: setup ## Run 5,000 jobs on each broker under fire and judge them by SQL; options: make chaos ARGS="--seed 7"
	$(BIN)/python -m tests.chaos.run --broker redis --jobs 5000 --seconds 90 $(ARGS)
	$(BIN)/python -m tests.chaos.run --broker rabbitmq --jobs 5000 --seconds 90 $(ARGS)

.PHONY: endurance
endurance: setup ## Migrate 1,000,000 dirty rows under old writers, judged by an oracle; options: make endurance ARGS="--rows 100000"
	$(BIN)/python -m apps.portfolio.tests.legacy.endurance $(ARGS)

.PHONY: demo
demo: setup ## Run the main job end to end and serve the dashboard; SERVE=0 ends instead, as without a terminal
	$(BIN)/portfolio demo $(if $(SERVE),$(if $(filter 0,$(SERVE)),,--serve),$$([ -t 0 ] && echo --serve))

.PHONY: docs
docs: setup ## Build the documentation into site/; a warning is an error
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --quiet docs site

.PHONY: bench
bench: setup ## Measure everything beside its peers, in below twenty minutes, and write it down; ARGS="--quick" for a look
	@$(UV) sync --quiet --locked --inexact --all-extras --all-packages --group bench
	$(BIN)/python -m bench $(ARGS)

.PHONY: clean
clean: ## Stop the embedded servers of this folder and delete everything that can be made again
	@if [ -x $(BIN)/tasktrail ] && [ -d .tasktrail ]; then $(BIN)/tasktrail dev down; fi
	rm -rf .venv .tools .tasktrail .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* .mutation dist site

.tools/bin/uv:
	@echo "There is no uv on the PATH; installing it into .tools"
	@$(PYTHON) -m venv --clear .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

# The project's commands. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test torture lint audit requirements screens bench bench-admin clean

VENV := .venv
BIN := $(VENV)/bin
# The first Python from 3.11 on that really runs: a version manager's shim may be there without its Python.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.production ## Install what the server needs into .venv

setup-dev: $(VENV)/.development ## Install what tests, linters and benchmarks need too

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed." >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.production: requirements.txt requirements-server.txt | $(BIN)/python
	@echo "Installing requirements.txt and requirements-server.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
		-r requirements.txt -r requirements-server.txt
	@touch $@

$(VENV)/.development: requirements-dev.txt $(VENV)/.production
	@echo "Installing requirements-dev.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r requirements-dev.txt
	@touch $@

run: setup ## Serve on 127.0.0.1:$PORT (8000); the first run creates demo data
	@exec $(BIN)/python manage.py serve

test: setup-dev ## Run every test, with a PostgreSQL and a Redis of its own
	@$(BIN)/python -m pytest

torture: setup-dev ## Run the long forms of the tests, or those that TEST names a part of
	@$(BIN)/python -m torture $(TEST)

lint: setup-dev ## Check style, types, layers, migrations and the deployment's settings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy apps controlplane
	@$(BIN)/lint-imports
	@$(BIN)/python manage.py makemigrations --check --dry-run
	@ENVIRONMENT=production SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))') \
		ALLOWED_HOSTS=llm.example.com \
		KEY_PEPPERS=lint:$$($(BIN)/python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())') \
		ENCRYPTION_KEYS=lint:$$($(BIN)/python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())') \
		$(BIN)/python manage.py check --deploy --fail-level WARNING

audit: setup-dev ## Look every pinned requirement up among the known vulnerabilities (asks the network)
	@$(BIN)/uvx --from pip-audit==2.10.1 pip-audit --disable-pip --require-hashes --strict \
		-r requirements.txt -r requirements-server.txt -r requirements-dev.txt

requirements: setup-dev ## Compile the pinned requirements from requirements*.in
	@for name in requirements requirements-server requirements-dev; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --output-file $$name.txt $$name.in; done

screens: setup-dev ## Take the pictures in docs/screens, or those that SCREEN names a part of
	@$(BIN)/python -m screens $(SCREEN)

bench: setup-dev ## Measure the request's path beside a bare pass-through
	@$(BIN)/python -m bench.policies
	@$(BIN)/python -m bench.run

bench-admin: setup-dev ## Measure the admin's pages with $RECORDS generated records (200000)
	@$(BIN)/python -m bench.admin --records $(or $(RECORDS),200000)

clean: ## Remove what the commands above made, but for data
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles

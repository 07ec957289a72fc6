# Everything a person does here. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup run test check docs bench bench-pipelines bench-scheduler bench-peers lock clean
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
# A platform is many processes: without kept bytecode each compiles what it imports anew.
export PYTHONDONTWRITEBYTECODE :=
bin := .venv/bin
# The first CPython >= 3.11 that can make virtual environments.
find_python = for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and install what the lock files name; instant when nothing changed
	@python=$$($(find_python)); \
	if [ -z "$$python" ]; then echo "Trellis needs Python 3.11 or newer with its venv module (Debian, Ubuntu: python3-venv)." >&2; exit 1; fi; \
	$$python requirements/install.py

run: setup ## the whole platform on this machine, with an example job; Ctrl-C stops it (ARGS="--nodes 3")
	@$(bin)/trellis up $(ARGS)

test: setup ## every test, on real PostgreSQL and Valkey
	@failed=; \
	$(bin)/python -m pytest -q -n 2 --ignore tests/e2e || failed=1; \
	$(bin)/python -m pytest -q -n 2 --dist loadgroup tests/e2e || failed=1; \
	test -z "$$failed"

check: setup ## lint, format, types, import contracts, migrations; all of them, then the verdict
	@failed=; \
	step() { echo "== $$*" >&2; "$(bin)/$$@" || failed="$$failed $$1"; }; \
	step ruff check . ; \
	step ruff format --check . ; \
	step mypy ; \
	step lint-imports ; \
	step python -m pytest -q tests/integration/core/test_migrations.py ; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

docs: setup ## draw the pages of docs/ that follow from the code
	@$(bin)/python -m docs.generate

bench: setup ## measure; one JSON object a line; ONLY="latency throughput" takes some of it
	@$(bin)/python -m benchmarks $(ONLY)

bench-scheduler: setup ## the scheduler alone, on one core; TRACES=DIR adds public traces; ONLY="scale logs"
	@$(bin)/python -m benchmarks.scheduling $(ONLY) $(if $(TRACES),--traces "$(TRACES)")

bench-pipelines: setup ## pipelines: a hundred stages, from one stage to the next, a thousand schedules at once
	@$(bin)/python -m benchmarks pipelines

bench-peers: setup ## the same beside Slurm, where its packages are installed
	@$(bin)/python -m benchmarks.peers

lock: setup ## write the lock files anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
	@compile() { $(bin)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --no-config $(UPGRADE) "$$@" >/dev/null; }; set -e; \
	compile requirements/uv.in -o requirements/uv.txt; \
	compile pyproject.toml --extra dev -o requirements/dev.txt; \
	compile requirements/build.in -c requirements/dev.txt -o requirements/build.txt; \
	compile pyproject.toml --extra server -c requirements/dev.txt -o requirements/server.txt; \
	compile pyproject.toml --extra node -c requirements/dev.txt -o requirements/node.txt; \
	compile pyproject.toml --extra spark -c requirements/dev.txt -o requirements/spark.txt

clean: ## remove what the tools made; .trellis/ (your data) stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

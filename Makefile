# Each target sets itself up in .venv first and changes nothing outside this folder. pip's own settings (PIP_CONSTRAINT,
# PIP_EXTRA_INDEX_URL, ...) pass through.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

# Tests are small: more threads than this spend their time waiting for each other.
test: export OMP_NUM_THREADS ?= 2
test demo: export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs clean
.DELETE_ON_ERROR:
.NOTPARALLEL: # two pips in one environment get in each other's way

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.package ## align two made-up sections: pictures, data and a table of numbers in inst_align_demo/
	$(BIN)/inst-align demo

test: $(VENV)/.group-test ## run the tests (PYTEST_ARGS="-k name" and the like are handed on)
	$(BIN)/python -m pytest -m "not internet" $(PYTEST_ARGS)

lint: $(VENV)/.group-lint ## run the linters and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.group-doc ## build the docs in docs/_build/html
	rm -rf docs/generated
	$(BIN)/python -m sphinx -W --keep-going -E -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## remove everything that the other targets made
	rm -rf $(VENV) build dist docs/_build docs/generated docs/tutorials/*.ipynb inst_align_demo
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: a stamp in .venv stands for a finished step, so that a broken-off one is repeated

# PYTHON=... names the interpreter; else the first of these that is new enough and can make environments.
$(VENV)/.created:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV) && $(INSTALL) --upgrade 'pip>=25.1' && touch $@; \
	    exit; \
	  fi; \
	done; \
	echo "No Python >= 3.11 with the venv module among: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)." \
	  "Install one (on Debian and Ubuntu venv comes as python3-venv), or name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.package: $(VENV)/.created pyproject.toml
	@echo "Installing inst-align into $(VENV) (minutes at the first time)"
	@$(INSTALL) --editable .
	@touch $@

# Dependency groups (the reason for pip >= 25.1) of pyproject.toml; the package comes along.
$(VENV)/.group-%: $(VENV)/.created pyproject.toml
	@echo "Installing inst-align and its group '$*' into $(VENV) (minutes at the first time)"
	@$(INSTALL) --editable . --group $*
	@touch $@

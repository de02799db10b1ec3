# Everything lives in .venv; every target may be called again at any time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: run test lint parity clean

run: $(STAMP)  ## measure the embedded default and write the page
	@$(BIN)/rwkv-bench run configs/pocket.yaml; status=$$?; \
	$(BIN)/rwkv-bench report results/pocket && exit $$status

test: lint  ## everything that CI checks
	@$(BIN)/pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

parity: $(STAMP)  ## our logits against transformers' and pip rwkv's, one line a comparison
	@$(BIN)/python -m tests.parity

clean:  ## forget the environment; records in results/ stay
	rm -rf .venv

$(STAMP): pyproject.toml constraints.txt rwkv_core/wkv/cpu.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

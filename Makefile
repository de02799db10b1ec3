# Everything lives in .venv; every target may be called again at any time.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: docs run test lint parity zeroshot-check disturbance-check bench gpu gallery clean

run: $(STAMP)  ## measure the embedded default and write the page
	@$(BIN)/rwkv-bench run configs/pocket.yaml --jobs 2; status=$$?; \
	$(BIN)/rwkv-bench report results/pocket && exit $$status

test: lint  ## everything that CI checks
	@$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

parity: $(STAMP)  ## our logits of every version of RWKV against others' implementations, one line a comparison
	@$(BIN)/python -m tests.checks.parity

zeroshot-check: $(STAMP)  ## our zero-shot answers beside lm-eval's HFLM; and the time, with DATA=folder TOKENIZER=file
	@status=0; run() { $(BIN)/rwkv-bench run "$$@" --store results/zeroshot-check || status=$$?; }; \
	run configs/zeroshot-answers.yaml; \
	$(if $(DATA),run configs/zeroshot-check.yaml --data-dir '$(DATA)' --tokenizer '$(TOKENIZER)';) \
	$(BIN)/rwkv-bench report results/zeroshot-check --out reports/out/zeroshot-check && exit $$status

disturbance-check: $(STAMP)  ## are disturbed cells found, and quiet ones left alone? leave the machine alone: [CELLS=60]
	@$(BIN)/python -m tests.checks.disturbance --cells $(or $(CELLS),60)

bench: $(STAMP)  ## WKV of few tokens; then, as records, the kernels and the whole model beside their peers, on the CPU
	@$(BIN)/pytest tests/checks/bench_wkv.py --benchmark-columns=median,iqr,rounds --benchmark-sort=mean
	@status=0; for matrix in kernels-cpu versions-cpu; do $(BIN)/rwkv-bench run configs/$$matrix.yaml || status=$$?; done; \
	$(BIN)/rwkv-bench report results/kernels-cpu results/versions-cpu --out reports/out/kernels && exit $$status

gpu:  ## what only a GPU can show, without an installation; again until nothing is left: [BUDGET=480] [LIST=1] [REHEARSE=1]
	@BUDGET='$(BUDGET)' LIST='$(LIST)' REHEARSE='$(REHEARSE)' RESULTS='$(RESULTS)' \
	$(if $(and $(REHEARSE),$(wildcard $(BIN)/python)),$(BIN)/python,$(PYTHON)) -m tests.gpu

gallery: $(STAMP)  ## the pages of reports/gallery in reports/out/gallery, and the figures in docs/figures
	@for store in reports/gallery/*/records; do \
	  page=reports/out/gallery/$$(basename $$(dirname $$store)); \
	  $(BIN)/rwkv-bench report $$store --out $$page > /dev/null || exit 1; echo $$page/index.html; done
	@for figure in docs/figures/*/*.png; do \
	  cp reports/out/gallery/$$(basename $$(dirname $$figure))/figures/$$(basename $$figure) $$figure || exit 1; done

docs: $(STAMP)  ## docs/results, and the parts of other documents that are made of the gallery's rows
	@$(BIN)/python -m bench.documents

clean:  ## forget the environment; records in results/ stay
	rm -rf .venv

$(STAMP): pyproject.toml constraints.txt $(wildcard rwkv_core/wkv/*.h rwkv_core/*/*.c rwkv_core/wkv/*/*.c)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

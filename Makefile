# Each target makes .venv on demand and installs requirements.txt once; nothing else by hand.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/installed
AGAIN := $(MAKE) --no-print-directory
# By a variable of ours: a recipe that names MAKE itself is run even by `make -n`.

.PHONY: help repro check test browser test-cluster torture bench seeds sweep smoke medium paper \
  paper-rehearsal mnist lock clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

# Said before anything is installed. In a folder of another owner ("dubious") DVC goes on.
.PHONY: git
git:
	@why=$$(LC_ALL=C git rev-parse 2>&1) || case "$$why" in *dubious*) ;; *) \
	  echo "error: DVC needs git and a git repository here ("$$why");" \
	  "\`git clone\` instead of a zip, or: git init && git add . && git commit -m start" >&2; \
	  exit 2;; esac

$(READY): requirements.txt | git
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: $$($(PYTHON) --version 2>&1) found, Python 3.11 to 3.13 is needed;" \
	  "try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "Installing what requirements.txt pins into .venv: some minutes, torch is large"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# macOS has no sched_getaffinity. An empty JOBS is one: make would start all stages at once.
JOBS ?= $(shell $(PYTHON) -c 'import os; \
  print(len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)))')
repro: $(READY)   ## the whole pipeline to Figures 1 to 3, JOBS stages at once: one per core
	mkdir -p .dvc/tmp && python -m tools.parallel > .dvc/tmp/rules.mk
	$(AGAIN) --keep-going --jobs $(or $(strip $(JOBS)),1) --file .dvc/tmp/rules.mk
	@echo "Done. All on one page: reports/index.html; figures: reports/figures/;" \
	  "tables: reports/results.md; verdicts: reports/claims.md"

check: $(READY)   ## lint and unit tests, under a minute
	ruff check . && ruff format --check .
	python -m pytest tests/unit

test: $(READY)    ## all tests, the pipeline's too
	python -m pytest

.venv-browser/installed: tests/browser/requirements.txt
	$(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

browser: $(READY) .venv-browser/installed  ## the page and those of dvc plots in headless Chromium
	.venv-browser/bin/python -m tests.browser.check_page reports/index.html
	python -m tests.browser.plots_pages dvc_plots/revisions
	.venv-browser/bin/python -m tests.browser.check_plots dvc_plots/revisions

.venv/cluster: $(READY) cluster/requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r cluster/requirements.txt -c requirements.txt
	@touch $@

test-cluster: .venv/cluster  ## Slurm itself on this machine, as root on Debian
	python -m tests.cluster.check

torture: $(READY) ## faults of every kind at full counts, 20 minutes; fills docs/reliability.md
	OMP_NUM_THREADS=1 DEVICE=cpu python -m tests.robustness.torture --write

.venv-bench/installed: requirements.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -r benchmarks/requirements.txt
	@touch $@

bench: .venv-bench/installed  ## speed, as work grows, against others: 20 minutes, nothing beside it
	.venv-bench/bin/python -m benchmarks.throughput
	.venv-bench/bin/python -m benchmarks.scaling
	.venv-bench/bin/python -m benchmarks.peers

# An experiment that ends after its first stage leaves the parameters set; the others then run side
# by side. First the runner's look at dvc.lock, which names the remedy if it is torn.
SET := python -m tools.parallel > /dev/null && dvc exp run --quiet
SEEDS ?= 1 2
seeds: $(READY)   ## further seeds beside 0: means, deviations, bands in Figure 2
	mkdir -p reports/seeds
	for seed in $(SEEDS); do \
	  $(SET) -S seed=$$seed polymnist && $(AGAIN) repro && \
	  cp reports/seed.json reports/seeds/$$seed.json || exit 1; done
	$(SET) -S seed=0 polymnist && $(AGAIN) repro

sweep: $(READY)   ## Langevin steps x step size of the paper's sampler, by DVC's queue
	python -m tools.sweep

KEPT := figures plots metrics.json table.json claims.md results.md index.html
smoke medium paper paper-rehearsal: $(READY)
	$(SET) $$(sed 's/#.*//' profiles/$@.args) polymnist && $(AGAIN) repro
	mkdir -p reports/$@
	cp -R $(addprefix reports/,$(KEPT)) reports/$@/
	@echo "Kept in reports/$@/. Back to the committed run:" \
	  "git checkout params.yaml dvc.lock reports && dvc checkout"

smoke:           ## the whole pipeline, tiny: about 2 minutes
medium:          ## 60,000 tuples, 4 epochs, 2,000 samples per cell: an hour of CPU time and more
paper-rehearsal: ## the paper profile at 1 % of its data and steps, with all its epochs
paper:           ## 60,000 tuples, 300 epochs, 10,000 samples per cell, Inception FID: for a GPU

mnist: $(READY)   ## after a run on embedded digits: MNIST_DIR=FOLDER make mnist
	$(SET) -S polymnist.digits=mnist polymnist && $(AGAIN) repro

lock: $(READY)    ## compile requirements.in into requirements.txt anew
	.venv/bin/python -m pip install --quiet uv
	{ echo "# Exact pins for Python 3.11 to 3.13, CPU and CUDA; \`make lock\` compiles them."; \
	  uv pip compile -q --universal --no-annotate --no-header --python-version 3.11 \
	  requirements.in; } > requirements.tmp
	mv requirements.tmp requirements.txt

clean:           ## remove what the pipeline made, DVC's cache too; keeps reports/, data/raw, .venv
	rm -rf data/polymnist latents models results .dvc/cache .dvc/tmp .checkpoints
